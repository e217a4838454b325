//! `fhir`: the resources of a FHIR store (R4), as bulk exports (NDJSON) and single files (JSON) hold them.
//!
//! Read as they come, one resource at a time: of a resource only its type and id are remembered, as sixteen bytes, and of a
//! reference whose target was not met yet the same. Nothing that is read here is shown.

mod reference;
mod resource;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use serde::de::DeserializeSeed;
use serde_json::error::Category;

use self::reference::{Target, target};
use self::resource::{Resource, Seed};
use super::records::{Key, Verdicts, Wrongs, enough_room, files, key};
use super::{Answer, CheckError, Restored};
use crate::domain::{Cause, Comparison, FhirStore, Finding, FindingKind, RecordProblem, RestorePath, Timestamp};

/// The longest resource of an NDJSON file.
const MAX_LINE: u64 = 64 << 20;

pub(super) fn ask(
    name: &str,
    pattern: &str,
    resources: &BTreeMap<String, Comparison>,
    store: &FhirStore,
    restored: &Restored<'_>,
) -> Result<Answer, CheckError> {
    let mut reading = Reading {
        store,
        counts: resources.keys().map(|kind| (kind.as_str(), 0)).collect(),
        wrongs: Wrongs::new(restored),
        paths: Vec::new(),
        known: HashSet::new(),
        awaited: HashMap::new(),
        total: 0,
        references: 0,
        elsewhere: 0,
        newest: None,
    };
    let found = files(pattern, restored, |path, _, file| {
        reading.paths.push(path.clone());
        let lines = [&b".ndjson"[..], b".jsonl"].iter().any(|end| path.as_bytes().to_ascii_lowercase().ends_with(end));
        if lines { reading.lines(path, file) } else { reading.document(path, file) }
    })?;
    Ok(reading.answer(name, resources, found, restored.started))
}

/// Whether a word can be a resource type.
pub fn is_type(word: &str) -> bool {
    reference::is_type(word)
}

/// A reference whose target was not met yet: where the first one stands, and how many there are.
struct Awaited {
    file: u32,
    place: u64,
    count: u64,
}

struct Reading<'a> {
    store: &'a FhirStore,
    counts: BTreeMap<&'a str, u64>,
    wrongs: Wrongs<'a>,
    paths: Vec<RestorePath>,
    known: HashSet<Key>,
    awaited: HashMap<Key, Awaited>,
    total: u64,
    references: u64,
    elsewhere: u64,
    newest: Option<Timestamp>,
}

impl Reading<'_> {
    /// A resource a line.
    fn lines(&mut self, path: &RestorePath, file: File) -> Result<(), CheckError> {
        let mut reader = BufReader::with_capacity(256 << 10, file);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n') {
                return Err(CheckError::TooLarge(format!("a resource is larger than {MAX_LINE} bytes")));
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let mut resource = Resource::default();
            let mut json = serde_json::Deserializer::from_slice(&line);
            match Seed::resource(&mut resource).deserialize(&mut json).and_then(|()| json.end()) {
                Ok(()) => self.see(path, number, resource)?,
                Err(error) => self.broken(path, number, &error)?,
            }
        }
        Ok(())
    }

    /// One resource, or several one after the other.
    fn document(&mut self, path: &RestorePath, file: File) -> Result<(), CheckError> {
        let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(256 << 10, file));
        for number in 1.. {
            let mut resource = Resource::default();
            match Seed::resource(&mut resource).deserialize(&mut json) {
                Ok(()) => self.see(path, number, resource)?,
                Err(error) => return self.broken(path, number, &error),
            }
            if json.end().is_ok() {
                break;
            }
        }
        Ok(())
    }

    fn broken(&mut self, path: &RestorePath, place: u64, error: &serde_json::Error) -> Result<(), CheckError> {
        let problem = match error.classify() {
            Category::Io => return Err(CheckError::Tree(io::Error::from(error.io_error_kind().unwrap_or(io::ErrorKind::Other)))),
            Category::Eof => RecordProblem::Truncated,
            Category::Syntax | Category::Data => RecordProblem::Unreadable,
        };
        self.wrongs.add(problem, path, place);
        Ok(())
    }

    /// A resource of the store; of a collection of resources, those in it.
    fn see(&mut self, path: &RestorePath, place: u64, resource: Resource) -> Result<(), CheckError> {
        let collects = matches!(resource.bundle.as_deref(), Some("searchset" | "collection" | "history" | "batch" | "transaction"));
        let is_bundle = resource.kind.as_deref() == Some("Bundle");
        if !(is_bundle && collects) {
            self.count(path, place, &resource)?;
        }
        self.follow(&resource, &Inside::default(), place)?;
        if is_bundle {
            let mut inside = Inside::default();
            for (url, entry) in &resource.entries {
                inside.urls.extend(url.as_deref());
                inside.ids.extend(entry.kind.as_deref().zip(entry.id.as_deref()));
            }
            for (_, entry) in &resource.entries {
                if collects {
                    self.count(path, place, entry)?;
                }
                self.follow(entry, &inside, place)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, path: &RestorePath, place: u64, resource: &Resource) -> Result<(), CheckError> {
        let (Some(kind), Some(id)) = (resource.kind.as_deref(), resource.id.as_deref()) else {
            self.wrongs.add(RecordProblem::Unreadable, path, place);
            return Ok(());
        };
        if !reference::is_type(kind) || !reference::is_id(id) {
            self.wrongs.add(RecordProblem::Unreadable, path, place);
            return Ok(());
        }
        self.total += 1;
        if let Some(count) = self.counts.get_mut(kind) {
            *count += 1;
        }
        let key = key(&[kind.as_bytes(), id.as_bytes()]);
        if !self.known.insert(key) {
            self.wrongs.add(RecordProblem::Duplicate, path, format_args!("{place}: {kind}/{id}"));
        }
        self.awaited.remove(&key);
        self.newest = self.newest.max(resource.last_updated);
        enough_room(self.known.len() + self.awaited.len())
    }

    fn follow(&mut self, resource: &Resource, inside: &Inside<'_>, place: u64) -> Result<(), CheckError> {
        for reference in &resource.references {
            self.references += 1;
            if inside.urls.contains(reference.as_str()) {
                continue;
            }
            let dangling = match target(reference, &self.store.bases) {
                Target::Itself => None,
                Target::Contained(id) => (!resource.contained.iter().any(|known| known == id)).then(|| key(&[b"#", id.as_bytes()])),
                Target::Elsewhere => {
                    self.elsewhere += 1;
                    None
                }
                Target::Nowhere => Some(key(&[b"?", reference.as_bytes()])),
                Target::Store { kind, id } => {
                    let key = key(&[kind.as_bytes(), id.as_bytes()]);
                    if self.known.contains(&key) || inside.ids.contains(&(kind, id)) {
                        None
                    } else if self.store.elsewhere.contains(kind) || self.store.elsewhere.contains(&format!("{kind}/{id}")) {
                        self.elsewhere += 1;
                        None
                    } else {
                        Some(key)
                    }
                }
            };
            if let Some(key) = dangling {
                let file = (self.paths.len() - 1) as u32;
                self.awaited.entry(key).or_insert(Awaited { file, place, count: 0 }).count += 1;
            }
        }
        enough_room(self.known.len() + self.awaited.len())
    }

    fn answer(mut self, name: &str, wanted: &BTreeMap<String, Comparison>, found: u64, started: Timestamp) -> Answer {
        let mut awaited: Vec<Awaited> = self.awaited.into_values().collect();
        awaited.sort_unstable_by_key(|a| (a.file, a.place));
        for Awaited { file, place, count } in awaited {
            self.wrongs.add_many(RecordProblem::Dangling, count, &self.paths[file as usize], place);
        }
        let mut answer = Verdicts::new(name);
        if wanted.is_empty() || self.total == 0 {
            answer.assert("resources".into(), format!("{} resources in {found} files", self.total), self.total > 0);
        } else {
            answer.asked("resources that parse", format!("{} in {found} files", self.total));
        }
        for (kind, comparison) in wanted {
            answer.compare(kind, *comparison, self.counts[kind.as_str()]);
        }
        if self.total > 0 {
            answer.asked("none of them twice", format!("{} twice", self.wrongs.count(RecordProblem::Duplicate)));
        }
        if self.references > 0 {
            let dangling = self.wrongs.count(RecordProblem::Dangling);
            answer.asked(
                "references that resolve",
                format!("{} references, {} of them to other stores, {dangling} to nothing", self.references, self.elsewhere),
            );
        }
        if self.total > 0 && self.newest.is_none() {
            let detail = "no resource says when it was last updated (meta.lastUpdated), so none dates the data".to_owned();
            answer.found(Finding::warning(name, Cause::Backup, FindingKind::Remark { detail }));
        }
        answer.date(self.newest, started);
        answer.finish(self.wrongs)
    }
}

/// What references find in the bundle that they stand in.
#[derive(Default)]
struct Inside<'a> {
    urls: HashSet<&'a str>,
    ids: HashSet<(&'a str, &'a str)>,
}

#[cfg(test)]
mod tests {
    use super::super::testing::{MemoryTree, no_programs, restored};
    use super::*;

    fn asked(files: &[(&str, &str)], store: &FhirStore) -> Answer {
        let tree = MemoryTree::with_content(files);
        let resources = [("Patient".to_owned(), ">= 1".parse().unwrap())].into();
        ask("fhir", "**", &resources, store, &restored(&tree, &no_programs())).unwrap()
    }

    fn problems(answer: &Answer) -> Vec<(RecordProblem, u64)> {
        let wrong = |f: &Finding| match f.kind {
            FindingKind::RecordsWrong { problem, count, .. } => Some((problem, count)),
            _ => None,
        };
        answer.findings.iter().filter_map(wrong).collect()
    }

    const PATIENT: &str = r#"{"resourceType":"Patient","id":"p","meta":{"lastUpdated":"1970-01-12T00:00:00.000Z"}}"#;

    #[test]
    fn a_store_is_counted_followed_and_dated() {
        let observation = r##"{"id":"o","resourceType":"Observation","subject":{"reference":"Patient/p"},"contained":[{"resourceType":"Device","id":"d","owner":{"reference":"#"}}],
            "device":{"reference":"#d"},"performer":[{"reference":"https://ehr.example.org/fhir/Patient/p/_history/2"},{"reference":"https://other.example.org/Practitioner/x"},{"reference":"Organization/hq"}],
            "meta":{"lastUpdated":"1970-01-11T00:00:00Z"}}"##.replace('\n', " ");
        let store = FhirStore { bases: vec!["https://ehr.example.org/fhir".into()], elsewhere: ["Organization/hq".to_owned()].into() };
        // the patient comes after the one who refers to him
        let answer = asked(&[("a/Observation.ndjson", &format!("{observation}\n\n")), ("b/p.json", PATIENT)], &store);
        assert!(answer.findings.iter().all(|f| matches!(f.kind, FindingKind::DataAsOf { .. })), "{answer:?}");
        assert_eq!(answer.newest, Some(Timestamp::from_unix(950_400)));
        assert!(answer.observed.contains("2 in 2 files") && answer.observed.contains("6 references, 2 of them"), "{}", answer.observed);
        assert_eq!(answer.assertions, 4);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_kind() {
        let lines = [
            PATIENT,
            PATIENT,
            r##"{"resourceType":"Observation","id":"o","subject":{"reference":"Patient/q"},"device":{"reference":"#d"}}"##,
            r#"{"resourceType":"Observation","id":"o2","subject":{"reference":"Patient/q"},"encounter":{"reference":"yesterday"}}"#,
            r#"{"resourceType":"Observation"}"#,
            r#"["no resource"]"#,
            "no json",
            r#"{"resourceType":"Observation","id":"o3","sub"#,
        ];
        let answer = asked(&[("x.ndjson", &lines.join("\n"))], &FhirStore::default());
        let wanted =
            [(RecordProblem::Unreadable, 3), (RecordProblem::Truncated, 1), (RecordProblem::Duplicate, 1), (RecordProblem::Dangling, 4)];
        assert_eq!(problems(&answer), wanted, "{answer:?}");
        let FindingKind::RecordsWrong { examples, .. } = &answer.findings.last().unwrap().kind else { panic!() };
        assert_eq!(examples[0].0, "x.ndjson: 3");
    }

    #[test]
    fn types_that_are_missing_are_missed() {
        let answer = asked(&[("x.ndjson", r#"{"resourceType":"Observation","id":"o"}"#)], &FhirStore::default());
        assert!(answer.findings.iter().any(|f| matches!(&f.kind, FindingKind::CheckFailed { observed, .. } if observed == "Patient 0")));
        assert!(answer.findings.iter().any(|f| matches!(f.kind, FindingKind::Remark { .. })));
        assert_eq!(asked(&[], &FhirStore::default()).findings.len(), 2);
    }

    #[test]
    fn bundles_hold_resources_and_resolve_what_they_hold() {
        let bundle = |kind: &str| {
            format!(
                r#"{{"resourceType":"Bundle","id":"b","type":"{kind}","entry":[
                {{"fullUrl":"urn:uuid:1","resource":{{"resourceType":"Patient","id":"p"}}}},
                {{"resource":{{"resourceType":"Observation","id":"o","subject":{{"reference":"urn:uuid:1"}},"focus":[{{"reference":"Patient/p"}}]}}}}]}}"#
            )
        };
        let answer = asked(&[("x.json", &bundle("collection"))], &FhirStore::default());
        assert!(problems(&answer).is_empty() && answer.observed.contains("2 in 1 files, Patient 1"), "{answer:?}");
        // a document is one resource, and closed in itself
        let answer = asked(&[("x.json", &format!("{}{PATIENT}", bundle("document")))], &FhirStore::default());
        assert!(problems(&answer).is_empty() && answer.observed.contains("2 in 1 files, Patient 1"), "{answer:?}");
        let alone = r#"{"resourceType":"Observation","id":"o","subject":{"reference":"urn:uuid:1"}}"#;
        assert_eq!(problems(&asked(&[("x.json", alone), ("y.json", PATIENT)], &FhirStore::default())), [(RecordProblem::Dangling, 1)]);
    }
}
