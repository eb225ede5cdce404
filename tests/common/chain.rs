//! What tests of the chain need: nodes that join, what each node says, and proxies between nodes that can be cut.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_chain_client::{Client, Follower, FollowerConfig, Url};
use cairn_proof::genesis::Genesis;
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Network, Process, cairn, free_base_port, run};

/// Time-outs give room for several tests on two cores; nothing asserts how fast something is.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `done` is, or fails the test with `what`.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// A command on another folder.
pub fn command(dir: &Path, names: &[&str]) -> Command {
    let mut command = cairn();
    command.args(names).arg("--dir").arg(dir);
    command
}

/// The folder of a node that joined, and what `cairn init --join` said.
pub struct Joined {
    /// Its folder.
    pub dir: PathBuf,
    /// Its key and its addresses.
    pub public_key: String,
    /// Where it listens for other nodes.
    pub address: String,
    /// Base address of its HTTP API.
    pub api: String,
    /// The arguments of `cairn vote add-validator` that it printed.
    pub vote: Vec<String>,
}

impl Joined {
    /// `cairn init --join`.
    pub fn new(network: &Network, name: &str) -> Self {
        let dir = network.scratch(name);
        let base = free_base_port();
        let address = format!("127.0.0.1:{}", base + 10);
        let mut init = cairn();
        init.args(["init", "--name", name, "--listen", &address, "--base-port", &base.to_string(), "--join"]);
        let said = run(init.arg(network.dir().join("genesis.json")).arg("--dir").arg(&dir));
        let line = said.lines().find(|line| line.contains("vote add-validator")).unwrap();
        let words: Vec<_> = line.split_whitespace().skip(3).map(str::to_owned).collect();
        let after = |flag: &str| words[words.iter().position(|word| word == flag).unwrap() + 1].clone();
        let public_key = after("--public-key");
        Self { dir, public_key, address, api: format!("http://127.0.0.1:{}", base + 11), vote: words }
    }

    /// `cairn node`, not ready yet.
    pub fn start(&self) -> Process {
        Process::spawn(&mut command(&self.dir, &["node"]))
    }
}

/// The first `count` validators of a network's folder, ready.
pub fn validators(network: &Network, count: usize) -> Vec<Process> {
    let mut nodes: Vec<_> = (0..count).map(|index| network.node_starting(index)).collect();
    nodes.iter_mut().for_each(|node| node.wait_ready(PATIENCE));
    nodes
}

/// The addresses of the validators' APIs, in the order of cairn.toml.
pub fn apis(dir: &Path) -> Vec<Url> {
    let text = std::fs::read_to_string(dir.join("cairn.toml")).unwrap();
    let urls = text.lines().filter_map(|line| line.strip_prefix("api = "));
    urls.map(|url| url.trim_matches('"').parse().unwrap()).collect()
}

/// The genesis of a folder.
pub fn genesis(dir: &Path) -> Arc<Genesis> {
    Arc::new(Genesis::from_json(&std::fs::read(dir.join("genesis.json")).unwrap()).unwrap())
}

/// Follows the chain through one node alone, to where that node is.
pub async fn followed(dir: &Path, node: Url) -> Follower {
    let client = Client::new(vec![node]).unwrap();
    let follower = Follower::spawn(FollowerConfig { genesis: genesis(dir), client });
    follower.catch_up(PATIENCE).await.unwrap();
    follower
}

/// The height that a node says it is at; none when it does not answer.
pub async fn height(node: &Url) -> Option<u64> {
    let client = Client::new(vec![node.clone()]).unwrap();
    client.status_of(node).await.ok()?["height"].as_u64()
}

/// Waits until each of the nodes is at `least` at least.
pub async fn wait_for_heights(nodes: &[Url], least: u64) {
    let deadline = Instant::now() + PATIENCE;
    for node in nodes {
        while height(node).await.is_none_or(|height| height < least) {
            assert!(Instant::now() < deadline, "{node} is not at height {least} but at {:?}", height(node).await);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// One JSON answer of a command.
pub fn json(command: &mut Command) -> Vec<Value> {
    serde_json::from_str(&run(command.args(["--format", "json"]))).unwrap()
}

/// A TCP proxy that can be cut: connections end, new ones are closed at once.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: String,
    open: watch::Sender<bool>,
}

impl Proxy {
    /// A proxy in front of `target`.
    pub async fn new(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (open, is_open) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((inner, _)) = listener.accept().await {
                if *is_open.borrow() {
                    tokio::spawn(pass(inner, target.clone(), is_open.clone()));
                }
            }
        });
        Self { address, open }
    }

    /// Cuts it, or lets it pass again.
    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

async fn pass(mut inner: TcpStream, target: String, mut open: watch::Receiver<bool>) {
    let Ok(mut outer) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut inner, &mut outer) => {}
        _ = open.wait_for(|open| !open) => {}
    }
}
