//! Four validators over TCP: statements become final everywhere, certificates verify, validators come and go.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cairn_chain_node::{ErrorKind, Node, NodeError};
use cairn_chain_state::{State, StrictSignatures};
use cairn_proof::{
    Digest, LeafIndex, TreeSize,
    block::decode_blocks,
    certificate::Finalization,
    header::Header,
    statement::Body,
    tree::{leaf_hash, verify_inclusion},
};
use common::{
    Net,
    city::{INGEST, OTHER_INGEST, OWNER, STRANGER, key, validator_key},
    free_ports, local,
};

fn digest(value: &serde_json::Value) -> Digest {
    Digest::parse(value.as_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_become_final_everywhere_and_can_be_checked() {
    let mut net = Net::new(4, 300);
    net.start_all().await;
    let stream = net.city.register_stream(1);
    let identity = net.city.register_identity(2, STRANGER);
    let (anchor, anchor_id) = net.city.anchor(INGEST, 1, 0, 0, Digest::ZERO);
    let (next, next_id) = net.city.anchor(INGEST, 2, 0, 10, anchor_id);
    let mut ids = Vec::new();
    for (validator, statement) in [(0, &stream), (0, &identity), (1, &anchor), (2, &next)] {
        // Each builds on the one before, handed to another validator: it waits for what is on its way.
        ids.push(net.accepted(validator, statement).await);
    }
    assert_eq!(ids[3], next_id.to_string());
    for validator in 0..4 {
        for id in &ids {
            net.finalized(validator, id).await;
        }
    }
    // Submitting again changes nothing and is no error.
    assert_eq!(net.accepted(3, &anchor).await, anchor_id.to_string());

    same_state_everywhere(&net, &anchor, &next).await;
    blocks_replay_and_certificates_verify(&net).await;
    refusals_say_why(&net, next_id).await;
    metrics_are_one_text(&net).await;
    net.stop_all().await;
}

async fn same_state_everywhere(net: &Net, anchor: &[u8], next: &[u8]) {
    let height = net.height(0).await;
    let first = net.json(0, &format!("/v1/blocks/{height}")).await;
    for validator in 0..4 {
        net.wait_for_height(validator, height).await;
        assert_eq!(net.json(validator, &format!("/v1/blocks/{height}")).await["id"], first["id"]);
        let head = net.json(validator, "/v1/streams/traffic.flow/partitions/0/head").await;
        assert_eq!((head["next"].as_u64(), head["log_index"].as_u64()), (Some(20), Some(1)));
        let untouched = net.json(validator, "/v1/streams/traffic.flow/partitions/1/head").await;
        assert_eq!((untouched["next"].as_u64(), untouched["log_index"].as_u64()), (Some(0), Some(0)));
        assert_eq!(digest(&untouched["anchor"]), Digest::ZERO);
        let owner = net.json(validator, &format!("/v1/identities/{}", key(OWNER).identity())).await;
        assert_eq!((owner["sequence"].as_u64(), owner["kind"].as_str()), (Some(2), Some("organisation")));
        let device = net.json(validator, &format!("/v1/identities/{}", key(STRANGER).identity())).await;
        assert_eq!(digest(&device["controller"]), key(OWNER).identity().0);
        for (index, size, statement) in [(0, 1, anchor), (0, 2, anchor), (1, 2, next)] {
            let proof = net.json(validator, &format!("/v1/log/proof?index={index}&size={size}")).await;
            assert_eq!(digest(&proof["leaf"]), leaf_hash(statement));
            let path: Vec<Digest> = proof["path"].as_array().unwrap().iter().map(digest).collect();
            let root = if size == 1 { leaf_hash(anchor) } else { digest(&first["log_root"]) };
            verify_inclusion(&leaf_hash(statement), LeafIndex(index), TreeSize(size), &path, &root).unwrap();
        }
    }
    for path in [
        "/v1/streams/no.such/partitions/0/head",
        "/v1/streams/traffic.flow/partitions/64/head",
        "/v1/log/proof?index=2&size=2",
        "/v1/blocks/999999",
        "/v1/nothing",
    ] {
        let response = net.http.get(net.url(0, path)).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 404, "{path}");
        let answer: serde_json::Value = response.json().await.unwrap();
        assert!(answer["code"].is_string() && answer["message"].is_string(), "{path}: {answer}");
    }
}

async fn blocks_replay_and_certificates_verify(net: &Net) {
    let genesis = &net.city.genesis;
    let keys = genesis.validator_keys();
    let (mut header, mut state, mut certified, mut statements) = (genesis.header(), State::genesis(genesis), 0, 0);
    let blocks = decode_blocks(&net.bytes(2, "/v1/blocks?from=1&limit=1000").await, 1000).unwrap();
    assert!(!blocks.is_empty());
    for block in &blocks {
        let executed = cairn_chain_state::execute(&header, &state, block, &StrictSignatures).unwrap();
        // Validators attest blocks meanwhile.
        statements +=
            executed.applied.iter().filter(|applied| !matches!(applied.statement.body, Body::Attest(_))).count();
        if let Some(certificate) = &block.certificate {
            let finalization = Finalization::decode(certificate, keys.len()).unwrap();
            assert_eq!(finalization.payload, executed.header.digest());
            finalization.verify(&keys, &genesis.tag()).unwrap();
            certified += 1;
        }
        (header, state) = (executed.header, executed.state);
    }
    assert_eq!(statements, 4);
    assert!(certified > 0, "no block carries its certificate");

    let answer = net.json(1, "/v1/certificates/1").await;
    let encoded = STANDARD.decode(answer["header"].as_str().unwrap()).unwrap();
    let certificate = STANDARD.decode(answer["certificate"].as_str().unwrap()).unwrap();
    let header = Header::decode(&encoded).unwrap();
    assert_eq!(header.height.0, answer["height"].as_u64().unwrap());
    assert_eq!(net.bytes(3, &format!("/v1/headers/{}", header.height)).await, encoded);
    let finalization = Finalization::decode(&certificate, keys.len()).unwrap();
    finalization.verify(&keys, &genesis.tag()).unwrap();
    assert_eq!(finalization.payload, header.digest());
}

async fn refusals_say_why(net: &Net, head: Digest) {
    let city = &net.city;
    let wrong_chain = common::city::City::new(1).anchor(INGEST, 3, 0, 20, head).0;
    let cases = [
        (b"nonsense".to_vec(), 400, "malformed"),
        (wrong_chain, 400, "signature"),
        (city.anchor(INGEST, 2, 0, 20, head).0, 409, "sequence"),
        (city.anchor(INGEST, 3, 0, 10, head).0, 409, "overlap"),
        (city.anchor(INGEST, 3, 0, 20, Digest::ZERO).0, 409, "previous"),
        (city.anchor(INGEST, 3, 0, 30, head).0, 409, "gap"),
        (city.anchor(OWNER, 3, 0, 20, head).0, 409, "not_allowed"),
        (city.register_stream(3), 409, "duplicate"),
        (vec![0; 70_000], 413, "too_large"),
    ];
    for (statement, status, code) in cases {
        let (found, answer) = net.submit(1, &statement).await;
        assert_eq!((found, answer["code"].as_str()), (status, Some(code)), "{answer}");
        assert!(!answer["message"].as_str().unwrap().is_empty());
    }
    // What is refused before it is read ends the connection, and says so.
    let request = net.http.post(net.url(1, "/v1/statements")).body(vec![0; 70_000]);
    assert_eq!(request.send().await.unwrap().headers()["connection"], "close");
    let unknown = net.json(1, &format!("/v1/statements/{}", Digest::ZERO)).await;
    assert_eq!(unknown["status"], "unknown");
    let bad = net.http.get(net.url(1, "/v1/statements/zz")).send().await.unwrap();
    assert_eq!(bad.status().as_u16(), 400);
}

async fn metrics_are_one_text(net: &Net) {
    let text = String::from_utf8(net.bytes(0, "/metrics").await).unwrap();
    assert!(!text.contains("# EOF"));
    assert!(text.contains("runtime_tasks_spawned"), "the consensus library's metrics are there");
    let value = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("{name} is missing")).rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("cairn_chain_height") >= 1.0);
    // Validators attest blocks meanwhile.
    assert!(value("cairn_chain_finalized_statements_total") >= 4.0);
    assert!(value("cairn_mempool_statements") <= 4.0);
    assert_eq!(value("cairn_chain_log_anchors"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn validators_come_and_go() {
    let mut net = Net::new(4, 300);
    net.start_all().await;
    let stream = net.city.register_stream(1);
    net.accepted(0, &stream).await;
    let (first, first_id) = net.city.anchor(INGEST, 1, 0, 0, Digest::ZERO);
    net.accepted(0, &first).await;
    net.finalized(3, &first_id.to_string()).await;

    // One stops: the others go on.
    net.stop(3).await;
    let (second, second_id) = net.city.anchor(INGEST, 2, 0, 10, first_id);
    net.accepted(0, &second).await;
    for validator in 0..3 {
        net.finalized(validator, &second_id.to_string()).await;
    }

    // Two stop: nothing becomes final, and nothing wrong is said.
    net.stop(2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let stalled = net.height(0).await;
    let (third, third_id) = net.city.anchor(INGEST, 3, 0, 20, second_id);
    net.accepted(1, &third).await;
    let status = net.json(0, &format!("/v1/statements/{third_id}?wait_ms=2500")).await;
    assert_eq!(status["status"], "pending", "gossiped, but not final: {status}");
    assert_eq!(net.height(0).await, stalled);

    // One comes back: it resumes from its disk, and what waited becomes final.
    let started = Instant::now();
    net.start(2).await;
    for validator in [0, 1, 2] {
        net.finalized(validator, &third_id.to_string()).await;
        net.finalized(validator, &first_id.to_string()).await;
    }
    let resumed = started.elapsed();
    assert!(resumed < Duration::from_secs(15), "resumed only after {resumed:?}");
    let head = net.json(2, "/v1/streams/traffic.flow/partitions/0/head").await;
    assert_eq!(head["next"], 30);

    // The fourth catches up with what it missed.
    net.start(3).await;
    net.finalized(3, &third_id.to_string()).await;
    let height = net.height(0).await;
    net.wait_for_height(3, height).await;
    let (here, there) =
        (net.json(0, &format!("/v1/blocks/{height}")).await, net.json(3, &format!("/v1/blocks/{height}")).await);
    assert_eq!(here["state_root"], there["state_root"]);
    net.stop_all().await;

    // All were stopped: the chain goes on from disk.
    net.start_all().await;
    let (rival, _) = net.city.anchor(OTHER_INGEST, 1, 0, 20, second_id);
    let (code, answer) = net.submit(2, &rival).await;
    assert_eq!((code, answer["code"].as_str()), (409, Some("overlap")), "{answer}");
    let (fourth, fourth_id) = net.city.anchor(OTHER_INGEST, 1, 0, 30, third_id);
    net.accepted(2, &fourth).await;
    net.finalized(0, &fourth_id.to_string()).await;
    net.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    let net = Net::new(1, 300);
    let genesis = || net.city.genesis.clone();
    let start = |config, seed| {
        let genesis = genesis();
        tokio::task::spawn_blocking(move || Node::start(config, genesis, &seed).map(drop).unwrap_err())
    };
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();

    let mut config = net.configs[0].clone();
    config.api_listen = taken;
    let error = start(config, validator_key(0)).await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Retry);
    let text = error.to_string();
    assert!(
        text.contains("HTTP API") && text.contains(&taken.port().to_string()) && text.contains("api_listen"),
        "{text}"
    );

    let mut config = net.configs[0].clone();
    config.p2p_listen = taken;
    let text = start(config, validator_key(0)).await.unwrap().to_string();
    assert!(text.contains("consensus") && text.contains("p2p_listen"), "{text}");

    let mut config = net.configs[0].clone();
    config.coalesce_ms = 151;
    let text = start(config, validator_key(0)).await.unwrap().to_string();
    assert!(text.contains("coalesce_ms") && text.contains("0 to 150"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_folder_serves_one_process() {
    let mut net = Net::new(1, 200);
    net.start(0).await;
    net.wait_for_height(0, 2).await;
    let mut second = net.configs[0].clone();
    second.p2p_listen = local(free_ports(1)[0]);
    let genesis = net.city.genesis.clone();
    let started = tokio::task::spawn_blocking(move || Node::start(second, genesis, &validator_key(0)));
    let error = started.await.unwrap().unwrap_err();
    assert!(matches!(error, NodeError::DataDir { .. }), "{error}");
    net.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_belongs_to_one_key_and_chain() {
    let mut net = Net::new(1, 100);
    net.start(0).await;
    net.wait_for_height(0, 2).await;
    net.stop(0).await;
    let (config, mut other_chain) = (net.configs[0].clone(), net.city.genesis.clone());
    other_chain.chain_id = "another".into();
    let started = tokio::task::spawn_blocking(move || Node::start(config, other_chain, &validator_key(0)).map(drop));
    let error = started.await.unwrap().unwrap_err();
    assert!(matches!(error, NodeError::DataDir { .. }) && error.to_string().contains("belongs to"), "{error}");
}

/// Changes one byte among the last stored blocks of a validator.
fn damage(data_dir: &std::path::Path) {
    let blocks = data_dir.join("storage/cairn-blocks-value");
    let file = std::fs::read_dir(blocks).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let within = bytes.len() - 2_000;
    bytes[within] ^= 1;
    std::fs::write(&file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_blocks_are_found_and_can_be_had_again() {
    let mut net = Net::with_epochs(4, 0, 150, 8);
    net.start_all().await;
    let stream = net.accepted(1, &net.city.register_stream(1)).await;
    net.finalized(3, &stream).await;
    net.wait_for_height(3, 20).await;
    net.stop(3).await;
    let data = net.configs[3].data_dir.clone();
    damage(&data);
    let (config, genesis) = (net.configs[3].clone(), net.city.genesis.clone());
    let started = tokio::task::spawn_blocking(move || Node::start(config, genesis, &validator_key(3)).map(drop));
    let error = started.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupted, "{error}");

    // What the error says to do.
    for folder in std::fs::read_dir(data.join("storage")).unwrap() {
        let folder = folder.unwrap();
        let name = folder.file_name().into_string().unwrap();
        if ["cairn-blocks-", "cairn-finalizations-", "cairn-marshal-"].iter().any(|prefix| name.starts_with(prefix)) {
            std::fs::remove_dir_all(folder.path()).unwrap();
        }
    }
    net.start(3).await;
    net.finalized(3, &stream).await;
    let height = net.height(0).await;
    net.wait_for_height(3, height).await;
    let (here, there) =
        (net.json(0, &format!("/v1/blocks/{height}")).await, net.json(3, &format!("/v1/blocks/{height}")).await);
    assert_eq!(here["id"], there["id"]);
    // It walked through the epochs without voting in any that it had voted in, and votes in what follows.
    net.wait_for_height(3, height + 8).await;
    assert!(net.votes(3).await);
    net.stop_all().await;
}
