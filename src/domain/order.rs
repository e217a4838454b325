//! The legal order of a drill's events, to which who writes a journal is held as who reads one; and the lengths of its phases.

use super::{DrillEvent, DrillEventKind, DrillId, Elapsed, Phase};

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
    use crate::domain::{
        Blake3, CaptureSource, Criticality, Disposal, Egress, Measurements, Objectives, Plan, RunnerFacts, SandboxFacts, Sha256, Timestamp,
        Trigger, Verdict,
    };

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
