//! A drill is a list of events: facts in the past tense, each complete in itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    Assessment, Blake3, BoundFacts, CaptureSource, CheckReport, Criticality, Egress, Elapsed, Finding, Measurements, Objectives, Period,
    PlanRef, PointForm, Pseudonym, RestoreChain, RightsFacts, ScenarioName, ServedFacts, ServiceFacts, Sha256, Timestamp, ToolFacts,
    Transport, Verdict,
};

/// A drill's id: a UUID of version 7 (RFC 9562), so that ids sort by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct DrillId(pub String);

impl fmt::Display for DrillId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A stretch of a drill. Phases follow each other without gaps, so they add up to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Making the sandbox.
    Provision,
    /// Listing recovery points, selecting one, reading its manifest.
    Locate,
    /// Refusing before anything is restored: space, tools, keys.
    Preflight,
    /// Fetch, unseal, unpack, write, hash: one streaming pass.
    Restore,
    /// Checks of restored files that a service is about to change: a server started on a data directory writes into it.
    Inspect,
    /// Loading services with what was restored.
    Load,
    /// Waiting until it is usable.
    Ready,
    /// Asking the checks.
    Verify,
    /// Destroying the sandbox.
    Teardown,
}

impl Phase {
    /// Whether the phase is part of the recovery time (RTO).
    pub const fn counts(self) -> bool {
        match self {
            Phase::Provision | Phase::Locate | Phase::Preflight | Phase::Restore | Phase::Load | Phase::Ready => true,
            Phase::Inspect | Phase::Verify | Phase::Teardown => false,
        }
    }
    /// As shown to people.
    pub const fn word(self) -> &'static str {
        match self {
            Phase::Provision => "provision",
            Phase::Locate => "locate",
            Phase::Preflight => "preflight",
            Phase::Restore => "restore",
            Phase::Inspect => "inspect",
            Phase::Load => "load",
            Phase::Ready => "ready",
            Phase::Verify => "verify",
            Phase::Teardown => "teardown",
        }
    }
}

/// What a sandbox is made of, as the evidence shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct SandboxFacts {
    /// How it was made, as `namespaces` or `none`.
    pub kind: String,
    /// Whether processes and mounts are apart from the host's.
    pub isolated: bool,
    /// `loopback only` or what else.
    pub network: String,
    /// `tmpfs`, `directory`, or which encrypted one.
    pub scratch: String,
    /// Bytes of scratch.
    pub scratch_bytes: u64,
    /// What keeps the scratch's pages off the swap device, or that nothing does.
    pub swap: String,
    /// Memory limit in bytes and how it is enforced; `None` where it is not.
    pub memory_limit: Option<u64>,
    /// Every bound and how it is held; empty in evidence of older versions.
    #[serde(default)]
    pub bounds: Vec<BoundFacts>,
    /// The user that processes inside run as, seen from the host.
    pub user: String,
    /// Weaknesses and remarks, in our words.
    pub remarks: Vec<String>,
}

/// How a sandbox ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Disposal {
    /// Method, after NIST SP 800-88: what happened to the data.
    pub method: String,
    /// What that method amounts to; absent in evidence of older versions.
    #[serde(default)]
    pub sanitization: Option<Sanitization>,
    /// When it began; absent in evidence of older versions.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it had ended and been looked after.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// From the one to the other on the monotonic clock, nanoseconds; absent where the runner that began it was lost.
    #[serde(default)]
    pub took: Option<Elapsed>,
    /// What was looked for afterwards, and whether it was gone.
    pub probes: Vec<Probe>,
}

impl Disposal {
    /// Whether all that was looked for is gone.
    pub fn complete(&self) -> bool {
        self.probes.iter().all(|p| p.gone)
    }

    /// When it was done, in words; `None` where the record does not say.
    pub fn when(&self) -> Option<String> {
        let (from, to) = (self.started_at?.to_human(), self.ended_at?.to_human());
        let span = if from == to { from } else { format!("{from} to {to}") };
        Some(self.took.map_or(span.clone(), |took| format!("{span}, in {took}")))
    }
}

/// What became of the restored data, in the words of NIST SP 800-88 Rev. 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Sanitization {
    /// It cannot be had through the system's own interfaces any more.
    Clear,
    /// What is left is ciphertext whose key is gone: cryptographic erase.
    Purge,
    /// It may still be on a medium.
    None,
}

impl Sanitization {
    /// As shown to people.
    pub const fn words(self) -> &'static str {
        match self {
            Sanitization::Clear => "clear",
            Sanitization::Purge => "purge, by cryptographic erase",
            Sanitization::None => "none",
        }
    }
}

/// One thing looked for after disposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Probe {
    /// What, in our words.
    pub what: String,
    /// Whether it is gone.
    pub gone: bool,
}

/// Who and what runs a drill.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct RunnerFacts {
    /// Version of firedrill.
    pub version: String,
    /// SHA-256 of the running binary.
    pub binary_sha256: Option<Sha256>,
    /// Name of the host.
    pub host: String,
    /// The user who started it.
    pub actor: String,
    /// Operating system and kernel.
    pub system: String,
}

/// Why a drill runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Somebody asked.
    OnDemand {
        /// Why, in their words.
        reason: Option<String>,
    },
    /// The schedule said so.
    Scheduled {
        /// The instant at which it was due.
        due: Timestamp,
        /// How often it was tried before and came to no result.
        #[serde(default, skip_serializing_if = "is_first")]
        attempt: u32,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_first(attempt: &u32) -> bool {
    *attempt == 0
}

impl Trigger {
    /// In words.
    pub fn words(&self) -> String {
        match self {
            Trigger::OnDemand { reason: Some(reason) } => format!("on demand: {reason}"),
            Trigger::OnDemand { reason: None } => "on demand".to_owned(),
            Trigger::Scheduled { due, attempt: 0 } => format!("scheduled for {}", due.to_human()),
            Trigger::Scheduled { due, attempt } => format!("scheduled for {}, tried again ({attempt})", due.to_human()),
        }
    }
}

/// All that is fixed before a drill starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Plan {
    /// The scenario's name.
    pub scenario: ScenarioName,
    /// What the contingency plan calls the system.
    pub system: String,
    /// How much depends on it.
    pub criticality: Criticality,
    /// The contingency plan.
    pub plan: Option<PlanRef>,
    /// SHA-256 of the scenario file: the pass criteria, fixed before the run.
    pub scenario_sha256: Sha256,
    /// BLAKE3 of the same.
    pub scenario_blake3: Blake3,
    /// RPO and RTO.
    pub objectives: Objectives,
    /// Why it runs.
    pub trigger: Trigger,
    /// Names of the checks that will be asked.
    pub checks: Vec<String>,
    /// Which recovery point was asked for: `latest`, `as of …` or `by id`.
    pub selection: String,
}

/// The recovery point that was selected, without its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct SelectedPoint {
    /// Of which component of the system; absent where there is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Stands for its id.
    pub point: Pseudonym,
    /// When its data was captured.
    pub captured_at: Timestamp,
    /// How that is known.
    pub captured_from: CaptureSource,
    /// Its form.
    pub form: PointForm,
    /// Bytes in storage.
    pub size: u64,
    /// How many objects it has.
    pub objects: u64,
    /// How many recovery points the listing showed.
    pub points_seen: u64,
    /// The worst gap between consecutive recovery points, seconds.
    pub worst_gap: Option<Period>,
    /// What the manifest says of its producer's signature: `trusted`, `not trusted`, `unsigned`, or `no manifest`.
    pub producer: String,
}

/// What a restore made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct RestoredFacts {
    /// Of which component of the system; absent where there is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Everything else.
    pub others: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Entries that were not restored.
    pub skipped: u64,
    /// Layers, from the outside in, as `age`, `zstd`, `tar`.
    pub layers: Vec<String>,
    /// BLAKE3 over all entries in archive order, content digests included.
    pub tree_blake3: Option<Blake3>,
}

impl RestoredFacts {
    /// Counts another component in. There is no one digest of several trees.
    pub fn add(&mut self, other: &RestoredFacts) {
        self.files += other.files;
        self.directories += other.directories;
        self.others += other.others;
        self.bytes += other.bytes;
        self.skipped += other.skipped;
        self.tree_blake3 = None;
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DrillEventKind {
    /// The drill started.
    Started {
        /// What was fixed beforehand.
        plan: Box<Plan>,
        /// Who and what runs it.
        runner: RunnerFacts,
    },
    /// A phase began, and with it the one before ended.
    PhaseBegan {
        /// Which.
        phase: Phase,
        /// For which component of the system; absent where there is one only, and for phases of all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        component: Option<String>,
    },
    /// The sandbox stood.
    SandboxProvisioned {
        /// What it is made of.
        facts: SandboxFacts,
    },
    /// A recovery point was selected.
    PointSelected {
        /// Which.
        point: SelectedPoint,
    },
    /// Everything was restored.
    Restored {
        /// What was made.
        facts: RestoredFacts,
    },
    /// The restored system became usable: the recovery clock stopped.
    BecameUsable,
    /// What the credentials may do beyond reading was cited: it was asked before the drill, which itself only reads.
    RightsCited {
        /// The answers.
        rights: RightsFacts,
    },
    /// What was read, and how; recorded also where the restore failed half-way.
    ChainRecorded {
        /// Object versions.
        chain: RestoreChain,
        /// The way to the storage.
        transport: Transport,
    },
    /// A foreign tool was found, before it saw any of the backup.
    ToolFound {
        /// Which.
        tool: ToolFacts,
    },
    /// The last foreign tool had ended, and the gateway was closed.
    GatewayClosed {
        /// What it had served.
        served: ServedFacts,
    },
    /// A service stood on the restored data, and answered.
    ServiceReady {
        /// Which.
        service: ServiceFacts,
    },
    /// A check ended.
    CheckEnded {
        /// How.
        report: CheckReport,
    },
    /// The data's age was measured.
    DataDated {
        /// The newest data's instant; `at` on paper is the event's own.
        #[serde(rename = "data_as_of")]
        at: Timestamp,
        /// How it is known.
        source: CaptureSource,
    },
    /// Something was found outside of a check.
    Found {
        /// What.
        finding: Finding,
    },
    /// Everything inside was ended, and its attempts to reach the outside were counted.
    EgressRecorded {
        /// What was attempted.
        egress: Egress,
    },
    /// The sandbox was destroyed.
    SandboxDestroyed {
        /// How.
        disposal: Disposal,
    },
    /// The drill ended.
    Finished {
        /// How.
        verdict: Verdict,
        /// Objectives against measurements.
        assessments: Vec<Assessment>,
        /// What was measured.
        measurements: Measurements,
    },
}

/// One event of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct DrillEvent {
    /// Of which drill.
    pub drill: DrillId,
    /// Counts from 0 without gaps.
    pub seq: u64,
    /// Wall-clock time.
    pub at: Timestamp,
    /// Monotonic time since the drill's start, nanoseconds.
    pub elapsed: Elapsed,
    /// What happened.
    #[serde(flatten)]
    pub kind: DrillEventKind,
}
