//! Services and questions to them: from their tables to valid steps and checks.

use std::collections::{BTreeMap, BTreeSet};

use super::component::is_word;
use super::scenario::Reader;
use super::scenario_file::{RestoreTable, SqliteMadeByWord};
use crate::domain::{
    Comparison, MariaDbBackup, MariaDbStep, PostgresBackup, PostgresStep, RestoreStep, ServiceKind, ServiceStep, SqlAsk, SqlExpect,
    SqliteMadeBy, SqliteStep,
};

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
        let RestoreTable::Postgres { dump, globals, jobs, database, version, user, settings, .. } = table else { return None };
        if *jobs == Some(0) {
            self.wrong(&format!("{at}.jobs"), "nobody loads it", "write 1 or more, or leave it out");
        }
        self.settings(at, settings);
        let user = user.clone().unwrap_or_else(|| "postgres".to_owned());
        if user.is_empty() || user.contains(['"', '\n', '\0']) {
            self.wrong(&format!("{at}.user"), "this names no role", "write the superuser's name, as \"postgres\"");
        }
        let from = PostgresBackup::Dump { dump: dump.clone(), globals: globals.clone(), jobs: *jobs };
        Some(PostgresStep { from, database: database.clone(), version: *version, user, settings: settings.clone() })
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
        let RestoreTable::Mariadb { dump, base, incrementals, users, database, version, settings, .. } = table else { return None };
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
        Some(MariaDbStep { from, database: database.clone(), version: version.clone(), settings: settings.clone() })
    }

    fn settings(&mut self, at: &str, settings: &BTreeMap<String, String>) {
        for name in settings.keys() {
            let is_word = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
            if !is_word || settings[name].contains(['\n', '\0']) {
                self.wrong(&format!("{at}.settings"), format!("`{name}` is no setting"), "write a name and a value of one line");
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
