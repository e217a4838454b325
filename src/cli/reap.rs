//! `firedrill reap`: destroy what a crash left, and close the drills it cut short.

use serde_json::json;

use super::args::Cli;
use super::output;
use super::{Exit, Failure};
use crate::app::{App, Cleared, close_interrupted};

pub(super) async fn run(cli: &Cli, app: &App) -> Result<Exit, Failure> {
    let cleared = close_interrupted(app).await.map_err(|e| Failure::new(Exit::Inconclusive, e))?;
    let remains = !cleared.left.is_empty() || cleared.reaped.iter().any(|r| !r.left.is_empty());
    if cli.json {
        output::json(&json!({
            "reaped": cleared.reaped,
            "closed": cleared.closed.iter().map(|c| json!({ "drill": c.drill, "evidence": c.directory })).collect::<Vec<_>>(),
            "left": cleared.left.iter().map(|(path, error)| json!({ "journal": path, "why": error.to_string() })).collect::<Vec<_>>(),
        }))?;
    } else if cleared.reaped.is_empty() && cleared.closed.is_empty() && cleared.left.is_empty() {
        output::line("nothing was left: no sandbox, no unfinished drill")?;
    } else {
        let mut failure = None;
        tell(&cleared, &mut |line| failure = failure.take().or(output::line(line).err()));
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
    Ok(if remains { Exit::Failed } else { Exit::Passed })
}

/// One line for everything that was done.
pub(super) fn tell(cleared: &Cleared, say: &mut dyn FnMut(&str)) {
    for reaped in &cleared.reaped {
        for what in &reaped.what {
            say(&format!("drill {}: destroyed {what}", reaped.drill));
        }
        for left in &reaped.left {
            say(&format!("drill {}: COULD NOT destroy {left}", reaped.drill));
        }
    }
    for closed in &cleared.closed {
        say(&format!("drill {}: closed, evidence in {}", closed.drill, closed.directory.display()));
    }
    for (journal, error) in &cleared.left {
        say(&format!("{}: could not be closed: {error}", journal.display()));
    }
}
