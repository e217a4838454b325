//! Pinned objects copied into the sandbox's scratch through the vault view: for tools that only read directories.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::{TryStreamExt, stream};
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::domain::{PathError, RestorePath};
use crate::restore::{CancelFlag, Progress};
use crate::sandbox::Owner;
use crate::vault::{Digesting, Pinned, VaultError, VaultView};

/// Objects that are copied at the same time; each is fetched in parallel ranges of its own.
const AT_ONCE: usize = 3;
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Why a mirror could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// A key makes no path below a directory.
    #[error("object {number} has a key that no directory can hold")]
    Name {
        /// Its number among the objects.
        number: usize,
        /// Which rule it breaks.
        #[source]
        source: PathError,
    },
    /// An object could not be read.
    #[error("object {number} could not be read")]
    Read {
        /// Its number among the objects.
        number: usize,
        /// Why.
        #[source]
        source: VaultError,
    },
    /// Scratch is full.
    #[error("scratch is full")]
    ScratchFull,
    /// Scratch could not be written.
    #[error("scratch could not be written ({operation})")]
    Scratch {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Somebody ended it.
    #[error("the mirror was ended from outside")]
    Cancelled,
}

/// What a mirror works with, beside the view and the objects.
pub struct MirrorInto {
    /// The directory it is made in, empty.
    pub directory: OwnedFd,
    /// To whom everything in it is given.
    pub owner: Owner,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Ends it while it writes.
    pub cancel: CancelFlag,
    /// Ends it while it waits for the storage.
    pub ended: CancellationToken,
    /// Held as long as a thread of it works.
    pub working: tokio::sync::mpsc::Sender<()>,
}

/// Copies every object to the path that `name` makes of its key.
///
/// # Errors
/// [`MirrorError`].
pub async fn mirror(
    view: &VaultView,
    objects: &[Pinned],
    name: &(dyn Fn(&str) -> String + Sync),
    into: MirrorInto,
) -> Result<(), MirrorError> {
    let into = Arc::new(into);
    let paths = objects.iter().enumerate().map(|(number, pinned)| {
        let path = RestorePath::from_bytes(name(&pinned.object.key).as_bytes()).map_err(|source| MirrorError::Name { number, source })?;
        if path.is_root() { Err(MirrorError::Name { number, source: PathError::Absolute }) } else { Ok((number, path)) }
    });
    // every name is judged before anything is fetched
    let paths = paths.collect::<Result<Vec<_>, _>>()?;
    stream::iter(paths.into_iter().map(Ok))
        .map_ok(|(number, path)| {
            let reader = view.reader(&objects[number], Digesting::Both).until(into.ended.clone());
            let into = Arc::clone(&into);
            async move {
                let copied = tokio::task::spawn_blocking(move || {
                    let _working = into.working.clone();
                    let size = reader.size();
                    let source = reader.open(0..size).map_err(|e| of_reading(number, e))?;
                    copy(source, number, size, &path, &into)
                });
                copied.await.map_err(|_| MirrorError::Cancelled)?
            }
        })
        .try_buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

fn of_reading(number: usize, error: io::Error) -> MirrorError {
    match error.downcast::<VaultError>() {
        Ok(source) => MirrorError::Read { number, source },
        Err(source) => MirrorError::Scratch { operation: "read an object", source },
    }
}

fn of_writing(operation: &'static str, error: impl Into<io::Error>) -> MirrorError {
    let source = error.into();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => MirrorError::ScratchFull,
        _ => MirrorError::Scratch { operation, source },
    }
}

fn copy(mut source: Box<dyn Read + Send>, number: usize, size: u64, path: &RestorePath, into: &MirrorInto) -> Result<(), MirrorError> {
    let mut file = make_file(into, path)?;
    let mut buffer = vec![0; 256 << 10];
    let mut copied = 0;
    loop {
        if into.cancel.is_cancelled() {
            return Err(MirrorError::Cancelled);
        }
        match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                file.write_all(&buffer[..n]).map_err(|e| of_writing("write a mirrored object", e))?;
                copied += n as u64;
                into.progress.read.fetch_add(n as u64, Ordering::Relaxed);
                into.progress.written.fetch_add(n as u64, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(of_reading(number, error)),
        }
    }
    debug_assert_eq!(copied, size, "a reader ends at the object's end, or with an error");
    into.progress.entries.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Makes the file and the directories that lead to it; nothing that is there is followed or replaced.
fn make_file(into: &MirrorInto, path: &RestorePath) -> Result<File, MirrorError> {
    let give = |fd: &OwnedFd| into.owner.gets(fd).map_err(|e| of_writing("give a mirrored object to its user", e));
    let (parents, name) = path.split();
    let mut directory = into.directory.try_clone().map_err(|e| of_writing("open the mirror", e))?;
    for part in parents.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        let part = std::ffi::CString::new(part).map_err(|e| of_writing("make a directory", e))?;
        let made = match mkdirat(&directory, &part, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(e) => return Err(of_writing("make a directory", e)),
        };
        let next = openat(directory.as_fd(), &part, DIRECTORY, Mode::empty()).map_err(|e| of_writing("open a directory", e))?;
        if made {
            give(&next)?;
        }
        directory = next;
    }
    let name = std::ffi::CString::new(name).map_err(|e| of_writing("make a file", e))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&directory, &name, flags, Mode::RUSR | Mode::WUSR).map_err(|e| of_writing("make a file", e))?;
    give(&file)?;
    Ok(File::from(file))
}
