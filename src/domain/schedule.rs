//! When drills are due, and what is done where they cannot happen then.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Period, TimeZone};

/// When drills are due: five fields, as crontab(5) means them, and how strictly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The five fields, valid.
    pub cron: String,
    /// In which zone.
    pub time_zone: TimeZone,
    /// A drill starts up to this much later than it is due: as much for the same occurrence always, so that many scenarios of one line do
    /// not start at once.
    #[serde(default)]
    pub jitter: Period,
    /// Times in which drills may start; any where there are none.
    #[serde(default)]
    pub windows: Vec<Window>,
    /// What becomes of a drill that was due while the runner was down.
    #[serde(default)]
    pub missed: MissedPolicy,
    /// How long after its time a drill may still start; until the next one is due where nothing is said.
    #[serde(default)]
    pub late: Option<Period>,
    /// What is done after a drill that came to no result.
    #[serde(default)]
    pub retry: Retry,
}

/// What becomes of a drill that was due while the runner was down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissedPolicy {
    /// The last one of them runs late; those before it are recorded as missed.
    #[default]
    Run,
    /// All of them are recorded as missed.
    Record,
}

/// What is done after a drill that came to no result: it is tried again, each time after twice as long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// How often.
    pub attempts: u32,
    /// How long after the first one's end.
    pub after: Period,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 2, after: Period::from_secs(15 * 60) }
    }
}

impl Retry {
    /// How long to wait before attempt `attempt`, counted from 1; `None` where it is one too many.
    pub fn delay(self, attempt: u32) -> Option<Period> {
        let doubled = 1_u64.checked_shl(attempt.checked_sub(1)?)?;
        (attempt <= self.attempts).then(|| Period::from_secs(self.after.seconds.saturating_mul(doubled)))
    }
}

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MINUTES: u16 = 24 * 60;

/// A stretch of a week in which drills may start, as `Mon-Fri 20:00-06:00` or `Sat,Sun`. One that ends before it begins goes on into the next
/// day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Window {
    /// On which days it begins, Monday first.
    days: [bool; 7],
    /// Minute of the day at which it begins, below 1,440.
    from: u16,
    /// How many minutes it is open, 1 to 1,440.
    minutes: u16,
}

/// What is wrong with a window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no window: write days, times or both, as \"Mon-Fri 20:00-06:00\" or \"Sat,Sun\"")]
pub struct WindowError(String);

impl Window {
    /// Whether it is open at `minute` of a day, counted from Monday: 0 to 6.
    pub fn is_open(&self, day: usize, minute: u16) -> bool {
        let before = (day + 6) % 7;
        let today = self.days[day] && (self.from..self.from + self.minutes).contains(&minute);
        let since_yesterday = self.days[before] && self.from + self.minutes > MINUTES && minute < self.from + self.minutes - MINUTES;
        today || since_yesterday
    }

    /// Minute of the day at which it begins.
    pub fn from(&self) -> u16 {
        self.from
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let wrong = || WindowError(text.to_owned());
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, times) = match words.as_slice() {
            [days, times] => (*days, *times),
            [one] if one.contains(':') => ("Mon-Sun", *one),
            [one] => (*one, "00:00-24:00"),
            _ => return Err(wrong()),
        };
        let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name)).ok_or_else(wrong);
        let mut set = [false; 7];
        for part in days.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (day(first)?, day(last)?);
            (0..=(last + 7 - first) % 7).for_each(|n| set[(first + n) % 7] = true);
        }
        let minute = |text: &str| {
            let (hour, minute) = text.split_once(':')?;
            let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
            (minute < 60 && hour * 60 + minute <= MINUTES).then_some(hour * 60 + minute)
        };
        let (from, to) = times.split_once('-').ok_or_else(wrong)?;
        let (from, to) = (minute(from).ok_or_else(wrong)?, minute(to).ok_or_else(wrong)?);
        let minutes = if to > from { to - from } else { to + MINUTES - from };
        if from == MINUTES || from == to {
            return Err(wrong());
        }
        Ok(Self { days: set, from, minutes })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<&str> = DAYS.iter().zip(self.days).filter_map(|(day, on)| on.then_some(*day)).collect();
        let end = self.from + self.minutes;
        let end = if end > MINUTES { end - MINUTES } else { end };
        write!(f, "{} {:02}:{:02}-{:02}:{:02}", days.join(","), self.from / 60, self.from % 60, end / 60, end % 60)
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

impl TryFrom<String> for Window {
    type Error = WindowError;

    fn try_from(text: String) -> Result<Self, WindowError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_open_and_close_as_they_say() {
        let nights: Window = "Mon-Fri 20:00-06:00".parse().unwrap();
        for (day, minute, open) in
            [(0, 1_199, false), (0, 1_200, true), (0, 100, false), (1, 359, true), (1, 360, false), (5, 100, true), (5, 1_200, false)]
        {
            assert_eq!(nights.is_open(day, minute), open, "day {day}, minute {minute}");
        }
        let weekend: Window = "sat,SUN".parse().unwrap();
        assert!(weekend.is_open(5, 0) && weekend.is_open(6, 1_439) && !weekend.is_open(0, 0));
        let over_the_weekend: Window = "Fri-Mon 22:00-24:00".parse().unwrap();
        assert_eq!(over_the_weekend.to_string(), "Mon,Fri,Sat,Sun 22:00-24:00");
        let daily: Window = "01:00-05:30".parse().unwrap();
        assert!(daily.is_open(3, 329) && !daily.is_open(3, 330));
    }

    #[test]
    fn windows_are_written_as_they_are_read() {
        for text in ["Mon,Tue 20:00-06:00", "Sun 00:00-24:00", "Sat 23:59-00:01"] {
            let window: Window = text.parse().unwrap();
            assert_eq!(window.to_string(), text);
        }
        for bad in
            ["", "Mo 1:00-2:00", "Mon 1-2", "Mon 25:00-26:00", "Mon 12:60-13:00", "Mon 12:00-12:00", "Mon 1:00-2:00 x", "24:00-01:00"]
        {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
    }

    #[test]
    fn retries_wait_twice_as_long_each_time_and_end() {
        let retry = Retry { attempts: 3, after: Period::from_secs(60) };
        let delays: Vec<Option<u64>> = (0..5).map(|attempt| retry.delay(attempt).map(|p| p.seconds)).collect();
        assert_eq!(delays, [None, Some(60), Some(120), Some(240), None]);
        assert_eq!(Retry { attempts: 100, after: Period::from_secs(1) }.delay(90), None, "longer than time itself");
    }
}
