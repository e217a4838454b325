//! A bucket that keeps what it is given: written once, read back, locked, and seen to be locked.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ArchiveError;
use crate::domain::{LockState, LockedBucket, Sha256, Timestamp};
use crate::evidence::sha256;
use crate::storage::{BucketWriter, Depth, Environment, Now, Retention, Settings, StorageError, VersionKind, VersionsAsk, lock_state};

/// Nothing that is kept is nearly as large.
const LARGEST: usize = 256 << 20;

/// A bucket that keeps what it is given.
#[derive(Debug, Clone)]
pub struct Safe {
    bucket: BucketWriter,
    place: LockedBucket,
}

/// An object that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name below the prefix.
    pub name: String,
    /// The version that was read back.
    pub version: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: Sha256,
}

impl Safe {
    /// Connects, and asks whether the bucket locks at all.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn open(place: &LockedBucket, environment: &Environment, now: Now) -> Result<Self, StorageError> {
        let bucket = BucketWriter::connect(&place.bucket, &Settings::from(place), environment, now)?;
        bucket.can_lock().await?;
        Ok(Self { bucket, place: place.clone() })
    }

    /// Writes `bytes` under `name` where nothing is yet, reads them back, and locks them until `until` at least. What is there
    /// already with the same bytes is read back and locked like what was just written.
    ///
    /// # Errors
    /// [`ArchiveError::Storage`], [`ArchiveError::Differs`].
    pub async fn keep(&self, name: &str, bytes: Bytes, until: Timestamp) -> Result<Kept, ArchiveError> {
        let key = self.key(name);
        let head = match self.bucket.store_new(&key, bytes.clone()).await {
            Err(StorageError::AlreadyExists) => self.bucket.bucket().head(&key, None).await?,
            other => other?,
        };
        let version = head.facts.version;
        let found = match self.bucket.bucket().get_small(&key, version.as_deref(), LARGEST).await {
            Err(StorageError::TooLarge { .. }) => Bytes::new(),
            other => other?.1,
        };
        if found != bytes {
            return Err(ArchiveError::Differs { name: name.to_owned() });
        }
        self.bucket.lock(&key, version.as_deref(), self.place.mode, until).await?;
        Ok(Kept { name: name.to_owned(), version, size: bytes.len() as u64, sha256: sha256(&bytes) })
    }

    /// A whole object; the latest version where none is named.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn read(&self, name: &str, version: Option<&str>) -> Result<(Option<String>, Bytes), StorageError> {
        let (head, bytes) = self.bucket.bucket().get_small(&self.key(name), version, LARGEST).await?;
        Ok((head.facts.version, bytes))
    }

    /// Whether a version is locked now, and how.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn lock_of(&self, name: &str, version: Option<&str>) -> Result<LockState, StorageError> {
        Ok(match self.bucket.bucket().retention(&self.key(name), version).await? {
            Retention::Set { mode, until } => lock_state(Some(&mode), Some(&until)).expect("both are said"),
            Retention::None => LockState::NotLocked,
            Retention::NotVisible => LockState::Unknown { reason: "these credentials may not ask".to_owned() },
        })
    }

    /// Names of everything below `folder`, in their order.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, StorageError> {
        let mut names = Vec::new();
        let prefix = &self.place.prefix;
        let mut take = |page: crate::storage::Listing| {
            names.extend(page.objects.into_iter().filter_map(|object| Some(object.key.strip_prefix(prefix)?.to_owned())));
        };
        self.bucket.bucket().list(&self.key(folder), Depth::All, &mut take).await?;
        Ok(names)
    }

    /// Names and versions of everything that was ever written below `folder` and not deleted for good.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn versions(&self, folder: &str) -> Result<Vec<(String, String)>, StorageError> {
        let mut ask = VersionsAsk { prefix: self.key(folder), after: None, limit: 1_000 };
        let mut found = Vec::new();
        loop {
            let page = self.bucket.bucket().versions_page(&ask).await?;
            let objects = page.versions.into_iter().filter(|version| matches!(version.kind, VersionKind::Object { .. }));
            found.extend(objects.filter_map(|object| Some((object.key.strip_prefix(&self.place.prefix)?.to_owned(), object.version))));
            match page.next {
                Some(next) => ask.after = Some(next),
                None => return Ok(found),
            }
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.place.prefix)
    }
}
