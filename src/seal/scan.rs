//! What to seal, in order, cut into segments.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::SealError;
use crate::domain::{EntryKind, FileEntry, RestorePath};
use crate::tree::{PassedOver, WalkOptions, walk, xattrs};

/// A source that entries are opened below.
#[derive(Debug)]
pub(super) struct Root {
    /// A directory: the source itself, or the one a single file lies in.
    pub(super) directory: File,
    /// Where it is, for messages.
    pub(super) path: PathBuf,
    /// What the entries' paths have in front of those below the directory.
    pub(super) prefix: RestorePath,
}

/// An entry, and where it is found.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) entry: FileEntry,
    pub(super) root: Arc<Root>,
}

impl Planned {
    /// The path below the root's directory.
    pub(super) fn below(&self) -> &[u8] {
        let (path, prefix) = (self.entry.path.as_bytes(), self.root.prefix.as_bytes());
        if prefix.is_empty() { path } else { path.strip_prefix(prefix).and_then(|p| p.strip_prefix(b"/")).unwrap_or(path) }
    }
    /// For messages.
    pub(super) fn shown(&self) -> PathBuf {
        self.root.path.join(OsStr::from_bytes(self.below()))
    }
}

/// Gives all entries of the sources to `take`, in the order of their paths.
pub(super) fn scan(
    sources: &[PathBuf],
    mut take: impl FnMut(Planned) -> Result<(), SealError>,
) -> Result<(PassedOver, HashSet<RestorePath>), SealError> {
    let mut passed = PassedOver::default();
    let mut linked = HashSet::new();
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source: std::io::Error| SealError::Read { path, source }
    };
    if let [only] = sources
        && only.metadata().map_err(read(only))?.is_dir()
    {
        let directory = File::open(only).map_err(read(only))?;
        let root = Arc::new(Root { directory, path: only.clone(), prefix: RestorePath::root() });
        contents(&root, &mut passed, &mut linked, &mut take)?;
        return Ok((passed, linked));
    }
    let mut named = Vec::new();
    for source in sources {
        let name = match source.file_name() {
            Some(name) => name.to_owned(),
            // `..` and the like: the directory's real name
            None => {
                let real = source.canonicalize().map_err(read(source))?;
                real.file_name().ok_or_else(|| SealError::NoName { path: source.clone() })?.to_owned()
            }
        };
        let path = RestorePath::from_bytes(name.as_bytes())
            .map_err(|e| SealError::Name { name: name.to_string_lossy().into_owned(), source: e })?;
        named.push((path, source.clone()));
    }
    named.sort();
    if let Some(pair) = named.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(SealError::SameName { name: pair[0].0.to_string() });
    }
    for (name, source) in named {
        let metadata = source.metadata().map_err(read(&source))?;
        let is_directory = metadata.is_dir();
        let parent = if is_directory { source.clone() } else { source.parent().map(Path::to_owned).unwrap_or_default() };
        let shown = if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent };
        let directory = File::open(&shown).map_err(read(&source))?;
        let prefix = if is_directory { name.clone() } else { RestorePath::root() };
        let root = Arc::new(Root { directory, path: shown, prefix });
        take(Planned { entry: top(&root, &name, &source, is_directory, &mut passed)?, root: Arc::clone(&root) })?;
        if is_directory {
            contents(&root, &mut passed, &mut linked, &mut take)?;
        }
    }
    Ok((passed, linked))
}

/// A source itself, as an entry. A link given as a source means what it points to only where that is a directory.
fn top(root: &Root, name: &RestorePath, source: &Path, is_directory: bool, passed: &mut PassedOver) -> Result<FileEntry, SealError> {
    let read = |e: rustix::io::Errno| SealError::Read { path: source.to_owned(), source: e.into() };
    let stat = if is_directory {
        rustix::fs::fstat(&root.directory).map_err(read)?
    } else {
        let file = source.file_name().unwrap_or_default();
        rustix::fs::statat(&root.directory, file.as_bytes(), AtFlags::SYMLINK_NOFOLLOW).map_err(read)?
    };
    use rustix::fs::FileType;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => EntryKind::Dir,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&root.directory, name.as_bytes(), Vec::new()).map_err(read)?;
            EntryKind::Symlink { target: target.into_bytes() }
        }
        FileType::RegularFile => EntryKind::File { size: u64::try_from(stat.st_size).unwrap_or(0), blake3: None },
        _ => return Err(SealError::Device { path: source.to_owned() }),
    };
    let below: &[u8] = if is_directory { b"." } else { name.as_bytes() };
    let (xattrs, others) = xattrs(root.directory.as_fd(), below).map_err(|e| SealError::List { path: source.to_owned(), source: e })?;
    passed.xattrs += others;
    Ok(FileEntry {
        path: name.clone(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime,
        mtime_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        xattrs,
    })
}

fn contents(
    root: &Arc<Root>,
    passed: &mut PassedOver,
    linked: &mut HashSet<RestorePath>,
    take: &mut impl FnMut(Planned) -> Result<(), SealError>,
) -> Result<(), SealError> {
    let list = |source| SealError::List { path: root.path.clone(), source };
    let mut walk = walk(root.directory.as_fd(), WalkOptions { xattrs: true, changing: true }).map_err(list)?;
    let prefixed = |path: &RestorePath| -> Result<RestorePath, SealError> {
        if root.prefix.is_root() {
            return Ok(path.clone());
        }
        RestorePath::from_bytes(&[root.prefix.as_bytes(), b"/", path.as_bytes()].concat())
            .map_err(|e| SealError::Name { name: path.to_string(), source: e })
    };
    for entry in walk.by_ref() {
        let mut entry = entry.map_err(list)?;
        entry.path = prefixed(&entry.path)?;
        if let EntryKind::Hardlink { target } = &mut entry.kind {
            *target = prefixed(target)?;
            linked.insert(target.clone());
        }
        take(Planned { entry, root: Arc::clone(root) })?;
    }
    let more = walk.passed_over();
    passed.sockets += more.sockets;
    passed.mounts += more.mounts;
    passed.vanished += more.vanished;
    passed.xattrs += more.xattrs;
    Ok(())
}

/// Opens a planned file for reading, following nothing.
pub(super) fn open(planned: &Planned) -> Result<File, rustix::io::Errno> {
    use rustix::fs::ResolveFlags;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(&planned.root.directory, planned.below(), flags, Mode::empty(), resolve).map(File::from)
}
