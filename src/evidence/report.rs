//! The report: the full record of one drill, a pure fold of its events.

use serde::{Deserialize, Serialize};

use super::controls::{ProfileRows, controls};
use super::limits::{Limit, limits};
use super::{EvidenceError, KeyCustody, Signer};
use crate::domain::{
    Assessment, CheckOutcome, CheckReport, Disposal, DrillEvent, DrillEventKind, DrillId, DrillState, Egress, Elapsed, Finding,
    Measurements, Phase, Plan, RestoreChain, RestoredFacts, RightsFacts, RunnerFacts, SandboxFacts, SelectedPoint, ServedFacts,
    ServiceFacts, Severity, Timestamp, ToolFacts, Transport, Verdict, phase_lengths, recount,
};

/// The schema of `report.json`.
pub const REPORT_SCHEMA: &str = "firedrill.dev/report/v1";

/// The full record of a drill. Free of patients' data by construction: names are pseudonyms, texts are our own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`REPORT_SCHEMA`].
    pub schema: String,
    /// The drill's id.
    pub report_id: DrillId,
    /// How the drill ended.
    pub verdict: Verdict,
    /// When it started, by the runner's wall clock.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// What was fixed before it started.
    pub plan: Plan,
    /// Who and what ran it.
    pub runner: RunnerFacts,
    /// Who signs.
    pub issuer: Issuer,
    /// The backup under test.
    pub backup: Backup,
    /// The components of the system, in the order in which they were restored; empty where there is one only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<ComponentFacts>,
    /// What the sandbox was made of; `null` where there was none.
    pub sandbox: Option<SandboxFacts>,
    /// Foreign tools that restored, in the order of the scenario; empty where the native pipeline did.
    #[serde(default)]
    pub tools: Vec<ToolFacts>,
    /// Services that were started on what was restored; empty in evidence of older versions.
    #[serde(default)]
    pub services: Vec<ServiceFacts>,
    /// What the gateway served to them; `null` where none ran.
    #[serde(default)]
    pub served: Option<ServedFacts>,
    /// What was restored; `null` where the restore did not get to its end.
    pub restored: Option<RestoredFacts>,
    /// The phases, one after the other; on the monotonic clock, nanoseconds.
    pub timeline: Vec<PhaseTime>,
    /// From the start until the restored system was usable, nanoseconds; `null` where it never was.
    pub usable_after: Option<Elapsed>,
    /// The two clocks of the runner.
    pub clock: ClockFacts,
    /// What was measured.
    pub measurements: Measurements,
    /// Measurements against objectives.
    pub assessments: Vec<Assessment>,
    /// What the measured words mean.
    pub definitions: Vec<Definition>,
    /// Assertions about restored content that were asked and answered.
    pub assertions: u32,
    /// The checks.
    pub checks: Vec<CheckReport>,
    /// What was found outside of checks.
    pub findings: Vec<Finding>,
    /// Attempts of what ran inside to reach the outside; `null` where nothing could run, or by a version that did not record them.
    #[serde(default)]
    pub egress: Option<Egress>,
    /// How the sandbox ended; `null` where there was none.
    pub disposal: Option<Disposal>,
    /// Which controls the drill says something about.
    pub controls: Vec<ProfileRows>,
    /// What the drill does not prove.
    pub not_proven: Vec<Limit>,
}

/// Who signs the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Fingerprint of the signing key, `SHA256:…`.
    pub key: String,
    /// How the key came to be.
    pub custody: KeyCustody,
    /// The organisation, as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
}

/// The backup under test.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// The recovery point; `null` where none was selected.
    pub point: Option<SelectedPoint>,
    /// The exact object versions that were read.
    pub chain: RestoreChain,
    /// The way to the storage; `null` where it was never reached.
    pub transport: Option<Transport>,
    /// What the credentials may do beyond reading, as it was last asked; absent where it was not, and in evidence of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights: Option<RightsFacts>,
}

/// One component of a system that has several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ComponentFacts {
    /// Its name in the scenario.
    pub name: String,
    /// Its recovery point.
    pub point: SelectedPoint,
    /// What was restored of it; `null` where its restore did not get to its end.
    pub restored: Option<RestoredFacts>,
}

/// One phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// For which component of the system; absent where there is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// When it began, nanoseconds after the start.
    pub began: Elapsed,
    /// How long it lasted, nanoseconds.
    pub lasted: Elapsed,
    /// Whether it is part of the recovery time.
    pub counts: bool,
}

/// The two clocks of the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ClockFacts {
    /// Length of the drill on the monotonic clock, nanoseconds.
    pub monotonic: Elapsed,
    /// What the wall clock moved more than the monotonic one, whole seconds.
    pub wall_minus_monotonic: i64,
}

/// What a measured word means, printed beside its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The word.
    pub word: String,
    /// Its meaning.
    pub meaning: String,
}

impl Issuer {
    /// For a report that `signer` will sign.
    pub fn of(signer: &dyn Signer, custody: KeyCustody, organisation: Option<String>) -> Self {
        Self { key: signer.public().fingerprint(), custody, organisation }
    }
}

impl Report {
    /// Folds the events of a whole drill. What the drill recorded as its outcome must be what follows from its events.
    ///
    /// # Errors
    /// [`EvidenceError::Order`], [`EvidenceError::Incomplete`], [`EvidenceError::Disagrees`],
    /// [`EvidenceError::VerdictDisagrees`].
    pub fn from_events(events: &[DrillEvent], issuer: Issuer) -> Result<Self, EvidenceError> {
        let mut order = DrillState::default();
        for event in events {
            order.apply(event)?;
        }
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Err(EvidenceError::Incomplete { what: "there are none" });
        };
        let DrillEventKind::Started { plan, runner } = &first.kind else {
            return Err(EvidenceError::Incomplete { what: "the first is not `started`" });
        };
        let DrillEventKind::Finished { verdict, assessments, measurements } = &last.kind else {
            return Err(EvidenceError::Incomplete { what: "the last is not `finished`" });
        };
        let counted = recount(events).ok_or(EvidenceError::Incomplete { what: "the first is not `started`" })?;
        if counted.measurements != *measurements {
            return Err(EvidenceError::Disagrees { what: "measurements" });
        }
        if counted.assessments != *assessments {
            return Err(EvidenceError::Disagrees { what: "assessments" });
        }
        if counted.verdict != *verdict {
            return Err(EvidenceError::VerdictDisagrees { recorded: *verdict, recounted: counted.verdict });
        }
        let wall = last.at.seconds_since(first.at);
        let monotonic = i64::try_from(last.elapsed.nanos / 1_000_000_000).unwrap_or(i64::MAX);
        let mut report = Self {
            schema: REPORT_SCHEMA.to_owned(),
            report_id: first.drill.clone(),
            verdict: *verdict,
            started_at: first.at,
            finished_at: last.at,
            plan: (**plan).clone(),
            runner: runner.clone(),
            issuer,
            backup: Backup::default(),
            components: Vec::new(),
            sandbox: None,
            tools: Vec::new(),
            services: Vec::new(),
            served: None,
            restored: None,
            timeline: timeline(events),
            usable_after: None,
            clock: ClockFacts { monotonic: last.elapsed, wall_minus_monotonic: wall.saturating_sub(monotonic) },
            measurements: measurements.clone(),
            assessments: assessments.clone(),
            definitions: definitions(),
            assertions: counted.assertions,
            checks: Vec::new(),
            findings: Vec::new(),
            egress: None,
            disposal: None,
            controls: Vec::new(),
            not_proven: Vec::new(),
        };
        for event in events {
            report.take(event);
        }
        report.controls = controls(&report);
        report.not_proven = limits(&report);
        Ok(report)
    }

    fn take(&mut self, event: &DrillEvent) {
        match &event.kind {
            DrillEventKind::SandboxProvisioned { facts } => self.sandbox = Some(facts.clone()),
            DrillEventKind::RightsCited { rights } => self.backup.rights = Some(rights.clone()),
            DrillEventKind::PointSelected { point } => {
                if let Some(name) = &point.component {
                    self.components.push(ComponentFacts { name: name.clone(), point: point.clone(), restored: None });
                }
                self.backup.point.get_or_insert_with(|| point.clone());
            }
            DrillEventKind::Restored { facts } => {
                if let Some(component) = self.components.iter_mut().find(|c| Some(&c.name) == facts.component.as_ref()) {
                    component.restored = Some(facts.clone());
                }
                match &mut self.restored {
                    Some(so_far) => so_far.add(facts),
                    None => self.restored = Some(RestoredFacts { component: None, ..facts.clone() }),
                }
            }
            DrillEventKind::BecameUsable => {
                self.usable_after.get_or_insert(event.elapsed);
            }
            DrillEventKind::ChainRecorded { chain, transport } => {
                self.backup.chain.objects.extend(chain.objects.iter().cloned());
                self.backup.chain.summary = chain.summary.clone();
                self.backup.transport = Some(transport.clone());
            }
            DrillEventKind::ToolFound { tool } => self.tools.push(tool.clone()),
            DrillEventKind::ServiceReady { service } => self.services.push(service.clone()),
            DrillEventKind::GatewayClosed { served } => match &mut self.served {
                Some(so_far) => so_far.add(served),
                None => self.served = Some(served.clone()),
            },
            DrillEventKind::CheckEnded { report } => self.checks.push(report.clone()),
            DrillEventKind::Found { finding } => self.findings.push(finding.clone()),
            DrillEventKind::EgressRecorded { egress } => {
                self.findings.extend(egress.findings());
                self.egress = Some(egress.clone());
            }
            DrillEventKind::SandboxDestroyed { disposal } => self.disposal = Some(disposal.clone()),
            DrillEventKind::Started { .. }
            | DrillEventKind::PhaseBegan { .. }
            | DrillEventKind::DataDated { .. }
            | DrillEventKind::Finished { .. } => {}
        }
    }

    /// The bytes of `report.json`: pretty, keys in the order of the fields, a newline at the end.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a report has string keys and finite numbers");
        bytes.push(b'\n');
        bytes
    }

    /// Every finding: those of checks first, in their order.
    pub fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        self.checks.iter().flat_map(|c| &c.findings).chain(&self.findings)
    }

    /// Findings that keep the drill from passing.
    pub fn failures(&self) -> impl Iterator<Item = &Finding> {
        self.all_findings().filter(|f| f.severity == Severity::Fail)
    }

    /// Whether anything warns.
    pub fn has_warnings(&self) -> bool {
        self.all_findings().any(|f| f.severity == Severity::Warn) || self.checks.iter().any(|c| c.outcome == CheckOutcome::Warned)
    }

    /// How long all phases that count took together.
    pub fn counted_time(&self) -> Elapsed {
        self.timeline.iter().filter(|p| p.counts).map(|p| p.lasted).sum()
    }

    /// What in `self`, as stored, is not what follows from the events. Texts that later versions may word better
    /// (definitions, limits, controls) are taken as they were signed; facts are not.
    pub(super) fn contradiction(&self, events: &[DrillEvent]) -> Result<Option<&'static str>, EvidenceError> {
        let folded = Self::from_events(events, self.issuer.clone())?;
        let facts: [(&'static str, bool); 24] = [
            ("schema", folded.schema == self.schema),
            ("report id", folded.report_id == self.report_id),
            ("verdict", folded.verdict == self.verdict),
            ("start", folded.started_at == self.started_at),
            ("end", folded.finished_at == self.finished_at),
            ("plan", folded.plan == self.plan),
            ("runner", folded.runner == self.runner),
            ("backup", folded.backup == self.backup),
            ("components", folded.components == self.components),
            ("sandbox", folded.sandbox == self.sandbox),
            ("tools", folded.tools == self.tools),
            ("services", folded.services == self.services),
            ("what the gateway served", folded.served == self.served),
            ("restored content", folded.restored == self.restored),
            ("timeline", folded.timeline == self.timeline),
            ("time to usable", folded.usable_after == self.usable_after),
            ("clock", folded.clock == self.clock),
            ("measurements", folded.measurements == self.measurements),
            ("assessments", folded.assessments == self.assessments),
            ("assertions", folded.assertions == self.assertions),
            ("checks", folded.checks == self.checks),
            ("findings", folded.findings == self.findings),
            ("egress", folded.egress == self.egress),
            ("disposal", folded.disposal == self.disposal),
        ];
        Ok(facts.into_iter().find(|(_, same)| !same).map(|(what, _)| what))
    }
}

fn timeline(events: &[DrillEvent]) -> Vec<PhaseTime> {
    let began = events.iter().filter_map(|e| match &e.kind {
        DrillEventKind::PhaseBegan { phase, component } => Some((*phase, component.clone(), e.elapsed)),
        _ => None,
    });
    began
        .zip(phase_lengths(events))
        .map(|((phase, component, began), (_, lasted))| PhaseTime { phase, component, began, lasted, counts: phase.counts() })
        .collect()
}

/// What starts and stops each clock.
fn definitions() -> Vec<Definition> {
    [
        (
            "recovery time (RTO)",
            "From the start of the drill until the restored system was usable, on the runner's monotonic clock: provision, locate, \
             preflight, restore, load and ready. Inspection of restored files, verification and teardown are shown and not counted. What \
             people need before that is added where the scenario declares it, and is marked as declared.",
        ),
        (
            "data age (RPO)",
            "Start of the drill minus the newest data of the restored backup. The source of that date is named; an upload time says \
             when something was stored, not when its data was captured.",
        ),
        (
            "worst gap",
            "The longest time between the capture times of consecutive recovery points in the look-back window, the time since the \
             last one included: what a disaster at the worst moment would have lost.",
        ),
    ]
    .into_iter()
    .map(|(word, meaning)| Definition { word: word.to_owned(), meaning: meaning.to_owned() })
    .collect()
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use super::*;
    use crate::evidence::sample;

    #[test]
    fn phases_add_up_to_the_length_of_the_drill() {
        let report = sample::report(&sample::passed());
        let sum: Elapsed = report.timeline.iter().map(|p| p.lasted).sum();
        assert_eq!(sum + report.timeline[0].began, report.clock.monotonic);
        assert!(report.counted_time() <= report.usable_after.unwrap());
    }

    #[test]
    fn a_report_survives_its_json_and_refuses_unknown_keys() {
        let report = sample::report(&sample::failed());
        let json = report.to_json();
        assert_eq!(serde_json::from_slice::<Report>(&json).unwrap(), report);
        let text = String::from_utf8(json).unwrap().replacen("{", "{\"comment\": 1,", 1);
        assert!(serde_json::from_str::<Report>(&text).is_err());
    }

    #[test]
    fn an_outcome_that_does_not_follow_from_the_events_is_refused() {
        let mut events = sample::failed();
        if let DrillEventKind::Finished { verdict, .. } = &mut events.last_mut().unwrap().kind {
            *verdict = Verdict::Passed;
        }
        assert!(matches!(Report::from_events(&events, sample::issuer()), Err(EvidenceError::VerdictDisagrees { .. })));
        let mut events = sample::passed();
        if let DrillEventKind::Finished { measurements, .. } = &mut events.last_mut().unwrap().kind {
            measurements.recovery.as_mut().unwrap().measured = Elapsed { nanos: 1 };
        }
        assert!(matches!(Report::from_events(&events, sample::issuer()), Err(EvidenceError::Disagrees { what: "measurements" })));
        let mut events = sample::passed();
        if let DrillEventKind::Finished { assessments, .. } = &mut events.last_mut().unwrap().kind {
            assessments.pop();
        }
        assert!(matches!(Report::from_events(&events, sample::issuer()), Err(EvidenceError::Disagrees { what: "assessments" })));
        let events = sample::passed();
        assert!(matches!(Report::from_events(&events[..4], sample::issuer()), Err(EvidenceError::Incomplete { .. })));
        assert!(matches!(Report::from_events(&[], sample::issuer()), Err(EvidenceError::Incomplete { .. })));
    }

    #[test]
    fn a_report_that_says_other_than_its_events_is_caught() {
        let events = sample::failed();
        let report = sample::report(&events);
        assert_eq!(report.contradiction(&events).unwrap(), None);
        let mut prettier = report.clone();
        prettier.verdict = Verdict::Passed;
        assert_eq!(prettier.contradiction(&events).unwrap(), Some("verdict"));
        let mut prettier = report.clone();
        prettier.findings.clear();
        prettier.checks[0].findings.clear();
        assert_eq!(prettier.contradiction(&events).unwrap(), Some("checks"));
        let mut prettier = report;
        prettier.backup.chain.objects.pop();
        assert_eq!(prettier.contradiction(&events).unwrap(), Some("backup"));
        let events = sample::called_home();
        let report = sample::report(&events);
        assert_eq!(report.contradiction(&events).unwrap(), None);
        let mut prettier = report.clone();
        prettier.egress.as_mut().unwrap().attempts.clear();
        assert_eq!(prettier.contradiction(&events).unwrap(), Some("egress"));
        let mut prettier = report;
        prettier.findings.retain(|f| f.check != "egress");
        assert_eq!(prettier.contradiction(&events).unwrap(), Some("findings"));
    }

    /// Reports of versions that did not record attempts have no such field.
    #[test]
    fn a_report_without_attempts_is_read() {
        let events = sample::passed();
        let mut old: serde_json::Value = serde_json::from_slice(&sample::report(&events).to_json()).unwrap();
        assert!(old.as_object_mut().unwrap().remove("egress").is_some());
        let old: Report = serde_json::from_value(old).unwrap();
        assert_eq!((old.contradiction(&events).unwrap(), old.egress), (None, None));
    }
}

/// The JSON Schema of `report.json`, as published in `docs/schema/report.v1.schema.json`.
#[cfg(feature = "runner")]
pub fn report_schema() -> serde_json::Value {
    let mut schema = serde_json::Value::from(schemars::schema_for!(Report));
    schema["$id"] = format!("https://{REPORT_SCHEMA}.schema.json").into();
    schema
}
