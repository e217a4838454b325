//! SQLite opened on what was restored, and asked: files with their WAL and without, dumps, and their damaged twins.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use firedrill::domain::{DrillId, IntegrityDepth, ObjectClass, Sample, ServiceKind, ServiceProblem, ServiceStep, SqliteMadeBy, SqliteStep};
use firedrill::restore::service::{self, Service, ServiceError, Shop};
use firedrill::sandbox::{Sandbox, provision};

use super::{Vault, fails};
use crate::drills::{Drilled, Home, PATIENT};
use crate::scenarios::at_home;
use crate::servers::Locking;

/// Two hundred patients of two days ago, checkpointed; and the visits of today, which are in the WAL alone.
const LIVE: &str = "pragma journal_mode = wal; pragma wal_autocheckpoint = 0;
    create table patient (id integer primary key, name text not null, born text unique);
    create table visit (patient int references patient, seen text not null, note blob);
    create index visit_seen on visit (seen); create view today as select * from visit where seen > datetime('now', '-1 day');
    create trigger tidy after insert on visit begin delete from visit where patient is null; end;
    with recursive n(i) as (select 1 union all select i + 1 from n where i < 200) insert into patient select i, 'PATIENT ' || i, i from n;
    insert into visit select id, datetime('now', '-2 days'), randomblob(200) from patient;
    pragma wal_checkpoint(truncate);";
const TODAY: &str = "insert into visit select id, datetime('now', '-1 hour'), zeroblob(300) from patient where id <= 40;
    insert into visit values (1, datetime('now'), null); insert into visit values (2, datetime('now'), null)";

/// A place where databases are made and sealed.
pub(super) struct Registry {
    pub(super) home: Home,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self { home: Home::new() }
    }

    /// Copies of a live database, by a script that its shell runs in the middle; what is in `out` is backed up then.
    pub(super) fn live(&self, script: &str) {
        let live = LIVE.replace("PATIENT", PATIENT);
        self.home.write("copy", script);
        self.home.shell(&format!(
            "rm -rf out live.db*; mkdir out; sqlite3 live.db \"{live}\" \"{TODAY}\" '.shell bash -euo pipefail copy' > said; \
             ! grep -i error said"
        ));
        self.seal();
    }

    /// Backs up `out` once more, after a script has changed it.
    pub(super) fn harm(&self, script: &str) {
        self.home.shell(script);
        self.seal();
    }

    fn seal(&self) {
        self.home.shell(&format!("tar -C out -cf - . | zstd -q | age -r $RECIPIENT > backups/{}", self.home.bare_name(1)));
    }

    pub(super) fn scenario(&self, step: &str, checks: &str) -> PathBuf {
        let overlay = format!("objectives = {{ rpo = \"24h\", rto = \"10m\" }}\n[[restore]]\nmethod = \"sqlite\"\n{step}\n{checks}");
        self.home.named_scenario("registry", &overlay)
    }

    pub(super) fn drill(&self, step: &str, checks: &str) -> Drilled {
        self.home.drill(&self.scenario(step, checks))
    }

    #[track_caller]
    fn fails_by(&self, step: &str, problem: &str) -> Drilled {
        let drilled = self.drill(step, CHECKS).ends("FAILED");
        drilled.blames_backup("service_failed", &[("problem", problem)]);
        drilled
    }
}

pub(super) const CHECKS: &str = r#"
[[check]]
kind = "sql"
name = "visits are there"
query = "select count(*) from today"
expect = "= 42"
[[check]]
kind = "sql"
name = "exact counts"
tables = { patient = "= 200", "main.visit" = "= 242" }
[[check]]
kind = "freshness"
query = "select max(seen) from visit"
"#;

pub(super) const FILE: &str = "file = \"*.db*\"";
pub(super) const DUMP: &str = "dump = \"*.sql\"";

#[test]
fn a_database_comes_back_from_everything_that_sqlite_backs_up_with() {
    let registry = Registry::new();
    let passes = |method: &str, step: &str, script: &str, files: u32| -> Drilled {
        registry.live(script);
        // nothing is written beside what came
        let checks = format!("{CHECKS}\n[[check]]\nkind = \"files\"\npattern = \"*\"\ncount = \"= {files}\"");
        let drilled = registry.drill(step, &checks).ends("PASSED");
        let service = &drilled.report["services"][0];
        assert_eq!((&service["engine"], &service["name"]), (&"sqlite".into(), &"sqlite".into()));
        assert!(service["method"].as_str().unwrap().contains(method), "{service}");
        assert!(service["path"].as_str().unwrap().ends_with("/sqlite3") && service["sha256"].is_string(), "{service}");
        assert_eq!(drilled.report["measurements"]["data_age"]["source"], "content");
        let warned = drilled.findings().iter().any(|f| f["severity"] == "warn");
        assert!(!warned, "{:#?}", drilled.findings());
        drilled
    };
    passes("its WAL of", FILE, "cp live.db live.db-wal live.db-shm out", 3).left_nothing();
    passes("file", "file = \"*.db\"\nmade_by = \"backup\"", "sqlite3 live.db '.backup \"out/a ?b%#.db\"'", 1);
    passes("file", FILE, "sqlite3 live.db 'vacuum into \"out/registry.db\"'", 1);
    passes("dump", DUMP, "sqlite3 live.db .dump > out/registry.sql", 1);
    // a transaction was under way, of which pages are in the file already
    passes(
        "journal rolled back",
        FILE,
        "sqlite3 live.db 'vacuum into \"out/registry.db\"'; cd out; sqlite3 registry.db 'pragma cache_size = 2; pragma cache_spill = 2; begin; \
         update visit set note = randomblob(2000); delete from patient where id > 7' '.shell cp registry.db c.db; cp registry.db-journal c.db-journal'
         mv c.db registry.db; mv c.db-journal registry.db-journal",
        2,
    );
}

#[test]
fn a_database_without_its_wal_misses_the_rpo_and_is_warned_of() {
    let registry = Registry::new();
    registry.live("cp live.db out");
    // it opens, it is sound, and it answers: with what was there two days ago
    let sound = "[[check]]\nkind = \"sql\"\nname = \"sound\"\nquery = \"pragma integrity_check\"\nexpect = \"text: ok\"";
    let newest = "[[check]]\nkind = \"freshness\"\nquery = \"select max(seen) from visit\"";
    let drilled = registry.drill(FILE, &format!("{sound}\n{newest}")).ends("FAILED");
    drilled.because("objective_missed");
    assert_eq!(drilled.report["checks"][0]["outcome"], "passed");
    assert_eq!(drilled.warns("service_failed")["problem"], "input_truncated");
    // where nobody asks for the newest row, the warning is what is left
    let scenario = registry.home.named_scenario("registry", &format!("[[restore]]\nmethod = \"sqlite\"\n{FILE}\n{sound}"));
    registry.home.drill(&scenario).ends("PASSED").warns("service_failed");
}

#[test]
fn a_wal_that_recovery_passes_over_in_silence_fails() {
    let registry = Registry::new();
    registry.live("cp live.db live.db-wal out; cp live.db-wal keep");
    let wal = "out/live.db-wal";
    // a bit of the first frame's page: the commits after it are whole, and are lost
    registry.harm(&format!("printf '\\x55' | dd of={wal} bs=1 seek=100 conv=notrunc status=none"));
    let drilled = registry.fails_by(FILE, "input_damaged");
    drilled.blames_backup("service_failed", &[("how", "frame 1 of its WAL"), ("how", "3 commits after it are lost")]);
    // a bit of its header, zeros, and less than a header: SQLite takes it for none at all
    registry.harm(&format!("cp keep {wal}; printf '\\x55' | dd of={wal} bs=1 seek=18 conv=notrunc status=none"));
    registry.fails_by(FILE, "input_damaged");
    registry.harm(&format!("head -c $(stat -c %s keep) /dev/zero > {wal}"));
    registry.fails_by(FILE, "input_damaged");
    registry.harm(&format!("head -c 20 keep > {wal}"));
    registry.fails_by(FILE, "input_damaged");
    // cut within its last frame: what comes back is sound, without what came last
    registry.harm(&format!("head -c -1000 keep > {wal}"));
    let drilled = registry.drill(FILE, CHECKS).ends("FAILED");
    assert_eq!(drilled.warns("service_failed")["problem"], "input_truncated");
    drilled.blames_backup("check_failed", &[("check", "visits are there")]);
}

#[test]
fn what_is_no_whole_database_fails_with_its_reason() {
    let registry = Registry::new();
    registry.live("sqlite3 live.db 'vacuum into \"out/registry.db\"'; cp out/registry.db whole.db; sqlite3 live.db .dump > whole.sql");
    let file = |script: &str, problem: &str| {
        registry.harm(&format!("rm -f out/*; {script}"));
        registry.fails_by(FILE, problem)
    };
    file("head -c -4096 whole.db > out/registry.db", "input_truncated");
    file("head -c 50 whole.db > out/registry.db", "input_truncated");
    file("head -c 90000 /dev/zero > out/registry.db", "input_unusable");
    file("touch out/registry.db", "input_unusable");
    file("head -c 90000 /dev/urandom > out/registry.db", "input_unusable");
    file("touch out/none", "input_missing");
    file("sqlite3 out/registry.db 'create table patient (id)'", "empty");
    file(
        "cp whole.db out/registry.db; printf '\\xff\\xff\\xff' | dd of=out/registry.db bs=1 seek=100 conv=notrunc status=none",
        "input_damaged",
    );
    let dump = |script: &str, problem: &str| {
        registry.harm(&format!("rm -f out/*; {script}"));
        registry.fails_by(DUMP, problem)
    };
    dump("head -n -4 whole.sql > out/registry.sql", "input_truncated");
    dump("sed '$ d' whole.sql > out/registry.sql", "input_truncated");
    dump("cp whole.db out/registry.sql", "input_unusable");
    dump("touch out/registry.sql", "input_unusable");
    dump("sed '10 s/VALUES(/VALUES((/' whole.sql > out/registry.sql", "input_damaged");
    dump("sed '/^INSERT INTO patient VALUES(7,/ p' whole.sql > out/registry.sql", "load_refused");
    // a dump is code, and the shell has commands: none of them is run
    let drilled = dump("sed '3 i .shell touch /data/harmed' whole.sql > out/registry.sql", "load_refused");
    drilled.blames_backup("service_failed", &[("how", "none of them is run")]);
    // the shell itself says that what it dumped was damaged
    let damaged = "cp whole.db torn.db; dd if=/dev/urandom of=torn.db bs=4096 seek=4 count=3 conv=notrunc status=none; \
                   sqlite3 torn.db .dump > out/registry.sql || true; tail -n 1 out/registry.sql | grep -q ROLLBACK";
    dump(damaged, "input_damaged");
}

#[test]
fn questions_to_sqlite_are_answered_refused_or_cannot_be_asked() {
    let registry = Registry::new();
    registry.live("cp live.db live.db-wal out");
    let one = |query: &str| {
        let checks = format!("[[check]]\nkind = \"sql\"\nname = \"asked\"\nquery = \"{query}\"\nexpect = \">= 1\"");
        registry.drill(FILE, &checks)
    };
    one("-- a comment\\nselect 1").ends("PASSED");
    one("select count(*) - 200 from patient").ends("FAILED").blames_backup("check_failed", &[("check", "asked")]);
    one("select count(*) from encounter").ends("FAILED").blames_backup("query_refused", &[("state", "undefined_table")]);
    for query in
        ["selct", "delete from patient returning 1", "select length(readfile('/etc/passwd'))", ".shell id", "attach '/data/x' as x"]
    {
        one(query).ends("INCONCLUSIVE").blames_runner("could_not_run", &[("check", "asked")]);
    }
    // where the host has no shell of that name, nothing is learned
    let two = "[[restore]]\nmethod = \"sqlite\"\nname = \"a\"\nfile = \"live.db\"\n[[restore]]\nmethod = \"sqlite\"\nname = \"b\"\nfile = \"live.db\"";
    let asks = "[[check]]\nkind = \"sql\"\nservice = \"b\"\nquery = \"select count(*) from patient\"\nexpect = \"= 200\"";
    registry.home.drill(&registry.home.named_scenario("two", &format!("{two}\n{asks}"))).ends("PASSED");
}

/// A database opened in a sandbox, without a drill around it.
struct Opened {
    sandbox: Sandbox,
    _bench: crate::sandbox::Bench,
}

impl Opened {
    async fn of(database: &[u8]) -> Self {
        let bench = crate::sandbox::Bench::new();
        let mut spec = bench.spec();
        spec.drill = DrillId(format!("{}-db", spec.drill.0));
        let sandbox = provision(&spec).await.unwrap();
        crate::sandbox::put(&sandbox, "a.db", database);
        Self { sandbox, _bench: bench }
    }

    async fn ask<T>(self, ask: impl AsyncFnOnce(&dyn Service, &Shop<'_>) -> T) -> T {
        let left = || Duration::from_secs(60);
        let shop = Shop {
            name: "sqlite",
            sandbox: &self.sandbox,
            directories: &[],
            processors: 1,
            memory: 64 << 20,
            left: &left,
            nonce: "5a17".to_owned(),
            remarks: Mutex::default(),
        };
        let kind = ServiceKind::Sqlite(SqliteStep::File { file: "*.db".to_owned(), made_by: SqliteMadeBy::Backup });
        let mut service = service::of(&ServiceStep { name: "sqlite".to_owned(), kind });
        service.load(&shop).await.unwrap();
        let answer = ask(&*service, &shop).await;
        crate::sandbox::assert_gone(&self.sandbox.destroy().await);
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_says_what_its_schema_its_content_and_its_integrity_are() {
    let registry = Registry::new();
    registry.live("sqlite3 live.db 'vacuum into \"out/one.db\"'");
    let home = &registry.home;
    let opened = async |name: &str| Opened::of(&std::fs::read(home.path(name)).unwrap()).await;
    let read = async |name: &str| {
        opened(name)
            .await
            .ask(async |service, shop| {
                let objects = service.objects(shop, None).await.unwrap();
                let all = service.fingerprints(shop, None, &[], None).await.unwrap();
                let some = service.fingerprints(shop, None, &["patient".to_owned()], Some(Sample { per_million: 300_000 })).await.unwrap();
                assert!(service.fingerprints(shop, None, &["nobody".to_owned()], None).await.is_err());
                (objects, all, some)
            })
            .await
    };
    let (objects, all, some) = read("out/one.db").await;
    let of = |class| objects.iter().filter(|o| o.class == class).count();
    use ObjectClass as C;
    let counts = [C::Table, C::Column, C::Index, C::View, C::Trigger, C::Constraint].map(of);
    assert_eq!(counts, [2, 6, 1, 1, 1, 2], "{objects:#?}");
    assert_eq!(all.iter().map(|(name, f)| (name.as_str(), f.rows)).collect::<Vec<_>>(), [("patient", 200), ("visit", 242)]);
    assert_eq!(some[0].1.rows, 200);
    assert_ne!(some[0].1.digest, all[0].1.digest);
    // the same rows in another order are the same; one more, one less, one changed are not
    home.shell(
        "cp out/one.db two.db; sqlite3 two.db 'create temp table t as select * from visit; delete from visit; \
         insert into visit select * from t order by random()'; cp two.db three.db; sqlite3 three.db 'update visit set seen = seen || 0 where rowid = 7'; \
         cp two.db four.db; sqlite3 four.db 'drop index visit_seen; delete from visit where rowid = 9'",
    );
    assert_eq!(read("two.db").await, (objects.clone(), all.clone(), some.clone()));
    let (_, changed, _) = read("three.db").await;
    assert!(changed[0] == all[0] && changed[1].1.rows == 242 && changed[1] != all[1]);
    let (fewer, less, _) = read("four.db").await;
    assert!(fewer.len() + 1 == objects.len() && less[1].1.rows == 241);
    let looked =
        async |name: &str, depth| opened(name).await.ask(async |service, shop| service.integrity(shop, None, depth).await.unwrap()).await;
    for depth in [IntegrityDepth::Quick, IntegrityDepth::Full] {
        let answer = looked("two.db", depth).await;
        assert!(answer.damaged.is_empty() && answer.examined == 4, "{answer:?}");
    }
    // a copy made while it was written: half of the pages are of before, half of after
    home.shell(
        "cp two.db after.db; sqlite3 after.db \"delete from visit where rowid % 2; insert into visit select id, datetime('now'), randomblob(900) from patient\"; \
         half=$(( $(stat -c %s two.db) / 8192 )); cp after.db torn.db; dd if=two.db of=torn.db bs=4096 count=$half skip=1 seek=1 conv=notrunc status=none",
    );
    let torn = looked("torn.db", IntegrityDepth::Full).await;
    assert!(!torn.damaged.is_empty() && !torn.output.is_empty(), "{torn:?}");
    // every page is sound, and a visit is of nobody; and an index that has another row
    home.shell("cp two.db orphan.db; sqlite3 orphan.db 'delete from patient where id = 3'");
    assert!(looked("orphan.db", IntegrityDepth::Quick).await.damaged.is_empty());
    assert_eq!(looked("orphan.db", IntegrityDepth::Full).await.damaged, ["visit"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_another_program_opens_is_not_copied_twice() {
    // what needs no recovery is opened where it lies
    let home = Home::new();
    home.shell("sqlite3 a.db 'create table t (a); insert into t values (1)'");
    let opened = Opened::of(&std::fs::read(home.path("a.db")).unwrap()).await;
    let failed = opened
        .ask(async |service, shop| {
            let rows = service.query(shop, None, "select file from pragma_database_list").await.unwrap();
            assert_eq!(rows.0, [[Some("/data/a.db".to_owned())]]);
            shop.input("*.sql").unwrap_err()
        })
        .await;
    assert!(matches!(failed, ServiceError::Backup { problem: ServiceProblem::InputMissing, .. }));
}

#[test]
fn a_file_of_sqlite_with_its_wal() {
    let registry = Registry::new();
    let home = &registry.home;
    let vault = Vault::new(home, Locking::On);
    let key = format!("registry/registry-{}.tar.zst.age", home.hours_ago(2).0.strftime("%Y-%m-%dT%H%M"));
    let back_up = |script: &str| {
        registry.live(script);
        vault.shell(&format!("rclone copyto -q backups/{} s3:$BUCKET/{key}", home.bare_name(1)));
    };
    let scenario = at_home(home, "sqlite-file", &vault.place("registry"));
    back_up("cp live.db out/registry.db; cp live.db-wal out/registry.db-wal");
    vault.passes(&scenario);
    back_up("cp live.db out/registry.db");
    let drilled = vault.run(&scenario).ends("FAILED");
    drilled.because("objective_missed");
    back_up("sqlite3 live.db 'vacuum into \"out/registry.db\"'; sqlite3 out/registry.db 'delete from patient where id = 9'");
    fails(&vault.run(&scenario), "every visit has its patient");
}
