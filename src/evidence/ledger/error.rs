//! What can keep us from entering something, and why a ledger is not believed.

use std::path::PathBuf;

use super::super::{Distrust, EvidenceError};
use crate::domain::Timestamp;

/// Nothing could be entered. For a drill this is the end: what is not entered has not happened.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A file could not be read or written, or the key did not sign.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// What is there is not believed; nothing is entered upon it.
    #[error("the ledger in {} is damaged or was touched: {why}", directory.display())]
    Refused {
        /// Where it is.
        directory: PathBuf,
        /// Why.
        why: LedgerRefusal,
    },
    /// Its origin cannot name a log.
    #[error("`{origin}` cannot be a ledger's origin: {problem}")]
    Origin {
        /// As written.
        origin: String,
        /// Why.
        problem: &'static str,
    },
}

/// Why a ledger is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerRefusal {
    /// There is none.
    #[error("no ledger is here")]
    NothingHere,
    /// It cannot be read.
    #[error("{file} cannot be read: {reason}")]
    Unreadable {
        /// What.
        file: String,
        /// Why.
        reason: String,
    },
    /// A checkpoint is not in its form.
    #[error("{what} is no checkpoint: {why}")]
    NoCheckpoint {
        /// Which.
        what: String,
        /// In what.
        why: String,
    },
    /// No trusted key signed it.
    #[error("{what} is signed by no key of the trust file")]
    Unsigned {
        /// Which checkpoint.
        what: String,
    },
    /// A trusted key's signature does not verify.
    #[error("{what}: the signature does not verify")]
    Signature {
        /// Which checkpoint.
        what: String,
    },
    /// The key that signed does not count.
    #[error(transparent)]
    Distrusted(#[from] Distrust),
    /// Entries are gone.
    #[error("the log was shortened: {what} covers {covered} entries, and {found} are here")]
    Shortened {
        /// Which checkpoint.
        what: String,
        /// Entries that it covers.
        covered: u64,
        /// Entries that are here.
        found: u64,
    },
    /// Entries are not those that were signed.
    #[error("entries were changed, reordered or replaced: the first {covered} have another root than {what} says")]
    Root {
        /// Which checkpoint.
        what: String,
        /// Entries that it covers.
        covered: u64,
    },
    /// A checkpoint of another log.
    #[error("{what} is of another log, `{found}`: this one is `{expected}`")]
    OtherLog {
        /// Which checkpoint.
        what: String,
        /// Its origin.
        found: String,
        /// The origin of the log.
        expected: String,
    },
    /// An entry is not in its form, or not in its place.
    #[error("entry {index}: {what}")]
    Entry {
        /// Its place, counted from 0.
        index: u64,
        /// What is wrong.
        what: String,
    },
    /// A drill that the ledger knows has no evidence here.
    #[error("the evidence of drill {drill} is gone, which ended {ended} on {}", at.to_human())]
    EvidenceGone {
        /// Which.
        drill: String,
        /// Its verdict.
        ended: String,
        /// When that was entered.
        at: Timestamp,
    },
    /// A drill's evidence is not the one that was entered.
    #[error("the evidence of drill {drill} is not the one that was entered: {what} differs")]
    OtherEvidence {
        /// Which.
        drill: String,
        /// In what.
        what: &'static str,
    },
    /// Evidence that was never entered.
    #[error("drill {drill} ended after the ledger began, and is not in it")]
    NotEntered {
        /// Which.
        drill: String,
    },
}
