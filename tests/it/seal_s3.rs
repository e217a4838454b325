//! Writing a sealed set into a real bucket: whole or not at all, locked or refused.

use std::time::Duration;

use firedrill::domain::{Blake3, Sha256};
use firedrill::domain::{LockMode, LockState, Timestamp};
use firedrill::seal::{S3SetWriter, S3Target, SetLock, SetWriter, Written};
use firedrill::storage::{Settings, StorageError};
use firedrill::vault::VaultView;
use http::Method;

use crate::faults::{Fault, Proxy, on};
use crate::servers::{self, Locking, admin, ceph, now, source};

const ID: &str = "2026-11-20T020000Z-0a1b2c3d";

fn settings(endpoint: &str) -> Settings {
    Settings { endpoint: Some(endpoint.to_owned()), allow_http: true, tuning: servers::quick(), ..Settings::default() }
}

/// The writer is for blocking threads, so the tests are no async functions.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn writer(runtime: &tokio::runtime::Runtime, endpoint: &str, bucket: &str, lock: Option<SetLock>) -> Result<S3SetWriter, StorageError> {
    let target = S3Target { bucket, prefix: "ehr/", settings: &settings(endpoint), env: &admin(), lock };
    S3SetWriter::new(&target, ID, now(), runtime.handle().clone())
}

fn lock_for(seconds: i64) -> SetLock {
    SetLock { mode: LockMode::Compliance, until: Timestamp::from_unix(now()().0.as_second() + seconds) }
}

fn data(length: usize, salt: u32) -> Vec<u8> {
    (0..length as u32).map(|i| ((i ^ salt).wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Writes an object in odd pieces.
fn write(writer: &mut S3SetWriter, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    writer.create(name)?;
    for piece in bytes.chunks(300_007) {
        writer.write(piece)?;
    }
    writer.finish(&written(bytes))
}

fn written(bytes: &[u8]) -> Written {
    use sha2::Digest;
    Written {
        size: bytes.len() as u64,
        blake3: Blake3(*blake3::hash(bytes).as_bytes()),
        sha256: Sha256(sha2::Sha256::digest(bytes).into()),
    }
}

fn storage(error: std::io::Error) -> StorageError {
    error.downcast().expect("the storage's errors come through")
}

fn keys(runtime: &tokio::runtime::Runtime, bucket: &str) -> Vec<String> {
    let (_, text) = runtime.block_on(ceph().ok(Method::GET, &format!("{bucket}?list-type=2"), &[], ""));
    text.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap().to_owned()).collect()
}

fn open_uploads(runtime: &tokio::runtime::Runtime, bucket: &str) -> usize {
    let (_, text) = runtime.block_on(ceph().ok(Method::GET, &format!("{bucket}?uploads="), &[], ""));
    text.matches("<UploadId>").count()
}

#[test]
fn a_set_is_written_locked_and_read_back() {
    let runtime = runtime();
    let bucket = runtime.block_on(ceph().bucket(Locking::On));
    let lock = lock_for(900);
    let mut writer = writer(&runtime, &ceph().http(), &bucket, Some(lock)).unwrap();
    // 35 MB: two whole parts and a rest; exactly two parts; a small one; an empty one
    let objects = [
        ("data-00000.tar.zst.age", data(35_000_000, 1)),
        ("data-00001.tar.zst.age", data(32 << 20, 2)),
        ("index.jsonl.zst.age", data(1_000, 3)),
        ("empty", Vec::new()),
    ];
    for (name, bytes) in &objects {
        write(&mut writer, name, bytes).unwrap();
        assert!(keys(&runtime, &bucket).is_empty(), "nothing has a final name before the commit");
    }
    writer.commit(b"{}", Some(b"sig")).unwrap();
    drop(writer);
    let mut expected: Vec<String> = objects.iter().map(|(name, _)| format!("ehr/{ID}/{name}")).collect();
    expected.extend([format!("ehr/{ID}/manifest.json"), format!("ehr/{ID}/manifest.sig")]);
    expected.sort();
    assert_eq!(keys(&runtime, &bucket), expected);
    assert_eq!(open_uploads(&runtime, &bucket), 0);

    runtime.block_on(async {
        let source = source(&ceph().http(), &bucket, "ehr/", Some("*"));
        let view = VaultView::open(&source, &admin(), now()).await.unwrap();
        for key in &expected {
            let pinned = view.pin(&view.find(key).await.unwrap().unwrap(), "part").await.unwrap();
            let LockState::Locked { mode: LockMode::Compliance, until } = pinned.lock.state else { panic!("{key}: {:?}", pinned.lock) };
            assert_eq!(until, Timestamp::from_unix(lock.until.0.as_second()));
            let bytes = view.read(&pinned, u64::MAX).await.unwrap();
            if let Some((_, content)) = objects.iter().find(|(name, _)| key.ends_with(name)) {
                assert!(bytes == content[..], "{key}");
            }
        }
    });
}

#[test]
fn an_existing_id_is_never_overwritten() {
    let runtime = runtime();
    let bucket = runtime.block_on(ceph().bucket(Locking::On));
    runtime.block_on(ceph().put(&bucket, &format!("ehr/{ID}/anything"), "x"));
    assert!(matches!(writer(&runtime, &ceph().http(), &bucket, None), Err(StorageError::AlreadyExists)));
    // and where somebody else was quicker in between
    let second = runtime.block_on(ceph().bucket(Locking::On));
    let mut late = writer(&runtime, &ceph().http(), &second, None).unwrap();
    write(&mut late, "index", b"mine").unwrap();
    runtime.block_on(ceph().put(&second, &format!("ehr/{ID}/index"), "theirs"));
    assert!(matches!(storage(late.commit(b"{}", None).unwrap_err()), StorageError::AlreadyExists));
    assert_eq!(keys(&runtime, &second), [format!("ehr/{ID}/index")]);
}

#[test]
fn giving_up_leaves_nothing_behind() {
    let runtime = runtime();
    let bucket = runtime.block_on(ceph().bucket(Locking::Off));
    let large = data(40_000_000, 4);
    // in the middle of an object, and after it; by name, and by forgetting
    for (whole, forget) in [(false, false), (true, false), (true, true)] {
        let mut writer = writer(&runtime, &ceph().http(), &bucket, None).unwrap();
        writer.create("data-00000.tar.zst.age").unwrap();
        writer.write(&large).unwrap();
        if whole {
            writer.finish(&written(&large)).unwrap();
        }
        assert_eq!(open_uploads(&runtime, &bucket), 1);
        if forget {
            drop(writer)
        } else {
            writer.abort()
        }
        assert_eq!(open_uploads(&runtime, &bucket), 0);
        assert!(keys(&runtime, &bucket).is_empty());
    }
}

#[test]
fn uploads_survive_what_networks_do_and_leave_one_version() {
    let runtime = runtime();
    let bucket = runtime.block_on(ceph().bucket(Locking::On));
    let proxy = Proxy::start(ceph().http_port, vec![]);
    let mut writer = writer(&runtime, &proxy.url(), &bucket, Some(lock_for(900))).unwrap();
    proxy.set(vec![
        on(Method::PUT, "partNumber=1", 1, Fault::SlowDown(0)),
        on(Method::PUT, "partNumber=2", 1, Fault::LoseAnswer),
        on(Method::PUT, "partNumber=3", 1, Fault::Reset),
        on(Method::POST, "uploads", 1, Fault::Reset),
        on(Method::POST, "uploadId", 1, Fault::LoseAnswer),
        on(Method::PUT, "manifest.json", 1, Fault::LoseAnswer),
        on(Method::PUT, "index", 1, Fault::Answer(500, "InternalError")),
        on(Method::PUT, "retention", 1, Fault::LoseAnswer),
    ]);
    let large = data(40_000_000, 5);
    write(&mut writer, "data-00000.tar.zst.age", &large).unwrap();
    write(&mut writer, "index", b"index").unwrap();
    writer.commit(b"{}", None).unwrap();
    let (_, versions) = runtime.block_on(ceph().ok(Method::GET, &format!("{bucket}?versions="), &[], ""));
    assert_eq!(versions.matches("<Version>").count(), 3, "{versions}");
    runtime.block_on(async {
        let view = VaultView::open(&source(&ceph().http(), &bucket, "", Some("*")), &admin(), now()).await.unwrap();
        let key = format!("ehr/{ID}/data-00000.tar.zst.age");
        let pinned = view.pin(&view.find(&key).await.unwrap().unwrap(), "part").await.unwrap();
        assert!(view.read(&pinned, u64::MAX).await.unwrap() == large[..]);
    });
}

#[test]
fn a_server_that_does_not_lock_is_found_out() {
    let runtime = runtime();
    // a bucket without object lock, before a byte is sent
    let plain = runtime.block_on(ceph().bucket(Locking::Off));
    let error = writer(&runtime, &ceph().http(), &plain, Some(lock_for(900))).unwrap_err();
    assert!(matches!(error, StorageError::LockNotKept { .. }), "{error:?}");
    // a server without the notion
    let proxy = Proxy::start(ceph().http_port, vec![on(Method::GET, "object-lock", 9, Fault::Answer(501, "NotImplemented"))]);
    let error = writer(&runtime, &proxy.url(), &plain, Some(lock_for(900))).unwrap_err();
    assert!(matches!(error, StorageError::LockNotKept { .. }), "{error:?}");
    // a server that says yes to everything and drops the lock
    let locked = runtime.block_on(ceph().bucket(Locking::On));
    let lies = vec![
        on(Method::PUT, "retention=", usize::MAX, Fault::Say("")),
        on(Method::HEAD, "", usize::MAX, Fault::DropHeaders("x-amz-object-lock")),
    ];
    let proxy = Proxy::start(ceph().http_port, lies);
    let mut writer = writer(&runtime, &proxy.url(), &locked, Some(lock_for(900))).unwrap();
    write(&mut writer, "index", b"index").unwrap();
    let error = storage(writer.commit(b"{}", None).unwrap_err());
    assert!(matches!(error, StorageError::LockNotKept { .. }), "{error:?}");
    assert!(!keys(&runtime, &locked).iter().any(|key| key.ends_with("manifest.json")), "it must not count as sealed");
}

#[test]
fn a_bucket_that_locks_by_itself_is_content_with_the_longer_lock() {
    let runtime = runtime();
    let bucket = runtime.block_on(ceph().bucket(Locking::On));
    let default = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode>\
                   <Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    runtime.block_on(ceph().ok(Method::PUT, &format!("{bucket}?object-lock="), &[], default));
    let mut writer = writer(&runtime, &ceph().http(), &bucket, Some(lock_for(60))).unwrap();
    write(&mut writer, "index", b"index").unwrap();
    writer.commit(b"{}", None).unwrap();
}

#[test]
fn a_network_that_dies_while_committing_leaves_no_manifest() {
    let runtime = runtime();
    let bucket = runtime.block_on(ceph().bucket(Locking::Off));
    let proxy = Proxy::start(ceph().http_port, vec![]);
    let tuning = firedrill::storage::Tuning { request_patience: Duration::from_millis(500), ..servers::quick() };
    let settings = Settings { tuning, ..settings(&proxy.url()) };
    let target = S3Target { bucket: &bucket, prefix: "ehr/", settings: &settings, env: &admin(), lock: None };
    let mut writer = S3SetWriter::new(&target, ID, now(), runtime.handle().clone()).unwrap();
    write(&mut writer, "data-00000.tar.zst.age", &data(20_000_000, 6)).unwrap();
    write(&mut writer, "index", b"index").unwrap();
    proxy.set(vec![on(Method::PUT, "index", usize::MAX, Fault::Reset)]);
    let error = storage(writer.commit(b"{}", None).unwrap_err());
    assert!(matches!(error, StorageError::Unreachable { .. }), "{error:?}");
    writer.abort();
    assert!(!keys(&runtime, &bucket).iter().any(|key| key.ends_with("manifest.json")));
    assert_eq!(open_uploads(&runtime, &bucket), 0);
    assert!(!format!("{error} {error:?}").contains(ID));
}
