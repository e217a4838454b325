//! System calls that rustix does not wrap, each made safe here.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    open_tree,
};

/// `mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Sets mount attributes on `fd` or, where `path` is not empty, on `path` below it.
pub(super) fn mount_setattr(fd: impl AsFd, path: &CStr, recursive: bool, set: MountAttrFlags) -> io::Result<()> {
    let attr = MountAttr { set: u64::from(set.bits()), clear: 0, propagation: 0, userns: 0 };
    let mut flags = if recursive { libc::AT_RECURSIVE as libc::c_uint } else { 0 };
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH as libc::c_uint;
    }
    // SAFETY: descriptor and path are valid for the call; `attr` is a `struct mount_attr` of the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(&attr),
            size_of::<MountAttr>(),
        )
    };
    check(result).map(drop)
}

/// A detached, recursive copy of the mount at `path`.
pub(super) fn clone_tree(path: &std::path::Path, set: MountAttrFlags) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, path, flags)?;
    mount_setattr(&tree, c"", true, set)?;
    Ok(tree)
}

/// A detached copy of the mount at an open directory.
pub(super) fn clone_open_tree(fd: impl AsFd, set: MountAttrFlags) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(fd, c"", flags)?;
    mount_setattr(&tree, c"", false, set)?;
    Ok(tree)
}

/// A detached tmpfs, and whether its pages are kept from swap devices by the mount itself.
pub(super) fn make_tmpfs(label: &str, bytes: u64, inodes: u64) -> io::Result<(OwnedFd, bool)> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", label)?;
    fsconfig_set_string(&fs, "size", bytes.to_string())?;
    fsconfig_set_string(&fs, "nr_inodes", inodes.to_string())?;
    fsconfig_set_string(&fs, "mode", "0700")?;
    // Large pages where a write fills them: four times less work for the kernel. Optional, as old kernels lack it.
    let _ = fsconfig_set_string(&fs, "huge", "within_size");
    // Since Linux 6.4, and only for root of the first user namespace.
    let noswap = fsconfig_set_flag(&fs, "noswap").is_ok();
    fsconfig_create(&fs)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok((fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?, noswap))
}

/// A detached ext4 of a block device, for a volume that nobody opens a second time: its writes need no order on the medium.
pub(super) fn mount_ext4(device: &std::path::Path) -> io::Result<OwnedFd> {
    let fs = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", device)?;
    fsconfig_set_string(&fs, "errors", "remount-ro")?;
    fsconfig_set_flag(&fs, "nobarrier")?;
    fsconfig_set_flag(&fs, "noinit_itable")?;
    fsconfig_create(&fs)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Where `needle` is in `haystack`.
pub(super) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    // SAFETY: both are valid for the lengths that are passed.
    let at = unsafe { libc::memmem(haystack.as_ptr().cast(), haystack.len(), needle.as_ptr().cast(), needle.len()) };
    (!at.is_null()).then(|| at as usize - haystack.as_ptr() as usize)
}

/// Asks again until it is so, for a while.
pub(super) fn within(patience: std::time::Duration, mut done: impl FnMut() -> bool) -> bool {
    let pause = std::time::Duration::from_millis(2);
    let mut left = patience.as_micros() / pause.as_micros();
    loop {
        if done() {
            return true;
        }
        if left == 0 {
            return false;
        }
        left -= 1;
        std::thread::sleep(pause);
    }
}

/// The error of a libc call that answers -1.
pub(super) fn check<T: Into<i64> + Copy>(result: T) -> io::Result<T> {
    if result.into() == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
