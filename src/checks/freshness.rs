//! `freshness`: the newest data in the restored content. This is what the recovery point objective is measured by.

use jiff::civil;
use jiff::tz::TimeZone;

use super::{Answer, CheckError, Glob, Restored, fields, no_answer, sql};
use crate::domain::{DatabaseRef, EntryKind, Finding, FindingKind, FreshnessSource, Period, Timestamp};

/// Clocks of producer and runner may differ by this much before data from the future is remarkable.
pub(super) const TOLERANCE: u64 = 300;

pub(super) fn ask(name: &str, from: &FreshnessSource, restored: &Restored<'_>) -> Result<Answer, CheckError> {
    let (pattern, field) = match from {
        FreshnessSource::FileTimes { pattern } => (pattern, None),
        FreshnessSource::Field { pattern, field } => (pattern, Some(field.as_str())),
        FreshnessSource::Query { .. } => return Err(CheckError::NotAsked("a query is asked of a database".to_owned())),
    };
    let glob = Glob::new(pattern).map_err(|e| CheckError::Sandbox(e.to_string()))?;
    let (mut files, mut values, mut newest) = (0u64, 0u64, None::<Timestamp>);
    for entry in restored.tree.walk()? {
        let entry = entry?;
        let EntryKind::File { size, .. } = entry.kind else { continue };
        if !glob.matches(&entry.path) {
            continue;
        }
        files += 1;
        match field {
            None => {
                values += 1;
                newest = newest.max(Some(Timestamp::from_unix(entry.mtime)));
            }
            Some(field) => {
                let file = restored.tree.open(&entry.path)?;
                fields::of_file(&entry.path, size, file, field, &mut |text| {
                    if let Some(at) = instant(text) {
                        values += 1;
                        newest = newest.max(Some(at));
                    }
                })?;
            }
        }
    }
    let observed = format!("{files} files, {values} instants");
    Ok(judge(name, newest, observed, restored.started))
}

/// The one value of a query: the newest instant in a database.
pub(super) async fn ask_database(name: &str, of: &DatabaseRef, query: &str, restored: &Restored<'_>) -> Result<Answer, CheckError> {
    let expected = "data to date";
    let rows = match restored.databases.query(of, query).await {
        Ok(rows) => rows,
        Err(error) => return no_answer(name, expected, error),
    };
    let value = sql::one_value(&rows).map_err(CheckError::NotAsked)?;
    let newest = value.and_then(instant);
    if newest.is_none() && value.is_some() {
        return Err(CheckError::NotAsked("the query's value is no instant: select a time, as max(recorded_at)".to_owned()));
    }
    let observed = format!("{} of the query", if newest.is_some() { "one instant" } else { "no instant" });
    Ok(judge(name, newest, observed, restored.started))
}

fn judge(name: &str, newest: Option<Timestamp>, observed: String, started: Timestamp) -> Answer {
    let expected = "data to date".to_owned();
    let Some(at) = newest else {
        return Answer {
            findings: vec![Finding::backup(name, FindingKind::CheckFailed { expected: expected.clone(), observed: observed.clone() })],
            expected,
            observed,
            assertions: 1,
            ..Answer::default()
        };
    };
    let age = started.seconds_since(at);
    if age < -(TOLERANCE as i64) {
        let ahead = Period::from_secs(age.unsigned_abs());
        return Answer {
            expected,
            observed: format!("newest data dated {ahead} in the future"),
            findings: vec![Finding::runner(name, FindingKind::CapturedInFuture { ahead })],
            ..Answer::default()
        };
    }
    let age = Period::from_secs(u64::try_from(age).unwrap_or(0));
    Answer {
        expected,
        observed: format!("{observed}, newest {age} old"),
        assertions: 1,
        findings: vec![Finding::note(name, crate::domain::Cause::Backup, FindingKind::DataAsOf { at })],
        newest: Some(at),
        ..Answer::default()
    }
}

/// Reads an instant: RFC 3339, a date with or without time (UTC), or a Unix time in seconds or milliseconds.
fn instant(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp(at));
    }
    if let Ok(number) = text.parse::<f64>() {
        return from_epoch(number);
    }
    // as PostgreSQL writes a time with its zone
    if let Some(at) = text.split_once(' ').and_then(|(date, time)| zoned(date, time)) {
        return Some(at);
    }
    let wall = text.parse::<civil::DateTime>().or_else(|_| text.parse::<civil::Date>().map(|d| d.at(0, 0, 0, 0))).ok()?;
    wall.to_zoned(TimeZone::UTC).ok().map(|zoned| Timestamp(zoned.timestamp()))
}

fn zoned(date: &str, time: &str) -> Option<Timestamp> {
    let offset = time.rfind(['+', '-'])?;
    let (clock, offset) = time.split_at(offset);
    let offset = if offset.len() == 3 { format!("{offset}:00") } else { offset.to_owned() };
    format!("{date}T{clock}{offset}").parse::<jiff::Timestamp>().ok().map(Timestamp)
}

fn from_epoch(number: f64) -> Option<Timestamp> {
    // 1e11 seconds is the year 5138: larger numbers are milliseconds
    let seconds = if number.abs() >= 1e11 { number / 1e3 } else { number };
    (seconds.is_finite() && seconds > 0.0).then(|| Timestamp::from_unix(seconds as i64))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{MemoryTree, file, no_programs, restored};
    use super::*;

    fn by_field(files: &[(&str, &str)], field: &str) -> Answer {
        let tree = MemoryTree::with_content(files);
        let from = FreshnessSource::Field { pattern: "**".into(), field: field.into() };
        ask("freshness", &from, &restored(&tree, &no_programs())).unwrap()
    }

    #[test]
    fn the_newest_file_time_counts() {
        let tree = MemoryTree::of(vec![file("a", 1, 500), file("b", 1, 900_000), file("c", 1, 800_000)]);
        let from = FreshnessSource::FileTimes { pattern: "*".into() };
        let answer = ask("freshness", &from, &restored(&tree, &no_programs())).unwrap();
        assert_eq!(answer.newest, Some(Timestamp::from_unix(900_000)));
    }

    #[test]
    fn fields_are_found_in_json_json_lines_and_csv() {
        let newest = Some(Timestamp::from_unix(950_400));
        assert_eq!(
            by_field(&[("a.json", r#"{"entry":[{"at":"1970-01-01T00:00:00Z"},{"at":"1970-01-12T00:00:00Z"}]}"#)], "entry.at").newest,
            newest
        );
        assert_eq!(by_field(&[("a.jsonl", "{\"at\":1}\n{\"at\":950400}\n")], "at").newest, newest);
        assert_eq!(by_field(&[("a.csv", "id,taken\n1,1970-01-02\n2,1970-01-12 00:00:00\n")], "taken").newest, newest);
    }

    #[test]
    fn data_without_an_instant_fails() {
        assert_eq!(by_field(&[("a.json", r#"{"at":"yesterday"}"#)], "at").findings.len(), 1);
        assert_eq!(by_field(&[("a.csv", "id\n1\n")], "taken").findings.len(), 1);
        assert!(by_field(&[], "at").newest.is_none());
    }

    #[test]
    fn data_from_the_future_proves_nothing() {
        let answer = by_field(&[("a.json", r#"{"at":"2070-01-01T00:00:00Z"}"#)], "at");
        assert!(matches!(answer.findings[0].kind, FindingKind::CapturedInFuture { .. }));
        assert!(answer.newest.is_none());
    }
}
