//! Checks: what is asked of the restored system, and what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    Comparison, DicomFolder, DrillId, FhirStore, Finding, Hl7Archive, IntegrityDepth, ObjectClass, Period, Sample, Seen, Severity,
    Timestamp,
};

/// One check.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckSpec {
    /// Its name; the kind where the scenario gives none.
    pub name: String,
    /// What it asks.
    pub kind: CheckKind,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckKind {
    /// The restored tree against the manifest.
    Manifest,
    /// Files of the restored tree.
    Files {
        /// Glob over paths below the restored root: `*` within a component, `**` across.
        pattern: String,
        /// How many match; at least one where nothing is said.
        count: Option<Comparison>,
        /// Their bytes together.
        bytes: Option<Comparison>,
        /// The newest of them was modified within this time before the drill.
        newest: Option<Period>,
    },
    /// A command in the sandbox, working directory at the restored root.
    Command {
        /// Program and arguments; no shell.
        command: Vec<String>,
        /// The exit status that means yes.
        exit: i32,
        /// A regular expression that standard output must match.
        stdout: Option<String>,
    },
    /// The newest data: this is the measured RPO.
    Freshness {
        /// Where to look.
        from: FreshnessSource,
    },
    /// A question in a restored database's own language.
    Sql {
        /// Which database.
        of: DatabaseRef,
        /// What is asked.
        ask: SqlAsk,
    },
    /// The objects of a restored database against a baseline.
    Schema {
        /// Which database.
        of: DatabaseRef,
        /// Against what.
        baseline: BaselineSource,
        /// Classes that are not compared.
        ignore: BTreeSet<ObjectClass>,
        /// What objects do to the drill that the baseline does not have.
        additional: Severity,
    },
    /// The rows of a restored database's tables, whatever their order, against a baseline or another database.
    Content {
        /// Which database.
        of: DatabaseRef,
        /// Which tables; all where none is named.
        tables: Vec<String>,
        /// Against what.
        against: ContentAgainst,
        /// Which part of the rows; all where nothing is said.
        sample: Option<Sample>,
    },
    /// A restored database's own word on its integrity.
    Integrity {
        /// Which database.
        of: DatabaseRef,
        /// How deep it looks.
        depth: IntegrityDepth,
    },
    /// Values of one component that must be there in another.
    References {
        /// Those that refer.
        from: ReferenceSet,
        /// Those that are referred to.
        to: ReferenceSet,
        /// Whether nothing that refers is fine.
        may_be_empty: bool,
    },
    /// The nonce that `firedrill canary` planted before the backup.
    Canary {
        /// Where it is.
        from: CanarySource,
    },
    /// FHIR resources: each parses, none is there twice, what they refer to is there.
    Fhir {
        /// Glob over paths.
        pattern: String,
        /// How many of each type.
        resources: BTreeMap<String, Comparison>,
        /// What to know of the store.
        store: FhirStore,
    },
    /// HL7 v2 messages: each is whole and well-formed, none is there twice, batches add up.
    Hl7 {
        /// Glob over paths.
        pattern: String,
        /// How many of each type, as `ADT` or `ADT^A01`.
        messages: BTreeMap<String, Comparison>,
        /// What to know of the archive.
        archive: Hl7Archive,
    },
    /// DICOM files: each parses to its end, none is there twice, and they are those that an index names.
    Dicom {
        /// Glob over paths.
        pattern: String,
        /// What they are held against.
        folder: DicomFolder,
    },
}

/// Where a baseline comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaselineSource {
    /// What the last drill of this scenario that passed observed.
    LastPassed,
    /// A file of the restored tree, captured with the backup.
    Restored(String),
    /// A file of the site.
    File(PathBuf),
}

/// What content is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentAgainst {
    /// A baseline.
    Baseline(BaselineSource),
    /// Another restored database.
    Same(DatabaseRef),
}

/// A set of values, of which each counts once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferenceSet {
    /// The values of a query's one column; NULL refers to nothing.
    Query {
        /// Which database.
        of: DatabaseRef,
        /// The query.
        query: String,
    },
    /// The names of restored files.
    Files {
        /// Glob over paths.
        pattern: String,
        /// A regular expression over the path below the restored root, whose first group is the value; the whole path where nothing is said.
        name: Option<String>,
    },
    /// The values of one field of JSON (one document or lines) or CSV files.
    Field {
        /// Glob over paths.
        pattern: String,
        /// Column name, or dotted path into JSON.
        field: String,
        /// A regular expression over the value, as for names.
        name: Option<String>,
    },
}

/// A canary that was planted in the source before a backup: what is remembered of it, outside of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlantedCanary {
    /// When.
    pub at: Timestamp,
    /// Its digest under the runner's key: who reads it cannot plant it.
    pub digest: String,
}

/// Where a canary is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanarySource {
    /// The one value of a query.
    Query {
        /// Which database.
        of: DatabaseRef,
        /// The query.
        query: String,
    },
    /// The content of a restored file.
    File {
        /// Its path below the restored root.
        path: String,
    },
}

/// How much less than at the last drill that passed is remarkable.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Regression {
    /// Less by more than so many percent warns.
    pub warn: Option<f64>,
    /// Less by more than so many percent fails.
    pub fail: Option<f64>,
    /// More time by more than so many percent warns.
    pub slower: Option<f64>,
    /// A drill whose differences were looked at and are right: it counts as one that passed.
    pub accept: Option<DrillId>,
}

impl Regression {
    /// Whether anything is compared.
    pub fn any(&self) -> bool {
        self.warn.is_some() || self.fail.is_some() || self.slower.is_some()
    }
}

/// A database of a service that the restore started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseRef {
    /// The service's name; the only one where nothing is said.
    pub service: Option<String>,
    /// The database in it; the one of its step where nothing is said.
    pub database: Option<String>,
}

/// What a `sql` check asks.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlAsk {
    /// One query of one row and one value.
    Query {
        /// The query.
        query: String,
        /// What the value must be.
        expect: SqlExpect,
    },
    /// Rows of tables, counted one by one.
    Tables(BTreeMap<String, Comparison>),
}

/// What the one value of a query must be.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlExpect {
    /// A number that compares so.
    Number(Comparison),
    /// Exactly this text.
    Text(String),
}

impl CheckKind {
    /// Whether it looks at restored files as they came, which a server started on them would change.
    pub fn looks_at_files(&self) -> bool {
        match self {
            CheckKind::Manifest | CheckKind::Files { .. } => true,
            CheckKind::Fhir { .. } | CheckKind::Hl7 { .. } | CheckKind::Dicom { .. } => true,
            CheckKind::Freshness { from } => !matches!(from, FreshnessSource::Query { .. }),
            CheckKind::References { from, to, .. } => from.is_of_files() && to.is_of_files(),
            CheckKind::Canary { from } => matches!(from, CanarySource::File { .. }),
            CheckKind::Command { .. }
            | CheckKind::Sql { .. }
            | CheckKind::Schema { .. }
            | CheckKind::Content { .. }
            | CheckKind::Integrity { .. } => false,
        }
    }
    /// Where its baseline comes from, if it has one.
    pub fn baseline(&self) -> Option<&BaselineSource> {
        match self {
            CheckKind::Schema { baseline, .. } | CheckKind::Content { against: ContentAgainst::Baseline(baseline), .. } => Some(baseline),
            _ => None,
        }
    }
    /// As the scenario writes it.
    pub fn word(&self) -> &'static str {
        match self {
            CheckKind::Manifest => "manifest",
            CheckKind::Files { .. } => "files",
            CheckKind::Command { .. } => "command",
            CheckKind::Freshness { .. } => "freshness",
            CheckKind::Sql { .. } => "sql",
            CheckKind::Schema { .. } => "schema",
            CheckKind::Content { .. } => "content",
            CheckKind::Integrity { .. } => "integrity",
            CheckKind::References { .. } => "references",
            CheckKind::Canary { .. } => "canary",
            CheckKind::Fhir { .. } => "fhir",
            CheckKind::Hl7 { .. } => "hl7",
            CheckKind::Dicom { .. } => "dicom",
        }
    }
}

impl ReferenceSet {
    fn is_of_files(&self) -> bool {
        !matches!(self, ReferenceSet::Query { .. })
    }
}

/// Where the newest data is looked for.
#[derive(Debug, Clone, PartialEq)]
pub enum FreshnessSource {
    /// The latest modification time of the regular files that match.
    FileTimes {
        /// Glob over paths.
        pattern: String,
    },
    /// The latest instant in one field of the JSON (one document or lines) or CSV files that match.
    Field {
        /// Glob over paths.
        pattern: String,
        /// Column name, or dotted path into JSON.
        field: String,
    },
    /// The one value of a query.
    Query {
        /// Which database.
        of: DatabaseRef,
        /// The query.
        query: String,
    },
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// Asked, and answered yes.
    Passed,
    /// Asked, and answered yes with a warning.
    Warned,
    /// Asked, and answered no.
    Failed,
    /// Could not be asked. Never a pass.
    CouldNotRun,
}

/// One check of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct CheckReport {
    /// The check's name in the scenario.
    pub name: String,
    /// Its kind, as `manifest`.
    pub kind: String,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// What it expected, in words without restored data.
    pub expected: String,
    /// What it observed, in words without restored data.
    pub observed: String,
    /// How many assertions about restored content it made.
    pub assertions: u32,
    /// What it found.
    pub findings: Vec<Finding>,
    /// What it observed of a database, for later drills; absent for other checks and in evidence of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
}
