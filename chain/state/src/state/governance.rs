//! Votes: how the validators change who they are and what they agree on.
//!
//! ```text
//! vote ─▶ proposal, voters ─more than two thirds of the committee─▶ change ─freeze height─▶ next committee ─epoch's end─▶ committee
//! ```
//!
//! A change is tried with every vote, so that one which cannot be carried out is refused before it gathers votes. It takes
//! effect on the list of validators at once, and on committees and parameters at the end of an epoch.

use std::sync::Arc;

use cairn_proof::Height;
use cairn_proof::committee::Committee;
use cairn_proof::identity::{IdentityId, IdentityKind, PublicKey};
use cairn_proof::parameters::Parameters;
use cairn_proof::statement::{Change, Vote};

use super::{BlockTime, State};
use crate::entry::{
    Entry, EpochCounts, IdentityEntry, ProposalEntry, ValidatorEntry, ValidatorStatus, committee_key,
    next_committee_key, next_parameters_key, parameters_key, proposal_key, validator_key,
};
use crate::refusal::{Refusal, RefusalCode};
use crate::rules;

impl State {
    pub(super) fn put_validator(&mut self, entry: ValidatorEntry) {
        let entry = Arc::new(entry);
        self.entries.insert(validator_key(&entry.public_key), Entry::Validator(entry.clone()));
        Arc::make_mut(&mut self.validators).insert(entry.public_key, entry);
    }

    /// Changes what stands about a validator, if there is one with that key.
    pub(super) fn change_validator(&mut self, key: &PublicKey, change: impl FnOnce(&mut ValidatorEntry)) {
        if let Some(entry) = self.validators.get(key) {
            let mut entry = (**entry).clone();
            change(&mut entry);
            self.put_validator(entry);
        }
    }

    fn put_proposal(&mut self, entry: ProposalEntry) {
        let entry = Arc::new(entry);
        self.entries.insert(proposal_key(&entry.id), Entry::Proposal(entry.clone()));
        Arc::make_mut(&mut self.proposals).insert(entry.id, entry);
    }

    pub(super) fn all_validators(&self) -> impl Iterator<Item = &ValidatorEntry> {
        self.validators.values().map(|entry| &**entry)
    }

    /// The validator of the current committee that this identity is. Its consensus key is the identity's first key, so
    /// that rotating the key that signs statements does not touch consensus.
    pub(super) fn member(&self, signer: &IdentityEntry, what: &str) -> Result<&Arc<ValidatorEntry>, Refusal> {
        let member = self.validators.get(&signer.first_key).filter(|it| self.committee.contains(&it.public_key));
        member.ok_or_else(|| {
            let message = format!("only a validator of the committee {what}; identity {} is none", signer.id);
            Refusal::new(RefusalCode::NotAllowed, message)
        })
    }

    pub(super) fn vote(&mut self, at: &BlockTime, signer: &IdentityEntry, vote: &Vote) -> Result<(), Refusal> {
        let voter = self.member(signer, "votes")?.clone();
        let epoch = self.epoch_of(at.height);
        rules::vote_is_in_time(vote.expires_epoch, epoch, &self.parameters)?;
        let id = vote.proposal_id();
        let mut proposal = match self.proposals.get(&id) {
            Some(proposal) => (**proposal).clone(),
            None => {
                rules::may_open_another(&voter, self.proposals.values().map(|entry| &**entry), epoch)?;
                let (expires_epoch, change) = (vote.expires_epoch, vote.change.clone());
                ProposalEntry { id, expires_epoch, change, height: at.height, votes: vec![], passed: None }
            }
        };
        if let Some(height) = proposal.passed {
            return Err(Refusal::new(RefusalCode::Duplicate, format!("proposal {id} passed in block {height}")));
        }
        if proposal.votes.contains(&voter.public_key) {
            let message = format!("validator {} voted for proposal {id} already", voter.public_key);
            return Err(Refusal::new(RefusalCode::Duplicate, message));
        }
        self.may_change(&vote.change)?;
        proposal.votes.push(voter.public_key);
        // Votes of those who have left the committee since do not count.
        let votes = proposal.votes.iter().filter(|key| self.committee.contains(key)).count();
        if votes >= self.committee.quorum() {
            proposal.passed = Some(at.height);
            self.carry_out(at.height, &vote.change);
        }
        self.put_proposal(proposal);
        Ok(())
    }

    /// Whether the change could be carried out now.
    fn may_change(&self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::AddValidator { public_key, .. } => self.may_add(public_key, change),
            Change::RemoveValidator { public_key } => {
                let validator = self.known_validator(public_key)?;
                rules::somebody_stays(validator, self.all_validators())
            }
            Change::SetAddress { public_key, address } => {
                let validator = self.known_validator(public_key)?;
                if validator.address == *address {
                    let message = format!("validator {public_key} has the address {address} already");
                    return Err(Refusal::new(RefusalCode::Duplicate, message));
                }
                Ok(())
            }
            Change::Reinstate { public_key } => {
                let validator = self.known_validator(public_key)?;
                if validator.status != ValidatorStatus::Suspended {
                    let message = format!("validator {public_key} is {}, not suspended", validator.status.name());
                    return Err(Refusal::new(RefusalCode::NotAllowed, message));
                }
                rules::there_is_room(self.all_validators())
            }
            Change::SetParameters(parameters) => self.may_set(parameters),
        }
    }

    /// A validator that was not removed.
    fn known_validator(&self, key: &PublicKey) -> Result<&Arc<ValidatorEntry>, Refusal> {
        let known = self.validators.get(key).filter(|entry| entry.status != ValidatorStatus::Removed);
        known.ok_or_else(|| {
            Refusal::new(RefusalCode::UnknownIdentity, format!("there is no validator with key {key}; add it first"))
        })
    }

    fn may_add(&self, key: &PublicKey, change: &Change) -> Result<(), Refusal> {
        if let Ok(validator) = self.known_validator(key) {
            let message = format!("validator {key} is there already, {}", validator.status.name());
            return Err(Refusal::new(RefusalCode::Duplicate, message));
        }
        let owner = self.identity_of_key(key).and_then(|id| self.identity(id));
        if let Some(owner) = owner.filter(|owner| owner.first_key != *key || owner.kind != IdentityKind::Node) {
            let message = format!(
                "key {key} belongs to identity {}, a {}; a validator's key is a new one or the first of a node",
                owner.id,
                owner.kind.name()
            );
            return Err(Refusal::new(RefusalCode::Duplicate, message));
        }
        if !change.possession_holds(&self.chain) {
            let message = format!("the proof that validator key {key} is held does not verify");
            return Err(Refusal::new(RefusalCode::Signature, message));
        }
        rules::there_is_room(self.all_validators())
    }

    fn may_set(&self, parameters: &Parameters) -> Result<(), Refusal> {
        if parameters.epoch_blocks != self.parameters.epoch_blocks {
            let message = format!("epoch_blocks is {} for ever", self.parameters.epoch_blocks);
            return Err(Refusal::new(RefusalCode::NotAllowed, message));
        }
        if *parameters == self.next_parameters {
            return Err(Refusal::new(RefusalCode::Duplicate, "these are the parameters already"));
        }
        Ok(())
    }

    /// Carries out what [`State::may_change`] allowed.
    fn carry_out(&mut self, height: Height, change: &Change) {
        match change {
            Change::AddValidator { public_key, name, address, .. } => {
                self.add_validator(height, *public_key, name, address);
            }
            Change::RemoveValidator { public_key } => self.set_status(height, public_key, ValidatorStatus::Removed),
            Change::SetAddress { public_key, address } => {
                self.change_validator(public_key, |entry| entry.address.clone_from(address));
            }
            Change::Reinstate { public_key } => {
                self.set_status(height, public_key, ValidatorStatus::Active);
                self.change_validator(public_key, |entry| entry.absent_epochs = 0);
            }
            Change::SetParameters(parameters) => {
                self.next_parameters = *parameters;
                self.entries.insert(next_parameters_key(), Entry::Parameters(Arc::new(*parameters)));
            }
        }
    }

    /// A key that was a validator before keeps what was counted of it.
    fn add_validator(&mut self, height: Height, key: PublicKey, name: &str, address: &str) {
        if self.identity(&IdentityId::of(&key)).is_none() {
            self.register_first(key, IdentityKind::Node, name, height);
        }
        let before = self.validators.get(&key).map(|entry| (**entry).clone());
        let fresh = ValidatorEntry {
            public_key: key,
            name: String::new(),
            address: String::new(),
            status: ValidatorStatus::Active,
            since: height,
            proposals_made: 0,
            proposals_missed: 0,
            votes_seen: 0,
            equivocations: 0,
            absent_epochs: 0,
            running: EpochCounts::default(),
        };
        self.put_validator(ValidatorEntry {
            name: name.to_owned(),
            address: address.to_owned(),
            status: ValidatorStatus::Active,
            since: height,
            absent_epochs: 0,
            ..before.unwrap_or(fresh)
        });
    }

    pub(super) fn set_status(&mut self, height: Height, key: &PublicKey, status: ValidatorStatus) {
        self.change_validator(key, |entry| {
            entry.status = status;
            entry.since = height;
        });
    }

    /// All active validators become the next committee.
    pub(super) fn freeze(&mut self) {
        let active = self.all_validators().filter(|entry| entry.status == ValidatorStatus::Active);
        let keys: Vec<_> = active.map(|entry| entry.public_key).collect();
        // There is always one, by `rules::somebody_stays`, and never too many, by `rules::there_is_room`.
        if let Ok(next) = Committee::new(keys)
            && next != *self.next_committee
        {
            self.next_committee = Arc::new(next);
            self.entries.insert(next_committee_key(), Entry::Committee(self.next_committee.clone()));
        }
    }

    /// What was decided for the next epoch holds from the next block on.
    pub(super) fn begin_epoch(&mut self) {
        if self.committee != self.next_committee {
            self.committee = self.next_committee.clone();
            self.entries.insert(committee_key(), Entry::Committee(self.committee.clone()));
        }
        if self.parameters != self.next_parameters {
            self.parameters = self.next_parameters;
            self.entries.insert(parameters_key(), Entry::Parameters(Arc::new(self.parameters)));
        }
    }
}
