//! What an auditor types and sees: the same for `firedrill verify` and `firedrill-verify`.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;

use super::ledger::{self, Anchor, VerifiedLedger};
use super::{Attestation, KeyCustody, Refused, TrustFile, verify};
use crate::domain::{Met, Verdict};

/// Arguments of a verification.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Whose evidence counts: a file in the form of OpenSSH's allowed_signers. Get it from whom you trust, not with the evidence
    #[arg(long, value_name = "FILE")]
    pub trust: PathBuf,
    /// Keys that no longer count: OpenSSH public keys or SHA256: fingerprints, one a line
    #[arg(long, value_name = "FILE")]
    pub revoked: Option<PathBuf>,
    /// A checkpoint of the ledger that you kept: what is here must go on from it. May be given more than once
    #[arg(long = "anchor", value_name = "FILE")]
    pub anchors: Vec<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    /// Evidence: directories of reports, whole stores, or a file of a report
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
}

/// How a verification ended; the numbers are exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// Everything is trusted.
    Trusted = 0,
    /// Something is refused.
    Refused = 1,
    /// The trust file cannot be used.
    Usage = 2,
}

/// Verifies and writes the answer to `out`, complaints to `err`. Ledgers are held to the checkpoints in `kept` as well.
///
/// # Errors
/// Where `out` or `err` cannot be written.
pub fn run(args: &VerifyArgs, kept: &[Anchor], out: &mut dyn Write, err: &mut dyn Write) -> io::Result<Outcome> {
    let trust = match TrustFile::load_with(&args.trust, args.revoked.as_deref()) {
        Ok(trust) => trust,
        Err(error) => {
            writeln!(err, "error: {error}")?;
            if let Some(source) = std::error::Error::source(&error) {
                writeln!(err, "  because: {source}")?;
            }
            writeln!(err, "  nothing was verified")?;
            return Ok(Outcome::Usage);
        }
    };
    let mut anchors = kept.to_vec();
    for path in &args.anchors {
        match std::fs::read(path) {
            Ok(bytes) => anchors.push(Anchor { name: plain(&path.to_string_lossy()), bytes, seen_at: None }),
            Err(error) => {
                writeln!(
                    err,
                    "error: cannot read the anchor {}\n  because: {error}\n  nothing was verified",
                    plain(&path.to_string_lossy())
                )?;
                return Ok(Outcome::Usage);
            }
        }
    }
    let results = verify(&args.paths, &trust);
    let ledgers = ledger::verify_ledgers(&args.paths, &trust, &anchors, &results);
    if args.json {
        let values: Vec<serde_json::Value> = results.iter().map(to_json).chain(ledgers.iter().map(ledger_json)).collect();
        serde_json::to_writer_pretty(&mut *out, &values)?;
        writeln!(out)?;
    } else {
        for result in &results {
            match result {
                Ok(attestation) => write_trusted(out, attestation)?,
                Err(refused) => write_refused(out, refused)?,
            }
        }
        for ledger in &ledgers {
            write_ledger(out, ledger)?;
        }
        if ledgers.is_empty() && !results.is_empty() {
            writeln!(out, "no ledger is here: whether other drills were left out cannot be told\n")?;
        }
        write_sum(out, &results)?;
    }
    out.flush()?;
    let something = !results.is_empty() || !ledgers.is_empty();
    let trusted = results.iter().all(Result::is_ok) && ledgers.iter().all(VerifiedLedger::is_trusted);
    Ok(if something && trusted { Outcome::Trusted } else { Outcome::Refused })
}

fn write_trusted(out: &mut dyn Write, attestation: &Attestation) -> io::Result<()> {
    let report = attestation.report();
    let what = match report.verdict {
        Verdict::Passed if report.has_warnings() => "evidence of a drill that PASSED, with warnings",
        Verdict::Passed => "evidence of a drill that PASSED",
        Verdict::Failed => "evidence of a FAILED drill",
        Verdict::Inconclusive => "evidence of an INCONCLUSIVE drill: it says nothing about the backup",
    };
    writeln!(out, "TRUSTED  {what}")?;
    let plan = &report.plan;
    writeln!(out, "  drill       {} of scenario {}", plain(&report.report_id.0), plan.scenario)?;
    writeln!(out, "  system      {} ({})", plain(&plan.system), plan.criticality)?;
    writeln!(
        out,
        "  ran         {}, for {}, by {} on {}",
        report.started_at.to_human(),
        report.clock.monotonic,
        plain(&report.runner.actor),
        plain(&report.runner.host)
    )?;
    for assessment in &report.assessments {
        let achieved = assessment.achieved.map_or("not measured".to_owned(), |a| format!("{a} achieved"));
        let met = match assessment.met {
            Met::Met => "met",
            Met::Missed => "MISSED",
            Met::NotMeasured => "not measured",
        };
        let name = assessment.objective.to_uppercase();
        writeln!(out, "  {:<11} {achieved}, {} promised: {met}", plain(&name), assessment.target)?;
    }
    for finding in report.failures() {
        writeln!(out, "  found       {}: {}", plain(&finding.check), plain(&finding.kind.to_string()))?;
    }
    writeln!(out, "  signed by   {}, {}", plain(attestation.principals()), attestation.signer().fingerprint())?;
    if report.issuer.custody == KeyCustody::MadeOnTheSpot {
        writeln!(out, "              a key made on the spot and kept beside the evidence: good for trying out, nothing else")?;
    }
    writeln!(
        out,
        "  recomputed  2 signatures, {} files, {} events, their verdict and measurements",
        attestation.files(),
        attestation.events().len()
    )?;
    writeln!(out, "  in          {}\n", plain(&attestation.directory().to_string_lossy()))
}

fn write_refused(out: &mut dyn Write, refused: &Refused) -> io::Result<()> {
    writeln!(out, "REFUSED  {}", plain(&refused.path.to_string_lossy()))?;
    writeln!(out, "  why         {}\n", plain(&refused.why.to_string()))
}

fn write_ledger(out: &mut dyn Write, verified: &VerifiedLedger) -> io::Result<()> {
    let said = if verified.is_trusted() { "TRUSTED" } else { "REFUSED" };
    writeln!(out, "{said}  the ledger")?;
    if let Ok(ledger) = &verified.examined {
        let failed = ledger.drills.values().filter(|d| matches!(d.finished, Some((_, _, Verdict::Failed, _)))).count();
        writeln!(out, "  entries     {}, of {} drills ({failed} failed)", ledger.checkpoint.size, ledger.drills.len())?;
        if let Some((first, last)) = ledger.span {
            writeln!(out, "  from        {} to {}", first.to_human(), last.to_human())?;
        }
        writeln!(out, "  origin      {}", plain(&ledger.checkpoint.origin))?;
        writeln!(out, "  signed by   {}, {}", plain(&ledger.principals), ledger.checkpoint.signer.fingerprint())?;
        writeln!(out, "  goes on     from {} checkpoints kept elsewhere, those in reports among them", ledger.anchors)?;
        for remark in &ledger.remarks {
            writeln!(out, "  remark      {}", plain(&remark.to_string()))?;
        }
    }
    for problem in verified.problems() {
        writeln!(out, "  why         {}", plain(&problem.to_string()))?;
    }
    writeln!(out, "  in          {}\n", plain(&verified.directory.to_string_lossy()))
}

fn ledger_json(verified: &VerifiedLedger) -> serde_json::Value {
    let ledger = verified.examined.as_ref().ok();
    json!({
        "trusted": verified.is_trusted(),
        "ledger": verified.directory,
        "origin": ledger.map(|l| &l.checkpoint.origin),
        "entries": ledger.map(|l| l.checkpoint.size),
        "root": ledger.map(|l| l.checkpoint.root()),
        "drills": ledger.map(|l| l.drills.len()),
        "anchors": ledger.map(|l| l.anchors),
        "signed_by": ledger.map(|l| json!({ "principals": l.principals, "key": l.checkpoint.signer.fingerprint() })),
        "remarks": ledger.map(|l| l.remarks.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "why": verified.problems().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn write_sum(out: &mut dyn Write, results: &[Result<Attestation, Refused>]) -> io::Result<()> {
    if results.len() < 2 {
        return Ok(());
    }
    let trusted = results.iter().filter(|r| r.is_ok()).count();
    let of = |verdict| results.iter().filter(|r| r.as_ref().is_ok_and(|a| a.report().verdict == verdict)).count();
    let (passed, failed, none) = (of(Verdict::Passed), of(Verdict::Failed), of(Verdict::Inconclusive));
    let refused = results.len() - trusted;
    writeln!(out, "{trusted} trusted ({passed} passed, {failed} failed, {none} inconclusive), {refused} refused")
}

fn to_json(result: &Result<Attestation, Refused>) -> serde_json::Value {
    match result {
        Ok(attestation) => {
            let report = attestation.report();
            json!({
                "trusted": true,
                "path": attestation.directory(),
                "report_id": report.report_id,
                "verdict": report.verdict,
                "scenario": report.plan.scenario,
                "system": report.plan.system,
                "started_at": report.started_at,
                "finished_at": report.finished_at,
                "assessments": report.assessments,
                "signed_by": { "principals": attestation.principals(), "key": attestation.signer().fingerprint(), "custody": report.issuer.custody },
                "files": attestation.files(),
                "events": attestation.events().len(),
            })
        }
        Err(refused) => json!({ "trusted": false, "path": refused.path, "why": refused.why.to_string() }),
    }
}

/// Text from a file, without anything a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
