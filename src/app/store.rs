//! The evidence store and what is remembered of it, for whoever keeps or shows drills.

use std::fs;

use super::last::newest_first;
use super::{App, AppError, ServeError};
use crate::domain::DrillId;
use crate::evidence::ledger::{Checkpoint, LedgerError};
use crate::evidence::{Report, names};
use crate::state::{Drill, State};

impl App {
    /// Whether the ledger goes on from where it was when it was last taken up.
    ///
    /// # Errors
    /// [`ServeError::OtherLedger`] where it was replaced, shortened or rewritten since.
    pub(super) fn goes_on(&self, state: &State) -> Result<(), ServeError> {
        let Some(kept) = state.checkpoint()? else { return Ok(()) };
        let book = self.book()?;
        let what = "the checkpoint that this runner remembers";
        let directory = self.settings.ledger.0.clone();
        let checkpoint = Checkpoint::open(&kept, book.trust(), what);
        let goes_on = checkpoint
            .map_err(|why| LedgerError::Refused { directory, why })
            .and_then(|earlier| book.ledger().goes_on_from(book.trust(), &earlier, what));
        match goes_on {
            Ok(()) => Ok(()),
            Err(LedgerError::Refused { why, .. }) => Err(ServeError::OtherLedger { why }),
            Err(error) => Err(AppError::from(error).into()),
        }
    }

    /// What the evidence of a drill says; none where it is not here.
    pub(super) fn drill_in_store(&self, drill: &DrillId) -> Option<Drill> {
        let store = &self.settings.store.0;
        newest_first(store).ok()?.into_iter().find_map(|year| {
            let directory = year.join(&drill.0);
            let report: Report = serde_json::from_slice(&fs::read(directory.join(names::REPORT)).ok()?).ok()?;
            Some(Drill::of(&report, directory.strip_prefix(store).ok()?.to_string_lossy().into_owned()))
        })
    }
}
