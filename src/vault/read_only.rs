//! The bottom of the vault view: a storage without any way to write.
//!
//! Layers are small wrappers over [`ReadStore`] that add one behaviour and forward the rest: [`super::chain::Recorded`] is
//! the top one; [`super::as_of::AsOf`] and, below it, [`super::bounded::Bounded`] lie between it and the backend.

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::domain::{LockFacts, LockState, Transport};
use crate::storage::{
    Body, Bucket, BucketLock, Depth, Directory, Failure, Head, Listing, LocalFile, Page, PageAsk, Retention, Span, StorageError, Tuning,
    VersionPage, Versioning, VersionsAsk, Wanted, lock_state,
};

/// What a drill may do to a storage: look and read. Every implementation promises that nothing it does changes what is
/// stored, that `get` answers with bytes of exactly the version and entity tag asked for or fails, and that no error
/// text holds a key.
#[async_trait::async_trait]
pub trait ReadStore: fmt::Debug + Send + Sync {
    /// Hands what lies below `prefix` to `visit`, page by page.
    async fn list(&self, prefix: &str, depth: Depth, visit: &mut (dyn FnMut(Listing) + Send)) -> Result<(), StorageError>;
    /// One page of what lies below a prefix.
    async fn page(&self, ask: &PageAsk) -> Result<Page, StorageError>;
    /// One page of all versions below a prefix, delete markers among them.
    async fn versions(&self, ask: &VersionsAsk) -> Result<VersionPage, StorageError>;
    /// Whether the storage keeps versions.
    async fn versioning(&self) -> Result<Versioning, StorageError>;
    /// Whether the storage answers, and lets these credentials list.
    async fn probe(&self, prefix: &str) -> Result<(), StorageError>;
    /// What is known of one object version; the latest where none is given.
    async fn head(&self, key: &str, version: Option<&str>) -> Result<Head, StorageError>;
    /// Begins to read a part of one object version. One try.
    async fn get(&self, wanted: &Wanted) -> Result<Body, Failure>;
    /// Begins to read an object whose size is not known yet; the latest version where none is given. One try. The body is
    /// empty where the object has no such bytes. A layer that has nothing better to do looks first, then gets.
    async fn open(&self, key: &str, version: Option<&str>, span: &Span) -> Result<Body, Failure> {
        let head = self.head(key, version).await?;
        let range = span.within(head.size).filter(|range| !range.is_empty());
        let Some(range) = range else { return Ok(Body { head, stream: futures_util::stream::empty().boxed() }) };
        let wanted = Wanted { key: key.to_owned(), version: head.facts.version.clone(), etag: head.etag.clone(), range };
        self.get(&wanted).await
    }
    /// A whole small object; the latest version where none is given.
    async fn get_small(&self, key: &str, version: Option<&str>, limit: usize) -> Result<(Head, Bytes), StorageError>;
    /// The lock of the object version that `head` describes.
    async fn lock(&self, key: &str, head: &Head) -> Result<LockFacts, StorageError>;
    /// The file behind an object, where the storage is local: it needs no ranges and no second tries.
    fn file(&self, key: &str) -> Option<Result<LocalFile, StorageError>>;
    /// How the storage is reached.
    fn transport(&self) -> Transport;
    /// Limits.
    fn tuning(&self) -> Tuning;
}

/// An S3-compatible bucket.
#[derive(Debug)]
pub(super) struct S3 {
    bucket: Bucket,
    /// Asked once: whether the bucket locks at all.
    bucket_lock: tokio::sync::OnceCell<BucketLock>,
}

impl S3 {
    pub(super) fn new(bucket: Bucket) -> Self {
        Self { bucket, bucket_lock: tokio::sync::OnceCell::new() }
    }
}

#[async_trait::async_trait]
impl ReadStore for S3 {
    async fn list(&self, prefix: &str, depth: Depth, visit: &mut (dyn FnMut(Listing) + Send)) -> Result<(), StorageError> {
        self.bucket.list(prefix, depth, visit).await
    }
    async fn page(&self, ask: &PageAsk) -> Result<Page, StorageError> {
        self.bucket.page(ask).await
    }
    async fn versions(&self, ask: &VersionsAsk) -> Result<VersionPage, StorageError> {
        self.bucket.versions_page(ask).await
    }
    async fn versioning(&self) -> Result<Versioning, StorageError> {
        self.bucket.versioning().await
    }
    async fn probe(&self, prefix: &str) -> Result<(), StorageError> {
        self.bucket.probe(prefix).await
    }
    async fn head(&self, key: &str, version: Option<&str>) -> Result<Head, StorageError> {
        self.bucket.head(key, version).await
    }
    async fn get(&self, wanted: &Wanted) -> Result<Body, Failure> {
        self.bucket.get(wanted).await
    }
    async fn open(&self, key: &str, version: Option<&str>, span: &Span) -> Result<Body, Failure> {
        self.bucket.open(key, version, span).await
    }
    async fn get_small(&self, key: &str, version: Option<&str>, limit: usize) -> Result<(Head, Bytes), StorageError> {
        self.bucket.get_small(key, version, limit).await
    }

    /// Three-valued. What HEAD shows is believed; what it does not show is asked for, because a HEAD without lock headers
    /// may only mean that these credentials may not see them.
    async fn lock(&self, key: &str, head: &Head) -> Result<LockFacts, StorageError> {
        let version = head.facts.version.as_deref();
        let shown = lock_state(head.facts.lock_mode.as_deref(), head.facts.lock_until.as_deref());
        let hold = head.facts.lock_legal_hold.as_deref().map(|word| word == "ON");
        if let Some(state) = shown {
            let hold = match hold {
                Some(hold) => Some(hold),
                None => self.bucket.legal_hold(key, version).await?,
            };
            return Ok(LockFacts { state, legal_hold: hold });
        }
        let bucket_lock = self.bucket_lock.get_or_try_init(|| self.bucket.lock_configuration()).await?;
        if matches!(bucket_lock, BucketLock::Disabled | BucketLock::NotSupported) {
            return Ok(LockFacts { state: LockState::NotLocked, legal_hold: Some(false) });
        }
        let state = match self.bucket.retention(key, version).await? {
            Retention::Set { mode, until } => lock_state(Some(&mode), Some(&until)).unwrap_or(LockState::NotLocked),
            Retention::None => LockState::NotLocked,
            Retention::NotVisible => LockState::Unknown { reason: "these credentials may not read retention".into() },
        };
        let hold = match hold {
            Some(hold) => Some(hold),
            None => self.bucket.legal_hold(key, version).await?,
        };
        Ok(LockFacts { state, legal_hold: hold })
    }

    fn file(&self, _key: &str) -> Option<Result<LocalFile, StorageError>> {
        None
    }
    fn transport(&self) -> Transport {
        self.bucket.transport()
    }
    fn tuning(&self) -> Tuning {
        *self.bucket.tuning()
    }
}

/// Bytes of a local file that are read at one go.
const CHUNK: u64 = 256 << 10;

/// So many bytes of a file that is still what it was when it was opened.
fn chunk(file: &LocalFile, start: u64, length: u64) -> Result<Bytes, StorageError> {
    let local = |source| StorageError::Local { operation: "to read a file", source };
    let mut bytes = vec![0; length as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], start + filled as u64).map_err(local)? {
            0 => return Err(StorageError::Changed),
            n => filled += n,
        }
    }
    if !file.is_unchanged().map_err(local)? {
        return Err(StorageError::Changed);
    }
    Ok(bytes.into())
}

/// A local directory.
#[derive(Debug)]
pub(super) struct Local {
    directory: Arc<Directory>,
}

impl Local {
    pub(super) fn new(directory: Directory) -> Self {
        Self { directory: Arc::new(directory) }
    }
}

#[async_trait::async_trait]
impl ReadStore for Local {
    async fn list(&self, prefix: &str, depth: Depth, visit: &mut (dyn FnMut(Listing) + Send)) -> Result<(), StorageError> {
        self.directory.list(prefix, depth, visit)
    }
    async fn page(&self, ask: &PageAsk) -> Result<Page, StorageError> {
        self.directory.page(ask)
    }
    async fn versions(&self, _ask: &VersionsAsk) -> Result<VersionPage, StorageError> {
        Err(StorageError::NoVersions)
    }
    async fn versioning(&self) -> Result<Versioning, StorageError> {
        Ok(Versioning::Never)
    }
    async fn probe(&self, prefix: &str) -> Result<(), StorageError> {
        self.directory.list(prefix, Depth::OneLevel, &mut |_| {})
    }
    async fn head(&self, key: &str, _version: Option<&str>) -> Result<Head, StorageError> {
        Ok(self.directory.open_file(key)?.head)
    }
    async fn get(&self, wanted: &Wanted) -> Result<Body, Failure> {
        let file = self.directory.open_file(&wanted.key)?;
        if wanted.etag.is_some() && wanted.etag != file.head.etag {
            return Err(StorageError::Changed.into());
        }
        let head = file.head.clone();
        let range = wanted.range.start..wanted.range.end.min(head.size);
        let stream = stream::try_unfold((Arc::new(file), range), |(file, range)| async move {
            if range.is_empty() {
                return Ok(None);
            }
            let theirs = Arc::clone(&file);
            let (start, length) = (range.start, (range.end - range.start).min(CHUNK));
            // a disk may take its time, and the file may lie on a network
            let read = tokio::task::spawn_blocking(move || chunk(&theirs, start, length)).await;
            let bytes = read.map_err(|_| StorageError::Local { operation: "to read a file", source: io::ErrorKind::Other.into() })??;
            let next = start + bytes.len() as u64;
            Ok::<_, StorageError>(Some((bytes, (file, next..range.end))))
        });
        Ok(Body { head, stream: stream.boxed() })
    }
    async fn get_small(&self, key: &str, _version: Option<&str>, limit: usize) -> Result<(Head, Bytes), StorageError> {
        let file = self.directory.open_file(key)?;
        if file.head.size > limit as u64 {
            return Err(StorageError::TooLarge { limit: limit as u64 });
        }
        let wanted = Wanted { key: key.to_owned(), version: None, etag: file.head.etag.clone(), range: 0..file.head.size };
        let body = self.get(&wanted).await.map_err(|failure| failure.error)?;
        let bytes = Bytes::from(body.stream.try_collect::<Vec<_>>().await?.concat());
        if bytes.len() as u64 != file.head.size || !file.is_unchanged().unwrap_or(false) {
            return Err(StorageError::Changed);
        }
        Ok((file.head, bytes))
    }
    async fn lock(&self, _key: &str, _head: &Head) -> Result<LockFacts, StorageError> {
        Ok(LockFacts::unknown("a local directory has no object lock"))
    }
    fn file(&self, key: &str) -> Option<Result<LocalFile, StorageError>> {
        Some(self.directory.open_file(key))
    }
    fn transport(&self) -> Transport {
        self.directory.transport()
    }
    fn tuning(&self) -> Tuning {
        Tuning::default()
    }
}
