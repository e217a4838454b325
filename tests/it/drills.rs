//! Whole drills through the real binary: a home of their own, backups in a few lines, and the report that came out.
//!
//! Every drill that a test runs here is held to what holds for all of them: its evidence verifies, its events recount to
//! its report, and the name of the patient in the sample data stands nowhere in the evidence or on the console (LIES 46).

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use age::secrecy::ExposeSecret;
use firedrill::codec::age::{AgeWriter, Recipients};
use firedrill::codec::index::{self, Segment};
use firedrill::codec::manifest::{
    CompressionUsed, FORMAT, INDEX, MANIFEST, Manifest, Producer, Role, SIGNATURE, SetObject, Totals, VERSION, part_name, sign_manifest,
};
use firedrill::codec::tar::TarWriter;
use firedrill::domain::{Blake3, EntryKind, FileEntry, Sha256, Timestamp};
use firedrill::evidence::{Attestation, TrustFile, verify};
use firedrill::tree::{WalkOptions, walk};
use serde_json::Value;

/// A patient, of whom the sample data is full: in names, contents and links.
pub const PATIENT: &str = "Wilhelmina";

/// How a process ended and what it said.
#[derive(Debug, Clone)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit status\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }
    /// What failed, why, what to try: each of `words` is said on stderr.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "stderr does not say `{word}`:\n{}", self.stderr);
        }
        self
    }
    /// The answer, as the one JSON document that stdout is.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("stdout is not JSON ({e}):\n{}\n{}", self.stdout, self.stderr))
    }
}

/// A drill that was run, and its evidence.
#[derive(Debug, Clone)]
pub struct Drilled {
    pub said: Said,
    pub evidence: PathBuf,
    pub report: Value,
}

impl Drilled {
    /// The drill ended so, in report and exit status.
    #[track_caller]
    pub fn ends(self, verdict: &str) -> Self {
        let code = match verdict {
            "PASSED" => 0,
            "FAILED" => 1,
            "INCONCLUSIVE" => 3,
            other => panic!("{other} is no verdict"),
        };
        assert_eq!(self.report["verdict"], verdict, "{:#?}", self.findings());
        assert_eq!(self.said.code, code, "{}", self.said.stderr);
        self
    }

    /// Every finding, those of checks and those outside.
    pub fn findings(&self) -> Vec<Value> {
        let outside = self.report["findings"].as_array().unwrap().iter();
        let checks = self.report["checks"].as_array().unwrap().iter().flat_map(|c| c["findings"].as_array().unwrap());
        outside.chain(checks).cloned().collect()
    }

    /// The finding of this kind that decides: it fails the drill, or is the reason that nothing was learned.
    #[track_caller]
    pub fn because(&self, kind: &str) -> Value {
        let found = self.findings().into_iter().find(|f| f["finding"] == kind && f["severity"] == "fail");
        found.unwrap_or_else(|| panic!("no failing finding `{kind}` among {:#?}", self.findings()))
    }

    /// The finding of this kind that warns.
    #[track_caller]
    pub fn warns(&self, kind: &str) -> Value {
        let found = self.findings().into_iter().find(|f| f["finding"] == kind && f["severity"] == "warn");
        found.unwrap_or_else(|| panic!("no warning `{kind}` among {:#?}", self.findings()))
    }

    /// The finding is of this kind, blames the backup, and each field has this value, or, as text, holds it.
    #[track_caller]
    pub fn blames_backup(&self, kind: &str, fields: &[(&str, &str)]) {
        self.blames("backup", kind, fields);
    }

    /// Likewise the runner.
    #[track_caller]
    pub fn blames_runner(&self, kind: &str, fields: &[(&str, &str)]) {
        self.blames("runner", kind, fields);
    }

    #[track_caller]
    fn blames(&self, cause: &str, kind: &str, fields: &[(&str, &str)]) {
        let finding = self.because(kind);
        assert_eq!(finding["cause"], cause, "{finding:#}");
        for (field, wanted) in fields {
            let found = finding[field].as_str().map_or_else(|| finding[field].to_string(), str::to_owned);
            assert!(found.contains(wanted), "{field} should say `{wanted}`: {finding:#}");
        }
    }

    /// The sandbox was destroyed, and every probe afterwards found it gone.
    #[track_caller]
    pub fn left_nothing(&self) {
        let probes = self.report["disposal"]["probes"].as_array().expect("a disposal record");
        assert!(!probes.is_empty() && probes.iter().all(|p| p["gone"] == true), "{probes:#?}");
    }
}

/// A directory in which firedrill lives: settings none, state, evidence, keys and backups its own.
pub struct Home {
    directory: tempfile::TempDir,
    /// The age recipient of `keys/records.agekey`.
    pub recipient: String,
    /// Now, once for the whole test.
    born: Timestamp,
}

impl Home {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("firedrill-home-").tempdir().unwrap();
        for folder in ["backups", "keys", "scenarios"] {
            fs::create_dir(directory.path().join(folder)).unwrap();
        }
        let recipient = new_age_key(&directory.path().join("keys/records.agekey"));
        Self { directory, recipient, born: Timestamp(jiff::Timestamp::now()) }
    }

    pub fn root(&self) -> &Path {
        self.directory.path()
    }
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root().join(relative)
    }
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Wall-clock time some hours back, to the minute.
    pub fn hours_ago(&self, hours: i64) -> Timestamp {
        let at = self.born.0.as_second() - hours * 3_600;
        Timestamp::from_unix(at - at.rem_euclid(60))
    }

    /// Name of a bare object captured some hours ago, as the usual scenario writes it.
    pub fn bare_name(&self, hours: i64) -> String {
        format!("{}.tar.zst.age", self.hours_ago(hours).0.strftime("%Y-%m-%dT%H%M"))
    }

    /// Another key, which the scenario does not name; its recipient.
    pub fn other_key(&self, name: &str) -> String {
        new_age_key(&self.path(&format!("keys/{name}.agekey")))
    }

    /// An OpenSSH Ed25519 key pair for a producer: `keys/NAME` and `keys/NAME.pub`.
    pub fn producer(&self, name: &str) -> ssh_key::PrivateKey {
        let path = self.path(&format!("keys/{name}"));
        self.shell(&format!("ssh-keygen -q -t ed25519 -N '' -C {name} -f {}", path.display()));
        ssh_key::PrivateKey::read_openssh_file(&path).unwrap()
    }

    /// Runs a script with the distribution's own programs, here; `$RECIPIENT` is the scenario's recipient.
    #[track_caller]
    pub fn shell(&self, script: &str) -> Vec<u8> {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(self.root())
            .env("RECIPIENT", &self.recipient)
            .env("TZ", "UTC")
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The tree that most backups here are made of, in `tree/`: about a dozen entries of every innocent kind, full of one
    /// patient's name.
    pub fn tree(&self) -> PathBuf {
        let at = |name: &str| self.path("tree").join(name);
        let _ = fs::remove_dir_all(self.path("tree"));
        fs::create_dir_all(at("records/2026")).unwrap();
        fs::create_dir_all(at("inbox")).unwrap();
        fs::write(at(".index"), format!("dotfile of {PATIENT}\n")).unwrap();
        fs::write(at("patients.csv"), format!("id,name,seen\n1,{PATIENT},{}\n", Timestamp(jiff::Timestamp::now()))).unwrap();
        fs::write(at(&format!("records/2026/{PATIENT}.json")), format!("{{\"name\": \"{PATIENT}\"}}\n").repeat(4_000)).unwrap();
        fs::write(at("records/image.dcm"), noise(7, 300_000)).unwrap();
        fs::write(at("records/empty"), "").unwrap();
        std::os::unix::fs::symlink(format!("records/2026/{PATIENT}.json"), at("latest")).unwrap();
        fs::set_permissions(at("inbox"), fs::Permissions::from_mode(0o2770)).unwrap();
        fs::set_permissions(at("patients.csv"), fs::Permissions::from_mode(0o640)).unwrap();
        self.path("tree")
    }

    /// Makes `backups/NAME` of bytes as they are.
    pub fn bare(&self, name: &str, bytes: &[u8]) -> PathBuf {
        self.write(&format!("backups/{name}"), bytes)
    }

    /// Makes a bare object of the tree with the distribution's programs: `tar | zstd | age`. Its name says an hour ago.
    pub fn bare_tree(&self) -> PathBuf {
        self.tree();
        let name = format!("backups/{}", self.bare_name(1));
        self.shell(&format!("tar --format=posix -C tree -cf - . | zstd -q | age -r $RECIPIENT > {name}"));
        self.path(&name)
    }

    /// Seals bytes to the scenario's key.
    pub fn age(&self, plain: &[u8]) -> Vec<u8> {
        seal_bytes(plain, &self.recipient)
    }

    /// Writes a scenario: the usual one for bare objects, with `overlay` laid over it.
    pub fn scenario(&self, overlay: &str) -> PathBuf {
        self.named_scenario("records", overlay)
    }

    pub fn named_scenario(&self, name: &str, overlay: &str) -> PathBuf {
        let mut table: toml::Table = format!(
            r#"
            name = "{name}"
            system = "Records"
            [source]
            url = "file:../backups"
            points = "{{captured_at:%Y-%m-%dT%H%M}}.tar.zst.age"
            [unlock]
            age_identities = ["file:../keys/records.agekey"]
            [sandbox]
            memory = "128MiB"
            processes = 32
            time = "1m"
            scratch = {{ kind = "tmpfs", size = "64MiB" }}
            "#
        )
        .parse()
        .unwrap();
        lay_over(&mut table, overlay.parse().unwrap_or_else(|e| panic!("{e}\n{overlay}")));
        if !table.contains_key("check") {
            let checks: toml::Table = "[[check]]\nkind = \"files\"\nname = \"something is there\"\npattern = \"**\"".parse().unwrap();
            table.extend(checks);
        }
        self.write(&format!("scenarios/{name}.toml"), toml::to_string(&table).unwrap())
    }

    /// Likewise for sealed sets, with a manifest check.
    pub fn sealed_scenario(&self, overlay: &str) -> PathBuf {
        let mut table: toml::Table = "[[check]]\nkind = \"manifest\"".parse().unwrap();
        lay_over(&mut table, overlay.parse().unwrap_or_else(|e| panic!("{e}\n{overlay}")));
        let path = self.scenario(&toml::to_string(&table).unwrap());
        let text: Vec<String> =
            fs::read_to_string(&path).unwrap().lines().filter(|l| !l.starts_with("points ")).map(str::to_owned).collect();
        fs::write(&path, text.join("\n") + "\n").unwrap();
        path
    }

    /// The binary, in this home and nobody else's.
    pub fn command(&self, args: &[&str]) -> Command {
        let binary = std::env::var_os("FIREDRILL_TEST_HELPER").unwrap_or_else(|| env!("CARGO_BIN_EXE_firedrill").into());
        let mut command = Command::new(binary);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .current_dir(self.root())
            .args(["--state", "state", "--evidence", "evidence"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it.
    pub fn fire(&self, args: &[&str]) -> Said {
        said(self.command(args).output().unwrap())
    }

    /// Starts it.
    pub fn start(&self, args: &[&str]) -> Child {
        self.command(args).spawn().unwrap()
    }

    /// Runs one drill; what holds for every drill is checked on the way.
    #[track_caller]
    pub fn drill(&self, scenario: &Path) -> Drilled {
        self.drill_with(scenario, &[])
    }

    #[track_caller]
    pub fn drill_with(&self, scenario: &Path, flags: &[&str]) -> Drilled {
        let said = self.fire(&[&["run", scenario.to_str().unwrap()], flags].concat());
        self.drilled(said)
    }

    /// What a drill left, from what it said; held to what holds for all.
    #[track_caller]
    pub fn drilled(&self, said: Said) -> Drilled {
        let evidence = said.stdout.lines().find_map(|line| line.strip_prefix("evidence "));
        let Some(evidence) = evidence else { panic!("no evidence\n--- stdout\n{}\n--- stderr\n{}", said.stdout, said.stderr) };
        assert!(!said.stdout.contains(PATIENT) && !said.stderr.contains(PATIENT), "{}\n{}", said.stdout, said.stderr);
        let evidence = self.path(evidence.trim());
        let report = self.look_at(&evidence);
        Drilled { said, evidence, report }
    }

    /// Reads evidence, which must verify and name no patient.
    #[track_caller]
    pub fn look_at(&self, evidence: &Path) -> Value {
        let trust = TrustFile::load(&self.path("evidence/allowed_signers")).unwrap();
        let attestation: Attestation = verify(&[evidence.to_owned()], &trust).remove(0).expect("evidence that verifies");
        assert!(attestation.entered().is_some(), "it was entered before it started");
        let mut files = 0;
        for file in fs::read_dir(evidence).unwrap() {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            assert!(!holds(&bytes, PATIENT.as_bytes()), "{} names a patient", path.display());
            files += 1;
        }
        assert!(files >= 8, "only {files} files of evidence");
        serde_json::to_value(attestation.report()).unwrap()
    }

    /// All evidence directories, oldest first: their names begin with the time.
    pub fn evidence(&self) -> Vec<PathBuf> {
        let below = fs::read_dir(self.path("evidence")).into_iter().flatten().map(|e| e.unwrap().path());
        let years = below.filter(|path| path.is_dir() && !path.ends_with("ledger"));
        let mut drills: Vec<PathBuf> = years.flat_map(|year| fs::read_dir(year).unwrap().map(|e| e.unwrap().path())).collect();
        drills.sort();
        drills
    }
}

pub fn said(output: std::process::Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn lay_over(table: &mut toml::Table, overlay: toml::Table) {
    for (key, value) in overlay {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => lay_over(below, above),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

fn new_age_key(path: &Path) -> String {
    let identity = age::x25519::Identity::generate();
    let mut file = fs::File::create_new(path).unwrap();
    writeln!(file, "# a test's key\n{}", identity.to_string().expose_secret()).unwrap();
    identity.to_public().to_string()
}

/// Reproducible bytes that do not compress.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// age, to one recipient.
pub fn seal_bytes(plain: &[u8], recipient: &str) -> Vec<u8> {
    let mut writer = AgeWriter::new(Vec::new(), &Recipients::parse(&[recipient]).unwrap()).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

/// zstd, one frame with its checksum.
pub fn zstd_bytes(plain: &[u8]) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    compressor.include_checksum(true).unwrap();
    compressor.compress(plain).unwrap()
}

/// A tree as it is on disk, with the digests of contents: what an honest index says.
pub fn entries_of(root: &Path) -> Vec<FileEntry> {
    use std::os::fd::AsFd;
    let directory = fs::File::open(root).unwrap();
    let options = WalkOptions { xattrs: true, ..WalkOptions::default() };
    let with_digest = |mut entry: FileEntry| {
        if let EntryKind::File { blake3, .. } = &mut entry.kind {
            *blake3 = Some(Blake3(*blake3::hash(&fs::read(root.join(entry.path.as_path())).unwrap()).as_bytes()));
        }
        entry
    };
    walk(directory.as_fd(), options).unwrap().map(|entry| with_digest(entry.unwrap())).collect()
}

/// An honest tar of entries of a tree.
pub fn tar_of(root: &Path, entries: &[FileEntry]) -> Vec<u8> {
    let mut tar = Vec::new();
    for entry in entries {
        TarWriter::header(&mut tar, entry);
        if let EntryKind::File { size, .. } = entry.kind {
            tar.extend_from_slice(&fs::read(root.join(entry.path.as_path())).unwrap());
            TarWriter::padding(&mut tar, size);
        }
    }
    tar
}

/// A sealed set, put together by hand: what the index says and what the parts hold need not agree.
pub struct Forged {
    pub id: String,
    pub captured_at: Timestamp,
    /// One part each: what the index says of it, and its tar.
    pub parts: Vec<(Vec<FileEntry>, Vec<u8>)>,
    pub recipient: String,
    pub key: Option<ssh_key::PrivateKey>,
}

impl Forged {
    /// An honest set of one part; change what should lie.
    pub fn of(home: &Home, tree: &Path) -> Self {
        let entries = entries_of(tree);
        let mut tar = tar_of(tree, &entries);
        TarWriter::end(&mut tar);
        Self {
            id: format!("{}-0a1b2c3d", home.hours_ago(1).0.strftime("%Y-%m-%dT%H%M%SZ")),
            captured_at: home.hours_ago(1),
            parts: vec![(entries, tar)],
            recipient: home.recipient.clone(),
            key: None,
        }
    }

    /// The true tree's index over a tar that somebody else made.
    pub fn with_tar(mut self, tar: Vec<u8>) -> Self {
        self.parts[0].1 = tar;
        self
    }

    /// Writes it below `parent`; the set's directory.
    pub fn write(&self, parent: &Path) -> PathBuf {
        let directory = parent.join(&self.id);
        fs::create_dir_all(&directory).unwrap();
        let object = |name: String, role: Role, bytes: &[u8]| {
            fs::write(directory.join(&name), bytes).unwrap();
            SetObject {
                name,
                role,
                size: bytes.len() as u64,
                blake3: Blake3(*blake3::hash(bytes).as_bytes()),
                sha256: Sha256(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().try_into().unwrap()),
            }
        };
        let (mut lines, mut root) = (Vec::new(), blake3::Hasher::new());
        index::write_head(&mut lines, &self.id);
        let (mut parts, mut totals) = (Vec::new(), Totals::default());
        for (number, (entries, tar)) in (0u32..).zip(&self.parts) {
            let frame = zstd_bytes(tar);
            let segment = Segment {
                part: number,
                offset: 0,
                length: frame.len() as u64,
                plain: tar.len() as u64,
                entries: entries.len() as u64,
                ends: number as usize + 1 == self.parts.len(),
            };
            index::write_segment(&mut lines, &segment);
            for entry in entries {
                let mut line = Vec::new();
                index::write_entry(&mut line, entry);
                root.update(&line);
                lines.extend_from_slice(&line);
                totals.entries += 1;
                match entry.kind {
                    EntryKind::File { size, .. } => {
                        totals.files += 1;
                        totals.bytes += size;
                    }
                    EntryKind::Dir => totals.directories += 1,
                    _ => {}
                }
            }
            parts.push(object(part_name(number), Role::Part, &seal_bytes(&frame, &self.recipient)));
        }
        let index = object(INDEX.to_owned(), Role::Index, &seal_bytes(&zstd_bytes(&lines), &self.recipient));
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            version: VERSION,
            id: self.id.clone(),
            captured_at: self.captured_at,
            created_at: self.captured_at,
            producer: Producer { name: "test".to_owned(), software: "firedrill test".to_owned(), public_key: None },
            recipients: vec![self.recipient.clone()],
            objects: std::iter::once(index).chain(parts).collect(),
            totals,
            root_blake3: Blake3(*root.finalize().as_bytes()),
            compression: CompressionUsed { algorithm: "zstd".to_owned(), level: 1 },
        };
        let bytes = manifest.to_bytes();
        if let Some(key) = &self.key {
            fs::write(directory.join(SIGNATURE), sign_manifest(&bytes, key).unwrap()).unwrap();
        }
        fs::write(directory.join(MANIFEST), bytes).unwrap();
        directory
    }
}

#[test]
fn an_honest_backup_passes_bare_and_sealed() {
    let home = Home::new();
    home.bare_tree();
    let drilled = home.drill(&home.scenario("")).ends("PASSED");
    drilled.left_nothing();
    assert_eq!(drilled.report["restored"]["layers"], serde_json::json!(["age", "zstd", "tar"]));

    let home = Home::new();
    let tree = home.tree();
    Forged::of(&home, &tree).write(&home.path("backups"));
    let drilled = home.drill(&home.sealed_scenario("")).ends("PASSED");
    drilled.left_nothing();
    let observed = drilled.report["checks"][0]["observed"].as_str().unwrap();
    assert!(observed.ends_with("0 mismatched, 0 missing, 0 extra"), "{observed}");
}
