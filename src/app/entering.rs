//! Entering in the ledger what a drill promises before it starts, and what came of it after.

use std::fs;
use std::path::Path;

use super::{App, AppError, LoadedSigner};
use crate::domain::{DrillId, Plan};
use crate::evidence::ledger::{Entry, EntryKind, Ledger, LedgerError, Proof};
use crate::evidence::{EvidenceError, Report, TrustFile, names, sha256};

/// The ledger, and whoever signs what is entered.
pub struct Book<'a> {
    app: &'a App,
    ledger: Ledger,
    signer: LoadedSigner,
    trust: TrustFile,
}

impl App {
    /// The ledger of this runner.
    ///
    /// # Errors
    /// [`AppError::SigningKey`], [`AppError::Trust`], [`AppError::Ledger`].
    pub fn book(&self) -> Result<Book<'_>, AppError> {
        let signer = self.signer()?;
        let trust = self.trust_with(&signer.key).map_err(AppError::Trust)?;
        let origin = self.settings.ledger_origin.clone().unwrap_or_else(|| format!("firedrill/{}", uuid::Uuid::now_v7()));
        let runner = self.runner_facts();
        let ledger = Ledger::new(&self.settings.ledger.0, &origin, &format!("{} on {}", runner.actor, runner.host))?;
        Ok(Book { app: self, ledger, signer, trust })
    }
}

impl Book<'_> {
    /// The ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whose checkpoints count.
    pub fn trust(&self) -> &TrustFile {
        &self.trust
    }

    /// Enters what happened.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn enter(&self, kinds: Vec<EntryKind>) -> Result<Vec<Entry>, LedgerError> {
        self.ledger.append(self.app.clock.now(), &self.signer.key, &self.trust, kinds)
    }

    /// Enters what a drill promises; the proof goes into its evidence.
    pub(super) fn drill_starts(&self, drill: &DrillId, plan: Plan) -> Result<Proof, LedgerError> {
        let entered = self.enter(vec![EntryKind::DrillStarted { drill: drill.clone(), plan: Box::new(plan) }])?;
        self.ledger.prove(&self.trust, entered[0].index)
    }

    /// Enters what came of a drill whose evidence is sealed in `directory`, as it can be read there.
    pub(super) fn drill_ended(&self, drill: &DrillId, directory: &Path) -> Result<(), AppError> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read(&path).map_err(|source| LedgerError::from(EvidenceError::Read { path, source }))
        };
        let unreadable = |e: serde_json::Error| {
            let source = EvidenceError::Encode { what: "what came of the drill", source: e.into() };
            AppError::from(LedgerError::from(source))
        };
        let report: Report = serde_json::from_slice(&read(names::REPORT)?).map_err(unreadable)?;
        let sums_sha256 = sha256(&read(names::SUMS)?);
        self.enter(vec![EntryKind::DrillFinished { drill: drill.clone(), verdict: report.verdict, sums_sha256 }])?;
        Ok(())
    }
}
