//! A ledger of many entries: appending, verifying all of it, proving one entry; see `benches/README.md`.
//!
//! ```text
//! cargo bench --bench ledger -- [ENTRIES]
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a driver for measurements")]

use std::time::Instant;

use firedrill::domain::Timestamp;
use firedrill::evidence::ledger::{EntryKind, Ledger, MissedReason, Proof, examine};
use firedrill::evidence::{Signer as _, SignerKey, TrustFile};

fn main() {
    let entries = std::env::args().skip(1).find_map(|arg| arg.parse::<u64>().ok()).unwrap_or(100_000);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let key = SignerKey::generate().unwrap();
    let trust = TrustFile::parse(&key.public().allowed_signers_line("bench", None)).unwrap();
    let ledger = Ledger::new(&path, "clinic.example/firedrill", "bench on a host").unwrap();
    let kind = |n: u64| EntryKind::Missed {
        scenario: format!("scenario-{n}").parse().unwrap(),
        due: Timestamp::from_unix(1_790_000_000 + n.cast_signed()),
        reason: MissedReason::Superseded,
    };
    ledger.append(Timestamp::from_unix(1_790_000_000), &key, &trust, (1..entries).map(kind).collect()).unwrap();
    let bytes = std::fs::metadata(path.join("entries.jsonl")).unwrap().len();
    println!("{entries} entries, {:.1} MB", bytes as f64 / 1e6);
    let timed = |what: &str, times: u32, work: &mut dyn FnMut(u32)| {
        let begin = Instant::now();
        (0..times).for_each(&mut *work);
        println!("{what:<44} {:>10.3} ms", begin.elapsed().as_secs_f64() * 1e3 / f64::from(times));
    };
    timed("verify every entry", 3, &mut |_| drop(examine(&path, &trust, &[]).unwrap()));
    timed("append one entry, synced and signed", 100, &mut |n| {
        drop(ledger.append(Timestamp::from_unix(1_790_000_000), &key, &trust, vec![kind(u64::from(n))]).unwrap());
    });
    let index = |n: u32| u64::from(n) * 7_919 % entries;
    timed("prove one entry", 100, &mut |n| drop(ledger.prove(&trust, index(n)).unwrap()));
    let proof = ledger.prove(&trust, entries / 2).unwrap();
    timed("verify one proof", 100, &mut |_| drop(Proof::open(proof.as_bytes(), &trust).unwrap()));
}
