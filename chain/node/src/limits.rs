//! Bounds of what validators send each other beyond those of the formats, which `cairn_proof` defines; all
//! validators must agree on them, or one would refuse what another sends.

/// Statements in one gossip message.
pub(crate) const GOSSIP_STATEMENTS_MAX: usize = 256;

/// Bytes of statements in one gossip message; room for the largest statement.
pub(crate) const GOSSIP_BYTES_MAX: usize = 128 << 10;

/// Gossip messages that a peer may send per second; more are held back by the network.
pub(crate) const GOSSIP_MESSAGES_PER_SECOND: u32 = 64;

/// Consensus messages that a peer may send per second on each channel.
pub(crate) const CONSENSUS_MESSAGES_PER_SECOND: u32 = 512;

/// Un-finalized blocks that are executed on top of the last finalized one; beyond it, the node catches up first.
pub(crate) const SPECULATION_BLOCKS_MAX: u64 = 256;

/// Finalized blocks whose state stays in memory, for blocks that were proposed on them just before.
pub(crate) const FINALIZED_STATES_KEPT: u64 = 16;

/// Executed blocks that are kept beside the finalized ones. Those dropped are executed again when they are needed.
pub(crate) const UNFINALIZED_STATES_MAX: usize = 512;

/// Messages with checkpoint signatures that a peer may send per second.
pub(crate) const COSIGN_MESSAGES_PER_SECOND: u32 = 32;
