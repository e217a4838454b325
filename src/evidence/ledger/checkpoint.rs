//! Checkpoints: size and root of the log, signed. C2SP `tlog-checkpoint`, which is a C2SP `signed-note`.

use signed_note::{Note, Verifier as _};
use tlog_tiles::tlog::Hash;

use super::super::key::{PublicKey, Signer};
use super::super::{EvidenceError, TrustFile};
use super::error::LedgerRefusal;

/// Algorithm byte of Ed25519 in the C2SP `signed-note` form.
const ED25519: u8 = 1;

/// What a checkpoint says, and who signed it.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// How many entries it covers.
    pub size: u64,
    /// The key that signed.
    pub signer: PublicKey,
    pub(super) root: Hash,
    /// As it was read or written.
    pub(super) bytes: Vec<u8>,
}

impl Checkpoint {
    /// Its bytes, for carrying it away.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Root of the tree, in base64 as the checkpoint has it.
    pub fn root(&self) -> String {
        self.root.to_string()
    }

    /// Signs size and root.
    pub(super) fn sign(origin: &str, size: u64, root: Hash, signer: &dyn Signer) -> Result<Self, EvidenceError> {
        let encode = |e: Box<dyn std::error::Error + Send + Sync>| EvidenceError::encode("a checkpoint")(e);
        let text =
            tlog_tiles::checkpoint::Checkpoint::new(origin, size, root, "").map_err(|_| encode("its origin is empty".into()))?.to_bytes();
        let signature = signer.sign(&text)?;
        let named = signed_note::Signature::new(origin.to_owned(), key_id(origin, &signer.public()), signature.to_vec());
        let note = named.and_then(|signature| Note::new(&text, &[signature])).map_err(|e| encode(e.into()))?;
        Ok(Self { origin: origin.to_owned(), size, signer: signer.public(), root, bytes: note.to_bytes() })
    }

    /// Reads one and believes it where a key of `trust` signed it. `what` names it in what is said.
    ///
    /// Signatures of keys that nobody here knows, as of witnesses, are passed over. Whether the key counted at that time is
    /// asked where the time is known.
    ///
    /// # Errors
    /// [`LedgerRefusal`].
    pub fn open(bytes: &[u8], trust: &TrustFile, what: &str) -> Result<Self, LedgerRefusal> {
        let no = |why: &str| LedgerRefusal::NoCheckpoint { what: what.to_owned(), why: why.to_owned() };
        let note = Note::from_bytes(bytes).map_err(|_| no("not a signed note"))?;
        let said = tlog_tiles::checkpoint::Checkpoint::from_bytes(note.text()).map_err(|_| no("its text is not one's"))?;
        if !said.extension().is_empty() {
            return Err(no("it has lines that this program does not know"));
        }
        let origin = said.origin();
        for line in trust.keys() {
            let Ok(verifier) = signed_note::StandardVerifier::new(&verifier_key(origin, &line.key)) else { continue };
            let known = signed_note::VerifierList::new(vec![Box::new(verifier.clone())]);
            match note.verify(&known) {
                Ok((by, _)) if by.iter().any(|signature| signature.id() == verifier.key_id()) => {
                    return Ok(Self {
                        origin: origin.to_owned(),
                        size: said.size(),
                        signer: line.key,
                        root: *said.hash(),
                        bytes: bytes.to_vec(),
                    });
                }
                Err(signed_note::NoteError::InvalidSignature { .. }) => return Err(LedgerRefusal::Signature { what: what.to_owned() }),
                _ => {}
            }
        }
        Err(LedgerRefusal::Unsigned { what: what.to_owned() })
    }
}

fn encoded(key: &PublicKey) -> Vec<u8> {
    [&[ED25519], key.as_bytes().as_slice()].concat()
}

fn key_id(origin: &str, key: &PublicKey) -> u32 {
    signed_note::key_id(origin, &encoded(key))
}

/// The key as C2SP `signed-note` writes it: what other programs are given to verify a checkpoint with.
pub(super) fn verifier_key(origin: &str, key: &PublicKey) -> String {
    format!("{origin}+{:08x}+{}", key_id(origin, key), data_encoding::BASE64.encode(&encoded(key)))
}

/// Why `origin` cannot name a log; `None` where it can.
pub fn origin_problem(origin: &str) -> Option<&'static str> {
    if origin.len() > 200 {
        return Some("it is longer than 200 bytes");
    }
    let usable = signed_note::is_key_name_valid(origin) && !origin.chars().any(char::is_control);
    (!usable).then_some("it may have neither spaces nor `+`; take a name of yours, as clinic.example/firedrill")
}
