//! `integrity`: what a restored database's own programs say of its files, keys and indexes.

use super::baseline::EXAMPLES;
use super::{Answer, CheckError, Restored, no_answer};
use crate::domain::{DatabaseRef, Finding, FindingKind, IntegrityDepth};

pub(super) async fn ask(name: &str, of: &DatabaseRef, depth: IntegrityDepth, restored: &Restored<'_>) -> Result<Answer, CheckError> {
    let expected = match depth {
        IntegrityDepth::Quick => "no damage, as far as one pass shows it",
        IntegrityDepth::Full => "no damage, as deep as the engine looks",
    };
    let answer = match restored.databases.integrity(of, depth).await {
        Ok(answer) => answer,
        Err(error) => return no_answer(name, expected, error),
    };
    let damaged = answer.damaged.len() as u64;
    let observed =
        format!("{} by {}: {} tables and indexes looked at, {damaged} damaged", depth_word(depth), answer.asked, answer.examined);
    let mut findings = Vec::new();
    if damaged > 0 {
        let kind = FindingKind::IntegrityBroken {
            asked: answer.asked,
            examined: answer.examined,
            damaged,
            examples: answer.damaged.iter().take(EXAMPLES).map(|table| restored.names.name(table)).collect(),
            output: (!answer.output.is_empty()).then(|| restored.names.output(&answer.output)),
        };
        findings.push(Finding::backup(name, kind));
    } else if answer.examined == 0 {
        let kind = FindingKind::CheckFailed { expected: "something to look at".to_owned(), observed: "nothing".to_owned() };
        findings.push(Finding::backup(name, kind));
    }
    Ok(Answer { expected: expected.to_owned(), observed, assertions: 1, findings, ..Answer::default() })
}

const fn depth_word(depth: IntegrityDepth) -> &'static str {
    match depth {
        IntegrityDepth::Quick => "quick",
        IntegrityDepth::Full => "full",
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Database, MemoryTree, no_programs, restored};
    use super::*;
    use crate::domain::IntegrityAnswer;

    async fn asked(answer: IntegrityAnswer) -> Answer {
        let (tree, programs, database) = (MemoryTree::of(vec![]), no_programs(), Database { integrity: answer, ..Database::silent() });
        let restored = Restored { databases: &database, ..restored(&tree, &programs) };
        ask("integrity", &DatabaseRef::default(), IntegrityDepth::Full, &restored).await.unwrap()
    }

    #[tokio::test]
    async fn damage_fails_and_so_does_nothing_to_look_at() {
        let good = IntegrityAnswer { asked: "x".into(), examined: 3, ..IntegrityAnswer::default() };
        assert!(asked(good.clone()).await.findings.is_empty());
        let bad = asked(IntegrityAnswer { damaged: vec!["ehr.patient".into()], output: b"ehr.patient".to_vec(), ..good }).await;
        assert!(matches!(bad.findings[0].kind, FindingKind::IntegrityBroken { damaged: 1, .. }));
        assert!(!format!("{bad:?}").contains("ehr.patient"));
        assert_eq!(asked(IntegrityAnswer::default()).await.findings.len(), 1);
    }
}
