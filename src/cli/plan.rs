//! `firedrill plan`: what a drill would do and need, without doing it. Lists and pins; restores nothing, writes nothing.

use serde_json::json;

use super::args::{Cli, RunArgs};
use super::output;
use super::points::{listed, unreachable};
use super::run::{selector, selectors};
use super::{Exit, Failure};
use crate::app::{App, FileKeyring};
use crate::domain::{ByteSize, PointForm, Scenario, ScratchKind, select};
use crate::drill::{Keyring, Vaults};

pub(super) async fn run(cli: &Cli, app: &App, args: &RunArgs) -> Result<Exit, Failure> {
    let scenarios = args.scenarios.iter().map(|s| super::scenario(app, s)).collect::<Result<Vec<_>, _>>()?;
    let mut plans = Vec::new();
    for scenario in &scenarios {
        selectors(args, scenario, app.clock.now())?;
        for part in scenario.parts() {
            let plan = plan(app, &part, args).await?;
            if !cli.json {
                output::write(shown(&plan).as_bytes())?;
            }
            plans.push(plan);
        }
    }
    if cli.json {
        output::json(&plans)?;
    }
    Ok(Exit::Passed)
}

async fn plan(app: &App, scenario: &Scenario, args: &RunArgs) -> Result<serde_json::Value, Failure> {
    let keys = FileKeyring::new(app.environment.clone())
        .load(&scenario.unlock)
        .map_err(|e| Failure::new(Exit::Inconclusive, e).with_advice("a drill would be inconclusive: make the key readable first"))?;
    let selector = selector(args, scenario, app.clock.now())?;
    let view = app.vaults().open(&scenario.source, selector.as_of()).await.map_err(unreachable)?;
    let list = listed(app, scenario, &selector, &view).await?;
    let point =
        select(&list.points, &selector).map_err(|e| Failure::new(Exit::Failed, e).with_advice("`firedrill points` lists what is there"))?;
    let limits = &scenario.limits;
    let scratch = match limits.scratch {
        ScratchKind::Tmpfs => "tmpfs",
        ScratchKind::Encrypted => "encrypted",
        ScratchKind::Directory => "directory",
    };
    let tools: Vec<&str> = scenario.tool_steps().iter().map(|step| step.tool.as_str()).collect();
    let steps = [
        format!("make a sandbox: {scratch} scratch of {}, {} memory, at most {}", limits.scratch_size, limits.memory, limits.time),
        match point.form {
            PointForm::Snapshot => "read what the tools ask for, through a read-only view of the storage".to_owned(),
            PointForm::Repository if point.objects.is_empty() => {
                format!("read what the tools ask for of {}, through a read-only view of the storage", ByteSize(point.size))
            }
            _ => format!("read {} in {} objects from storage", ByteSize(point.size), point.objects.len()),
        },
        match point.form {
            _ if !tools.is_empty() => format!("have it restored by {}, without network", tools.join(", then ")),
            PointForm::SealedSet => "unseal and unpack the set, every byte hashed against its manifest".to_owned(),
            PointForm::Snapshot | PointForm::Repository => "restore it".to_owned(),
            PointForm::BareObject => "unseal and unpack the object, every byte hashed as it is written".to_owned(),
        },
        format!("ask {} checks: {}", scenario.checks.len(), scenario.checks.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")),
        "destroy the sandbox, conclude, sign the evidence".to_owned(),
    ];
    let mut warnings = Vec::new();
    if selector.as_of().is_some() && view.as_of().is_none() {
        warnings.push("a local directory keeps no versions: the recovery point is selected by capture time only");
    }
    if view.as_of().is_some_and(|facts| facts.suspended()) {
        warnings.push("versioning of the bucket is suspended: what was there at that instant may have been overwritten");
    }
    if scenario.checks.is_empty() {
        warnings.push("the scenario asks no checks: the drill would fail, having proven nothing");
    }
    if keys.identities.is_empty() && tools.is_empty() {
        warnings.push("the scenario names no age identity: an encrypted backup could not be opened");
    }
    if point.form == PointForm::SealedSet && keys.producers.is_empty() {
        warnings.push("the scenario trusts no producer: a forged set would not be noticed");
    }
    if scenario.objectives.rpo.is_none() && scenario.objectives.rto.is_none() {
        warnings.push("no objective is set: nothing is promised, so nothing can be missed");
    }
    Ok(json!({
        "scenario": scenario.name,
        "system": scenario.system,
        "component": scenario.within,
        "point": point.id,
        "captured_at": point.captured_at,
        "selection": selector.to_string(),
        "points_seen": list.points.len(),
        "bytes_to_read": point.size,
        "objectives": scenario.objectives,
        "steps": steps,
        "warnings": warnings,
    }))
}

fn shown(plan: &serde_json::Value) -> String {
    let text = |key: &str| plan[key].as_str().unwrap_or_default().to_owned();
    let component = plan["component"].as_str().map_or_else(String::new, |name| format!(", component {name}"));
    let mut out = format!(
        "{} ({}){component}\n  recovery point {} captured {}\n",
        text("scenario"),
        text("system"),
        text("point"),
        text("captured_at")
    );
    for (number, step) in plan["steps"].as_array().into_iter().flatten().enumerate() {
        out.push_str(&format!("  {}. {}\n", number + 1, step.as_str().unwrap_or_default()));
    }
    for warning in plan["warnings"].as_array().into_iter().flatten() {
        out.push_str(&format!("  warning: {}\n", warning.as_str().unwrap_or_default()));
    }
    out.push_str("  nothing was done\n");
    out
}
