//! `files`: files of the restored tree, counted, weighed and dated.

use super::{Answer, CheckError, Glob, Restored};
use crate::domain::{ByteSize, Comparison, EntryKind, Finding, FindingKind, Period, Timestamp};

pub(super) fn ask(
    name: &str,
    pattern: &str,
    count: Option<Comparison>,
    bytes: Option<Comparison>,
    newest: Option<Period>,
    restored: &Restored<'_>,
) -> Result<Answer, CheckError> {
    let glob = Glob::new(pattern).map_err(|e| CheckError::Sandbox(e.to_string()))?;
    let (mut files, mut size, mut latest) = (0u64, 0u64, None::<i64>);
    for entry in restored.tree.walk()? {
        let entry = entry?;
        let file_size = match entry.kind {
            EntryKind::File { size, .. } => size,
            EntryKind::Hardlink { .. } => 0,
            _ => continue,
        };
        if glob.matches(&entry.path) {
            files += 1;
            size += file_size;
            latest = latest.max(Some(entry.mtime));
        }
    }

    let mut answer = Answer::default();
    let mut wants = Vec::new();
    let mut sees = Vec::new();
    let mut fails = Vec::new();
    let mut assert = |wanted: String, seen: String, holds: bool| {
        if !holds {
            fails.push(Finding::backup(name, FindingKind::CheckFailed { expected: wanted.clone(), observed: seen.clone() }));
        }
        wants.push(wanted);
        sees.push(seen);
    };
    match count {
        Some(count) => assert(format!("files {count}"), format!("{files} files"), count.holds(files)),
        // whoever names files without counting them means that they exist
        None => assert("at least one file".into(), format!("{files} files"), files > 0),
    }
    if let Some(bytes) = bytes {
        assert(format!("bytes {bytes}"), format!("{} ({size} bytes)", ByteSize(size)), bytes.holds(size));
    }
    if let Some(newest) = newest {
        let age = latest.map(|mtime| restored.started.seconds_since(Timestamp::from_unix(mtime)));
        let seen = match age {
            None => "no file to date".to_owned(),
            Some(age) if age < 0 => "newest file dated in the future".to_owned(),
            Some(age) => format!("newest file {} old", Period::from_secs(age.unsigned_abs())),
        };
        let holds = age.is_some_and(|age| age >= 0 && age.unsigned_abs() <= newest.seconds);
        assert(format!("newest file at most {newest} old"), seen, holds);
    }
    // where nothing matched and nothing was missed, nothing of what was restored was looked at
    answer.assertions = if files == 0 && fails.is_empty() { 0 } else { wants.len() as u32 };
    answer.expected = wants.join(", ");
    answer.observed = sees.join(", ");
    answer.findings = fails;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{MemoryTree, file, no_programs, restored};
    use super::*;

    fn run(tree: &MemoryTree, count: Option<&str>, bytes: Option<&str>, newest: Option<u64>) -> Answer {
        let parse = |t: Option<&str>| t.map(|t| t.parse().unwrap());
        ask("files", "r/*", parse(count), parse(bytes), newest.map(Period::from_secs), &restored(tree, &no_programs())).unwrap()
    }

    fn tree() -> MemoryTree {
        MemoryTree::of(vec![file("other", 500, 999_999), file("r/a", 10, 999_000), file("r/b", 20, 998_000)])
    }

    #[test]
    fn files_are_counted_weighed_and_dated() {
        let answer = run(&tree(), Some("= 2"), Some("= 30"), Some(1_000));
        assert!(answer.findings.is_empty(), "{:?}", answer.findings);
        assert_eq!(answer.assertions, 3);
    }

    #[test]
    fn each_assertion_can_fail() {
        assert_eq!(run(&tree(), Some("> 2"), None, None).findings.len(), 1);
        assert_eq!(run(&tree(), None, Some("> 30"), None).findings.len(), 1);
        assert_eq!(run(&tree(), None, None, Some(999)).findings.len(), 1);
    }

    #[test]
    fn no_match_fails_where_nothing_else_is_said() {
        assert_eq!(run(&MemoryTree::of(vec![]), None, None, None).findings.len(), 1);
    }

    #[test]
    fn nothing_compared_with_nothing_asserts_nothing() {
        let answer = run(&MemoryTree::of(vec![]), Some(">= 0"), None, None);
        assert!(answer.findings.is_empty());
        assert_eq!(answer.assertions, 0);
        assert_eq!(run(&tree(), Some(">= 0"), None, None).assertions, 1);
    }

    #[test]
    fn a_file_from_the_future_is_not_fresh() {
        let tree = MemoryTree::of(vec![file("r/a", 1, 2_000_000)]);
        assert_eq!(run(&tree, None, None, Some(1_000)).findings.len(), 1);
    }
}
