//! MariaDB's binary log, read event by event: lengths, places and checksums, and what each event says that matters for recovery.
//!
//! `mariadb-binlog` takes the end of a file for the end of the log, and goes from one file to the next without asking whether they
//! follow. So the logs are read before, by rules of our own: the layout is the same in all versions since 10.0 (`sql/log_event.h`).

use std::io::{self, Read};

use crc_fast::{CrcAlgorithm, Digest};

use crate::domain::Gtid;

/// What every log begins with.
const MAGIC: [u8; 4] = [0xFE, b'b', b'i', b'n'];
/// Of an event.
const HEADER: usize = 19;
/// At an event's end, where the log has checksums.
const CHECKSUM: usize = 4;
/// Bytes of an event that are looked at: of rows nothing is, and lists of transactions are shorter.
const LOOKED_AT: usize = 1 << 20;
/// No event is longer.
const LONGEST: usize = 2 << 30;
/// Where the first event has its flag of being written to, and that flag.
const FLAGS: usize = 17;
const IN_USE: u8 = 1;

/// Why a log cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// It does not begin like one.
    #[error("it is no binary log")]
    NoLog,
    /// It ends within an event.
    #[error("it ends within an event")]
    Short,
    /// An event is not what was written.
    #[error("the checksum of an event is wrong")]
    Checksum,
    /// An event is none.
    #[error("what stands there is no event")]
    NoEvent,
    /// The file itself cannot be read.
    #[error("it cannot be read: {}", .0.kind())]
    Unread(io::Error),
}

/// What an event says, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Says {
    /// The first of a log: who writes it, and whether he does still, or ended without closing it.
    Begin { server: String, in_use: bool },
    /// The last transaction of each domain before this log.
    Before(Vec<Gtid>),
    /// A transaction begins; one that stands alone is one statement, without an end of its own.
    Transaction { gtid: Gtid, alone: bool },
    /// A transaction ends.
    End,
    /// A statement, or rows, of this database; `keyword` is what begins, ends or marks a transaction.
    Of { database: Vec<u8>, statement: bool, keyword: bool },
    /// The log goes on in that of this number.
    Rotate(Option<u64>),
    /// The server ended.
    Stop,
    /// What follows is encrypted.
    Encrypted,
    /// The server itself says that it lost events.
    Lost,
    /// Nothing that matters.
    Else,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Where it begins.
    pub(super) at: u64,
    /// Where the next one begins.
    pub(super) end: u64,
    /// Seconds since 1970.
    pub(super) when: u32,
    pub(super) says: Says,
}

/// A log that is read.
pub(super) struct Log<R> {
    file: R,
    at: u64,
    /// Whether events have checksums: the first one says so.
    pub(super) checksums: bool,
    kept: Vec<u8>,
}

impl<R: Read> Log<R> {
    pub(super) fn open(mut file: R) -> Result<Self, Broken> {
        let mut magic = [0; MAGIC.len()];
        match read_up_to(&mut file, &mut magic)? {
            n if n < magic.len() => Err(Broken::Short),
            _ if magic != MAGIC => Err(Broken::NoLog),
            _ => Ok(Self { file, at: MAGIC.len() as u64, checksums: false, kept: Vec::new() }),
        }
    }

    /// The next event; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Event>, Broken> {
        let mut header = [0; HEADER];
        match read_up_to(&mut self.file, &mut header)? {
            0 => return Ok(None),
            n if n < HEADER => return Err(Broken::Short),
            _ => {}
        }
        let first = self.at == MAGIC.len() as u64;
        let (kind, length) = (header[4], u32_at(&header, 9).unwrap_or(0) as usize);
        let end = self.at + length as u64;
        // what it says of its own place has 32 bits
        let place = u64::from(u32_at(&header, 13).unwrap_or(0));
        if !(HEADER..=LONGEST).contains(&length) || place != end & 0xFFFF_FFFF || first != (kind == kind::FORMAT) {
            return Err(Broken::NoEvent);
        }
        let in_use = header[FLAGS] & IN_USE != 0;
        // a log's first event is summed as it is once the log is closed
        header[FLAGS] &= if first { !IN_USE } else { u8::MAX };
        let mut sum = Digest::new(CrcAlgorithm::Crc32IsoHdlc);
        sum.update(&header);
        let summed = self.body(length - HEADER, &mut sum)?;
        if first {
            self.checksums = checksums_of(&self.kept).ok_or(Broken::NoEvent)?;
        }
        // a first event has one in any case
        let has_sum = self.checksums || first;
        if has_sum && summed != Some(sum.finalize() & 0xFFFF_FFFF) {
            return Err(Broken::Checksum);
        }
        let tail = if has_sum { CHECKSUM } else { 0 };
        let body = &self.kept[..(length - HEADER).saturating_sub(tail).min(self.kept.len())];
        let says = says(kind, u32_at(&header, 5).unwrap_or(0), in_use, body).ok_or(Broken::NoEvent)?;
        let event = Event { at: self.at, end, when: u32_at(&header, 0).unwrap_or(0), says };
        self.at = end;
        Ok(Some(event))
    }

    /// Reads so much, keeps its beginning and sums all but the last bytes; answers those, as the checksum that they may be.
    fn body(&mut self, length: usize, sum: &mut Digest) -> Result<Option<u64>, Broken> {
        self.kept.clear();
        let mut tail: Vec<u8> = Vec::new();
        let mut buffer = [0; 16 << 10];
        let mut left = length;
        while left > 0 {
            let piece = &mut buffer[..left.min(16 << 10)];
            if read_up_to(&mut self.file, piece)? < piece.len() {
                return Err(Broken::Short);
            }
            left -= piece.len();
            let room = LOOKED_AT.saturating_sub(self.kept.len()).min(piece.len());
            self.kept.extend_from_slice(&piece[..room]);
            tail.extend_from_slice(piece);
            let whole = tail.len().saturating_sub(CHECKSUM);
            sum.update(&tail[..whole]);
            tail.drain(..whole);
        }
        Ok(u32_at(&tail, 0).map(u64::from))
    }
}

/// Numbers of kinds of events (`enum Log_event_type`).
mod kind {
    pub(super) const QUERY: u8 = 2;
    pub(super) const STOP: u8 = 3;
    pub(super) const ROTATE: u8 = 4;
    pub(super) const FORMAT: u8 = 15;
    pub(super) const XID: u8 = 16;
    pub(super) const EXECUTE_LOAD_QUERY: u8 = 18;
    pub(super) const TABLE_MAP: u8 = 19;
    pub(super) const INCIDENT: u8 = 26;
    pub(super) const XA_PREPARE: u8 = 38;
    pub(super) const GTID: u8 = 162;
    pub(super) const GTID_LIST: u8 = 163;
    pub(super) const START_ENCRYPTION: u8 = 164;
    pub(super) const QUERY_COMPRESSED: u8 = 165;
}

/// A transaction of one statement, which has no end of its own (`FL_STANDALONE`).
const ALONE: u8 = 1;

/// What an event says; `None` where it is too short to say it.
fn says(kind: u8, server: u32, in_use: bool, body: &[u8]) -> Option<Says> {
    let gtid = |domain: usize, server: u32, sequence: usize| {
        Some(Gtid {
            domain: u32_at(body, domain)?,
            server,
            sequence: u64::from_le_bytes(body.get(sequence..sequence + 8)?.try_into().ok()?),
        })
    };
    Some(match kind {
        kind::FORMAT => {
            let version = body.get(2..52)?.split(|b| *b == 0).next()?;
            Says::Begin { server: String::from_utf8_lossy(version).into_owned(), in_use }
        }
        kind::GTID_LIST => {
            // the upper four bits are flags
            let count = (u32_at(body, 0)? & 0x0FFF_FFFF) as usize;
            let listed = (0..count).map(|n| 4 + n * 16).map(|at| gtid(at, u32_at(body, at + 4)?, at + 8));
            Says::Before(listed.collect::<Option<_>>()?)
        }
        kind::GTID => Says::Transaction { gtid: gtid(8, server, 0)?, alone: body.get(12)? & ALONE != 0 },
        kind::XID | kind::XA_PREPARE => Says::End,
        kind::QUERY | kind::QUERY_COMPRESSED | kind::EXECUTE_LOAD_QUERY => query(kind, body)?,
        kind::TABLE_MAP => {
            let length = usize::from(*body.get(8)?);
            Says::Of { database: body.get(9..9 + length)?.to_owned(), statement: false, keyword: false }
        }
        kind::ROTATE => {
            let name = String::from_utf8_lossy(body.get(8..)?).into_owned();
            Says::Rotate(crate::domain::BinlogPosition::number_of(&name))
        }
        kind::STOP => Says::Stop,
        kind::START_ENCRYPTION => Says::Encrypted,
        kind::INCIDENT => Says::Lost,
        _ => Says::Else,
    })
}

fn query(kind: u8, body: &[u8]) -> Option<Says> {
    let (database, status) = (usize::from(*body.get(8)?), usize::from(u16::from_le_bytes(body.get(11..13)?.try_into().ok()?)));
    let extra = if kind == kind::EXECUTE_LOAD_QUERY { 13 } else { 0 };
    let rest = body.get(13 + extra + status..)?;
    let text = rest.get(database + 1..)?;
    // the same words as mariadb-binlog itself tells them by
    let begins = |words: &[&[u8]]| words.iter().any(|word| text.starts_with(word));
    if text == b"COMMIT" || text == b"ROLLBACK" || begins(&[b"XA COMMIT", b"XA ROLLBACK"]) {
        return Some(Says::End);
    }
    let keyword = text == b"BEGIN" || begins(&[b"SAVEPOINT", b"ROLLBACK TO", b"XA "]);
    Some(Says::Of { database: rest.get(..database)?.to_owned(), statement: true, keyword })
}

/// Whether a log's events have checksums, as its first event says in the byte before its own.
fn checksums_of(format: &[u8]) -> Option<bool> {
    match format.len().checked_sub(CHECKSUM + 1).and_then(|at| format.get(at))? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Fills the buffer as far as there is something.
fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Broken> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Broken::Unread(error)),
        }
    }
    Ok(filled)
}

/// Logs as a server writes them, for tests.
#[cfg(test)]
pub(super) mod written {
    use super::*;

    #[derive(Clone)]
    pub(in super::super) struct Written {
        pub(in super::super) bytes: Vec<u8>,
        /// Where its transactions end.
        pub(in super::super) ends: Vec<u64>,
    }

    impl Written {
        /// A log that is written to, after these transactions.
        pub(in super::super) fn new(before: &[u64]) -> Self {
            Self::by("10.11.14-MariaDB-log", before)
        }

        pub(in super::super) fn by(version: &str, before: &[u64]) -> Self {
            let mut log = Self { bytes: MAGIC.to_vec(), ends: Vec::new() };
            let mut format = vec![0; 2 + 50 + 4 + 1 + 40];
            format[2..2 + version.len()].copy_from_slice(version.as_bytes());
            // and that events have checksums
            format.push(1);
            log.event(kind::FORMAT, 1_000, &format);
            log.bytes[MAGIC.len() + FLAGS] |= IN_USE;
            let mut list = u32::try_from(before.len()).unwrap().to_le_bytes().to_vec();
            for sequence in before {
                list.extend([0, 0, 0, 0, 7, 0, 0, 0]);
                list.extend(sequence.to_le_bytes());
            }
            log.event(kind::GTID_LIST, 1_000, &list);
            log
        }

        pub(in super::super) fn event(&mut self, kind: u8, when: u32, body: &[u8]) {
            let length = u32::try_from(HEADER + body.len() + CHECKSUM).unwrap();
            let mut event = when.to_le_bytes().to_vec();
            event.push(kind);
            event.extend(7_u32.to_le_bytes());
            event.extend(length.to_le_bytes());
            event.extend((u32::try_from(self.bytes.len()).unwrap() + length).to_le_bytes());
            event.extend([0, 0]);
            event.extend(body);
            let mut sum = Digest::new(CrcAlgorithm::Crc32IsoHdlc);
            sum.update(&event);
            event.extend(u32::try_from(sum.finalize()).unwrap().to_le_bytes());
            self.bytes.extend(event);
        }

        /// A statement in a transaction, in a second of its own.
        pub(in super::super) fn transaction(&mut self, sequence: u64, database: &str) {
            let when = 1_000 + u32::try_from(sequence).unwrap();
            self.event(kind::GTID, when, &[sequence.to_le_bytes().as_slice(), &[0, 0, 0, 0, 4], &[0; 6]].concat());
            let head = [0, 0, 0, 0, 0, 0, 0, 0, u8::try_from(database.len()).unwrap(), 0, 0, 0, 0];
            self.event(kind::QUERY, when, &[head.as_slice(), database.as_bytes(), b"\0insert"].concat());
            self.event(kind::XID, when, &sequence.to_le_bytes());
            self.ends.push(self.bytes.len() as u64);
        }

        /// It ends after so many transactions, and nobody closed it.
        pub(in super::super) fn died_after(&self, transactions: usize) -> Self {
            let mut log = self.clone();
            log.bytes.truncate(usize::try_from(log.ends[transactions - 1]).unwrap());
            log.bytes[MAGIC.len() + FLAGS] |= IN_USE;
            log
        }

        /// Ends it.
        pub(in super::super) fn rotate(&mut self, next: u64) {
            let body = [&4_u64.to_le_bytes(), format!("bin.{next:06}").as_bytes()].concat();
            self.event(kind::ROTATE, 1_000, &body);
            self.bytes[MAGIC.len() + FLAGS] &= !IN_USE;
        }
    }
}
