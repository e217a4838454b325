//! Tools that back up databases. No server is started on what they restore; the servers here are those that are backed up.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::{Harm, Vault, fails, succeeds};
use crate::drills::{Home, PATIENT};
use crate::scenarios::at_home;
use crate::servers::Locking;

const POSTGRES: &str = "/usr/lib/postgresql/15/bin";

/// A server that is backed up: its own directory, its own user where the tests run as root, a socket and no port.
pub(crate) struct Server {
    directory: tempfile::TempDir,
    stop: &'static str,
}

impl Server {
    pub(super) fn new(start: &str, stop: &'static str) -> Self {
        let directory = tempfile::Builder::new().prefix("firedrill-server-").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let server = Self { directory, stop };
        server.shell(&[], start);
        server
    }

    /// A file of its directory.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a script there, as the server's user.
    #[track_caller]
    pub(crate) fn shell(&self, environment: &[(&'static str, String)], script: &str) -> String {
        succeeds(script, self.command(script).envs(environment.iter().map(|(k, v)| (k, v))))
    }

    fn command(&self, script: &str) -> Command {
        // SAFETY: a plain call.
        let root = unsafe { libc::geteuid() } == 0;
        let mut command = Command::new(if root { "setpriv" } else { "env" });
        if root {
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
        }
        command
            .args(["bash", "-euo", "pipefail", "-c", script])
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", format!("{POSTGRES}:/usr/sbin:{}", std::env::var("PATH").unwrap()))
            .env("HOME", self.directory.path())
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("PGHOST", self.directory.path())
            .env("PGUSER", "postgres");
        command
    }

    /// PostgreSQL with one table of patients, its key and an index; its WAL goes nowhere yet.
    pub(super) fn postgres() -> Self {
        Self::new(
            &format!(
                r#"initdb -D data -U postgres -A trust -E UTF8 --no-sync >/dev/null
                cat >> data/postgresql.conf <<CONF
unix_socket_directories = '$PWD'
listen_addresses = ''
fsync = off
archive_mode = on
archive_command = 'true'
CONF
                pg_ctl -D data -l log -w start >/dev/null
                psql -q postgres <<SQL
create table patient (id int primary key, name text not null, seen timestamptz not null);
create index patient_name on patient (name);
insert into patient select i, '{PATIENT} ' || i, now() from generate_series(1, 200) i;
SQL"#
            ),
            "pg_ctl -D data -m immediate stop",
        )
    }

    /// MariaDB with a table of patients, a procedure, a trigger and an event.
    pub(crate) fn mariadb() -> Self {
        Self::new(
            &format!(
                r#"# a server that starts removes the temporary tables of others in its directory for those
                export TMPDIR=$PWD
                mariadb-install-db --no-defaults --datadir=$PWD/data --auth-root-authentication-method=normal --skip-test-db \
                  --innodb-log-file-size=8M >/dev/null
                mariadbd --no-defaults --datadir=$PWD/data --socket=$PWD/socket --pid-file=$PWD/pid --skip-networking --log-bin=bin --server-id=7 \
                  --innodb-log-file-size=8M --innodb-flush-log-at-trx-commit=0 >log 2>&1 &
                for _ in $(seq 300); do mariadb-admin --no-defaults -S socket -u root ping >/dev/null 2>&1 && break; sleep 0.1; done
                mariadb --no-defaults -S socket -u root <<SQL
create database his; use his;
create table patient (id int primary key, name text);
insert into patient select seq, '{PATIENT}' from seq_1_to_200;
create procedure discharge() select 1;
create trigger admitted before insert on patient for each row set new.name = trim(new.name);
create event nightly on schedule every 1 day do select 1;
SQL"#
            ),
            "kill -9 $(cat pid)",
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.command(self.stop).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// The archived segment in which the newest backup began: PostgreSQL archives a label of that name with it.
fn first_segment(vault: &Vault<'_>, archive: &str) -> String {
    let keys = vault.keys(archive);
    let label = keys.iter().filter(|key| key.ends_with(".backup")).max().unwrap();
    let segment = label.rsplit('/').next().unwrap().split('.').next().unwrap();
    keys.iter().find(|key| key.contains(segment) && *key != label).unwrap().clone()
}

#[test]
fn dumps_of_postgresql() {
    let home = Home::new();
    let vault = Vault::new(&home, Locking::On);
    home.shell("mv keys/records.agekey keys/ehr.agekey; cp keys/ehr.agekey keys/records.agekey");
    let server = Server::postgres();
    home.write("ehr.sql", server.shell(&[], "pg_dump postgres"));
    let key = format!("ehr/ehr-{}.sql.zst.age", home.hours_ago(2).0.strftime("%Y-%m-%dT%H%M"));
    let back_up = |what: &str| drop(vault.shell(&format!("{what} | zstd -q | age -r $RECIPIENT | rclone rcat -q s3:$BUCKET/{key}")));
    back_up("cat ehr.sql");
    let scenario = at_home(&home, "pg-dump-age", &vault.place("ehr"));
    vault.passes(&scenario);
    // every row, but the dump broke off before the keys and indexes: as well compressed and encrypted as ever
    back_up("sed '/^\\\\\\.$/q' ehr.sql");
    let drilled = vault.run(&scenario);
    for check in ["the dump is whole", "keys and indexes came along"] {
        fails(&drilled, check);
    }
    home.write("ehr.sql", server.shell(&[], "pg_dump --schema-only postgres"));
    back_up("cat ehr.sql");
    vault.run(&scenario).ends("FAILED").blames_backup("check_failed", &[("check", "patients are there")]);
}

#[test]
fn base_backups_of_postgresql() {
    let home = Home::new();
    let vault = Vault::new(&home, Locking::On);
    let server = Server::postgres();
    server.shell(&[], "pg_basebackup -D - -Ft -X fetch -c fast > base.tar; chmod a+r base.tar");
    home.shell(&format!("mkdir base; tar -C base -xf {}", server.directory.path().join("base.tar").display()));
    let key = format!("ehr-base/ehr-{}.tar.zst.age", home.hours_ago(2).0.strftime("%Y-%m-%dT%H%M"));
    let back_up = |harm: &str| {
        vault.shell(&format!("{harm}; tar -C base -cf - . | zstd -q | age -r $RECIPIENT | rclone rcat -q s3:$BUCKET/{key}"));
    };
    back_up("true");
    let scenario = at_home(&home, "pg-basebackup-age", &vault.place("ehr-base"));
    vault.passes(&scenario);
    let manifest = [("check", "every file is as the manifest has it")];
    // a page rotted on the disk that the copy lay on before it was encrypted
    back_up("cp base/PG_VERSION keep; echo 14 > base/PG_VERSION");
    vault.run(&scenario).ends("FAILED").blames_backup("check_failed", &manifest);
    // every file is as it was, and of the WAL there is none
    back_up("mv keep base/PG_VERSION; rm base/pg_wal/0*");
    vault.run(&scenario).ends("FAILED").blames_backup("check_failed", &manifest);
}

#[test]
fn pgbackrest_repository() {
    let home = Home::new();
    let vault = Vault::new(&home, Locking::On);
    home.write("keys/pgbackrest.cipher", "a passphrase of pgBackRest's");
    let server = Server::postgres();
    let environment = vault.environment();
    server.shell(
        &environment,
        r#"host=${TLS%:*} port=${TLS#*:}
        cat > pgbackrest.conf <<CONF
[global]
repo1-type=s3
repo1-path=/pgbackrest
repo1-s3-bucket=$BUCKET
repo1-s3-endpoint=$host:$port
repo1-s3-uri-style=path
repo1-s3-region=us-east-1
repo1-s3-key=$AWS_ACCESS_KEY_ID
repo1-s3-key-secret=$AWS_SECRET_ACCESS_KEY
repo1-storage-verify-tls=n
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=a passphrase of pgBackRest's
repo1-bundle=y
repo1-retention-full=2
log-level-file=off
log-level-console=warn
lock-path=$PWD/lock
start-fast=y
[ehr]
pg1-path=$PWD/data
pg1-socket-path=$PWD
pg1-user=postgres
CONF
        pgbackrest="pgbackrest --config=$PWD/pgbackrest.conf --stanza=ehr"
        $pgbackrest stanza-create
        echo "archive_command = '$pgbackrest archive-push %p'" >> data/postgresql.conf
        pg_ctl -D data reload >/dev/null
        $pgbackrest backup --type=full"#,
    );
    let scenario = at_home(&home, "pgbackrest", &vault.place("pgbackrest"));
    vault.passes(&scenario);
    for harm in [Harm::Flip, Harm::Gone] {
        let _harm = vault.damage(&vault.biggest("pgbackrest/backup"), harm);
        vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "pgbackrest")]);
    }
    {
        // the backup is whole; of its WAL a segment is not in the archive
        let _hole = vault.damage(&first_segment(&vault, "pgbackrest/archive/ehr"), Harm::Gone);
        vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "pgbackrest")]);
    }
    home.write("keys/pgbackrest.cipher", "somebody's else");
    vault.run(&scenario).ends("INCONCLUSIVE").blames_runner("tool_could_not_run", &[("tool", "pgbackrest")]);
}

#[test]
fn barman_in_the_cloud() {
    let home = Home::new();
    let vault = Vault::new(&home, Locking::On);
    let server = Server::postgres();
    server.shell(
        &vault.environment(),
        r#"export AWS_REQUEST_CHECKSUM_CALCULATION=when_required
        keys="AWS_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY"
        echo "archive_command = '$keys barman-cloud-wal-archive --endpoint-url $ENDPOINT s3://$BUCKET/barman ehr %p'" >> data/postgresql.conf
        pg_ctl -D data reload >/dev/null
        barman-cloud-backup --endpoint-url $ENDPOINT -h $PGHOST -U postgres --immediate-checkpoint --gzip s3://$BUCKET/barman ehr"#,
    );
    let scenario = at_home(&home, "barman-cloud", &vault.place("barman"));
    vault.passes(&scenario);
    // of a flipped bit barman-cloud-restore itself says nothing: it is the recipe that looks at the checksum
    for harm in [Harm::Flip, Harm::Cut] {
        let _harm = vault.damage(&vault.biggest("barman/ehr/base"), harm);
        vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "barman-cloud-restore")]);
    }
    // the backup is whole; of its WAL a segment is not in the archive
    let _hole = vault.damage(&first_segment(&vault, "barman/ehr/wals"), Harm::Gone);
    vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "barman-cloud-restore")]);
}

#[test]
fn physical_backups_of_mariadb() {
    let home = Home::new();
    let vault = Vault::new(&home, Locking::On);
    home.shell("cp keys/records.agekey keys/his.agekey");
    let server = Server::mariadb();
    let stream =
        "mariadb-backup --no-defaults --backup --stream=xbstream --socket=$PWD/socket --user=root --datadir=$PWD/data --target-dir=$PWD/t";
    server.shell(&[], &format!("{stream} 2>log.backup > stream"));
    home.shell(&format!("cp {} stream", server.directory.path().join("stream").display()));
    let key = format!("his/his-{}.xbstream.zst.age", home.hours_ago(2).0.strftime("%Y-%m-%dT%H%M"));
    let back_up = |what: &str| drop(vault.shell(&format!("{what} | zstd -q | age -r $RECIPIENT | rclone rcat -q s3:$BUCKET/{key}")));
    back_up("cat stream");
    let scenario = at_home(&home, "mariadb-backup", &vault.place("his"));
    vault.passes(&scenario);
    {
        let _rot = vault.damage(&key, Harm::Flip);
        vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "mbstream")]);
    }
    // broke off between two of its chunks: for mbstream that is an end like any other
    let whole = fs::read(home.path("stream")).unwrap();
    let last = (0..whole.len() - 100).rev().filter(|at| whole[*at..].starts_with(b"XBSTCK01")).nth(12).unwrap();
    home.write("stream", &whole[..last]);
    back_up("cat stream");
    vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "mariadb-backup")]);
    // a server that forgot the one database that matters
    server.shell(&[], &format!("mariadb --no-defaults -S socket -u root -e 'drop database his'; {stream} 2>log.backup > stream"));
    home.shell(&format!("cp {} stream", server.directory.path().join("stream").display()));
    back_up("cat stream");
    vault.run(&scenario).ends("FAILED").blames_backup("check_failed", &[("check", "patients are there")]);
}

#[test]
fn dumps_of_mariadb() {
    let home = Home::new();
    let vault = Vault::new(&home, Locking::On);
    let server = Server::mariadb();
    let key = format!("his-dump/his-{}.sql.zst.age", home.hours_ago(2).0.strftime("%Y-%m-%dT%H%M"));
    let back_up = |options: &str, cut: &str| {
        home.write(
            "his.sql",
            server.shell(&[], &format!("mariadb-dump --no-defaults -S socket -u root --single-transaction {options} his")),
        );
        vault.shell(&format!("{cut} his.sql | zstd -q | age -r $RECIPIENT | rclone rcat -q s3:$BUCKET/{key}"));
    };
    back_up("--routines --events", "cat");
    let scenario = at_home(&home, "mariadb-dump-age", &vault.place("his-dump"));
    vault.passes(&scenario);
    for (options, cut, check) in [
        ("--routines --events", "head -n -20", "the dump is whole"),
        ("--routines --events --no-data", "cat", "patients are there"),
        ("", "cat", "routines, triggers and events came along"),
    ] {
        back_up(options, cut);
        fails(&vault.run(&scenario), check);
    }
}
