//! Restored databases compared with each other, with files beside them, and with what they were, whatever engine and form they come back in.

use super::checks::{check, clinic, sql};
use super::pitr::Recovered;
use super::postgres::Dumps;
use super::sqlite::Registry;
use crate::drills::{Drilled, Home, PATIENT};

/// Two services of one backup, the second of which should have what the first has.
const TWO: &str = "dump = \"ehr.dump\"\nglobals = \"globals.sql\"\nname = \"primary\"\ndatabase = \"ehr\"\n\
    [[restore]]\nmethod = \"postgres\"\ndump = \"replica.dump\"\nglobals = \"globals.sql\"\nname = \"replica\"\ndatabase = \"ehr\"\n";

#[test]
fn two_restored_databases_have_the_same_rows_or_fail() {
    let dumps = clinic();
    sql(&dumps, "create database replica template ehr");
    let back_up = |change: &str| {
        dumps.server.shell(&[("SQL", change.to_owned())], "psql -q -v ON_ERROR_STOP=1 replica -c \"$SQL\"");
        dumps.back_up("pg_dump -F custom -f out/ehr.dump ehr; pg_dump -F directory -f out/replica.dump replica; cp globals.sql out");
    };
    let same = |more: &str| format!("[[check]]\nkind = \"content\"\nservice = \"primary\"\nsame_as = {{ service = \"replica\" }}\n{more}");
    let drill = |more: &str| dumps.drill(TWO, &same(more));
    let differs = |drilled: Drilled, fields: &[(&str, &str)]| drilled.ends("FAILED").blames_backup("content_differs", fields);
    // the same rows in another order
    back_up(
        "create table moved as select * from code_system order by md5(code); truncate code_system; insert into code_system select * from moved; drop table moved",
    );
    let good = drill("").ends("PASSED");
    let compared = check(&good, "content");
    assert_eq!(
        (&compared["assertions"], compared["observed"].as_str().unwrap().contains("of 3 tables")),
        (&1.into(), true),
        "{compared:#}"
    );
    // one letter of one row
    back_up("update code_system set display = 'Displax 7' where code = 'C7'");
    differs(drill(""), &[("changed", "1"), ("missing", "0"), ("rows_expected", "2000"), ("rows_found", "2000")]);
    drill("tables = [\"patient\", \"encounter\"]").ends("PASSED");
    // a table that either has and the other has not
    back_up("update code_system set display = 'Display 7' where code = 'C7'; drop table encounter");
    differs(drill(""), &[("changed", "0"), ("missing", "1"), ("rows_found", "300")]);
    drill("tables = [\"encounter\"]").ends("FAILED").blames_backup("query_refused", &[("state", "undefined_table")]);
    back_up("create table encounter as select * from generate_series(1, 5)");
    differs(drill(""), &[("changed", "1")]);
    back_up("drop table encounter; create table extra as select 1 as a");
    differs(drill(""), &[("missing", "2")]);
    // nothing is the same as nothing, and proves nothing
    sql(&dumps, "create table empty (a int)");
    back_up("create table empty (a int)");
    let empty = drill("tables = [\"empty\"]").ends("FAILED");
    empty.blames_backup("check_failed", &[("check", "content"), ("observed", "without a row")]);
    // two databases of one server; and one that is not there
    dumps.back_up("pg_dumpall > out/all.sql");
    let all = "dump = \"all.sql\"\ndatabase = \"ehr\"";
    let other = |database: &str| {
        let tables = "tables = [\"patient\", \"code_system\"]";
        dumps.drill(all, &format!("[[check]]\nkind = \"content\"\nsame_as = {{ database = \"{database}\" }}\n{tables}"))
    };
    other("replica").ends("PASSED");
    other("nobody").ends("FAILED").blames_backup("query_refused", &[("state", "invalid_catalog_name")]);
}

#[test]
fn databases_of_two_kinds_are_not_compared_row_by_row() {
    let dumps = Dumps::new();
    dumps.home.shell("sqlite3 a.db 'create table patient (id); insert into patient values (1)'");
    std::fs::copy(dumps.home.path("a.db"), dumps.server.path("a.db")).unwrap();
    dumps.back_up("pg_dump -F custom -f out/ehr.dump ehr; cp globals.sql a.db out");
    let step = "dump = \"ehr.dump\"\nglobals = \"globals.sql\"\n[[restore]]\nmethod = \"sqlite\"\nfile = \"a.db\"\n";
    let check = "[[check]]\nkind = \"content\"\nservice = \"postgres\"\nsame_as = { service = \"sqlite\" }\n";
    let apart = dumps.drill(step, check).ends("INCONCLUSIVE");
    apart.blames_runner("could_not_run", &[("check", "content"), ("reason", "two kinds")]);
    let nobody = dumps.drill(step, &check.replace("\"sqlite\"", "\"mysql\"")).ends("INCONCLUSIVE");
    nobody.blames_runner("could_not_run", &[("check", "content"), ("reason", "no service is called `mysql`")]);
}

#[test]
fn fields_of_files_refer_to_fields_of_files() {
    let home = Home::new();
    let tree = |harm: &str| {
        home.shell(&format!(
            "rm -rf tree; mkdir -p tree/export tree/lists; echo id,name > tree/lists/patients.csv
             for i in $(seq 40); do
               echo \"$i,{PATIENT}\" >> tree/lists/patients.csv
               echo '{{\"subject\": {{\"reference\": \"Patient/'$i'\"}}, \"seen\": [{{\"by\": \"d1\"}}, {{\"by\": \"d2\"}}]}}' > tree/export/$i.json
             done
             for i in 1 2; do echo '{{\"id\": \"d'$i'\"}}' >> tree/lists/doctors.ndjson; done
             cd tree; {harm}; cd ..; tar -C tree -cf - . | zstd -q | age -r $RECIPIENT > backups/{}",
            home.bare_name(1)
        ));
    };
    let patients = "from = { files = \"export/*.json\", field = \"subject.reference\", name = \"^Patient/(.+)$\" }\n\
                    to = { files = \"lists/*.csv\", field = \"id\" }";
    let doctors = "from = { files = \"export/*.json\", field = \"seen.by\" }\nto = { files = \"lists/doctors.ndjson\", field = \"id\" }";
    let drill = |sides: &str| home.drill(&home.scenario(&format!("[[check]]\nkind = \"references\"\n{sides}")));
    let broken = |sides: &str, values: &str, missing: &str| {
        drill(sides).ends("FAILED").blames_backup("references_broken", &[("values", values), ("missing", missing)]);
    };
    tree("true");
    let good = drill(patients).ends("PASSED");
    assert!(check(&good, "references")["observed"].as_str().unwrap().starts_with("40 different values refer to 40 others, 0 of them"));
    drill(doctors).ends("PASSED");
    // the other way round: a patient who was never seen
    let back = "from = { files = \"lists/*.csv\", field = \"id\" }\n\
                to = { files = \"export/*.json\", field = \"subject.reference\", name = \"^Patient/(.+)$\" }";
    drill(back).ends("PASSED");
    tree("rm export/7.json export/8.json");
    broken(back, "40", "2");
    tree("sed -i '/^7,/ d' lists/patients.csv; sed -i 1d lists/doctors.ndjson");
    broken(patients, "40", "1");
    broken(doctors, "2", "1");
    // a field that nothing has refers to nothing, and proves nothing
    let none = drill(&patients.replace("subject.reference", "subject.referense")).ends("FAILED");
    none.blames_backup("check_failed", &[("check", "references"), ("observed", "none")]);
    // what cannot be read cannot be held against anything: half a document, a line, a table without the column
    for (harm, sides) in [
        ("truncate -s 30 export/9.json", patients),
        ("echo '{\"id\": \"d' >> lists/doctors.ndjson", doctors),
        ("echo number,name > lists/more.csv", patients),
        (": > lists/more.csv", patients),
        ("printf '\\377\\376,x\\n' >> lists/patients.csv", back),
    ] {
        tree(harm);
        let unread = drill(sides).ends("FAILED");
        unread.blames_backup("check_failed", &[("check", "references"), ("observed", "1 documents, lines or values that cannot")]);
    }
}

#[test]
fn rows_refer_to_fields_of_files() {
    let dumps = clinic();
    let back_up = |harm: &str| {
        let list = "(echo encounter,file; for i in $(seq 300); do echo $i,$i.pdf; done) > out/index.csv";
        dumps.back_up(&format!("pg_dump -F custom -f out/ehr.dump ehr; cp globals.sql out; {list}; {harm}"));
    };
    let drill = || {
        let sides = "from = { query = \"select id from encounter\" }\nto = { files = \"index.csv\", field = \"encounter\" }";
        dumps.drill(super::postgres::WITH_GLOBALS, &format!("[[check]]\nkind = \"references\"\n{sides}"))
    };
    back_up("true");
    drill().ends("PASSED");
    back_up("sed -i '/^7,/ d' out/index.csv");
    drill().ends("FAILED").blames_backup("references_broken", &[("values", "300"), ("missing", "1")]);
}

const SCHEMA_AND_CONTENT: &str = "[[check]]\nkind = \"schema\"\n[[check]]\nkind = \"content\"\n";

#[test]
fn a_restored_sqlite_is_compared_with_what_it_was() {
    let registry = Registry::new();
    let file = "file = \"*.db\"\nmade_by = \"backup\"";
    let checks = format!("{SCHEMA_AND_CONTENT}[[check]]\nkind = \"integrity\"\n");
    registry.live("sqlite3 live.db 'create table canary (nonce text)'; sqlite3 live.db 'vacuum into \"out/registry.db\"'; cp out/registry.db whole.db");
    // the integrity of it is an assertion: the first drill passes, and is the baseline of the next
    registry.drill(file, &checks).ends("PASSED");
    let second = registry.drill(file, &checks).ends("PASSED");
    let asked = ["schema", "content", "integrity"].map(|name| check(&second, name)["assertions"].clone());
    assert_eq!(asked, [1, 1, 1].map(serde_json::Value::from));
    let harmed = |statement: &str| {
        registry.harm(&format!("cp whole.db out/registry.db; sqlite3 out/registry.db \"{statement}\""));
        registry.drill(file, &checks).ends("FAILED")
    };
    for (statement, class) in [("drop index visit_seen", "index"), ("drop view today", "view"), ("drop trigger tidy", "trigger")] {
        let drilled = harmed(statement);
        assert_eq!(drilled.because("schema_differs")["missing"], serde_json::json!({ class: 1 }), "{statement}");
        assert_eq!(check(&drilled, "content")["outcome"], "passed");
    }
    harmed("update patient set name = 'X' where id = 7").blames_backup("content_differs", &[("changed", "1"), ("missing", "0")]);
    harmed("delete from visit where rowid = 9").blames_backup("content_differs", &[("changed", "1"), ("rows_found", "241")]);
    harmed("delete from patient where id = 3").blames_backup("integrity_broken", &[("check", "integrity")]);
    // in the form of a dump it is the same database
    registry.harm("rm out/*; sqlite3 whole.db .dump > out/registry.sql");
    registry.drill("dump = \"*.sql\"", &checks).ends("PASSED");
}

#[test]
fn a_canary_is_looked_for_in_sqlite_and_in_a_recovered_cluster() {
    let registry = Registry::new();
    registry.live("sqlite3 live.db 'create table canary (nonce text)'; sqlite3 live.db 'vacuum into \"out/registry.db\"'");
    let ask = "[[check]]\nkind = \"canary\"\nquery = \"select nonce from canary order by rowid desc limit 1\"\n";
    let scenario = registry.scenario("file = \"*.db\"\nmade_by = \"backup\"", ask);
    let plant = |home: &Home, scenario: &std::path::Path, command: &str| {
        home.fire(&["canary", scenario.to_str().unwrap(), "--", "bash", "-c", command]).exits(0);
    };
    // the next minute: what was planted until now lies before it
    let fresh = |home: &Home| {
        let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(61);
        home.shell(&format!("mv backups/* backups/{}.tar.zst.age", soon.strftime("%Y-%m-%dT%H%M")));
    };
    let missing = |drilled: Drilled, observed: &str| drilled.ends("FAILED").blames_backup("canary_missing", &[("observed", observed)]);
    plant(&registry.home, &scenario, "sqlite3 out/registry.db \"insert into canary values ('$FIREDRILL_CANARY')\"");
    missing(registry.home.drill(&scenario), "no canary");
    registry.harm("rm backups/*");
    fresh(&registry.home);
    registry.home.drill(&scenario).ends("PASSED");
    // planted again, and not backed up again
    plant(
        &registry.home,
        &scenario,
        "sqlite3 elsewhere.db \"create table canary (nonce); insert into canary values ('$FIREDRILL_CANARY')\"",
    );
    missing(registry.home.drill(&scenario), "was planted before the capture");

    // in WAL alone, which recovery has to bring
    let all = Recovered::new();
    let step = format!("{}\n", super::pitr::FROM_ARCHIVE);
    let ask = "[[check]]\nkind = \"canary\"\nquery = \"select nonce from canary\"\n";
    let scenario = all.scenario(&step, ask);
    let psql = format!("psql -q -h {} -U postgres postgres", all.server.path("").display());
    plant(&all.home, &scenario, &format!("{psql} -c \"create table canary as select '$FIREDRILL_CANARY' as nonce\""));
    let archived = "last=$(psql -qAt postgres -c 'select pg_walfile_name(pg_switch_wal())'); for _ in $(seq 100); do [ -e wal/$last ] && break; sleep 0.1; done";
    all.server.shell(&[], archived);
    all.back_up_all("true");
    fresh(&all.home);
    let found = all.home.drill(&scenario).ends("PASSED");
    assert_eq!(found.report["measurements"]["data_age"]["source"], "content");
    let before = all.scenario(&format!("{step}target = {{ name = \"after 110\" }}\n"), ask);
    all.home.drill(&before).ends("FAILED").blames_backup("query_refused", &[("state", "undefined_table")]);
}

#[test]
fn a_recovered_cluster_is_compared_with_what_it_was() {
    let all = Recovered::new();
    all.back_up_all("true");
    let drill = |target: &str| {
        let checks = format!("[[check]]\nkind = \"sql\"\nname = \"rows\"\ntables = {{ work = \">= 100\" }}\n{SCHEMA_AND_CONTENT}");
        all.home.drill(&all.scenario(&format!("{}\n{target}", super::pitr::FROM_ARCHIVE), &checks))
    };
    drill("").ends("PASSED");
    let second = drill("").ends("PASSED");
    assert_eq!(["schema", "content"].map(|name| check(&second, name)["assertions"].clone()), [1, 1].map(serde_json::Value::from));
    // another point of the same backup has other rows, under the same schema
    let earlier = drill("target = { name = \"after 104\" }").ends("FAILED");
    earlier.blames_backup("content_differs", &[("changed", "1"), ("rows_expected", "110"), ("rows_found", "104")]);
    assert_eq!(check(&earlier, "schema")["outcome"], "passed");
    let archived = "last=$(psql -qAt postgres -c 'select pg_walfile_name(pg_switch_wal())'); for _ in $(seq 100); do [ -e wal/$last ] && break; sleep 0.1; done";
    all.server
        .shell(&[], &format!("psql -q postgres -c 'drop index patient_name' -c 'alter table work alter at drop not null'; {archived}"));
    all.back_up_all("true");
    let altered = drill("").ends("FAILED");
    let differs = altered.because("schema_differs");
    assert_eq!(
        (&differs["missing"], &differs["changed"]),
        (&serde_json::json!({ "index": 1 }), &serde_json::json!({ "column": 1 })),
        "{differs:#}"
    );
    assert_eq!(check(&altered, "content")["outcome"], "passed");
}
