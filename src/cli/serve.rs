//! `firedrill serve`, and `firedrill run --due` for those who let others keep time.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::args::Cli;
use super::output;
use super::run::{after_drills, cancel_on_signals, exit_of, not_recorded, show, summary_json};
use super::{Exit, Failure};
use crate::app::{App, AppError, Daemon, ServeError};
use crate::domain::{Elapsed, Period, ScenarioName};
use crate::evidence::SealedEvidence;

pub(super) async fn run(app: Arc<App>) -> Result<Exit, Failure> {
    let cancel = cancel_on_signals();
    let now = app.clock.now();
    let mut daemon = Daemon::start(app, now, cancel).await.map_err(not_serving)?;
    tell_systemd(&[NotifyState::Ready]);
    tracing::info!(scenarios = daemon.keeper().memory().scenarios.len(), "schedules are kept");
    daemon
        .run(&|daemon| {
            let scheduled = daemon.keeper().memory().scenarios.values().filter(|known| known.schedule.is_some()).count();
            let status = format!("{scheduled} scheduled scenarios, {} drills run", daemon.running());
            tell_systemd(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
        })
        .await
        .map_err(|e| Failure::new(Exit::Inconclusive, anyhow::Error::new(e).context("a thread cannot be started")))?;
    tracing::info!("schedules are no longer kept");
    Ok(Exit::Passed)
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
        ServeError::State(_) => {
            Failure::new(Exit::NotRecorded, error).with_advice("nothing is lost: `firedrill state rebuild` makes it anew from the ledger")
        }
        ServeError::OtherLedger { .. } => Failure::new(Exit::NotRecorded, error).with_advice(
            "somebody replaced, cut or rewrote it: keep it as it is and bring back the one from before; where a new one was begun on \
             purpose, `firedrill state rebuild` takes it up",
        ),
    }
}
