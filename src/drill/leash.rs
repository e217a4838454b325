//! How work in the sandbox ends: by itself, because there is nothing more to do, or because somebody ends it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::RecordError;
use super::blame::Stop;
use crate::clock::Clock;
use crate::domain::{Elapsed, Period};
use crate::restore::CancelFlag;

/// How the work in the sandbox ended early.
pub(super) enum Ended {
    /// There is nothing more to do: the findings say why.
    Stopped(Stop),
    /// The journal could not be written.
    Unrecorded(RecordError),
}

impl From<RecordError> for Ended {
    fn from(error: RecordError) -> Self {
        Ended::Unrecorded(error)
    }
}

impl<E: Into<Stop>> From<E> for Ended {
    fn from(error: E) -> Self {
        Ended::Stopped(error.into())
    }
}

/// How long a blocking thread gets to notice that the drill is over.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(10);

/// What is left of the drill's time for telling what a program that hangs had done.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

/// What all work in the sandbox carries: how long it may last; on blocking threads, what ends it, at work and while it waits for the
/// storage, and a sign of life.
pub(super) struct Leash {
    pub(super) flag: CancelFlag,
    pub(super) ended: CancellationToken,
    pub(super) working: tokio::sync::mpsc::Sender<()>,
    /// When its time is over, on the monotonic clock.
    ends: Elapsed,
}

impl Leash {
    /// One of so much time from now on, and what ends when nobody is on it any more.
    pub(super) fn new(clock: &dyn Clock, time: Period) -> (Self, tokio::sync::mpsc::Receiver<()>) {
        let (working, idle) = tokio::sync::mpsc::channel(1);
        let ends = Elapsed::from_duration(clock.monotonic().as_duration() + time.as_duration());
        (Self { flag: CancelFlag::default(), ended: CancellationToken::new(), working, ends }, idle)
    }

    /// What is left of its time, last moments set aside.
    pub(super) fn left(&self, clock: &dyn Clock) -> Duration {
        self.ends.since(clock.monotonic()).as_duration().saturating_sub(LAST_MOMENTS)
    }
}
