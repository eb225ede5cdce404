//! A node of the Cairn chain. A validator orders statements with the others, executes them, finalizes blocks, stores
//! them, and answers over HTTP; a follower does all but order and vote.
//!
//! ```text
//!              ┌───────────────────────── consensus thread (commonware's runtime) ─────────────────────────┐
//!  validators ═╪═ TCP ═▶ simplex ◀─▶ proposer ◀─▶ executor          marshal ──▶ orchestrator ─▶ ledger       │
//!              │    └──▶ gossip ──▶ mempool ──┘                     │ archives on disk                      │
//!              └──────────────────────│─────────────────────────────│──────────────────────────│────────────┘
//!              ┌──────────────────────│──── HTTP thread (tokio) ────│──────────────────────────│────────────┐
//!  clients ◀═══╪══════════ submit, status ═════════════ blocks, certificates ═══════ heads, log proofs      │
//!              └────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Architecture invariants:
//! - No type of the consensus library appears in this crate's public interface: its releases change them.
//! - State is a function of the blocks and lives in memory: about 350 bytes an anchor in the state, and 170 in the
//!   log and the index of statements. On start it is rebuilt by replaying the stored blocks, without checking their
//!   signatures again (`cairn-bench replay` measures a follower's replay, which does). Blocks are never pruned so far.
//! - Each epoch has a committee and an engine of its own; the voting history of an epoch is kept until the epoch after
//!   the next one, and no vote is cast in an epoch whose history is gone. It lies beside the blocks in the data folder,
//!   which belongs to one key.
//! - A node votes in the epochs whose committee holds its key, and follows in all others; nothing else differs.
//! - Consensus never waits for HTTP: they share a mempool and a ledger behind short locks.
//! - What a block must be is decided by `cairn_chain_state`, which followers use as well; nothing here adds a rule
//!   that a follower could not check, but the bounds of messages.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (genesis, key, peers): (cairn_proof::genesis::Genesis, cairn_proof::identity::SigningKey, Vec<cairn_chain_node::Peer>) = todo!();
//! use cairn_chain_node::{Node, NodeConfig};
//! let config = NodeConfig::new("data/validator-0".into(), "127.0.0.1:7000".parse()?, peers, "127.0.0.1:7100".parse()?);
//! let mut node = Node::start(config, genesis, &key)?;
//! println!("HTTP API on {}", node.api_addr());
//! # futures::executor::block_on(node.wait())?;
//! # Ok(())
//! # }
//! ```

mod address;
mod api;
mod application;
mod block;
mod checkpoints;
#[cfg(any(test, feature = "simulation"))]
#[allow(clippy::unwrap_used)]
#[path = "../tests/common/city.rs"]
mod city;
mod clock;
mod config;
mod cosign;
mod engine;
mod error;
mod executor;
mod gossip;
mod height;
mod journals;
mod lanes;
mod ledger;
mod limits;
mod mempool;
mod metrics;
mod network;
mod node;
mod orchestrator;
mod peers;
mod reputation;
mod schemes;
mod shared;
mod signatures;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod validator;
mod voting;
mod witness;

pub use config::{
    AddressLimits, ApiConfig, BlockConfig, ConfigError, MempoolConfig, NodeConfig, Peer, TlsConfig, Witness,
};
pub use error::{ErrorKind, NodeError};
pub use node::{Node, RunningNode};
