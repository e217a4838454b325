//! Recoveries of a real PostgreSQL in which timeline, tablespaces, machine or server are not those that the base backup was taken on.

use super::pitr::{FROM_ARCHIVE, Recovered, problem};

/// A server that failed over after its base backup: `n` up to 110 is on the first timeline, up to 115 on the second.
fn failed_over() -> Recovered {
    let all = Recovered::new();
    all.server.shell(
        &[],
        r#"pg_ctl -D data -m fast -w stop >/dev/null
        echo "restore_command = 'cp $PWD/wal/%f %p'" >> data/postgresql.auto.conf; touch data/recovery.signal
        pg_ctl -D data -l log -w start >/dev/null
        until [ "$(psql -qAt postgres -c 'select pg_is_in_recovery()')" = f ]; do sleep 0.1; done
        for i in $(seq 111 115); do
            psql -q postgres -c "insert into work values ($i, clock_timestamp())" -c "select pg_create_restore_point('after $i')" >/dev/null
            last=$(psql -qAt postgres -c "select pg_walfile_name(pg_switch_wal())")
        done
        for _ in $(seq 100); do [ -e wal/$last ] && break; sleep 0.1; done; [ -e wal/00000002.history ]"#,
    );
    all
}

#[test]
fn recovery_follows_the_timeline_of_a_failover() {
    let all = failed_over();
    all.back_up_all("true");
    let latest = all.drill(FROM_ARCHIVE, 115).ends("PASSED");
    let recovery = &latest.report["services"][0]["recovery"];
    assert_eq!((recovery["timeline"].as_u64(), &recovery["reached"]), (Some(3), &recovery["whole_until"]), "{recovery:#}");
    assert!(latest.findings().iter().all(|f| f["severity"] != "warn"), "{:#?}", latest.findings());
    let to = |point: &str| format!("{FROM_ARCHIVE}\ntarget = {{ name = \"{point}\" }}");
    all.drill(&to("after 104"), 104).ends("PASSED");
    all.drill(&to("after 113"), 113).ends("PASSED");
    // a segment of the new timeline, or of the old one before it was left, is not there
    all.back_up_all("rm wal/$(ls wal | grep ^00000002 | grep -v history | sed -n 3p)");
    problem(all.drill(FROM_ARCHIVE, 115), "log_hole", "recovery would end there, and say nothing");
    all.back_up_all("rm wal/$(ls wal | grep '^00000001' | sed -n 9p)");
    problem(all.drill(FROM_ARCHIVE, 115), "log_hole", "is missing");
    // without the history a server knows of no other timeline: it recovers to the end of the old one, and says nothing of the new
    for harm in ["rm wal/00000002.history", ": > wal/00000002.history"] {
        all.back_up_all(harm);
        problem(all.drill(FROM_ARCHIVE, 110), "log_hole", "WAL of timeline 2 is there, and 00000002.history");
        let before = all.drill(&to("after 104"), 104).ends("PASSED");
        assert_eq!(before.warns("service_failed")["problem"], "log_hole");
    }
    // a timeline that somebody tried out, from before the base backup, is no way on from it
    all.back_up_all("rm wal/00000002*; printf '1\\t0/1000060\\tno recovery target specified\\n' > wal/00000002.history; cp wal/$(segment 5) wal/000000020000000000000001");
    all.drill(FROM_ARCHIVE, 110).ends("PASSED");
}

#[test]
fn what_recovery_wants_of_the_host_and_does_not_get_is_no_fault_of_the_backup() {
    let all = Recovered::new();
    all.server.shell(
        &[],
        r#"mkdir later
        psql -q postgres -c "create tablespace later location '$PWD/later'" -c "create table late tablespace later as select 1"
        psql -q postgres -c "select pg_create_restore_point('with it')" >/dev/null
        last=$(psql -qAt postgres -c "select pg_walfile_name(pg_switch_wal())"); for _ in $(seq 100); do [ -e wal/$last ] && break; sleep 0.1; done"#,
    );
    all.back_up_all("true");
    // a tablespace that was made after the base backup: its place is on no disk here
    let later = all.drill(FROM_ARCHIVE, 110).ends("INCONCLUSIVE");
    later.blames_runner("service_could_not_run", &[("reason", "a tablespace was made after the base backup")]);
    all.drill(&format!("{FROM_ARCHIVE}\ntarget = {{ name = \"after 110\" }}"), 110).ends("PASSED");
    // scratch that the backup fits into, and the recovered cluster does not
    all.server.shell(
        &[],
        r#"psql -q postgres -c "create table scan as select i, md5(i::text) from generate_series(1, 1500000) i"
        last=$(psql -qAt postgres -c "select pg_walfile_name(pg_switch_wal())"); for _ in $(seq 300); do [ -e wal/$last ] && break; sleep 0.1; done
        rm -rf base base-ts; psql -q postgres -c 'drop table late' -c 'drop tablespace later'
        pg_basebackup -D base -X none -c fast --tablespace-mapping=$PWD/ts=$PWD/base-ts --no-sync 2>/dev/null
        psql -q postgres -c "create table more as select * from scan"
        last=$(psql -qAt postgres -c "select pg_walfile_name(pg_switch_wal())"); for _ in $(seq 300); do [ -e wal/$last ] && break; sleep 0.1; done
        start=$(sed -n 's/^START WAL LOCATION:.*(file \([0-9A-F]*\)).*/\1/p' base/backup_label)
        for name in $(ls wal); do if [[ $name < $start ]]; then rm wal/$name; fi; done"#,
    );
    all.back_up_all("true");
    let step = FROM_ARCHIVE.replace("wal = \"wal\"", "wal = \"wal\"\nsettings = { max_wal_size = \"2GB\" }");
    all.drill(&step, 110).ends("PASSED");
    let bytes: u64 = all.server.shell(&[], "du -sb out | cut -f 1").trim().parse().unwrap();
    let small = all.scenario(&step, "[[check]]\nkind = \"sql\"\nname = \"x\"\ntables = { work = \"= 110\" }");
    let text = std::fs::read_to_string(&small).unwrap();
    assert!(text.contains("900MiB"));
    std::fs::write(&small, text.replace("900MiB", &format!("{}MiB", (bytes >> 20) + 60))).unwrap();
    let full = all.home.drill(&small).ends("INCONCLUSIVE");
    let told = |f: &serde_json::Value| {
        f["limit"] == "scratch" || f["reason"].as_str().is_some_and(|reason| reason.starts_with("scratch ran full"))
    };
    assert!(full.findings().iter().any(told), "{:#?}", full.findings());
}

/// CRC-32C, as `pg_control` ends with it.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 }))
}

#[test]
fn a_data_directory_of_another_machine_or_version_is_told_as_that() {
    let all = Recovered::new();
    let bare = "rm base/backup_manifest";
    let whole = std::fs::read(all.server.path("base/global/pg_control")).unwrap();
    // the length of what the checksum is of, by the checksum itself
    let end = (200..400).find(|end| whole[*end..end + 4] == crc32c(&whole[..*end]).to_le_bytes()).unwrap();
    let other = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        let sum = crc32c(&bytes[..end]).to_le_bytes();
        bytes[end..end + 4].copy_from_slice(&sum);
        std::fs::write(all.server.path("other"), bytes).unwrap();
        all.back_up_all(&format!("{bare}; cat ../other > base/global/pg_control"));
        all.drill(FROM_ARCHIVE, 110)
    };
    // numbers as a big-endian machine writes them
    problem(other(&|bytes| bytes[8..12].reverse()), "other_architecture", "orders bytes as another machine does");
    // a server that was built with other sizes: of the fields, the one that is 8 bytes and aligned so on every machine here
    let field = |value: u32| {
        let at = (0..end).step_by(4).rev().find(|at| whole[*at..at + 4] == value.to_le_bytes());
        at.unwrap_or_else(|| panic!("no field of {value}"))
    };
    // names of 64 bytes, chunks of TOAST of 1996 and large objects of 2048
    for (value, otherwise) in [(64_u32, 128_u32), (1996, 2000), (2048, 4096)] {
        let at = field(value);
        problem(other(&|bytes| bytes[at..at + 4].copy_from_slice(&otherwise.to_le_bytes())), "other_architecture", "");
    }
    // of a version that this host has no server for, and of one that no server of any version is
    all.back_up_all(&format!("{bare}; echo 99 > base/PG_VERSION"));
    all.drill(FROM_ARCHIVE, 110).ends("INCONCLUSIVE").blames_runner("service_could_not_run", &[("reason", "wants a PostgreSQL 99 server")]);
    problem(all.drill(&format!("{FROM_ARCHIVE}\nversion = 15"), 110), "other_version", "of version 99");
    all.back_up_all(&format!("{bare}; echo fifteen > base/PG_VERSION"));
    problem(all.drill(FROM_ARCHIVE, 110), "input_damaged", "PG_VERSION names no version");
}

#[test]
fn a_server_that_starts_on_its_backup_and_never_answers_is_no_pass() {
    let all = Recovered::new();
    // a pipe where a file was: whoever opens it waits for a writer
    all.back_up_all("rm base/backup_manifest base/base/1/pg_filenode.map; mkfifo base/base/1/pg_filenode.map");
    let scenario = all.scenario(FROM_ARCHIVE, "[[check]]\nkind = \"sql\"\nname = \"x\"\ntables = { work = \"= 110\" }");
    let text = std::fs::read_to_string(&scenario).unwrap();
    std::fs::write(&scenario, text.replace("time = \"1m\"", "time = \"30s\"")).unwrap();
    let mute = all.home.drill(&scenario).ends("INCONCLUSIVE");
    mute.blames_runner("service_could_not_run", &[("reason", "the server does not answer")]);
}

/// LIES 15, of an archive: segments of another server, under the names that are expected.
#[test]
fn wal_of_another_server_fails() {
    let (all, other) = (Recovered::new(), Recovered::new());
    let foreign = format!("{}/wal", other.server.path("").display());
    other.server.shell(&[], "chmod -R a+rX wal");
    all.back_up_all(&format!("cp {foreign}/$(segment 8) wal/"));
    problem(all.drill(FROM_ARCHIVE, 110), "log_damaged", "not of this log");
    all.back_up_all(&format!("rm wal/*; cp {foreign}/* wal/"));
    problem(all.drill(FROM_ARCHIVE, 110), "log_damaged", "not of this log");
}

#[test]
fn a_base_backup_of_a_standby_is_recovered_with_the_primarys_archive() {
    let all = Recovered::new();
    all.server.shell(
        &[],
        r#"mkdir socket; pg_basebackup -D standby -X stream -R -c fast --no-sync --tablespace-mapping=$PWD/ts=$PWD/standby-ts 2>/dev/null
        printf "unix_socket_directories = '$PWD/socket'\nprimary_conninfo = 'host=$PWD user=postgres'\n" >> standby/postgresql.auto.conf
        pg_ctl -D standby -l standby.log -w start >/dev/null
        psql -q postgres -c "insert into work select i, now() from generate_series(111, 120) i" -c checkpoint
        standby="psql -qAt -h $PWD/socket postgres -c"
        until [ "$($standby 'select count(*) from work')" = 120 ]; do sleep 0.1; done
        rm -rf base base-ts
        pg_basebackup -h $PWD/socket -D base -X none -c fast --no-sync --tablespace-mapping=$PWD/standby-ts=$PWD/base-ts 2>/dev/null & backup=$!
        # the standby waits for a checkpoint of the primary's
        while kill -0 $backup 2>/dev/null; do psql -q postgres -c checkpoint -c "select pg_switch_wal()" >/dev/null; sleep 0.2; done; wait $backup
        psql -q postgres -c "insert into work select i, now() from generate_series(121, 130) i"
        last=$(psql -qAt postgres -c "select pg_walfile_name(pg_switch_wal())"); for _ in $(seq 100); do [ -e wal/$last ] && break; sleep 0.1; done
        pg_ctl -D standby -m fast stop >/dev/null; grep -q 'BACKUP FROM: standby' base/backup_label"#,
    );
    all.back_up_all("true");
    all.drill(FROM_ARCHIVE, 130).ends("PASSED");
    let begins = "name=$(sed -n 's/^START WAL LOCATION:.*(file \\([0-9A-F]*\\)).*/\\1/p' base/backup_label)";
    all.back_up_all(&format!("{begins}; rm wal/$name"));
    problem(all.drill(FROM_ARCHIVE, 130), "log_hole", "is missing");
}
