//! Submitting statements, one or several in a request, and asking what became of them.
//!
//! ```text
//! POST /v1/statements                                  body                        answer
//!   Content-Type: application/cbor                     CBOR array of byte strings   200 {"results": one for each}
//!   Content-Type: application/cose, another, or none   one statement                202 {"id"}, or its refusal
//! ```
//!
//! Statements of one request are taken in in their order, so that each may build on those before it.

use std::time::Duration;

use axum::{
    Json,
    body::{Body, HttpBody as _, to_bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use cairn_chain_state::Refusal;
use cairn_proof::{
    Digest,
    cbor::{CborError, Reader},
    statement::{STATEMENT_BYTES_MAX, statement_id},
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    error::{ApiError, Problem},
    limits::Refused,
    openapi::Hash,
};
use crate::{
    clock,
    mempool::{Admission, may_lift},
};

/// The type of a body that holds several statements.
const SEVERAL: &str = "application/cbor";

/// Least time between two attempts to take in a statement whose predecessor may be on its way.
const AGAIN: Duration = Duration::from_millis(20);

/// More statements than this hold up a thread for longer than others should wait.
const MANY: usize = 32;

/// Seconds after which a full pool may have room.
const FULL_RETRY_AFTER: u64 = 1;

/// A statement that waits for a block, or is in one already.
#[derive(Serialize, ToSchema)]
pub(super) struct Accepted {
    #[schema(value_type = Hash)]
    id: Digest,
}

/// What became of one of several statements.
#[derive(Serialize, ToSchema)]
pub(super) struct Outcome {
    #[schema(value_type = Hash)]
    id: Digest,
    /// What a request with this statement alone would have been answered: 202, or why not.
    status: u16,
    /// Why it was not accepted, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    code: Option<&'static str>,
    /// Why it was not accepted, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// What became of several statements, in their order.
#[derive(Serialize, ToSchema)]
pub(super) struct Outcomes {
    results: Vec<Outcome>,
}

/// Takes in a statement (COSE_Sign1), or several (a CBOR array of byte strings, with the content type
/// `application/cbor`).
#[utoipa::path(
    post, path = "/v1/statements", tag = "statements",
    request_body(content(([u8] = "application/cose"), ([u8] = "application/cbor"))),
    responses(
        (status = 202, description = "one statement: it waits for a block", body = Accepted),
        (status = 200, description = "several: what became of each", body = Outcomes),
        (status = 400, description = "malformed, signature", body = Problem),
        (status = 408, description = "body_time", body = Problem),
        (status = 409, description = "the chain's refusal code", body = Problem),
        (status = 413, description = "too_large", body = Problem),
        (status = 429, description = "signer_full, address_requests", body = Problem),
        (status = 503, description = "mempool_full, waiting, stopping", body = Problem),
    )
)]
pub(super) async fn submit(State(api): State<Api>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let several = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(SEVERAL));
    if !several {
        let statement = read(&api, body, STATEMENT_BYTES_MAX).await.inspect_err(|error| count(&api, error))?;
        let mut results = admit(&api, &[statement]).await;
        let stopping = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "this node is stopping");
        let id = results.pop().unwrap_or_else(|| Err(stopping())).inspect_err(|error| count(&api, error))?;
        return Ok((StatusCode::ACCEPTED, Json(Accepted { id })).into_response());
    }
    let body = read(&api, body, api.config.body_bytes_max).await.inspect_err(|error| count(&api, error))?;
    let statements = split(&body, api.config.body_statements_max).map_err(|error| {
        api.shared.metrics.refused_for("malformed");
        ApiError::new(StatusCode::BAD_REQUEST, "malformed", format!("several statements: {error}"))
    })?;
    let ids: Vec<Digest> = statements.iter().map(|statement| statement_id(statement)).collect();
    let results = admit(&api, &statements).await;
    let outcome = |(id, result): (Digest, Result<Digest, ApiError>)| match result {
        Ok(_) => Outcome { id, status: StatusCode::ACCEPTED.as_u16(), code: None, message: None },
        Err(error) => {
            count(&api, &error);
            let (status, Problem { code, message }) = (error.status().as_u16(), error.into_problem());
            Outcome { id, status, code: Some(code), message: Some(message) }
        }
    };
    let results = ids.into_iter().zip(results).map(outcome).collect();
    Ok(Json(Outcomes { results }).into_response())
}

fn count(api: &Api, error: &ApiError) {
    api.shared.metrics.refused_for(error.code());
}

/// Reads a body, within its bounds of bytes and time.
async fn read(api: &Api, body: Body, most: usize) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::from(api.refused(Refused::BodyBytes { most }));
    if body.size_hint().lower() > most as u64 {
        return Err(too_large());
    }
    let ms = api.config.body_ms_max;
    let read = timeout(Duration::from_millis(ms), to_bytes(body, most)).await;
    let read = read.map_err(|_| ApiError::from(api.refused(Refused::BodyTime { ms })))?;
    read.map_err(|_| too_large())
}

/// The statements of a body that holds several, without a copy.
fn split(body: &Bytes, most: usize) -> Result<Vec<Bytes>, CborError> {
    let mut reader = Reader::new(body);
    let count = reader.array(most)?;
    let mut statements = Vec::with_capacity(count.min(body.len()));
    for _ in 0..count {
        let statement = reader.bytes()?;
        if statement.is_empty() || statement.len() > STATEMENT_BYTES_MAX {
            let found = format!("{} bytes", statement.len());
            return Err(reader.error(format!("a statement of 1 to {STATEMENT_BYTES_MAX} bytes"), found));
        }
        // Copied, so that a pooled statement does not keep the whole body in memory.
        statements.push(Bytes::copy_from_slice(statement));
    }
    reader.end()?;
    Ok(statements)
}

/// Takes in statements in their order. One that may apply soon is waited for, and those after it with it, because they
/// may build on it; once the wait is over it is refused, and the others are looked at without a wait.
async fn admit(api: &Api, statements: &[Bytes]) -> Vec<Result<Digest, ApiError>> {
    let (mut results, mut last) = (Vec::with_capacity(statements.len()), None);
    let several = |run: &mut dyn FnMut() -> Option<()>| {
        // Thousands of signatures are checked: other requests go on meanwhile.
        if statements.len() > MANY { tokio::task::block_in_place(run) } else { run() }
    };
    let mut attempt = || {
        for statement in &statements[results.len()..] {
            match admit_now(api, statement) {
                Attempt::Later(refusal) => {
                    last = Some(refusal);
                    return None;
                }
                Attempt::Done(result) => results.push(result),
            }
        }
        Some(())
    };
    let wait = Duration::from_millis(api.config.admission_wait_ms).max(AGAIN);
    let waited = api.until(wait, || several(&mut attempt)).await;
    for statement in &statements[results.len()..] {
        let result = match (&waited, last.take()) {
            (Err(refused), _) => Err((*refused).into()),
            (Ok(_), Some(refusal)) => refuse(api, statement, refusal),
            (Ok(_), None) => match admit_now(api, statement) {
                Attempt::Later(refusal) => refuse(api, statement, refusal),
                Attempt::Done(result) => result,
            },
        };
        results.push(result);
    }
    results
}

/// What an attempt to take a statement in came to.
enum Attempt {
    Done(Result<Digest, ApiError>),
    /// A block or a statement that is on its way may lift this refusal.
    Later(Refusal),
}

fn admit_now(api: &Api, statement: &Bytes) -> Attempt {
    let id = statement_id(statement);
    if api.shared.ledger.locate(&id).is_some() {
        return Attempt::Done(Ok(id));
    }
    match api.shared.submit(statement, clock::system_milliseconds()) {
        Admission::Pooled(id) | Admission::Known(id) => Attempt::Done(Ok(id)),
        Admission::Refused(refusal) if may_lift(refusal.code) => Attempt::Later(refusal),
        Admission::Refused(refusal) => Attempt::Done(refuse(api, statement, refusal)),
        Admission::SignerFull { most } => {
            let message =
                format!("{most} statements of this signer wait for a block already: wait until they are final");
            let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "signer_full", message);
            Attempt::Done(Err(error.retry_after(FULL_RETRY_AFTER)))
        }
        Admission::Full => {
            let message = "too many statements wait for a block: try again later, or at another validator";
            let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "mempool_full", message);
            Attempt::Done(Err(error.retry_after(FULL_RETRY_AFTER)))
        }
    }
}

fn refuse(api: &Api, statement: &Bytes, refusal: Refusal) -> Result<Digest, ApiError> {
    // It may have become final between the look before the attempt and the attempt.
    let id = statement_id(statement);
    if api.shared.ledger.locate(&id).is_some() { Ok(id) } else { Err(refusal.into()) }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wait {
    /// How long to wait until the statement is final or refused.
    wait_ms: Option<u64>,
}

/// Where a statement stands.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// This node has not seen it, or has forgotten it.
    Unknown,
    /// It waits for a block.
    Pending,
    /// It is in a final block.
    Finalized,
    /// It will not be in a block.
    Refused,
}

/// What became of a statement.
#[derive(Serialize, ToSchema)]
pub(super) struct StatementStatus {
    status: Stage,
    /// Of the block that it is final in.
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u64>,
    /// Its place in the log, if it is a final anchor; of a statement with several, that of the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_index: Option<u64>,
    /// Why it was refused, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    code: Option<&'static str>,
    /// Why it was refused, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl StatementStatus {
    const fn simple(status: Stage) -> Self {
        Self { status, height: None, log_index: None, code: None, message: None }
    }

    /// Finalized or refused; `None` while neither.
    fn settled(api: &Api, id: &Digest) -> Option<Self> {
        if let Some(location) = api.shared.ledger.locate(id) {
            let height = Some(location.height.0);
            let log_index = location.log_index.map(|index| index.0);
            return Some(Self { height, log_index, ..Self::simple(Stage::Finalized) });
        }
        if api.shared.mempool.contains(id) {
            return None;
        }
        let refusal = api.shared.mempool.refusal(id)?;
        Some(Self { code: Some(refusal.code.name()), message: Some(refusal.message), ..Self::simple(Stage::Refused) })
    }
}

/// What became of a statement; with `wait_ms`, waits until it is final or refused. An anchor that came in a statement with
/// others is found by its own id too, once it is final.
#[utoipa::path(
    get, path = "/v1/statements/{id}", tag = "statements", params(("id" = String, Path), Wait),
    responses((status = 200, body = StatementStatus), (status = 503, description = "waiting", body = Problem))
)]
pub(super) async fn status(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(wait): Query<Wait>,
) -> Result<Json<StatementStatus>, ApiError> {
    let id = Digest::parse(&id).map_err(|error| ApiError::bad_request(format!("statement id: {error}")))?;
    if let Some(settled) = api.until(api.wait(wait.wait_ms), || StatementStatus::settled(&api, &id)).await? {
        return Ok(Json(settled));
    }
    let pending = api.shared.mempool.contains(&id);
    // Between the last look and this one it may have left the pool.
    let settled = StatementStatus::settled(&api, &id);
    Ok(Json(settled.unwrap_or_else(|| StatementStatus::simple(if pending { Stage::Pending } else { Stage::Unknown }))))
}

#[cfg(test)]
mod tests {
    use cairn_proof::cbor::Writer;

    use super::*;

    fn body(statements: &[&[u8]]) -> Bytes {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.array(statements.len());
        for statement in statements {
            writer.bytes(statement);
        }
        out.into()
    }

    #[test]
    fn several_statements_come_out_as_they_went_in() {
        let found = split(&body(&[b"one", b"two"]), 2).unwrap();
        assert_eq!(found, [Bytes::from_static(b"one"), Bytes::from_static(b"two")]);
        assert!(split(&body(&[]), 2).unwrap().is_empty());
    }

    #[test]
    fn bodies_that_are_none_are_refused() {
        let good = body(&[b"one", b"two"]);
        assert!(split(&good, 1).is_err(), "more than are allowed");
        assert!(split(&body(&[b"one", b""]), 2).is_err(), "an empty statement");
        assert!(split(&body(&[&vec![0; STATEMENT_BYTES_MAX + 1]]), 2).is_err(), "a statement that is too large");
        assert!(split(&Bytes::from([good.to_vec(), vec![0]].concat()), 2).is_err(), "a byte too many");
        for cut in 0..good.len() {
            assert!(split(&good.slice(..cut), 2).is_err(), "cut at {cut}");
        }
        assert!(split(&Bytes::from_static(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), 9).is_err());
    }
}
