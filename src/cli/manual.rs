//! `completions`, `man`, `schema`: what packagers and editors need.

use std::io::Write;

use anyhow::Context;
use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs, ManArgs, SchemaArgs, SchemaOf};
use super::output;
use super::{Exit, Failure};

pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "firedrill", &mut script);
    output::write(&script)
}

pub(super) fn pages(args: &ManArgs) -> Result<Exit, Failure> {
    let write = || -> anyhow::Result<usize> {
        std::fs::create_dir_all(&args.directory).with_context(|| format!("cannot make {}", args.directory.display()))?;
        clap_mangen::generate_to(Cli::command(), &args.directory)
            .with_context(|| format!("cannot write to {}", args.directory.display()))?;
        Ok(std::fs::read_dir(&args.directory)?.filter_map(Result::ok).filter(|e| e.path().extension().is_some_and(|x| x == "1")).count())
    };
    let pages = write().map_err(Failure::config)?;
    output::line(&format!("{pages} pages in {}", args.directory.display()))
}

pub(super) fn schema(args: &SchemaArgs) -> Result<Exit, Failure> {
    let schema = match args.of {
        SchemaOf::Scenario => crate::config::scenario_schema(),
        SchemaOf::Settings => crate::config::settings_schema(),
        SchemaOf::Report => crate::evidence::report_schema(),
    };
    let mut text = serde_json::to_vec_pretty(&schema).map_err(Failure::config)?;
    let _ = text.write_all(b"\n");
    output::write(&text)
}
