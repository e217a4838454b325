//! The private root: host programs read-only, an `/etc` of our own, and nothing else of the host.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::mount::{MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, mount, mount_bind, move_mount, unmount};

use super::super::scratch::{KIT, SPOOL, TREE};
use super::super::wire::{ScratchOrder, Setup, ShownKind};
use super::{At, INNER_ID, Parts, StepError};
use crate::sandbox::sys::{check, mount_setattr};

/// Where the restored tree is inside.
pub(in crate::sandbox) const DATA: &str = super::super::DATA_DIRECTORY;
const ETC_NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n";
const ETC_HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 drill\n";
/// Whoever reads these learns something about the host.
const MASKED: [&str; 9] = [
    "proc/kcore",
    "proc/keys",
    "proc/key-users",
    "proc/kallsyms",
    "proc/kmsg",
    "proc/modules",
    "proc/sysrq-trigger",
    "proc/timer_list",
    "proc/sched_debug",
];
/// Settings of the host's kernel. Rights alone do not guard them: where the runner is root of a container, what runs inside has
/// root's own number, and the kernel asks for no more than that.
const READ_ONLY: [&str; 7] = ["proc/sys", "proc/irq", "proc/bus", "proc/fs", "proc/acpi", "proc/scsi", "proc/pressure"];
/// Files of each private place: empty ones take no bytes of it, but memory of the kernel that only a control group would count.
const PRIVATE_FILES: u32 = 16_384;

/// Builds the root and moves into it. Returns the scratch directory where it was made here.
pub(super) fn enter(setup: &Setup, parts: &Parts) -> Result<Option<OwnedFd>, StepError> {
    let nosuid = MountFlags::NOSUID | MountFlags::NODEV;
    mount(&setup.label, "/tmp", "tmpfs", nosuid, c"size=4m,nr_inodes=4096,mode=755").at("mount the private root")?;
    std::env::set_current_dir("/tmp").at("enter the private root")?;

    for (shown, tree) in setup.shown.iter().zip(&parts.shown) {
        let target = relative(&shown.inside);
        make_mount_point(&target, shown.kind).at("make a mount point")?;
        attach(tree, &target).at("show a host directory inside")?;
    }
    for (link, to) in &setup.links {
        symlink(to, relative(link)).at("make a symbolic link")?;
    }
    write_etc(setup).at("write /etc")?;
    let made = attach_scratch(setup, parts)?;
    let private = |target: &str, bytes: u64| {
        fs::create_dir_all(target)?;
        let options = CString::new(format!("size={bytes},nr_inodes={PRIVATE_FILES},mode=1777")).expect("digits and letters hold no NUL");
        mount(&setup.label, target, "tmpfs", nosuid, options.as_c_str()).map_err(io::Error::from)
    };
    private("tmp", setup.private_tmp).at("mount the private /tmp")?;
    private("run", setup.private_tmp.min(16 << 20)).at("mount the private /run")?;
    finish_dev(setup).at("make /dev")?;
    fs::create_dir("proc").at("mount /proc")?;
    // Before the host's root goes: the kernel gives a new proc only to who can see a whole one.
    mount("proc", "proc", "proc", nosuid | MountFlags::NOEXEC, None).at("mount /proc")?;
    for file in MASKED.iter().filter(|f| Path::new(f).exists()) {
        mount_bind("dev/null", *file).at("mask a file of /proc")?;
    }
    for directory in READ_ONLY.iter().filter(|d| Path::new(d).is_dir()) {
        let step = "make settings below /proc read-only";
        mount_bind(*directory, *directory).at(step)?;
        let path = CString::new(*directory).expect("a constant holds no NUL");
        mount_setattr(CWD, &path, false, MountAttrFlags::MOUNT_ATTR_RDONLY).at(step)?;
    }

    // The old root ends up on top of the new one, and is detached from there: no directory is needed for it.
    rustix::process::pivot_root(".", ".").at("move to the private root")?;
    unmount(".", UnmountFlags::DETACH).at("detach the host's root")?;
    std::env::set_current_dir("/").at("move to the private root")?;
    mount_setattr(CWD, c"/", false, MountAttrFlags::MOUNT_ATTR_RDONLY).at("make the private root read-only")?;
    Ok(made)
}

fn relative(inside: &Path) -> PathBuf {
    inside.strip_prefix("/").unwrap_or(inside).to_owned()
}

fn make_mount_point(target: &Path, kind: ShownKind) -> io::Result<()> {
    match kind {
        ShownKind::Directory => fs::create_dir_all(target),
        ShownKind::Device => {
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::File::create(target).map(drop)
        }
    }
}

fn attach(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes())?;
    Ok(move_mount(tree, c"", CWD, target.as_c_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn write_etc(setup: &Setup) -> io::Result<()> {
    fs::create_dir_all("etc")?;
    let users =
        format!("root:x:0:0:root:/:/bin/sh\ndrill:x:{INNER_ID}:{INNER_ID}:drill:{DATA}:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n");
    let groups = format!("root:x:0:\ndrill:x:{INNER_ID}:\nnogroup:x:65534:\n");
    let served: String = setup.served_hosts.iter().map(|host| format!("127.0.0.1 {host}\n")).collect();
    let hosts = format!("{ETC_HOSTS}{served}");
    for (name, text) in [
        ("passwd", users.as_str()),
        ("group", groups.as_str()),
        ("hosts", hosts.as_str()),
        ("hostname", "drill\n"),
        ("nsswitch.conf", ETC_NSSWITCH),
    ] {
        fs::write(Path::new("etc").join(name), text)?;
    }
    if let Some(cache) = &setup.loader_cache
        && let Ok(bytes) = fs::read(cache)
    {
        fs::write("etc/ld.so.cache", bytes)?;
    }
    Ok(())
}

/// Puts the restored tree and the kit, and only those, at their places.
fn attach_scratch(setup: &Setup, parts: &Parts) -> Result<Option<OwnedFd>, StepError> {
    let step = "attach the scratch";
    let data = relative(Path::new(DATA));
    let kit = relative(Path::new(super::super::KIT_DIRECTORY));
    fs::create_dir_all(&data).at(step)?;
    fs::create_dir_all(&kit).at(step)?;
    match setup.scratch {
        ScratchOrder::PassedDirectories | ScratchOrder::FindDirectories { .. } => {
            attach(&parts.scratch, &data).at(step)?;
            if let Some(room) = &parts.kit {
                attach(room, &kit).at(step)?;
            }
            Ok(None)
        }
        ScratchOrder::PassedMount | ScratchOrder::MakeTmpfs { .. } => {
            let made = if parts.scratch_is_ours { Some(furnish(&parts.scratch).at(step)?) } else { None };
            fs::create_dir("stage").at(step)?;
            attach(&parts.scratch, Path::new("stage")).at(step)?;
            mount_bind(format!("stage/{TREE}"), data.as_path()).at(step)?;
            mount_bind(format!("stage/{KIT}"), kit.as_path()).at(step)?;
            unmount("stage", UnmountFlags::DETACH).at(step)?;
            fs::remove_dir("stage").at(step)?;
            Ok(made)
        }
    }
}

/// Makes the directories of a scratch that was made here.
fn furnish(mount: &OwnedFd) -> io::Result<OwnedFd> {
    let directory = openat(mount.as_fd(), c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for room in [TREE, SPOOL, KIT] {
        mkdirat(&directory, room, Mode::RWXU)?;
    }
    Ok(directory)
}

fn finish_dev(setup: &Setup) -> io::Result<()> {
    for (link, to) in [("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")]
    {
        symlink(to, Path::new("dev").join(link))?;
    }
    fs::create_dir("dev/shm")?;
    let options =
        CString::new(format!("size={},nr_inodes={PRIVATE_FILES},mode=1777", setup.private_tmp)).expect("digits and letters hold no NUL");
    mount(&setup.label, "dev/shm", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())?;
    Ok(())
}

/// Brings the loopback up: the only interface there is.
pub(super) fn raise_loopback() -> io::Result<()> {
    // SAFETY: an `ifreq` of zeros is valid, the name fits, and the socket is closed on every way out.
    unsafe {
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        let result = check(libc::ioctl(socket, libc::SIOCSIFFLAGS as _, std::ptr::from_ref(&request)));
        libc::close(socket);
        result.map(drop)
    }
}
