//! Trying again: with growing pauses, for a bounded time, and only where it may help.

use std::future::Future;
use std::time::Duration;

use super::Tuning;
use super::error::StorageError;

/// How long to go on, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Give up after this long.
    pub total: Duration,
    /// First pause.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
    /// Give up after this long where there is no connection at all.
    pub unreachable: Duration,
}

/// A garbled answer can be the network's doing. The same one again is the server's.
const GARBLED_ANSWERS: u32 = 3;

impl Patience {
    /// For one small request.
    pub fn for_requests(tuning: &Tuning) -> Self {
        Self {
            total: tuning.request_patience,
            first_pause: tuning.first_pause,
            longest_pause: tuning.longest_pause,
            unreachable: tuning.request_patience,
        }
    }
    /// For reading on where a download stopped.
    pub fn for_reading(tuning: &Tuning) -> Self {
        Self { total: tuning.patience, unreachable: tuning.patience, ..Self::for_requests(tuning) }
    }

    /// The pause before another try, or `None` where there should be none. `tries` failed so far without any progress, and
    /// `waited` was spent in pauses between them.
    pub fn next(&self, failure: &Failure, tries: u32, waited: Duration) -> Option<Duration> {
        let worth_it = match &failure.error {
            error if !error.is_transient() => false,
            StorageError::BadAnswer { .. } => tries < GARBLED_ANSWERS,
            StorageError::Unreachable { .. } => waited < self.unreachable,
            _ => true,
        };
        worth_it.then(|| self.pause(tries, spread(), failure.retry_after))
    }

    /// The pause before try number `tries + 1`. Spread by `spread`, so that parallel readers do not return in step.
    fn pause(&self, tries: u32, spread: u32, asked_for: Option<Duration>) -> Duration {
        let grown = self.first_pause.saturating_mul(1 << tries.min(16)).min(self.longest_pause);
        let spread = grown.mul_f64(0.75 + f64::from(spread % 64) / 128.0);
        // a server that names a time is obeyed, within reason
        spread.max(asked_for.unwrap_or_default().min(Duration::from_secs(120)))
    }

    /// Makes `attempt` until it succeeds, fails for good, or patience is over; then the last failure is the answer.
    ///
    /// # Errors
    /// The last failure.
    pub async fn run<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut last = None;
        let all_tries = async {
            let (mut tries, mut waited) = (0u32, Duration::ZERO);
            loop {
                match attempt().await {
                    Ok(value) => return Ok(value),
                    Err(failure) => {
                        let Some(pause) = self.next(&failure, tries, waited) else { return Err(failure.error) };
                        last = Some(failure.error);
                        tries += 1;
                        waited += pause;
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        };
        match tokio::time::timeout(self.total, all_tries).await {
            Ok(outcome) => outcome,
            // the very first try has not come back: it has its own connect and read timeouts, so this is long
            Err(_) => Err(last.unwrap_or(StorageError::Unreachable {
                endpoint: "the storage".into(),
                why: "no answer within the time allowed",
                source: None,
            })),
        }
    }
}

/// One failed try.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: StorageError,
    /// The pause that the server asked for.
    pub retry_after: Option<Duration>,
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self { error, retry_after: None }
    }
}

/// A number that differs between calls and processes; nothing depends on its quality.
fn spread() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn patience(total_ms: u64) -> Patience {
        let total = Duration::from_millis(total_ms);
        Patience { total, first_pause: Duration::from_millis(1), longest_pause: Duration::from_millis(4), unreachable: total }
    }

    fn busy() -> Failure {
        StorageError::Throttled { code: "SlowDown".into() }.into()
    }

    #[tokio::test]
    async fn transient_failures_are_tried_again() {
        let tries = Cell::new(0);
        let answer = patience(10_000)
            .run(|| {
                tries.set(tries.get() + 1);
                let n = tries.get();
                async move { if n < 4 { Err(busy()) } else { Ok(n) } }
            })
            .await;
        assert_eq!(answer.unwrap(), 4);
    }

    #[tokio::test]
    async fn permanent_failures_end_it_at_once() {
        let tries = Cell::new(0);
        let answer: Result<(), _> = patience(10_000)
            .run(|| {
                tries.set(tries.get() + 1);
                async { Err(StorageError::NoSuchObject.into()) }
            })
            .await;
        assert!(matches!(answer, Err(StorageError::NoSuchObject)));
        assert_eq!(tries.get(), 1);
    }

    #[tokio::test]
    async fn patience_ends_with_the_last_failure() {
        let answer: Result<(), _> = patience(30).run(|| async { Err(busy()) }).await;
        assert!(matches!(answer, Err(StorageError::Throttled { .. })));
    }

    #[tokio::test]
    async fn a_garbled_answer_is_not_asked_for_for_ever() {
        let tries = Cell::new(0);
        let answer: Result<(), _> = patience(10_000)
            .run(|| {
                tries.set(tries.get() + 1);
                async { Err(StorageError::BadAnswer { operation: "GetObject", why: "odd".into() }.into()) }
            })
            .await;
        assert!(matches!(answer, Err(StorageError::BadAnswer { .. })));
        assert_eq!(tries.get(), 4);
    }

    #[test]
    fn pauses_grow_to_a_bound_and_obey_the_server() {
        let p = Patience {
            total: Duration::MAX,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(2),
            unreachable: Duration::MAX,
        };
        assert!(p.pause(0, 32, None) <= Duration::from_millis(125));
        assert!(p.pause(30, 63, None) <= Duration::from_millis(2_500));
        assert_eq!(p.pause(0, 0, Some(Duration::from_secs(5))), Duration::from_secs(5));
        assert_eq!(p.pause(0, 0, Some(Duration::from_secs(99_999))), Duration::from_secs(120));
    }
}
