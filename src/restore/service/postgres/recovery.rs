//! Recovery: the WAL is read before the server starts, the server recovers to the target, and then it has to be where the WAL says
//! that it should be.

use std::collections::BTreeMap;

use super::super::usable::never_answered;
use super::super::{Input, Job, ServiceError, Shop};
use super::archive::{Archive, Audit, Fault};
use super::cluster::Cluster;
use super::physical::Label;
use super::wal::{Wanted, place};
use super::words;
use crate::domain::{Lsn, PhysicalBackup, PostgresStep, RecoveryFacts, RecoveryTarget, ServiceProblem, Severity, Timestamp};

/// What `pg_controldata` says.
#[derive(Debug, Clone)]
pub(super) struct Control {
    said: BTreeMap<String, String>,
    segment: u64,
    page: usize,
    system: u64,
    redo: Lsn,
    timeline: u32,
}

impl Control {
    pub(super) fn read(said: BTreeMap<String, String>) -> Option<Self> {
        let (segment, page) = (said.get("Bytes per WAL segment")?.parse().ok()?, said.get("WAL block size")?.parse().ok()?);
        let system = said.get("Database system identifier")?.parse().ok()?;
        let redo = said.get("Latest checkpoint's REDO location")?.parse().ok()?;
        let timeline = said.get("Latest checkpoint's TimeLineID")?.parse().ok()?;
        let sizes = u64::is_power_of_two(segment) && segment >= 1 << 20 && usize::is_power_of_two(page) && page >= 1 << 10;
        sizes.then_some(Self { said, segment, page, system, redo, timeline })
    }

    /// Whether the server had ended when its files were copied.
    pub(super) fn shut_down(&self) -> bool {
        self.said.get("Database cluster state").is_some_and(|state| state.starts_with("shut down"))
    }

    /// Settings that recovery depends on, at least as the server had them that wrote the WAL.
    fn settings(&self) -> impl Iterator<Item = (&'static str, String)> {
        let names = [
            ("max_connections", "max_connections setting", 100),
            ("max_worker_processes", "max_worker_processes setting", 8),
            ("max_wal_senders", "max_wal_senders setting", 10),
            ("max_prepared_transactions", "max_prepared_xacts setting", 0),
            ("max_locks_per_transaction", "max_locks_per_xact setting", 64),
        ];
        names.into_iter().map(|(name, said, least)| {
            let had = self.said.get(said).and_then(|value| value.parse::<u64>().ok()).unwrap_or_default();
            (name, had.max(least).to_string())
        })
    }
}

/// Recovers a data directory to the target; what needs no recovery is started.
pub(super) async fn recover(
    shop: &Shop<'_>,
    step: &PostgresStep,
    backup: &PhysicalBackup,
    cluster: &Cluster,
    base: &Input,
    control: &Control,
    label: Option<&Label>,
) -> Result<Option<RecoveryFacts>, ServiceError> {
    let mut settings = cluster.settings(shop)?;
    settings.extend(control.settings().map(|(name, value)| (name.to_owned(), value)));
    // the server is asked when it has arrived, not on its way
    settings.insert("hot_standby".to_owned(), "off".to_owned());
    if label.is_none() && backup.wal.is_none() {
        if !matches!(backup.target, RecoveryTarget::Latest | RecoveryTarget::Immediate) {
            let reason =
                "a copy without backup_label and without an archive of WAL cannot be recovered to a point: say target = \"latest\"";
            return Err(ServiceError::runner(reason, []));
        }
        settings.extend(step.settings.clone());
        start(shop, cluster, &settings).await?;
        return Ok(None);
    }
    let (from, timeline) = label.map_or((control.redo, control.timeline), |label| (label.start, label.timeline));
    let mut archive = Archive::new(control.segment, control.page, control.system);
    if let Some(wal) = &backup.wal {
        let directory = shop.input(wal)?;
        if !directory.directory {
            return Err(ServiceError::backup(ServiceProblem::InputUnusable, "an archive of WAL is a directory", []));
        }
        archive.add(shop, &directory, false)?;
        if archive.is_empty() {
            return Err(ServiceError::backup(ServiceProblem::InputMissing, "the archive of WAL has no segment", []));
        }
    }
    let brought = super::physical::below(base, "pg_wal")?;
    archive.add(shop, &brought, true)?;
    let stretches = archive.stretches(shop, timeline, from.0);
    let wanted = Wanted::of(&backup.target, from.0);
    let audit = archive.audit(shop, &stretches, from.0, &wanted).await?;
    judge(shop, backup, label, &audit)?;
    let command = restore_command(shop, &archive).await?;
    settings.insert("restore_command".to_owned(), command);
    let to = stretches.last().map_or(timeline, |stretch| stretch.timeline);
    settings.insert("recovery_target_timeline".to_owned(), to.to_string());
    settings.insert("recovery_target_action".to_owned(), "promote".to_owned());
    settings.extend(target(&backup.target).into_iter().map(|(name, value)| (name.to_owned(), value)));
    for (name, value) in &step.settings {
        settings.insert(name.clone(), value.clone());
    }
    super::physical::touch(shop, base, "recovery.signal").await?;
    start(shop, cluster, &settings).await?;
    arrived(shop, backup, cluster, &audit).await.map(Some)
}

/// What the state of the WAL means for this target.
fn judge(shop: &Shop<'_>, backup: &PhysicalBackup, label: Option<&Label>, audit: &Audit) -> Result<(), ServiceError> {
    // what a running server keeps in its own directory has anything behind its end
    let is_end = |fault: &&Fault| backup.wal.is_none() && audit.backup_end.is_some_and(|end| end <= fault.at);
    let faults: Vec<&Fault> = audit.faults.iter().filter(|fault| !is_end(fault)).collect();
    if let Some(first) = faults.first() {
        let more = if faults.len() > 1 { format!(", and {} faults more", faults.len() - 1) } else { String::new() };
        if audit.target.is_none() {
            let how = format!("{}{more}: recovery would end there, and say nothing", first.how);
            return Err(ServiceError::backup(first.problem, how, []));
        }
        let until = audit.target.map_or(0, |hit| hit.at);
        let how = format!("{}{more}; past {}, where this recovery ends: no later point can be recovered", first.how, place(until));
        shop.remark(Severity::Warn, first.problem, how, []);
    }
    if label.is_some_and(|label| !label.standby) && audit.backup_end.is_none() {
        let how = format!("the WAL ends at {}, before the backup's own end", place(audit.whole_until));
        return Err(ServiceError::backup(ServiceProblem::LogHole, how, []));
    }
    Ok(())
}

fn target(target: &RecoveryTarget) -> Vec<(&'static str, String)> {
    let on = |inclusive: bool| ("recovery_target_inclusive", if inclusive { "on" } else { "off" }.to_owned());
    match target {
        RecoveryTarget::Latest => Vec::new(),
        RecoveryTarget::Immediate => vec![("recovery_target", "immediate".to_owned())],
        RecoveryTarget::Time { at, inclusive } => {
            // with its offset: no setting of the server's may change what it means
            vec![("recovery_target_time", at.0.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()), on(*inclusive)]
        }
        RecoveryTarget::Lsn { at, inclusive } => vec![("recovery_target_lsn", at.to_string()), on(*inclusive)],
        RecoveryTarget::Name(name) => vec![("recovery_target_name", name.clone())],
    }
}

/// How the server takes WAL out of the archive: by a list, whatever it is called and packed there.
async fn restore_command(shop: &Shop<'_>, archive: &Archive) -> Result<String, ServiceError> {
    for program in archive.unpackers() {
        let exit = shop.run(Job::new(["bash", "-c", "command -v \"$1\"", "bash", program])).await?;
        if !exit.success() {
            return Err(ServiceError::runner(format!("the archive's WAL is unpacked by {program}, which is not installed here"), []));
        }
    }
    let list = shop.write("wal", "list", archive.list().as_bytes())?;
    let unpack: String = super::archive::PACKED
        .iter()
        .map(|(ending, program)| format!("*.{ending}) exec {program} -dc -- \"$file\" > \"$2\";;\n"))
        .collect();
    let text = format!(
        "line=$(grep -m 1 -e \"^$1 \" {list}) || exit 1\nfile=${{line#* }}\ncase $file in\n{unpack}*) exec cp -- \"$file\" \"$2\";;\nesac\n"
    );
    let command = shop.write("wal", "restore", text.as_bytes())?;
    Ok(format!("sh {command} \"%f\" \"%p\""))
}

/// Starts the server; how long recovery takes is the drill's to bound.
async fn start(shop: &Shop<'_>, cluster: &Cluster, settings: &BTreeMap<String, String>) -> Result<(), ServiceError> {
    let Err(error) = cluster.start(shop, settings, (shop.left)()).await else { return Ok(()) };
    let ServiceError::Backup { problem, how, output } = error else { return Err(error) };
    let said = String::from_utf8_lossy(&output).into_owned();
    let has = |words: &str| said.contains(words);
    let runner = |reason: &str| Err(ServiceError::runner(reason, output.clone()));
    if problem == ServiceProblem::NeverReady {
        return runner("recovery did not end within the drill's time; give it more: [sandbox] time");
    }
    if has("Create this directory for the tablespace before restarting the server") {
        return runner("a tablespace was made after the base backup, at a place that is not here: take a newer base backup");
    }
    if has("could not access file \"") || has("resource manager with ID") {
        return runner("it needs a library: name it in the step's settings, shared_preload_libraries = \"…\", and install it here");
    }
    let errors = words::errors(&output);
    if errors.iter().any(|error| error.state == words::DISK_FULL) {
        return runner("scratch ran full while it was recovered; give it more: [sandbox] scratch");
    }
    if errors.iter().any(|error| error.state.starts_with("53")) || has("could not map anonymous shared memory") || has("out of memory") {
        return runner("the server does not get what it needs to start; give it more: [sandbox] memory");
    }
    if has("invalid value for parameter") || has("unrecognized configuration parameter") {
        return runner("the server does not take a setting: see `settings`");
    }
    let (problem, how) = if has("recovery ended before configured recovery target was reached") {
        (ServiceProblem::TargetNotReached, "the WAL ends before it".to_owned())
    } else if has("requested recovery stop point is before consistent recovery point") {
        (ServiceProblem::TargetNotReached, "it lies before the end of the base backup: take an older one".to_owned())
    } else if has("WAL ends before") || has("could not locate required checkpoint record") || has("could not find redo location") {
        (ServiceProblem::LogHole, format!("the server does not find what it needs ({how})"))
    } else if has("database files are incompatible with server") {
        (ServiceProblem::OtherArchitecture, how)
    } else if has("incorrect checksum in control file") {
        (ServiceProblem::InputDamaged, how)
    } else {
        (problem, how)
    };
    Err(ServiceError::backup(problem, how, output))
}

/// Where the server came to, by its functions and its log, against where the WAL says that it should be.
async fn arrived(shop: &Shop<'_>, backup: &PhysicalBackup, cluster: &Cluster, audit: &Audit) -> Result<RecoveryFacts, ServiceError> {
    let sql = "select pg_is_in_recovery(), pg_last_wal_replay_lsn(), \
               (extract(epoch from pg_last_xact_replay_timestamp()) * 1000000)::bigint, \
               substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
    let log = cluster.log(shop);
    let rows = cluster.query(shop, Some("template1"), sql).await.map_err(|e| never_answered(e, log.clone()))?;
    let said: Option<[Option<String>; 4]> = rows.0.into_iter().next().and_then(|row| row.try_into().ok());
    let unsaid = || ServiceError::backup(ServiceProblem::TargetNotReached, "the server does not say where it came to", log.clone());
    let Some([Some(recovering), Some(reached), last, Some(timeline)]) = said else { return Err(unsaid()) };
    let reached: Lsn = reached.parse().map_err(|_| unsaid())?;
    let timeline = u32::from_str_radix(&timeline, 16).map_err(|_| unsaid())?;
    let last = last.and_then(|micros| jiff::Timestamp::from_microsecond(micros.parse().ok()?).ok()).map(Timestamp);
    let text = String::from_utf8_lossy(&log);
    let told = text.contains("archive recovery complete")
        && (backup.target == RecoveryTarget::Latest
            || text.contains("recovery stopping ")
            || text.contains("starting point-in-time recovery to earliest consistent point"));
    if recovering != "f" || !told {
        let how = "its log does not say that it stopped where it should";
        return Err(ServiceError::backup(ServiceProblem::TargetNotReached, how, log));
    }
    let (expected, holds) = match (&backup.target, audit.replayed) {
        (RecoveryTarget::Latest, _) => (audit.whole_until, reached.0 >= audit.whole_until),
        (_, Some(replayed)) => (replayed, reached.0 == replayed),
        (_, None) => (u64::MAX, false),
    };
    if !holds {
        let how = match audit.replayed {
            None if backup.target != RecoveryTarget::Latest => {
                format!("the server stopped at {reached}, and the WAL ends before the target")
            }
            _ => format!("the server stopped at {reached}, and by its WAL it should have at {}", place(expected)),
        };
        return Err(ServiceError::backup(ServiceProblem::TargetNotReached, how, log));
    }
    Ok(RecoveryFacts {
        target: backup.target.words(),
        reached,
        last_transaction: last,
        timeline,
        segments_audited: audit.segments,
        whole_until: Lsn(audit.whole_until),
    })
}
