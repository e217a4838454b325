//! Reading a ledger from end to end as a stranger would: nothing is believed but what a trusted key signed.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::super::{Attestation, Refused, TrustFile, ledgers_below};
use super::checkpoint::Checkpoint;
use super::entry::{Entry, EntryKind};
use super::error::LedgerRefusal;
use super::log::read_checkpoint;
use super::tree::TreeMemory;
use super::{LONGEST_ENTRY, names};
use crate::domain::{DrillId, Plan, Sha256, Timestamp, Verdict};

/// Entries, line by line, each in its place.
pub(super) struct Lines<R> {
    lines: R,
    index: u64,
}

impl<R: BufRead> Lines<R> {
    /// Of a reader that stands at entry `index`.
    pub(super) fn from(lines: R, index: u64) -> Self {
        Self { lines, index }
    }

    /// The next entry with its bytes, the newline left out; none at the end, or where the last line is torn.
    pub(super) fn next_entry(&mut self) -> Result<Option<(Entry, Vec<u8>)>, LedgerRefusal> {
        let Some(line) = self.next_line()? else { return Ok(None) };
        let entry = read_entry(self.index, &line)?;
        self.index += 1;
        Ok(Some((entry, line)))
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>, LedgerRefusal> {
        let mut line = Vec::new();
        let read = self.lines.by_ref().take(LONGEST_ENTRY).read_until(b'\n', &mut line);
        read.map_err(|e| LedgerRefusal::Unreadable { file: names::ENTRIES.to_owned(), reason: e.to_string() })?;
        if line.len() as u64 == LONGEST_ENTRY {
            return Err(LedgerRefusal::Entry { index: self.index, what: "it is longer than any entry".to_owned() });
        }
        Ok(line.pop_if(|last| *last == b'\n').map(|_| line))
    }
}

fn read_entry(index: u64, line: &[u8]) -> Result<Entry, LedgerRefusal> {
    let wrong = |what: String| LedgerRefusal::Entry { index, what };
    let entry: Entry = serde_json::from_slice(line).map_err(|e| wrong(format!("it is no entry that this program knows: {e}")))?;
    if entry.index == index { Ok(entry) } else { Err(wrong(format!("it says that it is entry {}", entry.index))) }
}

/// A checkpoint that somebody kept elsewhere.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// What it is called, as the file's name.
    pub name: String,
    /// The checkpoint's bytes.
    pub bytes: Vec<u8>,
    /// When somebody whom one trusts saw it; none where nobody says.
    pub seen_at: Option<Timestamp>,
}

/// What a ledger says of one drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillEntries {
    /// Where it was entered before it started, and when.
    pub started: (u64, Timestamp),
    /// What it promised.
    pub plan: Box<Plan>,
    /// Whether its runner was lost before it ended.
    pub interrupted: bool,
    /// Where its end was entered, when, its verdict, and SHA-256 of its `SHA256SUMS`.
    pub finished: Option<(u64, Timestamp, Verdict, Sha256)>,
}

/// Something about a ledger that is no lie and should be known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerRemark {
    /// A drill was entered before it started, and never after.
    #[error("drill {drill} of {scenario} was started on {} and has no end: it runs, or its runner was lost", at.to_human())]
    NoEnd {
        /// Which.
        drill: DrillId,
        /// Of which scenario.
        scenario: String,
        /// When it was entered.
        at: Timestamp,
    },
    /// Entries after the last checkpoint.
    #[error("{0} bytes after the last checkpoint were never committed")]
    NotCommitted(u64),
    /// What was seen at one time says another.
    #[error("{what} was seen on {}, and the last of the {covered} entries that it covers says {}", seen.to_human(), said.to_human())]
    SeenAtAnotherTime {
        /// Which checkpoint.
        what: String,
        /// Entries that it covers.
        covered: u64,
        /// When it was seen.
        seen: Timestamp,
        /// When its last entry was made, by itself.
        said: Timestamp,
    },
    /// The clock went back.
    #[error("entry {index} is earlier than the one before it: the host's clock was set back")]
    ClockSetBack {
        /// Its place.
        index: u64,
    },
}

/// Seconds by which entries and whoever saw them may differ: anchors are carried away every day.
const SEEN_WITHIN: i64 = 2 * 86_400;

/// A ledger whose every entry was read.
#[derive(Debug, Clone)]
pub struct Examined {
    /// Its last checkpoint.
    pub checkpoint: Checkpoint,
    /// Whose key the trust file says signed it.
    pub principals: String,
    /// When the first entry was made, and the last; none where there is none.
    pub span: Option<(Timestamp, Timestamp)>,
    /// Its drills.
    pub drills: BTreeMap<DrillId, DrillEntries>,
    /// Checkpoints kept elsewhere that it agrees with.
    pub anchors: usize,
    /// What should be known.
    pub remarks: Vec<LedgerRemark>,
}

/// Reads the ledger in `directory` from end to end and holds it to its checkpoint and to `anchors`.
///
/// # Errors
/// [`LedgerRefusal`].
pub fn examine(directory: &Path, trust: &TrustFile, anchors: &[Anchor]) -> Result<Examined, LedgerRefusal> {
    let checkpoint = read_checkpoint(directory, trust)?.ok_or(LedgerRefusal::NothingHere)?;
    let mut held = vec![("the checkpoint".to_owned(), checkpoint.clone())];
    let mut seen: BTreeMap<u64, Vec<(&str, Timestamp)>> = BTreeMap::new();
    for anchor in anchors {
        let kept = Checkpoint::open(&anchor.bytes, trust, &anchor.name)?;
        if kept.origin != checkpoint.origin {
            let (found, expected) = (kept.origin, checkpoint.origin);
            return Err(LedgerRefusal::OtherLog { what: anchor.name.clone(), found, expected });
        }
        if let Some(at) = anchor.seen_at {
            seen.entry(kept.size).or_default().push((&anchor.name, at));
        }
        held.push((anchor.name.clone(), kept));
    }
    let unreadable = |e: std::io::Error| LedgerRefusal::Unreadable { file: names::ENTRIES.to_owned(), reason: e.to_string() };
    let file = File::open(directory.join(names::ENTRIES)).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut lines = Lines::from(BufReader::with_capacity(1 << 20, file), 0);
    let (mut tree, mut story, mut bytes) = (TreeMemory::default(), Story::default(), 0);
    for index in 0..checkpoint.size {
        let Some(line) = lines.next_line()? else {
            return Err(LedgerRefusal::Shortened { what: "the checkpoint".to_owned(), covered: checkpoint.size, found: index });
        };
        bytes += line.len() as u64 + 1;
        tree.push(index, &line).map_err(unreadable)?;
        story.take(index, &line, &checkpoint.origin);
        for (what, at) in seen.remove(&(index + 1)).unwrap_or_default() {
            story.seen(what, index + 1, at);
        }
    }
    for (what, kept) in &held {
        if kept.size > checkpoint.size {
            return Err(LedgerRefusal::Shortened { what: what.clone(), covered: kept.size, found: checkpoint.size });
        }
        if tree.root(kept.size).map_err(unreadable)? != kept.root {
            return Err(LedgerRefusal::Root { what: what.clone(), covered: kept.size });
        }
    }
    // what is signed and makes no sense is told after what is not even signed
    let Story { drills, span, mut remarks, wrong } = story;
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    let principals = match span {
        Some((_, last)) => trust.judge(&checkpoint.signer, last)?.principals.clone(),
        None => String::new(),
    };
    for (drill, entries) in drills.iter().filter(|(_, entries)| entries.finished.is_none() && !entries.interrupted) {
        let (drill, scenario) = (drill.clone(), entries.plan.scenario.to_string());
        remarks.push(LedgerRemark::NoEnd { drill, scenario, at: entries.started.1 });
    }
    if length > bytes {
        remarks.push(LedgerRemark::NotCommitted(length - bytes));
    }
    Ok(Examined { checkpoint, principals, span, drills, anchors: anchors.len(), remarks })
}

/// What the entries tell, one after the other.
#[derive(Default)]
struct Story {
    drills: BTreeMap<DrillId, DrillEntries>,
    span: Option<(Timestamp, Timestamp)>,
    remarks: Vec<LedgerRemark>,
    /// The first that makes no sense.
    wrong: Option<LedgerRefusal>,
}

impl Story {
    fn take(&mut self, index: u64, line: &[u8], origin: &str) {
        if self.wrong.is_none() {
            self.wrong = read_entry(index, line).and_then(|entry| self.tell(entry, origin)).err();
        }
    }

    /// Holds the time of the last entry to when its checkpoint was seen.
    fn seen(&mut self, what: &str, covered: u64, seen: Timestamp) {
        if let Some((_, said)) = self.span
            && seen.seconds_since(said).abs() > SEEN_WITHIN
        {
            self.remarks.push(LedgerRemark::SeenAtAnotherTime { what: what.to_owned(), covered, seen, said });
        }
    }

    fn tell(&mut self, entry: Entry, origin: &str) -> Result<(), LedgerRefusal> {
        let (index, at) = (entry.index, entry.at);
        let wrong = |what: &str| Err(LedgerRefusal::Entry { index, what: what.to_owned() });
        let (first, last) = self.span.unwrap_or((at, at));
        if at < last {
            self.remarks.push(LedgerRemark::ClockSetBack { index });
        }
        self.span = Some((first, last.max(at)));
        match entry.entry {
            EntryKind::Opened { origin: named } if index != 0 || named != origin => {
                return wrong("a log of this origin does not begin here");
            }
            EntryKind::Opened { .. } => {}
            _ if index == 0 => return wrong("a log begins with its opening"),
            EntryKind::DrillStarted { drill, plan } => match self.drills.entry(drill) {
                btree_map::Entry::Occupied(_) => return wrong("its drill was started before"),
                btree_map::Entry::Vacant(place) => {
                    place.insert(DrillEntries { started: (index, at), plan, interrupted: false, finished: None });
                }
            },
            EntryKind::Interrupted { drill } => match self.drills.get_mut(&drill) {
                Some(entries) => entries.interrupted = true,
                None => return wrong("its drill was never started"),
            },
            EntryKind::DrillFinished { drill, verdict, sums_sha256 } => match self.drills.get_mut(&drill) {
                Some(entries) if entries.finished.is_none() => entries.finished = Some((index, at, verdict, sums_sha256)),
                Some(_) => return wrong("its drill has ended before"),
                None => return wrong("its drill was never started"),
            },
            _ => {}
        }
        Ok(())
    }
}

/// Holds the evidence that was found beside a ledger to what was entered. `refused` are ids of drills whose evidence is here
/// and not believed, which is told elsewhere.
pub fn compare(ledger: &Examined, evidence: &[&Attestation], refused: &[String]) -> Vec<LedgerRefusal> {
    let Some((opened, _)) = ledger.span else { return Vec::new() };
    let mut problems = Vec::new();
    let mut here: BTreeSet<&str> = refused.iter().map(String::as_str).collect();
    for attestation in evidence {
        let report = attestation.report();
        here.insert(&report.report_id.0);
        let drill = || report.report_id.to_string();
        match ledger.drills.get(&report.report_id) {
            Some(DrillEntries { finished: Some((_, _, verdict, sums)), plan, .. }) => {
                let same = [
                    ("the plan", **plan == report.plan),
                    ("the verdict", *verdict == report.verdict),
                    ("a file", sums == attestation.sums()),
                ];
                if let Some((what, _)) = same.into_iter().find(|(_, same)| !same) {
                    problems.push(LedgerRefusal::OtherEvidence { drill: drill(), what });
                }
            }
            Some(_) => problems.push(LedgerRefusal::NotEntered { drill: drill() }),
            // what ended before there was a ledger is in none
            None if report.finished_at < opened => {}
            None => problems.push(LedgerRefusal::NotEntered { drill: drill() }),
        }
    }
    for (drill, entries) in &ledger.drills {
        if let Some((_, at, verdict, _)) = &entries.finished
            && !here.contains(drill.0.as_str())
        {
            problems.push(LedgerRefusal::EvidenceGone { drill: drill.to_string(), ended: verdict.to_string(), at: *at });
        }
    }
    problems
}

/// A ledger that was found, and what became of it.
#[derive(Debug)]
pub struct VerifiedLedger {
    /// Where it is.
    pub directory: PathBuf,
    /// What it says.
    pub examined: Result<Examined, LedgerRefusal>,
    /// What does not agree with the evidence that was found beside it.
    pub disagreements: Vec<LedgerRefusal>,
}

impl VerifiedLedger {
    /// Whether it holds, and the evidence beside it agrees.
    pub fn is_trusted(&self) -> bool {
        self.problems().next().is_none()
    }

    /// Why it is not trusted.
    pub fn problems(&self) -> impl Iterator<Item = &LedgerRefusal> {
        self.examined.as_ref().err().into_iter().chain(&self.disagreements)
    }
}

/// Examines every ledger at or below `paths`, holds it to `anchors` and to the checkpoints in the reports beside it, and the
/// reports to it. `results` are what [`verify`](super::super::verify) found at the same paths.
///
/// A ledger is beside the reports of the directory that it is in.
pub fn verify_ledgers(
    paths: &[PathBuf],
    trust: &TrustFile,
    anchors: &[Anchor],
    results: &[Result<Attestation, Refused>],
) -> Vec<VerifiedLedger> {
    let verified = |directory: PathBuf| {
        let store = directory.parent().map(Path::to_owned).unwrap_or_default();
        let evidence: Vec<&Attestation> = results.iter().flatten().filter(|a| a.directory().starts_with(&store)).collect();
        let refused: Vec<String> =
            results.iter().filter_map(|result| Some(result.as_ref().err()?.path.file_name()?.to_string_lossy().into_owned())).collect();
        let kept = evidence.iter().filter_map(|attestation| {
            let name = format!("the checkpoint in report {}", attestation.report().report_id);
            Some(Anchor { name, bytes: attestation.entered()?.as_bytes().to_vec(), seen_at: None })
        });
        let anchors: Vec<Anchor> = anchors.iter().cloned().chain(kept).collect();
        let examined = examine(&directory, trust, &anchors);
        // one ledger alone was asked for: nothing is said of evidence that nobody looked at
        let alone = paths.iter().any(|path| path.starts_with(&directory));
        let disagreements = match &examined {
            Ok(examined) if !alone => compare(examined, &evidence, &refused),
            _ => Vec::new(),
        };
        VerifiedLedger { directory, examined, disagreements }
    };
    ledgers_below(paths).into_iter().map(verified).collect()
}
