//! What a drill may take from a storage: bytes, requests, and bytes a second. None where the scenario says nothing.
//!
//! It lies directly above the backend, so it holds whoever reads: the pipeline, a mirror, a tool behind the gateway, and
//! the view as of an instant with its own questions. Bytes are those of objects. A request is one question of a drill; that
//! the connection asks it again after a broken line is not counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::Instant;

use super::read_only::ReadStore;
use crate::domain::{ByteSize, LockFacts, SourceLimits, Transport};
use crate::storage::{
    Begin, Body, Depth, Failure, Head, Listing, LocalFile, Page, PageAsk, Span, StorageError, Tuning, VersionPage, Versioning, VersionsAsk,
    Wanted,
};

/// Entries of a page of a listing.
const PAGE: usize = 1_000;

/// The layer.
#[derive(Debug)]
pub(super) struct Bounded {
    below: Arc<dyn ReadStore>,
    account: Arc<Account>,
}

/// What has been taken so far.
#[derive(Debug)]
struct Account {
    limits: SourceLimits,
    bytes: AtomicU64,
    requests: AtomicU64,
    tap: Option<Tap>,
}

impl Bounded {
    pub(super) fn new(below: Arc<dyn ReadStore>, limits: SourceLimits) -> Self {
        let tap = limits.bandwidth.map(|bandwidth| Tap::new(bandwidth.0));
        Self { below, account: Arc::new(Account { limits, bytes: AtomicU64::new(0), requests: AtomicU64::new(0), tap }) }
    }

    fn measured(&self, body: Body) -> Body {
        let account = Arc::clone(&self.account);
        let stream = body.stream.then(move |frame| {
            let account = Arc::clone(&account);
            async move {
                let frame = frame?;
                account.take(frame.len() as u64).await?;
                Ok(frame)
            }
        });
        Body { head: body.head, stream: stream.boxed() }
    }
}

impl Account {
    fn request(&self) -> Result<(), StorageError> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        match self.limits.requests.filter(|limit| number > *limit) {
            Some(limit) => Err(StorageError::LimitReached { limit: "requests", value: limit.to_string() }),
            None => Ok(()),
        }
    }

    async fn take(&self, bytes: u64) -> Result<(), StorageError> {
        let taken = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if let Some(limit) = self.limits.bytes.filter(|limit| taken > limit.0) {
            return Err(StorageError::LimitReached { limit: "bytes", value: ByteSize(limit.0).to_string() });
        }
        if let Some(tap) = &self.tap {
            let wait = tap.draw(bytes, Instant::now());
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
        }
        Ok(())
    }
}

/// A token bucket that goes into debt: whoever draws waits until the debt he has made is paid, so many readers share the rate.
#[derive(Debug)]
struct Tap {
    /// Bytes a second.
    rate: f64,
    /// Bytes at hand, negative in debt, and when that was.
    level: Mutex<(f64, Option<Instant>)>,
}

impl Tap {
    fn new(rate: u64) -> Self {
        Self { rate: rate.max(1) as f64, level: Mutex::new((0.0, None)) }
    }

    /// How long to wait before going on. What was not drawn is saved up for a quarter of a second.
    fn draw(&self, bytes: u64, now: Instant) -> Duration {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let (at_hand, since) = *level;
        let earned = since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64() * self.rate);
        let left = (at_hand + earned).min(self.rate / 4.0) - bytes as f64;
        *level = (left, Some(now));
        Duration::try_from_secs_f64((-left).max(0.0) / self.rate).unwrap_or(Duration::MAX)
    }
}

#[async_trait::async_trait]
impl ReadStore for Bounded {
    /// Page by page where pages are requests.
    async fn list(&self, prefix: &str, depth: Depth, visit: &mut (dyn FnMut(Listing) + Send)) -> Result<(), StorageError> {
        if self.below.transport().store == "file" {
            self.account.request()?;
            return self.below.list(prefix, depth, visit).await;
        }
        let mut ask = PageAsk { prefix: prefix.to_owned(), depth, from: Begin::Start, limit: PAGE };
        loop {
            let page = self.page(&ask).await?;
            let objects = page.objects.into_iter().map(|listed| listed.object).collect();
            visit(Listing { objects, prefixes: page.prefixes, skipped: page.skipped });
            match page.next {
                Some(next) => ask.from = Begin::Token(next),
                None => return Ok(()),
            }
        }
    }
    async fn page(&self, ask: &PageAsk) -> Result<Page, StorageError> {
        self.account.request()?;
        self.below.page(ask).await
    }
    async fn versions(&self, ask: &VersionsAsk) -> Result<VersionPage, StorageError> {
        self.account.request()?;
        self.below.versions(ask).await
    }
    async fn versioning(&self) -> Result<Versioning, StorageError> {
        self.account.request()?;
        self.below.versioning().await
    }
    async fn probe(&self, prefix: &str) -> Result<(), StorageError> {
        self.account.request()?;
        self.below.probe(prefix).await
    }
    async fn head(&self, key: &str, version: Option<&str>) -> Result<Head, StorageError> {
        self.account.request()?;
        self.below.head(key, version).await
    }
    async fn get(&self, wanted: &Wanted) -> Result<Body, Failure> {
        self.account.request()?;
        Ok(self.measured(self.below.get(wanted).await?))
    }
    async fn open(&self, key: &str, version: Option<&str>, span: &Span) -> Result<Body, Failure> {
        self.account.request()?;
        Ok(self.measured(self.below.open(key, version, span).await?))
    }
    async fn get_small(&self, key: &str, version: Option<&str>, limit: usize) -> Result<(Head, Bytes), StorageError> {
        self.account.request()?;
        let (head, bytes) = self.below.get_small(key, version, limit).await?;
        self.account.take(bytes.len() as u64).await?;
        Ok((head, bytes))
    }
    async fn lock(&self, key: &str, head: &Head) -> Result<LockFacts, StorageError> {
        self.account.request()?;
        self.below.lock(key, head).await
    }
    /// Bytes of a file that somebody else reads could not be held.
    fn file(&self, _key: &str) -> Option<Result<LocalFile, StorageError>> {
        None
    }
    fn transport(&self) -> Transport {
        self.below.transport()
    }
    fn tuning(&self) -> Tuning {
        self.below.tuning()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Directory;
    use crate::vault::read_only::Local;

    fn over(files: &[(&str, usize)], limits: SourceLimits) -> (tempfile::TempDir, Bounded) {
        let root = tempfile::tempdir().unwrap();
        for (name, size) in files {
            std::fs::write(root.path().join(name), vec![7; *size]).unwrap();
        }
        let below = Arc::new(Local::new(Directory::open(root.path()).unwrap()));
        (root, Bounded::new(below, limits))
    }

    async fn read(store: &Bounded, key: &str, bytes: u64) -> Result<u64, StorageError> {
        let wanted = Wanted { key: key.into(), version: None, etag: None, range: 0..bytes };
        let mut body = store.get(&wanted).await.map_err(|failure| failure.error)?;
        let mut read = 0;
        while let Some(frame) = body.stream.next().await {
            read += frame?.len() as u64;
        }
        Ok(read)
    }

    #[tokio::test]
    async fn bytes_end_where_the_limit_is_and_not_before() {
        let limits = SourceLimits { bytes: Some(ByteSize(1_000)), ..SourceLimits::default() };
        let (_root, store) = over(&[("f", 600)], limits);
        assert_eq!(read(&store, "f", 600).await.unwrap(), 600);
        assert_eq!(read(&store, "f", 400).await.unwrap(), 400);
        let error = read(&store, "f", 1).await.unwrap_err();
        assert!(matches!(error, StorageError::LimitReached { limit: "bytes", .. }), "{error:?}");
        assert!(!error.is_transient() && error.blame() == crate::domain::Cause::Runner);
        assert!(store.get_small("f", None, 600).await.is_err());
        assert!(store.file("f").is_none(), "a file that is read past the layer is not held");
    }

    #[tokio::test]
    async fn every_question_is_a_request() {
        let limits = SourceLimits { requests: Some(4), ..SourceLimits::default() };
        let (_root, store) = over(&[("f", 10)], limits);
        store.list("", Depth::All, &mut |_| {}).await.unwrap();
        let head = store.head("f", None).await.unwrap();
        store.lock("f", &head).await.unwrap();
        read(&store, "f", 10).await.unwrap();
        assert!(matches!(store.head("f", None).await, Err(StorageError::LimitReached { limit: "requests", .. })));
        assert!(matches!(store.probe("").await, Err(StorageError::LimitReached { .. })));
    }

    #[test]
    fn readers_share_the_bandwidth_and_rest_saves_up_little() {
        let tap = Tap::new(1_000);
        let began = Instant::now();
        let waits: Vec<f64> = (0..20).map(|_| tap.draw(500, began).as_secs_f64()).collect();
        assert!(waits.iter().enumerate().all(|(n, wait)| (wait - (n + 1) as f64 / 2.0).abs() < 1e-6), "{waits:?}");
        let paid = tap.draw(100, began + Duration::from_secs(10)).as_secs_f64();
        assert!((paid - 0.1).abs() < 1e-6, "{paid}");
        let rested = tap.draw(500, began + Duration::from_secs(3_600)).as_secs_f64();
        assert!((rested - 0.25).abs() < 1e-6, "{rested}");
    }

    #[tokio::test]
    async fn a_reader_waits_for_what_it_has_drawn() {
        let limits = SourceLimits { bandwidth: Some(ByteSize(10_000)), ..SourceLimits::default() };
        let (_root, store) = over(&[("f", 1_000)], limits);
        let began = Instant::now();
        let (one, other) = tokio::join!(read(&store, "f", 1_000), read(&store, "f", 1_000));
        assert_eq!((one.unwrap(), other.unwrap()), (1_000, 1_000));
        assert!(began.elapsed() >= Duration::from_millis(190));
    }
}
