//! Evidence, sealed, harmed and refused. LIES 40, 46, 47. How others check it is in `auditor.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::evidence::{Attestation, EvidenceError, Refusal, Refused, SealedEvidence, Signer as _, TrustFile, names, seal_evidence, verify};
use crate::{domain, evidence, sample};

pub struct Sealed {
    pub home: TempDir,
    pub evidence: SealedEvidence,
}

impl Sealed {
    pub fn of(events: &[domain::DrillEvent]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let extra = vec![
            (names::REPORT_HTML.to_owned(), b"<!doctype html><title>drill</title>\n".to_vec()),
            (names::ANNEX.to_owned(), b"age-encryption.org/v1\n(not really)\n".to_vec()),
        ];
        let evidence = seal_evidence(&home.path().join("evidence"), events, sample::issuer(), &sample::signer(), extra).unwrap();
        Self { home, evidence }
    }
    pub fn store(&self) -> PathBuf {
        self.home.path().join("evidence")
    }
    pub fn file(&self, name: &str) -> PathBuf {
        self.evidence.directory.join(name)
    }
    pub fn verify(&self) -> Vec<Result<Attestation, Refused>> {
        verify(&[self.store()], &trust())
    }
    pub fn refusal(&self) -> Refusal {
        let mut results = self.verify();
        assert_eq!(results.len(), 1);
        results.remove(0).expect_err("this must be refused").why
    }
}

fn trust() -> TrustFile {
    TrustFile::parse(&sample::signer().public().allowed_signers_line("runner@clinic", None)).unwrap()
}

fn file_names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn sealed_evidence_is_trusted_whatever_the_verdict() {
    for events in [sample::passed(), sample::warned(), sample::failed(), sample::inconclusive()] {
        let sealed = Sealed::of(&events);
        assert_eq!(sealed.evidence.directory, sealed.store().join("2026").join(&events[0].drill.0));
        let results = sealed.verify();
        let attestation = results[0].as_ref().unwrap();
        assert_eq!(attestation.report(), &sealed.evidence.report);
        assert_eq!(attestation.events(), events);
        assert_eq!(attestation.principals(), "runner@clinic");
    }
}

/// LIES 40: any byte, in any file.
#[test]
fn one_changed_byte_anywhere_is_refused() {
    let sealed = Sealed::of(&sample::failed());
    for name in file_names(&sealed.evidence.directory) {
        let path = sealed.file(&name);
        let good = fs::read(&path).unwrap();
        // every byte of small files, a stride that shifts in large ones
        let stride = (good.len() / 400).max(1);
        for at in (0..good.len()).step_by(stride).chain([good.len() - 1]) {
            let mut hurt = good.clone();
            hurt[at] ^= if at % 2 == 0 { 0x01 } else { 0x20 };
            fs::write(&path, &hurt).unwrap();
            assert!(sealed.verify()[0].is_err(), "{name}: byte {at} of {} changed unnoticed", good.len());
        }
        for hurt in [&good[..good.len() - 1], &[good.as_slice(), b"\n"].concat(), &[good.as_slice(), b" "].concat(), b""] {
            fs::write(&path, hurt).unwrap();
            assert!(sealed.verify()[0].is_err(), "{name}: another length unnoticed");
        }
        fs::write(&path, &good).unwrap();
    }
    assert!(sealed.verify()[0].is_ok());
}

#[test]
fn what_is_missing_added_or_swapped_is_named() {
    let missing = |name: &str| Refusal::Missing { file: name.into() };
    for name in [names::REPORT, names::EVENTS, names::CHECKS, names::REPORT_HTML, names::ANNEX, names::SIGNER, names::ATTESTATION] {
        let sealed = Sealed::of(&sample::passed());
        fs::remove_file(sealed.file(name)).unwrap();
        assert_eq!(sealed.refusal(), missing(name));
    }
    for name in [names::SUMS, names::SUMS_SIGNATURE] {
        let sealed = Sealed::of(&sample::passed());
        fs::remove_file(sealed.file(name)).unwrap();
        assert_eq!(sealed.refusal(), missing(name));
    }
    let sealed = Sealed::of(&sample::passed());
    fs::write(sealed.file("notes.txt"), "all good").unwrap();
    assert_eq!(sealed.refusal(), Refusal::Unlisted { file: "notes.txt".into() });
    fs::remove_file(sealed.file("notes.txt")).unwrap();
    fs::write(sealed.file(".hidden"), "").unwrap();
    assert_eq!(sealed.refusal(), Refusal::Unlisted { file: ".hidden".into() });
    fs::remove_file(sealed.file(".hidden")).unwrap();
    fs::create_dir(sealed.file("more")).unwrap();
    assert_eq!(sealed.refusal(), Refusal::Unlisted { file: "more".into() });
    fs::remove_dir(sealed.file("more")).unwrap();
    #[cfg(unix)]
    {
        fs::rename(sealed.file(names::REPORT), sealed.store().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(sealed.store().join("elsewhere"), sealed.file(names::REPORT)).unwrap();
        assert_eq!(sealed.refusal(), Refusal::Unlisted { file: names::REPORT.into() });
        fs::remove_file(sealed.file(names::REPORT)).unwrap();
        fs::rename(sealed.store().join("elsewhere"), sealed.file(names::REPORT)).unwrap();
    }
    fs::write(sealed.file(names::REPORT_HTML), "<title>PASSED</title>").unwrap();
    assert_eq!(sealed.refusal(), Refusal::Digest { file: names::REPORT_HTML.into() });
}

/// Files of one sealed drill under the list and signature of another of the same key.
#[test]
fn files_of_two_drills_do_not_mix() {
    let (good, bad) = (Sealed::of(&sample::passed()), Sealed::of(&sample::failed()));
    for name in [names::REPORT, names::EVENTS, names::ATTESTATION, names::CHECKS] {
        let own = fs::read(bad.file(name)).unwrap();
        fs::copy(good.file(name), bad.file(name)).unwrap();
        assert_eq!(bad.refusal(), Refusal::Digest { file: name.into() });
        fs::write(bad.file(name), own).unwrap();
    }
    fs::copy(good.file(names::SUMS_SIGNATURE), bad.file(names::SUMS_SIGNATURE)).unwrap();
    assert_eq!(bad.refusal(), Refusal::Signature { file: names::SUMS_SIGNATURE.into() });
}

/// A signer that would vouch for anything: its evidence is refused for what it says, not for who says it.
#[test]
fn a_signed_lie_is_still_refused() {
    let lie = |harm: &dyn Fn(&mut serde_json::Value), file: &str| {
        let sealed = Sealed::of(&sample::failed());
        let mut value: serde_json::Value = serde_json::from_slice(&fs::read(sealed.file(file)).unwrap()).unwrap();
        harm(&mut value);
        fs::write(sealed.file(file), serde_json::to_vec_pretty(&value).unwrap()).unwrap();
        sign_again(&sealed);
        sealed.refusal()
    };
    let prettier = |v: &mut serde_json::Value| v["verdict"] = "PASSED".into();
    assert_eq!(lie(&prettier, names::REPORT), Refusal::Contradiction { what: "verdict".into() });
    let nothing_found = |v: &mut serde_json::Value| v["findings"] = serde_json::json!([]);
    assert_eq!(lie(&nothing_found, names::REPORT), Refusal::Contradiction { what: "findings".into() });
    let faster = |v: &mut serde_json::Value| v["measurements"]["recovery"]["measured"] = 1.into();
    assert_eq!(lie(&faster, names::REPORT), Refusal::Contradiction { what: "measurements".into() });
    let newer = |v: &mut serde_json::Value| v["schema"] = "firedrill.dev/report/v9".into();
    assert!(matches!(lie(&newer, names::REPORT), Refusal::Malformed { .. }));
    let more = |v: &mut serde_json::Value| v["approved"] = true.into();
    assert!(matches!(lie(&more, names::REPORT), Refusal::Malformed { .. }));
    let somebody = |v: &mut serde_json::Value| v["issuer"]["key"] = "SHA256:somebody".into();
    assert_eq!(lie(&somebody, names::REPORT), Refusal::Contradiction { what: "the signing key".into() });

    // an event list that leaves out the failed check
    let sealed = Sealed::of(&sample::failed());
    let events = fs::read_to_string(sealed.file(names::EVENTS)).unwrap();
    let fewer: String = events.lines().filter(|l| !l.contains("check_ended")).map(|l| format!("{l}\n")).collect();
    fs::write(sealed.file(names::EVENTS), fewer).unwrap();
    sign_again(&sealed);
    assert!(matches!(sealed.refusal(), Refusal::Events { .. }));

    // an attestation over another drill's files
    let (sealed, other) = (Sealed::of(&sample::failed()), Sealed::of(&sample::passed()));
    fs::copy(other.file(names::ATTESTATION), sealed.file(names::ATTESTATION)).unwrap();
    sign_again(&sealed);
    assert!(matches!(sealed.refusal(), Refusal::Digest { .. }));
}

/// The same for files that the report is not made of, and for the statement itself.
#[test]
fn a_signed_statement_that_does_not_fit_is_refused() {
    let harmed = |harm: &dyn Fn(&mut serde_json::Value)| {
        let sealed = Sealed::of(&sample::failed());
        attest_again(&sealed, harm, evidence::PAYLOAD_TYPE);
        sign_again(&sealed);
        sealed.refusal()
    };
    let says = |refusal: Refusal| match refusal {
        Refusal::Statement { what } => what,
        other => panic!("{other}"),
    };
    assert!(says(harmed(&|s| s["predicate"]["result"] = "PASSED".into())).contains("result"));
    assert!(says(harmed(&|s| s["predicate"]["failedTests"] = serde_json::json!(["conclusive"]))).contains("came to a result"));
    assert!(says(harmed(&|s| s["predicate"]["configuration"][0]["digest"]["sha256"] = "00".repeat(32).into())).contains("scenario"));
    assert!(says(harmed(&|s| s["subject"][0]["digest"]["sha256"] = "00".repeat(32).into())).contains("objects of the backup"));
    assert!(says(harmed(&|s| drop(s["subject"].as_array_mut().unwrap().remove(0)))).contains("objects of the backup"));
    assert!(says(harmed(&|s| drop(s["subject"].as_array_mut().unwrap().pop()))).contains("files of the evidence"));
    assert!(says(harmed(&|s| s["predicateType"] = "https://example.org/else".into())).contains("not a test result"));
    let last = |s: &mut serde_json::Value| {
        let last = s["subject"].as_array_mut().unwrap().last_mut().unwrap();
        last["digest"]["blake3"] = "00".repeat(32).into();
    };
    assert!(matches!(harmed(&last), Refusal::Digest { .. }), "blake3 counts too");

    let sealed = Sealed::of(&sample::failed());
    attest_again(&sealed, &|_| {}, "text/plain");
    sign_again(&sealed);
    assert!(matches!(sealed.refusal(), Refusal::Malformed { file, .. } if file == names::ATTESTATION), "the type is signed and counts");

    let replaced = |file: &str, bytes: &[u8]| {
        let sealed = Sealed::of(&sample::failed());
        fs::write(sealed.file(file), bytes).unwrap();
        sign_again(&sealed);
        sealed.refusal()
    };
    let other = evidence::SignerKey::generate().unwrap().public().to_pem();
    assert!(matches!(replaced(names::SIGNER, other.as_bytes()), Refusal::Malformed { file, .. } if file == names::SIGNER));
    assert_eq!(replaced(names::CHECKS, b""), Refusal::Contradiction { what: names::CHECKS.into() });
    assert_eq!(replaced(names::REPORT_HTML, b"<p>PASSED"), Refusal::Digest { file: names::REPORT_HTML.into() });
    assert!(matches!(replaced("later.txt", b"x"), Refusal::Statement { .. }), "listed, and not attested");
}

/// Signs another statement over the same directory.
fn attest_again(sealed: &Sealed, harm: &dyn Fn(&mut serde_json::Value), payload_type: &str) {
    use data_encoding::BASE64;
    let path = sealed.file(names::ATTESTATION);
    let mut envelope: evidence::Envelope = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut statement = serde_json::from_slice(&BASE64.decode(envelope.payload.as_bytes()).unwrap()).unwrap();
    harm(&mut statement);
    let payload = serde_json::to_vec(&statement).unwrap();
    let signature = sample::signer().sign(&evidence::pae(payload_type, &payload)).unwrap();
    envelope.payload_type = payload_type.to_owned();
    envelope.payload = BASE64.encode(&payload);
    envelope.signatures[0].sig = BASE64.encode(&signature);
    fs::write(&path, serde_json::to_string_pretty(&envelope).unwrap() + "\n").unwrap();
}

/// Lists and signs what lies in the directory, with the true key.
fn sign_again(sealed: &Sealed) {
    let dir = &sealed.evidence.directory;
    let listed: Vec<String> = file_names(dir).into_iter().filter(|n| n != names::SUMS && n != names::SUMS_SIGNATURE).collect();
    let contents: Vec<(String, Vec<u8>)> = listed.into_iter().map(|n| (n.clone(), fs::read(dir.join(n)).unwrap())).collect();
    let sums = evidence::Sums::of(contents.iter().map(|(n, b)| (n.as_str(), b.as_slice()))).unwrap().to_text();
    let key = sealed.home.path().join("key");
    if !key.exists() {
        sample::signer().save(&key, "runner@clinic").unwrap();
    }
    fs::write(dir.join(names::SUMS), sums).unwrap();
    let _ = fs::remove_file(dir.join(names::SUMS_SIGNATURE));
    // by OpenSSH itself: our verifier reads what others write
    run(Command::new("ssh-keygen").args(["-q", "-Y", "sign", "-n", evidence::NAMESPACE, "-f"]).arg(&key).arg(dir.join(names::SUMS)));
}

pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// LIES 47: never trusted, expired, not yet valid, revoked, for another purpose; each says which.
#[test]
fn a_key_that_does_not_count_is_refused_and_said_why() {
    let sealed = Sealed::of(&sample::passed());
    let key = sample::signer().public().to_openssh();
    let why = |trust: &TrustFile| match verify(&[sealed.store()], trust).remove(0) {
        Ok(_) => "trusted".to_owned(),
        Err(refused) => refused.why.to_string(),
    };
    let says = |line: &str| why(&TrustFile::parse(&line.replace("KEY", &key)).unwrap());
    assert!(says("").contains("not in the trust file"));
    // whom nobody trusts is not even read: the key comes before the content
    let page = fs::read(sealed.file(names::REPORT_HTML)).unwrap();
    fs::write(sealed.file(names::REPORT_HTML), "changed").unwrap();
    assert!(says("").contains("not in the trust file"));
    assert!(says("a KEY").contains("was changed"));
    fs::write(sealed.file(names::REPORT_HTML), page).unwrap();
    assert!(says(&evidence::SignerKey::generate().unwrap().public().allowed_signers_line("x", None)).contains("not in the trust file"));
    assert!(says("a valid-before=\"20261121200000Z\" KEY").contains("expired on 2026-11-21"));
    assert!(says("a valid-after=\"20261122Z\" KEY").contains("valid from 2026-11-22"));
    assert!(says("a namespaces=\"git\" KEY").contains("other namespaces"));
    assert_eq!(says("a valid-after=\"20261121Z\",valid-before=\"20261122Z\" KEY"), "trusted");
    let list = sealed.home.path().join("revoked");
    fs::write(&list, &key).unwrap();
    assert!(why(&trust().with_revoked(&list).unwrap()).contains("revoked"));
}

#[test]
fn a_signature_for_another_purpose_is_no_evidence() {
    let sealed = Sealed::of(&sample::passed());
    let key = sealed.home.path().join("key");
    sample::signer().save(&key, "runner@clinic").unwrap();
    fs::remove_file(sealed.file(names::SUMS_SIGNATURE)).unwrap();
    run(Command::new("ssh-keygen").args(["-q", "-Y", "sign", "-n", "file", "-f"]).arg(&key).arg(sealed.file(names::SUMS)));
    assert_eq!(sealed.refusal(), Refusal::Namespace { found: "file".into() });
}

#[test]
fn nothing_there_is_never_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: &Path| {
        let results = verify(&[path.to_owned()], &trust());
        assert!(!results.is_empty() && results.iter().all(Result::is_err), "{results:?}");
    };
    refused(dir.path());
    refused(&dir.path().join("none"));
    fs::create_dir_all(dir.path().join("2026")).unwrap();
    refused(dir.path());
    // a report emptied beside one that is whole
    let sealed = Sealed::of(&sample::passed());
    fs::create_dir(sealed.store().join("2026/0193505c-0000-7000-8000-000000000000")).unwrap();
    let results = sealed.verify();
    assert_eq!((results.len(), results.iter().filter(|r| r.is_ok()).count()), (2, 1));
    // a file of a report stands for its directory
    assert!(verify(&[sealed.file(names::REPORT_HTML)], &trust())[0].is_ok());
}

#[test]
fn a_drill_is_sealed_once_and_whole() {
    let sealed = Sealed::of(&sample::passed());
    let again = seal_evidence(&sealed.store(), &sample::passed(), sample::issuer(), &sample::signer(), vec![]);
    assert!(matches!(again, Err(EvidenceError::Exists { .. })));
    let bad_name = vec![("../out".to_owned(), vec![])];
    let dir = tempfile::tempdir().unwrap();
    let refused = seal_evidence(dir.path(), &sample::passed(), sample::issuer(), &sample::signer(), bad_name);
    assert!(matches!(refused, Err(EvidenceError::FileName { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let unwritable = seal_evidence(&file, &sample::passed(), sample::issuer(), &sample::signer(), vec![]);
    assert!(matches!(unwritable, Err(EvidenceError::Write { .. })));
}

/// LIES 46: names go in as pseudonyms, and nothing of them comes out in any file.
#[test]
fn a_patients_name_is_in_no_file_of_the_evidence() {
    let name = "Smith_John_MRI.dcm";
    let pseudonymizer = evidence::Pseudonymizer::new([5; 32]);
    let mut annex = evidence::Annex::new(domain::DrillId("d".into()));
    annex.note(&pseudonymizer.path(name.as_bytes()), name.as_bytes());
    annex.note(&pseudonymizer.object(name), name.as_bytes());
    let mut events = sample::failed();
    for event in &mut events {
        match &mut event.kind {
            domain::DrillEventKind::ChainRecorded { chain, .. } => chain.objects[0].object = pseudonymizer.object(name),
            domain::DrillEventKind::CheckEnded { report } => {
                for finding in &mut report.findings {
                    if let domain::FindingKind::TreeDiffers { examples, .. } = &mut finding.kind {
                        *examples = vec![pseudonymizer.path(name.as_bytes())];
                    }
                }
            }
            _ => {}
        }
    }
    let report = evidence::Report::from_events(&events, sample::issuer()).unwrap();
    let page = vec![(names::REPORT_HTML.to_owned(), firedrill::report::html(&report))];
    let dir = tempfile::tempdir().unwrap();
    let sealed = seal_evidence(dir.path(), &events, sample::issuer(), &sample::signer(), page).unwrap();
    let mut seen = 0;
    for file in file_names(&sealed.directory) {
        let text = fs::read(sealed.directory.join(&file)).unwrap();
        let text = String::from_utf8_lossy(&text).to_lowercase();
        assert!(!text.contains("smith") && !text.contains("john_mri"), "{file}");
        seen += usize::from(text.contains(&pseudonymizer.path(name.as_bytes()).0));
    }
    assert!(seen >= 3, "the pseudonym is in report, events and checks");
    assert!(String::from_utf8_lossy(&annex.to_json()).contains(name), "and the annex resolves it");
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever a trust file holds, it is read or refused, and trusts nobody it does not name.
        #[test]
        fn no_trust_file_breaks_the_reader(text in "([a-z@\",=! *]|namespaces=|valid-before=|2026|Z|ssh-ed25519 |AAAAC3NzaC1lZDI1NTE5AAAA|\n){0,40}") {
            if let Ok(trust) = TrustFile::parse(&text) {
                let now = domain::Timestamp::from_unix(1_800_000_000);
                prop_assert!(trust.judge(&sample::signer().public(), now).is_err());
            }
        }

        /// Any stretch of any file, overwritten with anything else.
        #[test]
        fn no_overwritten_stretch_goes_unnoticed(pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), with in prop::collection::vec(any::<u8>(), 1..40)) {
            let sealed = Sealed::of(&sample::passed());
            let all = file_names(&sealed.evidence.directory);
            let path = sealed.file(pick.get(&all[..]).as_str());
            let good = fs::read(&path).unwrap();
            let mut hurt = good.clone();
            let at = at.index(hurt.len());
            let end = (at + with.len()).min(hurt.len());
            hurt.splice(at..end, with);
            prop_assume!(hurt != good);
            fs::write(&path, &hurt).unwrap();
            prop_assert!(sealed.verify()[0].is_err());
        }

        /// Names of objects never collide across kinds or keys, and never show what they stand for.
        #[test]
        fn pseudonyms_hide_names(name in "[A-Za-z]{5,20}", key in any::<[u8; 32]>()) {
            let pseudonymizer = evidence::Pseudonymizer::new(key);
            let (object, path) = (pseudonymizer.object(&name), pseudonymizer.path(name.as_bytes()));
            prop_assert!(!object.0.contains(&name) && !path.0.contains(&name));
            prop_assert_ne!(&object.0["object-".len()..], &path.0["path-".len()..]);
        }
    }
}
