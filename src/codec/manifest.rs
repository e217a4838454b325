//! The manifest of a sealed set, format version 1: what the backup says it is. No name of a file in it.
//!
//! ```text
//! <prefix>/<id>/manifest.json          this, JSON
//! <prefix>/<id>/manifest.sig           SSHSIG over its exact bytes, namespace `firedrill-manifest`; absent when unsigned
//! <prefix>/<id>/index.jsonl.zst.age    what is in it, encrypted (see `index`)
//! <prefix>/<id>/data-00000.tar.zst.age parts: decrypted, decompressed and put one after the other they are one tar
//! ```
//!
//! The signature is checked over the bytes as they were stored; nothing is ever rebuilt to check it. A stranger checks it
//! with `ssh-keygen -Y verify -n firedrill-manifest -I producer -f allowed_signers -s manifest.sig < manifest.json`.

use serde::{Deserialize, Serialize};
use ssh_key::{HashAlg, PrivateKey, PublicKey, SshSig};

use crate::domain::{Blake3, Sha256, Timestamp};

/// Name of the manifest in its set.
pub const MANIFEST: &str = "manifest.json";
/// Name of the manifest's signature.
pub const SIGNATURE: &str = "manifest.sig";
/// Name of the index object.
pub const INDEX: &str = "index.jsonl.zst.age";
/// The signature's namespace.
pub const NAMESPACE: &str = "firedrill-manifest";
/// What `format` says.
pub const FORMAT: &str = "firedrill-sealed-set";
/// The version that we write.
pub const VERSION: u32 = 1;
/// A manifest larger than this is refused unread: 100,000 parts fit.
pub const MAX_BYTES: u64 = 32 << 20;

/// Name of part `number`.
pub fn part_name(number: u32) -> String {
    format!("data-{number:05}.tar.zst.age")
}

/// What a sealed set says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: String,
    /// Always [`VERSION`].
    pub version: u32,
    /// The set's id: the name of its directory.
    pub id: String,
    /// When the data was captured.
    pub captured_at: Timestamp,
    /// When the set was written.
    pub created_at: Timestamp,
    /// Who wrote it.
    pub producer: Producer,
    /// Public keys that it is encrypted to, as they were given.
    pub recipients: Vec<String>,
    /// Its objects: the index, then the parts in order.
    pub objects: Vec<SetObject>,
    /// What is in it, in numbers.
    pub totals: Totals,
    /// BLAKE3 over the index's entry lines in order, each with its line feed.
    pub root_blake3: Blake3,
    /// How the parts are compressed.
    pub compression: CompressionUsed,
}

/// Who wrote a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Producer {
    /// Name of host or job, as its administrator chose it.
    pub name: String,
    /// Program and version.
    pub software: String,
    /// Its public key in OpenSSH form, where the set is signed. Informs; trust comes from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

/// What an object is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The encrypted index.
    Index,
    /// A data part.
    Part,
}

impl Role {
    /// As findings and evidence write it.
    pub const fn word(self) -> &'static str {
        match self {
            Role::Index => "index",
            Role::Part => "part",
        }
    }
}

/// One object of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetObject {
    /// Its name in the set's directory.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Bytes.
    pub size: u64,
    /// BLAKE3 of the stored bytes.
    pub blake3: Blake3,
    /// SHA-256 of the stored bytes.
    pub sha256: Sha256,
}

/// A set in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// All entries.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of file content.
    pub bytes: u64,
}

/// How the parts are compressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompressionUsed {
    /// Always `zstd` in version 1.
    pub algorithm: String,
    /// Its level.
    pub level: i32,
}

/// Why a manifest cannot be used. The texts hold no content of it but numbers.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of this shape. The cause may quote a key or value: for people, not for evidence.
    #[error("the manifest is not valid JSON of this format (line {line}, column {column})")]
    Malformed {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// Another format.
    #[error("the manifest is of another format than `{FORMAT}`")]
    Format,
    /// A version that we do not read.
    #[error("the manifest has version {found}; this firedrill reads version {VERSION}")]
    Version {
        /// The version found.
        found: u64,
    },
    /// It contradicts itself.
    #[error("the manifest contradicts itself: {detail}")]
    Contradiction {
        /// In what.
        detail: &'static str,
    },
    /// Larger than any manifest needs to be.
    #[error("the manifest has {size} bytes, more than the {MAX_BYTES} that any needs")]
    TooLarge {
        /// Its size.
        size: u64,
    },
}

/// Whether `id` can name a set: 1 to 128 of letters, digits, `-`, `_`, `.`, `T`, `:`, and no leading dot or dash.
pub fn is_set_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !id.starts_with(['.', '-'])
}

impl Manifest {
    /// Reads a manifest and checks that it hangs together. Whether anybody vouches for it is [`verify_manifest`]'s question.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        /// The version comes first: a later format may have other keys, and should be told by its number.
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u64,
        }
        let size = bytes.len() as u64;
        if size > MAX_BYTES {
            return Err(ManifestError::TooLarge { size });
        }
        let malformed = |source: serde_json::Error| ManifestError::Malformed { line: source.line(), column: source.column(), source };
        let head: Head = serde_json::from_slice(bytes).map_err(malformed)?;
        if head.format != FORMAT {
            return Err(ManifestError::Format);
        }
        if head.version != u64::from(VERSION) {
            return Err(ManifestError::Version { found: head.version });
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(malformed)?;
        manifest.consistent().map_err(|detail| ManifestError::Contradiction { detail })?;
        Ok(manifest)
    }

    fn consistent(&self) -> Result<(), &'static str> {
        if !is_set_id(&self.id) {
            return Err("its id cannot name a set");
        }
        let Some((index, parts)) = self.objects.split_first() else { return Err("it lists no objects") };
        if index.role != Role::Index || index.name != INDEX {
            return Err("its first object is not the index");
        }
        if parts.is_empty() {
            return Err("it lists no data part");
        }
        for (number, part) in (0u32..).zip(parts) {
            if part.role != Role::Part || part.name != part_name(number) {
                return Err("its parts are not numbered in order");
            }
        }
        if self.recipients.is_empty() {
            return Err("it names no recipient");
        }
        if self.totals.files.checked_add(self.totals.directories).is_none_or(|n| n > self.totals.entries) {
            return Err("its totals do not add up");
        }
        if self.compression.algorithm != "zstd" {
            return Err("its parts are not compressed with zstd");
        }
        Ok(())
    }

    /// The index object.
    pub fn index(&self) -> &SetObject {
        &self.objects[0]
    }
    /// The data parts, in order.
    pub fn parts(&self) -> &[SetObject] {
        &self.objects[1..]
    }
    /// Bytes of all its objects.
    pub fn stored_bytes(&self) -> u64 {
        self.objects.iter().fold(0u64, |sum, o| sum.saturating_add(o.size))
    }
    /// The bytes to store and sign.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a manifest is plain data, which serde_json always writes");
        bytes.push(b'\n');
        bytes
    }
}

/// What a manifest's signature is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProducerTrust {
    /// Signed by a key that the scenario trusts.
    Trusted {
        /// The key's SHA-256 fingerprint, as `ssh-keygen -l` shows it.
        by: String,
    },
    /// Signed, and the signature is worth nothing here.
    Untrusted {
        /// Why.
        why: Distrust,
    },
    /// Not signed.
    Unsigned,
}

/// Why a signature is worth nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It is no SSH signature.
    #[error("the signature file is not an SSH signature")]
    Malformed,
    /// Made for another purpose.
    #[error("the signature was made for another purpose than `{NAMESPACE}`")]
    Namespace,
    /// By a key that nobody here trusts.
    #[error("it is signed by {fingerprint}, which is none of the {trusted} trusted producers")]
    UnknownKey {
        /// The key's fingerprint.
        fingerprint: String,
        /// How many producers are trusted.
        trusted: usize,
    },
    /// The manifest is not what was signed.
    #[error("the signature by {fingerprint} does not match the manifest's bytes")]
    Mismatch {
        /// The key's fingerprint.
        fingerprint: String,
    },
}

/// Checks a manifest's detached signature over its exact bytes, against keys that are trusted from outside.
pub fn verify_manifest(bytes: &[u8], signature: Option<&[u8]>, trusted: &[PublicKey]) -> ProducerTrust {
    let Some(signature) = signature else { return ProducerTrust::Unsigned };
    let untrusted = |why| ProducerTrust::Untrusted { why };
    let Ok(signature) = SshSig::from_pem(signature) else { return untrusted(Distrust::Malformed) };
    if signature.namespace() != NAMESPACE {
        return untrusted(Distrust::Namespace);
    }
    let fingerprint = signature.public_key().fingerprint(HashAlg::Sha256).to_string();
    let Some(key) = trusted.iter().find(|key| key.key_data() == signature.public_key()) else {
        return untrusted(Distrust::UnknownKey { fingerprint, trusted: trusted.len() });
    };
    match key.verify(NAMESPACE, bytes, &signature) {
        Ok(()) => ProducerTrust::Trusted { by: fingerprint },
        Err(_) => untrusted(Distrust::Mismatch { fingerprint }),
    }
}

/// Signs a manifest's bytes: the text of `manifest.sig`.
///
/// # Errors
/// [`ssh_key::Error`] where the key cannot sign, as when it is encrypted.
pub fn sign_manifest(bytes: &[u8], key: &PrivateKey) -> Result<String, ssh_key::Error> {
    key.sign(NAMESPACE, HashAlg::Sha512, bytes)?.to_pem(ssh_key::LineEnding::LF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ssh_key::private::{Ed25519Keypair, KeypairData};

    fn sample() -> Manifest {
        let object = |name: &str, role| SetObject { name: name.into(), role, size: 10, blake3: Blake3([1; 32]), sha256: Sha256([2; 32]) };
        Manifest {
            format: FORMAT.into(),
            version: VERSION,
            id: "2026-11-21T203000Z-1f".into(),
            captured_at: Timestamp::from_unix(1_700_000_000),
            created_at: Timestamp::from_unix(1_700_000_100),
            producer: Producer { name: "backup-host".into(), software: "firedrill 0.1.0".into(), public_key: None },
            recipients: vec!["age1x".into()],
            objects: vec![object(INDEX, Role::Index), object(&part_name(0), Role::Part)],
            totals: Totals { entries: 3, files: 2, directories: 1, bytes: 5 },
            root_blake3: Blake3([3; 32]),
            compression: CompressionUsed { algorithm: "zstd".into(), level: 3 },
        }
    }

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&[seed; 32])), "test").unwrap()
    }

    #[test]
    fn a_manifest_survives_its_bytes() {
        assert_eq!(Manifest::parse(&sample().to_bytes()).unwrap(), sample());
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused() {
        type Harm = fn(&mut Manifest);
        let harms: [Harm; 8] = [
            |m| m.id = "../x".into(),
            |m| m.objects.clear(),
            |m| m.objects.truncate(1),
            |m| m.objects.swap(0, 1),
            |m| m.objects[1].name = "../data".into(),
            |m| m.recipients.clear(),
            |m| m.totals.entries = 1,
            |m| m.compression.algorithm = "none".into(),
        ];
        for (number, harm) in harms.into_iter().enumerate() {
            let mut manifest = sample();
            harm(&mut manifest);
            let result = Manifest::parse(&manifest.to_bytes());
            assert!(matches!(result, Err(ManifestError::Contradiction { .. })), "harm {number}: {result:?}");
        }
        let mut later = sample();
        later.version = 2;
        assert!(matches!(Manifest::parse(&later.to_bytes()), Err(ManifestError::Version { found: 2 })));
        let unknown = String::from_utf8(sample().to_bytes()).unwrap().replacen("\"id\"", "\"colour\": 1, \"id\"", 1);
        assert!(matches!(Manifest::parse(unknown.as_bytes()), Err(ManifestError::Malformed { .. })));
        assert!(matches!(Manifest::parse(b"{}"), Err(ManifestError::Malformed { .. })));
    }

    #[test]
    fn only_a_trusted_key_over_these_very_bytes_counts() {
        let bytes = sample().to_bytes();
        let signature = sign_manifest(&bytes, &key(1)).unwrap();
        let trusted = [key(2).public_key().clone(), key(1).public_key().clone()];
        let trust = |bytes: &[u8], signature: &str, trusted| verify_manifest(bytes, Some(signature.as_bytes()), trusted);

        let by = key(1).public_key().fingerprint(HashAlg::Sha256).to_string();
        assert_eq!(trust(&bytes, &signature, &trusted), ProducerTrust::Trusted { by });
        assert_eq!(verify_manifest(&bytes, None, &trusted), ProducerTrust::Unsigned);
        assert!(matches!(
            trust(&bytes, &signature, &trusted[..1]),
            ProducerTrust::Untrusted { why: Distrust::UnknownKey { trusted: 1, .. } }
        ));
        let mut changed = bytes.clone();
        changed[20] ^= 1;
        assert!(matches!(trust(&changed, &signature, &trusted), ProducerTrust::Untrusted { why: Distrust::Mismatch { .. } }));
        assert_eq!(trust(&bytes, "nonsense", &trusted), ProducerTrust::Untrusted { why: Distrust::Malformed });
        let other = key(1).sign("file", HashAlg::Sha512, &bytes).unwrap().to_pem(ssh_key::LineEnding::LF).unwrap();
        assert_eq!(trust(&bytes, &other, &trusted), ProducerTrust::Untrusted { why: Distrust::Namespace });
    }
}
