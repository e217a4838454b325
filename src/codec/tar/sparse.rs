//! Maps of sparse files: which stretches of a file have data in the archive.

use super::header::number;
use super::pax::decimal;

/// No file has more pieces: 16 MiB of map.
const MAX_EXTENTS: usize = 1 << 20;

/// A stretch with data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// All stretches of a file, in order, apart from each other and within its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SparseMap {
    size: u64,
    extents: Vec<Extent>,
    stored: u64,
}

impl SparseMap {
    pub(super) fn new(size: u64) -> Self {
        Self { size, extents: Vec::new(), stored: 0 }
    }
    pub(super) fn size(&self) -> u64 {
        self.size
    }
    pub(super) fn extents(&self) -> &[Extent] {
        &self.extents
    }

    pub(super) fn push(&mut self, extent: Extent) -> Result<(), &'static str> {
        let end = extent.offset.checked_add(extent.length).filter(|end| *end <= self.size);
        let after = self.extents.last().map_or(0, |last| last.offset + last.length);
        if end.is_none() || extent.offset < after {
            return Err("a sparse file's map contradicts itself");
        }
        if self.extents.len() == MAX_EXTENTS {
            return Err("a sparse file's map is longer than any needs to be");
        }
        self.stored += extent.length;
        self.extents.push(extent);
        Ok(())
    }

    /// Old GNU: pairs of 12-byte numbers; an empty pair ends them.
    pub(super) fn push_fields(&mut self, fields: &[u8]) -> Result<(), &'static str> {
        for pair in fields.chunks_exact(24) {
            if pair[0] == 0 {
                break;
            }
            let read = |field| number(field).and_then(|n| u64::try_from(n).map_err(|_| "a sparse file's map has a negative number"));
            self.push(Extent { offset: read(&pair[..12])?, length: read(&pair[12..])? })?;
        }
        Ok(())
    }

    /// Whether the archive holds as much data as the map says.
    pub(super) fn finish(&self, stored: u64) -> Result<(), &'static str> {
        if self.stored == stored { Ok(()) } else { Err("a sparse file's map and its data differ in size") }
    }
}

/// Reads the text of a 1.0 map, block by block.
#[derive(Default)]
pub(super) struct MapText {
    digits: Vec<u8>,
    left: Option<u64>,
    offset: Option<u64>,
}

impl MapText {
    /// Takes a block; whether the map is complete with it.
    pub(super) fn feed(&mut self, block: &[u8], map: &mut SparseMap) -> Result<bool, &'static str> {
        const WRONG: &str = "a sparse file's map is malformed";
        for &byte in block {
            if self.left == Some(0) {
                return Ok(true);
            }
            if byte != b'\n' {
                if self.digits.len() >= 20 {
                    return Err(WRONG);
                }
                self.digits.push(byte);
                continue;
            }
            let value = decimal(&self.digits).ok_or(WRONG)?;
            self.digits.clear();
            match (self.left, self.offset.take()) {
                (None, _) if value > MAX_EXTENTS as u64 => return Err("a sparse file's map is longer than any needs to be"),
                (None, _) => self.left = Some(value),
                (Some(_), None) => self.offset = Some(value),
                (Some(left), Some(offset)) => {
                    map.push(Extent { offset, length: value })?;
                    self.left = Some(left - 1);
                }
            }
        }
        Ok(self.left == Some(0))
    }
}
