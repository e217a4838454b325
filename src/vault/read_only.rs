//! The bottom of the vault view: a storage without any way to write.
//!
//! Layers are small wrappers over [`ReadStore`] that add one behaviour and forward the rest: [`super::chain::Recorded`] is
//! the first; `AsOf`, `Bounded` and `Sabotaged` belong between it and the backend.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::domain::{LockFacts, LockState, Transport};
use crate::storage::{
    Body, Bucket, BucketLock, Depth, Directory, Failure, Head, Listing, LocalFile, Page, PageAsk, Retention, StorageError, Tuning,
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
        use futures_util::StreamExt;
        let file = self.directory.open_file(&wanted.key)?;
        if wanted.etag.is_some() && wanted.etag != file.head.etag {
            return Err(StorageError::Changed.into());
        }
        let local = |source| StorageError::Local { operation: "to read a file", source };
        let length = wanted.range.end.min(file.head.size).saturating_sub(wanted.range.start) as usize;
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut bytes[filled..], wanted.range.start + filled as u64).map_err(local)? {
                0 => break,
                n => filled += n,
            }
        }
        bytes.truncate(filled);
        Ok(Body { head: file.head.clone(), stream: futures_util::stream::iter([Ok(Bytes::from(bytes))]).boxed() })
    }
    async fn get_small(&self, key: &str, _version: Option<&str>, limit: usize) -> Result<(Head, Bytes), StorageError> {
        let file = self.directory.open_file(key)?;
        if file.head.size > limit as u64 {
            return Err(StorageError::TooLarge { limit: limit as u64 });
        }
        let wanted = Wanted { key: key.to_owned(), version: None, etag: file.head.etag.clone(), range: 0..file.head.size };
        let mut body = self.get(&wanted).await.map_err(|failure| failure.error)?;
        let bytes = futures_util::StreamExt::next(&mut body.stream).await.transpose()?.unwrap_or_default();
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
