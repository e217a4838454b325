//! Sealing: from the events of a finished drill to its signed directory.

use std::path::{Path, PathBuf};

use super::key::Signer;
use super::report::{Issuer, Report};
use super::statement::{Statement, statement};
use super::sums::Sums;
use super::{EvidenceError, dsse, journal, names, sshsig, store};
use crate::domain::DrillEvent;

/// A drill's evidence, as it was written.
#[derive(Debug, Clone)]
pub struct SealedEvidence {
    /// Its directory.
    pub directory: PathBuf,
    /// The report in it.
    pub report: Report,
    /// What was signed.
    pub statement: Statement,
}

/// Writes the evidence of one drill to `<store>/<year>/<report id>/`, whole or not at all.
///
/// `extra_files` come from rooms above (`report.html`, `annex.age`); their names are plain file names. The scenario itself
/// stays out, as it may name places that are nobody's business: its digests are in the plan, fixed before the drill.
///
/// # Errors
/// Those of [`Report::from_events`]; [`EvidenceError::Signing`]; [`EvidenceError::FileName`];
/// [`EvidenceError::Exists`]; [`EvidenceError::Write`].
pub fn seal_evidence(
    store: &Path,
    events: &[DrillEvent],
    issuer: Issuer,
    signer: &dyn Signer,
    extra_files: Vec<NamedFile>,
) -> Result<SealedEvidence, EvidenceError> {
    let report = Report::from_events(events, issuer)?;
    let id = report.report_id.0.clone();
    if !super::sums::is_file_name(&id) {
        return Err(EvidenceError::FileName { name: id });
    }
    let (files, statement) = sealed_files(&report, events, signer, extra_files)?;
    let year = report.started_at.0.strftime("%Y").to_string();
    let directory = store::write_whole(&store.join(year), &id, &files)?;
    Ok(SealedEvidence { directory, report, statement })
}

/// A file's name and content.
type NamedFile = (String, Vec<u8>);

/// All files of the directory.
fn sealed_files(
    report: &Report,
    events: &[DrillEvent],
    signer: &dyn Signer,
    extra_files: Vec<NamedFile>,
) -> Result<(Vec<NamedFile>, Statement), EvidenceError> {
    let mut files = vec![
        (names::REPORT.to_owned(), report.to_json()),
        (names::EVENTS.to_owned(), journal::journal_bytes(events)?),
        (names::CHECKS.to_owned(), check_lines(report)?),
        (names::SIGNER.to_owned(), signer.public().to_pem().into_bytes()),
    ];
    for (name, bytes) in extra_files {
        if files.iter().any(|(taken, _)| *taken == name) || name == names::ATTESTATION {
            return Err(EvidenceError::FileName { name });
        }
        files.push((name, bytes));
    }
    files.sort();
    let statement = statement(report, &files)?;
    files.push((names::ATTESTATION.to_owned(), dsse::seal(signer, &statement.to_json())?));
    let sums = Sums::of(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())))?.to_text().into_bytes();
    files.push((names::SUMS_SIGNATURE.to_owned(), sshsig::sign(signer, &sums)?.into_bytes()));
    files.push((names::SUMS.to_owned(), sums));
    Ok((files, statement))
}

/// `checks.jsonl`: one check a line, as in the report.
pub(super) fn check_lines(report: &Report) -> Result<Vec<u8>, EvidenceError> {
    let mut bytes = Vec::new();
    for check in &report.checks {
        serde_json::to_writer(&mut bytes, check).map_err(|e| EvidenceError::encode("a check")(e.into()))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}
