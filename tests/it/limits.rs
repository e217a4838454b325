//! Every limit of a sandbox, hit by a real program: each names itself, and what cannot be known is named beforehand.
//!
//! Run as root, the last test runs all the others once more as an ordinary user, by process limits instead of control groups.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use firedrill::domain::{BoundFacts, ByteSize, Cpus, DrillId, Held, Period, Requirement, ResourceLimits, Sanitization, ScratchKind};
use firedrill::sandbox::{CommandSpec, Ended, Exit, Limit, Sandbox, SandboxError, SandboxSpec, provision};

use crate::drills::{Drilled, Home};

static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn helper() -> PathBuf {
    std::env::var_os("FIREDRILL_TEST_HELPER").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_firedrill")), PathBuf::from)
}

/// A state directory, gone with the test.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Bench {
        Bench(tempfile::tempdir().unwrap())
    }
    fn spec(&self) -> SandboxSpec {
        let limits = ResourceLimits {
            memory: ByteSize::mib(64),
            processes: 32,
            scratch_size: ByteSize::mib(32),
            time: Period::from_secs(120),
            ..ResourceLimits::default()
        };
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let drill = DrillId(format!("limits-{}-{n}", std::process::id()));
        let mut spec = SandboxSpec::new(drill, limits, self.0.path().join("state"));
        spec.helper = helper();
        spec
    }
    fn directory_spec(&self) -> SandboxSpec {
        let mut spec = self.spec();
        spec.limits.scratch = ScratchKind::Directory;
        spec.limits.scratch_path = Some(self.0.path().to_owned());
        spec
    }
}

fn sh(script: &str) -> CommandSpec {
    CommandSpec::new(["bash", "-c", script])
}

fn py(script: &str) -> CommandSpec {
    CommandSpec::new(["python3", "-c", script])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

async fn ask(sandbox: &Sandbox, command: CommandSpec) -> String {
    let exit = sandbox.run(&command).await.unwrap();
    assert!(exit.success(), "{:?}\n{}\n{}", exit.ended, text(&exit.stdout), text(&exit.stderr));
    text(&exit.stdout)
}

#[track_caller]
fn hit(result: Result<Exit, SandboxError>) -> (Limit, String) {
    match result {
        Err(SandboxError::Limit { limit, value }) => (limit, value),
        Err(other) => panic!("{other}"),
        Ok(exit) => panic!("no limit was hit: {exit:?}\n{}\n{}", text(&exit.stdout), text(&exit.stderr)),
    }
}

fn bound<'a>(sandbox: &'a Sandbox, name: &str) -> &'a BoundFacts {
    sandbox.facts().bounds.iter().find(|b| b.bound == name).unwrap_or_else(|| panic!("{name}: {:#?}", sandbox.facts()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_facts_name_every_bound_and_how_it_is_held() {
    let bench = Bench::new();
    let sandbox = provision(&bench.spec()).await.unwrap();
    let names: Vec<&str> = sandbox.facts().bounds.iter().map(|b| b.bound.as_str()).collect();
    let all = ["memory", "processes", "cpu", "cpu time", "scratch", "inodes", "private /tmp", "private /run", "/dev/shm", "time", "output"];
    for name in all {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let by_group = (Held::Together, true);
    let expected = if is_root() { [by_group, by_group] } else { [(Held::Each, false), (Held::Together, false)] };
    assert_eq!(["memory", "processes"].map(|n| (bound(&sandbox, n).held, bound(&sandbox, n).told)), expected);
    assert_eq!(bound(&sandbox, "cpu").held, Held::Not, "nothing was asked for");
    assert!(sandbox.destroy().await.complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_table_of_entries_is_told_apart_from_full_bytes() {
    let bench = Bench::new();
    let mut spec = bench.spec();
    spec.limits.max_files = 200;
    let sandbox = provision(&spec).await.unwrap();
    assert!(sandbox.free_entries().unwrap().is_some_and(|n| (200..=1_300).contains(&n)));
    let (limit, value) = hit(sandbox.run(&sh("for i in $(seq 3000); do : > f$i || exit 1; done")).await);
    assert_eq!(limit, Limit::Inodes);
    assert_eq!(value, "1224 entries");
    assert!(sandbox.free_bytes().unwrap() > 1 << 20, "bytes are left");
    assert_eq!(ask(&sandbox, sh("rm f*; echo room again")).await, "room again");
    assert_eq!(hit(sandbox.run(&sh("head -c 40M /dev/zero > fill")).await), (Limit::Scratch, "32 MiB".to_owned()));
    assert!(sandbox.destroy().await.complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn private_places_are_full_by_their_own_names() {
    let bench = Bench::new();
    let sandbox = provision(&bench.spec()).await.unwrap();
    for (place, limit) in [("/tmp", Limit::Tmp), ("/dev/shm", Limit::SharedMemory), ("/run", Limit::Run)] {
        assert_eq!(ask(&sandbox, sh(&format!("head -c 1M /dev/zero > {place}/fits && rm {place}/fits && echo fits"))).await, "fits");
        let filled = sandbox.run(&sh(&format!("head -c 40M /dev/zero > {place}/fill"))).await;
        assert_eq!(hit(filled), (limit, "16 MiB".to_owned()), "{place}");
        assert!(sandbox.free_bytes().unwrap() > 30 << 20, "scratch is not what was full");
        ask(&sandbox, sh(&format!("rm {place}/fill"))).await;
    }
    // A command that fails for its own reasons, with room everywhere, is its own failure.
    assert_eq!(sandbox.run(&sh("exit 3")).await.unwrap().ended, Ended::Status(3));
    assert!(sandbox.destroy().await.complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_has_a_total_that_names_itself() {
    let bench = Bench::new();
    let mut spec = bench.spec();
    // Two seconds for each process. With a quota they last as long as the whole time does, so that one is kept short.
    let (cpus, time) = if is_root() { (0.5, 4) } else { (0.05, 40) };
    (spec.limits.cpus, spec.limits.time) = (Cpus::new(cpus), Period::from_secs(time));
    let sandbox = provision(&spec).await.unwrap();
    let limited = hit(sandbox.run(&py("while True: pass")).await);
    if is_root() {
        // Both end at the same moment, and either may be first.
        assert!(matches!(limited.0, Limit::Cpu | Limit::Time), "{limited:?}");
    } else {
        assert_eq!(limited, (Limit::Cpu, "2s of processor time".to_owned()));
        // Through a shell, too; and the signal alone is no processor time.
        let spent = std::time::Instant::now();
        assert_eq!(sandbox.run(&sh("kill -XCPU $$")).await.unwrap().ended, Ended::Signal(libc::SIGXCPU));
        assert!(spent.elapsed() < Duration::from_secs(1));
    }
    sandbox.destroy().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_of_processors_holds_what_runs_inside_or_the_facts_say_that_it_does_not() {
    let bench = Bench::new();
    let mut spec = bench.spec();
    spec.limits.cpus = Cpus::new(0.25);
    let label = format!("firedrill-{}", spec.drill);
    let sandbox = provision(&spec).await.unwrap();
    let spin = "import time\nend = time.monotonic() + 1.2\nwhile time.monotonic() < end: pass\nprint(time.process_time())";
    let spent: f64 = ask(&sandbox, py(spin)).await.parse().unwrap();
    let cpu = bound(&sandbox, "cpu").clone();
    if is_root() {
        assert_eq!((cpu.held, cpu.value.as_str()), (Held::Together, "0.25 processors"));
        assert!(spent < 0.7, "{spent} s of processor time in 1.2 s");
        // That it was held back is the kernel's own word, not a busy host's.
        let stat = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"]
            .iter()
            .find_map(|root| std::fs::read_to_string(Path::new(root).join(&label).join("cpu.stat")).ok())
            .expect("the group is there");
        let throttled: u64 = stat.lines().find_map(|l| l.strip_prefix("nr_throttled ")).unwrap().parse().unwrap();
        assert!(throttled > 0, "{stat}");
    } else {
        assert_eq!(cpu.held, Held::Not);
        assert!(sandbox.facts().remarks.iter().any(|r| r.contains("no control group for processor time")), "{:#?}", sandbox.facts());
    }
    assert!(sandbox.destroy().await.complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_processes_are_told_also_where_no_group_counts_them() {
    let bench = Bench::new();
    let sandbox = provision(&bench.spec()).await.unwrap();
    // Children stay, and the first refusal ends the parent with an error.
    let crowd = "import os, time\nwhile True:\n    if os.fork() == 0:\n        time.sleep(30)\n        os._exit(0)";
    assert_eq!(hit(sandbox.run(&py(crowd)).await), (Limit::Processes, "32".to_owned()));
    // A crowd that keeps below the limit, and a failure, are no limit.
    let few = "import os, sys, time\nfor _ in range(20):\n    if os.fork() == 0:\n        time.sleep(30)\n        os._exit(0)\nsys.exit(3)";
    assert_eq!(sandbox.run(&py(few)).await.unwrap().ended, Ended::Status(3));
    assert!(sandbox.destroy().await.complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_larger_than_a_scratch_directory_may_be_is_stopped_and_named() {
    let bench = Bench::new();
    let sandbox = provision(&bench.directory_spec()).await.unwrap();
    assert_eq!(bound(&sandbox, "scratch").held, Held::Each, "a directory has no size of its own");
    assert_eq!(hit(sandbox.run(&sh("head -c 40M /dev/zero > fill")).await), (Limit::Scratch, "32 MiB".to_owned()));
    assert!(sandbox.destroy().await.complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_scenario_requires_and_the_host_lacks_is_refused_with_advice() {
    let bench = Bench::new();
    for requirement in [Requirement::Memory, Requirement::Processes, Requirement::Cpu] {
        let mut spec = bench.spec();
        spec.limits.cpus = Cpus::new(0.5);
        spec.limits.require.insert(requirement);
        match provision(&spec).await {
            Ok(sandbox) => {
                assert!(is_root(), "{requirement:?} without a control group");
                assert!(sandbox.destroy().await.complete());
            }
            Err(SandboxError::Unavailable { why, advice }) => {
                assert!(!is_root(), "{why}");
                assert!(why.contains(&format!("`{}`", requirement.word())) && advice.contains("Delegate="), "{why}; {advice}");
            }
            Err(other) => panic!("{other}"),
        }
    }
    let mut spec = bench.directory_spec();
    spec.limits.require.insert(Requirement::Scratch);
    assert!(matches!(provision(&spec).await, Err(SandboxError::Unavailable { advice, .. }) if advice.contains("tmpfs")));
    for kept in [Requirement::Isolation, Requirement::Scratch, Requirement::NoSwap] {
        let mut spec = bench.spec();
        spec.limits.require.insert(kept);
        assert!(provision(&spec).await.unwrap().destroy().await.complete(), "{kept:?}");
    }
    let left = std::fs::read_dir(bench.0.path()).unwrap().filter(|e| e.as_ref().unwrap().file_name() != "state").count();
    assert_eq!(left, 0, "a refusal leaves nothing");
    assert_eq!(std::fs::read_dir(bench.0.path().join("state")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disposal_says_what_it_amounts_to_for_each_kind_of_scratch() {
    let bench = Bench::new();
    for (spec, expected) in [(bench.spec(), Sanitization::Clear), (bench.directory_spec(), Sanitization::None)] {
        let sandbox = provision(&spec).await.unwrap();
        assert_eq!(sandbox.destroy().await.sanitization, Some(expected));
    }
    let sandbox = provision(&bench.spec()).await.unwrap();
    let held = sandbox.root().unwrap();
    let disposal = sandbox.destroy().await;
    assert!(!disposal.complete());
    assert_eq!(disposal.sanitization, Some(Sanitization::None), "what is still held is not cleared");
    drop(held);
}

// ---- whole drills, as root --------------------------------------------------------------------------------------------

/// A check that runs this script inside.
fn command_check(name: &str, script: &str, more: &str) -> String {
    format!("[[check]]\nkind = \"command\"\nname = \"{name}\"\ncommand = [\"bash\", \"-c\", {script:?}]\n{more}\n")
}

#[test]
fn each_limit_hit_in_a_drill_is_a_finding_that_names_limit_and_step() {
    if !is_root() {
        println!("drills of an ordinary user are run by the tests that run as root");
        return;
    }
    let home = Home::new();
    home.bare_tree();
    for (name, script, limit) in [
        ("fills scratch", "head -c 80M /dev/zero > fill", "scratch"),
        ("fills tmp", "head -c 80M /dev/zero > /tmp/fill", "private /tmp"),
        ("fills shm", "head -c 80M /dev/zero > /dev/shm/fill", "/dev/shm"),
        ("crowds", "for i in $(seq 64); do sleep 30 & done; wait", "processes"),
    ] {
        let drilled = home.drill(&home.scenario(&command_check(name, script, ""))).ends("INCONCLUSIVE");
        drilled.blames_runner("sandbox_limit", &[("limit", limit), ("check", name)]);
        drilled.left_nothing();
    }
    let entries = command_check("fills entries", "for i in $(seq 3000); do : > f$i || exit 1; done", "");
    let drilled = home.drill(&home.scenario(&format!("sandbox.max_files = 500\n{entries}"))).ends("INCONCLUSIVE");
    drilled.blames_runner("sandbox_limit", &[("limit", "inodes"), ("check", "fills entries")]);
    let flood = command_check("floods", "yes Wilhelmina | head -c 3M", "stdout = \"never there\"");
    let drilled = home.drill(&home.scenario(&flood)).ends("INCONCLUSIVE");
    drilled.blames_runner("sandbox_limit", &[("limit", "output"), ("value", "1 MiB"), ("check", "floods")]);
    // a flood on standard error takes nothing from what is judged
    let noise = command_check("noisy", "head -c 3M /dev/zero >&2; echo fine", "stdout = \"^fine\"");
    home.drill(&home.scenario(&noise)).ends("PASSED");
    let late = command_check("late", "sleep 30", "");
    let drilled = home.drill(&home.scenario(&format!("sandbox.time = \"3s\"\n{late}"))).ends("INCONCLUSIVE");
    drilled.blames_runner("sandbox_limit", &[("limit", "time")]);
    assert!(["verify", "late"].contains(&drilled.because("sandbox_limit")["check"].as_str().unwrap()));
}

#[test]
fn limits_too_small_for_a_known_backup_are_found_before_it_is_fetched() {
    if !is_root() {
        println!("drills of an ordinary user are run by the tests that run as root");
        return;
    }
    let home = Home::new();
    let tree = home.tree();
    crate::drills::Forged::of(&home, &tree).write(&home.path("backups"));
    let drilled = home.drill(&home.sealed_scenario("sandbox.max_files = 5")).ends("INCONCLUSIVE");
    drilled.blames_runner("budget_exceeded", &[("check", "preflight"), ("budget", "files"), ("limit", "5")]);
    nothing_was_fetched(&drilled);
}

#[test]
fn a_file_system_without_free_entries_is_named_and_not_called_full() {
    if !is_root() {
        println!("only root can mount a file system of its own");
        return;
    }
    // A scratch directory on a file system of a few entries: known beforehand for a sealed set, met on the way for a bare one.
    let few = |home: &Home, scenario: &Path| {
        let binary = env!("CARGO_BIN_EXE_firedrill");
        let script = format!(
            "mount -t tmpfs -o size=64m,nr_inodes=11 few scratch && exec {binary} --state state --evidence evidence run {}",
            scenario.display()
        );
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "bash", "-c", &script])
            .current_dir(home.root())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap());
        home.drilled(crate::drills::said(command.output().unwrap())).ends("INCONCLUSIVE")
    };
    let scratch = |home: &Home| {
        std::fs::create_dir(home.path("scratch")).unwrap();
        format!("[sandbox]\nscratch = {{ kind = \"directory\", size = \"64MiB\", path = {:?} }}", home.path("scratch"))
    };
    let home = Home::new();
    let tree = home.tree();
    crate::drills::Forged::of(&home, &tree).write(&home.path("backups"));
    let drilled = few(&home, &home.sealed_scenario(&scratch(&home)));
    drilled.blames_runner("sandbox_limit", &[("limit", "inodes"), ("check", "preflight")]);
    nothing_was_fetched(&drilled);

    let home = Home::new();
    home.bare_tree();
    let drilled = few(&home, &home.scenario(&scratch(&home)));
    drilled.blames_runner("sandbox_limit", &[("limit", "inodes"), ("check", "restore")]);
}

#[test]
fn limits_that_make_no_sense_are_mistakes_of_the_file() {
    let home = Home::new();
    for (overlay, words) in [
        ("sandbox.cpus = 0", ["cpus = 0", "0.01 to 1000"]),
        ("sandbox.cpus = -1.5", ["cpus = -1.5", "0.01 to 1000"]),
        ("sandbox.require = [\"cpu\"]", ["no quota is set", "cpus = 1.5"]),
        ("sandbox.require = [\"everything\"]", ["everything", "no_swap"]),
    ] {
        home.fire(&["run", home.scenario(overlay).to_str().unwrap()]).exits(2).says(&words);
    }
}

#[track_caller]
fn nothing_was_fetched(drilled: &Drilled) {
    assert!(drilled.report["restored"].is_null(), "{:#}", drilled.report["restored"]);
    let read = drilled.report["backup"]["chain"]["objects"].as_array().into_iter().flatten();
    let parts: Vec<_> =
        read.filter(|o| o["role"] != "manifest" && o["role"] != "signature" && o["bytes_read"].as_u64() != Some(0)).collect();
    assert!(parts.is_empty(), "{parts:#?}");
}

// ---- and as an ordinary user ------------------------------------------------------------------------------------------

/// The binary where an ordinary user can run it, in a home that is his.
pub fn ordinary_user(home: &Home, args: &[&str]) -> Command {
    let binary = home.path("firedrill");
    if !binary.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_firedrill"), &binary).unwrap();
    }
    let out = Command::new("chown").args(["-R", "1000:1000"]).arg(home.root()).output().unwrap();
    assert!(out.status.success());
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1000", "--regid=1000", "--clear-groups"]).arg(&binary).args(["--state", "state", "--evidence", "evidence"]);
    command.args(args).current_dir(home.root()).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command
}

#[test]
fn a_scenario_that_needs_more_than_an_ordinary_user_has_is_refused_before_anything_is_fetched() {
    if !is_root() {
        println!("needs root to become an ordinary user");
        return;
    }
    let home = Home::new();
    home.bare_tree();
    let run = |scenario: &Path| crate::drills::said(ordinary_user(&home, &["run", scenario.to_str().unwrap()]).output().unwrap());
    let drilled = home.drilled(run(&home.scenario("sandbox.require = [\"memory\"]"))).ends("INCONCLUSIVE");
    drilled.blames_runner("sandbox_unavailable", &[("check", "sandbox"), ("reason", "`memory`"), ("reason", "Delegate=")]);
    assert!(drilled.report["backup"]["point"].is_null(), "nothing was even listed: {:#}", drilled.report["backup"]);
    nothing_was_fetched(&drilled);
    // without the requirement the same drill runs, and the report names the weaker bounds
    let drilled = home.drilled(run(&home.scenario(""))).ends("PASSED");
    let bounds = drilled.report["sandbox"]["bounds"].as_array().unwrap();
    let memory = bounds.iter().find(|b| b["bound"] == "memory").unwrap();
    assert_eq!((&memory["held"], &memory["told"]), (&"each".into(), &false.into()), "{memory:#}");
    // and where there are control groups, the requirement is met
    home.drill(&home.scenario("sandbox.cpus = 1\nsandbox.require = [\"memory\", \"processes\", \"cpu\", \"no_swap\", \"isolation\"]"))
        .ends("PASSED");
}

#[test]
fn all_limits_hold_for_an_ordinary_user() {
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
        .args(["limits::", "--test-threads=2"])
        .env("FIREDRILL_TEST_HELPER", &helper)
        .env("TMPDIR", &home)
        .current_dir("/")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}\n{}", text(&out.stdout), text(&out.stderr));
    assert!(text(&out.stdout).contains("too_many_processes_are_told_also_where_no_group_counts_them ... ok"));
}

// ---- what a killed runner left, in the evidence of its drill -----------------------------------------------------------

/// Starts a drill whose check sleeps, and kills the runner with -9 while it does; the drill's journal.
fn killed_while_it_checked(home: &Home, overlay: &str) -> PathBuf {
    let scenario = home.scenario(&format!("{overlay}\n{}", command_check("sleeps", "sleep 300", "")));
    let mut runner = home.start(&["run", scenario.to_str().unwrap()]);
    let begun = std::time::Instant::now();
    let journal = loop {
        assert!(begun.elapsed() < Duration::from_secs(30), "the check never began");
        let journals = std::fs::read_dir(home.path("state/drills")).into_iter().flatten().map(|e| e.unwrap().path());
        let journal = journals.into_iter().find(|p| p.extension().is_some_and(|e| e == "jsonl"));
        match journal {
            Some(path) if std::fs::read_to_string(&path).is_ok_and(|text| text.contains("\"verify\"")) => break path,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    runner.kill().unwrap();
    runner.wait().unwrap();
    journal
}

fn closed_by_reap(home: &Home, code: i32) -> serde_json::Value {
    let said = home.fire(&["--json", "reap"]).exits(code).json();
    let evidence = said["closed"][0]["evidence"].as_str().unwrap().to_owned();
    let report = home.look_at(&home.path(&evidence));
    assert_eq!(report["verdict"], "INCONCLUSIVE");
    report
}

#[test]
fn what_was_reaped_is_in_the_evidence_of_the_drill_that_was_lost() {
    if !is_root() {
        println!("drills of an ordinary user are run by the tests that run as root");
        return;
    }
    let words = |disposal: &serde_json::Value| disposal["probes"].to_string();
    let home = Home::new();
    home.bare_tree();
    killed_while_it_checked(&home, "");
    let disposal = closed_by_reap(&home, 0)["disposal"].clone();
    assert!(disposal["method"].as_str().unwrap().contains("reaped at the next start"), "{disposal:#}");
    assert_eq!(disposal["sanitization"], "clear");
    assert!(words(&disposal).contains("a control group") && words(&disposal).contains("the record of a sandbox"), "{disposal:#}");
    assert!(disposal["started_at"].is_string() && disposal["ended_at"].is_string() && disposal["took"].is_null(), "{disposal:#}");

    // a directory is unlinked, which is no sanitization, and what resists is named
    for (foreign, code) in [(false, 0), (true, 1)] {
        let home = Home::new();
        home.bare_tree();
        std::fs::create_dir(home.path("scratch")).unwrap();
        let directory = format!("[sandbox]\nscratch = {{ kind = \"directory\", size = \"64MiB\", path = {:?} }}", home.path("scratch"));
        killed_while_it_checked(&home, &directory);
        let scratch = std::fs::read_dir(home.path("scratch")).unwrap().next().unwrap().unwrap().path();
        if foreign {
            // somebody else's files in the place of ours: they are not touched, and that is said
            std::fs::write(scratch.join(".firedrill-scratch"), "another drill").unwrap();
        }
        let report = closed_by_reap(&home, code);
        let disposal = &report["disposal"];
        assert_eq!(disposal["sanitization"], "none", "{disposal:#}");
        assert_eq!(scratch.exists(), foreign);
        let expected = if foreign { "does not bear our label" } else { "a scratch directory with" };
        assert!(words(disposal).contains(expected), "{disposal:#}");
        let not_disposed = report["findings"].as_array().unwrap().iter().any(|f| f["finding"] == "not_disposed");
        assert_eq!(not_disposed, foreign);
    }
}

#[test]
fn a_runner_that_was_lost_while_it_made_the_sandbox_leaves_a_record_of_what_was_reaped() {
    if !is_root() {
        println!("drills of an ordinary user are run by the tests that run as root");
        return;
    }
    let home = Home::new();
    home.bare_tree();
    let journal = killed_while_it_checked(&home, "");
    // As far as the journal of such a runner goes: it started, and began to make the sandbox.
    let text = std::fs::read_to_string(&journal).unwrap();
    let begun: String = text.split_inclusive('\n').take(2).collect();
    assert!(begun.contains("\"provision\"") && !begun.contains("sandbox_provisioned"), "{begun}");
    std::fs::write(&journal, begun).unwrap();
    let report = closed_by_reap(&home, 0);
    assert!(report["sandbox"].is_null());
    assert!(report["disposal"]["probes"].to_string().contains("a control group"), "{:#}", report["disposal"]);
    assert_eq!(report["disposal"]["sanitization"], "none", "what scratch was is not known");
}
