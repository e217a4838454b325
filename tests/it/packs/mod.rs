//! The starter packs for health care: each is run, as it is given away, against the made-up data that `firedrill samples` writes,
//! and against twins of it that were damaged as backups are.

use std::fs;
use std::path::PathBuf;

use firedrill::domain::Comparison;

use crate::drills::{Drilled, Home, zstd_bytes};
use crate::recipes::databases::Server;
use crate::scenarios::at_home;

/// Made-up data of a pack, its scenario, and backups of it that are bare or sealed as the scenario expects.
struct Pack {
    home: Home,
    scenario: PathBuf,
    sealed: bool,
}

impl Pack {
    fn new(name: &str) -> Self {
        let home = Home::new();
        home.producer("backup-host");
        home.fire(&["samples", name, "--out", "whole"]).exits(0);
        let scenario = at_home(&home, &format!("packs/{name}"), &[("url", "file:../backups".into())]);
        // a directory has no endpoint
        let text = fs::read_to_string(&scenario).unwrap();
        fs::write(&scenario, text.lines().filter(|l| !l.starts_with("endpoint")).collect::<Vec<_>>().join("\n")).unwrap();
        Self { home, scenario, sealed: !text.contains("points =") }
    }

    /// Files in a folder of the whole data.
    fn images(&self, folder: &str) -> u64 {
        fs::read_dir(self.home.path("whole").join(folder)).unwrap().count() as u64
    }

    /// Backs the data up after `harm` was done to it, and drills.
    #[track_caller]
    fn after(&self, harm: &str) -> Drilled {
        let home = &self.home;
        home.shell(&format!("rm -rf tree backups/*; cp -a whole tree; cd tree; {harm}"));
        if self.sealed {
            home.fire(&["seal", "tree", "--to", "backups", "-r", &home.recipient, "--sign", "keys/backup-host"]).exits(0);
        } else {
            let name = self.scenario.file_stem().unwrap().to_str().unwrap();
            home.shell(&format!("tar -C tree -cf - . | zstd -q | age -r $RECIPIENT > backups/{name}-{}", home.bare_name(0)));
        }
        home.drill(&self.scenario)
    }

    /// The records are wrong in this way, so many times, and this check of the pack says so with examples.
    #[track_caller]
    fn records_are(&self, harm: &str, problem: &str, count: u64) -> Drilled {
        let drilled = self.after(harm).ends("FAILED");
        let found = drilled.findings().into_iter().find(|f| f["finding"] == "records_wrong" && f["problem"] == problem);
        let found = found.unwrap_or_else(|| panic!("{harm}: {:#?}", drilled.findings()));
        assert_eq!((&found["cause"], found["count"].as_u64()), (&"backup".into(), Some(count)), "{harm}: {found:#}");
        let examples = found["examples"].as_array().unwrap();
        assert!(!examples.is_empty() && examples.iter().all(|e| e.as_str().unwrap().starts_with("record-")), "{found:#}");
        drilled
    }
}

#[test]
fn a_fhir_store() {
    let pack = Pack::new("fhir");
    let drilled = pack.after("true").ends("PASSED");
    assert_eq!(drilled.report["measurements"]["data_age"]["source"], "content");
    let check = &drilled.report["checks"][1];
    assert!(check["observed"].as_str().unwrap().contains("Patient 120"), "{check:#}");
    assert!(check["assertions"].as_u64().unwrap() >= 8, "{check:#}");

    // a patient is gone, and those who refer to him are not
    let referring = "cat export/* | grep -o Patient/p-100003 | wc -l";
    let gone: u64 = String::from_utf8(pack.home.shell(&format!("cd whole; {referring}"))).unwrap().trim().parse().unwrap();
    pack.records_are("sed -i '/\"id\":\"p-100003\"/d' export/Patient.ndjson", "dangling", gone);
    // the export of one type broke off, within a resource
    pack.records_are("truncate -s -50 export/Observation.ndjson", "truncated", 1);
    pack.records_are("head -n 1 export/Patient.ndjson >> export/Binary.ndjson", "duplicate", 1);
    pack.records_are("echo '<html>502 Bad Gateway</html>' >> export/Encounter.ndjson", "unreadable", 1);
    // or was never made: documents alone are missed by nobody who refers to them
    let drilled = pack.after("rm export/DocumentReference.ndjson").ends("FAILED");
    drilled.blames_backup("check_failed", &[("observed", "DocumentReference 0")]);
    // the store is backed up every night, and nothing was written to it for a week
    pack.home.shell("rm -r whole");
    let week = firedrill::domain::Timestamp::from_unix(jiff::Timestamp::now().as_second() - 7 * 86_400).to_string();
    pack.home.fire(&["samples", "fhir", "--out", "whole", "--newest", &week]).exits(0);
    pack.after("true").ends("FAILED").blames_backup("objective_missed", &[("objective", "rpo")]);
}

#[test]
fn an_archive_of_hl7_messages() {
    let pack = Pack::new("hl7");
    let drilled = pack.after("true").ends("PASSED");
    assert_eq!(drilled.report["measurements"]["data_age"]["source"], "content");

    let batch = "f=$(ls archive/*.hl7 | head -n 1);";
    pack.records_are("truncate -s -20 archive/today.mllp", "truncated", 1);
    // cut on the very border of a segment: the batch misses its end
    pack.records_are(&format!("{batch} sed -i 's/FTS.*//' $f"), "truncated", 1);
    pack.records_are(&format!("{batch} sed -i 's/BTS|[0-9]*/BTS|99/' $f"), "wrong_total", 1);
    pack.records_are("cp archive/today.mllp archive/again.mllp", "duplicate", 40);
    pack.records_are("sed -i '0,/MSG[0-9]*/s///' archive/today.mllp", "unreadable", 1);
    let drilled = pack.after("sed -i 's/ORU^R01/ORU^R03/g' archive/*").ends("FAILED");
    drilled.blames_backup("check_failed", &[("observed", "ORU^R01 0")]);
    // the engine stopped two days ago, and its archive is backed up all the same
    pack.after("rm archive/today.mllp $(ls archive/*.hl7 | tail -n 1)")
        .ends("FAILED")
        .blames_backup("objective_missed", &[("objective", "rpo")]);
    // a zone that nobody names is nobody's fault but the scenario's
    let text = fs::read_to_string(&pack.scenario).unwrap();
    fs::write(&pack.scenario, text.lines().filter(|l| !l.starts_with("time_zone")).collect::<Vec<_>>().join("\n")).unwrap();
    let drilled = pack.after("sed -i 's/+0000//' archive/today.mllp").ends("INCONCLUSIVE");
    drilled.blames_runner("could_not_run", &[("reason", "time_zone")]);
}

#[test]
fn a_dicom_folder() {
    let pack = Pack::new("dicom");
    let drilled = pack.after("true").ends("PASSED");
    assert_eq!(drilled.report["measurements"]["data_age"]["source"], "content");
    assert!(drilled.report["checks"][1]["observed"].as_str().unwrap().contains("0 instances missing"), "{:#}", drilled.report["checks"][1]);

    let image = "DICOM/ST02/SE01/IM0001";
    pack.records_are(&format!("rm {image}"), "missing", 1);
    pack.records_are("rm -r DICOM/ST03/SE00", "missing", pack.images("DICOM/ST03/SE00"));
    // within its pixels; within its head; before its pixels, on the border of an element
    pack.records_are(&format!("truncate -s -100 {image}"), "truncated", 1);
    pack.records_are(&format!("truncate -s 410 {image}"), "truncated", 1);
    // before it says which instance it is
    pack.records_are(&format!("truncate -s 400 {image}"), "unreadable", 1);
    pack.records_are(&format!("truncate -s -1036 {image}"), "truncated", 1);
    pack.records_are(&format!("truncate -s 100 {image}"), "truncated", 1);
    // a full disk's zeros, and what somebody left there
    pack.records_are(&format!("s=$(stat -c %s {image}); truncate -s 0 {image}; truncate -s $s {image}"), "unreadable", 1);
    pack.records_are("printf '%300s' Wilhelmina > DICOM/Thumbs.db", "unreadable", 1);
    pack.records_are(&format!("cp {image} DICOM/COPY"), "duplicate", 1);
    pack.records_are("sed -i '3d' index.csv", "not_in_index", pack.images("DICOM/ST00/SE01"));
    pack.after("rm index.csv").ends("FAILED").blames_backup("check_failed", &[("expected", "an index")]);
    pack.after("sed -i '2,$d' index.csv; rm -r DICOM/*").ends("FAILED").blames_backup("check_failed", &[("expected", "instances")]);
    // deflated: few read it, and the backup is not to blame for that
    let syntax = "1.2.840.10008.1.2.1\\x00";
    let drilled = pack.after(&format!("sed -i 's/{syntax}/1.2.840.10008.1.2.9\\x00/' {image}")).ends("INCONCLUSIVE");
    drilled.blames_runner("could_not_run", &[("reason", "transfer syntax")]);
}

#[test]
fn a_dicom_folder_with_its_own_directory() {
    let pack = Pack::new("dicom");
    // an export on media, its directory made by dcmtk
    pack.home.shell("cd whole && rm index.csv && dcmmkdir --general-purpose +r +id . DICOM");
    let text = fs::read_to_string(&pack.scenario).unwrap();
    let columns = |line: &&str| !line.contains("_column");
    let text = text.lines().filter(columns).collect::<Vec<_>>().join("\n").replace("index.csv", "DICOMDIR");
    fs::write(&pack.scenario, text).unwrap();
    let drilled = pack.after("true").ends("PASSED");
    assert!(drilled.report["checks"][1]["observed"].as_str().unwrap().contains("0 instances missing"), "{:#}", drilled.report["checks"][1]);
    let drilled = pack.records_are("mv DICOM/ST02/SE01/IM0001 DICOM/ST02/SE01/IM0002", "missing", 1);
    drilled.left_nothing();
    // another image in its place: as many as before, and not those
    let swapped = "cd DICOM/ST02/SE01; sed -i 's/\\(2\\.25\\.[0-9.]*\\)\\.1\\.0/\\1.1.9/g' IM0000";
    pack.records_are(swapped, "not_in_index", 1);
    pack.records_are(swapped, "missing", 1);
    pack.records_are("truncate -s -200 DICOMDIR", "truncated", 1);
    // one that dcmtk compressed is read as well
    pack.after("cd DICOM/ST02/SE01; dcmcrle IM0000 x && mv x IM0000").ends("PASSED");
    pack.records_are("cd DICOM/ST02/SE01; dcmcrle IM0000 x; mv x IM0000; truncate -s -30 IM0000", "truncated", 1);
}

/// The pack of a database in the shape of OpenMRS asks what this server answers: its questions are held to the made-up data here, as
/// a server that was filled with it has it, and with its damage.
#[test]
fn a_medical_record_system() {
    let pack = Pack::new("openmrs");
    let server = Server::mariadb();
    fs::copy(pack.home.path("whole/openmrs.sql"), server.path("openmrs.sql")).unwrap();
    server.shell(&[], "mariadb --no-defaults -S socket -u root < openmrs.sql");
    let drilled = |options: &str| {
        server.shell(
            &[],
            &format!("mariadb-dump --no-defaults -S socket -u root --single-transaction {options} --databases openmrs > dump.sql"),
        );
        pack.home.shell("rm -rf backups; mkdir backups");
        let name = format!("openmrs-{}", pack.home.bare_name(0).replace(".tar.", ".sql."));
        pack.home.bare(&name, &pack.home.age(&zstd_bytes(&fs::read(server.path("dump.sql")).unwrap())));
        pack.home.drill(&pack.scenario)
    };
    let whole = drilled("--routines --events --triggers").ends("PASSED");
    assert_eq!(whole.report["measurements"]["data_age"]["source"], "content");
    whole.left_nothing();
    // all rows, and nothing that acts on them
    drilled("--routines --events --skip-triggers").ends("FAILED").blames_backup("check_failed", &[("observed", "2")]);
}

#[test]
fn the_questions_to_a_medical_record_system() {
    let home = Home::new();
    let newest = "2026-11-20T10:00:00Z";
    home.fire(&["samples", "openmrs", "--out", "made", "--newest", newest]).exits(0);
    let server = Server::mariadb();
    fs::copy(home.path("made/openmrs.sql"), server.path("openmrs.sql")).unwrap();
    server.shell(&[], "mariadb --no-defaults -S socket -u root < openmrs.sql");
    let pack: toml::Table = include_str!("../../../scenarios/packs/openmrs.toml").parse().unwrap();
    let ask = |query: &str| -> String {
        let query = query.replace('\n', " ");
        server.shell(&[], &format!("mariadb --no-defaults -S socket -u root -N openmrs <<'SQL'\n{query};\nSQL")).trim().to_owned()
    };
    // names of the checks that fail
    let failing = || -> Vec<String> {
        let mut failing = Vec::new();
        for check in pack["check"].as_array().unwrap() {
            let name = check.get("name").map_or("freshness", |name| name.as_str().unwrap());
            let holds = |expect: &toml::Value, value: String| {
                let expect: Comparison = expect.as_str().unwrap().parse().unwrap();
                expect.holds(value.parse().unwrap())
            };
            let passes = match (check.get("query"), check.get("expect"), check.get("tables")) {
                (Some(query), Some(expect), None) => holds(expect, ask(query.as_str().unwrap())),
                (Some(query), None, None) => ask(query.as_str().unwrap()) == "2026-11-20 10:00:00",
                (None, None, Some(tables)) => {
                    tables.as_table().unwrap().iter().all(|(table, expect)| holds(expect, ask(&format!("select count(*) from {table}"))))
                }
                _ => panic!("{check:?}"),
            };
            if !passes {
                failing.push(name.to_owned());
            }
        }
        failing
    };
    assert_eq!(failing(), Vec::<String>::new());
    let keyless = "set foreign_key_checks = 0;";
    for (harm, fails) in [
        ("drop procedure void_patient", "routines, triggers and views came along"),
        ("delete from person_name where person_id = 7", "every patient has a name"),
        ("delete from visit where visit_id = 9", "encounters belong to patients and visits"),
        ("delete from encounter where encounter_id = 5", "observations belong to encounters and persons"),
        ("delete from obs where obs_datetime > '2026-11-20'", "freshness"),
        ("delete from obs where obs_id > 99", "records are there"),
    ] {
        let before = failing();
        ask(&format!("{keyless} {harm}"));
        let now: Vec<String> = failing().into_iter().filter(|name| !before.contains(name)).collect();
        assert_eq!(now, [fails], "{harm}");
    }
}
