//! Statements that wait for a block, bounded by count, bytes and signer.
//!
//! Two states decide about a statement. `base` is the state after the last finalized block; `ready` is `base` with
//! everything in the pool applied that applies, in (signer, sequence) order. A statement submitted over HTTP must
//! apply to `ready`: whoever submits it is told at once why it does not. One that another validator sent may
//! arrive before what it builds on, so it is *parked* instead, for some seconds. A parked or pooled statement is
//! refused only when the finalized state itself rules it out for good; that another pooled statement is in its way
//! proves nothing, for that one may never become final.
//!
//! ```text
//! submit ──applies to ready?──yes──▶ pooled ──final──▶ gone
//!    │no: told why                     │ no longer applies to base: refused, and remembered
//! receive ──applies to ready?──no──▶ parked ──▶ pooled, or refused after a time
//! ```

mod rebase;
mod refusals;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use cairn_chain_state::{BlockTime, Prepared, Refusal, RefusalCode, SignatureCheck as _, State};
use cairn_proof::{Digest, Height, Sequence, identity::IdentityId, statement::SignedStatement};
use tokio::sync::{Notify, futures::Notified};

use crate::{config::MempoolConfig, signatures::Signatures};
use refusals::Refusals;

/// At most one in so many statements (and bytes) of the pool is parked.
const PARKED_SHARE: usize = 8;

/// A statement's place in the pool.
type Key = (IdentityId, Sequence);

/// What became of a submitted statement.
#[derive(Debug, Clone)]
pub(crate) enum Admission {
    /// It waits for a block now.
    Pooled(Digest),
    /// It waited already.
    Known(Digest),
    /// It does not apply.
    Refused(Refusal),
    /// Its signer has too many statements waiting.
    SignerFull {
        /// How many are allowed.
        most: usize,
    },
    /// There is no room.
    Full,
}

/// Statements that wait for a block.
pub(crate) struct Mempool {
    config: MempoolConfig,
    signatures: Signatures,
    inner: Mutex<Inner>,
    changed: Notify,
}

struct Inner {
    entries: BTreeMap<Key, Entry>,
    ids: HashMap<Digest, Key>,
    signers: BTreeMap<IdentityId, usize>,
    bytes: usize,
    /// Of the entries: how many are parked, and their bytes.
    parked: (usize, usize),
    /// State after the last finalized block; and the next one's height, with that block's time for want of its own.
    base: State,
    next: BlockTime,
    /// `base` with the pool on top.
    ready: State,
    refused: Refusals,
}

#[derive(Clone)]
struct Entry {
    id: Digest,
    statement: Bytes,
    received_ms: u64,
    sent_ms: u64,
    /// Why it does not apply to `ready`, for a parked one.
    parked: Option<Refusal>,
}

impl Entry {
    /// The statement as it is applied.
    fn prepared(&self, signatures: &Signatures) -> Prepared {
        signatures.prepare(&self.id, &self.statement)
    }
}

/// Whether a later block may lift the refusal: a right may be granted on the way here. `Previous` may not: it is only told of an anchor that begins at the
/// partition's head, and whatever moves the head makes that anchor overlap.
pub(crate) const fn may_lift(code: RefusalCode) -> bool {
    matches!(
        code,
        RefusalCode::UnknownIdentity | RefusalCode::UnknownStream | RefusalCode::Gap | RefusalCode::NotAllowed
    )
}

impl Inner {
    fn insert(&mut self, key: Key, entry: Entry) {
        self.bytes += entry.statement.len();
        *self.signers.entry(key.0).or_default() += 1;
        self.ids.insert(entry.id, key);
        let parked = entry.parked.is_some();
        self.count_parked(parked, entry.statement.len());
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &Key) -> Option<Digest> {
        self.set_parked(key, None);
        let entry = self.entries.remove(key)?;
        self.bytes -= entry.statement.len();
        self.ids.remove(&entry.id);
        if let Some(count) = self.signers.get_mut(&key.0) {
            *count -= 1;
            if *count == 0 {
                self.signers.remove(&key.0);
            }
        }
        Some(entry.id)
    }

    fn count_parked(&mut self, parked: bool, bytes: usize) {
        if parked {
            self.parked = (self.parked.0 + 1, self.parked.1 + bytes);
        }
    }

    fn set_parked(&mut self, key: &Key, parked: Option<Refusal>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let (before, after, bytes) = (entry.parked.is_some(), parked.is_some(), entry.statement.len());
        entry.parked = parked;
        if before {
            self.parked = (self.parked.0 - 1, self.parked.1 - bytes);
        }
        self.count_parked(after, bytes);
    }

    /// The statements of `signer` that `state` does not hold, in order.
    fn after<'a>(&'a self, state: &State, signer: &IdentityId) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let first = (*signer, state.sequence(signer).next());
        self.entries.range(first..=(*signer, Sequence(u64::MAX))).map(|(_, entry)| entry)
    }
}

impl Mempool {
    /// An empty pool on top of the genesis state.
    pub(crate) fn new(config: MempoolConfig, state: State, genesis_ms: u64, signatures: Signatures) -> Self {
        let inner = Inner {
            entries: BTreeMap::new(),
            ids: HashMap::new(),
            signers: BTreeMap::new(),
            bytes: 0,
            parked: (0, 0),
            base: state.clone(),
            next: BlockTime { height: Height(1), timestamp_ms: genesis_ms },
            ready: state,
            refused: Refusals::new(config.refusals_max),
        };
        Self { config, signatures, inner: Mutex::new(inner), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when the pool has something new. `enable` it before looking at the pool.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// How many statements wait, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.entries.len(), inner.bytes)
    }

    /// Whether the statement waits.
    pub(crate) fn contains(&self, id: &Digest) -> bool {
        self.lock().ids.contains_key(id)
    }

    /// The last sequence number of `signer`, what waits included.
    pub(crate) fn last_sequence(&self, signer: &IdentityId) -> Sequence {
        self.lock().ready.sequence(signer)
    }

    /// Why the statement was refused, if that is remembered.
    pub(crate) fn refusal(&self, id: &Digest) -> Option<Refusal> {
        self.lock().refused.get(id).cloned()
    }

    /// Checks room for a statement of `signer`.
    fn room(&self, inner: &Inner, signer: &IdentityId, bytes: usize) -> Result<(), Admission> {
        let most = self.config.signer_statements_max;
        if inner.signers.get(signer).is_some_and(|count| *count >= most) {
            return Err(Admission::SignerFull { most });
        }
        if inner.entries.len() >= self.config.statements_max || inner.bytes + bytes > self.config.bytes_max {
            return Err(Admission::Full);
        }
        Ok(())
    }

    /// Whether one more statement may be parked: nobody's signature need be behind it, so that a faulty validator must
    /// not be able to fill the pool this way.
    fn room_for_parked(&self, inner: &Inner, bytes: usize) -> bool {
        let (count, parked_bytes) = inner.parked;
        count < (self.config.statements_max / PARKED_SHARE).max(1)
            && parked_bytes + bytes <= self.config.bytes_max / PARKED_SHARE
    }

    /// Checks a signature without holding the pool, so that several are checked at one time; what held is remembered.
    /// Not for statements that are refused without it, or wait already.
    fn check_ahead(&self, signed: &SignedStatement) {
        let statement = signed.statement();
        let found = {
            let inner = self.lock();
            let useful = statement.sequence > inner.ready.sequence(&statement.signer)
                && self.room(&inner, &statement.signer, 0).is_ok()
                && !inner.ids.contains_key(&signed.id());
            let signer = inner.ready.identity(&statement.signer).filter(|_| useful);
            signer.map(|signer| (signer.public_key, *inner.ready.chain()))
        };
        if let Some((key, chain)) = found {
            // Whether it held is asked again when the statement is applied, and known then if it did.
            self.signatures.holds(signed, &key, &chain);
        }
    }

    /// Takes in a statement that was handed to this validator.
    pub(crate) fn submit(&self, statement: Bytes, now_ms: u64) -> Admission {
        let signed = match SignedStatement::decode(&statement) {
            Ok(signed) => signed,
            Err(error) => return Admission::Refused(Refusal::new(RefusalCode::Malformed, error.to_string())),
        };
        let (key, id) = place(&signed);
        self.check_ahead(&signed);
        let prepared = Prepared::of(signed, &statement);
        let mut inner = self.lock();
        if inner.ids.contains_key(&id) {
            return Admission::Known(id);
        }
        if let Err(full) = self.room(&inner, &key.0, statement.len()) {
            return full;
        }
        let at = inner.next;
        match inner.ready.apply_prepared(&at, prepared.clone(), &self.signatures) {
            Ok(_) => {
                inner.refused.remove(&id);
                self.signatures.keep(id, prepared);
                inner.insert(key, Entry { id, statement, received_ms: now_ms, sent_ms: now_ms, parked: None });
                drop(inner);
                self.changed.notify_waiters();
                Admission::Pooled(id)
            }
            Err(refusal) => Admission::Refused(refusal),
        }
    }

    /// Takes in a statement that another validator sent. Returns what became of it.
    pub(crate) fn receive(&self, statement: Bytes, now_ms: u64, is_final: impl Fn(&Digest) -> bool) -> &'static str {
        let Ok(signed) = SignedStatement::decode(&statement) else { return "malformed" };
        let (key, id) = place(&signed);
        if is_final(&id) {
            return "final";
        }
        self.check_ahead(&signed);
        let prepared = Prepared::of(signed, &statement);
        let mut inner = self.lock();
        if inner.entries.contains_key(&key) {
            return if inner.ids.contains_key(&id) { "known" } else { "rival" };
        }
        if self.room(&inner, &key.0, statement.len()).is_err() {
            return "full";
        }
        let at = inner.next;
        let parked = match inner.ready.apply_prepared(&at, prepared.clone(), &self.signatures) {
            Ok(_) => None,
            Err(refusal) => {
                // Only the finalized state can rule it out; the pool on top of it may yet be arranged otherwise.
                let alone = inner.base.clone().apply_prepared(&at, prepared.clone(), &self.signatures);
                if let Err(refusal) = alone
                    && !may_lift(refusal.code)
                {
                    inner.refused.insert(id, refusal);
                    return "refused";
                }
                Some(refusal)
            }
        };
        if parked.is_some() && !self.room_for_parked(&inner, statement.len()) {
            return "full";
        }
        let outcome = if parked.is_none() { "pooled" } else { "parked" };
        inner.refused.remove(&id);
        self.signatures.keep(id, prepared);
        inner.insert(key, Entry { id, statement, received_ms: now_ms, sent_ms: now_ms, parked });
        drop(inner);
        self.changed.notify_waiters();
        outcome
    }

    /// Whether a statement waits that applies and that `state` does not hold.
    pub(crate) fn has_ready(&self, state: &State) -> bool {
        let inner = self.lock();
        inner.signers.keys().any(|signer| inner.after(state, signer).any(|entry| entry.parked.is_none()))
    }

    /// Statements that `state` does not hold, in (signer, sequence) order from a signer that `turn` picks, so that
    /// under load no signer is always first. Somewhat more than `bounds` allow, since not all of them will apply.
    pub(crate) fn candidates(&self, state: &State, turn: &Digest, bounds: (usize, usize)) -> Vec<Bytes> {
        let inner = self.lock();
        let turn = IdentityId(*turn);
        let signers = inner.signers.range(turn..).chain(inner.signers.range(..turn));
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for entry in signers.flat_map(|(signer, _)| inner.after(state, signer)) {
            if taken.len() >= bounds.0.saturating_mul(2) || bytes >= bounds.1.saturating_mul(2) {
                break;
            }
            bytes += entry.statement.len();
            taken.push(entry.statement.clone());
        }
        taken
    }

    /// Statements that have waited so long that they are sent to the other validators again.
    pub(crate) fn to_repeat(&self, now_ms: u64) -> Vec<Bytes> {
        let again = self.config.gossip_again_ms;
        let mut inner = self.lock();
        let due = inner.entries.values_mut().filter(|entry| now_ms.saturating_sub(entry.sent_ms) >= again);
        let repeat = |entry: &mut Entry| {
            entry.sent_ms = now_ms;
            entry.statement.clone()
        };
        due.map(repeat).collect()
    }
}

fn place(signed: &SignedStatement) -> (Key, Digest) {
    ((signed.statement().signer, signed.statement().sequence), signed.id())
}

#[cfg(test)]
mod tests;
