//! `hl7`: an archive of HL7 v2 messages, as interface engines keep them: one or many to a file, framed (MLLP) or in batches.
//!
//! Read as it comes, one segment at a time; of a message only its sender and control id are remembered, as sixteen bytes.
//! Nothing that is read here is shown.

mod header;
mod segments;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;

use jiff::tz::TimeZone;

use self::header::{Header, field, separator};
use self::segments::{Segments, Token};
use super::records::{Dated, Key, Verdicts, Wrongs, enough_room, files, key, zone};
use super::{Answer, CheckError, Restored};
use crate::domain::{Comparison, Finding, FindingKind, Hl7Archive, RecordProblem, RestorePath, Timestamp};

pub(super) fn ask(
    name: &str,
    pattern: &str,
    messages: &BTreeMap<String, Comparison>,
    archive: &Hl7Archive,
    restored: &Restored<'_>,
) -> Result<Answer, CheckError> {
    let mut reading = Reading {
        archive,
        zone: zone(archive.time_zone.as_ref())?,
        counts: messages.keys().map(|kind| (kind.as_str(), 0)).collect(),
        wrongs: Wrongs::new(restored),
        known: HashSet::new(),
        total: 0,
        batches: 0,
        zoneless: 0,
        newest: None,
    };
    let found = files(pattern, restored, |path, _, file| reading.file(path, file))?;
    Ok(reading.answer(name, messages, found, restored.started))
}

struct Reading<'a> {
    archive: &'a Hl7Archive,
    zone: Option<TimeZone>,
    counts: BTreeMap<&'a str, u64>,
    wrongs: Wrongs<'a>,
    known: HashSet<Key>,
    total: u64,
    batches: u64,
    zoneless: u64,
    newest: Option<Timestamp>,
}

/// What is open at one place of a file.
#[derive(Default)]
struct Open {
    /// Messages begun so far: the number of the one that is open.
    number: u64,
    message: Option<Message>,
    /// Framed: only what stands in a frame counts.
    framed: bool,
    frame: bool,
    /// Messages of the batch, and of the file outside of batches.
    batch: Option<u64>,
    file: Option<FileTotals>,
}

#[derive(Default)]
struct FileTotals {
    batches: u64,
    loose: u64,
}

struct Message {
    separator: u8,
    segments: u64,
    wrong: bool,
}

impl Reading<'_> {
    fn file(&mut self, path: &RestorePath, file: File) -> Result<(), CheckError> {
        let mut segments = Segments::new(file);
        let mut open = Open::default();
        while let Some(token) = segments.next()? {
            match token {
                Token::FrameStart => {
                    if open.frame {
                        self.wrongs.add(RecordProblem::Truncated, path, open.number);
                        open.message = None;
                    }
                    self.close_message(path, &mut open);
                    open.framed = true;
                    open.frame = true;
                }
                Token::FrameEnd if open.frame => {
                    self.close_message(path, &mut open);
                    open.frame = false;
                }
                Token::FrameEnd => self.wrongs.add(RecordProblem::Unreadable, path, open.number),
                Token::Segment { text, terminated } => {
                    if open.framed && !open.frame {
                        self.wrongs.add(RecordProblem::Unreadable, path, open.number);
                        continue;
                    }
                    self.segment(path, text, &mut open)?;
                    if !terminated && !open.framed && !self.archive.unterminated {
                        self.wrongs.add(RecordProblem::Truncated, path, open.number);
                        open.message = None;
                    }
                }
            }
        }
        if open.frame {
            self.wrongs.add(RecordProblem::Truncated, path, open.number);
            open.message = None;
        }
        self.close_message(path, &mut open);
        // whoever opens a batch promises its end
        if open.batch.is_some() || open.file.is_some() {
            self.wrongs.add(RecordProblem::Truncated, path, "its batch");
        } else if open.number == 0 && !open.framed {
            self.wrongs.add(RecordProblem::Unreadable, path, "no message");
        }
        Ok(())
    }

    fn segment(&mut self, path: &RestorePath, text: &[u8], open: &mut Open) -> Result<(), CheckError> {
        let id = text.get(..3).unwrap_or(text);
        match id {
            b"MSH" => {
                self.close_message(path, open);
                open.number += 1;
                match (&mut open.batch, &mut open.file) {
                    (Some(messages), _) => *messages += 1,
                    (None, Some(file)) => file.loose += 1,
                    (None, None) => {}
                }
                open.message = Some(self.begin(path, text, open.number)?);
            }
            b"FHS" => {
                self.close_message(path, open);
                if open.batch.take().is_some() | open.file.is_some() {
                    self.wrongs.add(RecordProblem::Truncated, path, "its batch");
                }
                open.file = Some(FileTotals::default());
            }
            b"BHS" => {
                self.close_message(path, open);
                if open.batch.is_some() {
                    self.wrongs.add(RecordProblem::Truncated, path, "its batch");
                }
                self.batches += 1;
                open.file.iter_mut().for_each(|file| file.batches += 1);
                open.batch = Some(0);
            }
            b"BTS" => {
                self.close_message(path, open);
                match open.batch.take() {
                    Some(messages) => self.total_of(path, text, |said| said == messages),
                    None => self.wrongs.add(RecordProblem::Unreadable, path, "a batch's end without its beginning"),
                }
            }
            b"FTS" => {
                self.close_message(path, open);
                if open.batch.take().is_some() {
                    self.wrongs.add(RecordProblem::Truncated, path, "its batch");
                }
                match open.file.take() {
                    // a file of messages without batches counts as one by some, as none by others, or by its messages
                    Some(FileTotals { batches: 0, loose }) => self.total_of(path, text, |said| said <= 1 || said == loose),
                    Some(file) => self.total_of(path, text, |said| said == file.batches),
                    None => self.wrongs.add(RecordProblem::Unreadable, path, "a file's end without its beginning"),
                }
            }
            _ => match &mut open.message {
                Some(message) => {
                    message.segments += 1;
                    message.wrong |= !well_formed(text, message.separator);
                }
                None => self.wrongs.add(RecordProblem::Unreadable, path, open.number),
            },
        }
        Ok(())
    }

    /// A trailer's own total, where it says one.
    fn total_of(&mut self, path: &RestorePath, trailer: &[u8], agrees: impl Fn(u64) -> bool) {
        let said = separator(trailer).and_then(|separator| field(trailer, separator, 1)).unwrap_or_default();
        let said = String::from_utf8_lossy(said);
        let said = said.trim();
        if !said.is_empty() && !said.parse().is_ok_and(agrees) {
            self.wrongs.add(RecordProblem::WrongTotal, path, String::from_utf8_lossy(trailer.get(..3).unwrap_or_default()));
        }
    }

    fn begin(&mut self, path: &RestorePath, text: &[u8], number: u64) -> Result<Message, CheckError> {
        self.total += 1;
        let Some(header) = Header::read(text) else {
            self.wrongs.add(RecordProblem::Unreadable, path, number);
            let separator = separator(text).unwrap_or(b'|');
            return Ok(Message { separator, segments: 2, wrong: false });
        };
        let (kind, event) = header.kind();
        for (wanted, count) in &mut self.counts {
            let (wanted_kind, wanted_event) = wanted.split_once('^').map_or((*wanted, None), |(kind, event)| (kind, Some(event)));
            if wanted_kind.as_bytes() == kind && wanted_event.is_none_or(|wanted| wanted.as_bytes() == event) {
                *count += 1;
            }
        }
        if !self.known.insert(key(&[header.sender.0, header.sender.1, header.control_id])) && !self.archive.resends {
            self.wrongs.add(RecordProblem::Duplicate, path, format_args!("{number}: {}", String::from_utf8_lossy(header.control_id)));
        }
        match header.dated(self.zone.as_ref()) {
            Dated::At(at) => self.newest = self.newest.max(Some(at)),
            Dated::WithoutZone => self.zoneless += 1,
            Dated::Not => {}
        }
        enough_room(self.known.len())?;
        Ok(Message { separator: header.separator, segments: 1, wrong: false })
    }

    fn close_message(&mut self, path: &RestorePath, open: &mut Open) {
        let Some(message) = open.message.take() else { return };
        if message.wrong {
            self.wrongs.add(RecordProblem::Unreadable, path, open.number);
        } else if message.segments < 2 {
            // no message is a header alone: what it heads is gone
            self.wrongs.add(RecordProblem::Truncated, path, open.number);
        }
    }

    fn answer(self, name: &str, wanted: &BTreeMap<String, Comparison>, found: u64, started: Timestamp) -> Answer {
        let mut answer = Verdicts::new(name);
        let seen = format!("{} messages and {} batches in {found} files", self.total, self.batches);
        if wanted.is_empty() || self.total == 0 {
            answer.assert("messages".into(), seen, self.total > 0);
        } else {
            answer.asked("messages that are whole", seen);
        }
        for (kind, comparison) in wanted {
            answer.compare(kind, *comparison, self.counts[kind.as_str()]);
        }
        if self.total > 0 && !self.archive.resends {
            answer.asked("none of them twice", format!("{} twice", self.wrongs.count(RecordProblem::Duplicate)));
        }
        if self.zoneless > 0 {
            let reason = format!("the times of {} messages name no zone: write theirs as `time_zone`", self.zoneless);
            answer.found(Finding::runner(name, FindingKind::CouldNotRun { reason }));
        } else if self.total > 0 && self.newest.is_none() {
            answer.assert("times of messages (MSH-7)".into(), "none".into(), false);
        }
        answer.date(self.newest, started);
        answer.finish(self.wrongs)
    }
}

/// Three characters that name it, and nothing or the separator behind them.
fn well_formed(segment: &[u8], separator: u8) -> bool {
    let [first, second, third, rest @ ..] = segment else { return false };
    first.is_ascii_uppercase()
        && [second, third].iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        && rest.first().is_none_or(|next| *next == separator)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{MemoryTree, no_programs, restored};
    use super::*;

    fn asked(files: &[(&str, &str)], archive: &Hl7Archive) -> Answer {
        let tree = MemoryTree::with_content(files);
        let messages = [("ADT^A01".to_owned(), ">= 1".parse().unwrap()), ("ORU".to_owned(), ">= 0".parse().unwrap())].into();
        ask("hl7", "**", &messages, archive, &restored(&tree, &no_programs())).unwrap()
    }

    fn problems(text: &str) -> Vec<(RecordProblem, u64)> {
        let answer = asked(&[("x.hl7", text)], &Hl7Archive::default());
        let wrong = |f: &Finding| match f.kind {
            FindingKind::RecordsWrong { problem, count, .. } => Some((problem, count)),
            _ => None,
        };
        answer.findings.iter().filter_map(wrong).collect()
    }

    fn message(id: &str) -> String {
        format!("MSH|^~\\&|EHR|HOSP|LAB|HOSP|19700112000000+0000||ADT^A01^ADT_A01|{id}|P|2.5\rEVN|A01\rPID|1||7\r")
    }

    #[test]
    fn messages_are_found_in_every_wrapping() {
        let (a, b) = (message("1"), message("2"));
        for text in [
            format!("{a}{b}"),
            format!("{a}\n{b}").replace('\r', "\r\n"),
            format!("\x0b{a}\x1c\r\x0b{b}\x1c\r"),
            format!("FHS|^~\\&|A\rBHS|^~\\&|A\r{a}{b}BTS|2\rFTS|1\r"),
            format!("BHS|^~\\&|A\r{a}BTS|1\rBHS|^~\\&|A\r{b}BTS\r"),
            format!("FHS|^~\\&\r{a}{b}FTS|2\r"),
        ] {
            let answer = asked(&[("x", &text)], &Hl7Archive::default());
            assert!(answer.observed.starts_with("2 messages"), "{}", answer.observed);
            assert!(answer.findings.iter().all(|f| matches!(f.kind, FindingKind::DataAsOf { .. })), "{text:?} {answer:?}");
            assert_eq!(answer.newest, Some(Timestamp::from_unix(950_400)));
        }
    }

    #[test]
    fn what_is_cut_ends_early() {
        use RecordProblem::Truncated;
        let (a, b) = (message("1"), message("2"));
        for text in [
            format!("{a}{}", b.trim_end_matches("|1||7\r")),
            // on the border of a segment, even: a header alone
            format!("{a}{}\r", b.split_once('\r').unwrap().0),
            format!("\x0b{a}\x1c\r\x0b{b}"),
            format!("\x0b{a}\x0b{b}\x1c\r"),
            format!("FHS|^~\\&|A\rBHS|^~\\&|A\r{a}{b}"),
            format!("FHS|^~\\&|A\rBHS|^~\\&|A\r{a}{b}BTS|2\r"),
        ] {
            assert_eq!(problems(&text), [(Truncated, 1)], "{text:?}");
        }
        let cut = format!("{a}{}", b.trim_end_matches('\r'));
        let lenient = Hl7Archive { unterminated: true, ..Hl7Archive::default() };
        assert_eq!(asked(&[("x", &cut)], &lenient).findings.len(), 1);
    }

    #[test]
    fn what_does_not_add_up_is_told() {
        use RecordProblem::{Duplicate, Unreadable, WrongTotal};
        let (a, b) = (message("1"), message("2"));
        assert_eq!(problems(&format!("{a}{a}")), [(Duplicate, 1)]);
        // another sender may count likewise
        assert_eq!(problems(&format!("{a}{}", a.replace("|EHR|", "|RIS|"))), []);
        assert_eq!(problems(&format!("BHS|^~\\&\r{a}{b}BTS|3\r")), [(WrongTotal, 1)]);
        assert_eq!(problems(&format!("FHS|^~\\&\rBHS|^~\\&\r{a}BTS|1\rFTS|2\r")), [(WrongTotal, 1)]);
        for broken in [
            a.replace("|1|P", "||P"),
            a.replace("^~\\&", "^~"),
            a.replace("ADT^A01^ADT_A01", ""),
            a.replace("PID|", "pid "),
            a.replace("PID|", "PIDX"),
        ] {
            assert_eq!(problems(&format!("{b}{broken}")), [(Unreadable, 1)], "{broken:?}");
        }
        assert_eq!(problems(&format!("{a}BTS|1\r")), [(Unreadable, 1)]);
        assert_eq!(problems(&format!("\x0b{a}\x1c\rnoise\r\x0b{b}\x1c\r")), [(Unreadable, 1)]);
        assert_eq!(problems("no message\r"), [(Unreadable, 2)]);
    }

    #[test]
    fn a_time_needs_its_zone_and_a_type_its_messages() {
        let without = message("1").replace("+0000", "");
        let answer = asked(&[("x", &without)], &Hl7Archive::default());
        assert!(matches!(answer.findings[0].kind, FindingKind::CouldNotRun { .. }) && answer.newest.is_none(), "{answer:?}");
        let chicago = Hl7Archive { time_zone: Some(crate::domain::TimeZone("America/Chicago".into())), ..Hl7Archive::default() };
        assert_eq!(asked(&[("x", &without)], &chicago).newest, Some(Timestamp::from_unix(950_400 + 6 * 3_600)));
        let other = message("1").replace("A01", "A08");
        assert!(asked(&[("x", &other)], &chicago).findings.iter().any(|f| matches!(f.kind, FindingKind::CheckFailed { .. })));
        assert_eq!(asked(&[], &chicago).findings.len(), 2);
    }
}
