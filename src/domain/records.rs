//! Restored records of health care, FHIR resources, DICOM instances, HL7 messages: what to know of them, and what can be wrong.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Comparison, TimeZone};

/// What is wrong with records, however many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RecordProblem {
    /// They are not of their format.
    Unreadable,
    /// They end early.
    Truncated,
    /// Their own total says that there are more or fewer.
    WrongTotal,
    /// Others have the same id.
    Duplicate,
    /// They refer to records that are not there.
    Dangling,
    /// The index names them, and they are not there.
    Missing,
    /// They are there, and the index does not name them.
    NotInIndex,
}

impl RecordProblem {
    /// In words, after "records that".
    pub fn words(self) -> &'static str {
        match self {
            RecordProblem::Unreadable => "are not of their format",
            RecordProblem::Truncated => "end early",
            RecordProblem::WrongTotal => "are more or fewer than their own total says",
            RecordProblem::Duplicate => "have the id of another",
            RecordProblem::Dangling => "refer to what is not there",
            RecordProblem::Missing => "are named by the index and missing",
            RecordProblem::NotInIndex => "are not named by the index",
        }
    }
}

/// What to know of a FHIR store to follow its references.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FhirStore {
    /// Base addresses of the store itself, by which its resources may call each other; without a slash at the end.
    pub bases: Vec<String>,
    /// Types, or single resources as `Type/id`, that live in another store.
    pub elsewhere: BTreeSet<String>,
}

/// What to know of an archive of HL7 v2 messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hl7Archive {
    /// The zone of times that name none.
    pub time_zone: Option<TimeZone>,
    /// Whether the same message may be there again.
    pub resends: bool,
    /// Whether a file may end without the end of its last segment.
    pub unterminated: bool,
}

/// What a folder of DICOM files is held against.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DicomFolder {
    /// What names the instances that should be there.
    pub index: Option<DicomIndex>,
    /// How many series there are.
    pub series: Option<Comparison>,
    /// How many instances there are.
    pub instances: Option<Comparison>,
    /// The zone of times that name none.
    pub time_zone: Option<TimeZone>,
}

/// What names the instances that should be in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DicomIndex {
    /// A `DICOMDIR`.
    Dicomdir {
        /// Its path.
        path: String,
    },
    /// A CSV of series and their numbers of instances, as a PACS exports it.
    Csv {
        /// Its path.
        path: String,
        /// The column of the Series Instance UID.
        series: String,
        /// The column of the number of instances.
        instances: String,
    },
}

impl DicomIndex {
    /// Where it is.
    pub fn path(&self) -> &str {
        match self {
            DicomIndex::Dicomdir { path } | DicomIndex::Csv { path, .. } => path,
        }
    }
}
