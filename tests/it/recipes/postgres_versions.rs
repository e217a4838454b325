//! PostgreSQL of other versions than the distribution's, really started: increments, which came with 17, dumps of a newer `pg_dump`, and
//! data directories that the server at hand cannot run on.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::databases::Server;
use super::succeeds;
use crate::drills::{Drilled, Home, zstd_bytes};

/// The directory that has a PostgreSQL 16 and a PostgreSQL 18.
fn servers() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/postgres-setup.sh");
    PathBuf::from(succeeds("postgres-setup.sh", &mut Command::new(script)).trim())
}

/// A server of a version of its own, with its WAL archived in `wal`.
struct Versioned {
    home: Home,
    server: Server,
    version: u32,
}

impl Versioned {
    fn new(version: u32) -> Self {
        let server = Server::new("true", "pg_ctl -D data -m immediate stop");
        // the user that it runs as may not be let to where this user keeps programs
        succeeds("cp", Command::new("cp").arg("-a").arg(servers()).arg(server.path("pg")));
        let versioned = Self { home: Home::new(), server, version };
        versioned.shell(
            r#"initdb -D data -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null
            cat >> data/postgresql.conf <<CONF
unix_socket_directories = '$PWD'
listen_addresses = ''
fsync = off
archive_mode = on
archive_command = 'cp %p $PWD/wal/%f'
CONF
            [ $(cut -d. -f1 data/PG_VERSION) -lt 17 ] || echo 'summarize_wal = on' >> data/postgresql.conf
            mkdir wal ts
            pg_ctl -D data -l log -w start >/dev/null
            psql -q postgres -c "create tablespace other location '$PWD/ts'" -c "create table work (n int primary key, filler text)" \
              -c "create table elsewhere (n int) tablespace other" \
              -c "insert into work select i, repeat('x', 500) from generate_series(1, 2000) i" -c "insert into elsewhere values (2000)"
            "#,
        );
        versioned
    }

    fn shell(&self, script: &str) -> String {
        self.server.shell(&[], &format!("export PATH=$PWD/pg/{}/bin:$PATH; {script}", self.version))
    }

    /// Commits up to `n`; `elsewhere` has the newest alone.
    fn work(&self, n: u32) {
        self.shell(&format!(
            "psql -q postgres -c \"insert into work select i, 'y' from generate_series((select max(n) + 1 from work), {n}) i\" \
             -c 'update elsewhere set n = {n}' -c 'select pg_switch_wal()' >/dev/null"
        ));
    }

    /// A base backup, or an increment upon another one.
    fn base_backup(&self, name: &str, upon: &str, form: &str) {
        let incremental = if upon.is_empty() { String::new() } else { format!("--incremental={upon}/backup_manifest") };
        let mapping = if form.is_empty() { format!("--tablespace-mapping=$PWD/ts=$PWD/{name}-ts") } else { String::new() };
        self.shell(&format!("pg_basebackup -D {name} {incremental} {mapping} {form} -X none -c fast --no-sync 2>/dev/null"));
    }

    /// Backs up what `script` makes in `out`.
    fn back_up(&self, script: &str) {
        self.shell(&format!("rm -rf out; mkdir out; {script}; tar -cf out.tar -C out ."));
        let tar = std::fs::read(self.server.path("out.tar")).unwrap();
        self.home.shell("rm -rf backups; mkdir backups");
        self.home.bare(&self.home.bare_name(1), &self.home.age(&zstd_bytes(&tar)));
    }

    fn drill_with(&self, tools: &str, step: &str, newest: u32) -> Drilled {
        let scenario = self.home.named_scenario(
            "ehr",
            &format!(
                "objectives = {{ rpo = \"24h\", rto = \"10m\" }}\n[sandbox]\n{tools}\nmemory = \"1GiB\"\nprocesses = 64\n\
                 scratch = {{ kind = \"tmpfs\", size = \"900MiB\" }}\n[[restore]]\nmethod = \"postgres\"\ndatabase = \"postgres\"\n{step}\n\
                 [[check]]\nkind = \"sql\"\nname = \"all of them\"\nquery = \"select count(*) from work\"\nexpect = \"= {newest}\"\n\
                 [[check]]\nkind = \"sql\"\nname = \"the newest\"\nquery = \"select max(n) from elsewhere\"\nexpect = \"= {newest}\""
            ),
        );
        self.home.drill(&scenario)
    }

    fn drill(&self, step: &str, newest: u32) -> Drilled {
        self.drill_with(&format!("tools = [\"{}\"]", servers().display()), step, newest)
    }
}

#[track_caller]
fn problem(drilled: Drilled, problem: &str, how: &str) {
    drilled.ends("FAILED").blames_backup("service_failed", &[("problem", problem), ("how", how)]);
}

#[test]
fn increments_are_verified_each_put_together_and_recovered() {
    let all = Versioned::new(18);
    all.base_backup("base", "", "");
    all.work(2100);
    all.base_backup("monday", "base", "");
    all.work(2200);
    all.base_backup("tuesday", "monday", "");
    all.work(2300);
    let every = "cp -a base base-ts monday monday-ts tuesday tuesday-ts wal out/";
    let both = "base = \"base\"\nincrementals = [\"monday\", \"tuesday\"]";
    all.back_up(every);
    let latest = all.drill(&format!("{both}\nwal = \"wal\""), 2300).ends("PASSED");
    let service = &latest.report["services"][0];
    assert!(service["method"].as_str().unwrap().contains("2 increments"), "{service:#}");
    assert!(service["version"].as_str().unwrap().starts_with("18."), "{service:#}");
    assert!(latest.findings().iter().all(|f| f["severity"] != "warn"), "{:#?}", latest.findings());
    latest.left_nothing();
    all.drill(&format!("{both}\nwal = \"wal\"\ntarget = \"immediate\""), 2200).ends("PASSED");
    all.drill("base = \"base\"\nincrementals = [\"monday\"]\nwal = \"wal\"\ntarget = \"immediate\"", 2100).ends("PASSED");
    // one between is missing, or they are in another order than they were taken
    problem(all.drill("base = \"base\"\nincrementals = [\"tuesday\"]\nwal = \"wal\"", 2300), "log_hole", "does not follow");
    problem(all.drill("base = \"base\"\nincrementals = [\"tuesday\", \"monday\"]\nwal = \"wal\"", 2300), "log_hole", "does not follow");
    // an increment alone is no backup
    problem(all.drill("base = \"monday\"\nwal = \"wal\"", 2300), "files_missing", "only what changed");
    // rot in a block that no increment has: pg_combinebackup copies it, and writes a new manifest that says it is right
    let rot = |of: &str| format!("{every}; printf XXXX | dd of={of} bs=1 seek=200 conv=notrunc status=none");
    all.back_up(&rot("$(find out/base/base/5 -size +900k | sort | head -1)"));
    problem(all.drill(&format!("{both}\nwal = \"wal\""), 2300), "input_damaged", "1 differ");
    all.back_up(&rot("$(find out/monday -name 'INCREMENTAL.*' -size +8k | sort | head -1)"));
    problem(all.drill(&format!("{both}\nwal = \"wal\""), 2300), "input_damaged", "1 differ");
    // as tars
    all.base_backup("full", "", "-Ft");
    all.work(2400);
    all.base_backup("day", "full", "-Ft -z");
    all.back_up("cp -a full day wal out/");
    all.drill("base = \"full\"\nincrementals = [\"day\"]\nwal = \"wal\"", 2400).ends("PASSED");
}

#[test]
fn the_server_of_the_recorded_version_is_taken_and_no_other_stands_in() {
    for version in [16, 18] {
        let all = Versioned::new(version);
        all.base_backup("base", "", "");
        all.work(2100);
        let physical = "base = \"base\"\nwal = \"wal\"";
        all.back_up("cp -a base base-ts wal out/");
        let drilled = all.drill(physical, 2100).ends("PASSED");
        assert!(drilled.report["services"][0]["version"].as_str().unwrap().starts_with(&format!("{version}.")), "{:#}", drilled.report);
        // not installed: nothing is learned; another one insisted on: it cannot run on these files
        let absent = format!("PostgreSQL {version}");
        all.drill_with("", physical, 2100).ends("INCONCLUSIVE").blames_runner("service_could_not_run", &[("reason", &absent)]);
        problem(all.drill(&format!("{physical}\nversion = 15"), 2100), "other_version", "version 15 cannot run");
        all.back_up("pg_dumpall --globals-only > out/globals.sql; pg_dump -Fc -f out/work.dump postgres");
        let dump = "dump = \"work.dump\"\nglobals = \"globals.sql\"";
        all.drill(dump, 2100).ends("PASSED");
        all.drill_with("", dump, 2100).ends("INCONCLUSIVE");
        // a server that is older than the client which made the dump (lie 13)
        if version == 18 {
            problem(all.drill(&format!("{dump}\nversion = 15"), 2100), "newer_client", "version 15");
        }
    }
}
