//! The zstd frames of a sealed set: each states its size, is small, and is decoded in one go.
//!
//! A frame's window is then its own output, which stays in the core's cache while it is made, and is hashed and written
//! from there. A decoder that streams keeps a window of its own and copies all of it once more.

use std::io::{self, BufRead};

use zstd::zstd_safe::{DCtx, DParameter, find_frame_compressed_size, get_error_name, get_frame_content_size};

use super::age::CHUNK;
use super::decompress::damaged;
use super::{CodecError, Layer};

/// Bytes of tar in one frame, as we write them: with its compressed form it fits into a core's own cache.
pub const FRAME: usize = 1 << 20;
/// Larger frames are in no sealed set, compressed or not.
const LARGEST: usize = 8 << 20;

/// A decoder with its buffers, for one segment after the other.
pub(crate) struct FrameDecoder {
    context: DCtx<'static>,
    packed: Vec<u8>,
    plain: Vec<u8>,
}

impl FrameDecoder {
    pub(crate) fn new() -> io::Result<Self> {
        let mut context = DCtx::try_create().ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        // the frame's own short checksum says nothing that the digest of every file does not
        context.set_parameter(DParameter::ForceIgnoreChecksum(true)).map_err(|code| io::Error::other(get_error_name(code)))?;
        Ok(Self { context, packed: Vec::new(), plain: Vec::new() })
    }

    /// Decodes one frame into `plain`, in place of what it holds.
    pub(crate) fn decode(&mut self, frame: &PackedFrame, plain: &mut Vec<u8>) -> io::Result<()> {
        decode(&mut self.context, &frame.bytes, frame.size, plain)
    }
}

/// One frame, not decoded yet.
#[derive(Default)]
pub(crate) struct PackedFrame {
    bytes: Vec<u8>,
    /// Bytes of its content.
    size: usize,
}

fn decode(context: &mut DCtx<'_>, frame: &[u8], size: usize, plain: &mut Vec<u8>) -> io::Result<()> {
    plain.clear();
    plain.reserve(size);
    context.decompress(plain, frame).map_err(|code| damaged(Layer::Zstd, get_error_name(code)))?;
    Ok(())
}

/// The frames of one segment. As a reader it hands out one after the other.
pub(crate) struct Frames<'d, S> {
    /// Fills the beginning of a buffer of at least [`CHUNK`] bytes; 0 is the end.
    source: S,
    decoder: &'d mut FrameDecoder,
    /// Where in `packed` the bytes are that were not decoded yet.
    start: usize,
    end: usize,
    /// Plain bytes that may still come.
    left: u64,
    any: bool,
    consumed: usize,
}

impl<'d, S: FnMut(&mut [u8]) -> io::Result<usize>> Frames<'d, S> {
    /// Reads what `source` delivers, which is to be at most `plain` bytes when decoded; more are damage.
    pub(crate) fn new(source: S, plain: u64, decoder: &'d mut FrameDecoder) -> Self {
        decoder.plain.clear();
        Self { source, decoder, start: 0, end: 0, left: plain, any: false, consumed: 0 }
    }

    /// The next frame as it is, in place of what `frame` holds; whether there is one.
    pub(crate) fn next_packed(&mut self, frame: &mut PackedFrame) -> io::Result<bool> {
        let Some((length, size)) = self.next_frame()? else { return Ok(false) };
        frame.bytes.clear();
        frame.bytes.extend_from_slice(&self.decoder.packed[self.start..self.start + length]);
        frame.size = size;
        self.start += length;
        Ok(true)
    }

    /// Decodes the next frame that is not empty; whether there is one.
    fn advance(&mut self) -> io::Result<bool> {
        let Some((length, size)) = self.next_frame()? else { return Ok(false) };
        let FrameDecoder { context, packed, plain } = &mut *self.decoder;
        decode(context, &packed[self.start..self.start + length], size, plain)?;
        self.start += length;
        self.consumed = 0;
        Ok(true)
    }

    /// Has a whole frame at `start`; its compressed size and that of its content.
    fn next_frame(&mut self) -> io::Result<Option<(usize, usize)>> {
        loop {
            let held = &self.decoder.packed[self.start..self.end];
            let unfinished = match held.len() {
                0 => None,
                _ => match find_frame_compressed_size(held) {
                    Ok(length) => return self.content_size(length).map(|size| Some((length, size))),
                    Err(code) => Some(get_error_name(code)),
                },
            };
            // what is missing, and what is wrong from the start, look different; the former grows until it is too long
            if let Some(reason) = unfinished.filter(|reason| *reason != SHORT || held.len() > LARGEST) {
                return Err(damaged(Layer::Zstd, reason).into());
            }
            self.make_room();
            match (self.source)(&mut self.decoder.packed[self.end..])? {
                0 if unfinished.is_some() => {
                    return Err(CodecError::Truncated { layer: Layer::Zstd, detail: "it ends within a frame" }.into());
                }
                0 if self.any => return Ok(None),
                0 => return Err(CodecError::Empty { layer: Layer::Zstd }.into()),
                n => self.end += n,
            }
        }
    }

    fn content_size(&mut self, length: usize) -> io::Result<usize> {
        self.any = true;
        let size = match get_frame_content_size(&self.decoder.packed[self.start..self.start + length]) {
            Ok(Some(size)) if size <= LARGEST as u64 => size,
            _ => return Err(damaged(Layer::Zstd, "a frame is larger than any in a sealed set, or does not say").into()),
        };
        self.left = self.left.checked_sub(size).ok_or_else(|| damaged(Layer::Zstd, "it holds more than the index says"))?;
        Ok(size as usize)
    }

    fn make_room(&mut self) {
        let packed = &mut self.decoder.packed;
        if packed.len() - self.end < CHUNK && self.start > 0 {
            packed.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if packed.len() - self.end < CHUNK {
            packed.resize(self.end + FRAME, 0);
        }
    }
}

/// What zstd calls a frame of which bytes are missing.
const SHORT: &str = "Src size is incorrect";

impl<S: FnMut(&mut [u8]) -> io::Result<usize>> BufRead for Frames<'_, S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.consumed == self.decoder.plain.len() {
            if !self.advance()? {
                break;
            }
        }
        Ok(&self.decoder.plain[self.consumed..])
    }
    fn consume(&mut self, n: usize) {
        self.consumed += n;
    }
}

impl<S: FnMut(&mut [u8]) -> io::Result<usize>> io::Read for Frames<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        super::read_buffered(self, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn decoded(packed: &[u8], plain: u64) -> io::Result<Vec<u8>> {
        let mut rest = packed;
        // seven bytes at a time: every border falls somewhere once
        let source = |out: &mut [u8]| {
            let n = rest.len().min(7);
            out[..n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            Ok(n)
        };
        let mut out = Vec::new();
        let mut decoder = FrameDecoder::new()?;
        Frames::new(source, plain, &mut decoder).read_to_end(&mut out)?;
        Ok(out)
    }

    fn frame(plain: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(plain, 3).unwrap()
    }

    fn error(packed: &[u8], plain: u64) -> String {
        decoded(packed, plain).unwrap_err().to_string()
    }

    #[test]
    fn frames_come_one_after_the_other() {
        let (a, b) = (b"Jane Doe, ".repeat(900), b"John Roe, ".repeat(2000));
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        let packed = [frame(&a), skippable.to_vec(), frame(b""), frame(&b)].concat();
        assert_eq!(decoded(&packed, 29_000).unwrap(), [a, b].concat());
    }

    #[test]
    fn what_is_cut_short_is_damaged_or_too_much_is_told() {
        let packed = frame(&b"Jane Doe, ".repeat(900));
        assert!(error(&packed[..packed.len() - 1], 9_000).contains("ends within a frame"));
        assert!(error(&packed, 8_999).contains("more than the index says"));
        assert!(error(&[packed.clone(), b"trailing bytes".to_vec()].concat(), 9_000).contains("zstd"));
        assert!(error(b"", 9_000).contains("empty"));
        let mut flipped = packed.clone();
        flipped[0] ^= 1;
        assert!(decoded(&flipped, 9_000).is_err());
    }

    #[test]
    fn frames_that_no_set_has_are_refused() {
        let mut unsized_frame = Vec::new();
        zstd::stream::copy_encode(&b"Jane Doe"[..], &mut unsized_frame, 3).unwrap();
        assert!(error(&unsized_frame, 8).contains("does not say"));
        let large = frame(&vec![0; LARGEST + 1]);
        assert!(error(&large, u64::MAX).contains("larger than any"));
    }
}
