//! PostgreSQL really started on what was restored, and asked: dumps of a real server in every format, and their damaged twins.

use std::path::PathBuf;

use super::databases::Server;
use super::{Vault, fails};
use crate::drills::{Drilled, Home, PATIENT, holds, zstd_bytes};
use crate::scenarios::at_home;
use crate::servers::Locking;

/// Dumps of one server, sealed one after the other.
pub(super) struct Dumps {
    pub(super) home: Home,
    pub(super) server: Server,
}

impl Dumps {
    pub(super) fn new() -> Self {
        let dumps = Self { home: Home::new(), server: Server::postgres() };
        dumps.server.shell(
            &[],
            "psql -q postgres -c 'create role app' -c 'create database ehr' && psql -q ehr -c \
             \"create table patient (id int primary key, name text not null, seen timestamptz not null); alter table patient owner to app; \
             insert into patient select i, 'x' || i, now() from generate_series(1, 500) i\" && pg_dumpall --globals-only > globals.sql",
        );
        dumps
    }

    /// Dumps by `script`, which makes files in `out`, and backs them up as a tar.
    pub(super) fn back_up(&self, script: &str) {
        self.server.shell(&[], &format!("rm -rf out; mkdir out; {script}; tar -cf out.tar -C out ."));
        let tar = std::fs::read(self.server.path("out.tar")).unwrap();
        self.home.shell("rm -rf backups; mkdir backups");
        self.home.bare(&self.home.bare_name(1), &self.home.age(&zstd_bytes(&tar)));
    }

    pub(super) fn scenario(&self, step: &str, checks: &str) -> PathBuf {
        self.home.named_scenario(
            "ehr",
            &format!(
                "objectives = {{ rpo = \"24h\", rto = \"10m\" }}\n[sandbox]\nmemory = \"1GiB\"\nprocesses = 64\n\
                 scratch = {{ kind = \"tmpfs\", size = \"512MiB\" }}\n[[restore]]\nmethod = \"postgres\"\n{step}\n{checks}"
            ),
        )
    }

    pub(super) fn drill(&self, step: &str, checks: &str) -> Drilled {
        self.home.drill(&self.scenario(step, checks))
    }
}

pub(super) const CHECKS: &str = r#"
[[check]]
kind = "sql"
name = "patients are there"
query = "select count(*) from patient"
expect = ">= 500"
[[check]]
kind = "sql"
name = "exact counts"
tables = { "public.patient" = "= 500" }
[[check]]
kind = "freshness"
query = "select max(seen) from patient"
"#;

pub(super) const WITH_GLOBALS: &str = "dump = \"ehr*\"\nglobals = \"globals.sql\"\ndatabase = \"ehr\"";

#[test]
fn every_format_of_pg_dump_is_loaded_and_answers() {
    let dumps = Dumps::new();
    for format in ["plain", "custom", "directory", "tar"] {
        dumps.back_up(&format!("pg_dump -F {format} -f out/ehr.dump ehr; cp globals.sql out"));
        let drilled = dumps.drill(WITH_GLOBALS, CHECKS).ends("PASSED");
        let report = &drilled.report;
        let service = &report["services"][0];
        assert_eq!((&service["engine"], &service["name"]), (&"postgres".into(), &"postgres".into()), "{format}");
        assert!(service["method"].as_str().unwrap().contains(format), "{service}");
        assert!(service["recorded"].as_str().unwrap().starts_with("15."), "{service}");
        assert_eq!(report["measurements"]["data_age"]["source"], "content");
        let phases: Vec<_> = report["timeline"].as_array().unwrap().iter().map(|p| p["phase"].as_str().unwrap()).collect();
        assert!(phases.windows(3).any(|w| w == ["load", "ready", "verify"]), "{phases:?}");
        drilled.left_nothing();
    }
    // the whole cluster in one text, its roles and databases made by itself
    dumps.back_up("pg_dumpall > out/all.sql");
    dumps.drill("dump = \"all.sql\"\ndatabase = \"ehr\"", CHECKS).ends("PASSED");
}

#[test]
fn a_dump_that_does_not_come_back_fails_with_its_reason() {
    let dumps = Dumps::new();
    let problem = |drilled: Drilled, problem: &str| drilled.ends("FAILED").blames_backup("service_failed", &[("problem", problem)]);
    let alone = "dump = \"ehr*\"\ndatabase = \"ehr\"";
    // the role that owns the table is in no globals
    dumps.back_up("pg_dump -F custom -f out/ehr.dump ehr");
    problem(dumps.drill(alone, CHECKS), "roles_missing");
    // every row, and nothing after them
    // from a file: who stops reading early would break the pipe under pg_dump
    dumps.back_up("pg_dump -f whole.sql ehr; sed '/^\\\\\\.$/q' whole.sql > out/ehr.sql; cp globals.sql out");
    problem(dumps.drill(WITH_GLOBALS, CHECKS), "input_truncated");
    dumps
        .back_up("pg_dump -F custom ehr > all.dump; head -c $(($(stat -c %s all.dump) - 300)) all.dump > out/ehr.dump; cp globals.sql out");
    let drilled = dumps.drill(WITH_GLOBALS, CHECKS).ends("FAILED");
    drilled.because("service_failed");
    // a full disk's zeros, and nothing at all
    dumps.back_up("head -c 100000 /dev/zero > out/ehr.dump; cp globals.sql out");
    problem(dumps.drill(WITH_GLOBALS, CHECKS), "input_unusable");
    dumps.back_up("cp globals.sql out");
    problem(dumps.drill(WITH_GLOBALS, CHECKS), "input_missing");
    // tables without a row: a server that answers is no restore
    dumps.back_up("pg_dump --schema-only -F custom -f out/ehr.dump ehr; cp globals.sql out");
    problem(dumps.drill(WITH_GLOBALS, CHECKS), "empty");
    // what a newer pg_dump writes, and a server of the recorded version refuses
    dumps.back_up(
        "pg_dump ehr | sed 's/^-- Dumped by pg_dump version .*/-- Dumped by pg_dump version 17.2/; \
         s/^SET lock_timeout = 0;/&\\nSET transaction_timeout = 0;/' > out/ehr.sql; cp globals.sql out",
    );
    problem(dumps.drill(WITH_GLOBALS, CHECKS), "newer_client");
}

#[test]
fn a_check_that_is_answered_no_fails_and_one_that_cannot_be_asked_is_inconclusive() {
    let dumps = Dumps::new();
    dumps.back_up("pg_dump -F custom -f out/ehr.dump ehr; cp globals.sql out");
    let one = |query: &str, expect: &str| {
        let checks = format!("[[check]]\nkind = \"sql\"\nname = \"asked\"\nquery = \"{query}\"\nexpect = \"{expect}\"");
        dumps.drill(WITH_GLOBALS, &checks)
    };
    one("select count(*) from patient", "> 500").ends("FAILED").blames_backup("check_failed", &[("check", "asked")]);
    let refused = one("select count(*) from encounter", ">= 0").ends("FAILED");
    refused.blames_backup("query_refused", &[("state", "undefined_table")]);
    one("selct", ">= 0").ends("INCONCLUSIVE").blames_runner("could_not_run", &[("check", "asked")]);
    // checks read: what would change the restored data is refused
    one("delete from patient returning 1", ">= 0").ends("INCONCLUSIVE").blames_runner("could_not_run", &[("check", "asked")]);
    // a version that is not installed is no fault of the backup
    let other = dumps.drill(&format!("{WITH_GLOBALS}\nversion = 9"), CHECKS);
    other.ends("INCONCLUSIVE").blames_runner("service_could_not_run", &[("service", "postgres")]);
}

#[test]
fn a_source_that_stopped_being_backed_up_fails_on_rpo_from_content() {
    let dumps = Dumps::new();
    let scenario = dumps.scenario(WITH_GLOBALS, CHECKS);
    let text = std::fs::read_to_string(&scenario).unwrap();
    assert!(text.contains("rpo = \"24h\""), "{text}");
    std::fs::write(&scenario, text.replace("rpo = \"24h\"", "rpo = \"20s\"")).unwrap();
    dumps.server.shell(&[], "psql -q ehr -c 'update patient set seen = now()'");
    let written = std::time::Instant::now();
    dumps.back_up("pg_dump -F custom -f out/ehr.dump ehr; cp globals.sql out");
    let copies = |hours: i64| dumps.home.path(&format!("backups/{}", dumps.home.bare_name(hours)));
    std::fs::rename(copies(1), copies(0)).unwrap();
    let fresh = dumps.home.drill(&scenario).ends("PASSED");
    assert_eq!(fresh.report["measurements"]["data_age"]["source"], "content");
    // the archiver lives on and copies what there is, under new names; of the database nothing new comes any more
    std::thread::sleep(std::time::Duration::from_secs(21).saturating_sub(written.elapsed()));
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H%M");
    std::fs::rename(copies(0), dumps.home.path(&format!("backups/{now}.tar.zst.age"))).unwrap();
    let drilled = dumps.home.drill(&scenario).ends("FAILED");
    drilled.blames_backup("objective_missed", &[("objective", "rpo")]);
    assert_eq!(drilled.report["checks"].as_array().unwrap().iter().filter(|c| c["outcome"] == "passed").count(), 3, "{drilled:?}");
    let report = std::fs::read(drilled.evidence.join("report.json")).unwrap();
    assert!(!holds(&report, PATIENT.as_bytes()));
}

#[test]
fn dumps_of_postgresql_with_their_roles() {
    let home = Home::new();
    let vault = Vault::new(&home, Locking::On);
    let server = Server::postgres();
    let sql = |sql: &str| drop(server.shell(&[("SQL", sql.to_owned())], "psql -q -v ON_ERROR_STOP=1 ehr -c \"$SQL\""));
    server.shell(&[], "createdb -T postgres ehr; psql -q ehr -c 'create role app' -c 'alter table patient owner to app'");
    let key = format!("ehr-sql/ehr-{}.tar.zst.age", home.hours_ago(2).0.strftime("%Y-%m-%dT%H%M"));
    let back_up = |script: &str| {
        server.shell(&[], &format!("rm -rf out out.tar; mkdir out; {script}; tar -cf out.tar -C out ."));
        home.shell(&format!("cp {} out.tar", server.path("out.tar").display()));
        vault.shell(&format!("zstd -qc out.tar | age -r $RECIPIENT | rclone rcat -q s3:$BUCKET/{key}"));
    };
    let globals = "pg_dumpall --globals-only > out/globals.sql";
    let whole = format!("pg_dump -Fc ehr > out/ehr.dump; {globals}");
    back_up(&whole);
    let scenario = at_home(&home, "postgres-dump", &vault.place("ehr-sql"));
    vault.passes(&scenario);
    // the next drill has one to be compared with
    let second = vault.passes(&scenario);
    assert_eq!((&second.report["measurements"]["data_age"]["source"], &second.report["assertions"]), (&"content".into(), &3.into()));
    let problem = |script: &str, problem: &str| {
        back_up(script);
        vault.run(&scenario).ends("FAILED").blames_backup("service_failed", &[("problem", problem)]);
    };
    // LIES 12: the roles are beside it, but for the one that owns the table; LIES 5: every row, and nothing after them
    problem(&format!("{whole}; sed -i '/ROLE app/ d' out/globals.sql"), "roles_missing");
    problem(&format!("{globals}; pg_dump ehr > all.sql; sed '/^\\\\\\.$/q' all.sql > out/ehr.dump"), "input_truncated");
    problem(&format!("{globals}; pg_dump -Fc ehr | head -c -300 > out/ehr.dump"), "input_truncated");
    // LIES 3: nothing is in it
    problem(&format!("{globals}; pg_dump -Fc --schema-only ehr > out/ehr.dump"), "empty");
    // as whole as can be told from itself: what it was before tells
    back_up(&format!("{globals}; pg_dump -Fc --section=pre-data --section=data ehr > out/ehr.dump"));
    let bare = vault.run(&scenario).ends("FAILED");
    assert_eq!(bare.because("schema_differs")["missing"], serde_json::json!({ "constraint": 1, "index": 2 }));
    sql("delete from patient where id > 150");
    back_up(&whole);
    fails(&vault.run(&scenario), "patients are there");
    // LIES 14: made anew every night, of a database in which nothing happens any more
    sql("insert into patient select i, 'x', now() from generate_series(151, 200) i; update patient set seen = now() - interval '30 hours'");
    back_up(&whole);
    vault.run(&scenario).ends("FAILED").blames_backup("objective_missed", &[("objective", "rpo")]);
}

#[test]
fn tablespaces_of_a_dump_come_with_its_globals() {
    let dumps = Dumps::new();
    dumps.server.shell(
        &[],
        "mkdir fast \"not fast\"; psql -q ehr -c \"create tablespace fast location '$PWD/fast'\" \
         -c \"create tablespace \\\"slow \\\"\\\"disk\\\"\\\"\\\" location '$PWD/not fast'\" -c 'alter table patient set tablespace fast' \
         -c 'create index patient_name on patient (name) tablespace \"slow \"\"disk\"\"\"'; pg_dumpall --globals-only > globals.sql",
    );
    let placed = format!(
        "{CHECKS}[[check]]\nkind = \"sql\"\nname = \"they lie there\"\nquery = \"select count(*) from pg_class c join pg_tablespace t on \
         t.oid = c.reltablespace where (relname, spcname) in (('patient', 'fast'), ('patient_name', 'slow \\\"disk\\\"'))\"\nexpect = \"= 2\"\n"
    );
    for format in ["plain", "custom"] {
        dumps.back_up(&format!("pg_dump -F {format} -f out/ehr.dump ehr; cp globals.sql out"));
        dumps.drill(WITH_GLOBALS, &placed).ends("PASSED");
    }
    // all in one text
    dumps.back_up("pg_dumpall > out/all.sql");
    dumps.drill("dump = \"all.sql\"\ndatabase = \"ehr\"", &placed).ends("PASSED");
    // beside it are the roles alone, or nothing at all
    let problem = |drilled: Drilled| {
        drilled.ends("FAILED").blames_backup("service_failed", &[("problem", "tablespaces_missing"), ("how", "--globals-only")]);
    };
    for format in ["plain", "custom"] {
        dumps.back_up(&format!("pg_dump -F {format} -f out/ehr.dump ehr; pg_dumpall --roles-only > out/globals.sql"));
        problem(dumps.drill(WITH_GLOBALS, CHECKS));
    }
    dumps.back_up("pg_dump -f out/ehr.dump ehr");
    problem(dumps.drill("dump = \"ehr*\"\ndatabase = \"ehr\"", CHECKS));
}

#[test]
fn a_dump_that_ends_its_own_server_fails() {
    let dumps = Dumps::new();
    // a dump is code: what ends one process of the server, and all of it
    for (end, reason) in [("kill -SEGV \\$PPID", "crashed"), ("kill -QUIT \\$(head -n 1 postmaster.pid)", "load_refused")] {
        dumps.back_up(&format!(
            "pg_dump -f whole.sql ehr; sed \"/^-- PostgreSQL database dump complete/ i copy public.patient (name) from program '{end}';\" whole.sql > out/ehr.sql; \
             cp globals.sql out",
        ));
        let drilled = dumps.drill(WITH_GLOBALS, CHECKS).ends("FAILED");
        drilled.blames_backup("service_failed", &[("problem", reason)]);
    }
}

#[test]
fn what_pg_restore_and_psql_pass_over_in_silence_fails() {
    let dumps = Dumps::new();
    dumps.server.shell(
        &[],
        "psql -q ehr -c 'create table visit as select i, md5(i::text) as note from generate_series(1, 5000) i' -c 'create table empty (i int)' \
         -c 'create role member' -c 'grant app to member' -c \"select lo_from_bytea(0, 'x')\" >/dev/null; pg_dumpall --globals-only > globals.sql",
    );
    let drill = |script: &str| {
        dumps.back_up(&format!("cp globals.sql out; biggest() {{ ls -S out/ehr.dump/*.$1 | head -n 1; }}; {script}"));
        dumps.drill(WITH_GLOBALS, CHECKS)
    };
    let problem = |script: &str, problem: &str| drill(script).ends("FAILED").blames_backup("service_failed", &[("problem", problem)]);
    let directory = "pg_dump -F directory -f out/ehr.dump ehr";
    let plain = "pg_dump -F directory -Z 0 -f out/ehr.dump ehr";
    let inserts = "pg_dump -F directory -Z 0 --inserts -f out/ehr.dump ehr";
    for whole in
        [directory, plain, inserts, "pg_dump -F tar -f out/ehr.dump ehr", "pg_dump -F tar --rows-per-insert=70 -f out/ehr.dump ehr"]
    {
        drill(whole).ends("PASSED");
    }
    // LIES 2 and 3: the table that no check asks for has no rows, or the first of them
    problem(&format!("{directory}; truncate -s 0 $(biggest gz)"), "input_truncated");
    problem(&format!("{directory}; truncate -s 1000 $(biggest gz)"), "input_truncated");
    problem(&format!("{plain}; truncate -s 10000 $(biggest dat)"), "input_truncated");
    problem(&format!("{plain}; file=$(biggest dat); head -n 100 $file > part; cp part $file"), "input_truncated");
    problem(&format!("{inserts}; file=$(biggest dat); head -n 100 $file > part; cp part $file"), "input_truncated");
    problem(&format!("{directory}; rm $(biggest gz)"), "files_missing");
    // large objects whose list is empty are left out as silently
    let lost = drill(&format!("{directory}; : > out/ehr.dump/blobs.toc")).ends("FAILED");
    lost.blames_backup("service_failed", &[("problem", "input_truncated"), ("how", "1 of 1 large objects")]);
    problem(&format!("{directory}; truncate -s 0 out/ehr.dump/blob_*.gz"), "input_truncated");
    // without its end, pg_restore waits for more of it until the drill's time is over, or takes it for whole
    for bytes in ["100000", "-1024"] {
        problem(&format!("pg_dump -F tar ehr > t; head -c {bytes} t > out/ehr.dump"), "input_truncated");
    }
    // memberships of roles come last, and no load misses them
    problem(&format!("{directory}; sed -i '/^-- Role memberships/,$ d' out/globals.sql"), "input_truncated");
}
