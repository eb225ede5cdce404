//! A whole block against its parent: what a validator checks before it votes, and a follower before it believes.
//!
//! A header's epoch follows from its height, `validators_hash` from the state after the parent, `next_validators_hash`
//! from the state after the block. [`seal`] makes the header that [`execute`] expects.

use cairn_proof::block::{BlockError, SignedBlock, statements_root};
use cairn_proof::header::Header;
use cairn_proof::{Digest, Height, epoch};

use crate::prepared::Prepared;
use crate::refusal::Refusal;
use crate::state::{Applied, BlockTime, Round, SignatureCheck, State};

/// Why a block does not follow from its parent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// Header and statements do not belong together.
    #[error("height {height}: {source}")]
    Block {
        /// The height that was expected.
        height: Height,
        /// What does not fit.
        source: BlockError,
    },
    /// A field of the header does not follow from the parent, or from executing the statements.
    #[error("height {height}: header field {field}: expected {expected}, found {found}")]
    Header {
        /// The height that was expected.
        height: Height,
        /// Which field.
        field: &'static str,
        /// What follows.
        expected: String,
        /// What the header says.
        found: String,
    },
    /// A statement in the block cannot be applied.
    #[error("height {height}: statement {index}: {refusal}")]
    Statement {
        /// The block's height.
        height: Height,
        /// Place of the statement in the block.
        index: usize,
        /// Why.
        refusal: Refusal,
    },
}

/// A block that follows from its parent.
#[derive(Debug, Clone)]
pub struct Executed {
    /// Its header.
    pub header: Header,
    /// The state after it.
    pub state: State,
    /// What each statement did.
    pub applied: Vec<Applied>,
}

/// Executes `block` on the state after `parent` and checks every field of its header.
///
/// Nothing here says that the block is final, and the proposer's clock is not judged.
///
/// # Errors
/// Names the first thing that does not follow.
pub fn execute(
    parent: &Header,
    state: &State,
    block: &SignedBlock,
    signatures: &dyn SignatureCheck,
) -> Result<Executed, TransitionError> {
    let prepared = block.statements.iter().map(|statement| Prepared::decode(statement));
    execute_prepared(parent, state, block, prepared, signatures)
}

/// As [`execute`], for a block whose statements were prepared before, perhaps on other threads.
///
/// `prepared` are the block's own statements in their order; that is the caller's to keep.
///
/// # Errors
/// As [`execute`].
pub fn execute_prepared(
    parent: &Header,
    state: &State,
    block: &SignedBlock,
    prepared: impl Iterator<Item = Prepared>,
    signatures: &dyn SignatureCheck,
) -> Result<Executed, TransitionError> {
    let height = parent.height.next();
    let header = block.check().map_err(|source| TransitionError::Block { height, source })?;
    let expect = Expect { height };
    expect.parent(parent, state, &header)?;
    expect.within_limits(state, block)?;
    let at = BlockTime { height, timestamp_ms: header.timestamp_ms };
    let mut state = state.clone();
    let mut applied = Vec::with_capacity(block.statements.len());
    for (index, statement) in prepared.enumerate() {
        let done = state.apply_prepared(&at, statement, signatures);
        applied.push(done.map_err(|refusal| TransitionError::Statement { height, index, refusal })?);
    }
    state.end_block(&Round::of(&header), height);
    expect.same("next validators hash", &state.committee().hash(), &header.next_validators_hash)?;
    expect.same::<Digest>("state root", &state.root(), &header.state_root)?;
    expect.same("log root", &state.log_root(), &header.log_root)?;
    expect.same("log size", &state.log_size(), &header.log_size)?;
    Ok(Executed { header, state, applied })
}

/// Ends a block whose statements were applied to `after`, a clone of the state `before` it, and makes its header.
pub fn seal<'a>(
    parent: &Header,
    before: &State,
    after: &mut State,
    round: &Round,
    timestamp_ms: u64,
    statements: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Header {
    let height = parent.height.next();
    after.end_block(round, height);
    let statements_count = statements.len() as u64;
    Header {
        chain_id: parent.chain_id.clone(),
        epoch: round.epoch,
        view: round.view,
        parent_view: round.parent_view,
        proposer: round.proposer,
        height,
        timestamp_ms,
        parent: parent.digest(),
        statements_root: statements_root(statements),
        statements_count,
        state_root: after.root(),
        log_root: after.log_root(),
        log_size: after.log_size(),
        validators_hash: before.committee().hash(),
        next_validators_hash: after.committee().hash(),
    }
}

struct Expect {
    height: Height,
}

impl Expect {
    /// What follows from the parent and the state after it.
    fn parent(&self, parent: &Header, state: &State, header: &Header) -> Result<(), TransitionError> {
        self.same("chain id", &parent.chain_id, &header.chain_id)?;
        self.same("height", &self.height, &header.height)?;
        self.same("parent", &parent.digest(), &header.parent)?;
        let epoch = epoch::epoch_of(self.height, state.parameters().epoch_blocks);
        self.same("epoch", &epoch, &header.epoch)?;
        self.same("validators hash", &state.committee().hash(), &header.validators_hash)?;
        if header.timestamp_ms <= parent.timestamp_ms {
            return Err(self.other("timestamp", &format!("more than {}", parent.timestamp_ms), &header.timestamp_ms));
        }
        if header.view <= header.parent_view {
            return Err(self.other("view", &format!("more than parent view {}", header.parent_view), &header.view));
        }
        Ok(())
    }

    /// What the validators allow a block to hold.
    fn within_limits(&self, state: &State, block: &SignedBlock) -> Result<(), TransitionError> {
        let parameters = state.parameters();
        let (count, most) = (block.statements.len(), parameters.block_statements_max);
        if count as u64 > u64::from(most) {
            return Err(self.other("statements count", &format!("at most {most}"), &count));
        }
        let (bytes, most) = (block.statements.iter().map(Vec::len).sum::<usize>(), parameters.block_bytes_max);
        if bytes as u64 > u64::from(most) {
            return Err(self.other("statements bytes", &format!("at most {most}"), &bytes));
        }
        Ok(())
    }

    fn same<T: PartialEq + std::fmt::Display>(
        &self,
        field: &'static str,
        expected: &T,
        found: &T,
    ) -> Result<(), TransitionError> {
        if expected == found { Ok(()) } else { Err(self.other(field, expected, found)) }
    }

    fn other(&self, field: &'static str, expected: &impl ToString, found: &impl ToString) -> TransitionError {
        let (expected, found) = (expected.to_string(), found.to_string());
        TransitionError::Header { height: self.height, field, expected, found }
    }
}
