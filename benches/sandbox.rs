//! What a sandbox costs: made, one `true` run in it, destroyed; beside `bwrap` and `podman run` doing the same, in one run.
//!
//! `cargo bench --bench sandbox` prints medians of interleaved rounds: the three take turns, so that whatever else the machine
//! does hits all of them. Ours is the library in this process, with the real binary as its helper, once with scratch in memory and
//! once in a directory; it registers, limits by control groups where it can, and looks for remains afterwards, all of which the
//! other two do not. Needs `bubblewrap` and `podman` with `runc`; what is not there or does not run is told in its row, and why.
//!
//! Environment: `BENCH_ROUNDS` (41), `BENCH_PODMAN_ROUNDS` (5: it is slow).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, missing_docs, reason = "a benchmark")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use firedrill::domain::{ByteSize, DrillId, Period, ResourceLimits, ScratchKind};
use firedrill::sandbox::{CommandSpec, SandboxSpec, provision};

/// What a row of the table is.
struct Contender {
    name: &'static str,
    rounds: usize,
    run: Box<dyn Fn(usize) -> Result<f64, String>>,
    took: Result<Vec<f64>, String>,
}

fn main() {
    // `cargo test --benches` comes here too, and wants no measuring.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let number = |name: &str, default: usize| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (rounds, podman_rounds) = (number("BENCH_ROUNDS", 41), number("BENCH_PODMAN_ROUNDS", 5));
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    for directory in ["scratch", "root/proc", "root/dev", "root/sys", "root/tmp", "root/run", "root/etc"] {
        std::fs::create_dir_all(place.path().join(directory)).unwrap();
    }
    let contender = |name, rounds, run| Contender { name, rounds, run, took: Ok(Vec::new()) };
    let mut contenders = [
        contender("firedrill, scratch in memory", rounds, ours(place.path(), ScratchKind::Tmpfs)),
        contender("firedrill, scratch in a directory", rounds, ours(place.path(), ScratchKind::Directory)),
        contender("bwrap", rounds, Box::new(|_| timed(&mut bwrap()))),
        contender("podman run", podman_rounds, Box::new(move |_| timed(&mut podman(&root)))),
    ];
    for round in 0..=rounds {
        for contender in &mut contenders {
            if round > contender.rounds {
                continue;
            }
            match ((contender.run)(round), &mut contender.took) {
                // The first round warms caches and does not count.
                (Ok(_), Ok(_)) if round == 0 => {}
                (Ok(millis), Ok(took)) => took.push(millis),
                (Err(why), took) => *took = Err(why),
                (Ok(_), Err(_)) => {}
            }
        }
    }
    println!("\n| made, `true` run, destroyed | median ms | fastest ms | rounds |\n|---|---|---|---|");
    for contender in &mut contenders {
        match &mut contender.took {
            Ok(took) if took.is_empty() => println!("| {} | – | – | 0 |", contender.name),
            Ok(took) => {
                took.sort_by(f64::total_cmp);
                println!("| {} | {:.1} | {:.1} | {} |", contender.name, took[took.len() / 2], took[0], took.len());
            }
            Err(why) => println!("| {} | – | – | did not run: {} |", contender.name, why.trim().replace('\n', "; ")),
        }
    }
}

fn ours(place: &Path, kind: ScratchKind) -> Box<dyn Fn(usize) -> Result<f64, String>> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (state, scratch) = (place.join("state"), place.join("scratch"));
    Box::new(move |round| {
        let limits = ResourceLimits {
            memory: ByteSize::mib(64),
            processes: 32,
            scratch_size: ByteSize::mib(32),
            scratch: kind,
            scratch_path: (kind == ScratchKind::Directory).then(|| scratch.clone()),
            time: Period::from_secs(60),
            ..ResourceLimits::default()
        };
        let mut spec = SandboxSpec::new(DrillId(format!("bench-{}-{round}", std::process::id())), limits, state.clone());
        spec.helper = PathBuf::from(env!("CARGO_BIN_EXE_firedrill"));
        let begin = Instant::now();
        runtime.block_on(async {
            let sandbox = provision(&spec).await.map_err(|e| e.to_string())?;
            let made = begin.elapsed();
            let exit = sandbox.run(&CommandSpec::new(["true"])).await.map_err(|e| e.to_string())?;
            let ran = begin.elapsed();
            let disposal = sandbox.destroy().await;
            let all = begin.elapsed();
            if !exit.success() || !disposal.complete() {
                return Err(format!("{exit:?} {disposal:?}"));
            }
            if std::env::var_os("BENCH_STAGES").is_some() {
                println!("made {made:?}, ran {:?}, destroyed {:?}", ran - made, all - ran);
            }
            Ok(all.as_secs_f64() * 1e3)
        })
    })
}

/// The same view as ours: the host's programs read-only, private `/tmp`, `/dev` and `/proc`, nothing else.
fn bwrap() -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--ro-bind", "/usr", "/usr"]);
    for (to, link) in [("usr/bin", "/bin"), ("usr/sbin", "/sbin"), ("usr/lib", "/lib"), ("usr/lib64", "/lib64")] {
        command.args(["--symlink", to, link]);
    }
    command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/data", "--chdir", "/data", "/usr/bin/true"]);
    command
}

/// The same without an image: a root of empty directories, the host's programs mounted into it.
fn podman(root: &Path) -> Command {
    for (to, link) in [("usr/bin", "bin"), ("usr/sbin", "sbin"), ("usr/lib", "lib"), ("usr/lib64", "lib64")] {
        let _ = std::os::unix::fs::symlink(to, root.join(link));
    }
    let _ = std::fs::create_dir(root.join("usr"));
    let mut command = Command::new("podman");
    // runc, as crun refuses hosts whose control groups are of both versions; fewer files and processes, as not every host lets them be raised.
    command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file", "run", "--rm", "--network", "none"]);
    command
        .args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--volume", "/usr:/usr:ro", "--rootfs"])
        .arg(root)
        .arg("/usr/bin/true");
    command
}

fn timed(command: &mut Command) -> Result<f64, String> {
    let begin = Instant::now();
    let out = command.stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    if out.status.success() { Ok(took) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}
