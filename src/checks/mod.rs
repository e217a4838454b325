//! Questions to the restored system; one file per kind.
//!
//! Checks see the restored tree and the sandbox. They never see the backup: what they ask is answered by what was restored.

mod baseline;
mod canary;
mod command;
mod content;
#[cfg(feature = "dicom")]
mod dicom;
mod fhir;
mod fields;
mod files;
mod freshness;
mod hl7;
mod integrity;
mod manifest;
mod records;
mod references;
mod schema;
mod sql;

use std::fs::File;
use std::io;

use async_trait::async_trait;

pub use crate::tree::{Glob, GlobError};
pub use fhir::is_type as is_fhir_type;

use crate::domain::{
    Aspect, CaptureSource, CheckKind, CheckOutcome, CheckReport, CheckSpec, DatabaseRef, DrillId, Engine, FileEntry, Finding, FindingKind,
    Fingerprint, FreshnessSource, IntegrityAnswer, IntegrityDepth, LastDrill, Observed, PlantedCanary, Pseudonym, RestorePath, Sample,
    SchemaObject, Severity, Timestamp,
};

/// Entries of a tree in the order of [`RestorePath`].
pub type Entries<'a> = Box<dyn Iterator<Item = io::Result<FileEntry>> + Send + 'a>;

/// The restored tree, as a check may see it. Implementations never follow a link out of the root.
pub trait Tree: Send + Sync {
    /// What is there now, content digests left out.
    fn walk(&self) -> io::Result<Entries<'_>>;
    /// What the manifest says should be there; `None` for a backup without one.
    fn expected(&self) -> io::Result<Option<Entries<'_>>>;
    /// Differences in content that were met while writing, when every byte was hashed: number by aspect, and up to ten paths.
    fn met_while_writing(&self) -> (Vec<(Aspect, u64)>, Vec<RestorePath>);
    /// Opens one regular file for reading.
    fn open(&self, path: &RestorePath) -> io::Result<File>;
}

/// How a command inside the sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ran {
    /// It exited by itself.
    Exited {
        /// Its status.
        status: i32,
        /// What it wrote to standard output, up to the cap.
        stdout: Vec<u8>,
        /// Whether it wrote more than that.
        truncated: bool,
    },
    /// A signal ended it, and no limit of ours.
    Killed {
        /// Which.
        signal: i32,
    },
    /// The program is not there, or cannot be started.
    NotStarted {
        /// Why, in words without restored data.
        reason: String,
    },
    /// A limit of the sandbox ended it.
    Limit {
        /// Which.
        limit: String,
        /// Its value with its unit.
        value: String,
    },
}

/// Starts programs inside the sandbox.
#[async_trait]
pub trait Programs: Send + Sync {
    /// Runs one program, without a shell, with the restored root as its working directory.
    ///
    /// # Errors
    /// A reason, in words without restored data, where the sandbox itself did not do its part.
    async fn run(&self, command: &[String]) -> Result<Ran, String>;
}

/// The answer to a query: rows of values, `None` for NULL. Restored data: matched here and never shown.
pub type Rows = Vec<Vec<Option<String>>>;

/// Why a restored database did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// The server refused the question, because of what was restored.
    Refused {
        /// A standard code or name, without restored data.
        state: String,
        /// Stands for what it said.
        output: Option<Pseudonym>,
    },
    /// It could not be asked.
    NotAsked {
        /// Why, in words without restored data.
        reason: String,
    },
    /// A limit of the sandbox was hit.
    Limit {
        /// Which.
        limit: String,
        /// Its value with its unit.
        value: String,
    },
}

/// The restored databases, each behind the server that was started on it.
#[async_trait]
pub trait Databases: Send + Sync {
    /// What kind of service is meant.
    ///
    /// # Errors
    /// A reason where there is none of that name, or none can be meant.
    fn engine(&self, service: Option<&str>) -> Result<Engine, String>;
    /// Asks one query that changes nothing.
    ///
    /// # Errors
    /// [`NoAnswer`].
    async fn query(&self, of: &DatabaseRef, sql: &str) -> Result<Rows, NoAnswer>;
    /// Every object of the schema, the system's own left out.
    ///
    /// # Errors
    /// [`NoAnswer`].
    async fn objects(&self, of: &DatabaseRef) -> Result<Vec<SchemaObject>, NoAnswer>;
    /// Fingerprints of these tables, or of all where none is named.
    ///
    /// # Errors
    /// [`NoAnswer`].
    async fn fingerprints(
        &self,
        of: &DatabaseRef,
        tables: &[String],
        sample: Option<Sample>,
    ) -> Result<Vec<(String, Fingerprint)>, NoAnswer>;
    /// Has the engine look into its own files.
    ///
    /// # Errors
    /// [`NoAnswer`].
    async fn integrity(&self, of: &DatabaseRef, depth: IntegrityDepth) -> Result<IntegrityAnswer, NoAnswer>;
}

/// What checks are asked of.
#[derive(Clone, Copy)]
pub struct Restored<'a> {
    /// The restored tree.
    pub tree: &'a dyn Tree,
    /// What starts programs.
    pub programs: &'a dyn Programs,
    /// What answers questions to restored databases.
    pub databases: &'a dyn Databases,
    /// When the drill started.
    pub started: Timestamp,
    /// Makes a pseudonym of a path.
    pub pseudonym: &'a (dyn Fn(&RestorePath) -> Pseudonym + Sync),
    /// Makes a pseudonym of a record: where it is, and its id.
    pub record: &'a (dyn Fn(&[u8]) -> Pseudonym + Sync),
    /// Makes them of everything else.
    pub names: &'a dyn Names,
    /// The last drill of the scenario that passed, if any; or why its evidence is not believed.
    pub last: Result<Option<&'a LastDrill>, &'a str>,
    /// When the recovery point was captured, and how that is known.
    pub captured: Option<(Timestamp, CaptureSource)>,
    /// Canaries that were planted for the scenario, in the order of their times.
    pub canaries: &'a [PlantedCanary],
}

/// What stands for restored names and values where people read.
pub trait Names: Send + Sync {
    /// For a name of the restored system.
    fn name(&self, name: &str) -> Pseudonym;
    /// For a value of restored data.
    fn value(&self, value: &str) -> Pseudonym;
    /// For what a program printed.
    fn output(&self, output: &[u8]) -> Pseudonym;
    /// For a digest: another one, which nobody without the runner's key can try names or rows out on.
    fn keyed(&self, digest: &str) -> String;
}

/// A check could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The restored tree could not be read.
    #[error("the restored tree could not be read")]
    Tree(#[from] io::Error),
    /// The sandbox did not do its part.
    #[error("the sandbox could not run it: {0}")]
    Sandbox(String),
    /// A limit of the sandbox was hit.
    #[error("the sandbox hit its {limit} limit of {value}")]
    Limit {
        /// Which.
        limit: String,
        /// Its value with its unit.
        value: String,
    },
    /// The program is not there.
    #[error("the program could not be started: {0}")]
    NotStarted(String),
    /// A restored database could not be asked.
    #[error("{0}")]
    NotAsked(String),
    /// What was restored is larger than the check can take.
    #[error("{0}")]
    TooLarge(String),
}

/// A database that gave no answer: its refusal is an answer of a kind, everything else is none.
fn no_answer(name: &str, expected: &str, error: NoAnswer) -> Result<Answer, CheckError> {
    match error {
        NoAnswer::Refused { state, output } => {
            let observed = format!("the server answers with an error ({state})");
            let kind = FindingKind::QueryRefused { state, output };
            let findings = vec![Finding::backup(name, kind)];
            Ok(Answer { expected: expected.to_owned(), observed, assertions: 1, findings, ..Answer::default() })
        }
        NoAnswer::NotAsked { reason } => Err(CheckError::NotAsked(reason)),
        NoAnswer::Limit { limit, value } => Err(CheckError::Limit { limit, value }),
    }
}

/// What a check answered.
#[derive(Debug, Default)]
pub struct Answer {
    /// What it expected, in words without restored data.
    pub expected: String,
    /// What it observed, likewise.
    pub observed: String,
    /// How many assertions about restored content it made.
    pub assertions: u32,
    /// What it found.
    pub findings: Vec<Finding>,
    /// The newest data that it saw, when it looked for that.
    pub newest: Option<Timestamp>,
    /// What it observed of a database, for later drills.
    pub seen: Option<Observed>,
    /// The drill that it compared with.
    pub compared_with: Option<DrillId>,
}

/// A check that was asked.
#[derive(Debug)]
pub struct Asked {
    /// How it ended.
    pub report: CheckReport,
    /// The newest data that it saw.
    pub newest: Option<Timestamp>,
    /// What it observed of a database, under the runner's key.
    pub seen: Option<Observed>,
}

/// Asks one check. Not being able to ask is an answer of its own, and never a pass.
pub async fn ask(spec: &CheckSpec, restored: &Restored<'_>) -> Asked {
    let answer = match &spec.kind {
        CheckKind::Manifest => tokio::task::block_in_place(|| manifest::ask(&spec.name, restored)),
        CheckKind::Files { pattern, count, bytes, newest } => {
            tokio::task::block_in_place(|| files::ask(&spec.name, pattern, *count, *bytes, *newest, restored))
        }
        CheckKind::Command { command, exit, stdout } => command::ask(&spec.name, command, *exit, stdout.as_deref(), restored).await,
        CheckKind::Freshness { from: FreshnessSource::Query { of, query } } => {
            freshness::ask_database(&spec.name, of, query, restored).await
        }
        CheckKind::Freshness { from } => tokio::task::block_in_place(|| freshness::ask(&spec.name, from, restored)),
        CheckKind::Sql { of, ask } => sql::ask(&spec.name, of, ask, restored).await,
        CheckKind::Schema { of, baseline, ignore, additional } => {
            schema::ask(&spec.name, of, baseline, ignore, *additional, restored).await
        }
        CheckKind::Content { of, tables, against, sample } => content::ask(&spec.name, of, tables, against, *sample, restored).await,
        CheckKind::Integrity { of, depth } => integrity::ask(&spec.name, of, *depth, restored).await,
        CheckKind::References { from, to, may_be_empty } => references::ask(&spec.name, from, to, *may_be_empty, restored).await,
        CheckKind::Canary { from } => canary::ask(&spec.name, from, restored).await,
        CheckKind::Fhir { pattern, resources, store } => {
            tokio::task::block_in_place(|| fhir::ask(&spec.name, pattern, resources, store, restored))
        }
        CheckKind::Hl7 { pattern, messages, archive } => {
            tokio::task::block_in_place(|| hl7::ask(&spec.name, pattern, messages, archive, restored))
        }
        #[cfg(feature = "dicom")]
        CheckKind::Dicom { pattern, folder } => tokio::task::block_in_place(|| dicom::ask(&spec.name, pattern, folder, restored)),
        #[cfg(not(feature = "dicom"))]
        CheckKind::Dicom { .. } => Err(CheckError::NotAsked("this firedrill was built without its feature `dicom`".to_owned())),
    };
    report(spec, answer, restored.names)
}

fn report(spec: &CheckSpec, answer: Result<Answer, CheckError>, names: &dyn Names) -> Asked {
    let (name, kind) = (spec.name.clone(), spec.kind.word().to_owned());
    match answer {
        Ok(answer) => {
            let outcome =
                match answer.findings.iter().map(|f| (f.severity, f.cause)).max_by_key(|(severity, cause)| (*severity as u8, *cause as u8))
                {
                    Some((Severity::Fail, _))
                        if answer.findings.iter().any(|f| f.severity == Severity::Fail && f.cause == crate::domain::Cause::Backup) =>
                    {
                        CheckOutcome::Failed
                    }
                    Some((Severity::Fail, _)) => CheckOutcome::CouldNotRun,
                    Some((Severity::Warn, _)) => CheckOutcome::Warned,
                    Some((Severity::Note, _)) | None => CheckOutcome::Passed,
                };
            let seen = answer.seen.map(|seen| baseline::keyed(&seen, names));
            let report = CheckReport {
                name,
                kind,
                outcome,
                expected: answer.expected,
                observed: answer.observed,
                assertions: answer.assertions,
                findings: answer.findings,
                seen: seen.as_ref().map(|seen| seen.seen(answer.compared_with)),
            };
            Asked { report, newest: answer.newest, seen }
        }
        Err(error) => {
            let kind_of = match &error {
                CheckError::Limit { limit, value } => FindingKind::SandboxLimit { limit: limit.clone(), value: value.clone() },
                CheckError::Tree(source) => FindingKind::CouldNotRun { reason: format!("{error}: {}", source.kind()) },
                CheckError::Sandbox(_) | CheckError::NotStarted(_) | CheckError::NotAsked(_) | CheckError::TooLarge(_) => {
                    FindingKind::CouldNotRun { reason: error.to_string() }
                }
            };
            let report = CheckReport {
                outcome: CheckOutcome::CouldNotRun,
                expected: String::new(),
                observed: error.to_string(),
                assertions: 0,
                findings: vec![Finding::runner(name.clone(), kind_of)],
                name,
                kind,
                seen: None,
            };
            Asked { report, newest: None, seen: None }
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A tree in memory and programs that answer as told, for the checks' own tests.

    use std::collections::BTreeMap;
    use std::io::{Seek, Write};

    use super::*;
    use crate::domain::{Blake3, EntryKind};

    pub struct MemoryTree {
        pub found: Vec<FileEntry>,
        pub expected: Option<Vec<FileEntry>>,
        pub while_writing: Vec<(Aspect, u64)>,
        pub contents: BTreeMap<String, Vec<u8>>,
    }

    pub fn file(path: &str, size: u64, mtime: i64) -> FileEntry {
        FileEntry {
            path: RestorePath::from_bytes(path.as_bytes()).unwrap(),
            kind: EntryKind::File { size, blake3: Some(Blake3([1; 32])) },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime,
            mtime_ns: 0,
            xattrs: vec![],
        }
    }

    impl MemoryTree {
        pub fn of(found: Vec<FileEntry>) -> Self {
            Self { found, expected: None, while_writing: vec![], contents: BTreeMap::new() }
        }
        pub fn with_content(files: &[(&str, &str)]) -> Self {
            let found = files.iter().map(|(path, text)| file(path, text.len() as u64, 0)).collect();
            let contents = files.iter().map(|(p, t)| ((*p).to_owned(), t.as_bytes().to_vec())).collect();
            Self { contents, ..Self::of(found) }
        }
    }

    impl Tree for MemoryTree {
        fn walk(&self) -> io::Result<Entries<'_>> {
            Ok(Box::new(self.found.iter().cloned().map(Ok)))
        }
        fn expected(&self) -> io::Result<Option<Entries<'_>>> {
            Ok(self.expected.as_ref().map(|e| Box::new(e.iter().cloned().map(Ok)) as Entries<'_>))
        }
        fn met_while_writing(&self) -> (Vec<(Aspect, u64)>, Vec<RestorePath>) {
            (self.while_writing.clone(), vec![])
        }
        fn open(&self, path: &RestorePath) -> io::Result<File> {
            let content = self.contents.get(&path.to_string()).ok_or(io::ErrorKind::NotFound)?;
            let mut file = tempfile::tempfile()?;
            file.write_all(content)?;
            file.rewind()?;
            Ok(file)
        }
    }

    /// Databases that answer every question alike.
    pub struct Database {
        pub rows: Result<Rows, NoAnswer>,
        pub objects: Vec<SchemaObject>,
        pub prints: Vec<(String, Fingerprint)>,
        pub integrity: IntegrityAnswer,
    }

    impl Database {
        pub fn silent() -> Self {
            Self::of(Err(NoAnswer::NotAsked { reason: "none".into() }))
        }
        pub fn of(rows: Result<Rows, NoAnswer>) -> Self {
            Self { rows, objects: Vec::new(), prints: Vec::new(), integrity: IntegrityAnswer::default() }
        }
    }

    #[async_trait]
    impl Databases for Database {
        fn engine(&self, _service: Option<&str>) -> Result<Engine, String> {
            Ok(Engine::Postgres)
        }
        async fn query(&self, _of: &DatabaseRef, _sql: &str) -> Result<Rows, NoAnswer> {
            self.rows.clone()
        }
        async fn objects(&self, _of: &DatabaseRef) -> Result<Vec<SchemaObject>, NoAnswer> {
            Ok(self.objects.clone())
        }
        async fn fingerprints(&self, _: &DatabaseRef, _: &[String], _: Option<Sample>) -> Result<Vec<(String, Fingerprint)>, NoAnswer> {
            Ok(self.prints.clone())
        }
        async fn integrity(&self, _of: &DatabaseRef, _depth: IntegrityDepth) -> Result<IntegrityAnswer, NoAnswer> {
            Ok(self.integrity.clone())
        }
    }

    pub static NO_DATABASE: std::sync::LazyLock<Database> = std::sync::LazyLock::new(Database::silent);

    /// Names under no key at all.
    pub struct Plain;

    impl Names for Plain {
        fn name(&self, name: &str) -> Pseudonym {
            Pseudonym(format!("name-{}", crate::domain::mark(name.as_bytes())))
        }
        fn value(&self, value: &str) -> Pseudonym {
            Pseudonym(format!("value-{}", value.len()))
        }
        fn output(&self, output: &[u8]) -> Pseudonym {
            Pseudonym(format!("output-{}", output.len()))
        }
        fn keyed(&self, digest: &str) -> String {
            crate::domain::mark(digest.as_bytes())
        }
    }

    pub fn last_drill(observations: crate::domain::Observations) -> LastDrill {
        LastDrill {
            drill: DrillId("0".into()),
            started_at: Timestamp::from_unix(0),
            restored: Vec::new(),
            usable_after: None,
            points: Vec::new(),
            observations,
        }
    }

    pub struct Answers(pub Result<Ran, String>);

    #[async_trait]
    impl Programs for Answers {
        async fn run(&self, _command: &[String]) -> Result<Ran, String> {
            self.0.clone()
        }
    }

    pub fn pseudonym(path: &RestorePath) -> Pseudonym {
        Pseudonym(format!("path-{}", path.as_bytes().len()))
    }

    /// Unlike the real ones these tell what they stand for.
    pub fn record(record: &[u8]) -> Pseudonym {
        Pseudonym(String::from_utf8_lossy(record).into_owned())
    }

    pub fn restored<'a>(tree: &'a MemoryTree, programs: &'a Answers) -> Restored<'a> {
        Restored {
            tree,
            programs,
            databases: &*NO_DATABASE,
            started: Timestamp::from_unix(1_000_000),
            pseudonym: &pseudonym,
            names: &Plain,
            last: Ok(None),
            captured: None,
            canaries: &[],
            record: &record,
        }
    }

    pub fn no_programs() -> Answers {
        Answers(Err("none".into()))
    }
}
