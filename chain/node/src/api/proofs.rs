//! Proofs of what the state says, or that it says nothing, against a certified header.

use std::collections::BTreeMap;

use axum::{
    extract::{Query, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use cairn_proof::{
    Height,
    committee::CommitteeChange,
    receipt::Base64Bytes,
    state_proof::{StateProof, Subject},
};
use serde_json::{Map, Value};

use super::{
    Api,
    error::{ApiError, Problem},
};
use crate::limits::FINALIZED_STATES_KEPT;

/// Fields of a subject that are numbers.
const NUMBERS: [&str; 3] = ["partition", "epoch", "view"];

/// Reads a subject from a query: `kind` and the fields of that kind, as they stand in a proof's file.
fn subject(query: BTreeMap<String, String>) -> Result<Subject, ApiError> {
    let mut fields = Map::new();
    for (name, value) in query {
        let value = match value.parse::<u64>() {
            Ok(number) if NUMBERS.contains(&name.as_str()) => Value::from(number),
            _ => Value::from(value),
        };
        fields.insert(name, value);
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| ApiError::bad_request(format!("what is to be proven: {error}")))
}

/// A state proof of one subject, against the newest header that this node has a certificate of.
///
/// The query is the proof's subject: `kind` is `identity` (with `id`), `key` (`key`), `sequence` (`id`), `stream`
/// (`name`), `topic` (`topic`), `role` (`stream`, `role`, `identity`), `head` (`stream`, `partition`), `anchor` (`id`),
/// `validator` (`key`), `proposal` (`id`), `evidence` (`validator`, `epoch`, `view`), `committee`, `next_committee`,
/// `parameters`, `next_parameters` or `attested`.
#[utoipa::path(
    get, path = "/v1/state/proof", tag = "proofs",
    params(("kind" = String, Query, description = "what is to be proven; further parameters depend on it")),
    responses(
        (status = 200, description = "the file, in its one exact form", content_type = "application/json", body = serde_json::Value),
        (status = 400, description = "bad_request", body = Problem),
        (status = 503, description = "no_certificate", body = Problem),
    )
)]
pub(super) async fn state(
    State(api): State<Api>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Response, ApiError> {
    let subject = subject(query)?;
    let last = api.shared.ledger.height().0;
    for height in (last.saturating_sub(FINALIZED_STATES_KEPT)..=last).rev() {
        let Some(block) = api.block(Height(height)).await else { continue };
        let Some(certificate) = &block.certificate else { continue };
        let Some(executed) = api.shared.executor.get(&block.block.id()) else { continue };
        let parts = executed.state.prove(&subject);
        let committees = changes_before(&api, executed.header.epoch).await?;
        let header = block.block.header_bytes().to_vec();
        let proof = StateProof::new(subject, parts, committees, header, certificate.clone());
        let file = proof.to_json().map_err(|error| ApiError::unavailable("proof", error.to_string()))?;
        return Ok(([(CONTENT_TYPE, "application/json")], file).into_response());
    }
    let message = format!("none of the last blocks up to {last} has a certificate of its own here: try again");
    Err(ApiError::unavailable("no_certificate", message))
}

/// The committee changes at the ends of the epochs before `epoch`, oldest first.
async fn changes_before(api: &Api, epoch: u64) -> Result<Vec<CommitteeChange>, ApiError> {
    let mut changes = Vec::new();
    for change in api.shared.ledger.committee_changes(0, usize::MAX) {
        if change.epoch >= epoch {
            break;
        }
        let (header, certificate) = api.boundary(change.height).await?;
        let (header, certificate) = (Base64Bytes(header), Base64Bytes(certificate));
        changes.push(CommitteeChange { header, certificate, validators: change.next.keys().to_vec() });
    }
    Ok(changes)
}
