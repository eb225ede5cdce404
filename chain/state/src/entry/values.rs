//! The values of the state and their canonical bytes.

use std::sync::Arc;

use cairn_proof::cbor::Writer;
use cairn_proof::committee::Committee;
use cairn_proof::digest::sha256;
use cairn_proof::identity::{IdentityId, IdentityKind, PublicKey};
use cairn_proof::parameters::Parameters;
use cairn_proof::statement::{Change, StreamDefinition};
use cairn_proof::{Digest, Height, LeafIndex, Offset, Sequence};

use crate::trie::Value;

/// A registered identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityEntry {
    /// Its name in statements.
    pub id: IdentityId,
    /// The key it was registered with; its id and its `did:key` follow from it.
    pub first_key: PublicKey,
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
    /// Block in which it was revoked, if it was.
    pub revoked: Option<Height>,
    /// From that block time on nothing it signs is taken, in milliseconds since 1970-01-01 UTC.
    pub expires_ms: Option<u64>,
}

/// A registered stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its definition.
    pub definition: StreamDefinition,
    /// Who owns it: first who registered it.
    pub owner: IdentityId,
    /// Block in which it was registered.
    pub height: Height,
    /// Id of the statement that registered it.
    pub statement: Digest,
    /// Fingerprints of the definition's schemas, in its order; those that came by an update have an entry of their own.
    pub fingerprints: Vec<Digest>,
}

/// A version of a stream's schema that came by an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaEntry {
    /// The id in Confluent framing.
    pub id: u32,
    /// SHA-256 of its text, as anchors name it.
    pub fingerprint: Digest,
    /// Id of the statement that added it.
    pub statement: Digest,
    /// Block in which it was added.
    pub height: Height,
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

/// Whether an identity has a role for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleEntry {
    /// Whether it has it now; false when it was taken away.
    pub granted: bool,
    /// Block in which that was said last.
    pub height: Height,
}

/// What a validator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ValidatorStatus {
    /// In the committee from the next freeze on.
    Active,
    /// Left out of committees until it is reinstated by vote.
    Suspended,
    /// Left out until it is added again by vote.
    Removed,
}

impl ValidatorStatus {
    /// The number in encodings.
    #[must_use]
    pub const fn code(self) -> u64 {
        match self {
            Self::Active => 1,
            Self::Suspended => 2,
            Self::Removed => 3,
        }
    }

    /// The name in text output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Removed => "removed",
        }
    }
}

/// What was counted of a validator within one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EpochCounts {
    /// Blocks it proposed.
    pub made: u64,
    /// Views it led that brought no block.
    pub missed: u64,
    /// Certificates in which its vote was seen.
    pub votes: u64,
}

/// A validator: who, where, and how it did. It is never forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatorEntry {
    /// The key it votes with in consensus.
    pub public_key: PublicKey,
    /// A name for people.
    pub name: String,
    /// `host:port` of its listener for other nodes.
    pub address: String,
    /// What it may do.
    pub status: ValidatorStatus,
    /// Since which block it has that status.
    pub since: Height,
    /// Blocks it proposed.
    pub proposals_made: u64,
    /// Views it led that brought no block.
    pub proposals_missed: u64,
    /// Attested certificates in which its vote was seen.
    pub votes_seen: u64,
    /// Proven equivocations.
    pub equivocations: u64,
    /// Epochs in a row in which it was absent.
    pub absent_epochs: u64,
    /// Of the running epoch.
    pub running: EpochCounts,
}

/// A change that validators vote on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalEntry {
    /// Its id.
    pub id: Digest,
    /// The last epoch in which it can be voted for.
    pub expires_epoch: u64,
    /// What would change.
    pub change: Change,
    /// Block of the first vote.
    pub height: Height,
    /// Consensus keys of those who voted for it, in the order of their votes; the first one opened it.
    pub votes: Vec<PublicKey>,
    /// Block in which it passed, if it did.
    pub passed: Option<Height>,
}

/// Evidence that was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceEntry {
    /// Its block.
    pub height: Height,
    /// Id of the statement that brought it.
    pub statement: Digest,
}

/// One value of the state.
#[derive(Debug, Clone)]
pub enum Entry {
    /// An identity.
    Identity(Arc<IdentityEntry>),
    /// Whose key it is, or was.
    Key(Arc<IdentityId>),
    /// The last sequence number of an identity.
    Sequence(Sequence),
    /// A stream.
    Stream(Arc<StreamEntry>),
    /// A version of a stream's schema.
    Schema(Arc<SchemaEntry>),
    /// Which stream a topic belongs to.
    Topic(Arc<str>),
    /// A role.
    Role(RoleEntry),
    /// A partition's head.
    Head(Arc<Head>),
    /// An anchor.
    Anchor(AnchorEntry),
    /// A validator.
    Validator(Arc<ValidatorEntry>),
    /// A change that is voted on, or was.
    Proposal(Arc<ProposalEntry>),
    /// A committee.
    Committee(Arc<Committee>),
    /// Parameters.
    Parameters(Arc<Parameters>),
    /// The height of the last attested certificate.
    Attested(Height),
    /// Evidence.
    Evidence(Arc<EvidenceEntry>),
}

impl Entry {
    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        self.write(&mut Writer::new(&mut bytes));
        bytes
    }

    fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Identity(entry) => entry.write(writer),
            Self::Key(id) => {
                writer.array(2);
                writer.text("key");
                writer.bytes(id.0.as_ref());
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
            Self::Schema(entry) => {
                writer.array(5);
                writer.text("schema");
                writer.unsigned(u64::from(entry.id));
                writer.bytes(entry.fingerprint.as_ref());
                writer.bytes(entry.statement.as_ref());
                writer.unsigned(entry.height.0);
            }
            Self::Topic(stream) => {
                writer.array(2);
                writer.text("topic");
                writer.text(stream);
            }
            Self::Role(entry) => {
                writer.array(3);
                writer.text("role");
                writer.bool(entry.granted);
                writer.unsigned(entry.height.0);
            }
            Self::Head(head) => head.write(writer),
            Self::Anchor(entry) => {
                writer.array(3);
                writer.text("anchor");
                writer.unsigned(entry.log_index.0);
                writer.unsigned(entry.height.0);
            }
            Self::Validator(entry) => entry.write(writer),
            Self::Proposal(entry) => entry.write(writer),
            Self::Committee(committee) => {
                writer.array(2);
                writer.text("committee");
                write_keys(committee.keys(), writer);
            }
            Self::Parameters(parameters) => {
                writer.array(2);
                writer.text("parameters");
                parameters.write(writer);
            }
            Self::Attested(height) => {
                writer.array(2);
                writer.text("attested");
                writer.unsigned(height.0);
            }
            Self::Evidence(entry) => {
                writer.array(3);
                writer.text("evidence");
                writer.unsigned(entry.height.0);
                writer.bytes(entry.statement.as_ref());
            }
        }
    }
}

fn write_keys(keys: &[PublicKey], writer: &mut Writer<'_>) {
    writer.array(keys.len());
    for key in keys {
        writer.bytes(key.as_bytes());
    }
}

fn unsigned_or_null(number: Option<u64>, writer: &mut Writer<'_>) {
    match number {
        Some(number) => writer.unsigned(number),
        None => writer.null(),
    }
}

impl IdentityEntry {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.array(9);
        writer.text("identity");
        writer.bytes(self.first_key.as_bytes());
        writer.bytes(self.public_key.as_bytes());
        writer.unsigned(self.kind.code());
        writer.text(&self.name);
        writer.bytes_or_null(self.controller.as_ref().map(|id| id.0.as_ref()));
        writer.unsigned(self.height.0);
        unsigned_or_null(self.revoked.map(|height| height.0), writer);
        unsigned_or_null(self.expires_ms, writer);
    }
}

impl Head {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.array(6);
        writer.text("head");
        writer.unsigned(self.next.0);
        writer.bytes(self.anchor.as_ref());
        writer.unsigned(self.log_index.0);
        writer.unsigned(self.records);
        writer.unsigned(self.quarantined);
    }
}

impl ValidatorEntry {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.array(11);
        writer.text("validator");
        writer.text(&self.name);
        writer.text(&self.address);
        writer.unsigned(self.status.code());
        writer.unsigned(self.since.0);
        let counts =
            [self.proposals_made, self.proposals_missed, self.votes_seen, self.equivocations, self.absent_epochs];
        counts.iter().for_each(|count| writer.unsigned(*count));
        writer.array(3);
        for count in [self.running.made, self.running.missed, self.running.votes] {
            writer.unsigned(count);
        }
    }
}

impl ProposalEntry {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.array(6);
        writer.text("proposal");
        writer.unsigned(self.expires_epoch);
        self.change.write(writer);
        writer.unsigned(self.height.0);
        write_keys(&self.votes, writer);
        unsigned_or_null(self.passed.map(|height| height.0), writer);
    }
}

impl Value for Entry {
    fn hash(&self) -> Digest {
        sha256(&[&self.encode()])
    }
}
