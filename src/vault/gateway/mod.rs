//! The gateway: a read-only S3 endpoint over the vault view, for restore tools as they are.
//!
//! It is served on listeners that are handed in, bound where the tool runs: in a sandbox that reaches nothing else. Tools get
//! throw-away keys, see one bucket and in it what lies below the view's prefix, by the real keys. Each key is one version
//! from its first request on, and what is read of it is in the restore chain. What the storage does meanwhile (resets,
//! stalls, asking to slow down) tools do not see, unless it goes on for too long: then the connection is cut, because a
//! short body must not look whole.
//!
//! Not in it, on purpose: any way to write to the storage. What a tool insists on writing is refused, or kept in memory
//! where the recipe says so ([`Writes::Overlay`]).

mod answers;
mod body;
mod chunked;
mod facts;
mod listing;
mod objects;
mod overlay;
mod request;
mod service;
mod sigv4;
mod tls;
mod uri;
mod writes;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use facts::{GatewayFacts, Refused, UpstreamFailure};
pub use sigv4::GatewayKeys;

use super::VaultView;
use crate::domain::Reader;
use crate::storage::Now;
use service::{Inner, Service};

/// Connections at the same time; more wait.
const CONNECTIONS: usize = 512;
/// Longest time for a request's head to arrive, and for a connection to be idle.
const HEAD_TIME: Duration = Duration::from_secs(120);
/// Longest time for the first byte and for a TLS handshake.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Bytes that wait to be written or read on a connection. A request's head must fit.
const BUFFER: usize = 64 << 10;
/// Headers of a request.
const HEADERS: usize = 100;
/// Longest wait for running requests when the gateway ends.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a gateway shows, and to whom.
pub struct GatewaySpec {
    /// The bucket's name, as tools see it.
    pub bucket: String,
    /// The region that it says it is in. Requests may be signed for any.
    pub region: String,
    /// Who may ask.
    pub keys: GatewayKeys,
    /// What happens to what tools write.
    pub writes: Writes,
    /// Names of the endpoint, for certificates and for virtual-host addressing.
    pub hosts: Vec<String>,
    /// Under whom the chain has what is read.
    pub reader: Reader,
    /// Tells wall time, for signatures.
    pub now: Now,
}

impl fmt::Debug for GatewaySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewaySpec").field("bucket", &self.bucket).field("writes", &self.writes).finish_non_exhaustive()
    }
}

/// What happens to what tools write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// It is refused.
    Refuse,
    /// It is kept in memory until the drill ends, and seen by later requests.
    Overlay {
        /// Bytes that are kept at most.
        limit: u64,
    },
}

/// A running gateway. Dropping it ends it without a goodbye.
pub struct Gateway {
    service: Service,
    ca_pem: String,
    ended: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("bucket", &self.service.bucket).finish_non_exhaustive()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Gateway {
    /// Serves `view` on these listeners, plain HTTP and TLS on each. `on_bytes` is told of every piece of an object that is
    /// handed on. Must not be called where blocking is forbidden: it makes keys.
    ///
    /// # Errors
    /// Where a listener cannot be used, or no certificate can be made.
    pub fn start(
        view: &VaultView,
        spec: GatewaySpec,
        listeners: Vec<std::net::TcpListener>,
        on_bytes: Arc<dyn Fn(u64) + Send + Sync>,
    ) -> io::Result<Self> {
        let GatewaySpec { bucket, region, keys, writes, hosts, reader, now } = spec;
        let (acceptor, ca_pem) = tls::acceptor(&hosts, now())?;
        let overlay = match writes {
            Writes::Refuse => None,
            Writes::Overlay { limit } => Some(overlay::Overlay::new(limit)),
        };
        let view = view.as_reader(reader);
        let runtime = view.runtime.clone();
        let (gathered, numbers) = (facts::Gathered::default(), AtomicU64::new(1));
        let service = Service::new(Inner { view, bucket, region, hosts, keys, overlay, gathered, on_bytes, now, numbers });
        let gateway = Self { service, ca_pem, ended: CancellationToken::new(), tasks: TaskTracker::new() };
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let _within = runtime.enter();
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let door = Door {
                service: gateway.service.clone(),
                acceptor: acceptor.clone(),
                room: Arc::clone(&room),
                ended: gateway.ended.clone(),
                tasks: gateway.tasks.clone(),
            };
            gateway.tasks.spawn_on(door.keep(TcpListener::from_std(listener)?), &runtime);
        }
        Ok(gateway)
    }

    /// The authority that signed the gateway's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// What happened so far.
    pub fn troubles(&self) -> GatewayFacts {
        let facts = self.service.gathered.so_far();
        let (overlay_objects, overlay_bytes) = self.service.overlay.as_ref().map_or((0, 0), overlay::Overlay::totals);
        GatewayFacts { overlay_objects, overlay_bytes, ..facts }
    }

    /// Ends it: no new connections, a short time for running requests, then those are cut.
    pub async fn stop(self) -> GatewayFacts {
        self.ended.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(GOODBYE + Duration::from_secs(1), self.tasks.wait()).await;
        self.troubles()
    }
}

/// One listener.
struct Door {
    service: Service,
    acceptor: TlsAcceptor,
    room: Arc<Semaphore>,
    ended: CancellationToken,
    tasks: TaskTracker,
}

impl Door {
    async fn keep(self, listener: TcpListener) {
        loop {
            let arrival = async {
                let room = Arc::clone(&self.room).acquire_owned().await.expect("nobody closes it");
                (room, listener.accept().await)
            };
            let (room, accepted) = tokio::select! {
                arrival = arrival => arrival,
                () = self.ended.cancelled() => return,
            };
            let Ok((connection, _)) = accepted else {
                // out of file descriptors, most likely: some will be free again
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let (service, acceptor, ended) = (self.service.clone(), self.acceptor.clone(), self.ended.clone());
            self.tasks.spawn(async move {
                greet(connection, service, acceptor, ended).await;
                drop(room);
            });
        }
    }
}

/// The first byte says whether it is TLS.
async fn greet(connection: TcpStream, service: Service, acceptor: TlsAcceptor, ended: CancellationToken) {
    // an answer's head and its first bytes must not wait for each other's acknowledgements
    if connection.set_nodelay(true).is_err() {
        return;
    }
    let mut first = [0];
    match tokio::time::timeout(HELLO_TIME, connection.peek(&mut first)).await {
        Ok(Ok(1)) if first == [0x16] => {
            if let Ok(Ok(connection)) = tokio::time::timeout(HELLO_TIME, acceptor.accept(connection)).await {
                serve(connection, service, ended).await;
            }
        }
        Ok(Ok(1)) => serve(connection, service, ended).await,
        _ => {}
    }
}

async fn serve(connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, service: Service, ended: CancellationToken) {
    let answers = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(connection), answers);
    let mut connection = std::pin::pin!(connection);
    // what goes wrong on a tool's connection is the tool's to notice; what went wrong upstream is written down
    tokio::select! {
        _ = connection.as_mut() => return,
        () = ended.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(GOODBYE, connection).await;
}
