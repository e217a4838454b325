//! Verification: recompute everything, then read. An [`Attestation`] comes from here and from nowhere else.
//!
//! In order: the directory holds the listed files and nothing else; the list is signed; the key is trusted; every file has
//! its digest; the envelope is signed by the same key; its subjects are these files and this backup; the events are legal,
//! and the report is what follows from them; the key was valid when the drill ended.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::key::PublicKey;
use super::ledger::{self, Checkpoint, EntryKind, LedgerRefusal, Proof};
use super::report::{REPORT_SCHEMA, Report};
use super::statement::{CONCLUSIVE, Digests, PREDICATE_TYPE, STATEMENT_TYPE, Statement, Subject, chain_subjects, result, whole_chain};
use super::sums::{Sums, sha256};
use super::trust::{Distrust, TrustFile};
use super::{EvidenceError, dsse, journal, names, sshsig};
use crate::domain::{Blake3, CheckReport, DrillEvent, Observations, Sha256, Verdict};

/// No file of evidence is nearly as large; a larger one is refused before it is read.
const LARGEST_FILE: u64 = 256 << 20;
const DEEPEST: usize = 8;

/// Evidence whose every signature, digest and number was checked.
#[derive(Debug, Clone)]
pub struct Attestation {
    directory: PathBuf,
    report: Report,
    events: Vec<DrillEvent>,
    statement: Statement,
    signer: PublicKey,
    principals: String,
    files: usize,
    observations: Observations,
    sums: Sha256,
    entered: Option<Checkpoint>,
}

impl Attestation {
    /// Where it lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
    /// The report.
    pub fn report(&self) -> &Report {
        &self.report
    }
    /// The events that the report follows from.
    pub fn events(&self) -> &[DrillEvent] {
        &self.events
    }
    /// The signed statement.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }
    /// The key that signed.
    pub fn signer(&self) -> &PublicKey {
        &self.signer
    }
    /// Whose key the trust file says that it is.
    pub fn principals(&self) -> &str {
        &self.principals
    }
    /// What its checks observed of databases.
    pub fn observations(&self) -> &Observations {
        &self.observations
    }
    /// SHA-256 of its `SHA256SUMS`: what the ledger knows it by.
    pub fn sums(&self) -> &Sha256 {
        &self.sums
    }
    /// The ledger's checkpoint that covers the drill's start; none in evidence of older versions.
    pub fn entered(&self) -> Option<&Checkpoint> {
        self.entered.as_ref()
    }
    /// How many files were checked.
    pub fn files(&self) -> usize {
        self.files
    }
}

/// Evidence that is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where.
    pub path: PathBuf,
    /// Why.
    pub why: Refusal,
}

/// Why evidence is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No report is here.
    #[error("no evidence is here")]
    NothingHere,
    /// It cannot be read.
    #[error("{file} cannot be read: {reason}")]
    Unreadable {
        /// What.
        file: String,
        /// Why.
        reason: String,
    },
    /// A file that belongs to the evidence is gone.
    #[error("{file} is missing")]
    Missing {
        /// Which.
        file: String,
    },
    /// Something lies here that no signature covers.
    #[error("{file} is here and not listed in SHA256SUMS")]
    Unlisted {
        /// What.
        file: String,
    },
    /// A file is not in its form.
    #[error("{file}: {what}")]
    Malformed {
        /// Which.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// A file is not the one that was signed.
    #[error("{file} was changed: its digest is not the signed one")]
    Digest {
        /// Which.
        file: String,
    },
    /// A signature does not verify.
    #[error("{file}: the signature does not verify")]
    Signature {
        /// Which.
        file: String,
    },
    /// The signature was made for another purpose.
    #[error("the signature was made for `{found}`, not for evidence")]
    Namespace {
        /// Its namespace.
        found: String,
    },
    /// Its place in the ledger is not proven.
    #[error("entered.tlog-proof: {0}")]
    Ledger(#[from] LedgerRefusal),
    /// The key does not count.
    #[error(transparent)]
    Distrusted(#[from] Distrust),
    /// The statement does not speak of what is here.
    #[error("the statement does not match: {what}")]
    Statement {
        /// In what.
        what: String,
    },
    /// The events are no legal drill.
    #[error("the events do not make a drill: {what}")]
    Events {
        /// What is wrong.
        what: String,
    },
    /// The report says something else than its events.
    #[error("the report does not follow from its events: {what} differs")]
    Contradiction {
        /// In what.
        what: String,
    },
}

/// Verifies everything under `paths`: directories of reports, directories of such directories, or files in a report's
/// directory. An empty answer is impossible: where there is no evidence, that is refused.
pub fn verify(paths: &[PathBuf], trust: &TrustFile) -> Vec<Result<Attestation, Refused>> {
    let mut results = Vec::new();
    for path in paths {
        let mut found = Found::default();
        if let Err(why) = find(path, 0, &mut found) {
            results.push(Err(Refused { path: path.clone(), why }));
        }
        for directory in found.reports {
            results.push(verify_one(&directory, trust).map_err(|why| Refused { path: directory, why }));
        }
    }
    results
}

/// Directories of ledgers at or below `paths`. What cannot be read is for [`verify`] to tell.
pub fn ledgers_below(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Found::default();
    for path in paths {
        let _ = find(path, 0, &mut found);
    }
    found.ledgers.sort();
    found.ledgers.dedup();
    found.ledgers
}

/// Directories of reports at or below `path`, oldest first: their ids begin with the time.
///
/// # Errors
/// Where a directory cannot be read. That there are none is no error.
pub fn reports_below(path: &Path) -> Result<Vec<PathBuf>, Refusal> {
    let mut found = Found::default();
    match find(path, 0, &mut found) {
        Ok(()) | Err(Refusal::NothingHere) => Ok(found.reports),
        Err(other) => Err(other),
    }
}

#[derive(Default)]
struct Found {
    reports: Vec<PathBuf>,
    ledgers: Vec<PathBuf>,
}

/// Directories of reports at or below `path`. A directory without directories claims to be a report, however little is
/// left of it: what an attacker emptied must not be passed over.
fn find(path: &Path, depth: usize, found: &mut Found) -> Result<(), Refusal> {
    let unreadable = |e: std::io::Error| Refusal::Unreadable { file: shown(path), reason: e.to_string() };
    if depth == 0 && fs::metadata(path).map_err(unreadable)?.is_file() {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        found.reports.push(parent.to_owned());
        return Ok(());
    }
    let mut directories = Vec::new();
    let (mut ours, mut ledger) = (false, false);
    let mut files = 0;
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type().map_err(unreadable)?.is_dir() {
            // hidden ones are written aside or belong to the runner; a report never is
            if !name.starts_with('.') {
                directories.push(entry.path());
            }
        } else {
            files += 1;
            ledger |= [ledger::names::ENTRIES, ledger::names::CHECKPOINT].contains(&name.as_ref());
            ours |= [names::ATTESTATION, names::REPORT, names::EVENTS, names::SUMS, names::SUMS_SIGNATURE].contains(&name.as_ref());
        }
    }
    if ledger && !ours {
        found.ledgers.push(path.to_owned());
        return Ok(());
    }
    if ours || (directories.is_empty() && (files > 0 || depth > 0)) {
        found.reports.push(path.to_owned());
        return Ok(());
    }
    if directories.is_empty() || depth >= DEEPEST {
        return Err(Refusal::NothingHere);
    }
    directories.sort();
    for directory in directories {
        find(&directory, depth + 1, found)?;
    }
    Ok(())
}

/// The one function that checks a report's directory.
fn verify_one(directory: &Path, trust: &TrustFile) -> Result<Attestation, Refusal> {
    let files = read_files(directory)?;
    if files.is_empty() {
        return Err(Refusal::NothingHere);
    }
    let sums_bytes = file(&files, names::SUMS)?;
    let key = sshsig::check(file(&files, names::SUMS_SIGNATURE)?, sums_bytes)?;
    known(trust, &key)?;
    check_sums(&files, &Sums::parse(sums_bytes)?)?;
    // from here on every byte is one that a trusted key has signed
    let payload = dsse::open(file(&files, names::ATTESTATION)?, &key)?;
    let statement: Statement = parse(names::ATTESTATION, &payload)?;
    let report = read_report(file(&files, names::REPORT)?)?;
    let (events, _) = journal::parse_events(file(&files, names::EVENTS)?).map_err(|e| Refusal::Events { what: chain_of(&e) })?;
    check_report(&report, &events, &files, &key)?;
    let observations = check_observations(&report, &files)?;
    check_statement(&statement, &report, &files)?;
    let entered = check_entered(&files, &report, trust)?;
    let principals = trust.judge(&key, report.finished_at)?.principals.clone();
    let (directory, files, sums) = (directory.to_owned(), files.len(), sha256(sums_bytes));
    Ok(Attestation { directory, report, events, statement, signer: key, principals, files, observations, sums, entered })
}

type Files = BTreeMap<String, Vec<u8>>;

fn read_files(directory: &Path) -> Result<Files, Refusal> {
    let unreadable = |name: &str, e: std::io::Error| Refusal::Unreadable { file: name.to_owned(), reason: e.to_string() };
    let mut files = Files::new();
    for entry in fs::read_dir(directory).map_err(|e| unreadable("the directory", e))? {
        let entry = entry.map_err(|e| unreadable("the directory", e))?;
        let name = shown(Path::new(&entry.file_name()));
        let kind = entry.file_type().map_err(|e| unreadable(&name, e))?;
        if !kind.is_file() || !super::sums::is_file_name(&name) {
            return Err(Refusal::Unlisted { file: name });
        }
        if entry.metadata().map_err(|e| unreadable(&name, e))?.len() > LARGEST_FILE {
            return Err(Refusal::Malformed { file: name, what: "larger than any file of evidence".to_owned() });
        }
        let bytes = fs::read(entry.path()).map_err(|e| unreadable(&name, e))?;
        files.insert(name, bytes);
    }
    Ok(files)
}

fn file<'a>(files: &'a Files, name: &str) -> Result<&'a [u8], Refusal> {
    files.get(name).map(Vec::as_slice).ok_or_else(|| Refusal::Missing { file: name.to_owned() })
}

/// Whether the key is in the trust file at all: asked before anything of the evidence is read.
fn known(trust: &TrustFile, key: &PublicKey) -> Result<(), Refusal> {
    if trust.keys().iter().any(|line| line.key == *key) { Ok(()) } else { Err(Distrust::Unknown { key: key.fingerprint() }.into()) }
}

/// Every listed file is here with its digest, and every file here is listed.
fn check_sums(files: &Files, sums: &Sums) -> Result<(), Refusal> {
    for (name, digest) in &sums.0 {
        if sha256(file(files, name)?) != *digest {
            return Err(Refusal::Digest { file: name.clone() });
        }
    }
    let listed = |name: &String| sums.0.contains_key(name) || name == names::SUMS || name == names::SUMS_SIGNATURE;
    match files.keys().find(|name| !listed(name)) {
        Some(name) => Err(Refusal::Unlisted { file: name.clone() }),
        None => Ok(()),
    }
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|e| Refusal::Malformed { file: name.to_owned(), what: e.to_string() })
}

fn read_report(bytes: &[u8]) -> Result<Report, Refusal> {
    #[derive(serde::Deserialize)]
    struct Schema {
        schema: String,
    }
    let found: Schema = parse(names::REPORT, bytes)?;
    if found.schema != REPORT_SCHEMA {
        let what = format!("its schema is `{}`, and this program knows `{REPORT_SCHEMA}`", found.schema.escape_debug());
        return Err(Refusal::Malformed { file: names::REPORT.to_owned(), what });
    }
    parse(names::REPORT, bytes)
}

/// The report is what follows from the events, and the other files say the same.
fn check_report(report: &Report, events: &[DrillEvent], files: &Files, key: &PublicKey) -> Result<(), Refusal> {
    match report.contradiction(events) {
        Ok(None) => {}
        Ok(Some(what)) => return Err(Refusal::Contradiction { what: what.to_owned() }),
        Err(error) => return Err(Refusal::Events { what: chain_of(&error) }),
    }
    if let Some(chain) = report.backup.chain.summary.as_ref().and_then(|summary| summary.file.as_ref()) {
        let bytes = file(files, &chain.name)?;
        if (bytes.len() as u64, Digests::of(bytes)) != (chain.bytes, Digests { sha256: chain.sha256, blake3: chain.blake3 }) {
            return Err(Refusal::Contradiction { what: "the restore chain's file".to_owned() });
        }
    }
    if report.issuer.key != key.fingerprint() {
        return Err(Refusal::Contradiction { what: "the signing key".to_owned() });
    }
    if file(files, names::SIGNER)? != key.to_pem().as_bytes() {
        return Err(Refusal::Malformed { file: names::SIGNER.to_owned(), what: "another key than the one that signed".to_owned() });
    }
    let checks: Vec<CheckReport> =
        file(files, names::CHECKS)?.split_inclusive(|b| *b == b'\n').map(|line| parse(names::CHECKS, line)).collect::<Result<_, _>>()?;
    if checks != report.checks {
        return Err(Refusal::Contradiction { what: names::CHECKS.to_owned() });
    }
    Ok(())
}

/// The proof that comes with a report is about this drill, and about what it promised.
fn check_entered(files: &Files, report: &Report, trust: &TrustFile) -> Result<Option<Checkpoint>, Refusal> {
    let Some(bytes) = files.get(names::ENTERED) else { return Ok(None) };
    let proof = Proof::open(bytes, trust)?;
    match proof.entry.entry {
        EntryKind::DrillStarted { drill, plan } if drill == report.report_id && *plan == report.plan => Ok(Some(proof.checkpoint)),
        _ => Err(Refusal::Contradiction { what: "what was entered before it started".to_owned() }),
    }
}

/// What the checks say that they observed is what the file has, of each of them, and of no other.
fn check_observations(report: &Report, files: &Files) -> Result<Observations, Refusal> {
    let differs = || Refusal::Contradiction { what: "what the checks observed".to_owned() };
    let seen: BTreeMap<&str, Blake3> = report.checks.iter().filter_map(|c| Some((c.name.as_str(), c.seen.as_ref()?.blake3))).collect();
    if seen.is_empty() {
        return if files.contains_key(names::OBSERVED) { Err(differs()) } else { Ok(Observations::default()) };
    }
    let observations: Observations = parse(names::OBSERVED, file(files, names::OBSERVED)?)?;
    let found = observations.checks.iter().map(|(check, observed)| (check.as_str(), observed.blake3()));
    if found.eq(seen) { Ok(observations) } else { Err(differs()) }
}

/// The statement speaks of exactly these files, this backup, this scenario and this result.
fn check_statement(statement: &Statement, report: &Report, files: &Files) -> Result<(), Refusal> {
    let differs = |what: &str| Err(Refusal::Statement { what: what.to_owned() });
    if statement.statement_type != STATEMENT_TYPE || statement.predicate_type != PREDICATE_TYPE {
        return differs("it is not a test result");
    }
    let unsigned = [names::ATTESTATION, names::SUMS, names::SUMS_SIGNATURE];
    let (of_files, of_backup): (Vec<&Subject>, Vec<&Subject>) = statement.subject.iter().partition(|s| files.contains_key(&s.name));
    let mut expected = files.iter().filter(|(name, _)| !unsigned.contains(&name.as_str()));
    let mut found = of_files.into_iter();
    loop {
        match (expected.next(), found.next()) {
            (None, None) => break,
            (Some((name, bytes)), Some(subject)) if *name == subject.name => {
                if Digests::of(bytes) != subject.digest {
                    return Err(Refusal::Digest { file: name.clone() });
                }
            }
            _ => return differs("its subjects are not the files of the evidence"),
        }
    }
    let chain = &report.backup.chain;
    let is = |subjects: Vec<Subject>| subjects.iter().eq(of_backup.iter().copied());
    if !is(chain_subjects(chain)) && !is(whole_chain(chain)) {
        return differs("its subjects are not the objects of the backup");
    }
    let scenario = Digests { sha256: report.plan.scenario_sha256, blake3: report.plan.scenario_blake3 };
    if !matches!(statement.predicate.configuration.as_slice(), [one] if one.digest == scenario) {
        return differs("its configuration is not the scenario");
    }
    if statement.predicate.result != result(report) {
        return differs("its result is not the verdict");
    }
    let conclusive = !statement.predicate.failed_tests.iter().any(|t| t == CONCLUSIVE);
    if conclusive != (report.verdict != Verdict::Inconclusive) {
        return differs("it and the report disagree on whether the drill came to a result");
    }
    Ok(())
}

/// An error and its causes in one line.
fn chain_of(error: &EvidenceError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A name from a disk, fit for a terminal.
fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}
