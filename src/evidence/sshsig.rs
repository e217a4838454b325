//! SSHSIG signatures (`ssh-keygen -Y`), built and taken apart by hand around plain Ed25519, so that any [`Signer`] will do.

use ssh_key::public::KeyData;
use ssh_key::{Algorithm, HashAlg, LineEnding, Signature, SshSig};

use super::key::{NAMESPACE, PublicKey, Signer};
use super::{EvidenceError, Refusal, names};

/// Signs `message`; the result is what `ssh-keygen -Y sign` writes.
pub(super) fn sign(signer: &dyn Signer, message: &[u8]) -> Result<String, EvidenceError> {
    let encode = |e: ssh_key::Error| EvidenceError::encode("an SSH signature")(e.into());
    let data = SshSig::signed_data(NAMESPACE, HashAlg::Sha512, message).map_err(encode)?;
    let signature = Signature::new(Algorithm::Ed25519, signer.sign(&data)?.to_vec()).map_err(encode)?;
    SshSig::new(signer.public().key_data(), NAMESPACE, HashAlg::Sha512, signature).and_then(|s| s.to_pem(LineEnding::LF)).map_err(encode)
}

/// Checks the signature in `pem` over `message` and returns the key that made it. Whether that key is trusted is the
/// caller's question. Only the very bytes that [`sign`] writes are accepted: base64 and PEM know many spellings of one
/// signature, and a file that may change unnoticed is no evidence.
pub(super) fn check(pem: &[u8], message: &[u8]) -> Result<PublicKey, Refusal> {
    let file = || names::SUMS_SIGNATURE.to_owned();
    let malformed = |what: &str| Refusal::Malformed { file: file(), what: what.to_owned() };
    let signature = SshSig::from_pem(pem).map_err(|_| malformed("not an SSH signature"))?;
    let canonical = signature.to_pem(LineEnding::LF).map_err(|_| malformed("not an SSH signature"))?;
    if canonical.as_bytes() != pem {
        return Err(malformed("not in its one canonical form"));
    }
    if signature.namespace() != NAMESPACE {
        return Err(Refusal::Namespace { found: signature.namespace().chars().take(64).collect() });
    }
    if !signature.reserved().is_empty() {
        return Err(malformed("its reserved field is not empty"));
    }
    let KeyData::Ed25519(key) = signature.public_key() else { return Err(malformed("not made by an Ed25519 key")) };
    let key = PublicKey::from_bytes(&key.0).ok_or_else(|| malformed("its key is not on the curve"))?;
    let data = SshSig::signed_data(NAMESPACE, signature.hash_alg(), message).map_err(|_| malformed("unknown hash"))?;
    let bytes: [u8; 64] = signature.signature_bytes().try_into().map_err(|_| malformed("not 64 bytes long"))?;
    if key.verifies(&data, &bytes) { Ok(key) } else { Err(Refusal::Signature { file: file() }) }
}
