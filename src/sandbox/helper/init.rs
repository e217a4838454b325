//! PID 1 of the sandbox: builds the root, starts commands one at a time, reaps, and ends with the runner.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, wait};
use rustix::time::timerfd_gettime;

use super::super::spec::Afterwards;
use super::super::wire::{self, FromHelper, HowEnded, LockDown, Place, RunOrder, Seen, Setup, ToHelper};
use super::listen::{self, RouteCount};
use super::lock_down::Asking;
use super::{At, Parts, StepError, borrow, files, lock_down, report_failure, rootfs, start_timer};
use crate::sandbox::sys::check;

/// Never returns: the namespace lives and dies with this process.
pub(super) fn run(setup: &Setup, parts: Parts, control: &OwnedFd, leash: OwnedFd) -> ! {
    let code = match build(setup, parts, control) {
        Ok(init) => init.serve(control, &leash),
        Err((step, error)) => {
            report_failure(control, step, &error);
            70
        }
    };
    std::process::exit(code)
}

struct Init<'a> {
    setup: &'a Setup,
    doors: Vec<OwnedFd>,
    children: OwnedFd,
    joined: bool,
    asking: Asking,
    unrouted: Option<RouteCount>,
}

fn build<'a>(setup: &'a Setup, parts: Parts, control: &OwnedFd) -> Result<Init<'a>, StepError> {
    // SAFETY: plain calls with values. The monitor has one thread, which ends only with the monitor.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0)).at("bind PID 1 to its monitor")?;
    }
    rustix::system::sethostname(b"drill").at("set the host name")?;
    rootfs::raise_loopback().at("raise the loopback")?;
    let made = rootfs::enter(setup, &parts)?;
    let children = watch_children().at("watch child processes")?;
    let Parts { doors, .. } = parts;
    let mut init = Init { setup, doors, children, joined: true, asking: Asking::IfPossible, unrouted: None };
    let lock_down = init.rehearse(control)?;
    init.joined = lock_down.joined;
    init.asking = if lock_down.deaf.is_none() { Asking::Yes } else { Asking::No };
    let name_sockets = listen::name_sockets().at("listen for questions for names")?;
    init.unrouted = RouteCount::start().ok();
    let served = if setup.served_hosts.is_empty() { Vec::new() } else { vec![listen::serving_socket().at("open a listener")?] };
    let pid_namespace = File::open("/proc/self/ns/pid").at("open the pid namespace")?;
    // SAFETY: a plain call with values. After this nobody inside may look into PID 1, not even as the same user.
    unsafe {
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0)).at("hide PID 1's memory")?;
    }
    let listeners = served.len();
    let passed: Vec<OwnedFd> = std::iter::once(OwnedFd::from(pid_namespace)).chain(made).chain(name_sockets).chain(served).collect();
    wire::send(control, &FromHelper::Ready { lock_down, listeners }, &borrow(&passed)).at("say that the sandbox stands")?;
    Ok(init)
}

/// A descriptor that becomes readable when a child ends.
fn watch_children() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: the set is initialised by sigemptyset; the descriptor that signalfd returns is ours.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// What woke PID 1.
enum Woken {
    Order(ToHelper, Vec<OwnedFd>),
    Child,
    Time,
    /// The runner or the monitor is gone.
    Alone,
}

impl Init<'_> {
    fn serve(&self, control: &OwnedFd, leash: &OwnedFd) -> i32 {
        let mut next: Option<(RunOrder, Vec<OwnedFd>)> = None;
        loop {
            if let Some((order, fds)) = next.take() {
                match self.carry_out(order, fds, control, leash) {
                    Ok(then) => next = then,
                    Err(_) => return 0,
                }
                continue;
            }
            match self.wait(control, leash, None) {
                Ok(Woken::Order(ToHelper::Run(order), fds)) => next = Some((order, fds)),
                Ok(Woken::Order(ToHelper::Settle, _)) => {
                    kill_all();
                    let unrouted = self.unrouted.as_ref().and_then(|count| count.since().ok());
                    if wire::send(control, &FromHelper::Settled { unrouted }, &[]).is_err() {
                        return 0;
                    }
                }
                Ok(Woken::Order(..) | Woken::Time) => {}
                Ok(Woken::Child) => while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {},
                Ok(Woken::Alone) | Err(_) => return 0,
            }
        }
    }

    fn wait(&self, control: &OwnedFd, leash: &OwnedFd, timer: Option<&OwnedFd>) -> io::Result<Woken> {
        loop {
            let mut fds = vec![
                PollFd::new(control, PollFlags::IN | PollFlags::RDHUP),
                PollFd::new(leash, PollFlags::empty()),
                PollFd::new(&self.children, PollFlags::IN),
            ];
            if let Some(timer) = timer {
                fds.push(PollFd::new(timer, PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            let woke: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            drop(fds);
            if !woke[1].is_empty() {
                return Ok(Woken::Alone);
            }
            // Children last: a program that makes orphans without end must not outlive its time by keeping us busy.
            if woke.get(3).is_some_and(|w| !w.is_empty()) {
                return Ok(Woken::Time);
            }
            if !woke[0].is_empty() {
                return Ok(match wire::receive::<ToHelper>(control)? {
                    Some((order, fds)) => Woken::Order(order, fds),
                    None => Woken::Alone,
                });
            }
            if !woke[2].is_empty() {
                // One descriptor for many signals: emptied, then every child is asked.
                let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
                while rustix::io::read(&self.children, &mut info).is_ok_and(|n| n > 0) {}
                return Ok(Woken::Child);
            }
        }
    }

    /// Runs one command to its end and answers. Another order that comes meanwhile ends it, and is returned.
    fn carry_out(
        &self,
        order: RunOrder,
        fds: Vec<OwnedFd>,
        control: &OwnedFd,
        leash: &OwnedFd,
    ) -> io::Result<Option<(RunOrder, Vec<OwnedFd>)>> {
        let seq = order.seq;
        let cpu_before = cpu_of_children();
        let (seconds, nanos) = (order.timeout_ns / 1_000_000_000, (order.timeout_ns % 1_000_000_000) as u32);
        let timer = start_timer(seconds, nanos)?;
        let started = files::place(self.setup, &order.files).map_err(|e| ("make its files".to_owned(), e));
        let child = match started.and_then(|()| self.start(&order, fds, control)) {
            Ok(child) => child,
            Err((step, error)) => {
                let errno = error.raw_os_error().unwrap_or(0);
                files::remove();
                wire::send(control, &FromHelper::NotStarted { seq, step, errno }, &[])?;
                return Ok(None);
            }
        };
        let mut then = None;
        let how = loop {
            match self.wait(control, leash, Some(&timer))? {
                Woken::Child => {
                    if let Some(how) = reap_until(child) {
                        break how;
                    }
                }
                Woken::Time => break HowEnded::TimedOut,
                Woken::Order(ToHelper::Cancel { seq: other }, _) if other == seq => break HowEnded::Cancelled,
                Woken::Order(ToHelper::Run(order), fds) => {
                    then = Some((order, fds));
                    break HowEnded::Cancelled;
                }
                Woken::Order(..) => {}
                Woken::Alone => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        };
        let left = timerfd_gettime(&timer)?.it_value;
        let left_ns = (left.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(left.tv_nsec as u64);
        // Before anything is killed: what is full and crowded now was so when the command ended.
        let seen = Seen { full: full_places(), tasks: count_tasks(), cpu_us: cpu_of_children().saturating_sub(cpu_before) };
        let by_itself = matches!(how, HowEnded::Status(_) | HowEnded::Signal(_));
        if !by_itself || order.afterwards == Afterwards::KillRest {
            kill_all();
        }
        if !order.files.is_empty() {
            files::remove();
        }
        wire::send(control, &FromHelper::Ended { seq, how, took_ns: order.timeout_ns.saturating_sub(left_ns), seen }, &[])?;
        Ok(then)
    }

    /// Starts the program. The child tells by a pipe what failed; a program that started closes it instead.
    fn start(&self, order: &RunOrder, fds: Vec<OwnedFd>, control: &OwnedFd) -> Result<Pid, (String, io::Error)> {
        let named = |e: StepError| (e.0.to_owned(), e.1);
        let [stdout, stderr]: [OwnedFd; 2] =
            fds.try_into().map_err(|_| ("read the order".to_owned(), io::Error::from(io::ErrorKind::InvalidData)))?;
        let (told, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("make a pipe").map_err(named)?;
        let (heard, nod) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("make a pipe").map_err(named)?;
        // SAFETY: this process has one thread, so the child may run any code.
        match check(unsafe { libc::fork() }).at("start a process").map_err(named)? {
            0 => {
                drop(nod);
                let mut tell = File::from(tell);
                let Err((step, error)) = self.become_command(order, &stdout, &stderr, &mut tell, &mut File::from(heard));
                let _ = write!(tell, "{} {step}", error.raw_os_error().unwrap_or(0));
                // SAFETY: ends this child without running anything of PID 1's.
                unsafe { libc::_exit(127) }
            }
            child => {
                drop((tell, stdout, stderr, heard));
                let child = Pid::from_raw(child).expect("fork answers a positive id to the parent");
                let mut told = File::from(told);
                let mut text = listen::take_over(child, &mut told, nod, control).unwrap_or_default();
                let _ = told.read_to_end(&mut text);
                match String::from_utf8_lossy(&text).split_once(' ') {
                    None => Ok(child),
                    Some((errno, step)) => {
                        if order.afterwards == Afterwards::KillRest {
                            kill_all();
                        }
                        Err((step.to_owned(), io::Error::from_raw_os_error(errno.parse().unwrap_or(0))))
                    }
                }
            }
        }
    }

    fn become_command(
        &self,
        order: &RunOrder,
        stdout: &OwnedFd,
        stderr: &OwnedFd,
        tell: &mut File,
        heard: &mut File,
    ) -> Result<std::convert::Infallible, StepError> {
        rustix::stdio::dup2_stdout(stdout).at("connect the output")?;
        rustix::stdio::dup2_stderr(stderr).at("connect the output")?;
        rustix::process::setsid().at("start a session")?;
        // Everything else closes on exec, whatever opened it.
        // SAFETY: a plain call with values.
        check(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).at("close descriptors")?;
        if self.joined && !lock_down::enter_groups(&self.doors) {
            return Err(("enter the control groups", io::ErrorKind::PermissionDenied.into()));
        }
        let (_, listener) = lock_down::give_up(self.setup, self.joined, self.asking)?;
        if let Some(listener) = listener {
            listen::hand_over(listener, tell, heard).at("hand the listener over")?;
        }
        let error = Command::new(&order.argv[0])
            .args(&order.argv[1..])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", rootfs::DATA)
            .env("LANG", "C.UTF-8")
            .env("TMPDIR", "/tmp")
            .envs(order.env.iter().map(|(k, v)| (k, v)))
            .current_dir(rootfs::DATA)
            .exec();
        Err(("start the program", error))
    }

    /// A child goes through the whole lock-down and reports: what this host can keep is found by doing it.
    fn rehearse(&self, control: &OwnedFd) -> Result<LockDown, StepError> {
        let (told, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("make a pipe")?;
        let (heard, nod) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("make a pipe")?;
        // SAFETY: this process has one thread, so the child may run any code.
        match check(unsafe { libc::fork() }).at("start a process")? {
            0 => {
                drop(nod);
                let (mut tell, mut heard) = (File::from(tell), File::from(heard));
                let joined = lock_down::enter_groups(&self.doors);
                let answer = lock_down::give_up(self.setup, joined, self.asking)
                    .map(|(lock_down, listener)| match listener {
                        None => lock_down,
                        Some(listener) => {
                            let tried = listen::hand_over(listener, &mut tell, &mut heard).and_then(|()| listen::attempt_once());
                            LockDown { deaf: tried.err().map(|e| e.to_string()), ..lock_down }
                        }
                    })
                    .map_err(|(step, e)| (step.to_owned(), e.raw_os_error().unwrap_or(0)));
                let _ = tell.write_all(&serde_json::to_vec(&answer).unwrap_or_default());
                // SAFETY: ends this child without running anything of PID 1's.
                unsafe { libc::_exit(0) }
            }
            child => {
                drop((tell, heard));
                let child = Pid::from_raw(child).expect("fork answers a positive id to the parent");
                let mut told = File::from(told);
                // Where it cannot be taken over, the child goes on without, and reports it.
                let mut text = listen::take_over(child, &mut told, nod, control).unwrap_or_default();
                told.read_to_end(&mut text).at("rehearse the lock-down")?;
                kill_all();
                match serde_json::from_slice::<Result<LockDown, (String, i32)>>(&text) {
                    Ok(Ok(lock_down)) => Ok(lock_down),
                    Ok(Err((_, errno))) => Err(("lock a process down", io::Error::from_raw_os_error(errno))),
                    Err(_) => Err(("lock a process down", io::ErrorKind::UnexpectedEof.into())),
                }
            }
        }
    }
}

/// Processor time of children that have ended and been waited for, theirs included, microseconds.
fn cpu_of_children() -> u64 {
    // SAFETY: the structure is plain numbers, for which zeros are valid, and the kernel fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) != 0 {
            return 0;
        }
        usage
    };
    let us = |t: libc::timeval| u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(t.tv_usec).unwrap_or(0);
    us(usage.ru_utime) + us(usage.ru_stime)
}

/// The private places in which nothing more can be written.
fn full_places() -> Vec<Place> {
    let is_full = |path: &str| rustix::fs::statvfs(path).is_ok_and(|s| s.f_bavail == 0 || (s.f_files > 0 && s.f_ffree == 0));
    let places = [("/tmp", Place::Tmp), ("/run", Place::Run), ("/dev/shm", Place::SharedMemory)];
    places.into_iter().filter(|(path, _)| is_full(path)).map(|(_, place)| place).collect()
}

/// Processes and threads in the namespace but PID 1.
fn count_tasks() -> u64 {
    let names = |path: &str| std::fs::read_dir(path).into_iter().flatten().filter_map(|e| e.ok()?.file_name().into_string().ok());
    let processes = names("/proc").filter(|name| name != "1" && name.bytes().all(|b| b.is_ascii_digit()));
    processes.map(|pid| names(&format!("/proc/{pid}/task")).count().max(1) as u64).sum()
}

/// Collects ended children; tells how `child` ended once it has.
fn reap_until(child: Pid) -> Option<HowEnded> {
    let mut how = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == child {
            how = Some(how_ended(status));
        }
    }
    how
}

fn how_ended(status: WaitStatus) -> HowEnded {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => HowEnded::Status(code),
        (None, Some(signal)) => HowEnded::Signal(signal),
        (None, None) => HowEnded::Signal(0),
    }
}

/// Everything in the namespace but PID 1, also what would not listen to SIGTERM or has made itself a daemon.
fn kill_all() {
    loop {
        // SAFETY: a plain call with values; from PID 1 of a pid namespace, -1 is everybody else in it.
        unsafe { libc::kill(-1, Signal::KILL.as_raw()) };
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
