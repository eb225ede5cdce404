//! How the pool moves on when a block becomes final.
//!
//! Sorting the whole pool anew costs as much as all that waits, at every block. What most blocks bring needs less: anchors
//! that the pool holds and that apply to `ready`. Then `ready` is the new `base` with the rest of the pool on top as it
//! stands, but for heights that its entries name and that no check reads, and only what is parked is tried again. Every
//! so many blocks the pool is sorted anew all the same, so that what time rules out (a key that expired) goes, and the
//! nodes that `ready` does not share with `base` with it.

use std::collections::{HashMap, HashSet};

use cairn_chain_state::{Applied, BlockTime, Refusal, RefusalCode, State};
use cairn_proof::{Digest, Sequence, statement::Body};

use super::{Entry, Inner, Key, Mempool, may_lift};
use crate::signatures::Signatures;

/// Passes over statements that are sorted: those of one signer may need those of another.
const PASSES: usize = 3;

/// Every so many blocks the whole pool is sorted.
const SORTED_EVERY: u64 = 32;

impl Mempool {
    /// Moves the pool onto the state after the next final block, the one at `last`, which did `applied`. Returns what is refused by it.
    pub(crate) fn advance(
        &self,
        last: BlockTime,
        state: &State,
        applied: &[Applied],
        now_ms: u64,
        is_final: impl Fn(&Digest) -> bool,
    ) -> Vec<(Digest, Refusal)> {
        if last.height.0.is_multiple_of(SORTED_EVERY) || !self.as_expected(state, applied) {
            return self.rebase(last, state, now_ms, is_final);
        }
        let mut guard = self.lock();
        let inner = &mut *guard;
        for done in applied {
            if let Some(key) = inner.ids.get(&done.id).copied() {
                inner.remove(&key);
                self.signatures.forget(&done.id);
            }
        }
        // A block may leave out a statement and take a later one of its signer: the first can never apply then.
        let passed_over = |done: &Applied| {
            let signer = done.statement.signer;
            inner.entries.range((signer, Sequence(0))..=(signer, state.sequence(&signer))).next().is_some()
        };
        if applied.iter().any(passed_over) {
            drop(guard);
            return self.rebase(last, state, now_ms, is_final);
        }
        inner.base = state.clone();
        inner.next = after(last);
        let parked = inner.entries.iter().filter(|(_, entry)| entry.parked.is_some());
        let parked = parked.map(|(key, entry)| (*key, entry.clone())).collect();
        // Taken out rather than cloned: it is changed in place.
        let ready = std::mem::replace(&mut inner.ready, state.clone());
        let sorted = Sorted::new(state, ready, &inner.next, &self.signatures, parked);
        let refused = self.settle(inner, sorted, now_ms);
        drop(guard);
        self.changed.notify_waiters();
        refused
    }

    /// Whether the state that a block led to differs from the last only by anchors that the pool holds and `ready` has.
    fn as_expected(&self, state: &State, applied: &[Applied]) -> bool {
        let inner = self.lock();
        // The rules and the committee change at an epoch's end.
        let same_rules = inner.base.parameters() == state.parameters()
            && std::sync::Arc::ptr_eq(inner.base.committee(), state.committee());
        // Statements of one signer that came in another order than their own are put in order by sorting alone.
        let out_of_order = |entry: &Entry| entry.parked.as_ref().is_some_and(|why| why.code == RefusalCode::Sequence);
        let in_order = inner.parked.0 == 0 || !inner.entries.values().any(out_of_order);
        let from_pool = |done: &Applied| {
            let entry = inner.ids.get(&done.id).and_then(|key| inner.entries.get(key));
            matches!(done.statement.body, Body::Anchor(_) | Body::Anchors(_))
                && entry.is_some_and(|entry| entry.parked.is_none())
        };
        same_rules && in_order && applied.iter().all(from_pool)
    }

    /// Sorts the whole pool onto the state after the block at `last`. Returns what is refused by it.
    ///
    /// The statements are applied without holding the pool: it stays open to submissions meanwhile.
    pub(crate) fn rebase(
        &self,
        last: BlockTime,
        state: &State,
        now_ms: u64,
        is_final: impl Fn(&Digest) -> bool,
    ) -> Vec<(Digest, Refusal)> {
        let next = after(last);
        let before: Vec<(Key, Entry)> = self.lock().entries.iter().map(|(key, entry)| (*key, entry.clone())).collect();
        let known: HashSet<Key> = before.iter().map(|(key, _)| *key).collect();
        let (gone, left): (Vec<_>, Vec<_>) = before.into_iter().partition(|(_, entry)| is_final(&entry.id));
        let mut sorted = Sorted::new(state, state.clone(), &next, &self.signatures, left);

        let mut inner = self.lock();
        for (key, entry) in inner.entries.iter_mut().filter(|(key, _)| !known.contains(key)) {
            match sorted.ready.apply_prepared(&next, entry.prepared(&self.signatures), &self.signatures) {
                Ok(_) => sorted.applied.push(*key),
                Err(refusal) => sorted.parked.push((*key, refusal)),
            }
        }
        for (key, entry) in gone {
            inner.remove(&key);
            self.signatures.forget(&entry.id);
        }
        inner.base = state.clone();
        inner.next = next;
        let refused = self.settle(&mut inner, sorted, now_ms);
        drop(inner);
        self.changed.notify_waiters();
        refused
    }

    /// Writes down what became of statements that were sorted. Returns what is refused.
    fn settle(&self, inner: &mut Inner, sorted: Sorted, now_ms: u64) -> Vec<(Digest, Refusal)> {
        for key in sorted.applied {
            inner.set_parked(&key, None);
        }
        let mut refused = sorted.refused;
        for (key, refusal) in sorted.parked {
            let Some(entry) = inner.entries.get(&key) else { continue };
            if now_ms.saturating_sub(entry.received_ms) >= self.config.parked_ms_max {
                refused.push((key, entry.id, refusal));
            } else {
                inner.set_parked(&key, Some(refusal));
            }
        }
        for (key, id, refusal) in &refused {
            inner.remove(key);
            self.signatures.forget(id);
            inner.refused.insert(*id, refusal.clone());
        }
        inner.ready = sorted.ready;
        refused.into_iter().map(|(_, id, refusal)| (id, refusal)).collect()
    }
}

/// The block after the one at `last`, with that block's time for want of its own.
const fn after(last: BlockTime) -> BlockTime {
    BlockTime { height: last.height.next(), timestamp_ms: last.timestamp_ms }
}

/// Statements that were sorted into those that apply and those that do not.
struct Sorted {
    /// The state with `applied` on top.
    ready: State,
    applied: Vec<Key>,
    /// What does not apply now and may later.
    parked: Vec<(Key, Refusal)>,
    /// What can never apply.
    refused: Vec<(Key, Digest, Refusal)>,
}

impl Sorted {
    /// Applies statements on top of `ready`, which is `base` with others on top, or none.
    fn new(base: &State, ready: State, at: &BlockTime, signatures: &Signatures, mut left: Vec<(Key, Entry)>) -> Self {
        let mut this = Self { ready, applied: Vec::new(), parked: Vec::new(), refused: Vec::new() };
        let mut why = HashMap::new();
        for _ in 0..PASSES {
            let before = left.len();
            left.retain(|(key, entry)| match this.ready.apply_prepared(at, entry.prepared(signatures), signatures) {
                Ok(_) => {
                    this.applied.push(*key);
                    false
                }
                Err(refusal) => {
                    why.insert(*key, refusal);
                    true
                }
            });
            if left.is_empty() || left.len() == before {
                break;
            }
        }
        for (key, entry) in left {
            // Only the finalized state can rule a statement out; the pool may yet be arranged otherwise.
            match base.clone().apply_prepared(at, entry.prepared(signatures), signatures) {
                Err(refusal) if !may_lift(refusal.code) => this.refused.push((key, entry.id, refusal)),
                _ => this.parked.extend(why.remove(&key).map(|refusal| (key, refusal))),
            }
        }
        this
    }
}
