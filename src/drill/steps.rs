//! What happens inside the sandbox's life: locate, preflight, restore, verify. Each step takes the last one's value.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::Mode;

use super::blame::Stop;
use super::checks::{InSandbox, RestoredTree};
use super::leash::{Ended, Leash};
use super::names::{OfChecks, nobody, object_name, path_name, record_name};
use super::services::Running;
use super::{Keys, Recorder, Services, as_of, chain, regression};
use crate::checks::{Restored as Asked, ask};
use crate::codec::manifest::{self, Manifest, ProducerTrust, Role, SetObject, verify_manifest};
use crate::domain::{
    CaptureSource, Cause, CheckKind, CheckSpec, DrillEvent, DrillEventKind, Finding, FindingKind, ObjectRef, Observations, Phase,
    PointForm, Pseudonym, RecoveryPoint, RestorePath, Scenario, SelectedPoint, Selector, Timestamp, select, worst_gap,
};
use crate::evidence;
use crate::restore::{
    ArchiveOptions, EntryName, Member, RestoreError, Restored, SealedSet, SealedSource, Target, restore_archive, restore_sealed,
};
use crate::sandbox::{Limit, Sandbox, SandboxError};
use crate::vault::{Digesting, Pinned, VaultView};

/// The recovery point that was selected, opened as far as its manifest.
pub(super) struct Located {
    view: VaultView,
    point: RecoveryPoint,
    keys: Arc<Keys>,
    manifest: Option<Manifest>,
}

/// What a restore will read: every object version, pinned.
pub(super) struct Prepared {
    located: Located,
    objects: Vec<(Pinned, Option<SetObject>)>,
}

pub(super) async fn locate(
    scenario: &Scenario,
    selector: &Selector,
    services: &Services<'_>,
    views: &chain::Views,
    recorder: &mut Recorder<'_>,
) -> Result<Located, Ended> {
    recorder.phase(Phase::Locate)?;
    let keys = Arc::new(services.keys.load(&scenario.unlock)?);
    let view = open_view(scenario, selector, services).await?;
    let list = view.points().await.map_err(|e| Stop::vault("locate", &e, nobody()))?;
    views.add(&view, scenario);
    let mut remarks = Vec::from_iter(as_of::remarks(selector, view.as_of()));
    if !list.broken.is_empty() {
        let detail = format!("{} other recovery points under this prefix have a manifest that cannot be read", list.broken.len());
        remarks.push(Finding::warning("locate", Cause::Backup, FindingKind::Remark { detail }));
    }
    if list.half_written > 0 {
        let detail = format!("{} sets under this prefix have no manifest: they were never finished, and do not count", list.half_written);
        remarks.push(Finding::warning("locate", Cause::Backup, FindingKind::Remark { detail }));
    }
    recorder.found(remarks)?;
    let broken: Vec<&str> = list.broken.iter().map(|b| b.id.as_str()).collect();
    let point = selected(&view, &list.points, &broken, selector)?;
    let mut located = Located { view, point, keys, manifest: None };
    let producer = match located.point.form {
        PointForm::SealedSet => read_manifest(&mut located, scenario, services, recorder).await?,
        PointForm::BareObject | PointForm::Snapshot | PointForm::Repository => "no manifest".to_owned(),
    };
    announce(&located.point, &list.points, &producer, scenario, services, recorder)?;
    Ok(located)
}

/// The storage as this drill sees it.
pub(super) async fn open_view(scenario: &Scenario, selector: &Selector, services: &Services<'_>) -> Result<VaultView, Stop> {
    services.vaults.open(&scenario.source, selector.as_of()).await.map_err(|e| Stop::vault("locate", &e, nobody()))
}

/// Why a prefix without anything in it ends a drill.
pub(super) fn nothing_there(view: &VaultView) -> Stop {
    Stop::selection(&crate::domain::SelectError::None, &[], as_of::nothing_yet(view.as_of()))
}

/// The recovery point that is asked for.
pub(super) fn selected(view: &VaultView, points: &[RecoveryPoint], broken: &[&str], selector: &Selector) -> Result<RecoveryPoint, Stop> {
    select(points, selector).cloned().map_err(|error| Stop::selection(&error, broken, as_of::nothing_yet(view.as_of())))
}

/// Records which recovery point was selected among those seen; stops where it cannot be true.
pub(super) fn announce(
    point: &RecoveryPoint,
    seen: &[RecoveryPoint],
    producer: &str,
    scenario: &Scenario,
    services: &Services<'_>,
    recorder: &mut Recorder<'_>,
) -> Result<(), Ended> {
    let started = recorder.started_at();
    let captures: Vec<Timestamp> = seen.iter().map(|p| p.captured_at).collect();
    let name = services.pseudonyms.point(&point.id);
    (services.names)(&name, point.id.as_bytes());
    recorder.record(DrillEventKind::PointSelected {
        point: SelectedPoint {
            component: recorder.component(),
            point: name,
            captured_at: point.captured_at,
            captured_from: point.captured_from,
            form: point.form,
            size: point.size,
            objects: point.objects.len() as u64,
            points_seen: seen.len() as u64,
            worst_gap: worst_gap(&captures, started, scenario.source.look_back),
            producer: producer.to_owned(),
        },
    })?;
    if point.captured_from == CaptureSource::UploadTime {
        let detail = CaptureSource::UploadTime.to_string();
        recorder.found([Finding::warning("locate", Cause::Backup, FindingKind::WeakCaptureTime { detail })])?;
    }
    // clocks of producer and runner may differ by a little
    let ahead = point.captured_at.seconds_since(started);
    if ahead > 300 {
        let ahead = crate::domain::Period::from_secs(ahead.unsigned_abs());
        return Err(Stop::one(Finding::runner("locate", FindingKind::CapturedInFuture { ahead })).into());
    }
    Ok(())
}

/// Reads and checks the manifest of a sealed set; says what is known of its producer.
async fn read_manifest(
    located: &mut Located,
    scenario: &Scenario,
    services: &Services<'_>,
    recorder: &mut Recorder<'_>,
) -> Result<String, Ended> {
    let view = &located.view;
    let object = located.point.objects.first().cloned().ok_or_else(|| Stop::missing(nobody(), "manifest"))?;
    let name = object_name(services, &object.key);
    let vault = |e: &crate::vault::VaultError| Stop::vault("manifest", e, name.clone());
    let pinned = view.pin(&object, "manifest").await.map_err(|e| vault(&e))?;
    let bytes = view.read(&pinned, manifest::MAX_BYTES).await.map_err(|e| vault(&e))?;
    let manifest = Manifest::parse(&bytes).map_err(|e| Stop::damaged(name.clone(), "manifest", e.to_string()))?;
    if manifest.id != located.point.id {
        return Err(Stop::differs(name, "it names another set than the one it lies in").into());
    }
    let folder = object.key.strip_suffix(manifest::MANIFEST).unwrap_or("").to_owned();
    let signature = match view.find(&format!("{folder}{}", manifest::SIGNATURE)).await.map_err(|e| vault(&e))? {
        None => None,
        Some(found) => {
            let pinned = view.pin(&found, "signature").await.map_err(|e| vault(&e))?;
            Some(view.read(&pinned, 64 << 10).await.map_err(|e| vault(&e))?)
        }
    };
    let trust = verify_manifest(&bytes, signature.as_deref(), &located.keys.producers);
    let demanded = !scenario.unlock.trusted_producers.is_empty();
    let producer = match trust {
        ProducerTrust::Trusted { by } => {
            located.point.captured_from = CaptureSource::SignedManifest;
            let detail = format!("the manifest is signed by {by}, a producer that the scenario trusts");
            recorder.found([Finding::note("manifest", Cause::Backup, FindingKind::Remark { detail })])?;
            "trusted".to_owned()
        }
        ProducerTrust::Untrusted { why } if demanded => return Err(Stop::untrusted(why.to_string()).into()),
        ProducerTrust::Unsigned if demanded => return Err(Stop::untrusted("it is not signed at all".to_owned()).into()),
        ProducerTrust::Untrusted { .. } => "not trusted".to_owned(),
        ProducerTrust::Unsigned => "unsigned".to_owned(),
    };
    if !demanded {
        let detail =
            "the scenario names no trusted producer, so anybody could have sealed this set: age encrypts to public keys".to_owned();
        recorder.found([Finding::warning("manifest", Cause::Runner, FindingKind::Remark { detail })])?;
    }
    located.point.captured_at = manifest.captured_at;
    located.point.size = pinned.object.size + manifest.objects.iter().map(|o| o.size).sum::<u64>();
    located.point.objects.truncate(1);
    located.point.objects.extend(manifest.objects.iter().map(|o| ObjectRef {
        key: format!("{folder}{}", o.name),
        size: o.size,
        stored_at: object.stored_at,
    }));
    located.manifest = Some(manifest);
    Ok(producer)
}

/// Refuses before anything is restored: members that are missing or of another size, locks against policy, space.
pub(super) async fn preflight(
    scenario: &Scenario,
    services: &Services<'_>,
    sandbox: &Sandbox,
    located: Located,
    recorder: &mut Recorder<'_>,
) -> Result<Prepared, Ended> {
    recorder.phase(Phase::Preflight)?;
    let started = recorder.started_at();
    // the manifest itself, first among a set's objects, was pinned when it was read
    let members: Vec<(&ObjectRef, Option<&SetObject>)> = match &located.manifest {
        Some(manifest) => located.point.objects.iter().skip(1).zip(manifest.objects.iter().map(Some)).collect(),
        None => located.point.objects.iter().map(|object| (object, None)).collect(),
    };
    let view = &located.view;
    let roles: Vec<(&ObjectRef, &str)> =
        members.iter().map(|(object, member)| (*object, member.map_or("object", |m| m.role.word()))).collect();
    let pinned = view
        .pin_all(&roles)
        .await
        .map_err(|(number, error)| Stop::vault("preflight", &error, object_name(services, &members[number].0.key)))?;
    let objects: Vec<(Pinned, Option<SetObject>)> = pinned.into_iter().zip(members.iter().map(|(_, member)| member.cloned())).collect();
    for (pinned, member) in &objects {
        if let Some(member) = member {
            view.quote(pinned, member.blake3, member.sha256);
        }
    }
    let mut wrong = Vec::new();
    for (pinned, member) in &objects {
        let name = object_name(services, &pinned.object.key);
        if let Some(member) = member
            && member.size != pinned.object.size
        {
            let detail = format!("{} bytes stored, {} in the manifest", pinned.object.size, member.size);
            let (object, layer) = (name.clone(), "object".to_owned());
            wrong.push(Finding::backup(
                "preflight",
                if pinned.object.size < member.size {
                    FindingKind::ObjectTruncated { object, layer, detail }
                } else {
                    FindingKind::ObjectDiffers { object, detail }
                },
            ));
        }
        if pinned.object.size == 0 {
            wrong.push(Finding::backup("preflight", FindingKind::EmptyRestore { detail: "the object has no bytes at all".into() }));
        }
    }
    // the manifest and its signature were pinned before the members
    recorder.found(chain::lock_findings(&chain::read(view, services), scenario, started))?;
    if !wrong.is_empty() {
        return Err(Stop::several(wrong).into());
    }
    if let Some(manifest) = &located.manifest {
        // a page for each entry is what a tmpfs takes beside the content
        let entries = manifest.totals.entries;
        if entries > scenario.limits.max_files {
            let kind = FindingKind::BudgetExceeded { budget: "files".to_owned(), limit: scenario.limits.max_files };
            return Err(Stop::one(Finding::runner("preflight", kind)).into());
        }
        if let Some(free) = sandbox.free_entries()?.filter(|free| *free < entries) {
            let (limit, value) = ("inodes".to_owned(), format!("{free} free entries of scratch"));
            return Err(Stop::one(Finding::runner("preflight", FindingKind::SandboxLimit { limit, value })).into());
        }
        let needed = manifest.totals.bytes.saturating_add(entries.saturating_mul(4096));
        if sandbox.free_bytes()? < needed {
            return Err(Stop::one(Finding::runner("preflight", FindingKind::ScratchFull { limit: scenario.limits.scratch_size })).into());
        }
    }
    Ok(Prepared { located, objects })
}

pub(super) async fn restore(
    scenario: &Scenario,
    services: &Services<'_>,
    sandbox: &Sandbox,
    prepared: Prepared,
    leash: &Leash,
    recorder: &mut Recorder<'_>,
) -> Result<Restored, Ended> {
    recorder.phase(Phase::Restore)?;
    let Prepared { located, objects } = prepared;
    let owner = sandbox.owner();
    let target = Target {
        root: root_of(scenario.within.as_deref(), sandbox)?,
        spool: sandbox.spool()?,
        owner: Some((owner.uid, owner.gid)),
        budgets: (&scenario.limits).into(),
        cancel: leash.flag.clone(),
        progress: Arc::clone(&services.progress),
        workers: None,
    };
    let mut parts = 0..;
    let member = |object: Option<&SetObject>| match object.map(|o| o.role) {
        None => Member::Object,
        Some(Role::Index) => Member::Index,
        Some(Role::Part) => Member::Part(parts.next().expect("an endless count")),
    };
    let members: Vec<Member> = objects.iter().map(|(_, object)| object.as_ref()).map(member).collect();
    let names: Vec<(Member, Pseudonym)> =
        members.into_iter().zip(objects.iter().map(|(p, _)| object_name(services, &p.object.key))).collect();
    let (keys, working) = (Arc::clone(&located.keys), leash.working.clone());
    let outcome = match &located.manifest {
        Some(manifest) => {
            let read = |pinned: &Pinned| located.view.reader(pinned, Digesting::Blake3).until(leash.ended.clone());
            let index = objects.iter().find(|(_, m)| m.as_ref().is_some_and(|m| m.role == Role::Index)).map(|(p, _)| read(p));
            let index = index.ok_or_else(|| Stop::missing(nobody(), "index"))?;
            let parts: Vec<_> =
                objects.iter().filter(|(_, m)| m.as_ref().is_some_and(|m| m.role == Role::Part)).map(|(p, _)| read(p)).collect();
            let manifest = manifest.clone();
            tokio::task::spawn_blocking(move || {
                let _working = working;
                // dropped before the sign of life is
                let target = target;
                let parts = parts.iter().map(|p| p as &dyn SealedSource).collect();
                restore_sealed(&SealedSet { manifest: &manifest, index: &index, parts }, &keys.identities, &target, &|_| {})
            })
            .await
        }
        None => {
            let (pinned, _) = &objects[0];
            let source = located.view.reader(pinned, Digesting::Both).until(leash.ended.clone());
            let options = ArchiveOptions {
                name: pinned.object.key.rsplit('/').next().unwrap_or("data").to_owned(),
                captured_at: located.point.captured_at,
                must_be_encrypted: scenario.source.policy.encrypted,
            };
            tokio::task::spawn_blocking(move || {
                let _working = working;
                // dropped before the sign of life is
                let target = target;
                restore_archive(&source, &keys.identities, &options, &target)
            })
            .await
        }
    };
    let mut restored = outcome.map_err(|_| Stop::crashed("restore"))?.map_err(|error| {
        // the file system says "no space" of bytes and of entries alike; only it knows which
        if matches!(error, RestoreError::ScratchFull)
            && let Some(full @ SandboxError::Limit { limit: Limit::Inodes, .. }) = sandbox.scratch_is_full()
        {
            return Stop::one(Finding::runner("restore", full.finding()));
        }
        let object = |member: Member| names.iter().find(|(m, _)| *m == member).map_or_else(nobody, |(_, name)| name.clone());
        let entry = |entry: &EntryName| path_name(services, &entry.0);
        Stop::restore(&error, &object, &entry, scenario)
    })?;
    restored.facts.component = recorder.component();
    recorder.record(DrillEventKind::Restored { facts: restored.facts.clone() })?;
    let mut left_out = restored.skipped.clone();
    if restored.xattrs_left_out > 0 {
        left_out.insert("extended attributes that scratch does not take".to_owned(), restored.xattrs_left_out);
    }
    recorder.found(
        left_out
            .into_iter()
            .map(|(detail, count)| Finding::warning("restore", Cause::Backup, FindingKind::EntriesSkipped { count, detail })),
    )?;
    Ok(restored)
}

/// The directory that is restored into.
pub(super) fn root_of(within: Option<&str>, sandbox: &Sandbox) -> Result<OwnedFd, SandboxError> {
    let root = sandbox.root()?;
    let Some(within) = within else { return Ok(root) };
    let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
    let made = sandbox.owner().directory(&root, within, mode);
    made.map_err(|e| SandboxError::Io { step: "make a component's directory", source: e.into() })
}

/// What of a system was restored: each component's name with its tree; one without a name where it has no components.
pub(super) type Parts = Vec<(Option<String>, Restored)>;

/// Asks the checks of restored files, where a service is about to change those.
pub(super) async fn inspect(
    scenario: &Scenario,
    services: &Services<'_>,
    sandbox: &Sandbox,
    parts: &Parts,
    recorder: &mut Recorder<'_>,
) -> Result<(), Ended> {
    if !scenario.changes_files() || !scenario.checks.iter().any(|check| check.kind.looks_at_files()) {
        return Ok(());
    }
    recorder.phase(Phase::Inspect)?;
    let running = Running::none(services);
    ask_those(scenario, services, sandbox, parts, &running, recorder, &|kind| kind.looks_at_files()).await
}

/// Asks the checks that were not asked yet.
pub(super) async fn verify(
    scenario: &Scenario,
    services: &Services<'_>,
    sandbox: &Sandbox,
    parts: &Parts,
    running: &Running<'_>,
    recorder: &mut Recorder<'_>,
) -> Result<(), Ended> {
    // content that differs from what the manifest says is never left to whether somebody asks
    let asked = scenario.checks.iter().any(|c| c.kind == CheckKind::Manifest);
    for compared in parts.iter().filter_map(|(_, restored)| restored.compared.as_ref()).filter(|c| !asked && !c.is_clean()) {
        let kind = FindingKind::TreeDiffers {
            summary: compared.summary.clone(),
            aspects: compared.aspects.iter().map(|(aspect, count)| (aspect.word().to_owned(), *count)).collect(),
            examples: compared.examples.iter().map(|d| path_name(services, d.path.as_bytes())).collect(),
        };
        recorder.found([Finding::backup("restore", kind)])?;
    }
    let inspected = scenario.changes_files();
    ask_those(scenario, services, sandbox, parts, running, recorder, &|kind| !(inspected && kind.looks_at_files())).await
}

/// When the recovery point was captured, and how that is known; of several components the oldest.
fn captured(events: &[DrillEvent]) -> Option<(Timestamp, CaptureSource)> {
    let points = events.iter().filter_map(|event| match &event.kind {
        DrillEventKind::PointSelected { point, .. } => Some((point.captured_at, point.captured_from)),
        _ => None,
    });
    points.min_by_key(|(at, _)| *at)
}

async fn ask_those(
    scenario: &Scenario,
    services: &Services<'_>,
    sandbox: &Sandbox,
    parts: &Parts,
    running: &Running<'_>,
    recorder: &mut Recorder<'_>,
    wanted: &(dyn Fn(&CheckKind) -> bool + Sync),
) -> Result<(), Ended> {
    // all components together have no manifest
    let together = Restored::default();
    let whole = match parts.as_slice() {
        [(None, only)] => only,
        _ => &together,
    };
    let tree = RestoredTree::new(sandbox.root()?, whole);
    let pseudonym = |path: &RestorePath| path_name(services, path.as_bytes());
    let record = |record: &[u8]| record_name(services, record);
    let programs = InSandbox { sandbox, time: scenario.limits.time, beside_servers: running.any() };
    let asked = Asked {
        tree: &tree,
        programs: &programs,
        databases: running,
        started: recorder.started_at(),
        pseudonym: &pseudonym,
        record: &record,
        names: &OfChecks(services),
        last: services.last.as_ref().map(Option::as_ref).map_err(String::as_str),
        captured: captured(recorder.events()),
        canaries: &services.canaries,
    };
    let mut observations = Observations::default();
    for check in scenario.checks.iter().filter(|check| wanted(&check.kind)) {
        if check.kind == CheckKind::Manifest && parts.iter().any(|(name, restored)| name.is_some() && restored.index.is_some()) {
            for (name, restored) in parts.iter().filter(|(_, restored)| restored.index.is_some()) {
                let tree = RestoredTree::new(root_of(name.as_deref(), sandbox)?, restored);
                let named = CheckSpec { name: format!("{} ({})", check.name, name.as_deref().unwrap_or_default()), ..check.clone() };
                let report = ask(&named, &Asked { tree: &tree, ..asked }).await.report;
                recorder.record(DrillEventKind::CheckEnded { report })?;
            }
            continue;
        }
        let answered = ask(check, &asked).await;
        if let Some(seen) = answered.seen {
            observations.checks.insert(check.name.clone(), seen);
            recorder.attach(evidence::names::OBSERVED, &serde_json::to_vec(&observations).expect("maps of strings and numbers"))?;
        }
        recorder.record(DrillEventKind::CheckEnded { report: answered.report })?;
        if let Some(at) = answered.newest {
            recorder.record(DrillEventKind::DataDated { at, source: CaptureSource::Content })?;
        }
    }
    if let Ok(Some(last)) = &services.last {
        recorder.found(regression::of_observations(&observations, last, &scenario.regression))?;
    }
    Ok(())
}
