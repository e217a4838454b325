//! What credentials may do beyond reading: asked by the doctor, remembered in the state directory, cited by drills.

use std::fs;
use std::path::PathBuf;

use super::App;
use crate::domain::{RightsFacts, Source, StorageLocation};
use crate::storage::{RightsProbe, Settings, StorageError};

impl App {
    /// Asks what the credentials of a source may do beyond reading, and remembers the answer. `None` for a local directory.
    ///
    /// # Errors
    /// Where the storage cannot be asked.
    pub async fn ask_rights(&self, source: &Source) -> Result<Option<RightsFacts>, StorageError> {
        let Some(probe) = self.probe(source)? else { return Ok(None) };
        let facts = probe.ask(&uuid::Uuid::now_v7().to_string()).await?;
        let path = self.remembered(&probe).await?;
        let bytes = serde_json::to_vec_pretty(&facts).expect("facts are plain data");
        let kept = super::private_directory(path.parent().unwrap_or(&path)).and_then(|()| super::write_whole(&path, &bytes));
        kept.map_err(|source| StorageError::Local { operation: "to remember the answer in the state directory", source })?;
        Ok(Some(facts))
    }

    /// The latest remembered answer. What cannot be read counts as never asked.
    pub(super) async fn known_rights(&self, source: &Source) -> Option<RightsFacts> {
        let probe = self.probe(source).ok()??;
        let bytes = fs::read(self.remembered(&probe).await.ok()?).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn probe(&self, source: &Source) -> Result<Option<RightsProbe>, StorageError> {
        let StorageLocation::S3 { bucket, prefix } = &source.location else { return Ok(None) };
        RightsProbe::connect(bucket, prefix, &Settings::from(source), &self.environment, self.now()).map(Some)
    }

    async fn remembered(&self, probe: &RightsProbe) -> Result<PathBuf, StorageError> {
        Ok(self.settings.state.0.join("rights").join(format!("{}.json", probe.identity().await?)))
    }
}
