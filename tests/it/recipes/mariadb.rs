//! MariaDB really started on what was restored, and asked: backups of a real server in every form, and their damaged twins.

use std::path::PathBuf;

use super::databases::Server;
use super::with_tools;
use crate::drills::{Drilled, Home, PATIENT, holds, said, zstd_bytes};
use crate::limits::ordinary_user;
use crate::scenarios::at_home;

/// Backups of one server, sealed one after the other.
pub(super) struct Backups {
    pub(super) home: Home,
    pub(super) server: Server,
}

impl Backups {
    pub(super) fn new() -> Self {
        let backups = Self { home: Home::new(), server: Server::mariadb() };
        backups.sql(
            "use his; alter table patient add seen datetime not null default utc_timestamp(), add photo blob; \
             update patient set photo = unhex('00ff27'); \
             create table visit (id int primary key, patient int not null, foreign key (patient) references patient (id)); \
             insert into visit select seq, seq from seq_1_to_100; \
             create function risk(x int) returns int deterministic return x + 1; create view risky as select id, risk(id) r from patient; \
             create user app@localhost identified by 'x'; grant all on his.* to app@localhost;",
        );
        backups
    }

    pub(super) fn sql(&self, sql: &str) -> String {
        self.server.shell(&[("SQL", sql.to_owned())], "mariadb --no-defaults -S socket -u root --skip-column-names --execute=\"$SQL\"")
    }

    /// Backs up by `script`, which makes files in `out`, as a tar; `$dump` is a dump's command, `$backup` a physical backup's.
    pub(super) fn back_up(&self, script: &str) {
        self.server.shell(
            &[
                ("dump", "mariadb-dump --no-defaults -S socket -u root --single-transaction".to_owned()),
                (
                    "backup",
                    // it works in the data directory
                    format!(
                        "mariadb-backup --no-defaults --backup --user=root --socket={} --datadir={}",
                        self.server.path("socket").display(),
                        self.server.path("data").display()
                    ),
                ),
            ],
            &format!("rm -rf out out.tar; mkdir out; {script}; tar -cf out.tar -C out ."),
        );
        let tar = std::fs::read(self.server.path("out.tar")).unwrap();
        self.home.shell("rm -rf backups; mkdir backups");
        self.home.bare(&self.home.bare_name(1), &self.home.age(&zstd_bytes(&tar)));
    }

    pub(super) fn scenario(&self, step: &str, checks: &str) -> PathBuf {
        self.home.named_scenario(
            "his",
            &format!(
                "objectives = {{ rpo = \"24h\", rto = \"10m\" }}\n[sandbox]\nmemory = \"1GiB\"\nprocesses = 64\n\
                 scratch = {{ kind = \"tmpfs\", size = \"768MiB\" }}\n[[restore]]\nmethod = \"mariadb\"\n{step}\n{checks}"
            ),
        )
    }

    pub(super) fn drill(&self, step: &str, checks: &str) -> Drilled {
        self.home.drill(&self.scenario(step, checks))
    }
}

const CHECKS: &str = r#"
[[check]]
kind = "sql"
name = "patients are there"
query = "select count(*) from patient"
expect = ">= 200"
[[check]]
kind = "sql"
name = "exact counts"
tables = { "his.patient" = "= 200", visit = "= 100" }
[[check]]
kind = "sql"
name = "routines, triggers and events are there"
query = """
select (select count(*) from information_schema.routines where routine_schema = database())
     + (select count(*) from information_schema.triggers where trigger_schema = database())
     + (select count(*) from information_schema.events where event_schema = database())"""
expect = "= 4"
[[check]]
kind = "freshness"
query = "select max(seen) from patient"
"#;

const WHOLE: &str = "$dump --routines --events his > out/his.sql";
const DUMP: &str = "dump = \"his.sql\"";

#[track_caller]
fn problem(drilled: Drilled, problem: &str) {
    drilled.ends("FAILED").blames_backup("service_failed", &[("problem", problem)]);
}

pub(super) fn warning(drilled: &Drilled, problem: &str) -> bool {
    drilled.findings().iter().any(|f| f["finding"] == "service_failed" && f["severity"] == "warn" && f["problem"] == problem)
}

#[test]
fn every_form_of_a_dump_is_loaded_and_answers() {
    let backups = Backups::new();
    for (script, step) in [
        (WHOLE, DUMP),
        ("$dump --routines --events --databases his --skip-comments > out/his.sql", DUMP),
        // the whole server: its users and routines as rows of its own tables
        ("$dump --all-databases --events --master-data=1 > out/all.sql", "dump = \"all.sql\"\ndatabase = \"his\""),
        // a directory of them, users beside
        (
            "$dump --system=users > out/users.sql; mkdir out/d; $dump --routines --events his > out/d/his.sql; \
             $dump mysql help_topic > out/d/other.sql",
            "dump = \"d\"\nusers = \"users.sql\"\ndatabase = \"his\"",
        ),
    ] {
        backups.back_up(script);
        let drilled = backups.drill(step, CHECKS).ends("PASSED");
        let report = &drilled.report;
        let service = &report["services"][0];
        assert_eq!((&service["engine"], &service["name"]), (&"mariadb".into(), &"mariadb".into()), "{script}");
        assert!(service["version"].as_str().unwrap().contains("MariaDB"), "{service}");
        if !script.contains("--skip-comments") {
            assert!(service["recorded"].as_str().unwrap().contains("MariaDB"), "{service}");
        }
        assert!(!warning(&drilled, "other_version") && !warning(&drilled, "newer_client"), "{:#?}", drilled.findings());
        assert_eq!(report["measurements"]["data_age"]["source"], "content");
        let phases: Vec<_> = report["timeline"].as_array().unwrap().iter().map(|p| p["phase"].as_str().unwrap()).collect();
        assert!(phases.windows(3).any(|w| w == ["load", "ready", "verify"]), "{phases:?}");
        drilled.left_nothing();
    }
}

#[test]
fn a_mariadb_dump_that_broke_off_after_its_last_row_fails() {
    let backups = Backups::new();
    // every row of every table, and nothing after them
    backups.back_up(&format!("{WHOLE}; tac out/his.sql | sed '0,/^INSERT INTO /{{/^INSERT INTO /!d}}' | tac > cut; mv cut out/his.sql"));
    problem(backups.drill(DUMP, CHECKS), "input_truncated");
    // likewise one without comments, which says nothing of its end
    backups.back_up("$dump --skip-comments his > whole.sql; head -n -8 whole.sql > out/his.sql");
    problem(backups.drill(DUMP, CHECKS), "input_truncated");
}

#[test]
fn routines_and_events_left_out_of_a_dump_are_told_and_fail() {
    let backups = Backups::new();
    // without a view that would miss them
    backups.sql("drop view his.risky");
    backups.back_up("$dump his > out/his.sql");
    let drilled = backups.drill(DUMP, CHECKS).ends("FAILED");
    drilled.blames_backup("check_failed", &[("check", "routines, triggers and events are there")]);
    assert!(warning(&drilled, "left_out"), "{:#?}", drilled.findings());
    // a view that calls one of them is found without anybody's check
    backups.sql("use his; create view risky as select id, risk(id) r from patient");
    backups.back_up("$dump his > out/his.sql");
    problem(backups.drill(DUMP, ""), "routines_missing");
}

#[test]
fn a_mariadb_dump_that_does_not_come_back_fails_with_its_reason() {
    let backups = Backups::new();
    let damaged = |sed: &str| backups.back_up(&format!("{WHOLE}; sed -i \"{sed}\" out/his.sql"));
    // users that define what runs in their name, and are nowhere
    damaged("s/DEFINER=.root.@.localhost. FUNCTION/DEFINER=gone@localhost FUNCTION/");
    problem(backups.drill(DUMP, CHECKS), "roles_missing");
    damaged("s/DEFINER=.root.@.localhost. SQL SECURITY/DEFINER=gone@localhost SQL SECURITY/");
    problem(backups.drill(DUMP, CHECKS), "roles_missing");
    // rows twice, and a table that is not there
    damaged("s/^INSERT INTO .visit. VALUES/&\\n(1,1),/");
    let drilled = backups.drill(DUMP, CHECKS).ends("FAILED");
    drilled.blames_backup("service_failed", &[("problem", "load_refused"), ("how", "ER_ERROR_DURING_COMMIT")]);
    // a full disk's zeros, nothing at all, nothing there
    backups.back_up("head -c 100000 /dev/zero > out/his.sql");
    problem(backups.drill(DUMP, CHECKS), "input_unusable");
    backups.back_up("touch out/his.sql");
    problem(backups.drill(DUMP, CHECKS), "input_unusable");
    backups.back_up("touch out/other");
    problem(backups.drill(DUMP, CHECKS), "input_missing");
    // tables without a row: a server that answers is no restore
    backups.back_up("$dump --no-data --routines --events his > out/his.sql");
    problem(backups.drill(DUMP, CHECKS), "empty");
    // what a newer client writes, and a server of the recorded series refuses
    damaged("s/Distrib 10[.][0-9]*/Distrib 99.1/; s/^CREATE TABLE .visit./SET new_mode = 1;\\n&/");
    problem(backups.drill(DUMP, CHECKS), "newer_client");
    // the patient's name stands nowhere, whatever the server said of his row
    damaged("s/^INSERT INTO .visit. VALUES/insert into patient values ('x', '{PATIENT}');\\n&/");
    let drilled = backups.drill(DUMP, CHECKS).ends("FAILED");
    assert!(!holds(&std::fs::read(drilled.evidence.join("report.json")).unwrap(), PATIENT.as_bytes()));
}

#[test]
fn what_this_host_lacks_says_nothing_about_a_mariadb_dump() {
    let backups = Backups::new();
    let damaged = |sed: &str| backups.back_up(&format!("{WHOLE}; sed -i \"{sed}\" out/his.sql"));
    let lacking = |drilled: Drilled, reason: &str| {
        drilled.ends("INCONCLUSIVE").blames_runner("service_could_not_run", &[("service", "mariadb"), ("reason", reason)]);
    };
    // MySQL's own collation, in a dump of MySQL
    damaged("s/^-- Server version.*/-- Server version\\t8.0.36/; s/CREATE TABLE .visit. .*/&\\nx text collate utf8mb4_0900_ai_ci,/");
    let drilled = backups.drill(DUMP, CHECKS);
    assert!(warning(&drilled, "other_version"), "{:#?}", drilled.findings());
    lacking(drilled, "of MySQL");
    damaged("s/^CREATE TABLE .visit./INSTALL SONAME 'ha_nowhere';\\n&/");
    lacking(backups.drill(DUMP, CHECKS), "plugin");
    // under a dump's own settings, the server takes another engine and says so in a warning alone
    damaged("s/^) ENGINE=InnoDB/) ENGINE=ROCKSDB/");
    lacking(backups.drill(DUMP, CHECKS), "storage engine");
    backups.back_up(WHOLE);
    lacking(backups.drill(&format!("{DUMP}\nversion = \"5.1\""), CHECKS), "MariaDB 5.1");
    lacking(backups.drill(&format!("{DUMP}\nsettings = {{ no_such_setting = \"1\" }}"), CHECKS), "settings");
    // whether a server is ready cannot be asked of it under the scenario's own settings
    backups.back_up(PHYSICAL);
    lacking(backups.drill("base = \"full\"\nsettings = { max_join_size = \"1\" }", CHECKS), "ER_TOO_BIG_SELECT");
    backups.back_up(WHOLE);
    // checks: refused ones blame the backup, wrong ones do not, and none changes what was restored
    let one = |query: &str, expect: &str| {
        let checks = format!("[[check]]\nkind = \"sql\"\nname = \"asked\"\nquery = \"{query}\"\nexpect = \"{expect}\"");
        backups.drill(DUMP, &checks)
    };
    one("select count(*) from patient", "> 200").ends("FAILED").blames_backup("check_failed", &[("check", "asked")]);
    one("select count(*) from encounter", ">= 0").ends("FAILED").blames_backup("query_refused", &[("state", "ER_NO_SUCH_TABLE")]);
    for wrong in ["selct", "delete from patient"] {
        one(wrong, ">= 0").ends("INCONCLUSIVE").blames_runner("could_not_run", &[("check", "asked")]);
    }
    one("select photo = unhex('00ff27') from patient where id = 7", "= 1").ends("PASSED");
}

/// A full backup, and an increment of it with one visit more; what was written before is in the files, not in the redo log alone.
const PHYSICAL: &str = "db='mariadb --no-defaults -S socket -u root his --skip-column-names -e'; \
    flush() { until [ $($db \"show status like 'Innodb_checkpoint_age'\" | cut -f2) -lt 1000 ]; do sleep 0.1; done; }; \
    $db 'delete from visit where id > 100; set global innodb_max_dirty_pages_pct = 0'; flush; \
    $backup --target-dir=$PWD/out/full 2>>log.backup; \
    $db 'insert into visit values (101, 1)'; \
    $backup --target-dir=$PWD/out/day --incremental-basedir=$PWD/out/full 2>>log.backup";
const BASE: &str = "base = \"full\"\nincrementals = [\"day\"]\ndatabase = \"his\"";
const ASKED: &str = r#"
[[check]]
kind = "sql"
name = "exact counts"
tables = { patient = "= 200", visit = "= 101" }
[[check]]
kind = "integrity"
[[check]]
kind = "freshness"
query = "select max(seen) from patient"
"#;

#[test]
fn physical_backups_of_mariadb_are_prepared_started_and_asked() {
    let backups = Backups::new();
    backups.back_up(PHYSICAL);
    let drilled = backups.drill(BASE, ASKED).ends("PASSED");
    let service = &drilled.report["services"][0];
    assert!(service["method"].as_str().unwrap().contains("an increment"), "{service}");
    assert!(service["recorded"].as_str().unwrap().contains("MariaDB"), "{service}");
    drilled.left_nothing();
    // the full one alone lacks the newest visit
    let alone = backups.drill("base = \"full\"\ndatabase = \"his\"", ASKED).ends("FAILED");
    alone.blames_backup("check_failed", &[("check", "exact counts")]);
    // as one stream; and a copy of the data directory of a server that crashed
    for (script, step) in [
        ("$backup --stream=xbstream --target-dir=$PWD/t 2>>log.backup > out/his.xbstream", "base = \"*.xbstream\"\ndatabase = \"his\""),
        ("kill -9 $(cat pid); cp -r data out/copy; rm -f out/copy/bin.*", "base = \"copy\"\ndatabase = \"his\""),
    ] {
        backups.back_up(script);
        backups.drill(step, ASKED).ends("PASSED");
    }
}

/// A visit whose commit stands in the binary log alone when the server dies: in its own files it is prepared, and no more.
const COMMITTED: &str = "$db 'set global innodb_flush_log_at_timeout = 2700; set global innodb_flush_log_at_trx_commit = 1; \
    do sleep(1.5); insert into visit values (102, 1)'";

#[test]
fn every_form_of_a_backup_comes_back_for_an_ordinary_user() {
    let backups = Backups::new();
    backups.back_up(&format!(
        "{PHYSICAL}; $dump --routines --events --master-data=2 --gtid his > out/his.sql; $dump --all-databases --events > out/all.sql; \
         mkdir out/d; $dump --system=users > out/users.sql; $dump --routines --events his > out/d/his.sql; $dump mysql help_topic > out/d/other.sql; \
         $backup --stream=xbstream --target-dir=$PWD/t 2>>log.backup > out/his.xbstream; \
         {COMMITTED}; mkdir out/binlogs; cp data/bin.0* out/binlogs; kill -9 $(cat pid); cp -r data out/copy"
    ));
    let (mut steps, mut checks) = (String::new(), String::new());
    for (name, from, visits) in [
        ("dump", "dump = \"his.sql\"", 101),
        ("server", "dump = \"all.sql\"", 101),
        ("dumps", "dump = \"d\"\nusers = \"users.sql\"", 101),
        ("increment-logs", "base = \"full\"\nincrementals = [\"day\"]\nbinlogs = \"binlogs\"", 102),
        ("stream", "base = \"his.xbstream\"", 101),
        ("copy", "base = \"copy\"", 102),
        ("dump-logs", "dump = \"his.sql\"\nbinlogs = \"binlogs\"", 102),
        ("stream-logs", "base = \"his.xbstream\"\nbinlogs = \"binlogs\"", 102),
    ] {
        steps += &format!(
            "[[restore]]\nmethod = \"mariadb\"\nname = \"{name}\"\n{from}\ndatabase = \"his\"\n\
             settings = {{ innodb_buffer_pool_size = \"16M\" }}\n"
        );
        checks += &format!(
            "[[check]]\nkind = \"sql\"\nname = \"visits of {name}\"\nservice = \"{name}\"\nquery = \"select count(*) from visit\"\n\
             expect = \"= {visits}\"\n[[check]]\nkind = \"integrity\"\nname = \"integrity of {name}\"\nservice = \"{name}\"\n"
        );
    }
    let sandbox = "[sandbox]\nmemory = \"2GiB\"\nprocesses = 512\ntime = \"10m\"\nscratch = { kind = \"tmpfs\", size = \"3GiB\" }\n";
    let scenario = backups.home.named_scenario("his", &format!("{sandbox}{steps}{checks}"));
    let output = ordinary_user(&backups.home, &["run", scenario.to_str().unwrap()]).output().unwrap();
    let drilled = backups.home.drilled(said(output)).ends("PASSED");
    assert_eq!(drilled.report["services"].as_array().unwrap().len(), 8);
    drilled.left_nothing();
}

#[test]
fn a_physical_backup_of_mariadb_that_is_damaged_fails_with_its_reason() {
    let backups = Backups::new();
    let damaged = |harm: &str| backups.back_up(&format!("{PHYSICAL}; {harm}"));
    damaged("rm out/full/ib_logfile0");
    let drilled = backups.drill(BASE, ASKED).ends("FAILED");
    drilled.blames_backup("service_failed", &[("problem", "input_damaged"), ("how", "ib_logfile0")]);
    // rot in a page that no redo touches: only its checksum tells
    damaged("printf '\\377\\377' | dd of=out/full/his/patient.ibd bs=1 seek=$((3 * 16384 + 9000)) conv=notrunc status=none");
    let drilled = backups.drill("base = \"full\"\ndatabase = \"his\"", ASKED).ends("FAILED");
    drilled.blames_backup("service_failed", &[("problem", "input_damaged")]);
    // the increment of a night in between is not there
    damaged(
        "$db 'update visit set patient = 2'; flush; rm -r out/day; $backup --target-dir=$PWD/out/day --incremental-basedir=$PWD/out/full 2>>log.backup; \
         $db 'update visit set patient = 3'; \
         $backup --target-dir=$PWD/out/next --incremental-basedir=$PWD/out/day 2>>log.backup",
    );
    let drilled = backups.drill("base = \"full\"\nincrementals = [\"next\"]", ASKED).ends("FAILED");
    drilled.blames_backup("service_failed", &[("problem", "log_hole"), ("how", "LSN")]);
    problem(backups.drill("base = \"day\"", ASKED), "input_unusable");
    // a stream that broke off, and what is none
    backups.back_up(
        "$backup --stream=xbstream --target-dir=$PWD/t 2>>log.backup > stream; head -c $(($(stat -c %s stream) / 2)) stream > out/his.xbstream; \
         echo text > out/text; mkdir out/nothing; touch out/nothing/file",
    );
    backups.drill("base = \"*.xbstream\"", ASKED).ends("FAILED").because("service_failed");
    for other in ["text", "nothing"] {
        problem(backups.drill(&format!("base = \"{other}\""), ASKED), "input_unusable");
    }
    // a server of another series, which this host lacks: nothing is learned of the backup
    damaged("sed -i 's/^server_version = 10[.]11/server_version = 10.3/' out/full/xtrabackup_info out/day/xtrabackup_info");
    let drilled = backups.drill(BASE, ASKED).ends("INCONCLUSIVE");
    drilled.blames_runner("service_could_not_run", &[("reason", "MariaDB 10.3")]);
    // a copy of a server that died, without the binary log that says what it had committed
    damaged(&format!("{COMMITTED}; kill -9 $(cat pid); cp -r data out/copy; rm out/copy/bin.*"));
    let drilled = backups.drill("base = \"copy\"", ASKED).ends("FAILED");
    drilled.blames_backup("service_failed", &[("problem", "log_hole"), ("how", "last binary log")]);
}

#[test]
fn a_mariadb_that_does_not_start_or_does_not_answer_fails_with_its_reason() {
    let backups = Backups::new();
    let copied = |harm: &str| {
        backups.back_up(&format!("kill -STOP $(cat pid); cp -r data out/copy; kill -CONT $(cat pid); cd out/copy; {harm}; cd ../.."));
        backups.drill("base = \"copy\"", ASKED).ends("FAILED")
    };
    for (harm, how) in [
        // the page that says where InnoDB's own tables are
        ("dd if=/dev/zero of=ibdata1 bs=16384 seek=7 count=1 conv=notrunc status=none", "a page or file is corrupted"),
        ("dd if=/dev/urandom of=ib_logfile0 bs=512 seek=1 count=64 conv=notrunc status=none", "of its redo log"),
        ("truncate -s 1M ibdata1", "not as long as it should be"),
        ("rm -r mysql", "privilege tables"),
        ("rm his/*.ibd", "files of its tables are missing"),
    ] {
        copied(harm).blames_backup("service_failed", &[("problem", "crashed"), ("how", how)]);
    }
    // nothing has to be recovered, and so nobody misses them
    backups.server.shell(&[], "mariadb-admin --no-defaults -S socket -u root shutdown; cp -r data ended");
    backups.back_up("cp -r ended out/copy; rm out/copy/his/*.ibd");
    let drilled = backups.drill("base = \"copy\"", ASKED).ends("FAILED");
    drilled.blames_backup("service_failed", &[("problem", "never_ready"), ("how", "it answers with an error (ER_")]);
}

/// A directory of programs, each a script of bash, where a sandbox may be shown it.
pub(super) fn programs(scripts: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let may_run = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    may_run(directory.path());
    for (name, script) in scripts {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
        may_run(&path);
    }
    directory
}

#[test]
fn a_runner_without_room_or_time_learns_nothing_of_a_mariadb() {
    let backups = Backups::new();
    // rows for which there is no room, beside the dump that they are in
    backups.sql(
        "use his; create table scan (id int primary key, page text); insert into scan select seq, hex(random_bytes(1000)) from seq_1_to_60000",
    );
    backups.back_up(WHOLE);
    let text = std::fs::read_to_string(backups.scenario(DUMP, ASKED)).unwrap().replace("768MiB", "280MiB");
    let full = backups.home.drill(&backups.home.write("scenarios/his.toml", text)).ends("INCONCLUSIVE");
    full.blames_runner("service_could_not_run", &[("reason", "scratch ran full")]);
    // a server that starts and never answers
    let silent = "[ \"$1\" = --version ] && exec /usr/sbin/mariadbd --version\nexec sleep 1000";
    let tools = programs(&[("mariadbd", silent)]);
    backups.sql("drop table his.scan");
    backups.back_up(PHYSICAL);
    let mut scenario = with_tools(backups.scenario(BASE, ASKED), tools.path());
    let text = std::fs::read_to_string(&scenario).unwrap().replace("time = \"1m\"", "time = \"20s\"");
    scenario = backups.home.write("scenarios/his.toml", text);
    backups.home.drill(&scenario).ends("INCONCLUSIVE").blames_runner("sandbox_limit", &[("limit", "time")]);
}

#[test]
fn a_rotten_table_of_any_engine_fails_the_integrity_check() {
    let backups = Backups::new();
    let checks = |depth: &str| format!("[[check]]\nkind = \"integrity\"\ndepth = \"{depth}\"\n");
    for (engine, file) in [("innodb", "ibd"), ("aria", "MAD"), ("myisam", "MYD")] {
        backups.sql(&format!(
            "use his; create or replace table rotten (id int primary key, word char(30) not null, key (word)) engine = {engine}; \
             insert into rotten select seq, concat('word-', seq) from seq_100_to_600; flush tables"
        ));
        // the last one of InnoDB is in an index; its page gets a checksum that is right again
        let harm = |word: &str| {
            format!(
                "{PHYSICAL}; file=out/full/his/rotten.{file}; \
                 at=$(LC_ALL=C grep -a -b -o word-300 $file | tail -1 | cut -d: -f1); \
                 printf {word} | dd of=$file bs=1 seek=$at conv=notrunc status=none; \
                 [ {engine} != innodb ] || innochecksum --no-check --write $file"
            )
        };
        let full = "base = \"full\"\ndatabase = \"his\"";
        backups.back_up(&harm("word-300"));
        backups.drill(full, &checks("full")).ends("PASSED");
        backups.back_up(&harm("word-900"));
        let drilled = backups.drill(full, &checks("full")).ends("FAILED");
        drilled.blames_backup("integrity_broken", &[("check", "integrity"), ("damaged", "1"), ("asked", "EXTENDED")]);
    }
}

#[test]
fn a_restored_mariadb_is_compared_with_what_it_was() {
    let backups = Backups::new();
    let checks = "[[check]]\nkind = \"schema\"\n[[check]]\nkind = \"content\"\ntables = [\"patient\", \"visit\"]\n\
        [[check]]\nkind = \"integrity\"\n";
    backups.back_up(WHOLE);
    backups.drill(DUMP, &format!("{checks}{CHECKS}")).ends("PASSED");
    let again = backups.drill(DUMP, checks).ends("PASSED");
    assert!(!again.findings().iter().any(|f| f["severity"] != "note"), "{:#?}", again.findings());
    // routines and events are not in it, and no view misses them: the schema does
    backups.sql("drop view his.risky");
    backups.back_up("$dump his > out/his.sql");
    let drilled = backups.drill(DUMP, checks).ends("FAILED");
    assert!(drilled.findings().iter().any(|f| f["check"] == "schema" && f["severity"] == "fail"), "{:#?}", drilled.findings());
    // one value of one row
    backups.sql("use his; update visit set patient = 7 where id = 3");
    backups.back_up("$dump --routines --events his > out/his.sql");
    let drilled = backups.drill(DUMP, checks).ends("FAILED");
    assert!(drilled.findings().iter().any(|f| f["check"] == "content" && f["severity"] == "fail"), "{:#?}", drilled.findings());
}

#[test]
fn recipes_that_start_mariadb() {
    let backups = Backups::new();
    let home = &backups.home;
    for (name, prefix, script) in [
        ("mariadb-dump", "his-sql", "$dump --system=users > out/users.sql; $dump --routines --events his > out/his.sql"),
        ("mariadb-physical", "his-base", PHYSICAL),
    ] {
        backups.back_up(script);
        let object = home.bare_name(1);
        home.shell(&format!("mkdir -p {prefix}; mv backups/{object} {prefix}/his-{object}"));
        let place = [("url", toml::Value::from(format!("file:../{prefix}")))];
        let scenario = match name {
            "mariadb-dump" => at_home(home, "mariadb-dump", &place),
            _ => at_home(home, "mariadb-physical", &place),
        };
        let text = std::fs::read_to_string(&scenario).unwrap();
        std::fs::write(&scenario, text.replace("endpoint = \"https://s3.example.org\"\n", "")).unwrap();
        home.drill(&scenario).ends("PASSED");
    }
}
