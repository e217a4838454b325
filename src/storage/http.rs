//! The HTTP client: ours in everything that matters (TLS, proxies, redirects, timeouts), `object_store`'s in the rest.
//!
//! [`Wire`] sits below `object_store` and below our own signed calls. It copies the facts that S3 puts into headers into
//! the response's extensions, which `object_store` hands through, and turns every refusal into a typed error.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http_body_util::{BodyExt, Limited};
use object_store::ClientOptions;
use object_store::client::{ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService};

use super::Now;
use super::direct::{Direct, Plain};
use super::error::StorageError;
use super::refusal::{Refusal, http_date};
use super::tls::{self, TlsFacts};
use super::{Settings, Tuning};
use crate::domain::Timestamp;

/// What S3 says about an object beside its size and entity tag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderFacts {
    /// `x-amz-version-id`; S3 says `null` for versions from before versioning.
    pub version: Option<String>,
    /// `x-amz-storage-class`
    pub storage_class: Option<String>,
    /// `x-amz-server-side-encryption`, with the kind of customer key where one is used.
    pub server_encryption: Option<String>,
    /// `x-amz-object-lock-mode`
    pub lock_mode: Option<String>,
    /// `x-amz-object-lock-retain-until-date`
    pub lock_until: Option<String>,
    /// `x-amz-object-lock-legal-hold`
    pub lock_legal_hold: Option<String>,
    /// Further `x-amz-object-lock-*` headers, verbatim: the protocol grows.
    pub lock_other: Vec<(String, String)>,
    /// What the owner said of the content (type, encoding, user metadata), for tools that read such things back.
    pub content: Vec<(String, String)>,
}

/// Headers that describe content; `x-amz-meta-*` beside them.
const OF_CONTENT: &[&str] = &["content-type", "content-encoding", "content-disposition", "content-language", "cache-control", "expires"];
/// Bytes of such headers that are kept. S3 allows 2 KiB of user metadata.
const CONTENT_LIMIT: usize = 8 << 10;

impl HeaderFacts {
    fn read(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(|v| v.chars().take(1024).collect::<String>());
        let known = ["x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date", "x-amz-object-lock-legal-hold"];
        let lock_other = headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-amz-object-lock-") && !known.contains(&name.as_str()))
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).chars().take(200).collect()))
            .collect();
        let mut left = CONTENT_LIMIT;
        let content = headers
            .iter()
            .filter(|(name, _)| OF_CONTENT.contains(&name.as_str()) || name.as_str().starts_with("x-amz-meta-"))
            .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
            .take_while(|(name, value)| {
                let needed = name.len() + value.len();
                let fits = needed <= left;
                left = left.saturating_sub(needed);
                fits
            })
            .collect();
        Self {
            version: text("x-amz-version-id"),
            storage_class: text("x-amz-storage-class"),
            server_encryption: text("x-amz-server-side-encryption")
                .or_else(|| text("x-amz-server-side-encryption-customer-algorithm").map(|a| format!("customer key, {a}"))),
            lock_mode: text(known[0]),
            lock_until: text(known[1]),
            lock_legal_hold: text(known[2]),
            lock_other,
            content,
        }
    }
}

/// What was seen on the way, whoever asked.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub tls: tls::Observed,
    /// Server clock minus ours at the last answer that said a time.
    pub clock_offset: Mutex<Option<i64>>,
    /// Whether there was any answer yet.
    answered: AtomicBool,
}

impl Seen {
    pub(super) fn tls(&self) -> TlsFacts {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(super) fn answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }
    pub(super) fn clock_offset(&self) -> Option<i64> {
        *self.clock_offset.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a client talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The storage, or a token service on the way to it.
    Storage {
        /// Whether plain HTTP is allowed.
        plain: bool,
    },
    /// This host's own metadata service: link-local, plain HTTP, no storage endpoint to observe.
    Host,
}

/// Makes clients for `object_store` and for ourselves.
pub(super) struct Connector {
    tls: rustls::ClientConfig,
    proxy: Option<String>,
    tuning: Tuning,
    bucket: String,
    now: Now,
    pub(super) seen: Arc<Seen>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("tuning", &self.tuning).finish_non_exhaustive()
    }
}

impl Connector {
    pub(super) fn new(settings: &Settings, host: &str, bucket: &str, now: Now) -> Result<Self, StorageError> {
        let seen = Arc::new(Seen::default());
        let tls = tls::client_config(host, settings.ca_file.as_deref(), Arc::clone(&seen.tls))?;
        Ok(Self { tls, proxy: settings.proxy.clone(), tuning: settings.tuning, bucket: bucket.to_owned(), now, seen })
    }

    pub(super) fn client(&self, connect_timeout: Duration, reach: Reach) -> Result<HttpClient, StorageError> {
        let plain = matches!(reach, Reach::Storage { plain: true } | Reach::Host);
        // instance metadata lies on this host's own link, never behind a proxy
        let inner = match self.proxy.as_ref().filter(|_| reach != Reach::Host) {
            Some(proxy) => self.proxied(proxy, plain, connect_timeout)?,
            None => {
                let plain = if plain { Plain::Allowed } else { Plain::Refused };
                HttpClient::new(Direct::new(self.tls.clone(), plain, connect_timeout, self.tuning.read_timeout))
            }
        };
        Ok(HttpClient::new(Wire {
            inner,
            seen: (reach != Reach::Host).then(|| Arc::clone(&self.seen)),
            bucket: self.bucket.clone(),
            now: Arc::clone(&self.now),
        }))
    }

    fn proxied(&self, proxy: &str, plain: bool, connect_timeout: Duration) -> Result<HttpClient, StorageError> {
        let unusable = |e: reqwest::Error| StorageError::Settings { what: "no HTTP client".into(), source: Some(e.without_url().into()) };
        let builder = reqwest::Client::builder()
            .user_agent(concat!("firedrill/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(self.tls.clone())
            // several connections at once are several times faster than several streams in one
            .http1_only()
            // a redirect would carry signed requests to a place that the scenario does not name
            .redirect(reqwest::redirect::Policy::none())
            // HTTP_PROXY in a service's environment must not decide where backups travel
            .no_proxy()
            .connect_timeout(connect_timeout)
            .read_timeout(self.tuning.read_timeout)
            .tcp_keepalive(Duration::from_secs(30))
            // no timeout for the whole body: a large object takes hours
            .pool_idle_timeout(Duration::from_secs(60))
            .https_only(!plain)
            .proxy(reqwest::Proxy::all(proxy).map_err(unusable)?);
        Ok(HttpClient::new(builder.build().map_err(unusable)?))
    }
}

impl HttpConnector for Connector {
    /// `object_store` asks for one client for the storage, and for another one for token services.
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let option = |key: ClientConfigKey| options.get_config_value(&key);
        // instance metadata gets the short limit that `object_store` has for it, everything else ours
        let metadata = option(ClientConfigKey::ConnectTimeout).is_some_and(|t| t.replace(' ', "") == "1s");
        let (timeout, reach) = if metadata {
            (Duration::from_secs(1), Reach::Host)
        } else {
            let plain = option(ClientConfigKey::AllowHttp).is_some_and(|v| v == "true");
            (self.tuning.connect_timeout, Reach::Storage { plain })
        };
        self.client(timeout, reach).map_err(|e| object_store::Error::Generic { store: "S3", source: Box::new(e) })
    }
}

struct Wire {
    inner: HttpClient,
    seen: Option<Arc<Seen>>,
    bucket: String,
    now: Now,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire")
    }
}

#[async_trait::async_trait]
impl HttpService for Wire {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut response = self.inner.execute(request).await?;
        let our_time: Timestamp = (self.now)();
        if let Some(seen) = &self.seen {
            seen.answered.store(true, Ordering::Relaxed);
        }
        if let Some(seen) = &self.seen
            && let Some(theirs) = response.headers().get("date").and_then(|v| v.to_str().ok()).and_then(http_date)
        {
            *seen.clock_offset.lock().unwrap_or_else(PoisonError::into_inner) = Some(theirs.seconds_since(our_time));
        }
        if response.status().is_success() {
            let facts = HeaderFacts::read(response.headers());
            response.extensions_mut().insert(facts);
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        // an error document is small; what is longer is not one
        let body = match Limited::new(body, 64 * 1024).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(_) => bytes::Bytes::new(),
        };
        let refusal = Refusal::read(parts.status, &parts.headers, &body, our_time, &self.bucket);
        Err(HttpError::new(HttpErrorKind::Unknown, refusal))
    }
}
