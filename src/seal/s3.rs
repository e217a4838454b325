//! A sealed set straight to a bucket.
//!
//! Nothing appears under a final name before [`S3SetWriter::commit`]: large objects are multipart uploads that are put
//! together then, small ones wait in memory. The manifest comes last, after every other object is there and, where a lock
//! was asked for, is seen to be locked. Whatever goes wrong before that leaves no object, and at worst, when the network
//! dies in the middle of a commit, objects without a manifest, which are no backup.

use std::collections::VecDeque;
use std::mem;

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::domain::{Blake3, LockMode, Sha256, Timestamp};
use crate::storage::{BucketLock, BucketWriter, Environment, Head, Now, PartTag, Settings, StorageError, Upload};

/// Uploads of parts that are under way at the same time.
const IN_FLIGHT: usize = 3;
/// S3 takes no more parts than this.
const MOST_PARTS: usize = 10_000;

/// A lock for every object of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetLock {
    /// Mode.
    pub mode: LockMode,
    /// Until when.
    pub until: Timestamp,
}

/// One object that was written, before it has its final name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenObject {
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the bytes.
    pub blake3: Blake3,
    /// SHA-256 of the same.
    pub sha256: Sha256,
}

/// Writes one sealed set into a bucket. For blocking threads.
pub struct S3SetWriter {
    storage: BucketWriter,
    runtime: Handle,
    /// Prefix and id, with a slash at the end.
    folder: String,
    lock: Option<SetLock>,
    current: Option<Current>,
    waiting: Vec<Waiting>,
    committed: bool,
}

impl std::fmt::Debug for S3SetWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3SetWriter").field("storage", &self.storage).field("lock", &self.lock).finish_non_exhaustive()
    }
}

/// The object that is being written.
struct Current {
    key: String,
    buffer: BytesMut,
    upload: Option<Upload>,
    sent: usize,
    in_flight: VecDeque<AbortOnDropHandle<Result<PartTag, StorageError>>>,
    tags: Vec<PartTag>,
    size: u64,
    blake3: blake3::Hasher,
    sha256: digest::Context,
}

/// An object whose bytes are all there, and whose name is not.
enum Waiting {
    Small { key: String, body: Bytes },
    Large { upload: Upload, key: String, tags: Vec<PartTag>, size: u64 },
}

/// Parts grow with the object, so that 10,000 of them hold more than half a terabyte and small objects need little memory.
fn part_size(number: usize) -> usize {
    match number {
        0..2_000 => 16 << 20,
        2_000..6_000 => 64 << 20,
        _ => 128 << 20,
    }
}

impl S3SetWriter {
    /// Prepares to write the set `id` below `prefix` (empty, or ending in a slash). Checks that the id is free, and that
    /// the bucket can lock at all where a lock is asked for.
    ///
    /// # Errors
    /// [`StorageError::AlreadyExists`], [`StorageError::LockNotKept`]; whatever connecting says.
    #[expect(clippy::too_many_arguments, reason = "each is a different thing, and there is one caller")]
    pub fn new(
        bucket: &str,
        prefix: &str,
        id: &str,
        settings: &Settings,
        env: &Environment,
        now: Now,
        lock: Option<SetLock>,
        runtime: Handle,
    ) -> Result<Self, StorageError> {
        let storage = BucketWriter::connect(bucket, settings, env, now)?;
        let folder = format!("{prefix}{id}/");
        runtime.block_on(async {
            if storage.exists_below(&folder).await? {
                return Err(StorageError::AlreadyExists);
            }
            if lock.is_some() {
                match storage.bucket().lock_configuration().await? {
                    BucketLock::Enabled { .. } | BucketLock::NotVisible => {}
                    BucketLock::Disabled => return Err(StorageError::LockNotKept { why: "the bucket has no object lock".into() }),
                    BucketLock::NotSupported => {
                        return Err(StorageError::LockNotKept { why: "it does not know object lock".into() });
                    }
                }
            }
            Ok(())
        })?;
        Ok(Self { storage, runtime, folder, lock, current: None, waiting: Vec::new(), committed: false })
    }

    /// Begins the object `name` of the set.
    pub fn begin(&mut self, name: &str) {
        self.current = Some(Current {
            key: format!("{}{name}", self.folder),
            buffer: BytesMut::new(),
            upload: None,
            sent: 0,
            in_flight: VecDeque::new(),
            tags: Vec::new(),
            size: 0,
            blake3: blake3::Hasher::new(),
            sha256: digest::Context::new(&digest::SHA256),
        });
    }

    /// Adds bytes to the object. Waits while enough parts are under way.
    ///
    /// # Errors
    /// [`StorageError`] of this or an earlier part.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        let Self { current, storage, runtime, .. } = self;
        let current = current.as_mut().expect("write comes after begin");
        current.size += bytes.len() as u64;
        current.blake3.update(bytes);
        current.sha256.update(bytes);
        while !bytes.is_empty() {
            let part = part_size(current.sent);
            if current.buffer.len() == part {
                // more is to come, so this part is not the last one
                runtime.block_on(current.send(storage))?;
                continue;
            }
            let n = bytes.len().min(part - current.buffer.len());
            current.buffer.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
        }
        Ok(())
    }

    /// Ends the object: all its bytes are with the server or, where they are few, in memory.
    ///
    /// # Errors
    /// [`StorageError`] of one of its parts.
    pub fn finish(&mut self) -> Result<WrittenObject, StorageError> {
        let mut current = self.current.take().expect("finish comes after begin");
        let (size, blake3) = (current.size, Blake3(*current.blake3.finalize().as_bytes()));
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(mem::replace(&mut current.sha256, digest::Context::new(&digest::SHA256)).finish().as_ref());
        if current.upload.is_none() {
            self.waiting.push(Waiting::Small { key: current.key, body: current.buffer.freeze() });
        } else {
            let ended = self.runtime.block_on(async {
                current.send(&self.storage).await?;
                current.settle(0).await
            });
            if let Err(error) = ended {
                // given back, so that `abort` finds the upload
                self.current = Some(current);
                return Err(error);
            }
            let upload = current.upload.expect("it was looked at above");
            self.waiting.push(Waiting::Large { upload, key: current.key, tags: current.tags, size });
        }
        Ok(WrittenObject { size, blake3, sha256: Sha256(sha256) })
    }

    /// Gives every object its name and lock, then writes the signature, where there is one, and last the manifest.
    ///
    /// # Errors
    /// [`StorageError`]; without a manifest the set does not count as a backup.
    pub fn commit(&mut self, manifest: (&str, Vec<u8>), signature: Option<(&str, Vec<u8>)>) -> Result<(), StorageError> {
        let runtime = self.runtime.clone();
        runtime.block_on(async {
            while let Some(waiting) = self.waiting.first() {
                let (key, head) = match waiting {
                    Waiting::Small { key, body } => (key, self.storage.put_new(key, body.clone()).await?),
                    Waiting::Large { upload, key, tags, size } => (key, self.storage.complete(upload, tags, *size).await?),
                };
                self.lock(key, &head).await?;
                self.waiting.remove(0);
            }
            for (name, bytes) in signature.into_iter().chain([manifest]) {
                let key = format!("{}{name}", self.folder);
                let head = self.storage.put_new(&key, bytes.into()).await?;
                self.lock(&key, &head).await?;
            }
            Ok(())
        })?;
        self.committed = true;
        Ok(())
    }

    async fn lock(&self, key: &str, head: &Head) -> Result<(), StorageError> {
        match self.lock {
            Some(lock) => self.storage.lock(key, head.facts.version.as_deref(), lock.mode, lock.until).await,
            None => Ok(()),
        }
    }

    /// Gives everything up that was not committed: open uploads vanish from the server.
    ///
    /// # Errors
    /// The first [`StorageError`]; the other uploads are given up all the same.
    pub fn abort(&mut self) -> Result<(), StorageError> {
        let mut uploads: Vec<Upload> = Vec::new();
        if let Some(current) = self.current.take() {
            uploads.extend(current.upload.clone());
            // parts that are still under way would come back after the abort
            drop(current);
        }
        uploads.extend(self.waiting.drain(..).filter_map(|waiting| match waiting {
            Waiting::Large { upload, .. } => Some(upload),
            Waiting::Small { .. } => None,
        }));
        self.runtime.block_on(async {
            let mut outcome = Ok(());
            for upload in &uploads {
                outcome = outcome.and(self.storage.abort(upload).await);
            }
            outcome
        })
    }
}

impl Current {
    /// Sends what is in the buffer as the next part.
    async fn send(&mut self, storage: &BucketWriter) -> Result<(), StorageError> {
        if self.upload.is_none() {
            self.upload = Some(storage.begin(&self.key).await?);
        }
        let upload = self.upload.clone().expect("it was begun above");
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.sent += 1;
        if self.sent > MOST_PARTS {
            return Err(StorageError::TooLarge { limit: self.size });
        }
        let (number, body, storage) = (self.sent, mem::take(&mut self.buffer).freeze(), storage.clone());
        self.in_flight.push_back(AbortOnDropHandle::new(tokio::spawn(async move { storage.put_part(&upload, number, body).await })));
        self.settle(IN_FLIGHT - 1).await
    }

    /// Waits until at most `most` parts are under way.
    async fn settle(&mut self, most: usize) -> Result<(), StorageError> {
        while self.in_flight.len() > most {
            let Some(oldest) = self.in_flight.pop_front() else { break };
            let tag = oldest.await.unwrap_or_else(|_| {
                Err(StorageError::Unreachable { endpoint: "the storage".into(), why: "the runtime is going down", source: None })
            })?;
            self.tags.push(tag);
        }
        Ok(())
    }
}

/// The safety net: who forgets to commit or abort leaves no upload behind, as far as a destructor can see to that.
impl Drop for S3SetWriter {
    fn drop(&mut self) {
        let open = self.current.as_ref().is_some_and(|c| c.upload.is_some())
            || self.waiting.iter().any(|waiting| matches!(waiting, Waiting::Large { .. }));
        // within async code nothing can be waited for
        if !self.committed && open && Handle::try_current().is_err() {
            let _ = self.abort();
        }
    }
}
