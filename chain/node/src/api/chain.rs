//! Reading the finalized state: heads of partitions and identities.

use axum::{
    Json,
    extract::{Path, State},
};
use cairn_proof::{Digest, Partition, identity::IdentityId};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    error::{ApiError, Problem},
    openapi::Hash,
};

/// How far a partition is anchored.
#[derive(Serialize, ToSchema)]
pub(super) struct Head {
    /// The offset that the next anchor must begin with; 0 before the first.
    next: u64,
    /// Id of the last anchor; zero before the first.
    #[schema(value_type = Hash)]
    anchor: Digest,
    /// Place of the last anchor in the log; 0 before the first.
    log_index: u64,
    /// Records anchored, quarantined ones included.
    records: u64,
    quarantined: u64,
    /// The block at which this holds.
    height: u64,
}

/// How far a partition of a stream is anchored.
#[utoipa::path(
    get, path = "/v1/streams/{stream}/partitions/{partition}/head", tag = "state",
    params(("stream" = String, Path), ("partition" = u32, Path)),
    responses((status = 200, body = Head), (status = 404, description = "no_such_stream, no_such_partition", body = Problem))
)]
pub(super) async fn head(
    State(api): State<Api>,
    Path((stream, partition)): Path<(String, u32)>,
) -> Result<Json<Head>, ApiError> {
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
    Ok(Json(Head {
        next: head.next.0,
        anchor: head.anchor,
        log_index: head.log_index.0,
        records: head.records,
        quarantined: head.quarantined,
        height: tip.header.height.0,
    }))
}

/// A registered identity.
#[derive(Serialize, ToSchema)]
pub(super) struct Identity {
    #[schema(value_type = Hash)]
    id: IdentityId,
    #[schema(value_type = Hash)]
    public_key: cairn_proof::identity::PublicKey,
    /// `organisation`, `person`, `device` or `node`.
    #[schema(value_type = String)]
    kind: cairn_proof::identity::IdentityKind,
    name: String,
    /// Who registered it; null for those of genesis.
    #[schema(value_type = Option<Hash>)]
    controller: Option<IdentityId>,
    /// The block that registered it.
    height: u64,
    /// The last sequence number that it used.
    sequence: u64,
}

/// A registered identity and the last sequence number that it used.
#[utoipa::path(
    get, path = "/v1/identities/{id}", tag = "state", params(("id" = String, Path)),
    responses((status = 200, body = Identity), (status = 404, description = "no_such_identity", body = Problem))
)]
pub(super) async fn identity(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Identity>, ApiError> {
    let id = Digest::parse(&id).map_err(|error| ApiError::bad_request(format!("identity id: {error}")))?;
    let id = IdentityId(id);
    let tip = api.shared.ledger.tip();
    let Some(entry) = tip.state.identity(&id) else {
        let message = format!("identity {id} is not registered at height {}", tip.header.height);
        return Err(ApiError::not_found("no_such_identity", message));
    };
    Ok(Json(Identity {
        id: entry.id,
        public_key: entry.public_key,
        kind: entry.kind,
        name: entry.name.clone(),
        controller: entry.controller,
        height: entry.height.0,
        sequence: tip.state.sequence(&id).0,
    }))
}
