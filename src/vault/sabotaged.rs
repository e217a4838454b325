//! A view that lies on purpose: for showing that a scenario's checks would notice. No drill that counts as one sees it.
//!
//! It is the topmost layer, so the chain below has what the storage really gave.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;

use super::read_only::ReadStore;
use crate::domain::{LockFacts, Transport};
use crate::storage::{
    Body, Depth, Failure, Head, Listing, LocalFile, Page, PageAsk, StorageError, Tuning, VersionKind, VersionPage, Versioning, VersionsAsk,
    Wanted,
};

/// One way to damage what is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// One bit of the byte at this place, counted round the object's size, is another.
    Flip {
        /// Which byte.
        at: u64,
    },
    /// The object ends after so many bytes, and says that it has no more.
    Truncate {
        /// Bytes that are left.
        to: u64,
    },
    /// The object is not there, and no listing shows it.
    Drop,
    /// The version before the latest stands in its place. Where there is none, the object is not there.
    Older,
    /// Every read waits before it begins.
    Delay {
        /// How long.
        by: Duration,
    },
    /// The server answers 503 so many times, and then as it should.
    Unavailable {
        /// How often.
        times: u32,
    },
}

/// A damage, and the keys that it is done to.
pub struct Sabotage {
    keys: Box<dyn Fn(&str) -> bool + Send + Sync>,
    damage: Damage,
    done: AtomicU32,
}

impl fmt::Debug for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sabotage").field("damage", &self.damage).finish_non_exhaustive()
    }
}

impl Sabotage {
    /// `damage` to every key that `keys` says yes to.
    pub fn new(damage: Damage, keys: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self { keys: Box::new(keys), damage, done: AtomicU32::new(0) }
    }
}

/// The layer.
#[derive(Debug)]
pub(super) struct Sabotaged {
    pub below: Arc<dyn ReadStore>,
    pub sabotage: Vec<Sabotage>,
}

impl Sabotaged {
    fn damages(&self, key: &str) -> impl Iterator<Item = &Sabotage> {
        let key = key.to_owned();
        self.sabotage.iter().filter(move |sabotage| (sabotage.keys)(&key))
    }

    fn is_dropped(&self, key: &str) -> bool {
        self.damages(key).any(|s| s.damage == Damage::Drop)
    }

    /// Fails as many times as the server is to be away.
    fn away(&self, key: &str) -> Result<(), StorageError> {
        for sabotage in self.damages(key) {
            if let Damage::Unavailable { times } = sabotage.damage
                && sabotage.done.fetch_add(1, Ordering::Relaxed) < times
            {
                return Err(StorageError::ServerFailure { status: 503, code: "ServiceUnavailable".to_owned() });
            }
        }
        Ok(())
    }

    /// The version that stands in for the latest, where one does.
    async fn stand_in(&self, key: &str, version: Option<&str>) -> Result<Option<String>, StorageError> {
        if version.is_some() || !self.damages(key).any(|s| s.damage == Damage::Older) {
            return Ok(version.map(str::to_owned));
        }
        let ask = VersionsAsk { prefix: key.to_owned(), after: None, limit: 1_000 };
        let found = self.below.versions(&ask).await?;
        let older = found.versions.into_iter().filter(|v| v.key == key && matches!(v.kind, VersionKind::Object { .. })).nth(1);
        older.map(|v| Some(v.version)).ok_or(StorageError::NoSuchObject)
    }

    /// The size that the object is said to have.
    fn size(&self, key: &str, size: u64) -> u64 {
        self.damages(key).fold(size, |size, sabotage| match sabotage.damage {
            Damage::Truncate { to } => size.min(to),
            Damage::Flip { .. } | Damage::Drop | Damage::Older | Damage::Delay { .. } | Damage::Unavailable { .. } => size,
        })
    }

    fn shown(&self, key: &str, head: Head) -> Head {
        Head { size: self.size(key, head.size), ..head }
    }

    /// The bytes from `start` on, damaged; `size` is what the object really has.
    fn damaged(&self, key: &str, body: Body, start: u64, size: u64) -> Body {
        let flips: Vec<u64> = self
            .damages(key)
            .filter_map(|s| match s.damage {
                Damage::Flip { at } if size > 0 => Some(at % size),
                _ => None,
            })
            .collect();
        let end = self.size(key, size);
        let mut offset = start;
        let stream = body.stream.map(move |frame| {
            let frame = frame?;
            let from = offset;
            offset += frame.len() as u64;
            let kept = end.saturating_sub(from).min(frame.len() as u64) as usize;
            let mut bytes = frame.slice(..kept).to_vec();
            for at in flips.iter().filter(|at| (from..from + kept as u64).contains(at)) {
                bytes[(at - from) as usize] ^= 0x10;
            }
            Ok(Bytes::from(bytes))
        });
        Body { head: self.shown(key, body.head), stream: stream.boxed() }
    }
}

#[async_trait::async_trait]
impl ReadStore for Sabotaged {
    async fn list(&self, prefix: &str, depth: Depth, visit: &mut (dyn FnMut(Listing) + Send)) -> Result<(), StorageError> {
        let mut shown = |mut listing: Listing| {
            listing.objects.retain(|object| !self.is_dropped(&object.key));
            listing.objects.iter_mut().for_each(|object| object.size = self.size(&object.key, object.size));
            visit(listing);
        };
        self.below.list(prefix, depth, &mut shown).await
    }
    async fn page(&self, ask: &PageAsk) -> Result<Page, StorageError> {
        let mut page = self.below.page(ask).await?;
        page.objects.retain(|listed| !self.is_dropped(&listed.object.key));
        page.objects.iter_mut().for_each(|listed| listed.object.size = self.size(&listed.object.key, listed.object.size));
        Ok(page)
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
        if self.is_dropped(key) {
            return Err(StorageError::NoSuchObject);
        }
        let version = self.stand_in(key, version).await?;
        Ok(self.shown(key, self.below.head(key, version.as_deref()).await?))
    }
    async fn get(&self, wanted: &Wanted) -> Result<Body, Failure> {
        let key = wanted.key.as_str();
        if self.is_dropped(key) {
            return Err(StorageError::NoSuchObject.into());
        }
        self.away(key)?;
        for sabotage in self.damages(key) {
            if let Damage::Delay { by } = sabotage.damage {
                tokio::time::sleep(by).await;
            }
        }
        let wanted = Wanted { version: self.stand_in(key, wanted.version.as_deref()).await?, ..wanted.clone() };
        let body = self.below.get(&wanted).await?;
        let size = body.head.size;
        Ok(self.damaged(key, body, wanted.range.start, size))
    }
    async fn get_small(&self, key: &str, version: Option<&str>, limit: usize) -> Result<(Head, Bytes), StorageError> {
        if self.is_dropped(key) {
            return Err(StorageError::NoSuchObject);
        }
        self.away(key)?;
        let version = self.stand_in(key, version).await?;
        let (head, bytes) = self.below.get_small(key, version.as_deref(), limit).await?;
        let size = head.size;
        let whole = Body { head, stream: futures_util::stream::iter([Ok(bytes)]).boxed() };
        let mut damaged = self.damaged(key, whole, 0, size);
        let bytes = damaged.stream.next().await.transpose()?.unwrap_or_default();
        Ok((damaged.head, bytes))
    }
    async fn lock(&self, key: &str, head: &Head) -> Result<LockFacts, StorageError> {
        self.below.lock(key, head).await
    }
    /// A file that somebody else reads could not be damaged.
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
    use crate::vault::{Digesting, VaultView};

    const DATA: &[u8] = b"ten bytes!";

    fn view(damage: Damage) -> (tempfile::TempDir, VaultView) {
        let root = tempfile::tempdir().unwrap();
        for name in ["bad", "good"] {
            std::fs::write(root.path().join(name), DATA).unwrap();
        }
        let store = Arc::new(Local::new(Directory::open(root.path()).unwrap()));
        let view = VaultView::over(store, String::new(), Some("*".parse().unwrap()), None);
        (root, view.sabotaged(vec![Sabotage::new(damage, |key| key == "bad")]))
    }

    async fn read(view: &VaultView, key: &str) -> Vec<u8> {
        let pinned = view.pin(&view.find(key).await.unwrap().unwrap(), "object").await.unwrap();
        let reader = view.reader(&pinned, Digesting::Both);
        tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut reader.open(0..reader.size()).unwrap(), &mut bytes).unwrap();
            bytes
        })
        .await
        .unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_the_keys_that_are_meant_are_damaged() {
        for (damage, bad) in [
            (Damage::Flip { at: 13 }, &b"ten0bytes!"[..]),
            (Damage::Truncate { to: 4 }, b"ten "),
            (Damage::Truncate { to: 0 }, b""),
            (Damage::Delay { by: Duration::from_millis(1) }, DATA),
            (Damage::Unavailable { times: 2 }, DATA),
        ] {
            let (_root, view) = view(damage);
            assert_eq!(read(&view, "good").await, DATA, "{damage:?}");
            assert_eq!(read(&view, "bad").await, bad, "{damage:?}");
            let sizes: Vec<u64> = view.points().await.unwrap().points.iter().map(|p| p.size).collect();
            assert!(sizes.contains(&(bad.len() as u64)), "{damage:?} {sizes:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_dropped_is_nowhere_and_what_has_no_older_version_is_not_there() {
        let (_root, dropped) = view(Damage::Drop);
        assert_eq!(dropped.find("bad").await.unwrap(), None);
        assert_eq!(dropped.points().await.unwrap().points.len(), 1);
        let (_root, older) = view(Damage::Older);
        assert!(older.find("bad").await.is_err() || older.find("bad").await.unwrap().is_none());
        assert!(older.find("good").await.unwrap().is_some());
    }
}
