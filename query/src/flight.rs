//! The Flight SQL port: listening, connections, stopping.
//!
//! ```text
//! accept ─▶ permit? ─▶ TLS? ─▶ HTTP/2 (tonic) ─▶ call ─▶ session of connection and token ─▶ service
//!              └─ no: the client's calls are answered "too many connections"
//! ```
//!
//! The protocol's messages are `arrow-flight`'s, gRPC is `tonic`'s. What happens in a session is [`crate::session`]'s,
//! as on the Postgres wire beside it; this module and its children only translate.
//!
//! **Bounds.** A message's bytes, a connection's calls, headers and keep-alive are bounded here before anything is read;
//! statements by what bounds every statement. A client that reads slowly holds up only its own stream, whose statement
//! ends with its time.

mod encode;
mod metadata;
mod options;
mod prepared;
mod service;
mod sessions;
mod socket;
mod status;
mod tickets;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Server;

use crate::config::FlightConfig;
use crate::engine::{Engine, StartError};
use crate::listen::{BIND_PAUSE, Listening, listen};
use crate::metrics::Wire;
use crate::tls;
use service::FlightCalls;
use sessions::Connection;
use socket::{FlightSocket, Io, STARTUP_PATIENCE};
use status::SQLSTATE_KEY;

/// How long connections may take to end after [`RunningFlight::stop`].
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// How many clients over the limit are told so at once; more are just closed.
const TURNED_AWAY_MAX: usize = 32;
/// The most bytes of a call's headers.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// How often a silent client is asked whether it is still there, and how long it may take to say so.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(20);

/// Serves Flight SQL clients.
#[derive(Debug)]
pub struct FlightSql;

/// A running Flight SQL port. Dropping it stops it.
#[derive(Debug)]
pub struct RunningFlight {
    /// The address that it listens on.
    pub addr: SocketAddr,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl FlightSql {
    /// Serves an engine at an address, beside whatever else it serves.
    ///
    /// # Errors
    /// The configuration is out of range, the port cannot be listened on, or the TLS files cannot be used.
    pub async fn serve(engine: Engine, config: &FlightConfig) -> Result<RunningFlight, StartError> {
        config.check(engine.config())?;
        let tls = engine.config().tls.as_ref().map(|files| tls::acceptor(files, tls::ALPN_FLIGHT)).transpose()?;
        let wanted = Listening {
            addr: config.listen,
            clients: "Flight SQL",
            key: "[query.flight] listen",
            retry_ms: engine.config().bind_retry_ms,
        };
        let (listener, addr) = listen(wanted).await?;
        let stop = CancellationToken::new();
        let (sender, receiver) = mpsc::channel(1);
        let server = server(&engine, config, receiver, stop.clone());
        let accepting = accept(listener, engine, tls, sender, stop.clone());
        let task = tokio::spawn(async move {
            let (served, ()) = tokio::join!(server, accepting);
            if let Err(error) = served {
                tracing::error!(%error, "query: the Flight SQL port ended");
            }
        });
        tracing::info!(%addr, "query: Flight SQL clients are served");
        Ok(RunningFlight { addr, stop, task: Some(task) })
    }
}

impl RunningFlight {
    /// Stops listening, ends the connections, and waits until all is quiet.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            let _ = tokio::time::timeout(STOP_PATIENCE, task).await;
        }
    }

    /// Waits until the port ends by itself, which it does only by a defect.
    pub async fn wait(&mut self) {
        if let Some(task) = &mut self.task {
            let _ = task.await;
        }
    }
}

impl Drop for RunningFlight {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves the connections that come through `sockets`.
fn server(
    engine: &Engine,
    config: &FlightConfig,
    sockets: mpsc::Receiver<FlightSocket>,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), tonic::transport::Error>> + 'static {
    let bytes_max = engine.config().message_bytes_max;
    let service = FlightServiceServer::new(FlightCalls::new(bytes_max)).max_decoding_message_size(bytes_max);
    let counted = Counted { service, engine: engine.clone() };
    let sockets = futures::stream::unfold(sockets, |mut sockets| async move {
        let socket = sockets.recv().await?;
        Some((Ok::<_, Infallible>(socket), sockets))
    });
    Server::builder()
        .concurrency_limit_per_connection(config.calls_max as usize)
        .max_concurrent_streams(config.calls_max)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_PATIENCE))
        .add_service(counted)
        .serve_with_incoming_shutdown(sockets, async move { stop.cancelled().await })
}

async fn accept(
    listener: TcpListener,
    engine: Engine,
    tls: Option<TlsAcceptor>,
    sockets: mpsc::Sender<FlightSocket>,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(engine.config().connections_max as usize));
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    let mut beginning = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
            Some(_) = beginning.join_next(), if !beginning.is_empty() => continue,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "query: a connection could not be accepted");
                tokio::time::sleep(BIND_PAUSE).await;
                continue;
            }
        };
        let served = Arc::clone(&permits).try_acquire_owned();
        let full = served.is_err();
        let Ok(permit) = served.or_else(|_| Arc::clone(&turned_away).try_acquire_owned()) else {
            continue;
        };
        let connection = Connection::new(engine.clone(), peer, tls.is_some(), full, stop.child_token());
        let (tls, sockets) = (tls.clone(), sockets.clone());
        beginning.spawn(async move {
            // The handshake is waited for here, so that a slow client holds up nobody else.
            if let Some(socket) = begin(socket, connection, permit, tls).await {
                let _ = sockets.send(socket).await;
            }
        });
    }
}

/// Goes through the TLS handshake, where there is one.
async fn begin(
    socket: TcpStream,
    connection: Connection,
    permit: OwnedSemaphorePermit,
    tls: Option<TlsAcceptor>,
) -> Option<FlightSocket> {
    let metrics = connection.engine.metrics().clone();
    let count = (!connection.full).then(|| metrics.connected(Wire::Flight));
    socket.set_nodelay(true).ok()?;
    let io: Box<dyn Io> = match tls {
        None => Box::new(socket),
        Some(tls) => match tokio::time::timeout(STARTUP_PATIENCE, tls.accept(socket)).await {
            Ok(Ok(encrypted)) => Box::new(encrypted),
            Ok(Err(error)) => {
                tracing::debug!(%error, peer = %connection.peer, "query: a TLS handshake failed");
                metrics.could_not_read(Wire::Flight);
                return None;
            }
            Err(_) => {
                metrics.could_not_read(Wire::Flight);
                return None;
            }
        },
    };
    Some(FlightSocket::new(io, connection, permit, count))
}

/// Counts the calls that were refused before they were a statement: their status carries no SQLSTATE.
#[derive(Debug, Clone)]
struct Counted<S> {
    service: S,
    engine: Engine,
}

impl<S: NamedService> NamedService for Counted<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Counted<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (answered, metrics) = (self.service.call(request), self.engine.metrics().clone());
        Box::pin(async move {
            let response = answered.await?;
            let headers = response.headers();
            let failed = headers.get("grpc-status").is_some_and(|status| status != "0");
            if failed && !headers.contains_key(SQLSTATE_KEY) {
                metrics.could_not_read(Wire::Flight);
            }
            Ok(response)
        })
    }
}
