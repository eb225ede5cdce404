//! Executes blocks: the tree of blocks that are not final yet, each with the state after it.
//!
//! ```text
//!              ┌── a' (state)                       a state is a handle on a shared trie, so a fork
//!  final ── a ─┴── b ── c (state)                   costs what its statements changed
//! ```
//!
//! Whether a block follows from its parent is decided by `cairn_chain_state::execute`, the same function that
//! followers use; what is added here is the round that consensus says it was proposed in. Nothing here waits,
//! reads a clock or knows of votes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use cairn_chain_state::{Applied, SignatureCheck, State, TransitionError};
use cairn_proof::{Digest, Height, block::statements_root, genesis::Genesis, header::Header};

use crate::{
    block::Block,
    limits::FINALIZED_STATES_KEPT,
    signatures::{CheckedBefore, Signatures},
};

/// A block that was executed.
#[derive(Clone)]
pub(crate) struct Executed {
    /// Its header.
    pub(crate) header: Header,
    /// The header's hash.
    pub(crate) id: Digest,
    /// The state after it.
    pub(crate) state: State,
    /// What each of its statements did, in order.
    pub(crate) applied: Arc<[Applied]>,
}

/// What consensus says about a block before it looks into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) epoch: u64,
    pub(crate) view: u64,
    pub(crate) parent_view: u64,
    pub(crate) proposer: [u8; 32],
}

impl Round {
    /// The round that a header claims for itself.
    pub(crate) const fn of(header: &Header) -> Self {
        Self { epoch: header.epoch, view: header.view, parent_view: header.parent_view, proposer: header.proposer }
    }
}

/// Why a block is not valid.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Invalid {
    /// It does not follow from its parent.
    #[error(transparent)]
    Transition(#[from] TransitionError),
    /// It claims another round than the one it was proposed in.
    #[error("proposed in {expected:?}, but the header says {found:?}")]
    Round { expected: Round, found: Round },
    /// Its parent is not the block that it must build on.
    #[error("parent: expected {expected}, found {found}")]
    Parent { expected: Digest, found: Digest },
}

/// The states of recent blocks, and the rules of the chain.
pub(crate) struct Executor {
    chain_id: String,
    validators_hash: Digest,
    signatures: Signatures,
    tree: Mutex<Tree>,
}

struct Tree {
    finalized: Height,
    blocks: HashMap<Digest, Executed>,
}

impl Executor {
    /// Starts with genesis alone.
    pub(crate) fn new(genesis: &Genesis, signatures: Signatures) -> Self {
        let header = genesis.header();
        let id = header.digest();
        let executed = Executed { header: header.clone(), id, state: State::genesis(genesis), applied: Arc::new([]) };
        Self {
            chain_id: header.chain_id,
            validators_hash: header.validators_hash,
            signatures,
            tree: Mutex::new(Tree { finalized: Height(0), blocks: HashMap::from([(id, executed)]) }),
        }
    }

    fn tree(&self) -> std::sync::MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The executed block with this hash, if it is final or built on what is.
    pub(crate) fn get(&self, id: &Digest) -> Option<Executed> {
        self.tree().blocks.get(id).cloned()
    }

    /// Height of the last finalized block.
    pub(crate) fn finalized(&self) -> Height {
        self.tree().finalized
    }

    /// Keeps an executed block.
    pub(crate) fn keep(&self, executed: Executed) {
        let mut tree = self.tree();
        if executed.header.height > tree.finalized {
            tree.blocks.insert(executed.id, executed);
        }
    }

    /// Forgets every block that can no longer be built on: `executed` is final.
    pub(crate) fn finalize(&self, executed: Executed) {
        let mut tree = self.tree();
        let height = executed.header.height;
        tree.finalized = height;
        let id = executed.id;
        tree.blocks.insert(id, executed);
        let oldest = height.0.saturating_sub(FINALIZED_STATES_KEPT);
        tree.blocks.retain(|other, block| {
            let at = block.header.height;
            // At this height only the final one stays; below, the final ones are ancestors of it, and forks go.
            at > height || *other == id || (at < height && at.0 >= oldest)
        });
    }

    /// Applies statements on top of `parent`, leaving out those that do not apply, within the bounds.
    pub(crate) fn build(
        &self,
        parent: &Executed,
        candidates: Vec<Bytes>,
        (count_max, bytes_max): (usize, usize),
    ) -> (State, Vec<Bytes>, Vec<Applied>) {
        let height = parent.header.height.next();
        let mut state = parent.state.clone();
        let (mut taken, mut applied, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut left = candidates;
        // A second pass takes in statements whose predecessor, by another signer, came later in the first.
        for _ in 0..2 {
            let mut again = Vec::new();
            for statement in left {
                if taken.len() == count_max || bytes + statement.len() > bytes_max {
                    break;
                }
                match state.apply(height, &statement, &self.signatures) {
                    Ok(done) => {
                        bytes += statement.len();
                        taken.push(statement);
                        applied.push(done);
                    }
                    Err(_) => again.push(statement),
                }
            }
            left = again;
            if taken.is_empty() {
                break;
            }
        }
        (state, taken, applied)
    }

    /// The header of a block with these statements on top of `parent`.
    pub(crate) fn header(
        &self,
        parent: &Executed,
        round: &Round,
        timestamp_ms: u64,
        statements: &[Bytes],
        state: &State,
    ) -> Header {
        Header {
            chain_id: self.chain_id.clone(),
            epoch: round.epoch,
            view: round.view,
            parent_view: round.parent_view,
            proposer: round.proposer,
            height: parent.header.height.next(),
            timestamp_ms,
            parent: parent.id,
            statements_root: statements_root(statements.iter().map(AsRef::as_ref)),
            statements_count: statements.len() as u64,
            state_root: state.root(),
            log_root: state.log_root(),
            log_size: state.log_size(),
            validators_hash: self.validators_hash,
        }
    }

    /// Executes `block`, proposed in `round`, on top of `parent`, and checks every field of its header.
    ///
    /// # Errors
    /// The first thing that does not follow.
    pub(crate) fn execute(&self, parent: &Executed, block: &Block, round: &Round) -> Result<Executed, Invalid> {
        let found = Round::of(block.header());
        if found != *round {
            return Err(Invalid::Round { expected: round.clone(), found });
        }
        Self::follow(parent, block, &self.signatures)
    }

    /// Executes a block of this validator's own store.
    ///
    /// # Errors
    /// The first thing that does not follow.
    pub(crate) fn execute_stored(&self, parent: &Executed, block: &Block) -> Result<Executed, Invalid> {
        Self::follow(parent, block, &CheckedBefore)
    }

    fn follow(parent: &Executed, block: &Block, signatures: &dyn SignatureCheck) -> Result<Executed, Invalid> {
        let done = cairn_chain_state::execute(&parent.header, &parent.state, &block.signed(None), signatures)?;
        Ok(Executed { header: done.header, id: block.id(), state: done.state, applied: done.applied.into() })
    }
}
