//! Services: loaded, started, shown to be usable, and asked by checks.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use data_encoding::HEXLOWER;

use super::blame::Stop;
use super::leash::Ended;
use super::names::output_name;
use super::{Recorder, Services};
use crate::checks::{Databases, NoAnswer, Rows};
use crate::domain::{
    Cause, DatabaseRef, DrillEventKind, Engine, Finding, FindingKind, Fingerprint, IntegrityAnswer, IntegrityDepth, Phase, Sample,
    Scenario, SchemaObject, ServiceStep, Severity,
};
use crate::restore::service::{self, AskError, Service, Shop};
use crate::sandbox::{Sandbox, SandboxError};

/// Services that were started, and what they work with.
pub(super) struct Running<'a> {
    services: Vec<(&'a ServiceStep, Box<dyn Service>, Shop<'a>)>,
    told: &'a Services<'a>,
}

impl<'a> Running<'a> {
    /// No server: checks of files alone are asked.
    pub(super) fn none(told: &'a Services<'a>) -> Self {
        Self { services: Vec::new(), told }
    }
}

/// Loads and starts every service of the scenario, in order; then the restored system is usable.
pub(super) async fn bring_up<'a>(
    scenario: &'a Scenario,
    services: &'a Services<'a>,
    sandbox: &'a Sandbox,
    left: &'a (dyn Fn() -> Duration + Send + Sync),
    recorder: &mut Recorder<'_>,
) -> Result<Running<'a>, Ended> {
    let mut running = Running::none(services);
    for step in scenario.service_steps() {
        running.services.push((step, service::of(step), shop(scenario, step, sandbox, left)?));
    }
    if running.services.is_empty() {
        recorder.record(DrillEventKind::BecameUsable)?;
        return Ok(running);
    }
    recorder.phase(Phase::Load)?;
    for (step, service, shop) in &mut running.services {
        let loaded = service.load(shop).await;
        recorder.found(remarks(step, shop, services))?;
        loaded.map_err(|e| Stop::service(Phase::Load, &step.name, &e, services))?;
    }
    recorder.phase(Phase::Ready)?;
    for (step, service, shop) in &mut running.services {
        let ready = service.ready(shop).await;
        recorder.found(remarks(step, shop, services))?;
        let facts = ready.map_err(|e| Stop::service(Phase::Ready, &step.name, &e, services))?;
        recorder.record(DrillEventKind::ServiceReady { service: facts })?;
    }
    recorder.record(DrillEventKind::BecameUsable)?;
    Ok(running)
}

fn shop<'a>(
    scenario: &'a Scenario,
    step: &'a ServiceStep,
    sandbox: &'a Sandbox,
    left: &'a (dyn Fn() -> Duration + Send + Sync),
) -> Result<Shop<'a>, Stop> {
    let mut random = [0u8; 12];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| SandboxError::Io { step: "draw a nonce", source: e.into() })?;
    let here = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
    let processors = scenario.limits.cpus.map_or(here, |quota| (quota.whole()).clamp(1, here));
    Ok(Shop {
        name: &step.name,
        sandbox,
        directories: &scenario.limits.tools,
        processors,
        memory: scenario.limits.memory.0,
        left,
        nonce: HEXLOWER.encode(&random),
        remarks: Mutex::default(),
    })
}

fn remarks(step: &ServiceStep, shop: &Shop<'_>, services: &Services<'_>) -> Vec<Finding> {
    let noted = std::mem::take(&mut *shop.remarks.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let finding = |remark: service::Remark| {
        let output = (!remark.output.is_empty()).then(|| output_name(services, &remark.output));
        let kind = FindingKind::ServiceFailed { service: step.name.clone(), problem: remark.problem, how: remark.how, output };
        Finding { check: "load".to_owned(), severity: remark.severity, cause: Cause::Backup, kind }
    };
    noted.into_iter().map(finding).collect()
}

impl Running<'_> {
    /// Whether any server runs, which other commands must leave running.
    pub(super) fn any(&self) -> bool {
        !self.services.is_empty()
    }

    fn find(&self, name: Option<&str>) -> Result<&(&ServiceStep, Box<dyn Service>, Shop<'_>), String> {
        match (name, self.services.as_slice()) {
            (None, [only]) => Ok(only),
            (None, []) => Err("the scenario starts no service".to_owned()),
            (None, _) => Err("the scenario starts several services, and the check names none: service = …".to_owned()),
            (Some(name), services) => {
                services.iter().find(|(step, ..)| step.name == name).ok_or_else(|| format!("no service is called `{name}`"))
            }
        }
    }

    fn meant(&self, of: &DatabaseRef) -> Result<(&dyn Service, &Shop<'_>), NoAnswer> {
        let (_, service, shop) = self.find(of.service.as_deref()).map_err(|reason| NoAnswer::NotAsked { reason })?;
        Ok((&**service, shop))
    }

    fn no_answer(&self, error: AskError) -> NoAnswer {
        match error {
            AskError::Refused { state, output } => {
                NoAnswer::Refused { state, output: (!output.is_empty()).then(|| output_name(self.told, &output)) }
            }
            AskError::BadQuestion { reason, output } => {
                if !output.is_empty() {
                    output_name(self.told, &output);
                }
                NoAnswer::NotAsked { reason }
            }
            AskError::Sandbox(SandboxError::Limit { limit, value }) => NoAnswer::Limit { limit: limit.word().to_owned(), value },
            AskError::Sandbox(other) => NoAnswer::NotAsked { reason: other.to_string() },
        }
    }
}

#[async_trait]
impl Databases for Running<'_> {
    fn engine(&self, service: Option<&str>) -> Result<Engine, String> {
        self.find(service).map(|(step, ..)| step.kind.engine())
    }
    async fn query(&self, of: &DatabaseRef, sql: &str) -> Result<Rows, NoAnswer> {
        let (service, shop) = self.meant(of)?;
        let answered = service.query(shop, of.database.as_deref(), sql).await;
        answered.map(|rows| rows.0).map_err(|e| self.no_answer(e))
    }
    async fn objects(&self, of: &DatabaseRef) -> Result<Vec<SchemaObject>, NoAnswer> {
        let (service, shop) = self.meant(of)?;
        service.objects(shop, of.database.as_deref()).await.map_err(|e| self.no_answer(e))
    }
    async fn fingerprints(
        &self,
        of: &DatabaseRef,
        tables: &[String],
        sample: Option<Sample>,
    ) -> Result<Vec<(String, Fingerprint)>, NoAnswer> {
        let (service, shop) = self.meant(of)?;
        service.fingerprints(shop, of.database.as_deref(), tables, sample).await.map_err(|e| self.no_answer(e))
    }
    async fn integrity(&self, of: &DatabaseRef, depth: IntegrityDepth) -> Result<IntegrityAnswer, NoAnswer> {
        let (service, shop) = self.meant(of)?;
        service.integrity(shop, of.database.as_deref(), depth).await.map_err(|e| self.no_answer(e))
    }
}

impl Stop {
    /// A service that did not come back.
    fn service(phase: Phase, name: &str, error: &service::ServiceError, services: &Services<'_>) -> Self {
        use service::ServiceError as E;
        let step = phase.word();
        let kept = |output: &[u8]| (!output.is_empty()).then(|| output_name(services, output));
        let service = name.to_owned();
        let finding = match error {
            E::Backup { problem, how, output } => {
                Finding::backup(step, FindingKind::ServiceFailed { service, problem: *problem, how: how.clone(), output: kept(output) })
            }
            E::Runner { reason, output } => {
                Finding::runner(step, FindingKind::ServiceCouldNotRun { service, reason: reason.clone(), output: kept(output) })
            }
            // the sandbox knows which bound was hit
            E::Sandbox(error) => Finding::runner(step, error.finding()),
        };
        debug_assert_eq!(finding.severity, Severity::Fail);
        Stop::one(finding)
    }
}
