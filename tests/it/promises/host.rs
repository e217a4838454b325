//! The host around a sandbox: things that an attack would like to have, and whether they are as they were.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::time::SystemTime;

use crate::sandbox::{Bench, Guarded};

/// What no attack may ever print.
pub(crate) const SECRET: &str = "HOST-ONLY-7f3a";

/// Sleeps, and writes down every signal that it is sent.
const VICTIM: &str = "
import signal, sys
def told(number, frame):
    print('signal', number, flush=True)
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, told)
print('ready', flush=True)
sys.stdin.read()
print('priority', __import__('os').getpriority(0, 0), flush=True)
";

pub(crate) struct Host {
    /// A file in the host's temporary directory, readable by everybody.
    pub marker: PathBuf,
    victim: Guarded,
    words: BufReader<std::process::ChildStdout>,
    hold: ChildStdin,
    /// Held for as long as the attack lasts, as the host's own.
    pub abstract_name: String,
    listener: std::os::unix::net::UnixListener,
    before: Seen,
    clocks: (SystemTime, std::time::Instant),
}

#[derive(Debug, PartialEq, Eq)]
struct Seen {
    marker: (String, u32, u64),
    files: Vec<String>,
    kernel: Vec<(&'static str, String)>,
    mounts: Vec<String>,
}

impl Host {
    pub fn new(bench: &Bench) -> Host {
        let directory = bench.home();
        fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
        let marker = directory.join("host-marker");
        fs::write(&marker, SECRET).unwrap();
        let mut child = Command::new("python3")
            .args(["-c", VICTIM, SECRET])
            .env("HOST_SECRET", SECRET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (hold, mut words) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut first = String::new();
        words.read_line(&mut first).unwrap();
        assert_eq!(first, "ready\n");
        let abstract_name = format!("{SECRET}-{}", child.id());
        let address = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&abstract_name).unwrap();
        let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let before = Seen::now(&marker);
        let clocks = (SystemTime::now(), std::time::Instant::now());
        Host { marker, victim: Guarded(child), words, hold, abstract_name, listener, before, clocks }
    }

    pub fn victim(&self) -> u32 {
        self.victim.0.id()
    }

    /// Nothing was read, told, changed or stopped.
    pub fn unchanged(mut self) -> Result<(), String> {
        if self.victim.0.try_wait().unwrap().is_some() {
            return Err("its process was ended".to_owned());
        }
        let _ = self.hold.flush();
        drop(self.hold);
        let heard: Vec<String> = self.words.lines().map_while(Result::ok).collect();
        if heard != ["priority 0"] {
            return Err(format!("its process was reached: {heard:?}"));
        }
        if self.listener.accept().is_ok() {
            return Err("its abstract socket was connected to".to_owned());
        }
        let drift = self.clocks.0.elapsed().map_err(|_| "its clock was set back")?.abs_diff(self.clocks.1.elapsed());
        if drift.as_secs() > 2 {
            return Err(format!("its clock was moved by {drift:?}"));
        }
        let after = Seen::now(&self.marker);
        if after != self.before { Err(format!("{:?} became {after:?}", self.before)) } else { Ok(()) }
    }
}

impl Seen {
    fn now(marker: &std::path::Path) -> Seen {
        let file = fs::metadata(marker).unwrap();
        let mut files: Vec<String> =
            fs::read_dir(marker.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        files.retain(|name| name != "state");
        files.sort();
        let knobs = ["/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/swappiness"];
        Seen {
            marker: (fs::read_to_string(marker).unwrap(), file.mode(), file.nlink()),
            files,
            kernel: knobs.into_iter().map(|k| (k, fs::read_to_string(k).unwrap_or_default())).collect(),
            mounts: fs::read_to_string("/proc/self/mountinfo")
                .unwrap()
                .lines()
                .filter(|l| l.contains("firedrill-test-"))
                .map(str::to_owned)
                .collect(),
        }
    }
}
