//! When a server counts as usable, whichever it is: it is the one that was started here, and has a row of what was restored.

use std::path::PathBuf;

use async_trait::async_trait;

use super::shop::{Shop, digest_of};
use super::{AskError, ServiceError};
use crate::domain::{BinlogFacts, Engine, RecoveryFacts, ServiceFacts, ServiceProblem};

/// A database server that was started.
#[async_trait]
pub(super) trait Started: Send + Sync {
    /// Its program.
    fn program(&self) -> PathBuf;
    /// What checks ask where they name no database.
    fn database(&mut self) -> &mut Option<String>;
    /// Shows that the server that answers is the one that was started here; answers its version and how that was shown.
    async fn prove_identity(&self, shop: &Shop<'_>) -> Result<(String, String), ServiceError>;
    /// The largest database: where nobody says otherwise, the one that is meant.
    async fn largest_database(&self, shop: &Shop<'_>) -> Result<Option<String>, ServiceError>;
    /// Whether any table has a row: a server that answers has not restored anything by that.
    async fn has_a_row(&self, shop: &Shop<'_>) -> Result<bool, ServiceError>;
}

/// A server that has what was restored.
pub(super) struct Loaded<S> {
    pub(super) server: S,
    /// The version that the backup names.
    pub(super) recorded: Option<String>,
    /// How it was restored, in our words.
    pub(super) method: String,
    /// How far it was recovered, where it was.
    pub(super) recovery: Option<RecoveryFacts>,
    /// How far binary logs were applied, where there were any.
    pub(super) binary_logs: Option<BinlogFacts>,
}

impl<S> Loaded<S> {
    pub(super) fn new(server: S, recorded: Option<String>, method: String) -> Self {
        Self { server, recorded, method, recovery: None, binary_logs: None }
    }
}

/// What was loaded, where something was, to ask it.
pub(super) fn asked<S>(loaded: Option<&Loaded<S>>) -> Result<&S, AskError> {
    let unstarted = || AskError::BadQuestion { reason: "its server was never started".to_owned(), output: Vec::new() };
    loaded.map(|loaded| &loaded.server).ok_or_else(unstarted)
}

/// Shows that the server is usable.
pub(super) async fn ready<S: Started>(
    shop: &Shop<'_>,
    name: &str,
    engine: Engine,
    loaded: Option<&mut Loaded<S>>,
) -> Result<ServiceFacts, ServiceError> {
    let Some(Loaded { server, recorded, method, recovery, binary_logs }) = loaded else {
        return Err(ServiceError::runner("nothing was loaded", []));
    };
    let (version, identity) = server.prove_identity(shop).await?;
    if server.database().is_none() {
        *server.database() = server.largest_database(shop).await?;
    }
    if !server.has_a_row(shop).await? {
        return Err(ServiceError::backup(ServiceProblem::Empty, "no table of the database has a row", []));
    }
    let program = server.program();
    Ok(ServiceFacts {
        name: name.to_owned(),
        engine,
        version,
        path: program.display().to_string(),
        sha256: Some(digest_of(&program)?),
        recorded: recorded.clone(),
        method: method.clone(),
        identity,
        recovery: recovery.clone(),
        binary_logs: binary_logs.clone(),
    })
}

/// A started server that cannot be asked the simplest things: by what was restored, or because it may not be asked them under the
/// scenario's own words.
pub(super) fn never_answered(error: AskError, log: Vec<u8>) -> ServiceError {
    match error {
        AskError::Sandbox(error) => error.into(),
        AskError::Refused { state, output } => {
            ServiceError::backup(ServiceProblem::NeverReady, format!("it answers with an error ({state})"), [output, log].concat())
        }
        AskError::BadQuestion { reason, output } => ServiceError::runner(reason, [output, log].concat()),
    }
}
