//! Proofs that an anchor stands in the finalized log.

use axum::{
    Json,
    extract::{Query, State},
};
use cairn_proof::{Digest, LeafIndex, TreeSize};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    error::{ApiError, Problem},
    openapi::Hash,
};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Ask {
    /// The anchor's place in the log.
    index: u64,
    /// The log's size in the header that the proof is for; the newest when it is left out.
    size: Option<u64>,
}

/// An inclusion proof (RFC 9162, section 2.1.3.1).
#[derive(Serialize, ToSchema)]
pub(super) struct LogProof {
    index: u64,
    size: u64,
    #[schema(value_type = Hash)]
    leaf: Digest,
    /// Hashes from the leaf up.
    #[schema(value_type = Vec<Hash>)]
    path: Vec<Digest>,
}

/// The inclusion path of an anchor in the log of `size` anchors.
#[utoipa::path(
    get, path = "/v1/log/proof", tag = "proofs", params(Ask),
    responses((status = 200, body = LogProof), (status = 404, description = "no_such_leaf", body = Problem))
)]
pub(super) async fn proof(State(api): State<Api>, Query(ask): Query<Ask>) -> Result<Json<LogProof>, ApiError> {
    let size = ask.size.unwrap_or_else(|| api.shared.ledger.tip().header.log_size.0);
    let proof = api.shared.ledger.prove(LeafIndex(ask.index), TreeSize(size));
    let proof = proof.map_err(|error| ApiError::not_found("no_such_leaf", format!("log proof: {error}")))?;
    Ok(Json(LogProof { index: ask.index, size, leaf: proof.leaf, path: proof.path }))
}
