//! `schema`: the objects of a restored database, counted and compared by name and definition with a baseline.

use std::collections::{BTreeMap, BTreeSet};

use super::baseline::{self, EXAMPLES, Found, Then};
use super::{Answer, CheckError, Restored, no_answer};
use crate::domain::{BaselineSource, Cause, DatabaseRef, Deviations, Finding, FindingKind, ObjectClass, Observed, Severity};

pub(super) async fn ask(
    name: &str,
    of: &DatabaseRef,
    source: &BaselineSource,
    ignore: &BTreeSet<ObjectClass>,
    additional: Severity,
    restored: &Restored<'_>,
) -> Result<Answer, CheckError> {
    let expected = format!("every object as {} has it", baseline::words(source));
    let objects = match restored.databases.objects(of).await {
        Ok(objects) => objects,
        Err(error) => return no_answer(name, &expected, error),
    };
    let now = Observed::of_objects(&objects, ignore);
    let fails = |observed: &str| {
        let kind = FindingKind::CheckFailed { expected: expected.clone(), observed: observed.to_owned() };
        Answer {
            expected: expected.clone(),
            observed: observed.to_owned(),
            assertions: 1,
            findings: vec![Finding::backup(name, kind)],
            ..Answer::default()
        }
    };
    if now.is_empty() {
        return Ok(fails("a database without any object"));
    }
    let counts = in_words(&now);
    match baseline::find(name, of, source, restored)? {
        Found::NotRestored(what) => Ok(fails(what)),
        Found::NotYet(why) => {
            let findings = vec![baseline::captured(name, why)];
            Ok(Answer { expected, observed: counts, findings, seen: Some(now), ..Answer::default() })
        }
        Found::Then(then) => compare(name, expected, &then, now, ignore, additional, restored),
    }
}

fn compare(
    name: &str,
    expected: String,
    then: &Then,
    now: Observed,
    ignore: &BTreeSet<ObjectClass>,
    additional: Severity,
    restored: &Restored<'_>,
) -> Result<Answer, CheckError> {
    let found = Deviations::of_objects(&then.observed, &then.comparable(&now, restored.names), ignore);
    if found.compared == 0 {
        return Err(CheckError::NotAsked(format!("{} has no objects of the classes that are compared", then.called)));
    }
    let examples = |lists: &[&[(ObjectClass, String)]]| {
        lists.iter().flat_map(|l| l.iter()).take(EXAMPLES).map(|(_, n)| then.example(n, restored.names)).collect::<Vec<_>>()
    };
    let mut findings = Vec::new();
    if !found.missing.is_empty() || !found.changed.is_empty() {
        let kind = FindingKind::SchemaDiffers {
            baseline: then.called.clone(),
            compared: found.compared,
            missing: by_class(&found.missing),
            changed: by_class(&found.changed),
            additional: BTreeMap::new(),
            examples: examples(&[&found.missing, &found.changed]),
        };
        findings.push(Finding::backup(name, kind));
    }
    if !found.additional.is_empty() {
        let kind = FindingKind::SchemaDiffers {
            baseline: then.called.clone(),
            compared: found.compared,
            missing: BTreeMap::new(),
            changed: BTreeMap::new(),
            additional: by_class(&found.additional),
            examples: examples(&[&found.additional]),
        };
        findings.push(Finding { check: name.to_owned(), severity: additional, cause: Cause::Backup, kind });
    }
    let (missing, changed, more) = (found.missing.len(), found.changed.len(), found.additional.len());
    let observed =
        format!("{}; of {} of {}: {missing} missing, {changed} changed, {more} additional", in_words(&now), found.compared, then.called);
    let compared_with = then.drill.clone();
    Ok(Answer { expected, observed, assertions: 1, findings, newest: None, seen: Some(now), compared_with })
}

fn by_class(names: &[(ObjectClass, String)]) -> BTreeMap<ObjectClass, u64> {
    let mut counts = BTreeMap::new();
    for (class, _) in names {
        *counts.entry(*class).or_default() += 1;
    }
    counts
}

fn in_words(observed: &Observed) -> String {
    observed.objects.iter().map(|(class, objects)| format!("{} {}", objects.len(), class.word())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Database, MemoryTree, last_drill, no_programs, restored};
    use super::*;
    use crate::domain::{LastDrill, Observations, SchemaObject};

    fn object(class: ObjectClass, name: &str, definition: &str) -> SchemaObject {
        SchemaObject { class, name: name.into(), definition: definition.into() }
    }

    fn full() -> Vec<SchemaObject> {
        vec![
            object(ObjectClass::Table, "patient", "r"),
            object(ObjectClass::Index, "patient_name", "btree (name)"),
            object(ObjectClass::View, "adults", "select"),
        ]
    }

    async fn asked(objects: Vec<SchemaObject>, last: Option<&LastDrill>) -> Answer {
        let (tree, programs) = (MemoryTree::of(vec![]), no_programs());
        let database = Database { objects, ..Database::silent() };
        let restored = Restored { databases: &database, last: Ok(last), ..restored(&tree, &programs) };
        ask("schema", &DatabaseRef::default(), &BaselineSource::LastPassed, &BTreeSet::new(), Severity::Warn, &restored).await.unwrap()
    }

    async fn baseline_of(objects: Vec<SchemaObject>) -> LastDrill {
        let first = asked(objects, None).await;
        assert_eq!((first.assertions, first.findings[0].severity), (0, Severity::Note), "the first drill asserts nothing");
        let (tree, programs) = (MemoryTree::of(vec![]), no_programs());
        let seen = baseline::keyed(&first.seen.unwrap(), restored(&tree, &programs).names);
        last_drill(Observations { checks: [("schema".to_owned(), seen)].into() })
    }

    #[tokio::test]
    async fn what_is_missing_or_changed_fails_and_what_is_more_warns() {
        let last = baseline_of(full()).await;
        let same = asked(full(), Some(&last)).await;
        assert_eq!((same.assertions, same.findings.len()), (1, 0), "{}", same.observed);
        let mut fewer = full();
        fewer.pop();
        fewer[1].definition = "btree (id)".into();
        let answer = asked(fewer, Some(&last)).await;
        let FindingKind::SchemaDiffers { missing, changed, .. } = &answer.findings[0].kind else { panic!("{answer:?}") };
        assert_eq!((missing, changed), (&[(ObjectClass::View, 1)].into(), &[(ObjectClass::Index, 1)].into()));
        assert!(!format!("{answer:?}", answer = answer.findings).contains("patient_name"));
        let mut more = full();
        more.push(object(ObjectClass::Table, "new", "r"));
        let answer = asked(more, Some(&last)).await;
        assert_eq!((answer.findings.len(), answer.findings[0].severity), (1, Severity::Warn));
    }

    #[tokio::test]
    async fn nothing_is_never_the_same_as_nothing() {
        let last = last_drill(Observations { checks: [("schema".to_owned(), Observed::default())].into() });
        let answer = asked(vec![], Some(&last)).await;
        assert_eq!(answer.findings[0].severity, Severity::Fail);
    }
}
