//! The HTTP API of a node, version 1. `GET /openapi.json` describes every request and answer; see [`openapi`].
//!
//! It is not authenticated: what it tells is public within the city, and what it takes in is signed. It reads the
//! ledger and marshal's archive, and writes to nothing but the mempool. Every head, body, wait, answer, the number of
//! connections and each address' share of them is bounded: see [`limits`] and [`listener`].

mod blocks;
mod chain;
mod error;
mod governance;
mod limits;
mod listener;
mod log;
mod openapi;
mod proofs;
mod statements;
mod status;
mod stream;
mod tiles;
mod tls;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::to_bytes,
    extract::{ConnectInfo, Request, State},
    http::header::CONTENT_TYPE,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, get, post},
};
use tokio::{
    runtime,
    sync::{OwnedSemaphorePermit, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::info;

use crate::{
    config::{ApiConfig, TlsConfig},
    engine::Marshal,
    error::NodeError,
    shared::Shared,
};
use error::ApiError;
use limits::{Limits, Refused};
use listener::{Bounded, Client};

/// How long open requests may take to end after a stop.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Least time between two looks because of the mempool, which under load changes thousands of times a second.
const LOOK_EVERY: Duration = Duration::from_millis(5);

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
    limits: Arc<Limits>,
    routes: Vec<&'static str>,
    description: utoipa::openapi::OpenApi,
    bundles: tiles::Bundles,
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

    /// Counts a refusal and hands it on.
    fn refused(&self, refused: Refused) -> Refused {
        self.shared.metrics.refused_api(refused.code());
        refused
    }

    /// Asks `look` until it has an answer or the time is over: at once, whenever a block becomes final, and soon after
    /// the mempool changed. The last look may be in vain.
    ///
    /// # Errors
    /// When too many requests wait already.
    async fn until<T>(&self, wait: Duration, mut look: impl FnMut() -> Option<T>) -> Result<Option<T>, Refused> {
        if let Some(found) = look() {
            return Ok(Some(found));
        }
        if wait.is_zero() {
            return Ok(None);
        }
        let _waiting = Waiting::new(self)?;
        let mut height = self.shared.ledger.subscribe();
        let mut stop = self.stop.clone();
        let waiting = async {
            loop {
                let mut changed = std::pin::pin!(self.shared.mempool.changed());
                changed.as_mut().enable();
                height.latest();
                if let Some(found) = look() {
                    return Some(found);
                }
                let changed = async {
                    changed.await;
                    sleep(LOOK_EVERY).await;
                };
                tokio::select! {
                    () = changed => {}
                    () = height.changed() => {}
                    _ = stop.wait_for(|stop| *stop) => return None,
                }
            }
        };
        Ok(timeout(wait, waiting).await.ok().flatten())
    }
}

/// A request that waits.
struct Waiting<'a> {
    api: &'a Api,
    _permit: OwnedSemaphorePermit,
}

impl<'a> Waiting<'a> {
    fn new(api: &'a Api) -> Result<Self, Refused> {
        let permit = api.limits.wait().map_err(|refused| api.refused(refused))?;
        api.shared.metrics.api_waiting.inc();
        Ok(Self { api, _permit: permit })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.api.shared.metrics.api_waiting.dec();
    }
}

/// Every path, once. A test holds this against the description.
fn routes() -> Vec<(&'static str, MethodRouter<Api>)> {
    vec![
        ("/v1/statements", post(statements::submit)),
        ("/v1/statements/{id}", get(statements::status)),
        ("/v1/streams/{stream}/partitions/{partition}/head", get(chain::head)),
        ("/v1/identities/{id}", get(chain::identity)),
        ("/v1/blocks", get(blocks::range)),
        ("/v1/blocks/{height}", get(blocks::one)),
        ("/v1/headers/{height}", get(blocks::header)),
        ("/v1/certificates/{height}", get(blocks::certificate)),
        ("/v1/log/proof", get(log::proof)),
        ("/v1/state/proof", get(proofs::state)),
        ("/v1/validators", get(governance::validators)),
        ("/v1/parameters", get(governance::parameters)),
        ("/v1/proposals", get(governance::proposals)),
        ("/v1/committees", get(governance::committees)),
        ("/checkpoint", get(tiles::checkpoint)),
        ("/tile/{*path}", get(tiles::tile)),
        ("/v1/status", get(status::status)),
        ("/v1/ready", get(status::ready)),
        ("/v1/health", get(status::health)),
        ("/health", get(status::health_short)),
        ("/metrics", get(status::metrics)),
        ("/openapi.json", get(openapi::document)),
    ]
}

fn router(api: Api) -> Router {
    let router = routes().into_iter().fold(Router::new(), |router, (path, method)| router.route(path, method));
    router
        .fallback(async || ApiError::not_found("no_such_path", "GET /openapi.json describes the paths there are"))
        .layer(middleware::from_fn_with_state(api.clone(), guard))
        .with_state(api)
}

/// The route of a path, so that metrics have few labels.
fn route_of(routes: &[&'static str], path: &str) -> &'static str {
    let fits = |route: &str| {
        let (mut want, mut found) = (route.split('/'), path.split('/'));
        loop {
            match (want.next(), found.next()) {
                (None, None) => return true,
                (Some(want), Some(_)) if want.starts_with("{*") => return true,
                (Some(want), Some(found)) if want == found || want.starts_with('{') => {}
                _ => return false,
            }
        }
    };
    routes.iter().find(|route| fits(route)).copied().unwrap_or("other")
}

/// Refuses what comes too fast, counts the rest, and tells the connection where its request stands.
async fn guard(
    State(api): State<Api>,
    ConnectInfo(client): ConnectInfo<Client>,
    request: Request,
    next: Next,
) -> Response {
    client.progress.working();
    let route = route_of(&api.routes, request.uri().path());
    let response = match api.limits.request(client.address.ip()) {
        Ok(()) => explain(next.run(request).await).await,
        Err(refused) => ApiError::from(api.refused(refused)).into_response(),
    };
    api.shared.metrics.requests.with_label_values(&[route, response.status().as_str()]).inc();
    client.progress.answered();
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

/// How the API's connections are encrypted.
pub(crate) struct Tls(TlsAcceptor);

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// When they cannot be used: see [`tls::acceptor`].
    pub(crate) fn load(config: &TlsConfig) -> Result<Self, NodeError> {
        tls::acceptor(config).map(Self)
    }
}

/// Everything that the API is served from.
pub(crate) struct Service {
    pub(crate) config: ApiConfig,
    pub(crate) tls: Option<Tls>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) marshal: Marshal,
    pub(crate) scrape: Scrape,
}

impl Service {
    fn api(self, stop: watch::Receiver<bool>) -> Api {
        let Self { config, tls: _, shared, marshal, scrape } = self;
        let limits = Arc::new(Limits::new(&config));
        let routes = routes().into_iter().map(|(path, _)| path).collect();
        let description = openapi::description();
        let bundles = tiles::Bundles::new();
        Api(Arc::new(Inner { config, shared, marshal, scrape, stop, limits, routes, description, bundles }))
    }
}

/// Serves until it is told to stop. It has a runtime of its own, so that nobody else's work delays it.
pub(crate) fn run(
    listener: std::net::TcpListener,
    mut service: Service,
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
        let tls = service.tls.take().map(|Tls(acceptor)| acceptor);
        let encrypted = tls.is_some();
        let api = service.api(stop.clone());
        let listener = Bounded::new(listener, Arc::clone(&api.limits), Arc::clone(&api.shared), tls);
        let mut stop_serving = stop.clone();
        let service = router(api).into_make_service_with_connect_info::<Client>();
        let serving = axum::serve(listener, service).with_graceful_shutdown(async move {
            // The sender lives as long as the node; its end is a stop as well.
            let _ = stop_serving.wait_for(|stop| *stop).await;
        });
        info!(%address, tls = encrypted, "HTTP API listens");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_route_and_a_strange_one_none() {
        let routes: Vec<&'static str> = routes().into_iter().map(|(path, _)| path).collect();
        for (path, route) in [
            ("/v1/statements", "/v1/statements"),
            ("/v1/statements/00ff", "/v1/statements/{id}"),
            ("/v1/streams/a.b/partitions/3/head", "/v1/streams/{stream}/partitions/{partition}/head"),
            ("/v1/blocks/3/more", "other"),
            ("/", "other"),
            ("", "other"),
        ] {
            assert_eq!(route_of(&routes, path), route, "{path}");
        }
    }
}
