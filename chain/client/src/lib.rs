//! The client of the chain: submit statements and wait for finality; follow blocks and believe only what verifies.
//!
//! Nothing that a node says is trusted. A [`Follower`] checks every certificate against the genesis, executes every
//! block, and compares the roots; what it shows in its [`Ledger`] follows from the genesis alone. A [`Client`] asks
//! several nodes in turn. A [`Submitter`] signs, numbers and resubmits. It keeps no files.
//!
//! | module | what |
//! | --- | --- |
//! | [`http`] | requests to nodes, bounded, with failover |
//! | [`submit`] | sign, submit, wait for finality |
//! | [`ledger`] | what the followed chain says: blocks, streams, identities, anchors |
//! | [`history`] | what changes in place, at every height |
//! | [`follow`] | the task that keeps a ledger up to date |
//! | [`prepare`] | statements of fetched blocks, verified on all processors |
//! | [`error`] | errors with a kind that tells the caller what to do |

pub mod error;
pub mod follow;
pub mod history;
pub mod http;
pub mod ledger;
pub mod prepare;
pub mod submit;

pub use cairn_chain_state::{EpochCounts, IdentityEntry, ProposalEntry, StreamEntry, ValidatorEntry, ValidatorStatus};
pub use error::{ClientError, ErrorKind};
pub use follow::{Follower, FollowerConfig, FollowerStatus};
pub use history::{CommitteeAt, KeyAt, RoleAt};
pub use http::{CertifiedHeader, Client, HeadInfo, LogProof, StatementStatus};
pub use ledger::{AnchorEntry, BlockSummary, Ledger};
pub use reqwest::Url;
pub use submit::{Finalized, SubmitError, Submitter};
