//! Why a validator did not start, or stopped.

use std::{io, net::SocketAddr, path::PathBuf};

use cairn_proof::Height;

use crate::config::ConfigError;

/// What the caller of [`NodeError`] can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Change the configuration, the key or the genesis file.
    FixInput,
    /// Free a port, a folder or a lock, then start again.
    Retry,
    /// The data folder does not hold what this chain finalized: do not start it again before it is understood.
    Corrupted,
    /// The validator stopped in a way that nobody foresaw; starting again is safe.
    Bug,
}

/// What to do about damaged blocks: they can be had again, the voting history cannot.
const RECOVERY: &str = "to have the blocks from the other validators again, delete cairn-blocks-*, cairn-finalizations-* \
    and cairn-marshal-* in the data folder's `storage`, but never cairn-simplex*, the voting history";

/// What to do about a damaged voting history: the file `voting` keeps the validator from voting without it.
const RECOVERY_OF_VOTES: &str = "to go on without it, delete this one partition in the data folder's `storage`, but never \
    the file `voting` beside it: the validator then follows the chain, and votes again from the next epoch on";

/// Why a validator did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A configuration value cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A port is taken, or the address is not this machine's.
    #[error("{role}: cannot listen on {address}: {source}; {hint}")]
    Listen {
        /// What the port is for.
        role: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
        /// What to change.
        hint: String,
    },
    /// The data folder cannot be used.
    #[error("data folder {path}: {reason}")]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The stored blocks or certificates cannot be opened.
    #[error("storage of {what} cannot be opened: {reason}; {RECOVERY}")]
    Storage {
        /// Of what, with its partitions.
        what: String,
        /// The storage's word.
        reason: String,
    },
    /// What this validator voted for in an epoch cannot be read.
    #[error("voting history {partition}: {reason}; {RECOVERY_OF_VOTES}")]
    VotingHistory {
        /// The partition in the data folder's `storage`.
        partition: String,
        /// The storage's word.
        reason: String,
    },
    /// The stored blocks do not replay.
    #[error("stored block {height} cannot be replayed: {reason}; {RECOVERY}")]
    Replay {
        /// Which block.
        height: Height,
        /// What was expected and found.
        reason: String,
    },
    /// A thread could not be started.
    #[error("cannot start the {what} thread: {source}")]
    Thread {
        /// Which one.
        what: &'static str,
        /// The system's word.
        source: io::Error,
    },
    /// The consensus thread ended by a panic; such panics are its policy when storage fails or state disagrees.
    #[error("the consensus thread stopped: {reason}")]
    Consensus {
        /// The panic's message, or which part ended.
        reason: String,
    },
    /// The HTTP API's certificate or key cannot be used.
    #[error("TLS of the HTTP API: {path}: {reason}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The HTTP API ended.
    #[error("the HTTP API stopped: {reason}")]
    Api {
        /// Why.
        reason: String,
    },
}

impl NodeError {
    /// What the caller can do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) | Self::Tls { .. } => ErrorKind::FixInput,
            Self::Listen { .. } | Self::DataDir { .. } | Self::Thread { .. } => ErrorKind::Retry,
            Self::Storage { .. } | Self::VotingHistory { .. } | Self::Replay { .. } => ErrorKind::Corrupted,
            Self::Consensus { .. } | Self::Api { .. } => ErrorKind::Bug,
        }
    }
}
