//! What a node is told at start: one typed structure, checked once.
//!
//! Only the command line reads files and environment; it fills this in and passes the signing key as a value
//! beside it, so that a key never stands in a configuration.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

use cairn_proof::{
    block::{BLOCK_BYTES_MAX, BLOCK_STATEMENTS_MAX},
    genesis::Genesis,
    identity::PublicKey,
    note::{Algorithm, VerifierKey},
    statement::STATEMENT_BYTES_MAX,
};
use serde::{Deserialize, Serialize};

use crate::{address::PeerAddress, checkpoints::WITNESSES_MAX};

/// Observers, and peers beside the validators on chain, that a configuration may name.
const OBSERVERS_MAX: u64 = 256;

/// Another node: its consensus key, and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The node's key.
    pub public_key: PublicKey,
    /// `host:port` or `ip:port` of its consensus listener.
    pub address: String,
}

/// Configuration of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Folder of this validator alone: voting history, blocks, certificates. Never delete or copy it while the
    /// key is in use: a validator without its voting history can vote twice.
    pub data_dir: PathBuf,
    /// Where the other validators reach this one.
    pub p2p_listen: SocketAddr,
    /// Where validators are reached, for those whose address on chain does not serve from here; and further nodes to
    /// connect to, such as a validator that was added after genesis, for a node that begins with an empty folder.
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// Nodes that are no validators and yet may connect, to follow the chain. Their addresses are not dialled.
    #[serde(default)]
    pub observers: Vec<Peer>,
    /// Where the HTTP API listens; keep it on loopback.
    pub api_listen: SocketAddr,
    /// After the first statement a leader waits this long for more before it proposes. 0 to 1,000 ms, and not more than
    /// half of the chain's heartbeat.
    #[serde(default = "defaults::coalesce_ms")]
    pub coalesce_ms: u64,
    /// How far a block's timestamp may lie ahead of the local clock before the vote for it is delayed. 0 to 60,000 ms.
    #[serde(default = "defaults::clock_drift_ms_max")]
    pub clock_drift_ms_max: u64,
    /// Outside witnesses that are asked to cosign checkpoints before they are published; at most 8.
    #[serde(default)]
    pub witnesses: Vec<Witness>,
    /// Bounds of a block that this validator proposes.
    #[serde(default)]
    pub block: BlockConfig,
    /// Bounds of the statements that wait for a block.
    #[serde(default)]
    pub mempool: MempoolConfig,
    /// Bounds of the HTTP API.
    #[serde(default)]
    pub api: ApiConfig,
}

/// An outside witness: it cosigns a checkpoint once it has seen that it continues the one before (C2SP `tlog-witness`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Its name and key, `name+id+base64`, with algorithm 0x04 (cosignature/v1), as its operator publishes it.
    pub vkey: String,
    /// Where it takes checkpoints: the address before `/add-checkpoint`.
    pub url: String,
}

/// Bounds of a proposed block; the protocol's own bounds are the upper limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlockConfig {
    /// Statements in a block.
    pub statements_max: usize,
    /// Bytes of statements in a block.
    pub bytes_max: usize,
}

/// Bounds of the mempool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MempoolConfig {
    /// Statements.
    pub statements_max: usize,
    /// Bytes of statements.
    pub bytes_max: usize,
    /// Statements of one signer.
    pub signer_statements_max: usize,
    /// A statement that does not apply yet (its stream or predecessor is unknown) is kept this long.
    pub parked_ms_max: u64,
    /// A statement that is not final after this long is sent to the other validators again.
    pub gossip_again_ms: u64,
    /// Refusals that are remembered, so that a statement's status can be asked for.
    pub refusals_max: usize,
}

/// Bounds of the HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Certificate and key, if the API is served over TLS; otherwise it is plain HTTP.
    pub tls: Option<TlsConfig>,
    /// Open connections; further ones are answered with 503 and closed.
    pub connections_max: usize,
    /// Bounds of each address (IPv4 address, or IPv6 network of 64 bits) but those of this machine.
    pub remote: AddressLimits,
    /// Bounds of each loopback address, such as that of a proxy on this machine.
    pub loopback: AddressLimits,
    /// A connection on which no request comes for this long is closed.
    pub idle_ms_max: u64,
    /// From its first byte (or the connection's opening) to its end, a request's head takes no longer than this.
    pub head_ms_max: u64,
    /// Bytes of a request's head.
    pub head_bytes_max: usize,
    /// From its first byte to its end, a request's body takes no longer than this.
    pub body_ms_max: u64,
    /// Bytes of a body that holds several statements.
    pub body_bytes_max: usize,
    /// Statements in one body.
    pub body_statements_max: usize,
    /// An answer that the client does not take for this long is cut off.
    pub answer_ms_max: u64,
    /// Requests that wait at one time (`wait_ms`, or a statement's predecessor); further ones are answered with 503.
    pub waiting_max: usize,
    /// The longest `wait_ms` that a request may ask for.
    pub wait_ms_max: u64,
    /// A submitted statement that does not apply yet is tried again for this long before it is refused, because
    /// the block or statement that it builds on may be on its way here.
    pub admission_wait_ms: u64,
    /// Bytes of blocks in one answer.
    pub blocks_bytes_max: usize,
    /// Blocks in one answer.
    pub blocks_count_max: usize,
    /// The node is ready while its last final block is younger than this many heartbeats and a second.
    pub ready_heartbeats_max: u64,
}

/// What one address may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressLimits {
    /// Open connections; further ones are answered with 429 and closed.
    pub connections_max: usize,
    /// Requests per second in the long run; further ones are answered with 429.
    pub requests_per_second: u32,
    /// Requests at once, after a time without any.
    pub requests_burst: u32,
}

/// Where the API's certificate lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file of the certificate and of those between it and the root, the server's own first.
    pub certificate: PathBuf,
    /// PEM file of its private key (PKCS #8, PKCS #1 or SEC 1), which nobody else may read: mode 0600.
    pub key: PathBuf,
}

mod defaults {
    pub(super) const fn coalesce_ms() -> u64 {
        3
    }
    pub(super) const fn clock_drift_ms_max() -> u64 {
        500
    }
}

impl Default for BlockConfig {
    fn default() -> Self {
        Self { statements_max: BLOCK_STATEMENTS_MAX, bytes_max: BLOCK_BYTES_MAX }
    }
}

impl Default for MempoolConfig {
    fn default() -> Self {
        Self {
            statements_max: 8_192,
            bytes_max: 32 << 20,
            signer_statements_max: 1_024,
            parked_ms_max: 10_000,
            gossip_again_ms: 3_000,
            refusals_max: 8_192,
        }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            tls: None,
            connections_max: 512,
            remote: AddressLimits { connections_max: 64, requests_per_second: 500, requests_burst: 1_000 },
            loopback: AddressLimits { connections_max: 512, requests_per_second: 20_000, requests_burst: 40_000 },
            idle_ms_max: 120_000,
            head_ms_max: 10_000,
            head_bytes_max: 16 << 10,
            body_ms_max: 10_000,
            body_bytes_max: 1 << 20,
            body_statements_max: 4_096,
            answer_ms_max: 60_000,
            waiting_max: 384,
            wait_ms_max: 60_000,
            admission_wait_ms: 1_000,
            blocks_bytes_max: 4 << 20,
            blocks_count_max: 512,
            ready_heartbeats_max: 10,
        }
    }
}

impl ApiConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        within("api.connections_max", self.connections_max as u64, 1, 65_536)?;
        self.remote.validate([
            "api.remote.connections_max",
            "api.remote.requests_per_second",
            "api.remote.requests_burst",
        ])?;
        self.loopback.validate([
            "api.loopback.connections_max",
            "api.loopback.requests_per_second",
            "api.loopback.requests_burst",
        ])?;
        within("api.idle_ms_max", self.idle_ms_max, 100, 3_600_000)?;
        within("api.head_ms_max", self.head_ms_max, 100, 600_000)?;
        within("api.head_bytes_max", self.head_bytes_max as u64, 1_024, 256 << 10)?;
        within("api.body_ms_max", self.body_ms_max, 100, 600_000)?;
        within("api.body_bytes_max", self.body_bytes_max as u64, STATEMENT_BYTES_MAX as u64, 16 << 20)?;
        within("api.body_statements_max", self.body_statements_max as u64, 1, 65_536)?;
        within("api.answer_ms_max", self.answer_ms_max, 100, 3_600_000)?;
        within("api.waiting_max", self.waiting_max as u64, 1, 65_536)?;
        within("api.wait_ms_max", self.wait_ms_max, 0, 600_000)?;
        within("api.admission_wait_ms", self.admission_wait_ms, 0, 60_000)?;
        within("api.blocks_bytes_max", self.blocks_bytes_max as u64, 1 << 16, 1 << 30)?;
        within("api.blocks_count_max", self.blocks_count_max as u64, 1, 65_536)?;
        within("api.ready_heartbeats_max", self.ready_heartbeats_max, 2, 10_000)
    }
}

impl AddressLimits {
    fn validate(&self, [connections, rate, burst]: [&'static str; 3]) -> Result<(), ConfigError> {
        within(connections, self.connections_max as u64, 1, 65_536)?;
        within(rate, u64::from(self.requests_per_second), 1, 1_000_000)?;
        within(burst, u64::from(self.requests_burst), 1, 1_000_000)
    }
}

/// A value that cannot be used: which key, what was found, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration key `{key}`: found {found}, expected {expected}")]
pub struct ConfigError {
    /// The key, with dots.
    pub key: &'static str,
    /// The value found.
    pub found: String,
    /// The allowed values.
    pub expected: String,
}

fn within(key: &'static str, found: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(ConfigError { key, found: found.to_string(), expected: format!("{least} to {most}") })
}

impl NodeConfig {
    /// A configuration with the defaults for everything that has one.
    #[must_use]
    pub fn new(data_dir: PathBuf, p2p_listen: SocketAddr, peers: Vec<Peer>, api_listen: SocketAddr) -> Self {
        Self {
            data_dir,
            p2p_listen,
            peers,
            observers: Vec::new(),
            api_listen,
            coalesce_ms: defaults::coalesce_ms(),
            clock_drift_ms_max: defaults::clock_drift_ms_max(),
            witnesses: Vec::new(),
            block: BlockConfig::default(),
            mempool: MempoolConfig::default(),
            api: ApiConfig::default(),
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first key whose value is out of its range.
    pub fn validate(&self, genesis: &Genesis) -> Result<(), ConfigError> {
        within("coalesce_ms", self.coalesce_ms, 0, 1_000.min(genesis.parameters.heartbeat_ms / 2))?;
        within("clock_drift_ms_max", self.clock_drift_ms_max, 0, 60_000)?;
        within("block.statements_max", self.block.statements_max as u64, 1, BLOCK_STATEMENTS_MAX as u64)?;
        let statement = STATEMENT_BYTES_MAX as u64;
        within("block.bytes_max", self.block.bytes_max as u64, statement, BLOCK_BYTES_MAX as u64)?;
        within("mempool.statements_max", self.mempool.statements_max as u64, 1, 1 << 20)?;
        within("mempool.bytes_max", self.mempool.bytes_max as u64, statement, 1 << 32)?;
        within("mempool.signer_statements_max", self.mempool.signer_statements_max as u64, 1, 1 << 20)?;
        within("mempool.parked_ms_max", self.mempool.parked_ms_max, 100, 600_000)?;
        within("mempool.gossip_again_ms", self.mempool.gossip_again_ms, 100, 600_000)?;
        within("mempool.refusals_max", self.mempool.refusals_max as u64, 1, 1 << 20)?;
        self.api.validate()?;
        self.validate_witnesses()?;
        within("observers", self.observers.len() as u64, 0, OBSERVERS_MAX)?;
        within("peers", self.peers.len() as u64, 0, OBSERVERS_MAX)?;
        each_once("peers.address", "peers.public_key", &self.peers)?;
        each_once("observers.address", "observers.public_key", &self.observers)
    }

    fn validate_witnesses(&self) -> Result<(), ConfigError> {
        let wrong = |key, found: String, expected: &str| Err(ConfigError { key, found, expected: expected.into() });
        if self.witnesses.len() > WITNESSES_MAX {
            return wrong("witnesses", self.witnesses.len().to_string(), "at most 8");
        }
        let mut seen = BTreeSet::new();
        for witness in &self.witnesses {
            let key = match VerifierKey::parse(&witness.vkey) {
                Ok(key) if key.algorithm() == Algorithm::CosignatureV1 => key,
                Ok(key) => return wrong("witnesses.vkey", key.to_string(), "a key of algorithm 0x04 (cosignature/v1)"),
                Err(error) => return wrong("witnesses.vkey", error.to_string(), "name+id+base64"),
            };
            let name = key.name().to_owned();
            if !seen.insert(key) {
                return wrong("witnesses.vkey", format!("{name} twice"), "each witness once");
            }
            let url = reqwest::Url::parse(&witness.url);
            if !url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some()) {
                return wrong("witnesses.url", witness.url.clone(), "http:// or https:// and a host");
            }
        }
        Ok(())
    }
}

fn each_once(address: &'static str, key: &'static str, peers: &[Peer]) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    for peer in peers {
        PeerAddress::parse(&peer.address).map_err(|found| ConfigError {
            key: address,
            found,
            expected: "ip:port or host:port".into(),
        })?;
        if !seen.insert(peer.public_key) {
            return Err(ConfigError {
                key,
                found: format!("{} twice", peer.public_key),
                expected: "each node once".into(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::city::{genesis, key, validator_key};

    fn config() -> NodeConfig {
        let peer =
            |index| Peer { public_key: validator_key(index).public(), address: format!("validator-{index}:7000") };
        let any = SocketAddr::from(([127, 0, 0, 1], 7000));
        NodeConfig::new("data".into(), any, (0..4).map(peer).collect(), any)
    }

    #[test]
    fn the_defaults_are_valid() {
        config().validate(&genesis(4)).unwrap();
    }

    #[test]
    fn unknown_keys_are_refused_and_defaults_filled_in() {
        let json = r#"{"data_dir":"d","p2p_listen":"127.0.0.1:1","api_listen":"127.0.0.1:2"}"#;
        let read: NodeConfig = serde_json::from_str(json).unwrap();
        assert_eq!((read.coalesce_ms, read.mempool.statements_max), (3, MempoolConfig::default().statements_max));
        let unknown = json.replace("data_dir", "data_directory");
        assert!(serde_json::from_str::<NodeConfig>(&unknown).is_err());
    }

    fn witness(vkey: &str, url: &str) -> Witness {
        Witness { vkey: vkey.into(), url: url.into() }
    }

    fn cosigner() -> String {
        VerifierKey::new("w.example", Algorithm::CosignatureV1, key(9).public()).unwrap().to_string()
    }

    #[test]
    fn each_bad_value_is_named() {
        type Change = fn(&mut NodeConfig);
        const LOG_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        let cases: [(&str, Change); 13] = [
            ("coalesce_ms", |config| config.coalesce_ms = 30_001),
            ("block.bytes_max", |config| config.block.bytes_max = 1),
            ("mempool.statements_max", |config| config.mempool.statements_max = 0),
            ("api.idle_ms_max", |config| config.api.idle_ms_max = 1),
            ("api.body_bytes_max", |config| config.api.body_bytes_max = 1_000),
            ("api.remote.requests_burst", |config| config.api.remote.requests_burst = 0),
            ("peers.address", |config| config.peers[1].address = "nowhere".into()),
            ("peers.public_key", |config| config.peers[1].public_key = config.peers[0].public_key),
            ("observers.public_key", |config| config.observers = vec![config.peers[1].clone(); 2]),
            ("witnesses.vkey", |config| config.witnesses = vec![witness("nonsense", "http://127.0.0.1:1")]),
            ("witnesses.vkey", |config| config.witnesses = vec![witness(LOG_KEY, "http://127.0.0.1:1")]),
            ("witnesses.vkey", |config| config.witnesses = vec![witness(&cosigner(), "http://127.0.0.1:1"); 2]),
            ("witnesses.url", |config| config.witnesses = vec![witness(&cosigner(), "127.0.0.1:1")]),
        ];
        for (name, change) in cases {
            let mut config = config();
            change(&mut config);
            assert_eq!(config.validate(&genesis(4)).unwrap_err().key, name);
        }
    }
}
