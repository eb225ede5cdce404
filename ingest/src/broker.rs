//! The embedded broker: a Kafka-compatible broker inside this process, for trying Cairn and for its tests.
//!
//! It is [tansu](https://tansu.io) over one SQLite file, `broker.db`, in the folder it is given. Real clusters run
//! Apache Kafka; nothing else of Cairn knows which of the two it talks to.
//!
//! **Durable over `kill -9`**: each produce request is one SQLite transaction in WAL mode, acknowledged after the
//! commit. SQLite syncs at checkpoints (`synchronous = normal`), so a power cut can lose the last acknowledged
//! requests, a killed process cannot.
//!
//! **The path.** tansu joins the storage URL's path to the working directory, after taking one leading `/` away.
//! `sqlite:////var/lib/x/broker.db` therefore leaves an absolute path, and joining an absolute path replaces the
//! working directory: no `chdir` is needed. A URL percent-encodes spaces and a few other characters and tansu does
//! not decode them, so `storage_url` falls back to the path relative to the working directory when only the part
//! above it holds such characters, and otherwise says so.
//!
//! **Threads.** SQLite blocks, so the broker has a small runtime of its own: it can never stall the validators or
//! queries that share the process.
//!
//! It does not: replicate, authenticate, delete by retention (topics made by [`crate::topics::ensure_topics`] set no
//! cleanup policy, which is what tansu deletes by). What tansu does not implement, such as DeleteRecords, ends it.

use std::fmt;
use std::io::ErrorKind as IoErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tansu_broker::broker::Broker;
use tansu_broker::coordinator::group::administrator::Controller;
use tansu_storage::StorageContainer;
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};
use tokio::task::JoinHandle;
use url::Url;
use uuid::Uuid;

use crate::error::{Error, Result};

/// The database file in the broker's folder.
const DATABASE: &str = "broker.db";
/// tansu keeps what it stores under a cluster's name, so this must stay the same for a folder's whole life.
const CLUSTER_ID: &str = "cairn";
const NODE_ID: i32 = 1;
const START_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A running embedded broker. [`stop`](EmbeddedBroker::stop) ends it; dropping it does too, without waiting.
pub struct EmbeddedBroker {
    runtime: Option<Runtime>,
    serving: JoinHandle<()>,
    address: SocketAddr,
    database: PathBuf,
}

impl fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedBroker")
            .field("address", &self.address)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

impl EmbeddedBroker {
    /// Starts the broker over the database in `dir` (made if missing) and returns once it accepts connections.
    ///
    /// `listen` is where it listens and what it tells clients to connect to; port 0 takes a free port, see
    /// [`address`](Self::address).
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input) when the port is in use or the folder cannot be made or named,
    /// [`Retry`](crate::ErrorKind::Retry) when it did not come up in ten seconds.
    pub async fn start(dir: &Path, listen: SocketAddr) -> Result<Self> {
        let dir = dir.to_path_buf();
        tokio::task::spawn_blocking(move || Self::start_blocking(&dir, listen))
            .await
            .map_err(|error| Error::bug("starting the embedded broker did not finish").because(error))?
    }

    fn start_blocking(dir: &Path, listen: SocketAddr) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|error| {
            Error::input(format!("the embedded broker cannot make its folder {}", dir.display())).because(error)
        })?;
        let storage = storage_url(dir)?;
        let address = free_address(listen)?;
        let runtime = RuntimeBuilder::new_multi_thread()
            .worker_threads(2)
            .thread_name("cairn-broker")
            .enable_all()
            .build()
            .map_err(|error| Error::retry("the embedded broker cannot start its threads").because(error))?;
        let serving = runtime.block_on(serve(storage, address, dir))?;
        let broker = Self { runtime: Some(runtime), serving, address, database: dir.join(DATABASE) };
        broker.wait_until_it_answers()?;
        tracing::info!(address = %broker.address, database = %broker.database.display(), "embedded broker started");
        Ok(broker)
    }

    fn wait_until_it_answers(&self) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        while TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_err() {
            if self.serving.is_finished() {
                return Err(port_in_use(self.address));
            }
            if Instant::now() > deadline {
                return Err(Error::retry(format!(
                    "the embedded broker did not answer on {} within {} s",
                    self.address,
                    START_PATIENCE.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as `bootstrap.servers` wants it.
    pub fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    /// Whether it still serves. It ends by itself only when its port or its database is taken away.
    pub fn is_running(&self) -> bool {
        !self.serving.is_finished()
    }

    /// Stops listening, closes all connections and the database.
    ///
    /// A request that is under way is cut; what was acknowledged is in the database.
    pub async fn stop(mut self) {
        self.serving.abort();
        if let Some(runtime) = self.runtime.take() {
            let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(STOP_PATIENCE)).await;
            if let Err(error) = ended {
                tracing::warn!(%error, "the embedded broker's threads did not end in order");
            }
        }
        tracing::info!(address = %self.address, "embedded broker stopped");
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        // A runtime must not be dropped where it would block an asynchronous caller.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(storage: Url, address: SocketAddr, dir: &Path) -> Result<JoinHandle<()>> {
    let listener = Url::parse(&format!("tcp://{address}"))
        .map_err(|error| Error::bug(format!("{address} does not make a URL")).because(error))?;
    let mut broker = Broker::<Controller<StorageContainer>, StorageContainer>::builder()
        .node_id(NODE_ID)
        .cluster_id(CLUSTER_ID)
        .incarnation_id(Uuid::new_v4())
        .listener(listener.clone())
        .advertised_listener(listener)
        .storage(storage)
        .silent(true)
        .build()
        .await
        .map_err(|error| {
            Error::input(format!("the embedded broker cannot open its database in {}: {error}", dir.display()))
        })?;
    Ok(tokio::spawn(async move {
        if let Err(error) = broker.serve(tokio::time::Instant::now()).await {
            tracing::error!(%error, "the embedded broker ended");
        }
    }))
}

/// Takes port 0 for a free one, and finds out now whether the port is taken: tansu itself would only log it.
fn free_address(listen: SocketAddr) -> Result<SocketAddr> {
    let probe = TcpListener::bind(listen).map_err(|error| match error.kind() {
        IoErrorKind::AddrInUse => port_in_use(listen),
        _ => Error::input(format!("the embedded broker cannot listen on {listen}")).because(error),
    })?;
    probe
        .local_addr()
        .map_err(|error| Error::input(format!("the embedded broker cannot listen on {listen}")).because(error))
}

fn port_in_use(address: SocketAddr) -> Error {
    Error::input(format!(
        "port {} on {} is in use, and the embedded broker needs it: end the process that has it, or set another \
         port for the broker (role: broker)",
        address.port(),
        address.ip()
    ))
}

/// The storage URL whose path tansu turns back into `dir/broker.db`.
fn storage_url(dir: &Path) -> Result<Url> {
    let absolute = std::path::absolute(dir)
        .map_err(|error| Error::input(format!("the folder {} has no absolute path", dir.display())).because(error))?;
    let relative =
        std::env::current_dir().ok().and_then(|here| absolute.strip_prefix(here).ok().map(Path::to_path_buf));
    // Four slashes: an empty host, then a path that is still absolute once tansu took one slash away.
    let candidates = [
        absolute.to_str().map(|path| (path.to_owned(), format!("sqlite:///{path}/{DATABASE}"))),
        relative
            .as_deref()
            .and_then(Path::to_str)
            .map(|path| (path.to_owned(), format!("sqlite:///{path}/{DATABASE}"))),
    ];
    for (path, text) in candidates.into_iter().flatten() {
        let Ok(url) = Url::parse(&text) else { continue };
        if url.path() == format!("/{path}/{DATABASE}") && url.query().is_none() && url.fragment().is_none() {
            return Ok(url);
        }
    }
    Err(Error::input(format!(
        "the embedded broker cannot use the folder {}: its path may hold no spaces, quotes, brackets \
         or letters outside ASCII; choose another folder, or start from inside it",
        dir.display()
    )))
}

#[cfg(test)]
#[path = "broker_tests.rs"]
mod tests;
