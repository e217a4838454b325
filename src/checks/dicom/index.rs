//! What should be in the folder: instances by a `DICOMDIR` (PS3.3 F), or series and their numbers by a CSV of the PACS.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};

use dicom_core::Tag;

use super::tokens::{Met, Outcome, read};
use crate::checks::CheckError;
use crate::checks::records::{Key, enough_room, key};
use crate::domain::RecordProblem;

const FILE_ID: Tag = Tag(0x0004, 0x1500);
const INSTANCE: Tag = Tag(0x0004, 0x1511);

/// What was read of an index.
#[derive(Debug)]
pub(super) enum Index {
    /// Instances, and the files that hold them as the directory writes them.
    Instances(HashMap<Key, Box<str>>),
    /// Series, their numbers of instances, and their ids.
    Series(HashMap<Key, (u64, Box<str>)>),
    /// It is broken itself.
    Broken(RecordProblem),
}

/// Reads a `DICOMDIR`.
///
/// # Errors
/// It could not be read at all, or is written in a way that is not read here.
pub(super) fn dicomdir(file: File, size: u64) -> Result<Index, CheckError> {
    let mut instances = HashMap::new();
    let (mut path, mut instance) = (None, None);
    let outcome = read(
        file,
        size,
        |tag| tag == FILE_ID || tag == INSTANCE,
        |met| match met {
            Met::Value { tag, depth: 1, value, .. } => {
                let text = String::from_utf8_lossy(value).trim_matches(['\0', ' ']).to_owned();
                if tag == FILE_ID {
                    path = Some(text);
                } else {
                    instance = Some(text);
                }
            }
            // records of patients, studies and series name no file
            Met::ItemEnd { depth: 1 } => {
                if let (Some(path), Some(instance)) = (path.take(), instance.take()) {
                    instances.insert(key(&[instance.as_bytes()]), path.into_boxed_str());
                }
            }
            _ => {}
        },
    )?;
    enough_room(instances.len())?;
    Ok(match outcome {
        Outcome::Whole { .. } => Index::Instances(instances),
        Outcome::Broken(problem) => Index::Broken(problem),
        Outcome::Foreign => return Err(CheckError::NotAsked("the DICOMDIR is written in a way that is not read here".to_owned())),
    })
}

/// Reads a CSV with these columns.
///
/// # Errors
/// It could not be read at all, or has no such columns.
pub(super) fn series(file: File, series: &str, instances: &str) -> Result<Index, CheckError> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(BufReader::new(file));
    let headers = match reader.byte_headers() {
        Ok(headers) => headers,
        Err(error) => return broken(error),
    };
    let column = |name: &str| headers.iter().position(|header| header == name.as_bytes());
    let (Some(series_at), Some(instances_at)) = (column(series), column(instances)) else {
        // another version of the PACS, or the scenario's mistake: nothing of the backup's is shown to be wrong
        return Err(CheckError::NotAsked(format!("the index has no columns `{series}` and `{instances}`")));
    };
    let mut known: HashMap<Key, (u64, Box<str>)> = HashMap::new();
    let mut record = csv::ByteRecord::new();
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(false) => return Ok(Index::Series(known)),
            Ok(true) => {}
            Err(error) => return broken(error),
        }
        let text = |at: usize| record.get(at).and_then(|value| std::str::from_utf8(value).ok()).filter(|value| !value.is_empty());
        let (Some(id), Some(Ok(number))) = (text(series_at), text(instances_at).map(str::parse::<u64>)) else {
            return Ok(Index::Broken(RecordProblem::Unreadable));
        };
        // a line for each of its parts is as good
        known.entry(key(&[id.as_bytes()])).or_insert_with(|| (0, id.into())).0 += number;
        enough_room(known.len())?;
    }
}

fn broken(error: csv::Error) -> Result<Index, CheckError> {
    match error.into_kind() {
        csv::ErrorKind::Io(error) if error.kind() != io::ErrorKind::InvalidData => Err(CheckError::Tree(error)),
        _ => Ok(Index::Broken(RecordProblem::Unreadable)),
    }
}
