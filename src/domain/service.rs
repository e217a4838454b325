//! Real servers started on what was restored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BinlogFacts, DefinedStep, Lsn, MariaDbBackup, MariaDbStep, Sha256, Timestamp};

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
                PostgresBackup::Physical(_) => true,
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
    /// A copy of the data directory, as `pg_basebackup` makes it, recovered with WAL.
    Physical(PhysicalBackup),
}

/// A copy of a data directory, and how far it is recovered.
#[derive(Debug, Clone, PartialEq)]
pub struct PhysicalBackup {
    /// The data directory, or the directory of `base.tar` and its like.
    pub base: String,
    /// Incremental backups upon it, oldest first.
    pub incrementals: Vec<String>,
    /// The archive of WAL; what lies in the backup itself where there is none.
    pub wal: Option<String>,
    /// Where tablespaces were restored, by their OIDs.
    pub tablespaces: BTreeMap<u32, String>,
    /// How far.
    pub target: RecoveryTarget,
}

/// How far a cluster is recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryTarget {
    /// To the end of the WAL.
    Latest,
    /// No further than what the backup needs to be whole.
    Immediate,
    /// To an instant of commits.
    Time {
        /// Which.
        at: Timestamp,
        /// Whether what was committed at that very instant is still wanted.
        inclusive: bool,
    },
    /// To a position in the WAL.
    Lsn {
        /// Which.
        at: Lsn,
        /// Whether the record there is still wanted.
        inclusive: bool,
    },
    /// To a named restore point (`pg_create_restore_point`).
    Name(String),
}

impl RecoveryTarget {
    /// As shown to people; a name is the site's own, and not shown.
    pub fn words(&self) -> String {
        let before = |inclusive: &bool| if *inclusive { "" } else { "just before " };
        match self {
            RecoveryTarget::Latest => "the end of the WAL".to_owned(),
            RecoveryTarget::Immediate => "the end of the backup".to_owned(),
            RecoveryTarget::Time { at, inclusive } => format!("{}time {at}", before(inclusive)),
            RecoveryTarget::Lsn { at, inclusive } => format!("{}position {at}", before(inclusive)),
            RecoveryTarget::Name(_) => "the named restore point".to_owned(),
        }
    }
}

/// How far a cluster was recovered, as its server says afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct RecoveryFacts {
    /// What was asked for, in words.
    pub target: String,
    /// End of the last record that was replayed.
    pub reached: Lsn,
    /// When the last transaction that was replayed was committed or rolled back.
    pub last_transaction: Option<Timestamp>,
    /// The timeline that the recovered server began.
    pub timeline: u32,
    /// Segments of WAL that were read, record by record, before the server was started.
    pub segments_audited: u64,
    /// Up to where the WAL at hand is whole.
    pub whole_until: Lsn,
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
    /// How far it was recovered, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryFacts>,
    /// How far binary logs were applied, where there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_logs: Option<BinlogFacts>,
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
    /// It was written by a newer client than its server takes.
    NewerClient,
    /// It is of another major version than the server.
    OtherVersion,
    /// It was written by a machine of another architecture, or by a server that was built otherwise.
    OtherArchitecture,
    /// Files of it are missing.
    FilesMissing,
    /// Files are there that it does not list.
    FilesUnlisted,
    /// It does not say itself what it consists of.
    Undescribed,
    /// WAL, binary logs or increments that it needs are missing.
    LogHole,
    /// WAL or binary logs that it needs are damaged.
    LogDamaged,
    /// Recovery ended before the point that was asked for.
    TargetNotReached,
    /// The server ended by itself.
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
            P::NewerClient => "it was written by a newer client than its server takes",
            P::OtherVersion => "it is of another version than the server",
            P::OtherArchitecture => "it was written by another kind of machine or server",
            P::FilesMissing => "files of it are missing",
            P::FilesUnlisted => "it has files that it does not list",
            P::Undescribed => "it does not say what it consists of",
            P::LogHole => "the log has a hole",
            P::LogDamaged => "the log is damaged",
            P::TargetNotReached => "recovery did not reach the point that was asked for",
            P::Crashed => "the server crashed",
            P::NeverReady => "the server never became usable",
            P::Empty => "the server answers, and has nothing",
            P::WrongServer => "the server that answers is not the one that was started",
        }
    }
}
