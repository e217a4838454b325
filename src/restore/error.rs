//! Why a restore ended, and whose fault it is.

use std::fmt;
use std::io;

use crate::codec::{CodecError, Fault, Layer, Limit, fault};
use crate::domain::{Cause, PathError};

/// Which object of a recovery point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// The bare object.
    Object,
    /// A sealed set's index.
    Index,
    /// A sealed set's part, from 0.
    Part(u32),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Member::Object => f.write_str("the object"),
            Member::Index => f.write_str("the index"),
            Member::Part(number) => write!(f, "part {number}"),
        }
    }
}

/// An entry's name as the archive writes it. Shown by nothing: whoever may show it takes the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryName(pub Vec<u8>);

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryName({} bytes)", self.0.len())
    }
}

/// The rule that a hostile entry broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostileRule {
    /// Its path is none.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A hard link's target is no path.
    #[error("a hard link leads out of the tree")]
    LinkOut,
    /// A hard link to something that is no earlier file.
    #[error("a hard link to something that is no earlier file")]
    LinkTarget,
    /// It would be written through a link that the archive made.
    #[error("it would be written through a symbolic link")]
    ThroughLink,
    /// It would be written below something that is no directory.
    #[error("it lies below something that is no directory")]
    BelowFile,
    /// It is there already.
    #[error("an entry of this name is there already")]
    Twice,
    /// A device node.
    #[error("it is a device node")]
    Device,
    /// The root, as something else than a directory.
    #[error("it would replace the root of the tree")]
    Root,
}

/// Why a restore ended. No text of these holds a path or content.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// An object's bytes are not what they should be.
    #[error("{member} is damaged, seen in its {layer} layer: {detail}")]
    Damaged {
        /// Which object.
        member: Member,
        /// The layer that noticed.
        layer: Layer,
        /// What it noticed.
        detail: String,
    },
    /// An object ends early.
    #[error("{member} ends early, seen in its {layer} layer: {detail}")]
    Truncated {
        /// Which object.
        member: Member,
        /// The layer that noticed.
        layer: Layer,
        /// What it noticed.
        detail: String,
    },
    /// An object is whole and well-formed, but not the one that the manifest describes.
    #[error("{member} is not what the manifest describes: {detail}")]
    Differs {
        /// Which object.
        member: Member,
        /// In what.
        detail: String,
    },
    /// None of the keys at hand opens it.
    #[error("{member} is encrypted to other keys than the {identities} at hand: {}", if found.is_empty() { "no recipient known to us".to_owned() } else { found.join(", ") })]
    NoMatchingRecipient {
        /// Which object.
        member: Member,
        /// How many identities were tried.
        identities: usize,
        /// Types of its recipients.
        found: Vec<String>,
    },
    /// Encrypted with a passphrase.
    #[error("{member} is encrypted with a passphrase, which an unattended drill does not have; encrypt to a recipient instead")]
    PassphraseEncrypted {
        /// Which object.
        member: Member,
    },
    /// Policy says encrypted, and it is not.
    #[error("{member} is not encrypted")]
    NotEncrypted {
        /// Which object.
        member: Member,
    },
    /// A format or feature that we do not read.
    #[error("{member} cannot be read, seen in its {layer} layer: {detail}")]
    Unsupported {
        /// Which object.
        member: Member,
        /// Which layer.
        layer: Layer,
        /// What it is, and what to do.
        detail: String,
    },
    /// The archive tries what no backup does.
    #[error("a hostile entry: {rule}")]
    Hostile {
        /// Which entry.
        entry: EntryName,
        /// Which rule it broke.
        rule: HostileRule,
    },
    /// It becomes more than it may.
    #[error("it exceeds its budget of {allowed} ({limit})")]
    Budget {
        /// Which budget.
        limit: Limit,
        /// Its value.
        allowed: u64,
    },
    /// It restores to nothing.
    #[error("it restores to nothing: {detail}")]
    Empty {
        /// What is empty.
        detail: &'static str,
    },
    /// The stored bytes could not be had. The cause is the source's own error.
    #[error("{member} could not be read from storage")]
    Source {
        /// Which object.
        member: Member,
        /// The source's own error.
        #[source]
        source: io::Error,
    },
    /// Scratch is full.
    #[error("scratch is full")]
    ScratchFull,
    /// Scratch could not be written.
    #[error("scratch could not be written ({operation})")]
    Scratch {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Somebody ended it.
    #[error("the restore was ended from outside")]
    Cancelled,
}

impl RestoreError {
    /// Whose fault it is.
    pub fn blame(&self) -> Cause {
        match self {
            // as many bytes as scratch has: a larger scratch may take them
            RestoreError::Budget { limit: Limit::Bytes, .. } => Cause::Runner,
            RestoreError::Damaged { .. }
            | RestoreError::Truncated { .. }
            | RestoreError::Differs { .. }
            | RestoreError::NoMatchingRecipient { .. }
            | RestoreError::PassphraseEncrypted { .. }
            | RestoreError::NotEncrypted { .. }
            | RestoreError::Hostile { .. }
            | RestoreError::Budget { .. }
            | RestoreError::Empty { .. } => Cause::Backup,
            // a format that we cannot read is no word about the backup
            RestoreError::Unsupported { .. }
            | RestoreError::Source { .. }
            | RestoreError::ScratchFull
            | RestoreError::Scratch { .. }
            | RestoreError::Cancelled => Cause::Runner,
        }
    }

    /// What a codec's reader says, about `member`.
    pub(super) fn reading(member: Member, error: io::Error) -> Self {
        match fault(error) {
            Fault::Bytes(error) => Self::bytes(member, error),
            Fault::Source(source) => RestoreError::Source { member, source },
        }
    }

    pub(super) fn bytes(member: Member, error: CodecError) -> Self {
        let detail = error.to_string();
        match error {
            CodecError::NotAge => RestoreError::NotEncrypted { member },
            CodecError::HeaderDamaged { .. } | CodecError::ChunkDamaged { .. } => {
                RestoreError::Damaged { member, layer: Layer::Age, detail }
            }
            CodecError::UnknownAgeVersion => RestoreError::Unsupported { member, layer: Layer::Age, detail },
            CodecError::PassphraseEncrypted => RestoreError::PassphraseEncrypted { member },
            CodecError::NoMatchingRecipient { identities, found } => RestoreError::NoMatchingRecipient { member, identities, found },
            CodecError::Truncated { layer, .. } | CodecError::Empty { layer } => RestoreError::Truncated { member, layer, detail },
            CodecError::Trailing { layer } | CodecError::Damaged { layer, .. } => RestoreError::Damaged { member, layer, detail },
            CodecError::Unsupported { layer, .. } => RestoreError::Unsupported { member, layer, detail },
            CodecError::Budget { limit, allowed } => RestoreError::Budget { limit, allowed },
        }
    }

    /// What the file system of scratch says.
    pub(super) fn scratch(operation: &'static str, error: impl Into<io::Error>) -> Self {
        let source = error.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => RestoreError::ScratchFull,
            _ => RestoreError::Scratch { operation, source },
        }
    }
}

/// Carries a reader's error through code that also writes.
#[derive(Debug)]
pub(super) enum Step {
    /// The reader failed: its member is known further up.
    Read(io::Error),
    /// Anything else.
    Other(RestoreError),
}

impl From<io::Error> for Step {
    fn from(error: io::Error) -> Self {
        Step::Read(error)
    }
}

impl From<RestoreError> for Step {
    fn from(error: RestoreError) -> Self {
        Step::Other(error)
    }
}

impl Step {
    pub(super) fn of(self, member: Member) -> RestoreError {
        match self {
            Step::Read(error) => RestoreError::reading(member, error),
            Step::Other(error) => error,
        }
    }
}
