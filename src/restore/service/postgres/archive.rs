//! An archive of WAL: its files, its timelines, and whether what recovery needs of it is all there and whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::{Input, ServiceError, Shop};
use super::wal::{self, Broken, Hit, Log, Search, Segment, Wanted};
use crate::codec::{Compression, PREFIX, decompressor, detect};
use crate::domain::ServiceProblem;

/// Endings of packed files, and what unpacks them inside.
pub(super) const PACKED: [(&str, &str); 4] = [("gz", "gzip"), ("zst", "zstd"), ("lz4", "lz4"), ("xz", "xz")];

/// A file of the archive.
#[derive(Debug, Clone)]
struct Piece {
    input: Input,
    /// By its name, a segment that was still being written.
    partial: bool,
    /// From the backup's own `pg_wal`.
    brought: bool,
}

/// One stretch of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) timeline: u32,
    /// Where it begins; 0 for the first.
    pub(super) begin: u64,
}

/// All WAL that is at hand.
pub(super) struct Archive {
    segments: BTreeMap<(u32, u64), Piece>,
    histories: BTreeMap<u32, Input>,
    segment: u64,
    page: usize,
    system: u64,
}

/// What the audit found.
#[derive(Debug)]
pub(super) struct Audit {
    /// Segments that were read.
    pub(super) segments: u64,
    /// Up to where the log is whole.
    pub(super) whole_until: u64,
    /// Where recovery will end, if it will.
    pub(super) target: Option<Hit>,
    /// End of the last record that will be replayed, where a target is there.
    pub(super) replayed: Option<u64>,
    /// Where the backup ends.
    pub(super) backup_end: Option<u64>,
    /// Holes and damage, in the order of the log.
    pub(super) faults: Vec<Fault>,
}

/// A hole, or damage.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) at: u64,
    pub(super) problem: ServiceProblem,
    pub(super) how: String,
}

impl Archive {
    /// Nothing yet, for a log of this shape.
    pub(super) fn new(segment: u64, page: usize, system: u64) -> Self {
        Self { segments: BTreeMap::new(), histories: BTreeMap::new(), segment, page, system }
    }

    /// Takes what is below a directory; what is there already stays.
    pub(super) fn add(&mut self, shop: &Shop<'_>, directory: &Input, brought: bool) -> Result<(), ServiceError> {
        for input in shop.files_below(directory)? {
            // a line of a list
            if input.inside.contains('\n') {
                continue;
            }
            let Some(name) = input.path.as_path().file_name().and_then(|name| name.to_str()) else { continue };
            let name = PACKED.iter().find_map(|(ending, _)| name.strip_suffix(ending)?.strip_suffix('.')).unwrap_or(name).to_owned();
            if let Some(timeline) = name.strip_suffix(".history").and_then(hex) {
                self.histories.entry(timeline).or_insert(input);
                continue;
            }
            let (name, partial) = name.strip_suffix(".partial").map_or((name.as_str(), false), |name| (name, true));
            let Some((timeline, number)) = self.numbered(name) else { continue };
            let piece = Piece { input, partial, brought };
            match self.segments.entry((timeline, number)) {
                std::collections::btree_map::Entry::Occupied(mut there) if there.get().partial && !partial => drop(there.insert(piece)),
                std::collections::btree_map::Entry::Occupied(_) => {}
                std::collections::btree_map::Entry::Vacant(place) => drop(place.insert(piece)),
            }
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Timeline and number of the segment that a name means.
    fn numbered(&self, name: &str) -> Option<(u32, u64)> {
        if name.len() != 24 || !name.is_ascii() {
            return None;
        }
        let (timeline, high, low) = (hex(&name[..8])?, hex(&name[8..16])?, hex(&name[16..])?);
        let each = (1 << 32) / self.segment;
        (u64::from(low) < each).then(|| (timeline, u64::from(high) * each + u64::from(low)))
    }

    fn name(&self, timeline: u32, number: u64) -> String {
        let each = (1 << 32) / self.segment;
        format!("{timeline:08X}{:08X}{:08X}", number / each, number % each)
    }

    /// Lines for the command by which the server takes its WAL: name, then file. What the backup itself brought the server finds.
    pub(super) fn list(&self) -> String {
        let segments = self.segments.iter().filter(|(_, piece)| !piece.brought);
        let segments = segments.map(|((timeline, number), piece)| (self.name(*timeline, *number), &piece.input));
        let histories = self.histories.iter().map(|(timeline, input)| (format!("{timeline:08X}.history"), input));
        segments.chain(histories).map(|(name, input)| format!("{name} {}\n", input.inside)).collect()
    }

    /// Programs that unpack what is packed here.
    pub(super) fn unpackers(&self) -> Vec<&'static str> {
        let inputs = || self.segments.values().map(|piece| &piece.input).chain(self.histories.values());
        let used = |ending: &str| inputs().any(|input| input.inside.ends_with(&format!(".{ending}")));
        PACKED.iter().filter(|(ending, _)| used(ending)).map(|(_, program)| *program).collect()
    }

    /// The newest timeline that goes on from where the backup was taken, and how it came about.
    pub(super) fn stretches(&self, shop: &Shop<'_>, backup: u32, from: u64) -> Vec<Stretch> {
        for timeline in self.histories.keys().rev().filter(|timeline| **timeline > backup) {
            let Some(stretches) = self.history(shop, *timeline) else { continue };
            // a stray timeline that left ours before the backup is no way on from it
            let leaves = stretches.windows(2).find(|pair| pair[0].timeline == backup).map(|pair| pair[1].begin);
            if leaves.is_some_and(|at| at >= from) {
                return stretches;
            }
        }
        vec![Stretch { timeline: backup, begin: 0 }]
    }

    /// How a timeline came about, by its history; `None` without one that says so.
    fn history(&self, shop: &Shop<'_>, timeline: u32) -> Option<Vec<Stretch>> {
        let mut text = String::new();
        let file = shop.open(&self.histories.get(&timeline)?.path).ok()?;
        unpacked(file).ok()?.take(1 << 20).read_to_string(&mut text).ok()?;
        Some(history(&text, timeline)).filter(|stretches| stretches.len() > 1)
    }

    /// A newer timeline that has WAL here and no history: a server does not know of it, and recovers past it in silence.
    fn unknown_timeline(&self, shop: &Shop<'_>, stretches: &[Stretch]) -> Option<u32> {
        let newest = stretches.last().map_or(0, |stretch| stretch.timeline);
        let newer = self.segments.keys().map(|(timeline, _)| *timeline).filter(|timeline| *timeline > newest);
        newer.collect::<BTreeSet<_>>().into_iter().find(|timeline| self.history(shop, *timeline).is_none())
    }

    /// Which file the server will take for a segment.
    fn file(&self, stretches: &[Stretch], number: u64) -> Option<&Piece> {
        let may = stretches.iter().rev().filter(|stretch| stretch.begin / self.segment <= number);
        may.filter_map(|stretch| self.segments.get(&(stretch.timeline, number))).next()
    }

    /// The last segment on these timelines.
    fn last(&self, stretches: &[Stretch]) -> Option<u64> {
        let of = |(index, stretch): (usize, &Stretch)| {
            let end = stretches.get(index + 1).map_or(u64::MAX, |next| next.begin / self.segment);
            let range = (stretch.timeline, stretch.begin / self.segment)..=(stretch.timeline, end);
            self.segments.range(range).next_back().map(|((_, number), _)| *number)
        };
        stretches.iter().enumerate().filter_map(of).max()
    }

    /// Reads all of it from `from` on, on all processors.
    pub(super) async fn audit(&self, shop: &Shop<'_>, stretches: &[Stretch], from: u64, wanted: &Wanted) -> Result<Audit, ServiceError> {
        let first = from / self.segment;
        let last = self.last(stretches).filter(|last| *last >= first);
        let mut audit = Audit { segments: 0, whole_until: from, target: None, replayed: None, backup_end: None, faults: Vec::new() };
        let Some(last) = last else {
            let how = format!("{} is missing, where the backup begins", self.name(stretches.last().map_or(1, |s| s.timeline), first));
            audit.faults.push(Fault { at: from, problem: ServiceProblem::LogHole, how });
            return Ok(audit);
        };
        let timelines: Vec<u32> = stretches.iter().map(|stretch| stretch.timeline).collect();
        let log = Log { segment: self.segment, page: self.page, system: self.system };
        let search = Search { log, timelines: &timelines, from, wanted };
        let open = |number: u64| match self.file(stretches, number) {
            Some(piece) => shop.open(&piece.input.path).and_then(unpacked).map(Some),
            None => Ok(None),
        };
        let mut number = first;
        while number <= last {
            if (shop.left)().is_zero() {
                return Err(ServiceError::runner("the drill's time ran out while the WAL was read", []));
            }
            let upto = last.min(number + BATCH - 1);
            let read = |number: u64| self.file(stretches, number).map(|_| wal::read(&search, number, &open));
            let batch = tokio::task::block_in_place(|| parallel(number..=upto, shop.processors, &read));
            for (number, segment) in (number..=upto).zip(batch) {
                self.judge(stretches, number, last, segment, &mut audit);
            }
            number = upto + 1;
            // who ends the drill is heard
            tokio::task::yield_now().await;
        }
        if let Some(timeline) = self.unknown_timeline(shop, stretches) {
            let how = format!(
                "WAL of timeline {timeline} is there, and {timeline:08X}.history, which says where it goes on, is not or is damaged"
            );
            audit.faults.push(Fault { at: audit.whole_until, problem: ServiceProblem::LogHole, how });
        }
        Ok(audit)
    }

    fn judge(&self, stretches: &[Stretch], number: u64, last: u64, segment: Option<Segment>, audit: &mut Audit) {
        let timeline = stretches.iter().rev().find(|s| s.begin / self.segment <= number).map_or(1, |s| s.timeline);
        let name = self.name(timeline, number);
        let Some(segment) = segment else {
            let how = format!("{name} is missing");
            audit.faults.push(Fault { at: number * self.segment, problem: ServiceProblem::LogHole, how });
            return;
        };
        audit.segments += 1;
        if let Some(hit) = segment.target.filter(|_| audit.target.is_none() && audit.faults.is_empty()) {
            audit.target = Some(hit);
            audit.replayed = Some(hit.replayed.unwrap_or(audit.whole_until));
        }
        if audit.faults.is_empty() {
            audit.backup_end = audit.backup_end.or(segment.backup_end);
            audit.whole_until = segment.end.unwrap_or(audit.whole_until);
        }
        let Some((at, broken)) = segment.broken else { return };
        let piece = self.file(stretches, number);
        // the last segment may end where the server had come to; one that was not archived may have anything behind that
        let unfinished = piece.is_some_and(|piece| piece.partial || piece.brought);
        let is_end = match broken {
            Broken::Unfinished => number == last,
            Broken::Zeros => number == last && (unfinished || at > number * self.segment),
            Broken::Short | Broken::Page | Broken::Record | Broken::Unpacked => number == last && unfinished,
        };
        // a record that goes on in a segment that is missing is told as the hole that it is
        if !is_end && broken != Broken::Unfinished {
            let how = format!("{name}, at {}: {}", wal::place(at), broken.words());
            audit.faults.push(Fault { at, problem: ServiceProblem::LogDamaged, how });
        }
    }
}

/// Segments that are read before anything else is heard.
const BATCH: u64 = 8;

/// Asks for each, on so many processors.
fn parallel<T: Send>(numbers: std::ops::RangeInclusive<u64>, processors: u32, ask: &(dyn Fn(u64) -> T + Sync)) -> Vec<T> {
    let numbers: Vec<u64> = numbers.collect();
    let answers: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::with_capacity(numbers.len()));
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((index, number)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, *numbers.get(i)?))) {
            let answer = ask(number);
            answers.lock().unwrap_or_else(PoisonError::into_inner).push((index, answer));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..numbers.len().min(usize::try_from(processors).unwrap_or(1)) {
            scope.spawn(work);
        }
        work();
    });
    let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// A file as it was before it was packed, told by its bytes.
pub(super) fn unpacked(file: std::fs::File) -> std::io::Result<Box<dyn Read + Send>> {
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut prefix = Vec::new();
    (&mut reader).take(PREFIX as u64).read_to_end(&mut prefix)?;
    let compression = Compression::of(detect(&prefix));
    let whole = std::io::Cursor::new(prefix).chain(reader);
    match compression {
        Some(compression) => decompressor(compression, whole),
        None => Ok(Box::new(whole)),
    }
}

fn hex(digits: &str) -> Option<u32> {
    (digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b)))
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
}

/// A timeline's history: each of its parents ends where the next begins.
fn history(text: &str, timeline: u32) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut begin = 0;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (Some(parent), Some(end)) = (words.next().and_then(|w| w.parse().ok()), words.next().and_then(|w| w.parse().ok())) else {
            continue;
        };
        let end: crate::domain::Lsn = end;
        stretches.push(Stretch { timeline: parent, begin });
        begin = end.0;
    }
    stretches.push(Stretch { timeline, begin });
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments_are_numbers() {
        let archive = Archive::new(16 << 20, 8192, 0);
        for name in ["000000010000000000000002", "0000000A000000FF000000FE"] {
            let (timeline, number) = archive.numbered(name).unwrap();
            assert_eq!(archive.name(timeline, number), name);
        }
        for name in ["00000001000000000000010F", "00000001.history", "00000001000000000000000g", "0000000100000000000000"] {
            assert_eq!(archive.numbered(name), None, "{name}");
        }
    }

    #[test]
    fn a_history_tells_where_timelines_left_each_other() {
        let text = "1\t0/5000060\tno recovery target specified\n\n2\t0/7000000\tbefore 2026-11-20\n";
        let found: Vec<_> = history(text, 3).into_iter().map(|s| (s.timeline, s.begin)).collect();
        assert_eq!(found, [(1, 0), (2, 0x500_0060), (3, 0x700_0000)]);
    }
}
