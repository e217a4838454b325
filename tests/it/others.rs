//! Backups that other people have: made with the distribution's own programs, restored by the real drill, and their contents
//! compared by `sha256sum` in the sandbox.

use std::fs;

use serde_json::json;

use crate::drills::{Drilled, Home};

/// The usual tree with its sums in it.
fn home_with_sums() -> Home {
    let home = Home::new();
    home.tree();
    home.shell("cd tree; find . -type f ! -name SHA256SUMS -exec sha256sum {} + > ../sums; mv ../sums SHA256SUMS");
    home
}

const SUMS: &str = r#"
[[check]]
kind = "command"
name = "contents"
command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
stdout = "(?s)image.dcm: OK"
[[check]]
kind = "files"
name = "dotfile"
path = ".index"
"#;

/// Makes an object with `pipeline`, drills it, and compares.
#[track_caller]
fn passes(home: &Home, pipeline: &str, overlay: &str, layers: &[&str]) -> Drilled {
    let stamp = home.hours_ago(1).0.strftime("%Y-%m-%dT%H%M").to_string();
    home.shell(&format!("rm -f backups/*; {pipeline} > backups/{stamp}.backup"));
    let scenario = home.scenario(&format!("source.points = \"{{captured_at:%Y-%m-%dT%H%M}}.backup\"\n{overlay}"));
    let drilled = home.drill(&scenario).ends("PASSED");
    assert_eq!(drilled.report["restored"]["layers"], json!(layers), "{pipeline}");
    drilled
}

#[test]
fn tar_through_every_compressor_and_age() {
    let home = home_with_sums();
    for (pipeline, layers) in [
        ("tar -C tree -cf - . | zstd -q | age -r $RECIPIENT", &["age", "zstd", "tar"][..]),
        ("tar -C tree -cf - . | zstd -q -19 --long=27 -T2 | age -r $RECIPIENT", &["age", "zstd", "tar"]),
        ("tar -C tree -cf - . | gzip | age -a -r $RECIPIENT", &["armor", "age", "gzip", "tar"]),
        ("tar -C tree -cJf - . | age -r $RECIPIENT", &["age", "xz", "tar"]),
        ("tar -C tree -cf - . | lz4 -q | age -r $RECIPIENT", &["age", "lz4", "tar"]),
        ("tar -C tree -cf - . | age -r $RECIPIENT", &["age", "tar"]),
        ("tar --format=posix --xattrs -C tree -cf - . | age -r $RECIPIENT | zstd -q | age -r $RECIPIENT", &["age", "zstd", "age", "tar"]),
        ("(tar --format=ustar -C tree -cf - . | gzip; : | gzip) | age -r $RECIPIENT", &["age", "gzip", "tar"]),
        ("tar --format=v7 -C tree -cf - . | zstd -q | age -r $RECIPIENT", &["age", "zstd", "tar"]),
        ("tar -S -b 1 -C tree -cf - . | zstd -q | age -r $RECIPIENT", &["age", "zstd", "tar"]),
    ] {
        passes(&home, pipeline, SUMS, layers);
    }
}

#[test]
fn archives_that_nobody_encrypted_where_policy_allows_them() {
    let home = home_with_sums();
    let overlay = format!("source.policy.encrypted = false\n{SUMS}");
    passes(&home, "tar -C tree -czf - .", &overlay, &["gzip", "tar"]);
    passes(&home, "tar -C tree -cf - .", &overlay, &["tar"]);
}

#[test]
fn age_of_several_recipients_and_ssh_keys() {
    let home = home_with_sums();
    let other = home.other_key("other");
    home.shell(
        "ssh-keygen -q -t ed25519 -N '' -C backup -f keys/id_ed25519; ssh-keygen -q -t rsa -b 3072 -N '' -C backup -f keys/id_rsa; \
         ssh-keygen -q -t rsa -b 2048 -m PEM -N '' -C backup -f keys/id_pem",
    );
    let with = |identity: &str| format!("unlock.age_identities = [\"file:../keys/{identity}\"]\n{SUMS}");
    for key in ["id_ed25519", "id_rsa", "id_pem"] {
        passes(&home, &format!("tar -C tree -cf - . | zstd -q | age -R keys/{key}.pub"), &with(key), &["age", "zstd", "tar"]);
    }
    // to all of them: each opens it
    let all = format!("tar -C tree -cf - . | zstd -q | age -r {other} -R keys/id_rsa.pub -R keys/id_ed25519.pub -r $RECIPIENT");
    for identity in ["id_ed25519", "id_rsa", "other.agekey", "records.agekey"] {
        passes(&home, &all, &with(identity), &["age", "zstd", "tar"]);
    }
    // and a ring with the right key as its last
    let ring = "unlock.age_identities = [\"file:../keys/other.agekey\", \"file:../keys/id_rsa\", \"file:../keys/records.agekey\"]\n";
    passes(&home, "tar -C tree -cf - . | zstd -q | age -r $RECIPIENT", &format!("{ring}{SUMS}"), &["age", "zstd", "tar"]);
}

#[test]
fn one_file_is_restored_under_its_own_name() {
    let home = Home::new();
    let stamp = home.hours_ago(2).0.strftime("%Y-%m-%dT%H%M").to_string();
    home.write(
        "dump.sql",
        "--\n-- PostgreSQL database dump\n--\nSET statement_timeout = 0;\nCREATE TABLE public.patient (id integer, name text);\n\
         COPY public.patient (id, name) FROM stdin;\n1\tWilhelmina\n\\.\n--\n-- PostgreSQL database dump complete\n--\n",
    );
    let scenario = home.scenario(
        r#"
        source.points = "ehr-{captured_at:%Y-%m-%dT%H%M}.sql.*"
        [[check]]
        kind = "files"
        name = "the dump"
        pattern = "ehr-*.sql"
        count = "= 1"
        [[check]]
        kind = "command"
        name = "it is whole"
        command = ["bash", "-c", "tail -n 3 ehr-*.sql"]
        stdout = "dump complete"
        "#,
    );
    for (ending, pipeline, layers) in [
        ("age", "cat", json!(["age", "sql"])),
        ("zst.age", "zstd -q", json!(["age", "zstd", "sql"])),
        ("gz.age", "gzip", json!(["age", "gzip", "sql"])),
        ("xz.age", "xz", json!(["age", "xz", "sql"])),
    ] {
        home.shell(&format!("rm -f backups/*; {pipeline} < dump.sql | age -r $RECIPIENT > backups/ehr-{stamp}.sql.{ending}"));
        let drilled = home.drill(&scenario).ends("PASSED");
        assert_eq!((&drilled.report["restored"]["layers"], &drilled.report["restored"]["files"]), (&layers, &json!(1)));
    }
    // a dump that broke off before its last line is a dump of less: the check that asks for the end notices
    home.shell(&format!("rm backups/*; head -n 8 dump.sql | zstd -q | age -r $RECIPIENT > backups/ehr-{stamp}.sql.zst.age"));
    home.drill(&scenario).ends("FAILED").blames_backup("check_failed", &[("check", "it is whole")]);
    // any file at all
    home.shell(&format!("rm backups/*; head -c 100000 /dev/urandom > blob; age -r $RECIPIENT < blob > backups/{stamp}.blob.age"));
    let scenario = home.scenario(
        "source.points = \"{captured_at:%Y-%m-%dT%H%M}.blob.age\"\n\
         [[check]]\nkind = \"files\"\npattern = \"*.blob\"\nbytes = \"= 100000\"",
    );
    home.drill(&scenario).ends("PASSED");
}

#[test]
fn a_tree_with_everything_comes_back_sealed_and_bare() {
    let home = Home::new();
    fs::create_dir(home.path("rich")).unwrap();
    crate::sealed_support::rich_tree(&home.path("rich"));
    let recipient = home.recipient.clone();
    home.fire(&["seal", "rich", "--to", "sets", "-r", &recipient]).exits(0);
    let limits = "[sandbox.scratch]\nkind = \"tmpfs\"\nsize = \"128MiB\"\n";
    let drilled = home.drill(&home.sealed_scenario(&format!("{limits}[source]\nurl = \"file:../sets\"\n"))).ends("PASSED");
    let observed = drilled.report["checks"][0]["observed"].as_str().unwrap();
    assert!(observed.ends_with("0 mismatched, 0 missing, 0 extra"), "{observed}");
    // the same with scratch in a directory
    fs::create_dir(home.path("scratch")).unwrap();
    let limits = format!("[sandbox.scratch]\nkind = \"directory\"\nsize = \"128MiB\"\npath = \"{}\"\n", home.path("scratch").display());
    home.drill(&home.sealed_scenario(&format!("{limits}[source]\nurl = \"file:../sets\"\n"))).ends("PASSED");
    // GNU tar's archive of it has as many files
    let name = home.bare_name(1);
    home.shell(&format!("tar --format=posix --sparse --xattrs -C rich -cf - . | zstd -q | age -r $RECIPIENT > backups/{name}"));
    let bare = home.drill(&home.scenario(&limits)).ends("PASSED");
    for counted in ["files", "directories", "others"] {
        assert_eq!(bare.report["restored"][counted], drilled.report["restored"][counted], "{counted}");
    }
}

#[test]
fn a_directory_whose_entry_comes_after_its_content_has_the_mode_of_its_entry() {
    let home = Home::new();
    home.write("tree/ward/record", "x");
    home.shell("chmod 2710 tree/ward; touch -d '2001-02-03 04:05:06 UTC' tree/ward");
    let name = home.bare_name(1);
    home.shell(&format!("tar -C tree --no-recursion -cf - ward/record ward | age -r $RECIPIENT > backups/{name}"));
    let check = "[[check]]\nkind = \"command\"\ncommand = [\"stat\", \"-c\", \"%a %Y\", \"ward\"]\nstdout = \"^2710 981173106$\"";
    home.drill(&home.scenario(&check.replace("106$", "106\\\\n$"))).ends("PASSED");
}
