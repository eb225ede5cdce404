//! What stands in the state, under which key, and the canonical bytes that its hash is over.
//!
//! ```text
//! key                                         value (deterministic CBOR)
//! SHA-256("identity/" ‖ id)                   ["identity", key, kind, name, controller|null, height]
//! SHA-256("sequence/" ‖ id)                   ["sequence", number]
//! SHA-256("stream/" ‖ name)                   ["stream", SHA-256 of the registering envelope, owner, height]
//! SHA-256("topic/" ‖ topic)                   ["topic", stream name]
//! SHA-256("head/" ‖ partition u32 BE ‖ name)  ["head", next offset, anchor id, log index, records, quarantined]
//! SHA-256("anchor/" ‖ anchor id)              ["anchor", log index, height]
//! ```

use std::sync::Arc;

use cairn_proof::cbor::Writer;
use cairn_proof::digest::sha256;
use cairn_proof::identity::{IdentityId, IdentityKind, PublicKey};
use cairn_proof::statement::StreamDefinition;
use cairn_proof::{Digest, Height, LeafIndex, Offset, Partition, Sequence};

use crate::trie::{Key, Value};

/// A registered identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityEntry {
    /// Its name in statements.
    pub id: IdentityId,
    /// The key it signs with.
    pub public_key: PublicKey,
    /// What it stands for.
    pub kind: IdentityKind,
    /// A name for people.
    pub name: String,
    /// Who registered it; none for those of the genesis.
    pub controller: Option<IdentityId>,
    /// Block in which it was registered.
    pub height: Height,
}

/// A registered stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its definition.
    pub definition: StreamDefinition,
    /// Who registered it.
    pub owner: IdentityId,
    /// Block in which it was registered.
    pub height: Height,
    /// Id of the statement that registered it.
    pub statement: Digest,
}

/// How far a partition is anchored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The offset that the next anchor must begin with.
    pub next: Offset,
    /// Id of the last anchor; zero before the first.
    pub anchor: Digest,
    /// Place of the last anchor in the log.
    pub log_index: LeafIndex,
    /// Records anchored so far.
    pub records: u64,
    /// Of these, quarantined.
    pub quarantined: u64,
}

/// That an anchor is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnchorEntry {
    /// Its place in the log.
    pub log_index: LeafIndex,
    /// Its block.
    pub height: Height,
}

/// One value of the state.
#[derive(Debug, Clone)]
pub enum Entry {
    /// An identity.
    Identity(Arc<IdentityEntry>),
    /// The last sequence number of an identity.
    Sequence(Sequence),
    /// A stream.
    Stream(Arc<StreamEntry>),
    /// Which stream a topic belongs to.
    Topic(Arc<str>),
    /// A partition's head.
    Head(Arc<Head>),
    /// An anchor.
    Anchor(AnchorEntry),
}

pub(crate) fn identity_key(id: &IdentityId) -> Key {
    sha256(&[b"identity/", id.0.as_ref()])
}

pub(crate) fn sequence_key(id: &IdentityId) -> Key {
    sha256(&[b"sequence/", id.0.as_ref()])
}

pub(crate) fn stream_key(name: &str) -> Key {
    sha256(&[b"stream/", name.as_bytes()])
}

pub(crate) fn topic_key(topic: &str) -> Key {
    sha256(&[b"topic/", topic.as_bytes()])
}

pub(crate) fn head_key(stream: &str, partition: Partition) -> Key {
    sha256(&[b"head/", &partition.0.to_be_bytes(), stream.as_bytes()])
}

pub(crate) fn anchor_key(id: &Digest) -> Key {
    sha256(&[b"anchor/", id.as_ref()])
}

impl Entry {
    fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Identity(entry) => {
                writer.array(6);
                writer.text("identity");
                writer.bytes(entry.public_key.as_bytes());
                writer.unsigned(entry.kind.code());
                writer.text(&entry.name);
                writer.bytes_or_null(entry.controller.as_ref().map(|id| id.0.as_ref()));
                writer.unsigned(entry.height.0);
            }
            Self::Sequence(sequence) => {
                writer.array(2);
                writer.text("sequence");
                writer.unsigned(sequence.0);
            }
            Self::Stream(entry) => {
                writer.array(4);
                writer.text("stream");
                writer.bytes(entry.statement.as_ref());
                writer.bytes(entry.owner.0.as_ref());
                writer.unsigned(entry.height.0);
            }
            Self::Topic(stream) => {
                writer.array(2);
                writer.text("topic");
                writer.text(stream);
            }
            Self::Head(head) => {
                writer.array(6);
                writer.text("head");
                writer.unsigned(head.next.0);
                writer.bytes(head.anchor.as_ref());
                writer.unsigned(head.log_index.0);
                writer.unsigned(head.records);
                writer.unsigned(head.quarantined);
            }
            Self::Anchor(entry) => {
                writer.array(3);
                writer.text("anchor");
                writer.unsigned(entry.log_index.0);
                writer.unsigned(entry.height.0);
            }
        }
    }
}

impl Value for Entry {
    fn hash(&self) -> Digest {
        let mut bytes = Vec::with_capacity(128);
        self.write(&mut Writer::new(&mut bytes));
        sha256(&[&bytes])
    }
}
