//! Values from a parsed document, each mistake noted with its place: what scenarios and settings share.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;
use toml::de::DeTable;

use super::mistakes::Collector;
use super::schema;
use crate::domain::{SecretRef, StorageLocation, TimeZone};

/// A document that is read: what is wrong with it is noted, and the reading goes on.
pub(super) struct Reader<'a> {
    document: &'a Spanned<DeTable<'a>>,
    base: &'a Path,
    mistakes: Collector,
    repairs: Vec<schema::Repair>,
}

impl<'a> Reader<'a> {
    /// Of a document whose structure was checked. Relative paths are taken from `base`; nothing is noted of what `repairs` put there.
    pub(super) fn new(document: &'a Spanned<DeTable<'a>>, base: &'a Path, mistakes: Collector, repairs: Vec<schema::Repair>) -> Self {
        Self { document, base, mistakes, repairs }
    }

    /// What was noted.
    pub(super) fn into_mistakes(self) -> Collector {
        self.mistakes
    }

    pub(super) fn wrong(&mut self, at: &str, what: impl Into<String>, advice: impl Into<String>) {
        self.note(at, what.into(), Some(advice.into()));
    }

    /// Notes a mistake, unless it is about something that only stands in.
    fn note(&mut self, at: &str, what: String, advice: Option<String>) {
        if !self.stands_in(at) {
            self.mistakes.add(schema::span_of(self.document, at), what, advice);
        }
    }

    /// Whether what is at `at` only stands in for a mistake that was noted already.
    pub(super) fn stands_in(&self, at: &str) -> bool {
        self.repairs.iter().any(|repair| repair.covers(at))
    }

    /// Parses one value; a mistake is noted and answered with `None`.
    pub(super) fn parse<T: FromStr>(&mut self, at: &str, text: &str) -> Option<T>
    where
        T::Err: Display,
    {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.note(at, error.to_string(), None);
                None
            }
        }
    }

    pub(super) fn maybe<T: FromStr>(&mut self, at: &str, text: Option<&String>) -> Option<T>
    where
        T::Err: Display,
    {
        text.and_then(|text| self.parse(at, text))
    }

    /// A day.
    pub(super) fn date(&mut self, at: &str, text: Option<&String>) -> Option<jiff::civil::Date> {
        let date = text?.parse().ok();
        if date.is_none() {
            self.wrong(at, "this is no date", "write year, month and day, as \"2027-12-31\"");
        }
        date
    }

    pub(super) fn path(&self, text: &str) -> PathBuf {
        self.base.join(text)
    }

    pub(super) fn secret(&mut self, at: &str, text: &str) -> Option<SecretRef> {
        if let Some(path) = text.strip_prefix("file:") {
            return Some(SecretRef::File(self.path(path)));
        }
        if let Some(name) = text.strip_prefix("env:") {
            return Some(SecretRef::Env(name.to_owned()));
        }
        // the text may be the secret itself: it is not repeated
        self.wrong(
            at,
            "this is not a reference to a secret",
            "write \"file:PATH\" or \"env:NAME\"; a secret itself never stands in a scenario",
        );
        None
    }

    pub(super) fn zone(&mut self, at: &str, text: &str) -> Option<TimeZone> {
        if jiff::tz::TimeZone::get(text).is_ok() {
            return Some(TimeZone(text.to_owned()));
        }
        self.wrong(at, format!("there is no time zone `{text}`"), "use an IANA name, as \"America/Chicago\" or \"UTC\"");
        None
    }

    /// Whether an endpoint can be meant, and is private.
    pub(super) fn endpoint(&mut self, at: &str, endpoint: Option<&str>, allow_http: bool, local: bool) {
        if let Some(endpoint) = endpoint {
            if local {
                self.wrong(&format!("{at}.endpoint"), "a local directory has no endpoint", "remove `endpoint`, or use an s3:// url");
            } else if endpoint.starts_with("http://") {
                if !allow_http {
                    self.wrong(
                        &format!("{at}.endpoint"),
                        "a plain http endpoint is neither private nor authenticated",
                        "use https, or set `allow_http = true`: the report will say so",
                    );
                }
            } else if !endpoint.starts_with("https://") {
                self.wrong(&format!("{at}.endpoint"), "an endpoint begins with https://", "write it as \"https://s3.example.org\"");
            }
        }
    }

    pub(super) fn location(&mut self, at: &str, url: &str) -> Option<StorageLocation> {
        if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                self.wrong(&format!("{at}.url"), "the bucket has no name", "write \"s3://bucket/prefix/\"");
                return None;
            }
            // a prefix is a folder: `ehr` must never match `ehr-test`
            let prefix = match prefix.trim_matches('/') {
                "" => String::new(),
                folder => format!("{folder}/"),
            };
            return Some(StorageLocation::S3 { bucket: bucket.to_owned(), prefix });
        }
        if let Some(path) = url.strip_prefix("file://").or_else(|| url.strip_prefix("file:")) {
            return Some(StorageLocation::File { path: self.path(path) });
        }
        let known = url.starts_with("gs://") || url.starts_with("az://");
        let what = if known { "this kind of storage is not built in yet" } else { "this is not a storage url" };
        self.wrong(&format!("{at}.url"), what, "write \"s3://bucket/prefix/\" for S3-compatible storage or \"file:///directory/\"");
        None
    }
}
