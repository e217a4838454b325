//! Patterns of paths: `*` and `?` within a component, `**` across components, `[…]` classes, `{a,b}` choices.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use globset::GlobBuilder;

use crate::domain::RestorePath;

/// A valid pattern.
#[derive(Debug, Clone)]
pub struct Glob(globset::GlobMatcher);

/// What is wrong with a pattern.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is not a pattern of paths: {why}")]
pub struct GlobError {
    pattern: String,
    why: String,
}

impl Glob {
    /// Reads a pattern; a leading `./` is dropped.
    ///
    /// # Errors
    /// [`GlobError`], and for patterns that begin with a slash: paths are relative to the restored root.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        let bad = |why: String| GlobError { pattern: pattern.to_owned(), why };
        if pattern.starts_with('/') {
            return Err(bad("paths are relative to the restored root".to_owned()));
        }
        let text = pattern.trim_start_matches("./");
        if text.is_empty() {
            return Err(bad("it is empty".to_owned()));
        }
        let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build().map_err(|e| bad(e.kind().to_string()))?;
        Ok(Self(glob.compile_matcher()))
    }

    /// Whether a path matches.
    pub fn matches(&self, path: &RestorePath) -> bool {
        self.0.is_match(OsStr::from_bytes(path.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_within_a_component_and_double_stars_do_not() {
        let path = |p: &str| RestorePath::from_bytes(p.as_bytes()).unwrap();
        let one = Glob::new("records/*.json").unwrap();
        assert!(one.matches(&path("records/a.json")));
        assert!(!one.matches(&path("records/b/a.json")));
        let deep = Glob::new("**/*.json").unwrap();
        assert!(deep.matches(&path("records/b/a.json")) && deep.matches(&path("a.json")));
        assert!(Glob::new("a\\*b").unwrap().matches(&path("a*b")));
        assert!(Glob::new("/etc/*").is_err() && Glob::new("a[").is_err() && Glob::new("").is_err());
    }
}
