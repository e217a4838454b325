//! Which instance of which series a file holds, and whether its pixels are as many as it says.

use std::fs::File;
use std::io;

use dicom_core::Tag;
use jiff::tz::TimeZone;

use super::tokens::{DIRECTORY, Met, Outcome, read};
use crate::checks::records::{Dated, instant};
use crate::domain::{RecordProblem, Timestamp};

const SOP_INSTANCE: Tag = Tag(0x0008, 0x0018);
const SERIES: Tag = Tag(0x0020, 0x000e);
const ZONE: Tag = Tag(0x0008, 0x0201);
/// Date and time of an instance, the closest to its making first: its own, its content's, its series', its study's.
const TIMES: [(Tag, Tag); 4] = [
    (Tag(0x0008, 0x0012), Tag(0x0008, 0x0013)),
    (Tag(0x0008, 0x0023), Tag(0x0008, 0x0033)),
    (Tag(0x0008, 0x0021), Tag(0x0008, 0x0031)),
    (Tag(0x0008, 0x0020), Tag(0x0008, 0x0030)),
];
const SAMPLES: Tag = Tag(0x0028, 0x0002);
const PHOTOMETRIC: Tag = Tag(0x0028, 0x0004);
const FRAMES: Tag = Tag(0x0028, 0x0008);
const ROWS: Tag = Tag(0x0028, 0x0010);
const COLUMNS: Tag = Tag(0x0028, 0x0011);
const BITS: Tag = Tag(0x0028, 0x0100);
/// Where pixels are, if not here.
const PROVIDER: Tag = Tag(0x0028, 0x7fe0);

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Held {
    Instance(Instance),
    /// A directory of others.
    Directory,
    Broken(RecordProblem),
    /// Written in a way that is not read here.
    Foreign,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Instance {
    pub(super) id: String,
    pub(super) series: String,
    pub(super) made: Option<Timestamp>,
}

/// What is said of pixels, and how many there are.
#[derive(Default)]
struct Image {
    rows: Option<u64>,
    columns: Option<u64>,
    samples: Option<u64>,
    bits: Option<u64>,
    frames: Option<u64>,
    subsampled: bool,
    elsewhere: bool,
    /// Those that are here: their bytes, where they are not compressed.
    pixels: Option<Option<u64>>,
}

impl Image {
    /// Fewer than it says, or none.
    fn falls_short(&self) -> bool {
        let (Some(rows), Some(columns)) = (self.rows, self.columns) else { return false };
        let Some(pixels) = self.pixels else { return !self.elsewhere };
        let (Some(bytes), Some(bits), false) = (pixels, self.bits, self.subsampled) else { return false };
        let samples = rows.saturating_mul(columns).saturating_mul(self.samples.unwrap_or(1)).saturating_mul(self.frames.unwrap_or(1));
        bytes < samples.saturating_mul(bits).div_ceil(8)
    }
}

/// Reads a file of `size` bytes; times without a zone are in `zone`.
///
/// # Errors
/// The file could not be read at all.
pub(super) fn look(file: File, size: u64, zone: Option<&TimeZone>) -> io::Result<Held> {
    let (mut id, mut series, mut image, mut offset) = (None, None, Image::default(), String::new());
    let mut times: [(String, String); TIMES.len()] = Default::default();
    let wanted = |tag: Tag| {
        let asked = [SOP_INSTANCE, SERIES, ZONE, SAMPLES, PHOTOMETRIC, FRAMES, ROWS, COLUMNS, BITS, PROVIDER];
        asked.contains(&tag) || TIMES.iter().any(|(date, time)| tag == *date || tag == *time)
    };
    let outcome = read(file, size, wanted, |met| match met {
        Met::Value { tag, depth: 0, value, big_endian } => {
            let text = || String::from_utf8_lossy(value).trim_matches(['\0', ' ']).to_owned();
            let number = || match value {
                [a, b, ..] if big_endian => Some(u64::from(u16::from_be_bytes([*a, *b]))),
                [a, b, ..] => Some(u64::from(u16::from_le_bytes([*a, *b]))),
                _ => None,
            };
            match tag {
                SOP_INSTANCE => id = Some(text()),
                SERIES => series = Some(text()),
                ZONE => offset = text(),
                SAMPLES => image.samples = number(),
                // whose colours are stored for every other pixel
                PHOTOMETRIC => image.subsampled = text().contains("_42"),
                FRAMES => image.frames = text().parse().ok(),
                ROWS => image.rows = number(),
                COLUMNS => image.columns = number(),
                BITS => image.bits = number(),
                PROVIDER => image.elsewhere = true,
                _ => {
                    for ((date, time), kept) in TIMES.iter().zip(&mut times) {
                        if tag == *date {
                            kept.0 = text();
                        } else if tag == *time {
                            kept.1 = text();
                        }
                    }
                }
            }
        }
        Met::Pixels { depth: 0, bytes } => image.pixels = Some(bytes),
        _ => {}
    })?;
    let class = match outcome {
        Outcome::Broken(problem) => return Ok(Held::Broken(problem)),
        Outcome::Foreign => return Ok(Held::Foreign),
        Outcome::Whole { class } => class,
    };
    if class == DIRECTORY {
        return Ok(Held::Directory);
    }
    let (Some(id), Some(series)) = (id.filter(|id| !id.is_empty()), series.filter(|series| !series.is_empty())) else {
        return Ok(Held::Broken(RecordProblem::Unreadable));
    };
    if image.falls_short() {
        return Ok(Held::Broken(RecordProblem::Truncated));
    }
    let date = times.iter().find(|(date, _)| !date.is_empty());
    // old ones wrote times with colons
    let made = date.and_then(|(date, time)| {
        let text: String = format!("{date}{time}").chars().filter(|c| *c != ':').collect();
        instant(&(text + &offset), zone)
    });
    Ok(Held::Instance(Instance { id, series, made: made.and_then(|made| if let Dated::At(at) = made { Some(at) } else { None }) }))
}
