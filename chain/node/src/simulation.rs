//! The whole engine under the deterministic runtime: one of four validators lies, another crashes, links break.
//!
//! The same seed gives the same run, event for event. What commonware's own tests cover (conflicting votes,
//! equivocation) is not repeated; the liar here attacks what is ours: it proposes blocks that are wrong in every
//! part of the header, votes for anything, and gossips garbage.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cairn_proof::{Digest, Height, certificate::consensus_namespace, header::Header};
use commonware_consensus::{Application, marshal::ancestry::Ancestry, simplex::scheme::ed25519::Scheme};
use commonware_cryptography::{Digested, Digestible as _, Signer as _, ed25519::PublicKey};
use commonware_p2p::{
    Recipients, Sender as _,
    simulated::{self, Link, Network, Oracle},
};
use commonware_runtime::{Clock as _, Handle, Quota, Runner as _, Spawner as _, Supervisor as _, deterministic};
use commonware_utils::{NZU32, NZUsize, ordered::Set, probability};

use crate::{
    application::{Place, Proposer},
    block::Block,
    city::{City, INGEST, OTHER_INGEST, validator_key},
    clock,
    config::NodeConfig,
    engine::{self, Setup, Timing},
    network,
    shared::Shared,
};

type Context = deterministic::Context;

const VALIDATORS: usize = 4;
const LIAR: usize = 0;
const CRASHING: usize = 3;
const PARTITIONS: [&str; VALIDATORS] = ["v0", "v1", "v2", "v3"];
/// How many different lies there are.
const LIES: u64 = 11;
const HEARTBEAT: Duration = Duration::from_millis(200);
const RATE: Quota = Quota::per_second(NZU32!(512));

/// Proposes blocks that are wrong in one way after the other, and votes for anything.
#[derive(Clone)]
struct Liar {
    honest: Proposer,
    told: Arc<AtomicU64>,
}

impl Liar {
    fn distort(&self, header: &mut Header, statements: &mut Vec<Bytes>) {
        let other = Digest([0xee; 32]);
        match self.told.fetch_add(1, Ordering::Relaxed) % LIES {
            0 => header.state_root = other,
            1 => header.log_root = other,
            2 => header.log_size.0 += 1,
            3 => header.validators_hash = other,
            4 => header.timestamp_ms += 3_600_000,
            5 => header.timestamp_ms = 1,
            6 => header.proposer = [1; 32],
            7 => header.chain_id = "another".into(),
            8 => header.height = header.height.next(),
            9 => {
                statements.push(Bytes::from_static(b"not a statement"));
                header.statements_count += 1;
                header.statements_root = cairn_proof::block::statements_root(statements.iter().map(AsRef::as_ref));
            }
            _ => header.view += 1,
        }
    }
}

impl Application<Context> for Liar {
    type SigningScheme = Scheme;
    type Context = Place;
    type Block = Block;
    type Input = ();

    async fn propose(
        &mut self,
        context: (Context, Place),
        ancestry: impl Ancestry<Block>,
        (): (),
    ) -> Option<Digested<Block>> {
        let honest = self.honest.propose(context, ancestry, ()).await?;
        let (mut header, mut statements) = (honest.inner().header().clone(), honest.inner().statements().to_vec());
        self.distort(&mut header, &mut statements);
        let block = Block::new(header, statements);
        let digest = block.digest();
        Some(Digested::precomputed(block, digest))
    }

    async fn verify(&mut self, _: (Context, Place), _: impl Ancestry<Block>) -> bool {
        true
    }
}

/// One run of the four validators.
struct Run {
    context: Context,
    city: City,
    oracle: Oracle<PublicKey, Context>,
    keys: Vec<PublicKey>,
    shared: Vec<Arc<Shared>>,
    handles: Vec<Option<Handle<()>>>,
    lies: Arc<AtomicU64>,
    liars_gossip: Option<simulated::Sender<PublicKey, Context>>,
}

fn link() -> Link {
    Link { latency: Duration::from_millis(10), jitter: Duration::from_millis(5), success_rate: probability!(1.0) }
}

impl Run {
    async fn new(context: Context) -> Self {
        let city = City::new(VALIDATORS);
        let keys: Vec<PublicKey> =
            (0..VALIDATORS).map(|index| network::public_key(&validator_key(index).public()).unwrap()).collect();
        let config = simulated::Config {
            max_size: engine::max_message_size(VALIDATORS),
            max_peers_per_set: NZUsize!(VALIDATORS),
            disconnect_on_block: true,
            tracked_peer_sets: NZUsize!(2),
        };
        let (network, oracle) = Network::new_with_peers(context.child("network"), config, keys.clone()).await;
        network.start();
        for from in &keys {
            for to in keys.iter().filter(|to| *to != from) {
                oracle.add_link(from.clone(), to.clone(), link()).await.unwrap();
            }
        }
        let handles = (0..VALIDATORS).map(|_| None).collect();
        let lies = Arc::new(AtomicU64::new(0));
        let mut run = Self { context, city, oracle, keys, shared: Vec::new(), handles, lies, liars_gossip: None };
        for index in 0..VALIDATORS {
            run.start(index).await;
        }
        run
    }

    /// Starts a validator, or starts it again from its disk.
    async fn start(&mut self, index: usize) {
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let mut config = NodeConfig::new("unused".into(), any, Vec::new(), any);
        config.heartbeat_ms = HEARTBEAT.as_millis() as u64;
        let public = validator_key(index).public();
        let (shared, outbox) = Shared::new(self.city.genesis.clone(), public, &config);
        if index < self.shared.len() {
            self.shared[index] = Arc::clone(&shared);
        } else {
            self.shared.push(Arc::clone(&shared));
        }
        let key = network::private_key(&validator_key(index).seed()).unwrap();
        let public_key = key.public_key();
        let namespace = consensus_namespace(&shared.tag);
        let scheme = Scheme::signer(&namespace, Set::from_iter_dedup(self.keys.clone()), key).unwrap();
        let control = self.oracle.control(public_key.clone());
        let mut channels = Vec::new();
        for channel in 0..engine::CHANNELS {
            channels.push(control.register(channel, RATE).await.unwrap());
        }
        if index == LIAR {
            self.liars_gossip = channels.last().map(|(sender, _)| sender.clone());
        }
        let manager = self.oracle.manager();
        let honest = Proposer::new(Arc::clone(&shared), &config);
        let lies = Arc::clone(&self.lies);
        let context = self.context.child("validator").with_attribute("index", index);
        let handle = context.spawn(move |context| async move {
            let opened = engine::open(&context, PARTITIONS[index], VALIDATORS, &shared).await.unwrap();
            let timing = Timing::of(HEARTBEAT);
            let partition = PARTITIONS[index];
            let running = if index == LIAR {
                let application = Liar { honest, told: lies };
                let setup = Setup { partition, public_key, scheme, timing, application, shared, outbox };
                engine::start(&context, opened, setup, manager, control, channels).await
            } else {
                let setup = Setup { partition, public_key, scheme, timing, application: honest, shared, outbox };
                engine::start(&context, opened, setup, manager, control, channels).await
            };
            let _ = running.unwrap().consensus.await;
        });
        self.handles[index] = Some(handle);
    }

    fn submit(&self, index: usize, statement: Vec<u8>) -> Digest {
        let id = cairn_proof::statement::statement_id(&statement);
        self.shared[index].submit(&statement.into(), clock::milliseconds(&self.context));
        id
    }

    async fn sleep(&self, seconds: u64) {
        self.context.sleep(Duration::from_secs(seconds)).await;
    }

    async fn wait_for(&self, index: usize, height: u64) {
        while self.shared[index].ledger.height() < Height(height) {
            self.context.sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ids of the blocks that a validator holds, by height.
    fn blocks(&self, index: usize) -> BTreeMap<u64, Digest> {
        let ledger = &self.shared[index].ledger;
        (1..=ledger.height().0).filter_map(|height| Some((height, ledger.recent(Height(height))?.block.id()))).collect()
    }
}

async fn scenario(context: Context) -> BTreeMap<u64, Digest> {
    let mut run = Run::new(context).await;
    let mut ids = vec![run.submit(1, run.city.register_stream(1))];
    run.wait_for(1, 3).await;
    let mut previous = Digest::ZERO;
    for at in 0..4_u64 {
        let (statement, id) = run.city.anchor(INGEST, 1 + at, 0, at * 10, previous);
        ids.push(run.submit(1 + (at % 3) as usize, statement));
        previous = id;
        run.sleep(1).await;
    }
    // One crashes; with the liar that leaves two of four who do as they should, so nothing becomes final.
    run.handles[CRASHING].take().unwrap().abort();
    run.sleep(1).await;
    let (statement, id) = run.city.anchor(OTHER_INGEST, 1, 1, 0, Digest::ZERO);
    ids.push(run.submit(1, statement));
    run.sleep(5).await;
    run.start(CRASHING).await;
    run.wait_for(CRASHING, run.shared[1].ledger.height().0 + 3).await;
    // Two lose each other for a while; the others still reach both.
    for (from, to) in [(1, 2), (2, 1)] {
        run.oracle.remove_link(run.keys[from].clone(), run.keys[to].clone()).await.unwrap();
    }
    let (statement, _) = run.city.anchor(OTHER_INGEST, 2, 1, 10, id);
    ids.push(run.submit(2, statement));
    run.sleep(8).await;
    for (from, to) in [(1, 2), (2, 1)] {
        run.oracle.add_link(run.keys[from].clone(), run.keys[to].clone(), link()).await.unwrap();
    }
    let height = run.shared[1].ledger.height().0 + 5;
    for index in [1, 2, CRASHING] {
        run.wait_for(index, height).await;
    }

    while run.lies.load(Ordering::Relaxed) <= LIES {
        run.sleep(1).await;
    }
    run.liars_gossip.take().unwrap().send(Recipients::All, Bytes::from_static(b"\xff\xffgarbage"), false);
    run.sleep(1).await;
    let blocked = run.oracle.blocked().await.unwrap();
    for index in [1, 2, CRASHING] {
        let pair = (run.keys[index].clone(), run.keys[LIAR].clone());
        assert!(blocked.contains(&pair), "validator {index} has not blocked the one that gossips garbage");
    }
    let liar = *validator_key(LIAR).public().as_bytes();
    for index in [1, 2, CRASHING] {
        let ledger = &run.shared[index].ledger;
        for id in &ids {
            assert!(ledger.locate(id).is_some(), "statement {id} is not final at validator {index}");
        }
        assert_eq!(ledger.tip().header.log_size.0, 6);
        for height in 1..=ledger.height().0 {
            if let Some(found) = ledger.recent(Height(height)) {
                assert_ne!(found.block.header().proposer, liar, "a lie became final at height {height}");
            }
        }
    }
    let (one, two, three) = (run.blocks(1), run.blocks(2), run.blocks(CRASHING));
    let common =
        |other: &BTreeMap<u64, Digest>| one.iter().all(|(at, id)| other.get(at).is_none_or(|found| found == id));
    assert!(common(&two) && common(&three), "validators that do as they should hold the same blocks");
    one
}

fn simulate(seed: u64) -> (BTreeMap<u64, Digest>, String) {
    let config = deterministic::Config::new().with_seed(seed).with_timeout(Some(Duration::from_secs(300)));
    deterministic::Runner::new(config).start(|context| async move {
        let auditor = context.auditor();
        let blocks = scenario(context).await;
        (blocks, auditor.state())
    })
}

#[test]
fn a_lying_validator_a_crash_and_broken_links_change_nothing() {
    let (blocks, events) = simulate(7);
    assert!(blocks.len() > 20);
    let (again, same_events) = simulate(7);
    assert_eq!((again, same_events), (blocks.clone(), events));
    let (other, _) = simulate(8);
    assert_ne!(other, blocks, "another seed is another run");
}
