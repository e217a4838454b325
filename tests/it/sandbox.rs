//! The sandbox's promises, by attacks from inside.

use std::path::{Path, PathBuf};
use std::time::Duration;

use firedrill::domain::{ByteSize, DrillId, Period, ResourceLimits, ScratchKind};
use firedrill::sandbox::{CommandSpec, Ended, Exit, Sandbox, SandboxError, SandboxSpec, provision};

static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

struct Bench {
    state: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let state = tempfile::tempdir().unwrap();
        Bench { state }
    }
    fn spec(&self) -> SandboxSpec {
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let limits = ResourceLimits {
            memory: ByteSize::mib(64),
            processes: 32,
            scratch_size: ByteSize::mib(32),
            time: Period::from_secs(120),
            ..ResourceLimits::default()
        };
        let drill = DrillId(format!("test-{}-{n}", std::process::id()));
        let mut spec = SandboxSpec::new(drill, limits, self.state.path().to_owned());
        spec.helper = PathBuf::from(env!("CARGO_BIN_EXE_firedrill"));
        spec
    }
}

fn sh(script: &str) -> CommandSpec {
    let mut command = CommandSpec::new(["bash", "-c", script]);
    command.timeout = Duration::from_secs(30);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

async fn out(sandbox: &Sandbox, script: &str) -> String {
    let exit = sandbox.run(&sh(script)).await.unwrap();
    assert!(exit.success(), "{:?}: {}", exit.ended, text(&exit.stderr));
    text(&exit.stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reads_what_was_restored_and_the_disposal_finds_nothing_left() {
    let bench = Bench::new();
    let sandbox = provision(&bench.spec()).await.unwrap();
    eprintln!("{:#?}", sandbox.facts());
    let root = sandbox.root().unwrap();
    let file = rustix::fs::openat(&root, "record", rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY, 0o600.into()).unwrap();
    rustix::io::write(&file, b"Jane Doe").unwrap();
    let owner = sandbox.owner();
    rustix::fs::fchown(&file, Some(rustix::fs::Uid::from_raw(owner.uid)), Some(rustix::fs::Gid::from_raw(owner.gid))).unwrap();
    drop((file, root));
    assert_eq!(out(&sandbox, "pwd; cat record; echo; id -u").await, "/data\nJane Doe\n1000");
    assert_eq!(sandbox.run(&sh("exit 7")).await.unwrap().ended, Ended::Status(7));
    let disposal = sandbox.destroy().await;
    assert!(disposal.complete(), "{disposal:#?}");
    assert_eq!(std::fs::read_dir(bench.state.path()).unwrap().count(), 0);
}
