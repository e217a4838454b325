//! Tools that back up files.

use super::{Harm, Vault, fails, more_tools, tree_with_sums, with_more_tools};
use crate::drills::Home;
use crate::scenarios::at_home;
use crate::servers::Locking;

#[test]
fn restic_repository_under_object_lock() {
    let home = Home::new();
    tree_with_sums(&home);
    home.write("keys/restic.password", "a password of restic's\n");
    let vault = Vault::new(&home, Locking::On);
    vault.lock_for(30);
    let restic =
        "export RESTIC_REPOSITORY=s3:$ENDPOINT/$BUCKET/ehr RESTIC_PASSWORD_FILE=$PWD/keys/restic.password; cd tree; restic --no-cache -q";
    vault.shell(&format!("{restic} init"));
    // an older snapshot of less, which is not what a drill should take
    vault.shell(&format!("{restic} backup --time '2026-01-01 00:00:00' ./patients.csv"));
    vault.shell(&format!("{restic} backup ."));
    let scenario = at_home(&home, "restic", &vault.place("ehr"));
    let drilled = vault.passes(&scenario);
    assert_eq!(drilled.report["measurements"]["data_age"]["source"], "content");

    {
        let _rot = vault.damage(&vault.biggest("ehr/data"), Harm::Flip);
        vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "restic"), ("how", "exit status 1")]);
    }
    // the pack was written again, but under a shorter lock: the snapshot is as good as ever, and not protected
    vault.lock_for(2);
    drop(vault.damage(&vault.biggest("ehr/data"), Harm::Flip));
    vault.run(&scenario).ends("FAILED").blames_backup("lock_too_short", &[]);

    home.write("keys/restic.password", "somebody's else\n");
    vault.run(&scenario).ends("INCONCLUSIVE").blames_runner("tool_could_not_run", &[("tool", "restic")]);
}

#[test]
fn restic_snapshots_that_nobody_made_for_weeks() {
    let home = Home::new();
    tree_with_sums(&home);
    home.shell("find tree -exec touch -h -d '-20 days' {} +");
    home.write("keys/restic.password", "a password of restic's\n");
    let vault = Vault::new(&home, Locking::On);
    vault.lock_for(30);
    let restic =
        "export RESTIC_REPOSITORY=s3:$ENDPOINT/$BUCKET/ehr RESTIC_PASSWORD_FILE=$PWD/keys/restic.password; cd tree; restic --no-cache -q";
    vault.shell(&format!("{restic} init"));
    let scenario = at_home(&home, "restic", &vault.place("ehr"));
    // a repository without a snapshot is no backup
    vault.run(&scenario).ends("FAILED").blames_backup("no_recovery_point", &[]);
    vault.shell(&format!("{restic} backup --time \"$(date -d '-20 days' '+%F %T')\" ."));
    vault.run(&scenario).ends("FAILED").blames_backup("objective_missed", &[("objective", "rpo")]);
}

#[test]
fn restic_repository_by_rustic() {
    let home = Home::new();
    tree_with_sums(&home);
    home.write("keys/restic.password", "a password of restic's\n");
    let vault = Vault::new(&home, Locking::On);
    vault.shell(
        "export RESTIC_REPOSITORY=s3:$ENDPOINT/$BUCKET/ehr RESTIC_PASSWORD_FILE=$PWD/keys/restic.password; cd tree
         restic --no-cache -q init; restic --no-cache -q backup .",
    );
    let scenario = with_more_tools(at_home(&home, "rustic", &vault.place("ehr")));
    vault.passes(&scenario);
    for harm in [Harm::Flip, Harm::Cut, Harm::Gone] {
        let _harm = vault.damage(&vault.biggest("ehr/data"), harm);
        vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "rustic")]);
    }
    home.write("keys/restic.password", "somebody's else\n");
    vault.run(&scenario).ends("INCONCLUSIVE").blames_runner("tool_could_not_run", &[("tool", "rustic")]);
}

#[test]
fn borg_repository_copied_off_site() {
    let home = Home::new();
    tree_with_sums(&home);
    home.write("keys/borg.passphrase", "a passphrase of borg's\n");
    let vault = Vault::new(&home, Locking::On);
    vault.shell(
        "export BORG_PASSPHRASE=\"$(cat keys/borg.passphrase)\" BORG_BASE_DIR=$PWD/borg; borg init -e repokey-blake2 repository
         cd tree; borg create ../repository::ehr-{now:%Y-%m-%dT%H%M} .; cd ..; rclone copy -q repository s3:$BUCKET/ehr-borg",
    );
    let scenario = at_home(&home, "borg", &vault.place("ehr-borg"));
    let drilled = vault.passes(&scenario);
    assert_eq!(drilled.report["measurements"]["data_age"]["source"], "content");
    for harm in [Harm::Flip, Harm::Gone] {
        let _harm = vault.damage(&vault.biggest("ehr-borg/data"), harm);
        vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "borg")]);
    }
    home.write("keys/borg.passphrase", "somebody's else\n");
    vault.run(&scenario).ends("INCONCLUSIVE").blames_runner("tool_could_not_run", &[("tool", "borg")]);
}

#[test]
fn rclone_crypt_mirror() {
    let home = Home::new();
    tree_with_sums(&home);
    let vault = Vault::new(&home, Locking::On);
    vault.shell(
        "rclone obscure 'a password of rclone' > keys/rclone.obscured
         export RCLONE_CONFIG_RECORDS_TYPE=crypt RCLONE_CONFIG_RECORDS_REMOTE=s3:$BUCKET/records RCLONE_CONFIG_RECORDS_PASSWORD=\"$(cat keys/rclone.obscured)\"
         rclone sync -q --links tree records:",
    );
    let scenario = at_home(&home, "rclone-crypt", &vault.place("records"));
    let drilled = vault.passes(&scenario);
    // the files' own times came through the objects' metadata
    assert_eq!(drilled.report["measurements"]["data_age"]["source"], "content");
    for harm in [Harm::Flip, Harm::Cut] {
        let _harm = vault.damage(&vault.biggest("records"), harm);
        vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "rclone")]);
    }
    {
        // cut where one of its blocks ends: for rclone that is a shorter file
        let image = vault.biggest("records");
        let whole = vault.damage(&image, Harm::Flip);
        vault.write(&image, &whole.good[..32 + 65_552]);
        fails(&vault.run(&scenario), "contents match their sums");
    }
    {
        // of an object that is not there, a mirror does not know that it should be
        let _gone = vault.damage(&vault.biggest("records"), Harm::Gone);
        fails(&vault.run(&scenario), "contents match their sums");
    }
    vault.shell("rclone obscure 'somebody elses' > keys/rclone.obscured");
    vault.run(&scenario).ends("INCONCLUSIVE").blames_runner("tool_could_not_run", &[("tool", "rclone")]);
}

#[test]
fn duplicity_chain() {
    let home = Home::new();
    tree_with_sums(&home);
    home.write("keys/duplicity.passphrase", "a passphrase of duplicity's");
    let vault = Vault::new(&home, Locking::On);
    let back_up = "export PASSPHRASE=\"$(cat keys/duplicity.passphrase)\"
         duplicity --s3-endpoint-url $ENDPOINT -v0 tree boto3+s3://$BUCKET/ehr-dup";
    // backups of the same second would be one
    vault.shell(&format!("{back_up} --current-time $(($(date +%s) - 3600))"));
    home.shell("echo one more > tree/records/more; cd tree; sha256sum records/more >> SHA256SUMS");
    vault.shell(back_up);
    let scenario = at_home(&home, "duplicity", &vault.place("ehr-dup"));
    let drilled = vault.passes(&scenario);
    assert_eq!(drilled.report["backup"]["point"]["points_seen"], 2);
    {
        // the full backup rots; the increment made since is untouched, and worth nothing
        let _rot = vault.damage(&vault.biggest("ehr-dup"), Harm::Flip);
        vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "duplicity")]);
    }
    home.write("keys/duplicity.passphrase", "somebody's else");
    vault.run(&scenario).ends("INCONCLUSIVE").blames_runner("tool_could_not_run", &[("tool", "duplicity")]);
}

#[test]
fn litestream_replica() {
    let home = Home::new();
    let vault = Vault::new(&home, Locking::On);
    let litestream = more_tools().join("litestream");
    let sql = |sql: &str| drop(home.shell(&format!("sqlite3 registry.db \"{sql}\"")));
    let replicate = |prefix: &str| {
        let url = format!("s3://$BUCKET/{prefix}?endpoint=$ENDPOINT&region=us-east-1&force-path-style=true");
        vault.shell(&format!("{} replicate -once registry.db \"{url}\"", litestream.display()));
    };
    sql(&format!(
        "pragma journal_mode = wal; create table patient (id integer primary key, name text);
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 200) insert into patient select i, '{}' from n",
        crate::drills::PATIENT
    ));
    replicate("registry.db");
    sql("insert into patient values (201, 'the last')");
    replicate("registry.db");
    let scenario = with_more_tools(at_home(&home, "litestream", &vault.place("registry.db")));
    vault.passes(&scenario);
    for harm in [Harm::Flip, Harm::Gone] {
        // of the first file, on which all others stand
        let first = vault.keys("registry.db/0000").into_iter().min().unwrap();
        let _harm = vault.damage(&first, harm);
        vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "litestream")]);
    }
    // replicated faithfully: that nothing is left
    sql("delete from patient where id > 20");
    replicate("registry.db");
    vault.run(&scenario).ends("FAILED").blames_backup("check_failed", &[("check", "patients are there")]);
}
