//! A site's own database, observed for a baseline by the host's `psql`, with the questions that drills ask.

use std::io::Write;
use std::process::{Command, Stdio};

use super::super::{AskError, Rows};
use super::{content, schema};
use crate::domain::{Fingerprint, Sample, SchemaObject};

/// What was observed.
#[derive(Debug)]
pub struct Observation {
    /// What the server says of its version.
    pub version: String,
    /// Every object of the database.
    pub objects: Vec<SchemaObject>,
    /// Fingerprints of the tables that were asked for.
    pub tables: Vec<(String, Fingerprint)>,
}

/// Why it was not.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The client could not be run.
    #[error("psql could not be run: {0}")]
    NoClient(#[source] std::io::Error),
    /// It ended with an error, and said why.
    #[error("psql ended with {0}")]
    Refused(std::process::ExitStatus),
    /// The answer could not be used.
    #[error(transparent)]
    Answer(#[from] AskError),
}

/// Asks a database, reached as `psql` is told and with the user's own `PGOPTIONS`, for its objects, and for the rows of `tables` where there are any to ask for: all, where none is named. It is only
/// read, objects and rows as of one snapshot: `snapshot`, as `pg_export_snapshot()` gave it, or one of its own.
///
/// # Errors
/// [`LiveError`].
pub fn observe(
    connection: &str,
    options: &str,
    tables: Option<&[String]>,
    sample: Option<Sample>,
    snapshot: Option<&str>,
) -> Result<Observation, LiveError> {
    let mut script = vec!["select current_setting('server_version_num'), current_setting('server_version')".to_owned()];
    script.extend(tables.map(content::tables_question));
    let [about, listed] = two(psql((connection, options), &script)?);
    let mut about = about.0.into_iter().flatten().flatten();
    let major = about.next().and_then(|number| number.parse::<u32>().ok()).map_or(0, |number| number / 10_000);
    let version = about.next().unwrap_or_default();

    // a snapshot is taken over before anything else is asked
    let taken = snapshot.map_or_else(String::new, |id| format!("; set transaction snapshot '{}'", id.replace('\'', "''")));
    let mut script = vec![format!("begin isolation level repeatable read read only{taken}"), schema::question(major)];
    if let Some(named) = tables {
        script.extend(content::questions(&content::tables(listed, named)?, sample, major));
    }
    // statements without an answer have none among the answers either
    let mut answers = psql((connection, options), &script)?.into_iter().filter(|rows| !rows.0.is_empty());
    let objects = schema::objects(answers.next().unwrap_or_default())?;
    let mut found = Vec::new();
    for rows in answers {
        found.extend(content::fingerprints(rows)?);
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Observation { version, objects, tables: found })
}

fn two(answers: Vec<Rows>) -> [Rows; 2] {
    let mut answers = answers.into_iter();
    [answers.next().unwrap_or_default(), answers.next().unwrap_or_default()]
}

/// One session: the answer of each statement.
fn psql((connection, options): (&str, &str), statements: &[String]) -> Result<Vec<Rows>, LiveError> {
    let mut random = [0u8; 12];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).map_err(|e| LiveError::NoClient(e.into()))?;
    let word = data_encoding::HEXLOWER.encode(&random);
    let (null, end) = (format!("null-{word}"), format!("end-{word}"));
    let mut client = Command::new("psql")
        .args(["--no-psqlrc", "--quiet", "--csv", "--tuples-only", "--set=ON_ERROR_STOP=1", "-P", &format!("null={null}")])
        .arg(format!("--dbname={connection}"))
        .env("PGOPTIONS", format!("{options} -c default_transaction_read_only=on {}", schema::CANONICAL))
        .env("PGCLIENTENCODING", "UTF8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(LiveError::NoClient)?;
    let mut input = client.stdin.take().expect("it was asked for");
    let script: String = statements.iter().map(|sql| format!("{sql};\nselect '{end}';\n")).collect();
    // a client that ends early says why itself
    let writer = std::thread::spawn(move || drop(input.write_all(script.as_bytes())));
    let output = client.wait_with_output().map_err(LiveError::NoClient)?;
    drop(writer.join());
    if !output.status.success() {
        return Err(LiveError::Refused(output.status));
    }
    let (mut answers, mut rows) = (Vec::new(), Vec::new());
    for record in csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(output.stdout.as_slice()).records() {
        let record = record.map_err(|_| AskError::BadQuestion { reason: "the answer is no text".to_owned(), output: Vec::new() })?;
        if record.len() == 1 && record[0] == *end {
            answers.push(Rows(std::mem::take(&mut rows)));
        } else {
            rows.push(record.iter().map(|value| (value != null).then(|| value.to_owned())).collect());
        }
    }
    Ok(answers)
}
