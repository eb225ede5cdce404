//! From batches of records to anchors on the chain, and back: segments, hash trees, verified reading, proofs, audit.
//!
//! ```text
//!            RawBatch + decoded columns
//!                      │ seal: leaves, records root, Parquet segment, BLAKE3 tree
//!                      ▼
//!   secret store ◀── Sealed ──▶ segment store ◀── VerifiedStore ◀── query, prove, audit
//!                      │ anchor                          ▲
//!                      ▼                                 │ Roots
//!                    chain ───────────── followed ───────┘
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`raw`] | the records of one batch in columns; their leaves |
//! | [`schema`] | a stream's Avro schema as table and segment columns |
//! | [`segment`] | the Parquet object of one batch: writer and reader |
//! | [`outboard`] | the BLAKE3 tree of an object |
//! | [`seal`] | all of the above for one batch |
//! | [`store`], [`s3`], [`secrets`] | where objects and batch secrets are written |
//! | [`roots`], [`verified`] | what finalized anchors name, and reading of nothing else |
//! | [`pipeline`], [`metrics`] | seal, store, submit, wait: one batch onto the chain |
//! | [`gather`] | batches that are ready at the same time, in one statement |
//! | [`prove`], [`stored`], [`audit`] | a receipt for one record; one record as it is stored; a check of everything stored |
//! | [`gc`] | removes what no anchor names, and never will |
//!
//! Stored objects are untrusted throughout; what is trusted is the chain's state as `cairn-chain-client` follows it.
//! What is not here: Kafka and decoding (`cairn-ingest`), SQL (`cairn-query`), the chain itself.

pub mod audit;
mod durable;
mod evidence;
pub mod gather;
pub mod gc;
pub mod metrics;
pub mod outboard;
pub mod pipeline;
pub mod prove;
pub mod raw;
pub mod roots;
pub mod s3;
#[cfg(test)]
#[path = "../../tests/common/s3.rs"]
mod s3_server;
#[cfg(test)]
mod s3_tests;
pub mod schema;
pub mod seal;
pub mod secrets;
pub mod segment;
pub mod store;
pub mod stored;
#[cfg(test)]
mod testing;
pub mod verified;

pub use evidence::EvidenceError;
