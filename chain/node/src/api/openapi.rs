//! The description of the API (OpenAPI 3.1), generated from the handlers and the types that they answer with.

use axum::{Json, extract::State};
use utoipa::{OpenApi, ToSchema};

use super::{Api, blocks, chain, governance, log, proofs, statements, status, tiles};

/// 32 bytes in hexadecimal.
#[derive(ToSchema)]
#[schema(pattern = "^[0-9a-f]{64}$")]
#[expect(dead_code, reason = "it only describes how digests and keys are written")]
pub(super) struct Hash(String);

/// Bytes in base64 with padding (RFC 4648, section 4).
#[derive(ToSchema)]
#[expect(dead_code, reason = "it only describes how bytes are written")]
pub(super) struct Base64(String);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Cairn node",
        description = "The HTTP API of a node of the Cairn chain. It is not authenticated: what it tells is public \
            within the city, and what it takes in is signed. Every refusal has a JSON body with a code and a message."
    ),
    paths(
        statements::submit,
        statements::status,
        chain::head,
        chain::identity,
        blocks::range,
        blocks::one,
        blocks::header,
        blocks::certificate,
        log::proof,
        proofs::state,
        governance::validators,
        governance::parameters,
        governance::proposals,
        governance::committees,
        tiles::checkpoint,
        tiles::tile,
        status::status,
        status::ready,
        status::health,
        status::health_short,
        status::metrics,
        document,
    )
)]
struct Document;

/// The whole description.
pub(super) fn description() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "node", responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
pub(super) async fn document(State(api): State<Api>) -> Json<utoipa::openapi::OpenApi> {
    Json(api.description.clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_described_and_every_described_route_exists() {
        let described: BTreeSet<String> = description().paths.paths.into_keys().collect();
        let routed: BTreeSet<String> =
            super::super::routes().into_iter().map(|(path, _)| path.replace("{*", "{")).collect();
        assert_eq!(described, routed);
    }

    #[test]
    fn it_is_openapi_3_1_and_each_operation_says_what_it_is_for() {
        let document = serde_json::to_value(description()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let summary = operation["summary"].as_str().unwrap_or_default();
                assert!(!summary.is_empty(), "{method} {path} has no summary");
                assert!(!operation["responses"].as_object().unwrap().is_empty(), "{method} {path} has no answer");
            }
        }
    }
}
