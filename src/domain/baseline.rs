//! What a drill observed of a database, and what a later one is compared with.
//!
//! A baseline that a site keeps says names as they are and definitions as digests. What a drill keeps in its evidence says both under
//! the runner's key: nobody without it can try names or rows out.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Blake3, DrillId, Elapsed, Engine, Fingerprint, ObjectClass, RestoredFacts, Sample, SchemaObject, SelectedPoint, Timestamp};

/// The schema of a baseline file.
pub const BASELINE_SCHEMA: &str = "firedrill.dev/baseline/v1";

/// The digest of a definition or of a table's content: 32 hexadecimal digits.
pub fn mark(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&blake3::hash(bytes).as_bytes()[..16])
}

/// What was observed of one database. Names are as the engine has them, or, under the runner's key, pseudonyms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// Digests of definitions by name, by class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: BTreeMap<ObjectClass, BTreeMap<String, String>>,
    /// Tables by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, TableSeen>,
}

/// What was observed of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TableSeen {
    /// Rows, counted.
    pub rows: u64,
    /// What stands for their content; absent where they were counted alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Of a million rows, so many were hashed; absent where all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_million: Option<u32>,
}

/// A baseline file: what a site observed of its own database, for drills to compare with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// [`BASELINE_SCHEMA`].
    pub schema: String,
    /// Which kind of database.
    pub engine: Engine,
    /// What the server said of its version.
    pub version: String,
    /// When it was observed.
    pub made_at: Timestamp,
    /// What was observed.
    pub observed: Observed,
}

/// What the checks of a drill observed, in its evidence: by check, under the runner's key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observations {
    /// By the check's name.
    pub checks: BTreeMap<String, Observed>,
}

/// What a check observed, summed up for its report; the whole is in the drill's file of observations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Seen {
    /// Objects by class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub objects: BTreeMap<ObjectClass, u64>,
    /// Tables that were counted or hashed.
    #[serde(default)]
    pub tables: u64,
    /// Their rows together.
    #[serde(default)]
    pub rows: u64,
    /// BLAKE3 of what the file has of this check.
    pub blake3: Blake3,
    /// The drill that it was compared with, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared_with: Option<DrillId>,
}

impl Observed {
    /// Objects by class, definitions as digests; what is not compared is not kept either.
    pub fn of_objects(objects: &[SchemaObject], ignore: &BTreeSet<ObjectClass>) -> Self {
        let mut observed = Self::default();
        for object in objects.iter().filter(|object| !ignore.contains(&object.class)) {
            let of_class = observed.objects.entry(object.class).or_default();
            // two of one name are one whose definition is both
            let digest = mark(object.definition.as_bytes());
            of_class.entry(object.name.clone()).and_modify(|other| *other = mark(format!("{other}{digest}").as_bytes())).or_insert(digest);
        }
        observed
    }
    /// Tables with their rows counted and hashed.
    pub fn of_fingerprints(found: &[(String, Fingerprint)], sample: Option<Sample>) -> Self {
        let seen = |print: &Fingerprint| TableSeen {
            rows: print.rows,
            digest: Some(mark(print.digest.as_bytes())),
            per_million: sample.map(|sample| sample.per_million),
        };
        Self { tables: found.iter().map(|(table, print)| (table.clone(), seen(print))).collect(), ..Self::default() }
    }
    /// Whether there is anything.
    pub fn is_empty(&self) -> bool {
        self.objects.values().all(BTreeMap::is_empty) && self.tables.is_empty()
    }
    /// Objects of all classes together.
    pub fn object_count(&self) -> u64 {
        self.objects.values().map(|of_class| of_class.len() as u64).sum()
    }
    /// Rows of all tables together.
    pub fn rows(&self) -> u64 {
        self.tables.values().fold(0, |sum, table| sum.saturating_add(table.rows))
    }
    /// The same under a key: `name` makes a pseudonym of a name, `digest` another digest of a digest.
    pub fn keyed(&self, name: &dyn Fn(&str) -> String, digest: &dyn Fn(&str) -> String) -> Self {
        let of_class = |objects: &BTreeMap<String, String>| objects.iter().map(|(n, d)| (name(n), digest(d))).collect();
        let of_table = |seen: &TableSeen| TableSeen { digest: seen.digest.as_deref().map(digest), ..seen.clone() };
        Self {
            objects: self.objects.iter().map(|(class, objects)| (*class, of_class(objects))).collect(),
            tables: self.tables.iter().map(|(n, seen)| (name(n), of_table(seen))).collect(),
        }
    }
    /// Summed up.
    pub fn seen(&self, compared_with: Option<DrillId>) -> Seen {
        Seen {
            objects: self.objects.iter().map(|(class, objects)| (*class, objects.len() as u64)).collect(),
            tables: self.tables.len() as u64,
            rows: self.rows(),
            blake3: self.blake3(),
            compared_with,
        }
    }
    /// BLAKE3 of its JSON.
    pub fn blake3(&self) -> Blake3 {
        Blake3(*blake3::hash(&serde_json::to_vec(self).expect("maps of strings and numbers")).as_bytes())
    }
}

/// Names that two observations do not have alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deviations {
    /// How many were compared.
    pub compared: u64,
    /// There then, and not now.
    pub missing: Vec<(ObjectClass, String)>,
    /// There then and now, and not the same.
    pub changed: Vec<(ObjectClass, String)>,
    /// There now, and not then.
    pub additional: Vec<(ObjectClass, String)>,
}

impl Deviations {
    /// Objects that were observed then, against those that are there now.
    pub fn of_objects(then: &Observed, now: &Observed, ignore: &BTreeSet<ObjectClass>) -> Self {
        let mut found = Self::default();
        let none = BTreeMap::new();
        let classes: BTreeSet<ObjectClass> = then.objects.keys().chain(now.objects.keys()).copied().collect();
        for class in classes.difference(ignore) {
            let (then, now) = (then.objects.get(class).unwrap_or(&none), now.objects.get(class).unwrap_or(&none));
            for (name, definition) in then {
                found.compared += 1;
                match now.get(name) {
                    None => found.missing.push((*class, name.clone())),
                    Some(other) if other != definition => found.changed.push((*class, name.clone())),
                    Some(_) => {}
                }
            }
            found.additional.extend(now.keys().filter(|name| !then.contains_key(*name)).map(|name| (*class, name.clone())));
        }
        found
    }

    /// Tables that were observed then, against those that are there now. A table whose rows were hashed in another way than now is
    /// not compared by its content.
    pub fn of_tables(then: &Observed, now: &Observed) -> Self {
        let mut found = Self::default();
        let table = |name: &String| (ObjectClass::Table, name.clone());
        for (name, seen) in &then.tables {
            found.compared += 1;
            match now.tables.get(name) {
                None => found.missing.push(table(name)),
                Some(other) if seen != other => found.changed.push(table(name)),
                Some(_) => {}
            }
        }
        found.additional.extend(now.tables.keys().filter(|name| !then.tables.contains_key(*name)).map(table));
        found
    }

    /// Of two that should be the same, neither came first: what only one of them has is missing in the other.
    pub fn both_ways(mut self) -> Self {
        self.compared += self.additional.len() as u64;
        self.missing.append(&mut self.additional);
        self
    }
}

/// The last drill of a scenario that passed, from its verified evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct LastDrill {
    /// Its id.
    pub drill: DrillId,
    /// When it started.
    pub started_at: Timestamp,
    /// What it restored, each component of it.
    pub restored: Vec<RestoredFacts>,
    /// How long it took until it was usable.
    pub usable_after: Option<Elapsed>,
    /// The recovery points that it restored.
    pub points: Vec<SelectedPoint>,
    /// What its checks observed.
    pub observations: Observations,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(objects: &[(ObjectClass, &str, &str)]) -> Observed {
        let mut observed = Observed::default();
        for (class, name, definition) in objects {
            observed.objects.entry(*class).or_default().insert((*name).to_owned(), mark(definition.as_bytes()));
        }
        observed
    }

    #[test]
    fn objects_are_missing_changed_or_additional() {
        use ObjectClass::{Index, Role, View};
        let then = observed(&[(Index, "a", "1"), (Index, "b", "1"), (View, "v", "1"), (Role, "r", "1")]);
        let now = observed(&[(Index, "a", "1"), (Index, "b", "2"), (Index, "c", "1")]);
        let found = Deviations::of_objects(&then, &now, &[Role].into());
        assert_eq!(found.compared, 3);
        assert_eq!(found.missing, [(View, "v".to_owned())]);
        assert_eq!(found.changed, [(Index, "b".to_owned())]);
        assert_eq!(found.additional, [(Index, "c".to_owned())]);
        assert_eq!(Deviations::of_objects(&then, &then, &BTreeSet::new()), Deviations { compared: 4, ..Deviations::default() });
    }

    #[test]
    fn what_is_keyed_compares_as_what_is_not() {
        let then = observed(&[(ObjectClass::Index, "patient_name", "btree (name)")]);
        let name = |n: &str| format!("name-{}", mark(n.as_bytes()));
        let digest = |d: &str| mark(format!("key{d}").as_bytes());
        let keyed = then.keyed(&name, &digest);
        assert!(!serde_json::to_string(&keyed).unwrap().contains("patient_name"));
        assert_ne!(keyed.blake3(), then.blake3());
        assert!(Deviations::of_objects(&keyed, &then.keyed(&name, &digest), &BTreeSet::new()).missing.is_empty());
    }

    #[test]
    fn a_baseline_survives_its_file() {
        let mut observed = observed(&[(ObjectClass::Index, "a", "1")]);
        observed.tables.insert("patient".into(), TableSeen { rows: 3, digest: Some(mark(b"x")), per_million: None });
        let file = Baseline {
            schema: BASELINE_SCHEMA.to_owned(),
            engine: Engine::Postgres,
            version: "15".into(),
            made_at: Timestamp::from_unix(7),
            observed,
        };
        let text = serde_json::to_string(&file).unwrap();
        assert_eq!(serde_json::from_str::<Baseline>(&text).unwrap(), file);
    }
}
