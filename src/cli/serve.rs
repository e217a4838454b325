//! `firedrill serve`, and `firedrill run --due` for those who let others keep time.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::args::Cli;
use super::output;
use super::run::{after_drills, cancel_on_signals, exit_of, not_recorded, show, summary_json};
use super::{Exit, Failure};
use crate::app::{App, AppError, Daemon, ServeError};
use crate::domain::{Elapsed, Period, ScenarioName};
use crate::evidence::SealedEvidence;

/// So often it is looked whether something is to be carried to archive and anchors.
const CARRY: Duration = Duration::from_secs(60);

pub(super) async fn run(app: Arc<App>) -> Result<Exit, Failure> {
    let cancel = cancel_on_signals();
    let now = app.clock.now();
    let mut daemon = Daemon::start(Arc::clone(&app), now, cancel.clone()).await.map_err(not_serving)?;
    let carrier = carry(app, cancel).map_err(|e| Failure::new(Exit::Inconclusive, e))?;
    tell_systemd(&[NotifyState::Ready]);
    tracing::info!(scenarios = daemon.keeper().memory().scenarios.len(), "schedules are kept");
    daemon
        .run(&|daemon| {
            let scheduled = daemon.keeper().memory().scenarios.values().filter(|known| known.schedule.is_some()).count();
            let status = format!("{scheduled} scheduled scenarios, {} drills run", daemon.running());
            tell_systemd(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
        })
        .await;
    // what did not get there stays queued
    let _ = carrier.await;
    tracing::info!("schedules are no longer kept");
    Ok(Exit::Passed)
}

/// Carries evidence to the archive and the ledger's checkpoint to its anchors, on a thread of its own: a bucket that is slow or away
/// keeps no drill waiting. Ends with the daemon.
fn carry(app: Arc<App>, cancel: CancellationToken) -> std::io::Result<oneshot::Receiver<()>> {
    let (tell, told) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let work = async move {
        loop {
            match app.push_archive().await {
                Ok(pushed) => {
                    pushed
                        .archived
                        .iter()
                        .for_each(|of| tracing::info!(drill = %of.drill, scenario = %of.scenario, "evidence was archived"));
                    if let Some(error) = pushed.failure {
                        tracing::error!(%error, waiting = pushed.waiting.len(), "evidence is not in the archive; it stays queued");
                    }
                }
                Err(error) => tracing::error!(%error, "evidence cannot be archived; it stays queued"),
            }
            let anchored = match app.due_anchors(app.clock.now()) {
                Ok(due) => app.anchor(&due).await,
                Err(error) => Err(error),
            };
            match anchored {
                Ok(anchored) => {
                    anchored.carried.iter().for_each(|anchor| tracing::info!(%anchor, "the ledger was anchored"));
                    for (anchor, error) in &anchored.failed {
                        tracing::error!(%anchor, %error, "the ledger could not be anchored");
                    }
                }
                Err(error) => tracing::error!(%error, "the ledger cannot be anchored"),
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(CARRY) => {}
            }
        }
    };
    let thread = move || {
        runtime.block_on(work);
        let _ = tell.send(());
    };
    std::thread::Builder::new().name("carrier".to_owned()).spawn(thread)?;
    Ok(told)
}

/// Nobody listens where systemd did not start this.
fn tell_systemd(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!(%error, "systemd does not hear");
    }
}

pub(super) async fn due(cli: &Cli, app: Arc<App>, every: Period) -> Result<Exit, Failure> {
    let cancel = cancel_on_signals();
    let awake_since = app.clock.now().earlier_by(Elapsed::from_duration(Duration::from_secs(every.seconds)));
    let mut daemon = Daemon::start(Arc::clone(&app), awake_since, cancel).await.map_err(not_serving)?;
    let done = daemon.once().await.map_err(not_serving)?;
    let nothing = done.is_empty();
    let mut exit = Exit::Passed;
    let mut reports = Vec::new();
    for (scenario, outcome) in done {
        match of_drill(&scenario, outcome) {
            Ok(sealed) => {
                exit = exit.worst(exit_of(sealed.report.verdict));
                if cli.json { reports.push(summary_json(&sealed)) } else { show(&sealed)? }
            }
            Err(failure) => {
                exit = exit.worst(failure.exit);
                output::print_failure(&failure);
            }
        }
    }
    for broken in daemon.broken() {
        exit = exit.worst(Exit::Usage);
        let error = anyhow::anyhow!("{}: {}", broken.path.display(), broken.why).context("a scenario cannot be used, and is not drilled");
        output::print_failure(&Failure::new(Exit::Usage, error));
    }
    if cli.json {
        output::json(&reports)?;
    } else if nothing {
        output::line("nothing is due")?;
    }
    after_drills(cli, &app).await?;
    Ok(exit)
}

fn of_drill(scenario: &ScenarioName, outcome: Option<Result<SealedEvidence, AppError>>) -> Result<SealedEvidence, Failure> {
    match outcome {
        Some(outcome) => outcome.map_err(not_recorded),
        None => Err(Failure::new(Exit::NotRecorded, anyhow::anyhow!("the drill of {scenario} died"))
            .with_advice("run `firedrill reap`: it closes the evidence")),
    }
}

pub(super) fn not_serving(error: ServeError) -> Failure {
    match error {
        ServeError::App(error) => not_recorded(error),
        ServeError::Busy { .. } => Failure::new(Exit::Inconclusive, error)
            .with_advice("one runner keeps the schedules of a ledger: leave it to that one, or stop it first"),
        ServeError::State(_) => Failure::new(Exit::NotRecorded, error)
            .with_advice("nothing is lost: `firedrill state rebuild` makes it anew from the ledger and the evidence"),
        ServeError::OtherLedger { .. } => Failure::new(Exit::NotRecorded, error).with_advice(
            "somebody replaced, cut or rewrote it: keep it as it is and bring back the one from before; where a new one was begun on \
             purpose, `firedrill state rebuild` takes it up",
        ),
    }
}
