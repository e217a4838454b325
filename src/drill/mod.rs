//! The life of a drill, told once.
//!
//! `drill` emits events; whoever shows them listens. It knows neither a terminal nor where evidence is kept: `app` seals
//! what it returns.

mod as_of;
mod blame;
mod chain;
mod checks;
mod egress;
mod foreign;
mod inside;
mod leash;
mod names;
mod recorder;
mod regression;
mod services;
mod steps;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

pub use blame::Stop;
pub use recorder::{Listener, RecordError, Recorder};

use crate::clock::Clock;
use crate::codec::age::Identities;
use crate::domain::{
    Cause, DrillEvent, DrillEventKind, DrillId, Finding, FindingKind, LastDrill, Met, Phase, Plan, PlantedCanary, RecoveryPoint,
    RightsFacts, RunnerFacts, Scenario, SecretRef, Selector, Severity, Source, StorageLocation, Timestamp, ToolFacts, Unlock, Verdict,
    judge_rights, recount,
};
use crate::evidence::Pseudonymizer;
use crate::restore::Progress;
use crate::sandbox::{Isolation, SandboxSpec, SwapPolicy, ToolDir};
use crate::vault::{VaultError, VaultView};

/// Opens the vault view of a source: the seam at which `app` wires the storage, and tests and sabotage theirs.
#[async_trait]
pub trait Vaults: Send + Sync {
    /// Opens it, a bucket as it stood at `as_of` where there is one; asks the network nothing yet.
    async fn open(&self, source: &Source, as_of: Option<Timestamp>) -> Result<VaultView, VaultError>;
}

/// What opens backups, and whose manifests are believed.
pub struct Keys {
    /// age and SSH identities.
    pub identities: Identities,
    /// Public keys of trusted producers.
    pub producers: Vec<ssh_key::PublicKey>,
}

/// A key that the scenario names cannot be used. The text names the reference, never the key.
#[derive(Debug, thiserror::Error)]
#[error("{reference}: {reason}")]
pub struct KeyError {
    /// `file:…` or `env:…`, as the scenario writes it.
    pub reference: String,
    /// Why.
    pub reason: String,
}

/// Loads keys.
pub trait Keyring: Send + Sync {
    /// All that the scenario names.
    ///
    /// # Errors
    /// [`KeyError`] for the first that cannot be used.
    fn load(&self, unlock: &Unlock) -> Result<Keys, KeyError>;
    /// One secret, as it is.
    ///
    /// # Errors
    /// [`KeyError`] where it cannot be read.
    fn secret(&self, reference: &SecretRef) -> Result<Zeroizing<Vec<u8>>, KeyError>;
}

/// What a drill is given to work with.
pub struct Services<'a> {
    /// Time.
    pub clock: &'a dyn Clock,
    /// The same clock's wall time, for what lives on threads of its own.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Storage.
    pub vaults: &'a dyn Vaults,
    /// Keys.
    pub keys: &'a dyn Keyring,
    /// Makes pseudonyms.
    pub pseudonyms: &'a Pseudonymizer,
    /// Hears every name that got a pseudonym, for the annex.
    pub names: &'a (dyn Fn(&crate::domain::Pseudonym, &[u8]) + Send + Sync),
    /// Where sandboxes register.
    pub state: PathBuf,
    /// Whether a drill may run without isolation.
    pub isolation: Isolation,
    /// Whether scratch may reach a swap device.
    pub swap: SwapPolicy,
    /// Bytes so far, for whoever watches.
    pub progress: Arc<Progress>,
    /// Ends the drill early.
    pub cancel: CancellationToken,
    /// The last drill of the scenario that passed, from its verified evidence; or why that is not believed.
    pub last: Result<Option<LastDrill>, String>,
    /// Canaries that were planted for the scenario, in the order of their times.
    pub canaries: Vec<PlantedCanary>,
}

/// What is asked for, beside the scenario.
#[derive(Debug, Clone)]
pub struct Order {
    /// All that is fixed beforehand.
    pub plan: Plan,
    /// Who and what runs it.
    pub runner: RunnerFacts,
    /// Which recovery point, of each part of the scenario in their order.
    pub selectors: Vec<Selector>,
    /// What the credentials of each part may do beyond reading, where it was asked before.
    pub rights: Vec<Option<RightsFacts>>,
}

/// What is restored by itself, and which recovery point of it.
type Part<'a> = (std::borrow::Cow<'a, Scenario>, Selector);

/// Runs one drill. It ends with a verdict, unless it cannot be recorded.
///
/// # Errors
/// [`RecordError`] where the journal cannot be written: without evidence there is nothing to claim.
pub async fn run(
    scenario: &Scenario,
    order: Order,
    services: &Services<'_>,
    mut recorder: Recorder<'_>,
) -> Result<Vec<DrillEvent>, RecordError> {
    recorder.record(DrillEventKind::Started { plan: Box::new(order.plan), runner: order.runner })?;
    let parts: Vec<_> = scenario.parts().into_iter().zip(order.selectors).collect();
    for ((part, _), rights) in parts.iter().zip(order.rights) {
        cite_rights(part, rights, &mut recorder)?;
    }
    let stop = attempt(scenario, &parts, services, &mut recorder).await?; // kept, not propagated: what went wrong is evidence too
    recorder.found(stop.into_iter().flat_map(Stop::into_findings))?;
    match &services.last {
        Ok(Some(last)) => recorder.found(regression::of_drill(recorder.events(), last, &scenario.regression))?,
        Err(reason) if scenario.regression.any() => {
            recorder.found([Finding::warning("regression", Cause::Runner, FindingKind::CouldNotRun { reason: reason.clone() })])?;
        }
        Ok(None) | Err(_) => {}
    }
    recorder.found(closing_remarks(recorder.events()))?;
    let outcome = recount(recorder.events()).expect("a drill's first event is its start");
    recorder.record(DrillEventKind::Finished {
        verdict: outcome.verdict,
        assessments: outcome.assessments,
        measurements: outcome.measurements,
    })?;
    Ok(recorder.into_events())
}

/// What a scenario's tools find, asked without a drill: nothing is restored, recorded or signed.
#[derive(Debug)]
pub struct Looked {
    /// The tools.
    pub tools: Vec<ToolFacts>,
    /// The recovery points that they list, or that the storage's names say.
    pub points: Vec<RecoveryPoint>,
}

/// Asks the tools of a scenario for its recovery points, in a sandbox as a drill has it.
///
/// # Errors
/// [`Stop`] with the findings that would end a drill here.
pub async fn look(scenario: &Scenario, selector: &Selector, services: &Services<'_>, id: DrillId) -> Result<Looked, Stop> {
    let sandbox = crate::sandbox::provision(&sandbox_spec(scenario, services, id)).await?;
    let asked = async {
        let (leash, _idle) = leash::Leash::new(services.clock, scenario.limits.time);
        let mut bench = foreign::open(scenario, selector, services, &sandbox, &chain::Views::default(), true).await?;
        let points = bench.points(scenario, services, &sandbox, &leash).await;
        let tools = bench.tools.clone();
        bench.stop().await;
        Ok(Looked { tools, points: points?.0 })
    };
    let looked = asked.await;
    sandbox.destroy().await;
    looked
}

fn sandbox_spec(scenario: &Scenario, services: &Services<'_>, id: DrillId) -> SandboxSpec {
    SandboxSpec {
        isolation: services.isolation,
        swap: services.swap,
        tools: scenario.limits.tools.iter().map(|d| ToolDir { host: d.clone(), inside: d.clone() }).collect(),
        served_hosts: foreign::served_hosts(scenario),
        ..SandboxSpec::new(id, scenario.limits.clone(), services.state.clone())
    }
}

/// A drill only reads, so it asks nothing about rights: it cites what `doctor` found.
fn cite_rights(scenario: &Scenario, rights: Option<RightsFacts>, recorder: &mut Recorder<'_>) -> Result<(), RecordError> {
    if !matches!(scenario.source.location, StorageLocation::S3 { .. }) {
        return Ok(());
    }
    let findings = judge_rights(rights.as_ref(), scenario.source.policy.rights, recorder.events()[0].at);
    if let Some(rights) = rights {
        recorder.record(DrillEventKind::RightsCited { rights })?;
    }
    recorder.found(findings)
}

/// Makes the sandbox, works in it, and destroys it whatever happened; only then looks at how it went.
async fn attempt(
    scenario: &Scenario,
    parts: &[Part<'_>],
    services: &Services<'_>,
    recorder: &mut Recorder<'_>,
) -> Result<Option<Stop>, RecordError> {
    recorder.phase(Phase::Provision)?;
    let spec = sandbox_spec(scenario, services, recorder.drill().clone());
    let sandbox = match crate::sandbox::provision(&spec).await {
        Ok(sandbox) => sandbox,
        Err(error) => return Ok(Some(Stop::from(error))),
    };
    recorder.record(DrillEventKind::SandboxProvisioned { facts: sandbox.facts().clone() })?;

    let refused = egress::refused(scenario, &sandbox);
    let began = refused.is_none();
    let outcome = match refused {
        Some(stop) => Err(leash::Ended::Stopped(stop)),
        None => inside::in_sandbox(scenario, parts, services, &sandbox, recorder).await,
    };

    let mut torn_down = recorder.phase(Phase::Teardown);
    if let Some(attempts) = sandbox.settle().await.filter(|_| began) {
        let egress = egress::dated(attempts, scenario.egress, recorder);
        torn_down = torn_down.and_then(|()| recorder.record(DrillEventKind::EgressRecorded { egress }));
    }
    let (started, from) = (services.clock.now(), services.clock.monotonic());
    let mut disposal = sandbox.destroy().await;
    disposal.started_at = Some(started);
    disposal.ended_at = Some(services.clock.now());
    disposal.took = Some(services.clock.monotonic().since(from));
    torn_down?;
    let remains = disposal.probes.iter().filter(|p| !p.gone).map(|p| p.what.clone()).collect::<Vec<_>>();
    recorder.record(DrillEventKind::SandboxDestroyed { disposal })?;
    if !remains.is_empty() {
        recorder.found([Finding::runner("teardown", FindingKind::NotDisposed { reason: remains.join(", ") })])?;
    }
    match outcome {
        Ok(()) => Ok(None),
        Err(leash::Ended::Stopped(stop)) => Ok(Some(stop)),
        Err(leash::Ended::Unrecorded(error)) => Err(error),
    }
}

/// What only shows at the end: missed objectives in words, nothing asserted, clocks that disagree.
fn closing_remarks(events: &[DrillEvent]) -> Vec<Finding> {
    let Some(outcome) = recount(events) else { return Vec::new() };
    let mut remarks = Vec::new();
    for assessment in &outcome.assessments {
        if let (Met::Missed, Some(achieved)) = (&assessment.met, assessment.achieved) {
            let kind = FindingKind::ObjectiveMissed { objective: assessment.objective.clone(), target: assessment.target, achieved };
            remarks.push(Finding::backup("objectives", kind));
        }
    }
    let failing = outcome.findings.iter().any(|f| f.severity == Severity::Fail);
    if outcome.assertions == 0 && !failing {
        remarks.push(Finding::backup("checks", FindingKind::NoAssertions));
    }
    if let (Some(first), Some(last)) = (events.first(), events.last()) {
        let measured = last.elapsed.since(first.elapsed).as_secs_f64();
        let stepped = last.at.seconds_since(first.at) as f64 - measured;
        // whole seconds on the one side, and clocks that are being slewed, stay below this
        if stepped.abs() > 3.0 {
            remarks.push(Finding::warning("clock", Cause::Runner, FindingKind::ClockStepped { seconds: stepped.round() as i64 }));
        }
    }
    remarks
}

/// The verdict among a drill's events.
pub fn verdict_of(events: &[DrillEvent]) -> Option<Verdict> {
    events.iter().rev().find_map(|event| match &event.kind {
        DrillEventKind::Finished { verdict, .. } => Some(*verdict),
        _ => None,
    })
}
