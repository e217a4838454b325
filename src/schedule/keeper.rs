//! What is to be done now: the scheduler without clock, disk or threads.
//!
//! The ledger is the truth: an occurrence is accounted for by exactly one entry (the start of its drill, or that it was missed or waived).
//! The keeper only ever looks at what follows the last one. So a runner that is killed at any instant finds the same
//! occurrences again, and none twice.

use std::collections::{BTreeMap, BTreeSet};

use super::memory::{Known, Memory};
use super::timetable::Timetable;
use crate::domain::{MissedPolicy, ScenarioName, Timestamp, Trigger};
use crate::evidence::ledger::{Entry, EntryKind, MissedReason};

/// A scenario that is seen to be late by less than this is on time: schedulers wake up late.
const ON_TIME: i64 = 60;
/// So many occurrences of one scenario are settled at once; the rest when it is asked again.
const AT_ONCE: usize = 10_000;
/// A drill that could not even be entered is tried again after so many seconds.
const HELD: i64 = 60;

/// Keeps the schedules of all scenarios.
#[derive(Debug)]
pub struct Keeper {
    memory: Memory,
    timetables: BTreeMap<ScenarioName, Timetable>,
    /// Since when this runner has been awake.
    awake_since: Timestamp,
    /// Drills that were told to start, and are not known to have ended.
    busy: BTreeSet<ScenarioName>,
    held: BTreeMap<ScenarioName, Timestamp>,
    /// When each scenario is to be looked at next.
    queue: BTreeSet<(Timestamp, ScenarioName)>,
    due_at: BTreeMap<ScenarioName, Timestamp>,
}

/// What is to be done now.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Orders {
    /// To be entered in the ledger, in this order.
    pub enter: Vec<EntryKind>,
    /// To be started, each with its trigger.
    pub start: Vec<(ScenarioName, Trigger)>,
    /// When to ask again, at the latest; none where nothing is scheduled.
    pub next: Option<Timestamp>,
}

impl Keeper {
    /// From what the ledger tells, by a runner that woke up at `now`.
    pub fn new(memory: Memory, now: Timestamp) -> Self {
        let mut keeper = Self {
            memory,
            timetables: BTreeMap::new(),
            awake_since: now,
            busy: BTreeSet::new(),
            held: BTreeMap::new(),
            queue: BTreeSet::new(),
            due_at: BTreeMap::new(),
        };
        let names: Vec<ScenarioName> = keeper.memory.scenarios.keys().cloned().collect();
        names.iter().for_each(|name| keeper.remember(name));
        keeper
    }

    /// What the ledger tells.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// A scenario's schedule.
    pub fn timetable(&self, scenario: &ScenarioName) -> Option<&Timetable> {
        self.timetables.get(scenario)
    }

    /// Takes up what was entered, by whomever, and says of which scenario it is.
    pub fn apply(&mut self, entry: &Entry) -> Option<ScenarioName> {
        if entry.index < self.memory.entries {
            return None;
        }
        let scenario = self.memory.apply(entry)?;
        match &entry.entry {
            EntryKind::ScenarioSeen { .. } | EntryKind::ScenarioGone { .. } => self.remember(&scenario),
            // settled occurrences are where it looks from
            EntryKind::Missed { .. } | EntryKind::Waived { .. } => {}
            _ => self.look_again(&scenario),
        }
        Some(scenario)
    }

    /// A drill that was told to start has ended, or could not be entered.
    pub fn ended(&mut self, scenario: &ScenarioName, entered: bool, now: Timestamp) {
        self.busy.remove(scenario);
        if !entered {
            self.held.insert(scenario.clone(), later(now, HELD));
        }
        self.look_again(scenario);
    }

    /// What kept a drill of the scenario from being entered may be mended: it need not wait.
    pub fn try_again(&mut self, scenario: &ScenarioName) {
        if self.held.remove(scenario).is_some() {
            self.look_again(scenario);
        }
    }

    /// Every scenario is to be looked at: what was to be entered for some could not be.
    pub fn look_at_all(&mut self) {
        let names: Vec<ScenarioName> = self.memory.scenarios.keys().cloned().collect();
        names.iter().for_each(|name| self.look_again(name));
    }

    /// What is to be done now, with room for `free` drills. What is entered and started is told with [`Keeper::apply`].
    pub fn orders(&mut self, now: Timestamp, free: usize) -> Orders {
        let mut orders = Orders::default();
        let mut waiting = Vec::new();
        while let Some((at, name)) = self.queue.first().cloned() {
            if at > now {
                break;
            }
            self.queue.pop_first();
            self.due_at.remove(&name);
            let room = free.saturating_sub(orders.start.len());
            if let Some(again) = self.look(&name, now, room, &mut orders) {
                waiting.push((again, name));
            }
        }
        for (at, name) in waiting {
            self.queue_at(&name, at);
        }
        orders.next = self.queue.first().map(|(at, _)| *at);
        orders
    }

    /// What is to be entered before the schedule of a scenario is replaced: what was due under the old one, and did not start.
    pub fn settle(&self, name: &ScenarioName, now: Timestamp) -> Vec<EntryKind> {
        let (Some(timetable), Some(known)) = (self.timetables.get(name), self.memory.scenarios.get(name)) else { return Vec::new() };
        let dues = std::iter::successors(known.accounted, |last| timetable.next_due(*last).filter(|due| *due <= now)).skip(1);
        let reason = |due: Timestamp| if due < self.awake_since { MissedReason::RunnerDown } else { MissedReason::Superseded };
        dues.map(|due| settled(name, known, due, reason(due))).collect()
    }

    /// What is to be done for one scenario, and when to look again. Where entries of it are to be written, that is when they are.
    fn look(&mut self, name: &ScenarioName, now: Timestamp, room: usize, orders: &mut Orders) -> Option<Timestamp> {
        let timetable = self.timetables.get(name)?;
        let known = self.memory.scenarios.get(name)?;
        let mut last = known.accounted?;
        let mut dues = Vec::new();
        while let Some(due) = timetable.next_due(last).filter(|due| *due <= now && dues.len() < AT_ONCE) {
            dues.push(due);
            last = due;
        }
        let following = timetable.next_due(last);
        if following.is_some_and(|following| following <= now) {
            orders.enter.extend(dues.iter().map(|due| settled(name, known, *due, MissedReason::Superseded)));
            return Some(now);
        }
        let Some(due) = dues.pop() else { return self.look_at_unresolved(name, now, room, following, orders) };
        for earlier in dues {
            orders.enter.push(settled(name, known, earlier, MissedReason::Superseded));
        }
        if known.pause_at(due).is_some() {
            orders.enter.push(settled(name, known, due, MissedReason::Superseded));
            return following;
        }
        let start = timetable.start_of(due);
        if now < start {
            return Some(following.map_or(start, |following| following.min(start)));
        }
        let late = now.seconds_since(start);
        let down = start < self.awake_since && late > ON_TIME;
        let too_late = timetable.schedule.late.is_some_and(|limit| late > limit.seconds.cast_signed());
        if too_late || (down && timetable.schedule.missed == MissedPolicy::Record) {
            let reason = if down { MissedReason::RunnerDown } else { MissedReason::TooLate };
            orders.enter.push(settled(name, known, due, reason));
            return following;
        }
        self.start(name, Trigger::Scheduled { due, attempt: 0 }, now, room, orders)
    }

    /// A drill that came to no result is tried again, unless the next one is due before.
    fn look_at_unresolved(
        &mut self,
        name: &ScenarioName,
        now: Timestamp,
        room: usize,
        following: Option<Timestamp>,
        orders: &mut Orders,
    ) -> Option<Timestamp> {
        let known = self.memory.scenarios.get(name)?;
        let retry = self.timetables.get(name)?.schedule.retry;
        let again = known.unresolved.as_ref().and_then(|unresolved| {
            let attempt = unresolved.attempt + 1;
            let at = later(unresolved.ended, retry.delay(attempt)?.seconds.try_into().ok()?);
            let wanted = following.is_none_or(|following| at < following) && known.pause_at(at).is_none();
            wanted.then_some((at, Trigger::Scheduled { due: unresolved.due, attempt }))
        });
        match again {
            Some((at, trigger)) if at <= now => self.start(name, trigger, now, room, orders).or(following),
            Some((at, _)) => Some(at),
            None => following,
        }
    }

    /// Starts a drill where there is room, and tells when to look again where there is none.
    fn start(&mut self, name: &ScenarioName, trigger: Trigger, now: Timestamp, room: usize, orders: &mut Orders) -> Option<Timestamp> {
        // the end of the one that runs makes it be looked at again
        if self.busy.contains(name) || self.memory.runs(name) {
            return self.timetables.get(name)?.next_due(now);
        }
        if let Some(held) = self.held.get(name).filter(|held| **held > now) {
            return Some(*held);
        }
        if room == 0 {
            return Some(later(now, 1));
        }
        self.held.remove(name);
        self.busy.insert(name.clone());
        orders.start.push((name.clone(), trigger));
        None
    }

    /// A scenario is new, or changed.
    fn remember(&mut self, name: &ScenarioName) {
        let schedule = self.memory.scenarios.get(name).and_then(|known| known.schedule.as_ref());
        match schedule.map(|schedule| Timetable::new(name, schedule)) {
            Some(Ok(timetable)) => drop(self.timetables.insert(name.clone(), timetable)),
            // a zone that this host does not know any more: nothing is due, and whoever shows scenarios says so
            Some(Err(_)) | None => drop(self.timetables.remove(name)),
        }
        self.look_again(name);
    }

    fn look_again(&mut self, name: &ScenarioName) {
        self.queue_at(name, Timestamp(jiff::Timestamp::MIN));
    }

    fn queue_at(&mut self, name: &ScenarioName, at: Timestamp) {
        if let Some(before) = self.due_at.insert(name.clone(), at) {
            self.queue.remove(&(before, name.clone()));
        }
        self.queue.insert((at, name.clone()));
    }
}

/// An occurrence for which no drill starts: waived where it lies in a pause.
fn settled(scenario: &ScenarioName, known: &Known, due: Timestamp, reason: MissedReason) -> EntryKind {
    let scenario = scenario.clone();
    match known.pause_at(due) {
        Some(pause) => EntryKind::Waived { scenario, due, reason: pause.reason.clone() },
        None => EntryKind::Missed { scenario, due, reason },
    }
}

fn later(at: Timestamp, seconds: i64) -> Timestamp {
    Timestamp(at.0.saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(jiff::Timestamp::MAX))
}
