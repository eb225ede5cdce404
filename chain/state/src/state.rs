//! The chain's state: identities, streams, heads of partitions, the log, the validators; and how a statement changes it.
//!
//! Everything that decides anything stands in the trie, so that the root commits to it. Beside the trie the state keeps
//! what would be slow to look up there: committees, parameters, validators and proposals. These follow from the entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_proof::committee::Committee;
use cairn_proof::epoch;
use cairn_proof::genesis::Genesis;
use cairn_proof::identity::{IdentityId, IdentityKind, PublicKey};
use cairn_proof::parameters::Parameters;
use cairn_proof::state_proof::{StateProofParts, Subject};
use cairn_proof::statement::{Body, ChainTag, Role, SignedStatement, Statement};
use cairn_proof::tree::Frontier;
use cairn_proof::{Digest, Height, LeafIndex, Partition, Sequence, TreeSize};

use crate::entry::{
    AnchorEntry, Entry, EpochCounts, Head, IdentityEntry, ProposalEntry, StreamEntry, ValidatorEntry, ValidatorStatus,
    anchor_key, attested_key, committee_key, head_key, identity_key, key_key, next_committee_key, next_parameters_key,
    parameters_key, role_key, sequence_key, stream_key, topic_key,
};
use crate::prepared::{LogEntry, Prepared};
use crate::refusal::{Refusal, RefusalCode};
use crate::trie::{Trie, Value as _};

mod governance;
mod identities;
mod reputation;
mod streams;

pub use reputation::Round;

/// How a signature is checked. A node may remember the statements whose signature it has checked already.
pub trait SignatureCheck {
    /// Whether `key` signed this statement for `chain`.
    fn holds(&self, statement: &SignedStatement, key: &PublicKey, chain: &ChainTag) -> bool;
}

/// Checks each signature, strictly.
#[derive(Debug, Clone, Copy, Default)]
pub struct StrictSignatures;

impl SignatureCheck for StrictSignatures {
    fn holds(&self, statement: &SignedStatement, key: &PublicKey, chain: &ChainTag) -> bool {
        statement.verify(key, chain).is_ok()
    }
}

/// When a statement is applied: the block that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockTime {
    /// The block's height.
    pub height: Height,
    /// The block's own timestamp in milliseconds since 1970-01-01 UTC: no clock is read.
    pub timestamp_ms: u64,
}

/// What an applied statement did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The statement's id.
    pub id: Digest,
    /// The statement.
    pub statement: Statement,
    /// Its place in the log, if it is an anchor; of several, that of the first.
    pub log_index: Option<LeafIndex>,
    /// Its anchors as the log holds them, one after the other from there on; empty for a statement of another kind.
    pub entries: Arc<[LogEntry]>,
}

/// The state at one height. Cloning it costs a few hundred bytes, however large it is.
#[derive(Debug, Clone)]
pub struct State {
    chain: ChainTag,
    chain_id: Arc<str>,
    entries: Trie<Entry>,
    log: Frontier,
    committee: Arc<Committee>,
    next_committee: Arc<Committee>,
    parameters: Parameters,
    next_parameters: Parameters,
    validators: Arc<BTreeMap<PublicKey, Arc<ValidatorEntry>>>,
    proposals: Arc<BTreeMap<Digest, Arc<ProposalEntry>>>,
}

impl State {
    /// The state before the first block. The genesis is a checked one.
    #[must_use]
    pub fn genesis(genesis: &Genesis) -> Self {
        let committee = Arc::new(genesis.committee());
        let mut state = Self {
            chain: genesis.tag(),
            chain_id: genesis.chain_id.as_str().into(),
            entries: Trie::new(),
            log: Frontier::new(),
            committee: committee.clone(),
            next_committee: committee.clone(),
            parameters: genesis.parameters,
            next_parameters: genesis.parameters,
            validators: Arc::default(),
            proposals: Arc::default(),
        };
        for identity in &genesis.identities {
            state.register_first(identity.public_key, identity.kind, &identity.name, Height(0));
        }
        for validator in &genesis.validators {
            // A key that is listed as an identity too keeps the name and kind that it has there.
            if state.identity_of_key(&validator.public_key).is_none() {
                state.register_first(validator.public_key, IdentityKind::Node, &validator.name, Height(0));
            }
            state.put_validator(ValidatorEntry {
                public_key: validator.public_key,
                name: validator.name.clone(),
                address: validator.address.clone(),
                status: ValidatorStatus::Active,
                since: Height(0),
                proposals_made: 0,
                proposals_missed: 0,
                votes_seen: 0,
                equivocations: 0,
                absent_epochs: 0,
                running: EpochCounts::default(),
            });
        }
        state.entries.insert(committee_key(), Entry::Committee(committee.clone()));
        state.entries.insert(next_committee_key(), Entry::Committee(committee));
        state.entries.insert(parameters_key(), Entry::Parameters(Arc::new(genesis.parameters)));
        state.entries.insert(next_parameters_key(), Entry::Parameters(Arc::new(genesis.parameters)));
        state
    }

    /// Registers an identity that nobody controls.
    fn register_first(&mut self, public_key: PublicKey, kind: IdentityKind, name: &str, height: Height) {
        self.put_identity(IdentityEntry {
            id: IdentityId::of(&public_key),
            first_key: public_key,
            public_key,
            kind,
            name: name.to_owned(),
            controller: None,
            height,
            revoked: None,
            expires_ms: None,
        });
    }

    /// Root over all entries.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.entries.root()
    }

    /// RFC 9162 root over all anchors.
    #[must_use]
    pub fn log_root(&self) -> Digest {
        self.log.root()
    }

    /// How many anchors there are.
    #[must_use]
    pub const fn log_size(&self) -> TreeSize {
        self.log.size()
    }

    /// How many entries the state holds.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries.len()
    }

    /// What binds signatures to this chain.
    #[must_use]
    pub const fn chain(&self) -> &ChainTag {
        &self.chain
    }

    /// The committee that certifies the next block.
    #[must_use]
    pub const fn committee(&self) -> &Arc<Committee> {
        &self.committee
    }

    /// The committee of the next epoch, as far as it is known: before the freeze height it is the current one.
    #[must_use]
    pub const fn next_committee(&self) -> &Arc<Committee> {
        &self.next_committee
    }

    /// The parameters that hold for the next block.
    #[must_use]
    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The parameters that hold from the next epoch on, as far as it is known.
    #[must_use]
    pub const fn next_parameters(&self) -> &Parameters {
        &self.next_parameters
    }

    /// All validators there ever were, in ascending order of their keys.
    #[must_use]
    pub fn validators(&self) -> Vec<Arc<ValidatorEntry>> {
        self.validators.values().cloned().collect()
    }

    /// The validator with that consensus key.
    #[must_use]
    pub fn validator(&self, key: &PublicKey) -> Option<&Arc<ValidatorEntry>> {
        self.validators.get(key)
    }

    /// All proposals there ever were, in ascending order of their ids.
    #[must_use]
    pub fn proposals(&self) -> Vec<Arc<ProposalEntry>> {
        self.proposals.values().cloned().collect()
    }

    /// Height of the last attested certificate; 0 when there is none.
    #[must_use]
    pub fn attested(&self) -> Height {
        match self.entries.get(&attested_key()) {
            Some(Entry::Attested(height)) => *height,
            _ => Height(0),
        }
    }

    /// The identity with that id.
    #[must_use]
    pub fn identity(&self, id: &IdentityId) -> Option<&Arc<IdentityEntry>> {
        match self.entries.get(&identity_key(id)) {
            Some(Entry::Identity(entry)) => Some(entry),
            _ => None,
        }
    }

    /// Whose key it is, or was once: a key never changes hands.
    #[must_use]
    pub fn identity_of_key(&self, key: &PublicKey) -> Option<&IdentityId> {
        match self.entries.get(&key_key(key)) {
            Some(Entry::Key(id)) => Some(id),
            _ => None,
        }
    }

    /// The last sequence number that the identity used; 0 when it has said nothing yet.
    #[must_use]
    pub fn sequence(&self, id: &IdentityId) -> Sequence {
        match self.entries.get(&sequence_key(id)) {
            Some(Entry::Sequence(sequence)) => *sequence,
            _ => Sequence(0),
        }
    }

    /// The stream with that name.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<&Arc<StreamEntry>> {
        match self.entries.get(&stream_key(name)) {
            Some(Entry::Stream(entry)) => Some(entry),
            _ => None,
        }
    }

    /// The stream that a topic belongs to.
    #[must_use]
    pub fn stream_of_topic(&self, topic: &str) -> Option<&str> {
        match self.entries.get(&topic_key(topic)) {
            Some(Entry::Topic(stream)) => Some(stream),
            _ => None,
        }
    }

    /// Whether the identity has that role for the stream now.
    #[must_use]
    pub fn has_role(&self, stream: &str, role: Role, id: &IdentityId) -> bool {
        matches!(self.entries.get(&role_key(stream, role, id)), Some(Entry::Role(entry)) if entry.granted)
    }

    /// How far a partition is anchored; offset 0 and no anchor when it is not. `None` for an unknown stream or partition.
    #[must_use]
    pub fn head(&self, stream: &str, partition: Partition) -> Option<Head> {
        let entry = self.stream(stream)?;
        (partition.0 < entry.definition.partitions).then(|| self.head_at(&head_key(stream, partition)))
    }

    fn head_at(&self, key: &Digest) -> Head {
        match self.entries.get(key) {
            Some(Entry::Head(head)) => **head,
            _ => Head::default(),
        }
    }

    /// Where an anchor stands in the log.
    #[must_use]
    pub fn anchor(&self, id: &Digest) -> Option<AnchorEntry> {
        match self.entries.get(&anchor_key(id)) {
            Some(Entry::Anchor(entry)) => Some(*entry),
            _ => None,
        }
    }

    /// All streams, in no meaningful order.
    #[must_use]
    pub fn streams(&self) -> Vec<Arc<StreamEntry>> {
        let mut found = Vec::new();
        self.entries.for_each(|_, entry| {
            if let Entry::Stream(stream) = entry {
                found.push(stream.clone());
            }
        });
        found
    }

    /// Proves what the state says about a subject, or that it says nothing, under [`State::root`]. With a certified header
    /// that names the root it becomes a [`cairn_proof::state_proof::StateProof`].
    #[must_use]
    pub fn prove(&self, subject: &Subject) -> StateProofParts {
        let key = subject.key();
        let (path, found) = self.entries.prove(&key);
        let (value, neighbour) = match found {
            Some((at, entry)) if *at == key => (Some(entry.encode()), None),
            Some((at, entry)) => (None, Some((*at, entry.hash()))),
            None => (None, None),
        };
        StateProofParts { value, path, neighbour }
    }

    /// The epoch that a block at `height` lies in.
    fn epoch_of(&self, height: Height) -> u64 {
        epoch::epoch_of(height, self.parameters.epoch_blocks)
    }

    /// Applies one statement in the block at `at`.
    ///
    /// # Errors
    /// When it does not decode, is not signed by its signer, or the rules do not allow it. Nothing has changed then.
    pub fn apply(
        &mut self,
        at: &BlockTime,
        envelope: &[u8],
        signatures: &dyn SignatureCheck,
    ) -> Result<Applied, Refusal> {
        self.apply_prepared(at, Prepared::decode(envelope), signatures)
    }

    /// As [`State::apply`], for a statement that was decoded before, perhaps on another thread.
    ///
    /// # Errors
    /// As [`State::apply`].
    pub fn apply_prepared(
        &mut self,
        at: &BlockTime,
        prepared: Prepared,
        signatures: &dyn SignatureCheck,
    ) -> Result<Applied, Refusal> {
        let Prepared { decoded, entries, verified } = prepared;
        let signed = decoded.map_err(|error| Refusal::new(RefusalCode::Malformed, error.to_string()))?;
        let statement = signed.statement();
        let signer = self.usable_signer(&statement.signer, at)?.clone();
        let sequence_key = sequence_key(&signer.id);
        let last = match self.entries.get(&sequence_key) {
            Some(Entry::Sequence(sequence)) => *sequence,
            _ => Sequence(0),
        };
        if statement.sequence <= last {
            let message = format!("the sequence number must be greater than {last}, it is {}", statement.sequence);
            return Err(Refusal::new(RefusalCode::Sequence, message));
        }
        // The costly check comes after the cheap ones; nothing is written before all have passed.
        if verified != Some(signer.public_key) && !signatures.holds(&signed, &signer.public_key, &self.chain) {
            let message = format!("the signature does not verify for identity {} on this chain", signer.id);
            return Err(Refusal::new(RefusalCode::Signature, message));
        }
        let id = signed.id();
        let mut log_index = None;
        match &statement.body {
            Body::Anchor(body) => {
                log_index = Some(self.anchor_batches(at, &signer, std::slice::from_ref(body), &entries)?);
            }
            Body::Anchors(bodies) => log_index = Some(self.anchor_batches(at, &signer, bodies, &entries)?),
            Body::RegisterIdentity(body) => self.register_identity(at, &signer, body)?,
            Body::RotateKey(body) => self.rotate_key(&signer, body)?,
            Body::RevokeIdentity(body) => self.revoke_identity(at, &signer, body)?,
            Body::SetExpiry(body) => self.set_expiry(&signer, body)?,
            Body::RegisterStream(body) => self.register_stream(at, &signer, body, id)?,
            Body::SetRole(body) => self.set_role(at, &signer, body)?,
            Body::TransferStream(body) => self.transfer_stream(&signer, body)?,
            Body::UpdateStream(body) => self.update_stream(at, &signer, body, id)?,
            Body::Vote(body) => self.vote(at, &signer, body)?,
            Body::Attest(body) => self.attest(at, &signer, body)?,
            Body::Evidence(body) => self.take_evidence(at, body, id)?,
        }
        self.entries.insert(sequence_key, Entry::Sequence(statement.sequence));
        Ok(Applied { id, statement: Arc::unwrap_or_clone(signed).into_statement(), log_index, entries })
    }
}

#[cfg(test)]
mod tests;
