//! Baselines: what a site observes of its own database, for drills to compare with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::App;
use crate::domain::{BASELINE_SCHEMA, Baseline, Engine, Observed, Sample};
use crate::restore::service::{LiveError, observe_postgres};

/// What is to be observed.
#[derive(Debug, Clone)]
pub struct BaselineOrder {
    /// The database, as `psql` is told.
    pub connection: String,
    /// The tables whose rows are counted and hashed: none, these, or all where the list is empty.
    pub tables: Option<Vec<String>>,
    /// Which part of their rows is hashed.
    pub sample: Option<Sample>,
    /// A snapshot that another session exported.
    pub snapshot: Option<String>,
}

impl App {
    /// Observes a PostgreSQL database, which is only read.
    ///
    /// # Errors
    /// [`LiveError`].
    pub fn baseline(&self, order: &BaselineOrder) -> Result<Baseline, LiveError> {
        let options = self.environment.get("PGOPTIONS").unwrap_or_default();
        let found = observe_postgres(&order.connection, options, order.tables.as_deref(), order.sample, order.snapshot.as_deref())?;
        let observed = Observed {
            tables: Observed::of_fingerprints(&found.tables, order.sample).tables,
            ..Observed::of_objects(&found.objects, &BTreeSet::new())
        };
        let (schema, version) = (BASELINE_SCHEMA.to_owned(), found.version);
        Ok(Baseline { schema, engine: Engine::Postgres, version, made_at: self.clock.now(), observed })
    }
}

/// Writes a file whole or not at all: a backup may be made of it at any moment.
///
/// # Errors
/// The file system's.
pub fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}.partial", uuid::Uuid::now_v7()));
    let aside = PathBuf::from(aside);
    let written = std::fs::write(&aside, bytes).and_then(|()| std::fs::rename(&aside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    written
}
