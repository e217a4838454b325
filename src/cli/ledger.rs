//! `firedrill ledger`: the log of every drill.

use std::collections::BTreeSet;

use serde_json::json;

use super::args::{Cli, LedgerAnchorArgs, LedgerCommand, LedgerShowArgs, VerifyArgs};
use super::output::{self, say};
use super::run::not_recorded;
use super::{Exit, Failure};
use crate::app::{Anchored, App, Book};
use crate::archive::Why;
use crate::domain::{AnchorPlace, DrillId, ScenarioName};
use crate::evidence::ledger::{Entry, EntryKind};

pub(super) async fn run(cli: &Cli, app: &App, command: &LedgerCommand) -> Result<Exit, Failure> {
    let book = || app.book().map_err(not_recorded);
    match command {
        LedgerCommand::Verify(args) => {
            let directory = args.directory.clone().unwrap_or_else(|| app.settings.ledger.0.clone());
            let (trust, revoked, anchors) = (args.trust.clone(), args.revoked.clone(), args.anchors.clone());
            let configured_anchors = args.configured_anchors;
            super::verify::run(cli, app, &VerifyArgs { trust, revoked, anchors, configured_anchors, paths: vec![directory] }).await
        }
        LedgerCommand::Show(args) => show(cli, &book()?, args),
        LedgerCommand::Checkpoint => {
            let book = book()?;
            match book.ledger().checkpoint(book.trust()).map_err(|e| not_recorded(e.into()))? {
                Some(checkpoint) => output::write(checkpoint.as_bytes()),
                None => Err(empty(&book)),
            }
        }
        LedgerCommand::Anchor(args) => anchor(cli, app, args).await,
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

async fn anchor(cli: &Cli, app: &App, args: &LedgerAnchorArgs) -> Result<Exit, Failure> {
    let places: Vec<&AnchorPlace> =
        app.settings.anchors.iter().filter(|place| args.name.as_ref().is_none_or(|name| place.name == *name)).collect();
    if places.is_empty() {
        let named: Vec<&str> = app.settings.anchors.iter().map(|place| place.name.as_str()).collect();
        let what = match &args.name {
            Some(name) => anyhow::anyhow!(
                "no anchor is called `{name}`; there is {}",
                if named.is_empty() { "none".into() } else { named.join(", ") }
            ),
            None => anyhow::anyhow!("no anchor is configured: whoever has the signing key can rewrite the ledger unnoticed"),
        };
        return Err(
            Failure::config(what).with_advice("name a place in firedrill.toml: [[ledger.anchor]] name, and bucket, timestamp or directory")
        );
    }
    let anchored = app.anchor(&places).await.map_err(not_recorded)?;
    let Some(size) = anchored.size else { return Err(empty(&app.book().map_err(not_recorded)?)) };
    if cli.json {
        output::json(&json!({
            "entries": size,
            "carried": anchored.carried,
            "failed": anchored.failed.iter().map(|(name, why)| json!({ "anchor": name, "why": Why(why).to_string() })).collect::<Vec<_>>(),
        }))?;
    } else if let Some(told) = told(&anchored) {
        output::line(&told)?;
    }
    settled(anchored)
}

/// After drills: their ends are carried away. What does not get there is no success, whatever the drills came to.
pub(super) async fn after_drills(cli: &Cli, app: &App) -> Result<Exit, Failure> {
    let due = app.due_anchors(app.clock.now()).map_err(not_recorded)?;
    let anchored = app.anchor(&due).await.map_err(not_recorded)?;
    if !cli.quiet
        && let Some(told) = told(&anchored)
    {
        say(&told);
    }
    settled(anchored)
}

fn told(anchored: &Anchored) -> Option<String> {
    let size = anchored.size.filter(|_| !anchored.carried.is_empty())?;
    Some(format!("anchored    the ledger's {size} entries: {}", anchored.carried.join(", ")))
}

fn settled(anchored: Anchored) -> Result<Exit, Failure> {
    let failed = anchored.failed.len();
    let Some((name, error)) = anchored.failed.into_iter().next() else { return Ok(Exit::Passed) };
    let others = if failed > 1 { format!(", nor to {} more", failed - 1) } else { String::new() };
    let (advice, what) = (error.advice(), format!("the ledger's checkpoint could not be carried to anchor {name}{others}"));
    Err(Failure::new(Exit::NotRecorded, anyhow::Error::new(error).context(what)).with_advice(advice))
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
