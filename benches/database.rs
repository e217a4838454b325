//! `firedrill run` of a PostgreSQL dump beside the same restore done by hand, in one run: a fresh cluster under the same settings,
//! `age -d | zstd -d`, `pg_restore -j2`.
//!
//! `cargo bench --bench database` makes a database of 2 GiB with a seeded generator (sixteen tables with keys, foreign keys and
//! indexes), dumps it as `pg_dump -Fc -Z0 | zstd | age`, restores it both ways in turn, and prints wall time, processor seconds, the
//! ratios of each round, and the phases of the last drill. Needs `age`, `zstd` and PostgreSQL 15; about 12 GiB of memory.
//!
//! Environment: `BENCH_DIR` (default /dev/shm), `BENCH_ROUNDS` (5), `BENCH_SCALE` (1.0).
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, missing_docs, reason = "a benchmark")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const POSTGRES: &str = "/usr/lib/postgresql/15/bin";

/// What firedrill sets in its throw-away server (`src/restore/service/postgres/cluster.rs`), for 2 GiB of memory and two processors.
const SETTINGS: &str = "\
listen_addresses = ''
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
archive_mode = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 1GB
checkpoint_timeout = 1h
jit = off
shared_buffers = 256MB
maintenance_work_mem = 128MB
dynamic_shared_memory_type = mmap
log_min_messages = warning
";

/// Sixteen tables as those of health records: numbers, codes, instants, texts; each with its key, a foreign key and an index.
fn schema(rows: u64) -> String {
    let mut sql = format!(
        "create table patient (id int primary key, name text not null, born date not null);
         insert into patient select i, md5(i::text), date '1930-01-01' + i % 30000 from generate_series(1, {}) i;\n",
        rows / 10
    );
    for n in 0..15 {
        sql.push_str(&format!(
            "create table observation_{n} (id int primary key, patient int not null references patient, code text not null,
                value numeric(12, 3) not null, at timestamptz not null, note text);
             insert into observation_{n} select i, 1 + (i::bigint * 7919 + {n}) % {}, substr(md5((i % 977 + {n})::text), 1, 7),
                (i % 100000) / 7.0, timestamptz '2026-01-01Z' + i * interval '1 second',
                case when i % 3 = 0 then md5(i::text) || ' ' || md5((i + {n})::text) || ' ' || md5((i * 3)::text) end
              from generate_series(1, {rows}) i;
             create index on observation_{n} (patient, at);\n",
            rows / 10
        ));
    }
    sql
}

struct Measured {
    wall: f64,
    /// When the restored database is there to be asked: of a drill, the end of its phase `ready`.
    usable: f64,
    cpu: f64,
}

/// Runs a script; what it starts in the background and leaves is counted when it is waited for.
fn measure(script: &str, directory: &Path) -> Measured {
    let before = usage();
    let started = Instant::now();
    let output = Command::new("bash")
        .args(["-c", &format!("set -euo pipefail; {script}")])
        .current_dir(directory)
        .env("PATH", format!("{POSTGRES}:{}", std::env::var("PATH").unwrap()))
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let wall = started.elapsed().as_secs_f64();
    assert!(output.status.success(), "{script}\n{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Measured { wall, usable: wall, cpu: usage() - before }
}

/// User and system seconds of all processes of this machine: servers leave the ones that started them.
fn usage() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let ticks: Vec<u64> = stat.lines().next().unwrap().split_whitespace().skip(1).map(|t| t.parse().unwrap()).collect();
    (ticks[0] + ticks[1] + ticks[2]) as f64 / 100.0
}

/// The newest report's phases: name, begin and length in seconds.
fn phases(directory: &Path) -> Vec<(String, f64, f64)> {
    let year = fs::read_dir(directory.join("evidence")).unwrap().flatten().find(|e| e.file_name().len() == 4).unwrap().path();
    let drill = fs::read_dir(&year).unwrap().flatten().next().unwrap().path();
    let report: serde_json::Value = serde_json::from_slice(&fs::read(drill.join("report.json")).unwrap()).unwrap();
    fs::remove_dir_all(&year).unwrap();
    assert_eq!(report["verdict"], "PASSED", "{report:#}");
    let seconds = |value: &serde_json::Value| value.as_f64().unwrap() / 1e9;
    let timeline = report["timeline"].as_array().unwrap();
    timeline.iter().map(|p| (p["phase"].as_str().unwrap().to_owned(), seconds(&p["began"]), seconds(&p["lasted"]))).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A shell's words for running as the server's user: PostgreSQL refuses to run as root.
fn as_server(script: &str) -> String {
    // SAFETY: a plain call.
    let root = unsafe { libc::geteuid() } == 0;
    let become_it = if root { "setpriv --reuid=nobody --regid=nogroup --clear-groups " } else { "" };
    format!("{become_it}bash -euo pipefail -c '{}'", script.replace('\'', "'\\''"))
}

/// Makes a cluster, and starts it under the settings.
fn fresh(place: &str) -> String {
    format!(
        "initdb -D {place} -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null
         cat ../settings >> {place}/postgresql.conf
         echo \"unix_socket_directories = '$PWD'\" >> {place}/postgresql.conf
         pg_ctl -D {place} -l log -w start >/dev/null
         export PGHOST=$PWD PGUSER=postgres"
    )
}

fn main() {
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    // `cargo test --benches` only proves that this builds
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let rounds: usize = setting("BENCH_ROUNDS", "5").parse().unwrap();
    let scale: f64 = setting("BENCH_SCALE", "1.0").parse().unwrap();
    let base = PathBuf::from(setting("BENCH_DIR", "/dev/shm")).join(format!("firedrill-bench-{}", std::process::id()));
    let firedrill = env!("CARGO_BIN_EXE_firedrill");
    let hand = base.join("hand");
    fs::create_dir_all(&hand).unwrap();
    fs::set_permissions(&hand, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(base.join("settings"), SETTINGS).unwrap();
    fs::write(base.join("schema.sql"), schema((950_000.0 * scale) as u64)).unwrap();
    fs::create_dir(base.join("bare")).unwrap();
    measure("age-keygen -o key.txt 2>/dev/null; chmod 644 key.txt; age-keygen -y key.txt > recipient", &base);
    let made = format!(
        "{}; createdb ehr; psql -q -v ON_ERROR_STOP=1 -f ../schema.sql ehr; psql -At -c \"select pg_database_size('ehr')\" > size
         pg_dump -Fc -Z0 ehr > dump; pg_ctl -D made -m immediate stop >/dev/null; rm -r made",
        fresh("made")
    );
    measure(&as_server(&made), &hand);
    measure("zstd -q -3 < hand/dump | age -r $(cat recipient) > bare/2026-11-20T0200.dump.zst.age; rm hand/dump", &base);
    let bytes: f64 = fs::read_to_string(hand.join("size")).unwrap().trim().parse().unwrap();
    fs::write(
        base.join("ehr.toml"),
        "name = \"ehr\"\nsystem = \"Benchmark\"\n[source]\nurl = \"file:bare\"\npoints = \"{captured_at:%Y-%m-%dT%H%M}.dump.zst.age\"\n\
         [unlock]\nage_identities = [\"file:key.txt\"]\n[sandbox]\nmemory = \"2GiB\"\nprocesses = 256\nmax_ratio = 100000\n\
         scratch = { kind = \"tmpfs\", size = \"8GiB\" }\n[[restore]]\nmethod = \"postgres\"\ndump = \"*.dump\"\njobs = 2\n\
         [[check]]\nkind = \"sql\"\nname = \"patients\"\nquery = \"select count(*) from patient\"\nexpect = \">= 1\"\n",
    )
    .unwrap();
    let by_hand = as_server(&format!(
        "{}; createdb ehr; age -d -i ../key.txt ../bare/*.age | zstd -dcq > dump; pg_restore -j2 -d ehr dump",
        fresh("data")
    ));
    let away = as_server("pg_ctl -D data -m immediate stop >/dev/null; rm -rf data dump log");
    let drill = format!("{firedrill} --quiet --state state --evidence evidence run ehr.toml");
    let (mut hands, mut drills, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let by_hand = measure(&by_hand, &hand);
        measure(&away, &hand);
        let mut by_firedrill = measure(&drill, &base);
        last = phases(&base);
        let ready = last.iter().find(|(phase, ..)| phase == "ready").unwrap();
        by_firedrill.usable = ready.1 + ready.2;
        // the first round warms caches and does not count
        if round > 0 {
            hands.push(by_hand);
            drills.push(by_firedrill);
        }
    }
    fs::remove_dir_all(&base).unwrap();
    println!(
        "\nPostgreSQL, {:.2} GiB on disk, medians of {rounds} interleaved rounds; ratios are the median of each round's own",
        bytes / (1u64 << 30) as f64
    );
    println!("{:<44} {:>8} {:>7} {:>9} {:>7} {:>7} {:>7}", "", "wall s", "ratio", "usable s", "ratio", "CPU s", "ratio");
    for (name, measured) in [("by hand: age | zstd, pg_restore -j2", &hands), ("firedrill run", &drills)] {
        let value = |of: fn(&Measured) -> f64| median(measured.iter().map(of));
        let ratio = |of: fn(&Measured) -> f64| median(measured.iter().zip(&hands).map(|(m, h)| of(m) / of(h)));
        println!(
            "{name:<44} {:>8.2} {:>7.2} {:>9.2} {:>7.2} {:>7.1} {:>7.2}",
            value(|m| m.wall),
            ratio(|m| m.wall),
            value(|m| m.usable),
            ratio(|m| m.usable),
            value(|m| m.cpu),
            ratio(|m| m.cpu)
        );
    }
    println!("\nphases of the last drill, seconds");
    for (phase, began, took) in last {
        println!("{phase:<12} {began:>8.2} {took:>8.2}");
    }
}
