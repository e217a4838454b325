//! `command`: a program inside the sandbox, judged by exit status and output.
//!
//! Its output is restored data: it is matched here and never shown.

use super::{Answer, CheckError, Ran, Restored};
use crate::domain::{ByteSize, Finding, FindingKind};

/// How far beyond a match an anchor or word boundary may look: one character.
const LONGEST_LOOK: usize = 4;

pub(super) async fn ask(
    name: &str,
    command: &[String],
    exit: i32,
    stdout: Option<&str>,
    restored: &Restored<'_>,
) -> Result<Answer, CheckError> {
    let expected = match stdout {
        Some(_) => format!("exit status {exit} and standard output that matches"),
        None => format!("exit status {exit}"),
    };
    let failed = |observed: String| Answer {
        expected: expected.clone(),
        assertions: 1,
        findings: vec![Finding::backup(name, FindingKind::CheckFailed { expected: expected.clone(), observed: observed.clone() })],
        observed,
        ..Answer::default()
    };
    match restored.programs.run(command).await.map_err(CheckError::Sandbox)? {
        Ran::Exited { status, .. } if status != exit => Ok(failed(format!("exit status {status}"))),
        Ran::Exited { status, stdout: output, truncated } => {
            let Some(pattern) = stdout else {
                return Ok(Answer { expected, observed: format!("exit status {status}"), assertions: 1, ..Answer::default() });
            };
            let pattern = regex::bytes::Regex::new(pattern).map_err(|e| CheckError::Sandbox(e.to_string()))?;
            // what ends before the cut stands in the whole output as well; what leans on the end of a cut-off one proves nothing
            let within = output.len().saturating_sub(if truncated { LONGEST_LOOK } else { 0 });
            if pattern.shortest_match(&output).is_some_and(|end| end <= within) {
                Ok(Answer { expected, observed: format!("exit status {status}, output matches"), assertions: 2, ..Answer::default() })
            } else if truncated {
                Err(CheckError::Limit { limit: "output".to_owned(), value: ByteSize(output.len() as u64).to_string() })
            } else {
                Ok(failed(format!("exit status {status}, output does not match")))
            }
        }
        Ran::Killed { signal } => Ok(failed(format!("ended by signal {signal}"))),
        Ran::NotStarted { reason } => Err(CheckError::NotStarted(reason)),
        Ran::Limit { limit, value } => Err(CheckError::Limit { limit, value }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Answers, MemoryTree, restored};
    use super::*;

    async fn run(ran: Result<Ran, String>, stdout: Option<&str>) -> Result<Answer, CheckError> {
        let (tree, programs) = (MemoryTree::of(vec![]), Answers(ran));
        ask("c", &["x".into()], 0, stdout, &restored(&tree, &programs)).await
    }

    fn exited(status: i32, stdout: &str) -> Result<Ran, String> {
        Ok(Ran::Exited { status, stdout: stdout.into(), truncated: false })
    }

    #[tokio::test]
    async fn status_and_output_decide() {
        assert!(run(exited(0, "ok\n"), Some("^ok")).await.unwrap().findings.is_empty());
        assert_eq!(run(exited(1, "ok\n"), Some("^ok")).await.unwrap().findings.len(), 1);
        assert_eq!(run(exited(0, "no\n"), Some("^ok")).await.unwrap().findings.len(), 1);
        assert_eq!(run(Ok(Ran::Killed { signal: 11 }), None).await.unwrap().findings.len(), 1);
    }

    #[tokio::test]
    async fn what_could_not_run_is_no_answer() {
        assert!(run(Err("gone".into()), None).await.is_err());
        assert!(run(Ok(Ran::NotStarted { reason: "no such program".into() }), None).await.is_err());
        assert!(run(Ok(Ran::Limit { limit: "memory".into(), value: "1 GiB".into() }), None).await.is_err());
    }

    #[tokio::test]
    async fn output_that_is_cut_off_is_judged_only_by_what_the_cut_cannot_change() {
        let cut = |stdout: &str| Ok(Ran::Exited { status: 0, stdout: stdout.into(), truncated: true });
        assert!(run(cut("ok and so on"), Some("^ok.*")).await.unwrap().findings.is_empty());
        for pattern in ["on$", "^ok and so on", "never", "(?s)^ok.*$"] {
            let error = run(cut("ok and so on"), Some(pattern)).await.unwrap_err();
            assert!(matches!(&error, CheckError::Limit { limit, value } if limit == "output" && value == "12 B"), "{pattern}: {error:?}");
        }
    }

    #[tokio::test]
    async fn output_never_reaches_the_answer() {
        let answer = run(exited(0, "Jane Doe"), Some("^ok")).await.unwrap();
        assert!(!format!("{answer:?}").contains("Jane"));
    }
}
