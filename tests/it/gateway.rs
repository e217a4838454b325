//! The gateway against real S3 clients, over a real S3 server and over a directory.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use firedrill::domain::{LockState, Pseudonym, Reader, Source, StorageLocation};
use firedrill::storage::{Settings, StorageError, Tuning};
use firedrill::vault::gateway::{Gateway, GatewayFacts, GatewayKeys, GatewaySpec, Writes};
use firedrill::vault::{VaultError, VaultView};
use futures_util::{StreamExt, TryStreamExt};
use http::{HeaderName, HeaderValue, Method};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;
use object_store::signer::Signer;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::faults::{Fault, Proxy, on};
use crate::servers::{self, ACCESS, Locking, SECRET, admin, ceph, now, quick, settings, source};
use crate::vault::view;

const BUCKET: &str = "vault";

/// A running gateway on this host's loopback, and who may ask it.
struct Served {
    gateway: Gateway,
    view: VaultView,
    keys: GatewayKeys,
    port: u16,
    bytes: Arc<AtomicU64>,
    client: reqwest::Client,
}

impl Served {
    fn over(view: VaultView, writes: Writes) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let keys = GatewayKeys::generate().unwrap();
        let spec = GatewaySpec {
            bucket: BUCKET.into(),
            region: "us-east-1".into(),
            keys: keys.clone(),
            writes,
            hosts: vec!["s3.drill.internal".into()],
            reader: Reader::Tool,
            now: now(),
        };
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        let on_bytes = Arc::new(move |n| {
            counted.fetch_add(n, Ordering::Relaxed);
        });
        let gateway = Gateway::start(&view, spec, vec![listener], on_bytes).unwrap();
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        Self { gateway, view, keys, port, bytes, client }
    }
    async fn bucket(prefix: &str) -> (String, Self) {
        let bucket = ceph().bucket(Locking::On).await;
        let served = Self::over(view(&source(&ceph().http(), &bucket, prefix, None)).await, Writes::Refuse);
        (bucket, served)
    }
    async fn directory(path: &Path) -> Self {
        let source = Source { location: StorageLocation::File { path: path.to_owned() }, ..source("http://unused", "b", "", None) };
        let view = VaultView::open(&source, &admin(), now()).await.unwrap();
        Self::over(view, Writes::Refuse)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
    fn credential(&self) -> AwsCredential {
        AwsCredential { key_id: self.keys.access_key.clone(), secret_key: self.keys.secret_key().into(), token: None }
    }
    fn store(&self, builder: AmazonS3Builder) -> AmazonS3 {
        builder
            .with_bucket_name(BUCKET)
            .with_region("us-east-1")
            .with_endpoint(self.url())
            .with_allow_http(true)
            .with_access_key_id(&self.keys.access_key)
            .with_secret_access_key(self.keys.secret_key())
            .build()
            .unwrap()
    }
    /// A signed call; `path` begins after the first slash.
    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        call(&self.client, &self.url(), &self.credential(), method, path, headers, body).await
    }
    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], "").await
    }
    async fn chain(&self) -> firedrill::domain::RestoreChain {
        // what was read is entered when the connection is done with it
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.view.chain(&|key| Pseudonym(key.to_owned()))
    }
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Result<bytes::Bytes, reqwest::Error>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(self.body.as_ref().unwrap()).into_owned()
    }
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
    /// Status and S3's error code.
    fn error(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/xml");
        (self.status, element(&self.text(), "Code").pop().unwrap_or_default())
    }
}

async fn call(
    client: &reqwest::Client,
    endpoint: &str,
    credential: &AwsCredential,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let url = format!("{endpoint}/{path}");
    let method: Method = method.parse().unwrap();
    let mut request = http::Request::builder().method(method).uri(&url).body(HttpRequestBody::from(body.to_owned())).unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    AwsAuthorizer::new(credential, "s3", "us-east-1").try_authorize(&mut request, None).unwrap();
    let (parts, _) = request.into_parts();
    let answer = client.request(parts.method, &url).headers(parts.headers).body(body.to_owned()).send().await.unwrap();
    Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), body: answer.bytes().await }
}

/// The texts of all elements of a name.
fn element(xml: &str, name: &str) -> Vec<String> {
    xml.split(&format!("<{name}>")).skip(1).map(|rest| rest.split(&format!("</{name}>")).next().unwrap().to_owned()).collect()
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length.div_ceil(8))
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(length)
        .collect()
}

/// Stores bytes that need not be text.
async fn put_bytes(bucket: &str, key: &str, bytes: Vec<u8>) {
    let store = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region("us-east-1")
        .with_endpoint(ceph().http())
        .with_allow_http(true)
        .with_access_key_id(ACCESS)
        .with_secret_access_key(SECRET)
        .build()
        .unwrap();
    store.put(&key.into(), bytes.into()).await.unwrap();
}

fn refused(facts: &GatewayFacts) -> BTreeMap<(&str, Option<&str>), u64> {
    facts.refused.iter().map(|r| ((r.operation.as_str(), r.key.as_deref()), r.times)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_shown_as_s3_shows_them_and_read_into_the_chain() {
    let (bucket, served) = Served::bucket("ehr/").await;
    let described = [("x-amz-meta-mtime", "1.5"), ("content-type", "text/plain")];
    let (stored, _) = ceph().ok(Method::PUT, &format!("{bucket}/ehr/a"), &described, "0123456789").await;
    let version = stored["x-amz-version-id"].to_str().unwrap().to_owned();
    let etag = stored["etag"].to_str().unwrap().to_owned();
    ceph().put(&bucket, "ehr/empty", "").await;
    ceph().retain(&bucket, "ehr/a", "GOVERNANCE", &servers::in_seconds(3600)).await;

    let whole = served.get("vault/ehr/a").await;
    assert_eq!((whole.status, whole.text().as_str()), (200, "0123456789"));
    for (name, value) in [
        ("etag", etag.as_str()),
        ("content-type", "text/plain"),
        ("x-amz-meta-mtime", "1.5"),
        ("accept-ranges", "bytes"),
        ("content-length", "10"),
        ("x-amz-version-id", &version),
    ] {
        assert_eq!(whole.header(name), value, "{name}");
    }
    assert!(whole.header("last-modified").ends_with(" GMT") && !whole.header("x-amz-request-id").is_empty());
    let head = served.call("HEAD", "vault/ehr/a", &[], "").await;
    assert_eq!((head.status, head.header("content-length"), head.header("etag")), (200, "10", etag.as_str()));

    for (range, status, text, content_range) in [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-3", 206, "789", "bytes 7-9/10"),
        ("bytes=8-100", 206, "89", "bytes 8-9/10"),
        ("bytes=0-1,3-4", 200, "0123456789", ""),
        ("bytes=9-2", 200, "0123456789", ""),
        ("bytes=10-", 416, "", "bytes */10"),
    ] {
        let part = served.call("GET", "vault/ehr/a", &[("range", range)], "").await;
        assert_eq!((part.status, part.header("content-range")), (status, content_range), "{range}");
        match status {
            416 => assert_eq!(part.error().1, "InvalidRange"),
            _ => assert_eq!(part.text(), text, "{range}"),
        }
    }
    let before = servers::now()().0.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    for (name, value, status) in [
        ("if-match", etag.as_str(), 200),
        ("if-match", "\"other\"", 412),
        ("if-none-match", etag.as_str(), 304),
        ("if-none-match", "\"other\"", 200),
        ("if-modified-since", before.as_str(), 304),
        ("if-unmodified-since", "Sat, 21 Nov 2020 19:33:10 GMT", 412),
    ] {
        assert_eq!(served.call("GET", "vault/ehr/a", &[(name, value)], "").await.status, status, "{name}: {value}");
    }
    for (query, status) in [
        (format!("versionId={version}"), 200),
        ("versionId=null".into(), 200),
        ("versionId=other".into(), 404),
        ("partNumber=1".into(), 206),
        ("partNumber=2".into(), 416),
        ("x-id=GetObject".into(), 200),
    ] {
        assert_eq!(served.get(&format!("vault/ehr/a?{query}")).await.status, status, "{query}");
    }
    let named = served.get("vault/ehr/a?response-content-type=x%2Fy&response-content-disposition=attachment").await;
    assert_eq!((named.header("content-type"), named.header("content-disposition")), ("x/y", "attachment"));
    // an empty object, from its first request on
    assert_eq!(served.call("GET", "vault/ehr/empty", &[("range", "bytes=0-")], "").await.status, 416);
    assert_eq!(served.get("vault/ehr/empty").await.status, 200);
    for (path, code) in [("vault/ehr/none", "NoSuchKey"), ("vault/ehr/dir/", "NoSuchKey"), ("other/ehr/a", "NoSuchBucket")] {
        assert_eq!(served.get(path).await.error(), (404, code.to_owned()), "{path}");
    }
    assert_eq!(served.call("HEAD", "vault/ehr/none", &[], "").await.status, 404);
    assert_eq!(served.call("HEAD", "vault/ehr", &[], "").await.status, 404, "rclone asks for the root of its remote");

    let chain = served.chain().await;
    let [a, empty] = chain.objects.as_slice() else { panic!("{chain:?}") };
    assert_eq!((a.version.as_deref(), a.etag.as_deref(), a.size), (Some(version.as_str()), Some(etag.as_str()), 10));
    assert_eq!(a.blake3.unwrap().0, *blake3::hash(b"0123456789").as_bytes());
    let part = a.reads.iter().find(|read| (read.start, read.end) == (2, 5)).unwrap();
    assert_eq!((part.by, part.bytes, part.blake3.unwrap().0), (Reader::Tool, 3, *blake3::hash(b"234").as_bytes()));
    assert!(empty.reads.is_empty());
    served.view.settle_locks().await.unwrap();
    let chain = served.chain().await;
    assert!(matches!(chain.objects[0].lock.state, LockState::Locked { .. }), "{chain:?}");
    assert!(matches!(chain.objects[1].lock.state, LockState::NotLocked), "{chain:?}");
    let facts = served.gateway.stop().await;
    assert_eq!((facts.missing, facts.failures.len(), facts.refused_total(), facts.bad_signatures), (4, 0, 0, 0), "{facts:?}");
    assert_eq!(facts.bytes_served, served.bytes.load(Ordering::Relaxed));
    assert_eq!(facts.requests["HeadObject"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_a_bucket_does_not_have_are_answered_as_s3_does() {
    let (bucket, served) = Served::bucket("").await;
    ceph().put(&bucket, "a", "x").await;
    for (query, status, code) in [
        ("policy", 404, "NoSuchBucketPolicy"),
        ("lifecycle", 404, "NoSuchLifecycleConfiguration"),
        ("cors=", 404, "NoSuchCORSConfiguration"),
        ("tagging", 404, "NoSuchTagSet"),
        ("object-lock", 404, "ObjectLockConfigurationNotFoundError"),
        ("delimiter=x", 501, "NotImplemented"),
        ("max-keys=many", 400, "InvalidArgument"),
        ("encoding-type=x", 400, "InvalidArgument"),
        ("list-type=2&continuation-token=x", 400, "InvalidArgument"),
    ] {
        assert_eq!(served.get(&format!("vault?{query}")).await.error(), (status, code.to_owned()), "{query}");
    }
    for (path, has) in [
        ("vault/?location=", "<LocationConstraint"),
        ("vault?versioning", "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"></VersioningConfiguration>"),
        ("vault?acl", "<Permission>READ</Permission>"),
        ("vault?uploads", "<ListMultipartUploadsResult"),
        ("vault/a?tagging", "<TagSet></TagSet>"),
        ("vault/a?acl", "<Permission>READ</Permission>"),
        ("", "<Bucket><Name>vault</Name>"),
        ("vault?list-type=2&max-keys=0", "<KeyCount>0</KeyCount>"),
        ("vault?versions", "<VersionId>"),
    ] {
        let answer = served.get(path).await;
        assert!(answer.status == 200 && answer.text().contains(has), "{path}: {} {}", answer.status, answer.text());
    }
    for (path, code) in
        [("vault/a?retention", "NoSuchObjectLockConfiguration"), ("vault/a?uploadId=1", "NoSuchUpload"), ("vault/b?tagging", "NoSuchKey")]
    {
        assert_eq!(served.get(path).await.error(), (404, code.to_owned()), "{path}");
    }
    assert_eq!(served.call("HEAD", "vault", &[], "").await.status, 200);
    assert_eq!(served.client.request(Method::OPTIONS, format!("{}/vault/a", served.url())).send().await.unwrap().status().as_u16(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_and_nothing_beside_the_prefix_is_shown() {
    let (bucket, served) = Served::bucket("ehr/").await;
    for key in ["ehr/a", "ehr/b/c", "hr/secret", "ehr-test/secret"] {
        ceph().put(&bucket, key, "content").await;
    }
    let denied = (403, "AccessDenied".to_owned());
    let list = "<Delete><Object><Key>ehr/a</Key></Object></Delete>";
    for (method, path, body) in [
        ("PUT", "vault/ehr/a", "x"),
        ("PUT", "vault/ehr/a?acl", "x"),
        ("PUT", "vault/ehr/a?partNumber=1&uploadId=x", "x"),
        ("DELETE", "vault/ehr/a", ""),
        ("DELETE", "vault/ehr/a?versionId=null", ""),
        ("DELETE", "vault", ""),
        ("PUT", "vault", ""),
        ("PUT", "vault?policy", "{}"),
        ("POST", "vault?delete", list),
        ("POST", "vault/ehr/a?uploads", ""),
        ("POST", "vault/ehr/a?uploadId=x", ""),
        ("POST", "vault/ehr/a?restore", ""),
        ("PATCH", "vault/ehr/a", ""),
    ] {
        assert_eq!(served.call(method, path, &[], body).await.error(), denied, "{method} {path}");
    }
    // bodies of any size: the answer is seen, or the connection is closed
    let large = "x".repeat(3_000_000);
    assert_eq!(served.call("PUT", "vault/ehr/big", &[], &large).await.error(), denied);
    for path in ["vault/hr/secret", "vault/ehr-test/secret", "vault/other", "vault/%2E%2E/hr/secret", "vault/ehr", "vault/e"] {
        let answer = served.get(path).await;
        assert!(matches!(answer.status, 403 | 404) && !answer.text().contains("content"), "{path}: {}", answer.status);
    }
    // traversal: our client would resolve it, so a client that does not
    let raw = curl(&served, &["--path-as-is", &format!("{}/vault/ehr/../hr/secret", served.url())]);
    assert!(!String::from_utf8_lossy(&raw.stdout).contains("content"));
    for (query, keys, prefixes) in [
        ("", vec!["ehr/a", "ehr/b/c"], vec![]),
        ("?delimiter=%2F", vec![], vec!["ehr/"]),
        ("?delimiter=%2F&prefix=e", vec![], vec!["ehr/"]),
        ("?delimiter=%2F&prefix=ehr%2F", vec!["ehr/a"], vec!["ehr/b/"]),
        ("?list-type=2&delimiter=%2F&prefix=ehr", vec![], vec!["ehr/"]),
        ("?delimiter=%2F&marker=ehr%2F", vec![], vec![]),
        ("?prefix=hr", vec![], vec![]),
        ("?list-type=2&prefix=ehr-test%2F", vec![], vec![]),
        ("?delimiter=&prefix=ehr%2Fb", vec!["ehr/b/c"], vec![]),
        ("?versions&prefix=", vec!["ehr/a", "ehr/b/c"], vec![]),
        ("?list-type=2&start-after=ehr%2Fa", vec!["ehr/b/c"], vec![]),
    ] {
        let text = served.get(&format!("vault{query}")).await.text();
        assert_eq!(element(&text, "Key"), keys, "{query}");
        let common: Vec<_> = element(&text, "CommonPrefixes").iter().flat_map(|c| element(c, "Prefix")).collect();
        assert_eq!(common, prefixes, "{query}");
    }
    let facts = served.gateway.troubles();
    let refused = refused(&facts);
    for known in [("PutObject", Some("ehr/a")), ("DeleteObjects", None), ("UploadPart", Some("ehr/a")), ("GetObject", Some("hr/secret"))] {
        assert!(refused.contains_key(&known), "{refused:?}");
    }
    let (_, listing) = ceph().ok(Method::GET, &format!("{bucket}?versions="), &[], "").await;
    assert_eq!(element(&listing, "Key").len(), 4, "nothing was written: {listing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_and_missing_signatures_are_refused() {
    let (bucket, served) = Served::bucket("").await;
    ceph().put(&bucket, "a", "secret").await;
    let url = format!("{}/vault/a", served.url());
    let status_and_code = |text: String, status: u16| (status, element(&text, "Code").pop().unwrap_or_default());
    let anonymous = served.client.get(&url).send().await.unwrap();
    let status = anonymous.status().as_u16();
    assert_eq!(status_and_code(anonymous.text().await.unwrap(), status), (403, "AccessDenied".to_owned()));
    for (key, secret, code) in
        [("OTHER", served.keys.secret_key(), "InvalidAccessKeyId"), (served.keys.access_key.as_str(), "wrong", "SignatureDoesNotMatch")]
    {
        let credential = AwsCredential { key_id: key.into(), secret_key: secret.into(), token: None };
        let answer = call(&served.client, &served.url(), &credential, "GET", "vault/a", &[], "").await;
        assert_eq!(answer.error(), (403, code.to_owned()));
    }
    let store = served.store(AmazonS3Builder::new());
    let good = store.signed_url(Method::GET, &"a".into(), Duration::from_secs(60)).await.unwrap();
    assert_eq!(served.client.get(good.clone()).send().await.unwrap().text().await.unwrap(), "secret");
    let short = store.signed_url(Method::GET, &"a".into(), Duration::from_secs(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    for bad in [
        format!("{good}&versionId=x"),
        good.as_str().replace("vault/a", "vault/b"),
        good.as_str().replace("Expires=60", "Expires=600"),
        short.to_string(),
    ] {
        assert_eq!(served.client.get(&bad).send().await.unwrap().status().as_u16(), 403, "{bad}");
    }
    assert_eq!(served.client.put(good).body("x").send().await.unwrap().status().as_u16(), 403);
    let facts = served.gateway.stop().await;
    assert_eq!((facts.bad_signatures, facts.bytes_served), (8, 6), "{facts:?}");
}

fn curl(served: &Served, more: &[&str]) -> Output {
    let user = format!("{}:{}", served.keys.access_key, served.keys.secret_key());
    Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &user])
        .args(more)
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_speaks_to_it_plainly_and_over_tls() {
    let (bucket, served) = Served::bucket("").await;
    ceph().put(&bucket, "dir/a%20b", "plain").await;
    ceph().put(&bucket, "dir/c%2Bd%25", "odd").await;
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), served.gateway.ca_pem()).unwrap();
    let ca = ca.path().to_str().unwrap();
    let port = served.port;
    let resolve = format!("s3.drill.internal:{port}:127.0.0.1");
    let virtual_host = format!("vault.s3.drill.internal:{port}:127.0.0.1");
    for (url, wanted) in [
        (format!("http://127.0.0.1:{port}/vault/dir/a%20b"), "plain"),
        (format!("http://127.0.0.1:{port}/vault/dir/c%2Bd%25"), "odd"),
        (format!("https://127.0.0.1:{port}/vault/dir/a%20b"), "plain"),
        (format!("https://localhost:{port}/vault/dir/a%20b"), "plain"),
        (format!("https://s3.drill.internal:{port}/vault/dir/c%2Bd%25"), "odd"),
        (format!("https://vault.s3.drill.internal:{port}/dir/a%20b"), "plain"),
    ] {
        let answer = curl(&served, &["--cacert", ca, "--resolve", &resolve, "--resolve", &virtual_host, &url]);
        assert_eq!(String::from_utf8_lossy(&answer.stdout), wanted, "{url}: {answer:?}");
    }
    let listed = curl(&served, &[&format!("http://127.0.0.1:{port}/vault?list-type=2&prefix=dir%2F")]);
    assert_eq!(element(&String::from_utf8_lossy(&listed.stdout), "Key"), ["dir/a b", "dir/c+d%"], "{listed:?}");
    let upload = curl(&served, &["--upload-file", ca, "--write-out", "%{http_code}", &format!("http://127.0.0.1:{port}/vault/new")]);
    assert!(String::from_utf8_lossy(&upload.stdout).ends_with("403"), "{upload:?}");
    // two requests on one connection
    let two = format!("http://127.0.0.1:{port}/vault/dir/a%20b");
    let kept = curl(&served, &["--write-out", "%{num_connects}", &two, &two]);
    assert_eq!(String::from_utf8_lossy(&kept.stdout), "plain1plain0");
}

async fn pages(served: &Served, bucket: &str, query: &str) -> (Vec<String>, Vec<String>) {
    let direct = AwsCredential { key_id: ACCESS.into(), secret_key: SECRET.into(), token: None };
    let ours = served.credential();
    let mut walks = Vec::new();
    for (endpoint, credential, bucket) in [(ceph().http(), &direct, bucket), (served.url(), &ours, BUCKET)] {
        let (mut walk, mut from) = (Vec::new(), String::new());
        loop {
            let text = call(&served.client, &endpoint, credential, "GET", &format!("{bucket}?{query}{from}"), &[], "").await.text();
            let keys = element(&text, "Key");
            let common: Vec<_> = element(&text, "CommonPrefixes").iter().flat_map(|c| element(c, "Prefix")).collect();
            let tags = (element(&text, "ETag"), element(&text, "Size"), element(&text, "LastModified"));
            walk.push(format!("{keys:?} {common:?} {tags:?} {:?}", element(&text, "IsTruncated")));
            if element(&text, "IsTruncated") != ["true"] {
                break;
            }
            let encode = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
            from = match element(&text, "NextContinuationToken").pop() {
                Some(token) => format!("&continuation-token={}", encode(&token)),
                None => {
                    let next = element(&text, "NextMarker").pop().or(keys.last().cloned()).unwrap();
                    format!("&marker={}", encode(&next))
                }
            };
            assert!(walk.len() < 100, "it does not end: {walk:?}");
        }
        walks.push(walk);
    }
    let ours = walks.pop().unwrap();
    (walks.pop().unwrap(), ours)
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_the_servers_own_page_by_page() {
    let (bucket, served) = Served::bucket("").await;
    let mut keys: Vec<String> = (0..7).flat_map(|a| (0..3).map(move |b| format!("d{a}/f{b}"))).collect();
    keys.extend(["a", "d1-", "d1.x", "d10/x", "z%20y", "z%2By", "%C3%A9/%C3%BC"].map(str::to_owned));
    for key in &keys {
        ceph().put(&bucket, key, key).await;
    }
    for query in [
        "list-type=2",
        "list-type=2&max-keys=5",
        "list-type=2&max-keys=1&delimiter=%2F",
        "list-type=2&max-keys=3&delimiter=%2F",
        "list-type=2&max-keys=2&prefix=d1",
        "list-type=2&max-keys=2&prefix=d1&delimiter=%2F",
        "list-type=2&start-after=d3%2Ff1&max-keys=4",
        "max-keys=4",
        "max-keys=2&delimiter=%2F",
        "max-keys=2&delimiter=%2F&prefix=d1%2F",
        "delimiter=&prefix=d2",
    ] {
        let (theirs, ours) = pages(&served, &bucket, query).await;
        assert_eq!(ours, theirs, "{query}");
    }
    let found: Vec<_> =
        served.store(AmazonS3Builder::new()).list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
    assert_eq!(found.len(), keys.len(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_readers_get_the_right_bytes() {
    let (bucket, served) = Served::bucket("").await;
    let data = noise(24 << 20, 7);
    put_bytes(&bucket, "big", data.clone()).await;
    let store = Arc::new(served.store(AmazonS3Builder::new()));
    let data = Arc::new(data);
    let ranges = (0..256u64).map(|i| {
        let start = (i * 98_317) % (24 << 20);
        let end = (start + 1 + (i * 7919) % 400_000).min(24 << 20);
        start..end
    });
    futures_util::stream::iter(ranges)
        .map(|range| {
            let (store, data) = (Arc::clone(&store), Arc::clone(&data));
            tokio::spawn(async move {
                let bytes = store.get_range(&"big".into(), range.clone()).await.unwrap();
                assert!(bytes == data[range.start as usize..range.end as usize], "{range:?}");
            })
        })
        .buffer_unordered(64)
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    let chain = served.chain().await;
    assert_eq!((chain.objects.len(), chain.objects[0].reads.len()), (1, 256));
    for read in &chain.objects[0].reads {
        let hash = blake3::hash(&data[read.start as usize..read.end as usize]);
        assert_eq!((read.bytes, read.blake3.unwrap().0), (read.end - read.start, *hash.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_version_that_was_read_stays() {
    let (bucket, served) = Served::bucket("").await;
    ceph().put(&bucket, "a", "first").await;
    assert_eq!(served.get("vault/a").await.text(), "first");
    ceph().put(&bucket, "a", "second, and longer").await;
    assert_eq!(served.get("vault/a").await.text(), "first");
    assert_eq!(served.call("GET", "vault/a", &[("range", "bytes=1-2")], "").await.text(), "ir");
    ceph().ok(Method::DELETE, &format!("{bucket}/a"), &[], "").await;
    assert_eq!(served.get("vault/a").await.text(), "first");
    assert_eq!(served.call("HEAD", "vault/a", &[], "").await.header("content-length"), "5");

    // where nothing keeps old versions, it fails, and says so
    let plain = ceph().bucket(Locking::Off).await;
    let served = Served::over(view(&source(&ceph().http(), &plain, "", None)).await, Writes::Refuse);
    ceph().put(&plain, "a", "first").await;
    ceph().put(&plain, "b", "first").await;
    assert_eq!(served.get("vault/a").await.text(), "first");
    assert_eq!(served.call("HEAD", "vault/b", &[], "").await.status, 200);
    ceph().put(&plain, "a", "second, and longer").await;
    ceph().ok(Method::DELETE, &format!("{plain}/b"), &[], "").await;
    assert_eq!(served.get("vault/a").await.error(), (409, "OperationAborted".to_owned()));
    assert_eq!(served.get("vault/b").await.error(), (404, "NoSuchKey".to_owned()));
    let facts = served.gateway.stop().await;
    let failures: Vec<_> = facts.failures.iter().map(|f| &*f.error).collect();
    assert!(
        matches!(failures.as_slice(), [VaultError::ChangedWhileReading { .. }, VaultError::DeletedWhileReading { .. }]),
        "{failures:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_storage_does_meanwhile_tools_do_not_see() {
    let bucket = ceph().bucket(Locking::Off).await;
    let data = noise(6_000_000, 3);
    put_bytes(&bucket, "big", data.clone()).await;
    let proxy = Proxy::start(ceph().http_port, vec![]);
    let patient = view(&source(&proxy.url(), &bucket, "", None)).await;
    for (what, times, fault) in [
        ("503 SlowDown", 3, Fault::SlowDown(0)),
        ("500", 2, Fault::Answer(500, "InternalError")),
        ("reset before the answer", 3, Fault::Reset),
        ("cut in the middle", 4, Fault::CutAfter(700_000)),
        ("stall", 1, Fault::StallAfter(300_000)),
        ("a body cut short with a Content-Length to match", 1, Fault::Truncate(100_000)),
    ] {
        // both before anything is known of the object, and after
        for view in [view(&source(&proxy.url(), &bucket, "", None)).await, patient.clone()] {
            proxy.set(vec![on(Method::GET, "big", times, fault.clone())]);
            let served = Served::over(view, Writes::Refuse);
            let answer = served.get("vault/big").await;
            if what.starts_with("a body cut short") && answer.body.is_err() {
                // the lie was told in the very answer that pinned the object: nothing can resume it
                continue;
            }
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            if what.starts_with("a body cut short") && answer.body.as_ref().unwrap().len() == 100_000 {
                continue;
            }
            assert!(answer.body.unwrap() == data, "{what}");
            assert!(served.gateway.troubles().failures.is_empty(), "{what}");
        }
    }
    proxy.set(vec![on(Method::GET, "big", 1, Fault::CutAfter(700_000))]);
    let served = Served::over(patient, Writes::Refuse);
    served.get("vault/big").await.body.unwrap();
    assert!(proxy.log().iter().any(|line| line.contains("bytes=700000-")), "{:?}", proxy.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_patience_ends_the_connection_is_cut_and_the_reason_kept() {
    let bucket = ceph().bucket(Locking::Off).await;
    put_bytes(&bucket, "big", noise(3_000_000, 5)).await;
    let proxy = Proxy::start(
        ceph().http_port,
        vec![on(Method::GET, "big", 1, Fault::CutAfter(1_000_000)), on(Method::GET, "big", usize::MAX, Fault::SlowDown(0))],
    );
    let source = source(&proxy.url(), &bucket, "", None);
    let tuning = Tuning { patience: Duration::from_secs(1), request_patience: Duration::from_secs(1), ..quick() };
    let view = VaultView::open_with(&source, &Settings { tuning, ..settings(&source) }, &admin(), now()).await.unwrap();
    let served = Served::over(view, Writes::Refuse);
    let answer = served.get("vault/big").await;
    assert_eq!((answer.status, answer.header("content-length")), (200, "3000000"));
    assert!(answer.body.is_err(), "a short body must not look whole");
    assert_eq!(served.get("vault/big").await.error(), (503, "SlowDown".to_owned()));
    let chain = served.chain().await;
    assert_eq!((chain.objects[0].reads[0].bytes, chain.objects[0].reads[0].blake3), (1_000_000, None));
    proxy.set(vec![on(Method::GET, "list-type", usize::MAX, Fault::Answer(403, "AccessDenied"))]);
    assert_eq!(served.get("vault?list-type=2").await.error(), (403, "AccessDenied".to_owned()));
    let facts = served.gateway.stop().await;
    let errors: Vec<_> = facts.failures.iter().map(|f| (f.error.storage().unwrap(), f.times)).collect();
    assert!(
        matches!(
            errors.as_slice(),
            [(StorageError::Throttled { .. }, 1), (StorageError::Throttled { .. }, 1), (StorageError::AccessDenied { .. }, 1)]
        ),
        "{errors:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tools_write_stays_in_memory() {
    let bucket = ceph().bucket(Locking::Off).await;
    for key in ["r/a", "r/b", "r/locks/old"] {
        ceph().put(&bucket, key, "stored").await;
    }
    let served = Served::over(view(&source(&ceph().http(), &bucket, "r/", None)).await, Writes::Overlay { limit: 100_000 });
    assert_eq!(served.call("PUT", "vault/r/locks/new", &[("x-amz-meta-m", "1")], "mine").await.status, 200);
    assert_eq!(served.call("PUT", "vault/r/a", &[], "changed").await.status, 200);
    let new = served.get("vault/r/locks/new").await;
    assert_eq!((new.text().as_str(), new.header("x-amz-meta-m")), ("mine", "1"));
    assert_eq!(served.call("GET", "vault/r/a", &[("range", "bytes=-3")], "").await.text(), "ged");
    assert_eq!(served.call("DELETE", "vault/r/locks/old", &[], "").await.status, 204);
    let list = "<Delete><Object><Key>r/b</Key></Object><Object><Key>elsewhere</Key></Object></Delete>";
    let deleted = served.call("POST", "vault?delete", &[], list).await.text();
    assert_eq!((element(&deleted, "Deleted").len(), element(&deleted, "Code")), (1, vec!["AccessDenied".to_owned()]));
    assert_eq!(served.get("vault/r/b").await.status, 404);
    for (query, keys) in [
        ("prefix=r%2F", vec!["r/a", "r/locks/new"]),
        ("prefix=r%2F&max-keys=1", vec!["r/a"]),
        ("prefix=r%2F&marker=r%2Fa", vec!["r/locks/new"]),
        ("list-type=2&delimiter=%2F&prefix=r%2Flocks%2F", vec!["r/locks/new"]),
    ] {
        assert_eq!(element(&served.get(&format!("vault?{query}")).await.text(), "Key"), keys, "{query}");
    }
    for (path, headers, body, error) in [
        ("vault/elsewhere", vec![], "x".to_owned(), (403, "AccessDenied")),
        ("vault/r/big", vec![], "x".repeat(200_000), (403, "QuotaExceeded")),
        ("vault/r/c", vec![("content-md5", "AAAA")], "x".into(), (400, "BadDigest")),
        ("vault/r/c", vec![("x-amz-content-sha256", "UNSIGNED-PAYLOAD"), ("if-match", "x")], "x".into(), (501, "NotImplemented")),
        ("vault/r/a", vec![("if-none-match", "*")], "x".into(), (412, "PreconditionFailed")),
        ("vault/r/c?uploadId=x&partNumber=1", vec![], "x".into(), (403, "AccessDenied")),
    ] {
        assert_eq!(served.call("PUT", path, &headers, &body).await.error(), (error.0, error.1.to_owned()), "{path} {headers:?}");
    }
    let facts = served.gateway.stop().await;
    assert_eq!((facts.overlay_objects, facts.overlay_bytes), (2, 11), "{facts:?}");
    let (_, listing) = ceph().ok(Method::GET, &bucket, &[], "").await;
    assert_eq!(element(&listing, "Key"), ["r/a", "r/b", "r/locks/old"]);
    assert_eq!(ceph().ok(Method::GET, &format!("{bucket}/r/a"), &[], "").await.1, "stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_served_as_a_bucket() {
    let root = tempfile::tempdir().unwrap();
    let data = noise(3_000_000, 11);
    std::fs::create_dir(root.path().join("dir")).unwrap();
    std::fs::write(root.path().join("dir/big"), &data).unwrap();
    std::fs::write(root.path().join("b c"), "small").unwrap();
    let served = Served::directory(root.path()).await;
    assert!(served.get("vault/dir/big").await.body.unwrap() == data);
    let part = served.call("GET", "vault/dir/big", &[("range", "bytes=1000000-2999999")], "").await;
    assert!(part.body.unwrap() == data[1_000_000..]);
    assert_eq!(served.get("vault/b%20c").await.text(), "small");
    let text = served.get("vault?list-type=2&max-keys=1").await.text();
    assert_eq!((element(&text, "Key"), element(&text, "IsTruncated")), (vec!["b c".to_owned()], vec!["true".to_owned()]));
    let etag = element(&text, "ETag").pop().unwrap().replace("&quot;", "\"");
    assert_eq!(served.call("HEAD", "vault/b%20c", &[], "").await.header("etag"), etag);
    assert_eq!(served.get("vault/dir").await.status, 404);
    std::fs::write(root.path().join("b c"), "changed").unwrap();
    assert_eq!(served.get("vault/b%20c").await.status, 409);
    let chain = served.chain().await;
    let big = chain.objects.iter().find(|o| o.size == 3_000_000).unwrap();
    assert_eq!((big.blake3.unwrap().0, big.bytes_read), (*blake3::hash(&data).as_bytes(), 5_000_000));
}

fn ok(output: Output) -> String {
    assert!(output.status.success(), "{} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn restic(endpoint: &str, bucket: &str, access: &str, secret: &str, args: &[&str]) -> Output {
    Command::new("restic")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("AWS_ACCESS_KEY_ID", access)
        .env("AWS_SECRET_ACCESS_KEY", secret)
        .env("RESTIC_PASSWORD", "drill")
        .args(["--no-cache", "--repo", &format!("s3:{endpoint}/{bucket}/repo")])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// A repository of restic's in a bucket, and what is in it.
fn repository(bucket: &str, root: &Path) -> PathBuf {
    let data = root.join("data");
    std::fs::create_dir(&data).unwrap();
    for i in 0..40u64 {
        std::fs::write(data.join(format!("f{i}")), noise(50_000 + i as usize * 20_000, i)).unwrap();
    }
    ok(restic(&ceph().http(), bucket, ACCESS, SECRET, &["init"]));
    ok(restic(&ceph().http(), bucket, ACCESS, SECRET, &["backup", data.to_str().unwrap()]));
    data
}

fn same_tree(data: &Path, restored: &Path) {
    let diff = Command::new("diff").arg("-r").arg(data).arg(restored.join(data.strip_prefix("/").unwrap())).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_restores_straight_through_it_and_only_get_and_head_reach_the_storage() {
    let bucket = ceph().bucket(Locking::Off).await;
    let root = tempfile::tempdir().unwrap();
    let data = repository(&bucket, root.path());
    let proxy = Proxy::start(ceph().http_port, vec![on(Method::GET, "/data/", 3, Fault::CutAfter(10_000))]);
    let view = view(&source(&proxy.url(), &bucket, "repo/", None)).await;
    for (writes, flags) in [(Writes::Refuse, &["--no-lock"][..]), (Writes::Overlay { limit: 1 << 20 }, &[][..])] {
        let served = Served::over(view.clone(), writes);
        let target = root.path().join(format!("out-{}", flags.len()));
        let args = [&["restore", "latest", "--target", target.to_str().unwrap()], flags].concat();
        ok(restic(&served.url(), BUCKET, &served.keys.access_key, served.keys.secret_key(), &args));
        same_tree(&data, &target);
        let facts = served.gateway.stop().await;
        assert!(facts.failures.is_empty() && facts.refused_total() == 0 && facts.bad_signatures == 0, "{facts:?}");
        assert_eq!(facts.overlay_objects, 0, "restic removes its lock");
        assert_eq!(facts.requests.contains_key("PutObject"), flags.is_empty());
    }
    // what the proxy saw, and what radosgw wrote down itself
    let methods: std::collections::BTreeSet<_> = proxy.log().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert!(methods.iter().all(|method| ["GET", "HEAD"].contains(&method.as_str())), "{methods:?}");
    let (ours, restics): (Vec<_>, Vec<_>) = ceph().access_log(&bucket).into_iter().partition(|line| line.contains("\"firedrill/"));
    assert!(ours.len() > 10 && ours.iter().all(|line| line.contains(" \"GET /") || line.contains(" \"HEAD /")), "{ours:#?}");
    assert!(restics.iter().any(|line| line.contains(" \"PUT /")), "the log tells writes: {restics:#?}");
    view.settle_locks().await.unwrap();
    let chain = view.chain(&|key| Pseudonym(key.to_owned()));
    let packs: Vec<_> = chain.objects.iter().filter(|o| o.object.0.starts_with("repo/data/")).collect();
    assert!(!packs.is_empty() && packs.iter().all(|pack| !pack.reads.is_empty()), "{chain:?}");
    assert!(chain.objects.iter().flat_map(|o| &o.reads).all(|read| read.by == Reader::Tool));
}

#[tokio::test(flavor = "multi_thread")]
async fn boto3_reads_lists_and_writes_through_it() {
    let bucket = ceph().bucket(Locking::Off).await;
    for key in ["p/a", "p/d/b%20c", "p/%C3%BC", "p/plus%2Bper%25cent"] {
        ceph().put(&bucket, key, "content").await;
    }
    put_bytes(&bucket, "p/big", noise(20 << 20, 9)).await;
    let served = Served::over(view(&source(&ceph().http(), &bucket, "p/", None)).await, Writes::Overlay { limit: 1 << 20 });
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = ok(Command::new("sh").arg(root.join("tests/servers/python-setup.sh")).args(["s3", "boto3==1.42.0"]).output().unwrap());
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), served.gateway.ca_pem()).unwrap();
    for endpoint in [served.url(), format!("https://localhost:{}", served.port)] {
        let done = Command::new(python.trim())
            .arg(root.join("tests/servers/gateway-boto3.py"))
            .args([&endpoint, BUCKET, "p/"])
            .env_clear()
            .env("AWS_ACCESS_KEY_ID", &served.keys.access_key)
            .env("AWS_SECRET_ACCESS_KEY", served.keys.secret_key())
            .env("AWS_CA_BUNDLE", ca.path())
            .output()
            .unwrap();
        assert_eq!(ok(done).trim(), "done");
    }
    assert_eq!(served.gateway.troubles().bad_signatures, 0);
}
