//! An interface engine's archive of HL7 v2 messages: a file of batches a day, and the last day's frames as they came.

use std::fs;
use std::io;
use std::path::Path;

use super::{Seeded, TESTS, before, born, name};
use crate::domain::Timestamp;

const DAYS: u64 = 30;

pub(super) fn write(root: &Path, mut random: Seeded, newest: Timestamp) -> io::Result<()> {
    fs::create_dir_all(root.join("archive"))?;
    let mut number = 0;
    for back in (1..=DAYS).rev() {
        let day = before(newest, back * 86_400);
        let header = |kind: &str| format!("{kind}|^~\\&|ENGINE|NOWHERE|ARCHIVE|NOWHERE|{}\r", time(day));
        let (mut text, batches) = (header("FHS"), 2);
        for _ in 0..batches {
            let messages = 5 + random.below(10);
            text.push_str(&header("BHS"));
            for message in 0..messages {
                number += 1;
                text.push_str(&made(&mut random, number, before(day, 60 * (messages - message))));
            }
            text.push_str(&format!("BTS|{messages}\r"));
        }
        text.push_str(&format!("FTS|{batches}\r"));
        fs::write(root.join(format!("archive/{}.hl7", day.0.strftime("%Y-%m-%d"))), text)?;
    }
    let frames = 40;
    let journal: String = (0..frames)
        .map(|frame| {
            number += 1;
            format!("\x0b{}\x1c\r", made(&mut random, number, before(newest, 120 * (frames - 1 - frame))))
        })
        .collect();
    fs::write(root.join("archive/today.mllp"), journal)
}

fn time(at: Timestamp) -> String {
    at.0.strftime("%Y%m%d%H%M%S+0000").to_string()
}

fn made(random: &mut Seeded, number: u64, at: Timestamp) -> String {
    let (first, last) = name(random);
    let at = time(at);
    let patient = format!("PID|1||{}^^^NOWHERE||{last}^{first}||{}\r", 100_000 + random.below(200), born(random, ""));
    let header = |kind: &str| format!("MSH|^~\\&|EHR|NOWHERE|ENGINE|NOWHERE|{at}||{kind}|MSG{number:08}|P|2.5\r");
    match random.below(4) {
        0 => {
            let (code, unit) = random.pick(&TESTS);
            format!(
                "{}{patient}OBR|1||{number}|{code}^^LN\rOBX|1|NM|{code}^^LN||{}|{unit}|||||F\r",
                header("ORU^R01^ORU_R01"),
                random.below(300)
            )
        }
        _ => {
            let event = random.pick(&["A01", "A03", "A08"]);
            format!("{}EVN|{event}|{at}\r{patient}PV1|1|I|WARD^{}\r", header(&format!("ADT^{event}^ADT_A01")), random.below(20))
        }
    }
}
