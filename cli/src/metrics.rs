//! Serves the metrics of a role over HTTP, in the Prometheus text format.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;

/// A killed predecessor may still hold the port for a moment.
const BIND_PATIENCE: Duration = Duration::from_secs(3);

/// Listens on `addr`; errors name the role, the port and the key to change.
pub(crate) async fn listen(addr: SocketAddr, role: &str, key: &str) -> Result<TcpListener> {
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match TcpListener::bind(addr).await {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                bail!(
                    "{role}: port {} of {} is in use; stop what uses it, or change {key} in cairn.toml",
                    addr.port(),
                    addr.ip()
                )
            }
            Err(error) => {
                return Err(error).with_context(|| format!("{role} cannot listen on {addr}; see {key} in cairn.toml"));
            }
        }
    }
}

/// Serves `/metrics` and `/health` for as long as the process runs.
pub(crate) async fn serve(addr: SocketAddr, role: &str, key: &str, registry: Registry) -> Result<SocketAddr> {
    let listener = listen(addr, role, key).await?;
    let bound = listener.local_addr()?;
    let render = move || {
        let registry = registry.clone();
        async move {
            match TextEncoder::new().encode_to_string(&registry.gather()) {
                Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
            }
        }
    };
    let router = Router::new().route("/metrics", get(render)).route("/health", get(|| async { "ok\n" }));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the metrics are served no longer");
        }
    });
    Ok(bound)
}
