//! What a bucket says about object lock and versions: calls that `object_store` does not have.

use super::bucket::Bucket;
use super::error::StorageError;
use super::xml;
use crate::domain::{LockMode, LockState, Period};

/// Whether a bucket can lock objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketLock {
    /// It can; with the retention that new objects get, where there is one.
    Enabled {
        /// Mode and length.
        default: Option<(LockMode, Period)>,
    },
    /// It cannot.
    Disabled,
    /// The server does not know the notion.
    NotSupported,
    /// These credentials may not ask.
    NotVisible,
}

/// Whether a bucket keeps the versions that were overwritten or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioning {
    /// It does.
    Enabled,
    /// It did once. What is stored now overwrites what was stored since.
    Suspended,
    /// It never did, or the storage does not know the notion.
    Never,
    /// These credentials may not ask.
    NotVisible,
}

/// The answer to GetObjectRetention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retention {
    /// Mode and date, as the server wrote them.
    Set {
        /// `COMPLIANCE` or `GOVERNANCE`.
        mode: String,
        /// ISO 8601.
        until: String,
    },
    /// There is none.
    None,
    /// These credentials may not ask.
    NotVisible,
}

impl Bucket {
    /// Whether the bucket can lock objects.
    ///
    /// # Errors
    /// [`StorageError`] where there was no answer at all.
    pub async fn lock_configuration(&self) -> Result<BucketLock, StorageError> {
        const OPERATION: &str = "GetObjectLockConfiguration";
        let answer = self.ask(OPERATION, None, &[("object-lock", "")]).await;
        match answer {
            Ok(text) => {
                let found: xml::LockConfiguration = xml::read(OPERATION, &text)?;
                if found.object_lock_enabled.as_deref() != Some("Enabled") {
                    return Ok(BucketLock::Disabled);
                }
                let default = found.rule.and_then(|rule| {
                    let rule = rule.default_retention;
                    let days = rule.days.or(rule.years.map(|y| y * 365))?;
                    Some((lock_mode(&rule.mode?)?, Period::from_secs(days * 86_400)))
                });
                Ok(BucketLock::Enabled { default })
            }
            Err(StorageError::Refused { status: 404, .. }) => Ok(BucketLock::Disabled),
            Err(StorageError::Refused { status: 400 | 405 | 501, .. }) => Ok(BucketLock::NotSupported),
            Err(StorageError::AccessDenied { .. }) => Ok(BucketLock::NotVisible),
            Err(other) => Err(other),
        }
    }

    /// Whether the bucket keeps versions.
    ///
    /// # Errors
    /// [`StorageError`] where there was no answer at all.
    pub async fn versioning(&self) -> Result<Versioning, StorageError> {
        const OPERATION: &str = "GetBucketVersioning";
        match self.ask(OPERATION, None, &[("versioning", "")]).await {
            Ok(text) => Ok(match xml::read::<xml::Status>(OPERATION, &text)?.status.as_deref() {
                Some("Enabled") => Versioning::Enabled,
                Some("Suspended") => Versioning::Suspended,
                _ => Versioning::Never,
            }),
            Err(StorageError::AccessDenied { .. }) => Ok(Versioning::NotVisible),
            // a server without the notion
            Err(StorageError::Refused { status: 400 | 404 | 405 | 501, .. }) => Ok(Versioning::Never),
            Err(other) => Err(other),
        }
    }

    /// Retention of one object version, by the call that answers even where HEAD hides it.
    ///
    /// # Errors
    /// [`StorageError`] where there was no answer at all.
    pub async fn retention(&self, key: &str, version: Option<&str>) -> Result<Retention, StorageError> {
        const OPERATION: &str = "GetObjectRetention";
        let mut query = vec![("retention", "")];
        query.extend(version.map(|v| ("versionId", v)));
        match self.ask(OPERATION, Some(key), &query).await {
            Ok(text) => {
                let found: xml::RetentionAnswer = xml::read(OPERATION, &text)?;
                Ok(match (found.mode, found.retain_until_date) {
                    (Some(mode), Some(until)) => Retention::Set { mode, until },
                    _ => Retention::None,
                })
            }
            // 404 NoSuchObjectLockConfiguration, 400 InvalidRequest "bucket is missing object lock configuration"
            Err(StorageError::Refused { status: 400 | 404 | 405 | 501, .. }) => Ok(Retention::None),
            Err(StorageError::AccessDenied { .. }) => Ok(Retention::NotVisible),
            Err(other) => Err(other),
        }
    }

    /// Legal hold of one object version; `None` where these credentials may not ask.
    ///
    /// # Errors
    /// [`StorageError`] where there was no answer at all.
    pub async fn legal_hold(&self, key: &str, version: Option<&str>) -> Result<Option<bool>, StorageError> {
        const OPERATION: &str = "GetObjectLegalHold";
        let mut query = vec![("legal-hold", "")];
        query.extend(version.map(|v| ("versionId", v)));
        match self.ask(OPERATION, Some(key), &query).await {
            Ok(text) => Ok(Some(xml::read::<xml::Status>(OPERATION, &text)?.status.as_deref() == Some("ON"))),
            Err(StorageError::Refused { .. }) => Ok(Some(false)),
            Err(StorageError::AccessDenied { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }
}

/// S3's word for a mode, as its headers and documents have it.
pub(super) fn lock_mode(word: &str) -> Option<LockMode> {
    match word {
        "COMPLIANCE" => Some(LockMode::Compliance),
        "GOVERNANCE" => Some(LockMode::Governance),
        _ => None,
    }
}

/// What the words of a header or a document say about retention; `None` where they say nothing at all.
pub fn lock_state(mode: Option<&str>, until: Option<&str>) -> Option<LockState> {
    let unknown = |reason: &str| LockState::Unknown { reason: reason.to_owned() };
    Some(match (mode, until) {
        (None, None) => return None,
        (Some(_), None) => unknown("the server shows a mode without a date"),
        (None, Some(_)) => unknown("the server shows a date without a mode"),
        (Some(mode), Some(until)) => match (lock_mode(mode), xml::instant(until)) {
            (Some(mode), Some(until)) => LockState::Locked { mode, until },
            (None, _) => unknown("the server shows a mode that S3 does not have"),
            (_, None) => unknown("the server shows a date that is not ISO 8601"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_cannot_be_read_is_unknown() {
        let date = "2026-11-21T18:46:36.000000000Z";
        assert_eq!(lock_state(None, None), None);
        assert!(matches!(lock_state(Some("COMPLIANCE"), Some(date)), Some(LockState::Locked { mode: LockMode::Compliance, .. })));
        for (mode, until) in [
            (Some("COMPLIANCE"), Some("Sat, 21 Nov 2026 18:46:36 GMT")),
            (Some("FOREVER"), Some(date)),
            (Some("COMPLIANCE"), None),
            (None, Some(date)),
        ] {
            assert!(matches!(lock_state(mode, until), Some(LockState::Unknown { .. })), "{mode:?} {until:?}");
        }
    }
}
