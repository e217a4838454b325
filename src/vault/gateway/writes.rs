//! What a tool may write: into the overlay, and nowhere else.

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use md5::{Digest as _, Md5};
use serde::Deserialize;

use super::answers::{S3Error, Xml};
use super::body::Reply;
use super::chunked;
use super::overlay::{Kept, Overlay};
use super::service::Service;
use super::sigv4::{Payload, sha256};

/// Longest time for a body to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);
/// What the aws-chunked form may add to a body: one signature for each 8 KiB, and trailers.
const CHUNK_EXTRA: u64 = 4096;
/// Largest list of keys to delete.
const LIST_LIMIT: u64 = 2 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Deletions {
    #[serde(default, rename = "Object")]
    objects: Vec<Deletion>,
    #[serde(default)]
    quiet: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Deletion {
    key: String,
    version_id: Option<String>,
}

impl Service {
    /// PutObject.
    pub(super) async fn keep(
        &self,
        overlay: &Overlay,
        key: &str,
        headers: &HeaderMap,
        payload: Payload,
        body: &mut Incoming,
    ) -> Result<Response<Reply>, S3Error> {
        const OPERATION: &str = "PutObject";
        if key.starts_with(self.view.prefix()) {
            // a "directory" is kept like anything else
        } else {
            self.gathered.refused(OPERATION, Some(key));
            return Err(S3Error::AccessDenied);
        }
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        if text("if-match").is_some() {
            return Err(S3Error::NotImplemented);
        }
        if text("if-none-match") == Some("*") && self.exists(key, OPERATION).await.is_ok() {
            return Err(S3Error::PreconditionFailed);
        }
        let length = text("x-amz-decoded-content-length").or(text("content-length")).and_then(|v| v.parse::<u64>().ok());
        let length = length.ok_or(S3Error::MissingContentLength)?;
        let room = overlay.room(length).inspect_err(|_| self.gathered.refused(OPERATION, Some(key)))?;
        let bytes = read(body, payload, length).await?;
        if bytes.len() as u64 != length {
            return Err(S3Error::IncompleteBody);
        }
        let md5 = Md5::digest(&bytes);
        if text("content-md5").is_some_and(|claimed| claimed != BASE64.encode(&md5)) {
            return Err(S3Error::BadDigest);
        }
        let etag = format!("\"{}\"", HEXLOWER.encode(&md5));
        let described = |name: &str| matches!(name, "content-type" | "content-encoding" | "content-disposition" | "cache-control");
        let content = headers
            .iter()
            .filter(|(name, _)| described(name.as_str()) || name.as_str().starts_with("x-amz-meta-"))
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .collect();
        drop(room);
        let kept = Kept { bytes: bytes.into(), etag: etag.clone(), stored_at: (self.now)(), content };
        overlay.keep(key, Some(kept)).inspect_err(|_| self.gathered.refused(OPERATION, Some(key)))?;
        let mut answer = Response::new(Reply::Nothing);
        answer.headers_mut().insert("etag", HeaderValue::try_from(etag).map_err(|_| S3Error::InternalError)?);
        Ok(answer)
    }

    /// DeleteObject.
    pub(super) fn forget(&self, overlay: &Overlay, key: &str) -> Result<Response<Reply>, S3Error> {
        if !key.starts_with(self.view.prefix()) {
            self.gathered.refused("DeleteObject", Some(key));
            return Err(S3Error::AccessDenied);
        }
        overlay.keep(key, None)?;
        let mut answer = Response::new(Reply::Nothing);
        *answer.status_mut() = StatusCode::NO_CONTENT;
        Ok(answer)
    }

    /// DeleteObjects.
    pub(super) async fn forget_all(
        &self,
        overlay: &Overlay,
        headers: &HeaderMap,
        payload: Payload,
        body: &mut Incoming,
    ) -> Result<Response<Reply>, S3Error> {
        let length = headers.get("x-amz-decoded-content-length").or(headers.get("content-length"));
        let length = length.and_then(|v| v.to_str().ok()?.parse::<u64>().ok()).ok_or(S3Error::MissingContentLength)?;
        if length > LIST_LIMIT {
            return Err(S3Error::MalformedXml);
        }
        let text = String::from_utf8(read(body, payload, length).await?).map_err(|_| S3Error::MalformedXml)?;
        let list: Deletions = quick_xml::de::from_str(&text).map_err(|_| S3Error::MalformedXml)?;
        let mut xml = Xml::new();
        xml.root("DeleteResult");
        for Deletion { key, version_id } in list.objects.iter().take(1000) {
            let deleted = match version_id {
                Some(_) => Err(S3Error::ReadOnly),
                None => self.forget(overlay, key).map(drop),
            };
            match deleted {
                Ok(()) if list.quiet => {}
                Ok(()) => drop(xml.open("Deleted").text("Key", key).close("Deleted")),
                Err(error) => {
                    let (_, code, message) = error.parts();
                    xml.open("Error").text("Key", key).text("Code", code).text("Message", message).close("Error");
                }
            }
        }
        Ok(xml.close("DeleteResult").answer())
    }
}

/// A whole body, checked against what its signature says of it.
async fn read(body: &mut Incoming, payload: Payload, length: u64) -> Result<Vec<u8>, S3Error> {
    let most = match &payload {
        Payload::Chunked(_) => length.saturating_add(length / 64).saturating_add(CHUNK_EXTRA),
        Payload::Unsigned | Payload::Digest(_) => length,
    };
    let most = usize::try_from(most).map_err(|_| S3Error::EntityTooLarge)?;
    let reading = Limited::new(body, most).collect();
    let bytes = tokio::time::timeout(BODY_TIME, reading).await.map_err(|_| S3Error::RequestTimeout)?;
    let bytes = bytes.map_err(|_| S3Error::IncompleteBody)?.to_bytes();
    match payload {
        Payload::Unsigned => Ok(bytes.into()),
        Payload::Digest(digest) if sha256(&bytes).as_ref() == digest => Ok(bytes.into()),
        Payload::Digest(_) => Err(S3Error::XAmzContentSha256Mismatch),
        Payload::Chunked(chunks) => chunked::decode(&bytes, chunks, length),
    }
}
