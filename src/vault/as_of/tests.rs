//! The view as of an instant against a model that simply replays what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::storage::HeaderFacts;

/// One thing that happened to a key: bytes of this size, or a deletion.
#[derive(Debug, Clone)]
struct Happened {
    key: &'static str,
    at: i64,
    stored: Option<u64>,
}

/// A bucket that keeps everything that happened to it.
#[derive(Debug)]
struct Versioned {
    versioning: Versioning,
    /// Key by key, newest first.
    versions: Vec<StoredVersion>,
    page: usize,
    /// Whether a mark without a version shows the versions of its key again.
    repeats: bool,
    asked: AtomicUsize,
}

impl Versioned {
    fn new(history: &[Happened], page: usize, repeats: bool) -> Self {
        let mut versions: Vec<StoredVersion> = Vec::new();
        for (number, happened) in history.iter().enumerate().rev() {
            let kind = match happened.stored {
                Some(size) => VersionKind::Object { size, etag: Some(format!("e{number}")) },
                None => VersionKind::DeleteMarker,
            };
            let stored_at = Timestamp::from_unix(happened.at);
            versions.push(StoredVersion { key: happened.key.into(), version: format!("v{number}"), latest: false, stored_at, kind });
        }
        versions.sort_by(|a, b| a.key.cmp(&b.key));
        Self { versioning: Versioning::Enabled, versions, page, repeats, asked: AtomicUsize::new(0) }
    }
}

#[async_trait::async_trait]
impl ReadStore for Versioned {
    async fn list(&self, _: &str, _: Depth, _: &mut (dyn FnMut(Listing) + Send)) -> Result<(), StorageError> {
        panic!("nobody asks for what is there now")
    }
    async fn page(&self, _: &PageAsk) -> Result<Page, StorageError> {
        panic!("nobody asks for what is there now")
    }
    async fn versions(&self, ask: &VersionsAsk) -> Result<VersionPage, StorageError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let below: Vec<&StoredVersion> = self.versions.iter().filter(|v| v.key.starts_with(&ask.prefix)).collect();
        let start = match &ask.after {
            None => 0,
            Some(VersionMark { key, version: Some(version) }) => {
                below.iter().position(|v| v.key == *key && v.version == *version).unwrap() + 1
            }
            Some(VersionMark { key, version: None }) => {
                below.iter().position(|v| if self.repeats { v.key >= *key } else { v.key > *key }).unwrap_or(below.len())
            }
        };
        let end = below.len().min(start + self.page.min(ask.limit));
        let versions: Vec<StoredVersion> = below[start..end].iter().map(|v| (*v).clone()).collect();
        let next = (end < below.len())
            .then(|| versions.last().map(|v| VersionMark { key: v.key.clone(), version: Some(v.version.clone()) }))
            .flatten();
        Ok(VersionPage { versions, skipped: 0, next })
    }
    async fn versioning(&self) -> Result<Versioning, StorageError> {
        Ok(self.versioning)
    }
    async fn probe(&self, _: &str) -> Result<(), StorageError> {
        Ok(())
    }
    async fn head(&self, key: &str, version: Option<&str>) -> Result<Head, StorageError> {
        let found = self.versions.iter().find(|v| v.key == key && Some(v.version.as_str()) == version);
        match found.map(|v| (&v.kind, v.stored_at)) {
            Some((VersionKind::Object { size, etag }, stored_at)) => {
                Ok(Head { size: *size, etag: etag.clone(), stored_at, facts: HeaderFacts::default() })
            }
            _ => Err(StorageError::NoSuchObject),
        }
    }
    async fn get(&self, wanted: &Wanted) -> Result<Body, Failure> {
        if wanted.version.as_deref() == Some("v0") {
            return Err(StorageError::AccessDenied { operation: "GetObject" }.into());
        }
        let head = self.head(&wanted.key, wanted.version.as_deref()).await?;
        Ok(Body { head, stream: Box::pin(futures_util::stream::empty()) })
    }
    async fn get_small(&self, key: &str, version: Option<&str>, _: usize) -> Result<(Head, Bytes), StorageError> {
        Ok((self.head(key, version).await?, Bytes::new()))
    }
    async fn lock(&self, _: &str, head: &Head) -> Result<LockFacts, StorageError> {
        Ok(LockFacts::unknown(head.facts.version.clone().unwrap_or_default()))
    }
    fn file(&self, _: &str) -> Option<Result<LocalFile, StorageError>> {
        panic!("files have no versions")
    }
    fn transport(&self) -> Transport {
        Transport::default()
    }
    fn tuning(&self) -> Tuning {
        Tuning::default()
    }
}

const KEYS: &[&str] =
    &["a", "a-b", "a/", "a/b", "a/b/c", "a/c", "a0", "b", "b//x", "b/x", "b/y", "b/\u{10FFFF}", "b/\u{10FFFF}z", "c/d", "é/x"];

fn history() -> impl Strategy<Value = Vec<Happened>> {
    let one = (0..KEYS.len(), 0..3i64, prop_oneof![3 => (0..9u64).prop_map(Some), 2 => Just(None)]);
    prop::collection::vec(one, 0..60).prop_map(|steps| {
        let mut at = 0;
        let happened = |(key, later, stored): (usize, i64, Option<u64>)| {
            at += later;
            Happened { key: KEYS[key], at, stored }
        };
        steps.into_iter().map(happened).collect()
    })
}

/// What was there: key, number of what happened, size.
fn replay(history: &[Happened], at: i64) -> BTreeMap<&'static str, (usize, u64)> {
    let mut there = BTreeMap::new();
    for (number, happened) in history.iter().enumerate().filter(|(_, h)| h.at <= at) {
        match happened.stored {
            Some(size) => there.insert(happened.key, (number, size)),
            None => there.remove(happened.key),
        };
    }
    there
}

/// What a listing of it shows, behind `after`.
fn shown(
    there: &BTreeMap<&'static str, (usize, u64)>,
    prefix: &str,
    depth: Depth,
    after: &str,
) -> (Vec<(String, u64)>, BTreeSet<String>, u64) {
    let (mut objects, mut folders, mut skipped) = (Vec::new(), BTreeSet::new(), 0);
    for (key, (_, size)) in there.iter().filter(|(key, _)| key.starts_with(prefix) && **key > after) {
        match key[prefix.len()..].find('/') {
            _ if *size == 0 && key.ends_with('/') => {}
            _ if !can_be_requested(key) => skipped += 1,
            Some(end) if depth == Depth::OneLevel => drop(folders.insert(key[..=prefix.len() + end].to_owned())),
            _ => objects.push(((*key).to_owned(), *size)),
        }
    }
    (objects, folders, skipped)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn layer(store: Versioned, at: i64) -> AsOf {
    AsOf::new(Arc::new(store), Timestamp::from_unix(at))
}

proptest! {
    #[test]
    fn a_listing_is_what_a_replay_would_leave(
        history in history(), at in -1..60i64, page in 1..5usize, limit in 1..5usize, repeats: bool, deep: bool,
        prefix in prop::sample::select(vec!["", "a", "a/", "b/", "z"]), after in prop::sample::select(vec!["", "a", "a/b", "a/zz", "b/x", "zz"]),
    ) {
        let depth = if deep { Depth::All } else { Depth::OneLevel };
        let there = replay(&history, at);
        let layer = layer(Versioned::new(&history, page, repeats), at);
        let listing = block_on(async {
            let mut whole = Listing::default();
            layer.list(prefix, depth, &mut |part| {
                whole.objects.extend(part.objects);
                whole.prefixes.extend(part.prefixes);
                whole.skipped += part.skipped;
            }).await.unwrap();
            whole
        });
        let (objects, folders, skipped) = shown(&there, prefix, depth, "");
        let listed: Vec<(String, u64)> = listing.objects.into_iter().map(|o| (o.key, o.size)).collect();
        prop_assert_eq!(&listed, &objects);
        prop_assert_eq!(listing.prefixes, folders.into_iter().collect::<Vec<_>>());
        // of what cannot be asked for in a folder that is shown by its name, nobody needs to know the number
        let counted = if deep { listing.skipped == skipped } else { listing.skipped <= skipped };
        prop_assert!(counted);

        // the same page by page, behind any key
        let (objects, folders, _) = shown(&there, prefix, depth, after);
        let (mut seen, mut names) = (Vec::new(), Vec::new());
        let mut ask = PageAsk { prefix: prefix.into(), depth, from: Begin::After(after.into()), limit };
        if after.is_empty() {
            ask.from = Begin::Start;
        }
        loop {
            let page = block_on(layer.page(&ask)).unwrap();
            prop_assert!(page.objects.len() + page.prefixes.len() <= limit);
            seen.extend(page.objects.into_iter().map(|o| (o.object.key, o.object.size)));
            names.extend(page.prefixes);
            match page.next {
                Some(next) => ask.from = Begin::Token(next),
                None => break,
            }
        }
        prop_assert_eq!(seen, objects);
        prop_assert_eq!(names, folders.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_key_resolves_to_what_a_replay_would_leave(history in history(), at in -1..60i64, page in 1..5usize, listed: bool) {
        let there = replay(&history, at);
        let layer = layer(Versioned::new(&history, page, false), at);
        block_on(async {
            if listed {
                layer.list("", Depth::All, &mut |_| {}).await.unwrap();
            }
            for key in KEYS.iter().filter(|key| can_be_requested(key)) {
                let expected = there.get(key).map(|(number, _)| format!("v{number}"));
                for _ in 0..2 {
                    match layer.head(key, None).await {
                        Ok(head) => {
                            assert_eq!(head.facts.version, expected, "{key}");
                            // the lock is that of the version
                            assert_eq!(layer.lock(key, &head).await.unwrap(), LockFacts::unknown(expected.clone().unwrap()));
                            assert_eq!(layer.get_small(key, None, 9).await.unwrap().0, head);
                        }
                        Err(StorageError::NoSuchObject) => assert_eq!(expected, None, "{key}"),
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
        });
    }
}

fn three() -> Vec<Happened> {
    let happened = |key, at, stored| Happened { key, at, stored };
    vec![happened("a", 10, Some(1)), happened("a", 10, Some(2)), happened("a", 20, None)]
}

#[test]
fn two_versions_of_one_instant_fall_as_the_server_has_them() {
    let layer = layer(Versioned::new(&three(), 10, false), 10);
    let head = block_on(layer.head("a", None)).unwrap();
    assert_eq!((head.facts.version.as_deref(), head.size), (Some("v1"), 2));
}

#[test]
fn what_was_resolved_is_remembered_within_bounds() {
    let store = Arc::new(Versioned::new(&three(), 10, false));
    let layer = AsOf::new(Arc::clone(&store) as Arc<dyn ReadStore>, Timestamp::from_unix(15));
    block_on(async {
        for _ in 0..5 {
            layer.head("a", None).await.unwrap();
        }
    });
    assert_eq!(store.asked.load(Ordering::Relaxed), 1);
    for number in 0..2 * REMEMBERED {
        layer.remember(&format!("k{number}"), "v");
    }
    let known = layer.known();
    assert_eq!((known.versions.len(), known.order.len()), (REMEMBERED, REMEMBERED));
}

#[test]
fn a_folder_is_not_read_to_its_end_to_show_its_name() {
    let history: Vec<Happened> = (0..500)
        .map(|_| Happened { key: "b/x", at: 5, stored: Some(1) })
        .chain([Happened { key: "c/d", at: 5, stored: Some(1) }])
        .collect();
    let store = Arc::new(Versioned::new(&history, 10, true));
    let layer = AsOf::new(Arc::clone(&store) as Arc<dyn ReadStore>, Timestamp::from_unix(5));
    let page = block_on(layer.page(&PageAsk { prefix: String::new(), depth: Depth::OneLevel, from: Begin::Start, limit: 100 })).unwrap();
    assert_eq!(page.prefixes, ["b/", "c/"]);
    assert!(store.asked.load(Ordering::Relaxed) <= 3);
}

#[test]
fn a_bucket_without_versions_or_whose_versions_are_hidden_is_told_apart() {
    let of = |versioning| {
        let layer = layer(Versioned { versioning, ..Versioned::new(&three(), 10, false) }, 15);
        block_on(async { (layer.head("a", None).await.map(drop), layer.list("", Depth::All, &mut |_| {}).await, layer.facts()) })
    };
    let (head, list, _) = of(Versioning::Never);
    assert!(matches!((head, list), (Err(StorageError::NoVersions), Err(StorageError::NoVersions))));
    let (head, list, _) = of(Versioning::NotVisible);
    assert!(matches!(head, Err(StorageError::VersionsNotVisible { operation: "GetBucketVersioning" })));
    assert!(matches!(list, Err(StorageError::VersionsNotVisible { .. })));
    let (head, list, facts) = of(Versioning::Suspended);
    assert!(head.is_ok() && list.is_ok() && facts.suspended());
    assert_eq!(facts.first_version, Some(Timestamp::from_unix(10)));
}

#[test]
fn a_version_that_may_not_be_read_is_no_missing_lock_or_object() {
    let layer = layer(Versioned::new(&three()[..1], 10, false), 15);
    let wanted = Wanted { key: "a".into(), version: None, etag: None, range: 0..1 };
    let failure = block_on(layer.get(&wanted)).unwrap_err();
    assert!(matches!(failure.error, StorageError::VersionsNotVisible { operation: "GetObject" }));
    assert_eq!(failure.error.blame(), crate::domain::Cause::Runner);
    let strange = PageAsk { prefix: String::new(), depth: Depth::All, from: Begin::Token("?".into()), limit: 1 };
    assert!(matches!(block_on(layer.page(&strange)), Err(StorageError::BadAnswer { .. })));
}
