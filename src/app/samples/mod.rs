//! Made-up records, for the demo and for the starter packs in `scenarios/packs`: seeded, small, and of nobody.

#[cfg(feature = "dicom")]
mod dicom;
mod fhir;
mod hl7;
mod openmrs;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::domain::Timestamp;

/// SplitMix64: the same seed makes the same records everywhere.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// A kind of made-up data, as the starter packs drill it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamplePack {
    /// A FHIR store's bulk export.
    Fhir,
    /// A PACS's folder of DICOM files, with its index.
    Dicom,
    /// An archive of HL7 v2 messages.
    Hl7,
    /// A medical record system's database, as SQL that fills a server.
    Openmrs,
}

/// Writes the data of one pack below `root`, the newest of it from `newest`; the same seed and time make the same bytes.
///
/// # Errors
/// Whatever the file system says.
pub fn write_pack(pack: SamplePack, root: &Path, seed: u64, newest: Timestamp) -> io::Result<()> {
    fs::create_dir_all(root)?;
    let random = Seeded(seed);
    match pack {
        SamplePack::Fhir => fhir::write(root, random, newest),
        #[cfg(feature = "dicom")]
        SamplePack::Dicom => dicom::write(root, random, newest),
        #[cfg(not(feature = "dicom"))]
        SamplePack::Dicom => Err(io::Error::new(io::ErrorKind::Unsupported, "this firedrill was built without its feature `dicom`")),
        SamplePack::Hl7 => hl7::write(root, random, newest),
        SamplePack::Openmrs => openmrs::write(root, random, newest),
    }
}

/// `seconds` before `newest`.
fn before(newest: Timestamp, seconds: u64) -> Timestamp {
    Timestamp::from_unix(newest.0.as_second() - i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// A first name and a last one. Wilhelmina is whom the tests look for in evidence.
fn name(random: &mut Seeded) -> (&'static str, &'static str) {
    (if random.below(9) == 0 { "Wilhelmina" } else { random.pick(&FIRST) }, random.pick(&LAST))
}

/// Somebody's day of birth, as digits with `separator`.
fn born(random: &mut Seeded, separator: &str) -> String {
    format!("19{:02}{separator}{:02}{separator}{:02}", 30 + random.below(70), 1 + random.below(12), 1 + random.below(28))
}

const FIRST: [&str; 8] = ["Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Radia", "Tony"];
const LAST: [&str; 8] = ["Example", "Sample", "Madeup", "Fictional", "Invented", "Placeholder", "Nobody", "Testcase"];
const TESTS: [(&str, &str); 4] = [("2345-7", "mg/dL"), ("718-7", "g/dL"), ("8867-4", "/min"), ("8310-5", "Cel")];

/// Writes about 120 files of made-up records below `root`, the newest dated shortly before `now`.
///
/// # Errors
/// Whatever the file system says.
pub fn write_records(root: &Path, seed: u64, now: Timestamp) -> io::Result<()> {
    let mut random = Seeded(seed);
    let day = |back: u64| Timestamp::from_unix(now.0.as_second() - 86_400 * back as i64 - 600);
    let mut sums = String::new();
    let mut put = |path: &str, content: &[u8]| -> io::Result<()> {
        let full = root.join(path);
        fs::create_dir_all(full.parent().expect("below the root"))?;
        fs::write(&full, content)?;
        fs::set_permissions(&full, fs::Permissions::from_mode(0o640))?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
        sums.push_str(&format!("{}  {path}\n", data_encoding::HEXLOWER.encode(digest.as_ref())));
        Ok(())
    };
    let mut patients = String::from("patient_id,last,first,born\n");
    for id in 0..200 {
        let (last, first) = (random.pick(&LAST), random.pick(&FIRST));
        patients.push_str(&format!(
            "{},{last},{first},19{:02}-{:02}-{:02}\n",
            100_000 + id,
            30 + random.below(70),
            1 + random.below(12),
            1 + random.below(28)
        ));
    }
    put("patients.csv", patients.as_bytes())?;
    for back in 0..90u64 {
        let at = day(back);
        let mut lines = String::new();
        for _ in 0..40 {
            let (code, unit) = TESTS[random.below(4) as usize];
            let (patient, value) = (100_000 + random.below(200), random.below(300));
            lines.push_str(&format!(
                "{{\"resourceType\":\"Observation\",\"subject\":\"Patient/{patient}\",\"code\":\"{code}\",\"value\":{value},\"unit\":\"{unit}\",\"recorded\":\"{}\"}}\n",
                at.0.strftime("%Y-%m-%dT%H:%M:%SZ")
            ));
        }
        put(&format!("observations/{}.jsonl", at.0.strftime("%Y/%m/%d")), lines.as_bytes())?;
    }
    for number in 0..30 {
        // images do not compress
        let image: Vec<u8> = (0..16_384).flat_map(|_| random.next().to_le_bytes()).collect();
        put(&format!("images/{:03}.dcm", number), &image)?;
    }
    fs::write(root.join("SHA256SUMS"), &sums)?;
    fs::create_dir_all(root.join("inbox"))?;
    let link = root.join("latest");
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink("observations", link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_records() {
        let now = Timestamp::from_unix(1_795_000_000);
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_records(a.path(), 1, now).unwrap();
        write_records(b.path(), 1, now).unwrap();
        let read = |d: &tempfile::TempDir| fs::read_to_string(d.path().join("SHA256SUMS")).unwrap();
        assert_eq!(read(&a), read(&b));
        assert!(read(&a).lines().count() > 100);
    }

    #[test]
    fn the_same_seed_makes_the_same_packs() {
        let newest = Timestamp::from_unix(1_795_000_000);
        for pack in [SamplePack::Fhir, SamplePack::Dicom, SamplePack::Hl7, SamplePack::Openmrs] {
            let made: Vec<_> = [1, 1, 2]
                .map(|seed| {
                    let root = tempfile::tempdir().unwrap();
                    write_pack(pack, root.path(), seed, newest).unwrap();
                    let mut all = Vec::new();
                    let mut open = vec![root.path().to_owned()];
                    while let Some(at) = open.pop() {
                        match fs::read_dir(&at) {
                            Ok(entries) => open.extend(entries.map(|e| e.unwrap().path())),
                            Err(_) => all.push((at.strip_prefix(root.path()).unwrap().to_owned(), fs::read(&at).unwrap())),
                        }
                    }
                    all.sort();
                    all
                })
                .into();
            assert!(made[0] == made[1] && made[0] != made[2] && !made[0].is_empty(), "{pack:?}");
        }
    }
}
