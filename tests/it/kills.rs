//! The runner dies: in every phase of a drill, with every kind of scratch, by every kind of end. Afterwards its processes are gone, and
//! a marker that stands only in the backup is looked for: in all memory that is mounted anywhere, on the raw device that state,
//! evidence and scratch lie on, and in their files.
//!
//! Not simulated here: the power cut itself. What a disk's own cache would lose or keep, what a hypervisor's snapshot or the
//! hibernation of a host holds, and freed pages that the kernel has not zeroed yet (`init_on_free`), are out of reach of a test
//! without a machine of its own. The raw device is read after a sync: what is not on it then, a power cut cannot leave on it.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::drills::{Home, holds, said};
use crate::lies::sandbox::wait_until;
use crate::sandbox::{is_root, processes_with};

/// Makes the matrix: each kind of scratch, killed before and from the restore on.
macro_rules! kinds {
    ($($kind:ident: $path:expr, $plaintext:expr;)+) => {
        const KINDS: &[(&str, NeedsPath, Plaintext)] = &[$((stringify!($kind), $path, $plaintext)),+];
        $(mod $kind {
            #[test]
            fn after_kill_9_before_the_restore_no_plaintext_is_left() {
                super::after_kill_9_in(&super::PHASES[..3], stringify!($kind));
            }
            #[test]
            fn after_kill_9_from_the_restore_on_no_plaintext_is_left() {
                super::after_kill_9_in(&super::PHASES[3..], stringify!($kind));
            }
        })+
    };
}

// A new kind of scratch is one line here.
kinds! {
    tmpfs: NeedsPath::No, Plaintext::Nowhere;
    directory: NeedsPath::Yes, Plaintext::UntilReaped;
    encrypted: NeedsPath::Yes, Plaintext::Nowhere;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NeedsPath {
    Yes,
    No,
}

/// Where the plaintext is between the runner's death and `reap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plaintext {
    Nowhere,
    UntilReaped,
}

const PHASES: [&str; 6] = ["provision", "locate", "preflight", "restore", "verify", "teardown"];

/// A file system of its own below a home, on a loop device where this host lets root have one: its image is the raw device.
struct Disk {
    image: Option<PathBuf>,
    place: PathBuf,
}

impl Disk {
    fn below(home: &Home) -> Disk {
        let (image, place) = (home.path("disk.img"), home.path("disk"));
        fs::create_dir(&place).unwrap();
        let script =
            format!("truncate -s 160M {0} && mkfs.ext4 -q -O ^has_journal {0} && mount -o loop {0} {1}", image.display(), place.display());
        let made = is_root() && Command::new("bash").args(["-c", &script]).stderr(Stdio::null()).status().unwrap().success();
        if !made {
            println!("no loop device here: the raw device under state, evidence and scratch was NOT searched, only their files");
        }
        for folder in ["state", "evidence", "scratch"] {
            fs::create_dir(place.join(folder)).unwrap();
            if folder != "scratch" {
                std::os::unix::fs::symlink(place.join(folder), home.path(folder)).unwrap();
            }
        }
        Disk { image: made.then_some(image), place }
    }
    fn scratch(&self) -> PathBuf {
        self.place.join("scratch")
    }
    fn sync(&self) {
        assert!(Command::new("sync").arg("-f").arg(&self.place).status().unwrap().success());
    }
    /// How often the marker stands on the raw device, file or no file.
    fn hits(&self, marker: &str) -> usize {
        self.sync();
        self.image.as_ref().map_or(0, |image| occurrences(&fs::read(image).unwrap(), marker))
    }
    /// How often in its files.
    fn hits_in_files(&self, marker: &str) -> usize {
        hits_below(&self.place, marker, None)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.image.is_some() {
            let _ = Command::new("umount").arg("-l").arg(&self.place).status();
        }
    }
}

fn occurrences(bytes: &[u8], marker: &str) -> usize {
    let finder = regex::bytes::Regex::new(marker).unwrap();
    finder.find_iter(bytes).count()
}

/// In names and contents of files below a directory, on its own file system.
fn hits_below(top: &Path, marker: &str, changed_since: Option<SystemTime>) -> usize {
    let Ok(device) = fs::metadata(top).map(|m| m.dev()) else { return 0 };
    let (mut hits, mut left) = (0, vec![top.to_owned()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
            let Ok(meta) = entry.metadata() else { continue };
            hits += usize::from(entry.file_name().to_string_lossy().contains(marker));
            let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(meta.ctime()).unwrap_or(0) + 1);
            if meta.is_dir() && meta.dev() == device {
                left.push(entry.path());
            } else if meta.is_file() && changed_since.is_none_or(|since| changed >= since) {
                hits += fs::read(entry.path()).map_or(0, |bytes| occurrences(&bytes, marker));
            }
        }
    }
    hits
}

/// In every file system in memory that any process has mounted, each once; only files that changed since: others cannot be of the drill.
fn hits_in_memory(marker: &str, since: SystemTime) -> (usize, usize) {
    let (mut seen, mut hits) = (HashSet::new(), 0);
    let pids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().into_string().ok())
        .filter(|n| n.bytes().all(|b| b.is_ascii_digit()));
    for pid in pids {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        for line in mounts.lines().filter(|l| l.contains(" - tmpfs ") || l.contains(" - ramfs ") || l.contains(" - devtmpfs ")) {
            let fields: Vec<&str> = line.split(' ').collect();
            let point = PathBuf::from(format!("/proc/{pid}/root{}", fields[4]));
            if fs::metadata(&point).is_ok() && seen.insert((fields[2].to_owned(), fields[3].to_owned())) {
                hits += hits_below(&point, marker, Some(since));
            }
        }
    }
    (seen.len(), hits)
}

/// A home whose sealed set is full of a marker that stands nowhere else, and a scenario that looks at it and then waits.
struct Stage {
    // first, as a home with something mounted in it cannot be removed
    disk: Disk,
    home: Home,
    scenario: PathBuf,
    marker: String,
    asleep: String,
    begun: SystemTime,
}

static STAGES: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

impl Stage {
    fn set(kind: &str, needs_path: NeedsPath, waits: bool) -> Stage {
        let n = STAGES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let home = Home::new();
        let disk = Disk::below(&home);
        let marker = format!("PATIENT-{}-{n}-MARKER", std::process::id());
        for number in 0..60 {
            let line = format!("{marker} was seen on day {number} by doctor {}\n", number * 7);
            home.write(&format!("tree/{marker}/{number}.txt"), line.repeat(4_000));
        }
        home.fire(&["seal", "tree", "--to", "backups", "-r", &home.recipient]).exits(0);
        fs::remove_dir_all(home.path("tree")).unwrap();
        let asleep = format!("{}.{n}", 700 + std::process::id());
        let path = if needs_path == NeedsPath::Yes { format!("path = \"{}\"", disk.scratch().display()) } else { String::new() };
        // Where a program inside may leave plaintext, one does.
        let spread = format!(
            "cp -r . /dev/shm/ && cp */1.txt /tmp/ && cp */2.txt /run/ && cat */3.txt && {}",
            if waits { format!("sleep {asleep}") } else { "true".to_owned() }
        );
        let scenario = home.sealed_scenario(&format!(
            "[sandbox]\nmemory = \"256MiB\"\n[sandbox.scratch]\nkind = \"{kind}\"\nsize = \"64MiB\"\n{path}\n\
             [[check]]\nkind = \"command\"\ncommand = [\"bash\", \"-c\", \"{spread}\"]"
        ));
        Stage { home, disk, scenario, marker, asleep, begun: SystemTime::now() }
    }

    fn start(&self) -> Child {
        self.home.start(&["run", self.scenario.to_str().unwrap()])
    }

    /// The journal of the drill in progress, and the phase that it is in.
    fn phase(&self) -> Option<String> {
        let journals = fs::read_dir(self.home.path("state/drills")).into_iter().flatten().filter_map(Result::ok);
        let journal = journals.map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "jsonl"))?;
        let text = fs::read_to_string(journal).ok()?;
        // Its verdict is told: what is killed now has only its evidence left to seal.
        if text.contains("\"finished\"") {
            return Some("finished".to_owned());
        }
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.rev().find_map(|event| find_phase(&event))
    }

    /// Stops the runner in this phase, looks whether it is still in it, and only then kills it; `false` where it was too late.
    fn kill_in(&self, runner: &mut Child, phase: &str, patience: Duration) -> bool {
        let begin = Instant::now();
        loop {
            assert!(begin.elapsed() < Duration::from_secs(60), "{phase} never came");
            match self.phase() {
                Some(now) if now == phase => break,
                _ if runner.try_wait().unwrap().is_some() => return false,
                _ => std::thread::yield_now(),
            }
        }
        if phase == "verify" {
            wait_until("the check sleeps", || !processes_with(&format!("sleep {}", self.asleep)).is_empty());
        }
        std::thread::sleep(patience);
        kill_process(Pid::from_child(runner), Signal::STOP).unwrap();
        let still = self.phase().as_deref() == Some(phase);
        kill_process(Pid::from_child(runner), Signal::KILL).unwrap();
        runner.wait().unwrap();
        still
    }

    /// Processes and mounts die with the runner, without anybody's help.
    fn everything_dies(&self) {
        wait_until("everything inside has died with the runner", || {
            processes_with(&format!("sleep {}", self.asleep)).is_empty() && self.helpers().is_empty()
        });
        wait_until("every mount is gone", || self.drills().iter().all(|d| mounts_with(&format!("firedrill-{d}")) == 0));
    }

    fn helpers(&self) -> Vec<String> {
        self.drills().iter().flat_map(|d| processes_with(&format!("__sandbox firedrill-{d}"))).collect()
    }

    fn drills(&self) -> Vec<String> {
        let names =
            fs::read_dir(self.home.path("state/drills")).into_iter().flatten().filter_map(|e| e.ok()?.file_name().into_string().ok());
        names.filter_map(|n| n.strip_suffix(".jsonl").map(str::to_owned)).collect()
    }

    fn no_plaintext(&self, when: &str) {
        let (searched, in_memory) = hits_in_memory(&self.marker, self.begun);
        assert!(searched > 0, "no memory was searched");
        assert_eq!(in_memory, 0, "{when}: in memory");
        assert_eq!(self.disk.hits_in_files(&self.marker), 0, "{when}: in files");
    }

    /// `reap` closes the drill as inconclusive and leaves nothing.
    fn reaped(&self, when: &str) {
        self.home.fire(&["reap"]).exits(0);
        self.no_plaintext(when);
        for folder in ["state/sandboxes", "state/drills", "disk/scratch"] {
            let left: Vec<_> = fs::read_dir(self.home.path(folder)).into_iter().flatten().map(|e| e.unwrap().path()).collect();
            assert!(left.is_empty(), "{when}: {left:?}");
        }
        let evidence = self.home.evidence();
        assert_eq!(evidence.len(), 1, "{when}");
        assert_eq!(self.home.look_at(&evidence[0])["verdict"], "INCONCLUSIVE", "{when}");
        assert!(self.home.fire(&["reap"]).exits(0).stdout.contains("nothing was left"), "{when}");
    }
}

fn find_phase(event: &Value) -> Option<String> {
    match event {
        Value::Object(fields) => match fields.get("phase") {
            Some(Value::String(phase)) => Some(phase.clone()),
            _ => fields.values().find_map(find_phase),
        },
        _ => None,
    }
}

fn mounts_with(mark: &str) -> usize {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().into_string().ok());
    pids.filter(|p| fs::read_to_string(format!("/proc/{p}/mountinfo")).is_ok_and(|m| m.contains(mark))).count()
}

/// Kills runners until one was caught in the phase: short phases are missed now and then.
fn killed_in(kind: &str, needs_path: NeedsPath, phase: &str) -> Stage {
    for attempt in 0..40 {
        let stage = Stage::set(kind, needs_path, phase == "verify");
        let mut runner = stage.start();
        // Somewhere within the phase, not always at its first step.
        let patience = Duration::from_millis(match phase {
            "restore" | "teardown" => [12, 4, 1, 0][attempt % 4],
            _ => 0,
        });
        if stage.kill_in(&mut runner, phase, patience) {
            return stage;
        }
        let _ = stage.home.fire(&["reap"]);
    }
    panic!("no runner was caught in {phase}");
}

fn after_kill_9_in(phases: &[&str], kind: &str) {
    let &(_, needs_path, plaintext) = KINDS.iter().find(|(k, ..)| *k == kind).unwrap();
    for phase in phases {
        let when = format!("{kind}, killed in {phase}");
        let stage = killed_in(kind, needs_path, phase);
        stage.everything_dies();
        match plaintext {
            Plaintext::Nowhere => {
                stage.no_plaintext(&when);
                assert_eq!(stage.disk.hits(&stage.marker), 0, "{when}: on the raw device");
            }
            // The search finds what is there: else the zeros above would say nothing.
            Plaintext::UntilReaped if *phase == "verify" => {
                assert!(stage.disk.hits_in_files(&stage.marker) > 1_000, "{when}: a directory survives, that is its weakness");
                assert!(stage.disk.image.is_none() || stage.disk.hits(&stage.marker) > 1_000, "{when}: the raw device is searched");
            }
            Plaintext::UntilReaped => {}
        }
        stage.reaped(&when);
    }
}

#[test]
fn every_kind_of_scratch_and_every_phase_is_in_the_matrix() {
    let all = ["provision", "locate", "preflight", "restore", "ready", "verify", "teardown"];
    // `ready` holds no step of its own: the drill is usable, and the checks begin.
    assert!(all.iter().filter(|p| **p != "ready").all(|p| PHASES.contains(p)));
    assert!(KINDS.iter().any(|(_, _, p)| *p == Plaintext::Nowhere) && KINDS.len() >= 2);
}

/// Ends the runner as a panic that aborts, a crash, or another program would.
#[test]
fn a_runner_that_aborts_or_crashes_leaves_what_a_killed_one_leaves() {
    for (signal, kind, needs_path) in
        [(Signal::ABORT, "tmpfs", NeedsPath::No), (Signal::SEGV, "directory", NeedsPath::Yes), (Signal::QUIT, "tmpfs", NeedsPath::No)]
    {
        let stage = Stage::set(kind, needs_path, true);
        let mut runner = stage.start();
        wait_until("the check sleeps", || !processes_with(&format!("sleep {}", stage.asleep)).is_empty());
        kill_process(Pid::from_child(&runner), signal).unwrap();
        assert!(!runner.wait().unwrap().success());
        stage.everything_dies();
        if kind == "tmpfs" {
            stage.no_plaintext("aborted");
            assert_eq!(stage.disk.hits(&stage.marker), 0, "aborted: on the raw device");
        }
        stage.reaped("aborted");
    }
}

#[test]
fn ctrl_c_twice_still_destroys_the_sandbox() {
    for (first, second) in [(Signal::INT, Signal::INT), (Signal::INT, Signal::TERM), (Signal::TERM, Signal::KILL)] {
        let stage = Stage::set("directory", NeedsPath::Yes, true);
        let runner = stage.start();
        wait_until("the check sleeps", || !processes_with(&format!("sleep {}", stage.asleep)).is_empty());
        kill_process(Pid::from_child(&runner), first).unwrap();
        std::thread::sleep(Duration::from_millis(3));
        let _ = kill_process(Pid::from_child(&runner), second);
        let said = said(runner.wait_with_output().unwrap());
        wait_until("everything inside has died", || processes_with(&format!("sleep {}", stage.asleep)).is_empty());
        if second == Signal::KILL {
            let _ = stage.home.fire(&["reap"]);
        } else {
            assert_ne!(said.code, 0, "{}", said.stderr);
        }
        // Where the second one ended the runner at once, the next start tidies up; either way the drill is closed.
        stage.home.fire(&["reap"]).exits(0);
        stage.no_plaintext("twice");
        let evidence = stage.home.evidence();
        assert_eq!(stage.home.look_at(&evidence[0])["verdict"], "INCONCLUSIVE");
    }
}

#[test]
fn a_disk_that_fills_up_during_a_drill_ends_it_and_leaves_no_plaintext() {
    let stage = Stage::set("tmpfs", NeedsPath::No, true);
    if stage.disk.image.is_none() {
        println!("no loop device here: a disk that fills up during a drill was NOT tried");
        return;
    }
    let runner = stage.start();
    wait_until("the check sleeps", || !processes_with(&format!("sleep {}", stage.asleep)).is_empty());
    let fill = stage.disk.place.join("fill");
    let _ = Command::new("dd").args(["if=/dev/zero", "bs=64k", &format!("of={}", fill.display())]).stderr(Stdio::null()).status();
    assert!(fs::write(stage.disk.place.join("more"), vec![0; 1 << 16]).is_err(), "the disk is full");
    kill_process(Pid::from_child(&runner), Signal::INT).unwrap();
    let said = said(runner.wait_with_output().unwrap());
    assert!(said.code != 0 && said.stderr.to_lowercase().contains("no space"), "{}", said.stderr);
    stage.everything_dies();
    stage.no_plaintext("the disk is full");
    assert_eq!(stage.disk.hits(&stage.marker), 0, "the disk is full: on the raw device");
    fs::remove_file(&fill).unwrap();
    let _ = fs::remove_file(stage.disk.place.join("more"));
    stage.reaped("there is room again");
}

#[test]
fn a_disk_that_is_full_already_ends_the_drill_and_leaves_no_plaintext() {
    for full in ["state", "evidence"] {
        let stage = Stage::set("tmpfs", NeedsPath::No, false);
        let small = stage.home.path("small");
        fs::create_dir(&small).unwrap();
        if !is_root() {
            println!("a disk cannot be filled without the right to mount one: {full} on a full disk was NOT tried");
            return;
        }
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k,nr_inodes=64", "none"]).arg(&small).status().unwrap();
        assert!(mounted.success());
        fs::remove_file(stage.home.path(full)).unwrap();
        std::os::unix::fs::symlink(&small, stage.home.path(full)).unwrap();
        fs::create_dir(small.join("drills")).unwrap();
        // All but a few bytes: making directories works, writing does not.
        let _ = Command::new("bash").args(["-c", "head -c 1M /dev/zero > fill"]).current_dir(&small).status();
        let said = said(stage.start().wait_with_output().unwrap());
        let told = said.stderr.to_lowercase();
        let unmounted = Command::new("umount").arg("-l").arg(&small).status().unwrap();
        assert!(unmounted.success());
        assert!(said.code != 0, "{full}: {}", said.stdout);
        assert!(told.contains("no space") || told.contains("storage full") || told.contains("full"), "{full}: {told}");
        wait_until("everything inside has died", || stage.helpers().is_empty());
        stage.no_plaintext(full);
        assert_eq!(stage.disk.hits(&stage.marker), 0, "{full}: on the raw device");
        assert!(!holds(said.stdout.as_bytes(), stage.marker.as_bytes()) && !holds(said.stderr.as_bytes(), stage.marker.as_bytes()));
    }
}
