//! Services and questions to them: from their tables to valid steps and checks.

use std::collections::{BTreeMap, BTreeSet};

use super::component::is_word;
use super::reader::Reader;
use super::scenario_file::{BinlogTargetTable, BinlogTargetValue, RestoreTable, SqliteMadeByWord, TargetTable, TargetValue};
use crate::checks::Glob;
use crate::domain::{
    BinaryLogs, BinlogTarget, Comparison, MariaDbBackup, MariaDbStep, PhysicalBackup, PostgresBackup, PostgresStep, RecoveryTarget,
    RestoreStep, ServiceKind, ServiceStep, SqlAsk, SqlExpect, SqliteMadeBy, SqliteStep,
};

/// Settings of PostgreSQL that a drill depends on, by their names' beginnings: where the server is, who is let in, what it loads, runs,
/// waits for and says.
const OWN_SETTINGS: [&str; 42] = [
    "allow_in_place_tablespaces",
    "allow_system_table_mods",
    "archive_",
    "bonjour",
    "cluster_name",
    "config_file",
    "data_directory",
    "debug_",
    "default_transaction_read_only",
    "dynamic_library_path",
    "event_source",
    "external_pid_file",
    "hba_file",
    "hot_standby",
    "ident_file",
    "ignore_checksum_failure",
    "ignore_invalid_pages",
    "include",
    "jit_provider",
    "krb_",
    "lc_messages",
    "listen_addresses",
    "local_preload_libraries",
    "log_",
    "logging_collector",
    "oauth_",
    "port",
    "primary_",
    "promote_trigger_file",
    "recovery_",
    "restart_after_crash",
    "restore_command",
    "session_preload_libraries",
    "ssl",
    "ssl_",
    "standby_",
    "summarize_wal",
    "synchronous_standby_names",
    "syslog_",
    "trace_",
    "unix_socket_",
    "zero_damaged_pages",
];

impl Reader<'_> {
    pub(super) fn service(&mut self, at: &str, table: &RestoreTable) -> Option<ServiceStep> {
        let (name, kind) = match table {
            RestoreTable::Archive {} | RestoreTable::Tool { .. } => return None,
            RestoreTable::Postgres { name, .. } => {
                (name.as_deref().unwrap_or("postgres"), self.postgres(at, table).map(ServiceKind::Postgres))
            }
            RestoreTable::Sqlite { name, .. } => (name.as_deref().unwrap_or("sqlite"), self.sqlite(at, table).map(ServiceKind::Sqlite)),
            RestoreTable::Service { name, definition, .. } => {
                let built_in = definition.as_deref().filter(|name| !name.contains(['/', '.']));
                let kind = self.defined(at, table).map(|step| ServiceKind::Defined(Box::new(step)));
                (name.as_deref().or(built_in).unwrap_or("service"), kind)
            }
            RestoreTable::Mariadb { name, .. } => (name.as_deref().unwrap_or("mariadb"), self.mariadb(at, table).map(ServiceKind::MariaDb)),
        };
        if !is_word(name) {
            self.wrong(&format!("{at}.name"), format!("`{name}` cannot name a service"), "use 1 to 32 of a-z, 0-9, - and _");
        }
        Some(ServiceStep { name: name.to_owned(), kind: kind? })
    }

    /// Checks call services by name.
    pub(super) fn unique_services(&mut self, steps: &[Option<RestoreStep>]) {
        let mut seen = BTreeSet::new();
        for (number, step) in steps.iter().enumerate() {
            if let Some(RestoreStep::Service(step)) = step
                && !seen.insert(step.name.clone())
            {
                let at = format!("restore.{number}.name");
                self.wrong(&at, format!("two services are called `{}`", step.name), "give each a `name` of its own");
            }
        }
    }

    fn postgres(&mut self, at: &str, table: &RestoreTable) -> Option<PostgresStep> {
        let RestoreTable::Postgres { dump, base, database, version, user, settings, .. } = table else { return None };
        self.settings(at, settings);
        let user = user.clone().unwrap_or_else(|| "postgres".to_owned());
        if user.is_empty() || user.contains(['"', '\n', '\0']) {
            self.wrong(&format!("{at}.user"), "this names no role", "write the superuser's name, as \"postgres\"");
        }
        let from = match (dump, base) {
            (Some(dump), None) => self.dump(at, table, dump),
            (None, Some(base)) => self.physical(at, table, base),
            (Some(_), Some(_)) | (None, None) => {
                let advice = "write dump = \"*.dump\" for what pg_dump wrote, or base = \"base\" for what pg_basebackup wrote";
                self.wrong(at, "PostgreSQL starts on a `dump` or on a `base`", advice);
                None
            }
        };
        Some(PostgresStep { from: from?, database: database.clone(), version: *version, user, settings: settings.clone() })
    }

    fn dump(&mut self, at: &str, table: &RestoreTable, dump: &str) -> Option<PostgresBackup> {
        let RestoreTable::Postgres { globals, jobs, incrementals, wal, target, tablespaces, .. } = table else { return None };
        if *jobs == Some(0) {
            self.wrong(&format!("{at}.jobs"), "nobody loads it", "write 1 or more, or leave it out");
        }
        for (key, there) in [
            ("incrementals", !incrementals.is_empty()),
            ("wal", wal.is_some()),
            ("target", target.is_some()),
            ("tablespaces", !tablespaces.is_empty()),
        ] {
            if there {
                self.wrong(&format!("{at}.{key}"), format!("a dump has no `{key}`"), "write `base` where the backup is pg_basebackup's");
            }
        }
        self.tree_pattern(&format!("{at}.dump"), dump);
        globals.iter().for_each(|globals| self.tree_pattern(&format!("{at}.globals"), globals));
        Some(PostgresBackup::Dump { dump: dump.to_owned(), globals: globals.clone(), jobs: *jobs })
    }

    fn physical(&mut self, at: &str, table: &RestoreTable, base: &str) -> Option<PostgresBackup> {
        let RestoreTable::Postgres { globals, jobs, incrementals, wal, target, tablespaces, .. } = table else { return None };
        for (key, there) in [("globals", globals.is_some()), ("jobs", jobs.is_some())] {
            if there {
                self.wrong(&format!("{at}.{key}"), format!("a base backup has no `{key}`"), "leave it out");
            }
        }
        self.tree_pattern(&format!("{at}.base"), base);
        wal.iter().for_each(|wal| self.tree_pattern(&format!("{at}.wal"), wal));
        incrementals.iter().for_each(|incremental| self.tree_pattern(&format!("{at}.incrementals"), incremental));
        let mut places = BTreeMap::new();
        for (oid, place) in tablespaces {
            let place_at = format!("{at}.tablespaces.{oid}");
            self.tree_pattern(&place_at, place);
            match oid.parse::<u32>() {
                Ok(oid) => drop(places.insert(oid, place.clone())),
                Err(_) => self.wrong(&place_at, format!("`{oid}` is no OID"), "write the number that pg_tblspc names the tablespace by"),
            }
        }
        let target = match target {
            None => RecoveryTarget::Latest,
            Some(target) => self.target(&format!("{at}.target"), target)?,
        };
        let (base, incrementals, wal) = (base.to_owned(), incrementals.clone(), wal.clone());
        Some(PostgresBackup::Physical(PhysicalBackup { base, incrementals, wal, tablespaces: places, target }))
    }

    fn target(&mut self, at: &str, target: &TargetValue) -> Option<RecoveryTarget> {
        let advice = "write \"latest\", \"immediate\", { time = \"2026-11-20T02:00:00Z\" }, { lsn = \"16/B374D848\" } or { name = \"…\" }";
        match target {
            TargetValue::Word(word) if word == "latest" => Some(RecoveryTarget::Latest),
            TargetValue::Word(word) if word == "immediate" => Some(RecoveryTarget::Immediate),
            TargetValue::Point(TargetTable { time: Some(time), lsn: None, name: None, inclusive }) => {
                let at = self.parse(&format!("{at}.time"), time)?;
                Some(RecoveryTarget::Time { at, inclusive: inclusive.unwrap_or(true) })
            }
            TargetValue::Point(TargetTable { time: None, lsn: Some(lsn), name: None, inclusive }) => {
                let at = self.parse(&format!("{at}.lsn"), lsn)?;
                Some(RecoveryTarget::Lsn { at, inclusive: inclusive.unwrap_or(true) })
            }
            // PostgreSQL keeps 63 bytes of a name
            TargetValue::Point(TargetTable { time: None, lsn: None, name: Some(name), inclusive: None })
                if (1..64).contains(&name.len()) && !name.contains(['\n', '\0']) =>
            {
                Some(RecoveryTarget::Name(name.clone()))
            }
            TargetValue::Word(_) | TargetValue::Point(_) => {
                self.wrong(at, "this is no point to recover to", advice);
                None
            }
        }
    }

    fn tree_pattern(&mut self, at: &str, pattern: &str) {
        let whole = ["", "."].contains(&pattern.trim_start_matches("./").trim_end_matches('/'));
        if let Err(error) = Glob::new(pattern)
            && !whole
        {
            self.wrong(at, error.to_string(), "write a path or a glob below the restored root, as \"*.dump\" or \"base\"");
        }
    }

    fn sqlite(&mut self, at: &str, table: &RestoreTable) -> Option<SqliteStep> {
        let RestoreTable::Sqlite { file, dump, made_by, .. } = table else { return None };
        match (file, dump) {
            (Some(file), None) => {
                let made_by = match made_by {
                    None | Some(SqliteMadeByWord::Copy) => SqliteMadeBy::Copy,
                    Some(SqliteMadeByWord::Backup) => SqliteMadeBy::Backup,
                };
                Some(SqliteStep::File { file: file.clone(), made_by })
            }
            (None, Some(dump)) if made_by.is_none() => Some(SqliteStep::Dump { dump: dump.clone() }),
            (None, Some(_)) => {
                self.wrong(&format!("{at}.made_by"), "a dump is made by the shell's .dump", "remove `made_by`");
                None
            }
            _ => {
                self.wrong(at, "a database comes from its `file` or from a `dump`", "write file = \"*.db\", or dump = \"*.sql\"");
                None
            }
        }
    }

    fn mariadb(&mut self, at: &str, table: &RestoreTable) -> Option<MariaDbStep> {
        let RestoreTable::Mariadb { dump, base, incrementals, users, binlogs, target, database, version, settings, .. } = table else {
            return None;
        };
        self.settings(at, settings);
        if let Some(version) = version
            && !is_series(version)
        {
            self.wrong(&format!("{at}.version"), format!("`{version}` is no series of MariaDB"), "write two numbers, as \"10.11\"");
        }
        let from = match (dump, base) {
            (Some(dump), None) if incrementals.is_empty() => MariaDbBackup::Dump { dump: dump.clone(), users: users.clone() },
            (None, Some(base)) if users.is_none() => MariaDbBackup::Physical { base: base.clone(), increments: incrementals.clone() },
            _ => {
                let advice = "write dump = \"*.sql\", with `users` beside it; or base = \"base\", with its `incrementals`";
                self.wrong(at, "a server comes back from a `dump` or from a `base`", advice);
                return None;
            }
        };
        let logs = match (binlogs, target) {
            (None, None) => None,
            (Some(binlogs), target) => {
                self.tree_pattern(&format!("{at}.binlogs"), binlogs);
                let target = target.as_ref().map_or(Some(BinlogTarget::Latest), |t| self.binlog_target(&format!("{at}.target"), t))?;
                Some(BinaryLogs { binlogs: binlogs.clone(), target })
            }
            (None, Some(_)) => {
                let advice = "write which they are, as binlogs = \"binlogs\", or leave `target` out";
                self.wrong(&format!("{at}.target"), "without binary logs a backup comes back as it was taken", advice);
                None
            }
        };
        Some(MariaDbStep { from, logs, database: database.clone(), version: version.clone(), settings: settings.clone() })
    }

    fn binlog_target(&mut self, at: &str, target: &BinlogTargetValue) -> Option<BinlogTarget> {
        match target {
            BinlogTargetValue::Word(word) if word == "latest" => Some(BinlogTarget::Latest),
            BinlogTargetValue::Point(BinlogTargetTable { time: Some(time), position: None, gtid: None, inclusive }) => {
                let at = self.parse(&format!("{at}.time"), time)?;
                Some(BinlogTarget::Time { at, inclusive: inclusive.unwrap_or(true) })
            }
            BinlogTargetValue::Point(BinlogTargetTable { time: None, position: Some(position), gtid: None, inclusive: None }) => {
                Some(BinlogTarget::Position(self.parse(&format!("{at}.position"), position)?))
            }
            BinlogTargetValue::Point(BinlogTargetTable { time: None, position: None, gtid: Some(gtid), inclusive }) => {
                let at = self.parse(&format!("{at}.gtid"), gtid)?;
                Some(BinlogTarget::Gtid { at, inclusive: inclusive.unwrap_or(true) })
            }
            BinlogTargetValue::Word(_) | BinlogTargetValue::Point(_) => {
                let advice =
                    "write \"latest\", { time = \"2026-11-20T02:00:00Z\" }, { position = \"bin.000003:1234\" } or { gtid = \"0-7-120\" }";
                self.wrong(at, "this is no point to apply binary logs to", advice);
                None
            }
        }
    }

    fn settings(&mut self, at: &str, settings: &BTreeMap<String, String>) {
        for (name, value) in settings {
            let at = format!("{at}.settings");
            let is_word = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
            let lower = name.to_ascii_lowercase();
            let is_own = |own: &str| lower == own || (own.ends_with('_') && lower.starts_with(own));
            if !is_word || value.contains(['\n', '\0']) {
                self.wrong(&at, format!("`{name}` is no setting"), "write a name and a value of one line");
            } else if OWN_SETTINGS.iter().any(|own| is_own(own)) {
                self.wrong(&at, format!("`{name}` is firedrill's own to set"), "leave it out: the drill depends on it");
            } else if lower == "shared_preload_libraries"
                && !value.split(',').all(|library| {
                    let library = library.trim().strip_prefix("$libdir/").unwrap_or(library.trim());
                    library.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
                })
            {
                self.wrong(&at, "libraries are the host's own", "write their plain names, as \"pg_stat_statements\"");
            }
        }
    }

    pub(super) fn sql(
        &mut self,
        at: &str,
        query: Option<&String>,
        expect: Option<&String>,
        tables: &BTreeMap<String, String>,
    ) -> Option<SqlAsk> {
        match (query, expect) {
            (Some(query), Some(expect)) if tables.is_empty() => {
                let expect = match expect.strip_prefix("text:") {
                    Some(text) => SqlExpect::Text(text.trim().to_owned()),
                    None => SqlExpect::Number(self.parse(&format!("{at}.expect"), expect)?),
                };
                Some(SqlAsk::Query { query: query.clone(), expect })
            }
            (None, None) if !tables.is_empty() => {
                let read: Vec<(String, Option<Comparison>)> =
                    tables.iter().map(|(table, text)| (table.clone(), self.parse(&format!("{at}.tables.{table}"), text))).collect();
                let counts: Option<BTreeMap<_, _>> = read.into_iter().map(|(table, count)| Some((table, count?))).collect();
                counts.map(SqlAsk::Tables)
            }
            _ => {
                let advice = "write query = \"select count(*) …\" and expect = \">= 1000\", or tables = { patient = \">= 1000\" }";
                self.wrong(at, "the check asks one `query` with its `expect`, or counts `tables`", advice);
                None
            }
        }
    }
}

fn is_series(version: &str) -> bool {
    version.split_once('.').is_some_and(|(a, b)| [a, b].iter().all(|part| part.parse::<u32>().is_ok()))
}
