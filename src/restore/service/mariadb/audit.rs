//! Binary logs at hand, read from where the backup was taken: whether they follow one another and are whole, and where a target of
//! recovery lies in them.

use std::collections::BTreeMap;
use std::io::BufReader;

use super::super::{Input, ServiceError, Shop};
use super::binlog::{Broken, Event, Log, Says};
use crate::domain::{BinlogPosition, BinlogTarget, Gtid, ServiceProblem, Timestamp};

/// Where the backup was taken, as it says itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) at: Option<BinlogPosition>,
    /// The last transaction of each domain.
    pub(super) after: Vec<Gtid>,
}

/// A state of the source: what was committed up to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// End of its last transaction.
    pub(super) at: BinlogPosition,
    /// That transaction, and when it was committed.
    pub(super) last: Option<(Gtid, u32)>,
    /// Transactions since the backup.
    pub(super) transactions: u64,
    /// End of the last one that touches the database that is restored.
    pub(super) touched: BinlogPosition,
    /// Statements run in other databases, which touch it at most by what they say.
    pub(super) elsewhere: u64,
}

/// A hole, or damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) problem: ServiceProblem,
    pub(super) how: String,
}

/// What the audit found.
#[derive(Debug)]
pub(super) struct Audit {
    /// Logs that were read.
    pub(super) logs: u64,
    /// Where the backup was taken.
    pub(super) from: Option<BinlogPosition>,
    /// The state that is wanted, where the logs reach it.
    pub(super) wanted: Option<State>,
    /// The target lies before the backup.
    pub(super) before: bool,
    /// The last state before the end of the logs, or before the first fault.
    pub(super) whole: Option<State>,
    /// Where reading ended before the end of the logs.
    pub(super) fault: Option<Fault>,
    /// All of them have checksums.
    pub(super) checksums: bool,
}

/// All binary logs that were restored, by their numbers.
pub(super) struct Logs(BTreeMap<u64, Input>);

impl Logs {
    pub(super) fn find(shop: &Shop<'_>, pattern: &str) -> Result<Self, ServiceError> {
        let mut found = shop.inputs(pattern)?;
        if let [directory] = found.as_slice()
            && directory.directory
        {
            found = shop.files_below(directory)?;
        }
        let mut logs: BTreeMap<u64, Input> = BTreeMap::new();
        for input in found.into_iter().filter(|input| !input.directory) {
            let name = input.path.as_path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            // beside them lie their index and their state
            let Some(number) = name.contains('.').then(|| BinlogPosition::number_of(&name)).flatten() else { continue };
            if logs.insert(number, input).is_some() {
                let reason = format!("several of what was restored are binary log {number:06}; name those of one server: binlogs = …");
                return Err(ServiceError::runner(reason, []));
            }
        }
        if logs.is_empty() {
            let how = format!("no binary log that was restored matches `{pattern}`");
            return Err(ServiceError::backup(ServiceProblem::InputMissing, how, []));
        }
        Ok(Self(logs))
    }

    /// As programs inside see those from one to another.
    pub(super) fn inside(&self, from: u64, to: u64) -> impl Iterator<Item = &str> {
        self.0.range(from..=to).map(|(_, input)| input.inside.as_str())
    }

    /// Reads all of them from where the backup was taken.
    pub(super) async fn audit(
        &self,
        shop: &Shop<'_>,
        taken: &Taken,
        target: &BinlogTarget,
        database: Option<&str>,
    ) -> Result<Audit, ServiceError> {
        let first = taken.at.map(|at| at.log).or_else(|| self.0.keys().next().copied()).unwrap_or(0);
        let mut walk = Walk::new(taken, target, database);
        let mut next = first;
        for (number, input) in self.0.range(first..) {
            if *number != next {
                break;
            }
            let file = shop.open(&input.path).map(|file| BufReader::with_capacity(256 << 10, file));
            let file = file.map_err(|e| ServiceError::runner(format!("a binary log cannot be read: {}", e.kind()), []))?;
            tokio::task::block_in_place(|| walk.log(*number, file, &|| (shop.left)().is_zero()))?;
            // who ends the drill is heard
            tokio::task::yield_now().await;
            if walk.audit.fault.is_some() {
                return Ok(walk.audit);
            }
            next = number + 1;
        }
        let last = self.0.keys().next_back().copied().unwrap_or(0);
        walk.end(next, last);
        Ok(walk.audit)
    }
}

/// Reading, log after log.
struct Walk<'a> {
    taken: &'a Taken,
    target: &'a BinlogTarget,
    /// The one that was restored, where others are not applied.
    database: Option<&'a str>,
    /// The last transaction of each domain.
    domains: BTreeMap<u32, Gtid>,
    /// The last state, once the backup is reached.
    state: Option<State>,
    /// The newest instant that any event tells of.
    newest: u32,
    /// A transaction that is not at its end.
    open: Option<Open>,
    /// No transaction of this log began yet.
    fresh: bool,
    /// This log's last event was read.
    closed: bool,
    audit: Audit,
}

struct Open {
    gtid: Gtid,
    alone: bool,
    when: u32,
    /// Statements and rows of the database that is restored, and of others.
    ours: u64,
    others: u64,
    elsewhere: u64,
}

impl<'a> Walk<'a> {
    fn new(taken: &'a Taken, target: &'a BinlogTarget, database: Option<&'a str>) -> Self {
        let audit = Audit { logs: 0, from: None, wanted: None, before: false, whole: None, fault: None, checksums: true };
        Self { taken, target, database, domains: BTreeMap::new(), state: None, newest: 0, open: None, fresh: true, closed: false, audit }
    }

    fn fault(&mut self, problem: ServiceProblem, how: String) {
        self.audit.fault = Some(Fault { problem, how });
    }

    /// Reads one log to its end.
    fn log(&mut self, number: u64, file: impl std::io::Read, late: &dyn Fn() -> bool) -> Result<(), ServiceError> {
        let named = |at: u64| format!("binary log {}", BinlogPosition { log: number, at });
        let mut log = match Log::open(file) {
            Ok(log) => log,
            Err(broken) => return self.broken(&named(0), broken),
        };
        self.audit.logs += 1;
        (self.fresh, self.closed) = (true, false);
        let (mut at, mut in_use) = (4, false);
        loop {
            let event = match log.next() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(broken) => return self.broken(&named(at), broken),
            };
            if self.closed {
                self.fault(ServiceProblem::LogDamaged, format!("{}: events follow the log's last one", named(at)));
                return Ok(());
            }
            if let Says::Begin { server, in_use: still } = &event.says {
                in_use = *still;
                if !server.contains("MariaDB") {
                    let reason = "the binary logs are of MySQL, or of another server that is no MariaDB, and MariaDB does not apply them";
                    return Err(ServiceError::runner(reason, []));
                }
            }
            self.event(number, &event)?;
            if self.audit.fault.is_some() {
                return Ok(());
            }
            at = event.end;
            if event.at >> 26 != event.end >> 26 && late() {
                return Err(ServiceError::runner("the drill's time ran out while the binary logs were read", []));
            }
        }
        self.audit.checksums &= log.checksums;
        if self.open.is_some() {
            self.fault(ServiceProblem::LogDamaged, format!("{}: it ends within a transaction", named(at)));
            return Ok(());
        }
        self.start_at(BinlogPosition { log: number, at });
        // one that the server writes to, or wrote to when it died, ends anywhere
        if !self.closed && !in_use {
            let how = format!("{}: it ends early, without the event that closes a log", named(at));
            self.fault(ServiceProblem::LogDamaged, how);
            return Ok(());
        }
        if self.state.is_none() && self.taken.at.is_some_and(|taken| taken.log == number) {
            self.not_there(at);
        }
        if let (BinlogTarget::Position(target), Some(state)) = (self.target, self.state)
            && target.log == number
            && target.at <= at
        {
            self.want(state);
        }
        Ok(())
    }

    /// The place where the backup was taken is none of this log.
    fn not_there(&mut self, end: u64) {
        let Some(taken) = self.taken.at else { return };
        if taken.at > end {
            let how = format!("binary log {} ends before {taken}, where the backup was taken", BinlogPosition { log: taken.log, at: end });
            self.fault(ServiceProblem::LogHole, how);
        } else {
            let how =
                format!("the backup was taken at {taken}, where these binary logs have no transaction's end: they are of another server");
            self.fault(ServiceProblem::InputUnusable, how);
        }
    }

    fn broken(&mut self, place: &str, broken: Broken) -> Result<(), ServiceError> {
        if let Broken::Unread(error) = broken {
            return Err(ServiceError::runner(format!("{place} cannot be read: {}", error.kind()), []));
        }
        self.fault(ServiceProblem::LogDamaged, format!("{place}: {broken}"));
        Ok(())
    }

    fn event(&mut self, number: u64, event: &Event) -> Result<(), ServiceError> {
        let place = BinlogPosition { log: number, at: event.at };
        if self.open.is_none() && !matches!(event.says, Says::Begin { .. } | Says::Before(_)) {
            self.start_at(place);
            if self.audit.fault.is_some() {
                return Ok(());
            }
        }
        let end = BinlogPosition { log: number, at: event.end };
        match &event.says {
            Says::Before(listed) => self.follows(number, listed),
            Says::Transaction { gtid, alone } => {
                if self.open.is_some() {
                    self.fault(ServiceProblem::LogDamaged, format!("binary log {place}: a transaction begins within another"));
                    return Ok(());
                }
                self.begins(*gtid, event.when);
                self.fresh = false;
                self.open = Some(Open { gtid: *gtid, alone: *alone, when: event.when, ours: 0, others: 0, elsewhere: 0 });
            }
            Says::Of { database, statement, keyword } => {
                if let Some(open) = &mut self.open {
                    let ours = self.database.is_none_or(|ours| ours.as_bytes() == database);
                    open.ours += u64::from(ours && !keyword);
                    open.others += u64::from(!ours && !keyword);
                    open.elsewhere += u64::from(!ours && !keyword && *statement);
                    if open.alone && *statement {
                        self.ends(end);
                    }
                }
            }
            Says::End => self.ends(end),
            Says::Rotate(next) => {
                self.closed = true;
                if *next != Some(number + 1) {
                    let how = format!("binary log {place}: it does not go on in the log of the next number");
                    self.fault(ServiceProblem::LogHole, how);
                }
            }
            Says::Stop => self.closed = true,
            Says::Encrypted => {
                let reason = "the binary logs are encrypted, and their server alone can read them: back them up through it, with \
                              mariadb-binlog --read-from-remote-server --raw";
                return Err(ServiceError::runner(reason, []));
            }
            Says::Lost => {
                let how = format!("binary log {place}: the server itself notes there that it lost events");
                self.fault(ServiceProblem::LogHole, how);
            }
            Says::Begin { .. } | Says::Else => {}
        }
        self.newest = self.newest.max(event.when);
        Ok(())
    }

    /// A log says what came before it.
    fn follows(&mut self, number: u64, listed: &[Gtid]) {
        // of a domain, the last one is the newest
        let listed: BTreeMap<u32, Gtid> = listed.iter().map(|gtid| (gtid.domain, *gtid)).collect();
        if self.audit.logs == 1 {
            self.domains = listed;
            return;
        }
        // a server forgets domains only when it is told to, and never all of them
        let same = listed.iter().all(|(domain, gtid)| self.domains.get(domain) == Some(gtid));
        if same && listed.is_empty() == self.domains.is_empty() {
            return;
        }
        let how = format!("binary log {number:06} does not follow the one before it: other transactions came before, by what it says");
        self.fault(ServiceProblem::LogHole, how);
    }

    /// Between two transactions: perhaps where the backup was taken.
    fn start_at(&mut self, place: BinlogPosition) {
        if self.state.is_some() {
            return;
        }
        let here = match self.taken.at {
            Some(taken) => place == taken || (self.fresh && place.log == taken.log && place > taken),
            None => !self.taken.after.is_empty() && self.taken.after.iter().all(|gtid| self.domains.get(&gtid.domain) == Some(gtid)),
        };
        if !here {
            return;
        }
        let contradicts = |gtid: &Gtid| self.domains.get(&gtid.domain).is_some_and(|here| here != gtid);
        if let Some(gtid) = self.taken.after.iter().find(|gtid| contradicts(gtid)) {
            let how = format!(
                "the backup was taken after transaction {gtid}, and these binary logs have another one there: they are of another server"
            );
            self.fault(ServiceProblem::InputUnusable, how);
            return;
        }
        self.audit.from = Some(place);
        let state = State { at: place, last: None, transactions: 0, touched: place, elsewhere: 0 };
        (self.state, self.audit.whole) = (Some(state), Some(state));
        self.audit.before = match self.target {
            BinlogTarget::Latest => false,
            BinlogTarget::Time { at, inclusive } => is_past(self.newest, *at, *inclusive),
            BinlogTarget::Position(target) => *target < place,
            BinlogTarget::Gtid { at, inclusive } => {
                let last = self.domains.get(&at.domain);
                last.is_some_and(|last| last.sequence > at.sequence || (last.sequence == at.sequence && !inclusive))
            }
        };
        // the backup itself is what is wanted
        if let BinlogTarget::Gtid { at, inclusive: true } = self.target
            && self.domains.get(&at.domain) == Some(at)
        {
            self.want(state);
        }
    }

    fn want(&mut self, state: State) {
        // numbers of transactions need not be in the order of the log
        if !self.audit.before || matches!(self.target, BinlogTarget::Gtid { .. }) {
            self.audit.wanted = self.audit.wanted.or(Some(state));
        }
    }

    fn begins(&mut self, gtid: Gtid, when: u32) {
        let Some(state) = self.state else { return };
        let is_past = match self.target {
            BinlogTarget::Time { at, inclusive } => is_past(when, *at, *inclusive),
            BinlogTarget::Gtid { at, inclusive } => *at == gtid && !inclusive,
            BinlogTarget::Latest | BinlogTarget::Position(_) => false,
        };
        if is_past {
            self.want(state);
        }
    }

    fn ends(&mut self, end: BinlogPosition) {
        let Some(open) = self.open.take() else { return };
        self.domains.insert(open.gtid.domain, open.gtid);
        let Some(state) = self.state else { return };
        let after = State {
            at: end,
            last: Some((open.gtid, open.when)),
            transactions: state.transactions + 1,
            // what only ends what was prepared before names no database
            touched: if open.ours > 0 || open.others == 0 { end } else { state.touched },
            elsewhere: state.elsewhere + open.elsewhere,
        };
        match self.target {
            BinlogTarget::Position(target) if end.log == target.log && end > *target => self.want(state),
            BinlogTarget::Gtid { at, inclusive: true } if *at == open.gtid => self.want(after),
            _ => {}
        }
        (self.state, self.audit.whole) = (Some(after), Some(after));
    }

    /// All logs were read up to the one before `next`; the last one that is there is `last`.
    fn end(&mut self, next: u64, last: u64) {
        if self.audit.logs == 0 {
            self.fault(ServiceProblem::LogHole, format!("binary log {next:06}, in which the backup was taken, is missing"));
            return;
        }
        if next <= last {
            self.fault(ServiceProblem::LogHole, format!("binary log {next:06} is missing"));
            return;
        }
        let Some(state) = self.state else {
            let how = "no binary log has the transaction after which the backup was taken";
            self.fault(ServiceProblem::LogHole, how.to_owned());
            return;
        };
        match self.target {
            BinlogTarget::Latest => self.want(state),
            // no later transaction, but the log itself is later
            BinlogTarget::Time { at, inclusive } if is_past(self.newest, *at, *inclusive) => self.want(state),
            BinlogTarget::Time { .. } | BinlogTarget::Position(_) | BinlogTarget::Gtid { .. } => {}
        }
    }
}

/// Whether a second lies after an instant, or, where it is not wanted itself, at it.
fn is_past(when: u32, instant: Timestamp, inclusive: bool) -> bool {
    let when = Timestamp::from_unix(i64::from(when));
    if inclusive { when > instant } else { when >= instant }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::service::mariadb::binlog::written::Written;

    fn place(log: u64, at: u64) -> BinlogPosition {
        BinlogPosition { log, at }
    }

    fn gtid(sequence: u64) -> Gtid {
        Gtid { domain: 0, server: 7, sequence }
    }

    /// Reads these logs, from the first on.
    fn audit(logs: &[Written], taken: &Taken, target: &BinlogTarget, database: Option<&str>) -> Result<Audit, ServiceError> {
        let mut walk = Walk::new(taken, target, database);
        for (number, log) in (1..).zip(logs) {
            walk.log(number, log.bytes.as_slice(), &|| false)?;
            if walk.audit.fault.is_some() {
                return Ok(walk.audit);
            }
        }
        let last = logs.len() as u64;
        walk.end(last + 1, last);
        Ok(walk.audit)
    }

    /// Two logs of three transactions each, one a second, in turn of two databases.
    fn two() -> [Written; 2] {
        let mut first = Written::new(&[]);
        (1..=3).for_each(|n| first.transaction(n, ["his", "other"][n as usize % 2]));
        first.rotate(2);
        let mut second = Written::new(&[3]);
        (4..=6).for_each(|n| second.transaction(n, ["his", "other"][n as usize % 2]));
        [first, second]
    }

    fn start(logs: &[Written]) -> Taken {
        Taken { at: Some(place(1, logs[0].ends[0])), after: vec![gtid(1)] }
    }

    #[test]
    fn targets_are_found_between_transactions() {
        let logs = two();
        let wanted = |target: BinlogTarget| {
            let audit = audit(&logs, &start(&logs), &target, None).unwrap();
            assert_eq!(audit.fault, None);
            audit.wanted.map(|state| state.last.map_or(1, |(gtid, _)| gtid.sequence))
        };
        let at = |log, at| BinlogTarget::Position(place(log, at));
        let second = |n: u64, inclusive| BinlogTarget::Time { at: Timestamp::from_unix(1_000 + n as i64), inclusive };
        let gtid = |n, inclusive| BinlogTarget::Gtid { at: gtid(n), inclusive };
        for (target, found) in [
            (BinlogTarget::Latest, Some(6)),
            (at(1, logs[0].ends[1]), Some(2)),
            (at(1, logs[0].ends[1] - 1), Some(1)),
            (at(1, logs[0].ends[2] + 3), Some(3)),
            (at(2, 4), Some(3)),
            (at(2, logs[1].ends[2]), Some(6)),
            // a place behind a log's end is none, whatever log comes after it
            (at(1, logs[0].bytes.len() as u64 + 1), None),
            (at(2, logs[1].bytes.len() as u64 + 1), None),
            (at(3, 4), None),
            (at(1, 4), None),
            (second(3, true), Some(3)),
            (second(3, false), Some(2)),
            (second(6, false), Some(5)),
            // nothing is later
            (second(6, true), None),
            (second(0, true), None),
            (gtid(4, true), Some(4)),
            (gtid(4, false), Some(3)),
            (gtid(1, true), Some(1)),
            (gtid(1, false), None),
            (gtid(7, true), None),
        ] {
            assert_eq!(wanted(target.clone()), found, "{target:?}");
        }
    }

    #[test]
    fn of_several_databases_those_that_touch_the_restored_one_count() {
        let mut logs = two();
        let found = audit(&logs, &start(&logs), &BinlogTarget::Latest, Some("his")).unwrap().wanted.unwrap();
        assert_eq!((found.at, found.touched), (place(2, logs[1].ends[2]), place(2, logs[1].ends[2])));
        assert_eq!((found.transactions, found.elsewhere), (5, 2));
        logs[1].transaction(7, "other");
        let found = audit(&logs, &start(&logs), &BinlogTarget::Latest, Some("his")).unwrap().wanted.unwrap();
        assert_eq!((found.at, found.touched), (place(2, logs[1].ends[3]), place(2, logs[1].ends[2])));
    }

    #[test]
    fn what_makes_logs_useless_is_told_apart() {
        let of = |logs: &[Written]| audit(logs, &start(logs), &BinlogTarget::Latest, None);
        let problem = |logs: &[Written]| of(logs).unwrap().fault.map(|fault| fault.problem);
        let refused = |logs: &[Written]| of(logs).unwrap_err().to_string();
        let [first, second] = two();
        assert_eq!(problem(&[first.clone(), second.clone()]), None);
        // one from another run of the same server
        let mut stranger = Written::new(&[9]);
        stranger.transaction(10, "his");
        assert_eq!(problem(&[first.clone(), stranger]), Some(ServiceProblem::LogHole));
        assert_eq!(problem(&[first.clone(), Written::new(&[])]), Some(ServiceProblem::LogHole));
        // its server died, and began the next log; likewise, and there had been more in it
        assert_eq!(problem(&[first.died_after(3), second.clone()]), None);
        assert_eq!(problem(&[first.died_after(2), second.clone()]), Some(ServiceProblem::LogHole));
        let mut skipping = first.died_after(3);
        skipping.rotate(3);
        assert_eq!(problem(&[skipping, second.clone()]), Some(ServiceProblem::LogHole));
        let mut cut = first.died_after(3);
        cut.bytes.truncate(cut.bytes.len() - 31);
        assert_eq!(problem(&[cut]), Some(ServiceProblem::LogDamaged), "within a transaction");
        for at in 4..first.bytes.len() {
            // the flag of being written to is no part of what is summed
            if at == 21 {
                continue;
            }
            let mut rotten = first.clone();
            rotten.bytes[at] ^= 0x10;
            assert_eq!(problem(&[rotten, second.clone()]), Some(ServiceProblem::LogDamaged), "byte {at}");
        }
        let mut lost = first.died_after(3);
        lost.event(26, 1_004, b"\x01\0");
        assert_eq!(problem(&[lost]), Some(ServiceProblem::LogHole));
        let mut encrypted = first.died_after(3);
        encrypted.event(164, 1_004, &[1; 17]);
        assert!(refused(&[encrypted]).contains("--read-from-remote-server"));
        let mut of_mysql = Written::by("8.0.36", &[]);
        of_mysql.transaction(1, "his");
        assert!(refused(&[of_mysql]).contains("MySQL"));
    }
}
