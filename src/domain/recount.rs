//! What a list of events amounts to: one pure fold, used by the drill that concludes and by the verifier that doubts it.

use super::{
    Achieved, Assessment, CheckOutcome, DrillEvent, DrillEventKind, Elapsed, Finding, Measurements, Period, Recovery, Timestamp, Verdict,
    assess, conclude,
};

/// Everything a verdict rests on, counted again from the events alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recount {
    /// What was measured.
    pub measurements: Measurements,
    /// Objectives against measurements.
    pub assessments: Vec<Assessment>,
    /// Every finding, in the order of the events: those of checks and those outside of checks.
    pub findings: Vec<Finding>,
    /// Assertions about restored content that were asked and answered.
    pub assertions: u32,
    /// What follows.
    pub verdict: Verdict,
}

/// Measures, assesses and concludes from the events before the verdict. `None` where the drill never started.
pub fn recount(events: &[DrillEvent]) -> Option<Recount> {
    let started = events.first()?;
    let DrillEventKind::Started { plan, .. } = &started.kind else { return None };
    let declared = plan.objectives.declared.unwrap_or_default();
    let measurements = measure(events, started.at, declared);
    let assessments = assess(&plan.objectives, &measurements);
    let mut findings = Vec::new();
    let mut assertions: u32 = 0;
    for event in events {
        match &event.kind {
            DrillEventKind::Found { finding } => findings.push(finding.clone()),
            DrillEventKind::EgressRecorded { egress } => findings.extend(egress.findings()),
            DrillEventKind::CheckEnded { report } => {
                findings.extend(report.findings.iter().cloned());
                match report.outcome {
                    CheckOutcome::Passed | CheckOutcome::Warned | CheckOutcome::Failed => {
                        assertions = assertions.saturating_add(report.assertions);
                    }
                    CheckOutcome::CouldNotRun => {}
                }
            }
            _ => {}
        }
    }
    let verdict = conclude(&findings, &assessments, assertions);
    Some(Recount { measurements, assessments, findings, assertions, verdict })
}

/// Recovery time ends at `BecameUsable`, less the phases before it that do not count. Data age counts only what was restored: the newest date found in the content,
/// else what the recovery point says of its capture. It is taken at the drill's start, and never below zero.
fn measure(events: &[DrillEvent], started: Timestamp, declared: Period) -> Measurements {
    let mut measured = Measurements::default();
    let mut restored = false;
    let mut dated: Option<(super::CaptureSource, Timestamp)> = None;
    let mut captured: Vec<(super::CaptureSource, Timestamp)> = Vec::new();
    let several = components(events) > 1;
    for event in events {
        match &event.kind {
            DrillEventKind::BecameUsable => {
                measured.recovery.get_or_insert(Recovery { measured: event.elapsed.since(uncounted(events, event.elapsed)), declared });
            }
            DrillEventKind::PointSelected { point } => {
                measured.worst_gap = measured.worst_gap.max(point.worst_gap);
                captured.push((point.captured_from, point.captured_at));
            }
            DrillEventKind::Restored { .. } => restored = true,
            DrillEventKind::DataDated { at, source } => {
                let better = match dated {
                    None => true,
                    // each date is another component's: the oldest stands for the system
                    Some((known, when)) if several && *source == known => *at < when,
                    Some((known, when)) => *source < known || (*source == known && *at > when),
                };
                if better {
                    dated = Some((*source, *at));
                }
            }
            _ => {}
        }
    }
    if several {
        measured.skew = skew(&captured);
        // a system is as old as the oldest of its components
        captured.extend(dated.take());
    }
    let oldest = captured.into_iter().min_by_key(|(_, at)| *at);
    if restored && let Some((source, data_as_of)) = dated.or(oldest) {
        let age = u64::try_from(started.seconds_since(data_as_of)).unwrap_or(0);
        measured.data_age = Some(Achieved { data_as_of, age: Period::from_secs(age), source });
    }
    measured
}

/// How many components of the system were selected.
fn components(events: &[DrillEvent]) -> usize {
    events.iter().filter(|event| matches!(&event.kind, DrillEventKind::PointSelected { point } if point.component.is_some())).count()
}

/// From the capture of the oldest to that of the newest.
fn skew(captured: &[(super::CaptureSource, Timestamp)]) -> Option<Period> {
    let times = captured.iter().map(|(_, at)| *at);
    let (oldest, newest) = (times.clone().min()?, times.max()?);
    Some(Period::from_secs(newest.seconds_since(oldest).unsigned_abs()))
}

/// The time before `usable` that was spent in phases that do not count.
fn uncounted(events: &[DrillEvent], usable: Elapsed) -> Elapsed {
    let mut began = events.iter().filter_map(|event| match event.kind {
        DrillEventKind::PhaseBegan { phase, .. } if event.elapsed <= usable => Some((phase, event.elapsed)),
        _ => None,
    });
    let mut spent = Elapsed::default();
    let mut current = began.next();
    while let Some((phase, from)) = current {
        current = began.next();
        if !phase.counts() {
            spent.nanos += current.map_or(usable, |(_, next)| next).since(from).nanos;
        }
    }
    spent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        Blake3, CaptureSource, CheckReport, Criticality, DrillId, Egress, EgressPolicy, Elapsed, FindingKind, Met, Objectives, Plan,
        RestoredFacts, RunnerFacts, SelectedPoint, Sha256, Trigger,
    };

    fn events(kinds: Vec<DrillEventKind>) -> Vec<DrillEvent> {
        let start = DrillEventKind::Started {
            plan: Box::new(Plan {
                scenario: "ehr".parse().unwrap(),
                system: "EHR".into(),
                criticality: Criticality::High,
                plan: None,
                scenario_sha256: Sha256([0; 32]),
                scenario_blake3: Blake3([0; 32]),
                objectives: Objectives {
                    rpo: Some(Period::from_secs(100)),
                    rto: Some(Period::from_secs(10)),
                    declared: Some(Period::from_secs(5)),
                    skew: None,
                },
                trigger: Trigger::OnDemand { reason: None },
                checks: vec![],
                selection: "latest".into(),
            }),
            runner: RunnerFacts::default(),
        };
        std::iter::once(start)
            .chain(kinds)
            .enumerate()
            .map(|(i, kind)| DrillEvent {
                drill: DrillId("d".into()),
                seq: i as u64,
                at: Timestamp::from_unix(1_000),
                elapsed: Elapsed { nanos: i as u64 * 1_000_000_000 },
                kind,
            })
            .collect()
    }

    fn check(outcome: CheckOutcome, findings: Vec<Finding>) -> DrillEventKind {
        let report = CheckReport {
            name: "files".into(),
            kind: "files".into(),
            outcome,
            expected: String::new(),
            observed: String::new(),
            assertions: 2,
            findings,
            seen: None,
        };
        DrillEventKind::CheckEnded { report }
    }

    fn dated(source: CaptureSource, at: i64) -> DrillEventKind {
        DrillEventKind::DataDated { at: Timestamp::from_unix(at), source }
    }

    #[test]
    fn the_best_and_newest_date_of_restored_content_counts() {
        let restored = DrillEventKind::Restored { facts: RestoredFacts::default() };
        let good = recount(&events(vec![
            restored,
            DrillEventKind::BecameUsable,
            dated(CaptureSource::Manifest, 990),
            dated(CaptureSource::Content, 950),
            dated(CaptureSource::Content, 960),
            check(CheckOutcome::Passed, vec![]),
        ]))
        .unwrap();
        assert_eq!(good.measurements.data_age.as_ref().map(|a| a.age.seconds), Some(40));
        assert_eq!(good.measurements.recovery.as_ref().map(|r| r.total().seconds), Some(7));
        assert_eq!((good.verdict, good.assertions), (Verdict::Passed, 2));
    }

    #[test]
    fn phases_that_do_not_count_are_no_recovery_time() {
        let phase = |phase| DrillEventKind::PhaseBegan { phase, component: None };
        let recounted = recount(&events(vec![
            phase(crate::domain::Phase::Restore),
            DrillEventKind::Restored { facts: RestoredFacts::default() },
            phase(crate::domain::Phase::Inspect),
            check(CheckOutcome::Passed, vec![]),
            phase(crate::domain::Phase::Load),
            DrillEventKind::BecameUsable,
            phase(crate::domain::Phase::Verify),
        ]))
        .unwrap();
        // usable 6 s after the start, 2 s of them spent on inspection
        assert_eq!(recounted.measurements.recovery.as_ref().map(|r| r.measured.as_secs_f64()), Some(4.0));
    }

    #[test]
    fn a_system_is_as_old_as_its_oldest_component() {
        let selected = |name: &str, at: i64| {
            let point = SelectedPoint {
                component: Some(name.into()),
                captured_at: Timestamp::from_unix(at),
                captured_from: CaptureSource::Name,
                point: crate::domain::Pseudonym("point-1".into()),
                form: crate::domain::PointForm::BareObject,
                size: 1,
                objects: 1,
                points_seen: 1,
                worst_gap: None,
                producer: "no manifest".into(),
            };
            DrillEventKind::PointSelected { point }
        };
        let kinds = |dates: &[i64]| {
            let first =
                vec![selected("database", 950), selected("documents", 920), DrillEventKind::Restored { facts: RestoredFacts::default() }];
            first.into_iter().chain(dates.iter().map(|at| dated(CaptureSource::Content, *at))).collect()
        };
        let of = |dates: &[i64]| {
            let measured = recount(&events(kinds(dates))).unwrap().measurements;
            (measured.data_age.unwrap().age.seconds, measured.skew.unwrap().seconds)
        };
        assert_eq!(of(&[]), (80, 30));
        assert_eq!(of(&[990, 910]), (90, 30));
        // a fresh database does not make old documents young
        assert_eq!(of(&[990]), (80, 30));
    }

    #[test]
    fn nothing_restored_is_nothing_measured() {
        let recounted = recount(&events(vec![dated(CaptureSource::Manifest, 990)])).unwrap();
        assert!(recounted.assessments.iter().all(|a| a.met == Met::NotMeasured));
        assert_eq!(recounted.verdict, Verdict::Inconclusive);
        assert_eq!(recount(&[]), None);
    }

    #[test]
    fn forbidden_attempts_count_without_a_finding_of_their_own() {
        let egress = |policy, total| DrillEventKind::EgressRecorded { egress: Egress { policy, total, ..Egress::default() } };
        for (policy, total, verdict) in [
            (EgressPolicy::Forbid, 0, Verdict::Passed),
            (EgressPolicy::Forbid, 1, Verdict::Failed),
            (EgressPolicy::Record, 1, Verdict::Passed),
        ] {
            let kinds = vec![
                DrillEventKind::Restored { facts: RestoredFacts::default() },
                DrillEventKind::BecameUsable,
                dated(CaptureSource::Content, 990),
                check(CheckOutcome::Passed, vec![]),
                egress(policy, total),
            ];
            assert_eq!(recount(&events(kinds)).unwrap().verdict, verdict, "{policy:?} {total}");
        }
    }

    #[test]
    fn a_check_that_could_not_run_asserts_nothing() {
        let finding = Finding::runner("files", FindingKind::CouldNotRun { reason: "x".into() });
        let recounted = recount(&events(vec![check(CheckOutcome::CouldNotRun, vec![finding])])).unwrap();
        assert_eq!((recounted.assertions, recounted.findings.len()), (0, 1));
    }
}
