//! Feeds a sealed set's workers: ciphertext and index lines, part by part, segment by segment, in bounded buffers.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::index_file::Lines;
use super::sealed::{Counted, Run, check_digest, not_truncated, unopened};
use super::{Member, RestoreError, SealedSource};
use crate::codec::Layer;
use crate::codec::age::{self, CHUNK, Identities, Payload, SEALED_CHUNK, TAG};
use crate::codec::index::{self, IndexLine, Segment};
use crate::codec::manifest::SetObject;

/// Sealed chunks in a buffer.
const PIECE: usize = 8;
/// Buffers that wait for a worker within one segment: a whole ordinary segment fits.
const PIECES: usize = 10;

/// A segment on its way to a worker.
pub(super) struct Job {
    pub(super) segment: Segment,
    pub(super) payload: Arc<Payload>,
    /// Bytes of the part's whole sealed payload.
    pub(super) sealed_size: u64,
    /// The index's lines for its entries.
    pub(super) lines: Vec<u8>,
    pub(super) pieces: Receiver<Vec<u8>>,
}

/// Delivers ciphertext and index lines to the workers, part by part, segment by segment.
pub(super) struct Feeder<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) jobs: Sender<Job>,
    pub(super) empty: Receiver<Vec<u8>>,
    pub(super) lines: Lines,
    /// The first part that is not the one the manifest describes.
    pub(super) differs: Option<RestoreError>,
}

/// Why feeding ends early: a worker has failed, and told so itself.
const STOPPED: RestoreError = RestoreError::Cancelled;

impl Feeder<'_> {
    pub(super) fn feed(&mut self, identities: &Identities) -> Result<(), RestoreError> {
        let set = self.run.set;
        let mut next = self.next_segment()?;
        for (number, (source, object)) in (0u32..).zip(set.parts.iter().zip(set.manifest.parts())) {
            next = self.feed_part(number, *source, object, identities, next)?;
            if let Err(error) = check_digest(Member::Part(number), *source, object) {
                self.differs.get_or_insert(error);
            }
        }
        if next.is_some() {
            return Err(index_wrong("it has segments beyond the last part"));
        }
        Ok(())
    }

    fn feed_part(
        &mut self,
        number: u32,
        source: &dyn SealedSource,
        object: &SetObject,
        identities: &Identities,
        mut next: Option<Segment>,
    ) -> Result<Option<Segment>, RestoreError> {
        let member = Member::Part(number);
        let reading = |error| not_truncated(RestoreError::reading(member, error));
        let raw = source.open(0..source.size()).map_err(|source| RestoreError::Source { member, source })?;
        let mut raw = BufReader::with_capacity(SEALED_CHUNK, Counted { inner: raw, progress: &self.run.target.progress });
        let opened = age::read_header(&mut raw).and_then(|header| Ok((header.open(identities)?, header.length())));
        let (payload, header) = opened.map_err(|e| unopened(reading(e), &mut raw, source, object))?;
        let payload = Arc::new(payload);
        let sealed_size = source.size().saturating_sub(header);
        let chunks = sealed_size.div_ceil(SEALED_CHUNK as u64);
        let plain_size = sealed_size.saturating_sub(chunks * TAG as u64);

        let mut stream = Chunks { raw, member, read: 0, left: sealed_size, carry: Vec::new() };
        let mut covered = 0u64;
        while let Some(segment) = next.filter(|s| s.part == number) {
            if segment.offset != covered || segment.length == 0 || segment.length > plain_size - covered {
                return Err(index_wrong("its segments do not cover the parts"));
            }
            covered += segment.length;
            let (lines, following) = self.lines_of(&segment)?;
            let (pieces_in, pieces) = bounded(PIECES);
            let job = Job { segment, payload: Arc::clone(&payload), sealed_size, lines, pieces };
            self.jobs.send(job).map_err(|_| STOPPED)?;
            self.deliver(&mut stream, &segment, &pieces_in)?;
            next = following;
        }
        if covered != plain_size {
            return Err(index_wrong("its segments do not cover the parts"));
        }
        stream.expect_end()?;
        Ok(next)
    }

    /// Sends the sealed chunks that hold the segment. The last of them is kept where the next segment begins in it.
    fn deliver(&self, stream: &mut Chunks<'_, impl Read>, segment: &Segment, to: &Sender<Vec<u8>>) -> Result<(), RestoreError> {
        let mut chunk = segment.offset / CHUNK as u64;
        let end = segment.offset + segment.length;
        let last = (end - 1) / CHUNK as u64;
        while chunk <= last {
            if self.run.stop.load(Ordering::Relaxed) || self.run.target.cancel.is_cancelled() {
                return Err(STOPPED);
            }
            let count = (last - chunk + 1).min(PIECE as u64);
            let mut buffer = self.empty.try_recv().unwrap_or_default();
            stream.take(chunk, count, &mut buffer)?;
            chunk += count;
            if chunk > last && !end.is_multiple_of(CHUNK as u64) {
                stream.keep_last(&buffer);
            }
            // a worker that does not want the rest has failed, and told so
            to.send(buffer).map_err(|_| STOPPED)?;
        }
        Ok(())
    }

    fn next_segment(&mut self) -> Result<Option<Segment>, RestoreError> {
        let line = self.lines.next_line().map_err(|e| RestoreError::scratch("read the spooled index", e))?;
        match line.map(index::read_line) {
            None => Ok(None),
            Some(Ok(IndexLine::Segment(segment))) => Ok(Some(segment)),
            Some(Ok(IndexLine::Entry(_))) => Err(index_wrong("an entry is in no segment")),
            Some(Err(error)) => Err(index_wrong(error.detail)),
        }
    }

    /// The lines of a segment's entries, and the segment after it.
    fn lines_of(&mut self, segment: &Segment) -> Result<(Vec<u8>, Option<Segment>), RestoreError> {
        let mut lines = Vec::new();
        for _ in 0..segment.entries {
            match self.lines.next_line().map_err(|e| RestoreError::scratch("read the spooled index", e))? {
                Some(line) if !index::is_segment(line) => lines.extend_from_slice(line),
                _ => return Err(index_wrong("a segment has fewer entries than it says")),
            }
            if lines.len() > 64 << 20 {
                return Err(index_wrong("a segment has more entries than any needs"));
            }
        }
        Ok((lines, self.next_segment()?))
    }
}

fn index_wrong(detail: &str) -> RestoreError {
    RestoreError::Damaged { member: Member::Index, layer: Layer::Index, detail: detail.to_owned() }
}

/// A part's sealed chunks, read in order; the one on a segment's border is asked for twice.
struct Chunks<'a, R> {
    raw: BufReader<Counted<'a, R>>,
    member: Member,
    /// Chunks read so far.
    read: u64,
    left: u64,
    carry: Vec<u8>,
}

impl<R: Read> Chunks<'_, R> {
    fn take(&mut self, first: u64, count: u64, buffer: &mut Vec<u8>) -> Result<(), RestoreError> {
        let carried = if first < self.read { self.carry.len() } else { 0 };
        let wanted = count - u64::from(carried > 0);
        let bytes = (wanted * SEALED_CHUNK as u64).min(self.left);
        // a used buffer keeps its bytes until they are overwritten: no zeros are written in between
        buffer.resize(carried + bytes as usize, 0);
        buffer[..carried].copy_from_slice(&self.carry[..carried]);
        self.raw.read_exact(&mut buffer[carried..]).map_err(|source| RestoreError::Source { member: self.member, source })?;
        self.left -= bytes;
        self.read += wanted;
        Ok(())
    }

    fn keep_last(&mut self, buffer: &[u8]) {
        // the last chunk of a part is shorter
        let start = (buffer.len() - 1) / SEALED_CHUNK * SEALED_CHUNK;
        self.carry.clear();
        self.carry.extend_from_slice(&buffer[start..]);
    }

    /// Reads to the very end, so that the source knows that it was.
    fn expect_end(&mut self) -> Result<(), RestoreError> {
        let mut rest = [0; 1];
        match self.raw.read(&mut rest) {
            Ok(0) => Ok(()),
            Ok(_) => Err(RestoreError::Differs { member: self.member, detail: "storage delivered more than the object's size".to_owned() }),
            Err(source) => Err(RestoreError::Source { member: self.member, source }),
        }
    }
}

/// A worker's end of a segment's buffers; each holds whole sealed chunks.
pub(super) struct Pieces<'a> {
    full: &'a Receiver<Vec<u8>>,
    empty: &'a Sender<Vec<u8>>,
    buffer: Vec<u8>,
    at: usize,
}

/// The feeder has failed, and told why: whoever sees this has nothing to add.
#[derive(Debug, thiserror::Error)]
#[error("the restore was stopped")]
pub(super) struct FeederGone;

impl<'a> Pieces<'a> {
    pub(super) fn new(full: &'a Receiver<Vec<u8>>, empty: &'a Sender<Vec<u8>>) -> Self {
        Self { full, empty, buffer: Vec::new(), at: 0 }
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.buffer.len() {
            match self.full.recv() {
                Ok(buffer) => {
                    let used = std::mem::replace(&mut self.buffer, buffer);
                    self.at = 0;
                    if used.capacity() > 0 {
                        // nobody to take it back only means that the last buffers are on their way
                        let _ = self.empty.send(used);
                    }
                }
                // all of a segment is delivered, unless the feeder has failed
                Err(_) => return Err(io::Error::other(FeederGone)),
            }
        }
        Ok(&self.buffer[self.at..])
    }
    fn consume(&mut self, n: usize) {
        self.at = (self.at + n).min(self.buffer.len());
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        crate::codec::read_buffered(self, buf)
    }
}
