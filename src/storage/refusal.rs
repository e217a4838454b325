//! An answer that is not a success, and what it means.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::error::StorageError;
use super::retry::Failure;
use crate::domain::Timestamp;

/// An HTTP answer outside 2xx. Holds the server's error code only: its message may quote the key.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub status: StatusCode,
    /// S3's error code, or empty.
    pub code: String,
    /// What the server's `Retry-After` asks for.
    pub retry_after: Option<Duration>,
    pub server_time: Option<Timestamp>,
    pub our_time: Timestamp,
    pub region: Option<String>,
    pub bucket: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {} {}", self.status.as_u16(), self.code)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8], our_time: Timestamp, bucket: &str) -> Self {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        Self {
            status,
            code: error_code(&String::from_utf8_lossy(body)),
            retry_after: text("retry-after").and_then(|v| v.trim().parse().ok()).map(Duration::from_secs),
            server_time: text("date").and_then(http_date),
            our_time,
            region: text("x-amz-bucket-region").map(|r| r.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect()),
            bucket: bucket.to_owned(),
        }
    }

    /// What it means for `operation`, with the pause that the server asks for.
    pub(super) fn to_failure(&self, operation: &'static str) -> Failure {
        Failure { error: self.to_error(operation), retry_after: self.retry_after }
    }

    /// What it means for `operation`. HEAD has no body, hence no code: there the status alone has to do.
    fn to_error(&self, operation: &'static str) -> StorageError {
        let code = || if self.code.is_empty() { format!("status {}", self.status.as_u16()) } else { self.code.clone() };
        match self.code.as_str() {
            "RequestTimeTooSkewed" => return StorageError::ClockSkew { server_time: self.server_time, our_time: self.our_time },
            "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException" => {
                return StorageError::CredentialsExpired { code: code() };
            }
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "InvalidToken"
            | "InvalidSecurity"
            | "MissingSecurityHeader"
            | "AuthorizationHeaderMalformed"
            | "NotSignedUp"
            | "InvalidClientTokenId"
            | "AccountProblem" => {
                return StorageError::CredentialsRefused { code: code() };
            }
            "NoSuchBucket" => return StorageError::NoSuchStore { store: format!("bucket {}", self.bucket) },
            "NoSuchKey" | "NoSuchVersion" => return StorageError::NoSuchObject,
            "PermanentRedirect" | "TemporaryRedirect" | "IllegalLocationConstraintException" => {
                return StorageError::WrongRegion { region: self.region.clone() };
            }
            "InvalidObjectState" => return StorageError::Archived,
            "SlowDown" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "TooManyRequests" => {
                return StorageError::Throttled { code: code() };
            }
            // idle sockets; S3 answers 400 and means "again"
            "RequestTimeout" => return StorageError::ServerFailure { status: self.status.as_u16(), code: code() },
            "BucketAlreadyExists" | "BucketAlreadyOwnedByYou" => return StorageError::AlreadyExists,
            "AccessDenied" | "AllAccessDisabled" => return StorageError::AccessDenied { operation },
            _ => {}
        }
        match self.status.as_u16() {
            301 | 307 | 308 => StorageError::WrongRegion { region: self.region.clone() },
            304 | 412 => StorageError::Changed,
            401 => StorageError::CredentialsRefused { code: code() },
            403 => StorageError::AccessDenied { operation },
            // a delete marker answers 405 to HEAD of its version
            404 | 405 if matches!(operation, "HeadObject" | "GetObject") => StorageError::NoSuchObject,
            408 | 500 | 502 | 503 | 504 => StorageError::ServerFailure { status: self.status.as_u16(), code: code() },
            429 => StorageError::Throttled { code: code() },
            status => StorageError::Refused { operation, status, code: code() },
        }
    }
}

/// The text of `<Code>`, if it looks like one. A regular XML reader would refuse the broken documents of small servers.
fn error_code(body: &str) -> String {
    let code = body.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code.trim());
    if code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_') {
        code.to_owned()
    } else {
        String::new()
    }
}

/// An IMF-fixdate, as HTTP's `Date` and `Last-Modified` have it.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text.trim()).ok().map(|zoned| Timestamp(zoned.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, body: &str) -> Refusal {
        let mut headers = HeaderMap::new();
        headers.insert("date", "Sat, 21 Nov 2026 19:33:10 GMT".parse().unwrap());
        Refusal::read(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), Timestamp::from_unix(0), "b")
    }

    #[test]
    fn codes_mean_what_s3_says_they_mean() {
        let of =
            |status, code: &str| refusal(status, &format!("<Error><Code>{code}</Code><Key>patient</Key></Error>")).to_error("GetObject");
        assert!(matches!(of(403, "RequestTimeTooSkewed"), StorageError::ClockSkew { server_time: Some(_), .. }));
        assert!(matches!(of(400, "ExpiredToken"), StorageError::CredentialsExpired { .. }));
        assert!(matches!(of(403, "SignatureDoesNotMatch"), StorageError::CredentialsRefused { .. }));
        assert!(matches!(of(403, "AccessDenied"), StorageError::AccessDenied { operation: "GetObject" }));
        assert!(matches!(of(404, "NoSuchBucket"), StorageError::NoSuchStore { .. }));
        assert!(matches!(of(404, "NoSuchKey"), StorageError::NoSuchObject));
        assert!(matches!(of(503, "SlowDown"), StorageError::Throttled { .. }));
        assert!(matches!(of(500, "InternalError"), StorageError::ServerFailure { status: 500, .. }));
        assert!(matches!(of(412, "PreconditionFailed"), StorageError::Changed));
        assert!(matches!(of(418, "Teapot"), StorageError::Refused { status: 418, .. }));
    }

    #[test]
    fn a_servers_message_never_gets_through() {
        let odd = refusal(403, "<Error><Code>Jane Doe's record</Code></Error>");
        assert_eq!(odd.code, "");
        assert!(!format!("{odd:?} {}", odd.to_error("GetObject")).contains("Jane"));
    }

    #[test]
    fn head_has_no_body_and_still_an_error() {
        assert!(matches!(refusal(404, "").to_error("HeadObject"), StorageError::NoSuchObject));
        assert!(matches!(refusal(403, "").to_error("HeadObject"), StorageError::AccessDenied { .. }));
        assert!(matches!(refusal(404, "").to_error("GetObjectRetention"), StorageError::Refused { status: 404, .. }));
    }
}
