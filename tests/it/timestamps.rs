//! Timestamps of a real authority, believed and not believed.

use std::fs;

use firedrill::archive::timestamp::{request, seen_at};
use firedrill::domain::Timestamp;

use crate::authority::Authority;

const DATA: &[u8] = b"a checkpoint\n";
const NONCE: [u8; 8] = [200, 1, 2, 3, 4, 5, 6, 7];

/// Every kind of key and digest that authorities sign with.
#[test]
fn what_openssl_signs_is_believed_here_and_by_openssl() {
    for (key, digest) in [
        ("ec -pkeyopt ec_paramgen_curve:P-256", "sha256"),
        ("ec -pkeyopt ec_paramgen_curve:P-256", "sha512"),
        ("ec -pkeyopt ec_paramgen_curve:P-384", "sha384"),
        ("rsa -pkeyopt rsa_keygen_bits:2048", "sha256"),
        ("rsa -pkeyopt rsa_keygen_bits:3072", "sha512"),
    ] {
        let authority = Authority::with(key, digest);
        let ca = fs::read(authority.ca()).unwrap();
        let asked = request(DATA, NONCE);
        let before = jiff::Timestamp::now().as_second();
        let answer = authority.answer(&asked);
        let seen = seen_at(&answer, DATA, Some(&asked), &ca).unwrap_or_else(|why| panic!("{key} {digest}: {why}"));
        assert!((before..=jiff::Timestamp::now().as_second()).contains(&seen.0.as_second()), "{key} {digest}: {seen}");
        assert_eq!(seen_at(&answer, DATA, None, &ca), Ok(seen), "later, when nobody knows the request any more");
        let place = tempfile::tempdir().unwrap();
        let (data, token) = (place.path().join("data"), place.path().join("token"));
        fs::write(&data, DATA).unwrap();
        fs::write(&token, &answer).unwrap();
        assert!(authority.openssl_believes(&token, &data), "{key} {digest}");
    }
}

#[test]
fn what_is_no_timestamp_of_these_bytes_by_that_authority_is_not_believed() {
    let (authority, other) = (Authority::new(), Authority::new());
    let ca = fs::read(authority.ca()).unwrap();
    let asked = request(DATA, NONCE);
    let answer = authority.answer(&asked);
    let refused = |answer: &[u8], data: &[u8], asked: Option<&[u8]>, ca: &[u8]| seen_at(answer, data, asked, ca).unwrap_err();
    assert_eq!(refused(&answer, b"another checkpoint\n", None, &ca), "it is a timestamp of something else");
    assert_eq!(refused(&answer, DATA, Some(&request(DATA, [9; 8])), &ca), "it is the answer to another request");
    assert!(refused(&other.answer(&asked), DATA, None, &ca).contains("leads to none that is trusted"));
    assert!(refused(&answer, DATA, None, &fs::read(other.ca()).unwrap()).contains("leads to none that is trusted"));
    assert!(refused(&answer, DATA, None, b"").contains("leads to none that is trusted"), "nobody is trusted");
    assert!(refused(b"<html>", DATA, None, &ca).contains("no answer to a timestamp request"));
    assert!(refused(&answer[..answer.len() - 1], DATA, None, &ca).contains("no answer to a timestamp request"));
    // a digest that the authority does not take
    let sha1: Vec<u8> = replaced(&asked, &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1], &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3]);
    assert_eq!(refused(&authority.answer(&sha1), DATA, None, &ca), "the authority refused: status 2");
    // signed by a web server's certificate of the same CA
    let web = authority.answer_signed_for_web(&asked);
    assert_eq!(refused(&web, DATA, None, &ca), "its certificate is for something else than timestamps");
}

/// Whatever single byte is changed: the answer is refused, or says what it said before.
#[test]
fn no_byte_of_a_token_can_be_changed_to_say_something_else() {
    let authority = Authority::new();
    let ca = fs::read(authority.ca()).unwrap();
    let answer = authority.answer(&request(DATA, NONCE));
    let seen: Timestamp = seen_at(&answer, DATA, None, &ca).unwrap();
    let mut refused = 0;
    for byte in 0..answer.len() {
        for bit in [1, 0x80] {
            let mut hurt = answer.clone();
            hurt[byte] ^= bit;
            match seen_at(&hurt, DATA, None, &ca) {
                Ok(found) => assert_eq!(found, seen, "byte {byte}"),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > answer.len() * 2 * 9 / 10, "{refused} of {}", answer.len() * 2);
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}
