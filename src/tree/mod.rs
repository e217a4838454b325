//! Trees of files as they are on disk, in the order of their paths: never through a link, never into another mount.
//!
//! `seal` reads what it backs up with it, and checks what was restored. It opens no file and changes nothing.

mod glob;

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

pub use glob::{Glob, GlobError};

use crate::domain::{EntryKind, FileEntry, RestorePath, Xattr};

/// What to look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct WalkOptions {
    /// Whether to read `user.*` attributes: one more system call for each entry.
    pub xattrs: bool,
    /// Whether entries may vanish while the walk is on: they are counted then, and an error otherwise.
    pub changing: bool,
}

/// What a walk did not tell as an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// Sockets: nothing to keep.
    pub sockets: u64,
    /// Directories on which something else is mounted; told, but not entered.
    pub mounts: u64,
    /// Entries that vanished meanwhile.
    pub vanished: u64,
    /// Extended attributes that are not `user.*`.
    pub xattrs: u64,
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
    passed: PassedOver,
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
    Ok(Walk { stack: vec![level], names: HashMap::new(), options, device, passed: PassedOver::default(), failed: false })
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
    /// What was passed over so far.
    pub fn passed_over(&self) -> PassedOver {
        self.passed
    }

    fn step(&mut self) -> Result<Option<FileEntry>, WalkError> {
        loop {
            let Some(level) = self.stack.last_mut() else { return Ok(None) };
            let Some(name) = level.names.pop() else {
                self.stack.pop();
                continue;
            };
            let path = level.path.join(name.as_bytes()).map_err(|e| failed("name an entry", io::Error::other(e)))?;
            match self.entry(&name, path) {
                Ok(Some(entry)) => return Ok(Some(entry)),
                Ok(None) => {}
                Err(error) if self.options.changing && error.source.kind() == io::ErrorKind::NotFound => self.passed.vanished += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn entry(&mut self, name: &CString, path: RestorePath) -> Result<Option<FileEntry>, WalkError> {
        let level = self.stack.last().expect("called from a level");
        let stat = fs::statat(&level.directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed("look at an entry", e))?;
        let (xattrs, others) = if self.options.xattrs { xattrs(level.directory.as_fd(), name.as_bytes())? } else { (Vec::new(), 0) };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                self.descend(name, &path, stat.st_dev)?;
                EntryKind::Dir
            }
            FileType::Symlink => {
                let target = fs::readlinkat(&level.directory, name, Vec::new()).map_err(|e| failed("read a link", e))?;
                EntryKind::Symlink { target: target.into_bytes() }
            }
            FileType::Socket => {
                self.passed.sockets += 1;
                return Ok(None);
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
        self.passed.xattrs += others;
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

    fn descend(&mut self, name: &CString, path: &RestorePath, device: u64) -> Result<(), WalkError> {
        if device != self.device {
            self.passed.mounts += 1;
            return Ok(());
        }
        let level = self.stack.last().expect("called from a level");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        match fs::openat2(&level.directory, name, flags, Mode::empty(), resolve) {
            Ok(directory) => {
                let names = sorted_names(&directory)?;
                self.stack.push(Level { directory, path: path.clone(), names });
                Ok(())
            }
            // the same file system, bound there a second time
            Err(Errno::XDEV) => {
                self.passed.mounts += 1;
                Ok(())
            }
            Err(e) => Err(failed("open a directory", e)),
        }
    }
}

/// `user.*` attributes of an entry, sorted, and how many others there are. The way through /proc ends at a descriptor of
/// ours and follows no last link.
///
/// # Errors
/// [`WalkError`] where they cannot be read. A file system that has none is no error.
pub fn xattrs(directory: BorrowedFd<'_>, name: &[u8]) -> Result<(Vec<Xattr>, u64), WalkError> {
    let path = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat();
    let path = CString::new(path).map_err(|e| failed("name an entry", io::Error::from(e)))?;
    let mut list = vec![0u8; 256];
    let length = loop {
        match fs::llistxattr(path.as_c_str(), &mut list[..]) {
            Ok(length) => break length,
            Err(Errno::RANGE) if list.len() < 1 << 20 => list.resize(list.len() * 8, 0),
            Err(Errno::NOTSUP) => return Ok((Vec::new(), 0)),
            Err(e) => return Err(failed("list attributes", e)),
        }
    };
    let (mut xattrs, mut others) = (Vec::new(), 0);
    for name in list[..length].split(|&b| b == 0).filter(|n| !n.is_empty()) {
        let Some(text) = std::str::from_utf8(name).ok().filter(|n| n.starts_with("user.")) else {
            others += 1;
            continue;
        };
        let mut value = vec![0u8; 64 << 10];
        let length = fs::lgetxattr(path.as_c_str(), name, &mut value[..]).map_err(|e| failed("read an attribute", e))?;
        value.truncate(length);
        xattrs.push(Xattr { name: text.to_owned(), value });
    }
    xattrs.sort();
    Ok((xattrs, others))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn told(root: &std::path::Path) -> (Vec<String>, PassedOver) {
        let root = std::fs::File::open(root).unwrap();
        let mut walk = walk(root.as_fd(), WalkOptions { xattrs: true, changing: false }).unwrap();
        let mut lines = Vec::new();
        for entry in walk.by_ref() {
            let entry = entry.unwrap();
            let kind = match &entry.kind {
                EntryKind::File { size, .. } => format!("file {size}"),
                EntryKind::Dir => "dir".into(),
                EntryKind::Symlink { target } => format!("-> {}", String::from_utf8_lossy(target)),
                EntryKind::Hardlink { target } => format!("= {target}"),
                EntryKind::Fifo => "fifo".into(),
                EntryKind::Device { .. } => "device".into(),
            };
            lines.push(format!("{} {kind}", entry.path));
        }
        (lines, walk.passed_over())
    }

    #[test]
    fn a_tree_is_told_in_the_order_of_its_paths() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("a/b/c"), "xyz").unwrap();
        std::fs::write(at("a-b"), "").unwrap();
        std::fs::hard_link(at("a/b/c"), at("z")).unwrap();
        symlink("/etc", at("a.link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("s")).unwrap();
        let (lines, passed) = told(directory.path());
        assert_eq!(lines, ["a dir", "a/b dir", "a/b/c file 3", "a-b file 0", "a.link -> /etc", "z = a/b/c"]);
        assert_eq!(passed, PassedOver { sockets: 1, ..PassedOver::default() });
    }

    #[test]
    fn what_vanishes_is_an_error_unless_it_was_expected() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), "").unwrap();
        std::fs::write(directory.path().join("b"), "").unwrap();
        let root = std::fs::File::open(directory.path()).unwrap();
        let begin = |changing| walk(root.as_fd(), WalkOptions { xattrs: false, changing }).unwrap();
        let (mut strict, mut lenient) = (begin(false), begin(true));
        std::fs::remove_file(directory.path().join("b")).unwrap();
        assert!(strict.next().unwrap().is_ok() && strict.next().unwrap().is_err() && strict.next().is_none());
        assert!(lenient.next().unwrap().is_ok() && lenient.next().is_none());
        assert_eq!(lenient.passed_over().vanished, 1);
    }
}
