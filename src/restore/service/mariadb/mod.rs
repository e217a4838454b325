//! MariaDB: dumps loaded into a server made on the spot, and physical backups started in place.

mod content;
mod dump;
mod physical;
mod server;
mod words;

use async_trait::async_trait;

use self::server::Server;
use super::{AskError, Rows, Service, ServiceError, Shop};
use crate::domain::{
    Engine, Fingerprint, IntegrityAnswer, IntegrityDepth, MariaDbBackup, MariaDbStep, Sample, SchemaObject, ServiceFacts, ServiceProblem,
};

/// A server in its life.
pub(super) struct MariaDb {
    name: String,
    step: MariaDbStep,
    server: Option<Server>,
    /// The version that the backup names.
    recorded: Option<String>,
    /// How it was restored, in our words.
    method: String,
}

impl MariaDb {
    pub(super) fn new(name: &str, step: &MariaDbStep) -> Self {
        Self { name: name.to_owned(), step: step.clone(), server: None, recorded: None, method: String::new() }
    }

    fn server(&self) -> Result<&Server, AskError> {
        self.server.as_ref().ok_or_else(|| AskError::BadQuestion { reason: "its server was never started".to_owned(), output: Vec::new() })
    }
}

#[async_trait]
impl Service for MariaDb {
    async fn load(&mut self, shop: &Shop<'_>) -> Result<(), ServiceError> {
        let loaded = match &self.step.from {
            MariaDbBackup::Dump { dump, users } => dump::load(shop, &self.step, dump, users.as_deref()).await?,
            MariaDbBackup::Physical { base, increments } => physical::load(shop, &self.step, base, increments).await?,
        };
        (self.server, self.recorded, self.method) = (Some(loaded.server), loaded.recorded, loaded.method);
        Ok(())
    }

    async fn ready(&mut self, shop: &Shop<'_>) -> Result<ServiceFacts, ServiceError> {
        let Some(server) = &mut self.server else { return Err(ServiceError::runner("nothing was loaded", [])) };
        let (version, identity) = server.prove_identity(shop).await?;
        if server.database.is_none() {
            server.database = server.largest_database(shop).await?;
        }
        if !server.has_a_row(shop).await? {
            return Err(ServiceError::backup(ServiceProblem::Empty, "no table of the database has a row", []));
        }
        Ok(ServiceFacts {
            name: self.name.clone(),
            engine: Engine::MariaDb,
            version,
            path: server.installed.server.display().to_string(),
            sha256: Some(super::shop::digest_of(&server.installed.server)?),
            recorded: self.recorded.clone(),
            method: self.method.clone(),
            identity,
            recovery: None,
        })
    }

    async fn query(&self, shop: &Shop<'_>, database: Option<&str>, sql: &str) -> Result<Rows, AskError> {
        self.server()?.query(shop, database, sql).await
    }
    async fn objects(&self, shop: &Shop<'_>, database: Option<&str>) -> Result<Vec<SchemaObject>, AskError> {
        self.server()?.objects(shop, database).await
    }

    async fn fingerprints(
        &self,
        shop: &Shop<'_>,
        database: Option<&str>,
        tables: &[String],
        sample: Option<Sample>,
    ) -> Result<Vec<(String, Fingerprint)>, AskError> {
        self.server()?.fingerprints(shop, database, tables, sample).await
    }

    async fn integrity(&self, shop: &Shop<'_>, database: Option<&str>, depth: IntegrityDepth) -> Result<IntegrityAnswer, AskError> {
        self.server()?.integrity(shop, database, depth).await
    }
}
