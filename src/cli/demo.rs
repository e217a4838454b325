//! `firedrill demo`: a whole drill on made-up records, with nothing but this binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::args::{Cli, DemoArgs};
use super::init::{create, new_age_identity};
use super::output;
use super::run::{cancel_on_signals, drill, exit_of, paint, tidy_up};
use super::seal::{Destination, Job, producer_key};
use super::{Exit, Failure};
use crate::app::{App, Request, samples};
use crate::codec::age::Recipients;
use crate::config::Overrides;
use crate::domain::{DrillId, ResourceLimits, Selector, Trigger};
use crate::evidence::{Signer, SignerKey};
use crate::report::console;
use crate::sandbox::{Isolation, Kept, SandboxSpec, promises};
use crate::seal::{SealProgress, set_id};
use crate::storage::Now;

/// The demo's records are always the same.
const SEED: u64 = 2026;

pub(super) async fn run(cli: &Cli, args: &DemoArgs) -> Result<Exit, Failure> {
    let out = std::path::absolute(&args.out).map_err(Failure::config)?;
    prepare(&out).map_err(|e| Failure::config(e).with_advice("name another directory with --out"))?;
    let overrides = Overrides { config: Some(out.join("firedrill.toml")), store: None, state: Some(out.join("state")) };
    let app = App::new(overrides).map_err(Failure::config)?;
    let isolated = isolation_is_there(&app).await;
    write_scenario(&out, isolated).map_err(Failure::config)?;

    let sealed = back_up(&app, &out).await.map_err(|e| Failure::new(Exit::Inconclusive, e))?;
    let scenario = app.scenario("demo").map_err(Failure::config)?;
    tidy_up(&app).await;
    let request = Request {
        selectors: vec![Selector::Latest],
        trigger: Trigger::OnDemand { reason: Some("demonstration".into()) },
        isolation: if isolated { Isolation::Required } else { Isolation::IfPossible },
    };
    let quiet =
        Cli { quiet: true, config: None, evidence: None, state: None, json: cli.json, verbose: cli.verbose, command: demo_command(args) };
    let evidence = drill(&quiet, &app, &scenario, request, &cancel_on_signals()).await?;
    let verdict = evidence.report.verdict;
    if cli.json {
        output::json(&serde_json::json!({
            "verdict": verdict,
            "backup": sealed,
            "evidence": evidence.directory,
            "trust": out.join("allowed_signers"),
        }))?;
        return Ok(exit_of(verdict));
    }
    let shown = |path: PathBuf| path.strip_prefix(&app.working_directory).map(Path::to_owned).unwrap_or(path).display().to_string();
    let mut text = format!(
        "firedrill made records of 200 people who do not exist, sealed them as an encrypted, signed backup\n({sealed}), and drilled it: \
         fetched, restored into a throwaway sandbox, checked, timed, destroyed.\n\n"
    );
    text.push_str(&console::summary(&evidence.report, paint()));
    text.push_str(&format!(
        "\nread it     {}\nverify it   firedrill verify --trust {} {}\nagain       firedrill --config {} --state {} run demo\nyour own    firedrill init\n",
        shown(evidence.directory.join("report.html")),
        shown(out.join("allowed_signers")),
        shown(out.join("evidence")),
        shown(out.join("firedrill.toml")),
        shown(out.join("state")),
    ));
    output::write(text.as_bytes())?;
    Ok(exit_of(verdict))
}

fn demo_command(args: &DemoArgs) -> super::args::Command {
    super::args::Command::Demo(DemoArgs { out: args.out.clone() })
}

const SETTINGS: &str = r#"# The demo's settings. Its keys lie beside the evidence: good for trying out, and for nothing else.
[evidence]
store       = "evidence"
trust       = "allowed_signers"
signing_key = "keys/signing"
"#;

/// Keys and settings; a second demo in the same place uses what is there.
fn prepare(out: &Path) -> anyhow::Result<()> {
    let settings = out.join("firedrill.toml");
    if settings.is_file() {
        let ours = fs::read_to_string(&settings).is_ok_and(|text| text == SETTINGS);
        anyhow::ensure!(ours, "{} holds something else than a demo", out.display());
        return Ok(());
    }
    if let Ok(mut entries) = fs::read_dir(out) {
        anyhow::ensure!(entries.next().is_none(), "{} is not empty", out.display());
    }
    fs::create_dir_all(out.join("keys")).with_context(|| format!("cannot make {}", out.display()))?;
    new_age_identity(&out.join("keys/unlock.agekey"))?;
    let signer = SignerKey::generate()?;
    signer.save(&out.join("keys/signing"), "firedrill demo evidence")?;
    SignerKey::generate()?.save(&out.join("keys/producer"), "firedrill demo producer")?;
    create(&out.join("allowed_signers"), &signer.public().allowed_signers_line("firedrill-demo", None), 0o644)?;
    create(&settings, SETTINGS, 0o644)
}

/// Where a host has no namespaces, the demo still shows everything but commands; its report says what is weaker.
async fn isolation_is_there(app: &App) -> bool {
    let probe = SandboxSpec::new(DrillId(uuid::Uuid::now_v7().to_string()), ResourceLimits::default(), app.sandboxes());
    promises(&probe).await.iter().any(|p| p.name == "isolation" && p.kept != Kept::No)
}

fn write_scenario(out: &Path, isolated: bool) -> anyhow::Result<()> {
    let scratch = if isolated {
        "scratch = { kind = \"tmpfs\", size = \"256MiB\" }".to_owned()
    } else {
        format!(
            "scratch = {{ kind = \"directory\", size = \"256MiB\", path = {} }}",
            toml::Value::String(out.join("scratch").display().to_string())
        )
    };
    let command = if isolated {
        "\n[[check]]\nkind    = \"command\"                    # a program inside the sandbox, without network\nname    = \"sums\"\ncommand = [\"sha256sum\", \"--check\", \"--quiet\", \"SHA256SUMS\"]\n"
    } else {
        fs::create_dir_all(out.join("scratch"))?;
        ""
    };
    let text = format!(
        r#"name        = "demo"
system      = "Demonstration records"
criticality = "low"

[objectives]
rpo = "24h"
rto = "15m"

[source]
url = "file:../backups"

[unlock]
age_identities    = ["file:../keys/unlock.agekey"]
trusted_producers = ["file:../keys/producer.pub"]

[sandbox]
memory = "512MiB"
{scratch}

[[check]]
kind = "manifest"                       # every file as the signed manifest has it

[[check]]
kind    = "files"
name    = "observations"
pattern = "observations/**/*.jsonl"
count   = "= 90"
{command}
[[check]]
kind    = "freshness"                   # the newest record: the measured RPO
pattern = "observations/**/*.jsonl"
field   = "recorded"
"#
    );
    let path = out.join("scenarios/demo.toml");
    fs::create_dir_all(out.join("scenarios"))?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Makes records and seals them; says what was made.
async fn back_up(app: &App, out: &Path) -> anyhow::Result<String> {
    let records = out.join("records");
    samples::write_records(&records, SEED, app.clock.now()).context("cannot make the sample records")?;
    let recipient = age_recipient(&out.join("keys/unlock.agekey"))?;
    let clock = Arc::clone(&app.clock);
    let now: Now = Arc::new(move || clock.now());
    let mut salt = [0; 4];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| anyhow::anyhow!("the system gives no randomness"))?;
    let job = Job {
        id: set_id(now(), salt),
        source: vec![records.clone()],
        stdin_name: String::new(),
        recipients: Recipients::parse(&[recipient])?,
        producer: "demo".to_owned(),
        key: Some(producer_key(&out.join("keys/producer"))?),
        captured_at: now(),
        level: 3,
        target: Destination::Directory(out.join("backups")),
        now,
    };
    let cancel = CancellationToken::new();
    let sealed = tokio::task::spawn_blocking(move || job.write(&SealProgress::default(), &cancel)).await??;
    // the backup is what the drill is about: its source is not needed any more
    fs::remove_dir_all(&records).with_context(|| format!("cannot remove {}", records.display()))?;
    let totals = &sealed.manifest.totals;
    Ok(format!("{} files, {}", totals.files, crate::domain::ByteSize(totals.bytes)))
}

/// The recipient that an identity file's comment names.
fn age_recipient(path: &Path) -> anyhow::Result<String> {
    let text = zeroize::Zeroizing::new(fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?);
    let line =
        text.lines().find_map(|l| l.strip_prefix("# public key: ")).with_context(|| format!("{} names no public key", path.display()))?;
    Ok(line.trim().to_owned())
}
