//! What we give away to copy: every file in `scenarios/` is run against a backup of the kind that it is about, with nothing
//! changed but where that backup and its keys are; every command in `examples/` is understood by the binary.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use firedrill::schedule::Crontab;
use serde_json::json;

use crate::drills::{Drilled, Home, PATIENT, said};
use crate::serve::Daemon;
use crate::servers::{self, Locking, ceph};

fn given(folder: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name)
}

/// The scenario as it is given away, but for its source's place, its keys' files, and where scratch may be.
pub fn at_home(home: &Home, name: &str, place: &[(&str, toml::Value)]) -> PathBuf {
    let mut table: toml::Table = fs::read_to_string(given("scenarios", &format!("{name}.toml"))).unwrap().parse().unwrap();
    for (key, value) in place {
        // of a component: its name before the key
        let source = match key.split_once('.') {
            None => table["source"].as_table_mut(),
            Some((component, _)) => {
                let mut components = table["component"].as_array_mut().unwrap().iter_mut();
                components.find(|c| c["name"].as_str() == Some(component)).unwrap()["source"].as_table_mut()
            }
        };
        source.unwrap().insert(key.rsplit('.').next().unwrap().to_owned(), value.clone());
    }
    if let Some(unlock) = table.get_mut("unlock").and_then(toml::Value::as_table_mut) {
        unlock.insert("age_identities".to_owned(), vec!["file:../keys/records.agekey"].into());
        if let Some(producers) = unlock.get_mut("trusted_producers") {
            *producers = vec!["file:../keys/backup-host.pub"].into();
        }
    }
    let name = name.rsplit('/').next().unwrap_or(name);
    home.write(&format!("scenarios/{name}.toml"), toml::to_string(&table).unwrap())
}

/// Likewise, for backups in `backups/` at home.
pub fn at_home_in_a_directory(home: &Home, name: &str) -> PathBuf {
    let scenario = at_home(home, name, &[("url", "file:../backups".into())]);
    // a directory has no endpoint
    let text = fs::read_to_string(&scenario).unwrap();
    fs::write(&scenario, text.lines().filter(|l| !l.starts_with("endpoint")).collect::<Vec<_>>().join("\n")).unwrap();
    scenario
}

#[test]
fn every_scenario_given_away_has_its_test() {
    let names = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(given(folder, "")).unwrap().map(|e| e.unwrap());
        entries.filter(|e| e.file_type().unwrap().is_file()).map(|e| e.file_name().into_string().unwrap()).collect()
    };
    let packs: BTreeSet<String> = names("scenarios/packs").into_iter().collect();
    let drilled = |name: &String| include_str!("packs/mod.rs").contains(&format!("Pack::new(\"{}\")", name.trim_end_matches(".toml")));
    assert_eq!(packs.iter().filter(|name| !drilled(name)).collect::<Vec<_>>(), Vec::<&String>::new());
    for name in &packs {
        firedrill::config::load_scenario(&given("scenarios/packs", name)).unwrap_or_else(|e| panic!("{e}"));
    }
    let there: BTreeSet<String> = names("scenarios").into_iter().collect();
    let sources = [
        include_str!("scenarios.rs"),
        include_str!("recipes/components.rs"),
        include_str!("recipes/files.rs"),
        include_str!("recipes/objects.rs"),
        include_str!("recipes/databases.rs"),
        include_str!("recipes/services.rs"),
        include_str!("recipes/mariadb.rs"),
        include_str!("recipes/binlogs.rs"),
        include_str!("recipes/pitr.rs"),
        include_str!("recipes/postgres.rs"),
        include_str!("recipes/sqlite.rs"),
    ];
    let tested: BTreeSet<String> = there
        .iter()
        .filter(|name| {
            let stem = name.strip_suffix(".toml").unwrap_or(name);
            let calls = ["at_home", "at_home_in_a_directory"]
                .iter()
                .flat_map(|make| [format!("{make}(&home, \"{stem}\""), format!("{make}(home, \"{stem}\"")]);
            calls.into_iter().any(|call| sources.iter().any(|source| source.contains(&call)))
        })
        .cloned()
        .collect();
    assert_eq!(there, tested);
    assert!(there.len() >= 17);
    // as they are, they are read without a mistake
    let home = Home::new();
    for name in &there {
        let path = given("scenarios", name);
        firedrill::config::load_scenario(&path).unwrap_or_else(|e| panic!("{e}"));
        // no backup is there, which is no mistake in the file
        if fs::read_to_string(&path).unwrap().contains("file:///mnt/backup") {
            home.fire(&["points", path.to_str().unwrap()]).exits(3);
        }
    }
}

fn with_keys(home: &Home, args: &[&str]) -> crate::drills::Said {
    let mut command = home.command(args);
    command.env("AWS_ACCESS_KEY_ID", servers::ACCESS).env("AWS_SECRET_ACCESS_KEY", servers::SECRET);
    said(command.output().unwrap())
}

#[test]
fn sealed_files_in_a_locked_bucket_over_tls() {
    let home = Home::new();
    home.tree();
    home.producer("backup-host");
    let bucket = tokio::runtime::Runtime::new().unwrap().block_on(ceph().bucket(Locking::On));
    let (url, endpoint, ca) = (format!("s3://{bucket}/ehr-files/"), ceph().https(), ceph().ca_file().display().to_string());
    let seal = |days: &str| {
        let args = ["seal", "tree", "--to", &url, "--endpoint", &endpoint, "--ca-file", &ca, "--sign", "keys/backup-host"];
        let rest = ["-r", &home.recipient, "--lock", "compliance", "--lock-for", days];
        with_keys(&home, &[&args[..], &rest[..]].concat()).exits(0);
    };
    let place = [("url", url.clone().into()), ("endpoint", endpoint.clone().into()), ("ca_file", ca.clone().into())];
    let scenario = at_home(&home, "sealed-files", &place);
    let run = || -> Drilled { home.drilled(with_keys(&home, &["run", scenario.to_str().unwrap()])) };
    seal("40d");
    let drilled = run().ends("PASSED");
    assert!(drilled.report["backup"]["transport"].to_string().contains("TLS"), "{:#}", drilled.report["backup"]["transport"]);
    assert_eq!(drilled.report["measurements"]["recovery"]["declared"], json!(1800));
    // the next set is locked for less than the scenario asks for
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    seal("20d");
    run().ends("FAILED").blames_backup("lock_too_short", &[]);
}

#[test]
fn a_script_of_tar_zstd_and_age() {
    let home = Home::new();
    home.shell("mkdir -p tree/results/2026");
    let now = firedrill::domain::Timestamp(jiff::Timestamp::now());
    for number in 0..120 {
        let text = format!("{{\"subject\": \"{PATIENT}\", \"issued\": \"{now}\", \"values\": \"{}\"}}\n", "7.1 ".repeat(300 + number));
        home.write(&format!("tree/results/2026/{number:03}.json"), text);
    }
    home.shell("cd tree; find results -type f -exec sha256sum {} + > SHA256SUMS");
    let object = format!("backups/lab-{}", home.bare_name(1));
    home.shell(&format!(
        "tar -C tree -cf - . | zstd -q | age -r $RECIPIENT > {object}; cp {object} backups/lab-test-{}",
        home.bare_name(0)
    ));
    let scenario = at_home_in_a_directory(&home, "tar-zstd-age");
    let drilled = home.drill(&scenario).ends("PASSED");
    assert_eq!(drilled.report["measurements"]["data_age"]["source"], "content");
    assert_eq!(drilled.report["backup"]["point"]["points_seen"], 1);
    // one result rots before the backup is made
    home.write("tree/results/2026/007.json", "{}");
    home.shell(&format!("tar -C tree -cf - . | zstd -q | age -r $RECIPIENT > {object}"));
    home.drill(&scenario).ends("FAILED").blames_backup("check_failed", &[("check", "contents match their sums")]);
    // the archiver lost most of them
    home.shell(&format!("rm tree/results/2026/0*.json; tar -C tree -cf - . | zstd -q | age -r $RECIPIENT > {object}"));
    home.drill(&scenario).ends("FAILED").blames_backup("check_failed", &[("check", "results are there")]);
}

#[test]
fn sealed_sets_in_a_local_directory() {
    let home = Home::new();
    home.tree();
    home.producer("backup-host");
    let recipient = home.recipient.clone();
    home.fire(&["seal", "tree", "--to", "backups", "-r", &recipient, "--sign", "keys/backup-host"]).exits(0);
    let scenario = at_home(&home, "local-directory", &[("url", "file:../backups".into())]);
    home.drill(&scenario).ends("PASSED");
    // nobody has written anything for a year
    home.shell("rm -r backups/*; find tree -exec touch -h -d '-1 year' {} +");
    home.fire(&["seal", "tree", "--to", "backups", "-r", &recipient, "--sign", "keys/backup-host"]).exits(0);
    home.drill(&scenario).ends("FAILED").blames_backup("check_failed", &[("check", "somebody still works here")]);
}

#[test]
fn commands_ask_what_users_would_ask() {
    let home = Home::new();
    let now = firedrill::domain::Timestamp(jiff::Timestamp::now());
    home.write(
        "tree/export/latest.json",
        format!("{{\"resourceType\": \"Bundle\", \"meta\": {{\"lastUpdated\": \"{now}\"}}, \"entry\": [{{\"name\": \"{PATIENT}\"}}]}}"),
    );
    home.shell(&format!(
        "sqlite3 tree/registry.db \"create table patient (id integer primary key, name text); create index by_name on patient (name); \
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 200) insert into patient select i, '{PATIENT}' from n;\""
    ));
    let scenario = at_home(&home, "command-checks", &[("url", "file:../backups".into())]);
    let back_up = || drop(home.shell(&format!("tar -C tree -cf - . | zstd -q | age -r $RECIPIENT > backups/{}", home.bare_name(1))));
    back_up();
    let drilled = home.drill(&scenario).ends("PASSED");
    assert_eq!(drilled.report["checks"].as_array().unwrap().len(), 6);
    // each of them can fail
    for (check, harm, mend) in [
        (
            "indexes came back",
            "sqlite3 tree/registry.db 'drop index by_name'",
            "sqlite3 tree/registry.db 'create index by_name on patient (name)'",
        ),
        (
            "patients are there",
            "cp tree/registry.db keep; sqlite3 tree/registry.db 'delete from patient where id > 50'",
            "mv keep tree/registry.db",
        ),
        (
            "the database is sound",
            "cp tree/registry.db keep; printf '\\377\\377\\377\\377' | dd of=tree/registry.db bs=1 seek=4100 conv=notrunc status=none",
            "mv keep tree/registry.db",
        ),
        ("the export parses", "cp tree/export/latest.json keep; truncate -s -9 tree/export/latest.json", "mv keep tree/export/latest.json"),
        ("nothing was left half written", "touch tree/export/next.part", "rm tree/export/next.part"),
    ] {
        home.shell(harm);
        back_up();
        let drilled = home.drill(&scenario).ends("FAILED");
        let failed = drilled.findings().iter().any(|f| f["finding"] == "check_failed" && f["check"] == check);
        assert!(failed, "{check}: {:#?}", drilled.findings());
        home.shell(mend);
    }
    back_up();
    home.drill(&scenario).ends("PASSED");
}

/// Commands of firedrill in a file of ours, as arguments.
fn commands(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let commands = lines.filter_map(|line| line.split_once("firedrill --").map(|(_, rest)| format!("--{rest}")));
    commands
        .map(|line| {
            // quotes as a shell or systemd takes them
            let parts = line.split('"').enumerate();
            parts
                .flat_map(|(number, part)| match number % 2 {
                    0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
                    _ => vec![part.to_owned()],
                })
                .collect()
        })
        .collect()
}

#[test]
fn the_commands_in_examples_are_understood() {
    let home = Home::new();
    home.bare_tree();
    home.write("firedrill.toml", "[evidence]\nstore = \"evidence\"\n");
    for name in ["ehr-files", "lab", "registry", "front-desk"] {
        home.named_scenario(name, "");
    }
    home.fire(&["run", "lab"]).exits(0);
    let mut seen = 0;
    for entry in fs::read_dir(given("examples", "")).unwrap() {
        let path = entry.unwrap().path();
        for command in commands(&fs::read_to_string(&path).unwrap()) {
            let words: Vec<String> = command
                .iter()
                .map(|word| match word.as_str() {
                    "/etc/firedrill/firedrill.toml" => "firedrill.toml".to_owned(),
                    "/etc/firedrill/allowed_signers" => "evidence/allowed_signers".to_owned(),
                    "/var/lib/firedrill/evidence" => "evidence".to_owned(),
                    other => other.to_owned(),
                })
                .collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            if words.contains(&"serve") {
                // it goes on until it is told to end
                Daemon::start(home.command(&words)).stop_when_it_keeps(&home);
            } else {
                home.fire(&words).exits(0);
            }
            seen += 1;
        }
    }
    assert!(seen >= 5, "{seen} commands");
}

#[test]
fn the_crontab_is_one_and_means_the_first_of_each_quarter() {
    let text = fs::read_to_string(given("examples", "quarterly.cron")).unwrap();
    let entries: Vec<Crontab> = text
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        .map(|line| line.split_whitespace().take(5).collect::<Vec<_>>().join(" ").parse().unwrap())
        .collect();
    assert_eq!(entries.len(), 3);
    let zone = jiff::tz::TimeZone::UTC;
    let next = entries[0].next_after("2026-11-21T00:00:00Z".parse().unwrap(), &zone).unwrap();
    assert_eq!(next.to_string(), "2027-01-01T03:00:00Z");
}

#[test]
fn the_service_lets_the_sandbox_be_made_without_new_privileges() {
    for unit in ["firedrill.service", "firedrill-due.service"] {
        let unit = fs::read_to_string(given("examples", unit)).unwrap();
        let set = |key: &str| unit.lines().any(|line| line.starts_with(&format!("{key}=")));
        assert!(set("NoNewPrivileges") && set("ProtectSystem"));
        for forbidden in ["RestrictNamespaces", "ProtectControlGroups", "ProtectKernelTunables", "ProtectProc", "ProcSubset"] {
            assert!(!set(forbidden), "{forbidden} keeps the sandbox from being made");
        }
    }
    let home = Home::new();
    home.bare_tree();
    let scenario = home.scenario("check = [{ kind = \"command\", command = [\"true\"] }]");
    let inner = home.command(&["run", scenario.to_str().unwrap()]);
    let mut outer = std::process::Command::new("setpriv");
    outer.args(["--no-new-privs", "--"]).arg(inner.get_program()).args(inner.get_args()).current_dir(home.root());
    home.drilled(said(outer.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap())).ends("PASSED");
}
