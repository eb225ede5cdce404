//! Validators of one chain in one process, each with its own threads, over TCP on free ports.

// Several test programs include this file, and each uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod city;

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    time::{Duration, Instant},
};

use cairn_chain_node::{Node, NodeConfig, NodeError, Peer, RunningNode};
use cairn_proof::{
    Sequence,
    statement::{Body, Statement},
};
use serde_json::Value;
use tempfile::TempDir;

use city::{City, validator_key};

/// Free ports, all different.
pub fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The validators of one chain, some of which may be stopped.
pub struct Net {
    pub city: City,
    pub configs: Vec<NodeConfig>,
    pub nodes: Vec<Option<RunningNode>>,
    pub http: reqwest::Client,
    _folder: TempDir,
}

impl Net {
    /// Makes the configurations; nothing runs yet.
    pub fn new(validators: usize, heartbeat_ms: u64) -> Self {
        Self::with_epochs(validators, 0, heartbeat_ms, 200)
    }

    /// A chain of `validators` with epochs of `epoch_blocks`, and `others` whose keys are not in its genesis.
    pub fn with_epochs(validators: usize, others: usize, heartbeat_ms: u64, epoch_blocks: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let nodes = validators + others;
        let ports = free_ports(nodes);
        let config = |index: usize| {
            let data: PathBuf = folder.path().join(format!("v{index}"));
            NodeConfig::new(data, local(ports[index]), Vec::new(), local(0))
        };
        let mut city = City::new(validators);
        city.genesis.parameters.heartbeat_ms = heartbeat_ms;
        city.genesis.parameters.epoch_blocks = epoch_blocks;
        for (validator, port) in city.genesis.validators.iter_mut().zip(&ports) {
            validator.address = local(*port).to_string();
        }
        Self {
            city,
            configs: (0..nodes).map(config).collect(),
            nodes: (0..nodes).map(|_| None).collect(),
            http: reqwest::Client::new(),
            _folder: folder,
        }
    }

    pub async fn start(&mut self, index: usize) {
        let (config, genesis) = (self.configs[index].clone(), self.city.genesis.clone());
        let started = tokio::task::spawn_blocking(move || Node::start(config, genesis, &validator_key(index)));
        self.nodes[index] = Some(started.await.unwrap().unwrap());
    }

    /// Starts all of them and waits until the chain moves, so that they are connected.
    pub async fn start_all(&mut self) {
        for index in 0..self.city.genesis.validators.len() {
            self.start(index).await;
        }
        let height = self.height(0).await;
        for index in 0..self.city.genesis.validators.len() {
            self.wait_for_height(index, height + 2).await;
        }
    }

    pub async fn stop(&mut self, index: usize) {
        let mut node = self.nodes[index].take().unwrap();
        node.stop();
        let ended: Result<(), NodeError> = tokio::time::timeout(Duration::from_secs(20), node.wait()).await.unwrap();
        ended.unwrap();
    }

    pub async fn stop_all(&mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].is_some() {
                self.stop(index).await;
            }
        }
    }

    pub fn url(&self, index: usize, path: &str) -> String {
        format!("http://{}{path}", self.nodes[index].as_ref().unwrap().api_addr())
    }

    pub async fn bytes(&self, index: usize, path: &str) -> Vec<u8> {
        let response = self.http.get(self.url(index, path)).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.text().await.unwrap());
        response.bytes().await.unwrap().to_vec()
    }

    pub async fn json(&self, index: usize, path: &str) -> Value {
        serde_json::from_slice(&self.bytes(index, path).await).unwrap()
    }

    pub async fn submit(&self, index: usize, statement: &[u8]) -> (u16, Value) {
        let request = self.http.post(self.url(index, "/v1/statements")).body(statement.to_vec());
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
    }

    /// Submits a statement that must be accepted; returns its id.
    pub async fn accepted(&self, index: usize, statement: &[u8]) -> String {
        let (status, answer) = self.submit(index, statement).await;
        assert_eq!(status, 202, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Submits a statement by a validator, at the node of that validator; returns its id, or nothing when what it votes for
    /// has passed already.
    ///
    /// The node signs attestations with the same key: whoever comes second takes a higher sequence number.
    pub async fn accepted_by_validator(&self, index: usize, body: &Body) -> Option<String> {
        let signer = validator_key(index);
        for sequence in 1..100 {
            let statement = Statement { signer: signer.identity(), sequence: Sequence(sequence), body: body.clone() };
            let statement = statement.sign(&signer, &self.city.genesis.tag()).unwrap();
            match self.submit(index, &statement).await {
                (202, answer) => return Some(answer["id"].as_str().unwrap().to_owned()),
                (409, answer) if answer["code"] == "sequence" => {}
                (409, answer) if answer["message"].as_str().unwrap().contains("passed in block") => return None,
                (status, answer) => panic!("{status}: {answer}"),
            }
        }
        panic!("a hundred sequence numbers are taken");
    }

    /// Waits until a statement is final at a validator; returns its status.
    pub async fn finalized(&self, index: usize, id: &str) -> Value {
        let status = self.json(index, &format!("/v1/statements/{id}?wait_ms=20000")).await;
        assert_eq!(status["status"], "finalized", "at validator {index}: {status}");
        status
    }

    /// A line of the metrics.
    pub async fn metric(&self, index: usize, name: &str) -> u64 {
        let text = String::from_utf8(self.bytes(index, "/metrics").await).unwrap();
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("{name} is missing")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Whether a node votes in the epoch that it is in.
    pub async fn votes(&self, index: usize) -> bool {
        self.metric(index, "cairn_chain_votes").await == 1
    }

    pub async fn height(&self, index: usize) -> u64 {
        self.json(index, "/v1/status").await["height"].as_u64().unwrap()
    }

    pub async fn wait_for_height(&self, index: usize, height: u64) {
        let started = Instant::now();
        while self.height(index).await < height {
            assert!(started.elapsed() < Duration::from_secs(90), "validator {index} does not come to height {height}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// How other nodes' configurations name a node.
pub fn peer(net: &Net, index: usize) -> Peer {
    Peer { public_key: validator_key(index).public(), address: net.configs[index].p2p_listen.to_string() }
}
