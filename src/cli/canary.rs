//! `firedrill canary`: plant a nonce in the source before a backup, for drills to find in it.

use serde_json::json;

use super::args::{CanaryArgs, Cli};
use super::{Exit, Failure, output, scenario};
use crate::app::{App, CanaryError, Plant};

pub(super) fn run(cli: &Cli, app: &App, args: &CanaryArgs) -> Result<Exit, Failure> {
    let scenario = scenario(app, &args.scenario)?;
    let plant = match (&args.file, args.command.as_slice()) {
        (Some(file), _) => Plant::File(file.clone()),
        (None, []) => Plant::Print,
        (None, command) => Plant::Command(command.to_vec()),
    };
    let nonce = app.plant_canary(&scenario, &plant).map_err(|error| {
        let advice = match &error {
            CanaryError::NotPlanted(_) => "no drill expects this one; plant another before the next backup",
            CanaryError::State { .. } | CanaryError::Key(_) => "let firedrill write to its state directory, or name another with --state",
        };
        Failure::new(Exit::Inconclusive, error).with_advice(advice)
    })?;
    if cli.json {
        return output::json(&json!({ "canary": nonce }));
    }
    if plant == Plant::Print { output::line(&nonce) } else { Ok(Exit::Passed) }
}
