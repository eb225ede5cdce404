//! What consensus and the HTTP API of one validator share, and the few ways in which a statement or a block moves
//! between its parts.
//!
//! ```text
//! HTTP ─ submit ──▶ mempool ─ candidates ──▶ executor ─ block ──▶ consensus ─ finalize ──▶ ledger
//! peer ─ receive ─┘    ▲                                                          │
//!                      └───────────────────────── advance ────────────────────────┘
//! ```

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_chain_state::{BlockTime, State, ValidatorStatus};
use cairn_proof::{
    Digest, Height, committee::Committee, epoch, genesis::Genesis, header::Header, identity::PublicKey,
    statement::ChainTag,
};
use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::{
    block::Block,
    checkpoints::Checkpoints,
    config::NodeConfig,
    executor::{Executed, Executor, Invalid, Round},
    gossip::{OUTBOX_STATEMENTS_MAX, Outbox},
    ledger::{FinalBlock, Ledger, Tip},
    mempool::{Admission, Mempool},
    metrics::Metrics,
    peers::Listed,
    signatures::Signatures,
};

/// What consensus and the HTTP API of one validator share.
pub(crate) struct Shared {
    pub(crate) genesis: Genesis,
    pub(crate) tag: ChainTag,
    /// This validator's key.
    pub(crate) validator: PublicKey,
    pub(crate) executor: Executor,
    pub(crate) mempool: Mempool,
    pub(crate) ledger: Ledger,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) metrics: Metrics,
    outbox: mpsc::Sender<Bytes>,
}

/// The epoch of the next block, as it stands at its start.
#[derive(Clone, Debug)]
pub(crate) struct EpochStart {
    pub(crate) epoch: u64,
    /// The block that the epoch builds on.
    pub(crate) boundary: Header,
    /// Height of the last finalized block.
    pub(crate) tip: Height,
    /// Who certifies the epoch's blocks.
    pub(crate) committee: Arc<Committee>,
    pub(crate) heartbeat: Duration,
}

/// How long a leader without statements waits on top of a block with this state. It changes at an epoch's end only.
pub(crate) const fn heartbeat(state: &State) -> Duration {
    Duration::from_millis(state.parameters().heartbeat_ms)
}

impl Shared {
    /// Starts from genesis; the outbox goes to the gossip.
    pub(crate) fn new(genesis: Genesis, validator: PublicKey, config: &NodeConfig) -> (Arc<Self>, Outbox) {
        let tag = genesis.tag();
        let signatures = Signatures::default();
        let executor = Executor::new(&genesis, signatures.clone());
        let header = genesis.header();
        let state = cairn_chain_state::State::genesis(&genesis);
        let mempool = Mempool::new(config.mempool.clone(), state.clone(), header.timestamp_ms, signatures);
        let ledger = Ledger::new(header, state, genesis.parameters.epoch_blocks);
        let checkpoints = Checkpoints::new(&genesis.chain_id, !config.witnesses.is_empty());
        let (outbox, receiver) = mpsc::channel(OUTBOX_STATEMENTS_MAX);
        let shared =
            Self { genesis, tag, validator, executor, mempool, ledger, checkpoints, metrics: Metrics::new(), outbox };
        (Arc::new(shared), receiver)
    }

    /// Takes in a statement that was handed to this validator, and tells the others.
    pub(crate) fn submit(&self, statement: &Bytes, now_ms: u64) -> Admission {
        let admission = self.mempool.submit(statement.clone(), now_ms);
        if matches!(admission, Admission::Pooled(_)) {
            // When it is full, the statement goes with the next repetition.
            let _ = self.outbox.try_send(statement.clone());
        }
        self.count_pool();
        admission
    }

    /// Takes in a statement from another validator. Returns what became of it, as a metric's label.
    pub(crate) fn receive(&self, statement: Bytes, now_ms: u64) -> &'static str {
        let outcome = self.mempool.receive(statement, now_ms, |id| self.ledger.locate(id).is_some());
        self.count_pool();
        outcome
    }

    /// Takes in a block of this validator's own store, at start.
    ///
    /// # Errors
    /// When it does not follow the block before it.
    pub(crate) fn replay(&self, block: &Block) -> Result<(), Invalid> {
        let executed = self.executor.execute_stored(&self.last(block)?, block)?;
        self.append(executed, block, None);
        Ok(())
    }

    /// Everything stored is replayed: the mempool starts from there.
    pub(crate) fn replayed(&self) {
        let tip = self.ledger.tip();
        self.mempool.rebase(time_of(&tip), &tip.state, tip.header.timestamp_ms, |_| false);
        info!(height = %tip.header.height, state_root = %tip.header.state_root, "stored blocks replayed");
    }

    /// Takes in the next finalized block.
    ///
    /// # Errors
    /// When it does not follow the block before it.
    pub(crate) fn finalize(&self, block: &Block, certificate: Option<Vec<u8>>, now_ms: u64) -> Result<(), Invalid> {
        let executed = match self.executor.get(&block.id()) {
            Some(executed) => executed,
            None => self.executor.execute(&self.last(block)?, block, &Round::of(block.header()))?,
        };
        let applied = Arc::clone(&executed.applied);
        self.append(executed, block, certificate);
        let tip = self.ledger.tip();
        let is_final = |id: &Digest| self.ledger.locate(id).is_some();
        let refused = self.mempool.advance(time_of(&tip), &tip.state, &applied, now_ms, is_final);
        for (id, refusal) in refused {
            self.metrics.refused(refusal.code);
            info!(%id, code = refusal.code.name(), message = refusal.message, "pooled statement refused");
        }
        self.count_pool();
        debug!(height = %tip.header.height, statements = block.statements().len(), "block finalized");
        Ok(())
    }

    /// The last finalized block, which `block` must build on.
    fn last(&self, block: &Block) -> Result<Executed, Invalid> {
        let expected = self.ledger.tip().header.digest();
        let found = block.header().parent;
        let last = self.executor.get(&found).filter(|_| expected == found);
        last.ok_or(Invalid::Parent { expected, found })
    }

    fn append(&self, executed: Executed, block: &Block, certificate: Option<Vec<u8>>) {
        // The committee of the state before it certified this block.
        self.checkpoints.advance(&executed.header, self.ledger.tip().state.committee().keys());
        self.ledger.append(&executed, FinalBlock { block: block.clone(), certificate });
        self.metrics.block(&executed.header, block.statements().len() as u64);
        self.executor.finalize(executed);
    }

    /// Blocks in an epoch, for ever.
    pub(crate) const fn epoch_blocks(&self) -> u64 {
        self.genesis.parameters.epoch_blocks
    }

    /// The epoch of the next block.
    pub(crate) fn epoch_start(&self) -> EpochStart {
        let tip = self.ledger.tip();
        EpochStart {
            epoch: epoch::epoch_of(tip.header.height.next(), self.epoch_blocks()),
            boundary: self.ledger.boundary(),
            tip: tip.header.height,
            committee: Arc::clone(tip.state.committee()),
            heartbeat: heartbeat(&tip.state),
        }
    }

    /// The validators that may connect, as the last finalized block knows them.
    pub(crate) fn listed(&self) -> Vec<Listed> {
        let state = self.ledger.tip().state;
        let listed = state.validators().into_iter().map(|found| {
            let votes =
                state.committee().contains(&found.public_key) || state.next_committee().contains(&found.public_key);
            let active = votes || found.status == ValidatorStatus::Active;
            let listed = Listed { key: found.public_key, address: found.address.clone(), active };
            (active || found.status == ValidatorStatus::Suspended).then_some(listed)
        });
        listed.flatten().collect()
    }

    /// The engine of an epoch starts.
    pub(crate) fn enters(&self, epoch: u64, votes: bool) {
        self.metrics.epoch(epoch, votes);
    }

    fn count_pool(&self) {
        let (statements, bytes) = self.mempool.size();
        self.metrics.mempool(statements, bytes);
    }
}

/// When the last finalized block was made, by its own word.
const fn time_of(tip: &Tip) -> BlockTime {
    BlockTime { height: tip.header.height, timestamp_ms: tip.header.timestamp_ms }
}
