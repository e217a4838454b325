//! tar as it is found in the wild: v7, ustar, GNU (long names, sparse) and PAX (times, attributes, sparse 0.0, 0.1, 1.0).
//!
//! A reader that tells entries and gives their data; it touches no file system and joins no paths. It demands the end of
//! the archive, which the usual crates do not, and counts what it passes over. GNU tar is the reference for what headers
//! mean where the standards leave it open.

mod header;
mod pax;
mod sparse;
mod write;

use std::collections::BTreeMap;
use std::io::{self, BufRead};

pub use header::begins_as_tar;
pub use write::TarWriter;

use crate::codec::{CodecError, Layer};
use crate::domain::Xattr;
use header::{BLOCK, Block, number, text};
use pax::Pax;
use sparse::{Extent, SparseMap};

/// Longest extended header that is read: attributes of 64 KiB each, and long names.
const MAX_EXTENDED: u64 = 4 << 20;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of so many bytes, holes included.
    File {
        /// Bytes.
        size: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// What it says.
        target: Vec<u8>,
    },
    /// Another name of an earlier entry.
    Hardlink {
        /// The earlier entry's path, as written.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A device node.
    Device {
        /// Whether it is a block device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// One entry's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// Its path, exactly as written.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner's number.
    pub uid: u32,
    /// Group's number.
    pub gid: u32,
    /// Modification time, whole seconds.
    pub mtime: i64,
    /// Nanoseconds past it.
    pub mtime_ns: u32,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
}

/// Whether the archive's end must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Two zero blocks, and nothing but zeros after them.
    Demanded,
    /// A stretch of an archive: it ends with an entry.
    Open,
}

/// Reads a tar archive from its beginning to its end.
pub struct TarReader<R> {
    input: R,
    ending: Ending,
    ended: bool,
    global: Pax,
    /// Data of the current entry that has not been read, with its padding.
    unread: u64,
    data: Data,
    skipped: BTreeMap<&'static str, u64>,
}

/// How the current entry's data lies in the archive.
#[derive(Default)]
enum Data {
    #[default]
    None,
    Plain {
        size: u64,
    },
    Sparse(SparseMap),
}

fn damaged(detail: &str) -> io::Error {
    CodecError::Damaged { layer: Layer::Tar, detail: detail.to_owned() }.into()
}

fn truncated(detail: &'static str) -> io::Error {
    CodecError::Truncated { layer: Layer::Tar, detail }.into()
}

/// What extended headers said about the entry that follows them.
#[derive(Default)]
struct Pending {
    pax: Pax,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: BufRead> TarReader<R> {
    /// A reader of the archive that `input` stands at.
    pub fn new(input: R, ending: Ending) -> Self {
        Self { input, ending, ended: false, global: Pax::default(), unread: 0, data: Data::None, skipped: BTreeMap::new() }
    }

    /// Entries that were passed over because they are nothing to restore, by what they are.
    pub fn skipped(&self) -> &BTreeMap<&'static str, u64> {
        &self.skipped
    }

    /// The input back, as when the next stretch is to be read.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next entry; data of the one before that was not read is passed over. `None` at the end, which was checked.
    ///
    /// # Errors
    /// A [`CodecError`] inside the [`io::Error`], or the source's own error.
    pub fn next_entry(&mut self) -> io::Result<Option<TarEntry>> {
        let unread = std::mem::take(&mut self.unread);
        self.skip(unread)?;
        self.data = Data::None;
        let mut pending = Pending::default();
        let mut half = false;
        while !self.ended {
            let Some(block) = self.read_block()? else {
                return match self.ending {
                    _ if half => Err(truncated("it ends after an extended header")),
                    Ending::Open => {
                        self.ended = true;
                        Ok(None)
                    }
                    Ending::Demanded => Err(truncated("its end-of-archive blocks are missing")),
                };
            };
            if block.is_zero() {
                if half {
                    return Err(damaged("an extended header is followed by no entry"));
                }
                self.read_end()?;
                return Ok(None);
            }
            block.check().map_err(damaged)?;
            half = true;
            match block.kind() {
                b'x' | b'X' => pending.pax = Pax::parse(&self.read_extended(&block)?).map_err(damaged)?,
                b'g' => {
                    let more = Pax::parse(&self.read_extended(&block)?).map_err(damaged)?;
                    self.global.merge(more);
                    half = false;
                }
                b'L' => pending.name = Some(text(&self.read_extended(&block)?).to_vec()),
                b'K' => pending.link = Some(text(&self.read_extended(&block)?).to_vec()),
                b'V' => {
                    self.pass("volume label", &block)?;
                    pending = Pending::default();
                    half = false;
                }
                b'M' | b'N' => {
                    return Err(CodecError::Unsupported {
                        layer: Layer::Tar,
                        detail: "it is one volume of several; join them into one archive",
                    }
                    .into());
                }
                b'0' | 0 | b'1'..=b'7' | b'S' | b'D' => return self.entry(&block, pending).map(Some),
                _ => {
                    self.pass("entry of an unknown type", &block)?;
                    pending = Pending::default();
                    half = false;
                }
            }
        }
        Ok(None)
    }

    /// Gives the current entry's data, in order, each piece with its offset in the file; what lies between pieces, and
    /// from the last one to the file's size, is a hole. Gives nothing for entries that are no regular files.
    ///
    /// # Errors
    /// `sink`'s, or as [`TarReader::next_entry`].
    pub fn read_data<E: From<io::Error>>(&mut self, mut sink: impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), E> {
        match std::mem::take(&mut self.data) {
            Data::None => Ok(()),
            Data::Plain { size } => self.read_extent(Extent { offset: 0, length: size }, &mut sink),
            Data::Sparse(map) => map.extents().iter().try_for_each(|extent| self.read_extent(*extent, &mut sink)),
        }
    }

    fn read_extent<E: From<io::Error>>(&mut self, extent: Extent, sink: &mut impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let (mut at, mut left) = (extent.offset, extent.length);
        while left > 0 {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Err(truncated("it ends within a file").into());
            }
            let n = available.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let result = sink(at, &available[..n]);
            self.input.consume(n);
            (at, left, self.unread) = (at + n as u64, left - n as u64, self.unread - n as u64);
            result?;
        }
        Ok(())
    }

    /// Puts together what header and extended headers say.
    fn entry(&mut self, block: &Block, pending: Pending) -> io::Result<TarEntry> {
        let Pending { pax, name, link } = pending;
        let global = &self.global;
        let pax = pax.over(global);
        let mut path = pax.path().or(name).unwrap_or_else(|| block.path());
        let link = || pax.linkpath().or(link).unwrap_or_else(|| text(block.link()).to_vec());
        let mut size = match pax.size().map_err(damaged)? {
            Some(size) => size,
            None => block.size().map_err(damaged)?,
        };
        let kind = match block.kind() {
            // v7 has no directories but by their name
            b'0' | 0 if path.ends_with(b"/") => Kind::Dir,
            b'0' | 0 | b'7' | b'S' => Kind::File { size },
            b'1' => Kind::Hardlink { target: link() },
            b'2' => Kind::Symlink { target: link() },
            b'3' | b'4' => Kind::Device {
                block: block.kind() == b'4',
                major: u32::try_from(number(block.major()).map_err(damaged)?).unwrap_or(u32::MAX),
                minor: u32::try_from(number(block.minor()).map_err(damaged)?).unwrap_or(u32::MAX),
            },
            b'6' => Kind::Fifo,
            _ => Kind::Dir,
        };
        // only these have data behind their header, whatever the size field says; so does GNU tar read it
        if !matches!(kind, Kind::File { .. }) && block.kind() != b'D' {
            size = 0;
        }
        self.unread = padded(size).ok_or_else(|| damaged("an entry's size is out of range"))?;
        self.data = if matches!(kind, Kind::File { .. }) { Data::Plain { size } } else { Data::None };
        let mut kind = kind;
        if let Kind::File { .. } = kind {
            let map = if block.kind() == b'S' { Some(self.read_gnu_sparse(block, size)?) } else { self.read_pax_sparse(&pax, size)? };
            if let Some(map) = map {
                if let Some(name) = pax.sparse_name() {
                    path = name;
                }
                kind = Kind::File { size: map.size() };
                self.data = Data::Sparse(map);
            }
        }
        let (mtime, mtime_ns) = match pax.mtime().map_err(damaged)? {
            Some(time) => time,
            None => (number(block.mtime()).map_err(damaged)?, 0),
        };
        let id = |pax: Option<u64>, field: &[u8]| -> io::Result<u32> {
            let value = match pax {
                Some(value) => i64::try_from(value).unwrap_or(i64::MAX),
                None => number(field).map_err(damaged)?,
            };
            Ok(u32::try_from(value).unwrap_or(u32::MAX))
        };
        Ok(TarEntry {
            path,
            kind,
            mode: (number(block.mode()).map_err(damaged)? & 0o7777) as u32,
            uid: id(pax.uid().map_err(damaged)?, block.uid())?,
            gid: id(pax.gid().map_err(damaged)?, block.gid())?,
            mtime,
            mtime_ns,
            xattrs: pax.xattrs().map_err(damaged)?,
        })
    }

    /// The map of an old GNU sparse file: four extents in the header, the rest in blocks of their own.
    fn read_gnu_sparse(&mut self, block: &Block, stored: u64) -> io::Result<SparseMap> {
        let mut map = SparseMap::new(block.gnu_real_size().map_err(damaged)?);
        map.push_fields(block.gnu_sparse()).map_err(damaged)?;
        let mut more = block.gnu_sparse_continues();
        while more {
            let next = self.read_block()?.ok_or_else(|| truncated("it ends within a sparse file's map"))?;
            map.push_fields(&next.bytes()[..504]).map_err(damaged)?;
            more = next.bytes()[504] != 0;
        }
        map.finish(stored).map_err(damaged)?;
        Ok(map)
    }

    /// The map of a PAX sparse file, in whichever of the three ways it is written.
    fn read_pax_sparse(&mut self, pax: &Pax, stored: u64) -> io::Result<Option<SparseMap>> {
        let Some(size) = pax.sparse_size().map_err(damaged)? else { return Ok(None) };
        let mut map = SparseMap::new(size);
        let mut stored = stored;
        if pax.sparse_map_is_in_data() {
            // 1.0: decimal numbers, one a line, before the data, in whole blocks
            let mut numbers = sparse::MapText::default();
            loop {
                let block = self.read_block()?.ok_or_else(|| truncated("it ends within a sparse file's map"))?;
                stored = stored.checked_sub(BLOCK as u64).ok_or_else(|| damaged("a sparse file's map is longer than its data"))?;
                self.unread -= BLOCK as u64;
                if numbers.feed(block.bytes(), &mut map).map_err(damaged)? {
                    break;
                }
            }
        } else {
            for extent in pax.sparse_extents().map_err(damaged)? {
                map.push(extent).map_err(damaged)?;
            }
        }
        map.finish(stored).map_err(damaged)?;
        Ok(Some(map))
    }

    /// Reads the data of an extended header, whole.
    fn read_extended(&mut self, block: &Block) -> io::Result<Vec<u8>> {
        let size = block.size().map_err(damaged)?;
        if size > MAX_EXTENDED {
            return Err(damaged("an extended header is larger than any needs to be"));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        while (bytes.len() as u64) < size {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Err(truncated("it ends within an extended header"));
            }
            let n = available.len().min(size as usize - bytes.len());
            bytes.extend_from_slice(&available[..n]);
            self.input.consume(n);
        }
        self.skip(padded(size).expect("below the limit above") - size)?;
        Ok(bytes)
    }

    fn pass(&mut self, what: &'static str, block: &Block) -> io::Result<()> {
        *self.skipped.entry(what).or_default() += 1;
        let size = padded(block.size().map_err(damaged)?).ok_or_else(|| damaged("an entry's size is out of range"))?;
        self.skip(size)
    }

    fn skip(&mut self, mut bytes: u64) -> io::Result<()> {
        while bytes > 0 {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Err(truncated("it ends within an entry"));
            }
            let n = available.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.input.consume(n);
            bytes -= n as u64;
        }
        Ok(())
    }

    /// A block; `None` where the input ends before it.
    fn read_block(&mut self) -> io::Result<Option<Block>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return if filled == 0 { Ok(None) } else { Err(truncated("it ends within a header")) };
            }
            let n = available.len().min(BLOCK - filled);
            block[filled..filled + n].copy_from_slice(&available[..n]);
            self.input.consume(n);
            filled += n;
        }
        Ok(Some(Block::new(block)))
    }

    /// The first zero block has been read: a second one must follow, and after it nothing but zeros.
    fn read_end(&mut self) -> io::Result<()> {
        match self.read_block()? {
            None => return Err(truncated("the second of its end-of-archive blocks is missing")),
            Some(block) if !block.is_zero() => return Err(damaged("a lone zero block is in the middle of it")),
            Some(_) => {}
        }
        loop {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                self.ended = true;
                return Ok(());
            }
            if available.iter().any(|&b| b != 0) {
                return Err(CodecError::Trailing { layer: Layer::Tar }.into());
            }
            let n = available.len();
            self.input.consume(n);
        }
    }
}

/// `size` up to the next block's border.
fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(BLOCK as u64).filter(|n| *n <= i64::MAX as u64)
}

#[cfg(test)]
mod tests;
