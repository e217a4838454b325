//! Binary logs of a real MariaDB, applied in the sandbox upon its dumps and physical backups, and their damaged twins.

use std::collections::{BTreeMap, BTreeSet};

use super::mariadb::{Backups, programs, warning};
use super::with_tools;
use crate::drills::Drilled;
use crate::scenarios::at_home;

/// Work after a backup: visits 101 to 110, each in a log of its own; of the database `his` alone.
const WORK: &str = "db='mariadb --no-defaults -S socket -u root his --skip-column-names'; \
    for i in $(seq 101 110); do $db -e \"insert into visit values ($i, 1); select concat($i, ' ', @@last_gtid)\" >> gtids; \
      $db -e 'show master status' | sed \"s/^/$i /\" >> places; $db -e 'flush binary logs'; done; \
    mkdir out/binlogs; cp data/bin.[0-9]* data/bin.index out/binlogs; rm out/binlogs/$(ls out/binlogs | grep '[0-9]$' | tail -1)";
const FROM_DUMP: &str = "dump = \"his.sql\"\nbinlogs = \"binlogs\"";

/// A backup of each kind, and work after it.
struct Logged(Backups);

impl Logged {
    fn new() -> Self {
        let backups = Backups::new();
        backups.server.shell(&[], "mkdir -p kept");
        let logged = Self(backups);
        logged.0.back_up(&format!(
            "$dump --routines --events --master-data=2 --gtid his > out/his.sql; \
             $backup --stream=xbstream --target-dir=$PWD/t 2>>log.backup > out/his.xbstream; {WORK}; cp -r out/* kept"
        ));
        logged
    }

    /// All of it, after some harm; `log` prints the name of the log that visit `$1` is in.
    fn back_up(&self, harm: &str) {
        self.0.back_up(&format!(
            "cp -r kept/* out; log() {{ echo binlogs/$(grep \"^$1 \" places | tr ' ' '\\t' | cut -f2); }}; cd out; \
             log() {{ echo binlogs/$(grep \"^$1 \" ../places | tr ' ' '\\t' | cut -f2); }}; {harm}; cd .."
        ));
    }

    /// Ends with so many visits, the newest of them that one.
    fn drill(&self, step: &str, newest: u32) -> Drilled {
        let checks = format!(
            "[[check]]\nkind = \"sql\"\nname = \"the newest\"\nquery = \"select max(id) from visit\"\nexpect = \"= {newest}\"\n\
             [[check]]\nkind = \"sql\"\nname = \"all of them\"\nquery = \"select count(*) from visit\"\nexpect = \"= {newest}\""
        );
        self.0.drill(step, &checks)
    }

    /// The transaction of a visit.
    fn gtid(&self, visit: u32) -> String {
        let gtids = std::fs::read_to_string(self.0.server.path("gtids")).unwrap();
        gtids.lines().find_map(|line| line.strip_prefix(&format!("{visit} "))).unwrap().trim().to_owned()
    }

    /// The place after a visit.
    fn place(&self, visit: u32) -> String {
        let places = std::fs::read_to_string(self.0.server.path("places")).unwrap();
        let line = places.lines().find_map(|line| line.strip_prefix(&format!("{visit} "))).unwrap();
        let mut words = line.split_whitespace();
        format!("{}:{}", words.next().unwrap(), words.next().unwrap())
    }
}

#[track_caller]
fn problem(drilled: Drilled, problem: &str, how: &str) {
    drilled.ends("FAILED").blames_backup("service_failed", &[("problem", problem), ("how", how)]);
}

#[test]
fn binary_logs_are_applied_to_the_end_and_to_a_point() {
    let all = Logged::new();
    all.back_up("true");
    let latest = all.drill(FROM_DUMP, 110).ends("PASSED");
    let service = &latest.report["services"][0];
    assert!(service["method"].as_str().unwrap().contains("binary logs up to the end of the binary logs"), "{service:#}");
    let facts = &service["binary_logs"];
    assert_eq!((&facts["last"], facts["transactions"].as_u64()), (&all.gtid(110).into(), Some(10)), "{facts:#}");
    assert!(all.place(110).ends_with(facts["reached"].as_str().unwrap()), "{facts:#}");
    assert!(facts["logs_audited"].as_u64().unwrap() >= 10, "{facts:#}");
    assert!(latest.findings().iter().all(|f| f["severity"] != "warn"), "{:#?}", latest.findings());
    latest.left_nothing();
    let to = |step: &str, target: &str, newest| all.drill(&format!("{step}\ntarget = {target}"), newest).ends("PASSED");
    to(FROM_DUMP, &format!("{{ position = \"{}\" }}", all.place(104)), 104);
    to(FROM_DUMP, &format!("{{ gtid = \"{}\" }}", all.gtid(106)), 106);
    to(FROM_DUMP, &format!("{{ gtid = \"{}\", inclusive = false }}", all.gtid(106)), 105);
    let base = "base = \"his.xbstream\"\nbinlogs = \"binlogs/bin.0*\"\ndatabase = \"his\"";
    to(base, "\"latest\"", 110);
    to(base, &format!("{{ gtid = \"{}\" }}", all.gtid(103)), 103);
    // what lies beyond the logs, or before the backup, cannot be reached, and no other state stands in for it
    for (target, how) in [
        ("{ time = \"2999-01-01T00:00:00Z\" }", "before the target"),
        ("{ position = \"bin.999999:4\" }", "before the target"),
        (&format!("{{ position = \"{}9\" }}", all.place(105)), "before the target"),
        ("{ gtid = \"0-7-999999\" }", "before the target"),
        ("{ time = \"2001-01-01T00:00:00Z\" }", "before the backup"),
        ("{ position = \"bin.000001:4\" }", "before the backup"),
        ("{ gtid = \"0-7-1\" }", "before the backup"),
    ] {
        problem(all.drill(&format!("{FROM_DUMP}\ntarget = {target}"), 110), "target_not_reached", how);
    }
}

#[test]
fn a_hole_in_the_binary_logs_fails_and_what_is_before_it_does_not_stand_in() {
    let all = Logged::new();
    let before = format!("{FROM_DUMP}\ntarget = {{ gtid = \"{}\" }}", all.gtid(102));
    let after = format!("{FROM_DUMP}\ntarget = {{ gtid = \"{}\" }}", all.gtid(109));
    for (harm, found, how) in [
        ("rm $(log 106)", "log_hole", "is missing"),
        ("rm $(log 101)", "log_hole", "is missing"),
        // another log under its name
        ("cp $(log 104) $(log 106)", "log_hole", "does not"),
        // one that lost its end between two transactions
        ("truncate -s -41 $(log 106)", "log_damaged", "ends early"),
        // the end of what was being written to
        ("truncate -s -41 $(log 110)", "log_damaged", "ends early"),
        ("truncate -s -60 $(log 110)", "log_damaged", "within an event"),
        ("truncate -s 2 $(log 110)", "log_damaged", "within an event"),
        ("truncate -s 0 $(log 105); truncate -s 1K $(log 105)", "log_damaged", "no binary log"),
        // the last byte of a row, and one of a length
        (
            "printf X | dd of=$(log 107) bs=1 seek=$(($(stat -c %s $(log 107)) - 41 - 31 - 6)) conv=notrunc status=none",
            "log_damaged",
            "checksum",
        ),
        ("printf X | dd of=$(log 107) bs=1 seek=14 conv=notrunc status=none", "log_damaged", "no event"),
    ] {
        all.back_up(harm);
        problem(all.drill(FROM_DUMP, 110), found, how);
        if harm.contains("10") && !harm.contains("101") && !harm.contains("110") {
            problem(all.drill(&after, 109), found, "");
            let warned = all.drill(&before, 102).ends("PASSED");
            let warning = warned.warns("service_failed");
            assert_eq!(warning["problem"], found, "{warning:#}");
            assert!(warning["how"].as_str().unwrap().contains("no later point can be recovered"), "{warning:#}");
        }
    }
}

#[test]
fn binary_logs_that_do_not_go_with_the_backup_fail() {
    let all = Logged::new();
    // logs of the same names, of another server: they end early, have something else at that place, or another transaction there
    let another = |place: &str| {
        let reset = "set global server_id = 8; reset master; delete from his.visit where id > 100";
        all.0.back_up(&format!(
            "cp kept/his.sql out; rm gtids places; mariadb --no-defaults -S socket -u root -e '{reset}'; {WORK}; \
             place=$(grep '^101 ' places | cut -f2); sed -i \"s/MASTER_LOG_POS=[0-9]*/MASTER_LOG_POS={place}/\" out/his.sql"
        ));
        all.drill(FROM_DUMP, 110)
    };
    problem(another("999999"), "log_hole", "ends before");
    problem(another("$((place - 20))"), "input_unusable", "of another server");
    problem(another("$place"), "input_unusable", "another one there");
    // a dump that does not say where in them it was taken
    all.back_up("sed -i '/CHANGE MASTER/d; /gtid_slave_pos/d' his.sql");
    problem(all.drill(FROM_DUMP, 110), "undescribed", "--master-data");
    // one that says it by transactions alone
    all.back_up("sed -i '/CHANGE MASTER/d' his.sql");
    all.drill(FROM_DUMP, 110).ends("PASSED");
    // a visit that is in the dump as well: the log cannot be applied
    all.back_up("sed -i 's/^INSERT INTO .visit. VALUES/&\\n(105,1),/' his.sql");
    problem(all.drill(FROM_DUMP, 110), "load_refused", "while the binary logs were applied");
    all.back_up("rm -r binlogs; mkdir binlogs; touch binlogs/bin.index");
    problem(all.drill(FROM_DUMP, 110), "input_missing", "no binary log");
    all.back_up("mkdir more; cp binlogs/bin.000002 more");
    let twice = all.drill("dump = \"his.sql\"\nbinlogs = \"**/bin.0*\"", 110).ends("INCONCLUSIVE");
    twice.blames_runner("service_could_not_run", &[("reason", "several")]);
    let renamed = all.drill(&format!("{FROM_DUMP}\ndatabase = \"mine\""), 110).ends("INCONCLUSIVE");
    renamed.blames_runner("service_could_not_run", &[("reason", "leaving `database` out")]);
}

#[test]
fn what_applies_the_logs_and_stops_before_the_target_is_noticed() {
    let all = Logged::new();
    all.back_up("true");
    let early = "args=(); for arg do [[ $arg != --stop-position=* ]] || arg=--stop-position=$((${arg#*=} - 40)); args+=(\"$arg\"); done\n\
                 exec /usr/bin/mariadb-binlog \"${args[@]}\"";
    let tools = programs(&[("mariadbd", "exec /usr/sbin/mariadbd \"$@\""), ("mariadb-binlog", early)]);
    let drilled = all.0.home.drill(&with_tools(all.0.scenario(FROM_DUMP, ""), tools.path()));
    problem(drilled, "target_not_reached", "the last that was applied");
    let broken = programs(&[("mariadbd", "exec /usr/sbin/mariadbd \"$@\""), ("mariadb-binlog", "exit 7")]);
    let drilled = all.0.home.drill(&with_tools(all.0.scenario(FROM_DUMP, ""), broken.path())).ends("INCONCLUSIVE");
    drilled.blames_runner("service_could_not_run", &[("reason", "exit status 7")]);
}

#[test]
fn what_is_logged_in_other_ways_is_applied_or_told() {
    let all = Backups::new();
    // a loaded file as a file, a transaction of two phases, and a server that died between two logs
    let work = "sql='mariadb --no-defaults -S socket -u root his --local-infile=1'; printf '101,1\\n102,1\\n' > visits; \
        $dump --routines --events --master-data=1 --gtid his > out/his.sql; \
        $sql -e \"set session binlog_format = 'statement'; load data local infile '$PWD/visits' into table visit fields terminated by ','; \
          xa start 'x'; insert into visit values (103, 1); xa end 'x'; xa prepare 'x'; xa commit 'x'; set global innodb_flush_log_at_trx_commit = 1; insert into visit values (104, 1)\"; \
        kill -9 $(cat pid); while kill -0 $(cat pid) 2>/dev/null; do sleep 0.1; done; rm socket pid; \
        TMPDIR=$PWD mariadbd --no-defaults --datadir=$PWD/data --socket=$PWD/socket --pid-file=$PWD/pid --skip-networking --log-bin=bin --server-id=7 >>log 2>&1 & \
        until mariadb-admin --no-defaults -S socket -u root ping >/dev/null 2>&1; do sleep 0.1; done; \
        $sql -e 'insert into visit values (105, 1)'; MORE; mkdir out/binlogs; cp data/bin.0* out/binlogs";
    let checks = |visits: u32| {
        format!("[[check]]\nkind = \"sql\"\nname = \"visits\"\nquery = \"select count(*) from visit\"\nexpect = \"= {visits}\"")
    };
    all.back_up(&work.replace("MORE", "true"));
    let drilled = all.drill(FROM_DUMP, &checks(105)).ends("PASSED");
    assert!(!warning(&drilled, "left_out") && !warning(&drilled, "undescribed"), "{:#?}", drilled.findings());
    // what is run elsewhere, and changes the one database that was dumped; and logs that cannot be told from rotten ones
    all.sql("delete from his.visit where id > 100; set global binlog_checksum = none");
    all.back_up(&work.replace(
        "MORE",
        "$sql -e \"create database other; use other; set session binlog_format = 'statement'; insert into his.visit values (106, 1)\"",
    ));
    let drilled = all.drill(FROM_DUMP, &checks(105)).ends("PASSED");
    assert!(warning(&drilled, "left_out") && warning(&drilled, "undescribed"), "{:#?}", drilled.findings());
    // of all databases, both are applied
    all.sql("drop database other; delete from his.visit where id > 100");
    let whole = work.replace("$dump --routines --events --master-data=1 --gtid his", "$dump --all-databases --master-data=1 --gtid");
    all.back_up(&whole.replace(
        "MORE",
        "$sql -e \"create database other; use other; set session binlog_format = 'statement'; insert into his.visit values (106, 1)\"",
    ));
    let drilled = all.drill(&format!("{FROM_DUMP}\ndatabase = \"his\""), &checks(106)).ends("PASSED");
    assert!(!warning(&drilled, "left_out"), "{:#?}", drilled.findings());
}

/// A transaction of the source's logs, as `mariadb-binlog` lists it.
struct Listed {
    log: String,
    begins: u64,
    ends: u64,
    /// Seconds since 1970.
    when: i64,
    gtid: String,
}

/// The transactions in what `mariadb-binlog` printed of one log.
fn listed(log: &str, text: &str) -> Vec<Listed> {
    let mut found: Vec<Listed> = Vec::new();
    let mut at = 0;
    for line in text.lines() {
        if let Some(place) = line.strip_prefix("# at ") {
            at = place.parse().unwrap_or(at);
        }
        let Some((head, tail)) = line.split_once("end_log_pos ").filter(|_| line.starts_with('#')) else { continue };
        let end: u64 = tail.split(' ').next().unwrap().parse().unwrap();
        if let Some((_, rest)) = tail.split_once("\tGTID ") {
            let (day, time) = head[1..].split_once("server id").unwrap().0.trim().split_once(' ').unwrap();
            let stamp = format!("20{}-{}-{} {:0>8}+0000", &day[..2], &day[2..4], &day[4..6], time.trim());
            let when = jiff::Timestamp::strptime("%Y-%m-%d %H:%M:%S%z", &stamp).unwrap().as_second();
            let gtid = rest.split(' ').next().unwrap().to_owned();
            found.push(Listed { log: log.to_owned(), begins: at, ends: end, when, gtid });
        } else if let Some(last) = found.last_mut()
            && !tail.contains("\tRotate")
            && !tail.contains("\tBinlog checkpoint")
            && !tail.contains("\tStop")
        {
            last.ends = end;
        }
    }
    found
}

#[test]
fn random_points_of_binary_logs_are_reached_as_the_servers_own_order_has_it() {
    let all = Backups::new();
    // several clients at once, each with its own form of logging, work rolled back in part or whole, in small logs
    all.back_up(
        r#"sql="mariadb --no-defaults -S socket -u root --skip-column-names"
        $sql -e "set global max_binlog_size = 4096; flush binary logs; create table his.work (n int primary key) charset latin1; create database other; create table other.work (n int primary key)"
        $dump --routines --events --master-data=2 --gtid his > out/his.sql
        $backup --stream=xbstream --target-dir=$PWD/t 2>>log.backup > out/his.xbstream
        client() {
            echo "use $3; set session binlog_format = '$2';"
            for i in $(seq 40); do
                n=$(($1 * 1000 + i))
                case $((RANDOM % 5)) in
                0) echo "insert into work values ($n); select concat(@@last_gtid, ' $n');";;
                1) echo "begin; insert into work values ($n); do sleep(0.02); insert into work values ($n + 500); commit; select concat(@@last_gtid, ' $n $((n + 500))');";;
                2) echo "begin; insert into work values ($n); rollback;";;
                3) echo "begin; insert into work values ($n); savepoint s; insert into work values ($n + 500); rollback to s; commit; select concat(@@last_gtid, ' $n');";;
                4) echo "create table t$n (a int); drop table t$n; insert into work select $n; select concat(@@last_gtid, ' $n');";;
                esac
                echo "do sleep(0.08);"
            done
        }
        RANDOM=1; client 1 row his > work.1; client 2 statement his > work.2; client 3 mixed his > work.3; client 4 row other > work.4
        for c in 1 2 3 4; do $sql < work.$c > rows.$c & clients="${clients:-} $!"; done
        wait $clients; sed -i 's/ .*//' rows.4; cat rows.1 rows.2 rows.3 > rows
        $sql -e 'flush binary logs'
        mkdir out/binlogs listed; cp data/bin.0* out/binlogs
        for log in data/bin.0*; do mariadb-binlog --no-defaults $log > listed/${log#data/}; done"#,
    );
    let read = |name: &str| std::fs::read_to_string(all.server.path(name)).unwrap();
    let rows: BTreeMap<String, Vec<i64>> = read("rows")
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(gtid, rows)| (gtid.to_owned(), rows.split(' ').map(|n| n.parse().unwrap()).collect()))
        .collect();
    let mut names: Vec<String> =
        std::fs::read_dir(all.server.path("listed")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let listed: Vec<Listed> = names
        .iter()
        .flat_map(|name| listed(name, &String::from_utf8_lossy(&std::fs::read(all.server.path(&format!("listed/{name}"))).unwrap())))
        .collect();
    let work = listed.iter().position(|t| rows.contains_key(&t.gtid)).unwrap();
    let last = listed.len() - 1;
    // by the log alone: what the transactions before this one brought
    let before = |index: usize| -> Vec<i64> {
        let mut found: Vec<i64> = listed[..index].iter().filter_map(|t| rows.get(&t.gtid)).flatten().copied().collect();
        found.sort_unstable();
        found
    };
    let mut seed = 0x5EED_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let mut target = |kind: usize| -> (String, Vec<i64>) {
        let index = work + random(last - work);
        let (one, inclusive) = (&listed[index], random(2) == 0);
        match kind {
            0 => {
                // instants are not in the order of the log: recovery ends at the first that is later
                let later = |t: &Listed| if inclusive { t.when > one.when } else { t.when >= one.when };
                let stops = listed.iter().position(later).unwrap_or(listed.len());
                let time = jiff::Timestamp::from_second(one.when).unwrap();
                (format!("{{ time = \"{time}\", inclusive = {inclusive} }}"), before(stops))
            }
            1 => {
                // within a transaction, at its beginning or at its end
                let at = [one.begins, one.begins + 20, one.ends - 1, one.ends][random(4)];
                (format!("{{ position = \"{}:{at}\" }}", one.log), before(index + usize::from(at == one.ends)))
            }
            _ => (format!("{{ gtid = \"{}\", inclusive = {inclusive} }}", one.gtid), before(index + usize::from(inclusive))),
        }
    };
    let mut states = BTreeSet::new();
    for drill in 0..2 {
        let mut scenario = "objectives = { rpo = \"24h\", rto = \"10m\" }\n[sandbox]\nmemory = \"3GiB\"\nprocesses = 512\ntime = \"10m\"\n\
                            scratch = { kind = \"tmpfs\", size = \"2500MiB\" }\n"
            .to_owned();
        let mut checks = String::new();
        for number in 0..10 {
            let (target, expected) = target(number % 3);
            let (count, sum) = (expected.len(), expected.iter().map(|n| n * n).sum::<i64>());
            let name = format!("point-{drill}-{number}");
            let from = if number % 4 == 3 { "base = \"his.xbstream\"\ndatabase = \"his\"" } else { "dump = \"his.sql\"" };
            scenario += &format!(
                "[[restore]]\nmethod = \"mariadb\"\nname = \"{name}\"\n{from}\nbinlogs = \"binlogs\"\ntarget = {target}\n\
                 settings = {{ innodb_buffer_pool_size = \"16M\", innodb_log_file_size = \"8M\" }}\n"
            );
            checks += &format!(
                "[[check]]\nkind = \"sql\"\nname = \"{name}\"\nservice = \"{name}\"\nquery = \"select concat(count(*), ' ', coalesce(sum(n * n), 0)) from work\"\nexpect = \"text: {count} {sum}\"\n"
            );
            states.insert(expected);
        }
        all.home.drill(&all.home.named_scenario("points", &(scenario + &checks))).ends("PASSED");
    }
    assert!(states.len() >= 12, "20 points were of {} states", states.len());
}

#[test]
fn the_recipe_that_applies_binary_logs() {
    let all = Logged::new();
    let home = &all.0.home;
    let scenario = || {
        let scenario = at_home(home, "mariadb-pitr", &[("url", toml::Value::from("file:../his-pitr"))]);
        let text = std::fs::read_to_string(&scenario).unwrap();
        std::fs::write(&scenario, text.replace("endpoint = \"https://s3.example.org\"\n", "")).unwrap();
        scenario
    };
    let object = home.bare_name(1);
    for (harm, verdict) in [("true", "PASSED"), ("rm $(log 106)", "FAILED")] {
        all.back_up(harm);
        home.shell(&format!("rm -rf his-pitr; mkdir his-pitr; mv backups/{object} his-pitr/his-{object}"));
        let drilled = home.drill(&scenario()).ends(verdict);
        if verdict == "FAILED" {
            drilled.blames_backup("service_failed", &[("problem", "log_hole")]);
        }
    }
}
