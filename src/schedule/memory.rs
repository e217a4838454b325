//! What the ledger tells of each scenario: a pure fold of its entries, from which it can be told anew at any time.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::domain::{DrillId, ScenarioName, Schedule, Sha256, Timestamp, Trigger, Verdict};
use crate::evidence::ledger::{Entry, EntryKind};

/// All scenarios that the ledger tells of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// How many entries were taken up.
    pub entries: u64,
    /// The runner's settings, as they were seen last.
    pub settings: Option<Sha256>,
    /// By name.
    pub scenarios: BTreeMap<ScenarioName, Known>,
    /// Drills that were started and have no end yet.
    pub open: BTreeMap<DrillId, Running>,
}

/// What is known of one scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its file, as it was seen last; none where drills of it ran by hand alone, or where it is gone.
    pub file: Option<Sha256>,
    /// Its schedule, as it was seen last.
    pub schedule: Option<Schedule>,
    /// Every occurrence up to here is accounted for: started, missed or waived.
    pub accounted: Option<Timestamp>,
    /// Whether that is an occurrence still to come, which somebody waived.
    pub waived_ahead: bool,
    /// Stretches in which drills need not happen, the newest last.
    pub pauses: VecDeque<Pause>,
    /// The scheduled drill that came to no result, and may be tried again.
    pub unresolved: Option<Unresolved>,
    /// The last drill that ended.
    pub last: Option<Ended>,
    /// The last one that passed.
    pub passed: Option<Ended>,
    /// How many of the last drills came to no result, one after the other.
    pub inconclusive: u32,
    /// The last occurrence that was missed.
    pub missed: Option<Timestamp>,
}

/// A drill in progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Of which scenario.
    pub scenario: ScenarioName,
    /// Why.
    pub trigger: Trigger,
    /// Since when.
    pub since: Timestamp,
}

/// A stretch in which drills need not happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// From when.
    pub from: Timestamp,
    /// To when; until it is resumed, where there is none.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: String,
    /// Who decided.
    pub by: String,
}

impl Pause {
    /// Whether an instant lies in it.
    pub fn covers(&self, at: Timestamp) -> bool {
        at >= self.from && self.until.is_none_or(|until| at < until)
    }
}

/// A scheduled drill that came to no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unresolved {
    /// When it was due.
    pub due: Timestamp,
    /// How often it was tried again.
    pub attempt: u32,
    /// When the last try ended.
    pub ended: Timestamp,
}

/// A drill that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which.
    pub drill: DrillId,
    /// How.
    pub verdict: Verdict,
    /// When that was entered.
    pub at: Timestamp,
}

impl Memory {
    /// Of which scenario an entry is; none where it is of none, or of a drill that ended before.
    fn about<'a>(&'a self, entry: &'a Entry) -> Option<&'a ScenarioName> {
        match &entry.entry {
            EntryKind::DrillStarted { plan, .. } => Some(&plan.scenario),
            EntryKind::DrillFinished { drill, .. } | EntryKind::Interrupted { drill } => {
                self.open.get(drill).map(|running| &running.scenario)
            }
            EntryKind::ScenarioSeen { scenario, .. }
            | EntryKind::ScenarioGone { scenario }
            | EntryKind::Missed { scenario, .. }
            | EntryKind::Waived { scenario, .. }
            | EntryKind::Paused { scenario, .. }
            | EntryKind::Resumed { scenario } => Some(scenario),
            EntryKind::Opened { .. }
            | EntryKind::Reaped { .. }
            | EntryKind::SettingsSeen { .. }
            | EntryKind::KeyChanged { .. }
            | EntryKind::KeyRevoked { .. }
            | EntryKind::Anchored { .. } => None,
        }
    }

    /// Takes up the next entry, and says of which scenario it is.
    pub fn apply(&mut self, entry: &Entry) -> Option<ScenarioName> {
        let about = self.about(entry).cloned();
        self.entries = entry.index + 1;
        let at = entry.at;
        match &entry.entry {
            EntryKind::ScenarioSeen { scenario, sha256, schedule } => {
                let known = self.known(scenario);
                let schedule = schedule.as_deref().cloned();
                // a new schedule counts from when it was seen; what was waived of the old one does not keep it waiting
                if known.file.is_none() || known.schedule != schedule {
                    known.accounted = Some(known.accounted.filter(|_| !known.waived_ahead).map_or(at, |accounted| accounted.max(at)));
                    known.waived_ahead = false;
                }
                (known.file, known.schedule) = (Some(*sha256), schedule);
            }
            EntryKind::ScenarioGone { scenario } => {
                let known = self.known(scenario);
                (known.file, known.schedule, known.unresolved) = (None, None, None);
            }
            EntryKind::DrillStarted { drill, plan } => {
                let (scenario, trigger) = (plan.scenario.clone(), plan.trigger.clone());
                if let Trigger::Scheduled { due, .. } = trigger {
                    let known = self.known(&scenario);
                    known.account(due);
                    known.unresolved = None;
                }
                self.open.insert(drill.clone(), Running { scenario, trigger, since: at });
            }
            EntryKind::DrillFinished { drill, verdict, .. } => self.end(drill, *verdict, at),
            // its evidence follows where it left a journal
            EntryKind::Interrupted { drill } => self.end(drill, Verdict::Inconclusive, at),
            EntryKind::Missed { scenario, due, .. } => {
                let known = self.known(scenario);
                known.account(*due);
                known.missed = Some(*due);
            }
            EntryKind::Waived { scenario, due, .. } => {
                let known = self.known(scenario);
                known.account(*due);
                known.waived_ahead = *due > at;
            }
            EntryKind::Paused { scenario, until, reason } => {
                let pause = Pause { from: at, until: *until, reason: reason.clone(), by: entry.by.clone() };
                self.known(scenario).pauses.push_back(pause);
            }
            EntryKind::Resumed { scenario } => {
                for pause in self.known(scenario).pauses.iter_mut().filter(|pause| pause.covers(at)) {
                    pause.until = Some(at);
                }
            }
            EntryKind::SettingsSeen { sha256 } => self.settings = Some(*sha256),
            EntryKind::Opened { .. }
            | EntryKind::Reaped { .. }
            | EntryKind::KeyChanged { .. }
            | EntryKind::KeyRevoked { .. }
            | EntryKind::Anchored { .. } => {}
        }
        about
    }

    /// Whether a drill of the scenario runs.
    pub fn runs(&self, scenario: &ScenarioName) -> bool {
        self.open.values().any(|running| running.scenario == *scenario)
    }

    fn known(&mut self, scenario: &ScenarioName) -> &mut Known {
        self.scenarios.entry(scenario.clone()).or_default()
    }

    fn end(&mut self, drill: &DrillId, verdict: Verdict, at: Timestamp) {
        let Some(running) = self.open.remove(drill) else { return };
        let known = self.known(&running.scenario);
        let ended = Ended { drill: drill.clone(), verdict, at };
        known.inconclusive = if verdict == Verdict::Inconclusive { known.inconclusive + 1 } else { 0 };
        if let (Trigger::Scheduled { due, attempt }, Verdict::Inconclusive) = (running.trigger, verdict) {
            known.unresolved = Some(Unresolved { due, attempt, ended: at });
        }
        if verdict == Verdict::Passed {
            known.passed = Some(ended.clone());
        }
        known.last = Some(ended);
    }
}

impl Known {
    fn account(&mut self, due: Timestamp) {
        let accounted = self.accounted.map_or(due, |accounted| accounted.max(due));
        self.accounted = Some(accounted);
        self.waived_ahead = false;
        while self.pauses.front().is_some_and(|pause| pause.until.is_some_and(|until| until <= accounted)) {
            self.pauses.pop_front();
        }
    }

    /// The pause that an instant lies in.
    pub fn pause_at(&self, at: Timestamp) -> Option<&Pause> {
        self.pauses.iter().find(|pause| pause.covers(at))
    }
}
