//! `cairn.toml`: one typed structure, read and checked once, with an error that names key, value and what is allowed.
//!
//! Addresses bind to loopback unless the file says otherwise. No secret stands in it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cairn_chain_client::{Client, Url};
use cairn_chain_node::{NodeConfig, Peer};
use cairn_ingest::config::IngestConfig;
use cairn_ingest::kafka::KafkaConfig;
use cairn_proof::genesis::Genesis;
use cairn_proof::identity::PublicKey;
use cairn_query::QueryConfig;
use serde::{Deserialize, Serialize};

use crate::home::Home;

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
    /// The validators of the chain, in the order of `--index`.
    pub(crate) validators: Vec<ValidatorSection>,
}

/// Where records are published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KafkaSection {
    /// `host:port` of the brokers, comma-separated. With `embedded`, where the embedded broker listens.
    pub(crate) brokers: String,
    /// Whether `cairn up` runs the embedded broker.
    pub(crate) embedded: bool,
    /// Further settings by librdkafka's own names.
    #[serde(default)]
    pub(crate) settings: BTreeMap<String, String>,
}

/// Where segments and batch secrets are kept; relative paths start at the folder of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreSection {
    /// Folder of the segments. It need not be trusted.
    pub(crate) objects: PathBuf,
    /// Folder of the batch secrets, encrypted under `keys/secrets.key`.
    pub(crate) secrets: PathBuf,
}

impl Default for StoreSection {
    fn default() -> Self {
        Self { objects: "objects".into(), secrets: "secrets".into() }
    }
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
}

/// The role that answers SQL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuerySection {
    /// Where its metrics are served over HTTP.
    pub(crate) metrics: SocketAddr,
    /// The Postgres port and its limits.
    pub(crate) postgres: QueryConfig,
}

/// One validator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValidatorSection {
    /// Its name in the genesis.
    pub(crate) name: String,
    /// Its key in the genesis.
    pub(crate) public_key: PublicKey,
    /// `host:port` where the other validators reach it.
    pub(crate) p2p: String,
    /// Where it listens for them.
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
        let config: Self = toml::from_str(&text).with_context(|| format!("{shown} is not a configuration of Cairn"))?;
        config.check().with_context(|| shown.to_string())?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        if self.validators.is_empty() {
            bail!("[[validators]]: expected one at least, found none");
        }
        for validator in &self.validators {
            self.api_url(validator)?;
        }
        if self.kafka.embedded {
            self.broker_listen()?;
        }
        self.kafka().check().context("[kafka]")?;
        self.query.postgres.check().context("[query.postgres]")?;
        Ok(())
    }

    fn api_url(&self, validator: &ValidatorSection) -> Result<Url> {
        let expected = "expected an address such as http://127.0.0.1:26611";
        match validator.api.parse::<Url>() {
            Ok(url) if url.scheme() == "http" && url.has_host() => Ok(url),
            Ok(_) => bail!("[[validators]] {}: api = {:?}: {expected}", validator.name, validator.api),
            Err(error) => bail!("[[validators]] {}: api = {:?}: {expected}: {error}", validator.name, validator.api),
        }
    }

    /// Settings of every Kafka client.
    pub(crate) fn kafka(&self) -> KafkaConfig {
        KafkaConfig { brokers: self.kafka.brokers.clone(), settings: self.kafka.settings.clone() }
    }

    /// Where the embedded broker listens.
    pub(crate) fn broker_listen(&self) -> Result<SocketAddr> {
        let brokers = &self.kafka.brokers;
        brokers.parse().with_context(|| {
            format!("[kafka] brokers = {brokers:?}: with embedded = true, expected ip:port such as 127.0.0.1:26600")
        })
    }

    /// A client of all validators.
    pub(crate) fn client(&self) -> Result<Client> {
        let nodes = self.validators.iter().map(|validator| self.api_url(validator)).collect::<Result<_>>()?;
        Ok(Client::new(nodes)?)
    }

    /// What the validator at `index` is started with.
    pub(crate) fn node(&self, home: &Home, genesis: &Genesis, index: usize) -> Result<NodeConfig> {
        let most = self.validators.len() - 1;
        let validator = self
            .validators
            .get(index)
            .with_context(|| format!("--index {index}: cairn.toml has the validators 0 to {most}"))?;
        let peers = self
            .validators
            .iter()
            .map(|other| Peer { public_key: other.public_key, address: other.p2p.clone() })
            .collect();
        let data = home.validator_data(index);
        let config = NodeConfig::new(data, validator.p2p_listen, peers, validator.api_listen);
        config.validate(genesis)?;
        Ok(config)
    }

    /// What ingest is started with.
    pub(crate) fn ingest(&self) -> Result<IngestConfig> {
        let mut config = IngestConfig::new(self.kafka());
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

    pub(crate) const fn p2p(self, index: u16) -> u16 {
        self.0 + 10 + 2 * index
    }

    pub(crate) const fn api(self, index: u16) -> u16 {
        self.0 + 11 + 2 * index
    }
}
