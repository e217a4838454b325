//! `canary`: the nonce that `firedrill canary` planted before the backup, found in what was restored.
//!
//! What it must be is remembered outside of the backup. A value that was never planted, and one that was but is not the newest that the
//! backup can have, both fail: a constant canary, or one compared with its own copy, proves nothing.

use std::io::Read;

use super::{Answer, CheckError, Restored, no_answer, sql};
use crate::domain::{CanarySource, CaptureSource, Finding, FindingKind, RestorePath};

/// Longer than any canary.
const LONGEST: u64 = 4096;

pub(super) async fn ask(name: &str, from: &CanarySource, restored: &Restored<'_>) -> Result<Answer, CheckError> {
    let expected = "the newest canary planted before the capture";
    if restored.canaries.is_empty() {
        let reason = "no canary was ever planted for this scenario from here: `firedrill canary` does, before each backup";
        return Err(CheckError::NotAsked(reason.to_owned()));
    }
    let found = match from {
        CanarySource::Query { of, query } => match restored.databases.query(of, query).await {
            Ok(rows) => sql::one_value(&rows).map_err(CheckError::NotAsked)?.map(str::to_owned),
            Err(error) => return no_answer(name, expected, error),
        },
        CanarySource::File { path } => read(path, restored)?,
    };
    let digest = found.map(|value| restored.names.keyed(value.trim()));
    let known = digest.as_ref().and_then(|digest| restored.canaries.iter().rev().find(|canary| canary.digest == *digest));
    // an upload time says nothing of when the data was captured
    let captured = restored.captured.filter(|(_, source)| *source != CaptureSource::UploadTime).map(|(at, _)| at);
    let newest = restored.canaries.iter().filter(|canary| captured.is_none_or(|at| canary.at <= at)).map(|canary| canary.at).max();
    let wrong = |observed: String| {
        let findings = vec![Finding::backup(name, FindingKind::CanaryMissing { observed: observed.clone() })];
        Answer { expected: expected.to_owned(), observed, assertions: 1, findings, ..Answer::default() }
    };
    Ok(match (known, digest) {
        (None, None) => wrong("no canary".to_owned()),
        (None, Some(_)) => wrong("a value that was never planted".to_owned()),
        (Some(canary), _) => match newest.filter(|newest| captured.is_some() && canary.at < *newest) {
            Some(newest) => Answer {
                newest: Some(canary.at),
                ..wrong(format!("the one of {}, and that of {} was planted before the capture", canary.at.to_human(), newest.to_human()))
            },
            None => Answer {
                expected: expected.to_owned(),
                observed: format!("the canary planted at {}", canary.at.to_human()),
                assertions: 1,
                newest: Some(canary.at),
                ..Answer::default()
            },
        },
    })
}

fn read(path: &str, restored: &Restored<'_>) -> Result<Option<String>, CheckError> {
    let path = RestorePath::from_bytes(path.as_bytes()).map_err(|e| CheckError::NotAsked(e.to_string()))?;
    let file = match restored.tree.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::super::Names;
    use super::super::testing::{MemoryTree, Plain, no_programs, restored};
    use super::*;
    use crate::domain::{PlantedCanary, Timestamp};

    async fn asked(content: Option<&str>, captured: i64) -> Result<Answer, CheckError> {
        let files: Vec<(&str, &str)> = content.map(|text| ("canary", text)).into_iter().collect();
        let (tree, programs) = (MemoryTree::with_content(&files), no_programs());
        let planted = |at: i64, nonce: &str| PlantedCanary { at: Timestamp::from_unix(at), digest: Plain.keyed(nonce) };
        let canaries = [planted(100, "one"), planted(200, "two"), planted(300, "three")];
        let captured = Some((Timestamp::from_unix(captured), CaptureSource::Manifest));
        let restored = Restored { canaries: &canaries, captured, ..restored(&tree, &programs) };
        ask("canary", &CanarySource::File { path: "canary".into() }, &restored).await
    }

    #[tokio::test]
    async fn the_newest_before_the_capture_must_be_there() {
        let good = asked(Some("two\n"), 250).await.unwrap();
        assert_eq!((good.findings.len(), good.newest), (0, Some(Timestamp::from_unix(200))));
        for (content, captured, why) in [
            (Some("two"), 350, "and that of"),
            (Some("four"), 250, "never planted"),
            (None, 250, "no canary"),
            (Some(""), 250, "no canary"),
        ] {
            let bad = asked(content, captured).await.unwrap();
            assert!(bad.findings.len() == 1 && bad.observed.contains(why), "{}", bad.observed);
        }
    }

    #[tokio::test]
    async fn where_nothing_was_planted_nothing_can_be_expected() {
        let (tree, programs) = (MemoryTree::with_content(&[("canary", "one")]), no_programs());
        let answer = ask("canary", &CanarySource::File { path: "canary".into() }, &restored(&tree, &programs)).await;
        assert!(matches!(answer, Err(CheckError::NotAsked(_))));
    }
}
