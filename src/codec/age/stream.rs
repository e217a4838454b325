//! The payload of an age file: chunks of 64 KiB, each sealed with ChaCha20-Poly1305 under its number and a last-chunk flag.

use std::io::{self, BufRead, Read, Write};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::Recipients;
use super::header::{TAG, write_header};
use crate::codec::error::read_full;
use crate::codec::{CodecError, Layer};

/// Plaintext bytes of every chunk but the last.
pub const CHUNK: usize = 64 * 1024;
/// The same, sealed.
pub const SEALED_CHUNK: usize = CHUNK + TAG;

/// The key of a payload. Opens and seals chunks; keeps no place in the stream.
pub struct Payload {
    key: LessSafeKey,
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Payload(…)")
    }
}

impl Payload {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes are the cipher's key length");
        Self { key: LessSafeKey::new(key) }
    }

    fn nonce(chunk: u64, last: bool) -> Nonce {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&chunk.to_be_bytes());
        nonce[11] = u8::from(last);
        Nonce::assume_unique_for_key(nonce)
    }

    fn opens(&self, chunk: u64, last: bool, sealed: &[u8], plain: &mut [u8]) -> bool {
        let (text, tag) = sealed.split_at(sealed.len() - TAG);
        self.key.open_separate_gather(Self::nonce(chunk, last), Aad::empty(), text, tag, plain).is_ok()
    }

    /// Opens one chunk into `plain`, whose first bytes it fills; how many.
    ///
    /// `last` says whether the stream ends after it. A chunk that opens only with the other flag tells truncation from
    /// trailing data; neither is accepted.
    ///
    /// # Errors
    /// [`CodecError`]; what is in `plain` then is nobody's business.
    pub fn open(&self, chunk: u64, last: bool, sealed: &[u8], plain: &mut [u8]) -> Result<usize, CodecError> {
        if sealed.len() < TAG {
            return Err(CodecError::Truncated { layer: Layer::Age, detail: "it ends within a chunk" });
        }
        let length = sealed.len() - TAG;
        if self.opens(chunk, last, sealed, &mut plain[..length]) {
            // an empty chunk may only be the whole of an empty payload
            if length == 0 && chunk > 0 {
                return Err(CodecError::ChunkDamaged { chunk });
            }
            return Ok(length);
        }
        Err(if self.opens(chunk, !last, sealed, &mut plain[..length]) {
            if last {
                CodecError::Truncated { layer: Layer::Age, detail: "its last chunk is missing" }
            } else {
                CodecError::Trailing { layer: Layer::Age }
            }
        } else if last && sealed.len() < SEALED_CHUNK {
            // a damaged last chunk and a chunk cut short look alike
            CodecError::Truncated { layer: Layer::Age, detail: "its last chunk is cut short or damaged" }
        } else {
            CodecError::ChunkDamaged { chunk }
        })
    }

    /// Seals one chunk in place and appends its tag.
    fn seal(&self, chunk: u64, last: bool, plain: &mut Vec<u8>) {
        self.key.seal_in_place_append_tag(Self::nonce(chunk, last), Aad::empty(), plain).expect("a chunk is far below the cipher's limit");
    }
}

/// Reads a payload from its beginning to its end. Large reads decrypt straight into the caller's buffer.
pub struct AgeReader<R> {
    input: R,
    payload: Payload,
    /// One sealed chunk, and room for the first byte of the next: only that tells whether it is the last.
    sealed: Box<[u8]>,
    filled: usize,
    chunk: u64,
    done: bool,
    plain: Box<[u8]>,
    at: usize,
    end: usize,
}

impl<R: Read> AgeReader<R> {
    /// A reader of the payload that `input` stands at.
    pub fn new(input: R, payload: Payload) -> Self {
        Self {
            input,
            payload,
            sealed: vec![0; SEALED_CHUNK + 1].into(),
            filled: 0,
            chunk: 0,
            done: false,
            plain: vec![0; CHUNK].into(),
            at: 0,
            end: 0,
        }
    }

    /// Opens the next chunk into `plain`, which has room for one.
    fn open_next(
        input: &mut R,
        payload: &Payload,
        sealed: &mut [u8],
        filled: &mut usize,
        chunk: &mut u64,
        done: &mut bool,
        plain: &mut [u8],
    ) -> io::Result<usize> {
        *filled += read_full(input, &mut sealed[*filled..])?;
        let last = *filled <= SEALED_CHUNK;
        let size = (*filled).min(SEALED_CHUNK);
        if size == 0 {
            return Err(CodecError::Truncated { layer: Layer::Age, detail: "its payload is missing" }.into());
        }
        let length = payload.open(*chunk, last, &sealed[..size], plain)?;
        if last {
            *done = true;
            *filled = 0;
        } else {
            sealed[0] = sealed[SEALED_CHUNK];
            *filled = 1;
        }
        *chunk += 1;
        Ok(length)
    }
}

impl<R: Read> Read for AgeReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end && buf.len() >= CHUNK {
            if self.done {
                return Ok(0);
            }
            let Self { input, payload, sealed, filled, chunk, done, .. } = self;
            let mut got = 0;
            // whole chunks as far as they fit: the caller's buffer should be worth a trip
            while !*done && buf.len() - got >= CHUNK {
                match Self::open_next(input, payload, sealed, filled, chunk, done, &mut buf[got..got + CHUNK]) {
                    Ok(n) => got += n,
                    Err(error) => return Err(error),
                }
            }
            return Ok(got);
        }
        crate::codec::read_buffered(self, buf)
    }
}

impl<R: Read> BufRead for AgeReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.end && !self.done {
            let Self { input, payload, sealed, filled, chunk, done, plain, .. } = self;
            let length = Self::open_next(input, payload, sealed, filled, chunk, done, plain)?;
            (self.at, self.end) = (0, length);
        }
        Ok(&self.plain[self.at..self.end])
    }
    fn consume(&mut self, n: usize) {
        self.at = (self.at + n).min(self.end);
    }
}

/// Reads a stretch of a payload out of its sealed chunks, in order, as somebody else delivers them.
pub struct SegmentReader<'a, R> {
    input: R,
    payload: &'a Payload,
    chunk: u64,
    /// Chunks of the whole payload; the last of them closes it.
    chunks: u64,
    /// Plaintext bytes to leave out at the beginning.
    skip: usize,
    left: u64,
}

impl<'a, R: BufRead> SegmentReader<'a, R> {
    /// Reads `length` plaintext bytes from `offset` on. `input` delivers the sealed chunks from the one on that holds
    /// `offset`, and its buffer always holds whole chunks, so that they are opened where they lie; `sealed_size` is the
    /// size of the whole sealed payload.
    pub fn new(input: R, payload: &'a Payload, sealed_size: u64, offset: u64, length: u64) -> Self {
        let (chunk, chunks) = (offset / CHUNK as u64, sealed_size.div_ceil(SEALED_CHUNK as u64));
        Self { input, payload, chunk, chunks, skip: (offset % CHUNK as u64) as usize, left: length }
    }

    /// Opens the next chunk straight into the beginning of `plain`, at least [`CHUNK`] bytes long. How many bytes of it are
    /// the stretch's; 0 is its end.
    ///
    /// # Errors
    /// [`CodecError`], or the input's.
    pub fn next_into(&mut self, plain: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        if self.chunk >= self.chunks {
            return Err(CodecError::Truncated { layer: Layer::Age, detail: "a segment reaches past its end" }.into());
        }
        let available = self.input.fill_buf()?;
        let size = available.len().min(SEALED_CHUNK);
        let last = self.chunk + 1 == self.chunks;
        if size < SEALED_CHUNK && !last {
            return Err(CodecError::Truncated { layer: Layer::Age, detail: "it ends within a segment" }.into());
        }
        let length = self.payload.open(self.chunk, last, &available[..size], plain)?;
        self.input.consume(size);
        self.chunk += 1;
        let skip = std::mem::take(&mut self.skip).min(length);
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(length - skip);
        if wanted == 0 {
            return Err(CodecError::Truncated { layer: Layer::Age, detail: "a segment reaches past its end" }.into());
        }
        if skip > 0 {
            plain.copy_within(skip..skip + wanted, 0);
        }
        self.left -= wanted as u64;
        Ok(wanted)
    }
}

/// Writes an age file. [`AgeWriter::finish`] seals the last chunk; without it the file is truncated, and reads as such.
pub struct AgeWriter<W> {
    output: W,
    payload: Payload,
    buffer: Vec<u8>,
    chunk: u64,
}

impl<W: Write> AgeWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// The output's, or of recipients that cannot be used together.
    pub fn new(mut output: W, recipients: &Recipients) -> io::Result<Self> {
        let payload = write_header(&mut output, recipients)?;
        Ok(Self { output, payload, buffer: Vec::with_capacity(SEALED_CHUNK), chunk: 0 })
    }

    /// Seals the last chunk.
    ///
    /// # Errors
    /// The output's.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush_chunk(true)?;
        Ok(self.output)
    }

    fn flush_chunk(&mut self, last: bool) -> io::Result<()> {
        self.payload.seal(self.chunk, last, &mut self.buffer);
        self.chunk += 1;
        self.output.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl<W: Write> Write for AgeWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            // a full chunk waits until it is known not to be the last
            if self.buffer.len() == CHUNK {
                self.flush_chunk(false)?;
            }
            let n = rest.len().min(CHUNK - self.buffer.len());
            self.buffer.extend_from_slice(&rest[..n]);
            rest = &rest[n..];
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
