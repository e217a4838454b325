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

/// Why an event is not legal here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventOrderError {
    /// It belongs to another drill.
    #[error("event {seq} belongs to another drill")]
    OtherDrill {
        /// Its number.
        seq: u64,
    },
    /// Its number is not the next one.
    #[error("expected event {expected}, found {found}")]
    Gap {
        /// The next number.
        expected: u64,
        /// The number found.
        found: u64,
    },
    /// Monotonic time ran backwards.
    #[error("event {seq} is earlier than the one before it")]
    Backwards {
        /// Its number.
        seq: u64,
    },
    /// Nothing may come before `started`, nor a second one after.
    #[error("event {seq}: a drill starts once, at its beginning")]
    Start {
        /// Its number.
        seq: u64,
    },
    /// Nothing may follow `finished`.
    #[error("event {seq} comes after the verdict")]
    AfterVerdict {
        /// Its number.
        seq: u64,
    },
    /// Phases only go forward.
    #[error("event {seq}: phase {phase:?} cannot follow {after:?}")]
    Phase {
        /// Its number.
        seq: u64,
        /// The phase.
        phase: Phase,
        /// The one before.
        after: Phase,
    },
    /// Attempts to reach the outside, with nothing that could have made them.
    #[error("event {seq}: attempts were recorded while no sandbox stood")]
    NoSandbox {
        /// Its number.
        seq: u64,
    },
    /// A verdict while a sandbox still stands.
    #[error("event {seq}: the verdict came while the sandbox stood")]
    SandboxStands {
        /// Its number.
        seq: u64,
    },
}

/// Knows the legal order of a drill's events.
#[derive(Debug, Clone, Default)]
pub struct DrillState {
    drill: Option<DrillId>,
    next: u64,
    elapsed: Elapsed,
    phase: Option<Phase>,
    components: Vec<Option<String>>,
    sandbox_stands: bool,
    finished: bool,
}

impl DrillState {
    /// Takes the next event.
    ///
    /// # Errors
    /// [`EventOrderError`]; the state is unchanged then.
    pub fn apply(&mut self, event: &DrillEvent) -> Result<(), EventOrderError> {
        let seq = event.seq;
        if self.drill.as_ref().is_some_and(|d| *d != event.drill) {
            return Err(EventOrderError::OtherDrill { seq });
        }
        if seq != self.next {
            return Err(EventOrderError::Gap { expected: self.next, found: seq });
        }
        if self.finished {
            return Err(EventOrderError::AfterVerdict { seq });
        }
        if event.elapsed < self.elapsed {
            return Err(EventOrderError::Backwards { seq });
        }
        let is_start = matches!(event.kind, DrillEventKind::Started { .. });
        if is_start != (seq == 0) {
            return Err(EventOrderError::Start { seq });
        }
        match &event.kind {
            DrillEventKind::PhaseBegan { phase, component } => {
                // components are located and restored one after the other
                let next_component = *phase == Phase::Locate && component.is_some() && !self.components.contains(component);
                if let Some(after) = self.phase
                    && *phase <= after
                    && !(next_component && after <= Phase::Restore)
                {
                    return Err(EventOrderError::Phase { seq, phase: *phase, after });
                }
                self.phase = Some(*phase);
                if next_component {
                    self.components.push(component.clone());
                }
            }
            DrillEventKind::SandboxProvisioned { .. } => self.sandbox_stands = true,
            DrillEventKind::EgressRecorded { .. } if !self.sandbox_stands => return Err(EventOrderError::NoSandbox { seq }),
            DrillEventKind::SandboxDestroyed { .. } => self.sandbox_stands = false,
            DrillEventKind::Finished { .. } => {
                if self.sandbox_stands {
                    return Err(EventOrderError::SandboxStands { seq });
                }
                self.finished = true;
            }
            DrillEventKind::Started { .. }
            | DrillEventKind::PointSelected { .. }
            | DrillEventKind::RightsCited { .. }
            | DrillEventKind::Restored { .. }
            | DrillEventKind::BecameUsable
            | DrillEventKind::ChainRecorded { .. }
            | DrillEventKind::ToolFound { .. }
            | DrillEventKind::GatewayClosed { .. }
            | DrillEventKind::ServiceReady { .. }
            | DrillEventKind::CheckEnded { .. }
            | DrillEventKind::DataDated { .. }
            | DrillEventKind::EgressRecorded { .. }
            | DrillEventKind::Found { .. } => {}
        }
        self.drill.get_or_insert_with(|| event.drill.clone());
        self.next += 1;
        self.elapsed = event.elapsed;
        Ok(())
    }

    /// Whether the verdict has been recorded.
    pub fn is_finished(&self) -> bool {
        self.finished
    }
    /// Whether a sandbox stands.
    pub fn sandbox_stands(&self) -> bool {
        self.sandbox_stands
    }
    /// The number of the next event.
    pub fn next_seq(&self) -> u64 {
        self.next
    }
    /// The current phase.
    pub fn phase(&self) -> Option<Phase> {
        self.phase
    }
}

/// Lengths of the phases, in order: each lasts until the next begins, the last until `end`.
pub fn phase_lengths(events: &[DrillEvent]) -> Vec<(Phase, Elapsed)> {
    let mut lengths: Vec<(Phase, Elapsed)> = Vec::new();
    let mut current: Option<(Phase, Elapsed)> = None;
    for event in events {
        let next = match &event.kind {
            DrillEventKind::PhaseBegan { phase, .. } => Some(*phase),
            DrillEventKind::Finished { .. } => None,
            _ => continue,
        };
        if let Some((phase, began)) = current.take() {
            lengths.push((phase, event.elapsed.since(began)));
        }
        current = next.map(|phase| (phase, event.elapsed));
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, nanos: u64, kind: DrillEventKind) -> DrillEvent {
        DrillEvent { drill: DrillId("d".into()), seq, at: Timestamp::from_unix(0), elapsed: Elapsed { nanos }, kind }
    }

    fn started() -> DrillEventKind {
        DrillEventKind::Started {
            plan: Box::new(Plan {
                scenario: "ehr".parse().unwrap(),
                system: "EHR".into(),
                criticality: Criticality::High,
                plan: None,
                scenario_sha256: Sha256([0; 32]),
                scenario_blake3: Blake3([0; 32]),
                objectives: Objectives::default(),
                trigger: Trigger::OnDemand { reason: None },
                checks: vec![],
                selection: "latest".into(),
            }),
            runner: RunnerFacts::default(),
        }
    }

    fn finished() -> DrillEventKind {
        DrillEventKind::Finished { verdict: Verdict::Passed, assessments: vec![], measurements: Measurements::default() }
    }

    #[test]
    fn events_keep_their_order() {
        let phase = |phase| DrillEventKind::PhaseBegan { phase, component: None };
        let sandbox = DrillEventKind::SandboxProvisioned { facts: SandboxFacts::default() };
        let mut state = DrillState::default();
        assert_eq!(state.apply(&event(0, 0, phase(Phase::Locate))), Err(EventOrderError::Start { seq: 0 }));
        state.apply(&event(0, 0, started())).unwrap();
        assert_eq!(state.apply(&event(1, 1, started())), Err(EventOrderError::Start { seq: 1 }));
        assert_eq!(state.apply(&event(2, 1, phase(Phase::Locate))), Err(EventOrderError::Gap { expected: 1, found: 2 }));
        state.apply(&event(1, 5, phase(Phase::Restore))).unwrap();
        assert_eq!(state.apply(&event(2, 4, phase(Phase::Verify))), Err(EventOrderError::Backwards { seq: 2 }));
        assert!(matches!(state.apply(&event(2, 6, phase(Phase::Locate))), Err(EventOrderError::Phase { .. })));
        let attempts = DrillEventKind::EgressRecorded { egress: Egress::default() };
        assert_eq!(state.apply(&event(2, 6, attempts.clone())), Err(EventOrderError::NoSandbox { seq: 2 }));
        state.apply(&event(2, 6, sandbox)).unwrap();
        state.clone().apply(&event(3, 6, attempts)).unwrap();
        assert_eq!(state.apply(&event(3, 7, finished())), Err(EventOrderError::SandboxStands { seq: 3 }));
        state.apply(&event(3, 7, DrillEventKind::SandboxDestroyed { disposal: Disposal::default() })).unwrap();
        state.apply(&event(4, 8, finished())).unwrap();
        assert_eq!(state.apply(&event(5, 9, DrillEventKind::BecameUsable)), Err(EventOrderError::AfterVerdict { seq: 5 }));
    }

    #[test]
    fn phases_add_up_to_the_whole() {
        let events = [
            event(0, 0, started()),
            event(1, 0, DrillEventKind::PhaseBegan { phase: Phase::Locate, component: None }),
            event(2, 30, DrillEventKind::PhaseBegan { phase: Phase::Restore, component: None }),
            event(3, 100, DrillEventKind::PhaseBegan { phase: Phase::Verify, component: None }),
            event(4, 120, finished()),
        ];
        let lengths = phase_lengths(&events);
        assert_eq!(lengths.iter().map(|(_, e)| e.nanos).collect::<Vec<_>>(), [30, 70, 20]);
        assert_eq!(lengths.iter().map(|(_, e)| *e).sum::<Elapsed>(), Elapsed { nanos: 120 });
    }

    #[test]
    fn an_event_survives_json() {
        let dated = DrillEventKind::DataDated { at: Timestamp::from_unix(7), source: CaptureSource::Content };
        for kind in [started(), finished(), dated, DrillEventKind::BecameUsable] {
            let event = event(0, 1, kind);
            let json = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<DrillEvent>(&json).unwrap(), event);
        }
    }

    #[test]
    fn a_disposal_of_an_older_version_is_read_and_claims_nothing_new() {
        let old = r#"{"method":"scratch was memory only","probes":[{"what":"the helper process","gone":true}]}"#;
        let disposal: Disposal = serde_json::from_str(old).unwrap();
        assert!(disposal.complete());
        assert_eq!((disposal.sanitization, disposal.when()), (None, None));
    }

    #[test]
    fn a_disposal_says_when_in_one_line() {
        let at = |s| Some(Timestamp::from_unix(s));
        let one = Disposal { started_at: at(0), ended_at: at(0), took: Some(Elapsed { nanos: 80_000_000 }), ..Disposal::default() };
        assert_eq!(one.when().unwrap(), format!("{}, in {}", Timestamp::from_unix(0).to_human(), Elapsed { nanos: 80_000_000 }));
        let two = Disposal { started_at: at(0), ended_at: at(60), ..Disposal::default() };
        assert!(two.when().unwrap().contains(" to "));
    }
}
