//! Whether all of a dump's rows and large objects are there: of those that end early, `pg_restore` loads what it finds, and says nothing.
//!
//! In the custom format it notices, and of what gzip packed all but an empty file. What is flipped in the middle of rows that are not packed,
//! nobody can tell from the dump alone.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};

use super::super::{Input, ServiceError, Shop};
use super::archive::unpacked;
use crate::codec::tar::{Ending, TarReader};
use crate::codec::{CodecError, Fault, fault};
use crate::domain::ServiceProblem;

/// The ends of a table's rows: as COPY takes them, and as INSERTs.
const ENDS: [&[u8]; 2] = [b"\\.\n\n\n", b";\n\n\n"];
/// No rows, as INSERTs.
const NO_ROWS: &[u8] = b"\n\n";
/// Bytes of an end.
const END: usize = 5;
/// The least that gzip makes of anything.
const LEAST_GZIP: u64 = 20;
/// Bytes of a list of large objects that are looked at.
const LIST: u64 = 256 << 20;

/// The last bytes of what was read.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn read(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&bytes[bytes.len().saturating_sub(END)..]);
        self.0.drain(..self.0.len().saturating_sub(END));
    }

    fn ends_rows(&self) -> bool {
        ENDS.iter().any(|end| self.0.ends_with(end)) || self.0 == NO_ROWS
    }
}

/// How a file of a table's rows is packed, by its name: `3342.dat`, `3342.dat.gz`.
fn rows(name: &str) -> Option<&str> {
    let (number, packed) = name.split_once(".dat")?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then(|| packed.trim_start_matches('.'))
}

/// What was seen of a dump's files.
#[derive(Default)]
struct Seen {
    /// Files of rows, and packed files.
    files: u64,
    /// Those of them that end early.
    short: u64,
    /// Names of large objects' files.
    objects: Vec<String>,
    /// Their lists: a line each, its number and its file.
    lists: String,
}

impl Seen {
    fn file(&mut self, whole: bool) {
        self.files += 1;
        self.short += u64::from(!whole);
    }

    fn judge(self) -> Result<(), ServiceError> {
        let Self { files, short, objects, lists } = self;
        let silent = |how: String| Err(ServiceError::backup(ServiceProblem::InputTruncated, how, []));
        if short > 0 {
            return silent(format!("{short} of {files} files end early: pg_restore would load what is there, and say nothing of the rest"));
        }
        let listed: BTreeSet<&str> = lists.lines().filter_map(|line| line.split_once(' ').map(|(_, file)| file)).collect();
        let lost = objects.iter().filter(|file| !listed.contains(file.as_str())).count();
        if lost > 0 {
            let all = objects.len();
            return silent(format!("{lost} of {all} large objects are in no list of it: pg_restore would leave them out, and say nothing"));
        }
        Ok(())
    }
}

/// The name by which a large object's file stands in its list: `blob_16392.dat`, packed or not.
fn object(name: &str) -> Option<String> {
    let (number, _) = name.strip_prefix("blob_")?.split_once(".dat")?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then(|| format!("blob_{number}.dat"))
}

/// Whether it lists large objects: `blobs.toc`, since version 17 `blobs_16392.toc`.
fn is_list(name: &str) -> bool {
    name.starts_with("blobs") && name.ends_with(".toc")
}

/// Looks through a dump in directory format.
pub(super) fn directory(shop: &Shop<'_>, dump: &Input) -> Result<(), ServiceError> {
    let mut seen = Seen::default();
    for input in shop.files_below(dump)? {
        let Some(name) = input.path.as_path().file_name().and_then(|name| name.to_str()) else { continue };
        if name.ends_with(".gz") {
            seen.file(input.size >= LEAST_GZIP);
        }
        match rows(name) {
            Some("") => {
                let mut tail = Tail::default();
                tail.read(&shop.end(&input, END as u64));
                seen.file(tail.ends_rows());
            }
            Some("gz") => {}
            Some(_) => seen.file(tokio::task::block_in_place(|| packed(shop, &input))?),
            None if is_list(name) => seen.lists.push_str(&String::from_utf8_lossy(&shop.head(&input, LIST))),
            None => seen.objects.extend(object(name)),
        }
    }
    seen.judge()
}

/// Looks through a dump in tar format.
pub(super) fn tar(shop: &Shop<'_>, dump: &Input) -> Result<(), ServiceError> {
    let read = || -> io::Result<Seen> {
        let mut tar = TarReader::new(BufReader::with_capacity(1 << 20, shop.open(&dump.path)?), Ending::Demanded);
        let mut seen = Seen::default();
        while let Some(entry) = tar.next_entry()? {
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            let (mut tail, mut list) = (Tail::default(), Vec::new());
            let (is_rows, is_list) = (rows(&name).is_some(), is_list(&name));
            tar.read_data(|_, bytes| -> io::Result<()> {
                tail.read(bytes);
                if is_list && list.len() as u64 <= LIST {
                    list.extend_from_slice(bytes);
                }
                in_time(shop)
            })?;
            if is_rows {
                seen.file(tail.ends_rows());
            }
            seen.lists.push_str(&String::from_utf8_lossy(&list));
            seen.objects.extend(object(&name));
        }
        Ok(seen)
    };
    match tokio::task::block_in_place(read).map_err(fault) {
        Ok(seen) => seen.judge(),
        Err(Fault::Bytes(error @ CodecError::Truncated { .. })) => {
            Err(ServiceError::backup(ServiceProblem::InputTruncated, error.to_string(), []))
        }
        Err(Fault::Bytes(error)) => Err(ServiceError::backup(ServiceProblem::InputDamaged, error.to_string(), [])),
        Err(Fault::Source(error)) => Err(unread(&error)),
    }
}

/// Whether a packed file of rows is whole.
fn packed(shop: &Shop<'_>, input: &Input) -> Result<bool, ServiceError> {
    let read = |file: File| -> io::Result<Tail> {
        let (mut reader, mut tail, mut buffer) = (unpacked(file)?, Tail::default(), vec![0; 1 << 20]);
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(tail),
                n => tail.read(&buffer[..n]),
            }
            in_time(shop)?;
        }
    };
    match shop.open(&input.path).and_then(read).map_err(fault) {
        Ok(tail) => Ok(tail.ends_rows()),
        Err(Fault::Bytes(_)) => Ok(false),
        Err(Fault::Source(error)) => Err(unread(&error)),
    }
}

fn in_time(shop: &Shop<'_>) -> io::Result<()> {
    if (shop.left)().is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
}

fn unread(error: &io::Error) -> ServiceError {
    match error.kind() {
        io::ErrorKind::TimedOut => {
            ServiceError::runner("the drill's time ran out while the dump was read; give it more: [sandbox] time", [])
        }
        kind => ServiceError::runner(format!("the dump could not be read: {kind}"), []),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_end_as_pg_dump_ends_them() {
        for (whole, pieces) in [
            (true, &[&b"1\tx\n\\.\n\n\n"[..]][..]),
            (true, &[b"1\tx\n\\", b".\n", b"\n\n"]),
            (true, &[b"\\.\n\n\n"]),
            (true, &[b"INSERT INTO a VALUES (1);\n\n\n"]),
            (true, &[b"\n\n"]),
            // a table of one empty text each row
            (false, &[b"\n\n\n\n"]),
            (false, &[b"x\n\n"]),
            (false, &[b"1\tx\n\\.\n"]),
            (false, &[]),
        ] {
            let mut tail = Tail::default();
            pieces.iter().for_each(|piece| tail.read(piece));
            assert_eq!(tail.ends_rows(), whole, "{pieces:?}");
        }
    }

    #[test]
    fn files_of_rows_are_called_by_a_number() {
        for (name, packed) in [("3342.dat", Some("")), ("3342.dat.gz", Some("gz")), ("3342.dat.zst", Some("zst"))] {
            assert_eq!(rows(name), packed, "{name}");
        }
        for name in ["toc.dat", "blob_16392.dat", "blobs.toc", ".dat", "restore.sql"] {
            assert_eq!(rows(name), None, "{name}");
        }
        assert_eq!((object("blob_7.dat.gz").as_deref(), object("blobs.toc")), (Some("blob_7.dat"), None));
    }
}
