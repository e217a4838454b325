//! `firedrill init`: keys, settings and a first scenario that runs.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use anyhow::Context;

use super::args::{Cli, InitArgs};
use super::output;
use super::{Exit, Failure};
use crate::config::{load_scenario, load_settings};
use crate::domain::{Period, ScenarioName};
use crate::evidence::{Signer, SignerKey};

/// The answers.
struct Answers {
    name: ScenarioName,
    system: String,
    url: String,
    endpoint: Option<String>,
    rpo: Period,
    rto: Period,
}

pub(super) fn run(_cli: &Cli, args: &InitArgs) -> Result<Exit, Failure> {
    let answers = ask(args).map_err(Failure::config)?;
    let made = make(&args.directory, &answers)
        .map_err(|e| Failure::config(e).with_advice("nothing is ever overwritten: choose another directory, or move what is there away"))?;
    let shown = |path: &Path| path.display().to_string();
    let directory = &args.directory;
    let mut text = String::from("made\n");
    for (path, what) in &made.files {
        text.push_str(&format!("  {:<34} {what}\n", shown(path)));
    }
    text.push_str(&format!(
        "\nnext\n  \
         1. back up:    firedrill seal DATA --to {} --recipient {} --sign {}\n  \
         2. look:       firedrill --config {} points {}\n  \
         3. drill:      firedrill --config {} run {}\n  \
         4. verify:     firedrill verify --trust {} {}\n\n\
         Keep {} where you keep what must survive the disaster: without it no backup opens.\n",
        answers.url,
        made.recipient,
        shown(&directory.join("keys/producer")),
        shown(&directory.join("firedrill.toml")),
        answers.name,
        shown(&directory.join("firedrill.toml")),
        answers.name,
        shown(&directory.join("allowed_signers")),
        shown(&directory.join("evidence")),
        shown(&directory.join(format!("keys/{}.agekey", answers.name))),
    ));
    output::write(text.as_bytes())
}

/// What was made.
pub(super) struct Made {
    pub(super) files: Vec<(PathBuf, &'static str)>,
    /// The age recipient that backups are sealed to.
    pub(super) recipient: String,
}

/// A new age identity in a file only its owner reads; its recipient comes back.
pub(super) fn new_age_identity(path: &Path) -> anyhow::Result<String> {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let text = format!("# public key: {recipient}\n{}\n", identity.to_string().expose_secret());
    create(path, &text, 0o600)?;
    Ok(recipient)
}

/// Writes a new file; an existing one is an error.
pub(super) fn create(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

fn make(directory: &Path, answers: &Answers) -> anyhow::Result<Made> {
    let settings = directory.join("firedrill.toml");
    let scenario = directory.join(format!("scenarios/{}.toml", answers.name));
    let unlock = directory.join(format!("keys/{}.agekey", answers.name));
    let (signing, producer, trust) = (directory.join("keys/signing"), directory.join("keys/producer"), directory.join("allowed_signers"));
    for path in [&settings, &scenario, &unlock, &signing, &producer, &trust] {
        anyhow::ensure!(path.symlink_metadata().is_err(), "{} is there already", path.display());
    }
    let recipient = new_age_identity(&unlock)?;
    let signer = SignerKey::generate().context("cannot make the signing key")?;
    signer.save(&signing, "firedrill evidence").context("cannot save the signing key")?;
    SignerKey::generate().and_then(|key| key.save(&producer, "firedrill producer")).context("cannot make the producer's key")?;
    create(&trust, &signer.public().allowed_signers_line("firedrill", None), 0o644)?;
    create(&settings, SETTINGS, 0o644)?;
    create(&scenario, &scenario_text(answers), 0o644)?;
    // what was just written must be what the runner reads
    load_scenario(&scenario)?;
    let overrides = crate::config::Overrides { config: Some(fs::canonicalize(&settings)?), ..Default::default() };
    load_settings(&overrides, &crate::storage::Environment::default(), directory)?;
    Ok(Made {
        recipient,
        files: vec![
            (settings, "settings"),
            (scenario, "the first scenario"),
            (unlock, "opens backups: guard it, copy it off site"),
            (signing, "signs evidence: guard it"),
            (producer, "signs manifests: belongs on the backup host"),
            (trust, "whom verifiers trust: give it to your auditor"),
        ],
    })
}

const SETTINGS: &str = r#"# firedrill settings; paths are relative to this file
[evidence]
store       = "evidence"
signing_key = "keys/signing"
trust       = "allowed_signers"
# age recipients of the annex, which resolves the pseudonyms in reports (file names can be patient data)
annex_recipients = []

[scenarios]
directory = "scenarios"
"#;

fn scenario_text(answers: &Answers) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let endpoint = answers.endpoint.as_ref().map_or(String::new(), |e| format!("endpoint = {}\n", quoted(e)));
    format!(
        r#"# What to restore, how, with which checks and objectives. Schema: firedrill schema scenario
name        = {name}
system      = {system}
criticality = "critical"              # critical | high | moderate | low
# plan      = {{ id = "CP-014", version = "3.2" }}   # the contingency plan this belongs to

[objectives]
rpo = "{rpo}"
rto = "{rto}"

[schedule]
cron      = "0 3 1 1,4,7,10 *"        # quarterly; five fields, as in crontab
time_zone = "UTC"

[source]
url = {url}
{endpoint}
[source.policy]
encrypted = true
# lock    = {{ mode = "compliance", remaining = "30d" }}   # every object version must be locked this long (S3)

[unlock]
age_identities    = ["file:../keys/{plain}.agekey"]
trusted_producers = ["file:../keys/producer.pub"]

[sandbox]
memory  = "1GiB"
scratch = {{ kind = "tmpfs", size = "4GiB" }}
time    = "{time}"

[[check]]
kind = "manifest"                     # every file as the manifest has it

[[check]]
kind    = "freshness"                 # the newest data: the measured RPO
pattern = "**"
"#,
        name = quoted(&answers.name.to_string()),
        plain = answers.name,
        system = quoted(&answers.system),
        rpo = answers.rpo,
        rto = answers.rto,
        url = quoted(&answers.url),
        time = Period::from_secs(answers.rto.seconds.saturating_mul(2).max(3_600)),
    )
}

/// Flags first, then questions where somebody can answer, then defaults.
fn ask(args: &InitArgs) -> anyhow::Result<Answers> {
    let asking = !args.yes && io::stdin().is_terminal() && io::stderr().is_terminal();
    let question = |text: &str, given: Option<String>, default: &str| -> anyhow::Result<String> {
        if let Some(given) = given {
            return Ok(given);
        }
        if !asking {
            return Ok(default.to_owned());
        }
        output::ask(&format!("{text} [{default}] "))?;
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        Ok(if line.trim().is_empty() { default.to_owned() } else { line.trim().to_owned() })
    };
    let name: ScenarioName = question("Short name of the scenario?", args.name.clone(), "ehr")?.parse()?;
    let system = question("What does the contingency plan call the system?", args.system.clone(), "Electronic health records")?;
    let backups = fs::canonicalize(&args.directory).unwrap_or_else(|_| args.directory.clone());
    let backups = std::path::absolute(backups)?.join("backups").join(name.to_string());
    let url = question("Where are its backups (s3://bucket/prefix/ or a directory)?", args.url.clone(), &backups.display().to_string())?;
    let (url, local) = match url.contains("://") {
        true => (url, false),
        false => (format!("file://{}", std::path::absolute(&url)?.display()), true),
    };
    let endpoint = match local {
        true => None,
        false => {
            Some(question("Endpoint of the S3-compatible server (empty for AWS)?", args.endpoint.clone(), "")?).filter(|e| !e.is_empty())
        }
    };
    let rpo = question("How old may the newest restored data be (RPO)?", args.rpo.map(|p| p.to_string()), "24h")?.parse()?;
    let rto = question("How long may recovery take (RTO)?", args.rto.map(|p| p.to_string()), "4h")?.parse()?;
    Ok(Answers { name, system, url, endpoint, rpo, rto })
}
