//! How every scenario stands, and what people decide about schedules.

use std::collections::BTreeSet;

use super::serve::{Broken, Claim, ServeError, Shelf};
use super::{App, AppError};
use crate::domain::{DrillId, ScenarioName, Timestamp};
use crate::evidence::ledger::{Checkpoint, EntryKind, LedgerError};
use crate::schedule::{Ended, Known, Memory, Pause, Timetable};
use crate::state::State;

/// How everything stands, as the ledger and the scenarios' files tell.
#[derive(Debug, serde::Serialize)]
pub struct Standing {
    /// Process id of whoever keeps the schedules now, if anybody does.
    pub keeper: Option<String>,
    /// By name.
    pub scenarios: Vec<Stand>,
    /// Files of scenarios that cannot be used.
    pub broken: Vec<Broken>,
}

/// How a scenario stands.
#[derive(Debug, serde::Serialize)]
pub struct Stand {
    /// Its name.
    pub name: ScenarioName,
    /// When it is due, as its schedule is written, with its time zone.
    pub schedule: Option<String>,
    /// When it is due next; in the past where nobody has kept the schedule.
    pub due: Option<Timestamp>,
    /// When the drill may start that is due then.
    pub starts: Option<Timestamp>,
    /// The pause that counts now.
    pub paused: Option<Pause>,
    /// Its drill in progress.
    pub running: Option<DrillId>,
    /// Its last drill that ended.
    pub last: Option<Ended>,
    /// The last one that passed.
    pub passed: Option<Ended>,
    /// How many came to no result since.
    pub inconclusive: u32,
    /// The last time that it was due and not drilled.
    pub missed: Option<Timestamp>,
    /// Whether a schedule has it drilled: its file is there, has one, and a runner has seen it.
    pub kept: bool,
}

impl App {
    /// What the ledger tells; from what is remembered of it, and whatever was entered since.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn memory(&self) -> Result<Memory, ServeError> {
        let remembered = State::look(&self.settings.state.0)?;
        let mut memory = remembered.map_or_else(|| Ok(Memory::default()), |state| state.memory())?;
        if self.settings.ledger.0.is_dir() {
            let book = self.book()?;
            for entry in book.ledger().entries(book.trust(), memory.entries).map_err(AppError::from)? {
                memory.apply(&entry.map_err(AppError::from)?);
            }
        }
        Ok(memory)
    }

    /// How everything stands now.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn standing(&self) -> Result<Standing, ServeError> {
        let memory = self.memory()?;
        let mut shelf = Shelf::new(&self.settings.scenarios.0);
        shelf.look();
        let (files, broken) = shelf.sorted();
        let names: BTreeSet<&ScenarioName> = memory.scenarios.keys().chain(files.keys().copied()).collect();
        let now = self.clock.now();
        let stand = |name: &ScenarioName| {
            let new = Known::default();
            let known = memory.scenarios.get(name).unwrap_or(&new);
            let schedule = files.get(name).map_or(known.schedule.as_ref(), |seen| seen.schedule.as_ref());
            let timetable = schedule.and_then(|schedule| Timetable::new(name, schedule).ok());
            let due = timetable.as_ref().and_then(|timetable| timetable.next_due(known.accounted.unwrap_or(now)));
            Stand {
                name: name.clone(),
                schedule: schedule.map(|schedule| format!("{} {}", schedule.cron, schedule.time_zone.0)),
                due,
                starts: due.zip(timetable).map(|(due, timetable)| timetable.start_of(due)),
                paused: known.pause_at(now).cloned(),
                running: memory.open.iter().find(|(_, running)| running.scenario == *name).map(|(drill, _)| drill.clone()),
                last: known.last.clone(),
                passed: known.passed.clone(),
                inconclusive: known.inconclusive,
                missed: known.missed,
                kept: known.file.is_some() && known.schedule.is_some(),
            }
        };
        Ok(Standing { keeper: Claim::holder(self), scenarios: names.into_iter().map(stand).collect(), broken })
    }

    /// Whether the ledger goes on from where it was when it was last taken up.
    ///
    /// # Errors
    /// [`ServeError::OtherLedger`] where it was replaced, shortened or rewritten since.
    pub(super) fn goes_on(&self, state: &State) -> Result<(), ServeError> {
        let Some(kept) = state.checkpoint()? else { return Ok(()) };
        let book = self.book()?;
        let what = "the checkpoint that this runner remembers";
        let directory = self.settings.ledger.0.clone();
        let checkpoint = Checkpoint::open(&kept, book.trust(), what);
        let goes_on = checkpoint
            .map_err(|why| LedgerError::Refused { directory, why })
            .and_then(|earlier| book.ledger().goes_on_from(book.trust(), &earlier, what));
        match goes_on {
            Ok(()) => Ok(()),
            Err(LedgerError::Refused { why, .. }) => Err(ServeError::OtherLedger { why }),
            Err(error) => Err(AppError::from(error).into()),
        }
    }

    /// Enters that drills of a scenario need not happen until then, or until it is resumed.
    ///
    /// # Errors
    /// [`AppError`].
    pub fn pause(&self, scenario: &ScenarioName, until: Option<Timestamp>, reason: &str) -> Result<(), AppError> {
        let pause = EntryKind::Paused { scenario: scenario.clone(), until, reason: reason.to_owned() };
        self.book()?.enter(vec![pause])?;
        Ok(())
    }

    /// Enters that the drill of a scenario that is due then need not happen.
    ///
    /// # Errors
    /// [`AppError`].
    pub fn waive(&self, scenario: &ScenarioName, due: Timestamp, reason: &str) -> Result<(), AppError> {
        self.book()?.enter(vec![EntryKind::Waived { scenario: scenario.clone(), due, reason: reason.to_owned() }])?;
        Ok(())
    }

    /// Enters that drills of a scenario shall happen again.
    ///
    /// # Errors
    /// [`AppError`].
    pub fn resume(&self, scenario: &ScenarioName) -> Result<(), AppError> {
        self.book()?.enter(vec![EntryKind::Resumed { scenario: scenario.clone() }])?;
        Ok(())
    }

    /// Forgets what is remembered and takes it up from the ledger anew: how many entries there are.
    ///
    /// # Errors
    /// [`ServeError`]; [`ServeError::Busy`] while somebody keeps the schedules.
    pub fn rebuild_state(&self) -> Result<u64, ServeError> {
        let _claim = Claim::take(self)?;
        State::remove(&self.settings.state.0)?;
        let mut state = State::open(&self.settings.state.0)?;
        let mut memory = Memory::default();
        let book = self.book()?;
        let Some(covering) = book.ledger().checkpoint(book.trust()).map_err(AppError::from)? else { return Ok(0) };
        for entry in book.ledger().entries(book.trust(), 0).map_err(AppError::from)? {
            memory.apply(&entry.map_err(AppError::from)?);
        }
        state.keep(&memory, &memory.scenarios.keys().cloned().collect(), covering.as_bytes())?;
        Ok(memory.entries)
    }
}
