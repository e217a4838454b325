//! `pg_amcheck`: heaps and indexes looked through by the server's own contrib module.
//!
//! The module is installed into the throw-away database for the time of the check, and is no part of what was restored.

use super::super::{AskError, Job, Shop, how};
use super::cluster::Cluster;
use crate::domain::{IntegrityAnswer, IntegrityDepth};
use crate::sandbox::Ended;

/// Has heaps and indexes looked through.
pub(super) async fn ask(
    cluster: &Cluster,
    shop: &Shop<'_>,
    database: Option<&str>,
    depth: IntegrityDepth,
) -> Result<IntegrityAnswer, AskError> {
    let program = cluster.program("pg_amcheck");
    if !std::path::Path::new(&program).is_file() {
        let reason = format!("PostgreSQL {} has no pg_amcheck here: it comes with version 14, in its contrib package", cluster.major);
        return Err(AskError::BadQuestion { reason, output: Vec::new() });
    }
    let is_there = || async {
        let rows = cluster.query(shop, database, "select count(*) from pg_extension where extname = 'amcheck'").await?;
        Ok::<bool, AskError>(rows.0 == [[Some("1".to_owned())]])
    };
    let brought = is_there().await?;
    if !brought {
        change(cluster, shop, database, "create extension amcheck").await?;
    }
    let answer = look(cluster, shop, database, depth, program).await;
    if !brought {
        change(cluster, shop, database, "drop extension amcheck").await?;
    }
    answer
}

/// Changes the throw-away database, which checks never do to restored data.
async fn change(cluster: &Cluster, shop: &Shop<'_>, database: Option<&str>, sql: &str) -> Result<(), AskError> {
    let exit = shop.run(cluster.psql(database, "").args(["-c", sql])).await?;
    if exit.success() {
        return Ok(());
    }
    let output = crate::restore::tool::last_words(&exit);
    let reason = "the server's contrib module amcheck could not be installed into the throw-away database".to_owned();
    Err(AskError::BadQuestion { reason, output })
}

async fn look(
    cluster: &Cluster,
    shop: &Shop<'_>,
    database: Option<&str>,
    depth: IntegrityDepth,
    program: String,
) -> Result<IntegrityAnswer, AskError> {
    let database = database.or(cluster.database.as_deref()).unwrap_or("postgres");
    let deep: &[&str] = match depth {
        IntegrityDepth::Quick => &[],
        IntegrityDepth::Full => &["--heapallindexed", "--parent-check"],
    };
    let on = "select count(*) from pg_class where relkind in ('r', 'm', 't', 'i', 'S') and relpersistence <> 't'";
    let count = cluster.query(shop, Some(database), on).await?;
    let examined = count.0.into_iter().flatten().flatten().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let sums = cluster.query(shop, Some(database), "show data_checksums").await?;
    let checksums = if sums.0 == [[Some("on".to_owned())]] { "on" } else { "off" };
    let argv = [
        program,
        format!("--host={}", cluster.sockets),
        "--port=5432".to_owned(),
        format!("--username={}", cluster.user),
        "--no-password".to_owned(),
        format!("--jobs={}", shop.processors.max(1)),
        super::cluster::quoted_connection(database),
    ];
    let job =
        Job::new(argv).args(deep.iter().copied()).env("LC_ALL", "C").env("PGOPTIONS", cluster.session()).env("PGCONNECT_TIMEOUT", "30");
    let exit = shop.run(job).await?;
    let asked = format!("pg_amcheck{}{}, data checksums {checksums}", if deep.is_empty() { "" } else { " " }, deep.join(" "));
    let output = crate::restore::tool::last_words(&exit);
    match exit.ended {
        Ended::Status(0) => Ok(IntegrityAnswer { asked, examined, damaged: Vec::new(), output: Vec::new() }),
        Ended::Status(2) => Ok(IntegrityAnswer { asked, examined, damaged: damaged(&exit.stdout), output }),
        _ => Err(AskError::BadQuestion { reason: format!("pg_amcheck {}", how(&exit)), output }),
    }
}

/// Relations that its lines name, each once: `heap table "db.schema.name", block 3:` and `btree index "db.schema.name":`.
fn damaged(output: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for line in String::from_utf8_lossy(output).lines() {
        let named = ["heap table \"", "btree index \""].iter().find_map(|kind| line.strip_prefix(kind));
        let Some(name) = named.and_then(|rest| rest.rfind('"').map(|end| rest[..end].to_owned())) else { continue };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    #[test]
    fn damaged_relations_are_counted_once() {
        let said = b"heap table \"ehr.public.patient\", block 0, offset 3:\n    xmin 99 is in the future\n\
                     heap table \"ehr.public.patient\", block 1:\n    x\nbtree index \"ehr.public.patient_pkey\":\n    ERROR:  x\n";
        assert_eq!(super::damaged(said), ["ehr.public.patient", "ehr.public.patient_pkey"]);
    }
}
