//! The facts of a drill, written down, signed, and checked again by strangers.
//!
//! - [`Journal`] writes each event before anybody is told of it.
//! - [`Report`] is a pure fold of the events; [`seal_evidence`] writes it, its attestation and its sums as one directory,
//!   whole or not at all.
//! - [`verify`] takes such a directory and a [`TrustFile`], recomputes everything, and only then hands out an
//!   [`Attestation`]. Evidence never vouches for itself: without a trust file there is no verification.
//!
//! Absent on purpose: no clock (times come in), no network, no way to change or delete evidence, no patients' data.
//! Compiles without the `runner` feature, which is all that `firedrill-verify` needs.

mod annex;
pub mod auditor;
mod controls;
mod dsse;
mod error;
mod journal;
mod key;
pub mod ledger;
mod limits;
mod report;
mod seal;
mod sshsig;
mod statement;
mod store;
mod sums;
mod trust;
mod verify;

#[cfg(all(test, feature = "runner"))]
#[path = "../../tests/it/sample.rs"]
pub(crate) mod sample;

pub use annex::{Annex, AnnexEntry, Pseudonymizer};
pub use controls::{Basis, Control, ControlOutcome, ControlRow, Profile, ProfileRows, profiles};
pub use dsse::{Envelope, EnvelopeSignature, PAYLOAD_TYPE, pae};
pub use error::EvidenceError;
pub use journal::{Journal, JournalRead, attachment, read_journal};
pub use key::{KeyCustody, NAMESPACE, PublicKey, Signer, SignerKey};
pub use limits::Limit;
#[cfg(feature = "runner")]
pub use report::report_schema;
pub use report::{Backup, ClockFacts, ComponentFacts, Definition, Issuer, PhaseTime, REPORT_SCHEMA, Report};
pub use seal::{SealedEvidence, seal_evidence};
pub use statement::{
    CHAIN_SUBJECT, CONCLUSIVE, Digests, PREDICATE_TYPE, Predicate, STATEMENT_LIMIT, STATEMENT_TYPE, Statement, Subject, TestResult,
    statement,
};
pub use store::check_writable;
pub use sums::{Sums, sha256};
pub use trust::{Distrust, TrustError, TrustFile, TrustedKey};
pub use verify::{Attestation, Refusal, Refused, ledgers_below, reports_below, verify};

/// Names of the files of one drill's evidence.
pub mod names {
    /// The full record.
    pub const REPORT: &str = "report.json";
    /// The same for people.
    pub const REPORT_HTML: &str = "report.html";
    /// The journal.
    pub const EVENTS: &str = "events.jsonl";
    /// One line for each check.
    pub const CHECKS: &str = "checks.jsonl";
    /// The DSSE envelope.
    pub const ATTESTATION: &str = "attestation.dsse.json";
    /// For `sha256sum -c`.
    pub const SUMS: &str = "SHA256SUMS";
    /// For `ssh-keygen -Y verify`.
    pub const SUMS_SIGNATURE: &str = "SHA256SUMS.sig";
    /// For `openssl pkeyutl -verify`. A convenience, never a reason to trust.
    pub const SIGNER: &str = "signer.pub.pem";
    /// The whole restore chain, one object version a line, compressed with zstd.
    pub const CHAIN: &str = "chain.jsonl.zst";
    /// What checks observed of databases, for later drills to compare with.
    pub const OBSERVED: &str = "observed.json";
    /// Proof that the drill was entered in the ledger before it started. C2SP `tlog-proof`.
    pub const ENTERED: &str = "entered.tlog-proof";
    /// Encrypted details that may be patients' data.
    pub const ANNEX: &str = "annex.age";
}
