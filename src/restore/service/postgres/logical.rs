//! What `pg_dump` and `pg_dumpall` write, in all formats: plain, custom, directory, tar; with roles and tablespaces beside it.

use super::super::meaning::{Meaning, tally, worst};
use super::super::usable::Loaded;
use super::super::{Input, Job, ServiceError, Shop, how};
use super::cluster::{Cluster, choose, installed, quoted_connection};
use super::whole;
use super::words::{self, Extensions, LoggedError};
use crate::domain::{PostgresStep, ServiceProblem, Severity};
use crate::restore::tool::is_from_outside;
use crate::sandbox::Exit;

/// Bytes of a plain dump's beginning that are looked at: its header, and where `pg_dumpall` has roles and tablespaces.
const HEAD: u64 = 1 << 20;
/// Bytes of a plain dump's end: it says there that it is whole.
const END: u64 = 4 << 10;

/// A dump, looked at.
enum Looked {
    /// SQL and psql's own commands.
    Plain(Text),
    /// What `pg_restore` reads.
    Archive { input: Input, kind: Kind },
}

/// The archives of `pg_dump`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Custom,
    Directory,
    Tar,
}

/// A text for psql.
struct Text {
    input: Input,
    /// Its beginning, read once.
    head: Vec<u8>,
}

impl Looked {
    fn at(shop: &Shop<'_>, dump: Input) -> Result<Self, ServiceError> {
        let unusable = |how: &str| Err(ServiceError::backup(ServiceProblem::InputUnusable, how, []));
        if dump.directory {
            return match shop.open_below(&dump, "toc.dat") {
                Ok(_) => Ok(Looked::Archive { input: dump, kind: Kind::Directory }),
                Err(_) => unusable("a directory without toc.dat is no pg_dump directory"),
            };
        }
        let text = Text::of(shop, dump);
        let head = &text.head[..text.head.len().min(512)];
        if head.is_empty() {
            return unusable("the dump has no bytes at all");
        }
        if head.starts_with(b"PGDMP") {
            return Ok(Looked::Archive { input: text.input, kind: Kind::Custom });
        }
        if head.get(257..262) == Some(b"ustar") {
            return Ok(Looked::Archive { input: text.input, kind: Kind::Tar });
        }
        // text holds no zeros: neither does a dump, but a file that a full disk has filled does
        if head.contains(&0) {
            return unusable("it is in none of the formats of pg_dump");
        }
        Ok(Looked::Plain(text))
    }

    /// Looks for what `pg_restore` passes over in silence.
    fn is_whole(&self, shop: &Shop<'_>) -> Result<(), ServiceError> {
        match self {
            Looked::Archive { input, kind: Kind::Directory } => whole::directory(shop, input),
            Looked::Archive { input, kind: Kind::Tar } => whole::tar(shop, input),
            Looked::Archive { kind: Kind::Custom, .. } | Looked::Plain(_) => Ok(()),
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Looked::Plain(_) => "plain",
            Looked::Archive { kind: Kind::Custom, .. } => "custom",
            Looked::Archive { kind: Kind::Directory, .. } => "directory",
            Looked::Archive { kind: Kind::Tar, .. } => "tar",
        }
    }
}

impl Text {
    fn of(shop: &Shop<'_>, input: Input) -> Self {
        Self { head: shop.head(&input, HEAD), input }
    }

    fn says(&self, shop: &Shop<'_>) -> Result<Says, ServiceError> {
        let (head, end) = (String::from_utf8_lossy(&self.head), shop.end(&self.input, END));
        let by_pg_dump = head.contains("-- PostgreSQL database dump") || head.contains("-- PostgreSQL database cluster dump");
        let whole = String::from_utf8_lossy(&end).lines().any(|line| {
            line.starts_with("-- PostgreSQL database dump complete") || line.starts_with("-- PostgreSQL database cluster dump complete")
        });
        if by_pg_dump && !whole {
            let how = "the last line that pg_dump writes, by which it says that the dump is complete, is not there";
            return Err(ServiceError::backup(ServiceProblem::InputTruncated, how, []));
        }
        Ok(Says::read(&head))
    }

    /// Whether it makes its databases itself, as `pg_dumpall` and `pg_dump --create` have it.
    fn brings_databases(&self) -> bool {
        self.has_line("\\connect ") || self.has_line("CREATE DATABASE ")
    }

    fn has_line(&self, beginning: &str) -> bool {
        self.head.split(|b| *b == b'\n').any(|line| line.starts_with(beginning.as_bytes()))
    }
}

/// What a dump says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Says {
    /// `Dumped from database version`.
    server: Option<String>,
    /// `Dumped by pg_dump version`.
    client: Option<String>,
    /// The database that was dumped.
    database: Option<String>,
    /// Its encoding.
    encoding: Option<String>,
}

impl Says {
    fn read(text: &str) -> Self {
        let after = |words: &str| {
            let line = text.lines().find_map(|line| line.split_once(words).map(|(_, rest)| rest.trim_start_matches(':').trim()))?;
            Some(line.to_owned()).filter(|l| !l.is_empty())
        };
        let version = |words: &str| after(words).and_then(|line| line.split_whitespace().next().map(str::to_owned));
        let encoding = after("SET client_encoding = ").map(|rest| rest.trim_matches(|c| c == '\'' || c == ';').to_owned());
        Self {
            server: version("Dumped from database version"),
            client: version("Dumped by pg_dump version"),
            database: after(";     dbname: "),
            encoding: encoding.filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')),
        }
    }
}

/// The leading number of a version.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?.parse().ok()
}

pub(super) async fn load(
    shop: &Shop<'_>,
    step: &PostgresStep,
    dump: &str,
    globals: Option<&str>,
    jobs: Option<u32>,
) -> Result<Loaded<Cluster>, ServiceError> {
    let dump = Looked::at(shop, shop.input(dump)?)?;
    let globals = globals.map(|pattern| shop.input(pattern).map(|input| Text::of(shop, input))).transpose()?;
    dump.is_whole(shop)?;
    if let Some(globals) = &globals {
        globals.says(shop)?;
    }
    let says = said(shop, &dump, step).await?;
    let recorded = says.server.as_deref().and_then(major);
    let (version, programs) = choose(step.version, recorded, shop.directories)?;
    let newer_client = says.client.as_deref().and_then(major).is_some_and(|client| client > version);
    if let (Some(recorded), true) = (&says.server, recorded.is_some_and(|recorded| recorded != version)) {
        let how = format!("the backup is of version {recorded}, and the scenario restores it into version {version}");
        shop.remark(Severity::Warn, ServiceProblem::OtherVersion, how, []);
    }
    if newer_client {
        let how = format!("by a client of version {}, for a server of version {version}", says.client.as_deref().unwrap_or("?"));
        shop.remark(Severity::Warn, ServiceProblem::NewerClient, how, []);
    }
    let data = shop.room("data")?;
    let mut cluster = Cluster::new(shop, version, programs, data, &step.user)?;
    cluster.make(shop).await?;
    cluster.start_fresh(shop, &step.settings).await?;
    let loading = Loading { shop, cluster: &cluster, newer_client };
    if let Some(globals) = &globals {
        loading.plain(globals, "postgres").await?;
    }
    let database = step.database.clone().or_else(|| says.database.clone());
    match &dump {
        Looked::Plain(text) if text.brings_databases() => {
            loading.plain(text, "postgres").await?;
            cluster.database = step.database.clone();
        }
        Looked::Plain(_) | Looked::Archive { .. } => {
            let database = database.unwrap_or_else(|| "restored".to_owned());
            loading.make_database(&database, says.encoding.as_deref()).await?;
            match &dump {
                Looked::Plain(text) => loading.plain(text, &database).await?,
                Looked::Archive { input, kind } => {
                    let jobs = jobs.unwrap_or(shop.processors).max(1);
                    loading.archive(input, &database, if *kind == Kind::Tar { 1 } else { jobs }).await?;
                }
            }
            cluster.database = Some(database);
        }
    }
    let beside = if globals.is_some() { ", after roles and tablespaces" } else { "" };
    let method = format!("pg_dump in {} format{beside}", dump.word());
    Ok(Loaded::new(cluster, says.server, method))
}

/// What the dump says of itself; for archives, by the newest `pg_restore` at hand.
async fn said(shop: &Shop<'_>, dump: &Looked, step: &PostgresStep) -> Result<Says, ServiceError> {
    let dump = match dump {
        Looked::Plain(text) => return text.says(shop),
        Looked::Archive { input, .. } => input,
    };
    let servers = installed(shop.directories);
    let Some((newest, programs)) = servers.last_key_value() else {
        return Err(ServiceError::runner("no PostgreSQL is installed here; install postgresql below /usr", []));
    };
    let program = programs.join("pg_restore").display().to_string();
    let exit = shop.run(Job::new([program.as_str(), "--list", &dump.inside]).env("LC_ALL", "C")).await?;
    if !exit.success() {
        return Err(unlisted(&exit, *newest, step));
    }
    let mut says = Says::read(&String::from_utf8_lossy(&exit.stdout));
    let argv = [program.as_str(), "--section=pre-data", "--schema-only", "--file=-", &dump.inside];
    let beginning = shop.run(Job::new(argv).output(64 << 10)).await?;
    says.encoding = Says::read(&String::from_utf8_lossy(&beginning.stdout)).encoding;
    Ok(says)
}

fn unlisted(exit: &Exit, newest: u32, step: &PostgresStep) -> ServiceError {
    let output = crate::restore::tool::last_words(exit);
    let text = String::from_utf8_lossy(&exit.stderr).into_owned();
    if text.contains(NEWER_FORMAT) {
        let of = step.version.unwrap_or(newest);
        if step.version.is_some() {
            return format_too_new(of, output);
        }
        let reason =
            format!("the dump's format is newer than pg_restore of version {newest}, the newest installed here; install a newer one");
        return ServiceError::runner(reason, output);
    }
    ServiceError::backup(damage(&text), "pg_restore cannot list it", output)
}

/// What `pg_restore` says of an archive that a newer `pg_dump` made.
const NEWER_FORMAT: &str = "unsupported version";

fn format_too_new(version: u32, output: Vec<u8>) -> ServiceError {
    ServiceError::backup(ServiceProblem::NewerClient, format!("pg_restore of version {version} cannot read its format"), output)
}

/// What a client says of its input: a file of it is missing, it ends early, or is damaged.
fn damage(text: &str) -> ServiceProblem {
    if text.contains("could not open input file") {
        return ServiceProblem::FilesMissing;
    }
    // the second is how it says that what gzip packed ends early
    let early =
        ["end of file", "could not close data file", "unexpected end", "input file is too short"].iter().any(|words| text.contains(words));
    if early { ServiceProblem::InputTruncated } else { ServiceProblem::InputDamaged }
}

struct Loading<'a> {
    shop: &'a Shop<'a>,
    cluster: &'a Cluster,
    newer_client: bool,
}

impl Loading<'_> {
    async fn make_database(&self, name: &str, encoding: Option<&str>) -> Result<(), ServiceError> {
        if name == "postgres" {
            return Ok(());
        }
        let encoding = encoding.unwrap_or("UTF8");
        // any encoding goes with C; code points sort alike in both
        let locale = if encoding.eq_ignore_ascii_case("UTF8") { "C.UTF-8" } else { "C" };
        let identifier = name.replace('"', "\"\"");
        let sql = format!("create database \"{identifier}\" template template0 encoding '{encoding}' locale '{locale}'");
        let exit = self.shop.run(self.cluster.psql(Some("postgres"), "").args(["-c", &sql])).await?;
        if exit.success() {
            return Ok(());
        }
        let reason = format!("a database for the dump could not be made: psql {}", how(&exit));
        Err(ServiceError::runner(reason, crate::restore::tool::last_words(&exit)))
    }

    /// Loads a text of SQL and psql's own commands, to its end: all that is wrong is told, not the first alone.
    async fn plain(&self, dump: &Text, database: &str) -> Result<(), ServiceError> {
        let before = self.cluster.log_length(self.shop);
        let job = self.cluster.psql(Some(database), "").args(["--set=ON_ERROR_STOP=0"]);
        let job = if dump.has_line("CREATE TABLESPACE ") {
            // their places are the production host's: here they get places of the cluster's own
            job.through(&format!(
                "sed \"s/^\\(CREATE TABLESPACE .*\\) LOCATION '.*';\\$/\\1 LOCATION '';/\" '{}'",
                shell_quoted(&dump.input.inside)
            ))
        } else {
            job.args(["--file", &dump.input.inside])
        };
        let exit = self.shop.run(job.output(1 << 20)).await?;
        let client = String::from_utf8_lossy(&exit.stderr).lines().filter(|line| line.contains(": error: ")).count();
        self.judge(&exit, before, client as u64, "psql")
    }

    async fn archive(&self, dump: &Input, database: &str, jobs: u32) -> Result<(), ServiceError> {
        let before = self.cluster.log_length(self.shop);
        let argv = [
            self.cluster.program("pg_restore"),
            "--no-password".to_owned(),
            format!("--host={}", self.cluster.sockets),
            "--port=5432".to_owned(),
            format!("--username={}", self.cluster.user),
            format!("--dbname={}", quoted_connection(database)),
            format!("--jobs={jobs}"),
            dump.inside.clone(),
        ];
        let job = Job::new(argv).env("LC_ALL", "C").env("PGOPTIONS", self.cluster.session()).output(1 << 20);
        let exit = self.shop.run(job).await?;
        let failed = u64::from(!exit.success());
        self.judge(&exit, before, failed, "pg_restore")
    }

    /// What the server's log and the client's end say together.
    fn judge(&self, exit: &Exit, before: u64, client_errors: u64, client: &str) -> Result<(), ServiceError> {
        if let Some(full) = self.shop.sandbox.scratch_is_full() {
            return Err(full.into());
        }
        let log = self.cluster.log_since(self.shop, before);
        let errors = words::errors(&log);
        let missing = errors.iter().any(|e| ["42704", "42883"].contains(&e.state.as_str()));
        let extensions = if missing { self.cluster.extensions() } else { Extensions::default() };
        let judged: Vec<(Meaning, &LoggedError)> = errors
            .iter()
            .map(|e| (words::meaning(e, &self.cluster.user, self.newer_client, &extensions), e))
            .filter(|(m, _)| *m != Meaning::Nothing)
            .collect();
        let output = || [log.as_slice(), &crate::restore::tool::last_words(exit)].concat();
        let told = tally(judged.iter().map(|(_, e)| words::condition(&e.state)));
        let worst = worst(&judged.iter().map(|(m, _)| *m).collect::<Vec<_>>(), &output)?;
        if let Some(signal) = words::ended_by(&log) {
            let how = format!("a process of it was ended by signal {signal} while it was loaded");
            return Err(match is_from_outside(signal) {
                true => ServiceError::runner(format!("{how}, which nothing inside does by itself: look into the host's log"), output()),
                false => ServiceError::backup(ServiceProblem::Crashed, how, output()),
            });
        }
        let stderr = String::from_utf8_lossy(&exit.stderr);
        if client == "pg_restore" && stderr.contains(NEWER_FORMAT) {
            return Err(format_too_new(self.cluster.major, output()));
        }
        let input_broke = [
            "could not open input file",
            "could not close data file",
            "could not read from input file",
            "could not uncompress",
            "unexpected end of file",
            "corrupt",
            "out of sync",
            "could not find block",
        ];
        if client == "pg_restore" && !exit.success() && input_broke.iter().any(|words| stderr.contains(words)) {
            return Err(ServiceError::backup(damage(&stderr), format!("{client} {}", how(exit)), output()));
        }
        match worst {
            Some(problem) => {
                let advice = match problem {
                    ServiceProblem::RolesMissing => "; back up the roles as well (pg_dumpall --globals-only), and name them: globals = …",
                    ServiceProblem::TablespacesMissing => {
                        "; back up the tablespaces' names as well (pg_dumpall --globals-only): globals = …"
                    }
                    _ => "",
                };
                Err(ServiceError::backup(problem, format!("{} errors ({told}){advice}", judged.len()), output()))
            }
            None if exit.success() && client_errors == 0 => Ok(()),
            // psql goes on where the server only said what every cluster says
            None if client == "psql" && exit.success() && client_errors <= errors.len() as u64 => Ok(()),
            // so does pg_restore, and ends with status 1
            None if client == "pg_restore" && !errors.is_empty() && stderr.contains("errors ignored on restore: ") => Ok(()),
            None => Err(ServiceError::backup(ServiceProblem::LoadRefused, format!("{client} {}", how(exit)), output())),
        }
    }
}

fn shell_quoted(text: &str) -> String {
    text.replace('\'', "'\\''")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_says_who_made_it() {
        let plain = "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.8 (Debian 15.8-0+deb12u1)\n\
            -- Dumped by pg_dump version 17.2\n\nSET client_encoding = 'LATIN1';\n";
        let says = Says::read(plain);
        assert_eq!(
            (says.server.as_deref(), says.client.as_deref(), says.encoding.as_deref()),
            (Some("15.8"), Some("17.2"), Some("LATIN1"))
        );
        let listed = ";     dbname: ehr\n;     Dumped from database version: 15.8\n;     Dumped by pg_dump version: 15.8\n";
        let says = Says::read(listed);
        assert_eq!(says.database.as_deref(), Some("ehr"));
    }

    #[test]
    fn majors_are_leading_numbers() {
        assert_eq!((major("15.8"), major(": 16devel"), major("none")), (Some(15), Some(16), None));
    }
}
