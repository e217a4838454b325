//! What can go wrong with a sandbox. All of it is the runner's, never the backup's.

use std::fmt;
use std::io;

use crate::domain::{Cause, DrillId, FindingKind};

/// A bound of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Memory of what runs inside.
    Memory,
    /// Wall time.
    Time,
    /// Processes and threads at once.
    Processes,
    /// Bytes on standard output or standard error.
    Output,
    /// Bytes of scratch.
    Scratch,
    /// Entries of scratch.
    Inodes,
    /// Processor time.
    Cpu,
    /// Bytes or entries of the private `/tmp`.
    Tmp,
    /// Bytes or entries of the private `/run`.
    Run,
    /// Bytes or entries of shared memory.
    SharedMemory,
}

impl Limit {
    /// As findings name it.
    pub const fn word(self) -> &'static str {
        match self {
            Limit::Memory => "memory",
            Limit::Time => "time",
            Limit::Processes => "processes",
            Limit::Output => "output",
            Limit::Scratch => "scratch",
            Limit::Inodes => "inodes",
            Limit::Cpu => "cpu",
            Limit::Tmp => "private /tmp",
            Limit::Run => "private /run",
            Limit::SharedMemory => "/dev/shm",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a sandbox could not be made, used or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// What was asked for makes no sense.
    #[error("the sandbox was asked for something impossible: {what}")]
    Spec {
        /// What.
        what: String,
    },
    /// This host cannot make the sandbox that was asked for.
    #[error("this host cannot make the sandbox: {why}")]
    Unavailable {
        /// Why, in our words.
        why: String,
        /// What to change.
        advice: String,
    },
    /// A sandbox of this drill stands already, here or in another runner.
    #[error("a sandbox of drill {drill} stands already")]
    Busy {
        /// The drill.
        drill: DrillId,
    },
    /// A bound was hit.
    #[error("the sandbox hit its {limit} limit of {value}")]
    Limit {
        /// Which.
        limit: Limit,
        /// Its value, with its unit.
        value: String,
    },
    /// The command could not be started inside.
    #[error("the command could not be started inside the sandbox ({step})")]
    NotStarted {
        /// The step that failed.
        step: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The sandbox ended before its time.
    #[error("the sandbox ended before its time: {how}")]
    Died {
        /// How, in our words.
        how: String,
    },
    /// The operating system refused a step.
    #[error("could not {step}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl SandboxError {
    /// Who is to blame: always the runner and its host.
    pub const fn cause(&self) -> Cause {
        Cause::Runner
    }

    /// What to try next, where that is known.
    pub fn advice(&self) -> Option<&str> {
        match self {
            SandboxError::Unavailable { advice, .. } => Some(advice),
            _ => None,
        }
    }

    /// The fact for the evidence: our words and numbers, no path and nothing restored.
    pub fn finding(&self) -> FindingKind {
        match self {
            SandboxError::Limit { limit, value } => FindingKind::SandboxLimit { limit: limit.word().to_owned(), value: value.clone() },
            SandboxError::Unavailable { why, .. } => FindingKind::SandboxUnavailable { reason: why.clone() },
            SandboxError::Spec { .. } | SandboxError::Busy { .. } => FindingKind::SandboxUnavailable { reason: self.to_string() },
            SandboxError::Died { .. } => FindingKind::CouldNotRun { reason: self.to_string() },
            SandboxError::NotStarted { source, .. } | SandboxError::Io { source, .. } => {
                FindingKind::CouldNotRun { reason: format!("{self}: {}", source.kind()) }
            }
        }
    }
}

/// Names the step that failed; `std::io` errors and rustix's alike.
pub(super) trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, SandboxError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, SandboxError> {
        self.map_err(|e| SandboxError::Io { step, source: e.into() })
    }
}
