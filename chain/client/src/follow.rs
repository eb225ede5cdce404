//! Follows the chain: fetches blocks, checks certificates against the genesis, executes, and extends the ledger.
//!
//! ```text
//! node ──blocks──▶ execute each on the state ──▶ certificate of the last certified one ──▶ ledger
//!                  (parents, roots, statements)    (quorum of the committee in the state before it)
//! ```
//!
//! A block without a certificate of its own is final through a certified descendant of the same epoch, so nothing enters
//! the ledger before one arrives; the last block of an epoch needs its own. The first committee is the genesis', every
//! other follows from the blocks before it. A node whose blocks do not verify is left for another one, and that is counted and logged.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use cairn_chain_state::transition::Executed;
use cairn_chain_state::{Prepared, State, StrictSignatures, execute_prepared};
use cairn_proof::block::SignedBlock;
use cairn_proof::certificate::Finalization;
use cairn_proof::genesis::Genesis;
use cairn_proof::header::Header;
use cairn_proof::{Height, epoch};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::ClientError;
use crate::http::{BLOCKS_PER_REQUEST, Client};
use crate::ledger::Ledger;
use crate::prepare::with_prepared;

/// One request for blocks waits that long for a new one.
const BLOCKS_WAIT: Duration = Duration::from_secs(5);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What to follow.
#[derive(Debug, Clone)]
pub struct FollowerConfig {
    /// The genesis that everything is checked against.
    pub genesis: Arc<Genesis>,
    /// The nodes to ask.
    pub client: Client,
}

/// How following goes.
#[derive(Debug, Clone, Default)]
pub struct FollowerStatus {
    /// The height that was followed to.
    pub height: Height,
    /// When the last block was taken in.
    pub last_block: Option<Instant>,
    /// The last failure, if the last attempt failed.
    pub error: Option<String>,
    /// How often a node gave blocks that do not verify.
    pub untrustworthy_total: u64,
}

/// A ledger that is kept up to date by a task. Clones share it; the task ends with the last clone.
#[derive(Debug, Clone)]
pub struct Follower {
    shared: Arc<Shared>,
    client: Client,
    height: watch::Receiver<Height>,
    _task: Arc<AbortOnDrop>,
}

#[derive(Debug)]
struct Shared {
    ledger: RwLock<Ledger>,
    status: Mutex<FollowerStatus>,
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Follower {
    /// Starts following from the genesis. Must be called within a tokio runtime.
    #[must_use]
    pub fn spawn(config: FollowerConfig) -> Self {
        let shared = Arc::new(Shared {
            ledger: RwLock::new(Ledger::new(config.genesis)),
            status: Mutex::new(FollowerStatus::default()),
        });
        let (sender, height) = watch::channel(Height(0));
        let task = tokio::spawn(follow(config.client.clone(), shared.clone(), sender));
        Self { shared, client: config.client, height, _task: Arc::new(AbortOnDrop(task)) }
    }

    /// The ledger, locked for reading. Hold it for short: the follower cannot extend it meanwhile.
    pub fn ledger(&self) -> RwLockReadGuard<'_, Ledger> {
        self.shared.ledger.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client that is followed through.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// How following goes.
    #[must_use]
    pub fn status(&self) -> FollowerStatus {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The height that was followed to.
    #[must_use]
    pub fn height(&self) -> Height {
        *self.height.borrow()
    }

    /// A receiver that tells each new height.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Height> {
        self.height.clone()
    }

    /// Waits until `height` was followed to.
    ///
    /// # Errors
    /// When that takes longer than `patience`.
    pub async fn wait_for_height(&self, height: Height, patience: Duration) -> Result<(), ClientError> {
        let mut receiver = self.height.clone();
        let reached = tokio::time::timeout(patience, receiver.wait_for(|reached| *reached >= height)).await;
        if matches!(reached, Ok(Ok(_))) {
            return Ok(());
        }
        let reason = self.status().error.unwrap_or_else(|| "no new block arrived".into());
        Err(ClientError::Timeout {
            what: format!("following the chain to height {height} (now at {})", self.height()),
            seconds: patience.as_secs(),
            hint: reason,
        })
    }

    /// Follows to the height that the nodes are at now: a start that is not behind.
    ///
    /// # Errors
    /// When no node answers, or it takes longer than `patience`.
    pub async fn catch_up(&self, patience: Duration) -> Result<Height, ClientError> {
        let deadline = tokio::time::Instant::now() + patience;
        let target = loop {
            match self.chain_height().await {
                Ok(height) => break height,
                Err(error) if tokio::time::Instant::now() >= deadline => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE_MIN).await,
            }
        };
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        self.wait_for_height(target, left).await?;
        Ok(target)
    }

    /// The greatest height that any node names. Not verified: only a target to follow to.
    async fn chain_height(&self) -> Result<Height, ClientError> {
        let mut best = Err(ClientError::Unreachable { tried: 0, last: "none was asked".into() });
        for node in self.client.nodes() {
            match self.client.status_of(node).await {
                Ok(status) => {
                    let height = Height(status["height"].as_u64().unwrap_or(0));
                    best = Ok(best.unwrap_or(Height(0)).max(height));
                }
                Err(error) if best.is_err() => best = Err(error),
                Err(_) => {}
            }
        }
        best
    }
}

async fn follow(client: Client, shared: Arc<Shared>, heights: watch::Sender<Height>) {
    let mut pause = PAUSE_MIN;
    loop {
        let advanced = advance(&client, &shared).await;
        note(&shared, &advanced);
        match advanced {
            Ok(Advance { height, .. }) if height > *heights.borrow() => {
                heights.send_replace(height);
                pause = PAUSE_MIN;
            }
            // Blocks that nothing certifies yet: the certified descendant is about to arrive.
            Ok(Advance { uncertified: true, .. }) => tokio::time::sleep(PAUSE_MIN).await,
            Ok(_) => {}
            Err(_) => {
                client.rotate();
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Keeps the status, and logs what an operator has to know.
fn note(shared: &Shared, advanced: &Result<Advance, ClientError>) {
    let mut status = shared.status.lock().unwrap_or_else(PoisonError::into_inner);
    match advanced {
        Ok(Advance { height, .. }) => {
            if *height > status.height {
                status.last_block = Some(Instant::now());
            }
            status.height = *height;
            status.error = None;
        }
        Err(error) => {
            if matches!(error, ClientError::Untrustworthy { .. }) {
                status.untrustworthy_total += 1;
                tracing::error!(%error, "a node gave blocks that do not verify; asking another one");
            } else {
                tracing::debug!(%error, "following paused");
            }
            status.error = Some(error.to_string());
        }
    }
}

/// What one request brought.
struct Advance {
    /// The height reached.
    height: Height,
    /// Whether blocks came that nothing certifies yet.
    uncertified: bool,
}

/// Fetches the next blocks and takes in what is proven final. Returns the height reached.
async fn advance(client: &Client, shared: &Arc<Shared>) -> Result<Advance, ClientError> {
    let from = shared.ledger.read().unwrap_or_else(PoisonError::into_inner).height().next();
    let blocks = client.blocks(from, BLOCKS_PER_REQUEST, BLOCKS_WAIT).await?;
    let node = client.preferred().to_string();
    let shared = shared.clone();
    let taken = tokio::task::spawn_blocking(move || take_in(&shared, &blocks)).await;
    let taken = taken.unwrap_or_else(|panic| Err(format!("checking the blocks failed: {panic}")));
    taken.map_err(|reason| ClientError::Untrustworthy { node, what: format!("blocks from height {from}"), reason })
}

/// Executes blocks in order; extends the ledger up to the last one that is proven final.
fn take_in(shared: &Shared, blocks: &[SignedBlock]) -> Result<Advance, String> {
    let (header, state) = {
        let ledger = shared.ledger.read().unwrap_or_else(PoisonError::into_inner);
        (ledger.header().clone(), ledger.state().clone())
    };
    let base = state.clone();
    let mut walk = Walk { header, state, waiting: vec![] };
    let mut reached = walk.header.height;
    with_prepared(blocks, &base, |prepared| {
        for (index, block) in blocks.iter().enumerate() {
            match walk.step(block, prepared)? {
                Step::Waits => {}
                Step::Final => {
                    reached = walk.header.height;
                    let mut ledger = shared.ledger.write().unwrap_or_else(PoisonError::into_inner);
                    for (executed, block) in walk.waiting.drain(..) {
                        ledger.extend(executed, block);
                    }
                }
                // It may have been made this moment. What comes after it proves that its certificate exists.
                Step::EpochOpen if index + 1 == blocks.len() => break,
                Step::EpochOpen => {
                    let height = walk.header.height;
                    return Err(format!("height {height}: the last block of an epoch comes without a certificate"));
                }
            }
        }
        Ok(())
    })?;
    Ok(Advance { height: reached, uncertified: !walk.waiting.is_empty() })
}

/// What became of an executed block.
enum Step {
    /// It is final by its own certificate, and with it all that waited.
    Final,
    /// A certified descendant of the same epoch has to prove it final.
    Waits,
    /// It is the last of its epoch and has no certificate, so nothing after it can be believed: descendants are
    /// certified by the committee that it names itself.
    EpochOpen,
}

/// The way from the ledger's last block on.
struct Walk<'a> {
    header: Header,
    state: State,
    /// Executed, and not proven final yet.
    waiting: Vec<(Executed, &'a SignedBlock)>,
}

impl<'a> Walk<'a> {
    fn step(&mut self, block: &'a SignedBlock, prepared: &mut dyn Iterator<Item = Prepared>) -> Result<Step, String> {
        let statements = prepared.take(block.statements.len());
        let executed = execute_prepared(&self.header, &self.state, block, statements, &StrictSignatures)
            .map_err(|error| error.to_string())?;
        if let Some(certificate) = &block.certificate {
            // The committee of the block's epoch is that of the state before it.
            let committee = self.state.committee();
            Finalization::decode(certificate, committee.len())
                .and_then(|proof| proof.verify_header(&executed.header, committee.keys(), self.state.chain()))
                .map_err(|error| format!("height {}: {error}", executed.header.height))?;
        }
        let blocks = self.state.parameters().epoch_blocks;
        self.header = executed.header.clone();
        self.state = executed.state.clone();
        self.waiting.push((executed, block));
        Ok(match block.certificate {
            Some(_) => Step::Final,
            None if epoch::is_last(self.header.height, blocks) => Step::EpochOpen,
            None => Step::Waits,
        })
    }
}

#[cfg(test)]
mod tests;
