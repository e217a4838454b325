//! What `mariadb-backup` writes, prepared and started in place: a full backup as a directory or a stream, increments after it; or a
//! data directory as it lay on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::time::Duration;

use super::super::usable::Loaded;
use super::super::{Input, Job, ServiceError, Shop, how};
use super::audit::Taken;
use super::replay::Replay;
use super::server::{Installed, Series, Server, choose};
use super::words::{self, Skew};
use crate::domain::{BinlogPosition, MariaDbStep, ServiceProblem, Severity};
use crate::sandbox::Exit;

/// Longest time that a server may take to start on files that it has to recover.
const RECOVERY: Duration = Duration::from_secs(3600);
/// What a stream of mariadb-backup begins with.
const STREAM: &[u8] = b"XBSTCK01";
/// Files by which mariadb-backup says what it wrote, of newer and of older versions.
const CHECKPOINTS: [&str; 2] = ["mariadb_backup_checkpoints", "xtrabackup_checkpoints"];
const INFO: [&str; 2] = ["mariadb_backup_info", "xtrabackup_info"];
const PLACE: [&str; 2] = ["mariadb_backup_binlog_info", "xtrabackup_binlog_info"];
/// Settings in a backup without which its files cannot be read.
const LAYOUT: [&str; 7] = [
    "innodb_page_size",
    "innodb_data_file_path",
    "innodb_undo_tablespaces",
    "innodb_checksum_algorithm",
    "innodb_compression_level",
    "innodb_log_file_size",
    "lower_case_table_names",
];

/// A directory of a backup, and what it says of itself.
struct Part {
    /// As programs inside see it.
    place: String,
    checkpoints: BTreeMap<String, String>,
    info: BTreeMap<String, String>,
    settings: BTreeMap<String, String>,
    /// Where in the binary logs it was taken.
    taken: Taken,
    /// Names of binary logs in it, in order.
    logs: Vec<String>,
}

impl Part {
    /// A number of its checkpoints.
    fn lsn(&self, name: &str) -> Option<u64> {
        self.checkpoints.get(name)?.parse().ok()
    }

    fn is_increment(&self) -> bool {
        self.checkpoints.get("backup_type").is_some_and(|kind| kind == "incremental")
    }
}

pub(super) async fn load(shop: &Shop<'_>, step: &MariaDbStep, base: &str, increments: &[String]) -> Result<Loaded<Server>, ServiceError> {
    let base = part(shop, step, base, "base").await?;
    let mut increments_read = Vec::new();
    for (number, pattern) in increments.iter().enumerate() {
        increments_read.push(part(shop, step, pattern, &format!("increment-{}", number + 1)).await?);
    }
    let increments = increments_read;
    follows(&base, &increments)?;
    let last = increments.last().unwrap_or(&base);
    let recorded = last.info.get("server_version").cloned();
    let series = recorded.as_deref().and_then(Series::of);
    if let Some(recorded) = recorded.as_ref().filter(|version| !version.contains("MariaDB")) {
        let reason = format!("the backup is of a server of version {recorded}, whose files MariaDB does not read; back up as a dump");
        return Err(ServiceError::runner(reason, []));
    }
    let installed = choose(shop, step.version.as_deref(), series, true).await?;
    if let (Some(recorded), true) = (&recorded, series.is_some_and(|series| series != installed.series)) {
        let how = format!("the backup is of version {recorded}, and the scenario restores it into series {}", installed.series);
        shop.remark(Severity::Warn, ServiceProblem::OtherVersion, how, []);
    }
    let replay = match &step.logs {
        Some(logs) => Some(Replay::plan(shop, logs, &last.taken, None).await?),
        None => None,
    };
    let by_tool = !base.checkpoints.is_empty();
    let mut method = if by_tool { "mariadb-backup".to_owned() } else { "a copy of the data directory".to_owned() };
    // files of a server are its own alone to write, and those of a backup need not be
    let exit = shop.run(Job::new(["chmod", "-R", "u+rwX", &base.place])).await?;
    ended_well(shop, "chmod", &exit)?;
    if by_tool {
        prepare(shop, &installed, &base, None).await?;
        for increment in &increments {
            let exit = shop.run(Job::new(["chmod", "-R", "u+rwX", &increment.place])).await?;
            ended_well(shop, "chmod", &exit)?;
            prepare(shop, &installed, &base, Some(increment)).await?;
        }
        match increments.len() {
            0 => method.push_str(", prepared"),
            1 => method.push_str(", prepared with an increment"),
            n => method.push_str(&format!(", prepared with {n} increments")),
        }
        every_page_has_its_checksum(shop, &installed, &base).await?;
    }
    let mut layout = base.settings.clone();
    if let Some(last) = base.logs.last() {
        // whether what was prepared when the server was copied was committed, its last binary log says
        let index: String = base.logs.iter().map(|log| format!("{}/{log}\n", base.place)).collect();
        let name = last.rsplit_once('.').map_or(last.as_str(), |(name, _)| name);
        layout.insert("log_bin".to_owned(), format!("{}/{name}", base.place));
        layout.insert("log_bin_index".to_owned(), shop.write("etc", "binary-logs.index", index.as_bytes())?);
    }
    let server = Server::new(shop, installed, base.place.clone(), &layout, &step.settings)?;
    server.start(shop, RECOVERY).await?;
    let binary_logs = match replay {
        Some(replay) => Some(replay.apply(shop, &server, Skew::default()).await?),
        None => None,
    };
    if let Some(facts) = &binary_logs {
        method.push_str(&format!(", and binary logs up to {}", facts.target));
    }
    let mut server = server;
    server.database = step.database.clone();
    Ok(Loaded { binary_logs, ..Loaded::new(server, recorded, method) })
}

/// A part of the backup: a directory, or a stream that is unpacked first.
async fn part(shop: &Shop<'_>, step: &MariaDbStep, pattern: &str, room: &str) -> Result<Part, ServiceError> {
    let input = shop.input(pattern)?;
    if input.directory {
        let read = |names: &[&str]| names.iter().find_map(|name| below(shop, &input, name)).unwrap_or_default();
        let part = Part { logs: own_logs(shop, &input)?, ..describe(&input.inside, &read) };
        return recognised(shop, &input, part);
    }
    if shop.head(&input, STREAM.len() as u64) != STREAM {
        let how = "it is no directory, and no stream of mariadb-backup (xbstream)";
        return Err(ServiceError::backup(ServiceProblem::InputUnusable, how, []));
    }
    let installed = choose(shop, step.version.as_deref(), None, false).await?;
    let mbstream = installed.needed("mbstream")?;
    let place = shop.room(room)?;
    let script = "exec \"$1\" -x -C \"$2\" <\"$3\"";
    let exit = shop.run(Job::new(["bash", "-c", script, "unpack", &mbstream, &place, &input.inside])).await?;
    if !exit.success() {
        if let Some(full) = shop.sandbox.scratch_is_full() {
            return Err(full.into());
        }
        let output = crate::restore::tool::last_words(&exit);
        return Err(ServiceError::backup(ServiceProblem::InputDamaged, format!("mbstream {}", how(&exit)), output));
    }
    let read = |names: &[&str]| {
        let found = names.iter().map(|name| shop.since(room, name, 0, 64 << 10)).find(|bytes| !bytes.is_empty());
        String::from_utf8_lossy(&found.unwrap_or_default()).into_owned()
    };
    let part = describe(&place, &read);
    if part.checkpoints.is_empty() {
        // they are written last
        let how = "mariadb-backup's own checkpoints, which it writes last, are not in the stream";
        return Err(ServiceError::backup(ServiceProblem::InputTruncated, how, []));
    }
    Ok(part)
}

/// The binary logs that a data directory has: those that stand beside an index of their name, which relays of others' logs have, too.
fn own_logs(shop: &Shop<'_>, directory: &Input) -> Result<Vec<String>, ServiceError> {
    let depth = directory.path.depth() + 1;
    let files = shop.files_below(directory)?.into_iter().filter(|file| file.path.depth() == depth);
    let names: BTreeSet<String> = files.filter_map(|file| Some(file.path.as_path().file_name()?.to_str()?.to_owned())).collect();
    let mut indexed = names.iter().filter_map(|name| name.strip_suffix(".index")).filter(|name| !name.contains("relay"));
    let (Some(name), None) = (indexed.next(), indexed.next()) else { return Ok(Vec::new()) };
    let is_log = |log: &&String| log.strip_prefix(name).is_some_and(|end| end.starts_with('.')) && BinlogPosition::number_of(log).is_some();
    let mut logs: Vec<String> = names.iter().filter(is_log).cloned().collect();
    logs.sort_by_key(|log| BinlogPosition::number_of(log));
    Ok(logs)
}

/// A text file below a directory of the restored tree.
fn below(shop: &Shop<'_>, directory: &Input, name: &str) -> Option<String> {
    let mut text = String::new();
    shop.open_below(directory, name).ok()?.take(64 << 10).read_to_string(&mut text).ok()?;
    Some(text)
}

fn describe(place: &str, read: &dyn Fn(&[&str]) -> String) -> Part {
    let pairs = |text: String| -> BTreeMap<String, String> {
        text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.trim().to_owned(), v.trim().to_owned())).collect()
    };
    let mut settings = pairs(read(&["backup-my.cnf"]));
    settings.retain(|name, value| LAYOUT.contains(&name.as_str()) && !value.is_empty());
    let mut info = pairs(read(&INFO));
    if info.is_empty() {
        // a server's own word in its data directory, as `10.11.14-MariaDB`
        let version = read(&["mariadb_upgrade_info", "mysql_upgrade_info"]);
        let version = version.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        if !version.is_empty() {
            info.insert("server_version".to_owned(), version.to_owned());
        }
    }
    let taken = taken(&read(&PLACE));
    Part { place: place.to_owned(), checkpoints: pairs(read(&CHECKPOINTS)), info, settings, taken, logs: Vec::new() }
}

/// As `bin.000001`, `1425` and `0-7-6`, with tabs between.
fn taken(text: &str) -> Taken {
    let mut words = text.split_whitespace();
    let at = words.next().zip(words.next()).and_then(|(log, at)| format!("{log}:{at}").parse().ok());
    let after = words.next().iter().flat_map(|list| list.split(',')).filter_map(|gtid| gtid.parse().ok()).collect();
    Taken { at, after }
}

/// A directory is a backup where it has what makes one.
fn recognised(shop: &Shop<'_>, input: &Input, part: Part) -> Result<Part, ServiceError> {
    let has = |name: &str| shop.open_below(input, name).is_ok();
    let system = part.settings.get("innodb_data_file_path").and_then(|path| path.split(':').next()).unwrap_or("ibdata1").to_owned();
    if part.is_increment() {
        return Ok(part);
    }
    if !has(&system) && part.checkpoints.is_empty() {
        let how = "it has neither mariadb-backup's checkpoints nor InnoDB's system tablespace";
        return Err(ServiceError::backup(ServiceProblem::InputUnusable, how, []));
    }
    // before MariaDB 10.5 there were several, of the same first name
    for (file, what) in [(system.as_str(), "InnoDB's system tablespace"), ("ib_logfile0", "InnoDB's redo log")] {
        if !has(file) {
            return Err(ServiceError::backup(ServiceProblem::InputDamaged, format!("{what} ({file}) is missing"), []));
        }
    }
    Ok(part)
}

/// Increments begin where what is before them ends.
fn follows(base: &Part, increments: &[Part]) -> Result<(), ServiceError> {
    if base.is_increment() {
        let how = "what is named as its base is an increment";
        return Err(ServiceError::backup(ServiceProblem::InputUnusable, how, []));
    }
    let mut until = base.lsn("to_lsn");
    for (number, increment) in increments.iter().enumerate() {
        let number = number + 1;
        if !increment.is_increment() {
            let how = format!("increment {number} of {} is none", increments.len());
            return Err(ServiceError::backup(ServiceProblem::InputUnusable, how, []));
        }
        let from = increment.lsn("from_lsn");
        if from.is_none() || from != until {
            let lsn = |lsn: Option<u64>| lsn.map_or_else(|| "nowhere".to_owned(), |lsn| format!("at LSN {lsn}"));
            let how = format!("increment {number} begins {}, and what is before it ends {}", lsn(from), lsn(until));
            return Err(ServiceError::backup(ServiceProblem::LogHole, how, []));
        }
        until = increment.lsn("to_lsn");
    }
    Ok(())
}

/// Has the redo log bring the files to one moment.
async fn prepare(shop: &Shop<'_>, installed: &Installed, base: &Part, increment: Option<&Part>) -> Result<(), ServiceError> {
    let mut argv = vec![
        installed.needed("mariadb-backup")?,
        "--no-defaults".to_owned(),
        "--prepare".to_owned(),
        format!("--target-dir={}", base.place),
        format!("--use-memory={}M", ((shop.memory / 6) >> 20).clamp(32, 4096)),
    ];
    argv.extend(increment.map(|part| format!("--incremental-dir={}", part.place)));
    let exit = shop.run(Job::new(argv).env("TMPDIR", shop.room("tmp")?)).await?;
    if exit.success() {
        return Ok(());
    }
    if let Some(full) = shop.sandbox.scratch_is_full() {
        return Err(full.into());
    }
    let output = crate::restore::tool::last_words(&exit);
    if let Some(lacks) = words::host_lacks(&output) {
        return Err(ServiceError::runner(lacks, output));
    }
    let what = if increment.is_some() { "an increment" } else { "it" };
    Err(ServiceError::backup(ServiceProblem::InputDamaged, format!("mariadb-backup --prepare of {what} {}", how(&exit)), output))
}

/// A server reads a page when somebody asks for it: rot elsewhere would go unnoticed.
async fn every_page_has_its_checksum(shop: &Shop<'_>, installed: &Installed, base: &Part) -> Result<(), ServiceError> {
    let program = installed.needed("innochecksum")?;
    // one file at a time, as it ends at the first one that is damaged
    // and of the system's tablespace not its doublewrite buffer, which holds what was written last, whole or not
    let script = r#"check='case "$1" in
                    */ibdata1) "$0" -e 63 "$1" && "$0" -s 192 "$1";;
                    *) "$0" "$1";;
                    esac || echo "DAMAGED $1"'
                    find "$2" -type f \( -name '*.ibd' -o -name ibdata1 -o -name 'undo[0-9]*' \) -size +0 -print0 \
                    | xargs -0 -r -n 1 -P "$3" bash -c "$check" "$1""#;
    let processors = shop.processors.max(1).to_string();
    let exit = shop.run(Job::new(["bash", "-c", script, "pages", &program, &base.place, &processors])).await?;
    ended_well(shop, "innochecksum", &exit)?;
    let damaged = String::from_utf8_lossy(&exit.stdout).lines().filter(|line| line.starts_with("DAMAGED ")).count();
    if damaged == 0 {
        return Ok(());
    }
    let how = format!("{damaged} of its files have pages without their checksums");
    Err(ServiceError::backup(ServiceProblem::InputDamaged, how, crate::restore::tool::last_words(&exit)))
}

fn ended_well(shop: &Shop<'_>, what: &str, exit: &Exit) -> Result<(), ServiceError> {
    if exit.success() {
        return Ok(());
    }
    if let Some(full) = shop.sandbox.scratch_is_full() {
        return Err(full.into());
    }
    Err(ServiceError::runner(format!("{what} {}", how(exit)), crate::restore::tool::last_words(exit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: &str, from: u64, to: u64) -> Part {
        let text = format!("backup_type = {kind}\nfrom_lsn = {from}\nto_lsn = {to}\n");
        describe("/data", &move |names: &[&str]| match names {
            names if *names == CHECKPOINTS => text.clone(),
            ["backup-my.cnf"] => "[mysqld]\ninnodb_page_size=16384\ninnodb_undo_directory=./\nplugin_load=x\n".to_owned(),
            _ => String::new(),
        })
    }

    #[test]
    fn increments_begin_where_what_is_before_them_ends() {
        let base = part("full-backuped", 0, 100);
        assert!(follows(&base, &[part("incremental", 100, 150), part("incremental", 150, 151)]).is_ok());
        let hole = follows(&base, &[part("incremental", 150, 151)]).unwrap_err();
        assert!(matches!(hole, ServiceError::Backup { problem: ServiceProblem::LogHole, .. }), "{hole}");
        assert!(follows(&base, &[part("full-backuped", 0, 150)]).is_err());
        assert!(follows(&part("incremental", 100, 150), &[]).is_err());
    }

    #[test]
    fn of_a_backups_settings_only_its_layout_is_taken() {
        let part = part("full-backuped", 0, 100);
        // what would load code or change places is not taken
        assert_eq!(part.settings.keys().collect::<Vec<_>>(), ["innodb_page_size"]);
    }
}
