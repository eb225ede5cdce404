//! Reading the finalized state: heads of partitions and identities.

use axum::{
    Json,
    extract::{Path, State},
};
use cairn_chain_state::{BlockTime, IdentityEntry, rules::is_usable};
use cairn_proof::{
    Digest, Partition,
    identity::{IdentityId, IdentityKind, PublicKey},
};
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
    /// Id of the last anchor, the hash of its entry in the log; zero before the first.
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
    /// The `did:key` of the key that it was registered with.
    did: String,
    /// The key it signs with.
    #[schema(value_type = Hash)]
    public_key: PublicKey,
    /// The key it was registered with.
    #[schema(value_type = Hash)]
    first_key: PublicKey,
    /// `organisation`, `person`, `device` or `node`.
    #[schema(value_type = String)]
    kind: IdentityKind,
    name: String,
    /// Who registered it; null for those of genesis.
    #[schema(value_type = Option<Hash>)]
    controller: Option<IdentityId>,
    /// `active`, `revoked` or `expired`.
    status: &'static str,
    /// The block that registered it.
    height: u64,
    /// The block that revoked it, if one did.
    revoked: Option<u64>,
    /// The block time from which on nothing it signs is taken, in milliseconds since 1970-01-01 UTC.
    expires_ms: Option<u64>,
    /// The last sequence number that it used.
    sequence: u64,
}

/// The identity with that id, or that has or had the key of that `did:key`.
fn find<'a>(state: &'a cairn_chain_state::State, asked: &str) -> Result<Option<&'a IdentityEntry>, ApiError> {
    let id = if asked.starts_with("did:") {
        let key = PublicKey::from_did(asked).map_err(|error| ApiError::bad_request(format!("did: {error}")))?;
        match state.identity_of_key(&key) {
            Some(id) => *id,
            None => return Ok(None),
        }
    } else {
        IdentityId(Digest::parse(asked).map_err(|error| ApiError::bad_request(format!("identity id: {error}")))?)
    };
    Ok(state.identity(&id).map(AsRef::as_ref))
}

/// A registered identity by its id or a `did:key`, and the last sequence number that it used.
#[utoipa::path(
    get, path = "/v1/identities/{id}", tag = "state",
    params(("id" = String, Path, description = "the id, or the did:key of a key that it has or had")),
    responses((status = 200, body = Identity), (status = 404, description = "no_such_identity", body = Problem))
)]
pub(super) async fn identity(State(api): State<Api>, Path(asked): Path<String>) -> Result<Json<Identity>, ApiError> {
    let tip = api.shared.ledger.tip();
    let Some(entry) = find(&tip.state, &asked)? else {
        let message = format!("identity {asked} is not registered at height {}", tip.header.height);
        return Err(ApiError::not_found("no_such_identity", message));
    };
    let at = BlockTime { height: tip.header.height, timestamp_ms: tip.header.timestamp_ms };
    Ok(Json(Identity {
        id: entry.id,
        did: entry.first_key.did(),
        public_key: entry.public_key,
        first_key: entry.first_key,
        kind: entry.kind,
        name: entry.name.clone(),
        controller: entry.controller,
        status: is_usable(entry, &at).map_or_else(|refusal| refusal.code.name(), |()| "active"),
        height: entry.height.0,
        revoked: entry.revoked.map(|height| height.0),
        expires_ms: entry.expires_ms,
        sequence: tip.state.sequence(&entry.id).0,
    }))
}
