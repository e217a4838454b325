//! The command line: each command turns flags into values, calls one function below, and prints.
//!
//! Results go to stdout, everything else to stderr.

mod archive;
mod args;
mod baseline;
mod canary;
mod demo;
mod doctor;
mod exit;
mod init;
mod ledger;
mod manual;
mod output;
mod plan;
mod points;
mod progress;
mod reap;
mod run;
mod samples;
mod schedules;
mod seal;
mod serve;
mod verify;

use std::sync::Arc;

use clap::Parser;

pub use args::{Cli, Command};
pub use exit::{Exit, Failure};

use crate::app::App;
use crate::config::ConfigError;
use crate::domain::{Period, Scenario};

/// Parses, runs, prints; the exit status of the process.
pub fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Passed };
            // nothing is left to tell it to where printing fails
            let _ = error.print();
            return exit.into();
        }
    };
    // nobody watches a daemon but through its log
    let watched_by_log = matches!(cli.command, Command::Serve);
    output::start_logging(cli.verbose.max(u8::from(watched_by_log)), cli.json);
    crate::app::forbid_core_dumps();
    match run(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::print_failure(&failure);
            failure.exit.into()
        }
    }
}

/// A scenario by its path or name, or what to do about it.
fn scenario(app: &App, named: &str) -> Result<Scenario, Failure> {
    app.scenario(named).map_err(|error| match error {
        ConfigError::Unreadable { .. } => Failure::config(error)
            .with_advice(format!("name a scenario's file, or one in {} without its .toml", app.settings.scenarios.0.display())),
        ConfigError::Mistakes(_) => Failure::config(error),
    })
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    // these need neither settings nor a host
    match &cli.command {
        Command::Completions(args) => return manual::completions(args),
        Command::Man(args) => return manual::pages(args),
        Command::Schema(args) => return manual::schema(args),
        Command::Samples(args) => return samples::run(args),
        _ => {}
    }
    let app = Arc::new(App::new(cli.overrides()).map_err(Failure::config)?);
    let runtime = app.runtime().map_err(|e| Failure::new(Exit::Inconclusive, e))?;
    runtime.block_on(async {
        match &cli.command {
            Command::Demo(args) => demo::run(cli, args).await,
            Command::Init(args) => init::run(cli, args),
            Command::Doctor(args) => doctor::run(cli, &app, args).await,
            Command::Seal(args) => seal::run(cli, &app, args).await,
            Command::Points(args) => points::run(cli, &app, args).await,
            Command::Plan(args) => plan::run(cli, &app, &args.drills).await,
            Command::Run(command) if command.due => serve::due(cli, app, command.every.unwrap_or(Period::from_secs(3_600))).await,
            Command::Run(command) => run::run(cli, &app, &command.drills).await,
            Command::Serve => serve::run(app).await,
            Command::Status(args) => schedules::status(cli, &app, args),
            Command::Pause(args) => schedules::pause(cli, &app, args),
            Command::Resume(args) => schedules::resume(cli, &app, args),
            Command::Waive(args) => schedules::waive(cli, &app, args),
            Command::State(command) => schedules::state(cli, &app, command),
            Command::Baseline(args) => baseline::run(cli, &app, args),
            Command::Canary(args) => canary::run(cli, &app, args),
            Command::Verify(args) => verify::run(cli, &app, args).await,
            Command::Ledger(command) => ledger::run(cli, &app, command).await,
            Command::Archive(command) => archive::run(cli, &app, command).await,
            Command::Reap => reap::run(cli, &app).await,
            Command::Completions(_) | Command::Man(_) | Command::Schema(_) | Command::Samples(_) => Ok(Exit::Passed),
        }
    })
}
