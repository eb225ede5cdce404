//! Reading the finalized state: heads of partitions and identities.

use axum::{
    Json,
    extract::{Path, State},
};
use cairn_proof::{Digest, Partition, identity::IdentityId};
use serde_json::{Value, json};

use super::{Api, error::ApiError};

/// How far a partition is anchored; offset 0, anchor zero and log index 0 when it is not.
pub(super) async fn head(
    State(api): State<Api>,
    Path((stream, partition)): Path<(String, u32)>,
) -> Result<Json<Value>, ApiError> {
    let tip = api.shared.ledger.tip();
    let Some(entry) = tip.state.stream(&stream) else {
        let message = format!("stream {stream:?} is not registered at height {}", tip.header.height);
        return Err(ApiError::not_found("no_such_stream", message));
    };
    let Some(head) = tip.state.head(&stream, Partition(partition)) else {
        let message =
            format!("stream {stream} has {} partitions, there is no {partition}", entry.definition.partitions);
        return Err(ApiError::not_found("no_such_partition", message));
    };
    Ok(Json(json!({
        "next": head.next,
        "anchor": head.anchor,
        "log_index": head.log_index,
        "records": head.records,
        "quarantined": head.quarantined,
        "height": tip.header.height,
    })))
}

/// A registered identity and the last sequence number that it used.
pub(super) async fn identity(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let id = Digest::parse(&id).map_err(|error| ApiError::bad_request(format!("identity id: {error}")))?;
    let id = IdentityId(id);
    let tip = api.shared.ledger.tip();
    let Some(entry) = tip.state.identity(&id) else {
        let message = format!("identity {id} is not registered at height {}", tip.header.height);
        return Err(ApiError::not_found("no_such_identity", message));
    };
    Ok(Json(json!({
        "id": entry.id,
        "public_key": entry.public_key,
        "kind": entry.kind,
        "name": entry.name,
        "controller": entry.controller,
        "height": entry.height,
        "sequence": tip.state.sequence(&id),
    })))
}
