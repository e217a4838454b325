//! AWS Signature Version 4, as a server checks it: in the `Authorization` header or in the query.
//!
//! What is signed is built anew from the request as it came. Clients differ in how they write paths and queries down before
//! they sign them (curl signs what it sends, most others a normalized form), so both are tried: either way the signature
//! covers what was sent.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::{digest, hmac};
use data_encoding::HEXLOWER;
use http::HeaderMap;
use zeroize::Zeroizing;

use super::answers::S3Error;
use super::uri;
use crate::domain::Timestamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// Longest life of a presigned URL, in seconds: seven days, as in S3.
const LONGEST: i64 = 7 * 86_400;
/// Tools run on this host; only a fake clock is that far off.
const SKEW: i64 = 86_400;

/// Keys that exist for one drill.
#[derive(Clone)]
pub struct GatewayKeys {
    /// What tools call the access key id.
    pub access_key: String,
    secret: Zeroizing<String>,
}

impl fmt::Debug for GatewayKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayKeys")
    }
}

impl GatewayKeys {
    /// Fresh ones, from the system's random numbers. Letters and digits only: no tool has to quote them.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn generate() -> std::io::Result<Self> {
        let random = |bytes: &mut [u8]| aws_lc_rs::rand::fill(bytes).map_err(|_| std::io::Error::other("the system has no random numbers"));
        let mut id = [0; 10];
        let mut secret = Zeroizing::new([0; 25]);
        random(&mut id)?;
        random(&mut *secret)?;
        let base32 = &data_encoding::BASE32_NOPAD;
        Ok(Self { access_key: format!("FIRE{}", base32.encode(&id)), secret: Zeroizing::new(base32.encode(&*secret)) })
    }

    /// With given values, for tests.
    pub fn fixed(access_key: &str, secret_key: &str) -> Self {
        Self { access_key: access_key.to_owned(), secret: Zeroizing::new(secret_key.to_owned()) }
    }

    /// The secret access key.
    pub fn secret_key(&self) -> &str {
        &self.secret
    }
}

/// A request, as far as signatures care.
#[derive(Clone, Copy)]
pub(super) struct Signed<'a> {
    pub method: &'a str,
    /// As it was sent.
    pub path: &'a str,
    /// As it was sent, without the question mark.
    pub query: &'a str,
    pub headers: &'a HeaderMap,
}

/// What a good signature says of the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Payload {
    /// Nothing.
    Unsigned,
    /// SHA-256 of it.
    Digest([u8; 32]),
    /// It comes in aws-chunked form.
    Chunked(Chunked),
}

/// How an aws-chunked body is signed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Chunked {
    /// What signs each chunk; `None` where chunks are not signed.
    pub seed: Option<Seed>,
}

impl fmt::Debug for Chunked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.seed.is_some() { "Chunked, signed" } else { "Chunked" })
    }
}

/// Where a chain of chunk signatures begins.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Seed {
    key: Zeroizing<Vec<u8>>,
    date: String,
    scope: String,
    previous: String,
}

impl Seed {
    /// Checks the signature of the next chunk.
    pub(super) fn accepts(&mut self, chunk: &[u8], signature: &str) -> bool {
        let empty = HEXLOWER.encode(sha256(b"").as_ref());
        let chunk = HEXLOWER.encode(sha256(chunk).as_ref());
        let text = format!("{ALGORITHM}-PAYLOAD\n{}\n{}\n{}\n{empty}\n{chunk}", self.date, self.scope, self.previous);
        self.previous = HEXLOWER.encode(hmac(&self.key, text.as_bytes()).as_ref());
        same(&self.previous, signature)
    }
}

/// Checks who asks.
///
/// # Errors
/// What S3 would say.
pub(super) fn check(request: Signed<'_>, keys: &GatewayKeys, now: Timestamp) -> Result<Payload, S3Error> {
    match request.headers.get(http::header::AUTHORIZATION) {
        Some(value) => {
            let value = value.to_str().map_err(|_| S3Error::AuthorizationHeaderMalformed)?;
            in_header(request, value, keys, now)
        }
        None if uri::pairs(request.query).any(|(name, _)| name == "X-Amz-Signature") => in_query(request, keys, now),
        None => Err(S3Error::AccessDenied),
    }
}

/// What every signature comes with.
struct Claim<'a> {
    /// `KEY/DATE/REGION/SERVICE/aws4_request`
    credential: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
    /// `20261121T193310Z`
    date: &'a str,
    /// What the canonical request ends in.
    payload: &'a str,
}

fn in_header(request: Signed<'_>, value: &str, keys: &GatewayKeys, now: Timestamp) -> Result<Payload, S3Error> {
    let fields = value.strip_prefix(ALGORITHM).ok_or(S3Error::UnsupportedSignature)?;
    let field = |name: &str| {
        let found = fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
        found.ok_or(S3Error::AuthorizationHeaderMalformed)
    };
    let text = |name: &str| request.headers.get(name).and_then(|v| v.to_str().ok());
    let date = text("x-amz-date").ok_or(S3Error::AccessDenied)?;
    // who does not say signs the empty body: nothing that this gateway takes is sent so
    let empty = HEXLOWER.encode(sha256(b"").as_ref());
    let payload = text("x-amz-content-sha256").unwrap_or(&empty);
    let claim =
        Claim { credential: field("Credential")?, signed_headers: field("SignedHeaders")?, signature: field("Signature")?, date, payload };
    let at = instant(date).ok_or(S3Error::AccessDenied)?;
    let verified = verify(request, &claim, request.query, keys)?;
    if now.seconds_since(at).abs() > SKEW {
        return Err(S3Error::RequestTimeTooSkewed);
    }
    match payload {
        UNSIGNED => Ok(Payload::Unsigned),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" | "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => {
            Ok(Payload::Chunked(Chunked { seed: Some(verified) }))
        }
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Ok(Payload::Chunked(Chunked { seed: None })),
        digest => {
            let digest = HEXLOWER.decode(digest.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
            digest.map(Payload::Digest).ok_or(S3Error::InvalidDigest)
        }
    }
}

fn in_query(request: Signed<'_>, keys: &GatewayKeys, now: Timestamp) -> Result<Payload, S3Error> {
    let mut rest = String::new();
    let mut fields: [(&str, Option<Cow<'_, str>>); 6] =
        ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"].map(|n| (n, None));
    for pair in request.query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != "X-Amz-Signature" {
            rest.push_str(if rest.is_empty() { "" } else { "&" });
            rest.push_str(pair);
        }
        if let Some((_, slot)) = fields.iter_mut().find(|(field, _)| *field == name) {
            if slot.is_some() {
                return Err(S3Error::AuthorizationQueryParametersError);
            }
            *slot = Some(uri::decode(value));
        }
    }
    let [algorithm, credential, date, expires, signed_headers, signature] =
        fields.each_ref().map(|(_, value)| value.as_deref().ok_or(S3Error::AuthorizationQueryParametersError));
    if algorithm? != ALGORITHM {
        return Err(S3Error::AuthorizationQueryParametersError);
    }
    let date = date?;
    let at = instant(date).ok_or(S3Error::AuthorizationQueryParametersError)?;
    let life = expires?.parse::<i64>().ok().filter(|life| (1..=LONGEST).contains(life));
    let life = life.ok_or(S3Error::AuthorizationQueryParametersError)?;
    let claim = Claim { credential: credential?, signed_headers: signed_headers?, signature: signature?, date, payload: UNSIGNED };
    verify(request, &claim, &rest, keys)?;
    if now.seconds_since(at) < -SKEW {
        return Err(S3Error::RequestTimeTooSkewed);
    }
    if now.seconds_since(at) > life {
        return Err(S3Error::Expired);
    }
    Ok(Payload::Unsigned)
}

fn verify(request: Signed<'_>, claim: &Claim<'_>, query: &str, keys: &GatewayKeys) -> Result<Seed, S3Error> {
    let (access_key, scope) = claim.credential.split_once('/').ok_or(S3Error::AuthorizationHeaderMalformed)?;
    if access_key != keys.access_key {
        return Err(S3Error::InvalidAccessKeyId);
    }
    let mut parts = scope.split('/');
    let (Some(day), Some(region), Some(service), Some("aws4_request"), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(S3Error::AuthorizationHeaderMalformed);
    };
    if !claim.date.starts_with(day) || day.len() != 8 {
        return Err(S3Error::AuthorizationHeaderMalformed);
    }
    if !claim.signed_headers.split(';').any(|name| name == "host") {
        return Err(S3Error::AccessDenied);
    }
    let headers = canonical_headers(request.headers, claim.signed_headers).ok_or(S3Error::SignatureDoesNotMatch)?;
    let key = signing_key(keys.secret_key(), day, region, service);
    // one after the other: nearly everybody signs the first
    let paths = [uri::encode(&uri::decode(request.path), true), request.path.to_owned()];
    let queries = [canonical_query(query), query.to_owned()];
    for query in &queries {
        for path in &paths {
            let canonical = format!("{}\n{path}\n{query}\n{headers}\n{}\n{}", request.method, claim.signed_headers, claim.payload);
            let hashed = HEXLOWER.encode(sha256(canonical.as_bytes()).as_ref());
            let text = format!("{ALGORITHM}\n{}\n{scope}\n{hashed}", claim.date);
            let signature = HEXLOWER.encode(hmac(&key, text.as_bytes()).as_ref());
            if same(&signature, claim.signature) {
                return Ok(Seed { key, date: claim.date.to_owned(), scope: scope.to_owned(), previous: signature });
            }
        }
    }
    Err(S3Error::SignatureDoesNotMatch)
}

/// `name:value\n` of every signed header, in the order in which they were signed; `None` where one of them is not there.
fn canonical_headers(headers: &HeaderMap, signed: &str) -> Option<String> {
    let mut out = String::new();
    for name in signed.split(';') {
        let mut values = headers.get_all(name).iter().peekable();
        values.peek()?;
        out.push_str(name);
        out.push(':');
        for (i, value) in values.enumerate() {
            out.push_str(if i == 0 { "" } else { "," });
            for (i, word) in value.to_str().ok()?.split_whitespace().enumerate() {
                out.push_str(if i == 0 { "" } else { " " });
                out.push_str(word);
            }
        }
        out.push('\n');
    }
    Some(out)
}

/// Names and values encoded, sorted.
pub(super) fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<_> = uri::pairs(query).map(|(name, value)| (uri::encode(&name, false), uri::encode(&value, false))).collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn signing_key(secret: &str, day: &str, region: &str, service: &str) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(format!("AWS4{secret}").into_bytes());
    for part in [day, region, service, "aws4_request"] {
        key = Zeroizing::new(hmac(&key, part.as_bytes()).as_ref().to_vec());
    }
    key
}

fn hmac(key: &[u8], text: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
}

pub(super) fn sha256(bytes: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, bytes)
}

/// Takes the same time wherever they differ.
fn same(a: &str, b: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

/// `20261121T193310Z`
fn instant(text: &str) -> Option<Timestamp> {
    let digits = |range| text.get(range).filter(|part: &&str| part.bytes().all(|b| b.is_ascii_digit()));
    if text.len() != 16 || text.get(8..9) != Some("T") || !text.ends_with('Z') {
        return None;
    }
    let [year, month, day, hour, minute, second] = [0..4, 4..6, 6..8, 9..11, 11..13, 13..15].map(digits);
    format!("{}-{}-{}T{}:{}:{}Z", year?, month?, day?, hour?, minute?, second?).parse().ok()
}

#[cfg(test)]
#[path = "sigv4_tests.rs"]
mod tests;
