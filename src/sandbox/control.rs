//! The runner's end of the control socket: orders out, answers and output in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use data_encoding::BASE64;
use rustix::fs::fstatvfs;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use super::cgroup::{Groups, Hits};
use super::error::{Limit, SandboxError, Step};
use super::helper::borrow;
use super::place::{cpu_seconds, private_run, private_tmp};
use super::spec::{CommandSpec, Ended, Exit};
use super::wire::{self, FileOrder, FromHelper, HowEnded, Place, RunOrder, Seen, ToHelper};
use crate::domain::{Elapsed, Period, ResourceLimits, ScratchKind};

#[derive(Debug)]
pub(super) struct Control {
    socket: AsyncFd<OwnedFd>,
    next: u64,
    out_of_time: bool,
}

/// What a command is held against.
pub(super) struct Bounds<'a> {
    pub groups: Option<&'a Groups>,
    /// Whether a control group counts processes.
    pub processes_by_group: bool,
    pub limits: &'a ResourceLimits,
    pub scratch: &'a OwnedFd,
    /// Hears of attempts to reach the outside.
    pub hear: &'a (dyn Fn(Vec<OwnedFd>) + Sync),
}

impl Bounds<'_> {
    fn hits(&self) -> Hits {
        self.groups.map(Groups::hits).unwrap_or_default()
    }
    /// Where no group counts processes, the kernel refuses new ones and tells nobody: known only if it was so at the end.
    fn is_crowded(&self, how: HowEnded, seen: &Seen) -> bool {
        // Counted with what is seen inside: PID 1, its monitor, and the command itself, which has just ended.
        const BESIDE: u64 = 3;
        let at_the_limit = seen.tasks.saturating_add(BESIDE) >= u64::from(self.limits.processes);
        !self.processes_by_group && how != HowEnded::Status(0) && at_the_limit
    }
    /// The group's limit has room for a scratch in memory, whose pages count as memory too.
    fn memory_words(&self) -> String {
        match self.limits.scratch {
            ScratchKind::Tmpfs => format!("{} beside {} of scratch", self.limits.memory, self.limits.scratch_size),
            ScratchKind::Encrypted | ScratchKind::Directory => self.limits.memory.to_string(),
        }
    }
}

/// Which bound of scratch is reached, if any. A full table of entries has bytes left, and is told apart by that.
pub(super) fn full_scratch(scratch: &OwnedFd, limits: &ResourceLimits) -> Option<SandboxError> {
    let stat = fstatvfs(scratch).ok()?;
    if stat.f_bavail == 0 {
        return Some(SandboxError::Limit { limit: Limit::Scratch, value: limits.scratch_size.to_string() });
    }
    let full = stat.f_files > 0 && stat.f_favail == 0;
    full.then(|| SandboxError::Limit { limit: Limit::Inodes, value: format!("{} entries", stat.f_files) })
}

impl Control {
    pub fn new(socket: OwnedFd) -> io::Result<Control> {
        // SAFETY: an `OwnedFd` is one open descriptor, the same for as long as it lives, and the `AsyncFd` owns it.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Control { socket, next: 0, out_of_time: false })
    }

    pub async fn send(&self, message: &ToHelper, fds: &[OwnedFd]) -> io::Result<()> {
        let fds = borrow(fds);
        self.socket.async_io(Interest::WRITABLE, |socket| wire::send(socket, message, &fds)).await
    }

    /// The next message; `None` when the helper is gone.
    pub async fn receive(&mut self) -> io::Result<Option<(FromHelper, Vec<OwnedFd>)>> {
        match self.socket.async_io(Interest::READABLE, |socket| wire::receive(socket)).await {
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            other => other,
        }
    }

    pub async fn run(&mut self, command: &CommandSpec, bounds: &Bounds<'_>) -> Result<Exit, SandboxError> {
        let seq = self.next;
        self.next += 1;
        let order = RunOrder {
            seq,
            argv: command.argv.clone(),
            env: command.env.clone(),
            timeout_ns: u64::try_from(command.timeout.as_nanos()).unwrap_or(u64::MAX),
            afterwards: command.afterwards,
            files: command.files.iter().map(|(name, bytes)| FileOrder { name: name.clone(), content: BASE64.encode(bytes) }).collect(),
        };
        let (mut stdout, out) = Drain::new(command.output_cap).step("make an output pipe")?;
        let (mut stderr, err) = Drain::new(command.output_cap).step("make an output pipe")?;
        let before = bounds.hits();
        match self.send(&ToHelper::Run(order), &[out, err]).await {
            Err(e) if e.kind() == io::ErrorKind::ArgumentListTooLong => {
                return Err(SandboxError::Spec { what: "a command with its files longer than 128 KiB".to_owned() });
            }
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Err(self.why_gone(bounds).await),
            other => other.step("order a command")?,
        }
        let mut cancel = CancelOnDrop { socket: self.socket.as_fd().try_clone_to_owned().ok(), seq };
        let answer = tokio::select! {
            biased;
            answer = self.answer(seq, bounds) => answer,
            () = async { tokio::join!(stdout.read_on(), stderr.read_on()); std::future::pending().await } => unreachable!("pending never ends"),
        };
        cancel.socket = None;
        let (how, took_ns, seen) = answer?;
        stdout.take_rest();
        stderr.take_rest();
        judge(how, command, bounds, before, &seen)?;
        let ended = match how {
            HowEnded::Status(code) => Ended::Status(code),
            HowEnded::Signal(signal) => Ended::Signal(signal),
            HowEnded::TimedOut | HowEnded::Cancelled => return Err(SandboxError::Died { how: "its command was cancelled".to_owned() }),
        };
        Ok(Exit {
            ended,
            stdout: stdout.kept,
            stderr: stderr.kept,
            stdout_dropped: stdout.dropped,
            stderr_dropped: stderr.dropped,
            took: Elapsed { nanos: took_ns },
            output_cap: command.output_cap,
        })
    }

    /// The answer to this command; late answers to cancelled ones are passed over.
    async fn answer(&mut self, seq: u64, bounds: &Bounds<'_>) -> Result<(HowEnded, u64, Seen), SandboxError> {
        loop {
            match self.receive().await.step("hear from the sandbox's helper")? {
                Some((FromHelper::Ended { seq: of, how, took_ns, seen }, _)) if of == seq => return Ok((how, took_ns, seen)),
                Some((FromHelper::NotStarted { seq: of, step, errno }, _)) if of == seq => {
                    return Err(SandboxError::NotStarted { step, source: io::Error::from_raw_os_error(errno) });
                }
                Some((FromHelper::Hear, fds)) => (bounds.hear)(fds),
                Some((FromHelper::OutOfTime, _)) => self.out_of_time = true,
                Some(_) => {}
                None => return Err(self.why_gone(bounds).await),
            }
        }
    }

    /// Ends everything inside; the kernel's count of packets without a route, where the helper can still tell it.
    pub async fn settle(&mut self, hear: &(dyn Fn(Vec<OwnedFd>) + Sync)) -> Option<u64> {
        self.send(&ToHelper::Settle, &[]).await.ok()?;
        loop {
            match self.receive().await.ok()?? {
                (FromHelper::Settled { unrouted }, _) => return unrouted,
                (FromHelper::Hear, fds) => hear(fds),
                (FromHelper::OutOfTime, _) => self.out_of_time = true,
                _ => {}
            }
        }
    }

    /// By the helper's last word, if it left one.
    async fn why_gone(&mut self, bounds: &Bounds<'_>) -> SandboxError {
        while let Ok(Some((message, _))) = self.receive().await {
            self.out_of_time |= matches!(message, FromHelper::OutOfTime);
        }
        if self.out_of_time {
            return SandboxError::Limit { limit: Limit::Time, value: bounds.limits.time.to_string() };
        }
        SandboxError::Died { how: "its first process is gone".to_owned() }
    }
}

/// Whether a bound was hit. Counters decide, not the exit status: a plain `exit 137` is no lack of memory. Bounds without a
/// counter count only for a command that failed, by what PID 1 saw when it ended.
fn judge(how: HowEnded, command: &CommandSpec, bounds: &Bounds<'_>, before: Hits, seen: &Seen) -> Result<(), SandboxError> {
    let hit = |limit, value| Err(SandboxError::Limit { limit, value });
    let after = bounds.hits();
    if after.out_of_memory > before.out_of_memory {
        return hit(Limit::Memory, bounds.memory_words());
    }
    if after.out_of_processes > before.out_of_processes || bounds.is_crowded(how, seen) {
        return hit(Limit::Processes, bounds.limits.processes.to_string());
    }
    if how == HowEnded::TimedOut {
        return hit(Limit::Time, Elapsed::from_duration(command.timeout).to_string());
    }
    if how == HowEnded::Status(0) {
        return Ok(());
    }
    let cpu = cpu_seconds(bounds.limits);
    // The kernel counts whole ticks for the limit, and what ran for the account: far less where a hypervisor takes time away.
    // A quarter tells its signal from one that a program sent itself.
    if ended_by(how, libc::SIGXCPU) && seen.cpu_us >= cpu.saturating_mul(250_000) {
        return hit(Limit::Cpu, format!("{} of processor time", Period::from_secs(cpu)));
    }
    // A file as large as all of scratch: the kernel stops whoever writes it, also where scratch has no size of its own.
    if ended_by(how, libc::SIGXFSZ) {
        return hit(Limit::Scratch, bounds.limits.scratch_size.to_string());
    }
    if let Some(error) = full_scratch(bounds.scratch, bounds.limits) {
        return Err(error);
    }
    match seen.full.first() {
        None => Ok(()),
        Some(Place::Tmp) => hit(Limit::Tmp, private_tmp(bounds.limits).to_string()),
        Some(Place::Run) => hit(Limit::Run, private_run(bounds.limits).to_string()),
        Some(Place::SharedMemory) => hit(Limit::SharedMemory, private_tmp(bounds.limits).to_string()),
    }
}

/// By this signal, or by a shell that says that its program was.
fn ended_by(how: HowEnded, signal: i32) -> bool {
    how == HowEnded::Signal(signal) || how == HowEnded::Status(128 + signal)
}

/// Tells the helper to end a command that nobody waits for any more.
struct CancelOnDrop {
    socket: Option<OwnedFd>,
    seq: u64,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            // A full socket is not waited for: the next order, or the end of the sandbox, ends the command as well.
            let _ = wire::send(socket, &ToHelper::Cancel { seq: self.seq }, &[]);
        }
    }
}

/// Reads a pipe to its end, and keeps the beginning.
struct Drain {
    pipe: pipe::Receiver,
    kept: Vec<u8>,
    dropped: u64,
    cap: usize,
}

impl Drain {
    fn new(cap: usize) -> io::Result<(Drain, OwnedFd)> {
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let pipe = pipe::Receiver::from_owned_fd(ours)?;
        Ok((Drain { pipe, kept: Vec::new(), dropped: 0, cap }, theirs))
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = self.cap.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(&bytes[..room]);
        self.dropped += (bytes.len() - room) as u64;
    }

    async fn read_on(&mut self) {
        while self.pipe.readable().await.is_ok() && self.take_some() {}
    }

    /// What is there now; false at the end.
    fn take_some(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.pipe.try_read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                self.take(&buffer[..n]);
                true
            }
            Err(e) => e.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// After the command's end: what is still in the pipe. No waiting for others who hold it open, nor, where they go on
    /// writing, more than a pipe can hold.
    fn take_rest(&mut self) {
        const LARGEST_PIPE: usize = 1 << 20;
        let mut buffer = vec![0; 16 << 10];
        for _ in 0..LARGEST_PIPE / buffer.len() {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(n @ 1..) => self.take(&buffer[..n]),
                Ok(_) | Err(_) => return,
            }
        }
    }
}
