//! Connections to object storage: S3-compatible servers and local directories.
//!
//! `vault` shows backups strictly read-only through this room; `seal` writes backups, and `archive` what must be kept. So reading
//! and writing are separate types here: [`Bucket`] and [`Directory`] read, [`BucketWriter`] writes, and nothing turns the
//! first into the second. Times and settings come from outside; no environment variable is read here.

mod bucket;
mod credentials;
mod direct;
mod directory;
mod error;
mod http;
mod locks;
mod post;
#[cfg(feature = "aws-profiles")]
mod profile;
mod refusal;
mod retry;
mod rights;
mod tls;
mod versions;
mod writer;
mod xml;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use bucket::{Body, Bucket, Head, Wanted};
pub use directory::{Directory, LocalFile};
pub use error::{Source as ErrorSource, StorageError};
pub use http::HeaderFacts;
pub use locks::{BucketLock, Retention, Versioning, lock_state};
pub use post::post;
pub use retry::{Failure, Patience};
pub use rights::RightsProbe;
pub use versions::{StoredVersion, VersionKind, VersionMark, VersionPage, VersionsAsk};
pub use writer::{BucketWriter, PartTag, Upload};

use crate::domain::{Addressing, LockedBucket, ObjectRef, Source, Timestamp};

/// Tells wall time, for clock offsets and messages. `clock` has the real one.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The environment as the process got it, handed in by `app`. Holds secrets: `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Environment(HashMap<String, String>);

impl Environment {
    /// From pairs of name and value, as `std::env::vars` gives them.
    pub fn new(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(vars.into_iter().collect())
    }
    /// The same with this access key, whatever key it had.
    pub fn with_key(&self, id: String, secret: String) -> Self {
        let mut variables = self.0.clone();
        // a session's token belongs to another key
        variables.remove("AWS_SESSION_TOKEN");
        variables.extend([("AWS_ACCESS_KEY_ID".to_owned(), id), ("AWS_SECRET_ACCESS_KEY".to_owned(), secret)]);
        Self(variables)
    }
    /// The value of `name`; empty counts as absent, as the AWS tools have it.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<_> = self.0.keys().filter(|k| k.starts_with("AWS_")).collect();
        names.sort();
        write!(f, "Environment({names:?})")
    }
}

impl From<&LockedBucket> for Settings {
    fn from(place: &LockedBucket) -> Self {
        Self {
            endpoint: place.endpoint.clone(),
            region: place.region.clone(),
            allow_http: place.allow_http,
            ca_file: place.ca_file.clone(),
            profile: place.profile.clone(),
            addressing: place.addressing,
            proxy: None,
            tuning: Tuning::default(),
        }
    }
}

/// Limits of time and size. The defaults suit downloads that last for hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest silence within an answer. The whole body may take as long as it takes.
    pub read_timeout: Duration,
    /// Longest time that reading goes on trying without a single new byte.
    pub patience: Duration,
    /// Longest time for one small request with all its tries: a listing's page, a HEAD.
    pub request_patience: Duration,
    /// First pause between two tries; doubles up to [`Tuning::longest_pause`].
    pub first_pause: Duration,
    /// Longest pause between two tries.
    pub longest_pause: Duration,
    /// Ranges that are fetched at the same time.
    pub parallel: usize,
    /// Bytes of one range. `parallel + 2` of them are held in memory at most.
    pub range: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            patience: Duration::from_secs(15 * 60),
            request_patience: Duration::from_secs(60),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(20),
            parallel: 6,
            range: 4 << 20,
        }
    }
}

/// How an S3-compatible bucket is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// URL of the server; AWS where absent.
    pub endpoint: Option<String>,
    /// Region; the environment's or the profile's where absent, `us-east-1` where there is none at all.
    pub region: Option<String>,
    /// Whether plain HTTP may be used.
    pub allow_http: bool,
    /// PEM certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A profile of the shared AWS files.
    pub profile: Option<String>,
    /// Path style or virtual host style.
    pub addressing: Addressing,
    /// A proxy's URL. Proxies that only the environment names are not used.
    pub proxy: Option<String>,
    /// Limits.
    pub tuning: Tuning,
}

impl From<&Source> for Settings {
    fn from(source: &Source) -> Self {
        Self {
            endpoint: source.endpoint.clone(),
            region: source.region.clone(),
            allow_http: source.allow_http,
            ca_file: source.ca_file.clone(),
            profile: source.profile.clone(),
            addressing: source.addressing,
            proxy: None,
            tuning: Tuning::default(),
        }
    }
}

/// Which bytes of an object, where its size need not be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    /// All.
    Whole,
    /// From the first number to before the second, or to the end where the object is shorter.
    Bounded(Range<u64>),
    /// From here to the end.
    From(u64),
    /// So many at the end, or all where there are fewer.
    Last(u64),
}

impl Span {
    /// The bytes it means of an object of `size` bytes; `None` where it means none that exist.
    pub fn within(&self, size: u64) -> Option<Range<u64>> {
        let range = match *self {
            Span::Whole => return Some(0..size),
            Span::Bounded(ref range) => range.start..range.end.min(size),
            Span::From(start) => start..size,
            Span::Last(length) => size.saturating_sub(length)..size,
        };
        (range.start < range.end).then_some(range)
    }
}

/// What a listing found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Objects, in the order of their keys.
    pub objects: Vec<ObjectRef>,
    /// With [`Depth::OneLevel`]: the "directories" below the prefix, each ending in a slash.
    pub prefixes: Vec<String>,
    /// Entries that cannot be requested (empty, `.` or `..` path segments; names that are not text) or are no
    /// regular files. They are counted, so that nothing vanishes silently.
    pub skipped: u64,
}

impl Listing {
    /// Whether nothing was found, not even something strange.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.prefixes.is_empty() && self.skipped == 0
    }
}

/// One object of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Key, size and time.
    pub object: ObjectRef,
    /// Entity tag, quoted as the server writes it, where the listing shows one.
    pub etag: Option<String>,
}

/// Which page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageAsk {
    /// A plain string: it need not end at a slash.
    pub prefix: String,
    /// How deep.
    pub depth: Depth,
    /// Where it begins.
    pub from: Begin,
    /// Entries at most, 1 to 1000.
    pub limit: usize,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// At the first key.
    Start,
    /// After this key, which need not exist.
    After(String),
    /// Where the page before it ended: its [`Page::next`].
    Token(String),
}

/// A page of a listing, in the order of keys (bytes of UTF-8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects.
    pub objects: Vec<Listed>,
    /// With [`Depth::OneLevel`]: the "directories" below the prefix, each ending in a slash.
    pub prefixes: Vec<String>,
    /// Entries that are not shown, as in [`Listing::skipped`].
    pub skipped: u64,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

/// How deep a listing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Objects directly below the prefix, and the names of what lies deeper.
    OneLevel,
    /// Everything.
    All,
}

/// Whether this client can ask for the object: HTTP libraries resolve `.` and `..` segments before they send anything.
pub fn can_be_requested(key: &str) -> bool {
    !key.is_empty() && key.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environments_debug_shows_no_value() {
        let env = Environment::new([("AWS_SECRET_ACCESS_KEY".into(), "hunter2".into()), ("HOME".into(), "/home/x".into())]);
        assert_eq!(format!("{env:?}"), r#"Environment(["AWS_SECRET_ACCESS_KEY"])"#);
    }

    #[test]
    fn keys_that_http_would_rewrite_are_told_apart() {
        for good in ["a", "a/b", "a b/ü", "...", "a/..b"] {
            assert!(can_be_requested(good), "{good}");
        }
        for bad in ["", "a//b", "/a", "a/", "a/../b", "./a"] {
            assert!(!can_be_requested(bad), "{bad}");
        }
    }
}
