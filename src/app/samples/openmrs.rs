//! The database of a medical record system, in the shape of OpenMRS: persons, patients, visits, encounters, observations; as the
//! SQL from which a server is filled, so that its own dump is what gets backed up.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use super::{Seeded, before, born, name};
use crate::domain::Timestamp;

const PATIENTS: u64 = 150;
const DAYS: u64 = 90;
/// Rows of one statement.
const BATCH: usize = 200;

const SCHEMA: &str = "\
CREATE DATABASE openmrs CHARACTER SET utf8mb4;
USE openmrs;
CREATE TABLE person (person_id int PRIMARY KEY, gender char(1), birthdate date, date_created datetime NOT NULL, voided tinyint NOT NULL
  DEFAULT 0, uuid char(38) NOT NULL UNIQUE) ENGINE=InnoDB;
CREATE TABLE person_name (person_name_id int PRIMARY KEY, person_id int NOT NULL, given_name varchar(50), family_name varchar(50),
  KEY family (family_name), CONSTRAINT name_of FOREIGN KEY (person_id) REFERENCES person (person_id)) ENGINE=InnoDB;
CREATE TABLE patient (patient_id int PRIMARY KEY, date_created datetime NOT NULL, voided tinyint NOT NULL DEFAULT 0,
  CONSTRAINT patient_is FOREIGN KEY (patient_id) REFERENCES person (person_id)) ENGINE=InnoDB;
CREATE TABLE visit (visit_id int PRIMARY KEY, patient_id int NOT NULL, date_started datetime NOT NULL, date_stopped datetime,
  CONSTRAINT visit_of FOREIGN KEY (patient_id) REFERENCES patient (patient_id)) ENGINE=InnoDB;
CREATE TABLE encounter (encounter_id int PRIMARY KEY, visit_id int, patient_id int NOT NULL, encounter_datetime datetime NOT NULL,
  KEY at (encounter_datetime), CONSTRAINT encounter_in FOREIGN KEY (visit_id) REFERENCES visit (visit_id),
  CONSTRAINT encounter_of FOREIGN KEY (patient_id) REFERENCES patient (patient_id)) ENGINE=InnoDB;
CREATE TABLE concept (concept_id int PRIMARY KEY, short_name varchar(50) NOT NULL, units varchar(20)) ENGINE=InnoDB;
CREATE TABLE obs (obs_id int PRIMARY KEY, person_id int NOT NULL, concept_id int NOT NULL, encounter_id int, obs_datetime datetime NOT
  NULL, value_numeric double, voided tinyint NOT NULL DEFAULT 0, KEY of_person (person_id, concept_id),
  CONSTRAINT obs_of FOREIGN KEY (person_id) REFERENCES person (person_id),
  CONSTRAINT obs_what FOREIGN KEY (concept_id) REFERENCES concept (concept_id),
  CONSTRAINT obs_in FOREIGN KEY (encounter_id) REFERENCES encounter (encounter_id)) ENGINE=InnoDB;
CREATE VIEW latest_obs AS SELECT person_id, concept_id, max(obs_datetime) AS at FROM obs WHERE voided = 0 GROUP BY person_id, concept_id;
CREATE PROCEDURE void_patient(IN who int) UPDATE patient SET voided = 1 WHERE patient_id = who;
CREATE TRIGGER name_trimmed BEFORE INSERT ON person_name FOR EACH ROW SET NEW.family_name = trim(NEW.family_name);
INSERT INTO concept VALUES (1,'glucose','mg/dL'),(2,'haemoglobin','g/dL'),(3,'pulse','/min'),(4,'temperature','Cel');
";

pub(super) fn write(root: &Path, mut random: Seeded, newest: Timestamp) -> io::Result<()> {
    let time = |at: Timestamp| at.0.strftime("'%Y-%m-%d %H:%M:%S'").to_string();
    let mut tables: [(&str, Vec<String>); 6] =
        ["person", "person_name", "patient", "visit", "encounter", "obs"].map(|table| (table, Vec::new()));
    let created = before(newest, DAYS * 86_400);
    for person in 1..=PATIENTS {
        let (first, last) = name(&mut random);
        let (gender, birth) = (random.pick(&["F", "M"]), born(&mut random, "-"));
        let uuid = format!("{:016x}-{person:08x}", random.next());
        tables[0].1.push(format!("({person},'{gender}','{birth}',{},0,'{uuid}')", time(created)));
        tables[1].1.push(format!("({person},{person},'{first}','{last}')"));
        tables[2].1.push(format!("({person},{},0)", time(created)));
        for _ in 0..=random.below(3) {
            let visit = tables[3].1.len() + 1;
            // somebody was here just now
            let at = if visit == 1 { newest } else { before(newest, random.below(DAYS * 86_400)) };
            tables[3].1.push(format!("({visit},{person},{},NULL)", time(at)));
            let encounter = tables[4].1.len() + 1;
            tables[4].1.push(format!("({encounter},{visit},{person},{})", time(at)));
            for _ in 0..3 + random.below(4) {
                let obs = tables[5].1.len() + 1;
                let (concept, value) = (1 + random.below(4), random.below(3_000));
                tables[5].1.push(format!("({obs},{person},{concept},{encounter},{},{}.{},0)", time(at), value / 10, value % 10));
            }
        }
    }
    let mut sql = SCHEMA.to_owned();
    for (table, rows) in tables {
        for batch in rows.chunks(BATCH) {
            let _ = writeln!(sql, "INSERT INTO {table} VALUES {};", batch.join(","));
        }
    }
    fs::write(root.join("openmrs.sql"), sql)
}
