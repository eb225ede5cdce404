//! What stands in the state, under which key, and the canonical bytes that its hash is over.
//!
//! ```text
//! key                                          value (deterministic CBOR)
//! SHA-256("identity/" ‖ id)                    ["identity", first key, key, kind, name, controller|null, height,
//!                                               height of revocation|null, expires_ms|null]
//! SHA-256("key/" ‖ public key)                 ["key", identity id]
//! SHA-256("sequence/" ‖ id)                    ["sequence", number]
//! SHA-256("stream/" ‖ name)                    ["stream", SHA-256 of the registering envelope, owner, height]
//! SHA-256("schema/" ‖ version u32 BE ‖ name)   ["schema", schema id, SHA-256 of its text, SHA-256 of the updating
//!                                               envelope, height]                     versions that came by update
//! SHA-256("topic/" ‖ topic)                    ["topic", stream name]
//! SHA-256("role/" ‖ role u8 ‖ id ‖ name)       ["role", granted, height]
//! SHA-256("head/" ‖ partition u32 BE ‖ name)   ["head", next offset, anchor id, log index, records, quarantined]
//! SHA-256("anchor/" ‖ anchor id)               ["anchor", log index, height]
//! SHA-256("validator/" ‖ key)                  ["validator", name, address, status, since, proposals made, missed,
//!                                               votes seen, equivocations, absent epochs, [made, missed, votes]]
//! SHA-256("proposal/" ‖ id)                    ["proposal", expires epoch, change, height, [voter…], height passed|null]
//! SHA-256("committee/current")                 ["committee", [key…]]       also "committee/next"
//! SHA-256("parameters/current")                ["parameters", [7 of them]] also "parameters/next"
//! SHA-256("attested")                          ["attested", height]
//! SHA-256("evidence/" ‖ key ‖ epoch ‖ view)    ["evidence", height, statement id]       both u64 BE
//! ```
//!
//! Every key that an identity ever had keeps its entry, so that a key means one identity for ever. The last three
//! numbers of a validator are those of the running epoch.

mod keys;
mod values;

pub(crate) use keys::{
    anchor_key, attested_key, committee_key, evidence_key, head_key, identity_key, key_key, next_committee_key,
    next_parameters_key, parameters_key, proposal_key, role_key, schema_key, sequence_key, stream_key, topic_key,
    validator_key,
};
pub use values::{
    AnchorEntry, Entry, EpochCounts, EvidenceEntry, Head, IdentityEntry, ProposalEntry, RoleEntry, SchemaEntry,
    StreamEntry, ValidatorEntry, ValidatorStatus,
};
