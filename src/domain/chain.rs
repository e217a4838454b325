//! The restore chain: the exact object versions that a restore read, by whom, how much of each, and under which lock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Blake3, LockFacts, LockState, Period, Pseudonym, Sha256, Timestamp};

/// Who read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reader {
    /// The native pipeline.
    Pipeline,
    /// The mirror of a prefix, for a tool that reads directories.
    Mirror,
    /// A foreign tool, through the gateway.
    Tool,
}

/// Bytes of one object version that were read at one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct RangeRead {
    /// By whom.
    pub by: Reader,
    /// First byte.
    pub start: u64,
    /// The byte after the last that was asked for.
    pub end: u64,
    /// Bytes that arrived; fewer than asked for where the reader went away.
    pub bytes: u64,
    /// BLAKE3 of exactly these bytes; `None` where they were hashed as part of the whole object, or did not all arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<Blake3>,
}

/// One object version that a restore read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct ObjectRead {
    /// Stands for the key.
    pub object: Pseudonym,
    /// What it is for the restore: `manifest`, `index`, `part`, `object`.
    pub role: String,
    /// Version the drill pinned; `None` where the store has no versions or does not say.
    pub version: Option<String>,
    /// Entity tag, as the server gave it.
    pub etag: Option<String>,
    /// Bytes the object has.
    pub size: u64,
    /// When it was stored, as the store says.
    pub stored_at: Timestamp,
    /// Bytes that were read from the store for it.
    pub bytes_read: u64,
    /// GET requests that were made for it.
    pub requests: u64,
    /// Of all its bytes as they were read; `None` where not all were read.
    pub blake3: Option<Blake3>,
    /// Of all its bytes.
    pub sha256: Option<Sha256>,
    /// `read` where sha256 was computed from the bytes read, `manifest` where it is quoted from a manifest whose blake3
    /// of the same object matched the bytes read.
    pub sha256_from: Option<String>,
    /// Its lock.
    pub lock: LockFacts,
    /// Storage class, where the server says one.
    pub storage_class: Option<String>,
    /// Encryption at rest that the server reports.
    pub server_encryption: Option<String>,
    /// What was read, in the order it was asked for; neighbouring reads of the same reader without digests of their own are
    /// one. In the chain's file only: the report leaves it out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reads: Vec<RangeRead>,
}

/// What one kind of reader read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct ReaderTotals {
    /// Object versions.
    pub objects: u64,
    /// Bytes that came from the storage.
    pub bytes: u64,
}

/// The locks of a chain, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct LockTotals {
    /// Versions under retention when the drill started.
    pub locked: u64,
    /// Versions without, or whose retention was over.
    pub not_locked: u64,
    /// Versions whose lock could not be seen.
    pub unknown: u64,
    /// Versions under a legal hold.
    pub legal_holds: u64,
    /// What the first lock to run out had left at the drill's start, seconds.
    pub least_left: Option<Period>,
    /// When it runs out.
    pub first_until: Option<Timestamp>,
    /// Up to ten versions that are not locked.
    pub examples: Vec<Pseudonym>,
}

/// Whether every lock of a chain is as policy demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LockPolicyVerdict {
    /// Every version's.
    Kept,
    /// At least one version's is not.
    Broken,
    /// None is known to break it, and at least one could not be seen.
    NotVisible,
}

/// The whole chain in a file of its own: one JSON document a line, compressed with zstd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct ChainFile {
    /// Its name beside the report.
    pub name: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// SHA-256 of it as it is, compressed.
    pub sha256: Sha256,
    /// BLAKE3 of the same.
    pub blake3: Blake3,
}

/// Whether anything may have come from an earlier drill instead of the storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Caches {
    /// Nothing: scratch, a tool's home and its cache are made anew for every drill, and the gateway keeps nothing.
    #[default]
    Cold,
}

/// A chain in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct ChainSummary {
    /// Object versions that were pinned.
    pub objects: u64,
    /// Bytes that they have.
    pub size: u64,
    /// Bytes that came from the storage in this drill: nothing is served from a cache of an earlier one.
    pub bytes_read: u64,
    /// GET requests that the storage was sent for them.
    pub requests: u64,
    /// By whom.
    pub by: BTreeMap<Reader, ReaderTotals>,
    /// Their locks.
    pub locks: LockTotals,
    /// The policy's verdict on the locks; `None` where the scenario has no such policy.
    pub lock_policy: Option<LockPolicyVerdict>,
    /// What was served from something that an earlier drill had kept.
    #[serde(default)]
    pub caches: Caches,
    /// The instant as of which the bucket was shown.
    pub as_of: Option<Timestamp>,
    /// The whole chain; `None` where it could not be kept.
    pub file: Option<ChainFile>,
}

/// The exact object versions that a restore read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct RestoreChain {
    /// In the order they were first read; the first [`RestoreChain::SHOWN`] of them where there is a summary.
    pub objects: Vec<ObjectRead>,
    /// All of them in numbers; absent in evidence of older versions, which holds them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Box<ChainSummary>>,
}

impl RestoreChain {
    /// Objects that events and report show.
    pub const SHOWN: usize = 100;

    /// Bytes read from the store, all objects together.
    pub fn bytes_read(&self) -> u64 {
        self.summary.as_ref().map_or_else(|| self.objects.iter().map(|o| o.bytes_read).sum(), |summary| summary.bytes_read)
    }

    /// Requests that the store was sent for them.
    pub fn requests(&self) -> u64 {
        self.summary.as_ref().map_or_else(|| self.objects.iter().map(|o| o.requests).sum(), |summary| summary.requests)
    }

    /// Object versions, those that are not shown included.
    pub fn count(&self) -> u64 {
        self.summary.as_ref().map_or(self.objects.len() as u64, |summary| summary.objects)
    }

    /// Their locks, as of the drill's start.
    pub fn locks(&self, started: Timestamp) -> LockTotals {
        self.summary.as_ref().map_or_else(|| LockTotals::of(&self.objects, started), |summary| summary.locks.clone())
    }
}

impl LockTotals {
    /// Examples that are kept.
    const EXAMPLES: usize = 10;

    /// Counts the locks of `objects` as they stood at `at`.
    pub fn of(objects: &[ObjectRead], at: Timestamp) -> Self {
        let mut totals = Self::default();
        for object in objects {
            totals.legal_holds += u64::from(object.lock.legal_hold == Some(true));
            match &object.lock.state {
                LockState::Locked { until, .. } if until.seconds_since(at) > 0 => {
                    totals.locked += 1;
                    if totals.first_until.is_none_or(|first| *until < first) {
                        totals.first_until = Some(*until);
                        totals.least_left = Some(Period::from_secs(until.seconds_since(at).unsigned_abs()));
                    }
                }
                LockState::Locked { .. } | LockState::NotLocked => {
                    totals.not_locked += 1;
                    if totals.examples.len() < Self::EXAMPLES {
                        totals.examples.push(object.object.clone());
                    }
                }
                LockState::Unknown { .. } => totals.unknown += 1,
            }
        }
        totals
    }
}

impl ChainSummary {
    /// Sums a chain up, as of the drill's start.
    pub fn of(objects: &[ObjectRead], started: Timestamp) -> Self {
        let mut by: BTreeMap<Reader, ReaderTotals> = BTreeMap::new();
        for object in objects {
            let mut seen: Vec<Reader> = Vec::new();
            for read in &object.reads {
                let totals = by.entry(read.by).or_default();
                totals.bytes += read.bytes;
                if !seen.contains(&read.by) {
                    seen.push(read.by);
                    totals.objects += 1;
                }
            }
        }
        Self {
            objects: objects.len() as u64,
            size: objects.iter().map(|o| o.size).sum(),
            bytes_read: objects.iter().map(|o| o.bytes_read).sum(),
            requests: objects.iter().map(|o| o.requests).sum(),
            by,
            locks: LockTotals::of(objects, started),
            lock_policy: None,
            caches: Caches::Cold,
            as_of: None,
            file: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{LockFacts, LockMode};

    fn object(name: &str, state: LockState, reads: Vec<RangeRead>) -> ObjectRead {
        ObjectRead {
            object: Pseudonym(name.into()),
            role: "object".into(),
            version: None,
            etag: None,
            size: 100,
            stored_at: Timestamp::from_unix(0),
            bytes_read: reads.iter().map(|r| r.bytes).sum(),
            requests: reads.len() as u64,
            blake3: None,
            sha256: None,
            sha256_from: None,
            lock: LockFacts { state, legal_hold: None },
            storage_class: None,
            server_encryption: None,
            reads,
        }
    }

    fn read(by: Reader, bytes: u64) -> RangeRead {
        RangeRead { by, start: 0, end: bytes, bytes, blake3: None }
    }

    #[test]
    fn a_chain_is_summed_up_by_reader_and_lock() {
        let locked = |until| LockState::Locked { mode: LockMode::Compliance, until: Timestamp::from_unix(until) };
        let objects = [
            object("a", locked(1_500), vec![read(Reader::Tool, 10), read(Reader::Tool, 20), read(Reader::Pipeline, 5)]),
            object("b", locked(1_200), vec![read(Reader::Tool, 7)]),
            object("run out", locked(900), vec![]),
            object("open", LockState::NotLocked, vec![]),
            object("hidden", LockState::Unknown { reason: "403".into() }, vec![]),
        ];
        let summary = ChainSummary::of(&objects, Timestamp::from_unix(1_000));
        assert_eq!((summary.objects, summary.size, summary.bytes_read, summary.requests), (5, 500, 42, 4));
        assert_eq!(summary.by[&Reader::Tool], ReaderTotals { objects: 2, bytes: 37 });
        assert_eq!(summary.by[&Reader::Pipeline], ReaderTotals { objects: 1, bytes: 5 });
        let locks = &summary.locks;
        assert_eq!((locks.locked, locks.not_locked, locks.unknown), (2, 2, 1));
        assert_eq!((locks.least_left, locks.first_until), (Some(Period::from_secs(200)), Some(Timestamp::from_unix(1_200))));
        assert_eq!(locks.examples, [Pseudonym("run out".into()), Pseudonym("open".into())]);
    }

    #[test]
    fn a_chain_of_an_older_version_is_counted_from_its_objects() {
        let old: RestoreChain = serde_json::from_str(r#"{"objects": []}"#).unwrap();
        assert_eq!((old.count(), old.bytes_read(), &old.summary), (0, 0, &None));
        assert_eq!(serde_json::to_string(&old).unwrap(), r#"{"objects":[]}"#);
        let chain = RestoreChain { objects: vec![object("a", LockState::NotLocked, vec![read(Reader::Tool, 3)])], summary: None };
        assert_eq!((chain.count(), chain.bytes_read(), chain.locks(Timestamp::from_unix(0)).not_locked), (1, 3, 1));
    }
}
