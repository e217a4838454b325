//! A throw-away cluster: found programs, made or taken over, started, shown to be ours, asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use super::super::meaning::tally;
use super::super::usable::{Started, never_answered};
use super::super::{AskError, Job, Rows, ServiceError, Shop, how};
use super::words::{self, Extensions};
use crate::domain::ServiceProblem;
use crate::restore::tool::is_from_outside;
use crate::sandbox::Exit;

/// The user that runs commands inside.
const INSIDE_USER: &str = "drill";
/// Room of the server's log.
pub(super) const LOG_ROOM: &str = "log";
/// Its file.
pub(super) const LOG: &str = "server.log";
/// Bytes of the log's end that are looked at.
const LOG_BYTES: u64 = 16 << 20;
/// Longest time that a server of a fresh cluster may take to start.
const START: Duration = Duration::from_secs(120);
/// Set aside of a drill's time, so that a server that does not start in time can be told from a drill that has none left.
const TO_LOOK: Duration = Duration::from_secs(4);

/// A cluster and how it is reached.
pub(super) struct Cluster {
    /// Directory of the server's programs.
    pub(super) programs: PathBuf,
    /// Major version of the server.
    pub(super) major: u32,
    /// The data directory, inside.
    pub(super) data: String,
    /// Directory of its socket, inside.
    pub(super) sockets: String,
    /// The superuser.
    pub(super) user: String,
    /// What checks ask where they name no database.
    pub(super) database: Option<String>,
    /// What the server was called at its start, by which it is known again.
    pub(super) called: String,
}

/// Installed servers: directories of their programs, by major version.
pub(super) fn installed(directories: &[PathBuf]) -> BTreeMap<u32, PathBuf> {
    let mut found = BTreeMap::new();
    let mut add = |major: Option<u32>, programs: PathBuf| {
        if let Some(major) = major
            && programs.join("postgres").is_file()
        {
            found.entry(major).or_insert(programs);
        }
    };
    let leading = |name: &str| name.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    let inside = |directory: &Path| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.filter_map(|e| e.file_name().into_string().ok().map(|name| (name, e.path()))).collect::<Vec<_>>()
    };
    // as Debian and as the PostgreSQL project's packages for other distributions lay them out; and so below a scenario's directories
    for base in directories.iter().map(PathBuf::as_path).chain([Path::new("/usr/lib/postgresql")]) {
        inside(base).into_iter().for_each(|(name, path)| add(leading(&name), path.join("bin")));
    }
    for (name, path) in inside(Path::new("/usr")) {
        add(name.strip_prefix("pgsql-").and_then(leading), path.join("bin"));
    }
    found
}

/// The server for a backup of `recorded`, or of the version that the scenario insists on.
pub(super) fn choose(wanted: Option<u32>, recorded: Option<u32>, directories: &[PathBuf]) -> Result<(u32, PathBuf), ServiceError> {
    let servers = installed(directories);
    let have = servers.keys().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let Some(major) = wanted.or(recorded).or_else(|| servers.keys().next_back().copied()) else {
        return Err(ServiceError::runner("no PostgreSQL server is installed here; install postgresql below /usr", []));
    };
    match servers.get(&major) {
        Some(programs) => Ok((major, programs.clone())),
        None => {
            let have = if have.is_empty() { "none is".to_owned() } else { format!("installed here: {have}") };
            let reason = format!(
                "the backup wants a PostgreSQL {major} server, and {have}; install postgresql-{major}, or say in the scenario \
                 which version to restore into: version = …"
            );
            Err(ServiceError::runner(reason, []))
        }
    }
}

impl Cluster {
    /// A place for a cluster, not made yet.
    pub(super) fn new(shop: &Shop<'_>, major: u32, programs: PathBuf, data: String, user: &str) -> Result<Self, ServiceError> {
        let sockets = shop.room("run")?;
        shop.room(LOG_ROOM)?;
        let called = format!("firedrill-{}", shop.nonce);
        Ok(Self { programs, major, data, sockets, user: user.to_owned(), database: None, called })
    }

    pub(super) fn program(&self, name: &str) -> String {
        self.programs.join(name).display().to_string()
    }

    /// What the extensions that are installed here bring.
    pub(super) fn extensions(&self) -> Extensions {
        // where Debian, and where the PostgreSQL project's packages and its own sources put them
        let debian = PathBuf::from(format!("/usr/share/postgresql/{}", self.major));
        let places = [debian, self.programs.join("../share"), self.programs.join("../share/postgresql")];
        let mut scripts = String::new();
        for entry in places.iter().flat_map(|place| std::fs::read_dir(place.join("extension")).into_iter().flatten().flatten()) {
            if entry.path().extension().is_some_and(|e| e == "sql") {
                scripts.push_str(&std::fs::read_to_string(entry.path()).unwrap_or_default());
            }
        }
        Extensions::of(&scripts)
    }

    /// Makes an empty cluster.
    pub(super) async fn make(&self, shop: &Shop<'_>) -> Result<(), ServiceError> {
        let argv = [
            self.program("initdb"),
            format!("--pgdata={}", self.data),
            format!("--username={}", self.user),
            "--auth=peer".to_owned(),
            "--encoding=UTF8".to_owned(),
            "--locale=C.UTF-8".to_owned(),
            "--no-sync".to_owned(),
        ];
        let exit = shop.run(Job::new(argv)).await?;
        self.ours(shop, "initdb", &exit)
    }

    /// A step of ours that no backup can make fail.
    fn ours(&self, shop: &Shop<'_>, what: &str, exit: &Exit) -> Result<(), ServiceError> {
        if exit.success() {
            return Ok(());
        }
        if let Some(full) = shop.sandbox.scratch_is_full() {
            return Err(full.into());
        }
        Err(ServiceError::runner(format!("{what} {}", how(exit)), crate::restore::tool::last_words(exit)))
    }

    /// Settings that every throw-away server has: alone, in its own rooms, never archiving, never waiting for a disk.
    pub(super) fn settings(&self, shop: &Shop<'_>) -> Result<BTreeMap<String, String>, ServiceError> {
        let rules = shop.write("etc", "pg_hba.conf", b"local all all peer map=drill\n")?;
        let map = shop.write("etc", "pg_ident.conf", format!("drill {INSIDE_USER} \"{}\"\n", self.user).as_bytes())?;
        let mib = |bytes: u64, least: u64, most: u64| format!("{}MB", (bytes >> 20).clamp(least, most));
        let mut settings = BTreeMap::new();
        let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
        set("cluster_name", self.called.clone());
        set("data_directory", self.data.clone());
        set("hba_file", rules);
        set("ident_file", map);
        set("external_pid_file", String::new());
        set("listen_addresses", String::new());
        set("unix_socket_directories", self.sockets.clone());
        set("port", "5432".to_owned());
        set("ssl", "off".to_owned());
        set("shared_buffers", mib(shop.memory / 8, 16, 512));
        set("maintenance_work_mem", mib(shop.memory / 8 / u64::from(shop.processors.max(1)), 32, 512));
        set("dynamic_shared_memory_type", "mmap".to_owned());
        for (name, value) in [
            ("fsync", "off"),
            ("synchronous_commit", "off"),
            ("full_page_writes", "off"),
            ("archive_mode", "off"),
            ("archive_command", ""),
            ("restore_command", ""),
            ("primary_conninfo", ""),
            ("synchronous_standby_names", ""),
            ("shared_preload_libraries", ""),
            ("session_preload_libraries", ""),
            ("local_preload_libraries", ""),
            ("autovacuum", "off"),
            ("max_wal_size", "1GB"),
            ("checkpoint_timeout", "1h"),
            ("jit", "off"),
            ("logging_collector", "off"),
            ("log_destination", "stderr"),
            ("log_min_messages", "warning"),
            ("log_min_error_statement", "panic"),
            ("log_statement", "none"),
            ("log_duration", "off"),
            ("log_line_prefix", words::LOG_PREFIX),
            ("lc_messages", "C"),
            ("event_source", "PostgreSQL"),
        ] {
            set(name, value.to_owned());
        }
        Ok(settings)
    }

    /// Starts the server with these settings alone. Answers when it takes connections.
    pub(super) async fn start(&self, shop: &Shop<'_>, settings: &BTreeMap<String, String>, time: Duration) -> Result<(), ServiceError> {
        let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "''");
        let lines: String = settings.iter().map(|(name, value)| format!("{name} = '{}'\n", quoted(value))).collect();
        let file = shop.write("etc", "postgresql.conf", lines.as_bytes())?;
        let left = || time.min((shop.left)().saturating_sub(TO_LOOK));
        let time = left();
        // what stands on the command line cannot be set otherwise, not even by what the data directory brings
        let options = format!("-c config_file={file} -c cluster_name={} -c data_directory={}", self.called, self.data);
        let argv = [
            self.program("pg_ctl"),
            "start".to_owned(),
            format!("--pgdata={}", self.data),
            format!("--log={}/{LOG_ROOM}/{LOG}", shop.home()),
            "--wait".to_owned(),
            format!("--timeout={}", time.as_secs().max(1)),
            "--silent".to_owned(),
            format!("--options={options}"),
        ];
        let mut exit = shop.run(Job::new(argv).within(time + TO_LOOK)).await?;
        if exit.success() {
            exit = shop.run(self.awaited(left())).await?;
        }
        if exit.success() {
            return Ok(());
        }
        if let Some(full) = shop.sandbox.scratch_is_full() {
            return Err(full.into());
        }
        let mut output = self.log(shop);
        let said = [exit.stdout.as_slice(), exit.stderr.as_slice()].concat();
        let in_time = !String::from_utf8_lossy(&said).contains("in time");
        output.extend(said);
        let problem = if in_time { ServiceProblem::Crashed } else { ServiceProblem::NeverReady };
        let errors = words::errors(&output);
        let told = tally(errors.iter().map(|error| words::condition(&error.state)));
        let how = if told.is_empty() { how(&exit) } else { format!("its log has {told}") };
        Err(ServiceError::backup(problem, how, output))
    }

    /// Waits until the server takes connections, or is gone: for `pg_ctl`, one that still recovers is up.
    fn awaited(&self, time: Duration) -> Job {
        let wait = "while true; do
            left=$(($4 - SECONDS))
            \"$1\" --quiet --host=\"$2\" --port=5432 --timeout=$((left < 1 ? 1 : left < 5 ? left : 5)) && break
            pid=$(head -n 1 \"$3/postmaster.pid\" 2>/dev/null) && kill -0 \"$pid\" 2>/dev/null || { echo 'the server is gone' >&2; exit 1; }
            [ $left -gt 0 ] || { echo 'the server takes no connections in time' >&2; exit 1; }
            sleep 0.05
        done";
        let time = time.as_secs().max(1).to_string();
        Job::new(["bash", "-c", wait, "bash", &self.program("pg_isready"), &self.sockets, &self.data, &time])
    }

    /// Starts the server of a cluster that was made here.
    pub(super) async fn start_fresh(&self, shop: &Shop<'_>, own: &BTreeMap<String, String>) -> Result<(), ServiceError> {
        let mut settings = self.settings(shop)?;
        settings.insert("wal_level".to_owned(), "minimal".to_owned());
        settings.insert("max_wal_senders".to_owned(), "0".to_owned());
        if self.major >= 15 {
            settings.insert("allow_in_place_tablespaces".to_owned(), "on".to_owned());
        }
        settings.extend(own.clone());
        match self.start(shop, &settings, START).await {
            // nothing of the backup is in it yet
            Err(ServiceError::Backup { how, output, .. }) => {
                Err(ServiceError::runner(format!("a fresh PostgreSQL server does not start: {how}; see `settings`"), output))
            }
            other => other,
        }
    }

    /// The end of the server's log.
    pub(super) fn log(&self, shop: &Shop<'_>) -> Vec<u8> {
        self.log_since(shop, 0)
    }

    /// How far the log has come.
    pub(super) fn log_length(&self, shop: &Shop<'_>) -> u64 {
        shop.length(LOG_ROOM, LOG)
    }

    /// What was logged since then.
    pub(super) fn log_since(&self, shop: &Shop<'_>, offset: u64) -> Vec<u8> {
        shop.since(LOG_ROOM, LOG, offset, LOG_BYTES)
    }

    /// Asks one query that changes nothing.
    pub(super) async fn query(&self, shop: &Shop<'_>, database: Option<&str>, sql: &str) -> Result<Rows, AskError> {
        self.query_under(shop, database, "", sql, None).await
    }

    /// Likewise, under more settings, and keeping so many bytes of the answer.
    pub(super) async fn query_under(
        &self,
        shop: &Shop<'_>,
        database: Option<&str>,
        settings: &str,
        sql: &str,
        bytes: Option<usize>,
    ) -> Result<Rows, AskError> {
        let null = format!("null-{}", shop.nonce);
        let mut job = self.psql(database, &format!("-c default_transaction_read_only=on {settings}"));
        if let Some(bytes) = bytes {
            job = job.output(bytes);
        }
        let exit = shop.run(job.args(["--csv", "--tuples-only", "-P", &format!("null={null}"), "-c", sql])).await?;
        if !exit.success() {
            return Err(self.refusal(shop, &exit));
        }
        let exit = exit.whole()?;
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(exit.stdout.as_slice());
        let rows = reader.records().map(|record| {
            let record = record.map_err(|_| AskError::BadQuestion { reason: "the answer is no text".to_owned(), output: Vec::new() })?;
            Ok(record.iter().map(|value| (value != null).then(|| value.to_owned())).collect())
        });
        Ok(Rows(rows.collect::<Result<_, AskError>>()?))
    }

    /// Its client, as far as options go.
    pub(super) fn psql(&self, database: Option<&str>, options: &str) -> Job {
        let database = database.or(self.database.as_deref()).unwrap_or("postgres");
        let argv = [
            self.program("psql"),
            "--no-psqlrc".to_owned(),
            "--quiet".to_owned(),
            "--no-password".to_owned(),
            format!("--host={}", self.sockets),
            "--port=5432".to_owned(),
            format!("--username={}", self.user),
            format!("--dbname={}", quoted_connection(database)),
            "--set=VERBOSITY=verbose".to_owned(),
            "--set=ON_ERROR_STOP=1".to_owned(),
        ];
        let options = format!("{} {options}", self.session());
        Job::new(argv).env("PGOPTIONS", options).env("PGCONNECT_TIMEOUT", "10").env("PGCLIENTENCODING", "UTF8")
    }

    /// Options of every session: what the backup's roles and databases set for sessions of their own cuts no question of ours short, and
    /// hides no error. What their queries mean (search_path and its like) stays theirs.
    pub(super) fn session(&self) -> String {
        let mut settings = vec![
            "statement_timeout=0",
            "lock_timeout=0",
            "session_preload_libraries=",
            "local_preload_libraries=",
            "lc_messages=C",
            "log_min_messages=warning",
            "log_min_error_statement=panic",
        ];
        if self.major >= 17 {
            settings.push("transaction_timeout=0");
        }
        settings.iter().map(|setting| format!("-c {setting}")).collect::<Vec<_>>().join(" ")
    }

    /// Why a client's question was not answered.
    pub(super) fn refusal(&self, shop: &Shop<'_>, exit: &Exit) -> AskError {
        if let Some(full) = shop.sandbox.scratch_is_full() {
            return full.into();
        }
        let output = crate::restore::tool::last_words(exit);
        let log = self.log(shop);
        // who is not let in is told why without a code: the log has it
        let state = words::state_of(&exit.stderr).or_else(|| words::turned_away(&exit.stderr, &log));
        match state {
            Some(words::State { text, .. }) if text.starts_with("database locale is incompatible") => {
                let reason = "a locale that the backup names is not installed here: generate it on this host (locale-gen)";
                AskError::BadQuestion { reason: reason.to_owned(), output }
            }
            Some(words::State { code, .. }) if code.starts_with("28") => {
                let reason = format!("`{}` is not let in: say which superuser the backup has: user = …", self.user);
                AskError::BadQuestion { reason, output }
            }
            Some(words::State { code, .. }) if ["42601", "42501", "25006", "57014"].contains(&code.as_str()) || code.starts_with("53") => {
                AskError::BadQuestion { reason: format!("the question cannot be asked ({})", words::condition(&code)), output }
            }
            Some(words::State { code, .. }) => AskError::Refused { state: words::condition(&code), output },
            None if words::ended_by(&log).is_some_and(|signal| !is_from_outside(signal)) => {
                AskError::Refused { state: "the server crashed".to_owned(), output: log }
            }
            None => AskError::BadQuestion { reason: format!("the server does not answer: psql {}", how(exit)), output },
        }
    }
}

#[async_trait]
impl Started for Cluster {
    fn program(&self) -> PathBuf {
        self.programs.join("postgres")
    }

    fn database(&mut self) -> &mut Option<String> {
        &mut self.database
    }

    async fn prove_identity(&self, shop: &Shop<'_>) -> Result<(String, String), ServiceError> {
        let sql = "select current_setting('server_version'), current_setting('cluster_name'), current_setting('data_directory'), \
                   (select system_identifier from pg_control_system())";
        let rows = self.query(shop, Some("template1"), sql).await.map_err(|e| never_answered(e, self.log(shop)))?;
        let [version, called, data, system] = match rows.0.into_iter().next().map(TryInto::try_into) {
            Some(Ok(row)) => row,
            _ => return Err(ServiceError::backup(ServiceProblem::NeverReady, "it says nothing of itself", self.log(shop))),
        };
        let exit = shop.run(Job::new([self.program("pg_controldata"), self.data.clone()]).env("LC_ALL", "C")).await?;
        let on_disk = controldata(&exit.stdout).remove("Database system identifier");
        if called.as_ref() != Some(&self.called) || data.as_ref() != Some(&self.data) || system.is_none() || system != on_disk {
            let how = "its name, data directory or system identifier are not those of the server started here";
            return Err(ServiceError::backup(ServiceProblem::WrongServer, how, self.log(shop)));
        }
        let identity = "it bears the name given to it at its start, and the data directory and system identifier on scratch".to_owned();
        Ok((version.unwrap_or_default(), identity))
    }

    async fn largest_database(&self, shop: &Shop<'_>) -> Result<Option<String>, ServiceError> {
        let sql = "select datname from pg_database where datallowconn and not datistemplate \
                   order by datname = 'postgres', pg_database_size(oid) desc limit 1";
        let rows = self.query(shop, Some("template1"), sql).await.map_err(|e| never_answered(e, self.log(shop)))?;
        Ok(rows.0.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }

    async fn has_a_row(&self, shop: &Shop<'_>) -> Result<bool, ServiceError> {
        let sql = "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                   where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\\_toast%' \
                   and pg_relation_size(c.oid) > 0 order by pg_relation_size(c.oid) desc limit 20";
        let said = |e| never_answered(e, self.log(shop));
        for row in self.query(shop, None, sql).await.map_err(said)?.0 {
            let Some(Some(table)) = row.into_iter().next() else { continue };
            let rows = self.query(shop, None, &format!("select 1 from {table} limit 1")).await.map_err(said)?;
            if !rows.0.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A database's name that is no connection string.
pub(super) fn quoted_connection(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// `pg_controldata`'s lines.
pub(super) fn controldata(output: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(output);
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_not_installed_is_no_fault_of_the_backup() {
        let error = choose(None, Some(3), &[]).unwrap_err();
        assert_eq!(error.blame(), crate::domain::Cause::Runner);
        assert!(error.to_string().contains("PostgreSQL 3"), "{error}");
    }
}
