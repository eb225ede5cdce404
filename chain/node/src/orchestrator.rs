//! One consensus engine after the other: takes finalized blocks in, and at the last block of an epoch goes on to the next.
//!
//! Consensus knows one committee and no other. So each epoch has an engine of its own, whose views begin at 1, which
//! builds on the last block of the epoch before, and which writes its voting history to a partition of its own.
//!
//! ```text
//! marshal ── finalized block ──▶ ledger ──▶ last of its epoch? ─ no ──────────────────────────▶ acknowledge
//!                                             │ yes: the state says who the next committee is       ▲
//!                                             ▼                                                     │
//!          committee registered ─▶ peers tracked ─▶ next engine started ─▶ old engine ended ─▶ old history removed
//!
//! a message of a later epoch ──▶ its sender is asked for the last block of this one, with its certificate
//! ```
//!
//! A validator whose key the committee does not hold, or which lost its voting history ([`crate::voting`]), runs the
//! same engine without signing: it follows. A node that is epochs behind walks through them one by one; each last block
//! is believed because of its certificate by the committee that the block before names.
//!
//! Finalized blocks arrive in order, exactly once: marshal hands each of them over until it is acknowledged. One that
//! does not apply means that more than a third of the validators are faulty, or that this node's software or storage is:
//! the task panics, which ends the consensus thread and so the process. To go on would be to answer queries from a state
//! that nobody agreed on.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use cairn_proof::{Height, epoch};
use commonware_actor::Feedback;
use commonware_codec::Encode as _;
use commonware_consensus::{
    CertifiableAutomaton, Relay, Reporter,
    marshal::Update,
    simplex::{
        self, Plan, SkipBudget,
        config::{Floor, ForwardPolicy, SkipPolicy},
        elector::RoundRobin,
        scheme::ed25519::Scheme,
        types::Activity,
    },
    types::{self, Epoch, ViewDelta},
};
use commonware_cryptography::{
    Digested, Sha256, Signer as _,
    certificate::Scheme as _,
    ed25519::{PrivateKey, PublicKey},
    sha256::Digest,
};
use commonware_macros::select;
use commonware_p2p::{AddressableManager, Blocker, Sender};
use commonware_parallel::Sequential;
use commonware_runtime::{Clock, Handle, Metrics, Spawner, Storage, buffer::paged::CacheRef};
use commonware_utils::{NZDuration, acknowledgement::Exact, ordered::Set, vec::NonEmptyVec};
use futures::{
    StreamExt as _,
    channel::mpsc::{self, UnboundedReceiver, UnboundedSender},
};
use rand_core::CryptoRng;
use tracing::{info, warn};

use crate::{
    application::Place,
    block::Block,
    clock,
    engine::{BUFFER, FETCH_RETRY, FETCH_TIMEOUT, MAILBOX, Marshal, VIEWS_KEPT},
    error::NodeError,
    journals,
    lanes::{Lane, Stranger},
    peers::{Directory, PeerSet},
    reputation::{Conflicts, Watch},
    schemes::Schemes,
    shared::{EpochStart, Shared},
    voting::{Begun, Voting},
};

/// A sender of later messages is asked for the end of the present epoch this often at most.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long, beyond a heartbeat, a new data folder listens to the others before its first vote.
const LISTEN_FIRST: Duration = Duration::from_secs(2);
/// Epochs behind the previous one whose history is removed at a start, in case that was cut short.
const REMOVED_AT_START: u64 = 64;
/// What a leader may take beyond the heartbeat that it waits for statements.
const LEADER_SLACK: Duration = Duration::from_millis(1_500);

/// How long a view waits for what.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// For the leader's block.
    leader: Duration,
    /// For the votes on it.
    certification: Duration,
    /// Between two votes to give the view up.
    retry: Duration,
}

impl Timing {
    /// The leader waits up to one heartbeat for statements; what a dead one costs is this and no more.
    fn of(heartbeat: Duration) -> Self {
        let leader = heartbeat + LEADER_SLACK;
        Self { leader, certification: leader + Duration::from_secs(1), retry: Duration::from_millis(500) }
    }

    /// A leader of whom nothing was heard for this long is passed over; it must exceed the other two.
    fn skip(self) -> Duration {
        self.certification + self.retry
    }
}

/// Hands marshal's updates to the task. Its queue is bounded by marshal's `max_pending_acks`.
#[derive(Clone)]
pub(crate) struct Updates(UnboundedSender<Delivered>);

type Delivered = (Digested<Block>, Exact);

impl Reporter for Updates {
    type Activity = Update<Block>;

    fn report(&mut self, update: Self::Activity) -> Feedback {
        match update {
            // Not durable yet: the block itself follows.
            Update::Tip(..) => Feedback::Ok,
            Update::Block(block, acknowledgement) => match self.0.unbounded_send((block, acknowledgement)) {
                Ok(()) => Feedback::Ok,
                Err(_) => Feedback::Closed,
            },
        }
    }
}

/// What marshal reports to, and where it arrives.
pub(crate) fn updates() -> (Updates, UnboundedReceiver<Delivered>) {
    let (sender, receiver) = mpsc::unbounded();
    (Updates(sender), receiver)
}

/// Everything that the epochs' engines share.
pub(crate) struct Orchestrator<E, I, B, M, S: Sender<PublicKey = PublicKey>> {
    pub(crate) context: E,
    /// Prefix of every storage partition.
    pub(crate) partition: &'static str,
    pub(crate) key: PrivateKey,
    pub(crate) namespace: Vec<u8>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) marshal: Marshal,
    /// Makes, checks and reports, for every epoch.
    pub(crate) automaton: I,
    pub(crate) blocker: B,
    pub(crate) manager: M,
    pub(crate) schemes: Schemes,
    pub(crate) directory: Directory,
    pub(crate) voting: Voting,
    /// Who is told of validators that contradict themselves.
    pub(crate) conflicts: Conflicts,
    pub(crate) cache: CacheRef,
    /// Votes, certificates, resolver.
    pub(crate) lanes: [Lane<S>; 3],
    pub(crate) progress: Progress,
}

/// What the task remembers between blocks.
#[derive(Default)]
pub(crate) struct Progress {
    /// The peers tracked last, and the height since which they are.
    tracked: Option<(Height, PeerSet)>,
    /// Who spoke of later epochs: the latest one, and when the end of the present one was asked for.
    ahead: BTreeMap<PublicKey, (u64, SystemTime)>,
    /// The data folder is new, and the chain is not.
    overtaken: bool,
}

/// The engine of the present epoch; ends when dropped.
struct Active {
    epoch: u64,
    handle: Handle<()>,
}

impl Drop for Active {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

enum Event {
    Block(Delivered),
    /// A message of another epoch, on the lane with this index.
    Stranger(usize, Stranger),
    Ended(String),
}

impl<E, I, B, M, S> Orchestrator<E, I, B, M, S>
where
    E: Spawner + Storage + Clock + Metrics + CryptoRng,
    I: CertifiableAutomaton<Context = Place, Digest = Digest>
        + Relay<Digest = Digest, PublicKey = PublicKey, Plan = Plan<PublicKey>>
        + Reporter<Activity = Activity<Scheme, Digest>>,
    B: Blocker<PublicKey = PublicKey>,
    M: AddressableManager<PublicKey = PublicKey>,
    S: Sender<PublicKey = PublicKey>,
{
    /// Runs until something fails.
    pub(crate) async fn run(mut self, mut updates: UnboundedReceiver<Delivered>) -> NodeError {
        let start = self.shared.epoch_start();
        journals::remove(&self.context, self.partition, start.epoch, REMOVED_AT_START).await;
        self.track(true);
        if start.epoch == 0 && self.voting.is_new() && start.committee.len() > 1 {
            self.progress.overtaken = self.others_are_ahead(&start).await;
        }
        let mut active = match self.enter(&start).await {
            Ok(active) => active,
            Err(error) => return error,
        };
        loop {
            match self.next(&mut updates, &mut active).await {
                Event::Block((block, acknowledgement)) => {
                    let last = self.take_in(block.inner()).await;
                    if last && block.inner().header().epoch == active.epoch {
                        match self.enter(&self.shared.epoch_start()).await {
                            Ok(next) => active = next,
                            Err(error) => return error,
                        }
                        journals::remove(&self.context, self.partition, active.epoch, 1).await;
                        self.ask_those_ahead(active.epoch);
                    }
                    commonware_utils::Acknowledgement::acknowledge(acknowledgement);
                }
                Event::Stranger(lane, stranger) => self.heard(active.epoch, lane, stranger),
                Event::Ended(reason) => return NodeError::Consensus { reason },
            }
        }
    }

    /// Before the first vote of a new data folder: whether the chain is epochs old already, so that the folder replaces
    /// another one. One honest validator must say so, or liars could keep all from beginning.
    async fn others_are_ahead(&mut self, start: &EpochStart) -> bool {
        let mut over = pin!(self.context.sleep(start.heartbeat + LISTEN_FIRST));
        let (committee, mut ahead) = (start.committee.keys(), BTreeSet::new());
        while ahead.len() <= (committee.len() - 1) / 3 {
            let [votes, certificates, _] = &mut self.lanes;
            let (lane, stranger) = select! {
                _ = &mut over => { return false; },
                stranger = votes.stranger() => { (0, stranger) },
                stranger = certificates.stranger() => { (1, stranger) },
            };
            let Some(stranger) = stranger else { return false };
            let (epoch, (from, _)) = &stranger;
            if *epoch > start.epoch && committee.iter().any(|key| key.as_bytes().as_slice() == from.as_ref()) {
                ahead.insert(from.clone());
            }
            self.lanes[lane].keep(stranger);
        }
        true
    }

    async fn next(&mut self, updates: &mut UnboundedReceiver<Delivered>, active: &mut Active) -> Event {
        let [votes, certificates, resolver] = &mut self.lanes;
        let closed = || Event::Ended("the network ended by itself".into());
        select! {
            delivered = updates.next() => {
                delivered.map_or_else(|| Event::Ended("the store of blocks ended by itself".into()), Event::Block)
            },
            ended = &mut active.handle => {
                let reason = ended.map_or_else(|error| error.to_string(), |()| "it ended by itself".into());
                Event::Ended(format!("the engine of epoch {}: {reason}", active.epoch))
            },
            stranger = certificates.stranger() => {
                stranger.map_or_else(closed, |stranger| Event::Stranger(1, stranger))
            },
            stranger = votes.stranger() => {
                stranger.map_or_else(closed, |stranger| Event::Stranger(0, stranger))
            },
            stranger = resolver.stranger() => {
                stranger.map_or_else(closed, |stranger| Event::Stranger(2, stranger))
            },
        }
    }

    /// Takes a finalized block into the ledger. Returns whether it is the last of its epoch.
    async fn take_in(&mut self, block: &Block) -> bool {
        let (height, shared) = (block.height(), Arc::clone(&self.shared));
        // After a restart, marshal repeats what it was not told to be processed; replay has seen it.
        if height > shared.ledger.height() {
            let certificate = self.marshal.get_finalization(types::Height::new(height.0)).await;
            let certificate = certificate.map(|finalization| finalization.encode().to_vec());
            #[allow(clippy::panic)]
            if let Err(reason) = shared.finalize(block, certificate, clock::milliseconds(&self.context)) {
                panic!("finalized block {height} does not apply: {reason}; this validator must not go on");
            }
            self.track(epoch::is_last(height, shared.epoch_blocks()));
        }
        epoch::is_last(height, shared.epoch_blocks())
    }

    /// Starts the engine of the epoch that follows from the ledger.
    async fn enter(&mut self, start: &EpochStart) -> Result<Active, NodeError> {
        let (scheme, partition) = self.scheme(start).await?;
        let epoch = Epoch::new(start.epoch);
        self.schemes.register(epoch, scheme.clone());
        let timing = Timing::of(start.heartbeat);
        let reporter = Watch::new(self.automaton.clone(), scheme.participants().clone(), self.conflicts.clone());
        let config = simplex::Config {
            scheme,
            elector: RoundRobin::<Sha256>::default(),
            blocker: self.blocker.clone(),
            automaton: self.automaton.clone(),
            relay: self.automaton.clone(),
            reporter,
            strategy: Sequential,
            partition,
            mailbox_size: MAILBOX,
            epoch,
            floor: Floor::Genesis(Digest(start.boundary.digest().0)),
            replay_buffer: BUFFER,
            write_buffer: BUFFER,
            page_cache: self.cache.clone(),
            leader_timeout: timing.leader,
            certification_timeout: timing.certification,
            timeout_retry: timing.retry,
            view_retention: ViewDelta::new(VIEWS_KEPT),
            skip: SkipPolicy::Enabled { timeout: timing.skip(), budget: SkipBudget::Participants },
            fetch_timeout: NZDuration!(FETCH_TIMEOUT),
            fetch_retry_delay: FETCH_RETRY,
            forward: ForwardPolicy::SilentLeader,
            track_historical_votes: false,
        };
        let engine = simplex::Engine::new(self.context.child("simplex").with_attribute("epoch", epoch), config);
        let [votes, certificates, resolver] = &mut self.lanes;
        let closed = |_| NodeError::Consensus { reason: "the network ended by itself".into() };
        let votes = votes.open(start.epoch).await.map_err(closed)?;
        let certificates = certificates.open(start.epoch).await.map_err(closed)?;
        let resolver = resolver.open(start.epoch).await.map_err(closed)?;
        Ok(Active { epoch: start.epoch, handle: engine.start(votes, certificates, resolver) })
    }

    /// The committee of an epoch, with the signing key if this node may vote; and the partition of the engine's journal.
    async fn scheme(&mut self, start: &EpochStart) -> Result<(Scheme, String), NodeError> {
        let keys = start.committee.keys().iter().filter_map(crate::network::public_key);
        let committee = Set::from_iter_dedup(keys);
        let own = self.key.public_key();
        let history = journals::voting(self.partition, start.epoch);
        let member = Scheme::member(&self.namespace, committee.clone(), &own);
        let mut votes = false;
        if member.is_some() {
            match self.voting.judge(self.progress.begun(start), journals::look(&self.context, &history).await?) {
                Ok(()) => votes = true,
                Err(reason) => warn!(epoch = start.epoch, reason, "this validator does not vote in this epoch"),
            }
        }
        self.shared.enters(start.epoch, votes);
        info!(epoch = start.epoch, committee = committee.len(), votes, "epoch entered");
        if votes {
            journals::begin(&self.context, &history).await?;
            self.voting.begin(start.epoch).map_err(|error| NodeError::VotingHistory {
                partition: history.clone(),
                reason: format!("the file `voting` cannot be written: {error}"),
            })?;
            let signer = Scheme::signer(&self.namespace, committee, self.key.clone());
            let missing =
                || NodeError::Consensus { reason: "the committee holds the key, and yet it cannot sign".into() };
            return Ok((signer.ok_or_else(missing)?, history));
        }
        let scheme = member.unwrap_or_else(|| Scheme::verifier(&self.namespace, committee));
        Ok((scheme, journals::following(self.partition, start.epoch)))
    }

    /// Tells the network who may connect; at the end of an epoch even if nothing changed, so that old peers age out.
    fn track(&mut self, always: bool) {
        let (height, peers) = (self.shared.ledger.height(), self.directory.peers(&self.shared.listed()));
        let same = self.progress.tracked.as_ref().is_some_and(|(_, tracked)| *tracked == peers);
        if same && !always {
            return;
        }
        // Heights grow, and are the same for all: a peer set is known by the block after which it holds.
        let _ = self.manager.track(height.0, peers.clone());
        self.progress.tracked = Some((height, peers));
    }

    /// Takes note of a message of another epoch.
    fn heard(&mut self, epoch: u64, lane: usize, stranger: Stranger) {
        let (theirs, from) = (stranger.0, stranger.1.0.clone());
        if theirs <= epoch {
            return;
        }
        self.lanes[lane].keep(stranger);
        let now = self.context.current();
        let known = self.progress.ahead.entry(from.clone()).or_insert((theirs, SystemTime::UNIX_EPOCH));
        known.0 = known.0.max(theirs);
        if now.duration_since(known.1).is_ok_and(|since| since >= ASK_AGAIN) {
            known.1 = now;
            self.ask(epoch, NonEmptyVec::new(from));
        }
    }

    /// On entering an epoch: those who are known to be beyond it are asked for its end at once.
    fn ask_those_ahead(&mut self, epoch: u64) {
        self.progress.ahead.retain(|_, (theirs, _)| *theirs > epoch);
        let ahead: Vec<PublicKey> = self.progress.ahead.keys().cloned().collect();
        if let Ok(ahead) = NonEmptyVec::try_from(ahead) {
            self.ask(epoch, ahead);
        }
    }

    /// Marshal asks them until one answers; it believes only the epoch's committee.
    fn ask(&self, epoch: u64, ahead: NonEmptyVec<PublicKey>) {
        let last = epoch::last_of(epoch, self.shared.epoch_blocks());
        self.marshal.hint_finalized(types::Height::new(last.0), ahead);
    }
}

impl Progress {
    fn begun(&self, start: &EpochStart) -> Begun {
        Begun {
            epoch: start.epoch,
            at_ms: start.boundary.timestamp_ms,
            progressed: start.tip > start.boundary.height,
            overtaken: self.overtaken,
        }
    }
}
