//! A write-ahead log, looked at as SQLite's recovery does (<https://sqlite.org/fileformat2.html#the_write_ahead_log>): which
//! frames are whole, and whether anything that was committed comes after the first that is not. Recovery ends there, silently.

use std::fs::File;
use std::io::{self, BufReader, Read};

use super::super::{ServiceError, Shop};
use crate::domain::{ServiceProblem, Severity};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// What a log holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Found {
    /// Why nothing of it is read, where its header says so.
    unread: Option<&'static str>,
    /// Frames up to the last whole commit.
    pub(super) committed: u64,
    /// Commits from the first damaged frame on, none of which recovery reaches.
    lost: u64,
    /// Number of the first damaged frame, counted from 1.
    damaged: Option<u64>,
    /// Whether it ends within a frame.
    cut: bool,
}

/// Reads a log beside a database of this page size.
pub(super) fn read(file: File, page_size: u64) -> io::Result<Found> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let unread = |why| Ok(Found { unread: Some(why), ..Found::default() });
    let mut header = [0u8; HEADER];
    if full(&mut reader, &mut header)? < HEADER {
        return unread("it ends within its header");
    }
    let [magic, _, size, _, salt_1, salt_2, first, second] = words(&header);
    let Some(order) = Order::of(magic) else { return unread("its first bytes are not those of a WAL") };
    let mut sums = order.add((0, 0), &header[..24]);
    if sums != (first, second) {
        return unread("the checksum of its header is wrong");
    }
    if u64::from(size) != page_size {
        return unread("it is of another page size than the database");
    }
    let mut found = Found::default();
    let mut frame = vec![0u8; FRAME_HEADER + page_size as usize];
    for number in 1.. {
        let got = full(&mut reader, &mut frame)?;
        let [_, commit, one, two, first, second, ..] = words(&frame);
        // what an earlier round of the log left behind is no part of it
        let of_this_round = got >= 16 && (one, two) == (salt_1, salt_2);
        if got < frame.len() {
            found.cut = got > 0 && (of_this_round || got < 16) && found.damaged.is_none();
            break;
        }
        if !of_this_round {
            break;
        }
        if found.damaged.is_none() {
            sums = order.add(order.add(sums, &frame[..8]), &frame[FRAME_HEADER..]);
            if sums == (first, second) {
                if commit > 0 {
                    found.committed = number;
                }
                continue;
            }
            found.damaged = Some(number);
        }
        found.lost += u64::from(commit > 0);
    }
    Ok(found)
}

impl Found {
    /// What this says of the backup.
    ///
    /// # Errors
    /// [`ServiceError::Backup`] where committed data is there that no recovery reaches.
    pub(super) fn judge(&self, shop: &Shop<'_>) -> Result<(), ServiceError> {
        if let Some(why) = self.unread {
            let how = format!("a WAL lies beside the database, and SQLite would pass over all of it without a word: {why}");
            return Err(ServiceError::backup(ServiceProblem::InputDamaged, how, []));
        }
        if let Some(frame) = self.damaged.filter(|_| self.lost > 0) {
            let how = format!(
                "frame {frame} of its WAL is damaged: recovery silently ends there, and {} commits after it are lost ({} frames before it come back)",
                self.lost, self.committed
            );
            return Err(ServiceError::backup(ServiceProblem::InputDamaged, how, []));
        }
        if self.cut || self.damaged.is_some() {
            let how =
                "its WAL ends within a transaction or a frame: it was cut off, or copied while it was written; what came last is not in it";
            shop.remark(Severity::Warn, ServiceProblem::InputTruncated, how, []);
        }
        Ok(())
    }
}

/// Which way the words are read that the checksum adds up.
#[derive(Debug, Clone, Copy)]
enum Order {
    Big,
    Little,
}

impl Order {
    fn of(magic: u32) -> Option<Self> {
        match magic {
            0x377f_0682 => Some(Order::Little),
            0x377f_0683 => Some(Order::Big),
            _ => None,
        }
    }

    /// The running checksum over more bytes, eight by eight.
    fn add(self, (mut one, mut two): (u32, u32), bytes: &[u8]) -> (u32, u32) {
        let word = |b: &[u8]| match self {
            Order::Big => u32::from_be_bytes([b[0], b[1], b[2], b[3]]),
            Order::Little => u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        };
        for pair in bytes.chunks_exact(8) {
            one = one.wrapping_add(word(&pair[..4])).wrapping_add(two);
            two = two.wrapping_add(word(&pair[4..])).wrapping_add(one);
        }
        (one, two)
    }
}

/// The first words, as headers have them: big-endian.
fn words(bytes: &[u8]) -> [u32; 8] {
    let mut found = [0; 8];
    for (word, raw) in found.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_be_bytes([raw[0], raw[1], raw[2], raw[3]]);
    }
    found
}

/// Fills as much as there is; how much that was. The rest is zeros.
fn full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match reader.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer[got..].fill(0);
    Ok(got)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    const PAGE: usize = 512;

    /// A log of transactions of so many frames each.
    fn log(transactions: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [0x377f_0683u32, 3_007_000, PAGE as u32, 0, 11, 22] {
            bytes.extend(word.to_be_bytes());
        }
        let mut sums = Order::Big.add((0, 0), &bytes);
        bytes.extend([sums.0.to_be_bytes(), sums.1.to_be_bytes()].concat());
        for frames in transactions {
            for frame in 1..=*frames {
                let commit = if frame == *frames { 9u32 } else { 0 };
                let start = [7u32.to_be_bytes(), commit.to_be_bytes()].concat();
                let page = vec![frame as u8; PAGE];
                sums = Order::Big.add(Order::Big.add(sums, &start), &page);
                bytes.extend(start);
                bytes.extend([11u32, 22, sums.0, sums.1].map(u32::to_be_bytes).concat());
                bytes.extend(page);
            }
        }
        bytes
    }

    fn looked_at(bytes: &[u8]) -> Found {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        read(file, PAGE as u64).unwrap()
    }

    #[test]
    fn whole_transactions_count_and_what_is_left_of_an_earlier_round_does_not() {
        assert_eq!(looked_at(&log(&[2, 3])), Found { committed: 5, ..Found::default() });
        // a transaction that goes on
        let going_on = &log(&[2, 3])[..HEADER + 4 * (FRAME_HEADER + PAGE)];
        assert_eq!(looked_at(going_on), Found { committed: 2, ..Found::default() });
        let mut longer = log(&[2]);
        longer.extend(vec![1u8; 3 * (FRAME_HEADER + PAGE) + 40]);
        assert_eq!(looked_at(&longer), Found { committed: 2, ..Found::default() });
    }

    #[test]
    fn damage_before_commits_is_told_with_what_it_costs() {
        let whole = log(&[1, 1, 1, 1]);
        let mut flipped = whole.clone();
        flipped[HEADER + FRAME_HEADER + PAGE + 100] ^= 1;
        assert_eq!(looked_at(&flipped), Found { committed: 1, damaged: Some(2), lost: 3, ..Found::default() });
        assert_eq!(looked_at(&whole[..whole.len() - 1]), Found { committed: 3, cut: true, ..Found::default() });
        assert!(looked_at(&whole[..20]).unread.is_some());
        let mut other = whole.clone();
        other[30] ^= 1;
        assert!(looked_at(&other).unread.is_some() && looked_at(&[0; 64]).unread.is_some());
    }
}
