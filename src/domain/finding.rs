//! Findings: what a drill learned, as data. Text is made of them at the edge.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ByteSize, DrillId, LockMode, ObjectClass, Period, Pseudonym, RecordProblem, Right, ServiceProblem, Timestamp, TreeSummary};

/// Who is to blame, decided where the fact is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The backup, or what was promised of it.
    Backup,
    /// The runner, its host, its settings, or the way to the storage.
    Runner,
}

/// What a finding does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Worth acting on; the drill may pass.
    Warn,
    /// The drill cannot pass.
    Fail,
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Finding {
    /// The check or step that found it.
    pub check: String,
    /// What it does to the drill.
    pub severity: Severity,
    /// Who is to blame.
    pub cause: Cause,
    /// What it is.
    #[serde(flatten)]
    pub kind: FindingKind,
}

impl Finding {
    /// A failure of the backup.
    pub fn backup(check: impl Into<String>, kind: FindingKind) -> Self {
        Self { check: check.into(), severity: Severity::Fail, cause: Cause::Backup, kind }
    }
    /// A failure of ours to ask.
    pub fn runner(check: impl Into<String>, kind: FindingKind) -> Self {
        Self { check: check.into(), severity: Severity::Fail, cause: Cause::Runner, kind }
    }
    /// A warning.
    pub fn warning(check: impl Into<String>, cause: Cause, kind: FindingKind) -> Self {
        Self { check: check.into(), severity: Severity::Warn, cause, kind }
    }
    /// A remark.
    pub fn note(check: impl Into<String>, cause: Cause, kind: FindingKind) -> Self {
        Self { check: check.into(), severity: Severity::Note, cause, kind }
    }
}

/// What can be found. No variant holds a path, a key or a row of a backup, or a tool's output, in clear; `detail` and `reason`
/// are our own words, written in this repository, with numbers, and with names of the runner's own settings, at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum FindingKind {
    // ---- the backup -------------------------------------------------------------------------------------------
    /// The prefix holds no recovery point.
    NoRecoveryPoint {
        /// Which one was asked for.
        detail: String,
    },
    /// An object's bytes are not what they should be.
    ObjectDamaged {
        /// Which.
        object: Pseudonym,
        /// The layer that noticed: `object`, `age`, `zstd`, `gzip`, `xz`, `lz4`, `tar`, `manifest`, `index`.
        layer: String,
        /// What it noticed.
        detail: String,
    },
    /// An object ends early.
    ObjectTruncated {
        /// Which.
        object: Pseudonym,
        /// The layer that noticed.
        layer: String,
        /// What it noticed.
        detail: String,
    },
    /// A member of the set is not there.
    ObjectMissing {
        /// Which.
        object: Pseudonym,
        /// What the set needs it for.
        role: String,
    },
    /// A member belongs to another set, or has another size or digest than the manifest says.
    ObjectDiffers {
        /// Which.
        object: Pseudonym,
        /// In what.
        detail: String,
    },
    /// The backup is encrypted to other keys.
    NoMatchingRecipient {
        /// Which object.
        object: Pseudonym,
        /// What to know about the keys tried and the recipients found.
        detail: String,
    },
    /// Policy says encrypted; it is not.
    NotEncrypted {
        /// Which object.
        object: Pseudonym,
    },
    /// No producer that the scenario trusts has signed the manifest.
    UntrustedProducer {
        /// What is wrong with the signature.
        detail: String,
    },
    /// It restores to nothing.
    EmptyRestore {
        /// What is empty.
        detail: String,
    },
    /// The archive tries to write outside its root, or to be something no backup is.
    HostileEntry {
        /// Which entry.
        entry: Pseudonym,
        /// Which rule it broke.
        rule: String,
    },
    /// The archive expands beyond its budget.
    BudgetExceeded {
        /// Which budget: `bytes`, `files`, `ratio`, `depth`.
        budget: String,
        /// The limit.
        limit: u64,
    },
    /// Entries of a kind that was not restored.
    EntriesSkipped {
        /// How many.
        count: u64,
        /// Of which kind, and why.
        detail: String,
    },
    /// The restored tree is not the one the manifest describes.
    TreeDiffers {
        /// In numbers.
        #[serde(flatten)]
        summary: TreeSummary,
        /// Number of differences by aspect: `missing`, `extra`, `kind`, `size`, `content`, `mode`, `time`, `link`, `xattrs`.
        aspects: BTreeMap<String, u64>,
        /// Up to ten of the entries.
        examples: Vec<Pseudonym>,
    },
    /// A foreign tool could not restore it.
    ToolFailed {
        /// Which tool.
        tool: String,
        /// How it ended.
        how: String,
        /// Stands for what it said.
        output: Option<Pseudonym>,
    },
    /// A service could not be brought back from it.
    ServiceFailed {
        /// Which service.
        service: String,
        /// What is wrong.
        problem: ServiceProblem,
        /// More, in our words.
        how: String,
        /// Stands for what its programs said.
        output: Option<Pseudonym>,
    },
    /// A check was asked and answered no.
    CheckFailed {
        /// What was expected.
        expected: String,
        /// What was observed.
        observed: String,
    },
    /// The objects of a restored database are not those of the baseline.
    SchemaDiffers {
        /// Against what they were compared.
        baseline: String,
        /// Objects of the baseline, all classes that were compared together.
        compared: u64,
        /// There in the baseline and not here, by class.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        missing: BTreeMap<ObjectClass, u64>,
        /// There in both, with another definition, owner or grants.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        changed: BTreeMap<ObjectClass, u64>,
        /// Here, and not in the baseline.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        additional: BTreeMap<ObjectClass, u64>,
        /// Up to ten of their names.
        examples: Vec<Pseudonym>,
    },
    /// The rows of restored tables are not those that they are compared with.
    ContentDiffers {
        /// Against what they were compared.
        baseline: String,
        /// Tables that were compared.
        compared: u64,
        /// Those that are not here.
        missing: u64,
        /// Those with other rows.
        changed: u64,
        /// Rows of the tables that differ, there.
        rows_expected: u64,
        /// And here.
        rows_found: u64,
        /// Up to ten of their names.
        examples: Vec<Pseudonym>,
    },
    /// A restored database says of itself that it is damaged.
    IntegrityBroken {
        /// By what it was asked.
        asked: String,
        /// Tables and indexes that were looked at, where the engine says.
        examined: u64,
        /// Those of them that are damaged.
        damaged: u64,
        /// Up to ten of their names.
        examples: Vec<Pseudonym>,
        /// Stands for what its programs said.
        output: Option<Pseudonym>,
    },
    /// Values refer to something that was not restored.
    ReferencesBroken {
        /// Different values that refer.
        values: u64,
        /// Those of them that refer to nothing.
        missing: u64,
        /// Up to ten of them.
        examples: Vec<Pseudonym>,
    },
    /// The canary that was planted before the backup is not in it.
    CanaryMissing {
        /// What is there instead.
        observed: String,
    },
    /// Less was restored than by the last drill that passed, or more slowly.
    Regressed {
        /// What: `files`, `bytes`, `stored bytes`, `rows`, `time to usable`.
        what: String,
        /// How much it was.
        before: u64,
        /// How much it is.
        now: u64,
        /// The drill that it is compared with.
        drill: DrillId,
    },
    /// A restored database answered a question with an error.
    QueryRefused {
        /// The error's standard code or name.
        state: String,
        /// Stands for what the server said.
        output: Option<Pseudonym>,
    },
    /// Restored records are not what they should be.
    RecordsWrong {
        /// What is wrong with them.
        problem: RecordProblem,
        /// How many.
        count: u64,
        /// Up to ten of them.
        examples: Vec<Pseudonym>,
    },
    /// Nothing was asserted about restored content.
    NoAssertions,
    /// The newest data is later than this host's clock.
    CapturedInFuture {
        /// By how many seconds.
        ahead: Period,
    },
    /// An object version in the chain is not locked.
    NotLocked {
        /// Which.
        object: Pseudonym,
        /// What policy asks for.
        required: LockMode,
    },
    /// An object version is locked in a weaker mode than policy asks for.
    WeakerLock {
        /// Which.
        object: Pseudonym,
        /// The mode it has.
        mode: LockMode,
        /// What policy asks for.
        required: LockMode,
    },
    /// A lock runs out before policy allows.
    LockTooShort {
        /// Which object.
        object: Pseudonym,
        /// What is left, seconds.
        left: Period,
        /// What policy asks for, seconds.
        required: Period,
    },
    /// The drill's credentials may do more than read.
    ExcessRights {
        /// What.
        rights: Vec<Right>,
        /// When that was found.
        asked_at: Timestamp,
    },
    /// An objective was missed.
    ObjectiveMissed {
        /// `rpo` or `rto`.
        objective: String,
        /// Promised, seconds.
        target: Period,
        /// Achieved, seconds.
        achieved: Period,
    },

    // ---- the runner -------------------------------------------------------------------------------------------
    /// Storage could not be read, and that says nothing about the backup.
    StorageUnreachable {
        /// Why.
        reason: String,
    },
    /// Storage refused these credentials, or there are none.
    CredentialsRefused {
        /// Why.
        reason: String,
    },
    /// The bucket or directory that the scenario names does not exist.
    NoSuchStore {
        /// Why.
        reason: String,
    },
    /// Whether an object version is locked is not visible to these credentials.
    LockUnknown {
        /// Which object.
        object: Pseudonym,
        /// Why.
        reason: String,
    },
    /// The key that would open the backup is not at hand.
    KeyUnusable {
        /// Why.
        reason: String,
    },
    /// Scratch is full.
    ScratchFull {
        /// Its size.
        limit: ByteSize,
    },
    /// Policy says read-only, and whether the drill's credentials are is not known.
    RightsUnknown {
        /// Why.
        reason: String,
    },
    /// The drill reached a limit on what it may take from the storage.
    SourceLimit {
        /// Which: `bytes` or `requests`.
        limit: String,
        /// Its value, with its unit.
        value: String,
    },
    /// A limit of the sandbox was hit.
    SandboxLimit {
        /// Which: `memory`, `cpu`, `time`, `processes`, `output`, `scratch`, `inodes`, `private /tmp`, `private /run`, `/dev/shm`.
        limit: String,
        /// Its value, with its unit.
        value: String,
    },
    /// A sandbox could not be made, or did not do what it must.
    SandboxUnavailable {
        /// Why.
        reason: String,
    },
    /// The sandbox could not be shown to be gone.
    NotDisposed {
        /// What remains.
        reason: String,
    },
    /// What runs inside tried to reach something outside.
    EgressAttempted {
        /// How often.
        attempts: u64,
        /// How many different attempts are listed.
        different: u64,
        /// The first of them: protocol, address, port, name.
        first: String,
    },
    /// Attempts to reach something outside may be missing from the list.
    EgressNotRecorded {
        /// Why.
        reason: String,
    },
    /// A service could not be started here, and that says nothing about the backup.
    ServiceCouldNotRun {
        /// Which service.
        service: String,
        /// Why, and what to try.
        reason: String,
        /// Stands for what its programs said.
        output: Option<Pseudonym>,
    },
    /// A foreign tool could not ask the backup at all.
    ToolCouldNotRun {
        /// Which tool.
        tool: String,
        /// Why, and what to try.
        reason: String,
        /// Stands for what it said.
        output: Option<Pseudonym>,
    },
    /// A foreign tool tried to write to the backup, and was refused.
    WritesRefused {
        /// How often.
        writes: u64,
        /// The first, as `PutObject`.
        first: String,
    },
    /// A check or step could not be carried out.
    CouldNotRun {
        /// Why.
        reason: String,
    },
    /// Somebody ended the drill.
    Interrupted {
        /// How: `ctrl-c`, `terminated`, `crashed`.
        how: String,
    },
    /// Wall clock and monotonic clock disagree about how long the drill took.
    ClockStepped {
        /// Wall minus monotonic, seconds.
        seconds: i64,
    },
    /// The capture time is weaker than it should be.
    WeakCaptureTime {
        /// What it rests on.
        detail: String,
    },
    /// What the storage held at the instant asked for is not certain.
    AsOfUncertain {
        /// Why.
        reason: String,
    },
    /// Something to know.
    Remark {
        /// What.
        detail: String,
    },
    /// Where the data is from.
    DataAsOf {
        /// The instant.
        at: Timestamp,
    },
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use FindingKind as K;
        match self {
            K::NoRecoveryPoint { detail } => write!(f, "no recovery point: {detail}"),
            K::ObjectDamaged { object, layer, detail } => write!(f, "{object} is damaged, seen in its {layer} layer: {detail}"),
            K::ObjectTruncated { object, layer, detail } => write!(f, "{object} ends early, seen in its {layer} layer: {detail}"),
            K::ObjectMissing { object, role } => write!(f, "{object} ({role}) is missing from the set"),
            K::ObjectDiffers { object, detail } => write!(f, "{object} is not what the manifest describes: {detail}"),
            K::NoMatchingRecipient { object, detail } => write!(f, "{object} is encrypted to other keys: {detail}"),
            K::NotEncrypted { object } => write!(f, "{object} is not encrypted, and policy says it must be"),
            K::UntrustedProducer { detail } => write!(f, "the manifest is not signed by a trusted producer: {detail}"),
            K::EmptyRestore { detail } => write!(f, "the backup restores to nothing: {detail}"),
            K::HostileEntry { entry, rule } => write!(f, "hostile archive entry {entry}: {rule}"),
            K::BudgetExceeded { budget, limit } => write!(f, "the archive exceeds its budget of {limit} ({budget})"),
            K::EntriesSkipped { count, detail } => write!(f, "{count} entries were not restored: {detail}"),
            K::TreeDiffers { summary, aspects, .. } => {
                write!(
                    f,
                    "the restored tree differs from the manifest: {} matched, {} mismatched, {} missing, {} extra",
                    summary.matched, summary.mismatched, summary.missing, summary.extra
                )?;
                let list: Vec<String> = aspects.iter().map(|(aspect, n)| format!("{aspect} {n}")).collect();
                if list.is_empty() { Ok(()) } else { write!(f, " ({})", list.join(", ")) }
            }
            K::ToolFailed { tool, how, .. } => write!(f, "{tool} could not restore it: {how}"),
            K::ToolCouldNotRun { tool, reason, .. } => write!(f, "{tool} could not ask the backup: {reason}"),
            K::ServiceFailed { service, problem, how, .. } if how.is_empty() => write!(f, "{service}: {}", problem.words()),
            K::ServiceFailed { service, problem, how, .. } => write!(f, "{service}: {}: {how}", problem.words()),
            K::ServiceCouldNotRun { service, reason, .. } => write!(f, "{service} could not be started here: {reason}"),
            K::WritesRefused { writes: 1, first } => write!(f, "a tool tried once to write to the backup ({first}), and was refused"),
            K::WritesRefused { writes, first } => {
                write!(f, "tools tried {writes} times to write to the backup, the first time {first}, and were refused")
            }
            K::CheckFailed { expected, observed } => write!(f, "expected {expected}, observed {observed}"),
            K::SchemaDiffers { baseline, compared, missing, changed, additional, .. } => {
                let by_class = |n: &BTreeMap<ObjectClass, u64>| {
                    let list: Vec<String> = n.iter().map(|(class, count)| format!("{} {count}", class.word())).collect();
                    list.join(", ")
                };
                write!(f, "of {compared} objects of {baseline}")?;
                let parts: Vec<String> = [("missing", missing), ("changed", changed), ("additional", additional)]
                    .into_iter()
                    .filter(|(_, counts)| !counts.is_empty())
                    .map(|(word, counts)| format!("{} {word} ({})", counts.values().sum::<u64>(), by_class(counts)))
                    .collect();
                write!(f, ": {}", parts.join(", "))
            }
            K::ContentDiffers { baseline, compared, missing, changed, rows_expected, rows_found, .. } => write!(
                f,
                "of {compared} tables of {baseline}: {missing} missing, {changed} with other rows; {rows_expected} rows there, {rows_found} here"
            ),
            K::IntegrityBroken { asked, damaged, .. } => {
                write!(f, "the restored database is damaged, as {asked} says: {damaged} of its tables and indexes")
            }
            K::ReferencesBroken { values, missing, .. } => {
                write!(f, "{missing} of {values} values refer to what was not restored")
            }
            K::CanaryMissing { observed } => write!(f, "the canary that was planted before the backup is not in it: {observed}"),
            K::Regressed { what, before, now, drill } => {
                write!(f, "{what}: {now}, and {before} at drill {drill}, the last that passed")
            }
            K::QueryRefused { state, .. } => write!(f, "the restored database answers with an error ({state})"),
            K::RecordsWrong { problem, count, .. } => write!(f, "records that {}: {count}", problem.words()),
            K::NoAssertions => f.write_str("nothing was asserted about restored content, so nothing is proven"),
            K::CapturedInFuture { ahead } => {
                write!(f, "the data claims to be {ahead} in the future: this host's clock or the producer's is wrong")
            }
            K::NotLocked { object, required } => write!(f, "{object} is not locked; policy asks for {required} retention"),
            K::WeakerLock { object, mode, required } => write!(f, "{object} is locked in {mode} mode; policy asks for {required}"),
            K::LockTooShort { object, left, required } => write!(f, "the lock of {object} has {left} left; policy asks for {required}"),
            K::ObjectiveMissed { objective, target, achieved } => {
                write!(f, "{} missed: {achieved} achieved, {target} promised", objective.to_uppercase())
            }
            K::StorageUnreachable { reason } => write!(f, "storage could not be read: {reason}"),
            K::CredentialsRefused { reason } => write!(f, "storage refused the credentials: {reason}"),
            K::NoSuchStore { reason } => write!(f, "there is no such bucket or directory: {reason}"),
            K::LockUnknown { object, reason } => write!(f, "the lock of {object} is not visible: {reason}"),
            K::KeyUnusable { reason } => write!(f, "the key could not be used: {reason}"),
            K::ScratchFull { limit } => write!(f, "scratch is full at {limit}"),
            K::ExcessRights { rights, asked_at } => f.write_str(&FindingKind::excess_words(rights, *asked_at)),
            K::RightsUnknown { reason } => write!(f, "whether the credentials may only read is not known: {reason}"),
            K::SourceLimit { limit, value } => {
                write!(f, "the drill reached its limit on what it takes from the storage: {value} ({limit})")
            }
            K::SandboxLimit { limit, value } => write!(f, "the sandbox hit its {limit} limit of {value}"),
            K::SandboxUnavailable { reason } => write!(f, "no sandbox could be made: {reason}"),
            K::NotDisposed { reason } => write!(f, "the sandbox could not be shown to be gone: {reason}"),
            K::EgressAttempted { attempts: 1, first, .. } => {
                write!(f, "what ran inside tried once to reach something outside, and was refused: {first}")
            }
            K::EgressAttempted { attempts, first, .. } => {
                write!(f, "what ran inside tried {attempts} times to reach something outside, and was refused; the first: {first}")
            }
            K::EgressNotRecorded { reason } => write!(f, "attempts to reach something outside may be missing here: {reason}"),
            K::CouldNotRun { reason } => write!(f, "could not be carried out: {reason}"),
            K::Interrupted { how } => write!(f, "the drill was interrupted ({how})"),
            K::ClockStepped { seconds } => write!(f, "the wall clock moved {seconds:+} s against the monotonic clock during the drill"),
            K::WeakCaptureTime { detail } => write!(f, "the capture time rests on {detail}"),
            K::AsOfUncertain { reason } => write!(f, "what the storage held at that instant is not certain: {reason}"),
            K::Remark { detail } => f.write_str(detail),
            K::DataAsOf { at } => write!(f, "newest data found: {}", at.to_human()),
        }
    }
}
