//! Paths inside a backup.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

/// A path inside a backup: relative, normal, never above its root. The only type that is ever joined to a sandbox root.
///
/// Bytes, as on any Unix: a backup's names need not be UTF-8. No empty, `.` or `..` components, no NUL; components of at
/// most 255 bytes, 4,095 bytes in all. The root itself is the empty path.
///
/// Ordered as a depth-first walk with sorted names meets them: component by component, a directory before what is in it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RestorePath(Vec<u8>);

impl Ord for RestorePath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // A path has no NUL, so a slash that sorts as one makes the order component-wise.
        let low = |&b: &u8| if b == b'/' { 0 } else { b };
        self.0.iter().map(low).cmp(other.0.iter().map(low))
    }
}

impl PartialOrd for RestorePath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Why a path is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum PathError {
    /// It begins with a slash.
    #[error("the path is absolute")]
    Absolute,
    /// It has a `..` component.
    #[error("the path climbs above its root with `..`")]
    Climbs,
    /// It has a NUL byte.
    #[error("the path has a NUL byte")]
    Nul,
    /// A component is longer than 255 bytes, or the whole longer than 4,095.
    #[error("the path is longer than a file system takes (255 bytes a component, 4095 in all)")]
    TooLong,
}

impl RestorePath {
    /// Reads a path as archives and manifests write it: `./a//b/` is `a/b`.
    ///
    /// # Errors
    /// [`PathError`] where no harmless reading exists. Nothing is re-rooted or cut silently.
    pub fn from_bytes(raw: &[u8]) -> Result<Self, PathError> {
        if raw.first() == Some(&b'/') {
            return Err(PathError::Absolute);
        }
        if raw.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut normal = Vec::with_capacity(raw.len());
        for part in raw.split(|&b| b == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(PathError::Climbs),
                _ if part.len() > 255 => return Err(PathError::TooLong),
                _ => {
                    if !normal.is_empty() {
                        normal.push(b'/');
                    }
                    normal.extend_from_slice(part);
                }
            }
        }
        if normal.len() > 4_095 {
            return Err(PathError::TooLong);
        }
        Ok(Self(normal))
    }

    /// The root of the restored tree.
    pub fn root() -> Self {
        Self(Vec::new())
    }
    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
    /// The bytes, without leading or trailing slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// As a relative path of the standard library.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
    /// Directory and last component; the directory of a top-level entry is the root.
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|&b| b == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (b"", &self.0),
        }
    }
    /// How many components it has; the root has none.
    pub fn depth(&self) -> usize {
        if self.0.is_empty() { 0 } else { 1 + self.0.iter().filter(|&&b| b == b'/').count() }
    }
    /// A component appended.
    ///
    /// # Errors
    /// As [`RestorePath::from_bytes`], and `Climbs` for an empty or dotted name.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
            return Err(PathError::Climbs);
        }
        let mut bytes = self.0.clone();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self::from_bytes(&bytes)
    }
}

impl fmt::Display for RestorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RestorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RestorePath({:?})", String::from_utf8_lossy(&self.0))
    }
}

/// In files a path is a string where it is UTF-8, else `{"base64": "…"}`.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written<'a> {
    Text(std::borrow::Cow<'a, str>),
    Bytes { base64: String },
}

impl Serialize for RestorePath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Written::Bytes { base64: BASE64.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RestorePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = match Written::deserialize(deserializer)? {
            Written::Text(text) => text.into_owned().into_bytes(),
            Written::Bytes { base64 } => BASE64.decode(base64.as_bytes()).map_err(serde::de::Error::custom)?,
        };
        Self::from_bytes(&bytes).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_become_normal() {
        assert_eq!(RestorePath::from_bytes(b"./a//b/").unwrap().as_bytes(), b"a/b");
        assert!(RestorePath::from_bytes(b"./").unwrap().is_root());
        assert_eq!(RestorePath::from_bytes(b"a/..b/...").unwrap().as_bytes(), b"a/..b/...");
    }

    #[test]
    fn a_path_that_could_leave_its_root_is_refused() {
        assert_eq!(RestorePath::from_bytes(b"/etc/passwd"), Err(PathError::Absolute));
        assert_eq!(RestorePath::from_bytes(b"a/../../b"), Err(PathError::Climbs));
        assert_eq!(RestorePath::from_bytes(b".."), Err(PathError::Climbs));
        assert_eq!(RestorePath::from_bytes(b"a\0b"), Err(PathError::Nul));
        assert_eq!(RestorePath::from_bytes(&[b'x'; 256]), Err(PathError::TooLong));
        assert_eq!(RestorePath::from_bytes(&b"x/".repeat(2100)), Err(PathError::TooLong));
    }

    #[test]
    fn paths_sort_as_a_walk_meets_them() {
        let mut paths: Vec<_> =
            ["a-b", "a/b", "a", "a/b/c", "a.b"].iter().map(|p| RestorePath::from_bytes(p.as_bytes()).unwrap()).collect();
        paths.sort();
        let shown: Vec<_> = paths.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a", "a/b", "a/b/c", "a-b", "a.b"]);
    }

    #[test]
    fn a_name_that_is_not_utf8_survives_json() {
        let path = RestorePath::from_bytes(b"caf\xe9/x").unwrap();
        let json = serde_json::to_string(&path).unwrap();
        assert_eq!(serde_json::from_str::<RestorePath>(&json).unwrap(), path);
    }
}
