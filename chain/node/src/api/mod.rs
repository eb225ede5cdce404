//! The HTTP API of a validator, version 1; meant for loopback, behind whatever the operator puts in front of it.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/statements` (COSE bytes) | 202 `{"id"}`; 400, 409, 413, 429, 503 `{"code","message"}` |
//! | `GET /v1/statements/{id}?wait_ms=` | `{"status": unknown, pending, finalized or refused, "height", "log_index", "code", "message"}` |
//! | `GET /v1/streams/{stream}/partitions/{p}/head` | `{"next","anchor","log_index","records","quarantined","height"}` |
//! | `GET /v1/identities/{id}` | `{"id","public_key","kind","name","controller","height","sequence"}` |
//! | `GET /v1/blocks?from=&limit=&wait_ms=` | CBOR array of signed blocks, cut by bytes; waits for height `from` |
//! | `GET /v1/blocks/{h}` | JSON summary; with `?format=cbor` the signed block |
//! | `GET /v1/headers/{h}` | the header's bytes (CBOR) |
//! | `GET /v1/certificates/{h}` | `{"height","header","certificate"}` (base64) of the first height ≥ h with a certificate of its own |
//! | `GET /v1/log/proof?index=&size=` | `{"index","size","leaf","path"}` |
//! | `GET /v1/status`, `/health`, `/metrics` | |
//!
//! It is not authenticated: what it tells is public within the city, and what it takes in is signed. It reads the
//! ledger and marshal's archive, and writes to nothing but the mempool. Every body, wait, answer and the number of
//! connections is bounded.

mod blocks;
mod chain;
mod error;
mod listener;
mod log;
mod statements;
mod status;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::header::CONTENT_TYPE,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use tokio::{
    runtime,
    sync::watch,
    time::{sleep, timeout},
};
use tracing::info;

use crate::{config::ApiConfig, engine::Marshal, error::NodeError, shared::Shared};
use error::ApiError;
use listener::Bounded;

/// How long open requests may take to end after a stop.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Bytes of an explanation by the framework.
const EXPLANATION_BYTES_MAX: usize = 4_096;

/// The consensus library's metrics as text.
type Scrape = Box<dyn Fn() -> String + Send + Sync>;

/// What every handler sees.
#[derive(Clone)]
pub(crate) struct Api(Arc<Inner>);

pub(crate) struct Inner {
    config: ApiConfig,
    shared: Arc<Shared>,
    marshal: Marshal,
    scrape: Scrape,
    stop: watch::Receiver<bool>,
}

impl std::ops::Deref for Api {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Api {
    /// How long a request may wait that asks for `wait_ms`.
    fn wait(&self, wait_ms: Option<u64>) -> Duration {
        Duration::from_millis(wait_ms.unwrap_or(0).min(self.config.wait_ms_max))
    }

    /// Asks `look` again whenever a block becomes final or the mempool changes, until it has an answer or the time
    /// is over. The last look may be in vain.
    async fn until<T>(&self, wait: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let mut height = self.shared.ledger.subscribe();
        let mut stop = self.stop.clone();
        let waiting = async {
            loop {
                let mut changed = std::pin::pin!(self.shared.mempool.changed());
                changed.as_mut().enable();
                height.mark_unchanged();
                if let Some(found) = look() {
                    return Some(found);
                }
                tokio::select! {
                    () = changed => {}
                    _ = height.changed() => {}
                    _ = stop.wait_for(|stop| *stop) => return None,
                }
            }
        };
        timeout(wait, waiting).await.ok().flatten()
    }
}

fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/statements", post(statements::submit))
        .route("/v1/statements/{id}", get(statements::status))
        .route("/v1/streams/{stream}/partitions/{partition}/head", get(chain::head))
        .route("/v1/identities/{id}", get(chain::identity))
        .route("/v1/blocks", get(blocks::range))
        .route("/v1/blocks/{height}", get(blocks::one))
        .route("/v1/headers/{height}", get(blocks::header))
        .route("/v1/certificates/{height}", get(blocks::certificate))
        .route("/v1/log/proof", get(log::proof))
        .route("/v1/status", get(status::status))
        .route("/health", get(status::health))
        .route("/metrics", get(status::metrics))
        .fallback(async || ApiError::not_found("no_such_path", "see the API's documentation for the paths there are"))
        .layer(middleware::from_fn_with_state(api.clone(), count))
        .with_state(api)
}

/// Counts requests by the fixed part of their path, so that labels stay few.
async fn count(State(api): State<Api>, request: Request, next: Next) -> Response {
    const ROUTES: [&str; 10] = [
        "/v1/statements",
        "/v1/streams",
        "/v1/identities",
        "/v1/blocks",
        "/v1/headers",
        "/v1/certificates",
        "/v1/log",
        "/v1/status",
        "/health",
        "/metrics",
    ];
    let path = request.uri().path();
    let route = ROUTES.into_iter().find(|route| path.starts_with(route)).unwrap_or("other");
    let response = explain(next.run(request).await).await;
    api.shared.metrics.requests.with_label_values(&[route, response.status().as_str()]).inc();
    response
}

/// Gives the framework's own refusals (a parameter that does not parse, a wrong method) the form of all others.
async fn explain(response: Response) -> Response {
    let status = response.status();
    let json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if json || !status.is_client_error() {
        return response;
    }
    let text = to_bytes(response.into_body(), EXPLANATION_BYTES_MAX).await.unwrap_or_default();
    let text = if text.is_empty() { status.to_string() } else { String::from_utf8_lossy(&text).into_owned() };
    ApiError::new(status, "bad_request", text).into_response()
}

/// Serves until it is told to stop. It has a runtime of its own, so that nobody else's work delays it.
pub(crate) fn run(
    listener: std::net::TcpListener,
    config: ApiConfig,
    shared: Arc<Shared>,
    marshal: Marshal,
    scrape: Scrape,
    mut stop: watch::Receiver<bool>,
) -> Result<(), NodeError> {
    let failed = |error: std::io::Error| NodeError::Api { reason: error.to_string() };
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("cairn api")
        .enable_all()
        .build()
        .map_err(failed)?;
    let result = runtime.block_on(async {
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let listener = Bounded::new(listener, config.connections_max, Duration::from_millis(config.idle_ms_max));
        let api = Api(Arc::new(Inner { config, shared, marshal, scrape, stop: stop.clone() }));
        let mut stop_serving = stop.clone();
        let serving = axum::serve(listener, router(api)).with_graceful_shutdown(async move {
            // The sender lives as long as the node; its end is a stop as well.
            let _ = stop_serving.wait_for(|stop| *stop).await;
        });
        info!(%address, "HTTP API listens");
        let late = async {
            let _ = stop.wait_for(|stop| *stop).await;
            sleep(STOP_WITHIN).await;
        };
        tokio::select! {
            ended = serving => ended.map_err(failed),
            () = late => Ok(()),
        }
    });
    runtime.shutdown_timeout(STOP_WITHIN);
    result
}
