//! Services: a real server, started in the sandbox on what was restored, and questioned there by its own client.
//!
//! A dump that lists is no database that runs. Every service goes the same way: its backup is looked at and loaded
//! ([`Service::load`]), its server is started and shown to be the one that was started and to have what was restored
//! ([`Service::ready`]), and then it answers ([`Service::query`]). All of its programs are the host's own, below `/usr` or the
//! scenario's directories of tools; all of them run inside, because a dump is code.
//!
//! What its programs print may be patients' data: it goes into the annex alone.

mod defined;
mod mariadb;
mod meaning;
mod postgres;
mod shop;
mod sqlite;
mod usable;

use async_trait::async_trait;

pub use postgres::{LiveError, Observation, observe as observe_postgres};
pub use shop::{Input, Job, Remark, Shop};

use crate::domain::{
    Cause, Fingerprint, IntegrityAnswer, IntegrityDepth, Sample, SchemaObject, ServiceFacts, ServiceKind, ServiceProblem, ServiceStep,
};
use crate::sandbox::{Ended, Exit, SandboxError};

/// Where services live, below the kit.
pub const SERVICES: &str = "services";

/// A service in its life: load, ready, answer.
#[async_trait]
pub trait Service: Send + Sync {
    /// Looks at the backup before anything is started, and loads what needs loading.
    ///
    /// # Errors
    /// [`ServiceError`].
    async fn load(&mut self, shop: &Shop<'_>) -> Result<(), ServiceError>;
    /// Starts the server where it does not run yet, and waits until it is usable: it answers an authenticated question about
    /// restored data, and is shown to be the server that was started here.
    ///
    /// # Errors
    /// [`ServiceError`].
    async fn ready(&mut self, shop: &Shop<'_>) -> Result<ServiceFacts, ServiceError>;
    /// Asks one query, which must change nothing.
    ///
    /// # Errors
    /// [`AskError`].
    async fn query(&self, shop: &Shop<'_>, database: Option<&str>, sql: &str) -> Result<Rows, AskError>;
    /// Every object of the schema that the database has, the system's own left out.
    ///
    /// # Errors
    /// [`AskError`].
    async fn objects(&self, _shop: &Shop<'_>, _database: Option<&str>) -> Result<Vec<SchemaObject>, AskError> {
        Err(AskError::unknown("a schema"))
    }
    /// Fingerprints of these tables, or of all where none is named; by their names as the engine qualifies them.
    ///
    /// # Errors
    /// [`AskError`].
    async fn fingerprints(
        &self,
        _shop: &Shop<'_>,
        _database: Option<&str>,
        _tables: &[String],
        _sample: Option<Sample>,
    ) -> Result<Vec<(String, Fingerprint)>, AskError> {
        Err(AskError::unknown("tables"))
    }
    /// Has the engine look into its own files.
    ///
    /// # Errors
    /// [`AskError`].
    async fn integrity(&self, _shop: &Shop<'_>, _database: Option<&str>, _depth: IntegrityDepth) -> Result<IntegrityAnswer, AskError> {
        Err(AskError::unknown("a check of its own integrity"))
    }
}

/// The service of a step.
pub fn of(step: &ServiceStep) -> Box<dyn Service> {
    match &step.kind {
        ServiceKind::Postgres(postgres) => Box::new(postgres::Postgres::new(&step.name, postgres)),
        ServiceKind::Sqlite(sqlite) => Box::new(sqlite::Sqlite::new(&step.name, sqlite)),
        ServiceKind::Defined(defined) => Box::new(defined::Defined::new(&step.name, defined)),
        ServiceKind::MariaDb(mariadb) => Box::new(mariadb::MariaDb::new(&step.name, mariadb)),
    }
}

/// The answer to a query: rows of values, `None` for NULL. Restored data: never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Rows(pub Vec<Vec<Option<String>>>);

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("rows", &self.0.len()).finish_non_exhaustive()
    }
}

/// Why a service did not come back. `how` and `reason` are our own words; `output` is the programs', for the annex.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Because of what was restored.
    #[error("{}: {how}", problem.words())]
    Backup {
        /// What is wrong.
        problem: ServiceProblem,
        /// More.
        how: String,
        /// What its programs said.
        output: Vec<u8>,
    },
    /// Because of this host or the scenario.
    #[error("{reason}")]
    Runner {
        /// Why, and what to try.
        reason: String,
        /// What its programs said.
        output: Vec<u8>,
    },
    /// The sandbox did not do its part, or a bound of it was hit.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl ServiceError {
    /// Blames the backup.
    pub fn backup(problem: ServiceProblem, how: impl Into<String>, output: impl Into<Vec<u8>>) -> Self {
        ServiceError::Backup { problem, how: how.into(), output: output.into() }
    }
    /// Blames the runner.
    pub fn runner(reason: impl Into<String>, output: impl Into<Vec<u8>>) -> Self {
        ServiceError::Runner { reason: reason.into(), output: output.into() }
    }
    /// Whose fault it is.
    pub fn blame(&self) -> Cause {
        match self {
            ServiceError::Backup { .. } => Cause::Backup,
            ServiceError::Runner { .. } | ServiceError::Sandbox(_) => Cause::Runner,
        }
    }
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The server refused it, because of what was restored.
    #[error("the server answers with an error ({state})")]
    Refused {
        /// The error's standard code or name: never its text.
        state: String,
        /// What it said.
        output: Vec<u8>,
    },
    /// The question itself is wrong.
    #[error("{reason}")]
    BadQuestion {
        /// Why.
        reason: String,
        /// What the server said.
        output: Vec<u8>,
    },
    /// The sandbox did not do its part, or a bound of it was hit.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl AskError {
    /// A question that this kind of service does not know.
    pub fn unknown(of: &str) -> Self {
        AskError::BadQuestion { reason: format!("this kind of service has not {of} that can be asked for"), output: Vec::new() }
    }
}

/// How a program ended, in words.
fn how(exit: &Exit) -> String {
    match exit.ended {
        Ended::Status(status) => format!("ended with exit status {status}"),
        Ended::Signal(signal) => format!("was ended by signal {signal}"),
    }
}
