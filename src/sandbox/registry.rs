//! What a sandbox leaves outside of its namespaces, written down before it is made, so that the next start can reap it.
//!
//! `<state>/<drill id>.lock` is locked while the runner lives; the kernel lets go of it however the runner ends.
//! `<state>/<drill id>.json` says what there is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::cgroup;
use super::error::{SandboxError, Step};
use super::fscrypt::{self, KeyId};
use super::loops::LoopRef;
use super::scratch::{self, Removal};
use super::volume;
use crate::domain::{DrillId, Timestamp};

/// Everything of one sandbox that a crash could leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub version: u32,
    pub drill: DrillId,
    pub cgroups: Vec<PathBuf>,
    /// Parent of the scratch directory.
    pub scratch_parent: Option<PathBuf>,
    /// Loop devices of an encrypted volume.
    #[serde(default)]
    pub loops: Vec<LoopRef>,
    /// The key of an encrypted scratch directory: its name, not the key.
    #[serde(default)]
    pub key: Option<KeyId>,
    pub monitor: Option<ProcessRef>,
}

/// A process, told from a later one of the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessRef {
    pub pid: i32,
    pub started: u64,
}

impl ProcessRef {
    pub fn of(pid: i32) -> Option<ProcessRef> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name, in parentheses, may hold anything; start time is field 22, the 20th after it.
        let started = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
        Some(ProcessRef { pid, started })
    }
}

/// The right to a drill's sandbox, and its record. Dropping it keeps the record for reaping.
#[derive(Debug)]
pub(super) struct Claim {
    _lock: File,
    lock_path: PathBuf,
    record_path: PathBuf,
    pub record: Record,
}

impl Claim {
    /// Takes the lock and writes the record, before anything is made.
    pub fn take(state_dir: &Path, record: Record) -> Result<Claim, SandboxError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir).step("make the state directory")?;
        let lock_path = state_dir.join(format!("{}.lock", record.drill));
        let record_path = state_dir.join(format!("{}.json", record.drill));
        let Some(lock) = try_lock(&lock_path).step("lock the sandbox's record")? else {
            return Err(SandboxError::Busy { drill: record.drill });
        };
        if record_path.exists() {
            let what = "its drill has leftovers of a crash; reap first".to_owned();
            return Err(SandboxError::Spec { what });
        }
        let claim = Claim { _lock: lock, lock_path, record_path, record };
        claim.write().step("write the sandbox's record")?;
        Ok(claim)
    }

    /// Adds the monitor.
    pub fn note_monitor(&mut self, monitor: Option<ProcessRef>) -> Result<(), SandboxError> {
        self.record.monitor = monitor;
        self.write().step("write the sandbox's record")
    }

    /// Adds the loop devices.
    pub fn note_loops(&mut self, used: Vec<LoopRef>) -> Result<(), SandboxError> {
        self.record.loops = used;
        self.write().step("write the sandbox's record")
    }

    /// Adds a key.
    pub fn note_key(&mut self, key: KeyId) -> Result<(), SandboxError> {
        self.record.key = Some(key);
        self.write().step("write the sandbox's record")
    }

    fn write(&self) -> io::Result<()> {
        let temporary = self.record_path.with_extension("tmp");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(&self.record)?)?;
        // Groups and processes are gone when the machine stops: only of what lies on a disk must the record be there first.
        if self.record.scratch_parent.is_some() {
            file.sync_all()?;
        }
        fs::rename(&temporary, &self.record_path)
    }

    /// Nothing is left: the record goes, then the lock.
    pub fn release(self) {
        let _ = fs::remove_file(&self.record_path);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Locks a file that may be unlinked by whoever held it before; `None` where somebody holds it.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        let locked = file.metadata()?;
        match fs::symlink_metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (locked.dev(), locked.ino()) => return Ok(Some(file)),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
}

/// What was found of a lost sandbox, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaped {
    /// The drill that it belonged to.
    pub drill: DrillId,
    /// What was there and is gone, in our words.
    pub what: Vec<String>,
    /// What could not be destroyed, in our words; the record is kept for the next attempt then.
    pub left: Vec<String>,
    /// When.
    pub when: Timestamp,
}

/// Destroys what sandboxes left whose runners are gone; never anything of a runner that lives, and nothing without our label.
///
/// # Errors
/// Where the state directory cannot be read. One sandbox that resists does not stop the others.
pub fn reap(state_dir: &Path, now: Timestamp) -> Result<Vec<Reaped>, SandboxError> {
    Ok(registered(state_dir)?.into_iter().filter_map(|drill| reap_one(state_dir, drill, now)).collect())
}

fn registered(state_dir: &Path) -> Result<Vec<DrillId>, SandboxError> {
    let mut drills: Vec<DrillId> = match fs::read_dir(state_dir) {
        Ok(entries) => entries.filter_map(|e| drill_of(&e.ok()?.path())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(SandboxError::Io { step: "read the state directory", source }),
    };
    drills.sort();
    drills.dedup();
    Ok(drills)
}

/// Sandboxes that wait to be reaped: registered, and nobody holds their lock. Changes nothing.
pub(super) fn leftovers(state_dir: &Path) -> Result<Vec<DrillId>, SandboxError> {
    let mut drills = registered(state_dir)?;
    drills.retain(|drill| {
        let lock =
            OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(state_dir.join(format!("{drill}.lock")));
        let held = lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared).is_err());
        !held && state_dir.join(format!("{drill}.json")).exists()
    });
    Ok(drills)
}

fn drill_of(path: &Path) -> Option<DrillId> {
    let ours = path.extension().is_some_and(|e| e == "lock" || e == "json");
    let stem = path.file_stem()?.to_str()?;
    (ours && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')).then(|| DrillId(stem.to_owned()))
}

fn reap_one(state_dir: &Path, drill: DrillId, now: Timestamp) -> Option<Reaped> {
    let lock_path = state_dir.join(format!("{drill}.lock"));
    let record_path = state_dir.join(format!("{drill}.json"));
    let mut reaped = Reaped { drill: drill.clone(), what: Vec::new(), left: Vec::new(), when: now };
    let lock = match try_lock(&lock_path) {
        Ok(Some(lock)) => lock,
        Ok(None) => return None,
        Err(e) => {
            reaped.left.push(format!("a record that cannot be locked ({})", e.kind()));
            return Some(reaped);
        }
    };
    match fs::read(&record_path) {
        // Not on the disk yet when the power went: a record of what the power took with it, or it would have been synced.
        Ok(bytes) if bytes.is_empty() => reaped.what.push("a record that was never written out, of what ended with the machine".to_owned()),
        Ok(bytes) => match serde_json::from_slice::<Record>(&bytes) {
            Ok(record) if record.version == 1 && record.drill == drill => destroy(&record, &mut reaped),
            _ => reaped.left.push("a record that this version cannot read".to_owned()),
        },
        // A runner that died between lock and record had made nothing yet.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let _ = fs::remove_file(record_path.with_extension("tmp"));
            let _ = fs::remove_file(&lock_path);
            return None;
        }
        Err(e) => reaped.left.push(format!("a record that cannot be read ({})", e.kind())),
    }
    if reaped.left.is_empty() {
        let _ = fs::remove_file(&record_path);
        let _ = fs::remove_file(record_path.with_extension("tmp"));
        let _ = fs::remove_file(&lock_path);
    }
    drop(lock);
    Some(reaped)
}

fn destroy(record: &Record, reaped: &mut Reaped) {
    reaped.what.push("the record of a sandbox whose runner is gone".to_owned());
    if let Some(monitor) = record.monitor
        && kill_same(monitor)
    {
        reaped.what.push("processes that were still running".to_owned());
    }
    let label = scratch::label(&record.drill);
    for group in &record.cgroups {
        // A record could have been tampered with; what does not look like ours is not touched.
        if group.file_name().is_none_or(|n| n != label.as_str()) || !group.starts_with("/sys/fs/cgroup") {
            reaped.left.push("a control group that does not bear our label".to_owned());
        } else if group.exists() {
            if cgroup::kill_and_remove(group) {
                reaped.what.push("a control group".to_owned());
            } else {
                reaped.left.push("a control group".to_owned());
            }
        }
    }
    reap_encrypted(record, reaped);
    if let Some(parent) = &record.scratch_parent {
        match scratch::remove_labelled(parent, &record.drill) {
            Ok(Removal::Absent) => {}
            Ok(Removal::Removed(entries)) => reaped.what.push(format!("a scratch directory with {entries} entries")),
            Ok(Removal::NotOurs) => reaped.left.push("a directory in the scratch's place that does not bear our label".to_owned()),
            Ok(Removal::Blocked) => reaped.left.push("a scratch directory with something else mounted in it".to_owned()),
            Err(e) => reaped.left.push(format!("a scratch directory that could not be removed ({})", e.kind())),
        }
    }
}

/// An encrypted volume goes with its runner; a key that an ordinary user gave to the kernel does not.
fn reap_encrypted(record: &Record, reaped: &mut Reaped) {
    const PATIENCE: Duration = Duration::from_secs(5);
    // The inner one first: it holds the other. Each clears itself when its last user goes.
    let mut patience = PATIENCE;
    for used in record.loops.iter().rev() {
        if !used.is_gone_within(patience) {
            reaped.left.push(format!("/dev/loop{}, of an encrypted volume: something else has it open", used.number));
            patience = Duration::ZERO;
        }
    }
    if !record.loops.is_empty() && patience == PATIENCE {
        reaped.what.push("an encrypted volume, whose key and image went with its runner".to_owned());
    }
    if let (Some(key), Some(parent)) = (&record.key, &record.scratch_parent) {
        let Ok(directory) = fs::File::open(parent) else { return };
        match fscrypt::is_absent(&directory, key) {
            Ok(true) => {}
            _ if volume::erase(&directory, key, PATIENCE) => reaped.what.push("the key of an encrypted scratch directory".to_owned()),
            _ => reaped.left.push("the key of an encrypted scratch directory".to_owned()),
        }
    }
}

/// Kills the process if it is still the same one, and waits until it is gone.
fn kill_same(process: ProcessRef) -> bool {
    let Some(pid) = Pid::from_raw(process.pid) else { return false };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    // The descriptor pins the process: what is read now is about the one that will be signalled.
    if ProcessRef::of(process.pid) != Some(process) {
        return false;
    }
    let killed = pidfd_send_signal(&pidfd, Signal::KILL).is_ok();
    let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let _ = rustix::event::poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 5, tv_nsec: 0 }));
    killed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record {
            version: 1,
            drill: DrillId(id.to_owned()),
            cgroups: Vec::new(),
            scratch_parent: None,
            loops: Vec::new(),
            key: None,
            monitor: None,
        }
    }
    fn now() -> Timestamp {
        Timestamp::from_unix(1_790_000_000)
    }

    #[test]
    fn a_living_runners_sandbox_is_not_reaped_and_a_dead_ones_is() {
        let state = tempfile::tempdir().unwrap();
        let claim = Claim::take(state.path(), record("aa")).unwrap();
        assert!(matches!(Claim::take(state.path(), record("aa")), Err(SandboxError::Busy { .. })));
        assert_eq!(reap(state.path(), now()).unwrap(), []);
        assert_eq!(leftovers(state.path()).unwrap(), []);
        drop(claim);
        assert_eq!(leftovers(state.path()).unwrap(), [DrillId("aa".to_owned())]);
        let reaped = reap(state.path(), now()).unwrap();
        assert_eq!(reaped.len(), 1);
        assert_eq!((reaped[0].drill.0.as_str(), reaped[0].left.len(), reaped[0].when), ("aa", 0, now()));
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_record_that_a_power_cut_left_empty_is_cleared_and_a_broken_one_is_kept() {
        let state = tempfile::tempdir().unwrap();
        drop(Claim::take(state.path(), record("aa")).unwrap());
        drop(Claim::take(state.path(), record("bb")).unwrap());
        fs::write(state.path().join("aa.json"), "").unwrap();
        fs::write(state.path().join("bb.json"), "{").unwrap();
        let reaped = reap(state.path(), now()).unwrap();
        let left: Vec<usize> = reaped.iter().map(|r| r.left.len()).collect();
        assert_eq!(left, [0, 1]);
        assert!(!state.path().join("aa.json").exists() && state.path().join("bb.json").exists());
    }

    #[test]
    fn a_record_that_was_being_written_when_its_runner_died_is_cleared() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join("aa.lock"), "").unwrap();
        fs::write(state.path().join("aa.tmp"), "{\"version\"").unwrap();
        assert_eq!(reap(state.path(), now()).unwrap(), []);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_released_claim_leaves_nothing() {
        let state = tempfile::tempdir().unwrap();
        Claim::take(state.path(), record("aa")).unwrap().release();
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
        assert_eq!(reap(&state.path().join("absent"), now()).unwrap(), []);
    }

    #[test]
    fn a_record_that_names_something_else_touches_nothing() {
        let state = tempfile::tempdir().unwrap();
        let victim = tempfile::tempdir().unwrap();
        fs::write(victim.path().join("file"), "stays").unwrap();
        let mut bad = record("aa");
        bad.cgroups.push(victim.path().to_owned());
        bad.scratch_parent = victim.path().parent().map(Path::to_owned);
        // Our own process under another start time: a later one of the same number.
        bad.monitor = Some(ProcessRef { pid: std::process::id() as i32, started: 1 });
        drop(Claim::take(state.path(), bad).unwrap());
        let reaped = reap(state.path(), now()).unwrap();
        assert_eq!(reaped[0].left, ["a control group that does not bear our label"]);
        assert!(victim.path().join("file").exists());
        assert!(state.path().join("aa.json").exists(), "kept for the next attempt");
    }

    #[test]
    fn a_foreign_directory_in_the_scratchs_place_is_left_and_said() {
        let state = tempfile::tempdir().unwrap();
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("firedrill-aa")).unwrap();
        fs::write(home.path().join("firedrill-aa/theirs"), "stays").unwrap();
        let mut lost = record("aa");
        lost.scratch_parent = Some(fs::canonicalize(home.path()).unwrap());
        drop(Claim::take(state.path(), lost).unwrap());
        assert_eq!(reap(state.path(), now()).unwrap()[0].left, ["a directory in the scratch's place that does not bear our label"]);
        assert!(home.path().join("firedrill-aa/theirs").exists());
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let me = std::process::id() as i32;
        assert_eq!(ProcessRef::of(me), ProcessRef::of(me));
        assert!(ProcessRef::of(me).is_some());
        assert!(!kill_same(ProcessRef { pid: me, started: 1 }));
    }
}
