//! What an auditor does with evidence: our binary, other people's programs, the documented commands, the schema.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::evidence::{EvidenceError, Signer as _, names, seal_evidence};
use crate::sealed::{Sealed, run};
use crate::{evidence, sample};

#[test]
fn ssh_keygen_verifies_the_sums() {
    let sealed = Sealed::of(&sample::failed());
    let allowed = sealed.home.path().join("allowed_signers");
    fs::write(&allowed, sample::signer().public().allowed_signers_line("runner@clinic", Some(sealed.evidence.report.started_at))).unwrap();
    let verify = |message: &Path| {
        Command::new("ssh-keygen")
            .args(["-Y", "verify", "-I", "runner@clinic", "-n", evidence::NAMESPACE, "-O", "verify-time=20261121210000Z", "-f"])
            .arg(&allowed)
            .arg("-s")
            .arg(sealed.file(names::SUMS_SIGNATURE))
            .stdin(fs::File::open(message).unwrap())
            .output()
            .unwrap()
    };
    let good = verify(&sealed.file(names::SUMS));
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    assert!(String::from_utf8_lossy(&good.stdout).contains(&sample::signer().public().fingerprint()));
    assert!(!verify(&sealed.file(names::REPORT)).status.success());
    run(Command::new("sha256sum").args(["--check", "--strict", "--quiet", names::SUMS]).current_dir(&sealed.evidence.directory));
}

#[test]
fn openssl_verifies_the_attestation() {
    let sealed = Sealed::of(&sample::passed());
    let envelope: evidence::Envelope = serde_json::from_slice(&fs::read(sealed.file(names::ATTESTATION)).unwrap()).unwrap();
    let decode = |text: &str| data_encoding::BASE64.decode(text.as_bytes()).unwrap();
    let (message, signature) = (sealed.home.path().join("pae"), sealed.home.path().join("sig"));
    let pae = evidence::pae(&envelope.payload_type, &decode(&envelope.payload));
    assert!(pae.len() < evidence::STATEMENT_LIMIT);
    fs::write(&message, pae).unwrap();
    fs::write(&signature, decode(&envelope.signatures[0].sig)).unwrap();
    let verify = || {
        let mut command = Command::new("openssl");
        command.args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"]).arg(sealed.file(names::SIGNER));
        command.arg("-in").arg(&message).arg("-sigfile").arg(&signature);
        command.output().unwrap().status.success()
    };
    assert!(verify());
    fs::write(&message, "DSSEv1 0  0 ").unwrap();
    assert!(!verify());
}

#[test]
fn keys_of_openssh_and_openssl_sign_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path("ssh")));
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "secret", "-f"]).arg(path("locked")));
    run(Command::new("ssh-keygen").args(["-q", "-t", "ecdsa", "-N", "", "-f"]).arg(path("ecdsa")));
    run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(path("pem")));
    run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:x", "-out"]).arg(path("pem-locked")));
    run(Command::new("openssl").args(["genpkey", "-algorithm", "x25519", "-out"]).arg(path("x25519")));
    let load = |name: &str| evidence::SignerKey::load(&path(name));
    let shown = run(Command::new("ssh-keygen").args(["-l", "-f"]).arg(path("ssh")));
    assert!(shown.contains(&load("ssh").unwrap().public().fingerprint()));
    let public = run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(path("pem")));
    assert_eq!(load("pem").unwrap().public().to_pem(), public);
    for locked in ["locked", "pem-locked"] {
        let error = load(locked).unwrap_err();
        assert!(matches!(error, EvidenceError::EncryptedKey { .. }) && error.to_string().contains("passphrase"));
    }
    for other in ["ecdsa", "x25519"] {
        assert!(matches!(load(other), Err(EvidenceError::NotAKey { .. })), "{other}");
    }
    // and ssh-keygen reads what we save
    sample::signer().save(&path("ours"), "runner@clinic").unwrap();
    assert!(run(Command::new("ssh-keygen").args(["-y", "-f"]).arg(path("ours"))).starts_with(&sample::signer().public().to_openssh()));
}

#[test]
fn an_independent_library_verifies_the_envelope() {
    let python = run(&mut Command::new("tests/servers/python-setup.sh"));
    let sealed = Sealed::of(&sample::failed());
    let verify = |key: &Path| {
        Command::new(python.trim())
            .arg("tests/servers/verify-envelope.py")
            .arg(sealed.file(names::ATTESTATION))
            .arg(key)
            .arg(sample::signer().public().fingerprint())
            .output()
            .unwrap()
    };
    let good = verify(&sealed.file(names::SIGNER));
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    assert_eq!(String::from_utf8_lossy(&good.stdout).trim(), "FAILED");
    let other = sealed.home.path().join("other.pem");
    fs::write(&other, evidence::SignerKey::generate().unwrap().public().to_pem()).unwrap();
    assert!(!verify(&other).status.success());
}

/// `FIREDRILL_BLESS=1 cargo test schema` writes the schema anew.
#[test]
fn the_published_schema_is_true_and_describes_real_reports() {
    let path = "docs/schema/report.v1.schema.json";
    let schema = evidence::report_schema();
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    if std::env::var_os("FIREDRILL_BLESS").is_some() {
        fs::write(path, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), text, "run with FIREDRILL_BLESS=1 to renew it");
    let validator = jsonschema::validator_for(&schema).unwrap();
    for events in [sample::passed(), sample::warned(), sample::failed(), sample::inconclusive()] {
        let json = sample::report(&events).to_json();
        let mut report: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let problems: Vec<String> = validator.iter_errors(&report).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(problems.is_empty(), "{problems:?}");
        report["verdict"] = "GREAT".into();
        assert!(!validator.is_valid(&report));
        report["verdict"] = "PASSED".into();
        report["surprise"] = 1.into();
        assert!(!validator.is_valid(&report));
    }
}

fn auditor(arguments: &[&str], paths: &[&Path]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_firedrill-verify")).args(arguments).args(paths).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_auditors_binary_says_what_it_found() {
    let sealed = Sealed::of(&sample::failed());
    let trusted = sealed.home.path().join("allowed_signers");
    fs::write(&trusted, sample::signer().public().allowed_signers_line("runner@clinic", None)).unwrap();
    let trust = trusted.to_str().unwrap();
    let (code, out, _) = auditor(&["--trust", trust], &[&sealed.store()]);
    assert_eq!(code, 0, "{out}");
    for said in [
        "TRUSTED  evidence of a FAILED drill",
        "runner@clinic",
        "SHA256:",
        "Electronic health records",
        "18201 matched",
        "18h achieved, 1d promised: met",
        "2 signatures",
    ] {
        assert!(out.contains(said), "{said}:\n{out}");
    }
    let (code, out, _) = auditor(&["--trust", trust, "--json"], &[&sealed.store()]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json[0]["trusted"], &json[0]["verdict"]), (0, &true.into(), &"FAILED".into()));

    let page = sealed.file(names::REPORT_HTML);
    let mut bytes = fs::read(&page).unwrap();
    bytes[3] ^= 1;
    fs::write(&page, bytes).unwrap();
    let (code, out, _) = auditor(&["--trust", trust], &[&sealed.store()]);
    assert_eq!(code, 1);
    assert!(out.contains("REFUSED") && out.contains("report.html was changed"), "{out}");

    let (code, _, err) = auditor(&[], &[&sealed.store()]);
    assert!(code == 2 && err.contains("--trust"), "{err}");
    let (code, _, err) = auditor(&["--trust", trust], &[]);
    assert_eq!(code, 2, "{err}");
    let (code, out, err) = auditor(&["--trust", "no/such/file"], &[&sealed.store()]);
    assert!(code == 2 && out.is_empty() && err.contains("nothing was verified"), "{err}");
}

/// The commands of `docs/evidence.md`, run as they stand there.
#[test]
fn the_documented_commands_check_the_evidence() {
    let guide = fs::read_to_string("docs/evidence.md").unwrap();
    let script = guide.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let sealed = Sealed::of(&sample::failed());
    let above = sealed.evidence.directory.parent().unwrap().join("allowed_signers");
    fs::write(&above, sample::signer().public().allowed_signers_line("runner@clinic", None)).unwrap();
    let check = || {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).env("NAME", "runner@clinic").current_dir(&sealed.evidence.directory);
        command.output().unwrap()
    };
    let good = check();
    let said = String::from_utf8_lossy(&good.stdout);
    assert!(good.status.success(), "{said}{}", String::from_utf8_lossy(&good.stderr));
    assert!(said.contains("Good \"firedrill-evidence\" signature") && said.contains("\"result\": \"FAILED\""), "{said}");
    fs::write(sealed.file(names::EVENTS), "{}\n").unwrap();
    assert!(!check().status.success());
}

#[test]
fn a_store_is_summed_up_and_one_bad_report_spoils_the_answer() {
    let home = tempfile::tempdir().unwrap();
    let store = home.path().join("evidence");
    let mut directories = Vec::new();
    for (number, mut events) in [sample::passed(), sample::failed(), sample::inconclusive()].into_iter().enumerate() {
        for event in &mut events {
            event.drill.0 = format!("0193505c-7a00-7c3e-9d4a-{number:012}");
        }
        directories.push(seal_evidence(&store, &events, sample::issuer(), &sample::signer(), vec![]).unwrap().directory);
    }
    let trusted = home.path().join("allowed_signers");
    fs::write(&trusted, sample::signer().public().allowed_signers_line("runner@clinic", None)).unwrap();
    let trust = trusted.to_str().unwrap();
    // hidden directories beside reports are the runner's own
    fs::create_dir(store.join(".journal")).unwrap();
    let (code, out, _) = auditor(&["--trust", trust], &[&store]);
    assert!(code == 0 && out.ends_with("3 trusted (1 passed, 1 failed, 1 inconclusive), 0 refused\n"), "{out}");
    fs::remove_file(directories[1].join(names::EVENTS)).unwrap();
    let (code, out, _) = auditor(&["--trust", trust], &[&store]);
    assert!(code == 1 && out.ends_with("2 trusted (1 passed, 0 failed, 1 inconclusive), 1 refused\n"), "{out}");
    assert!(out.contains("events.jsonl is missing"));
}

/// Made by the first version of the format, and never made anew: an auditor keeps evidence for six years (45 CFR
/// 164.316(b)(2)(i)).
#[test]
fn evidence_of_the_first_version_is_still_accepted() {
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/frozen/evidence-v1");
    let trust = frozen.join("allowed_signers");
    let (code, out, err) = auditor(&["--trust", trust.to_str().unwrap()], &[&frozen]);
    assert!(code == 0 && out.ends_with("3 trusted (1 passed, 1 failed, 1 inconclusive), 0 refused\n"), "{out}{err}");
}
