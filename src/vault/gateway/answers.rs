//! What the gateway says: S3's errors, its XML, its headers.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};

use super::body::Reply;

/// An error as S3 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum S3Error {
    AccessDenied,
    AuthorizationHeaderMalformed,
    AuthorizationQueryParametersError,
    BadDigest,
    Changed,
    EntityTooLarge,
    Expired,
    IncompleteBody,
    InternalError,
    InvalidAccessKeyId,
    InvalidArgument,
    InvalidDigest,
    InvalidObjectState,
    InvalidPartNumber,
    InvalidUri,
    KeyTooLong,
    MalformedXml,
    MissingContentLength,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    NoSuchVersion,
    /// A setting that a bucket or object does not have: its code.
    NotSet(&'static str),
    NotImplemented,
    PreconditionFailed,
    QuotaExceeded,
    ReadOnly,
    RequestTimeTooSkewed,
    RequestTimeout,
    SignatureDoesNotMatch,
    SlowDown,
    UnsupportedSignature,
    XAmzContentSha256Mismatch,
}

impl S3Error {
    /// Status, code, message.
    pub(super) fn parts(self) -> (u16, &'static str, &'static str) {
        use S3Error as E;
        match self {
            E::AccessDenied => (403, "AccessDenied", "Access Denied"),
            E::AuthorizationHeaderMalformed => (400, "AuthorizationHeaderMalformed", "The authorization header is malformed."),
            E::AuthorizationQueryParametersError => (400, "AuthorizationQueryParametersError", "Query-string authentication is malformed."),
            E::BadDigest => (400, "BadDigest", "The Content-MD5 or checksum you specified did not match what was received."),
            E::Changed => (409, "OperationAborted", "The object is no longer the one that this drill reads."),
            E::EntityTooLarge => (400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size."),
            E::Expired => (403, "AccessDenied", "Request has expired"),
            E::IncompleteBody => (400, "IncompleteBody", "The request body is not what its headers say."),
            E::InternalError => (500, "InternalError", "The backup storage could not be read. Please try again."),
            E::InvalidAccessKeyId => (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
            E::InvalidArgument => (400, "InvalidArgument", "Invalid Argument"),
            E::InvalidDigest => (400, "InvalidDigest", "The digest you specified is not valid."),
            E::InvalidObjectState => (403, "InvalidObjectState", "The object is archived and must be thawed before it can be read."),
            E::InvalidPartNumber => (416, "InvalidPartNumber", "The requested partnumber is not satisfiable"),
            E::InvalidUri => (400, "InvalidURI", "Couldn't parse the specified URI."),
            E::KeyTooLong => (400, "KeyTooLongError", "Your key is too long"),
            E::MalformedXml => (400, "MalformedXML", "The XML you provided was not well-formed."),
            E::MissingContentLength => (411, "MissingContentLength", "You must provide the Content-Length HTTP header."),
            E::NoSuchBucket => (404, "NoSuchBucket", "The specified bucket does not exist"),
            E::NoSuchKey => (404, "NoSuchKey", "The specified key does not exist."),
            E::NoSuchUpload => (404, "NoSuchUpload", "The specified multipart upload does not exist."),
            E::NoSuchVersion => (404, "NoSuchVersion", "The specified version does not exist."),
            E::NotSet(code) => (404, code, "The specified configuration does not exist."),
            E::NotImplemented => (501, "NotImplemented", "A header or query you provided implies functionality that is not implemented."),
            E::PreconditionFailed => (412, "PreconditionFailed", "At least one of the preconditions you specified did not hold."),
            E::QuotaExceeded => (403, "QuotaExceeded", "This drill keeps no more of what tools write."),
            E::ReadOnly => (403, "AccessDenied", "This is a drill: the backup is read-only."),
            E::RequestTimeTooSkewed => {
                (403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
            }
            E::RequestTimeout => {
                (400, "RequestTimeout", "Your socket connection was not read from or written to within the timeout period.")
            }
            E::SignatureDoesNotMatch => {
                (403, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided.")
            }
            E::SlowDown => (503, "SlowDown", "Please reduce your request rate."),
            E::UnsupportedSignature => (400, "InvalidRequest", "Please use AWS4-HMAC-SHA256."),
            E::XAmzContentSha256Mismatch => {
                (400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.")
            }
        }
    }

    /// The answer. `resource` is the path as it was asked for.
    pub(super) fn answer(self, resource: &str, request_id: &str) -> Response<Reply> {
        let (status, code, message) = self.parts();
        let mut xml = Xml::new();
        xml.open("Error").text("Code", code).text("Message", message).text("Resource", resource).text("RequestId", request_id);
        let mut answer = xml.close("Error").answer();
        *answer.status_mut() = StatusCode::from_u16(status).expect("they are written above");
        if self == S3Error::SlowDown {
            answer.headers_mut().insert("retry-after", HeaderValue::from_static("5"));
        }
        answer
    }
}

/// An XML document that is being written.
pub(super) struct Xml(String);

impl Xml {
    pub(super) fn new() -> Self {
        Self(String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"))
    }
    pub(super) fn open(&mut self, name: &str) -> &mut Self {
        let _ = write!(self.0, "<{name}>");
        self
    }
    /// The outermost element of an answer that has S3's namespace.
    pub(super) fn root(&mut self, name: &str) -> &mut Self {
        let _ = write!(self.0, "<{name} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
        self
    }
    pub(super) fn close(&mut self, name: &str) -> &mut Self {
        let _ = write!(self.0, "</{name}>");
        self
    }
    pub(super) fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.open(name);
        escape(&mut self.0, text);
        self.close(name)
    }
    /// Text within the element that is open.
    pub(super) fn plain(&mut self, text: &str) -> &mut Self {
        escape(&mut self.0, text);
        self
    }
    pub(super) fn number(&mut self, name: &str, number: u64) -> &mut Self {
        let _ = write!(self.0, "<{name}>{number}</{name}>");
        self
    }
    /// 200 with this document.
    pub(super) fn answer(&mut self) -> Response<Reply> {
        let mut answer = Response::new(Reply::from(Bytes::from(std::mem::take(&mut self.0))));
        answer.headers_mut().insert("content-type", HeaderValue::from_static("application/xml"));
        answer
    }
}

/// Control characters as S3 writes them: readers in the wild take them, though XML 1.0 does not allow them.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_ascii_control() => {
                let _ = write!(out, "&#x{:x};", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let mut xml = Xml::new();
        xml.text("Key", "a<b>&\"c\"\r\u{1}é");
        assert!(xml.0.ends_with("<Key>a&lt;b&gt;&amp;&quot;c&quot;&#xd;&#x1;é</Key>"), "{}", xml.0);
    }
}
