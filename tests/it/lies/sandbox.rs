//! The sandbox leaks.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use firedrill::codec::tar::TarWriter;
use firedrill::domain::{EntryKind, FileEntry};
use serde_json::json;

use crate::drills::{Forged, Home, entries_of, holds, zstd_bytes};

/// Process ids whose command line holds `needle`.
fn processes(needle: &str) -> Vec<i32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let mut line = Vec::new();
            let read = fs::File::open(format!("/proc/{pid}/cmdline")).and_then(|mut f| f.read_to_end(&mut line));
            read.is_ok() && holds(&line, needle.as_bytes())
        })
        .collect()
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn after_kill_9_nothing_is_left_and_the_drill_is_closed_inconclusive() {
    for (kind, tidy_with) in [("tmpfs", "reap"), ("directory", "reap"), ("directory", "run")] {
        let home = Home::new();
        home.bare_tree();
        fs::create_dir(home.path("scratch")).unwrap();
        let seconds = format!("{}.{}", 600, std::process::id() + u32::from(tidy_with == "run") + u32::from(kind == "tmpfs") * 7);
        let place = if kind == "directory" { format!("path = \"{}\"", home.path("scratch").display()) } else { String::new() };
        let scenario = home.named_scenario(
            "slow",
            &format!("[sandbox.scratch]\nkind = \"{kind}\"\n{place}\n[[check]]\nkind = \"command\"\ncommand = [\"sleep\", \"{seconds}\"]"),
        );
        let mut runner = home.start(&["run", scenario.to_str().unwrap()]);
        let asleep = format!("sleep\0{seconds}");
        wait_until("the check runs", || !processes(&asleep).is_empty());
        assert_eq!(fs::read_dir(home.path("scratch")).unwrap().count(), usize::from(kind == "directory"));
        runner.kill().unwrap();
        runner.wait().unwrap();
        wait_until("everything inside has died with the runner", || processes(&asleep).is_empty());
        assert!(home.evidence().is_empty(), "a drill that was cut short has no evidence yet");

        if tidy_with == "reap" {
            home.fire(&["reap"]).exits(0);
        } else {
            home.drill(&home.scenario("")).ends("PASSED");
        }
        let home_text = home.root().display().to_string();
        assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&home_text), "a mount is left");
        assert_eq!(fs::read_dir(home.path("scratch")).unwrap().count(), 0, "scratch is left");
        for folder in ["state/sandboxes", "state/drills"] {
            let left: Vec<_> = fs::read_dir(home.path(folder)).into_iter().flatten().map(|e| e.unwrap().path()).collect();
            assert!(left.is_empty(), "{left:?}");
        }
        let evidence = home.evidence();
        let drill = evidence[0].file_name().unwrap().to_str().unwrap();
        let groups = String::from_utf8(home.shell(&format!("find /sys/fs/cgroup -name '*{drill}*' 2>/dev/null || true"))).unwrap();
        assert_eq!(groups, "", "a control group is left");
        assert_eq!(evidence.len(), if tidy_with == "run" { 2 } else { 1 });
        let report = home.look_at(&evidence[0]);
        assert_eq!((&report["plan"]["scenario"], &report["verdict"]), (&json!("slow"), &json!("INCONCLUSIVE")));
        let finding = report["findings"].as_array().unwrap().iter().find(|f| f["finding"] == "interrupted").expect("says why");
        assert!(finding["how"].as_str().unwrap().contains("before the drill did"), "{finding:#}");
        let probes = report["disposal"]["probes"].as_array().unwrap();
        assert!(!probes.is_empty() && probes.iter().all(|p| p["gone"] == true), "{probes:#?}");
        assert!(home.fire(&["reap"]).exits(0).stdout.contains("nothing was left"), "a second look finds nothing");
    }
}

/// A tar entry byte by byte, as no writer of ours would make it.
pub(super) fn raw_entry(tar: &mut Vec<u8>, name: &[u8], kind: u8, link: &[u8], data: &[u8]) {
    raw_entry_sized(tar, name, kind, link, data.len() as u64);
    tar.extend_from_slice(data);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn raw_entry_sized(tar: &mut Vec<u8>, name: &[u8], kind: u8, link: &[u8], size: u64) {
    let mut block = [0u8; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000777");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"14000000000");
    block[148..156].fill(b' ');
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[329..336].copy_from_slice(b"0000001");
    block[337..344].copy_from_slice(b"0000003");
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    tar.extend_from_slice(&block);
}

/// Everything below a directory: path, mode, size, time, content's digest.
fn census(root: &Path) -> Vec<(String, u32, i64, i64, Option<String>)> {
    let entries = entries_of(root);
    let row = |entry: FileEntry| {
        let digest = match &entry.kind {
            EntryKind::File { blake3, .. } => blake3.map(|d| d.to_string()),
            EntryKind::Symlink { target } => Some(String::from_utf8_lossy(target).into_owned()),
            _ => None,
        };
        (entry.path.to_string(), entry.mode, entry.mtime, i64::from(entry.mtime_ns), digest)
    };
    entries.into_iter().map(row).collect()
}

#[test]
fn hostile_archives_fail_and_touch_nothing_outside() {
    let home = Home::new();
    // where a restore writes on a host without isolation: everything around it is a canary
    let around = home.path("around");
    for canary in ["canary", "scratch/canary", "etc/passwd"] {
        home.write(&format!("around/{canary}"), "alive");
    }
    fs::set_permissions(around.join("canary"), fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("canary", around.join("link")).unwrap();
    let outside = around.join("canary").display().to_string();
    let plain = |name: &str| ("plain file", vec![(name.as_bytes().to_vec(), b'0', Vec::new())]);
    let link_then = |target: &str, then: &str, kind: u8| {
        vec![
            (b"ok".to_vec(), b'0', Vec::new()),
            (b"out".to_vec(), b'2', target.as_bytes().to_vec()),
            (then.as_bytes().to_vec(), kind, Vec::new()),
        ]
    };
    type Entries = Vec<(Vec<u8>, u8, Vec<u8>)>;
    let cases: Vec<(&str, Entries, &str, &str)> = vec![
        ("climbs", plain("../canary").1, "hostile_entry", "climbs"),
        ("climbs from within", plain("a/../../canary").1, "hostile_entry", "climbs"),
        ("climbs far", plain("../../../../../../../../etc/firedrill-was-here").1, "hostile_entry", "climbs"),
        ("absolute", plain(&outside).1, "hostile_entry", "absolute"),
        ("a file through a link", link_then("../..", "out/canary", b'0'), "hostile_entry", "symbolic link"),
        ("a file through an absolute link", link_then(around.to_str().unwrap(), "out/canary", b'0'), "hostile_entry", "symbolic link"),
        ("a directory through a link", link_then("../..", "out/made", b'5'), "hostile_entry", "symbolic link"),
        ("a file over a link", link_then(&outside, "out", b'0'), "hostile_entry", "there already"),
        ("a directory over a link", link_then("..", "out", b'5'), "hostile_entry", ""),
        ("a hard link that climbs", vec![(b"x".to_vec(), b'1', b"../../canary".to_vec())], "hostile_entry", "hard link"),
        ("a hard link to an absolute name", vec![(b"x".to_vec(), b'1', outside.clone().into_bytes())], "hostile_entry", "hard link"),
        (
            "a hard link through a link",
            vec![(b"out".to_vec(), b'2', around.to_str().unwrap().into()), (b"x".to_vec(), b'1', b"out/canary".to_vec())],
            "hostile_entry",
            "",
        ),
        ("a hard link to what is not there", vec![(b"x".to_vec(), b'1', b"nothing".to_vec())], "hostile_entry", "no earlier file"),
        ("a character device", vec![(b"null".to_vec(), b'3', Vec::new())], "hostile_entry", "device"),
        ("a block device", vec![(b"disk".to_vec(), b'4', Vec::new())], "hostile_entry", "device"),
        (
            "the same name twice",
            vec![(b"a".to_vec(), b'0', Vec::new()), (b"./a".to_vec(), b'0', Vec::new())],
            "hostile_entry",
            "there already",
        ),
        ("a file below a file", vec![(b"a".to_vec(), b'0', Vec::new()), (b"a/b".to_vec(), b'0', Vec::new())], "hostile_entry", ""),
        ("the root as a link", vec![(b".".to_vec(), b'2', b"/tmp".to_vec())], "hostile_entry", "root"),
        ("a name deeper than any backup", vec![("d/".repeat(49).into_bytes(), b'5', Vec::new())], "budget_exceeded", "depth"),
    ];
    let before = census(&around);
    let devices = fs::metadata("/dev/null").unwrap().permissions().mode();
    let overlay = |scratch: &str| format!("sandbox = {{ max_depth = 40, scratch = {scratch} }}");
    let scratches = [
        format!("{{ kind = \"directory\", size = \"64MiB\", path = \"{}\" }}", around.join("scratch").display()),
        "{ kind = \"tmpfs\", size = \"64MiB\" }".to_owned(),
    ];
    for (what, entries, kind, words) in &cases {
        let mut tar = Vec::new();
        for (name, entry_kind, link) in entries {
            let data: &[u8] = if *entry_kind == b'0' { b"OVERWRITTEN" } else { b"" };
            raw_entry(&mut tar, name, *entry_kind, link, data);
        }
        TarWriter::end(&mut tar);
        home.bare(&home.bare_name(1), &home.age(&zstd_bytes(&tar)));
        for scratch in &scratches {
            let drilled = home.drill(&home.scenario(&overlay(scratch))).ends("FAILED");
            let finding = drilled.because(kind);
            assert_eq!(finding["cause"], "backup", "{what}");
            assert!(finding.to_string().contains(words), "{what}: {finding:#}");
            drilled.left_nothing();
            let after: Vec<_> = census(&around);
            let same = |rows: &[(String, u32, i64, i64, Option<String>)]| {
                // the scratch directory's own time changes: drills come and go in it
                rows.iter().filter(|r| r.0 != "scratch").cloned().collect::<Vec<_>>()
            };
            assert_eq!(same(&after), same(&before), "{what}: something outside was touched");
        }
    }
    assert!(!Path::new("/etc/firedrill-was-here").exists());
    assert_eq!(fs::metadata("/dev/null").unwrap().permissions().mode(), devices);

    // in a sealed set by somebody who has the public key
    let mut set = Forged::of(&home, &home.tree());
    let mut tar = Vec::new();
    raw_entry(&mut tar, b"../../canary", b'0', b"", b"OVERWRITTEN");
    TarWriter::end(&mut tar);
    set.parts[0].1 = tar;
    set.write(&home.path("sets"));
    for scratch in &scratches {
        let scenario = home.sealed_scenario(&format!("source.url = \"file:../sets\"\n{}", overlay(scratch)));
        home.drill(&scenario).ends("FAILED").blames_backup("hostile_entry", &[("rule", "climbs")]);
    }
    assert_eq!(fs::read(around.join("canary")).unwrap(), b"alive");

    // names that clash only where case does not count are two files here, and both are there
    let mut tar = Vec::new();
    raw_entry(&mut tar, b"Record", b'0', b"", b"one");
    raw_entry(&mut tar, b"record", b'0', b"", b"two");
    TarWriter::end(&mut tar);
    home.bare(&home.bare_name(1), &home.age(&zstd_bytes(&tar)));
    home.drill(&home.scenario("check = [{ kind = \"files\", pattern = \"?ecord\", count = \"= 2\", bytes = \"= 6\" }]")).ends("PASSED");
}

#[test]
fn four_gibibytes_of_zeros_in_a_small_object_fail_within_the_budget() {
    let home = Home::new();
    // a header that promises 4 GiB, and the zeros, as nothing but frames of zeros
    let size = 4u64 << 30;
    let mut head = Vec::new();
    raw_entry_sized(&mut head, b"zeros", b'0', b"", size);
    let zeros = zstd_bytes(&vec![0; 64 << 20]);
    let mut packed = zstd_bytes(&head);
    for _ in 0..size / (64 << 20) {
        packed.extend_from_slice(&zeros);
    }
    packed.extend_from_slice(&zstd_bytes(&[0; 1_024]));
    assert!(packed.len() < 4 << 20);
    home.bare(&home.bare_name(1), &home.age(&packed));
    let begin = Instant::now();
    // against the ratio
    let drilled =
        home.drill(&home.scenario("sandbox = { max_ratio = 100, scratch = { kind = \"tmpfs\", size = \"8GiB\" } }")).ends("FAILED");
    drilled.blames_backup("budget_exceeded", &[("budget", "ratio")]);
    // more than scratch takes, and no more than the ratio allows: that says nothing about the backup
    let drilled = home.drill(&home.scenario("sandbox = { max_ratio = 1000000, scratch = { kind = \"tmpfs\", size = \"64MiB\" } }"));
    let drilled = drilled.ends("INCONCLUSIVE");
    drilled.blames_runner("scratch_full", &[]);
    drilled.left_nothing();
    assert!(begin.elapsed() < Duration::from_secs(60));
    // very many small files
    let mut tar = Vec::new();
    for number in 0..3_000 {
        raw_entry(&mut tar, format!("f{number}").as_bytes(), b'0', b"", b"");
    }
    TarWriter::end(&mut tar);
    home.bare(&home.bare_name(1), &home.age(&zstd_bytes(&tar)));
    let drilled = home.drill(&home.scenario("sandbox.max_files = 1000")).ends("FAILED");
    drilled.blames_backup("budget_exceeded", &[("budget", "files"), ("limit", "1000")]);
}
