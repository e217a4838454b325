//! One question of the kernel: what a process inside is about to do, and whether it may.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::sockopt::{socket_domain, socket_protocol, socket_type};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::names;
use super::{Attempted, Seen};
use crate::domain::EgressProtocol;
use crate::sandbox::sys::check;

/// What is answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// The kernel carries it out: it stays inside.
    GoOn,
    /// The error that the program gets.
    Refuse(i32),
}

/// Receives one question, answers it, and tells what was attempted. An error means that nobody asks any more.
pub(super) fn attend(listener: BorrowedFd<'_>, note: &mut dyn FnMut(Seen)) -> io::Result<()> {
    // SAFETY: all zeros is a `seccomp_notif`, and the kernel asks for just that.
    let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is the one that this request fills.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, std::ptr::from_mut(&mut notice)) })?;
    let Some((answer, seen)) = judge(&notice, listener) else { return Ok(()) };
    // Before the answer: once the program knows that it was refused, it is on the list.
    if let Some(seen) = seen {
        note(seen);
    }
    let mut reply = libc::seccomp_notif_resp { id: notice.id, val: 0, error: 0, flags: 0 };
    match answer {
        Answer::GoOn => reply.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        Answer::Refuse(error) => reply.error = -error,
    }
    // SAFETY: the structure is the one that this request reads. Who asked may be gone; then nobody misses the answer.
    let _ = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, std::ptr::from_mut(&mut reply)) };
    Ok(())
}

// `_IOWR('!', 0..=2, …)` of linux/seccomp.h; the same on every architecture that we filter on.
const NOTIF_RECV: u64 = 0xc050_2100;
const NOTIF_SEND: u64 = 0xc018_2101;
const NOTIF_ID_VALID: u64 = 0x4008_2102;

/// `None` where who asked is gone: what was read may be another process's then.
fn judge(notice: &libc::seccomp_notif, listener: BorrowedFd<'_>) -> Option<(Answer, Option<Seen>)> {
    let asker = Asker { thread: i32::try_from(notice.pid).ok().filter(|p| *p > 0), socket: notice.data.args[0] as i32 };
    let args = notice.data.args;
    let outcome = match i64::from(notice.data.nr) {
        libc::SYS_socket => Ok(vec![Wanted::Socket { family: args[0] as i32, kind: args[1] as i32, protocol: args[2] as i32 }]),
        libc::SYS_connect => asker.address(args[1], args[2]).map(|a| vec![Wanted::Connect(a)]),
        libc::SYS_sendto => asker.address(args[4], args[5]).map(|a| vec![Wanted::Send { to: a, data: (args[1], args[2]) }]),
        libc::SYS_sendmsg => asker.messages(args[1], 1, MSGHDR),
        libc::SYS_sendmmsg => asker.messages(args[1], args[2], MMSGHDR),
        _ => Ok(Vec::new()),
    };
    let judged = match outcome {
        Ok(wanted) => wanted.into_iter().find_map(|w| asker.judge(w)),
        // The kernel will not be able to read it either.
        Err(e) if e.raw_os_error() == Some(libc::EFAULT) => None,
        Err(_) => Some((Answer::GoOn, Seen::Unread)),
    };
    // SAFETY: the number is the one that this request reads.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_ID_VALID as _, std::ptr::from_ref(&notice.id)) }).ok()?;
    Some(judged.map_or((Answer::GoOn, None), |(answer, seen)| (answer, Some(seen))))
}

/// What is wanted, as far as it matters.
enum Wanted {
    Socket {
        family: i32,
        kind: i32,
        protocol: i32,
    },
    Connect(Vec<u8>),
    /// An address, and where the data lies.
    Send {
        to: Vec<u8>,
        data: (u64, u64),
    },
}

/// Who asks: a thread, and the descriptor that the call names.
struct Asker {
    thread: Option<i32>,
    socket: i32,
}

/// Sizes of `msghdr` and `mmsghdr` on 64 bits.
const MSGHDR: u64 = 56;
const MMSGHDR: u64 = 64;
/// As many as the kernel takes in one call.
const MOST_MESSAGES: u64 = 1_024;
/// `sockaddr_storage`: the kernel reads no more.
const LONGEST_ADDRESS: u64 = 128;
const NAMES_PORT: u16 = 53;

impl Asker {
    /// From the asker's memory. What lies there may change at once; the count of packets without a route sees that.
    fn read(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        let thread = self.thread.ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0u8; usize::try_from(length).map_err(io::Error::other)?];
        let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: bytes.len() };
        // SAFETY: `local` is our buffer for the time of the call; `remote` is only looked up in the other process.
        let got = check(unsafe { libc::process_vm_readv(thread, &local, 1, &remote, 1, 0) } as i64)?;
        bytes.truncate(usize::try_from(got).unwrap_or(0));
        Ok(bytes)
    }

    fn address(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        match length & 0xffff_ffff {
            0 => Ok(Vec::new()),
            _ if at == 0 => Ok(Vec::new()),
            length => self.read(at, length.min(LONGEST_ADDRESS)),
        }
    }

    /// Those of a vector of message headers that name an address. One that leads outside refuses all: who mixes both in
    /// one call is told of the first error only, here as in the kernel.
    fn messages(&self, at: u64, count: u64, size: u64) -> io::Result<Vec<Wanted>> {
        let count = count.min(MOST_MESSAGES);
        let headers = self.read(at, count.saturating_mul(size))?;
        let mut wanted = Vec::new();
        for header in headers.chunks_exact(size as usize) {
            let word = |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().expect("eight bytes"));
            let (name, length, vectors, vector_count) = (word(0), word(8), word(16), word(24));
            let to = self.address(name, length)?;
            if to.is_empty() {
                continue;
            }
            let data = match vector_count {
                0 => (0, 0),
                _ => self.read(vectors, 16).map_or((0, 0), |v| pair(&v)),
            };
            wanted.push(Wanted::Send { to, data });
        }
        Ok(wanted)
    }

    /// `None` where it stays inside, or where the kernel refuses it for what it is.
    fn judge(&self, wanted: Wanted) -> Option<(Answer, Seen)> {
        let attempted = |protocol| Attempted { protocol, destination: None, port: None, name: None };
        let (address, data) = match wanted {
            Wanted::Socket { family, kind, protocol } => {
                return Some((Answer::Refuse(libc::EPERM), Seen::Attempt(attempted(protocol_of_refused(family, kind, protocol)))));
            }
            Wanted::Connect(address) => (address, None),
            Wanted::Send { to, data } => (to, Some(data)),
        };
        let (ip, port) = outside(&address, data.is_some())?;
        let protocol = match self.descriptor() {
            Ok(socket) => protocol_of(&socket)?,
            // No such descriptor: the kernel says so itself.
            Err(e) if e.raw_os_error() == Some(libc::EBADF) => return None,
            Err(_) => EgressProtocol::Other,
        };
        let name = match data {
            Some((at, length)) if port == NAMES_PORT && protocol == EgressProtocol::Udp => {
                self.read(at, length.min(512)).ok().and_then(|d| names::refuse(&d)).map(|(name, _)| name)
            }
            _ => None,
        };
        let seen = Seen::Attempt(Attempted { destination: Some(ip), port: Some(port), name, ..attempted(protocol) });
        Some((Answer::Refuse(libc::ENETUNREACH), seen))
    }

    fn descriptor(&self) -> io::Result<OwnedFd> {
        if self.socket < 0 {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let thread = self.thread.ok_or(io::ErrorKind::NotFound)?;
        let leader = leader_of(thread)?;
        let process = pidfd_open(leader, PidfdFlags::empty())?;
        Ok(pidfd_getfd(process, self.socket, PidfdGetfdFlags::empty())?)
    }
}

/// Two words of an `iovec`.
fn pair(bytes: &[u8]) -> (u64, u64) {
    let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes);
    (word(0), word(8))
}

/// The process of a thread.
fn leader_of(thread: i32) -> io::Result<Pid> {
    let status = fs::read_to_string(format!("/proc/{thread}/status"))?;
    let leader = status.lines().find_map(|l| l.strip_prefix("Tgid:")).and_then(|n| n.trim().parse().ok()).and_then(Pid::from_raw);
    leader.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn protocol_of_refused(family: i32, kind: i32, protocol: i32) -> EgressProtocol {
    match (family, kind & 0xf, protocol) {
        (libc::AF_PACKET, _, _) => EgressProtocol::Packet,
        (libc::AF_VSOCK, _, _) => EgressProtocol::Vsock,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_RAW, _) => EgressProtocol::Raw,
        (libc::AF_INET | libc::AF_INET6, _, libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6) => EgressProtocol::Icmp,
        _ => EgressProtocol::Other,
    }
}

/// `None` for a socket that knows no such addresses.
fn protocol_of(socket: impl AsFd) -> Option<EgressProtocol> {
    let domain = socket_domain(socket.as_fd()).ok()?;
    if domain != AddressFamily::INET && domain != AddressFamily::INET6 {
        return None;
    }
    let number = socket_protocol(socket.as_fd()).ok().flatten().map(|p| p.as_raw().get() as i32);
    Some(match (socket_type(socket.as_fd()).ok()?, number) {
        (SocketType::DGRAM, Some(libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6)) => EgressProtocol::Icmp,
        (SocketType::STREAM, _) => EgressProtocol::Tcp,
        (SocketType::DGRAM, _) => EgressProtocol::Udp,
        (SocketType::RAW, _) => EgressProtocol::Raw,
        _ => EgressProtocol::Other,
    })
}

/// Address and port, where a `sockaddr` leads outside. What is too short or of another family the kernel refuses, or it
/// stays on this host by its nature.
fn outside(address: &[u8], sending: bool) -> Option<(IpAddr, u16)> {
    let family = i32::from(u16::from_ne_bytes(address.get(..2)?.try_into().ok()?));
    let port = u16::from_be_bytes(address.get(2..4)?.try_into().ok()?);
    let ip: IpAddr = match family {
        libc::AF_INET => v4(address)?.into(),
        // To connect without a family is to disconnect; to send so is to send by IPv4.
        libc::AF_UNSPEC if sending => v4(address)?.into(),
        libc::AF_INET6 => {
            let bytes: [u8; 16] = address.get(8..24)?.try_into().ok()?;
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    // The unspecified address is this host as well.
    let inside = ip.is_loopback() || ip.is_unspecified();
    (!inside).then_some((ip, port))
}

fn v4(address: &[u8]) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = address.get(4..8)?.try_into().ok()?;
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inet(family: i32, port: u16, ip: &str) -> Vec<u8> {
        let mut bytes = (family as u16).to_ne_bytes().to_vec();
        bytes.extend(port.to_be_bytes());
        match ip.parse().unwrap() {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => {
                bytes.extend([0; 4]);
                bytes.extend(v6.octets());
            }
        }
        bytes.resize(28, 0);
        bytes
    }

    #[test]
    fn only_this_host_is_inside() {
        for (family, ip, is_outside) in [
            (libc::AF_INET, "127.0.0.1", false),
            (libc::AF_INET, "127.9.9.9", false),
            (libc::AF_INET, "0.0.0.0", false),
            (libc::AF_INET, "128.0.0.1", true),
            (libc::AF_INET, "255.255.255.255", true),
            (libc::AF_INET, "224.0.0.251", true),
            (libc::AF_INET, "169.254.169.254", true),
            (libc::AF_INET6, "::1", false),
            (libc::AF_INET6, "::", false),
            (libc::AF_INET6, "::ffff:127.0.0.1", false),
            (libc::AF_INET6, "::ffff:8.8.8.8", true),
            (libc::AF_INET6, "fe80::1", true),
            (libc::AF_INET6, "ff02::fb", true),
            (libc::AF_INET6, "2001:db8::1", true),
        ] {
            assert_eq!(outside(&inet(family, 80, ip), false).is_some(), is_outside, "{ip}");
        }
        assert_eq!(outside(&inet(libc::AF_INET6, 25, "::ffff:192.0.2.1"), false), Some(("192.0.2.1".parse().unwrap(), 25)));
    }

    #[test]
    fn an_address_without_a_family_counts_where_it_is_sent_to() {
        let address = inet(libc::AF_UNSPEC, 53, "192.0.2.1");
        assert!(outside(&address, true).is_some() && outside(&address, false).is_none());
    }

    #[test]
    fn what_is_cut_short_or_of_another_family_is_no_way_out() {
        let whole = inet(libc::AF_INET, 80, "192.0.2.1");
        assert!((0..8).all(|n| outside(&whole[..n], true).is_none()));
        let whole = inet(libc::AF_INET6, 80, "2001:db8::1");
        assert!((0..24).all(|n| outside(&whole[..n], true).is_none()));
        for family in [libc::AF_UNIX, libc::AF_NETLINK, libc::AF_PACKET] {
            assert!(outside(&inet(family, 80, "192.0.2.1"), true).is_none());
        }
    }
}
