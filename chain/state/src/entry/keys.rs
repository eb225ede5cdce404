//! The keys of the state: one hash of a name each, no two kinds alike.

use cairn_proof::digest::sha256;
use cairn_proof::identity::{IdentityId, PublicKey};
use cairn_proof::statement::Role;
use cairn_proof::{Digest, Partition};

use crate::trie::Key;

pub(crate) fn identity_key(id: &IdentityId) -> Key {
    sha256(&[b"identity/", id.0.as_ref()])
}

pub(crate) fn key_key(key: &PublicKey) -> Key {
    sha256(&[b"key/", key.as_bytes()])
}

pub(crate) fn sequence_key(id: &IdentityId) -> Key {
    sha256(&[b"sequence/", id.0.as_ref()])
}

pub(crate) fn stream_key(name: &str) -> Key {
    sha256(&[b"stream/", name.as_bytes()])
}

pub(crate) fn schema_key(stream: &str, version: u32) -> Key {
    sha256(&[b"schema/", &version.to_be_bytes(), stream.as_bytes()])
}

pub(crate) fn topic_key(topic: &str) -> Key {
    sha256(&[b"topic/", topic.as_bytes()])
}

// Codes of roles are small.
#[allow(clippy::cast_possible_truncation)]
const fn role_byte(role: Role) -> u8 {
    role.code() as u8
}

pub(crate) fn role_key(stream: &str, role: Role, id: &IdentityId) -> Key {
    sha256(&[b"role/", &[role_byte(role)], id.0.as_ref(), stream.as_bytes()])
}

pub(crate) fn head_key(stream: &str, partition: Partition) -> Key {
    sha256(&[b"head/", &partition.0.to_be_bytes(), stream.as_bytes()])
}

pub(crate) fn anchor_key(id: &Digest) -> Key {
    sha256(&[b"anchor/", id.as_ref()])
}

pub(crate) fn validator_key(key: &PublicKey) -> Key {
    sha256(&[b"validator/", key.as_bytes()])
}

pub(crate) fn proposal_key(id: &Digest) -> Key {
    sha256(&[b"proposal/", id.as_ref()])
}

pub(crate) fn committee_key() -> Key {
    sha256(&[b"committee/current"])
}

pub(crate) fn next_committee_key() -> Key {
    sha256(&[b"committee/next"])
}

pub(crate) fn parameters_key() -> Key {
    sha256(&[b"parameters/current"])
}

pub(crate) fn next_parameters_key() -> Key {
    sha256(&[b"parameters/next"])
}

pub(crate) fn attested_key() -> Key {
    sha256(&[b"attested"])
}

pub(crate) fn evidence_key(key: &PublicKey, epoch: u64, view: u64) -> Key {
    sha256(&[b"evidence/", key.as_bytes(), &epoch.to_be_bytes(), &view.to_be_bytes()])
}
