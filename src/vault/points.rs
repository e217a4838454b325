//! Recovery points: sealed sets by their manifests, bare objects by their names.

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::error::VaultError;
use super::read_only::ReadStore;
use crate::codec::manifest::{MANIFEST, MAX_BYTES, Manifest, is_set_id};
use crate::domain::{CaptureSource, ObjectRef, PointForm, PointPattern, RecoveryPoint, TimeZone};
use crate::storage::{Depth, StorageError};

/// Manifests that are read at the same time.
const CONCURRENCY: usize = 16;
/// Sets whose manifest is read: the newest by their ids, which begin with the time. A daily backup of a year fits.
const NEWEST: usize = 400;

/// What lies below a prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PointList {
    /// Recovery points, oldest capture first.
    pub points: Vec<RecoveryPoint>,
    /// Sets that are there, and cannot be read. Their capture time is unknown, so a drill could miss the newest backup:
    /// whoever selects must look here.
    pub broken: Vec<BrokenPoint>,
    /// Sets without a manifest: being written, or broken off. They do not count as backups.
    pub half_written: u64,
    /// Sets beyond the newest, whose manifests were not read.
    pub unread: u64,
    /// Objects below the prefix that are no recovery points, or that cannot be asked for.
    pub other: u64,
}

/// A sealed set whose manifest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenPoint {
    /// Its id: the name of its directory.
    pub id: String,
    /// What is wrong, in our own words.
    pub why: String,
}

enum Found {
    Point(RecoveryPoint),
    Broken(BrokenPoint),
    HalfWritten,
    NoSet,
}

/// Sealed sets: `<prefix><id>/manifest.json` is written last, so where it is there the set is whole.
pub(super) async fn sealed(store: &Arc<dyn ReadStore>, prefix: &str) -> Result<PointList, VaultError> {
    let mut ids = Vec::new();
    let mut list = PointList::default();
    store
        .list(prefix, Depth::OneLevel, &mut |page| {
            list.other += page.objects.len() as u64 + page.skipped;
            for folder in &page.prefixes {
                let id = folder[prefix.len()..].trim_end_matches('/');
                if is_set_id(id) {
                    ids.push(id.to_owned());
                } else if id.starts_with('.') && id.ends_with(".partial") {
                    list.half_written += 1;
                } else {
                    list.other += 1;
                }
            }
        })
        .await?;
    ids.sort_unstable_by(|a, b| b.cmp(a));
    list.unread = ids.len().saturating_sub(NEWEST) as u64;
    ids.truncate(NEWEST);
    let mut reading = stream::iter(ids).map(|id| read_set(Arc::clone(store), prefix.to_owned(), id)).buffer_unordered(CONCURRENCY);
    while let Some(found) = reading.next().await {
        match found? {
            Found::Point(point) => list.points.push(point),
            Found::Broken(broken) => list.broken.push(broken),
            Found::HalfWritten => list.half_written += 1,
            Found::NoSet => list.other += 1,
        }
    }
    drop(reading);
    list.points.sort_by(|a, b| (a.captured_at, &a.id).cmp(&(b.captured_at, &b.id)));
    list.broken.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(list)
}

async fn read_set(store: Arc<dyn ReadStore>, prefix: String, id: String) -> Result<Found, VaultError> {
    let folder = format!("{prefix}{id}/");
    let key = format!("{folder}{MANIFEST}");
    let broken = |why: String| Ok(Found::Broken(BrokenPoint { id: id.clone(), why }));
    let (head, bytes) = match store.get_small(&key, None, MAX_BYTES as usize).await {
        Ok(found) => found,
        Err(StorageError::NoSuchObject) if looks_like_ours(&id) => return Ok(Found::HalfWritten),
        Err(StorageError::NoSuchObject) => return Ok(Found::NoSet),
        Err(StorageError::TooLarge { limit }) => return broken(format!("its manifest is larger than {limit} bytes")),
        Err(StorageError::Archived) => return broken("its manifest is archived and must be thawed".to_owned()),
        Err(other) => return Err(other.into()),
    };
    let manifest = match Manifest::parse(&bytes) {
        Ok(manifest) => manifest,
        Err(error) => return broken(error.to_string()),
    };
    if manifest.id != id {
        return broken("its manifest belongs to a set with another id".to_owned());
    }
    let stored_at = head.stored_at;
    let mut objects = vec![ObjectRef { key, size: head.size, stored_at }];
    objects.extend(manifest.objects.iter().map(|object| ObjectRef {
        key: format!("{folder}{}", object.name),
        size: object.size,
        // the manifest was written last; pinning each object tells its own time
        stored_at,
    }));
    Ok(Found::Point(RecoveryPoint {
        id,
        captured_at: manifest.captured_at,
        captured_from: CaptureSource::Manifest,
        form: PointForm::SealedSet,
        size: objects.iter().fold(0, |sum: u64, o| sum.saturating_add(o.size)),
        objects,
    }))
}

/// `2026-11-20T020000Z-…`: a directory that only `seal` makes. Without a manifest it is a set that was not finished.
fn looks_like_ours(id: &str) -> bool {
    let shape = b"dddd-dd-ddTddddddZ-";
    id.len() > shape.len() && id.bytes().zip(shape).all(|(byte, want)| if *want == b'd' { byte.is_ascii_digit() } else { byte == *want })
}

/// Bare objects, by the scenario's pattern over the names below the prefix.
pub(super) async fn bare(
    store: &dyn ReadStore,
    prefix: &str,
    pattern: &PointPattern,
    zone: Option<&TimeZone>,
) -> Result<PointList, VaultError> {
    let mut list = PointList::default();
    let depth = if pattern.spans_folders() { Depth::All } else { Depth::OneLevel };
    let from = format!("{prefix}{}", pattern.literal_head());
    store
        .list(&from, depth, &mut |page| {
            list.other += page.skipped;
            for object in page.objects {
                let Some(name) = object.key.strip_prefix(prefix) else { continue };
                let Some(matched) = pattern.matches(name, zone) else {
                    list.other += 1;
                    continue;
                };
                let (captured_at, captured_from) = match matched.captured_at {
                    Some(at) => (at, CaptureSource::Name),
                    None => (object.stored_at, CaptureSource::UploadTime),
                };
                list.points.push(RecoveryPoint {
                    id: name.to_owned(),
                    captured_at,
                    captured_from,
                    form: PointForm::BareObject,
                    size: object.size,
                    objects: vec![object],
                });
            }
        })
        .await?;
    list.points.sort_by(|a, b| (a.captured_at, &a.id).cmp(&(b.captured_at, &b.id)));
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_sets_are_known_by_their_names() {
        assert!(looks_like_ours("2026-11-20T020000Z-0a1b2c3d"));
        for other in ["2026-11-20", "ehr", "2026-11-20T020000Z", "2026-11-20T020000Z-", "x026-11-20T020000Z-0a1b2c3d"] {
            assert!(!looks_like_ours(other), "{other}");
        }
    }
}
