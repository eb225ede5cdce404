//! The description of the API against real answers of a running node: each described request is made, and each JSON
//! answer has the described shape.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::collections::BTreeSet;

use cairn_proof::{
    Digest,
    parameters::Parameters,
    state_proof::StateProof,
    statement::{Body, Change, Vote},
};
use common::{
    Net,
    city::{INGEST, OWNER, STRANGER, key, validator_key},
};
use serde_json::Value;

/// Holds `value` against a schema of OpenAPI 3.1, as far as this API's description uses it.
fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#'));
        return check(document, target.unwrap_or_else(|| panic!("{reference} leads nowhere")), value, at);
    }
    for word in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[word].as_array() {
            let errors: Vec<String> =
                choices.iter().filter_map(|choice| check(document, choice, value, at).err()).collect();
            return if errors.len() < choices.len() { Ok(()) } else { Err(errors.join("; or ")) };
        }
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return parts.iter().try_for_each(|part| check(document, part, value, at));
    }
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().map(|one| one.as_str().unwrap()).collect(),
        _ => vec![],
    };
    if !types.is_empty() && !types.contains(&found) {
        return Err(format!("{at}: described as {types:?}, found {value}"));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        return Err(format!("{at}: described as one of {values:?}, found {value}"));
    }
    if schema["pattern"] == "^[0-9a-f]{64}$" {
        let text = value.as_str().unwrap_or_default();
        if text.len() != 64 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!("{at}: described as 32 bytes in hexadecimal, found {value}"));
        }
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (index, value) in values.iter().enumerate() {
            check(document, items, value, &format!("{at}[{index}]"))?;
        }
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    for required in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(required.as_str().unwrap()) {
            return Err(format!("{at}: {required} is required, found {value}"));
        }
    }
    if let Some(properties) = schema["properties"].as_object() {
        for (name, value) in fields {
            match properties.get(name) {
                Some(schema) => check(document, schema, value, &format!("{at}.{name}"))?,
                None => return Err(format!("{at}.{name} is not described")),
            }
        }
    }
    Ok(())
}

#[test]
fn the_checker_finds_what_does_not_fit() {
    let document = serde_json::json!({ "hash": { "type": "string", "pattern": "^[0-9a-f]{64}$" } });
    let schema = serde_json::json!({
        "type": "object", "required": ["a"],
        "properties": { "a": { "type": ["integer", "null"] }, "b": { "$ref": "#/hash" }, "c": { "type": "array", "items": { "enum": ["x"] } } }
    });
    let fits = |value: Value| check(&document, &schema, &value, "it");
    fits(serde_json::json!({ "a": 1, "b": "0".repeat(64), "c": ["x", "x"] })).unwrap();
    fits(serde_json::json!({ "a": null })).unwrap();
    for bad in [
        serde_json::json!({}),
        serde_json::json!({ "a": "1" }),
        serde_json::json!({ "a": 1.5 }),
        serde_json::json!({ "a": 1, "b": "00" }),
        serde_json::json!({ "a": 1, "c": ["y"] }),
        serde_json::json!({ "a": 1, "d": 1 }),
        serde_json::json!([]),
    ] {
        assert!(fits(bad.clone()).is_err(), "{bad}");
    }
}

/// A request, the route that describes it, and the status that it is answered with.
struct Ask {
    route: &'static str,
    path: String,
    status: u16,
}

fn asks(anchor: &str) -> Vec<Ask> {
    let ask = |route, path: &str, status| Ask { route, path: path.to_owned(), status };
    let statement = "/v1/statements/{id}";
    let head = "/v1/streams/{stream}/partitions/{partition}/head";
    vec![
        ask(statement, &format!("/v1/statements/{anchor}?wait_ms=100"), 200),
        ask(statement, &format!("/v1/statements/{}", Digest::ZERO), 200),
        ask(head, "/v1/streams/traffic.flow/partitions/0/head", 200),
        ask(head, "/v1/streams/nothing/partitions/0/head", 404),
        ask("/v1/identities/{id}", &format!("/v1/identities/{}", key(OWNER).identity()), 200),
        ask("/v1/identities/{id}", &format!("/v1/identities/{}", key(STRANGER).identity()), 200),
        ask("/v1/identities/{id}", &format!("/v1/identities/{}", Digest::ZERO), 404),
        ask("/v1/blocks", "/v1/blocks?from=1&limit=1", 200),
        ask("/v1/blocks/{height}", "/v1/blocks/1", 200),
        ask("/v1/blocks/{height}", "/v1/blocks/0", 200),
        ask("/v1/blocks/{height}", "/v1/blocks/1?format=cbor", 200),
        ask("/v1/blocks/{height}", "/v1/blocks/999999", 404),
        ask("/v1/headers/{height}", "/v1/headers/1", 200),
        ask("/v1/headers/{height}", "/v1/headers/999999", 404),
        ask("/v1/certificates/{height}", "/v1/certificates/1", 200),
        ask("/v1/certificates/{height}", "/v1/certificates/999999", 404),
        ask("/v1/log/proof", "/v1/log/proof?index=0&size=1", 200),
        ask("/v1/log/proof", "/v1/log/proof?index=9&size=1", 404),
        ask("/v1/identities/{id}", &format!("/v1/identities/{}", key(OWNER).public().did()), 200),
        ask("/v1/identities/{id}", &format!("/v1/identities/{}", key(99).public().did()), 404),
        ask("/v1/validators", "/v1/validators", 200),
        ask("/v1/parameters", "/v1/parameters", 200),
        ask("/v1/proposals", "/v1/proposals", 200),
        ask("/v1/committees", "/v1/committees", 200),
        ask("/v1/committees", "/v1/committees?from_epoch=7", 200),
        ask("/v1/state/proof", "/v1/state/proof?kind=stream&name=traffic.flow", 200),
        ask("/v1/state/proof", "/v1/state/proof?kind=nothing", 400),
        ask("/v1/state/proof", "/v1/state/proof?kind=stream&name=a&more=b", 400),
        ask("/checkpoint", "/checkpoint", 200),
        ask("/tile/{path}", "/tile/0/000.p/1", 200),
        ask("/tile/{path}", "/tile/entries/000.p/1", 200),
        ask("/tile/{path}", "/tile/0/007", 404),
        ask("/tile/{path}", "/tile/0/7", 400),
        ask("/v1/status", "/v1/status", 200),
        ask("/v1/ready", "/v1/ready", 200),
        ask("/v1/health", "/v1/health", 200),
        ask("/health", "/health", 200),
        ask("/metrics", "/metrics", 200),
        ask("/openapi.json", "/openapi.json", 200),
    ]
}

/// Has the only validator vote for a change, so that there is a proposal to describe.
async fn vote(net: &Net) {
    let signer = validator_key(0);
    let change = Change::SetParameters(Parameters { heartbeat_ms: 250, ..net.city.genesis.parameters });
    let body = Body::Vote(Vote { expires_epoch: 5, change });
    let id = net.accepted_by_validator(0, &body).await.unwrap();
    net.finalized(0, &id).await;
    let proposals = net.json(0, "/v1/proposals").await;
    assert_eq!(proposals["proposals"][0]["change"]["kind"], "set_parameters", "{proposals}");
    assert_eq!(proposals["proposals"][0]["status"], "passed", "one of one is more than two thirds: {proposals}");
    let validators = net.json(0, "/v1/validators").await;
    assert_eq!(validators["validators"][0]["public_key"], signer.public().to_string(), "{validators}");
    assert_eq!(validators["validators"][0]["in_committee"], true);
}

/// Each subject's proof holds with the genesis alone, and says whether it is in the state.
async fn state_proofs_verify(net: &Net, anchor: Digest) {
    let (owner, nobody) = (key(OWNER), key(99));
    let cases = [
        (format!("kind=anchor&id={anchor}"), true),
        (format!("kind=anchor&id={}", Digest::ZERO), false),
        (format!("kind=identity&id={}", owner.identity()), true),
        (format!("kind=identity&id={}", nobody.identity()), false),
        (format!("kind=key&key={}", owner.public()), true),
        (format!("kind=sequence&id={}", owner.identity()), true),
        ("kind=stream&name=traffic.flow".to_owned(), true),
        ("kind=stream&name=no.such".to_owned(), false),
        ("kind=topic&topic=traffic.flow".to_owned(), true),
        ("kind=head&stream=traffic.flow&partition=0".to_owned(), true),
        ("kind=head&stream=traffic.flow&partition=1".to_owned(), false),
        (format!("kind=validator&key={}", validator_key(0).public()), true),
        ("kind=committee".to_owned(), true),
        ("kind=parameters".to_owned(), true),
    ];
    for (query, present) in cases {
        let file = net.bytes(0, &format!("/v1/state/proof?{query}")).await;
        let proof = StateProof::from_json(&file).unwrap_or_else(|error| panic!("{query}: {error}"));
        let proven = proof.verify(&net.city.genesis).unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(proven.value.is_some(), present, "{query}");
        assert_eq!(proven.signed, (1, 1));
    }
}

/// Holds an answer against what the route's description says of that status.
async fn hold(document: &Value, method: &str, ask: &Ask, response: reqwest::Response) {
    let (route, path) = (ask.route, &ask.path);
    assert_eq!(response.status().as_u16(), ask.status, "{path}");
    let described = &document["paths"][route][method]["responses"][ask.status.to_string()];
    assert!(described.is_object(), "{method} {route} does not describe {}", ask.status);
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let kind = kind.split(';').next().unwrap();
    let content = &described["content"][kind];
    assert!(content.is_object(), "{method} {route} {}: {kind} is not described: {described}", ask.status);
    if kind == "application/json" {
        let answer: Value = response.json().await.unwrap();
        check(document, &content["schema"], &answer, path).unwrap_or_else(|error| panic!("{error}: {answer}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_described_request_is_answered_as_described() {
    let mut net = Net::new(1, 200);
    net.start(0).await;
    let document = net.json(0, "/openapi.json").await;
    net.accepted(0, &net.city.register_stream(1)).await;
    net.accepted(0, &net.city.register_identity(2, STRANGER)).await;
    let (anchor, id) = net.city.anchor(INGEST, 1, 0, 0, Digest::ZERO);
    net.accepted(0, &anchor).await;
    net.finalized(0, &id.to_string()).await;
    vote(&net).await;
    state_proofs_verify(&net, id).await;

    let asks = asks(&id.to_string());
    for ask in &asks {
        let response = net.http.get(net.url(0, &ask.path)).send().await.unwrap();
        hold(&document, "get", ask, response).await;
    }
    for path in ["/v1/identities/did:key:zzz", "/v1/identities/did:web:city.example", "/v1/committees?from_epoch=x"] {
        let response = net.http.get(net.url(0, path)).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 400, "{path}");
        let problem: Value = response.json().await.unwrap();
        assert!(problem["code"].is_string() && problem["message"].is_string(), "{path}: {problem}");
    }
    let mut several = vec![0x82, 0x59];
    several.extend((anchor.len() as u16).to_be_bytes());
    several.extend(&anchor);
    several.extend([0x43, 1, 2, 3]);
    let posts: [(&str, u16, Vec<u8>); 6] = [
        ("application/cose", 202, anchor.clone()),
        ("application/cbor", 200, several),
        ("application/cbor", 400, vec![1]),
        ("application/cose", 400, vec![1]),
        ("application/cose", 409, net.city.register_stream(3)),
        ("application/cose", 413, vec![0; 70_000]),
    ];
    for (kind, status, body) in posts {
        let ask = Ask { route: "/v1/statements", path: format!("a body of {kind}"), status };
        let request = net.http.post(net.url(0, "/v1/statements")).header("content-type", kind).body(body);
        hold(&document, "post", &ask, request.send().await.unwrap()).await;
    }

    // Nothing is described that was not asked for.
    let asked: BTreeSet<(String, &str)> =
        asks.iter().map(|ask| (ask.route.to_owned(), "get")).chain([("/v1/statements".to_owned(), "post")]).collect();
    let mut described = BTreeSet::new();
    for (route, operations) in document["paths"].as_object().unwrap() {
        described.extend(operations.as_object().unwrap().keys().map(|method| (route.clone(), method.as_str())));
    }
    assert_eq!(described, asked);
    net.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_ready_only_while_it_follows_the_head() {
    // Two of four validators make no blocks; then a third comes.
    let mut net = Net::new(4, 100);
    for config in &mut net.configs {
        config.api.ready_heartbeats_max = 5;
    }
    net.start(0).await;
    net.start(1).await;
    let document = net.json(0, "/openapi.json").await;
    let readiness = async |net: &Net| {
        let response = net.http.get(net.url(0, "/v1/ready")).send().await.unwrap();
        let status = response.status().as_u16();
        let answer: Value = response.json().await.unwrap();
        let schema =
            &document["paths"]["/v1/ready"]["get"]["responses"][status.to_string()]["content"]["application/json"];
        check(&document, &schema["schema"], &answer, "ready").unwrap();
        (status, answer)
    };
    let (status, answer) = readiness(&net).await;
    assert_eq!((status, answer["reasons"][0]["code"].as_str()), (503, Some("genesis")), "{answer}");
    assert_eq!(net.json(0, "/v1/health").await["status"], "ok", "it lives, though it is not ready");

    net.start(2).await;
    let becomes = async |net: &Net, want: u16| {
        loop {
            let (status, answer) = readiness(net).await;
            if status == want {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let within = std::time::Duration::from_secs(60);
    let answer = tokio::time::timeout(within, becomes(&net, 200)).await.unwrap();
    assert_eq!((answer["ready"].as_bool(), answer["role"].as_str()), (Some(true), Some("validator")), "{answer}");

    // The chain stands still.
    net.stop(2).await;
    let answer = tokio::time::timeout(within, becomes(&net, 503)).await.unwrap();
    assert_eq!(answer["reasons"][0]["code"], "behind", "{answer}");
    net.stop_all().await;
}
