//! Events of made-up drills, for unit tests of `evidence` and `report` (by `#[path]`) and for the tests here.

#![allow(missing_docs, dead_code, reason = "for tests, and not every crate of tests uses all of it")]

use zeroize::Zeroizing;

use crate::domain::{
    Blake3, BoundFacts, CaptureSource, Cause, CheckOutcome, CheckReport, Criticality, Disposal, DrillEvent, DrillEventKind, DrillId,
    Egress, EgressAttempt, EgressPolicy, EgressProtocol, Elapsed, Finding, FindingKind, Held, LockFacts, LockMode, LockState, ObjectRead,
    Objectives, Period, Phase, Plan, PlanRef, PointForm, Probe, Pseudonym, RestoreChain, RestoredFacts, RunnerFacts, SandboxFacts,
    Sanitization, SelectedPoint, Sha256, Timestamp, Transport, TreeSummary, Trigger, recount,
};
use crate::evidence::{Issuer, KeyCustody, Report, Signer as _, SignerKey};

/// Numbers events and tells their time, then closes the drill with what follows from them.
pub struct Story {
    events: Vec<DrillEvent>,
    millis: u64,
}

impl Story {
    pub fn new() -> Self {
        Self { events: Vec::new(), millis: 0 }
    }

    /// `kind` happened `millis` after the event before.
    pub fn then(mut self, millis: u64, kind: DrillEventKind) -> Self {
        self.millis += millis;
        let start = "2026-11-21T20:00:00Z".parse::<Timestamp>().expect("a valid time").0;
        let at = Timestamp(start + std::time::Duration::from_millis(self.millis));
        self.events.push(DrillEvent {
            drill: DrillId("0193505c-7a00-7c3e-9d4a-5f0f3c2b1a00".into()),
            seq: self.events.len() as u64,
            at,
            elapsed: Elapsed { nanos: self.millis * 1_000_000 },
            kind,
        });
        self
    }

    pub fn phase(self, millis: u64, phase: Phase) -> Self {
        self.then(millis, DrillEventKind::PhaseBegan { phase, component: None })
    }

    pub fn end(self, millis: u64) -> Vec<DrillEvent> {
        let counted = recount(&self.events).expect("it started");
        let (verdict, assessments, measurements) = (counted.verdict, counted.assessments, counted.measurements);
        self.then(millis, DrillEventKind::Finished { verdict, assessments, measurements }).events
    }
}

pub fn started() -> DrillEventKind {
    DrillEventKind::Started {
        plan: Box::new(Plan {
            scenario: "ehr".parse().expect("a valid name"),
            system: "Electronic health records".into(),
            criticality: Criticality::Critical,
            plan: Some(PlanRef { id: "CP-014".into(), version: "3.2".into(), until: None }),
            scenario_sha256: Sha256([0x5c; 32]),
            scenario_blake3: Blake3([0x5b; 32]),
            objectives: Objectives {
                skew: None,
                rpo: Some(Period::from_secs(86_400)),
                rto: Some(Period::from_secs(4 * 3_600)),
                declared: Some(Period::from_secs(1_800)),
            },
            trigger: Trigger::OnDemand { reason: Some("before the storage migration".into()) },
            checks: vec!["everything is back".into(), "patients are there".into()],
            selection: "latest".into(),
        }),
        runner: RunnerFacts {
            version: "0.1.0".into(),
            binary_sha256: Some(Sha256([0xb1; 32])),
            host: "drill-1".into(),
            actor: "backup-operator".into(),
            system: "Linux 6.1 x86_64".into(),
        },
    }
}

pub fn object(name: u8, role: &str, lock: LockState) -> ObjectRead {
    ObjectRead {
        object: Pseudonym(format!("object-{:016x}", u64::from(name) * 0x0123_4567_89ab)),
        role: role.into(),
        version: Some(format!("3HL4kqtJlcpXroDTDmJ-{name}")),
        etag: Some(format!("\"etag-{name}\"")),
        size: 1_234_567_890,
        stored_at: "2026-11-21T02:10:00Z".parse().expect("a valid time"),
        bytes_read: 1_234_567_890,
        requests: 148,
        blake3: Some(Blake3([name; 32])),
        sha256: Some(Sha256([name.wrapping_add(1); 32])),
        sha256_from: Some("manifest".into()),
        lock: LockFacts { state: lock, legal_hold: Some(false) },
        storage_class: Some("STANDARD".into()),
        server_encryption: Some("AES256".into()),
        reads: Vec::new(),
    }
}

pub fn locked() -> LockState {
    LockState::Locked { mode: LockMode::Compliance, until: "2027-02-19T02:10:00Z".parse().expect("a valid time") }
}

pub fn point() -> DrillEventKind {
    DrillEventKind::PointSelected {
        point: SelectedPoint {
            component: None,
            point: Pseudonym("point-00c0ffee00c0ffee".into()),
            captured_at: "2026-11-21T02:00:00Z".parse().expect("a valid time"),
            captured_from: CaptureSource::SignedManifest,
            form: PointForm::SealedSet,
            size: 3_703_703_670,
            objects: 3,
            points_seen: 31,
            worst_gap: Some(Period::from_secs(90_000)),
            producer: "trusted".into(),
        },
    }
}

pub fn chain() -> DrillEventKind {
    DrillEventKind::ChainRecorded {
        chain: RestoreChain {
            objects: vec![object(1, "manifest", locked()), object(2, "index", locked()), object(3, "part", locked())],
            summary: None,
        },
        transport: Transport {
            store: "s3".into(),
            endpoint: "s3.example.org:443".into(),
            encrypted: Some(true),
            tls_version: Some("TLSv1.3".into()),
            server_certificate: Some(Sha256([0xce; 32])),
            credentials: "profile".into(),
            clock_offset: Some(0),
        },
    }
}

pub fn check(name: &str, kind: &str, outcome: CheckOutcome, findings: Vec<Finding>) -> DrillEventKind {
    let observed = if outcome == CheckOutcome::Passed { "18,204 entries alike" } else { "18,201 entries alike, 3 differ" };
    DrillEventKind::CheckEnded {
        report: CheckReport {
            name: name.into(),
            kind: kind.into(),
            outcome,
            expected: "every entry as the manifest describes it".into(),
            observed: observed.into(),
            assertions: 1,
            findings,
            seen: None,
        },
    }
}

/// A drill up to its checks.
pub fn until_checks() -> Story {
    Story::new()
        .then(0, started())
        .phase(2, Phase::Provision)
        .then(30, DrillEventKind::SandboxProvisioned { facts: sandbox() })
        .phase(1, Phase::Locate)
        .then(400, point())
        .phase(20, Phase::Preflight)
        .phase(60, Phase::Restore)
        .then(
            312_000,
            DrillEventKind::Restored {
                facts: RestoredFacts {
                    component: None,
                    files: 17_800,
                    directories: 402,
                    others: 2,
                    bytes: 12_884_901_888,
                    skipped: 0,
                    layers: vec!["age".into(), "zstd".into(), "tar".into()],
                    tree_blake3: Some(Blake3([0x77; 32])),
                },
            },
        )
        .then(1, chain())
        .phase(1, Phase::Ready)
        .then(40, DrillEventKind::BecameUsable)
        .phase(0, Phase::Verify)
}

pub fn sandbox() -> SandboxFacts {
    SandboxFacts {
        kind: "namespaces".into(),
        isolated: true,
        network: "loopback only".into(),
        scratch: "tmpfs".into(),
        scratch_bytes: 17_179_869_184,
        swap: "forbidden by the memory controller".into(),
        memory_limit: Some(2_147_483_648),
        bounds: vec![BoundFacts {
            bound: "memory".into(),
            value: "2 GiB".into(),
            held: Held::Together,
            by: "control group".into(),
            told: true,
        }],
        user: "root".into(),
        remarks: vec![],
    }
}

pub fn torn_down(story: Story) -> Story {
    story.phase(1, Phase::Teardown).then(
        80,
        DrillEventKind::SandboxDestroyed {
            disposal: Disposal {
                method: "private tmpfs unmounted; its pages were never written to a device".into(),
                sanitization: Some(Sanitization::Clear),
                started_at: Some("2026-11-21T03:00:22Z".parse().expect("a valid time")),
                ended_at: Some("2026-11-21T03:00:22Z".parse().expect("a valid time")),
                took: Some(Elapsed { nanos: 80_000_000 }),
                probes: vec![
                    Probe { what: "processes of the sandbox".into(), gone: true },
                    Probe { what: "scratch mount".into(), gone: true },
                ],
            },
        },
    )
}

pub fn passed() -> Vec<DrillEvent> {
    let story = until_checks()
        .then(21_000, check("everything is back", "manifest", CheckOutcome::Passed, vec![]))
        .then(300, DrillEventKind::DataDated { at: "2026-11-21T01:58:12Z".parse().expect("a valid time"), source: CaptureSource::Content })
        .then(2, check("patients are there", "files", CheckOutcome::Passed, vec![]));
    torn_down(story).end(5)
}

pub fn warned() -> Vec<DrillEvent> {
    let finding = Finding::warning(
        "lock",
        Cause::Backup,
        FindingKind::LockUnknown { object: Pseudonym("object-00000123456789ab".into()), reason: "these credentials may not ask".into() },
    );
    let story = until_checks()
        .then(21_000, check("everything is back", "manifest", CheckOutcome::Passed, vec![]))
        .then(1, DrillEventKind::Found { finding });
    torn_down(story).end(5)
}

/// A restored program tried to reach the outside, which its scenario forbids.
pub fn called_home() -> Vec<DrillEvent> {
    let attempt = |protocol, destination: Option<&str>, port, name: Option<&str>, times| EgressAttempt {
        at: "2026-11-21T20:29:40Z".parse().expect("a valid time"),
        elapsed: Elapsed { nanos: 340_000_000_000 },
        protocol,
        destination: destination.map(str::to_owned),
        port,
        name: name.map(str::to_owned),
        times,
    };
    let egress = Egress {
        policy: EgressPolicy::Forbid,
        total: 5,
        attempts: vec![
            attempt(EgressProtocol::Dns, None, None, Some("updates.vendor.example"), 2),
            attempt(EgressProtocol::Tcp, Some("203.0.113.5"), Some(443), None, 1),
        ],
        counted_only: 2,
        gaps: vec![],
    };
    let story = until_checks()
        .then(21_000, check("everything is back", "manifest", CheckOutcome::Passed, vec![]))
        .then(1, DrillEventKind::EgressRecorded { egress });
    torn_down(story).end(5)
}

/// As a first try leaves it: a local directory, no locks to be seen, no objectives but one.
pub fn tried_out() -> Vec<DrillEvent> {
    let mut events = passed();
    for event in &mut events {
        match &mut event.kind {
            DrillEventKind::Started { plan, .. } => {
                plan.objectives = Objectives { rto: Some(Period::from_secs(900)), ..Objectives::default() };
                plan.trigger = Trigger::OnDemand { reason: None };
                plan.plan = None;
            }
            DrillEventKind::PointSelected { point } => {
                point.producer = "unsigned".into();
                point.captured_from = CaptureSource::Manifest;
                point.points_seen = 1;
                point.worst_gap = None;
            }
            DrillEventKind::ChainRecorded { chain, transport } => {
                for object in &mut chain.objects {
                    object.lock = LockFacts::unknown("a local directory has no object lock");
                    object.version = None;
                    object.etag = None;
                    object.storage_class = None;
                    object.server_encryption = None;
                }
                *transport = Transport { store: "file".into(), credentials: "none".into(), ..Transport::default() };
            }
            _ => {}
        }
    }
    events.pop();
    let elapsed = events.last().map_or(0, |e| e.elapsed.nanos) / 1_000_000;
    Story { events, millis: elapsed }.end(4)
}

pub fn failed() -> Vec<DrillEvent> {
    let damaged = Finding::backup(
        "everything is back",
        FindingKind::TreeDiffers {
            summary: TreeSummary { matched: 18_201, mismatched: 1, missing: 2, extra: 0 },
            aspects: [("content".to_owned(), 1), ("missing".to_owned(), 2)].into(),
            examples: vec![Pseudonym("path-6f1f5c0d2e3b4a59".into())],
        },
    );
    let short = Finding::backup(
        "lock",
        FindingKind::LockTooShort {
            object: Pseudonym("object-000003699c9d369d".into()),
            left: Period::from_secs(9 * 86_400),
            required: Period::from_secs(30 * 86_400),
        },
    );
    let story = until_checks()
        .then(21_000, check("everything is back", "manifest", CheckOutcome::Failed, vec![damaged]))
        .then(2, check("patients are there", "files", CheckOutcome::Passed, vec![]))
        .then(1, DrillEventKind::Found { finding: short });
    torn_down(story).end(5)
}

pub fn inconclusive() -> Vec<DrillEvent> {
    let finding = Finding::runner("locate", FindingKind::StorageUnreachable { reason: "connection refused".into() });
    let story = Story::new()
        .then(0, started())
        .phase(2, Phase::Provision)
        .then(30, DrillEventKind::SandboxProvisioned { facts: sandbox() })
        .phase(1, Phase::Locate)
        .then(9_000, DrillEventKind::Found { finding });
    torn_down(story).end(5)
}

pub fn issuer() -> Issuer {
    Issuer { key: signer_fingerprint(), custody: KeyCustody::Configured, organisation: Some("Example Clinic".into()) }
}

pub fn signer() -> SignerKey {
    SignerKey::from_seed(&Zeroizing::new([9; 32]))
}

fn signer_fingerprint() -> String {
    signer().public().fingerprint()
}

pub fn report(events: &[DrillEvent]) -> Report {
    Report::from_events(events, issuer()).expect("a sample is whole")
}
