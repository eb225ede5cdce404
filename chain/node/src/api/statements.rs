//! Submitting statements, and asking what became of them.

use std::time::Duration;

use axum::{
    Json,
    body::{Body, to_bytes},
    extract::{Path, Query, State},
    http::StatusCode,
};
use cairn_proof::{Digest, statement::STATEMENT_BYTES_MAX};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Api, error::ApiError};
use crate::{
    clock,
    mempool::{Admission, may_lift},
};

/// Pause between two attempts to take in a statement whose predecessor may be on its way.
const AGAIN: Duration = Duration::from_millis(20);

/// Takes in a statement.
pub(super) async fn submit(State(api): State<Api>, body: Body) -> Result<(StatusCode, Json<Value>), ApiError> {
    let statement = to_bytes(body, STATEMENT_BYTES_MAX).await.map_err(|_| {
        let message = format!("a statement has at most {STATEMENT_BYTES_MAX} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    })?;
    let id = cairn_proof::statement::statement_id(&statement);
    let accepted = |id: Digest| Ok((StatusCode::ACCEPTED, Json(json!({ "id": id }))));
    if api.shared.ledger.locate(&id).is_some() {
        return accepted(id);
    }
    let mut last = None;
    let attempt = || match api.shared.submit(&statement, clock::system_milliseconds()) {
        Admission::Refused(refusal) if may_lift(refusal.code) => {
            last = Some(refusal);
            None
        }
        other => Some(other),
    };
    let wait = Duration::from_millis(api.config.admission_wait_ms).max(AGAIN);
    let admission = api.until(wait, attempt).await;
    match admission.or_else(|| last.map(Admission::Refused)) {
        Some(Admission::Pooled(id) | Admission::Known(id)) => accepted(id),
        // It may have become final between the look above and the attempt.
        Some(Admission::Refused(_)) if api.shared.ledger.locate(&id).is_some() => accepted(id),
        Some(Admission::Refused(refusal)) => {
            api.shared.metrics.refused(refusal.code);
            Err(refusal.into())
        }
        Some(Admission::SignerFull { most }) => {
            let message =
                format!("{most} statements of this signer wait for a block already: wait until they are final");
            Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "signer_full", message))
        }
        Some(Admission::Full) => {
            let message = "too many statements wait for a block: try again later, or at another validator";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "mempool_full", message))
        }
        None => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "this validator is stopping")),
    }
}

#[derive(Deserialize)]
pub(super) struct Wait {
    wait_ms: Option<u64>,
}

/// What became of a statement.
#[derive(Serialize)]
pub(super) struct Status {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Status {
    const fn simple(status: &'static str) -> Self {
        Self { status, height: None, log_index: None, code: None, message: None }
    }

    /// Finalized or refused; `None` while neither.
    fn settled(api: &Api, id: &Digest) -> Option<Self> {
        if let Some(location) = api.shared.ledger.locate(id) {
            let height = Some(location.height.0);
            let log_index = location.log_index.map(|index| index.0);
            return Some(Self { height, log_index, ..Self::simple("finalized") });
        }
        if api.shared.mempool.contains(id) {
            return None;
        }
        let refusal = api.shared.mempool.refusal(id)?;
        Some(Self { code: Some(refusal.code.name()), message: Some(refusal.message), ..Self::simple("refused") })
    }
}

/// Says what became of a statement; with `wait_ms`, waits until it is final or refused.
pub(super) async fn status(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(wait): Query<Wait>,
) -> Result<Json<Status>, ApiError> {
    let id = Digest::parse(&id).map_err(|error| ApiError::bad_request(format!("statement id: {error}")))?;
    if let Some(settled) = Status::settled(&api, &id) {
        return Ok(Json(settled));
    }
    if let Some(settled) = api.until(api.wait(wait.wait_ms), || Status::settled(&api, &id)).await {
        return Ok(Json(settled));
    }
    let pending = api.shared.mempool.contains(&id);
    // Between the last look and this one it may have left the pool.
    let settled = Status::settled(&api, &id);
    Ok(Json(settled.unwrap_or_else(|| Status::simple(if pending { "pending" } else { "unknown" }))))
}
