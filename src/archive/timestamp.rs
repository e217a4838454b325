//! Timestamps of an authority (RFC 3161): asking for one, and believing it.
//!
//! A token is believed where it is over these bytes, signed by the certificate that it names, and that certificate leads to a
//! trusted one, for the purpose of timestamping, at the time that the token says. `openssl ts -verify` is the reference.

use aws_lc_rs::digest;
use cms::cert::CertificateChoices;
use cms::cert::x509::Certificate;
use cms::cert::x509::ext::pkix::{ExtendedKeyUsage, SubjectKeyIdentifier};
use cms::cert::x509::spki::AlgorithmIdentifierOwned;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedAttributes, SignedData, SignerIdentifier, SignerInfo};
use der::asn1::{Any, Int, ObjectIdentifier, OctetString};
use der::{Decode, Encode, Reader as _, Sequence, SliceReader, Tag, Tagged as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::domain::Timestamp;
use crate::evidence::sha256;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const TIMESTAMP_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SIGNING_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.12");
const SIGNING_CERTIFICATE_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const TIMESTAMPING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8");

#[derive(Sequence)]
struct Request {
    version: u8,
    imprint: Imprint,
    nonce: Int,
    certificate: bool,
}

#[derive(Sequence)]
struct Imprint {
    algorithm: AlgorithmIdentifierOwned,
    digest: OctetString,
}

#[derive(Sequence)]
struct Response {
    status: Any,
    #[asn1(optional = "true")]
    token: Option<ContentInfo>,
}

/// Both versions: the older one has SHA-1 and names no algorithm.
#[derive(Sequence)]
struct SigningCertificate {
    certificates: Vec<CertificateId>,
    #[asn1(optional = "true")]
    policies: Option<Any>,
}

#[derive(Sequence)]
struct CertificateId {
    #[asn1(optional = "true")]
    algorithm: Option<AlgorithmIdentifierOwned>,
    digest: OctetString,
    #[asn1(optional = "true")]
    issuer: Option<Any>,
}

/// A request for a timestamp over the SHA-256 of `bytes`. `nonce` makes the answer this request's.
pub fn request(bytes: &[u8], mut nonce: [u8; 8]) -> Vec<u8> {
    // a positive number without leading zeros
    nonce[0] = nonce[0] & 0x7f | 0x40;
    let request = Request {
        version: 1,
        imprint: Imprint {
            algorithm: AlgorithmIdentifierOwned { oid: SHA256, parameters: Some(Any::null()) },
            digest: OctetString::new(sha256(bytes).0.as_slice()).expect("32 bytes fit"),
        },
        nonce: Int::new(&nonce).expect("eight bytes fit"),
        certificate: true,
    };
    request.to_der().expect("a request can be encoded")
}

/// When the authority saw `bytes`, by its answer. Where `request` is what it was asked, the answer must be to just that.
///
/// # Errors
/// Why the answer is not believed.
pub fn seen_at(answer: &[u8], bytes: &[u8], request: Option<&[u8]>, ca: &[u8]) -> Result<Timestamp, String> {
    let response = Response::from_der(answer).map_err(|e| format!("it is no answer to a timestamp request: {e}"))?;
    let token = response.token.ok_or_else(|| format!("the authority refused: status {}", status(&response.status)))?;
    if token.content_type != SIGNED_DATA {
        return Err("its token is not signed".to_owned());
    }
    let signed: SignedData = token.content.decode_as().map_err(|e| format!("its token is malformed: {e}"))?;
    let content = &signed.encap_content_info;
    if content.econtent_type != TIMESTAMP_INFO {
        return Err("what is signed is no timestamp".to_owned());
    }
    let content: OctetString = content.econtent.as_ref().and_then(|c| c.decode_as().ok()).ok_or("its token is empty")?;
    let info = Info::read(content.as_bytes()).map_err(|e| format!("its timestamp is malformed: {e}"))?;
    if info.algorithm != SHA256 || info.digest != sha256(bytes).0 {
        return Err("it is a timestamp of something else".to_owned());
    }
    if let Some(request) = request {
        let asked = Request::from_der(request).map_err(|e| e.to_string())?.nonce;
        if info.nonce.as_deref() != Some(asked.as_bytes()) {
            return Err("it is the answer to another request".to_owned());
        }
    }
    signed_by_authority(&signed, content.as_bytes(), info.at, ca)?;
    Ok(info.at)
}

/// What a timestamp says, as far as it matters.
struct Info {
    algorithm: ObjectIdentifier,
    digest: Vec<u8>,
    at: Timestamp,
    nonce: Option<Vec<u8>>,
}

impl Info {
    fn read(bytes: &[u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(bytes)?;
        let info = reader.sequence(|fields| {
            let version = u8::decode(fields)?;
            let _policy = ObjectIdentifier::decode(fields)?;
            let imprint = Imprint::decode(fields)?;
            let _serial = Any::decode(fields)?;
            let at = time(&Any::decode(fields)?).filter(|_| version == 1).ok_or(Tag::GeneralizedTime.value_error())?;
            let mut nonce = None;
            // accuracy, ordering, authority and extensions say nothing that is asked here
            while !fields.is_finished() {
                let field = Any::decode(fields)?;
                if field.tag() == Tag::Integer {
                    nonce = Some(field.value().to_vec());
                }
            }
            Ok(Info { algorithm: imprint.algorithm.oid, digest: imprint.digest.into_bytes(), at, nonce })
        })?;
        reader.finish(info)
    }
}

/// `20261126130102Z`, perhaps with a fraction.
fn time(value: &Any) -> Option<Timestamp> {
    let text = std::str::from_utf8(value.value()).ok().filter(|_| value.tag() == Tag::GeneralizedTime)?;
    let (seconds, _fraction) = text.strip_suffix('Z')?.split_at_checked(14)?;
    let at = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", seconds).ok()?;
    Some(Timestamp(at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp()))
}

fn status(status: &Any) -> String {
    let number = SliceReader::new(status.value()).and_then(|mut reader| u8::decode(&mut reader));
    number.map_or("unknown".to_owned(), |number| number.to_string())
}

/// Whether a certificate that the token names signed it, and leads to one of `ca` at that time.
fn signed_by_authority(signed: &SignedData, content: &[u8], at: Timestamp, ca: &[u8]) -> Result<(), String> {
    let [signer] = signed.signer_infos.0.as_slice() else { return Err("it is not signed by just one".to_owned()) };
    let attributes = signer.signed_attrs.as_ref().ok_or("nothing says what was signed")?;
    let hash = algorithm(&signer.digest_alg.oid).ok_or("it is signed over a digest that does not count any more")?;
    let typed = attribute(attributes, CONTENT_TYPE).and_then(|value| value.decode_as::<ObjectIdentifier>().ok());
    let digested = attribute(attributes, MESSAGE_DIGEST).and_then(|value| value.decode_as::<OctetString>().ok());
    if typed != Some(TIMESTAMP_INFO) || digested.is_none_or(|found| found.as_bytes() != digest::digest(hash, content).as_ref()) {
        return Err("its signature is over something else".to_owned());
    }
    let certificates = certificates(signed)?;
    let (parsed, certificate) = certificates
        .iter()
        .find(|(certificate, _)| is_signer(certificate, signer))
        .ok_or("it does not bring the certificate that signed it")?;
    if !is_for_timestamps(parsed) {
        return Err("its certificate is for something else than timestamps".to_owned());
    }
    if !named(attributes, certificate) {
        return Err("it was signed for another certificate".to_owned());
    }
    let certificate = CertificateDer::from(certificate.as_slice());
    let signer_certificate = EndEntityCert::try_from(&certificate).map_err(|e| format!("its certificate cannot be used: {e}"))?;
    let message = attributes.to_der().map_err(|e| e.to_string())?;
    let signature = signer.signature.as_bytes();
    let verifies = |with: &&dyn SignatureVerificationAlgorithm| signer_certificate.verify_signature(*with, &message, signature).is_ok();
    if !webpki::ALL_VERIFICATION_ALGS.iter().any(verifies) {
        return Err("its signature does not verify".to_owned());
    }
    let trusted: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(ca)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("the file of trusted certificates is not PEM: {e}"))?;
    let anchors: Vec<_> = trusted.iter().filter_map(|certificate| anchor_from_trusted_cert(certificate).ok()).collect();
    let others: Vec<CertificateDer<'_>> = certificates.iter().map(|(_, bytes)| CertificateDer::from(bytes.as_slice())).collect();
    let then = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(at.0.as_second()).unwrap_or(0)));
    // those between may say what they are for, and need not
    let usage = KeyUsage::required_if_present(TIMESTAMPING.as_bytes());
    let leads = signer_certificate.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &others, then, usage, None, None);
    leads.map(drop).map_err(|e| format!("its certificate leads to none that is trusted: {e}"))
}

/// Certificates that the token brings, each with its bytes.
fn certificates(signed: &SignedData) -> Result<Vec<(&Certificate, Vec<u8>)>, String> {
    let choices = signed.certificates.iter().flat_map(|set| set.0.iter());
    let plain = choices.filter_map(|choice| match choice {
        CertificateChoices::Certificate(certificate) => Some(certificate),
        CertificateChoices::Other(_) => None,
    });
    plain.map(|certificate| Ok((certificate, certificate.to_der().map_err(|e| e.to_string())?))).collect()
}

fn is_signer(certificate: &Certificate, signer: &SignerInfo) -> bool {
    let of = &certificate.tbs_certificate;
    match &signer.sid {
        SignerIdentifier::IssuerAndSerialNumber(sid) => of.issuer == sid.issuer && of.serial_number == sid.serial_number,
        SignerIdentifier::SubjectKeyIdentifier(sid) => matches!(of.get::<SubjectKeyIdentifier>(), Ok(Some((_, id))) if id == *sid),
    }
}

/// RFC 3161: for that alone, and nobody may overlook it.
fn is_for_timestamps(certificate: &Certificate) -> bool {
    matches!(certificate.tbs_certificate.get::<ExtendedKeyUsage>(), Ok(Some((true, usage))) if usage.0 == [TIMESTAMPING])
}

/// Whether the signed attributes name this certificate as the one that signs.
fn named(attributes: &SignedAttributes, certificate: &[u8]) -> bool {
    let of = |attribute: ObjectIdentifier, default: &'static digest::Algorithm| {
        let value = self::attribute(attributes, attribute)?;
        let named: SigningCertificate = value.decode_as().ok()?;
        let first = named.certificates.first()?;
        let hash = first.algorithm.as_ref().map_or(Some(default), |named| algorithm(&named.oid))?;
        Some(digest::digest(hash, certificate).as_ref() == first.digest.as_bytes())
    };
    of(SIGNING_CERTIFICATE_V2, &digest::SHA256).or_else(|| of(SIGNING_CERTIFICATE, &digest::SHA1_FOR_LEGACY_USE_ONLY)).unwrap_or(false)
}

fn attribute(attributes: &SignedAttributes, oid: ObjectIdentifier) -> Option<&Any> {
    attributes.iter().find(|attribute| attribute.oid == oid)?.values.get(0)
}

fn algorithm(oid: &ObjectIdentifier) -> Option<&'static digest::Algorithm> {
    match *oid {
        SHA256 => Some(&digest::SHA256),
        SHA384 => Some(&digest::SHA384),
        SHA512 => Some(&digest::SHA512),
        _ => None,
    }
}
