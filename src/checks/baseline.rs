//! What is compared with: what the last drill that passed observed, or a file of the backup or of the site.

use std::fs::File;
use std::io::Read;

use super::{CheckError, Names, Restored};
use crate::domain::{
    BASELINE_SCHEMA, Baseline, BaselineSource, DatabaseRef, DrillId, Finding, FindingKind, Observed, Pseudonym, RestorePath,
};

/// The largest baseline that is read.
const LARGEST: u64 = 256 << 20;
/// How many names are shown by pseudonym.
pub(super) const EXAMPLES: usize = 10;

/// What was observed then.
pub(super) struct Then {
    /// What.
    pub(super) observed: Observed,
    /// Whether it is under the runner's key.
    keyed: bool,
    /// In words.
    pub(super) called: String,
    /// The drill that observed it.
    pub(super) drill: Option<DrillId>,
}

/// What a baseline turns out to be.
pub(super) enum Found {
    /// One to compare with.
    Then(Box<Then>),
    /// None yet; why, in words.
    NotYet(&'static str),
    /// None, and the backup should have it; what is there instead.
    NotRestored(&'static str),
}

/// In words, as far as it is known before it is looked for.
pub(super) fn words(source: &BaselineSource) -> &'static str {
    match source {
        BaselineSource::LastPassed => "the last drill that passed",
        BaselineSource::Restored(_) => "the baseline in the backup",
        BaselineSource::File(_) => "the site's baseline",
    }
}

pub(super) fn find(check: &str, of: &DatabaseRef, source: &BaselineSource, restored: &Restored<'_>) -> Result<Found, CheckError> {
    let baseline = match source {
        BaselineSource::LastPassed => return last_passed(check, restored),
        BaselineSource::Restored(path) => {
            let path = RestorePath::from_bytes(path.as_bytes()).map_err(|e| CheckError::NotAsked(e.to_string()))?;
            match restored.tree.open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::NotRestored("no such file")),
                Err(error) => return Err(error.into()),
                Ok(file) => match read(file)? {
                    Some(baseline) => baseline,
                    None => return Ok(Found::NotRestored("a file that is no baseline")),
                },
            }
        }
        BaselineSource::File(path) => {
            let unreadable = |why: String| CheckError::NotAsked(format!("the baseline {} cannot be read: {why}", path.display()));
            let file = File::open(path).map_err(|e| unreadable(e.kind().to_string()))?;
            read(file)?.ok_or_else(|| unreadable("it is none".to_owned()))?
        }
    };
    let engine = restored.databases.engine(of.service.as_deref()).map_err(CheckError::NotAsked)?;
    if engine != baseline.engine {
        let reason = format!("the baseline is of {}, and the database is {}", baseline.engine.word(), engine.word());
        return Err(CheckError::NotAsked(reason));
    }
    let called = format!("{} of {}", words(source), baseline.made_at.to_human());
    Ok(Found::Then(Box::new(Then { observed: baseline.observed, keyed: false, called, drill: None })))
}

fn last_passed(check: &str, restored: &Restored<'_>) -> Result<Found, CheckError> {
    match restored.last {
        Err(reason) => Err(CheckError::NotAsked(reason.to_owned())),
        Ok(None) => Ok(Found::NotYet("no drill of this scenario has passed yet")),
        Ok(Some(last)) => match last.observations.checks.get(check) {
            None => Ok(Found::NotYet("the last drill that passed did not ask it")),
            Some(observed) => {
                let called = format!("drill {}, the last that passed", last.drill);
                Ok(Found::Then(Box::new(Then { observed: observed.clone(), keyed: true, called, drill: Some(last.drill.clone()) })))
            }
        },
    }
}

fn read(file: File) -> Result<Option<Baseline>, CheckError> {
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(CheckError::TooLarge("the baseline is larger than any that is read".to_owned()));
    }
    Ok(serde_json::from_slice(&text).ok().filter(|baseline: &Baseline| baseline.schema == BASELINE_SCHEMA))
}

/// Under the runner's key, as evidence keeps it.
pub(super) fn keyed(observed: &Observed, names: &dyn Names) -> Observed {
    observed.keyed(&|name| names.name(name).0, &|digest| names.keyed(digest))
}

impl Then {
    /// What is there now, so that it compares with this.
    pub(super) fn comparable(&self, now: &Observed, names: &dyn Names) -> Observed {
        if self.keyed { keyed(now, names) } else { now.clone() }
    }
    /// What stands for a name of the comparison.
    pub(super) fn example(&self, name: &str, names: &dyn Names) -> Pseudonym {
        if self.keyed { Pseudonym(name.to_owned()) } else { names.name(name) }
    }
}

/// What a check notes that had nothing to compare with.
pub(super) fn captured(name: &str, why: &str) -> Finding {
    let detail = format!("{why}: what was observed is kept, and is the baseline once a drill has passed with it; nothing was asserted");
    Finding::note(name, crate::domain::Cause::Runner, FindingKind::Remark { detail })
}
