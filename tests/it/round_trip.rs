//! Sealed into a real bucket with a lock, found, pinned, restored and compared: the storage's half of a drill.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use firedrill::codec::age::{Identities, Recipients};
use firedrill::codec::manifest::Manifest;
use firedrill::domain::{Cause, LockMode, LockState, Pseudonym, Selector, Timestamp, select};
use firedrill::restore::{Budgets, CancelFlag, RestoreError, Restored, SealedSet, SealedSource, Target, restore_sealed};
use firedrill::seal::{LEVEL, S3SetWriter, S3Target, SealOptions, SealProgress, SealSource, SetLock, seal, set_id};
use firedrill::storage::{Settings, StorageError, Tuning};
use firedrill::vault::{Digesting, PointList, SealedObject, VaultError, VaultView};
use http::Method;

use crate::faults::{Fault, Proxy, on};
use crate::servers::{self, Locking, admin, ceph, now, settings, source};

struct Sealed {
    runtime: tokio::runtime::Runtime,
    bucket: String,
    tree: tempfile::TempDir,
    identities: Identities,
    captured_at: Timestamp,
}

fn content(number: u32) -> Vec<u8> {
    (0..number * 1_000).map(|i| ((i ^ number).wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// 60 files, 1.8 MB, in parts of 300 kB, locked for a quarter of an hour.
fn sealed() -> Sealed {
    use age::secrecy::ExposeSecret;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let bucket = runtime.block_on(ceph().bucket(Locking::On));
    let tree = tempfile::tempdir().unwrap();
    for number in 0..60 {
        fs::write(tree.path().join(format!("f{number:02}")), content(number)).unwrap();
    }
    let identity = age::x25519::Identity::generate();
    let mut identities = Identities::default();
    identities.add(identity.to_string().expose_secret()).unwrap();
    let recipients = Recipients::parse(&[identity.to_public().to_string()]).unwrap();
    let captured_at = Timestamp::from_unix(now()().0.as_second());
    let id = set_id(captured_at, [1, 2, 3, 4]);
    let settings = Settings { endpoint: Some(ceph().http()), allow_http: true, tuning: servers::quick(), ..Settings::default() };
    let lock = SetLock { mode: LockMode::Compliance, until: Timestamp::from_unix(captured_at.0.as_second() + 900) };
    let target = S3Target { bucket: &bucket, prefix: "ehr/", settings: &settings, env: &admin(), lock: Some(lock) };
    let mut writer = S3SetWriter::new(&target, &id, now(), runtime.handle().clone()).unwrap();
    let spool = tempfile::tempdir().unwrap();
    let options = SealOptions {
        id,
        captured_at,
        now: &|| captured_at,
        recipients: &recipients,
        producer: "test".into(),
        key: None,
        level: LEVEL,
        part_size: 300_000,
        segment_size: 100_000,
        workers: Some(2),
        spool: spool.path().to_owned(),
        progress: &SealProgress::default(),
        cancelled: &|| false,
    };
    seal(SealSource::Paths(vec![tree.path().to_owned()]), &options, &mut writer).unwrap();
    drop(writer);
    Sealed { runtime, bucket, tree, identities, captured_at }
}

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

struct Drilled {
    outcome: Result<Restored, RestoreError>,
    root: tempfile::TempDir,
    view: VaultView,
    list: PointList,
}

impl Sealed {
    /// Finds the newest set behind `endpoint`, calls `before`, and restores it.
    fn drill(&self, endpoint: &str, before: impl FnOnce()) -> Drilled {
        let source = source(endpoint, &self.bucket, "ehr/", None);
        let settings = Settings {
            tuning: Tuning { patience: std::time::Duration::from_millis(400), range: 64 << 10, ..servers::quick() },
            ..settings(&source)
        };
        let (view, list, manifest, objects) = self.runtime.block_on(async {
            let view = VaultView::open_with(&source, &settings, &admin(), now()).await.unwrap();
            let list = view.points().await.unwrap();
            let point = select(&list.points, &Selector::Latest).unwrap();
            let pinned = view.pin(&point.objects[0], "manifest").await.unwrap();
            let manifest = Manifest::parse(&view.read(&pinned, 1 << 20).await.unwrap()).unwrap();
            let mut objects: Vec<SealedObject> = Vec::new();
            for (object, described) in point.objects[1..].iter().zip(&manifest.objects) {
                let pinned = view.pin(object, described.role.word()).await.unwrap();
                view.quote(&pinned, described.blake3, described.sha256);
                objects.push(view.reader(&pinned, Digesting::Blake3));
            }
            (view, list, manifest, objects)
        });
        before();
        let (root, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = Target {
            root: open(root.path()),
            spool: open(spool.path()),
            owner: None,
            budgets: Budgets { bytes: 1 << 30, files: 1_000, ratio: 1_000, depth: 16 },
            cancel: CancelFlag::default(),
            progress: Arc::default(),
            workers: Some(2),
        };
        let set = SealedSet {
            manifest: &manifest,
            index: &objects[0],
            parts: objects[1..].iter().map(|object| object as &dyn SealedSource).collect(),
        };
        let outcome = restore_sealed(&set, &self.identities, &target, &|_| {});
        Drilled { outcome, root, view, list }
    }
}

#[test]
fn what_was_sealed_into_a_locked_bucket_is_restored_from_it() {
    let sealed = sealed();
    let drilled = sealed.drill(&ceph().http(), || {});
    let restored = drilled.outcome.unwrap();
    assert!(restored.compared.unwrap().is_clean());
    for number in 0..60 {
        let name = format!("f{number:02}");
        assert_eq!(fs::read(drilled.root.path().join(&name)).unwrap(), fs::read(sealed.tree.path().join(&name)).unwrap());
    }
    assert_eq!(drilled.list.points.len(), 1);
    assert_eq!(drilled.list.points[0].captured_at, sealed.captured_at);
    let chain = drilled.view.chain(&|key| Pseudonym(format!("object-{:x}", key.len())));
    assert!(chain.objects.len() >= 4, "manifest, index and two parts: {chain:?}");
    for object in &chain.objects {
        assert!(matches!(object.lock.state, LockState::Locked { mode: LockMode::Compliance, .. }), "{object:?}");
        assert!(object.version.is_some() && object.blake3.is_some() && object.sha256.is_some(), "{object:?}");
        assert!(object.bytes_read >= object.size && object.requests > 0, "{object:?}");
        let from = if object.role == "manifest" { "read" } else { "manifest" };
        assert_eq!(object.sha256_from.as_deref(), Some(from));
    }
}

#[test]
fn a_byte_that_flips_on_the_way_fails_the_restore_and_blames_the_backup() {
    let sealed = sealed();
    let proxy = Proxy::start(ceph().http_port, vec![]);
    let drilled = sealed.drill(&proxy.url(), || proxy.set(vec![on(Method::GET, "data-00001", 1, Fault::Corrupt(20_000))]));
    let error = drilled.outcome.unwrap_err();
    assert!(!matches!(error, RestoreError::Source { .. }), "{error:?}");
    assert_eq!(error.blame(), Cause::Backup, "{error:?}");
}

#[test]
fn a_storage_that_goes_away_says_nothing_about_the_backup() {
    let sealed = sealed();
    let proxy = Proxy::start(ceph().http_port, vec![]);
    type Is = fn(&VaultError) -> bool;
    let cases: [(Fault, Is); 3] = [
        (Fault::Reset, |e| matches!(e, VaultError::GaveUp { source: StorageError::Unreachable { .. }, .. })),
        (Fault::SlowDown(0), |e| matches!(e, VaultError::GaveUp { source: StorageError::Throttled { .. }, .. })),
        (Fault::Answer(403, "ExpiredToken"), |e| matches!(e.storage(), Some(StorageError::CredentialsExpired { .. }))),
    ];
    for (fault, is) in cases {
        let drilled = sealed.drill(&proxy.url(), || proxy.set(vec![on(Method::GET, "data-00001", usize::MAX, fault)]));
        proxy.set(vec![]);
        let error = drilled.outcome.unwrap_err();
        assert_eq!(error.blame(), Cause::Runner, "{error:?}");
        let RestoreError::Source { source, .. } = error else { panic!("{error:?}") };
        let cause = source.get_ref().and_then(|e| e.downcast_ref::<VaultError>()).expect("the vault's own error comes through");
        assert!(is(cause), "{cause:?}");
    }
}

#[test]
fn a_part_that_somebody_deleted_for_good_is_missing() {
    let sealed = sealed();
    // an unlocked copy of the bucket's set, less one part
    let copy = sealed.runtime.block_on(ceph().bucket(Locking::Off));
    let source_view = source(&ceph().http(), &sealed.bucket, "ehr/", None);
    sealed.runtime.block_on(async {
        let view = VaultView::open_with(&source_view, &settings(&source_view), &admin(), now()).await.unwrap();
        let list = view.points().await.unwrap();
        let point = &list.points[0];
        let manifest = view.pin(&point.objects[0], "manifest").await.unwrap();
        let text = String::from_utf8(view.read(&manifest, 1 << 20).await.unwrap().to_vec()).unwrap();
        ceph().put(&copy, &point.objects[0].key, &text).await;
        let view = VaultView::open(&source(&ceph().http(), &copy, "ehr/", None), &admin(), now()).await.unwrap();
        let point = view.points().await.unwrap().points.remove(0);
        let error = view.pin(&point.objects[2], "part").await.unwrap_err();
        assert!(matches!(&error, VaultError::Missing { role } if role == "part"), "{error:?}");
        assert_eq!(error.blame(), Cause::Backup);
    });
}
