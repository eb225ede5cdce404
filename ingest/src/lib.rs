//! Kafka → decoded records, in batches, for anchoring; and the publisher library.
//!
//! | module | what |
//! | --- | --- |
//! | [`ingest`] | reads all partitions of the registered streams and brings their batches onto the chain |
//! | [`decode`] | a record's value → the columns of its table, or a reason to quarantine it |
//! | [`protobuf`] | a `.proto` → a stream's schema |
//! | [`encode`], [`publisher`] | rows → values by the stream's schema → Kafka |
//! | [`signer`] | records that a publisher signs, by themselves or in runs |
//! | [`registry`] | schemas of writers by Confluent's REST API |
//! | [`update`] | whether a schema may follow those that a stream has |
//! | [`topics`] | make topics, ask where they end |
//! | [`dead_letter`] | quarantined records in a topic, with headers as Kafka Connect's |
//! | [`broker`] | the embedded Kafka-compatible broker |
//! | [`config`], [`kafka`], [`metrics`] | settings, what all Kafka clients share, what is counted |
//!
//! What is not here: leaves, segments and anchors (`cairn-anchor`), SQL (`cairn-query`), configuration files
//! (`cairn-cli`). Kafka is transport: nothing that it says about offsets is trusted over the chain.

pub mod broker;
mod columns;
pub mod config;
pub mod dead_letter;
mod decimal;
pub mod decode;
pub mod encode;
mod error;
pub mod ingest;
pub mod kafka;
pub mod metrics;
pub mod protobuf;
pub mod publisher;
pub mod registry;
mod schema;
mod signatures;
pub mod signer;
#[cfg(test)]
mod testing;
mod time;
pub mod topics;
pub mod update;

pub use config::IngestConfig;
pub use dead_letter::DeadLetterConfig;
pub use decode::{AuditDecoder, StreamDecoder};
pub use encode::Encoder;
pub use error::{Error, ErrorKind, Result};
pub use ingest::{Ingest, PartitionStatus, RunningIngest};
pub use kafka::KafkaConfig;
pub use publisher::Publisher;
pub use registry::RegistryConfig;
pub use signer::Signer;
