//! Mistakes in a file: all of them, each with its line and what to do.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Bytes of the file that it is about.
    pub span: Range<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub advice: Option<String>,
}

/// Every mistake of one file. `Display` shows each with file, line, the line itself and advice.
#[derive(Debug, Clone)]
pub struct Mistakes {
    /// The file.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// At least one, in the order of the file.
    pub list: Vec<Mistake>,
}

/// Why a file gives no settings or scenario.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It was read and has mistakes.
    #[error("{0}")]
    Mistakes(Mistakes),
}

/// Collects mistakes of one text.
#[derive(Debug, Default)]
pub(super) struct Collector {
    list: Vec<Mistake>,
}

impl Collector {
    pub(super) fn add(&mut self, span: Range<usize>, what: impl Into<String>, advice: Option<String>) {
        self.list.push(Mistake { span, what: what.into(), advice });
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn into_error(mut self, path: &Path, text: &str) -> ConfigError {
        self.list.sort_by_key(|m| (m.span.start, m.span.end));
        self.list.dedup();
        ConfigError::Mistakes(Mistakes { path: path.to_owned(), text: text.to_owned(), list: self.list })
    }
}

impl Mistakes {
    /// Line, counted from 1, on which a mistake begins.
    pub fn line_of(&self, mistake: &Mistake) -> usize {
        1 + self.text.as_bytes()[..mistake.span.start.min(self.text.len())].iter().filter(|&&b| b == b'\n').count()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display().to_string();
        let renderer = Renderer::plain();
        for mistake in &self.list {
            let end = mistake.span.end.min(self.text.len());
            let span = mistake.span.start.min(end)..end;
            let mut groups: Vec<Group<'_>> = vec![
                Level::ERROR
                    .primary_title(mistake.what.as_str())
                    .element(Snippet::source(self.text.as_str()).path(path.as_str()).annotation(AnnotationKind::Primary.span(span))),
            ];
            if let Some(advice) = &mistake.advice {
                groups.push(Group::with_title(Level::HELP.secondary_title(advice.as_str())));
            }
            writeln!(f, "{}\n", renderer.render(&groups))?;
        }
        let count = self.list.len();
        write!(f, "{path}: {count} mistake{}; nothing was run", if count == 1 { "" } else { "s" })
    }
}
