//! What the runner and its helper say to each other: one JSON message a packet, descriptors beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::spec::Afterwards;

/// Larger messages (a command line, above all) are refused before they are sent.
pub(super) const MAX_MESSAGE: usize = 128 << 10;
const MAX_FDS: usize = 120;
/// Where a rehearsal tries to go: an address that RFC 5737 keeps for documentation, and the port that discards.
pub(super) const PROBE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9);

/// User ids inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum IdMap {
    /// `0..count` inside are `base..base + count` outside, none of which is anybody; written by the runner, as root.
    Range { base: u32, count: u32 },
    /// The user inside is the runner's own; written by the helper itself.
    Single { uid: u32, gid: u32 },
}

/// Where the scratch comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ScratchOrder {
    /// A detached mount that holds the tree, a tmpfs or an encrypted volume, passed as descriptor.
    PassedMount,
    /// The helper makes a tmpfs in its own user namespace and passes its directory back.
    MakeTmpfs { bytes: u64, inodes: u64 },
    /// Detached clones of two host directories, the tree's and the kit's, passed as descriptors.
    PassedDirectories,
    /// The same two, to be found by name and recognised by device and inode.
    FindDirectories { tree: HostDirectory, kit: HostDirectory },
}

/// A directory of the host, by its name and by what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HostDirectory {
    pub path: PathBuf,
    pub dev: u64,
    pub ino: u64,
}

/// A host directory or file to show inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shown {
    pub host: PathBuf,
    pub inside: PathBuf,
    pub kind: ShownKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ShownKind {
    Directory,
    Device,
}

/// All that the helper needs. Descriptors beside it: `cgroup_doors` of them, then the scratch where it is passed, then
/// one for each of `shown` where `shown_passed`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Setup {
    pub label: String,
    pub ids: IdMap,
    pub scratch: ScratchOrder,
    pub shown: Vec<Shown>,
    pub shown_passed: bool,
    pub links: Vec<(PathBuf, PathBuf)>,
    pub loader_cache: Option<PathBuf>,
    /// Names that lead to the loopback, beside `localhost`; with any, a listener is opened there for what the runner serves.
    pub served_hosts: Vec<String>,
    pub cgroup_doors: usize,
    pub memory: u64,
    pub memory_by_cgroup: bool,
    pub processes: u32,
    pub processes_by_cgroup: bool,
    pub file_size: u64,
    pub private_tmp: u64,
    pub seconds: u64,
    /// Processor time of each process.
    pub cpu_seconds: u64,
}

/// A small file for a command, in memory.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct FileOrder {
    /// A plain name below [`super::PRIVATE_FILES`].
    pub name: String,
    /// Its content, in base64.
    pub content: String,
}

/// A command. Descriptors beside it: standard output, standard error.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct RunOrder {
    pub seq: u64,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub timeout_ns: u64,
    pub afterwards: Afterwards,
    /// Made before it starts, gone when it has ended.
    pub files: Vec<FileOrder>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum ToHelper {
    Setup(Box<Setup>),
    /// The id maps are written.
    Mapped,
    Run(RunOrder),
    /// Nobody waits for this command any more.
    Cancel {
        seq: u64,
    },
    /// Nothing runs inside any more: end what is left, and count.
    Settle,
}

/// What a rehearsal of the lock-down achieved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LockDown {
    /// `full`, `partial` or `none`.
    pub landlock: String,
    /// Whether a process could enter its control groups.
    pub joined: bool,
    /// Why attempts to reach the outside cannot be heard, where they cannot.
    pub deaf: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum HowEnded {
    Status(i32),
    Signal(i32),
    TimedOut,
    Cancelled,
}

/// What PID 1 saw when a command ended, before it tidied up: which bounds were reached that leave no counter outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Places of its own that are full.
    pub full: Vec<Place>,
    /// Processes and threads at the end, PID 1 not counted.
    pub tasks: u64,
    /// Processor time of what the command ran and waited for, microseconds.
    pub cpu_us: u64,
}

/// A private tmpfs inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Place {
    Tmp,
    Run,
    SharedMemory,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromHelper {
    /// A user namespace stands and waits for its id maps.
    WantsMaps,
    /// A process is about to start its program. The descriptor beside it tells of its attempts to reach the outside.
    Hear,
    /// Descriptors beside it: the pid namespace, the tmpfs where the helper made it, the sockets where names are asked for,
    /// and last, as many as said, those at which the runner serves.
    Ready { lock_down: LockDown, listeners: usize },
    /// A step of the set-up failed.
    Failed { step: String, errno: i32 },
    /// A command could not be started.
    NotStarted { seq: u64, step: String, errno: i32 },
    /// A command ended.
    Ended { seq: u64, how: HowEnded, took_ns: u64, seen: Seen },
    /// Everything inside has ended; the kernel counted this many packets without a route.
    Settled { unrouted: Option<u64> },
    /// The sandbox reached its own time limit and is gone.
    OutOfTime,
}

/// Sends a message and descriptors.
pub(super) fn send<T: Serialize>(socket: impl AsFd, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
        return Err(io::Error::from(io::ErrorKind::ArgumentListTooLong));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from(io::ErrorKind::ArgumentListTooLong));
    }
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a message and descriptors; `None` when the other side is gone.
pub(super) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|m| match m {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if got.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&bytes[..got.bytes])?, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    #[test]
    fn a_message_and_its_descriptors_arrive_together() {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let file = tempfile::tempfile().unwrap();
        send(&a, &ToHelper::Cancel { seq: 7 }, &[file.as_fd(), file.as_fd()]).unwrap();
        let (message, fds) = receive::<ToHelper>(&b).unwrap().unwrap();
        assert!(matches!(message, ToHelper::Cancel { seq: 7 }));
        assert_eq!(fds.len(), 2);
        drop(a);
        assert!(receive::<ToHelper>(&b).unwrap().is_none());
    }

    #[test]
    fn an_endless_command_line_is_refused_before_it_is_sent() {
        let (a, _b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let order = RunOrder {
            seq: 0,
            argv: vec!["x".repeat(MAX_MESSAGE)],
            env: Vec::new(),
            timeout_ns: 1,
            afterwards: Afterwards::KillRest,
            files: Vec::new(),
        };
        assert_eq!(send(&a, &ToHelper::Run(order), &[]).unwrap_err().kind(), io::ErrorKind::ArgumentListTooLong);
    }
}
