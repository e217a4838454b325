//! `firedrill status`, `pause`, `resume`, `waive`, `state`: how schedules stand, and what people decide about them.

use super::args::{Cli, PauseArgs, ResumeArgs, StateCommand, StatusArgs, WaiveArgs};
use super::output;
use super::run::not_recorded;
use super::serve::not_serving;
use super::{Exit, Failure};
use crate::app::{App, Stand};
use crate::domain::{ScenarioName, Timestamp, Verdict};

pub(super) fn status(cli: &Cli, app: &App, args: &StatusArgs) -> Result<Exit, Failure> {
    let mut standing = app.standing().map_err(not_serving)?;
    if let Some(name) = &args.scenario {
        standing.scenarios.retain(|stand| stand.name == *name);
        if standing.scenarios.is_empty() {
            return Err(unknown(app, name));
        }
    }
    if cli.json {
        return output::json(&standing);
    }
    let now = app.clock.now();
    match &standing.keeper {
        Some(pid) => output::line(&format!("schedules are kept by process {pid}"))?,
        None => output::line("nobody keeps the schedules now: `firedrill serve` or `firedrill run --due` does")?,
    };
    let width = standing.scenarios.iter().map(|stand| stand.name.to_string().len()).max().unwrap_or(0);
    for stand in &standing.scenarios {
        output::line(&format!("{:width$}  {}", stand.name.to_string(), words(stand, now)))?;
    }
    for broken in &standing.broken {
        output::line(&format!("CANNOT BE USED  {}: {}", broken.path.display(), broken.why))?;
    }
    Ok(Exit::Passed)
}

/// What a person wants to know of a scenario, in one line.
fn words(stand: &Stand, now: Timestamp) -> String {
    let last = match (&stand.running, &stand.last) {
        (Some(drill), _) => format!("drill {drill} runs"),
        (None, Some(last)) => format!("{} {}", last.verdict, last.at.to_human()),
        (None, None) => "never drilled".to_owned(),
    };
    let mut parts = vec![last];
    if stand.last.as_ref().is_some_and(|last| last.verdict != Verdict::Passed) {
        parts.push(stand.passed.as_ref().map_or("never passed".to_owned(), |passed| format!("passed last {}", passed.at.to_human())));
    }
    if let Some(pause) = &stand.paused {
        let until = pause.until.map_or("until resumed".to_owned(), |until| format!("until {}", until.to_human()));
        parts.push(format!("PAUSED {until} by {}: {}", pause.by, pause.reason));
    }
    match (&stand.schedule, stand.due) {
        (None, _) => parts.push("no schedule".to_owned()),
        (Some(schedule), None) => parts.push(format!("never due ({schedule})")),
        (Some(_), Some(_)) if !stand.kept => parts.push("scheduled, and not seen by a runner yet".to_owned()),
        (Some(schedule), Some(due)) => {
            let starts = stand.starts.filter(|starts| *starts != due).map(|starts| format!(", may start {}", starts.to_human()));
            let word = if due <= now { "WAS DUE" } else { "due" };
            parts.push(format!("{word} {}{} ({schedule})", due.to_human(), starts.unwrap_or_default()));
        }
    }
    if let Some(missed) = stand.missed.filter(|missed| stand.passed.as_ref().is_none_or(|passed| passed.at < *missed)) {
        parts.push(format!("MISSED {}", missed.to_human()));
    }
    parts.join("; ")
}

pub(super) fn pause(cli: &Cli, app: &App, args: &PauseArgs) -> Result<Exit, Failure> {
    let stand = find(app, &args.scenario)?;
    let now = app.clock.now();
    if let Some(until) = args.until.filter(|until| *until <= now) {
        return Err(Failure::config(anyhow::anyhow!("{} has been: a pause until then is none", until.to_human())));
    }
    app.pause(&stand.name, args.until, &args.reason).map_err(not_recorded)?;
    let until = args.until.map_or("it is resumed".to_owned(), Timestamp::to_human);
    said(cli, &format!("{} is paused until {until}; every drill that is due until then is entered as waived", stand.name))
}

pub(super) fn resume(cli: &Cli, app: &App, args: &ResumeArgs) -> Result<Exit, Failure> {
    let stand = find(app, &args.scenario)?;
    if stand.paused.is_none() {
        return Err(Failure::config(anyhow::anyhow!("{} is not paused", stand.name)));
    }
    app.resume(&stand.name).map_err(not_recorded)?;
    said(cli, &format!("{} is drilled again", stand.name))
}

pub(super) fn waive(cli: &Cli, app: &App, args: &WaiveArgs) -> Result<Exit, Failure> {
    let stand = find(app, &args.scenario)?;
    let Some(due) = stand.due.filter(|_| stand.kept) else {
        return Err(Failure::config(anyhow::anyhow!("{} is never due: there is nothing to waive", stand.name))
            .with_advice("give it a [schedule] and let a runner see it: `firedrill serve` or `firedrill run --due`"));
    };
    app.waive(&stand.name, due, &args.reason).map_err(not_recorded)?;
    said(cli, &format!("the drill of {} that is due {} is waived", stand.name, due.to_human()))
}

pub(super) fn state(cli: &Cli, app: &App, command: &StateCommand) -> Result<Exit, Failure> {
    match command {
        StateCommand::Rebuild => {
            let entries = app.rebuild_state().map_err(not_serving)?;
            said(cli, &format!("{entries} entries of the ledger were taken up anew"))
        }
    }
}

fn said(cli: &Cli, what: &str) -> Result<Exit, Failure> {
    if cli.json { output::json(&serde_json::json!({ "done": what })) } else { output::line(what) }
}

fn find(app: &App, name: &ScenarioName) -> Result<Stand, Failure> {
    let standing = app.standing().map_err(not_serving)?;
    standing.scenarios.into_iter().find(|stand| stand.name == *name).ok_or_else(|| unknown(app, name))
}

fn unknown(app: &App, name: &ScenarioName) -> Failure {
    let error =
        anyhow::anyhow!("no scenario is called {name}: neither a file in {} nor the ledger knows it", app.settings.scenarios.0.display());
    Failure::config(error).with_advice("`firedrill status` lists them")
}
