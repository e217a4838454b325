//! `method = "tool"`: a foreign restore tool, unmodified, in the sandbox.
//!
//! It reads the backup through the gateway or from a mirror, has throw-away credentials and a home of its own, gets secrets
//! in memory or in its environment, and restores into the sandbox's tree. What it prints may be patients' data: it is
//! looked at here, and kept for the annex alone.

mod mirror;
mod snapshots;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

pub use mirror::{MirrorError, MirrorInto, mirror};
pub use snapshots::{SnapshotList, list};

use crate::domain::{Cause, Placeholder, Template, ToolFacts, ToolReads, ToolStep};
use crate::sandbox::{CommandSpec, DATA_DIRECTORY, Ended, Exit, KIT_DIRECTORY, PRIVATE_FILES, Sandbox, SandboxError};

/// The tool's home, below the kit.
pub const HOME: &str = "home";
/// Its temporary files, below the kit: the private `/tmp` is small.
pub const TEMPORARY: &str = "tmp";
/// The mirror, below the kit.
pub const REPOSITORY: &str = "repository";
/// Where programs are looked for, as commands inside find them.
const PROGRAMS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const CA_FILE: &str = "gateway-ca.pem";
const SECRET_PREFIX: &str = "secret-";
/// Longest time to print a version.
const VERSION_TIME: Duration = Duration::from_secs(60);

/// How the gateway is reached from inside.
#[derive(Clone)]
pub struct GatewayPlaces {
    /// The name that its certificate bears.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its region.
    pub region: String,
    /// Throw-away.
    pub access_key: String,
    /// Throw-away.
    pub secret_key: Zeroizing<String>,
    /// PEM of its certificate authority.
    pub ca: String,
}

/// What the places of a step are filled with.
#[derive(Clone, Default)]
pub struct Fillings {
    /// The gateway, where one stands.
    pub gateway: Option<GatewayPlaces>,
    /// The bucket's name.
    pub bucket: String,
    /// The prefix, without a slash at either end.
    pub prefix: String,
    /// Full key of the selected object.
    pub object_key: Option<String>,
    /// Id of the selected snapshot.
    pub snapshot: Option<String>,
    /// The component that is restored, of a system that has several: what is a place inside gets one of its own for each.
    pub component: Option<String>,
}

impl Fillings {
    /// Name in the kit of the directory that a repository is mirrored to.
    pub fn repository(&self) -> String {
        self.component.as_ref().map_or_else(|| REPOSITORY.to_owned(), |component| format!("{REPOSITORY}-{component}"))
    }
}

/// Secrets of a step, by name.
pub type Secrets = BTreeMap<String, Zeroizing<Vec<u8>>>;

impl fmt::Debug for Fillings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fillings").field("gateway", &self.gateway.is_some()).finish_non_exhaustive()
    }
}

/// Why a tool did not restore. No text of these holds what it printed.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not among the programs inside.
    #[error("{tool} is not installed where the sandbox can see it (looked in {})", looked.join(", "))]
    Missing {
        /// Which.
        tool: String,
        /// Where it was looked for.
        looked: Vec<String>,
    },
    /// Its file cannot be read, or leads to where the sandbox does not see it.
    #[error("{tool} cannot be run inside the sandbox: {why}")]
    Unusable {
        /// Which.
        tool: String,
        /// Why.
        why: String,
    },
    /// A place of its command has nothing to be filled with.
    #[error("its {place} has nothing to be filled with")]
    Unfilled {
        /// Which.
        place: String,
    },
    /// A secret for its environment is no text.
    #[error("the secret `{name}` is no text, which an environment variable must be")]
    NoText {
        /// Which.
        name: String,
    },
    /// The sandbox did not do its part, or a bound of it was hit.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// It says that it could not ask the backup.
    #[error("{how}, and its output has the words by which it says that it could not ask the backup")]
    SaysSo {
        /// How it ended.
        how: String,
    },
    /// It never came to the gateway.
    #[error("{how}, without asking the gateway for anything")]
    NeverAsked {
        /// How it ended.
        how: String,
    },
    /// It wanted what the sandbox has not.
    #[error("{how}, after {attempts} attempts to reach something outside")]
    WantsOut {
        /// How it ended.
        how: String,
        /// How often it tried.
        attempts: u64,
    },
    /// It wanted to write to the backup.
    #[error("{how}, after it was refused to write to the backup {writes} times, the first time by {first}")]
    WantsToWrite {
        /// How it ended.
        how: String,
        /// How often it tried.
        writes: u64,
        /// What first.
        first: String,
    },
    /// Somebody else ended it.
    #[error("{how}, which nothing inside does by itself")]
    EndedFromOutside {
        /// How it ended.
        how: String,
    },
    /// It prints something else than a list.
    #[error("what it lists of its recovery points cannot be read: {why}")]
    NoList {
        /// What is wrong, in our words.
        why: String,
    },
    /// It was given a part of the backup.
    #[error("{how}, on a mirror that {left_out} entries of the storage are not in")]
    PartOnly {
        /// How it ended.
        how: String,
        /// How many.
        left_out: u64,
    },
    /// It ran, and did not restore.
    #[error("{how}")]
    Failed {
        /// How it ended.
        how: String,
    },
}

impl ToolError {
    /// Whose fault it is.
    pub fn blame(&self) -> Cause {
        match self {
            ToolError::Failed { .. } => Cause::Backup,
            ToolError::Missing { .. }
            | ToolError::Unusable { .. }
            | ToolError::Unfilled { .. }
            | ToolError::NoText { .. }
            | ToolError::Sandbox(_)
            | ToolError::SaysSo { .. }
            | ToolError::NeverAsked { .. }
            | ToolError::WantsOut { .. }
            | ToolError::WantsToWrite { .. }
            | ToolError::EndedFromOutside { .. }
            | ToolError::NoList { .. }
            | ToolError::PartOnly { .. } => Cause::Runner,
        }
    }

    /// What to try next.
    pub fn advice(&self) -> &'static str {
        match self {
            ToolError::Missing { .. } => "install it below /usr, or name its directory: [sandbox] tools = [\"/opt/…\"]",
            ToolError::Unusable { .. } => "let its file and what it links to lie below /usr or a directory of [sandbox] tools",
            ToolError::Unfilled { .. } => "see the places in the scenario's [[restore]]",
            ToolError::NoText { .. } => "give it as a file: {secret_file:NAME}",
            ToolError::Sandbox(_) => "see `firedrill doctor`",
            ToolError::SaysSo { .. } => "check the secrets and the command of its [[restore]]; the annex has its own words",
            ToolError::NeverAsked { .. } => {
                "let it read from {endpoint} or {endpoint_tls}, {bucket} and {prefix}: inside, nothing else is there; the annex has its own words"
            }
            ToolError::WantsOut { .. } => {
                "the attempts are listed in the report: keep it from them by its options, or by what it restores from"
            }
            ToolError::WantsToWrite { .. } => {
                "keep it from writing by its options (as restic's --no-lock), or let it write to nothing: writes = \"overlay\""
            }
            ToolError::EndedFromOutside { .. } => "look into the host's log; then run the drill again",
            ToolError::NoList { .. } => "run its command by hand, and correct items, id and time in [restore.snapshots]",
            ToolError::PartOnly { .. } => "rename them or move them out of the prefix: no request can be made of their names",
            ToolError::Failed { .. } => "the annex has its own words",
        }
    }
}

/// Finds a tool among the programs that the sandbox shows, and asks its version inside: before it sees any of the backup.
///
/// # Errors
/// [`ToolError::Missing`], [`ToolError::Unusable`], [`ToolError::Sandbox`].
pub async fn find(step: &ToolStep, directories: &[PathBuf], sandbox: &Sandbox) -> Result<ToolFacts, ToolError> {
    let (path, real) = program(&step.tool, directories)?;
    let unusable = |why: String| ToolError::Unusable { tool: step.tool.clone(), why };
    let sha256 = File::open(&real).and_then(crate::codec::sha256).map_err(|e| unusable(e.kind().to_string()))?;
    let mut command = CommandSpec::new(step.version.iter().cloned());
    command.timeout = VERSION_TIME;
    command.env = base_environment(directories);
    let version = match sandbox.run(&command).await {
        Ok(exit) => first_line(&exit.stdout).or_else(|| first_line(&exit.stderr)).unwrap_or_default(),
        Err(SandboxError::NotStarted { source, .. }) => return Err(unusable(source.kind().to_string())),
        Err(other) => return Err(other.into()),
    };
    Ok(ToolFacts { tool: step.tool.clone(), path: path.display().to_string(), version, sha256 })
}

/// Where a program is that commands inside find by this name, and the file that this leads to.
///
/// # Errors
/// [`ToolError::Missing`], [`ToolError::Unusable`].
pub(super) fn program(tool: &str, directories: &[PathBuf]) -> Result<(PathBuf, PathBuf), ToolError> {
    let path = look_up(tool, directories)?;
    let unusable = |why: String| ToolError::Unusable { tool: tool.to_owned(), why };
    let real = fs::canonicalize(&path).map_err(|e| unusable(e.kind().to_string()))?;
    let shown = ["/usr", "/bin", "/sbin", "/lib", "/lib64"].map(Path::new);
    if !shown.iter().copied().chain(directories.iter().map(PathBuf::as_path)).any(|seen| real.starts_with(seen)) {
        return Err(unusable(format!("it leads to {}, which the sandbox does not show", real.display())));
    }
    Ok((path, real))
}

fn look_up(tool: &str, directories: &[PathBuf]) -> Result<PathBuf, ToolError> {
    let is_program = |path: &Path| path.metadata().is_ok_and(|m| m.is_file() && std::os::unix::fs::MetadataExt::mode(&m) & 0o111 != 0);
    if tool.starts_with('/') {
        let path = PathBuf::from(tool);
        return if is_program(&path) { Ok(path) } else { Err(ToolError::Missing { tool: tool.to_owned(), looked: vec![tool.to_owned()] }) };
    }
    let looked = search_path(directories);
    match looked.iter().map(|directory| directory.join(tool)).find(|path| is_program(path)) {
        Some(path) => Ok(path),
        None => Err(ToolError::Missing { tool: tool.to_owned(), looked: looked.iter().map(|d| d.display().to_string()).collect() }),
    }
}

/// Directories of the scenario first, and what they have in a `bin` of their own.
fn search_path(directories: &[PathBuf]) -> Vec<PathBuf> {
    let own = directories.iter().flat_map(|d| [d.clone(), d.join("bin")]);
    own.chain(PROGRAMS.iter().map(PathBuf::from)).collect()
}

pub(super) fn base_environment(directories: &[PathBuf]) -> Vec<(String, String)> {
    let path: Vec<String> = search_path(directories).iter().map(|d| d.display().to_string()).collect();
    vec![
        ("PATH".to_owned(), path.join(":")),
        ("HOME".to_owned(), format!("{KIT_DIRECTORY}/{HOME}")),
        ("TMPDIR".to_owned(), format!("{KIT_DIRECTORY}/{TEMPORARY}")),
    ]
}

/// The first line that says something, without anything a terminal would obey.
fn first_line(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(160).collect())
}

/// How a tool's run went, beside its exit.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// Attempts to reach something outside while it ran.
    pub attempts: u64,
    /// Attempts to write to the backup while it ran.
    pub writes: u64,
    /// The first of them.
    pub first_write: Option<String>,
    /// Requests that the gateway has had from this drill's tools, those refused included; `None` where there is no gateway.
    pub asked: Option<u64>,
    /// Entries of the storage that its mirror has not.
    pub left_out: u64,
}

/// A step's command with every place filled.
///
/// # Errors
/// [`ToolError::Unfilled`], [`ToolError::NoText`].
pub fn prepare(
    step: &ToolStep,
    command: &[Template],
    fillings: &Fillings,
    secrets: &Secrets,
    directories: &[PathBuf],
    time: Duration,
) -> Result<CommandSpec, ToolError> {
    let fill = |template: &Template| -> Result<String, ToolError> {
        template.places().try_for_each(|place| filling(place, fillings, secrets).map(drop))?;
        Ok(template.fill(&|place| filling(place, fillings, secrets).ok()).expect("every place was just filled"))
    };
    let argv = command.iter().map(fill).collect::<Result<Vec<_>, _>>()?;
    let mut spec = CommandSpec::new(argv);
    spec.timeout = time;
    spec.env = base_environment(directories);
    for (name, template) in &step.env {
        spec.env.push((name.clone(), fill(template)?));
    }
    for (name, template) in &step.files {
        spec.files.push((name.clone(), fill(template)?.into_bytes()));
    }
    spec.files.extend(secrets.iter().map(|(name, secret)| (format!("{SECRET_PREFIX}{name}"), secret.to_vec())));
    spec.files.extend(fillings.gateway.iter().map(|gateway| (CA_FILE.to_owned(), gateway.ca.clone().into_bytes())));
    Ok(spec)
}

fn filling(place: &Placeholder, fillings: &Fillings, secrets: &Secrets) -> Result<String, ToolError> {
    use Placeholder as P;
    let gateway = fillings.gateway.as_ref();
    let filled = match place {
        P::Endpoint => gateway.map(|g| format!("http://127.0.0.1:{}", g.port)),
        P::EndpointTls => gateway.map(|g| format!("https://{}:{}", g.host, g.port)),
        P::Host => gateway.map(|g| g.host.clone()),
        P::Port => gateway.map(|g| g.port.to_string()),
        P::Region => gateway.map(|g| g.region.clone()),
        P::AccessKey => gateway.map(|g| g.access_key.clone()),
        P::SecretKey => gateway.map(|g| g.secret_key.to_string()),
        P::CaFile => gateway.map(|_| format!("{PRIVATE_FILES}/{CA_FILE}")),
        P::Bucket => Some(fillings.bucket.clone()),
        P::Prefix => Some(fillings.prefix.clone()),
        P::Target => Some(fillings.component.as_ref().map_or_else(|| DATA_DIRECTORY.to_owned(), |name| format!("{DATA_DIRECTORY}/{name}"))),
        P::Repository => Some(format!("{KIT_DIRECTORY}/{}", fillings.repository())),
        P::Home => Some(format!("{KIT_DIRECTORY}/{HOME}")),
        P::ObjectKey => fillings.object_key.clone(),
        P::Object => fillings.object_key.as_deref().map(|key| format!("{KIT_DIRECTORY}/{}/{}", fillings.repository(), base_name(key))),
        P::Snapshot => fillings.snapshot.clone(),
        P::File(name) => Some(format!("{PRIVATE_FILES}/{name}")),
        P::SecretFile(name) => Some(format!("{PRIVATE_FILES}/{SECRET_PREFIX}{name}")),
        P::Secret(name) => match secrets.get(name).map(|secret| std::str::from_utf8(secret)) {
            // the line end that every editor leaves in a file is no part of a password
            Some(Ok(text)) => Some(text.strip_suffix('\n').unwrap_or(text).to_owned()),
            Some(Err(_)) => return Err(ToolError::NoText { name: name.clone() }),
            None => None,
        },
    };
    filled.ok_or_else(|| ToolError::Unfilled { place: place.to_string() })
}

/// The last part of a key: what a mirrored object is called.
pub fn base_name(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

/// Judges how a tool ended. Not being able to ask comes first: only what is left blames the backup.
///
/// # Errors
/// [`ToolError`], unless it ended as the step calls done.
pub fn judge(step: &ToolStep, exit: &Exit, around: &Around) -> Result<(), ToolError> {
    let (how, from_outside) = match exit.ended {
        Ended::Status(status) if step.exit.contains(&status) => return Ok(()),
        Ended::Status(status) => (format!("it ended with exit status {status}"), false),
        Ended::Signal(signal) => (format!("it was ended by signal {signal}"), is_from_outside(signal)),
    };
    if from_outside {
        return Err(ToolError::EndedFromOutside { how });
    }
    if says_it_could_not(step, exit) {
        return Err(ToolError::SaysSo { how });
    }
    if around.attempts > 0 {
        return Err(ToolError::WantsOut { how, attempts: around.attempts });
    }
    if around.writes > 0 {
        let first = around.first_write.clone().unwrap_or_default();
        return Err(ToolError::WantsToWrite { how, writes: around.writes, first });
    }
    if step.reads == ToolReads::Gateway && around.asked == Some(0) {
        return Err(ToolError::NeverAsked { how });
    }
    if step.reads == ToolReads::Directory && around.left_out > 0 {
        return Err(ToolError::PartOnly { how, left_out: around.left_out });
    }
    Err(ToolError::Failed { how })
}

/// Whether its output has the words by which the step knows that it could not ask the backup.
pub fn says_it_could_not(step: &ToolStep, exit: &Exit) -> bool {
    let words = step.cannot_run.as_deref().and_then(|words| regex::bytes::Regex::new(words).ok());
    words.is_some_and(|words| words.is_match(&exit.stderr) || words.is_match(&exit.stdout))
}

/// Signals that a program's own bytes do not raise.
pub(super) fn is_from_outside(signal: i32) -> bool {
    const HANGUP: i32 = 1;
    const INTERRUPT: i32 = 2;
    const QUIT: i32 = 3;
    const KILL: i32 = 9;
    const TERMINATE: i32 = 15;
    [HANGUP, INTERRUPT, QUIT, KILL, TERMINATE].contains(&signal)
}

/// The end of what a tool printed: what the annex keeps.
pub fn last_words(exit: &Exit) -> Vec<u8> {
    const KEPT: usize = 32 << 10;
    let end = |bytes: &[u8]| bytes[bytes.len().saturating_sub(KEPT)..].to_vec();
    let mut words = end(&exit.stderr);
    words.extend_from_slice(&end(&exit.stdout));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(command: &[&str]) -> ToolStep {
        ToolStep {
            tool: "restic".into(),
            version: vec!["restic".into(), "version".into()],
            command: command.iter().map(|t| t.parse().unwrap()).collect(),
            env: BTreeMap::from([("KEY".to_owned(), "{secret_key}:{secret:password}".parse().unwrap())]),
            secrets: BTreeMap::new(),
            files: BTreeMap::from([("tool.conf".to_owned(), "ca={ca_file} key={secret_file:password}".parse().unwrap())]),
            reads: Default::default(),
            writes: Default::default(),
            exit: vec![0, 3],
            cannot_run: Some("wrong password".into()),
            snapshots: None,
        }
    }

    fn fillings() -> Fillings {
        Fillings {
            component: None,
            gateway: Some(GatewayPlaces {
                host: "s3.drill.internal".into(),
                port: 4711,
                region: "us-east-1".into(),
                access_key: "AK".into(),
                secret_key: Zeroizing::new("SK".into()),
                ca: "PEM".into(),
            }),
            bucket: "acme".into(),
            prefix: "ehr/daily".into(),
            object_key: Some("ehr/daily/x.tar.gpg".into()),
            snapshot: None,
        }
    }

    fn secrets() -> Secrets {
        BTreeMap::from([("password".to_owned(), Zeroizing::new(b"hunter2\n".to_vec()))])
    }

    fn prepared(command: &[&str]) -> Result<CommandSpec, ToolError> {
        let step = step(command);
        prepare(&step, &step.command, &fillings(), &secrets(), &[PathBuf::from("/opt/restic")], Duration::from_secs(1))
    }

    #[test]
    fn every_place_is_filled() {
        let spec =
            prepared(&["restic", "s3:{endpoint}/{bucket}/{prefix}", "{endpoint_tls}", "{object}", "{file:tool.conf}", "{target}"]).unwrap();
        assert_eq!(
            spec.argv,
            [
                "restic",
                "s3:http://127.0.0.1:4711/acme/ehr/daily",
                "https://s3.drill.internal:4711",
                "/kit/repository/x.tar.gpg",
                "/run/firedrill/tool.conf",
                "/data"
            ]
        );
        assert!(spec.env.contains(&("KEY".into(), "SK:hunter2".into())));
        assert!(spec.env.iter().any(|(name, value)| name == "PATH" && value.starts_with("/opt/restic:/opt/restic/bin:/usr/local/sbin:")));
        let files: BTreeMap<_, _> = spec.files.into_iter().collect();
        assert_eq!(files["tool.conf"], b"ca=/run/firedrill/gateway-ca.pem key=/run/firedrill/secret-password");
        assert_eq!((&files["secret-password"][..], &files["gateway-ca.pem"][..]), (&b"hunter2\n"[..], &b"PEM"[..]));
    }

    #[test]
    fn a_place_without_a_value_and_a_secret_without_text_are_told() {
        assert!(matches!(prepared(&["restic", "{snapshot}"]), Err(ToolError::Unfilled { place }) if place == "{snapshot}"));
        let step = step(&["restic"]);
        let binary = BTreeMap::from([("password".to_owned(), Zeroizing::new(vec![0xff]))]);
        let error = prepare(&step, &step.command, &fillings(), &binary, &[], Duration::from_secs(1)).unwrap_err();
        assert!(matches!(error, ToolError::NoText { .. }));
    }

    #[test]
    fn a_tool_that_is_not_there_is_told_with_where_it_was_looked_for() {
        let Err(ToolError::Missing { looked, .. }) = look_up("no-such-tool", &[PathBuf::from("/opt/x")]) else { panic!("found") };
        assert!(looked.contains(&"/opt/x/bin".to_owned()) && looked.contains(&"/usr/bin".to_owned()), "{looked:?}");
        assert_eq!(look_up("sh", &[]).unwrap().file_name().unwrap(), "sh");
        assert!(look_up("/etc/passwd", &[]).is_err(), "no program");
    }

    #[test]
    fn versions_are_one_harmless_line() {
        assert_eq!(first_line(b"\n  restic 0.14.0\x1b[31m compiled\nmore\n").unwrap(), "restic 0.14.0[31m compiled");
        assert_eq!(first_line(b"\n \n"), None);
    }

    /// How a tool ended, what happened meanwhile, who is to blame.
    #[test]
    fn only_what_nothing_else_explains_blames_the_backup() {
        let quiet = Around::default();
        let went_out = Around { attempts: 2, ..Around::default() };
        let never = Around { asked: Some(0), ..Around::default() };
        let wrote = Around { writes: 1, first_write: Some("PutObject".into()), ..Around::default() };
        for (ended, stderr, around, verdict) in [
            (Ended::Status(0), "", &quiet, None),
            (Ended::Status(3), "wrong password", &wrote, None),
            (Ended::Status(1), "", &quiet, Some(Cause::Backup)),
            (Ended::Signal(11), "", &quiet, Some(Cause::Backup)),
            (Ended::Signal(9), "", &quiet, Some(Cause::Runner)),
            (Ended::Signal(15), "", &quiet, Some(Cause::Runner)),
            (Ended::Status(1), "Fatal: wrong password", &quiet, Some(Cause::Runner)),
            (Ended::Status(1), "", &went_out, Some(Cause::Runner)),
            (Ended::Status(1), "", &wrote, Some(Cause::Runner)),
            (Ended::Status(1), "", &never, Some(Cause::Runner)),
            (Ended::Status(1), "", &Around { asked: Some(1), ..Around::default() }, Some(Cause::Backup)),
            // the gateway shows what it shows
            (Ended::Status(1), "", &Around { left_out: 1, ..Around::default() }, Some(Cause::Backup)),
        ] {
            let exit = Exit::for_tests(ended, "", stderr);
            let judged = judge(&step(&["x"]), &exit, around).map_err(|e| e.blame());
            assert_eq!(judged.err(), verdict, "{ended:?} {stderr} {around:?}");
        }
        let mirrored = ToolStep { reads: ToolReads::Directory, ..step(&["x"]) };
        let error = judge(&mirrored, &Exit::for_tests(Ended::Status(1), "", ""), &Around { left_out: 1, ..Around::default() }).unwrap_err();
        assert_eq!(error.blame(), Cause::Runner);
        // what a command printed is in no error's text
        let exit = Exit::for_tests(Ended::Status(1), "Wilhelmina", "wrong password of Wilhelmina");
        let error = judge(&step(&["x"]), &exit, &quiet).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("Wilhelmina"));
        assert_eq!(last_words(&exit), b"wrong password of WilhelminaWilhelmina");
    }
}
