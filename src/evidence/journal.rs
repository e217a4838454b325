//! The journal: every event of a drill, on disk before anybody is told.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::EvidenceError;
use crate::domain::{DrillEvent, DrillState};

/// An append-only `events.jsonl`. Each event is checked for its order, written as one line, and synced.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    state: DrillState,
    whole_bytes: u64,
}

impl Journal {
    /// Begins a journal; the file must not exist.
    ///
    /// # Errors
    /// [`EvidenceError::Exists`], [`EvidenceError::Write`].
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, EvidenceError> {
        let path = path.into();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => EvidenceError::Exists { path: path.clone() },
            _ => EvidenceError::Write { path: path.clone(), source },
        })?;
        if let Some(parent) = path.parent() {
            super::store::sync_dir(parent)?;
        }
        Ok(Self { path, file, state: DrillState::default(), whole_bytes: 0 })
    }

    /// Takes up a journal that a crash left: a torn last line is cut off, and the rest comes back with it.
    ///
    /// # Errors
    /// Those of [`read_journal`], and [`EvidenceError::Write`].
    pub fn resume(path: impl Into<PathBuf>) -> Result<(Self, JournalRead), EvidenceError> {
        let path = path.into();
        let read = read_journal(&path)?;
        let mut state = DrillState::default();
        for event in &read.events {
            state.apply(event)?;
        }
        let file = OpenOptions::new().append(true).open(&path).map_err(EvidenceError::write(&path))?;
        file.set_len(read.whole_bytes).and_then(|()| file.sync_all()).map_err(EvidenceError::write(&path))?;
        Ok((Self { path, file, state, whole_bytes: read.whole_bytes }, read))
    }

    /// Writes one event and syncs it. When this returns, the event outlives the process and the power.
    ///
    /// # Errors
    /// [`EvidenceError::Order`] before anything is written; [`EvidenceError::Write`].
    pub fn append(&mut self, event: &DrillEvent) -> Result<(), EvidenceError> {
        let mut next = self.state.clone();
        next.apply(event)?;
        let mut line = serde_json::to_vec(event).map_err(|e| EvidenceError::encode("an event")(e.into()))?;
        line.push(b'\n');
        if let Err(source) = self.file.write_all(&line).and_then(|()| self.file.sync_data()) {
            // half a line must not run into the next one; where even this fails, reading back leaves the torn line out
            let _ = self.file.set_len(self.whole_bytes).and_then(|()| self.file.seek(SeekFrom::End(0)).map(|_| ()));
            return Err(EvidenceError::Write { path: self.path.clone(), source });
        }
        self.state = next;
        self.whole_bytes += line.len() as u64;
        Ok(())
    }

    /// Keeps a file that an event will name, beside the journal, and syncs it. Where one of that name is there, it is replaced.
    ///
    /// # Errors
    /// [`EvidenceError::Write`].
    pub fn attach(&self, name: &str, bytes: &[u8]) -> Result<(), EvidenceError> {
        let path = attachment(&self.path, name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(EvidenceError::write(&path))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(EvidenceError::write(&path))?;
        self.path.parent().map_or(Ok(()), super::store::sync_dir)
    }

    /// Where the drill stands.
    pub fn state(&self) -> &DrillState {
        &self.state
    }
    /// Where the journal is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Where a file that belongs to a journal lies: beside it, under the drill's name.
pub fn attachment(journal: &Path, name: &str) -> PathBuf {
    journal.with_extension(name)
}

/// A journal, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRead {
    /// Its events, in legal order.
    pub events: Vec<DrillEvent>,
    /// Whether the verdict is there; without it the drill was interrupted.
    pub finished: bool,
    /// Whether the last line was torn and left out.
    pub torn: bool,
    /// Bytes up to the end of the last whole line.
    pub whole_bytes: u64,
}

/// Reads a journal. A last line without its newline is what a crash leaves and is left out; anything else that is no
/// event in its order is an error.
///
/// # Errors
/// [`EvidenceError::Read`], [`EvidenceError::Line`], [`EvidenceError::Order`].
pub fn read_journal(path: &Path) -> Result<JournalRead, EvidenceError> {
    let bytes = std::fs::read(path).map_err(EvidenceError::read(path))?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let (events, finished) = parse_events(&bytes[..whole])?;
    Ok(JournalRead { events, finished, torn: whole < bytes.len(), whole_bytes: whole as u64 })
}

/// Events from the bytes of a journal in which every line is whole.
pub(super) fn parse_events(bytes: &[u8]) -> Result<(Vec<DrillEvent>, bool), EvidenceError> {
    let mut events = Vec::new();
    let mut state = DrillState::default();
    let lines = bytes.split_inclusive(|b| *b == b'\n');
    for (number, line) in lines.enumerate() {
        let event: DrillEvent = serde_json::from_slice(line).map_err(|source| EvidenceError::Line { line: number + 1, source })?;
        state.apply(&event)?;
        events.push(event);
    }
    Ok((events, state.is_finished()))
}

/// The bytes that [`Journal`] writes for these events.
pub(super) fn journal_bytes(events: &[DrillEvent]) -> Result<Vec<u8>, EvidenceError> {
    let mut bytes = Vec::new();
    for event in events {
        serde_json::to_writer(&mut bytes, event).map_err(|e| EvidenceError::encode("an event")(e.into()))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use super::*;
    use crate::evidence::sample;

    #[test]
    fn a_journal_gives_back_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let events = sample::passed();
        let mut journal = Journal::create(&path).unwrap();
        for event in &events {
            journal.append(event).unwrap();
        }
        assert!(journal.state().is_finished());
        let read = read_journal(&path).unwrap();
        assert_eq!((read.events, read.finished, read.torn), (events.clone(), true, false));
        assert_eq!(std::fs::read(&path).unwrap(), journal_bytes(&events).unwrap());
        assert!(matches!(Journal::create(&path), Err(EvidenceError::Exists { .. })));
    }

    #[test]
    fn an_event_out_of_order_is_refused_and_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let events = sample::passed();
        let mut journal = Journal::create(&path).unwrap();
        assert!(matches!(journal.append(&events[1]), Err(EvidenceError::Order(_))));
        journal.append(&events[0]).unwrap();
        assert!(matches!(journal.append(&events[2]), Err(EvidenceError::Order(_))));
        journal.append(&events[1]).unwrap();
        assert_eq!(read_journal(&path).unwrap().events, events[..2]);
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_the_drill_can_be_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let events = sample::passed();
        let whole = journal_bytes(&events[..3]).unwrap();
        let mut torn = whole.clone();
        torn.extend_from_slice(br#"{"drill":"0192"#);
        std::fs::write(&path, &torn).unwrap();
        let read = read_journal(&path).unwrap();
        assert_eq!((read.events.len(), read.finished, read.torn), (3, false, true));
        let (mut journal, _) = Journal::resume(&path).unwrap();
        journal.append(&events[3]).unwrap();
        assert_eq!(read_journal(&path).unwrap().events, events[..4]);
    }

    #[test]
    fn a_broken_line_in_the_middle_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let mut bytes = journal_bytes(&sample::passed()).unwrap();
        let at = bytes.iter().position(|b| *b == b'\n').unwrap();
        bytes[at + 1] = b'x';
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(read_journal(&path), Err(EvidenceError::Line { line: 2, .. })));
    }
}
