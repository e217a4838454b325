//! What credentials may do beyond reading, asked of a real server; and drills that cite the answer (LIES 54).

use std::collections::BTreeSet;

use firedrill::domain::{May, Right, RightsFacts};
use firedrill::storage::{RightsProbe, Settings, StorageError};
use http::Method;

use crate::drills::{Home, Said, said};
use crate::faults::{Fault, Proxy, on};
use crate::servers::{self, Locking, ceph, keys, now, settings, source};

async fn ask_at(endpoint: &str, bucket: &str, (access, secret): (&str, &str)) -> RightsFacts {
    let settings: Settings = settings(&source(endpoint, bucket, "ehr/", Some("*")));
    let probe = RightsProbe::connect(bucket, "ehr/", &settings, &keys(access, secret), now()).unwrap();
    probe.ask(&uuid::Uuid::now_v7().to_string()).await.unwrap()
}

async fn ask(bucket: &str, (access, secret): (&str, &str)) -> RightsFacts {
    ask_at(&ceph().http(), bucket, (access, secret)).await
}

/// Nothing at all is in the bucket, not even a delete marker.
async fn untouched(bucket: &str) {
    let (_, text) = ceph().ok(Method::GET, &format!("{bucket}?versions="), &[], "").await;
    assert!(!text.contains("<Version>") && !text.contains("<DeleteMarker>"), "{text}");
    let (_, text) = ceph().ok(Method::GET, &format!("{bucket}?uploads="), &[], "").await;
    assert!(!text.contains("<UploadId>"), "{text}");
}

fn with(facts: &RightsFacts, may: &May) -> BTreeSet<Right> {
    facts.rights.iter().filter(|(_, m)| *m == may).map(|(right, _)| *right).collect()
}

async fn allow(bucket: &str, user: &str, actions: &str) {
    let policy = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"AWS":["arn:aws:iam:::user/{user}"]}},
        "Action":[{actions}],"Resource":["arn:aws:s3:::{bucket}","arn:aws:s3:::{bucket}/*"]}}]}}"#
    );
    ceph().ok(Method::PUT, &format!("{bucket}?policy="), &[], &policy).await;
}

const READ: &str = r#""s3:GetObject","s3:GetObjectVersion","s3:ListBucket","s3:ListBucketVersions","s3:GetBucketVersioning","s3:GetObjectRetention","s3:GetObjectLegalHold","s3:GetBucketObjectLockConfiguration""#;

#[tokio::test]
async fn an_administrator_may_everything_and_nothing_is_touched_to_learn_it() {
    use Right as R;
    for locking in [Locking::Off, Locking::On] {
        let bucket = ceph().bucket(locking).await;
        let facts = ask(&bucket, (servers::ACCESS, servers::SECRET)).await;
        let mut expected = BTreeSet::from([R::Write, R::DeleteVersion, R::SetLock, R::SetVersioning]);
        if locking == Locking::Off {
            expected.insert(R::Delete);
        } else {
            assert!(matches!(&facts.rights[&R::Delete], May::Unknown { why } if why.contains("delete marker")), "{facts:?}");
        }
        assert_eq!(with(&facts, &May::Yes), expected, "{facts:#?}");
        // this server tells whoever may list that there is no such object, whatever else he may
        assert!(matches!(&facts.rights[&R::SetRetention], May::Unknown { why } if why.contains("no such object")), "{facts:?}");
        assert_eq!((facts.nothing_left, facts.versioned), (Some(true), Some(locking == Locking::On)));
        untouched(&bucket).await;
        // the bucket is what it was
        let (_, text) = ceph().ok(Method::GET, &format!("{bucket}?versioning="), &[], "").await;
        assert_eq!(text.contains("Enabled"), locking == Locking::On, "{text}");
    }
}

#[tokio::test]
async fn who_may_only_read_is_found_to_and_who_may_write_as_well() {
    use Right as R;
    let reader = ceph().user("rightsreader");
    let writer = ceph().user("rightswriter");
    for locking in [Locking::Off, Locking::On] {
        let bucket = ceph().bucket(locking).await;
        allow(&bucket, "rightsreader", READ).await;
        let facts = ask(&bucket, (&reader.0, &reader.1)).await;
        assert_eq!(with(&facts, &May::Yes), BTreeSet::new(), "{facts:#?}");
        let no = with(&facts, &May::No);
        for right in [R::Write, R::DeleteVersion, R::SetLock, R::SetVersioning] {
            assert!(no.contains(&right), "{right:?}: {facts:#?}");
        }
        assert_eq!(no.contains(&R::Delete), locking == Locking::Off);
        // may write, and not delete
        allow(&bucket, "rightswriter", &format!("{READ},\"s3:PutObject\"")).await;
        let facts = ask(&bucket, (&writer.0, &writer.1)).await;
        assert_eq!(with(&facts, &May::Yes), BTreeSet::from([R::Write]), "{facts:#?}");
        assert_eq!(facts.rights[&R::DeleteVersion], May::No);
        allow(&bucket, "rightswriter", &format!("{READ},\"s3:DeleteObjectVersion\",\"s3:PutObjectRetention\"")).await;
        let facts = ask(&bucket, (&writer.0, &writer.1)).await;
        let yes = with(&facts, &May::Yes);
        assert!(yes.contains(&R::DeleteVersion) && !yes.contains(&R::Write), "{facts:#?}");
        assert_eq!(facts.nothing_left, Some(true));
        untouched(&bucket).await;
    }
}

#[tokio::test]
async fn a_server_that_looks_at_the_request_first_tells_nothing() {
    let bucket = ceph().bucket(Locking::Off).await;
    let reader = ceph().user("rightsodd");
    allow(&bucket, "rightsodd", READ).await;
    let proxy = Proxy::start(ceph().http_port, vec![on(Method::PUT, "", usize::MAX, Fault::Answer(400, "BadDigest"))]);
    let facts = ask_at(&proxy.url(), &bucket, (&reader.0, &reader.1)).await;
    assert!(matches!(&facts.rights[&Right::Write], May::Unknown { why } if why.contains("before it asks who")), "{facts:#?}");
    assert_eq!(facts.rights[&Right::DeleteVersion], May::No);
    // and where nobody answers, nothing is learned
    let settings = settings(&source("http://127.0.0.1:1", "b", "", None));
    let probe = RightsProbe::connect("b", "", &settings, &keys("a", "b"), now()).unwrap();
    assert!(matches!(probe.ask("x").await, Err(StorageError::Unreachable { .. })));
}

fn fire(home: &Home, (access, secret): (&str, &str), args: &[&str]) -> Said {
    let mut command = home.command(args);
    command.env("AWS_ACCESS_KEY_ID", access).env("AWS_SECRET_ACCESS_KEY", secret);
    said(command.output().unwrap())
}

#[test]
fn a_drill_cites_what_the_doctor_found_and_policy_judges_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = Home::new();
    let reader = ceph().user("rightsdrill");
    let (admin, reader) = ((servers::ACCESS, servers::SECRET), (reader.0.as_str(), reader.1.as_str()));
    let proxy = Proxy::start(ceph().http_port, vec![]);
    let bucket = runtime.block_on(async {
        let bucket = ceph().bucket(Locking::On).await;
        let name = format!("ehr/{}.sql", home.hours_ago(1).0.strftime("%Y-%m-%dT%H%M"));
        ceph().put(&bucket, &name, "-- a dump\nSELECT 1;\n").await;
        allow(&bucket, "rightsdrill", READ).await;
        bucket
    });
    let of = |policy: &str| {
        home.scenario(&format!(
            "[source]\nurl = \"s3://{bucket}/ehr/\"\nendpoint = \"{}\"\nallow_http = true\n\
             points = \"{{captured_at:%Y-%m-%dT%H%M}}.sql\"\npolicy.encrypted = false\n{policy}",
            proxy.url()
        ))
    };
    let strict = "policy.rights = \"read_only\"\n";
    let drill = |who, policy: &str| home.drilled(fire(&home, who, &["run", of(policy).to_str().unwrap()]));
    let doctor = |who, policy: &str| fire(&home, who, &["doctor", of(policy).to_str().unwrap()]);

    // never asked: a note, or inconclusive where policy wants to know
    let noted = drill(admin, "").ends("PASSED");
    assert!(noted.findings().iter().any(|f| f["detail"].as_str().is_some_and(|d| d.contains("firedrill doctor"))));
    assert!(noted.report["backup"].get("rights").is_none());
    drill(admin, strict).ends("INCONCLUSIVE").blames_runner("rights_unknown", &[("reason", "never asked")]);

    // an administrator: said in the report, or a failure
    let asked = doctor(admin, "");
    assert!(asked.stdout.contains("may store objects") && asked.stdout.contains("take away s3:PutObject"), "{}", asked.stdout);
    proxy.set(vec![]);
    let warned = drill(admin, "").ends("PASSED");
    let excess = warned.warns("excess_rights");
    assert!(excess["rights"].as_array().unwrap().iter().any(|r| r == "delete_version"), "{excess:#}");
    assert_eq!(warned.report["backup"]["rights"]["rights"]["write"]["may"], "yes");
    let page = std::fs::read_to_string(warned.evidence.join("report.html")).unwrap();
    assert!(page.contains("Rights beyond reading") && page.contains("remove versions for good"));
    drill(admin, strict).ends("FAILED").blames_backup("excess_rights", &[]);
    // drills only ever read
    let log = proxy.log();
    assert!(log.len() > 4 && log.iter().all(|line| line.starts_with("GET ") || line.starts_with("HEAD ")), "{log:#?}");

    // the reader's answer is his own
    drill(reader, strict).ends("INCONCLUSIVE").blames_runner("rights_unknown", &[]);
    let asked = doctor(reader, strict);
    assert!(asked.stdout.contains("may not store objects") && !asked.stdout.contains("take away"), "{}", asked.stdout);
    drill(reader, strict).ends("PASSED");

    // what is old counts no more, and the state holds neither key nor bucket
    for file in std::fs::read_dir(home.path("state/rights")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&bucket) && !text.contains(reader.0) && !path.display().to_string().contains(&bucket));
        let mut facts: serde_json::Value = serde_json::from_str(&text).unwrap();
        facts["asked_at"] = "2001-02-03T04:05:06Z".into();
        std::fs::write(&path, facts.to_string()).unwrap();
    }
    drill(reader, strict).ends("INCONCLUSIVE").blames_runner("rights_unknown", &[("reason", "2001-02-03")]);
    let local = home.scenario("source.policy.rights = \"read_only\"");
    home.fire(&["plan", local.to_str().unwrap()]).exits(2).says(&["no credentials"]);
}
