//! `cairn.toml`: one typed structure, read and checked once, with an error that names key, value and what is allowed.
//!
//! Addresses bind to loopback unless the file says otherwise. No secret stands in it.

mod kafka;
mod openlineage;
mod registry;
mod settings_file;
mod store;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cairn_chain_client::{Client, Url};
use cairn_chain_node::{ApiConfig, BlockConfig, MempoolConfig, NodeConfig, Peer, Witness};
use cairn_ingest::DeadLetterConfig;
use cairn_ingest::config::IngestConfig;
use cairn_ingest::kafka::KafkaConfig;
use cairn_proof::genesis::Genesis;
use cairn_proof::identity::PublicKey;
use cairn_query::{FlightConfig, QueryConfig};
use serde::{Deserialize, Serialize};

use crate::home::Home;

pub(crate) use store::StoreSection;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The chain's name; must be the genesis'.
    pub(crate) chain_id: String,
    /// Where records are published.
    pub(crate) kafka: KafkaSection,
    /// Where segments and batch secrets are kept.
    #[serde(default)]
    pub(crate) store: StoreSection,
    /// The role that anchors.
    pub(crate) ingest: IngestSection,
    /// The role that answers SQL.
    pub(crate) query: QuerySection,
    /// How commands and roles reach the chain.
    #[serde(default)]
    pub(crate) chain: ChainSection,
    /// Bounds of the nodes that run from this folder.
    #[serde(default)]
    pub(crate) node: NodeSection,
    /// The nodes that are asked, and that can be run from this folder: validators, in the order of `--index`, or one
    /// that joined.
    pub(crate) validators: Vec<ValidatorSection>,
    /// Where nodes are reached whose address on chain does not serve from here, and further ones to connect to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) peers: Vec<Peer>,
    /// Nodes that are no validators and yet may connect to those of this folder, to follow the chain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) observers: Vec<Peer>,
}

/// Where records are published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KafkaSection {
    /// `host:port` of the brokers, comma-separated. With `embedded`, where the embedded broker listens.
    pub(crate) brokers: String,
    /// Whether `cairn up` runs the embedded broker.
    pub(crate) embedded: bool,
    /// File of more settings, one `name=value` a line, for those that are secret: nobody but its owner may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settings_file: Option<PathBuf>,
    /// Further settings by librdkafka's own names; no secrets. Relative paths of files start at the folder of the file.
    #[serde(default)]
    pub(crate) settings: BTreeMap<String, String>,
    /// All of them, as Kafka clients get them. Never written.
    #[serde(skip)]
    pub(crate) effective: KafkaConfig,
}

/// The role that anchors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IngestSection {
    /// Where its metrics are served over HTTP.
    pub(crate) metrics: SocketAddr,
    /// Bytes of records that are read and not yet anchored.
    pub(crate) memory_mib_max: Option<u64>,
    /// Bytes that are fetched ahead.
    pub(crate) fetch_mib_max: Option<u64>,
    /// Where schemas of writers are looked up that a stream does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) registry: Option<registry::RegistrySection>,
    /// Where quarantined records go besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dead_letter: Option<DeadLetterSection>,
}

/// Where quarantined records go besides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeadLetterSection {
    /// The topic; `{topic}` and `{stream}` stand for a stream's topic and name.
    pub(crate) topic: String,
    /// How many partitions such a topic gets when ingest makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partitions: Option<u32>,
    /// Whether what was anchored before it was turned on is delivered too.
    #[serde(default)]
    pub(crate) backfill: bool,
}

impl DeadLetterSection {
    fn effective(&self, home: &Home) -> DeadLetterConfig {
        let mut config = DeadLetterConfig::new(&self.topic, home.dead_letters_file());
        config.partitions = self.partitions.unwrap_or(config.partitions);
        config.backfill = self.backfill;
        config
    }
}

/// The role that answers SQL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuerySection {
    /// Where its metrics are served over HTTP.
    pub(crate) metrics: SocketAddr,
    /// Whether `cairn_receipt` gives receipts. It needs the batch secrets and their key, which the role then reads.
    #[serde(default)]
    pub(crate) receipts: bool,
    /// The Postgres port and its limits.
    pub(crate) postgres: QueryConfig,
    /// The Flight SQL port; there is none without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) flight: Option<FlightConfig>,
    /// Where events about queries go; nowhere without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) openlineage: Option<openlineage::OpenLineageSection>,
}

/// How commands and roles reach the chain.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ChainSection {
    /// Base addresses of the nodes that are asked; those of `[[validators]]`, if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) nodes: Vec<String>,
    /// PEM file of the root certificate that https nodes are checked by; relative paths start at the folder of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) root_certificate: Option<PathBuf>,
}

/// Bounds of the nodes that run from this folder.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NodeSection {
    /// How far a block's time may lie ahead of this machine's clock before the vote for it is delayed, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clock_drift_ms_max: Option<u64>,
    /// Bounds of a block that is proposed here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) block: Option<BlockConfig>,
    /// Bounds of the statements that wait for a block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mempool: Option<MempoolConfig>,
    /// Bounds of the HTTP API, and the certificate that it is served with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api: Option<ApiConfig>,
    /// Outside witnesses that are asked to cosign checkpoints before they are published: key and address of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) witnesses: Vec<Witness>,
}

/// One node. Where the others reach it stands on the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValidatorSection {
    /// Its name: that of its key file and of its folder of data.
    pub(crate) name: String,
    /// The key it votes with.
    pub(crate) public_key: PublicKey,
    /// Where it listens for the others.
    pub(crate) p2p_listen: SocketAddr,
    /// Base address of its HTTP API.
    pub(crate) api: String,
    /// Where the HTTP API listens.
    pub(crate) api_listen: SocketAddr,
}

impl Config {
    /// Reads and checks a file.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let shown = file.display();
        let text = fs::read_to_string(file).with_context(|| format!("{shown} cannot be read"))?;
        let mut config: Self =
            toml::from_str(&text).with_context(|| format!("{shown} is not a configuration of Cairn"))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        config.kafka.effective.settings =
            kafka::effective_settings(&config.kafka, folder).with_context(|| shown.to_string())?;
        config.check().with_context(|| shown.to_string())?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        if self.validators.is_empty() {
            bail!("[[validators]]: expected one at least, found none");
        }
        for (index, validator) in self.validators.iter().enumerate() {
            check_name(&validator.name)?;
            if self.validators[..index].iter().any(|other| other.name == validator.name) {
                bail!("[[validators]] {}: expected each name once, found it twice", validator.name);
            }
        }
        self.nodes()?;
        if self.kafka.embedded {
            self.broker_listen()?;
        }
        self.kafka().check().context("[kafka]")?;
        self.query.postgres.check().context("[query.postgres]")?;
        if let Some(flight) = &self.query.flight {
            flight.check(&self.query.postgres).context("[query.flight]")?;
        }
        self.store.check()
    }

    /// The base addresses of the nodes that are asked.
    fn nodes(&self) -> Result<Vec<Url>> {
        if self.chain.nodes.is_empty() {
            let of = |validator: &ValidatorSection| {
                url(&validator.api).with_context(|| format!("[[validators]] {}: api", validator.name))
            };
            return self.validators.iter().map(of).collect();
        }
        self.chain.nodes.iter().map(|node| url(node).context("[chain] nodes")).collect()
    }

    /// Settings of every Kafka client.
    pub(crate) fn kafka(&self) -> KafkaConfig {
        KafkaConfig { brokers: self.kafka.brokers.clone(), settings: self.kafka.effective.settings.clone() }
    }

    /// Where the embedded broker listens.
    pub(crate) fn broker_listen(&self) -> Result<SocketAddr> {
        let brokers = &self.kafka.brokers;
        brokers.parse().with_context(|| {
            format!("[kafka] brokers = {brokers:?}: with embedded = true, expected ip:port such as 127.0.0.1:26600")
        })
    }

    /// A client of all nodes.
    pub(crate) fn client(&self, home: &Home) -> Result<Client> {
        let nodes = self.nodes()?;
        let Some(file) = &self.chain.root_certificate else { return Ok(Client::new(nodes)?) };
        let file = home.path().join(file);
        let root = fs::read(&file).with_context(|| format!("[chain] root_certificate {}", file.display()))?;
        Ok(Client::with_roots(nodes, Some(&root))?)
    }

    /// The index of the node that is named, or of the only one whose key lies in the folder.
    pub(crate) fn node_index(&self, home: &Home, index: Option<usize>, name: Option<&str>) -> Result<usize> {
        let names = || self.validators.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
        if let Some(name) = name {
            let found = self.validators.iter().position(|node| node.name == name);
            return found.with_context(|| format!("--name {name}: cairn.toml has {}", names()));
        }
        if let Some(index) = index {
            let most = self.validators.len() - 1;
            if index > most {
                bail!("--index {index}: cairn.toml has the validators 0 to {most}");
            }
            return Ok(index);
        }
        let here = |index: &usize| home.key_file(&self.validators[*index].name).is_file();
        let found: Vec<_> = (0..self.validators.len()).filter(here).collect();
        match found.as_slice() {
            [one] => Ok(*one),
            _ => bail!("which node? keys/ holds the keys of {}: say --name, one of {}", found.len(), names()),
        }
    }

    /// What the node at `index` is started with.
    pub(crate) fn node(&self, home: &Home, genesis: &Genesis, index: usize) -> Result<NodeConfig> {
        let node = self.validators.get(index).with_context(|| format!("--index {index}"))?;
        let data = home.node_data(&node.name);
        let mut config = NodeConfig::new(data, node.p2p_listen, self.peers.clone(), node.api_listen);
        config.observers.clone_from(&self.observers);
        if let Some(drift) = self.node.clock_drift_ms_max {
            config.clock_drift_ms_max = drift;
        }
        config.block = self.node.block.clone().unwrap_or_default();
        config.mempool = self.node.mempool.clone().unwrap_or_default();
        config.api = self.node.api.clone().unwrap_or_default();
        if let Some(tls) = &mut config.api.tls {
            tls.certificate = home.path().join(&tls.certificate);
            tls.key = home.path().join(&tls.key);
        }
        config.witnesses.clone_from(&self.node.witnesses);
        config.validate(genesis)?;
        Ok(config)
    }

    /// What ingest is started with.
    pub(crate) fn ingest(&self, home: &Home) -> Result<IngestConfig> {
        let mut config = IngestConfig::new(self.kafka());
        config.registry = self.ingest.registry.as_ref().map(|registry| registry.effective(home.path())).transpose()?;
        config.dead_letter = self.ingest.dead_letter.as_ref().map(|letters| letters.effective(home));
        if let Some(letters) = &config.dead_letter {
            letters.check().context("[ingest.dead_letter]")?;
        }
        if let Some(mib) = self.ingest.memory_mib_max {
            config.memory_bytes_max = mib << 20;
        }
        if let Some(mib) = self.ingest.fetch_mib_max {
            config.fetch_bytes_max = mib << 20;
        }
        config.check().context("[ingest]")?;
        Ok(config)
    }

    /// Where SQL clients of this machine reach the Postgres port.
    pub(crate) fn postgres(&self) -> SocketAddr {
        let host = match self.query.postgres.host {
            host if host.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            host => host,
        };
        SocketAddr::new(host, self.query.postgres.port)
    }
}

/// Names become file names and folders.
fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(plain) {
        bail!("[[validators]] name = {name:?}: expected 1 to 100 of A–Z, a–z, 0–9, '.', '-' and '_'");
    }
    Ok(())
}

fn url(text: &str) -> Result<Url> {
    let expected = "expected an address such as http://127.0.0.1:26611";
    match text.parse::<Url>() {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) => bail!("{text:?}: {expected}"),
        Err(error) => bail!("{text:?}: {expected}: {error}"),
    }
}

/// Ports of a network, counted up from a base.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports(pub(crate) u16);

impl Ports {
    /// How many ports a network of that many validators takes.
    pub(crate) const fn count(validators: u16) -> u16 {
        10 + 2 * validators
    }

    pub(crate) const fn broker(self) -> u16 {
        self.0
    }

    pub(crate) const fn postgres(self) -> u16 {
        self.0 + 1
    }

    pub(crate) const fn ingest_metrics(self) -> u16 {
        self.0 + 2
    }

    pub(crate) const fn query_metrics(self) -> u16 {
        self.0 + 3
    }

    pub(crate) const fn flight(self) -> u16 {
        self.0 + 4
    }

    pub(crate) const fn p2p(self, index: u16) -> u16 {
        self.0 + 10 + 2 * index
    }

    pub(crate) const fn api(self, index: u16) -> u16 {
        self.0 + 11 + 2 * index
    }
}
