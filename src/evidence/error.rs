//! What can keep us from recording or reading evidence. Why evidence is *refused* is data: [`super::Refusal`].

use std::path::PathBuf;

use crate::domain::{EventOrderError, Verdict};

/// Evidence could not be recorded or read. For a drill this is the end: without evidence there is nothing to claim.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// A file or directory could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or directory could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is there already, and evidence is never overwritten.
    #[error("{} exists already and is not overwritten", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// An event out of order: a mistake of ours, refused before it is written.
    #[error("event out of order")]
    Order(#[from] EventOrderError),
    /// A line of a journal is no event.
    #[error("line {line} of the journal is not an event")]
    Line {
        /// Counted from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// The events do not begin with `started` or do not end with `finished`.
    #[error("the events are not those of a whole drill: {what}")]
    Incomplete {
        /// What is not there.
        what: &'static str,
    },
    /// The recorded outcome is not what follows from the events.
    #[error("the drill recorded other {what} than follow from its events")]
    Disagrees {
        /// `measurements`, `assessments` or `verdict`.
        what: &'static str,
    },
    /// The recorded verdict is not the one that follows.
    #[error("the drill recorded {recorded}, and its events amount to {recounted}")]
    VerdictDisagrees {
        /// As recorded.
        recorded: Verdict,
        /// As it follows.
        recounted: Verdict,
    },
    /// A name that evidence files cannot have.
    #[error("`{name}` cannot name an evidence file")]
    FileName {
        /// The name.
        name: String,
    },
    /// A key is locked by a passphrase.
    #[error(
        "the key in {} is protected by a passphrase: give firedrill a key of its own without one, made with `firedrill init` or \
         `ssh-keygen -t ed25519 -N ''`, and readable by the runner alone",
        path.display()
    )]
    EncryptedKey {
        /// Where it is.
        path: PathBuf,
    },
    /// A key of another kind, or no key at all.
    #[error("{} holds no Ed25519 private key in OpenSSH or PKCS#8 PEM form", path.display())]
    NotAKey {
        /// Where it is.
        path: PathBuf,
        /// What the file is instead, in our words.
        reason: String,
    },
    /// A signer did not sign.
    #[error("the key could not sign: {reason}")]
    Signing {
        /// Why.
        reason: String,
    },
    /// Something could not be put into its form.
    #[error("cannot encode {what}")]
    Encode {
        /// What.
        what: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl EvidenceError {
    pub(super) fn read(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }
    pub(super) fn write(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write { path, source }
    }
    pub(super) fn encode(what: &'static str) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> Self {
        move |source| Self::Encode { what, source }
    }
}
