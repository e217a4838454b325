//! Five-field cron in a time zone with daylight saving.
//!
//! The `cron` crate iterates; this layer makes it mean what crontab(5) means. It reads weekday 1 as Sunday, joins
//! day-of-month and weekday with AND, and in a zone loses a job in the spring gap and runs it twice in the autumn fold.
//! So the five fields are expanded to plain lists here, iterated on wall-clock time *written as UTC*, and `jiff` maps
//! each wall time to the zone: in a gap to the moment as far after it, in a fold to the first of the two.

use std::collections::BTreeSet;
use std::str::FromStr;

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc};
use jiff::civil;
use jiff::tz::TimeZone;

use crate::domain::{Period, Timestamp};

/// A parsed line of five fields, one of `@hourly @daily @midnight @weekly @monthly @quarterly @yearly @annually`, or `@every 6h`.
#[derive(Debug, Clone)]
pub struct Crontab {
    form: Form,
    text: String,
}

#[derive(Debug, Clone)]
enum Form {
    /// Five fields: of two of these, where either may match.
    Fields(Vec<cron::Schedule>),
    /// So many seconds apart, counted from 1970: in no zone, and the same after each start.
    Every(i64),
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrontabError {
    /// Another number of fields.
    #[error("a schedule has five fields (minute, hour, day of month, month, day of week); this one has {0}")]
    Fields(usize),
    /// A field that cannot be read.
    #[error("`{text}` is not a {field}: {why}")]
    Field {
        /// Which.
        field: &'static str,
        /// As written.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// `@every` without a period.
    #[error("`@every` is followed by a period of at least a second, as `@every 6h`, not by `{0}`")]
    Every(String),
    /// It is well formed and never happens, as `0 0 30 2 *`.
    #[error("this schedule never happens")]
    Never,
}

struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", first: 0, last: 59, names: &[] },
    Field { name: "hour", first: 0, last: 23, names: &[] },
    Field { name: "day of month", first: 1, last: 31, names: &[] },
    Field {
        name: "month",
        first: 1,
        last: 12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    // 7 is Sunday as well
    Field { name: "day of week", first: 0, last: 7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// A wall-clock time may lie this far from its place in the order of instants: more than any zone ever jumped.
const WINDOW: TimeDelta = TimeDelta::hours(26);

impl FromStr for Crontab {
    type Err = CrontabError;

    fn from_str(text: &str) -> Result<Self, CrontabError> {
        if let Some(period) = text.trim().strip_prefix("@every") {
            let seconds = period.trim().parse().ok().and_then(|period: Period| i64::try_from(period.seconds).ok());
            let every = seconds.filter(|seconds| *seconds > 0).ok_or_else(|| CrontabError::Every(period.trim().to_owned()))?;
            return Ok(Self { form: Form::Every(every), text: text.trim().to_owned() });
        }
        let line = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@quarterly" => "0 0 1 1,4,7,10 *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(CrontabError::Fields(fields.len()));
        }
        let mut sets = Vec::with_capacity(FIELDS.len());
        for (field, text) in FIELDS.iter().zip(&fields) {
            sets.push(expand(field, text)?);
        }
        let weekdays: BTreeSet<u32> = sets[4].iter().map(|day| day % 7).collect();
        let list = |set: &BTreeSet<u32>| set.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let weekday_names = weekdays.iter().map(|day| WEEKDAYS[*day as usize]).collect::<Vec<_>>().join(",");
        let make = |days: &str, weekdays: &str| {
            let line = format!("0 {} {} {days} {} {weekdays} *", list(&sets[0]), list(&sets[1]), list(&sets[3]));
            cron::Schedule::from_str(&line).map_err(|e| CrontabError::Field {
                field: "schedule",
                text: text.to_owned(),
                why: e.to_string(),
            })
        };
        // crontab(5): with both day fields restricted, either may match; a field is restricted unless it begins with `*`
        let both = !fields[2].starts_with('*') && !fields[4].starts_with('*');
        let schedules =
            if both { vec![make(&list(&sets[2]), "*")?, make("*", &weekday_names)?] } else { vec![make(&list(&sets[2]), &weekday_names)?] };
        let crontab = Self { form: Form::Fields(schedules), text: text.trim().to_owned() };
        if crontab.next_after(Timestamp::from_unix(1_704_067_200), &TimeZone::UTC).is_none() {
            return Err(CrontabError::Never);
        }
        Ok(crontab)
    }
}

impl std::fmt::Display for Crontab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Crontab {
    /// The first occurrence strictly after `after`, in `zone`. `None` after the year 2100.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let schedules = match &self.form {
            Form::Fields(schedules) => schedules,
            Form::Every(seconds) => {
                let last = after.0.as_second().div_euclid(*seconds) * seconds;
                return jiff::Timestamp::from_second(last.checked_add(*seconds)?).ok().map(Timestamp);
            }
        };
        let from = as_utc(zone.to_datetime(after.0))? - WINDOW;
        let mut best: Option<jiff::Timestamp> = None;
        for schedule in schedules {
            let mut stop: Option<DateTime<Utc>> = None;
            for wall in schedule.after(&from) {
                if stop.is_some_and(|stop| wall > stop) {
                    break;
                }
                let Some(instant) = in_zone(wall, zone) else { continue };
                if instant <= after.0 {
                    continue;
                }
                // a later wall time can still be an earlier instant, but not beyond the window
                stop.get_or_insert(wall + WINDOW);
                best = Some(best.map_or(instant, |b| b.min(instant)));
            }
        }
        best.map(Timestamp)
    }
}

fn as_utc(wall: civil::DateTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(wall.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second(), 0)
}

fn in_zone(wall: DateTime<Utc>, zone: &TimeZone) -> Option<jiff::Timestamp> {
    let small = |n: u32| i8::try_from(n).ok();
    let civil = civil::DateTime::new(
        i16::try_from(wall.year()).ok()?,
        small(wall.month())?,
        small(wall.day())?,
        small(wall.hour())?,
        small(wall.minute())?,
        small(wall.second())?,
        0,
    );
    zone.to_ambiguous_timestamp(civil.ok()?).compatible().ok()
}

/// Expands lists, ranges (wrapping ones too), steps and names to the numbers they mean.
fn expand(field: &Field, text: &str) -> Result<BTreeSet<u32>, CrontabError> {
    let bad = |why: String| CrontabError::Field { field: field.name, text: text.to_owned(), why };
    let number = |word: &str| -> Result<u32, CrontabError> {
        let lower = word.to_ascii_lowercase();
        if let Some(at) = field.names.iter().position(|name| *name == lower) {
            return Ok(at as u32 + field.first);
        }
        let value: u32 = word
            .parse()
            .map_err(|_| bad(format!("`{word}` is not a number{}", if field.names.is_empty() { "" } else { " or a three-letter name" })))?;
        if (field.first..=field.last).contains(&value) {
            Ok(value)
        } else {
            Err(bad(format!("{value} is outside {}–{}", field.first, field.last)))
        }
    };
    // for ranges and stars the second Sunday would only count twice
    let last = if field.last == 7 { 6 } else { field.last };
    let mut set = BTreeSet::new();
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step: usize = step.parse().ok().filter(|s| *s > 0).ok_or_else(|| bad(format!("`{step}` is not a step")))?;
                (range, Some(step))
            }
            None => (part, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (field.first, last),
            Some((from, to)) => (number(from)?, number(to)?),
            None => {
                let from = number(range)?;
                (from, if step.is_some() { last } else { from })
            }
        };
        let step = step.unwrap_or(1);
        if from <= to {
            set.extend((from..=to).step_by(step));
        } else {
            // FRI-MON, 22-2: through the end and on from the beginning
            set.extend((from..=last).chain(field.first..=to).step_by(step));
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn upcoming(line: &str, zone: &TimeZone, from: &str, n: usize) -> Vec<String> {
        let crontab: Crontab = line.parse().unwrap();
        let mut now = at(from);
        (0..n)
            .map(|_| {
                now = crontab.next_after(now, zone).unwrap();
                now.0.to_zoned(zone.clone()).strftime("%a %F %H:%M%:z").to_string()
            })
            .collect()
    }

    #[test]
    fn weekday_one_is_monday_and_zero_and_seven_are_sunday() {
        let monday_to_friday = upcoming("0 3 * * 1-5", &TimeZone::UTC, "2026-11-20T12:00:00Z", 2);
        assert_eq!(monday_to_friday, ["Mon 2026-11-23 03:00+00:00", "Tue 2026-11-24 03:00+00:00"]);
        assert_eq!(upcoming("0 3 * * 0", &TimeZone::UTC, "2026-11-20T12:00:00Z", 1), ["Sun 2026-11-22 03:00+00:00"]);
        assert_eq!(upcoming("0 3 * * 7", &TimeZone::UTC, "2026-11-20T12:00:00Z", 1), ["Sun 2026-11-22 03:00+00:00"]);
        assert_eq!(upcoming("0 3 * * FRI-MON", &TimeZone::UTC, "2026-11-20T12:00:00Z", 4)[3], "Fri 2026-11-27 03:00+00:00");
    }

    #[test]
    fn two_restricted_day_fields_mean_either() {
        let either = upcoming("0 0 13 * 5", &TimeZone::UTC, "2026-11-21T00:00:00Z", 4);
        assert_eq!(
            either,
            ["Fri 2026-11-27 00:00+00:00", "Fri 2026-12-04 00:00+00:00", "Fri 2026-12-11 00:00+00:00", "Sun 2026-12-13 00:00+00:00"]
        );
    }

    #[test]
    fn the_quarterly_drill_is_quarterly() {
        let quarters = upcoming("0 3 1 1,4,7,10 *", &zone("America/Chicago"), "2026-11-21T00:00:00Z", 4);
        assert_eq!(
            quarters,
            ["Fri 2027-01-01 03:00-06:00", "Thu 2027-04-01 03:00-05:00", "Thu 2027-07-01 03:00-05:00", "Fri 2027-10-01 03:00-05:00"]
        );
        assert_eq!(upcoming("@quarterly", &TimeZone::UTC, "2026-11-21T00:00:00Z", 1), ["Fri 2027-01-01 00:00+00:00"]);
    }

    #[test]
    fn a_job_in_the_spring_gap_runs_once_after_it() {
        let berlin = zone("Europe/Berlin");
        let days = upcoming("30 2 * * *", &berlin, "2026-03-28T00:00:00Z", 3);
        assert_eq!(days, ["Sat 2026-03-28 02:30+01:00", "Sun 2026-03-29 03:30+02:00", "Mon 2026-03-30 02:30+02:00"]);
    }

    #[test]
    fn a_job_in_the_autumn_fold_runs_once() {
        let berlin = zone("Europe/Berlin");
        let days = upcoming("30 2 * * *", &berlin, "2026-10-24T12:00:00Z", 2);
        assert_eq!(days, ["Sun 2026-10-25 02:30+02:00", "Mon 2026-10-26 02:30+01:00"]);
    }

    #[test]
    fn occurrences_through_a_change_come_in_order_and_once() {
        let berlin = zone("Europe/Berlin");
        for from in ["2026-03-28T22:00:00Z", "2026-10-24T22:00:00Z"] {
            let crontab: Crontab = "*/15 * * * *".parse().unwrap();
            let mut now = at(from);
            for _ in 0..40 {
                let next = crontab.next_after(now, &berlin).unwrap();
                assert!(next > now);
                now = next;
            }
        }
    }

    #[test]
    fn a_line_that_cannot_be_meant_is_refused_with_its_reason() {
        for (line, word) in [
            ("0 3 * *", "has 4"),
            ("60 * * * *", "outside 0–59"),
            ("* * 0 * *", "outside 1–31"),
            ("* * * 13 *", "outside 1–12"),
            ("* * * * 8", "outside 0–7"),
            ("*/0 * * * *", "not a step"),
            ("a * * * *", "not a number"),
            ("0 0 30 2 *", "never happens"),
            ("@every", "followed by a period"),
            ("@every 0s", "followed by a period"),
            ("@every other day", "not by `other day`"),
        ] {
            let error = line.parse::<Crontab>().unwrap_err().to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn every_so_often_is_counted_from_an_instant_that_no_start_moves() {
        let six_hours = upcoming("@every 6h", &zone("Europe/Berlin"), "2026-11-20T13:10:00Z", 2);
        assert_eq!(six_hours, ["Fri 2026-11-20 19:00+01:00", "Sat 2026-11-21 01:00+01:00"]);
        let crontab: Crontab = "@every 90s".parse().unwrap();
        assert_eq!(crontab.next_after(at("1969-12-31T23:59:59Z"), &TimeZone::UTC), Some(at("1970-01-01T00:00:00Z")));
        assert_eq!(crontab.next_after(at("1970-01-01T00:00:00Z"), &TimeZone::UTC), Some(at("1970-01-01T00:01:30Z")));
    }

    /// One field: a star, a number, a list, a range or a step.
    fn field(first: u32, last: u32) -> impl Strategy<Value = String> {
        prop_oneof![
            3 => Just("*".to_owned()),
            3 => (first..=last).prop_map(|n| n.to_string()),
            1 => (first..=last, first..=last).prop_map(|(a, b)| format!("{},{}", a.min(b), a.max(b))),
            1 => (first..=last, first..=last).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            1 => (2u32..=6).prop_map(|n| format!("*/{n}")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
        /// Agrees with `croner`, an independent implementation, where no clock is put forward or back.
        #[test]
        fn agrees_with_an_independent_implementation(
            minute in field(0, 59), hour in field(0, 23), day in field(1, 28), month in field(1, 12), weekday in field(0, 6), start in 1_700_000_000i64..1_900_000_000
        ) {
            // a step in one day field is OR to some and AND to others: crontab(5) itself is of two minds
            prop_assume!(!(day.starts_with("*/") || weekday.starts_with("*/")));
            let line = format!("{minute} {hour} {day} {month} {weekday}");
            let ours: Crontab = line.parse().unwrap();
            let theirs = croner::Cron::from_str(&line).unwrap();
            let mut now = Timestamp::from_unix(start);
            for _ in 0..3 {
                let expected = theirs.find_next_occurrence(&now.0.to_zoned(TimeZone::UTC), false).unwrap().timestamp();
                let found = ours.next_after(now, &TimeZone::UTC).unwrap();
                prop_assert_eq!(found.0, expected, "{}", line);
                now = found;
            }
        }
    }
}
