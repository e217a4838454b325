//! Object lock: what a server says about one object version, and whether that is enough.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Period, Timestamp};

/// Retention mode, in S3's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// Some users may shorten or lift it.
    Governance,
    /// Nobody may shorten or lift it, the account's owner included.
    Compliance,
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LockMode::Governance => "governance",
            LockMode::Compliance => "compliance",
        })
    }
}

/// Whether one object version is locked. Three-valued: a missing header may only mean missing rights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LockState {
    /// Retention was reported.
    Locked {
        /// Its mode.
        mode: LockMode,
        /// Until when.
        until: Timestamp,
    },
    /// The server was asked and says that there is no retention.
    NotLocked,
    /// Nobody can say: no rights to ask, a store without the notion, an unreadable answer.
    Unknown {
        /// Why, in a few words.
        reason: String,
    },
}

/// All that is known of the lock of one object version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct LockFacts {
    /// Retention.
    #[serde(flatten)]
    pub state: LockState,
    /// Legal hold; `None` where not visible.
    pub legal_hold: Option<bool>,
}

impl LockFacts {
    /// For a store that has no locks, or an answer that could not be had.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self { state: LockState::Unknown { reason: reason.into() }, legal_hold: None }
    }
}

/// What a policy thinks of the lock of one object version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum LockVerdict {
    /// Locked in the mode and for the time asked for.
    Satisfied,
    /// Not locked at all.
    NotLocked,
    /// Locked, in a weaker mode.
    WeakerMode {
        /// The mode it has.
        mode: LockMode,
    },
    /// Locked, and running out too early.
    TooShort {
        /// What is left, seconds.
        left: Period,
    },
    /// Could not be seen.
    Unknown,
}

/// Judges one lock at the instant `now`.
pub fn judge(facts: &LockFacts, mode: LockMode, remaining: Period, now: Timestamp) -> LockVerdict {
    match &facts.state {
        LockState::Unknown { .. } => LockVerdict::Unknown,
        LockState::NotLocked => LockVerdict::NotLocked,
        LockState::Locked { mode: has, .. } if *has < mode => LockVerdict::WeakerMode { mode: *has },
        LockState::Locked { until, .. } => {
            let left = until.seconds_since(now);
            if left <= 0 {
                LockVerdict::NotLocked
            } else if left.unsigned_abs() < remaining.seconds {
                LockVerdict::TooShort { left: Period::from_secs(left.unsigned_abs()) }
            } else {
                LockVerdict::Satisfied
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_judged_by_mode_and_days_left() {
        let now = Timestamp::from_unix(1_000_000);
        let day = Period::from_secs(86_400);
        let locked = |mode, seconds: i64| LockFacts {
            state: LockState::Locked { mode, until: Timestamp::from_unix(1_000_000 + seconds) },
            legal_hold: None,
        };
        use LockMode::{Compliance, Governance};
        assert_eq!(judge(&locked(Compliance, 90_000), Compliance, day, now), LockVerdict::Satisfied);
        assert_eq!(judge(&locked(Compliance, 90_000), Governance, day, now), LockVerdict::Satisfied);
        assert_eq!(judge(&locked(Governance, 90_000), Compliance, day, now), LockVerdict::WeakerMode { mode: Governance });
        assert_eq!(judge(&locked(Compliance, 3_600), Compliance, day, now), LockVerdict::TooShort { left: Period::from_secs(3_600) });
        assert_eq!(judge(&locked(Compliance, -1), Compliance, day, now), LockVerdict::NotLocked);
        assert_eq!(judge(&LockFacts { state: LockState::NotLocked, legal_hold: None }, Compliance, day, now), LockVerdict::NotLocked);
        assert_eq!(judge(&LockFacts::unknown("403"), Compliance, day, now), LockVerdict::Unknown);
    }
}
