//! Real servers started on what was restored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DefinedStep, MariaDbBackup, MariaDbStep, Sha256};

/// The databases that checks can question in their own language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// PostgreSQL.
    Postgres,
    /// SQLite.
    Sqlite,
    /// Whatever a definition describes.
    Defined,
    /// MariaDB.
    #[serde(rename = "mariadb")]
    MariaDb,
}

impl Engine {
    /// As shown to people.
    pub const fn word(self) -> &'static str {
        match self {
            Engine::Postgres => "PostgreSQL",
            Engine::Sqlite => "SQLite",
            Engine::Defined => "service by definition",
            Engine::MariaDb => "MariaDB",
        }
    }
}

/// A step that starts a service on what was restored.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceStep {
    /// By what checks call it; one word for each service of a scenario.
    pub name: String,
    /// Which, and from what.
    pub kind: ServiceKind,
}

/// Which service, and from what.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceKind {
    /// A PostgreSQL cluster.
    Postgres(PostgresStep),
    /// A SQLite database.
    Sqlite(SqliteStep),
    /// A service by definition.
    Defined(Box<DefinedStep>),
    /// A MariaDB server.
    MariaDb(MariaDbStep),
}

impl ServiceKind {
    /// Whether it works on the restored files themselves, not on a copy loaded from them.
    pub fn in_place(&self) -> bool {
        match self {
            ServiceKind::Postgres(step) => match step.from {
                PostgresBackup::Dump { .. } => false,
            },
            // what must be written to is copied before
            ServiceKind::Sqlite(_) => false,
            ServiceKind::Defined(step) => step.definition.in_place,
            ServiceKind::MariaDb(step) => match step.from {
                MariaDbBackup::Dump { .. } => false,
                MariaDbBackup::Physical { .. } => true,
            },
        }
    }
    /// What the report calls it.
    pub fn engine(&self) -> Engine {
        match self {
            ServiceKind::Postgres(_) => Engine::Postgres,
            ServiceKind::Sqlite(_) => Engine::Sqlite,
            ServiceKind::Defined(_) => Engine::Defined,
            ServiceKind::MariaDb(_) => Engine::MariaDb,
        }
    }
}

/// How a PostgreSQL cluster comes back.
#[derive(Debug, Clone, PartialEq)]
pub struct PostgresStep {
    /// From what.
    pub from: PostgresBackup,
    /// The database that checks ask, and that a dump without one of its own is loaded into.
    pub database: Option<String>,
    /// Major version of the server; the one that the backup names where nothing is said.
    pub version: Option<u32>,
    /// The superuser that loads and asks.
    pub user: String,
    /// Settings of the throw-away server, beside firedrill's own.
    pub settings: BTreeMap<String, String>,
}

/// A PostgreSQL backup, by patterns of paths below the restored root, each of which matches one file or directory.
#[derive(Debug, Clone, PartialEq)]
pub enum PostgresBackup {
    /// What `pg_dump` or `pg_dumpall` wrote.
    Dump {
        /// The dump; its format is told by its bytes.
        dump: String,
        /// `pg_dumpall --globals-only`, loaded before.
        globals: Option<String>,
        /// Processes that load; one per processor where nothing is said.
        jobs: Option<u32>,
    },
}

/// How a SQLite database comes back, by patterns of paths below the restored root, each of which matches one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqliteStep {
    /// A database file; what lies beside it under its name and `-wal` or `-journal` belongs to it.
    File {
        /// The file.
        file: String,
        /// How it was made.
        made_by: SqliteMadeBy,
    },
    /// What the shell's `.dump` wrote.
    Dump {
        /// The text.
        dump: String,
    },
}

/// How a database file of a backup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SqliteMadeBy {
    /// Files were copied: a WAL that did not come along may be missing.
    #[default]
    Copy,
    /// SQLite itself made it whole (`.backup`, `VACUUM INTO`, Litestream): there is no WAL to be missed.
    Backup,
}

/// A service, as the evidence names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct ServiceFacts {
    /// Its name in the scenario.
    pub name: String,
    /// Its kind.
    pub engine: Engine,
    /// What the running server says of its version.
    pub version: String,
    /// Where its program was found.
    pub path: String,
    /// SHA-256 of the program file.
    pub sha256: Option<Sha256>,
    /// The version that the backup names, where it does.
    pub recorded: Option<String>,
    /// How it was restored, in our words.
    pub method: String,
    /// How it was shown to be the server that was started here.
    pub identity: String,
}

/// What is wrong with a service's backup, as the finding names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ServiceProblem {
    /// What should be loaded was not restored.
    InputMissing,
    /// It is not what the step takes.
    InputUnusable,
    /// It ends early.
    InputTruncated,
    /// Its bytes are damaged.
    InputDamaged,
    /// The server refused parts of it.
    LoadRefused,
    /// Roles are named that it does not bring.
    RolesMissing,
    /// Types or functions of extensions are used that it does not bring.
    ExtensionsMissing,
    /// Tablespaces are named that it does not bring.
    TablespacesMissing,
    /// Views or triggers call routines that it does not bring.
    RoutinesMissing,
    /// Objects of these kinds were left out when it was made.
    LeftOut,
    /// Logs or increments that it needs are missing.
    LogHole,
    /// It was written by a newer client than its server takes.
    NewerClient,
    /// It is of another major version than the server.
    OtherVersion,
    /// The server ended while it started.
    Crashed,
    /// The server runs and does not answer.
    NeverReady,
    /// It answers, and has nothing.
    Empty,
    /// The server that answers is not the one that was started.
    WrongServer,
}

impl ServiceProblem {
    /// As shown to people.
    pub const fn words(self) -> &'static str {
        use ServiceProblem as P;
        match self {
            P::InputMissing => "what should be loaded was not restored",
            P::InputUnusable => "what was restored cannot be loaded",
            P::InputTruncated => "what was restored ends early",
            P::InputDamaged => "what was restored is damaged",
            P::LoadRefused => "the server refused parts of it",
            P::RolesMissing => "it names roles that it does not bring",
            P::ExtensionsMissing => "it uses extensions that it does not bring",
            P::TablespacesMissing => "it names tablespaces that it does not bring",
            P::RoutinesMissing => "it calls routines that it does not bring",
            P::LeftOut => "objects were left out when it was made",
            P::LogHole => "the log has a hole",
            P::NewerClient => "it was written by a newer client than its server takes",
            P::OtherVersion => "it is of another version than the server",
            P::Crashed => "the server ended while it started",
            P::NeverReady => "the server never became usable",
            P::Empty => "the server answers, and has nothing",
            P::WrongServer => "the server that answers is not the one that was started",
        }
    }
}
