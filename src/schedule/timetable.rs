//! A scenario's schedule, ready to be asked: when it is due, and when a drill may start then.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan as _};

use super::{Crontab, CrontabError};
use crate::domain::{Period, ScenarioName, Schedule, Timestamp, Window};

/// A schedule that was understood.
#[derive(Debug, Clone)]
pub struct Timetable {
    crontab: Crontab,
    zone: TimeZone,
    seed: String,
    /// What it was made of.
    pub schedule: Schedule,
}

/// Why a schedule cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimetableError {
    /// The line cannot be read.
    #[error(transparent)]
    Line(#[from] CrontabError),
    /// The zone is not known here.
    #[error("the time zone `{0}` is not known here")]
    Zone(String),
}

impl Timetable {
    /// Of a scenario; its name decides how much its drills are put off.
    ///
    /// # Errors
    /// [`TimetableError`].
    pub fn new(scenario: &ScenarioName, schedule: &Schedule) -> Result<Self, TimetableError> {
        let zone = &schedule.time_zone.0;
        Ok(Self {
            crontab: schedule.cron.parse()?,
            zone: TimeZone::get(zone).map_err(|_| TimetableError::Zone(zone.clone()))?,
            seed: scenario.to_string(),
            schedule: schedule.clone(),
        })
    }

    /// The first occurrence after an instant.
    pub fn next_due(&self, after: Timestamp) -> Option<Timestamp> {
        self.crontab.next_after(after, &self.zone)
    }

    /// When the drill that is due at `due` may start: put off a little, and in a window.
    pub fn start_of(&self, due: Timestamp) -> Timestamp {
        let put_off = match self.schedule.jitter {
            Period { seconds: 0 } => 0,
            Period { seconds } => {
                let digest = blake3::hash(format!("{}\n{}", self.seed, due.0).as_bytes());
                let number = u64::from_le_bytes(digest.as_bytes()[..8].try_into().expect("eight bytes"));
                number % (seconds + 1)
            }
        };
        let at = Timestamp(due.0.saturating_add(SignedDuration::from_secs(put_off.cast_signed())).unwrap_or(due.0));
        self.opening(at).unwrap_or(at)
    }

    /// The first instant from `at` on at which a window is open; none where there are no windows.
    fn opening(&self, at: Timestamp) -> Option<Timestamp> {
        let windows = &self.schedule.windows;
        let wall = at.0.to_zoned(self.zone.clone());
        let minute = u16::try_from(i32::from(wall.hour()) * 60 + i32::from(wall.minute())).ok()?;
        if windows.is_empty() || windows.iter().any(|window| window.is_open(day(wall.weekday()), minute)) {
            return None;
        }
        let begins = |window: &Window, date: jiff::civil::Date| {
            let opens = window.is_open(day(date.weekday()), window.from()).then(|| i8::try_from(window.from() / 60).ok())??;
            let time = date.at(opens, i8::try_from(window.from() % 60).ok()?, 0, 0);
            self.zone.to_ambiguous_timestamp(time).compatible().ok()
        };
        let dates = (0..8).filter_map(|days| wall.date().checked_add(days.days()).ok());
        let openings = dates.flat_map(|date| windows.iter().filter_map(move |window| begins(window, date)));
        openings.filter(|opening| *opening >= at.0).min().map(Timestamp)
    }
}

fn day(weekday: Weekday) -> usize {
    usize::from(weekday.to_monday_zero_offset().unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{MissedPolicy, Retry};

    fn timetable(cron: &str, zone: &str, jitter: u64, windows: &[&str]) -> Timetable {
        let schedule = Schedule {
            cron: cron.into(),
            time_zone: crate::domain::TimeZone(zone.into()),
            jitter: Period::from_secs(jitter),
            windows: windows.iter().map(|window| window.parse().unwrap()).collect(),
            missed: MissedPolicy::Run,
            late: None,
            retry: Retry::default(),
        };
        Timetable::new(&"ehr".parse().unwrap(), &schedule).unwrap()
    }

    fn starts(timetable: &Timetable, due: &str) -> String {
        timetable.start_of(due.parse().unwrap()).0.to_string()
    }

    #[test]
    fn a_drill_starts_when_a_window_opens() {
        // 2026-11-25 is a Wednesday; Berlin is an hour ahead
        let nights = timetable("0 12 * * *", "Europe/Berlin", 0, &["Mon-Fri 20:00-06:00", "Sat,Sun"]);
        assert_eq!(starts(&nights, "2026-11-25T11:00:00Z"), "2026-11-25T19:00:00Z");
        assert_eq!(starts(&nights, "2026-11-25T20:00:00Z"), "2026-11-25T20:00:00Z", "open already");
        assert_eq!(starts(&nights, "2026-11-27T23:30:00Z"), "2026-11-27T23:30:00Z", "Saturday in Berlin");
        let sundays = timetable("0 12 * * *", "Europe/Berlin", 0, &["Sun 02:30-04:00"]);
        assert_eq!(starts(&sundays, "2026-11-25T11:00:00Z"), "2026-11-29T01:30:00Z");
        // the hour that the window opens in does not exist on that day
        assert_eq!(starts(&sundays, "2026-03-28T11:00:00Z"), "2026-03-29T01:30:00Z");
        assert_eq!(starts(&timetable("0 12 * * *", "UTC", 0, &[]), "2026-11-25T12:00:00Z"), "2026-11-25T12:00:00Z");
    }

    #[test]
    fn jitter_puts_the_same_occurrence_off_by_as_much_and_different_ones_differently() {
        let jittered = timetable("0 * * * *", "UTC", 600, &[]);
        let offsets: Vec<i64> = (0..50)
            .map(|hour| {
                let due = Timestamp::from_unix(1_790_000_000 + hour * 3_600);
                assert_eq!(jittered.start_of(due), jittered.start_of(due));
                jittered.start_of(due).seconds_since(due)
            })
            .collect();
        assert!(offsets.iter().all(|offset| (0..=600).contains(offset)));
        assert!(offsets.iter().collect::<std::collections::BTreeSet<_>>().len() > 30, "{offsets:?}");
    }
}
