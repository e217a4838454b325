//! Writes what `seal` needs: ustar headers, with a PAX header in front where ustar cannot say it.

use crate::domain::{EntryKind, FileEntry};

use super::header::BLOCK;

/// Writes tar entries into memory; file data is appended by the caller.
#[derive(Debug, Default)]
pub struct TarWriter;

impl TarWriter {
    /// Appends the header, or headers, of an entry. A regular file's data and its [`TarWriter::padding`] come after it.
    pub fn header(out: &mut Vec<u8>, entry: &FileEntry) {
        let mut path = entry.path.as_bytes().to_vec();
        let (kind, size, link, device): (u8, u64, &[u8], Option<(u32, u32)>) = match &entry.kind {
            EntryKind::File { size, .. } => (b'0', *size, b"", None),
            EntryKind::Dir => {
                path.push(b'/');
                (b'5', 0, b"", None)
            }
            EntryKind::Symlink { target } => (b'2', 0, target, None),
            EntryKind::Hardlink { target } => (b'1', 0, target.as_bytes(), None),
            EntryKind::Fifo => (b'6', 0, b"", None),
            EntryKind::Device { block, major, minor } => (if *block { b'4' } else { b'3' }, 0, b"", Some((*major, *minor))),
        };
        let mut records = Vec::new();
        let split = split_path(&path);
        if split.is_none() {
            record(&mut records, b"path", &path);
        }
        if link.len() > 100 {
            record(&mut records, b"linkpath", link);
        }
        if size > MAX_12 {
            record(&mut records, b"size", size.to_string().as_bytes());
        }
        for (key, value) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
            if u64::from(value) > MAX_8 {
                record(&mut records, key, value.to_string().as_bytes());
            }
        }
        let plain_time = entry.mtime_ns == 0 && u64::try_from(entry.mtime).is_ok_and(|s| s <= MAX_12);
        if !plain_time {
            record(&mut records, b"mtime", written_time(entry.mtime, entry.mtime_ns).as_bytes());
        }
        for xattr in &entry.xattrs {
            record(&mut records, &[b"SCHILY.xattr.", xattr.name.as_bytes()].concat(), &xattr.value);
        }
        let mtime = u64::try_from(entry.mtime).unwrap_or(0).min(MAX_12);
        if !records.is_empty() {
            let head =
                Head { kind: b'x', prefix: b"", name: b"PaxHeader", mode: 0o644, size: records.len() as u64, mtime, ..Head::default() };
            head.append(out);
            out.extend_from_slice(&records);
            Self::padding(out, records.len() as u64);
        }
        let (prefix, name) = split.unwrap_or((b"", &path[..path.len().min(100)]));
        let (major, minor) = device.unwrap_or((0, 0));
        Head {
            kind,
            prefix,
            name,
            link: &link[..link.len().min(100)],
            mode: entry.mode,
            uid: u64::from(entry.uid).min(MAX_8),
            gid: u64::from(entry.gid).min(MAX_8),
            size: size.min(MAX_12),
            mtime,
            major,
            minor,
        }
        .append(out);
    }

    /// Appends the zeros that fill a file's last block.
    pub fn padding(out: &mut Vec<u8>, size: u64) {
        let over = (size % BLOCK as u64) as usize;
        if over > 0 {
            out.resize(out.len() + BLOCK - over, 0);
        }
    }

    /// Appends the end of the archive.
    pub fn end(out: &mut Vec<u8>) {
        out.resize(out.len() + 2 * BLOCK, 0);
    }
}

/// Seven octal digits.
const MAX_8: u64 = 0o7_777_777;
/// Eleven octal digits.
const MAX_12: u64 = 0o77_777_777_777;

#[derive(Default)]
struct Head<'a> {
    kind: u8,
    prefix: &'a [u8],
    name: &'a [u8],
    link: &'a [u8],
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    major: u32,
    minor: u32,
}

impl Head<'_> {
    fn append(&self, out: &mut Vec<u8>) {
        let mut block = [0u8; BLOCK];
        block[..self.name.len()].copy_from_slice(self.name);
        octal(&mut block[100..108], u64::from(self.mode));
        octal(&mut block[108..116], self.uid);
        octal(&mut block[116..124], self.gid);
        octal(&mut block[124..136], self.size);
        octal(&mut block[136..148], self.mtime);
        block[148..156].fill(b' ');
        block[156] = self.kind;
        block[157..157 + self.link.len()].copy_from_slice(self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], u64::from(self.major) & MAX_8);
        octal(&mut block[337..345], u64::from(self.minor) & MAX_8);
        block[345..345 + self.prefix.len()].copy_from_slice(self.prefix);
        let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
        octal(&mut block[148..155], sum);
        out.extend_from_slice(&block);
    }
}

/// All digits that fit, and a NUL.
fn octal(field: &mut [u8], mut value: u64) {
    let Some((last, digits)) = field.split_last_mut() else { return };
    *last = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// Prefix and name, where ustar has room for the path.
fn split_path(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((b"", path));
    }
    // the name keeps at least one byte beside a directory's slash
    (1..path.len().min(156))
        .rev()
        .find(|&at| path[at] == b'/' && (1..=100).contains(&(path.len() - at - 1)))
        .map(|at| (&path[..at], &path[at + 1..]))
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// A time as PAX writes it: the fraction of a negative one counts away from zero.
fn written_time(seconds: i64, nanos: u32) -> String {
    let (sign, whole, nanos) = match (seconds < 0, nanos) {
        (false, _) => ("", seconds.unsigned_abs(), nanos),
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, _) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanos),
    };
    if nanos == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{nanos:09}").trim_end_matches('0').to_owned() }
}
