//! Real servers for tests: Ceph's radosgw, started once per test run, gone when the run ends, however it ends.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use firedrill::domain::{Addressing, Period, Policy, Source, StorageLocation, Timestamp};
use firedrill::storage::{Environment, Now, Settings, Tuning};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;

pub const ACCESS: &str = "testaccess";
pub const SECRET: &str = "testsecret1234";

/// A running radosgw.
pub struct Ceph {
    dir: PathBuf,
    pub http_port: u16,
    pub https_port: u16,
    /// Holds the pipe whose end tells the guard to stop everything. Never waited for.
    _guard: Child,
}

/// The server of this test run.
pub fn ceph() -> &'static Ceph {
    static CEPH: OnceLock<Ceph> = OnceLock::new();
    CEPH.get_or_init(Ceph::start)
}

impl Ceph {
    fn start() -> Self {
        for tool in ["radosgw", "ceph-mon", "ceph-osd", "ceph", "openssl", "curl"] {
            let there = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|dir| dir.join(tool).is_file());
            assert!(there, "`{tool}` is not installed: run .ci/test first, which installs what the tests need");
        }
        let base = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("firedrill-ceph-").tempdir_in(base).unwrap().keep();
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers");
        // Waits for the end of its input, which comes when this process is gone, and cleans up. In a process group of
        // its own, so that Ctrl-C does not reach it.
        let guard = Command::new("bash")
            .args(["-c", r#"cat >/dev/null; exec "$0" "$1""#])
            .arg(scripts.join("ceph-stop.sh"))
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let [http_port, https_port, monitor] = free_ports();
        let started = Command::new(scripts.join("ceph-start.sh"))
            .arg(&dir)
            .args([http_port, https_port, monitor].map(|p| p.to_string()))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(started.status.success(), "ceph-start.sh failed: {}", String::from_utf8_lossy(&started.stderr));
        Self { dir, http_port, https_port, _guard: guard }
    }

    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }
    pub fn https(&self) -> String {
        format!("https://localhost:{}", self.https_port)
    }
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// What the server itself wrote down of requests for a bucket: method, path, status, client and more.
    pub fn access_log(&self, bucket: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.join("log/client.rgw.log")).unwrap();
        log.lines().filter(|line| line.contains(" beast: ") && line.contains(bucket)).map(str::to_owned).collect()
    }

    /// A second user, who may do nothing until a bucket policy lets him.
    pub fn user(&self, name: &str) -> (String, String) {
        let (access, secret) = (format!("{name}access"), format!("{name}secret"));
        let made = Command::new("radosgw-admin")
            .env("CEPH_CONF", self.dir.join("ceph.conf"))
            .args(["user", "create", "--uid", name, "--display-name", name, "--access-key", &access, "--secret-key", &secret])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        (access, secret)
    }

    /// A signed call, with the administrator's keys.
    pub async fn call(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, HeaderMap, String) {
        let credential = AwsCredential { key_id: ACCESS.into(), secret_key: SECRET.into(), token: None };
        let url = format!("{}/{path}", self.http());
        let mut request = http::Request::builder().method(method).uri(&url).body(HttpRequestBody::from(body.to_owned())).unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        if body.is_empty() {
            request.headers_mut().insert("content-length", HeaderValue::from_static("0"));
        }
        AwsAuthorizer::new(&credential, "s3", "us-east-1").try_authorize(&mut request, None).unwrap();
        let (parts, _) = request.into_parts();
        // no idle connections: every test has a runtime of its own, and a connection dies with the runtime it was made on
        static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
        let client = CLIENT.get_or_init(|| reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap());
        let answer = client.request(parts.method, &url).headers(parts.headers).body(body.to_owned()).send().await.unwrap();
        (answer.status(), answer.headers().clone(), answer.text().await.unwrap())
    }

    /// A signed call that must succeed.
    pub async fn ok(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> (HeaderMap, String) {
        let (status, headers, text) = self.call(method.clone(), path, headers, body).await;
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        (headers, text)
    }

    /// Keys and versions of everything in a bucket, delete markers left out.
    pub async fn versions(&self, bucket: &str) -> Vec<(String, String)> {
        let (_, text) = self.ok(Method::GET, &format!("{bucket}?versions="), &[], "").await;
        let field = |part: &str, name: &str| {
            part.split(&format!("<{name}>")).nth(1).unwrap().split(&format!("</{name}>")).next().unwrap().to_owned()
        };
        text.split("<Version>").skip(1).map(|part| (field(part, "Key"), field(part, "VersionId"))).collect()
    }

    /// A fresh bucket.
    pub async fn bucket(&self, locked: Locking) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("b{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let headers: &[_] = match locked {
            Locking::Off => &[],
            Locking::On => &[("x-amz-bucket-object-lock-enabled", "true")],
        };
        self.ok(Method::PUT, &name, headers, "").await;
        name
    }

    /// Stores an object; gives its version.
    pub async fn put(&self, bucket: &str, key: &str, body: &str) -> Option<String> {
        let (headers, _) = self.ok(Method::PUT, &format!("{bucket}/{key}"), &[], body).await;
        headers.get("x-amz-version-id").map(|v| v.to_str().unwrap().to_owned())
    }

    /// Locks an object version until `until`.
    pub async fn retain(&self, bucket: &str, key: &str, mode: &str, until: &str) {
        let body = format!("<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>");
        self.ok(Method::PUT, &format!("{bucket}/{key}?retention="), &[], &body).await;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Locking {
    On,
    Off,
}

fn free_ports<const N: usize>() -> [u16; N] {
    // all held at once, so that they differ
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// The environment of somebody with these keys, and nothing else.
pub fn keys(access: &str, secret: &str) -> Environment {
    Environment::new([("AWS_ACCESS_KEY_ID".to_owned(), access.to_owned()), ("AWS_SECRET_ACCESS_KEY".to_owned(), secret.to_owned())])
}

pub fn admin() -> Environment {
    keys(ACCESS, SECRET)
}

pub fn now() -> Now {
    std::sync::Arc::new(|| Timestamp(jiff::Timestamp::now()))
}

/// Instants around now, as S3 writes them.
pub fn in_seconds(seconds: i64) -> String {
    Timestamp::from_unix(now()().0.as_second() + seconds).0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Limits that make tests quick.
pub fn quick() -> Tuning {
    use std::time::Duration;
    Tuning {
        connect_timeout: Duration::from_secs(3),
        read_timeout: Duration::from_secs(2),
        patience: Duration::from_secs(20),
        request_patience: Duration::from_secs(10),
        first_pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(200),
        ..Tuning::default()
    }
}

/// A scenario's source in a bucket.
pub fn source(endpoint: &str, bucket: &str, prefix: &str, points: Option<&str>) -> Source {
    Source {
        location: StorageLocation::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() },
        endpoint: Some(endpoint.to_owned()),
        region: None,
        allow_http: true,
        ca_file: None,
        profile: None,
        addressing: Addressing::Path,
        points: points.map(str::to_owned),
        points_time_zone: None,
        look_back: Period::from_secs(30 * 86_400),
        select: firedrill::domain::Selection::Latest,
        limits: firedrill::domain::SourceLimits::default(),
        policy: Policy::default(),
    }
}

/// Its settings, with quick limits.
pub fn settings(source: &Source) -> Settings {
    Settings { tuning: quick(), ..Settings::from(source) }
}
