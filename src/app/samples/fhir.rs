//! A FHIR store's bulk export: a file of each type, a resource a line.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::{Seeded, TESTS, before, born, name};
use crate::domain::Timestamp;

const PATIENTS: u64 = 120;
const DAYS: u64 = 60;

pub(super) fn write(root: &Path, mut random: Seeded, newest: Timestamp) -> io::Result<()> {
    let instant = |at: Timestamp| at.0.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string();
    let (mut patients, mut encounters, mut observations, mut documents) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let oldest = before(newest, DAYS * 86_400);
    let practitioners: Vec<Value> = (0..8)
        .map(|n| {
            let (first, last) = name(&mut random);
            json!({"resourceType": "Practitioner", "id": format!("doc-{n}"), "meta": {"versionId": "1", "lastUpdated": instant(oldest)},
                "name": [{"family": last, "given": [first]}]})
        })
        .collect();
    let hospital = json!({"resourceType": "Organization", "id": "hospital", "meta": {"versionId": "1", "lastUpdated": instant(oldest)},
        "name": "Nowhere General"});
    for n in 0..PATIENTS {
        let (first, last) = name(&mut random);
        let patient = format!("p-{:06}", 100_000 + n);
        patients.push(json!({"resourceType": "Patient", "id": patient,
            "meta": {"versionId": "2", "lastUpdated": instant(before(newest, random.below(DAYS * 86_400)))},
            "name": [{"family": last, "given": [first]}], "birthDate": born(&mut random, "-"),
            "managingOrganization": {"reference": "Organization/hospital"},
            // who sent him here keeps his own store
            "generalPractitioner": [{"reference": format!("https://practice.example.org/fhir/Practitioner/{}", random.below(40))}]}));
        for visit in 0..=random.below(4) {
            let encounter = format!("e-{n}-{visit}");
            // somebody was here just now
            let ago = if n == 0 && visit == 0 { 0 } else { random.below(DAYS * 86_400) };
            let at = before(newest, ago);
            let doctor = json!({"reference": format!("Practitioner/doc-{}", random.below(8))});
            encounters.push(json!({"resourceType": "Encounter", "id": encounter, "meta": {"versionId": "1", "lastUpdated": instant(at)},
                "status": "finished", "class": {"code": "AMB"}, "subject": {"reference": format!("Patient/{patient}")},
                "participant": [{"individual": doctor}]}));
            for test in 0..2 + random.below(4) {
                let (code, unit) = random.pick(&TESTS);
                observations.push(json!({"resourceType": "Observation", "id": format!("o-{n}-{visit}-{test}"),
                    "meta": {"versionId": "1", "lastUpdated": instant(at)}, "status": "final",
                    "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
                    "subject": {"reference": format!("Patient/{patient}")}, "encounter": {"reference": format!("Encounter/{encounter}")},
                    "contained": [{"resourceType": "Device", "id": "meter", "serialNumber": format!("{}", random.below(1 << 20))}],
                    "device": {"reference": "#meter"}, "valueQuantity": {"value": random.below(300), "unit": unit}}));
            }
            if visit == 0 {
                documents.push(json!({"resourceType": "DocumentReference", "id": format!("d-{n}"),
                    "meta": {"versionId": "1", "lastUpdated": instant(at)}, "status": "current",
                    "subject": {"reference": format!("Patient/{patient}/_history/1")},
                    "content": [{"attachment": {"contentType": "text/plain", "url": format!("Binary/b-{n}")}}]}));
            }
        }
    }
    let binaries: Vec<Value> = (0..PATIENTS)
        .map(|n| {
            let letter: Vec<u8> = (0..40).flat_map(|_| random.next().to_le_bytes()).collect();
            json!({"resourceType": "Binary", "id": format!("b-{n}"), "meta": {"lastUpdated": instant(oldest)},
                "contentType": "text/plain", "data": data_encoding::BASE64.encode(&letter)})
        })
        .collect();
    for (kind, resources) in [
        ("Binary", binaries),
        ("DocumentReference", documents),
        ("Encounter", encounters),
        ("Observation", observations),
        ("Organization", vec![hospital]),
        ("Patient", patients),
        ("Practitioner", practitioners),
    ] {
        let lines: String = resources.iter().map(|resource| format!("{resource}\n")).collect();
        fs::create_dir_all(root.join("export"))?;
        fs::write(root.join(format!("export/{kind}.ndjson")), lines)?;
    }
    Ok(())
}
