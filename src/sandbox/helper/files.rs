//! Small files for one command, in memory: made before it starts, gone when it has ended.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;

use data_encoding::BASE64;
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, mkdirat, open, openat};

use super::super::PRIVATE_FILES;
use super::super::wire::{FileOrder, IdMap, Setup};
use super::INNER_ID;

/// Makes them, for the user inside alone. What an earlier command put in their place goes first.
pub(super) fn place(setup: &Setup, files: &[FileOrder]) -> io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    remove();
    mkdirat(CWD, PRIVATE_FILES, Mode::RWXU)?;
    let directory = open(PRIVATE_FILES, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let give = |fd: &dyn AsFd| match setup.ids {
        IdMap::Range { .. } => fchown(fd.as_fd(), Some(Uid::from_raw(INNER_ID)), Some(Gid::from_raw(INNER_ID))),
        IdMap::Single { .. } => Ok(()),
    };
    for file in files {
        let content = BASE64.decode(file.content.as_bytes()).map_err(io::Error::other)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut made = fs::File::from(openat(&directory, &file.name, flags, Mode::RUSR | Mode::WUSR)?);
        made.write_all(&content)?;
        give(&made)?;
    }
    Ok(give(&directory)?)
}

/// Takes them away.
pub(super) fn remove() {
    // where it is a link, the link alone goes
    if fs::remove_dir_all(PRIVATE_FILES).is_err() {
        let _ = fs::remove_file(PRIVATE_FILES);
    }
}
