//! Remembers which statements' signatures were checked: each is checked once, not at admission, proposal, vote and
//! finalization again.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use cairn_chain_state::{SignatureCheck, StrictSignatures};
use cairn_proof::{
    Digest,
    identity::PublicKey,
    statement::{ChainTag, SignedStatement},
};

/// Remembered statements: a few megabytes.
const REMEMBERED_MAX: usize = 32_768;

/// Strict signature checks, with a memory shared by all clones.
///
/// A statement's id covers its signature, so (id, key) stands for exactly one check that held. One chain only.
#[derive(Clone, Default)]
pub(crate) struct Signatures(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    held: HashSet<(Digest, PublicKey)>,
    order: VecDeque<(Digest, PublicKey)>,
}

impl SignatureCheck for Signatures {
    fn holds(&self, statement: &SignedStatement, key: &PublicKey, chain: &ChainTag) -> bool {
        let check = (statement.id(), *key);
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().held.contains(&check) {
            return true;
        }
        // Checked without the lock; two threads may do the same work, which is harmless.
        if !StrictSignatures.holds(statement, key, chain) {
            return false;
        }
        let mut memory = lock();
        if memory.held.insert(check) {
            memory.order.push_back(check);
        }
        if memory.order.len() > REMEMBERED_MAX
            && let Some(oldest) = memory.order.pop_front()
        {
            memory.held.remove(&oldest);
        }
        true
    }
}

/// Takes every signature as checked: for blocks of this validator's own store, which it checked before it voted
/// for them or took them in, and whose state root is compared anyway.
pub(crate) struct CheckedBefore;

impl SignatureCheck for CheckedBefore {
    fn holds(&self, _: &SignedStatement, _: &PublicKey, _: &ChainTag) -> bool {
        true
    }
}
