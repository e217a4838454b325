//! Wires the rooms: reads the environment, loads keys, runs a drill from its order to its sealed evidence.

mod anchoring;
mod archiving;
mod baseline;
mod canary;
mod closing;
mod entering;
mod keys;
mod last;
mod rights;
pub mod samples;
mod serve;
mod standing;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use anchoring::{Anchored, KeptElsewhere};
pub use baseline::{BaselineOrder, write_whole};
pub use canary::{CanaryError, Plant};
pub use closing::{Cleared, Closed, close_interrupted};
pub use entering::Book;
pub use keys::FileKeyring;
pub use serve::{Broken, Claim, Daemon, ServeError, Shelf};
pub use standing::{Stand, Standing};

use crate::archive::ArchiveError;
use crate::clock::{Clock, SystemClock};
use crate::config::{ConfigError, Overrides, Settings, load_settings};
use crate::domain::{Blake3, DrillEvent, DrillId, Plan, Pseudonym, RunnerFacts, Scenario, Selector, Sha256, Source, Timestamp, Trigger};
use crate::drill::{self, Listener, Looked, Order, RecordError, Recorder, Services, Stop, Vaults};
use crate::evidence::ledger::LedgerError;
use crate::evidence::{
    Annex, EvidenceError, Issuer, Journal, KeyCustody, Pseudonymizer, Report, SealedEvidence, Signer, SignerKey, attachment,
    check_writable, names, seal_evidence, sha256,
};
use crate::restore::Progress;
use crate::sandbox::{Isolation, SwapPolicy};
use crate::storage::{Environment, Now};
use crate::vault::{VaultError, VaultView};

/// The runner: settings, environment and clock, from which everything else is wired.
pub struct App {
    /// Settings that hold.
    pub settings: Settings,
    /// The environment, as the process got it.
    pub environment: Environment,
    /// The host's clocks.
    pub clock: Arc<dyn Clock>,
    /// Where the process was started.
    pub working_directory: PathBuf,
}

/// Evidence could not be recorded: exit status 4.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The store cannot be written. Found before a drill starts where possible.
    #[error("the evidence store {store} cannot be used")]
    Store {
        /// Its directory.
        store: PathBuf,
        /// Why.
        source: EvidenceError,
    },
    /// The signing key cannot be used.
    #[error("the signing key cannot be used")]
    SigningKey(#[source] EvidenceError),
    /// The state directory cannot be used.
    #[error("the state directory {path} cannot be used")]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The journal failed: the drill was stopped.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The evidence could not be sealed. The journal is kept, and the next start seals it.
    #[error("the drill's evidence could not be sealed; its journal is kept as {journal}")]
    Seal {
        /// Where the journal is.
        journal: PathBuf,
        /// Why.
        source: EvidenceError,
    },
    /// The trust file, which says whose ledger counts, cannot be used.
    #[error("{0}")]
    Trust(String),
    /// What the drill promises, or what came of it, could not be entered.
    #[error("the ledger cannot be used")]
    Ledger(#[from] LedgerError),
    /// Evidence could not be queued for the archive, or what is remembered of archive and anchors cannot be read.
    #[error("what is remembered of the archive and of anchors cannot be used")]
    Archive(#[from] ArchiveError),
    /// The annex could not be encrypted.
    #[error("the annex could not be encrypted: {0}")]
    Annex(String),
}

/// What is asked for when a drill is run.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which recovery point, of each part of the scenario in their order.
    pub selectors: Vec<Selector>,
    /// Why it runs.
    pub trigger: Trigger,
    /// Whether it may run on a host that cannot isolate.
    pub isolation: Isolation,
}

impl Request {
    /// As the scenario says: nobody is there to say otherwise.
    ///
    /// # Errors
    /// It selects an instant that has not been yet.
    pub fn scheduled(scenario: &Scenario, trigger: Trigger, now: Timestamp) -> Result<Self, String> {
        let selectors: Vec<Selector> = scenario.parts().iter().map(|part| part.source.select.for_start(now)).collect();
        match selectors.iter().filter_map(Selector::instant).find(|at| *at > now) {
            Some(at) => Err(format!("its recovery point is to be of {}, which lies in the future", at.to_human())),
            None => Ok(Self { selectors, trigger, isolation: isolation_for(scenario) }),
        }
    }
}

/// Commands need isolation. A scenario without any may run where the host has none, as long as its scratch is a directory.
pub fn isolation_for(scenario: &Scenario) -> Isolation {
    let runs_programs = scenario.needs_tools()
        || scenario.service_steps().next().is_some()
        || scenario.checks.iter().any(|c| matches!(c.kind, crate::domain::CheckKind::Command { .. }));
    if runs_programs { Isolation::Required } else { Isolation::IfPossible }
}

impl App {
    /// Reads the environment and the settings.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(overrides: Overrides) -> Result<Self, ConfigError> {
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let environment = Environment::new(variables);
        let here = std::env::current_dir().map_err(|source| ConfigError::Unreadable { path: PathBuf::from("."), source })?;
        let settings = load_settings(&overrides, &environment, &here)?;
        Ok(Self { settings, environment, clock: Arc::new(SystemClock::new()), working_directory: here })
    }

    /// The runtime that everything runs on: waiting is done here, work on its blocking threads.
    ///
    /// # Errors
    /// Where threads cannot be started.
    pub fn runtime(&self) -> io::Result<tokio::runtime::Runtime> {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(32).enable_all().build()
    }

    /// Where sandboxes register.
    pub fn sandboxes(&self) -> PathBuf {
        self.settings.state.0.join("sandboxes")
    }

    /// Where journals of drills in progress lie.
    pub fn journals(&self) -> PathBuf {
        self.settings.state.0.join("drills")
    }

    /// Runs one drill and seals its evidence.
    ///
    /// # Errors
    /// [`AppError`]: evidence could not be recorded, so nothing can be claimed.
    pub async fn drill<'a>(
        &'a self,
        scenario: &Scenario,
        request: Request,
        listeners: Vec<Box<dyn Listener + 'a>>,
        progress: Arc<Progress>,
        cancel: CancellationToken,
    ) -> Result<SealedEvidence, AppError> {
        let store = &self.settings.store.0;
        check_writable(store).map_err(|source| AppError::Store { store: store.clone(), source })?;
        let signer = self.signer()?;
        let pseudonyms = self.pseudonymizer()?;
        let drill = DrillId(uuid::Uuid::now_v7().to_string());
        let desk = Desk::open(&self.journals(), &drill)?;
        let journal = Journal::create(&desk.journal).map_err(RecordError::from)?;
        let plan = plan_of(scenario, &request);
        // entered before anything happens: from here on the drill cannot vanish
        let book = self.book()?;
        let entered = book.drill_starts(&drill, plan.clone())?;
        journal.attach(names::ENTERED, entered.as_bytes()).map_err(RecordError::from)?;
        let known_names = Mutex::new(Annex::new(drill.clone()));
        let names = |name: &Pseudonym, raw: &[u8]| known_names.lock().unwrap_or_else(PoisonError::into_inner).note(name, raw);
        let wiring = (self.vaults(), FileKeyring::new(self.environment.clone()));
        let last = self.last_passed(scenario, &signer.key);
        let canaries = self.planted(scenario);
        let services = Services { progress, cancel, last, canaries, ..self.services(&wiring, &pseudonyms, &names, request.isolation) };
        let mut rights = Vec::new();
        for part in scenario.parts() {
            rights.push(self.known_rights(&part.source).await);
        }
        let order = Order { plan, runner: self.runner_facts(), selectors: request.selectors, rights };
        let recorder = Recorder::new(drill.clone(), journal, &*self.clock, listeners);
        let events = drill::run(scenario, order, &services, recorder).await?;
        let annex = known_names.into_inner().unwrap_or_else(PoisonError::into_inner);
        let sealed = self.seal(&events, &signer, Some(&annex), &desk.journal)?;
        book.drill_ended(&drill, &sealed.directory)?;
        desk.clear();
        Ok(sealed)
    }

    /// What the tools of a scenario find, in a sandbox as a drill has it. Nothing is restored or recorded.
    ///
    /// # Errors
    /// [`Stop`] with the findings that would end a drill here.
    pub async fn look(&self, scenario: &Scenario, selector: &Selector) -> Result<Looked, Stop> {
        // nothing is shown under a pseudonym, and nothing kept
        let pseudonyms = Pseudonymizer::new([0; 32]);
        let wiring = (self.vaults(), FileKeyring::new(self.environment.clone()));
        let services = self.services(&wiring, &pseudonyms, &|_, _| (), Isolation::Required);
        drill::look(scenario, selector, &services, DrillId(uuid::Uuid::now_v7().to_string())).await
    }

    /// What work in a sandbox is given here, unwatched and ended by nobody.
    fn services<'a>(
        &'a self,
        (vaults, keys): &'a (Storages, FileKeyring),
        pseudonyms: &'a Pseudonymizer,
        names: &'a (dyn Fn(&Pseudonym, &[u8]) + Send + Sync),
        isolation: Isolation,
    ) -> Services<'a> {
        Services {
            clock: &*self.clock,
            now: self.now(),
            vaults,
            keys,
            pseudonyms,
            names,
            state: self.sandboxes(),
            isolation,
            swap: SwapPolicy::Refuse,
            progress: Arc::default(),
            cancel: CancellationToken::new(),
            last: Ok(None),
            canaries: Vec::new(),
        }
    }

    /// Wall time, for what lives on threads of its own.
    fn now(&self) -> Now {
        let clock = Arc::clone(&self.clock);
        Arc::new(move || clock.now())
    }

    /// Seals the evidence of a finished drill.
    fn seal(
        &self,
        events: &[DrillEvent],
        signer: &LoadedSigner,
        annex: Option<&Annex>,
        journal: &Path,
    ) -> Result<SealedEvidence, AppError> {
        let failed = |source| AppError::Seal { journal: journal.to_owned(), source };
        let issuer = signer.issuer();
        let report = Report::from_events(events, issuer.clone()).map_err(failed)?;
        let mut extra = vec![(names::REPORT_HTML.to_owned(), crate::report::html(&report))];
        let chain = report.backup.chain.summary.as_ref().and_then(|summary| summary.file.as_ref()).map(|file| file.name.as_str());
        let observed = report.checks.iter().any(|check| check.seen.is_some()).then_some(names::OBSERVED);
        // a drill of a version that knew no ledger was never entered
        let entered = attachment(journal, names::ENTERED).exists().then_some(names::ENTERED);
        for name in [chain, observed, entered].into_iter().flatten() {
            let path = attachment(journal, name);
            let bytes = fs::read(&path).map_err(|source| failed(EvidenceError::Read { path: path.clone(), source }))?;
            extra.push((name.to_owned(), bytes));
        }
        if let Some(annex) = annex
            && !self.settings.annex_recipients.is_empty()
        {
            extra.push((names::ANNEX.to_owned(), self.encrypt_annex(annex)?));
        }
        let sealed = seal_evidence(&self.settings.store.0, events, issuer, &signer.key, extra).map_err(failed)?;
        // remembered before the drill counts as done, so that no crash keeps it from the archive
        if let Some(archive) = self.archive() {
            archive.queue(&sealed.report.report_id, &sealed.directory, self.clock.now())?;
        }
        Ok(sealed)
    }

    fn encrypt_annex(&self, annex: &Annex) -> Result<Vec<u8>, AppError> {
        let recipients =
            crate::codec::age::Recipients::parse(&self.settings.annex_recipients).map_err(|e| AppError::Annex(e.to_string()))?;
        let mut sealed = Vec::new();
        let mut encrypt = || -> io::Result<()> {
            let mut writer = crate::codec::age::AgeWriter::new(&mut sealed, &recipients)?;
            io::Write::write_all(&mut writer, &annex.to_json())?;
            writer.finish().map(drop)
        };
        encrypt().map_err(|e| AppError::Annex(e.to_string()))?;
        Ok(sealed)
    }

    /// The configured key, or one made on the spot beside the evidence.
    fn signer(&self) -> Result<LoadedSigner, AppError> {
        if let Some((path, _)) = &self.settings.signing_key {
            let key = SignerKey::load(path).map_err(AppError::SigningKey)?;
            return Ok(LoadedSigner { key, custody: KeyCustody::Configured, beside: None });
        }
        let store = &self.settings.store.0;
        let path = store.join(ON_THE_SPOT);
        if !path.exists() {
            check_writable(store).map_err(|source| AppError::Store { store: store.clone(), source })?;
            // several drills may start at once
            let alone = store.join(".made-on-the-spot.lock");
            let _alone = File::create(&alone)
                .and_then(|lock| lock.lock().map(|()| lock))
                .map_err(|source| AppError::State { path: alone, source })?;
            if !path.exists() {
                let key = SignerKey::generate().map_err(AppError::SigningKey)?;
                key.save(&path, "firedrill, made on the spot").map_err(AppError::SigningKey)?;
            }
        }
        let key = SignerKey::load(&path).map_err(AppError::SigningKey)?;
        let line = key.public().allowed_signers_line(&self.settings.signer.0, None);
        let trust = store.join("allowed_signers");
        if fs::read_to_string(&trust).ok().as_ref() != Some(&line) {
            write_whole(&trust, line.as_bytes()).map_err(|source| AppError::State { path: trust, source })?;
        }
        Ok(LoadedSigner { key, custody: KeyCustody::MadeOnTheSpot, beside: Some(path) })
    }

    /// The key that makes pseudonyms: the same name gets the same pseudonym in every drill of this runner.
    fn pseudonymizer(&self) -> Result<Pseudonymizer, AppError> {
        let path = &self.settings.pseudonym_key.0;
        let state = |source| AppError::State { path: path.clone(), source };
        match fs::read_to_string(path) {
            Ok(text) => match text.trim().parse::<Blake3>() {
                Ok(key) => Ok(Pseudonymizer::new(key.0)),
                Err(error) => Err(state(io::Error::new(io::ErrorKind::InvalidData, error.to_string()))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; 32];
                aws_lc_rs::rand::fill(&mut key).map_err(|_| state(io::Error::other("the system gives no randomness")))?;
                private_directory(path.parent().unwrap_or(Path::new("."))).map_err(state)?;
                let write = || -> io::Result<()> {
                    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
                    io::Write::write_all(&mut file, format!("{}\n", Blake3(key)).as_bytes())?;
                    file.as_file().sync_all()?;
                    file.persist_noclobber(path)?;
                    Ok(())
                };
                match write() {
                    // another drill was first
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.pseudonymizer(),
                    Err(error) => Err(state(error)),
                    Ok(()) => Ok(Pseudonymizer::new(key)),
                }
            }
            Err(error) => Err(state(error)),
        }
    }

    fn runner_facts(&self) -> RunnerFacts {
        let uname = rustix::system::uname();
        let text = |c: &std::ffi::CStr| c.to_string_lossy().into_owned();
        let login = ["SUDO_USER", "LOGNAME", "USER"].iter().find_map(|name| self.environment.get(name));
        let uid = rustix::process::getuid().as_raw();
        RunnerFacts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            binary_sha256: own_digest(),
            host: text(uname.nodename()),
            actor: login.map_or(format!("uid {uid}"), |login| format!("{login} (uid {uid})")),
            system: format!("{} {} {}", text(uname.sysname()), text(uname.release()), text(uname.machine())),
        }
    }
}

/// File name, in the evidence store, of a key made on the spot.
pub const ON_THE_SPOT: &str = "made-on-the-spot.key";

struct LoadedSigner {
    key: SignerKey,
    custody: KeyCustody,
    beside: Option<PathBuf>,
}

impl LoadedSigner {
    fn issuer(&self) -> Issuer {
        if let Some(path) = &self.beside {
            tracing::warn!("no signing key is configured: evidence is signed by {}, made on the spot", path.display());
        }
        Issuer { key: self.key.public().fingerprint(), custody: self.custody, organisation: None }
    }
}

/// What may lie beside a drill's journal.
const ATTACHED: [&str; 3] = [names::CHAIN, names::OBSERVED, names::ENTERED];

/// A drill in progress, as the next start will find it if this one does not end well.
struct Desk {
    journal: PathBuf,
    lock: PathBuf,
    /// Held as long as the drill lives; the kernel lets go of it however the process ends.
    _held: File,
}

impl Desk {
    fn open(directory: &Path, drill: &DrillId) -> Result<Self, AppError> {
        let state = |source| AppError::State { path: directory.to_owned(), source };
        private_directory(directory).map_err(state)?;
        let lock = directory.join(format!("{drill}.lock"));
        let held = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock).map_err(state)?;
        held.try_lock().map_err(|e| state(io::Error::other(e.to_string())))?;
        Ok(Self { journal: directory.join(format!("{drill}.jsonl")), lock, _held: held })
    }

    /// The evidence is sealed: nothing is left to close.
    fn clear(self) {
        for name in ATTACHED {
            let _ = fs::remove_file(attachment(&self.journal, name));
        }
        for path in [&self.journal, &self.lock] {
            if let Err(error) = fs::remove_file(path) {
                tracing::warn!("{} could not be removed: {error}", path.display());
            }
        }
    }
}

fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Keeps this process's memory, through which patients' data passes, out of core dumps. One byte and not none: a kernel that
/// pipes dumps to a handler ignores a limit of zero.
pub fn forbid_core_dumps() {
    let one = rustix::process::Rlimit { current: Some(1), maximum: Some(1) };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Core, one) {
        tracing::warn!("core dumps could not be forbidden: {error}");
    }
}

/// SHA-256 of the running binary; `None` where it cannot be read.
fn own_digest() -> Option<Sha256> {
    crate::codec::sha256(File::open("/proc/self/exe").ok()?).ok()
}

/// What is fixed before a drill: committed in its first event.
pub fn plan_of(scenario: &Scenario, request: &Request) -> Plan {
    Plan {
        scenario: scenario.name.clone(),
        system: scenario.system.clone(),
        criticality: scenario.criticality,
        plan: scenario.plan.clone(),
        scenario_sha256: sha256(scenario.text.as_bytes()),
        scenario_blake3: Blake3(*blake3::hash(scenario.text.as_bytes()).as_bytes()),
        objectives: scenario.objectives.clone(),
        trigger: request.trigger.clone(),
        checks: scenario.checks.iter().map(|c| c.name.clone()).collect(),
        selection: selection_of(scenario, &request.selectors),
    }
}

/// Which recovery points are asked for; by component where they differ.
fn selection_of(scenario: &Scenario, selectors: &[Selector]) -> String {
    match selectors {
        [first, rest @ ..] if rest.iter().all(|other| other == first) => first.to_string(),
        _ => {
            let named = scenario.components.iter().zip(selectors).map(|(component, selector)| format!("{}: {selector}", component.name));
            named.collect::<Vec<_>>().join(", ")
        }
    }
}

/// The storages that scenarios name.
pub struct Storages {
    environment: Environment,
    now: Now,
}

#[async_trait]
impl Vaults for Storages {
    async fn open(&self, source: &Source, as_of: Option<Timestamp>) -> Result<VaultView, VaultError> {
        VaultView::open_as_of(source, &source.into(), &self.environment, Arc::clone(&self.now), as_of).await
    }
}

impl App {
    /// What opens the vault views of scenarios.
    pub fn vaults(&self) -> Storages {
        Storages { environment: self.environment.clone(), now: self.now() }
    }

    /// Finds a scenario by its path, or by its name in the scenario directory.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn scenario(&self, named: &str) -> Result<Scenario, ConfigError> {
        let direct = self.working_directory.join(named);
        let path = if direct.is_file() { direct } else { self.settings.scenarios.0.join(format!("{named}.toml")) };
        let shown = if path.is_file() { path } else { PathBuf::from(named) };
        crate::config::load_scenario(&shown)
    }

    /// Everything that settings say and where each came from, for `doctor`.
    pub fn shown_settings(&self) -> BTreeMap<&'static str, String> {
        let settings = &self.settings;
        let pair = |(path, origin): &(PathBuf, crate::config::Origin)| format!("{} ({origin})", path.display());
        BTreeMap::from([
            ("evidence store", pair(&settings.store)),
            ("ledger", pair(&settings.ledger)),
            ("archive", settings.archive.as_ref().map_or("none (default)".to_owned(), ToString::to_string)),
            ("scenarios", pair(&settings.scenarios)),
            ("state", pair(&settings.state)),
            ("pseudonym key", pair(&settings.pseudonym_key)),
            ("signing key", settings.signing_key.as_ref().map_or("none: one is made on the spot (default)".to_owned(), pair)),
            ("trust file", settings.trust.as_ref().map_or("none (default)".to_owned(), pair)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_dump_would_hold_one_byte() {
        forbid_core_dumps();
        assert_eq!(rustix::process::getrlimit(rustix::process::Resource::Core).current, Some(1));
    }
}
