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
pub(crate) use cairn_chain_state::Round;
use cairn_chain_state::{Applied, BlockTime, Prepared, SignatureCheck, State, TransitionError, execute_prepared, seal};
use cairn_proof::{Digest, Height, genesis::Genesis, header::Header};

use crate::{
    block::Block,
    limits::{FINALIZED_STATES_KEPT, UNFINALIZED_STATES_MAX},
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
        let executed = Executed { header, id, state: State::genesis(genesis), applied: Arc::new([]) };
        Self { signatures, tree: Mutex::new(Tree { finalized: Height(0), blocks: HashMap::from([(id, executed)]) }) }
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
        let finalized = tree.finalized;
        if executed.header.height <= finalized {
            return;
        }
        tree.blocks.insert(executed.id, executed);
        if tree.blocks.len() > UNFINALIZED_STATES_MAX {
            let pending = tree.blocks.iter().filter(|(_, block)| block.header.height > finalized);
            let oldest = pending.min_by_key(|(_, block)| (block.header.epoch, block.header.view)).map(|(id, _)| *id);
            oldest.and_then(|id| tree.blocks.remove(&id));
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

    /// Applies statements on top of `parent`, leaving out those that do not apply, within the bounds of this validator
    /// and of the chain. The block is not ended: [`Executor::header`] does that.
    pub(crate) fn build(
        &self,
        parent: &Executed,
        timestamp_ms: u64,
        candidates: Vec<Bytes>,
        (count_max, bytes_max): (usize, usize),
    ) -> (State, Vec<Bytes>, Vec<Applied>) {
        let at = BlockTime { height: parent.header.height.next(), timestamp_ms };
        let parameters = parent.state.parameters();
        let count_max = count_max.min(parameters.block_statements_max as usize);
        let bytes_max = bytes_max.min(parameters.block_bytes_max as usize);
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
                match state.apply_prepared(&at, self.signatures.prepare_unnamed(&statement), &self.signatures) {
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

    /// Ends the block with these statements on top of `parent`, and makes its header. `state` is what [`Executor::build`]
    /// returned, and the state after the block from then on.
    pub(crate) fn header(
        &self,
        parent: &Executed,
        round: &Round,
        timestamp_ms: u64,
        statements: &[Bytes],
        state: &mut State,
    ) -> Header {
        let statements = statements.iter().map(AsRef::as_ref);
        seal(&parent.header, &parent.state, state, round, timestamp_ms, statements)
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
        Self::follow(parent, block, |statement| self.signatures.prepare_unnamed(statement), &self.signatures)
    }

    /// Executes a block of this validator's own store.
    ///
    /// # Errors
    /// The first thing that does not follow.
    pub(crate) fn execute_stored(&self, parent: &Executed, block: &Block) -> Result<Executed, Invalid> {
        Self::follow(parent, block, Prepared::decode, &CheckedBefore)
    }

    fn follow(
        parent: &Executed,
        block: &Block,
        prepare: impl Fn(&[u8]) -> Prepared,
        signatures: &dyn SignatureCheck,
    ) -> Result<Executed, Invalid> {
        let prepared = block.statements().iter().map(|statement| prepare(statement));
        let done = execute_prepared(&parent.header, &parent.state, &block.signed(None), prepared, signatures)?;
        Ok(Executed { header: done.header, id: block.id(), state: done.state, applied: done.applied.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::city::{City, INGEST, OTHER_INGEST, OWNER};

    struct Chain {
        city: City,
        executor: Executor,
        genesis: Executed,
    }

    fn chain() -> Chain {
        let city = City::new(4);
        let executor = Executor::new(&city.genesis, Signatures::default());
        let genesis = executor.get(&city.genesis.header().digest()).unwrap();
        Chain { city, executor, genesis }
    }

    const AMPLE: (usize, usize) = (100, 1 << 20);

    fn round(view: u64) -> Round {
        Round { epoch: 0, view, parent_view: view - 1, proposer: [9; 32] }
    }

    impl Chain {
        fn block(&self, parent: &Executed, view: u64, candidates: Vec<Vec<u8>>) -> Block {
            let candidates = candidates.into_iter().map(Bytes::from).collect();
            let (mut state, statements, _) = self.executor.build(parent, 10 + view, candidates, AMPLE);
            let header = self.executor.header(parent, &round(view), 10 + view, &statements, &mut state);
            Block::new(header, statements)
        }

        fn extend(&self, parent: &Executed, view: u64) -> Executed {
            let executed = self.executor.execute(parent, &self.block(parent, view, vec![]), &round(view)).unwrap();
            self.executor.keep(executed.clone());
            executed
        }
    }

    #[test]
    fn what_was_built_executes() {
        let chain = chain();
        let statements = vec![chain.city.register_stream(1), chain.city.anchor(INGEST, 1, 0, 0, Digest::ZERO).0];
        let block = chain.block(&chain.genesis, 1, statements);
        assert_eq!(block.statements().len(), 2);
        let executed = chain.executor.execute(&chain.genesis, &block, &round(1)).unwrap();
        assert_eq!(executed.id, block.id());
        assert_eq!((executed.applied.len(), executed.header.log_size.0), (2, 1));
        assert_eq!(executed.state.root(), block.header().state_root);
        assert_eq!(chain.executor.execute_stored(&chain.genesis, &block).unwrap().id, block.id());
    }

    #[test]
    fn a_builder_leaves_out_what_does_not_apply_and_keeps_to_the_bounds() {
        let chain = chain();
        let stream = chain.city.register_stream(1);
        let early = chain.city.anchor(INGEST, 1, 0, 0, Digest::ZERO).0;
        let rival = chain.city.anchor(OTHER_INGEST, 1, 0, 0, Digest::ZERO).0;
        // The anchor comes before its stream: the second pass takes it. Its rival overlaps.
        let candidates = vec![early.clone(), rival, stream.clone(), b"nonsense".to_vec()];
        let block = chain.block(&chain.genesis, 1, candidates.clone());
        assert_eq!(block.statements(), [Bytes::from(stream.clone()), Bytes::from(early)]);
        let candidates: Vec<Bytes> = candidates.into_iter().map(Bytes::from).collect();
        let (_, by_count, _) = chain.executor.build(&chain.genesis, 11, candidates.clone(), (1, 1 << 20));
        assert_eq!(by_count, [Bytes::from(stream.clone())]);
        let (_, by_bytes, _) = chain.executor.build(&chain.genesis, 11, candidates, (100, stream.len() - 1));
        assert!(by_bytes.is_empty());
    }

    #[test]
    fn a_header_that_says_anything_else_is_refused() {
        let chain = chain();
        let good = chain.block(&chain.genesis, 1, vec![chain.city.register_stream(1)]);
        let other = Digest([8; 32]);
        type Change = Box<dyn Fn(&mut Header)>;
        let changes: Vec<(&str, Change)> = vec![
            ("chain_id", Box::new(|header| header.chain_id = "other".into())),
            ("epoch", Box::new(|header| header.epoch = 1)),
            ("view", Box::new(|header| header.view = 2)),
            ("parent_view", Box::new(|header| header.parent_view = 1)),
            ("proposer", Box::new(|header| header.proposer = [8; 32])),
            ("height", Box::new(|header| header.height = Height(2))),
            ("timestamp_ms", Box::new(|header| header.timestamp_ms = 1)),
            ("parent", Box::new(move |header| header.parent = other)),
            ("state_root", Box::new(move |header| header.state_root = other)),
            ("log_root", Box::new(move |header| header.log_root = other)),
            ("log_size", Box::new(|header| header.log_size.0 += 1)),
            ("validators_hash", Box::new(move |header| header.validators_hash = other)),
            ("next_validators_hash", Box::new(move |header| header.next_validators_hash = other)),
            ("statements_count", Box::new(|header| header.statements_count = 2)),
            ("statements_root", Box::new(move |header| header.statements_root = other)),
        ];
        for (name, change) in changes {
            let mut header = good.header().clone();
            change(&mut header);
            let block = Block::new(header, good.statements().to_vec());
            assert!(chain.executor.execute(&chain.genesis, &block, &round(1)).is_err(), "{name}");
        }
        chain.executor.execute(&chain.genesis, &good, &round(1)).unwrap();
    }

    #[test]
    fn a_block_with_a_statement_that_does_not_apply_is_refused() {
        let chain = chain();
        let good = chain.block(&chain.genesis, 1, vec![chain.city.register_stream(1)]);
        let twice: Vec<Bytes> = [good.statements(), good.statements()].concat();
        let mut state = chain.genesis.state.clone();
        let header = chain.executor.header(&chain.genesis, &round(1), 11, &twice, &mut state);
        let invalid = chain.executor.execute(&chain.genesis, &Block::new(header, twice), &round(1)).map(|_| ());
        assert!(
            matches!(invalid, Err(Invalid::Transition(TransitionError::Statement { index: 1, .. }))),
            "{invalid:?}"
        );
        assert_eq!(chain.genesis.state.sequence(&crate::city::key(OWNER).identity()).0, 0);
    }

    #[test]
    fn finality_forgets_forks_and_old_blocks() {
        let chain = chain();
        let fork = chain.extend(&chain.genesis, 2);
        let forked_child = chain.extend(&fork, 3);
        let mut last = chain.extend(&chain.genesis, 1);
        let first = last.id;
        chain.executor.finalize(last.clone());
        assert_eq!(chain.executor.finalized(), Height(1));
        assert!(chain.executor.get(&fork.id).is_none(), "a fork beside the final block");
        assert!(chain.executor.get(&forked_child.id).is_some(), "not yet told to be dead");
        for view in 4..4 + FINALIZED_STATES_KEPT {
            last = chain.extend(&last, view);
            chain.executor.finalize(last.clone());
        }
        assert!(chain.executor.get(&forked_child.id).is_none());
        assert!(chain.executor.get(&first).is_some());
        last = chain.extend(&last, 100);
        chain.executor.finalize(last.clone());
        assert!(chain.executor.get(&first).is_none(), "too old");
        // However long finality is away, what is kept stays within the bound, and the last final block with it.
        for view in 200..200 + 2 * UNFINALIZED_STATES_MAX as u64 {
            chain.extend(&last, view);
        }
        assert_eq!(chain.executor.tree().blocks.len(), UNFINALIZED_STATES_MAX);
        assert!(chain.executor.get(&last.id).is_some());
        // What comes late for a final height is not kept.
        chain.executor.keep(fork.clone());
        assert!(chain.executor.get(&fork.id).is_none());
    }
}
