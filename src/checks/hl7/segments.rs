//! A file of messages as segments and frames: the bytes that end and wrap them, and nothing of what they mean.

use std::fs::File;
use std::io::{BufRead, BufReader};

use super::CheckError;

/// The longest segment: a document in base64 is one.
const MAX_SEGMENT: usize = 64 << 20;

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// MLLP: a frame begins.
    FrameStart,
    /// MLLP: a frame ends.
    FrameEnd,
    /// A segment that is not empty.
    Segment {
        /// Without what ends it.
        text: &'a [u8],
        /// Whether something ended it, be it a carriage return or, as files often have it, a line feed.
        terminated: bool,
    },
}

/// Reads segments one at a time.
pub(super) struct Segments {
    reader: BufReader<File>,
    text: Vec<u8>,
    /// What ended the last segment, where that means something itself.
    pending: Option<u8>,
}

const START: u8 = 0x0b;
const END: u8 = 0x1c;

impl Segments {
    pub(super) fn new(file: File) -> Self {
        Self { reader: BufReader::with_capacity(64 << 10, file), text: Vec::new(), pending: None }
    }

    pub(super) fn next(&mut self) -> Result<Option<Token<'_>>, CheckError> {
        match self.pending.take() {
            Some(START) => return Ok(Some(Token::FrameStart)),
            Some(_) => return Ok(Some(Token::FrameEnd)),
            None => {}
        }
        self.text.clear();
        loop {
            let chunk = self.reader.fill_buf()?;
            if chunk.is_empty() {
                let token = Token::Segment { text: &self.text, terminated: false };
                return Ok((!self.text.is_empty()).then_some(token));
            }
            let Some(at) = chunk.iter().position(|b| matches!(*b, b'\r' | b'\n' | START | END)) else {
                let length = chunk.len();
                self.text.extend_from_slice(chunk);
                self.reader.consume(length);
                if self.text.len() > MAX_SEGMENT {
                    return Err(CheckError::TooLarge(format!("a segment is larger than {MAX_SEGMENT} bytes")));
                }
                continue;
            };
            let mark = chunk[at];
            self.text.extend_from_slice(&chunk[..at]);
            self.reader.consume(at + 1);
            let is_frame = matches!(mark, START | END);
            match (self.text.is_empty(), is_frame) {
                (true, false) => {}
                (true, true) => return Ok(Some(if mark == START { Token::FrameStart } else { Token::FrameEnd })),
                (false, _) => {
                    self.pending = is_frame.then_some(mark);
                    return Ok(Some(Token::Segment { text: &self.text, terminated: true }));
                }
            }
        }
    }
}
