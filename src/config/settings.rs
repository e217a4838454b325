//! Settings of the runner: defaults, then the file, then the environment, then flags.

use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::de::DeTable;

use super::keeping::{AnchorTable, LockedBucketTable};
use super::mistakes::{Collector, ConfigError};
use super::reader::Reader;
use super::schema;
use crate::domain::{AnchorPlace, LockedBucket};
use crate::storage::Environment;

/// `firedrill.toml`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsFile {
    /// Where evidence goes and who signs it.
    #[serde(default)]
    pub evidence: EvidenceTable,
    /// The log from which no drill can vanish.
    #[serde(default)]
    pub ledger: LedgerTable,
    /// Where scenarios are.
    #[serde(default)]
    pub scenarios: ScenariosTable,
    /// How `firedrill serve` works.
    #[serde(default)]
    pub serve: ServeTable,
    /// Where the runner keeps what it must remember.
    #[serde(default)]
    pub state: StateTable,
}

/// Where evidence goes and who signs it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvidenceTable {
    /// Directory of the evidence store, relative to this file; "evidence" by default.
    pub store: Option<String>,
    /// Ed25519 private key that signs evidence: an OpenSSH or PKCS#8 file, relative to this file.
    pub signing_key: Option<String>,
    /// Who signs, as allowed_signers names it; "firedrill" by default.
    pub signer: Option<String>,
    /// Trust file (OpenSSH allowed_signers) that `firedrill verify` uses without --trust.
    pub trust: Option<String>,
    /// File with the 64 hexadecimal digits of the key that makes pseudonyms; made when missing.
    pub pseudonym_key: Option<String>,
    /// age recipients of the annex that resolves pseudonyms; without any there is no annex.
    #[serde(default)]
    pub annex_recipients: Vec<String>,
    /// Bucket with object lock to which all evidence is carried as well, and locked for as long as it must be kept.
    pub archive: Option<LockedBucketTable>,
}

/// The log from which no drill can vanish.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LedgerTable {
    /// Its directory, relative to this file; "ledger" in the evidence store by default.
    pub directory: Option<String>,
    /// Its name in all its checkpoints, as "clinic.example/firedrill"; made up when the log begins, by default.
    pub origin: Option<String>,
    /// Places outside to which its checkpoints are carried: whoever changes the log afterwards is found out by any one of them.
    #[serde(default)]
    pub anchor: Vec<AnchorTable>,
}

/// Where scenarios are.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenariosTable {
    /// Directory in which a scenario can be named without its path; "scenarios" by default.
    pub directory: Option<String>,
}

/// How `firedrill serve` works.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServeTable {
    /// How many drills may run at once; 2 by default.
    pub drills: Option<NonZeroU8>,
}

/// Where the runner keeps what it must remember.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateTable {
    /// Directory; "/var/lib/firedrill" for root, else "~/.local/state/firedrill".
    pub directory: Option<String>,
}

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(&'static str),
    /// A flag.
    Flag,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => write!(f, "${name}"),
            Origin::Flag => f.write_str("flag"),
        }
    }
}

/// Settings that hold, each with its origin.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directory of the evidence store.
    pub store: (PathBuf, Origin),
    /// Key that signs evidence; without one a key is made on the spot.
    pub signing_key: Option<(PathBuf, Origin)>,
    /// Who signs.
    pub signer: (String, Origin),
    /// Trust file for `verify`.
    pub trust: Option<(PathBuf, Origin)>,
    /// Key file of pseudonyms.
    pub pseudonym_key: (PathBuf, Origin),
    /// age recipients of the annex.
    pub annex_recipients: Vec<String>,
    /// Where evidence is archived; nowhere where there is none.
    pub archive: Option<LockedBucket>,
    /// Where checkpoints of the ledger are carried.
    pub anchors: Vec<AnchorPlace>,
    /// Directory of the ledger.
    pub ledger: (PathBuf, Origin),
    /// The ledger's name; without one it is made up.
    pub ledger_origin: Option<String>,
    /// Directory of scenarios.
    pub scenarios: (PathBuf, Origin),
    /// How many drills may run at once.
    pub drills: usize,
    /// Directory of state.
    pub state: (PathBuf, Origin),
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// Flags that override settings.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--evidence`
    pub store: Option<PathBuf>,
    /// `--state`
    pub state: Option<PathBuf>,
}

/// Finds and reads settings: `--config`, else `firedrill.toml` in the working directory, else `/etc/firedrill/firedrill.toml`, else none.
///
/// # Errors
/// [`ConfigError`]: a file that was named and cannot be read, or any file with mistakes.
pub fn load_settings(overrides: &Overrides, environment: &Environment, working_directory: &Path) -> Result<Settings, ConfigError> {
    let named = overrides.config.clone().or_else(|| environment.get("FIREDRILL_CONFIG").map(PathBuf::from));
    let file = match named {
        Some(path) => Some(working_directory.join(path)),
        None => {
            [working_directory.join("firedrill.toml"), PathBuf::from("/etc/firedrill/firedrill.toml")].into_iter().find(|p| p.is_file())
        }
    };
    let base = file.as_ref().and_then(|path| path.parent()).unwrap_or(working_directory).to_owned();
    let Read { file: table, archive, anchors } = file.as_ref().map(|path| read(path, &base)).transpose()?.unwrap_or_default();
    let origin = || file.clone().map_or(Origin::Default, Origin::File);
    let path = |text: &String| base.join(text.strip_prefix("file:").unwrap_or(text));
    let or = |value: Option<&String>, default: &str| match value {
        Some(text) => (path(text), origin()),
        None => (base.join(default), Origin::Default),
    };
    let state = state_directory(overrides, environment, table.state.directory.as_ref().map(|t| (path(t), origin())));
    let evidence = &table.evidence;
    let store = match (&overrides.store, environment.get("FIREDRILL_EVIDENCE")) {
        (Some(flag), _) => (working_directory.join(flag), Origin::Flag),
        (None, Some(text)) => (working_directory.join(text), Origin::Environment("FIREDRILL_EVIDENCE")),
        (None, None) => or(evidence.store.as_ref(), "evidence"),
    };
    let signing_key = match (environment.get("FIREDRILL_SIGNING_KEY"), &evidence.signing_key) {
        (Some(text), _) => Some((working_directory.join(text), Origin::Environment("FIREDRILL_SIGNING_KEY"))),
        (None, Some(text)) => Some((path(text), origin())),
        (None, None) => None,
    };
    let ledger = match &table.ledger.directory {
        Some(text) => (path(text), origin()),
        None => (store.0.join("ledger"), Origin::Default),
    };
    Ok(Settings {
        store,
        ledger,
        ledger_origin: table.ledger.origin.clone(),
        signing_key,
        signer: match &evidence.signer {
            Some(name) => (name.clone(), origin()),
            None => ("firedrill".to_owned(), Origin::Default),
        },
        trust: evidence.trust.as_ref().map(|t| (path(t), origin())),
        pseudonym_key: match &evidence.pseudonym_key {
            Some(text) => (path(text), origin()),
            None => (state.0.join("pseudonym.key"), Origin::Default),
        },
        annex_recipients: evidence.annex_recipients.clone(),
        archive,
        anchors,
        scenarios: or(table.scenarios.directory.as_ref(), "scenarios"),
        drills: table.serve.drills.map_or(2, |drills| usize::from(drills.get())),
        state,
        file,
    })
}

fn state_directory(overrides: &Overrides, environment: &Environment, from_file: Option<(PathBuf, Origin)>) -> (PathBuf, Origin) {
    if let Some(flag) = &overrides.state {
        return (flag.clone(), Origin::Flag);
    }
    if let Some(text) = environment.get("FIREDRILL_STATE") {
        return (PathBuf::from(text), Origin::Environment("FIREDRILL_STATE"));
    }
    if let Some(found) = from_file {
        return found;
    }
    // systemd's StateDirectory= names the directory that a service may write
    if let Some(text) = environment.get("STATE_DIRECTORY") {
        return (PathBuf::from(text), Origin::Environment("STATE_DIRECTORY"));
    }
    if rustix::process::geteuid().is_root() {
        return (PathBuf::from("/var/lib/firedrill"), Origin::Default);
    }
    match (environment.get("XDG_STATE_HOME"), environment.get("HOME")) {
        (Some(state), _) => (Path::new(state).join("firedrill"), Origin::Environment("XDG_STATE_HOME")),
        (None, Some(home)) => (Path::new(home).join(".local/state/firedrill"), Origin::Default),
        (None, None) => (PathBuf::from("/var/tmp/firedrill"), Origin::Default),
    }
}

/// A file that was read, and the values in it that may be wrong in themselves.
#[derive(Default)]
struct Read {
    file: SettingsFile,
    archive: Option<LockedBucket>,
    anchors: Vec<AnchorPlace>,
}

fn read(path: &Path, base: &Path) -> Result<Read, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let mut mistakes = Collector::default();
    let (document, syntax) = DeTable::parse_recoverable(&text);
    for error in syntax {
        mistakes.add(error.span().unwrap_or(0..0), error.message().to_owned(), None);
    }
    if mistakes.is_empty() {
        schema::check(&super::settings_schema(), &document, &mut mistakes);
    }
    if !mistakes.is_empty() {
        return Err(mistakes.into_error(path, &text));
    }
    let file: SettingsFile = match toml::from_str(&text) {
        Ok(file) => file,
        Err(error) => {
            mistakes.add(error.span().unwrap_or(0..0), error.message().to_owned(), None);
            return Err(mistakes.into_error(path, &text));
        }
    };
    let mut reader = Reader::new(&document, base, mistakes, Vec::new());
    let archive = file.evidence.archive.as_ref().and_then(|table| reader.locked_bucket("evidence.archive", table));
    let anchors = reader.anchors("ledger.anchor", &file.ledger.anchor);
    let mistakes = reader.into_mistakes();
    if mistakes.is_empty() { Ok(Read { file, archive, anchors }) } else { Err(mistakes.into_error(path, &text)) }
}
