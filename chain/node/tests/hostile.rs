//! Hostile clients of the HTTP API, on raw sockets: the others are answered meanwhile, each refusal is counted by its
//! reason, and what the attackers held is given back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cairn_chain_node::AddressLimits;
use common::Net;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

/// No attack outlasts this; the node's own limits are far shorter.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connects from 127.0.0.`host`, so that each attacker has an address of its own.
async fn connect(node: SocketAddr, host: u8) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, host], 0)))?;
    timeout(PATIENCE, socket.connect(node)).await.unwrap()
}

/// Sends `bytes` and reads what comes until the node closes.
async fn exchange(node: SocketAddr, host: u8, bytes: &[u8]) -> String {
    let Ok(mut stream) = connect(node, host).await else { return String::new() };
    // The node may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the node closes");
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: node\r\n\r\n")
}

/// A head that never ends, a few bytes at a time.
async fn slowloris(node: SocketAddr) {
    let one = async |_| {
        let Ok(mut stream) = connect(node, 2).await else { return };
        let _ = stream.write_all(b"GET /v1/status HTTP/1.1\r\n").await;
        while stream.write_all(b"x: y\r\n").await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, futures::future::join_all((0..40).map(one))).await.expect("each is cut off");
}

/// Many more connections than an address may have, which say nothing.
async fn connection_flood(node: SocketAddr) {
    let mut held = Vec::new();
    for at in 0..3_000 {
        let Ok(stream) = connect(node, 3).await else { continue };
        held.push(stream);
        if at % 500 == 499 {
            held.clear();
        }
    }
}

async fn oversized_heads(node: SocketAddr) {
    let head = format!("GET /v1/status HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    let many = format!("GET /v1/status HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1_000));
    for _ in 0..20 {
        let answer = exchange(node, 4, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431") && answer.contains("head_bytes"), "{answer}");
        let answer = exchange(node, 4, many.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

async fn oversized_bodies(node: SocketAddr) {
    let announced = "POST /v1/statements HTTP/1.1\r\nhost: node\r\ncontent-length: 1000000000\r\n\r\n";
    let answer = exchange(node, 5, announced.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("too_large"), "{answer}");
    // In chunks, without an end: it is cut off, whatever the client reads of the answer.
    let mut endless = b"POST /v1/statements HTTP/1.1\r\nhost: node\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..100 {
        endless.extend(b"10000\r\n");
        endless.extend(vec![7; 0x1_0000]);
        endless.extend(b"\r\n");
    }
    exchange(node, 5, &endless).await;
    // A byte, and then nothing.
    let slow = "POST /v1/statements HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-length: 100\r\n\r\nx";
    let answer = exchange(node, 5, slow.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_time"), "{answer}");
}

async fn garbage(node: SocketAddr) {
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0xa5; 500][..]].concat();
    for bytes in
        [b"\0\0\0\0\r\n\r\n".to_vec(), vec![0xff; 1_000], hello, b"GET\r\n\r\n".to_vec(), b"\r\n".repeat(10_000)]
    {
        let answer = exchange(node, 6, &bytes).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    for preface in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"PRI"] {
        let answer = exchange(node, 6, preface).await;
        assert!(answer.starts_with("HTTP/1.1 505") && answer.contains("http2"), "{answer}");
    }
}

/// Many requests at once on one connection: answered in their order.
async fn pipelining(node: SocketAddr) {
    let mut stream = connect(node, 7).await.unwrap();
    let requests = [
        get("/v1/health").repeat(300),
        get("/v1/nothing"),
        get("/v1/health").replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"),
    ];
    stream.write_all(requests.concat().as_bytes()).await.unwrap();
    let mut answers = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answers)).await.unwrap().unwrap();
    let found: Vec<&str> = answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(found.len(), 302);
    assert!(found.iter().enumerate().all(|(at, status)| *status == if at == 300 { "404" } else { "200" }));
}

async fn half_closed(node: SocketAddr) {
    for request in [String::new(), "GET /v1".into(), get("/v1/blocks?from=999999&wait_ms=2000")] {
        for _ in 0..20 {
            let mut stream = connect(node, 8).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the node closes");
        }
    }
}

/// Asks for megabytes and reads nothing.
async fn slow_readers(node: SocketAddr) {
    let one = async |_| {
        let mut stream = connect(node, 9).await.unwrap();
        let requests = get("/openapi.json").repeat(50);
        // Sent until the node stops reading, and then until it gives up.
        let sending = async { while stream.write_all(requests.as_bytes()).await.is_ok() {} };
        timeout(PATIENCE, sending).await.expect("the node gives up");
    };
    futures::future::join_all((0..4).map(one)).await;
}

/// More requests that wait than may, and more than an address may make.
async fn waiting_and_rate(node: SocketAddr) {
    let one = async |_| {
        exchange(
            node,
            10,
            get("/v1/blocks?from=999999&wait_ms=1500").replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").as_bytes(),
        )
        .await
    };
    let answers = futures::future::join_all((0..40).map(one)).await;
    let refused: Vec<&String> = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503")).collect();
    assert!(!refused.is_empty());
    assert!(refused.iter().all(|answer| answer.contains("retry-after: 1") && answer.contains(r#""code":"waiting""#)));
    let mut requests = get("/v1/health").repeat(3_000);
    requests.push_str(&get("/v1/health").replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"));
    let answers = Box::pin(async {
        let mut stream = connect(node, 11).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let mut answers = String::new();
        let (sent, read) = tokio::join!(writer.write_all(requests.as_bytes()), reader.read_to_string(&mut answers));
        sent.unwrap();
        read.unwrap();
        answers
    });
    let answers = timeout(PATIENCE, answers).await.unwrap();
    assert!(
        answers.contains("HTTP/1.1 429") && answers.contains("retry-after: ") && answers.contains("address_requests")
    );
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default().to_owned();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

async fn metric(net: &Net, name: &str) -> f64 {
    let text = String::from_utf8(net.bytes(0, "/metrics").await).unwrap();
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients_do_not_keep_others_from_being_answered() {
    let mut net = Net::new(1, 200);
    let api = &mut net.configs[0].api;
    api.loopback = AddressLimits { connections_max: 50, requests_per_second: 500, requests_burst: 1_000 };
    (api.connections_max, api.waiting_max, api.head_bytes_max) = (400, 20, 8 << 10);
    (api.head_ms_max, api.body_ms_max, api.answer_ms_max, api.idle_ms_max) = (1_000, 1_000, 1_000, 2_000);
    net.start(0).await;
    let node = net.nodes[0].as_ref().unwrap().api_addr();
    for _ in 0..100 {
        net.json(0, "/v1/status").await;
    }

    let before = resident_kib();
    let done = Arc::new(AtomicBool::new(false));
    let honest = {
        let (done, http, url) = (Arc::clone(&done), net.http.clone(), net.url(0, "/v1/status"));
        tokio::spawn(async move {
            let mut answered = 0;
            while !done.load(Ordering::Relaxed) {
                let response = http.get(&url).send().await.unwrap();
                assert_eq!(response.status().as_u16(), 200);
                answered += 1;
                sleep(Duration::from_millis(20)).await;
            }
            answered
        })
    };
    for round in 0..3 {
        tokio::join!(
            slowloris(node),
            connection_flood(node),
            oversized_heads(node),
            oversized_bodies(node),
            garbage(node),
            pipelining(node),
            half_closed(node),
            slow_readers(node),
            waiting_and_rate(node),
        );
        println!(
            "round {round}: VmRSS {} KiB, {before} KiB before (the attackers' own memory included)",
            resident_kib()
        );
    }
    done.store(true, Ordering::Relaxed);
    let answered = honest.await.unwrap();
    println!("{answered} honest requests answered meanwhile");
    assert!(answered > 0);

    for reason in [
        "head_time",
        "address_connections",
        "head_bytes",
        "too_large",
        "body_time",
        "malformed_head",
        "http2",
        "answer_time",
        "waiting",
        "address_requests",
    ] {
        let found = metric(&net, &format!("cairn_api_refused_total{{reason=\"{reason}\"}}")).await;
        println!("refused for {reason}: {found}");
        assert!(found >= 1.0, "nothing was refused for {reason}");
    }
    // Everything that the attackers held is given back: only the honest client's connections are left.
    let freed = async {
        while metric(&net, "cairn_api_connections").await > 4.0 {
            sleep(Duration::from_millis(100)).await
        }
    };
    timeout(PATIENCE, freed).await.expect("the attackers' connections are closed");
    assert_eq!(metric(&net, "cairn_api_waiting_requests").await, 0.0);
    net.stop_all().await;
}
