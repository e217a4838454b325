//! A proxy in front of a real S3 server that does harm on purpose: the first rule that fits a request decides.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;

#[derive(Clone, Debug)]
pub enum Fault {
    /// The answer comes later.
    Latency(Duration),
    /// 503 SlowDown with this Retry-After.
    SlowDown(u32),
    /// This status and S3 error code, and the server is not asked.
    Answer(u16, &'static str),
    /// 200 with this body, and the server is not asked.
    Say(&'static str),
    /// The connection breaks before there is an answer.
    Reset,
    /// The server does what it was asked to, and the answer is lost.
    LoseAnswer,
    /// The connection breaks after so many bytes of the body.
    CutAfter(u64),
    /// Silence after so many bytes of the body.
    StallAfter(u64),
    /// One byte of the body is another one.
    Corrupt(u64),
    /// The body ends early, and Content-Length agrees.
    Truncate(u64),
    /// Headers that begin so are gone.
    DropHeaders(&'static str),
    /// A header says something else.
    SetHeader(&'static str, &'static str),
    /// 200 with something that is no XML.
    Garble,
}

#[derive(Clone, Debug)]
pub struct Rule {
    method: Method,
    /// What path and query must contain.
    has: &'static str,
    times: usize,
    fault: Fault,
}

pub fn on(method: Method, has: &'static str, times: usize, fault: Fault) -> Rule {
    Rule { method, has, times, fault }
}

#[derive(Default)]
struct Shared {
    rules: Mutex<Vec<Rule>>,
    log: Mutex<Vec<String>>,
}

pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts a proxy to `upstream` on a thread of its own, with these rules.
    pub fn start(upstream: u16, rules: Vec<Rule>) -> Self {
        let shared = Arc::new(Shared { rules: Mutex::new(rules), ..Shared::default() });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((connection, _)) = listener.accept().await {
                    let shared = Arc::clone(&theirs);
                    tokio::spawn(async move {
                        let service = hyper::service::service_fn(move |request| handle(request, upstream, Arc::clone(&shared)));
                        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
                    });
                }
            });
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    pub fn set(&self, rules: Vec<Rule>) {
        *self.shared.rules.lock().unwrap() = rules;
        self.shared.log.lock().unwrap().clear();
    }
    /// Method, path with query, and range of every request since the rules were set.
    pub fn log(&self) -> Vec<String> {
        self.shared.log.lock().unwrap().clone()
    }
}

type Broken = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Broken>;

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|e: Infallible| match e {}).boxed_unsync()
}

fn error_document(code: &str) -> Body {
    full(format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>on purpose</Message><Key>secret-key-name</Key></Error>"))
}

async fn handle(request: Request<Incoming>, upstream: u16, shared: Arc<Shared>) -> Result<Response<Body>, Broken> {
    let target = request.uri().path_and_query().map_or(String::new(), |p| p.as_str().to_owned());
    let fault = {
        let mut rules = shared.rules.lock().unwrap();
        let rule = rules.iter_mut().find(|r| r.times > 0 && r.method == *request.method() && target.contains(r.has));
        rule.map(|rule| {
            rule.times -= 1;
            rule.fault.clone()
        })
    };
    let range = request.headers().get("range").and_then(|v| v.to_str().ok()).unwrap_or("-").to_owned();
    shared.log.lock().unwrap().push(format!("{} {target} {range}", request.method()));
    match &fault {
        Some(Fault::Latency(time)) => tokio::time::sleep(*time).await,
        Some(Fault::SlowDown(seconds)) => {
            return Ok(Response::builder().status(503).header("retry-after", *seconds).body(error_document("SlowDown"))?);
        }
        Some(Fault::Answer(status, code)) => {
            return Ok(Response::builder().status(*status).header("date", "Sat, 21 Nov 2020 19:33:10 GMT").body(error_document(code))?);
        }
        Some(Fault::Say(text)) => return Ok(Response::builder().status(200).body(full((*text).to_owned()))?),
        Some(Fault::Reset) => return Err("reset".into()),
        Some(Fault::Garble) => return Ok(Response::builder().status(200).body(full("\u{1}\u{2}<html>".to_owned()))?),
        _ => {}
    }
    let connection = tokio::net::TcpStream::connect(("127.0.0.1", upstream)).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    tokio::spawn(connection);
    // the Host header stays as it is, so the signature stays good
    let answer = sender.send_request(request).await?;
    let (mut parts, body) = answer.into_parts();
    match &fault {
        Some(Fault::LoseAnswer) => {
            let _ = body.collect().await;
            return Err("lost".into());
        }
        Some(Fault::DropHeaders(start)) => {
            let names: Vec<_> = parts.headers.keys().filter(|n| n.as_str().starts_with(start)).cloned().collect();
            names.iter().for_each(|name| drop(parts.headers.remove(name)));
        }
        Some(Fault::SetHeader(name, value)) => drop(parts.headers.insert(*name, HeaderValue::from_static(value))),
        Some(Fault::Truncate(length)) => drop(parts.headers.insert("content-length", HeaderValue::from(*length))),
        _ => {}
    }
    let mut seen = 0u64;
    let frames = TryStreamExt::map_err(BodyStream::new(body), Broken::from).then(move |frame| {
        let fault = fault.clone();
        let start = seen;
        if let Ok(frame) = &frame {
            seen += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        let end = seen;
        async move {
            let Ok(data) = frame?.into_data() else { return Err(Broken::from("trailers")) };
            Ok(Frame::data(match fault {
                Some(Fault::CutAfter(n)) if end > n => {
                    if start >= n {
                        return Err("cut".into());
                    }
                    data.slice(..(n - start) as usize)
                }
                Some(Fault::StallAfter(n)) if end > n => {
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                    data
                }
                Some(Fault::Truncate(n)) if end > n => data.slice(..(n.saturating_sub(start) as usize).min(data.len())),
                Some(Fault::Corrupt(n)) if start <= n && n < end => {
                    let mut bytes = data.to_vec();
                    bytes[(n - start) as usize] ^= 0xff;
                    bytes.into()
                }
                _ => data,
            }))
        }
    });
    Ok(Response::from_parts(parts, BodyExt::boxed_unsync(StreamBody::new(frames))))
}
