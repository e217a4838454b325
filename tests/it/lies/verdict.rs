//! The clock or the verdict is wrong.

use std::fs;

use serde_json::Value;

use super::selection::bucket_with_siblings;
use super::with_keys;
use crate::drills::Home;

#[test]
fn phases_are_monotonic_and_add_up() {
    let home = Home::new();
    home.bare_tree();
    let checks = "[[check]]\nkind = \"command\"\nname = \"slow\"\ncommand = [\"sleep\", \"1.2\"]";
    let drilled = home.drill(&home.scenario(checks)).ends("PASSED");
    let report = &drilled.report;
    let nanos = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} is no duration"));
    let (mut at, mut counted, mut verify) = (0, 0, 0);
    let timeline = report["timeline"].as_array().unwrap();
    for (number, phase) in timeline.iter().enumerate() {
        let (began, lasted) = (nanos(&phase["began"]), nanos(&phase["lasted"]));
        assert!(began >= at && lasted > 0, "{timeline:#?}");
        assert!(number == 0 || began == at, "a phase begins where the last one ended: {timeline:#?}");
        at = began + lasted;
        if phase["counts"] == true {
            counted = at;
        }
        if phase["phase"] == "verify" {
            verify = lasted;
        }
    }
    assert_eq!(at, nanos(&report["clock"]["monotonic"]), "the phases add up to the whole");
    assert!(verify >= 1_200_000_000, "the slow check took {verify} ns");
    let usable = nanos(&report["usable_after"]);
    assert!(usable > 0 && usable <= counted && usable + verify < at, "usable after {usable}, verification {verify}, whole {at}");
    assert!(report["clock"]["wall_minus_monotonic"].as_i64().unwrap().abs() <= 2);
}

#[test]
fn a_missed_objective_fails_whatever_else_passed() {
    let home = Home::new();
    home.bare_tree();
    let met = "objectives = { rpo = \"2h\", rto = \"10m\" }";
    let drilled = home.drill(&home.scenario(met)).ends("PASSED");
    assert!(drilled.report["assessments"].as_array().unwrap().iter().all(|a| a["met"] == "met"));

    // declaring and deciding alone take longer than what was promised
    let drilled = home.drill(&home.scenario("objectives = { rto = \"10m\", declared = \"11m\" }")).ends("FAILED");
    drilled.blames_backup("objective_missed", &[("objective", "rto"), ("target", "600")]);
    assert!(drilled.report["checks"].as_array().unwrap().iter().all(|c| c["outcome"] == "passed"));

    let drilled = home.drill(&home.scenario("objectives = { rpo = \"30m\" }")).ends("FAILED");
    drilled.blames_backup("objective_missed", &[("objective", "rpo"), ("target", "1800")]);
}

#[test]
fn storage_that_cannot_be_reached_says_nothing_about_the_backup() {
    let home = Home::new();
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let scenario =
        home.scenario(&format!("[source]\nurl = \"s3://backups/ehr/\"\nendpoint = \"http://127.0.0.1:{closed}\"\nallow_http = true"));
    let drilled = with_keys(&home, &scenario, "secret").ends("INCONCLUSIVE");
    drilled.blames_runner("storage_unreachable", &[("reason", "refused")]);
    drilled.left_nothing();
}

#[test]
fn refused_credentials_say_nothing_about_the_backup() {
    let home = Home::new();
    let scenario = bucket_with_siblings(&home);
    let drilled = with_keys(&home, &scenario, "not-the-secret").ends("INCONCLUSIVE");
    drilled.blames_runner("credentials_refused", &[("reason", "check the access key and the secret")]);
    assert!(!fs::read_to_string(drilled.evidence.join("report.json")).unwrap().contains("not-the-secret"));
    // none at all
    let drilled = home.drill(&scenario).ends("INCONCLUSIVE");
    drilled.blames_runner("credentials_refused", &[("reason", "AWS_ACCESS_KEY_ID")]);
}

/// A command check that takes a gibibyte.
const GREEDY: &str = r#"
[[check]]
kind = "command"
name = "takes all the memory there is"
command = ["bash", "-c", "head -c 1G /dev/zero | tail -c 1G > /dev/null; exit $?"]
"#;

#[test]
fn a_sandbox_out_of_memory_says_nothing_about_the_backup() {
    let home = Home::new();
    home.bare_tree();
    let drilled = home.drill(&home.scenario(GREEDY)).ends("INCONCLUSIVE");
    drilled.blames_runner("sandbox_limit", &[("limit", "memory"), ("check", "takes all")]);
    assert_eq!(drilled.report["checks"][0]["outcome"], "could_not_run");
    drilled.left_nothing();
}

#[test]
fn an_inconclusive_drill_is_shown_as_passed_nowhere() {
    let home = Home::new();
    home.bare_tree();
    let good = home.named_scenario("good", "");
    let bad = home.named_scenario("bad", "unlock.age_identities = [\"file:../keys/lost.agekey\"]");
    let drilled = home.drill(&bad).ends("INCONCLUSIVE");
    drilled.blames_runner("key_unusable", &[]);
    assert!(drilled.said.stdout.contains("INCONCLUSIVE") && !drilled.said.stdout.contains("PASSED"), "{}", drilled.said.stdout);
    let page = fs::read_to_string(drilled.evidence.join("report.html")).unwrap();
    assert!(page.contains("INCONCLUSIVE") || page.contains("Inconclusive"));
    // the statement says so to programs that know nothing of us
    let envelope: Value = serde_json::from_slice(&fs::read(drilled.evidence.join("attestation.dsse.json")).unwrap()).unwrap();
    let payload = data_encoding::BASE64.decode(envelope["payload"].as_str().unwrap().as_bytes()).unwrap();
    let statement: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(statement["predicate"]["result"], "FAILED", "{statement:#}");
    // among several, the inconclusive one decides over one that passed
    let said = home.fire(&["run", "--json", good.to_str().unwrap(), bad.to_str().unwrap()]).exits(3);
    let verdicts: Vec<Value> = said.json().as_array().unwrap().iter().map(|d| d["verdict"].clone()).collect();
    assert_eq!(verdicts, ["PASSED", "INCONCLUSIVE"]);
    // trusted evidence of an inconclusive drill is no pass either
    let said = home.fire(&["verify", "--trust", "evidence/allowed_signers", drilled.evidence.to_str().unwrap()]).exits(0);
    assert!(said.stdout.contains("INCONCLUSIVE") && said.stdout.contains("says nothing about the backup"), "{}", said.stdout);
}
