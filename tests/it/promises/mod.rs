//! One suite of promises for every mode and every kind of scratch: escapes and leaks, attempted from inside by real programs.
//!
//! Each attack has a sandbox of its own and tells whether its promise held. Around each, the host is looked at: its marker
//! files, its victim process, its names, clock and mounts are as they were, and the disposal finds nothing left.
//!
//! What a mode or a scratch cannot keep stands in [`WEAKER`], with the words by which the attack shows it. A row that is not
//! true fails as much as an attack that succeeds: nothing is skipped.

mod descriptors;
mod files;
mod host;
mod kernel;
mod limits;
mod processes;

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;

use firedrill::domain::ScratchKind;
use firedrill::sandbox::{CommandSpec, Exit, Sandbox, SandboxError, SandboxSpec, provision};

use crate::sandbox::{Bench, assert_gone, helper, is_root, py, sh, text};
use host::Host;

/// As whom the runner runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Root, with ids to give away.
    Root,
    /// Somebody.
    User,
    /// Root of a user namespace that has no ids to give: a container.
    Container,
}

impl Mode {
    fn here() -> Mode {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
        let wide = map.lines().any(|l| l.split_whitespace().last().is_some_and(|n| n.parse::<u64>().unwrap() > 700_000_000));
        match (is_root(), wide) {
            (true, true) => Mode::Root,
            (true, false) => Mode::Container,
            (false, _) => Mode::User,
        }
    }
}

/// Each kind of scratch, and how it is asked for. A new kind is one line here.
macro_rules! for_each_scratch {
    ($each:ident) => {
        $each!(tmpfs, ScratchKind::Tmpfs, |_bench, _spec| {});
        $each!(directory, ScratchKind::Directory, |bench, spec| spec.limits.scratch_path = Some(bench.scratch()));
        $each!(encrypted, ScratchKind::Encrypted, |bench, spec| spec.limits.scratch_path = Some(bench.scratch()));
    };
}

/// Each theme of the suite, on one kind of scratch.
macro_rules! themes_on {
    ($name:ident, $kind:expr, |$bench:ident, $spec:ident| $ask:expr) => {
        mod $name {
            use super::*;
            fn ask($bench: &Bench) -> SandboxSpec {
                let mut $spec = $bench.spec();
                $spec.limits.scratch = $kind;
                $spec.limits.max_files = 500;
                $ask;
                $spec
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn no_way_to_files() {
                attempt_all(files::ATTACKS, $kind, ask).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn no_way_to_processes() {
                attempt_all(processes::ATTACKS, $kind, ask).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn no_way_to_the_kernel() {
                attempt_all(kernel::ATTACKS, $kind, ask).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn no_way_through_descriptors() {
                attempt_all(descriptors::ATTACKS, $kind, ask).await;
            }
            #[tokio::test(flavor = "multi_thread")]
            async fn no_way_past_the_limits() {
                attempt_all(limits::ATTACKS, $kind, ask).await;
            }
        }
    };
}
for_each_scratch!(themes_on);

/// Where a promise cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// Nobody can.
    Everywhere,
    /// As whom the runner runs decides.
    As(Mode),
    /// No control group could be made: here an ordinary user has none. One with a delegated subtree keeps the promise.
    WithoutGroups,
}

/// What cannot be kept: where, on which scratch (`None` is all), which attack shows it, and by what words.
const WEAKER: &[(Where, Option<ScratchKind>, &str, &str)] = &[
    (Where::Everywhere, Some(ScratchKind::Directory), "the_scratch_takes_no_more_bytes_than_its_size", "the directory took"),
    (Where::Everywhere, Some(ScratchKind::Directory), "the_scratch_takes_no_more_files_than_its_count", "the directory took"),
    (Where::WithoutGroups, None, "a_memory_bomb_is_told_as_the_memory_limit", "without a control group nobody tells"),
    (Where::WithoutGroups, None, "shared_memory_counts_as_memory", "was given shared memory of"),
    (Where::WithoutGroups, None, "files_in_memory_count_as_memory", "was given files in memory of"),
    (Where::WithoutGroups, None, "a_fork_bomb_is_told_as_the_process_limit", "without a control group nobody tells"),
    // What runs inside has the number of the container's root, which the kernel takes for the owner of PID 1's files below /proc.
    (Where::As(Mode::Container), None, "the_first_process_is_nobodys_to_look_into", "though none can be told or opened"),
];

/// Whether a promise held; else how it was broken.
pub(crate) type Kept = Result<(), String>;

/// An attack: its name is the promise.
pub(crate) struct Attack {
    name: &'static str,
    attempt: for<'a> fn(&'a Ward) -> Pin<Box<dyn Future<Output = Kept> + 'a>>,
}

macro_rules! attacks {
    ($($name:ident),* $(,)?) => {
        pub(crate) const ATTACKS: &[super::Attack] =
            &[$(super::Attack { name: stringify!($name), attempt: |ward| Box::pin($name(ward)) }),*];
    };
}
pub(crate) use attacks;

/// Ends an attack that succeeded.
macro_rules! hold {
    ($holds:expr, $($broken:tt)+) => {
        if !$holds {
            return Err(format!($($broken)+));
        }
    };
}
pub(crate) use hold;

/// A sandbox under attack, and the host around it.
pub(crate) struct Ward {
    sandbox: Sandbox,
    spec: SandboxSpec,
    kind: ScratchKind,
    mode: Mode,
    host: Host,
}

impl Ward {
    async fn run(&self, command: CommandSpec) -> Result<Exit, SandboxError> {
        self.sandbox.run(&command).await
    }
    /// What a script prints, however it ends.
    async fn sh(&self, script: &str) -> String {
        let exit = self.run(sh(script)).await.unwrap();
        text(&[exit.stdout, exit.stderr].concat())
    }
    /// Whether a script succeeds.
    async fn can(&self, script: &str) -> bool {
        self.run(sh(script)).await.unwrap().success()
    }
    /// What a Python program prints, which must come to its end.
    async fn py(&self, program: &str) -> String {
        let exit = self.run(py(program)).await.unwrap();
        assert!(exit.success(), "{:?}: {} {}", exit.ended, text(&exit.stdout), text(&exit.stderr));
        text(&exit.stdout)
    }
    async fn alive(&self) -> bool {
        self.run(sh("echo alive")).await.is_ok_and(|exit| text(&exit.stdout) == "alive")
    }
}

async fn attempt_all(attacks: &[Attack], kind: ScratchKind, ask: fn(&Bench) -> SandboxSpec) {
    let mode = Mode::here();
    let mut wrong = Vec::new();
    for attack in attacks {
        let name = attack.name;
        let bench = Bench::new();
        let spec = ask(&bench);
        let sandbox = match provision(&spec).await {
            Ok(sandbox) => sandbox,
            // nothing is promised where it is refused; as root it must stand
            Err(SandboxError::Unavailable { why, .. }) if kind == ScratchKind::Encrypted && mode != Mode::Root => {
                println!("refused here: {mode:?} on {kind:?}: {why}");
                return;
            }
            Err(error) => panic!("{mode:?} on {kind:?}: {error}"),
        };
        let ward = Ward { sandbox, spec, kind, mode, host: Host::new(&bench) };
        let without_groups = ward.sandbox.facts().memory_limit.is_none();
        let applies = |place: Where| match place {
            Where::Everywhere => true,
            Where::As(whom) => whom == mode,
            Where::WithoutGroups => without_groups,
        };
        let kept = (attack.attempt)(&ward).await;
        let Ward { sandbox, host, .. } = ward;
        let alive = sandbox.run(&sh("echo alive")).await.is_ok_and(|exit| text(&exit.stdout) == "alive");
        assert!(alive, "after {name} the sandbox takes no command any more");
        assert_gone(&sandbox.destroy().await);
        if let Err(change) = host.unchanged() {
            wrong.push(format!("{name}: the host has changed: {change}"));
        }
        let weaker = WEAKER.iter().find(|(place, k, n, _)| applies(*place) && k.is_none_or(|k| k == kind) && *n == name);
        match (kept, weaker) {
            (Ok(()), None) => {}
            (Err(how), Some((_, _, _, words))) if how.contains(words) => println!("weaker here: {mode:?} on {kind:?}: {name}: {how}"),
            (Err(how), _) => wrong.push(format!("{name}: {how}")),
            (Ok(()), Some(_)) => wrong.push(format!("{name}: listed as weaker, and it holds")),
        }
    }
    assert!(wrong.is_empty(), "as {mode:?} on {kind:?}:\n{}", wrong.join("\n"));
}

#[test]
fn every_weakness_names_an_attack_and_there_are_seventy() {
    let lists = [files::ATTACKS, processes::ATTACKS, kernel::ATTACKS, descriptors::ATTACKS, limits::ATTACKS];
    let all: Vec<&str> = lists.iter().flat_map(|list| list.iter().map(|attack| attack.name)).collect();
    for (_, _, name, _) in WEAKER {
        assert!(all.contains(name), "no attack is called {name}");
    }
    assert!(all.len() >= 70, "only {} attacks", all.len());
}

/// Copies of test and helper that everybody may run, and a home for their files.
fn run_as(program: &[&str], owner: u32) {
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
    std::os::unix::fs::chown(&home, Some(owner), Some(owner)).unwrap();
    let out = Command::new(program[0])
        .args(&program[1..])
        .arg(&tests)
        .args(["promises::", "--test-threads=2", "--show-output"])
        .env("FIREDRILL_TEST_HELPER", &helper)
        .env("TMPDIR", &home)
        .current_dir("/")
        .output()
        .unwrap();
    let said = text(&out.stdout);
    assert!(out.status.success(), "{said}\n{}", text(&out.stderr));
    for kind in ["tmpfs", "directory", "encrypted"] {
        assert!(said.contains(&format!("{kind}::no_way_to_the_kernel ... ok")), "{said}");
    }
    for line in said.lines().filter(|l| l.starts_with("weaker here") || l.starts_with("refused here")) {
        println!("{line}");
    }
}

#[test]
fn the_suite_holds_for_an_ordinary_user() {
    match Mode::here() {
        Mode::Root => run_as(&["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"], 1000),
        Mode::User | Mode::Container => println!("this is the run in another mode"),
    }
}

#[test]
fn the_suite_holds_for_root_of_a_container() {
    match Mode::here() {
        Mode::Root => run_as(&["unshare", "--user", "--map-root-user", "--mount"], 0),
        Mode::User | Mode::Container => println!("this is the run in another mode"),
    }
}
