//! `dicom`: a folder of DICOM files, each read to its end, and held against an index of what should be there.
//!
//! Of an instance only its id is remembered, as sixteen bytes, and of a series its number of instances.

mod index;
mod instance;
mod tokens;

use std::collections::{HashMap, HashSet};

use jiff::tz::TimeZone;

use self::index::Index;
use self::instance::{Held, Instance, look};
use super::records::{Key, Verdicts, Wrongs, enough_room, files, key, zone};
use super::{Answer, CheckError, Restored};
use crate::domain::{DicomFolder, DicomIndex, EntryKind, Finding, FindingKind, RecordProblem, RestorePath, Timestamp};

pub(super) fn ask(name: &str, pattern: &str, folder: &DicomFolder, restored: &Restored<'_>) -> Result<Answer, CheckError> {
    let mut reading = Reading {
        zone: zone(folder.time_zone.as_ref())?,
        wrongs: Wrongs::new(restored),
        index: None,
        index_path: None,
        instances: HashSet::new(),
        series: HashMap::new(),
        foreign: 0,
        total: 0,
        newest: None,
    };
    if let Some(index) = &folder.index {
        reading.read_index(index, restored)?;
    }
    let skip = reading.index_path.clone();
    let found = files(pattern, restored, |path, size, file| {
        // the index is looked at for itself
        if skip.as_ref() == Some(path) { Ok(()) } else { reading.file(path, look(file, size, reading.zone.as_ref())?) }
    })?;
    Ok(reading.answer(name, folder, found, restored.started))
}

/// A series as it was found.
struct Series {
    instances: u64,
    /// Where, and what: for the annex.
    example: (RestorePath, Box<str>),
}

struct Reading<'a> {
    zone: Option<TimeZone>,
    wrongs: Wrongs<'a>,
    index: Option<Index>,
    index_path: Option<RestorePath>,
    instances: HashSet<Key>,
    series: HashMap<Key, Series>,
    foreign: u64,
    total: u64,
    newest: Option<Timestamp>,
}

impl Reading<'_> {
    /// An index that is not there is answered for in the end.
    fn read_index(&mut self, index: &DicomIndex, restored: &Restored<'_>) -> Result<(), CheckError> {
        let path = RestorePath::from_bytes(index.path().as_bytes()).map_err(|e| CheckError::NotAsked(format!("the index: {e}")))?;
        for entry in restored.tree.walk()? {
            let entry = entry?;
            let EntryKind::File { size, .. } = entry.kind else { continue };
            if entry.path != path {
                continue;
            }
            let file = restored.tree.open(&path)?;
            let read = match index {
                DicomIndex::Dicomdir { .. } => index::dicomdir(file, size)?,
                DicomIndex::Csv { series, instances, .. } => index::series(file, series, instances)?,
            };
            if let Index::Broken(problem) = read {
                self.wrongs.add(problem, &path, "the index");
            }
            self.index = Some(read);
            self.index_path = Some(path);
            return Ok(());
        }
        Ok(())
    }

    fn file(&mut self, path: &RestorePath, held: Held) -> Result<(), CheckError> {
        let instance = match held {
            Held::Directory => return Ok(()),
            Held::Instance(instance) => instance,
            Held::Broken(problem) => {
                self.wrongs.add(problem, path, "");
                return Ok(());
            }
            Held::Foreign => {
                self.foreign += 1;
                return Ok(());
            }
        };
        let Instance { id, series, made } = instance;
        self.total += 1;
        self.newest = self.newest.max(made);
        let own = key(&[id.as_bytes()]);
        if !self.instances.insert(own) {
            self.wrongs.add(RecordProblem::Duplicate, path, &id);
            return Ok(());
        }
        if let Some(Index::Instances(expected)) = &mut self.index
            && expected.remove(&own).is_none()
        {
            self.wrongs.add(RecordProblem::NotInIndex, path, &id);
        }
        let of = key(&[series.as_bytes()]);
        let first = || Series { instances: 0, example: (path.clone(), series.into_boxed_str()) };
        self.series.entry(of).or_insert_with(first).instances += 1;
        enough_room(self.instances.len() + self.series.len())
    }

    /// What the index names and is not there, and the other way round.
    fn hold_against(&mut self, index: Index) -> String {
        let place = self.index_path.clone().unwrap_or_else(RestorePath::root);
        match index {
            Index::Instances(missing) => {
                let mut missing: Vec<Box<str>> = missing.into_values().collect();
                missing.sort_unstable();
                for file in &missing {
                    self.wrongs.add(RecordProblem::Missing, &place, file);
                }
            }
            Index::Series(expected) => {
                let mut expected: Vec<_> = expected.into_iter().collect();
                expected.sort_unstable_by(|a, b| a.1.1.cmp(&b.1.1));
                for (series, (number, id)) in expected {
                    let found = self.series.remove(&series).map_or(0, |found| found.instances);
                    if found < number {
                        self.wrongs.add_many(RecordProblem::Missing, number - found, &place, format_args!("{id}: {found} of {number}"));
                    } else if found > number {
                        self.wrongs.add_many(RecordProblem::NotInIndex, found - number, &place, format_args!("{id}: {found} of {number}"));
                    }
                }
                let mut others: Vec<Series> = std::mem::take(&mut self.series).into_values().collect();
                others.sort_unstable_by(|a, b| a.example.cmp(&b.example));
                for Series { instances, example: (path, id) } in others {
                    self.wrongs.add_many(RecordProblem::NotInIndex, instances, &path, id);
                }
            }
            Index::Broken(_) => return "an index that cannot be read".to_owned(),
        }
        let (missing, extra) = (self.wrongs.count(RecordProblem::Missing), self.wrongs.count(RecordProblem::NotInIndex));
        format!("{missing} instances missing, {extra} that the index does not name")
    }

    fn answer(mut self, name: &str, folder: &DicomFolder, found: u64, started: Timestamp) -> Answer {
        let mut answer = Verdicts::new(name);
        let series = self.series.len() as u64;
        let seen = format!("{} instances of {series} series in {found} files", self.total);
        if self.total == 0 && self.foreign == 0 {
            answer.assert("instances".into(), seen, false);
        } else {
            answer.asked("instances that are whole", seen);
        }
        if let Some(wanted) = folder.series {
            answer.compare("series", wanted, series);
        }
        if let Some(wanted) = folder.instances {
            answer.compare("instances", wanted, self.total);
        }
        if self.total > 0 {
            answer.asked("none of them twice", format!("{} twice", self.wrongs.count(RecordProblem::Duplicate)));
        }
        // what could not be read may be what the index misses
        if self.foreign > 0 {
            let reason = format!("{} files are in a transfer syntax that is not read here", self.foreign);
            answer.found(Finding::runner(name, FindingKind::CouldNotRun { reason }));
        } else if folder.index.is_some() {
            match self.index.take() {
                Some(index) => {
                    let seen = self.hold_against(index);
                    answer.asked("all that the index names, and nothing else", seen);
                }
                None => answer.assert("an index".into(), "no file at its path".into(), false),
            }
        }
        answer.date(self.newest, started);
        answer.finish(self.wrongs)
    }
}
