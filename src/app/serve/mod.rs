//! The daemon: drives the keeper of schedules with real time, the real ledger and real drills.
//!
//! The order of things is what makes it survive being killed at any instant: what is due is entered before it starts, what was missed is
//! entered before anything later is, and what is remembered is written after both. A start takes up whatever the ledger has more.

mod carrier;
mod lock;
mod shelf;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use lock::Claim;
pub use shelf::{Broken, Shelf};

use super::{App, AppError, Request, close_interrupted, private_directory};
use crate::domain::{ScenarioName, Timestamp, Trigger};
use crate::evidence::SealedEvidence;
use crate::evidence::ledger::{EntryKind, LedgerRefusal, names};
use crate::restore::Progress;
use crate::schedule::Keeper;
use crate::state::{State, StateError};

/// So often the daemon looks whether something changed that nobody tells it: files of scenarios, entries by others.
const LOOK: Duration = Duration::from_secs(2);
/// So long it waits after something went wrong that it cannot mend.
const TROUBLE: Duration = Duration::from_secs(10);
/// So often it looks for drills that lost their runner.
const REAP: i64 = 60;

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another one is at work.
    #[error("another firedrill keeps these schedules: process {pid} holds {path}")]
    Busy {
        /// Its process id, as it wrote it.
        pid: String,
        /// The lock.
        path: std::path::PathBuf,
    },
    /// Settings, keys, ledger or directories.
    #[error(transparent)]
    App(#[from] AppError),
    /// What is remembered.
    #[error(transparent)]
    State(#[from] StateError),
    /// The ledger is not the one that was kept so far.
    #[error("the ledger does not go on from where it was: {why}")]
    OtherLedger {
        /// How that shows.
        why: LedgerRefusal,
    },
}

/// The daemon.
pub struct Daemon {
    app: Arc<App>,
    keeper: Keeper,
    state: State,
    shelf: Shelf,
    drills: JoinSet<Done>,
    running: BTreeMap<ScenarioName, Running>,
    /// How many drills may run at once.
    most: usize,
    /// What the ledger's checkpoint looked like when its entries were taken up.
    taken_up: Option<(u64, i64, i64)>,
    /// Scenarios of which something was taken up that is not remembered yet: a disk may be full for a while.
    touched: BTreeSet<ScenarioName>,
    reaped: Option<Timestamp>,
    cancel: CancellationToken,
    _claim: Claim,
}

/// A drill that this daemon started.
struct Running {
    trigger: Trigger,
    /// Whether its start was seen in the ledger.
    entered: bool,
}

/// How a drill of a scenario ended; none where its thread died.
type Done = (ScenarioName, Option<Result<SealedEvidence, AppError>>);

impl Daemon {
    /// Claims ledger and state, closes what a crash left, and takes up what was entered since.
    ///
    /// `awake_since`: what was due before and did not start was due while nobody was awake.
    ///
    /// # Errors
    /// [`ServeError`]; also where the ledger is not the one that is remembered.
    pub async fn start(app: Arc<App>, awake_since: Timestamp, cancel: CancellationToken) -> Result<Self, ServeError> {
        let claim = Claim::take(&app)?;
        tidy(&app).await;
        let state = State::open(&app.settings.state.0)?;
        app.goes_on(&state)?;
        let keeper = Keeper::new(state.memory()?, awake_since);
        let shelf = Shelf::new(&app.settings.scenarios.0);
        let most = app.settings.drills;
        let mut daemon = Self {
            app,
            keeper,
            state,
            shelf,
            drills: JoinSet::new(),
            running: BTreeMap::new(),
            most,
            taken_up: None,
            touched: BTreeSet::new(),
            reaped: None,
            cancel,
            _claim: claim,
        };
        daemon.take_up()?;
        daemon.look_at_settings()?;
        Ok(daemon)
    }

    /// Keeps schedules, and carries evidence and ledger to where the settings say, until it is told to end; `alive` is called each time
    /// round.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub async fn run(&mut self, alive: &(dyn Fn(&Daemon) + Send + Sync)) -> io::Result<()> {
        let carrier = carrier::start(Arc::clone(&self.app), self.cancel.clone())?;
        while !self.cancel.is_cancelled() {
            let now = self.app.clock.now();
            let wait = match self.round(now).await {
                Ok(next) => next.map_or(LOOK, |next| self.until(next).min(LOOK)),
                Err(error) => {
                    tracing::error!(error = %anyhow::Error::new(error).root_cause(), "schedules cannot be kept; trying again");
                    self.keeper.look_at_all();
                    TROUBLE
                }
            };
            alive(self);
            self.wait(wait).await;
        }
        // every drill hears of it by the same token, and closes its evidence
        while let Some(done) = self.drills.join_next().await {
            self.ended(done.expect("it only waits"));
        }
        if let Err(error) = self.take_up() {
            tracing::error!(%error, "what the last drills came to is not remembered; the next start takes it up");
        }
        // what it did not get away stays queued
        let _ = carrier.await;
        Ok(())
    }

    /// Starts what is due now, waits for its end, and returns how each drill ended. For those who let others keep time.
    ///
    /// # Errors
    /// [`ServeError`]: nothing more can be entered.
    pub async fn once(&mut self) -> Result<Vec<Done>, ServeError> {
        // what becomes due meanwhile is for the next call: this one must end
        let now = self.app.clock.now();
        let mut all = Vec::new();
        loop {
            self.keeper.look_at_all();
            self.round(now).await?;
            match self.drills.join_next().await {
                Some(done) => all.push(self.ended(done.expect("it only waits"))),
                None => return Ok(all),
            }
        }
    }

    /// How many drills run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// What the ledger tells.
    pub fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Files of scenarios that cannot be used.
    pub fn broken(&self) -> Vec<Broken> {
        self.shelf.sorted().1
    }

    /// Everything that can be done now. Returns when there will be more.
    async fn round(&mut self, now: Timestamp) -> Result<Option<Timestamp>, ServeError> {
        if self.reaped.is_none_or(|at| now.seconds_since(at) >= REAP || now < at) {
            self.reaped = Some(now);
            // a drill of ours, or of somebody else who lives, is left alone
            if self.keeper.memory().open.len() > self.running.len() {
                tidy(&self.app).await;
            }
        }
        self.take_up()?;
        self.look_at_scenarios(now)?;
        loop {
            let free = if self.cancel.is_cancelled() { 0 } else { self.most.saturating_sub(self.running.len()) };
            let orders = self.keeper.orders(now, free);
            if let Err(error) = self.enter(orders.enter.clone()) {
                // what comes later must not be entered before what is missing
                orders.start.iter().for_each(|(name, _)| self.keeper.ended(name, false, now));
                return Err(error);
            }
            for (name, trigger) in orders.start {
                self.start_drill(name, trigger, now);
            }
            if orders.enter.is_empty() {
                return Ok(orders.next);
            }
        }
    }

    /// Enters what happened, and takes it up.
    fn enter(&mut self, kinds: Vec<EntryKind>) -> Result<(), ServeError> {
        if kinds.is_empty() {
            return Ok(());
        }
        self.app.book()?.enter(kinds).map_err(AppError::from)?;
        self.take_up()
    }

    /// Takes up what was entered since, by whomever.
    fn take_up(&mut self) -> Result<(), ServeError> {
        let checkpoint = self.app.settings.ledger.0.join(names::CHECKPOINT);
        let looks = fs::metadata(&checkpoint).ok().map(|m| (m.ino(), m.mtime(), m.mtime_nsec()));
        if looks == self.taken_up {
            return Ok(());
        }
        let book = self.app.book()?;
        let Some(covering) = book.ledger().checkpoint(book.trust()).map_err(AppError::from)? else { return Ok(()) };
        for entry in book.ledger().entries(book.trust(), self.keeper.memory().entries).map_err(AppError::from)? {
            let entry = entry.map_err(AppError::from)?;
            if let EntryKind::DrillStarted { plan, .. } = &entry.entry
                && let Some(running) = self.running.get_mut(&plan.scenario)
                && running.trigger == plan.trigger
            {
                running.entered = true;
            }
            self.touched.extend(self.keeper.apply(&entry));
        }
        self.state.keep(self.keeper.memory(), &self.touched, covering.as_bytes())?;
        self.touched.clear();
        self.taken_up = looks;
        Ok(())
    }

    /// Enters the settings where they changed.
    fn look_at_settings(&mut self) -> Result<(), ServeError> {
        let Some(path) = &self.app.settings.file else { return Ok(()) };
        let read = File::open(path).and_then(crate::codec::sha256);
        let sha256 = read.map_err(|source| AppError::State { path: path.clone(), source })?;
        if self.keeper.memory().settings == Some(sha256) { Ok(()) } else { self.enter(vec![EntryKind::SettingsSeen { sha256 }]) }
    }

    /// Enters scenarios that are new, changed or gone.
    fn look_at_scenarios(&mut self, now: Timestamp) -> Result<(), ServeError> {
        for name in self.shelf.look() {
            self.keeper.try_again(&name);
        }
        let (seen, broken) = self.shelf.sorted();
        let known = &self.keeper.memory().scenarios;
        let mut kinds = Vec::new();
        for (name, seen) in &seen {
            let before = known.get(name);
            if before.is_some_and(|known| known.file == Some(seen.sha256)) {
                continue;
            }
            if before.is_some_and(|known| known.schedule != seen.schedule) {
                kinds.extend(self.keeper.settle(name, now));
            }
            let schedule = seen.schedule.clone().map(Box::new);
            kinds.push(EntryKind::ScenarioSeen { scenario: seen.name.clone(), sha256: seen.sha256, schedule });
        }
        // a file that cannot be read may be of any scenario
        if broken.is_empty() {
            for (name, _) in known.iter().filter(|(name, known)| known.file.is_some() && !seen.contains_key(name)) {
                kinds.extend(self.keeper.settle(name, now));
                kinds.push(EntryKind::ScenarioGone { scenario: name.clone() });
            }
        }
        self.enter(kinds)
    }

    fn start_drill(&mut self, name: ScenarioName, trigger: Trigger, now: Timestamp) {
        let ready = self.shelf.take(&name).and_then(|scenario| {
            let request = Request::scheduled(&scenario, trigger.clone(), now)?;
            Ok((scenario, request))
        });
        let (scenario, request) = match ready {
            Ok(ready) => ready,
            Err(why) => {
                tracing::error!(scenario = %name, why, "a drill is due and cannot start");
                self.keeper.ended(&name, false, now);
                return;
            }
        };
        tracing::info!(scenario = %name, why = trigger.words(), "a drill starts");
        let (app, cancel, of) = (Arc::clone(&self.app), self.cancel.clone(), name.clone());
        // one that dies, or waits for a disk, takes no other drill with it
        let drill = move || async move {
            let progress = Arc::new(Progress::default());
            app.drill(&scenario, request, Vec::new(), progress, cancel).await
        };
        match on_a_thread(format!("drill {name}"), drill) {
            Ok(told) => {
                self.drills.spawn(async move { (of, told.await.ok()) });
                self.running.insert(name, Running { trigger, entered: false });
            }
            Err(error) => {
                tracing::error!(scenario = %name, %error, "a drill is due and cannot start");
                self.keeper.ended(&name, false, now);
            }
        }
    }

    /// A drill ended, somehow.
    fn ended(&mut self, (name, outcome): Done) -> Done {
        let taken_up = self.take_up();
        // where the ledger cannot be read, the next one that can says whether it was entered: nothing starts before
        let entered = self.running.remove(&name).is_none_or(|running| running.entered || taken_up.is_err());
        self.keeper.ended(&name, entered, self.app.clock.now());
        match &outcome {
            Some(Ok(sealed)) => tracing::info!(scenario = %name, verdict = %sealed.report.verdict, "a drill ended"),
            Some(Err(error)) => tracing::error!(scenario = %name, %error, "a drill's evidence could not be recorded"),
            None => {
                tracing::error!(scenario = %name, "a drill's thread died: it is closed like one whose process died");
                self.reaped = None;
            }
        }
        (name, outcome)
    }

    /// Until something is due, a drill ends, or it is told to end.
    async fn wait(&mut self, most: Duration) {
        let done = tokio::select! {
            () = self.cancel.cancelled() => None,
            () = tokio::time::sleep(most) => None,
            Some(done) = self.drills.join_next() => Some(done),
        };
        if let Some(done) = done {
            self.ended(done.expect("it only waits"));
        }
    }

    fn until(&self, at: Timestamp) -> Duration {
        let left = at.0.duration_since(self.app.clock.now().0);
        // never nothing: something that stays due would spin
        Duration::try_from(left).unwrap_or_default().max(Duration::from_millis(20))
    }
}

/// Starts work on a thread of its own, and gives what it comes to; nothing where the thread died.
fn on_a_thread<T, W>(name: String, work: impl FnOnce() -> W + Send + 'static) -> io::Result<oneshot::Receiver<T>>
where
    T: Send + 'static,
    W: Future<Output = T>,
{
    let runtime = Handle::current();
    let (tell, told) = oneshot::channel();
    let thread = move || {
        // nobody waits any more where the daemon is gone
        let _ = tell.send(runtime.block_on(work()));
    };
    thread::Builder::new().name(name).spawn(thread)?;
    Ok(told)
}

/// What crashed drills left is destroyed, and their evidence closed.
async fn tidy(app: &App) {
    match close_interrupted(app).await {
        Ok(cleared) => {
            for closed in cleared.closed {
                tracing::warn!(drill = %closed.drill, "a drill that lost its runner was closed");
            }
            for (path, error) in cleared.left {
                tracing::error!(path = %path.display(), %error, "what a crash left could not be closed");
            }
        }
        Err(error) => tracing::error!(%error, "cannot look for what crashed drills left"),
    }
}
