//! A sealed set's index, decrypted, in a file without a name: read again by the restore, and by checks after it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::codec::index::{IndexLine, read_line};
use crate::domain::FileEntry;

/// The lines of an index after its first.
#[derive(Debug, Clone)]
pub struct IndexFile {
    file: Arc<File>,
    bytes: u64,
    entries: u64,
}

impl IndexFile {
    pub(super) fn new(file: File, bytes: u64, entries: u64) -> Self {
        Self { file: Arc::new(file), bytes, entries }
    }

    /// How many entries it has.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// All its entries, in the order of their paths.
    pub fn iter(&self) -> IndexEntries {
        IndexEntries { lines: Lines::new(self) }
    }

    pub(super) fn lines(&self) -> Lines {
        Lines::new(self)
    }
}

impl IntoIterator for &IndexFile {
    type Item = io::Result<FileEntry>;
    type IntoIter = IndexEntries;
    fn into_iter(self) -> IndexEntries {
        self.iter()
    }
}

/// Reads lines with a buffer and a place of its own.
pub(super) struct Lines {
    file: Arc<File>,
    end: u64,
    at: u64,
    buffer: Vec<u8>,
    start: usize,
}

impl Lines {
    fn new(index: &IndexFile) -> Self {
        Self { file: Arc::clone(&index.file), end: index.bytes, at: 0, buffer: Vec::new(), start: 0 }
    }

    /// The next line, with its line feed.
    pub(super) fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        let mut searched = 0;
        let end = loop {
            if let Some(at) = self.buffer[self.start + searched..].iter().position(|&b| b == b'\n') {
                break self.start + searched + at + 1;
            }
            searched = self.buffer.len() - self.start;
            let n = (self.end - self.at).min(256 << 10) as usize;
            if n == 0 {
                return if searched == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            let filled = self.buffer.len();
            self.buffer.resize(filled + n, 0);
            self.file.read_exact_at(&mut self.buffer[filled..], self.at)?;
            self.at += n as u64;
        };
        let line = &self.buffer[self.start..end];
        self.start = end;
        Ok(Some(line))
    }
}

/// Entries of an index. An error is scratch's: the lines themselves were checked when they were written.
pub struct IndexEntries {
    lines: Lines,
}

impl Iterator for IndexEntries {
    type Item = io::Result<FileEntry>;
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            return match self.lines.next_line() {
                Ok(None) => None,
                Ok(Some(line)) => match read_line(line) {
                    Ok(IndexLine::Segment(_)) => continue,
                    Ok(IndexLine::Entry(entry)) => Some(Ok(entry)),
                    Err(error) => Some(Err(io::Error::new(io::ErrorKind::InvalidData, error))),
                },
                Err(error) => Some(Err(error)),
            };
        }
    }
}
