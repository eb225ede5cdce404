//! What a third party has to trust in order to check a Cairn receipt, and nothing else.
//!
//! This crate defines every byte that is hashed or signed: canonical records, RFC 9162 trees, statements in
//! COSE envelopes, block headers, finality certificates and receipts. It is pure: no I/O, no clock, no
//! randomness, no async runtime. It is *not* a node, a store or a client; those import it.
//!
//! | module | what | specification |
//! | --- | --- | --- |
//! | [`cbor`] | deterministic writer and strict reader | RFC 8949, section 4.2.1 |
//! | [`record`] | canonical record bytes, salts, leaves | docs/formats.md |
//! | [`signed_record`] | records that their publisher signed | docs/formats.md |
//! | [`writer_schemas`] | schemas that a segment was decoded by | docs/formats.md |
//! | [`tree`] | Merkle roots, inclusion and consistency proofs | RFC 9162, section 2.1 |
//! | [`statement`] | signed statements: identities, streams, anchors | RFC 9052, section 4.2 |
//! | [`genesis`], [`parameters`], [`header`], [`block`] | what the chain agrees on | docs/formats.md |
//! | [`epoch`], [`committee`] | who certifies which blocks | docs/formats.md |
//! | [`certificate`], [`evidence`] | finality certificates, equivocations | docs/formats.md |
//! | [`receipt`] | one file that proves one record | docs/formats.md |
//! | [`state_proof`], [`trie`] | one file that proves an entry of the state, or its absence | docs/formats.md |
//! | [`answer`] | what a query node says about an answer, and the file that proves it | docs/formats.md |
//! | [`note`], [`checkpoint`] | the log's head, signed by validators and witnesses | C2SP signed-note, tlog-checkpoint |
//! | [`tile`], [`tlog_proof`] | where the log's hashes are served; one anchor's proof | C2SP tlog-tiles, tlog-proof |
//!
//! The byte layouts, with a worked example of each, are in `docs/formats.md`.

pub mod address;
pub mod answer;
mod base64_bytes;
pub mod block;
pub mod cbor;
pub mod certificate;
pub mod checkpoint;
pub mod committee;
pub mod digest;
pub mod epoch;
pub mod evidence;
mod form;
pub mod genesis;
pub mod header;
pub mod identity;
pub mod login;
pub mod note;
pub mod parameters;
pub mod receipt;
pub mod record;
pub mod signed_record;
pub mod state_proof;
pub mod statement;
pub mod tile;
pub mod tlog_proof;
pub mod tree;
pub mod trie;
pub mod units;
pub mod writer_schemas;

pub use base64_bytes::Base64Bytes;
pub use digest::Digest;
pub use units::{Height, LeafIndex, Offset, Partition, Sequence, TreeSize};
