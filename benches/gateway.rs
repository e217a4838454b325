//! What the gateway costs: readers and restic straight from a real S3 server, and through the gateway, in turn.
//!
//! `cargo bench --bench gateway` starts a radosgw over memory (`tests/servers/ceph-start.sh`), and for each round a gateway in
//! a process of its own: this benchmark again, which then says how much memory it came to need. Prints medians and ratios.
//! Needs what the tests need, and restic.
//!
//! Environment: `BENCH_ROUNDS` (7), `BENCH_MIB` (192: size of the object), `BENCH_RANGE_KIB` (1024), `BENCH_ONLY` (`readers` or
//! `restic`), `BENCH_WORKERS` (2: threads of the gateway), `BENCH_TALK` (what the gateway says at its end).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, missing_docs, reason = "a benchmark")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use firedrill::domain::{Addressing, Period, Policy, Reader, Source, StorageLocation, Timestamp};
use firedrill::storage::Environment;
use firedrill::vault::VaultView;
use firedrill::vault::gateway::{Gateway, GatewayKeys, GatewaySpec, Writes};
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

const ACCESS: &str = "testaccess";
const SECRET: &str = "testsecret1234";
const READERS: usize = 64;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.iter().position(|a| a == "serve") {
        Some(at) => serve(&arguments[at + 1], &arguments[at + 2], &arguments[at + 3]),
        None => measure(),
    }
}

/// The child: a gateway until its input ends.
fn serve(endpoint: &str, bucket: &str, prefix: &str) {
    let runtime = match setting("BENCH_WORKERS", 2) {
        0 => tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        n => tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build().unwrap(),
    };
    runtime.block_on(async {
        let now: firedrill::storage::Now = Arc::new(|| Timestamp(jiff::Timestamp::now()));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let env = Environment::new([pair("AWS_ACCESS_KEY_ID", ACCESS), pair("AWS_SECRET_ACCESS_KEY", SECRET)]);
        let source = Source {
            location: StorageLocation::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() },
            endpoint: Some(endpoint.to_owned()),
            region: None,
            allow_http: true,
            ca_file: None,
            profile: None,
            addressing: Addressing::Path,
            points: None,
            points_time_zone: None,
            look_back: Period::from_secs(86_400),
            policy: Policy::default(),
            select: firedrill::domain::Selection::Latest,
            limits: firedrill::domain::SourceLimits::default(),
        };
        let view = VaultView::open(&source, &env, Arc::clone(&now)).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let keys = GatewayKeys::generate().unwrap();
        println!("{url} {} {}", keys.access_key, keys.secret_key());
        let spec = GatewaySpec {
            bucket: "vault".into(),
            region: "us-east-1".into(),
            keys,
            writes: Writes::Refuse,
            hosts: Vec::new(),
            reader: Reader::Tool,
            now,
        };
        let gateway = Gateway::start(&view, spec, vec![listener], Arc::new(|_| {})).unwrap();
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.unwrap().unwrap();
        let facts = gateway.stop().await;
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // in hundredths of a second; minor page faults
        eprintln!("user {} system {} faults {}", fields[11], fields[12], fields[7]);
        eprintln!("served {} MiB, {:?}, failures {:?}", facts.bytes_served >> 20, facts.requests, facts.failures);
    });
}

struct Ceph {
    dir: PathBuf,
    url: String,
}

impl Ceph {
    fn start() -> Self {
        let held: [TcpListener; 3] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = held.map(|listener| listener.local_addr().unwrap().port());
        let dir = tempfile::Builder::new().prefix("firedrill-bench-").tempdir_in("/dev/shm").unwrap().keep();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/ceph-start.sh");
        let started = Command::new(script).arg(&dir).args(ports.map(|p| p.to_string())).stdin(Stdio::null()).status().unwrap();
        assert!(started.success());
        Self { dir, url: format!("http://127.0.0.1:{}", ports[0]) }
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/ceph-stop.sh");
        let _ = Command::new(script).arg(&self.dir).status();
    }
}

/// Where to read from, and as whom.
#[derive(Clone)]
struct Place {
    url: String,
    bucket: String,
    access: String,
    secret: String,
}

impl Place {
    fn store(&self) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region("us-east-1")
            .with_endpoint(&self.url)
            .with_allow_http(true)
            .with_access_key_id(&self.access)
            .with_secret_access_key(&self.secret)
            .build()
            .unwrap()
    }
    fn restic(&self, args: &[&str]) {
        let done = Command::new("restic")
            .env("AWS_ACCESS_KEY_ID", &self.access)
            .env("AWS_SECRET_ACCESS_KEY", &self.secret)
            .env("RESTIC_PASSWORD", "drill")
            .args(["--no-cache", "--quiet", "--repo", &format!("s3:{}/{}/repo", self.url, self.bucket)])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

struct Serving {
    child: Child,
    place: Place,
}

impl Serving {
    fn start(ceph: &Ceph, bucket: &str, prefix: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", &ceph.url, bucket, prefix])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("BENCH_TALK").is_some() { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let [url, access, secret] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
        let place = Place { url: url.into(), bucket: "vault".into(), access: access.into(), secret: secret.into() };
        Self { child, place }
    }
    /// Peak memory, MiB, and processor seconds.
    fn end(mut self) -> (f64, f64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
        let peak: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
        (peak / 1024.0, ticks / 100.0)
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

/// Reads the whole object in ranges, 64 at a time, in an order that is not the object's. Bytes are counted and dropped.
async fn read(store: &Arc<AmazonS3>, size: u64) -> f64 {
    let range = (setting("BENCH_RANGE_KIB", 1024) << 10) as u64;
    let ranges = size / range;
    let started = Instant::now();
    let total: u64 = futures_util::stream::iter(0..ranges)
        .map(|i| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let start = (i * 37 % ranges) * range;
                let options = GetOptions { range: Some(GetRange::Bounded(start..start + range)), ..GetOptions::default() };
                let mut stream = store.get_opts(&"big".into(), options).await.unwrap().into_stream();
                let mut length = 0;
                while let Some(bytes) = stream.next().await {
                    length += bytes.unwrap().len() as u64;
                }
                length
            })
        })
        .buffer_unordered(READERS)
        .try_fold(0, |sum, length| async move { Ok(sum + length) })
        .await
        .unwrap();
    assert_eq!(total, ranges * range);
    started.elapsed().as_secs_f64()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

fn measure() {
    let rounds = setting("BENCH_ROUNDS", 7);
    let size = (setting("BENCH_MIB", 192) << 20) as u64;
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let ceph = Ceph::start();
    let direct = Place { url: ceph.url.clone(), bucket: "bench".into(), access: ACCESS.into(), secret: SECRET.into() };
    // restic makes the bucket
    direct.restic(&["init"]);
    println!("| | direct | gateway | ratio | gateway's peak MiB | its CPU s |");
    println!("|---|---|---|---|---|---|");
    if only != "restic" {
        readers(&ceph, &direct, rounds, size);
    }
    if only != "readers" {
        restic(&ceph, &direct, rounds);
    }
}

fn readers(ceph: &Ceph, direct: &Place, rounds: usize, size: u64) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(direct.store().put(&"big".into(), noise(size as usize).into())).unwrap();
    let (mut straight, mut through, mut ratios, mut peaks, mut cpu) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..=rounds {
        let serving = Serving::start(ceph, "bench", "");
        let (a, b) = runtime.block_on(async {
            let (ours, theirs) = (Arc::new(serving.place.store()), Arc::new(direct.store()));
            // in turn, and in turn who begins
            if round % 2 == 0 {
                let a = read(&theirs, size).await;
                (a, read(&ours, size).await)
            } else {
                let b = read(&ours, size).await;
                (read(&theirs, size).await, b)
            }
        });
        let (peak, used) = serving.end();
        // the first round is for caches
        if round > 0 {
            straight.push(size as f64 / a / 1e6);
            through.push(size as f64 / b / 1e6);
            ratios.push(a / b);
            peaks.push(peak);
            cpu.push(used);
        }
    }
    let most = peaks.iter().copied().fold(0.0, f64::max);
    println!(
        "| {READERS} ranged readers, MB/s | {:.0} | {:.0} | {:.2} | {most:.0} | {:.2} |",
        median(&mut straight),
        median(&mut through),
        median(&mut ratios),
        median(&mut cpu)
    );
}

fn restic(ceph: &Ceph, direct: &Place, rounds: usize) {
    let root = tempfile::Builder::new().prefix("firedrill-bench-").tempdir_in("/dev/shm").unwrap();
    let data = root.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let bytes = noise(256 << 20);
    for (i, part) in bytes.chunks(256 << 10).enumerate() {
        std::fs::write(data.join(format!("f{i}")), part).unwrap();
    }
    direct.restic(&["backup", data.to_str().unwrap()]);
    let (mut straight, mut through, mut ratios, mut peaks, mut cpu) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..=rounds {
        let serving = Serving::start(ceph, "bench", "");
        let restore = |place: &Place| {
            let out = root.path().join("out");
            let started = Instant::now();
            place.restic(&["restore", "latest", "--no-lock", "--target", out.to_str().unwrap()]);
            let took = started.elapsed().as_secs_f64();
            std::fs::remove_dir_all(out).unwrap();
            took
        };
        let (a, b) = if round % 2 == 0 {
            let a = restore(direct);
            (a, restore(&serving.place))
        } else {
            let b = restore(&serving.place);
            (restore(direct), b)
        };
        let (peak, used) = serving.end();
        if round > 0 {
            straight.push(a);
            through.push(b);
            ratios.push(b / a);
            peaks.push(peak);
            cpu.push(used);
        }
    }
    let most = peaks.iter().copied().fold(0.0, f64::max);
    println!(
        "| restic restore of 256 MiB, s | {:.2} | {:.2} | {:.2} | {most:.0} | {:.2} |",
        median(&mut straight),
        median(&mut through),
        median(&mut ratios),
        median(&mut cpu)
    );
}
