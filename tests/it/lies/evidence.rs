//! The evidence lies.

use std::fs;

use firedrill::codec::tar::TarWriter;
use http::Method;

use super::sandbox::raw_entry;
use super::with_keys;
use crate::drills::{Forged, Home, PATIENT, holds, zstd_bytes};
use crate::faults::{Fault, Proxy, on};
use crate::servers::{Locking, ceph};

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
