//! How the validator is doing: for people, for probes, for Prometheus.

use axum::{Json, extract::State, http::header, response::IntoResponse};
use serde_json::{Value, json};

use super::Api;
use crate::clock;

/// Everything at a glance.
pub(super) async fn status(State(api): State<Api>) -> Json<Value> {
    let tip = api.shared.ledger.tip();
    let (statements, bytes) = api.shared.mempool.size();
    let genesis = &api.shared.genesis;
    let now_ms = clock::system_milliseconds();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "chain_id": genesis.chain_id,
        "chain_tag": api.shared.tag.0,
        "validator": api.shared.validator,
        "validators": genesis.validators.len(),
        "height": tip.header.height,
        "view": tip.header.view,
        "block_timestamp_ms": tip.header.timestamp_ms,
        "block_age_ms": now_ms.saturating_sub(tip.header.timestamp_ms),
        "state_root": tip.header.state_root,
        "log_root": tip.header.log_root,
        "log_size": tip.header.log_size,
        "mempool": { "statements": statements, "bytes": bytes },
    }))
}

/// That the validator runs. Whether the chain moves is told by `block_age_ms` of the status.
pub(super) async fn health(State(api): State<Api>) -> Json<Value> {
    Json(json!({ "status": "ok", "height": api.shared.ledger.height() }))
}

/// The consensus library's metrics and this crate's, as one text.
pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let mut text = (api.scrape)();
    // The library's text ends as OpenMetrics does; ours follows it.
    let end = text.trim_end().strip_suffix("# EOF").map_or(text.len(), str::len);
    text.truncate(end);
    text.push_str(&api.shared.metrics.text());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
