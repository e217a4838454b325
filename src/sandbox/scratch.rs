//! Where restored bytes live while a drill lasts: the restored tree and the kit of foreign tools (shown inside), and the spool (not).

use std::ffi::{CStr, CString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chmodat, chownat, fstat, mkdirat, open, openat, openat2, renameat,
    statat, unlinkat,
};
use rustix::io::Errno;

use crate::domain::DrillId;

/// The restored tree.
pub(super) const TREE: &str = "tree";
/// Files that a restore keeps beside it.
pub(super) const SPOOL: &str = "spool";
/// What foreign tools get beside it: a home of their own, and the mirror of a repository.
pub(super) const KIT: &str = "kit";
/// Labels a scratch directory as ours, and whose: the drill's id is in it.
const MARKER: &str = ".firedrill-scratch";

/// What everything that we leave outside of namespaces is called.
pub(super) fn label(drill: &DrillId) -> String {
    format!("firedrill-{drill}")
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// The three directories, open.
#[derive(Debug)]
pub(super) struct Rooms {
    pub tree: OwnedFd,
    pub spool: OwnedFd,
    pub kit: OwnedFd,
}

impl Rooms {
    /// Makes them below `scratch`, giving those that are shown inside to their owner.
    pub fn make(scratch: impl AsFd, uid: u32, gid: u32) -> io::Result<Rooms> {
        let scratch = scratch.as_fd();
        mkdirat(scratch, TREE, Mode::RWXU)?;
        mkdirat(scratch, SPOOL, Mode::RWXU)?;
        mkdirat(scratch, KIT, Mode::RWXU)?;
        for shown in [TREE, KIT] {
            chownat(scratch, shown, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Rooms::open(scratch)
    }

    /// Opens those that are there.
    pub fn open(scratch: impl AsFd) -> io::Result<Rooms> {
        let room = |name| openat(scratch.as_fd(), name, DIRECTORY, Mode::empty());
        Ok(Rooms { tree: room(TREE)?, spool: room(SPOOL)?, kit: room(KIT)? })
    }
}

/// A labelled directory on a host file system.
#[derive(Debug)]
pub(super) struct PlainDirectory {
    parent: PathBuf,
    pub directory: OwnedFd,
}

/// A directory's parent by its one true name: what is registered for reaping.
pub(super) fn true_parent(parent: &Path) -> io::Result<PathBuf> {
    std::fs::canonicalize(parent)
}

fn open_parent(parent: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat2(CWD, parent, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?)
}

impl PlainDirectory {
    /// Makes `firedrill-<drill id>` below `parent`; never takes one that is there.
    pub fn make(parent: &Path, drill: &DrillId) -> io::Result<PlainDirectory> {
        let at = open_parent(parent)?;
        let name = label(drill);
        mkdirat(&at, &name, Mode::RWXU)?;
        let directory = openat(&at, &name, DIRECTORY, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let marker = openat(&directory, MARKER, flags, Mode::RUSR | Mode::WUSR)?;
        std::fs::File::from(marker).write_all(drill.0.as_bytes())?;
        Ok(PlainDirectory { parent: parent.to_owned(), directory })
    }

    /// Where one of its directories is, by name.
    pub fn path_of(&self, drill: &DrillId, room: &str) -> PathBuf {
        self.parent.join(label(drill)).join(room)
    }

    /// Removes it with all that is in it.
    pub fn remove(&self, drill: &DrillId) -> io::Result<Removal> {
        remove_labelled(&self.parent, drill)
    }
}

/// What a removal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// There was nothing.
    Absent,
    /// It is gone, with this many entries.
    Removed(u64),
    /// It does not bear our label: left alone.
    NotOurs,
    /// Something in it is a mount of something else: left alone from there on.
    Blocked,
}

/// Removes `firedrill-<drill id>` below `parent` where our marker in it names the drill. Follows no symbolic link, crosses
/// no mount.
pub(super) fn remove_labelled(parent: &Path, drill: &DrillId) -> io::Result<Removal> {
    let at = match open_parent(parent) {
        Ok(at) => at,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Removal::Absent),
        Err(e) => return Err(e),
    };
    let name = label(drill);
    let directory = match open_beneath(at.as_fd(), &CString::new(name.as_str())?) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(Removal::Absent),
        Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(Removal::NotOurs),
        Err(e) => return Err(e.into()),
    };
    if !bears_marker(directory.as_fd(), drill) {
        // A crash between making the directory and labelling it leaves it empty: that much may go.
        return match unlinkat(&at, &name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(Removal::Removed(0)),
            Err(_) => Ok(Removal::NotOurs),
        };
    }
    let mut sweep = Sweep { top: directory.as_fd(), removed: 0, moved: 0, blocked: false };
    // The marker goes last: until then a second attempt still knows whose this is.
    loop {
        let moved = sweep.moved;
        sweep.empty(directory.as_fd(), 0)?;
        if sweep.moved == moved {
            break;
        }
    }
    if sweep.blocked {
        return Ok(Removal::Blocked);
    }
    let removed = sweep.removed;
    unlinkat(&directory, MARKER, AtFlags::empty())?;
    unlinkat(&at, &name, AtFlags::REMOVEDIR)?;
    Ok(Removal::Removed(removed))
}

fn bears_marker(directory: BorrowedFd<'_>, drill: &DrillId) -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let Ok(marker) = openat(directory, MARKER, flags, Mode::empty()) else { return false };
    let regular = fstat(&marker).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
    let mut text = String::new();
    regular && std::fs::File::from(marker).take(128).read_to_string(&mut text).is_ok() && text == drill.0
}

fn open_beneath(at: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    openat2(at, name, DIRECTORY, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV)
}

/// Deletes below one directory, with a bounded number of descriptors however deep it goes.
struct Sweep<'a> {
    top: BorrowedFd<'a>,
    removed: u64,
    moved: u64,
    blocked: bool,
}

impl Sweep<'_> {
    const DEEPEST: u32 = 48;

    fn empty(&mut self, directory: BorrowedFd<'_>, depth: u32) -> io::Result<()> {
        // Names first: deleting while reading a directory may skip entries.
        let mut names: Vec<(CString, FileType)> = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let skip = name == c"." || name == c".." || (depth == 0 && name.to_bytes() == MARKER.as_bytes());
            if !skip {
                names.push((name.to_owned(), entry.file_type()));
            }
        }
        for (name, kind) in names {
            let kind = match kind {
                FileType::Unknown => FileType::from_raw_mode(statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode),
                known => known,
            };
            if kind == FileType::Directory {
                self.remove_directory(directory, &name, depth)?;
            } else {
                match unlinkat(directory, &name, AtFlags::empty()) {
                    Ok(()) => self.removed += 1,
                    Err(Errno::NOENT) => {}
                    // A file may be a mount point as well.
                    Err(Errno::BUSY) => self.blocked = true,
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(())
    }

    fn remove_directory(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: u32) -> io::Result<()> {
        let inner = match open_beneath(parent, name) {
            Err(Errno::ACCESS) => {
                // Our own directory, without rights: nobody is left to put a link in its place.
                chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
                open_beneath(parent, name)
            }
            other => other,
        };
        let inner = match inner {
            Ok(inner) => inner,
            Err(Errno::XDEV) => {
                self.blocked = true;
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        };
        if depth >= Self::DEEPEST {
            self.moved += 1;
            let aside = format!(".firedrill-deep-{}", self.moved);
            // Its turn comes when the top is swept again.
            return Ok(renameat(parent, name, self.top, aside)?);
        }
        if fstat(&inner)?.st_mode & 0o700 != 0o700 {
            rustix::fs::fchmod(&inner, Mode::RWXU)?;
        }
        self.empty(inner.as_fd(), depth + 1)?;
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) => {
                self.removed += 1;
                Ok(())
            }
            Err(Errno::BUSY | Errno::NOTEMPTY | Errno::EXIST) if self.blocked => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// Opens the directory of a detached mount.
pub(super) fn open_mount(mount: impl AsFd) -> io::Result<OwnedFd> {
    Ok(openat(mount, c".", DIRECTORY, Mode::empty())?)
}

/// Whether `firedrill-<drill id>` is absent below `parent`.
pub(super) fn is_absent(parent: &Path, drill: &DrillId) -> bool {
    match open(parent.join(label(drill)), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => true,
        Ok(_) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn drill() -> DrillId {
        DrillId("0192f0c1-2c3d-7abc-8def-0123456789ab".to_owned())
    }

    #[test]
    fn a_scratch_directory_goes_with_all_that_is_in_it_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let parent = true_parent(home.path()).unwrap();
        std::fs::write(parent.join("neighbour"), "stays").unwrap();
        let scratch = PlainDirectory::make(&parent, &drill()).unwrap();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        Rooms::make(&scratch.directory, uid, gid).unwrap();
        let tree = scratch.path_of(&drill(), TREE);
        std::fs::write(tree.join("record"), "Jane Doe").unwrap();
        symlink(&parent, tree.join("up")).unwrap();
        symlink(parent.join("neighbour"), tree.join("side")).unwrap();
        std::fs::create_dir(tree.join("closed")).unwrap();
        std::fs::write(tree.join("closed/inner"), "x").unwrap();
        std::fs::set_permissions(tree.join("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        assert!(!is_absent(&parent, &drill()));
        assert!(matches!(scratch.remove(&drill()), Ok(Removal::Removed(n)) if n == 8));
        assert!(is_absent(&parent, &drill()));
        assert_eq!(std::fs::read_to_string(parent.join("neighbour")).unwrap(), "stays");
        assert!(matches!(scratch.remove(&drill()), Ok(Removal::Absent)));
    }

    #[test]
    fn depth_costs_no_descriptors() {
        let home = tempfile::tempdir().unwrap();
        let parent = true_parent(home.path()).unwrap();
        let scratch = PlainDirectory::make(&parent, &drill()).unwrap();
        let mut at = scratch.directory.try_clone().unwrap();
        for _ in 0..300 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        assert!(matches!(scratch.remove(&drill()), Ok(Removal::Removed(300))));
    }

    #[test]
    fn a_directory_without_our_label_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let parent = true_parent(home.path()).unwrap();
        let foreign = parent.join(label(&drill()));
        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join("theirs"), "stays").unwrap();
        assert_eq!(remove_labelled(&parent, &drill()).unwrap(), Removal::NotOurs);
        std::fs::write(foreign.join(MARKER), "another drill").unwrap();
        assert_eq!(remove_labelled(&parent, &drill()).unwrap(), Removal::NotOurs);
        assert!(foreign.join("theirs").exists());
        // and a link in its place leads nowhere
        std::fs::remove_dir_all(&foreign).unwrap();
        let elsewhere = parent.join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join(MARKER), drill().0).unwrap();
        symlink(&elsewhere, &foreign).unwrap();
        assert_eq!(remove_labelled(&parent, &drill()).unwrap(), Removal::NotOurs);
        assert!(elsewhere.join(MARKER).exists());
    }

    #[test]
    fn an_existing_directory_is_never_taken_over() {
        let home = tempfile::tempdir().unwrap();
        let parent = true_parent(home.path()).unwrap();
        std::fs::create_dir(parent.join(label(&drill()))).unwrap();
        assert_eq!(PlainDirectory::make(&parent, &drill()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
