//! Proofs that an anchor stands in the finalized log.

use axum::{
    Json,
    extract::{Query, State},
};
use cairn_proof::{LeafIndex, TreeSize};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, error::ApiError};

#[derive(Deserialize)]
pub(super) struct Ask {
    index: u64,
    /// The log's size in the header that the proof is for; the newest when it is left out.
    size: Option<u64>,
}

/// The inclusion path of an anchor (RFC 9162, section 2.1.3.1).
pub(super) async fn proof(State(api): State<Api>, Query(ask): Query<Ask>) -> Result<Json<Value>, ApiError> {
    let size = ask.size.unwrap_or_else(|| api.shared.ledger.tip().header.log_size.0);
    let proof = api.shared.ledger.prove(LeafIndex(ask.index), TreeSize(size));
    let proof = proof.map_err(|error| ApiError::not_found("no_such_leaf", format!("log proof: {error}")))?;
    Ok(Json(json!({ "index": ask.index, "size": size, "leaf": proof.leaf, "path": proof.path })))
}
