//! What runs inside and wants out: asked about by the kernel, refused at once, and listed.
//!
//! Isolation does not rest on this: there is no route, whoever answers. The list does, and is held against the network
//! namespace's own count of packets without a route, which sees what slips past, as an address that another thread
//! exchanges between our look at it and the kernel's.

mod names;
mod notice;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recvfrom, sendto};
use rustix::time::timerfd_gettime;

use super::helper::start_timer;
use super::wire::PROBE;
use crate::domain::{EgressProtocol, Elapsed};

/// Different attempts that are listed; all are counted.
pub(super) const LISTED: usize = 100;

/// What was attempted.
#[derive(Clone, PartialEq, Eq)]
pub struct Attempted {
    /// How.
    pub protocol: EgressProtocol,
    /// The address, where there was one.
    pub destination: Option<IpAddr>,
    /// The port, where there was one.
    pub port: Option<u16>,
    /// The name asked for.
    pub name: Option<String>,
}

// A name is chosen by what was restored.
impl fmt::Debug for Attempted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempted").field("protocol", &self.protocol).field("port", &self.port).finish_non_exhaustive()
    }
}

/// One attempt and its repetitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// From the sandbox's beginning to the first.
    pub after: Elapsed,
    /// What.
    pub what: Attempted,
    /// How often.
    pub times: u64,
}

/// All attempts of a sandbox's life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts {
    /// From the sandbox's beginning to now, on the same clock.
    pub now: Elapsed,
    /// How many there were.
    pub total: u64,
    /// The first different ones.
    pub list: Vec<Attempt>,
    /// Those of `total` that only the kernel counted.
    pub counted_only: u64,
    /// Why some may be missing; empty where none can be.
    pub gaps: Vec<String>,
}

/// What a look at one question shows.
#[derive(Debug)]
pub(super) enum Seen {
    /// An attempt.
    Attempt(Attempted),
    /// The address could not be read.
    Unread,
}

/// Hears attempts on a thread of its own, from the sandbox's first moment to its last.
#[derive(Debug)]
pub(super) struct Recorder {
    heard: Arc<Mutex<Heard>>,
    wake: Arc<OwnedFd>,
    /// Tells at its end whether it heard everything.
    thread: Option<JoinHandle<bool>>,
}

#[derive(Debug)]
struct Heard {
    /// Runs down from a time that no sandbox reaches: a stopwatch without a clock.
    stopwatch: OwnedFd,
    total: u64,
    unread: u64,
    /// Commands that could not be heard.
    deaf_to: u64,
    list: Vec<Attempt>,
    inbox: Vec<Inlet>,
    ending: bool,
}

/// Where attempts are heard.
#[derive(Debug)]
enum Inlet {
    /// The kernel asks about system calls.
    Calls(OwnedFd),
    /// Questions for names, in datagrams.
    Datagrams(OwnedFd),
    /// Connections for such questions.
    Connections(OwnedFd),
    /// One of them, and what it sent so far.
    Connection(OwnedFd, Vec<u8>),
}

const LONGER_THAN_ANY: u64 = 1 << 32;

impl Recorder {
    /// Begins to hear.
    pub fn start() -> io::Result<Recorder> {
        let stopwatch = start_timer(LONGER_THAN_ANY, 0)?;
        let heard =
            Arc::new(Mutex::new(Heard { stopwatch, total: 0, unread: 0, deaf_to: 0, list: Vec::new(), inbox: Vec::new(), ending: false }));
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (theirs, bell) = (Arc::clone(&heard), Arc::clone(&wake));
        let thread = std::thread::Builder::new().name("egress".to_owned()).spawn(move || listen(&theirs, &bell))?;
        Ok(Recorder { heard, wake, thread: Some(thread) })
    }

    /// Hears the system calls of a command. One whose descriptor did not arrive gets no answers, and nobody knows what it tried.
    pub fn hear_calls(&self, listener: Vec<OwnedFd>) {
        if listener.is_empty() {
            lock(&self.heard).deaf_to += 1;
        }
        listener.into_iter().for_each(|fd| self.add(Inlet::Calls(fd)));
    }

    /// Answers questions for names.
    pub fn hear_names(&self, sockets: Vec<OwnedFd>) -> io::Result<()> {
        for socket in sockets {
            rustix::io::ioctl_fionbio(&socket, true)?;
            self.add(match rustix::net::sockopt::socket_type(&socket)? {
                rustix::net::SocketType::DGRAM => Inlet::Datagrams(socket),
                _ => Inlet::Connections(socket),
            });
        }
        Ok(())
    }

    /// Attempts so far.
    pub fn total(&self) -> u64 {
        lock(&self.heard).total
    }

    fn add(&self, inlet: Inlet) {
        lock(&self.heard).inbox.push(inlet);
        self.ring();
    }

    fn ring(&self) {
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }

    /// Whether the rehearsal's one attempt, and it alone, was seen with its address; the list begins after it.
    pub fn saw_the_probe(&self) -> bool {
        let mut heard = lock(&self.heard);
        let (list, unread) = (std::mem::take(&mut heard.list), std::mem::take(&mut heard.unread));
        heard.total = 0;
        let probe = |w: &Attempted| {
            w.protocol == EgressProtocol::Tcp && w.destination == Some((*PROBE.ip()).into()) && w.port == Some(PROBE.port())
        };
        unread == 0 && matches!(&list[..], [only] if probe(&only.what) && only.times == 1)
    }

    /// All that was heard, when nothing runs inside any more. `unrouted` is the kernel's count since the beginning.
    pub fn finish(mut self, unrouted: Option<u64>) -> Attempts {
        let whole = self.end();
        let mut heard = lock(&self.heard);
        let counted_only = unrouted.unwrap_or(0);
        let mut gaps = Vec::new();
        if !whole {
            gaps.push("the list broke off before the end".to_owned());
        }
        if heard.unread > 0 {
            gaps.push(format!("the address of {} calls could not be read", heard.unread));
        }
        if heard.deaf_to > 0 {
            gaps.push(format!("{} commands could not be heard: the runner had no descriptor left", heard.deaf_to));
        }
        if unrouted.is_none() {
            gaps.push("the kernel's count of packets without a route could not be read".to_owned());
        }
        Attempts {
            now: heard.now(),
            total: heard.total.saturating_add(counted_only),
            list: std::mem::take(&mut heard.list),
            counted_only,
            gaps,
        }
    }

    /// Waits until all that is there is heard; whether it was.
    fn end(&mut self) -> bool {
        lock(&self.heard).ending = true;
        self.ring();
        self.thread.take().is_some_and(|thread| thread.join().unwrap_or(false))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.end();
    }
}

/// A panic on the other thread leaves whole entries behind.
fn lock(heard: &Mutex<Heard>) -> std::sync::MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heard {
    fn now(&self) -> Elapsed {
        let left = timerfd_gettime(&self.stopwatch)
            .map_or(0, |t| (t.it_value.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(t.it_value.tv_nsec as u64));
        Elapsed { nanos: (LONGER_THAN_ANY * 1_000_000_000).saturating_sub(left) }
    }

    fn note(&mut self, seen: Seen) {
        let what = match seen {
            Seen::Attempt(what) => what,
            Seen::Unread => {
                self.unread = self.unread.saturating_add(1);
                return;
            }
        };
        self.total = self.total.saturating_add(1);
        if let Some(again) = self.list.iter_mut().find(|a| a.what == what) {
            again.times = again.times.saturating_add(1);
        } else if self.list.len() < LISTED {
            let after = self.now();
            self.list.push(Attempt { after, what, times: 1 });
        }
    }
}

/// Connections for questions that are kept at once; the oldest goes.
const CONNECTIONS: usize = 16;

fn listen(heard: &Mutex<Heard>, wake: &OwnedFd) -> bool {
    /// Far more than can wait anywhere when nothing runs inside any more.
    const LAST_ROUNDS: u32 = 20_000;
    let mut inlets: Vec<Inlet> = Vec::new();
    let mut left = LAST_ROUNDS;
    loop {
        let ending = {
            let mut heard = lock(heard);
            inlets.append(&mut heard.inbox);
            heard.ending
        };
        left -= u32::from(ending);
        let woken = match wait(wake, &inlets, ending) {
            Ok(Some(woken)) if left > 0 => woken,
            Ok(None) => return true,
            Ok(Some(_)) | Err(_) => return false,
        };
        let (mut kept, mut fresh) = (Vec::with_capacity(inlets.len()), Vec::new());
        for (inlet, flags) in inlets.into_iter().zip(woken) {
            if flags.is_empty() {
                kept.push(inlet);
                continue;
            }
            let mut after = attend(inlet, flags, &mut |seen| lock(heard).note(seen)).into_iter();
            kept.extend(after.next());
            fresh.extend(after);
        }
        // New ones last, so that the oldest connection is the first.
        kept.append(&mut fresh);
        let is_connection = |i: &Inlet| matches!(i, Inlet::Connection(..));
        let mut too_many = kept.iter().filter(|i| is_connection(i)).count().saturating_sub(CONNECTIONS);
        kept.retain(|i| {
            let goes = too_many > 0 && is_connection(i);
            too_many -= usize::from(goes);
            !goes
        });
        inlets = kept;
    }
}

/// What each inlet has to say. `None` at the end: nothing runs inside any more, and nothing is left to hear.
fn wait(wake: &OwnedFd, inlets: &[Inlet], ending: bool) -> io::Result<Option<Vec<PollFlags>>> {
    let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(wake, PollFlags::IN)];
    fds.extend(inlets.iter().map(|inlet| PollFd::from_borrowed_fd(inlet.fd(), PollFlags::IN)));
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, ending.then_some(&at_once)) {
        Err(rustix::io::Errno::INTR) => return Ok(Some(vec![PollFlags::empty(); inlets.len()])),
        Err(e) => return Err(e.into()),
        Ok(_) => {}
    }
    let woken: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
    if !woken[0].is_empty() {
        let _ = rustix::io::read(wake, &mut [0u8; 8]);
    } else if ending && woken.iter().all(|w| !w.contains(PollFlags::IN)) {
        return Ok(None);
    }
    Ok(Some(woken[1..].to_vec()))
}

/// Takes what an inlet has; gives back what is still to be heard.
fn attend(inlet: Inlet, flags: PollFlags, note: &mut dyn FnMut(Seen)) -> Vec<Inlet> {
    let ended = !flags.contains(PollFlags::IN);
    match inlet {
        // Every process that the filter is on has ended.
        Inlet::Calls(_) | Inlet::Connection(..) if ended => Vec::new(),
        Inlet::Calls(listener) => {
            let _ = notice::attend(listener.as_fd(), note);
            vec![Inlet::Calls(listener)]
        }
        Inlet::Datagrams(socket) => {
            answer_datagram(&socket, note);
            vec![Inlet::Datagrams(socket)]
        }
        Inlet::Connections(socket) => {
            let accepted = accept_with(&socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok();
            let mut inlets = vec![Inlet::Connections(socket)];
            inlets.extend(accepted.map(|c| Inlet::Connection(c, Vec::new())));
            inlets
        }
        Inlet::Connection(socket, so_far) => answer_connection(socket, so_far, note).into_iter().collect(),
    }
}

fn asked(name: String) -> Seen {
    Seen::Attempt(Attempted { protocol: EgressProtocol::Dns, destination: None, port: None, name: Some(name) })
}

fn answer_datagram(socket: &OwnedFd, note: &mut dyn FnMut(Seen)) {
    let mut question = [0u8; 4 << 10];
    let Ok((got, _, Some(from))) = recvfrom(socket, &mut question, RecvFlags::DONTWAIT) else { return };
    if let Some((name, answer)) = names::refuse(&question[..got]) {
        note(asked(name));
        let _ = sendto(socket, &answer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &from);
    }
}

/// One question, after its length in two bytes; then the connection is closed.
fn answer_connection(socket: OwnedFd, mut so_far: Vec<u8>, note: &mut dyn FnMut(Seen)) -> Option<Inlet> {
    const LONGEST: usize = 4 << 10;
    let mut block = [0u8; 512];
    let got = rustix::io::read(&socket, &mut block).ok().filter(|n| *n > 0)?;
    so_far.extend_from_slice(&block[..got]);
    let whole = so_far.get(..2).map(|l| 2 + usize::from(u16::from_be_bytes([l[0], l[1]])));
    match whole {
        Some(whole) if whole > LONGEST => None,
        Some(whole) if so_far.len() >= whole => {
            let (name, answer) = names::refuse(&so_far[2..whole])?;
            note(asked(name));
            let mut reply = u16::try_from(answer.len()).ok()?.to_be_bytes().to_vec();
            reply.extend(answer);
            let _ = rustix::net::send(&socket, &reply, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            None
        }
        _ => Some(Inlet::Connection(socket, so_far)),
    }
}

impl Inlet {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Inlet::Calls(fd) | Inlet::Datagrams(fd) | Inlet::Connections(fd) | Inlet::Connection(fd, _) => fd.as_fd(),
        }
    }
}
