//! SQL over anchored records: DataFusion, verified reads only, one named block height per answer.
//!
//! Stream `traffic.flow` is table `traffic.flow`; the chain's own facts are in schema `cairn`. Statements run in the
//! embedded [`Engine`], come over the Postgres wire to a [`QueryService`], or as [`FlightSql`].
//!
//! ```text
//!   psql · JDBC · Grafana ──▶ wire ─┐
//!           ADBC · JDBC ──▶ flight ─┤
//!                                   ├─▶ session ──▶ statement (allow-list, AS OF)
//!            Engine::sql ───────────┘      │
//!                                          ├─▶ catalog at a height ◀── snapshot ◀── follower (the chain)
//!                                          └─▶ plan ──▶ runtime ──▶ VerifiedStore ──▶ object store
//! ```
//!
//! What holds here (DESIGN.md, section 3):
//! - **I3 No unverified byte.** Plans reach one store, the verified one; the runtime resolves no other URL.
//! - **I4 Named snapshot.** A statement sees one height from its first table to its last row, and says which.
//!
//! What this crate is not: it registers nothing, decides no rights yet, and writes nothing anywhere but events about
//! queries, where that is wanted ([`OpenLineage`]).

mod auth;
mod catalog;
mod classify;
mod clock;
mod config;
mod engine;
mod error;
mod evidence;
mod executor;
mod flight;
mod follower;
mod functions;
mod information_schema;
mod listen;
mod metrics;
mod openlineage;
mod pg_catalog;
mod pg_functions;
mod problems;
mod provenance;
mod runtime;
mod scope;
mod session;
mod settings;
mod snapshot;
mod statement;
mod structs;
mod tls;
mod wire;

pub use cairn_chain_client::{
    AnchorEntry, BlockSummary, CommitteeAt, EpochCounts, IdentityEntry, KeyAt, ProposalEntry, RoleAt, ValidatorEntry,
    ValidatorStatus,
};
pub use config::{ConfigError, FlightConfig, QueryConfig, TlsFiles, WithoutPassword};
pub use engine::{Answer, Engine, StartError};
pub use error::{QueryError, QueryErrorKind, Result, SqlState};
pub use flight::{FlightSql, RunningFlight};
pub use follower::FollowedChain;
pub use metrics::QueryMetrics;
pub use openlineage::{LineageConfig, LineageTarget, OpenLineage};
pub use provenance::Equipment;
pub use session::{Outcome, Rows, Session};
pub use snapshot::{
    BlockList, FixedSnapshots, IdentityAt, ProposalAt, Snapshot, SnapshotSource, StreamAt, ValidatorAt,
};
pub use wire::{QueryService, RunningQuery};
