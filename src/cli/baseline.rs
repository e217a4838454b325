//! `firedrill baseline`: observe the site's own database, for drills to compare with.

use super::args::{BaselineArgs, Cli};
use super::{Exit, Failure, output};
use crate::app::{App, BaselineOrder, write_whole};
use crate::domain::Sample;
use crate::restore::service::LiveError;

pub(super) fn run(cli: &Cli, app: &App, args: &BaselineArgs) -> Result<Exit, Failure> {
    let tables = (args.content || !args.table.is_empty()).then(|| args.table.clone());
    let order = BaselineOrder {
        connection: args.postgres.clone(),
        tables,
        sample: args.sample.map(|per_million| Sample { per_million }),
        snapshot: args.snapshot.clone(),
    };
    let baseline = app.baseline(&order).map_err(|error| {
        let advice = match &error {
            LiveError::NoClient(_) => "install PostgreSQL's client",
            LiveError::Refused(_) | LiveError::Answer(_) => {
                "connect as a role that may read every object: a superuser, or one in pg_read_all_data"
            }
        };
        Failure::new(Exit::Inconclusive, error).with_advice(advice)
    })?;
    let mut text = serde_json::to_vec_pretty(&baseline).map_err(|e| Failure::new(Exit::Inconclusive, e))?;
    text.push(b'\n');
    let Some(path) = &args.output else { return output::write(&text) };
    write_whole(path, &text).map_err(|e| Failure::new(Exit::Inconclusive, anyhow::anyhow!("{} cannot be written: {e}", path.display())))?;
    if !cli.quiet {
        let (objects, tables) = (baseline.observed.object_count(), baseline.observed.tables.len());
        output::say(&format!("{objects} objects and the rows of {tables} tables observed; written to {}", path.display()));
    }
    Ok(Exit::Passed)
}
