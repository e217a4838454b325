//! A restore by foreign tools: located, prepared and carried out as the native one is, with a gateway or a mirror between
//! the backup and the tool.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::blame::Stop;
use super::leash::{Ended, Leash};
use super::names::{nobody, object_name, output_name};
use super::{RecordError, Recorder, Services, as_of, chain, steps};
use crate::domain::{
    ByteSize, CaptureSource, Cause, DrillEventKind, EntryKind, Finding, FindingKind, ObjectRef, Phase, PointForm, Reader, RecoveryPoint,
    RefusedWrite, RestoredFacts, Scenario, Selector, ServedFacts, StorageLocation, Template, ToolFacts, ToolReads, ToolStep, ToolWrites,
};
use crate::restore::Restored;
use crate::restore::tool::{self, Around, Fillings, GatewayPlaces, MirrorError, MirrorInto, Secrets, ToolError};
use crate::sandbox::{Exit, Sandbox, SandboxError};
use crate::tree::{WalkOptions, walk};
use crate::vault::gateway::{Gateway, GatewayFacts, GatewayKeys, GatewaySpec, Refused, Writes};
use crate::vault::{Pinned, Survey, VaultError, VaultView};

/// The name under which tools find the gateway. `.internal` is kept for private use: no such name is anybody's.
pub(super) const HOST: &str = "s3.drill.internal";
/// The bucket's name where the storage has none.
const LOCAL_BUCKET: &str = "backups";
const REGION: &str = "us-east-1";
/// Bytes that an overlay keeps.
const OVERLAY: u64 = 16 << 20;
/// Bytes of a listing that are read.
const LISTING: usize = 64 << 20;
/// Bytes of what a tool prints while it restores that are looked at.
const OUTPUT: usize = 4 << 20;
/// Refused writes that the evidence lists.
const REFUSALS: usize = 20;

/// Names under which the sandbox must find the gateway; none where no tool reads through it.
pub(super) fn served_hosts(scenario: &Scenario) -> Vec<String> {
    let mut hosts = Vec::new();
    for part in scenario.parts() {
        if part.tool_steps().iter().all(|step| step.reads == ToolReads::Directory) {
            continue;
        }
        // virtual-host addressing needs a bucket that is a name of a host
        let bucket = bucket_of(&part);
        let is_host = bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
        hosts.extend(std::iter::once(HOST.to_owned()).chain(is_host.then(|| format!("{bucket}.{HOST}"))));
    }
    hosts.sort_unstable();
    hosts.dedup();
    hosts
}

fn bucket_of(scenario: &Scenario) -> &str {
    match &scenario.source.location {
        StorageLocation::S3 { bucket, .. } => bucket,
        StorageLocation::File { .. } => LOCAL_BUCKET,
    }
}

/// All that stands while tools work. Closed however their work ends, as what was read and refused is evidence too; only who ends the
/// drill from outside ends it without.
pub(super) struct Bench<'a> {
    steps: Vec<(&'a ToolStep, Secrets)>,
    /// Directories of programs that the scenario names.
    directories: &'a [PathBuf],
    /// The tools, each once.
    pub(super) tools: Vec<ToolFacts>,
    view: VaultView,
    gateway: Option<Gateway>,
    fillings: Fillings,
    /// The mirror stands already: a tool had to list its recovery points from it.
    mirrored: bool,
    /// Entries of the storage that the mirror has not: no request can be made of their names.
    left_out: u64,
}

/// Finds the tools, opens the storage, starts the gateway; nothing is read of the backup yet. Other components may follow, unless this
/// is the last.
pub(super) async fn open<'a>(
    scenario: &'a Scenario,
    selector: &Selector,
    services: &Services<'_>,
    sandbox: &Sandbox,
    views: &chain::Views,
    last: bool,
) -> Result<Bench<'a>, Stop> {
    let fillings = Fillings { component: scenario.within.clone(), ..Fillings::default() };
    furnish(sandbox, &fillings.repository())?;
    steps::root_of(scenario.within.as_deref(), sandbox)?;
    let mut tools: Vec<ToolFacts> = Vec::new();
    let mut steps = Vec::new();
    for step in scenario.tool_steps() {
        if tools.iter().all(|known| known.tool != step.tool) {
            let found = tool::find(step, &scenario.limits.tools, sandbox).await;
            tools.push(found.map_err(|e| Stop::tool("tools", &step.tool, &e, None))?);
        }
        let secrets = step.secrets.iter().map(|(name, reference)| Ok((name.clone(), services.keys.secret(reference)?)));
        steps.push((step, secrets.collect::<Result<Secrets, super::KeyError>>()?));
    }
    let view = steps::open_view(scenario, selector, services).await?;
    view.probe().await.map_err(|e| Stop::vault("locate", &e, nobody()))?;
    if view.is_empty().await.map_err(|e| Stop::vault("locate", &e, nobody()))? {
        return Err(steps::nothing_there(&view));
    }
    views.add(&view, scenario);
    let mut fillings = Fillings { bucket: bucket_of(scenario).to_owned(), prefix: view.prefix().trim_matches('/').to_owned(), ..fillings };
    let through: Vec<&ToolStep> = steps.iter().map(|(step, _)| *step).filter(|step| step.reads == ToolReads::Gateway).collect();
    let mut gateway = None;
    if !through.is_empty() {
        let overlay = through.iter().any(|step| step.writes == ToolWrites::Overlay);
        let writes = if overlay { Writes::Overlay { limit: OVERLAY } } else { Writes::Refuse };
        let listeners = if last { sandbox.take_listeners() } else { sandbox.lend_listeners()? };
        let (started, places) = serve(scenario, &view, services, listeners, writes).map_err(Stop::no_gateway)?;
        fillings.gateway = Some(places);
        gateway = Some(started);
    }
    Ok(Bench { steps, directories: &scenario.limits.tools, tools, view, gateway, fillings, mirrored: false, left_out: 0 })
}

/// Directories in the kit for the tools' own.
fn furnish(sandbox: &Sandbox, repository: &str) -> Result<(), SandboxError> {
    let (kit, owner) = (sandbox.kit()?, sandbox.owner());
    for name in [tool::HOME, tool::TEMPORARY, repository] {
        owner.directory(&kit, name, Mode::RWXU).map_err(|e| SandboxError::Io { step: "furnish the kit", source: e.into() })?;
    }
    Ok(())
}

fn serve(
    scenario: &Scenario,
    view: &VaultView,
    services: &Services<'_>,
    listeners: Vec<TcpListener>,
    writes: Writes,
) -> std::io::Result<(Gateway, GatewayPlaces)> {
    let port = listeners.first().ok_or_else(|| std::io::Error::other("the sandbox has no listener"))?.local_addr()?.port();
    let keys = GatewayKeys::generate()?;
    let (access_key, secret_key) = (keys.access_key.clone(), zeroize::Zeroizing::new(keys.secret_key().to_owned()));
    let spec = GatewaySpec {
        bucket: bucket_of(scenario).to_owned(),
        region: REGION.to_owned(),
        keys,
        writes,
        hosts: vec![HOST.to_owned()],
        reader: Reader::Tool,
        now: Arc::clone(&services.now),
    };
    let progress = Arc::clone(&services.progress);
    let on_bytes = Arc::new(move |bytes| {
        progress.read.fetch_add(bytes, Ordering::Relaxed);
    });
    let gateway = tokio::task::block_in_place(|| Gateway::start(view, spec, listeners, on_bytes))?;
    let ca = gateway.ca_pem().to_owned();
    Ok((gateway, GatewayPlaces { host: HOST.to_owned(), port, region: REGION.to_owned(), access_key, secret_key, ca }))
}

impl Bench<'_> {
    /// From the recovery point to the restored tree.
    pub(super) async fn work(
        &mut self,
        scenario: &Scenario,
        selector: &Selector,
        services: &Services<'_>,
        sandbox: &Sandbox,
        leash: &Leash,
        recorder: &mut Recorder<'_>,
    ) -> Result<Restored, Ended> {
        for tool in &self.tools {
            recorder.record(DrillEventKind::ToolFound { tool: tool.clone() })?;
        }
        recorder.found(as_of::remarks(selector, self.view.as_of()))?;
        let (seen, remarks) = self.points(scenario, services, sandbox, leash).await?; // which may mirror what it lists them from
        recorder.found(remarks)?;
        let point = steps::selected(&self.view, &seen, &[], selector)?;
        match point.form {
            PointForm::Snapshot => self.fillings.snapshot = Some(point.id.clone()),
            PointForm::BareObject => self.fillings.object_key = point.objects.first().map(|object| object.key.clone()),
            PointForm::Repository | PointForm::SealedSet => {}
        }
        steps::announce(&point, &seen, "not asked: a foreign tool's repository", scenario, services, recorder)?;
        let objects = self.preflight(scenario, services, sandbox, &point, recorder).await?;
        if self.left_out > 0 {
            let detail = format!(
                "{} entries of the storage are not in the mirror that the tool reads: no request can be made of their names, which have \
                 empty, `.` or `..` parts or are no text, or they are no files",
                self.left_out
            );
            recorder.found([Finding::warning("preflight", Cause::Runner, FindingKind::Remark { detail })])?;
        }
        self.restore(scenario, services, sandbox, &objects, leash, recorder).await
    }

    /// Recovery points as the objects' names, the tool's own list, or else the repository as a whole says; and what is odd.
    pub(super) async fn points(
        &mut self,
        scenario: &Scenario,
        services: &Services<'_>,
        sandbox: &Sandbox,
        leash: &Leash,
    ) -> Result<(Vec<RecoveryPoint>, Vec<Finding>), Stop> {
        let unreachable = |e: VaultError| Stop::vault("locate", &e, nobody());
        match self.steps.iter().position(|(step, _)| step.snapshots.is_some()) {
            _ if scenario.source.points.is_some() => Ok((self.view.points().await.map_err(unreachable)?.points, Vec::new())),
            Some(lister) => {
                if self.steps[lister].0.reads == ToolReads::Directory {
                    let objects = self.whole("locate", scenario).await?.kept;
                    let pinned = self.pin("locate", &objects, scenario, services, sandbox).await?;
                    self.mirror("locate", scenario, services, sandbox, &pinned, leash).await?;
                    self.mirrored = true;
                }
                let (step, secrets) = &self.steps[lister];
                self.listed(step, secrets, services, sandbox, leash).await
            }
            None => Ok((vec![self.repository(scenario).await?], Vec::new())),
        }
    }

    async fn listed(
        &self,
        step: &ToolStep,
        secrets: &Secrets,
        services: &Services<'_>,
        sandbox: &Sandbox,
        leash: &Leash,
    ) -> Result<(Vec<RecoveryPoint>, Vec<Finding>), Stop> {
        let Some(snapshots) = &step.snapshots else { return Ok((Vec::new(), Vec::new())) };
        let exit = self.run(Phase::Locate, (step, secrets), &snapshots.command, services, sandbox, leash).await?;
        let told = |error: &ToolError| Stop::tool("locate", &step.tool, error, Some(keep_output(services, &exit)));
        if exit.truncated() {
            return Err(told(&ToolError::NoList { why: format!("it is longer than {}", ByteSize(LISTING as u64)) }));
        }
        let list = tool::list(snapshots, &exit.stdout).map_err(|e| told(&e))?;
        // some tools list nothing, and say only in passing that they could not look
        if list.points.is_empty() && tool::says_it_could_not(step, &exit) {
            return Err(told(&ToolError::SaysSo { how: "it lists no recovery point".to_owned() }));
        }
        let detail = format!("{} lists {} recovery points without an id or a time that can be read", step.tool, list.unreadable);
        let odd = (list.unreadable > 0).then(|| Finding::warning("locate", Cause::Backup, FindingKind::Remark { detail }));
        Ok((list.points, odd.into_iter().collect()))
    }

    /// The repository as a whole, where nothing says what it holds. Objects are kept where they will be mirrored.
    async fn repository(&mut self, scenario: &Scenario) -> Result<RecoveryPoint, Stop> {
        let survey = if self.reads_directory() {
            self.whole("locate", scenario).await?
        } else {
            self.view.survey(0).await.map_err(|e| Stop::vault("locate", &e, nobody()))?
        };
        Ok(RecoveryPoint {
            id: "repository".to_owned(),
            captured_at: survey.newest.unwrap_or(crate::domain::Timestamp::from_unix(0)),
            captured_from: CaptureSource::UploadTime,
            form: PointForm::Repository,
            size: survey.bytes,
            objects: survey.kept,
        })
    }

    /// Pins what will be mirrored, and refuses what scratch cannot take.
    async fn preflight(
        &mut self,
        scenario: &Scenario,
        services: &Services<'_>,
        sandbox: &Sandbox,
        point: &RecoveryPoint,
        recorder: &mut Recorder<'_>,
    ) -> Result<Vec<Pinned>, Ended> {
        recorder.phase(Phase::Preflight)?;
        match point.form {
            _ if self.mirrored => Ok(Vec::new()),
            // what a snapshot needs only its tool knows: the whole repository
            PointForm::Snapshot if self.reads_directory() => {
                let objects = self.whole("preflight", scenario).await?.kept;
                Ok(self.pin("preflight", &objects, scenario, services, sandbox).await?)
            }
            _ => Ok(self.pin("preflight", &point.objects, scenario, services, sandbox).await?),
        }
    }

    fn reads_directory(&self) -> bool {
        self.steps.iter().any(|(step, _)| step.reads == ToolReads::Directory)
    }

    /// Every object of the repository: part of one is none, so more than may be mirrored is an end.
    async fn whole(&mut self, phase: &str, scenario: &Scenario) -> Result<Survey, Stop> {
        let keep = usize::try_from(scenario.limits.max_files).unwrap_or(usize::MAX);
        let survey = self.view.survey(keep).await.map_err(|e| Stop::vault(phase, &e, nobody()))?;
        if survey.objects > survey.kept.len() as u64 {
            let kind = FindingKind::BudgetExceeded { budget: "files".to_owned(), limit: scenario.limits.max_files };
            return Err(Stop::one(Finding::runner(phase, kind)));
        }
        self.left_out = survey.skipped;
        Ok(survey)
    }

    async fn pin(
        &self,
        phase: &str,
        found: &[ObjectRef],
        scenario: &Scenario,
        services: &Services<'_>,
        sandbox: &Sandbox,
    ) -> Result<Vec<Pinned>, Stop> {
        let mirrored = self.reads_directory();
        let roles: Vec<_> = found.iter().map(|object| (object, "object")).collect();
        let view = self.view.as_reader(if mirrored { Reader::Mirror } else { Reader::Tool });
        let pinned =
            view.pin_all(&roles).await.map_err(|(number, error)| Stop::vault(phase, &error, object_name(services, &found[number].key)))?;
        if let [only] = &pinned[..]
            && only.object.size == 0
        {
            let kind = FindingKind::EmptyRestore { detail: "the object has no bytes at all".to_owned() };
            return Err(Stop::one(Finding::backup(phase, kind)));
        }
        let bytes: u64 = pinned.iter().map(|p| p.object.size).sum();
        if mirrored && sandbox.free_bytes()? < bytes.saturating_add(pinned.len() as u64 * 4096) {
            return Err(Stop::one(Finding::runner(phase, FindingKind::ScratchFull { limit: scenario.limits.scratch_size })));
        }
        Ok(pinned)
    }

    async fn restore(
        &self,
        scenario: &Scenario,
        services: &Services<'_>,
        sandbox: &Sandbox,
        objects: &[Pinned],
        leash: &Leash,
        recorder: &mut Recorder<'_>,
    ) -> Result<Restored, Ended> {
        recorder.phase(Phase::Restore)?;
        if self.reads_directory() && !self.mirrored {
            self.mirror("restore", scenario, services, sandbox, objects, leash).await?;
        }
        let mut last = None;
        for (step, secrets) in &self.steps {
            let exit = self.run(Phase::Restore, (step, secrets), &step.command, services, sandbox, leash).await?;
            last = Some((step, exit));
        }
        let root = steps::root_of(scenario.within.as_deref(), sandbox)?;
        let counted = tokio::task::spawn_blocking(move || count(&root)).await.map_err(|_| Stop::crashed("restore"))?;
        let counted = counted.map_err(|_| Stop::crashed("restore"))?;
        let facts = RestoredFacts { component: recorder.component(), ..counted };
        if facts.files + facts.others == 0 {
            return Err(self.restored_nothing(last, services).into());
        }
        recorder.record(DrillEventKind::Restored { facts: facts.clone() })?;
        Ok(Restored { facts, ..Restored::default() })
    }

    /// A tool may call it done when it has restored nothing: a wrong key is no empty backup.
    fn restored_nothing(&self, last: Option<(&&ToolStep, Exit)>, services: &Services<'_>) -> Stop {
        match last {
            Some((step, exit)) if tool::says_it_could_not(step, &exit) => {
                let error = ToolError::SaysSo { how: "it restored nothing".to_owned() };
                Stop::tool("restore", &step.tool, &error, Some(keep_output(services, &exit)))
            }
            Some((step, exit)) if step.reads == ToolReads::Directory && self.left_out > 0 => {
                let error = ToolError::PartOnly { how: "it restored nothing".to_owned(), left_out: self.left_out };
                Stop::tool("restore", &step.tool, &error, Some(keep_output(services, &exit)))
            }
            _ => {
                let detail = "the tool ended well, and left no file".to_owned();
                Stop::one(Finding::backup("restore", FindingKind::EmptyRestore { detail }))
            }
        }
    }

    async fn mirror(
        &self,
        phase: &str,
        scenario: &Scenario,
        services: &Services<'_>,
        sandbox: &Sandbox,
        objects: &[Pinned],
        leash: &Leash,
    ) -> Result<(), Stop> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&sandbox.kit()?, self.fillings.repository(), flags, Mode::empty())
            .map_err(|e| SandboxError::Io { step: "open the mirror", source: e.into() })?;
        let into = MirrorInto {
            directory,
            owner: sandbox.owner(),
            progress: Arc::clone(&services.progress),
            cancel: leash.flag.clone(),
            ended: leash.ended.clone(),
            working: leash.working.clone(),
        };
        let prefix = self.view.prefix();
        let single = self.fillings.object_key.is_some();
        let name = |key: &str| {
            let name = if single { tool::base_name(key) } else { key.strip_prefix(prefix).unwrap_or(key) };
            name.to_owned()
        };
        let view = self.view.as_reader(Reader::Mirror);
        let mirrored = tool::mirror(&view, objects, &name, into).await;
        mirrored.map_err(|error| {
            let of = |number: usize| object_name(services, &objects[number].object.key);
            match &error {
                MirrorError::Read { number, source } => Stop::vault(phase, source, of(*number)),
                MirrorError::ScratchFull => {
                    Stop::one(Finding::runner(phase, FindingKind::ScratchFull { limit: scenario.limits.scratch_size }))
                }
                MirrorError::Cancelled => Stop::interrupted(),
                MirrorError::Name { .. } | MirrorError::Scratch { .. } => {
                    Stop::one(Finding::runner(phase, FindingKind::CouldNotRun { reason: error.to_string() }))
                }
            }
        })
    }

    /// Runs one command of a tool to its end, and judges it.
    async fn run(
        &self,
        phase: Phase,
        (step, secrets): (&ToolStep, &Secrets),
        command: &[Template],
        services: &Services<'_>,
        sandbox: &Sandbox,
        leash: &Leash,
    ) -> Result<Exit, Stop> {
        let left = leash.left(services.clock);
        let told = |error: &ToolError, output| Stop::tool(phase.word(), &step.tool, error, output);
        let mut spec = tool::prepare(step, command, &self.fillings, secrets, self.directories, left.max(Duration::from_secs(1)))
            .map_err(|e| told(&e, None))?;
        spec.output_cap = if phase == Phase::Locate { LISTING } else { OUTPUT };
        let before = self.around(sandbox);
        let exit = match sandbox.run(&spec).await {
            Ok(exit) => exit,
            Err(error) => return Err(self.storage_failed(phase.word(), services).unwrap_or_else(|| told(&error.into(), None))),
        };
        let after = self.around(sandbox);
        let around = Around { attempts: after.attempts - before.attempts, writes: after.writes - before.writes, ..after };
        match tool::judge(step, &exit, &around) {
            Ok(()) => Ok(exit),
            // a tool that the storage let down says nothing about the backup, whatever it says
            Err(error) => {
                let stop = self.storage_failed(phase.word(), services);
                Err(stop.unwrap_or_else(|| told(&error, Some(keep_output(services, &exit)))))
            }
        }
    }

    fn around(&self, sandbox: &Sandbox) -> Around {
        let facts = self.gateway.as_ref().map(Gateway::troubles).unwrap_or_default();
        Around {
            attempts: sandbox.attempts_so_far(),
            writes: count_of_writes(&facts),
            first_write: refused_writes(&facts).next().map(|r| r.operation.clone()),
            asked: self.gateway.as_ref().map(|_| facts.requests.values().sum::<u64>() + facts.refused_total() + facts.bad_signatures),
            left_out: self.left_out,
        }
    }

    fn storage_failed(&self, phase: &str, services: &Services<'_>) -> Option<Stop> {
        let facts = self.gateway.as_ref()?.troubles();
        let failure = facts.failures.first()?;
        Some(Stop::vault(phase, &failure.error, object_name(services, &failure.key)))
    }

    /// Ends the gateway without telling anybody: where nothing is recorded.
    pub(super) async fn stop(mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop().await;
        }
    }

    /// Closes the gateway, and records what was served, refused and read, and under which locks.
    pub(super) async fn close(
        mut self,
        scenario: &Scenario,
        services: &Services<'_>,
        recorder: &mut Recorder<'_>,
    ) -> Result<Option<Stop>, RecordError> {
        if let Some(gateway) = self.gateway.take() {
            let facts = gateway.stop().await;
            let served = served(&facts, services);
            let (writes, first) = (served.refused, served.refusals.first().map(|r| r.operation.clone()).unwrap_or_default());
            recorder.record(DrillEventKind::GatewayClosed { served })?;
            if writes > 0 {
                recorder.found([Finding::warning("gateway", Cause::Runner, FindingKind::WritesRefused { writes, first })])?;
            }
        }
        let stop = chain::settle(&self.view, scenario).await;
        let objects = chain::read(&self.view, services);
        recorder.found(chain::lock_findings(&objects, scenario, recorder.started_at()))?;
        Ok(stop)
    }
}

fn served(facts: &GatewayFacts, services: &Services<'_>) -> ServedFacts {
    ServedFacts {
        requests: facts.requests.iter().filter(|(operation, _)| !is_write(operation)).map(|(o, n)| (o.clone(), *n)).collect(),
        bytes: facts.bytes_served,
        refused: count_of_writes(facts),
        refusals: refused_writes(facts)
            .take(REFUSALS)
            .map(|r| RefusedWrite {
                operation: r.operation.clone(),
                object: r.key.as_deref().map(|key| object_name(services, key)),
                times: r.times,
            })
            .collect(),
        failures: facts.failures.iter().map(|f| f.times).sum(),
        overlay_objects: facts.overlay_objects,
        overlay_bytes: facts.overlay_bytes,
    }
}

/// What a tool tried to change, the first kinds of it; the gateway refuses looking beyond the prefix as well.
fn refused_writes(facts: &GatewayFacts) -> impl Iterator<Item = &Refused> {
    facts.refused.iter().filter(|refused| is_write(&refused.operation))
}

/// How often it tried.
fn count_of_writes(facts: &GatewayFacts) -> u64 {
    facts.refusals.iter().filter(|(operation, _)| is_write(operation)).map(|(_, times)| times).sum()
}

/// By S3's names of operations: what does not look, writes.
fn is_write(operation: &str) -> bool {
    !["Get", "Head", "List"].iter().any(|word| operation.starts_with(word))
}

/// What a tool printed, under a pseudonym.
fn keep_output(services: &Services<'_>, exit: &Exit) -> crate::domain::Pseudonym {
    output_name(services, &tool::last_words(exit))
}

fn count(root: &std::os::fd::OwnedFd) -> Result<RestoredFacts, crate::tree::WalkError> {
    use std::os::fd::AsFd;
    let mut facts = RestoredFacts::default();
    for entry in walk(root.as_fd(), WalkOptions::default())? {
        match entry?.kind {
            EntryKind::File { size, .. } => {
                facts.files += 1;
                facts.bytes += size;
            }
            EntryKind::Dir => facts.directories += 1,
            EntryKind::Symlink { .. } | EntryKind::Hardlink { .. } | EntryKind::Fifo | EntryKind::Device { .. } => facts.others += 1,
        }
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_that_only_look_are_told_from_those_that_write() {
        for looks in ["GetObject", "HeadBucket", "ListObjectsV2", "ListBuckets"] {
            assert!(!is_write(looks), "{looks}");
        }
        for writes in ["PutObject", "DeleteObjects", "CreateMultipartUpload", "UploadPart", "CopyObject", "PostObject"] {
            assert!(is_write(writes), "{writes}");
        }
    }
}
