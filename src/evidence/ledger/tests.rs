//! The ledger against what is done to ledgers.

#![allow(clippy::unwrap_used, reason = "these are tests, whatever features they are built with")]

use std::fs;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::*;
use crate::domain::{DrillEventKind, DrillId, Plan, Sha256, Timestamp, Verdict};
use crate::evidence::{Distrust, Signer as _, SignerKey, TrustFile, sample};

const ORIGIN: &str = "clinic.example/firedrill";

fn key(seed: u8) -> SignerKey {
    SignerKey::from_seed(&Zeroizing::new([seed; 32]))
}

fn trust(seeds: &[u8]) -> TrustFile {
    let lines: String = seeds.iter().map(|seed| key(*seed).public().allowed_signers_line("runner", None)).collect();
    TrustFile::parse(&lines).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_unix(1_790_000_000 + second)
}

fn plan() -> Box<Plan> {
    match sample::started() {
        DrillEventKind::Started { plan, .. } => plan,
        _ => unreachable!(),
    }
}

fn started(drill: u64) -> EntryKind {
    EntryKind::DrillStarted { drill: DrillId(format!("drill-{drill}")), plan: plan() }
}

fn finished(drill: u64, verdict: Verdict) -> EntryKind {
    EntryKind::DrillFinished { drill: DrillId(format!("drill-{drill}")), verdict, sums_sha256: Sha256([7; 32]) }
}

/// A ledger in a directory of its own, signed with key 1.
struct Fixture {
    _directory: tempfile::TempDir,
    path: PathBuf,
    ledger: Ledger,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let ledger = Ledger::new(&path, ORIGIN, "operator on drill-1").unwrap();
        Self { _directory: directory, path, ledger }
    }

    /// With `drills` drills, each started and ended: the second failed.
    fn with(drills: u64) -> Self {
        let fixture = Self::new();
        for drill in 0..drills {
            fixture.enter(drill.cast_signed() * 10, started(drill));
            let verdict = if drill == 1 { Verdict::Failed } else { Verdict::Passed };
            fixture.enter(drill.cast_signed() * 10 + 5, finished(drill, verdict));
        }
        fixture
    }

    fn enter(&self, second: i64, kind: EntryKind) -> Entry {
        self.ledger.append(at(second), &key(1), &trust(&[1]), vec![kind]).unwrap().remove(0)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(self.file(names::ENTRIES)).unwrap().lines().map(str::to_owned).collect()
    }

    fn set_lines(&self, lines: &[String]) {
        fs::write(self.file(names::ENTRIES), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    fn anchor(&self) -> Anchor {
        Anchor { name: "the copy in the safe".into(), bytes: fs::read(self.file(names::CHECKPOINT)).unwrap(), seen_at: None }
    }

    fn examine(&self, anchors: &[Anchor]) -> Result<Examined, LedgerRefusal> {
        examine(&self.path, &trust(&[1]), anchors)
    }

    #[track_caller]
    fn refused(&self, anchors: &[Anchor]) -> LedgerRefusal {
        self.examine(anchors).unwrap_err()
    }
}

#[test]
fn what_is_entered_is_there_signed_and_in_order() {
    let fixture = Fixture::with(3);
    assert_eq!(fixture.enter(40, started(9)).index, 7, "the opening is the first");
    let examined = fixture.examine(&[fixture.anchor()]).unwrap();
    assert_eq!((examined.checkpoint.size, examined.checkpoint.origin.as_str()), (8, ORIGIN));
    assert_eq!((examined.principals.as_str(), examined.span), ("runner", Some((at(0), at(40)))));
    assert_eq!(examined.drills[&DrillId("drill-1".into())].finished.as_ref().unwrap().2, Verdict::Failed);
    assert!(matches!(examined.remarks.as_slice(), [LedgerRemark::NoEnd { .. }]), "{:?}", examined.remarks);
    let kinds: Vec<Entry> = fixture.ledger.entries(&trust(&[1]), 6).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!((kinds.len(), kinds[0].index, &kinds[1].entry), (2, 6, &started(9)));
}

/// Lies 41 and 42: whatever is done to the log without the key is seen, from the log alone or from a checkpoint kept elsewhere.
#[test]
fn tampering_is_detected() {
    type Damage = (&'static str, fn(&Fixture), fn(&LedgerRefusal) -> bool);
    let damages: [Damage; 10] = [
        (
            "an entry dropped",
            |f| f.set_lines(&[&f.lines()[..3], &f.lines()[5..]].concat()),
            |r| matches!(r, LedgerRefusal::Shortened { .. }),
        ),
        ("the last entry dropped", |f| f.set_lines(&f.lines()[..6]), |r| matches!(r, LedgerRefusal::Shortened { .. })),
        (
            "two entries swapped",
            |f| {
                let mut lines = f.lines();
                lines.swap(3, 4);
                f.set_lines(&lines)
            },
            |r| matches!(r, LedgerRefusal::Root { .. }),
        ),
        (
            "a verdict changed",
            |f| f.set_lines(&f.lines().iter().map(|l| l.replace("FAILED", "PASSED")).collect::<Vec<_>>()),
            |r| matches!(r, LedgerRefusal::Root { .. }),
        ),
        (
            "an entry replaced by another one",
            |f| {
                let mut lines = f.lines();
                lines[4] = lines[6].replace("\"index\":6", "\"index\":4");
                f.set_lines(&lines)
            },
            |r| matches!(r, LedgerRefusal::Root { .. }),
        ),
        (
            "the size rewritten to fit",
            |f| {
                f.set_lines(&f.lines()[..5]);
                let text = fs::read_to_string(f.file(names::CHECKPOINT)).unwrap().replacen("\n7\n", "\n5\n", 1);
                fs::write(f.file(names::CHECKPOINT), text).unwrap();
            },
            |r| matches!(r, LedgerRefusal::Signature { .. }),
        ),
        (
            "signed again by a key that nobody trusts",
            |f| {
                fs::remove_dir_all(&f.path).unwrap();
                f.ledger.append(at(0), &key(2), &trust(&[2]), vec![started(0), finished(0, Verdict::Passed)]).unwrap();
            },
            |r| matches!(r, LedgerRefusal::Unsigned { .. }),
        ),
        ("the checkpoint deleted", |f| fs::remove_file(f.file(names::CHECKPOINT)).unwrap(), |r| matches!(r, LedgerRefusal::NothingHere)),
        ("the entries deleted", |f| fs::remove_file(f.file(names::ENTRIES)).unwrap(), |r| matches!(r, LedgerRefusal::Unreadable { .. })),
        (
            "bytes added to an entry",
            |f| f.set_lines(&f.lines().iter().map(|l| format!("{l} ")).collect::<Vec<_>>()),
            |r| matches!(r, LedgerRefusal::Root { .. }),
        ),
    ];
    for (what, damage, expected) in damages {
        let fixture = Fixture::with(3);
        fixture.examine(&[]).unwrap();
        damage(&fixture);
        let refusal = fixture.refused(&[]);
        assert!(expected(&refusal), "{what}: {refusal:?}");
        // nothing is entered upon what does not hold, and what is there stays as it was found
        let entries = || fs::read(fixture.file(names::ENTRIES)).ok();
        let before = entries();
        if fixture.ledger.append(at(99), &key(1), &trust(&[1]), vec![started(9)]).is_err() {
            assert_eq!(entries().filter(|found| !found.is_empty()), before, "{what}");
        } else {
            assert!(
                ["two entries swapped", "a verdict changed", "an entry replaced by another one"].contains(&what),
                "{what}: entered upon it"
            );
            assert_eq!(fixture.refused(&[]), LedgerRefusal::Root { what: "the checkpoint".into(), covered: 8 }, "{what}");
        }
    }
}

/// Whoever has the key can write another log; only what was carried elsewhere tells.
#[test]
fn an_anchor_tells_a_log_that_was_shortened_forked_or_replaced_with_the_key() {
    let fixture = Fixture::with(3);
    let anchor = fixture.anchor();
    let rewrite = |lines: &[EntryKind], origin: &str| {
        fs::remove_dir_all(&fixture.path).unwrap();
        let ledger = Ledger::new(&fixture.path, origin, "operator on drill-1").unwrap();
        ledger.append(at(0), &key(1), &trust(&[1]), lines.to_vec()).unwrap();
        fixture.examine(&[]).expect("alone it looks whole");
        fixture.refused(std::slice::from_ref(&anchor))
    };
    let shorter = rewrite(&[started(0), finished(0, Verdict::Passed)], ORIGIN);
    assert_eq!(shorter, LedgerRefusal::Shortened { what: anchor.name.clone(), covered: 7, found: 3 });
    let drills: Vec<EntryKind> = (0..5).flat_map(|drill| [started(drill), finished(drill, Verdict::Passed)]).collect();
    assert!(matches!(rewrite(&drills, ORIGIN), LedgerRefusal::Root { covered: 7, .. }), "the failed drill became a passed one");
    assert!(matches!(rewrite(&drills, "clinic.example/other"), LedgerRefusal::OtherLog { .. }));
    let honest = Fixture::with(3);
    let kept = honest.anchor();
    honest.enter(60, started(8));
    assert_eq!(honest.examine(&[kept]).unwrap().anchors, 1, "an older checkpoint of the same log agrees");
    let forged = Anchor { name: "a forged one".into(), bytes: b"clinic.example/firedrill\n0\nAAAA\n\n".to_vec(), seen_at: None };
    assert!(matches!(honest.refused(&[forged]), LedgerRefusal::NoCheckpoint { .. }));
}

/// A log that was written anew and carried away again is whole; what it says of its own times is not what others saw.
#[test]
fn times_that_are_far_from_when_others_saw_them_are_told() {
    let fixture = Fixture::with(3);
    let seen = |seconds: i64| {
        let anchor = Anchor { seen_at: Some(at(seconds)), ..fixture.anchor() };
        fixture.examine(&[anchor]).unwrap().remarks
    };
    let said = fixture.examine(&[]).unwrap().span.unwrap().1;
    let day = 86_400;
    let of = |seconds: i64| seen(seconds + said.seconds_since(at(0)));
    assert!(of(day).is_empty() && of(-day).is_empty(), "carried away within a day");
    for far in [3 * day, -3 * day] {
        let [LedgerRemark::SeenAtAnotherTime { covered: 7, said: told, .. }] = of(far)[..] else { panic!("{far}: {:?}", of(far)) };
        assert_eq!(told, said);
    }
}

#[test]
fn a_log_that_makes_no_sense_is_refused_though_it_is_signed() {
    let refused = |entries: Vec<EntryKind>| {
        let fixture = Fixture::new();
        fixture.ledger.append(at(0), &key(1), &trust(&[1]), entries).unwrap();
        fixture.refused(&[]).to_string()
    };
    let twice = vec![started(0), finished(0, Verdict::Failed), finished(0, Verdict::Passed)];
    assert_eq!(refused(twice), "entry 3: its drill has ended before");
    assert_eq!(refused(vec![finished(0, Verdict::Passed)]), "entry 1: its drill was never started");
    assert_eq!(refused(vec![started(0), started(0)]), "entry 2: its drill was started before");
    assert_eq!(refused(vec![EntryKind::Opened { origin: ORIGIN.into() }]), "entry 1: a log of this origin does not begin here");
}

/// However a crash leaves the files: what was committed is there, and nothing else is.
#[test]
fn what_a_crash_left_is_rolled_back() {
    type Crash = fn(&Fixture);
    let crashes: [(&str, Crash); 5] = [
        ("half a line", |f| append(&f.file(names::ENTRIES), b"{\"index\":7,\"at\"")),
        ("a line without its checkpoint", |f| append(&f.file(names::ENTRIES), b"{\"index\":7}\n")),
        ("hashes without their checkpoint", |f| append(&f.file(names::TREE), &[9; 40])),
        ("no tree", |f| fs::remove_file(f.file(names::TREE)).unwrap()),
        ("a tree of something else", |f| fs::write(f.file(names::TREE), [3; 5_000]).unwrap()),
    ];
    for (what, crash) in crashes {
        let fixture = Fixture::with(3);
        let (before, kept) = (fixture.lines(), fixture.anchor());
        crash(&fixture);
        assert_eq!(fixture.enter(70, started(7)).index, 7, "{what}");
        assert_eq!(fixture.lines()[..7], before, "{what}");
        let examined = fixture.examine(&[kept]).unwrap();
        assert_eq!(examined.checkpoint.size, 8, "{what}");
        fixture.enter(71, finished(7, Verdict::Passed));
        fixture.examine(&[]).unwrap();
    }
    // between the first checkpoint, of nothing, and the first entry
    let fixture = Fixture::with(0);
    fixture.enter(0, started(0));
    let fresh = Fixture::new();
    let _ = fresh.ledger.append(at(0), &key(1), &trust(&[1]), vec![]).unwrap();
    assert_eq!(fresh.examine(&[]).unwrap().checkpoint.size, 1, "the opening alone");
}

fn append(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn another_key_goes_on_where_it_is_trusted_and_says_so() {
    let fixture = Fixture::with(1);
    let refused = fixture.ledger.append(at(50), &key(2), &trust(&[2]), vec![started(5)]).unwrap_err();
    assert!(matches!(refused, LedgerError::Refused { why: LedgerRefusal::Unsigned { .. }, .. }), "{refused:?}");
    let entered = fixture.ledger.append(at(50), &key(2), &trust(&[1, 2]), vec![started(5)]).unwrap();
    assert_eq!(entered[0].index, 4, "after the change of keys");
    let changed: Vec<Entry> = fixture.ledger.entries(&trust(&[2]), 3).unwrap().collect::<Result<_, _>>().unwrap();
    let (from, to) = (key(1).public().fingerprint(), key(2).public().fingerprint());
    assert_eq!(changed[0].entry, EntryKind::KeyChanged { from, to });
    examine(&fixture.path, &trust(&[2]), &[]).unwrap();
    let expired = TrustFile::parse(&format!("runner valid-before=\"20200101\" {}\n", key(2).public().to_openssh())).unwrap();
    assert!(matches!(examine(&fixture.path, &expired, &[]), Err(LedgerRefusal::Distrusted(Distrust::Expired { .. }))));
}

#[test]
fn a_proof_is_good_alone_and_for_nothing_else() {
    let fixture = Fixture::with(4);
    for index in 0..9 {
        let proof = fixture.ledger.prove(&trust(&[1]), index).unwrap();
        let read = Proof::open(proof.as_bytes(), &trust(&[1])).unwrap();
        assert_eq!((read.entry.index, read.checkpoint.size), (index, 9));
        assert!(matches!(Proof::open(proof.as_bytes(), &trust(&[2])), Err(LedgerRefusal::Unsigned { .. })));
        for byte in (0..proof.as_bytes().len()).step_by(7) {
            let mut hurt = proof.as_bytes().to_vec();
            hurt[byte] ^= 1;
            assert!(Proof::open(&hurt, &trust(&[1])).is_err(), "byte {byte} of proof {index} changed unnoticed");
        }
    }
    assert!(fixture.ledger.prove(&trust(&[1]), 9).is_err());
}

#[test]
fn an_origin_is_a_name_without_spaces() {
    assert!(origin_problem(ORIGIN).is_none());
    for bad in ["", "two words", "a+b", "line\nbreak", &"x".repeat(201)] {
        assert!(Ledger::new("x", bad, "me").is_err(), "{bad:?}");
    }
}

#[test]
fn two_processes_enter_one_after_the_other() {
    let fixture = Fixture::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let fixture = &fixture;
            scope.spawn(move || (0..10).for_each(|drill| drop(fixture.enter(0, started(thread * 100 + drill)))));
        }
    });
    assert_eq!(fixture.examine(&[]).unwrap().drills.len(), 40);
}
