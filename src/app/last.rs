//! The last drill of a scenario that passed, read back from the evidence store and believed only where its evidence verifies.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::Deserialize;

use super::App;
use crate::domain::{DrillEventKind, LastDrill, Scenario, Verdict};
use crate::evidence::{Signer, SignerKey, TrustFile, names, verify};

/// What is looked at before anything is verified.
#[derive(Deserialize)]
struct Glance {
    report_id: String,
    verdict: Verdict,
    plan: GlanceAtPlan,
}

#[derive(Deserialize)]
struct GlanceAtPlan {
    scenario: String,
}

impl App {
    /// The last drill of the scenario that passed; `None` where none has yet.
    ///
    /// # Errors
    /// Why the newest evidence that says so is not believed: an older one in its place would hide that it was touched.
    pub(super) fn last_passed(&self, scenario: &Scenario, signer: &SignerKey) -> Result<Option<LastDrill>, String> {
        if !scenario.compares_with_last() {
            return Ok(None);
        }
        let unreadable = |e: io::Error| format!("the evidence of earlier drills cannot be read: {}", e.kind());
        let Some(directory) = self.find_passed(scenario).map_err(unreadable)? else { return Ok(None) };
        let trust = self.trust_with(signer)?;
        let verified = verify(&[directory], &trust).pop().ok_or_else(|| "the evidence of the last drill that passed is gone".to_owned())?;
        let attestation = verified.map_err(|refused| {
            format!(
                "the evidence of the last drill that passed does not verify: {}; where the signing key was changed, name the old one in \
                 the trust file",
                refused.why
            )
        })?;
        let (report, events) = (attestation.report(), attestation.events());
        let restored = events.iter().filter_map(|event| match &event.kind {
            DrillEventKind::Restored { facts } => Some(facts.clone()),
            _ => None,
        });
        let points = events.iter().filter_map(|event| match &event.kind {
            DrillEventKind::PointSelected { point } => Some(point.clone()),
            _ => None,
        });
        Ok(Some(LastDrill {
            drill: report.report_id.clone(),
            started_at: report.started_at,
            restored: restored.collect(),
            usable_after: report.measurements.recovery.as_ref().map(|recovery| recovery.measured),
            points: points.collect(),
            observations: attestation.observations().clone(),
        }))
    }

    /// Whom this runner believes: its own key, and those of the trust file.
    pub(super) fn trust_with(&self, signer: &SignerKey) -> Result<TrustFile, String> {
        let mut lines = signer.public().allowed_signers_line(&self.settings.signer.0, None);
        if let Some((path, _)) = &self.settings.trust {
            lines.push('\n');
            lines.push_str(&fs::read_to_string(path).map_err(|e| format!("the trust file cannot be read: {}", e.kind()))?);
        }
        TrustFile::parse(&lines).map_err(|e| format!("the trust file cannot be used: {e}"))
    }

    /// The directory of the newest evidence that says that it passed, or that the scenario accepts.
    fn find_passed(&self, scenario: &Scenario) -> io::Result<Option<PathBuf>> {
        let (name, accept) = (scenario.name.to_string(), scenario.regression.accept.as_ref());
        for year in newest_first(&self.settings.store.0)? {
            // their ids sort by time
            for drill in newest_first(&year)? {
                let Ok(bytes) = fs::read(drill.join(names::REPORT)) else { continue };
                let Ok(glance) = serde_json::from_slice::<Glance>(&bytes) else { continue };
                let counts = glance.verdict == Verdict::Passed || accept.is_some_and(|id| id.0 == glance.report_id);
                if glance.plan.scenario == name && counts {
                    return Ok(Some(drill));
                }
            }
        }
        Ok(None)
    }
}

/// Directories in a directory, last name first.
fn newest_first(directory: &std::path::Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && !entry.file_name().to_string_lossy().starts_with('.') {
            found.push(entry.path());
        }
    }
    found.sort();
    found.reverse();
    Ok(found)
}
