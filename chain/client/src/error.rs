//! Errors of the client, each with a kind that tells the caller what to do.

use cairn_chain_state::Refusal;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again later: a node is out of reach, busy, or behind.
    Retry,
    /// The input is wrong: trying again does not help.
    Input,
    /// A node says what does not verify: do not use that node, tell the operator.
    Untrustworthy,
    /// A bug of ours.
    Bug,
}

/// Why a request got no usable answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// No node answered.
    #[error(
        "no validator answered ({tried} tried): {last}; is the chain running, and are the [[validators]] api addresses in cairn.toml right?"
    )]
    Unreachable {
        /// How many were asked.
        tried: usize,
        /// What the last one gave.
        last: String,
    },
    /// A node refused the statement.
    #[error("{0}")]
    Refused(Refusal),
    /// A node has no such thing.
    #[error("{what} is not known to {node}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Which node was asked.
        node: String,
    },
    /// A node cannot take it now.
    #[error("{node} is busy: {message}")]
    Busy {
        /// Which node.
        node: String,
        /// What it said.
        message: String,
    },
    /// A node answered with something that is not the answer to the question.
    #[error("{node} answered {what}, which does not verify: {reason}")]
    Untrustworthy {
        /// Which node.
        node: String,
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It took too long.
    #[error("{what} did not happen within {seconds} s; {hint}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// What may be the cause.
        hint: String,
    },
    /// The statement cannot be signed.
    #[error(transparent)]
    Statement(#[from] cairn_proof::statement::StatementError),
    /// The root certificates for `https` nodes cannot be used.
    #[error("root certificates: {0}")]
    Roots(String),
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be made: {0}")]
    Setup(String),
}

impl ClientError {
    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable { .. } | Self::Busy { .. } | Self::Timeout { .. } | Self::NotFound { .. } => {
                ErrorKind::Retry
            }
            Self::Refused(_) | Self::Statement(_) | Self::Roots(_) => ErrorKind::Input,
            Self::Untrustworthy { .. } => ErrorKind::Untrustworthy,
            Self::Setup(_) => ErrorKind::Bug,
        }
    }
}
