//! A scenario: what to restore, how, with which checks and objectives.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{
    ByteSize, CheckSpec, Cpus, EgressPolicy, LockMode, Objectives, Period, Regression, Requirement, RightsPolicy, Schedule, Selection,
    ServiceStep, ToolStep,
};

/// A scenario's name: 1 to 64 of `a-z`, `0-9`, `-`, `_`, beginning with a letter or digit. It names files and directories.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "runner", schemars(with = "String", extend("pattern" = "^[a-z0-9][a-z0-9_-]{0,63}$")))]
pub struct ScenarioName(String);

/// What is wrong with a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` cannot name a scenario: use 1 to 64 of a-z, 0-9, - and _, beginning with a letter or digit")]
pub struct ScenarioNameError(String);

impl FromStr for ScenarioName {
    type Err = ScenarioNameError;
    fn from_str(text: &str) -> Result<Self, ScenarioNameError> {
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
            && !text.starts_with(['-', '_']);
        if good { Ok(Self(text.to_owned())) } else { Err(ScenarioNameError(text.to_owned())) }
    }
}

impl TryFrom<String> for ScenarioName {
    type Error = ScenarioNameError;
    fn try_from(text: String) -> Result<Self, ScenarioNameError> {
        text.parse()
    }
}

impl From<ScenarioName> for String {
    fn from(name: ScenarioName) -> String {
        name.0
    }
}

impl fmt::Display for ScenarioName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How much depends on the system: 45 CFR 164.308(a)(7)(ii)(E), applications and data criticality analysis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Criticality {
    /// Care stops without it.
    Critical,
    /// Care suffers within hours.
    High,
    /// Care suffers within days.
    Moderate,
    /// It can wait.
    Low,
}

impl fmt::Display for Criticality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Criticality::Critical => "critical",
            Criticality::High => "high",
            Criticality::Moderate => "moderate",
            Criticality::Low => "low",
        })
    }
}

/// The contingency plan that the scenario belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct PlanRef {
    /// The plan's id.
    pub id: String,
    /// Its version.
    pub version: String,
    /// The last day on which this version is in force, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "runner", schemars(with = "Option<String>", extend("format" = "date")))]
    pub until: Option<jiff::civil::Date>,
}

/// An IANA time zone name that exists, as `America/Chicago`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeZone(pub String);

/// Where backups are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageLocation {
    /// An S3-compatible bucket.
    S3 {
        /// Its name.
        bucket: String,
        /// Prefix, without leading slash; empty or ending in a slash.
        prefix: String,
    },
    /// A local directory.
    File {
        /// Absolute.
        path: PathBuf,
    },
}

/// How an S3 bucket is addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Addressing {
    /// `https://endpoint/bucket/key`: what most S3-compatible servers want.
    #[default]
    Path,
    /// `https://bucket.endpoint/key`.
    VirtualHost,
}

/// Where a secret is found: never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// `file:PATH`
    File(PathBuf),
    /// `env:NAME`
    Env(String),
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::File(path) => write!(f, "file:{}", path.display()),
            SecretRef::Env(name) => write!(f, "env:{name}"),
        }
    }
}

/// A backup storage and how to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where.
    pub location: StorageLocation,
    /// Endpoint URL of an S3-compatible server; AWS where absent.
    pub endpoint: Option<String>,
    /// Region; `us-east-1` where absent and the environment names none.
    pub region: Option<String>,
    /// Whether plain HTTP may be used.
    pub allow_http: bool,
    /// A file of PEM certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A profile of the shared AWS files to take credentials from.
    pub profile: Option<String>,
    /// Path style or virtual host style.
    pub addressing: Addressing,
    /// Name pattern of bare objects below the prefix; `None` for sealed sets.
    pub points: Option<String>,
    /// Zone of the times in object names; UTC where absent.
    pub points_time_zone: Option<TimeZone>,
    /// How far back gaps between recovery points are looked for, seconds.
    pub look_back: Period,
    /// Which recovery point a drill takes, where nobody says otherwise.
    pub select: Selection,
    /// What a drill may take from it.
    pub limits: SourceLimits,
    /// What the stored objects must be.
    pub policy: Policy,
}

/// What a drill may take from a storage; everything where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceLimits {
    /// Bytes of objects.
    pub bytes: Option<ByteSize>,
    /// Requests.
    pub requests: Option<u64>,
    /// Bytes a second, all readers together.
    pub bandwidth: Option<ByteSize>,
}

impl SourceLimits {
    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.bytes.is_some() || self.requests.is_some() || self.bandwidth.is_some()
    }
}

/// What stored objects must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether every object must be encrypted by its producer.
    pub encrypted: bool,
    /// The lock that every object version in the chain must have.
    pub lock: Option<LockRequirement>,
    /// What the drill's credentials must be.
    pub rights: Option<RightsPolicy>,
}

/// A required object lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockRequirement {
    /// At least this mode.
    pub mode: LockMode,
    /// At least this long from the drill's start, seconds.
    pub remaining: Period,
}

/// The keys that open the backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unlock {
    /// age or SSH identities.
    pub identities: Vec<SecretRef>,
    /// Public keys of the producers whose signature on a manifest is trusted.
    pub trusted_producers: Vec<PathBuf>,
}

/// Where a restore's bytes live while the drill lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScratchKind {
    /// A private tmpfs: memory only, gone with the sandbox.
    #[default]
    Tmpfs,
    /// A volume on disk, or a directory where there is no root, encrypted under a key that only the kernel has while the drill lasts.
    Encrypted,
    /// A plain directory on disk: survives a power cut, and the report says so.
    Directory,
}

/// Places that a sandbox has of its own: what the host has there cannot be shown inside.
pub const OWN_PLACES: [&str; 7] = ["/tmp", "/run", "/proc", "/dev", "/etc", "/data", "/kit"];

/// What a drill may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Memory of what runs inside; scratch in memory counts as well.
    pub memory: ByteSize,
    /// Processes inside.
    pub processes: u32,
    /// Processors' time for what runs inside, together; all that the host has where nothing is said.
    pub cpus: Option<Cpus>,
    /// Kind of scratch.
    pub scratch: ScratchKind,
    /// Directory for [`ScratchKind::Directory`] and [`ScratchKind::Encrypted`].
    pub scratch_path: Option<PathBuf>,
    /// Bytes of scratch.
    pub scratch_size: ByteSize,
    /// Longest time for the whole drill, seconds.
    pub time: Period,
    /// Most entries a restore may make.
    pub max_files: u64,
    /// Most plaintext bytes for one byte in storage.
    pub max_ratio: u64,
    /// Deepest path, in components.
    pub max_depth: u32,
    /// Promises without which the drill is refused.
    pub require: BTreeSet<Requirement>,
    /// Host directories that programs inside see beside `/usr`, read-only, at the same place.
    pub tools: Vec<PathBuf>,
}

impl Default for ResourceLimits {
    fn default() -> Self {
        Self {
            memory: ByteSize::gib(2),
            processes: 256,
            cpus: None,
            scratch: ScratchKind::Tmpfs,
            scratch_path: None,
            scratch_size: ByteSize::gib(8),
            time: Period::from_secs(4 * 3_600),
            max_files: 50_000_000,
            max_ratio: 1_000,
            max_depth: 128,
            require: BTreeSet::new(),
            tools: Vec::new(),
        }
    }
}

/// One step of a restore.
#[derive(Debug, Clone, PartialEq)]
pub enum RestoreStep {
    /// Unseal and unpack, by the native pipeline.
    Archive,
    /// Have a foreign tool restore.
    Tool(Box<ToolStep>),
    /// Start a service on what was restored.
    Service(Box<ServiceStep>),
}

/// What to restore, how, with which checks and objectives. Valid by construction: made by `config` from a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its name.
    pub name: ScenarioName,
    /// What the contingency plan calls the system.
    pub system: String,
    /// How much depends on it.
    pub criticality: Criticality,
    /// The contingency plan it belongs to.
    pub plan: Option<PlanRef>,
    /// RPO and RTO.
    pub objectives: Objectives,
    /// When it is due.
    pub schedule: Option<Schedule>,
    /// Where its backups are.
    pub source: Source,
    /// What opens them.
    pub unlock: Unlock,
    /// What it may use.
    pub limits: ResourceLimits,
    /// What attempts to reach the outside do to a drill.
    pub egress: EgressPolicy,
    /// How it is restored, in order.
    pub restore: Vec<RestoreStep>,
    /// The components of a system that has several, in the order of their restore. `source` and `unlock` are the first one's then, and
    /// `restore` has the services alone, which are started when all components are there.
    pub components: Vec<Component>,
    /// The directory below the restored root that this is restored into; the root itself where nothing is said.
    pub within: Option<String>,
    /// What is asked.
    pub checks: Vec<CheckSpec>,
    /// How it is compared with the last drill that passed.
    pub regression: Regression,
    /// The file's exact text: its digest is the plan that the drill was run under.
    pub text: String,
}

/// One of several components of a system: its own backup, restored into its own directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// Its name, and that of its directory below the restored root.
    pub name: String,
    /// Where its backups are.
    pub source: Source,
    /// What opens them.
    pub unlock: Unlock,
    /// How it is restored; no services among it.
    pub restore: Vec<RestoreStep>,
}

impl Scenario {
    /// What is restored, one after the other: the components each as a scenario of its own, or the scenario itself where it has none.
    pub fn parts(&self) -> Vec<std::borrow::Cow<'_, Scenario>> {
        use std::borrow::Cow;
        if self.components.is_empty() {
            return vec![Cow::Borrowed(self)];
        }
        let part = |component: &Component| Scenario {
            source: component.source.clone(),
            unlock: component.unlock.clone(),
            restore: component.restore.clone(),
            components: Vec::new(),
            within: Some(component.name.clone()),
            ..self.clone()
        };
        self.components.iter().map(|component| Cow::Owned(part(component))).collect()
    }

    /// Whether foreign tools restore any of it.
    pub fn needs_tools(&self) -> bool {
        let steps = self.components.iter().flat_map(|component| &component.restore).chain(&self.restore);
        steps.into_iter().any(|step| matches!(step, RestoreStep::Tool(_)))
    }

    /// The foreign tools that restore, in order; none where the native pipeline does.
    pub fn tool_steps(&self) -> Vec<&ToolStep> {
        let steps = self.restore.iter().filter_map(|step| match step {
            RestoreStep::Archive | RestoreStep::Service(_) => None,
            RestoreStep::Tool(step) => Some(&**step),
        });
        steps.collect()
    }

    /// Whether anything is compared with the last drill that passed.
    pub fn compares_with_last(&self) -> bool {
        self.regression.any() || self.checks.iter().any(|check| check.kind.baseline() == Some(&super::BaselineSource::LastPassed))
    }

    /// Whether a service changes restored files, so that checks of them must be asked before.
    pub fn changes_files(&self) -> bool {
        self.service_steps().any(|step| step.kind.in_place())
    }

    /// The services that are started on what was restored, in order.
    pub fn service_steps(&self) -> impl Iterator<Item = &ServiceStep> {
        self.restore.iter().filter_map(|step| match step {
            RestoreStep::Archive | RestoreStep::Tool(_) => None,
            RestoreStep::Service(step) => Some(&**step),
        })
    }
}
