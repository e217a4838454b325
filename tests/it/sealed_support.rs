//! What the tests of `seal` and `restore` share: sources over files, targets, trees, and GNU tools.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use firedrill::codec::age::{Identities, Recipients};
use firedrill::codec::manifest::{INDEX, MANIFEST, Manifest};
use firedrill::domain::{Blake3, FileEntry, Timestamp, TreeDifference};
use firedrill::restore::{
    ArchiveOptions, Budgets, CancelFlag, RestoreError, Restored, SealedSet, SealedSource, Target, restore_archive, restore_sealed,
};
use firedrill::seal::{LocalSetWriter, SealError, SealOptions, SealProgress, SealSource, Sealed, seal};
use firedrill::tree::{WalkOptions, walk};
use tempfile::TempDir;

/// Bytes as an object, hashed as they are read.
pub struct Bytes {
    bytes: Arc<Vec<u8>>,
    digest: Arc<Mutex<Option<Blake3>>>,
}

impl Bytes {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Arc::new(bytes), digest: Arc::default() }
    }
}

struct Reading {
    bytes: Arc<Vec<u8>>,
    at: usize,
    end: usize,
    hasher: blake3::Hasher,
    digest: Arc<Mutex<Option<Blake3>>>,
}

impl Read for Reading {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = buf.len().min(self.end - self.at);
        buf[..n].copy_from_slice(&self.bytes[self.at..self.at + n]);
        self.hasher.update(&buf[..n]);
        self.at += n;
        if self.at == self.bytes.len() {
            *self.digest.lock().unwrap() = Some(Blake3(*self.hasher.finalize().as_bytes()));
        }
        Ok(n)
    }
}

impl SealedSource for Bytes {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
    fn open(&self, range: Range<u64>) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Reading {
            bytes: Arc::clone(&self.bytes),
            at: range.start as usize,
            end: range.end as usize,
            hasher: blake3::Hasher::new(),
            digest: Arc::clone(&self.digest),
        }))
    }
    fn digest(&self) -> Option<Blake3> {
        *self.digest.lock().unwrap()
    }
}

pub const ROOMY: Budgets = Budgets { bytes: 8 << 30, files: 1_000_000, ratio: 1_000, depth: 128 };

/// A place to restore into: `root` lies in `outside`, whose other contents must not change.
pub struct Place {
    pub outside: TempDir,
    pub root: PathBuf,
    pub target: Target,
}

pub fn place() -> Place {
    place_with(ROOMY)
}

pub fn place_with(budgets: Budgets) -> Place {
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::create_dir(outside.path().join("spool")).unwrap();
    fs::write(outside.path().join("canary"), "alive").unwrap();
    let open = |path: &Path| OwnedFd::from(File::open(path).unwrap());
    let target = Target {
        root: open(&root),
        spool: open(&outside.path().join("spool")),
        owner: None,
        budgets,
        cancel: CancelFlag::default(),
        progress: Arc::default(),
        workers: Some(3),
    };
    Place { outside, root, target }
}

impl Place {
    /// Nothing but the root has changed.
    pub fn assert_outside_untouched(&self) {
        let mut names: Vec<_> = fs::read_dir(self.outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["canary", "root", "spool"]);
        assert_eq!(fs::read(self.outside.path().join("canary")).unwrap(), b"alive");
        assert_eq!(fs::read_dir(self.outside.path().join("spool")).unwrap().count(), 0);
        assert_eq!(fs::metadata(self.outside.path().join("canary")).unwrap().permissions().mode() & 0o777, 0o644);
    }
}

pub fn now() -> Timestamp {
    Timestamp::from_unix(1_763_000_000)
}

/// A key pair, as age writes it.
pub struct Keys {
    pub secret: String,
    pub public: String,
}

pub fn keys() -> Keys {
    use age::secrecy::ExposeSecret;
    let identity = age::x25519::Identity::generate();
    Keys { secret: identity.to_string().expose_secret().to_owned(), public: identity.to_public().to_string() }
}

impl Keys {
    pub fn identities(&self) -> Identities {
        let mut identities = Identities::default();
        identities.add(&self.secret).unwrap();
        identities
    }
    pub fn recipients(&self) -> Recipients {
        Recipients::parse(&[&self.public]).unwrap()
    }
    /// A file for `age -i`.
    pub fn write(&self, directory: &Path) -> PathBuf {
        let path = directory.join("key.txt");
        fs::write(&path, format!("# test\n{}\n", self.secret)).unwrap();
        path
    }
}

pub fn archive(bytes: Vec<u8>, name: &str, place: &Place) -> Result<Restored, RestoreError> {
    archive_with(bytes, name, &Identities::default(), place)
}

pub fn archive_with(bytes: Vec<u8>, name: &str, identities: &Identities, place: &Place) -> Result<Restored, RestoreError> {
    let options = ArchiveOptions { name: name.to_owned(), captured_at: now(), must_be_encrypted: false };
    restore_archive(&Bytes::new(bytes), identities, &options, &place.target)
}

/// How the tests seal: small segments and parts, so that there are many.
pub struct Sealing<'a> {
    pub keys: &'a Keys,
    pub key: Option<&'a ssh_key::PrivateKey>,
    pub part_size: u64,
    pub segment_size: u64,
}

impl<'a> Sealing<'a> {
    pub fn new(keys: &'a Keys) -> Self {
        Self { keys, key: None, part_size: 300_000, segment_size: 100_000 }
    }

    pub fn seal(&self, source: SealSource, to: &Path) -> Result<Sealed, SealError> {
        let mut writer = LocalSetWriter::new(to, "set-1").unwrap();
        self.seal_into(source, &mut writer, to)
    }

    pub fn seal_into(&self, source: SealSource, writer: &mut dyn firedrill::seal::SetWriter, spool: &Path) -> Result<Sealed, SealError> {
        let progress = SealProgress::default();
        let recipients = self.keys.recipients();
        let options = SealOptions {
            id: "set-1".into(),
            captured_at: now(),
            now: &now,
            recipients: &recipients,
            producer: "test".into(),
            key: self.key,
            level: 3,
            part_size: self.part_size,
            segment_size: self.segment_size,
            workers: Some(3),
            spool: spool.to_owned(),
            progress: &progress,
            cancelled: &|| false,
        };
        seal(source, &options, writer)
    }
}

pub struct OpenedSet {
    pub manifest: Manifest,
    pub index: Bytes,
    pub parts: Vec<Bytes>,
}

pub fn open_set(directory: &Path) -> OpenedSet {
    let manifest = Manifest::parse(&fs::read(directory.join(MANIFEST)).unwrap()).unwrap();
    let parts = manifest.parts().iter().map(|p| Bytes::new(fs::read(directory.join(&p.name)).unwrap())).collect();
    OpenedSet { index: Bytes::new(fs::read(directory.join(INDEX)).unwrap()), manifest, parts }
}

pub fn unseal(set: &OpenedSet, identities: &Identities, place: &Place) -> Result<(Restored, Vec<TreeDifference>), RestoreError> {
    let told = Mutex::new(Vec::new());
    let sealed =
        SealedSet { manifest: &set.manifest, index: &set.index, parts: set.parts.iter().map(|p| p as &dyn SealedSource).collect() };
    let restored = restore_sealed(&sealed, identities, &place.target, &|d| told.lock().unwrap().push(d.clone()))?;
    Ok((restored, told.into_inner().unwrap()))
}

/// A tree as it is on disk, with contents' digests.
pub fn snapshot(root: &Path) -> Vec<FileEntry> {
    let directory = File::open(root).unwrap();
    walk(directory.as_fd(), WalkOptions { xattrs: true, changing: false })
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            if let firedrill::domain::EntryKind::File { blake3: digest, .. } = &mut entry.kind {
                *digest = Some(Blake3(*blake3::hash(&fs::read(root.join(entry.path.as_path())).unwrap()).as_bytes()));
            }
            (entry.uid, entry.gid) = (0, 0);
            entry
        })
        .collect()
}

pub fn run(program: &str, args: &[&str], directory: &Path) -> Vec<u8> {
    let output = Command::new(program).args(args).current_dir(directory).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub fn shell(script: &str, directory: &Path) -> Vec<u8> {
    run("bash", &["-euo", "pipefail", "-c", script], directory)
}

/// Reproducible bytes that do not compress.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

/// A tree with everything that a restore can get wrong.
pub fn rich_tree(root: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("records/2026/11")).unwrap();
    fs::create_dir_all(at("empty")).unwrap();
    fs::write(at("plain.txt"), "hello\n").unwrap();
    fs::write(at("empty.txt"), "").unwrap();
    fs::write(at(".hidden"), "dot").unwrap();
    fs::write(at("records/2026/11/noise.bin"), noise(1, 333_333)).unwrap();
    fs::write(at("records/large.bin"), noise(2, 700_001)).unwrap();
    for number in 0..40 {
        fs::write(at(&format!("records/2026/{number:03}.json")), format!("{{\"n\": {number}}}\n").repeat(200 + number)).unwrap();
    }
    let deep = format!("{}/{}/{}", "d".repeat(90), "e".repeat(90), "f".repeat(90));
    fs::create_dir_all(at(&deep)).unwrap();
    fs::write(at(&format!("{deep}/{}", "n".repeat(200))), "long names").unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"caf\xe9 \n\"x")), "latin").unwrap();
    symlink("../outside/nothing", at("dangling")).unwrap();
    symlink("/etc/passwd", at("absolute")).unwrap();
    symlink("l".repeat(180), at("long-link")).unwrap();
    fs::hard_link(at("records/large.bin"), at("zz-same")).unwrap();
    fs::hard_link(at("plain.txt"), at("records/plain-again")).unwrap();
    shell("mkfifo pipe; chmod 640 pipe; chmod 4755 plain.txt; chmod 2750 empty; chmod 1777 records/2026; chmod 600 .hidden", root);
    shell("setfattr -n user.origin -v 'ward 7' plain.txt; setfattr -n user.dir -v 0x00ff records", root);
    // sparse: data in the middle and at the end, and one that is all hole
    let sparse = File::create(at("sparse.img")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    sparse.write_all_at(&noise(3, 70_000), (1 << 20) + 4096).unwrap();
    sparse.write_all_at(b"end", (5 << 20) - 3).unwrap();
    File::create(at("hole.img")).unwrap().set_len(300_000).unwrap();
    shell(
        "touch -h -d '2001-02-03 04:05:06.123456789 UTC' dangling plain.txt; touch -d '1969-12-31 23:59:58.25 UTC' empty.txt; \
         touch -d '2020-01-01 00:00:00.5 UTC' records/2026 empty pipe records",
        root,
    );
}
