//! What the outermost layer of some bytes is, by its magic.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::tar;

/// How many bytes [`detect`] wants to see; fewer are enough for shorter files.
pub const PREFIX: usize = 4_096;

/// A layer of a backup, from the outside in: `age`, `zstd`, `tar`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// The object as it is stored.
    Object,
    /// age, binary.
    Age,
    /// age, ASCII armor.
    AgeArmor,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// xz.
    Xz,
    /// lz4 frames.
    Lz4,
    /// tar.
    Tar,
    /// A dump in PostgreSQL's custom format.
    PgDump,
    /// A SQLite database.
    Sqlite,
    /// SQL text.
    Sql,
    /// Anything else: one file.
    File,
    /// A sealed set's manifest.
    Manifest,
    /// A sealed set's index.
    Index,
}

impl Layer {
    /// As findings and reports write it.
    pub const fn word(self) -> &'static str {
        match self {
            Layer::Object => "object",
            Layer::Age => "age",
            Layer::AgeArmor => "armor",
            Layer::Gzip => "gzip",
            Layer::Zstd => "zstd",
            Layer::Xz => "xz",
            Layer::Lz4 => "lz4",
            Layer::Tar => "tar",
            Layer::PgDump => "pg_dump",
            Layer::Sqlite => "sqlite",
            Layer::Sql => "sql",
            Layer::File => "file",
            Layer::Manifest => "manifest",
            Layer::Index => "index",
        }
    }

    /// Endings of names that stand for this layer; whoever peels the layer off takes the ending off too.
    pub const fn suffixes(self) -> &'static [&'static str] {
        match self {
            Layer::Age => &[".age"],
            Layer::AgeArmor => &[".age", ".asc"],
            Layer::Gzip => &[".gz", ".tgz"],
            Layer::Zstd => &[".zst", ".zstd", ".tzst"],
            Layer::Xz => &[".xz", ".txz"],
            Layer::Lz4 => &[".lz4"],
            Layer::Tar => &[".tar"],
            Layer::Object | Layer::PgDump | Layer::Sqlite | Layer::Sql | Layer::File | Layer::Manifest | Layer::Index => &[],
        }
    }

    /// Whether something else is inside.
    pub const fn wraps(self) -> bool {
        matches!(self, Layer::Age | Layer::AgeArmor | Layer::Gzip | Layer::Zstd | Layer::Xz | Layer::Lz4)
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The layer that these bytes begin with. `prefix` is the whole, or its first [`PREFIX`] bytes.
pub fn detect(prefix: &[u8]) -> Layer {
    const MAGICS: [(&[u8], Layer); 9] = [
        (b"age-encryption.org/", Layer::Age),
        (b"-----BEGIN AGE ENCRYPTED FILE-----", Layer::AgeArmor),
        (b"\x1f\x8b", Layer::Gzip),
        (b"\x28\xb5\x2f\xfd", Layer::Zstd),
        (b"\xfd7zXZ\0", Layer::Xz),
        (b"\x04\x22\x4d\x18", Layer::Lz4),
        (b"\x02\x21\x4c\x18", Layer::Lz4),
        (b"PGDMP", Layer::PgDump),
        (b"SQLite format 3\0", Layer::Sqlite),
    ];
    if let Some((_, layer)) = MAGICS.iter().find(|(magic, _)| prefix.starts_with(magic)) {
        return *layer;
    }
    // a skippable zstd frame in front, as pzstd and seekable writers leave it
    if let Some(&[first, 0x2a, 0x4d, 0x18]) = prefix.get(..4)
        && first & 0xf0 == 0x50
    {
        return Layer::Zstd;
    }
    if tar::begins_as_tar(prefix) {
        return Layer::Tar;
    }
    // armor may follow blank lines
    if prefix.trim_ascii_start().starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----") {
        return Layer::AgeArmor;
    }
    if looks_like_sql(prefix) { Layer::Sql } else { Layer::File }
}

/// The first line that is no comment begins with a word that dumps begin with.
fn looks_like_sql(prefix: &[u8]) -> bool {
    const COMMENTS: [&str; 6] =
        ["-- PostgreSQL database dump", "-- PostgreSQL database cluster dump", "-- MySQL dump", "-- MariaDB dump", "/*M!", "/*!"];
    const WORDS: [&str; 9] =
        ["set ", "create ", "begin;", "begin transaction;", "start transaction;", "pragma ", "insert into ", "drop table", "copy "];
    if prefix.contains(&0) {
        return false;
    }
    let text = String::from_utf8_lossy(prefix);
    for line in text.lines().map(str::trim_start) {
        if COMMENTS.iter().any(|c| line.starts_with(c)) {
            return true;
        }
        if line.is_empty() || line.starts_with("--") || line.starts_with('\\') {
            continue;
        }
        let line = line.to_ascii_lowercase();
        return WORDS.iter().any(|w| line.starts_with(w));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_told_by_their_magic() {
        let cases: [(&[u8], Layer); 14] = [
            (b"age-encryption.org/v1\n-> X25519", Layer::Age),
            (b"-----BEGIN AGE ENCRYPTED FILE-----\n", Layer::AgeArmor),
            (b"\n\n-----BEGIN AGE ENCRYPTED FILE-----\n", Layer::AgeArmor),
            (b"\x1f\x8b\x08\0", Layer::Gzip),
            (b"\x28\xb5\x2f\xfd\x04", Layer::Zstd),
            (b"\x50\x2a\x4d\x18\x04\0\0\0", Layer::Zstd),
            (b"\xfd7zXZ\0\0", Layer::Xz),
            (b"\x04\x22\x4d\x18\x40", Layer::Lz4),
            (b"PGDMP\x01\x0e\0", Layer::PgDump),
            (b"SQLite format 3\0\x10\0", Layer::Sqlite),
            (b"--\n-- PostgreSQL database dump\n--\n", Layer::Sql),
            (b"-- made by hand\n\nCREATE TABLE a(b int);\n", Layer::Sql),
            (b"just words -- of a letter\n", Layer::File),
            (b"", Layer::File),
        ];
        for (bytes, layer) in cases {
            assert_eq!(detect(bytes), layer, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
