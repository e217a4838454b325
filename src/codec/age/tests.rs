//! The `age` crate's own reader is the reference: the same bytes, or an error on both sides.

use std::io::{Cursor, Read, Write};

use age::secrecy::ExposeSecret;

use super::*;
use crate::codec::age::{Identities, open, read_header};
use crate::codec::{Fault, fault};

struct Pair {
    identity: age::x25519::Identity,
    identities: Identities,
}

fn pair() -> Pair {
    let identity = age::x25519::Identity::generate();
    let mut identities = Identities::default();
    identities.add(identity.to_string().expose_secret()).unwrap();
    Pair { identity, identities }
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn by_the_crate(pair: &Pair, sealed: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let reader = age::Decryptor::new_buffered(sealed).ok()?.decrypt(std::iter::once(&pair.identity as &dyn age::Identity));
    reader.ok()?.read_to_end(&mut plain).ok()?;
    Some(plain)
}

fn ours(pair: &Pair, sealed: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut plain = Vec::new();
    match open(sealed, &pair.identities).and_then(|mut reader| reader.read_to_end(&mut plain)) {
        Ok(_) => Ok(plain),
        Err(error) => match fault(error) {
            Fault::Bytes(error) => Err(error),
            Fault::Source(error) => panic!("memory does not fail: {error}"),
        },
    }
}

/// The same through `BufRead`, and through reads as large as a pipeline's.
fn ours_otherwise(pair: &Pair, sealed: &[u8]) -> [Option<Vec<u8>>; 2] {
    let buffered = || -> std::io::Result<Vec<u8>> {
        let mut reader = open(sealed, &pair.identities)?;
        let mut plain = Vec::new();
        loop {
            let available = reader.fill_buf()?;
            if available.is_empty() {
                return Ok(plain);
            }
            let n = available.len().min(1000);
            plain.extend_from_slice(&available[..n]);
            reader.consume(n);
        }
    };
    let large = || -> std::io::Result<Vec<u8>> {
        let mut reader = open(sealed, &pair.identities)?;
        let mut plain = Vec::new();
        let mut buffer = vec![0; 3 * CHUNK + 5];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(plain),
                n => plain.extend_from_slice(&buffer[..n]),
            }
        }
    };
    [buffered().ok(), large().ok()]
}

fn seal_ours(pair: &Pair, plain: &[u8]) -> Vec<u8> {
    let recipients = Recipients::parse(&[pair.identity.to_public().to_string()]).unwrap();
    let mut writer = AgeWriter::new(Vec::new(), &recipients).unwrap();
    for piece in plain.chunks(10_007) {
        writer.write_all(piece).unwrap();
    }
    writer.finish().unwrap()
}

fn seal_by_the_crate(pair: &Pair, plain: &[u8]) -> Vec<u8> {
    let recipient = pair.identity.to_public();
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient)).unwrap();
    let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

const LENGTHS: [usize; 8] = [0, 1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 17];

#[test]
fn what_either_side_writes_both_sides_read() {
    let pair = pair();
    for length in LENGTHS {
        let plain = noise(length);
        for sealed in [seal_ours(&pair, &plain), seal_by_the_crate(&pair, &plain)] {
            assert_eq!(by_the_crate(&pair, &sealed).as_ref(), Some(&plain), "{length}");
            assert_eq!(ours(&pair, &sealed).as_ref(), Ok(&plain), "{length}");
            assert_eq!(ours_otherwise(&pair, &sealed), [Some(plain.clone()), Some(plain.clone())], "{length}");
        }
    }
}

#[test]
fn damaged_files_get_the_answer_of_the_age_crate() {
    let pair = pair();
    let mut compared = 0;
    for length in LENGTHS {
        let sealed = seal_by_the_crate(&pair, &noise(length));
        let start = read_header(&mut &sealed[..]).unwrap().length() as usize;
        let mut corpus: Vec<Vec<u8>> = Vec::new();
        // cut at every border and beside it
        let mut cuts: Vec<usize> =
            vec![0, 1, 10, 21, 22, 30, start - 17, start - 16, start - 1, start, start + 1, start + 15, start + 16, start + 17];
        for chunk in 1..=4 {
            let border = start + chunk * SEALED_CHUNK;
            cuts.extend([border - 17, border - 16, border - 1, border, border + 1, border + 15, border + 16, border + 17]);
        }
        cuts.extend([sealed.len() - 1, sealed.len() - 16, sealed.len() - 17]);
        corpus.extend(cuts.into_iter().filter(|&cut| cut < sealed.len()).map(|cut| sealed[..cut].to_vec()));
        // flip in header, nonce, chunks, tags
        for at in (0..start + 40).chain([start + SEALED_CHUNK - 1, start + SEALED_CHUNK, sealed.len() - 17, sealed.len() - 1]) {
            if at < sealed.len() {
                let mut flipped = sealed.clone();
                flipped[at] ^= 1;
                corpus.push(flipped);
            }
        }
        // append
        for more in [1, 15, 16, 17, SEALED_CHUNK] {
            let mut longer = sealed.clone();
            longer.extend(noise(more));
            corpus.push(longer);
        }
        // swap two chunks, drop one, repeat one
        if length > 2 * CHUNK {
            let chunk = |n: usize| &sealed[start + n * SEALED_CHUNK..(start + (n + 1) * SEALED_CHUNK).min(sealed.len())];
            for order in [[1, 0, 2, 3], [0, 2, 3, 3], [0, 0, 1, 2]] {
                let mut shuffled = sealed[..start].to_vec();
                order.iter().for_each(|&n| shuffled.extend_from_slice(chunk(n)));
                corpus.push(shuffled);
            }
        }
        for bytes in corpus {
            let (reference, answer) = (by_the_crate(&pair, &bytes), ours(&pair, &bytes));
            assert_eq!(reference, answer.clone().ok(), "length {length}, {} bytes: {answer:?}", bytes.len());
            assert_eq!(ours_otherwise(&pair, &bytes), [reference.clone(), reference], "length {length}, {} bytes", bytes.len());
            compared += 1;
        }
    }
    assert!(compared > 1000, "the corpus shrank to {compared}");
}

/// A payload whose last chunk is empty although it is not the first: forbidden by the specification.
#[test]
fn an_empty_last_chunk_is_refused_where_it_is_not_the_only_one() {
    let pair = pair();
    let recipients = Recipients::parse(&[pair.identity.to_public().to_string()]).unwrap();
    let mut writer = AgeWriter::new(Vec::new(), &recipients).unwrap();
    writer.write_all(&noise(CHUNK)).unwrap();
    writer.flush_chunk(false).unwrap();
    let sealed = writer.finish().unwrap();
    assert_eq!(by_the_crate(&pair, &sealed), None);
    assert_eq!(ours(&pair, &sealed), Err(CodecError::ChunkDamaged { chunk: 1 }));
}

#[test]
fn each_damage_has_its_name() {
    let pair = pair();
    let sealed = seal_ours(&pair, &noise(2 * CHUNK + 100));
    let start = read_header(&mut &sealed[..]).unwrap().length() as usize;
    let truncated = |answer: Result<Vec<u8>, CodecError>| matches!(answer, Err(CodecError::Truncated { layer: Layer::Age, .. }));
    assert!(truncated(ours(&pair, &sealed[..start + SEALED_CHUNK])));
    assert!(truncated(ours(&pair, &sealed[..start + 2 * SEALED_CHUNK])));
    assert!(truncated(ours(&pair, &sealed[..sealed.len() - 1])));
    assert!(truncated(ours(&pair, &sealed[..start])));
    assert!(truncated(ours(&pair, &sealed[..10])));
    assert!(truncated(ours(&pair, &sealed[..100])));
    let mut flipped = sealed.clone();
    flipped[start + SEALED_CHUNK + 5] ^= 0x80;
    assert_eq!(ours(&pair, &flipped), Err(CodecError::ChunkDamaged { chunk: 1 }));
    let exact = seal_ours(&pair, &noise(CHUNK));
    assert_eq!(ours(&pair, &[exact, vec![1, 2, 3]].concat()), Err(CodecError::Trailing { layer: Layer::Age }));
    assert_eq!(ours(&pair, b"hello, world\n"), Err(CodecError::NotAge));
    assert_eq!(ours(&pair, b""), Err(CodecError::Empty { layer: Layer::Age }));
    assert_eq!(ours(&pair, b"age-encryption.org/v9\nx"), Err(CodecError::UnknownAgeVersion));
}

#[test]
fn another_key_and_a_passphrase_are_told_apart() {
    let (alice, bob) = (pair(), pair());
    let sealed = seal_by_the_crate(&alice, b"x");
    assert_eq!(ours(&bob, &sealed), Err(CodecError::NoMatchingRecipient { identities: 1, found: vec!["X25519".to_owned()] }));
    let mut scrypt = age::scrypt::Recipient::new(age::secrecy::SecretString::from("swordfish".to_owned()));
    scrypt.set_work_factor(2);
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&scrypt as &dyn age::Recipient)).unwrap();
    let mut writer = encryptor.wrap_output(Vec::new()).unwrap();
    writer.write_all(b"x").unwrap();
    assert_eq!(ours(&alice, &writer.finish().unwrap()), Err(CodecError::PassphraseEncrypted));
}

#[test]
fn the_sources_own_error_comes_through() {
    struct Broken<'a>(&'a [u8]);
    impl Read for Broken<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(buf)? {
                0 => Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset")),
                n => Ok(n),
            }
        }
    }
    let pair = pair();
    let sealed = seal_ours(&pair, &noise(2 * CHUNK));
    for cut in [5, 100, 400, CHUNK, sealed.len() - 1] {
        let input = std::io::BufReader::new(Broken(&sealed[..cut]));
        let result = open(input, &pair.identities).and_then(|mut r| r.read_to_end(&mut Vec::new()));
        let Err(error) = result else { panic!("cut at {cut} was accepted") };
        assert!(matches!(fault(error), Fault::Source(e) if e.kind() == std::io::ErrorKind::ConnectionReset), "{cut}");
    }
}

fn stretch(mut reader: SegmentReader<'_, &[u8]>) -> std::io::Result<Vec<u8>> {
    let (mut got, mut chunk) = (Vec::new(), vec![0; CHUNK]);
    loop {
        match reader.next_into(&mut chunk)? {
            0 => return Ok(got),
            n => got.extend_from_slice(&chunk[..n]),
        }
    }
}

#[test]
fn any_stretch_of_a_payload_can_be_read_alone() {
    let pair = pair();
    let plain = noise(3 * CHUNK + 100);
    let sealed = seal_ours(&pair, &plain);
    let header = read_header(&mut Cursor::new(&sealed)).unwrap();
    let body = &sealed[header.length() as usize..];
    let payload = header.open(&pair.identities).unwrap();
    for (offset, length) in
        [(0, 10), (0, plain.len()), (CHUNK - 5, 10), (CHUNK, CHUNK), (2 * CHUNK + 7, CHUNK + 93), (plain.len() - 1, 1), (5, 0)]
    {
        let from = &body[(offset / CHUNK) * SEALED_CHUNK..];
        let got = stretch(SegmentReader::new(from, &payload, body.len() as u64, offset as u64, length as u64)).unwrap();
        assert_eq!(got, plain[offset..offset + length], "{offset}+{length}");
    }
    let past = SegmentReader::new(&body[3 * SEALED_CHUNK..], &payload, body.len() as u64, 3 * CHUNK as u64, 101);
    assert!(stretch(past).is_err());
}
