//! The bucket as it stood at an instant, from the versions of a real server; and the drill after an attack.

use std::path::Path;
use std::time::Duration;

use firedrill::domain::{Cause, FindingKind, LockState, ObjectRef, Pseudonym, Selection, Source, Timestamp};
use firedrill::storage::{Environment, StorageError};
use firedrill::vault::{VaultError, VaultView};
use http::Method;

use crate::drills::{Drilled, Home, Said, said};
use crate::servers::{self, Locking, admin, ceph, in_seconds, keys, now, settings, source};

/// An instant between what was done and what comes.
async fn instant() -> Timestamp {
    tokio::time::sleep(Duration::from_millis(60)).await;
    let at = now()();
    tokio::time::sleep(Duration::from_millis(60)).await;
    at
}

async fn view_by(source: &Source, env: &Environment, at: Timestamp) -> VaultView {
    VaultView::open_as_of(source, &settings(source), env, now(), Some(at)).await.unwrap()
}

async fn view(bucket: &str, prefix: &str, at: Timestamp) -> VaultView {
    view_by(&source(&ceph().http(), bucket, prefix, Some("*")), &admin(), at).await
}

/// What the view shows: keys and contents.
async fn contents(view: &VaultView) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for point in view.points().await.unwrap().points {
        let pinned = view.pin(&point.objects[0], "object").await.unwrap();
        assert_eq!(pinned.object.size, point.size, "{}", point.id);
        all.push((point.id, String::from_utf8(view.read(&pinned, 1 << 20).await.unwrap().to_vec()).unwrap()));
    }
    all.sort();
    all
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, content)| ((*key).to_owned(), (*content).to_owned())).collect()
}

async fn delete(bucket: &str, key: &str) {
    ceph().ok(Method::DELETE, &format!("{bucket}/{key}"), &[], "").await;
}

async fn versioning(bucket: &str, status: &str) {
    let body = format!("<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>");
    ceph().ok(Method::PUT, &format!("{bucket}?versioning="), &[], &body).await;
}

async fn versioned() -> String {
    let bucket = ceph().bucket(Locking::Off).await;
    versioning(&bucket, "Enabled").await;
    bucket
}

#[tokio::test]
async fn what_was_overwritten_deleted_and_made_again_is_undone() {
    let bucket = versioned().await;
    ceph().put(&bucket, "ehr/kept", "one").await;
    ceph().put(&bucket, "ehr/deleted", "two").await;
    ceph().put(&bucket, "ehr/deep/er/x%20%2B%C3%BC", "three").await;
    let first = instant().await;
    ceph().put(&bucket, "ehr/kept", "garbage").await;
    delete(&bucket, "ehr/deleted").await;
    delete(&bucket, "ehr/deep/er/x%20%2B%C3%BC").await;
    ceph().put(&bucket, "ehr/new", "new").await;
    let second = instant().await;
    ceph().put(&bucket, "ehr/deleted", "again").await;
    delete(&bucket, "ehr/kept").await;
    let third = instant().await;
    for (at, expected) in [
        (first, &[("deleted", "two"), ("kept", "one")][..]),
        (second, &[("kept", "garbage"), ("new", "new")]),
        (third, &[("deleted", "again"), ("new", "new")]),
    ] {
        let view = view(&bucket, "ehr/", at).await;
        assert_eq!(contents(&view).await, pairs(expected), "as of {at}");
        // the same without a listing before it
        let fresh = self::view(&bucket, "ehr/", at).await;
        for key in ["kept", "deleted", "new"] {
            let found = fresh.find(&format!("ehr/{key}")).await.unwrap();
            assert_eq!(found.is_some(), expected.iter().any(|(name, _)| *name == key), "{key} as of {at}");
        }
    }
    let deep = source(&ceph().http(), &bucket, "ehr/", Some("deep/*/*"));
    assert_eq!(contents(&view_by(&deep, &admin(), first).await).await, pairs(&[("deep/er/x +ü", "three")]));
    assert_eq!(contents(&view_by(&deep, &admin(), second).await).await, []);
    // folders are shown where something in them was there
    let source = source(&ceph().http(), &bucket, "ehr/", None);
    let seen = |at| {
        let source = source.clone();
        async move { view_by(&source, &admin(), at).await.points().await.unwrap().other }
    };
    assert_eq!((seen(first).await, seen(second).await), (3, 2));
}

#[tokio::test]
async fn hundreds_of_versions_come_page_by_page() {
    let bucket = versioned().await;
    let put = |key: String, body: &'static str| {
        let bucket = bucket.clone();
        async move { drop(ceph().put(&bucket, &key, body).await) }
    };
    use futures_util::{StreamExt, stream};
    stream::iter((0..300).map(|n| format!("a/{n:04}"))).for_each_concurrent(16, |key| put(key, "one")).await;
    let at = instant().await;
    stream::iter((0..600).map(|n| format!("a/{n:04}"))).for_each_concurrent(16, |key| put(key, "other")).await;
    stream::iter((0..600).map(|n| format!("a/{n:04}"))).for_each_concurrent(16, |key| put(key, "third!")).await;
    for n in 0..20 {
        ceph().put(&bucket, "b", &format!("{n}")).await;
    }
    for n in (0..300).step_by(3) {
        delete(&bucket, &format!("a/{n:04}")).await;
    }
    let listed = source(&ceph().http(), &bucket, "", Some("a/*"));
    let list = view_by(&listed, &admin(), at).await.points().await.unwrap();
    let keys: Vec<_> = list.points.iter().map(|p| p.id.clone()).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    assert_eq!(keys, (0..300).map(|n| format!("a/{n:04}")).collect::<Vec<_>>());
    assert!(list.points.iter().all(|p| p.size == 3));
    let after = view_by(&listed, &admin(), now()()).await.points().await.unwrap();
    assert_eq!(after.points.len(), 600 - 100);
    // a folder is shown once, and what comes behind it is not lost
    let folders = source(&ceph().http(), &bucket, "", Some("*"));
    let names: Vec<_> = view_by(&folders, &admin(), now()()).await.points().await.unwrap().points.into_iter().map(|p| p.id).collect();
    assert_eq!(names, ["b"]);
}

#[tokio::test]
async fn the_lock_is_that_of_the_version_that_was_read() {
    let bucket = ceph().bucket(Locking::On).await;
    let version = ceph().put(&bucket, "a", "locked").await;
    ceph().retain(&bucket, "a", "COMPLIANCE", &in_seconds(600)).await;
    let at = instant().await;
    ceph().put(&bucket, "a", "garbage, and free").await;
    let old = view(&bucket, "", at).await;
    let pinned = old.pin(&old.find("a").await.unwrap().unwrap(), "object").await.unwrap();
    assert!(matches!(pinned.lock.state, LockState::Locked { .. }), "{:?}", pinned.lock);
    assert_eq!(pinned.version, version);
    let new = view(&bucket, "", now()()).await;
    let pinned = new.pin(&new.find("a").await.unwrap().unwrap(), "object").await.unwrap();
    assert_eq!(pinned.lock.state, LockState::NotLocked);
    assert_eq!(old.chain(&|k| Pseudonym(k.into())).objects[0].version, version);
}

#[tokio::test]
async fn an_upload_in_parts_counts_from_its_end_on_this_server() {
    let bucket = versioned().await;
    let (_, begun) = ceph().ok(Method::POST, &format!("{bucket}/big?uploads="), &[], "").await;
    let upload = begun.split("<UploadId>").nth(1).unwrap().split("</UploadId>").next().unwrap().to_owned();
    let (headers, _) = ceph().ok(Method::PUT, &format!("{bucket}/big?partNumber=1&uploadId={upload}"), &[], "bytes").await;
    let etag = headers["etag"].to_str().unwrap().to_owned();
    let meanwhile = instant().await;
    let body = format!("<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>");
    ceph().ok(Method::POST, &format!("{bucket}/big?uploadId={upload}"), &[], &body).await;
    let afterwards = instant().await;
    assert_eq!(view(&bucket, "", meanwhile).await.find("big").await.unwrap(), None);
    assert_eq!(contents(&view(&bucket, "", afterwards).await).await, pairs(&[("big", "bytes")]));
}

async fn error_of(view: &VaultView) -> VaultError {
    let object = ObjectRef { key: "ehr/a".into(), size: 1, stored_at: Timestamp::from_unix(0) };
    let error = view.pin(&object, "object").await.unwrap_err();
    assert_eq!(error.to_string(), view.points().await.unwrap_err().to_string());
    assert_eq!(error.blame(), Cause::Runner);
    assert!(!error.is_transient());
    error
}

#[tokio::test]
async fn a_bucket_without_versions_cannot_be_asked_and_a_suspended_one_can() {
    let bucket = ceph().bucket(Locking::Off).await;
    ceph().put(&bucket, "ehr/a", "a").await;
    let error = error_of(&view(&bucket, "ehr/", now()()).await).await;
    assert!(matches!(error.storage(), Some(StorageError::NoVersions)), "{error:?}");
    // what was stored before versioning began is a version like any other
    let before = instant().await;
    versioning(&bucket, "Enabled").await;
    ceph().put(&bucket, "ehr/a", "b").await;
    assert_eq!(contents(&view(&bucket, "ehr/", before).await).await, pairs(&[("a", "a")]));
    let enabled = instant().await;
    versioning(&bucket, "Suspended").await;
    ceph().put(&bucket, "ehr/c", "one").await;
    let suspended = instant().await;
    ceph().put(&bucket, "ehr/c", "two").await;
    let view = view(&bucket, "ehr/", enabled).await;
    assert!(!view.as_of().unwrap().suspended(), "nothing was asked yet");
    assert_eq!(contents(&view).await, pairs(&[("a", "b")]));
    assert!(view.as_of().unwrap().suspended());
    // this is what the warning is about: it was there, and nobody can see it any more
    assert_eq!(contents(&self::view(&bucket, "ehr/", suspended).await).await, pairs(&[("a", "b")]));
}

fn allow(bucket: &str, user: &str, actions: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"AWS":["arn:aws:iam:::user/{user}"]}},
        "Action":[{actions}],"Resource":["arn:aws:s3:::{bucket}","arn:aws:s3:::{bucket}/*"]}}]}}"#
    )
}

#[tokio::test]
async fn versions_that_these_credentials_may_not_see_are_said_to_be_hidden() {
    let bucket = versioned().await;
    ceph().put(&bucket, "ehr/a", "a").await;
    let at = instant().await;
    let (access, secret) = ceph().user("asofreader");
    let source = source(&ceph().http(), &bucket, "ehr/", Some("*"));
    let mut seen = Vec::new();
    for actions in [
        r#""s3:GetObject","s3:ListBucket""#,
        r#""s3:GetObject","s3:ListBucket","s3:GetBucketVersioning""#,
        r#""s3:GetObject","s3:ListBucket","s3:GetBucketVersioning","s3:ListBucketVersions""#,
    ] {
        ceph().ok(Method::PUT, &format!("{bucket}?policy="), &[], &allow(&bucket, "asofreader", actions)).await;
        let view = view_by(&source, &keys(&access, &secret), at).await;
        let object = ObjectRef { key: "ehr/a".into(), size: 1, stored_at: at };
        let error = view.pin(&object, "object").await.unwrap_err();
        let Some(StorageError::VersionsNotVisible { operation }) = error.storage() else { panic!("{error:?}") };
        seen.push(*operation);
        assert!(error.advice().contains("s3:ListBucketVersions") && error.advice().contains("s3:GetObjectVersion"));
        assert_eq!(error.blame(), Cause::Runner);
        assert!(matches!(error.finding(&Pseudonym("x".into())), FindingKind::CredentialsRefused { .. }));
    }
    assert_eq!(seen, ["GetBucketVersioning", "ListObjectVersions", "HeadObject"]);
    let all = r#""s3:GetObject","s3:ListBucket","s3:GetBucketVersioning","s3:ListBucketVersions","s3:GetObjectVersion""#;
    ceph().ok(Method::PUT, &format!("{bucket}?policy="), &[], &allow(&bucket, "asofreader", all)).await;
    assert_eq!(contents(&view_by(&source, &keys(&access, &secret), at).await).await, pairs(&[("a", "a")]));
}

// ---- whole drills ---------------------------------------------------------------------------------------------------

fn fire(home: &Home, args: &[&str]) -> Said {
    let mut command = home.command(args);
    command.env("AWS_ACCESS_KEY_ID", servers::ACCESS).env("AWS_SECRET_ACCESS_KEY", servers::SECRET);
    said(command.output().unwrap())
}

#[track_caller]
fn drill(home: &Home, scenario: &Path, flags: &[&str]) -> Drilled {
    home.drilled(fire(home, &[&["run", scenario.to_str().unwrap()], flags].concat()))
}

fn bucket_source(bucket: &str) -> String {
    format!("url = \"s3://{bucket}/ehr/\"\nendpoint = \"{}\"\nallow_http = true\n", ceph().http())
}

#[test]
fn after_an_attack_the_drill_fails_and_the_one_as_of_before_it_passes() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = Home::new();
    home.tree();
    let bucket = runtime.block_on(ceph().bucket(Locking::On));
    let (url, endpoint, recipient) = (format!("s3://{bucket}/ehr/"), ceph().http(), home.recipient.clone());
    let seal = ["seal", "tree", "--to", &url, "--endpoint", &endpoint, "--allow-http", "-r", &recipient];
    fire(&home, &[&seal[..], &["--lock", "compliance", "--lock-for", "1d"]].concat()).exits(0);
    let policy = "policy.lock = { mode = \"compliance\", remaining = \"1h\" }\n";
    let scenario = home.sealed_scenario(&format!("[objectives]\nrpo = \"24h\"\n[source]\n{}{policy}", bucket_source(&bucket)));
    drill(&home, &scenario, &[]).ends("PASSED");

    // the attacker has the administrator's own keys: he deletes everything, and puts garbage in the place of half of it
    let at = runtime.block_on(async {
        let at = instant().await;
        let (_, text) = ceph().ok(Method::GET, &format!("{bucket}?list-type=2"), &[], "").await;
        let names: Vec<&str> = text.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap()).collect();
        assert!(names.len() >= 3, "{names:?}");
        for (number, key) in names.iter().enumerate() {
            delete(&bucket, key).await;
            if number % 2 == 0 {
                ceph().put(&bucket, key, "garbage").await;
            }
        }
        at
    });
    drill(&home, &scenario, &[]).ends("FAILED").because("no_recovery_point");
    let rescued = drill(&home, &scenario, &["--as-of", &at.to_string()]).ends("PASSED");
    assert_eq!(rescued.report["plan"]["selection"], format!("as of {at}"));
    let chain = rescued.report["backup"]["chain"]["objects"].as_array().unwrap();
    assert!(chain.len() >= 3, "{chain:#?}");
    for object in chain {
        assert!(object["version"].as_str().is_some_and(|v| v != "null"), "{object:#}");
        assert_eq!((object["lock"]["state"].as_str(), object["lock"]["mode"].as_str()), (Some("locked"), Some("compliance")), "{object:#}");
    }
    // the same by the scenario, and what the flags say beats it
    let pinned = home.sealed_scenario(&format!("[source]\n{}select = {{ as_of = \"{at}\" }}\n", bucket_source(&bucket)));
    drill(&home, &pinned, &[]).ends("PASSED");
    drill(&home, &pinned, &["--as-of", "1s"]).ends("FAILED");
    let points = fire(&home, &["points", pinned.to_str().unwrap(), "--as-of", &at.to_string()]).exits(0);
    assert!(points.stdout.contains("compliance"), "{}", points.stdout);
    fire(&home, &["points", pinned.to_str().unwrap()]).exits(1);
    assert!(fire(&home, &["plan", pinned.to_str().unwrap()]).exits(0).stdout.contains("nothing was done"));

    // before anything was stored
    let long_ago = drill(&home, &scenario, &["--as-of", "2001-02-03T04:05:06Z"]).ends("FAILED");
    long_ago.blames_backup("no_recovery_point", &[("detail", "the first version is from 20")]);
    // an instant that has not been
    let path = scenario.to_str().unwrap();
    for command in ["run", "plan", "points"] {
        fire(&home, &[command, path, "--as-of", "2999-01-01T00:00:00Z"]).exits(2).says(&["lies in the future", "name an instant"]);
    }
}

#[test]
fn drills_say_when_versions_are_missing_hidden_or_suspended() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = Home::new();
    let bucket = runtime.block_on(ceph().bucket(Locking::Off));
    let key = format!("ehr/{}.sql", home.hours_ago(1).0.strftime("%Y-%m-%dT%H%M"));
    let put = || drop(runtime.block_on(ceph().put(&bucket, &key, "-- a dump\nSELECT 1;\n")));
    put();
    let plain = "points = \"{captured_at:%Y-%m-%dT%H%M}.sql\"\npolicy.encrypted = false\n";
    let scenario = home.scenario(&format!("[source]\n{}{plain}", bucket_source(&bucket)));
    let never = drill(&home, &scenario, &["--as-of", "1s"]).ends("INCONCLUSIVE");
    never.blames_runner("could_not_run", &[("reason", "keeps no versions"), ("reason", "captured_by")]);
    runtime.block_on(versioning(&bucket, "Enabled"));
    put();
    runtime.block_on(versioning(&bucket, "Suspended"));
    std::thread::sleep(Duration::from_millis(1_100));
    let suspended = drill(&home, &scenario, &["--as-of", "1s"]).ends("PASSED");
    assert!(suspended.warns("as_of_uncertain")["reason"].as_str().unwrap().contains("suspended"));
}

#[test]
fn a_local_directory_is_selected_from_by_capture_time_only() {
    let home = Home::new();
    let newest = home.bare_tree();
    std::fs::copy(&newest, newest.with_file_name(home.bare_name(50))).unwrap();
    let between = home.hours_ago(20);
    for (select, note) in [("as_of", true), ("captured_by", false)] {
        let scenario = home.scenario(&format!("source.select = {{ {select} = \"{between}\" }}"));
        let drilled = home.drill(&scenario).ends("PASSED");
        assert_eq!(drilled.report["backup"]["point"]["captured_at"], serde_json::json!(home.hours_ago(50)));
        let noted = drilled.findings().iter().any(|f| f["detail"].as_str().is_some_and(|d| d.contains("keeps no versions")));
        assert_eq!(noted, note, "{select}");
    }
    let id = home.bare_name(50);
    let drilled = home.drill(&home.scenario(&format!("source.select = {{ point = \"{id}\" }}"))).ends("PASSED");
    assert_eq!(drilled.report["plan"]["selection"], "by id");
    // 24h before the start: only the older one
    let drilled = home.drill(&home.scenario("source.select = { as_of = \"24h\" }")).ends("PASSED");
    assert_eq!(drilled.report["backup"]["point"]["captured_at"], serde_json::json!(home.hours_ago(50)));
    let points = home.fire(&["points", "records", "--as-of", "24h"]).exits(0);
    assert!(!points.stdout.contains(&home.bare_name(1)) && points.stdout.contains(&id), "{}", points.stdout);
    assert_eq!(Selection::default(), Selection::Latest);
}

#[test]
fn a_pinned_instant_does_not_make_old_data_young() {
    let home = Home::new();
    let newest = home.bare_tree();
    std::fs::copy(&newest, newest.with_file_name(home.bare_name(50))).unwrap();
    let pinned = home.hours_ago(49);
    let scenario = home.scenario(&format!("objectives.rpo = \"24h\"\nsource.select = {{ as_of = \"{pinned}\" }}"));
    let drilled = home.drill(&scenario).ends("FAILED");
    drilled.blames_backup("objective_missed", &[("objective", "rpo")]);
    let age = drilled.report["measurements"]["data_age"]["age"].as_u64().unwrap();
    assert!(age >= 50 * 3_600, "{age}");
}

#[test]
fn a_drill_takes_no_more_from_the_storage_than_it_may() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = Home::new();
    home.tree();
    let bucket = runtime.block_on(versioned());
    let (url, endpoint, recipient) = (format!("s3://{bucket}/ehr/"), ceph().http(), home.recipient.clone());
    fire(&home, &["seal", "tree", "--to", &url, "--endpoint", &endpoint, "--allow-http", "-r", &recipient]).exits(0);
    // a local copy: limits hold there as well
    fire(&home, &["seal", "tree", "--to", home.path("backups").to_str().unwrap(), "-r", &recipient]).exits(0);
    for (source, flags) in [(bucket_source(&bucket), &[][..]), (bucket_source(&bucket), &["--as-of", "0s"]), (String::new(), &[])] {
        let of = |limits: &str| home.sealed_scenario(&format!("[source]\n{source}limits = {{ {limits} }}\n"));
        drill(&home, &of("bytes = \"50GiB\", requests = 100000, bandwidth = \"20MiB/s\""), flags).ends("PASSED");
        let few = drill(&home, &of("bytes = \"100KiB\""), flags).ends("INCONCLUSIVE");
        few.blames_runner("source_limit", &[("limit", "bytes"), ("value", "100")]);
        let few = drill(&home, &of("requests = 4"), flags).ends("INCONCLUSIVE");
        few.blames_runner("source_limit", &[("limit", "requests"), ("value", "4")]);
        // at 300 KB and more of content
        let slow = drill(&home, &of("bandwidth = \"150KiB/s\""), flags).ends("PASSED");
        let restore = slow.report["timeline"].as_array().unwrap().iter().find(|p| p["phase"] == "restore").unwrap()["lasted"].as_u64();
        assert!(restore.unwrap() > 1_000_000_000, "{restore:?}");
    }
    for (limits, word) in [("bandwidth = \"20MiB\"", "20MiB/s"), ("requests = 0", "positive"), ("bytes = \"much\"", "much")] {
        let scenario = home.sealed_scenario(&format!("[source]\nlimits = {{ {limits} }}\n"));
        home.fire(&["plan", scenario.to_str().unwrap()]).exits(2).says(&[word]);
    }
}

#[test]
fn selections_that_make_no_sense_are_told_with_their_line() {
    let home = Home::new();
    for (select, words) in [
        ("{ as_of = \"yesterday\" }", &["no instant", "24h"][..]),
        ("{ as_of = \"24h\", point = \"x\" }", &["exclude each other"]),
        ("{ }", &["nothing is selected"]),
        ("{ as_off = \"24h\" }", &["did you mean `as_of`"]),
    ] {
        let scenario = home.scenario(&format!("source.select = {select}"));
        home.fire(&["plan", scenario.to_str().unwrap()]).exits(2).says(words);
    }
    let scenario = home.scenario("source.select = { as_of = \"2999-01-01T00:00:00Z\" }");
    home.fire(&["run", scenario.to_str().unwrap()]).exits(2).says(&["lies in the future"]);
}
