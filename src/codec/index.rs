//! The index of a sealed set: one JSON line per entry, encrypted because paths can be patient data.
//!
//! The first line names format, version and set. Then, for every segment of the parts in order, one line that says where
//! it lies, followed by one line for each of its entries. Entries are in the order of [`RestorePath`], which is their
//! order in the tar. So both writing and reading need constant memory, and the lines of a segment travel with it.
//!
//! The wire form is a flat struct of its own: half a microsecond per entry, where serde's `flatten` costs several.

use std::borrow::Cow;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};

use crate::domain::{Blake3, EntryKind, FileEntry, RestorePath, Xattr};

/// What `format` says.
pub const FORMAT: &str = "firedrill-index";
/// The version that we write.
pub const VERSION: u32 = 1;
/// No line is longer: as many extended attributes as a tar header may have, in base64, and two paths.
pub const MAX_LINE: usize = 8 << 20;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexHead {
    /// Always [`FORMAT`].
    pub format: String,
    /// Always [`VERSION`].
    pub version: u32,
    /// The id of the set that it belongs to.
    pub set: String,
}

/// A stretch of a part that can be decompressed and unpacked by itself: whole tar entries in whole zstd frames, each of which states
/// its size and holds at most 8 MiB ([`FRAME`](crate::codec::FRAME) as we write them).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// In which part.
    pub part: u32,
    /// Where it begins in the part's compressed stream (the age payload, decrypted).
    pub offset: u64,
    /// Compressed bytes.
    pub length: u64,
    /// Bytes of tar.
    pub plain: u64,
    /// How many entries it holds.
    pub entries: u64,
    /// Whether the end-of-archive blocks follow its entries: true for the last segment alone.
    pub ends: bool,
}

/// A line of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexLine {
    /// A segment begins.
    Segment(Segment),
    /// An entry of it.
    Entry(FileEntry),
}

/// Why a line of the index cannot be used. Holds no content: the index is all paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct IndexError {
    /// What is wrong.
    pub detail: &'static str,
}

const fn bad(detail: &'static str) -> IndexError {
    IndexError { detail }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SegmentLine {
    segment: Segment,
}

/// An entry as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    #[serde(borrow)]
    path: Text<'a>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    blake3: Option<Cow<'a, str>>,
    mode: u32,
    #[serde(default, skip_serializing_if = "zero")]
    uid: u32,
    #[serde(default, skip_serializing_if = "zero")]
    gid: u32,
    mtime: i64,
    #[serde(default, skip_serializing_if = "zero")]
    ns: u32,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    link: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    major: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    minor: Option<u32>,
    #[serde(default, borrow, skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

fn zero(n: &u32) -> bool {
    *n == 0
}

/// Bytes as text: UTF-8 as it is, anything else as NUL and base64. No path or link target has a NUL.
struct Text<'a>(Cow<'a, str>);

impl<'a> Text<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Text(Cow::Borrowed(text)),
            Err(_) => Text(Cow::Owned(format!("\0{}", BASE64.encode(bytes)))),
        }
    }
    fn bytes(&self) -> Result<Cow<'_, [u8]>, IndexError> {
        match self.0.strip_prefix('\0') {
            Some(encoded) => BASE64.decode(encoded.as_bytes()).map(Cow::Owned).map_err(|_| bad("a name is not base64")),
            None => Ok(Cow::Borrowed(self.0.as_bytes())),
        }
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Cow<'de, str>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Visitor).map(Text)
    }
}

/// Writes the first line, with its line feed.
pub fn write_head(out: &mut Vec<u8>, set: &str) {
    let head = IndexHead { format: FORMAT.to_owned(), version: VERSION, set: set.to_owned() };
    write_line(out, &head);
}

/// Writes a segment's line, with its line feed.
pub fn write_segment(out: &mut Vec<u8>, segment: &Segment) {
    write_line(out, &SegmentLine { segment: *segment });
}

/// Writes an entry's line, with its line feed. These bytes are what the root digest covers.
pub fn write_entry(out: &mut Vec<u8>, entry: &FileEntry) {
    let mut wire = Wire {
        path: Text::of(entry.path.as_bytes()),
        kind: Cow::Borrowed("file"),
        size: None,
        blake3: None,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        ns: entry.mtime_ns,
        link: None,
        major: None,
        minor: None,
        xattrs: entry.xattrs.iter().map(|x| (Cow::Borrowed(x.name.as_str()), Cow::Owned(BASE64.encode(&x.value)))).collect(),
    };
    match &entry.kind {
        EntryKind::File { size, blake3 } => {
            wire.size = Some(*size);
            wire.blake3 = blake3.map(|d| Cow::Owned(d.to_string()));
        }
        EntryKind::Dir => wire.kind = Cow::Borrowed("dir"),
        EntryKind::Symlink { target } => {
            wire.kind = Cow::Borrowed("symlink");
            wire.link = Some(Text::of(target));
        }
        EntryKind::Hardlink { target } => {
            wire.kind = Cow::Borrowed("hardlink");
            wire.link = Some(Text::of(target.as_bytes()));
        }
        EntryKind::Fifo => wire.kind = Cow::Borrowed("fifo"),
        EntryKind::Device { block, major, minor } => {
            wire.kind = Cow::Borrowed(if *block { "block" } else { "char" });
            (wire.major, wire.minor) = (Some(*major), Some(*minor));
        }
    }
    write_line(out, &wire);
}

fn write_line(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *out, value).expect("plain data into memory, which serde_json always writes");
    out.push(b'\n');
}

/// Reads the first line.
///
/// # Errors
/// [`IndexError`] for another format, version or set.
pub fn read_head(line: &[u8], set: &str) -> Result<(), IndexError> {
    let head: IndexHead = serde_json::from_slice(line).map_err(|_| bad("its first line is not an index's"))?;
    if head.format != FORMAT {
        return Err(bad("it is of another format"));
    }
    if head.version != VERSION {
        return Err(bad("it is of another version"));
    }
    if head.set != set {
        return Err(bad("it belongs to another set"));
    }
    Ok(())
}

/// Reads any line but the first.
///
/// # Errors
/// [`IndexError`], which says what is wrong without quoting it.
pub fn read_line(line: &[u8]) -> Result<IndexLine, IndexError> {
    if is_segment(line) {
        let line: SegmentLine = serde_json::from_slice(line).map_err(|_| bad("a segment line is malformed"))?;
        return Ok(IndexLine::Segment(line.segment));
    }
    read_entry(line).map(IndexLine::Entry)
}

/// Whether a line is a segment's, by its beginning, as [`write_segment`] makes it.
pub fn is_segment(line: &[u8]) -> bool {
    line.starts_with(b"{\"segment\":")
}

/// Reads an entry's line.
///
/// # Errors
/// [`IndexError`], which says what is wrong without quoting it.
pub fn read_entry(line: &[u8]) -> Result<FileEntry, IndexError> {
    let wire: Wire<'_> = serde_json::from_slice(line).map_err(|_| bad("an entry line is malformed"))?;
    let path = RestorePath::from_bytes(&wire.path.bytes()?).map_err(|_| bad("an entry's path is not allowed"))?;
    if wire.mode > 0o7777 {
        return Err(bad("an entry's mode is out of range"));
    }
    if wire.ns >= 1_000_000_000 {
        return Err(bad("an entry's time is out of range"));
    }
    let link = || wire.link.as_ref().ok_or(bad("a link has no target"));
    let kind = match &*wire.kind {
        "file" => EntryKind::File {
            size: wire.size.ok_or(bad("a file has no size"))?,
            blake3: Some(digest(wire.blake3.as_deref().ok_or(bad("a file has no digest"))?)?),
        },
        "dir" => EntryKind::Dir,
        "symlink" => EntryKind::Symlink { target: link()?.bytes()?.into_owned() },
        "hardlink" => EntryKind::Hardlink {
            target: RestorePath::from_bytes(&link()?.bytes()?).map_err(|_| bad("a hard link's target is not allowed"))?,
        },
        "fifo" => EntryKind::Fifo,
        word @ ("block" | "char") => match (wire.major, wire.minor) {
            (Some(major), Some(minor)) => EntryKind::Device { block: word == "block", major, minor },
            _ => return Err(bad("a device has no number")),
        },
        _ => return Err(bad("an entry is of no known kind")),
    };
    let mut xattrs = Vec::with_capacity(wire.xattrs.len());
    for (name, value) in &wire.xattrs {
        let value = BASE64.decode(value.as_bytes()).map_err(|_| bad("an extended attribute is not base64"))?;
        xattrs.push(Xattr { name: name.clone().into_owned(), value });
    }
    Ok(FileEntry { path, kind, mode: wire.mode, uid: wire.uid, gid: wire.gid, mtime: wire.mtime, mtime_ns: wire.ns, xattrs })
}

fn digest(text: &str) -> Result<Blake3, IndexError> {
    let mut bytes = [0; 32];
    match HEXLOWER.decode_len(text.len()) {
        Ok(32) => {
            HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).map_err(|_| bad("a digest is malformed"))?;
            Ok(Blake3(bytes))
        }
        _ => Err(bad("a digest is malformed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(path: &[u8], kind: EntryKind) -> FileEntry {
        FileEntry {
            path: RestorePath::from_bytes(path).unwrap(),
            kind,
            mode: 0o4755,
            uid: 7,
            gid: 8,
            mtime: -5,
            mtime_ns: 999_999_999,
            xattrs: vec![Xattr { name: "user.a".into(), value: vec![0, 255] }],
        }
    }

    fn round(entry: &FileEntry) -> FileEntry {
        let mut line = Vec::new();
        write_entry(&mut line, entry);
        assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
        match read_line(&line).unwrap() {
            IndexLine::Entry(entry) => entry,
            IndexLine::Segment(_) => panic!("not a segment"),
        }
    }

    #[test]
    fn every_kind_of_entry_survives_its_line() {
        let kinds = [
            EntryKind::File { size: 3, blake3: Some(Blake3([7; 32])) },
            EntryKind::Dir,
            EntryKind::Symlink { target: b"\xff/x\n\"".to_vec() },
            EntryKind::Hardlink { target: RestorePath::from_bytes(b"\xe9").unwrap() },
            EntryKind::Fifo,
            EntryKind::Device { block: true, major: 8, minor: 1 },
        ];
        for kind in kinds {
            let entry = entry(b"caf\xe9/\"\n\\x", kind);
            assert_eq!(round(&entry), entry);
        }
    }

    #[test]
    fn a_segment_survives_its_line() {
        let segment = Segment { part: 1, offset: 2, length: 3, plain: 4, entries: 5, ends: true };
        let mut line = Vec::new();
        write_segment(&mut line, &segment);
        assert!(is_segment(&line));
        assert_eq!(read_line(&line).unwrap(), IndexLine::Segment(segment));
    }

    #[test]
    fn the_head_names_its_set() {
        let mut line = Vec::new();
        write_head(&mut line, "a");
        assert_eq!(read_head(&line, "a"), Ok(()));
        assert!(read_head(&line, "b").is_err());
        assert!(read_head(b"{}", "a").is_err());
    }

    #[test]
    fn lines_that_no_writer_of_ours_makes_are_refused() {
        for line in [
            r#"{"path":"../x","type":"dir","mode":493,"mtime":0}"#,
            r#"{"path":"x","type":"dir","mode":99999,"mtime":0}"#,
            r#"{"path":"x","type":"dir","mode":1,"mtime":0,"ns":1000000000}"#,
            r#"{"path":"x","type":"file","mode":1,"mtime":0}"#,
            r#"{"path":"x","type":"file","mode":1,"mtime":0,"size":1,"blake3":"00"}"#,
            r#"{"path":"x","type":"symlink","mode":1,"mtime":0}"#,
            r#"{"path":"x","type":"hardlink","mode":1,"mtime":0,"link":"/etc/passwd"}"#,
            r#"{"path":"x","type":"whiteout","mode":1,"mtime":0}"#,
            r#"{"path":"x","type":"char","mode":1,"mtime":0}"#,
            r#"{"path":"x","type":"dir","mode":1,"mtime":0,"colour":1}"#,
            r#"{"path":"x","type":"dir","mode":1,"mtime":0,"xattrs":[["user.a","?"]]}"#,
            r#"{"segment":{"part":0}}"#,
            "",
        ] {
            assert!(read_line(line.as_bytes()).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_path_and_target_survive(path in "[^/\0]{1,40}(/[^/\0]{1,40}){0,3}", raw in proptest::collection::vec(1u8.., 1..40)) {
            prop_assume!(RestorePath::from_bytes(path.as_bytes()).is_ok_and(|p| !p.is_root()));
            let entry = entry(path.as_bytes(), EntryKind::Symlink { target: raw });
            prop_assert_eq!(round(&entry), entry);
        }

        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_line(&line);
        }
    }
}
