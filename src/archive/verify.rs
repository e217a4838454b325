//! Reading the archive as a stranger would: everything is fetched and verified, and its lock is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{Archive, ArchiveError, Archived, Kept, Safe};
use crate::domain::{DrillId, LockState, LockedBucket, ScenarioName, Timestamp, keep_until};
use crate::evidence::{Attestation, Refusal, TrustFile, names, verify};
use crate::storage::{Environment, Now, StorageError};

/// Evidence in the archive, or what should be.
#[derive(Debug)]
pub struct ArchivedEvidence {
    /// Its folder, as `s3://bucket/prefix/scenario/drill/`.
    pub url: String,
    /// Which drill's.
    pub drill: DrillId,
    /// What it says, once everything was recomputed.
    pub result: Result<Attestation, NotKept>,
    /// Until when all of it is locked.
    pub locked_until: Option<Timestamp>,
}

/// Why archived evidence does not count.
#[derive(Debug, thiserror::Error)]
pub enum NotKept {
    /// It was archived, and is not there.
    #[error("{name} was archived and is gone from the bucket")]
    Gone {
        /// Which file.
        name: String,
    },
    /// It was archived, and is another one.
    #[error("{name} is not the one that was archived")]
    Changed {
        /// Which file.
        name: String,
    },
    /// It does not verify.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is not locked as it must be.
    #[error("{name} is not locked until {}: {found}", until.to_human())]
    NotLocked {
        /// Which file.
        name: String,
        /// Until when it must be.
        until: Timestamp,
        /// What the server says.
        found: String,
    },
}

/// Fetches everything that the register names, and everything else that lies in the bucket, and verifies it. Files are put below
/// `scratch` one drill after the other, and removed.
///
/// # Errors
/// [`ArchiveError`] where the bucket could not be asked: nothing was learned then.
pub async fn verify_archive(
    archive: &Archive,
    environment: &Environment,
    now: Now,
    trust: &TrustFile,
    scratch: &Path,
) -> Result<Vec<ArchivedEvidence>, ArchiveError> {
    let safe = Safe::open(archive.place(), environment, now).await?;
    let (url, named) = (archive.place().url(), archive.place().to_string());
    let mut known: BTreeMap<String, Archived> = BTreeMap::new();
    for line in archive.register().all()?.into_iter().filter(|line| line.place == named) {
        known.insert(format!("{}/{}", line.scenario, line.drill), line);
    }
    // `<scenario>/<drill>/<file>`; whatever lies there otherwise is somebody else's
    let mut there: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in safe.list("").await? {
        let Some((folder, file)) = name.rsplit_once('/') else { continue };
        if folder.split_once('/').is_some_and(|(scenario, drill)| scenario.parse::<ScenarioName>().is_ok() && !drill.contains('/')) {
            there.entry(folder.to_owned()).or_default().push(file.to_owned());
        }
    }
    let folders: BTreeSet<String> = known.keys().chain(there.keys()).cloned().collect();
    let mut found = Vec::new();
    for folder in folders {
        let drill = folder.rsplit_once('/').map_or(folder.as_str(), |(_, drill)| drill).to_owned();
        let place = scratch.join(&drill);
        let files = match known.get(&folder) {
            Some(line) => line.files.clone(),
            None => there[&folder].iter().map(|file| unknown(&folder, file)).collect(),
        };
        let fetched = fetch(&safe, &files, &place, known.contains_key(&folder)).await?;
        let judged = match fetched {
            Ok(versions) => {
                let recorded = known.get(&folder).map(|line| line.keep_until);
                judge(&safe, archive.place(), recorded, &versions, &place, trust).await?
            }
            Err(why) => Err(why),
        };
        let _ = fs::remove_dir_all(&place);
        let (result, locked_until) = match judged {
            Ok((attestation, until)) => (Ok(attestation), Some(until)),
            Err(why) => (Err(why), None),
        };
        found.push(ArchivedEvidence { url: format!("{url}{folder}/"), drill: DrillId(drill), result, locked_until });
    }
    Ok(found)
}

/// An object that no register names: its latest version is looked at.
fn unknown(folder: &str, file: &str) -> Kept {
    Kept { name: format!("{folder}/{file}"), version: None, size: 0, sha256: crate::evidence::sha256(b"") }
}

/// Fetches files into `place`; names and versions of what was fetched.
async fn fetch(
    safe: &Safe,
    files: &[Kept],
    place: &Path,
    digests_known: bool,
) -> Result<Result<Vec<(String, Option<String>)>, NotKept>, ArchiveError> {
    let local = |source| ArchiveError::Local { path: place.to_owned(), source };
    super::outbox::private_directory(place).map_err(local)?;
    let mut versions = Vec::new();
    for file in files {
        let (version, bytes) = match safe.read(&file.name, file.version.as_deref()).await {
            Ok(read) => read,
            Err(StorageError::NoSuchObject) => return Ok(Err(NotKept::Gone { name: file.name.clone() })),
            Err(other) => return Err(other.into()),
        };
        if digests_known && crate::evidence::sha256(&bytes) != file.sha256 {
            return Ok(Err(NotKept::Changed { name: file.name.clone() }));
        }
        let plain = file.name.rsplit_once('/').map_or(file.name.as_str(), |(_, plain)| plain);
        fs::write(place.join(plain), &bytes).map_err(local)?;
        versions.push((file.name.clone(), version));
    }
    Ok(Ok(versions))
}

/// Verifies what was fetched, and asks for the lock of each file.
async fn judge(
    safe: &Safe,
    bucket: &LockedBucket,
    recorded: Option<Timestamp>,
    versions: &[(String, Option<String>)],
    place: &Path,
    trust: &TrustFile,
) -> Result<Result<(Attestation, Timestamp), NotKept>, ArchiveError> {
    let attestation = match verify(&[place.to_owned()], trust).pop() {
        Some(Ok(attestation)) => attestation,
        Some(Err(refused)) => return Ok(Err(refused.why.into())),
        None => return Ok(Err(Refusal::Missing { file: names::SUMS.to_owned() }.into())),
    };
    let report = attestation.report();
    let plan_ends = report.plan.plan.as_ref().and_then(|plan| plan.until);
    let must = recorded.unwrap_or_else(|| keep_until(report.finished_at, plan_ends, bucket.retention));
    let mut earliest = None;
    for (name, version) in versions {
        let found = match safe.lock_of(name, version.as_deref()).await? {
            LockState::Locked { mode, until } if mode >= bucket.mode && until.seconds_since(must) >= 0 => {
                earliest = Some(earliest.map_or(until, |other: Timestamp| other.min(until)));
                continue;
            }
            LockState::Locked { mode, until } => format!("it is locked in {mode} mode until {}", until.to_human()),
            LockState::NotLocked => "it is not locked at all".to_owned(),
            LockState::Unknown { reason } => reason,
        };
        return Ok(Err(NotKept::NotLocked { name: name.clone(), until: must, found }));
    }
    Ok(Ok((attestation, earliest.unwrap_or(must))))
}
