//! Signing keys: Ed25519, from an OpenSSH or PKCS#8 file, or made new.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use data_encoding::BASE64_NOPAD;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{LineEnding, PrivateKey};
use zeroize::Zeroizing;

use super::EvidenceError;
use crate::domain::Timestamp;

/// The SSHSIG namespace of our signatures: what else the key may sign cannot pass for evidence.
pub const NAMESPACE: &str = "firedrill-evidence";

/// How a signing key came to be, which decides what its signature is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyCustody {
    /// The operator configured it.
    Configured,
    /// Made for this drill and kept beside its evidence: good for trying out and for nothing else.
    MadeOnTheSpot,
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// From its 32 bytes; `None` where they are no point of the curve.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        VerifyingKey::from_bytes(bytes).ok().map(Self)
    }
    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
    /// As OpenSSH shows it: `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        let mut blob = Vec::with_capacity(51);
        for field in [b"ssh-ed25519".as_slice(), self.as_bytes()] {
            blob.extend_from_slice(&u32::try_from(field.len()).expect("32 at most").to_be_bytes());
            blob.extend_from_slice(field);
        }
        format!("SHA256:{}", BASE64_NOPAD.encode(&Sha256::digest(&blob)))
    }
    /// As OpenSSH writes it: `ssh-ed25519 AAAA…`.
    pub fn to_openssh(&self) -> String {
        ssh_key::PublicKey::new(self.key_data(), "").to_openssh().expect("an Ed25519 key has an OpenSSH form")
    }
    /// As SubjectPublicKeyInfo in PEM, for openssl and the like.
    pub fn to_pem(&self) -> String {
        self.0.to_public_key_pem(LineEnding::LF).expect("an Ed25519 key has an SPKI form")
    }
    /// A line for an OpenSSH `allowed_signers` file, newline included, that trusts this key for evidence only.
    pub fn allowed_signers_line(&self, principal: &str, valid_after: Option<Timestamp>) -> String {
        let after = valid_after.map_or(String::new(), |t| format!(",valid-after=\"{}\"", t.0.strftime("%Y%m%d%H%M%SZ")));
        format!("{principal} namespaces=\"{NAMESPACE}\"{after} {}\n", self.to_openssh())
    }
    /// Whether `signature` is this key's over `bytes`. Strict: no second encoding of a signature passes.
    pub fn verifies(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(bytes, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
    pub(super) fn key_data(&self) -> KeyData {
        KeyData::Ed25519(Ed25519PublicKey(*self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

/// Whoever signs evidence: a key in a file today, an agent or a key service tomorrow. It signs bytes, never values.
pub trait Signer {
    /// The public half.
    fn public(&self) -> PublicKey;
    /// A plain Ed25519 signature over `bytes`.
    ///
    /// # Errors
    /// [`EvidenceError::Signing`] where the signer cannot be reached or refuses.
    fn sign(&self, bytes: &[u8]) -> Result<[u8; 64], EvidenceError>;
}

/// A private key in memory. Wiped when dropped.
#[derive(Clone)]
pub struct SignerKey(SigningKey);

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerKey({})", self.public().fingerprint())
    }
}

impl Signer for SignerKey {
    fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }
    fn sign(&self, bytes: &[u8]) -> Result<[u8; 64], EvidenceError> {
        Ok(self.0.sign(bytes).to_bytes())
    }
}

impl SignerKey {
    /// From 32 bytes of good randomness.
    pub fn from_seed(seed: &Zeroizing<[u8; 32]>) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// A new key, from the system's randomness.
    ///
    /// # Errors
    /// [`EvidenceError::Read`] where the system gives none.
    pub fn generate() -> Result<Self, EvidenceError> {
        use std::io::Read as _;
        let path = Path::new("/dev/urandom");
        let mut seed = Zeroizing::new([0; 32]);
        std::fs::File::open(path).and_then(|mut file| file.read_exact(seed.as_mut_slice())).map_err(EvidenceError::read(path))?;
        Ok(Self::from_seed(&seed))
    }

    /// Reads an OpenSSH private key or a PKCS#8 PEM, neither encrypted.
    ///
    /// # Errors
    /// [`EvidenceError::Read`], [`EvidenceError::EncryptedKey`], [`EvidenceError::NotAKey`].
    pub fn load(path: &Path) -> Result<Self, EvidenceError> {
        let text = Zeroizing::new(std::fs::read(path).map_err(EvidenceError::read(path))?);
        Self::parse(&text).map_err(|problem| match problem {
            KeyProblem::Encrypted => EvidenceError::EncryptedKey { path: path.to_owned() },
            KeyProblem::NotAKey(reason) => EvidenceError::NotAKey { path: path.to_owned(), reason },
        })
    }

    fn parse(text: &[u8]) -> Result<Self, KeyProblem> {
        let not = |reason: &str| KeyProblem::NotAKey(reason.to_owned());
        let text = std::str::from_utf8(text).map_err(|_| not("the file is not text"))?.trim();
        if text.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----") {
            let key = PrivateKey::from_openssh(text).map_err(|e| KeyProblem::NotAKey(format!("unreadable OpenSSH key: {e}")))?;
            if key.is_encrypted() {
                return Err(KeyProblem::Encrypted);
            }
            let pair = key.key_data().ed25519().ok_or_else(|| not("an OpenSSH key, but not Ed25519"))?;
            let seed = Zeroizing::new(pair.private.to_bytes());
            return Ok(Self::from_seed(&seed));
        }
        if text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            return Err(KeyProblem::Encrypted);
        }
        if text.starts_with("-----BEGIN PRIVATE KEY-----") {
            return SigningKey::from_pkcs8_pem(text).map(Self).map_err(|_| not("a PKCS#8 key, but not Ed25519 or not readable"));
        }
        if text.starts_with("ssh-ed25519 ") || text.starts_with("-----BEGIN PUBLIC KEY-----") {
            return Err(not("a public key: signing needs its private half"));
        }
        Err(not("neither an OpenSSH nor a PKCS#8 private key"))
    }

    /// Saves the private key (OpenSSH form, readable by its owner alone) at `path`, the public one at `path` + `.pub`
    /// and, for openssl, at `path` + `.pub.pem`. Overwrites nothing.
    ///
    /// # Errors
    /// [`EvidenceError::Exists`], [`EvidenceError::Write`].
    pub fn save(&self, path: &Path, comment: &str) -> Result<(), EvidenceError> {
        let public = self.public();
        let files = [
            (with_suffix(path, ".pub"), Zeroizing::new(format!("{} {comment}\n", public.to_openssh())), 0o644),
            (with_suffix(path, ".pub.pem"), Zeroizing::new(public.to_pem()), 0o644),
            (path.to_owned(), self.to_openssh(comment)?, 0o600),
        ];
        for (path, _, _) in &files {
            if path.symlink_metadata().is_ok() {
                return Err(EvidenceError::Exists { path: path.clone() });
            }
        }
        for (path, text, mode) in &files {
            create_new(path, text.as_bytes(), *mode)?;
        }
        Ok(())
    }

    fn to_openssh(&self, comment: &str) -> Result<Zeroizing<String>, EvidenceError> {
        let pair = Ed25519Keypair::from_seed(self.0.as_bytes());
        PrivateKey::new(KeypairData::Ed25519(pair), comment)
            .and_then(|key| key.to_openssh(LineEnding::LF))
            .map_err(|e| EvidenceError::encode("a private key")(e.into()))
    }
}

enum KeyProblem {
    Encrypted,
    NotAKey(String),
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn create_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), EvidenceError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(path).map_err(EvidenceError::write(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(EvidenceError::write(path))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use super::*;

    fn key() -> SignerKey {
        SignerKey::from_seed(&Zeroizing::new([7; 32]))
    }

    #[test]
    fn a_key_is_saved_for_its_owner_alone_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runner.key");
        key().save(&path, "runner@clinic").unwrap();
        assert_eq!(SignerKey::load(&path).unwrap().public(), key().public());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(matches!(key().save(&path, "again"), Err(EvidenceError::Exists { .. })));
        assert!(matches!(SignerKey::load(&with_suffix(&path, ".pub")), Err(EvidenceError::NotAKey { .. })));
        assert!(matches!(SignerKey::load(&dir.path().join("none")), Err(EvidenceError::Read { .. })));
    }

    #[test]
    fn made_keys_differ() {
        assert_ne!(SignerKey::generate().unwrap().public(), SignerKey::generate().unwrap().public());
    }

    #[test]
    fn what_is_no_usable_key_says_why() {
        let problem = |text: &str| match SignerKey::parse(text.as_bytes()) {
            Ok(_) => "ok".to_owned(),
            Err(KeyProblem::Encrypted) => "encrypted".to_owned(),
            Err(KeyProblem::NotAKey(reason)) => reason,
        };
        assert_eq!(problem("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----"), "encrypted");
        assert!(problem("hello").contains("neither"));
        assert!(problem("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----").contains("unreadable"));
    }

    #[test]
    fn nothing_of_the_secret_is_in_debug() {
        assert_eq!(format!("{:?}", key()), format!("SignerKey({})", key().public().fingerprint()));
    }
}
