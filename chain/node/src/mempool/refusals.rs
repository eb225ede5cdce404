//! The last refusals, so that who submitted a statement to one validator can ask another what became of it.

use std::collections::{HashMap, VecDeque};

use cairn_chain_state::Refusal;
use cairn_proof::Digest;

/// A map that forgets the oldest refusal when it is full.
pub(super) struct Refusals {
    most: usize,
    order: VecDeque<Digest>,
    by_id: HashMap<Digest, Refusal>,
}

impl Refusals {
    pub(super) fn new(most: usize) -> Self {
        Self { most, order: VecDeque::new(), by_id: HashMap::new() }
    }

    pub(super) fn get(&self, id: &Digest) -> Option<&Refusal> {
        self.by_id.get(id)
    }

    pub(super) fn insert(&mut self, id: Digest, refusal: Refusal) {
        if self.by_id.insert(id, refusal).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }

    /// Forgets one, because the statement was taken in after all.
    pub(super) fn remove(&mut self, id: &Digest) {
        if self.by_id.remove(id).is_some() {
            self.order.retain(|other| other != id);
        }
    }
}
