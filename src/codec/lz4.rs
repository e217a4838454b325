//! lz4 frames, by the format's description; only the blocks themselves are decoded by `lz4_flex`.
//!
//! Its own frame reader takes a stream without its end mark for whole, and panics on frames of different block sizes in a
//! row; both are what a restore test must not do.

use std::io::{self, BufRead, Read};

use super::error::read_full;
use super::{CodecError, Layer};

const MAGIC: u32 = 0x184d_2204;
const LEGACY: u32 = 0x184c_2102;
/// How far a linked block looks back.
const WINDOW: usize = 64 << 10;

/// Reads lz4 frames, several in a row as one stream.
pub(super) struct Lz4Reader<R> {
    input: R,
    frame: Option<Frame>,
    any: bool,
    stored: Vec<u8>,
    /// The window before the block, and the block.
    plain: Vec<u8>,
    at: usize,
}

/// What a frame's header says.
struct Frame {
    block_size: usize,
    linked: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
    hash: Xxh32,
    written: u64,
}

fn damaged(detail: &str) -> io::Error {
    CodecError::Damaged { layer: Layer::Lz4, detail: detail.to_owned() }.into()
}

fn cut() -> io::Error {
    CodecError::Truncated { layer: Layer::Lz4, detail: "it ends within a frame" }.into()
}

impl<R: BufRead> Lz4Reader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, frame: None, any: false, stored: Vec::new(), plain: Vec::new(), at: 0 }
    }

    fn exact<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        if read_full(&mut self.input, &mut bytes)? < N { Err(cut()) } else { Ok(bytes) }
    }

    /// Begins the next frame; `false` at the end of the stream.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.input.fill_buf()?.is_empty() {
                return if self.any { Ok(false) } else { Err(CodecError::Empty { layer: Layer::Lz4 }.into()) };
            }
            match u32::from_le_bytes(self.exact()?) {
                MAGIC => break,
                LEGACY => {
                    return Err(CodecError::Unsupported {
                        layer: Layer::Lz4,
                        detail: "a legacy frame (lz4 -l), which has no end and no checksum; write frames of the current format",
                    }
                    .into());
                }
                magic if magic & 0xffff_fff0 == 0x184d_2a50 => {
                    let size = u64::from(u32::from_le_bytes(self.exact()?));
                    if io::copy(&mut (&mut self.input).take(size), &mut io::sink())? < size {
                        return Err(cut());
                    }
                }
                _ if self.any => return Err(CodecError::Trailing { layer: Layer::Lz4 }.into()),
                _ => return Err(damaged("it does not begin as lz4 does")),
            }
        }
        let mut descriptor = self.exact::<2>()?.to_vec();
        let (flags, block) = (descriptor[0], descriptor[1]);
        if flags >> 6 != 1 || flags & 0b10 != 0 || block & 0b1000_1111 != 0 {
            return Err(damaged("a frame's header is malformed"));
        }
        let content_size = if flags & 0b1000 != 0 {
            let bytes: [u8; 8] = self.exact()?;
            descriptor.extend_from_slice(&bytes);
            Some(u64::from_le_bytes(bytes))
        } else {
            None
        };
        if flags & 1 != 0 {
            return Err(CodecError::Unsupported { layer: Layer::Lz4, detail: "a dictionary is needed that is not in the stream" }.into());
        }
        let [check] = self.exact()?;
        if check != (Xxh32::of(&descriptor) >> 8) as u8 {
            return Err(damaged("a frame's header does not match its checksum"));
        }
        let block_size = match block >> 4 {
            code @ 4..=7 => 1usize << (8 + 2 * code),
            _ => return Err(damaged("a frame's block size is none")),
        };
        self.frame = Some(Frame {
            block_size,
            linked: flags & 0b10_0000 == 0,
            block_checksums: flags & 0b1_0000 != 0,
            content_checksum: flags & 0b100 != 0,
            content_size,
            hash: Xxh32::default(),
            written: 0,
        });
        self.any = true;
        self.plain.clear();
        self.at = 0;
        Ok(true)
    }

    /// Decodes the next block of the open frame; `false` after its end mark.
    fn next_block(&mut self) -> io::Result<bool> {
        let word = u32::from_le_bytes(self.exact()?);
        let Some(mut frame) = self.frame.take() else { return Ok(false) };
        if word == 0 {
            if frame.content_checksum && u32::from_le_bytes(self.exact()?) != frame.hash.finish() {
                return Err(damaged("the content does not match its checksum"));
            }
            if frame.content_size.is_some_and(|size| size != frame.written) {
                return Err(damaged("the content has another size than its header says"));
            }
            return Ok(false);
        }
        let size = (word & 0x7fff_ffff) as usize;
        if size > frame.block_size {
            return Err(damaged("a block is larger than its frame allows"));
        }
        self.stored.resize(size, 0);
        if read_full(&mut self.input, &mut self.stored)? < size {
            return Err(cut());
        }
        if frame.block_checksums && u32::from_le_bytes(self.exact()?) != Xxh32::of(&self.stored) {
            return Err(damaged("a block does not match its checksum"));
        }
        // what linked blocks may look back to stays in front
        let keep = if frame.linked { self.plain.len().min(WINDOW) } else { 0 };
        self.plain.drain(..self.plain.len() - keep);
        if word & 0x8000_0000 != 0 {
            self.plain.extend_from_slice(&self.stored);
        } else {
            self.plain.resize(keep + frame.block_size, 0);
            let (before, block) = self.plain.split_at_mut(keep);
            let n =
                lz4_flex::block::decompress_into_with_dict(&self.stored, block, before).map_err(|_| damaged("a block does not decode"))?;
            self.plain.truncate(keep + n);
        }
        self.at = keep;
        let block = &self.plain[keep..];
        frame.written += block.len() as u64;
        if frame.content_checksum {
            frame.hash.update(block);
        }
        self.frame = Some(frame);
        Ok(true)
    }
}

impl<R: BufRead> Read for Lz4Reader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        while self.at == self.plain.len() {
            let more = if self.frame.is_some() { self.next_block()? || self.begin()? } else { self.begin()? };
            if !more {
                return Ok(0);
            }
        }
        let n = (self.plain.len() - self.at).min(buf.len());
        buf[..n].copy_from_slice(&self.plain[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// XXH32 with seed 0, piece by piece.
#[derive(Debug, Clone)]
struct Xxh32 {
    lanes: [u32; 4],
    pending: Vec<u8>,
    total: u64,
}

const P1: u32 = 0x9e37_79b1;
const P2: u32 = 0x85eb_ca77;
const P3: u32 = 0xc2b2_ae3d;
const P4: u32 = 0x27d4_eb2f;
const P5: u32 = 0x1656_67b1;

impl Default for Xxh32 {
    fn default() -> Self {
        Self { lanes: [P1.wrapping_add(P2), P2, 0, 0u32.wrapping_sub(P1)], pending: Vec::new(), total: 0 }
    }
}

impl Xxh32 {
    fn of(bytes: &[u8]) -> u32 {
        let mut hash = Self::default();
        hash.update(bytes);
        hash.finish()
    }

    fn update(&mut self, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if !self.pending.is_empty() {
            let n = (16 - self.pending.len()).min(bytes.len());
            self.pending.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.pending.len() < 16 {
                return;
            }
            let stripe = std::mem::take(&mut self.pending);
            self.stripes(&stripe);
        }
        let whole = bytes.len() & !15;
        self.stripes(&bytes[..whole]);
        self.pending.extend_from_slice(&bytes[whole..]);
    }

    fn stripes(&mut self, bytes: &[u8]) {
        let mut lanes = self.lanes;
        for stripe in bytes.as_chunks::<16>().0 {
            for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<4>().0) {
                *lane = lane.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(P2)).rotate_left(13).wrapping_mul(P1);
            }
        }
        self.lanes = lanes;
    }

    fn finish(&self) -> u32 {
        let [a, b, c, d] = self.lanes;
        let mut hash = if self.total >= 16 {
            a.rotate_left(1).wrapping_add(b.rotate_left(7)).wrapping_add(c.rotate_left(12)).wrapping_add(d.rotate_left(18))
        } else {
            P5
        };
        // the length counts modulo 2^32
        hash = hash.wrapping_add(self.total as u32);
        let (words, rest) = self.pending.as_chunks::<4>();
        for word in words {
            hash = hash.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(P3)).rotate_left(17).wrapping_mul(P4);
        }
        for byte in rest {
            hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
        }
        hash = (hash ^ (hash >> 15)).wrapping_mul(P2);
        hash = (hash ^ (hash >> 13)).wrapping_mul(P3);
        hash ^ (hash >> 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_xxh32() {
        assert_eq!(Xxh32::of(b""), 0x02cc_5d05);
        assert_eq!(Xxh32::of(b"a"), 0x550d_7456);
        assert_eq!(Xxh32::of(b"abc"), 0x32d1_53ff);
        assert_eq!(Xxh32::of(b"Nobody inspects the spammish repetition"), 0xe229_3b2f);
        let mut pieces = Xxh32::default();
        b"Nobody inspects the spammish repetition".chunks(7).for_each(|piece| pieces.update(piece));
        assert_eq!(pieces.finish(), 0xe229_3b2f);
    }
}
