//! A whole block against its parent: what a validator checks before it votes, and a follower before it believes.

use cairn_proof::block::{BlockError, SignedBlock};
use cairn_proof::header::Header;
use cairn_proof::{Digest, Height};

use crate::refusal::Refusal;
use crate::state::{Applied, SignatureCheck, State};

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
    let height = parent.height.next();
    let header = block.check().map_err(|source| TransitionError::Block { height, source })?;
    let expect = Expect { height };
    expect.same("chain id", &parent.chain_id, &header.chain_id)?;
    expect.same("height", &height, &header.height)?;
    expect.same("parent", &parent.digest(), &header.parent)?;
    expect.same("epoch", &parent.epoch, &header.epoch)?;
    expect.same("validators hash", &parent.validators_hash, &header.validators_hash)?;
    expect.same("next validators hash", &parent.validators_hash, &header.next_validators_hash)?;
    if header.timestamp_ms <= parent.timestamp_ms {
        return Err(expect.other("timestamp", &format!("more than {}", parent.timestamp_ms), &header.timestamp_ms));
    }
    let mut state = state.clone();
    let mut applied = Vec::with_capacity(block.statements.len());
    for (index, statement) in block.statements.iter().enumerate() {
        let done = state.apply(height, statement, signatures);
        applied.push(done.map_err(|refusal| TransitionError::Statement { height, index, refusal })?);
    }
    expect.same::<Digest>("state root", &state.root(), &header.state_root)?;
    expect.same("log root", &state.log_root(), &header.log_root)?;
    expect.same("log size", &state.log_size(), &header.log_size)?;
    Ok(Executed { header, state, applied })
}

struct Expect {
    height: Height,
}

impl Expect {
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
