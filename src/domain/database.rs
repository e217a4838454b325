//! What can be compared of a database: the objects of its schema, the content of its tables, its own word on its integrity.

use serde::{Deserialize, Serialize};

/// A class of objects of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ObjectClass {
    /// Schemas; databases, where an engine has no schemas in them.
    Schema,
    /// Tables, partitions among them.
    Table,
    /// Columns, with type, default and whether they may be NULL.
    Column,
    /// Indexes.
    Index,
    /// Constraints: primary keys, unique, foreign keys, checks, exclusions.
    Constraint,
    /// Views and materialized views.
    View,
    /// Functions, procedures and aggregates.
    Function,
    /// Triggers.
    Trigger,
    /// Scheduled events of the server.
    Event,
    /// Sequences.
    Sequence,
    /// Types and domains.
    Type,
    /// Row security policies.
    Policy,
    /// Roles or users.
    Role,
    /// Extensions or plugins.
    Extension,
}

impl ObjectClass {
    /// As shown to people, plural.
    pub const fn word(self) -> &'static str {
        match self {
            ObjectClass::Schema => "schemas",
            ObjectClass::Table => "tables",
            ObjectClass::Column => "columns",
            ObjectClass::Index => "indexes",
            ObjectClass::Constraint => "constraints",
            ObjectClass::View => "views",
            ObjectClass::Function => "functions",
            ObjectClass::Trigger => "triggers",
            ObjectClass::Event => "events",
            ObjectClass::Sequence => "sequences",
            ObjectClass::Type => "types",
            ObjectClass::Policy => "policies",
            ObjectClass::Role => "roles",
            ObjectClass::Extension => "extensions",
        }
    }
}

/// One object of a schema. Names and definitions are the site's own: compared and hashed, never shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SchemaObject {
    /// Its class.
    pub class: ObjectClass,
    /// Its name, as the engine qualifies it.
    pub name: String,
    /// All that makes it what it is, in the engine's canonical words: equal where two objects are.
    pub definition: String,
}

/// What stands for the rows of a table, whatever their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Fingerprint {
    /// Rows of the table, counted.
    pub rows: u64,
    /// Sum of the digests of the rows that were hashed: equal for equal rows in any order. Hexadecimal or decimal, as the engine has it.
    pub digest: String,
}

/// A part of a table's rows, drawn by the digest of each row: the same rows of the same data at every drill.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Sample {
    /// Of a million rows, so many; 1 to 1,000,000.
    pub per_million: u32,
}

/// How deep a database is asked to look into itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum IntegrityDepth {
    /// Structure, as far as one pass shows it.
    Quick,
    /// Everything the engine offers: indexes against their tables, keys, values.
    Full,
}

/// What a database says of its own integrity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntegrityAnswer {
    /// By what it was asked, as `pg_amcheck --heapallindexed --parent-check`.
    pub asked: String,
    /// Tables and indexes that were looked at.
    pub examined: u64,
    /// Those of them that are damaged, by the engine's names: never shown.
    pub damaged: Vec<String>,
    /// What its programs said, for the annex.
    pub output: Vec<u8>,
}
