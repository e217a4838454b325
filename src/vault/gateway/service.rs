//! One request: who asks, what for, and the answer.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::super::VaultView;
use super::answers::{S3Error, Xml};
use super::body::Reply;
use super::facts::Gathered;
use super::listing::owner;
use super::overlay::Overlay;
use super::request::{Ask, Operation, Setting, Target};
use super::sigv4::{self, GatewayKeys, Payload, Signed};
use crate::storage::Now;

/// Bytes of a refused request's body that are read before the answer, so that the tool gets to see it.
const DRAIN: u64 = 16 << 20;
/// And how long.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// All that answers need. Cheap to clone.
#[derive(Clone)]
pub(super) struct Service(Arc<Inner>);

pub(super) struct Inner {
    pub view: VaultView,
    pub bucket: String,
    pub region: String,
    pub hosts: Vec<String>,
    pub keys: GatewayKeys,
    pub overlay: Option<Overlay>,
    pub gathered: Gathered,
    pub on_bytes: Arc<dyn Fn(u64) + Send + Sync>,
    pub now: Now,
    pub numbers: AtomicU64,
}

impl Deref for Service {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Service {
    pub(super) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Reply> {
        let number = format!("{:016X}", self.numbers.fetch_add(1, Ordering::Relaxed));
        let (parts, mut body) = request.into_parts();
        let mut answer = match self.decide(&parts, &mut body).await {
            Ok(answer) => answer,
            Err(error) => {
                let mut answer = error.answer(parts.uri.path(), &number);
                if !drained(&parts, &mut body).await {
                    answer.headers_mut().insert("connection", HeaderValue::from_static("close"));
                }
                answer
            }
        };
        let headers = answer.headers_mut();
        headers.insert("server", HeaderValue::from_static("firedrill"));
        headers.insert("x-amz-request-id", HeaderValue::try_from(number).expect("hexadecimal digits are a header"));
        answer
    }

    async fn decide(&self, parts: &Parts, body: &mut Incoming) -> Result<Response<Reply>, S3Error> {
        let method = parts.method.as_str();
        // a browser's question, which comes unsigned
        if method == "OPTIONS" {
            return Err(S3Error::AccessDenied);
        }
        let query = parts.uri.query().unwrap_or_default();
        let signed = Signed { method, path: parts.uri.path(), query, headers: &parts.headers };
        let payload = sigv4::check(signed, &self.keys, (self.now)()).inspect_err(|_| self.gathered.bad_signature())?;
        let ask = Ask::read(parts, &self.bucket, &self.hosts)?;
        let operation = Operation::of(method, &ask, parts.headers.contains_key("x-amz-copy-source"));
        self.gathered.request(operation.name());
        self.carry_out(operation, &ask, parts, payload, body).await
    }

    async fn carry_out(
        &self,
        operation: Operation,
        ask: &Ask,
        parts: &Parts,
        payload: Payload,
        body: &mut Incoming,
    ) -> Result<Response<Reply>, S3Error> {
        use Operation as O;
        let key = match &ask.target {
            Target::Object(key) => Some(key.as_str()),
            Target::Service | Target::Bucket => None,
        };
        match (operation, key, &self.overlay) {
            (O::HeadObject, Some(key), _) => self.object(key, ask, &parts.headers, true).await,
            (O::GetObject, Some(key), _) => self.object(key, ask, &parts.headers, false).await,
            (O::List(form), ..) => self.list(ask, form).await,
            (O::ListBuckets, ..) => Ok(self.buckets()),
            (O::HeadBucket, ..) => {
                let mut answer = Response::new(Reply::Nothing);
                answer.headers_mut().insert("x-amz-bucket-region", self.region_header());
                Ok(answer)
            }
            (O::Location, ..) => Ok(self.location()),
            (O::Uploads, ..) => Ok(self.uploads()),
            (O::Parts, ..) => Err(S3Error::NoSuchUpload),
            (O::Setting(name, setting), ..) => self.setting(name, setting, key).await,
            (O::PutObject, Some(key), Some(overlay)) => self.keep(overlay, key, &parts.headers, payload, body).await,
            (O::DeleteObject, Some(key), Some(overlay)) => self.forget(overlay, key),
            (O::DeleteObjects, _, Some(overlay)) => self.forget_all(overlay, &parts.headers, payload, body).await,
            (O::PutObject | O::DeleteObject | O::DeleteObjects | O::Write(_) | O::Options | O::HeadObject | O::GetObject, ..) => {
                self.gathered.refused(operation.name(), key);
                Err(S3Error::ReadOnly)
            }
            (O::Unknown(_), ..) => Err(S3Error::NotImplemented),
        }
    }

    fn region_header(&self) -> HeaderValue {
        HeaderValue::try_from(&self.region).unwrap_or(HeaderValue::from_static("us-east-1"))
    }

    fn buckets(&self) -> Response<Reply> {
        let mut xml = Xml::new();
        xml.root("ListAllMyBucketsResult");
        owner(&mut xml);
        xml.open("Buckets").open("Bucket").text("Name", &self.bucket).text("CreationDate", "2000-01-01T00:00:00.000Z");
        xml.close("Bucket").close("Buckets").close("ListAllMyBucketsResult").answer()
    }

    /// The oldest region has no name here, as in S3.
    fn location(&self) -> Response<Reply> {
        let region = if self.region == "us-east-1" { "" } else { self.region.as_str() };
        let mut answer = Xml::new().root("LocationConstraint").plain(region).close("LocationConstraint").answer();
        answer.headers_mut().insert("x-amz-bucket-region", self.region_header());
        answer
    }

    fn uploads(&self) -> Response<Reply> {
        let mut xml = Xml::new();
        xml.root("ListMultipartUploadsResult").text("Bucket", &self.bucket).text("KeyMarker", "").text("UploadIdMarker", "");
        xml.number("MaxUploads", 1000).text("IsTruncated", "false").close("ListMultipartUploadsResult").answer()
    }

    async fn setting(&self, name: &'static str, setting: Setting, key: Option<&str>) -> Result<Response<Reply>, S3Error> {
        if let Some(key) = key {
            self.exists(key, name).await?;
        }
        let mut xml = Xml::new();
        Ok(match setting {
            Setting::Missing(code) => return Err(S3Error::NotSet(code)),
            Setting::Empty(root) => xml.root(root).close(root).answer(),
            Setting::Tags => xml.root("Tagging").open("TagSet").close("TagSet").close("Tagging").answer(),
            Setting::Payer => {
                xml.root("RequestPaymentConfiguration").text("Payer", "BucketOwner").close("RequestPaymentConfiguration").answer()
            }
            Setting::Acl => {
                xml.root("AccessControlPolicy");
                owner(&mut xml);
                xml.open("AccessControlList").open("Grant");
                xml.open("Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\"");
                xml.text("ID", "firedrill").text("DisplayName", "firedrill").close("Grantee").text("Permission", "READ");
                xml.close("Grant").close("AccessControlList").close("AccessControlPolicy").answer()
            }
        })
    }

    /// Whether there is such an object, for questions about it.
    pub(super) async fn exists(&self, key: &str, operation: &'static str) -> Result<(), S3Error> {
        self.within(key, operation)?;
        match self.overlay.as_ref().and_then(|overlay| overlay.get(key)) {
            Some(Some(_)) => Ok(()),
            Some(None) => Err(S3Error::NoSuchKey),
            None => self.view.first(key).await.map(drop).map_err(|error| self.upstream(key, error)),
        }
    }
}

/// Reads what a tool still sends, within bounds: else it may never see the answer. `false` where there is more.
async fn drained(parts: &Parts, body: &mut Incoming) -> bool {
    use http_body::Body as _;
    if body.is_end_stream() {
        return true;
    }
    // it waits for our word before it sends anything
    if parts.headers.contains_key("expect") {
        return false;
    }
    let reading = async {
        let mut left = DRAIN;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
        true
    };
    tokio::time::timeout(DRAIN_TIME, reading).await.unwrap_or(false)
}
