//! Writes sealed sets: the only room that writes backups, and it never touches one that is there.
//!
//! Sources are read in the order of their paths, packed into segments (whole tar entries in zstd frames of their own),
//! compressed on as many threads as there are cores, and encrypted into parts as they come; memory is bounded. The set
//! appears under its id when all of it is written, or not at all.
//!
//! One directory is sealed by its contents; several sources, or files, go each under its own name.

mod error;
mod local;
mod pack;
mod s3;
mod scan;
mod write;

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

pub use error::SealError;
pub use local::LocalSetWriter;
pub use s3::{S3SetWriter, S3Target, SetLock};

use crate::codec::age::Recipients;
use crate::codec::manifest::Manifest;
use crate::domain::{Blake3, Sha256, Timestamp};
use crate::tree::PassedOver;

/// What is sealed.
pub enum SealSource {
    /// Directories and files.
    Paths(Vec<PathBuf>),
    /// A stream, as of a dump on standard input: one file of this name.
    Stream {
        /// Its bytes.
        reader: Box<dyn Read + Send>,
        /// The file's name.
        name: String,
    },
}

/// How it is sealed.
pub struct SealOptions<'a> {
    /// The set's id: the name it appears under. [`set_id`] makes one.
    pub id: String,
    /// When the data was captured.
    pub captured_at: Timestamp,
    /// Tells when the set is complete.
    pub now: &'a dyn Fn() -> Timestamp,
    /// Whom it is encrypted to.
    pub recipients: &'a Recipients,
    /// Name of this host or job in the manifest.
    pub producer: String,
    /// The producer's key; without one the set is not signed.
    pub key: Option<&'a ssh_key::PrivateKey>,
    /// zstd's level.
    pub level: i32,
    /// About how large a part becomes, in stored bytes.
    pub part_size: u64,
    /// Plaintext in a segment.
    pub segment_size: u64,
    /// Threads that read and compress; `None` for one per core, at least two and at most eight.
    pub workers: Option<usize>,
    /// Where to put what must wait: the index and a stream's content, both encrypted, in files without a name.
    pub spool: PathBuf,
    /// How far it is.
    pub progress: &'a SealProgress,
    /// Ends it from outside.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
}

/// About a gibibyte.
pub const PART_SIZE: u64 = 1 << 30;
/// Four mebibytes.
pub const SEGMENT_SIZE: u64 = 4 << 20;
/// zstd's own default.
pub const LEVEL: i32 = 3;

/// How far a seal is.
#[derive(Debug, Default)]
pub struct SealProgress {
    /// Files read.
    pub files: AtomicU64,
    /// Bytes of them.
    pub bytes: AtomicU64,
    /// Bytes written to the store.
    pub stored: AtomicU64,
}

/// An id that sorts by time: `2026-11-21T203000Z-1f2e3d4c`.
pub fn set_id(at: Timestamp, salt: [u8; 4]) -> String {
    format!("{}-{}", at.0.strftime("%Y-%m-%dT%H%M%SZ"), data_encoding::HEXLOWER.encode(&salt))
}

/// What was sealed, and what to know about it.
#[derive(Debug)]
pub struct Sealed {
    /// The set's manifest.
    pub manifest: Manifest,
    /// Files that changed while they were read: what is sealed of them is what was read.
    pub changed: Vec<PathBuf>,
    /// How many changed; the list above ends at a hundred.
    pub changed_count: u64,
    /// What was passed over.
    pub passed_over: PassedOver,
}

/// What was written of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Bytes.
    pub size: u64,
    /// Their BLAKE3.
    pub blake3: Blake3,
    /// Their SHA-256.
    pub sha256: Sha256,
}

/// Where a set is written to. Objects come one after the other, each `create`d, written in order and `finish`ed; `commit`
/// comes last. What was written before is nobody's to see: half a set never stands under its id.
pub trait SetWriter {
    /// Begins an object of this name in the set.
    ///
    /// # Errors
    /// The store's.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Appends to it. Blocks.
    ///
    /// # Errors
    /// The store's.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Ends it; what the caller counted and hashed may be compared with what the store took.
    ///
    /// # Errors
    /// The store's.
    fn finish(&mut self, written: &Written) -> io::Result<()>;
    /// Writes the signature and then the manifest, with which the set is complete, and makes it visible.
    ///
    /// # Errors
    /// The store's; nothing is visible then.
    fn commit(&mut self, manifest: &[u8], signature: Option<&[u8]>) -> io::Result<()>;
    /// Takes back what was written, as far as the store lets it.
    fn abort(&mut self);
}

/// Seals `source` into `writer`.
///
/// # Errors
/// [`SealError`]; the writer was told to abort.
pub fn seal(source: SealSource, options: &SealOptions<'_>, writer: &mut dyn SetWriter) -> Result<Sealed, SealError> {
    match write::seal_into(source, options, writer) {
        Ok(sealed) => Ok(sealed),
        Err(error) => {
            writer.abort();
            Err(error)
        }
    }
}
