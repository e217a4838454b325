//! `references`: every value of one component that refers to another must be there in it: rows of another database, files, fields.
//!
//! Values are kept as digests of 16 bytes, sorted: ten million of them are 160 MB.

use regex::Regex;

use super::baseline::EXAMPLES;
use super::{Answer, CheckError, Glob, NoAnswer, Restored, fields, no_answer};
use crate::domain::{Cause, EntryKind, Finding, FindingKind, Pseudonym, ReferenceSet};

/// Different values of one side at the most.
const MOST: usize = 10_000_000;
/// Values that a database is asked for at once.
const PAGE: usize = 50_000;

pub(super) async fn ask(
    name: &str,
    from: &ReferenceSet,
    to: &ReferenceSet,
    may_be_empty: bool,
    restored: &Restored<'_>,
) -> Result<Answer, CheckError> {
    let expected = "every value to refer to something that was restored";
    let mut there = Digests::default();
    let mut unread = match each(to, restored, &mut |value| there.add(value)).await? {
        Ok(unread) => unread,
        Err(refused) => return no_answer(name, expected, refused),
    };
    there.settle();
    let mut referring = Digests::default();
    let mut missing = Digests::default();
    let mut examples: Vec<Pseudonym> = Vec::new();
    let outcome = each(from, restored, &mut |value| {
        referring.add(value)?;
        if !there.has(value) {
            missing.add(value)?;
            if examples.len() < EXAMPLES {
                let example = restored.names.value(value);
                if !examples.contains(&example) {
                    examples.push(example);
                }
            }
        }
        Ok(())
    })
    .await?;
    match outcome {
        Ok(more) => unread += more,
        Err(refused) => return no_answer(name, expected, refused),
    }
    referring.settle();
    missing.settle();
    let (values, lost) = (referring.0.len() as u64, missing.0.len() as u64);
    let observed = format!("{values} different values refer to {} others, {lost} of them to nothing", there.0.len());
    let answer = Answer { expected: expected.to_owned(), observed, assertions: u32::from(values > 0), ..Answer::default() };
    let fails = |expected: &str, observed: String| {
        let kind = FindingKind::CheckFailed { expected: expected.to_owned(), observed };
        Finding::backup(name, kind)
    };
    let mut findings = Vec::new();
    if unread > 0 {
        // what they refer to, or are referred to by, is not known
        findings.push(fails("files whose values can be read", format!("{unread} documents, lines or values that cannot")));
    }
    if lost > 0 {
        findings.push(Finding::backup(name, FindingKind::ReferencesBroken { values, missing: lost, examples }));
    } else if values == 0 && may_be_empty {
        let detail = "nothing refers, so nothing was asserted".to_owned();
        findings.push(Finding::note(name, Cause::Backup, FindingKind::Remark { detail }));
    } else if values == 0 {
        findings.push(fails("values that refer", "none".to_owned()));
    }
    Ok(Answer { findings, ..answer })
}

/// Every value of a set, some of them more than once; answers how many cannot be read, or the database's refusal.
async fn each(
    set: &ReferenceSet,
    restored: &Restored<'_>,
    see: &mut (dyn FnMut(&str) -> Result<(), CheckError> + Send),
) -> Result<Result<u64, NoAnswer>, CheckError> {
    let mut unread = 0;
    match set {
        ReferenceSet::Query { of, query } => {
            let query = query.trim().trim_end_matches(';');
            for page in 0.. {
                let from = page * PAGE;
                let sql = format!("select distinct * from ({query}) as referred order by 1 limit {PAGE} offset {from}");
                let rows = match restored.databases.query(of, &sql).await {
                    Ok(rows) => rows,
                    Err(error) => return Ok(Err(error)),
                };
                for row in &rows {
                    match row.as_slice() {
                        [Some(value)] => see(value)?,
                        [None] => {}
                        columns => {
                            return Err(CheckError::NotAsked(format!("the query answers with {} columns, and one refers", columns.len())));
                        }
                    }
                }
                if rows.len() < PAGE {
                    break;
                }
            }
        }
        ReferenceSet::Files { pattern, name } => {
            unread = tokio::task::block_in_place(|| files(pattern, name.as_deref(), None, restored, see))?;
        }
        ReferenceSet::Field { pattern, field, name } => {
            unread = tokio::task::block_in_place(|| files(pattern, name.as_deref(), Some(field), restored, see))?;
        }
    }
    Ok(Ok(unread))
}

/// Paths of restored files, or the values of one of their fields; of each what the expression takes out of it. Answers how many cannot
/// be read.
fn files(
    pattern: &str,
    name: Option<&str>,
    field: Option<&str>,
    restored: &Restored<'_>,
    see: &mut (dyn FnMut(&str) -> Result<(), CheckError> + Send),
) -> Result<u64, CheckError> {
    let glob = Glob::new(pattern).map_err(|e| CheckError::NotAsked(e.to_string()))?;
    let regex = name.map(Regex::new).transpose().map_err(|e| CheckError::NotAsked(e.to_string()))?;
    let mut taken = |text: &str| match &regex {
        None => see(text),
        Some(regex) => match regex.captures(text) {
            None => Ok(()),
            Some(found) => found.get(1).or_else(|| found.get(0)).map_or(Ok(()), |part| see(part.as_str())),
        },
    };
    let mut unread = 0;
    for entry in restored.tree.walk()? {
        let entry = entry?;
        let EntryKind::File { size, .. } = entry.kind else { continue };
        if !glob.matches(&entry.path) {
            continue;
        }
        match field {
            None => taken(&String::from_utf8_lossy(entry.path.as_bytes()))?,
            Some(field) => {
                let mut outcome = Ok(());
                unread += fields::of_file(&entry.path, size, restored.tree.open(&entry.path)?, field, &mut |text| {
                    if outcome.is_ok() {
                        outcome = taken(text);
                    }
                })?;
                outcome?;
            }
        }
    }
    Ok(unread)
}

/// A set of values.
#[derive(Default)]
struct Digests(Vec<u128>);

impl Digests {
    fn of(value: &str) -> u128 {
        let digest = blake3::hash(value.as_bytes());
        u128::from_be_bytes(digest.as_bytes()[..16].try_into().expect("16 of 32 bytes"))
    }
    fn add(&mut self, value: &str) -> Result<(), CheckError> {
        self.0.push(Self::of(value));
        // what stands there twice counts once
        if self.0.len() >= 2 * MOST {
            self.settle();
            if self.0.len() > MOST {
                return Err(CheckError::TooLarge(format!("more than {MOST} different values are more than are compared")));
            }
        }
        Ok(())
    }
    fn settle(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
    }
    fn has(&self, value: &str) -> bool {
        self.0.binary_search(&Self::of(value)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Database, MemoryTree, file, no_programs, restored};
    use super::*;
    use crate::domain::{DatabaseRef, Severity};

    async fn asked(rows: &[&str], files: &[&str], may_be_empty: bool) -> Answer {
        let (tree, programs) = (MemoryTree::of(files.iter().map(|f| file(f, 1, 0)).collect()), no_programs());
        let database = Database::of(Ok(rows.iter().map(|v| vec![Some((*v).to_owned())]).collect()));
        let restored = Restored { databases: &database, ..restored(&tree, &programs) };
        let from = ReferenceSet::Query { of: DatabaseRef::default(), query: "select document from report;".into() };
        let to = ReferenceSet::Files { pattern: "documents/**".into(), name: Some(r"([^/]+)\.pdf$".into()) };
        ask("references", &from, &to, may_be_empty, &restored).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_row_whose_document_is_gone_fails() {
        let good = asked(&["a", "b", "a"], &["documents/1/a.pdf", "documents/2/b.pdf", "documents/c.pdf"], false).await;
        assert_eq!((good.findings.len(), good.assertions), (0, 1), "{}", good.observed);
        let bad = asked(&["a", "b", "Wilhelmina", "Wilhelmina"], &["documents/1/a.pdf", "documents/b.txt"], false).await;
        let FindingKind::ReferencesBroken { values, missing, examples } = &bad.findings[0].kind else { panic!("{bad:?}") };
        assert_eq!((*values, *missing, examples.len()), (3, 2, 2));
        assert!(!format!("{bad:?}").contains("Wilhelmina"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_that_refers_is_no_proof() {
        let none = asked(&[], &["documents/a.pdf"], false).await;
        assert_eq!(none.findings[0].severity, Severity::Fail);
        let fine = asked(&[], &["documents/a.pdf"], true).await;
        assert_eq!((fine.findings[0].severity, fine.assertions), (Severity::Note, 0));
    }
}
