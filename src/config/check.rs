//! Checks of restored databases, and the comparison with earlier drills: from their tables to valid ones.

use super::check_file::{AdditionalWord, CheckTable, DatabaseTable, ReferenceTable};
use super::reader::Reader;
use super::scenario_file::RegressionTable;
use crate::domain::{
    BaselineSource, CanarySource, CheckKind, ContentAgainst, DatabaseRef, DrillId, IntegrityDepth, ReferenceSet, Regression, RestorePath,
    Sample, Severity,
};

/// A database of the scenario.
pub(super) fn database(service: &Option<String>, database: &Option<String>) -> DatabaseRef {
    DatabaseRef { service: service.clone(), database: database.clone() }
}

impl Reader<'_> {
    /// Those that are not read elsewhere.
    pub(super) fn database_check(&mut self, at: &str, table: &CheckTable) -> Option<CheckKind> {
        match table {
            CheckTable::Schema { service, database: named, baseline, ignore, additional, .. } => {
                let additional = match additional {
                    AdditionalWord::Warn => Severity::Warn,
                    AdditionalWord::Fail => Severity::Fail,
                    AdditionalWord::Allow => Severity::Note,
                };
                let baseline = self.baseline(at, baseline.as_ref())?;
                Some(CheckKind::Schema { of: database(service, named), baseline, ignore: ignore.iter().copied().collect(), additional })
            }
            CheckTable::Content { service, database: named, tables, baseline, same_as, sample, .. } => {
                let against = self.against(at, baseline.as_ref(), same_as.as_ref());
                let sample = match sample {
                    None => None,
                    Some(text) => Some(self.sample(at, text)?),
                };
                Some(CheckKind::Content { of: database(service, named), tables: tables.clone(), against: against?, sample })
            }
            CheckTable::Integrity { service, database: named, depth, .. } => {
                Some(CheckKind::Integrity { of: database(service, named), depth: depth.unwrap_or(IntegrityDepth::Full) })
            }
            CheckTable::References { from, to, may_be_empty, .. } => {
                let from = self.references(&format!("{at}.from"), from);
                let to = self.references(&format!("{at}.to"), to);
                Some(CheckKind::References { from: from?, to: to?, may_be_empty: *may_be_empty })
            }
            CheckTable::Canary { query, file, service, database: named, .. } => {
                let from = match (query, file) {
                    (Some(query), None) => CanarySource::Query { of: database(service, named), query: query.clone() },
                    (None, Some(path)) if RestorePath::from_bytes(path.as_bytes()).is_ok() => CanarySource::File { path: path.clone() },
                    _ => {
                        self.wrong(at, "the canary is in one place", "write a `query` whose one value it is, or the `file` that holds it");
                        return None;
                    }
                };
                Some(CheckKind::Canary { from })
            }
            CheckTable::Manifest { .. }
            | CheckTable::Files { .. }
            | CheckTable::Command { .. }
            | CheckTable::Freshness { .. }
            | CheckTable::Sql { .. }
            | CheckTable::Fhir { .. }
            | CheckTable::Hl7 { .. }
            | CheckTable::Dicom { .. } => None,
        }
    }

    fn against(&mut self, at: &str, baseline: Option<&String>, same_as: Option<&DatabaseTable>) -> Option<ContentAgainst> {
        match same_as {
            None => self.baseline(at, baseline).map(ContentAgainst::Baseline),
            Some(other) => {
                if baseline.is_some() {
                    self.wrong(at, "`baseline` and `same_as` exclude each other", "keep the one you mean");
                }
                Some(ContentAgainst::Same(database(&other.service, &other.database)))
            }
        }
    }

    fn references(&mut self, at: &str, table: &ReferenceTable) -> Option<ReferenceSet> {
        if let Some(name) = &table.name
            && let Err(error) = regex::Regex::new(name)
        {
            let reason = error.to_string();
            self.wrong(&format!("{at}.name"), "this is not a regular expression", reason.lines().last().unwrap_or("").to_owned());
        }
        match (&table.query, &table.files) {
            (Some(query), None) if table.field.is_none() && table.name.is_none() => {
                Some(ReferenceSet::Query { of: database(&table.service, &table.database), query: query.clone() })
            }
            (None, Some(files)) if table.service.is_none() && table.database.is_none() => {
                let pattern = self.pattern(at, None, Some(files))?;
                let name = table.name.clone();
                Some(match &table.field {
                    Some(field) => ReferenceSet::Field { pattern, field: field.clone(), name },
                    None => ReferenceSet::Files { pattern, name },
                })
            }
            _ => {
                let advice = "write { query = \"select …\" }, or { files = \"documents/**\" } with a `field` or a `name`";
                self.wrong(at, "values are those of one query or of files", advice);
                None
            }
        }
    }

    fn baseline(&mut self, at: &str, text: Option<&String>) -> Option<BaselineSource> {
        let at = format!("{at}.baseline");
        match text.map(String::as_str) {
            None | Some("last-passed") => Some(BaselineSource::LastPassed),
            Some(text) => match (text.strip_prefix("restored:"), text.strip_prefix("file:")) {
                (Some(path), _) if !path.is_empty() && RestorePath::from_bytes(path.as_bytes()).is_ok() => {
                    Some(BaselineSource::Restored(path.to_owned()))
                }
                (_, Some(path)) if !path.is_empty() => Some(BaselineSource::File(self.path(path))),
                _ => {
                    let advice = "write \"last-passed\", \"restored:PATH\" for a file in the backup, or \"file:PATH\"";
                    self.wrong(&at, "this names no baseline", advice);
                    None
                }
            },
        }
    }

    fn sample(&mut self, at: &str, text: &str) -> Option<Sample> {
        let at = format!("{at}.sample");
        let per_million = self.percent(&at, text).map(|percent| (percent * 10_000.0).round())?;
        if (1.0..=1_000_000.0).contains(&per_million) {
            return Some(Sample { per_million: per_million as u32 });
        }
        self.wrong(&at, "this is no part of the rows", "write 0.0001% to 100%, as \"1%\"");
        None
    }

    pub(super) fn regression(&mut self, table: Option<&RegressionTable>) -> Regression {
        let Some(table) = table else { return Regression::default() };
        let mut read = |key: &str, text: &Option<String>| text.as_ref().and_then(|text| self.percent(&format!("regression.{key}"), text));
        let (warn, fail, slower) = (read("warn", &table.warn), read("fail", &table.fail), read("slower", &table.slower));
        if let (Some(warn), Some(fail)) = (warn, fail)
            && warn > fail
        {
            self.wrong("regression.warn", "what warns is more than what fails", "write the smaller number for `warn`");
        }
        for (key, percent) in [("warn", warn), ("fail", fail)] {
            if percent.is_some_and(|percent| percent > 100.0) {
                self.wrong(&format!("regression.{key}"), "nothing gets fewer by more than all", "write 0% to 100%");
            }
        }
        Regression { warn, fail, slower, accept: table.accept.clone().map(DrillId) }
    }

    fn percent(&mut self, at: &str, text: &str) -> Option<f64> {
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        match percent.filter(|percent| percent.is_finite() && *percent >= 0.0) {
            Some(percent) => Some(percent),
            None => {
                self.wrong(at, format!("`{text}` is no percentage"), "write a number and %, as \"5%\"");
                None
            }
        }
    }
}
