//! What this validator puts on the chain by itself: evidence against those who contradict themselves, and attestations of
//! whose votes were seen.
//!
//! ```text
//! simplex ── activity ──▶ Watch ──▶ the automaton, as before
//!                           └─ conflict ─▶ task ─┐
//! ledger ── new height ────────────────────▶ task ┴─ statement signed by the validator ──▶ mempool and gossip
//! ```
//!
//! Both are statements like any other; the chain's state judges them, and nothing depends on their coming through. A
//! validator submits evidence against each other one once an epoch at most, and none against those who are suspended
//! already: one that contradicts itself in each view does not fill the chain.
//!
//! The sequence number is the one after the last that the mempool holds of this validator. Its operator may sign
//! statements with the same key, such as votes; whichever comes second is refused, and signed anew here.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_chain_state::{RefusalCode, State, ValidatorStatus};
use cairn_proof::{
    Digest, Height, epoch,
    evidence::{Equivocation, Message, SignedMessage},
    identity::{IdentityId, PublicKey, SIGNATURE_BYTES, SigningKey},
    statement::{Attest, Body, Statement},
};
use commonware_actor::Feedback;
use commonware_codec::{Encode as _, Error as CodecError, Read, ReadExt as _};
use commonware_consensus::{
    Reporter,
    simplex::{
        scheme::ed25519::Scheme,
        types::{Activity, Attributable, Finalize, Notarize, Nullify, Proposal},
    },
    types::Participant,
};
use commonware_cryptography::{certificate::Attestation, ed25519, sha256};
use commonware_macros::select;
use commonware_runtime::{Clock, Spawner};
use commonware_utils::ordered::Set;
use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::{clock, mempool::Admission, shared::Shared};

/// The proposer of each block whose height is a multiple of this attests it; more often in epochs that are short.
const ATTEST_EVERY: u64 = 16;
/// Conflicts that may wait for the task.
const CONFLICTS_MAX: usize = 64;
/// What did not come through is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);

/// What conflicts are told to.
pub(crate) type Conflicts = mpsc::Sender<Equivocation>;

/// Passes consensus' reports on, and tells of conflicts.
#[derive(Clone)]
pub(crate) struct Watch<R> {
    inner: R,
    committee: Set<ed25519::PublicKey>,
    conflicts: Conflicts,
}

impl<R> Watch<R> {
    /// Watches what one epoch's consensus, of `committee`, reports to `inner`.
    pub(crate) const fn new(inner: R, committee: Set<ed25519::PublicKey>, conflicts: Conflicts) -> Self {
        Self { inner, committee, conflicts }
    }
}

impl<R: Reporter<Activity = Activity<Scheme, sha256::Digest>>> Reporter for Watch<R> {
    type Activity = R::Activity;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        if let Some(evidence) = evidence(&activity, &self.committee) {
            // When it is full, enough is known.
            let _ = self.conflicts.try_send(evidence);
        }
        self.inner.report(activity)
    }
}

/// Two messages that contradict each other, as anybody can check them.
fn evidence(activity: &Activity<Scheme, sha256::Digest>, committee: &Set<ed25519::PublicKey>) -> Option<Equivocation> {
    let (signer, encoded) = match activity {
        Activity::ConflictingNotarize(conflict) => (conflict.signer(), conflict.encode()),
        Activity::ConflictingFinalize(conflict) => (conflict.signer(), conflict.encode()),
        Activity::NullifyFinalize(conflict) => (conflict.signer(), conflict.encode()),
        _ => return None,
    };
    // The library shows the two only in encoded form: one after the other.
    let mut bytes: Bytes = encoded;
    let read = match activity {
        Activity::ConflictingNotarize(_) => two_of(&mut bytes, notarize, notarize),
        Activity::ConflictingFinalize(_) => two_of(&mut bytes, finalize, finalize),
        _ => two_of(&mut bytes, nullify, finalize),
    };
    let (epoch, view, one, other) = read.ok()??;
    Some(Equivocation::new(key(committee, signer)?, epoch, view, one, other))
}

type Said = (u64, u64, SignedMessage);

fn two_of(
    bytes: &mut Bytes,
    first: fn(&mut Bytes) -> Result<Option<Said>, CodecError>,
    second: fn(&mut Bytes) -> Result<Option<Said>, CodecError>,
) -> Result<Option<(u64, u64, SignedMessage, SignedMessage)>, CodecError> {
    let (one, other) = (first(bytes)?, second(bytes)?);
    let both = one.zip(other);
    Ok(both.map(|((epoch, view, one), (_, _, other))| (epoch, view, one, other)))
}

fn notarize(bytes: &mut Bytes) -> Result<Option<Said>, CodecError> {
    let vote = Notarize::<Scheme, sha256::Digest>::read(bytes)?;
    Ok(said(&vote.proposal, &vote.attestation, |parent_view, payload| Message::Notarize { parent_view, payload }))
}

fn finalize(bytes: &mut Bytes) -> Result<Option<Said>, CodecError> {
    let vote = Finalize::<Scheme, sha256::Digest>::read(bytes)?;
    Ok(said(&vote.proposal, &vote.attestation, |parent_view, payload| Message::Finalize { parent_view, payload }))
}

fn nullify(bytes: &mut Bytes) -> Result<Option<Said>, CodecError> {
    let vote = Nullify::<Scheme>::read_cfg(bytes, &())?;
    let signed = signature(&vote.attestation).map(|signature| SignedMessage { message: Message::Nullify, signature });
    Ok(signed.map(|signed| (vote.round.epoch().get(), vote.round.view().get(), signed)))
}

fn said(
    proposal: &Proposal<sha256::Digest>,
    attestation: &Attestation<Scheme>,
    message: fn(u64, Digest) -> Message,
) -> Option<Said> {
    let (epoch, view) = (proposal.round.epoch().get(), proposal.round.view().get());
    let message = message(proposal.parent.get(), Digest(proposal.payload.0));
    Some((epoch, view, SignedMessage { message, signature: signature(attestation)? }))
}

fn signature(attestation: &Attestation<Scheme>) -> Option<[u8; SIGNATURE_BYTES]> {
    attestation.signature.get()?.encode().as_ref().try_into().ok()
}

fn key(committee: &Set<ed25519::PublicKey>, signer: Participant) -> Option<PublicKey> {
    let key = committee.iter().nth(usize::from(signer))?;
    PublicKey::from_bytes(key.as_ref().try_into().ok()?).ok()
}

/// Something to be said, and the statement that says it, if it waits for a block.
struct Intent {
    body: Body,
    submitted: Option<Digest>,
}

/// Starts the task. Returns what conflicts are told to.
pub(crate) fn start<E: Spawner + Clock>(context: E, shared: Arc<Shared>, key: SigningKey) -> Conflicts {
    let (sender, receiver) = mpsc::channel(CONFLICTS_MAX);
    context.spawn(move |context| async move {
        let id = IdentityId::of(&key.public());
        let (against, accused) = (BTreeMap::new(), BTreeMap::new());
        let witness = Witness { key, id, shared, against, accused, attest: None };
        witness.run(context, receiver).await;
    });
    sender
}

/// Says what this validator has to say by itself.
struct Witness {
    key: SigningKey,
    id: IdentityId,
    shared: Arc<Shared>,
    /// Evidence, by whom it is against.
    against: BTreeMap<PublicKey, Intent>,
    /// The last epoch in which each validator was accused.
    accused: BTreeMap<PublicKey, u64>,
    /// A certificate to be attested, and its block's height.
    attest: Option<(Height, Intent)>,
}

impl Witness {
    async fn run<E: Clock>(mut self, context: E, mut conflicts: mpsc::Receiver<Equivocation>) {
        let mut heights = self.shared.ledger.subscribe();
        let mut seen = heights.latest();
        loop {
            select! {
                conflict = conflicts.recv() => match conflict {
                    Some(conflict) => self.accuse(conflict),
                    // Consensus has ended.
                    None => return,
                },
                _ = heights.changed() => {},
                _ = context.sleep(RETRY) => {},
            }
            let height = heights.latest();
            while seen < height {
                seen = seen.next();
                self.look_at(seen);
            }
            self.go_on(clock::milliseconds(&context));
        }
    }

    /// Keeps evidence against a validator of whom there is none of this epoch yet.
    fn accuse(&mut self, conflict: Equivocation) {
        let (validator, tag) = (conflict.validator, self.shared.tag);
        let before = self.accused.get(&validator);
        if before.is_some_and(|epoch| *epoch >= conflict.epoch) || conflict.verify(&tag).is_err() {
            return;
        }
        self.accused.insert(validator, conflict.epoch);
        info!(%validator, epoch = conflict.epoch, view = conflict.view, "a validator contradicts itself");
        self.against.insert(validator, Intent { body: Body::Evidence(Box::new(conflict)), submitted: None });
    }

    /// Looks at a final block: whether it is to be attested, and by this validator.
    fn look_at(&mut self, height: Height) {
        let every = ATTEST_EVERY.min(self.shared.genesis.parameters.epoch_blocks / 2).max(1);
        if !height.0.is_multiple_of(every) {
            return;
        }
        let Some(block) = self.shared.ledger.recent(height) else { return };
        let Some(certificate) = block.certificate.clone() else { return };
        if block.block.header().proposer == *self.key.public().as_bytes() {
            let header = block.block.header_bytes().to_vec();
            let body = Body::Attest(Attest { header, certificate });
            self.attest = Some((height, Intent { body, submitted: None }));
        }
    }

    /// Submits what was not submitted, or was lost or refused because of its number; forgets what is of no use any more.
    fn go_on(&mut self, now_ms: u64) {
        if self.against.is_empty() && self.attest.is_none() {
            return;
        }
        let (shared, tip) = (Arc::clone(&self.shared), self.shared.ledger.tip());
        let epoch_blocks = shared.genesis.parameters.epoch_blocks;
        let next = epoch::epoch_of(tip.header.height.next(), epoch_blocks);
        self.against.retain(|validator, _| accusable(&tip.state, validator));
        let over = |height: Height| height <= tip.state.attested() || epoch::epoch_of(height, epoch_blocks) != next;
        self.attest.take_if(|(height, _)| over(*height));

        let (key, id) = (&self.key, self.id);
        self.against.retain(|_, intent| intent.say(&shared, key, id, now_ms));
        self.attest.take_if(|(_, intent)| !intent.say(&shared, key, id, now_ms));
    }
}

/// Whether evidence against the validator would still change anything.
fn accusable(state: &State, validator: &PublicKey) -> bool {
    state.validator(validator).is_some_and(|entry| entry.status == ValidatorStatus::Active)
}

impl Intent {
    /// Says it, unless it waits for a block already. Returns whether there is more to do.
    fn say(&mut self, shared: &Shared, key: &SigningKey, signer: IdentityId, now_ms: u64) -> bool {
        if let Some(id) = &self.submitted {
            if shared.ledger.locate(id).is_some() {
                return false;
            }
            if shared.mempool.contains(id) {
                return true;
            }
            if let Some(refusal) = shared.mempool.refusal(id)
                && refusal.code != RefusalCode::Sequence
            {
                debug!(%id, %refusal, "statement of this validator refused");
                return false;
            }
        }
        let sequence = shared.mempool.last_sequence(&signer).next();
        let statement = Statement { signer, sequence, body: self.body.clone() };
        let Ok(signed) = statement.sign(key, &shared.tag) else { return false };
        match shared.submit(&Bytes::from(signed), now_ms) {
            Admission::Pooled(id) | Admission::Known(id) => {
                self.submitted = Some(id);
                true
            }
            Admission::SignerFull { .. } | Admission::Full => true,
            Admission::Refused(refusal) => {
                debug!(%refusal, "statement of this validator refused");
                refusal.code == RefusalCode::Sequence
            }
        }
    }
}
