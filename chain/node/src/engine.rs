//! The consensus engine of one node, put together: simplex decides, marshal stores and delivers in order,
//! [`Proposer`](crate::application::Proposer) makes and checks blocks, the [`Orchestrator`] takes them in and runs one
//! simplex after the other, an epoch each.
//!
//! ```text
//!  p2p channel 0..2 ── votes, certificates, resolver, by epoch ──▶ simplex ──propose/verify──▶ Inline ──▶ Proposer
//!  p2p channel 3    ── backfill of finalized blocks ──▶ marshal ◀──notarized, finalized──┘
//!  p2p channel 4    ── proposed blocks ──▶ buffered ──▶ marshal ──▶ archives (blocks, finalizations)
//!  p2p channel 5    ── signatures of checkpoints ──▶ cosign ──▶ checkpoints
//!  p2p channel 6    ── statements ──▶ gossip ──▶ mempool         └──▶ Orchestrator ──▶ ledger ──▶ HTTP API
//! ```
//!
//! It is generic over the runtime and the network, so that the same wiring runs over TCP and under the
//! deterministic simulation of the tests. Nothing here reads configuration or knows of HTTP.

use std::{
    num::{NonZeroU16, NonZeroU64, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use cairn_proof::committee::VALIDATORS_MAX;
use commonware_broadcast::buffered;
use commonware_consensus::{
    Application,
    marshal::{
        self,
        core::{Actor as MarshalActor, Mailbox},
        resolver::p2p as marshal_resolver,
        standard::{Inline, Standard},
    },
    simplex::{self, scheme::ed25519::Scheme, types::Finalization},
    types::{FixedEpocher, ViewDelta},
};
use commonware_cryptography::{
    Digested, Digestible as _, Signer as _,
    ed25519::{PrivateKey, PublicKey},
    sha256::Digest,
};
use commonware_p2p::{AddressableManager, Blocker, Receiver, Sender, utils::mux};
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
    cosign,
    error::NodeError,
    gossip::{self, Outbox},
    lanes::Lane,
    network,
    orchestrator::{self, Orchestrator, Progress},
    peers::Directory,
    reputation,
    schemes::Schemes,
    shared::Shared,
    voting::Voting,
};

/// Asks marshal for stored blocks and finalizations.
pub(crate) type Marshal = Mailbox<Scheme, Standard<Block>>;

/// How many p2p channels [`start`] takes, in the order of the module's picture.
pub(crate) const CHANNELS: u64 = 7;

pub(crate) const BUFFER: NonZeroUsize = NZUsize!(256 * 1024);
const PAGE: NonZeroU16 = NZU16!(4096 - 16);
const PAGES: NonZeroUsize = NZUsize!(4096);
pub(crate) const MAILBOX: NonZeroUsize = NZUsize!(1024);
/// Blocks in one file of the archives. Large, because every file stays open: three days of heartbeats.
const ARCHIVE_SECTION: NonZeroU64 = NZU64!(262_144);
/// Entries in one file of marshal's short-lived caches, which are pruned by the file.
const CACHE_SECTION: NonZeroU64 = NZU64!(1024);
/// Views that votes are kept for behind the last finalized one.
pub(crate) const VIEWS_KEPT: u64 = 256;
pub(crate) const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const FETCH_RETRY: Duration = Duration::from_millis(100);

/// What tells one node's engine from another's.
pub(crate) struct Setup<A> {
    /// Prefix of every storage partition.
    pub(crate) partition: &'static str,
    /// Signs votes in the epochs whose committee holds it.
    pub(crate) key: PrivateKey,
    /// What votes are signed under.
    pub(crate) namespace: Vec<u8>,
    /// Makes and checks blocks; another than [`Proposer`](crate::application::Proposer) only in tests.
    pub(crate) application: A,
    pub(crate) shared: Arc<Shared>,
    /// Statements that the HTTP API accepted, to be sent to the others.
    pub(crate) outbox: Outbox,
    /// Who may connect beside the validators on chain.
    pub(crate) directory: Directory,
    /// In which epochs votes may be cast.
    pub(crate) voting: Voting,
}

/// A running engine.
pub(crate) struct Engine {
    /// Ends only when consensus ends, and says why.
    pub(crate) consensus: Handle<NodeError>,
    pub(crate) marshal: Marshal,
}

/// The largest payload that any of the engine's channels sends, for the largest committee.
pub(crate) fn max_message_size() -> u32 {
    let participants = u32::try_from(VALIDATORS_MAX).unwrap_or(u32::MAX);
    commonware_p2p::max_message_size(&[
        mux::prefixed(simplex::max_payload_size::<Scheme, Digest>(participants)),
        marshal::max_payload_size::<Standard<Block>, Scheme>(participants, &()),
        gossip::MESSAGE_BYTES_MAX,
        cosign::MESSAGE_BYTES_MAX,
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

fn storage_failed(partition: &str, what: &str) -> impl FnOnce(commonware_storage::archive::Error) -> NodeError {
    let what = format!("{what} ({partition}-{what}-*)");
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
pub(crate) async fn open<E>(context: &E, partition: &str, shared: &Shared) -> Result<Opened<E>, NodeError>
where
    E: Storage + Metrics + Clock + Spawner,
{
    let cache = CacheRef::new(PAGE, PAGES);
    let finalizations = archive(partition, "finalizations", &cache, VALIDATORS_MAX);
    let finalizations = Archive::init(context.child("finalizations"), finalizations)
        .await
        .map_err(storage_failed(partition, "finalizations"))?;
    let blocks = Archive::init(context.child("blocks"), archive(partition, "blocks", &cache, ()))
        .await
        .map_err(storage_failed(partition, "blocks"))?;
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
pub(crate) async fn start<E, A, M, B, S, R>(
    context: &E,
    opened: Opened<E>,
    setup: Setup<A>,
    manager: M,
    blocker: B,
    channels: Vec<(S, R)>,
) -> Result<Engine, NodeError>
where
    E: Spawner + Storage + Clock + Metrics + CryptoRng + Network,
    A: Application<E, SigningScheme = Scheme, Context = Place, Block = Block, Input = ()>,
    M: AddressableManager<PublicKey = PublicKey> + Sync,
    B: Blocker<PublicKey = PublicKey> + Sync,
    S: Sender<PublicKey = PublicKey>,
    R: Receiver<PublicKey = PublicKey>,
{
    let Ok([votes, certificates, resolver, backfill, broadcast, signatures, statements]) =
        <[(S, R); CHANNELS as usize]>::try_from(channels)
    else {
        return Err(NodeError::Consensus { reason: format!("expected {CHANNELS} p2p channels") });
    };
    let Opened { cache, finalizations, blocks } = opened;
    let Setup { partition, key, namespace, application, shared, outbox, directory, voting } = setup;
    let public_key = key.public_key();
    let schemes = Schemes::default();
    let epochs = epocher(&shared);
    let (marshal_actor, marshal, floor) = MarshalActor::<_, Standard<Block>, _, _, _, _, _>::init(
        context.child("marshal"),
        finalizations,
        blocks,
        marshal_config(partition, &shared, schemes.clone(), &cache),
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
        resolver_config(public_key.clone(), manager.clone(), blocker.clone()),
        backfill,
    );
    let (buffer_engine, buffer) =
        buffered::Engine::new(context.child("broadcast"), buffer_config(public_key, manager.clone()));
    buffer_engine.start(broadcast);
    gossip::start(context, Arc::clone(&shared), blocker.clone(), statements, outbox);
    cosign::start(context, Arc::clone(&shared), blocker.clone(), signatures, Some(network::signing_key(&key)));
    let automaton = Inline::new(context.child("inline"), application, marshal.clone(), epochs);
    let (reporter, updates) = orchestrator::updates();
    marshal_actor.start(reporter, buffer, backfill);

    let conflicts = reputation::start(context.child("reputation"), Arc::clone(&shared), network::signing_key(&key));
    let lanes = [("votes", votes), ("certificates", certificates), ("resolver", resolver)];
    let orchestrator = Orchestrator {
        context: context.child("epochs"),
        partition,
        key,
        namespace,
        shared,
        marshal: marshal.clone(),
        automaton,
        blocker,
        manager,
        schemes,
        directory,
        voting,
        conflicts,
        cache,
        lanes: lanes.map(|(name, channel)| Lane::start(context.child("mux").with_attribute("lane", name), channel)),
        progress: Progress::default(),
    };
    let consensus = context.child("orchestrator").spawn(move |_| Box::pin(orchestrator.run(updates)));
    Ok(Engine { consensus, marshal })
}

fn resolver_config<M, B>(
    public_key: PublicKey,
    peer_provider: M,
    blocker: B,
) -> marshal_resolver::Config<PublicKey, M, B>
where
    M: AddressableManager<PublicKey = PublicKey> + Sync,
    B: Blocker<PublicKey = PublicKey> + Sync,
{
    marshal_resolver::Config {
        public_key,
        peer_provider,
        blocker,
        mailbox_size: MAILBOX,
        fetch_timeout: NZDuration!(FETCH_TIMEOUT),
        fetch_retry_delay: FETCH_RETRY,
        priority_requests: false,
        priority_responses: false,
    }
}

fn buffer_config<M>(public_key: PublicKey, peer_provider: M) -> buffered::Config<PublicKey, (), M, Sequential>
where
    M: AddressableManager<PublicKey = PublicKey> + Sync,
{
    buffered::Config {
        public_key,
        mailbox_size: MAILBOX,
        deque_size: 16,
        priority: true,
        codec_config: (),
        peer_provider,
        strategy: Sequential,
    }
}

fn epocher(shared: &Shared) -> FixedEpocher {
    FixedEpocher::new(NonZeroU64::new(shared.epoch_blocks()).unwrap_or(NonZeroU64::MAX))
}

type MarshalConfig = marshal::Config<Schemes, FixedEpocher, Sequential, Block, Digested<Block>>;

fn marshal_config(partition: &str, shared: &Shared, schemes: Schemes, cache: &CacheRef) -> MarshalConfig {
    let genesis = Block::genesis(&shared.genesis);
    let digest = genesis.digest();
    // What is kept for peers that lag reaches at most half an epoch back, or it would be counted in whole epochs, each
    // of which has a dozen files.
    let views_kept = (shared.epoch_blocks() / 2).clamp(1, VIEWS_KEPT);
    marshal::Config {
        provider: schemes,
        epocher: epocher(shared),
        start: marshal::Start::Genesis(Digested::precomputed(genesis, digest)),
        partition_prefix: format!("{partition}-marshal"),
        mailbox_size: MAILBOX,
        view_retention: ViewDelta::new(views_kept),
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
