//! The HTTP client for storage that is reached without a proxy: hyper's own, because only there can be said how much a
//! connection may hold in memory. Everywhere else a fast server fills 400 KiB and more of each, twice: with 64 connections
//! that is most of what a drill may need.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::header::USER_AGENT;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody, HttpService};
use tokio::time::{Instant, Sleep};

/// Bytes that are read at one go: the most with which 64 connections stay well below 64 MiB.
const BUFFER: usize = 256 << 10;

/// Bytes a second that a line must carry.
const SLOWEST: u64 = 32 << 10;

/// Whether plain HTTP may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plain {
    Allowed,
    Refused,
}

/// The client. Follows no redirects, asks no proxy.
pub(super) struct Direct {
    client: Client<HttpsConnector<HttpConnector>, HttpRequestBody>,
    connect_timeout: Duration,
    read_timeout: Duration,
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Direct")
    }
}

impl Direct {
    pub(super) fn new(tls: rustls::ClientConfig, plain: Plain, connect_timeout: Duration, read_timeout: Duration) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(connect_timeout));
        http.set_keepalive(Some(Duration::from_secs(30)));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
        let builder = match plain {
            Plain::Allowed => builder.https_or_http(),
            Plain::Refused => builder.https_only(),
        };
        // several connections at once are several times faster than several streams in one
        let connector = builder.enable_http1().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .http1_max_buf_size(BUFFER)
            .build(connector);
        Self { client, connect_timeout, read_timeout }
    }
}

#[async_trait::async_trait]
impl HttpService for Direct {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let agent = HeaderValue::from_static(concat!("firedrill/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        // a slow line takes a while to carry a body; the answer to it must not take for ever
        let sending = Duration::from_secs(request.body().content_length() as u64 / SLOWEST);
        let silence = self.connect_timeout + self.read_timeout + sending;
        let answer = tokio::time::timeout(silence, self.client.request(request)).await;
        let answer = answer.map_err(|elapsed| HttpError::new(HttpErrorKind::Timeout, elapsed))?;
        let answer = answer.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, error)
        })?;
        let limit = self.read_timeout;
        Ok(answer.map(|body| HttpResponseBody::new(Impatient { body, limit, waiting: None, alarm: None })))
    }
}

/// A body that fails where it is silent for too long.
struct Impatient {
    body: Incoming,
    limit: Duration,
    /// Since when somebody waits for the next bytes.
    waiting: Option<Instant>,
    /// Set once and put off when it rings too early: setting one for each piece of a body costs more than looking at a clock.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Body for Impatient {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.waiting = None;
                Poll::Ready(frame.map(|frame| frame.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))))
            }
            Poll::Pending => {
                let patience_ends = *this.waiting.get_or_insert_with(Instant::now) + this.limit;
                let alarm = this.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(patience_ends)));
                ready!(alarm.as_mut().poll(cx));
                if alarm.deadline() < patience_ends {
                    alarm.as_mut().reset(patience_ends);
                    ready!(alarm.as_mut().poll(cx));
                }
                let elapsed = std::io::Error::from(std::io::ErrorKind::TimedOut);
                Poll::Ready(Some(Err(HttpError::new(HttpErrorKind::Timeout, elapsed))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
