//! What a drill does not prove, computed from its facts. An honest report says it before an auditor asks.

use serde::{Deserialize, Serialize};

use super::{KeyCustody, Report};
use crate::domain::{CaptureSource, Phase, Verdict};

/// One thing that a drill does not prove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Its id, stable across versions.
    pub id: String,
    /// In words.
    pub text: String,
}

/// Everything this report does not prove; what weighs most comes first.
pub(super) fn limits(report: &Report) -> Vec<Limit> {
    let mut limits = Limits(Vec::new());
    verdict_limits(report, &mut limits);
    issuer_limits(report, &mut limits);
    backup_limits(report, &mut limits);
    restore_limits(report, &mut limits);
    limits.say("clock", "All times are the runner's own; no outside clock has stamped them.");
    limits.say("completeness", "One report cannot show that no other drill was left out.");
    limits.say(
        "truth",
        "A signature shows who vouches for these facts and that nobody changed them since; it cannot show that the runner told the truth.",
    );
    limits.0
}

struct Limits(Vec<Limit>);

impl Limits {
    fn say(&mut self, id: &str, text: impl Into<String>) {
        self.0.push(Limit { id: id.to_owned(), text: text.into() });
    }
}

fn verdict_limits(report: &Report, limits: &mut Limits) {
    match report.verdict {
        Verdict::Inconclusive => limits
            .say("inconclusive", "Nothing about the backup: the runner, the storage or the host stood in the way. It may be good or bad."),
        Verdict::Failed => limits.say("failed", "That the backup can be relied upon: the drill failed."),
        Verdict::Passed => {}
    }
    if report.assertions == 0 {
        limits.say("no-assertions", "Anything about the restored content: nothing was asserted about it.");
    }
}

fn issuer_limits(report: &Report, limits: &mut Limits) {
    match report.issuer.custody {
        KeyCustody::Configured => {}
        KeyCustody::MadeOnTheSpot => limits.say(
            "demo-key",
            "Who ran it: the signing key was made on the spot and kept beside the evidence. Good for trying out and for nothing else.",
        ),
    }
}

fn backup_limits(report: &Report, limits: &mut Limits) {
    if let Some(transport) = &report.backup.transport {
        if transport.encrypted == Some(false) {
            limits.say(
                "plain-http",
                "That the bytes came from the named server, or were private on the way: they travelled over plain HTTP.",
            );
        }
        if transport.store == "file" {
            limits.say("local-store", "That an off-site copy can be fetched: the backup was read from a local directory.");
        }
    }
    if let Some(point) = &report.backup.point {
        if point.points_seen > 1 {
            limits.say("one-point", format!("The other {} recovery points: one was restored.", point.points_seen - 1));
        }
        if point.producer != "trusted" {
            limits.say(
                "producer",
                "Who made the backup: no producer that the scenario trusts has signed it, and whoever knows the public key can encrypt to it.",
            );
        }
    }
    if let Some(age) = &report.measurements.data_age
        && age.source != CaptureSource::Content
    {
        limits.say("capture-time", format!("How old the newest record is: the data's age rests on the {}.", age.source));
    }
    if let (Some(gap), Some(rpo)) = (report.measurements.worst_gap, report.plan.objectives.rpo)
        && gap > rpo
    {
        limits.say(
            "worst-gap",
            format!("That the recovery point objective holds at any moment: recovery points lay up to {gap} apart, and {rpo} is promised."),
        );
    }
    let chain = &report.backup.chain;
    let (count, locks) = (chain.count(), chain.locks(report.started_at));
    if locks.unknown > 0 {
        limits.say(
            "lock-unknown",
            format!("That the backup cannot be deleted: for {} of {count} object versions no lock was visible.", locks.unknown),
        );
    }
    if locks.not_locked > 0 {
        limits.say(
            "not-locked",
            format!("That the backup survives an attacker: {} of {count} object versions are not locked.", locks.not_locked),
        );
    }
    if let Some(tool) = report.tools.last() {
        limits.say(
            "tool",
            format!(
                "That what {} restored is what was backed up: the tool's own checks vouch for that, and what this drill asserts.",
                tool.tool
            ),
        );
    }
    let objects = &chain.objects;
    let partial = objects.iter().filter(|o| o.blake3.is_none() && o.sha256.is_none()).count();
    if partial > 0 {
        limits.say(
            "read-in-part",
            format!("Anything about the unread bytes of {partial} objects, which were read in part or without a digest."),
        );
    }
    let quoted = objects.iter().filter(|o| o.sha256_from.as_deref() == Some("manifest")).count();
    if quoted > 0 {
        limits.say(
            "sha256-quoted",
            format!("The SHA-256 of {quoted} objects independently of their manifest: it is quoted; their BLAKE3 was computed from the bytes read."),
        );
    }
}

fn restore_limits(report: &Report, limits: &mut Limits) {
    if !report.timeline.iter().any(|p| p.phase == Phase::Load) {
        limits.say(
            "application",
            "That the application works: data was restored and checked, and the software that uses it was not started.",
        );
    }
    if report.measurements.recovery.is_some() {
        limits.say("place", "The recovery time of your production hardware and network: it was measured on this host, in a sandbox.");
    }
    if report.plan.objectives.declared.is_some() {
        limits.say("declared", "The time people need before the first byte moves: it was declared in the scenario and not measured.");
    }
    if let Some(restored) = &report.restored
        && restored.skipped > 0
    {
        limits.say("skipped", format!("{} entries of the archive, which were not restored.", restored.skipped));
    }
    if report.sandbox.as_ref().is_some_and(|s| !s.isolated) {
        limits.say("isolation", "That restored data was apart from the host while it was there: the sandbox was not isolated.");
    }
    if report.egress.as_ref().is_some_and(|e| !e.gaps.is_empty()) {
        limits.say("egress", "That nothing inside tried to reach the outside beyond what is listed: attempts could not be seen in full.");
    }
    if report.disposal.as_ref().is_some_and(|d| !d.complete()) {
        limits.say("disposal", "That nothing of the restored data is left on the host: disposal could not be shown to be complete.");
    }
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use super::*;
    use crate::domain::{LockFacts, LockState, Sha256, ToolFacts, Transport};
    use crate::evidence::sample;

    fn ids(report: &Report) -> Vec<String> {
        limits(report).into_iter().map(|l| l.id).collect()
    }

    #[test]
    fn the_least_is_always_said() {
        for events in [sample::passed(), sample::failed(), sample::inconclusive()] {
            let ids = ids(&sample::report(&events));
            for id in ["clock", "completeness", "truth", "application"] {
                assert!(ids.iter().any(|i| i == id), "{id}");
            }
        }
    }

    /// Each weakness brings its own limit, and its absence does not.
    #[test]
    fn every_weakness_is_named() {
        type Harm = fn(&mut Report);
        let weaknesses: [(&str, Harm); 14] = [
            ("demo-key", |r| r.issuer.custody = KeyCustody::MadeOnTheSpot),
            ("plain-http", |r| r.backup.transport.as_mut().unwrap().encrypted = Some(false)),
            ("local-store", |r| r.backup.transport = Some(Transport { store: "file".into(), ..Transport::default() })),
            ("producer", |r| r.backup.point.as_mut().unwrap().producer = "unsigned".into()),
            ("capture-time", |r| r.measurements.data_age.as_mut().unwrap().source = CaptureSource::UploadTime),
            ("lock-unknown", |r| r.backup.chain.objects[0].lock = LockFacts::unknown("403")),
            ("not-locked", |r| r.backup.chain.objects[0].lock.state = LockState::NotLocked),
            ("read-in-part", |r| (r.backup.chain.objects[0].blake3, r.backup.chain.objects[0].sha256) = (None, None)),
            ("skipped", |r| r.restored.as_mut().unwrap().skipped = 3),
            ("isolation", |r| r.sandbox.as_mut().unwrap().isolated = false),
            ("disposal", |r| r.disposal.as_mut().unwrap().probes[0].gone = false),
            ("egress", |r| r.egress = Some(crate::domain::Egress { gaps: vec!["deaf".into()], ..Default::default() })),
            ("tool", |r| {
                r.tools.push(ToolFacts { tool: "restic".into(), path: String::new(), version: String::new(), sha256: Sha256([0; 32]) })
            }),
            ("no-assertions", |r| r.assertions = 0),
        ];
        for (id, harm) in weaknesses {
            let mut report = sample::report(&sample::passed());
            assert!(!ids(&report).iter().any(|i| i == id), "{id} without cause");
            harm(&mut report);
            assert!(ids(&report).iter().any(|i| i == id), "{id} is not said");
        }
    }
}
