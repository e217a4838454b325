//! A sealed set: index first, then its parts, segment by segment, on as many threads as there are cores.
//!
//! One stream per part delivers ciphertext in order. Whole sealed chunks travel to a worker together with the index's lines
//! for that segment; the worker decrypts, decompresses, unpacks, writes and hashes while the bytes are in its cache, and
//! compares what it made with the lines. Memory is bounded by the buffers on their way, whatever the size of the set.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::fs::Mode;

use super::ahead::Ahead;
use super::archive::add;
use super::deferred::nameless;
use super::error::Step;
use super::feeder::{Feeder, FeederGone, Job, Pieces};
use super::index_file::IndexFile;
use super::tree_writer::{Links, Tree};
use super::{Compared, Member, Progress, RestoreError, Restored, SealedSource, Target, TreeWriter};
use crate::codec::age::{self, AgeReader, Identities, SegmentReader};
use crate::codec::index;
use crate::codec::manifest::{Manifest, SetObject};
use crate::codec::tar::{Ending, TarReader};
use crate::codec::{Compression, FrameDecoder, Frames, Layer, Limit, decompressor};
use crate::domain::{Blake3, FileEntry, RestoredFacts, TreeDifference, compare};

/// Index lines that are read or spooled at a time, in bytes.
const WINDOW: usize = 256 << 10;
/// Segments of more plain bytes than this hold one large file.
const LARGE: u64 = 8 << 20;

/// A sealed set to restore: its manifest, read and trusted as far as the caller cares, and its objects.
pub struct SealedSet<'a> {
    /// What it says of itself.
    pub manifest: &'a Manifest,
    /// The index object.
    pub index: &'a dyn SealedSource,
    /// The parts, in the manifest's order.
    pub parts: Vec<&'a dyn SealedSource>,
}

/// Restores a sealed set. Damage of the stored bytes is an error; a difference between what was unpacked and what the
/// index says is counted in [`Restored::compared`] and told to `tell`, and the restore goes on: the report wants them all.
///
/// # Errors
/// [`RestoreError`]. What was written until then stays in the target; it is the sandbox's to destroy.
pub fn restore_sealed(
    set: &SealedSet<'_>,
    identities: &Identities,
    target: &Target,
    tell: &(dyn Fn(&TreeDifference) + Sync),
) -> Result<Restored, RestoreError> {
    check_sizes(set)?;
    let manifest = set.manifest;
    target.progress.total.fetch_add(manifest.stored_bytes(), Ordering::Relaxed);
    let index = read_index(set, identities, target)?;
    if index.entries() == 0 {
        return Err(RestoreError::Empty { detail: "the set has no entries" });
    }
    let allowed = target.budgets.plain_for(manifest.stored_bytes());
    if manifest.totals.bytes > allowed {
        return Err(RestoreError::Budget { limit: Limit::Ratio, allowed: target.budgets.ratio });
    }

    let tree = Tree::new(target)?;
    let run = Run {
        set,
        tree: &tree,
        target,
        tell,
        compared: Mutex::new(Compared::default()),
        failed: Mutex::new(None),
        stop: AtomicBool::new(false),
    };
    run.parts(identities, &index)?;
    tree.finish()?;

    let compared = run.compared.into_inner().unwrap_or_else(PoisonError::into_inner);
    let facts = RestoredFacts {
        component: None,
        files: tree.files.load(Ordering::Relaxed),
        directories: tree.directories.load(Ordering::Relaxed),
        others: tree.others.load(Ordering::Relaxed),
        bytes: tree.bytes.load(Ordering::Relaxed),
        skipped: 0,
        layers: ["age", "zstd", "tar"].map(str::to_owned).to_vec(),
        // every entry equals its line, and the lines have this digest
        tree_blake3: compared.is_clean().then_some(manifest.root_blake3),
    };
    Ok(Restored {
        facts,
        compared: Some(compared),
        skipped: std::collections::BTreeMap::new(),
        xattrs_left_out: tree.xattrs_left_out.load(Ordering::Relaxed),
        index: Some(index),
    })
}

/// An object of another size than the manifest says needs no reading.
fn check_sizes(set: &SealedSet<'_>) -> Result<(), RestoreError> {
    let parts = set.manifest.parts();
    if parts.len() != set.parts.len() {
        return Err(RestoreError::Differs {
            member: Member::Index,
            detail: format!("{} parts are there, the manifest lists {}", set.parts.len(), parts.len()),
        });
    }
    let objects = std::iter::once((Member::Index, set.manifest.index(), set.index))
        .chain((0u32..).zip(parts.iter().zip(&set.parts)).map(|(number, (object, source))| (Member::Part(number), object, *source)));
    for (member, object, source) in objects {
        let (expected, found) = (object.size, source.size());
        let detail = format!("{found} bytes, the manifest says {expected}");
        match found.cmp(&expected) {
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Less => return Err(RestoreError::Truncated { member, layer: Layer::Object, detail }),
            std::cmp::Ordering::Greater => return Err(RestoreError::Differs { member, detail }),
        }
    }
    Ok(())
}

/// An object that has its full size is not cut short: what looks like it is damage.
pub(super) fn not_truncated(error: RestoreError) -> RestoreError {
    match error {
        RestoreError::Truncated { member, layer, detail } => RestoreError::Damaged { member, layer, detail },
        other => other,
    }
}

/// After all of an object was read: whether its bytes are those that the manifest describes.
pub(super) fn check_digest(member: Member, source: &dyn SealedSource, object: &SetObject) -> Result<(), RestoreError> {
    match source.digest() {
        Some(found) if found == object.blake3 => Ok(()),
        Some(_) => Err(RestoreError::Differs { member, detail: "its BLAKE3 digest is another one".to_owned() }),
        None => Err(RestoreError::Source { member, source: io::Error::other("the source gave no digest of what it delivered") }),
    }
}

/// A header that does not open may be for other keys, or be damaged: the digest of the whole object tells.
pub(super) fn unopened(error: RestoreError, raw: &mut impl Read, source: &dyn SealedSource, object: &SetObject) -> RestoreError {
    let (RestoreError::NoMatchingRecipient { member, .. }
    | RestoreError::NotEncrypted { member }
    | RestoreError::PassphraseEncrypted { member }
    | RestoreError::Unsupported { member, .. }) = error
    else {
        return error;
    };
    match io::copy(raw, &mut io::sink()) {
        Ok(_) if source.digest().is_some_and(|found| found != object.blake3) => {
            let detail = "its BLAKE3 digest is another one, and its header does not open".to_owned();
            RestoreError::Damaged { member, layer: Layer::Age, detail }
        }
        // whether it is damaged cannot be known then; that it does not open is
        _ => error,
    }
}

/// Reads the index, checks all that can be checked about it, and leaves its lines in a nameless file.
fn read_index(set: &SealedSet<'_>, identities: &Identities, target: &Target) -> Result<IndexFile, RestoreError> {
    let member = Member::Index;
    let reading = |error| not_truncated(RestoreError::reading(member, error));
    let wrong = |detail: &str| RestoreError::Damaged { member, layer: Layer::Index, detail: detail.to_owned() };
    let size = set.index.size();
    let raw = set.index.open(0..size).map_err(|source| RestoreError::Source { member, source })?;
    let mut raw = BufReader::with_capacity(WINDOW, Counted { inner: raw, progress: &target.progress });
    let opened = age::read_header(&mut raw).and_then(|header| Ok(header.open(identities)?));
    let payload = opened.map_err(|e| unopened(reading(e), &mut raw, set.index, set.manifest.index()))?;
    let plain = decompressor(Compression::Zstd, AgeReader::new(raw, payload)).map_err(reading)?;
    let mut lines = BufReader::with_capacity(WINDOW, plain);

    let mut line = Vec::new();
    let mut read_line = |line: &mut Vec<u8>| -> Result<bool, RestoreError> {
        line.clear();
        let limit = index::MAX_LINE as u64 + 1;
        (&mut lines).take(limit).read_until(b'\n', line).map_err(reading)?;
        match line.last() {
            None => Ok(false),
            Some(b'\n') => Ok(true),
            Some(_) => Err(wrong("a line has no end")),
        }
    };
    if !read_line(&mut line)? {
        return Err(wrong("it has no first line"));
    }
    index::read_head(&line, &set.manifest.id).map_err(|e| wrong(e.detail))?;

    let file = nameless(target.spool.as_fd(), Mode::from_raw_mode(0o600))?;
    let mut spool = Spool { file: &file, buffer: Vec::with_capacity(WINDOW), at: 0 };
    let mut root = blake3::Hasher::new();
    let mut entries = 0u64;
    while read_line(&mut line)? {
        if target.cancel.is_cancelled() {
            return Err(RestoreError::Cancelled);
        }
        if !index::is_segment(&line) {
            root.update(&line);
            entries += 1;
            if entries > target.budgets.files {
                return Err(RestoreError::Budget { limit: Limit::Files, allowed: target.budgets.files });
            }
        }
        spool.write(&line)?;
    }
    spool.flush()?;
    let bytes = spool.at;
    check_digest(member, set.index, set.manifest.index())?;
    if Blake3(*root.finalize().as_bytes()) != set.manifest.root_blake3 {
        return Err(RestoreError::Differs { member, detail: "its root digest is another one".to_owned() });
    }
    if entries != set.manifest.totals.entries {
        return Err(RestoreError::Differs {
            member,
            detail: format!("{entries} entries, the manifest says {}", set.manifest.totals.entries),
        });
    }
    Ok(IndexFile::new(file, bytes, entries))
}

struct Spool<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    at: u64,
}

impl Spool<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        if self.buffer.len() + bytes.len() > WINDOW {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }
    fn flush(&mut self) -> Result<(), RestoreError> {
        self.file.write_all_at(&self.buffer, self.at).map_err(|e| RestoreError::scratch("spool the index", e))?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

pub(super) struct Counted<'a, R> {
    pub(super) inner: R,
    pub(super) progress: &'a Arc<Progress>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        add(&self.progress.read, n);
        Ok(n)
    }
}

/// All that the threads of one restore share.
pub(super) struct Run<'a> {
    pub(super) set: &'a SealedSet<'a>,
    tree: &'a Tree<'a>,
    pub(super) target: &'a Target,
    tell: &'a (dyn Fn(&TreeDifference) + Sync),
    compared: Mutex<Compared>,
    failed: Mutex<Option<RestoreError>>,
    pub(super) stop: AtomicBool,
}

impl Run<'_> {
    /// Keeps the first error; the others follow from it.
    fn fail(&self, error: RestoreError) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.store(true, Ordering::Relaxed);
    }

    fn workers(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        self.target.workers.unwrap_or(cores.clamp(2, 8)).max(1)
    }

    fn parts(&self, identities: &Identities, index: &IndexFile) -> Result<(), RestoreError> {
        let workers = self.workers();
        let mut differs = None;
        std::thread::scope(|scope| {
            let (jobs_in, jobs) = bounded::<Job>(1);
            let (empty_in, empty) = unbounded::<Vec<u8>>();
            for number in 0..workers {
                let (jobs, empty_in) = (jobs.clone(), empty_in.clone());
                let started = std::thread::Builder::new().name(format!("restore-{number}")).spawn_scoped(scope, move || {
                    self.work(&jobs, &empty_in);
                });
                if let Err(source) = started {
                    self.fail(RestoreError::Scratch { operation: "start a thread", source });
                }
            }
            drop((jobs, empty_in));
            let mut feeder = Feeder { run: self, jobs: jobs_in, empty, lines: index.lines(), differs: None };
            if let Err(error) = feeder.feed(identities) {
                self.fail(error);
            }
            differs = feeder.differs.take();
            // dropping the feeder closes the queue: the workers finish what they have, and end
        });
        // a worker that found the damaged chunk says more than a digest that does not match
        match self.failed.lock().unwrap_or_else(PoisonError::into_inner).take().or(differs) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn work(&self, jobs: &Receiver<Job>, empty: &Sender<Vec<u8>>) {
        let mut writer = TreeWriter::new(self.tree);
        let mut decoder = match FrameDecoder::new() {
            Ok(decoder) => decoder,
            Err(source) => return self.fail(RestoreError::Scratch { operation: "make a decoder", source }),
        };
        for job in jobs {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let member = Member::Part(job.segment.part);
            match self.unpack(&job, empty, &mut writer, &mut decoder) {
                Ok(()) => {}
                Err(Step::Read(error)) if error.get_ref().is_some_and(|e| e.is::<FeederGone>()) => return,
                Err(error) => {
                    self.fail(not_truncated(error.of(member)));
                    return;
                }
            }
        }
    }

    fn unpack(&self, job: &Job, empty: &Sender<Vec<u8>>, writer: &mut TreeWriter<'_, '_>, decoder: &mut FrameDecoder) -> Result<(), Step> {
        let segment = &job.segment;
        let member = Member::Part(segment.part);
        let mut expected = Vec::with_capacity(segment.entries.min(1 << 16) as usize);
        for line in job.lines.split_inclusive(|&b| b == b'\n') {
            let entry = index::read_entry(line).map_err(|e| RestoreError::Damaged {
                member: Member::Index,
                layer: Layer::Index,
                detail: e.detail.to_owned(),
            })?;
            expected.push(entry);
        }
        let pieces = Pieces::new(&job.pieces, empty);
        let mut sealed = SegmentReader::new(pieces, &job.payload, job.sealed_size, segment.offset, segment.length);
        let frames = Frames::new(move |out: &mut [u8]| sealed.next_into(out), segment.plain, decoder);
        let mut found: Vec<FileEntry> = Vec::with_capacity(expected.len());
        std::thread::scope(|scope| -> Result<(), Step> {
            let plain: Box<dyn BufRead + '_> = if segment.plain <= LARGE {
                Box::new(frames)
            } else {
                // no other segment is delivered meanwhile: all cores decode this one
                let threads = self.workers();
                Box::new(Ahead::within(scope, frames, threads).map_err(|e| RestoreError::scratch("start a thread", e))?)
            };
            let ending = if segment.ends { Ending::Demanded } else { Ending::Open };
            let mut tar = TarReader::new(plain, ending);
            while let Some(entry) = tar.next_entry()? {
                if found.len() as u64 >= segment.entries.saturating_add(10_000) {
                    return Err(
                        RestoreError::Differs { member, detail: "a segment has many more entries than the index says".to_owned() }.into()
                    );
                }
                let written = writer.write(entry, Links::Last, |sink| tar.read_data(sink))?;
                found.extend(written);
            }
            if !tar.skipped().is_empty() {
                return Err(RestoreError::Damaged {
                    member,
                    layer: Layer::Tar,
                    detail: "it has entries of a kind that no sealed set has".to_owned(),
                }
                .into());
            }
            Ok(())
        })?;
        // links are compared by what they say, so order is all that comparing needs
        found.sort_by(|a, b| a.path.cmp(&b.path));
        let mut noted = Vec::new();
        let summary = compare(expected, found, |difference| {
            (self.tell)(&difference);
            noted.push(difference);
        });
        let mut compared = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        compared.add(&summary);
        noted.iter().for_each(|difference| compared.note(difference));
        Ok(())
    }
}
