//! Phrases that the console and the page share.

use crate::domain::{Assessment, ByteSize, CheckOutcome, Met, Timestamp, Verdict};
use crate::evidence::Report;

/// The answer, in one or two sentences.
pub fn answer(report: &Report) -> String {
    match report.verdict {
        Verdict::Passed => passed(report),
        Verdict::Failed => format!("Do not rely on this backup: {}.", reasons(report)),
        Verdict::Inconclusive => format!("Nothing was learned about the backup: {}.", reasons(report)),
    }
}

fn passed(report: &Report) -> String {
    let oldest = report.components.iter().map(|component| &component.point).min_by_key(|point| point.captured_at);
    let mut text = match oldest.or(report.backup.point.as_ref()) {
        Some(point) => format!("The backup of {} restores", point.captured_at.to_human()),
        None => "The backup restores".to_owned(),
    };
    if let Some(recovery) = &report.measurements.recovery {
        text += &format!(": usable after {}", recovery.measured);
    }
    if let Some(age) = &report.measurements.data_age {
        text += &format!(", with data {} old", age.age);
    }
    let passed = report.checks.iter().filter(|c| matches!(c.outcome, CheckOutcome::Passed | CheckOutcome::Warned)).count();
    text += &format!("; {} passed", counted(passed as u64, "check"));
    let warnings = if report.has_warnings() { ", with warnings." } else { "." };
    text + warnings
}

/// The first reason, and how many more there are.
fn reasons(report: &Report) -> String {
    let mut all: Vec<String> = report.failures().map(|f| f.kind.to_string()).collect();
    let already = all.len();
    for assessment in report.assessments.iter().filter(|a| a.met != Met::Met) {
        let said = report.failures().any(
            |f| matches!(&f.kind, crate::domain::FindingKind::ObjectiveMissed { objective, .. } if *objective == assessment.objective),
        );
        // what was never measured is no reason where something worse kept it from being measured
        if !said && (assessment.met == Met::Missed || already == 0) {
            all.push(objective(assessment));
        }
    }
    if all.is_empty() && report.assertions == 0 {
        all.push("nothing was asserted about restored content".to_owned());
    }
    match all.as_slice() {
        [] => "the report says why".to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first}; and {} more", grouped(rest.len() as u64)),
    }
}

/// An objective in a phrase.
pub(super) fn objective(assessment: &Assessment) -> String {
    let name = assessment.objective.to_uppercase();
    match (assessment.achieved, &assessment.met) {
        (Some(achieved), Met::Missed) => format!("{name} missed, {achieved} instead of {}", assessment.target),
        (Some(achieved), Met::Met | Met::NotMeasured) => format!("{name} met, {achieved} of {}", assessment.target),
        (None, _) => format!("{name} not measured, {} promised", assessment.target),
    }
}

/// What an objective is called where people read it.
pub(super) fn objective_name(objective: &str) -> &str {
    match objective {
        "rto" => "Recovery time",
        "rpo" => "Data age",
        "skew" => "Skew",
        other => other,
    }
}

/// Locks of all objects that were read, in a phrase; `None` where nothing was read.
pub(super) fn locks(report: &Report) -> Option<String> {
    let (count, locks) = (report.backup.chain.count(), report.backup.chain.locks(report.started_at));
    if count == 0 {
        return None;
    }
    if locks.unknown == count {
        return Some("not visible".to_owned());
    }
    let mut text = format!("{} of {} locked", grouped(locks.locked), counted(count, "object version"));
    if locks.unknown > 0 {
        text += &format!(", {} not visible", grouped(locks.unknown));
    }
    if let Some(first) = locks.first_until {
        text += &format!(", {} left at the least", days_left(first, report.finished_at));
    }
    Some(text)
}

/// Whole days from `now` to `until`, or hours where it is less than two days.
pub(super) fn days_left(until: Timestamp, now: Timestamp) -> String {
    let seconds = until.seconds_since(now);
    match seconds {
        ..=0 => "nothing".to_owned(),
        1..172_800 => counted(seconds.unsigned_abs() / 3_600, "hour"),
        _ => counted(seconds.unsigned_abs() / 86_400, "day"),
    }
}

/// The worst gap, in a phrase, and whether it is within the recovery point objective.
pub(super) fn worst_gap(report: &Report) -> Option<(String, bool)> {
    let gap = report.measurements.worst_gap?;
    let within = report.plan.objectives.rpo.is_none_or(|rpo| gap <= rpo);
    let more = if within { "" } else { ", more than the RPO allows" };
    Some((format!("{gap} between recovery points{more}"), within))
}

/// What was restored, in a phrase.
pub(super) fn restored(report: &Report) -> Option<String> {
    let facts = report.restored.as_ref()?;
    Some(format!("{}, {}", counted(facts.files, "file"), ByteSize(facts.bytes)))
}

/// How a check ended, in a word.
pub(super) fn outcome(outcome: CheckOutcome) -> &'static str {
    match outcome {
        CheckOutcome::Passed => "passed",
        CheckOutcome::Warned => "warned",
        CheckOutcome::Failed => "failed",
        CheckOutcome::CouldNotRun => "could not run",
    }
}

/// `1 file`, `17,800 files`.
pub(super) fn counted(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// `17,800`.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::LockState;
    use crate::evidence::sample;

    #[test]
    fn the_answer_says_what_happened() {
        let say = |events: Vec<_>| answer(&sample::report(&events));
        assert_eq!(
            say(sample::passed()),
            "The backup of 2026-11-21 02:00:00 UTC restores: usable after 5m 13s, with data 18h 1m old; 2 checks passed."
        );
        assert!(say(sample::warned()).ends_with("with warnings."));
        assert_eq!(
            say(sample::failed()),
            "Do not rely on this backup: the restored tree differs from the manifest: 18201 matched, 1 mismatched, 2 missing, 0 extra \
             (content 1, missing 2); and 1 more."
        );
        assert_eq!(say(sample::inconclusive()), "Nothing was learned about the backup: storage could not be read: connection refused.");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_gap_beyond_the_objective_is_said() {
        let mut report = sample::report(&sample::passed());
        assert_eq!(worst_gap(&report), Some(("1d 1h between recovery points, more than the RPO allows".into(), false)));
        report.plan.objectives.rpo = None;
        assert_eq!(worst_gap(&report), Some(("1d 1h between recovery points".into(), true)));
    }

    #[test]
    fn locks_are_summed_up() {
        let mut report = sample::report(&sample::passed());
        assert_eq!(locks(&report).unwrap(), "3 of 3 object versions locked, 89 days left at the least");
        report.backup.chain.objects[0].lock.state = LockState::Unknown { reason: "403".into() };
        assert_eq!(locks(&report).unwrap(), "2 of 3 object versions locked, 1 not visible, 89 days left at the least");
    }
}
