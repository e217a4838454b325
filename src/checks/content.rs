//! `content`: the rows of restored tables, whatever their order, against a baseline or another restored database.

use super::baseline::{self, EXAMPLES, Found};
use super::{Answer, CheckError, Restored, no_answer};
use crate::domain::{ContentAgainst, DatabaseRef, Deviations, Finding, FindingKind, Observed, Pseudonym, Sample, TableSeen};

pub(super) async fn ask(
    name: &str,
    of: &DatabaseRef,
    tables: &[String],
    against: &ContentAgainst,
    sample: Option<Sample>,
    restored: &Restored<'_>,
) -> Result<Answer, CheckError> {
    let expected = match against {
        ContentAgainst::Baseline(source) => format!("the rows that {} has", baseline::words(source)),
        ContentAgainst::Same(_) => "the rows that the other database has".to_owned(),
    };
    let now = match restored.databases.fingerprints(of, tables, sample).await {
        Ok(found) => Observed::of_fingerprints(&found, sample),
        Err(error) => return no_answer(name, &expected, error),
    };
    let told = in_words(&now, sample);
    let fails = |observed: &str| {
        let kind = FindingKind::CheckFailed { expected: expected.clone(), observed: observed.to_owned() };
        let findings = vec![Finding::backup(name, kind)];
        Answer { expected: expected.clone(), observed: observed.to_owned(), assertions: 1, findings, ..Answer::default() }
    };
    if now.rows() == 0 {
        return Ok(fails("tables without a row"));
    }
    match against {
        ContentAgainst::Same(other) => {
            let engine = |of: &DatabaseRef| restored.databases.engine(of.service.as_deref()).map_err(CheckError::NotAsked);
            if engine(of)? != engine(other)? {
                return Err(CheckError::NotAsked("databases of two kinds write the same rows in two ways".to_owned()));
            }
            let there = match restored.databases.fingerprints(other, tables, sample).await {
                Ok(found) => Observed::of_fingerprints(&found, sample),
                Err(error) => return no_answer(name, &expected, error),
            };
            let example = |table: &str| restored.names.name(table);
            let found = Deviations::of_tables(&there, &now).both_ways();
            compare(name, expected, "the other database", &found, (&there, &now), told, &example)
        }
        ContentAgainst::Baseline(source) => match baseline::find(name, of, source, restored)? {
            Found::NotRestored(what) => Ok(fails(what)),
            Found::NotYet(why) => {
                let findings = vec![baseline::captured(name, why)];
                Ok(Answer { expected, observed: told, findings, seen: Some(now), ..Answer::default() })
            }
            Found::Then(then) => {
                let comparable = then.comparable(&now, restored.names);
                let mut there = then.observed.clone();
                if !tables.is_empty() {
                    there.tables.retain(|table, _| comparable.tables.contains_key(table));
                    let unknown = comparable.tables.len() - there.tables.len();
                    if unknown > 0 {
                        return Err(CheckError::NotAsked(format!("{} does not have {unknown} of the tables", then.called)));
                    }
                }
                let example = |table: &str| then.example(table, restored.names);
                let found = Deviations::of_tables(&there, &comparable);
                let answer = compare(name, expected, &then.called, &found, (&there, &comparable), told, &example)?;
                Ok(Answer { seen: Some(now), compared_with: then.drill.clone(), ..answer })
            }
        },
    }
}

fn compare(
    name: &str,
    expected: String,
    called: &str,
    found: &Deviations,
    (there, here): (&Observed, &Observed),
    told: String,
    example: &dyn Fn(&str) -> Pseudonym,
) -> Result<Answer, CheckError> {
    let otherwise = |table: &str, seen: &TableSeen| {
        let here = here.tables.get(table);
        seen.digest.is_none() || here.is_some_and(|here| here.per_million != seen.per_million)
    };
    if there.tables.iter().any(|(table, seen)| otherwise(table, seen)) {
        return Err(CheckError::NotAsked(format!("{called} has its tables counted, or sampled in another way, and that does not compare")));
    }
    if found.compared == 0 {
        return Err(CheckError::NotAsked(format!("{called} has no tables to compare with")));
    }
    let rows = |of: &Observed| {
        let differing = found.missing.iter().chain(&found.changed);
        differing.filter_map(|(_, table)| of.tables.get(table)).map(|seen| seen.rows).sum::<u64>()
    };
    let (missing, changed) = (found.missing.len() as u64, found.changed.len() as u64);
    let mut findings = Vec::new();
    if missing + changed > 0 {
        let examples = found.missing.iter().chain(&found.changed).take(EXAMPLES).map(|(_, table)| example(table)).collect();
        let kind = FindingKind::ContentDiffers {
            baseline: called.to_owned(),
            compared: found.compared,
            missing,
            changed,
            rows_expected: rows(there),
            rows_found: rows(here),
            examples,
        };
        findings.push(Finding::backup(name, kind));
    }
    let observed = format!("{told}; of {} tables of {called}: {missing} missing, {changed} with other rows", found.compared);
    Ok(Answer { expected, observed, assertions: 1, findings, ..Answer::default() })
}

fn in_words(observed: &Observed, sample: Option<Sample>) -> String {
    let counted = format!("{} rows of {} tables counted", observed.rows(), observed.tables.len());
    match sample {
        None => format!("{counted}, every one of them hashed"),
        Some(sample) => format!("{counted}, {}", confidence(sample)),
    }
}

/// What a sample can miss: k altered rows all stay outside of it with probability (1 - p)^k.
fn confidence(sample: Sample) -> String {
    let p = f64::from(sample.per_million) / 1e6;
    let needed = if p >= 1.0 { 1.0 } else { (0.05_f64.ln() / (1.0 - p).ln()).ceil() };
    format!(
        "{}% of them hashed, the same at every drill: one altered row is met with a probability of {}%, {needed} altered rows with 95%",
        p * 100.0,
        p * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Database, MemoryTree, last_drill, no_programs, restored};
    use super::*;
    use crate::domain::{BaselineSource, Fingerprint, Observations, Severity};

    async fn asked(tables: &[(&str, u64, &str)], last: Option<&Observations>, sample: Option<u32>) -> Result<Answer, CheckError> {
        let (tree, programs) = (MemoryTree::of(vec![]), no_programs());
        let prints = tables.iter().map(|(n, rows, d)| ((*n).to_owned(), Fingerprint { rows: *rows, digest: (*d).to_owned() })).collect();
        let database = Database { prints, ..Database::silent() };
        let last = last.map(|observations| last_drill(observations.clone()));
        let restored = Restored { databases: &database, last: Ok(last.as_ref()), ..restored(&tree, &programs) };
        let against = ContentAgainst::Baseline(BaselineSource::LastPassed);
        let sample = sample.map(|per_million| Sample { per_million });
        let mut answer = ask("content", &DatabaseRef::default(), &[], &against, sample, &restored).await?;
        answer.seen = answer.seen.map(|seen| baseline::keyed(&seen, restored.names));
        Ok(answer)
    }

    async fn observations(tables: &[(&str, u64, &str)]) -> Observations {
        let first = asked(tables, None, None).await.unwrap();
        assert_eq!((first.assertions, first.findings[0].severity), (0, Severity::Note));
        Observations { checks: [("content".to_owned(), first.seen.unwrap())].into() }
    }

    #[tokio::test]
    async fn other_rows_fail_with_their_counts() {
        let then = observations(&[("a", 3, "x"), ("b", 5, "y")]).await;
        assert!(asked(&[("a", 3, "x"), ("b", 5, "y"), ("c", 1, "z")], Some(&then), None).await.unwrap().findings.is_empty());
        let answer = asked(&[("a", 2, "w")], Some(&then), None).await.unwrap();
        let FindingKind::ContentDiffers { missing, changed, rows_expected, rows_found, .. } = &answer.findings[0].kind else { panic!() };
        assert_eq!((missing, changed, rows_expected, rows_found), (&1, &1, &8, &2));
        // as many rows, and another one among them
        assert_eq!(asked(&[("a", 3, "w"), ("b", 5, "y")], Some(&then), None).await.unwrap().findings.len(), 1);
    }

    #[tokio::test]
    async fn empty_against_empty_and_apples_against_pears_prove_nothing() {
        let then = observations(&[("a", 3, "x")]).await;
        assert_eq!(asked(&[("a", 0, "0")], Some(&then), None).await.unwrap().findings[0].severity, Severity::Fail);
        assert!(asked(&[("a", 3, "x")], Some(&then), Some(10_000)).await.is_err());
    }

    #[test]
    fn a_sample_says_what_it_can_miss() {
        let text = confidence(Sample { per_million: 10_000 });
        assert!(text.contains("1% of them hashed") && text.contains("299 altered rows with 95%"), "{text}");
        assert!(confidence(Sample { per_million: 1_000_000 }).contains("1 altered rows"));
    }
}
