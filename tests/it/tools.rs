//! Foreign tools that go wrong, through the real drill: missing, hanging, writing, wanting out, misled, cut off from the storage.
//!
//! The tool is restic, with a repository of its own making; what it must not do, a shell does in its place.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::drills::{Home, PATIENT, said};
use crate::servers::{ACCESS, Locking, SECRET, ceph};

/// A home with a restic repository in `backups/repo`, of a tree that was backed up now.
pub struct Repository {
    pub home: Home,
}

impl Repository {
    pub fn new() -> Self {
        let repository = Self { home: Home::new() };
        repository.home.tree();
        repository.home.write("keys/restic.password", "hunter2\n");
        repository.restic("init");
        repository.back_up();
        repository
    }

    /// Runs restic on the repository, as its owner does.
    #[track_caller]
    pub fn restic(&self, arguments: &str) -> String {
        restic(&self.home, "backups/repo", arguments)
    }

    #[track_caller]
    pub fn back_up(&self) {
        back_up(&self.home, &self.home.path("backups/repo").display().to_string());
    }

    pub fn scenario(&self, overlay: &str) -> PathBuf {
        scenario(&self.home, &format!("source.url = \"file:../backups/repo\"\n{overlay}"))
    }

    /// A scenario in which a shell stands in for the tool.
    pub fn shell(&self, script: &str, overlay: &str) -> PathBuf {
        let script = script.replace('\\', "\\\\").replace('"', "\\\"");
        self.scenario(&format!(
            "{overlay}\n[[restore]]\nmethod = \"tool\"\ntool = \"bash\"\ncommand = [\"bash\", \"-c\", \"{script}\"]\n\
             env = {{ AWS_ACCESS_KEY_ID = \"{{access_key}}\", AWS_SECRET_ACCESS_KEY = \"{{secret_key}}\" }}\n"
        ))
    }

    /// The largest pack: nearly all of the data is in it.
    pub fn pack(&self) -> PathBuf {
        let packs = self.home.shell("find backups/repo/data -type f -printf '%s %p\\n' | sort -rn | head -1 | cut -d' ' -f2");
        self.home.path(String::from_utf8(packs).unwrap().trim())
    }
}

#[track_caller]
pub fn restic(home: &Home, repository: &str, arguments: &str) -> String {
    let script = format!("restic --no-cache -q -r {repository} {arguments}");
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(home.root()).env("RESTIC_PASSWORD_FILE", home.path("keys/restic.password"));
    command.env("AWS_ACCESS_KEY_ID", ACCESS).env("AWS_SECRET_ACCESS_KEY", SECRET).env("TZ", "UTC");
    let output = command.output().expect("restic is installed by tests/run.sh");
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
pub fn back_up(home: &Home, repository: &str) {
    let mut command = Command::new("restic");
    command.args(["--no-cache", "-q", "-r", repository, "backup", "."]).current_dir(home.path("tree"));
    command.env("RESTIC_PASSWORD_FILE", home.path("keys/restic.password"));
    command.env("AWS_ACCESS_KEY_ID", ACCESS).env("AWS_SECRET_ACCESS_KEY", SECRET);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// How restic restores, as the recipe has it.
pub const RESTIC: &str = r#"
[[restore]]
method = "tool"
tool = "restic"
version = ["restic", "version"]
command = ["restic", "--no-lock", "--no-cache", "restore", "{snapshot}", "--target", "{target}"]
secrets = { password = "file:../keys/restic.password" }
cannot_run = "wrong password|no key found"
[restore.env]
RESTIC_REPOSITORY = "s3:{endpoint}/{bucket}/{prefix}"
RESTIC_PASSWORD_FILE = "{secret_file:password}"
AWS_ACCESS_KEY_ID = "{access_key}"
AWS_SECRET_ACCESS_KEY = "{secret_key}"
[restore.snapshots]
command = ["restic", "--no-lock", "--no-cache", "snapshots", "--json"]
items = "[]"
id = "short_id"
time = "time"
"#;

pub fn scenario(home: &Home, overlay: &str) -> PathBuf {
    let restore = if overlay.contains("[[restore]]") { "" } else { RESTIC };
    let base = "[sandbox]\nmemory = \"512MiB\"\nprocesses = 128\ntime = \"2m\"\nscratch = { kind = \"tmpfs\", size = \"128MiB\" }\n";
    let path = home.named_scenario("foreign", &format!("{overlay}\n{restore}"));
    let mut table: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    // repositories are no bare objects, and Go has more threads than a small drill may have
    table["source"].as_table_mut().unwrap().remove("points");
    let wanted: toml::Table = base.parse().unwrap();
    for (key, value) in wanted["sandbox"].as_table().unwrap() {
        let sandbox = table["sandbox"].as_table_mut().unwrap();
        if !overlay.contains(&format!("sandbox.{key}")) {
            sandbox.insert(key.clone(), value.clone());
        }
    }
    fs::write(&path, toml::to_string(&table).unwrap()).unwrap();
    path
}

#[test]
fn a_repository_of_restics_comes_back_and_the_evidence_says_by_what_and_from_where() {
    let repository = Repository::new();
    let drilled = repository.home.drill(&repository.scenario("objectives = { rpo = \"24h\", rto = \"1h\" }")).ends("PASSED");
    let report = &drilled.report;
    assert_eq!(report["tools"][0]["tool"], "restic");
    assert!(report["tools"][0]["version"].as_str().unwrap().starts_with("restic 0."), "{}", report["tools"]);
    assert_eq!(report["tools"][0]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!((&report["backup"]["point"]["form"], &report["backup"]["point"]["captured_from"]), (&json!("snapshot"), &json!("tool")));
    assert_eq!(report["measurements"]["data_age"]["source"], "tool");
    let summary = &report["backup"]["chain"]["summary"];
    assert!(summary["by"]["tool"]["bytes"].as_u64().unwrap() >= 300_000, "{summary:#}");
    assert_eq!(summary["by"].as_object().unwrap().len(), 1);
    assert_eq!(report["served"]["refused"], 0);
    assert_eq!(report["restored"]["files"], 5, "{:#}", report["restored"]);
    // the whole chain, line by line, with every read
    let lines = repository.home.shell(&format!("zstd -dc {}", drilled.evidence.join("chain.jsonl.zst").display()));
    let lines: Vec<serde_json::Value> = String::from_utf8(lines).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len() as u64, summary["objects"].as_u64().unwrap());
    let read: u64 = lines.iter().flat_map(|l| l["reads"].as_array().unwrap()).map(|r| r["bytes"].as_u64().unwrap()).sum();
    assert_eq!(read, summary["bytes_read"].as_u64().unwrap());
    for line in &lines {
        let reads = line["reads"].as_array().unwrap();
        assert!(!reads.is_empty() && reads.iter().all(|r| r["by"] == "tool"), "{line:#}");
        // every read has its digest, or was of the whole, which has one
        assert!(reads.iter().all(|r| r["blake3"].is_string() || line["blake3"].is_string()), "{line:#}");
    }
    drilled.left_nothing();
}

#[test]
fn the_chains_file_is_signed_with_the_rest() {
    let repository = Repository::new();
    let drilled = repository.home.drill(&repository.scenario("")).ends("PASSED");
    let path = drilled.evidence.join("chain.jsonl.zst");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let verify = ["verify", "--trust", "evidence/allowed_signers", drilled.evidence.to_str().unwrap()];
    repository.home.fire(&verify).exits(1);
    // nor is evidence whole without it
    fs::remove_file(&path).unwrap();
    repository.home.fire(&verify).exits(1);
}

#[test]
fn a_rotten_pack_a_lost_pack_and_an_empty_repository_fail() {
    let repository = Repository::new();
    let scenario = repository.scenario("");
    let pack = repository.pack();
    let good = fs::read(&pack).unwrap();
    repository.home.shell("chmod -R u+w backups/repo");
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 0x10;
    fs::write(&pack, &bad).unwrap();
    repository.home.drill(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "restic"), ("how", "exit status 1")]);
    fs::remove_file(&pack).unwrap();
    repository.home.drill(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "restic")]);
    repository.home.shell("rm -rf backups/repo/*");
    repository.home.drill(&scenario).ends("FAILED").blames_backup("no_recovery_point", &[]);
}

#[test]
fn a_wrong_password_says_nothing_about_the_backup_and_its_words_go_into_the_annex_alone() {
    let repository = Repository::new();
    let home = &repository.home;
    home.write("keys/restic.password", "Wilhelmina\n");
    home.write("firedrill.toml", format!("[evidence]\nannex_recipients = [\"{}\"]\n", home.recipient));
    let drilled = home.drill(&repository.scenario("")).ends("INCONCLUSIVE");
    drilled.blames_runner("tool_could_not_run", &[("tool", "restic"), ("reason", "could not ask the backup")]);
    let output = drilled.because("tool_could_not_run")["output"].as_str().unwrap().to_owned();
    home.shell(&format!("age -d -i keys/records.agekey {} > annex.json", drilled.evidence.join("annex.age").display()));
    let annex = fs::read_to_string(home.path("annex.json")).unwrap();
    assert!(annex.contains(&output) && annex.contains("wrong password"), "{annex}");
    // the file that should hold it is not there
    fs::remove_file(home.path("keys/restic.password")).unwrap();
    home.drill(&repository.scenario("")).ends("INCONCLUSIVE").blames_runner("key_unusable", &[("reason", "cannot be read")]);
}

#[test]
fn a_tool_that_is_not_there_is_missed_before_anything_is_fetched() {
    let repository = Repository::new();
    let overlay = "[[restore]]\nmethod = \"tool\"\ntool = \"no-such-tool\"\ncommand = [\"no-such-tool\", \"{endpoint}\"]\n";
    let drilled = repository.home.drill(&repository.scenario(overlay)).ends("INCONCLUSIVE");
    drilled.blames_runner("tool_could_not_run", &[("tool", "no-such-tool"), ("reason", "not installed"), ("reason", "[sandbox] tools")]);
    assert_eq!(drilled.report["backup"]["transport"], json!(null), "the storage was not even opened");
    // one that is installed where the sandbox does not see it, and is shown
    // (the sandbox has a /tmp of its own, so it lies elsewhere)
    let elsewhere = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(elsewhere.path().join("mine"), "#!/bin/bash\necho mine 1.0; touch /data/restored\n").unwrap();
    let tools = elsewhere.path().display();
    repository.home.shell(&format!("chmod -R a+rx {tools}"));
    let mine = "[[restore]]\nmethod = \"tool\"\ntool = \"mine\"\ncommand = [\"mine\"]\n";
    repository.home.drill(&repository.scenario(mine)).ends("INCONCLUSIVE").blames_runner("tool_could_not_run", &[("tool", "mine")]);
    let drilled = repository.home.drill(&repository.scenario(&format!("sandbox.tools = [\"{tools}\"]\n{mine}"))).ends("PASSED");
    assert_eq!(drilled.report["tools"][0]["version"], "mine 1.0");
    let hidden = repository.scenario(&format!("sandbox.tools = [\"../keys\"]\n{mine}"));
    let refused = repository.home.fire(&["run", hidden.to_str().unwrap()]).exits(2);
    refused.says(&["lies below /tmp, of which every sandbox has one of its own", "as below /opt"]);
}

#[test]
fn a_tool_that_hangs_ends_with_the_drills_time_and_what_it_read_is_told() {
    let repository = Repository::new();
    let script = "curl -sS --aws-sigv4 aws:amz:us-east-1:s3 --user $AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY {endpoint}/{bucket}/config -o config; sleep 600";
    let scenario = repository.shell(script, "sandbox.time = \"8s\"");
    let drilled = repository.home.drill(&scenario).ends("INCONCLUSIVE");
    drilled.blames_runner("sandbox_limit", &[("limit", "time")]);
    assert_eq!(drilled.report["backup"]["chain"]["summary"]["objects"], 1, "{:#}", drilled.report["backup"]);
    drilled.left_nothing();
}

#[test]
fn a_tool_that_writes_is_refused_and_told_so_or_writes_to_nothing() {
    let repository = Repository::new();
    let before = repository.home.shell("find backups/repo -type f -exec sha256sum {} + | sort");
    let put = "curl -sS -f --aws-sigv4 aws:amz:us-east-1:s3 --user $AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' -X PUT --data-binary lock {endpoint}/{bucket}/locks/mine && touch restored";
    let drilled = repository.home.drill(&repository.shell(put, "")).ends("INCONCLUSIVE");
    drilled.blames_runner("tool_could_not_run", &[("reason", "refused to write"), ("reason", "PutObject"), ("reason", "overlay")]);
    assert_eq!(drilled.warns("writes_refused")["first"], "PutObject");
    assert_eq!(
        (&drilled.report["served"]["refused"], &drilled.report["served"]["refusals"][0]["operation"]),
        (&json!(1), &json!("PutObject"))
    );
    // one that goes on without is not held up, and it is told all the same
    let drilled = repository.home.drill(&repository.shell(&put.replace("&&", ";"), "")).ends("PASSED");
    drilled.warns("writes_refused");
    // of many kinds each is counted, also beyond those that are kept apart, and after many looks beyond the prefix
    let many = put.replace("/locks/mine &&", "/locks/$i;");
    let looks = "for i in $(seq 70); do curl -sS --aws-sigv4 aws:amz:us-east-1:s3 --user $AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY {endpoint}/other/$i >/dev/null; done;";
    let script = format!("{looks} for i in $(seq 100); do {many} done; exit 1").replace("touch restored", "");
    let drilled = repository.home.drill(&repository.shell(&script, "")).ends("INCONCLUSIVE");
    drilled.blames_runner("tool_could_not_run", &[("reason", "refused to write to the backup 100 times, the first time by PutObject")]);
    assert_eq!(drilled.report["served"]["refused"], 100);
    // with an overlay it may
    let scenario = repository.shell(put, "");
    let text = fs::read_to_string(&scenario).unwrap().replace("method = \"tool\"", "method = \"tool\"\nwrites = \"overlay\"");
    fs::write(&scenario, text).unwrap();
    let drilled = repository.home.drill(&scenario).ends("PASSED");
    assert_eq!((&drilled.report["served"]["refused"], &drilled.report["served"]["overlay_objects"]), (&json!(0), &json!(1)));
    assert_eq!(before, repository.home.shell("find backups/repo -type f -exec sha256sum {} + | sort"), "the backup is as it was");
}

#[test]
fn restic_without_no_lock_is_told_what_to_do() {
    let repository = Repository::new();
    let with_lock = RESTIC.replace("\"restic\", \"--no-lock\", \"--no-cache\", \"restore\"", "\"restic\", \"--no-cache\", \"restore\"");
    // restic itself tries for a minute; nobody waits for that here
    let scenario = repository.scenario(&format!("sandbox.time = \"12s\"\n{with_lock}"));
    let drilled = repository.home.drill(&scenario).ends("INCONCLUSIVE");
    drilled.warns("writes_refused");
    let overlay = with_lock.replace("tool = \"restic\"", "tool = \"restic\"\nwrites = \"overlay\"");
    repository.home.drill(&repository.scenario(&overlay)).ends("PASSED");
}

#[test]
fn a_tool_that_wants_the_internet_is_told_so() {
    let repository = Repository::new();
    let drilled = repository.home.drill(&repository.shell("exec 3<>/dev/tcp/192.0.2.7/443", "")).ends("INCONCLUSIVE");
    drilled.blames_runner("tool_could_not_run", &[("reason", "something outside"), ("reason", "1 attempts")]);
    assert_eq!(drilled.report["egress"]["attempts"][0]["destination"], "192.0.2.7");
}

#[test]
fn a_tool_that_never_comes_to_the_gateway_says_nothing_about_the_backup() {
    let repository = Repository::new();
    // a server of the host's, on the same address and port as outside
    let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let script = format!("curl -sS -f http://127.0.0.1:{}/", host.local_addr().unwrap().port());
    let drilled = repository.home.drill(&repository.shell(&script, "")).ends("INCONCLUSIVE");
    drilled.blames_runner("tool_could_not_run", &[("reason", "without asking the gateway"), ("reason", "{endpoint}")]);
}

#[test]
fn what_a_tool_calls_done_counts_only_with_files_and_checks() {
    let repository = Repository::new();
    repository.home.drill(&repository.shell("true", "")).ends("FAILED").blames_backup("empty_restore", &[]);
    repository.home.drill(&repository.shell("mkdir -p a/b", "")).ends("FAILED").blames_backup("empty_restore", &[]);
    repository.home.drill(&repository.shell("touch a", "check = []")).ends("FAILED").blames_backup("no_assertions", &[]);
    let killed = repository.home.drill(&repository.shell("touch a; kill -9 $$", "")).ends("INCONCLUSIVE");
    killed.blames_runner("tool_could_not_run", &[("reason", "signal 9")]);
}

/// restic's newest snapshot, whichever it is, out of a mirror.
fn latest_from_a_mirror() -> String {
    let directory = RESTIC
        .replace("tool = \"restic\"", "tool = \"restic\"\nreads = \"directory\"")
        .replace("s3:{endpoint}/{bucket}/{prefix}", "{repository}");
    let directory: String = directory.lines().filter(|l| !l.starts_with("AWS_")).map(|l| format!("{l}\n")).collect();
    directory.split("[restore.snapshots]").next().unwrap().replace("{snapshot}", "latest")
}

#[test]
fn what_a_mirror_cannot_hold_is_told_and_a_tool_that_fails_on_the_rest_says_nothing_about_the_backup() {
    // in a bucket: keys that no request can name; in a directory: what is no file
    let home = Home::new();
    let (bucket, source) = in_bucket(&home, Locking::Off, "ehr");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    drop(runtime.block_on(ceph().ok(http::Method::PUT, &format!("{bucket}/ehr/data//stray"), &[], "x")));
    let told = |drilled: &crate::drills::Drilled| {
        let told = drilled.findings().iter().any(|f| {
            f["severity"] == "warn" && f["detail"].as_str().is_some_and(|d| d.starts_with("1 entries of the storage are not in the mirror"))
        });
        assert!(told, "{:#?}", drilled.findings());
    };
    told(&drill_s3(&home, &scenario(&home, &format!("{source}{}", latest_from_a_mirror())), &[]).ends("PASSED"));
    let home = Home::new();
    home.shell("mkdir -p backups/repo; echo data > backups/repo/a; ln -s a backups/repo/b");
    let reads = |script: &str| {
        let step = "[[restore]]\nmethod = \"tool\"\ntool = \"bash\"\nreads = \"directory\"";
        let overlay = format!("source.url = \"file:../backups/repo\"\n{step}\ncommand = [\"bash\", \"-c\", \"{script}\"]\n");
        home.drill(&scenario(&home, &overlay))
    };
    told(&reads("cp {repository}/a .").ends("PASSED"));
    for (script, how) in [("cp {repository}/b .", "exit status 1"), ("true", "it restored nothing")] {
        let failed = reads(script).ends("INCONCLUSIVE");
        told(&failed);
        let reason = format!("{how}, on a mirror that 1 entries of the storage are not in");
        failed.blames_runner("tool_could_not_run", &[("tool", "bash"), ("reason", &reason)]);
    }
    // where nothing is left out, the same failures are the backup's
    home.shell("rm backups/repo/b");
    reads("cp {repository}/b .").ends("FAILED").blames_backup("tool_failed", &[("tool", "bash")]);
    reads("true").ends("FAILED").blames_backup("empty_restore", &[]);
}

#[test]
fn a_mirror_is_for_tools_that_read_directories_and_no_key_leads_out_of_it() {
    let repository = Repository::new();
    let latest = latest_from_a_mirror();
    let drilled = repository.home.drill(&repository.scenario(&latest)).ends("PASSED");
    assert!(drilled.report["backup"]["chain"]["summary"]["by"]["mirror"]["bytes"].as_u64().unwrap() > 300_000);
    assert_eq!((&drilled.report["served"], &drilled.report["backup"]["point"]["form"]), (&json!(null), &json!("repository")));
    drilled.warns("weak_capture_time");
    // part of a repository is none: more objects than may be mirrored end the drill before anything is
    let few = repository.home.drill(&repository.scenario(&format!("sandbox.max_files = 3\n{latest}"))).ends("INCONCLUSIVE");
    few.blames_runner("budget_exceeded", &[("budget", "files"), ("limit", "3")]);
    assert_eq!(few.report["backup"]["chain"]["summary"]["bytes_read"], 0);
    // scratch that cannot take it is told before it is filled
    let small = format!("sandbox.scratch = {{ kind = \"tmpfs\", size = \"1MiB\" }}\n{latest}");
    repository.home.shell("head -c 4000000 /dev/urandom > backups/repo/data/more");
    repository.home.drill(&repository.scenario(&small)).ends("INCONCLUSIVE").blames_runner("scratch_full", &[]);
}

#[test]
fn mistakes_in_a_tools_step_are_told_all_at_once() {
    let home = Home::new();
    let scenario = home.scenario(
        r#"
        [[restore]]
        method = "tool"
        tool = "bin/restic"
        command = ["restic", "--password", "{secret:password}", "{endpiont}", "{snapshot}", "{repository}"]
        cannot_run = "("
        secrets = { password = "hunter2" }
        env = { KEY = "{secret:other}", FILE = "{file:conf}" }
        [restore.snapshots]
        command = []
        items = "[0]"
        id = "id"
        time = "time"
        "#,
    );
    let said = home.fire(&["run", scenario.to_str().unwrap()]).exits(2);
    said.clone().says(&[
        "this names no program",
        "{secret:password} is a secret, which every process could read",
        "did you mean `{endpoint}`?",
        "not a regular expression",
        "{secret:other} names no secret of this step",
        "{file:conf} names no file of this step",
        "{repository} is in the mirror",
        "is no path into JSON",
        "this is not a reference to a secret",
    ]);
    assert!(!said.stderr.contains("hunter2") || said.stderr.matches("hunter2").count() == 1, "{}", said.stderr);
}

/// With keys of the administrator of the tests' server.
pub fn drill_s3(home: &Home, scenario: &std::path::Path, flags: &[&str]) -> crate::drills::Drilled {
    let mut command = home.command(&[&["run", scenario.to_str().unwrap()], flags].concat());
    command.env("AWS_ACCESS_KEY_ID", ACCESS).env("AWS_SECRET_ACCESS_KEY", SECRET);
    home.drilled(said(command.output().unwrap()))
}

/// A restic repository in a bucket of its own; its source as a scenario writes it.
pub fn in_bucket(home: &Home, locking: Locking, prefix: &str) -> (String, String) {
    let bucket = tokio::runtime::Runtime::new().unwrap().block_on(ceph().bucket(locking));
    home.tree();
    home.write("keys/restic.password", "hunter2\n");
    let url = format!("s3:{}/{bucket}/{prefix}", ceph().http());
    restic(home, &url, "init");
    back_up(home, &url);
    let source = format!("source = {{ url = \"s3://{bucket}/{prefix}/\", endpoint = \"{}\", allow_http = true }}\n", ceph().http());
    (bucket, source)
}

#[test]
fn storage_that_goes_away_under_a_tool_says_nothing_about_the_backup() {
    let home = Home::new();
    let (_, source) = in_bucket(&home, Locking::Off, "ehr");
    let scenario_path = scenario(&home, &source);
    drill_s3(&home, &scenario_path, &[]).ends("PASSED");
    // the same through a port where nobody listens, and with keys that nobody knows
    let closed = source.replace(&ceph().http(), "http://127.0.0.1:9");
    drill_s3(&home, &scenario(&home, &closed), &[]).ends("INCONCLUSIVE").blames_runner("storage_unreachable", &[]);
    let scenario_path = scenario(&home, &source);
    let mut command = home.command(&["run", scenario_path.to_str().unwrap()]);
    command.env("AWS_ACCESS_KEY_ID", ACCESS).env("AWS_SECRET_ACCESS_KEY", "wrong");
    home.drilled(said(command.output().unwrap())).ends("INCONCLUSIVE").blames_runner("credentials_refused", &[]);
}

#[test]
fn a_sibling_that_shares_the_prefix_does_not_exist_for_a_tool() {
    let home = Home::new();
    let (bucket, _) = in_bucket(&home, Locking::Off, "ehr-test");
    // `ehr` is not there, and `ehr-test` is somebody else's
    let source = format!("source = {{ url = \"s3://{bucket}/ehr/\", endpoint = \"{}\", allow_http = true }}\n", ceph().http());
    drill_s3(&home, &scenario(&home, &source), &[]).ends("FAILED").blames_backup("no_recovery_point", &[]);
    // a tool that asks for it all the same is refused
    let other = format!("{source}{}", RESTIC.replace("{bucket}/{prefix}", "{bucket}/ehr-test"));
    tokio::runtime::Runtime::new().unwrap().block_on(ceph().put(&bucket, "ehr/placeholder", "x"));
    let drilled = drill_s3(&home, &scenario(&home, &other), &[]);
    assert_ne!(drilled.report["verdict"], "PASSED");
    assert_eq!(drilled.report["backup"]["chain"]["summary"]["bytes_read"], 0);
    assert!(!format!("{:#}", drilled.report).contains(PATIENT));
}

/// The keys of a bucket, below any prefix.
fn keys(bucket: &str) -> Vec<String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (_, text) = runtime.block_on(ceph().ok(http::Method::GET, &format!("{bucket}?list-type=2"), &[], ""));
    text.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap().to_owned()).collect()
}

#[test]
fn an_attacker_with_every_right_deletes_all_and_overwrites_half_and_restic_brings_it_back() {
    let home = Home::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bucket = runtime.block_on(ceph().bucket(Locking::On));
    let default = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
                   <Mode>COMPLIANCE</Mode><Days>40</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    runtime.block_on(ceph().ok(http::Method::PUT, &format!("{bucket}?object-lock="), &[], default));
    home.tree();
    home.write("keys/restic.password", "hunter2\n");
    let url = format!("s3:{}/{bucket}/ehr", ceph().http());
    restic(&home, &url, "init");
    back_up(&home, &url);
    // what the server's clock calls later is later
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let at = firedrill::domain::Timestamp(jiff::Timestamp::now());
    let found = keys(&bucket);
    assert!(found.len() >= 5, "{found:?}");
    runtime.block_on(async {
        for (number, key) in found.iter().enumerate() {
            ceph().ok(http::Method::DELETE, &format!("{bucket}/{key}"), &[], "").await;
            if number % 2 == 0 {
                ceph().put(&bucket, key, "garbage").await;
            }
        }
    });
    let policy = "policy = { lock = { mode = \"compliance\", remaining = \"30d\" } }";
    let source = format!("source = {{ url = \"s3://{bucket}/ehr/\", endpoint = \"{}\", allow_http = true, {policy} }}\n", ceph().http());
    let path = scenario(&home, &format!("{source}objectives = {{ rpo = \"1h\", rto = \"10m\" }}"));
    let now = drill_s3(&home, &path, &[]);
    assert_eq!(now.report["verdict"], "FAILED", "{:#?}", now.findings());
    let rescued = drill_s3(&home, &path, &["--as-of", &at.to_string()]).ends("PASSED");
    let summary = &rescued.report["backup"]["chain"]["summary"];
    assert_eq!((&summary["lock_policy"], &summary["locks"]["locked"]), (&json!("kept"), &summary["objects"]), "{summary:#}");
    assert_eq!(summary["as_of"], at.to_string());
    assert!(rescued.report["backup"]["chain"]["objects"].as_array().unwrap().iter().all(|o| o["version"].is_string()));
    // the recovery was timed, and the report says as of when
    assert!(rescued.report["measurements"]["recovery"]["measured"].is_number() || rescued.report["measurements"]["recovery"].is_object());
    assert!(fs::read_to_string(rescued.evidence.join("report.html")).unwrap().contains("the bucket as it stood then"));
}

#[test]
fn nothing_but_reads_ever_reaches_the_server_in_any_drill() {
    let home = Home::new();
    let (bucket, source) = in_bucket(&home, Locking::On, "ehr");
    let recipient = home.recipient.clone();
    let sealing = ["seal", "tree", "--to", &format!("s3://{bucket}/sets/"), "--endpoint", &ceph().http(), "--allow-http", "-r", &recipient];
    let sealed = home.command(&sealing).env("AWS_ACCESS_KEY_ID", ACCESS).env("AWS_SECRET_ACCESS_KEY", SECRET).output().unwrap();
    said(sealed).exits(0);
    let before = ceph().access_log(&bucket).len();
    assert!(before > 10);
    let directory = latest_from_a_mirror();
    let with_lock = RESTIC.replace("\"--no-lock\", ", "").replace("tool = \"restic\"", "tool = \"restic\"\nwrites = \"overlay\"");
    let sets = source.replace("/ehr/", "/sets/");
    // native, through the gateway, mirrored, writing to the overlay, writing and refused, as of an instant, with a wrong key
    let sealed = home.sealed_scenario(&sets);
    drill_s3(&home, &sealed, &[]).ends("PASSED");
    drill_s3(&home, &scenario(&home, &source), &[]).ends("PASSED");
    drill_s3(&home, &scenario(&home, &format!("{source}{directory}")), &[]).ends("PASSED");
    drill_s3(&home, &scenario(&home, &format!("{source}{with_lock}")), &[]).ends("PASSED");
    let refused = with_lock.replace("overlay", "refuse");
    drill_s3(&home, &scenario(&home, &format!("{source}sandbox.time = \"9s\"\n{refused}")), &[]).ends("INCONCLUSIVE");
    drill_s3(&home, &scenario(&home, &source), &["--as-of", "1s"]).ends("PASSED");
    home.write("keys/restic.password", "wrong\n");
    drill_s3(&home, &scenario(&home, &source), &[]).ends("INCONCLUSIVE");
    for command in ["points", "plan"] {
        let path = home.sealed_scenario(&sets);
        let asked =
            home.command(&[command, path.to_str().unwrap()]).env("AWS_ACCESS_KEY_ID", ACCESS).env("AWS_SECRET_ACCESS_KEY", SECRET).output();
        said(asked.unwrap()).exits(0);
    }
    let log = ceph().access_log(&bucket);
    let ours = &log[before..];
    assert!(ours.len() > 50, "{}", ours.len());
    for line in ours {
        assert!(line.contains(" \"GET /") || line.contains(" \"HEAD /"), "{line}");
    }
}

#[test]
fn an_ordinary_user_has_tools_restore_as_well() {
    if !crate::sandbox::is_root() {
        println!("needs root to become an ordinary user");
        return;
    }
    let repository = Repository::new();
    let home = &repository.home;
    // files of somebody else's are in it: giving them back to him must not be taken for damage
    let scenario = repository.scenario("");
    let run = |scenario: &std::path::Path| said(crate::limits::ordinary_user(home, &["run", scenario.to_str().unwrap()]).output().unwrap());
    let drilled = home.drilled(run(&scenario)).ends("PASSED");
    assert_eq!(drilled.report["served"]["refused"], 0);
    let pack = repository.pack();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    home.shell("chmod -R u+w backups/repo");
    fs::write(&pack, bytes).unwrap();
    home.drilled(run(&scenario)).ends("FAILED").blames_backup("tool_failed", &[("tool", "restic")]);
}

#[test]
fn a_list_that_cannot_be_read_says_nothing_about_the_backup() {
    let repository = Repository::new();
    let lists = |script: &str| {
        format!(
            "{}\n[restore.snapshots]\ncommand = [\"bash\", \"-c\", '{script}']\nitems = \"[]\"\nid = \"id\"\ntime = \"time\"\n",
            RESTIC.split("[restore.snapshots]").next().unwrap()
        )
    };
    for (script, why) in
        [("echo no snapshots yet", "no JSON document"), ("head -c 70000000 /dev/zero | tr \"\\\\0\" \" \"", "longer than 64 MiB")]
    {
        let drilled = repository.home.drill(&repository.scenario(&lists(script))).ends("INCONCLUSIVE");
        drilled.blames_runner("tool_could_not_run", &[("reason", why), ("reason", "[restore.snapshots]")]);
    }
    // an empty list is an answer, and items that say nothing are told
    let empty = repository.home.drill(&repository.scenario(&lists("echo []")));
    empty.ends("FAILED").blames_backup("no_recovery_point", &[]);
    let odd = repository.home.drill(&repository.scenario(&lists("echo [{\\\"id\\\": \\\"x\\\"}]"))).ends("FAILED");
    assert!(odd.warns("remark")["detail"].as_str().unwrap().contains("lists 1 recovery points without"), "{:#?}", odd.findings());
}
