//! Starting and stopping a node: checks first, then a thread for consensus and a thread for HTTP.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        mpsc::{TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use cairn_proof::{
    genesis::Genesis,
    identity::{PublicKey, SigningKey},
};
use tokio::sync::{mpsc, watch};
use tracing::error;

use crate::{
    api,
    config::NodeConfig,
    error::NodeError,
    network,
    peers::Directory,
    shared::Shared,
    validator::{self, Handles, STACK_BYTES, Validator},
    witness,
};

/// How long a port or folder is tried for: a killed predecessor may still hold it.
const RETRY_FOR: Duration = Duration::from_secs(3);
/// Two digests in hexadecimal, and some.
const OWNER_BYTES_MAX: u64 = 256;
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// Starts nodes.
#[derive(Debug)]
pub struct Node;

/// A node that runs until it is stopped, dropped or fails.
#[derive(Debug)]
pub struct RunningNode {
    api_addr: SocketAddr,
    public_key: PublicKey,
    stop: watch::Sender<bool>,
    exits: mpsc::Receiver<Result<(), NodeError>>,
}

impl Node {
    /// Starts the node that holds `key`. It votes in the epochs whose committee holds the key, and follows in all
    /// others: the key of a future validator, or of an observer, may be in no committee for now or for ever. Returns once
    /// it has replayed its blocks, takes part in consensus and answers over HTTP; it blocks until then (from async code,
    /// call it in `spawn_blocking`).
    ///
    /// # Errors
    /// When the configuration or the genesis does not fit, a port or the data folder is taken, or the stored blocks
    /// do not replay. Nothing is left running then.
    pub fn start(config: NodeConfig, genesis: Genesis, key: &SigningKey) -> Result<RunningNode, NodeError> {
        config.validate(&genesis)?;
        let public_key = key.public();
        let directory = Directory::new(&config)?;
        let private_key = network::private_key(&key.seed())
            .ok_or_else(|| NodeError::Consensus { reason: "the key is not usable".into() })?;
        let tls = config.api.tls.as_ref().map(api::Tls::load).transpose()?;
        let lock = lock(&config.data_dir, &format!("{} {public_key}\n", genesis.tag().0))?;
        let reserved = listen("consensus (p2p)", "p2p_listen", config.p2p_listen)?;
        let api_listener = listen("HTTP API", "api_listen", config.api_listen)?;
        let api_addr = api_listener
            .local_addr()
            .map_err(|source| not_listening("HTTP API", "api_listen", config.api_listen, source))?;

        let (shared, outbox) = Shared::new(genesis, public_key, &config);
        let (stop, stopped) = watch::channel(false);
        let (exit, exits) = mpsc::channel(2);
        let (ready, started) = sync_channel(1);
        let validator = Validator {
            config: config.clone(),
            key: private_key,
            directory,
            shared: Arc::clone(&shared),
            outbox,
            reserved,
            stop: stopped.clone(),
        };
        let consensus_exit = exit.clone();
        spawn("consensus", move || {
            let result = validator::run(validator, ready.clone());
            drop(lock);
            // Whoever started the node still waits for it, or waits for its end: one of the two takes the result.
            if let Err(TrySendError::Disconnected(result)) = ready.try_send(result.map(|()| None)) {
                // The channel holds one message of each thread.
                let _ = consensus_exit.try_send(result.map(|_| ()));
            }
        })?;
        let handles = match started.recv() {
            Ok(Ok(Some(handles))) => handles,
            Ok(Err(error)) => return Err(error),
            Ok(Ok(None)) | Err(_) => {
                return Err(NodeError::Consensus { reason: "it ended before it was ready".into() });
            }
        };
        drop(started);
        witness::spawn_if_any(&config, &shared, &stopped)?;
        let serving = spawn("http api", move || {
            let Handles { marshal, scrape } = handles;
            let service = api::Service { config: config.api, tls, shared, marshal, scrape };
            let result = api::run(api_listener, service, stopped);
            let _ = exit.try_send(result);
        });
        let node = RunningNode { api_addr, public_key, stop, exits };
        // Dropping the node stops consensus.
        serving.map(|()| node)
    }
}

impl RunningNode {
    /// Where the HTTP API listens.
    #[must_use]
    pub const fn api_addr(&self) -> SocketAddr {
        self.api_addr
    }

    /// The node's public key.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Tells the validator to stop; [`Self::wait`] returns when it has.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Something that can stop the validator from elsewhere, such as a signal handler.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + 'static + use<> {
        let stop = self.stop.clone();
        move || {
            stop.send_replace(true);
        }
    }

    /// Waits until the validator has ended, in any runtime.
    ///
    /// # Errors
    /// When it was not stopped but failed: the process should end then.
    pub async fn wait(&mut self) -> Result<(), NodeError> {
        let mut first = Ok(());
        while let Some(result) = self.exits.recv().await {
            // Whichever part ends first takes the other with it.
            self.stop();
            if let Err(failure) = result {
                error!(%failure, "validator failed");
                if first.is_ok() {
                    first = Err(failure);
                }
            }
        }
        first
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(what: &'static str, run: impl FnOnce() + Send + 'static) -> Result<(), NodeError> {
    let builder = thread::Builder::new().name(format!("cairn {what}")).stack_size(STACK_BYTES);
    builder.spawn(run).map(|_| ()).map_err(|source| NodeError::Thread { what, source })
}

/// Tries until it works or [`RETRY_FOR`] is over.
fn retry<T, F>(mut attempt: impl FnMut() -> Result<T, F>) -> Result<T, F> {
    let started = Instant::now();
    loop {
        match attempt() {
            Err(_) if started.elapsed() < RETRY_FOR => thread::sleep(RETRY_EVERY),
            result => return result,
        }
    }
}

fn not_listening(role: &'static str, key: &'static str, address: SocketAddr, source: io::Error) -> NodeError {
    let port = address.port();
    let hint = match source.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another process holds port {port}: stop it, or set `{key}` to a free port")
        }
        _ => format!("set `{key}` to an address of this machine and a port that this user may use"),
    };
    NodeError::Listen { role, address, source, hint }
}

fn listen(role: &'static str, key: &'static str, address: SocketAddr) -> Result<TcpListener, NodeError> {
    retry(|| TcpListener::bind(address)).map_err(|source| not_listening(role, key, address, source))
}

/// Takes the data folder for this process alone, and for one chain and key for ever: `owner` is written into it.
///
/// A validator that votes with one key from two folders, or finds another's voting history in its own, would vote
/// twice without knowing.
fn lock(data_dir: &Path, owner: &str) -> Result<File, NodeError> {
    let failed = |reason: String| NodeError::DataDir { path: data_dir.to_owned(), reason };
    fs::create_dir_all(data_dir).map_err(|error| failed(format!("cannot be created: {error}")))?;
    let path = data_dir.join("owner");
    let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = file.map_err(|error| failed(format!("cannot be written to: {error}")))?;
    retry(|| file.try_lock()).map_err(|error| match error {
        TryLockError::WouldBlock => failed("another validator process uses it: stop that one first".into()),
        TryLockError::Error(error) => failed(format!("cannot be locked: {error}")),
    })?;
    let unusable = |error: io::Error| failed(format!("{} cannot be used: {error}", path.display()));
    let mut found = String::new();
    (&file).take(OWNER_BYTES_MAX).read_to_string(&mut found).map_err(unusable)?;
    if found.is_empty() {
        file.write_all(owner.as_bytes()).and_then(|()| file.sync_all()).map_err(unusable)?;
    } else if found != owner {
        let (found, owner) = (found.trim(), owner.trim());
        return Err(failed(format!(
            "belongs to (chain, key) {found}, not to {owner}: give each validator its own folder"
        )));
    }
    Ok(file)
}
