//! The verdict: one pure decision.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::objective::Met;
use super::{Assessment, Cause, Finding, Severity};

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Everything that was asked held, and something was asked.
    Passed,
    /// The backup, or what was promised of it, did not hold.
    Failed,
    /// Nothing was learned about the backup: the runner, the storage or the host stood in the way.
    Inconclusive,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Passed => "PASSED",
            Verdict::Failed => "FAILED",
            Verdict::Inconclusive => "INCONCLUSIVE",
        })
    }
}

/// What one fact does to a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// Nothing.
    Nothing,
    /// Something could not be asked.
    Inconclusive,
    /// The backup is at fault.
    Failed,
}

fn weigh_finding(finding: &Finding) -> Weight {
    match (finding.severity, finding.cause) {
        (Severity::Fail, Cause::Backup) => Weight::Failed,
        (Severity::Fail, Cause::Runner) => Weight::Inconclusive,
        (Severity::Warn | Severity::Note, Cause::Backup | Cause::Runner) => Weight::Nothing,
    }
}

fn weigh_assessment(assessment: &Assessment) -> Weight {
    match assessment.met {
        Met::Met => Weight::Nothing,
        Met::Missed => Weight::Failed,
        Met::NotMeasured => Weight::Inconclusive,
    }
}

/// Decides. Everything is conjunctive: there is no score.
///
/// `assertions` counts the checks of restored content that were asked and answered. A drill in which everything went
/// well and nothing was asserted has proven nothing and is `Failed`; one in which something could not be done is
/// `Inconclusive` whatever else it asserted, unless the backup was found at fault.
pub fn conclude(findings: &[Finding], assessments: &[Assessment], assertions: u32) -> Verdict {
    let findings = findings.iter().map(weigh_finding);
    let assessments = assessments.iter().map(weigh_assessment);
    let heaviest = findings.chain(assessments).max().unwrap_or(Weight::Nothing);
    match (heaviest, assertions) {
        (Weight::Failed, _) => Verdict::Failed,
        (Weight::Inconclusive, _) => Verdict::Inconclusive,
        (Weight::Nothing, 0) => Verdict::Failed,
        (Weight::Nothing, 1..) => Verdict::Passed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{FindingKind, Period};

    fn finding(severity: Severity, cause: Cause) -> Finding {
        Finding { check: "x".into(), severity, cause, kind: FindingKind::NoAssertions }
    }

    fn assessment(met: Met) -> Assessment {
        Assessment { objective: "rto".into(), target: Period::from_secs(1), achieved: None, met }
    }

    /// Every combination of what can be found, what can be measured, and whether anything was asserted.
    #[test]
    fn the_verdict_is_this_table() {
        use Cause::{Backup, Runner};
        use Severity::{Fail, Note, Warn};
        use Verdict::{Failed, Inconclusive, Passed};
        let findings: [(&str, Vec<Finding>); 8] = [
            ("none", vec![]),
            ("note", vec![finding(Note, Backup), finding(Note, Runner)]),
            ("warnings", vec![finding(Warn, Backup), finding(Warn, Runner)]),
            ("runner", vec![finding(Fail, Runner)]),
            ("backup", vec![finding(Fail, Backup)]),
            ("both", vec![finding(Fail, Runner), finding(Fail, Backup)]),
            ("both, other order", vec![finding(Fail, Backup), finding(Fail, Runner)]),
            ("runner and warning", vec![finding(Warn, Backup), finding(Fail, Runner)]),
        ];
        // columns: no objective | met | missed | not measured; each with assertions 0 and 3
        let table = [
            ("none", [(Failed, Passed), (Failed, Passed), (Failed, Failed), (Inconclusive, Inconclusive)]),
            ("note", [(Failed, Passed), (Failed, Passed), (Failed, Failed), (Inconclusive, Inconclusive)]),
            ("warnings", [(Failed, Passed), (Failed, Passed), (Failed, Failed), (Inconclusive, Inconclusive)]),
            ("runner", [(Inconclusive, Inconclusive), (Inconclusive, Inconclusive), (Failed, Failed), (Inconclusive, Inconclusive)]),
            ("backup", [(Failed, Failed), (Failed, Failed), (Failed, Failed), (Failed, Failed)]),
            ("both", [(Failed, Failed), (Failed, Failed), (Failed, Failed), (Failed, Failed)]),
            ("both, other order", [(Failed, Failed), (Failed, Failed), (Failed, Failed), (Failed, Failed)]),
            (
                "runner and warning",
                [(Inconclusive, Inconclusive), (Inconclusive, Inconclusive), (Failed, Failed), (Inconclusive, Inconclusive)],
            ),
        ];
        let columns = [vec![], vec![assessment(Met::Met)], vec![assessment(Met::Missed)], vec![assessment(Met::NotMeasured)]];
        for ((name, findings), (row, expected)) in findings.iter().zip(table) {
            assert_eq!(*name, row);
            for (column, (without, with)) in columns.iter().zip(expected) {
                assert_eq!(conclude(findings, column, 0), without, "{name}, {column:?}, nothing asserted");
                assert_eq!(conclude(findings, column, 3), with, "{name}, {column:?}, three asserted");
            }
        }
    }
}
