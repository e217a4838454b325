//! One DICOM file, read to its end.
//!
//! Tokens are dicom-rs's; values are skipped but for the few that are asked for. Its reader takes a value that is shorter than its
//! length says for whole, and an end within a sequence for the end; both are told here, by the file's own length.

use std::cell::Cell;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;

use dicom_core::Tag;
use dicom_encoding::transfer_syntax::{Endianness, TransferSyntaxIndex};
use dicom_object::FileMetaTable;
use dicom_parser::StatefulDecode;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use crate::domain::RecordProblem;

/// The class of a directory of instances, which is none itself.
pub(super) const DIRECTORY: &str = "1.2.840.10008.1.3.10";
/// The most that a file's own head may hold.
const MAX_HEAD: u64 = 1 << 20;
/// The longest value that is kept: ids have 64 characters, paths in directories 143.
const MAX_VALUE: u32 = 1_024;
/// How deep sequences and their items may lie in each other.
const MAX_DEPTH: usize = 128;

/// What came of reading a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is whole, and of this class.
    Whole { class: String },
    /// It is broken.
    Broken(RecordProblem),
    /// It is written in a way that is not read here.
    Foreign,
}

/// What is met on the way.
pub(super) enum Met<'a> {
    /// A value that is short enough to be kept.
    Value { tag: Tag, depth: usize, value: &'a [u8], big_endian: bool },
    /// Pixels: their bytes, where they are not compressed.
    Pixels { depth: usize, bytes: Option<u64> },
    /// An item of a sequence ends.
    ItemEnd { depth: usize },
}

/// What a sequence or item that is open is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Sequence,
    Item,
}

const PIXELS: [Tag; 3] = [Tag(0x7fe0, 0x0008), Tag(0x7fe0, 0x0009), Tag(0x7fe0, 0x0010)];

/// Reads a file of `size` bytes, and gives what is `wanted` to `see`.
///
/// # Errors
/// The file could not be read at all.
pub(super) fn read(file: File, size: u64, wanted: impl Fn(Tag) -> bool, mut see: impl FnMut(Met<'_>)) -> io::Result<Outcome> {
    let ended = Rc::new(Cell::new(false));
    let mut reader = BufReader::with_capacity(64 << 10, Noticing { file, ended: Rc::clone(&ended) });
    let problem = |error: &(dyn Error + 'static)| problem(error, ended.get());
    let mut preamble = [0; 128];
    if let Err(error) = reader.read_exact(&mut preamble) {
        return problem(&error).map(Outcome::Broken);
    }
    let meta = match FileMetaTable::from_reader((&mut reader).take(MAX_HEAD)) {
        Ok(meta) => meta,
        Err(error) => return problem(&error).map(Outcome::Broken),
    };
    let class = meta.media_storage_sop_class_uid().to_owned();
    // deflated and private ones are read by few, and not by us
    let Some(syntax) =
        TransferSyntaxRegistry.get(meta.transfer_syntax()).filter(|syntax| syntax.is_codec_free() || syntax.is_encapsulated_pixel_data())
    else {
        return Ok(Outcome::Foreign);
    };
    let big_endian = syntax.endianness() == Endianness::Big;
    let mut tokens = match LazyDataSetReader::new_with_ts(reader, syntax) {
        Ok(tokens) => tokens,
        Err(error) => return problem(&error).map(Outcome::Broken),
    };
    let (mut open, mut value) = (Vec::<Level>::new(), Vec::new());
    let depth_of = |open: &[Level]| open.iter().filter(|level| **level == Level::Sequence).count();
    while let Some(token) = tokens.advance() {
        let token = match token {
            Ok(token) => token,
            Err(error) => return problem(&error).map(Outcome::Broken),
        };
        let depth = depth_of(&open);
        match token {
            LazyDataToken::SequenceStart { .. } => open.push(Level::Sequence),
            LazyDataToken::PixelSequenceStart => {
                see(Met::Pixels { depth, bytes: None });
                open.push(Level::Sequence);
            }
            LazyDataToken::ItemStart { .. } => open.push(Level::Item),
            // what ends without having begun is not left to the reader, which would rely on it
            LazyDataToken::ItemEnd => match open.pop() {
                Some(Level::Item) => see(Met::ItemEnd { depth }),
                _ => return Ok(Outcome::Broken(RecordProblem::Unreadable)),
            },
            LazyDataToken::SequenceEnd => match open.pop() {
                Some(Level::Sequence) => {}
                _ => return Ok(Outcome::Broken(RecordProblem::Unreadable)),
            },
            LazyDataToken::LazyValue { header, decoder } => {
                if depth == 0 && PIXELS.contains(&header.tag) {
                    see(Met::Pixels { depth, bytes: header.len.get().map(u64::from) });
                }
                let length = header.len.0;
                let read = if wanted(header.tag) && length <= MAX_VALUE {
                    value.clear();
                    let read = decoder.read_to(length, &mut value);
                    see(Met::Value { tag: header.tag, depth, value: &value, big_endian });
                    read
                } else {
                    decoder.skip_bytes(length)
                };
                if let Err(error) = read {
                    return problem(&error).map(Outcome::Broken);
                }
            }
            LazyDataToken::LazyItemValue { len, decoder } => {
                if let Err(error) = decoder.skip_bytes(len) {
                    return problem(&error).map(Outcome::Broken);
                }
            }
            _ => {}
        }
        if open.len() > MAX_DEPTH {
            return Ok(Outcome::Broken(RecordProblem::Unreadable));
        }
    }
    let whole = open.is_empty() && tokens.into_decoder().position() == size;
    Ok(if whole { Outcome::Whole { class } } else { Outcome::Broken(RecordProblem::Truncated) })
}

/// What an error says of the file.
///
/// # Errors
/// It is the disk's, and says nothing of it.
fn problem(error: &(dyn Error + 'static), ended: bool) -> io::Result<RecordProblem> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::UnexpectedEof => Ok(RecordProblem::Truncated),
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => break,
                kind => Err(kind.into()),
            };
        }
        cause = error.source();
    }
    Ok(if ended { RecordProblem::Truncated } else { RecordProblem::Unreadable })
}

/// A file that notices when somebody wants more than there is: not every error of the reader tells.
struct Noticing {
    file: File,
    ended: Rc<Cell<bool>>,
}

impl Read for Noticing {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        if read == 0 && !into.is_empty() {
            self.ended.set(true);
        }
        Ok(read)
    }
}

impl Seek for Noticing {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
