//! `firedrill verify`: the auditor's verification, with the configured trust file where none is named.

use std::path::PathBuf;

use super::args::{Cli, VerifyArgs};
use super::output;
use super::{Exit, Failure};
use crate::app::{App, KeptElsewhere};
use crate::archive::ArchiveError;
use crate::evidence::auditor;

pub(super) async fn run(cli: &Cli, app: &App, args: &VerifyArgs) -> Result<Exit, Failure> {
    let trust = trust_file(app, args.trust.as_ref())?;
    let held_to_anchors = args.configured_anchors;
    let args = auditor::VerifyArgs {
        trust,
        revoked: args.revoked.clone(),
        anchors: args.anchors.clone(),
        json: cli.json,
        paths: args.paths.clone(),
    };
    let kept = if held_to_anchors { kept_elsewhere(app).await? } else { KeptElsewhere::default() };
    let mut answer = Vec::new();
    let outcome = auditor::run(&args, &kept.anchors, &mut answer, &mut std::io::stderr()).map_err(|e| Failure::new(Exit::Failed, e))?;
    output::write(&answer)?;
    let exit = match outcome {
        auditor::Outcome::Trusted => Exit::Passed,
        auditor::Outcome::Refused => Exit::Failed,
        auditor::Outcome::Usage => Exit::Usage,
    };
    match without_anchors(kept.failed) {
        Some(failure) if exit == Exit::Passed || failure.exit == exit => Err(failure),
        Some(failure) => {
            output::say(&format!("{:#}", failure.error));
            Ok(exit)
        }
        None => Ok(exit),
    }
}

async fn kept_elsewhere(app: &App) -> Result<KeptElsewhere, Failure> {
    if app.settings.anchors.is_empty() {
        let nothing = anyhow::anyhow!("no anchor is configured, so there is nothing to hold the ledger to");
        return Err(Failure::config(nothing)
            .with_advice("name a place in firedrill.toml: [[ledger.anchor]]; or a checkpoint's file: --anchor FILE"));
    }
    Ok(app.kept_elsewhere().await)
}

/// What keeps anchors from being heard. An anchor that holds nothing, or what is not believed, refuses; one that cannot be asked
/// leaves the answer open.
fn without_anchors(mut failed: Vec<ArchiveError>) -> Option<Failure> {
    let first = failed.iter().position(ArchiveError::is_about_what_is_kept).unwrap_or(0);
    let error = if failed.is_empty() { return None } else { failed.swap_remove(first) };
    let (exit, what) = if error.is_about_what_is_kept() {
        (Exit::Failed, "an anchor does not hold the ledger")
    } else {
        (Exit::Inconclusive, "an anchor could not be asked: whether the ledger agrees with it is not known")
    };
    let advice = error.advice();
    Some(Failure::new(exit, anyhow::Error::new(error).context(what)).with_advice(advice))
}

/// The trust file that was named, else the configured one.
pub(super) fn trust_file(app: &App, named: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    let configured = app.settings.trust.as_ref().map(|(path, _)| path);
    named.or(configured).cloned().ok_or_else(|| {
        Failure::config(anyhow::anyhow!("there is nobody to trust: evidence never vouches for itself")).with_advice(
            "--trust FILE, an OpenSSH allowed_signers file that you got from somebody you trust; or [evidence] trust in firedrill.toml",
        )
    })
}
