//! Wall time, measured time and promised time: three types, so that they never mix.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant of wall-clock time, UTC, nanosecond precision. Says *when*; durations come from [`Elapsed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Timestamp(#[cfg_attr(feature = "runner", schemars(with = "String", extend("format" = "date-time")))] pub jiff::Timestamp);

impl Timestamp {
    /// From whole seconds since the Unix epoch; outside of years -9999 to 9999 the nearest end of that range.
    pub fn from_unix(seconds: i64) -> Self {
        Self(jiff::Timestamp::from_second(seconds).unwrap_or(if seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX }))
    }

    /// `self - earlier` in seconds; negative where `earlier` is later.
    pub fn seconds_since(self, earlier: Timestamp) -> i64 {
        self.0.as_second() - earlier.0.as_second()
    }

    /// The instant that long before; at the end of the range where there is none.
    pub fn earlier_by(self, ago: Elapsed) -> Timestamp {
        Self(self.0.checked_sub(ago.as_duration()).unwrap_or(jiff::Timestamp::MIN))
    }

    /// As `2026-11-21 20:29:32 UTC`, whole seconds.
    pub fn to_human(self) -> String {
        self.0.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = jiff::Error;
    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        text.parse().map(Self)
    }
}

/// Time measured on the monotonic clock since the start of a drill, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Elapsed {
    /// Nanoseconds.
    pub nanos: u64,
}

impl Elapsed {
    /// From a duration of the standard library; caps at 584 years.
    pub fn from_duration(duration: Duration) -> Self {
        Self { nanos: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX) }
    }
    /// As a duration of the standard library.
    pub fn as_duration(self) -> Duration {
        Duration::from_nanos(self.nanos)
    }
    /// The time from `earlier` to `self`; zero where the order is wrong.
    pub fn since(self, earlier: Elapsed) -> Elapsed {
        Elapsed { nanos: self.nanos.saturating_sub(earlier.nanos) }
    }
    /// In seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.nanos as f64 / 1e9
    }
}

impl std::ops::Add for Elapsed {
    type Output = Elapsed;
    fn add(self, other: Elapsed) -> Elapsed {
        Elapsed { nanos: self.nanos.saturating_add(other.nanos) }
    }
}

impl std::iter::Sum for Elapsed {
    fn sum<I: Iterator<Item = Elapsed>>(iter: I) -> Elapsed {
        iter.fold(Elapsed::default(), |a, b| a + b)
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.as_secs_f64();
        if seconds < 1.0 {
            write!(f, "{:.0} ms", seconds * 1e3)
        } else if seconds < 60.0 {
            write!(f, "{seconds:.2} s")
        } else {
            Period::from_secs(seconds.round() as u64).fmt(f)
        }
    }
}

/// A promised or allowed length of time, in whole seconds: `"24h"`, `"90m"`, `"30d"`, `"1d 6h"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "runner", schemars(transparent))]
pub struct Period {
    /// Seconds.
    pub seconds: u64,
}

impl Period {
    /// From whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self { seconds }
    }
    /// As a duration of the standard library.
    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// What is wrong with a written period.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a length of time: write numbers with w, d, h, m or s, as in \"24h\" or \"1d 6h\"")]
pub struct PeriodError(String);

impl FromStr for Period {
    type Err = PeriodError;
    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let bad = || PeriodError(text.to_owned());
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(bad());
        }
        let mut seconds: u64 = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
            rest = rest[digits..].trim_start();
            let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let factor = match &rest[..letters] {
                "s" | "sec" | "second" | "seconds" => 1,
                "m" | "min" | "minute" | "minutes" => 60,
                "h" | "hour" | "hours" => 3_600,
                "d" | "day" | "days" => 86_400,
                "w" | "week" | "weeks" => 604_800,
                _ => return Err(bad()),
            };
            seconds = number.checked_mul(factor).and_then(|n| seconds.checked_add(n)).ok_or_else(bad)?;
            rest = rest[letters..].trim_start();
        }
        Ok(Self { seconds })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.seconds;
        let mut parts = Vec::new();
        for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
            if left >= length {
                parts.push(format!("{}{unit}", left / length));
                left %= length;
            }
        }
        // two units say enough: nobody reads the seconds of a three-day gap
        parts.truncate(2);
        f.write_str(if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }.as_str())
    }
}

impl Serialize for Period {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.seconds)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(Self::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_and_shown() {
        assert_eq!("24h".parse(), Ok(Period::from_secs(86_400)));
        assert_eq!("1d 6h".parse(), Ok(Period::from_secs(108_000)));
        assert_eq!(Period::from_secs(108_061).to_string(), "1d 6h");
        assert_eq!(Period::from_secs(0).to_string(), "0s");
        for text in ["", "24", "h", "1 fortnight", "-1h", "99999999999999w"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }
}
