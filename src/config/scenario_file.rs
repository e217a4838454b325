//! A scenario as its file writes it. Doc comments here are what an editor shows: they say what to write.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::check_file::CheckTable;
use crate::domain::{Addressing, LockMode};

/// A scenario: what to restore, how, with which checks and objectives.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioFile {
    /// Name of the scenario: a-z, 0-9, - and _, at most 64. It names files and directories.
    pub name: String,
    /// What the contingency plan calls the system, as "Electronic health records".
    pub system: String,
    /// How much depends on the system.
    #[serde(default)]
    pub criticality: CriticalityWord,
    /// The contingency plan that the scenario belongs to.
    pub plan: Option<PlanTable>,
    /// What is promised of a restore.
    #[serde(default)]
    pub objectives: ObjectivesTable,
    /// When drills are due.
    pub schedule: Option<super::schedule::ScheduleTable>,
    /// Where the backups are; left out where the system has components, each with a source of its own.
    pub source: Option<SourceTable>,
    /// What opens them.
    #[serde(default)]
    pub unlock: UnlockTable,
    /// What a drill may use.
    #[serde(default)]
    pub sandbox: SandboxTable,
    /// How it is restored, step by step; by default one step, `method = "archive"`.
    #[serde(default)]
    pub restore: Vec<RestoreTable>,
    /// The components of a system whose parts are backed up apart, as a database and its documents: each is restored into the directory
    /// of its name. Services start, and checks are asked, when all are there.
    #[serde(default)]
    pub component: Vec<ComponentTable>,
    /// How a drill is compared with the last one that passed.
    pub regression: Option<RegressionTable>,
    /// What is asked of the restored system. Without any, a drill proves nothing and fails.
    #[serde(default)]
    pub check: Vec<CheckTable>,
}

/// How much depends on the system: "critical", "high", "moderate" or "low".
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CriticalityWord {
    Critical,
    High,
    #[default]
    Moderate,
    Low,
}

/// The contingency plan that the scenario belongs to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanTable {
    /// Id of the plan, as "CP-014".
    pub id: String,
    /// Version of the plan, as "3.2".
    pub version: String,
    /// The last day on which this version is in force, as "2027-12-31": evidence is archived for so much longer.
    pub until: Option<String>,
}

/// What is promised of a restore. An objective that is set and not measured makes a drill inconclusive.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectivesTable {
    /// Recovery point objective: how old the newest restored data may be, as "24h".
    pub rpo: Option<String>,
    /// Recovery time objective: from the start until usable, as "4h".
    pub rto: Option<String>,
    /// What people need before the first byte moves (declaring, deciding), as "30m": added to the measured recovery time and labelled as declared.
    pub declared: Option<String>,
    /// How far apart the components of the system may have been captured, as "1h".
    pub skew: Option<String>,
}

/// One component of a system: its own backup, restored into the directory of its name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComponentTable {
    /// Its name and that of its directory: a-z, 0-9, - and _, at most 32.
    pub name: String,
    /// Components that are restored before.
    #[serde(default)]
    pub after: Vec<String>,
    /// Where its backups are.
    pub source: SourceTable,
    /// What opens them; as the scenario's own [unlock] where nothing is said.
    pub unlock: Option<UnlockTable>,
    /// How it is restored, step by step, without services; by default `method = "archive"`.
    #[serde(default)]
    pub restore: Vec<RestoreTable>,
}

/// Where the backups are.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceTable {
    /// "s3://bucket/prefix/" or "file:///directory/"; a relative "file:directory" is relative to this file.
    pub url: String,
    /// Endpoint of an S3-compatible server, as "https://s3.example.org"; AWS where absent.
    pub endpoint: Option<String>,
    /// Region, as "us-east-1".
    pub region: Option<String>,
    /// Allows a plain http endpoint. The report says so.
    #[serde(default)]
    pub allow_http: bool,
    /// PEM file of the certificate authorities to trust instead of the system's.
    pub ca_file: Option<String>,
    /// Profile of the shared AWS files to take credentials from.
    pub profile: Option<String>,
    /// How buckets are addressed: "path" (default) or "virtual-host".
    #[serde(default)]
    pub addressing: AddressingWord,
    /// Names of bare objects below the prefix, as "{captured_at:%Y-%m-%dT%H%M}.dump.zst.age"; omit for sealed sets.
    pub points: Option<String>,
    /// Time zone of the times in object names; UTC by default.
    pub points_time_zone: Option<String>,
    /// How far back gaps between recovery points are looked for, as "90d" (default).
    pub look_back: Option<String>,
    /// Which recovery point a drill takes: the newest where nothing is said.
    pub select: Option<SelectTable>,
    /// What a drill may take from the storage; everything where nothing is said.
    #[serde(default)]
    pub limits: SourceLimitsTable,
    /// What the stored objects must be.
    #[serde(default)]
    pub policy: PolicyTable,
}

/// What a drill may take from the storage.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceLimitsTable {
    /// Bytes of objects, as "50GiB".
    pub bytes: Option<String>,
    /// Requests, as 100000.
    pub requests: Option<u64>,
    /// Bytes a second, all readers together, as "20MiB/s".
    pub bandwidth: Option<String>,
}

/// Which recovery point a drill takes; one of these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SelectTable {
    /// The newest of the bucket as it stood at this instant, from the versions that it keeps: "2026-11-20T02:00:00Z", or so long before the drill's start, as "24h".
    pub as_of: Option<String>,
    /// The newest captured at or before this instant, of what the storage holds now; written as `as_of`.
    pub captured_by: Option<String>,
    /// The one with this id, as `firedrill points` shows it.
    pub point: Option<String>,
}

/// How buckets are addressed.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AddressingWord {
    #[default]
    Path,
    VirtualHost,
}

impl From<AddressingWord> for Addressing {
    fn from(word: AddressingWord) -> Self {
        match word {
            AddressingWord::Path => Addressing::Path,
            AddressingWord::VirtualHost => Addressing::VirtualHost,
        }
    }
}

/// What the stored objects must be.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyTable {
    /// Every object must be encrypted by its producer; true by default.
    pub encrypted: Option<bool>,
    /// The object lock that every object version must have.
    pub lock: Option<LockTable>,
    /// "read_only": the drill's credentials may do nothing but read. `firedrill doctor SCENARIO` asks; a drill cites the answer.
    pub rights: Option<RightsWord>,
}

/// What the drill's credentials may do.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RightsWord {
    ReadOnly,
}

/// The object lock that every object version must have.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockTable {
    /// At least this mode: "governance" or "compliance".
    pub mode: LockWord,
    /// At least this long from the start of the drill, as "30d".
    pub remaining: String,
}

/// A retention mode.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LockWord {
    Governance,
    Compliance,
}

impl From<LockWord> for LockMode {
    fn from(word: LockWord) -> Self {
        match word {
            LockWord::Governance => LockMode::Governance,
            LockWord::Compliance => LockMode::Compliance,
        }
    }
}

/// What opens the backups.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnlockTable {
    /// age or SSH identities, as "file:keys/ehr.agekey" or "env:EHR_AGE_KEY".
    #[serde(default)]
    pub age_identities: Vec<String>,
    /// Public keys of the producers whose signed manifests are trusted, as "file:keys/backup-host.pub".
    #[serde(default)]
    pub trusted_producers: Vec<String>,
}

/// What a drill may use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxTable {
    /// Memory for what runs inside, as "2GiB".
    pub memory: Option<String>,
    /// Processes inside.
    pub processes: Option<u32>,
    /// Processors' time for what runs inside, as 1.5; all that the host has where nothing is said.
    pub cpus: Option<f64>,
    /// Where the restored bytes live.
    pub scratch: Option<ScratchTable>,
    /// Longest time for the whole drill, as "2h".
    pub time: Option<String>,
    /// Host directories that programs inside see beside /usr, read-only, at the same place, as "/opt/kopia".
    #[serde(default)]
    pub tools: Vec<String>,
    /// Most entries a restore may make.
    pub max_files: Option<u64>,
    /// Most plaintext bytes for one stored byte.
    pub max_ratio: Option<u64>,
    /// Deepest path, in components.
    pub max_depth: Option<u32>,
    /// Promises of the sandbox without which the drill is refused before anything is fetched.
    #[serde(default)]
    pub require: Vec<RequireWord>,
    /// Attempts of restored programs to reach anything outside, all of which are refused: "record" (default) lists them and warns, "forbid" fails the drill on any.
    #[serde(default)]
    pub egress: EgressWord,
}

/// A promise of the sandbox that a scenario insists on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequireWord {
    Isolation,
    Memory,
    Processes,
    Cpu,
    Scratch,
    NoSwap,
    Landlock,
}

/// What attempts to reach the outside do to a drill.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EgressWord {
    #[default]
    Record,
    Forbid,
}

/// Where the restored bytes live.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScratchTable {
    /// "tmpfs" (memory, default), "encrypted" (on disk, under a key that is never written) or "directory" (plain, survives a power cut; the report says so).
    #[serde(default)]
    pub kind: ScratchWord,
    /// Its size, as "8GiB".
    pub size: Option<String>,
    /// Directory to make it in, for the kinds "encrypted" and "directory".
    pub path: Option<String>,
}

/// A kind of scratch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScratchWord {
    #[default]
    Tmpfs,
    Encrypted,
    Directory,
}

/// One step of the restore.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum RestoreTable {
    /// Unseal and unpack with the native pipeline.
    Archive {},
    /// Have a foreign tool restore, in the sandbox, from a read-only view of the backup.
    Tool {
        /// The program whose path, version and digest go into the evidence, as "restic" or "/opt/kopia/kopia".
        tool: String,
        /// The command that prints its version; the tool with --version by default.
        version: Option<Vec<String>>,
        /// Program and arguments, with places as {endpoint}, {bucket}, {prefix}, {target}, {snapshot}; no secrets.
        command: Vec<String>,
        /// Its environment; places may be {secret:NAME} here.
        #[serde(default)]
        env: BTreeMap<String, String>,
        /// Secrets by name, as { password = "file:keys/restic.password" } or "env:NAME".
        #[serde(default)]
        secrets: BTreeMap<String, String>,
        /// Small files made for it in memory, by name; {file:NAME} is where one is.
        #[serde(default)]
        files: BTreeMap<String, String>,
        /// How it reads the backup: "gateway" (default), a read-only S3 endpoint; or "directory", a mirror at {repository}.
        #[serde(default)]
        reads: ReadsWord,
        /// What becomes of what it writes to the backup: "refuse" (default) or "overlay", which ends with the drill.
        #[serde(default)]
        writes: WritesWord,
        /// Exit statuses that mean done; 0 by default.
        exit: Option<Vec<i32>>,
        /// A regular expression over its output: words by which it says that it could not ask the backup at all, as "wrong password".
        cannot_run: Option<String>,
        /// How it lists its recovery points.
        snapshots: Option<SnapshotsTable>,
    },
    /// Start PostgreSQL on what was restored: a dump, loaded into a cluster made on the spot, or a copy of a data directory.
    Postgres {
        /// By what checks call it; "postgres" by default.
        name: Option<String>,
        /// What pg_dump or pg_dumpall wrote, by a path or a glob of the restored tree, as "*.dump"; the format is told by its bytes.
        dump: Option<String>,
        /// What pg_basebackup wrote, by a path or a glob of the restored tree: the data directory, or the directory that base.tar is in.
        base: Option<String>,
        /// Incremental backups upon the base, oldest first.
        #[serde(default)]
        incrementals: Vec<String>,
        /// The directory of archived WAL; without it, what lies in the backup itself.
        wal: Option<String>,
        /// How far the base is recovered: "latest", "immediate", or a table of one of time, lsn, name; "latest" by default.
        target: Option<TargetValue>,
        /// Where the base's tablespaces were restored, by their OIDs; found by their names where nothing is said.
        #[serde(default)]
        tablespaces: BTreeMap<String, String>,
        /// What pg_dumpall --globals-only wrote: roles and tablespaces, loaded before the dump.
        globals: Option<String>,
        /// Processes that load a dump; one per processor by default.
        jobs: Option<u32>,
        /// The database that checks ask; the dump's own by default, or the largest.
        database: Option<String>,
        /// Major version of the server; the one that the backup names by default.
        version: Option<u32>,
        /// The superuser that loads and asks; "postgres" by default.
        user: Option<String>,
        /// Settings of the throw-away server, beside firedrill's own.
        #[serde(default)]
        settings: BTreeMap<String, String>,
    },
    /// Open a SQLite database that was restored: its file, with the WAL beside it, or a dump of the shell.
    Sqlite {
        /// By what checks call it; "sqlite" by default.
        name: Option<String>,
        /// The database file, by a path or a glob of the restored tree, as "*.db"; its WAL is the file of the same name with -wal behind.
        file: Option<String>,
        /// What the shell's .dump wrote, likewise; instead of `file`.
        dump: Option<String>,
        /// How `file` was made: "copy" (default), a copy of files, of which the WAL may be missing; or "backup", by SQLite itself (.backup, VACUUM INTO, Litestream).
        made_by: Option<SqliteMadeByWord>,
    },
    /// Start whatever else a definition describes: Redis, OpenLDAP and etcd are built in.
    Service {
        /// By what checks call it; the definition's name by default.
        name: Option<String>,
        /// "redis", "openldap" or "etcd", or the path of a definition of your own, as "services/mine.toml".
        definition: Option<String>,
        /// A definition in place, instead of `definition`.
        define: Option<Box<super::definition::DefinitionTable>>,
        /// What is loaded, by the definition's word for it, each by a path or a glob of the restored tree, as { rdb = "dump.rdb" }.
        #[serde(default)]
        input: BTreeMap<String, String>,
        /// Values that the definition leaves open, as { suffix = "dc=example,dc=org" }.
        #[serde(default)]
        values: BTreeMap<String, String>,
    },
    /// Start MariaDB on what was restored: a dump, loaded into a server made on the spot, or a physical backup.
    Mariadb {
        /// By what checks call it; "mariadb" by default.
        name: Option<String>,
        /// What mariadb-dump or mysqldump wrote, by a path or a glob of the restored tree, as "*.sql"; several are loaded in the order of their names.
        dump: Option<String>,
        /// What mariadb-backup wrote, by a path or a glob of the restored tree: its directory or its xbstream; or a data directory.
        base: Option<String>,
        /// Increments upon the base, oldest first.
        #[serde(default)]
        incrementals: Vec<String>,
        /// What mariadb-dump --system=users wrote: users and grants, loaded before the dump.
        users: Option<String>,
        /// Binary logs that are applied upon it, by a path or a glob of the restored tree: their directory, or the logs, as "bin.*".
        binlogs: Option<String>,
        /// How far they are applied: "latest", or a table of one of time, position, gtid; "latest" by default.
        target: Option<BinlogTargetValue>,
        /// The database that checks ask; the dump's own by default, or the largest.
        database: Option<String>,
        /// Series of the server, as "10.11"; the one that the backup names by default.
        version: Option<String>,
        /// Settings of the throw-away server, beside firedrill's own.
        #[serde(default)]
        settings: BTreeMap<String, String>,
    },
}

/// How a SQLite database file was made.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SqliteMadeByWord {
    Copy,
    Backup,
}

/// How far a cluster is recovered.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TargetValue {
    /// "latest" or "immediate".
    Word(String),
    /// A point.
    Point(TargetTable),
}

/// A point to recover to: one of `time`, `lsn`, `name`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetTable {
    /// An instant with its offset, as "2026-11-20T02:00:00Z".
    pub time: Option<String>,
    /// A position in the WAL, as "16/B374D848".
    pub lsn: Option<String>,
    /// A restore point that pg_create_restore_point made.
    pub name: Option<String>,
    /// Whether what happened at that very time or position is still wanted; true by default.
    pub inclusive: Option<bool>,
}

/// How far binary logs are applied.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum BinlogTargetValue {
    /// "latest".
    Word(String),
    /// A point.
    Point(BinlogTargetTable),
}

/// A point up to which binary logs are applied: one of `time`, `position`, `gtid`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BinlogTargetTable {
    /// An instant with its offset, as "2026-11-20T02:00:00Z"; binary logs have whole seconds.
    pub time: Option<String>,
    /// A log and the position in it, as "bin.000003:1234": what ends there or before it is applied.
    pub position: Option<String>,
    /// A transaction, as "0-7-120".
    pub gtid: Option<String>,
    /// Whether what was committed in that very second, or the transaction itself, is still wanted; true by default.
    pub inclusive: Option<bool>,
}

/// How a tool reads the backup.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadsWord {
    #[default]
    Gateway,
    Directory,
}

/// What becomes of what a tool writes to the backup.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WritesWord {
    #[default]
    Refuse,
    Overlay,
}

/// How a tool lists its recovery points, as JSON on standard output.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotsTable {
    /// Program and arguments, as ["restic", "snapshots", "--json"].
    pub command: Vec<String>,
    /// Where the items are: names separated by dots, [] for each element of a list, as "archives[]".
    pub items: String,
    /// Where, within an item, its id is, as "short_id".
    pub id: String,
    /// Where, within an item, its capture time is: RFC 3339, seconds since 1970, or a civil time.
    pub time: String,
    /// Time zone of civil times; UTC by default.
    pub time_zone: Option<String>,
}

/// How a drill is compared with the last one of the scenario that passed. Nothing is compared where nothing is said.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegressionTable {
    /// Fewer files, bytes, objects or rows by more than this warn, as "5%".
    pub warn: Option<String>,
    /// Fewer by more than this fail, as "20%".
    pub fail: Option<String>,
    /// More time until usable by more than this warns, as "200%".
    pub slower: Option<String>,
    /// The id of a drill whose differences were looked at and are right, as after a migration: it is compared with like one that passed.
    pub accept: Option<String>,
}
