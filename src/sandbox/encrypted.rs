//! Encrypted scratch, in the form that this user can have: a volume as root, else a directory whose files are encrypted.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::error::{SandboxError, Step};
use super::fscrypt::{self, CIPHER, KeyId};
use super::place::Held;
use super::scratch::{PlainDirectory, Rooms, label};
use super::spec::SandboxSpec;
use super::volume::{self, Volume};
use crate::domain::Probe;

/// What is held of it.
#[derive(Debug)]
pub(super) enum Encrypted {
    /// A file system of its own, in an encrypted file.
    Volume(Box<Volume>),
    /// A labelled directory on a file system that encrypts, under this key.
    Directory(KeyId),
}

/// Makes a volume and a detached mount of it. Needs root.
pub(super) async fn make_volume(spec: &SandboxSpec, held: &mut Held, inodes: u64) -> Result<OwnedFd, SandboxError> {
    let parent = held.scratch_parent.clone().expect("encrypted scratch has a parent");
    let (label, bytes) = (label(&spec.drill), spec.limits.scratch_size.0);
    let made = tokio::task::spawn_blocking(move || volume::make(&parent, &label, bytes, inodes));
    let made = made.await.map_err(|_| SandboxError::Died { how: "making its encrypted volume broke down".to_owned() })?;
    let (volume, mount) = made?;
    // Only now: until it stands, its loop devices go with whoever ends.
    held.claim.as_mut().expect("claimed before anything is made").note_loops(volume.loops())?;
    held.encrypted = Some(Encrypted::Volume(Box::new(volume)));
    Ok(mount)
}

/// Makes a directory whose files the kernel encrypts, where the file system that it lies on can.
pub(super) fn make_directory(spec: &SandboxSpec, held: &mut Held) -> Result<(), SandboxError> {
    let parent = held.scratch_parent.as_deref().expect("encrypted scratch has a parent");
    let directory = held.directory.insert(PlainDirectory::make(parent, &spec.drill).step("make the scratch directory")?);
    let key = fscrypt::add_random_key(&directory.directory).map_err(|e| SandboxError::Unavailable {
        why: format!("an ordinary user has no encrypted volume, and the file system of the directory for scratch encrypts nothing: {e}"),
        advice: "run as root; or let an administrator run `tune2fs -O encrypt` on that ext4; or use scratch of kind \"tmpfs\"".to_owned(),
    })?;
    held.encrypted = Some(Encrypted::Directory(key));
    held.claim.as_mut().expect("claimed before anything is made").note_key(key)?;
    let rooms = Rooms::make(&directory.directory, held.owner.uid, held.owner.gid).step("furnish the scratch")?;
    for room in [&rooms.tree, &rooms.spool, &rooms.kit] {
        fscrypt::encrypt(room, &key).step("encrypt the scratch directory")?;
    }
    held.rooms = Some(rooms);
    Ok(())
}

/// How the evidence calls it, and what is weak about it.
pub(super) fn words(held: &Held) -> (String, Vec<String>) {
    match &held.encrypted {
        Some(Encrypted::Directory(_)) => (
            format!("encrypted directory (fscrypt, {CIPHER}), its key in kernel memory only"),
            vec![
                "scratch is encrypted file by file: sizes, times, modes and extended attributes stay readable on the disk; attributes of the backup were left out".to_owned(),
                "the size of a scratch directory is held by the restore's budget, not by the file system".to_owned(),
                "after a crash the key stays in the kernel until `firedrill reap`, the next start or a reboot; a power cut takes it at once".to_owned(),
            ],
        ),
        Some(Encrypted::Volume(volume)) => {
            let mut remarks =
                vec!["while the drill lasts, whoever may read the host's block devices (root, group disk) can read the volume".to_owned()];
            if !volume.reserved {
                remarks.push("the disk's space could not be set aside: if others fill the disk, writes to scratch fail late".to_owned());
            }
            (VOLUME.to_owned(), remarks)
        }
        None => (VOLUME.to_owned(), Vec::new()),
    }
}

const VOLUME: &str = "encrypted volume (ext4 in one file under fscrypt, AES-256-XTS), its key in kernel memory only";

impl Encrypted {
    /// The end: the key goes first, then what it had encrypted. Says how, and what is gone.
    pub fn close(self, directory: Option<&PlainDirectory>) -> (&'static str, Vec<Probe>) {
        match self {
            Encrypted::Volume(volume) => (
                "cryptographic erase (NIST SP 800-88): scratch was an encrypted volume, fscrypt AES-256-XTS under a 512-bit key from getrandom(2) that only the kernel held and that was written nowhere; the key was wiped, then the noise it left was released",
                volume.close(),
            ),
            Encrypted::Directory(key) => {
                let gone = directory.is_some_and(|d| volume::erase(d.directory.as_fd(), &key, Duration::from_secs(5)));
                (
                    "cryptographic erase (NIST SP 800-88): scratch was a directory of encrypted files, fscrypt AES-256-XTS under a 512-bit key from getrandom(2) that only the kernel held and that was written nowhere; the key was wiped, then the files were unlinked; their sizes and times were not encrypted",
                    vec![Probe { what: "the scratch's key in the kernel".to_owned(), gone }],
                )
            }
        }
    }
}
