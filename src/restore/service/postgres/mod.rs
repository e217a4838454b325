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
use super::{AskError, Rows, Service, ServiceError, Shop};
use crate::domain::{
    Engine, Fingerprint, IntegrityAnswer, IntegrityDepth, PostgresBackup, PostgresStep, RecoveryFacts, Sample, SchemaObject, ServiceFacts,
    ServiceProblem,
};

/// Bytes of a catalog's answer that are kept.
const CATALOG: usize = 256 << 20;

/// A cluster in its life.
pub(super) struct Postgres {
    name: String,
    step: PostgresStep,
    cluster: Option<Cluster>,
    /// The version that the backup names.
    recorded: Option<String>,
    /// How it was restored, in our words.
    method: String,
    /// How far it was recovered.
    recovery: Option<RecoveryFacts>,
}

impl Postgres {
    pub(super) fn new(name: &str, step: &PostgresStep) -> Self {
        Self { name: name.to_owned(), step: step.clone(), cluster: None, recorded: None, method: String::new(), recovery: None }
    }

    fn cluster(&self) -> Result<&Cluster, AskError> {
        self.cluster.as_ref().ok_or_else(|| AskError::BadQuestion { reason: "its server was never started".to_owned(), output: Vec::new() })
    }
}

#[async_trait]
impl Service for Postgres {
    async fn load(&mut self, shop: &Shop<'_>) -> Result<(), ServiceError> {
        match self.step.from.clone() {
            PostgresBackup::Dump { dump, globals, jobs } => {
                let loaded = logical::load(shop, &self.step, &dump, globals.as_deref(), jobs).await?;
                (self.cluster, self.recorded, self.method) = (Some(loaded.cluster), loaded.recorded, loaded.method);
            }
            PostgresBackup::Physical(backup) => {
                let loaded = physical::load(shop, &self.step, &backup).await?;
                (self.cluster, self.recorded, self.method) = (Some(loaded.cluster), Some(loaded.recorded), loaded.method);
                self.recovery = loaded.recovered;
            }
        }
        Ok(())
    }

    async fn ready(&mut self, shop: &Shop<'_>) -> Result<ServiceFacts, ServiceError> {
        let Some(cluster) = &mut self.cluster else { return Err(ServiceError::runner("nothing was loaded", [])) };
        let (version, identity) = cluster.prove_identity(shop).await?;
        if cluster.database.is_none() {
            cluster.database = cluster.largest_database(shop).await?;
        }
        if !cluster.has_a_row(shop).await? {
            return Err(ServiceError::backup(ServiceProblem::Empty, "no table of the database has a row", []));
        }
        Ok(ServiceFacts {
            name: self.name.clone(),
            engine: Engine::Postgres,
            version,
            path: cluster.programs.join("postgres").display().to_string(),
            sha256: Some(super::shop::digest_of(&cluster.programs.join("postgres"))?),
            recorded: self.recorded.clone(),
            method: self.method.clone(),
            identity,
            recovery: self.recovery.clone(),
        })
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
