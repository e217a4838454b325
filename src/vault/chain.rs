//! The restore chain: which object versions were read, and how much of each.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;

use super::read_only::ReadStore;
use crate::domain::{Blake3, LockFacts, ObjectRead, Pseudonym, RestoreChain, Sha256, Timestamp, Transport};
use crate::storage::{
    Body, Depth, Failure, Head, Listing, LocalFile, Page, PageAsk, StorageError, Tuning, VersionPage, Versioning, VersionsAsk, Wanted,
};

/// One pinned object version, and what was read of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    pub role: String,
    pub version: Option<String>,
    pub etag: Option<String>,
    pub size: u64,
    pub stored_at: Timestamp,
    pub lock: LockFacts,
    pub storage_class: Option<String>,
    pub server_encryption: Option<String>,
    bytes: AtomicU64,
    requests: AtomicU64,
    digests: Mutex<Option<Digests>>,
    /// What a manifest says of it.
    quoted: Mutex<Option<(Blake3, Sha256)>>,
}

/// Digests of all bytes of an object, in order, as they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    /// BLAKE3.
    pub blake3: Blake3,
    /// SHA-256, where it was asked for.
    pub sha256: Option<Sha256>,
}

impl Entry {
    pub(super) fn new(key: &str, role: &str, head: &Head, lock: LockFacts) -> Self {
        Self {
            key: key.to_owned(),
            role: role.to_owned(),
            version: head.facts.version.clone(),
            etag: head.etag.clone(),
            size: head.size,
            stored_at: head.stored_at,
            lock,
            storage_class: head.facts.storage_class.clone(),
            server_encryption: head.facts.server_encryption.clone(),
            bytes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            digests: Mutex::new(None),
            quoted: Mutex::new(None),
        }
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
    pub(super) fn count_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    pub(super) fn digests(&self) -> Option<Digests> {
        *self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A later, more complete digest replaces an earlier one.
    pub(super) fn set_digests(&self, digests: Digests) {
        let mut known = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none_or(|k| k.sha256.is_none()) {
            *known = Some(digests);
        }
    }

    pub(super) fn quote(&self, blake3: Blake3, sha256: Sha256) {
        *self.quoted.lock().unwrap_or_else(PoisonError::into_inner) = Some((blake3, sha256));
    }

    /// SHA-256 and where it is from: computed, or quoted where the BLAKE3 beside it in the manifest is that of the bytes.
    fn sha256(&self) -> Option<(Sha256, &'static str)> {
        let digests = self.digests()?;
        if let Some(computed) = digests.sha256 {
            return Some((computed, "read"));
        }
        let quoted = *self.quoted.lock().unwrap_or_else(PoisonError::into_inner);
        quoted.filter(|(blake3, _)| *blake3 == digests.blake3).map(|(_, sha256)| (sha256, "manifest"))
    }

    fn to_read(&self, name: &dyn Fn(&str) -> Pseudonym) -> ObjectRead {
        let sha256 = self.sha256();
        ObjectRead {
            object: name(&self.key),
            role: self.role.clone(),
            version: self.version.clone(),
            etag: self.etag.clone(),
            size: self.size,
            stored_at: self.stored_at,
            bytes_read: self.bytes.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            blake3: self.digests().map(|d| d.blake3),
            sha256: sha256.map(|(digest, _)| digest),
            sha256_from: sha256.map(|(_, from)| from.to_owned()),
            lock: self.lock.clone(),
            storage_class: self.storage_class.clone(),
            server_encryption: self.server_encryption.clone(),
            reads: Vec::new(),
        }
    }
}

/// All pinned object versions, in the order they were pinned.
#[derive(Debug, Default)]
pub(super) struct ChainLog {
    entries: Mutex<Vec<Arc<Entry>>>,
}

impl ChainLog {
    /// The entry of this object version: the known one where it was pinned before.
    pub(super) fn enter(&self, entry: Entry) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let known = entries.iter().find(|e| e.key == entry.key && e.version == entry.version && e.etag == entry.etag);
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let entry = Arc::new(entry);
        entries.push(Arc::clone(&entry));
        entry
    }

    fn find(&self, wanted: &Wanted) -> Option<Arc<Entry>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().find(|e| e.key == wanted.key && e.version == wanted.version && e.etag == wanted.etag).cloned()
    }

    pub(super) fn chain(&self, name: &dyn Fn(&str) -> Pseudonym) -> RestoreChain {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        RestoreChain { objects: entries.iter().map(|e| e.to_read(name)).collect(), summary: None }
    }
}

/// The layer that writes down what is read: every request and every byte that arrives, also those of tries that broke off.
#[derive(Debug)]
pub(super) struct Recorded {
    pub below: Arc<dyn ReadStore>,
    pub log: Arc<ChainLog>,
}

#[async_trait::async_trait]
impl ReadStore for Recorded {
    async fn list(&self, prefix: &str, depth: Depth, visit: &mut (dyn FnMut(Listing) + Send)) -> Result<(), StorageError> {
        self.below.list(prefix, depth, visit).await
    }
    async fn page(&self, ask: &PageAsk) -> Result<Page, StorageError> {
        self.below.page(ask).await
    }
    async fn versions(&self, ask: &VersionsAsk) -> Result<VersionPage, StorageError> {
        self.below.versions(ask).await
    }
    async fn versioning(&self) -> Result<Versioning, StorageError> {
        self.below.versioning().await
    }
    async fn probe(&self, prefix: &str) -> Result<(), StorageError> {
        self.below.probe(prefix).await
    }
    async fn head(&self, key: &str, version: Option<&str>) -> Result<Head, StorageError> {
        self.below.head(key, version).await
    }
    async fn get(&self, wanted: &Wanted) -> Result<Body, Failure> {
        let entry = self.log.find(wanted);
        if let Some(entry) = &entry {
            entry.count_request();
        }
        let body = self.below.get(wanted).await?;
        let stream = body.stream.inspect(move |frame| {
            if let (Some(entry), Ok(bytes)) = (&entry, frame) {
                entry.count_bytes(bytes.len());
            }
        });
        Ok(Body { head: body.head, stream: stream.boxed() })
    }
    async fn get_small(&self, key: &str, version: Option<&str>, limit: usize) -> Result<(Head, Bytes), StorageError> {
        self.below.get_small(key, version, limit).await
    }
    async fn lock(&self, key: &str, head: &Head) -> Result<LockFacts, StorageError> {
        self.below.lock(key, head).await
    }
    /// Whoever reads the file counts: there is no request to see from here.
    fn file(&self, key: &str) -> Option<Result<LocalFile, StorageError>> {
        self.below.file(key)
    }
    fn transport(&self) -> Transport {
        self.below.transport()
    }
    fn tuning(&self) -> Tuning {
        self.below.tuning()
    }
}

/// Hashes bytes in order; the digests count only when all of them went through.
pub(super) struct Hashing {
    blake3: blake3::Hasher,
    sha256: Option<aws_lc_rs::digest::Context>,
}

impl Hashing {
    /// For a reader of `range`; nothing where that is not the whole object.
    pub(super) fn of_whole(range: &Range<u64>, size: u64, sha256: bool) -> Option<Self> {
        (*range == (0..size)).then(|| Self {
            blake3: blake3::Hasher::new(),
            sha256: sha256.then(|| aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256)),
        })
    }
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
    }
    pub(super) fn finish(self) -> Digests {
        let sha256 = self.sha256.map(|context| {
            let mut out = [0; 32];
            out.copy_from_slice(context.finish().as_ref());
            Sha256(out)
        });
        Digests { blake3: Blake3(*self.blake3.finalize().as_bytes()), sha256 }
    }
}
