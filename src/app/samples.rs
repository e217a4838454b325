//! Made-up records for the demo: seeded, small, and of nobody.

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
    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }
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
}
