//! What tools write, kept in memory for as long as the drill lasts: lock files, mostly. None of it reaches the backup storage,
//! to which there is no way from here.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::answers::S3Error;
use crate::domain::Timestamp;

/// What an entry costs beside its key and its bytes.
const ENTRY: u64 = 128;

/// An object that a tool wrote.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub bytes: Bytes,
    /// Quoted.
    pub etag: String,
    pub stored_at: Timestamp,
    pub content: Vec<(String, String)>,
}

/// Written objects, and the names of those that were deleted.
#[derive(Debug)]
pub(super) struct Overlay {
    limit: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// `None`: a tool deleted it.
    entries: BTreeMap<String, Option<Kept>>,
    used: u64,
}

fn cost(key: &str, kept: Option<&Kept>) -> u64 {
    ENTRY + key.len() as u64 + kept.map_or(0, |kept| kept.bytes.len() as u64)
}

/// Bytes that are promised to a request whose body is still on its way.
pub(super) struct Room<'a> {
    overlay: &'a Overlay,
    bytes: u64,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.overlay.with(|inner| inner.used -= self.bytes);
    }
}

impl Overlay {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, inner: Mutex::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Holds room for a body of so many bytes.
    pub(super) fn room(&self, bytes: u64) -> Result<Room<'_>, S3Error> {
        self.with(|inner| {
            let used = inner.used.checked_add(bytes).filter(|used| *used <= self.limit).ok_or(S3Error::QuotaExceeded)?;
            inner.used = used;
            Ok(())
        })?;
        Ok(Room { overlay: self, bytes })
    }

    /// Keeps an object, or with `None` that there is none of this name.
    pub(super) fn keep(&self, key: &str, kept: Option<Kept>) -> Result<(), S3Error> {
        self.with(|inner| {
            let before = inner.entries.get(key).map_or(0, |old| cost(key, old.as_ref()));
            let used = inner.used - before + cost(key, kept.as_ref());
            // what makes room is always possible
            if used > self.limit && used > inner.used {
                return Err(S3Error::QuotaExceeded);
            }
            inner.used = used;
            inner.entries.insert(key.to_owned(), kept);
            Ok(())
        })
    }

    /// `Some(None)`: deleted. `None`: nothing was written here.
    pub(super) fn get(&self, key: &str) -> Option<Option<Kept>> {
        self.with(|inner| inner.entries.get(key).cloned())
    }

    /// Entries below `prefix`, after `after`, up to and including `until`.
    pub(super) fn between(&self, prefix: &str, after: Option<&str>, until: Option<&str>) -> Vec<(String, Option<Kept>)> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.with(|inner| {
            let entries = inner.entries.range::<str, _>((from, Bound::Unbounded));
            let within = entries.take_while(|(key, _)| key.starts_with(prefix) && until.is_none_or(|until| key.as_str() <= until));
            within.map(|(key, kept)| (key.clone(), kept.clone())).collect()
        })
    }

    /// Objects, and their bytes.
    pub(super) fn totals(&self) -> (u64, u64) {
        self.with(|inner| {
            let kept = inner.entries.values().flatten();
            kept.fold((0, 0), |(objects, bytes), kept| (objects + 1, bytes + kept.bytes.len() as u64))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(bytes: usize) -> Option<Kept> {
        Some(Kept { bytes: vec![0; bytes].into(), etag: String::new(), stored_at: Timestamp::from_unix(0), content: Vec::new() })
    }

    #[test]
    fn it_is_bounded_and_gives_room_back() {
        let overlay = Overlay::new(1000);
        overlay.keep("a", kept(500)).unwrap();
        assert!(overlay.keep("b", kept(500)).is_err());
        overlay.keep("a", kept(100)).unwrap();
        overlay.keep("b", kept(500)).unwrap();
        assert!(overlay.room(500).is_err());
        drop(overlay.room(50).unwrap());
        overlay.keep("b", None).unwrap();
        assert_eq!(overlay.totals(), (1, 100));
        assert!(overlay.room(500).is_ok());
    }

    #[test]
    fn deletions_are_bounded_as_well() {
        let overlay = Overlay::new(1000);
        assert!((0..100).any(|i| overlay.keep(&format!("k{i}"), None).is_err()));
    }
}
