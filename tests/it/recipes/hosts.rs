//! PostgreSQL on hosts that lack what a backup asks for, under settings that get in its way, and by servers that lie: whose fault it is.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::postgres::{Dumps, WITH_GLOBALS};
use crate::drills::Drilled;

const ASKED: &str = r#"
[[check]]
kind = "sql"
name = "patients are there"
query = "select count(*) from patient"
expect = ">= 500"
"#;

#[track_caller]
fn not_the_backup(drilled: Drilled, reason: &str) {
    drilled.ends("INCONCLUSIVE").blames_runner("service_could_not_run", &[("reason", reason)]);
}

/// Changes the scenario's text, and drills.
fn with(dumps: &Dumps, step: &str, from: &str, to: &str) -> Drilled {
    let scenario = dumps.scenario(step, ASKED);
    let text = std::fs::read_to_string(&scenario).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&scenario, text.replace(from, to)).unwrap();
    dumps.home.drill(&scenario)
}

#[test]
fn what_a_dump_asks_of_the_host_and_does_not_get_is_no_fault_of_the_dump() {
    let dumps = Dumps::new();
    // an extension that nobody has installed here, in a text and in an archive
    dumps.server.shell(&[], "psql -q ehr -c 'create extension hstore' -c 'alter table patient add tags hstore'");
    for format in ["plain", "custom"] {
        let absent = "LC_ALL=C sed 's/hstore/hstorx/g' ehr.dump > out/ehr.dump";
        dumps.back_up(&format!("pg_dump -F {format} -f ehr.dump ehr; {absent}; cp globals.sql out"));
        not_the_backup(dumps.drill(WITH_GLOBALS, ASKED), "an extension that the backup names is not installed here");
    }
    // an archive of a newer pg_dump, which no pg_restore here reads (LIES 13): and one that the scenario insists on
    dumps.back_up(
        "pg_dump -F custom -f out/ehr.dump ehr; printf '\\020' | dd of=out/ehr.dump bs=1 seek=6 conv=notrunc status=none; cp globals.sql out",
    );
    not_the_backup(dumps.drill(WITH_GLOBALS, ASKED), "newer than pg_restore of version 15, the newest installed here");
    let insisted = dumps.drill(&format!("{WITH_GLOBALS}\nversion = 15"), ASKED).ends("FAILED");
    insisted.blames_backup("service_failed", &[("problem", "newer_client"), ("how", "cannot read its format")]);
    // scratch that the dump fits into, and the database does not
    dumps.server.shell(&[], "psql -q ehr -c 'create table scan as select i, md5(i::text) from generate_series(1, 1000000) i'");
    for jobs in [1, 2] {
        dumps.back_up("pg_dump -F custom -f out/ehr.dump ehr; cp globals.sql out");
        let full = with(&dumps, &format!("{WITH_GLOBALS}\njobs = {jobs}"), "512MiB", "128MiB").ends("INCONCLUSIVE");
        assert!(full.findings().iter().all(|f| f["cause"] != "backup" || f["severity"] != "fail"), "{:#?}", full.findings());
        // which of the two depends on whether the server had given back what it took when it was looked at
        let told = |f: &serde_json::Value| {
            f["limit"] == "scratch" || f["reason"].as_str().is_some_and(|reason| reason.starts_with("scratch ran full"))
        };
        assert!(full.findings().iter().any(told), "{:#?}", full.findings());
    }
    dumps.drill(WITH_GLOBALS, ASKED).ends("PASSED");
}

#[test]
fn settings_of_the_backups_own_roles_and_databases_do_not_answer_for_it() {
    let dumps = Dumps::new();
    dumps.server.shell(
        &[],
        "psql -q ehr -c \"alter role postgres set statement_timeout = '1ms'\" -c \"alter role postgres set log_min_messages = 'panic'\" \
         -c \"alter database ehr set lock_timeout = '1ms'\" -c \"alter database ehr set search_path = 'nowhere'\" && \
         PGOPTIONS='-c statement_timeout=0' pg_dumpall --globals-only > globals.sql",
    );
    let asked = ASKED.replace("count(*) from patient", "count(*) from public.patient, pg_sleep(0.1)");
    let whole = "export PGOPTIONS='-c statement_timeout=0'; pg_dump -F custom --create -f out/ehr.dump ehr; cp globals.sql out";
    dumps.back_up(whole);
    dumps.drill(WITH_GLOBALS, &asked).ends("PASSED");
    dumps.back_up("PGOPTIONS='-c statement_timeout=0' pg_dumpall > out/all.sql");
    dumps.drill("dump = \"all.sql\"\ndatabase = \"ehr\"", &asked).ends("PASSED");
    // what it lacks is told by its reason, whatever the roles want logged
    dumps.back_up(&format!("{whole}; sed -i '/ROLE app/ d' out/globals.sql"));
    let orphaned = dumps.drill(WITH_GLOBALS, &asked).ends("FAILED");
    orphaned.blames_backup("service_failed", &[("problem", "roles_missing")]);
}

#[test]
fn settings_that_are_firedrills_own_are_refused_and_those_that_no_server_takes_are_told() {
    let dumps = Dumps::new();
    for setting in [
        "restore_command",
        "Archive_Command",
        "data_directory",
        "listen_addresses",
        "recovery_target_time",
        "log_line_prefix",
        "zero_damaged_pages",
    ] {
        let scenario = dumps.scenario(&format!("{WITH_GLOBALS}\nsettings = {{ {setting} = \"x\" }}"), ASKED);
        let refused = dumps.home.fire(&["run", scenario.to_str().unwrap()]).exits(2);
        refused.says(&[&format!("`{setting}` is firedrill's own to set"), "leave it out"]);
    }
    dumps.back_up("pg_dump -F custom -f out/ehr.dump ehr; cp globals.sql out");
    for setting in ["shared_buffers = \"900TB\"", "no_such_setting = \"on\"", "shared_preload_libraries = \"nobody_has_it\""] {
        let drilled = dumps.drill(&format!("{WITH_GLOBALS}\nsettings = {{ {setting} }}"), ASKED);
        not_the_backup(drilled, "a fresh PostgreSQL server does not start");
    }
}

/// Programs of PostgreSQL in a directory of their own, with another `postgres` in front of the real one, which is `$real`.
struct Programs(tempfile::TempDir);

impl Programs {
    fn lying(postgres: &str) -> Self {
        // the sandbox has a /tmp of its own
        let programs = Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        let here = programs.path().join("15/bin");
        std::fs::create_dir_all(&here).unwrap();
        std::fs::set_permissions(programs.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let real = Path::new("/usr/lib/postgresql/15/bin");
        for program in std::fs::read_dir(real).unwrap().map(|entry| entry.unwrap().path()) {
            std::fs::copy(&program, here.join(program.file_name().unwrap())).unwrap();
        }
        let script = format!(
            "#!/bin/bash\nreal={}/postgres\nif [[ $* != *config_file=* ]]; then exec $real \"$@\"; fi\n{postgres}\n",
            real.display()
        );
        std::fs::write(here.join("postgres"), script).unwrap();
        programs
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn scenario(&self, dumps: &Dumps, step: &str, time: &str) -> PathBuf {
        let scenario = dumps.scenario(step, ASKED);
        let text = std::fs::read_to_string(&scenario).unwrap();
        let tools = format!("[sandbox]\ntools = [\"{}\"]", self.path().display());
        let text = text.replacen("[sandbox]", &tools, 1).replacen("time = \"1m\"", &format!("time = \"{time}\""), 1);
        std::fs::write(&scenario, text).unwrap();
        scenario
    }
}

/// LIES 24, with PostgreSQL's own server: one of another name, one on other data, one that is up and says nothing more.
#[test]
fn a_server_that_is_not_the_one_that_was_started_is_told() {
    let dumps = Dumps::new();
    dumps.server.shell(&[], "pg_basebackup -D base -X fetch -c fast --no-sync 2>/dev/null");
    dumps.back_up("pg_dump -F custom -f out/ehr.dump ehr; cp globals.sql out; cp -a base out/");
    let physical = "base = \"base\"\ndatabase = \"ehr\"";
    let wrong = |programs: &Programs, step: &str| {
        let drilled = dumps.home.drill(&programs.scenario(&dumps, step, "2m")).ends("FAILED");
        drilled.blames_backup("service_failed", &[("problem", "wrong_server")]);
    };
    let honest = Programs::lying("exec $real \"$@\"");
    dumps.home.drill(&honest.scenario(&dumps, WITH_GLOBALS, "2m")).ends("PASSED");
    let renamed = Programs::lying("exec $real \"${@/cluster_name=firedrill/cluster_name=somebody}\"");
    wrong(&renamed, WITH_GLOBALS);
    wrong(&renamed, physical);
    let elsewhere = Programs::lying(
        "for word; do case $word in config_file=*) file=${word#*=};; esac; done
         data=$(sed -n \"s/^data_directory = '\\(.*\\)'$/\\1/p\" $file); other=$TMPDIR/other
         /usr/lib/postgresql/15/bin/initdb -D $other -U postgres -A trust --no-sync >/dev/null
         ln -s $other/postmaster.pid $data/postmaster.pid
         exec $real \"${@//$data/$other}\"",
    );
    wrong(&elsewhere, WITH_GLOBALS);
    let mute = Programs::lying(
        "for word; do case $word in config_file=*) file=${word#*=};; esac; done
         data=$(sed -n \"s/^data_directory = '\\(.*\\)'$/\\1/p\" $file)
         (until grep -qs ready $data/postmaster.pid; do sleep 0.05; done; kill -STOP $$) &
         exec $real \"$@\"",
    );
    for (step, reason) in [(WITH_GLOBALS, "does not start"), (physical, "recovery did not end within the drill's time")] {
        not_the_backup(dumps.home.drill(&mute.scenario(&dumps, step, "20s")), reason);
    }
}
