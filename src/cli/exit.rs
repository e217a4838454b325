//! Exit statuses, which scripts lean on.

use std::process::ExitCode;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: passed, trusted, done.
    Passed,
    /// 1: failed, or refused.
    Failed,
    /// 2: usage or configuration.
    Usage,
    /// 3: inconclusive: nothing was learned about the backup.
    Inconclusive,
    /// 4: evidence could not be recorded.
    NotRecorded,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Passed => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Inconclusive => 3,
            Exit::NotRecorded => 4,
        }
    }

    /// Of several drills, the status that says most: not recorded over failed over inconclusive over passed.
    pub fn worst(self, other: Exit) -> Exit {
        let rank = |exit: Exit| match exit {
            Exit::Passed => 0,
            Exit::Inconclusive => 1,
            Exit::Failed => 2,
            Exit::Usage => 3,
            Exit::NotRecorded => 4,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Why a command ended early: what failed, why (the chain), and what to try next.
#[derive(Debug)]
pub struct Failure {
    /// The status.
    pub exit: Exit,
    /// What failed, with its causes.
    pub error: anyhow::Error,
    /// What to try next.
    pub advice: Option<String>,
}

impl Failure {
    /// Without advice.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into(), advice: None }
    }
    /// A mistake in flags or files.
    pub fn config(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Usage, error)
    }
    /// With advice.
    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_drills_end_as_the_worst_of_them() {
        assert_eq!(Exit::Passed.worst(Exit::Inconclusive), Exit::Inconclusive);
        assert_eq!(Exit::Failed.worst(Exit::Inconclusive), Exit::Failed);
        assert_eq!(Exit::Failed.worst(Exit::NotRecorded), Exit::NotRecorded);
    }
}
