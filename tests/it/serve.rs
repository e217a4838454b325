//! The real daemon, with schedules of seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use firedrill::domain::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::drills::{Home, said};
use crate::recipes::Vault;
use crate::sandbox::processes_with;
use crate::servers::{self, Locking};

fn every(seconds: u64) -> String {
    format!("schedule = {{ cron = \"@every {seconds}s\" }}")
}

impl Home {
    /// Starts the daemon, with credentials of the S3 server.
    fn serve(&self) -> Daemon {
        let mut command = self.command(&["serve"]);
        command.envs([("AWS_ACCESS_KEY_ID", servers::ACCESS), ("AWS_SECRET_ACCESS_KEY", servers::SECRET)]);
        Daemon::start(command)
    }

    /// Waits, and where that is in vain shows how everything stands.
    #[track_caller]
    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !holds() {
            let long = begin.elapsed() > Duration::from_secs(60);
            assert!(!long, "waited in vain until {what}\n{:#}\n{:#?}", self.status(), self.ledger());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn ledger(&self) -> Vec<Value> {
        let shown = self.fire(&["ledger", "show", "--json"]).exits(0).stdout;
        shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn of_kind(&self, kind: &str) -> Vec<Value> {
        self.ledger().iter().filter_map(|entry| entry["entry"].get(kind).cloned()).collect()
    }

    fn status(&self) -> Value {
        self.fire(&["status", "--json"]).exits(0).json()
    }

    fn stand(&self, name: &str) -> Value {
        let status = self.status();
        status["scenarios"].as_array().unwrap().iter().find(|stand| stand["name"] == name).cloned().unwrap_or_default()
    }
}

/// A daemon, which ends with the test that started it.
pub(crate) struct Daemon(Option<Child>);

impl Daemon {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(Some(command.spawn().unwrap()))
    }

    /// Tells it to end, as systemd does.
    #[track_caller]
    fn stop(mut self) {
        let child = self.0.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        said(child.wait_with_output().unwrap()).exits(0);
    }

    #[track_caller]
    pub(crate) fn stop_when_it_keeps(self, home: &Home) {
        home.until("the schedules are kept", || home.status()["keeper"].is_string());
        self.stop();
    }

    fn kill(mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        drop(said(child.wait_with_output().unwrap()));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn unix(time: &Value) -> i64 {
    time.as_str().unwrap().parse::<Timestamp>().unwrap().0.as_second()
}

/// What was due, by scenario, each once: in the order of the entries that account for it.
#[track_caller]
fn accounted(ledger: &[Value]) -> BTreeMap<String, Vec<i64>> {
    let mut dues: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for entry in ledger.iter().map(|entry| &entry["entry"]) {
        let (scenario, due) = if let Some(started) = entry.get("drill_started") {
            let scheduled = &started["plan"]["trigger"]["scheduled"];
            if scheduled.is_null() || scheduled["attempt"].as_u64().unwrap_or(0) > 0 {
                continue;
            }
            (&started["plan"]["scenario"], &scheduled["due"])
        } else if let Some(settled) = entry.get("missed").or(entry.get("waived")) {
            (&settled["scenario"], &settled["due"])
        } else {
            continue;
        };
        dues.entry(scenario.as_str().unwrap().to_owned()).or_default().push(unix(due));
    }
    dues
}

/// Every occurrence from the first to the last, once and in order.
#[track_caller]
fn none_lost_or_doubled(ledger: &[Value], every: i64) {
    for (scenario, dues) in accounted(ledger) {
        for pair in dues.windows(2) {
            assert_eq!(pair[1] - pair[0], every, "{scenario}: {pair:?} of {dues:?}");
        }
    }
}

/// Every drill that was started has one end, and evidence where it says how it ended.
#[track_caller]
fn every_drill_ended(home: &Home, ledger: &[Value]) {
    let drills = |kind: &str| -> Vec<&str> {
        ledger.iter().filter_map(|entry| entry["entry"].get(kind)).map(|told| told["drill"].as_str().unwrap()).collect()
    };
    let (started, mut ended) = (drills("drill_started"), drills("drill_finished"));
    let evidence: BTreeSet<String> = home.evidence().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(evidence, ended.iter().map(|drill| (*drill).to_owned()).collect(), "evidence of every drill that ended, and of no other");
    let unique: BTreeSet<&str> = ended.iter().copied().collect();
    assert_eq!(unique.len(), ended.len(), "a drill ended twice: {ended:?}");
    // one that died before it recorded anything has no evidence
    ended.extend(drills("interrupted"));
    assert_eq!(ended.into_iter().collect::<BTreeSet<_>>(), started.into_iter().collect(), "drills that started, and drills that ended");
}

fn sandboxes(home: &Home) -> usize {
    fs::read_dir(home.path("state/sandboxes")).map_or(0, |entries| {
        entries.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "json")).count()
    })
}

#[test]
fn a_daemon_killed_twenty_times_loses_and_doubles_nothing() {
    let home = Home::new();
    let object = home.bare_tree();
    let vault = Vault::new(&home, Locking::On);
    vault.write(&format!("records/{}", object.file_name().unwrap().to_str().unwrap()), &fs::read(&object).unwrap());
    let place = toml::to_string(&BTreeMap::from_iter(vault.place("records"))).unwrap();
    for name in ["one", "two", "three"] {
        // what is killed is tried again, by a later start of the daemon
        let schedule = "schedule = { cron = \"@every 2s\", retry = { attempts = 1, after = \"1s\" } }";
        home.named_scenario(name, &format!("{schedule}\n[source]\n{place}"));
    }
    let mut seed = 20_261_126_u64;
    let mut killed_while_drilling = 0;
    for round in 0..20 {
        let daemon = home.serve();
        // half of them while it starts, half of them from when it drills
        if round % 2 == 1 {
            home.until("a sandbox stands", || sandboxes(&home) > 0);
        }
        // xorshift64: the same instants in every run, as far as the machine allows
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        std::thread::sleep(Duration::from_millis(seed % if round % 2 == 1 { 400 } else { 2_000 }));
        killed_while_drilling += usize::from(sandboxes(&home) > 0);
        daemon.kill();
    }
    assert!(killed_while_drilling > 0, "no kill hit a drill: this proved nothing");
    let daemon = home.serve();
    let passed = |name: &str| home.stand(name)["last"]["verdict"] == "PASSED";
    home.until("every scenario passed once more", || ["one", "two", "three"].into_iter().all(passed));
    daemon.stop();
    let ledger = home.ledger();
    none_lost_or_doubled(&ledger, 2);
    every_drill_ended(&home, &ledger);
    assert_eq!(accounted(&ledger).len(), 3);
    assert!(!home.of_kind("interrupted").is_empty() || ledger.iter().any(|e| e["entry"]["drill_finished"]["verdict"] == "INCONCLUSIVE"));
    // the log, and all evidence against it
    home.fire(&["verify", "evidence", "--trust", "evidence/allowed_signers"]).exits(0);
    assert_eq!(sandboxes(&home), 0);
    let left = fs::read_dir(home.path("state/drills")).unwrap().map(|entry| entry.unwrap().path());
    // the lock of one that was killed between its journal and its lock stays for an hour
    assert_eq!(left.filter(|path| path.extension().is_none_or(|extension| extension != "lock")).count(), 0, "no journal is left");
    assert!(home.fire(&["reap"]).exits(0).stdout.contains("nothing was left"));
    assert!(processes_with(home.root().to_str().unwrap()).is_empty(), "no process is left");
}

#[test]
fn one_daemon_keeps_a_ledger_and_one_a_state() {
    let home = Home::new();
    home.bare_tree();
    let first = home.serve();
    home.until("the first keeps the schedules", || home.status()["keeper"].is_string());
    home.fire(&["serve"]).exits(3).says(&["another firedrill keeps these schedules", "leave it to that one"]);
    home.fire(&["run", "--due"]).exits(3).says(&["another firedrill"]);
    // the same ledger with another state, and the same state with another ledger
    let other_state = |args: &[&str]| {
        let binary = home.command(&[]).get_program().to_owned();
        said(Command::new(binary).current_dir(home.root()).args(args).output().unwrap())
    };
    other_state(&["--state", "other", "--evidence", "evidence", "serve"]).exits(3).says(&["another firedrill", "ledger/serve.lock"]);
    other_state(&["--state", "state", "--evidence", "other", "serve"]).exits(3).says(&["another firedrill", "state/serve.lock"]);
    home.fire(&["state", "rebuild"]).exits(3).says(&["another firedrill"]);
    first.stop();
    assert!(home.status()["keeper"].is_null());
    home.serve().stop_when_it_keeps(&home);
}

#[test]
fn a_file_that_breaks_while_the_daemon_runs_stops_no_other_and_is_shown() {
    let home = Home::new();
    home.bare_tree();
    home.named_scenario("sound", &every(2));
    let breaking = home.named_scenario("breaking", &every(2));
    let daemon = home.serve();
    home.until("both were drilled", || !home.stand("sound")["last"].is_null() && !home.stand("breaking")["last"].is_null());
    let good = fs::read(&breaking).unwrap();
    fs::write(&breaking, "name = \"breaking\"\nsource = nonsense\n").unwrap();
    let drills = || home.of_kind("drill_started").iter().filter(|d| d["plan"]["scenario"] == "sound").count();
    let before = drills();
    home.until("the sound one was drilled twice more", || drills() > before + 1);
    let status = home.status();
    assert!(status["broken"][0]["path"].as_str().unwrap().ends_with("breaking.toml"), "{status:#}");
    assert!(home.fire(&["status"]).exits(0).stdout.contains("CANNOT BE USED"));
    assert!(home.of_kind("scenario_gone").is_empty(), "a file with a mistake is not gone");
    // what fell due meanwhile is accounted for when it is whole again
    fs::write(&breaking, good).unwrap();
    let last = unix(&home.stand("breaking")["last"]["at"]);
    home.until("it is drilled again", || unix(&home.stand("breaking")["last"]["at"]) > last);
    // and when its file goes, that is entered
    fs::remove_file(&breaking).unwrap();
    home.until("it is entered as gone", || home.of_kind("scenario_gone").len() == 1);
    daemon.stop();
    none_lost_or_doubled(&home.ledger(), 2);
}

#[test]
fn a_schedule_that_changes_counts_from_then_and_what_was_due_before_is_settled() {
    let home = Home::new();
    home.bare_tree();
    let path = home.named_scenario("records", "schedule = { cron = \"0 0 1 1 *\" }");
    let daemon = home.serve();
    home.until("it is seen", || home.stand("records")["kept"] == true);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("0 0 1 1 *", "@every 2s")).unwrap();
    home.until("it is drilled", || !home.stand("records")["last"].is_null());
    daemon.stop();
    assert_eq!(home.of_kind("scenario_seen").len(), 2);
    none_lost_or_doubled(&home.ledger(), 2);
}

#[test]
fn what_people_decide_is_entered_with_who_and_why() {
    let home = Home::new();
    home.bare_tree();
    home.named_scenario("records", &every(2));
    home.named_scenario("yearly", "schedule = { cron = \"0 0 1 1 *\", time_zone = \"America/Chicago\" }");
    home.fire(&["pause", "nobody", "--reason", "x"]).exits(2).says(&["no scenario is called nobody", "firedrill status"]);
    home.fire(&["resume", "records"]).exits(2).says(&["is not paused"]);
    home.fire(&["waive", "yearly", "--reason", "x"]).exits(2).says(&["never due", "let a runner see it"]);
    home.fire(&["pause", "records", "--reason", "x", "--until", "2020-01-01T00:00:00Z"]).exits(2).says(&["has been"]);
    home.fire(&["pause", "records", "--reason", "the storage moves"]).exits(0);
    let daemon = home.serve();
    home.until("two are waived", || home.of_kind("waived").len() > 1);
    assert!(home.of_kind("drill_started").is_empty());
    assert!(home.of_kind("waived").iter().all(|waived| waived["reason"] == "the storage moves"));
    let stand = home.stand("records");
    assert!(stand["paused"]["by"].as_str().unwrap().contains("uid"), "{stand:#}");
    assert!(home.fire(&["status"]).stdout.contains("PAUSED until resumed"));
    home.fire(&["resume", "records"]).exits(0);
    home.until("it is drilled", || !home.stand("records")["last"].is_null());
    // the one that is due next year alone
    let due = home.stand("yearly")["due"].clone();
    home.fire(&["waive", "yearly", "--reason", "the hospital is closed"]).exits(0);
    let after = home.stand("yearly")["due"].clone();
    assert!((364..=367).contains(&((unix(&after) - unix(&due)) / 86_400)), "{due} {after}");
    daemon.stop();
    let waived = home.of_kind("waived");
    assert!(waived.iter().any(|w| w["due"] == due && w["scenario"] == "yearly"), "{waived:#?}");
    none_lost_or_doubled(&home.ledger(), 2);
}

#[test]
fn those_who_let_others_keep_time_run_what_is_due() {
    let home = Home::new();
    home.bare_tree();
    let path = home.named_scenario("records", &every(2));
    assert!(home.fire(&["run", "--due"]).exits(0).stdout.contains("nothing is due"), "a schedule counts from when it is seen");
    std::thread::sleep(Duration::from_secs(3));
    let ran = home.fire(&["run", "--due"]).exits(0);
    assert!(ran.stdout.contains("PASSED"), "{}", ran.stdout);
    home.drilled(ran);
    // how it ended is the exit status
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"**\"", "\"nothing is called so\"")).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    home.fire(&["run", "--due", "--json"]).exits(1);
    // a file with a mistake is no silence
    home.write("scenarios/broken.toml", "name =");
    home.fire(&["run", "--due"]).exits(2).says(&["broken.toml", "is not drilled"]);
    home.fire(&["run", "--due", "records"]).exits(2);
    home.fire(&["run", "--every", "1h", "records"]).exits(2);
    none_lost_or_doubled(&home.ledger(), 2);
}

#[test]
fn a_ledger_that_was_replaced_or_shortened_is_refused_at_the_next_start() {
    let home = Home::new();
    home.bare_tree();
    home.named_scenario("records", &every(2));
    let daemon = home.serve();
    home.until("it is drilled", || !home.stand("records")["last"].is_null());
    let (ledger, kept) = (home.path("evidence/ledger"), home.path("kept"));
    copy(&ledger, &kept);
    home.until("it is drilled again", || home.of_kind("drill_finished").len() > 2);
    daemon.stop();
    let whole = home.path("whole");
    copy(&ledger, &whole);
    // shortened to what it was before
    copy(&kept, &ledger);
    let refused = home.fire(&["serve"]).exits(4);
    refused.says(&["the ledger does not go on from where it was", "firedrill state rebuild"]);
    home.fire(&["run", "--due"]).exits(4).says(&["the ledger does not go on"]);
    // replaced by a new one, of the same key
    fs::remove_dir_all(&ledger).unwrap();
    home.fire(&["run", "records"]).exits(0);
    home.fire(&["serve"]).exits(4).says(&["the ledger does not go on"]);
    // the old one is taken, and a new one only on purpose
    copy(&whole, &ledger);
    home.serve().stop_when_it_keeps(&home);
    copy(&kept, &ledger);
    assert!(home.fire(&["state", "rebuild"]).exits(0).stdout.contains("taken up anew"));
    home.serve().stop_when_it_keeps(&home);
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn what_is_remembered_can_be_made_anew() {
    let home = Home::new();
    home.bare_tree();
    home.named_scenario("records", &every(2));
    home.named_scenario("other", &every(2));
    let daemon = home.serve();
    home.until("both were drilled", || home.of_kind("drill_finished").len() > 2);
    daemon.stop();
    let before = home.status();
    fs::write(home.path("state/state.sqlite"), "this is no database").unwrap();
    home.fire(&["serve"]).exits(4).says(&["state.sqlite", "nothing is lost", "firedrill state rebuild"]);
    home.fire(&["state", "rebuild"]).exits(0);
    assert_eq!(home.status(), before);
    fs::remove_file(home.path("state/state.sqlite")).unwrap();
    assert_eq!(home.status(), before, "without it, the ledger is asked");
    home.serve().stop_when_it_keeps(&home);
    none_lost_or_doubled(&home.ledger(), 2);
}

#[test]
fn a_drill_without_a_result_is_tried_again() {
    let home = Home::new();
    // nobody listens there
    let away = "[source]\nurl = \"s3://bucket/records/\"\nendpoint = \"http://127.0.0.1:9\"\nallow_http = true";
    home.named_scenario("away", &format!("schedule = {{ cron = \"0 0 1 1 *\", retry = {{ attempts = 2, after = \"1s\" }} }}\n{away}"));
    let daemon = home.serve();
    home.until("it is seen", || home.stand("away")["kept"] == true);
    daemon.stop();
    let text = fs::read_to_string(home.path("scenarios/away.toml")).unwrap();
    fs::write(home.path("scenarios/away.toml"), text.replace("0 0 1 1 *", "@every 30s")).unwrap();
    let daemon = home.serve();
    let begin = Instant::now();
    let tries = || -> Vec<u64> {
        let started = home.of_kind("drill_started");
        started.iter().map(|d| d["plan"]["trigger"]["scheduled"]["attempt"].as_u64().unwrap_or(0)).collect()
    };
    while tries().len() < 3 {
        assert!(begin.elapsed() < Duration::from_secs(120), "{:?}", tries());
        std::thread::sleep(Duration::from_millis(200));
    }
    daemon.stop();
    assert_eq!(tries()[..3], [0, 1, 2]);
    let dues: BTreeSet<String> =
        home.of_kind("drill_started")[..3].iter().map(|d| d["plan"]["trigger"]["scheduled"]["due"].to_string()).collect();
    assert_eq!(dues.len(), 1, "all for the same occurrence");
}

#[test]
fn a_daemon_that_is_told_to_end_ends_its_drills_in_order() {
    let home = Home::new();
    home.bare_tree();
    let slow = "[[check]]\nkind = \"command\"\ncommand = [\"bash\", \"-c\", \"sleep 20\"]\nstdout = \"\"";
    home.named_scenario("slow", &format!("{}\n{slow}", every(2)));
    let daemon = home.serve();
    home.until("a sandbox stands", || sandboxes(&home) == 1);
    let begin = Instant::now();
    daemon.stop();
    assert!(begin.elapsed() < Duration::from_secs(15), "it did not wait for the drill");
    assert_eq!(home.stand("slow")["last"]["verdict"], "INCONCLUSIVE");
    every_drill_ended(&home, &home.ledger());
    assert_eq!(sandboxes(&home), 0);
}

#[test]
fn the_daemon_carries_the_ledger_to_its_anchors() {
    let home = Home::new();
    home.bare_tree();
    home.named_scenario("records", &every(2));
    fs::create_dir(home.path("elsewhere")).unwrap();
    home.write("firedrill.toml", "[[ledger.anchor]]\nname = \"elsewhere\"\ndirectory = \"elsewhere\"\n");
    let daemon = home.serve();
    home.until("it is drilled", || !home.stand("records")["last"].is_null());
    daemon.stop();
    let daemon = home.serve();
    home.until("the ledger is anchored", || !home.of_kind("anchored").is_empty());
    daemon.stop();
    assert!(fs::read_dir(home.path("elsewhere")).unwrap().count() > 0);
    home.fire(&["ledger", "verify", "--anchors", "--trust", "evidence/allowed_signers"]).exits(0);
}
