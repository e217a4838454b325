//! The encrypted volume: for restores larger than memory, on a disk that never sees a byte of them in clear.
//!
//! ```text
//! image (a file without a name, its space reserved) -> loop device -> ext4 with encryption
//!    -> one file in it, encrypted by the kernel (fscrypt) -> loop device -> ext4: the restored tree and the spool
//! ```
//!
//! Why twice: fscrypt encrypts contents and names, and leaves sizes, times and extended attributes in clear; of a whole file
//! system in one encrypted file nothing is left to read. dm-crypt would do the same in one step, but its mapping outlives a
//! runner that is killed, and not every kernel has it.
//!
//! Nothing of it has a name, and each part holds the next by a reference of the kernel: when the last process goes, however it
//! goes, the mounts, loop devices, key and image go. After a power cut the disk has noise.
//!
//! While it stands, whoever may read the host's block devices can read it: root, and by custom the group `disk`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom, fallocate, fstatvfs, ftruncate, mkdirat, open, openat, seek};
use rustix::io::Errno;

use super::error::{SandboxError, Step};
use super::fscrypt::{self, KeyId};
use super::loops::{self, Caching, LoopRef};
use super::scratch::open_mount;
use super::sys::{check, find, mount_ext4, within};
use crate::domain::{ByteSize, Probe};

const PATIENCE: Duration = Duration::from_secs(10);
const BLOCK: u64 = 4096;
/// Most bytes of the image in which the marker is looked for, beside the very block where it was written.
const SEARCHED_AT_MOST: u64 = 256 << 20;
const MARKER_BYTES: usize = 32;
/// What the image holds: one file. Without a journal: it is never mounted a second time.
const OUTER: &str = "none,encrypt,extent,filetype,flex_bg,sparse_super,large_file,huge_file,uninit_bg,extra_isize,64bit,ext_attr,dir_index";
/// What is restored: anything. `ea_inode` is for attributes larger than a block, `large_dir` for directories of millions.
const INNER: &str = "none,extent,filetype,flex_bg,sparse_super,large_file,huge_file,uninit_bg,dir_nlink,extra_isize,64bit,dir_index,ext_attr,large_dir,ea_inode";

/// How large the two files are, so that what was asked for is free for what is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    image: u64,
    inner: u64,
    inodes: u64,
}

impl Shape {
    fn of(bytes: u64, inodes: u64) -> Shape {
        // A file takes a block, mostly: more inodes than blocks would be space for nothing.
        // The first sixteen are ext4's own.
        let inodes = inodes.min((bytes / BLOCK).max(4_096)).min(u64::from(u32::MAX) - 4_096) + 16;
        // ext4 keeps a fiftieth, 16 MiB at most, and its maps.
        let maps = |bytes: u64| bytes / 1_024 + (bytes / 50).min(16 << 20) + (4 << 20);
        let inner = (bytes + inodes * 256 + maps(bytes)).next_multiple_of(BLOCK);
        Shape { image: (inner + maps(inner) + (16 << 20)).next_multiple_of(BLOCK), inner, inodes }
    }
}

/// An encrypted volume, open. Dropping it lets go of all of it; closing it looks for remains as well.
#[derive(Debug)]
pub(super) struct Volume {
    image: File,
    /// Of the outer file system: its mount, and its top directory.
    outer: Option<(OwnedFd, OwnedFd)>,
    key: KeyId,
    outer_loop: LoopRef,
    inner_loop: LoopRef,
    marker: Marker,
    /// Whether the image's space was set aside when it was made, so that no write can fail for want of it.
    pub reserved: bool,
}

/// A random marker that was written into the volume, and where it lies in the raw image.
#[derive(Debug)]
struct Marker {
    bytes: [u8; MARKER_BYTES],
    block: u64,
}

/// Whether the inner file is encrypted: always, but for the test that shows that the marker would be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    On,
    #[cfg(test)]
    Off,
}

/// Makes a volume of `bytes` in the directory `parent`, and a detached mount of it.
pub(super) fn make(parent: &Path, label: &str, bytes: u64, inodes: u64) -> Result<(Volume, OwnedFd), SandboxError> {
    make_with(Encryption::On, parent, label, (bytes, inodes))
}

fn make_with(encryption: Encryption, parent: &Path, label: &str, (bytes, inodes): (u64, u64)) -> Result<(Volume, OwnedFd), SandboxError> {
    let mkfs = find_mkfs()?;
    let shape = Shape::of(bytes, inodes);
    let image = nameless(parent, label).step("make the image of the encrypted volume")?;
    let reserved = reserve(&image, shape.image)?;
    format(&mkfs, &image, OUTER, 16)?;
    let outer_loop = loops::attach(&image, label, Caching::Above).map_err(no_loop)?;
    let mount = mount_ext4(&outer_loop.path()).map_err(no_encryption)?;
    let top = open_mount(&mount).step("open the encrypted volume")?;
    let key = fscrypt::add_random_key(&top).map_err(no_encryption)?;
    mkdirat(&top, "sealed", Mode::RWXU).step("make the encrypted volume")?;
    let sealed = openat(&top, "sealed", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let sealed = sealed.step("make the encrypted volume")?;
    if encryption == Encryption::On {
        fscrypt::encrypt(&sealed, &key).map_err(no_encryption)?;
    }

    let inside = openat(&sealed, ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    let inside = File::from(inside.step("make the encrypted volume")?);
    fallocate(&inside, FallocateFlags::empty(), 0, shape.inner).step("size the encrypted volume")?;
    format(&mkfs, &inside, INNER, shape.inodes)?;
    let inner_loop = loops::attach(&inside, label, Caching::Both).map_err(no_loop)?;
    let inner = mount_ext4(&inner_loop.path()).step("mount the encrypted volume")?;
    let marker = plant(&inner, &inside).step("write a marker into the encrypted volume")?;
    // From here on the mounts alone hold the loop devices.
    let (outer_loop, inner_loop) = (outer_loop.what.clone(), inner_loop.what.clone());
    Ok((Volume { image, outer: Some((mount, top)), key, outer_loop, inner_loop, marker, reserved }, inner))
}

fn no_loop(error: io::Error) -> SandboxError {
    SandboxError::Unavailable {
        why: format!("an encrypted volume needs two free loop devices: {error}"),
        advice: "run as root, with the loop driver (modprobe loop) and /dev/loop-control; or use scratch of kind \"tmpfs\"".to_owned(),
    }
}

fn no_encryption(error: impl Into<io::Error>) -> SandboxError {
    let error: io::Error = error.into();
    SandboxError::Unavailable {
        why: format!("the kernel does not encrypt files on ext4: {error}"),
        advice: "use a kernel with CONFIG_EXT4_FS and CONFIG_FS_ENCRYPTION (Debian's and Ubuntu's have both); or scratch of kind \"tmpfs\""
            .to_owned(),
    }
}

/// A file without a name; where the file system has no such thing, one that has it for a moment.
fn nameless(parent: &Path, label: &str) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    match open(parent, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
        Ok(file) => return Ok(file.into()),
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {}
        Err(e) => return Err(e.into()),
    }
    let path = parent.join(format!("{label}.image"));
    let file = open(&path, OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC, mode)?;
    std::fs::remove_file(&path)?;
    Ok(file.into())
}

/// Sets the space aside at once: a disk that fills up later would swallow writes without a word. `false` where it cannot be.
fn reserve(image: &File, bytes: u64) -> Result<bool, SandboxError> {
    let stat = fstatvfs(image).step("ask for free space on the disk")?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let too_small = || SandboxError::Unavailable {
        why: format!("the disk for scratch has {} free, and the encrypted volume takes {}", ByteSize(free), ByteSize(bytes)),
        advice: "free some, name a directory on a larger disk, or ask for a smaller scratch".to_owned(),
    };
    if free < bytes {
        return Err(too_small());
    }
    match fallocate(image, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(true),
        Err(Errno::NOSPC | Errno::DQUOT) => Err(too_small()),
        Err(Errno::OPNOTSUPP) => ftruncate(image, bytes).step("size the encrypted volume").map(|()| false),
        Err(e) => Err(e).step("reserve space for the encrypted volume"),
    }
}

fn find_mkfs() -> Result<PathBuf, SandboxError> {
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin", "/run/current-system/sw/bin"];
    places.iter().map(|p| Path::new(p).join("mkfs.ext4")).find(|p| p.exists()).ok_or_else(|| SandboxError::Unavailable {
        why: "mkfs.ext4 is not installed, which makes encrypted volumes".to_owned(),
        advice: "apt-get install e2fsprogs; or use scratch of kind \"tmpfs\"".to_owned(),
    })
}

/// Makes an ext4 in a file. The tool gets the file as its standard input: it has no name to give.
fn format(mkfs: &Path, file: &File, features: &str, inodes: u64) -> Result<(), SandboxError> {
    let step = "run mkfs.ext4";
    let output = Command::new(mkfs)
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-N", &inodes.to_string(), "-O", features])
        .args(["-E", "lazy_itable_init=1,nodiscard", "/proc/self/fd/0"])
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::from(file.try_clone().step(step)?))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .step(step)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(300).collect();
    Err(SandboxError::Unavailable {
        why: format!("mkfs.ext4 could not make the encrypted volume ({}): {said}", output.status),
        advice: "e2fsprogs 1.43 or newer is needed".to_owned(),
    })
}

/// Writes the marker through to the image's file, and finds out where it is there.
fn plant(inner: &OwnedFd, inside: &File) -> io::Result<Marker> {
    let mut bytes = [0; MARKER_BYTES];
    let mut filled = 0;
    while filled < MARKER_BYTES {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    let top = open_mount(inner)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let mut file = File::from(openat(&top, ".firedrill-marker", flags, Mode::RUSR)?);
    file.write_all(&bytes)?;
    file.sync_all()?;
    inside.sync_all()?;
    let block = block_at(inside, block_at(&file, 0)?)?;
    Ok(Marker { bytes, block })
}

/// `fiemap`, and room for one extent.
#[repr(C)]
#[derive(Default)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    reserved: u32,
    extent: Extent,
}

/// `fiemap_extent`.
#[repr(C)]
#[derive(Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

/// Where, on the device below, a file has what is at `offset`.
fn block_at(file: &File, offset: u64) -> io::Result<u64> {
    const NUMBER: rustix::ioctl::Opcode = rustix::ioctl::opcode::read_write::<[u8; 32]>(b'f', 11);
    const NOT_YET: u32 = 0x2 | 0x4;
    let mut map = Fiemap { start: offset, length: 1, room: 1, ..Fiemap::default() };
    // SAFETY: `map` is a `struct fiemap` followed by the one extent that it says it has room for.
    check(unsafe { libc::ioctl(file.as_raw_fd(), NUMBER as _, std::ptr::from_mut(&mut map)) })?;
    if map.mapped != 1 || map.extent.flags & NOT_YET != 0 {
        return Err(io::Error::other("a file's block could not be found"));
    }
    Ok(map.extent.physical + (offset - map.extent.logical))
}

/// What a search for the marker in the raw image came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Searched {
    /// Whether the block that it was written to holds anything: else the search shows nothing.
    written: bool,
    found: bool,
    bytes: u64,
    of: u64,
}

/// Looks for the marker where it was written, and in the first `cap` bytes that the image has on disk.
fn search(image: &File, marker: &Marker, cap: u64) -> io::Result<Searched> {
    let mut block = vec![0; BLOCK as usize];
    image.read_exact_at(&mut block, marker.block)?;
    let written = block.iter().any(|b| *b != 0);
    let mut result = Searched { written, found: find(&block, &marker.bytes).is_some(), bytes: 0, of: 0 };
    let overlap = MARKER_BYTES - 1;
    let mut buffer = vec![0; overlap + (1 << 20)];
    let mut at = 0;
    loop {
        let start = match seek(image, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(result),
            Err(e) => return Err(e.into()),
        };
        let end = seek(image, SeekFrom::Hole(start))?;
        result.of += end - start;
        buffer[..overlap].fill(0);
        let mut from = start;
        while from < end && result.bytes < cap {
            let length = (end - from).min(1 << 20) as usize;
            image.read_exact_at(&mut buffer[overlap..overlap + length], from)?;
            result.found |= find(&buffer[..overlap + length], &marker.bytes).is_some();
            buffer.copy_within(length..length + overlap, 0);
            from += length as u64;
            result.bytes += length as u64;
        }
        at = end;
    }
}

impl Volume {
    /// What to look for after a crash, the inner one last.
    pub fn loops(&self) -> Vec<LoopRef> {
        vec![self.outer_loop.clone(), self.inner_loop.clone()]
    }

    /// Takes the volume apart, innermost first, and tells what is gone. Everything inside has ended, and its mount was let go of.
    pub fn close(mut self) -> Vec<Probe> {
        let probe = |what: &str, gone: bool| Probe { what: what.to_owned(), gone };
        let closed = self.inner_loop.is_gone_within(PATIENCE);
        let mut probes = vec![probe("the loop device of the opened volume", closed)];
        // Where something is still open the key goes all the same: what was not read yet is noise from here on.
        let patience = if closed { PATIENCE } else { Duration::ZERO };
        let erased = self.outer.as_ref().is_some_and(|(_, top)| erase(top, &self.key, patience));
        probes.push(probe("the volume's key in the kernel", erased));
        probes.push(self.looked_for_marker());
        self.outer = None;
        probes.push(probe("the loop device of the volume's image", self.outer_loop.is_gone_within(patience)));
        let nameless = self.image.metadata().is_ok_and(|m| m.nlink() == 0);
        probes.push(probe("a name of the volume's image on the disk", nameless));
        probes
    }

    fn looked_for_marker(&self) -> Probe {
        match search(&self.image, &self.marker, SEARCHED_AT_MOST) {
            Ok(found) => Probe {
                what: format!(
                    "a random marker of {MARKER_BYTES} bytes, written into the volume, in its raw image (looked for where it was written and in {} of {} on disk)",
                    ByteSize(found.bytes),
                    ByteSize(found.of)
                ),
                gone: found.written && !found.found,
            },
            Err(e) => {
                Probe { what: format!("a random marker in the volume's raw image (it could not be read: {})", e.kind()), gone: false }
            }
        }
    }
}

/// Wipes a key from the kernel and looks whether it is gone.
pub(super) fn erase(fs: impl AsFd, key: &KeyId, patience: Duration) -> bool {
    let wiped = within(patience, || fscrypt::remove_key(fs.as_fd(), key).is_ok_and(|all| all));
    wiped && fscrypt::is_absent(fs, key).is_ok_and(|absent| absent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_structures_have_their_sizes() {
        assert_eq!((size_of::<Fiemap>(), size_of::<Extent>()), (88, 56));
    }

    #[test]
    fn no_shape_overflows_or_is_smaller_than_what_is_asked_for() {
        for bytes in [1 << 20, 32 << 20, 8 << 30, 200 << 30, 64 << 40] {
            for inodes in [1, 100, 50_000_000, u64::MAX] {
                let shape = Shape::of(bytes, inodes);
                assert!(shape.inner > bytes && shape.image > shape.inner, "{shape:?}");
                assert!(shape.image < bytes + bytes / 10 + (80 << 20), "{bytes}: {shape:?}");
            }
        }
    }

    fn ordinary_user() -> bool {
        let ordinary = !rustix::process::geteuid().is_root();
        if ordinary {
            println!("a volume needs root: tests/it/encrypted_scratch.rs shows what an ordinary user has instead");
        }
        ordinary
    }

    fn made(encryption: Encryption, bytes: u64) -> (Volume, OwnedFd) {
        make_with(encryption, Path::new("/var/tmp"), "firedrill-test", (bytes, 1_000_000)).unwrap()
    }

    #[test]
    fn what_was_asked_for_is_free_and_what_is_closed_is_gone() {
        if ordinary_user() {
            return;
        }
        for bytes in [1 << 20, 40 << 20, 600 << 20] {
            let (volume, mount) = made(Encryption::On, bytes);
            let stat = fstatvfs(open_mount(&mount).unwrap()).unwrap();
            assert!(
                stat.f_bavail * stat.f_frsize >= bytes && stat.f_favail * BLOCK >= bytes,
                "{bytes}: {} bytes, {} files",
                stat.f_bavail * stat.f_frsize,
                stat.f_favail
            );
            assert!(volume.reserved);
            drop(mount);
            let probes = volume.close();
            assert!(probes.len() == 5 && probes.iter().all(|p| p.gone), "{probes:#?}");
        }
    }

    #[test]
    fn a_marker_that_was_not_encrypted_is_found() {
        if ordinary_user() {
            return;
        }
        let (volume, mount) = made(Encryption::Off, 8 << 20);
        // In its own block, and by the search, each without the other.
        let elsewhere = Marker { bytes: volume.marker.bytes, block: 0 };
        assert!(search(&volume.image, &elsewhere, SEARCHED_AT_MOST).unwrap().found);
        let found = search(&volume.image, &volume.marker, 0).unwrap();
        assert!(found.found && found.written && found.bytes == 0 && found.of > 0, "{found:?}");
        drop(mount);
        let left: Vec<_> = volume.close().into_iter().filter(|p| !p.gone).map(|p| p.what).collect();
        assert!(left.len() == 1 && left[0].contains("a random marker of 32 bytes"), "{left:?}");
    }

    #[test]
    fn an_open_file_inside_is_told_by_every_probe_that_sees_it() {
        if ordinary_user() {
            return;
        }
        let (volume, mount) = made(Encryption::On, 8 << 20);
        let held = open_mount(&mount).unwrap();
        drop(mount);
        let left: Vec<_> = volume.close().into_iter().filter(|p| !p.gone).map(|p| p.what).collect();
        assert_eq!(
            left,
            ["the loop device of the opened volume", "the volume's key in the kernel", "the loop device of the volume's image"]
        );
        drop(held);
    }

    #[test]
    fn a_disk_that_is_too_small_is_told_before_anything_is_made() {
        if ordinary_user() {
            return;
        }
        let made = make(Path::new("/var/tmp"), "firedrill-test", 1 << 50, 1_000);
        assert!(matches!(made, Err(SandboxError::Unavailable { why, advice }) if why.contains("free") && advice.contains("smaller")));
    }
}
