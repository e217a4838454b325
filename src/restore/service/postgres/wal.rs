//! PostgreSQL's write-ahead log, read record by record: page headers, lengths, links and checksums, and where a target of recovery
//! lies in it.
//!
//! A server that recovers takes the first record that is not whole for the end of the log, and starts happily. So the log is read
//! before, by rules of our own: the layout is the same in all versions since 9.5 (`access/xlogrecord.h`, `access/xlog_internal.h`).

use std::io::{self, Read};

use crc_fast::{CrcAlgorithm, Digest};

use crate::domain::{Lsn, RecoveryTarget};

/// Of a page's header, and of a segment's first.
const SHORT_HEADER: usize = 24;
const LONG_HEADER: usize = 40;
/// Of a record.
const RECORD_HEADER: usize = 24;
const FIRST_IS_CONTINUED: u16 = 0x0001;
const LONG: u16 = 0x0002;
const FIRST_IS_OVERWRITTEN: u16 = 0x0008;
/// No record is longer.
const LONGEST: usize = 1 << 30;
/// Microseconds from 1970 to 2000, where PostgreSQL's time begins.
const EPOCH: i64 = 946_684_800_000_000;

/// What a log is known by: the same in all of its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) segment: u64,
    pub(super) page: usize,
    pub(super) system: u64,
}

/// Where recovery ends, as records tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// At the end.
    End,
    /// After the end of the backup that began here.
    BackupEnd(u64),
    /// Before the first transaction that ended later than this (or then, where it is not inclusive), in microseconds since 1970.
    Time(i64, bool),
    /// After (inclusive) or before the first record that begins there or later.
    At(u64, bool),
    /// After the restore point of this name.
    Name(Vec<u8>),
}

impl Wanted {
    pub(super) fn of(target: &RecoveryTarget, backup_start: u64) -> Self {
        match target {
            RecoveryTarget::Latest => Wanted::End,
            RecoveryTarget::Immediate => Wanted::BackupEnd(backup_start),
            RecoveryTarget::Time { at, inclusive } => Wanted::Time(at.0.as_microsecond(), *inclusive),
            RecoveryTarget::Lsn { at, inclusive } => Wanted::At(at.0, *inclusive),
            RecoveryTarget::Name(name) => Wanted::Name(name.clone().into_bytes()),
        }
    }

    /// Whether recovery ends before (`Some(false)`) or after (`Some(true)`) this record.
    fn ends(&self, record: &Record<'_>) -> Option<bool> {
        match self {
            Wanted::End => None,
            Wanted::BackupEnd(start) => (record.backup_end() == Some(*start)).then_some(true),
            Wanted::Time(at, inclusive) => {
                record.transaction_ended().filter(|ended| if *inclusive { ended > at } else { ended >= at }).map(|_| false)
            }
            Wanted::At(at, inclusive) => (record.at >= *at).then_some(*inclusive),
            Wanted::Name(name) => (record.restore_point() == Some(name)).then_some(true),
        }
    }
}

/// A record, whole.
struct Record<'a> {
    at: u64,
    bytes: &'a [u8],
}

impl Record<'_> {
    fn manager(&self) -> (u8, u8) {
        (self.bytes[17], self.bytes[16])
    }

    /// What follows the headers of a record that changes no pages.
    fn data(&self) -> Option<&[u8]> {
        let mut rest = &self.bytes[RECORD_HEADER..];
        loop {
            rest = match *rest.first()? {
                // the origin of what was replicated, and the transaction above a subtransaction
                253 => rest.get(3..)?,
                252 => rest.get(5..)?,
                255 => return rest.get(2..),
                254 => return rest.get(5..),
                _ => return None,
            };
        }
    }

    /// When the transaction that this record ends was committed or rolled back.
    fn transaction_ended(&self) -> Option<i64> {
        let ends = match self.manager() {
            // XLOG_XACT_COMMIT, _ABORT, _COMMIT_PREPARED, _ABORT_PREPARED
            (1, info) => [0x00, 0x20, 0x30, 0x40].contains(&(info & 0x70)),
            _ => false,
        };
        let at = self.data().filter(|_| ends)?.get(..8)?;
        Some(i64::from_le_bytes(at.try_into().ok()?) + EPOCH)
    }

    /// Where the backup began that this record ends.
    fn backup_end(&self) -> Option<u64> {
        let start = self.data().filter(|_| matches!(self.manager(), (0, info) if info & 0xF0 == 0x50))?.get(..8)?;
        Some(u64::from_le_bytes(start.try_into().ok()?))
    }

    fn restore_point(&self) -> Option<&[u8]> {
        let name = self.data().filter(|_| matches!(self.manager(), (0, info) if info & 0xF0 == 0x70))?.get(8..72)?;
        name.split(|b| *b == 0).next()
    }

    /// Whether nothing follows it in its segment.
    fn switches(&self) -> bool {
        matches!(self.manager(), (0, info) if info & 0xF0 == 0x40)
    }
}

/// Where recovery would end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    /// Begin of the record that ends it.
    pub(super) at: u64,
    /// End of the last record that is replayed; `None` where that is in the segment before.
    pub(super) replayed: Option<u64>,
}

/// Why reading ended within a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// Zeros where a record should begin.
    Zeros,
    /// The file ends early.
    Short,
    /// The record goes on in a segment that is not there.
    Unfinished,
    /// A page is not what it should be.
    Page,
    /// A record is not what it should be.
    Record,
    /// Its file cannot be unpacked.
    Unpacked,
}

impl Broken {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Broken::Zeros => "zeros where a record should begin",
            Broken::Short => "the file ends early",
            Broken::Unfinished => "a record goes on in a segment that is not there",
            Broken::Page => "a page is not of this log, or not of this place in it",
            Broken::Record => "a record's length, link or checksum is wrong",
            Broken::Unpacked => "the file cannot be unpacked",
        }
    }
}

/// What is known of a segment after it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// End of the last record that is whole and began in it.
    pub(super) end: Option<u64>,
    /// Where and why it could not be read on.
    pub(super) broken: Option<(u64, Broken)>,
    /// Where recovery would end, if it is here.
    pub(super) target: Option<Hit>,
    /// Where the backup ends, if it is here.
    pub(super) backup_end: Option<u64>,
}

/// Opens segments by their numbers; `None` is one that is not there.
pub(super) type Open<'a> = dyn Fn(u64) -> io::Result<Option<Box<dyn Read + Send>>> + Sync + 'a;

/// What a segment's first page says of its log; `None` is no page of a log, or one of a machine that orders bytes otherwise.
pub(super) fn log_of(head: &[u8]) -> Option<Log> {
    let header = head.get(..LONG_HEADER)?;
    let number = |range: std::ops::Range<usize>| u64::from(u32::from_le_bytes(header[range].try_into().unwrap_or_default()));
    let magic = u16::from_le_bytes([header[0], header[1]]);
    let info = u16::from_le_bytes([header[2], header[3]]);
    let (segment, page) = (number(32..36), number(36..40));
    let sizes = segment.is_power_of_two() && page.is_power_of_two() && (1 << 10..=1 << 16).contains(&page) && segment >= page;
    (magic >> 8 & 0xFE == 0xD0 && info & LONG != 0 && sizes).then(|| Log {
        segment,
        page: usize::try_from(page).unwrap_or_default(),
        system: u64::from_le_bytes(header[24..32].try_into().unwrap_or_default()),
    })
}

/// What is read, and what is looked for.
pub(super) struct Search<'a> {
    pub(super) log: Log,
    /// Timelines that pages may be of.
    pub(super) timelines: &'a [u32],
    /// Where recovery begins, and with it the backup.
    pub(super) from: u64,
    pub(super) wanted: &'a Wanted,
}

/// Reads the records that begin in a segment.
pub(super) fn read<'a>(search: &'a Search<'a>, number: u64, open: &'a Open<'a>) -> Segment {
    let mut found = Segment { end: None, broken: None, target: None, backup_end: None };
    let begin = number * search.log.segment;
    let (log, timelines) = (search.log, search.timelines);
    let mut pages = Pages { log, timelines, open, reader: None, next: begin, page: Vec::new(), at: 0, used: 0 };
    let walked = walk(&mut pages, begin, search, &mut found);
    // a segment that was only opened for the end of a record is read by whoever reads it
    let finished = |pages: &mut Pages<'_>| if pages.next <= begin + log.segment { pages.finish() } else { Ok(()) };
    if let Err(broken) = walked.and_then(|()| finished(&mut pages)) {
        found.broken = Some((found.end.unwrap_or(begin.max(search.from)), broken));
    }
    found
}

fn walk(pages: &mut Pages<'_>, begin: u64, search: &Search<'_>, found: &mut Segment) -> Result<(), Broken> {
    let limit = begin + pages.log.segment;
    if search.from > begin {
        pages.seek(search.from)?;
    } else {
        pages.turn()?;
        pages.skip_continued(limit)?;
    }
    let (mut record, mut previous) = (Vec::new(), None);
    loop {
        // a record never begins in the last bytes of a page, nor in its header
        if pages.used == pages.log.page {
            if pages.next >= limit {
                return Ok(());
            }
            pages.turn()?;
        }
        let at = pages.at + pages.used as u64;
        if at >= limit {
            return Ok(());
        }
        if !pages.record(&mut record)? {
            previous = None;
            continue;
        }
        let link = u64::from_le_bytes(record[8..16].try_into().unwrap_or_default());
        if previous.is_some_and(|previous| previous != link) {
            return Err(Broken::Record);
        }
        previous = Some(at);
        let one = Record { at, bytes: &record };
        let end = if one.switches() { limit } else { pages.at + pages.used as u64 };
        if found.target.is_none()
            && let Some(after) = search.wanted.ends(&one)
        {
            found.target = Some(Hit { at, replayed: if after { Some(end) } else { found.end } });
        }
        if one.backup_end() == Some(search.from) {
            found.backup_end = Some(end);
        }
        found.end = Some(end);
        if one.switches() {
            return Ok(());
        }
    }
}

/// Pages of a log, one after the other, over the ends of segments.
struct Pages<'a> {
    log: Log,
    timelines: &'a [u32],
    open: &'a Open<'a>,
    reader: Option<Box<dyn Read + Send>>,
    /// Address of the page after this one.
    next: u64,
    page: Vec<u8>,
    /// Address of this page.
    at: u64,
    /// Bytes of it that were taken.
    used: usize,
}

impl Pages<'_> {
    /// Takes the next page, up to behind its header.
    fn turn(&mut self) -> Result<(), Broken> {
        let opens = self.next.is_multiple_of(self.log.segment);
        if opens {
            self.finish()?;
            let opened = (self.open)(self.next / self.log.segment).map_err(|_| Broken::Unpacked)?;
            self.reader = Some(opened.ok_or(Broken::Unfinished)?);
        }
        self.page.resize(self.log.page, 0);
        let reader = self.reader.as_mut().ok_or(Broken::Unfinished)?;
        reader.read_exact(&mut self.page).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => Broken::Short,
            _ => Broken::Unpacked,
        })?;
        (self.at, self.next) = (self.next, self.next + self.log.page as u64);
        let timeline = u32::from_le_bytes(self.page[4..8].try_into().unwrap_or_default());
        let address = u64::from_le_bytes(self.page[8..16].try_into().unwrap_or_default());
        if self.page.iter().take(SHORT_HEADER).all(|b| *b == 0) {
            return Err(Broken::Zeros);
        }
        let same_log = !opens || log_of(&self.page) == Some(self.log);
        if address != self.at || !self.timelines.contains(&timeline) || self.page[1] & 0xFE != 0xD0 || !same_log {
            return Err(Broken::Page);
        }
        self.used = if self.info() & LONG == 0 { SHORT_HEADER } else { LONG_HEADER };
        Ok(())
    }

    /// Reads the segment to its end: the server takes whole files alone, and what was packed shows only there that it is whole.
    fn finish(&mut self) -> Result<(), Broken> {
        let Some(mut reader) = self.reader.take() else { return Ok(()) };
        let left = self.next.next_multiple_of(self.log.segment) - self.next;
        match io::copy(&mut (&mut reader).take(left + 1), &mut io::sink()) {
            Ok(read) if read == left => Ok(()),
            Ok(read) if read < left => Err(Broken::Short),
            Ok(_) => Err(Broken::Page),
            Err(_) => Err(Broken::Unpacked),
        }
    }

    fn info(&self) -> u16 {
        u16::from_le_bytes([self.page[2], self.page[3]])
    }

    /// What the page says is left of a record that began before it.
    fn continued(&self) -> Option<usize> {
        let left = u32::from_le_bytes(self.page[16..20].try_into().unwrap_or_default());
        (self.info() & FIRST_IS_CONTINUED != 0).then(|| usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Passes over a record that began in the segment before.
    fn skip_continued(&mut self, limit: u64) -> Result<(), Broken> {
        while let Some(left) = self.continued() {
            let room = self.log.page - self.used;
            if left <= room {
                self.used += aligned(left).min(room);
                return Ok(());
            }
            self.used = self.log.page;
            if self.next >= limit {
                return Ok(());
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Goes to where a record begins.
    fn seek(&mut self, to: u64) -> Result<(), Broken> {
        loop {
            self.turn()?;
            if to < self.next {
                self.used = usize::try_from(to - self.at).unwrap_or(self.log.page);
                return Ok(());
            }
        }
    }

    /// Reads one record; `false` is one that was broken off by a crash and written anew.
    fn record(&mut self, record: &mut Vec<u8>) -> Result<bool, Broken> {
        record.clear();
        let begin = self.page.get(self.used..self.used + 4).ok_or(Broken::Record)?;
        let length = u32::from_le_bytes(begin.try_into().unwrap_or_default());
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length == 0 {
            return Err(Broken::Zeros);
        }
        if !(RECORD_HEADER..LONGEST).contains(&length) {
            return Err(Broken::Record);
        }
        loop {
            let take = (length - record.len()).min(self.log.page - self.used);
            record.extend_from_slice(&self.page[self.used..self.used + take]);
            self.used += take;
            if record.len() == length {
                break;
            }
            self.turn()?;
            if self.info() & FIRST_IS_OVERWRITTEN != 0 {
                return Ok(false);
            }
            if self.continued() != Some(length - record.len()) {
                return Err(Broken::Record);
            }
        }
        self.used = aligned(self.used).min(self.log.page);
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        digest.update(&record[RECORD_HEADER..]);
        digest.update(&record[..RECORD_HEADER - 4]);
        let sum = u32::from_le_bytes(record[RECORD_HEADER - 4..RECORD_HEADER].try_into().unwrap_or_default());
        if digest.finalize() == u64::from(sum) { Ok(true) } else { Err(Broken::Record) }
    }
}

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(8)
}

/// As messages name it.
pub(super) fn place(at: u64) -> String {
    Lsn(at).to_string()
}
