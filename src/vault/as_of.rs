//! The bucket as it stood at an instant, from the versions that it keeps: what was deleted since is there again, what was
//! overwritten since has its old bytes, what was stored since is not there yet.
//!
//! A key's version of the instant is the first in the server's own order (newest first) whose time is not later. So two
//! versions of one second fall as the server has them. Where that version is a delete marker, there is no object.
//!
//! Listings are made from the list of all versions: streaming, a page of it in memory at a time. Of a folder that is shown
//! as one name no more is read than it takes to find one object that was there.
//!
//! What nobody can undo stays invisible: versions that were removed for good, by whoever may or by a lifecycle rule.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::read_only::ReadStore;
use crate::domain::{LockFacts, ObjectRef, Timestamp, Transport};
use crate::storage::{
    Begin, Body, Depth, Failure, Head, Listed, Listing, LocalFile, Page, PageAsk, Span, StorageError, StoredVersion, Tuning, VersionKind,
    VersionMark, VersionPage, Versioning, VersionsAsk, Wanted, can_be_requested,
};

/// Versions asked for at a time in a listing, and entries of a page.
const PAGE: usize = 1_000;
/// Versions asked for at a time when one key is resolved.
const OF_ONE_KEY: usize = 50;
/// Keys whose version is remembered; the ones first resolved are forgotten first.
const REMEMBERED: usize = 16_384;
/// The last character there is: no key of a folder that people made sorts behind it.
const LAST: char = '\u{10FFFF}';

/// The layer.
#[derive(Debug)]
pub(super) struct AsOf {
    below: Arc<dyn ReadStore>,
    at: Timestamp,
    versioning: OnceCell<Versioning>,
    known: Mutex<Known>,
}

/// What was learned from versions that went by.
#[derive(Debug, Default)]
struct Known {
    versions: HashMap<String, String>,
    order: VecDeque<String>,
    first: Option<Timestamp>,
}

/// What a view as of an instant knows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsOfFacts {
    /// The instant.
    pub at: Timestamp,
    /// Whether the bucket keeps versions now; `None` before anything was asked.
    pub versioning: Option<Versioning>,
    /// The time of the oldest version seen so far, delete markers apart.
    pub first_version: Option<Timestamp>,
}

impl AsOfFacts {
    /// Whether the bucket kept versions once and does not now: what is stored meanwhile overwrites.
    pub fn suspended(&self) -> bool {
        self.versioning == Some(Versioning::Suspended)
    }
}

impl AsOf {
    pub(super) fn new(below: Arc<dyn ReadStore>, at: Timestamp) -> Self {
        Self { below, at, versioning: OnceCell::new(), known: Mutex::default() }
    }

    pub(super) fn facts(&self) -> AsOfFacts {
        AsOfFacts { at: self.at, versioning: self.versioning.get().copied(), first_version: self.known().first }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asked once, before anything else: without versions there is no earlier instant.
    async fn ready(&self) -> Result<(), StorageError> {
        match self.versioning.get_or_try_init(|| self.below.versioning()).await? {
            Versioning::Enabled | Versioning::Suspended => Ok(()),
            Versioning::Never => Err(StorageError::NoVersions),
            Versioning::NotVisible => Err(StorageError::VersionsNotVisible { operation: "GetBucketVersioning" }),
        }
    }

    fn note(&self, version: &StoredVersion) {
        if matches!(version.kind, VersionKind::Object { .. }) {
            let mut known = self.known();
            known.first = Some(known.first.map_or(version.stored_at, |first| first.min(version.stored_at)));
        }
    }

    fn remember(&self, key: &str, version: &str) {
        let mut known = self.known();
        if known.versions.insert(key.to_owned(), version.to_owned()).is_none() {
            known.order.push_back(key.to_owned());
            if known.order.len() > REMEMBERED
                && let Some(oldest) = known.order.pop_front()
            {
                known.versions.remove(&oldest);
            }
        }
    }

    /// The version that `key` stood for.
    async fn resolve(&self, key: &str) -> Result<String, StorageError> {
        if !can_be_requested(key) {
            return Err(StorageError::UnusableName { why: "empty, `.` or `..` path segment" });
        }
        self.ready().await?;
        if let Some(version) = self.known().versions.get(key) {
            return Ok(version.clone());
        }
        let mut ask = VersionsAsk { prefix: key.to_owned(), after: None, limit: OF_ONE_KEY };
        loop {
            let page = self.below.versions(&ask).await?;
            for version in &page.versions {
                // longer keys with this beginning sort behind it
                if version.key != key {
                    return Err(StorageError::NoSuchObject);
                }
                self.note(version);
                if version.stored_at > self.at {
                    continue;
                }
                return match version.kind {
                    VersionKind::Object { .. } => {
                        self.remember(key, &version.version);
                        Ok(version.version.clone())
                    }
                    VersionKind::DeleteMarker => Err(StorageError::NoSuchObject),
                };
            }
            match page.next {
                Some(next) => ask.after = Some(next),
                None => return Err(StorageError::NoSuchObject),
            }
        }
    }

    async fn version_of(&self, key: &str, version: Option<&str>) -> Result<String, StorageError> {
        match version {
            Some(version) => Ok(version.to_owned()),
            None => self.resolve(key).await,
        }
    }

    fn walk<'a>(&'a self, prefix: &'a str, depth: Depth, from: From) -> Walk<'a> {
        let after = from.mark();
        Walk { layer: self, prefix, depth, from, after: Some(after), waiting: VecDeque::new(), settled: None, folder: None }
    }
}

/// Refused access to a version says nothing about the version.
fn of_version(operation: &'static str, error: StorageError) -> StorageError {
    match error {
        StorageError::AccessDenied { .. } => StorageError::VersionsNotVisible { operation },
        other => other,
    }
}

/// A server that does not say which version it answered with was still asked for one.
fn with_version(mut head: Head, version: String) -> Head {
    head.facts.version.get_or_insert(version);
    head
}

/// Where a walk begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    Start,
    /// Behind this key.
    Key(String),
    /// Behind everything in this folder.
    Folder(String),
}

impl From {
    fn of(begin: &Begin) -> Result<Self, StorageError> {
        let strange = || StorageError::BadAnswer { operation: "ListObjectsV2", why: "a token that this view did not give".into() };
        match begin {
            Begin::Start => Ok(From::Start),
            Begin::After(key) => Ok(From::Key(key.clone())),
            Begin::Token(token) => {
                let (kind, name) = token.split_at_checked(1).ok_or_else(strange)?;
                let name = data_encoding::BASE64URL_NOPAD.decode(name.as_bytes()).map_err(|_| strange())?;
                let name = String::from_utf8(name).map_err(|_| strange())?;
                match kind {
                    "k" => Ok(From::Key(name)),
                    "f" => Ok(From::Folder(name)),
                    _ => Err(strange()),
                }
            }
        }
    }

    fn token(&self) -> Option<String> {
        let (kind, name) = match self {
            From::Start => return None,
            From::Key(key) => ("k", key),
            From::Folder(folder) => ("f", folder),
        };
        Some(format!("{kind}{}", data_encoding::BASE64URL_NOPAD.encode(name.as_bytes())))
    }

    fn mark(&self) -> Option<VersionMark> {
        match self {
            From::Start => None,
            From::Key(key) => Some(VersionMark { key: key.clone(), version: None }),
            From::Folder(folder) => Some(behind(folder)),
        }
    }

    /// Whether a walk from here has gone past `key`. Servers may show the marker's own versions again.
    fn is_past(&self, key: &str) -> bool {
        match self {
            From::Start => false,
            From::Key(last) => key <= last.as_str(),
            From::Folder(folder) => key <= folder.as_str() || key.starts_with(folder.as_str()),
        }
    }
}

/// A mark behind what lies in a folder.
fn behind(folder: &str) -> VersionMark {
    VersionMark { key: format!("{folder}{LAST}"), version: None }
}

/// Goes through the versions below a prefix, and shows what was there.
struct Walk<'a> {
    layer: &'a AsOf,
    prefix: &'a str,
    depth: Depth,
    from: From,
    /// Where the next page of versions begins; `None` when there is none.
    after: Option<Option<VersionMark>>,
    waiting: VecDeque<StoredVersion>,
    /// The key whose version has been found: all others of it are older.
    settled: Option<String>,
    /// The folder that has been shown.
    folder: Option<String>,
}

/// What a walk shows.
enum Shown {
    Object(Listed),
    Folder(String),
    /// Something that cannot be asked for.
    Skipped(u64),
}

impl Walk<'_> {
    async fn next(&mut self) -> Result<Option<Shown>, StorageError> {
        loop {
            while let Some(version) = self.waiting.pop_front() {
                if let Some(shown) = self.look(version) {
                    return Ok(Some(shown));
                }
            }
            let Some(after) = self.after.take() else { return Ok(None) };
            // nothing more is to be learned in a folder that has been shown
            let after = match (&self.folder, after) {
                (Some(folder), Some(mark)) if mark.key.starts_with(folder.as_str()) && !mark.key[folder.len()..].starts_with(LAST) => {
                    Some(behind(folder))
                }
                (_, after) => after,
            };
            let page = self.layer.below.versions(&VersionsAsk { prefix: self.prefix.to_owned(), after, limit: PAGE }).await?;
            self.after = page.next.map(Some);
            self.waiting = page.versions.into();
            if page.skipped > 0 {
                return Ok(Some(Shown::Skipped(page.skipped)));
            }
        }
    }

    fn look(&mut self, version: StoredVersion) -> Option<Shown> {
        self.layer.note(&version);
        let StoredVersion { key, version, stored_at, kind, .. } = version;
        let seen = self.settled.as_ref().is_some_and(|settled| *settled == key);
        let in_folder = self.folder.as_ref().is_some_and(|folder| key.starts_with(folder.as_str()));
        if seen || in_folder || stored_at > self.layer.at || !key.starts_with(self.prefix) || self.from.is_past(&key) {
            return None;
        }
        self.settled = Some(key.clone());
        let VersionKind::Object { size, etag } = kind else { return None };
        // "directories" that some tools make
        if size == 0 && key.ends_with('/') {
            return None;
        }
        if !can_be_requested(&key) {
            return Some(Shown::Skipped(1));
        }
        self.layer.remember(&key, &version);
        if self.depth == Depth::OneLevel
            && let Some(end) = key[self.prefix.len()..].find('/')
        {
            let folder = key[..=self.prefix.len() + end].to_owned();
            self.folder = Some(folder.clone());
            return Some(Shown::Folder(folder));
        }
        Some(Shown::Object(Listed { object: ObjectRef { key, size, stored_at }, etag }))
    }
}

#[async_trait::async_trait]
impl ReadStore for AsOf {
    async fn list(&self, prefix: &str, depth: Depth, visit: &mut (dyn FnMut(Listing) + Send)) -> Result<(), StorageError> {
        self.ready().await?;
        let mut walk = self.walk(prefix, depth, From::Start);
        let mut listing = Listing::default();
        while let Some(shown) = walk.next().await? {
            match shown {
                Shown::Object(listed) => listing.objects.push(listed.object),
                Shown::Folder(folder) => listing.prefixes.push(folder),
                Shown::Skipped(number) => listing.skipped += number,
            }
            if listing.objects.len() + listing.prefixes.len() >= PAGE {
                visit(std::mem::take(&mut listing));
            }
        }
        if !listing.is_empty() {
            visit(listing);
        }
        Ok(())
    }

    async fn page(&self, ask: &PageAsk) -> Result<Page, StorageError> {
        self.ready().await?;
        let limit = ask.limit.clamp(1, PAGE);
        let from = From::of(&ask.from)?;
        let mut walk = self.walk(&ask.prefix, ask.depth, from.clone());
        let (mut page, mut last) = (Page::default(), from);
        while let Some(shown) = walk.next().await? {
            // one more than fits shows that there are more; the next page begins behind the last that does
            if !matches!(shown, Shown::Skipped(_)) && page.objects.len() + page.prefixes.len() == limit {
                page.next = last.token();
                break;
            }
            match shown {
                Shown::Object(listed) => {
                    last = From::Key(listed.object.key.clone());
                    page.objects.push(listed);
                }
                Shown::Folder(folder) => {
                    last = From::Folder(folder.clone());
                    page.prefixes.push(folder);
                }
                Shown::Skipped(number) => page.skipped += number,
            }
        }
        Ok(page)
    }

    async fn versions(&self, ask: &VersionsAsk) -> Result<VersionPage, StorageError> {
        self.below.versions(ask).await
    }
    async fn versioning(&self) -> Result<Versioning, StorageError> {
        self.below.versioning().await
    }
    async fn probe(&self, prefix: &str) -> Result<(), StorageError> {
        self.below.probe(prefix).await?;
        self.ready().await
    }

    async fn head(&self, key: &str, version: Option<&str>) -> Result<Head, StorageError> {
        let version = self.version_of(key, version).await?;
        let head = self.below.head(key, Some(&version)).await.map_err(|e| of_version("HeadObject", e))?;
        Ok(with_version(head, version))
    }

    async fn get(&self, wanted: &Wanted) -> Result<Body, Failure> {
        let version = self.version_of(&wanted.key, wanted.version.as_deref()).await?;
        let wanted = Wanted { version: Some(version.clone()), ..wanted.clone() };
        match self.below.get(&wanted).await {
            Ok(body) => Ok(Body { head: with_version(body.head, version), stream: body.stream }),
            Err(Failure { error, retry_after }) => Err(Failure { error: of_version("GetObject", error), retry_after }),
        }
    }

    async fn open(&self, key: &str, version: Option<&str>, span: &Span) -> Result<Body, Failure> {
        let version = self.version_of(key, version).await?;
        match self.below.open(key, Some(&version), span).await {
            Ok(body) => Ok(Body { head: with_version(body.head, version), stream: body.stream }),
            Err(Failure { error, retry_after }) => Err(Failure { error: of_version("GetObject", error), retry_after }),
        }
    }

    async fn get_small(&self, key: &str, version: Option<&str>, limit: usize) -> Result<(Head, Bytes), StorageError> {
        let version = self.version_of(key, version).await?;
        let (head, bytes) = self.below.get_small(key, Some(&version), limit).await.map_err(|e| of_version("GetObject", e))?;
        Ok((with_version(head, version), bytes))
    }

    async fn lock(&self, key: &str, head: &Head) -> Result<LockFacts, StorageError> {
        self.below.lock(key, head).await
    }
    /// A file is what it is now.
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
mod tests;
