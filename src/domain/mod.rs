//! Words and rules: values valid by construction, and the pure decisions over them.
//!
//! No IO, no async, no clock here. Whatever the time is, somebody passes it in.

mod baseline;
mod binlog;
mod bounds;
mod chain;
mod check;
mod comparison;
mod database;
mod definition;
mod digest;
mod egress;
mod event;
mod finding;
mod keeping;
mod lock;
mod lsn;
mod mariadb;
mod objective;
mod order;
mod path;
mod pattern;
mod point;
mod records;
mod recount;
mod rights;
mod scenario;
mod schedule;
mod service;
mod size;
mod spelling;
mod template;
mod time;
mod tool;
mod tree;
mod verdict;

pub use baseline::{BASELINE_SCHEMA, Baseline, Deviations, LastDrill, Observations, Observed, Seen, TableSeen, mark};
pub use binlog::{BinlogError, BinlogFacts, BinlogPosition, BinlogTarget, Gtid};
pub use bounds::{BoundFacts, Cpus, Held, Requirement};
pub use chain::{
    Caches, ChainFile, ChainSummary, LockPolicyVerdict, LockTotals, ObjectRead, RangeRead, Reader, ReaderTotals, RestoreChain,
};
pub use check::{
    BaselineSource, CanarySource, CheckKind, CheckOutcome, CheckReport, CheckSpec, ContentAgainst, DatabaseRef, FreshnessSource,
    PlantedCanary, ReferenceSet, Regression, SqlAsk, SqlExpect,
};
pub use comparison::{Comparison, ComparisonError, Operator};
pub use database::{Fingerprint, IntegrityAnswer, IntegrityDepth, ObjectClass, Sample, SchemaObject};
pub use definition::{Ask, DefinedStep, Definition, LoadCommand, Place, Text};
pub use digest::{Blake3, DigestError, Pseudonym, Sha256};
pub use egress::{Egress, EgressAttempt, EgressPolicy, EgressProtocol};
pub use event::{
    Disposal, DrillEvent, DrillEventKind, DrillId, Phase, Plan, Probe, RestoredFacts, RunnerFacts, SandboxFacts, Sanitization,
    SelectedPoint, Trigger,
};
pub use finding::{Cause, Finding, FindingKind, Severity};
pub use keeping::{ANCHORED_EVERY, AccessKey, AnchorKind, AnchorPlace, LockedBucket, RETENTION, keep_until};
pub use lock::{LockFacts, LockMode, LockState, LockVerdict, judge};
pub use lsn::{Lsn, LsnError};
pub use mariadb::{BinaryLogs, MariaDbBackup, MariaDbStep};
pub use objective::{Achieved, Assessment, CaptureSource, Measurements, Met, Objectives, Recovery, assess, worst_gap};
pub use order::{DrillState, EventOrderError, phase_lengths};
pub use path::{PathError, RestorePath};
pub use pattern::{NameMatch, PatternError, PointPattern};
pub use point::{Moment, MomentError, ObjectRef, PointForm, RecoveryPoint, SelectError, Selection, Selector, Transport, select};
pub use records::{DicomFolder, DicomIndex, FhirStore, Hl7Archive, RecordProblem};
pub use recount::{Recount, recount};
pub use rights::{May, RIGHTS_AGE, Right, RightsFacts, RightsPolicy, judge_rights};
pub use scenario::{
    Addressing, Component, Criticality, LockRequirement, OWN_PLACES, PlanRef, Policy, ResourceLimits, RestoreStep, Scenario, ScenarioName,
    ScenarioNameError, ScratchKind, SecretRef, Source, SourceLimits, StorageLocation, TimeZone, Unlock,
};
pub use schedule::{MissedPolicy, Retry, Schedule, Window, WindowError};
pub use service::{
    Engine, PhysicalBackup, PostgresBackup, PostgresStep, RecoveryFacts, RecoveryTarget, ServiceFacts, ServiceKind, ServiceProblem,
    ServiceStep, SqliteMadeBy, SqliteStep,
};
pub use size::{ByteSize, SizeError};
pub use spelling::nearest;
pub use template::{Placeholder, Template, TemplateError};
pub use time::{Elapsed, Period, PeriodError, Timestamp};
pub use tool::{ItemPath, ItemPathError, ItemStep, RefusedWrite, ServedFacts, Snapshots, ToolFacts, ToolReads, ToolStep, ToolWrites};
pub use tree::{Aspect, EntryKind, FileEntry, TreeDifference, TreeSummary, Xattr, compare, differences};
pub use verdict::{Verdict, conclude};
