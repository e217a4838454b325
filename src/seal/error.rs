//! Why nothing was sealed. These are told to whoever runs the backup host; they name paths of that host.

use std::io;
use std::path::PathBuf;

use crate::domain::PathError;
use crate::tree::WalkError;

/// Why nothing was sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// There is nothing in the sources.
    #[error("there is nothing to seal: the sources have no entries, or the stream no bytes")]
    Nothing,
    /// The id cannot name a set.
    #[error("`{id}` cannot name a set: use letters, digits, `-`, `_` and `.`, at most 128, and begin with a letter or digit")]
    Id {
        /// The id.
        id: String,
    },
    /// Two sources of the same name.
    #[error("two sources are named `{name}`; seal them as two sets, or their parent directory")]
    SameName {
        /// Their name.
        name: String,
    },
    /// A source has no name of its own, as `/` or `..` among several.
    #[error("`{path}` has no name of its own to be sealed under")]
    NoName {
        /// The source.
        path: PathBuf,
    },
    /// A name that no path may have.
    #[error("`{name}` cannot name the sealed file")]
    Name {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: PathError,
    },
    /// A source could not be listed.
    #[error("`{path}` could not be listed")]
    List {
        /// The source.
        path: PathBuf,
        /// Why.
        #[source]
        source: WalkError,
    },
    /// A source could not be read.
    #[error("`{path}` could not be read")]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A large file became shorter while it was read.
    #[error("`{path}` became shorter while it was read: seal a snapshot, or stop what writes to it")]
    Shrunk {
        /// Which.
        path: PathBuf,
    },
    /// A file vanished that other names link to.
    #[error("`{path}` vanished while its other names were read: seal a snapshot, or stop what writes to it")]
    LinkVanished {
        /// Which.
        path: PathBuf,
    },
    /// A device node among the sources.
    #[error("`{path}` is a device node, which no backup holds")]
    Device {
        /// Which.
        path: PathBuf,
    },
    /// The store refused.
    #[error("`{object}` could not be written")]
    Write {
        /// Which object of the set.
        object: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The spool could not be used.
    #[error("the spool `{path}` could not be used")]
    Spool {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Compression failed.
    #[error("zstd could not compress")]
    Compress(#[source] io::Error),
    /// The producer's key cannot sign.
    #[error("the producer's key cannot sign: give an OpenSSH Ed25519 key without a passphrase")]
    Sign(#[source] ssh_key::Error),
    /// Somebody ended it.
    #[error("ended from outside; nothing was sealed")]
    Cancelled,
}
