//! The restore chain: which object versions were read, by whom, and how much of each.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use futures_util::StreamExt;

use super::read_only::ReadStore;
use super::reads::Reads;
use crate::domain::{Blake3, LockFacts, ObjectRead, Pseudonym, RangeRead, RestoreChain, Sha256, Timestamp, Transport};
use crate::storage::{
    Body, Depth, Failure, Head, HeaderFacts, Listing, LocalFile, Page, PageAsk, Span, StorageError, Tuning, VersionPage, Versioning,
    VersionsAsk, Wanted, lock_state,
};

/// One pinned object version, and what was read of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub key: Arc<str>,
    pub role: String,
    pub version: Option<String>,
    pub etag: Option<String>,
    pub size: u64,
    pub stored_at: Timestamp,
    pub storage_class: Option<String>,
    pub server_encryption: Option<String>,
    /// What the owner said of the content.
    pub content: Box<[(String, String)]>,
    /// What the answer that pinned it said of its lock; the rest is asked for when there is time.
    shown: Shown,
    lock: OnceLock<LockFacts>,
    bytes: AtomicU64,
    requests: AtomicU64,
    reads: Mutex<Reads>,
    digests: Mutex<Option<Digests>>,
    /// What a manifest says of it.
    quoted: Mutex<Option<(Blake3, Sha256)>>,
}

/// Lock headers, verbatim.
#[derive(Debug, Default)]
struct Shown {
    mode: Option<String>,
    until: Option<String>,
    legal_hold: Option<String>,
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
    /// `lock` is `None` where nobody asked yet: [`Entry::settle`] follows.
    pub(super) fn new(key: &str, role: &str, head: &Head, lock: Option<LockFacts>) -> Self {
        let facts = &head.facts;
        Self {
            key: key.into(),
            role: role.to_owned(),
            version: facts.version.clone(),
            etag: head.etag.clone(),
            size: head.size,
            stored_at: head.stored_at,
            storage_class: facts.storage_class.clone(),
            server_encryption: facts.server_encryption.clone(),
            content: facts.content.clone().into(),
            shown: Shown { mode: facts.lock_mode.clone(), until: facts.lock_until.clone(), legal_hold: facts.lock_legal_hold.clone() },
            lock: lock.map_or_else(OnceLock::new, OnceLock::from),
            bytes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            reads: Mutex::new(Reads::default()),
            digests: Mutex::new(None),
            quoted: Mutex::new(None),
        }
    }

    /// Whether `head` describes this very version.
    pub(super) fn is(&self, head: &Head) -> bool {
        // a server that does not say its version may say so in one answer and not in another
        let other_version = self.version.is_some() && head.facts.version.is_some() && self.version != head.facts.version;
        self.size == head.size && self.etag == head.etag && !other_version
    }

    fn has(&self, version: Option<&str>, etag: Option<&str>) -> bool {
        self.version.as_deref() == version && self.etag.as_deref() == etag
    }

    /// Its lock; where nobody asked yet, what the headers showed.
    pub(super) fn lock(&self) -> LockFacts {
        self.lock.get().cloned().unwrap_or_else(|| {
            let hold = self.shown.legal_hold.as_deref().map(|word| word == "ON");
            match lock_state(self.shown.mode.as_deref(), self.shown.until.as_deref()) {
                Some(state) => LockFacts { state, legal_hold: hold },
                None => LockFacts { legal_hold: hold, ..LockFacts::unknown("the storage was not asked") },
            }
        })
    }
    pub(super) fn is_settled(&self) -> bool {
        self.lock.get().is_some()
    }
    /// The first answer counts.
    pub(super) fn settle(&self, lock: LockFacts) {
        let _ = self.lock.set(lock);
    }
    /// As HEAD would describe it.
    pub(super) fn head(&self) -> Head {
        let facts = HeaderFacts {
            version: self.version.clone(),
            storage_class: self.storage_class.clone(),
            server_encryption: self.server_encryption.clone(),
            lock_mode: self.shown.mode.clone(),
            lock_until: self.shown.until.clone(),
            lock_legal_hold: self.shown.legal_hold.clone(),
            ..HeaderFacts::default()
        };
        Head { size: self.size, etag: self.etag.clone(), stored_at: self.stored_at, facts }
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
    pub(super) fn count_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    /// Notes what one reader got.
    pub(super) fn note(&self, read: RangeRead) {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).push(read);
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
            lock: self.lock(),
            storage_class: self.storage_class.clone(),
            server_encryption: self.server_encryption.clone(),
            reads: self.reads.lock().unwrap_or_else(PoisonError::into_inner).to_vec(),
        }
    }
}

/// All pinned object versions, in the order they were pinned.
#[derive(Debug, Default)]
pub(super) struct ChainLog(RwLock<Log>);

#[derive(Debug, Default)]
struct Log {
    entries: Vec<Arc<Entry>>,
    /// The versions of each key, by their numbers above. Nearly always there is one.
    by_key: HashMap<Arc<str>, Versions>,
}

#[derive(Debug)]
enum Versions {
    One(u32),
    More(Vec<u32>),
}

impl Versions {
    fn numbers(&self) -> &[u32] {
        match self {
            Versions::One(number) => std::slice::from_ref(number),
            Versions::More(numbers) => numbers,
        }
    }
}

impl Log {
    fn of<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a Arc<Entry>> {
        self.by_key.get(key).map_or(&[][..], Versions::numbers).iter().map(|number| &self.entries[*number as usize])
    }

    fn enter(&mut self, entry: Entry) -> Arc<Entry> {
        let number = u32::try_from(self.entries.len()).expect("fewer than four billion objects fit into memory");
        let entry = Arc::new(entry);
        self.entries.push(Arc::clone(&entry));
        match self.by_key.get_mut(&entry.key) {
            None => drop(self.by_key.insert(Arc::clone(&entry.key), Versions::One(number))),
            Some(Versions::More(numbers)) => numbers.push(number),
            Some(one) => *one = Versions::More(vec![one.numbers()[0], number]),
        }
        entry
    }
}

impl ChainLog {
    /// The entry of this object version: the known one where it was pinned before.
    pub(super) fn enter(&self, entry: Entry) -> Arc<Entry> {
        let mut log = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = log.of(&entry.key).find(|e| e.has(entry.version.as_deref(), entry.etag.as_deref()));
        known.cloned().unwrap_or_else(|| log.enter(entry))
    }

    /// As [`ChainLog::enter`], but whichever version of the key was pinned first stays.
    pub(super) fn enter_first(&self, entry: Entry) -> Arc<Entry> {
        let mut log = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = log.of(&entry.key).next();
        known.cloned().unwrap_or_else(|| log.enter(entry))
    }

    /// The version of this key that was pinned first.
    pub(super) fn first(&self, key: &str) -> Option<Arc<Entry>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).of(key).next().cloned()
    }

    fn find(&self, wanted: &Wanted) -> Option<Arc<Entry>> {
        let log = self.0.read().unwrap_or_else(PoisonError::into_inner);
        log.of(&wanted.key).find(|e| e.has(wanted.version.as_deref(), wanted.etag.as_deref())).cloned()
    }

    pub(super) fn entries(&self) -> Vec<Arc<Entry>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).entries.clone()
    }

    pub(super) fn chain(&self, name: &dyn Fn(&str) -> Pseudonym) -> RestoreChain {
        RestoreChain { objects: self.entries().iter().map(|e| e.to_read(name)).collect(), summary: None }
    }
}

/// The layer that writes down what is read: every request and every byte that arrives, also those of tries that broke off.
#[derive(Debug)]
pub(super) struct Recorded {
    pub below: Arc<dyn ReadStore>,
    pub log: Arc<ChainLog>,
}

/// What an object is for that a tool asked for by name.
pub(super) const OBJECT: &str = "object";

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
        Ok(counted(self.below.get(wanted).await?, entry))
    }
    /// The answer's head pins: the version that it shows is in the chain from here on, or the one that was pinned before.
    async fn open(&self, key: &str, version: Option<&str>, span: &Span) -> Result<Body, Failure> {
        let body = self.below.open(key, version, span).await?;
        let entry = self.log.enter_first(Entry::new(key, OBJECT, &body.head, None));
        let entry = entry.is(&body.head).then_some(entry);
        if let Some(entry) = &entry {
            entry.count_request();
        }
        Ok(counted(body, entry))
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

fn counted(body: Body, entry: Option<Arc<Entry>>) -> Body {
    let Some(entry) = entry else { return body };
    let stream = body.stream.inspect(move |frame| {
        if let Ok(bytes) = frame {
            entry.count_bytes(bytes.len());
        }
    });
    Body { head: body.head, stream: stream.boxed() }
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
