//! `cairn init`: keys, genesis, configuration and the built-in streams of a new network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use cairn_proof::genesis::{GENESIS_MARK, Genesis, GenesisIdentity, GenesisValidator};
use cairn_proof::identity::{IdentityKind, SigningKey};
use cairn_proof::parameters::Parameters;
use cairn_query::{FlightConfig, QueryConfig, WithoutPassword};

use crate::config::{
    ChainSection, Config, IngestSection, KafkaSection, NodeSection, Ports, QuerySection, StoreSection, ValidatorSection,
};
use crate::home::{Home, make_dir, random_seed, write_new};
use crate::join::JoinArgs;
use crate::stream_file::BUILT_IN;

/// Make a new network, or with --join a node of one that exists: keys (mode 0600), genesis.json, cairn.toml.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn init --dir city\n  cairn init --dir city --validators 7 --chain-id metropolis --base-port 30000\n  cairn init --join genesis.json --dir harbour --name harbour --listen 10.0.0.7:26610"
)]
pub(crate) struct InitArgs {
    /// Folder of the network; made if missing, and must not hold one yet.
    #[arg(long, default_value = "cairn-data")]
    pub(crate) dir: PathBuf,
    /// How many validators: 4 tolerate one that fails or lies, 7 two.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) validators: u16,
    /// The chain's name: 1 to 64 of a–z, 0–9, '.' and '-'.
    #[arg(long, default_value = "city")]
    pub(crate) chain_id: String,
    /// First of the ports; a network of N validators takes 10 + 2 N.
    #[arg(long, default_value_t = 26600)]
    pub(crate) base_port: u16,
    /// Use this Kafka instead of the embedded broker: host:port, comma-separated.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) kafka: Option<String>,
    /// Address that every role listens on. Anything but loopback is for containers and private networks.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub(crate) listen_host: IpAddr,
    /// Who needs no password for SQL: nobody, those on this machine, or anybody; the others log in (`cairn login`).
    #[arg(long, value_enum, default_value_t = NoPassword::Loopback)]
    pub(crate) sql_without_password: NoPassword,
    /// Host by which validators are reached, `{}` standing for the index, such as `validator-{}`.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) validator_host: Option<String>,
    /// An idle chain makes a block this often; validators may change it by vote.
    #[arg(long, default_value_t = Parameters::default().heartbeat_ms)]
    pub(crate) heartbeat_ms: u64,
    /// Blocks of an epoch: changes of the committee take effect at its end. Fixed for ever.
    #[arg(long, default_value_t = Parameters::default().epoch_blocks)]
    pub(crate) epoch_blocks: u64,
    /// Epochs without a sign of a validator after which it is suspended; 0: never. Validators may change it by vote.
    #[arg(long, default_value_t = Parameters::default().absence_epochs)]
    pub(crate) absence_epochs: u32,
    #[command(flatten)]
    pub(crate) join: JoinArgs,
}

/// Who needs no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum NoPassword {
    None,
    Loopback,
    Any,
}

impl From<NoPassword> for WithoutPassword {
    fn from(who: NoPassword) -> Self {
        match who {
            NoPassword::None => Self::None,
            NoPassword::Loopback => Self::Loopback,
            NoPassword::Any => Self::Any,
        }
    }
}

impl InitArgs {
    /// A network with the defaults in `dir`, at `base_port`.
    pub(crate) fn local(dir: PathBuf, base_port: u16) -> Self {
        Self {
            dir,
            validators: 4,
            chain_id: "city".into(),
            base_port,
            kafka: None,
            listen_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            sql_without_password: NoPassword::Loopback,
            validator_host: None,
            heartbeat_ms: Parameters::default().heartbeat_ms,
            epoch_blocks: Parameters::default().epoch_blocks,
            absence_epochs: Parameters::default().absence_epochs,
            join: JoinArgs::default(),
        }
    }

    /// Where the other validators reach the one with this index.
    fn p2p_address(&self, index: u16) -> String {
        format!("{}:{}", self.host_of(index), Ports(self.base_port).p2p(index))
    }

    fn parameters(&self) -> Parameters {
        let (heartbeat_ms, epoch_blocks, absence_epochs) = (self.heartbeat_ms, self.epoch_blocks, self.absence_epochs);
        Parameters { heartbeat_ms, epoch_blocks, absence_epochs, ..Parameters::default() }
    }

    fn section(&self, index: u16, key: &SigningKey) -> ValidatorSection {
        let ports = Ports(self.base_port);
        ValidatorSection {
            name: format!("validator-{index}"),
            public_key: key.public(),
            p2p_listen: SocketAddr::new(self.listen_host, ports.p2p(index)),
            api: format!("http://{}:{}", self.host_of(index), ports.api(index)),
            api_listen: SocketAddr::new(self.listen_host, ports.api(index)),
        }
    }

    fn host_of(&self, index: u16) -> String {
        match &self.validator_host {
            Some(pattern) => pattern.replace("{}", &index.to_string()),
            None => match self.listen_host {
                IpAddr::V4(host) => host.to_string(),
                IpAddr::V6(host) => format!("[{host}]"),
            },
        }
    }
}

/// Makes the network, or the folder of a node that joins one, and tells what to do next.
pub(crate) fn run(args: &InitArgs) -> Result<()> {
    if let Some(genesis) = &args.join.join {
        return crate::join::join(args, genesis);
    }
    let home = init(args)?;
    crate::say!("a network of {} validators is set up in {}", args.validators, home.path().display())?;
    crate::say!("start it with: cairn up --dir {}", args.dir.display())
}

/// Makes the network and returns its folder.
pub(crate) fn init(args: &InitArgs) -> Result<Home> {
    let home = unused(args)?;
    let last_port = u32::from(args.base_port) + u32::from(Ports::count(args.validators));
    if args.base_port < 1024 || last_port > 65_535 {
        let most = 65_535 - Ports::count(args.validators);
        bail!("--base-port {}: expected 1024 to {most} for {} validators", args.base_port, args.validators);
    }
    args.parameters().check()?;
    make_folders(&home)?;
    let validators =
        (0..args.validators).map(|index| new_key(&home, &format!("validator-{index}"))).collect::<Result<Vec<_>>>()?;
    let owner = new_key(&home, "owner")?;
    let ingest = new_key(&home, "ingest")?;
    let query = new_key(&home, "query")?;
    home.write_secret("secrets", &random_seed()?)?;
    let genesis = genesis(args, &validators, &[("owner", &owner), ("ingest", &ingest), ("query", &query)])?;
    let json = serde_json::to_vec_pretty(&genesis).context("the genesis cannot be written as JSON")?;
    write_new(&home.genesis_file(), &json, 0o644)?;
    for stream in &BUILT_IN {
        write_new(&home.streams_dir().join(format!("{}.toml", stream.name)), stream.definition.as_bytes(), 0o644)?;
        write_new(&home.streams_dir().join(stream.schema_file), stream.schema.as_bytes(), 0o644)?;
    }
    let sections = (0u16..).zip(&validators).map(|(index, key)| args.section(index, key)).collect();
    write_config(&home, &config(args, &args.chain_id, sections))?;
    Ok(home)
}

/// The folder, which must not hold a network.
pub(crate) fn unused(args: &InitArgs) -> Result<Home> {
    let home = Home::at(&args.dir)?;
    if home.config_file().exists() || home.genesis_file().exists() {
        bail!("{} holds a network already; choose another --dir (keys are never overwritten)", home.path().display());
    }
    Ok(home)
}

/// The folders within the folder.
pub(crate) fn make_folders(home: &Home) -> Result<()> {
    make_dir(&home.path().join("keys"), 0o700)?;
    make_dir(&home.path().join("data"), 0o700)?;
    make_dir(&home.logs_dir(), 0o755)?;
    make_dir(&home.streams_dir(), 0o755)
}

/// Writes cairn.toml: last, because it marks the folder as complete.
pub(crate) fn write_config(home: &Home, config: &Config) -> Result<()> {
    let text = toml::to_string_pretty(config).context("the configuration cannot be written as TOML")?;
    write_new(&home.config_file(), format!("{HEADER}{text}").as_bytes(), 0o644)
}

/// Opens every cairn.toml.
const HEADER: &str = "# Configuration of a Cairn network. Every key is described in docs/operations.md.\n# No secret belongs here: keys lie in keys/, each in a file of mode 0600.\n\n";

/// Makes a key file and returns the key.
pub(crate) fn new_key(home: &Home, name: &str) -> Result<SigningKey> {
    let seed = random_seed()?;
    home.write_secret(name, &seed)?;
    Ok(SigningKey::from_seed(&seed))
}

/// The genesis: the owner is an organisation, ingest and query are nodes.
fn genesis(args: &InitArgs, validators: &[SigningKey], identities: &[(&str, &SigningKey)]) -> Result<Genesis> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the system's clock is before 1970")?;
    let identity = |(name, key): &(&str, &SigningKey)| GenesisIdentity {
        name: (*name).to_owned(),
        kind: if *name == "owner" { IdentityKind::Organisation } else { IdentityKind::Node },
        public_key: key.public(),
    };
    let genesis = Genesis {
        format: GENESIS_MARK.into(),
        chain_id: args.chain_id.clone(),
        timestamp_ms: u64::try_from(now.as_millis())?,
        validators: (0u16..)
            .zip(validators)
            .map(|(index, key)| GenesisValidator {
                name: format!("validator-{index}"),
                public_key: key.public(),
                address: args.p2p_address(index),
            })
            .collect(),
        identities: identities.iter().map(identity).collect(),
        parameters: args.parameters(),
    };
    genesis.check()?;
    Ok(genesis)
}

/// A configuration with these nodes.
pub(crate) fn config(args: &InitArgs, chain_id: &str, nodes: Vec<ValidatorSection>) -> Config {
    let ports = Ports(args.base_port);
    let listen = |port| SocketAddr::new(args.listen_host, port);
    Config {
        chain_id: chain_id.to_owned(),
        kafka: KafkaSection {
            brokers: args.kafka.clone().unwrap_or_else(|| listen(ports.broker()).to_string()),
            embedded: args.kafka.is_none(),
            settings: std::collections::BTreeMap::new(),
            settings_file: None,
            effective: cairn_ingest::KafkaConfig::default(),
        },
        store: StoreSection::default(),
        ingest: IngestSection {
            metrics: listen(ports.ingest_metrics()),
            memory_mib_max: None,
            fetch_mib_max: None,
            registry: None,
            dead_letter: None,
        },
        query: QuerySection {
            metrics: listen(ports.query_metrics()),
            receipts: args.join.join.is_none(),
            postgres: QueryConfig {
                host: args.listen_host,
                port: ports.postgres(),
                allow_remote_clients: !args.listen_host.is_loopback(),
                without_password: args.sql_without_password.into(),
                ..QueryConfig::default()
            },
            flight: Some(FlightConfig::new(listen(ports.flight()))),
            openlineage: None,
        },
        chain: ChainSection::default(),
        node: NodeSection::default(),
        validators: nodes,
        peers: vec![],
        observers: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_new_network_reads_back_and_its_keys_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let args = InitArgs::local(folder.path().join("net"), 30_000);
        let home = init(&args).unwrap();
        let (config, genesis) = (home.config().unwrap(), home.genesis().unwrap());
        assert_eq!(config.validators.len(), 4);
        assert_eq!(genesis.chain_id, config.chain_id);
        for index in 0..4 {
            let node = config.node(&home, &genesis, index).unwrap();
            assert!(node.data_dir.ends_with(format!("data/validator-{index}")));
            let key = home.signing_key(&format!("validator-{index}")).unwrap();
            assert_eq!(key.public(), config.validators[index].public_key);
        }
        let node = home.signing_key("query").unwrap().public();
        let named = genesis.identities.iter().find(|identity| identity.public_key == node).unwrap();
        assert_eq!((named.name.as_str(), named.kind), ("query", IdentityKind::Node));
        for entry in std::fs::read_dir(home.path().join("keys")).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600);
        }
        let again = init(&args).unwrap_err().to_string();
        assert!(again.contains("holds a network already"), "{again}");
    }

    #[test]
    fn parameters_that_are_out_of_range_are_named_before_anything_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let args = InitArgs { heartbeat_ms: 1, ..InitArgs::local(folder.path().join("net"), 30_000) };
        let error = init(&args).unwrap_err().to_string();
        assert!(error.contains("heartbeat_ms") && error.contains("50 to 60000"), "{error}");
        assert!(!folder.path().join("net").exists());
    }

    #[test]
    fn ports_that_do_not_fit_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = init(&InitArgs::local(folder.path().join("net"), 65_530)).unwrap_err().to_string();
        assert!(error.contains("--base-port 65530"), "{error}");
    }
}
