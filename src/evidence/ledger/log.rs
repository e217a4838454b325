//! Appending: one entry at a time, by one process at a time, committed when its checkpoint is on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tlog_tiles::tlog::{check_tree, prove_tree};

use super::super::key::Signer;
use super::super::{EvidenceError, TrustFile, store};
use super::check::Lines;
use super::checkpoint::{Checkpoint, origin_problem};
use super::entry::{Entry, EntryKind};
use super::error::{LedgerError, LedgerRefusal};
use super::proof::Proof;
use super::tree::TreeFile;
use super::{LONGEST_ENTRY, names};
use crate::domain::{DrillId, Timestamp};

/// A ledger to append to.
#[derive(Debug, Clone)]
pub struct Ledger {
    directory: PathBuf,
    origin: String,
    by: String,
}

/// A ledger under its lock, at its last checkpoint.
struct Open<'a> {
    ledger: &'a Ledger,
    entries: File,
    tree: TreeFile,
    /// Of the last commitment; none where the log is new.
    last: Option<Checkpoint>,
    _lock: File,
}

impl Ledger {
    /// The ledger in `directory`, which is made with the first entry. `origin` names a new one; `by` is who enters, an account and its host.
    ///
    /// # Errors
    /// [`LedgerError::Origin`].
    pub fn new(directory: impl Into<PathBuf>, origin: &str, by: &str) -> Result<Self, LedgerError> {
        if let Some(problem) = origin_problem(origin) {
            return Err(LedgerError::Origin { origin: origin.to_owned(), problem });
        }
        Ok(Self { directory: directory.into(), origin: origin.to_owned(), by: by.to_owned() })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Enters what happened. When this returns, the entries outlive the process and the power, and cannot be taken out unnoticed.
    ///
    /// The last checkpoint must be signed by a key of `trust`. Where another key signed it than signs now, that is entered first.
    ///
    /// # Errors
    /// [`LedgerError`]: nothing was entered, and whatever is half-written is taken away by the next who enters something.
    pub fn append(&self, at: Timestamp, signer: &dyn Signer, trust: &TrustFile, new: Vec<EntryKind>) -> Result<Vec<Entry>, LedgerError> {
        let mut open = Open::lock(self, trust)?;
        if open.last.is_none() {
            open.commit(0, signer)?;
        }
        let before: Vec<EntryKind> = match &open.last {
            Some(last) if last.size == 0 => vec![EntryKind::Opened { origin: last.origin.clone() }],
            Some(last) if last.signer != signer.public() => {
                vec![EntryKind::KeyChanged { from: last.signer.fingerprint(), to: signer.public().fingerprint() }]
            }
            _ => Vec::new(),
        };
        let mut entries = open.write(before.into_iter().chain(new).collect(), at)?;
        open.commit(entries.last().map_or(0, |entry| entry.index + 1), signer)?;
        let asked = entries.iter().position(|e| !matches!(e.entry, EntryKind::Opened { .. } | EntryKind::KeyChanged { .. }));
        entries.drain(..asked.unwrap_or(entries.len()));
        Ok(entries)
    }

    /// The last checkpoint; none where nothing was entered yet.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn checkpoint(&self, trust: &TrustFile) -> Result<Option<Checkpoint>, LedgerError> {
        read_checkpoint(&self.directory, trust).map_err(|why| self.refused(why))
    }

    /// Entries from `index` on that are committed, one after the other.
    ///
    /// # Errors
    /// [`LedgerError`], of the start here, and of each entry.
    pub fn entries(&self, trust: &TrustFile, index: u64) -> Result<impl Iterator<Item = Result<Entry, LedgerError>> + use<>, LedgerError> {
        let open = Open::lock(self, trust)?;
        let size = open.size();
        let start = open.tree.end(index.min(size)).map_err(EvidenceError::read(self.directory.join(names::TREE)))?;
        let path = self.directory.join(names::ENTRIES);
        let mut file = open.entries;
        io::Seek::seek(&mut file, io::SeekFrom::Start(start)).map_err(EvidenceError::read(path))?;
        let (mut lines, ledger) = (Lines::from(BufReader::new(file), index), self.clone());
        Ok((index..size).map(move |_| match lines.next_entry() {
            Ok(Some((entry, _))) => Ok(entry),
            Ok(None) => Err(ledger.refused(LedgerRefusal::Shortened { what: "the checkpoint".into(), covered: size, found: index })),
            Err(why) => Err(ledger.refused(why)),
        }))
    }

    /// Whether the start of a drill was entered, and its end.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn drill(&self, trust: &TrustFile, drill: &DrillId) -> Result<(bool, bool), LedgerError> {
        let (mut started, mut ended) = (false, false);
        for entry in self.entries(trust, 0)? {
            match entry?.entry {
                EntryKind::DrillStarted { drill: of, .. } => started |= of == *drill,
                EntryKind::DrillFinished { drill: of, .. } => ended |= of == *drill,
                _ => {}
            }
        }
        Ok((started, ended))
    }

    /// Proof that entry `index` is in the log, good for whoever trusts the key, without the log.
    ///
    /// # Errors
    /// [`LedgerError`]; where there is no such entry, [`LedgerRefusal::Entry`].
    pub fn prove(&self, trust: &TrustFile, index: u64) -> Result<Proof, LedgerError> {
        let open = Open::lock(self, trust)?;
        let Some(last) = open.last.as_ref().filter(|last| index < last.size) else {
            return Err(self.refused(LedgerRefusal::Entry { index, what: "there is no such entry".to_owned() }));
        };
        let unreadable = |e| EvidenceError::read(self.directory.join(names::ENTRIES))(e);
        let line = open.line(index).map_err(unreadable)?;
        Proof::make(&open.tree, index, line, last).map_err(|e| unreadable(e).into())
    }

    /// Whether the log goes on from a checkpoint that was kept elsewhere: it is the same log, and nothing in it has changed since.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] where it does not; `what` names the checkpoint.
    pub fn goes_on_from(&self, trust: &TrustFile, earlier: &Checkpoint, what: &str) -> Result<(), LedgerError> {
        let open = Open::lock(self, trust)?;
        let what = what.to_owned();
        let Some(last) = open.last.as_ref() else { return Err(self.refused(LedgerRefusal::NothingHere)) };
        if last.origin != earlier.origin {
            return Err(self.refused(LedgerRefusal::OtherLog { what, found: earlier.origin.clone(), expected: last.origin.clone() }));
        }
        if last.size < earlier.size {
            return Err(self.refused(LedgerRefusal::Shortened { what, covered: earlier.size, found: last.size }));
        }
        let proven = earlier.size == 0
            || prove_tree(last.size, earlier.size, &open.tree)
                .and_then(|proof| check_tree(&proof, last.size, last.root, earlier.size, earlier.root))
                .is_ok();
        if proven { Ok(()) } else { Err(self.refused(LedgerRefusal::Root { what, covered: earlier.size })) }
    }

    fn refused(&self, why: LedgerRefusal) -> LedgerError {
        LedgerError::Refused { directory: self.directory.clone(), why }
    }
}

impl<'a> Open<'a> {
    fn lock(ledger: &'a Ledger, trust: &TrustFile) -> Result<Self, LedgerError> {
        let directory = &ledger.directory;
        fs::create_dir_all(directory).map_err(EvidenceError::write(directory))?;
        let open = |name: &str| {
            let path = directory.join(name);
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            file.map_err(EvidenceError::write(path))
        };
        let lock = open(names::LOCK)?;
        lock.lock().map_err(EvidenceError::write(directory.join(names::LOCK)))?;
        let last = read_checkpoint(directory, trust).map_err(|why| ledger.refused(why))?;
        let mut open = Self { ledger, entries: open(names::ENTRIES)?, tree: TreeFile(open(names::TREE)?), last, _lock: lock };
        match &open.last {
            Some(_) => open.roll_back()?,
            // a log begins with a checkpoint of nothing: entries without one are no beginning
            None if open.entries.metadata().map_err(EvidenceError::read(directory))?.len() > 0 => {
                let file = names::CHECKPOINT.to_owned();
                return Err(ledger.refused(LedgerRefusal::Unreadable { file, reason: "it is gone, and entries are here".to_owned() }));
            }
            None => {}
        }
        Ok(open)
    }

    fn size(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.size)
    }

    /// Takes away what was written and not committed, and sees that what was committed is there.
    fn roll_back(&mut self) -> Result<(), LedgerError> {
        let path = self.ledger.directory.join(names::ENTRIES);
        let length = |file: &File| file.metadata().map(|m| m.len());
        if !self.agrees().unwrap_or(false) {
            self.rebuild()?;
        }
        let end = self.tree.end(self.size()).map_err(EvidenceError::read(self.ledger.directory.join(names::TREE)))?;
        let found = length(&self.entries).map_err(EvidenceError::read(&path))?;
        if found > end {
            self.entries.set_len(end).and_then(|()| self.entries.sync_all()).map_err(EvidenceError::write(path))?;
        }
        Ok(())
    }

    /// Whether the tree on disk is that of the checkpoint, and the last entry the one that it has.
    fn agrees(&self) -> io::Result<bool> {
        let Some(last) = self.last.as_ref().filter(|last| last.size > 0) else { return Ok(true) };
        Ok(self.tree.root(last.size)? == last.root && self.tree.has(last.size - 1, &self.line(last.size - 1)?)?)
    }

    /// An entry's bytes, without its newline.
    fn line(&self, index: u64) -> io::Result<Vec<u8>> {
        let (from, to) = (self.tree.end(index)?, self.tree.end(index + 1)?);
        let length = to.checked_sub(from).filter(|length| (1..=LONGEST_ENTRY).contains(length)).ok_or(io::ErrorKind::InvalidData)?;
        let mut line = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.entries.read_exact_at(&mut line, from)?;
        if line.pop() == Some(b'\n') { Ok(line) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Makes the tree anew from the entries that the checkpoint covers.
    fn rebuild(&mut self) -> Result<(), LedgerError> {
        let (ledger, size) = (self.ledger, self.size());
        let path = ledger.directory.join(names::TREE);
        let what = || "the checkpoint".to_owned();
        self.tree.0.set_len(0).map_err(EvidenceError::write(&path))?;
        let entries = self.entries.try_clone().map_err(EvidenceError::read(&path))?;
        io::Seek::rewind(&mut &entries).map_err(EvidenceError::read(&path))?;
        let mut lines = Lines::from(BufReader::new(entries), 0);
        let mut end = 0;
        for index in 0..size {
            let Some((_, line)) = lines.next_entry().map_err(|why| ledger.refused(why))? else {
                return Err(ledger.refused(LedgerRefusal::Shortened { what: what(), covered: size, found: index }));
            };
            end += line.len() as u64 + 1;
            let record = self.tree.record(index, &line, end).map_err(EvidenceError::read(&path))?;
            self.tree.0.write_all_at(&record, TreeFile::length(index)).map_err(EvidenceError::write(&path))?;
        }
        match &self.last {
            Some(last) if self.tree.root(size).map_err(EvidenceError::read(&path))? != last.root => {
                Err(ledger.refused(LedgerRefusal::Root { what: what(), covered: size }))
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, new: Vec<EntryKind>, at: Timestamp) -> Result<Vec<Entry>, LedgerError> {
        let (entries_path, tree_path) = (self.ledger.directory.join(names::ENTRIES), self.ledger.directory.join(names::TREE));
        let mut end = self.tree.end(self.size()).map_err(EvidenceError::read(&tree_path))?;
        let mut entries = Vec::new();
        for (kind, index) in new.into_iter().zip(self.size()..) {
            let entry = Entry { index, at, by: self.ledger.by.clone(), entry: kind };
            let mut line = serde_json::to_vec(&entry).map_err(|e| EvidenceError::encode("an entry")(e.into()))?;
            let record = self.tree.record(index, &line, end + line.len() as u64 + 1).map_err(EvidenceError::read(&tree_path))?;
            line.push(b'\n');
            self.entries.write_all_at(&line, end).map_err(EvidenceError::write(&entries_path))?;
            self.tree.0.write_all_at(&record, TreeFile::length(index)).map_err(EvidenceError::write(&tree_path))?;
            end += line.len() as u64;
            entries.push(entry);
        }
        self.entries.sync_data().map_err(EvidenceError::write(&entries_path))?;
        Ok(entries)
    }

    /// Signs what is there now. From here on it is entered.
    fn commit(&mut self, size: u64, signer: &dyn Signer) -> Result<(), LedgerError> {
        let directory = &self.ledger.directory;
        let root = self.tree.root(size).map_err(EvidenceError::read(directory.join(names::TREE)))?;
        let origin = self.last.as_ref().map_or(&self.ledger.origin, |last| &last.origin);
        let checkpoint = Checkpoint::sign(origin, size, root, signer)?;
        let (path, aside) = (directory.join(names::CHECKPOINT), directory.join(".checkpoint"));
        let written = File::create(&aside).and_then(|mut file| file.write_all(&checkpoint.bytes).and_then(|()| file.sync_all()));
        written.and_then(|()| fs::rename(&aside, &path)).map_err(EvidenceError::write(&path))?;
        store::sync_dir(directory)?;
        self.last = Some(checkpoint);
        Ok(())
    }
}

/// The checkpoint in a ledger's directory; none where nothing was ever committed.
pub(super) fn read_checkpoint(directory: &Path, trust: &TrustFile) -> Result<Option<Checkpoint>, LedgerRefusal> {
    match fs::read(directory.join(names::CHECKPOINT)) {
        Ok(bytes) => Checkpoint::open(&bytes, trust, "the checkpoint").map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LedgerRefusal::Unreadable { file: names::CHECKPOINT.to_owned(), reason: error.to_string() }),
    }
}
