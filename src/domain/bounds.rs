//! Bounds of a sandbox: what a scenario allows, what it insists on, and how each is held.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Processors, in thousandths: what runs inside gets that much of their time, however many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpus(u32);

impl Cpus {
    /// From what a scenario writes, as `1.5`; at least a hundredth of a processor, at most a thousand of them.
    pub fn new(processors: f64) -> Option<Self> {
        let thousandths = (processors * 1_000.0).round();
        // a NaN is in no range
        (10.0..=1_000_000.0).contains(&thousandths).then_some(Self(thousandths as u32))
    }

    /// Microseconds of processor time for a period of wall time.
    pub const fn quota(self, period_us: u64) -> u64 {
        period_us * self.0 as u64 / 1_000
    }

    /// Processors that are at work at once, as whole ones: at least one.
    pub const fn whole(self) -> u32 {
        self.0.div_ceil(1_000)
    }

    /// Whole seconds of processor time for seconds of wall time, at least one.
    pub const fn seconds_in(self, wall: u64) -> u64 {
        let seconds = wall.saturating_mul(self.0 as u64).div_ceil(1_000);
        if seconds == 0 { 1 } else { seconds }
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.0 == 1_000 { "processor" } else { "processors" };
        write!(f, "{} {unit}", f64::from(self.0) / 1_000.0)
    }
}

/// A promise of the sandbox that a scenario may insist on. Where the host cannot keep it, the drill is refused before
/// anything is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// Processes, mounts and network apart from the host's, also where no command runs.
    Isolation,
    /// Memory bounded for all processes together, and hitting it told.
    Memory,
    /// Processes bounded and counted, and hitting it told.
    Processes,
    /// Processor time bounded by a quota.
    Cpu,
    /// Scratch bounded by its own file system.
    Scratch,
    /// No memory with restored data can reach a swap device.
    NoSwap,
    /// Landlock on top of the mounts.
    Landlock,
}

impl Requirement {
    /// As a scenario writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Requirement::Isolation => "isolation",
            Requirement::Memory => "memory",
            Requirement::Processes => "processes",
            Requirement::Cpu => "cpu",
            Requirement::Scratch => "scratch",
            Requirement::NoSwap => "no_swap",
            Requirement::Landlock => "landlock",
        }
    }
}

/// How a bound is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// For everything inside together.
    Together,
    /// For each process for itself.
    Each,
    /// Not at all.
    Not,
}

/// One bound of a sandbox that stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct BoundFacts {
    /// What is bounded, by the word that a finding would use.
    pub bound: String,
    /// Its value, with its unit.
    pub value: String,
    /// How it is held.
    pub held: Held,
    /// By what.
    pub by: String,
    /// Whether hitting it is told from other failures, as a finding of its own.
    pub told: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_written_as_people_count_them() {
        assert_eq!(Cpus::new(1.5).unwrap().quota(100_000), 150_000);
        assert_eq!(Cpus::new(1.5).unwrap().to_string(), "1.5 processors");
        assert_eq!(Cpus::new(1.0).unwrap().to_string(), "1 processor");
        assert_eq!(Cpus::new(0.5).unwrap().seconds_in(3), 2);
        assert_eq!(Cpus::new(0.01).unwrap().seconds_in(1), 1);
        for nonsense in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9, 0.004] {
            assert_eq!(Cpus::new(nonsense), None, "{nonsense}");
        }
    }
}
