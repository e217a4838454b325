//! What was read of one object version: [`RangeRead`]s, packed. A tool may make millions of them.

use crate::domain::{Blake3, RangeRead, Reader};

const WITH_DIGEST: u8 = 0x10;
const CUT_SHORT: u8 = 0x20;
const ELSEWHERE: u8 = 0x40;

/// Reads in the order they ended. About 36 bytes each where there is a digest, 4 where there is none.
#[derive(Debug, Default)]
pub(super) struct Reads {
    packed: Vec<u8>,
    /// The last one is kept as it is: the next may continue it.
    last: Option<RangeRead>,
}

impl Reads {
    /// Adds a read; neighbours of the same reader without digests of their own become one.
    pub(super) fn push(&mut self, read: RangeRead) {
        let continues = |last: &RangeRead| {
            let both_plain = last.blake3.or(read.blake3).is_none();
            both_plain && last.by == read.by && last.end == read.start && last.bytes == last.end - last.start
        };
        if let Some(last) = self.last.as_mut().filter(|last| continues(last)) {
            last.end = read.end;
            last.bytes += read.bytes;
            return;
        }
        if let Some(last) = self.last.replace(read) {
            pack(&mut self.packed, &last);
        }
    }

    pub(super) fn to_vec(&self) -> Vec<RangeRead> {
        unpack(&self.packed).chain(self.last).collect()
    }
}

fn pack(out: &mut Vec<u8>, read: &RangeRead) {
    let length = read.end - read.start;
    let by = match read.by {
        Reader::Pipeline => 0,
        Reader::Mirror => 1,
        Reader::Tool => 2,
    };
    let cut = if read.bytes == length { 0 } else { CUT_SHORT };
    let digest = if read.blake3.is_some() { WITH_DIGEST } else { 0 };
    let place = if read.start == 0 { 0 } else { ELSEWHERE };
    out.push(by | cut | digest | place);
    if read.start != 0 {
        number(out, read.start);
    }
    number(out, length);
    if read.bytes != length {
        number(out, read.bytes);
    }
    if let Some(Blake3(digest)) = read.blake3 {
        out.extend_from_slice(&digest);
    }
}

/// Seven bits a byte, the lowest first.
fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn unpack(mut packed: &[u8]) -> impl Iterator<Item = RangeRead> + '_ {
    std::iter::from_fn(move || {
        let (&tag, mut rest) = packed.split_first()?;
        let by = match tag & 0x0f {
            0 => Reader::Pipeline,
            1 => Reader::Mirror,
            _ => Reader::Tool,
        };
        let start = if tag & ELSEWHERE != 0 { take(&mut rest)? } else { 0 };
        let length = take(&mut rest)?;
        let bytes = if tag & CUT_SHORT != 0 { take(&mut rest)? } else { length };
        let blake3 = if tag & WITH_DIGEST != 0 {
            let (digest, after) = rest.split_first_chunk::<32>()?;
            rest = after;
            Some(Blake3(*digest))
        } else {
            None
        };
        packed = rest;
        Some(RangeRead { by, start, end: start + length, bytes, blake3 })
    })
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(by: Reader, start: u64, length: u64, missing: u64, digest: Option<u8>) -> RangeRead {
        let blake3 = digest.map(|byte| Blake3([byte; 32]));
        RangeRead { by, start, end: start + length, bytes: length - missing.min(length), blake3 }
    }

    #[test]
    fn neighbours_without_digests_are_one() {
        let mut reads = Reads::default();
        for start in [0, 10, 20, 40] {
            reads.push(read(Reader::Pipeline, start, 10, 0, None));
        }
        reads.push(read(Reader::Tool, 50, 10, 0, None));
        reads.push(read(Reader::Tool, 60, 10, 4, None));
        reads.push(read(Reader::Tool, 70, 10, 0, None));
        let got: Vec<_> = reads.to_vec().iter().map(|r| (r.by, r.start, r.end, r.bytes)).collect();
        let want = [(Reader::Pipeline, 0, 30, 30), (Reader::Pipeline, 40, 50, 10), (Reader::Tool, 50, 70, 16), (Reader::Tool, 70, 80, 10)];
        assert_eq!(got, want);
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(
            made in proptest::collection::vec((0u64..1 << 50, 1u64..1 << 40, 0u64..3, proptest::option::of(any::<u8>()), 0usize..3), 0..40)
        ) {
            // a digest keeps them apart
            let all: Vec<_> = made.iter().map(|(start, length, missing, digest, by)| {
                read([Reader::Pipeline, Reader::Mirror, Reader::Tool][*by], *start, *length, *missing, digest.or(Some(1)))
            }).collect();
            let mut reads = Reads::default();
            all.iter().for_each(|r| reads.push(*r));
            prop_assert_eq!(reads.to_vec(), all);
        }
    }
}
