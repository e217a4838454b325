//! To whom what is made in a sandbox belongs.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, mkdirat, openat};
use rustix::io::Errno;

/// The user and group inside, as the host sees them: restored files are given to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id on the host.
    pub uid: u32,
    /// Group id on the host.
    pub gid: u32,
}

impl Owner {
    /// Gives him an open file or directory.
    ///
    /// # Errors
    /// The file system's.
    pub fn gets(self, fd: impl AsFd) -> rustix::io::Result<()> {
        fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }

    /// A directory of his in another, made where there is none. What lies there instead is not followed.
    ///
    /// # Errors
    /// The file system's.
    pub fn directory(self, at: impl AsFd, name: &str, mode: Mode) -> rustix::io::Result<OwnedFd> {
        match mkdirat(&at, name, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let directory = openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        self.gets(&directory)?;
        Ok(directory)
    }
}
