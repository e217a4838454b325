//! A tree as it is on disk, in the order of its paths: never through a link, never into another mount.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::domain::{EntryKind, FileEntry, RestorePath, Xattr};

/// What to look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct WalkOptions {
    /// Whether to read `user.*` attributes: one more system call for each entry.
    pub xattrs: bool,
}

/// Why a tree could not be read. The text holds no path.
#[derive(Debug, thiserror::Error)]
#[error("the restored tree could not be read ({operation})")]
pub struct WalkError {
    /// What was tried.
    pub operation: &'static str,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

fn failed(operation: &'static str, error: impl Into<io::Error>) -> WalkError {
    WalkError { operation, source: error.into() }
}

/// Entries of a tree, without its root, in the order of [`RestorePath`]. Digests are not computed.
///
/// Memory is bounded by the names in the directories from the root down to where it is, and by the files that have several
/// names.
pub struct Walk {
    stack: Vec<Level>,
    /// First names of files that have several.
    names: HashMap<(u64, u64), RestorePath>,
    options: WalkOptions,
    device: u64,
    failed: bool,
}

struct Level {
    directory: OwnedFd,
    path: RestorePath,
    /// Names still to visit, last first.
    names: Vec<CString>,
}

/// Walks the tree below `root`.
///
/// # Errors
/// [`WalkError`] where the root itself cannot be read.
pub fn walk(root: BorrowedFd<'_>, options: WalkOptions) -> Result<Walk, WalkError> {
    let directory =
        fs::openat(root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| failed("open", e))?;
    let device = fs::fstat(&directory).map_err(|e| failed("look at the root", e))?.st_dev;
    let names = sorted_names(&directory)?;
    let level = Level { directory, path: RestorePath::root(), names };
    Ok(Walk { stack: vec![level], names: HashMap::new(), options, device, failed: false })
}

fn sorted_names(directory: &OwnedFd) -> Result<Vec<CString>, WalkError> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).map_err(|e| failed("list a directory", e))? {
        let entry = entry.map_err(|e| failed("list a directory", e))?;
        let name = entry.file_name();
        if name.to_bytes() != b"." && name.to_bytes() != b".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

impl Iterator for Walk {
    type Item = Result<FileEntry, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = self.step().transpose();
        self.failed = matches!(result, Some(Err(_)));
        result
    }
}

impl Walk {
    fn step(&mut self) -> Result<Option<FileEntry>, WalkError> {
        let (name, path) = loop {
            let Some(level) = self.stack.last_mut() else { return Ok(None) };
            match level.names.pop() {
                Some(name) => {
                    let path = level.path.join(name.as_bytes()).map_err(|e| failed("name an entry", io::Error::other(e)))?;
                    break (name, path);
                }
                None => {
                    self.stack.pop();
                }
            }
        };
        let level = self.stack.last().expect("the loop above ended at a level");
        let stat = fs::statat(&level.directory, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed("look at an entry", e))?;
        let xattrs = if self.options.xattrs { xattrs(&level.directory, &name)? } else { Vec::new() };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if stat.st_dev == self.device {
                    self.descend(&name, &path)?;
                }
                EntryKind::Dir
            }
            FileType::Symlink => {
                let target = fs::readlinkat(&level.directory, &name, Vec::new()).map_err(|e| failed("read a link", e))?;
                EntryKind::Symlink { target: target.into_bytes() }
            }
            FileType::Fifo => self.linked(&stat, &path).unwrap_or(EntryKind::Fifo),
            FileType::CharacterDevice | FileType::BlockDevice => EntryKind::Device {
                block: FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice,
                major: fs::major(stat.st_rdev),
                minor: fs::minor(stat.st_rdev),
            },
            _ => {
                let file = EntryKind::File { size: u64::try_from(stat.st_size).unwrap_or(0), blake3: None };
                self.linked(&stat, &path).unwrap_or(file)
            }
        };
        Ok(Some(FileEntry {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: stat.st_mtime,
            mtime_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            xattrs,
        }))
    }

    /// The earlier name of a file that has several.
    fn linked(&mut self, stat: &Stat, path: &RestorePath) -> Option<EntryKind> {
        if stat.st_nlink < 2 {
            return None;
        }
        match self.names.entry((stat.st_dev, stat.st_ino)) {
            std::collections::hash_map::Entry::Occupied(first) => Some(EntryKind::Hardlink { target: first.get().clone() }),
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(path.clone());
                None
            }
        }
    }

    fn descend(&mut self, name: &CString, path: &RestorePath) -> Result<(), WalkError> {
        let level = self.stack.last().expect("called from a level");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        match fs::openat2(&level.directory, name, flags, Mode::empty(), resolve) {
            Ok(directory) => {
                let names = sorted_names(&directory)?;
                self.stack.push(Level { directory, path: path.clone(), names });
                Ok(())
            }
            // another mount, bound there: not part of this tree
            Err(Errno::XDEV) => Ok(()),
            Err(e) => Err(failed("open a directory", e)),
        }
    }
}

/// `user.*` attributes of an entry, sorted; the way through /proc ends at a descriptor of ours and follows no last link.
fn xattrs(directory: &OwnedFd, name: &CString) -> Result<Vec<Xattr>, WalkError> {
    let path = [format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).as_bytes(), name.as_bytes()].concat();
    let path = CString::new(path).expect("neither part has a NUL");
    let mut list = vec![0u8; 1024];
    let length = loop {
        match fs::llistxattr(path.as_c_str(), &mut list[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) if list.len() < 1 << 20 => list.resize(list.len() * 8, 0),
            Err(Errno::NOTSUP | Errno::ACCESS | Errno::PERM) => return Ok(Vec::new()),
            Err(e) => return Err(failed("list attributes", e)),
        }
    };
    let mut xattrs = Vec::new();
    for name in list[..length].split(|&b| b == 0).filter(|n| n.starts_with(b"user.")) {
        let mut value = vec![0u8; 64 << 10];
        let length = fs::lgetxattr(path.as_c_str(), name, &mut value[..]).map_err(|e| failed("read an attribute", e))?;
        value.truncate(length);
        let name = String::from_utf8_lossy(name).into_owned();
        xattrs.push(Xattr { name, value });
    }
    xattrs.sort();
    Ok(xattrs)
}
