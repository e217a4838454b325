//! All forms in which databases are backed up, drilled by somebody who is not root: each comes back, and each engine notices damage.

use std::path::Path;

use super::pitr::{FROM_ARCHIVE, Recovered};
use super::postgres::{Dumps, WITH_GLOBALS};
use super::services::{etcd, fetch, openldap, redis};
use super::sqlite::Registry;
use super::{postgres, sqlite};
use crate::drills::{Drilled, Home, said};
use crate::limits::{is_root, ordinary_user};
use crate::scenarios::at_home_in_a_directory;

#[track_caller]
fn drill(home: &Home, scenario: &Path) -> Drilled {
    home.drilled(said(ordinary_user(home, &["run", scenario.to_str().unwrap()]).output().unwrap()))
}

#[track_caller]
fn passes(home: &Home, scenario: &Path) {
    let drilled = drill(home, scenario).ends("PASSED");
    assert_eq!(drilled.report["services"].as_array().unwrap().len(), 1, "{:#}", drilled.report["services"]);
    drilled.left_nothing();
}

#[track_caller]
fn fails(home: &Home, scenario: &Path, problem: &str) {
    drill(home, scenario).ends("FAILED").blames_backup("service_failed", &[("problem", problem)]);
}

#[test]
fn every_form_of_a_database_comes_back_for_an_ordinary_user() {
    if !is_root() {
        println!("needs root to become an ordinary user; all other tests here are the run as one");
        return;
    }
    std::thread::scope(|scope| {
        for engine in [postgres_from_dumps, postgres_from_base_backups, sqlite_from_files, services_by_definition] {
            scope.spawn(engine);
        }
    });
}

fn postgres_from_dumps() {
    let dumps = Dumps::new();
    let scenario = |step: &str| dumps.scenario(step, postgres::CHECKS);
    for format in ["plain", "custom", "directory", "tar"] {
        dumps.back_up(&format!("pg_dump -F {format} -f out/ehr.dump ehr; cp globals.sql out"));
        passes(&dumps.home, &scenario(WITH_GLOBALS));
    }
    dumps.back_up("pg_dumpall > out/all.sql");
    passes(&dumps.home, &scenario("dump = \"all.sql\"\ndatabase = \"ehr\""));
    dumps.back_up("pg_dump -F custom -f out/ehr.dump ehr");
    fails(&dumps.home, &scenario("dump = \"ehr*\"\ndatabase = \"ehr\""), "roles_missing");
}

fn postgres_from_base_backups() {
    let all = Recovered::new();
    let scenario = |step: &str| {
        let check = "[[check]]\nkind = \"sql\"\nname = \"all of them\"\nquery = \"select count(*) from work\"\nexpect = \"= 110\"";
        all.scenario(&format!("{step}\ndatabase = \"postgres\""), check)
    };
    let from_archive = FROM_ARCHIVE.replace("database = \"postgres\"", "");
    all.back_up_all("gzip wal/$(segment 8); zstd -q --rm wal/$(segment 7)");
    passes(&all.home, &scenario(&from_archive));
    let mapped = "--tablespace-mapping=$PWD/ts=$PWD/out/ts";
    for (script, base) in [
        ("pg_basebackup -D out -Ft -X stream -c fast --no-sync 2>/dev/null".to_owned(), "."),
        ("pg_basebackup -D out -Ft -z -X fetch -c fast --no-sync 2>/dev/null".to_owned(), "."),
        (format!("pg_basebackup -D out/base -X stream -c fast --no-sync {mapped} 2>/dev/null"), "base"),
    ] {
        all.back_up(&script);
        passes(&all.home, &scenario(&format!("base = \"{base}\"")));
    }
    all.back_up_all("rm wal/$(segment 6)");
    fails(&all.home, &scenario(&from_archive), "log_hole");
}

fn sqlite_from_files() {
    let registry = Registry::new();
    for (script, step) in [
        ("cp live.db live.db-wal out", sqlite::FILE),
        ("sqlite3 live.db 'vacuum into \"out/registry.db\"'", sqlite::FILE),
        ("sqlite3 live.db .dump > out/registry.sql", sqlite::DUMP),
    ] {
        registry.live(script);
        passes(&registry.home, &registry.scenario(step, sqlite::CHECKS));
    }
    registry.harm("head -n -4 out/registry.sql > short; mv short out/registry.sql");
    fails(&registry.home, &registry.scenario(sqlite::DUMP, sqlite::CHECKS), "input_truncated");
}

fn services_by_definition() {
    let home = Home::new();
    let server = redis();
    fetch(&home, &server, &["aof", "dump.rdb"]);
    etcd(&home);
    openldap(&home);
    let back_up = |name: &str, script: &str| {
        let object = format!("backups/{name}-{}", home.bare_name(1));
        home.shell(&format!("rm -rf out; mkdir out; {script}; tar -C out -cf - . | zstd -q | age -r $RECIPIENT > {object}"));
    };
    for (name, good, bad, problem) in [
        (
            "redis",
            "cp -r aof out/appendonlydir",
            "cp -r aof out/appendonlydir; truncate -s -3 out/appendonlydir/*.incr.aof",
            "input_truncated",
        ),
        ("etcd", "cp new.db out/etcd.db", "head -c -5000 new.db > out/etcd.db", "input_truncated"),
        ("openldap", "cp full.ldif out/directory.ldif", "head -c -90 full.ldif > out/directory.ldif", "input_truncated"),
    ] {
        let scenario = at_home_in_a_directory(&home, name);
        back_up(name, good);
        passes(&home, &scenario);
        back_up(name, bad);
        fails(&home, &scenario, problem);
    }
    back_up("redis", "cp dump.rdb out");
    let scenario = at_home_in_a_directory(&home, "redis");
    let text = std::fs::read_to_string(&scenario).unwrap();
    assert!(text.contains("aof = \"appendonlydir\""), "{text}");
    std::fs::write(&scenario, text.replace("aof = \"appendonlydir\"", "rdb = \"dump.rdb\"")).unwrap();
    passes(&home, &scenario);
}
