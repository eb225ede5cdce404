//! The deterministic state transition of the chain: statements in, state out.
//!
//! Architecture invariants: no I/O, clock, randomness, float, thread or hash-map iteration (I8). It knows nothing
//! of consensus or the network: validators execute it before they vote, followers replay it, and both arrive at the
//! same root. Signatures are checked through [`SignatureCheck`], so that a node may remember those it has checked.
//!
//! | module | what |
//! | --- | --- |
//! | [`trie`] | the authenticated map that holds everything; clones in O(1) |
//! | [`entry`] | what stands in it |
//! | [`state`] | [`State`]: applying statements, looking up |
//! | [`prepared`] | statements that were decoded and verified ahead |
//! | [`invariants`] | I1 as predicates, on every path that anchors |
//! | [`rules`] | who may do what, and how far governance may go, as predicates |
//! | [`refusal`] | why a statement is not applied |
//! | [`transition`] | a whole block against its parent |
//!
//! Cost: one anchor writes three entries, of which one stays (about 220 bytes that stay) and about 4 × log₂(entries) SHA-256 blocks.

pub mod entry;
pub mod invariants;
pub mod prepared;
pub mod refusal;
pub mod rules;
pub mod state;
pub mod transition;
pub mod trie;

pub use entry::{
    AnchorEntry, EpochCounts, Head, IdentityEntry, ProposalEntry, SchemaEntry, StreamEntry, ValidatorEntry,
    ValidatorStatus,
};
pub use prepared::{LogEntry, Prepared};
pub use refusal::{Refusal, RefusalCode};
pub use state::{Applied, BlockTime, Round, SignatureCheck, State, StrictSignatures};
pub use transition::{TransitionError, execute, execute_prepared, seal};
