//! `SHA256SUMS`: every other file of the directory, as `sha256sum -c` reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::Digest as _;

use super::{EvidenceError, Refusal, names};
use crate::domain::{Blake3, Sha256};

/// SHA-256 of bytes in memory.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    Sha256(sha2::Sha256::digest(bytes).into())
}

/// BLAKE3 of bytes in memory.
pub(super) fn blake3(bytes: &[u8]) -> Blake3 {
    Blake3(*::blake3::hash(bytes).as_bytes())
}

/// Whether `name` may name an evidence file: plain, without directories, not hidden.
pub(super) fn is_file_name(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// File names and their digests, ordered by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums(pub BTreeMap<String, Sha256>);

impl Sums {
    /// Of these files.
    ///
    /// # Errors
    /// [`EvidenceError::FileName`].
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, EvidenceError> {
        let mut sums = BTreeMap::new();
        for (name, bytes) in files {
            if !is_file_name(name) || name == names::SUMS || name == names::SUMS_SIGNATURE {
                return Err(EvidenceError::FileName { name: name.to_owned() });
            }
            sums.insert(name.to_owned(), sha256(bytes));
        }
        Ok(Self(sums))
    }

    /// As the file has it.
    pub fn to_text(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, (name, digest)| {
            let _ = writeln!(text, "{digest}  {name}");
            text
        })
    }

    /// Reads the one form that [`Sums::to_text`] writes, and no other.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed = |what: &str| Refusal::Malformed { file: names::SUMS.to_owned(), what: what.to_owned() };
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("not text"))?;
        let mut sums = BTreeMap::new();
        for line in text.lines() {
            let (digest, name) = line.split_once("  ").ok_or_else(|| malformed("a line is not `digest  name`"))?;
            if !is_file_name(name) {
                return Err(malformed("a name is not that of an evidence file"));
            }
            sums.insert(name.to_owned(), digest.parse().map_err(|_| malformed("a digest is not SHA-256"))?);
        }
        let sums = Self(sums);
        if sums.to_text() == text { Ok(sums) } else { Err(malformed("not in its one canonical form")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_have_one_spelling() {
        let sums = Sums::of([("report.json", &b"{}"[..]), ("events.jsonl", b"")]).unwrap();
        let text = sums.to_text();
        assert_eq!(Sums::parse(text.as_bytes()).unwrap(), sums);
        for hurt in [
            text.replace("  ", " *"),
            text.to_uppercase(),
            format!("{text}\n"),
            text.trim_end().to_owned(),
            text.replace('\n', "\r\n"),
            text.replace("report.json", "../report.json"),
            text.lines().rev().map(|l| format!("{l}\n")).collect(),
            format!("{text}{text}"),
        ] {
            assert!(Sums::parse(hurt.as_bytes()).is_err(), "{hurt}");
        }
        assert!(Sums::of([("a/b", &b""[..])]).is_err());
        assert!(Sums::of([("SHA256SUMS", &b""[..])]).is_err());
    }
}
