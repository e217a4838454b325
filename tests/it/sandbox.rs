//! The sandbox's life: what it does, its network, its bounds, and what is left when the runner is killed. Attacks from inside are the
//! suite in `promises`.
//!
//! Run as root, the last test runs all the others once more as an ordinary user.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firedrill::domain::{ByteSize, Disposal, DrillId, Period, ResourceLimits, ScratchKind, Timestamp};
use firedrill::sandbox::{
    Afterwards, CommandSpec, Ended, Isolation, Kept, Limit, Sandbox, SandboxError, SandboxSpec, ToolDir, promises, provision, reap,
};
use rustix::fs::{Gid, Mode, OFlags, Uid};

static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// A place for one test: registry and scratch directories, both gone with it.
pub(crate) struct Bench {
    home: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("scratch")).unwrap();
        Bench { home }
    }
    pub(crate) fn home(&self) -> PathBuf {
        self.home.path().to_owned()
    }
    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }
    pub(crate) fn scratch(&self) -> PathBuf {
        self.home.path().join("scratch")
    }
    pub(crate) fn spec(&self) -> SandboxSpec {
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        spec_at(&self.state(), &format!("test-{}-{n}", std::process::id()))
    }
    fn directory_spec(&self) -> SandboxSpec {
        let mut spec = self.spec();
        spec.limits.scratch = ScratchKind::Directory;
        spec.limits.scratch_path = Some(self.scratch());
        spec
    }
    fn left_in(&self, what: PathBuf) -> usize {
        std::fs::read_dir(what).map(Iterator::count).unwrap_or(0)
    }
}

fn spec_at(state: &Path, drill: &str) -> SandboxSpec {
    let limits = ResourceLimits {
        memory: ByteSize::mib(64),
        processes: 32,
        scratch_size: ByteSize::mib(32),
        time: Period::from_secs(120),
        ..ResourceLimits::default()
    };
    let mut spec = SandboxSpec::new(DrillId(drill.to_owned()), limits, state.to_owned());
    spec.helper = helper();
    spec
}

pub(crate) fn helper() -> PathBuf {
    std::env::var_os("FIREDRILL_TEST_HELPER").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_firedrill")), PathBuf::from)
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn sh(script: &str) -> CommandSpec {
    let mut command = CommandSpec::new(["bash", "-c", script]);
    command.timeout = Duration::from_secs(30);
    command
}

pub(crate) fn py(script: &str) -> CommandSpec {
    let mut command = CommandSpec::new(["/usr/bin/python3", "-c", script]);
    command.timeout = Duration::from_secs(30);
    command
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// What a command that must succeed prints.
async fn ask(sandbox: &Sandbox, command: CommandSpec) -> String {
    let exit = sandbox.run(&command).await.unwrap();
    assert!(exit.success(), "{:?}: {} {}", exit.ended, text(&exit.stdout), text(&exit.stderr));
    text(&exit.stdout)
}

pub(crate) fn assert_gone(disposal: &Disposal) {
    assert!(disposal.complete(), "{disposal:#?}");
    assert!(disposal.probes.len() >= 3, "{disposal:#?}");
}

pub(crate) fn put(sandbox: &Sandbox, name: &str, content: &[u8]) {
    let root = sandbox.root().unwrap();
    let file = rustix::fs::openat(&root, name, OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).unwrap();
    rustix::io::write(&file, content).unwrap();
    let owner = sandbox.owner();
    rustix::fs::fchown(&file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid))).unwrap();
}

fn limit_of(result: Result<firedrill::sandbox::Exit, SandboxError>) -> Limit {
    match result {
        Err(SandboxError::Limit { limit, .. }) => limit,
        other => panic!("no limit was hit: {other:?}"),
    }
}

/// Processes of the host whose command line has `mark`.
pub(crate) fn processes_with(mark: &str) -> Vec<String> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().into_string().ok());
    pids.filter(|p| p.bytes().all(|b| b.is_ascii_digit()))
        .filter(|p| {
            let line = std::fs::read(format!("/proc/{p}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ").contains(mark)
        })
        .collect()
}

fn mounts_with(mark: &str) -> usize {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().into_string().ok());
    let mounts = pids.map(|p| std::fs::read_to_string(format!("/proc/{p}/mountinfo")).unwrap_or_default());
    mounts.filter(|m| m.contains(mark)).count()
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// ---- the ordinary life -------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reads_what_was_restored_and_the_disposal_finds_nothing_left() {
    let bench = Bench::new();
    for spec in [bench.spec(), bench.directory_spec()] {
        let sandbox = provision(&spec).await.unwrap();
        put(&sandbox, "record", b"Jane Doe");
        assert_eq!(ask(&sandbox, sh("pwd; cat record; echo; id -u")).await, "/data\nJane Doe\n1000");
        assert_eq!(sandbox.run(&sh("exit 7")).await.unwrap().ended, Ended::Status(7));
        assert_eq!(ask(&sandbox, sh("echo new > written; cat written")).await, "new");
        let facts = sandbox.facts();
        assert!(facts.isolated && facts.kind == "namespaces" && facts.network == "loopback only", "{facts:#?}");
        assert_eq!(facts.memory_limit.is_some(), is_root());
        assert_gone(&sandbox.destroy().await);
        assert_eq!((bench.left_in(bench.state()), bench.left_in(bench.scratch())), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_directory_is_called_one() {
    let bench = Bench::new();
    let spec = bench.directory_spec();
    let sandbox = provision(&spec).await.unwrap();
    assert_eq!(sandbox.facts().scratch, "directory");
    assert!(sandbox.facts().remarks.iter().any(|r| r.contains("survives a power cut")));
    let inside = bench.scratch().join(format!("firedrill-{}", spec.drill));
    assert_eq!(std::fs::metadata(&inside).unwrap().permissions().mode() & 0o777, 0o700);
    let disposal = sandbox.destroy().await;
    assert!(disposal.method.contains("no sanitization"), "{}", disposal.method);
    assert_gone(&disposal);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_descriptor_that_is_still_open_is_seen_by_the_disposal() {
    let bench = Bench::new();
    let sandbox = provision(&bench.spec()).await.unwrap();
    let held = sandbox.root().unwrap();
    let disposal = sandbox.destroy().await;
    assert!(!disposal.complete());
    let left: Vec<_> = disposal.probes.iter().filter(|p| !p.gone).map(|p| p.what.as_str()).collect();
    assert_eq!(left, ["descriptors of the runner on the scratch"]);
    drop(held);
    // Once: a process that another test is just starting may hold a copy of the lock until it has become that program.
    wait_until("the record, which was kept, is reaped", || reap(&bench.state(), Timestamp::from_unix(0)).unwrap().len() == 1);
    assert_eq!(bench.left_in(bench.state()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sandboxes_stand_at_once_and_one_drill_has_one() {
    let bench = Bench::new();
    let (a, b) = (bench.spec(), bench.spec());
    let (first, second) = (provision(&a).await.unwrap(), provision(&b).await.unwrap());
    assert!(matches!(provision(&a).await, Err(SandboxError::Busy { .. })));
    put(&first, "mine", b"first");
    assert_eq!(ask(&second, sh("ls -A /data")).await, "");
    assert_gone(&first.destroy().await);
    assert_eq!(ask(&second, sh("echo alive")).await, "alive");
    assert_gone(&second.destroy().await);
    let again = provision(&a).await.unwrap();
    assert_gone(&again.destroy().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_dropped_takes_everything_with_it() {
    let bench = Bench::new();
    let spec = bench.directory_spec();
    let sandbox = provision(&spec).await.unwrap();
    let mut server = sh(&format!("exec -a {}-server sleep 1000 >/dev/null 2>&1 & disown", spec.drill));
    server.afterwards = Afterwards::LeaveRunning;
    ask(&sandbox, server).await;
    wait_until("the server runs", || !processes_with(&format!("{}-server", spec.drill)).is_empty());
    drop(sandbox);
    assert_eq!(processes_with(&spec.drill.0), Vec::<String>::new());
    assert_eq!((bench.left_in(bench.state()), bench.left_in(bench.scratch())), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_no_exit_status() {
    let bench = Bench::new();
    let sandbox = provision(&bench.spec()).await.unwrap();
    let error = sandbox.run(&CommandSpec::new(["no-such-program"])).await.unwrap_err();
    assert!(matches!(&error, SandboxError::NotStarted { source, .. } if source.kind() == std::io::ErrorKind::NotFound), "{error:?}");
    assert_eq!(sandbox.run(&sh("exit 127")).await.unwrap().ended, Ended::Status(127));
    assert!(matches!(sandbox.run(&CommandSpec::new(Vec::<String>::new())).await, Err(SandboxError::Spec { .. })));
    assert_gone(&sandbox.destroy().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn named_tool_directories_are_shown_read_only() {
    let bench = Bench::new();
    let tools = bench.home.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    std::fs::set_permissions(bench.home.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(tools.join("greet"), "#!/bin/sh\necho hello\n").unwrap();
    std::fs::set_permissions(tools.join("greet"), PermissionsExt::from_mode(0o755)).unwrap();
    let mut spec = bench.spec();
    spec.tools.push(ToolDir { host: tools.clone(), inside: "/opt/tools".into() });
    let sandbox = provision(&spec).await.unwrap();
    assert_eq!(ask(&sandbox, CommandSpec::new(["/opt/tools/greet"])).await, "hello");
    assert!(!sandbox.run(&sh("echo x > /opt/tools/x")).await.unwrap().success());
    assert!(!tools.join("x").exists());
    assert_gone(&sandbox.destroy().await);
}

// ---- the network --------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn nothing_reaches_the_network() {
    let bench = Bench::new();
    let tcp = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let udp = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let name = format!("firedrill-test-{}", std::process::id());
    let address = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name).unwrap();
    let local = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    for blocking in [tcp.set_nonblocking(true), udp.set_nonblocking(true), local.set_nonblocking(true)] {
        blocking.unwrap();
    }
    let (t, u) = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    let script = format!(
        r#"
import socket, errno
def attempt(what, f):
    try:
        f()
        print(what, "OPEN")
    except OSError as e:
        print(what, errno.errorcode.get(e.errno, e.errno))
def connect(family, kind, to):
    s = socket.socket(family, kind); s.settimeout(3); s.connect(to)
    if kind == socket.SOCK_DGRAM: s.send(b"x")
I, S, D = socket.AF_INET, socket.SOCK_STREAM, socket.SOCK_DGRAM
attempt("tcp-host-loopback", lambda: connect(I, S, ("127.0.0.1", {t})))
attempt("tcp-out", lambda: connect(I, S, ("192.0.2.1", 80)))
attempt("tcp6-out", lambda: connect(socket.AF_INET6, S, ("2001:db8::1", 80)))
attempt("udp-out", lambda: connect(I, D, ("192.0.2.1", 53)))
attempt("abstract", lambda: connect(socket.AF_UNIX, S, "\0{name}"))
attempt("raw", lambda: socket.socket(I, socket.SOCK_RAW, 1))
attempt("packet", lambda: socket.socket(17, socket.SOCK_RAW, 0))
attempt("vsock", lambda: socket.socket(40, S, 0))
attempt("alg", lambda: socket.socket(38, 5, 0))
attempt("audit", lambda: socket.socket(16, socket.SOCK_RAW, 9))
try:
    socket.getaddrinfo("example.org", 443); print("dns OPEN")
except socket.gaierror: print("dns no")
connect(I, D, ("127.0.0.1", {u}))
"#
    );
    let sandbox = provision(&bench.spec()).await.unwrap();
    let got = ask(&sandbox, py(&script)).await;
    let expected = "tcp-host-loopback ECONNREFUSED\ntcp-out ENETUNREACH\ntcp6-out ENETUNREACH\nudp-out ENETUNREACH\nabstract ECONNREFUSED\nraw EPERM\npacket EPERM\nvsock EPERM\nalg EPERM\naudit EPERM\ndns no";
    assert_eq!(got, expected);
    assert!(tcp.accept().is_err() && local.accept().is_err() && udp.recv(&mut [0; 8]).is_err(), "something arrived on the host");
    assert_eq!(ask(&sandbox, sh("cut -d: -f1 /proc/net/dev | tail -n +3 | grep -v '0$' | tr -d ' '")).await, "lo");
    assert_gone(&sandbox.destroy().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_loopback_works() {
    let bench = Bench::new();
    let sandbox = provision(&bench.spec()).await.unwrap();
    let script = "import socket\nl = socket.create_server(('localhost', 0))\nc = socket.create_connection(l.getsockname())\na, _ = l.accept()\na.send(b'ping')\nprint(c.recv(9).decode())";
    assert_eq!(ask(&sandbox, py(script)).await, "ping");
    assert_gone(&sandbox.destroy().await);
}

// ---- bounds ------------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_bomb_hits_the_memory_limit_and_a_plain_137_does_not() {
    let bench = Bench::new();
    let sandbox = provision(&bench.spec()).await.unwrap();
    let bomb = py("b = []\nwhile True: b.append(bytearray(8 << 20))");
    if is_root() {
        assert_eq!(limit_of(sandbox.run(&bomb).await), Limit::Memory);
    } else {
        let exit = sandbox.run(&bomb).await.unwrap();
        assert!(!exit.success() && text(&exit.stderr).contains("MemoryError"), "{exit:?}");
        assert!(sandbox.facts().remarks.iter().any(|r| r.contains("no control group for memory")));
    }
    assert_eq!(sandbox.run(&sh("exit 137")).await.unwrap().ended, Ended::Status(137));
    assert_eq!(sandbox.run(&sh("kill -9 $$")).await.unwrap().ended, Ended::Signal(9));
    assert_eq!(ask(&sandbox, sh("echo alive")).await, "alive");
    assert_gone(&sandbox.destroy().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_hits_the_process_limit() {
    let bench = Bench::new();
    let sandbox = provision(&bench.spec()).await.unwrap();
    let mut bomb = sh("b() { b | b & }; b; sleep 2");
    bomb.timeout = Duration::from_secs(4);
    let result = sandbox.run(&bomb).await;
    if is_root() {
        assert_eq!(limit_of(result), Limit::Processes);
    }
    let script = "import os\nn = 0\ntry:\n    while True:\n        if os.fork() == 0:\n            os.read(os.pipe()[0], 1)\n        n += 1\nexcept BlockingIOError: print(n)";
    match sandbox.run(&py(script)).await {
        Ok(exit) => assert!(text(&exit.stdout).parse::<u32>().unwrap() <= 32, "{}", text(&exit.stdout)),
        Err(error) => assert!(matches!(error, SandboxError::Limit { limit: Limit::Processes, .. })),
    }
    assert_eq!(ask(&sandbox, sh("echo alive")).await, "alive");
    assert_gone(&sandbox.destroy().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn scratch_fills_up_to_its_size_and_no_further() {
    let bench = Bench::new();
    let mut spec = bench.spec();
    spec.limits.max_files = 200;
    let sandbox = provision(&spec).await.unwrap();
    let free = sandbox.free_bytes().unwrap();
    assert!((30 << 20..=32 << 20).contains(&free), "{free}");
    assert_eq!(limit_of(sandbox.run(&sh("head -c 40M /dev/zero > fill")).await), Limit::Scratch);
    assert_eq!(sandbox.free_bytes().unwrap(), 0);
    assert_eq!(ask(&sandbox, sh("rm fill; echo done")).await, "done");
    assert_eq!(limit_of(sandbox.run(&sh("for i in $(seq 3000); do : > f$i || exit 1; done")).await), Limit::Inodes);
    assert_gone(&sandbox.destroy().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_floods_the_output_does_not_hold_its_starter() {
    let bench = Bench::new();
    let sandbox = provision(&bench.spec()).await.unwrap();
    let mut starter = sh("yes & echo started");
    starter.afterwards = Afterwards::LeaveRunning;
    let exit = tokio::time::timeout(Duration::from_secs(5), sandbox.run(&starter)).await.unwrap().unwrap();
    assert!(exit.success());
    assert_gone(&sandbox.destroy().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_the_whole_sandbox_is_bounded() {
    let bench = Bench::new();
    let mut spec = bench.spec();
    spec.limits.time = Period::from_secs(1);
    let sandbox = provision(&spec).await.unwrap();
    assert_eq!(limit_of(sandbox.run(&sh("sleep 20")).await), Limit::Time);
    assert_eq!(limit_of(sandbox.run(&sh("true")).await), Limit::Time);
    assert_gone(&sandbox.destroy().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_leaves_behind_dies_with_it_unless_asked_otherwise() {
    let bench = Bench::new();
    let sandbox = provision(&bench.spec()).await.unwrap();
    let daemon =
        "setsid nohup bash -c 'echo $$ > /data/daemon; sleep 1000' >/dev/null 2>&1 & until [ -s /data/daemon ]; do sleep 0.01; done";
    let alive = "kill -0 $(cat /data/daemon) 2>/dev/null && echo yes || echo no";
    ask(&sandbox, sh(daemon)).await;
    assert_eq!(ask(&sandbox, sh(alive)).await, "no");
    let mut server = sh(&daemon.replace("until", "rm -f /data/none; until"));
    server.afterwards = Afterwards::LeaveRunning;
    ask(&sandbox, sh("rm /data/daemon")).await;
    ask(&sandbox, server).await;
    let mut look = sh(alive);
    look.afterwards = Afterwards::LeaveRunning;
    assert_eq!(ask(&sandbox, look).await, "yes");
    assert_eq!(ask(&sandbox, sh("kill -9 $(cat /data/daemon) && echo stopped")).await, "stopped");
    assert_gone(&sandbox.destroy().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_nobody_waits_for_is_ended() {
    let bench = Bench::new();
    let spec = bench.spec();
    let sandbox = provision(&spec).await.unwrap();
    let mark = format!("{}-abandoned", spec.drill);
    let command = sh(&format!("exec -a {mark} sleep 1000"));
    assert!(tokio::time::timeout(Duration::from_millis(300), sandbox.run(&command)).await.is_err());
    wait_until("the command is ended", || processes_with(&mark).is_empty());
    assert_eq!(ask(&sandbox, sh("echo next")).await, "next");
    assert_gone(&sandbox.destroy().await);
}

// ---- death -------------------------------------------------------------------------------------------------------------

/// Not a test: the other process of the tests below, a runner that holds a sandbox until it is killed.
#[test]
#[ignore = "started by other tests, in a process of its own"]
fn role() {
    let Some(role) = std::env::var_os("FIREDRILL_TEST_ROLE") else { return };
    let state = PathBuf::from(std::env::var_os("FIREDRILL_TEST_STATE").unwrap());
    let drill = std::env::var("FIREDRILL_TEST_DRILL").unwrap();
    let mut spec = spec_at(&state, &drill);
    if let Some(scratch) = std::env::var_os("FIREDRILL_TEST_SCRATCH") {
        spec.limits.scratch = ScratchKind::Directory;
        spec.limits.scratch_path = Some(scratch.into());
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        match role.to_str().unwrap() {
            "hold" => {
                let sandbox = provision(&spec).await.unwrap();
                put(&sandbox, "record", b"MARKER-OF-A-PATIENT");
                println!("\nholding");
                let _ = sandbox.run(&sh(&format!("trap '' TERM; setsid bash -c 'exec -a {drill}-inside sleep 1000' & exec -a {drill}-inside sleep 1000"))).await;
            }
            "root of a container" => {
                let sandbox = provision(&spec).await.unwrap();
                put(&sandbox, "record", b"restored");
                let seen = ask(&sandbox, sh("cat record; id -u; grep CapEff /proc/self/status")).await;
                assert_eq!(seen, "restored1000\nCapEff:\t0000000000000000");
                assert!(sandbox.facts().remarks.iter().any(|r| r.contains("root's own user id")), "{:#?}", sandbox.facts());
                assert_gone(&sandbox.destroy().await);
                println!("\nas expected");
            }
            "without user namespaces" => {
                assert!(matches!(provision(&spec).await, Err(SandboxError::Unavailable { advice, .. }) if advice.contains("user.max_user_namespaces")));
                spec.isolation = Isolation::IfPossible;
                let sandbox = provision(&spec).await.unwrap();
                assert_eq!((sandbox.facts().kind.as_str(), sandbox.facts().isolated, sandbox.can_run()), ("none", false, false));
                put(&sandbox, "record", b"restored");
                assert!(sandbox.free_bytes().unwrap() > 0);
                assert!(matches!(sandbox.run(&sh("true")).await, Err(SandboxError::Unavailable { .. })));
                let disposal = sandbox.destroy().await;
                assert!(disposal.complete() && !disposal.probes.is_empty(), "{disposal:#?}");
                println!("\nas expected");
            }
            other => panic!("no such role: {other}"),
        }
    });
}

fn other_process(program: &[&str], role: &str, bench: &Bench, drill: &str, scratch: Option<PathBuf>) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut command = match program {
        [] => Command::new(&exe),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(&exe);
            command
        }
    };
    command
        .args(["--exact", "sandbox::role", "--ignored", "--nocapture"])
        .env("FIREDRILL_TEST_ROLE", role)
        .env("FIREDRILL_TEST_STATE", bench.state())
        .env("FIREDRILL_TEST_DRILL", drill)
        .env("FIREDRILL_TEST_HELPER", helper())
        .stdout(Stdio::piped());
    if let Some(scratch) = scratch {
        command.env("FIREDRILL_TEST_SCRATCH", scratch);
    }
    command
}

/// A process that a failing test does not leave behind.
pub(crate) struct Guarded(pub(crate) Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Runner {
    child: Guarded,
    /// Open until the end: the other process would stumble over a closed pipe.
    _output: BufReader<std::process::ChildStdout>,
}

impl Runner {
    fn kill(&mut self) {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
    }
}

/// A runner with a sandbox in which two processes sleep.
fn holding_runner(bench: &Bench, drill: &str, scratch: Option<PathBuf>) -> Runner {
    let mut child = Guarded(other_process(&[], "hold", bench, drill, scratch).spawn().unwrap());
    let mut output = BufReader::new(child.0.stdout.take().unwrap());
    assert!(output.by_ref().lines().any(|l| l.unwrap() == "holding"), "the other runner made no sandbox");
    wait_until("both processes inside run", || processes_with(&format!("{drill}-inside")).len() == 2);
    Runner { child, _output: output }
}

#[test]
fn a_killed_runner_leaves_no_process_and_no_memory() {
    let bench = Bench::new();
    let drill = format!("killed-{}", std::process::id());
    let mut runner = holding_runner(&bench, &drill, None);
    assert!(mounts_with(&drill) > 0);
    runner.kill();
    wait_until("every process is gone", || processes_with(&drill).is_empty());
    wait_until("every mount is gone", || mounts_with(&drill) == 0);
    let reaped = reap(&bench.state(), Timestamp::from_unix(7)).unwrap();
    assert_eq!(reaped.len(), 1);
    assert_eq!((reaped[0].drill.0.as_str(), &reaped[0].left, reaped[0].when), (drill.as_str(), &vec![], Timestamp::from_unix(7)));
    if is_root() {
        assert!(reaped[0].what.iter().any(|w| w == "a control group"), "{reaped:?}");
    }
    assert_eq!(bench.left_in(bench.state()), 0);
}

#[test]
fn what_a_killed_runner_left_on_disk_is_reaped_and_a_neighbour_is_not() {
    let bench = Bench::new();
    let drill = format!("killed-dir-{}", std::process::id());
    let foreign = bench.scratch().join("firedrill-somebody-else");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("theirs"), "stays").unwrap();
    let mut runner = holding_runner(&bench, &drill, Some(bench.scratch()));
    assert_eq!(reap(&bench.state(), Timestamp::from_unix(0)).unwrap(), [], "a living runner's sandbox is left alone");
    runner.kill();
    wait_until("every process is gone", || processes_with(&drill).is_empty());
    let record = bench.scratch().join(format!("firedrill-{drill}/tree/record"));
    assert_eq!(std::fs::read_to_string(&record).unwrap(), "MARKER-OF-A-PATIENT", "a directory survives: that is its weakness");
    let reaped = reap(&bench.state(), Timestamp::from_unix(7)).unwrap();
    assert!(reaped[0].what.iter().any(|w| w.starts_with("a scratch directory with")) && reaped[0].left.is_empty(), "{reaped:?}");
    assert!(!record.exists() && !record.parent().unwrap().parent().unwrap().exists());
    assert_eq!(std::fs::read_to_string(foreign.join("theirs")).unwrap(), "stays");
    assert_eq!(reap(&bench.state(), Timestamp::from_unix(8)).unwrap(), []);
}

#[test]
fn a_killed_monitor_takes_everything_inside_with_it() {
    let bench = Bench::new();
    let drill = format!("killed-monitor-{}", std::process::id());
    let mut runner = holding_runner(&bench, &drill, None);
    let monitors = processes_with(&format!("__sandbox firedrill-{drill}"));
    assert_eq!(monitors.len(), 2, "monitor and PID 1");
    let monitor = monitors.iter().map(|p| p.parse::<i32>().unwrap()).min().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(monitor).unwrap(), rustix::process::Signal::KILL).unwrap();
    wait_until("every process inside is gone", || processes_with(&format!("{drill}-inside")).is_empty());
    wait_until("every mount is gone", || mounts_with(&drill) == 0);
    runner.kill();
    // The runner may have noticed and cleaned up before it was killed.
    assert!(reap(&bench.state(), Timestamp::from_unix(0)).unwrap().iter().all(|r| r.left.is_empty()));
    assert_eq!(bench.left_in(bench.state()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_thread_that_made_a_sandbox_is_not_its_end() {
    let bench = Bench::new();
    let spec = bench.spec();
    let handle = tokio::runtime::Handle::current();
    let sandbox = std::thread::spawn(move || handle.block_on(provision(&spec))).join().unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(ask(&sandbox, sh("echo alive")).await, "alive");
    assert_gone(&sandbox.destroy().await);
}

// ---- hosts that cannot -------------------------------------------------------------------------------------------------

#[test]
fn without_user_namespaces_only_a_directory_is_left_and_the_facts_say_so() {
    let bench = Bench::new();
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let program = ["unshare", "--user", "--map-root-user", "bash", "-c", forbid, "bash"];
    let drill = format!("bare-{}", std::process::id());
    let out = other_process(&program, "without user namespaces", &bench, &drill, Some(bench.scratch())).output().unwrap();
    assert!(out.status.success() && text(&out.stdout).contains("as expected"), "{}", text(&out.stdout));
    assert_eq!((bench.left_in(bench.state()), bench.left_in(bench.scratch())), (0, 0));
}

#[test]
fn root_without_ids_to_give_away_still_makes_a_sandbox_and_says_what_is_weaker() {
    let bench = Bench::new();
    let drill = format!("nested-{}", std::process::id());
    let program = ["unshare", "--user", "--map-root-user", "--mount"];
    let out = other_process(&program, "root of a container", &bench, &drill, None).output().unwrap();
    assert!(out.status.success() && text(&out.stdout).contains("as expected"), "{}", text(&out.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_by_doing() {
    let bench = Bench::new();
    let list = promises(&bench.spec()).await;
    let kept = |name: &str| list.iter().find(|p| p.name == name).unwrap_or_else(|| panic!("{name}: {list:#?}")).kept;
    for name in ["isolation", "network", "scratch: tmpfs", "no swap", "disposal"] {
        assert_eq!(kept(name), Kept::Yes, "{list:#?}");
    }
    assert_eq!(kept("memory limit"), if is_root() { Kept::Yes } else { Kept::Partly });
    // SAFETY: asks for the version; no memory is passed.
    let landlock = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, 1) };
    assert_eq!(kept("landlock"), if landlock >= 5 { Kept::Yes } else { Kept::Partly });
    let mut broken = bench.spec();
    broken.helper = PathBuf::from("/bin/false");
    let list = promises(&broken).await;
    let always = |name: &str| name == "scratch: directory" || name == "leftovers";
    assert!(list.iter().all(|p| p.kept == Kept::No || always(&p.name)), "{list:#?}");
    assert_eq!(bench.left_in(bench.state()), 0);
}

// ---- and all of it as an ordinary user ---------------------------------------------------------------------------------

#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    if !is_root() {
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
        .args(["sandbox::", "sandbox_kit::", "--test-threads=2"])
        .env("FIREDRILL_TEST_HELPER", &helper)
        .env("TMPDIR", &home)
        .current_dir("/")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}\n{}", text(&out.stdout), text(&out.stderr));
    assert!(text(&out.stdout).contains("nothing_reaches_the_network ... ok"));
}
