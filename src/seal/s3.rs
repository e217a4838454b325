//! A sealed set straight to a bucket.
//!
//! Nothing appears under a final name before [`SetWriter::commit`]: large objects are multipart uploads that are put
//! together then, small ones wait in memory. The manifest comes last, after every other object is there and, where a lock
//! was asked for, is seen to be locked. Whatever goes wrong before that leaves no object, and at worst, when the network
//! dies in the middle of a commit, objects without a manifest, which are no backup.

use std::collections::VecDeque;
use std::{io, mem};

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::{SetWriter, Written};
use crate::codec::manifest::{MANIFEST, SIGNATURE};
use crate::domain::{LockMode, Timestamp};
use crate::storage::{BucketWriter, Environment, Head, Now, PartTag, Settings, StorageError, Upload};

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

/// Where a set goes.
#[derive(Debug, Clone)]
pub struct S3Target<'a> {
    /// The bucket's name.
    pub bucket: &'a str,
    /// Prefix in the bucket: empty, or ending in a slash.
    pub prefix: &'a str,
    /// How the bucket is reached.
    pub settings: &'a Settings,
    /// Where credentials are looked for.
    pub env: &'a Environment,
    /// The lock that every object must have.
    pub lock: Option<SetLock>,
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
    /// Prepares to write the set `id`. Checks that the id is free, and that the bucket can lock at all where a lock is
    /// asked for. Like all of this type for blocking threads only; the waiting is done by `runtime`.
    ///
    /// # Errors
    /// [`StorageError::AlreadyExists`], [`StorageError::LockNotKept`]; whatever connecting says.
    pub fn new(target: &S3Target<'_>, id: &str, now: Now, runtime: Handle) -> Result<Self, StorageError> {
        let S3Target { bucket, prefix, settings, env, lock } = *target;
        let storage = BucketWriter::connect(bucket, settings, env, now)?;
        let folder = format!("{prefix}{id}/");
        runtime.block_on(async {
            if storage.exists_below(&folder).await? {
                return Err(StorageError::AlreadyExists);
            }
            if lock.is_some() {
                storage.can_lock().await?;
            }
            Ok(())
        })?;
        Ok(Self { storage, runtime, folder, lock, current: None, waiting: Vec::new(), committed: false })
    }

    fn send_all_but_the_last(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        let Self { current, storage, runtime, .. } = self;
        let current = current.as_mut().expect("write comes after create");
        current.size += bytes.len() as u64;
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

    fn send_the_rest(&mut self) -> Result<u64, StorageError> {
        let mut current = self.current.take().expect("finish comes after create");
        let size = current.size;
        if current.upload.is_none() {
            self.waiting.push(Waiting::Small { key: current.key, body: current.buffer.freeze() });
            return Ok(size);
        }
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
        Ok(size)
    }

    /// Gives every object its name and lock, then writes the signature, where there is one, and last the manifest.
    async fn name_and_lock(&mut self, manifest: &[u8], signature: Option<&[u8]>) -> Result<(), StorageError> {
        while let Some(waiting) = self.waiting.first() {
            let (key, head) = match waiting {
                Waiting::Small { key, body } => (key, self.storage.put_new(key, body.clone()).await?),
                Waiting::Large { upload, key, tags, size } => (key, self.storage.complete(upload, tags, *size).await?),
            };
            self.lock(key, &head).await?;
            self.waiting.remove(0);
        }
        for (name, bytes) in signature.map(|bytes| (SIGNATURE, bytes)).into_iter().chain([(MANIFEST, manifest)]) {
            let key = format!("{}{name}", self.folder);
            let head = self.storage.put_new(&key, Bytes::copy_from_slice(bytes)).await?;
            self.lock(&key, &head).await?;
        }
        Ok(())
    }

    async fn lock(&self, key: &str, head: &Head) -> Result<(), StorageError> {
        match self.lock {
            Some(lock) => self.storage.lock(key, head.facts.version.as_deref(), lock.mode, lock.until).await,
            None => Ok(()),
        }
    }

    fn give_up(&mut self) {
        let mut uploads: Vec<Upload> = Vec::new();
        // parts that are still under way would come back after the abort: dropping their object ends them
        uploads.extend(self.current.take().and_then(|current| current.upload.clone()));
        uploads.extend(self.waiting.drain(..).filter_map(|waiting| match waiting {
            Waiting::Large { upload, .. } => Some(upload),
            Waiting::Small { .. } => None,
        }));
        self.runtime.block_on(async {
            for upload in &uploads {
                // the error that led here is the one to tell; a lifecycle rule sweeps up what remains
                let _ = self.storage.abort(upload).await;
            }
        });
    }
}

impl SetWriter for S3SetWriter {
    fn create(&mut self, name: &str) -> io::Result<()> {
        self.current = Some(Current {
            key: format!("{}{name}", self.folder),
            buffer: BytesMut::new(),
            upload: None,
            sent: 0,
            in_flight: VecDeque::new(),
            tags: Vec::new(),
            size: 0,
        });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.send_all_but_the_last(bytes).map_err(io::Error::other)
    }

    fn finish(&mut self, written: &Written) -> io::Result<()> {
        let size = self.send_the_rest().map_err(io::Error::other)?;
        if size == written.size { Ok(()) } else { Err(io::Error::other("another number of bytes was sent than was written")) }
    }

    fn commit(&mut self, manifest: &[u8], signature: Option<&[u8]>) -> io::Result<()> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.name_and_lock(manifest, signature)).map_err(io::Error::other)?;
        self.committed = true;
        Ok(())
    }

    fn abort(&mut self) {
        self.give_up();
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
            self.give_up();
        }
    }
}
