//! `firedrill points`: recovery points with capture time, age, size and lock.

use serde_json::json;

use super::args::{Cli, PointsArgs};
use super::output::{self, say};
use super::run::not_in_the_future;
use super::{Exit, Failure};
use crate::app::App;
use crate::domain::{ByteSize, CaptureSource, Cause, LockState, Period, PointForm, RecoveryPoint, Scenario, Selector, Timestamp};
use crate::drill::{Stop, Vaults};
use crate::vault::{PointList, VaultError, VaultView};

/// Locks are asked for so many points; more would be a request each.
const WITH_LOCKS: usize = 50;

pub(super) async fn run(cli: &Cli, app: &App, args: &PointsArgs) -> Result<Exit, Failure> {
    let scenario = super::scenario(app, &args.scenario)?;
    let now = app.clock.now();
    let as_of = args.as_of.map(|moment| not_in_the_future(Selector::AsOf(moment.for_start(now)), now)).transpose()?;
    let as_of = as_of.and_then(|selector| selector.as_of());
    let mut exit = Ok(Exit::Passed);
    let mut documents = Vec::new();
    for part in scenario.parts() {
        if let (Some(component), false) = (&part.within, cli.json) {
            output::line(&format!("{component}:"))?;
        }
        let (document, found) = of_part(cli, app, &part, as_of, now).await?;
        documents.push(document);
        exit = exit.and(found);
    }
    if cli.json {
        match documents.as_slice() {
            [only] if scenario.components.is_empty() => output::json(only)?,
            several => output::json(&json!({ "components": several }))?,
        };
    }
    exit
}

/// The recovery points of one part of a scenario: shown, or as a document; and whether there are any.
async fn of_part(
    cli: &Cli,
    app: &App,
    scenario: &Scenario,
    as_of: Option<Timestamp>,
    now: Timestamp,
) -> Result<(serde_json::Value, Result<Exit, Failure>), Failure> {
    let view = app.vaults().open(&scenario.source, as_of).await.map_err(unreachable)?;
    let mut list = listed(app, scenario, &as_of.map_or(Selector::Latest, Selector::AsOf), &view).await?;
    list.points.sort_by(|a, b| b.captured_at.cmp(&a.captured_at).then_with(|| b.id.cmp(&a.id)));
    if let (Some(at), None) = (as_of, view.as_of()) {
        say("firedrill: a local directory keeps no versions: these are the points captured by then, of what it holds now");
        list.points.retain(|point| point.captured_at <= at);
    }
    if view.as_of().is_some_and(|facts| facts.suspended()) {
        say("firedrill: versioning of the bucket is suspended: what was there at that instant may have been overwritten");
    }
    let mut rows = Vec::new();
    for (number, point) in list.points.iter().enumerate() {
        let lock = if number < WITH_LOCKS { lock_of(&view, point, now).await } else { "not asked".to_owned() };
        rows.push((point, lock));
    }
    let points: Vec<_> = rows.iter().map(|(point, lock)| row_json(point, lock, now)).collect();
    let broken: Vec<_> = list.broken.iter().map(|b| json!({ "id": b.id, "why": b.why })).collect();
    let mut document = json!({ "points": points, "broken": broken, "half_written": list.half_written, "transport": view.transport() });
    if let Some(component) = &scenario.within {
        document["component"] = component.as_str().into();
    }
    if !cli.json {
        output::write(table(&rows, now).as_bytes())?;
        for broken in &list.broken {
            output::line(&format!("{}  BROKEN: {}", broken.id, broken.why))?;
        }
        if list.half_written > 0 {
            output::line(&format!("{} sets without a manifest: never finished, not recovery points", list.half_written))?;
        }
    }
    let found = if list.points.is_empty() {
        Err(Failure::new(Exit::Failed, anyhow::anyhow!("there is no recovery point under this prefix"))
            .with_advice("check [source] url and points; the storage answered and holds nothing that fits"))
    } else {
        Ok(Exit::Passed)
    };
    Ok((document, found))
}

/// The recovery points: as the storage's names and manifests say, or as the scenario's tools list them.
pub(super) async fn listed(app: &App, scenario: &Scenario, selector: &Selector, view: &VaultView) -> Result<PointList, Failure> {
    if scenario.tool_steps().is_empty() || scenario.source.points.is_some() {
        return view.points().await.map_err(unreachable);
    }
    let looked = app.look(scenario, selector).await.map_err(stopped)?;
    Ok(PointList { points: looked.points, ..PointList::default() })
}

/// What would end a drill here.
pub(super) fn stopped(stop: Stop) -> Failure {
    let findings = stop.into_findings();
    let by_backup = findings.iter().any(|f| f.cause == Cause::Backup);
    let words: Vec<String> = findings.iter().map(|f| f.kind.to_string()).collect();
    let exit = if by_backup { Exit::Failed } else { Exit::Inconclusive };
    Failure::new(exit, anyhow::anyhow!("{}", words.join("; ")))
        .with_advice("a drill would end here as well; `firedrill doctor SCENARIO` tells more")
}

/// A failure to ask the storage, with its advice.
pub(super) fn unreachable(error: VaultError) -> Failure {
    let advice = error.advice();
    let exit = match error.blame() {
        Cause::Backup => Exit::Failed,
        Cause::Runner => Exit::Inconclusive,
    };
    Failure::new(exit, error).with_advice(advice)
}

async fn lock_of(view: &VaultView, point: &RecoveryPoint, now: Timestamp) -> String {
    // which objects a tool's snapshot needs only a restore shows
    let Some(object) = point.objects.first() else { return "a drill tells".to_owned() };
    match view.pin(object, "object").await {
        Err(error) => format!("unknown: {error}"),
        Ok(pinned) => {
            let hold = if pinned.lock.legal_hold == Some(true) { ", legal hold" } else { "" };
            match &pinned.lock.state {
                LockState::Locked { mode, until } => {
                    let left = until.seconds_since(now);
                    if left > 0 {
                        format!("{mode}, {} left{hold}", Period::from_secs(left.unsigned_abs()))
                    } else {
                        format!("{mode}, run out{hold}")
                    }
                }
                LockState::NotLocked => format!("not locked{hold}"),
                LockState::Unknown { reason } => format!("unknown: {reason}"),
            }
        }
    }
}

fn age(point: &RecoveryPoint, now: Timestamp) -> String {
    match now.seconds_since(point.captured_at) {
        ahead if ahead < 0 => "in the future".to_owned(),
        seconds => Period::from_secs(seconds.unsigned_abs()).to_string(),
    }
}

fn source_word(source: CaptureSource) -> &'static str {
    match source {
        CaptureSource::Content => "content",
        CaptureSource::SignedManifest => "signed manifest",
        CaptureSource::Manifest => "manifest",
        CaptureSource::Tool => "tool's list",
        CaptureSource::Name => "name",
        CaptureSource::UploadTime => "upload time",
    }
}

fn table(rows: &[(&RecoveryPoint, String)], now: Timestamp) -> String {
    let header = ["captured", "age", "size", "lock", "time from", "id"].map(str::to_owned);
    let cells: Vec<[String; 6]> = std::iter::once(header)
        .chain(rows.iter().map(|(point, lock)| {
            [
                point.captured_at.to_human(),
                age(point, now),
                if point.form == PointForm::Snapshot { "-".to_owned() } else { ByteSize(point.size).to_string() },
                lock.clone(),
                source_word(point.captured_from).to_owned(),
                point.id.clone(),
            ]
        }))
        .collect();
    let widths: [usize; 6] = std::array::from_fn(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in &cells {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row_json(point: &RecoveryPoint, lock: &str, now: Timestamp) -> serde_json::Value {
    json!({
        "id": point.id,
        "captured_at": point.captured_at,
        "captured_from": point.captured_from,
        "age_seconds": now.seconds_since(point.captured_at),
        "size": point.size,
        "form": point.form,
        "objects": point.objects.len(),
        "lock": lock,
    })
}
