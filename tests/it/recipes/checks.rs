//! Questions to a restored database that compare it with what it was: schema, content, integrity, and the last drill that passed.

use serde_json::Value;

use super::postgres::{Dumps, WITH_GLOBALS};
use crate::drills::Drilled;

const ROWS: &str = "[[check]]\nkind = \"sql\"\nname = \"rows\"\ntables = { patient = \">= 500\", encounter = \">= 300\" }\n";
const SCHEMA: &str = "[[check]]\nkind = \"schema\"\n";

/// A database with an object of every usual kind, and a server that it lives on.
pub(super) fn clinic() -> Dumps {
    let dumps = Dumps::new();
    sql(
        &dumps,
        "create role reader; grant select on patient to reader; \
         create table encounter (id serial primary key, patient int not null references patient, at timestamptz not null default now()); \
         insert into encounter (patient) select i % 500 + 1 from generate_series(1, 300) i; create index on encounter (patient); \
         create table code_system (code text primary key, display text not null); \
         insert into code_system select 'C' || i, 'Display ' || i from generate_series(1, 2000) i; \
         create view adults as select * from patient where id > 18; create type sex as enum ('f', 'm', 'x'); \
         create function touch() returns trigger language plpgsql as 'begin return new; end'; \
         create trigger touched before update on patient for each row execute function touch(); \
         alter table patient enable row level security; create policy readers on patient for select to reader using (true)",
    );
    dumps.server.shell(&[], "pg_dumpall --globals-only > globals.sql");
    dumps
}

pub(super) fn sql(dumps: &Dumps, statement: &str) {
    dumps.server.shell(&[], &format!("psql -q -v ON_ERROR_STOP=1 ehr -c \"{statement}\""));
}

fn whole(dumps: &Dumps) {
    dumps.back_up("pg_dump -F custom -f out/ehr.dump ehr; cp globals.sql out");
}

#[track_caller]
pub(super) fn check(drilled: &Drilled, name: &str) -> Value {
    let checks = drilled.report["checks"].as_array().unwrap();
    checks.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("no check {name}")).clone()
}

/// The classes and counts of a failing schema finding.
#[track_caller]
fn differs(drilled: &Drilled, how: &str) -> Value {
    let finding = drilled.because("schema_differs");
    assert_eq!(finding["cause"], "backup", "{finding:#}");
    finding[how].clone()
}

#[test]
fn a_schema_is_held_to_the_last_drill_that_passed() {
    let dumps = clinic();
    let checks = format!("{ROWS}{SCHEMA}");
    whole(&dumps);
    // there is nothing to compare with: it is said, and counts for nothing
    let first = dumps.drill(WITH_GLOBALS, &checks).ends("PASSED");
    let captured = check(&first, "schema");
    assert_eq!((&captured["assertions"], &captured["findings"][0]["severity"]), (&0.into(), &"note".into()), "{captured:#}");
    assert_eq!(first.report["assertions"], 2);
    let classes = captured["seen"]["objects"].as_object().unwrap();
    for class in ["schema", "table", "column", "index", "constraint", "view", "function", "trigger", "sequence", "type", "policy", "role"] {
        assert!(classes[class].as_u64().unwrap() > 0, "{class}: {captured:#}");
    }
    // names are nobody's business
    let observed = std::fs::read_to_string(first.evidence.join("observed.json")).unwrap();
    assert!(!observed.contains("encounter") && !observed.contains("patient"), "{observed}");

    let second = dumps.drill(WITH_GLOBALS, &checks).ends("PASSED");
    let compared = check(&second, "schema");
    assert_eq!((&compared["assertions"], &compared["outcome"]), (&1.into(), &"passed".into()), "{compared:#}");
    assert_eq!(compared["seen"]["compared_with"], first.report["report_id"]);

    // LIES 5: every row, and nothing after them
    dumps.back_up("pg_dump --section=pre-data --section=data -f out/ehr.sql ehr; cp globals.sql out");
    let bare = dumps.drill(WITH_GLOBALS, &checks).ends("FAILED");
    let missing = differs(&bare, "missing");
    assert!(missing["index"] == 4 && missing["constraint"] == 4 && missing["trigger"] == 1 && missing["policy"] == 1, "{missing:#}");
    assert_eq!(check(&bare, "rows")["outcome"], "passed", "the rows alone say nothing of it");
    // LIES 6: tables restored alone
    dumps.back_up(
        "pg_dump -F custom -f all.dump ehr; pg_restore -t patient -t encounter -t code_system -f out/ehr.sql all.dump; cp globals.sql out",
    );
    let alone = differs(&dumps.drill(WITH_GLOBALS, &checks).ends("FAILED"), "missing");
    assert!(alone["index"] == 4 && alone["view"] == 1 && alone["function"] == 1, "{alone:#}");
    // LIES 12: nobody owns anything, and nobody may use it
    dumps.back_up("pg_dump --no-owner --no-acl -F custom -f out/ehr.dump ehr; cp globals.sql out");
    let orphaned = dumps.drill(WITH_GLOBALS, &checks).ends("FAILED");
    assert!(
        differs(&orphaned, "changed")["table"].as_u64() == Some(1) && differs(&orphaned, "missing").is_null(),
        "{:#?}",
        orphaned.findings()
    );

    // what is more warns, and becomes the baseline; none of the drills that failed did
    sql(&dumps, "create table billing (id int primary key)");
    whole(&dumps);
    let more = dumps.drill(WITH_GLOBALS, &checks).ends("PASSED");
    assert_eq!(more.warns("schema_differs")["additional"]["table"], 1);
    assert_eq!(check(&more, "schema")["seen"]["compared_with"], second.report["report_id"]);
    sql(&dumps, "drop table billing");
    whole(&dumps);
    let dropped = dumps.drill(WITH_GLOBALS, &checks).ends("FAILED");
    assert_eq!(differs(&dropped, "missing")["table"], 1);
    // looked at, and right: the next drill is compared with that one
    let accept = format!("{checks}[regression]\naccept = \"{}\"\n", dropped.report["report_id"].as_str().unwrap());
    let accepted = dumps.drill(WITH_GLOBALS, &accept).ends("PASSED");
    assert_eq!(check(&accepted, "schema")["outcome"], "passed");

    // a baseline that somebody touched is none, and the drill does not fall back to an older one
    let path = accepted.evidence.join("observed.json");
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replacen('a', "b", 1)).unwrap();
    let touched = dumps.drill(WITH_GLOBALS, &checks).ends("INCONCLUSIVE");
    touched.blames_runner("could_not_run", &[("check", "schema"), ("reason", "does not verify")]);
}

#[test]
fn the_content_of_tables_is_held_to_the_last_drill_that_passed() {
    let dumps = clinic();
    let content = |more: &str| format!("{ROWS}[[check]]\nkind = \"content\"\ntables = [\"code_system\"]\n{more}");
    whole(&dumps);
    dumps.drill(WITH_GLOBALS, &content("")).ends("PASSED");
    // the same rows in another order, in another format
    sql(
        &dumps,
        "create table moved as select * from code_system order by md5(code); delete from code_system; insert into code_system select * from moved; drop table moved",
    );
    dumps.back_up("pg_dump -F directory -f out/ehr.dump ehr; cp globals.sql out");
    let same = dumps.drill(WITH_GLOBALS, &content("")).ends("PASSED");
    assert_eq!(check(&same, "content")["assertions"], 1);
    // one letter of one row: as many rows as ever
    sql(&dumps, "update code_system set display = 'Displax 7' where code = 'C7'");
    whole(&dumps);
    let altered = dumps.drill(WITH_GLOBALS, &content("")).ends("FAILED");
    altered.blames_backup("content_differs", &[("changed", "1"), ("rows_expected", "2000"), ("rows_found", "2000")]);
    // a table that is not there, a baseline that was made otherwise
    let gone = dumps.drill(WITH_GLOBALS, &content("").replace("code_system", "code_sistem")).ends("FAILED");
    gone.blames_backup("query_refused", &[("state", "undefined_table")]);
    let sampled = dumps.drill(WITH_GLOBALS, &content("sample = \"10%\"")).ends("INCONCLUSIVE");
    sampled.blames_runner("could_not_run", &[("reason", "sampled in another way")]);
}

#[test]
fn a_database_is_asked_for_its_own_integrity() {
    let dumps = clinic();
    whole(&dumps);
    let psql = "/usr/lib/postgresql/15/bin/psql -q -h /kit/services/postgres/run -U postgres ehr -v ON_ERROR_STOP=1 -c";
    let depth = |depth: &str| format!("[[check]]\nkind = \"integrity\"\ndepth = \"{depth}\"\n");
    let good = dumps.drill(WITH_GLOBALS, &format!("{}{SCHEMA}", depth("full"))).ends("PASSED");
    let observed = check(&good, "integrity");
    assert!(observed["observed"].as_str().unwrap().contains("--heapallindexed --parent-check, data checksums off"), "{observed:#}");
    // what looked is gone again: it is no part of what was restored
    assert!(check(&good, "schema")["seen"]["objects"]["extension"] == 1, "{observed:#}");
    // an index that lacks rows of its table, as a broken one does: only who looks at both notices
    let harm = format!(
        "[[check]]\nkind = \"command\"\nname = \"harm\"\ncommand = [\"bash\", \"-c\", \"\"\"{psql} \"set allow_system_table_mods = on; \
         update pg_index set indisready = false, indisvalid = false, indislive = false where indexrelid = 'code_system_pkey'::regclass\" && \
         {psql} \"insert into code_system values ('lost', 'x')\" && {psql} \"update pg_index set indisready = true, indisvalid = true, \
         indislive = true where indexrelid = 'code_system_pkey'::regclass\" \"\"\"]\n"
    );
    dumps.drill(WITH_GLOBALS, &format!("{harm}{}", depth("quick"))).ends("PASSED");
    let broken = dumps.drill(WITH_GLOBALS, &format!("{harm}{}", depth("full"))).ends("FAILED");
    broken.blames_backup("integrity_broken", &[("check", "integrity"), ("damaged", "1"), ("asked", "heapallindexed")]);
    // rot in the rows of a page of a table
    let rot = format!(
        "[[check]]\nkind = \"command\"\nname = \"harm\"\ncommand = [\"bash\", \"-ec\", \"\"\"file=$({psql} \"copy (select \
         pg_relation_filepath('code_system')) to stdout\"); bin=/usr/lib/postgresql/15/bin; $bin/pg_ctl -D /kit/services/postgres/data -m fast \
         -w stop >/dev/null; head -c 1000 /dev/zero | tr '\\\\0' '\\\\377' | dd of=/kit/services/postgres/data/$file bs=1 seek=14000 conv=notrunc status=none; \
         $bin/pg_ctl -D /kit/services/postgres/data -w restart >/dev/null\"\"\"]\n"
    );
    let rotten = dumps.drill(WITH_GLOBALS, &format!("{rot}{}", depth("quick"))).ends("FAILED");
    rotten.blames_backup("integrity_broken", &[("check", "integrity")]);
}

#[test]
fn a_baseline_made_with_the_backup_is_compared_at_the_first_drill() {
    let dumps = clinic();
    let connection = format!("host={} user=postgres dbname=ehr", dumps.server.path("").display());
    let observe = || {
        let said = dumps.home.fire(&["baseline", "--postgres", &connection, "--content", "--output", "baseline.json"]).exits(0);
        said.says(&["and the rows of 3 tables observed"]);
        std::fs::copy(dumps.home.path("baseline.json"), dumps.server.path("baseline.json")).unwrap();
    };
    observe();
    let baseline: Value = serde_json::from_slice(&std::fs::read(dumps.home.path("baseline.json")).unwrap()).unwrap();
    assert_eq!(
        (&baseline["schema"], &baseline["observed"]["tables"]["public.code_system"]["rows"]),
        (&"firedrill.dev/baseline/v1".into(), &2000.into())
    );
    let checks = "[[check]]\nkind = \"schema\"\nbaseline = \"restored:baseline.json\"\nadditional = \"fail\"\n\
                  [[check]]\nkind = \"content\"\nbaseline = \"file:../baseline.json\"\n";
    let with_it = "pg_dump -F custom -f out/ehr.dump ehr; cp globals.sql baseline.json out";
    dumps.back_up(with_it);
    let first = dumps.drill(WITH_GLOBALS, checks).ends("PASSED");
    assert_eq!((&check(&first, "schema")["assertions"], &check(&first, "content")["assertions"]), (&1.into(), &1.into()));
    // rows as of a snapshot that somebody else holds, as a dump may be made of it
    dumps.server.shell(
        &[],
        "psql -q ehr -c 'begin isolation level repeatable read' -c \"copy (select pg_export_snapshot()) to '$PWD/snapshot'\" \
         -c 'select pg_sleep(20)' >/dev/null 2>&1 & for _ in $(seq 100); do [ -s snapshot ] && break; sleep 0.1; done",
    );
    sql(&dumps, "delete from encounter where id > 295");
    let snapshot = std::fs::read_to_string(dumps.server.path("snapshot")).unwrap();
    let args = ["baseline", "--postgres", &connection, "--table", "encounter", "--snapshot", snapshot.trim()];
    assert_eq!(dumps.home.fire(&args).exits(0).json()["observed"]["tables"]["public.encounter"]["rows"], 300);
    // what the database went on to do is another content, and no other schema
    sql(&dumps, "delete from encounter where id > 290");
    dumps.back_up(with_it);
    let fewer = dumps.drill(WITH_GLOBALS, checks).ends("FAILED");
    fewer.blames_backup("content_differs", &[("check", "content"), ("rows_expected", "300"), ("rows_found", "290")]);
    assert_eq!(check(&fewer, "schema")["outcome"], "passed");
    observe();
    sql(&dumps, "drop view adults; create view adults as select id from patient");
    dumps.back_up(with_it);
    let other = dumps.drill(WITH_GLOBALS, checks).ends("FAILED");
    assert_eq!(differs(&other, "changed"), serde_json::json!({ "view": 1 }));
    // the backup should bring its baseline, and does not
    dumps.back_up("pg_dump -F custom -f out/ehr.dump ehr; cp globals.sql out");
    let without = dumps.drill(WITH_GLOBALS, checks).ends("FAILED");
    without.blames_backup("check_failed", &[("check", "schema"), ("observed", "no such file")]);
    // the site's own is gone: that is nobody's fault but the site's
    dumps.back_up(with_it);
    std::fs::remove_file(dumps.home.path("baseline.json")).unwrap();
    let only_content = &checks[checks.find("[[check]]\nkind = \"content\"").unwrap()..];
    dumps.drill(WITH_GLOBALS, only_content).ends("INCONCLUSIVE").blames_runner("could_not_run", &[("check", "content")]);
}

#[test]
fn rows_whose_documents_are_gone_fail() {
    let dumps = clinic();
    let checks = |from: &str, more: &str| {
        format!(
            "[[check]]\nkind = \"references\"\nname = \"documents\"\nfrom = {{ query = \"{from}\" }}\n\
             to = {{ files = \"documents/**\", name = \"(\\\\d+)\\\\.pdf$\" }}\n{more}{ROWS}"
        )
    };
    let back_up = |harm: &str| {
        let files = "mkdir out/documents; (cd out/documents; for i in $(seq 300); do echo x > $i.pdf; done)";
        dumps.back_up(&format!("pg_dump -F custom -f out/ehr.dump ehr; cp globals.sql out; {files}; {harm}"));
    };
    back_up("true");
    let good = dumps.drill(WITH_GLOBALS, &checks("select id from encounter", "")).ends("PASSED");
    assert!(check(&good, "documents")["observed"].as_str().unwrap().starts_with("300 different values refer to 300 others, 0 of them"));
    // nothing compared with everything
    let nothing = "select id from encounter where id < 0";
    dumps
        .drill(WITH_GLOBALS, &checks(nothing, ""))
        .ends("FAILED")
        .blames_backup("check_failed", &[("check", "documents"), ("observed", "none")]);
    let fine = dumps.drill(WITH_GLOBALS, &checks(nothing, "may_be_empty = true\n")).ends("PASSED");
    assert_eq!(check(&fine, "documents")["assertions"], 0);
    back_up("rm out/documents/7.pdf out/documents/207.pdf");
    let gone = dumps.drill(WITH_GLOBALS, &checks("select id from encounter", "")).ends("FAILED");
    gone.blames_backup("references_broken", &[("values", "300"), ("missing", "2")]);
}

#[test]
fn a_canary_must_be_the_newest_that_was_planted_before_the_backup() {
    let dumps = clinic();
    sql(&dumps, "create table canary (nonce text not null, planted timestamptz not null default now())");
    let checks = format!("{ROWS}[[check]]\nkind = \"canary\"\nquery = \"select nonce from canary order by planted desc limit 1\"\n");
    let scenario = dumps.scenario(WITH_GLOBALS, &checks);
    let plant = |command: &[&str]| dumps.home.fire(&[&["canary", scenario.to_str().unwrap(), "--"], command].concat());
    let psql = format!(
        "psql -q -h {} -U postgres ehr -c \"insert into canary (nonce) values ('$FIREDRILL_CANARY')\"",
        dumps.server.path("").display()
    );
    let in_database = || plant(&["bash", "-c", &psql]).exits(0);
    // the next minute: what was planted until now lies before it
    let fresh = || {
        let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(61);
        let name = dumps.home.path(&format!("backups/{}.tar.zst.age", soon.strftime("%Y-%m-%dT%H%M")));
        let only = std::fs::read_dir(dumps.home.path("backups")).unwrap().next().unwrap().unwrap().path();
        std::fs::rename(only, name).unwrap();
    };
    whole(&dumps);
    dumps.home.drill(&scenario).ends("INCONCLUSIVE").blames_runner("could_not_run", &[("check", "canary"), ("reason", "ever planted")]);
    in_database();
    let missing = dumps.home.drill(&scenario).ends("FAILED");
    missing.blames_backup("canary_missing", &[("observed", "no canary")]);
    whole(&dumps);
    fresh();
    let good = dumps.home.drill(&scenario).ends("PASSED");
    assert_eq!(good.report["measurements"]["data_age"]["source"], "content");
    // one that could not be planted is expected by nobody
    plant(&["false"]).exits(3).says(&["could not be planted"]);
    dumps.home.drill(&scenario).ends("PASSED");
    // the same backup under a newer name, while the source has had another canary
    in_database();
    fresh();
    dumps.home.drill(&scenario).ends("FAILED").blames_backup("canary_missing", &[("observed", "was planted before the capture")]);
    // a constant
    sql(&dumps, "insert into canary values ('firedrill-canary-0123456789abcdef0123456789abcdef', now())");
    whole(&dumps);
    let constant = dumps.home.drill(&scenario).ends("FAILED");
    constant.blames_backup("canary_missing", &[("observed", "never planted")]);
    // what is remembered does not say what was planted
    let remembered = std::fs::read_to_string(dumps.home.path("state/canaries/ehr.jsonl")).unwrap();
    assert!(!remembered.contains("firedrill-canary") && remembered.lines().count() == 4, "{remembered}");
    // into a file, or to whoever asks
    dumps.home.fire(&["canary", scenario.to_str().unwrap(), "--file", "nonce"]).exits(0);
    assert!(std::fs::read_to_string(dumps.home.path("nonce")).unwrap().starts_with("firedrill-canary-"));
    assert!(dumps.home.fire(&["canary", scenario.to_str().unwrap()]).exits(0).stdout.starts_with("firedrill-canary-"));
}

#[test]
fn rows_are_counted_and_a_shrink_against_the_last_drill_is_told() {
    let dumps = clinic();
    let checks = "[[check]]\nkind = \"sql\"\nname = \"rows\"\ntables = { code_system = \">= 1\" }\n\
                  [regression]\nwarn = \"5%\"\nfail = \"20%\"\nslower = \"500%\"\n";
    let shrunk_to = |rows: u64| {
        sql(&dumps, &format!("delete from code_system where substr(code, 2)::int > {rows}"));
        whole(&dumps);
        dumps.drill(WITH_GLOBALS, checks)
    };
    shrunk_to(2000).ends("PASSED");
    let told = |drilled: &Drilled| {
        let found = drilled.findings();
        found.iter().find(|f| f["finding"] == "regressed" && f["what"].as_str().unwrap().starts_with("rows of name-")).cloned()
    };
    assert_eq!(told(&shrunk_to(1950).ends("PASSED")), None);
    let fewer = shrunk_to(1800).ends("PASSED");
    let warned = told(&fewer).expect("a warning");
    assert_eq!((&warned["before"], &warned["now"], &warned["severity"]), (&1950.into(), &1800.into(), &"warn".into()));
    let half = told(&shrunk_to(900).ends("FAILED")).expect("a failure");
    assert_eq!((&half["before"], &half["severity"], &half["drill"]), (&1800.into(), &"fail".into(), &fewer.report["report_id"]));
    // statistics that say otherwise impress nobody
    let lie = "/usr/lib/postgresql/15/bin/psql -q -h /kit/services/postgres/run -U postgres ehr -c \
               \"update pg_class set reltuples = 500000 where relname = 'code_system'\"";
    let harm = format!("[[check]]\nkind = \"command\"\nname = \"harm\"\ncommand = [\"bash\", \"-c\", '''{lie}''']\n");
    let counted = format!("{harm}[[check]]\nkind = \"sql\"\nname = \"rows\"\ntables = {{ code_system = \">= 1000\" }}\n");
    dumps.drill(WITH_GLOBALS, &counted).ends("FAILED").blames_backup("check_failed", &[("check", "rows"), ("observed", "code_system 900")]);
}
