//! Anchors: checkpoints of the ledger, carried to places where whoever can rewrite the ledger cannot rewrite them.
//!
//! A bucket and a directory keep each checkpoint under the ledger's name and its size, and belong to one ledger: whatever else
//! is found there disagrees. An authority keeps nothing. Its token says when it saw which checkpoint; both lie in the ledger's
//! directory, in `anchors/<name>/`, and should be copied from there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};

use super::outbox::{private_directory, write_durably};
use super::{ArchiveError, Safe, timestamp};
use crate::domain::{AnchorKind, AnchorPlace, LockedBucket, Timestamp, keep_until};
use crate::evidence::ledger::{Anchor, Checkpoint};
use crate::evidence::sha256;
use crate::storage::{Environment, Now, post};

/// Folder of checkpoints in a bucket.
const FOLDER: &str = "checkpoint/";
const EXTENSION: &str = "checkpoint";
const TOKEN: &str = "tsr";
/// No answer of an authority is nearly as long.
const LONGEST_ANSWER: usize = 1 << 20;
/// Checkpoints that are read at the same time.
const AT_ONCE: usize = 8;

/// Where an anchor is reached from.
pub struct Ground<'a> {
    /// The ledger's directory.
    pub ledger: &'a Path,
    /// The environment, with the credentials of this anchor.
    pub environment: &'a Environment,
    /// The time.
    pub now: Now,
}

/// Carries a checkpoint to a place, and sees that it is kept there.
///
/// # Errors
/// [`ArchiveError`].
pub async fn carry(checkpoint: &Checkpoint, place: &AnchorPlace, ground: &Ground<'_>) -> Result<(), ArchiveError> {
    let bytes = checkpoint.as_bytes();
    match &place.kind {
        AnchorKind::Bucket(bucket) => {
            let safe = Safe::open(bucket, ground.environment, Now::clone(&ground.now)).await?;
            let name = format!("{FOLDER}{}/{}", log(checkpoint), checkpoint.size);
            let until = keep_until((ground.now)(), None, bucket.retention);
            safe.keep(&name, Bytes::copy_from_slice(bytes), until).await.map(drop)
        }
        AnchorKind::Directory(directory) => {
            // one that is made where a medium should be is on the same disk as the ledger
            fs::read_dir(directory).map_err(local(directory))?;
            write_once(&directory.join(format!("{}-{}.{EXTENSION}", log(checkpoint), checkpoint.size)), bytes)
        }
        AnchorKind::Timestamp { url, ca } => {
            let directory = tokens(ground.ledger, place);
            private_directory(&directory).map_err(local(&directory))?;
            let path = directory.join(format!("{}.{EXTENSION}", checkpoint.size));
            if !path.exists() {
                let token = ask(url, ca, bytes, Now::clone(&ground.now)).await?;
                write_durably(&path.with_extension(TOKEN), &token)?;
            }
            // last: a checkpoint without its token is no anchor
            write_once(&path, bytes)
        }
    }
}

/// Every checkpoint that is kept in a place. `last` is what was carried there last.
///
/// # Errors
/// [`ArchiveError::NothingKept`] where there is none; others.
pub async fn kept(place: &AnchorPlace, last: Option<&LastCarried>, ground: &Ground<'_>) -> Result<Vec<Anchor>, ArchiveError> {
    let named = |what: &str, bytes: Vec<u8>, seen_at| Anchor { name: format!("{what} of anchor {}", place.name), bytes, seen_at };
    let anchors: Vec<Anchor> = match &place.kind {
        AnchorKind::Bucket(bucket) => {
            let found = kept_in_bucket(bucket, ground).await?;
            found.into_iter().map(|(name, bytes)| named(&name, bytes, None)).collect()
        }
        AnchorKind::Directory(directory) => {
            fs::read_dir(directory).map_err(local(directory))?;
            let found = kept_in_directory(directory)?;
            found.into_iter().map(|(path, bytes)| named(&file_name(&path), bytes, None)).collect()
        }
        AnchorKind::Timestamp { ca, .. } => {
            let ca = fs::read(ca).map_err(local(ca))?;
            let believed = |(path, bytes): (PathBuf, Vec<u8>)| {
                let token = path.with_extension(TOKEN);
                let answer = fs::read(&token).map_err(local(&token))?;
                let seen = timestamp::seen_at(&answer, &bytes, None, &ca);
                let seen = seen.map_err(|why| ArchiveError::Timestamp { of: token.display().to_string(), why })?;
                Ok(named(&file_name(&path), bytes, Some(seen)))
            };
            let found = kept_in_directory(&tokens(ground.ledger, place))?;
            // they lie beside the ledger: whoever shortens it can take away what covers more
            if let Some(last) = last.filter(|last| !found.iter().any(|(_, bytes)| last.is(bytes))) {
                return Err(ArchiveError::CarriedAndGone { place: place.name.clone(), size: last.size });
            }
            found.into_iter().map(believed).collect::<Result<_, ArchiveError>>()?
        }
    };
    if anchors.is_empty() { Err(ArchiveError::NothingKept { place: place.name.clone() }) } else { Ok(anchors) }
}

/// Every version: a newer one, or a mark that it was deleted, hides what is locked and takes nothing of it away.
async fn kept_in_bucket(bucket: &LockedBucket, ground: &Ground<'_>) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
    let safe = Safe::open(bucket, ground.environment, Now::clone(&ground.now)).await?;
    let versions = safe.versions(FOLDER).await?;
    let read = |(name, version): (String, String)| {
        let safe = &safe;
        async move {
            let (_, bytes) = safe.read(&name, Some(&version)).await?;
            Ok((name, bytes.to_vec()))
        }
    };
    futures_util::stream::iter(versions).map(read).buffered(AT_ONCE).try_collect().await
}

/// Files that are checkpoints by their names; none where there is no such directory.
fn kept_in_directory(directory: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, ArchiveError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(local(directory))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(local(directory))?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            let bytes = fs::read(&path).map_err(local(&path))?;
            found.push((path, bytes));
        }
    }
    found.sort();
    Ok(found)
}

/// Asks an authority for a token over `bytes`, and believes it as whoever reads it later will.
async fn ask(url: &str, ca: &Path, bytes: &[u8], now: Now) -> Result<Bytes, ArchiveError> {
    let ca = fs::read(ca).map_err(local(ca))?;
    let mut nonce = [0; 8];
    aws_lc_rs::rand::fill(&mut nonce)
        .map_err(|_| ArchiveError::Timestamp { of: url.to_owned(), why: "the system gives no randomness".to_owned() })?;
    let request = timestamp::request(bytes, nonce);
    let (operation, content_type) = ("a timestamp request", "application/timestamp-query");
    let answer = post(operation, url, content_type, request.clone().into(), LONGEST_ANSWER, now).await.map_err(ArchiveError::Authority)?;
    match timestamp::seen_at(&answer, bytes, Some(&request), &ca) {
        Ok(_) => Ok(answer),
        Err(why) => Err(ArchiveError::Timestamp { of: url.to_owned(), why }),
    }
}

/// Writes a file where none is, and reads it back. One that is there already counts where it has the same bytes.
fn write_once(path: &Path, bytes: &[u8]) -> Result<(), ArchiveError> {
    if !path.exists() {
        write_durably(path, bytes)?;
    }
    let found = fs::read(path).map_err(local(path))?;
    if found == bytes { Ok(()) } else { Err(ArchiveError::Differs { name: path.display().to_string() }) }
}

/// A ledger's name, as far as a key or a file can have it.
fn log(checkpoint: &Checkpoint) -> String {
    sha256(checkpoint.origin.as_bytes()).to_string().chars().take(16).collect()
}

fn tokens(ledger: &Path, place: &AnchorPlace) -> PathBuf {
    ledger.join("anchors").join(&place.name)
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn local(path: &Path) -> impl FnOnce(io::Error) -> ArchiveError + use<> {
    let path = path.to_owned();
    move |source| ArchiveError::Local { path, source }
}

/// What was carried last to each place, by its name: remembered below the state directory. Where it is lost, all are due.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Carried(BTreeMap<String, LastCarried>);

/// The checkpoint that was carried last to a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCarried {
    /// Of which log.
    pub origin: String,
    /// How many entries it covers.
    pub size: u64,
    /// When.
    pub at: Timestamp,
}

impl LastCarried {
    /// Whether a checkpoint is of this log and size.
    fn is(&self, checkpoint: &[u8]) -> bool {
        checkpoint.starts_with(format!("{}\n{}\n", self.origin, self.size).as_bytes())
    }
}

impl Carried {
    /// What is remembered in `state`.
    ///
    /// # Errors
    /// [`ArchiveError::Local`].
    pub fn read(state: &Path) -> Result<Self, ArchiveError> {
        let path = Self::path(state);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(local(&path)(error)),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| local(&path)(e.into())),
        }
    }

    /// Remembers that a checkpoint was carried to the places that have these names.
    ///
    /// # Errors
    /// [`ArchiveError::Local`].
    pub fn remember(state: &Path, names: &[String], checkpoint: &Checkpoint, at: Timestamp) -> Result<(), ArchiveError> {
        let mut carried = Self::read(state)?;
        let last = LastCarried { origin: checkpoint.origin.clone(), size: checkpoint.size, at };
        carried.0.extend(names.iter().map(|name| (name.clone(), last.clone())));
        write_durably(&Self::path(state), &serde_json::to_vec_pretty(&carried).expect("it is plain data"))
    }

    /// What was carried last to a place.
    pub fn last(&self, name: &str) -> Option<&LastCarried> {
        self.0.get(name)
    }

    fn path(state: &Path) -> PathBuf {
        state.join("archive").join("anchors.json")
    }
}
