//! The archive of evidence: what is sealed is queued, and carried over as soon as the bucket lets it.

use super::{App, AppError, FileKeyring};
use crate::archive::{Archive, ArchiveError, ArchivedEvidence, Pushed, verify_archive};
use crate::domain::LockedBucket;
use crate::drill::Keyring;
use crate::evidence::TrustFile;
use crate::storage::{Environment, StorageError};

impl App {
    /// The archive; none where the settings name none.
    pub fn archive(&self) -> Option<Archive> {
        let place = self.settings.archive.clone()?;
        Some(Archive::new(place, &self.settings.store.0, &self.settings.state.0))
    }

    /// Tries to carry over everything that waits. Nothing is done where there is no archive.
    ///
    /// # Errors
    /// [`AppError`]; trouble with the bucket is in the answer.
    pub async fn push_archive(&self) -> Result<Pushed, AppError> {
        let Some(archive) = self.archive() else { return Ok(Pushed::default()) };
        let trust = self.trust_with(&self.signer()?.key).map_err(AppError::Trust)?;
        let environment = self.environment_for(archive.place()).map_err(ArchiveError::from)?;
        Ok(archive.push(&environment, self.now(), &trust).await?)
    }

    /// Reads back everything that is archived, and verifies it.
    ///
    /// # Errors
    /// [`ArchiveError`]: the bucket could not be asked.
    pub async fn verify_archive(&self, archive: &Archive, trust: &TrustFile) -> Result<Vec<ArchivedEvidence>, ArchiveError> {
        let environment = self.environment_for(archive.place())?;
        let scratch = tempfile::tempdir().map_err(|source| ArchiveError::Local { path: std::env::temp_dir(), source })?;
        verify_archive(archive, &environment, self.now(), trust, scratch.path()).await
    }

    /// The environment in which a bucket that keeps things is reached: with a key of its own, where it has one.
    pub(super) fn environment_for(&self, place: &LockedBucket) -> Result<Environment, StorageError> {
        let Some(key) = &place.key else { return Ok(self.environment.clone()) };
        let keyring = FileKeyring::new(self.environment.clone());
        let text = |reference| {
            let unusable = |why: String| StorageError::CredentialsUnusable { from: format!("{reference}"), source: Some(why.into()) };
            let bytes = keyring.secret(reference).map_err(|e| unusable(e.reason))?;
            let text = std::str::from_utf8(&bytes).map_err(|_| unusable("is no text".to_owned()))?;
            Ok(text.trim().to_owned())
        };
        Ok(self.environment.with_key(text(&key.id)?, text(&key.secret)?))
    }
}
