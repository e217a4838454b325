//! What is kept outside: all evidence once more, in a bucket that locks it for as long as it must be kept; and anchors of the
//! ledger.
//!
//! Sealed evidence is queued in the state directory before its drill counts as done, and stays queued until every file of it was
//! written, read back whole, compared, and seen to be locked. The local copy stays where it is. A store that cannot be reached,
//! refuses or lies delays that, for a week or a year, and loses nothing; whatever is found in the evidence store and is neither
//! queued nor archived is queued as well.
//!
//! A drill's files are `<prefix><scenario>/<drill>/<file>`, `SHA256SUMS` the last. Nothing is overwritten: a file that is there
//! already counts as written where it has the same bytes, so that an upload that was cut short goes on where it was.
//!
//! Absent on purpose: no delete, no key that decrypts, no clock.

mod anchors;
mod error;
mod outbox;
mod safe;
pub mod timestamp;
mod verify;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

pub use anchors::{Carried, Ground, LastCarried, carry, kept};
pub use error::{ArchiveError, Why};
pub use outbox::{Attempt, Queued, Register};
pub use safe::{Kept, Safe};
pub use verify::{ArchivedEvidence, NotKept, verify_archive};

use self::outbox::Outbox;
use crate::domain::{DrillId, LockedBucket, ScenarioName, Sha256, Timestamp, keep_until};
use crate::evidence::{Attestation, Sums, TrustFile, names, reports_below, verify};
use crate::storage::{Environment, Now, StorageError};

/// The archive of one evidence store.
#[derive(Debug, Clone)]
pub struct Archive {
    place: LockedBucket,
    store: PathBuf,
    outbox: Outbox,
    register: Register,
    lock: PathBuf,
}

/// Evidence that is in the archive: a line of the register.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Archived {
    /// Which drill's.
    pub drill: DrillId,
    /// Of which scenario.
    pub scenario: ScenarioName,
    /// When the last of it was read back.
    pub at: Timestamp,
    /// The bucket and its server.
    pub place: String,
    /// Until when it is locked at least.
    pub keep_until: Timestamp,
    /// SHA-256 of its `SHA256SUMS`.
    pub sums_sha256: Sha256,
    /// Every file, and which version of it was read back.
    pub files: Vec<Kept>,
}

/// What a round came to.
#[derive(Debug, Default)]
pub struct Pushed {
    /// What is in the archive now and was not before.
    pub archived: Vec<Archived>,
    /// What still waits.
    pub waiting: Vec<Queued>,
    /// The first thing that went wrong.
    pub failure: Option<ArchiveError>,
}

impl Archive {
    /// Of the evidence in `store`; what waits, and what is where, is remembered below `state`.
    pub fn new(place: LockedBucket, store: &Path, state: &Path) -> Self {
        let directory = state.join("archive");
        let (outbox, register) = (Outbox::new(directory.join("queue")), Register::new(directory.join("archived.jsonl")));
        Self { place, store: store.to_owned(), outbox, register, lock: directory.join("lock") }
    }

    /// Where evidence goes.
    pub fn place(&self) -> &LockedBucket {
        &self.place
    }

    /// What was archived.
    pub fn register(&self) -> &Register {
        &self.register
    }

    /// Queues evidence that was sealed. When this returns it is not forgotten any more.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn queue(&self, drill: &DrillId, directory: &Path, now: Timestamp) -> Result<(), ArchiveError> {
        self.outbox.put(&Queued { drill: drill.clone(), directory: directory.to_owned(), queued_at: now, last: None })
    }

    /// Everything that waits, oldest first, with what is in the evidence store and nobody queued.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn waiting(&self, now: Timestamp) -> Result<Vec<Queued>, ArchiveError> {
        let known = self.register.drills(&self.place.to_string())?;
        let queued = self.outbox.all()?;
        if self.store.exists() {
            let unreadable =
                |why: crate::evidence::Refusal| ArchiveError::Local { path: self.store.clone(), source: io::Error::other(why.to_string()) };
            for directory in reports_below(&self.store).map_err(unreadable)? {
                let Some(name) = directory.file_name().and_then(|name| name.to_str()) else { continue };
                let drill = DrillId(name.to_owned());
                let is_new = !known.contains(&drill) && queued.iter().all(|entry| entry.drill != drill);
                if is_new && directory.join(names::SUMS).is_file() {
                    self.queue(&drill, &directory, now)?;
                }
            }
        }
        self.outbox.all()
    }

    /// Tries to archive everything that waits, oldest first. Trouble with one drill's evidence keeps back that one; trouble with the
    /// bucket ends the round.
    ///
    /// # Errors
    /// [`ArchiveError`] where not even the queue can be read; all else is in the answer.
    pub async fn push(&self, environment: &Environment, now: Now, trust: &TrustFile) -> Result<Pushed, ArchiveError> {
        let _held = self.hold().await?;
        let waiting = self.waiting(now())?;
        let mut pushed = Pushed::default();
        if waiting.is_empty() {
            return Ok(pushed);
        }
        let safe = match Safe::open(&self.place, environment, Now::clone(&now)).await {
            Ok(safe) => safe,
            Err(source) => return self.all_failed(waiting, now(), source.into()),
        };
        for entry in waiting {
            match self.carry(&safe, &entry, &now, trust).await {
                Ok(archived) => pushed.archived.push(archived),
                Err(error) => {
                    self.outbox.put(&entry.failed(now(), &error))?;
                    let ends = matches!(error, ArchiveError::Storage(_));
                    pushed.failure.get_or_insert(error);
                    if ends {
                        break;
                    }
                }
            }
        }
        pushed.waiting = self.outbox.all()?;
        Ok(pushed)
    }

    fn all_failed(&self, waiting: Vec<Queued>, now: Timestamp, error: ArchiveError) -> Result<Pushed, ArchiveError> {
        for entry in waiting {
            self.outbox.put(&entry.failed(now, &error))?;
        }
        Ok(Pushed { archived: Vec::new(), waiting: self.outbox.all()?, failure: Some(error) })
    }

    /// Carries one drill's evidence over. What is archived is what verifies: nothing else is locked for years.
    async fn carry(&self, safe: &Safe, entry: &Queued, now: &Now, trust: &TrustFile) -> Result<Archived, ArchiveError> {
        let attestation = verified(&entry.directory, trust)?;
        let report = attestation.report();
        let plan_ends = report.plan.plan.as_ref().and_then(|plan| plan.until);
        let until = keep_until(report.finished_at, plan_ends, self.place.retention);
        let folder = format!("{}/{}/", report.plan.scenario, report.report_id);
        let mut files = Vec::new();
        for (name, bytes) in files_of(&entry.directory, &attestation)? {
            files.push(safe.keep(&format!("{folder}{name}"), bytes, until).await?);
        }
        let archived = Archived {
            drill: entry.drill.clone(),
            scenario: report.plan.scenario.clone(),
            at: now(),
            place: self.place.to_string(),
            keep_until: until,
            sums_sha256: *attestation.sums(),
            files,
        };
        self.register.append(&archived)?;
        self.outbox.remove(&entry.drill)?;
        Ok(archived)
    }

    /// One process at a time: two would write the same names.
    async fn hold(&self) -> Result<File, ArchiveError> {
        let path = self.lock.clone();
        let local = |source| ArchiveError::Local { path: self.lock.clone(), source };
        let wait = move || {
            outbox::private_directory(path.parent().unwrap_or(Path::new(".")))?;
            let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            file.lock().map(|()| file)
        };
        tokio::task::spawn_blocking(wait).await.map_err(|e| local(io::Error::other(e)))?.map_err(local)
    }
}

fn verified(directory: &Path, trust: &TrustFile) -> Result<Attestation, ArchiveError> {
    let unfit = |why: String| ArchiveError::Unfit { directory: directory.to_owned(), why };
    let result = verify(&[directory.to_owned()], trust).pop().ok_or_else(|| unfit("it is gone".to_owned()))?;
    result.map_err(|refused| unfit(refused.why.to_string()))
}

/// The files of evidence that was verified, read once more and held to the sums that were signed; the sums last.
fn files_of(directory: &Path, attestation: &Attestation) -> Result<Vec<(String, Bytes)>, ArchiveError> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read(&path).map(Bytes::from).map_err(|source| ArchiveError::Local { path, source })
    };
    let changed = |name: &str| ArchiveError::Unfit { directory: directory.to_owned(), why: format!("{name} changed meanwhile") };
    let sums = read(names::SUMS)?;
    if crate::evidence::sha256(&sums) != *attestation.sums() {
        return Err(changed(names::SUMS));
    }
    let mut files = Vec::new();
    for (name, digest) in Sums::parse(&sums).map_err(|_| changed(names::SUMS))?.0 {
        let bytes = read(&name)?;
        if crate::evidence::sha256(&bytes) != digest {
            return Err(changed(&name));
        }
        files.push((name, bytes));
    }
    files.push((names::SUMS_SIGNATURE.to_owned(), read(names::SUMS_SIGNATURE)?));
    files.push((names::SUMS.to_owned(), sums));
    Ok(files)
}

impl From<StorageError> for ArchiveError {
    fn from(source: StorageError) -> Self {
        ArchiveError::Storage(source)
    }
}
