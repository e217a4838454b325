//! Services by definition, with real servers: what they backed up comes back in the sandbox and answers, and its damaged twins do not.

use std::path::PathBuf;

use super::{Vault, databases::Server};
use crate::drills::{Drilled, Home, PATIENT};
use crate::scenarios::at_home;
use crate::servers::Locking;

/// A vault with one object a night, and the scenario that is given away for it.
struct Night<'a> {
    vault: Vault<'a>,
    key: String,
    scenario: PathBuf,
}

impl<'a> Night<'a> {
    fn new(home: &'a Home, name: &str, scenario: impl FnOnce(&Vault<'a>) -> PathBuf) -> Self {
        let vault = Vault::new(home, Locking::On);
        let key = format!("{name}/{name}-{}.tar.zst.age", home.hours_ago(2).0.strftime("%Y-%m-%dT%H%M"));
        home.shell("rm -rf out; mkdir out");
        let scenario = scenario(&vault);
        Self { vault, key, scenario }
    }

    /// Backs up what a script leaves in `out`.
    fn back_up(&self, script: &str) {
        self.vault.shell(&format!(
            "rm -rf out; mkdir out; {script}; tar -C out -cf - . | zstd -q | age -r $RECIPIENT | rclone rcat -q s3:$BUCKET/{}",
            self.key
        ));
    }

    #[track_caller]
    fn passes(&self, script: &str) -> Drilled {
        self.back_up(script);
        let drilled = self.vault.passes(&self.scenario);
        let service = &drilled.report["services"][0];
        assert_eq!(service["engine"], "defined", "{service}");
        assert!(service["version"].as_str().unwrap().contains(|c: char| c.is_ascii_digit()) && service["sha256"].is_string(), "{service}");
        assert_eq!(drilled.report["measurements"]["data_age"]["source"], "content");
        drilled
    }

    #[track_caller]
    fn fails(&self, script: &str, problem: &str) {
        self.back_up(script);
        self.vault.run(&self.scenario).ends("FAILED").blames_backup("service_failed", &[("problem", problem)]);
    }

    #[track_caller]
    fn misses_the_rpo(&self, script: &str) {
        self.back_up(script);
        self.vault.run(&self.scenario).ends("FAILED").because("objective_missed");
    }

    /// Changes the scenario's text, and drills what was backed up last.
    fn with(&self, from: &str, to: &str) -> Drilled {
        let text = std::fs::read_to_string(&self.scenario).unwrap();
        assert!(text.contains(from), "{text}");
        let other = self.scenario.with_file_name("other.toml");
        std::fs::write(&other, text.replace(from, to)).unwrap();
        self.vault.run(&other)
    }
}

/// Copies a file of a server to home, where it is backed up.
pub(super) fn fetch(home: &Home, server: &Server, names: &[&str]) {
    for name in names {
        home.shell(&format!("rm -rf {name}; cp -r {} {name}", server.path(name).display()));
    }
}

pub(super) fn redis() -> Server {
    let server = Server::new(
        "redis-server --port 0 --unixsocket $PWD/s --dir $PWD --appendonly yes --save '' --appendfsync no --daemonize yes --pidfile $PWD/pid >/dev/null
         for _ in $(seq 100); do redis-cli -s s ping >/dev/null 2>&1 && break; sleep 0.05; done",
        "kill -9 $(cat pid)",
    );
    server.shell(&[], &format!("for i in 1 2 3 4; do redis-cli -s s sadd waiting '{PATIENT} '$i; done; redis-cli -s s save"));
    // what is written before the rewrite is in the base, and what comes after it in the increment
    server.shell(
        &[],
        "redis-cli -s s bgrewriteaof; until redis-cli -s s info persistence | grep -q aof_rewrite_in_progress:0; do sleep 0.05; done
         redis-cli -s s set last_seen $(date -u +%FT%TZ); redis-cli -s s save; cp -r appendonlydir aof",
    );
    server
}

#[test]
fn redis_from_its_append_only_files_and_from_its_dump() {
    let home = Home::new();
    let server = redis();
    fetch(&home, &server, &["aof", "dump.rdb"]);
    let night = Night::new(&home, "redis", |vault| at_home(&home, "redis", &vault.place("redis")));
    let aof = "cp -r aof out/appendonlydir; cd out/appendonlydir";
    night.passes(&format!("({aof})"));
    // a byte of the base, a byte of the increment, its end, a file of it
    night.fails(&format!("({aof}; printf X | dd of=$(ls *.base.rdb) bs=1 seek=110 conv=notrunc status=none)"), "input_damaged");
    night.fails(&format!("({aof}; printf X | dd of=$(ls *.incr.aof) bs=1 seek=25 conv=notrunc status=none)"), "input_damaged");
    night.fails(&format!("({aof}; truncate -s -3 *.incr.aof)"), "input_truncated");
    night.fails(&format!("({aof}; rm *.base.rdb)"), "input_missing");
    night.fails("touch out/nothing", "input_missing");
    // the dump, by the same scenario
    let dump = |harm: &str| {
        night.back_up(&format!("cp dump.rdb out; {harm}"));
        night.with("aof = \"appendonlydir\"", "rdb = \"dump.rdb\"")
    };
    dump("true").ends("PASSED");
    for (harm, problem) in [
        ("truncate -s -12 out/dump.rdb", "input_truncated"),
        ("truncate -s 0 out/dump.rdb", "input_truncated"),
        ("printf X | dd of=out/dump.rdb bs=1 seek=130 conv=notrunc status=none", "input_damaged"),
        ("head -c 500 /dev/zero > out/dump.rdb", "input_unusable"),
    ] {
        dump(harm).ends("FAILED").blames_backup("service_failed", &[("problem", problem)]);
    }
    dump("true");
    let asked = |query: &str| {
        let text = std::fs::read_to_string(&night.scenario).unwrap();
        assert!(text.contains("scard waiting"));
        night.with("scard waiting", query)
    };
    night.back_up(&format!("({aof})"));
    for query in ["scard nobody", "get 'no body'"] {
        asked(query).ends("FAILED").blames_backup("check_failed", &[("check", "patients are waiting")]);
    }
    asked("get waiting").ends("FAILED").blames_backup("query_refused", &[("check", "patients are waiting")]);
    // drills read: nothing else is allowed, and nothing else is known
    for query in ["del waiting", "config get dir", "nonsense"] {
        asked(query).ends("INCONCLUSIVE").blames_runner("could_not_run", &[("check", "patients are waiting")]);
    }
    // nothing was in it, or nothing since last week
    server.shell(&[], "redis-cli -s s set last_seen 2026-01-01T00:00:00Z; rm -rf aof; cp -r appendonlydir aof");
    fetch(&home, &server, &["aof"]);
    night.misses_the_rpo(&format!("({aof})"));
    server.shell(&[], "redis-cli -s s flushall; rm -rf aof; cp -r appendonlydir aof");
    fetch(&home, &server, &["aof"]);
    night.fails(&format!("({aof})"), "empty");
}

/// Snapshots of an etcd before anything was in it, of January, and of now: `empty.db`, `old.db`, `new.db`.
pub(super) fn etcd(home: &Home) {
    let ports: Vec<u16> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()).collect();
    let (client, peer) = (format!("http://127.0.0.1:{}", ports[0]), format!("http://127.0.0.1:{}", ports[1]));
    let server = Server::new(
        &format!(
            "echo 'export ETCDCTL_API=3 ETCDCTL_ENDPOINTS={client}' > env; . ./env
             etcd --name a --data-dir data --listen-client-urls {client} --advertise-client-urls {client} --listen-peer-urls {peer} \
               --initial-advertise-peer-urls {peer} --initial-cluster a={peer} --unsafe-no-fsync >log 2>&1 & echo $! > pid
             for _ in $(seq 100); do etcdctl endpoint health >/dev/null 2>&1 && break; sleep 0.1; done
             etcdctl snapshot save empty.db
             for i in 1 2 3; do etcdctl put patients/$i '{PATIENT}'; done; etcdctl put patients/last_seen 2026-01-01T00:00:00Z
             etcdctl snapshot save old.db; etcdctl put patients/last_seen $(date -u +%FT%TZ); etcdctl snapshot save new.db; chmod a+r *.db"
        ),
        "kill -9 $(cat pid)",
    );
    fetch(home, &server, &["empty.db", "old.db", "new.db"]);
}

#[test]
fn etcd_from_a_snapshot() {
    let home = Home::new();
    etcd(&home);
    let night = Night::new(&home, "etcd", |vault| at_home(&home, "etcd", &vault.place("etcd")));
    night.passes("cp new.db out/etcd.db");
    night.fails("cp new.db out/etcd.db; printf XX | dd of=out/etcd.db bs=1 seek=9000 conv=notrunc status=none", "input_damaged");
    night.fails("head -c -5000 new.db > out/etcd.db", "input_truncated");
    night.fails("touch out/etcd.db", "input_truncated");
    night.fails("cp empty.db out/etcd.db", "empty");
    night.misses_the_rpo("cp old.db out/etcd.db");
}

/// A directory of four persons, as slapcat writes it: `full.ldif`.
pub(super) fn openldap(home: &Home) {
    home.write(
        "seed.ldif",
        format!(
            "dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\no: example\ndc: example\n\n{}",
            (1..=4)
                .map(|n| format!("dn: uid=p{n},dc=example,dc=org\nobjectClass: inetOrgPerson\nuid: p{n}\ncn: {PATIENT} {n}\nsn: {n}\n\n"))
                .collect::<String>()
        ),
    );
    home.shell(
        "mkdir db; for s in core cosine inetorgperson; do echo include /etc/ldap/schema/$s.schema; done > slapd.conf; \
         printf 'modulepath /usr/lib/ldap\\nmoduleload back_mdb\\ndatabase mdb\\nsuffix dc=example,dc=org\\ndirectory %s/db\\n' $PWD >> slapd.conf; \
         PATH=$PATH:/usr/sbin; slapadd -q -f slapd.conf -l seed.ldif; slapcat -f slapd.conf > full.ldif",
    );
}

#[test]
fn openldap_from_ldif() {
    let home = Home::new();
    openldap(&home);
    let night = Night::new(&home, "openldap", |vault| at_home(&home, "openldap", &vault.place("openldap")));
    night.passes("cp full.ldif out/directory.ldif");
    night.fails("head -c -90 full.ldif > out/directory.ldif", "input_truncated");
    night.fails("touch out/directory.ldif", "input_truncated");
    night.fails("sed 's/^objectClass: inetOrgPerson/objectClass: nobodyKnows/' full.ldif > out/directory.ldif", "load_refused");
    night.fails("sed 's/^dn: uid=p3/uid=p3/' full.ldif > out/directory.ldif", "input_damaged");
    // the root alone: between two entries an LDIF ends as well as anywhere
    night.fails("sed '/^$/q' full.ldif > out/directory.ldif", "empty");
    night.misses_the_rpo("sed 's/^modifyTimestamp: 20../modifyTimestamp: 2001/' full.ldif > out/directory.ldif");
    night.back_up("cp full.ldif out/directory.ldif");
    for (query, verdict) in [("count (uid=nobody)", "FAILED"), ("count (uid=", "INCONCLUSIVE"), ("sn (uid=p4)", "PASSED")] {
        night.with("count (objectClass=inetOrgPerson)", query).ends(verdict);
    }
}

/// A server of the tests' own, to be lied with.
const DEFINITION: &str = r#"
[restore.define]
title   = "Shelf"
program = "python3"
version = { command = ["python3", "--version"], stdout = '([0-9.]+)' }
start   = ["python3", "-c", "SERVER", "{run}/socket", "{input:list}", "{nonce}"]
ready   = { command = ["bash", "-c", "test -S \"$0\"", "{run}/socket"] }
identity = { command = ["cat", "{run}/socket.says"], stdout = '\A{nonce} {pid}\n\z' }
rows    = { command = ["bash", "-c", "grep -c . < \"$0\" || true", "{input:list}"], stdout = '(\d+)' }
query   = { command = ["bash", "-c", "grep -c \"$1\" < \"$0\"", "{input:list}", "{query}"] }
problem = [{ match = "bad list", is = "input_damaged" }]
cannot_run = "no more handles"
"#;

const SERVER: &str = "import socket, sys, os, time; s = socket.socket(socket.AF_UNIX); open(sys.argv[1] + '.says', 'w').write(WORD + ' %d\\\\n' % os.getpid()); \
                      BEFORE; s.bind(sys.argv[1]); s.listen(); time.sleep(1000)";

#[test]
fn a_server_by_ones_own_definition_is_held_to_the_same() {
    let home = Home::new();
    home.shell(&format!("mkdir out; printf 'a {PATIENT}\\nb\\n' > out/list; : > out/none"));
    home.shell(&format!("tar -C out -cf - . | zstd -q | age -r $RECIPIENT > backups/{}", home.bare_name(1)));
    let drill = |definition: &str, list: &str, word: &str, before: &str| {
        let server = SERVER.replace("WORD", word).replace("BEFORE", before);
        let definition = definition.replace("SERVER", &server);
        let check = "[[check]]\nkind = \"sql\"\nname = \"lines\"\nquery = \"b\"\nexpect = \"= 1\"";
        let time = "[sandbox]\ntime = \"12s\"";
        let step = format!("{time}\n[[restore]]\nmethod = \"service\"\ninput = {{ list = \"{list}\" }}\n{definition}\n{check}");
        home.drill(&home.named_scenario("shelf", &step))
    };
    let problem = |drilled: Drilled, problem: &str| drilled.ends("FAILED").blames_backup("service_failed", &[("problem", problem)]);
    drill(DEFINITION, "list", "sys.argv[3]", "pass").ends("PASSED").left_nothing();
    // it answers, and is another one than was started
    problem(drill(DEFINITION, "list", "'somebody'", "pass"), "wrong_server");
    problem(drill(DEFINITION, "none", "sys.argv[3]", "pass"), "empty");
    problem(drill(DEFINITION, "list", "sys.argv[3]", "sys.exit(3)"), "crashed");
    problem(drill(DEFINITION, "list", "sys.argv[3]", "sys.exit('bad list')"), "input_damaged");
    problem(drill(DEFINITION, "list", "sys.argv[3]", "time.sleep(1000)"), "never_ready");
    problem(drill(DEFINITION, "nobody", "sys.argv[3]", "pass"), "input_missing");
    // and what is the host's
    let host = drill(DEFINITION, "list", "sys.argv[3]", "sys.exit('no more handles')").ends("INCONCLUSIVE");
    host.blames_runner("service_could_not_run", &[("service", "service")]);
    let missing = DEFINITION.replace("program = \"python3\"", "program = \"shelfd\"");
    let missing = drill(&missing, "list", "sys.argv[3]", "pass").ends("INCONCLUSIVE");
    missing.blames_runner("service_could_not_run", &[("reason", "shelfd is not installed")]);
}

#[test]
fn a_definition_that_could_not_hold_is_refused() {
    let home = Home::new();
    let refused = |step: &str, words: &[&str]| {
        let scenario = home.named_scenario("shelf", &format!("[[restore]]\nmethod = \"service\"\n{step}"));
        home.fire(&["run", scenario.to_str().unwrap()]).exits(2).says(words);
    };
    refused("definition = \"mongodb\"\ninput = { x = \"y\" }", &["no definition `mongodb` is built in", "etcd, openldap, redis"]);
    refused("definition = \"redis\"\ninput = { dump = \"y\" }", &["loads no `dump`", "aof, rdb"]);
    refused("definition = \"redis\"", &["nothing is loaded"]);
    refused("definition = \"openldap\"\ninput = { ldif = \"*\" }", &["needs the value `suffix`"]);
    refused("definition = \"services/none.toml\"\ninput = { x = \"y\" }", &["cannot be read"]);
    let list = "input = { list = \"list\" }\n";
    let own = |from: &str, to: &str| format!("{list}{}", DEFINITION.replace(from, to));
    refused(&own("'\\A{nonce} {pid}\\n\\z'", "'ok'"), &["any server could say this of itself"]);
    refused(&own("{query}", "b"), &["its query asks always the same"]);
    refused(&own("{run}/socket\"", "{socket}\""), &["`{socket}` is no place"]);
    refused(&own("bad list", "bad ("), &["no regular expression"]);
}
