//! The DSSE envelope: signed bytes with their type, as in `secure-systems-lab/dsse` 1.0.2.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::key::{PublicKey, Signer};
use super::{EvidenceError, Refusal, names};

/// The payload type of in-toto statements.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// The bytes that are signed: type and payload, each with its length.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {} {} ", payload_type.len(), payload_type, payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// An envelope as it lies in `attestation.dsse.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope {
    /// Standard base64 of the statement.
    pub payload: String,
    /// [`PAYLOAD_TYPE`].
    pub payload_type: String,
    /// Ours has exactly one.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature of an [`Envelope`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// Fingerprint of the key, `SHA256:…`: a hint, never a reason to trust.
    pub keyid: String,
    /// Standard base64 of 64 bytes.
    pub sig: String,
}

/// Signs a payload and wraps it.
pub(super) fn seal(signer: &dyn Signer, payload: &[u8]) -> Result<Vec<u8>, EvidenceError> {
    let signature = signer.sign(&pae(PAYLOAD_TYPE, payload))?;
    let envelope = Envelope {
        payload: BASE64.encode(payload),
        payload_type: PAYLOAD_TYPE.to_owned(),
        signatures: vec![EnvelopeSignature { keyid: signer.public().fingerprint(), sig: BASE64.encode(&signature) }],
    };
    to_bytes(&envelope)
}

fn to_bytes(envelope: &Envelope) -> Result<Vec<u8>, EvidenceError> {
    let mut bytes = serde_json::to_vec_pretty(envelope).map_err(|e| EvidenceError::encode("an envelope")(e.into()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Checks the envelope against `key` and returns the very payload bytes that the signature covers. Only the bytes that
/// [`seal`] writes are accepted, so that the file has one spelling.
pub(super) fn open(bytes: &[u8], key: &PublicKey) -> Result<Vec<u8>, Refusal> {
    let file = || names::ATTESTATION.to_owned();
    let malformed = |what: &str| Refusal::Malformed { file: file(), what: what.to_owned() };
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|_| malformed("not a DSSE envelope"))?;
    if to_bytes(&envelope).is_ok_and(|canonical| canonical != bytes) {
        return Err(malformed("not in its one canonical form"));
    }
    let payload = BASE64.decode(envelope.payload.as_bytes()).map_err(|_| malformed("its payload is not base64"))?;
    let [one] = envelope.signatures.as_slice() else { return Err(malformed("not exactly one signature")) };
    let signature = BASE64.decode(one.sig.as_bytes()).map_err(|_| malformed("its signature is not base64"))?;
    let signature: [u8; 64] = signature.try_into().map_err(|_| malformed("its signature is not 64 bytes long"))?;
    if !key.verifies(&pae(&envelope.payload_type, &payload), &signature) {
        return Err(Refusal::Signature { file: file() });
    }
    if one.keyid != key.fingerprint() {
        return Err(malformed("it names another key than the one that signed it"));
    }
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(malformed("its payload is not an in-toto statement"));
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::SignerKey;
    use zeroize::Zeroizing;

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        assert_eq!(pae("http://example.com/HelloWorld", b"hello world"), b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn only_the_signed_bytes_come_out() {
        let key = SignerKey::from_seed(&Zeroizing::new([3; 32]));
        let sealed = seal(&key, b"{}").unwrap();
        assert_eq!(open(&sealed, &key.public()).unwrap(), b"{}");
        let other = SignerKey::from_seed(&Zeroizing::new([4; 32])).public();
        assert!(matches!(open(&sealed, &other), Err(Refusal::Signature { .. })));
        for at in 0..sealed.len() {
            for flip in [0x01, 0x20, 0x80] {
                let mut hurt = sealed.clone();
                hurt[at] ^= flip;
                assert!(open(&hurt, &key.public()).is_err(), "byte {at} changed by {flip:#x} unnoticed");
            }
        }
        let mut longer = sealed.clone();
        longer.push(b'\n');
        assert!(open(&longer, &key.public()).is_err());
    }
}
