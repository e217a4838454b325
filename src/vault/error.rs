//! What goes wrong between a drill and its backup.

use crate::domain::{Cause, FindingKind, Pseudonym};
use crate::storage::StorageError;

/// Why the vault could not show, or a restore could not read, a backup. No variant holds a key.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The storage could not be asked, or refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The pattern of the scenario cannot be used.
    #[error("the name pattern cannot be used")]
    Pattern(#[from] crate::domain::PatternError),
    /// An object that was listed, or that a manifest names, is not there.
    #[error("a {role} object of the recovery point is missing")]
    Missing {
        /// What it is for.
        role: String,
    },
    /// The pinned version vanished between two requests.
    #[error("a {role} object was deleted while it was read")]
    DeletedWhileReading {
        /// What it is for.
        role: String,
    },
    /// The object was overwritten between two requests.
    #[error("a {role} object was overwritten while it was read")]
    ChangedWhileReading {
        /// What it is for.
        role: String,
    },
    /// Reading went on trying and got no further.
    #[error("a {role} object could not be read on after {read} of {size} bytes")]
    GaveUp {
        /// What it is for.
        role: String,
        /// Bytes read in order by then.
        read: u64,
        /// Bytes it has.
        size: u64,
        /// The last failure.
        #[source]
        source: StorageError,
    },
}

impl VaultError {
    /// Whether another try may help. Reading has tried for its whole patience already.
    pub fn is_transient(&self) -> bool {
        match self {
            VaultError::Storage(error) => error.is_transient(),
            VaultError::GaveUp { source, .. } => source.is_transient(),
            VaultError::ChangedWhileReading { .. } => true,
            VaultError::Pattern(_) | VaultError::Missing { .. } | VaultError::DeletedWhileReading { .. } => false,
        }
    }

    /// Storage trouble is the runner's; a backup that lacks a member is itself to blame.
    pub fn blame(&self) -> Cause {
        match self {
            VaultError::Storage(error) => error.blame(),
            VaultError::GaveUp { source, .. } => source.blame(),
            VaultError::Missing { .. } | VaultError::DeletedWhileReading { .. } => Cause::Backup,
            VaultError::Pattern(_) | VaultError::ChangedWhileReading { .. } => Cause::Runner,
        }
    }

    /// What to try next.
    pub fn advice(&self) -> &'static str {
        match self {
            VaultError::Storage(error) => error.advice(),
            VaultError::GaveUp { source, .. } => source.advice(),
            VaultError::Missing { .. } | VaultError::DeletedWhileReading { .. } => StorageError::NoSuchObject.advice(),
            VaultError::ChangedWhileReading { .. } => StorageError::Changed.advice(),
            VaultError::Pattern(_) => "correct points in [source], as in \"{captured_at:%Y-%m-%dT%H%M}.dump.zst.age\"",
        }
    }

    /// The storage's own error, where that is the cause.
    pub fn storage(&self) -> Option<&StorageError> {
        match self {
            VaultError::Storage(error) | VaultError::GaveUp { source: error, .. } => Some(error),
            VaultError::Pattern(_)
            | VaultError::Missing { .. }
            | VaultError::DeletedWhileReading { .. }
            | VaultError::ChangedWhileReading { .. } => None,
        }
    }

    /// From the failure to read an object that exists for `role`.
    pub(super) fn of_reading(role: &str, error: StorageError) -> Self {
        let role = role.to_owned();
        match error {
            StorageError::NoSuchObject => VaultError::DeletedWhileReading { role },
            StorageError::Changed => VaultError::ChangedWhileReading { role },
            other => VaultError::Storage(other),
        }
    }
}

impl VaultError {
    /// The fact for the evidence: our words and numbers, no key. `object` stands for what was read.
    pub fn finding(&self, object: &Pseudonym) -> FindingKind {
        use StorageError as E;
        let reason = || format!("{self}; {}", self.advice());
        match self {
            VaultError::Missing { role } | VaultError::DeletedWhileReading { role } => {
                FindingKind::ObjectMissing { object: object.clone(), role: role.clone() }
            }
            VaultError::Pattern(_) | VaultError::ChangedWhileReading { .. } => FindingKind::CouldNotRun { reason: reason() },
            VaultError::GaveUp { source, .. } => FindingKind::StorageUnreachable { reason: format!("{self}: {source}; {}", self.advice()) },
            VaultError::Storage(error) => match error {
                E::NoSuchObject => FindingKind::ObjectMissing { object: object.clone(), role: "object".to_owned() },
                E::LimitReached { limit, value } => FindingKind::SourceLimit { limit: (*limit).to_owned(), value: value.clone() },
                E::NoSuchStore { .. } => FindingKind::NoSuchStore { reason: reason() },
                E::CredentialsMissing { .. }
                | E::CredentialsUnusable { .. }
                | E::CredentialsRefused { .. }
                | E::CredentialsExpired { .. }
                | E::AccessDenied { .. }
                | E::VersionsNotVisible { .. } => FindingKind::CredentialsRefused { reason: reason() },
                E::Unreachable { .. }
                | E::TlsRefused { .. }
                | E::ClockSkew { .. }
                | E::WrongRegion { .. }
                | E::Throttled { .. }
                | E::ServerFailure { .. }
                | E::Refused { .. }
                | E::BadAnswer { .. } => FindingKind::StorageUnreachable { reason: reason() },
                _ => FindingKind::CouldNotRun { reason: reason() },
            },
        }
    }
}
