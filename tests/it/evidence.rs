//! Evidence, sealed and verified: by us, by others, and after harm. LIES 40, 46, 47.

use std::fs;
use std::path::{Path, PathBuf};

use crate::evidence::{Attestation, Refusal, Refused, SealedEvidence, Signer as _, TrustFile, names, seal_evidence, verify};
use crate::{domain, sample};
use tempfile::TempDir;

struct Sealed {
    home: TempDir,
    evidence: SealedEvidence,
}

impl Sealed {
    fn of(events: &[domain::DrillEvent]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let extra = vec![
            (names::REPORT_HTML.to_owned(), b"<!doctype html><title>drill</title>\n".to_vec()),
            (names::ANNEX.to_owned(), b"age-encryption.org/v1\n(not really)\n".to_vec()),
        ];
        let evidence = seal_evidence(&home.path().join("evidence"), events, sample::issuer(), &sample::signer(), extra).unwrap();
        Self { home, evidence }
    }
    fn store(&self) -> PathBuf {
        self.home.path().join("evidence")
    }
    fn file(&self, name: &str) -> PathBuf {
        self.evidence.directory.join(name)
    }
    fn verify(&self) -> Vec<Result<Attestation, Refused>> {
        verify(&[self.store()], &trust())
    }
    fn refusal(&self) -> Refusal {
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
