//! Checks of health-care records: from their tables to what is asked.

use std::collections::BTreeMap;

use super::check_file::CheckTable;
use super::reader::Reader;
use crate::checks::is_fhir_type;
use crate::domain::{CheckKind, Comparison, DicomFolder, DicomIndex, FhirStore, Hl7Archive, RestorePath};

impl Reader<'_> {
    pub(super) fn fhir(&mut self, at: &str, table: &CheckTable) -> Option<CheckKind> {
        let CheckTable::Fhir { path, pattern, resources, bases, elsewhere, .. } = table else { return None };
        let pattern = self.pattern(at, path.as_ref(), pattern.as_ref());
        for kind in resources.keys().filter(|kind| !is_fhir_type(kind)) {
            self.wrong(&format!("{at}.resources"), format!("`{kind}` is no resource type"), "write it as FHIR does, as \"Patient\"");
        }
        for (number, base) in bases.iter().enumerate() {
            if !base.starts_with("https://") && !base.starts_with("http://") {
                self.wrong(&format!("{at}.bases.{number}"), "this is no address of a FHIR store", "write \"https://ehr.example.org/fhir\"");
            }
        }
        for (number, resource) in elsewhere.iter().enumerate() {
            let kind = resource.split_once('/').map_or(resource.as_str(), |(kind, _)| kind);
            if !is_fhir_type(kind) || resource.ends_with('/') {
                self.wrong(
                    &format!("{at}.elsewhere.{number}"),
                    format!("`{resource}` is neither a resource type nor a resource"),
                    "write \"Practitioner\", or \"Organization/hq\"",
                );
            }
        }
        let resources = self.counts(&format!("{at}.resources"), resources);
        let bases = bases.iter().map(|base| base.trim_end_matches('/').to_owned()).collect();
        let store = FhirStore { bases, elsewhere: elsewhere.iter().cloned().collect() };
        Some(CheckKind::Fhir { pattern: pattern?, resources: resources?, store })
    }

    pub(super) fn hl7(&mut self, at: &str, table: &CheckTable) -> Option<CheckKind> {
        let CheckTable::Hl7 { path, pattern, messages, time_zone, resends, unterminated, .. } = table else { return None };
        let pattern = self.pattern(at, path.as_ref(), pattern.as_ref());
        let word = |word: &str| word.len() == 3 && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        for kind in messages.keys() {
            let (code, event) = kind.split_once('^').unwrap_or((kind, "A01"));
            if !word(code) || !word(event) {
                self.wrong(
                    &format!("{at}.messages"),
                    format!("`{kind}` is no type of messages"),
                    "write \"ADT\" for all of them, or \"ADT^A01\" for those of one event",
                );
            }
        }
        let messages = self.counts(&format!("{at}.messages"), messages);
        let time_zone = match time_zone {
            Some(zone) => Some(self.zone(&format!("{at}.time_zone"), zone)?),
            None => None,
        };
        let archive = Hl7Archive { time_zone, resends: *resends, unterminated: *unterminated };
        Some(CheckKind::Hl7 { pattern: pattern?, messages: messages?, archive })
    }

    pub(super) fn dicom(&mut self, at: &str, table: &CheckTable) -> Option<CheckKind> {
        let CheckTable::Dicom { path, pattern, index, series_column, instances_column, series, instances, time_zone, .. } = table else {
            return None;
        };
        let pattern = self.pattern(at, path.as_ref(), pattern.as_ref());
        let is_csv = index.as_ref().is_some_and(|index| index.to_ascii_lowercase().ends_with(".csv"));
        if !is_csv && (series_column.is_some() || instances_column.is_some()) {
            self.wrong(at, "columns are those of an index that is a .csv", "name it as `index`, or leave the columns out");
        }
        if let Some(Err(error)) = index.as_ref().map(|index| RestorePath::from_bytes(index.as_bytes())) {
            self.wrong(&format!("{at}.index"), error.to_string(), "write its path below the restored root, as \"DICOMDIR\"");
        }
        let column = |given: &Option<String>, usual: &str| given.clone().unwrap_or_else(|| usual.to_owned());
        let index = index.as_ref().map(|path| match is_csv {
            true => DicomIndex::Csv {
                path: path.clone(),
                series: column(series_column, "series_instance_uid"),
                instances: column(instances_column, "instances"),
            },
            false => DicomIndex::Dicomdir { path: path.clone() },
        });
        let series = self.maybe(&format!("{at}.series"), series.as_ref());
        let instances = self.maybe(&format!("{at}.instances"), instances.as_ref());
        let time_zone = match time_zone {
            Some(zone) => Some(self.zone(&format!("{at}.time_zone"), zone)?),
            None => None,
        };
        Some(CheckKind::Dicom { pattern: pattern?, folder: DicomFolder { index, series, instances, time_zone } })
    }

    /// Every mistake among them is noted.
    fn counts(&mut self, at: &str, written: &BTreeMap<String, String>) -> Option<BTreeMap<String, Comparison>> {
        let read: Vec<(String, Option<Comparison>)> =
            written.iter().map(|(name, text)| (name.clone(), self.parse(&format!("{at}.{name}"), text))).collect();
        read.into_iter().map(|(name, count)| Some((name, count?))).collect()
    }
}
