//! What was promised, what was measured, and whether the one meets the other.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Elapsed, Period, Timestamp};

/// RPO and RTO promised for a system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Objectives {
    /// Recovery point objective: how old the newest restored data may be, in seconds.
    pub rpo: Option<Period>,
    /// Recovery time objective: how long from the start until the system is usable, in seconds.
    pub rto: Option<Period>,
    /// What people need before the first byte moves (declaring, deciding), declared and not measured, in seconds.
    /// Added to the measured recovery time.
    pub declared: Option<Period>,
    /// How far apart the components of the system may have been captured, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew: Option<Period>,
}

/// Where a capture time or data age comes from, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CaptureSource {
    /// The newest data found in the restored content.
    Content,
    /// The manifest, signed by a producer the scenario trusts.
    SignedManifest,
    /// The manifest, unsigned.
    Manifest,
    /// The backup tool's own list of its recovery points.
    Tool,
    /// The object's name.
    Name,
    /// The object's upload time: says when it was written, not when its data was captured.
    UploadTime,
}

impl fmt::Display for CaptureSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CaptureSource::Content => "newest data in the restored content",
            CaptureSource::SignedManifest => "manifest signed by a trusted producer",
            CaptureSource::Manifest => "manifest, not signed by a trusted producer",
            CaptureSource::Tool => "backup tool's own list of its recovery points",
            CaptureSource::Name => "name of the object",
            CaptureSource::UploadTime => "upload time of the object (weak: says when it was stored, not when its data was captured)",
        })
    }
}

/// The recovery time of a drill, in its parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Recovery {
    /// From the start of the drill until the system was usable.
    pub measured: Elapsed,
    /// What people need, as the scenario declares it.
    pub declared: Period,
}

impl Recovery {
    /// Measured and declared together, rounded up to whole seconds.
    pub fn total(&self) -> Period {
        let measured = self.measured.nanos.div_ceil(1_000_000_000);
        Period::from_secs(measured.saturating_add(self.declared.seconds))
    }
}

/// Data age at the start of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Achieved {
    /// The newest data's instant.
    pub data_as_of: Timestamp,
    /// Drill start minus `data_as_of`, seconds.
    pub age: Period,
    /// How `data_as_of` is known.
    pub source: CaptureSource,
}

/// What a drill measured. `None` is "not measured", never "fine".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Measurements {
    /// Time to usable.
    pub recovery: Option<Recovery>,
    /// Age of the recovered data.
    pub data_age: Option<Achieved>,
    /// The worst gap between consecutive recovery points in the look-back window, the one up to now included, seconds:
    /// what a disaster at the worst moment would have lost.
    pub worst_gap: Option<Period>,
    /// From the capture of the oldest component to that of the newest, seconds; absent where there is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew: Option<Period>,
}

/// One objective against what was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Met {
    /// Measured, within the objective.
    Met,
    /// Measured, beyond the objective.
    Missed,
    /// An objective was set and nothing was measured.
    NotMeasured,
}

/// An objective, its target and what was achieved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Assessment {
    /// `"rpo"`, `"rto"` or `"skew"`.
    pub objective: String,
    /// The promise, seconds.
    pub target: Period,
    /// What was achieved, seconds.
    pub achieved: Option<Period>,
    /// Whether the promise was kept.
    pub met: Met,
}

/// Holds each objective that was set against what was measured.
pub fn assess(objectives: &Objectives, measured: &Measurements) -> Vec<Assessment> {
    let one = |objective: &str, target: Option<Period>, achieved: Option<Period>| {
        target.map(|target| Assessment {
            objective: objective.to_owned(),
            target,
            achieved,
            met: match achieved {
                None => Met::NotMeasured,
                Some(achieved) if achieved <= target => Met::Met,
                Some(_) => Met::Missed,
            },
        })
    };
    [
        one("rpo", objectives.rpo, measured.data_age.as_ref().map(|a| a.age)),
        one("rto", objectives.rto, measured.recovery.as_ref().map(Recovery::total)),
        one("skew", objectives.skew, measured.skew),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The longest time between consecutive capture times that ends within `window` before `now`, the gap up to `now`
/// included. `None` without any capture time.
pub fn worst_gap(captures: &[Timestamp], now: Timestamp, window: Period) -> Option<Period> {
    let mut times: Vec<Timestamp> = captures.iter().copied().filter(|t| *t <= now).collect();
    if times.is_empty() {
        return None;
    }
    times.sort_unstable();
    times.push(now);
    times
        .windows(2)
        .filter(|pair| now.seconds_since(pair[1]).unsigned_abs() <= window.seconds)
        .map(|pair| Period::from_secs(pair[1].seconds_since(pair[0]).unsigned_abs()))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_without_a_measurement_is_not_met() {
        let objectives = Objectives { rpo: Some(Period::from_secs(10)), rto: Some(Period::from_secs(10)), ..Objectives::default() };
        let all = assess(&objectives, &Measurements::default());
        assert!(all.iter().all(|a| a.met == Met::NotMeasured) && all.len() == 2);
    }

    #[test]
    fn a_recovery_time_is_rounded_up_and_takes_the_declared_part() {
        let recovery = Recovery { measured: Elapsed { nanos: 3_000_000_001 }, declared: Period::from_secs(6) };
        let objectives = Objectives { rto: Some(Period::from_secs(9)), ..Objectives::default() };
        let missed = assess(&objectives, &Measurements { recovery: Some(recovery), ..Measurements::default() });
        assert_eq!(missed[0].achieved, Some(Period::from_secs(10)));
        assert_eq!(missed[0].met, Met::Missed);
    }

    #[test]
    fn the_worst_gap_counts_the_one_up_to_now() {
        let t = Timestamp::from_unix;
        let week = Period::from_secs(1_000);
        assert_eq!(worst_gap(&[t(0), t(10), t(40)], t(45), week), Some(Period::from_secs(30)));
        assert_eq!(worst_gap(&[t(0), t(10), t(40)], t(100), week), Some(Period::from_secs(60)));
        assert_eq!(worst_gap(&[], t(100), week), None);
        assert_eq!(worst_gap(&[t(0), t(5_000), t(5_010)], t(5_020), Period::from_secs(15)), Some(Period::from_secs(10)));
    }
}
