//! The checks of a scenario as its file writes them. Doc comments here are what an editor shows: they say what to write.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::{IntegrityDepth, ObjectClass};

/// One check of the restored system.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum CheckTable {
    /// The restored tree against the manifest: files matched, mismatched, missing, extra; names, modes, links, times.
    Manifest {
        /// Name of the check.
        name: Option<String>,
    },
    /// Files of the restored tree.
    Files {
        /// Name of the check.
        name: Option<String>,
        /// One path below the restored root.
        path: Option<String>,
        /// A glob of paths: * within a component, ** across.
        pattern: Option<String>,
        /// How many match, as ">= 1000"; at least one where nothing is said.
        count: Option<String>,
        /// Their bytes together, as "> 1GiB".
        bytes: Option<String>,
        /// The newest was modified within this time before the drill, as "24h".
        newest: Option<String>,
    },
    /// A command in the sandbox; its working directory is the restored root. No shell unless you name one.
    Command {
        /// Name of the check.
        name: Option<String>,
        /// Program and arguments.
        command: Vec<String>,
        /// The exit status that means yes; 0 by default.
        #[serde(default)]
        exit: i32,
        /// A regular expression that standard output must match.
        stdout: Option<String>,
    },
    /// The newest data in the restored content: this is the measured RPO.
    Freshness {
        /// Name of the check.
        name: Option<String>,
        /// One path below the restored root.
        path: Option<String>,
        /// A glob of paths.
        pattern: Option<String>,
        /// Column of a CSV file or dotted path into JSON whose latest instant counts; the files' times where absent.
        field: Option<String>,
        /// A query of a restored database whose one value is the newest instant, as "select max(recorded_at) from encounter".
        query: Option<String>,
        /// The service that is asked; the only one by default.
        service: Option<String>,
        /// The database in it.
        database: Option<String>,
    },
    /// A question in a restored database's own language: one query with what it must answer, or exact counts of tables.
    Sql {
        /// Name of the check.
        name: Option<String>,
        /// The service that is asked; the only one by default.
        service: Option<String>,
        /// The database in it.
        database: Option<String>,
        /// One query of one row and one value.
        query: Option<String>,
        /// What it must be: a comparison, as ">= 1000", or a text, as "text: 4.2".
        expect: Option<String>,
        /// Tables and how many rows each must have, as { patient = ">= 1000" }; counted one by one.
        #[serde(default)]
        tables: BTreeMap<String, String>,
    },
    /// The objects of a restored database (tables, columns, indexes, constraints, views, functions, triggers, sequences, roles and more), by name and definition, against a baseline.
    Schema {
        /// Name of the check.
        name: Option<String>,
        /// The service that is asked; the only one by default.
        service: Option<String>,
        /// The database in it.
        database: Option<String>,
        /// "last-passed" (default), what the last drill that passed observed; "restored:PATH", a baseline in the backup; or "file:PATH", one of the site, relative to this file. `firedrill baseline` makes them.
        baseline: Option<String>,
        /// Classes that are not compared, as ["role"].
        #[serde(default)]
        ignore: Vec<ObjectClass>,
        /// What objects do that the baseline does not have: "warn" (default), "fail" or "allow".
        #[serde(default)]
        additional: AdditionalWord,
    },
    /// The rows of a restored database's tables, whatever their order, against a baseline or another restored database.
    Content {
        /// Name of the check.
        name: Option<String>,
        /// The service that is asked; the only one by default.
        service: Option<String>,
        /// The database in it.
        database: Option<String>,
        /// Which tables, as ["code_system"]; all where none is named.
        #[serde(default)]
        tables: Vec<String>,
        /// Where the baseline is, as for a schema; "last-passed" by default.
        baseline: Option<String>,
        /// Another restored database that must have the same rows, instead of a baseline.
        same_as: Option<DatabaseTable>,
        /// Which part of the rows is hashed, as "1%"; all are by default. Rows are counted in any case.
        sample: Option<String>,
    },
    /// A restored database's own word on its integrity: pg_amcheck, CHECK TABLE, integrity_check.
    Integrity {
        /// Name of the check.
        name: Option<String>,
        /// The service that is asked; the only one by default.
        service: Option<String>,
        /// The database in it.
        database: Option<String>,
        /// "full" (default), everything that the engine offers; or "quick".
        depth: Option<IntegrityDepth>,
    },
    /// Values of one component that must be there in another: rows of another database, files, fields of files.
    References {
        /// Name of the check.
        name: Option<String>,
        /// Those that refer.
        from: ReferenceTable,
        /// Those that they refer to.
        to: ReferenceTable,
        /// Whether it is fine that nothing refers; then nothing is asserted.
        #[serde(default)]
        may_be_empty: bool,
    },
    /// The nonce that `firedrill canary` planted in the source before the backup.
    Canary {
        /// Name of the check.
        name: Option<String>,
        /// A query whose one value is the newest canary, as "select nonce from canary order by planted desc limit 1".
        query: Option<String>,
        /// A restored file that holds it.
        file: Option<String>,
        /// The service that is asked; the only one by default.
        service: Option<String>,
        /// The database in it.
        database: Option<String>,
    },
    /// The resources of a FHIR store (R4), as a bulk export or single files hold them: each parses, none is there twice, what they refer to is there.
    Fhir {
        /// Name of the check.
        name: Option<String>,
        /// One path below the restored root.
        path: Option<String>,
        /// A glob of paths, as "export/*.ndjson"; a resource a line where the name ends so or in .jsonl, else whole documents.
        pattern: Option<String>,
        /// How many there are of each type, as { Patient = ">= 1000" }.
        #[serde(default)]
        resources: BTreeMap<String, String>,
        /// Base addresses of the store itself, as "https://ehr.example.org/fhir"; references to other servers are counted, and not followed.
        #[serde(default)]
        bases: Vec<String>,
        /// Types, or single resources as "Organization/hq", that live in another store and need not be here.
        #[serde(default)]
        elsewhere: Vec<String>,
    },
    /// An archive of HL7 v2 messages, plain, framed (MLLP) or in batches: each is whole and well-formed, none is there twice, batches add up.
    Hl7 {
        /// Name of the check.
        name: Option<String>,
        /// One path below the restored root.
        path: Option<String>,
        /// A glob of paths, as "archive/**/*.hl7".
        pattern: Option<String>,
        /// How many there are of each type, as { ADT = ">= 1000", "ORU^R01" = ">= 500" }.
        #[serde(default)]
        messages: BTreeMap<String, String>,
        /// Time zone of message times that name none, as "America/Chicago".
        time_zone: Option<String>,
        /// Whether one message may be there again, because its sender sent it again.
        #[serde(default)]
        resends: bool,
        /// Whether files may end without the end of their last segment, because whoever wrote them left it out.
        #[serde(default)]
        unterminated: bool,
    },
    /// A folder of DICOM files: each is whole to its last pixel, none is there twice, and they are those that an index names.
    Dicom {
        /// Name of the check.
        name: Option<String>,
        /// One path below the restored root.
        path: Option<String>,
        /// A glob of paths, as "images/**".
        pattern: Option<String>,
        /// The index that they are held against: a DICOMDIR, or a .csv of series and their numbers of instances.
        index: Option<String>,
        /// The index's column of the Series Instance UID; "series_instance_uid" by default.
        series_column: Option<String>,
        /// The index's column of the number of instances; "instances" by default.
        instances_column: Option<String>,
        /// How many series there are, as ">= 1000".
        series: Option<String>,
        /// How many instances there are.
        instances: Option<String>,
        /// Time zone of times that name none, as "America/Chicago"; without it such times date nothing.
        time_zone: Option<String>,
    },
}

/// A set of values: of a query, of the names of files, or of one of their fields.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReferenceTable {
    /// A query of one column; NULL refers to nothing.
    pub query: Option<String>,
    /// The service that is asked; the only one by default.
    pub service: Option<String>,
    /// The database in it.
    pub database: Option<String>,
    /// A glob of restored files, as "documents/**".
    pub files: Option<String>,
    /// Column of CSV files or dotted path into JSON whose values count; the paths of the files where absent.
    pub field: Option<String>,
    /// A regular expression whose first group is the value, as "([^/]+)\\.pdf$"; what it does not match is left out.
    pub name: Option<String>,
}

/// What objects do that the baseline does not have.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdditionalWord {
    #[default]
    Warn,
    Fail,
    Allow,
}

/// A restored database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatabaseTable {
    /// The service; the only one by default.
    pub service: Option<String>,
    /// The database in it.
    pub database: Option<String>,
}
