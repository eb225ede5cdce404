//! `cairn init --join`: the folder of a node that joins a network: a validator to be, or an observer.
//!
//! It starts from the genesis alone and checks everything itself. The validators let it connect once its key stands in
//! their `[[observers]]`, or once they voted for it; it votes in the epochs whose committee holds its key.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use cairn_proof::address::{ADDRESS_RULE, is_address};
use cairn_proof::genesis::Genesis;
use cairn_proof::identity::SigningKey;
use cairn_proof::statement::Change;

use crate::config::ValidatorSection;
use crate::home::{read_genesis, write_new};
use crate::init::{InitArgs, config, make_folders, new_key, unused, write_config};

/// What a node that joins is told.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct JoinArgs {
    /// Join the network of this genesis, from a source that you trust, instead of making a new one.
    #[arg(
        long,
        value_name = "GENESIS",
        requires = "name",
        requires = "listen",
        conflicts_with_all = ["validators", "chain_id", "validator_host", "heartbeat_ms", "epoch_blocks", "absence_epochs"]
    )]
    pub(crate) join: Option<PathBuf>,
    /// The node's name, and that of its key file.
    #[arg(long, requires = "join")]
    pub(crate) name: Option<String>,
    /// Where it listens for the other nodes.
    #[arg(long, value_name = "IP:PORT", requires = "join")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the other nodes reach it; what it listens on, if left out.
    #[arg(long, value_name = "HOST:PORT", requires = "join")]
    pub(crate) address: Option<String>,
    /// Where its HTTP API listens; the next port on loopback, if left out.
    #[arg(long, value_name = "IP:PORT", requires = "join")]
    pub(crate) api_listen: Option<SocketAddr>,
}

/// Makes the folder and tells what the validators have to do.
pub(crate) fn join(args: &InitArgs, file: &Path) -> Result<()> {
    let genesis = read_genesis(file)?;
    let name = args.join.name.clone().context("--name is missing")?;
    let listen = args.join.listen.context("--listen is missing")?;
    let address = args.join.address.clone().unwrap_or_else(|| listen.to_string());
    let home = unused(args)?;
    home.named_key_file(&name).context("--name")?;
    ensure!(is_address(&address), "--address {address:?}: expected {ADDRESS_RULE}");
    if listen.ip().is_unspecified() && args.join.address.is_none() {
        bail!("--listen {listen} is every address of this machine: say with --address where the others reach it");
    }
    let api_listen = match args.join.api_listen {
        Some(address) => address,
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, next_port(listen)?)),
    };
    make_folders(&home)?;
    let key = new_key(&home, &name)?;
    let node = ValidatorSection {
        name: name.clone(),
        public_key: key.public(),
        p2p_listen: listen,
        api: format!("http://{api_listen}"),
        api_listen,
    };
    let mut config = config(args, &genesis.chain_id, vec![node]);
    // The network's broker is somewhere else, if this folder needs one at all.
    config.kafka.embedded = false;
    let json = serde_json::to_vec_pretty(&genesis).context("the genesis cannot be written as JSON")?;
    write_new(&home.genesis_file(), &json, 0o644)?;
    write_config(&home, &config)?;
    for line in next_steps(&args.dir, &genesis, &key, &name, &address) {
        crate::say!("{line}")?;
    }
    Ok(())
}

fn next_port(listen: SocketAddr) -> Result<u16> {
    listen.port().checked_add(1).context("--listen has the last port: say with --api-listen where the HTTP API listens")
}

/// What the validators' operators do, and then this one. Nothing in it is secret.
fn next_steps(dir: &Path, genesis: &Genesis, key: &SigningKey, name: &str, address: &str) -> Vec<String> {
    let public = key.public();
    let mut lines = vec![
        format!("a node of chain {} is set up in {}", genesis.chain_id, dir.display()),
        String::new(),
        "To let it follow, the validators add this to their cairn.toml and restart one after the other:".to_owned(),
        "  [[observers]]".to_owned(),
        format!("  public_key = \"{public}\""),
        format!("  address = \"{address}\""),
        String::new(),
    ];
    if let Change::AddValidator { possession, .. } = Change::add(key, name.into(), address.into(), &genesis.tag()) {
        lines.push("To make it a validator, more than two thirds of them run:".to_owned());
        let possession = hex::encode(possession);
        lines.push(format!(
            "  cairn vote add-validator --public-key {public} --name {name} --address {address} --possession {possession}"
        ));
        lines.push(String::new());
    }
    lines.push(format!("start it with: cairn node --dir {}", dir.display()));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;
    use crate::init::init;

    #[test]
    fn a_node_that_joins_has_its_key_and_the_genesis_and_tells_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let network = init(&InitArgs::local(folder.path().join("net"), 30_000)).unwrap();
        let args = InitArgs {
            join: JoinArgs {
                join: Some(network.genesis_file()),
                name: Some("harbour".into()),
                listen: Some("127.0.0.1:40000".parse().unwrap()),
                ..JoinArgs::default()
            },
            ..InitArgs::local(folder.path().join("harbour"), 31_000)
        };
        crate::init::run(&args).unwrap();
        let home = Home::open(&args.dir).unwrap();
        let (config, genesis) = (home.config().unwrap(), home.genesis().unwrap());
        assert_eq!(genesis.tag(), network.genesis().unwrap().tag());
        assert_eq!(config.node_index(&home, None, None).unwrap(), 0, "it is the only one");
        assert_eq!(config.validators[0].api, "http://127.0.0.1:40001");
        let node = config.node(&home, &genesis, 0).unwrap();
        assert!(node.data_dir.ends_with("data/harbour"));
        let key = home.signing_key("harbour").unwrap();
        let said = next_steps(&args.dir, &genesis, &key, "harbour", "127.0.0.1:40000").join("\n");
        assert!(said.contains(&key.public().to_string()) && said.contains("cairn vote add-validator"), "{said}");
        assert!(!said.contains(&hex::encode(key.seed())), "{said}");
    }

    #[test]
    fn an_address_that_nobody_can_dial_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let network = init(&InitArgs::local(folder.path().join("net"), 30_000)).unwrap();
        let args = InitArgs {
            join: JoinArgs {
                join: Some(network.genesis_file()),
                name: Some("harbour".into()),
                listen: Some("0.0.0.0:40000".parse().unwrap()),
                ..JoinArgs::default()
            },
            ..InitArgs::local(folder.path().join("harbour"), 31_000)
        };
        let error = crate::init::run(&args).unwrap_err().to_string();
        assert!(error.contains("--address"), "{error}");
        assert!(!args.dir.exists());
    }
}
