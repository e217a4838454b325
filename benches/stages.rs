//! Drives `seal` and `restore` without vault and sandbox, for measuring them alone; see `benches/README.md`.
//!
//! ```text
//! cargo bench --bench stages -- seal SOURCE STORE RECIPIENT
//! cargo bench --bench stages -- sealed SET IDENTITIES OUT
//! cargo bench --bench stages -- archive OBJECT IDENTITIES OUT
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a driver for measurements")]

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use firedrill::codec::age::{Identities, Recipients};
use firedrill::codec::manifest::{INDEX, MANIFEST, Manifest};
use firedrill::domain::{Blake3, Timestamp};
use firedrill::restore::{ArchiveOptions, Budgets, CancelFlag, SealedSet, SealedSource, Target, restore_archive, restore_sealed};
use firedrill::seal::{LEVEL, LocalSetWriter, PART_SIZE, SEGMENT_SIZE, SealOptions, SealProgress, SealSource, seal};

/// A file, hashed as it is read.
struct Object {
    file: Arc<File>,
    digest: Arc<Mutex<Option<Blake3>>>,
}

struct Reading {
    file: Arc<File>,
    at: u64,
    end: u64,
    hasher: blake3::Hasher,
    digest: Arc<Mutex<Option<Blake3>>>,
}

impl Read for Reading {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wanted = buf.len().min((self.end - self.at) as usize);
        let n = self.file.read_at(&mut buf[..wanted], self.at)?;
        self.hasher.update(&buf[..n]);
        self.at += n as u64;
        if self.at == self.end {
            *self.digest.lock().unwrap() = Some(Blake3(*self.hasher.finalize().as_bytes()));
        }
        Ok(n)
    }
}

impl SealedSource for Object {
    fn size(&self) -> u64 {
        self.file.metadata().unwrap().len()
    }
    fn open(&self, range: Range<u64>) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Reading {
            file: Arc::clone(&self.file),
            at: range.start,
            end: range.end,
            hasher: blake3::Hasher::new(),
            digest: Arc::clone(&self.digest),
        }))
    }
    fn digest(&self) -> Option<Blake3> {
        *self.digest.lock().unwrap()
    }
}

fn object(path: &Path) -> Object {
    Object { file: Arc::new(File::open(path).unwrap()), digest: Arc::default() }
}

fn target(out: &str) -> Target {
    let root = Path::new(out).join("root");
    let spool = Path::new(out).join("spool");
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(&spool).unwrap();
    Target {
        root: File::open(root).unwrap().into(),
        spool: File::open(spool).unwrap().into(),
        owner: None,
        budgets: Budgets { bytes: 1 << 40, files: 50_000_000, ratio: 10_000, depth: 128 },
        cancel: CancelFlag::default(),
        progress: Arc::default(),
        workers: None,
    }
}

fn identities(path: &str) -> Identities {
    let mut identities = Identities::default();
    identities.add(&fs::read_to_string(path).unwrap()).unwrap();
    identities
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let at = Timestamp::from_unix(1_763_000_000);
    let began = Instant::now();
    match words[..] {
        ["seal", source, store, recipient] => {
            let (recipients, progress) = (Recipients::parse(&[recipient]).unwrap(), SealProgress::default());
            let options = SealOptions {
                id: "set".into(),
                captured_at: at,
                now: &|| at,
                recipients: &recipients,
                producer: "bench".into(),
                key: None,
                level: LEVEL,
                part_size: PART_SIZE,
                segment_size: SEGMENT_SIZE,
                workers: None,
                spool: store.into(),
                progress: &progress,
                cancelled: &|| false,
            };
            let mut writer = LocalSetWriter::new(Path::new(store), "set").unwrap();
            let sealed = seal(SealSource::Paths(vec![source.into()]), &options, &mut writer).unwrap();
            println!("{:?} in {:?}", sealed.manifest.totals, began.elapsed());
        }
        ["sealed", set, key, out] => {
            let manifest = Manifest::parse(&fs::read(Path::new(set).join(MANIFEST)).unwrap()).unwrap();
            let index = object(&Path::new(set).join(INDEX));
            let parts: Vec<Object> = manifest.parts().iter().map(|p| object(&Path::new(set).join(&p.name))).collect();
            let sealed = SealedSet { manifest: &manifest, index: &index, parts: parts.iter().map(|p| p as &dyn SealedSource).collect() };
            let restored = restore_sealed(&sealed, &identities(key), &target(out), &|_| {}).unwrap();
            assert!(restored.compared.is_some_and(|c| c.is_clean()));
            println!("{} files, {} bytes in {:?}", restored.facts.files, restored.facts.bytes, began.elapsed());
        }
        ["archive", path, key, out] => {
            let options = ArchiveOptions { name: path.to_owned(), captured_at: at, must_be_encrypted: false };
            let restored = restore_archive(&object(Path::new(path)), &identities(key), &options, &target(out)).unwrap();
            println!("{} files, {} bytes in {:?}", restored.facts.files, restored.facts.bytes, began.elapsed());
        }
        // `cargo test --benches` and the like call it without arguments
        _ => println!("usage: restore seal SOURCE STORE RECIPIENT | sealed SET IDENTITIES OUT | archive OBJECT IDENTITIES OUT"),
    }
}
