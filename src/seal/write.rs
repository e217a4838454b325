//! Puts packed segments into parts, in order, and ends with index and manifest.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use aws_lc_rs::digest;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::pack::{Done, Job, Packed, Packer};
use super::scan::{Planned, scan};
use super::{SealError, SealOptions, SealProgress, SealSource, Sealed, SetWriter, Written};
use crate::codec::age::{self, AgeWriter, Identities, Recipients};
use crate::codec::index::{self, Segment};
use crate::codec::manifest::{
    CompressionUsed, FORMAT, INDEX, Manifest, Producer, Role, SetObject, Totals, VERSION, is_set_id, part_name, sign_manifest,
};
use crate::codec::{Compression, decompressor};
use crate::domain::{Blake3, EntryKind, FileEntry, RestorePath, Sha256};
use crate::tree::PassedOver;

/// How many changed files are named.
const CHANGED: usize = 100;

type Packing = Receiver<Result<Packed, SealError>>;

pub(super) fn seal_into(source: SealSource, options: &SealOptions<'_>, writer: &mut dyn SetWriter) -> Result<Sealed, SealError> {
    if !is_set_id(&options.id) {
        return Err(SealError::Id { id: options.id.clone() });
    }
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let workers = options.workers.unwrap_or(cores.clamp(2, 8)).max(1);
    let mut set = SetInProgress::new(options, writer)?;
    let (passed_over, linked) = std::thread::scope(|scope| {
        let (jobs_in, jobs) = bounded::<(Job, Sender<Result<Packed, SealError>>)>(1);
        let (order_in, order) = bounded::<Packing>(workers + 1);
        let mut hands = Vec::new();
        for _ in 0..workers {
            let jobs = jobs.clone();
            let (level, progress, cancelled) = (options.level, options.progress, options.cancelled);
            hands.push(scope.spawn(move || -> Result<(), SealError> {
                let mut packer = Packer::new(level, progress, cancelled)?;
                jobs.iter().for_each(|(job, out)| packer.pack(job, &out));
                Ok(())
            }));
        }
        drop(jobs);
        let recipe = Recipe {
            segment_size: options.segment_size,
            captured_at: options.captured_at,
            spool: options.spool.clone(),
            cancelled: options.cancelled,
        };
        let scanner = scope.spawn(move || recipe.plan(source, &Queue { jobs: jobs_in, order: order_in }));
        let written = order.iter().try_for_each(|packing| set.segment(packing));
        // a scanner or worker that waits for us ends when the queue is gone
        drop(order);
        let planned = scanner.join().expect("the scanner has no way to panic");
        let worked = hands.into_iter().try_for_each(|hand| hand.join().expect("a worker has no way to panic"));
        match (written, planned) {
            // the writer's error made the scanner stop, not the other way round
            (Err(error), _) => Err(error),
            (Ok(()), Err(Stop::Error(error))) => Err(error),
            (Ok(()), Err(Stop::Queue)) => Err(worked.err().unwrap_or(SealError::Cancelled)),
            (Ok(()), Ok(plan)) => worked.map(|()| plan),
        }
    })?;
    set.finish(passed_over, &linked)
}

/// Why planning stopped.
enum Stop {
    /// Nobody takes segments any more; whoever stopped knows why.
    Queue,
    Error(SealError),
}

impl From<SealError> for Stop {
    fn from(error: SealError) -> Self {
        Stop::Error(error)
    }
}

struct Queue {
    jobs: Sender<(Job, Sender<Result<Packed, SealError>>)>,
    order: Sender<Packing>,
}

impl Queue {
    fn push(&self, job: Job) -> Result<(), Stop> {
        let (out, packing) = bounded(8);
        self.order.send(packing).map_err(|_| Stop::Queue)?;
        self.jobs.send((job, out)).map_err(|_| Stop::Queue)
    }
}

/// Cuts the sources into segments.
struct Recipe<'a> {
    segment_size: u64,
    captured_at: crate::domain::Timestamp,
    spool: PathBuf,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl Recipe<'_> {
    fn plan(&self, source: SealSource, queue: &Queue) -> Result<(PassedOver, HashSet<RestorePath>), Stop> {
        let plan = match source {
            SealSource::Paths(paths) => self.plan_paths(&paths, queue)?,
            SealSource::Stream { reader, name } => {
                let (entry, reader) = self.spool_stream(reader, &name)?;
                queue.push(Job::Stream { entry, reader })?;
                Default::default()
            }
        };
        queue.push(Job::End)?;
        Ok(plan)
    }

    fn plan_paths(&self, paths: &[PathBuf], queue: &Queue) -> Result<(PassedOver, HashSet<RestorePath>), Stop> {
        let mut batch: Vec<Planned> = Vec::new();
        let mut size = 0;
        let mut stopped = false;
        let mut push = |job| {
            queue.push(job).map_err(|stop| {
                stopped = matches!(stop, Stop::Queue);
                SealError::Cancelled
            })
        };
        let result = scan(paths, |planned| {
            if (self.cancelled)() {
                return Err(SealError::Cancelled);
            }
            let bytes = match planned.entry.kind {
                EntryKind::File { size, .. } => size,
                _ => 0,
            };
            if bytes >= self.segment_size {
                if !batch.is_empty() {
                    push(Job::Small(std::mem::take(&mut batch)))?;
                    size = 0;
                }
                return push(Job::Large(planned));
            }
            // header, PAX header and padding
            size += bytes.next_multiple_of(512) + 1536 + planned.entry.xattrs.iter().map(|x| x.value.len() as u64 + 64).sum::<u64>();
            batch.push(planned);
            if size >= self.segment_size {
                push(Job::Small(std::mem::take(&mut batch)))?;
                size = 0;
            }
            Ok(())
        });
        let plan = match result {
            Err(_) if stopped => return Err(Stop::Queue),
            other => other?,
        };
        if !batch.is_empty() {
            queue.push(Job::Small(batch))?;
        }
        Ok(plan)
    }

    /// A stream's size is known at its end, and tar wants it at the beginning: its content waits in a nameless file,
    /// compressed, and encrypted to a key that is never anywhere but in memory.
    fn spool_stream(&self, mut reader: Box<dyn Read + Send>, name: &str) -> Result<(FileEntry, Box<dyn Read + Send>), SealError> {
        let path = RestorePath::from_bytes(name.as_bytes())
            .ok()
            .filter(|p| !p.is_root())
            .ok_or(crate::domain::PathError::Climbs)
            .map_err(|source| SealError::Name { name: name.to_owned(), source })?;
        let spool = |source: io::Error| SealError::Spool { path: self.spool.clone(), source };
        let (identities, recipients) = throw_away_key();
        let file = tempfile::tempfile_in(&self.spool).map_err(spool)?;
        let sealed = AgeWriter::new(BufWriter::with_capacity(1 << 20, file), &recipients).map_err(spool)?;
        let mut encoder = zstd::stream::write::Encoder::new(sealed, 1).map_err(SealError::Compress)?;
        let mut buffer = vec![0; 256 << 10];
        let mut size = 0u64;
        loop {
            if (self.cancelled)() {
                return Err(SealError::Cancelled);
            }
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    encoder.write_all(&buffer[..n]).map_err(spool)?;
                    size += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(SealError::Read { path: PathBuf::from(name), source }),
            }
        }
        if size == 0 {
            return Err(SealError::Nothing);
        }
        let sealed = encoder.finish().map_err(spool)?;
        let mut file = sealed.finish().map_err(spool)?.into_inner().map_err(|e| spool(e.into_error()))?;
        file.rewind().map_err(spool)?;
        let plain = age::open(io::BufReader::with_capacity(1 << 20, file), &identities).map_err(spool)?;
        let at = self.captured_at.0;
        let entry = FileEntry {
            path,
            kind: EntryKind::File { size, blake3: None },
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: at.as_second(),
            mtime_ns: u32::try_from(at.subsec_nanosecond()).unwrap_or(0),
            xattrs: Vec::new(),
        };
        Ok((entry, decompressor(Compression::Zstd, plain).map_err(spool)?))
    }
}

fn throw_away_key() -> (Identities, Recipients) {
    use ::age::secrecy::ExposeSecret;
    const OURS: &str = "made by the same crate a moment ago";
    let identity = ::age::x25519::Identity::generate();
    let mut identities = Identities::default();
    identities.add(identity.to_string().expose_secret()).expect(OURS);
    (identities, Recipients::parse(&[identity.to_public().to_string()]).expect(OURS))
}

/// Counts and hashes what goes into an object.
struct ObjectWriter<'a> {
    writer: &'a mut dyn SetWriter,
    progress: &'a SealProgress,
    size: u64,
    blake3: blake3::Hasher,
    sha256: digest::Context,
}

impl<'a> ObjectWriter<'a> {
    fn new(writer: &'a mut dyn SetWriter, progress: &'a SealProgress) -> Self {
        Self { writer, progress, size: 0, blake3: blake3::Hasher::new(), sha256: digest::Context::new(&digest::SHA256) }
    }

    /// What was written since it was last asked.
    fn take(&mut self) -> Written {
        let sha256 = std::mem::replace(&mut self.sha256, digest::Context::new(&digest::SHA256)).finish();
        let written = Written {
            size: std::mem::take(&mut self.size),
            blake3: Blake3(*self.blake3.finalize().as_bytes()),
            sha256: Sha256(sha256.as_ref().try_into().expect("SHA-256 has 32 bytes")),
        };
        self.blake3.reset();
        written
    }
}

impl Write for ObjectWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)?;
        self.blake3.update(bytes);
        self.sha256.update(bytes);
        self.size += bytes.len() as u64;
        self.progress.stored.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type IndexWriter = zstd::stream::write::Encoder<'static, AgeWriter<BufWriter<File>>>;

/// A set while it is written. The part that is open owns the way to the store.
struct SetInProgress<'a> {
    options: &'a SealOptions<'a>,
    /// One of the two is there: an open part, or the bare way.
    part: Option<AgeWriter<ObjectWriter<'a>>>,
    idle: Option<ObjectWriter<'a>>,
    /// Compressed bytes in the open part.
    in_part: u64,
    index: IndexWriter,
    root: blake3::Hasher,
    parts: Vec<SetObject>,
    totals: Totals,
    changed: Vec<PathBuf>,
    changed_count: u64,
    vanished: Vec<Planned>,
}

impl<'a> SetInProgress<'a> {
    fn new(options: &'a SealOptions<'a>, writer: &'a mut dyn SetWriter) -> Result<Self, SealError> {
        let spool = |source| SealError::Spool { path: options.spool.clone(), source };
        let file = tempfile::tempfile_in(&options.spool).map_err(spool)?;
        let sealed = AgeWriter::new(BufWriter::with_capacity(256 << 10, file), options.recipients).map_err(spool)?;
        let mut index = zstd::stream::write::Encoder::new(sealed, options.level).map_err(SealError::Compress)?;
        index.include_checksum(true).map_err(SealError::Compress)?;
        let mut head = Vec::new();
        index::write_head(&mut head, &options.id);
        index.write_all(&head).map_err(spool)?;
        Ok(Self {
            options,
            part: None,
            idle: Some(ObjectWriter::new(writer, options.progress)),
            in_part: 0,
            index,
            root: blake3::Hasher::new(),
            parts: Vec::new(),
            totals: Totals::default(),
            changed: Vec::new(),
            changed_count: 0,
            vanished: Vec::new(),
        })
    }

    fn part_number(&self) -> u32 {
        u32::try_from(self.parts.len()).unwrap_or(u32::MAX)
    }

    fn write_error(&self) -> impl Fn(io::Error) -> SealError + use<> {
        let object = part_name(self.part_number());
        move |source| SealError::Write { object: object.clone(), source }
    }

    /// Takes one segment as it is packed.
    fn segment(&mut self, packing: Packing) -> Result<(), SealError> {
        let mut segment = Segment { part: self.part_number(), offset: self.in_part, length: 0, plain: 0, entries: 0, ends: false };
        loop {
            if (self.options.cancelled)() {
                return Err(SealError::Cancelled);
            }
            match packing.recv() {
                Ok(Ok(Packed::Piece(piece))) => {
                    self.write_part(&piece)?;
                    segment.length += piece.len() as u64;
                }
                Ok(Ok(Packed::Done(done))) => return self.end_segment(segment, *done),
                Ok(Err(error)) => return Err(error),
                // its worker ended without a word; the scope's owner finds out why
                Err(_) => return Err(SealError::Cancelled),
            }
        }
    }

    fn write_part(&mut self, piece: &[u8]) -> Result<(), SealError> {
        let failed = self.write_error();
        if self.part.is_none() {
            let object = self.idle.take().expect("without an open part the way is idle");
            object.writer.create(&part_name(self.part_number())).map_err(&failed)?;
            self.part = Some(AgeWriter::new(object, self.options.recipients).map_err(&failed)?);
        }
        self.in_part += piece.len() as u64;
        self.part.as_mut().expect("opened above").write_all(piece).map_err(&failed)
    }

    fn end_segment(&mut self, mut segment: Segment, done: Done) -> Result<(), SealError> {
        self.changed_count += done.changed.len() as u64;
        let room = CHANGED - self.changed.len();
        self.changed.extend(done.changed.into_iter().take(room));
        self.vanished.extend(done.vanished);
        if segment.length == 0 {
            // all its files vanished
            return Ok(());
        }
        (segment.plain, segment.entries) = (done.plain, done.totals.entries);
        segment.ends = done.totals.entries == 0;
        self.totals.entries += done.totals.entries;
        self.totals.files += done.totals.files;
        self.totals.directories += done.totals.directories;
        self.totals.bytes += done.totals.bytes;
        let mut line = Vec::new();
        index::write_segment(&mut line, &segment);
        let spool = |source| SealError::Spool { path: self.options.spool.clone(), source };
        self.index.write_all(&line).and_then(|()| self.index.write_all(&done.lines)).map_err(spool)?;
        self.root.update(&done.lines);
        if segment.ends || self.in_part >= self.options.part_size {
            self.end_part()?;
        }
        Ok(())
    }

    fn end_part(&mut self) -> Result<(), SealError> {
        let Some(part) = self.part.take() else { return Ok(()) };
        let failed = self.write_error();
        let mut object = part.finish().map_err(&failed)?;
        let written = object.take();
        object.writer.finish(&written).map_err(&failed)?;
        self.parts.push(SetObject {
            name: part_name(self.part_number()),
            role: Role::Part,
            size: written.size,
            blake3: written.blake3,
            sha256: written.sha256,
        });
        self.idle = Some(object);
        self.in_part = 0;
        Ok(())
    }

    fn finish(mut self, mut passed_over: PassedOver, linked: &HashSet<RestorePath>) -> Result<Sealed, SealError> {
        if let Some(gone) = self.vanished.iter().find(|planned| linked.contains(&planned.entry.path)) {
            return Err(SealError::LinkVanished { path: gone.shown() });
        }
        passed_over.vanished += self.vanished.len() as u64;
        if self.totals.entries == 0 {
            return Err(SealError::Nothing);
        }
        let options = self.options;
        let mut object = self.idle.take().expect("the last segment ended the last part");
        let index = write_index(self.index, &mut object, &options.spool)?;
        let objects = std::iter::once(index).chain(self.parts).collect();
        let public_key = options.key.map(|key| key.public_key().to_openssh()).transpose().map_err(SealError::Sign)?;
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            version: VERSION,
            id: options.id.clone(),
            captured_at: options.captured_at,
            created_at: (options.now)(),
            producer: Producer {
                name: options.producer.clone(),
                software: concat!("firedrill ", env!("CARGO_PKG_VERSION")).to_owned(),
                public_key,
            },
            recipients: options.recipients.written().to_vec(),
            objects,
            totals: self.totals,
            root_blake3: Blake3(*self.root.finalize().as_bytes()),
            compression: CompressionUsed { algorithm: "zstd".to_owned(), level: options.level },
        };
        let bytes = manifest.to_bytes();
        let signature = options.key.map(|key| sign_manifest(&bytes, key)).transpose().map_err(SealError::Sign)?;
        let failed = |source| SealError::Write { object: crate::codec::manifest::MANIFEST.to_owned(), source };
        object.writer.commit(&bytes, signature.as_ref().map(String::as_bytes)).map_err(failed)?;
        Ok(Sealed { manifest, changed: self.changed, changed_count: self.changed_count, passed_over })
    }
}

fn write_index(index: IndexWriter, object: &mut ObjectWriter<'_>, spool: &Path) -> Result<SetObject, SealError> {
    let spool = |source| SealError::Spool { path: spool.to_owned(), source };
    let failed = |source| SealError::Write { object: INDEX.to_owned(), source };
    let sealed = index.finish().map_err(spool)?.finish().map_err(spool)?;
    let mut file = sealed.into_inner().map_err(|e| spool(e.into_error()))?;
    file.rewind().map_err(spool)?;
    object.writer.create(INDEX).map_err(failed)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).map_err(spool)? {
            0 => break,
            n => object.write_all(&buffer[..n]).map_err(failed)?,
        }
    }
    let written = object.take();
    object.writer.finish(&written).map_err(failed)?;
    Ok(SetObject { name: INDEX.to_owned(), role: Role::Index, size: written.size, blake3: written.blake3, sha256: written.sha256 })
}
