//! How restore tests have lied, each lie told to the real binary: the damaged case is built, the drill is run, and both the
//! verdict and the finding that names the cause are demanded.
//!
//! Lies that later work will catch are not in the table yet; a test holds the table to the tests.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use firedrill::codec::age::{SEALED_CHUNK, read_header};
use firedrill::codec::tar::TarWriter;
use firedrill::domain::{EntryKind, FileEntry};
use http::Method;
use serde_json::{Value, json};

use crate::drills::{Drilled, Forged, Home, PATIENT, entries_of, holds, noise, said, seal_bytes, tar_of, zstd_bytes};
use crate::faults::{Fault, Proxy, on};
use crate::servers::{Locking, ceph};

/// Number of the lie, the lie, and the tests that tell it.
const LIES: &[(u32, &str, &[&str])] = &[
    (
        1,
        "a flipped bit in the ciphertext, or in the plaintext before it was sealed",
        &["a_flipped_bit_in_the_ciphertext_fails_naming_object_and_layer", "a_bit_flipped_before_sealing_fails_naming_the_file"],
    ),
    (
        2,
        "a truncated object under its final name",
        &["an_object_cut_short_anywhere_fails_as_truncated", "an_archive_cut_short_before_it_was_sealed_fails_as_truncated"],
    ),
    (3, "an empty dump, validly compressed and encrypted", &["an_empty_dump_validly_compressed_and_encrypted_fails"]),
    (4, "right size, wrong bytes", &["zeros_of_the_right_size_fail"]),
    (
        9,
        "dotfiles missed, setgid and modes stripped, symlinks followed, empty directories dropped",
        &["what_careless_archivers_leave_out_fails_the_manifest_check"],
    ),
    (15, "one member of a multi-part set is missing or from another run", &["a_part_that_is_missing_or_from_another_run_fails"]),
    (
        16,
        "an unencrypted object where policy says encrypted; encrypted to somebody else's key",
        &["an_unencrypted_object_fails_where_policy_says_encrypted", "a_backup_encrypted_to_somebody_elses_key_fails"],
    ),
    (17, "a re-encrypted forgery", &["a_forgery_fails_where_a_producer_is_trusted"]),
    (20, "newest by mtime picks a re-uploaded old backup", &["a_reuploaded_old_backup_is_not_the_newest"]),
    (
        23,
        "a sibling whose name shares the prefix is restored instead",
        &["a_sibling_that_shares_the_prefix_is_never_selected", "a_sibling_in_the_same_bucket_is_never_selected"],
    ),
    (25, "the check compared empty with empty, or asserted nothing at all", &["a_drill_that_asserted_nothing_fails"]),
    (30, "timer set START after END: every drill took 0 s", &["phases_are_monotonic_and_add_up"]),
    (32, "a missed RTO or RPO does not change the verdict", &["a_missed_objective_fails_whatever_else_passed"]),
    (
        33,
        "storage unreachable, credentials refused, sandbox out of memory reported as a bad backup",
        &[
            "storage_that_cannot_be_reached_says_nothing_about_the_backup",
            "refused_credentials_say_nothing_about_the_backup",
            "a_sandbox_out_of_memory_says_nothing_about_the_backup",
        ],
    ),
    (34, "the same as a pass", &["an_inconclusive_drill_is_shown_as_passed_nowhere"]),
    (40, "a verifier that prints SIGNED on a changed report", &["a_changed_report_is_refused_even_with_its_sums_made_right"]),
    (
        46,
        "a report that carries a patient's name",
        &[
            "a_patients_name_reaches_no_evidence_of_drills_that_pass",
            "a_patients_name_reaches_no_evidence_of_drills_that_fail",
            "a_patients_name_in_a_key_reaches_no_evidence_when_storage_fails",
        ],
    ),
    (47, "a report signed by a key that was never trusted, expired or revoked", &["keys_never_trusted_expired_or_revoked_are_refused"]),
    (51, "plaintext left behind after kill -9", &["after_kill_9_nothing_is_left_and_the_drill_is_closed_inconclusive"]),
    (
        52,
        "an archive that writes outside its root",
        &["hostile_archives_fail_and_touch_nothing_outside", "four_gibibytes_of_zeros_in_a_small_object_fail_within_the_budget"],
    ),
];

#[test]
fn the_table_and_the_tests_agree() {
    let source = include_str!("lies.rs");
    let lines: Vec<&str> = source.lines().collect();
    let tests: Vec<&str> = lines
        .windows(2)
        .filter(|pair| pair[0].starts_with("#[test]"))
        .filter_map(|pair| pair[1].strip_prefix("fn ")?.split('(').next())
        .filter(|name| *name != "the_table_and_the_tests_agree")
        .collect();
    let table: Vec<&str> = LIES.iter().flat_map(|(_, _, names)| names.iter().copied()).collect();
    for name in &table {
        assert!(tests.contains(name), "the table names `{name}`, and there is no such test");
    }
    for name in &tests {
        assert!(table.contains(name), "`{name}` is a test that the table does not name");
    }
    assert!(LIES.windows(2).all(|pair| pair[0].0 < pair[1].0), "the table is in the order of the lies");
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

// ---- the backup is bad and looks good -------------------------------------------------------------------------------

#[test]
fn a_flipped_bit_in_the_ciphertext_fails_naming_object_and_layer() {
    let home = Home::new();
    let object = home.bare_tree();
    let scenario = home.scenario("");
    let good = fs::read(&object).unwrap();
    let header = read_header(&mut &good[..]).unwrap().length() as usize;
    // the line that holds the key: who could tell it from somebody else's
    flip(&object, 40);
    let findings = home.drill(&scenario).ends("FAILED").findings();
    let named = findings.iter().any(|f| f["cause"] == "backup" && f["object"].as_str().is_some_and(|o| o.starts_with("object-")));
    assert!(named, "{findings:#?}");
    // the header's MAC, the nonce, the first and the last chunk, the last tag
    for at in [header - 30, header - 5, header + 100, good.len() - 1] {
        fs::write(&object, &good).unwrap();
        flip(&object, at);
        let drilled = home.drill(&scenario).ends("FAILED");
        // a last chunk whose tag is wrong may as well be one that was cut and ends there by chance: the text says both
        let last = at > good.len() - SEALED_CHUNK;
        let finding = drilled.because(if last { "object_truncated" } else { "object_damaged" });
        assert_eq!((&finding["cause"], &finding["layer"]), (&json!("backup"), &json!("age")), "byte {at}: {finding:#}");
        assert!(!last || finding["detail"].as_str().unwrap().contains("damaged"), "{finding:#}");
        assert!(finding["object"].as_str().unwrap().starts_with("object-"), "{finding:#}");
        drilled.left_nothing();
    }

    let home = Home::new();
    let set = Forged::of(&home, &home.tree()).write(&home.path("backups"));
    let part = set.join("data-00000.tar.zst.age");
    flip(&part, 150_000);
    home.drill(&home.sealed_scenario("")).ends("FAILED").blames_backup("object_damaged", &[("layer", "age"), ("object", "object-")]);
    flip(&part, 150_000);
    flip(&set.join("index.jsonl.zst.age"), 400);
    home.drill(&home.sealed_scenario("")).ends("FAILED").blames_backup("object_damaged", &[("layer", "age")]);
}

#[test]
fn a_bit_flipped_before_sealing_fails_naming_the_file() {
    let home = Home::new();
    let tree = home.tree();
    let honest = Forged::of(&home, &tree);
    let mut tar = honest.parts[0].1.clone();
    let image = fs::read(tree.join("records/image.dcm")).unwrap();
    let at = (0..tar.len()).step_by(512).find(|&at| tar[at..].starts_with(&image[..512])).unwrap();
    tar[at + 1_000] ^= 1;
    honest.with_tar(tar).write(&home.path("backups"));

    let drilled = home.drill(&home.sealed_scenario("")).ends("FAILED");
    let finding = drilled.because("tree_differs");
    assert_eq!((&finding["aspects"], &finding["mismatched"]), (&json!({ "content": 1 }), &json!(1)));
    assert_eq!(finding["examples"].as_array().unwrap().len(), 1, "{finding:#}");
    // whoever forgets the manifest check is told all the same
    let drilled = home.drill(&home.sealed_scenario("check = [{ kind = \"files\", pattern = \"**\" }]")).ends("FAILED");
    assert_eq!(drilled.because("tree_differs")["check"], "restore");
}

#[test]
fn an_object_cut_short_anywhere_fails_as_truncated() {
    let home = Home::new();
    let object = home.bare_tree();
    let scenario = home.scenario("");
    let good = fs::read(&object).unwrap();
    let header = read_header(&mut &good[..]).unwrap().length() as usize;
    let border = header + 2 * SEALED_CHUNK;
    assert!(border + SEALED_CHUNK < good.len(), "the backup is too small for this test");
    // in the header, behind it, in the first chunk, at a chunk's border, within the next, and the last byte alone
    for length in [40, header, header + 100, border, border + 1_000, good.len() - 1] {
        fs::write(&object, &good[..length]).unwrap();
        let drilled = home.drill(&scenario).ends("FAILED");
        let finding = drilled.because("object_truncated");
        assert_eq!((&finding["cause"], &finding["layer"]), (&json!("backup"), &json!("age")), "cut at {length}: {finding:#}");
    }
    fs::write(&object, b"").unwrap();
    home.drill(&scenario).ends("FAILED").blames_backup("empty_restore", &[("detail", "no bytes at all")]);

    let home = Home::new();
    let set = Forged::of(&home, &home.tree()).write(&home.path("backups"));
    for name in ["data-00000.tar.zst.age", "index.jsonl.zst.age"] {
        let good = fs::read(set.join(name)).unwrap();
        fs::write(set.join(name), &good[..good.len() / 2]).unwrap();
        let drilled = home.drill(&home.sealed_scenario("")).ends("FAILED");
        drilled.blames_backup("object_truncated", &[("layer", "object"), ("detail", "in the manifest")]);
        fs::write(set.join(name), good).unwrap();
    }
    let manifest = fs::read(set.join("manifest.json")).unwrap();
    fs::write(set.join("manifest.json"), &manifest[..manifest.len() / 2]).unwrap();
    home.drill(&home.sealed_scenario("")).ends("FAILED").blames_backup("no_recovery_point", &[("detail", "manifest")]);
}

#[test]
fn an_archive_cut_short_before_it_was_sealed_fails_as_truncated() {
    let home = Home::new();
    let tree = home.tree();
    let scenario = home.scenario("");
    let entries = entries_of(&tree);
    // entries end on blocks: what is left is a well-formed beginning of an archive
    let whole_entries = tar_of(&tree, &entries[..4]);
    let mut with_end = tar_of(&tree, &entries);
    let inside_a_file = with_end[..with_end.len() - 4_096].to_vec();
    TarWriter::end(&mut with_end);
    let one_end_block = with_end[..with_end.len() - 512].to_vec();
    for (what, tar) in [("between entries", &whole_entries), ("in a file", &inside_a_file), ("between the end blocks", &one_end_block)] {
        home.bare(&home.bare_name(1), &home.age(&zstd_bytes(tar)));
        let finding = home.drill(&scenario).ends("FAILED").because("object_truncated");
        assert_eq!((&finding["cause"], &finding["layer"]), (&json!("backup"), &json!("tar")), "cut {what}: {finding:#}");
    }
    let frame = zstd_bytes(&with_end);
    home.bare(&home.bare_name(1), &home.age(&frame[..frame.len() - 100]));
    home.drill(&scenario).ends("FAILED").blames_backup("object_truncated", &[("layer", "zstd")]);
    home.bare(&home.bare_name(1), &home.age(&frame));
    home.drill(&scenario).ends("PASSED");

    // the same in a sealed set: what its producer sealed was cut short
    let honest = Forged::of(&home, &tree);
    honest.with_tar(whole_entries).write(&home.path("sets"));
    let drilled = home.drill(&home.sealed_scenario("source.url = \"file:../sets\"")).ends("FAILED");
    drilled.blames_backup("object_damaged", &[("layer", "tar")]);
}

#[test]
fn an_empty_dump_validly_compressed_and_encrypted_fails() {
    let home = Home::new();
    let scenario = home.scenario("");
    let object = home.path("backups").join(home.bare_name(1));
    let object = object.display();
    for pipeline in [": | zstd -q", ":", ": | gzip", ": | xz", ": | lz4 -q", "tar -cf - -T /dev/null | zstd -q"] {
        home.shell(&format!("{pipeline} | age -r $RECIPIENT > {object}"));
        let drilled = home.drill(&scenario).ends("FAILED");
        assert_eq!(drilled.because("empty_restore")["cause"], "backup", "{pipeline}");
    }
    // a set that lists nothing
    let mut nothing = Forged::of(&home, &home.tree());
    nothing.parts[0].0.clear();
    nothing.parts[0].1 = vec![0; 1_024];
    nothing.write(&home.path("sets"));
    home.drill(&home.sealed_scenario("source.url = \"file:../sets\"")).ends("FAILED").blames_backup("empty_restore", &[]);
}

#[test]
fn zeros_of_the_right_size_fail() {
    // a full disk: the object has its size, and nothing in it
    let home = Home::new();
    let object = home.bare_tree();
    let size = fs::metadata(&object).unwrap().len() as usize;
    fs::write(&object, vec![0; size]).unwrap();
    home.drill(&home.scenario("")).ends("FAILED").blames_backup("not_encrypted", &[("object", "object-")]);

    let home = Home::new();
    let tree = home.tree();
    let set = Forged::of(&home, &tree).write(&home.path("backups"));
    let part = set.join("data-00000.tar.zst.age");
    let size = fs::metadata(&part).unwrap().len() as usize;
    let mut bytes = fs::read(&part).unwrap();
    fs::write(&part, vec![0; size]).unwrap();
    home.drill(&home.sealed_scenario("")).ends("FAILED").blames_backup("object_damaged", &[("object", "object-"), ("layer", "age")]);
    // zeros behind a good header
    bytes[400..].fill(0);
    fs::write(&part, bytes).unwrap();
    home.drill(&home.sealed_scenario("")).ends("FAILED").blames_backup("object_damaged", &[("layer", "age")]);

    // the disk of the backup host was full: zeros were sealed where content should be
    let home = Home::new();
    let tree = home.tree();
    let honest = Forged::of(&home, &tree);
    fs::write(tree.join("records/image.dcm"), vec![0; 300_000]).unwrap();
    let mut tar = tar_of(&tree, &honest.parts[0].0);
    TarWriter::end(&mut tar);
    honest.with_tar(tar).write(&home.path("backups"));
    let finding = home.drill(&home.sealed_scenario("")).ends("FAILED").because("tree_differs");
    assert_eq!(finding["aspects"], json!({ "content": 1 }));
}

#[test]
fn what_careless_archivers_leave_out_fails_the_manifest_check() {
    let home = Home::new();
    let tree = home.tree();
    let scenario = home.sealed_scenario("");
    let posix = "tar --format=posix --sort=name";
    let cases = [
        ("dotfiles missed by *", format!("cd tree; {posix} -cf - *"), "missing"),
        ("setgid and modes stripped", format!("{posix} --mode=0755 -C tree -cf - ."), "mode"),
        ("symlinks followed", format!("{posix} -h -C tree -cf - ."), "kind"),
        ("empty directories dropped", format!("cp -a tree copy; rmdir copy/inbox; {posix} -C copy -cf - ."), "missing"),
        ("times not kept", format!("cp -a tree now; find now -exec touch -h {{}} +; {posix} -C now -cf - ."), "time"),
        ("something else sneaked in", format!("cp -a tree more; echo x > more/extra; {posix} -C more -cf - ."), "extra"),
    ];
    for (what, script, aspect) in cases {
        Forged::of(&home, &tree).with_tar(home.shell(&script)).write(&home.path("backups"));
        let finding = home.drill(&scenario).ends("FAILED").because("tree_differs");
        assert!(finding["aspects"][aspect].as_u64() >= Some(1), "{what}: {finding:#}");
        assert_eq!((&finding["cause"], &finding["check"]), (&json!("backup"), &json!("manifest")), "{what}");
    }
    // and the same tar, made carefully, passes
    Forged::of(&home, &tree).with_tar(home.shell(&format!("{posix} -C tree -cf - ."))).write(&home.path("backups"));
    home.drill(&scenario).ends("PASSED");
}

/// An honest set of two parts.
fn two_parts(home: &Home, tree: &Path) -> Forged {
    let mut set = Forged::of(home, tree);
    let entries = set.parts.remove(0).0;
    let (first, second) = entries.split_at(entries.len() / 2);
    let mut tar = tar_of(tree, second);
    TarWriter::end(&mut tar);
    set.parts = vec![(first.to_vec(), tar_of(tree, first)), (second.to_vec(), tar)];
    set
}

#[test]
fn a_part_that_is_missing_or_from_another_run_fails() {
    let home = Home::new();
    let tree = home.tree();
    let scenario = home.sealed_scenario("");
    let set = two_parts(&home, &tree).write(&home.path("backups"));
    home.drill(&scenario).ends("PASSED");
    let part = set.join("data-00001.tar.zst.age");
    let ours = fs::read(&part).unwrap();

    fs::remove_file(&part).unwrap();
    home.drill(&scenario).ends("FAILED").blames_backup("object_missing", &[("role", "part"), ("object", "object-")]);

    // the same part of a run before, of the same size, sealed to the same key: it opens, and is not ours
    let other = two_parts(&home, &tree).write(&home.path("before"));
    let theirs = fs::read(other.join("data-00001.tar.zst.age")).unwrap();
    assert_eq!(theirs.len(), ours.len());
    fs::write(&part, theirs).unwrap();
    home.drill(&scenario).ends("FAILED").blames_backup("object_differs", &[("detail", "BLAKE3"), ("object", "object-")]);

    fs::write(&part, &ours).unwrap();
    fs::write(set.join("index.jsonl.zst.age"), fs::read(other.join("index.jsonl.zst.age")).unwrap()).unwrap();
    home.drill(&scenario).ends("FAILED").blames_backup("object_differs", &[("detail", "BLAKE3")]);
}

#[test]
fn an_unencrypted_object_fails_where_policy_says_encrypted() {
    let home = Home::new();
    home.tree();
    home.shell(&format!("tar -C tree -cf - . | zstd -q > backups/{}", home.bare_name(1)));
    let drilled = home.drill(&home.scenario("")).ends("FAILED");
    drilled.blames_backup("not_encrypted", &[("object", "object-")]);
    // said on purpose, it is allowed
    home.drill(&home.scenario("source.policy.encrypted = false")).ends("PASSED");
}

#[test]
fn a_backup_encrypted_to_somebody_elses_key_fails() {
    let home = Home::new();
    let tree = home.tree();
    let other = home.other_key("somebody-else");
    home.bare(&home.bare_name(1), &seal_bytes(&zstd_bytes(&home.shell("tar -C tree -cf - .")), &other));
    let drilled = home.drill(&home.scenario("")).ends("FAILED");
    drilled.blames_backup("no_matching_recipient", &[("object", "object-"), ("detail", "other keys")]);

    let mut set = Forged::of(&home, &tree);
    set.recipient = other;
    set.write(&home.path("sets"));
    let drilled = home.drill(&home.sealed_scenario("source.url = \"file:../sets\"")).ends("FAILED");
    drilled.blames_backup("no_matching_recipient", &[("object", "object-")]);
}

#[test]
fn a_forgery_fails_where_a_producer_is_trusted() {
    let home = Home::new();
    let tree = home.tree();
    let ours = home.producer("backup-host");
    let scenario = home.sealed_scenario("unlock.trusted_producers = [\"file:../keys/backup-host.pub\"]");
    let mut set = Forged::of(&home, &tree);
    set.key = Some(ours.clone());
    let directory = set.write(&home.path("backups"));
    let drilled = home.drill(&scenario).ends("PASSED");
    assert_eq!(drilled.report["backup"]["point"]["producer"], "trusted");

    // anyone can encrypt to a public key: the same patient, other values
    fs::write(tree.join("records/image.dcm"), noise(99, 300_000)).unwrap();
    let forged = |key| {
        let mut set = Forged::of(&home, &tree);
        set.key = key;
        set.write(&home.path("backups"));
        home.drill(&scenario).ends("FAILED")
    };
    let signature = fs::read(directory.join("manifest.sig")).unwrap();
    fs::remove_file(directory.join("manifest.sig")).unwrap();
    forged(None).blames_backup("untrusted_producer", &[("detail", "not signed at all")]);
    forged(Some(home.producer("intruder"))).blames_backup("untrusted_producer", &[("detail", "none of the 1 trusted producers")]);
    fs::write(directory.join("manifest.sig"), signature).unwrap();
    home.drill(&scenario).ends("FAILED").blames_backup("untrusted_producer", &[("detail", "does not match")]);

    // where nobody is trusted, nobody can tell: said as a warning
    let drilled = home.drill(&home.sealed_scenario("")).ends("PASSED");
    assert!(drilled.warns("remark")["detail"].as_str().unwrap().contains("anybody could have sealed this set"));
}

// ---- the drill looked at the wrong thing ----------------------------------------------------------------------------

#[test]
fn a_reuploaded_old_backup_is_not_the_newest() {
    let home = Home::new();
    let old = home.bare_tree();
    fs::rename(&old, old.with_file_name(home.bare_name(50))).unwrap();
    home.bare_tree();
    // the old one was copied back a moment ago
    home.shell(&format!("touch backups/{}; touch -d '-2 hours' backups/{}", home.bare_name(50), home.bare_name(1)));
    let drilled = home.drill(&home.scenario("objectives.rpo = \"24h\"")).ends("PASSED");
    assert_eq!(drilled.report["backup"]["point"]["captured_at"], json!(home.hours_ago(1)));
    assert_eq!(drilled.report["backup"]["point"]["captured_from"], "name");
    // only the old one left: a fresh upload does not make it fresh
    fs::remove_file(home.path("backups").join(home.bare_name(1))).unwrap();
    home.drill(&home.scenario("objectives.rpo = \"24h\"")).ends("FAILED").blames_backup("objective_missed", &[("objective", "rpo")]);

    // sealed sets: the manifest's time, not the id's and not the upload's
    let home = Home::new();
    let tree = home.tree();
    let mut old = Forged::of(&home, &tree);
    old.captured_at = home.hours_ago(72);
    old.id = "zz-looks-newest".to_owned();
    let (new, old) = (Forged::of(&home, &tree).write(&home.path("backups")), old.write(&home.path("backups")));
    home.shell(&format!("touch -d '-9 hours' {}/*; touch {}/*", new.display(), old.display()));
    let drilled = home.drill(&home.sealed_scenario("")).ends("PASSED");
    assert_eq!(drilled.report["backup"]["point"]["captured_at"], json!(home.hours_ago(1)));
}

#[test]
fn a_sibling_that_shares_the_prefix_is_never_selected() {
    let home = Home::new();
    home.tree();
    // the sibling is newer, and encrypted to the same key
    home.shell(&format!(
        "mkdir -p backups/ehr backups/ehr-test; tar -C tree -cf - . | zstd -q | age -r $RECIPIENT > backups/ehr/{}; \
         tar -C tree -cf - .index | zstd -q | age -r $RECIPIENT > backups/ehr-test/{}",
        home.bare_name(3),
        home.bare_name(1)
    ));
    for url in ["file:../backups/ehr", "file:../backups/ehr/"] {
        let drilled = home.drill(&home.scenario(&format!("source.url = \"{url}\""))).ends("PASSED");
        assert_eq!(drilled.report["backup"]["point"]["captured_at"], json!(home.hours_ago(3)));
        assert_eq!(drilled.report["backup"]["point"]["points_seen"], 1);
    }
    // siblings in one folder: the pattern is the whole name
    home.shell(&format!(
        "cp backups/ehr/{0} backups/ehr-{0}; cp backups/ehr-test/{1} backups/ehr-test-{1}; cp backups/ehr-test/{1} backups/ehr-{1}.part",
        home.bare_name(3),
        home.bare_name(1)
    ));
    let points = "source.points = \"ehr-{captured_at:%Y-%m-%dT%H%M}.tar.zst.age\"";
    let drilled = home.drill(&home.scenario(points)).ends("PASSED");
    assert_eq!(drilled.report["backup"]["point"]["captured_at"], json!(home.hours_ago(3)));
    assert_eq!(drilled.report["backup"]["point"]["points_seen"], 1);
}

/// Runs with keys of the administrator of the tests' server, and as talkative as can be.
fn with_keys(home: &Home, scenario: &Path, secret: &str) -> Drilled {
    let output = home
        .command(&["-vv", "run", scenario.to_str().unwrap()])
        .env("AWS_ACCESS_KEY_ID", crate::servers::ACCESS)
        .env("AWS_SECRET_ACCESS_KEY", secret)
        .output()
        .unwrap();
    home.drilled(said(output))
}

/// A bucket with two dumps in clear, `ehr/` three hours old and `ehr-test/` one, and a scenario for `ehr`.
fn bucket_with_siblings(home: &Home) -> std::path::PathBuf {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bucket = runtime.block_on(async {
        let bucket = ceph().bucket(Locking::Off).await;
        for (folder, hours) in [("ehr", 3), ("ehr-test", 1)] {
            let name = home.hours_ago(hours).0.strftime("%Y-%m-%dT%H%M.sql");
            ceph().put(&bucket, &format!("{folder}/{name}"), &format!("-- {folder}\nINSERT INTO patient VALUES ('{PATIENT}');\n")).await;
        }
        bucket
    });
    home.scenario(&format!(
        "[source]\nurl = \"s3://{bucket}/ehr\"\nendpoint = \"{}\"\nallow_http = true\n\
         points = \"{{captured_at:%Y-%m-%dT%H%M}}.sql\"\npolicy.encrypted = false",
        ceph().http()
    ))
}

#[test]
fn a_sibling_in_the_same_bucket_is_never_selected() {
    let home = Home::new();
    let scenario = bucket_with_siblings(&home);
    let drilled = with_keys(&home, &scenario, crate::servers::SECRET).ends("PASSED");
    assert_eq!(drilled.report["backup"]["point"]["captured_at"], json!(home.hours_ago(3)));
    assert_eq!(drilled.report["backup"]["point"]["points_seen"], 1);
}

#[test]
fn a_drill_that_asserted_nothing_fails() {
    let home = Home::new();
    home.bare_tree();
    let drilled = home.drill(&home.scenario("check = []")).ends("FAILED");
    drilled.blames_backup("no_assertions", &[]);
    assert_eq!(drilled.report["assertions"], 0);
    // nothing compared with nothing
    let drilled = home.drill(&home.scenario("check = [{ kind = \"files\", pattern = \"no/such/*\", count = \">= 0\" }]")).ends("FAILED");
    drilled.blames_backup("no_assertions", &[]);
    // a manifest check without a manifest is refused before anything runs
    home.fire(&["run", home.scenario("check = [{ kind = \"manifest\" }]").to_str().unwrap()]).exits(2).says(&["carry no manifest"]);
}

// ---- the clock or the verdict is wrong ------------------------------------------------------------------------------

#[test]
fn phases_are_monotonic_and_add_up() {
    let home = Home::new();
    home.bare_tree();
    let checks = "[[check]]\nkind = \"command\"\nname = \"slow\"\ncommand = [\"sleep\", \"1.2\"]";
    let drilled = home.drill(&home.scenario(checks)).ends("PASSED");
    let report = &drilled.report;
    let nanos = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} is no duration"));
    let (mut at, mut counted, mut verify) = (0, 0, 0);
    let timeline = report["timeline"].as_array().unwrap();
    for (number, phase) in timeline.iter().enumerate() {
        let (began, lasted) = (nanos(&phase["began"]), nanos(&phase["lasted"]));
        assert!(began >= at && lasted > 0, "{timeline:#?}");
        assert!(number == 0 || began == at, "a phase begins where the last one ended: {timeline:#?}");
        at = began + lasted;
        if phase["counts"] == true {
            counted = at;
        }
        if phase["phase"] == "verify" {
            verify = lasted;
        }
    }
    assert_eq!(at, nanos(&report["clock"]["monotonic"]), "the phases add up to the whole");
    assert!(verify >= 1_200_000_000, "the slow check took {verify} ns");
    let usable = nanos(&report["usable_after"]);
    assert!(usable > 0 && usable <= counted && usable + verify < at, "usable after {usable}, verification {verify}, whole {at}");
    assert!(report["clock"]["wall_minus_monotonic"].as_i64().unwrap().abs() <= 2);
}

#[test]
fn a_missed_objective_fails_whatever_else_passed() {
    let home = Home::new();
    home.bare_tree();
    let met = "objectives = { rpo = \"2h\", rto = \"10m\" }";
    let drilled = home.drill(&home.scenario(met)).ends("PASSED");
    assert!(drilled.report["assessments"].as_array().unwrap().iter().all(|a| a["met"] == "met"));

    // declaring and deciding alone take longer than what was promised
    let drilled = home.drill(&home.scenario("objectives = { rto = \"10m\", declared = \"11m\" }")).ends("FAILED");
    drilled.blames_backup("objective_missed", &[("objective", "rto"), ("target", "600")]);
    assert!(drilled.report["checks"].as_array().unwrap().iter().all(|c| c["outcome"] == "passed"));

    let drilled = home.drill(&home.scenario("objectives = { rpo = \"30m\" }")).ends("FAILED");
    drilled.blames_backup("objective_missed", &[("objective", "rpo"), ("target", "1800")]);
}

#[test]
fn storage_that_cannot_be_reached_says_nothing_about_the_backup() {
    let home = Home::new();
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let scenario =
        home.scenario(&format!("[source]\nurl = \"s3://backups/ehr/\"\nendpoint = \"http://127.0.0.1:{closed}\"\nallow_http = true"));
    let drilled = with_keys(&home, &scenario, "secret").ends("INCONCLUSIVE");
    drilled.blames_runner("storage_unreachable", &[("reason", "refused")]);
    drilled.left_nothing();
}

#[test]
fn refused_credentials_say_nothing_about_the_backup() {
    let home = Home::new();
    let scenario = bucket_with_siblings(&home);
    let drilled = with_keys(&home, &scenario, "not-the-secret").ends("INCONCLUSIVE");
    drilled.blames_runner("credentials_refused", &[("reason", "check the access key and the secret")]);
    assert!(!fs::read_to_string(drilled.evidence.join("report.json")).unwrap().contains("not-the-secret"));
    // none at all
    let drilled = home.drill(&scenario).ends("INCONCLUSIVE");
    drilled.blames_runner("credentials_refused", &[("reason", "AWS_ACCESS_KEY_ID")]);
}

/// A command check that takes a gibibyte.
const GREEDY: &str = r#"
[[check]]
kind = "command"
name = "takes all the memory there is"
command = ["bash", "-c", "head -c 1G /dev/zero | tail -c 1G > /dev/null; exit $?"]
"#;

#[test]
fn a_sandbox_out_of_memory_says_nothing_about_the_backup() {
    let home = Home::new();
    home.bare_tree();
    let drilled = home.drill(&home.scenario(GREEDY)).ends("INCONCLUSIVE");
    drilled.blames_runner("sandbox_limit", &[("limit", "memory"), ("check", "takes all")]);
    assert_eq!(drilled.report["checks"][0]["outcome"], "could_not_run");
    drilled.left_nothing();
}

#[test]
fn an_inconclusive_drill_is_shown_as_passed_nowhere() {
    let home = Home::new();
    home.bare_tree();
    let good = home.named_scenario("good", "");
    let bad = home.named_scenario("bad", "unlock.age_identities = [\"file:../keys/lost.agekey\"]");
    let drilled = home.drill(&bad).ends("INCONCLUSIVE");
    drilled.blames_runner("key_unusable", &[]);
    assert!(drilled.said.stdout.contains("INCONCLUSIVE") && !drilled.said.stdout.contains("PASSED"), "{}", drilled.said.stdout);
    let page = fs::read_to_string(drilled.evidence.join("report.html")).unwrap();
    assert!(page.contains("INCONCLUSIVE") || page.contains("Inconclusive"));
    // the statement says so to programs that know nothing of us
    let envelope: Value = serde_json::from_slice(&fs::read(drilled.evidence.join("attestation.dsse.json")).unwrap()).unwrap();
    let payload = data_encoding::BASE64.decode(envelope["payload"].as_str().unwrap().as_bytes()).unwrap();
    let statement: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(statement["predicate"]["result"], "FAILED", "{statement:#}");
    // among several, the inconclusive one decides over one that passed
    let said = home.fire(&["run", "--json", good.to_str().unwrap(), bad.to_str().unwrap()]).exits(3);
    let verdicts: Vec<Value> = said.json().as_array().unwrap().iter().map(|d| d["verdict"].clone()).collect();
    assert_eq!(verdicts, ["PASSED", "INCONCLUSIVE"]);
    // trusted evidence of an inconclusive drill is no pass either
    let said = home.fire(&["verify", "--trust", "evidence/allowed_signers", drilled.evidence.to_str().unwrap()]).exits(0);
    assert!(said.stdout.contains("INCONCLUSIVE") && said.stdout.contains("says nothing about the backup"), "{}", said.stdout);
}

// ---- the evidence lies ----------------------------------------------------------------------------------------------

#[test]
fn a_changed_report_is_refused_even_with_its_sums_made_right() {
    let home = Home::new();
    home.bare_tree();
    let drilled = home.drill(&home.scenario("objectives.rpo = \"30m\"")).ends("FAILED");
    let evidence = drilled.evidence.display().to_string();
    let verify = || home.fire(&["verify", "--trust", "evidence/allowed_signers", &evidence]);
    verify().exits(0);
    let path = drilled.evidence.join("report.json");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("FAILED", "PASSED")).unwrap();
    assert!(verify().exits(1).stdout.contains("REFUSED"));
    // whoever changes the report changes the list of sums as well
    home.shell(&format!("cd {evidence}; sha256sum $(cut -c67- SHA256SUMS) > new; mv new SHA256SUMS"));
    assert!(verify().exits(1).stdout.contains("REFUSED"));
    // and signs it with a key of his own
    home.producer("intruder");
    home.shell(&format!(
        "cd {evidence}; rm SHA256SUMS.sig; ssh-keygen -q -Y sign -f {}/keys/intruder -n file SHA256SUMS",
        home.root().display()
    ));
    assert!(verify().exits(1).stdout.contains("REFUSED"));
}

#[test]
fn a_patients_name_reaches_no_evidence_of_drills_that_pass() {
    let home = Home::new();
    let object = home.bare_tree();
    // in a key too: every drill here is searched for the name
    let named = object.with_file_name(format!("{PATIENT}-{}", object.file_name().unwrap().to_str().unwrap()));
    fs::rename(&object, &named).unwrap();
    let scenario = home.scenario(
        r#"
        source.points = "*-{captured_at:%Y-%m-%dT%H%M}.tar.zst.age"
        [[check]]
        kind = "files"
        pattern = "records/*/*.json"
        [[check]]
        kind = "command"
        command = ["cat", "patients.csv"]
        stdout = "id,name"
        [[check]]
        kind = "freshness"
        path = "patients.csv"
        field = "seen"
        "#,
    );
    let drilled = home.drill(&scenario).ends("PASSED");
    // the search itself can find: the name is in what was restored
    assert!(holds(&home.shell("tar -C tree -cf - ."), PATIENT.as_bytes()));
    assert_eq!(drilled.report["measurements"]["data_age"]["source"], "content");
    // for whoever has the key, the annex resolves the pseudonyms
    home.write("firedrill.toml", format!("[evidence]\nannex_recipients = [\"{}\"]\n", home.recipient));
    let drilled = home.drill(&scenario).ends("PASSED");
    let annex = home.shell(&format!("age -d -i keys/records.agekey {}/annex.age", drilled.evidence.display()));
    assert!(holds(&annex, PATIENT.as_bytes()));
}

#[test]
fn a_patients_name_reaches_no_evidence_of_drills_that_fail() {
    let home = Home::new();
    let object = home.bare_tree();
    let named = object.with_file_name(format!("{PATIENT}-{}", object.file_name().unwrap().to_str().unwrap()));
    fs::rename(&object, &named).unwrap();
    let points = "source.points = \"*-{captured_at:%Y-%m-%dT%H%M}.tar.zst.age\"\n";
    // checks that fail with the name on their output, and on the way to it
    let checks = format!(
        r#"{points}
        [[check]]
        kind = "command"
        name = "shout"
        command = ["bash", "-c", "cat patients.csv; cat patients.csv >&2; exit 3"]
        [[check]]
        kind = "command"
        name = "other output"
        command = ["ls", "-R"]
        stdout = "nobody"
        [[check]]
        kind = "files"
        name = "too few"
        pattern = "records/*/*.json"
        count = ">= 100"
        [[check]]
        kind = "freshness"
        name = "no times"
        path = "patients.csv"
        field = "name"
        "#
    );
    let drilled = home.drill(&home.scenario(&checks)).ends("FAILED");
    assert!(drilled.report["checks"].as_array().unwrap().iter().all(|c| c["outcome"] != "passed"), "{:#}", drilled.report["checks"]);
    // cut short, damaged, someone else's, unencrypted
    let scenario = home.scenario(points);
    let good = fs::read(&named).unwrap();
    fs::write(&named, &good[..good.len() - 70_000]).unwrap();
    home.drill(&scenario).ends("FAILED");
    fs::write(&named, home.shell("tar -C tree -cf - .")).unwrap();
    home.drill(&scenario).ends("FAILED");
    // hostile entries and links with the name
    let mut tar = Vec::new();
    raw_entry(&mut tar, format!("../{PATIENT}").as_bytes(), b'0', b"", PATIENT.as_bytes());
    TarWriter::end(&mut tar);
    fs::write(&named, home.age(&zstd_bytes(&tar))).unwrap();
    home.drill(&scenario).ends("FAILED").because("hostile_entry");
    // a file that is not where the index says, in a set whose folder has the name
    let mut set = Forged::of(&home, &home.tree());
    set.id = PATIENT.to_owned();
    let tar = home.shell("tar --format=posix -C tree -cf - patients.csv");
    set.with_tar(tar).write(&home.path("sets"));
    let drilled = home.drill(&home.sealed_scenario("source.url = \"file:../sets\"")).ends("FAILED");
    assert!(!drilled.because("tree_differs")["examples"].as_array().unwrap().is_empty());
}

#[test]
fn a_patients_name_in_a_key_reaches_no_evidence_when_storage_fails() {
    let home = Home::new();
    let bucket = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let bucket = ceph().bucket(Locking::Off).await;
        let key = format!("ehr/{PATIENT}-{}", home.hours_ago(1).0.strftime("%Y-%m-%dT%H%M.sql"));
        ceph().put(&bucket, &key, &format!("-- a dump\nINSERT INTO patient VALUES ('{PATIENT}');\n")).await;
        bucket
    });
    for (fault, verdict) in [
        (None, "PASSED"),
        (Some(Fault::Answer(403, "AccessDenied")), "INCONCLUSIVE"),
        (Some(Fault::Answer(404, "NoSuchKey")), "FAILED"),
        (Some(Fault::Answer(400, "InvalidArgument")), "INCONCLUSIVE"),
        (Some(Fault::Answer(403, "InvalidObjectState")), "INCONCLUSIVE"),
    ] {
        // whatever asks for the object itself is refused; the listing answers
        let rules =
            fault.into_iter().flat_map(|f| [on(Method::GET, PATIENT, usize::MAX, f.clone()), on(Method::HEAD, PATIENT, usize::MAX, f)]);
        let proxy = Proxy::start(ceph().http_port, rules.collect());
        let scenario = home.scenario(&format!(
            "[source]\nurl = \"s3://{bucket}/ehr/\"\nendpoint = \"{}\"\nallow_http = true\n\
             points = \"*-{{captured_at:%Y-%m-%dT%H%M}}.sql\"\npolicy.encrypted = false",
            proxy.url()
        ));
        with_keys(&home, &scenario, crate::servers::SECRET).ends(verdict).left_nothing();
    }
}

#[test]
fn keys_never_trusted_expired_or_revoked_are_refused() {
    let home = Home::new();
    home.bare_tree();
    let drilled = home.drill(&home.scenario("")).ends("PASSED");
    let line = fs::read_to_string(home.path("evidence/allowed_signers")).unwrap();
    let key = line.split_whitespace().skip_while(|word| !word.starts_with("ssh-")).take(2).collect::<Vec<_>>().join(" ");
    let refused = |trust: &str, extra: &[&str]| {
        home.write("trust", trust);
        let args = [&["--trust", "trust"], extra, &[drilled.evidence.to_str().unwrap()]].concat();
        let said = home.fire(&[&["verify"], &args[..]].concat()).exits(1);
        assert!(said.stdout.contains("REFUSED") && !said.stdout.contains("TRUSTED"), "{}", said.stdout);
        // the auditor's own binary says the same
        let auditor = std::process::Command::new(env!("CARGO_BIN_EXE_firedrill-verify")).args(&args).current_dir(home.root()).output();
        assert_eq!(crate::drills::said(auditor.unwrap()).exits(1).stdout, said.stdout);
        said.stdout
    };
    home.fire(&["verify", "--trust", "evidence/allowed_signers", drilled.evidence.to_str().unwrap()]).exits(0);
    home.producer("stranger");
    let stranger = fs::read_to_string(home.path("keys/stranger.pub")).unwrap();
    assert!(refused(&format!("auditor {stranger}"), &[]).contains("is not in the trust file"), "never trusted");
    assert!(refused(&format!("auditor valid-before=\"20200101\" {key}\n"), &[]).contains("expired on"), "expired");
    home.write("revoked", format!("{key}\n"));
    assert!(refused(&line, &["--revoked", "revoked"]).contains("revoked"), "revoked");
}

// ---- the sandbox leaks ----------------------------------------------------------------------------------------------

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
fn raw_entry(tar: &mut Vec<u8>, name: &[u8], kind: u8, link: &[u8], data: &[u8]) {
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
