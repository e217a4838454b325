//! `firedrill run`: on-demand drills.

use std::io::IsTerminal;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::{Cli, RunArgs};
use super::output::{self, say};
use super::progress::{Ticker, Told};
use super::{Exit, Failure};
use crate::app::{App, AppError, Request, close_interrupted, isolation_for};
use crate::domain::{Scenario, Selection, Selector, Timestamp, Trigger, Verdict};
use crate::drill::Listener;
use crate::evidence::{Report, SealedEvidence};
use crate::report::console::{self, Paint};
use crate::restore::Progress;

pub(super) async fn run(cli: &Cli, app: &App, args: &RunArgs) -> Result<Exit, Failure> {
    // every scenario is read before any drill starts
    let scenarios = args.scenarios.iter().map(|s| super::scenario(app, s)).collect::<Result<Vec<_>, _>>()?;
    if args.point.is_some() && scenarios.len() > 1 {
        return Err(Failure::config(anyhow::anyhow!("--point names one recovery point, and there are {} scenarios", scenarios.len())));
    }
    for scenario in &scenarios {
        selectors(args, scenario, app.clock.now())?;
    }
    tidy_up(app).await;
    let cancel = cancel_on_signals();
    let mut exit = Exit::Passed;
    let mut reports = Vec::new();
    for scenario in &scenarios {
        let request = Request {
            selectors: selectors(args, scenario, app.clock.now())?,
            trigger: Trigger::OnDemand { reason: args.reason.clone() },
            isolation: isolation_for(scenario),
        };
        let sealed = drill(cli, app, scenario, request, &cancel).await?;
        exit = exit.worst(exit_of(sealed.report.verdict));
        if cli.json {
            reports.push(summary_json(&sealed));
        } else {
            show(&sealed)?;
        }
        if cancel.is_cancelled() {
            break;
        }
    }
    if cli.json {
        output::json(&reports)?;
    }
    after_drills(cli, app).await?;
    Ok(exit)
}

/// Carries evidence and ledger to where the settings say. Both are tried, whatever becomes of the first.
pub(super) async fn after_drills(cli: &Cli, app: &App) -> Result<(), Failure> {
    let (archived, anchored) = (super::archive::after_drills(cli, app).await, super::ledger::after_drills(cli, app).await);
    archived.and(anchored).map(drop)
}

/// Runs one drill and shows what happens meanwhile.
pub(super) async fn drill(
    cli: &Cli,
    app: &App,
    scenario: &Scenario,
    request: Request,
    cancel: &CancellationToken,
) -> Result<SealedEvidence, Failure> {
    let progress = Arc::new(Progress::default());
    let ticker = Ticker::start(Arc::clone(&progress), !cli.quiet && output::is_watched());
    let listeners: Vec<Box<dyn Listener>> = if cli.quiet { Vec::new() } else { vec![Box::new(Told { ticker: ticker.clone() })] };
    let outcome = app.drill(scenario, request, listeners, progress, cancel.clone()).await;
    ticker.finish();
    outcome.map_err(not_recorded)
}

pub(super) fn not_recorded(error: AppError) -> Failure {
    let advice = match &error {
        AppError::Store { .. } => "give the evidence store a directory that this user can write: --evidence DIR, or [evidence] store",
        AppError::SigningKey(_) => "check [evidence] signing_key; `firedrill init` makes a key",
        AppError::Trust(_) => "check [evidence] trust in firedrill.toml",
        AppError::Ledger(_) => {
            "look at it with `firedrill ledger verify`; where it was touched, keep it as it is, move it aside and let a new one begin"
        }
        AppError::State { .. } => "give the runner a directory that this user can write: --state DIR, or [state] directory",
        AppError::Record(_) => "make room in the state directory; what the drill restored is destroyed",
        AppError::Seal { .. } => "make room in the evidence store, then run `firedrill reap`: it seals what is kept",
        AppError::Archive(error) => error.advice(),
        AppError::Annex(_) => "check [evidence] annex_recipients: age or SSH public keys",
    };
    Failure::new(Exit::NotRecorded, anyhow::Error::new(error).context("evidence could not be recorded, so nothing is claimed"))
        .with_advice(advice)
}

/// The exit status of a verdict.
pub(super) fn exit_of(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Passed => Exit::Passed,
        Verdict::Failed => Exit::Failed,
        Verdict::Inconclusive => Exit::Inconclusive,
    }
}

/// Which recovery points, of each part of the scenario.
pub(super) fn selectors(args: &RunArgs, scenario: &Scenario, now: Timestamp) -> Result<Vec<Selector>, Failure> {
    if args.point.is_some() && scenario.components.len() > 1 {
        let several = anyhow::anyhow!("--point names one recovery point, and the scenario has {} components", scenario.components.len());
        return Err(Failure::config(several).with_advice("name an instant for all of them: --as-of"));
    }
    scenario.parts().iter().map(|part| selector(args, part, now)).collect()
}

/// Which recovery point: what is typed beats what the scenario says. Times before the start are counted from now.
pub(super) fn selector(args: &RunArgs, scenario: &Scenario, now: Timestamp) -> Result<Selector, Failure> {
    let selection = match (&args.point, args.as_of) {
        (Some(id), _) => Selection::Id(id.clone()),
        (None, Some(moment)) => Selection::AsOf(moment),
        (None, None) => scenario.source.select.clone(),
    };
    not_in_the_future(selection.for_start(now), now)
}

/// Nobody knows what will be stored.
pub(super) fn not_in_the_future(selector: Selector, now: Timestamp) -> Result<Selector, Failure> {
    match selector.instant().filter(|at| *at > now) {
        Some(at) => Err(Failure::config(anyhow::anyhow!("{} lies in the future: it is {} now", at.to_human(), now.to_human()))
            .with_advice("name an instant that has been, or leave it out for the newest recovery point; then look at this host's clock")),
        None => Ok(selector),
    }
}

pub(super) fn paint() -> Paint {
    if std::io::stdout().is_terminal() { Paint::Coloured } else { Paint::Plain }
}

/// The first Ctrl-C or SIGTERM ends the drill in order; the sandbox goes and the drill is closed as inconclusive.
pub(super) fn cancel_on_signals() -> CancellationToken {
    let token = CancellationToken::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let Ok(mut stream) = signal(kind) else { continue };
        let token = token.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if token.is_cancelled() {
                    say("firedrill: already ending: the sandbox is being destroyed");
                } else {
                    say("firedrill: ending the drill: destroying the sandbox and closing the evidence");
                    token.cancel();
                }
            }
        });
    }
    token
}

/// What crashed drills left is destroyed, and their evidence closed, before a new one starts.
pub(super) async fn tidy_up(app: &App) {
    match close_interrupted(app).await {
        Ok(cleared) => super::reap::tell(&cleared, &mut |line| say(line)),
        Err(error) => say(&format!("firedrill: cannot look for what crashed drills left: {error}")),
    }
}

/// What a drill came to, for people.
pub(super) fn show(sealed: &SealedEvidence) -> Result<(), Failure> {
    output::write(console::summary(&sealed.report, paint()).as_bytes())?;
    output::line(&format!("evidence    {}", sealed.directory.display()))?;
    Ok(())
}

/// What a drill came to, for machines.
pub(super) fn summary_json(sealed: &SealedEvidence) -> serde_json::Value {
    let report: &Report = &sealed.report;
    serde_json::json!({
        "drill": report.report_id,
        "scenario": report.plan.scenario,
        "verdict": report.verdict,
        "started_at": report.started_at,
        "finished_at": report.finished_at,
        "measurements": report.measurements,
        "assessments": report.assessments,
        "checks": report.checks,
        "findings": report.findings,
        "evidence": sealed.directory,
    })
}
