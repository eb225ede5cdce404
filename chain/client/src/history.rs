//! What changes in place, at every height: identities, streams' owners, roles, validators, proposals, committees, parameters.
//!
//! Blocks and anchors are only ever added, so that "as of height H" is a filter over them. What stands here is replaced
//! by later blocks; each replacement is kept as a version that knows its block. An idle block costs one version of its
//! proposer, 40 bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_chain_state::{IdentityEntry, ProposalEntry, State, StreamEntry, ValidatorEntry, ValidatorStatus};
use cairn_proof::committee::Committee;
use cairn_proof::epoch;
use cairn_proof::identity::{IdentityId, PublicKey};
use cairn_proof::parameters::Parameters;
use cairn_proof::statement::{Body, Change, Role};
use cairn_proof::{Digest, Height};

/// A role that was given, or given and taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleAt {
    /// The stream's name.
    pub stream: String,
    /// Which role.
    pub role: Role,
    /// Whose.
    pub identity: IdentityId,
    /// Whether it has it.
    pub granted: bool,
    /// Block in which that was said last.
    pub height: Height,
}

/// A key that an identity signs with, or signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyAt {
    /// The identity.
    pub identity: IdentityId,
    /// The key.
    pub key: PublicKey,
    /// Block from which on it was the identity's.
    pub since: Height,
}

/// The committee from a height on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitteeAt {
    /// Its first epoch.
    pub epoch: u64,
    /// The first height that it certifies.
    pub first: Height,
    /// Its members.
    pub committee: Arc<Committee>,
}

/// The versions of one value, oldest first.
#[derive(Debug, Clone)]
struct Versions<T>(Vec<(Height, T)>);

impl<T> Default for Versions<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: PartialEq> Versions<T> {
    /// Keeps `value` as what stands after the block at `height`, if it is another one.
    fn note(&mut self, height: Height, value: T) {
        match self.0.last_mut() {
            Some((_, last)) if *last == value => {}
            Some((at, last)) if *at == height => *last = value,
            _ => self.0.push((height, value)),
        }
    }

    /// What stood after the block at `height`, and since which block.
    fn at(&self, height: Height) -> Option<&(Height, T)> {
        self.0[..self.0.partition_point(|(since, _)| *since <= height)].last()
    }
}

/// What seldom changes about a validator.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    name: String,
    address: String,
    status: ValidatorStatus,
    since: Height,
    equivocations: u64,
    absent_epochs: u64,
}

/// A validator after one block.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    standing: Arc<Standing>,
    made: u64,
    missed: u64,
    votes: u64,
}

/// Everything that changes in place.
#[derive(Debug, Default)]
pub(crate) struct History {
    identities: BTreeMap<IdentityId, Versions<Arc<IdentityEntry>>>,
    streams: BTreeMap<String, Versions<Arc<StreamEntry>>>,
    roles: BTreeMap<(String, IdentityId, Role), Versions<bool>>,
    proposals: BTreeMap<Digest, Versions<Arc<ProposalEntry>>>,
    validators: BTreeMap<PublicKey, Versions<Record>>,
    committees: Vec<CommitteeAt>,
    parameters: Versions<Parameters>,
}

impl History {
    /// What the genesis says.
    pub(crate) fn of_genesis(state: &State, identities: impl Iterator<Item = IdentityId>) -> Self {
        let mut history = Self::default();
        identities.for_each(|id| history.note_identity(Height(0), state, &id));
        history.note_block(Height(0), state);
        history
    }

    /// Notes what a statement in the block at `height` changed; `state` is the one after the block.
    pub(crate) fn note_statement(&mut self, height: Height, state: &State, body: &Body) {
        match body {
            Body::RegisterIdentity(body) => self.note_identity(height, state, &IdentityId::of(&body.public_key)),
            Body::RotateKey(body) => self.note_identity(height, state, &body.identity),
            Body::RevokeIdentity(body) => self.note_identity(height, state, &body.identity),
            Body::SetExpiry(body) => self.note_identity(height, state, &body.identity),
            Body::RegisterStream(definition) => {
                self.note_stream(height, state, &definition.name);
                for identity in &definition.anchorers {
                    self.note_role(height, state, &definition.name, Role::Anchorer, *identity);
                }
            }
            Body::TransferStream(body) => self.note_stream(height, state, &body.stream),
            Body::UpdateStream(body) => self.note_stream(height, state, &body.stream),
            Body::SetRole(body) => self.note_role(height, state, &body.stream, body.role, body.identity),
            Body::Vote(vote) => {
                let id = vote.proposal_id();
                if let Some(entry) = state.proposals().into_iter().find(|entry| entry.id == id) {
                    self.proposals.entry(id).or_default().note(height, entry);
                }
                if let Change::AddValidator { public_key, .. } = &vote.change {
                    self.note_identity(height, state, &IdentityId::of(public_key));
                }
            }
            // Validators are looked at after every block.
            Body::Anchor(_) | Body::Anchors(_) | Body::Attest(_) | Body::Evidence(_) => {}
        }
    }

    /// Notes what the end of the block at `height` changed.
    pub(crate) fn note_block(&mut self, height: Height, state: &State) {
        for entry in state.validators() {
            self.note_validator(height, &entry);
        }
        if self.committees.last().is_none_or(|last| last.committee != *state.committee()) {
            let first = if self.committees.is_empty() { Height(0) } else { height.next() };
            let epoch = epoch::epoch_of(first, state.parameters().epoch_blocks);
            self.committees.push(CommitteeAt { epoch, first, committee: Arc::clone(state.committee()) });
        }
        self.parameters.note(height, *state.parameters());
    }

    fn note_identity(&mut self, height: Height, state: &State, id: &IdentityId) {
        if let Some(entry) = state.identity(id) {
            self.identities.entry(*id).or_default().note(height, Arc::clone(entry));
        }
    }

    fn note_stream(&mut self, height: Height, state: &State, name: &str) {
        if let Some(entry) = state.stream(name) {
            self.streams.entry(name.to_owned()).or_default().note(height, Arc::clone(entry));
        }
    }

    fn note_role(&mut self, height: Height, state: &State, stream: &str, role: Role, identity: IdentityId) {
        let granted = state.has_role(stream, role, &identity);
        self.roles.entry((stream.to_owned(), identity, role)).or_default().note(height, granted);
    }

    fn note_validator(&mut self, height: Height, entry: &ValidatorEntry) {
        let versions = self.validators.entry(entry.public_key).or_default();
        let last = versions.0.last().map(|(_, record)| record);
        let counts = [entry.proposals_made, entry.proposals_missed, entry.votes_seen];
        let same = |standing: &Standing| {
            standing.name == entry.name
                && standing.address == entry.address
                && standing.status == entry.status
                && standing.since == entry.since
                && standing.equivocations == entry.equivocations
                && standing.absent_epochs == entry.absent_epochs
        };
        let standing = match last.filter(|record| same(&record.standing)) {
            Some(record) if [record.made, record.missed, record.votes] == counts => return,
            Some(record) => Arc::clone(&record.standing),
            None => Arc::new(Standing {
                name: entry.name.clone(),
                address: entry.address.clone(),
                status: entry.status,
                since: entry.since,
                equivocations: entry.equivocations,
                absent_epochs: entry.absent_epochs,
            }),
        };
        let [made, missed, votes] = counts;
        versions.note(height, Record { standing, made, missed, votes });
    }

    pub(crate) fn identities_at(&self, height: Height) -> Vec<Arc<IdentityEntry>> {
        self.identities.values().filter_map(|versions| Some(Arc::clone(&versions.at(height)?.1))).collect()
    }

    pub(crate) fn keys_at(&self, height: Height) -> Vec<KeyAt> {
        let mut keys: Vec<KeyAt> = Vec::with_capacity(self.identities.len());
        for (identity, versions) in &self.identities {
            for (since, entry) in versions.0.iter().take_while(|(since, _)| *since <= height) {
                let known = keys.last().is_some_and(|last| last.identity == *identity && last.key == entry.public_key);
                if !known {
                    keys.push(KeyAt { identity: *identity, key: entry.public_key, since: *since });
                }
            }
        }
        keys
    }

    pub(crate) fn streams_at(&self, height: Height) -> Vec<Arc<StreamEntry>> {
        self.streams.values().filter_map(|versions| Some(Arc::clone(&versions.at(height)?.1))).collect()
    }

    pub(crate) fn roles_at(&self, height: Height) -> Vec<RoleAt> {
        let at = |((stream, identity, role), versions): (&(String, IdentityId, Role), &Versions<bool>)| {
            let (since, granted) = *versions.at(height)?;
            Some(RoleAt { stream: stream.clone(), role: *role, identity: *identity, granted, height: since })
        };
        self.roles.iter().filter_map(at).collect()
    }

    pub(crate) fn proposals_at(&self, height: Height) -> Vec<Arc<ProposalEntry>> {
        self.proposals.values().filter_map(|versions| Some(Arc::clone(&versions.at(height)?.1))).collect()
    }

    pub(crate) fn validators_at(&self, height: Height) -> Vec<ValidatorEntry> {
        let at = |(key, versions): (&PublicKey, &Versions<Record>)| {
            let (_, Record { standing, made, missed, votes }) = versions.at(height)?;
            Some(ValidatorEntry {
                public_key: *key,
                name: standing.name.clone(),
                address: standing.address.clone(),
                status: standing.status,
                since: standing.since,
                proposals_made: *made,
                proposals_missed: *missed,
                votes_seen: *votes,
                equivocations: standing.equivocations,
                absent_epochs: standing.absent_epochs,
                running: cairn_chain_state::EpochCounts::default(),
            })
        };
        self.validators.iter().filter_map(at).collect()
    }

    /// The committees that had begun, or were about to, after the block at `height`.
    pub(crate) fn committees_at(&self, height: Height) -> &[CommitteeAt] {
        &self.committees[..self.committees.partition_point(|at| at.first <= height.next())]
    }

    pub(crate) fn parameters_at(&self, height: Height) -> Option<Parameters> {
        self.parameters.at(height).map(|(_, parameters)| *parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_height_sees_the_version_of_its_time() {
        let mut versions = Versions::default();
        for (height, value) in [(2, 'a'), (4, 'a'), (5, 'b'), (5, 'c'), (9, 'a')] {
            versions.note(Height(height), value);
        }
        assert_eq!(versions.0.len(), 3, "what does not change is no version");
        let at = |height| versions.at(Height(height)).map(|(since, value)| (since.0, *value));
        assert_eq!([at(1), at(2), at(4)], [None, Some((2, 'a')), Some((2, 'a'))]);
        assert_eq!([at(5), at(8), at(9), at(99)], [Some((5, 'c')), Some((5, 'c')), Some((9, 'a')), Some((9, 'a'))]);
    }
}
