//! What `mariadb-dump` and `mysqldump` write: one database, several, or all of a server; with users beside it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::meaning::tally;
use super::super::usable::{Loaded, never_answered};
use super::super::{Input, Job, ServiceError, Shop, how};
use super::audit::Taken;
use super::judge::{LOADING, SUBSTITUTES, USERS, judge};
use super::replay::Replay;
use super::server::{START, SYSTEM, Series, Server, choose, quoted};
use super::words::{self, Skew};
use crate::domain::{BinaryLogs, BinlogPosition, MariaDbStep, ServiceProblem, Severity};

/// Bytes of a dump's beginning that are looked at.
const HEAD: u64 = 64 << 10;
/// Bytes of its end: it says there that it is whole.
const END: u64 = 4 << 10;

/// What a dump says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Says {
    /// Version of the server that was dumped.
    server: Option<String>,
    /// Version of the client that wrote it.
    client: Option<String>,
    /// The one database that was dumped.
    database: Option<String>,
    /// It makes its databases itself, or says which it is for.
    brings_databases: bool,
    /// It has the comments by which one knows how it was made.
    commented: bool,
    /// It saves settings at its beginning, which it gives back at its end.
    saves_settings: bool,
    /// Where in the binary logs it was taken.
    taken: Taken,
}

impl Says {
    fn read(head: &str) -> Self {
        let mut says = Self::default();
        for line in head.lines() {
            if let Some(version) = line.strip_prefix("-- Server version") {
                says.commented = true;
                let version = version.trim().trim_start_matches("5.5.5-");
                says.server = Some(version.to_owned()).filter(|v| !v.is_empty());
            } else if line.starts_with("-- MariaDB dump ") || line.starts_with("-- MySQL dump ") {
                says.client = line.split_once("Distrib ").and_then(|(_, rest)| rest.split(',').next()).map(|v| v.trim().to_owned());
                if says.client.is_none() {
                    // mysqldump of MySQL 8 names one version only
                    says.client = line.split_whitespace().nth(3).map(str::to_owned);
                }
            } else if let Some((_, database)) = line.strip_prefix("-- Host: ").and_then(|rest| rest.split_once("Database: ")) {
                says.database = Some(database.trim().to_owned()).filter(|name| !name.is_empty());
            } else if line.starts_with("CREATE DATABASE ") || line.starts_with("USE `") {
                says.brings_databases = true;
            } else if line.contains("@OLD_SQL_NOTES=@@SQL_NOTES") {
                says.saves_settings = true;
            }
        }
        says.places(head);
        says
    }

    /// What a part of it says of where it was taken: its beginning names a place, and its beginning or its end transactions.
    fn places(&mut self, text: &str) {
        let quoted = |text: &str| text.split('\'').nth(1).map(str::to_owned);
        for line in text.lines().map(|line| line.trim_start_matches("-- ")) {
            let place = line.starts_with("CHANGE MASTER ").then(|| line.split_once("MASTER_LOG_FILE=")).flatten();
            if let (Some((_, rest)), None) = (place, self.taken.at) {
                let at = rest.split_once("MASTER_LOG_POS=").map(|(_, at)| at.trim_end_matches(';'));
                self.taken.at = at.and_then(|at| format!("{}:{at}", quoted(rest)?).parse::<BinlogPosition>().ok());
            }
            if let (Some(gtids), true) = (line.strip_prefix("SET GLOBAL gtid_slave_pos="), self.taken.after.is_empty()) {
                self.taken.after =
                    quoted(gtids).iter().flat_map(|list| list.split(',')).filter_map(|gtid| gtid.trim().parse().ok()).collect();
            }
        }
    }

    fn is_of_mysql(&self) -> bool {
        self.server.as_ref().is_some_and(|version| !version.contains("MariaDB"))
    }
}

pub(super) async fn load(shop: &Shop<'_>, step: &MariaDbStep, dump: &str, users: Option<&str>) -> Result<Loaded<Server>, ServiceError> {
    let users = users.map(|pattern| shop.input(pattern)).transpose()?;
    let dumps = files(shop, dump, users.as_ref())?;
    let said = dumps.iter().map(|dump| look(shop, dump)).collect::<Result<Vec<_>, _>>()?;
    if let Some(users) = &users {
        look(shop, users)?;
    }
    let recorded = said.iter().find_map(|says| says.server.clone());
    let (skew, installed) = {
        let series = recorded.as_deref().and_then(Series::of);
        let mysql = said.iter().any(Says::is_of_mysql);
        let of_mariadb = series.filter(|_| !mysql);
        let installed = choose(shop, step.version.as_deref(), of_mariadb, false).await?;
        let client = said.iter().filter_map(|says| says.client.as_deref().and_then(Series::of)).max();
        let newer_client = !mysql && client.is_some_and(|client| client > installed.series);
        if let Some(recorded) = recorded.as_ref().filter(|_| series != Some(installed.series) || mysql) {
            let product = if mysql { "MySQL" } else { "MariaDB" };
            let how = format!("the backup is of {product} {recorded}, and is restored into MariaDB {}", installed.series);
            shop.remark(Severity::Warn, ServiceProblem::OtherVersion, how, []);
        }
        if let (true, Some(client)) = (newer_client, client) {
            let how = format!("by a client of series {client}, for a server of series {}", installed.series);
            shop.remark(Severity::Warn, ServiceProblem::NewerClient, how, []);
        }
        (Skew { foreign: mysql || of_mariadb.is_some_and(|series| series > installed.series), newer_client }, installed)
    };
    let brings = bring(shop, &dumps, &said).await?;
    let replay = match &step.logs {
        Some(logs) => Some(plan(shop, step, logs, &said, &brings).await?),
        None => None,
    };
    let data = shop.room("data")?;
    let mut own = step.settings.clone();
    // nothing of a fresh server has to survive a crash
    own.entry("innodb_doublewrite".to_owned()).or_insert_with(|| "0".to_owned());
    let mut server = Server::new(shop, installed, data, &BTreeMap::new(), &own)?;
    server.make(shop).await?;
    server.start_fresh(shop).await?;
    let mut loading = Loading { shop, server: &server, skew, users_came: users.is_some() };
    if let Some(users) = &users {
        // by whom a fresh server lets pass on what is his alone: rights to act in another's name
        loading.file(users, Some("mysql"), &["--user=root", "--password="]).await?;
    }
    for (dump, says) in dumps.iter().zip(&said) {
        let database = match (says.brings_databases, &says.database) {
            (true, _) => None,
            (false, Some(own)) if dumps.len() > 1 => Some(own.clone()),
            (false, own) => Some(step.database.clone().or_else(|| own.clone()).unwrap_or_else(|| "restored".to_owned())),
        };
        if let Some(database) = &database {
            loading.make_database(database).await?;
        }
        loading.file(dump, database.as_deref(), &[]).await?;
    }
    if loading.accounts_were_replaced().await? {
        loading.users_came = true;
        server.restart(shop, START).await?;
    }
    let binary_logs = match replay {
        Some(replay) => Some(replay.apply(shop, loading.server, skew).await?),
        None => None,
    };
    loading.every_view_answers().await?;
    loading.every_definer_is_there().await?;
    for (kinds, option) in left_out(&said, &brings) {
        let how = format!("it was written without {option}: {kinds} of the source, where it had any, are not in it");
        shop.remark(Severity::Warn, ServiceProblem::LeftOut, how, []);
    }
    server.database = step.database.clone();
    let mut method = match dumps.len() {
        1 => "a dump as SQL".to_owned(),
        n => format!("{n} dumps as SQL"),
    };
    if users.is_some() {
        method.push_str(", after its users");
    }
    if let Some(facts) = &binary_logs {
        method.push_str(&format!(", and binary logs up to {}", facts.target));
    }
    Ok(Loaded { binary_logs, ..Loaded::new(server, recorded, method) })
}

/// The binary logs that follow the dumps.
async fn plan(
    shop: &Shop<'_>,
    step: &MariaDbStep,
    logs: &BinaryLogs,
    said: &[Says],
    brings: &BTreeSet<String>,
) -> Result<Replay, ServiceError> {
    let taken = said.first().map(|says| says.taken.clone()).unwrap_or_default();
    if said.iter().any(|says| says.taken != taken) {
        let how = "its dumps were taken at different places in the binary logs, and each transaction would be in some of them: dump all \
                   databases at once";
        return Err(ServiceError::backup(ServiceProblem::InputUnusable, how, []));
    }
    let mut named = brings.iter().filter_map(|line| line.strip_prefix("-- Current Database: `")?.strip_suffix('`'));
    // the first of those that were asked for, where they were
    let first = said.first().and_then(|says| says.database.clone());
    let alone = match (said.iter().any(|says| says.brings_databases), named.next(), named.next()) {
        (false, ..) | (true, Some(_), None) => first,
        (true, ..) => None,
    };
    if let (Some(database), Some(alone)) = (&step.database, &alone)
        && database != alone
    {
        let reason = "binary logs name the database as the source had it: restore it under that name, leaving `database` out";
        return Err(ServiceError::runner(reason, []));
    }
    Replay::plan(shop, logs, &taken, alone).await
}

/// Lines by which the dumps themselves show what they bring: mariadb-dump has no routines and no events unless it is told, and writes
/// above them that it was.
async fn bring(shop: &Shop<'_>, dumps: &[Input], said: &[Says]) -> Result<BTreeSet<String>, ServiceError> {
    let script = "LC_ALL=C grep -a -o -h -E '^(-- Dumping (routines|events) for database|-- Current Database: `.*`|USE `mysql`;)' -- \"$@\" \
                  | sort -u";
    let mut argv: Vec<String> = ["bash", "-c", script, "look"].map(str::to_owned).to_vec();
    argv.extend(dumps.iter().zip(said).filter(|(_, says)| says.commented).map(|(dump, _)| dump.inside.clone()));
    if argv.len() == 4 {
        return Ok(BTreeSet::new());
    }
    let exit = shop.run(Job::new(argv)).await?;
    Ok(String::from_utf8_lossy(&exit.stdout).lines().map(str::to_owned).collect())
}

/// What they show to have been left out.
fn left_out(said: &[Says], brings: &BTreeSet<String>) -> Vec<(&'static str, &'static str)> {
    let kinds = [("routines", "functions and procedures", "--routines"), ("events", "events", "--events")];
    // a dump of the system's own database has them as rows
    let left = |word: &str| {
        let shown = format!("-- Dumping {word} for database");
        said.iter().any(|says| says.commented) && !brings.contains("USE `mysql`;") && !brings.contains(&shown)
    };
    kinds.into_iter().filter(|(word, ..)| left(word)).map(|(_, kinds, option)| (kinds, option)).collect()
}

/// The files that a pattern means; of a directory, those that are SQL.
fn files(shop: &Shop<'_>, pattern: &str, users: Option<&Input>) -> Result<Vec<Input>, ServiceError> {
    let mut found = shop.inputs(pattern)?;
    if let [directory] = found.as_slice()
        && directory.directory
    {
        found = shop.inputs(&format!("{}/*.sql", pattern.trim_end_matches('/')))?;
    }
    found.retain(|input| !input.directory && users.is_none_or(|users| users.path != input.path));
    if found.is_empty() {
        return Err(ServiceError::backup(ServiceProblem::InputMissing, format!("no file that was restored matches `{pattern}`"), []));
    }
    Ok(found)
}

/// Whether it is a dump, and whole; what it says of itself.
fn look(shop: &Shop<'_>, dump: &Input) -> Result<Says, ServiceError> {
    let head = shop.head(dump, HEAD);
    if head.is_empty() {
        return Err(ServiceError::backup(ServiceProblem::InputUnusable, "the dump has no bytes at all", []));
    }
    // no dump begins with zeros, but a file that a full disk has filled does
    if head.iter().take(512).any(|byte| *byte == 0) {
        return Err(ServiceError::backup(ServiceProblem::InputUnusable, "it is no SQL that mariadb-dump writes", []));
    }
    let mut says = Says::read(&String::from_utf8_lossy(&head));
    let end = shop.end(dump, END);
    let end = String::from_utf8_lossy(&end);
    says.places(&end);
    let completed = end.lines().any(|line| line.starts_with("-- Dump completed"));
    let gave_back = end.lines().any(|line| line.contains("SQL_NOTES=@OLD_SQL_NOTES"));
    if (says.commented && !completed) || (says.saves_settings && !gave_back) {
        let how = "the last lines that mariadb-dump writes, by which it says that the dump is complete, are not there";
        return Err(ServiceError::backup(ServiceProblem::InputTruncated, how, []));
    }
    Ok(says)
}

struct Loading<'a> {
    shop: &'a Shop<'a>,
    server: &'a Server,
    skew: Skew,
    users_came: bool,
}

impl Loading<'_> {
    fn client(&self) -> Result<Vec<String>, ServiceError> {
        let client = self.server.installed.needed("mariadb")?;
        Ok(vec![client, format!("--defaults-file={}", self.server.client)])
    }

    async fn make_database(&self, name: &str) -> Result<(), ServiceError> {
        let mut argv = self.client()?;
        argv.push(format!("--execute=create database if not exists {}", quoted(name)));
        let exit = self.shop.run(Job::new(argv)).await?;
        if exit.success() {
            return Ok(());
        }
        let reason = format!("a database for the dump could not be made: mariadb {}", how(&exit));
        Err(ServiceError::runner(reason, crate::restore::tool::last_words(&exit)))
    }

    /// Loads one file, to its end whatever the server says of parts of it: all of them are told.
    async fn file(&self, dump: &Input, database: Option<&str>, by: &[&str]) -> Result<(), ServiceError> {
        // client commands but DELIMITER mean nothing in binary mode: a dump cannot run programs by them
        let script = format!("\"${{@:2}}\" <\"$1\" | {SUBSTITUTES}; exit \"${{PIPESTATUS[0]}}\"");
        let mut argv: Vec<String> = ["bash", "-c", &script, "load", &dump.inside].map(str::to_owned).to_vec();
        argv.extend(self.client()?);
        argv.extend(["--force"].iter().chain(&LOADING).chain(by).map(|option| (*option).to_owned()));
        argv.extend(database.map(|name| format!("--database={name}")));
        let exit = self.shop.run(Job::new(argv)).await?;
        judge(self.shop, self.server, self.skew, &exit, "")
    }

    /// Whether the dump brought a table of accounts: it counts from the server's next start.
    async fn accounts_were_replaced(&self) -> Result<bool, ServiceError> {
        use super::super::AskError;
        let sql = format!("select count(*) from mysql.global_priv where User = '{}'", self.server.account);
        match self.server.query(self.shop, None, &sql).await {
            Ok(rows) => Ok(rows.0 != [vec![Some("1".to_owned())]]),
            Err(AskError::Sandbox(error)) => Err(error.into()),
            Err(_) => Ok(true),
        }
    }

    /// A view that calls what was not restored is made without a word, and answers nobody.
    async fn every_view_answers(&self) -> Result<(), ServiceError> {
        let sql = format!("select table_schema, table_name from information_schema.views where table_schema not in {SYSTEM}");
        let views = self.server.query(self.shop, None, &sql).await.map_err(|e| never_answered(e, self.server.log(self.shop)))?;
        let asked: String = views
            .0
            .iter()
            .filter_map(|row| match row.as_slice() {
                [Some(database), Some(view)] => Some(format!("select 1 from {}.{} limit 0;\n", quoted(database), quoted(view))),
                _ => None,
            })
            .collect();
        if asked.is_empty() {
            return Ok(());
        }
        let mut argv: Vec<String> = ["bash", "-c", "exec \"${@:2}\" <\"$1\"", "views"].map(str::to_owned).to_vec();
        argv.push(self.shop.write("etc", "views.sql", asked.as_bytes())?);
        argv.extend(self.client()?);
        argv.extend(["--force", "--batch"].map(str::to_owned));
        let exit = self.shop.run(Job::new(argv)).await?;
        let errors = words::errors(&exit.stderr);
        if errors.is_empty() {
            return Ok(());
        }
        let told = tally(errors.iter().map(|e| words::name(e.number)));
        let output = crate::restore::tool::last_words(&exit);
        let how = format!("{} of {} views ({told})", errors.len(), views.0.len());
        let only = |number| errors.iter().all(|e| e.number == number);
        let (problem, advice) = match () {
            () if only(1449) => (ServiceProblem::RolesMissing, USERS),
            () if only(1305) => (ServiceProblem::RoutinesMissing, ""),
            () => (ServiceProblem::LoadRefused, "; what they read or call was not restored"),
        };
        Err(ServiceError::backup(problem, format!("{how}{advice}"), output))
    }

    /// Objects run in the name of who defined them: without him, they do not run.
    async fn every_definer_is_there(&self) -> Result<(), ServiceError> {
        let sql = format!(
            "select kind, count(*) from (\
               select 'views' kind, definer from information_schema.views where security_type = 'DEFINER' and table_schema not in {SYSTEM} \
               union all select 'routines', definer from information_schema.routines \
                 where security_type = 'DEFINER' and routine_schema not in {SYSTEM} \
               union all select 'triggers', definer from information_schema.triggers where trigger_schema not in {SYSTEM} \
               union all select 'events', definer from information_schema.events where event_schema not in {SYSTEM}) of_someone \
             where not exists (select 1 from mysql.global_priv \
               where concat(User, '@', Host) = definer or (Host = '' and User = trim(trailing '@' from definer))) \
             group by kind order by kind"
        );
        let rows = self.server.query(self.shop, None, &sql).await.map_err(|e| never_answered(e, self.server.log(self.shop)))?;
        let kinds: BTreeSet<String> =
            rows.0.iter().filter_map(|row| Some(format!("{} {}", row.get(1)?.as_deref()?, row.first()?.as_deref()?))).collect();
        if kinds.is_empty() {
            return Ok(());
        }
        let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
        if self.users_came {
            // as the source had it: its own administrators left them so
            let how = format!("the users that define {kinds} are not among those that were restored");
            self.shop.remark(Severity::Warn, ServiceProblem::RolesMissing, how, []);
            return Ok(());
        }
        Err(ServiceError::backup(ServiceProblem::RolesMissing, format!("the users that define {kinds}{USERS}"), []))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_says_who_made_it() {
        let head = "/*M!999999\\- enable the sandbox mode */ \n-- MariaDB dump 10.19  Distrib 10.11.14-MariaDB, for debian-linux-gnu (x86_64)\n\
            --\n-- Host: localhost    Database: his\n-- ------\n-- Server version\t10.11.14-MariaDB-0+deb12u2-log\n\n\
            /*!40111 SET @OLD_SQL_NOTES=@@SQL_NOTES, SQL_NOTES=0 */;\n";
        let says = Says::read(head);
        assert_eq!(says.server.as_deref().and_then(Series::of), Some(Series(10, 11)));
        assert_eq!(says.client.as_deref(), Some("10.11.14-MariaDB"));
        assert_eq!(says.database.as_deref(), Some("his"));
        assert!(says.commented && says.saves_settings && !says.brings_databases && !says.is_of_mysql());
    }

    #[test]
    fn a_dump_of_mysql_is_told_apart() {
        let says = Says::read(
            "-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)\n-- Host: db    Database: \n-- Server version\t8.0.36\n\
             CREATE DATABASE /*!32312 IF NOT EXISTS*/ `his`;\n",
        );
        assert!(says.is_of_mysql() && says.brings_databases && says.database.is_none());
    }
}
