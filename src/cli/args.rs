//! What can be typed.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::config::Overrides;
use crate::domain::{LockMode, Moment, Period, ScenarioName, Timestamp};

/// Proves that backups restore: drills in throwaway sandboxes, measured RPO and RTO, signed evidence.
#[derive(Debug, Parser)]
#[command(
    name = "firedrill",
    version,
    about,
    after_help = "Exit status: 0 passed or trusted, 1 failed or refused, 2 usage or configuration, 3 inconclusive, 4 evidence could not be recorded.\n\
                  First steps: `firedrill demo` shows a whole drill; `firedrill init` makes keys, settings and a scenario of your own."
)]
pub struct Cli {
    /// Settings file [default: ./firedrill.toml, then /etc/firedrill/firedrill.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Evidence store, instead of the configured one
    #[arg(long, global = true, value_name = "DIR")]
    pub evidence: Option<PathBuf>,
    /// Directory for what the runner must remember, instead of the configured one
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Answer as JSON on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Say only the answer: no progress, no events
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Log more to stderr; twice for everything
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The flags that override settings.
    pub fn overrides(&self) -> Overrides {
        Overrides { config: self.config.clone(), store: self.evidence.clone(), state: self.state.clone() }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a whole drill on made-up records: no server, no account
    Demo(DemoArgs),
    /// Write made-up data for trying out the starter packs in scenarios/packs
    Samples(SamplesArgs),
    /// Make keys, firedrill.toml and a first scenario that runs
    Init(InitArgs),
    /// Say what this host can promise: sandbox, scratch, keys, storage
    Doctor(DoctorArgs),
    /// Write a sealed set: a signed, encrypted backup that drills like to restore
    Seal(SealArgs),
    /// List recovery points: capture time, age, size, lock
    Points(PointsArgs),
    /// Say what a drill would do and need, without doing it
    Plan(PlanCommand),
    /// Run drills now
    Run(RunCommand),
    /// Keep the schedules of all scenarios, until it is told to end
    Serve,
    /// How every scenario stands: its last drill, its last that passed, when it is due
    Status(StatusArgs),
    /// Let drills of a scenario not happen for a while; what is due meanwhile is entered as waived
    Pause(PauseArgs),
    /// Let drills of a paused scenario happen again
    Resume(ResumeArgs),
    /// Let the next drill of a scenario not happen
    Waive(WaiveArgs),
    /// What the runner remembers between two starts
    #[command(subcommand)]
    State(StateCommand),
    /// Observe a database of your own, for drills to compare with: its objects, and the rows of its tables
    Baseline(BaselineArgs),
    /// Make a nonce and plant it in the source before a backup: drills must find it again
    Canary(CanaryArgs),
    /// Check evidence offline
    Verify(VerifyArgs),
    /// The log of every drill, from which none can vanish: verify it, show it, prove or carry away what it says
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// All evidence once more, in a bucket that locks it: carry over what waits, look, verify
    #[command(subcommand)]
    Archive(ArchiveCommand),
    /// Destroy what a crash left, and close the drills it cut short
    Reap,
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Write the manual pages
    Man(ManArgs),
    /// Print the JSON Schema of a file format
    Schema(SchemaArgs),
}

/// `firedrill demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where to leave backup, keys, scenario and evidence
    #[arg(long, value_name = "DIR", default_value = "firedrill-demo")]
    pub out: PathBuf,
}

/// `firedrill samples`
#[derive(Debug, Args)]
pub struct SamplesArgs {
    /// Of which pack
    pub pack: SamplesOf,
    /// Where to write it: a directory that is not there yet, or empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The same seed makes the same records
    #[arg(long, default_value_t = 2026)]
    pub seed: u64,
    /// When the newest record was made [default: ten minutes ago]
    #[arg(long, value_name = "TIME")]
    pub newest: Option<Timestamp>,
}

/// A starter pack with made-up data.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SamplesOf {
    /// A FHIR store: a bulk export of NDJSON files
    Fhir,
    /// A PACS's folder of DICOM files, with the index of its database
    Dicom,
    /// An archive of HL7 v2 messages: batches, and a journal of MLLP frames
    Hl7,
    /// A database in the shape of OpenMRS: SQL that fills a MariaDB server
    Openmrs,
}

/// `firedrill init`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Where to put firedrill.toml, keys and scenarios
    #[arg(value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
    /// Name of the first scenario
    #[arg(long)]
    pub name: Option<String>,
    /// What the contingency plan calls the system
    #[arg(long)]
    pub system: Option<String>,
    /// Where its backups are, as s3://bucket/prefix/ or a directory
    #[arg(long)]
    pub url: Option<String>,
    /// Endpoint of an S3-compatible server
    #[arg(long)]
    pub endpoint: Option<String>,
    /// Recovery point objective
    #[arg(long, value_name = "TIME")]
    pub rpo: Option<Period>,
    /// Recovery time objective
    #[arg(long, value_name = "TIME")]
    pub rto: Option<Period>,
    /// Take the defaults instead of asking
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// `firedrill doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Scenarios whose storage, keys and scratch are tried as well
    #[arg(value_name = "SCENARIO")]
    pub scenarios: Vec<String>,
}

/// `firedrill points`
#[derive(Debug, Args)]
pub struct PointsArgs {
    /// A scenario's file, or its name in the scenario directory
    #[arg(value_name = "SCENARIO")]
    pub scenario: String,
    /// Show the bucket as it stood at this instant, from the versions that it keeps
    #[arg(long, value_name = "TIME")]
    pub as_of: Option<Moment>,
}

/// `firedrill run` and `firedrill plan`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Scenario files, or names in the scenario directory
    #[arg(value_name = "SCENARIO")]
    pub scenarios: Vec<String>,
    /// The recovery point to take, by the id that `points` shows
    #[arg(long, value_name = "ID", conflicts_with = "as_of")]
    pub point: Option<String>,
    /// The last recovery point captured at or before this instant, of a bucket as it stood then: what was deleted or overwritten
    /// since is undone, from the versions that the bucket keeps. As 2026-11-20T02:00:00Z, or as 24h before the drill's start
    #[arg(long, value_name = "TIME")]
    pub as_of: Option<Moment>,
    /// Why the drill runs, for the evidence
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `firedrill plan`
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").args(["scenarios"]).required(true)))]
pub struct PlanCommand {
    /// Which drills
    #[command(flatten)]
    pub drills: RunArgs,
}

/// `firedrill run`
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").args(["scenarios", "due"]).required(true)))]
pub struct RunCommand {
    /// Which drills
    #[command(flatten)]
    pub drills: RunArgs,
    /// Run what schedules say is due, and end: for those who let cron, a systemd timer or a CronJob keep time
    #[arg(long, conflicts_with_all = ["point", "as_of", "reason"])]
    pub due: bool,
    /// How often that is called: what was due longer ago was missed while nobody was awake [default: 1h]
    #[arg(long, value_name = "TIME", conflicts_with = "scenarios")]
    pub every: Option<Period>,
}

/// `firedrill status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only this one
    #[arg(value_name = "SCENARIO")]
    pub scenario: Option<ScenarioName>,
}

/// `firedrill pause`
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// Name of a scenario
    #[arg(value_name = "SCENARIO")]
    pub scenario: ScenarioName,
    /// Why: it is kept in the ledger with your name
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Until when [default: until `firedrill resume`]
    #[arg(long, value_name = "TIME")]
    pub until: Option<Timestamp>,
}

/// `firedrill resume`
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// Name of a scenario
    #[arg(value_name = "SCENARIO")]
    pub scenario: ScenarioName,
}

/// `firedrill waive`
#[derive(Debug, Args)]
pub struct WaiveArgs {
    /// Name of a scenario
    #[arg(value_name = "SCENARIO")]
    pub scenario: ScenarioName,
    /// Why: it is kept in the ledger with your name
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// `firedrill state`
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Forget what is remembered, and take it up anew from the ledger
    Rebuild,
}

/// `firedrill seal`
#[derive(Debug, Args)]
pub struct SealArgs {
    /// Files and directories, or - for standard input
    #[arg(value_name = "SRC", required = true)]
    pub sources: Vec<PathBuf>,
    /// Where sets are kept: s3://bucket/prefix/ or a directory
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// age or SSH public key that can open it; repeatable
    #[arg(long, short, value_name = "KEY")]
    pub recipient: Vec<String>,
    /// File of recipients, one a line
    #[arg(long, short = 'R', value_name = "FILE")]
    pub recipients_file: Vec<PathBuf>,
    /// Ed25519 private key (OpenSSH) that signs the manifest
    #[arg(long, value_name = "FILE")]
    pub sign: Option<PathBuf>,
    /// When the data was captured, where that is not now
    #[arg(long, value_name = "TIME")]
    pub captured_at: Option<Timestamp>,
    /// Name of the single file that standard input becomes
    #[arg(long, value_name = "NAME", default_value = "data")]
    pub stdin_name: String,
    /// Who makes the backup, for the manifest [default: this host's name]
    #[arg(long, value_name = "NAME")]
    pub producer: Option<String>,
    /// zstd level, 1 to 19
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: i32,
    /// Lock every object: "compliance" or "governance"
    #[arg(long, value_name = "MODE", requires = "lock_for")]
    pub lock: Option<LockModeArg>,
    /// How long the lock lasts, as 90d
    #[arg(long, value_name = "TIME", requires = "lock")]
    pub lock_for: Option<Period>,
    /// Endpoint of an S3-compatible server
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Region
    #[arg(long)]
    pub region: Option<String>,
    /// Profile of the shared AWS files
    #[arg(long)]
    pub profile: Option<String>,
    /// PEM file of certificate authorities to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Allow a plain http endpoint
    #[arg(long)]
    pub allow_http: bool,
    /// Address buckets as hosts (bucket.endpoint) instead of paths
    #[arg(long)]
    pub virtual_host: bool,
}

/// A retention mode, typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LockModeArg {
    /// Nobody can shorten it
    Compliance,
    /// Some users can lift it
    Governance,
}

impl From<LockModeArg> for LockMode {
    fn from(mode: LockModeArg) -> Self {
        match mode {
            LockModeArg::Compliance => LockMode::Compliance,
            LockModeArg::Governance => LockMode::Governance,
        }
    }
}

/// `firedrill baseline`
#[derive(Debug, Args)]
pub struct BaselineArgs {
    /// The PostgreSQL database, as psql is told: its name, or a connection string as "service=ehr". It is only read
    #[arg(long, value_name = "CONNECTION")]
    pub postgres: String,
    /// Count and hash the rows of all tables as well
    #[arg(long)]
    pub content: bool,
    /// Those of this table; repeatable
    #[arg(long, value_name = "NAME", conflicts_with = "content")]
    pub table: Vec<String>,
    /// Hash a part of the rows, as 1%, as the check will
    #[arg(long, value_name = "PART", value_parser = part_per_million)]
    pub sample: Option<u32>,
    /// A snapshot that pg_export_snapshot() gave to another session, so that the dump of the same snapshot has these rows
    #[arg(long, value_name = "ID")]
    pub snapshot: Option<String>,
    /// Where to write it [default: stdout]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

fn part_per_million(text: &str) -> Result<u32, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    let part = percent.map(|percent| (percent * 10_000.0).round()).filter(|part| (1.0..=1e6).contains(part));
    part.map(|part| part as u32).ok_or_else(|| "write 0.0001% to 100%, as 1%".to_owned())
}

/// `firedrill canary`
#[derive(Debug, Args)]
pub struct CanaryArgs {
    /// A scenario's file, or its name in the scenario directory: the one whose drills expect it
    #[arg(value_name = "SCENARIO")]
    pub scenario: String,
    /// Write it into this file, which the backup takes along
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    pub file: Option<PathBuf>,
    /// Program and arguments that plant it: they get it on standard input and as $FIREDRILL_CANARY. Without any it is printed
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `firedrill verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Trust file (OpenSSH allowed_signers) [default: the configured one]
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Keys that no longer count: OpenSSH public keys or SHA256: fingerprints, one a line
    #[arg(long, value_name = "FILE")]
    pub revoked: Option<PathBuf>,
    /// A checkpoint of the ledger that was kept elsewhere: what is here must go on from it. May be given more than once
    #[arg(long = "anchor", value_name = "FILE")]
    pub anchors: Vec<PathBuf>,
    /// Hold the ledger to everything that the configured anchors keep as well
    #[arg(long = "anchors")]
    pub configured_anchors: bool,
    /// Evidence folders, or folders of them
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
}

/// `firedrill ledger`
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Check the log offline: signed, whole, and going on from what was kept elsewhere. `firedrill verify` on a whole evidence
    /// store holds the evidence to it as well
    Verify(LedgerVerifyArgs),
    /// Print its entries, oldest first
    Show(LedgerShowArgs),
    /// Print its last checkpoint: keep it elsewhere, and give it to `--anchor` later
    Checkpoint,
    /// Carry its last checkpoint to the configured anchors, due or not; every run of drills does so at its end
    Anchor(LedgerAnchorArgs),
    /// Print the proof that one entry is in it, good without the log (C2SP tlog-proof)
    Prove(LedgerProveArgs),
}

/// `firedrill ledger verify`
#[derive(Debug, Args)]
pub struct LedgerVerifyArgs {
    /// Trust file (OpenSSH allowed_signers) [default: the configured one]
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Keys that no longer count: OpenSSH public keys or SHA256: fingerprints, one a line
    #[arg(long, value_name = "FILE")]
    pub revoked: Option<PathBuf>,
    /// A checkpoint that was kept elsewhere. May be given more than once
    #[arg(long = "anchor", value_name = "FILE")]
    pub anchors: Vec<PathBuf>,
    /// Hold it to everything that the configured anchors keep as well
    #[arg(long = "anchors")]
    pub configured_anchors: bool,
    /// The ledger's directory [default: the configured one]
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// `firedrill ledger show`
#[derive(Debug, Args)]
pub struct LedgerShowArgs {
    /// Only what is about this scenario, or drills of it
    #[arg(long, value_name = "NAME")]
    pub scenario: Option<ScenarioName>,
    /// From this entry on, counted from 0
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    pub from: u64,
}

/// `firedrill ledger anchor`
#[derive(Debug, Args)]
pub struct LedgerAnchorArgs {
    /// To this one only, by its name in firedrill.toml
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// `firedrill ledger prove`
#[derive(Debug, Args)]
pub struct LedgerProveArgs {
    /// Which entry, counted from 0
    #[arg(value_name = "INDEX")]
    pub index: u64,
}

/// `firedrill archive`
#[derive(Debug, Subcommand)]
pub enum ArchiveCommand {
    /// Carry over what waits; every run of drills does so at its end
    Push,
    /// Say what is archived and what waits, and why. Exit status 4 where something waits
    Status,
    /// Read everything back from the bucket, verify it, ask for its locks, and hold it to the ledger
    Verify(ArchiveVerifyArgs),
}

/// `firedrill archive verify`
#[derive(Debug, Args)]
pub struct ArchiveVerifyArgs {
    /// Trust file (OpenSSH allowed_signers) [default: the configured one]
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Keys that no longer count: OpenSSH public keys or SHA256: fingerprints, one a line
    #[arg(long, value_name = "FILE")]
    pub revoked: Option<PathBuf>,
}

/// `firedrill completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `firedrill man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where the pages go
    #[arg(value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
}

/// `firedrill schema`
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Of what
    pub of: SchemaOf,
}

/// A file format with a schema.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SchemaOf {
    /// Scenario files
    Scenario,
    /// firedrill.toml
    Settings,
    /// report.json
    Report,
}
