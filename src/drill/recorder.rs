//! The recorder: stamps and numbers events, writes the journal first, then tells the listeners.

use crate::clock::Clock;
use crate::domain::{DrillEvent, DrillEventKind, DrillId, Elapsed, Finding, Phase, Timestamp};
use crate::evidence::{EvidenceError, Journal};

/// Hears of events after they are in the journal. What a listener does cannot stop a drill.
pub trait Listener: Send {
    /// One event happened.
    fn heard(&mut self, event: &DrillEvent);
}

/// The journal could not be written: without evidence there is nothing to claim, and the drill stops.
#[derive(Debug, thiserror::Error)]
#[error("the drill's journal could not be written")]
pub struct RecordError(#[from] pub EvidenceError);

/// Writes down what happens in one drill.
pub struct Recorder<'a> {
    journal: Journal,
    clock: &'a dyn Clock,
    drill: DrillId,
    origin: Elapsed,
    events: Vec<DrillEvent>,
    listeners: Vec<Box<dyn Listener + 'a>>,
    component: Option<String>,
}

impl<'a> Recorder<'a> {
    /// Begins a drill: its monotonic time starts now.
    pub fn new(drill: DrillId, journal: Journal, clock: &'a dyn Clock, listeners: Vec<Box<dyn Listener + 'a>>) -> Self {
        Self { journal, clock, drill, origin: clock.monotonic(), events: Vec::new(), listeners, component: None }
    }

    /// Records one event.
    ///
    /// # Errors
    /// [`RecordError`] where the journal does not take it.
    pub fn record(&mut self, kind: DrillEventKind) -> Result<(), RecordError> {
        let event = DrillEvent {
            drill: self.drill.clone(),
            seq: self.events.len() as u64,
            at: self.clock.now(),
            elapsed: self.clock.monotonic().since(self.origin),
            kind,
        };
        self.journal.append(&event)?;
        for listener in &mut self.listeners {
            listener.heard(&event);
        }
        self.events.push(event);
        Ok(())
    }

    /// Keeps a file that the next event names, before that event.
    ///
    /// # Errors
    /// As [`Recorder::record`].
    pub fn attach(&self, name: &str, bytes: &[u8]) -> Result<(), RecordError> {
        Ok(self.journal.attach(name, bytes)?)
    }

    /// Records that a phase began.
    ///
    /// # Errors
    /// As [`Recorder::record`].
    pub fn phase(&mut self, phase: Phase) -> Result<(), RecordError> {
        let component = self.component.clone().filter(|_| phase <= Phase::Restore && phase > Phase::Provision);
        self.record(DrillEventKind::PhaseBegan { phase, component })
    }

    /// Of which component the next events tell; of none in particular where there is one only.
    pub fn turn_to(&mut self, component: Option<&str>) {
        self.component = component.map(str::to_owned);
    }

    /// The component that the drill is at.
    pub fn component(&self) -> Option<String> {
        self.component.clone()
    }

    /// Records findings made outside of a check.
    ///
    /// # Errors
    /// As [`Recorder::record`].
    pub fn found(&mut self, findings: impl IntoIterator<Item = Finding>) -> Result<(), RecordError> {
        findings.into_iter().try_for_each(|finding| self.record(DrillEventKind::Found { finding }))
    }

    /// What both clocks say, the monotonic one since the drill's start.
    pub fn now(&self) -> (Timestamp, Elapsed) {
        (self.clock.now(), self.clock.monotonic().since(self.origin))
    }

    /// When the drill began, on the monotonic clock.
    pub fn began(&self) -> Elapsed {
        self.origin
    }

    /// What happened so far.
    pub fn events(&self) -> &[DrillEvent] {
        &self.events
    }

    /// When the drill started: its first event's time.
    ///
    /// # Panics
    /// Before that event.
    pub fn started_at(&self) -> Timestamp {
        self.events.first().expect("a drill's first event is its start").at
    }

    /// The drill's id.
    pub fn drill(&self) -> &DrillId {
        &self.drill
    }

    /// All that happened.
    pub fn into_events(self) -> Vec<DrillEvent> {
        self.events
    }
}
