//! `method = "mariadb"`: how a MariaDB server comes back.

use std::collections::BTreeMap;

use super::BinlogTarget;

/// How a MariaDB server comes back.
#[derive(Debug, Clone, PartialEq)]
pub struct MariaDbStep {
    /// From what.
    pub from: MariaDbBackup,
    /// What is applied upon it.
    pub logs: Option<BinaryLogs>,
    /// The database that checks ask, and that a dump without one of its own is loaded into.
    pub database: Option<String>,
    /// Series of the server, as `10.11`; the one that the backup names where nothing is said.
    pub version: Option<String>,
    /// Settings of the throw-away server, beside firedrill's own.
    pub settings: BTreeMap<String, String>,
}

/// Binary logs of the server that was backed up, and how far they are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinaryLogs {
    /// By a pattern of paths below the restored root: the directory that they are in, or themselves.
    pub binlogs: String,
    /// How far.
    pub target: BinlogTarget,
}

/// A MariaDB backup, by patterns of paths below the restored root.
#[derive(Debug, Clone, PartialEq)]
pub enum MariaDbBackup {
    /// What `mariadb-dump` or `mysqldump` wrote.
    Dump {
        /// The dump; several files are loaded in the order of their names.
        dump: String,
        /// `mariadb-dump --system=users`, loaded before.
        users: Option<String>,
    },
    /// What `mariadb-backup` wrote, as a directory or a stream; or a data directory as it lay on disk.
    Physical {
        /// The full backup.
        base: String,
        /// Increments of it, in order.
        increments: Vec<String>,
    },
}
