//! Pseudonyms: names that say nothing, and the list that resolves them for those who may know.

use std::fmt;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::domain::{DrillId, Pseudonym};

/// Makes [`Pseudonym`]s with a key that stays with the operator: equal names get equal pseudonyms from one drill to the
/// next, and nobody without the key can try names out.
#[derive(Clone)]
pub struct Pseudonymizer {
    key: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Pseudonymizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pseudonymizer(…)")
    }
}

impl Pseudonymizer {
    /// With this key.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key: Zeroizing::new(key) }
    }
    /// For an object's key in the store.
    pub fn object(&self, key: &str) -> Pseudonym {
        self.of("object", key.as_bytes())
    }
    /// For a path in the restored tree.
    pub fn path(&self, path: &[u8]) -> Pseudonym {
        self.of("path", path)
    }
    /// For what a tool printed.
    pub fn output(&self, words: &[u8]) -> Pseudonym {
        self.of("output", words)
    }
    /// For a restored record: its file, where it is in it, and its id.
    pub fn record(&self, record: &[u8]) -> Pseudonym {
        self.of("record", record)
    }
    /// For a recovery point's id.
    pub fn point(&self, id: &str) -> Pseudonym {
        self.of("point", id.as_bytes())
    }
    /// For a name of the restored system, as a table's.
    pub fn name(&self, name: &str) -> Pseudonym {
        self.of("name", name.as_bytes())
    }
    /// For a value of restored data.
    pub fn value(&self, value: &str) -> Pseudonym {
        self.of("value", value.as_bytes())
    }
    /// For a digest of a definition or of rows: nobody without the key can try definitions or rows out on it.
    pub fn digest(&self, digest: &str) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(b"firedrill digest v1\0").update(digest.as_bytes());
        HEXLOWER.encode(&hasher.finalize().as_bytes()[..16])
    }

    /// The kind is hashed with the name, so that a path and an object of one name cannot be linked.
    fn of(&self, kind: &str, name: &[u8]) -> Pseudonym {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(b"firedrill pseudonym v1\0").update(kind.as_bytes()).update(b"\0").update(name);
        Pseudonym(format!("{kind}-{}", HEXLOWER.encode(&hasher.finalize().as_bytes()[..8])))
    }
}

/// What stands behind pseudonyms of one drill. May be patients' data: it leaves the runner only encrypted, as `annex.age`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annex {
    /// `firedrill.dev/annex/v1`.
    pub schema: String,
    /// Of which drill.
    pub drill: DrillId,
    /// Pseudonyms and what they stand for, in the order of the pseudonyms.
    pub entries: Vec<AnnexEntry>,
}

/// One pseudonym and what it stands for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnnexEntry {
    /// The pseudonym.
    pub pseudonym: Pseudonym,
    /// What it stands for, where that is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it stands for in standard base64, where it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

impl fmt::Debug for Annex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Annex({} entries)", self.entries.len())
    }
}

impl fmt::Debug for AnnexEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnnexEntry({})", self.pseudonym)
    }
}

impl Annex {
    /// The schema's id.
    pub const SCHEMA: &'static str = "firedrill.dev/annex/v1";

    /// An empty one.
    pub fn new(drill: DrillId) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), drill, entries: Vec::new() }
    }

    /// Notes what a pseudonym stands for; noting it twice changes nothing.
    pub fn note(&mut self, pseudonym: &Pseudonym, name: &[u8]) {
        if let Err(at) = self.entries.binary_search_by(|e| e.pseudonym.cmp(pseudonym)) {
            let (name, base64) = match std::str::from_utf8(name) {
                Ok(text) => (Some(text.to_owned()), None),
                Err(_) => (None, Some(BASE64.encode(name))),
            };
            self.entries.insert(at, AnnexEntry { pseudonym: pseudonym.clone(), name, base64 });
        }
    }

    /// As JSON, to be encrypted.
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec_pretty(self).expect("strings and lists only"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudonyms_are_stable_apart_by_kind_and_apart_by_key() {
        let a = Pseudonymizer::new([1; 32]);
        let name = "Smith_John_MRI.dcm";
        assert_eq!(a.object(name), a.object(name));
        assert!(a.object(name).0.starts_with("object-") && a.object(name).0.len() == 7 + 16);
        assert_ne!(a.object(name).0[7..], a.path(name.as_bytes()).0[5..]);
        assert_ne!(a.object(name), Pseudonymizer::new([2; 32]).object(name));
        assert!(!format!("{a:?}").contains('1'));
    }

    #[test]
    fn an_annex_resolves_and_tells_nothing_in_debug() {
        let pseudonymizer = Pseudonymizer::new([1; 32]);
        let mut annex = Annex::new(DrillId("d".into()));
        for name in [&b"Smith_John_MRI.dcm"[..], b"\xff\xfe", b"Smith_John_MRI.dcm"] {
            annex.note(&pseudonymizer.path(name), name);
        }
        assert_eq!(annex.entries.len(), 2);
        assert!(!format!("{annex:?}{:?}", annex.entries).contains("Smith"));
        let back: Annex = serde_json::from_slice(&annex.to_json()).unwrap();
        assert!(back == annex);
    }
}
