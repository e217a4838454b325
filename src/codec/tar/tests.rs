use super::*;
use crate::codec::{Fault, fault};
use crate::domain::{EntryKind, FileEntry, RestorePath};
use proptest::prelude::*;

fn entry(path: &str, kind: EntryKind) -> FileEntry {
    FileEntry {
        path: RestorePath::from_bytes(path.as_bytes()).unwrap(),
        kind,
        mode: 0o4755,
        uid: 1000,
        gid: 3_000_000,
        mtime: 1_700_000_000,
        mtime_ns: 123_456_789,
        xattrs: vec![],
    }
}

fn file(path: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    TarWriter::header(&mut out, &entry(path, EntryKind::File { size: data.len() as u64, blake3: None }));
    out.extend_from_slice(data);
    TarWriter::padding(&mut out, data.len() as u64);
    out
}

type Read = Vec<(TarEntry, Vec<(u64, Vec<u8>)>)>;

fn read(bytes: &[u8], ending: Ending) -> Result<Read, CodecError> {
    let mut reader = TarReader::new(bytes, ending);
    let mut all = Vec::new();
    let result = (|| -> io::Result<()> {
        while let Some(entry) = reader.next_entry()? {
            let mut data = Vec::new();
            reader.read_data(|offset, piece| {
                data.push((offset, piece.to_vec()));
                io::Result::Ok(())
            })?;
            all.push((entry, data));
        }
        Ok(())
    })();
    match result.map_err(fault) {
        Ok(()) => Ok(all),
        Err(Fault::Bytes(error)) => Err(error),
        Err(Fault::Source(error)) => panic!("memory does not fail: {error}"),
    }
}

fn ended(mut bytes: Vec<u8>) -> Vec<u8> {
    TarWriter::end(&mut bytes);
    bytes
}

#[test]
fn what_we_write_we_read() {
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(200));
    let cases = [
        entry("f", EntryKind::File { size: 0, blake3: None }),
        entry(&long, EntryKind::Dir),
        entry("s", EntryKind::Symlink { target: b"/etc/../\xff".to_vec() }),
        entry("s2", EntryKind::Symlink { target: vec![b'x'; 300] }),
        entry("h", EntryKind::Hardlink { target: RestorePath::from_bytes(b"f").unwrap() }),
        entry("p", EntryKind::Fifo),
        entry("d", EntryKind::Device { block: true, major: 8, minor: 1 }),
        FileEntry { mtime: -2, mtime_ns: 750_000_000, ..entry("old", EntryKind::Dir) },
        FileEntry { xattrs: vec![Xattr { name: "user.a".into(), value: b"\0\n=\xff".to_vec() }], ..entry("x", EntryKind::Dir) },
    ];
    for case in cases {
        let mut bytes = Vec::new();
        TarWriter::header(&mut bytes, &case);
        let read = read(&ended(bytes), Ending::Demanded).unwrap();
        let [(got, _)] = &read[..] else { panic!("{read:?}") };
        assert_eq!(RestorePath::from_bytes(&got.path).unwrap(), case.path);
        assert_eq!((got.mode, got.uid, got.gid), (case.mode, case.uid, case.gid));
        assert_eq!((got.mtime, got.mtime_ns), (case.mtime, case.mtime_ns));
        assert_eq!(got.xattrs, case.xattrs);
        match (&got.kind, &case.kind) {
            (Kind::File { size: 0 }, EntryKind::File { .. }) | (Kind::Dir, EntryKind::Dir) | (Kind::Fifo, EntryKind::Fifo) => {}
            (Kind::Symlink { target: a }, EntryKind::Symlink { target: b }) => assert_eq!(a, b),
            (Kind::Hardlink { target: a }, EntryKind::Hardlink { target: b }) => assert_eq!(a, b.as_bytes()),
            (Kind::Device { block: true, major: 8, minor: 1 }, EntryKind::Device { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_end_of_the_archive_is_demanded() {
    let body = [file("a", b"hello"), file("b", &[7; 600])].concat();
    assert_eq!(read(&ended(body.clone()), Ending::Demanded).unwrap().len(), 2);
    assert_eq!(read(&body, Ending::Open).unwrap().len(), 2);
    let truncated = |bytes: &[u8]| matches!(read(bytes, Ending::Demanded), Err(CodecError::Truncated { layer: Layer::Tar, .. }));
    // on an entry's border, within a header, within data, within padding, after one zero block
    assert!(truncated(&body));
    assert!(truncated(&body[..file("a", b"hello").len()]));
    assert!(truncated(&body[..100]));
    assert!(truncated(&body[..body.len() - 1000]));
    assert!(truncated(&body[..body.len() - 10]));
    assert!(truncated(&[body.clone(), vec![0; 512]].concat()));
    assert!(truncated(b""));
    // more zeros are padding; anything else is not
    assert!(read(&[ended(body.clone()), vec![0; 9000]].concat(), Ending::Demanded).is_ok());
    let trailing = [ended(body.clone()), vec![0; 700], vec![1]].concat();
    assert_eq!(read(&trailing, Ending::Demanded), Err(CodecError::Trailing { layer: Layer::Tar }));
    let lone = [body.clone(), vec![0; 512], body].concat();
    assert!(matches!(read(&lone, Ending::Demanded), Err(CodecError::Damaged { .. })));
}

#[test]
fn a_flipped_bit_in_a_header_is_noticed() {
    let good = ended(file("a", b"hello"));
    // what follows the checksum's own digits means nothing
    for at in (0..512).chain(1024..1536).filter(|at| !(154..156).contains(&(at % 512))) {
        let mut bad = good.clone();
        bad[at] ^= 4;
        assert!(read(&bad, Ending::Demanded).is_err(), "byte {at}");
    }
}

#[test]
fn types_that_are_nothing_to_restore_are_counted() {
    let retyped = |kind: u8| {
        let mut bytes = Vec::new();
        TarWriter::header(&mut bytes, &FileEntry { mtime_ns: 0, gid: 0, ..entry("v", EntryKind::File { size: 5, blake3: None }) });
        bytes[156] = kind;
        bytes[148..156].fill(b' ');
        let sum: u64 = bytes.iter().map(|&b| u64::from(b)).sum();
        bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes.extend_from_slice(b"label");
        TarWriter::padding(&mut bytes, 5);
        bytes
    };
    let bytes = ended([retyped(b'V'), retyped(b'Z'), file("a", b"x")].concat());
    let mut reader = TarReader::new(&bytes[..], Ending::Demanded);
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"a");
    assert!(reader.next_entry().unwrap().is_none());
    assert_eq!(reader.skipped().values().sum::<u64>(), 2);
    assert!(matches!(read(&ended(retyped(b'M')), Ending::Demanded), Err(CodecError::Unsupported { .. })));
}

#[test]
fn detection_knows_v7_and_the_archive_of_nothing() {
    let mut v7 = file("a", b"x");
    v7[257..265].fill(0);
    v7[148..156].fill(b' ');
    let sum: u64 = v7[..512].iter().map(|&b| u64::from(b)).sum();
    v7[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    assert!(begins_as_tar(&v7));
    assert!(begins_as_tar(&[0; 1024]));
    assert!(!begins_as_tar(&[b'x'; 1024]));
    assert!(!begins_as_tar(b"short"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), fix in any::<bool>(), kind in prop::sample::select(b"0xgLKS15DVM".to_vec())) {
        // with a right checksum the parser gets further
        if fix && bytes.len() >= 512 {
            bytes[156] = kind;
            bytes[124..136].copy_from_slice(b"00000000600\0");
            bytes[148..156].fill(b' ');
            let sum: u64 = bytes[..512].iter().map(|&b| u64::from(b)).sum();
            bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
        let _ = read(&bytes, Ending::Demanded);
    }

    #[test]
    fn damage_in_a_valid_archive_never_panics(at in 0usize..5000, value in any::<u8>()) {
        let long = "x".repeat(150);
        let mut bytes = ended([file("a", b"hello"), file(&format!("{long}/{long}"), &[1; 700])].concat());
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = read(&bytes, Ending::Demanded);
    }
}
