//! Changes of the committee and of the parameters, voted for by the operators of the honest validators.
//!
//! One change after the other, as long as at least four validators stay and at most a third of them cheat. Operators sign
//! with their validators' keys, as the validators themselves do: numbers collide, and whoever comes second signs anew.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use cairn_chain_state::{State, ValidatorEntry, ValidatorStatus};
use cairn_proof::{
    epoch::epoch_of,
    identity::{IdentityId, PublicKey},
    parameters::Parameters,
    statement::{Body, Change, Statement, Vote},
};

use super::draw::Draw;
use crate::{city::validator_key, ledger::Tip};

/// A vote that did not come through is signed anew after this long.
const AGAIN_MS: u64 = 2_000;
/// A change that is not in force after this long is given up.
const PATIENCE_MS: u64 = 15_000;

/// What is voted for at present.
struct Goal {
    vote: Vote,
    since_ms: u64,
    /// When each operator signed last.
    signed_ms: BTreeMap<usize, u64>,
}

/// The operators of the honest validators.
pub(crate) struct Governor {
    draw: Draw,
    honest: Vec<bool>,
    goal: Option<Goal>,
    next_ms: u64,
}

impl Governor {
    /// `honest` says it of every place for a validator, those that are none yet included.
    pub(crate) fn new(honest: Vec<bool>, seed: u64) -> Self {
        let mut draw = Draw::new(seed);
        let next_ms = draw.within(500, 4_000);
        Self { draw, honest, goal: None, next_ms }
    }

    /// The votes that are to be cast now, on top of the newest final block.
    pub(crate) fn votes(&mut self, tip: &Tip, now_ms: u64) -> Vec<Bytes> {
        if self
            .goal
            .as_ref()
            .is_some_and(|goal| now_ms > goal.since_ms + PATIENCE_MS || in_force(&tip.state, &goal.vote.change))
        {
            self.goal = None;
            self.next_ms = now_ms + self.draw.within(500, 4_000);
        }
        if self.goal.is_none() && now_ms >= self.next_ms {
            self.next_ms = now_ms + 1_000;
            self.goal = self.choose(tip).map(|vote| Goal { vote, since_ms: now_ms, signed_ms: BTreeMap::new() });
        }
        let Some(goal) = &mut self.goal else { return Vec::new() };
        let id = goal.vote.proposal_id();
        let proposal = tip.state.proposals().into_iter().find(|proposal| proposal.id == id);
        let voted = |key: &PublicKey| proposal.as_ref().is_some_and(|proposal| proposal.votes.contains(key));
        let mut votes = Vec::new();
        for index in (0..self.honest.len()).filter(|index| self.honest[*index]) {
            let key = validator_key(index);
            let recently = goal.signed_ms.get(&index).is_some_and(|signed_ms| now_ms < signed_ms + AGAIN_MS);
            if recently || voted(&key.public()) || !tip.state.committee().keys().contains(&key.public()) {
                continue;
            }
            goal.signed_ms.insert(index, now_ms);
            let signer = IdentityId::of(&key.public());
            let sequence = tip.state.sequence(&signer).next();
            let statement = Statement { signer, sequence, body: Body::Vote(goal.vote.clone()) };
            votes.push(statement.sign(&key, tip.state.chain()).unwrap().into());
        }
        votes
    }

    fn choose(&mut self, tip: &Tip) -> Option<Vote> {
        let state = &tip.state;
        let entries: Vec<(usize, Option<Arc<ValidatorEntry>>)> = (0..self.honest.len())
            .map(|index| (index, state.validator(&validator_key(index).public()).cloned()))
            .collect();
        let status = |entry: &Option<Arc<ValidatorEntry>>| entry.as_ref().map(|entry| entry.status);
        let active: Vec<usize> = entries
            .iter()
            .filter(|(_, entry)| status(entry) == Some(ValidatorStatus::Active))
            .map(|(index, _)| *index)
            .collect();
        let cheats = active.iter().filter(|index| !self.honest[**index]).count();
        let may_go = |index: usize| {
            let left = cheats - usize::from(!self.honest[index]);
            active.len() > 4 && left <= (active.len() - 2) / 3
        };
        let mut changes = Vec::new();
        for (index, entry) in &entries {
            let key = validator_key(*index);
            match status(entry) {
                None | Some(ValidatorStatus::Removed) if self.honest[*index] => {
                    let (name, address) = (format!("v{index}"), format!("v{index}:7000"));
                    changes.push(Change::add(&key, name, address, state.chain()));
                }
                Some(ValidatorStatus::Suspended) if self.honest[*index] => {
                    changes.push(Change::Reinstate { public_key: key.public() });
                }
                Some(ValidatorStatus::Active) if may_go(*index) => {
                    changes.push(Change::RemoveValidator { public_key: key.public() });
                }
                _ => {}
            }
        }
        let heartbeat_ms = self.draw.within(300, 700);
        changes.push(Change::SetParameters(Parameters { heartbeat_ms, ..*state.parameters() }));
        let epoch = epoch_of(tip.header.height.next(), state.parameters().epoch_blocks);
        let expires_epoch = epoch + u64::from(state.parameters().vote_epochs) / 2;
        Some(Vote { expires_epoch, change: self.draw.one(&changes).clone() })
    }
}

/// Whether the change has been made, as far as the state says so at once.
fn in_force(state: &State, change: &Change) -> bool {
    let status = |key: &PublicKey| state.validator(key).map(|entry| entry.status);
    match change {
        Change::AddValidator { public_key, .. } | Change::Reinstate { public_key } => {
            status(public_key) == Some(ValidatorStatus::Active)
        }
        Change::RemoveValidator { public_key } => status(public_key) == Some(ValidatorStatus::Removed),
        Change::SetAddress { public_key, address } => {
            state.validator(public_key).is_some_and(|entry| entry.address == *address)
        }
        Change::SetParameters(parameters) => state.next_parameters() == parameters,
    }
}
