//! A set is sealed, restored, damaged, and read with other people's tools.

use std::fs;
use std::path::Path;

use firedrill::codec::manifest::{MANIFEST, ProducerTrust, SIGNATURE, verify_manifest};
use firedrill::domain::{Aspect, Cause, EntryKind};
use firedrill::restore::{Member, RestoreError};
use firedrill::seal::{SealError, SealSource, SetWriter, Written};

use crate::sealed_support::*;

fn sealed(keys: &Keys) -> (tempfile::TempDir, std::path::PathBuf) {
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    rich_tree(&source);
    let store = work.path().join("store");
    Sealing::new(keys)
        .seal(SealSource::Paths(vec![source]), &{
            fs::create_dir(&store).unwrap();
            store.clone()
        })
        .unwrap();
    let set = store.join("set-1");
    (work, set)
}

#[test]
fn a_sealed_tree_comes_back_in_every_detail() {
    let keys = keys();
    let (work, set) = sealed(&keys);
    let opened = open_set(&set);
    assert!(opened.parts.len() > 2, "the test wants several parts");
    let place = place();
    let (restored, told) = unseal(&opened, &keys.identities(), &place).unwrap();
    assert_eq!(told, []);
    let before = snapshot(&work.path().join("source"));
    assert_eq!(snapshot(&place.root), before);
    let compared = restored.compared.unwrap();
    assert!(compared.is_clean());
    assert_eq!(compared.summary.matched, before.len() as u64);
    assert_eq!(restored.facts.tree_blake3, Some(opened.manifest.root_blake3));
    assert_eq!(opened.manifest.totals.entries, before.len() as u64);
    // the index that the restore leaves describes what is on disk
    let index: Vec<_> = restored.index.unwrap().iter().map(Result::unwrap).collect();
    let mut differences = Vec::new();
    assert!(firedrill::domain::compare(index, before, |d| differences.push(d)).is_clean(), "{differences:?}");
    // holes stay holes
    use std::os::unix::fs::MetadataExt;
    let blocks = |name: &str| fs::metadata(place.root.join(name)).unwrap().blocks() * 512;
    assert!(blocks("sparse.img") < 200_000 && blocks("hole.img") == 0);
    place.assert_outside_untouched();
}

#[test]
fn the_parts_are_one_tar_for_anybodys_tools() {
    let keys = keys();
    let (work, set) = sealed(&keys);
    let key = keys.write(work.path());
    let out = work.path().join("out");
    fs::create_dir(&out).unwrap();
    shell(
        &format!(
            "for p in {}/data-*; do age -d -i {} $p; done | zstd -d | tar -x --xattrs -p -C {}",
            set.display(),
            key.display(),
            out.display()
        ),
        work.path(),
    );
    let (mut theirs, source) = (snapshot(&out), snapshot(&work.path().join("source")));
    // GNU tar leaves the mode of symbolic links alone as well
    theirs.retain(|e| !e.path.is_root());
    assert_eq!(theirs, source);
}

#[test]
fn no_name_of_a_file_is_in_clear() {
    let keys = keys();
    let (_work, set) = sealed(&keys);
    for file in fs::read_dir(&set).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        for name in [&b"plain.txt"[..], b"records", b"hidden"] {
            assert!(!bytes.windows(name.len()).any(|w| w == name));
        }
    }
}

#[test]
fn sealing_is_deterministic_in_what_it_says() {
    let keys = keys();
    let (work, set) = sealed(&keys);
    let again = work.path().join("again");
    fs::create_dir(&again).unwrap();
    let source = SealSource::Paths(vec![work.path().join("source")]);
    let sealing = Sealing { part_size: 1 << 30, segment_size: 1 << 20, ..Sealing::new(&keys) };
    let sealed = sealing.seal(source, &again).unwrap();
    let (a, b) = (open_set(&set).manifest, sealed.manifest);
    // cut otherwise, the same content
    assert_ne!(a.parts().len(), b.parts().len());
    assert_eq!((a.root_blake3, a.totals), (b.root_blake3, b.totals));
}

#[test]
fn a_flip_anywhere_in_the_stored_bytes_fails_the_restore() {
    let keys = keys();
    let (_work, set) = sealed(&keys);
    let names: Vec<String> = open_set(&set).manifest.objects.iter().map(|o| o.name.clone()).collect();
    for name in names {
        let good = fs::read(set.join(&name)).unwrap();
        for at in [0, 30, 150, 300, good.len() / 3, good.len() - 20, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(set.join(&name), &bad).unwrap();
            let place = place();
            let error = unseal(&open_set(&set), &keys.identities(), &place).unwrap_err();
            assert_eq!(error.blame(), Cause::Backup, "{name} {at}: {error}");
            assert!(matches!(error, RestoreError::Damaged { .. }), "{name} {at}: {error:?}");
            place.assert_outside_untouched();
        }
        fs::write(set.join(&name), &good).unwrap();
    }
}

#[test]
fn truncation_and_growth_have_their_names() {
    let keys = keys();
    let (_work, set) = sealed(&keys);
    let part = set.join(&open_set(&set).manifest.parts()[1].name);
    let good = fs::read(&part).unwrap();
    for cut in [0, 1, 100, 65_552, good.len() - 1] {
        fs::write(&part, &good[..cut]).unwrap();
        let error = unseal(&open_set(&set), &keys.identities(), &place()).unwrap_err();
        assert!(matches!(error, RestoreError::Truncated { member: Member::Part(1), .. }), "{error:?}");
    }
    fs::write(&part, [good, vec![0]].concat()).unwrap();
    let error = unseal(&open_set(&set), &keys.identities(), &place()).unwrap_err();
    assert!(matches!(error, RestoreError::Differs { member: Member::Part(1), .. }), "{error:?}");
}

#[test]
fn a_part_of_another_run_is_noticed() {
    let keys = keys();
    let (work, first) = sealed(&keys);
    let store = work.path().join("second");
    fs::create_dir(&store).unwrap();
    Sealing::new(&keys).seal(SealSource::Paths(vec![work.path().join("source")]), &store).unwrap();
    let name = open_set(&first).manifest.parts()[0].name.clone();
    let second = store.join("set-1").join(&name);
    // same content, same size, sealed another time: it opens, and yet it is not this set's
    assert_eq!(fs::metadata(first.join(&name)).unwrap().len(), fs::metadata(&second).unwrap().len());
    fs::copy(second, first.join(&name)).unwrap();
    let error = unseal(&open_set(&first), &keys.identities(), &place()).unwrap_err();
    assert!(matches!(error, RestoreError::Differs { member: Member::Part(0), .. }), "{error:?}");
}

/// Seals a tree, harms it, and seals it again: a set with the parts of the harmed tree and the index of the good one, as
/// if the bytes had been harmed on their way into the archive.
fn harmed_before_sealing(keys: &Keys, harm: impl Fn(&Path)) -> (tempfile::TempDir, OpenedSet) {
    use firedrill::codec::{age::AgeWriter, index};
    use std::io::Write;
    let work = tempfile::tempdir().unwrap();
    let tree = work.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a"), noise(1, 5000)).unwrap();
    fs::write(tree.join("b"), noise(2, 5000)).unwrap();
    let sealing = Sealing { segment_size: 1 << 20, part_size: 1 << 30, ..Sealing::new(keys) };
    let seal = |name: &str| {
        let store = work.path().join(name);
        fs::create_dir(&store).unwrap();
        sealing.seal(SealSource::Paths(vec![tree.clone()]), &store).unwrap();
        let set = open_set(&store.join("set-1"));
        let sealed = fs::read(store.join("set-1").join(&set.manifest.index().name)).unwrap();
        let plain = firedrill::codec::age::open(&sealed[..], &keys.identities()).unwrap();
        let lines = String::from_utf8(zstd::decode_all(plain).unwrap()).unwrap();
        (set, lines.split_inclusive('\n').map(str::to_owned).collect::<Vec<_>>())
    };
    let (good, good_lines) = seal("good");
    harm(&tree);
    let (bad, bad_lines) = seal("bad");
    let is_entry = |line: &&String| line.starts_with("{\"path\"");
    let mut entries = good_lines.iter().filter(is_entry);
    // segments as they lie in the parts that are there, entries as they should have been
    let lines: String = bad_lines.iter().map(|line| if is_entry(&line) { entries.next().unwrap() } else { line }.as_str()).collect();
    assert!(entries.next().is_none());
    let mut writer = AgeWriter::new(Vec::new(), &keys.recipients()).unwrap();
    writer.write_all(&zstd::encode_all(lines.as_bytes(), 3).unwrap()).unwrap();
    let sealed = writer.finish().unwrap();
    let mut manifest = bad.manifest.clone();
    (manifest.root_blake3, manifest.totals) = (good.manifest.root_blake3, good.manifest.totals);
    (manifest.objects[0].size, manifest.objects[0].blake3) =
        (sealed.len() as u64, firedrill::domain::Blake3(*blake3::hash(&sealed).as_bytes()));
    let _ = index::FORMAT;
    (work, OpenedSet { manifest, index: Bytes::new(sealed), parts: bad.parts })
}

/// Writes without anybody noticing by the time.
fn rewrite(path: &Path, bytes: Vec<u8>) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, bytes).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn what_was_harmed_before_it_was_sealed_is_found_by_the_index() {
    use std::os::unix::fs::PermissionsExt;
    type Harm = fn(&Path);
    let harms: [(Harm, &[(&str, Aspect)]); 7] = [
        (
            |tree| {
                let mut bytes = noise(1, 5000);
                bytes[77] ^= 1;
                rewrite(&tree.join("a"), bytes);
            },
            &[("a", Aspect::Content)],
        ),
        (|tree| rewrite(&tree.join("a"), vec![0; 5000]), &[("a", Aspect::Content)]),
        (|tree| rewrite(&tree.join("a"), noise(1, 4999)), &[("a", Aspect::Size)]),
        (|tree| fs::set_permissions(tree.join("b"), fs::Permissions::from_mode(0o600)).unwrap(), &[("b", Aspect::Mode)]),
        (
            |tree| fs::File::options().write(true).open(tree.join("b")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap(),
            &[("b", Aspect::Time)],
        ),
        (|tree| shell_xattr(&tree.join("b")), &[("b", Aspect::Xattrs)]),
        (
            |tree| {
                fs::remove_file(tree.join("a")).unwrap();
                fs::write(tree.join("c"), "new").unwrap();
            },
            &[("a", Aspect::Missing), ("c", Aspect::Extra)],
        ),
    ];
    let keys = keys();
    for (harm, expected) in harms {
        let (_work, set) = harmed_before_sealing(&keys, harm);
        let place = place();
        let (restored, told) = unseal(&set, &keys.identities(), &place).unwrap();
        let told: Vec<_> = told.iter().map(|d| (d.path.to_string(), d.aspect)).collect();
        let expected: Vec<_> = expected.iter().map(|(p, a)| ((*p).to_owned(), *a)).collect();
        assert_eq!(told, expected);
        let compared = restored.compared.unwrap();
        assert!(!compared.is_clean());
        assert_eq!(compared.aspects.values().sum::<u64>(), told.len() as u64);
        assert_eq!(restored.facts.tree_blake3, None);
    }
    // and without harm there is none
    let (_work, set) = harmed_before_sealing(&keys, |_| {});
    assert!(unseal(&set, &keys.identities(), &place()).unwrap().0.compared.unwrap().is_clean());
}

fn shell_xattr(path: &Path) {
    run("setfattr", &["-n", "user.more", "-v", "1", path.to_str().unwrap()], Path::new("/"));
}

#[test]
fn another_key_opens_nothing() {
    let (mine, other) = (keys(), keys());
    let (_work, set) = sealed(&mine);
    let place = place();
    let error = unseal(&open_set(&set), &other.identities(), &place).unwrap_err();
    assert!(matches!(&error, RestoreError::NoMatchingRecipient { member: Member::Index, identities: 1, found } if found == &["X25519"]));
    assert_eq!(fs::read_dir(&place.root).unwrap().count(), 0);
}

#[test]
fn a_signed_manifest_is_checked_by_ssh_keygen_too() {
    let keys = keys();
    let work = tempfile::tempdir().unwrap();
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "backup-host", "-f", "producer"], work.path());
    let key = ssh_key::PrivateKey::read_openssh_file(&work.path().join("producer")).unwrap();
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), "x").unwrap();
    let sealing = Sealing { key: Some(&key), ..Sealing::new(&keys) };
    sealing.seal(SealSource::Paths(vec![source]), work.path()).unwrap();
    let set = work.path().join("set-1");
    let public = fs::read_to_string(work.path().join("producer.pub")).unwrap();
    fs::write(work.path().join("allowed"), format!("producer {public}")).unwrap();
    let verify = "ssh-keygen -Y verify -n firedrill-manifest -I producer -f allowed -s set-1/manifest.sig < set-1/manifest.json";
    shell(verify, work.path());
    let (bytes, signature) = (fs::read(set.join(MANIFEST)).unwrap(), fs::read(set.join(SIGNATURE)).unwrap());
    let trusted = [ssh_key::PublicKey::from_openssh(&public).unwrap()];
    assert!(matches!(verify_manifest(&bytes, Some(&signature), &trusted), ProducerTrust::Trusted { .. }));
    let mut changed = bytes.clone();
    changed[30] ^= 1;
    fs::write(set.join(MANIFEST), &changed).unwrap();
    assert!(std::process::Command::new("bash").args(["-c", verify]).current_dir(work.path()).status().is_ok_and(|s| !s.success()));
    assert!(matches!(verify_manifest(&changed, Some(&signature), &trusted), ProducerTrust::Untrusted { .. }));
}

#[test]
fn a_stream_becomes_one_file() {
    let keys = keys();
    let work = tempfile::tempdir().unwrap();
    let content = noise(9, 900_000);
    let source = SealSource::Stream { reader: Box::new(std::io::Cursor::new(content.clone())), name: "ehr.dump".into() };
    Sealing::new(&keys).seal(source, work.path()).unwrap();
    let place = place();
    let (restored, told) = unseal(&open_set(&work.path().join("set-1")), &keys.identities(), &place).unwrap();
    assert_eq!(told, []);
    assert_eq!(fs::read(place.root.join("ehr.dump")).unwrap(), content);
    assert_eq!(restored.facts.files, 1);
    let empty = SealSource::Stream { reader: Box::new(std::io::empty()), name: "x".into() };
    let other = work.path().join("other");
    assert!(matches!(
        Sealing::new(&keys).seal(empty, &{
            fs::create_dir(&other).unwrap();
            other
        }),
        Err(SealError::Nothing)
    ));
}

#[test]
fn several_sources_keep_their_names() {
    let keys = keys();
    let work = tempfile::tempdir().unwrap();
    for directory in ["b/x", "a"] {
        fs::create_dir_all(work.path().join(directory)).unwrap();
        fs::write(work.path().join(directory).join("f"), directory).unwrap();
    }
    fs::write(work.path().join("single"), "s").unwrap();
    shell("setfattr -n user.of.file -v 1 single; setfattr -n user.of.dir -v 2 a", work.path());
    fs::hard_link(work.path().join("b/x/f"), work.path().join("b/z")).unwrap();
    let store = work.path().join("store");
    fs::create_dir(&store).unwrap();
    let paths = ["b", "single", "a"].map(|n| work.path().join(n)).to_vec();
    Sealing::new(&keys).seal(SealSource::Paths(paths), &store).unwrap();
    let place = place();
    let (_, told) = unseal(&open_set(&store.join("set-1")), &keys.identities(), &place).unwrap();
    assert_eq!(told, []);
    let shown: Vec<String> = snapshot(&place.root).iter().map(|e| e.path.to_string()).collect();
    assert_eq!(shown, ["a", "a/f", "b", "b/x", "b/x/f", "b/z", "single"]);
    let attributes: usize = snapshot(&place.root).iter().map(|e| e.xattrs.len()).sum();
    assert_eq!(attributes, 2);
    let same = vec![work.path().join("a"), work.path().join("b/../a")];
    assert!(matches!(Sealing::new(&keys).seal(SealSource::Paths(same), work.path()), Err(SealError::SameName { .. })));
}

#[test]
fn nothing_is_left_under_the_final_name_when_sealing_fails() {
    let keys = keys();
    let work = tempfile::tempdir().unwrap();
    let empty = work.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(matches!(Sealing::new(&keys).seal(SealSource::Paths(vec![empty.clone()]), work.path()), Err(SealError::Nothing)));
    assert!(matches!(
        Sealing::new(&keys).seal(SealSource::Paths(vec![work.path().join("nope")]), work.path()),
        Err(SealError::Read { .. })
    ));

    /// Fails at the n-th call.
    struct Failing {
        left: u32,
        aborted: bool,
    }
    impl Failing {
        fn count(&mut self) -> std::io::Result<()> {
            self.left = self.left.checked_sub(1).ok_or_else(|| std::io::Error::other("the store is full"))?;
            Ok(())
        }
    }
    impl SetWriter for Failing {
        fn create(&mut self, _: &str) -> std::io::Result<()> {
            self.count()
        }
        fn write(&mut self, _: &[u8]) -> std::io::Result<()> {
            self.count()
        }
        fn finish(&mut self, _: &Written) -> std::io::Result<()> {
            self.count()
        }
        fn commit(&mut self, _: &[u8], _: Option<&[u8]>) -> std::io::Result<()> {
            self.count()
        }
        fn abort(&mut self) {
            self.aborted = true;
        }
    }
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    rich_tree(&source);
    for left in (0..12).chain([30]) {
        let mut writer = Failing { left, aborted: false };
        let error = Sealing::new(&keys).seal_into(SealSource::Paths(vec![source.clone()]), &mut writer, work.path()).unwrap_err();
        assert!(matches!(error, SealError::Write { .. }), "{left}: {error:?}");
        assert!(writer.aborted);
    }
    let names: Vec<_> = fs::read_dir(work.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|n| n.to_string_lossy().contains("set-1")), "{names:?}");
}

#[test]
fn a_set_that_is_there_is_never_touched() {
    let keys = keys();
    let work = tempfile::tempdir().unwrap();
    fs::create_dir(work.path().join("set-1")).unwrap();
    assert!(firedrill::seal::LocalSetWriter::new(work.path(), "set-1").is_err());
    let _ = keys;
}

#[test]
fn sockets_are_counted_and_devices_refused() {
    let keys = keys();
    let work = tempfile::tempdir().unwrap();
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), "x").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(source.join("s")).unwrap();
    let sealed = Sealing::new(&keys).seal(SealSource::Paths(vec![source.clone()]), work.path()).unwrap();
    assert_eq!((sealed.passed_over.sockets, sealed.manifest.totals.entries), (1, 1));
    fs::remove_dir_all(work.path().join("set-1")).unwrap();
    shell("mknod source/dev c 1 3", work.path());
    assert!(matches!(Sealing::new(&keys).seal(SealSource::Paths(vec![source]), work.path()), Err(SealError::Device { .. })));
}

#[test]
fn budgets_end_a_restore() {
    let keys = keys();
    let (_work, set) = sealed(&keys);
    let opened = open_set(&set);
    let small = |budgets| unseal(&opened, &keys.identities(), &place_with(budgets)).unwrap_err();
    use firedrill::codec::Limit;
    use firedrill::restore::Budgets;
    let limit = |error| match error {
        RestoreError::Budget { limit, .. } => limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(small(Budgets { bytes: 1_000_000, ..ROOMY })), Limit::Bytes);
    assert_eq!(limit(small(Budgets { files: 10, ..ROOMY })), Limit::Files);
    assert_eq!(limit(small(Budgets { depth: 2, ..ROOMY })), Limit::Depth);
}

#[test]
fn a_cancelled_restore_ends_as_cancelled() {
    let keys = keys();
    let (_work, set) = sealed(&keys);
    let place = place();
    place.target.cancel.cancel();
    let error = unseal(&open_set(&set), &keys.identities(), &place).unwrap_err();
    assert!(matches!(error, RestoreError::Cancelled), "{error:?}");
    assert_eq!(error.blame(), Cause::Runner);
}

#[test]
fn a_source_that_breaks_is_not_the_backups_fault() {
    use firedrill::restore::{SealedSet, SealedSource, restore_sealed};
    struct Breaks<'a>(&'a Bytes, u64);
    impl SealedSource for Breaks<'_> {
        fn size(&self) -> u64 {
            self.0.size()
        }
        fn open(&self, range: std::ops::Range<u64>) -> std::io::Result<Box<dyn std::io::Read + Send>> {
            use std::io::Read;
            struct Reset;
            impl Read for Reset {
                fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                    Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset by peer"))
                }
            }
            Ok(Box::new(self.0.open(range)?.take(self.1).chain(Reset)))
        }
        fn digest(&self) -> Option<firedrill::domain::Blake3> {
            None
        }
    }
    let keys = keys();
    let (_work, set) = sealed(&keys);
    let opened = open_set(&set);
    for after in [0, 100, 70_000, opened.parts[0].size() - 1] {
        let part = Breaks(&opened.parts[0], after);
        let mut parts: Vec<&dyn SealedSource> = opened.parts.iter().map(|p| p as &dyn SealedSource).collect();
        parts[0] = &part;
        let sealed = SealedSet { manifest: &opened.manifest, index: &opened.index, parts };
        let error = restore_sealed(&sealed, &keys.identities(), &place().target, &|_| {}).unwrap_err();
        let RestoreError::Source { member: Member::Part(0), source } = &error else { panic!("{after}: {error:?}") };
        assert_eq!(source.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(error.blame(), Cause::Runner);
    }
}

#[test]
fn a_large_file_streams_through() {
    let keys = keys();
    let work = tempfile::tempdir_in("/dev/shm").unwrap();
    let source = work.path().join("source");
    fs::create_dir(&source).unwrap();
    let content = noise(4, 30 << 20);
    fs::write(source.join("big"), &content).unwrap();
    fs::write(source.join("after"), "x").unwrap();
    let sealing = Sealing { part_size: 8 << 20, segment_size: 4 << 20, ..Sealing::new(&keys) };
    let sealed = sealing.seal(SealSource::Paths(vec![source]), work.path()).unwrap();
    assert_eq!(sealed.manifest.totals.bytes, (30 << 20) + 1);
    let place = place();
    let (_, told) = unseal(&open_set(&work.path().join("set-1")), &keys.identities(), &place).unwrap();
    assert_eq!(told, []);
    assert_eq!(fs::read(place.root.join("big")).unwrap(), content);
    assert!(snapshot(&place.root).iter().all(|e| matches!(e.kind, EntryKind::File { .. })));
}
