//! PostgreSQL: dumps loaded into a cluster made on the spot, and copies of a data directory recovered with WAL.

mod amcheck;
mod archive;
mod cluster;
mod content;
mod live;
mod logical;
mod physical;
mod recovery;
mod schema;
mod wal;
mod whole;
mod words;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt};

pub use self::live::{LiveError, Observation, observe};

use self::cluster::Cluster;
use super::usable::{self, Loaded, asked};
use super::{AskError, Rows, Service, ServiceError, Shop};
use crate::domain::{
    Engine, Fingerprint, IntegrityAnswer, IntegrityDepth, PostgresBackup, PostgresStep, Sample, SchemaObject, ServiceFacts,
};

/// Bytes of a catalog's answer that are kept.
const CATALOG: usize = 256 << 20;

/// A cluster in its life.
pub(super) struct Postgres {
    name: String,
    step: PostgresStep,
    loaded: Option<Loaded<Cluster>>,
}

impl Postgres {
    pub(super) fn new(name: &str, step: &PostgresStep) -> Self {
        Self { name: name.to_owned(), step: step.clone(), loaded: None }
    }

    fn cluster(&self) -> Result<&Cluster, AskError> {
        asked(self.loaded.as_ref())
    }
}

#[async_trait]
impl Service for Postgres {
    async fn load(&mut self, shop: &Shop<'_>) -> Result<(), ServiceError> {
        self.loaded = Some(match &self.step.from {
            PostgresBackup::Dump { dump, globals, jobs } => logical::load(shop, &self.step, dump, globals.as_deref(), *jobs).await?,
            PostgresBackup::Physical(backup) => physical::load(shop, &self.step, backup).await?,
        });
        Ok(())
    }

    async fn ready(&mut self, shop: &Shop<'_>) -> Result<ServiceFacts, ServiceError> {
        usable::ready(shop, &self.name, Engine::Postgres, self.loaded.as_mut()).await
    }

    async fn query(&self, shop: &Shop<'_>, database: Option<&str>, sql: &str) -> Result<Rows, AskError> {
        self.cluster()?.query(shop, database, sql).await
    }

    async fn objects(&self, shop: &Shop<'_>, database: Option<&str>) -> Result<Vec<SchemaObject>, AskError> {
        let cluster = self.cluster()?;
        let question = schema::question(cluster.major);
        schema::objects(cluster.query_under(shop, database, schema::CANONICAL, &question, Some(CATALOG)).await?)
    }

    async fn fingerprints(
        &self,
        shop: &Shop<'_>,
        database: Option<&str>,
        tables: &[String],
        sample: Option<Sample>,
    ) -> Result<Vec<(String, Fingerprint)>, AskError> {
        let cluster = self.cluster()?;
        let question = content::tables_question(tables);
        let listed = cluster.query_under(shop, database, schema::CANONICAL, &question, Some(CATALOG)).await?;
        let questions = content::questions(&content::tables(listed, tables)?, sample, cluster.major);
        let mut asked = Vec::new();
        for sql in &questions {
            asked.push(cluster.query_under(shop, database, schema::CANONICAL, sql, None));
        }
        let at_once = usize::try_from(shop.processors.max(1)).unwrap_or(1);
        let answers: Vec<Rows> = futures_util::stream::iter(asked).buffer_unordered(at_once).try_collect().await?;
        let mut found = answers.into_iter().map(content::fingerprints).collect::<Result<Vec<_>, _>>()?.concat();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    async fn integrity(&self, shop: &Shop<'_>, database: Option<&str>, depth: IntegrityDepth) -> Result<IntegrityAnswer, AskError> {
        amcheck::ask(self.cluster()?, shop, database, depth).await
    }
}
