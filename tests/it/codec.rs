//! Archives of other people's programs, hostile archives, and damage, through the whole restore of a bare object.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use firedrill::codec::tar::TarWriter;
use firedrill::codec::{Layer, Limit};
use firedrill::domain::{Cause, EntryKind, FileEntry, PathError, RestorePath};
use firedrill::restore::{ArchiveOptions, Budgets, HostileRule, RestoreError, Restored, restore_archive};

use crate::sealed_support::*;

fn tree() -> (tempfile::TempDir, Vec<FileEntry>) {
    let work = tempfile::tempdir().unwrap();
    fs::create_dir(work.path().join("tree")).unwrap();
    rich_tree(&work.path().join("tree"));
    let entries = snapshot(&work.path().join("tree"));
    (work, entries)
}

/// Makes an archive with GNU tar, restores it by firedrill and by GNU tar, and compares the two trees.
fn as_gnu_tar_does(work: &Path, arguments: &str, extract: &str) -> Restored {
    let archive_path = work.join("a.tar");
    shell(&format!("tar -C tree {arguments} -c . > a.tar 2>/dev/null || true"), work);
    let theirs = work.join("theirs");
    let _ = fs::remove_dir_all(&theirs);
    fs::create_dir(&theirs).unwrap();
    shell(&format!("tar -x -p {extract} -C theirs -f a.tar 2>/dev/null || true"), work);
    let place = place();
    let restored = archive(fs::read(&archive_path).unwrap(), "a.tar", &place).unwrap_or_else(|e| panic!("{arguments}: {e:?}"));
    let (mut ours, mut expected) = (snapshot(&place.root), snapshot(&theirs));
    if !extract.contains("--xattrs") {
        ours.iter_mut().chain(&mut expected).for_each(|e| e.xattrs.clear());
    }
    assert!(expected.len() > 40, "{arguments}: GNU tar restored {} entries", expected.len());
    for (a, b) in ours.iter().zip(&expected) {
        assert_eq!(a, b, "{arguments}");
    }
    assert_eq!(ours.len(), expected.len(), "{arguments}");
    assert_eq!(restored.facts.layers, ["tar"]);
    place.assert_outside_untouched();
    restored
}

#[test]
fn archives_of_every_format_restore_as_gnu_tar_restores_them() {
    let (work, entries) = tree();
    for arguments in [
        "--format=gnu",
        "--format=oldgnu",
        "--format=posix",
        "--format=ustar",
        "--format=v7",
        "--format=gnu --sparse",
        "--format=oldgnu --sparse",
        "--format=posix --sparse --sparse-version=0.0",
        "--format=posix --sparse --sparse-version=0.1",
        "--format=posix --sparse --sparse-version=1.0",
        "--format=posix --pax-option=globexthdr.name=g,comment=hello",
        "--format=posix --sort=name --numeric-owner --owner=3000000 --group=70000",
        "--format=gnu --sort=name --numeric-owner --owner=3000000",
        "--format=posix --mtime=@-5.5",
        "--format=gnu --mtime=@-5",
        "--format=gnu --label=weekly",
    ] {
        let restored = as_gnu_tar_does(work.path(), arguments, "");
        assert_eq!(restored.facts.skipped, u64::from(arguments.contains("label")), "{arguments}");
    }
    for arguments in ["--format=posix --xattrs", "--format=posix --xattrs --sparse"] {
        let restored = as_gnu_tar_does(work.path(), arguments, "--xattrs");
        // PAX keeps all of it: the very tree comes back
        assert_eq!(restored.facts.files + restored.facts.directories + restored.facts.others, entries.len() as u64);
    }
    let place = place();
    archive(fs::read(work.path().join("a.tar")).unwrap(), "a.tar", &place).unwrap();
    assert_eq!(snapshot(&place.root), entries);
    assert!(fs::metadata(place.root.join("sparse.img")).unwrap().blocks() * 512 < 200_000);
}

#[test]
fn many_extents_need_extension_blocks_and_come_back() {
    let work = tempfile::tempdir().unwrap();
    fs::create_dir(work.path().join("tree")).unwrap();
    let file = fs::File::create(work.path().join("tree/holes")).unwrap();
    for n in 0..100u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, &noise(n, 5000), n * 65_536).unwrap();
    }
    file.set_len(100 * 65_536 + 777).unwrap();
    let before = snapshot(&work.path().join("tree"));
    for format in ["gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix --sparse-version=1.0"] {
        shell(&format!("tar -C tree --sparse --format={format} -c . > a.tar"), work.path());
        assert!(fs::metadata(work.path().join("a.tar")).unwrap().len() < 2_000_000, "{format}: GNU tar found no holes");
        let place = place();
        archive(fs::read(work.path().join("a.tar")).unwrap(), "a.tar", &place).unwrap();
        let mut ours = snapshot(&place.root);
        if format == "gnu" {
            // whole seconds are all it keeps
            ours.iter_mut().zip(&before).for_each(|(o, b)| o.mtime_ns = b.mtime_ns);
        }
        assert_eq!(ours, before, "{format}");
    }
}

#[test]
fn layers_of_the_distributions_own_programs_come_off() {
    let (work, entries) = tree();
    let keys = keys();
    keys.write(work.path());
    let age = format!("age -r {}", keys.public);
    let armored = format!("age -a -r {}", keys.public);
    let cases: Vec<(String, Vec<&str>)> = vec![
        (format!("zstd -q | {age}"), vec!["age", "zstd", "tar"]),
        (format!("zstd -q --long=27 -3 | {armored}"), vec!["armor", "age", "zstd", "tar"]),
        (format!("gzip | {age}"), vec!["age", "gzip", "tar"]),
        (format!("xz -1 | {age}"), vec!["age", "xz", "tar"]),
        (format!("lz4 -q | {age}"), vec!["age", "lz4", "tar"]),
        (age.clone(), vec!["age", "tar"]),
        ("gzip".into(), vec!["gzip", "tar"]),
        (format!("{age} | zstd -q"), vec!["zstd", "age", "tar"]),
    ];
    for (filter, layers) in cases {
        shell(&format!("tar -C tree --format=posix --xattrs -c . | {filter} > backup"), work.path());
        let place = place();
        let restored = archive_with(fs::read(work.path().join("backup")).unwrap(), "backup", &keys.identities(), &place).unwrap();
        assert_eq!(restored.facts.layers, layers, "{filter}");
        assert_eq!(snapshot(&place.root), entries, "{filter}");
    }
}

#[test]
fn several_members_and_frames_in_a_row_are_one_stream() {
    let work = tempfile::tempdir().unwrap();
    let (a, b) = (noise(1, 300_000), b"tail\n".repeat(1000));
    fs::write(work.path().join("a"), &a).unwrap();
    fs::write(work.path().join("b"), &b).unwrap();
    for (filter, ending) in
        [("zstd -q", "zst"), ("gzip", "gz"), ("xz -1", "xz"), ("lz4 -q", "lz4"), ("lz4 -q -B5 -BD -BX --content-size", "lz4")]
    {
        let script = format!("{filter} -c a > c; {filter} -c b >> c");
        shell(&script, work.path());
        let place = place();
        archive(fs::read(work.path().join("c")).unwrap(), &format!("x/dump.bin.{ending}"), &place).unwrap();
        assert_eq!(fs::read(place.root.join("dump.bin")).unwrap(), [a.clone(), b.clone()].concat(), "{filter}");
    }
}

#[test]
fn every_truncation_and_flip_of_a_compressed_stream_is_an_error() {
    let work = tempfile::tempdir().unwrap();
    fs::write(work.path().join("a"), [b"text text ".repeat(3000), noise(1, 20_000)].concat()).unwrap();
    for (filter, layer) in [
        ("zstd -q --check", Layer::Zstd),
        ("gzip", Layer::Gzip),
        ("xz -1", Layer::Xz),
        ("lz4 -q", Layer::Lz4),
        ("lz4 -q -B4 -BD -BX", Layer::Lz4),
    ] {
        shell(&format!("{filter} < a > c"), work.path());
        let good = fs::read(work.path().join("c")).unwrap();
        for cut in [8, 9, 12, 100, good.len() / 2, good.len() - 12, good.len() - 9, good.len() - 5, good.len() - 4, good.len() - 1] {
            let error = archive(good[..cut].to_vec(), "a", &place()).unwrap_err();
            assert!(
                matches!(&error, RestoreError::Truncated { layer: l, .. } | RestoreError::Damaged { layer: l, .. } if *l == layer),
                "{filter} {cut}: {error:?}"
            );
            assert_eq!(error.blame(), Cause::Backup);
        }
        // headers have bytes that mean nothing (a gzip time, an operating system): damage is looked for in the data
        for at in (40..good.len()).step_by(997).chain([good.len() - 3]) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(archive(bad, "a", &place()).is_err(), "{filter} {at}");
        }
        let trailing = [good.clone(), b"garbage".to_vec()].concat();
        let error = archive(trailing, "a", &place()).unwrap_err();
        assert_eq!(error.blame(), Cause::Backup, "{filter}: {error:?}");
    }
}

#[test]
fn an_archive_cut_anywhere_is_an_error() {
    let (work, _) = tree();
    shell("tar -C tree --format=posix --sort=name -c plain.txt records/2026 > a.tar", work.path());
    let good = fs::read(work.path().join("a.tar")).unwrap();
    // on every block's border, where the usual crates see nothing wrong
    let end = good.len() - good.iter().rev().take_while(|&&b| b == 0).count();
    let blocks = end.div_ceil(512);
    for block in (1..=blocks).step_by(7).chain([blocks, blocks + 1]) {
        let error = archive(good[..block * 512].to_vec(), "a.tar", &place()).unwrap_err();
        assert!(matches!(error, RestoreError::Truncated { layer: Layer::Tar, .. }), "{block}: {error:?}");
    }
    assert!(archive(good[..(blocks + 2) * 512].to_vec(), "a.tar", &place()).is_ok());
}

#[test]
fn an_ssh_key_opens_what_was_sealed_to_it() {
    let work = tempfile::tempdir().unwrap();
    fs::write(work.path().join("a"), "select 1;\n").unwrap();
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", "plain"], work.path());
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "secret", "-f", "locked"], work.path());
    shell("age -R plain.pub -o sealed a", work.path());
    let mut identities = firedrill::codec::age::Identities::default();
    identities.add(&fs::read_to_string(work.path().join("plain")).unwrap()).unwrap();
    let place = place();
    archive_with(fs::read(work.path().join("sealed")).unwrap(), "a.sql.age", &identities, &place).unwrap();
    assert_eq!(fs::read(place.root.join("a.sql")).unwrap(), b"select 1;\n");
    let locked = fs::read_to_string(work.path().join("locked")).unwrap();
    assert_eq!(identities.add(&locked), Err(firedrill::codec::age::IdentityError::SshPassphrase));
}

#[test]
fn keys_that_do_not_fit_are_named() {
    let (mine, other) = (keys(), keys());
    let work = tempfile::tempdir().unwrap();
    fs::write(work.path().join("a"), "x").unwrap();
    shell(&format!("age -r {} -o sealed a", mine.public), work.path());
    let sealed = fs::read(work.path().join("sealed")).unwrap();
    let error = archive_with(sealed.clone(), "a.age", &other.identities(), &place()).unwrap_err();
    assert!(matches!(&error, RestoreError::NoMatchingRecipient { identities: 1, found, .. } if found == &["X25519"]), "{error:?}");
    let scrypt = passphrase_sealed();
    let error = archive_with(scrypt, "a.age", &mine.identities(), &place()).unwrap_err();
    assert!(matches!(error, RestoreError::PassphraseEncrypted { .. }), "{error:?}");
    let options = ArchiveOptions { name: "a".into(), captured_at: now(), must_be_encrypted: true };
    let plain = restore_archive(&Bytes::new(b"clear".to_vec()), &mine.identities(), &options, &place().target).unwrap_err();
    assert!(matches!(plain, RestoreError::NotEncrypted { .. }), "{plain:?}");
    assert!(restore_archive(&Bytes::new(sealed), &mine.identities(), &options, &place().target).is_ok());
}

fn passphrase_sealed() -> Vec<u8> {
    use std::io::Write;
    let mut recipient = age::scrypt::Recipient::new(age::secrecy::SecretString::from("swordfish".to_owned()));
    recipient.set_work_factor(2);
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient)).unwrap();
    let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
    writer.write_all(b"x").unwrap();
    writer.finish().unwrap()
}

#[test]
fn what_restores_to_nothing_is_empty() {
    let work = tempfile::tempdir().unwrap();
    let keys = keys();
    shell(
        &format!("tar -c -T /dev/null | zstd -q | age -r {} > a; : | zstd -q | age -r {} > b; : > c", keys.public, keys.public),
        work.path(),
    );
    fs::create_dir(work.path().join("tree")).unwrap();
    shell("tar -C tree -c . > d", work.path());
    for name in ["a", "b", "c", "d"] {
        let error = archive_with(fs::read(work.path().join(name)).unwrap(), name, &keys.identities(), &place()).unwrap_err();
        assert!(matches!(error, RestoreError::Empty { .. }), "{name}: {error:?}");
        assert_eq!(error.blame(), Cause::Backup);
    }
    // a disk full of zeros is no archive of anything
    assert!(matches!(archive(vec![0; 1 << 20], "a.tar", &place()).unwrap_err(), RestoreError::Empty { .. }));
}

#[test]
fn a_payload_that_is_no_archive_becomes_one_file() {
    let place = place();
    let restored = archive(b"PGDMP\x01rest".to_vec(), "backups/ehr-2026-11-20T0200.dump", &place).unwrap();
    assert_eq!(restored.facts.layers, ["pg_dump"]);
    assert_eq!((restored.facts.files, restored.facts.bytes), (1, 10));
    let file = fs::metadata(place.root.join("ehr-2026-11-20T0200.dump")).unwrap();
    // its time is the backup's, so that it never looks newer than it is
    assert_eq!(file.mtime(), now().0.as_second());
}

// ---- hostile archives -------------------------------------------------------------------------------------------------

/// An archive written byte by byte: names that no `RestorePath` may have.
#[derive(Default)]
struct Hand(Vec<u8>);

impl Hand {
    fn entry(mut self, name: &[u8], kind: u8, link: &[u8], data: &[u8]) -> Self {
        let mut head = [0u8; 512];
        head[..name.len()].copy_from_slice(name);
        head[100..108].copy_from_slice(b"0000644\0");
        head[108..116].copy_from_slice(b"0000000\0");
        head[116..124].copy_from_slice(b"0000000\0");
        head[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        head[136..148].copy_from_slice(b"00000000000\0");
        head[148..156].fill(b' ');
        head[156] = kind;
        head[157..157 + link.len()].copy_from_slice(link);
        head[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u64 = head.iter().map(|&b| u64::from(b)).sum();
        head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend_from_slice(&head);
        self.0.extend_from_slice(data);
        TarWriter::padding(&mut self.0, data.len() as u64);
        self
    }
    fn file(self, name: &str) -> Self {
        self.entry(name.as_bytes(), b'0', b"", b"evil")
    }
    fn dir(self, name: &str) -> Self {
        self.entry(name.as_bytes(), b'5', b"", b"")
    }
    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name.as_bytes(), b'2', target.as_bytes(), b"")
    }
    fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(name.as_bytes(), b'1', target.as_bytes(), b"")
    }
    fn pax(self, key: &str, value: &str) -> Self {
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.entry(b"pax", b'x', b"", format!("{length} {key}={value}\n").as_bytes())
    }
    fn end(mut self) -> Vec<u8> {
        TarWriter::end(&mut self.0);
        self.0
    }
}

#[test]
fn hostile_archives_break_a_rule_and_touch_nothing() {
    use HostileRule as R;
    let long = "x".repeat(300);
    let deep = vec!["d"; 2100].join("/");
    let cases: Vec<(&str, Hand, HostileRule)> = vec![
        ("climbs", Hand::default().file("../canary"), R::Path(PathError::Climbs)),
        ("climbs later", Hand::default().dir("a").file("a/../../canary"), R::Path(PathError::Climbs)),
        ("climbs by PAX", Hand::default().pax("path", "../canary").file("a"), R::Path(PathError::Climbs)),
        ("absolute", Hand::default().file("/tmp/firedrill-evil"), R::Path(PathError::Absolute)),
        ("absolute directory", Hand::default().dir("/tmp/firedrill-evil-dir"), R::Path(PathError::Absolute)),
        ("a NUL", Hand::default().pax("path", "a\0b").file("a"), R::Path(PathError::Nul)),
        ("a long component", Hand::default().pax("path", &long).file("a"), R::Path(PathError::TooLong)),
        ("a long path", Hand::default().pax("path", &deep).file("a"), R::Path(PathError::TooLong)),
        ("through a link", Hand::default().symlink("a", "..").file("a/canary"), R::ThroughLink),
        ("through a link to /", Hand::default().symlink("a", "/").file("a/tmp/firedrill-evil"), R::ThroughLink),
        ("through a link within", Hand::default().dir("d").symlink("a", "d").file("a/f"), R::ThroughLink),
        ("through a deep link", Hand::default().symlink("a", "..").file("a/b/c/d"), R::ThroughLink),
        ("a directory through a link", Hand::default().symlink("a", "..").dir("a/new"), R::ThroughLink),
        ("a link through a link", Hand::default().symlink("a", "..").symlink("a/l", "x"), R::ThroughLink),
        ("a pipe through a link", Hand::default().symlink("a", "..").entry(b"a/p", b'6', b"", b""), R::ThroughLink),
        ("over a link", Hand::default().symlink("a", "../canary").file("a"), R::Twice),
        ("a directory over a link", Hand::default().symlink("a", "..").dir("a"), R::Twice),
        ("a link over a directory", Hand::default().dir("a").symlink("a", ".."), R::Twice),
        ("a link over a made directory", Hand::default().file("a/b").symlink("a", ".."), R::Twice),
        ("a file twice", Hand::default().file("a").file("a"), R::Twice),
        ("a file twice, written otherwise", Hand::default().file("a/b").file("./a//b"), R::Twice),
        ("a file over a directory", Hand::default().dir("a").entry(b"a", b'0', b"", b"x"), R::Twice),
        ("below a file", Hand::default().file("a").file("a/b"), R::BelowFile),
        ("a hard link out", Hand::default().hardlink("a", "../canary"), R::LinkOut),
        ("an absolute hard link", Hand::default().hardlink("a", "/etc/passwd"), R::LinkOut),
        ("a hard link to the root", Hand::default().hardlink("a", "."), R::LinkOut),
        ("a hard link to a symbolic one", Hand::default().symlink("a", "../canary").hardlink("b", "a"), R::LinkTarget),
        ("a hard link through a symbolic one", Hand::default().symlink("a", "..").hardlink("b", "a/canary"), R::ThroughLink),
        ("a hard link to a directory", Hand::default().dir("a").hardlink("b", "a"), R::LinkTarget),
        ("a hard link to nothing", Hand::default().file("x").hardlink("b", "a"), R::LinkTarget),
        ("a hard link to what comes later", Hand::default().hardlink("b", "a").file("a"), R::LinkTarget),
        ("a hard link twice", Hand::default().file("a").hardlink("b", "a").hardlink("b", "a"), R::Twice),
        ("a character device", Hand::default().entry(b"null", b'3', b"", b""), R::Device),
        ("a block device", Hand::default().entry(b"sda", b'4', b"", b""), R::Device),
        ("the root as a link", Hand::default().symlink(".", "/etc"), R::Root),
        ("the root as a file", Hand::default().entry(b"./", b'2', b"/etc", b""), R::Root),
    ];
    for (name, hand, expected) in cases {
        let place = place();
        let error = archive(hand.end(), "a.tar", &place).unwrap_err();
        let RestoreError::Hostile { rule, .. } = &error else { panic!("{name}: {error:?}") };
        assert_eq!(*rule, expected, "{name}");
        assert_eq!(error.blame(), Cause::Backup);
        // no path in what may be shown
        assert!(!format!("{error} {error:?}").contains("canary"), "{name}: {error:?}");
        place.assert_outside_untouched();
        assert!(!Path::new("/tmp/firedrill-evil").exists() && !Path::new("/tmp/firedrill-evil-dir").exists());
    }
}

#[test]
fn what_looks_odd_and_is_harmless_is_restored() {
    let place = place();
    let bytes = Hand::default()
        .dir("./")
        .dir("a/")
        .dir("a")
        .file("a/File")
        .file("a/file")
        .symlink("link", "/etc/passwd")
        .symlink("up", "../../..")
        .hardlink("hard", "./a/file")
        .file("no/parents/named")
        .end();
    archive(bytes, "a.tar", &place).unwrap();
    let shown: Vec<String> = snapshot(&place.root).iter().map(|e| e.path.to_string()).collect();
    assert_eq!(shown, ["a", "a/File", "a/file", "hard", "link", "no", "no/parents", "no/parents/named", "up"]);
    assert_eq!(fs::metadata(place.root.join("no/parents")).unwrap().mode() & 0o7777, 0o755);
    place.assert_outside_untouched();
}

#[test]
fn bombs_end_at_their_budget() {
    let work = tempfile::tempdir_in("/dev/shm").unwrap();
    // 2 GiB of zeros in 70 KiB: as a file in an archive, and bare
    shell("truncate -s 2G z; tar -c z | zstd -q -1 > tar.zst; (echo x; cat z) | zstd -q -1 > bare.zst; rm z", work.path());
    let limit = |error| match error {
        RestoreError::Budget { limit, .. } => limit,
        other => panic!("{other:?}"),
    };
    let read = |name: &str| fs::read(work.path().join(name)).unwrap();
    let small = Budgets { bytes: 10 << 20, ..ROOMY };
    assert_eq!(limit(archive(read("tar.zst"), "a", &place_with(small)).unwrap_err()), Limit::Bytes);
    assert_eq!(limit(archive(read("bare.zst"), "a", &place_with(small)).unwrap_err()), Limit::Bytes);
    assert_eq!(limit(archive(read("tar.zst"), "a", &place()).unwrap_err()), Limit::Ratio);
    assert_eq!(limit(archive(read("bare.zst"), "a", &place()).unwrap_err()), Limit::Ratio);
    let many = (0..50).fold(Hand::default(), |hand, n| hand.file(&n.to_string())).end();
    assert_eq!(limit(archive(many, "a", &place_with(Budgets { files: 49, ..ROOMY })).unwrap_err()), Limit::Files);
    let deep = Hand::default().file(&["d"; 40].join("/")).end();
    assert_eq!(limit(archive(deep, "a", &place_with(Budgets { depth: 39, ..ROOMY })).unwrap_err()), Limit::Depth);
    // a sparse file counts as what it becomes
    let sparse = Hand::default().pax("GNU.sparse.size", "99999999999").entry(b"s", b'0', b"", b"").end();
    assert_eq!(limit(archive(sparse, "a", &place_with(small)).unwrap_err()), Limit::Bytes);
}

#[test]
fn a_full_scratch_is_the_runners_fault() {
    let work = tempfile::tempdir().unwrap();
    let mount = work.path().join("small");
    fs::create_dir(&mount).unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", mount.to_str().unwrap()], work.path());
    struct Unmount<'a>(&'a Path);
    impl Drop for Unmount<'_> {
        fn drop(&mut self) {
            run("umount", &["-l", self.0.to_str().unwrap()], Path::new("/"));
        }
    }
    let _unmount = Unmount(&mount);
    let mut place = place();
    place.target.root = fs::File::open(&mount).unwrap().into();
    let mut bytes = Vec::new();
    let path = RestorePath::from_bytes(b"big").unwrap();
    let kind = EntryKind::File { size: 3 << 20, blake3: None };
    TarWriter::header(&mut bytes, &FileEntry { path, kind, mode: 0o644, uid: 0, gid: 0, mtime: 0, mtime_ns: 0, xattrs: vec![] });
    bytes.extend(noise(1, 3 << 20));
    TarWriter::end(&mut bytes);
    let error = archive(bytes, "a.tar", &place).unwrap_err();
    assert!(matches!(error, RestoreError::ScratchFull), "{error:?}");
    assert_eq!(error.blame(), Cause::Runner);
}

#[test]
fn entries_belong_to_the_owner_that_the_sandbox_names() {
    let (work, _) = tree();
    shell("tar -C tree --format=posix -c . > a.tar", work.path());
    let mut place = place();
    place.target.owner = Some((61234, 61235));
    archive(fs::read(work.path().join("a.tar")).unwrap(), "a.tar", &place).unwrap();
    use std::os::fd::AsFd;
    let root = fs::File::open(&place.root).unwrap();
    let mut count = 0;
    for entry in firedrill::tree::walk(root.as_fd(), firedrill::tree::WalkOptions::default()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!((entry.uid, entry.gid), (61234, 61235), "{}", entry.path);
        count += 1;
    }
    assert!(count > 40);
    // changing the owner takes setuid away; it was put back
    assert_eq!(fs::metadata(place.root.join("plain.txt")).unwrap().mode() & 0o7777, 0o4755);
}

#[test]
fn a_source_that_delivers_less_than_it_has_is_no_truncated_backup() {
    use firedrill::restore::SealedSource;
    struct Short(Bytes);
    impl SealedSource for Short {
        fn size(&self) -> u64 {
            self.0.size()
        }
        fn open(&self, range: std::ops::Range<u64>) -> std::io::Result<Box<dyn std::io::Read + Send>> {
            use std::io::Read;
            Ok(Box::new(self.0.open(range.clone())?.take(range.end / 2)))
        }
        fn digest(&self) -> Option<firedrill::domain::Blake3> {
            None
        }
    }
    let options = ArchiveOptions { name: "a".into(), captured_at: now(), must_be_encrypted: false };
    let source = Short(Bytes::new(noise(1, 100_000)));
    let error = restore_archive(&source, &keys().identities(), &options, &place().target).unwrap_err();
    assert!(matches!(error, RestoreError::Source { .. }), "{error:?}");
}
