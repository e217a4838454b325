//! The ledger: an append-only log from which nothing can vanish unnoticed.
//!
//! A Merkle tree (RFC 6962) whose leaves are lines of JSON, and a checkpoint (C2SP `tlog-checkpoint`) that signs its size and
//! root. What a drill promises is entered *before* it starts, what came of it after. A directory has
//!
//! - `entries.jsonl`: an entry a line; a leaf is a line without its newline;
//! - `checkpoint`: the newest one. An entry is committed when a checkpoint that covers it is on disk;
//! - `tree`: hashes and offsets, made anew from the entries where it is missing.
//!
//! Whoever keeps a checkpoint elsewhere ([`Anchor`]) finds out when the log was shortened, replaced or told differently:
//! what he has must be a beginning of what is there.

mod check;
mod checkpoint;
mod entry;
mod error;
mod log;
mod proof;
mod tree;

pub use check::{Anchor, DrillEntries, Examined, LedgerRemark, VerifiedLedger, compare, examine, verify_ledgers};
pub use checkpoint::{Checkpoint, origin_problem};
pub use entry::{Entry, EntryKind, MissedReason};
pub use error::{LedgerError, LedgerRefusal};
pub use log::Ledger;
pub use proof::Proof;

/// Names of the files of a ledger.
pub mod names {
    /// An entry a line.
    pub const ENTRIES: &str = "entries.jsonl";
    /// The newest checkpoint.
    pub const CHECKPOINT: &str = "checkpoint";
    /// Hashes and offsets.
    pub const TREE: &str = "tree";
    /// Whoever holds it may append.
    pub const LOCK: &str = "lock";
}

/// No entry is nearly as long.
pub(super) const LONGEST_ENTRY: u64 = 1 << 20;

#[cfg(all(test, feature = "runner"))]
mod tests;
