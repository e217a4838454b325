//! The vault view: the backup storage as a drill may see it.
//!
//! It lists recovery points, pins object versions, reads them, and writes down what was read. There is no way to write or
//! delete through this room: it is built over [`ReadStore`], which has no such method, and over the reading half of
//! `storage`. No backup is opened here either; bytes come out as they are stored.

mod as_of;
mod bounded;
mod chain;
mod error;
mod flow;
pub mod gateway;
mod points;
mod read_only;
mod reader;
mod reads;
mod sabotaged;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub use as_of::AsOfFacts;
pub use chain::Digests;
pub use error::VaultError;
pub use points::{BrokenPoint, PointList};
pub use read_only::ReadStore;
pub use reader::SealedObject;
pub use sabotaged::{Damage, Sabotage};

use as_of::AsOf;
use bounded::Bounded;
use chain::{ChainLog, Entry, Recorded};
use read_only::{Local, S3};
use reader::Fetch;

use crate::domain::{
    Blake3, LockFacts, ObjectRef, PointPattern, Pseudonym, RangeRead, Reader, RestoreChain, Sha256, Source, StorageLocation, TimeZone,
    Timestamp, Transport,
};
use crate::storage::{Begin, Bucket, Depth, Directory, Environment, Head, Now, PageAsk, Patience, Settings, StorageError};

/// Objects that are looked at at the same time.
const LOOKS: usize = 16;

/// The storage of one scenario as a drill may see it. Cheap to clone; clones share their chain.
#[derive(Clone)]
pub struct VaultView {
    store: Arc<dyn ReadStore>,
    log: Arc<ChainLog>,
    as_of: Option<Arc<AsOf>>,
    prefix: String,
    pattern: Option<PointPattern>,
    zone: Option<TimeZone>,
    runtime: Handle,
    by: Reader,
}

impl fmt::Debug for VaultView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultView").field("store", &self.store).finish_non_exhaustive()
    }
}

/// One object version that a drill reads from now on, whatever happens to the name.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// Key, size and time of storage of this version.
    pub object: ObjectRef,
    /// What it is for the restore.
    pub role: String,
    /// Version id; `None` where the store has no versions or does not say.
    pub version: Option<String>,
    /// Entity tag.
    pub etag: Option<String>,
    /// Its lock.
    pub lock: LockFacts,
    /// `x-amz-object-lock-*` headers that this firedrill does not know, verbatim.
    pub lock_other: Vec<(String, String)>,
    /// Storage class, where the server says one.
    pub storage_class: Option<String>,
    /// Encryption at rest that the server reports.
    pub server_encryption: Option<String>,
    entry: Arc<Entry>,
}

/// What lies below a prefix, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the newest was stored.
    pub newest: Option<Timestamp>,
    /// Entries that cannot be asked for.
    pub skipped: u64,
    /// The first objects.
    pub kept: Vec<ObjectRef>,
}

/// Whether readers compute SHA-256 beside BLAKE3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digesting {
    /// BLAKE3 only: where a manifest has the SHA-256 of the same bytes.
    Blake3,
    /// Both.
    Both,
}

impl VaultView {
    /// Connects to the storage of `source`. Asks the network nothing yet. Must be called within a multi-threaded tokio
    /// runtime: readers on blocking threads are fed by it.
    ///
    /// # Errors
    /// [`VaultError`] for settings that cannot work, missing credentials, a directory that does not exist.
    pub async fn open(source: &Source, env: &Environment, now: Now) -> Result<Self, VaultError> {
        Self::open_with(source, &Settings::from(source), env, now).await
    }

    /// As [`VaultView::open`], with other limits than the usual ones.
    ///
    /// # Errors
    /// As [`VaultView::open`].
    pub async fn open_with(source: &Source, settings: &Settings, env: &Environment, now: Now) -> Result<Self, VaultError> {
        Self::open_as_of(source, settings, env, now, None).await
    }

    /// As [`VaultView::open_with`], showing a bucket as it stood at an instant. A local directory keeps no versions and is
    /// shown as it is: [`VaultView::as_of`] says which it was.
    ///
    /// # Errors
    /// As [`VaultView::open`]. A bucket that cannot be shown so says it when it is first asked.
    pub async fn open_as_of(
        source: &Source,
        settings: &Settings,
        env: &Environment,
        now: Now,
        as_of: Option<Timestamp>,
    ) -> Result<Self, VaultError> {
        let (store, prefix): (Arc<dyn ReadStore>, _) = match &source.location {
            StorageLocation::S3 { bucket, prefix } => (Arc::new(S3::new(Bucket::connect(bucket, settings, env, now)?)), prefix.clone()),
            StorageLocation::File { path } => (Arc::new(Local::new(Directory::open(path)?)), String::new()),
        };
        let store = if source.limits.any() { Arc::new(Bounded::new(store, source.limits)) } else { store };
        let as_of = as_of.filter(|_| matches!(source.location, StorageLocation::S3 { .. }));
        let as_of = as_of.map(|at| Arc::new(AsOf::new(Arc::clone(&store), at)));
        let store = as_of.as_ref().map_or(store, |layer| Arc::clone(layer) as Arc<dyn ReadStore>);
        let pattern = source.points.as_deref().map(str::parse).transpose()?;
        Ok(Self { as_of, ..Self::over(store, prefix, pattern, source.points_time_zone.clone()) })
    }

    /// Over any store: the seam for layers and tests. Must be called within a tokio runtime.
    pub fn over(store: Arc<dyn ReadStore>, prefix: String, pattern: Option<PointPattern>, zone: Option<TimeZone>) -> Self {
        let log = Arc::new(ChainLog::default());
        let store = Arc::new(Recorded { below: store, log: Arc::clone(&log) });
        Self { store, log, as_of: None, prefix, pattern, zone, runtime: Handle::current(), by: Reader::Pipeline }
    }

    /// The same view, whose reads the chain has under another reader.
    pub fn as_reader(&self, by: Reader) -> Self {
        Self { by, ..self.clone() }
    }

    /// The same view, damaged: for showing that checks would notice.
    #[must_use]
    pub fn sabotaged(&self, sabotage: Vec<Sabotage>) -> Self {
        let below = Arc::clone(&self.store);
        Self { store: Arc::new(sabotaged::Sabotaged { below, sabotage }), ..self.clone() }
    }

    /// As of which instant the storage is shown, with what is known of its versions by now; `None` where it is shown as it is.
    pub fn as_of(&self) -> Option<AsOfFacts> {
        self.as_of.as_ref().map(|layer| layer.facts())
    }

    /// What every key that this view shows begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// All recovery points below the prefix.
    ///
    /// # Errors
    /// [`VaultError`] where the storage cannot be listed. A single bad point is no error: it is in the list as such.
    pub async fn points(&self) -> Result<PointList, VaultError> {
        match &self.pattern {
            Some(pattern) => points::bare(&*self.store, &self.prefix, pattern, self.zone.as_ref()).await,
            None => points::sealed(&self.store, &self.prefix).await,
        }
    }

    /// Looks at everything below the prefix; keeps the first `keep` objects.
    ///
    /// # Errors
    /// [`VaultError`] where the storage cannot be listed.
    pub async fn survey(&self, keep: usize) -> Result<Survey, VaultError> {
        let mut survey = Survey::default();
        self.store
            .list(&self.prefix, Depth::All, &mut |page| {
                survey.skipped += page.skipped;
                for object in page.objects {
                    survey.objects += 1;
                    survey.bytes = survey.bytes.saturating_add(object.size);
                    survey.newest = survey.newest.max(Some(object.stored_at));
                    if survey.kept.len() < keep {
                        survey.kept.push(object);
                    }
                }
            })
            .await?;
        Ok(survey)
    }

    /// Whether anything lies below the prefix.
    ///
    /// # Errors
    /// [`VaultError`] where the storage cannot be listed.
    pub async fn is_empty(&self) -> Result<bool, VaultError> {
        let ask = PageAsk { prefix: self.prefix.clone(), depth: Depth::All, from: Begin::Start, limit: 1 };
        let page = self.store.page(&ask).await?;
        Ok(page.objects.is_empty() && page.skipped == 0 && page.next.is_none())
    }

    /// Looks whether there is an object at `key`.
    ///
    /// # Errors
    /// [`VaultError`] where the storage cannot be asked.
    pub async fn find(&self, key: &str) -> Result<Option<ObjectRef>, VaultError> {
        match self.store.head(key, None).await {
            Ok(head) => Ok(Some(ObjectRef { key: key.to_owned(), size: head.size, stored_at: head.stored_at })),
            Err(StorageError::NoSuchObject) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }

    /// Pins the latest version of an object, with its lock, and enters it into the chain. `role` says what it is for:
    /// `manifest`, `index`, `part`, `object`.
    ///
    /// # Errors
    /// [`VaultError::Missing`] where there is none; others.
    pub async fn pin(&self, object: &ObjectRef, role: &str) -> Result<Pinned, VaultError> {
        let (head, lock) = self.look(object, role).await?;
        Ok(self.enter(object, role, head, lock))
    }

    /// As [`VaultView::pin`] for many objects with their roles, several at a time. The chain has them in the order given.
    ///
    /// # Errors
    /// The first one in the order given, with the number of its object.
    pub async fn pin_all(&self, objects: &[(&ObjectRef, &str)]) -> Result<Vec<Pinned>, (usize, VaultError)> {
        let mut looks = stream::iter(objects.iter()).map(|(object, role)| self.look(object, role)).buffered(LOOKS);
        let mut pinned = Vec::with_capacity(objects.len());
        for (number, (object, role)) in objects.iter().enumerate() {
            let looked = looks.next().await.expect("there is one look for each object");
            let (head, lock) = looked.map_err(|error| (number, error))?;
            pinned.push(self.enter(object, role, head, lock));
        }
        Ok(pinned)
    }

    async fn look(&self, object: &ObjectRef, role: &str) -> Result<(Head, LockFacts), VaultError> {
        let head = match self.store.head(&object.key, None).await {
            Ok(head) => head,
            Err(StorageError::NoSuchObject) => return Err(VaultError::Missing { role: role.to_owned() }),
            Err(other) => return Err(other.into()),
        };
        let lock = self.store.lock(&object.key, &head).await?;
        Ok((head, lock))
    }

    fn enter(&self, object: &ObjectRef, role: &str, head: Head, lock: LockFacts) -> Pinned {
        let entry = self.log.enter(Entry::new(&object.key, role, &head, Some(lock)));
        Pinned {
            object: ObjectRef { key: object.key.clone(), size: head.size, stored_at: head.stored_at },
            role: role.to_owned(),
            version: entry.version.clone(),
            etag: entry.etag.clone(),
            lock: entry.lock(),
            lock_other: head.facts.lock_other,
            storage_class: entry.storage_class.clone(),
            server_encryption: entry.server_encryption.clone(),
            entry,
        }
    }

    /// Reads a whole pinned object into memory. Its digests, SHA-256 as well, go into the chain.
    ///
    /// # Errors
    /// [`StorageError::TooLarge`] above `limit`; whatever goes wrong while reading.
    pub async fn read(&self, pinned: &Pinned, limit: u64) -> Result<Bytes, VaultError> {
        let size = pinned.entry.size;
        if size > limit {
            return Err(StorageError::TooLarge { limit }.into());
        }
        let patience = Patience::for_reading(&self.store.tuning());
        let fetch = Fetch { store: Arc::clone(&self.store), entry: Arc::clone(&pinned.entry), patience };
        let bytes = Bytes::from(fetch.part(0..size).await?.concat());
        pinned.entry.set_digests(reader::digests_of(&bytes));
        if size > 0 {
            pinned.entry.note(RangeRead { by: self.by, start: 0, end: size, bytes: size, blake3: None });
        }
        Ok(bytes)
    }

    /// Notes what a manifest says of a pinned object. The chain quotes that SHA-256 where the object was read to its end
    /// and has that BLAKE3: so every byte is hashed once, and the evidence has both digests.
    pub fn quote(&self, pinned: &Pinned, blake3: Blake3, sha256: Sha256) {
        pinned.entry.quote(blake3, sha256);
    }

    /// Asks whether the storage answers at all, and lets these credentials list.
    ///
    /// # Errors
    /// [`VaultError`], with the most telling reason.
    pub async fn probe(&self) -> Result<(), VaultError> {
        Ok(self.store.probe(&self.prefix).await?)
    }

    /// A pinned object to read as a stream.
    pub fn reader(&self, pinned: &Pinned, digesting: Digesting) -> SealedObject {
        SealedObject {
            store: Arc::clone(&self.store),
            entry: Arc::clone(&pinned.entry),
            runtime: self.runtime.clone(),
            sha256: digesting == Digesting::Both,
            ended: CancellationToken::new(),
            by: self.by,
        }
    }

    /// Asks for the locks of all object versions in the chain whose lock nobody asked for yet: of those that a tool read
    /// through the gateway. Several at a time. What cannot be asked for stays unknown, and is counted.
    ///
    /// # Errors
    /// The last failure, with the number of versions whose lock could not be asked for. The others are settled.
    pub async fn settle_locks(&self) -> Result<(), (usize, VaultError)> {
        let open = self.log.entries().into_iter().filter(|entry| !entry.is_settled());
        let mut asked = stream::iter(open)
            .map(|entry| async move { self.store.lock(&entry.key, &entry.head()).await.map(|lock| entry.settle(lock)) })
            .buffer_unordered(LOOKS);
        let mut failed = None;
        while let Some(answer) = asked.next().await {
            if let Err(error) = answer {
                failed = Some((failed.map_or(0, |(times, _): (usize, VaultError)| times) + 1, error.into()));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// What was pinned and read so far. `name` gives each key its pseudonym.
    pub fn chain(&self, name: &dyn Fn(&str) -> Pseudonym) -> RestoreChain {
        self.log.chain(name)
    }

    /// How the storage was reached, as far as that is known by now.
    pub fn transport(&self) -> Transport {
        self.store.transport()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::Path;

    use super::*;
    use crate::domain::{Addressing, LockState, Period, Policy, Selection};

    fn source(path: &Path, points: Option<&str>) -> Source {
        Source {
            location: StorageLocation::File { path: path.to_owned() },
            endpoint: None,
            region: None,
            allow_http: false,
            ca_file: None,
            profile: None,
            addressing: Addressing::Path,
            points: points.map(str::to_owned),
            points_time_zone: None,
            look_back: Period::from_secs(86_400),
            select: Selection::Latest,
            limits: crate::domain::SourceLimits::default(),
            policy: Policy::default(),
        }
    }

    async fn view(path: &Path, points: Option<&str>) -> VaultView {
        VaultView::open(&source(path, points), &Environment::default(), Arc::new(|| Timestamp::from_unix(0))).await.unwrap()
    }

    fn name(_: &str) -> Pseudonym {
        Pseudonym("object-1".into())
    }

    async fn drain(object: SealedObject) -> std::io::Result<Vec<u8>> {
        tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            object.open(0..object.size())?.read_to_end(&mut bytes)?;
            Ok(bytes)
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn a_local_file_is_read_and_entered_into_the_chain() {
        let root = tempfile::tempdir().unwrap();
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        std::fs::write(root.path().join("2026-11-20.tar.age"), &data).unwrap();
        let view = view(root.path(), Some("{captured_at:%Y-%m-%d}.tar.age")).await;
        let points = view.points().await.unwrap().points;
        assert_eq!(points.len(), 1);
        let pinned = view.pin(&points[0].objects[0], "object").await.unwrap();
        assert!(matches!(pinned.lock.state, LockState::Unknown { .. }));
        let object = view.reader(&pinned, Digesting::Both);
        assert_eq!(object.digest(), None);
        assert_eq!(drain(object.clone()).await.unwrap(), data);
        assert_eq!(object.digest(), Some(Blake3(*blake3::hash(&data).as_bytes())));
        let chain = view.chain(&name);
        assert_eq!((chain.objects.len(), chain.bytes_read()), (1, 3_000_000));
        assert_eq!(chain.objects[0].sha256_from.as_deref(), Some("read"));
        let read = RangeRead { by: Reader::Pipeline, start: 0, end: 3_000_000, bytes: 3_000_000, blake3: None };
        assert_eq!(chain.objects[0].reads, [read]);
        let mirror = view.as_reader(Reader::Mirror);
        mirror.read(&pinned, 3_000_000).await.unwrap();
        assert_eq!(view.chain(&name).objects[0].reads[1].by, Reader::Mirror);
        view.settle_locks().await.unwrap();
        assert_eq!(view.transport().encrypted, None);
    }

    #[tokio::test]
    async fn a_manifests_sha256_is_quoted_only_beside_the_right_blake3() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("f"), "content").unwrap();
        let blake3 = Blake3(*blake3::hash(b"content").as_bytes());
        for (claimed, quoted) in [(blake3, Some(Sha256([7; 32]))), (Blake3([0; 32]), None)] {
            let view = view(root.path(), Some("*")).await;
            let pinned = view.pin(&view.find("f").await.unwrap().unwrap(), "part").await.unwrap();
            view.quote(&pinned, claimed, Sha256([7; 32]));
            assert_eq!(view.chain(&name).objects[0].sha256, None, "nothing was read yet");
            drain(view.reader(&pinned, Digesting::Blake3)).await.unwrap();
            let read = &view.chain(&name).objects[0];
            assert_eq!((read.blake3, read.sha256), (Some(blake3), quoted));
            assert_eq!(read.sha256_from.as_deref(), quoted.map(|_| "manifest"));
        }
    }

    #[tokio::test]
    async fn half_a_file_gives_no_digest() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("f"), [7; 1000]).unwrap();
        let view = view(root.path(), Some("*")).await;
        let pinned = view.pin(&view.find("f").await.unwrap().unwrap(), "object").await.unwrap();
        let object = view.reader(&pinned, Digesting::Blake3);
        let part = object.clone();
        let read = tokio::task::spawn_blocking(move || part.open(100..200).unwrap().read_to_end(&mut Vec::new()).unwrap());
        assert_eq!(read.await.unwrap(), 100);
        assert_eq!(object.digest(), None);
        assert!(object.open(0..1001).is_err());
    }

    #[tokio::test]
    async fn a_file_that_changes_or_goes_after_it_was_pinned_is_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("f");
        std::fs::write(&path, "one").unwrap();
        let view = view(root.path(), Some("*")).await;
        let found = view.find("f").await.unwrap().unwrap();
        let pinned = view.pin(&found, "part").await.unwrap();
        std::fs::write(&path, "longer than one").unwrap();
        let error = drain(view.reader(&pinned, Digesting::Blake3)).await.unwrap_err();
        let error = error.downcast::<VaultError>().unwrap();
        assert!(matches!(error, VaultError::ChangedWhileReading { .. }));
        assert!(matches!(view.read(&pinned, 100).await, Err(VaultError::ChangedWhileReading { .. })));
        std::fs::remove_file(&path).unwrap();
        let error = drain(view.reader(&pinned, Digesting::Blake3)).await.unwrap_err().downcast::<VaultError>().unwrap();
        assert!(matches!(error, VaultError::DeletedWhileReading { .. }));
        assert_eq!(error.blame(), crate::domain::Cause::Backup);
        assert!(matches!(view.pin(&found, "part").await, Err(VaultError::Missing { .. })));
    }

    #[tokio::test]
    async fn upload_time_is_used_only_where_names_say_nothing() {
        let root = tempfile::tempdir().unwrap();
        for file in ["ehr-2026-11-19.age", "ehr-2026-11-20.age", "ehr-test-2026-11-21.age"] {
            std::fs::write(root.path().join(file), "x").unwrap();
        }
        // LIES 20: the older backup was uploaded again, last
        let later = std::time::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
        std::fs::File::open(root.path().join("ehr-2026-11-19.age")).unwrap().set_modified(later).unwrap();
        let by_name = view(root.path(), Some("ehr-{captured_at:%Y-%m-%d}.age")).await.points().await.unwrap();
        let ids: Vec<_> = by_name.points.iter().map(|p| p.id.as_str()).collect();
        assert_eq!(ids, ["ehr-2026-11-19.age", "ehr-2026-11-20.age"]);
        assert_eq!(by_name.other, 1);
        let by_upload = view(root.path(), Some("ehr-*.age")).await.points().await.unwrap();
        assert_eq!(by_upload.points.last().unwrap().captured_from, crate::domain::CaptureSource::UploadTime);
    }

    #[tokio::test]
    async fn sets_without_a_usable_manifest_are_counted_and_named() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["2026-11-20T020000Z-0a1b2c3d", "2026-11-21T020000Z-0a1b2c3d", "lost+found", ".x.partial"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        std::fs::write(root.path().join("2026-11-21T020000Z-0a1b2c3d/manifest.json"), "{").unwrap();
        let list = view(root.path(), None).await.points().await.unwrap();
        assert_eq!((list.points.len(), list.half_written, list.other), (0, 2, 1));
        assert_eq!(list.broken[0].id, "2026-11-21T020000Z-0a1b2c3d");
    }
}
