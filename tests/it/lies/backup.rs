//! The backup is bad and looks good.

use std::fs;
use std::path::Path;

use firedrill::codec::age::{SEALED_CHUNK, read_header};
use firedrill::codec::tar::TarWriter;
use serde_json::json;

use super::flip;
use crate::drills::{Forged, Home, entries_of, noise, seal_bytes, tar_of, zstd_bytes};

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
