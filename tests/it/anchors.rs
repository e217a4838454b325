//! Anchors of the ledger: a real bucket with object lock, a real timestamp authority, a directory; each of them alone tells a log
//! that was replaced, shortened or forked by whoever has the key.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firedrill::app::App;
use firedrill::clock::SystemClock;
use firedrill::config::{Overrides, load_settings};
use firedrill::domain::{Timestamp, Verdict};
use firedrill::evidence::ledger::{Entry, EntryKind, Ledger};
use firedrill::evidence::{SignerKey, TrustFile};
use http::Method;
use tokio::runtime::Runtime;

use crate::authority::{Answer, Authority};
use crate::drills::{Home, Said};
use crate::faults::{Fault, Proxy, on};
use crate::servers::{ACCESS, Locking, SECRET, admin, ceph};

const TRUST: &str = "evidence/allowed_signers";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bucket,
    Timestamp,
    Directory,
}

/// A home whose ledger is carried to places outside.
struct Anchored {
    home: Home,
    scenario: PathBuf,
    runtime: Runtime,
    bucket: String,
    proxy: Proxy,
    authority: Authority,
}

impl Anchored {
    fn to(kinds: &[Kind]) -> Self {
        let runtime = Runtime::new().unwrap();
        let home = Home::new();
        home.bare_tree();
        let scenario = home.scenario("");
        let bucket = runtime.block_on(ceph().bucket(Locking::On));
        home.write("keys/anchor.id", format!("{ACCESS}\n"));
        home.write("keys/anchor.secret", format!("{SECRET}\n"));
        let this = Self { home, scenario, runtime, bucket, proxy: Proxy::start(ceph().http_port, vec![]), authority: Authority::new() };
        fs::create_dir(this.home.path("medium")).unwrap();
        this.settings(kinds);
        this
    }

    fn settings(&self, kinds: &[Kind]) {
        let (bucket, proxy, url, ca) = (&self.bucket, self.proxy.url(), self.authority.url(), self.authority.ca());
        let of = |kind: &Kind| match kind {
            Kind::Bucket => format!(
                "[[ledger.anchor]]\nname = \"other-account\"\n[ledger.anchor.bucket]\nurl = \"s3://{bucket}/anchor/\"\nendpoint = \"{proxy}\"\n\
                 allow_http = true\naccess_key_id = \"file:keys/anchor.id\"\nsecret_access_key = \"file:keys/anchor.secret\"\nretention = \"1h\"\n"
            ),
            Kind::Timestamp => {
                format!("[[ledger.anchor]]\nname = \"authority\"\ntimestamp = {{ url = \"{url}\", ca = \"{}\" }}\n", ca.display())
            }
            Kind::Directory => "[[ledger.anchor]]\nname = \"medium\"\ndirectory = \"medium\"\n".to_owned(),
        };
        self.home.write("firedrill.toml", kinds.iter().map(of).collect::<String>());
    }

    fn run(&self) -> Said {
        self.home.fire(&["run", self.scenario.to_str().unwrap()])
    }

    fn verify(&self, flags: &[&str]) -> Said {
        self.home.fire(&[&["ledger", "verify", "--trust", TRUST], flags].concat())
    }

    fn ledger(&self) -> PathBuf {
        self.home.path("evidence/ledger")
    }

    fn entries(&self) -> Vec<Entry> {
        let text = fs::read_to_string(self.ledger().join("entries.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Keys and versions of all checkpoints in the bucket.
    fn versions(&self) -> Vec<(String, String)> {
        self.runtime.block_on(ceph().versions(&self.bucket))
    }

    /// The log's name, and what follows its opening.
    fn origin_and_entries(&self) -> (String, Vec<Entry>) {
        let mut entries = self.entries();
        let EntryKind::Opened { origin } = entries.remove(0).entry else { panic!("a log begins with its opening") };
        (origin, entries)
    }

    fn anchored(&self) -> Vec<(String, u64)> {
        let of = |entry: Entry| if let EntryKind::Anchored { size, place } = entry.entry { Some((place, size)) } else { None };
        self.entries().into_iter().filter_map(of).collect()
    }

    /// Writes the log anew with the runner's own key, as whoever has it can. Entries that are given as they were stay as they were.
    fn rewrite(&self, origin: &str, entries: &[Entry]) {
        for name in ["entries.jsonl", "checkpoint", "tree"] {
            fs::remove_file(self.ledger().join(name)).unwrap();
        }
        for entry in entries {
            self.append(origin, entry);
        }
    }

    fn append(&self, origin: &str, entry: &Entry) {
        let key = SignerKey::load(&self.home.path("evidence/made-on-the-spot.key")).unwrap();
        let trust = TrustFile::load(&self.home.path(TRUST)).unwrap();
        let ledger = Ledger::new(self.ledger(), origin, &entry.by).unwrap();
        ledger.append(entry.at, &key, &trust, vec![entry.entry.clone()]).unwrap();
    }

    fn app(&self) -> App {
        let of = |name: &str| Some(self.home.path(name));
        let overrides = Overrides { config: of("firedrill.toml"), store: of("evidence"), state: of("state") };
        let settings = load_settings(&overrides, &admin(), self.home.root()).unwrap();
        App { settings, environment: admin(), clock: Arc::new(SystemClock::new()), working_directory: self.home.root().to_owned() }
    }
}

/// A drill's end, with another verdict; everything else as it is.
fn told_otherwise(entry: &Entry) -> Entry {
    let mut told = entry.clone();
    if let EntryKind::DrillFinished { verdict, .. } = &mut told.entry {
        *verdict = Verdict::Failed;
    }
    told
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// LIES 41 and 42, of whoever has the signing key: each kind of anchor alone tells each kind of damage.
#[test]
fn a_log_that_was_replaced_shortened_or_forked_with_the_key_is_told_by_any_one_anchor() {
    for kind in [Kind::Bucket, Kind::Timestamp, Kind::Directory] {
        let kept = Anchored::to(&[kind]);
        kept.run().exits(0);
        kept.run().exits(0);
        assert_eq!(kept.anchored().iter().map(|(_, size)| *size).collect::<Vec<_>>(), [3, 6], "{kind:?}: after each drill");
        let said = kept.verify(&["--anchors"]).exits(0);
        assert!(said.stdout.contains("goes on     from 2 checkpoints kept elsewhere"), "{}", said.stdout);
        let honest = kept.home.path("honest");
        copy(&kept.ledger(), &honest);
        let (origin, entries) = kept.origin_and_entries();
        let forked: Vec<Entry> = entries.iter().map(told_otherwise).collect();
        for (what, origin, entries, told) in [
            ("shortened", origin.as_str(), entries[..3].to_vec(), "the log was shortened"),
            ("shortened to before any anchor", origin.as_str(), entries[..1].to_vec(), "the log was shortened"),
            ("forked", origin.as_str(), [&entries[..3], &forked[3..]].concat(), "the first 6 have another root"),
            ("replaced", origin.as_str(), forked.clone(), "the first 3 have another root"),
            ("replaced under another name", "clinic.example/new", entries.clone(), "is of another log"),
        ] {
            kept.rewrite(origin, &entries);
            assert!(kept.verify(&[]).exits(0).stdout.contains("TRUSTED"), "{kind:?}, {what}: alone it looks whole");
            let said = kept.verify(&["--anchors"]).exits(1);
            assert!(said.stdout.contains(told) && said.stdout.contains("of anchor "), "{kind:?}, {what}: {}", said.stdout);
            fs::remove_dir_all(kept.ledger()).unwrap();
            copy(&honest, &kept.ledger());
            kept.verify(&["--anchors"]).exits(0);
        }
    }
}

/// A newer checkpoint of a log that was replaced, junk and marks that something was deleted hide nothing of what is locked.
#[test]
fn what_a_bucket_locks_cannot_be_hidden_or_outnumbered() {
    let kept = Anchored::to(&[Kind::Bucket]);
    kept.run().exits(0).says(&["anchored    the ledger's 3 entries: other-account"]);
    kept.run().exits(0);
    let versions = kept.versions();
    assert_eq!(versions.len(), 2);
    for (key, version) in &versions {
        let path = format!("{}/{key}?versionId={version}", kept.bucket);
        let (_, headers, _) = kept.runtime.block_on(ceph().call(Method::HEAD, &path, &[], ""));
        assert_eq!(headers["x-amz-object-lock-mode"], "COMPLIANCE");
        assert_eq!(kept.runtime.block_on(ceph().call(Method::DELETE, &path, &[], "")).0, 403, "{key}");
        kept.runtime.block_on(ceph().ok(Method::DELETE, &format!("{}/{key}", kept.bucket), &[], ""));
    }
    kept.verify(&["--anchors"]).exits(0);
    let (origin, entries) = kept.origin_and_entries();
    kept.rewrite(&origin, &entries[..3]);
    kept.run().exits(0);
    kept.home.fire(&["ledger", "anchor"]).exits(0);
    assert!(kept.verify(&["--anchors"]).exits(1).stdout.contains("the first 6 have another root"));
    // the same size, and other bytes: never overwritten, told
    let forked: Vec<Entry> = entries[..5].iter().map(told_otherwise).collect();
    kept.rewrite(&origin, &forked);
    let said = kept.home.fire(&["ledger", "anchor", "other-account"]).exits(4);
    said.says(&["could not be carried to anchor other-account", "with other bytes than were written there", "nothing is ever overwritten"]);
}

#[test]
fn a_timestamp_stands_beside_its_checkpoint_and_openssl_believes_it() {
    let kept = Anchored::to(&[Kind::Timestamp]);
    kept.run().exits(0);
    let (checkpoint, token) = (kept.ledger().join("anchors/authority/3.checkpoint"), kept.ledger().join("anchors/authority/3.tsr"));
    assert!(kept.authority.openssl_believes(&token, &checkpoint));
    kept.home.fire(&["ledger", "verify", "--trust", TRUST, "--anchor", checkpoint.to_str().unwrap()]).exits(0);
    kept.home.fire(&["verify", "--trust", TRUST, "--anchors", "evidence"]).exits(0);
    // offline: nobody is asked
    kept.authority.set(Answer::Status(500));
    kept.verify(&["--anchors"]).exits(0);
    let honest = fs::read(&token).unwrap();
    let mut hurt = honest.clone();
    *hurt.last_mut().unwrap() ^= 1;
    fs::write(&token, hurt).unwrap();
    kept.verify(&["--anchors"]).exits(1).says(&["an anchor does not hold the ledger", "3.tsr is not believed", "ca in [[ledger.anchor]]"]);
    let other = Authority::new();
    fs::write(&token, other.answer(&firedrill::archive::timestamp::request(&fs::read(&checkpoint).unwrap(), [1; 8]))).unwrap();
    kept.verify(&["--anchors"]).exits(1).says(&["leads to none that is trusted"]);
    fs::remove_file(&token).unwrap();
    kept.verify(&["--anchors"]).exits(3).says(&["an anchor could not be asked", "3.tsr cannot be used"]);
    fs::remove_file(&checkpoint).unwrap();
    kept.verify(&["--anchors"]).exits(1).says(&["had a timestamp of the first 3 entries, and it is gone"]);
    fs::remove_dir_all(kept.home.path("state/archive")).unwrap();
    kept.verify(&["--anchors"]).exits(1).says(&["keeps no checkpoint at all", "firedrill ledger anchor"]);
}

#[test]
fn an_authority_that_lies_or_is_away_is_no_anchor() {
    let kept = Anchored::to(&[Kind::Timestamp]);
    let request = |bytes: &[u8]| firedrill::archive::timestamp::request(bytes, [1; 8]);
    let of_another = kept.authority.answer(&request(b"another checkpoint"));
    let untrusted = Authority::new().answer(&request(b"x"));
    for (answer, said) in [
        (Answer::Status(503), "the timestamp authority gives no answer"),
        (Answer::Status(404), "the timestamp authority gives no answer"),
        (Answer::Bytes(b"<html>".to_vec()), "it is no answer to a timestamp request"),
        (Answer::Bytes(of_another), "it is a timestamp of something else"),
        (Answer::Bytes(untrusted), "is not believed"),
    ] {
        kept.authority.set(answer);
        kept.run().exits(4).says(&["the ledger's checkpoint could not be carried to anchor authority", said, "try: "]);
        assert!(kept.anchored().is_empty() && !kept.ledger().join("anchors/authority/3.tsr").exists());
    }
    // an old answer to this very checkpoint is none to this request
    let checkpoint = fs::read(kept.ledger().join("checkpoint")).unwrap();
    kept.authority.set(Answer::Bytes(kept.authority.answer(&request(&checkpoint))));
    kept.home.fire(&["ledger", "anchor"]).exits(4).says(&["it is the answer to another request"]);
    kept.authority.set(Answer::Honest);
    let said = kept.home.fire(&["ledger", "anchor", "--json"]).exits(0).json();
    assert_eq!((&said["entries"], &said["carried"][0]), (&11.into(), &"authority".into()));
    kept.verify(&["--anchors"]).exits(0);
}

#[test]
fn one_place_that_is_away_keeps_no_other_back_and_gets_it_later() {
    let kept = Anchored::to(&[Kind::Bucket, Kind::Directory, Kind::Timestamp]);
    fs::remove_dir(kept.home.path("medium")).unwrap();
    let methods = [Method::GET, Method::HEAD, Method::PUT, Method::POST];
    kept.proxy.set(methods.into_iter().map(|method| on(method, "", usize::MAX, Fault::Reset)).collect());
    kept.run().exits(4).says(&[
        "anchored    the ledger's 3 entries: authority",
        "anchor other-account, nor to 1 more",
        "cannot be reached",
    ]);
    assert!(!kept.home.path("medium").exists(), "what should be a mounted medium is not made");
    kept.home.fire(&["ledger", "anchor", "medium"]).exits(4).says(&["medium cannot be used", "mount what should be there"]);
    assert_eq!(kept.anchored(), [("authority".to_owned(), 3)]);
    // not known is neither trusted nor refused
    let said = kept.verify(&["--anchors"]).exits(3);
    assert!(said.stdout.contains("TRUSTED"), "of what could be asked: {}", said.stdout);
    kept.proxy.set(vec![]);
    fs::create_dir(kept.home.path("medium")).unwrap();
    kept.verify(&["--anchors"]).exits(1).says(&["keeps no checkpoint at all"]);
    kept.run().exits(0);
    let carried: Vec<_> = kept.anchored().split_off(1);
    assert_eq!(carried, [("other-account".to_owned(), 6), ("medium".to_owned(), 6), ("authority".to_owned(), 6)]);
    kept.verify(&["--anchors"]).exits(0);
    kept.home.fire(&["ledger", "anchor", "nobody"]).exits(2).says(&["no anchor is called `nobody`", "other-account, medium, authority"]);
    kept.settings(&[]);
    kept.home.fire(&["ledger", "anchor"]).exits(2).says(&["no anchor is configured"]);
    kept.verify(&["--anchors"]).exits(2).says(&["there is nothing to hold the ledger to"]);
}

#[test]
fn a_bucket_that_does_not_lock_is_no_anchor() {
    let kept = Anchored::to(&[Kind::Bucket]);
    kept.proxy.set(vec![on(Method::PUT, "retention=", usize::MAX, Fault::Say(""))]);
    kept.run().exits(4).says(&["it said yes, and shows no retention"]);
    kept.proxy.set(vec![on(Method::GET, "checkpoint/", usize::MAX, Fault::Corrupt(3))]);
    kept.home.fire(&["ledger", "anchor"]).exits(4).says(&["with other bytes than were written there"]);
    assert!(kept.anchored().is_empty());
}

/// After each drill, and where something else was entered when its time has come; that it was carried away is nothing.
#[test]
fn anchors_are_due_after_a_drill_and_in_time() {
    let kept = Anchored::to(&[Kind::Directory]);
    let app = kept.app();
    let now = Timestamp(jiff::Timestamp::now());
    let later = Timestamp::from_unix(now.0.as_second() + 86_500);
    let due = |at: Timestamp| app.due_anchors(at).unwrap().len();
    assert_eq!(due(later), 0, "nothing was ever entered");
    kept.run().exits(0);
    assert_eq!((due(now), due(later)), (0, 0), "nothing but that it was carried away");
    let (origin, entries) = kept.origin_and_entries();
    let seen = EntryKind::SettingsSeen { sha256: firedrill::evidence::sha256(b"x") };
    kept.append(&origin, &Entry { entry: seen, ..entries[0].clone() });
    assert_eq!((due(now), due(later)), (0, 1), "a day after the last one");
    assert!(matches!(entries[1].entry, EntryKind::DrillFinished { .. }));
    kept.append(&origin, &entries[1]);
    assert_eq!(due(now), 1, "a drill");
    fs::remove_dir_all(kept.home.path("state/archive")).unwrap();
    assert_eq!(due(now), 1, "whatever is forgotten is due");
}
