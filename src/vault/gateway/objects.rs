//! HEAD and GET of objects.

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::super::chain::Entry;
use super::super::error::VaultError;
use super::answers::{S3Error, Xml};
use super::body::{CutOff, Reply};
use super::overlay::Kept;
use super::request::Ask;
use super::service::Service;
use crate::domain::Timestamp;
use crate::storage::{Span, StorageError};

/// What HEAD and GET say of an object, wherever it is.
struct Shown<'a> {
    size: u64,
    etag: String,
    stored_at: Timestamp,
    version: Option<&'a str>,
    storage_class: Option<&'a str>,
    content: &'a [(String, String)],
}

impl<'a> Shown<'a> {
    fn entry(entry: &'a Entry) -> Self {
        Self {
            size: entry.size,
            etag: etag(entry.etag.as_deref(), entry.size, entry.stored_at),
            stored_at: entry.stored_at,
            version: entry.version.as_deref(),
            storage_class: entry.storage_class.as_deref(),
            content: &entry.content,
        }
    }
    fn kept(kept: &'a Kept) -> Self {
        Self {
            size: kept.bytes.len() as u64,
            etag: kept.etag.clone(),
            stored_at: kept.stored_at,
            version: None,
            storage_class: None,
            content: &kept.content,
        }
    }
}

/// As tools see it. A local directory has none that a listing could show as well: there it is made of size and time.
pub(super) fn etag(etag: Option<&str>, size: u64, stored_at: Timestamp) -> String {
    match etag {
        Some(etag) if etag.ends_with('"') => etag.to_owned(),
        _ => format!("\"{size:x}-{:x}\"", stored_at.0.as_nanosecond()),
    }
}

/// As HTTP has it: `Sat, 21 Nov 2026 19:33:10 GMT`.
fn http_date(at: Timestamp) -> String {
    at.0.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// What a `Range` header means. What is no range of bytes, and several at once, mean the whole, as in S3.
pub(super) fn span(header: Option<&str>) -> Span {
    let range = || {
        let (start, end) = header?.trim().strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| text.trim().bytes().all(|b| b.is_ascii_digit()).then(|| text.trim().parse::<u64>().unwrap_or(u64::MAX));
        Some(match (start.trim(), end.trim()) {
            ("", "") => return None,
            ("", last) => Span::Last(number(last)?),
            (start, "") => Span::From(number(start)?),
            (start, end) => match (number(start)?, number(end)?) {
                (start, end) if start > end => return None,
                // some write the largest number that they know for "to the end", and not every server can read it
                (start, end) if end >= i64::MAX as u64 => Span::From(start),
                (start, end) => Span::Bounded(start..end + 1),
            },
        })
    };
    range().unwrap_or(Span::Whole)
}

/// Which conditions a request sets.
#[derive(Default)]
struct Conditions<'a> {
    if_match: Option<&'a str>,
    if_none_match: Option<&'a str>,
    modified_since: Option<Timestamp>,
    unmodified_since: Option<Timestamp>,
}

/// What they come to.
enum Met {
    Yes,
    NotModified,
    No,
}

impl<'a> Conditions<'a> {
    fn read(headers: &'a HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let date = |name: &str| text(name).and_then(|v| jiff::fmt::rfc2822::parse(v.trim()).ok()).map(|zoned| Timestamp(zoned.timestamp()));
        Self {
            if_match: text("if-match"),
            if_none_match: text("if-none-match"),
            modified_since: date("if-modified-since"),
            unmodified_since: date("if-unmodified-since"),
        }
    }
    fn any(&self) -> bool {
        self.if_match.or(self.if_none_match).is_some() || self.modified_since.or(self.unmodified_since).is_some()
    }
    /// In the order of RFC 9110, section 13.2.2.
    fn met(&self, shown: &Shown<'_>) -> Met {
        let names =
            |list: &str| list.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_matches('"') == shown.etag.trim_matches('"'));
        let later = |than: Timestamp| shown.stored_at.0.as_second() > than.0.as_second();
        match (self.if_match, self.unmodified_since) {
            (Some(list), _) if !names(list) => return Met::No,
            (None, Some(since)) if later(since) => return Met::No,
            _ => {}
        }
        match (self.if_none_match, self.modified_since) {
            (Some(list), _) if names(list) => Met::NotModified,
            (None, Some(since)) if !later(since) => Met::NotModified,
            _ => Met::Yes,
        }
    }
}

impl Service {
    /// HEAD or GET.
    pub(super) async fn object(&self, key: &str, ask: &Ask, headers: &HeaderMap, head_only: bool) -> Result<Response<Reply>, S3Error> {
        self.within(key, if head_only { "HeadObject" } else { "GetObject" })?;
        let conditions = Conditions::read(headers);
        let part = match ask.parameter("partNumber") {
            None => false,
            Some("1") => true,
            Some(number) if number.parse::<u32>().is_ok_and(|n| (2..=10_000).contains(&n)) => return Err(S3Error::InvalidPartNumber),
            Some(_) => return Err(S3Error::InvalidArgument),
        };
        let range = headers.get("range").and_then(|v| v.to_str().ok());
        let span = if part { Span::From(0) } else { span(range) };
        let version = ask.parameter("versionId").filter(|version| !version.is_empty());
        let gate = |shown: &Shown<'_>| {
            // "null" is what a listing calls a version whose id it does not know
            if version.is_some_and(|asked| asked != "null" && Some(asked) != shown.version) {
                return Err(S3Error::NoSuchVersion);
            }
            match conditions.met(shown) {
                Met::Yes => Ok(None),
                Met::No => Err(S3Error::PreconditionFailed),
                Met::NotModified => {
                    let mut answer = Response::new(Reply::Nothing);
                    *answer.status_mut() = StatusCode::NOT_MODIFIED;
                    describe(answer.headers_mut(), shown, ask);
                    Ok(Some(answer))
                }
            }
        };
        match self.overlay.as_ref().and_then(|overlay| overlay.get(key)) {
            Some(None) => return Err(self.absent()),
            Some(Some(kept)) => {
                let shown = Shown::kept(&kept);
                if let Some(answer) = gate(&shown)? {
                    return Ok(answer);
                }
                let Some(range) = span.within(shown.size) else { return Ok(no_such_range(shown.size)) };
                let bytes = kept.bytes.slice(range.start as usize..range.end as usize);
                return Ok(begin(&shown, ask, &span, range, if head_only { Reply::Nothing } else { Reply::from(bytes) }));
            }
            None => {}
        }
        if head_only || conditions.any() || version.is_some() {
            let entry = self.view.first(key).await.map_err(|error| self.upstream(key, error))?;
            let shown = Shown::entry(&entry);
            if let Some(answer) = gate(&shown)? {
                return Ok(answer);
            }
            if head_only {
                let Some(range) = span.within(shown.size) else { return Ok(no_such_range(shown.size)) };
                return Ok(begin(&shown, ask, &span, range, Reply::Nothing));
            }
        }
        let flow = self.view.flow(key, &span).await.map_err(|error| self.upstream(key, error))?;
        let entry = std::sync::Arc::clone(&flow.entry);
        let shown = Shown::entry(&entry);
        let Some(range) = flow.range.clone() else { return Ok(no_such_range(shown.size)) };
        let service = self.clone();
        let key = key.to_owned();
        let bytes = flow.bytes().map(move |frame: Result<Bytes, VaultError>| match frame {
            Ok(bytes) => {
                service.gathered.served(bytes.len());
                (service.on_bytes)(bytes.len() as u64);
                Ok(bytes)
            }
            Err(error) => {
                service.gathered.failed(&key, error);
                Err(CutOff)
            }
        });
        let reply = Reply::Flow { bytes: bytes.boxed(), left: range.end - range.start };
        Ok(begin(&shown, ask, &span, range, reply))
    }

    /// Whether tools may know of `key`. What leads to the prefix is not there; what lies beside it is not theirs.
    pub(super) fn within(&self, key: &str, operation: &'static str) -> Result<(), S3Error> {
        let prefix = self.view.prefix();
        if key.starts_with(prefix) {
            // "directories": the view does not show them
            return if key.ends_with('/') { Err(self.absent()) } else { Ok(()) };
        }
        if prefix.starts_with(key) {
            return Err(self.absent());
        }
        self.gathered.refused(operation, Some(key));
        Err(S3Error::AccessDenied)
    }

    fn absent(&self) -> S3Error {
        self.gathered.missing();
        S3Error::NoSuchKey
    }

    /// What a failure of the backup storage is to a tool, written down for the drill.
    pub(super) fn upstream(&self, key: &str, error: VaultError) -> S3Error {
        use StorageError as E;
        let told = match &error {
            VaultError::Missing { .. } => return self.absent(),
            VaultError::DeletedWhileReading { .. } => S3Error::NoSuchKey,
            VaultError::ChangedWhileReading { .. } => S3Error::Changed,
            VaultError::GaveUp { source: error, .. } | VaultError::Storage(error) => match error {
                E::Archived => S3Error::InvalidObjectState,
                E::Throttled { .. } => S3Error::SlowDown,
                E::AccessDenied { .. } | E::CredentialsRefused { .. } | E::CredentialsExpired { .. } => S3Error::AccessDenied,
                E::UnusableName { .. } => S3Error::NotImplemented,
                E::Changed => S3Error::Changed,
                _ => S3Error::InternalError,
            },
            VaultError::Pattern(_) => S3Error::InternalError,
        };
        self.gathered.failed(key, error);
        told
    }
}

fn no_such_range(size: u64) -> Response<Reply> {
    let mut xml = Xml::new();
    xml.open("Error").text("Code", "InvalidRange").text("Message", "The requested range is not satisfiable");
    let mut answer = xml.number("ActualObjectSize", size).close("Error").answer();
    *answer.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    answer.headers_mut().insert("content-range", value(&format!("bytes */{size}")));
    answer
}

/// Status and headers of an answer with these bytes.
fn begin(shown: &Shown<'_>, ask: &Ask, span: &Span, range: std::ops::Range<u64>, reply: Reply) -> Response<Reply> {
    let mut answer = Response::new(reply);
    describe(answer.headers_mut(), shown, ask);
    answer.headers_mut().insert("content-length", HeaderValue::from(range.end - range.start));
    if *span != Span::Whole {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        answer.headers_mut().insert("content-range", value(&format!("bytes {}-{}/{}", range.start, range.end - 1, shown.size)));
    }
    answer
}

fn describe(headers: &mut HeaderMap, shown: &Shown<'_>, ask: &Ask) {
    headers.insert("accept-ranges", HeaderValue::from_static("bytes"));
    headers.insert("etag", value(&shown.etag));
    headers.insert("last-modified", value(&http_date(shown.stored_at)));
    headers.insert("content-type", HeaderValue::from_static("binary/octet-stream"));
    for (name, text) in shown.content {
        // a trace of how it was once uploaded
        let text = if name == "content-encoding" { text.trim_start_matches("aws-chunked").trim_start_matches([',', ' ']) } else { text };
        if let (Ok(name), Ok(text), false) = (HeaderName::try_from(name), HeaderValue::try_from(text), text.is_empty()) {
            headers.insert(name, text);
        }
    }
    if let Some(version) = shown.version {
        headers.insert("x-amz-version-id", value(version));
    }
    if let Some(class) = shown.storage_class.filter(|class| *class != "STANDARD") {
        headers.insert("x-amz-storage-class", value(class));
    }
    for (parameter, text) in &ask.query {
        let name = match parameter.as_str() {
            "response-content-type" => "content-type",
            "response-content-language" => "content-language",
            "response-content-encoding" => "content-encoding",
            "response-content-disposition" => "content-disposition",
            "response-cache-control" => "cache-control",
            "response-expires" => "expires",
            _ => continue,
        };
        headers.insert(name, value(text));
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_as_s3_reads_them() {
        for (header, size, want) in [
            ("bytes=0-9", 100, Some(0..10)),
            ("bytes=90-200", 100, Some(90..100)),
            ("bytes=5-", 100, Some(5..100)),
            ("bytes=-7", 100, Some(93..100)),
            ("bytes=-700", 100, Some(0..100)),
            ("bytes=-0", 100, None),
            ("bytes=100-", 100, None),
            ("bytes=100-101", 100, None),
            ("bytes=0-18446744073709551615", 100, Some(0..100)),
            ("bytes=0-99999999999999999999999", 100, Some(0..100)),
            ("bytes=9-5", 100, Some(0..100)),
            ("bytes=0-1,5-6", 100, Some(0..100)),
            ("bytes=a-b", 100, Some(0..100)),
            ("bytes=-", 100, Some(0..100)),
            ("lines=1-2", 100, Some(0..100)),
            ("bytes=0-", 0, None),
        ] {
            assert_eq!(span(Some(header)).within(size), want, "{header}");
        }
        assert_eq!(span(None).within(0), Some(0..0));
    }

    proptest! {
        #[test]
        fn ranges_stay_within_the_object(start in any::<u64>(), end in any::<u64>(), size in 0u64..1000) {
            for header in [format!("bytes={start}-{end}"), format!("bytes={start}-"), format!("bytes=-{end}")] {
                if let Some(range) = span(Some(&header)).within(size) {
                    prop_assert!(range.start <= range.end && range.end <= size);
                }
            }
        }
        #[test]
        fn no_range_makes_it_panic(header in "(bytes=)?[0-9,= -]{0,30}") {
            let _ = span(Some(&header)).within(100);
        }
    }
}
