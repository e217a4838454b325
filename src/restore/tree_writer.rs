//! Writes entries below a root and nowhere else, whatever their names say.
//!
//! Directories are opened beneath the root by `openat2` with no links of any kind allowed on the way, and kept; everything
//! else is made by name in such a directory, exclusively, so an archive can neither write through a link nor over an
//! earlier entry. Nothing is ever unlinked or renamed, so what was checked stays so.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::deferred::{Deferred, Later};
use super::error::Step;
use super::{EntryName, HostileRule, RestoreError, Target};
use crate::codec::Limit;
use crate::codec::tar::{Kind, TarEntry};
use crate::domain::{Blake3, EntryKind, FileEntry, PathError, RestorePath, Xattr};

/// Holes are looked for in files from this size on.
const SPARSE_FROM: u64 = 64 << 10;
/// Holes are looked for block by block.
const HOLE: usize = 4_096;
/// Zeros to hash where the archive has a hole.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What all writers of one restore share.
pub(super) struct Tree<'a> {
    target: &'a Target,
    umask: u32,
    pub(super) files: AtomicU64,
    pub(super) directories: AtomicU64,
    pub(super) others: AtomicU64,
    pub(super) bytes: AtomicU64,
    entries: AtomicU64,
    pub(super) xattrs_left_out: AtomicU64,
    later: Mutex<Deferred>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(target: &'a Target) -> Result<Self, RestoreError> {
        Ok(Self {
            target,
            umask: umask(target)?,
            files: AtomicU64::new(0),
            directories: AtomicU64::new(0),
            others: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            xattrs_left_out: AtomicU64::new(0),
            later: Mutex::new(Deferred::default()),
        })
    }

    /// Takes `bytes` of the budget.
    fn take_bytes(&self, bytes: u64) -> Result<(), RestoreError> {
        let allowed = self.target.budgets.bytes;
        if self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > allowed {
            return Err(RestoreError::Budget { limit: Limit::Bytes, allowed });
        }
        Ok(())
    }

    fn defer(&self, later: &Later) -> Result<(), RestoreError> {
        let mut list = self.later.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        list.push(later, self.target.spool.as_fd())
    }

    /// Makes the hard links that had to wait, then sets what directories are to have: nothing is made in them any more.
    pub(super) fn finish(&self) -> Result<(), RestoreError> {
        let mut list = std::mem::take(&mut *self.later.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let mut writer = TreeWriter::new(self);
        list.each_in_order(|later| match later {
            Later::Link { path, target } => writer.hardlink_now(&path, &target),
            Later::Directory { .. } => Ok(()),
        })?;
        // a directory may have been made for what is in it before its own entry came, or by another worker at the same
        // time: what its entry says counts, so it comes last
        list.each_backwards(|later| match later {
            Later::Directory { path, mode: None, time, xattrs } => writer.finish_directory(&path, None, time, &xattrs),
            Later::Directory { .. } | Later::Link { .. } => Ok(()),
        })?;
        list.each_backwards(|later| match later {
            Later::Directory { path, mode: Some(mode), time, xattrs } => writer.finish_directory(&path, Some(mode), time, &xattrs),
            Later::Directory { .. } | Later::Link { .. } => Ok(()),
        })
    }
}

/// The process's umask, by what it does: there is no way to ask without changing it.
fn umask(target: &Target) -> Result<u32, RestoreError> {
    let probe = super::deferred::nameless(target.spool.as_fd(), Mode::from_raw_mode(0o777))?;
    let stat = fs::fstat(&probe).map_err(|e| RestoreError::scratch("stat", e))?;
    Ok(!stat.st_mode & 0o777)
}

/// Takes a file's pieces, each with its offset.
pub(super) type Sink<'s> = dyn FnMut(u64, &[u8]) -> Result<(), Step> + 's;

/// When hard links are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// At once: their file comes earlier in the same stream.
    Now,
    /// At the end: their file may be in another worker's hands.
    Last,
}

/// Writes entries below the root. Each thread has its own.
pub struct TreeWriter<'t, 'a> {
    tree: &'t Tree<'a>,
    /// The directory that was written to last; neighbours share it.
    directory: Option<(Vec<u8>, OwnedFd)>,
    hasher: blake3::Hasher,
}

impl<'t, 'a> TreeWriter<'t, 'a> {
    pub(super) fn new(tree: &'t Tree<'a>) -> Self {
        Self { tree, directory: None, hasher: blake3::Hasher::new() }
    }

    /// Makes one entry, whose data `data` delivers. Returns the entry as it was restored, content digest included;
    /// `None` for the root, which is there already.
    pub(super) fn write(
        &mut self,
        entry: TarEntry,
        links: Links,
        data: impl FnOnce(&mut Sink<'_>) -> Result<(), Step>,
    ) -> Result<Option<FileEntry>, Step> {
        let tree = self.tree;
        if tree.target.cancel.is_cancelled() {
            return Err(RestoreError::Cancelled.into());
        }
        let hostile = |rule| RestoreError::Hostile { entry: EntryName(entry.path.clone()), rule };
        let path = RestorePath::from_bytes(&entry.path).map_err(|e| hostile(e.into()))?;
        let budgets = &tree.target.budgets;
        if path.depth() > budgets.depth as usize {
            return Err(RestoreError::Budget { limit: Limit::Depth, allowed: u64::from(budgets.depth) }.into());
        }
        let time = (entry.mtime, entry.mtime_ns);
        if path.is_root() {
            if entry.kind != Kind::Dir {
                return Err(hostile(HostileRule::Root).into());
            }
            // mode and owner of the root are the sandbox's own
            tree.defer(&Later::Directory { path, mode: None, time: Some(time), xattrs: Vec::new() })?;
            return Ok(None);
        }
        self.count_entry()?;
        let kind = match entry.kind {
            Kind::File { size } => {
                let (size, digest) = self.file(&path, Some(size), &entry, data)?;
                EntryKind::File { size, blake3: Some(digest) }
            }
            Kind::Dir => {
                self.make_directory(&path)?;
                tree.defer(&Later::Directory {
                    path: path.clone(),
                    mode: Some(entry.mode),
                    time: Some(time),
                    xattrs: entry.xattrs.clone(),
                })?;
                tree.directories.fetch_add(1, Ordering::Relaxed);
                EntryKind::Dir
            }
            Kind::Symlink { target } => {
                self.symlink(&path, &target, time)?;
                self.leave_out(entry.xattrs.len());
                tree.others.fetch_add(1, Ordering::Relaxed);
                EntryKind::Symlink { target }
            }
            Kind::Fifo => {
                self.fifo(&path, entry.mode, time)?;
                self.leave_out(entry.xattrs.len());
                tree.others.fetch_add(1, Ordering::Relaxed);
                EntryKind::Fifo
            }
            Kind::Hardlink { target } => {
                let target = RestorePath::from_bytes(&target)
                    .ok()
                    .filter(|t| !t.is_root())
                    .ok_or_else(|| RestoreError::Hostile { entry: EntryName(entry.path.clone()), rule: HostileRule::LinkOut })?;
                match links {
                    Links::Now => self.hardlink_now(&path, &target)?,
                    Links::Last => tree.defer(&Later::Link { path: path.clone(), target: target.clone() })?,
                }
                tree.others.fetch_add(1, Ordering::Relaxed);
                EntryKind::Hardlink { target }
            }
            Kind::Device { .. } => return Err(hostile(HostileRule::Device).into()),
        };
        Ok(Some(FileEntry {
            path,
            kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            mtime_ns: entry.mtime_ns,
            xattrs: entry.xattrs,
        }))
    }

    /// Makes one file of unknown size, whatever `entry` says of it.
    pub(super) fn write_stream(
        &mut self,
        entry: &TarEntry,
        data: impl FnOnce(&mut Sink<'_>) -> Result<(), Step>,
    ) -> Result<FileEntry, Step> {
        let path = RestorePath::from_bytes(&entry.path)
            .map_err(|e| RestoreError::Hostile { entry: EntryName(entry.path.clone()), rule: e.into() })?;
        self.count_entry()?;
        let (size, digest) = self.file(&path, None, entry, data)?;
        Ok(FileEntry {
            path,
            kind: EntryKind::File { size, blake3: Some(digest) },
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            mtime_ns: entry.mtime_ns,
            xattrs: entry.xattrs.clone(),
        })
    }

    fn count_entry(&self) -> Result<(), RestoreError> {
        let allowed = self.tree.target.budgets.files;
        if self.tree.entries.fetch_add(1, Ordering::Relaxed) >= allowed {
            return Err(RestoreError::Budget { limit: Limit::Files, allowed });
        }
        self.tree.target.progress.entries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// One file: written and hashed piece by piece, holes left out. Its size, told or counted, and its digest.
    fn file(
        &mut self,
        path: &RestorePath,
        told: Option<u64>,
        entry: &TarEntry,
        data: impl FnOnce(&mut Sink<'_>) -> Result<(), Step>,
    ) -> Result<(u64, Blake3), Step> {
        let tree = self.tree;
        tree.take_bytes(told.unwrap_or(0))?;
        let (parent, name) = path.split();
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let directory = self.directory(parent, path)?;
        let file = fs::openat(directory, name, flags, mode).map_err(|e| made(e, path, "create"))?;

        self.hasher.reset();
        let hasher = &mut self.hasher;
        let small = told.is_some_and(|size| size < SPARSE_FROM);
        // up to where it is hashed, and up to where it is written
        let (mut hashed, mut end) = (0u64, 0u64);
        data(&mut |offset, piece| {
            if tree.target.cancel.is_cancelled() {
                return Err(RestoreError::Cancelled.into());
            }
            if told.is_none() {
                tree.take_bytes(piece.len() as u64)?;
            }
            hash_zeros(hasher, offset - hashed);
            hasher.update(piece);
            hashed = offset + piece.len() as u64;
            if small {
                write_all(&file, piece, offset)?;
                end = hashed;
            } else {
                for (at, run) in runs(piece, offset) {
                    write_all(&file, run, at)?;
                    end = at + run.len() as u64;
                }
            }
            tree.target.progress.written.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Ok(())
        })?;
        let size = told.unwrap_or(hashed);
        hash_zeros(hasher, size - hashed);
        if end < size {
            fs::ftruncate(&file, size).map_err(|e| RestoreError::scratch("set size", e))?;
        }
        let digest = Blake3(*hasher.finalize().as_bytes());
        tree.files.fetch_add(1, Ordering::Relaxed);

        if let Some((uid, gid)) = tree.target.owner {
            fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(|e| RestoreError::scratch("give to owner", e))?;
        }
        // creating sets all but what the umask took, and the bits that change of owner clears
        if entry.mode & 0o7000 != 0 || entry.mode & tree.umask != 0 {
            fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(|e| RestoreError::scratch("set mode", e))?;
        }
        if !entry.xattrs.is_empty() {
            self.set_xattrs(file.as_fd(), &entry.xattrs)?;
        }
        fs::futimens(&file, &times(entry.mtime, entry.mtime_ns)).map_err(|e| RestoreError::scratch("set time", e))?;
        Ok((size, digest))
    }

    fn symlink(&mut self, path: &RestorePath, target: &[u8], time: (i64, u32)) -> Result<(), RestoreError> {
        if target.is_empty() || target.contains(&0) {
            return Err(hostile(path, PathError::Nul.into()));
        }
        let owner = self.tree.target.owner;
        let (parent, name) = path.split();
        let directory = self.directory(parent, path)?;
        fs::symlinkat(target, directory, name).map_err(|e| made(e, path, "make a symbolic link"))?;
        finish_named(directory, name, owner, time)
    }

    fn fifo(&mut self, path: &RestorePath, mode: u32, time: (i64, u32)) -> Result<(), RestoreError> {
        let owner = self.tree.target.owner;
        let (parent, name) = path.split();
        let directory = self.directory(parent, path)?;
        fs::mknodat(directory, name, FileType::Fifo, Mode::from_raw_mode(mode & 0o777), 0).map_err(|e| made(e, path, "make a pipe"))?;
        if let Some((uid, gid)) = owner {
            fs::chownat(directory, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| RestoreError::scratch("give to owner", e))?;
        }
        // made exclusively a moment ago in a tree that only we write to: it is the pipe
        fs::chmodat(directory, name, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(|e| RestoreError::scratch("set mode", e))?;
        finish_named(directory, name, None, time)
    }

    fn hardlink_now(&mut self, path: &RestorePath, target: &RestorePath) -> Result<(), RestoreError> {
        let bad_target = || hostile(path, HostileRule::LinkTarget);
        let (from_parent, from_name) = target.split();
        // the target's directory must be there already; a link to nothing is not to make directories
        let from = open_directory(self.tree.target.root.as_fd(), from_parent).map_err(|e| match e {
            Errno::NOENT => bad_target(),
            e => reached(e, path),
        })?;
        let stat = fs::statat(&from, from_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| match e {
            Errno::NOENT => bad_target(),
            e => RestoreError::scratch("look at a link's target", e),
        })?;
        if !matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Fifo) {
            return Err(bad_target());
        }
        let (parent, name) = path.split();
        let directory = self.directory(parent, path)?;
        fs::linkat(&from, from_name, directory, name, AtFlags::empty()).map_err(|e| made(e, path, "make a hard link"))
    }

    fn finish_directory(
        &mut self,
        path: &RestorePath,
        mode: Option<u32>,
        time: Option<(i64, u32)>,
        xattrs: &[Xattr],
    ) -> Result<(), RestoreError> {
        let root = self.tree.target.root.as_fd();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let name: &[u8] = if path.is_root() { b"." } else { path.as_bytes() };
        let directory = fs::openat2(root, name, flags, Mode::empty(), BENEATH).map_err(|e| reached(e, path))?;
        if !path.is_root() {
            self.set_xattrs(directory.as_fd(), xattrs)?;
            if let Some((uid, gid)) = self.tree.target.owner {
                fs::fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                    .map_err(|e| RestoreError::scratch("give to owner", e))?;
            }
            let mode = Mode::from_raw_mode(mode.unwrap_or(0o755));
            fs::fchmod(&directory, mode).map_err(|e| RestoreError::scratch("set mode", e))?;
        }
        if let Some((seconds, nanos)) = time {
            fs::futimens(&directory, &times(seconds, nanos)).map_err(|e| RestoreError::scratch("set time", e))?;
        }
        Ok(())
    }

    /// Sets `user.*` attributes. Others mean something to the host's kernel (labels, capabilities): not on its scratch.
    fn set_xattrs(&self, file: BorrowedFd<'_>, xattrs: &[Xattr]) -> Result<(), RestoreError> {
        if !xattrs.is_empty() && is_encrypted(file) {
            // by file only: the kernel would put its attributes on the disk in clear
            self.leave_out(xattrs.len());
            return Ok(());
        }
        for xattr in xattrs {
            if !xattr.name.starts_with("user.") || xattr.name.contains('\0') {
                self.leave_out(1);
                continue;
            }
            match fs::fsetxattr(file, xattr.name.as_str(), &xattr.value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::NOTSUP | Errno::PERM | Errno::RANGE | Errno::TOOBIG) => self.leave_out(1),
                Err(e) => return Err(RestoreError::scratch("set attribute", e)),
            }
        }
        Ok(())
    }

    fn leave_out(&self, count: usize) {
        self.tree.xattrs_left_out.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn make_directory(&mut self, path: &RestorePath) -> Result<(), RestoreError> {
        let (parent, name) = path.split();
        let directory = self.directory(parent, path)?;
        match fs::mkdirat(directory, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => Ok(()),
            // a directory may be named again, or have been made for what is in it; anything else in its place may not
            Err(Errno::EXIST) => {
                let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| RestoreError::scratch("stat", e))?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => Ok(()),
                    _ => Err(hostile(path, HostileRule::Twice)),
                }
            }
            Err(e) => Err(made(e, path, "make a directory")),
        }
    }

    /// The directory `parent`, made if it is not there; `path` is what it is wanted for.
    fn directory(&mut self, parent: &[u8], path: &RestorePath) -> Result<BorrowedFd<'_>, RestoreError> {
        if parent.is_empty() {
            return Ok(self.tree.target.root.as_fd());
        }
        if self.directory.as_ref().is_none_or(|(name, _)| name != parent) {
            let root = self.tree.target.root.as_fd();
            let opened = match open_directory(root, parent) {
                Err(Errno::NOENT) => {
                    self.make_parents(parent, path)?;
                    open_directory(root, parent)
                }
                other => other,
            };
            self.directory = Some((parent.to_vec(), opened.map_err(|e| reached(e, path))?));
        }
        let (_, directory) = self.directory.as_ref().expect("set above");
        Ok(directory.as_fd())
    }

    /// Directories that the archive does not name, or not yet, on the way to `parent`.
    fn make_parents(&mut self, parent: &[u8], path: &RestorePath) -> Result<(), RestoreError> {
        let root = self.tree.target.root.as_fd();
        let mut here: Option<OwnedFd> = None;
        let mut end = 0;
        for part in parent.split(|&b| b == b'/') {
            end += part.len();
            let at = here.as_ref().map_or(root, AsFd::as_fd);
            match fs::mkdirat(at, part, Mode::from_raw_mode(0o700)) {
                Ok(()) => {
                    let path = RestorePath::from_bytes(&parent[..end]).expect("a prefix of a path is one");
                    self.tree.defer(&Later::Directory { path, mode: None, time: None, xattrs: Vec::new() })?;
                }
                Err(Errno::EXIST) => {}
                Err(e) => return Err(made(e, path, "make a directory")),
            }
            here = Some(open_directory(at, part).map_err(|e| reached(e, path))?);
            end += 1;
        }
        Ok(())
    }
}

const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

fn open_directory(at: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    if path.is_empty() {
        return fs::openat(at, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    }
    // no NOFOLLOW: with it a link at the end would be `not a directory` instead of a link
    fs::openat2(at, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), BENEATH)
}

fn hostile(path: &RestorePath, rule: HostileRule) -> RestoreError {
    RestoreError::Hostile { entry: EntryName(path.as_bytes().to_vec()), rule }
}

/// Whether the file system encrypts this file's contents by itself (fscrypt).
fn is_encrypted(file: BorrowedFd<'_>) -> bool {
    let stat = fs::statx(file, c"", AtFlags::EMPTY_PATH, fs::StatxFlags::TYPE);
    stat.is_ok_and(|s| s.stx_attributes.contains(fs::StatxAttributes::ENCRYPTED))
}

/// What it means that a directory on the way could not be opened.
fn reached(error: Errno, path: &RestorePath) -> RestoreError {
    match error {
        Errno::LOOP => hostile(path, HostileRule::ThroughLink),
        Errno::NOTDIR => hostile(path, HostileRule::BelowFile),
        e => RestoreError::scratch("open a directory", e),
    }
}

/// What it means that an entry could not be made.
fn made(error: Errno, path: &RestorePath, operation: &'static str) -> RestoreError {
    match error {
        Errno::EXIST => hostile(path, HostileRule::Twice),
        Errno::LOOP => hostile(path, HostileRule::ThroughLink),
        Errno::NOTDIR => hostile(path, HostileRule::BelowFile),
        Errno::NAMETOOLONG => hostile(path, PathError::TooLong.into()),
        e => RestoreError::scratch(operation, e),
    }
}

fn finish_named(directory: BorrowedFd<'_>, name: &[u8], owner: Option<(u32, u32)>, time: (i64, u32)) -> Result<(), RestoreError> {
    if let Some((uid, gid)) = owner {
        fs::chownat(directory, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| RestoreError::scratch("give to owner", e))?;
    }
    fs::utimensat(directory, name, &times(time.0, time.1), AtFlags::SYMLINK_NOFOLLOW).map_err(|e| RestoreError::scratch("set time", e))
}

fn times(seconds: i64, nanos: u32) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) };
    Timestamps { last_access: time, last_modification: time }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), RestoreError> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(RestoreError::ScratchFull),
            Ok(n) => {
                bytes = &bytes[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(RestoreError::scratch("write", e)),
        }
    }
    Ok(())
}

fn hash_zeros(hasher: &mut blake3::Hasher, mut count: u64) {
    while count > 0 {
        let n = count.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..n as usize]);
        count -= n;
    }
}

/// The stretches of `piece` that are not blocks of zeros, with their offsets in the file.
fn runs(piece: &[u8], offset: u64) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let block = |at: usize| {
            // blocks lie on the file's own borders, not on the piece's
            let to_border = HOLE - ((offset as usize).wrapping_add(at) % HOLE);
            at + to_border.min(piece.len() - at)
        };
        while at < piece.len() {
            let end = block(at);
            if !is_zero_block(&piece[at..end]) {
                break;
            }
            at = end;
        }
        if at == piece.len() {
            return None;
        }
        let start = at;
        while at < piece.len() {
            let end = block(at);
            if is_zero_block(&piece[at..end]) {
                break;
            }
            at = end;
        }
        Some((offset + start as u64, &piece[start..at]))
    })
}

/// Zeros need not be written to a new file, not even those of a block that two pieces share.
fn is_zero_block(block: &[u8]) -> bool {
    // most blocks differ in their first bytes, and the rest is compared by the widest instructions there are
    block.first() == Some(&0) && *block == ZEROS[..block.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_blocks_on_the_files_borders() {
        let mut piece = vec![0u8; 5 * HOLE];
        piece[0] = 1;
        piece[3 * HOLE + 7] = 2;
        let shape = |piece: &[u8], offset| runs(piece, offset).map(|(at, run)| (at, run.len())).collect::<Vec<_>>();
        assert_eq!(shape(&piece, 0), [(0, HOLE), (3 * HOLE as u64, HOLE)]);
        // a piece that begins within a block
        assert_eq!(shape(&vec![0; HOLE + 10], 100), []);
        let mut within = vec![0; 2 * HOLE];
        within[HOLE] = 1;
        assert_eq!(shape(&within, 100), [(HOLE as u64, HOLE)]);
        assert_eq!(shape(&[], 5), []);
        assert_eq!(shape(&vec![0; 2 * HOLE], 0), []);
    }
}
