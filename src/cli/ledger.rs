//! `firedrill ledger`: the log of every drill.

use std::collections::BTreeSet;

use super::args::{Cli, LedgerCommand, LedgerShowArgs, VerifyArgs};
use super::output;
use super::run::not_recorded;
use super::{Exit, Failure};
use crate::app::{App, Book};
use crate::domain::{DrillId, ScenarioName};
use crate::evidence::ledger::{Entry, EntryKind};

pub(super) fn run(cli: &Cli, app: &App, command: &LedgerCommand) -> Result<Exit, Failure> {
    let book = || app.book().map_err(not_recorded);
    match command {
        LedgerCommand::Verify(args) => {
            let directory = args.directory.clone().unwrap_or_else(|| app.settings.ledger.0.clone());
            let (trust, revoked, anchors) = (args.trust.clone(), args.revoked.clone(), args.anchors.clone());
            super::verify::run(cli, app, &VerifyArgs { trust, revoked, anchors, paths: vec![directory] })
        }
        LedgerCommand::Show(args) => show(cli, &book()?, args),
        LedgerCommand::Checkpoint => {
            let book = book()?;
            match book.ledger().checkpoint(book.trust()).map_err(|e| not_recorded(e.into()))? {
                Some(checkpoint) => output::write(checkpoint.as_bytes()),
                None => Err(empty(&book)),
            }
        }
        LedgerCommand::Prove(args) => {
            let book = book()?;
            let proof = book.ledger().prove(book.trust(), args.index).map_err(|e| not_recorded(e.into()))?;
            output::write(proof.as_bytes())?;
            Ok(Exit::Passed)
        }
    }
}

fn empty(book: &Book<'_>) -> Failure {
    Failure::config(anyhow::anyhow!("no ledger is in {}", book.ledger().directory().display()))
        .with_advice("it begins with the first drill; or name the settings that say where it is: --config FILE")
}

fn show(cli: &Cli, book: &Book<'_>, args: &LedgerShowArgs) -> Result<Exit, Failure> {
    if !book.ledger().directory().is_dir() {
        return Err(empty(book));
    }
    // entries about a drill name its scenario at its start only
    let from = if args.scenario.is_some() { 0 } else { args.from };
    let mut drills = BTreeSet::new();
    for entry in book.ledger().entries(book.trust(), from).map_err(|e| not_recorded(e.into()))? {
        let entry = entry.map_err(|e| not_recorded(e.into()))?;
        if args.scenario.as_ref().is_some_and(|scenario| !is_about(&entry, scenario, &mut drills)) || entry.index < args.from {
            continue;
        }
        if cli.json {
            output::json_line(&entry)?;
        } else {
            output::line(&format!("{:>7}  {}  {}", entry.index, entry.at.to_human(), words(&entry)))?;
        }
    }
    Ok(Exit::Passed)
}

fn is_about(entry: &Entry, scenario: &ScenarioName, drills: &mut BTreeSet<DrillId>) -> bool {
    match &entry.entry {
        EntryKind::DrillStarted { drill, plan } => plan.scenario == *scenario && drills.insert(drill.clone()),
        EntryKind::DrillFinished { drill, .. } | EntryKind::Interrupted { drill } | EntryKind::Reaped { drill, .. } => {
            drills.contains(drill)
        }
        EntryKind::ScenarioSeen { scenario: of, .. }
        | EntryKind::ScenarioGone { scenario: of }
        | EntryKind::Missed { scenario: of, .. }
        | EntryKind::Waived { scenario: of, .. }
        | EntryKind::Paused { scenario: of, .. }
        | EntryKind::Resumed { scenario: of } => of == scenario,
        EntryKind::Opened { .. }
        | EntryKind::SettingsSeen { .. }
        | EntryKind::KeyChanged { .. }
        | EntryKind::KeyRevoked { .. }
        | EntryKind::Anchored { .. } => false,
    }
}

/// An entry in one line.
fn words(entry: &Entry) -> String {
    match &entry.entry {
        EntryKind::Opened { origin } => format!("the log {origin} begins"),
        EntryKind::DrillStarted { drill, plan } => {
            let why = plan.trigger.words();
            format!("drill {drill} of {} starts, {why} ({})", plan.scenario, entry.by)
        }
        EntryKind::DrillFinished { drill, verdict, .. } => format!("drill {drill} ended {verdict}"),
        EntryKind::Interrupted { drill } => format!("drill {drill} lost its runner"),
        EntryKind::Reaped { drill, gone, left } if left.is_empty() => format!("what drill {drill} left was destroyed: {}", gone.join(", ")),
        EntryKind::Reaped { drill, left, .. } => format!("what drill {drill} left RESISTS: {}", left.join(", ")),
        EntryKind::ScenarioSeen { scenario, sha256, schedule } => {
            let schedule = schedule.as_ref().map_or("no schedule".to_owned(), |s| format!("due {} {}", s.cron, s.time_zone.0));
            format!("scenario {scenario} is {sha256}, {schedule}")
        }
        EntryKind::ScenarioGone { scenario } => format!("scenario {scenario} is gone"),
        EntryKind::SettingsSeen { sha256 } => format!("settings are {sha256}"),
        EntryKind::Missed { scenario, due, reason } => format!("{scenario}, due {}, MISSED: {}", due.to_human(), reason.words()),
        EntryKind::Waived { scenario, due, reason } => format!("{scenario}, due {}, waived: {reason}", due.to_human()),
        EntryKind::Paused { scenario, until, reason } => {
            let until = until.map_or("until resumed".to_owned(), |until| format!("until {}", until.to_human()));
            format!("{scenario} paused {until} by {}: {reason}", entry.by)
        }
        EntryKind::Resumed { scenario } => format!("{scenario} resumed by {}", entry.by),
        EntryKind::KeyChanged { from, to } => format!("signed by {to} from here on, no longer {from}"),
        EntryKind::KeyRevoked { key, reason } => format!("key {key} revoked: {reason}"),
        EntryKind::Anchored { size, place } => format!("{size} entries anchored in {place}"),
    }
}
