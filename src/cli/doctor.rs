//! `firedrill doctor`: what this host can promise, found by doing it.

use serde_json::json;

use super::args::{Cli, DoctorArgs};
use super::output;
use super::{Exit, Failure};
use crate::app::{App, FileKeyring};
use crate::domain::{DrillId, May, ResourceLimits, Scenario, Selector, ToolFacts};
use crate::drill::{Keyring, Vaults};
use crate::evidence::{SignerKey, check_writable};
use crate::sandbox::{Kept, Promise, SandboxSpec, host_risks, promises, stands};

/// One thing looked at.
struct Row {
    group: String,
    name: String,
    kept: Kept,
    how: String,
    advice: Option<String>,
}

pub(super) async fn run(cli: &Cli, app: &App, args: &DoctorArgs) -> Result<Exit, Failure> {
    let scenarios = args.scenarios.iter().map(|s| super::scenario(app, s)).collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    let probe = SandboxSpec::new(DrillId(uuid::Uuid::now_v7().to_string()), ResourceLimits::default(), app.sandboxes());
    for promise in promises(&probe).await {
        rows.push(row_of("sandbox", promise));
    }
    rows.extend(host_risks().into_iter().map(|risk| row_of("host", risk)));
    rows.push(store(app));
    rows.push(signing_key(app));
    for scenario in &scenarios {
        rows.extend(scenario_rows(app, scenario).await);
    }
    let broken = rows.iter().any(|r| r.kept == Kept::No);
    if cli.json {
        let list: Vec<_> =
            rows.iter().map(|r| json!({ "group": r.group, "name": r.name, "kept": r.kept, "how": r.how, "advice": r.advice })).collect();
        output::json(&json!({ "promises": list, "settings": app.shown_settings() }))?;
    } else {
        output::write(shown(app, &rows).as_bytes())?;
    }
    Ok(if broken { Exit::Failed } else { Exit::Passed })
}

fn row_of(group: &str, promise: Promise) -> Row {
    Row { group: group.to_owned(), name: promise.name, kept: promise.kept, how: promise.how, advice: promise.advice }
}

fn store(app: &App) -> Row {
    let (path, _) = &app.settings.store;
    let row = |kept, how: String, advice: Option<&str>| Row {
        group: "evidence".into(),
        name: "store".into(),
        kept,
        how,
        advice: advice.map(str::to_owned),
    };
    match check_writable(path) {
        Ok(()) => row(Kept::Yes, format!("{} can be written", path.display()), None),
        Err(error) => {
            let why = std::error::Error::source(&error).map_or(String::new(), |s| format!(": {s}"));
            row(Kept::No, format!("{error}{why}"), Some("name a directory that this user can write: [evidence] store"))
        }
    }
}

fn signing_key(app: &App) -> Row {
    let row = |kept, how: String, advice: Option<&str>| Row {
        group: "evidence".into(),
        name: "signing key".into(),
        kept,
        how,
        advice: advice.map(str::to_owned),
    };
    match &app.settings.signing_key {
        None => row(
            Kept::Partly,
            "none is configured: a key made on the spot is good for trying out only".into(),
            Some("firedrill init makes one"),
        ),
        Some((path, _)) => match SignerKey::load(path) {
            Ok(_) => row(Kept::Yes, format!("{} can sign", path.display()), None),
            Err(error) => row(Kept::No, error.to_string(), Some("check [evidence] signing_key")),
        },
    }
}

fn about(scenario: &Scenario, name: &str, kept: Kept, how: String, advice: Option<String>) -> Row {
    let component = scenario.within.as_ref().map_or_else(String::new, |name| format!(", {name}"));
    Row { group: format!("scenario {}{component}", scenario.name), name: name.to_owned(), kept, how, advice }
}

async fn scenario_rows(app: &App, scenario: &Scenario) -> Vec<Row> {
    let group = format!("scenario {}", scenario.name);
    let spec = SandboxSpec {
        isolation: crate::app::isolation_for(scenario),
        ..SandboxSpec::new(DrillId(uuid::Uuid::now_v7().to_string()), scenario.limits.clone(), app.sandboxes())
    };
    let mut rows: Vec<Row> = stands(&spec).await.into_iter().map(|promise| row_of(&group, promise)).collect();
    for part in scenario.parts() {
        rows.extend(source_rows(app, &part).await);
    }
    rows
}

/// Of one part of a scenario: its keys, its storage or tools, its credentials.
async fn source_rows(app: &App, scenario: &Scenario) -> Vec<Row> {
    let row = |name: &str, kept, how: String, advice: Option<String>| about(scenario, name, kept, how, advice);
    let mut rows = Vec::new();
    rows.push(match FileKeyring::new(app.environment.clone()).load(&scenario.unlock) {
        Ok(keys) if keys.identities.is_empty() && scenario.tool_steps().is_empty() => {
            row("keys", Kept::Partly, "no age identity is named".into(), Some("[unlock] age_identities".into()))
        }
        Ok(keys) => {
            row("keys", Kept::Yes, format!("{} identities, {} trusted producers", keys.identities.len(), keys.producers.len()), None)
        }
        Err(error) => row("keys", Kept::No, error.to_string(), Some("check [unlock]".into())),
    });
    if !scenario.tool_steps().is_empty() && scenario.source.points.is_none() {
        let (asked, reached) = tool_rows(app, scenario).await;
        rows.extend(asked);
        if reached {
            rows.extend(rights_rows(app, scenario).await);
        }
        return rows;
    }
    let listed = match app.vaults().open(&scenario.source, None).await {
        Ok(view) => view.points().await.map(|list| (view, list)),
        Err(error) => Err(error),
    };
    let reached = listed.is_ok();
    match listed {
        Ok((view, list)) => {
            let transport = view.transport();
            let kept = if transport.encrypted == Some(false) { Kept::Partly } else { Kept::Yes };
            rows.push(row("storage", kept, transport.to_string(), None));
            let kept = if list.points.is_empty() { Kept::No } else { Kept::Yes };
            let how = format!("{} recovery points, {} broken, {} never finished", list.points.len(), list.broken.len(), list.half_written);
            rows.push(row("recovery points", kept, how, list.points.is_empty().then(|| "check [source] url and points".into())));
            if let Some(object) = list.points.iter().max_by_key(|p| p.captured_at).and_then(|p| p.objects.first()) {
                rows.push(match view.pin(object, "object").await {
                    Ok(pinned) => match &pinned.lock.state {
                        crate::domain::LockState::Unknown { reason } => {
                            row("object lock", Kept::Partly, format!("not visible: {reason}"), None)
                        }
                        _ => row("object lock", Kept::Yes, "visible to these credentials".into(), None),
                    },
                    Err(error) => row("object lock", Kept::No, error.to_string(), Some(error.advice().to_owned())),
                });
            }
        }
        Err(error) => rows.push(row("storage", Kept::No, error.to_string(), Some(error.advice().to_owned()))),
    }
    if reached {
        rows.extend(rights_rows(app, scenario).await);
    }
    rows
}

/// What the credentials may do beyond reading, asked without harming anything, and what to take away.
async fn rights_rows(app: &App, scenario: &Scenario) -> Vec<Row> {
    let row = |name: &str, kept, how: String, advice: Option<String>| about(scenario, name, kept, how, advice);
    let facts = match app.ask_rights(&scenario.source).await {
        Ok(Some(facts)) => facts,
        Ok(None) => return Vec::new(),
        Err(error) => {
            let advice = Some(error.advice().to_owned());
            return vec![row("rights", Kept::Partly, format!("could not be asked: {error}"), advice)];
        }
    };
    let excess = if scenario.source.policy.rights.is_some() { Kept::No } else { Kept::Partly };
    let mut rows: Vec<Row> = facts
        .rights
        .iter()
        .map(|(right, may)| {
            let (what, action) = (right.words(), right.action());
            match may {
                May::No => row("may only read", Kept::Yes, format!("may not {what}"), None),
                May::Yes => {
                    row("may only read", excess, format!("may {what}; a drill never needs to"), Some(format!("take away {action}")))
                }
                May::Unknown { why } => row("may only read", Kept::Partly, format!("whether it may {what} is unknown: {why}"), None),
            }
        })
        .collect();
    if facts.nothing_left == Some(false) {
        let how = "the server stored something that it should have refused, under a name that begins with firedrill-rights-".to_owned();
        rows.push(row("may only read", Kept::No, how, Some("delete it; the server does not verify Content-MD5".to_owned())));
    }
    rows
}

/// A scenario that foreign tools restore: asked as a drill would, up to the restore; and whether the storage was reached.
async fn tool_rows(app: &App, scenario: &Scenario) -> (Vec<Row>, bool) {
    let row = |name: &str, kept, how: String, advice: Option<String>| about(scenario, name, kept, how, advice);
    match app.look(scenario, &Selector::Latest).await {
        Ok(looked) => {
            let found = |tool: &ToolFacts| row("tool", Kept::Yes, format!("{}: {} ({})", tool.tool, tool.version, tool.path), None);
            let mut rows: Vec<Row> = looked.tools.iter().map(found).collect();
            let none = looked.points.is_empty();
            let advice = none.then(|| "check [source] url and [restore.snapshots]".to_owned());
            let kept = if none { Kept::No } else { Kept::Yes };
            rows.push(row("recovery points", kept, format!("{} recovery points", looked.points.len()), advice));
            (rows, true)
        }
        Err(stop) => {
            let rows = stop.into_findings().into_iter().map(|f| row(&f.check, Kept::No, f.kind.to_string(), None));
            (rows.collect(), false)
        }
    }
}

fn shown(app: &App, rows: &[Row]) -> String {
    let mut text = String::new();
    let mut group = "";
    for row in rows {
        if row.group != group {
            group = &row.group;
            text.push_str(&format!("{group}\n"));
        }
        let mark = match row.kept {
            Kept::Yes => "yes   ",
            Kept::Partly => "PARTLY",
            Kept::No => "NO    ",
        };
        text.push_str(&format!("  {mark}  {:<18}  {}\n", row.name, row.how));
        if let Some(advice) = row.advice.as_ref().filter(|_| row.kept != Kept::Yes) {
            text.push_str(&format!("          {:<18}  try: {advice}\n", ""));
        }
    }
    text.push_str("settings\n");
    for (name, value) in app.shown_settings() {
        text.push_str(&format!("  {name:<26} {value}\n"));
    }
    text
}
