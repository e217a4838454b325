//! The restore chain into the evidence: summed up for people, whole in a file for machines, its locks held against policy.

use std::sync::{Mutex, PoisonError};

use super::blame::Stop;
use super::names::{nobody, object_name};
use super::{RecordError, Recorder, Services, as_of};
use crate::domain::{
    ChainFile, ChainSummary, DrillEventKind, Finding, FindingKind, LockFacts, LockPolicyVerdict, LockRequirement, LockState, LockVerdict,
    ObjectRead, Pseudonym, RestoreChain, Scenario, Timestamp, Transport, judge,
};
use crate::evidence::{Digests, names};
use crate::vault::VaultView;

/// Findings about single locks; the rest are counted.
const LOCKS_TOLD: usize = 20;
/// Of zstd: this file is written once and read rarely.
const LEVEL: i32 = 9;

/// What was pinned and read so far, under pseudonyms.
pub(super) fn read(view: &VaultView, services: &Services<'_>) -> Vec<ObjectRead> {
    view.chain(&|key| object_name(services, key)).objects
}

/// The storages that a drill reads from, each with what its policy demands of locks.
#[derive(Default)]
pub(super) struct Views(Mutex<Vec<(VaultView, Option<LockRequirement>)>>);

impl Views {
    /// Remembers a storage, before anything is read from it.
    pub(super) fn add(&self, view: &VaultView, scenario: &Scenario) {
        let lock = scenario.source.policy.lock;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((view.clone(), lock));
    }

    /// Records what was read from all of them, also where the drill ended half-way.
    pub(super) fn record(self, services: &Services<'_>, recorder: &mut Recorder<'_>) -> Result<(), RecordError> {
        let views = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let started = recorder.started_at();
        let (mut objects, mut uncertain, mut verdict) = (Vec::new(), Vec::new(), None);
        for (view, lock) in &views {
            let of_view = read(view, services);
            uncertain.extend(view.as_of().and_then(|facts| as_of::open_uploads(&of_view, facts.at)));
            let of_policy = lock.as_ref().map(|policy| policy_verdict(&of_view, policy, started));
            verdict = [verdict, of_policy].into_iter().flatten().reduce(worse);
            objects.extend(of_view);
        }
        // the way that is the least private of them
        let Some(transport) = views.iter().map(|(view, _)| view.transport()).min_by_key(|way| way.encrypted.unwrap_or(true)) else {
            return Ok(());
        };
        let as_of = views.iter().find_map(|(view, _)| view.as_of()).map(|facts| facts.at);
        record(objects, verdict, as_of, transport, recorder)?;
        recorder.found(uncertain)
    }
}

fn record(
    mut objects: Vec<ObjectRead>,
    lock_policy: Option<LockPolicyVerdict>,
    as_of: Option<Timestamp>,
    transport: Transport,
    recorder: &mut Recorder<'_>,
) -> Result<(), RecordError> {
    let mut summary = ChainSummary { lock_policy, as_of, ..ChainSummary::of(&objects, recorder.started_at()) };
    if !objects.is_empty() {
        let bytes = whole(&objects);
        recorder.attach(names::CHAIN, &bytes)?;
        let Digests { sha256, blake3 } = Digests::of(&bytes);
        summary.file = Some(ChainFile { name: names::CHAIN.to_owned(), bytes: bytes.len() as u64, sha256, blake3 });
    }
    objects.truncate(RestoreChain::SHOWN);
    // single reads are in the file
    objects.iter_mut().for_each(|object| object.reads = Vec::new());
    let chain = RestoreChain { objects, summary: Some(Box::new(summary)) };
    recorder.record(DrillEventKind::ChainRecorded { chain, transport })
}

/// One object version a line, compressed.
fn whole(objects: &[ObjectRead]) -> Vec<u8> {
    let mut lines = Vec::new();
    for object in objects {
        serde_json::to_writer(&mut lines, object).expect("strings, numbers and lists only");
        lines.push(b'\n');
    }
    zstd::bulk::compress(&lines, LEVEL).expect("memory is compressed into memory")
}

fn policy_verdict(objects: &[ObjectRead], policy: &LockRequirement, now: Timestamp) -> LockPolicyVerdict {
    let verdicts = objects.iter().map(|o| match judge(&o.lock, policy.mode, policy.remaining, now) {
        LockVerdict::Satisfied => LockPolicyVerdict::Kept,
        LockVerdict::Unknown => LockPolicyVerdict::NotVisible,
        LockVerdict::NotLocked | LockVerdict::WeakerMode { .. } | LockVerdict::TooShort { .. } => LockPolicyVerdict::Broken,
    });
    verdicts.fold(LockPolicyVerdict::Kept, worse)
}

/// One broken lock breaks the policy, and one that cannot be seen hides whether it is kept.
fn worse(one: LockPolicyVerdict, other: LockPolicyVerdict) -> LockPolicyVerdict {
    use LockPolicyVerdict as V;
    match (one, other) {
        (V::Broken, _) | (_, V::Broken) => V::Broken,
        (V::NotVisible, _) | (_, V::NotVisible) => V::NotVisible,
        (V::Kept, V::Kept) => V::Kept,
    }
}

/// Every lock in the chain that policy does not accept; the first of them by name.
pub(super) fn lock_findings(objects: &[ObjectRead], scenario: &Scenario, started: Timestamp) -> Vec<Finding> {
    let Some(policy) = &scenario.source.policy.lock else { return Vec::new() };
    let mut findings: Vec<Finding> =
        objects.iter().filter_map(|read| lock_finding(&read.lock, read.object.clone(), policy, started)).collect();
    if findings.len() > LOCKS_TOLD {
        let rest = findings.split_off(LOCKS_TOLD);
        let left = format!("the locks of {} more object versions, all of which are in {}", rest.len(), names::CHAIN);
        // the worst of them decides for the rest
        let broken = rest.iter().any(|f| f.cause == crate::domain::Cause::Backup);
        let kind = FindingKind::Remark { detail: format!("policy does not accept {left}") };
        findings.push(if broken { Finding::backup("locks", kind) } else { Finding::runner("locks", kind) });
    }
    findings
}

fn lock_finding(facts: &LockFacts, object: Pseudonym, policy: &LockRequirement, now: Timestamp) -> Option<Finding> {
    let required = policy.mode;
    let kind = match judge(facts, required, policy.remaining, now) {
        LockVerdict::Satisfied => return None,
        LockVerdict::NotLocked => FindingKind::NotLocked { object, required },
        LockVerdict::WeakerMode { mode } => FindingKind::WeakerLock { object, mode, required },
        LockVerdict::TooShort { left } => FindingKind::LockTooShort { object, left, required: policy.remaining },
        LockVerdict::Unknown => {
            let reason = match &facts.state {
                LockState::Unknown { reason } => reason.clone(),
                LockState::Locked { .. } | LockState::NotLocked => String::new(),
            };
            return Some(Finding::runner("locks", FindingKind::LockUnknown { object, reason }));
        }
    };
    Some(Finding::backup("locks", kind))
}

/// Asks for the locks that reading did not show. Not being able to is a finding only where policy needs to know.
pub(super) async fn settle(view: &VaultView, scenario: &Scenario) -> Option<Stop> {
    match view.settle_locks().await {
        Ok(()) => None,
        Err(_) if scenario.source.policy.lock.is_none() => None,
        Err((_, error)) => Some(Stop::vault("locks", &error, nobody())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{LockMode, Period};

    fn object(state: LockState) -> ObjectRead {
        ObjectRead { lock: LockFacts { state, legal_hold: None }, ..crate::evidence::sample::object(1, "part", LockState::NotLocked) }
    }

    #[test]
    fn one_broken_lock_breaks_the_policy_and_one_hidden_one_hides_it() {
        let policy = LockRequirement { mode: LockMode::Compliance, remaining: Period::from_secs(60) };
        let good = || object(LockState::Locked { mode: LockMode::Compliance, until: Timestamp::from_unix(1_000) });
        let weak = || object(LockState::Locked { mode: LockMode::Governance, until: Timestamp::from_unix(1_000) });
        let hidden = || object(LockState::Unknown { reason: "403".into() });
        let verdict = |objects: &[ObjectRead]| policy_verdict(objects, &policy, Timestamp::from_unix(0));
        assert_eq!(verdict(&[good(), good()]), LockPolicyVerdict::Kept);
        assert_eq!(verdict(&[good(), hidden()]), LockPolicyVerdict::NotVisible);
        assert_eq!(verdict(&[hidden(), weak(), hidden()]), LockPolicyVerdict::Broken);
    }

    #[test]
    fn the_file_has_a_line_for_each_object() {
        let bytes = zstd::stream::decode_all(&*whole(&[object(LockState::NotLocked), object(LockState::NotLocked)])).unwrap();
        let lines: Vec<ObjectRead> =
            bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
    }
}
