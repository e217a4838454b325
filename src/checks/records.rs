//! What the checks of records have in common: files that match, what is wrong counted by kind, and the newest record's date.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Display;
use std::fs::File;

use jiff::civil;
use jiff::tz::{Offset, TimeZone};

use super::freshness::TOLERANCE;
use super::{Answer, CheckError, Glob, Restored};
use crate::domain::{Cause, Comparison, EntryKind, Finding, FindingKind, Period, Pseudonym, RecordProblem, RestorePath, Timestamp};

/// How many records of a kind are shown by pseudonym.
const EXAMPLES: usize = 10;
/// How many records are remembered at most: some forty bytes each.
const MOST: usize = 50_000_000;

/// Stands for a record in memory, however long its id.
pub(super) type Key = [u8; 16];

/// The key of an id that is made of parts, so that no other parts make the same.
pub(super) fn key(parts: &[&[u8]]) -> Key {
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    key
}

/// Gives every regular file that matches to `each`; how many there were.
pub(super) fn files(
    pattern: &str,
    restored: &Restored<'_>,
    mut each: impl FnMut(&RestorePath, u64, File) -> Result<(), CheckError>,
) -> Result<u64, CheckError> {
    let glob = Glob::new(pattern).map_err(|e| CheckError::Sandbox(e.to_string()))?;
    let mut files = 0;
    for entry in restored.tree.walk()? {
        let entry = entry?;
        // a hard link's content is met under its first name
        let EntryKind::File { size, .. } = entry.kind else { continue };
        if glob.matches(&entry.path) {
            files += 1;
            each(&entry.path, size, restored.tree.open(&entry.path)?)?;
        }
    }
    Ok(files)
}

/// No more records can be remembered.
pub(super) fn enough_room(remembered: usize) -> Result<(), CheckError> {
    if remembered > MOST {
        return Err(CheckError::TooLarge(format!("there are more than {MOST} records, and no more can be told apart here")));
    }
    Ok(())
}

/// What is wrong, as it is met.
pub(super) struct Wrongs<'a> {
    record: &'a (dyn Fn(&[u8]) -> Pseudonym + Sync),
    found: BTreeMap<RecordProblem, (u64, Vec<Pseudonym>)>,
}

impl<'a> Wrongs<'a> {
    pub(super) fn new(restored: &Restored<'a>) -> Self {
        Self { record: restored.record, found: BTreeMap::new() }
    }

    /// One record of a file is wrong: `at` is where it is in it, and what it is.
    pub(super) fn add(&mut self, problem: RecordProblem, path: &RestorePath, at: impl Display) {
        self.add_many(problem, 1, path, at);
    }

    pub(super) fn add_many(&mut self, problem: RecordProblem, count: u64, path: &RestorePath, at: impl Display) {
        let (total, examples) = match self.found.entry(problem) {
            Entry::Vacant(entry) => entry.insert((0, Vec::new())),
            Entry::Occupied(entry) => entry.into_mut(),
        };
        *total += count;
        if examples.len() < EXAMPLES {
            let mut text = path.as_bytes().to_vec();
            text.extend_from_slice(format!(": {at}").as_bytes());
            examples.push((self.record)(&text));
        }
    }

    /// Those of one kind.
    pub(super) fn count(&self, problem: RecordProblem) -> u64 {
        self.found.get(&problem).map_or(0, |(count, _)| *count)
    }
}

/// Puts an answer together.
pub(super) struct Verdicts<'a> {
    name: &'a str,
    answer: Answer,
    wants: Vec<String>,
    sees: Vec<String>,
}

impl<'a> Verdicts<'a> {
    pub(super) fn new(name: &'a str) -> Self {
        Self { name, answer: Answer::default(), wants: Vec::new(), sees: Vec::new() }
    }

    /// One number against what it must be.
    pub(super) fn compare(&mut self, what: &str, wanted: Comparison, seen: u64) {
        self.assert(format!("{what} {wanted}"), format!("{what} {seen}"), wanted.holds(seen));
    }

    pub(super) fn assert(&mut self, wanted: String, seen: String, holds: bool) {
        if !holds {
            let kind = FindingKind::CheckFailed { expected: wanted.clone(), observed: seen.clone() };
            self.answer.findings.push(Finding::backup(self.name, kind));
        }
        self.answer.assertions += 1;
        self.wants.push(wanted);
        self.sees.push(seen);
    }

    /// Something looked at in every record, in words; what was wrong comes with [`Self::finish`].
    pub(super) fn asked(&mut self, wanted: impl Into<String>, seen: String) {
        self.answer.assertions += 1;
        self.wants.push(wanted.into());
        self.sees.push(seen);
    }

    pub(super) fn found(&mut self, finding: Finding) {
        self.answer.findings.push(finding);
    }

    /// The newest record's date: the measured RPO.
    pub(super) fn date(&mut self, newest: Option<Timestamp>, started: Timestamp) {
        let Some(at) = newest else { return };
        let age = started.seconds_since(at);
        if age < -(TOLERANCE as i64) {
            let ahead = Period::from_secs(age.unsigned_abs());
            self.sees.push(format!("newest dated {ahead} in the future"));
            self.found(Finding::runner(self.name, FindingKind::CapturedInFuture { ahead }));
            return;
        }
        self.sees.push(format!("newest {} old", Period::from_secs(u64::try_from(age).unwrap_or(0))));
        self.found(Finding::note(self.name, Cause::Backup, FindingKind::DataAsOf { at }));
        self.answer.newest = Some(at);
    }

    pub(super) fn finish(mut self, wrongs: Wrongs<'_>) -> Answer {
        for (problem, (count, examples)) in wrongs.found {
            self.found(Finding::backup(self.name, FindingKind::RecordsWrong { problem, count, examples }));
        }
        self.answer.expected = self.wants.join(", ");
        self.answer.observed = self.sees.join(", ");
        self.answer
    }
}

/// When a record was made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Dated {
    At(Timestamp),
    /// It says when, and neither it nor the scenario says where.
    WithoutZone,
    Not,
}

/// The zone of times that name none.
///
/// # Errors
/// This host does not know it.
pub(super) fn zone(of: Option<&crate::domain::TimeZone>) -> Result<Option<TimeZone>, CheckError> {
    let Some(zone) = of else { return Ok(None) };
    TimeZone::get(&zone.0).map(Some).map_err(|_| CheckError::NotAsked(format!("this host knows no time zone {}", zone.0)))
}

/// Reads a time as HL7 and DICOM write it: `YYYY[MM[DD[HH[MM[SS[.S…]]]]]][+/-ZZZZ]`; what is left out is taken as its beginning, so that nothing seems newer than it is.
pub(super) fn instant(text: &str, zone: Option<&TimeZone>) -> Option<Dated> {
    let (clock, offset) = match text.find(['+', '-']) {
        Some(at) => (&text[..at], Some(&text[at..])),
        None => (text, None),
    };
    let digits = clock.split_once('.').map_or(clock, |(whole, _)| whole);
    if !(4..=14).contains(&digits.len()) || digits.len() % 2 == 1 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, length: usize, least: i16| digits.get(from..from + length).map_or(Some(least), |d| d.parse().ok());
    let small = |from: usize, least: i16| part(from, 2, least).and_then(|n| i8::try_from(n).ok());
    let wall = civil::DateTime::new(part(0, 4, 1)?, small(4, 1)?, small(6, 1)?, small(8, 0)?, small(10, 0)?, small(12, 0)?, 0).ok()?;
    let zone = match (offset, zone) {
        (Some(offset), _) => {
            let (sign, digits) = offset.split_at(1);
            if digits.len() != 4 {
                return None;
            }
            let minutes = digits[..2].parse::<i32>().ok()? * 60 + digits[2..].parse::<i32>().ok()?;
            let seconds = if sign == "-" { -60 * minutes } else { 60 * minutes };
            TimeZone::fixed(Offset::from_seconds(seconds).ok()?)
        }
        (None, Some(zone)) => zone.clone(),
        (None, None) => return Some(Dated::WithoutZone),
    };
    Some(Dated::At(Timestamp(zone.to_ambiguous_zoned(wall).compatible().ok()?.timestamp())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_standard_writes_them() {
        let at = |text: &str| instant(text, Some(&TimeZone::UTC));
        let seconds = |text: &str| match at(text) {
            Some(Dated::At(at)) => at.0.as_second(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(seconds("19700112"), 950_400);
        assert_eq!(seconds("1970"), 0);
        assert_eq!(seconds("197001120000"), 950_400);
        assert_eq!(seconds("19700112000005.1234"), 950_405);
        assert_eq!(seconds("19700112000000-0600"), 950_400 + 6 * 3_600);
        assert_eq!(seconds("19700112000000.5+0530"), 950_400 - 19_800);
        for text in ["", "yesterday", "197013", "19700", "19700112000000+06", "1970-01-12", "19700112250000"] {
            assert_eq!(at(text), None, "{text}");
        }
        assert_eq!(instant("19700112", None), Some(Dated::WithoutZone));
    }
}
