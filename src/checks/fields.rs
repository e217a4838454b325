//! Values in restored files: one field of JSON (one document or lines) or CSV.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};

use serde_json::Value;

use super::CheckError;
use crate::domain::RestorePath;

/// The largest single JSON document that is read whole.
const MAX_DOCUMENT: u64 = 64 << 20;
/// The longest line of JSON lines.
const MAX_LINE: u64 = 16 << 20;

/// Sees every value of a field, as text; what is no text, number or truth value has none. Answers how many documents, lines or values
/// cannot be read: a CSV file without that column is one.
pub(super) fn of_file(path: &RestorePath, size: u64, file: File, field: &str, see: &mut dyn FnMut(&str)) -> Result<u64, CheckError> {
    if path.as_bytes().to_ascii_lowercase().ends_with(b".csv") { of_csv(file, field, see) } else { of_json(file, size, field, see) }
}

fn of_csv(file: File, field: &str, see: &mut dyn FnMut(&str)) -> Result<u64, CheckError> {
    let broken = |_| CheckError::TooLarge("a CSV file could not be read".into());
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
    let column = reader.byte_headers().map_err(broken)?.iter().position(|h| h == field.as_bytes());
    let Some(column) = column else { return Ok(1) };
    let mut record = csv::ByteRecord::new();
    let mut unread = 0;
    while reader.read_byte_record(&mut record).map_err(broken)? {
        match record.get(column).map(std::str::from_utf8) {
            Some(Ok(text)) => see(text),
            Some(Err(_)) | None => unread += 1,
        }
    }
    Ok(unread)
}

/// One document, or a document a line.
fn of_json(mut file: File, size: u64, field: &str, see: &mut dyn FnMut(&str)) -> Result<u64, CheckError> {
    let path: Vec<&str> = field.split('.').collect();
    if size <= MAX_DOCUMENT {
        let mut text = Vec::with_capacity(size as usize);
        (&mut file).take(MAX_DOCUMENT).read_to_end(&mut text)?;
        if let Ok(document) = serde_json::from_slice::<Value>(&text) {
            collect(&document, &path, see);
            return Ok(0);
        }
        file.rewind()?;
    }
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut unread = 0;
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(unread);
        }
        if read as u64 == MAX_LINE {
            return Err(CheckError::TooLarge(format!(
                "a JSON document is larger than {MAX_DOCUMENT} bytes and is not written a record a line"
            )));
        }
        match serde_json::from_slice::<Value>(&line) {
            Ok(document) => collect(&document, &path, see),
            Err(_) if line.trim_ascii().is_empty() => {}
            Err(_) => unread += 1,
        }
    }
}

/// Follows a dotted path through objects, and through every element of lists on the way.
fn collect(value: &Value, path: &[&str], see: &mut dyn FnMut(&str)) {
    match (value, path) {
        (Value::Array(items), _) => items.iter().for_each(|item| collect(item, path, see)),
        (Value::Object(map), [first, rest @ ..]) => {
            if let Some(inner) = map.get(*first) {
                collect(inner, rest, see);
            }
        }
        (Value::String(text), []) => see(text),
        (Value::Number(number), []) => see(&number.to_string()),
        _ => {}
    }
}
