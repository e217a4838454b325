//! A line for each drill whose evidence is here.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::{State, StateError, json};
use crate::domain::{Assessment, DrillId, FindingKind, ScenarioName, Severity, Timestamp, Trigger, Verdict};
use crate::evidence::{PhaseTime, Report};

/// What a list of drills shows of one. The evidence says more, and can be verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    /// Which.
    pub id: DrillId,
    /// Of which scenario.
    pub scenario: ScenarioName,
    /// What the contingency plan calls the system.
    pub system: String,
    /// Why it ran.
    pub trigger: Trigger,
    /// How it ended.
    pub verdict: Verdict,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Measurements against objectives.
    pub assessments: Vec<Assessment>,
    /// How long each phase took.
    pub timeline: Vec<PhaseTime>,
    /// Bytes of restored files.
    pub restored_bytes: u64,
    /// Bytes that came from the storage.
    pub read_bytes: u64,
    /// When the lock of the first object ends; `None` where no lock was seen.
    pub locked_until: Option<Timestamp>,
    /// What failed it, or kept it from a result: kinds of findings.
    pub why: Vec<String>,
    /// Where its evidence is, below the evidence store.
    pub directory: String,
}

impl Drill {
    /// Of a report whose evidence is in `directory`, below the evidence store.
    pub fn of(report: &Report, directory: String) -> Self {
        let summary = report.backup.chain.summary.as_ref();
        let of_checks = report.checks.iter().flat_map(|check| &check.findings);
        let deciding = report.findings.iter().chain(of_checks).filter(|finding| finding.severity == Severity::Fail);
        let mut why: Vec<String> = deciding.map(|finding| kind_of(&finding.kind)).collect();
        why.sort();
        why.dedup();
        Self {
            id: report.report_id.clone(),
            scenario: report.plan.scenario.clone(),
            system: report.plan.system.clone(),
            trigger: report.plan.trigger.clone(),
            verdict: report.verdict,
            started_at: report.started_at,
            finished_at: report.finished_at,
            assessments: report.assessments.clone(),
            timeline: report.timeline.clone(),
            restored_bytes: report.restored.as_ref().map_or(0, |restored| restored.bytes),
            read_bytes: report.backup.chain.bytes_read(),
            locked_until: summary.and_then(|summary| summary.locks.first_until),
            why,
            directory,
        }
    }
}

/// How the report names a kind of finding.
fn kind_of(kind: &FindingKind) -> String {
    let written = serde_json::to_value(kind).expect("our own types have string keys");
    written["finding"].as_str().expect("it is tagged so").to_owned()
}

impl State {
    /// Remembers drills. One that is known is told anew.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn add(&mut self, drills: &[Drill]) -> Result<(), StateError> {
        let write = |database: &mut Connection| -> rusqlite::Result<()> {
            let transaction = database.transaction()?;
            for drill in drills {
                let row = params![drill.id.0, drill.scenario.to_string(), json(drill)];
                transaction.execute("insert or replace into drills values (?, ?, ?)", row)?;
            }
            transaction.commit()
        };
        write(&mut self.database).map_err(|source| self.failed(source))
    }

    /// Drills, the newest first: of one scenario or of all, at most so many.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn drills(&self, scenario: Option<&ScenarioName>, limit: u32) -> Result<Vec<Drill>, StateError> {
        // ids of drills sort by time
        let query = "select id, drill from drills where ?1 is null or scenario = ?1 order by id desc limit ?2";
        let rows = self.pairs(query, params![scenario.map(ToString::to_string), limit])?;
        rows.iter().map(|(_, drill)| self.read("a drill", drill.as_bytes())).collect()
    }

    /// The newest drill of each scenario.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn newest(&self) -> Result<Vec<Drill>, StateError> {
        let query = "select max(id), drill from drills group by scenario";
        self.pairs(query, [])?.iter().map(|(_, drill)| self.read("a drill", drill.as_bytes())).collect()
    }
}
