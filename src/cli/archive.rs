//! `firedrill archive`: the evidence in the bucket that keeps it.

use serde_json::json;

use super::args::{ArchiveCommand, ArchiveVerifyArgs, Cli};
use super::output::{self, say};
use super::run::not_recorded;
use super::{Exit, Failure};
use crate::app::App;
use crate::archive::{Archive, ArchiveError, ArchivedEvidence, Pushed, Queued};
use crate::evidence::TrustFile;
use crate::evidence::ledger::{LedgerRefusal, compare, examine};

pub(super) async fn run(cli: &Cli, app: &App, command: &ArchiveCommand) -> Result<Exit, Failure> {
    let archive = app.archive().ok_or_else(|| {
        Failure::config(anyhow::anyhow!("no archive is configured: evidence is kept in {} alone", app.settings.store.0.display()))
            .with_advice("name a bucket with object lock: [evidence.archive] url = \"s3://bucket/prefix/\" in firedrill.toml")
    })?;
    match command {
        ArchiveCommand::Push => push(cli, app).await,
        ArchiveCommand::Status => status(cli, app, &archive),
        ArchiveCommand::Verify(args) => verify(cli, app, &archive, args).await,
    }
}

async fn push(cli: &Cli, app: &App) -> Result<Exit, Failure> {
    let pushed = app.push_archive().await.map_err(not_recorded)?;
    if cli.json {
        output::json(&json!({ "archived": pushed.archived, "waiting": pushed.waiting }))?;
    } else {
        for archived in &pushed.archived {
            output::line(&words(archived))?;
        }
        if pushed.archived.is_empty() && pushed.waiting.is_empty() {
            output::line("nothing waits")?;
        }
    }
    settled(pushed)
}

/// After drills: what waits is carried over, and what does not get there is no success, whatever the drills came to.
pub(super) async fn after_drills(cli: &Cli, app: &App) -> Result<Exit, Failure> {
    let pushed = app.push_archive().await.map_err(not_recorded)?;
    if !cli.quiet {
        pushed.archived.iter().for_each(|archived| say(&words(archived)));
    }
    settled(pushed)
}

fn words(archived: &crate::archive::Archived) -> String {
    let (drill, scenario, place) = (&archived.drill, &archived.scenario, &archived.place);
    let (files, until) = (archived.files.len(), archived.keep_until.to_human());
    format!("archived    drill {drill} of {scenario}: {files} files read back from {place}, locked until {until}")
}

fn settled(pushed: Pushed) -> Result<Exit, Failure> {
    let Some(error) = pushed.failure else { return Ok(Exit::Passed) };
    let (waiting, advice) = (pushed.waiting.len(), error.advice());
    let what = format!("evidence of {waiting} drill{} is not in the archive; it stays queued", if waiting == 1 { "" } else { "s" });
    Err(Failure::new(Exit::NotRecorded, anyhow::Error::new(error).context(what)).with_advice(advice))
}

fn status(cli: &Cli, app: &App, archive: &Archive) -> Result<Exit, Failure> {
    let local = |error: ArchiveError| not_recorded(error.into());
    let waiting = archive.waiting(app.clock.now()).map_err(local)?;
    let place = archive.place();
    let archived = archive.register().all().map_err(local)?.into_iter().filter(|line| line.place == place.to_string()).count();
    if cli.json {
        output::json(&json!({ "place": place.to_string(), "archived": archived, "waiting": waiting }))?;
    } else {
        output::line(&format!("{place}: evidence of {archived} drills is archived, of {} waits", waiting.len()))?;
        for entry in &waiting {
            output::line(&waits(entry))?;
        }
    }
    Ok(if waiting.is_empty() { Exit::Passed } else { Exit::NotRecorded })
}

fn waits(entry: &Queued) -> String {
    let last = entry.last.as_ref().map_or("not tried yet".to_owned(), |last| format!("{}: {}", last.at.to_human(), last.why));
    format!("  drill {} since {}; {last}", entry.drill, entry.queued_at.to_human())
}

async fn verify(cli: &Cli, app: &App, archive: &Archive, args: &ArchiveVerifyArgs) -> Result<Exit, Failure> {
    let path = super::verify::trust_file(app, args.trust.as_ref())?;
    let trust = TrustFile::load_with(&path, args.revoked.as_deref()).map_err(|e| Failure::config(anyhow::Error::new(e)))?;
    let could_not_ask = |error: ArchiveError| {
        let advice = error.advice();
        Failure::new(Exit::Inconclusive, anyhow::Error::new(error).context("the archive could not be read: nothing was learned of it"))
            .with_advice(advice)
    };
    let waiting = archive.waiting(app.clock.now()).map_err(could_not_ask)?;
    let found = app.verify_archive(archive, &trust).await.map_err(could_not_ask)?;
    let missing = held_to_the_ledger(app, &trust, &found, &waiting)?;
    if cli.json {
        let values = found.iter().map(evidence_json);
        let values = values.chain(missing.iter().map(|why| json!({ "trusted": false, "why": why.to_string() })));
        output::json(&values.collect::<Vec<_>>())?;
    } else {
        for evidence in &found {
            output::line(&told(evidence))?;
        }
        for why in &missing {
            output::line(&format!("REFUSED  {}\n  why         {why}", archive.place()))?;
        }
        for entry in &waiting {
            output::line(&format!("WAITS    drill {} since {}", entry.drill, entry.queued_at.to_human()))?;
        }
        let trusted = found.iter().filter(|evidence| evidence.result.is_ok()).count();
        let refused = found.len() - trusted + missing.len();
        output::line(&format!("{trusted} trusted, {refused} refused, {} not archived yet", waiting.len()))?;
    }
    let good = missing.is_empty() && found.iter().all(|evidence| evidence.result.is_ok());
    Ok(if good { Exit::Passed } else { Exit::Failed })
}

/// What the ledger has and the archive has not, or has otherwise. What waits is told elsewhere.
fn held_to_the_ledger(app: &App, trust: &TrustFile, found: &[ArchivedEvidence], waiting: &[Queued]) -> Result<Vec<LedgerRefusal>, Failure> {
    match examine(&app.settings.ledger.0, trust, &[]) {
        Ok(ledger) => {
            let attestations: Vec<_> = found.iter().filter_map(|evidence| evidence.result.as_ref().ok()).collect();
            let refused = found.iter().filter(|evidence| evidence.result.is_err()).map(|evidence| evidence.drill.to_string());
            let told: Vec<String> = refused.chain(waiting.iter().map(|entry| entry.drill.to_string())).collect();
            Ok(compare(&ledger, &attestations, &told))
        }
        // whoever reads the archive elsewhere has no ledger there
        Err(LedgerRefusal::NothingHere) => Ok(Vec::new()),
        Err(why) => Ok(vec![why]),
    }
}

fn told(evidence: &ArchivedEvidence) -> String {
    match (&evidence.result, evidence.locked_until) {
        (Ok(attestation), until) => {
            let report = attestation.report();
            let locked = until.map_or(String::new(), |until| format!(", locked until {}", until.to_human()));
            format!("TRUSTED  {}\n  drill       of {}, {}{locked}", evidence.url, report.plan.scenario, report.verdict)
        }
        (Err(why), _) => format!("REFUSED  {}\n  why         {why}", evidence.url),
    }
}

fn evidence_json(evidence: &ArchivedEvidence) -> serde_json::Value {
    let report = evidence.result.as_ref().ok().map(|attestation| attestation.report());
    json!({
        "trusted": report.is_some(),
        "url": evidence.url,
        "drill": evidence.drill,
        "scenario": report.map(|r| &r.plan.scenario),
        "verdict": report.map(|r| r.verdict),
        "locked_until": evidence.locked_until,
        "why": evidence.result.as_ref().err().map(ToString::to_string),
    })
}
