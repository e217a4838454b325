//! `firedrill verify`: the auditor's verification, with the configured trust file where none is named.

use std::path::PathBuf;

use super::args::{Cli, VerifyArgs};
use super::output;
use super::{Exit, Failure};
use crate::app::App;
use crate::evidence::auditor;

pub(super) fn run(cli: &Cli, app: &App, args: &VerifyArgs) -> Result<Exit, Failure> {
    let trust = trust_file(app, args.trust.as_ref())?;
    let args = auditor::VerifyArgs {
        trust,
        revoked: args.revoked.clone(),
        anchors: args.anchors.clone(),
        json: cli.json,
        paths: args.paths.clone(),
    };
    let mut answer = Vec::new();
    let outcome = auditor::run(&args, &mut answer, &mut std::io::stderr()).map_err(|e| Failure::new(Exit::Failed, e))?;
    output::write(&answer)?;
    Ok(match outcome {
        auditor::Outcome::Trusted => Exit::Passed,
        auditor::Outcome::Refused => Exit::Failed,
        auditor::Outcome::Usage => Exit::Usage,
    })
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
