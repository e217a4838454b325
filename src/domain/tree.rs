//! A tree of files as a backup describes it and as a sandbox holds it: one type, so that the check is [`compare`].

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::{Blake3, RestorePath};

/// One entry of a tree.
///
/// Owners are recorded and not compared: in a sandbox everything belongs to the sandbox's own user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Where it is.
    pub path: RestorePath,
    /// What it is.
    #[serde(flatten)]
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky: 0 to 0o7777.
    pub mode: u32,
    /// Owner's number in the source system.
    #[serde(default)]
    pub uid: u32,
    /// Group's number in the source system.
    #[serde(default)]
    pub gid: u32,
    /// Modification time: whole seconds since the Unix epoch.
    pub mtime: i64,
    /// Modification time: nanoseconds past `mtime`, below 1,000,000,000.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mtime_ns: u32,
    /// Extended attributes, sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<Xattr>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Bytes, holes counted as zeros.
        size: u64,
        /// Of the content; `None` where this side did not read it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        blake3: Option<Blake3>,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// What it says, byte for byte; not followed, not checked.
        #[serde(with = "link_target")]
        target: Vec<u8>,
    },
    /// Another name of a file that comes earlier in the tree's order.
    Hardlink {
        /// The earlier name.
        target: RestorePath,
    },
    /// A named pipe.
    Fifo,
    /// A character or block device.
    Device {
        /// `true` for a block device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

mod link_target {
    //! Link targets are text where they can be, else `{"base64": …}` with a leading NUL that no target has.
    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer};

    const MARK: &str = "\0base64:";

    pub fn serialize<S: Serializer>(target: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(target) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.serialize_str(&format!("{MARK}{}", BASE64.encode(target))),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.strip_prefix(MARK) {
            Some(encoded) => BASE64.decode(encoded.as_bytes()).map_err(serde::de::Error::custom),
            None => Ok(text.into_bytes()),
        }
    }
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Xattr {
    /// Full name, as `user.origin`.
    pub name: String,
    /// Value, standard base64 in files.
    #[serde(with = "base64_bytes")]
    pub value: Vec<u8>,
}

mod base64_bytes {
    use data_encoding::BASE64;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        BASE64.decode(String::deserialize(deserializer)?.as_bytes()).map_err(serde::de::Error::custom)
    }
}

/// One thing in which two trees differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeDifference {
    /// Where. Never enters evidence in clear.
    pub path: RestorePath,
    /// In what.
    pub aspect: Aspect,
}

/// In what two entries of one path differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// Expected, not there.
    Missing,
    /// There, not expected.
    Extra,
    /// Another kind of thing.
    Kind,
    /// Another number of bytes.
    Size,
    /// Other bytes.
    Content,
    /// Other permission bits.
    Mode,
    /// Another modification time.
    Time,
    /// A link that says something else.
    Link,
    /// Other extended attributes.
    Xattrs,
}

impl Aspect {
    /// As findings write it.
    pub const fn word(self) -> &'static str {
        match self {
            Aspect::Missing => "missing",
            Aspect::Extra => "extra",
            Aspect::Kind => "kind",
            Aspect::Size => "size",
            Aspect::Content => "content",
            Aspect::Mode => "mode",
            Aspect::Time => "time",
            Aspect::Link => "link",
            Aspect::Xattrs => "xattrs",
        }
    }
}

/// How two trees compare, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct TreeSummary {
    /// Entries alike in everything that both sides know.
    pub matched: u64,
    /// Entries on both sides that differ in something.
    pub mismatched: u64,
    /// Entries expected and not found.
    pub missing: u64,
    /// Entries found and not expected.
    pub extra: u64,
}

impl TreeSummary {
    /// Whether nothing differs.
    pub fn is_clean(&self) -> bool {
        self.mismatched == 0 && self.missing == 0 && self.extra == 0
    }
}

/// Compares two trees, both in the order of [`RestorePath`], in one pass and constant memory.
/// Each difference goes to `tell` as it is met. The root itself may be on either side and is not compared.
pub fn compare(
    expected: impl IntoIterator<Item = FileEntry>,
    found: impl IntoIterator<Item = FileEntry>,
    mut tell: impl FnMut(TreeDifference),
) -> TreeSummary {
    let mut summary = TreeSummary::default();
    let mut left = expected.into_iter().filter(|e| !e.path.is_root()).peekable();
    let mut right = found.into_iter().filter(|e| !e.path.is_root()).peekable();
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return summary,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.path.cmp(&b.path),
        };
        match order {
            Ordering::Less => {
                summary.missing += 1;
                let path = left.next().expect("peeked").path;
                tell(TreeDifference { path, aspect: Aspect::Missing });
            }
            Ordering::Greater => {
                summary.extra += 1;
                let path = right.next().expect("peeked").path;
                tell(TreeDifference { path, aspect: Aspect::Extra });
            }
            Ordering::Equal => {
                let (a, b) = (left.next().expect("peeked"), right.next().expect("peeked"));
                let mut same = true;
                for aspect in differences(&a, &b) {
                    same = false;
                    tell(TreeDifference { path: a.path.clone(), aspect });
                }
                if same {
                    summary.matched += 1;
                } else {
                    summary.mismatched += 1;
                }
            }
        }
    }
}

/// In what two entries of one path differ. A digest that one side does not know is not compared.
pub fn differences(expected: &FileEntry, found: &FileEntry) -> Vec<Aspect> {
    use EntryKind::{Device, Dir, Fifo, File, Hardlink, Symlink};
    let mut aspects = Vec::new();
    match (&expected.kind, &found.kind) {
        (File { size: a, blake3: x }, File { size: b, blake3: y }) => {
            if a != b {
                aspects.push(Aspect::Size);
            } else if let (Some(x), Some(y)) = (x, y)
                && x != y
            {
                aspects.push(Aspect::Content);
            }
        }
        (Dir, Dir) | (Fifo, Fifo) => {}
        (Symlink { target: a }, Symlink { target: b }) if a != b => aspects.push(Aspect::Link),
        (Symlink { .. }, Symlink { .. }) => {}
        (Hardlink { target: a }, Hardlink { target: b }) if a != b => aspects.push(Aspect::Link),
        // a hard link has no mode or time of its own: those are its file's
        (Hardlink { .. }, Hardlink { .. }) => return aspects,
        (a @ Device { .. }, b @ Device { .. }) if a == b => {}
        _ => {
            aspects.push(Aspect::Kind);
            return aspects;
        }
    }
    // Linux gives every symbolic link the mode 0777
    if expected.mode != found.mode && !matches!(expected.kind, Symlink { .. }) {
        aspects.push(Aspect::Mode);
    }
    if (expected.mtime, expected.mtime_ns) != (found.mtime, found.mtime_ns) {
        aspects.push(Aspect::Time);
    }
    if expected.xattrs != found.xattrs {
        aspects.push(Aspect::Xattrs);
    }
    aspects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, size: u64, digest: u8) -> FileEntry {
        FileEntry {
            path: RestorePath::from_bytes(path.as_bytes()).unwrap(),
            kind: EntryKind::File { size, blake3: Some(Blake3([digest; 32])) },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 1_700_000_000,
            mtime_ns: 5,
            xattrs: vec![],
        }
    }

    fn run(a: Vec<FileEntry>, b: Vec<FileEntry>) -> (TreeSummary, Vec<(String, Aspect)>) {
        let mut seen = Vec::new();
        let summary = compare(a, b, |d| seen.push((d.path.to_string(), d.aspect)));
        (summary, seen)
    }

    #[test]
    fn equal_trees_match() {
        let (summary, seen) = run(vec![file("a", 1, 1), file("b", 2, 2)], vec![file("a", 1, 1), file("b", 2, 2)]);
        assert!(summary.is_clean() && seen.is_empty());
        assert_eq!(summary.matched, 2);
    }

    #[test]
    fn every_kind_of_damage_has_its_name() {
        type Harm = fn(&mut FileEntry);
        let harms: [(Harm, Aspect); 6] = [
            (|e| e.kind = EntryKind::File { size: 2, blake3: Some(Blake3([1; 32])) }, Aspect::Size),
            (|e| e.kind = EntryKind::File { size: 1, blake3: Some(Blake3([9; 32])) }, Aspect::Content),
            (|e| e.kind = EntryKind::Dir, Aspect::Kind),
            (|e| e.mode = 0o600, Aspect::Mode),
            (|e| e.mtime_ns = 6, Aspect::Time),
            (|e| e.xattrs = vec![Xattr { name: "user.x".into(), value: vec![1] }], Aspect::Xattrs),
        ];
        for (harm, aspect) in harms {
            let mut hurt = file("a", 1, 1);
            harm(&mut hurt);
            let (summary, seen) = run(vec![file("a", 1, 1)], vec![hurt]);
            assert_eq!(seen, [("a".to_owned(), aspect)]);
            assert_eq!(summary.mismatched, 1);
        }
    }

    #[test]
    fn missing_and_extra_entries_are_told_apart() {
        let (summary, seen) = run(vec![file("a", 1, 1), file("c", 1, 1)], vec![file("b", 1, 1), file("c", 1, 1)]);
        assert_eq!(seen, [("a".into(), Aspect::Missing), ("b".into(), Aspect::Extra)]);
        assert_eq!((summary.matched, summary.missing, summary.extra), (1, 1, 1));
    }

    #[test]
    fn an_entry_survives_json() {
        let mut entry = file("a/b", 3, 7);
        entry.xattrs.push(Xattr { name: "user.k".into(), value: vec![0, 255] });
        for kind in [
            entry.kind.clone(),
            EntryKind::Dir,
            EntryKind::Symlink { target: b"\xff/x".to_vec() },
            EntryKind::Hardlink { target: RestorePath::from_bytes(b"z").unwrap() },
            EntryKind::Device { block: true, major: 8, minor: 1 },
        ] {
            entry.kind = kind;
            let json = serde_json::to_string(&entry).unwrap();
            assert_eq!(serde_json::from_str::<FileEntry>(&json).unwrap(), entry, "{json}");
        }
    }
}
