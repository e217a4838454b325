//! Any object that people already have: layers told by their magic, one stream, a thread per stage.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::Step;
use super::pump::Pump;
use super::tree_writer::{Links, Tree};
use super::{Member, Progress, RestoreError, Restored, SealedSource, Target, TreeWriter, payload_name};
use crate::codec::age::{self, Identities};
use crate::codec::tar::{Ending, Kind, TarEntry, TarReader};
use crate::codec::{CodecError, Compression, Layer, Limit, PREFIX, decompressor, detect, index};
use crate::domain::{Blake3, EntryKind, RestoredFacts, Timestamp};

/// Bytes that stages pass on at a time: large enough to be worth it, small enough for a core's cache.
const BUFFER: usize = 256 << 10;
/// No backup has more layers.
const MAX_LAYERS: usize = 8;

/// What to know about a bare object.
#[derive(Debug, Clone)]
pub struct ArchiveOptions {
    /// Its name: what a payload that is no archive is named after.
    pub name: String,
    /// When its data was captured: the time of a payload that brings none of its own.
    pub captured_at: Timestamp,
    /// Whether policy says that it must be encrypted.
    pub must_be_encrypted: bool,
}

/// Restores a bare object: layers off, then either a tar unpacked or one file written.
///
/// # Errors
/// [`RestoreError`]. What was written until then stays in the target; it is the sandbox's to destroy.
pub fn restore_archive(
    source: &dyn SealedSource,
    identities: &Identities,
    options: &ArchiveOptions,
    target: &Target,
) -> Result<Restored, RestoreError> {
    let member = Member::Object;
    let reading = |error| RestoreError::reading(member, error);
    let stored = source.size();
    target.progress.total.fetch_add(stored, Ordering::Relaxed);
    let raw = source.open(0..stored).map_err(|source| RestoreError::Source { member, source })?;
    let counted = Counted { inner: raw, progress: Arc::clone(&target.progress), left: stored };
    let mut reader: Box<dyn BufRead + Send> = Box::new(BufReader::with_capacity(BUFFER, counted));
    let mut layers: Vec<Layer> = Vec::new();
    let payload = loop {
        let (layer, whole) = peek(reader).map_err(reading)?;
        reader = whole;
        if layers.is_empty() && options.must_be_encrypted && !matches!(layer, Layer::Age | Layer::AgeArmor) {
            return Err(RestoreError::NotEncrypted { member });
        }
        layers.push(layer);
        if layers.len() > MAX_LAYERS {
            return Err(RestoreError::Damaged { member, layer, detail: "it has more layers than any backup needs".to_owned() });
        }
        let stage: Box<dyn Read + Send> = match layer {
            Layer::AgeArmor => {
                reader = Box::new(BufReader::with_capacity(BUFFER, age::Dearmored::new(reader)));
                continue;
            }
            Layer::Age => Box::new(age::open(reader, identities).map_err(reading)?),
            other => match Compression::of(other) {
                Some(compression) => decompressor(compression, reader).map_err(reading)?,
                None => break other,
            },
        };
        reader = Box::new(
            Pump::new(layer.word(), stage, BUFFER).map_err(|source| RestoreError::Scratch { operation: "start a thread", source })?,
        );
    };
    let plain = Bounded { inner: reader, count: 0, allowed: target.budgets.plain_for(stored), ratio: target.budgets.ratio };

    let tree = Tree::new(target)?;
    let mut restored = Restored::default();
    let mut digest = blake3::Hasher::new();
    if payload == Layer::Tar {
        let mut tar = TarReader::new(plain, Ending::Demanded);
        let entries = unpack(&mut tar, &tree, &mut digest).map_err(|step| step.of(member))?;
        restored.skipped = tar.skipped().iter().map(|(what, count)| ((*what).to_owned(), *count)).collect();
        if entries == 0 {
            return Err(RestoreError::Empty { detail: "the archive has no entries" });
        }
    } else {
        one_file(plain, &tree, &layers, options, &mut digest).map_err(|step| step.of(member))?;
    }
    tree.finish()?;
    // unread bytes would be unchecked bytes; the layers above read to their end, so there are none
    restored.facts = RestoredFacts {
        component: None,
        files: tree.files.load(Ordering::Relaxed),
        directories: tree.directories.load(Ordering::Relaxed),
        others: tree.others.load(Ordering::Relaxed),
        bytes: tree.bytes.load(Ordering::Relaxed),
        skipped: restored.skipped.values().sum(),
        layers: layers.iter().map(|l| l.word().to_owned()).collect(),
        tree_blake3: Some(Blake3(*digest.finalize().as_bytes())),
    };
    restored.xattrs_left_out = tree.xattrs_left_out.load(Ordering::Relaxed);
    Ok(restored)
}

/// Unpacks a whole archive; how many entries it had.
fn unpack<R: BufRead>(tar: &mut TarReader<R>, tree: &Tree<'_>, digest: &mut blake3::Hasher) -> Result<u64, Step> {
    let mut writer = TreeWriter::new(tree);
    let mut line = Vec::new();
    let mut entries = 0;
    while let Some(entry) = tar.next_entry()? {
        let Some(written) = writer.write(entry, Links::Now, |sink| tar.read_data(sink))? else { continue };
        entries += 1;
        line.clear();
        index::write_entry(&mut line, &written);
        digest.update(&line);
    }
    Ok(entries)
}

/// Writes a payload that is no archive as one file.
fn one_file(
    mut plain: impl BufRead,
    tree: &Tree<'_>,
    layers: &[Layer],
    options: &ArchiveOptions,
    digest: &mut blake3::Hasher,
) -> Result<(), Step> {
    if plain.fill_buf()?.is_empty() {
        return Err(RestoreError::Empty { detail: "the payload has 0 bytes" }.into());
    }
    let at = options.captured_at.0;
    let mut writer = TreeWriter::new(tree);
    let path = payload_name(&options.name, layers);
    let entry = TarEntry {
        path: path.as_bytes().to_vec(),
        kind: Kind::File { size: 0 },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: at.as_second(),
        mtime_ns: u32::try_from(at.subsec_nanosecond()).unwrap_or(0),
        xattrs: Vec::new(),
    };
    let mut written = writer.write_stream(&entry, |sink| {
        let mut offset = 0;
        loop {
            let piece = plain.fill_buf()?;
            if piece.is_empty() {
                return Ok(());
            }
            let n = piece.len();
            sink(offset, piece)?;
            plain.consume(n);
            offset += n as u64;
        }
    })?;
    // its time is ours, not the backup's: the digest speaks of content alone
    (written.mtime, written.mtime_ns) = (0, 0);
    debug_assert!(matches!(written.kind, EntryKind::File { .. }));
    let mut line = Vec::new();
    index::write_entry(&mut line, &written);
    digest.update(&line);
    Ok(())
}

/// What the reader's next bytes are, and the reader with those bytes put back.
fn peek(mut reader: Box<dyn BufRead + Send>) -> io::Result<(Layer, Box<dyn BufRead + Send>)> {
    let mut prefix = Vec::with_capacity(PREFIX);
    (&mut reader).take(PREFIX as u64).read_to_end(&mut prefix)?;
    Ok((detect(&prefix), Box::new(io::Cursor::new(prefix).chain(reader))))
}

/// Counts what is read, and notices when storage delivers less than the object has.
struct Counted<R> {
    inner: R,
    progress: Arc<Progress>,
    left: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        add(&self.progress.read, n);
        self.left = self.left.saturating_sub(n as u64);
        if n == 0 && self.left > 0 && !buf.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "storage delivered less than the object's size"));
        }
        Ok(n)
    }
}

pub(super) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

/// Stops a stream that becomes more than the stored bytes may.
struct Bounded<R> {
    inner: R,
    count: u64,
    allowed: u64,
    ratio: u64,
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.count > self.allowed {
            return Err(CodecError::Budget { limit: Limit::Ratio, allowed: self.ratio }.into());
        }
        self.inner.fill_buf()
    }
    fn consume(&mut self, n: usize) {
        self.count += n as u64;
        self.inner.consume(n);
    }
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        crate::codec::read_buffered(self, buf)
    }
}
