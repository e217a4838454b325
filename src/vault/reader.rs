//! Reading one pinned object version: in parallel ranges behind the scenes, in order for the reader, on through resets,
//! stalls and servers that ask to slow down, and never from another version than the one that was pinned.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::chain::{Digests, Entry, Hashing};
use super::error::VaultError;
use super::read_only::ReadStore;
use crate::domain::{Blake3, RangeRead, Reader, Sha256};
use crate::storage::{Failure, LocalFile, Patience, StorageError, Wanted};

/// Ranges are not cut smaller than this: a request costs more than the bytes.
const SMALLEST_RANGE: u64 = 1 << 20;

/// A pinned object version to read from, on blocking threads. An `io::Error` that comes out of it holds a [`VaultError`].
#[derive(Debug, Clone)]
pub struct SealedObject {
    pub(super) store: Arc<dyn ReadStore>,
    pub(super) entry: Arc<Entry>,
    pub(super) runtime: Handle,
    pub(super) sha256: bool,
    pub(super) ended: CancellationToken,
    pub(super) by: Reader,
}

impl SealedObject {
    /// Bytes it has.
    pub fn size(&self) -> u64 {
        self.entry.size
    }

    /// BLAKE3 of all its bytes, once a reader over all of them has come to the end.
    pub fn digest(&self) -> Option<Blake3> {
        self.entry.digests().map(|d| d.blake3)
    }

    /// SHA-256 of the same, where it was asked for.
    pub fn sha256(&self) -> Option<Sha256> {
        self.entry.digests().and_then(|d| d.sha256)
    }

    /// Stops waiting for the storage when `ended` is cancelled: a reader that is waiting then fails at once.
    pub fn until(self, ended: CancellationToken) -> Self {
        Self { ended, ..self }
    }

    /// An ordered stream of the bytes in `range`. It must be read on a thread that may block (`spawn_blocking`, or one of
    /// the caller's own), never within async code. At most `parallel + 2` ranges wait in memory, however slow the reader.
    ///
    /// # Errors
    /// A range outside of the object; for local files also what opening them says.
    pub fn open(&self, range: Range<u64>) -> io::Result<Box<dyn Read + Send>> {
        if range.start > range.end || range.end > self.entry.size {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the range lies outside of the object"));
        }
        let hashing = Hashing::of_whole(&range, self.entry.size, self.sha256);
        match self.store.file(&self.entry.key) {
            Some(file) => {
                let file = file.map_err(|e| into_io(VaultError::of_reading(&self.entry.role, e)))?;
                if file.head.etag != self.entry.etag {
                    return Err(into_io(VaultError::of_reading(&self.entry.role, StorageError::Changed)));
                }
                self.entry.count_request();
                let noted = Noted { entry: Arc::clone(&self.entry), by: self.by, range: range.clone(), bytes: 0 };
                Ok(Box::new(LocalReader { file, noted, next: range.start, end: range.end, hashing }))
            }
            None => Ok(Box::new(self.remote(range, hashing))),
        }
    }

    fn remote(&self, range: Range<u64>, hashing: Option<Hashing>) -> RemoteReader {
        let tuning = self.store.tuning();
        let parallel = tuning.parallel.max(1);
        let even = (range.end - range.start).div_ceil(parallel as u64);
        let step = tuning.range.min(even.max(SMALLEST_RANGE)).max(1);
        let patience = Patience::for_reading(&tuning);
        let (sender, parts) = mpsc::channel(1);
        let left = range.end - range.start;
        let noted = Noted { entry: Arc::clone(&self.entry), by: self.by, range: range.clone(), bytes: 0 };
        let fetch = Fetch { store: Arc::clone(&self.store), entry: Arc::clone(&self.entry), patience };
        let work = async move {
            let starts = (range.start..range.end).step_by(usize::try_from(step).unwrap_or(usize::MAX));
            let mut fetched = futures_util::stream::iter(starts)
                .map(|start| {
                    let (fetch, part) = (fetch.clone(), start..range.end.min(start + step));
                    // a task of its own goes on while the reader is busy
                    AbortOnDropHandle::new(tokio::spawn(async move { fetch.part(part).await }))
                })
                .buffered(parallel);
            while let Some(joined) = fetched.next().await {
                let part = joined.unwrap_or_else(|_| {
                    Err(StorageError::Unreachable { endpoint: "the storage".into(), why: "the runtime is going down", source: None }.into())
                });
                let failed = part.is_err();
                if sender.send(part).await.is_err() || failed {
                    return;
                }
            }
        };
        let ended = self.ended.clone();
        let work = async move {
            tokio::select! {
                () = work => {}
                () = ended.cancelled() => {}
            }
        };
        let work = AbortOnDropHandle::new(self.runtime.spawn(work));
        RemoteReader { parts, current: VecDeque::new(), left, hashing, noted, _work: work }
    }
}

fn into_io(error: VaultError) -> io::Error {
    io::Error::other(error)
}

/// Writes into the chain, when its reader ends, what was read.
struct Noted {
    entry: Arc<Entry>,
    by: Reader,
    range: Range<u64>,
    bytes: u64,
}

impl Drop for Noted {
    fn drop(&mut self) {
        let Range { start, end } = self.range;
        if end > start {
            self.entry.note(RangeRead { by: self.by, start, end, bytes: self.bytes, blake3: None });
        }
    }
}

/// Fetches parts of one object version.
#[derive(Debug, Clone)]
pub(super) struct Fetch {
    pub store: Arc<dyn ReadStore>,
    pub entry: Arc<Entry>,
    pub patience: Patience,
}

impl Fetch {
    /// All bytes of `part`, in as many tries as it takes. Patience is counted from the last byte that arrived.
    pub(super) async fn part(&self, part: Range<u64>) -> Result<Vec<Bytes>, VaultError> {
        let mut frames: Vec<Bytes> = Vec::new();
        let mut next = part.start;
        let mut deadline = Box::pin(tokio::time::sleep(self.patience.total));
        let (mut tries, mut waited) = (0, Duration::ZERO);
        let mut last: Option<StorageError> = None;
        while next < part.end {
            let before = next;
            let Err(failure) = self.attempt(&mut frames, &mut next, part.end, &mut deadline).await else { break };
            if next > before {
                deadline = Box::pin(tokio::time::sleep(self.patience.total));
                (tries, waited) = (0, Duration::ZERO);
                last = None;
            }
            let cut_off = deadline.is_elapsed();
            let Some(pause) = self.patience.next(&failure, tries, waited).filter(|_| !cut_off) else {
                // a try that the deadline cut off says less than the one before it
                let error = last.filter(|_| cut_off).unwrap_or(failure.error);
                return Err(self.given_up(next, error));
            };
            tries += 1;
            waited += pause;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = &mut deadline => return Err(self.given_up(next, failure.error)),
            }
            last = Some(failure.error);
        }
        Ok(frames)
    }

    fn given_up(&self, read: u64, error: StorageError) -> VaultError {
        if error.is_transient() {
            VaultError::GaveUp { role: self.entry.role.clone(), read, size: self.entry.size, source: error }
        } else {
            VaultError::of_reading(&self.entry.role, error)
        }
    }

    async fn attempt(&self, frames: &mut Vec<Bytes>, next: &mut u64, end: u64, deadline: &mut Pin<Box<Sleep>>) -> Result<(), Failure> {
        let entry = &self.entry;
        let wanted =
            Wanted { key: entry.key.as_ref().to_owned(), version: entry.version.clone(), etag: entry.etag.clone(), range: *next..end };
        let mut body = tokio::select! {
            answer = self.store.get(&wanted) => answer?,
            () = deadline => return Err(silent().into()),
        };
        // a server that ignores If-Match or versionId must not get away with it
        if !entry.is(&body.head) {
            return Err(StorageError::Changed.into());
        }
        while *next < end {
            // silence is bounded by the client's read timeout
            let Some(frame) = body.stream.next().await else {
                return Err(
                    StorageError::Unreachable { endpoint: "the storage".into(), why: "the answer ended early", source: None }.into()
                );
            };
            let frame = frame?;
            if frame.len() as u64 > end - *next {
                let why = "more bytes than were asked for".to_owned();
                return Err(StorageError::BadAnswer { operation: "GetObject", why }.into());
            }
            *next += frame.len() as u64;
            if !frame.is_empty() {
                frames.push(frame);
            }
        }
        Ok(())
    }
}

fn silent() -> StorageError {
    StorageError::Unreachable { endpoint: "the storage".into(), why: "no answer within the time allowed", source: None }
}

struct RemoteReader {
    parts: mpsc::Receiver<Result<Vec<Bytes>, VaultError>>,
    current: VecDeque<Bytes>,
    left: u64,
    hashing: Option<Hashing>,
    noted: Noted,
    /// Ends the fetching when the reader is dropped.
    _work: AbortOnDropHandle<()>,
}

impl Read for RemoteReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.left == 0 {
                finish(&mut self.hashing, &self.noted.entry);
                return Ok(0);
            }
            if let Some(frame) = self.current.front_mut() {
                let n = frame.len().min(buffer.len());
                frame.copy_to_slice(&mut buffer[..n]);
                if frame.is_empty() {
                    self.current.pop_front();
                }
                self.left -= n as u64;
                self.noted.bytes += n as u64;
                if self.left == 0 {
                    finish(&mut self.hashing, &self.noted.entry);
                }
                return Ok(n);
            }
            match self.parts.blocking_recv() {
                Some(Ok(frames)) => {
                    if let Some(hashing) = &mut self.hashing {
                        frames.iter().for_each(|frame| hashing.update(frame));
                    }
                    self.current = frames.into();
                }
                Some(Err(error)) => return Err(into_io(error)),
                // after an error was handed out, when nobody waits any more, or when the runtime is gone
                None => return Err(into_io(silent().into())),
            }
        }
    }
}

fn finish(hashing: &mut Option<Hashing>, entry: &Entry) {
    if let Some(hashing) = hashing.take() {
        entry.set_digests(hashing.finish());
    }
}

struct LocalReader {
    file: LocalFile,
    noted: Noted,
    next: u64,
    end: u64,
    hashing: Option<Hashing>,
}

impl LocalReader {
    /// At the end, and only there: a file that was written to meanwhile is no backup that could be judged.
    fn end_reached(&mut self) -> io::Result<()> {
        match self.file.is_unchanged() {
            Ok(true) => {
                finish(&mut self.hashing, &self.noted.entry);
                Ok(())
            }
            Ok(false) => Err(self.changed()),
            Err(source) => Err(into_io(StorageError::Local { operation: "to read a file", source }.into())),
        }
    }

    fn changed(&self) -> io::Error {
        into_io(VaultError::of_reading(&self.noted.entry.role, StorageError::Changed))
    }
}

impl Read for LocalReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = (self.end - self.next).min(buffer.len() as u64) as usize;
        if wanted == 0 {
            if self.next == self.end {
                self.end_reached()?;
            }
            return Ok(0);
        }
        let n = match self.file.read_at(&mut buffer[..wanted], self.next) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(source) => return Err(into_io(StorageError::Local { operation: "to read a file", source }.into())),
        };
        if n == 0 {
            return Err(self.changed());
        }
        self.noted.entry.count_bytes(n);
        self.noted.bytes += n as u64;
        if let Some(hashing) = &mut self.hashing {
            hashing.update(&buffer[..n]);
        }
        self.next += n as u64;
        if self.next == self.end {
            self.end_reached()?;
        }
        Ok(n)
    }
}

/// Digests of bytes that are already in memory.
pub(super) fn digests_of(bytes: &[u8]) -> Digests {
    let mut hashing = Hashing::of_whole(&(0..bytes.len() as u64), bytes.len() as u64, true).expect("the range is the whole");
    hashing.update(bytes);
    hashing.finish()
}
