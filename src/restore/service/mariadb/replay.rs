//! Binary logs applied upon a restored backup: read before (`audit.rs`), applied by the server's own programs up to the target, and
//! then shown to have been applied that far.

use super::super::{Job, ServiceError, Shop};
use super::audit::{Audit, Logs, State, Taken};
use super::judge::{LOADING, SUBSTITUTES, judge};
use super::server::Server;
use super::words::Skew;
use crate::domain::{BinaryLogs, BinlogFacts, BinlogPosition, ServiceProblem, Severity, Timestamp};
use crate::restore::tool::last_words;

/// What will be applied.
pub(super) struct Replay {
    logs: Logs,
    /// The one database that was restored, where logs are of several.
    database: Option<String>,
    from: BinlogPosition,
    to: State,
    /// What happened to events would have been told.
    checksums: bool,
    facts: BinlogFacts,
}

impl Replay {
    /// Reads the logs: what cannot be reached is told before anything is loaded.
    pub(super) async fn plan(shop: &Shop<'_>, asked: &BinaryLogs, taken: &Taken, database: Option<String>) -> Result<Self, ServiceError> {
        if *taken == Taken::default() {
            let how = "it does not name the place in the binary logs where it was taken: back up with mariadb-dump --master-data=2 --gtid, or \
                       with mariadb-backup";
            return Err(ServiceError::backup(ServiceProblem::Undescribed, how, []));
        }
        let logs = Logs::find(shop, &asked.binlogs)?;
        let audit = logs.audit(shop, taken, &asked.target, database.as_deref()).await?;
        let (from, to, whole) = reached(shop, &audit)?;
        if !audit.checksums {
            let how = "the binary logs have no checksums: whether they rotted cannot be told (binlog_checksum = CRC32)";
            shop.remark(Severity::Warn, ServiceProblem::Undescribed, how, []);
        }
        if to.elsewhere > 0 {
            let how = format!(
                "{} statements in the binary logs were run in other databases than the one that was dumped, and are not applied: what they \
                 changed of it is missing (dump all databases, or log rows: binlog_format = ROW)",
                to.elsewhere
            );
            shop.remark(Severity::Warn, ServiceProblem::LeftOut, how, []);
        }
        let facts = BinlogFacts {
            target: asked.target.words(),
            from,
            reached: to.at,
            last: to.last.map(|(gtid, _)| gtid),
            last_transaction: to.last.map(|(_, when)| Timestamp::from_unix(i64::from(when))),
            transactions: to.transactions,
            logs_audited: audit.logs,
            whole_until: whole.at,
        };
        Ok(Self { logs, database, from, to, checksums: audit.checksums, facts })
    }

    /// Applies them.
    pub(super) async fn apply(self, shop: &Shop<'_>, server: &Server, skew: Skew) -> Result<BinlogFacts, ServiceError> {
        // transactions that touch what was not restored are not applied, and say nothing of having been
        let until = self.to.touched;
        if until == self.from {
            return Ok(self.facts);
        }
        // the client that applies says how it ended after the other one and what it was given last; what was logged as a loaded file
        // is one again, in a directory of this drill
        let options = LOADING.join(" ");
        let script = format!(
            r#"told=$1/told; client=("$2" --defaults-file="$3" --local-infile=1); shift 3
            "${{client[@]}}" --execute='set global local_infile = 1' || exit 1
            mkfifo "$told" || exit 1
            grep -a -E '^#[0-9]{{6}} +[0-9:]+ server id [0-9]+ +end_log_pos [0-9]+' <"$told" | tail -n 1 | grep -o 'end_log_pos [0-9]*' >"$told.last" &
            "$@" | tee "$told" | "${{client[@]}}" {options} | {SUBSTITUTES}
            ended=("${{PIPESTATUS[@]}}"); wait; rm "$told"
            echo "${{ended[0]}} $(<"$told.last")"
            "${{client[@]}}" --execute='set global local_infile = 0'
            exit "${{ended[2]}}""#
        );
        let program = server.installed.needed("mariadb-binlog")?;
        let temporary = shop.room("replay")?;
        let mut argv: Vec<String> = ["bash", "-c", &script, "replay", &temporary].map(str::to_owned).to_vec();
        argv.extend([server.installed.needed("mariadb")?, server.client.clone(), program, "--no-defaults".to_owned()]);
        argv.extend(["--verify-binlog-checksum".to_owned(), format!("--local-load={temporary}")]);
        argv.push(format!("--start-position={}", self.from.at));
        argv.push(format!("--stop-position={}", until.at));
        argv.extend(self.database.iter().map(|name| format!("--database={name}")));
        argv.extend(self.logs.inside(self.from.log, until.log).map(str::to_owned));
        let exit = shop.run(Job::new(argv)).await?;
        judge(shop, server, skew, &exit, "while the binary logs were applied: ")?;
        let said = String::from_utf8_lossy(&exit.stdout).into_owned();
        let ended = said.lines().nth(1).unwrap_or_default();
        let (status, last) = ended.split_once(' ').unwrap_or((ended, ""));
        if status != "0" {
            let how = format!("mariadb-binlog ended with exit status {status}");
            // every event was found as it was written
            return Err(match self.checksums {
                true => ServiceError::runner(format!("{how}, and the binary logs are whole; install a newer one"), last_words(&exit)),
                false => ServiceError::backup(ServiceProblem::LogDamaged, how, last_words(&exit)),
            });
        }
        let arrived = last.strip_prefix("end_log_pos ").and_then(|at| at.parse::<u64>().ok());
        // it says 32 bits of it
        if arrived != Some(until.at & 0xFFFF_FFFF) {
            let at = arrived.map_or_else(|| "nothing".to_owned(), |at| format!("what ends at {at}"));
            let how = format!(
                "the last that was applied of log {:06} is {at}, and by the logs it should be what ends at {}",
                until.log, until.at
            );
            return Err(ServiceError::backup(ServiceProblem::TargetNotReached, how, last_words(&exit)));
        }
        Ok(self.facts)
    }
}

/// Where the backup was taken, what is wanted, and up to where the logs are whole; or why that cannot be reached.
fn reached(shop: &Shop<'_>, audit: &Audit) -> Result<(BinlogPosition, State, State), ServiceError> {
    let (Some(from), Some(whole)) = (audit.from, audit.whole) else {
        let fault = audit.fault.clone();
        let (problem, how) =
            fault.map_or((ServiceProblem::LogHole, "the binary logs have no place".to_owned()), |fault| (fault.problem, fault.how));
        return Err(ServiceError::backup(problem, how, []));
    };
    let Some(wanted) = audit.wanted else {
        return Err(match &audit.fault {
            _ if audit.before => {
                let how = format!("the target lies before the backup, which was taken at {from}");
                ServiceError::backup(ServiceProblem::TargetNotReached, how, [])
            }
            Some(fault) => {
                let how = format!("{}: what is before it would be applied, and nothing said", fault.how);
                ServiceError::backup(fault.problem, how, [])
            }
            None => {
                let how = format!("the binary logs end at {}, before the target", whole.at);
                ServiceError::backup(ServiceProblem::TargetNotReached, how, [])
            }
        });
    };
    if let Some(fault) = &audit.fault {
        let how = format!("{}; past {}, where this recovery ends: no later point can be recovered", fault.how, wanted.at);
        shop.remark(Severity::Warn, fault.problem, how, []);
    }
    Ok((from, wanted, whole))
}
