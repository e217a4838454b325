//! Anchors of the ledger: its checkpoints are carried to the places that the settings name, and read from there.

use super::{App, AppError};
use crate::archive::{ArchiveError, Carried, Ground, carry, kept};
use crate::domain::{AnchorKind, AnchorPlace, Timestamp};
use crate::evidence::ledger::{Anchor, EntryKind};
use crate::storage::{Environment, StorageError};

/// What came of carrying a checkpoint away.
#[derive(Debug, Default)]
pub struct Anchored {
    /// How many entries it covers; none where there is no ledger yet.
    pub size: Option<u64>,
    /// Names of the places that keep it now.
    pub carried: Vec<String>,
    /// Names of those that do not, and why.
    pub failed: Vec<(String, ArchiveError)>,
}

/// Checkpoints that are kept in the places of the settings.
#[derive(Debug, Default)]
pub struct KeptElsewhere {
    /// All that could be read.
    pub anchors: Vec<Anchor>,
    /// What is wrong with the others.
    pub failed: Vec<ArchiveError>,
}

impl App {
    /// Places to which a checkpoint should be carried now: those in which none is that covers the end of the last drill, and those
    /// whose time has come and whose last one does not cover all that was entered. That it was carried away counts for nothing.
    ///
    /// # Errors
    /// [`AppError`].
    pub fn due_anchors(&self, now: Timestamp) -> Result<Vec<&AnchorPlace>, AppError> {
        if self.settings.anchors.is_empty() || !self.settings.ledger.0.exists() {
            return Ok(Vec::new());
        }
        let book = self.book()?;
        let Some(checkpoint) = book.ledger().checkpoint(book.trust())? else { return Ok(Vec::new()) };
        let carried = Carried::read(&self.settings.state.0)?;
        let mut due = Vec::new();
        for place in &self.settings.anchors {
            let last = carried.last(&place.name).filter(|last| last.origin == checkpoint.origin && last.size <= checkpoint.size);
            let Some(last) = last else {
                due.push(place);
                continue;
            };
            let (mut something, mut drill) = (false, false);
            for entry in book.ledger().entries(book.trust(), last.size)? {
                let kind = entry?.entry;
                something |= !matches!(kind, EntryKind::Anchored { .. });
                drill |= matches!(kind, EntryKind::DrillFinished { .. });
            }
            let waited = u64::try_from(now.seconds_since(last.at)).unwrap_or(0);
            if drill || something && waited >= place.every.seconds {
                due.push(place);
            }
        }
        Ok(due)
    }

    /// Carries the last checkpoint to `places`, and enters where it was carried to.
    ///
    /// # Errors
    /// [`AppError`]; trouble with a place is in the answer.
    pub async fn anchor(&self, places: &[&AnchorPlace]) -> Result<Anchored, AppError> {
        let mut anchored = Anchored::default();
        if places.is_empty() {
            return Ok(anchored);
        }
        let book = self.book()?;
        let Some(checkpoint) = book.ledger().checkpoint(book.trust())? else { return Ok(anchored) };
        anchored.size = Some(checkpoint.size);
        for place in places {
            let done = match self.environment_of(place) {
                Ok(environment) => carry(&checkpoint, place, &self.ground(&environment)).await,
                Err(error) => Err(error.into()),
            };
            match done {
                Ok(()) => anchored.carried.push(place.name.clone()),
                Err(error) => anchored.failed.push((place.name.clone(), error)),
            }
        }
        if !anchored.carried.is_empty() {
            let entry = |name: &String| EntryKind::Anchored { size: checkpoint.size, place: name.clone() };
            book.enter(anchored.carried.iter().map(entry).collect())?;
            Carried::remember(&self.settings.state.0, &anchored.carried, &checkpoint, self.clock.now())?;
        }
        Ok(anchored)
    }

    /// Reads what is kept in every place of the settings.
    pub async fn kept_elsewhere(&self) -> KeptElsewhere {
        let mut found = KeptElsewhere::default();
        let carried = match Carried::read(&self.settings.state.0) {
            Ok(carried) => carried,
            Err(error) => return KeptElsewhere { failed: vec![error], ..found },
        };
        for place in &self.settings.anchors {
            let read = match self.environment_of(place) {
                Ok(environment) => kept(place, carried.last(&place.name), &self.ground(&environment)).await,
                Err(error) => Err(error.into()),
            };
            match read {
                Ok(anchors) => found.anchors.extend(anchors),
                Err(error) => found.failed.push(error),
            }
        }
        found
    }

    fn environment_of(&self, place: &AnchorPlace) -> Result<Environment, StorageError> {
        match &place.kind {
            AnchorKind::Bucket(bucket) => self.environment_for(bucket),
            AnchorKind::Timestamp { .. } | AnchorKind::Directory(_) => Ok(self.environment.clone()),
        }
    }

    fn ground<'a>(&'a self, environment: &'a Environment) -> Ground<'a> {
        Ground { ledger: &self.settings.ledger.0, environment, now: self.now() }
    }
}
