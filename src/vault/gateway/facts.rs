//! What happened at the gateway, counted, for whoever decides what it means.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::error::VaultError;

/// Refused requests that are kept apart by key; more are only counted.
const REFUSED: usize = 64;
/// Bytes of a key that are kept.
const KEY: usize = 1024;

/// What a tool asked of the gateway, and what went wrong.
#[derive(Debug, Clone, Default)]
pub struct GatewayFacts {
    /// Requests that were signed well, by operation, in S3's words.
    pub requests: BTreeMap<String, u64>,
    /// Bytes of objects that were handed to the tool.
    pub bytes_served: u64,
    /// What was refused because a drill changes nothing, or shows no more than its prefix; the first kinds of it, and of every operation
    /// the first.
    pub refused: Vec<Refused>,
    /// All refused requests, by operation.
    pub refusals: BTreeMap<String, u64>,
    /// What the backup storage did not give, one entry for each kind.
    pub failures: Vec<UpstreamFailure>,
    /// Objects that were asked for and are not there. Tools look for things that need not be.
    pub missing: u64,
    /// Requests with a wrong signature, or none.
    pub bad_signatures: u64,
    /// Objects that tools wrote, kept in memory until the drill ends.
    pub overlay_objects: u64,
    /// Bytes of them.
    pub overlay_bytes: u64,
}

/// Something that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The operation, in S3's words.
    pub operation: String,
    /// The key it was about, where it was about one. Can be patient data.
    pub key: Option<String>,
    /// How many times.
    pub times: u64,
}

/// Why the backup storage could not be read.
#[derive(Debug, Clone)]
pub struct UpstreamFailure {
    /// The first of its kind.
    pub error: Arc<VaultError>,
    /// What was asked for then: a key, or a prefix. Can be patient data.
    pub key: String,
    /// How many times.
    pub times: u64,
}

impl GatewayFacts {
    /// All refused requests.
    pub fn refused_total(&self) -> u64 {
        self.refusals.values().sum()
    }
}

fn count(times: &mut BTreeMap<String, u64>, operation: &str) {
    match times.get_mut(operation) {
        Some(times) => *times += 1,
        None => drop(times.insert(operation.to_owned(), 1)),
    }
}

/// The facts while they are gathered.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    facts: Mutex<GatewayFacts>,
    bytes: AtomicU64,
}

impl Gathered {
    fn with<T>(&self, change: impl FnOnce(&mut GatewayFacts) -> T) -> T {
        change(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn request(&self, operation: &'static str) {
        self.with(|facts| count(&mut facts.requests, operation));
    }
    pub(super) fn served(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    pub(super) fn missing(&self) {
        self.with(|facts| facts.missing += 1);
    }
    pub(super) fn bad_signature(&self) {
        self.with(|facts| facts.bad_signatures += 1);
    }

    pub(super) fn refused(&self, operation: &'static str, key: Option<&str>) {
        let key = key.map(|key| key.chars().take(KEY).collect::<String>());
        self.with(|facts| {
            count(&mut facts.refusals, operation);
            if let Some(known) = facts.refused.iter_mut().find(|known| known.operation == operation && known.key == key) {
                known.times += 1;
            } else if facts.refused.len() < REFUSED || !facts.refused.iter().any(|known| known.operation == operation) {
                facts.refused.push(Refused { operation: operation.to_owned(), key, times: 1 });
            }
        });
    }

    pub(super) fn failed(&self, key: &str, error: VaultError) {
        let kind = |error: &VaultError| (discriminant(error), error.storage().map(discriminant));
        self.with(|facts| match facts.failures.iter_mut().find(|known| kind(&known.error) == kind(&error)) {
            Some(known) => known.times += 1,
            None => facts.failures.push(UpstreamFailure { error: Arc::new(error), key: key.to_owned(), times: 1 }),
        });
    }

    pub(super) fn so_far(&self) -> GatewayFacts {
        GatewayFacts { bytes_served: self.bytes.load(Ordering::Relaxed), ..self.with(|facts| facts.clone()) }
    }
}
