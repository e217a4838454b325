//! The archive of evidence, in a real bucket with object lock: whole, locked and verified, or queued and told.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use firedrill::archive::{ArchiveError, Safe};
use firedrill::domain::{Addressing, LockMode, LockState, LockedBucket, Period, Timestamp};
use http::Method;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::drills::{Home, PATIENT, Said, holds, noise};
use crate::faults::{Fault, Proxy, on};
use crate::lies::sandbox::wait_until;
use crate::servers::{ACCESS, Locking, SECRET, admin, ceph, now};

const TRUST: &str = "evidence/allowed_signers";
const EVERYTHING: usize = usize::MAX;

/// A home with a backup that restores, a scenario for it, and an archive behind a proxy.
struct Archived {
    home: Home,
    scenario: PathBuf,
    runtime: Runtime,
    bucket: String,
    proxy: Proxy,
}

impl Archived {
    fn new(locking: Locking) -> Self {
        let runtime = Runtime::new().unwrap();
        let (home, bucket) = (Home::new(), runtime.block_on(ceph().bucket(locking)));
        let proxy = Proxy::start(ceph().http_port, vec![]);
        home.write("keys/archive.id", format!("{ACCESS}\n"));
        home.write("keys/archive.secret", format!("{SECRET}\n"));
        home.bare_tree();
        let scenario = home.scenario("");
        let this = Self { home, scenario, runtime, bucket, proxy };
        this.settings("retention = \"1h\"");
        this
    }

    fn settings(&self, more: &str) {
        let (bucket, url) = (&self.bucket, self.proxy.url());
        let annex = &self.home.recipient;
        self.home.write(
            "firedrill.toml",
            format!(
                "[evidence]\nannex_recipients = [\"{annex}\"]\n[evidence.archive]\nurl = \"s3://{bucket}/kept/\"\nendpoint = \"{url}\"\n\
                 allow_http = true\naccess_key_id = \"file:keys/archive.id\"\nsecret_access_key = \"file:keys/archive.secret\"\n{more}\n"
            ),
        );
    }

    fn run(&self) -> Said {
        self.home.fire(&["run", self.scenario.to_str().unwrap()])
    }

    fn status(&self) -> Value {
        self.home.fire(&["archive", "status", "--json"]).json()
    }

    fn waiting(&self) -> usize {
        self.status()["waiting"].as_array().unwrap().len()
    }

    fn verify(&self) -> Said {
        self.home.fire(&["archive", "verify", "--trust", TRUST])
    }

    /// Keys and versions of everything in the bucket, delete markers left out.
    fn versions(&self) -> Vec<(String, String)> {
        self.runtime.block_on(ceph().versions(&self.bucket))
    }

    fn get(&self, key: &str, version: &str) -> Vec<u8> {
        let path = format!("{}/{key}?versionId={version}", self.bucket);
        self.runtime.block_on(ceph().ok(Method::GET, &path, &[], "")).1.into_bytes()
    }

    fn away(&self) {
        let methods = [Method::GET, Method::HEAD, Method::PUT, Method::POST];
        self.proxy.set(methods.into_iter().map(|method| on(method, "", EVERYTHING, Fault::Reset)).collect());
    }

    /// As many files as one drill's evidence has here.
    fn files(&self) -> usize {
        fs::read_dir(&self.home.evidence()[0]).unwrap().count()
    }
}

#[test]
fn evidence_is_archived_locked_read_back_and_verified() {
    let kept = Archived::new(Locking::On);
    let said = kept.run().exits(0).says(&["archived    drill", "locked until"]);
    let drilled = kept.home.drilled(said).ends("PASSED");
    assert_eq!((kept.waiting(), &kept.status()["archived"]), (0, &1.into()));
    let id = drilled.report["report_id"].as_str().unwrap();
    let versions = kept.versions();
    assert_eq!(versions.len(), kept.files());
    let writes: Vec<String> = kept.proxy.log().into_iter().filter(|line| line.starts_with("PUT ") && !line.contains("retention")).collect();
    assert!(writes.len() == versions.len() && writes.last().unwrap().contains("/SHA256SUMS "), "{writes:?}");
    let mut annex = false;
    for (key, version) in &versions {
        let name = key.strip_prefix(&format!("kept/records/{id}/")).expect("scenario, drill and file");
        let local = fs::read(drilled.evidence.join(name)).unwrap();
        let (status, headers, text) =
            kept.runtime.block_on(ceph().call(Method::HEAD, &format!("{}/{key}?versionId={version}", kept.bucket), &[], ""));
        assert!(status.is_success(), "{text}");
        assert_eq!(headers["x-amz-object-lock-mode"], "COMPLIANCE", "{name}");
        assert_eq!(headers["content-length"], local.len().to_string().as_str(), "{name}");
        annex |= name == "annex.age";
        assert!(!holds(&local, PATIENT.as_bytes()), "{name}");
    }
    assert!(annex, "the annex goes along, encrypted");
    // a line says where each version is
    let register: Value = serde_json::from_str(&fs::read_to_string(kept.home.path("state/archive/archived.jsonl")).unwrap()).unwrap();
    let lines: Vec<(String, String)> = register["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| (format!("kept/{}", file["name"].as_str().unwrap()), file["version"].as_str().unwrap().to_owned()))
        .collect();
    assert!(versions.iter().all(|version| lines.contains(version)), "{lines:?}");
    let said = kept.verify().exits(0);
    assert!(said.stdout.contains("TRUSTED") && said.stdout.contains("1 trusted, 0 refused, 0 not archived yet"), "{}", said.stdout);
    // nothing is written twice
    assert!(kept.home.fire(&["archive", "push"]).exits(0).stdout.contains("nothing waits"));
    // whoever has nothing but the bucket and the trust file can verify as well
    fs::remove_dir_all(kept.home.path("state")).unwrap();
    fs::rename(kept.home.path("evidence"), kept.home.path("lost")).unwrap();
    let said = kept.home.fire(&["archive", "verify", "--trust", "lost/allowed_signers"]).exits(0);
    assert!(said.stdout.contains("1 trusted"), "{}", said.stdout);
}

#[test]
fn retention_counts_from_the_end_of_the_contingency_plan() {
    let kept = Archived::new(Locking::On);
    let until = Timestamp::from_unix(now()().0.as_second() + 40 * 86_400).0.strftime("%Y-%m-%d").to_string();
    let scenario = kept.home.scenario(&format!("plan = {{ id = \"CP-014\", version = \"3.2\", until = \"{until}\" }}"));
    kept.settings("retention = \"1h\"\nmode = \"governance\"");
    kept.home.drill(&scenario).ends("PASSED");
    let (key, version) = kept.versions().remove(0);
    let path = format!("{}/{key}?versionId={version}", kept.bucket);
    let (_, headers, _) = kept.runtime.block_on(ceph().call(Method::HEAD, &path, &[], ""));
    assert_eq!(headers["x-amz-object-lock-mode"], "GOVERNANCE");
    let locked: Timestamp = headers["x-amz-object-lock-retain-until-date"].to_str().unwrap().parse().unwrap();
    let end: Timestamp = format!("{until}T23:59:59Z").parse().unwrap();
    assert_eq!(locked.seconds_since(end), 3_601, "{locked}");
    // what is locked more weakly than the settings demand is refused
    kept.settings("retention = \"1h\"");
    let said = kept.verify().exits(1);
    assert!(said.stdout.contains("is not locked until") && said.stdout.contains("governance mode"), "{}", said.stdout);
}

/// A week without the bucket: every drill is told as not recorded, and none is lost.
#[test]
fn a_store_that_is_away_loses_nothing() {
    let kept = Archived::new(Locking::On);
    kept.away();
    kept.run().exits(4).says(&["evidence of 1 drill is not in the archive; it stays queued", "cannot be reached", "try: "]);
    kept.run().exits(4).says(&["evidence of 2 drills"]);
    assert_eq!(kept.waiting(), 2);
    let told = kept.home.fire(&["archive", "status"]).exits(4).stdout;
    assert!(told.contains("of 0 drills is archived, of 2 waits") && told.contains("cannot be reached"), "{told}");
    kept.home.fire(&["verify", "--trust", TRUST, "evidence"]).exits(0);
    kept.home.fire(&["archive", "verify", "--trust", TRUST]).exits(3).says(&["nothing was learned"]);
    // what a crash kept from the queue is found in the store
    fs::remove_dir_all(kept.home.path("state/archive/queue")).unwrap();
    kept.proxy.set(vec![]);
    kept.run().exits(0);
    assert_eq!((kept.waiting(), &kept.status()["archived"]), (0, &3.into()));
    assert!(kept.verify().exits(0).stdout.contains("3 trusted, 0 refused"));
}

#[test]
fn a_bucket_that_does_not_lock_is_given_nothing() {
    let kept = Archived::new(Locking::Off);
    kept.run().exits(4).says(&[
        "does not keep the lock",
        "the bucket has no object lock",
        "try: use a bucket that was made with object lock",
    ]);
    assert_eq!((kept.waiting(), kept.versions().len()), (1, 0));
}

/// LIES 44, of evidence: a server that takes the bytes and drops the lock, and one that gives other bytes back.
#[test]
fn a_store_that_lies_is_found_out() {
    let kept = Archived::new(Locking::On);
    kept.proxy.set(vec![on(Method::PUT, "retention=", EVERYTHING, Fault::Say(""))]);
    kept.run().exits(4).says(&["it said yes, and shows no retention"]);
    assert_eq!(kept.waiting(), 1);
    for lie in [Fault::Corrupt(3), Fault::Truncate(3)] {
        kept.proxy.set(vec![on(Method::GET, "report.html", EVERYTHING, lie)]);
        kept.home.fire(&["archive", "push"]).exits(4).says(&["report.html is there with other bytes than were written there"]);
        assert_eq!(kept.waiting(), 1);
    }
    kept.proxy.set(vec![on(Method::PUT, "", EVERYTHING, Fault::Answer(403, "AccessDenied"))]);
    kept.home.fire(&["archive", "push"]).exits(4).says(&["denied PutObject", "s3:PutObjectRetention"]);
    // an honest one goes on where the liar stopped
    kept.proxy.set(vec![]);
    kept.home.fire(&["archive", "push"]).exits(0);
    assert_eq!((kept.waiting(), kept.versions().len()), (0, kept.files()));
    kept.verify().exits(0);
    // and lies when it is asked later
    kept.proxy.set(vec![on(Method::GET, "report.json", EVERYTHING, Fault::Corrupt(3))]);
    assert!(kept.verify().exits(1).stdout.contains("report.json is not the one that was archived"));
    kept.proxy.set(vec![on(Method::GET, "report.json?", EVERYTHING, Fault::Answer(404, "NoSuchKey"))]);
    assert!(kept.verify().exits(1).stdout.contains("report.json was archived and is gone"));
}

/// Killed before each of its writes in turn: nothing is written twice, and in the end everything is there once.
#[test]
fn an_upload_that_is_killed_goes_on_where_it_was() {
    let kept = Archived::new(Locking::On);
    kept.away();
    kept.run().exits(4);
    let mut seen = 0;
    for name in ["checks.jsonl", "report.json", "retention=", "SHA256SUMS.sig"] {
        kept.proxy.set(vec![on(Method::PUT, name, EVERYTHING, Fault::Latency(std::time::Duration::from_secs(600)))]);
        let mut child = kept.home.start(&["archive", "push"]);
        wait_until("the write that hangs", || kept.proxy.log().iter().any(|line| line.starts_with("PUT ") && line.contains(name)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(kept.waiting(), 1);
        seen = seen.max(kept.versions().len());
    }
    assert!(seen > 3 && seen < kept.files(), "{seen}");
    // its last act was done, and its answer was never heard
    kept.proxy.set(vec![on(Method::PUT, "SHA256SUMS.sig", 1, Fault::LoseAnswer)]);
    kept.home.fire(&["archive", "push"]).exits(0);
    assert_eq!((kept.waiting(), kept.versions().len()), (0, kept.files()));
    kept.verify().exits(0);
}

#[test]
fn evidence_that_was_touched_is_not_archived_and_keeps_no_other_back() {
    let kept = Archived::new(Locking::On);
    kept.away();
    kept.run().exits(4);
    let first = kept.home.evidence().remove(0);
    fs::write(first.join("report.html"), "all is well").unwrap();
    kept.proxy.set(vec![]);
    kept.run().exits(4).says(&["is not archived as it is", "report.html", "firedrill verify"]);
    assert_eq!((kept.waiting(), &kept.status()["archived"]), (1, &1.into()));
    // nor is anything taken for archived that somebody put there before
    let id = first.file_name().unwrap().to_str().unwrap();
    kept.runtime.block_on(ceph().put(&kept.bucket, &format!("kept/records/{id}/report.json"), "{}"));
    assert!(kept.verify().exits(1).stdout.contains("REFUSED"));
}

#[test]
fn what_is_archived_outlives_whoever_deletes_or_overwrites() {
    let kept = Archived::new(Locking::On);
    kept.home.drill(&kept.scenario).ends("PASSED");
    let second = kept.home.drill(&kept.scenario).ends("PASSED");
    for (key, version) in kept.versions() {
        // the versions themselves cannot be deleted
        let path = format!("{}/{key}?versionId={version}", kept.bucket);
        assert_eq!(kept.runtime.block_on(ceph().call(Method::DELETE, &path, &[], "")).0, 403, "{key}");
        kept.runtime.block_on(ceph().ok(Method::DELETE, &format!("{}/{key}", kept.bucket), &[], ""));
    }
    let (key, version) = kept.versions().into_iter().find(|(key, _)| key.ends_with("report.json")).unwrap();
    kept.runtime.block_on(ceph().put(&kept.bucket, &key, "{}"));
    assert!(kept.verify().exits(0).stdout.contains("2 trusted"), "the register knows the versions");
    assert!(kept.get(&key, &version).starts_with(b"{\n"));
    // evidence that never got there is missed by the ledger
    let id = second.report["report_id"].as_str().unwrap();
    let register = kept.home.path("state/archive/archived.jsonl");
    let lines = fs::read_to_string(&register).unwrap();
    fs::write(&register, lines.lines().filter(|line| !line.contains(id)).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    fs::rename(&second.evidence, kept.home.path("hidden")).unwrap();
    let said = kept.verify().exits(1);
    assert!(said.stdout.contains(&format!("the evidence of drill {id} is gone")), "{}", said.stdout);
}

#[test]
fn settings_that_cannot_work_are_told() {
    let kept = Archived::new(Locking::On);
    fs::remove_file(kept.home.path("keys/archive.secret")).unwrap();
    kept.run().exits(4).says(&["no credentials could be had from file:"]);
    assert_eq!(kept.waiting(), 1);
    let home = Home::new();
    home.fire(&["archive", "status"]).exits(2).says(&["no archive is configured", "[evidence.archive]"]);
}

#[test]
fn large_objects_go_in_parts_and_are_never_written_twice() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let bucket = ceph().bucket(Locking::On).await;
        let place = LockedBucket {
            bucket: bucket.clone(),
            prefix: "kept/".to_owned(),
            endpoint: Some(ceph().http()),
            region: None,
            allow_http: true,
            ca_file: None,
            profile: None,
            addressing: Addressing::Path,
            key: None,
            mode: LockMode::Compliance,
            retention: Period::from_secs(600),
        };
        let safe = Safe::open(&place, &admin(), now()).await.unwrap();
        let until = Timestamp::from_unix(now()().0.as_second() + 600);
        let large = Bytes::from(noise(3, 40_000_000));
        let first = safe.keep("large", large.clone(), until).await.unwrap();
        let later = Timestamp::from_unix(until.0.as_second() + 600);
        assert_eq!(safe.keep("large", large.clone(), later).await.unwrap(), first, "the same version");
        assert!(safe.read("large", None).await.unwrap().1 == large);
        let locked = safe.lock_of("large", first.version.as_deref()).await.unwrap();
        assert_eq!(locked, LockState::Locked { mode: LockMode::Compliance, until: later }, "a longer lock is a longer lock");
        let mut other = large.to_vec();
        other[39_999_999] ^= 1;
        let refused = safe.keep("large", other.into(), until).await.unwrap_err();
        assert!(matches!(refused, ArchiveError::Differs { .. }), "{refused}");
        assert_eq!(safe.list("").await.unwrap(), ["large"]);
    });
}
