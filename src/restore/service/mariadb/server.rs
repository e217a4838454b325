//! A throw-away server: found, made or taken over, started, shown to be ours, asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use super::super::usable::{Started, never_answered};
use super::super::{AskError, Job, Rows, ServiceError, Shop, how};
use super::words;
use crate::domain::ServiceProblem;
use crate::sandbox::{Ended, Exit};

/// Room of the server's log.
const LOG_ROOM: &str = "log";
/// Its file.
const LOG: &str = "server.log";
/// Bytes of the log's end that are looked at.
const LOG_BYTES: u64 = 4 << 20;
/// Longest time that a server without anything to recover may take to start.
pub(super) const START: Duration = Duration::from_secs(120);
/// Databases that are no one's data.
pub(super) const SYSTEM: &str = "('information_schema', 'mysql', 'performance_schema', 'sys')";

/// Two leading numbers of a version: servers of one series read each other's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series(pub(super) u32, pub(super) u32);

impl Series {
    pub(super) fn of(version: &str) -> Option<Self> {
        let mut numbers = version.split(|c: char| !c.is_ascii_digit());
        Some(Self(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// An installed server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installed {
    /// Its program.
    pub(super) server: PathBuf,
    pub(super) series: Series,
}

impl Installed {
    /// A program that comes with it, or the host's own of that name.
    pub(super) fn program(&self, name: &str) -> Option<String> {
        let home = self.server.parent().unwrap_or(Path::new("/"));
        let above = home.parent().unwrap_or(Path::new("/"));
        let mut places = vec![home.to_owned(), above.join("bin"), above.join("scripts"), above.join("sbin")];
        places.extend(["/usr/bin", "/usr/sbin"].map(PathBuf::from));
        places.into_iter().map(|place| place.join(name)).find(|path| path.is_file()).map(|path| path.display().to_string())
    }

    /// Likewise, where nothing can be done without.
    pub(super) fn needed(&self, name: &str) -> Result<String, ServiceError> {
        let reason = || {
            format!("`{name}` is not installed here; install the package that brings it (mariadb-server, mariadb-client, mariadb-backup)")
        };
        self.program(name).ok_or_else(|| ServiceError::runner(reason(), []))
    }
}

/// The servers of this host, those in the scenario's directories first; each is asked for its version inside.
async fn installed(shop: &Shop<'_>) -> Result<Vec<Installed>, ServiceError> {
    let own = shop.directories.iter().flat_map(|d| [d.clone(), d.join("bin"), d.join("sbin")]);
    let usual = ["/usr/sbin", "/usr/bin", "/usr/libexec", "/usr/local/sbin", "/usr/local/bin", "/usr/local/mysql/bin"].map(PathBuf::from);
    let mut found = Vec::new();
    for server in own.chain(usual).map(|place| place.join("mariadbd")).filter(|path| path.is_file()) {
        let exit = shop.run(Job::new([server.display().to_string(), "--version".to_owned()])).await?;
        let said = String::from_utf8_lossy(&exit.stdout).into_owned();
        let series = said.split_once("Ver ").and_then(|(_, version)| Series::of(version));
        if let (true, Some(series)) = (said.contains("MariaDB"), series) {
            found.push(Installed { server, series });
        }
    }
    Ok(found)
}

/// The server for a backup of `recorded`, or of the series that the scenario insists on; `strict` where no other one can read it.
pub(super) async fn choose(
    shop: &Shop<'_>,
    wanted: Option<&str>,
    recorded: Option<Series>,
    strict: bool,
) -> Result<Installed, ServiceError> {
    let servers = installed(shop).await?;
    let Some(newest) = servers.iter().max_by_key(|s| s.series) else {
        return Err(ServiceError::runner("no MariaDB server is installed here; install mariadb-server below /usr", []));
    };
    let of = |series: Series| servers.iter().find(|s| s.series == series);
    let have = || servers.iter().map(|s| s.series.to_string()).collect::<Vec<_>>().join(", ");
    let lacking = |series: Series| {
        let reason = format!(
            "the backup wants a MariaDB {series} server, and installed here: {}; install that series, or say in the scenario \
             which to restore into: version = …",
            have()
        );
        ServiceError::runner(reason, [])
    };
    match (wanted.and_then(Series::of), recorded) {
        (Some(wanted), _) => of(wanted).ok_or_else(|| lacking(wanted)).cloned(),
        (None, Some(recorded)) if strict => of(recorded).ok_or_else(|| lacking(recorded)).cloned(),
        (None, recorded) => Ok(recorded.and_then(of).unwrap_or(newest).clone()),
    }
}

/// A server and how it is reached.
pub(super) struct Server {
    pub(super) installed: Installed,
    /// The data directory, inside.
    pub(super) data: String,
    /// Its socket, inside.
    socket: String,
    /// What it is called at its start.
    called: String,
    /// Its client's configuration, inside: who asks, by which password.
    pub(super) client: String,
    /// Its own, inside.
    config: String,
    /// The account that is made at every start.
    pub(super) account: String,
    /// What checks ask where they name no database.
    pub(super) database: Option<String>,
}

impl Server {
    /// A place for a server; `own` are the scenario's settings, `layout` those without which its files cannot be read.
    pub(super) fn new(
        shop: &Shop<'_>,
        installed: Installed,
        data: String,
        layout: &BTreeMap<String, String>,
        own: &BTreeMap<String, String>,
    ) -> Result<Self, ServiceError> {
        let run = shop.room("run")?;
        shop.room(LOG_ROOM)?;
        let temporary = shop.room("tmp")?;
        let files = shop.room("files")?;
        // who knows the word that this drill drew has asked the server that was started with it
        let (called, account) = (format!("firedrill-{}", shop.nonce), format!("firedrill-{}", &shop.nonce[..8.min(shop.nonce.len())]));
        let (socket, password) = (format!("{run}/socket"), &shop.nonce);
        let accounts = format!(
            "CREATE OR REPLACE USER `{account}`@`localhost` IDENTIFIED BY '{password}';\n\
             GRANT ALL PRIVILEGES ON *.* TO `{account}`@`localhost` WITH GRANT OPTION;\n"
        );
        let accounts = shop.write("etc", "accounts.sql", accounts.as_bytes())?;
        let client = format!(
            "[client]\nsocket = {socket}\nuser = {account}\npassword = {password}\nloose-default-character-set = utf8mb4\n\
             loose-max-allowed-packet = 1G\nloose-local-infile = 0\n"
        );
        let client = shop.write("etc", "client.cnf", client.as_bytes())?;
        let forced = [
            ("datadir", data.as_str()),
            ("socket", &socket),
            ("pid_file", &format!("{run}/pid")),
            ("tmpdir", &temporary),
            ("secure_file_priv", &files),
            ("init_file", &accounts),
            ("report_host", &called),
            ("skip_networking", "1"),
            ("skip_name_resolve", "1"),
            ("skip_slave_start", "1"),
            ("local_infile", "0"),
            // a restored system must not act
            ("event_scheduler", "OFF"),
        ];
        let mut settings = tuned(shop);
        let word = |name: &str| name.replace('-', "_").to_ascii_lowercase();
        settings.extend(layout.iter().map(|(name, value)| (word(name), value.clone())));
        settings.extend(own.iter().map(|(name, value)| (word(name), value.clone())));
        settings.extend(forced.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        settings.extend((!layout.contains_key("log_bin")).then(|| ("skip_log_bin".to_owned(), "1".to_owned())));
        let lines: String = settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        let config = shop.write("etc", "server.cnf", format!("[mariadbd]\n{lines}").as_bytes())?;
        Ok(Self { installed, data, socket, called, client, config, account, database: None })
    }

    /// Makes an empty data directory.
    pub(super) async fn make(&self, shop: &Shop<'_>) -> Result<(), ServiceError> {
        let argv = [
            self.installed.needed("mariadb-install-db")?,
            format!("--defaults-file={}", self.config),
            "--auth-root-authentication-method=normal".to_owned(),
            "--skip-test-db".to_owned(),
            "--skip-name-resolve".to_owned(),
            "--force".to_owned(),
        ];
        let exit = shop.run(Job::new(argv)).await?;
        if exit.success() {
            return Ok(());
        }
        if let Some(full) = shop.sandbox.scratch_is_full() {
            return Err(full.into());
        }
        let output = [crate::restore::tool::last_words(&exit), self.log(shop)].concat();
        Err(ServiceError::runner(format!("mariadb-install-db {}; see `settings`", how(&exit)), output))
    }

    /// Starts the server, and waits so long until it takes its own account's connections, but no longer than the drill lasts.
    pub(super) async fn start(&self, shop: &Shop<'_>, time: Duration) -> Result<(), ServiceError> {
        const DIED: i32 = 3;
        const LATE: i32 = 4;
        let log = format!("{}/{LOG_ROOM}/{LOG}", shop.home());
        let script = format!(
            "\"$1\" --defaults-file=\"$2\" </dev/null >>\"$3\" 2>&1 & server=$!
             until \"$4\" --defaults-file=\"$5\" --connect-timeout=5 -e 'select 1' >/dev/null 2>&1; do
               kill -0 $server 2>/dev/null || exit {DIED}
               [ $SECONDS -lt {} ] || exit {LATE}
               sleep 0.1
             done",
            time.as_secs()
        );
        let server = self.installed.server.display().to_string();
        let client = self.installed.needed("mariadb")?;
        let argv = ["bash", "-c", &script, "start", &server, &self.config, &log, &client, &self.client];
        let exit = shop.run(Job::new(argv).within(time + Duration::from_secs(10))).await?;
        if exit.success() {
            return Ok(());
        }
        if let Some(full) = shop.sandbox.scratch_is_full() {
            return Err(full.into());
        }
        let log = self.log(shop);
        match exit.ended {
            Ended::Status(DIED) => match (words::host_lacks(&log), words::undecided(&log)) {
                (Some(lacks), _) => Err(ServiceError::runner(lacks, log)),
                (None, Some(how)) => Err(ServiceError::backup(ServiceProblem::LogHole, how, log)),
                (None, None) => Err(ServiceError::backup(ServiceProblem::Crashed, words::of_log(&log), log)),
            },
            _ => Err(ServiceError::backup(ServiceProblem::NeverReady, words::of_log(&log), log)),
        }
    }

    /// Starts the server on a data directory that was made here.
    pub(super) async fn start_fresh(&self, shop: &Shop<'_>) -> Result<(), ServiceError> {
        match self.start(shop, START).await {
            // nothing of the backup is in it yet
            Err(ServiceError::Backup { how, output, .. }) => {
                Err(ServiceError::runner(format!("a fresh MariaDB server does not start: {how}; see `settings`"), output))
            }
            other => other,
        }
    }

    /// Stops the server and starts it again: it takes up restored accounts, and ours are made anew.
    pub(super) async fn restart(&self, shop: &Shop<'_>, time: Duration) -> Result<(), ServiceError> {
        let pid = format!("{}/run/pid", shop.home());
        let script = "pid=$(cat \"$1\") && kill -TERM $pid && while kill -0 $pid 2>/dev/null; do sleep 0.05; done";
        let exit = shop.run(Job::new(["bash", "-c", script, "stop", &pid])).await?;
        if !exit.success() {
            let output = [crate::restore::tool::last_words(&exit), self.log(shop)].concat();
            return Err(ServiceError::backup(ServiceProblem::Crashed, "it ended by itself", output));
        }
        self.start(shop, time).await
    }

    /// The end of the server's log.
    pub(super) fn log(&self, shop: &Shop<'_>) -> Vec<u8> {
        shop.since(LOG_ROOM, LOG, 0, LOG_BYTES)
    }

    /// Asks one query that changes nothing.
    pub(super) async fn query(&self, shop: &Shop<'_>, database: Option<&str>, sql: &str) -> Result<Rows, AskError> {
        let client = self.installed.needed("mariadb").map_err(|e| AskError::BadQuestion { reason: e.to_string(), output: Vec::new() })?;
        let mut argv = vec![
            client,
            format!("--defaults-file={}", self.client),
            "--xml".to_owned(),
            "--init-command=SET SESSION TRANSACTION READ ONLY".to_owned(),
            format!("--execute={sql}"),
        ];
        if let Some(database) = database.or(self.database.as_deref()) {
            argv.push(format!("--database={database}"));
        }
        let exit = shop.run(Job::new(argv).output(64 << 20)).await?;
        if !exit.success() {
            return Err(self.refusal(shop, &exit));
        }
        Ok(Rows(words::rows(&String::from_utf8_lossy(&exit.whole()?.stdout))))
    }

    /// Why a client's question was not answered.
    fn refusal(&self, shop: &Shop<'_>, exit: &Exit) -> AskError {
        if let Some(full) = shop.sandbox.scratch_is_full() {
            return full.into();
        }
        let output = crate::restore::tool::last_words(exit);
        let errors = words::errors(&exit.stderr);
        match errors.first() {
            Some(error) if words::LOST.contains(&error.number) => {
                let log = self.log(shop);
                if words::crashed(&log) {
                    return AskError::Refused { state: "the server crashed".to_owned(), output: log };
                }
                AskError::BadQuestion { reason: format!("the server does not answer ({})", words::name(error.number)), output }
            }
            Some(error) if words::is_of_the_question(error.number) => {
                AskError::BadQuestion { reason: format!("the question cannot be asked ({})", words::name(error.number)), output }
            }
            Some(error) => AskError::Refused { state: words::name(error.number), output },
            None => AskError::BadQuestion { reason: format!("its client {}", how(exit)), output },
        }
    }
}

#[async_trait]
impl Started for Server {
    fn program(&self) -> PathBuf {
        self.installed.server.clone()
    }

    fn database(&mut self) -> &mut Option<String> {
        &mut self.database
    }

    async fn prove_identity(&self, shop: &Shop<'_>) -> Result<(String, String), ServiceError> {
        let sql = "select @@version, @@report_host, @@datadir, @@socket, substring_index(current_user(), '@', 1)";
        let rows = self.query(shop, None, sql).await.map_err(|e| never_answered(e, self.log(shop)))?;
        let [version, called, data, socket, account] = match rows.0.into_iter().next().map(TryInto::try_into) {
            Some(Ok(row)) => row,
            _ => return Err(ServiceError::backup(ServiceProblem::NeverReady, "it says nothing of itself", self.log(shop))),
        };
        let same = |said: &Option<String>, ours: &str| said.as_deref().map(|s| s.trim_end_matches('/')) == Some(ours);
        if !(same(&called, &self.called) && same(&data, &self.data) && same(&socket, &self.socket) && same(&account, &self.account)) {
            let how = "its name, data directory, socket or account are not those of the server started here";
            return Err(ServiceError::backup(ServiceProblem::WrongServer, how, self.log(shop)));
        }
        let identity = "it took a password drawn for this drill, of an account made at its start, and bears the name and data \
                        directory given to it";
        Ok((version.unwrap_or_default(), identity.to_owned()))
    }

    async fn largest_database(&self, shop: &Shop<'_>) -> Result<Option<String>, ServiceError> {
        let sql = format!(
            "select table_schema from information_schema.tables where table_type = 'BASE TABLE' and table_schema not in {SYSTEM} \
             group by table_schema order by sum(data_length + index_length) desc, table_schema limit 1"
        );
        let rows = self.query(shop, None, &sql).await.map_err(|e| never_answered(e, self.log(shop)))?;
        Ok(rows.0.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }

    async fn has_a_row(&self, shop: &Shop<'_>) -> Result<bool, ServiceError> {
        let of = match &self.database {
            Some(database) => format!("table_schema = {}", text(database)),
            None => format!("table_schema not in {SYSTEM}"),
        };
        let sql = format!(
            "select table_schema, table_name from information_schema.tables where table_type = 'BASE TABLE' and {of} \
             order by data_length desc limit 50"
        );
        let said = |e| never_answered(e, self.log(shop));
        for row in self.query(shop, None, &sql).await.map_err(said)?.0 {
            let [Some(database), Some(table)] = row.as_slice() else { continue };
            let one = format!("select 1 from {}.{} limit 1", quoted(database), quoted(table));
            let rows = self.query(shop, None, &one).await.map_err(said)?;
            if !rows.0.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Settings that suit a server whose data ends with the drill.
fn tuned(shop: &Shop<'_>) -> BTreeMap<String, String> {
    let mib = |bytes: u64, least: u64, most: u64| format!("{}M", (bytes >> 20).clamp(least, most));
    let mut settings = BTreeMap::new();
    let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
    set("innodb_buffer_pool_size", mib(shop.memory / 6, 32, 4096));
    set("innodb_log_file_size", mib(shop.memory / 16, 16, 512));
    for (name, value) in [
        ("innodb_flush_log_at_trx_commit", "0"),
        ("innodb_flush_method", "nosync"),
        ("innodb_use_native_aio", "0"),
        ("innodb_buffer_pool_dump_at_shutdown", "0"),
        ("innodb_buffer_pool_load_at_startup", "0"),
        ("innodb_read_io_threads", "2"),
        ("innodb_write_io_threads", "2"),
        ("innodb_purge_threads", "1"),
        ("innodb_stats_auto_recalc", "0"),
        ("performance_schema", "OFF"),
        ("max_allowed_packet", "1G"),
        ("max_connections", "20"),
        ("sync_frm", "0"),
        ("log_warnings", "1"),
        ("log_output", "NONE"),
    ] {
        set(name, value.to_owned());
    }
    settings
}

/// A name as statements have it.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text as statements have it.
pub(super) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_two_numbers() {
        assert_eq!(Series::of("10.11.14-MariaDB-0+deb12u2"), Some(Series(10, 11)));
        assert_eq!(Series::of("8.0.36"), Some(Series(8, 0)));
        assert_eq!(Series::of("none"), None);
        assert!(Series(10, 11) > Series(10, 6) && Series(11, 4) > Series(10, 11));
    }

    #[test]
    fn names_and_texts_stay_names_and_texts() {
        assert_eq!((quoted("a`b"), text("it's \\")), ("`a``b`".to_owned(), "'it''s \\\\'".to_owned()));
    }
}
