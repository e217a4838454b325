//! Why something is not in the archive, and what to try.

use std::path::PathBuf;

use crate::storage::StorageError;

/// Why something could not be archived. It stays queued.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bucket cannot be reached, refuses, or does not do what it says.
    #[error(transparent)]
    Storage(StorageError),
    /// What is read back is not what was written.
    #[error("{name} is there with other bytes than were written there")]
    Differs {
        /// Its name below the prefix.
        name: String,
    },
    /// The local evidence is not fit to be kept.
    #[error("the evidence in {} is not archived as it is: {why}", directory.display())]
    Unfit {
        /// Where it is.
        directory: PathBuf,
        /// Why it is refused.
        why: String,
    },
    /// An authority cannot be asked for a timestamp.
    #[error("the timestamp authority gives no answer")]
    Authority(#[source] StorageError),
    /// A timestamp is not believed.
    #[error("the timestamp {of} is not believed: {why}")]
    Timestamp {
        /// Who gave it, or in which file it is.
        of: String,
        /// Why.
        why: String,
    },
    /// An anchor that should hold the ledger holds nothing.
    #[error("anchor {place} keeps no checkpoint at all: it was never carried there, or taken away")]
    NothingKept {
        /// Its name in the settings.
        place: String,
    },
    /// What an authority gave a timestamp for is not there any more.
    #[error("anchor {place} had a timestamp of the first {size} entries, and it is gone")]
    CarriedAndGone {
        /// Its name in the settings.
        place: String,
        /// Entries that it covered.
        size: u64,
    },
    /// Something local cannot be read or written.
    #[error("{} cannot be used", path.display())]
    Local {
        /// What.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// An error and its causes in one line, for what is remembered and told later.
pub struct Why<'a>(pub &'a dyn std::error::Error);

impl std::fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl ArchiveError {
    /// Whether it says something about what is kept. Everything else says that it could not be asked.
    pub fn is_about_what_is_kept(&self) -> bool {
        match self {
            ArchiveError::Differs { .. }
            | ArchiveError::Unfit { .. }
            | ArchiveError::Timestamp { .. }
            | ArchiveError::NothingKept { .. }
            | ArchiveError::CarriedAndGone { .. } => true,
            ArchiveError::Storage(_) | ArchiveError::Authority(_) | ArchiveError::Local { .. } => false,
        }
    }

    /// What to try next.
    pub fn advice(&self) -> &'static str {
        match self {
            ArchiveError::Storage(error) => writing_advice(error),
            ArchiveError::Differs { .. } => {
                "nothing is ever overwritten: look who wrote it, or whether the server damages what it keeps; where it is not locked, move it away"
            }
            ArchiveError::Unfit { .. } => {
                "look at it with `firedrill verify`; where another key signed it, name that key in [evidence] trust"
            }
            ArchiveError::Authority(_) => {
                "check its url in [[ledger.anchor]], and the network; what is due is tried again after the next drill"
            }
            ArchiveError::Timestamp { .. } => {
                "check ca in [[ledger.anchor]]: it names the certificates that vouch for the authority, PEM; keep the token as it is"
            }
            ArchiveError::NothingKept { .. } => {
                "where it is new, carry a checkpoint there: firedrill ledger anchor NAME; else find out who took them away"
            }
            ArchiveError::CarriedAndGone { .. } => {
                "find out who took it away; where it was copied elsewhere, hold the ledger to it: --anchor FILE"
            }
            ArchiveError::Local { source, .. } if source.kind() == std::io::ErrorKind::NotFound => "make it, or mount what should be there",
            ArchiveError::Local { .. } => "make room, and give this user the right to write there",
        }
    }
}

/// What to try where a bucket that keeps things is in trouble: its rights and settings are not those of a backup's source.
fn writing_advice(error: &StorageError) -> &'static str {
    match error {
        StorageError::AccessDenied { .. } => {
            "give these credentials s3:ListBucket, s3:GetObject, s3:GetObjectVersion, s3:PutObject, s3:GetObjectRetention, \
             s3:PutObjectRetention and s3:GetBucketObjectLockConfiguration; no right to delete"
        }
        StorageError::Settings { .. } | StorageError::WrongRegion { .. } | StorageError::NoSuchStore { .. } => {
            "check url, endpoint and region in firedrill.toml"
        }
        StorageError::CredentialsMissing { .. } => "name a key with access_key_id and secret_access_key, or a profile, in firedrill.toml",
        other => other.advice(),
    }
}
