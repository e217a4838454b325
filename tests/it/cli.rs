//! The command line: what is asked, what is answered, what is said when something is wrong, and the exit status.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::drills::{Drilled, Forged, Home, Said, noise, said};
use crate::faults::{Fault, Proxy, on};
use crate::lies::sandbox::wait_until;
use crate::servers::{self, Locking, ceph};

// ---- exit status 2: what was typed or written is wrong --------------------------------------------------------------

#[test]
fn what_is_typed_wrong_is_said_and_nothing_runs() {
    let home = Home::new();
    home.fire(&["run"]).exits(2).says(&["SCENARIO"]);
    home.fire(&["runn", "x"]).exits(2).says(&["unrecognized subcommand", "run"]);
    home.fire(&["run", "--pint", "x", "records"]).exits(2).says(&["--pint", "--point"]);
    home.fire(&["run", "no-such-scenario"]).exits(2).says(&["cannot read no-such-scenario", "because"]);
    home.fire(&["run", "--as-of", "yesterday", "records"]).exits(2).says(&["yesterday"]);
    home.fire(&["--config", "nowhere.toml", "doctor"]).exits(2).says(&["nowhere.toml"]);
    home.fire(&["verify", "evidence"]).exits(2).says(&["evidence never vouches for itself", "--trust FILE"]);
    home.fire(&["verify", "--trust", "nowhere", "evidence"]).exits(2).says(&["nowhere"]);
    let scenario = home.scenario("");
    let scenario = scenario.to_str().unwrap();
    home.fire(&["run", "--point", "x", scenario, scenario]).exits(2).says(&["--point"]);
    home.fire(&["run", "--point", "x", "--as-of", "2026-11-20T02:00:00Z", scenario]).exits(2).says(&["cannot be used with"]);
    assert!(home.evidence().is_empty());
    home.fire(&["--version"]).exits(0);
    let help = home.fire(&["--help"]).exits(0).stdout;
    assert!(help.contains("Exit status: 0 passed"), "{help}");
}

#[test]
fn a_bad_scenario_shows_every_mistake_with_its_line_and_advice() {
    let home = Home::new();
    let text = "name = \"Not A Name\"\nsystem = \"\"\ncolour = \"blue\"\n[objectives]\nrpo = \"soon\"\n[source]\nurl = \"ftp://x\"\n\
                [schedule]\ncron = \"0 25 * * *\"\n[[check]]\nkind = \"guess\"\n";
    let path = home.write("scenarios/bad.toml", text);
    let said = home.fire(&["run", path.to_str().unwrap()]).exits(2);
    let said = said.says(&["Not A Name", "colour", "soon", "ftp://x", "25", "guess", "nothing was run", "help:", "bad.toml:3"]);
    assert!(said.stdout.is_empty(), "{}", said.stdout);
    home.fire(&["plan", "bad"]).exits(2);
    home.fire(&["points", "bad"]).exits(2);
    // and with one good scenario beside it, not even that one is run
    home.bare_tree();
    let good = home.scenario("");
    home.fire(&["run", good.to_str().unwrap(), path.to_str().unwrap()]).exits(2);
    assert!(home.evidence().is_empty());
}

#[test]
fn bad_settings_are_shown_with_every_mistake() {
    let home = Home::new();
    home.write("firedrill.toml", "[evidense]\nstore = 3\n[evidence]\nsigner = 5\n");
    home.fire(&["doctor"]).exits(2).says(&["evidense", "signer", "firedrill.toml"]);
}

// ---- exit status 3: nothing was learned about the backup ------------------------------------------------------------

/// Runs with credentials of the tests' server.
fn with_keys(home: &Home, args: &[&str]) -> Said {
    let mut command = home.command(args);
    command.env("AWS_ACCESS_KEY_ID", servers::ACCESS).env("AWS_SECRET_ACCESS_KEY", servers::SECRET);
    said(command.output().unwrap())
}

/// A scenario of a bucket, over `endpoint`.
fn bucket_scenario(home: &Home, bucket: &str, endpoint: &str) -> String {
    let overlay = format!(
        "[source]\nurl = \"s3://{bucket}/ehr/\"\nendpoint = \"{endpoint}\"\nallow_http = true\n\
         points = \"{{captured_at:%Y-%m-%dT%H%M}}.sql\"\npolicy.encrypted = false"
    );
    home.scenario(&overlay).to_str().unwrap().to_owned()
}

fn bucket(objects: &[&str]) -> String {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let bucket = ceph().bucket(Locking::Off).await;
        for key in objects {
            ceph().put(&bucket, key, "-- a dump\nSELECT 1;\n").await;
        }
        bucket
    })
}

#[track_caller]
fn inconclusive(home: &Home, scenario: &str, kind: &str, words: &[&str]) -> Drilled {
    let drilled = home.drilled(with_keys(home, &["run", scenario])).ends("INCONCLUSIVE");
    drilled.blames_runner(kind, &[]);
    // the lines are wrapped
    let flat = drilled.said.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(flat.contains(word), "stdout does not say `{word}`:\n{}", drilled.said.stdout);
    }
    drilled.left_nothing();
    drilled
}

#[test]
fn a_missing_bucket_or_directory_is_named_with_advice() {
    let home = Home::new();
    let scenario = bucket_scenario(&home, "no-such-bucket", &ceph().http());
    inconclusive(&home, &scenario, "no_such_store", &["there is no such bucket or directory", "check the name in [source] url"]);
    let scenario = home.scenario("source.url = \"file:../nowhere\"").to_str().unwrap().to_owned();
    inconclusive(&home, &scenario, "no_such_store", &["check the name in [source] url"]);
    for verb in ["points", "plan"] {
        home.fire(&[verb, &scenario]).exits(3).says(&["nowhere", "try: check the name in [source] url"]);
    }
}

#[test]
fn expired_credentials_and_skewed_clocks_are_told_from_bad_backups() {
    let home = Home::new();
    let bucket = bucket(&[]);
    for (status, code, kind, words) in [
        (400, "ExpiredToken", "credentials_refused", "get new credentials"),
        (403, "InvalidAccessKeyId", "credentials_refused", "check the access key"),
        (403, "AccessDenied", "credentials_refused", "rights to list and read"),
        (403, "RequestTimeTooSkewed", "storage_unreachable", "set this host's clock"),
    ] {
        let proxy = Proxy::start(ceph().http_port, vec![on(Method::GET, "/", usize::MAX, Fault::Answer(status, code))]);
        let scenario = bucket_scenario(&home, &bucket, &proxy.url());
        inconclusive(&home, &scenario, kind, &[words]);
        with_keys(&home, &["points", &scenario]).exits(3).says(&[words]);
    }
}

#[test]
fn plain_http_is_used_only_where_it_is_allowed() {
    let home = Home::new();
    let path = home.scenario("source = { url = \"s3://b/ehr/\", endpoint = \"http://127.0.0.1:1\" }");
    home.fire(&["run", path.to_str().unwrap()]).exits(2).says(&["neither private nor authenticated", "allow_http = true"]);
}

#[test]
fn data_from_the_future_is_a_wrong_clock_and_no_word_about_the_backup() {
    let home = Home::new();
    let object = home.bare_tree();
    fs::rename(&object, object.with_file_name(home.bare_name(-5))).unwrap();
    let scenario = home.scenario("objectives.rpo = \"24h\"").to_str().unwrap().to_owned();
    let drilled = inconclusive(&home, &scenario, "captured_in_future", &["in the future", "clock"]);
    assert!(drilled.because("captured_in_future")["ahead"].to_string().len() >= 4);
    let listed = home.fire(&["points", &scenario]).exits(0);
    assert!(listed.stdout.contains("in the future"), "{}", listed.stdout);
}

#[test]
fn keys_that_cannot_be_used_are_refused_with_advice() {
    let home = Home::new();
    home.bare_tree();
    home.shell("ssh-keygen -q -t ed25519 -N secret -C x -f keys/locked; ssh-keygen -q -t ecdsa -N '' -C x -f keys/ecdsa");
    home.shell(
        "age -r $RECIPIENT -o keys/encrypted.agekey keys/records.agekey; age -a -r $RECIPIENT -o keys/armored.agekey keys/records.agekey",
    );
    home.write("keys/pq.agekey", "AGE-SECRET-KEY-PQ-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ\n");
    home.write("keys/plugin.agekey", "AGE-PLUGIN-YUBIKEY-1QQQQQQ\n");
    home.write("keys/public.agekey", format!("{}\n", home.recipient));
    home.write("keys/empty.agekey", "# nothing\n");
    for (key, words) in [
        ("lost.agekey", "cannot be read"),
        ("locked", "has a passphrase"),
        ("ecdsa", "only ssh-ed25519 and ssh-rsa"),
        ("encrypted.agekey", "store it decrypted"),
        ("armored.agekey", "store it decrypted"),
        ("pq.agekey", "post-quantum"),
        ("plugin.agekey", "plugin identity"),
        ("public.agekey", "is a recipient (public key)"),
        ("empty.agekey", "no identity in it"),
    ] {
        let scenario = home.scenario(&format!("unlock.age_identities = [\"file:../keys/{key}\"]")).to_str().unwrap().to_owned();
        inconclusive(&home, &scenario, "key_unusable", &[words, key]);
        home.fire(&["plan", &scenario]).exits(3).says(&[words, "try: a drill would be inconclusive"]);
    }
    let scenario = home.scenario("unlock.age_identities = [\"env:NO_SUCH_KEY\"]").to_str().unwrap().to_owned();
    inconclusive(&home, &scenario, "key_unusable", &["NO_SUCH_KEY", "is not set"]);
    // a secret from the environment opens it, and is shown nowhere
    let secret = fs::read_to_string(home.path("keys/records.agekey")).unwrap();
    let secret = secret.lines().find(|l| l.starts_with("AGE-SECRET-KEY-")).unwrap().to_owned();
    let scenario = home.scenario("unlock.age_identities = [\"env:THE_KEY\"]");
    let output = home.command(&["-vv", "run", scenario.to_str().unwrap()]).env("THE_KEY", &secret).output().unwrap();
    let drilled = home.drilled(said(output)).ends("PASSED");
    assert!(!drilled.said.stderr.contains(&secret[20..]) && !drilled.said.stdout.contains(&secret[20..]));
    for file in fs::read_dir(&drilled.evidence).unwrap() {
        assert!(!crate::drills::holds(&fs::read(file.unwrap().path()).unwrap(), &secret.as_bytes()[20..]));
    }
}

#[test]
fn a_full_scratch_says_nothing_about_the_backup() {
    let home = Home::new();
    home.tree();
    home.write("tree/large", noise(3, 3_000_000));
    home.shell(&format!("tar -C tree -cf - . | zstd -q | age -r $RECIPIENT > backups/{}", home.bare_name(1)));
    let small = "sandbox.scratch = { kind = \"tmpfs\", size = \"1MiB\" }";
    let scenario = home.scenario(small).to_str().unwrap().to_owned();
    inconclusive(&home, &scenario, "scratch_full", &["scratch is full at 1 MiB"]);
    // a sealed set says beforehand what it needs
    Forged::of(&home, &home.path("tree")).write(&home.path("sets"));
    let scenario = home.sealed_scenario(&format!("source.url = \"file:../sets\"\n{small}")).to_str().unwrap().to_owned();
    let drilled = inconclusive(&home, &scenario, "scratch_full", &["scratch is full"]);
    assert_eq!(drilled.because("scratch_full")["check"], "preflight");
}

#[test]
fn a_drill_that_takes_too_long_is_ended() {
    let home = Home::new();
    home.bare_tree();
    let slow = "sandbox.time = \"2s\"\n[[check]]\nkind = \"command\"\ncommand = [\"sleep\", \"100\"]";
    let scenario = home.scenario(slow).to_str().unwrap().to_owned();
    let drilled = inconclusive(&home, &scenario, "sandbox_limit", &["time limit of 2s"]);
    assert_eq!(drilled.because("sandbox_limit")["limit"], "time");
}

#[test]
fn a_command_that_is_not_there_is_no_answer() {
    let home = Home::new();
    home.bare_tree();
    let scenario = home.scenario("check = [{ kind = \"command\", command = [\"no-such-program\"] }]").to_str().unwrap().to_owned();
    inconclusive(&home, &scenario, "could_not_run", &["could not be started"]);
}

#[test]
fn ctrl_c_destroys_the_sandbox_and_closes_the_drill() {
    for (signal, scratch) in [(Signal::INT, "tmpfs"), (Signal::TERM, "directory"), (Signal::HUP, "tmpfs")] {
        let home = Home::new();
        home.bare_tree();
        fs::create_dir(home.path("scratch")).unwrap();
        let place = if scratch == "directory" { "path = \"../scratch\"" } else { "" };
        let scenario = home.scenario(&format!(
            "[sandbox.scratch]\nkind = \"{scratch}\"\nsize = \"64MiB\"\n{place}\n\
             [[check]]\nkind = \"command\"\ncommand = [\"bash\", \"-c\", \"trap '' INT TERM HUP; sleep 600\"]"
        ));
        let runner = home.start(&["run", scenario.to_str().unwrap()]);
        let journals = home.path("state/drills");
        wait_until("the check runs", || {
            let journal = fs::read_dir(&journals)
                .into_iter()
                .flatten()
                .map(|e| e.unwrap().path())
                .find(|p| p.extension().is_some_and(|e| e == "jsonl"));
            journal.is_some_and(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("\"verify\"")))
        });
        kill_process(Pid::from_child(&runner), signal).unwrap();
        let drilled = home.drilled(said(runner.wait_with_output().unwrap())).ends("INCONCLUSIVE");
        drilled.blames_runner("interrupted", &[]);
        drilled.left_nothing();
        assert!(drilled.said.stderr.contains("destroying the sandbox"), "{}", drilled.said.stderr);
        assert_eq!(fs::read_dir(home.path("scratch")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&journals).unwrap().count(), 0, "nothing is left to close");
        assert!(home.fire(&["reap"]).exits(0).stdout.contains("nothing was left"));
    }
}

#[test]
fn a_drill_that_waits_for_a_silent_server_ends_when_it_is_told_to() {
    let home = Home::new();
    home.tree();
    let bucket = tokio::runtime::Runtime::new().unwrap().block_on(ceph().bucket(Locking::Off));
    let (url, endpoint, recipient) = (format!("s3://{bucket}/ehr/"), ceph().http(), home.recipient.clone());
    with_keys(&home, &["seal", "tree", "--to", &url, "--endpoint", &endpoint, "--allow-http", "-r", &recipient]).exits(0);
    for (fault, time, kind) in [(Fault::StallAfter(100_000), "1m", "interrupted"), (Fault::Reset, "3s", "sandbox_limit")] {
        let proxy = Proxy::start(ceph().http_port, vec![on(Method::GET, "data-00000", usize::MAX, fault)]);
        let source = format!("[source]\nurl = \"{url}\"\nendpoint = \"{}\"\nallow_http = true\n", proxy.url());
        let scenario = home.sealed_scenario(&format!("sandbox.time = \"{time}\"\n{source}"));
        let mut command = home.command(&["run", scenario.to_str().unwrap()]);
        command.env("AWS_ACCESS_KEY_ID", servers::ACCESS).env("AWS_SECRET_ACCESS_KEY", servers::SECRET);
        let runner = command.spawn().unwrap();
        wait_until("the restore waits", || proxy.log().iter().any(|line| line.contains("data-00000")));
        std::thread::sleep(std::time::Duration::from_millis(700));
        if kind == "interrupted" {
            kill_process(Pid::from_child(&runner), Signal::INT).unwrap();
        }
        let told = std::time::Instant::now();
        let drilled = home.drilled(said_of(runner)).ends("INCONCLUSIVE");
        assert!(told.elapsed() < std::time::Duration::from_secs(8), "{:?}", told.elapsed());
        drilled.blames_runner(kind, &[]);
        // what was read until then is in the evidence
        assert!(!drilled.report["backup"]["chain"]["objects"].as_array().unwrap().is_empty(), "{:#}", drilled.report["backup"]);
        drilled.left_nothing();
    }
}

#[test]
fn a_drill_that_lives_is_left_alone_by_others() {
    let home = Home::new();
    home.bare_tree();
    let slow = "[[check]]\nkind = \"command\"\ncommand = [\"bash\", \"-c\", \"sleep 3; echo done\"]\nstdout = \"done\"";
    let slow = home.named_scenario("slow", slow);
    let quick = home.scenario("");
    let runner = home.start(&["run", slow.to_str().unwrap()]);
    wait_until("the first drill stands", || fs::read_dir(home.path("state/sandboxes")).is_ok_and(|list| list.count() > 0));
    home.drill(&quick).ends("PASSED");
    assert!(home.fire(&["reap"]).exits(0).stdout.contains("nothing was left"));
    home.drilled(said_of(runner)).ends("PASSED");
    assert_eq!(home.evidence().len(), 2);
}

#[test]
fn nonsense_among_the_journals_stops_no_drill() {
    let home = Home::new();
    home.bare_tree();
    home.write("state/drills/nonsense.jsonl", "this is no event\n");
    home.write("state/drills/empty.jsonl", "");
    let old = std::fs::File::create(home.write("state/drills/old.lock", "")).unwrap();
    old.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(7_200)).unwrap();
    home.write("state/drills/young.lock", "");
    home.write("state/sandboxes/nonsense.json", "{");
    let drilled = home.drill(&home.scenario("")).ends("PASSED");
    assert!(drilled.said.stderr.contains("nonsense"), "{}", drilled.said.stderr);
    assert!(home.path("state/drills/nonsense.jsonl").exists(), "what is not understood is kept");
    assert!(!home.path("state/drills/empty.jsonl").exists());
    assert!(!home.path("state/drills/old.lock").exists() && home.path("state/drills/young.lock").exists());
    home.fire(&["reap"]).exits(1);
}

// ---- exit status 1: the backup, or what is promised of it -----------------------------------------------------------

#[track_caller]
fn failed(home: &Home, scenario: &Path, kind: &str, words: &[&str]) {
    let drilled = home.drill(scenario).ends("FAILED");
    drilled.blames_backup(kind, &[]);
    let flat = drilled.said.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(flat.contains(word), "stdout does not say `{word}`:\n{}", drilled.said.stdout);
    }
}

#[test]
fn no_recovery_point_and_an_empty_prefix_fail() {
    let home = Home::new();
    let scenario = home.scenario("");
    failed(&home, &scenario, "no_recovery_point", &["holds none under this prefix"]);
    home.fire(&["points", scenario.to_str().unwrap()]).exits(1).says(&["there is no recovery point", "try: check [source] url and points"]);
    home.fire(&["plan", scenario.to_str().unwrap()]).exits(1).says(&["try: `firedrill points`"]);
    // something is there, of another name
    home.bare("other.tar.zst.age", b"x");
    failed(&home, &scenario, "no_recovery_point", &["holds none under this prefix with this name pattern"]);
    let home = Home::new();
    failed(&home, &home.sealed_scenario(""), "no_recovery_point", &["holds none"]);
    // an empty prefix of a bucket that has a sibling
    let bucket = bucket(&["ehr-test/2026-11-20T0200.sql"]);
    let scenario = bucket_scenario(&home, &bucket, &ceph().http());
    let drilled = home.drilled(with_keys(&home, &["run", &scenario])).ends("FAILED");
    drilled.blames_backup("no_recovery_point", &[]);
}

#[test]
fn a_wrong_key_is_said_to_be_one() {
    let home = Home::new();
    home.bare_tree();
    home.other_key("wrong");
    let scenario = home.scenario("unlock.age_identities = [\"file:../keys/wrong.agekey\"]");
    failed(&home, &scenario, "no_matching_recipient", &["encrypted to other keys than the 1 at hand", "X25519"]);
    // no key at all
    let scenario = home.scenario("unlock.age_identities = []");
    failed(&home, &scenario, "no_matching_recipient", &["encrypted to other keys than the 0 at hand"]);
}

#[test]
fn a_passphrase_is_refused_with_advice() {
    let home = Home::new();
    home.tree();
    let object = format!("backups/{}", home.bare_name(1));
    // age asks at the terminal, so it gets one
    home.shell(&format!(
        "tar -C tree -czf plain.tar.gz .\n\
         python3 - <<'END'\nimport os, pty, sys, time\n\
         pid, fd = pty.fork()\n\
         if pid == 0: os.execvp('age', ['age', '-p', '-o', '{object}', 'plain.tar.gz'])\n\
         for _ in range(2):\n    while b':' not in os.read(fd, 1000): pass\n    time.sleep(0.2)\n    os.write(fd, b'correct horse\\n')\n\
         try:\n    while os.read(fd, 1000): pass\nexcept OSError: pass\n\
         sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\nEND"
    ));
    failed(&home, &home.scenario(""), "no_matching_recipient", &["encrypted with a passphrase", "encrypt to a recipient instead"]);
}

// ---- exit status 4: evidence could not be recorded ------------------------------------------------------------------

#[test]
fn an_evidence_store_that_cannot_be_written_is_said_before_anything_runs() {
    let home = Home::new();
    home.bare_tree();
    let scenario = home.scenario("");
    home.write("evidence", "a file where the store should be");
    let said = home.fire(&["run", scenario.to_str().unwrap()]).exits(4);
    said.says(&[
        "evidence could not be recorded, so nothing is claimed",
        "evidence",
        "because",
        "try: give the evidence store a directory",
    ]);
    assert!(fs::read_dir(home.path("state/drills")).is_err(), "no drill was begun");
    let said = home.fire(&["doctor"]).exits(1);
    assert!(said.stdout.contains("[evidence] store"), "{}", said.stdout);
}

#[test]
fn a_state_directory_that_cannot_be_written_is_said_before_anything_runs() {
    let home = Home::new();
    home.bare_tree();
    let scenario = home.scenario("");
    home.write("state", "a file where the state should be");
    let said = home.fire(&["run", scenario.to_str().unwrap()]).exits(4);
    said.says(&["state", "because", "try: give the runner a directory that this user can write"]);
    assert!(home.evidence().is_empty());
}

#[test]
fn a_drill_whose_evidence_cannot_be_sealed_is_sealed_by_the_next_start() {
    let home = Home::new();
    home.bare_tree();
    let scenario = home.scenario("");
    let year = home.hours_ago(0).0.strftime("%Y").to_string();
    home.write(&format!("evidence/{year}"), "in the way");
    let said = home.fire(&["run", scenario.to_str().unwrap()]).exits(4);
    said.says(&["could not be sealed", "its journal is kept", "then run `firedrill reap`"]);
    fs::remove_file(home.path(&format!("evidence/{year}"))).unwrap();
    let said = home.fire(&["--json", "reap"]).exits(0).json();
    assert_eq!(said["closed"].as_array().unwrap().len(), 1, "{said:#}");
    let report = home.look_at(&home.evidence()[0]);
    // the drill had ended: its verdict is the one it had
    assert_eq!(report["verdict"], "PASSED");
}

#[test]
fn a_signing_key_that_cannot_be_used_is_said_before_anything_runs() {
    let home = Home::new();
    home.bare_tree();
    let scenario = home.scenario("");
    home.write("firedrill.toml", "[evidence]\nsigning_key = \"keys/nowhere\"\n");
    let said = home.fire(&["run", scenario.to_str().unwrap()]).exits(4);
    said.says(&["the signing key cannot be used", "try: check [evidence] signing_key"]);
    assert!(home.evidence().is_empty());
}

// ---- exit status 0, and the other verbs -----------------------------------------------------------------------------

#[test]
fn every_verb_that_answers_answers_as_json() {
    let home = Home::new();
    home.bare_tree();
    let scenario = home.scenario("objectives = { rpo = \"24h\", rto = \"1h\" }");
    let scenario = scenario.to_str().unwrap();
    let run = home.fire(&["run", "--json", scenario]).exits(0).json();
    assert_eq!((&run[0]["verdict"], &run[0]["scenario"]), (&Value::from("PASSED"), &Value::from("records")));
    let evidence = run[0]["evidence"].as_str().unwrap();
    let points = home.fire(&["--json", "points", scenario]).exits(0).json();
    assert_eq!(points["points"][0]["captured_at"], serde_json::json!(home.hours_ago(1)));
    let plan = home.fire(&["plan", scenario, "--json"]).exits(0).json();
    assert!(plan[0]["steps"].as_array().unwrap().len() >= 4);
    let verify = home.fire(&["verify", "--json", "--trust", "evidence/allowed_signers", evidence]).exits(0).json();
    assert!(verify.to_string().contains("\"trusted\":true"), "{verify:#}");
    let doctor = home.fire(&["--json", "doctor", scenario]).json();
    assert!(doctor["promises"].as_array().unwrap().len() >= 6, "{doctor:#}");
    let reap = home.fire(&["--json", "reap"]).exits(0).json();
    assert_eq!(reap["reaped"], serde_json::json!([]));
    let seal = home.fire(&["--json", "seal", "tree", "--to", "sets", "-r", &home.recipient]).exits(0).json();
    assert_eq!(seal["objects"], 2, "{seal:#}");
    for of in ["scenario", "settings", "report"] {
        let schema = home.fire(&["schema", of]).exits(0).json();
        assert!(schema["$schema"].is_string(), "{of}");
    }
    // a failing drill answers as JSON too, and nothing else is on stdout
    home.bare(&home.bare_name(0), b"nonsense");
    assert_eq!(home.fire(&["run", "--json", scenario]).exits(1).json()[0]["verdict"], "FAILED");
}

#[test]
fn points_and_plan_answer_without_doing_anything() {
    let home = Home::new();
    let object = home.bare_tree();
    fs::copy(&object, object.with_file_name(home.bare_name(30))).unwrap();
    let scenario = home.scenario("");
    let scenario = scenario.to_str().unwrap();
    let points = home.fire(&["points", scenario]).exits(0).stdout;
    let lines: Vec<&str> = points.lines().collect();
    assert_eq!(lines.len(), 3, "{points}");
    assert!(lines[0].starts_with("captured") && lines[0].ends_with("id"), "{points}");
    assert!(lines[1].ends_with(&home.bare_name(1)) && lines[2].ends_with(&home.bare_name(30)), "newest first: {points}");
    let plan = home.fire(&["plan", scenario]).exits(0).stdout;
    for words in
        [&home.bare_name(1), "1. make a sandbox", "ask 1 checks: something is there", "warning: no objective is set", "nothing was done"]
    {
        assert!(plan.contains(words), "{plan}");
    }
    let plan = home.fire(&["plan", "--point", &home.bare_name(30), scenario]).exits(0).stdout;
    assert!(plan.contains(&home.bare_name(30)), "{plan}");
    assert!(home.evidence().is_empty() && !home.path("state").exists(), "nothing was done");
}

#[test]
fn a_recovery_point_is_selected_by_id_or_instant() {
    let home = Home::new();
    let object = home.bare_tree();
    fs::copy(&object, object.with_file_name(home.bare_name(30))).unwrap();
    let scenario = home.scenario("");
    let captured = |drilled: &Drilled| drilled.report["backup"]["point"]["captured_at"].clone();
    let drilled = home.drill_with(&scenario, &["--point", &home.bare_name(30), "--reason", "the auditor asked"]).ends("PASSED");
    assert_eq!(captured(&drilled), serde_json::json!(home.hours_ago(30)));
    assert!(drilled.report["plan"]["trigger"].to_string().contains("the auditor asked"));
    let as_of = home.hours_ago(10).to_string();
    let drilled = home.drill_with(&scenario, &["--as-of", &as_of]).ends("PASSED");
    assert_eq!(captured(&drilled), serde_json::json!(home.hours_ago(30)));
    let long_ago = home.hours_ago(100).to_string();
    home.drill_with(&scenario, &["--as-of", &long_ago])
        .ends("FAILED")
        .blames_backup("no_recovery_point", &[("detail", "none was captured")]);
    // a question about nothing says nothing
    home.drill_with(&scenario, &["--point", "no-such-id"])
        .ends("INCONCLUSIVE")
        .blames_runner("no_recovery_point", &[("detail", "firedrill points")]);
}

#[test]
fn seal_and_run_understand_each_other() {
    let home = Home::new();
    home.tree();
    home.producer("backup-host");
    let recipient = home.recipient.clone();
    let said = home.fire(&["seal", "tree", "--to", "backups", "--recipient", &recipient, "--sign", "keys/backup-host"]).exits(0);
    assert!(said.stdout.starts_with("sealed ") && said.stdout.contains("signed"), "{}", said.stdout);
    let trusted = "unlock.trusted_producers = [\"file:../keys/backup-host.pub\"]\nobjectives = { rpo = \"1h\", rto = \"10m\" }";
    let drilled = home.drill(&home.sealed_scenario(trusted)).ends("PASSED");
    assert_eq!(drilled.report["backup"]["point"]["captured_from"], "signed_manifest");
    assert!(drilled.findings().iter().all(|f| f["severity"] == "note"), "{:#?}", drilled.findings());
    // what the distribution's age and tar make of it is the same tree
    home.shell(
        "mkdir out; for part in backups/*/data-*.tar.zst.age; do age -d -i keys/records.agekey $part | zstd -dq; done | tar -C out -xpf -; \
         diff -r --no-dereference tree out",
    );
    // unsigned, from a stream
    fs::remove_dir_all(home.path("backups")).unwrap();
    let mut child = home.command(&["seal", "-", "--stdin-name", "dump.sql", "--to", "backups", "-r", &recipient]);
    let mut child = child.stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"-- a dump\nSELECT 1;\n").unwrap();
    said_of(child).exits(0);
    let check = "check = [{ kind = \"files\", path = \"dump.sql\", bytes = \"= 20\" }, { kind = \"manifest\" }]";
    home.drill(&home.sealed_scenario(check)).ends("PASSED");
    home.drill(&home.sealed_scenario(trusted)).ends("FAILED").blames_backup("untrusted_producer", &[]);
}

fn said_of(child: std::process::Child) -> Said {
    said(child.wait_with_output().unwrap())
}

#[test]
fn seal_refuses_what_is_no_backup() {
    let home = Home::new();
    home.tree();
    let recipient = home.recipient.clone();
    let secret = fs::read_to_string(home.path("keys/records.agekey")).unwrap().lines().last().unwrap().to_owned();
    home.fire(&["seal", "tree", "--to", "backups"]).exits(2).says(&["recipient"]);
    let said = home.fire(&["seal", "tree", "--to", "backups", "-r", &secret]).exits(2).says(&["secret key"]);
    assert!(!said.stderr.contains(&secret[20..]), "a secret was repeated");
    home.fire(&["seal", "tree", "--to", "backups", "-r", "age1nonsense"]).exits(2).says(&["age1nonsense"]);
    home.fire(&["seal", "tree", "--to", "ftp://x", "-r", &recipient]).exits(2);
    home.fire(&["seal", "tree", "--to", "backups", "-r", &recipient, "--lock", "compliance"]).exits(2).says(&["--lock-for"]);
    home.fire(&["seal", "tree", "--to", "backups", "-r", &recipient, "--lock", "compliance", "--lock-for", "1d"]).exits(2).says(&["lock"]);
    home.fire(&["seal", "nowhere", "--to", "backups", "-r", &recipient]).exits(1).says(&["nowhere"]);
    fs::create_dir(home.path("nothing")).unwrap();
    home.fire(&["seal", "nothing", "--to", "backups", "-r", &recipient]).exits(2).says(&["nothing to seal"]);
    home.fire(&["seal", "-", "--to", "backups", "-r", &recipient]).exits(2).says(&["nothing to seal"]);
    home.fire(&["seal", "tree", "--to", "backups", "-r", &recipient, "--captured-at", "2100-01-01T00:00:00Z"]).exits(2).says(&["future"]);
    assert_eq!(fs::read_dir(home.path("backups")).unwrap().count(), 0, "nothing is left of any of them");
}

#[test]
fn a_sealed_set_in_a_bucket_is_drilled_with_its_locks() {
    let home = Home::new();
    home.tree();
    let bucket = tokio::runtime::Runtime::new().unwrap().block_on(ceph().bucket(Locking::On));
    let (url, endpoint) = (format!("s3://{bucket}/ehr/"), ceph().http());
    let recipient = home.recipient.clone();
    let locked = ["--lock", "compliance", "--lock-for", "1h"];
    let args = ["seal", "tree", "--to", &url, "--endpoint", &endpoint, "--allow-http", "-r", &recipient];
    with_keys(&home, &[&args[..], &locked].concat()).exits(0);
    let overlay = |remaining: &str| {
        format!(
            "[source]\nurl = \"{url}\"\nendpoint = \"{endpoint}\"\nallow_http = true\n\
             policy.lock = {{ mode = \"compliance\", remaining = \"{remaining}\" }}"
        )
    };
    let run = |overlay: &str| home.drilled(with_keys(&home, &["run", home.sealed_scenario(overlay).to_str().unwrap()]));
    let drilled = run(&overlay("30m")).ends("PASSED");
    let objects = drilled.report["backup"]["chain"]["objects"].as_array().unwrap();
    assert_eq!(objects.len(), 3, "{objects:#?}");
    for object in objects {
        assert_eq!(object["lock"]["state"], "locked", "{object:#}");
        assert!(object["version"].is_string(), "{object:#}");
    }
    // over TLS with a private authority, the evidence has the version that was spoken
    let tls = overlay("30m")
        .replace(&endpoint, &ceph().https())
        .replace("allow_http = true", &format!("ca_file = \"{}\"", ceph().ca_file().display()));
    let transport = run(&tls).ends("PASSED").report["backup"]["transport"].clone();
    assert_eq!((&transport["encrypted"], &transport["tls_version"]), (&true.into(), &"TLSv1.3".into()), "{transport:#}");
    assert!(transport["server_certificate"].is_string(), "{transport:#}");
    // a server that stumbles is asked again; one that delivers other bytes is found out
    let through = |fault: Fault, times: usize| {
        let proxy = Proxy::start(ceph().http_port, vec![on(Method::GET, "data-00000", times, fault)]);
        let output = run(&overlay("30m").replace(&endpoint, &proxy.url()));
        assert!(proxy.log().iter().any(|line| line.contains("data-00000")));
        output
    };
    for fault in [Fault::SlowDown(1), Fault::Reset, Fault::CutAfter(100_000), Fault::Answer(500, "InternalError")] {
        through(fault, 1).ends("PASSED");
    }
    let flipped = through(Fault::Corrupt(150_000), usize::MAX).ends("FAILED");
    flipped.blames_backup("object_damaged", &[("layer", "age"), ("object", "object-")]);
    // policy asks for more than the locks have left
    let drilled = run(&overlay("30d")).ends("FAILED");
    drilled.blames_backup("lock_too_short", &[("object", "object-")]);
    assert_eq!(drilled.findings().iter().filter(|f| f["finding"] == "lock_too_short").count(), 3);
    // and a set beside it that nobody locked
    let other = format!("s3://{bucket}/unlocked/");
    let args = ["seal", "tree", "--to", &other, "--endpoint", &endpoint, "--allow-http", "-r", &recipient];
    with_keys(&home, &args).exits(0);
    let unlocked = overlay("30m").replace("/ehr/", "/unlocked/");
    run(&unlocked).ends("FAILED").blames_backup("not_locked", &[("required", "compliance")]);
}

#[test]
fn init_makes_what_runs_and_overwrites_nothing() {
    let home = Home::new();
    home.tree();
    let url = format!("file://{}", home.path("backups").display());
    let said = home.fire(&["init", "site", "--yes", "--name", "ehr", "--system", "Electronic health records", "--url", &url]).exits(0);
    let made = home.path("site");
    for file in ["keys/signing", "keys/producer", "keys/ehr.agekey"] {
        assert_eq!(fs::metadata(made.join(file)).unwrap().permissions().mode() & 0o077, 0, "{file} can be read by others");
    }
    // the commands that it prints are the ones that work
    let line =
        |word: &str| said.stdout.lines().find_map(|l| l.split_once(word)).map(|(_, rest)| format!("firedrill {}", rest.trim())).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_firedrill")).parent().unwrap().display().to_string();
    let script = [
        line("back up:    firedrill").replace("DATA", "tree"),
        line("look:       firedrill"),
        line("drill:      firedrill"),
        line("verify:     firedrill"),
    ];
    let output = home.shell(&format!(
        "export PATH={binary}:$PATH FIREDRILL_STATE=$PWD/state; {}",
        script.join("; ").replace("firedrill ;", "firedrill;")
    ));
    let output = String::from_utf8(output).unwrap();
    assert!(output.contains("PASSED") && output.contains("TRUSTED"), "{output}");
    // a second time it refuses
    home.fire(&["init", "site", "--yes", "--name", "ehr"]).exits(2).says(&["is there already", "nothing is ever overwritten"]);
}

#[test]
fn the_demo_explains_itself_and_its_evidence_verifies() {
    let home = Home::new();
    let output = home.command(&["demo", "--out", "demo"]).env_remove("HOME").output().unwrap();
    let said = said(output).exits(0);
    assert!(said.stdout.contains("PASSED"), "{}", said.stdout);
    assert!(said.stdout.lines().count() < 50, "more than a screen:\n{}", said.stdout);
    home.fire(&["verify", "--trust", "demo/allowed_signers", "demo/evidence"]).exits(0);
    // whoever does not have the key in his trust file does not trust it
    home.producer("stranger");
    let stranger = fs::read_to_string(home.path("keys/stranger.pub")).unwrap();
    home.write("trust", format!("auditor {stranger}"));
    home.fire(&["verify", "--trust", "trust", "demo/evidence"]).exits(1);
    let report = home.shell("find demo/evidence -name report.json");
    let report = home.path(String::from_utf8(report).unwrap().trim());
    let mut bytes = fs::read(&report).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&report, bytes).unwrap();
    home.fire(&["verify", "--trust", "demo/allowed_signers", "demo/evidence"]).exits(1);
}

#[test]
fn completions_and_manual_pages_are_made() {
    let home = Home::new();
    for (shell, words) in [("bash", "complete -F"), ("zsh", "#compdef firedrill"), ("fish", "complete -c firedrill")] {
        let script = home.fire(&["completions", shell]).exits(0).stdout;
        assert!(script.contains(words) && script.contains("trust"), "{shell}");
    }
    home.fire(&["man", "man"]).exits(0);
    for page in ["firedrill.1", "firedrill-run.1", "firedrill-verify.1", "firedrill-seal.1"] {
        let text = fs::read_to_string(home.path("man").join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
}

#[test]
fn the_doctor_tells_what_this_host_can_promise() {
    let home = Home::new();
    home.bare_tree();
    let scenario = home.scenario("");
    let said = home.fire(&["doctor", scenario.to_str().unwrap()]);
    assert!([0, 1].contains(&said.code), "{}", said.stderr);
    for words in ["sandbox", "network", "evidence", "signing key", "scenario records", "recovery points", "settings"] {
        assert!(said.stdout.contains(words), "{words}:\n{}", said.stdout);
    }
    // a key that is not there is seen
    let scenario = home.scenario("unlock.age_identities = [\"file:../keys/lost.agekey\"]");
    let said = home.fire(&["doctor", scenario.to_str().unwrap()]).exits(1);
    assert!(said.stdout.contains("lost.agekey"), "{}", said.stdout);
}
