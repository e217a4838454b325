//! Years in seconds: many scenarios, a runner that dies at random instants, schedules that change, drills that come to no result.
//!
//! The ledger is a list, time moves when it is told to, and the question is always the same: was every occurrence accounted for
//! exactly once?

use std::collections::{BTreeMap, BTreeSet};

use super::{Keeper, Memory, Timetable};
use crate::domain::{
    Blake3, Criticality, DrillId, MissedPolicy, Objectives, Period, Plan, Retry, ScenarioName, Schedule, Sha256, TimeZone, Timestamp,
    Trigger, Verdict,
};
use crate::evidence::ledger::{Entry, EntryKind};

const BEGIN: i64 = 1_767_225_600; // 2026-01-01
const YEAR: i64 = 365 * 86_400;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    fn schedule(&mut self) -> Schedule {
        let (minute, hour, day) = (self.below(60), self.below(24), self.below(28) + 1);
        let cron = match self.below(6) {
            0 => format!("{minute} {hour} * * *"),
            1 => format!("{minute} {hour} * * {}", self.below(7)),
            2 => format!("{minute} {hour} {day} 1,4,7,10 *"),
            3 => format!("{minute} 2 * * *"), // where daylight saving begins and ends
            4 => format!("{minute} {hour} {day} * *"),
            _ => format!("{minute} */6 * * 1-5"),
        };
        let zone = self.pick(&["UTC", "America/Chicago", "Europe/Berlin", "Asia/Kolkata", "Pacific/Auckland", "America/Santiago"]);
        Schedule {
            cron,
            time_zone: TimeZone(zone.to_owned()),
            jitter: Period::from_secs(self.pick(&[0, 0, 600, 7_200])),
            windows: self.pick(&[&[][..], &["Mon-Fri 20:00-06:00"][..], &["Sat,Sun"][..]]).iter().map(|w| w.parse().unwrap()).collect(),
            missed: self.pick(&[MissedPolicy::Run, MissedPolicy::Record]),
            late: self.pick(&[None, None, Some(Period::from_secs(4 * 3_600))]),
            retry: Retry { attempts: u32::try_from(self.below(3)).unwrap(), after: Period::from_secs(900) },
        }
    }
}

struct World {
    random: Random,
    ledger: Vec<Entry>,
    now: Timestamp,
    files: BTreeMap<ScenarioName, Schedule>,
    /// Drills that run: which, of what, and when they end.
    running: BTreeMap<DrillId, (ScenarioName, Timestamp)>,
    drills: u64,
}

impl World {
    fn new(seed: u64, scenarios: u64) -> Self {
        let mut random = Random(seed);
        let files = (0..scenarios).map(|n| (format!("scenario-{n}").parse().unwrap(), random.schedule())).collect();
        Self { random, ledger: Vec::new(), now: Timestamp::from_unix(BEGIN), files, running: BTreeMap::new(), drills: 0 }
    }

    fn enter(&mut self, keeper: &mut Keeper, entry: EntryKind) {
        let entry = Entry { index: self.ledger.len() as u64, at: self.now, by: "test".into(), entry };
        keeper.apply(&entry);
        self.ledger.push(entry);
    }

    fn later(&self, seconds: u64) -> Timestamp {
        Timestamp::from_unix(self.now.0.as_second() + seconds.cast_signed())
    }

    /// A runner wakes up, works until it dies, and stays dead for a while.
    fn live(&mut self, until: Timestamp) {
        let mut memory = Memory::default();
        self.ledger.iter().for_each(|entry| drop(memory.apply(entry)));
        let mut keeper = Keeper::new(memory, self.now);
        // what the last one left running is closed
        for drill in keeper.memory().open.keys().cloned().collect::<Vec<_>>() {
            self.enter(&mut keeper, EntryKind::Interrupted { drill });
        }
        self.running.clear();
        let days = self.random.below(40) * 86_400;
        let lives = days + self.random.below(86_400);
        let death = self.later(lives).min(until);
        while self.now < death {
            self.look_at_files(&mut keeper);
            let orders = keeper.orders(self.now, 4 - self.running.len().min(4));
            // dies in the middle of its work, now and then
            let survives = if self.random.below(200) == 0 { self.random.below(3) } else { u64::MAX };
            let mut done = 0;
            for entry in orders.enter {
                self.enter(&mut keeper, entry);
            }
            for (scenario, trigger) in orders.start {
                done += 1;
                if done > survives {
                    return;
                }
                self.start(&mut keeper, scenario, trigger);
            }
            let next_end = self.running.values().map(|(_, end)| *end).min();
            let wake = [orders.next, next_end, Some(death), Some(self.later(86_400))].into_iter().flatten().min().unwrap();
            self.now = wake.max(self.later(1));
            let ended: Vec<DrillId> =
                self.running.iter().filter(|(_, (_, end))| *end <= self.now).map(|(drill, _)| drill.clone()).collect();
            for drill in ended {
                let (scenario, _) = self.running.remove(&drill).unwrap();
                let verdict = self.random.pick(&[Verdict::Passed, Verdict::Passed, Verdict::Failed, Verdict::Inconclusive]);
                self.enter(&mut keeper, EntryKind::DrillFinished { drill, verdict, sums_sha256: Sha256([0; 32]) });
                keeper.ended(&scenario, true, self.now);
            }
        }
    }

    fn look_at_files(&mut self, keeper: &mut Keeper) {
        if self.random.below(300) == 0 {
            let names: Vec<ScenarioName> = self.files.keys().cloned().collect();
            let schedule = self.random.schedule();
            let name = &names[usize::try_from(self.random.below(names.len() as u64)).unwrap()];
            if self.random.below(4) == 0 {
                let reason = "the array is being moved".to_owned();
                self.enter(keeper, EntryKind::Paused { scenario: name.clone(), until: Some(self.later(9 * 86_400)), reason });
            } else {
                self.files.insert(name.clone(), schedule);
            }
        }
        for (name, schedule) in self.files.clone() {
            if keeper.memory().scenarios.get(&name).and_then(|known| known.schedule.as_ref()) != Some(&schedule) {
                for entry in keeper.settle(&name, self.now) {
                    self.enter(keeper, entry);
                }
                let schedule = Some(Box::new(schedule));
                self.enter(keeper, EntryKind::ScenarioSeen { scenario: name, sha256: Sha256([0; 32]), schedule });
            }
        }
    }

    fn start(&mut self, keeper: &mut Keeper, scenario: ScenarioName, trigger: Trigger) {
        // the disk is full, now and then: the drill could not be entered
        if self.random.below(100) == 0 {
            return keeper.ended(&scenario, false, self.now);
        }
        assert!(!self.running.values().any(|(other, _)| *other == scenario), "two drills of {scenario} at once");
        self.drills += 1;
        let drill = DrillId(format!("{:08}", self.drills));
        self.enter(keeper, EntryKind::DrillStarted { drill: drill.clone(), plan: Box::new(plan(&scenario, trigger)) });
        let lasts = 60 + self.random.below(3 * 3_600);
        self.running.insert(drill, (scenario, self.later(lasts)));
    }

    /// Every occurrence of every schedule, as long as it was in force, is accounted for exactly once.
    fn check(&self) -> usize {
        let mut settled: BTreeMap<&ScenarioName, Vec<Timestamp>> = BTreeMap::new();
        let mut expected: BTreeMap<&ScenarioName, Vec<Timestamp>> = BTreeMap::new();
        let mut in_force: BTreeMap<&ScenarioName, (Timetable, Timestamp)> = BTreeMap::new();
        let dues = |(timetable, from): &(Timetable, Timestamp), to: Timestamp| {
            std::iter::successors(Some(*from), |last| timetable.next_due(*last).filter(|due| *due <= to)).skip(1).collect::<Vec<_>>()
        };
        for entry in &self.ledger {
            match &entry.entry {
                EntryKind::ScenarioSeen { scenario, schedule: Some(schedule), .. } => {
                    let now = (Timetable::new(scenario, schedule).unwrap(), entry.at);
                    if let Some(before) = in_force.insert(scenario, now) {
                        expected.entry(scenario).or_default().extend(dues(&before, entry.at));
                    }
                }
                EntryKind::Missed { scenario, due, .. } | EntryKind::Waived { scenario, due, .. } => {
                    settled.entry(scenario).or_default().push(*due);
                }
                EntryKind::DrillStarted { plan, .. } => {
                    if let Trigger::Scheduled { due, attempt: 0 } = plan.trigger {
                        settled.entry(&plan.scenario).or_default().push(due);
                    }
                }
                _ => {}
            }
        }
        for (scenario, last) in &in_force {
            expected.entry(scenario).or_default().extend(dues(last, self.now));
        }
        for (scenario, expected) in &expected {
            let found = settled.get(scenario).cloned().unwrap_or_default();
            assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "{scenario}: one is accounted for twice");
            // what is due and waits for its window or a free place at the very end is not settled yet
            let (whole, waiting) = expected.split_at(found.len().min(expected.len()));
            assert_eq!(found, whole, "{scenario}");
            assert!(waiting.len() <= 2, "{scenario}: {} wait", waiting.len());
        }
        settled.values().map(Vec::len).sum()
    }
}

fn plan(scenario: &ScenarioName, trigger: Trigger) -> Plan {
    Plan {
        scenario: scenario.clone(),
        system: String::new(),
        criticality: Criticality::Low,
        plan: None,
        scenario_sha256: Sha256([0; 32]),
        scenario_blake3: Blake3([0; 32]),
        objectives: Objectives::default(),
        trigger,
        checks: Vec::new(),
        selection: String::new(),
    }
}

fn years(seeds: std::ops::Range<u64>, scenarios: u64) {
    for seed in seeds {
        let mut world = World::new(seed, scenarios);
        let end = Timestamp::from_unix(BEGIN + YEAR);
        while world.now < end {
            world.live(end);
            let away = world.random.below(6) * world.random.below(86_400);
            world.now = world.later(away);
        }
        // what came due while nobody was awake is settled by the next who is
        let more = world.later(8 * 86_400);
        while world.now < more {
            world.live(more);
        }
        let settled = world.check();
        assert!(settled as u64 > scenarios, "seed {seed}: only {settled} occurrences");
    }
}

#[test]
fn every_occurrence_of_a_year_is_accounted_for_exactly_once() {
    years(0..4, 12);
}

/// `cargo test --release --lib -- --ignored two_hundred_years`: minutes.
#[test]
#[ignore = "takes minutes, and a release build"]
fn two_hundred_years_of_a_thousand_scenarios() {
    years(0..200, 1_000);
}
