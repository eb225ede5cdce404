//! The consensus engine of one validator, put together: simplex decides, marshal stores and delivers in order,
//! [`Proposer`](crate::application::Proposer) makes and checks blocks, [`Finalizer`](crate::finalizer) takes them in.
//!
//! ```text
//!  p2p channel 0..2 ── votes, certificates, resolver ──▶ simplex ──propose/verify──▶ Inline ──▶ Proposer
//!  p2p channel 3    ── backfill of finalized blocks ──▶ marshal ◀──notarized, finalized──┘
//!  p2p channel 4    ── proposed blocks ──▶ buffered ──▶ marshal ──▶ archives (blocks, finalizations)
//!  p2p channel 5    ── statements ──▶ gossip ──▶ mempool         └──▶ Finalizer ──▶ ledger ──▶ HTTP API
//! ```
//!
//! It is generic over the runtime and the network, so that the same wiring runs over TCP and under the
//! deterministic simulation of the tests. Nothing here reads configuration or knows of HTTP.

use std::{
    num::{NonZeroU16, NonZeroU64, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use commonware_broadcast::buffered;
use commonware_consensus::{
    Application, CertifiableAutomaton, Relay, Reporter,
    marshal::{
        self,
        core::{Actor as MarshalActor, Mailbox},
        resolver::p2p as marshal_resolver,
        standard::{Inline, Standard},
    },
    simplex::{
        self, SkipBudget,
        config::{Floor, ForwardPolicy, SkipPolicy},
        elector::RoundRobin,
        scheme::ed25519::Scheme,
        types::{Activity, Finalization},
    },
    types::{Epoch, FixedEpocher, ViewDelta},
};
use commonware_cryptography::{
    Digested, Digestible as _, Sha256, certificate::ConstantProvider, ed25519::PublicKey, sha256::Digest,
};
use commonware_p2p::{Blocker, Provider, Receiver, Sender};
use commonware_parallel::Sequential;
use commonware_runtime::{Clock, Handle, Metrics, Network, Spawner, Storage, buffer::paged::CacheRef};
use commonware_storage::{
    archive::{Archive as _, Identifier, prunable},
    translator::EightCap,
};
use commonware_utils::{NZDuration, NZU16, NZU64, NZUsize};
use rand_core::CryptoRng;

use crate::{
    application::Place,
    block::Block,
    error::NodeError,
    finalizer,
    gossip::{self, Outbox},
    shared::Shared,
};

/// Asks marshal for stored blocks and finalizations.
pub(crate) type Marshal = Mailbox<Scheme, Standard<Block>>;

/// How many p2p channels [`start`] takes, in the order of the module's picture.
pub(crate) const CHANNELS: u64 = 6;

const BUFFER: NonZeroUsize = NZUsize!(256 * 1024);
const PAGE: NonZeroU16 = NZU16!(4096 - 16);
const PAGES: NonZeroUsize = NZUsize!(4096);
const MAILBOX: NonZeroUsize = NZUsize!(1024);
/// Blocks in one file of the archives. Large, because every file stays open: three days of heartbeats.
const ARCHIVE_SECTION: NonZeroU64 = NZU64!(262_144);
/// Entries in one file of marshal's short-lived caches, which are pruned by the file.
const CACHE_SECTION: NonZeroU64 = NZU64!(1024);
/// One epoch so far: the validator set does not change.
const EPOCHS: FixedEpocher = FixedEpocher::new(NZU64!(u64::MAX));
const VIEWS_KEPT: ViewDelta = ViewDelta::new(256);
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
const FETCH_RETRY: Duration = Duration::from_millis(100);

/// How long a view waits for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// For the leader's block.
    pub(crate) leader: Duration,
    /// For the votes on it.
    pub(crate) certification: Duration,
    /// Between two votes to give the view up.
    pub(crate) retry: Duration,
}

impl Timing {
    /// The leader waits up to one heartbeat for statements, so the others wait two for it.
    pub(crate) fn of(heartbeat: Duration) -> Self {
        let leader = heartbeat * 2;
        Self { leader, certification: leader + Duration::from_secs(1), retry: Duration::from_millis(500) }
    }

    /// A leader of whom nothing was heard for this long is passed over; it must exceed the other two.
    fn skip(self) -> Duration {
        self.certification + self.retry
    }
}

/// What tells one validator's engine from another's.
pub(crate) struct Setup<A> {
    /// Prefix of every storage partition.
    pub(crate) partition: &'static str,
    pub(crate) public_key: PublicKey,
    /// The validators and this validator's place among them.
    pub(crate) scheme: Scheme,
    pub(crate) timing: Timing,
    /// Makes and checks blocks; another than [`Proposer`](crate::application::Proposer) only in tests.
    pub(crate) application: A,
    pub(crate) shared: Arc<Shared>,
    /// Statements that the HTTP API accepted, to be sent to the others.
    pub(crate) outbox: Outbox,
}

/// A running engine.
pub(crate) struct Engine {
    /// Ends only when consensus ends.
    pub(crate) consensus: Handle<()>,
    pub(crate) marshal: Marshal,
}

/// The largest payload that any of the engine's channels sends, for a committee of `validators`.
pub(crate) fn max_message_size(validators: usize) -> u32 {
    let participants = u32::try_from(validators).unwrap_or(u32::MAX);
    commonware_p2p::max_message_size(&[
        simplex::max_payload_size::<Scheme, Digest>(participants),
        marshal::max_payload_size::<Standard<Block>, Scheme>(participants, &()),
        gossip::MESSAGE_BYTES_MAX,
    ])
}

fn archive<C>(partition: &str, name: &str, cache: &CacheRef, codec_config: C) -> prunable::Config<EightCap, C> {
    prunable::Config {
        translator: EightCap,
        metadata_partition: format!("{partition}-{name}-metadata"),
        key_partition: format!("{partition}-{name}-key"),
        key_page_cache: cache.clone(),
        value_partition: format!("{partition}-{name}-value"),
        compression: None,
        codec_config,
        items_per_section: ARCHIVE_SECTION,
        key_write_buffer: BUFFER,
        value_write_buffer: BUFFER,
        replay_buffer: BUFFER,
    }
}

fn storage_failed(what: &'static str) -> impl FnOnce(commonware_storage::archive::Error) -> NodeError {
    move |error| NodeError::Storage { what, reason: error.to_string() }
}

type Archive<E, V> = prunable::Archive<EightCap, E, Digest, V>;

/// Takes every stored block, from genesis up to the first gap, into the ledger: the state is a function of the blocks.
///
/// Blocks above a gap are delivered by marshal once it has filled the gap.
async fn replay<E>(shared: &Shared, blocks: &Archive<E, Arc<Block>>) -> Result<(), NodeError>
where
    E: Storage + Metrics + Clock + Spawner,
{
    loop {
        let next = shared.ledger.height().next();
        let failed = |reason: String| NodeError::Replay { height: next, reason };
        let stored = blocks.get(Identifier::Index(next.0)).await.map_err(|error| failed(error.to_string()))?;
        let Some(block) = stored else { break };
        shared.replay(&block).map_err(|invalid| failed(invalid.to_string()))?;
    }
    shared.replayed();
    Ok(())
}

/// The storage of one validator, with everything in it taken into the ledger.
pub(crate) struct Opened<E: Storage + Metrics + Clock + Spawner> {
    cache: CacheRef,
    finalizations: Archive<E, Finalization<Scheme, Digest>>,
    blocks: Archive<E, Arc<Block>>,
}

/// Opens the storage and replays it.
///
/// # Errors
/// When the storage cannot be opened or does not replay.
pub(crate) async fn open<E>(
    context: &E,
    partition: &str,
    validators: usize,
    shared: &Shared,
) -> Result<Opened<E>, NodeError>
where
    E: Storage + Metrics + Clock + Spawner,
{
    let cache = CacheRef::new(PAGE, PAGES);
    let finalizations = archive(partition, "finalizations", &cache, validators);
    let finalizations =
        Archive::init(context.child("finalizations"), finalizations).await.map_err(storage_failed("finalizations"))?;
    let blocks = Archive::init(context.child("blocks"), archive(partition, "blocks", &cache, ()))
        .await
        .map_err(storage_failed("blocks"))?;
    replay(shared, &blocks).await?;
    Ok(Opened { cache, finalizations, blocks })
}

/// Starts every part.
///
/// # Errors
/// When there are not [`CHANNELS`] channels.
///
/// # Panics
/// Later, in the tasks that it starts, when storage fails or a finalized block does not apply: the caller ends the
/// process then.
pub(crate) async fn start<E, A, P, B, S, R>(
    context: &E,
    opened: Opened<E>,
    setup: Setup<A>,
    peers: P,
    blocker: B,
    channels: Vec<(S, R)>,
) -> Result<Engine, NodeError>
where
    E: Spawner + Storage + Clock + Metrics + CryptoRng + Network,
    A: Application<E, SigningScheme = Scheme, Context = Place, Block = Block, Input = ()>,
    P: Provider<PublicKey = PublicKey> + Sync,
    B: Blocker<PublicKey = PublicKey> + Sync,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
{
    let Ok([votes, certificates, resolver, backfill, broadcast, statements]) =
        <[(S, R); CHANNELS as usize]>::try_from(channels)
    else {
        return Err(NodeError::Consensus { reason: format!("expected {CHANNELS} p2p channels") });
    };
    let Opened { cache, finalizations, blocks } = opened;
    let Setup { partition, public_key, scheme, timing, application, shared, outbox } = setup;
    let genesis = Block::genesis(&shared.genesis);
    let genesis_digest = genesis.digest();
    let anchor = Digested::precomputed(genesis, genesis_digest);
    let marshal_config = marshal_config(partition, anchor, scheme.clone(), &cache);
    let (marshal_actor, marshal, floor) = MarshalActor::<_, Standard<Block>, _, _, _, _, _>::init(
        context.child("marshal"),
        finalizations,
        blocks,
        marshal_config,
    )
    .await;
    let processed = floor.processed().map_or(0, |processed| processed.height().get());
    let replayed = shared.ledger.height();
    if processed > replayed.0 {
        // Recovery cuts a store off where it is damaged, and marshal repairs nothing below what was processed.
        let reason = format!("it is missing or damaged, but blocks up to {processed} were taken in before");
        return Err(NodeError::Replay { height: replayed.next(), reason });
    }
    let backfill = marshal_resolver::init(
        context.child("backfill"),
        marshal_resolver::Config {
            public_key: public_key.clone(),
            peer_provider: peers.clone(),
            blocker: blocker.clone(),
            mailbox_size: MAILBOX,
            fetch_timeout: NZDuration!(FETCH_TIMEOUT),
            fetch_retry_delay: FETCH_RETRY,
            priority_requests: false,
            priority_responses: false,
        },
        backfill,
    );
    let (buffer_engine, buffer) = buffered::Engine::new(
        context.child("broadcast"),
        buffered::Config {
            public_key,
            mailbox_size: MAILBOX,
            deque_size: 16,
            priority: true,
            codec_config: (),
            peer_provider: peers,
            strategy: Sequential,
        },
    );
    buffer_engine.start(broadcast);
    let reporter = finalizer::start(context.child("finalizer"), Arc::clone(&shared), marshal.clone());
    gossip::start(context, shared, blocker.clone(), statements, outbox);
    let automaton = Inline::new(context.child("inline"), application, marshal.clone(), EPOCHS);
    marshal_actor.start(reporter, buffer, backfill);

    let config = consensus_config(partition, scheme, timing, Floor::Genesis(genesis_digest), blocker, automaton, cache);
    let consensus = simplex::Engine::new(context.child("simplex"), config);
    Ok(Engine { consensus: consensus.start(votes, certificates, resolver), marshal })
}

type MarshalConfig = marshal::Config<ConstantProvider<Scheme, Epoch>, FixedEpocher, Sequential, Block, Digested<Block>>;

fn marshal_config(partition: &str, genesis: Digested<Block>, scheme: Scheme, cache: &CacheRef) -> MarshalConfig {
    marshal::Config {
        provider: ConstantProvider::new(scheme),
        epocher: EPOCHS,
        start: marshal::Start::Genesis(genesis),
        partition_prefix: format!("{partition}-marshal"),
        mailbox_size: MAILBOX,
        view_retention: VIEWS_KEPT,
        prunable_items_per_section: CACHE_SECTION,
        page_cache: cache.clone(),
        replay_buffer: BUFFER,
        key_write_buffer: BUFFER,
        value_write_buffer: BUFFER,
        block_codec_config: (),
        max_repair: NZUsize!(64),
        max_pending_acks: NZUsize!(16),
        strategy: Sequential,
    }
}

type ConsensusConfig<B, A> = simplex::Config<Scheme, RoundRobin<Sha256>, B, Digest, A, A, A, Sequential>;

fn consensus_config<B, A>(
    partition: &str,
    scheme: Scheme,
    timing: Timing,
    floor: Floor<Scheme, Digest>,
    blocker: B,
    automaton: A,
    cache: CacheRef,
) -> ConsensusConfig<B, A>
where
    B: Blocker<PublicKey = PublicKey>,
    A: CertifiableAutomaton<Context = Place> + Relay + Reporter<Activity = Activity<Scheme, Digest>>,
{
    simplex::Config {
        scheme,
        elector: RoundRobin::default(),
        blocker,
        automaton: automaton.clone(),
        relay: automaton.clone(),
        reporter: automaton,
        strategy: Sequential,
        partition: format!("{partition}-simplex"),
        mailbox_size: MAILBOX,
        epoch: Epoch::zero(),
        floor,
        replay_buffer: BUFFER,
        write_buffer: BUFFER,
        page_cache: cache,
        leader_timeout: timing.leader,
        certification_timeout: timing.certification,
        timeout_retry: timing.retry,
        view_retention: VIEWS_KEPT,
        skip: SkipPolicy::Enabled { timeout: timing.skip(), budget: SkipBudget::Participants },
        fetch_timeout: NZDuration!(FETCH_TIMEOUT),
        fetch_retry_delay: FETCH_RETRY,
        forward: ForwardPolicy::SilentLeader,
        track_historical_votes: false,
    }
}
