//! The only reader of time: wall time for saying when, monotonic time for saying how long.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use crate::domain::{Elapsed, Timestamp};

/// A source of both kinds of time.
///
/// Promises: `monotonic` never decreases, and is not moved by anybody setting the wall clock.
pub trait Clock: Send + Sync {
    /// Wall time.
    fn now(&self) -> Timestamp;
    /// Time since some fixed instant of this clock's own.
    fn monotonic(&self) -> Elapsed;
}

/// The host's clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time begins now.
    #[expect(clippy::disallowed_methods, reason = "this is the room that reads the clocks")]
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the room that reads the clocks")]
    fn now(&self) -> Timestamp {
        let now = SystemTime::now();
        Timestamp(jiff::Timestamp::try_from(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH))
    }
    fn monotonic(&self) -> Elapsed {
        Elapsed::from_duration(self.origin.elapsed())
    }
}

/// A clock that moves only when told: for tests, and for replaying.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(Timestamp, Elapsed)>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self { state: Mutex::new((now, Elapsed::default())) }
    }

    /// Lets both kinds of time pass.
    pub fn advance(&self, by: Duration) {
        let mut state = self.lock();
        state.0 = shifted(state.0, i64::try_from(by.as_nanos()).unwrap_or(i64::MAX));
        state.1 = state.1 + Elapsed::from_duration(by);
    }

    /// Sets the wall clock by hand, as somebody with rights might, without time passing.
    pub fn step(&self, seconds: i64) {
        let mut state = self.lock();
        state.0 = shifted(state.0, seconds.saturating_mul(1_000_000_000));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Timestamp, Elapsed)> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }
}

fn shifted(at: Timestamp, nanos: i64) -> Timestamp {
    Timestamp(at.0.checked_add(jiff::SignedDuration::from_nanos(nanos)).unwrap_or(at.0))
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().0
    }
    fn monotonic(&self) -> Elapsed {
        self.lock().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every clock promises.
    fn promises(clock: &dyn Clock) {
        let (a, b) = (clock.monotonic(), clock.monotonic());
        assert!(a <= b);
    }

    #[test]
    fn every_clock_keeps_its_promises() {
        promises(&SystemClock::new());
        promises(&ManualClock::at(Timestamp::from_unix(0)));
    }

    #[test]
    fn a_stepped_wall_clock_does_not_move_measured_time() {
        let clock = ManualClock::at(Timestamp::from_unix(1_000));
        clock.advance(Duration::from_secs(5));
        clock.step(-3_600);
        assert_eq!(clock.now(), Timestamp::from_unix(1_000 + 5 - 3_600));
        assert_eq!(clock.monotonic().as_duration(), Duration::from_secs(5));
    }
}
