//! The native restore: sealed bytes in, a tree of files out, in one streaming pass and constant memory.
//! Foreign tools that restore by themselves are in [`tool`].
//!
//! The native restore takes a [`SealedSource`] and a directory, and knows neither storage nor sandbox. Every byte is decrypted, decompressed,
//! written and hashed while it is in cache. Nothing outside the directory is ever touched, whatever an archive says:
//! all names go through [`TreeWriter`], which never follows a link. Nothing is skipped silently: entries that are not
//! restored are counted, and those that no backup has end the restore.

mod ahead;
mod archive;
mod deferred;
mod error;
mod feeder;
mod from_vault;
mod index_file;
mod pump;
mod sealed;
pub mod service;
pub mod tool;
mod tree_writer;

use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub use archive::{ArchiveOptions, restore_archive};
pub use error::{EntryName, HostileRule, Member, RestoreError};
pub use index_file::{IndexEntries, IndexFile};
pub use sealed::{SealedSet, restore_sealed};
pub use tree_writer::TreeWriter;

use crate::domain::{Blake3, ResourceLimits, RestorePath, RestoredFacts, TreeDifference, TreeSummary};

/// An object as it is stored. Whoever implements it fetches, in parallel if it likes, and hashes what it delivers.
pub trait SealedSource: Send + Sync {
    /// Bytes of the object.
    fn size(&self) -> u64;
    /// Its bytes of `range`, in order. An error out of here or out of the reader is the way's, not the backup's: it comes
    /// back intact inside [`RestoreError::Source`].
    ///
    /// # Errors
    /// The source's own.
    fn open(&self, range: Range<u64>) -> io::Result<Box<dyn Read + Send>>;
    /// BLAKE3 of the whole object; `None` until all its bytes were read to the end.
    fn digest(&self) -> Option<Blake3>;
}

/// How far a restore is. Lossy: for showing, not for deciding.
#[derive(Debug, Default)]
pub struct Progress {
    /// Stored bytes that there are, all objects together.
    pub total: AtomicU64,
    /// Stored bytes read.
    pub read: AtomicU64,
    /// Bytes of file content written.
    pub written: AtomicU64,
    /// Entries made.
    pub entries: AtomicU64,
}

/// Ends a restore from outside.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Asks the restore to end.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// Whether it was asked to.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How much a backup may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// Bytes of file content.
    pub bytes: u64,
    /// Entries.
    pub files: u64,
    /// Plaintext bytes for one stored byte; small backups may exceed it up to [`Budgets::FREE`].
    pub ratio: u64,
    /// Components of a path.
    pub depth: u32,
}

impl Budgets {
    /// Plaintext bytes that any backup may become, whatever its ratio.
    pub const FREE: u64 = 64 << 20;

    /// Plaintext bytes that `stored` bytes may become.
    pub(crate) fn plain_for(&self, stored: u64) -> u64 {
        stored.saturating_mul(self.ratio).max(Self::FREE)
    }
}

impl From<&ResourceLimits> for Budgets {
    fn from(limits: &ResourceLimits) -> Self {
        Self { bytes: limits.scratch_size.0, files: limits.max_files, ratio: limits.max_ratio, depth: limits.max_depth }
    }
}

/// Where a restore writes, and under which rules.
#[derive(Debug)]
pub struct Target {
    /// The root of the restored tree: an empty directory.
    pub root: OwnedFd,
    /// A directory outside of it for what must not be held in memory: the index, and what is set last. Only nameless
    /// files are made in it.
    pub spool: OwnedFd,
    /// User and group that entries are given to; `None` leaves them with who runs this.
    pub owner: Option<(u32, u32)>,
    /// How much the backup may become.
    pub budgets: Budgets,
    /// Ends it from outside.
    pub cancel: CancelFlag,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// Threads that unpack a sealed set; `None` for one per core, at least two and at most eight.
    pub workers: Option<usize>,
}

/// What was restored.
#[derive(Debug, Default)]
pub struct Restored {
    /// In numbers.
    pub facts: RestoredFacts,
    /// The restored content against the set's index; `None` for an archive, which has none.
    pub compared: Option<Compared>,
    /// Entries that were passed over, by what they are.
    pub skipped: std::collections::BTreeMap<String, u64>,
    /// Attributes that were not set, because they are not `user.*` or the scratch has none.
    pub xattrs_left_out: u64,
    /// The set's index, for checks that look at it again.
    pub index: Option<IndexFile>,
}

/// How the entries of a sealed set compare with its index, as they were unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// In numbers.
    pub summary: TreeSummary,
    /// How many differences there are in each aspect.
    pub aspects: std::collections::BTreeMap<crate::domain::Aspect, u64>,
    /// The first of them. Paths: never into evidence in clear.
    pub examples: Vec<TreeDifference>,
}

impl Compared {
    /// How many examples are kept.
    pub const EXAMPLES: usize = 10;

    fn note(&mut self, difference: &TreeDifference) {
        *self.aspects.entry(difference.aspect).or_default() += 1;
        if self.examples.len() < Self::EXAMPLES {
            self.examples.push(difference.clone());
        }
    }

    fn add(&mut self, summary: &TreeSummary) {
        self.summary.matched += summary.matched;
        self.summary.mismatched += summary.mismatched;
        self.summary.missing += summary.missing;
        self.summary.extra += summary.extra;
    }

    /// Whether nothing differs.
    pub fn is_clean(&self) -> bool {
        self.summary.is_clean()
    }
}

/// The name that a bare object's content gets: its own, less the endings that stand for the layers peeled off.
fn payload_name(object: &str, layers: &[crate::codec::Layer]) -> RestorePath {
    let base = object.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    let mut name = base;
    for layer in layers.iter().filter(|l| l.wraps()) {
        if let Some(shorter) = layer.suffixes().iter().find_map(|suffix| name.strip_suffix(suffix)) {
            name = shorter;
        }
    }
    match RestorePath::from_bytes(name.as_bytes()) {
        Ok(path) if !path.is_root() => path,
        _ => RestorePath::from_bytes(b"restored").expect("a plain word is a path"),
    }
}
