//! An S3-compatible bucket, to read from.
//!
//! HEAD and GET go through `object_store`. Listings do not: one key with an empty path segment would fail the whole
//! listing there. What S3 says about locks and versioning is not in `object_store` at all. Both are signed calls of our
//! own over the same client.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::{BodyExt, Limited};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer};
use object_store::client::{HttpClient, HttpRequestBody};
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectStore, RetryConfig};

use super::credentials::{self, Guarded};
use super::error::{StorageError, of_http, of_object_store};
use super::http::{Connector, HeaderFacts, Reach, Seen};
use super::retry::{Failure, Patience};
use super::{Begin, Depth, Environment, Listed, Listing, Now, Page, PageAsk, Settings, Span, Tuning, can_be_requested, xml};
use crate::domain::{Addressing, ObjectRef, Timestamp, Transport};

/// Entries of a page of a listing: what S3 gives at most.
pub(super) const PAGE: usize = 1_000;
/// Largest answer to a call that is no GetObject.
const ANSWER_LIMIT: usize = 16 << 20;

/// An S3-compatible bucket, read-only by type.
#[derive(Clone)]
pub struct Bucket {
    store: AmazonS3,
    http: HttpClient,
    seen: Arc<Seen>,
    name: String,
    region: String,
    /// URL of the bucket, without a slash at its end.
    base: String,
    /// Host and port, for messages.
    endpoint: String,
    encrypted: bool,
    credentials: &'static str,
    tuning: Tuning,
}

/// A name that does not resolve, or a port where nobody listens, will not get better while we wait. Once a server has
/// answered, it may well come back.
const FIRST_CONTACT: Duration = Duration::from_secs(3);

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("name", &self.name).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// What a HEAD, or the head of a GET, says about an object version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the whole object.
    pub size: u64,
    /// Entity tag.
    pub etag: Option<String>,
    /// When it was stored, as the server says.
    pub stored_at: Timestamp,
    /// Everything else.
    pub facts: HeaderFacts,
}

/// A part of one object version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Full key.
    pub key: String,
    /// Version, where one was pinned.
    pub version: Option<String>,
    /// Entity tag that the object must have.
    pub etag: Option<String>,
    /// Bytes, at least one.
    pub range: Range<u64>,
}

/// The bytes of a part, as they come.
pub struct Body {
    /// What the answer's head says.
    pub head: Head,
    /// The bytes. May end early: who reads, counts.
    pub stream: Pin<Box<dyn Stream<Item = Result<Bytes, StorageError>> + Send>>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("head", &self.head).finish_non_exhaustive()
    }
}

/// One signed call.
pub(super) struct Call<'a> {
    pub operation: &'static str,
    pub method: Method,
    pub key: Option<&'a str>,
    pub query: Vec<(&'a str, &'a str)>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// SHA-256 of the body, where it is known already.
    pub digest: Option<[u8; 32]>,
}

impl<'a> Call<'a> {
    pub(super) fn new(operation: &'static str, method: Method, key: Option<&'a str>) -> Self {
        Self { operation, method, key, query: Vec::new(), headers: HeaderMap::new(), body: Bytes::new(), digest: None }
    }
    pub(super) fn with(mut self, name: &'a str, value: &'a str) -> Self {
        self.query.push((name, value));
        self
    }
}

impl Bucket {
    /// Prepares a connection: settings are checked and credentials located, nothing is asked of the network yet.
    ///
    /// # Errors
    /// [`StorageError`] for settings that cannot work and for missing credentials.
    pub fn connect(name: &str, settings: &Settings, env: &Environment, now: Now) -> Result<Self, StorageError> {
        let place = credentials::locate(settings, env, credentials::on_ec2)?;
        let region = region(settings, env, &place);
        let url = endpoint_url(settings, env, &region)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let endpoint = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        let origin = url.as_str().trim_end_matches('/');
        let (base, tls_host) = match settings.addressing {
            Addressing::Path => (format!("{origin}/{name}"), host),
            Addressing::VirtualHost => (origin.replacen("://", &format!("://{name}."), 1), format!("{name}.{host}")),
        };
        let connector = Arc::new(Connector::new(settings, tls_host.trim_matches(['[', ']']), name, Now::clone(&now))?);
        let http = connector.client(settings.tuning.connect_timeout, Reach::Storage { plain: settings.allow_http })?;
        let seen = Arc::clone(&connector.seen);
        let unusable = |_| StorageError::Settings { what: "bucket name, region or endpoint".into(), source: None };
        let builder = || {
            AmazonS3Builder::new()
                .with_bucket_name(name)
                .with_region(&region)
                .with_virtual_hosted_style_request(settings.addressing == Addressing::VirtualHost)
                .with_endpoint(if settings.addressing == Addressing::VirtualHost { base.as_str() } else { origin })
                .with_client_options(ClientOptions::new().with_timeout_disabled().with_allow_http(settings.allow_http))
                // trying again is ours: pinned to version and entity tag, and obeying Retry-After
                .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
                .with_http_connector(Shared(Arc::clone(&connector)))
        };
        let found = credentials::apply(&place, builder(), env, &region, &now)?.build().map_err(unusable)?;
        let guarded = Guarded { inner: Arc::clone(found.credentials()), from: place.word(), limit: 3 * settings.tuning.connect_timeout };
        let store = builder().with_credentials(Arc::new(guarded)).build().map_err(unusable)?;
        Ok(Self {
            store,
            http,
            seen,
            name: name.to_owned(),
            region,
            base,
            endpoint,
            encrypted: url.scheme() == "https",
            credentials: place.word(),
            tuning: settings.tuning,
        })
    }

    /// The bucket's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The limits it was connected with.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// How it is reached, as far as that is known by now.
    pub fn transport(&self) -> Transport {
        let tls = self.seen.tls();
        Transport {
            store: "s3".into(),
            endpoint: self.endpoint.clone(),
            encrypted: Some(self.encrypted),
            tls_version: tls.version.map(str::to_owned),
            server_certificate: tls.certificate,
            credentials: self.credentials.into(),
            clock_offset: self.seen.clock_offset(),
        }
    }

    /// Hands every entry below `prefix` to `visit`, page by page. `prefix` is a plain string: it need not end at a slash.
    ///
    /// # Errors
    /// [`StorageError`]; some entries may have been visited by then.
    pub async fn list(&self, prefix: &str, depth: Depth, visit: &mut (dyn FnMut(Listing) + Send)) -> Result<(), StorageError> {
        let mut ask = PageAsk { prefix: prefix.to_owned(), depth, from: Begin::Start, limit: PAGE };
        loop {
            let page = self.page(&ask).await?;
            let objects = page.objects.into_iter().map(|listed| listed.object).collect();
            visit(Listing { objects, prefixes: page.prefixes, skipped: page.skipped });
            match page.next {
                Some(next) => ask.from = Begin::Token(next),
                None => return Ok(()),
            }
        }
    }

    /// One page of what lies below a prefix.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn page(&self, ask: &PageAsk) -> Result<Page, StorageError> {
        const OPERATION: &str = "ListObjectsV2";
        let limit = ask.limit.clamp(1, PAGE).to_string();
        let text = self
            .patience()
            .run(|| async {
                let mut call = Call::new(OPERATION, Method::GET, None).with("list-type", "2").with("encoding-type", "url");
                call.query.extend([("prefix", ask.prefix.as_str()), ("max-keys", limit.as_str())]);
                if ask.depth == Depth::OneLevel {
                    call.query.push(("delimiter", "/"));
                }
                match &ask.from {
                    Begin::Start => {}
                    Begin::After(key) => call.query.push(("start-after", key)),
                    Begin::Token(token) => call.query.push(("continuation-token", token)),
                }
                self.send_text(call).await
            })
            .await?;
        let page: xml::ListPage = xml::read(OPERATION, &text)?;
        let next = page.next_continuation_token.clone().filter(|_| page.is_truncated);
        if page.is_truncated && next.as_ref().is_none_or(|next| ask.from == Begin::Token(next.clone())) {
            return Err(StorageError::BadAnswer { operation: OPERATION, why: "it goes on without saying where".into() });
        }
        Ok(Page { next, ..page_of(page, &ask.prefix) })
    }

    /// Asks whether the bucket answers at all, with the most telling error when it does not.
    ///
    /// # Errors
    /// [`StorageError`], by a call that has an error document.
    pub async fn probe(&self, prefix: &str) -> Result<(), StorageError> {
        self.patience().run(|| self.probe_once(prefix)).await
    }

    async fn probe_once(&self, prefix: &str) -> Result<(), Failure> {
        let call = Call::new("ListObjectsV2", Method::GET, None).with("list-type", "2").with("max-keys", "1").with("prefix", prefix);
        self.send_text(call).await.map(drop)
    }

    /// What the server says about one object version; the latest where none is given.
    ///
    /// # Errors
    /// [`StorageError::NoSuchObject`] and others.
    pub async fn head(&self, key: &str, version: Option<&str>) -> Result<Head, StorageError> {
        const OPERATION: &str = "HeadObject";
        let path = object_path(key)?;
        self.patience()
            .run(|| async {
                let options = GetOptions { head: true, version: version.map(str::to_owned), ..GetOptions::default() };
                match self.store.get_opts(&path, options).await {
                    Ok(found) => Ok(head_of(&found.meta, &found.extensions)),
                    Err(error) => {
                        let failure = of_object_store(OPERATION, &self.endpoint, &error);
                        Err(self.explained(key, failure).await)
                    }
                }
            })
            .await
    }

    /// An answer to HEAD has no body, so it cannot tell expired credentials from missing rights, nor a missing bucket
    /// from a missing object. A listing can.
    async fn explained(&self, key: &str, failure: Failure) -> Failure {
        match failure.error {
            StorageError::AccessDenied { .. }
            | StorageError::Refused { .. }
            | StorageError::CredentialsRefused { .. }
            | StorageError::NoSuchObject => match self.probe_once(key).await {
                Ok(()) => failure,
                Err(other) if matches!(other.error, StorageError::AccessDenied { .. }) => failure,
                Err(telling) => telling,
            },
            _ => failure,
        }
    }

    /// Begins one GET of a part of an object version. One try: who reads knows where to go on.
    ///
    /// # Errors
    /// [`Failure`], with the pause that the server asks for.
    pub async fn get(&self, wanted: &Wanted) -> Result<Body, Failure> {
        const OPERATION: &str = "GetObject";
        let path = object_path(&wanted.key)?;
        let options = GetOptions {
            range: Some(GetRange::Bounded(wanted.range.clone())),
            version: wanted.version.clone(),
            if_match: wanted.etag.clone(),
            ..GetOptions::default()
        };
        let answer = self.store.get_opts(&path, options).await.map_err(|e| of_object_store(OPERATION, &self.endpoint, &e))?;
        let head = head_of(&answer.meta, &answer.extensions);
        let endpoint = self.endpoint.clone();
        let stream = answer.into_stream().map_err(move |e| of_object_store(OPERATION, &endpoint, &e).error).boxed();
        Ok(Body { head, stream })
    }

    /// Begins one GET of an object whose size, and where `version` is `None` also whose version, only the answer tells. One
    /// try. Where the object has no such bytes the body is empty.
    ///
    /// # Errors
    /// As [`Bucket::get`].
    pub async fn open(&self, key: &str, version: Option<&str>, span: &Span) -> Result<Body, Failure> {
        const OPERATION: &str = "GetObject";
        let path = object_path(key)?;
        let range = match span {
            Span::Whole => None,
            Span::Bounded(range) => Some(GetRange::Bounded(range.clone())),
            Span::From(start) => Some(GetRange::Offset(*start)),
            Span::Last(length) => Some(GetRange::Suffix(*length)),
        };
        let options = GetOptions { range, version: version.map(str::to_owned), ..GetOptions::default() };
        let answer = match self.store.get_opts(&path, options).await.map_err(|e| of_object_store(OPERATION, &self.endpoint, &e)) {
            Ok(answer) => answer,
            Err(Failure { error: StorageError::Refused { status: 416, .. }, .. }) => {
                let head = self.head(key, version).await?;
                return Ok(Body { head, stream: futures_util::stream::empty().boxed() });
            }
            Err(failure) => return Err(failure),
        };
        let head = head_of(&answer.meta, &answer.extensions);
        let endpoint = self.endpoint.clone();
        let stream = answer.into_stream().map_err(move |e| of_object_store(OPERATION, &endpoint, &e).error).boxed();
        Ok(Body { head, stream })
    }

    /// A whole small object, the latest version where none is given, and what the server says about it.
    ///
    /// # Errors
    /// [`StorageError::BadAnswer`] where it is larger than `limit`; others.
    pub async fn get_small(&self, key: &str, version: Option<&str>, limit: usize) -> Result<(Head, Bytes), StorageError> {
        const OPERATION: &str = "GetObject";
        let path = object_path(key)?;
        self.patience()
            .run(|| async {
                let options = GetOptions { version: version.map(str::to_owned), ..GetOptions::default() };
                let answer = self.store.get_opts(&path, options).await.map_err(|e| of_object_store(OPERATION, &self.endpoint, &e))?;
                let head = head_of(&answer.meta, &answer.extensions);
                if head.size > limit as u64 {
                    return Err(StorageError::TooLarge { limit: limit as u64 }.into());
                }
                let mut bytes = Vec::with_capacity(head.size as usize);
                let mut stream = answer.into_stream();
                while let Some(chunk) = stream.next().await {
                    let chunk = chunk.map_err(|e| of_object_store(OPERATION, &self.endpoint, &e))?;
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() as u64 > head.size {
                        break;
                    }
                }
                if bytes.len() as u64 != head.size {
                    let why = format!("{} bytes instead of {}", bytes.len(), head.size);
                    return Err(StorageError::BadAnswer { operation: OPERATION, why }.into());
                }
                Ok((head, bytes.into()))
            })
            .await
    }

    pub(super) async fn ask(&self, operation: &'static str, key: Option<&str>, query: &[(&str, &str)]) -> Result<String, StorageError> {
        self.patience()
            .run(|| async {
                let mut call = Call::new(operation, Method::GET, key);
                call.query = query.to_vec();
                self.send_text(call).await
            })
            .await
    }

    pub(super) fn patience(&self) -> Patience {
        let patience = Patience::for_requests(&self.tuning);
        if self.seen.answered() { patience } else { Patience { unreachable: patience.total.min(FIRST_CONTACT), ..patience } }
    }

    async fn send_text(&self, call: Call<'_>) -> Result<String, Failure> {
        let (_, body) = self.send(call).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Signs and sends one call, and reads its answer. One try.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<(HeaderMap, Bytes), Failure> {
        let Call { operation, method, key, query, headers, body, digest } = call;
        let mut url = self.base.clone();
        if let Some(key) = key {
            if !can_be_requested(key) {
                return Err(StorageError::UnusableName { why: "empty, `.` or `..` path segment" }.into());
            }
            url.push('/');
            url.push_str(&xml::url_encode(key, true));
        }
        for (i, (name, value)) in query.iter().enumerate() {
            url.push(if i == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            url.push_str(&xml::url_encode(value, false));
        }
        let empty = body.is_empty();
        let body = if empty { HttpRequestBody::empty() } else { HttpRequestBody::from(body) };
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .body(body)
            .map_err(|_| StorageError::UnusableName { why: "it makes no valid URL" })?;
        *request.headers_mut() = headers;
        if empty && matches!(*request.method(), Method::PUT | Method::POST) {
            // the client leaves it out, and servers insist
            request.headers_mut().insert("content-length", HeaderValue::from_static("0"));
        }
        let credential = self.store.credentials().get_credential().await.map_err(|e| of_object_store(operation, &self.endpoint, &e))?;
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .try_authorize(&mut request, digest.as_ref().map(<[u8; 32]>::as_slice))
            .map_err(|e| of_object_store(operation, &self.endpoint, &e))?;
        let answer = self.http.execute(request).await.map_err(|e| of_http(operation, &self.endpoint, &e))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|_| StorageError::Unreachable {
            endpoint: self.endpoint.clone(),
            why: "the answer broke off",
            source: None,
        })?;
        Ok((parts.headers, body.to_bytes()))
    }
}

/// `HttpConnector` for a shared connector: the trait is not implemented for `Arc`.
#[derive(Debug)]
struct Shared(Arc<Connector>);

impl object_store::client::HttpConnector for Shared {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        self.0.connect(options)
    }
}

fn region(settings: &Settings, env: &Environment, place: &credentials::Place) -> String {
    let from_profile = || match place {
        #[cfg(feature = "aws-profiles")]
        credentials::Place::Profile(name) => super::profile::region(name, &credentials::SharedFiles::of(env)),
        _ => None,
    };
    let named = settings.region.clone().or_else(|| env.get("AWS_REGION").or(env.get("AWS_DEFAULT_REGION")).map(str::to_owned));
    named.or_else(from_profile).unwrap_or_else(|| "us-east-1".to_owned())
}

fn endpoint_url(settings: &Settings, env: &Environment, region: &str) -> Result<url::Url, StorageError> {
    let named = settings.endpoint.as_deref().or(env.get("AWS_ENDPOINT_URL_S3")).or(env.get("AWS_ENDPOINT_URL"));
    let text = named.map_or_else(|| format!("https://s3.{region}.amazonaws.com"), str::to_owned);
    let bad = |why: &str| StorageError::Settings { what: format!("endpoint: {why}"), source: None };
    let url = url::Url::parse(&text).map_err(|_| bad("it is no URL; write it as https://s3.example.org"))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("it names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it must hold no user, password, query or fragment"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if settings.allow_http => Ok(url),
        "http" => Err(StorageError::PlainHttpNotAllowed { endpoint: url.to_string() }),
        _ => Err(bad("it is neither https nor http")),
    }
}

fn object_path(key: &str) -> Result<Path, StorageError> {
    if !can_be_requested(key) {
        return Err(StorageError::UnusableName { why: "empty, `.` or `..` path segment" });
    }
    Path::parse(key).map_err(|_| StorageError::UnusableName { why: "it holds characters that no key may have" })
}

fn head_of(meta: &object_store::ObjectMeta, extensions: &object_store::Extensions) -> Head {
    let facts = extensions.get::<HeaderFacts>().cloned().unwrap_or_default();
    Head { size: meta.size, etag: meta.e_tag.clone(), stored_at: Timestamp::from_unix(meta.last_modified.timestamp()), facts }
}

fn page_of(answer: xml::ListPage, prefix: &str) -> Page {
    let encoded = answer.encoding_type.as_deref() == Some("url");
    let plain = |key: &str| if encoded { xml::url_decode(key) } else { Some(key.to_owned()) };
    let mut page = Page::default();
    for object in answer.contents {
        let stored_at = xml::instant(&object.last_modified);
        match (plain(&object.key), stored_at) {
            // "directories" that some tools make
            (Some(key), _) if object.size == 0 && key.ends_with('/') && key.starts_with(prefix) => {}
            (Some(key), Some(stored_at)) if can_be_requested(&key) && key.starts_with(prefix) => {
                page.objects.push(Listed { object: ObjectRef { key, size: object.size, stored_at }, etag: object.etag });
            }
            _ => page.skipped += 1,
        }
    }
    for common in answer.common_prefixes {
        match plain(&common.prefix) {
            Some(p) if p.starts_with(prefix) && can_be_requested(p.strip_suffix('/').unwrap_or(&p)) => page.prefixes.push(p),
            _ => page.skipped += 1,
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: &str) -> Settings {
        Settings { endpoint: Some(endpoint.into()), ..Settings::default() }
    }

    fn connect(settings: &Settings) -> Result<Bucket, StorageError> {
        let env = Environment::new([("AWS_ACCESS_KEY_ID".into(), "id".into()), ("AWS_SECRET_ACCESS_KEY".into(), "hunter2".into())]);
        Bucket::connect("b", settings, &env, Arc::new(|| Timestamp::from_unix(0)))
    }

    #[test]
    fn plain_http_only_when_allowed() {
        let plain = settings("http://127.0.0.1:9");
        assert!(matches!(connect(&plain), Err(StorageError::PlainHttpNotAllowed { .. })));
        let bucket = connect(&Settings { allow_http: true, ..plain }).unwrap();
        assert_eq!(bucket.transport().encrypted, Some(false));
        assert!(!format!("{bucket:?}").contains("hunter2"));
    }

    #[test]
    fn endpoints_that_cannot_work_are_refused() {
        for bad in ["s3.example.org", "ftp://h", "https://user:hunter2@h", "https://h?x=1"] {
            let error = connect(&settings(bad)).unwrap_err();
            assert!(matches!(error, StorageError::Settings { .. }), "{bad}");
            assert!(!format!("{error:?} {error}").contains("hunter2"));
        }
    }

    #[test]
    fn virtual_hosts_put_the_bucket_into_the_name() {
        let bucket = connect(&Settings { addressing: Addressing::VirtualHost, ..settings("https://s3.example.org") }).unwrap();
        assert_eq!(bucket.base, "https://b.s3.example.org");
        assert_eq!(connect(&settings("https://s3.example.org/")).unwrap().base, "https://s3.example.org/b");
        assert_eq!(connect(&Settings::default()).unwrap().base, "https://s3.us-east-1.amazonaws.com/b");
    }
}
