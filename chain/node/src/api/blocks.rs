//! Finalized blocks, headers and certificates: from memory when they are recent, else from marshal's archive.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cairn_proof::{Digest, Height, block::encode_blocks, statement::statement_id};
use commonware_codec::Encode as _;
use commonware_consensus::types;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    error::{ApiError, Problem},
    openapi::{Base64, Hash},
};
use crate::{block::Block, ledger::FinalBlock};

/// Heights that are searched for one with a certificate. A block without one is rare: it became final through a
/// descendant before its own certificate was made.
const CERTIFICATE_SEARCH_MAX: u64 = 1_024;

fn cbor(bytes: impl Into<Vec<u8>>) -> Response {
    ([(CONTENT_TYPE, "application/cbor")], bytes.into()).into_response()
}

impl Api {
    /// The finalized block at `height`, if the chain has come to it and this validator has it.
    pub(super) async fn block(&self, height: Height) -> Option<Arc<FinalBlock>> {
        if height > self.shared.ledger.height() {
            return None;
        }
        if height == Height(0) {
            let block = Block::genesis(&self.shared.genesis);
            return Some(Arc::new(FinalBlock { block, certificate: None }));
        }
        let recent = self.shared.ledger.recent(height);
        if let Some(found) = &recent
            && found.certificate.is_some()
        {
            return recent;
        }
        let at = types::Height::new(height.0);
        let block = match recent {
            Some(found) => found.block.clone(),
            None => self.marshal.get_block(at).await?.inner().clone(),
        };
        let certificate = self.marshal.get_finalization(at).await.map(|found| found.encode().to_vec());
        Some(Arc::new(FinalBlock { block, certificate }))
    }

    async fn block_or_404(&self, height: u64) -> Result<Arc<FinalBlock>, ApiError> {
        self.block(Height(height)).await.ok_or_else(|| {
            let message = format!("block {height} is not final here; the last one is {}", self.shared.ledger.height());
            ApiError::not_found("no_such_block", message)
        })
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Range {
    /// The first height.
    from: u64,
    /// Blocks in the answer; fewer are given when they are large.
    limit: Option<usize>,
    /// How long to wait until the chain comes to `from`.
    wait_ms: Option<u64>,
}

/// Consecutive blocks; an empty array when the chain has not come to `from` within the wait.
#[utoipa::path(
    get, path = "/v1/blocks", tag = "blocks", params(Range),
    responses((status = 200, description = "CBOR array of signed blocks", content_type = "application/cbor", body = [u8]))
)]
pub(super) async fn range(State(api): State<Api>, Query(range): Query<Range>) -> Result<Response, ApiError> {
    let limit = range.limit.unwrap_or(usize::MAX).min(api.config.blocks_count_max);
    let reached = || (api.shared.ledger.height() >= Height(range.from)).then_some(());
    if reached().is_none() {
        api.until(api.wait(range.wait_ms), reached).await?;
    }
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    let mut height = Height(range.from);
    while blocks.len() < limit && bytes < api.config.blocks_bytes_max {
        let Some(block) = api.block(height).await else { break };
        let block = block.signed();
        bytes += block.header.len() + block.statements.iter().map(Vec::len).sum::<usize>();
        bytes += block.certificate.as_ref().map_or(0, Vec::len);
        // One block is always sent, however large: a follower could not go on otherwise.
        if bytes > api.config.blocks_bytes_max && !blocks.is_empty() {
            break;
        }
        blocks.push(block);
        height = height.next();
    }
    Ok(cbor(encode_blocks(&blocks)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Form {
    /// `json` (a summary), or `cbor` (the signed block).
    format: Option<String>,
}

/// A block without its statements' bytes.
#[derive(Serialize, ToSchema)]
pub(super) struct Summary {
    height: u64,
    /// SHA-256 of the header.
    #[schema(value_type = Hash)]
    id: Digest,
    chain_id: String,
    epoch: u64,
    view: u64,
    /// Public key of the validator that proposed it; zero for genesis.
    #[schema(value_type = Hash)]
    proposer: String,
    timestamp_ms: u64,
    #[schema(value_type = Hash)]
    parent: Digest,
    /// Ids of its statements.
    #[schema(value_type = Vec<Hash>)]
    statements: Vec<Digest>,
    #[schema(value_type = Hash)]
    statements_root: Digest,
    #[schema(value_type = Hash)]
    state_root: Digest,
    #[schema(value_type = Hash)]
    log_root: Digest,
    log_size: u64,
    #[schema(value_type = Hash)]
    validators_hash: Digest,
    /// Hash of the committee that certifies the next block.
    #[schema(value_type = Hash)]
    next_validators_hash: Digest,
    /// Whether this node has a certificate over this very block.
    certified: bool,
}

/// One block: a summary, or the signed block.
#[utoipa::path(
    get, path = "/v1/blocks/{height}", tag = "blocks", params(("height" = u64, Path), Form),
    responses(
        (status = 200, content((Summary = "application/json"), ([u8] = "application/cbor"))),
        (status = 404, description = "no_such_block", body = Problem),
    )
)]
pub(super) async fn one(
    State(api): State<Api>,
    Path(height): Path<u64>,
    Query(form): Query<Form>,
) -> Result<Response, ApiError> {
    let found = api.block_or_404(height).await?;
    match form.format.as_deref() {
        Some("cbor") => Ok(cbor(found.signed().encode())),
        None | Some("json") => Ok(Json(summary(&found)).into_response()),
        Some(other) => Err(ApiError::bad_request(format!("format: expected json or cbor, found {other:?}"))),
    }
}

fn summary(found: &FinalBlock) -> Summary {
    let header = found.block.header();
    Summary {
        height: header.height.0,
        id: found.block.id(),
        chain_id: header.chain_id.clone(),
        epoch: header.epoch,
        view: header.view,
        proposer: hex::encode(header.proposer),
        timestamp_ms: header.timestamp_ms,
        parent: header.parent,
        statements: found.block.statements().iter().map(|statement| statement_id(statement)).collect(),
        statements_root: header.statements_root,
        state_root: header.state_root,
        log_root: header.log_root,
        log_size: header.log_size.0,
        validators_hash: header.validators_hash,
        next_validators_hash: header.next_validators_hash,
        certified: found.certificate.is_some(),
    }
}

/// A header's bytes.
#[utoipa::path(
    get, path = "/v1/headers/{height}", tag = "blocks", params(("height" = u64, Path)),
    responses(
        (status = 200, description = "the header (CBOR)", content_type = "application/cbor", body = [u8]),
        (status = 404, description = "no_such_block", body = Problem),
    )
)]
pub(super) async fn header(State(api): State<Api>, Path(height): Path<u64>) -> Result<Response, ApiError> {
    let found = api.block_or_404(height).await?;
    Ok(cbor(found.block.header_bytes().to_vec()))
}

/// A header and the certificate over it.
#[derive(Serialize, ToSchema)]
pub(super) struct Certified {
    height: u64,
    #[schema(value_type = Base64)]
    header: String,
    #[schema(value_type = Base64)]
    certificate: String,
}

/// The first block at or after a height that has a certificate of its own.
#[utoipa::path(
    get, path = "/v1/certificates/{height}", tag = "blocks", params(("height" = u64, Path)),
    responses((status = 200, body = Certified), (status = 404, description = "no_certificate", body = Problem))
)]
pub(super) async fn certificate(State(api): State<Api>, Path(height): Path<u64>) -> Result<Json<Certified>, ApiError> {
    let last = api.shared.ledger.height().0;
    for at in height.max(1)..=last.min(height.saturating_add(CERTIFICATE_SEARCH_MAX)) {
        if let Some(found) = api.block(Height(at)).await
            && let Some(certificate) = &found.certificate
        {
            return Ok(Json(Certified {
                height: at,
                header: STANDARD.encode(found.block.header_bytes()),
                certificate: STANDARD.encode(certificate),
            }));
        }
    }
    let message = format!("no block from {height} on has a certificate of its own yet; the last one is {last}");
    Err(ApiError::new(StatusCode::NOT_FOUND, "no_certificate", message))
}
