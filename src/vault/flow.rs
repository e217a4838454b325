//! Bytes of one object version as they arrive, for whoever waits in async code: on through resets, stalls and servers that
//! ask to slow down, and never from another version than the one that was pinned.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use tokio::time::{Instant, Sleep};

use super::VaultView;
use super::chain::{Digests, Entry, OBJECT};
use super::error::VaultError;
use super::read_only::ReadStore;
use crate::domain::{Blake3, RangeRead, Reader};
use crate::storage::{Body, Failure, Patience, Span, StorageError, Wanted};

/// Bytes of one object version that begin to arrive.
pub(super) struct Flow {
    pub entry: Arc<Entry>,
    /// Which bytes; `None` where the object has no such bytes.
    pub range: Option<Range<u64>>,
    body: Body,
    store: Arc<dyn ReadStore>,
    patience: Patience,
    by: Reader,
}

impl VaultView {
    /// The version of `key` that this drill reads: the pinned one, or the latest, which is pinned by that. Its lock is not
    /// asked for: [`VaultView::settle_locks`] does it when there is time.
    pub(super) async fn first(&self, key: &str) -> Result<Arc<Entry>, VaultError> {
        if let Some(entry) = self.log.first(key) {
            return Ok(entry);
        }
        match self.store.head(key, None).await {
            Ok(head) => Ok(self.log.enter_first(Entry::new(key, OBJECT, &head, None))),
            Err(StorageError::NoSuchObject) => Err(VaultError::Missing { role: OBJECT.to_owned() }),
            Err(other) => Err(other.into()),
        }
    }

    /// Begins to read a part of that version. There is no request but the GET itself, whose answer pins.
    pub(super) async fn flow(&self, key: &str, span: &Span) -> Result<Flow, VaultError> {
        let patience = Patience::for_reading(&self.store.tuning());
        let entry = match self.log.first(key) {
            Some(entry) => entry,
            None => {
                let body = match patience.run(|| self.store.open(key, None, span)).await {
                    Ok(body) => body,
                    Err(StorageError::NoSuchObject) => return Err(VaultError::Missing { role: OBJECT.to_owned() }),
                    Err(other) => return Err(other.into()),
                };
                let entry = self.log.enter_first(Entry::new(key, OBJECT, &body.head, None));
                // else somebody was quicker, and another version is pinned
                if entry.is(&body.head) {
                    let range = span.within(entry.size);
                    return Ok(Flow { entry, range, body, store: Arc::clone(&self.store), patience, by: self.by });
                }
                entry
            }
        };
        let range = span.within(entry.size);
        let body = match range.clone().filter(|range| !range.is_empty()) {
            Some(range) => {
                let attempt = || begin(&*self.store, &entry, range.clone());
                patience.run(attempt).await.map_err(|e| VaultError::of_reading(&entry.role, e))?
            }
            None => Body { head: entry.head(), stream: stream::empty().boxed() },
        };
        Ok(Flow { entry, range, body, store: Arc::clone(&self.store), patience, by: self.by })
    }
}

impl Flow {
    /// The bytes. The last item is an error, or all bytes were there. What was read is in the chain when this is dropped.
    pub(super) fn bytes(self) -> impl Stream<Item = Result<Bytes, VaultError>> + Send {
        let range = self.range.unwrap_or(0..0);
        let reading = Reading {
            next: range.start,
            range,
            hasher: Box::new(blake3::Hasher::new()),
            body: Some(self.body.stream),
            store: self.store,
            entry: self.entry,
            patience: self.patience,
            by: self.by,
            trouble: None,
        };
        stream::unfold(Some(reading), |reading| async move {
            let mut reading = reading?;
            match reading.frame().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

/// One try to get bytes of the pinned version.
async fn begin(store: &dyn ReadStore, entry: &Entry, range: Range<u64>) -> Result<Body, Failure> {
    let wanted = Wanted { key: entry.key.as_ref().to_owned(), version: entry.version.clone(), etag: entry.etag.clone(), range };
    let body = store.get(&wanted).await?;
    // a server that ignores If-Match or versionId must not get away with it
    if entry.is(&body.head) { Ok(body) } else { Err(StorageError::Changed.into()) }
}

struct Reading {
    store: Arc<dyn ReadStore>,
    entry: Arc<Entry>,
    by: Reader,
    range: Range<u64>,
    next: u64,
    hasher: Box<blake3::Hasher>,
    body: Option<BoxStream<'static, Result<Bytes, StorageError>>>,
    patience: Patience,
    trouble: Option<Trouble>,
}

/// Since the last byte that arrived.
struct Trouble {
    tries: u32,
    waited: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl Reading {
    async fn frame(&mut self) -> Result<Option<Bytes>, VaultError> {
        while self.next < self.range.end {
            match self.attempt().await {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    self.next += bytes.len() as u64;
                    self.hasher.update(&bytes);
                    self.trouble = None;
                    if self.next == self.range.end {
                        self.body = None;
                    }
                    return Ok(Some(bytes));
                }
                Err(failure) => self.pause(failure).await?,
            }
        }
        Ok(None)
    }

    async fn attempt(&mut self) -> Result<Bytes, Failure> {
        if self.body.is_none() {
            let get = begin(&*self.store, &self.entry, self.next..self.range.end);
            let body = match &mut self.trouble {
                Some(trouble) => tokio::select! {
                    body = get => body?,
                    () = &mut trouble.deadline => return Err(broken("no answer within the time allowed")),
                },
                None => get.await?,
            };
            self.body = Some(body.stream);
        }
        let body = self.body.as_mut().expect("it was made above");
        // silence is bounded by the client's read timeout
        let bytes = body.next().await.unwrap_or_else(|| Err(broken("the answer ended early").error))?;
        if bytes.len() as u64 > self.range.end - self.next {
            let why = "more bytes than were asked for".to_owned();
            return Err(StorageError::BadAnswer { operation: "GetObject", why }.into());
        }
        Ok(bytes)
    }

    /// Waits before another try, or gives up.
    async fn pause(&mut self, failure: Failure) -> Result<(), VaultError> {
        self.body = None;
        let total = self.patience.total;
        let trouble = self.trouble.get_or_insert_with(|| Trouble {
            tries: 0,
            waited: Duration::ZERO,
            deadline: Box::pin(tokio::time::sleep_until(Instant::now() + total)),
        });
        let pause = self.patience.next(&failure, trouble.tries, trouble.waited).filter(|_| !trouble.deadline.is_elapsed());
        let Some(pause) = pause else { return Err(self.given_up(failure.error)) };
        trouble.tries += 1;
        trouble.waited += pause;
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = &mut trouble.deadline => Err(self.given_up(failure.error)),
        }
    }

    fn given_up(&self, error: StorageError) -> VaultError {
        if error.is_transient() {
            VaultError::GaveUp { role: self.entry.role.clone(), read: self.next, size: self.entry.size, source: error }
        } else {
            VaultError::of_reading(&self.entry.role, error)
        }
    }
}

fn broken(why: &'static str) -> Failure {
    StorageError::Unreachable { endpoint: "the storage".into(), why, source: None }.into()
}

impl Drop for Reading {
    fn drop(&mut self) {
        let whole = self.next == self.range.end;
        let digest = whole.then(|| Blake3(*self.hasher.finalize().as_bytes()));
        let all = self.range == (0..self.entry.size);
        if let (Some(blake3), true) = (digest, all) {
            self.entry.set_digests(Digests { blake3, sha256: None });
        }
        let Range { start, end } = self.range;
        let read = RangeRead { by: self.by, start, end, bytes: self.next - start, blake3: digest.filter(|_| !all) };
        if end > start {
            self.entry.note(read);
        }
    }
}
