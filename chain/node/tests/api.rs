//! The HTTP API's bounds and waits.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::time::{Duration, Instant};

use cairn_chain_client::{Client, ClientError};
use cairn_proof::{Digest, block::decode_blocks};
use common::{
    Net,
    city::{INGEST, OTHER_INGEST},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_idle_ones_are_closed() {
    let mut net = Net::new(1, 200);
    let api = &mut net.configs[0].api;
    (api.connections_max, api.wait_ms_max, api.idle_ms_max) = (2, 0, 1_000);
    net.start(0).await;
    let address = net.nodes[0].as_ref().unwrap().api_addr();
    let mut silent = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
    let refused = net.http.get(net.url(0, "/health")).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    let answer: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(answer["code"], "connections");
    assert!(answer["message"].as_str().unwrap().contains("at most 2 connections"), "{answer}");
    for stream in &mut silent {
        let closed = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut [0; 16])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)), "a silent connection is closed");
    }
    assert_eq!(net.json(0, "/health").await["status"], "ok");
    net.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_mempool_says_so() {
    // Two of four are not enough for a block, so that everything waits.
    let mut net = Net::new(4, 200);
    for config in &mut net.configs {
        (config.mempool.statements_max, config.mempool.signer_statements_max) = (4, 2);
    }
    net.start(0).await;
    net.start(1).await;
    net.accepted(0, &net.city.register_stream(1)).await;
    for at in 0..2_u32 {
        net.accepted(0, &net.city.anchor(INGEST, 1 + u64::from(at), at, 0, Digest::ZERO).0).await;
    }
    let (status, answer) = net.submit(0, &net.city.anchor(INGEST, 3, 2, 0, Digest::ZERO).0).await;
    assert_eq!((status, answer["code"].as_str()), (429, Some("signer_full")), "{answer}");
    net.accepted(0, &net.city.anchor(OTHER_INGEST, 1, 3, 0, Digest::ZERO).0).await;
    let (status, answer) = net.submit(0, &net.city.anchor(OTHER_INGEST, 2, 4, 0, Digest::ZERO).0).await;
    assert_eq!((status, answer["code"].as_str()), (503, Some("mempool_full")), "{answer}");
    assert_eq!(net.json(0, "/v1/status").await["mempool"]["statements"], 4);
    assert_eq!(net.height(0).await, 0);
    net.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_can_be_waited_for_and_come_in_bounded_answers() {
    let mut net = Net::new(1, 100);
    net.configs[0].api.blocks_count_max = 3;
    net.start(0).await;
    let blocks = |bytes: Vec<u8>| decode_blocks(&bytes, 100).unwrap();
    let started = Instant::now();
    let ahead = net.height(0).await + 8;
    let found = blocks(net.bytes(0, &format!("/v1/blocks?from={ahead}&wait_ms=20000")).await);
    assert_eq!(found[0].check().unwrap().height.0, ahead);
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!(blocks(net.bytes(0, "/v1/blocks?from=1").await).len(), 3, "the bound of the configuration");
    assert_eq!(blocks(net.bytes(0, "/v1/blocks?from=0&limit=2").await)[0].check().unwrap(), net.city.genesis.header());
    assert!(blocks(net.bytes(0, "/v1/blocks?from=99999&wait_ms=100").await).is_empty());
    for path in ["/v1/blocks", "/v1/blocks?from=x", "/v1/blocks/x", "/v1/blocks/1?format=xml", "/v1/log/proof"] {
        let response = net.http.get(net.url(0, path)).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 400, "{path}");
        let answer: serde_json::Value = response.json().await.unwrap();
        assert_eq!(answer["code"], "bad_request", "{path}");
        assert!(!answer["message"].as_str().unwrap().is_empty(), "{path}");
    }
    let wrong_method = net.http.get(net.url(0, "/v1/statements")).send().await.unwrap();
    assert_eq!(wrong_method.status().as_u16(), 405);
    // A wait ends with the validator.
    let waiting = net.http.get(net.url(0, "/v1/blocks?from=99999&wait_ms=60000")).send();
    let waiting = tokio::spawn(waiting);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stopping = Instant::now();
    net.stop_all().await;
    assert!(stopping.elapsed() < Duration::from_secs(8), "stopped after {:?}", stopping.elapsed());
    let answer = tokio::time::timeout(Duration::from_secs(1), waiting).await;
    assert!(answer.is_ok(), "the request that waited is answered or cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_statements_from_many_clients_all_become_final() {
    let mut net = Net::new(4, 300);
    net.start_all().await;
    let stream = net.accepted(0, &net.city.register_stream(1)).await;
    net.finalized(3, &stream).await;
    // Two signers over four validators, 16 partitions, five anchors each, every one on top of the one before.
    let (net, mut tasks) = (std::sync::Arc::new(net), Vec::new());
    for (seed, partitions) in [(INGEST, 0..8_u32), (OTHER_INGEST, 8..16)] {
        let net = std::sync::Arc::clone(&net);
        tasks.push(tokio::spawn(async move {
            let (mut sequence, mut last) = (0, vec![Digest::ZERO; 16]);
            for round in 0..5_u64 {
                for partition in partitions.clone() {
                    sequence += 1;
                    let previous = last[partition as usize];
                    let (statement, id) = net.city.anchor(seed, sequence, partition, round * 10, previous);
                    last[partition as usize] = id;
                    // One validator a signer and round: its statements may not overtake each other.
                    net.accepted((usize::from(seed) + round as usize) % 4, &statement).await;
                }
                for partition in partitions.clone() {
                    net.finalized((usize::from(seed) + round as usize + 1) % 4, &last[partition as usize].to_string())
                        .await;
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    // Finality was asked of one validator after the other; the others may still be a block behind.
    let mut newest = 0;
    for validator in 0..4 {
        newest = newest.max(net.height(validator).await);
    }
    for validator in 0..4 {
        net.wait_for_height(validator, newest).await;
        assert_eq!(net.json(validator, "/v1/status").await["log_size"], 80);
    }
    let Ok(mut net) = std::sync::Arc::try_unwrap(net) else { panic!("the tasks have ended") };
    net.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_statements_of_one_request_build_on_each_other() {
    let mut net = Net::new(1, 200);
    net.start(0).await;
    // The stream's registration is in the same request as what is anchored in it; one in the middle is refused.
    let (mut statements, mut previous) = (vec![net.city.register_stream(1)], Digest::ZERO);
    for at in 0..100_u64 {
        let (statement, id) = net.city.anchor(INGEST, 1 + at, 0, 10 * at, previous);
        statements.push(statement);
        previous = id;
    }
    statements.insert(50, b"nonsense".to_vec());
    let client = Client::new(vec![net.url(0, "/").parse().unwrap()]).unwrap();
    let outcomes = client.submit_all(&statements).await.unwrap();
    for (at, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(_) => assert_ne!(at, 50),
            Err(ClientError::Refused(refusal)) => assert_eq!((at, refusal.code.name()), (50, "malformed")),
            Err(error) => panic!("{at}: {error}"),
        }
    }
    assert_eq!(outcomes.len(), 102);
    net.finalized(0, &previous.to_string()).await;
    assert_eq!(net.json(0, "/v1/status").await["log_size"], 100);
    let metrics = String::from_utf8(net.bytes(0, "/metrics").await).unwrap();
    assert!(metrics.contains(r#"cairn_statements_refused_total{reason="malformed"} 1"#));
    net.stop_all().await;
}
