//! PAX extended headers: records of `LENGTH KEY=VALUE\n`.

use data_encoding::{BASE64, BASE64_NOPAD};

use super::sparse::Extent;
use crate::domain::Xattr;

/// The records of an extended header, in order. Sparse 0.0 repeats keys, so this is no map.
#[derive(Debug, Clone, Default)]
pub(super) struct Pax(Vec<(Vec<u8>, Vec<u8>)>);

const MALFORMED: &str = "an extended header is malformed";

impl Pax {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            // padding of NULs has been seen after the last record
            if bytes.iter().all(|&b| b == 0) {
                break;
            }
            let space = bytes.iter().take(20).position(|&b| b == b' ').ok_or(MALFORMED)?;
            let length = decimal(&bytes[..space]).and_then(|n| usize::try_from(n).ok()).ok_or(MALFORMED)?;
            if length <= space + 1 || length > bytes.len() {
                return Err(MALFORMED);
            }
            let record = bytes[space + 1..length].strip_suffix(b"\n").ok_or(MALFORMED)?;
            let equals = record.iter().position(|&b| b == b'=').ok_or(MALFORMED)?;
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = &bytes[length..];
        }
        Ok(Self(records))
    }

    /// Adds a later global header's records.
    pub(super) fn merge(&mut self, more: Pax) {
        self.0.retain(|(key, _)| !more.0.iter().any(|(k, _)| k == key));
        self.0.extend(more.0);
    }

    /// These records, and of `global` those whose keys they do not have.
    pub(super) fn over(mut self, global: &Pax) -> Pax {
        for (key, value) in &global.0 {
            if !self.0.iter().any(|(k, _)| k == key) {
                self.0.push((key.clone(), value.clone()));
            }
        }
        self
    }

    /// The last value of a key; an empty one takes back what was said.
    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_slice()).filter(|v| !v.is_empty())
    }

    fn get_number(&self, key: &[u8]) -> Result<Option<u64>, &'static str> {
        self.get(key).map(|value| decimal(value).ok_or("a number in an extended header is malformed")).transpose()
    }

    pub(super) fn path(&self) -> Option<Vec<u8>> {
        self.get(b"path").map(<[u8]>::to_vec)
    }
    pub(super) fn linkpath(&self) -> Option<Vec<u8>> {
        self.get(b"linkpath").map(<[u8]>::to_vec)
    }
    pub(super) fn size(&self) -> Result<Option<u64>, &'static str> {
        self.get_number(b"size")
    }
    pub(super) fn uid(&self) -> Result<Option<u64>, &'static str> {
        self.get_number(b"uid")
    }
    pub(super) fn gid(&self) -> Result<Option<u64>, &'static str> {
        self.get_number(b"gid")
    }

    /// Seconds and nanoseconds; the fraction of a negative time counts away from zero, as POSIX writes it.
    pub(super) fn mtime(&self) -> Result<Option<(i64, u32)>, &'static str> {
        let Some(text) = self.get(b"mtime") else { return Ok(None) };
        timestamp(text).map(Some).ok_or("a time in an extended header is malformed")
    }

    /// Attributes in the ways of star (raw) and of libarchive (base64); the raw one wins where both are there.
    pub(super) fn xattrs(&self) -> Result<Vec<Xattr>, &'static str> {
        let mut xattrs: Vec<Xattr> = Vec::new();
        for (key, value) in &self.0 {
            let Some(name) = key.strip_prefix(b"SCHILY.xattr.") else { continue };
            let name = String::from_utf8(name.to_vec()).map_err(|_| "an attribute's name is not text")?;
            xattrs.retain(|x| x.name != name);
            xattrs.push(Xattr { name, value: value.clone() });
        }
        let raw = xattrs.len();
        for (key, value) in &self.0 {
            let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") else { continue };
            let name = String::from_utf8(percent_decoded(name)).map_err(|_| "an attribute's name is not text")?;
            if xattrs[..raw].iter().any(|x| x.name == name) {
                continue;
            }
            let encoded: Vec<u8> = value.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
            let value =
                BASE64.decode(&encoded).or_else(|_| BASE64_NOPAD.decode(&encoded)).map_err(|_| "an attribute's value is not base64")?;
            xattrs.retain(|x| x.name != name);
            xattrs.push(Xattr { name, value });
        }
        xattrs.sort();
        Ok(xattrs)
    }

    /// The real size of a sparse file, whichever way it is written.
    pub(super) fn sparse_size(&self) -> Result<Option<u64>, &'static str> {
        match self.get_number(b"GNU.sparse.realsize")? {
            Some(size) => Ok(Some(size)),
            None => self.get_number(b"GNU.sparse.size"),
        }
    }
    pub(super) fn sparse_name(&self) -> Option<Vec<u8>> {
        self.get(b"GNU.sparse.name").map(<[u8]>::to_vec)
    }
    /// Version 1.0 keeps the map in front of the data.
    pub(super) fn sparse_map_is_in_data(&self) -> bool {
        self.get(b"GNU.sparse.major") == Some(b"1")
    }
    /// The map of version 0.1 (one list) or 0.0 (repeated keys).
    pub(super) fn sparse_extents(&self) -> Result<Vec<Extent>, &'static str> {
        const WRONG: &str = "a sparse file's map is malformed";
        let numbers: Vec<u64> = if let Some(map) = self.get(b"GNU.sparse.map") {
            map.split(|&b| b == b',').map(|n| decimal(n).ok_or(WRONG)).collect::<Result<_, _>>()?
        } else {
            let pieces = self.0.iter().filter(|(key, _)| key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes");
            let mut numbers = Vec::new();
            for (key, value) in pieces {
                if (key == b"GNU.sparse.offset") != (numbers.len() % 2 == 0) {
                    return Err(WRONG);
                }
                numbers.push(decimal(value).ok_or(WRONG)?);
            }
            numbers
        };
        let (pairs, rest) = numbers.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(WRONG);
        }
        Ok(pairs.iter().map(|&[offset, length]| Extent { offset, length }).collect())
    }
}

/// Decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn timestamp(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|&b| b == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = (0..9).fold(0u32, |n, i| n * 10 + fraction.get(i).map_or(0, |d| u32::from(d - b'0')));
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, after)) = rest.split_first() {
        let hex = |b: u8| (b as char).to_digit(16);
        match (first, after) {
            (b'%', [a, b, tail @ ..]) if hex(*a).is_some() && hex(*b).is_some() => {
                out.push((hex(*a).unwrap_or(0) * 16 + hex(*b).unwrap_or(0)) as u8);
                rest = tail;
            }
            _ => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_hold_any_bytes() {
        let pax = Pax::parse(b"12 path=a\nb\n26 SCHILY.xattr.user.k=\0\n\n").unwrap();
        assert_eq!(pax.path().unwrap(), b"a\nb");
        assert_eq!(pax.xattrs().unwrap(), [Xattr { name: "user.k".into(), value: b"\0\n".to_vec() }]);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [&b"x"[..], b"5 a=b", b"99 a=b\n", b"6 a=b\nx", b"3 \n", b"0 a=b\n", b"6 ab=\n", b"-6 a=b\n", b"5 ab\n"] {
            let parsed = Pax::parse(bytes);
            assert!(parsed.is_err() || bytes == b"6 ab=\n", "{bytes:?}");
        }
    }

    #[test]
    fn times_keep_their_fraction_and_sign() {
        assert_eq!(timestamp(b"12.000000005"), Some((12, 5)));
        assert_eq!(timestamp(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(timestamp(b"12"), Some((12, 0)));
        assert_eq!(timestamp(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(timestamp(b"-3"), Some((-3, 0)));
        assert_eq!(timestamp(b"1.0000000019"), Some((1, 1)));
        assert_eq!(timestamp(b"1e5"), None);
        assert_eq!(timestamp(b""), None);
    }

    #[test]
    fn attributes_of_star_win_over_those_of_libarchive() {
        let pax = Pax(vec![
            (b"LIBARCHIVE.xattr.user.a%3db".to_vec(), b"AP8".to_vec()),
            (b"LIBARCHIVE.xattr.user.k".to_vec(), b"AAAA".to_vec()),
            (b"SCHILY.xattr.user.k".to_vec(), b"raw".to_vec()),
        ]);
        let xattrs = pax.xattrs().unwrap();
        assert_eq!(xattrs[0], Xattr { name: "user.a=b".into(), value: vec![0, 255] });
        assert_eq!(xattrs[1], Xattr { name: "user.k".into(), value: b"raw".to_vec() });
    }
}
