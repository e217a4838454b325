//! The drill looked at the wrong thing.

use std::fs;

use serde_json::json;

use super::with_keys;
use crate::drills::{Forged, Home, PATIENT};
use crate::servers::{Locking, ceph};

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

/// A bucket with two dumps in clear, `ehr/` three hours old and `ehr-test/` one, and a scenario for `ehr`.
pub(super) fn bucket_with_siblings(home: &Home) -> std::path::PathBuf {
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

#[test]
fn a_pinned_instant_does_not_make_old_data_young() {
    let home = Home::new();
    let newest = home.bare_tree();
    fs::copy(&newest, newest.with_file_name(home.bare_name(50))).unwrap();
    let pinned = home.hours_ago(49);
    let scenario = home.scenario(&format!("objectives.rpo = \"24h\"\nsource.select = {{ as_of = \"{pinned}\" }}"));
    let drilled = home.drill(&scenario).ends("FAILED");
    drilled.blames_backup("objective_missed", &[("objective", "rpo")]);
    let age = drilled.report["measurements"]["data_age"]["age"].as_u64().unwrap();
    assert!(age >= 50 * 3_600, "{age}");
}
