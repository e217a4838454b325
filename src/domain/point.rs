//! Recovery points, which of them a drill takes, and what a restore read of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{CaptureSource, Elapsed, Period, Sha256, Timestamp};

/// One object of a recovery point, as a listing shows it. Keys can be patient data: they stay out of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRef {
    /// Full key in the bucket, or path below the local directory.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// When it was stored, as the store says.
    pub stored_at: Timestamp,
}

/// The form of a recovery point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PointForm {
    /// A sealed set: manifest, encrypted index, data parts.
    SealedSet,
    /// One object that people already have.
    BareObject,
    /// One recovery point of a foreign tool's repository.
    Snapshot,
    /// A foreign tool's repository as it stands: the tool chooses in it.
    Repository,
}

/// One restorable backup, and the instant its data was captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryPoint {
    /// What `--point` takes: the set's id, or the object's name below the prefix.
    pub id: String,
    /// When its data was captured.
    pub captured_at: Timestamp,
    /// How that is known.
    pub captured_from: CaptureSource,
    /// Its form.
    pub form: PointForm,
    /// Bytes in storage, all objects together.
    pub size: u64,
    /// Its objects; for a sealed set the manifest comes first.
    pub objects: Vec<ObjectRef>,
}

/// Which recovery point a drill takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// The one captured last.
    Latest,
    /// The one with this id.
    Id(String),
    /// The last one captured at or before this instant, of a storage that is shown as it stood then.
    AsOf(Timestamp),
    /// The last one captured at or before this instant, of what the storage holds now.
    CapturedBy(Timestamp),
}

impl Selector {
    /// The instant at which the storage is looked at, where that is not now.
    pub fn as_of(&self) -> Option<Timestamp> {
        match self {
            Selector::AsOf(at) => Some(*at),
            Selector::Latest | Selector::Id(_) | Selector::CapturedBy(_) => None,
        }
    }

    /// The instant that it names, whatever for.
    pub fn instant(&self) -> Option<Timestamp> {
        match self {
            Selector::AsOf(at) | Selector::CapturedBy(at) => Some(*at),
            Selector::Latest | Selector::Id(_) => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Latest => f.write_str("latest"),
            // the id itself may be a name that says something
            Selector::Id(_) => f.write_str("by id"),
            Selector::AsOf(at) => write!(f, "as of {at}"),
            Selector::CapturedBy(at) => write!(f, "captured by {at}"),
        }
    }
}

/// An instant, or a time before the drill's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// This one.
    At(Timestamp),
    /// So long before.
    Ago(Period),
}

/// What is wrong with a written moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no instant: write it as \"2026-11-20T02:00:00Z\", or as a time before the drill's start, as \"24h\"")]
pub struct MomentError(String);

impl Moment {
    /// The instant, for a drill that starts at `now`.
    pub fn for_start(self, now: Timestamp) -> Timestamp {
        match self {
            Moment::At(at) => at,
            Moment::Ago(ago) => now.earlier_by(Elapsed::from_duration(ago.as_duration())),
        }
    }
}

impl FromStr for Moment {
    type Err = MomentError;
    fn from_str(text: &str) -> Result<Self, MomentError> {
        let at = text.parse().map(Moment::At);
        at.or_else(|_| text.parse().map(Moment::Ago)).map_err(|_| MomentError(text.to_owned()))
    }
}

/// Which recovery point a scenario asks for, before a drill's start is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Selection {
    /// The one captured last.
    #[default]
    Latest,
    /// The one with this id.
    Id(String),
    /// As [`Selector::AsOf`].
    AsOf(Moment),
    /// As [`Selector::CapturedBy`].
    CapturedBy(Moment),
}

impl Selection {
    /// What a drill that starts at `now` selects.
    pub fn for_start(&self, now: Timestamp) -> Selector {
        match self {
            Selection::Latest => Selector::Latest,
            Selection::Id(id) => Selector::Id(id.clone()),
            Selection::AsOf(moment) => Selector::AsOf(moment.for_start(now)),
            Selection::CapturedBy(moment) => Selector::CapturedBy(moment.for_start(now)),
        }
    }
}

/// Why no recovery point was selected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// The prefix has none at all.
    #[error("there is no recovery point under this prefix")]
    None,
    /// None has this id.
    #[error("no recovery point has the id `{0}`")]
    NoSuchId(String),
    /// All are younger.
    #[error("no recovery point was captured at or before {0}")]
    NoneBefore(Timestamp),
}

/// Selects by capture time, never by upload time; equal times fall to the greater id, so that the choice is stable.
///
/// # Errors
/// [`SelectError`] where nothing fits. An empty list is an error, never a pass.
pub fn select<'a>(points: &'a [RecoveryPoint], selector: &Selector) -> Result<&'a RecoveryPoint, SelectError> {
    if points.is_empty() {
        return Err(SelectError::None);
    }
    let newest = |accept: &dyn Fn(&RecoveryPoint) -> bool| {
        points.iter().filter(|p| accept(p)).max_by(|a, b| (a.captured_at, &a.id).cmp(&(b.captured_at, &b.id)))
    };
    match selector {
        Selector::Latest => newest(&|_| true).ok_or(SelectError::None),
        Selector::Id(id) => points.iter().find(|p| p.id == *id).ok_or_else(|| SelectError::NoSuchId(id.clone())),
        Selector::AsOf(at) | Selector::CapturedBy(at) => newest(&|p| p.captured_at <= *at).ok_or(SelectError::NoneBefore(*at)),
    }
}

/// How the storage was reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Transport {
    /// `s3`, `file` or `memory`.
    pub store: String,
    /// Host and port of the endpoint; empty for local stores.
    pub endpoint: String,
    /// Whether the connection was encrypted. `false` over plain HTTP, `None` where there is no connection.
    pub encrypted: Option<bool>,
    /// Negotiated protocol version, as `TLSv1.3`.
    pub tls_version: Option<String>,
    /// SHA-256 of the server's certificate.
    pub server_certificate: Option<Sha256>,
    /// Where the credentials came from, never what they are: `environment`, `profile`, `static`, ….
    pub credentials: String,
    /// Difference between the server's clock and ours, in seconds, where the server says its time; positive is ahead.
    pub clock_offset: Option<i64>,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.encrypted, &self.tls_version) {
            (None, _) => write!(f, "{} (no network)", self.store),
            (Some(true), version) => write!(f, "{} over {}", self.endpoint, version.as_deref().unwrap_or("TLS")),
            (Some(false), _) => write!(f, "{} over plain HTTP: neither private nor authenticated", self.endpoint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(id: &str, captured: i64, stored: i64) -> RecoveryPoint {
        RecoveryPoint {
            id: id.into(),
            captured_at: Timestamp::from_unix(captured),
            captured_from: CaptureSource::Manifest,
            form: PointForm::SealedSet,
            size: 1,
            objects: vec![ObjectRef { key: id.into(), size: 1, stored_at: Timestamp::from_unix(stored) }],
        }
    }

    #[test]
    fn capture_time_wins_over_upload_time() {
        // an old backup, uploaded again yesterday
        let points = [point("old", 100, 9_999), point("new", 200, 300)];
        assert_eq!(select(&points, &Selector::Latest).unwrap().id, "new");
        assert_eq!(select(&points, &Selector::AsOf(Timestamp::from_unix(150))).unwrap().id, "old");
    }

    #[test]
    fn a_moment_is_an_instant_or_a_time_before_the_start() {
        let now = Timestamp::from_unix(1_000_000);
        let of = |text: &str| text.parse::<Moment>().map(|m| m.for_start(now));
        assert_eq!(of("1970-01-02T00:00:00Z"), Ok(Timestamp::from_unix(86_400)));
        assert_eq!(of("24h"), Ok(Timestamp::from_unix(1_000_000 - 86_400)));
        for bad in ["", "yesterday", "2026-11-20", "2026-11-20T02:00:00", "24"] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
        let selector = Selection::AsOf(Moment::Ago(Period::from_secs(10))).for_start(now);
        assert_eq!((selector.as_of(), selector.to_string().as_str()), (Some(Timestamp::from_unix(999_990)), "as of 1970-01-12T13:46:30Z"));
        assert_eq!(Selection::CapturedBy(Moment::At(now)).for_start(now).as_of(), None);
    }

    #[test]
    fn nothing_to_select_is_an_error() {
        assert_eq!(select(&[], &Selector::Latest), Err(SelectError::None));
        let points = [point("a", 100, 100)];
        assert_eq!(select(&points, &Selector::Id("b".into())), Err(SelectError::NoSuchId("b".into())));
        assert!(matches!(select(&points, &Selector::AsOf(Timestamp::from_unix(1))), Err(SelectError::NoneBefore(_))));
    }
}
