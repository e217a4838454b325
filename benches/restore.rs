//! `firedrill run` beside what a user would run instead, in one run: `age -d | zstd -d | tar -x` followed by `b3sum --check`.
//!
//! `cargo bench --bench restore` prints wall time, CPU seconds per restored GiB and peak memory of both, and their ratio,
//! on a mixed set (2 GiB, 5,000 files, compressible and not) and on 200,000 small files. Data is made by a seeded
//! generator, in memory, so that the disk is not what is measured. Needs the distribution's `age` and `zstd`, and `b3sum`
//! (`cargo install b3sum`); without `b3sum` the pipeline runs without its last step and the table says so.
//!
//! Environment: `BENCH_DIR` (default /dev/shm), `BENCH_ROUNDS` (5), `BENCH_ONLY` (`mixed` or `small`), `BENCH_SCALE` (1.0).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, missing_docs, reason = "a benchmark")]

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// SplitMix64: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        ((self.next() >> 32) * n) >> 32
    }
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
    fn normal(&mut self) -> f64 {
        let u = self.unit().max(1e-12);
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

const NAMES: [&str; 16] = [
    "Smith", "Garcia", "Nguyen", "Okafor", "Larsen", "Kowalski", "Haddad", "Tanaka", "Silva", "Novak", "Brown", "Costa", "Meyer", "Rossi",
    "Dubois", "Khan",
];
const CODES: [(&str, &str, &str); 8] = [
    ("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL"),
    ("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL"),
    ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL"),
    ("2951-2", "Sodium [Moles/volume] in Serum or Plasma", "mmol/L"),
    ("8867-4", "Heart rate", "/min"),
    ("8480-6", "Systolic blood pressure", "mm[Hg]"),
    ("8310-5", "Body temperature", "Cel"),
    ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%"),
];

/// Fills `out` to `length` bytes: FHIR-like JSON, CSV, HL7-like messages, or bytes that do not compress.
fn content(kind: usize, random: &mut Random, length: usize, out: &mut Vec<u8>) {
    out.clear();
    while out.len() < length {
        let (code, display, unit) = CODES[random.below(8) as usize];
        let (value, patient) = (random.below(30_000), 1_000_000 + random.below(50_000));
        let name = NAMES[random.below(16) as usize];
        let day = 1 + random.below(28);
        match kind {
            0 => {
                let id = random.next();
                writeln!(out, "{{\"resourceType\":\"Observation\",\"id\":\"{id:016x}\",\"status\":\"final\",\"code\":{{\"coding\":[{{\"system\":\"http://loinc.org\",\"code\":\"{code}\",\"display\":\"{display}\"}}]}},\"subject\":{{\"reference\":\"Patient/{patient}\"}},\"effectiveDateTime\":\"2026-10-{day:02}T08:00:00Z\",\"valueQuantity\":{{\"value\":{value},\"unit\":\"{unit}\"}}}}").unwrap();
            }
            1 => writeln!(out, "{},{patient},{name},{code},{value},{unit},2026-10-{day:02}", random.next() % 100_000_000).unwrap(),
            2 => write!(out, "MSH|^~\\&|LAB|HOSP|EHR|HOSP|202610{day:02}||ORU^R01|{}|P|2.5.1\rPID|1||{patient}||{name}\rOBX|1|NM|{code}^{display}||{value}|{unit}\r", random.next() % 10_000_000_000).unwrap(),
            _ => out.extend_from_slice(&random.next().to_le_bytes()),
        }
    }
    out.truncate(length);
}

const KINDS: [(&str, &str); 4] = [("fhir", "json"), ("csv", "csv"), ("hl7", "hl7"), ("dicom", "dcm")];

/// `total` bytes in `count` files of log-normal sizes, three quarters of them compressible.
fn mixed(root: &Path, total: u64, count: usize) -> u64 {
    let mut random = Random(42);
    let weights: Vec<f64> = (0..count).map(|_| (random.normal() * 1.8).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut written = [0u64; 4];
    let mut buffer = Vec::new();
    for (i, weight) in weights.iter().enumerate() {
        let length = ((weight * total as f64 / sum) as usize).max(64);
        let kind = (0..4).min_by_key(|&k| written[k] * [3, 4, 7, 4][k]).unwrap();
        written[kind] += length as u64;
        content(kind, &mut Random(1_000 + i as u64), length, &mut buffer);
        let directory = root.join(KINDS[kind].0).join(format!("{:02}", i % 64));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("rec{i:05}.{}", KINDS[kind].1)), &buffer).unwrap();
    }
    written.iter().sum()
}

/// `count` files of about 4 KiB, 400 a directory.
fn small(root: &Path, count: usize) -> u64 {
    let mut random = Random(7);
    let (mut total, mut buffer) = (0, Vec::new());
    for i in 0..count {
        let directory = root.join(format!("{:04}", i / 400));
        if i % 400 == 0 {
            fs::create_dir_all(&directory).unwrap();
        }
        let length = ((4096.0 * (random.normal() * 0.5 - 0.125).exp()) as usize).clamp(64, 65_536);
        let kind = [0, 0, 0, 0, 0, 2, 2, 1, 3, 3][random.below(10) as usize];
        content(kind, &mut Random(5_000_000 + i as u64), length, &mut buffer);
        fs::write(directory.join(format!("f{i:06}.{}", KINDS[kind].1)), &buffer).unwrap();
        total += length as u64;
    }
    total
}

struct Measured {
    wall: f64,
    /// When all was restored and verified, before the sandbox was destroyed: what RTO counts, and where the pipeline ends.
    verified: f64,
    cpu: f64,
    peak_mib: f64,
}

/// Runs one command in a shell of its own, with pipefail, and reads what the kernel accounted for all of it.
fn measure(script: &str, directory: &Path) -> Measured {
    let before = usage();
    let started = Instant::now();
    let output = Command::new("bash")
        .args(["-c", &format!("set -euo pipefail; {script}")])
        .current_dir(directory)
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .unwrap();
    let wall = started.elapsed().as_secs_f64();
    let after = usage();
    assert!(output.status.success(), "{script}\n{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Measured {
        wall,
        verified: verified_after(&directory.join("evidence")).unwrap_or(wall),
        cpu: after - before,
        peak_mib: peak_of(&output.stderr),
    }
}

/// Where the last phase begins in the newest report, which is then taken away with its neighbours.
fn verified_after(evidence: &Path) -> Option<f64> {
    let year = fs::read_dir(evidence).ok()?.filter_map(Result::ok).find(|e| e.file_name().len() == 4)?.path();
    let drill = fs::read_dir(&year).ok()?.filter_map(Result::ok).next()?.path();
    let report: serde_json::Value = serde_json::from_slice(&fs::read(drill.join("report.json")).ok()?).ok()?;
    fs::remove_dir_all(&year).ok()?;
    let last = report["timeline"].as_array()?.iter().find(|phase| phase["phase"] == "teardown")?;
    Some(last["began"].as_f64()? / 1e9)
}

/// User and system seconds of all children that were waited for, from /proc/self/stat.
fn usage() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[13..15].iter().map(|f| f.parse::<u64>().unwrap()).sum();
    ticks as f64 / 100.0
}

/// The largest "peak KiB" line that the commands print through `bash`'s own wrapper (see `with_peak`).
fn peak_of(stderr: &[u8]) -> f64 {
    String::from_utf8_lossy(stderr)
        .lines()
        .filter_map(|l| l.strip_prefix("peak-kib "))
        .filter_map(|l| l.trim().parse::<f64>().ok())
        .fold(0.0, f64::max)
        / 1024.0
}

/// A command whose peak resident memory is printed by Python's resource module, which every Debian has.
fn with_peak(command: &str) -> String {
    format!(
        "python3 -c 'import resource,subprocess,sys; r=subprocess.call(sys.argv[1:]); sys.stderr.write(\"peak-kib %d\\n\" % resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(r)' {command}"
    )
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

fn shell(script: &str, directory: &Path) {
    measure(script, directory);
}

struct Set {
    name: &'static str,
    bytes: u64,
    directory: PathBuf,
}

fn prepare(name: &'static str, base: &Path, scale: f64, b3sum: bool, firedrill: &str) -> Set {
    let directory = base.join(name);
    let data = directory.join("data");
    fs::create_dir_all(&data).unwrap();
    let bytes = match name {
        "mixed" => mixed(&data, (2_147_483_648.0 * scale) as u64, (5_000.0 * scale).max(50.0) as usize),
        _ => small(&data, (200_000.0 * scale) as usize),
    };
    shell("age-keygen -o key.txt 2>/dev/null && age-keygen -y key.txt > recipient", &directory);
    shell("mkdir bare && tar -C data -cf - . | zstd -q -3 | age -r $(cat recipient) > bare/2026-11-20T0200.tar.zst.age", &directory);
    if b3sum {
        shell("cd data && find . -type f -print0 | xargs -0 b3sum > ../data.b3", &directory);
    }
    shell(&format!("{firedrill} seal data --to sealed -r $(cat recipient)"), &directory);
    fs::remove_dir_all(&data).unwrap();
    let scenario = |kind: &str, source: &str, check: &str| {
        let text = format!(
            "name = \"{kind}\"\nsystem = \"Benchmark\"\n[source]\n{source}\n[unlock]\nage_identities = [\"file:key.txt\"]\n[sandbox]\nmax_ratio = 100000\nscratch = {{ kind = \"tmpfs\", size = \"6GiB\" }}\n[[check]]\n{check}\n"
        );
        fs::write(directory.join(format!("{kind}.toml")), text).unwrap();
    };
    scenario("sealed", "url = \"file:sealed\"", "kind = \"manifest\"");
    scenario(
        "bare",
        "url = \"file:bare\"\npoints = \"{captured_at:%Y-%m-%dT%H%M}.tar.zst.age\"",
        "kind = \"files\"\npattern = \"**\"\ncount = \">= 50\"",
    );
    Set { name, bytes, directory }
}

fn main() {
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    // `cargo bench` and `cargo test --benches` pass flags of their own; a test run only proves that this builds
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    for program in ["age", "zstd", "tar"] {
        assert!(has(program), "this benchmark needs `{program}`: apt-get install age zstd tar");
    }
    let b3sum = has("b3sum");
    if !b3sum {
        println!("b3sum is not installed: the pipeline runs WITHOUT its verification step (cargo install b3sum)");
    }
    let rounds: usize = setting("BENCH_ROUNDS", "5").parse().unwrap();
    let scale: f64 = setting("BENCH_SCALE", "1.0").parse().unwrap();
    let only = setting("BENCH_ONLY", "");
    let base = PathBuf::from(setting("BENCH_DIR", "/dev/shm")).join(format!("firedrill-bench-{}", std::process::id()));
    let firedrill = env!("CARGO_BIN_EXE_firedrill");
    for name in ["mixed", "small"].into_iter().filter(|n| only.is_empty() || only == *n) {
        let set = prepare(name, &base, scale, b3sum, firedrill);
        let verify = if b3sum { " && cd out && b3sum --quiet --check ../data.b3" } else { "" };
        let pipeline = format!("mkdir out && age -d -i key.txt bare/*.age | zstd -dcq | tar -xf - -C out{verify}");
        let run = |kind: &str| with_peak(&format!("{firedrill} --quiet --state state --evidence evidence run {kind}.toml"));
        let contestants =
            [("age|zstd|tar, b3sum", pipeline), ("firedrill, sealed set", run("sealed")), ("firedrill, bare archive", run("bare"))];
        let mut results: Vec<Vec<Measured>> = contestants.iter().map(|_| Vec::new()).collect();
        for round in 0..=rounds {
            for (contestant, results) in contestants.iter().zip(&mut results) {
                let measured = measure(&contestant.1, &set.directory);
                let _ = fs::remove_dir_all(set.directory.join("out"));
                // the first round warms caches and does not count
                if round > 0 {
                    results.push(measured);
                }
            }
        }
        let gib = set.bytes as f64 / (1u64 << 30) as f64;
        println!("\n{}: {gib:.2} GiB restored, median of {rounds} interleaved rounds", set.name);
        println!(
            "{:<26} {:>9} {:>7} {:>11} {:>7} {:>14} {:>7} {:>10}",
            "", "wall s", "ratio", "verified s", "ratio", "CPU s per GiB", "ratio", "peak MiB"
        );
        let base_wall = median(results[0].iter().map(|m| m.wall));
        let base_cpu = median(results[0].iter().map(|m| m.cpu / gib));
        for ((name, _), results) in contestants.iter().zip(&results) {
            let wall = median(results.iter().map(|m| m.wall));
            let cpu = median(results.iter().map(|m| m.cpu / gib));
            let peak = median(results.iter().map(|m| m.peak_mib));
            let peak = if peak > 0.0 { format!("{peak:.0}") } else { "-".to_owned() };
            let verified = median(results.iter().map(|m| m.verified));
            println!(
                "{name:<26} {wall:>9.2} {:>7.2} {verified:>11.2} {:>7.2} {cpu:>14.2} {:>7.2} {peak:>10}",
                wall / base_wall,
                verified / base_wall,
                cpu / base_cpu
            );
        }
        fs::remove_dir_all(&set.directory).unwrap();
    }
    let _ = fs::remove_dir_all(&base);
}
