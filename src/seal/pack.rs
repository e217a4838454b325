//! Segments: entries read, hashed, written as tar and compressed, each by itself.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;
use rustix::io::Errno;

use super::scan::{Planned, open};
use super::{SealError, SealProgress};
use crate::codec::manifest::Totals;
use crate::codec::tar::TarWriter;
use crate::codec::{FRAME, index};
use crate::domain::{Blake3, EntryKind, FileEntry};

/// What becomes one segment.
pub(super) enum Job {
    /// Entries whose tar fits in memory.
    Small(Vec<Planned>),
    /// One large file.
    Large(Planned),
    /// A stream of known size, as an entry that lacks its digest.
    Stream { entry: FileEntry, reader: Box<dyn Read + Send> },
    /// The end of the archive.
    End,
}

/// What a packed segment sends, in this order.
pub(super) enum Packed {
    /// Compressed bytes.
    Piece(Vec<u8>),
    /// All is there.
    Done(Box<Done>),
}

/// What is known of a segment when it is packed.
#[derive(Default)]
pub(super) struct Done {
    /// Its entries' lines.
    pub(super) lines: Vec<u8>,
    /// In numbers.
    pub(super) totals: Totals,
    /// Bytes of tar.
    pub(super) plain: u64,
    /// Files that changed meanwhile.
    pub(super) changed: Vec<PathBuf>,
    /// Files that vanished meanwhile.
    pub(super) vanished: Vec<Planned>,
}

impl Done {
    fn tell(&mut self, entry: &FileEntry) {
        index::write_entry(&mut self.lines, entry);
        self.totals.entries += 1;
        match &entry.kind {
            EntryKind::File { size, .. } => {
                self.totals.files += 1;
                self.totals.bytes += size;
            }
            EntryKind::Dir => self.totals.directories += 1,
            EntryKind::Symlink { .. } | EntryKind::Hardlink { .. } | EntryKind::Fifo | EntryKind::Device { .. } => {}
        }
    }
}

/// Packs segments; keeps its buffers and its compressor from one to the next.
pub(super) struct Packer<'a> {
    compressor: zstd::bulk::Compressor<'static>,
    tar: Vec<u8>,
    progress: &'a SealProgress,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl<'a> Packer<'a> {
    pub(super) fn new(level: i32, progress: &'a SealProgress, cancelled: &'a (dyn Fn() -> bool + Sync)) -> Result<Self, SealError> {
        let mut compressor = zstd::bulk::Compressor::new(level).map_err(SealError::Compress)?;
        // without it a flipped bit in the plaintext may decode to something else
        compressor.include_checksum(true).map_err(SealError::Compress)?;
        Ok(Self { compressor, tar: Vec::new(), progress, cancelled })
    }

    /// Packs one segment into `out`. A receiver that is gone has no use for it: that is no error.
    pub(super) fn pack(&mut self, job: Job, out: &Sender<Result<Packed, SealError>>) {
        let result = match job {
            Job::Small(entries) => self.small(entries, out),
            Job::Large(planned) => self.large(planned, out),
            Job::Stream { entry, reader } => self.streamed(entry, reader, Done::default(), out),
            Job::End => {
                self.tar.clear();
                TarWriter::end(&mut self.tar);
                self.compressed(Done::default(), out)
            }
        };
        let last = result.map(|done| Packed::Done(Box::new(done)));
        let _ = out.send(last);
    }

    fn small(&mut self, entries: Vec<Planned>, out: &Sender<Result<Packed, SealError>>) -> Result<Done, SealError> {
        let mut done = Done::default();
        self.tar.clear();
        for planned in entries {
            if (self.cancelled)() {
                return Err(SealError::Cancelled);
            }
            let mut entry = planned.entry.clone();
            match &entry.kind {
                EntryKind::File { .. } => {
                    let Some((file, before)) = open_regular(&planned)? else {
                        done.vanished.push(planned);
                        continue;
                    };
                    let mut content = Vec::with_capacity(before.len() as usize);
                    // as many bytes as it has now; more are a change that the second look will notice
                    (&file)
                        .take(before.len())
                        .read_to_end(&mut content)
                        .map_err(|source| SealError::Read { path: planned.shown(), source })?;
                    note_change(&planned, &file, &before, content.len() as u64, &mut done)?;
                    refresh(&mut entry, &before);
                    entry.kind = EntryKind::File { size: content.len() as u64, blake3: Some(Blake3(*blake3::hash(&content).as_bytes())) };
                    TarWriter::header(&mut self.tar, &entry);
                    self.tar.extend_from_slice(&content);
                    TarWriter::padding(&mut self.tar, content.len() as u64);
                    self.count(content.len() as u64, 1);
                }
                EntryKind::Device { .. } => return Err(SealError::Device { path: planned.shown() }),
                EntryKind::Dir | EntryKind::Symlink { .. } | EntryKind::Hardlink { .. } | EntryKind::Fifo => {
                    TarWriter::header(&mut self.tar, &entry);
                }
            }
            done.tell(&entry);
        }
        self.compressed(done, out)
    }

    /// Compresses what is in the buffer.
    fn compressed(&mut self, mut done: Done, out: &Sender<Result<Packed, SealError>>) -> Result<Done, SealError> {
        done.plain = self.tar.len() as u64;
        self.tar.chunks(FRAME).try_for_each(|plain| frame(&mut self.compressor, plain, out))?;
        Ok(done)
    }

    fn large(&mut self, planned: Planned, out: &Sender<Result<Packed, SealError>>) -> Result<Done, SealError> {
        let mut done = Done::default();
        let Some((file, before)) = open_regular(&planned)? else {
            done.vanished.push(planned);
            return Ok(done);
        };
        let mut entry = planned.entry.clone();
        refresh(&mut entry, &before);
        entry.kind = EntryKind::File { size: before.len(), blake3: None };
        let reader = file.try_clone().map_err(|source| SealError::Read { path: planned.shown(), source })?;
        let mut done = self.streamed(entry, Box::new(reader), done, out).map_err(|error| match error {
            SealError::Shrunk { .. } => SealError::Shrunk { path: planned.shown() },
            SealError::Read { source, .. } => SealError::Read { path: planned.shown(), source },
            other => other,
        })?;
        note_change(&planned, &file, &before, before.len(), &mut done)?;
        Ok(done)
    }

    /// One file, in constant memory.
    fn streamed(
        &mut self,
        mut entry: FileEntry,
        mut reader: Box<dyn Read + Send>,
        mut done: Done,
        out: &Sender<Result<Packed, SealError>>,
    ) -> Result<Done, SealError> {
        let EntryKind::File { size, .. } = entry.kind else { unreachable!("only files are streamed") };
        let path = || PathBuf::from(entry.path.to_string());
        self.tar.clear();
        TarWriter::header(&mut self.tar, &entry);
        done.plain = self.tar.len() as u64 + size.next_multiple_of(512);
        let mut hasher = blake3::Hasher::new();
        let mut left = size;
        while left > 0 {
            if (self.cancelled)() {
                return Err(SealError::Cancelled);
            }
            let held = self.tar.len();
            let wanted = left.min(FRAME.saturating_sub(held) as u64);
            let n = (&mut *reader).take(wanted).read_to_end(&mut self.tar).map_err(|source| SealError::Read { path: path(), source })?;
            if n == 0 && wanted > 0 {
                return Err(SealError::Shrunk { path: path() });
            }
            hasher.update(&self.tar[held..]);
            left -= n as u64;
            self.count(n as u64, 0);
            if self.tar.len() >= FRAME {
                self.tar.chunks(FRAME).try_for_each(|plain| frame(&mut self.compressor, plain, out))?;
                self.tar.clear();
            }
        }
        TarWriter::padding(&mut self.tar, size);
        self.tar.chunks(FRAME).try_for_each(|plain| frame(&mut self.compressor, plain, out))?;
        entry.kind = EntryKind::File { size, blake3: Some(Blake3(*hasher.finalize().as_bytes())) };
        self.count(0, 1);
        done.tell(&entry);
        Ok(done)
    }

    fn count(&self, bytes: u64, files: u64) {
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.progress.files.fetch_add(files, Ordering::Relaxed);
    }
}

/// Opens a file and looks at it; `None` where it is no longer there, or no longer a file.
fn open_regular(planned: &Planned) -> Result<Option<(File, std::fs::Metadata)>, SealError> {
    let read = |source: io::Error| SealError::Read { path: planned.shown(), source };
    let file = match open(planned) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(e) => return Err(read(e.into())),
    };
    let metadata = file.metadata().map_err(read)?;
    Ok(metadata.is_file().then_some((file, metadata)))
}

/// What the file says of itself now that it is open; the listing may be older.
fn refresh(entry: &mut FileEntry, metadata: &std::fs::Metadata) {
    entry.mode = metadata.mode() & 0o7777;
    (entry.uid, entry.gid) = (metadata.uid(), metadata.gid());
    entry.mtime = metadata.mtime();
    entry.mtime_ns = u32::try_from(metadata.mtime_nsec()).unwrap_or(0);
}

fn note_change(planned: &Planned, file: &File, before: &std::fs::Metadata, read: u64, done: &mut Done) -> Result<(), SealError> {
    let after = file.metadata().map_err(|source| SealError::Read { path: planned.shown(), source })?;
    let look = |m: &std::fs::Metadata| (m.len(), m.mtime(), m.mtime_nsec());
    if look(before) != look(&after) || read != before.len() {
        done.changed.push(planned.shown());
    }
    Ok(())
}

/// Compresses one frame, which states its size, and sends it.
fn frame(compressor: &mut zstd::bulk::Compressor<'_>, plain: &[u8], out: &Sender<Result<Packed, SealError>>) -> Result<(), SealError> {
    let packed = compressor.compress(plain).map_err(SealError::Compress)?;
    // nobody to take it: the seal was stopped, and for a reason that others tell
    out.send(Ok(Packed::Piece(packed))).map_err(|_| SealError::Cancelled)
}
