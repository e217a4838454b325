//! Base backups of a real PostgreSQL, recovered in the sandbox with WAL from an archive or from the backup itself, and their damaged twins.

use std::path::PathBuf;

use super::databases::Server;
use super::{Harm, Vault};
use crate::drills::{Drilled, Home, zstd_bytes};
use crate::scenarios::at_home;
use crate::servers::Locking;

/// A server whose WAL is archived in `wal`, and one base backup of it with work before and after.
pub(super) struct Recovered {
    pub(super) home: Home,
    pub(super) server: Server,
}

impl Recovered {
    /// `n` counts what was committed: 1 to 100 before the base backup, 101 to 110 after it, each in a segment of its own.
    pub(super) fn new() -> Self {
        let recovered = Self { home: Home::new(), server: Server::postgres() };
        recovered.server.shell(
            &[],
            r#"mkdir wal ts
            psql -q postgres -c "alter system set archive_command = 'cp %p $PWD/wal/%f'" -c "alter system set track_commit_timestamp = on"
            pg_ctl -D data -l log -m fast -w restart >/dev/null
            psql -q postgres -c "create tablespace other location '$PWD/ts'" -c "create table work (n int primary key, at timestamptz not null) tablespace other"
            psql -q postgres -c "insert into work select i, now() from generate_series(1, 100) i"
            pg_basebackup -D base -X none -c fast --tablespace-mapping=$PWD/ts=$PWD/base-ts --no-sync 2>/dev/null
            for i in $(seq 101 110); do
                psql -q postgres -c "insert into work values ($i, clock_timestamp())" -c "select pg_create_restore_point('after $i')" -c "select pg_switch_wal()" >/dev/null
            done
            psql -qAt postgres -c "select n || ' ' || to_char(pg_xact_commit_timestamp(xmin) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from work where n > 100 order by n" > times
            for _ in $(seq 100); do [ $(ls wal | grep -c '^0.......................$') -ge 11 ] && break; sleep 0.1; done"#,
        );
        recovered
    }

    /// Backs up what `script` makes in `out`.
    pub(super) fn back_up(&self, script: &str) {
        self.server.shell(&[], &format!("rm -rf out; mkdir out; {script}; tar -cf out.tar -C out ."));
        let tar = std::fs::read(self.server.path("out.tar")).unwrap();
        self.home.shell("rm -rf backups; mkdir backups");
        self.home.bare(&self.home.bare_name(1), &self.home.age(&zstd_bytes(&tar)));
    }

    /// Base, its tablespace and the archive, after some harm.
    pub(super) fn back_up_all(&self, harm: &str) {
        self.back_up(&format!(
            "cp -a base base-ts wal out/; cd out; segment() {{ ls wal | grep '^0.......................$' | sed -n $1p; }}; {harm}; cd .."
        ));
    }

    pub(super) fn scenario(&self, step: &str, checks: &str) -> PathBuf {
        self.home.named_scenario(
            "ehr",
            &format!(
                "objectives = {{ rpo = \"24h\", rto = \"10m\" }}\n[sandbox]\nmemory = \"1GiB\"\nprocesses = 64\n\
                 scratch = {{ kind = \"tmpfs\", size = \"900MiB\" }}\n[[restore]]\nmethod = \"postgres\"\n{step}\n{checks}"
            ),
        )
    }

    pub(super) fn drill(&self, step: &str, newest: u32) -> Drilled {
        let checks = format!(
            "[[check]]\nkind = \"sql\"\nname = \"the newest\"\nquery = \"select max(n) from work\"\nexpect = \"= {newest}\"\n\
             [[check]]\nkind = \"sql\"\nname = \"all of them\"\nquery = \"select count(*) from work\"\nexpect = \"= {newest}\""
        );
        self.home.drill(&self.scenario(step, &checks))
    }

    /// When `n` was committed.
    fn time(&self, n: u32) -> String {
        let times = std::fs::read_to_string(self.server.path("times")).unwrap();
        times.lines().find_map(|line| line.strip_prefix(&format!("{n} "))).unwrap().to_owned()
    }
}

pub(super) const FROM_ARCHIVE: &str = "base = \"base\"\nwal = \"wal\"\ndatabase = \"postgres\"";

#[track_caller]
pub(super) fn problem(drilled: Drilled, problem: &str, how: &str) {
    drilled.ends("FAILED").blames_backup("service_failed", &[("problem", problem), ("how", how)]);
}

#[test]
fn base_backups_are_recovered_to_the_end_and_to_a_point() {
    let all = Recovered::new();
    all.back_up_all("true");
    let latest = all.drill(FROM_ARCHIVE, 110).ends("PASSED");
    let service = &latest.report["services"][0];
    assert!(service["method"].as_str().unwrap().contains("recovered to the end of the WAL"), "{service:#}");
    let recovery = &service["recovery"];
    assert_eq!((recovery["timeline"].as_u64(), recovery["reached"].as_str()), (Some(2), recovery["whole_until"].as_str()), "{recovery:#}");
    assert!(recovery["segments_audited"].as_u64().unwrap() >= 11, "{recovery:#}");
    assert!(latest.findings().iter().all(|f| f["severity"] != "warn"), "{:#?}", latest.findings());
    latest.left_nothing();
    let to = |target: &str, newest| all.drill(&format!("{FROM_ARCHIVE}\ntarget = {target}"), newest).ends("PASSED");
    to("\"immediate\"", 100);
    to("{ name = \"after 104\" }", 104);
    let timed = to(&format!("{{ time = \"{}\" }}", all.time(106)), 106);
    assert_eq!(timed.report["services"][0]["recovery"]["last_transaction"], all.time(106));
    to(&format!("{{ time = \"{}\", inclusive = false }}", all.time(106)), 105);
    // what lies beyond the WAL cannot be reached, and no later state stands in for it
    problem(
        all.drill(&format!("{FROM_ARCHIVE}\ntarget = {{ time = \"2999-01-01T00:00:00Z\" }}"), 110),
        "target_not_reached",
        "the WAL ends",
    );
    problem(all.drill(&format!("{FROM_ARCHIVE}\ntarget = {{ name = \"never made\" }}"), 110), "target_not_reached", "the WAL ends");
    problem(
        all.drill(&format!("{FROM_ARCHIVE}\ntarget = {{ lsn = \"0/1000000\" }}"), 110),
        "target_not_reached",
        "before the end of the base",
    );
    // an archive of packed segments, one of them still being written
    all.back_up_all("gzip wal/$(segment 8); zstd -q --rm wal/$(segment 7); xz wal/$(segment 6); name=wal/$(segment 5); lz4 -q --rm $name $name.lz4; mkdir deep; mv wal deep/");
    all.drill("base = \"base\"\nwal = \"deep\"\ndatabase = \"postgres\"", 110).ends("PASSED");
}

#[test]
fn base_backups_come_as_tars_and_with_their_own_wal() {
    let all = Recovered::new();
    all.back_up("pg_basebackup -D out -Ft -X stream -c fast --no-sync 2>/dev/null");
    all.drill("base = \".\"\ndatabase = \"postgres\"", 110).ends("PASSED");
    all.back_up("pg_basebackup -D out -Ft -z -X fetch -c fast --no-sync 2>/dev/null");
    all.drill("base = \".\"\ndatabase = \"postgres\"\ntarget = \"immediate\"", 110).ends("PASSED");
    all.back_up("pg_basebackup -D out/base -X stream -c fast --no-sync --tablespace-mapping=$PWD/ts=$PWD/out/ts 2>/dev/null");
    all.drill("base = \"base\"\ndatabase = \"postgres\"", 110).ends("PASSED");
    // of a tablespace only the name came along
    all.back_up("pg_basebackup -D out/base -X stream -c fast --no-sync --tablespace-mapping=$PWD/ts=$PWD/out/ts 2>/dev/null; rm -r out/ts");
    problem(all.drill("base = \"base\"\ndatabase = \"postgres\"", 110), "tablespaces_missing", "not restored");
    // the backup without the WAL that makes it whole
    all.back_up("cp -a base base-ts out/");
    problem(all.drill("base = \"base\"\ndatabase = \"postgres\"", 100), "log_hole", "is missing");
    // a copy of a server that had ended needs none
    all.server.shell(&[], "psql -q postgres -c 'create table plain as select 1'; pg_ctl -D data -m fast -w stop >/dev/null");
    all.back_up("cp -a data out/base; cp -a ts out/ts");
    all.drill("base = \"base\"\ndatabase = \"postgres\"", 110).ends("PASSED").warns("service_failed");
}

#[test]
fn tars_of_a_base_backup_that_are_cut_off_rotten_or_missing_fail() {
    let all = Recovered::new();
    let tars = |options: &str, harm: &str| {
        all.back_up(&format!("pg_basebackup -D out -Ft -c fast --no-sync {options} 2>/dev/null; {harm}"));
        all.drill("base = \".\"\ndatabase = \"postgres\"", 110)
    };
    // what no manifest tells has to be told without one
    let bare = "-X fetch --no-manifest";
    problem(tars(bare, "truncate -s -17000000 out/base.tar"), "input_truncated", "base.tar");
    problem(tars(&format!("{bare} -z"), "truncate -s -1000 out/base.tar.gz"), "input_truncated", "base.tar");
    let flip = "printf XXXX | dd of=out/base.tar.gz bs=1 seek=1000000 conv=notrunc status=none";
    problem(tars(&format!("{bare} -z"), flip), "input_damaged", "base.tar");
    problem(tars(bare, "for tar in out/[0-9]*.tar; do truncate -s 3000 $tar; done"), "input_truncated", "a tar beside base.tar");
    problem(tars("-X stream", "rm out/[0-9]*.tar"), "tablespaces_missing", "was not restored");
    problem(tars("-X stream", "truncate -s 1000000 out/pg_wal.tar"), "input_truncated", "a tar beside base.tar");
    problem(tars("-X stream", "rm out/pg_wal.tar"), "log_hole", "is missing, where the backup begins");
}

#[test]
fn a_hole_in_the_wal_fails_and_recovery_does_not_end_there_in_silence() {
    let all = Recovered::new();
    all.back_up_all("rm wal/$(segment 6)");
    problem(all.drill(FROM_ARCHIVE, 110), "log_hole", "recovery would end there, and say nothing");
    problem(all.drill(&format!("{FROM_ARCHIVE}\ntarget = {{ name = \"after 109\" }}"), 109), "log_hole", "is missing");
    let before = all.drill(&format!("{FROM_ARCHIVE}\ntarget = {{ name = \"after 102\" }}"), 102).ends("PASSED");
    assert!(
        before.warns("service_failed")["how"].as_str().unwrap().contains("no later point can be recovered"),
        "{:#?}",
        before.findings()
    );
    // the backup's own first segment
    all.back_up_all("rm wal/$(segment $(($(ls wal | grep -n backup | head -1 | cut -d: -f1) - 1)))");
    problem(all.drill(FROM_ARCHIVE, 110), "log_hole", "is missing");
}

#[test]
fn rot_in_the_wal_fails_before_the_point_and_warns_past_it() {
    let all = Recovered::new();
    for (harm, words) in [
        // the middle of a record's data, the end of the file, all of it
        ("printf X | dd of=wal/$(segment 7) bs=1 seek=150 conv=notrunc status=none", "checksum"),
        ("truncate -s 100 wal/$(segment 7)", "ends early"),
        ("truncate -s 0 wal/$(segment 7); truncate -s 16M wal/$(segment 7)", "zeros"),
        ("cp wal/$(segment 6) wal/$(segment 7)", "not of this place"),
        ("name=wal/$(segment 7); gzip $name; truncate -s -50 $name.gz", ""),
    ] {
        all.back_up_all(harm);
        problem(all.drill(FROM_ARCHIVE, 110), "log_damaged", words);
    }
    problem(all.drill(&format!("{FROM_ARCHIVE}\ntarget = {{ name = \"after 109\" }}"), 109), "log_damaged", "recovery would end there");
    let before = all.drill(&format!("{FROM_ARCHIVE}\ntarget = {{ time = \"{}\" }}", all.time(102)), 102).ends("PASSED");
    let warning = before.warns("service_failed");
    assert_eq!(warning["problem"], "log_damaged", "{warning:#}");
    assert!(warning["how"].as_str().unwrap().contains("past "), "{warning:#}");
}

#[test]
fn a_damaged_base_backup_fails_with_what_is_damaged() {
    let all = Recovered::new();
    let drill = || all.drill(FROM_ARCHIVE, 110);
    let biggest = "$(find base/base -type f -size +64k | sort | tail -1)";
    // a page that a server would have started on and counted
    all.back_up_all(&format!("printf XXXX | dd of={biggest} bs=1 seek=9000 conv=notrunc status=none"));
    problem(drill(), "input_damaged", "1 differ");
    all.back_up_all(&format!("rm {biggest}"));
    problem(drill(), "files_missing", "1 files are missing");
    all.back_up_all("sed -i 's/8192/8193/' base/backup_manifest");
    problem(drill(), "input_damaged", "manifest");
    // without a manifest, what the server and its tools say
    let bare = "rm base/backup_manifest";
    all.back_up_all(&format!("{bare}; printf XXXX | dd of=base/global/pg_control bs=1 seek=100 conv=notrunc status=none"));
    problem(drill(), "input_damaged", "pg_control");
    all.back_up_all(&format!("{bare}; rm -r base/pg_multixact"));
    problem(drill(), "crashed", "its log has");
    all.back_up_all(&format!("{bare}; : > base/global/pg_filenode.map"));
    problem(drill(), "never_ready", "data_corrupted");
    all.back_up_all(&format!("{bare}; echo 14 > base/PG_VERSION"));
    drill().ends("INCONCLUSIVE").blames_runner("service_could_not_run", &[("reason", "PostgreSQL 14")]);
    problem(all.drill(&format!("{FROM_ARCHIVE}\nversion = 15"), 110), "other_version", "version 14");
    all.back_up_all(bare);
    let undescribed = drill().ends("PASSED");
    assert_eq!(undescribed.warns("service_failed")["problem"], "undescribed");
    // who asks by a name that the backup does not have learns nothing of the backup
    let stranger = all.drill(&format!("{FROM_ARCHIVE}\nuser = \"admin\""), 110).ends("INCONCLUSIVE");
    stranger.blames_runner("service_could_not_run", &[("reason", "user = ")]);
    all.back_up_all("true");
    let increments = all.drill(&format!("{FROM_ARCHIVE}\nincrementals = [\"base\"]"), 110).ends("INCONCLUSIVE");
    increments.blames_runner("service_could_not_run", &[("reason", "pg_combinebackup")]);
    all.back_up_all("sed -i '1iINCREMENTAL FROM LSN: 0/2000028' base/backup_label; rm base/backup_manifest");
    problem(drill(), "files_missing", "changed since another backup");
    all.back_up_all("mv base base-gone");
    problem(drill(), "input_missing", "base");
}

/// A record of the source's WAL, as PostgreSQL's own `pg_waldump` lists it.
struct Logged {
    at: u64,
    /// When a transaction ended, and which, where it is of that.
    ended: Option<(String, Option<u32>)>,
    /// The restore point that it is.
    point: Option<String>,
}

fn logged(line: &str) -> Option<Logged> {
    let after = |word: &str, end: char| line.split_once(word)?.1.split(end).next().map(str::trim).map(str::to_owned);
    let at: firedrill::domain::Lsn = after("lsn: ", ',')?.parse().unwrap();
    let ended = |word: &str| {
        let (day, time) = line.split_once(word)?.1.split_once(" UTC")?.0.split_once(' ')?;
        Some(format!("{day}T{time}Z"))
    };
    let committed = ended("desc: COMMIT ").map(|time| (time, after("tx: ", ',').and_then(|tx| tx.parse().ok())));
    let ended = committed.or_else(|| ended("desc: ABORT ").map(|time| (time, None)));
    Some(Logged { at: at.0, ended, point: after("desc: RESTORE_POINT ", ' ') })
}

#[test]
fn random_points_are_recovered_as_the_servers_own_order_of_commits_has_it() {
    let home = Home::new();
    let server = Server::postgres();
    // small segments, and work of several clients at once, some of it rolled back
    server.shell(
        &[],
        r#"pg_ctl -D data -m fast -w stop >/dev/null; cp data/postgresql.conf conf; rm -r data; mkdir wal
        initdb -D data -U postgres -A trust -E UTF8 --no-sync --wal-segsize=1 >/dev/null
        cp conf data/postgresql.conf
        printf "archive_command = 'cp %%p $PWD/wal/%%f'\nsynchronous_commit = off\nmax_wal_size = 64MB\n" >> data/postgresql.conf
        pg_ctl -D data -l log -w start >/dev/null
        psql -q postgres -c 'create table work (n int)' -c 'create sequence s' -c 'create sequence p'
        pg_basebackup -D base -Ft -X none -c fast --no-sync 2>/dev/null
        cat > work.sql <<'SQL'
\set fate random(1, 5)
begin;
insert into work values (nextval('s'));
\if :fate = 1
rollback;
\else
commit;
\endif
SQL
        echo "select pg_create_restore_point('point-' || nextval('p'));" > point.sql
        pgbench -n -c 4 -j 2 -t 100 --random-seed=1 -f work.sql@9 -f point.sql@1 postgres >/dev/null 2>&1
        psql -q postgres -c "insert into work values (0)" -c "select pg_switch_wal()" >/dev/null
        last=$(psql -qAt postgres -c "select pg_walfile_name(pg_current_wal_lsn() - 1)")
        for _ in $(seq 300); do [ -e wal/$last ] && break; sleep 0.1; done
        psql -qAt postgres -c 'select xmin, n from work' > rows
        first=$(ls wal | grep -v backup | head -1)
        pg_waldump -p wal $first $last > records 2>/dev/null || true
        mkdir out; mv base wal out/; chmod -R a+rX out; tar -cf out.tar -C out ."#,
    );
    home.bare(&home.bare_name(1), &home.age(&zstd_bytes(&std::fs::read(server.path("out.tar")).unwrap())));
    let read = |name: &str| std::fs::read_to_string(server.path(name)).unwrap();
    let rows: std::collections::BTreeMap<u32, i64> =
        read("rows").lines().map(|line| line.split_once('|').unwrap()).map(|(x, n)| (x.parse().unwrap(), n.parse().unwrap())).collect();
    let records: Vec<Logged> = read("records").lines().filter_map(logged).collect();
    let work = records.iter().position(|r| r.ended.as_ref().is_some_and(|(_, tx)| tx.is_some_and(|tx| rows.contains_key(&tx)))).unwrap();
    // by the log alone: what was committed by records before this one
    let before = |index: usize| -> Vec<i64> {
        let mut found: Vec<i64> = records[..index].iter().filter_map(|r| rows.get(&r.ended.as_ref()?.1?).copied()).collect();
        found.sort_unstable();
        found
    };
    let end = records.iter().rposition(|r| r.ended.is_some()).unwrap();
    let mut seed = 0x5EED_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let mut target = || -> (String, Vec<i64>) {
        let pick = |random: &mut dyn FnMut(usize) -> usize, wanted: &dyn Fn(&Logged) -> bool| {
            let all: Vec<usize> = (work..end).filter(|index| wanted(&records[*index])).collect();
            all[random(all.len())]
        };
        let inclusive = random(2) == 0;
        match random(3) {
            0 => {
                // instants of commits are not in the order of the log: recovery ends at the first that is later
                let index = pick(&mut random, &|r| r.ended.is_some());
                let time = records[index].ended.clone().unwrap().0;
                let later = |r: &Logged| r.ended.as_ref().is_some_and(|(at, _)| if inclusive { *at > time } else { *at >= time });
                let stops = records.iter().position(later).unwrap();
                (format!("{{ time = \"{time}\", inclusive = {inclusive} }}"), before(stops))
            }
            1 => {
                let index = pick(&mut random, &|_| true);
                let at = records[index].at + [0, 1][random(2)];
                let stops = records.iter().position(|r| r.at >= at).unwrap() + usize::from(inclusive);
                (format!("{{ lsn = \"{}\", inclusive = {inclusive} }}", firedrill::domain::Lsn(at)), before(stops))
            }
            _ => {
                let index = pick(&mut random, &|r| r.point.is_some());
                (format!("{{ name = \"{}\" }}", records[index].point.clone().unwrap()), before(index))
            }
        }
    };
    let mut states = std::collections::BTreeSet::new();
    // a hundred in tests/run.sh, ten for each drill
    let points: usize = std::env::var("FIREDRILL_PITR_TARGETS").map_or(30, |n| n.parse().unwrap());
    for drill in 0..points / 10 {
        let mut scenario = "objectives = { rpo = \"24h\", rto = \"10m\" }\n[sandbox]\nmemory = \"2GiB\"\nprocesses = 512\ntime = \"10m\"\n\
                            scratch = { kind = \"tmpfs\", size = \"1500MiB\" }\n"
            .to_owned();
        let mut checks = String::new();
        for number in 0..10 {
            let (target, expected) = target();
            let (count, sum) = (expected.len(), expected.iter().map(|n| n * n).sum::<i64>());
            let name = format!("point-{drill}-{number}");
            scenario += &format!(
                "[[restore]]\nmethod = \"postgres\"\nname = \"{name}\"\nbase = \"base\"\nwal = \"wal\"\ntarget = {target}\ndatabase = \"postgres\"\n\
                 settings = {{ shared_buffers = \"2MB\", max_connections = \"110\" }}\n"
            );
            checks += &format!(
                "[[check]]\nkind = \"sql\"\nname = \"{name}\"\nservice = \"{name}\"\nquery = \"select count(*) || ' ' || coalesce(sum(n * n), 0) from work\"\nexpect = \"text: {count} {sum}\"\n"
            );
            states.insert(expected);
        }
        home.drill(&home.named_scenario("points", &(scenario + &checks))).ends("PASSED");
    }
    assert!(states.len() * 2 > points, "{points} points were of {} states", states.len());
}

#[test]
fn a_base_a_night_and_wal_as_it_is_written() {
    let home = Home::new();
    let vault = Vault::new(&home, Locking::On);
    home.shell("cp keys/records.agekey keys/ehr.agekey");
    let server = Server::postgres();
    let (last, before) = (home.hours_ago(3).0.strftime("%Y%m%dT%H%M%S"), home.hours_ago(27).0.strftime("%Y%m%dT%H%M%S"));
    // each base with the WAL of its time: what was seen last is in the last segment alone
    server.shell(
        &[],
        &format!(
            r#"mkdir wal base
            psql -q postgres -c "alter system set archive_command = 'cp %p $PWD/wal/%f'"
            pg_ctl -D data -l log -m fast -w restart >/dev/null
            psql -q postgres -c "update patient set seen = now() - interval '2 hours'"
            for name in {before} {last}; do pg_basebackup -D - -Ft -X none -c fast > base/$name.tar 2>/dev/null; done
            for i in 1 2 3; do psql -q postgres -c "update patient set seen = now() where id = $i" -c "select pg_switch_wal()" >/dev/null; done
            for _ in $(seq 100); do [ $(ls wal | grep -c '^0.......................$') -ge 7 ] && break; sleep 0.1; done"#
        ),
    );
    home.shell(&format!("cp -r {0}/wal {0}/base .", server.path("").display()));
    let segment = |from_the_end: usize| {
        let names = String::from_utf8(home.shell("ls wal | grep '^0.......................$'")).unwrap();
        names.lines().rev().nth(from_the_end).unwrap().to_owned()
    };
    // encrypts and uploads what is there, after some harm
    let back_up = |harm: &str| {
        vault.shell(&format!(
            "rm -rf copy sealed; mkdir copy sealed; cp -r wal base copy; cd copy; {harm}; cd ..
             for file in $(cd copy; ls -d wal/* base/*); do
               mkdir -p sealed/$(dirname $file); zstd -qc copy/$file | age -r $RECIPIENT > sealed/$file.zst.age
             done
             echo x > sealed/base/{last}.tar.zst.age.partial; rclone sync -q sealed s3:$BUCKET/ehr-pitr"
        ));
    };
    back_up("true");
    let scenario = at_home(&home, "postgres-pitr", &vault.place("ehr-pitr"));
    let good = vault.passes(&scenario);
    let report = &good.report;
    assert_eq!((&report["backup"]["point"]["points_seen"], &report["measurements"]["data_age"]["source"]), (&2.into(), &"content".into()));
    let recovery = &report["services"][0]["recovery"];
    assert_eq!((&recovery["target"], &recovery["reached"]), (&"the end of the WAL".into(), &recovery["whole_until"]), "{recovery:#}");
    let problem = |problem: &str, how: &str| {
        vault.run(&scenario).ends("FAILED").blames_backup("service_failed", &[("problem", problem), ("how", how)]);
    };
    {
        // LIES 10: recovery would end where a segment is missing, and say nothing
        let _hole = vault.damage(&format!("ehr-pitr/wal/{}.zst.age", segment(1)), Harm::Gone);
        problem("log_hole", "recovery would end there, and say nothing");
    }
    for key in [format!("ehr-pitr/wal/{}.zst.age", segment(1)), format!("ehr-pitr/base/{last}.tar.zst.age")] {
        let _rot = vault.damage(&key, Harm::Flip);
        vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "rclone")]);
    }
    // LIES 1: before they were encrypted
    back_up(&format!("printf X | dd of=wal/{} bs=1 seek=150 conv=notrunc status=none", segment(1)));
    problem("log_damaged", "checksum");
    let table = server.shell(&[], "psql -qAt postgres -c \"select pg_relation_filepath('patient')\"");
    back_up(&format!(
        "mkdir t; tar -xf base/{last}.tar -C t; printf XX | dd of=t/{} bs=1 seek=5000 conv=notrunc status=none; tar -cf base/{last}.tar -C t .; rm -r t",
        table.trim()
    ));
    problem("input_damaged", "1 differ");
    // the archiver died after the base: all that there is recovers, and is of two hours ago
    back_up("for name in $(ls wal | grep -v backup | tail -n 3); do rm wal/$name; done");
    let died = vault.run(&scenario).ends("FAILED");
    died.blames_backup("objective_missed", &[("objective", "rpo")]);
    assert!(died.report["services"][0]["recovery"]["reached"].is_string(), "{:#}", died.report["services"]);
    // an index that rotted on the server itself: copied faithfully, listed by its manifest as it is
    server.shell(
        &[],
        &format!(
            r#"index=data/$(psql -qAt postgres -c "select pg_relation_filepath('patient_name')"); pg_ctl -D data -m fast -w stop >/dev/null
            head -c 6000 /dev/zero | tr '\0' '\377' | dd of=$index bs=1 seek=9000 conv=notrunc status=none
            pg_ctl -D data -l log -w start >/dev/null; pg_basebackup -D - -Ft -X none -c fast > base/{last}.tar 2>/dev/null
            last=$(psql -qAt postgres -c "select pg_walfile_name(pg_switch_wal())"); for _ in $(seq 100); do [ -e wal/$last ] && break; sleep 0.1; done"#
        ),
    );
    home.shell(&format!("rm -r wal base; cp -r {0}/wal {0}/base .", server.path("").display()));
    back_up("true");
    vault.run(&scenario).ends("FAILED").blames_backup("integrity_broken", &[("check", "integrity")]);
    home.write("keys/ehr.agekey", "no key\n");
    vault.run(&scenario).ends("INCONCLUSIVE").blames_runner("tool_could_not_run", &[("tool", "rclone")]);
}
