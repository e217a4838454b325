//! The ledger through the real binary: what is entered of drills, what tampering with the store comes to, and runners that die.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::drills::{Home, Said, said};
use crate::lies::sandbox::wait_until;
use crate::sandbox::is_root;

const TRUST: &str = "evidence/allowed_signers";

/// A home with a backup that restores, and a scenario for it.
fn home() -> (Home, PathBuf) {
    let home = Home::new();
    home.bare_tree();
    let scenario = home.scenario("");
    (home, scenario)
}

fn verify(home: &Home, flags: &[&str]) -> Said {
    home.fire(&[&["verify", "--trust", TRUST, "evidence"], flags].concat())
}

fn entries(home: &Home) -> Vec<Value> {
    let said = home.fire(&["ledger", "show", "--json"]).exits(0);
    said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kinds(home: &Home) -> Vec<String> {
    let kind = |entry: &Value| entry["entry"].as_object().unwrap().keys().next().unwrap().clone();
    entries(home).iter().map(kind).collect()
}

#[test]
fn a_drill_is_entered_before_it_starts_and_when_it_has_ended() {
    let (home, scenario) = home();
    let passed = home.drill(&scenario).ends("PASSED");
    let failing = home.named_scenario("failing", "[objectives]\nrpo = \"1m\"");
    let failed = home.drill_with(&failing, &["--reason", "before the migration"]).ends("FAILED");
    assert_eq!(kinds(&home), ["opened", "drill_started", "drill_finished", "drill_started", "drill_finished"]);
    let entries = entries(&home);
    let (before, after) = (&entries[3]["entry"]["drill_started"], &entries[4]["entry"]["drill_finished"]);
    assert_eq!(before["plan"], failed.report["plan"], "scenario, objectives and criteria are fixed before");
    assert_eq!((&after["drill"], &after["verdict"]), (&failed.report["report_id"], &"FAILED".into()));
    assert!(passed.evidence.join("entered.tlog-proof").is_file());
    let of_one = home.fire(&["ledger", "show", "--scenario", "failing"]).exits(0).stdout;
    assert!(of_one.lines().count() == 2 && of_one.contains("before the migration"), "{of_one}");
    let whole = verify(&home, &[]).exits(0);
    assert!(whole.stdout.contains("TRUSTED  the ledger") && whole.stdout.contains("of 2 drills (1 failed)"), "{}", whole.stdout);
    let json = verify(&home, &["--json"]).json();
    assert_eq!((&json[2]["entries"], &json[2]["anchors"], &json[2]["trusted"]), (&5.into(), &2.into(), &true.into()));
    home.fire(&["ledger", "verify", "--trust", TRUST]).exits(0);
    // one report alone says that it was entered, and nothing of others
    home.fire(&["verify", "--trust", TRUST, passed.evidence.to_str().unwrap()]).exits(0);
}

/// Lie 41: a failed drill is deleted, and a green one kept instead.
#[test]
fn a_failed_drill_that_is_deleted_leaves_a_gap_that_is_seen() {
    let (home, scenario) = home();
    let failing = home.named_scenario("records2", "[objectives]\nrpo = \"1m\"");
    let failed = home.drill(&failing).ends("FAILED");
    let kept = home.drill(&scenario).ends("PASSED");
    fs::rename(&failed.evidence, home.path("hidden")).unwrap();
    let id = failed.report["report_id"].as_str().unwrap();
    let said = verify(&home, &[]).exits(1);
    assert!(said.stdout.contains(&format!("the evidence of drill {id} is gone, which ended FAILED")), "{}", said.stdout);
    // taken out of the log as well: the reports that are left know better
    let lines = fs::read_to_string(home.path("evidence/ledger/entries.jsonl")).unwrap();
    let shorter: String = lines.lines().filter(|line| !line.contains(id)).map(|line| format!("{line}\n")).collect();
    fs::write(home.path("evidence/ledger/entries.jsonl"), shorter).unwrap();
    let said = verify(&home, &[]).exits(1);
    assert!(said.stdout.contains("the log was shortened"), "{}", said.stdout);
    // and no drill goes on upon it: nothing is claimed, nothing restored
    let refused = home.fire(&["run", scenario.to_str().unwrap()]).exits(4).says(&["damaged or was touched", "ledger verify"]);
    assert!(refused.stdout.is_empty(), "{}", refused.stdout);
    fs::write(home.path("evidence/ledger/entries.jsonl"), lines).unwrap();
    fs::rename(home.path("hidden"), &failed.evidence).unwrap();
    verify(&home, &[]).exits(0);
    fs::remove_dir_all(&kept.evidence).unwrap();
    let said = verify(&home, &[]).exits(1);
    assert!(said.stdout.contains("which ended PASSED"), "{}", said.stdout);
    // evidence that was entered elsewhere is none either
    home.shell("printf '[ledger]\\ndirectory = \"elsewhere\"\\n' > firedrill.toml");
    let other = home.drill(&scenario).ends("PASSED");
    let said = verify(&home, &[]).exits(1);
    let id = other.report["report_id"].as_str().unwrap();
    assert!(said.stdout.contains(&format!("the checkpoint in report {id} is of another log")), "{}", said.stdout);
}

/// Lie 42: the whole log is replaced by another one that is signed and whole.
#[test]
fn a_log_that_was_replaced_is_seen_from_any_report_or_checkpoint_kept_elsewhere() {
    let (home, scenario) = home();
    home.drill(&scenario).ends("PASSED");
    let checkpoint = home.fire(&["ledger", "checkpoint"]).exits(0).stdout;
    fs::write(home.path("kept"), &checkpoint).unwrap();
    home.fire(&["ledger", "verify", "--trust", TRUST, "--anchor", "kept"]).exits(0);
    fs::rename(home.path("evidence/ledger"), home.path("old")).unwrap();
    let alone = verify(&home, &[]).exits(0);
    assert!(alone.stdout.contains("no ledger is here"), "{}", alone.stdout);
    home.drill(&scenario).ends("PASSED");
    let said = verify(&home, &[]).exits(1);
    assert!(said.stdout.contains("the checkpoint in report") && said.stdout.contains("of another log"), "{}", said.stdout);
    let said = home.fire(&["ledger", "verify", "--trust", TRUST, "--anchor", "kept"]).exits(1);
    assert!(said.stdout.contains("kept is of another log"), "{}", said.stdout);
    home.fire(&["ledger", "verify", "--trust", TRUST, "--anchor", "absent"]).exits(2).says(&["cannot read the anchor"]);
}

#[test]
fn python_that_knows_nothing_of_firedrill_verifies_ledger_and_proofs() {
    let (home, scenario) = home();
    let python = said(Command::new("tests/servers/python-setup.sh").output().unwrap()).exits(0).stdout;
    let drilled: Vec<_> = (0..3).map(|_| home.drill(&scenario).ends("PASSED")).collect();
    let mut proofs: Vec<PathBuf> = drilled.iter().map(|d| d.evidence.join("entered.tlog-proof")).collect();
    for index in 0..7 {
        let proof = home.path(&format!("{index}.tlog-proof"));
        fs::write(&proof, home.fire(&["ledger", "prove", &index.to_string()]).exits(0).stdout).unwrap();
        proofs.push(proof);
    }
    let pem = drilled[0].evidence.join("signer.pub.pem");
    let check = |proofs: &[PathBuf]| {
        let mut command = Command::new(python.trim());
        said(command.arg("tests/servers/verify-ledger.py").arg(home.path("evidence/ledger")).arg(&pem).args(proofs).output().unwrap())
    };
    assert_eq!(check(&proofs).exits(0).stdout.trim(), "7");
    let hurt = fs::read_to_string(&proofs[3]).unwrap().replacen("extra ey", "extra eZ", 1);
    fs::write(&proofs[3], hurt).unwrap();
    check(&proofs).exits(1);
    home.fire(&["ledger", "prove", "7"]).exits(4).says(&["there is no such entry"]);
}

/// A drill whose promise cannot be entered does not happen.
#[test]
fn a_ledger_that_cannot_be_written_ends_a_drill_before_it_starts() {
    let (home, scenario) = home();
    fs::create_dir_all(home.path("evidence")).unwrap();
    fs::write(home.path("evidence/ledger"), "in its way").unwrap();
    home.fire(&["run", scenario.to_str().unwrap()]).exits(4).says(&["cannot write"]);
    assert!(home.evidence().is_empty());
}

/// Killed at any instant: what was entered is there, and every drill that was entered has an end.
#[test]
fn runners_that_are_killed_at_random_leave_a_ledger_that_is_whole() {
    let (home, scenario) = home();
    home.drill(&scenario).ends("PASSED");
    let mut random = 0x9e37_79b9_u64;
    let length = || fs::metadata(home.path("evidence/ledger/entries.jsonl")).unwrap().len();
    for turn in 0..20 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let before = length();
        let mut runner = home.start(&["run", scenario.to_str().unwrap()]);
        // from its first instant, or from when it enters something: after the drill, or what the one before it left
        if turn % 4 != 0 {
            wait_until("something is entered", || length() > before);
        }
        std::thread::sleep(Duration::from_millis((random >> 33) % 500));
        runner.kill().unwrap();
        runner.wait().unwrap();
    }
    home.fire(&["reap"]).exits(0);
    let said = verify(&home, &[]).exits(0);
    assert!(!said.stdout.contains("has no end"), "{}", said.stdout);
    let kinds = kinds(&home);
    let count = |kind: &str| kinds.iter().filter(|found| *found == kind).count();
    assert!(count("interrupted") > 3, "{kinds:?}");
    let (started, finished) = (count("drill_started"), count("drill_finished"));
    assert!(started >= finished && started <= finished + count("interrupted"), "{kinds:?}");
    assert_eq!(finished, home.evidence().len());
    if is_root() {
        assert!(fs::read_dir(home.path("state/sandboxes")).unwrap().next().is_none());
    }
}

/// Where the key was changed, the log goes on under the new one as long as the old one is named.
#[test]
fn another_signing_key_goes_on_with_the_log_where_the_old_one_is_trusted() {
    let (home, scenario) = home();
    home.drill(&scenario).ends("PASSED");
    home.shell("ssh-keygen -q -t ed25519 -N '' -f new; cp evidence/allowed_signers old");
    home.shell("printf '[evidence]\\nsigning_key = \"new\"\\n' > firedrill.toml");
    home.fire(&["run", scenario.to_str().unwrap()]).exits(4).says(&["signed by no key of the trust file"]);
    home.shell("printf '[evidence]\\nsigning_key = \"new\"\\ntrust = \"old\"\\n' > firedrill.toml");
    home.fire(&["run", scenario.to_str().unwrap()]).exits(0);
    assert_eq!(kinds(&home)[3..], ["key_changed", "drill_started", "drill_finished"]);
    home.shell("(cat old; printf 'firedrill namespaces=\"firedrill-evidence\" '; cat new.pub) > both");
    home.fire(&["verify", "--trust", "both", "evidence"]).exits(0);
}
