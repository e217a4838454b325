//! Which controls of which frameworks a drill says something about. The mapping is data (`controls.json`); only what a
//! control rests on is code. A report supports a control or contradicts it; it never certifies anybody.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::Report;
use crate::domain::{Assessment, CheckOutcome, FindingKind, Met, Period, Recovery, Verdict};

/// One framework.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its id, as `hipaa-current`.
    pub id: String,
    /// Its name.
    pub title: String,
    /// `in force`, or what else it is: a proposed rule is no law, and is marked so wherever it is shown.
    pub status: String,
    /// Its controls.
    pub controls: Vec<Control>,
}

/// One control of a framework.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Its citation.
    pub id: String,
    /// What it asks for, in short.
    pub asks: String,
    /// Which fact of a drill answers it.
    pub rests_on: Basis,
    /// Where the control itself sets a limit, whatever the scenario promises.
    #[serde(default)]
    pub within_hours: Option<u64>,
}

/// The facts that controls rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// A test took place and came to a result, whichever.
    Tested,
    /// The backup was restored and passed.
    Restored,
    /// The restored tree is the one the manifest describes.
    ExactCopy,
    /// The recovery time objective.
    RecoveryTime,
    /// The recovery point objective.
    DataAge,
    /// The restored data was disposed of.
    Disposed,
    /// Every object version that was read is locked.
    Locked,
    /// The backup was encrypted.
    Encrypted,
    /// The transport was encrypted.
    Transport,
    /// Who ran it, what was read and when is on record.
    Recorded,
}

/// What a drill says about a control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ControlOutcome {
    /// The facts support it.
    Supports,
    /// The facts speak against it.
    Contradicts,
    /// The drill says nothing about it.
    NotTested,
}

/// What a drill says about the controls of one framework.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ProfileRows {
    /// The framework's id.
    pub profile: String,
    /// Its name.
    pub title: String,
    /// `in force`, or what else it is.
    pub status: String,
    /// Its controls.
    pub controls: Vec<ControlRow>,
}

/// What a drill says about one control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ControlRow {
    /// Its citation.
    pub id: String,
    /// What it asks for, in short.
    pub asks: String,
    /// What the drill says.
    pub outcome: ControlOutcome,
    /// Which fact says so.
    pub because: String,
}

/// The frameworks we map to.
pub fn profiles() -> &'static [Profile] {
    static PROFILES: LazyLock<Vec<Profile>> =
        LazyLock::new(|| serde_json::from_str(include_str!("controls.json")).expect("controls.json is read by a test"));
    &PROFILES
}

pub(super) fn controls(report: &Report) -> Vec<ProfileRows> {
    let rows = |profile: &Profile| {
        let row = |control: &Control| {
            let (outcome, because) = answer(control, report);
            ControlRow { id: control.id.clone(), asks: control.asks.clone(), outcome, because: because.to_owned() }
        };
        ProfileRows {
            profile: profile.id.clone(),
            title: profile.title.clone(),
            status: profile.status.clone(),
            controls: profile.controls.iter().map(row).collect(),
        }
    };
    profiles().iter().map(rows).collect()
}

fn answer(control: &Control, report: &Report) -> (ControlOutcome, &'static str) {
    use ControlOutcome::{Contradicts, NotTested, Supports};
    match control.rests_on {
        Basis::Tested => match report.verdict {
            Verdict::Passed => (Supports, "the restore was tested, and passed"),
            Verdict::Failed => (Supports, "the restore was tested, and failed: corrective action is due"),
            Verdict::Inconclusive => (NotTested, "the test came to no result"),
        },
        Basis::Restored => match report.verdict {
            Verdict::Passed => (Supports, "the backup was restored and its checks passed"),
            Verdict::Failed => (Contradicts, "the drill failed"),
            Verdict::Inconclusive => (NotTested, "the test came to no result"),
        },
        Basis::ExactCopy => exact_copy(report),
        Basis::RecoveryTime => match control.within_hours {
            Some(hours) => within(hours, report.measurements.recovery.as_ref().map(Recovery::total)),
            None => objective("rto", report),
        },
        Basis::DataAge => match control.within_hours {
            Some(hours) => within(hours, report.measurements.data_age.as_ref().map(|a| a.age)),
            None => objective("rpo", report),
        },
        Basis::Disposed => match &report.disposal {
            Some(disposal) if disposal.complete() => (Supports, "the sandbox was destroyed, and was gone when looked for"),
            Some(_) => (Contradicts, "the sandbox could not be shown to be gone"),
            None => (NotTested, "nothing was restored into a sandbox"),
        },
        Basis::Locked => locked(report),
        Basis::Encrypted => {
            if report.all_findings().any(|f| matches!(f.kind, FindingKind::NotEncrypted { .. })) {
                return (Contradicts, "the backup is not encrypted");
            }
            match &report.restored {
                Some(restored) if restored.layers.iter().any(|l| l == "age") => {
                    (Supports, "the backup was encrypted, and the key at hand opened it")
                }
                Some(_) => (Contradicts, "the backup was not encrypted"),
                None => (NotTested, "the backup was not opened"),
            }
        }
        Basis::Transport => match report.backup.transport.as_ref().and_then(|t| t.encrypted) {
            Some(true) => (Supports, "the backup travelled over TLS"),
            Some(false) => (Contradicts, "the backup travelled over plain HTTP"),
            None => (NotTested, "no network was used"),
        },
        Basis::Recorded => (Supports, "who ran the drill, what it read and when, is signed and on record"),
    }
}

fn exact_copy(report: &Report) -> (ControlOutcome, &'static str) {
    use ControlOutcome::{Contradicts, NotTested, Supports};
    let outcomes: Vec<CheckOutcome> = report.checks.iter().filter(|c| c.kind == "manifest").map(|c| c.outcome).collect();
    if outcomes.contains(&CheckOutcome::Failed) {
        return (Contradicts, "the restored tree differs from its manifest");
    }
    if report.restored.is_none() && report.verdict == Verdict::Failed {
        return (Contradicts, "the backup could not be restored");
    }
    match outcomes.first() {
        Some(CheckOutcome::Passed | CheckOutcome::Warned) => (Supports, "every file was compared with the manifest, by digest"),
        Some(CheckOutcome::Failed | CheckOutcome::CouldNotRun) => (NotTested, "the comparison with the manifest could not be made"),
        None => (NotTested, "the scenario does not compare with a manifest"),
    }
}

fn objective(name: &str, report: &Report) -> (ControlOutcome, &'static str) {
    use ControlOutcome::{Contradicts, NotTested, Supports};
    match report.assessments.iter().find(|a| a.objective == name) {
        Some(Assessment { met: Met::Met, .. }) => (Supports, "measured, and within the objective"),
        Some(Assessment { met: Met::Missed, .. }) => (Contradicts, "measured, and beyond the objective"),
        Some(Assessment { met: Met::NotMeasured, .. }) => (NotTested, "an objective is set; nothing was measured"),
        None => (NotTested, "the scenario sets no objective"),
    }
}

fn within(hours: u64, achieved: Option<Period>) -> (ControlOutcome, &'static str) {
    match achieved {
        Some(achieved) if achieved.seconds <= hours * 3_600 => (ControlOutcome::Supports, "measured, and within this limit"),
        Some(_) => (ControlOutcome::Contradicts, "measured, and beyond this limit"),
        None => (ControlOutcome::NotTested, "nothing was measured"),
    }
}

fn locked(report: &Report) -> (ControlOutcome, &'static str) {
    use ControlOutcome::{Contradicts, NotTested, Supports};
    let locks = report.backup.chain.locks(report.started_at);
    if locks.not_locked > 0 {
        (Contradicts, "object versions are not locked")
    } else if locks.locked == 0 || locks.unknown > 0 {
        (NotTested, "locks were not visible")
    } else {
        (Supports, "every object version that was read is locked")
    }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use super::*;
    use crate::evidence::sample;

    fn outcome(report: &Report, id: &str) -> ControlOutcome {
        report.controls.iter().flat_map(|p| &p.controls).find(|c| c.id == id).expect("a known control").outcome
    }

    #[test]
    fn every_framework_has_its_status_and_no_control_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for profile in profiles() {
            for control in &profile.controls {
                assert!(seen.insert((profile.id.clone(), control.id.clone())), "{} twice", control.id);
            }
        }
        assert!(profiles().iter().any(|p| p.id == "hipaa-current" && p.status == "in force"));
        assert!(profiles().iter().filter(|p| p.id.contains("nprm")).all(|p| p.status.contains("not law")));
        assert!(!include_str!("controls.json").to_lowercase().contains("complian"));
    }

    #[test]
    fn a_generous_objective_does_not_meet_a_limit_of_the_control() {
        let mut report = sample::report(&sample::passed());
        report.measurements.data_age.as_mut().unwrap().age = Period::from_secs(49 * 3_600);
        report.controls = controls(&report);
        assert_eq!(outcome(&report, "NPRM, 48 hours"), ControlOutcome::Contradicts);
        assert_eq!(outcome(&report, "NPRM, 72 hours"), ControlOutcome::Supports);
    }

    #[test]
    fn a_failed_drill_contradicts_what_a_passed_one_supports() {
        let (good, bad) = (sample::report(&sample::passed()), sample::report(&sample::failed()));
        for id in ["164.308(a)(7)(ii)(A)", "164.308(a)(7)(ii)(B)", "CP-9(1)"] {
            assert_eq!(outcome(&good, id), ControlOutcome::Supports, "{id}");
            assert_eq!(outcome(&bad, id), ControlOutcome::Contradicts, "{id}");
        }
        assert_eq!(outcome(&bad, "164.308(a)(7)(ii)(D)"), ControlOutcome::Supports, "a failed test is a test");
        let none = sample::report(&sample::inconclusive());
        assert_eq!(outcome(&none, "164.308(a)(7)(ii)(D)"), ControlOutcome::NotTested);
    }
}
