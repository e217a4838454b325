//! Recovery points, which of them a drill takes, and what a restore read of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{CaptureSource, Sha256, Timestamp};

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
    /// The last one captured at or before this instant.
    AsOf(Timestamp),
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
        Selector::AsOf(at) => newest(&|p| p.captured_at <= *at).ok_or(SelectError::NoneBefore(*at)),
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
    fn nothing_to_select_is_an_error() {
        assert_eq!(select(&[], &Selector::Latest), Err(SelectError::None));
        let points = [point("a", 100, 100)];
        assert_eq!(select(&points, &Selector::Id("b".into())), Err(SelectError::NoSuchId("b".into())));
        assert!(matches!(select(&points, &Selector::AsOf(Timestamp::from_unix(1))), Err(SelectError::NoneBefore(_))));
    }
}
