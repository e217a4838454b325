//! `firedrill doctor`, promise by promise, on hosts made for it: as root, as an ordinary user, without user namespaces,
//! without control groups.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::drills::{Home, Said, said};
use crate::limits::ordinary_user;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Promises of one group.
struct Told(Vec<Value>);

impl Told {
    fn by(said: &Said, group: &str) -> Told {
        let all = said.json();
        Told(all["promises"].as_array().unwrap().iter().filter(|p| p["group"] == group).cloned().collect())
    }
    #[track_caller]
    fn of(&self, name: &str) -> &Value {
        self.0.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("{name}: {:#?}", self.0))
    }
    #[track_caller]
    fn kept(&self, name: &str, kept: &str) -> &Self {
        assert_eq!(self.of(name)["kept"], kept, "{:#}", self.of(name));
        self
    }
    /// Nothing that cannot be kept goes without a word on what to change.
    #[track_caller]
    fn advise(&self) -> &Self {
        for promise in self.0.iter().filter(|p| p["kept"] == "no") {
            assert!(promise["advice"].as_str().is_some_and(|a| !a.is_empty()), "{promise:#}");
        }
        self
    }
}

const SANDBOX: [&str; 24] = [
    "isolation",
    "files",
    "network",
    "egress attempts",
    "scratch: encrypted",
    "no new privileges",
    "capabilities",
    "system calls",
    "core dumps",
    "landlock",
    "memory limit",
    "process limit",
    "cpu quota",
    "cpu time",
    "scratch size",
    "scratch entries",
    "private /tmp",
    "shared memory",
    "time limit",
    "output limit",
    "scratch: tmpfs",
    "scratch: directory",
    "disposal",
    "leftovers",
];

/// The doctor on a host that a script has made out of this one, in namespaces of its own.
fn doctor_on(home: &Home, unshare: &[&str], change: &str, args: &[&str]) -> Said {
    let script = format!("{change} && exec {} --state state --evidence evidence \"$@\"", env!("CARGO_BIN_EXE_firedrill"));
    let mut command = Command::new("unshare");
    command.args(unshare).args(["bash", "-c", &script, "bash"]).args(args).current_dir(home.root());
    said(command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap())
}

#[test]
fn every_promise_has_a_line_and_root_keeps_them() {
    let home = Home::new();
    let said = home.fire(&["--json", "doctor"]);
    let told = Told::by(&said, "sandbox");
    for name in SANDBOX {
        told.of(name);
    }
    for name in ["isolation", "files", "network", "no new privileges", "capabilities", "system calls", "core dumps", "disposal"] {
        told.kept(name, "yes");
    }
    if is_root() {
        for name in ["memory limit", "process limit", "cpu quota"] {
            told.kept(name, "yes");
        }
        told.kept("no swap", "yes").kept("scratch: tmpfs", "yes");
    }
    let host = Told::by(&said, "host");
    for name in ["swap", "hibernation", "crash dumps", "core handler", "freed memory", "hypervisor"] {
        assert_ne!(host.of(name)["kept"], "no", "a risk is told, not judged");
    }
    // for people: one line each, aligned
    let shown = home.fire(&["doctor"]).stdout;
    let columns: Vec<usize> = shown
        .lines()
        .filter(|l| ["  yes ", "  PARTLY", "  NO "].iter().any(|mark| l.starts_with(mark)))
        .map(|l| l[10..].find("  ").map_or(0, |gap| 10 + gap + l[10 + gap..].chars().take_while(|c| *c == ' ').count()))
        .collect();
    assert!(columns.len() > SANDBOX.len() && columns.iter().all(|c| *c == columns[0]), "{columns:?}\n{shown}");
}

#[test]
fn an_ordinary_user_is_told_what_is_weaker_and_what_to_change() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    home.bare_tree();
    let told = said(ordinary_user(&home, &["--json", "doctor"]).output().unwrap()).exits(0);
    let told = Told::by(&told, "sandbox");
    for name in ["isolation", "files", "network", "no new privileges", "capabilities", "system calls", "disposal", "scratch: tmpfs"] {
        told.kept(name, "yes");
    }
    for name in ["memory limit", "process limit", "cpu quota"] {
        told.kept(name, "partly");
        assert!(told.of(name)["advice"].as_str().unwrap().contains("Delegate="), "{:#}", told.of(name));
    }
    // a scenario that requires more is told before any drill, and one that does not is told what is weaker
    for (overlay, kept, code) in [("sandbox.require = [\"memory\"]", "no", 1), ("", "partly", 0)] {
        let scenario = home.scenario(overlay);
        let said = said(ordinary_user(&home, &["--json", "doctor", scenario.to_str().unwrap()]).output().unwrap()).exits(code);
        Told::by(&said, "scenario records").kept("sandbox", kept);
    }
}

#[test]
fn root_is_told_that_a_scenario_can_run_and_how_much_room_there_is() {
    let home = Home::new();
    home.bare_tree();
    let ask = |overlay: &str| home.fire(&["--json", "doctor", home.scenario(overlay).to_str().unwrap()]);
    let told = Told::by(&ask(""), "scenario records");
    assert_ne!(told.of("sandbox")["kept"], "no");
    told.kept("room", "yes");
    let huge = Told::by(&ask("sandbox.scratch = { kind = \"tmpfs\", size = \"900TiB\" }"), "scenario records");
    huge.kept("room", "partly");
    assert!(huge.of("room")["how"].as_str().unwrap().contains("900.0 TiB"), "{:#}", huge.of("room"));
}

#[test]
fn without_user_namespaces_every_lost_promise_is_named_and_a_scenario_with_commands_is_refused() {
    let home = Home::new();
    home.bare_tree();
    let (nested, forbid) = (["--user", "--map-root-user"], "echo 0 > /proc/sys/user/max_user_namespaces");
    let said = doctor_on(&home, &nested, forbid, &["--json", "doctor"]).exits(1);
    let told = Told::by(&said, "sandbox");
    told.advise();
    for name in SANDBOX {
        match name {
            "leftovers" => told.kept(name, "yes"),
            "scratch: directory" => told.kept(name, "partly"),
            _ => told.kept(name, "no"),
        };
    }
    assert!(told.of("isolation")["advice"].as_str().unwrap().contains("user.max_user_namespaces"));

    std::fs::create_dir(home.path("scratch")).unwrap();
    let directory = format!("[sandbox]\nscratch = {{ kind = \"directory\", size = \"64MiB\", path = {:?} }}\n", home.path("scratch"));
    let command = "[[check]]\nkind = \"command\"\nname = \"runs\"\ncommand = [\"true\"]\n";
    let run = |scenario: &Path| home.drilled(doctor_on(&home, &nested, forbid, &["run", scenario.to_str().unwrap()]));
    let refused = run(&home.scenario(&format!("{directory}{command}"))).ends("INCONCLUSIVE");
    refused.blames_runner("sandbox_unavailable", &[("reason", "user.max_user_namespaces")]);
    assert!(refused.report["backup"]["point"].is_null());
    let refused = run(&home.scenario(&format!("{directory}require = [\"isolation\"]\n"))).ends("INCONCLUSIVE");
    refused.blames_runner("sandbox_unavailable", &[("reason", "`isolation`")]);
    // without either it runs, and the report says what is weaker
    let weaker = run(&home.scenario(&directory)).ends("PASSED");
    assert_eq!(weaker.report["sandbox"]["isolated"], false);
    assert!(weaker.report["not_proven"].to_string().contains("isolat"), "{:#}", weaker.report["not_proven"]);
    assert_eq!(weaker.report["disposal"]["sanitization"], "none");
}

#[test]
fn without_control_groups_the_weaker_bounds_are_named_and_required_ones_are_refused() {
    if !is_root() {
        return;
    }
    let home = Home::new();
    home.bare_tree();
    let hide = "umount -R -l /sys/fs/cgroup";
    let said = doctor_on(&home, &["--mount"], hide, &["--json", "doctor"]);
    let told = Told::by(&said, "sandbox");
    for name in ["memory limit", "process limit", "cpu quota"] {
        told.kept(name, "partly");
    }
    told.kept("isolation", "yes").kept("disposal", "yes");
    let run = |scenario: &Path| home.drilled(doctor_on(&home, &["--mount"], hide, &["run", scenario.to_str().unwrap()]));
    let refused = run(&home.scenario("sandbox.require = [\"processes\"]")).ends("INCONCLUSIVE");
    refused.blames_runner("sandbox_unavailable", &[("reason", "`processes`")]);
    let weaker = run(&home.scenario("")).ends("PASSED");
    assert!(weaker.report["sandbox"]["remarks"].to_string().contains("no control group for memory"));
}

#[test]
fn what_a_crash_left_is_told_and_not_touched() {
    let home = Home::new();
    let state = home.path("state/sandboxes");
    std::fs::create_dir_all(&state).unwrap();
    let record = r#"{"version":1,"drill":"lost-1","cgroups":[],"scratch_parent":null,"monitor":null}"#;
    std::fs::write(state.join("lost-1.json"), record).unwrap();
    std::fs::write(state.join("lost-1.lock"), "").unwrap();
    let said = home.fire(&["--json", "doctor"]);
    let told = Told::by(&said, "sandbox");
    told.kept("leftovers", "partly");
    assert!(told.of("leftovers")["advice"].as_str().unwrap().contains("reap"));
    assert!(state.join("lost-1.json").exists(), "the doctor only looks");
    home.fire(&["reap"]).exits(0);
    Told::by(&home.fire(&["--json", "doctor"]), "sandbox").kept("leftovers", "yes");
}
