//! What is entered: an entry is a line of JSON and a leaf of the tree.

use serde::{Deserialize, Serialize};

use crate::domain::{DrillId, Plan, ScenarioName, Schedule, Sha256, Timestamp, Verdict};

/// An entry of the ledger. No patients' data: what a report may say in clear, an entry may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its place in the log, counted from 0.
    pub index: u64,
    /// When it was entered, by the runner's clock.
    pub at: Timestamp,
    /// Who entered it: an account and its host.
    pub by: String,
    /// What happened.
    pub entry: EntryKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EntryKind {
    /// The log begins.
    Opened {
        /// Its origin, as all its checkpoints name it.
        origin: String,
    },
    /// A drill is about to start: scenario, objectives and pass criteria are fixed.
    DrillStarted {
        /// Which.
        drill: DrillId,
        /// What it promises.
        plan: Box<Plan>,
    },
    /// The evidence of a drill is sealed.
    DrillFinished {
        /// Which.
        drill: DrillId,
        /// What came of it.
        verdict: Verdict,
        /// SHA-256 of its `SHA256SUMS`, which lists every file of the evidence.
        sums_sha256: Sha256,
    },
    /// A drill's runner ended before the drill did.
    Interrupted {
        /// Which.
        drill: DrillId,
    },
    /// What a crashed drill left was destroyed, or resists.
    Reaped {
        /// Which drill left it.
        drill: DrillId,
        /// What is gone, in our words.
        gone: Vec<String>,
        /// What resists.
        left: Vec<String>,
    },
    /// The daemon saw a scenario for the first time, or it changed.
    ScenarioSeen {
        /// Its name.
        scenario: ScenarioName,
        /// SHA-256 of its file.
        sha256: Sha256,
        /// Its schedule; none where drills happen on demand alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schedule: Option<Box<Schedule>>,
    },
    /// A scenario's file is gone: nothing is due of it any more.
    ScenarioGone {
        /// Its name.
        scenario: ScenarioName,
    },
    /// Settings of the runner changed, or were seen for the first time.
    SettingsSeen {
        /// SHA-256 of the file.
        sha256: Sha256,
    },
    /// A drill was due and did not happen.
    Missed {
        /// Of which scenario.
        scenario: ScenarioName,
        /// When it was due.
        due: Timestamp,
        /// Why.
        reason: MissedReason,
    },
    /// A drill was due, and somebody had decided that it need not happen.
    Waived {
        /// Of which scenario.
        scenario: ScenarioName,
        /// When it was due.
        due: Timestamp,
        /// Why, in their words.
        reason: String,
    },
    /// Somebody decided that drills due up to an instant need not happen.
    Paused {
        /// Of which scenario.
        scenario: ScenarioName,
        /// To when; until it is resumed, where there is none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
        /// Why, in their words.
        reason: String,
    },
    /// Somebody ended a pause.
    Resumed {
        /// Of which scenario.
        scenario: ScenarioName,
    },
    /// Checkpoints are signed by another key from here on; the next one is the first.
    KeyChanged {
        /// Fingerprint of the key that signed before, `SHA256:…`.
        from: String,
        /// Fingerprint of the key that signs now.
        to: String,
    },
    /// A key no longer counts.
    KeyRevoked {
        /// Its fingerprint.
        key: String,
        /// Why, in somebody's words.
        reason: String,
    },
    /// A checkpoint was carried to a place outside.
    Anchored {
        /// How many entries it covers.
        size: u64,
        /// The place's name in the settings.
        place: String,
    },
}

/// Why a drill that was due did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissedReason {
    /// The runner was not running, and the scenario does not want drills late.
    RunnerDown,
    /// It could not start for longer than the scenario lets it be late.
    TooLate,
    /// The next one was due before it could start, and stands for it.
    Superseded,
}

impl MissedReason {
    /// As shown to people.
    pub const fn words(self) -> &'static str {
        match self {
            MissedReason::RunnerDown => "the runner was not running",
            MissedReason::TooLate => "it could not start in time",
            MissedReason::Superseded => "the next one was due before it could start",
        }
    }
}
