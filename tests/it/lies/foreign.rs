//! Lies that other people's tools tell, or are made to tell.

use std::fs;

use http::Method;
use serde_json::json;

use crate::drills::Home;
use crate::servers::{Locking, ceph, in_seconds};
use crate::tools::{RESTIC, Repository, drill_s3, in_bucket, scenario};

/// LIES 21: the drill restored the same old snapshot day after day, and passed.
#[test]
fn a_pinned_snapshot_fails_on_rpo_from_content() {
    let repository = Repository::new();
    let home = &repository.home;
    let patients = |days: i64| {
        let seen = home.hours_ago(24 * days);
        home.write("tree/patients.csv", format!("id,name,seen\n1,Jane Roe,{seen}\n"));
        repository.back_up();
        let ids: serde_json::Value = serde_json::from_str(&repository.restic("snapshots --json")).unwrap();
        ids.as_array().unwrap().iter().max_by_key(|s| s["time"].as_str().unwrap().to_owned()).unwrap()["short_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let old = patients(10);
    patients(0);
    let asks = "objectives = { rpo = \"48h\" }\n[[check]]\nkind = \"freshness\"\npath = \"patients.csv\"\nfield = \"seen\"\n";
    home.drill(&repository.scenario(asks)).ends("PASSED");
    let pinned = home.drill(&repository.scenario(&format!("source.select = {{ point = \"{old}\" }}\n{asks}"))).ends("FAILED");
    pinned.blames_backup("objective_missed", &[("objective", "rpo")]);
    assert_eq!(pinned.report["measurements"]["data_age"]["source"], "content");
    // the tool lists it as made today: only its content tells
    let unasked = home.drill(&repository.scenario(&format!("source.select = {{ point = \"{old}\" }}\nobjectives = {{ rpo = \"48h\" }}")));
    assert_eq!(unasked.ends("PASSED").report["measurements"]["data_age"]["source"], "tool");
}

/// LIES 22: a canary that never changes is in every backup, however old.
#[test]
fn a_canary_that_is_new_in_each_backup_fails_a_stale_restore() {
    let repository = Repository::new();
    let home = &repository.home;
    for nonce in ["4f1c", "9ab2"] {
        home.write("tree/canary", format!("{nonce}\n"));
        repository.back_up();
    }
    let expects = |nonce: &str| {
        format!("[[check]]\nkind = \"command\"\nname = \"canary\"\ncommand = [\"cat\", \"canary\"]\nstdout = \"^{nonce}\\n$\"\n")
    };
    home.drill(&repository.scenario(&expects("9ab2"))).ends("PASSED");
    // the archiver died after the first: what is restored has the canary of then
    repository.restic("forget latest --prune");
    home.drill(&repository.scenario(&expects("9ab2"))).ends("FAILED").blames_backup("check_failed", &[("check", "canary")]);
}

/// LIES 24: what answered was a server that was running on the host already.
#[test]
fn a_server_on_the_host_cannot_stand_in_for_the_backup() {
    let home = Home::new();
    let (_, source) = in_bucket(&home, Locking::Off, "ehr");
    let own = RESTIC
        .replace("s3:{endpoint}/{bucket}/{prefix}", &format!("s3:{}/other/ehr", ceph().http()))
        .split("[restore.snapshots]")
        .next()
        .unwrap()
        .replace("{snapshot}", "latest");
    let drilled = drill_s3(&home, &scenario(&home, &format!("{source}sandbox.time = \"10s\"\n{own}")), &[]).ends("INCONCLUSIVE");
    assert_eq!(drilled.report["backup"]["chain"]["summary"]["bytes_read"], 0, "{:#}", drilled.report["backup"]);
}

/// LIES 27: the read was served from a cache on the spot.
#[test]
fn every_drill_reads_from_the_storage_anew() {
    let home = Home::new();
    let (_, source) = in_bucket(&home, Locking::Off, "ehr");
    // with the cache that restic likes to have
    let cached = RESTIC.replace(", \"--no-cache\"", "");
    let path = scenario(&home, &format!("{source}{cached}"));
    let read = || {
        let drilled = drill_s3(&home, &path, &[]).ends("PASSED");
        assert_eq!(drilled.report["backup"]["transport"]["store"], "s3");
        let page = fs::read_to_string(drilled.evidence.join("report.html")).unwrap();
        assert!(page.contains("every byte came from the storage in this drill"));
        drilled.report["backup"]["chain"]["summary"]["bytes_read"].as_u64().unwrap()
    };
    let (first, second) = (read(), read());
    assert!(first > 300_000 && second == first, "{first} then {second}");
}

/// LIES 29: the tool checked its repository, and that was shown as a restore.
#[test]
fn a_tools_own_check_is_no_restore() {
    let repository = Repository::new();
    let check = RESTIC.replace("\"restore\", \"{snapshot}\", \"--target\", \"{target}\"", "\"check\", \"--read-data\"");
    let drilled = repository.home.drill(&repository.scenario(&check)).ends("FAILED");
    drilled.blames_backup("empty_restore", &[("detail", "left no file")]);
    assert_eq!(drilled.report["restored"], json!(null));
}

const POLICY: &str = "policy = { lock = { mode = \"compliance\", remaining = \"7d\" } }";

/// A repository in a bucket that can lock, its source with a policy, and its keys, packs first.
fn lockable(home: &Home) -> (String, String, Vec<String>) {
    let (bucket, source) = in_bucket(home, Locking::On, "ehr");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_, text) = runtime.block_on(ceph().ok(Method::GET, &format!("{bucket}?list-type=2&prefix=ehr/"), &[], ""));
    let mut keys: Vec<String> = text.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap().to_owned()).collect();
    keys.sort_by_key(|key| !key.contains("/data/"));
    assert!(keys.len() >= 5 && keys[0].contains("/data/"), "{keys:?}");
    (bucket, source.replace("allow_http = true", &format!("allow_http = true, {POLICY}")), keys)
}

fn retain(bucket: &str, key: &str, days: i64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(ceph().retain(bucket, key, "COMPLIANCE", &in_seconds(days * 86_400)));
}

/// LIES 44: the lock was dropped on part of the objects.
#[test]
fn one_unlocked_object_among_those_that_the_restore_touched_fails() {
    let home = Home::new();
    let (bucket, source, keys) = lockable(&home);
    keys[1..].iter().for_each(|key| retain(&bucket, key, 40));
    let path = scenario(&home, &source);
    let drilled = drill_s3(&home, &path, &[]).ends("FAILED");
    let object = drilled.because("not_locked")["object"].clone();
    let summary = &drilled.report["backup"]["chain"]["summary"];
    assert_eq!((&summary["lock_policy"], &summary["locks"]["not_locked"]), (&json!("broken"), &json!(1)), "{summary:#}");
    assert_eq!(summary["locks"]["examples"], json!([object]));
    retain(&bucket, &keys[0], 40);
    let drilled = drill_s3(&home, &path, &[]).ends("PASSED");
    let summary = &drilled.report["backup"]["chain"]["summary"];
    assert_eq!((&summary["lock_policy"], &summary["locks"]["not_locked"]), (&json!("kept"), &json!(0)));
    let left = summary["locks"]["least_left"].as_u64().unwrap();
    assert!((39 * 86_400..=40 * 86_400).contains(&left), "{left}");
}

/// LIES 45: immutable, as the bucket's setting has it, while this version's lock ends tomorrow.
#[test]
fn a_version_whose_lock_ends_tomorrow_fails_whatever_the_bucket_says() {
    let home = Home::new();
    let (bucket, source, keys) = lockable(&home);
    keys[1..].iter().for_each(|key| retain(&bucket, key, 40));
    retain(&bucket, &keys[0], 1);
    let years = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
                 <Mode>COMPLIANCE</Mode><Years>7</Years></DefaultRetention></Rule></ObjectLockConfiguration>";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(ceph().ok(Method::PUT, &format!("{bucket}?object-lock="), &[], years));
    let drilled = drill_s3(&home, &scenario(&home, &source), &[]).ends("FAILED");
    let left = drilled.because("lock_too_short")["left"].as_u64().unwrap();
    assert!((80_000..=86_400).contains(&left), "{left}");
    assert_eq!(drilled.report["backup"]["chain"]["summary"]["lock_policy"], "broken");
}

/// LIES 54: the drill's credentials could delete backups.
#[test]
fn credentials_that_could_delete_backups_are_told_and_fail_where_policy_says_so() {
    let home = Home::new();
    let (_, source) = in_bucket(&home, Locking::On, "ehr");
    let path = scenario(&home, &source);
    // a drill only reads, so it cannot find out by itself, and never takes not knowing for a pass
    let strict = source.replace("allow_http = true", "allow_http = true, policy = { rights = \"read_only\" }");
    assert_eq!(drill_s3(&home, &path, &[]).ends("PASSED").report["backup"]["rights"], json!(null));
    drill_s3(&home, &scenario(&home, &strict), &[]).ends("INCONCLUSIVE");
    let mut doctor = home.command(&["doctor", scenario(&home, &source).to_str().unwrap()]);
    doctor.env("AWS_ACCESS_KEY_ID", crate::servers::ACCESS).env("AWS_SECRET_ACCESS_KEY", crate::servers::SECRET);
    doctor.output().unwrap();
    let told = drill_s3(&home, &path, &[]).ends("PASSED");
    assert!(told.warns("excess_rights")["rights"].to_string().contains("delete"), "{:#?}", told.findings());
    drill_s3(&home, &scenario(&home, &strict), &[]).ends("FAILED").because("excess_rights");
}
