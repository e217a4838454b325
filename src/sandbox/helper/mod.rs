//! The helper: our own binary, started anew, single-threaded, so that it may fork and unshare.
//!
//! ```text
//! runner --control socket--> monitor (new user namespace; watches) --> PID 1 (builds, serves, reaps) --> commands
//! ```
//!
//! Standard input is the control socket, and the lifeline as well: when the runner dies, however it dies, its end closes,
//! and monitor and PID 1 see that. A parent-death signal would not do between runner and monitor: it fires when the
//! *thread* ends that started the monitor. Between monitor and PID 1 it does, both having one thread only.

mod files;
mod init;
mod listen;
mod lock_down;
mod rootfs;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, mount_change};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};
use rustix::thread::UnshareFlags;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};

use super::sys::{check, clone_tree, make_tmpfs};
use super::wire::{self, FromHelper, HostDirectory, IdMap, ScratchOrder, Setup, Shown, ShownKind, ToHelper};

/// The hidden command by which the binary is asked to be the helper.
pub(super) const HELPER_ARGUMENT: &str = "__sandbox";
/// The user inside. Not 0: servers refuse root, and an id other than 0 loses its capabilities on exec.
pub(super) const INNER_ID: u32 = 1000;

/// What a failed step was, and the error; the runner is told both.
pub(super) type StepError = (&'static str, io::Error);

pub(super) trait At<T> {
    fn at(self, step: &'static str) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &'static str) -> Result<T, StepError> {
        self.map_err(|e| (step, e.into()))
    }
}

/// Becomes the sandbox's helper, and never returns, where the command line says so. `main` calls this before anything
/// else: the helper must have one thread.
pub fn become_helper_if_asked() {
    if std::env::args_os().nth(1).is_some_and(|a| a == HELPER_ARGUMENT) {
        let code = monitor();
        std::process::exit(code);
    }
}

fn monitor() -> i32 {
    // The private root must be readable for the user inside, whatever the runner's own umask is.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let Ok(control) = take_control() else { return 64 };
    match set_up(&control) {
        Ok((child, leash, seconds)) => watch(&control, child, leash, seconds),
        Err((step, error)) => {
            report_failure(&control, step, &error);
            70
        }
    }
}

pub(super) fn report_failure(control: &OwnedFd, step: &str, error: &io::Error) {
    let message = FromHelper::Failed { step: step.to_owned(), errno: error.raw_os_error().unwrap_or(0) };
    // Where even this fails the runner sees the closed socket instead.
    let _ = wire::send(control, &message, &[]);
}

/// Moves the control socket away from standard input; answers nobody who calls the helper by hand.
fn take_control() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    if rustix::net::sockopt::socket_type(&stdin)? != rustix::net::SocketType::SEQPACKET {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Whatever a careless runner left open for its children ends here.
    // SAFETY: this process has just started and owns no descriptor above standard error.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) })?;
    let control = rustix::io::fcntl_dupfd_cloexec(&stdin, 10)?;
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::io::fcntl_setfd(&null, rustix::io::FdFlags::CLOEXEC)?;
    Ok(control)
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: one thread, and no descriptor table is unshared.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}

fn set_up(control: &OwnedFd) -> Result<(Pid, OwnedFd, u64), StepError> {
    let (setup, fds) = match wire::receive::<ToHelper>(control).at("read the order")? {
        Some((ToHelper::Setup(setup), fds)) => (*setup, fds),
        _ => return Err(("read the order", io::ErrorKind::InvalidData.into())),
    };
    // Where the host itself runs out of memory, what runs inside goes before the host's own services. Now, as in its new user
    // namespace this process may not write to its own files below the host's /proc.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    unshare(UnshareFlags::NEWUSER).at("make a user namespace")?;
    become_root_inside(control, &setup)?;
    let apart = UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    unshare(apart).at("make namespaces")?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).at("make mounts private")?;
    let parts = gather(&setup, fds)?;
    let (leash_end, leash) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("make the leash")?;
    // SAFETY: this process has one thread, so the child may run any code.
    match check(unsafe { libc::fork() }).at("fork PID 1")? {
        0 => {
            drop(leash);
            init::run(&setup, parts, control, leash_end)
        }
        child => {
            drop(leash_end);
            let child = Pid::from_raw(child).expect("fork answers a positive id to the parent");
            Ok((child, leash, setup.seconds))
        }
    }
}

/// Waits for the runner's id maps, or writes our own single one.
fn become_root_inside(control: &OwnedFd, setup: &Setup) -> Result<(), StepError> {
    match setup.ids {
        IdMap::Range { .. } => {
            wire::send(control, &FromHelper::WantsMaps, &[]).at("ask for id maps")?;
            let Some((ToHelper::Mapped, _)) = wire::receive::<ToHelper>(control).at("wait for id maps")? else {
                return Err(("wait for id maps", io::ErrorKind::InvalidData.into()));
            };
            // SAFETY: plain calls, one thread; the C library's own wrappers would do the same.
            unsafe {
                check(libc::setgroups(0, std::ptr::null())).at("drop groups")?;
                check(libc::setresgid(0, 0, 0)).at("become group 0 inside")?;
                check(libc::setresuid(0, 0, 0)).at("become user 0 inside")?;
            }
            Ok(())
        }
        IdMap::Single { uid, gid } => {
            std::fs::write("/proc/self/setgroups", "deny").at("write the id map")?;
            std::fs::write("/proc/self/uid_map", format!("{INNER_ID} {uid} 1\n")).at("write the id map")?;
            std::fs::write("/proc/self/gid_map", format!("{INNER_ID} {gid} 1\n")).at("write the id map")
        }
    }
}

/// The descriptors that PID 1 builds with.
pub(super) struct Parts {
    /// `cgroup.procs` of each control group, open for writing.
    pub doors: Vec<OwnedFd>,
    /// Detached mount of the scratch, or of the restored tree alone.
    pub scratch: OwnedFd,
    /// Detached mount of the kit, where the scratch's does not hold it.
    pub kit: Option<OwnedFd>,
    /// Whether the scratch was made here, so that its directory must be passed back.
    pub scratch_is_ours: bool,
    /// Detached mounts of what is shown, in the order of the setup.
    pub shown: Vec<OwnedFd>,
}

fn gather(setup: &Setup, fds: Vec<OwnedFd>) -> Result<Parts, StepError> {
    let mut fds = fds.into_iter();
    let missing = || ("read the order", io::Error::from(io::ErrorKind::InvalidData));
    let doors: Vec<OwnedFd> = fds.by_ref().take(setup.cgroup_doors).collect();
    let mut kit = None;
    let (scratch, scratch_is_ours) = match &setup.scratch {
        ScratchOrder::PassedMount => (fds.next().ok_or_else(missing)?, false),
        ScratchOrder::PassedDirectories => {
            let tree = fds.next().ok_or_else(missing)?;
            kit = Some(fds.next().ok_or_else(missing)?);
            (tree, false)
        }
        ScratchOrder::MakeTmpfs { bytes, inodes } => (make_tmpfs(&setup.label, *bytes, *inodes).at("make the scratch tmpfs")?.0, true),
        ScratchOrder::FindDirectories { tree, kit: other } => {
            kit = Some(find_directory(other)?);
            (find_directory(tree)?, false)
        }
    };
    let shown: Vec<OwnedFd> =
        if setup.shown_passed { fds.collect() } else { setup.shown.iter().map(clone_shown).collect::<Result<_, _>>()? };
    if shown.len() != setup.shown.len() || doors.len() != setup.cgroup_doors {
        return Err(missing());
    }
    Ok(Parts { doors, scratch, kit, scratch_is_ours, shown })
}

/// A detached, read-only mount of a host directory or device.
pub(super) fn clone_shown(shown: &Shown) -> Result<OwnedFd, StepError> {
    let never_suid = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let set = match shown.kind {
        ShownKind::Directory => never_suid | MountAttrFlags::MOUNT_ATTR_NODEV,
        ShownKind::Device => never_suid | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    };
    clone_tree(&shown.host, set).at("show a host directory inside")
}

/// Found by name in our own mount namespace; it must be the directory that the runner made.
fn find_directory(wanted: &HostDirectory) -> Result<OwnedFd, StepError> {
    let tree =
        clone_tree(&wanted.path, MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV).at("find the scratch directory")?;
    let stat = rustix::fs::fstat(&tree).at("find the scratch directory")?;
    if (stat.st_dev, stat.st_ino) != (wanted.dev, wanted.ino) {
        return Err(("find the scratch directory", io::ErrorKind::NotFound.into()));
    }
    Ok(tree)
}

/// Until PID 1 ends, the runner's end closes, or the time of the whole sandbox is over.
fn watch(control: &OwnedFd, child: Pid, leash: OwnedFd, seconds: u64) -> i32 {
    let code = match wait_for_end(control, child, seconds) {
        Ok(WhatEnded::Init) => 0,
        Ok(WhatEnded::Runner) => 0,
        Ok(WhatEnded::Time) => {
            let _ = wire::send(control, &FromHelper::OutOfTime, &[]);
            0
        }
        Err(_) => 71,
    };
    // PID 1 takes everything in its namespace with it; the wait returns when all of it is gone.
    let _ = kill_process(child, Signal::KILL);
    drop(leash);
    let _ = waitpid(Some(child), WaitOptions::empty());
    code
}

enum WhatEnded {
    Init,
    Runner,
    Time,
}

fn wait_for_end(control: &OwnedFd, child: Pid, seconds: u64) -> io::Result<WhatEnded> {
    let pidfd = pidfd_open(child, PidfdFlags::empty())?;
    let timer = start_timer(seconds, 0)?;
    loop {
        let mut fds = [
            PollFd::new(&pidfd, PollFlags::IN),
            // No IN: messages are for PID 1. A hang-up is always told.
            PollFd::from_borrowed_fd(control.as_fd(), PollFlags::RDHUP),
            PollFd::new(&timer, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        if !fds[0].revents().is_empty() {
            return Ok(WhatEnded::Init);
        }
        if !fds[1].revents().is_empty() {
            return Ok(WhatEnded::Runner);
        }
        if !fds[2].revents().is_empty() {
            return Ok(WhatEnded::Time);
        }
    }
}

/// A timer that fires once: limit and stopwatch in one, so that the helper reads no clock.
pub(super) fn start_timer(seconds: u64, nanos: u32) -> io::Result<OwnedFd> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let value = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: i64::from(nanos) };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: zero, it_value: value })?;
    Ok(timer)
}

/// Descriptors of a message, borrowed.
pub(super) fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}
