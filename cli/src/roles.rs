//! One role in this process: a validator, ingest, or query. `cairn up` runs each as a child of its own.
//!
//! A role prints one line that starts with "ready" once it serves, logs to standard error, and ends on SIGTERM,
//! Ctrl-C, or, as a child of `cairn up`, when its parent is gone (its standard input closes).

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cairn_anchor::pipeline::Anchorer;
use cairn_anchor::roots::Roots;
use cairn_anchor::secrets::SecretStore;
use cairn_anchor::store::SegmentStore;
use cairn_chain_client::{Follower, FollowerConfig};
use cairn_chain_node::Node;
use cairn_ingest::Ingest;
use cairn_proof::identity::SigningKey;
use cairn_query::{Equipment, FlightSql, OpenLineage, QueryService, TlsFiles};
use prometheus::Registry;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::chain::Chain;
use crate::config::Config;
use crate::home::Home;
use crate::{metrics, streams};

/// How long a role waits for the chain when it starts.
pub(crate) const CHAIN_PATIENCE: Duration = Duration::from_secs(60);
/// How long a role waits for a predecessor that is on its way out.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);
/// How long events about queries may take to leave when the role ends.
const LINEAGE_PATIENCE: Duration = Duration::from_secs(3);

/// One role in a process of its own.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RoleArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    pub(crate) dir: PathBuf,
    /// End when standard input closes.
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
}

/// One node in a process of its own.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  cairn node --dir city --index 2\n  cairn node --dir harbour")]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    pub(crate) role: RoleArgs,
    /// Which node, counted from 0 as in cairn.toml; the only one whose key lies in the folder, if left out.
    #[arg(long)]
    pub(crate) index: Option<usize>,
    /// Which node, by its name in cairn.toml.
    #[arg(long, conflicts_with = "index")]
    pub(crate) name: Option<String>,
}

/// Runs a node until it is told to stop. It votes in the epochs whose committee holds its key, and follows in all others.
pub(crate) async fn node(args: &NodeArgs) -> Result<()> {
    let home = Home::open(&args.role.dir)?;
    let (config, genesis) = (home.config()?, home.genesis()?);
    let index = config.node_index(&home, args.index, args.name.as_deref())?;
    let node_config = config.node(&home, &genesis, index)?;
    let section = &config.validators[index];
    let name = section.name.clone();
    let key = home.signing_key(&name)?;
    if key.public() != section.public_key {
        let file = home.key_file(&name);
        bail!("{} is not the key of {name} in cairn.toml: expected {}", file.display(), section.public_key);
    }
    let p2p = node_config.p2p_listen;
    let starting = tokio::task::spawn_blocking(move || Node::start(node_config, genesis, &key));
    let mut running = starting.await.context("starting the node")??;
    ready(&format!("{name} p2p {p2p} api http://{}", running.api_addr()))?;
    let stopper = running.stopper();
    let mut ended = tokio::spawn(async move { running.wait().await });
    tokio::select! {
        ended = &mut ended => return Ok(ended.context("the node's task")??),
        () = stop_signal(args.role.with_parent) => stopper(),
    }
    // A clean stop writes what is open; one that hangs must not keep the process.
    match tokio::time::timeout(Duration::from_secs(8), ended).await {
        Ok(ended) => Ok(ended.context("the node's task")??),
        Err(_) => bail!("{name} did not stop within 8 s"),
    }
}

/// Follows the chain to where it is now.
pub(crate) async fn follow(home: &Home, config: &Config, patience: Duration) -> Result<Follower> {
    let genesis = Arc::new(home.genesis()?);
    if genesis.chain_id != config.chain_id {
        bail!(
            "cairn.toml is of chain {:?}, genesis.json of {:?}: they belong to different networks",
            config.chain_id,
            genesis.chain_id
        );
    }
    let follower = Follower::spawn(FollowerConfig { genesis, client: config.client(home)? });
    follower.catch_up(patience).await.context("following the chain")?;
    Ok(follower)
}

/// The store of the segments.
pub(crate) fn segment_store(home: &Home, config: &Config) -> Result<SegmentStore> {
    Ok(config.store.open_objects(home.path())?.of_chain(home.genesis()?.tag()))
}

/// The folder of the batch secrets.
pub(crate) fn secret_store(home: &Home, config: &Config) -> Result<SecretStore> {
    Ok(SecretStore::open(&home.path().join(&config.store.secrets), &home.secret("secrets")?)?)
}

/// Runs ingest until it is told to stop.
pub(crate) async fn ingest(args: &RoleArgs) -> Result<()> {
    let home = Home::open(&args.dir)?;
    let config = home.config()?;
    let _lock = lock(&home, "ingest").await?;
    let settings = config.ingest(&home)?;
    let registry = Registry::new();
    let metrics = metrics::serve(config.ingest.metrics, "ingest metrics", "[ingest] metrics", registry.clone()).await?;
    let follower = follow(&home, &config, CHAIN_PATIENCE).await?;
    streams::register_folder(&home, &config, &follower).await?;
    let chain = Chain { home, config, follower };
    let submitter = chain.submitter("ingest")?;
    let Chain { home, config, follower } = chain;
    let identity = submitter.identity();
    let anchorer = Anchorer::new(
        submitter,
        follower.clone(),
        segment_store(&home, &config)?,
        secret_store(&home, &config)?,
        cairn_anchor::metrics::Metrics::register(&registry)?,
    );
    let counters = cairn_ingest::metrics::Metrics::register(&registry)?;
    let running = Ingest::start(&settings, anchorer, identity, counters)?;
    ready(&format!("ingest kafka {} metrics http://{metrics}/metrics", config.kafka.brokers))?;
    tokio::select! {
        failure = running.wait() => return Err(failure.into()),
        () = stop_signal(args.with_parent) => {}
    }
    running.stop().await;
    Ok(())
}

/// Runs query until it is told to stop.
pub(crate) async fn query(args: &RoleArgs) -> Result<()> {
    let home = Home::open(&args.dir)?;
    let config = home.config()?;
    let registry = Registry::new();
    let metrics = metrics::serve(config.query.metrics, "query metrics", "[query] metrics", registry.clone()).await?;
    let follower = follow(&home, &config, CHAIN_PATIENCE).await?;
    let store = segment_store(&home, &config)?.verified(Arc::new(Roots::new()))?;
    let mut postgres = config.query.postgres.clone();
    if let Some(tls) = &mut postgres.tls {
        // Relative to the folder, as every path in the file.
        *tls = TlsFiles { certificate: home.path().join(&tls.certificate), key: home.path().join(&tls.key) };
    }
    let equipment = Equipment {
        follower: Some(follower.clone()),
        secrets: query_secrets(&home, &config)?,
        signer: query_key(&home)?,
        lineage: open_lineage(&home, &config, &registry)?,
    };
    let lineage = equipment.lineage.clone();
    let mut running = QueryService::start_equipped(postgres, follower, store, equipment, &registry).await?;
    let mut flight = match &config.query.flight {
        Some(flight) => Some(FlightSql::serve(running.engine().clone(), flight).await?),
        None => None,
    };
    let also = flight.as_ref().map(|flight| format!(" flight {}", flight.addr)).unwrap_or_default();
    ready(&format!("query postgres {}{also} metrics http://{metrics}/metrics", running.addr))?;
    let flight_ended = async {
        match &mut flight {
            Some(flight) => flight.wait().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = running.wait() => bail!("query ended by itself: see its log"),
        () = flight_ended => bail!("the Flight SQL port of query ended by itself: see its log"),
        () = stop_signal(args.with_parent) => {}
    }
    if let Some(flight) = flight {
        flight.stop().await;
    }
    running.stop().await;
    if let Some(lineage) = lineage {
        lineage.flush(LINEAGE_PATIENCE).await;
    }
    Ok(())
}

/// What sends events about queries, where the configuration says where to.
fn open_lineage(home: &Home, config: &Config, registry: &Registry) -> Result<Option<OpenLineage>> {
    let section = config.query.openlineage.as_ref();
    let started = section.map(|section| {
        let lineage = section.effective(home.path(), &config.chain_id)?;
        OpenLineage::start(lineage, registry).context("[query.openlineage]")
    });
    started.transpose()
}

/// The batch secrets for receipts, where the role may read them.
fn query_secrets(home: &Home, config: &Config) -> Result<Option<SecretStore>> {
    if !config.query.receipts {
        return Ok(None);
    }
    let secrets = secret_store(home, config);
    secrets
        .map(Some)
        .context("[query] receipts = true, but the batch secrets cannot be read; set it to false, or give them")
}

/// The key by which answers are signed. Networks that were made before there was one go on without.
fn query_key(home: &Home) -> Result<Option<Arc<SigningKey>>> {
    if !home.key_file("query").exists() {
        return Ok(None);
    }
    home.signing_key("query").map(|key| Some(Arc::new(key)))
}

/// Prints the line that tells that a role, or all of them, serve.
pub(crate) fn ready(what: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready {what}").and_then(|()| out.flush()).context("standard output")
}

/// Resolves when the process is told to stop.
pub(crate) async fn stop_signal(with_parent: bool) {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    let parent_gone = async {
        if !with_parent {
            std::future::pending::<()>().await;
        }
        let mut input = tokio::io::stdin();
        let mut byte = [0; 64];
        while matches!(input.read(&mut byte).await, Ok(read) if read > 0) {}
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
        () = parent_gone => {}
    }
}

/// Holds a role's lock while the process runs; waits for a predecessor that is on its way out.
pub(crate) async fn lock(home: &Home, role: &str) -> Result<File> {
    let path = home.lock_file(role);
    let file = File::create(&path).with_context(|| format!("the lock file {}", path.display()))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                bail!("{role} runs already on {}: stop it first, or use another --dir", home.path().display())
            }
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", path.display()));
            }
        }
    }
}
