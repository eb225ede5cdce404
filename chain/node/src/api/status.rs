//! How the node is doing: for people, for probes, for Prometheus.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use cairn_proof::{Digest, identity::PublicKey};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, openapi::Hash};
use crate::{clock, ledger::Tip};

/// What clocks may differ and a block may take, besides the heartbeats.
const GRACE_MS: u64 = 1_000;

/// What this node is to the chain.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    /// It votes.
    Validator,
    /// It follows and passes statements on to the validators.
    Follower,
}

/// Statements that wait for a block.
#[derive(Serialize, ToSchema)]
pub(super) struct Waiting {
    statements: usize,
    bytes: usize,
}

/// A node at a glance.
#[derive(Serialize, ToSchema)]
pub(super) struct NodeStatus {
    version: &'static str,
    chain_id: String,
    /// Which chain it is: the hash that every signature covers.
    #[schema(value_type = Hash)]
    chain_tag: Digest,
    /// This node's key.
    #[schema(value_type = Hash)]
    validator: PublicKey,
    role: Role,
    /// How many validators certify the next block.
    validators: usize,
    height: u64,
    epoch: u64,
    view: u64,
    block_timestamp_ms: u64,
    /// By this node's clock.
    block_age_ms: u64,
    #[schema(value_type = Hash)]
    state_root: Digest,
    #[schema(value_type = Hash)]
    log_root: Digest,
    log_size: u64,
    mempool: Waiting,
}

fn role(api: &Api, tip: &Tip) -> Role {
    if tip.state.committee().contains(&api.shared.validator) { Role::Validator } else { Role::Follower }
}

fn block_age_ms(tip: &Tip) -> u64 {
    clock::system_milliseconds().saturating_sub(tip.header.timestamp_ms)
}

/// Everything at a glance.
#[utoipa::path(get, path = "/v1/status", tag = "node", responses((status = 200, body = NodeStatus)))]
pub(super) async fn status(State(api): State<Api>) -> Json<NodeStatus> {
    let tip = api.shared.ledger.tip();
    let (statements, bytes) = api.shared.mempool.size();
    let genesis = &api.shared.genesis;
    Json(NodeStatus {
        version: env!("CARGO_PKG_VERSION"),
        chain_id: genesis.chain_id.clone(),
        chain_tag: api.shared.tag.0,
        validator: api.shared.validator,
        role: role(&api, &tip),
        validators: tip.state.committee().len(),
        height: tip.header.height.0,
        epoch: tip.header.epoch,
        view: tip.header.view,
        block_timestamp_ms: tip.header.timestamp_ms,
        block_age_ms: block_age_ms(&tip),
        state_root: tip.header.state_root,
        log_root: tip.header.log_root,
        log_size: tip.header.log_size.0,
        mempool: Waiting { statements, bytes },
    })
}

/// Why a node is not ready.
#[derive(Serialize, ToSchema)]
pub(super) struct Reason {
    /// `genesis` (no block is final here yet), `behind` (the last one is old: this node catches up, or the chain
    /// stands still), `stopping`.
    code: &'static str,
    message: String,
}

/// Whether a node follows the head.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    ready: bool,
    role: Role,
    height: u64,
    /// By this node's clock.
    block_age_ms: u64,
    /// The age up to which it counts as following.
    block_age_ms_max: u64,
    /// Empty when it is ready.
    reasons: Vec<Reason>,
}

/// Whether the node follows the head: its last final block is young. Not while it catches up or the chain stands still.
#[utoipa::path(
    get, path = "/v1/ready", tag = "node",
    responses((status = 200, body = Readiness), (status = 503, description = "not ready, and why", body = Readiness))
)]
pub(super) async fn ready(State(api): State<Api>) -> (StatusCode, Json<Readiness>) {
    let tip = api.shared.ledger.tip();
    let (age, most) = (block_age_ms(&tip), ready_age_ms_max(&api, &tip));
    let mut reasons = Vec::new();
    let mut not = |code, message| reasons.push(Reason { code, message });
    if *api.stop.borrow() {
        not("stopping", "this node is stopping".to_owned());
    }
    if tip.header.height.0 == 0 {
        not("genesis", "no block is final here yet".to_owned());
    } else if age > most {
        let message = format!(
            "the last final block here, {}, is {age} ms old, expected at most {most}: this node is catching up, or the chain stands still",
            tip.header.height
        );
        not("behind", message);
    }
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let role = role(&api, &tip);
    let answer =
        Readiness { ready, role, height: tip.header.height.0, block_age_ms: age, block_age_ms_max: most, reasons };
    (status, Json(answer))
}

/// The age up to which the last block counts as the head.
fn ready_age_ms_max(api: &Api, tip: &Tip) -> u64 {
    let heartbeat_ms = tip.state.parameters().heartbeat_ms;
    heartbeat_ms.saturating_mul(api.config.ready_heartbeats_max).saturating_add(GRACE_MS)
}

/// That the process lives.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`.
    status: &'static str,
    height: u64,
}

/// That the process lives and answers. Whether it follows the head is told by `/v1/ready`.
#[utoipa::path(get, path = "/v1/health", tag = "node", responses((status = 200, body = Health)))]
pub(super) async fn health(State(api): State<Api>) -> Json<Health> {
    Json(Health { status: "ok", height: api.shared.ledger.height().0 })
}

/// The same as `/v1/health`.
#[utoipa::path(get, path = "/health", tag = "node", responses((status = 200, body = Health)))]
pub(super) async fn health_short(state: State<Api>) -> Json<Health> {
    health(state).await
}

/// The node's metrics for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "node",
    responses((status = 200, description = "Prometheus text", content_type = "text/plain", body = String))
)]
pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let mut text = (api.scrape)();
    // The library's text ends as OpenMetrics does; ours follows it.
    let end = text.trim_end().strip_suffix("# EOF").map_or(text.len(), str::len);
    text.truncate(end);
    text.push_str(&api.shared.metrics.text());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
