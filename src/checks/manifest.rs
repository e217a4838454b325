//! `manifest`: the restored tree against the manifest.
//!
//! Content was hashed while it was written, each byte once, and compared there; here everything else is compared with
//! what is on the scratch now: presence, kind, size, mode, times, links, extended attributes, and that nothing is extra.

use std::collections::BTreeMap;
use std::io;
use std::thread::{Builder, Scope};

use super::{Answer, CheckError, Entries, Restored};
use crate::domain::{Aspect, FileEntry, Finding, FindingKind, Pseudonym, compare};

/// How many differing entries are shown by pseudonym.
const EXAMPLES: usize = 10;

pub(super) fn ask(name: &str, restored: &Restored<'_>) -> Result<Answer, CheckError> {
    let Some(expected) = restored.tree.expected()? else {
        return Ok(Answer {
            expected: "a manifest".into(),
            observed: "this backup carries none".into(),
            findings: vec![Finding::backup(name, FindingKind::CheckFailed { expected: "a manifest".into(), observed: "none".into() })],
            ..Answer::default()
        });
    };
    let (counted, paths) = restored.tree.met_while_writing();
    let mut aspects: BTreeMap<Aspect, u64> = BTreeMap::new();
    let mut examples: Vec<Pseudonym> = paths.iter().take(EXAMPLES).map(restored.pseudonym).collect();
    let walk = restored.tree.walk()?;
    let mut summary = std::thread::scope(|scope| -> io::Result<_> {
        let (mut left, mut right) = (Fallible::new(ahead(scope, expected)?), Fallible::new(ahead(scope, walk)?));
        let summary = compare(left.by_ref(), right.by_ref(), |difference| {
            *aspects.entry(difference.aspect).or_default() += 1;
            if examples.len() < EXAMPLES {
                let pseudonym = (restored.pseudonym)(&difference.path);
                if !examples.contains(&pseudonym) {
                    examples.push(pseudonym);
                }
            }
        });
        left.finish()?;
        right.finish()?;
        Ok(summary)
    })?;
    // the walk knows neither bytes nor attributes: where these differed is only known from the writing
    let mut unseen = 0;
    for (aspect, count) in counted {
        if matches!(aspect, Aspect::Content | Aspect::Xattrs) {
            unseen += count;
            *aspects.entry(aspect).or_default() += count;
        }
    }
    let moved = unseen.min(summary.matched);
    summary.matched -= moved;
    summary.mismatched += moved;

    let observed =
        format!("{} matched, {} mismatched, {} missing, {} extra", summary.matched, summary.mismatched, summary.missing, summary.extra);
    let compared = summary.matched + summary.mismatched + summary.missing + summary.extra;
    let findings = if compared == 0 {
        vec![Finding::backup(name, FindingKind::EmptyRestore { detail: "the manifest lists no files and none were restored".into() })]
    } else if aspects.is_empty() {
        vec![]
    } else {
        let aspects = aspects.into_iter().map(|(aspect, count)| (aspect.word().to_owned(), count)).collect();
        vec![Finding::backup(name, FindingKind::TreeDiffers { summary, aspects, examples })]
    };
    Ok(Answer {
        expected: "every entry as the manifest has it, and nothing else".into(),
        observed,
        assertions: u32::from(compared > 0),
        findings,
        ..Answer::default()
    })
}

/// Entries that travel together.
const BATCH: usize = 256;

/// Reads entries on a thread of their own: index and disk are read at the same time. A thread that panics takes the scope
/// with it, so its silence cannot pass for the end.
fn ahead<'scope>(scope: &'scope Scope<'scope, '_>, mut entries: Entries<'scope>) -> io::Result<Entries<'scope>> {
    let (send, receive) = crossbeam_channel::bounded::<Vec<io::Result<FileEntry>>>(4);
    Builder::new().name("verify-read".to_owned()).spawn_scoped(scope, move || {
        loop {
            let batch: Vec<_> = entries.by_ref().take(BATCH).collect();
            if batch.is_empty() || send.send(batch).is_err() {
                return;
            }
        }
    })?;
    Ok(Box::new(receive.into_iter().flatten()))
}

/// Entries up to the first error, which is kept for afterwards.
struct Fallible<'a> {
    entries: Entries<'a>,
    error: Option<io::Error>,
}

impl<'a> Fallible<'a> {
    fn new(entries: Entries<'a>) -> Self {
        Self { entries, error: None }
    }
    fn finish(self) -> io::Result<()> {
        self.error.map_or(Ok(()), Err)
    }
}

impl Iterator for Fallible<'_> {
    type Item = FileEntry;
    fn next(&mut self) -> Option<Self::Item> {
        if self.error.is_some() {
            return None;
        }
        match self.entries.next()? {
            Ok(entry) => Some(entry),
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{MemoryTree, file, no_programs, restored};
    use super::*;

    fn run(tree: &MemoryTree) -> Answer {
        ask("manifest", &restored(tree, &no_programs())).unwrap()
    }

    #[test]
    fn an_equal_tree_passes_with_one_assertion() {
        let mut tree = MemoryTree::of(vec![file("a", 1, 1)]);
        tree.expected = Some(tree.found.clone());
        let answer = run(&tree);
        assert!(answer.findings.is_empty());
        assert_eq!(answer.assertions, 1);
    }

    #[test]
    fn a_missing_file_fails() {
        let mut tree = MemoryTree::of(vec![file("a", 1, 1)]);
        tree.expected = Some(vec![file("a", 1, 1), file("b", 1, 1)]);
        assert!(matches!(&run(&tree).findings[0].kind, FindingKind::TreeDiffers { summary, .. } if summary.missing == 1));
    }

    #[test]
    fn content_that_differed_while_writing_fails() {
        let mut tree = MemoryTree::of(vec![file("a", 1, 1)]);
        tree.expected = Some(tree.found.clone());
        tree.while_writing = vec![(Aspect::Content, 1)];
        let answer = run(&tree);
        assert!(
            matches!(&answer.findings[0].kind, FindingKind::TreeDiffers { aspects, summary, .. } if aspects["content"] == 1 && summary.mismatched == 1)
        );
    }

    #[test]
    fn nothing_against_nothing_is_not_a_pass() {
        let mut tree = MemoryTree::of(vec![]);
        tree.expected = Some(vec![]);
        let answer = run(&tree);
        assert!(matches!(answer.findings[0].kind, FindingKind::EmptyRestore { .. }));
        assert_eq!(answer.assertions, 0);
    }

    #[test]
    fn a_backup_without_manifest_fails_it() {
        assert_eq!(run(&MemoryTree::of(vec![file("a", 1, 1)])).findings.len(), 1);
    }
}
