//! What is known of statements before they are applied: whose signatures were checked, and those that wait, decoded.
//! Each statement is decoded and checked once, not at admission, proposal, vote and finalization again.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use cairn_chain_state::{Prepared, SignatureCheck, StrictSignatures};
use cairn_proof::{
    Digest,
    identity::PublicKey,
    statement::{ChainTag, SignedStatement, statement_id},
};

/// Remembered statements: a few megabytes.
const REMEMBERED_MAX: usize = 32_768;

/// Strict signature checks, with a memory shared by all clones.
///
/// A statement's id covers its signature, so (id, key) stands for exactly one check that held. One chain only.
#[derive(Clone, Default)]
pub(crate) struct Signatures {
    checked: Arc<Mutex<Memory>>,
    /// Those that wait, decoded; the pool bounds them.
    waiting: Arc<RwLock<HashMap<Digest, Prepared>>>,
}

#[derive(Default)]
struct Memory {
    held: HashSet<(Digest, PublicKey)>,
    order: VecDeque<(Digest, PublicKey)>,
}

impl Signatures {
    /// Keeps the decoded form of a statement that waits.
    pub(crate) fn keep(&self, id: Digest, prepared: Prepared) {
        self.waiting.write().unwrap_or_else(PoisonError::into_inner).insert(id, prepared);
    }

    /// The statement waits no longer.
    pub(crate) fn forget(&self, id: &Digest) {
        self.waiting.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// The decoded form of a statement with this id, decoding it if it does not wait.
    pub(crate) fn prepare(&self, id: &Digest, envelope: &[u8]) -> Prepared {
        let waiting = self.waiting.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        waiting.unwrap_or_else(|| Prepared::decode(envelope))
    }

    /// As [`Signatures::prepare`], for a statement whose id is not known yet.
    pub(crate) fn prepare_unnamed(&self, envelope: &[u8]) -> Prepared {
        self.prepare(&statement_id(envelope), envelope)
    }
}

impl SignatureCheck for Signatures {
    fn holds(&self, statement: &SignedStatement, key: &PublicKey, chain: &ChainTag) -> bool {
        let check = (statement.id(), *key);
        let lock = || self.checked.lock().unwrap_or_else(PoisonError::into_inner);
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
