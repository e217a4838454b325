//! A local directory as a storage, to read from.
//!
//! Everything is opened beneath the directory and no symbolic link is followed: a link in a backup directory could point
//! at anything on this host.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::bucket::Head;
use super::error::StorageError;
use super::http::HeaderFacts;
use super::{Begin, Depth, Listed, Listing, Page, PageAsk, can_be_requested};
use crate::domain::{ObjectRef, Timestamp, Transport};

/// Deepest nesting that a listing goes into.
const MAX_DEPTH: usize = 64;

/// A local directory, read-only by type.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
    root: Arc<OwnedFd>,
}

/// One file of it, open.
#[derive(Debug)]
pub struct LocalFile {
    file: File,
    /// As it was when it was opened.
    pub head: Head,
}

impl LocalFile {
    /// Reads at `offset`; fewer bytes than asked for only at the end.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// Whether it is still what it was when it was opened.
    ///
    /// # Errors
    /// What the file system says.
    pub fn is_unchanged(&self) -> io::Result<bool> {
        Ok(head_of(&self.file.metadata()?).etag == self.head.etag)
    }
}

impl Directory {
    /// Opens the directory.
    ///
    /// # Errors
    /// [`StorageError::NoSuchStore`], [`StorageError::Local`].
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(root) => Ok(Self { path: path.to_owned(), root: Arc::new(root) }),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                Err(StorageError::NoSuchStore { store: format!("directory {}", path.display()) })
            }
            Err(errno) => Err(StorageError::Local { operation: "to open the directory", source: errno.into() }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// There is no way to it that could be described.
    pub fn transport(&self) -> Transport {
        Transport { store: "file".into(), credentials: "none".into(), ..Transport::default() }
    }

    /// Hands every regular file below `prefix` to `visit`, a directory at a time. Only the part of `prefix` up to its
    /// last slash names a directory; the rest is the beginning of names.
    ///
    /// # Errors
    /// [`StorageError::Local`]. A directory that does not exist has no entries, as in an object storage.
    pub fn list(&self, prefix: &str, depth: Depth, visit: &mut (dyn FnMut(Listing) + Send)) -> Result<(), StorageError> {
        let folder = prefix.rfind('/').map_or("", |i| &prefix[..i]);
        if !folder.is_empty() && !can_be_requested(folder) {
            return Err(StorageError::UnusableName { why: "empty, `.` or `..` path segment" });
        }
        let start =
            if folder.is_empty() { self.open_beneath(".", OFlags::DIRECTORY) } else { self.open_beneath(folder, OFlags::DIRECTORY) };
        match start {
            Ok(fd) => self.list_folder(fd, folder, prefix, depth, MAX_DEPTH, visit),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StorageError::Local { operation: "to open a directory", source }),
        }
    }

    /// One page of what lies below a prefix. The directory is read anew for each: for repositories of tools, not for millions of files.
    ///
    /// # Errors
    /// As [`Directory::list`].
    pub fn page(&self, ask: &PageAsk) -> Result<Page, StorageError> {
        let mut page = Page::default();
        let after = match &ask.from {
            Begin::Start => "",
            Begin::After(key) | Begin::Token(key) => key.as_str(),
        };
        let mut found: Vec<(String, Option<ObjectRef>)> = Vec::new();
        self.list(&ask.prefix, ask.depth, &mut |listing| {
            page.skipped += listing.skipped;
            found.extend(listing.objects.into_iter().map(|object| (object.key.clone(), Some(object))));
            found.extend(listing.prefixes.into_iter().filter(|p| p.starts_with(&ask.prefix)).map(|p| (p, None)));
        })?;
        found.retain(|(name, _)| name.as_str() > after);
        found.sort_by(|a, b| a.0.cmp(&b.0));
        if found.len() > ask.limit {
            found.truncate(ask.limit.max(1));
            page.next = found.last().map(|(name, _)| name.clone());
        }
        for (name, object) in found {
            match object {
                Some(object) => page.objects.push(Listed { object, etag: None }),
                None => page.prefixes.push(name),
            }
        }
        Ok(page)
    }

    fn list_folder(
        &self,
        fd: OwnedFd,
        folder: &str,
        prefix: &str,
        depth: Depth,
        levels: usize,
        visit: &mut (dyn FnMut(Listing) + Send),
    ) -> Result<(), StorageError> {
        let trouble = |source: rustix::io::Errno| StorageError::Local { operation: "to list a directory", source: source.into() };
        let mut listing = Listing::default();
        let mut deeper = Vec::new();
        for entry in rustix::fs::Dir::read_from(&fd).map_err(trouble)? {
            let entry = entry.map_err(trouble)?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(name) = entry.file_name().to_str() else {
                listing.skipped += 1;
                continue;
            };
            let key = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            if !key.starts_with(prefix) && !prefix.starts_with(&key) {
                continue;
            }
            let stat = match rustix::fs::statat(&fd, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // gone since the directory was read
                Err(rustix::io::Errno::NOENT) => continue,
                Err(errno) => return Err(trouble(errno)),
            };
            match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
                rustix::fs::FileType::RegularFile if key.starts_with(prefix) => {
                    let stored_at = instant(stat.st_mtime, stat.st_mtime_nsec as i64);
                    listing.objects.push(ObjectRef { key, size: stat.st_size as u64, stored_at });
                }
                rustix::fs::FileType::RegularFile => {}
                rustix::fs::FileType::Directory if depth == Depth::OneLevel => listing.prefixes.push(format!("{key}/")),
                rustix::fs::FileType::Directory if levels > 0 => deeper.push(key),
                _ => listing.skipped += 1,
            }
        }
        listing.objects.sort_by(|a, b| a.key.cmp(&b.key));
        listing.prefixes.sort();
        visit(listing);
        deeper.sort();
        for key in deeper {
            let name = key.rsplit('/').next().unwrap_or(&key);
            match rustix::fs::openat(&fd, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
                Ok(child) => self.list_folder(child, &key, prefix, depth, levels - 1, visit)?,
                Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => return Err(trouble(errno)),
            }
        }
        Ok(())
    }

    /// Opens one file.
    ///
    /// # Errors
    /// [`StorageError::NoSuchObject`], [`StorageError::Local`].
    pub fn open_file(&self, key: &str) -> Result<LocalFile, StorageError> {
        const OPERATION: &str = "to open a file";
        if !can_be_requested(key) {
            return Err(StorageError::UnusableName { why: "empty, `.` or `..` path segment" });
        }
        // NONBLOCK: a FIFO among the backups must not hang the drill
        let fd = self.open_beneath(key, OFlags::NONBLOCK).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StorageError::NoSuchObject,
            _ => StorageError::Local { operation: OPERATION, source },
        })?;
        let file = File::from(fd);
        let metadata = file.metadata().map_err(|source| StorageError::Local { operation: OPERATION, source })?;
        if !metadata.is_file() {
            return Err(StorageError::NoSuchObject);
        }
        Ok(LocalFile { head: head_of(&metadata), file })
    }

    fn open_beneath(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | flags;
        Ok(rustix::fs::openat2(self.root.as_fd(), path, flags, Mode::empty(), resolve)?)
    }
}

fn head_of(metadata: &std::fs::Metadata) -> Head {
    Head {
        size: metadata.len(),
        // changes when the file is written to or replaced
        etag: Some(format!("{:x}-{:x}-{:x}-{:x}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len())),
        stored_at: instant(metadata.mtime(), metadata.mtime_nsec()),
        facts: HeaderFacts::default(),
    }
}

fn instant(seconds: i64, nanos: i64) -> Timestamp {
    jiff::Timestamp::new(seconds, nanos as i32).map_or_else(|_| Timestamp::from_unix(seconds), Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn all(directory: &Directory, prefix: &str, depth: Depth) -> Listing {
        let mut whole = Listing::default();
        directory
            .list(prefix, depth, &mut |page| {
                whole.objects.extend(page.objects);
                whole.prefixes.extend(page.prefixes);
                whole.skipped += page.skipped;
            })
            .unwrap();
        whole
    }

    fn keys(listing: &Listing) -> Vec<&str> {
        listing.objects.iter().map(|o| o.key.as_str()).collect()
    }

    #[test]
    fn files_are_listed_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("ehr/a")).unwrap();
        fs::create_dir(root.path().join("ehr-test")).unwrap();
        for name in ["ehr/1", "ehr/a/2", "ehr-test/3"] {
            fs::write(root.path().join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("/etc/hostname", root.path().join("ehr/link")).unwrap();
        let directory = Directory::open(root.path()).unwrap();
        let listing = all(&directory, "ehr/", Depth::All);
        assert_eq!(keys(&listing), ["ehr/1", "ehr/a/2"]);
        assert_eq!(listing.skipped, 1);
        let level = all(&directory, "ehr/", Depth::OneLevel);
        assert_eq!((keys(&level), level.prefixes.as_slice()), (vec!["ehr/1"], ["ehr/a/".to_owned()].as_slice()));
        assert!(all(&directory, "nothing/", Depth::All).objects.is_empty());
        assert!(matches!(directory.open_file("ehr/link"), Err(StorageError::Local { .. })));
        assert!(matches!(directory.open_file("ehr/none"), Err(StorageError::NoSuchObject)));
        assert!(matches!(directory.open_file("../etc/hostname"), Err(StorageError::UnusableName { .. })));
    }

    #[test]
    fn a_prefix_need_not_end_at_a_slash() {
        let root = tempfile::tempdir().unwrap();
        for name in ["db-2026-01", "db-2026-02", "other"] {
            fs::write(root.path().join(name), "x").unwrap();
        }
        let directory = Directory::open(root.path()).unwrap();
        assert_eq!(keys(&all(&directory, "db-2026", Depth::OneLevel)), ["db-2026-01", "db-2026-02"]);
    }

    #[test]
    fn a_file_that_is_written_to_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("f"), "one").unwrap();
        let directory = Directory::open(root.path()).unwrap();
        let file = directory.open_file("f").unwrap();
        assert!(file.is_unchanged().unwrap());
        fs::write(root.path().join("f"), "longer").unwrap();
        assert!(!file.is_unchanged().unwrap());
        assert!(matches!(Directory::open(&root.path().join("none")), Err(StorageError::NoSuchStore { .. })));
    }
}
