//! How the runner hears of attempts to reach the outside: a system-call filter that asks it, and the places where names
//! are asked for.
//!
//! The descriptor on which the kernel asks is made in the process that gives its rights up. That process cannot send it:
//! sending is what the filter stops. PID 1 takes it out of there, while the process waits and can be looked into.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

use super::super::wire::{self, FromHelper, PROBE};
use crate::sandbox::sys::check;

/// Installs the filter that asks. From here on this process must not connect or send before somebody listens.
pub(super) fn install() -> io::Result<OwnedFd> {
    let mut program = asking()?;
    let length = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let order = libc::sock_fprog { len: length, filter: program.as_mut_ptr().cast() };
    // Since Linux 5.19 only death interrupts who waits for an answer; before, a signal makes the same attempt count twice.
    let waits = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let install = |flags: libc::c_ulong| {
        // SAFETY: `order` describes the whole program, which lives until after the calls.
        check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&order)) })
    };
    let fd = install(waits).or_else(|_| install(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER))?;
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call has just made this descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The rules are compiled as ones that refuse with an error that nothing else uses, and then made to ask instead: the
/// compiler has no such action.
fn asking() -> io::Result<BpfProgram> {
    const MARK: u32 = 0xffe;
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(asked_about(), SeccompAction::Allow, SeccompAction::Errno(MARK), arch).map_err(io::Error::other)?;
    let mut program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    let mut changed = 0;
    for step in &mut program {
        if is_return(step) && step.k == libc::SECCOMP_RET_ERRNO | MARK {
            step.k = libc::SECCOMP_RET_USER_NOTIF;
            changed += 1;
        }
    }
    if changed == 0 { Err(io::Error::other("the filter asks about nothing")) } else { Ok(program) }
}

fn is_return(step: &sock_filter) -> bool {
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    step.code == RETURN
}

/// Connections, datagrams with an address, and sockets that no network namespace or no port would name.
fn asked_about() -> BTreeMap<i64, Vec<SeccompRule>> {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let when = |argument, length, operator, value: u64| {
        SeccompCondition::new(argument, length, operator, value).expect("argument numbers are below six")
    };
    let all_of = |conditions| SeccompRule::new(conditions).expect("a rule has a condition");
    let mut sockets = vec![all_of(ORDINARY.iter().chain(&NOT_A_WAY_OUT).map(|&f| when(0, Dword, Ne, f as u64)).collect())];
    for family in [libc::AF_INET, libc::AF_INET6] {
        let of_family = || when(0, Dword, Eq, family as u64);
        const KIND: u64 = 0xf;
        for kind in [libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP, SOCK_PACKET] {
            sockets.push(all_of(vec![of_family(), when(1, Dword, MaskedEq(KIND), kind as u64)]));
        }
        for protocol in [libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6, libc::IPPROTO_DCCP, IPPROTO_L2TP, libc::IPPROTO_SCTP] {
            sockets.push(all_of(vec![of_family(), when(2, Dword, Eq, protocol as u64)]));
        }
    }
    BTreeMap::from([
        (libc::SYS_connect, Vec::new()),
        (libc::SYS_sendto, vec![all_of(vec![when(4, Qword, Ne, 0)])]),
        (libc::SYS_sendmsg, Vec::new()),
        (libc::SYS_sendmmsg, Vec::new()),
        (libc::SYS_socket, sockets),
    ])
}

/// Families of sockets that programs inside may have.
pub(super) const ORDINARY: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// Families that are refused without asking: no family, and the kernel's cipher service.
pub(super) const NOT_A_WAY_OUT: [i32; 2] = [libc::AF_UNSPEC, libc::AF_ALG];
const SOCK_PACKET: i32 = 10;
const IPPROTO_L2TP: i32 = 115;

/// Begins what a child says when it has a listener to give; after it comes the descriptor's number.
const HERE: u8 = b'L';

/// In the child: waits until PID 1 has taken the listener.
pub(super) fn hand_over(listener: OwnedFd, tell: &mut File, heard: &mut File) -> io::Result<()> {
    // Nobody looks into what a child of PID 1 is before it starts its program, but for this moment and PID 1 itself.
    // SAFETY: plain calls with values.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) })?;
    let mut word = vec![HERE];
    word.extend(listener.as_raw_fd().to_ne_bytes());
    tell.write_all(&word)?;
    let taken = heard.read_exact(&mut [0]);
    // SAFETY: as above.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })?;
    taken
}

/// In PID 1: takes the listener out of a waiting child, passes it on to the runner, and nods; a child that gets no nod
/// goes no further. Returns the first of the child's words where it spoke of something else instead.
pub(super) fn take_over(child: Pid, told: &mut File, nod: OwnedFd, control: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut first = vec![0];
    if told.read(&mut first)? == 0 {
        return Ok(Vec::new());
    }
    if first[0] != HERE {
        return Ok(first);
    }
    let mut number = [0; 4];
    told.read_exact(&mut number)?;
    let process = pidfd_open(child, PidfdFlags::empty())?;
    let listener = pidfd_getfd(process, i32::from_ne_bytes(number), PidfdGetfdFlags::empty())?;
    wire::send(control, &FromHelper::Hear, &[listener.as_fd()])?;
    File::from(nod).write_all(&[HERE])?;
    Ok(Vec::new())
}

/// In a child that rehearses: one attempt, so that the runner finds out whether it sees what it must see.
pub(super) fn attempt_once() -> io::Result<()> {
    // SAFETY: plain calls; the address is a `sockaddr_in` of the size that is passed, and the process ends soon.
    unsafe {
        // As every program is that starts anew: the runner must be able to look into it.
        check(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0))?;
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0))?;
        let mut address: libc::sockaddr_in = std::mem::zeroed();
        address.sin_family = libc::AF_INET as libc::sa_family_t;
        address.sin_port = PROBE.port().to_be();
        address.sin_addr.s_addr = u32::from_ne_bytes(PROBE.ip().octets());
        let size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        match check(libc::connect(socket, std::ptr::from_ref(&address).cast(), size)) {
            Err(e) if e.raw_os_error() == Some(libc::ENETUNREACH) => Ok(()),
            Err(e) => Err(e),
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }
}

/// Where a program without a `resolv.conf` asks for names: port 53 of its own host.
pub(super) fn name_sockets() -> io::Result<Vec<OwnedFd>> {
    let at = |ip: std::net::IpAddr| SocketAddr::new(ip, 53);
    let mut sockets: Vec<OwnedFd> =
        vec![UdpSocket::bind(at(Ipv4Addr::LOCALHOST.into()))?.into(), TcpListener::bind(at(Ipv4Addr::LOCALHOST.into()))?.into()];
    // A kernel may be without IPv6; nobody asks there, then.
    sockets.extend(UdpSocket::bind(at(Ipv6Addr::LOCALHOST.into())).ok().map(OwnedFd::from));
    sockets.extend(TcpListener::bind(at(Ipv6Addr::LOCALHOST.into())).ok().map(OwnedFd::from));
    Ok(sockets)
}

/// Where the runner serves what programs inside may read: a port of the loopback that the kernel chooses.
pub(super) fn serving_socket() -> io::Result<OwnedFd> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.into())
}

/// The namespace's own count of packets that had no route: what the list of attempts is held against.
#[derive(Debug)]
pub(super) struct RouteCount {
    files: Vec<File>,
    before: u64,
}

impl RouteCount {
    /// Counts from now on.
    pub fn start() -> io::Result<RouteCount> {
        let mut files = vec![File::open("/proc/self/net/snmp")?];
        files.extend(File::open("/proc/self/net/snmp6").ok());
        let mut count = RouteCount { files, before: 0 };
        count.before = count.read()?;
        Ok(count)
    }

    /// How many there were since.
    pub fn since(&self) -> io::Result<u64> {
        Ok(self.read()?.saturating_sub(self.before))
    }

    fn read(&self) -> io::Result<u64> {
        let mut sum = 0;
        for file in &self.files {
            let (mut text, mut block) = (Vec::new(), [0; 8 << 10]);
            loop {
                match file.read_at(&mut block, text.len() as u64)? {
                    0 => break,
                    n => text.extend_from_slice(&block[..n]),
                }
            }
            sum += without_route(&String::from_utf8_lossy(&text)).ok_or(io::ErrorKind::InvalidData)?;
        }
        Ok(sum)
    }
}

/// `OutNoRoutes` in the two lines `Ip:` of `snmp`, or `Ip6OutNoRoutes` in `snmp6`.
fn without_route(text: &str) -> Option<u64> {
    if let Some(line) = text.lines().find_map(|l| l.strip_prefix("Ip6OutNoRoutes")) {
        return line.trim().parse().ok();
    }
    let mut lines = text.lines().filter_map(|l| l.strip_prefix("Ip:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|n| n == "OutNoRoutes")?;
    values.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counts_are_found_by_name() {
        let snmp = "Ip: Forwarding OutDiscards OutNoRoutes ReasmFails\nIp: 2 1 77 0\nIcmp: InMsgs\nIcmp: 3\n";
        assert_eq!(without_route(snmp), Some(77));
        assert_eq!(without_route("Ip6InReceives  \t5\nIp6OutNoRoutes                 \t9\n"), Some(9));
        assert_eq!(without_route("Ip: Forwarding\nIp: 2\n"), None);
    }

    #[test]
    fn the_filter_asks_and_refuses_nothing_by_itself() {
        let program = asking().unwrap();
        let returns: Vec<u32> = program.iter().filter(|s| is_return(s)).map(|s| s.k).collect();
        assert!(returns.contains(&libc::SECCOMP_RET_USER_NOTIF) && returns.contains(&libc::SECCOMP_RET_ALLOW));
        assert!(returns.iter().all(|r| r & libc::SECCOMP_RET_ACTION_FULL != libc::SECCOMP_RET_ERRNO), "{returns:x?}");
    }
}
