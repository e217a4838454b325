//! The vault view against a real S3 server with object lock, and against everything that goes wrong on the way there.

use std::io::Read;
use std::time::Duration;

use firedrill::domain::{CaptureSource, Cause, LockMode, LockState, ObjectRef, Pseudonym, RecoveryPoint, Selector, Source, select};
use firedrill::storage::{Settings, StorageError};
use firedrill::vault::{Digesting, Pinned, SealedObject, VaultError, VaultView};
use http::Method;

use crate::faults::{Fault, Proxy, Rule, on};
use crate::servers::{self, Locking, admin, ceph, in_seconds, keys, now, settings, source};

pub async fn view(source: &Source) -> VaultView {
    VaultView::open_with(source, &settings(source), &admin(), now()).await.unwrap()
}

fn name(key: &str) -> Pseudonym {
    Pseudonym(format!("object-{:x}", key.len()))
}

async fn drain(object: &SealedObject) -> Result<Vec<u8>, VaultError> {
    let object = object.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        object.open(0..object.size())?.read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    });
    read.await.unwrap().map_err(|e| e.downcast().expect("the source's errors are VaultErrors"))
}

fn data(length: usize) -> String {
    (0..length as u32).map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 27) as u8 % 26)).collect()
}

/// A bucket with one object of 10 MB, seen through a proxy.
struct Faulty {
    bucket: String,
    proxy: Proxy,
    view: VaultView,
    pinned: Pinned,
    content: String,
}

impl Faulty {
    async fn new() -> Self {
        let bucket = ceph().bucket(Locking::Off).await;
        let content = data(10_000_000);
        ceph().put(&bucket, "ehr/big.age", &content).await;
        let proxy = Proxy::start(ceph().http_port, vec![]);
        let view = view(&source(&proxy.url(), &bucket, "ehr/", Some("*.age"))).await;
        let pinned = view.pin(&view.find("ehr/big.age").await.unwrap().unwrap(), "object").await.unwrap();
        Self { bucket, proxy, view, pinned, content }
    }

    async fn read_with(&self, rules: Vec<Rule>) -> Result<(), VaultError> {
        self.proxy.set(rules);
        let object = self.view.reader(&self.pinned, Digesting::Both);
        let bytes = drain(&object).await?;
        assert_eq!(bytes.len(), self.content.len());
        assert!(bytes == self.content.as_bytes(), "the bytes differ");
        assert_eq!(object.digest().unwrap().0, *blake3::hash(self.content.as_bytes()).as_bytes());
        Ok(())
    }
}

#[tokio::test]
async fn downloads_survive_what_networks_do() {
    let faulty = Faulty::new().await;
    faulty.read_with(vec![]).await.unwrap();
    for (what, times, fault) in [
        ("503 SlowDown", 3, Fault::SlowDown(0)),
        ("429", 2, Fault::Answer(429, "TooManyRequests")),
        ("500", 2, Fault::Answer(500, "InternalError")),
        ("reset before the answer", 4, Fault::Reset),
        ("cut in the middle", 4, Fault::CutAfter(500_000)),
        ("cut before the first byte", 2, Fault::CutAfter(0)),
        ("stall", 1, Fault::StallAfter(300_000)),
        ("latency", 1, Fault::Latency(Duration::from_millis(300))),
        ("a body cut short with a Content-Length to match", 2, Fault::Truncate(100_000)),
        ("garbled answer", 1, Fault::Garble),
    ] {
        let outcome = faulty.read_with(vec![on(Method::GET, "big.age", times, fault)]).await;
        assert!(outcome.is_ok(), "{what}: {outcome:?}");
    }
    let chain = faulty.view.chain(&name);
    assert_eq!(chain.objects.len(), 1);
    assert!(chain.objects[0].requests > 22 && chain.bytes_read() >= 110_000_000, "{chain:?}");
    assert_eq!(chain.objects[0].sha256_from.as_deref(), Some("read"));
}

#[tokio::test]
async fn a_download_goes_on_where_it_stopped() {
    let faulty = Faulty::new().await;
    faulty.read_with(vec![on(Method::GET, "big.age", 1, Fault::CutAfter(700_000))]).await.unwrap();
    let log = faulty.proxy.log();
    let starts: Vec<u64> = log.iter().filter_map(|l| l.split("bytes=").nth(1)?.split('-').next()?.parse().ok()).collect();
    // every first try begins at a multiple of the range, the second one somewhere after it
    assert!(starts.iter().any(|s| s % 1_666_667 != 0 && s % 1_666_667 >= 600_000), "{log:?}");
}

#[tokio::test]
async fn a_corrupt_byte_changes_the_digest() {
    let faulty = Faulty::new().await;
    faulty.proxy.set(vec![on(Method::GET, "big.age", 1, Fault::Corrupt(77))]);
    let object = faulty.view.reader(&faulty.pinned, Digesting::Blake3);
    let bytes = drain(&object).await.unwrap();
    assert_eq!(bytes.len(), faulty.content.len());
    assert_ne!(object.digest().unwrap().0, *blake3::hash(faulty.content.as_bytes()).as_bytes());
    assert_eq!(object.digest().unwrap().0, *blake3::hash(&bytes).as_bytes());
    assert_eq!(object.sha256(), None);
}

#[tokio::test]
async fn patience_ends_with_the_servers_own_reason() {
    let faulty = Faulty::new().await;
    let settings = Settings {
        tuning: firedrill::storage::Tuning { patience: Duration::from_secs(2), ..servers::quick() },
        endpoint: Some(faulty.proxy.url()),
        allow_http: true,
        ..Settings::default()
    };
    let view =
        VaultView::open_with(&source(&faulty.proxy.url(), &faulty.bucket, "ehr/", Some("*")), &settings, &admin(), now()).await.unwrap();
    let pinned = view.pin(&view.find("ehr/big.age").await.unwrap().unwrap(), "object").await.unwrap();
    faulty.proxy.set(vec![on(Method::GET, "big.age", usize::MAX, Fault::SlowDown(0))]);
    let error = drain(&view.reader(&pinned, Digesting::Blake3)).await.unwrap_err();
    assert!(matches!(&error, VaultError::GaveUp { source: StorageError::Throttled { .. }, .. }), "{error:?}");
    assert_eq!((error.blame(), error.is_transient()), (Cause::Runner, true));
    // the same where the server stops answering at all
    faulty.proxy.set(vec![on(Method::GET, "big.age", usize::MAX, Fault::Reset)]);
    let error = drain(&view.reader(&pinned, Digesting::Blake3)).await.unwrap_err();
    assert!(matches!(&error, VaultError::GaveUp { source: StorageError::Unreachable { .. }, .. }), "{error:?}");
}

#[tokio::test]
async fn refusals_while_reading_end_it_at_once_and_by_name() {
    let faulty = Faulty::new().await;
    type Is = fn(&VaultError) -> bool;
    let cases: [(Fault, Is); 6] = [
        (Fault::Answer(400, "ExpiredToken"), |e| matches!(e.storage(), Some(StorageError::CredentialsExpired { .. }))),
        (Fault::Answer(403, "AccessDenied"), |e| matches!(e.storage(), Some(StorageError::AccessDenied { operation: "GetObject" }))),
        (
            Fault::Answer(403, "RequestTimeTooSkewed"),
            |e| matches!(e.storage(), Some(StorageError::ClockSkew { server_time: Some(t), .. }) if t.to_human().starts_with("2020")),
        ),
        (Fault::Answer(404, "NoSuchVersion"), |e| matches!(e, VaultError::DeletedWhileReading { .. })),
        (Fault::Answer(412, "PreconditionFailed"), |e| matches!(e, VaultError::ChangedWhileReading { .. })),
        (Fault::Answer(403, "InvalidObjectState"), |e| matches!(e.storage(), Some(StorageError::Archived))),
    ];
    for (fault, is) in cases {
        let error = faulty.read_with(vec![on(Method::GET, "big.age", usize::MAX, fault.clone())]).await.unwrap_err();
        assert!(is(&error), "{fault:?} gave {error:?}");
        // one try for each parallel range at most; late ones of the case before may be among them
        assert!(faulty.proxy.log().len() <= 12, "{fault:?}: {:?}", faulty.proxy.log());
        assert!(!error.advice().is_empty());
        assert_no_key(&error);
    }
}

/// Keys can be patient data: they are in no error, nor in its causes, nor in what the server says.
pub fn assert_no_key(error: &(dyn std::error::Error + 'static)) {
    let mut next = Some(error);
    while let Some(current) = next {
        let text = format!("{current} {current:?}");
        assert!(!text.contains("big.age") && !text.contains("secret-key-name") && !text.contains(servers::SECRET), "{text}");
        next = current.source();
    }
}

#[tokio::test]
async fn errors_of_the_network_hold_no_key() {
    let faulty = Faulty::new().await;
    for fault in [Fault::Reset, Fault::Garble, Fault::Answer(500, "InternalError"), Fault::CutAfter(0)] {
        let settings = Settings {
            tuning: firedrill::storage::Tuning { request_patience: Duration::from_millis(300), ..servers::quick() },
            endpoint: Some(faulty.proxy.url()),
            allow_http: true,
            ..Settings::default()
        };
        let view = VaultView::open_with(&source(&faulty.proxy.url(), "b", "", Some("*")), &settings, &admin(), now()).await.unwrap();
        faulty.proxy.set(vec![on(Method::HEAD, "big.age", usize::MAX, fault.clone()), on(Method::GET, "b", usize::MAX, fault)]);
        let Err(error) = view.find("big.age").await else { continue };
        assert_no_key(&error);
        assert_no_key(&view.points().await.unwrap_err());
    }
}

#[tokio::test]
async fn a_server_that_ignores_if_match_does_not_get_away_with_it() {
    let faulty = Faulty::new().await;
    let error = faulty.read_with(vec![on(Method::GET, "big.age", 1, Fault::SetHeader("etag", "\"other\""))]).await.unwrap_err();
    assert!(matches!(error, VaultError::ChangedWhileReading { .. }), "{error:?}");
}

#[tokio::test]
async fn an_object_that_is_overwritten_or_deleted_is_told_apart() {
    let bucket = ceph().bucket(Locking::Off).await;
    let view = view(&source(&ceph().http(), &bucket, "", Some("*"))).await;
    ceph().put(&bucket, "a", "first").await;
    let pinned = view.pin(&view.find("a").await.unwrap().unwrap(), "part").await.unwrap();
    ceph().put(&bucket, "a", "other").await;
    let error = view.read(&pinned, 100).await.unwrap_err();
    assert!(matches!(error, VaultError::ChangedWhileReading { .. }), "{error:?}");
    ceph().ok(Method::DELETE, &format!("{bucket}/a"), &[], "").await;
    let error = view.read(&pinned, 100).await.unwrap_err();
    assert!(matches!(error, VaultError::DeletedWhileReading { .. }), "{error:?}");
    let error = view.pin(&pinned.object, "part").await.unwrap_err();
    assert!(matches!(error, VaultError::Missing { .. }));
    assert_eq!(error.blame(), Cause::Backup);
}

#[tokio::test]
async fn a_pinned_version_outlives_overwriting_and_deleting_the_name() {
    let bucket = ceph().bucket(Locking::On).await;
    let view = view(&source(&ceph().http(), &bucket, "", Some("*"))).await;
    let version = ceph().put(&bucket, "a", "first").await;
    let pinned = view.pin(&view.find("a").await.unwrap().unwrap(), "object").await.unwrap();
    assert_eq!(pinned.version, version);
    ceph().put(&bucket, "a", "other").await;
    ceph().ok(Method::DELETE, &format!("{bucket}/a"), &[], "").await;
    assert_eq!(&view.read(&pinned, 100).await.unwrap()[..], b"first");
    assert!(matches!(view.read(&pinned, 4).await, Err(VaultError::Storage(StorageError::TooLarge { limit: 4 }))));
    assert_eq!(view.find("a").await.unwrap(), None);
}

#[tokio::test]
async fn locks_are_locked_not_locked_or_unknown() {
    let bucket = ceph().bucket(Locking::On).await;
    let view = view(&source(&ceph().http(), &bucket, "", Some("*"))).await;
    for key in ["compliance", "governance", "free", "held"] {
        ceph().put(&bucket, key, key).await;
    }
    let until = in_seconds(600);
    ceph().retain(&bucket, "compliance", "COMPLIANCE", &until).await;
    ceph().retain(&bucket, "governance", "GOVERNANCE", &until).await;
    ceph().ok(Method::PUT, &format!("{bucket}/held?legal-hold="), &[], "<LegalHold><Status>ON</Status></LegalHold>").await;
    let pin = async |key: &str| {
        let object = view.find(key).await.unwrap().unwrap();
        view.pin(&object, "object").await.unwrap()
    };
    let compliance = pin("compliance").await;
    assert_eq!(compliance.lock.state, LockState::Locked { mode: LockMode::Compliance, until: until.parse().unwrap() });
    assert_eq!(compliance.lock.legal_hold, Some(false));
    assert!(compliance.version.is_some());
    assert!(matches!(pin("governance").await.lock.state, LockState::Locked { mode: LockMode::Governance, .. }));
    let free = pin("free").await;
    assert_eq!((free.lock.state, free.lock.legal_hold), (LockState::NotLocked, Some(false)));
    assert_eq!(pin("held").await.lock.legal_hold, Some(true));
    // the same in the chain
    assert_eq!(view.chain(&name).objects[0].lock, compliance.lock);

    let plain = ceph().bucket(Locking::Off).await;
    ceph().put(&plain, "x", "x").await;
    let view = self::view(&source(&ceph().http(), &plain, "", Some("*"))).await;
    let pinned = view.pin(&view.find("x").await.unwrap().unwrap(), "object").await.unwrap();
    assert_eq!(pinned.lock.state, LockState::NotLocked);
}

#[tokio::test]
async fn a_lock_that_these_credentials_may_not_see_is_unknown() {
    let bucket = ceph().bucket(Locking::On).await;
    ceph().put(&bucket, "a", "a").await;
    ceph().retain(&bucket, "a", "COMPLIANCE", &in_seconds(600)).await;
    let (access, secret) = ceph().user("reader");
    let policy = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"AWS":["arn:aws:iam:::user/reader"]}},
        "Action":["s3:GetObject","s3:GetObjectVersion","s3:ListBucket"],"Resource":["arn:aws:s3:::{bucket}","arn:aws:s3:::{bucket}/*"]}}]}}"#
    );
    ceph().ok(Method::PUT, &format!("{bucket}?policy="), &[], &policy).await;
    let source = source(&ceph().http(), &bucket, "", Some("*"));
    let view = VaultView::open_with(&source, &settings(&source), &keys(&access, &secret), now()).await.unwrap();
    let pinned = view.pin(&view.find("a").await.unwrap().unwrap(), "object").await.unwrap();
    assert!(matches!(pinned.lock.state, LockState::Unknown { .. }), "{:?}", pinned.lock);
    assert_eq!(pinned.lock.legal_hold, None);
    assert_eq!(&view.read(&pinned, 10).await.unwrap()[..], b"a");
}

#[tokio::test]
async fn odd_answers_about_locks_are_unknown_or_asked_again() {
    let bucket = ceph().bucket(Locking::On).await;
    ceph().put(&bucket, "a", "a").await;
    ceph().retain(&bucket, "a", "COMPLIANCE", &in_seconds(600)).await;
    let proxy = Proxy::start(ceph().http_port, vec![]);
    let view = view(&source(&proxy.url(), &bucket, "", Some("*"))).await;
    let object = view.find("a").await.unwrap().unwrap();
    let pin = async || view.pin(&object, "object").await.unwrap();
    // headers hidden: GetObjectRetention still tells
    proxy.set(vec![on(Method::HEAD, "/a", 1, Fault::DropHeaders("x-amz-object-lock"))]);
    assert!(matches!(pin().await.lock.state, LockState::Locked { mode: LockMode::Compliance, .. }));
    assert!(proxy.log().iter().any(|l| l.contains("retention=")));
    // a date that is no ISO 8601, as a small server writes it: the entry of this version is in the chain already, so
    // look through a fresh view
    for (header, value) in [("x-amz-object-lock-retain-until-date", "Sat, 21 Nov 2026 19:33:10 GMT"), ("x-amz-object-lock-mode", "FOREVER")]
    {
        let view = self::view(&source(&proxy.url(), &bucket, "", Some("*"))).await;
        proxy.set(vec![on(Method::HEAD, "/a", 1, Fault::SetHeader(header, value))]);
        let pinned = view.pin(&object, "object").await.unwrap();
        assert!(matches!(pinned.lock.state, LockState::Unknown { .. }), "{header}: {:?}", pinned.lock);
    }
    // unknown lock headers are kept
    proxy.set(vec![on(Method::HEAD, "/a", 1, Fault::SetHeader("x-amz-object-lock-event-hold", "ON"))]);
    assert_eq!(pin().await.lock_other, [("x-amz-object-lock-event-hold".to_owned(), "ON".to_owned())]);
}

#[tokio::test]
async fn strange_keys_do_not_kill_a_listing_and_pages_are_followed() {
    let bucket = ceph().bucket(Locking::Off).await;
    for key in ["ehr/2026-11-19.age", "ehr/2026-11-20.age", "ehr/a%20b%2Bc%26.age", "ehr/%C3%BCmlaut.age", "ehr-test/2026-11-21.age"] {
        ceph().put(&bucket, key, "x").await;
    }
    ceph().put(&bucket, "ehr//2026-11-22.age", "x").await;
    let plain = source(&ceph().http(), &bucket, "ehr/", Some("{captured_at:%Y-%m-%d}.age"));
    let list = view(&plain).await.points().await.unwrap();
    let ids: Vec<_> = list.points.iter().map(|p| p.id.as_str()).collect();
    assert_eq!(ids, ["2026-11-19.age", "2026-11-20.age"]);
    assert_eq!(list.other, 3);
    let newest = select(&list.points, &Selector::Latest).unwrap();
    assert_eq!((newest.id.as_str(), newest.captured_from), ("2026-11-20.age", CaptureSource::Name));

    let all = view(&source(&ceph().http(), &bucket, "ehr/", Some("*.age"))).await.points().await.unwrap();
    let ids: Vec<_> = all.points.iter().map(|p| p.id.as_str()).collect();
    assert!(ids.contains(&"a b+c&.age") && ids.contains(&"ümlaut.age"), "{ids:?}");
    let view = view(&source(&ceph().http(), &bucket, "ehr/", Some("*.age"))).await;
    for point in &all.points {
        let pinned = view.pin(&point.objects[0], "object").await.unwrap();
        assert_eq!(&view.read(&pinned, 10).await.unwrap()[..], b"x", "{}", point.id);
    }
}

#[tokio::test]
async fn a_listing_of_many_pages_is_whole() {
    let bucket = ceph().bucket(Locking::Off).await;
    let names: Vec<String> = (0..1_234).map(|i| format!("n-{i:05}")).collect();
    futures_util::StreamExt::for_each_concurrent(futures_util::stream::iter(&names), 16, |name| {
        let bucket = &bucket;
        async move { drop(ceph().put(bucket, name, "").await) }
    })
    .await;
    let proxy = Proxy::start(ceph().http_port, vec![on(Method::GET, "continuation-token", 2, Fault::SlowDown(0))]);
    let list = view(&source(&proxy.url(), &bucket, "", Some("n-*"))).await.points().await.unwrap();
    assert_eq!(list.points.len(), names.len());
    assert!(proxy.log().len() >= 4, "{:?}", proxy.log());
    // a page that promises more without saying where
    proxy.set(vec![on(Method::GET, "list-type", 9, Fault::Say("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"))]);
    let error = view(&source(&proxy.url(), &bucket, "", Some("n-*"))).await.points().await.unwrap_err();
    assert!(matches!(error.storage(), Some(StorageError::BadAnswer { .. })), "{error:?}");
}

fn manifest(id: &str, captured_at: &str) -> String {
    let object =
        |name: &str, role: &str| format!(r#"{{"name":"{name}","role":"{role}","size":5,"blake3":"{0}","sha256":"{0}"}}"#, "ab".repeat(32));
    format!(
        r#"{{"format":"firedrill-sealed-set","version":1,"id":"{id}","captured_at":"{captured_at}","created_at":"{captured_at}",
        "producer":{{"name":"host","software":"test"}},"recipients":["age1x"],"objects":[{},{}],
        "totals":{{"entries":1,"files":1,"directories":0,"bytes":1}},"root_blake3":"{}","compression":{{"algorithm":"zstd","level":3}}}}"#,
        object("index.jsonl.zst.age", "index"),
        object("data-00000.tar.zst.age", "part"),
        "cd".repeat(32),
    )
}

#[tokio::test]
async fn sealed_sets_are_found_by_their_manifests() {
    let bucket = ceph().bucket(Locking::Off).await;
    let (old, new) = ("2026-11-19T020000Z-00000001", "2026-11-20T020000Z-00000002");
    // uploaded in the wrong order: the manifest's time wins
    for (id, at) in [(new, "2026-11-20T02:00:00Z"), (old, "2026-11-19T02:00:00Z")] {
        ceph().put(&bucket, &format!("ehr/{id}/manifest.json"), &manifest(id, at)).await;
        ceph().put(&bucket, &format!("ehr/{id}/index.jsonl.zst.age"), "index").await;
    }
    ceph().put(&bucket, "ehr/2026-11-21T020000Z-00000003/data-00000.tar.zst.age", "being written").await;
    ceph().put(&bucket, "ehr/2026-11-22T020000Z-00000004/manifest.json", "{\"broken\":").await;
    ceph().put(&bucket, "ehr/copy/manifest.json", &manifest(old, "2026-11-23T02:00:00Z")).await;
    ceph().put(&bucket, &format!("ehr-test/{new}/manifest.json"), &manifest(new, "2026-11-24T02:00:00Z")).await;
    let view = view(&source(&ceph().http(), &bucket, "ehr/", None)).await;
    let list = view.points().await.unwrap();
    let ids: Vec<_> = list.points.iter().map(|p| p.id.as_str()).collect();
    assert_eq!(ids, [old, new]);
    assert_eq!((list.half_written, list.broken.len()), (1, 2), "{list:?}");
    let point: &RecoveryPoint = select(&list.points, &Selector::Latest).unwrap();
    assert_eq!(point.id, new);
    assert_eq!(point.objects.len(), 3);
    assert!(view.pin(&point.objects[1], "index").await.is_ok());
    // LIES 15: a member that the manifest names is missing
    let error = view.pin(&point.objects[2], "part").await.unwrap_err();
    assert!(matches!(error, VaultError::Missing { .. }));
    assert_eq!(error.blame(), Cause::Backup);
}

#[tokio::test]
async fn a_slow_reader_holds_no_more_than_its_ranges_in_memory() {
    let faulty = Faulty::new().await;
    let source = source(&faulty.proxy.url(), &faulty.bucket, "ehr/", Some("*"));
    let tuning = firedrill::storage::Tuning { range: 256 << 10, ..servers::quick() };
    let view = VaultView::open_with(&source, &Settings { tuning, ..settings(&source) }, &admin(), now()).await.unwrap();
    let pinned = view.pin(&faulty.pinned.object, "object").await.unwrap();
    let object = view.reader(&pinned, Digesting::Blake3);
    let slow = tokio::task::spawn_blocking(move || {
        let mut reader = object.open(0..object.size()).unwrap();
        reader.read_exact(&mut [0; 1]).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        reader
    });
    let reader = slow.await.unwrap();
    let fetched = view.chain(&name).bytes_read();
    assert!((1..=8 * (256 << 10)).contains(&fetched), "{fetched}");
    drop(reader);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(view.chain(&name).bytes_read() <= fetched + (256 << 10), "a dropped reader goes on fetching");
}

#[tokio::test]
async fn many_objects_are_pinned_in_order() {
    let bucket = ceph().bucket(Locking::On).await;
    for number in 0..40 {
        ceph().put(&bucket, &format!("n{number:02}"), "x").await;
    }
    let view = view(&source(&ceph().http(), &bucket, "", Some("n*"))).await;
    let mut objects: Vec<ObjectRef> = view.points().await.unwrap().points.into_iter().flat_map(|p| p.objects).collect();
    objects.sort_by(|a, b| b.key.cmp(&a.key));
    let pinned = view.pin_all(&objects.iter().map(|o| (o, "part")).collect::<Vec<_>>()).await.unwrap();
    let keys: Vec<_> = pinned.iter().map(|p| p.object.key.clone()).collect();
    assert_eq!(keys, objects.iter().map(|o| o.key.clone()).collect::<Vec<_>>());
    let chain: Vec<_> = view.chain(&|key| Pseudonym(key.to_owned())).objects.into_iter().map(|o| o.object.0).collect();
    assert_eq!(chain, keys);
    objects.push(ObjectRef { key: "none".into(), ..objects[0].clone() });
    let with_roles: Vec<_> = objects.iter().map(|o| (o, "part")).collect();
    assert!(matches!(view.pin_all(&with_roles).await, Err((40, VaultError::Missing { .. }))));
}

#[tokio::test]
async fn an_empty_prefix_is_an_empty_list() {
    let bucket = ceph().bucket(Locking::Off).await;
    for points in [None, Some("*")] {
        assert!(view(&source(&ceph().http(), &bucket, "nothing/", points)).await.points().await.unwrap().points.is_empty());
    }
}

#[tokio::test]
async fn an_empty_object_is_read_without_asking() {
    let bucket = ceph().bucket(Locking::Off).await;
    ceph().put(&bucket, "empty", "").await;
    let view = view(&source(&ceph().http(), &bucket, "", Some("*"))).await;
    let pinned = view.pin(&view.find("empty").await.unwrap().unwrap(), "object").await.unwrap();
    let object = view.reader(&pinned, Digesting::Blake3);
    assert!(drain(&object).await.unwrap().is_empty());
    assert_eq!(object.digest().unwrap().0, *blake3::hash(b"").as_bytes());
}

#[tokio::test]
async fn a_version_that_the_server_does_not_show_is_not_invented() {
    let bucket = ceph().bucket(Locking::On).await;
    ceph().put(&bucket, "a", "a").await;
    let proxy = Proxy::start(ceph().http_port, vec![on(Method::HEAD, "/a", 2, Fault::DropHeaders("x-amz-version-id"))]);
    let view = view(&source(&proxy.url(), &bucket, "", Some("*"))).await;
    let pinned = view.pin(&view.find("a").await.unwrap().unwrap(), "object").await.unwrap();
    assert_eq!(pinned.version, None);
    assert_eq!(&view.read(&pinned, 10).await.unwrap()[..], b"a");
}

#[tokio::test]
async fn an_object_can_be_read_by_several_at_once() {
    let faulty = Faulty::new().await;
    let object = faulty.view.reader(&faulty.pinned, Digesting::Blake3);
    let reads = (0..4u64).map(|i| {
        let object = object.clone();
        tokio::task::spawn_blocking(move || {
            let range = i * 2_500_000..(i + 1) * 2_500_000;
            let mut bytes = Vec::new();
            object.open(range).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        })
    });
    let mut whole = Vec::new();
    for read in reads.collect::<Vec<_>>() {
        whole.extend(read.await.unwrap());
    }
    assert!(whole == faulty.content.as_bytes());
    assert_eq!(object.digest(), None);
    // a reader that is given up early does no harm
    let object = object.clone();
    let gone = tokio::task::spawn_blocking(move || {
        let mut reader = object.open(0..object.size()).unwrap();
        reader.read_exact(&mut [0; 100]).unwrap();
    });
    gone.await.unwrap();
    let odd = ObjectRef { key: "a/../b".into(), size: 1, stored_at: firedrill::domain::Timestamp::from_unix(0) };
    assert!(matches!(faulty.view.pin(&odd, "object").await, Err(VaultError::Storage(StorageError::UnusableName { .. }))));
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_refused_and_not_asked_for_ever() {
    let faulty = Faulty::new().await;
    let error = faulty.read_with(vec![on(Method::GET, "big.age", usize::MAX, Fault::Say("whole"))]).await.unwrap_err();
    assert!(matches!(error.storage(), Some(StorageError::BadAnswer { .. })), "{error:?}");
    assert_eq!(error.blame(), Cause::Runner);
    assert!(faulty.proxy.log().len() <= 6 * 4, "{}", faulty.proxy.log().len());
}
