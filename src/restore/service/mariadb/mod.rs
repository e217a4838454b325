//! MariaDB: dumps loaded into a server made on the spot, and physical backups started in place.

mod audit;
mod binlog;
mod content;
mod dump;
mod judge;
mod physical;
mod replay;
mod server;
mod words;

use async_trait::async_trait;

use self::server::Server;
use super::usable::{self, Loaded, asked};
use super::{AskError, Rows, Service, ServiceError, Shop};
use crate::domain::{Engine, Fingerprint, IntegrityAnswer, IntegrityDepth, MariaDbBackup, MariaDbStep, Sample, SchemaObject, ServiceFacts};

/// A server in its life.
pub(super) struct MariaDb {
    name: String,
    step: MariaDbStep,
    loaded: Option<Loaded<Server>>,
}

impl MariaDb {
    pub(super) fn new(name: &str, step: &MariaDbStep) -> Self {
        Self { name: name.to_owned(), step: step.clone(), loaded: None }
    }

    fn server(&self) -> Result<&Server, AskError> {
        asked(self.loaded.as_ref())
    }
}

#[async_trait]
impl Service for MariaDb {
    async fn load(&mut self, shop: &Shop<'_>) -> Result<(), ServiceError> {
        self.loaded = Some(match &self.step.from {
            MariaDbBackup::Dump { dump, users } => dump::load(shop, &self.step, dump, users.as_deref()).await?,
            MariaDbBackup::Physical { base, increments } => physical::load(shop, &self.step, base, increments).await?,
        });
        Ok(())
    }

    async fn ready(&mut self, shop: &Shop<'_>) -> Result<ServiceFacts, ServiceError> {
        usable::ready(shop, &self.name, Engine::MariaDb, self.loaded.as_mut()).await
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
