//! The Postgres port: listening, connections, stopping.
//!
//! ```text
//! accept ─▶ permit? ──yes──▶ task: startup → session → messages (handlers) → closed
//!              └──────no───▶ task: startup → "too many connections" → closed
//! ```
//!
//! The protocol's frames are `pgwire`'s, values and the `pg_catalog` tables `datafusion-postgres`'. What happens in a
//! session is [`crate::session`]'s; this module and its children only translate, and find out who asks ([`crate::auth`]).

mod connection;
mod copy;
mod encode;
pub(crate) mod errors;
mod handlers;
pub(crate) mod parameters;
mod startup;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cairn_anchor::verified::VerifiedStore;
use cairn_chain_client::Follower;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::config::QueryConfig;
use crate::engine::{Engine, StartError};
use crate::follower::FollowedChain;
use crate::listen::{BIND_PAUSE, Listening, listen};
use crate::metrics::Wire;
use crate::provenance::Equipment;
use crate::tls;
use handlers::Handlers;
use startup::Cancels;

/// How long connections may take to end after [`RunningQuery::stop`].
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// How many clients over the limit are told so at once; more are just closed.
const TURNED_AWAY_MAX: usize = 32;

/// The query role: an engine behind a Postgres port.
#[derive(Debug)]
pub struct QueryService;

/// A running Postgres port. Dropping it stops it.
#[derive(Debug)]
pub struct RunningQuery {
    /// The address that it listens on.
    pub addr: SocketAddr,
    engine: Engine,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
    watch: Option<JoinHandle<()>>,
}

impl QueryService {
    /// Starts the role over a followed chain and the store that its anchors' segments lie in.
    ///
    /// # Errors
    /// The configuration is out of range, the metrics are registered already, or the port cannot be listened on.
    pub async fn start(
        config: QueryConfig,
        follower: Follower,
        store: VerifiedStore,
        registry: &Registry,
    ) -> Result<RunningQuery, StartError> {
        Self::start_equipped(config, follower, store, Equipment::default(), registry).await
    }

    /// As [`QueryService::start`], with what receipts need.
    ///
    /// # Errors
    /// As [`QueryService::start`].
    pub async fn start_equipped(
        config: QueryConfig,
        follower: Follower,
        store: VerifiedStore,
        equipment: Equipment,
        registry: &Registry,
    ) -> Result<RunningQuery, StartError> {
        let mut heights = follower.subscribe();
        let engine = Engine::new(config, Arc::new(FollowedChain::new(follower)), store, registry)?.equipped(equipment);
        let mut running = Self::serve(engine.clone()).await?;
        running.watch = Some(tokio::spawn(async move {
            // Whoever reads the metrics sees the height move, whether statements run or not.
            engine.newest();
            while heights.changed().await.is_ok() {
                engine.newest();
            }
        }));
        Ok(running)
    }

    /// Serves an engine that is already set up, at its configured address.
    ///
    /// # Errors
    /// The port cannot be listened on.
    pub async fn serve(engine: Engine) -> Result<RunningQuery, StartError> {
        let tls = engine.config().tls.as_ref().map(|files| tls::acceptor(files, tls::ALPN_POSTGRES)).transpose()?;
        let config = engine.config();
        let wanted = Listening {
            addr: SocketAddr::new(config.host, config.port),
            clients: "Postgres",
            key: "[query.postgres] port",
            retry_ms: config.bind_retry_ms,
        };
        let (listener, addr) = listen(wanted).await?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(listener, engine.clone(), tls, stopped));
        tracing::info!(%addr, "query: Postgres clients are served");
        Ok(RunningQuery { addr, engine, stop, task: Some(task), watch: None })
    }
}

impl RunningQuery {
    /// The engine behind the port, for embedded statements.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Stops listening, ends the connections, and waits until all is quiet.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }

    /// Waits until the role ends by itself, which it does only by a defect.
    pub async fn wait(&mut self) {
        if let Some(task) = &mut self.task {
            let _ = task.await;
        }
    }
}

impl Drop for RunningQuery {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(watch) = self.watch.take() {
            watch.abort();
        }
    }
}

async fn accept(listener: TcpListener, engine: Engine, tls: Option<TlsAcceptor>, mut stopped: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(engine.config().connections_max as usize));
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    let cancels = Arc::new(Cancels::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for connections to end.
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
        let handlers = Handlers::new(engine.clone(), Arc::clone(&cancels), full);
        let count = (!full).then(|| engine.metrics().connected(Wire::Postgres));
        let tls = tls.clone();
        connections.spawn(async move {
            if let Err(error) = connection::serve(socket, peer, handlers, tls).await {
                tracing::debug!(%error, %peer, "query: a connection ended");
            }
            drop((permit, count));
        });
    }
    drop(listener);
    cancels.cancel_all();
    let ended = async { while connections.join_next().await.is_some() {} };
    // Idle clients would stay for ever; whoever is still here after a moment is closed.
    let quick = tokio::time::timeout(STOP_PATIENCE.min(Duration::from_millis(200)), ended).await;
    if quick.is_err() {
        connections.shutdown().await;
    }
}
