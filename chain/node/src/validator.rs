//! The consensus thread: commonware's runtime owns a thread of its own, apart from SQL, HTTP and the caller's runtime.
//!
//! Panics are policy there (storage fails, a finalized block does not apply): they are caught at the thread's end and
//! told to whoever waits for the node, who ends the process.

use std::{
    any::Any,
    net::TcpListener,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc::SyncSender},
    time::Duration,
};

use cairn_proof::certificate::consensus_namespace;
use commonware_cryptography::ed25519::PrivateKey;
use commonware_runtime::{
    Metrics as _, Runner as _, Spawner as _, Supervisor as _,
    tokio::{Config, Context, Runner},
};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    application::Proposer,
    clock,
    config::NodeConfig,
    engine::{self, Marshal, Setup},
    error::NodeError,
    gossip::Outbox,
    network::{self, Peers},
    peers::Directory,
    shared::Shared,
    voting::Voting,
};

/// Debug builds of the consensus library overflow the default stack.
pub(crate) const STACK_BYTES: usize = 64 << 20;

/// Prefix of every storage partition. Part of the on-disk layout.
const PARTITION: &str = "cairn";

/// How long the parts may take to end after they are told to.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Everything that the thread starts from.
pub(crate) struct Validator {
    pub(crate) config: NodeConfig,
    pub(crate) key: PrivateKey,
    /// Who may connect beside the validators on chain.
    pub(crate) directory: Directory,
    pub(crate) shared: Arc<Shared>,
    pub(crate) outbox: Outbox,
    /// Holds the port until the network takes it over.
    pub(crate) reserved: TcpListener,
    pub(crate) stop: watch::Receiver<bool>,
}

/// What the HTTP API needs of a running validator.
pub(crate) struct Handles {
    pub(crate) marshal: Marshal,
    /// The library's metrics as OpenMetrics text.
    pub(crate) scrape: Box<dyn Fn() -> String + Send + Sync>,
}

/// What the thread tells at first: handles once it runs, an error if it never did, nothing if it was stopped before.
pub(crate) type Started = Result<Option<Handles>, NodeError>;

/// Runs a validator until it is stopped or fails. Tells `ready` once it takes part in consensus.
pub(crate) fn run(validator: Validator, ready: SyncSender<Started>) -> Result<(), NodeError> {
    let config = Config::new()
        .with_storage_directory(validator.config.data_dir.join("storage"))
        .with_thread_stack_size(STACK_BYTES)
        .with_worker_threads(2);
    let running =
        AssertUnwindSafe(|| Runner::new(config).start(|context| Box::pin(validate(context, validator, ready))));
    catch_unwind(running).unwrap_or_else(|panic| Err(NodeError::Consensus { reason: panic_text(&*panic) }))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
}

async fn validate(context: Context, validator: Validator, ready: SyncSender<Started>) -> Result<(), NodeError> {
    let Validator { config, key, directory, shared, outbox, reserved, mut stop } = validator;
    let namespace = consensus_namespace(&shared.tag);
    let voting = Voting::open(&config.data_dir, clock::milliseconds(&context))?;
    let opened = engine::open(&context, PARTITION, &shared).await?;
    drop(reserved);
    let peers = Peers {
        key: key.clone(),
        namespace: [namespace.as_slice(), b"_P2P"].concat(),
        listen: config.p2p_listen,
        peers_max: directory.peers_max(),
        max_message_size: engine::max_message_size(),
    };
    let (oracle, channels) = network::open(&context, &peers, engine::CHANNELS);
    let setup = Setup {
        partition: PARTITION,
        key,
        namespace,
        application: Proposer::new(Arc::clone(&shared), &config),
        shared,
        outbox,
        directory,
        voting,
    };
    let engine = engine::start(&context, opened, setup, oracle.clone(), oracle, channels).await?;
    let metrics = context.child("scrape");
    let handles = Handles { marshal: engine.marshal, scrape: Box::new(move || metrics.encode()) };
    // Who waits may have given up; then the stop signal follows.
    let _ = ready.try_send(Ok(Some(handles)));
    info!(listen = %config.p2p_listen, "node runs");

    tokio::select! {
        ended = engine.consensus => {
            Err(ended.unwrap_or_else(|error| NodeError::Consensus { reason: error.to_string() }))
        }
        // The sender lives as long as the node; its end is a stop as well.
        _ = stop.wait_for(|stop| *stop) => {
            if context.child("stop").stop(0, Some(STOP_WITHIN)).await.is_err() {
                warn!("some parts of the validator did not end within {} s", STOP_WITHIN.as_secs());
            }
            info!("validator stopped");
            Ok(())
        }
    }
}
