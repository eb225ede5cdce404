//! The validators, what connects them, and what befalls them, between two power losses.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cairn_proof::{certificate::consensus_namespace, epoch::epoch_of};
use commonware_consensus::simplex::scheme::ed25519::Scheme;
use commonware_cryptography::ed25519::{PrivateKey, PublicKey};
use commonware_p2p::{
    Recipients, Sender as _,
    simulated::{self, Control, Link, Network, Oracle, Receiver},
};
use commonware_runtime::{Clock as _, Handle, Quota, Spawner as _, Supervisor as _, deterministic};
use commonware_utils::{NZU32, NZUsize, Probability, ordered::Set};

use super::{
    Kind, Run, Violation,
    byzantine::{self, Channel, Liar, Voter},
    load::{Desk, TICK_MS},
    machine::{End, Health, Machine},
    scenario::{Fault, Role},
};
use crate::{
    application::Proposer,
    city::validator_key,
    clock,
    config::{NodeConfig, Peer},
    engine::{self, Setup},
    error::NodeError,
    gossip::Outbox,
    network,
    peers::Directory,
    shared::Shared,
    voting::Voting,
};

type Context = deterministic::Context;

const RATE: Quota = Quota::per_second(NZU32!(512));
/// Blocks that everybody must take in once the faults have stopped.
const MORE_BLOCKS: u64 = 5;
/// A validator whose disk has failed or which gave up is started again after this long at least.
const REPAIR_MS: u64 = 50;
/// Storage prefixes: of each validator, and of each one's twin.
const DISKS: [[&str; 2]; 12] = [
    ["v0", "t0"],
    ["v1", "t1"],
    ["v2", "t2"],
    ["v3", "t3"],
    ["v4", "t4"],
    ["v5", "t5"],
    ["v6", "t6"],
    ["v7", "t7"],
    ["v8", "t8"],
    ["v9", "t9"],
    ["v10", "t10"],
    ["v11", "t11"],
];

/// How far the scenario is, across power losses.
pub(crate) struct Progress {
    /// Faults that have begun.
    begun: usize,
    /// When each validator that is down is started again.
    down_until_ms: Vec<Option<u64>>,
    /// When the faults stopped, and the height that everybody must come to.
    settling: Option<(u64, u64)>,
    garbage_sent: bool,
}

impl Progress {
    pub(crate) fn new(validators: usize) -> Self {
        Self { begun: 0, down_until_ms: vec![None; validators], settling: None, garbage_sent: false }
    }
}

/// A running node.
struct Running {
    shared: Arc<Shared>,
    /// It has replayed its blocks and takes part.
    ready: Arc<AtomicBool>,
    health: Health,
    handle: Handle<()>,
}

/// A place for a validator.
struct Slot {
    key: PublicKey,
    running: Option<Running>,
    /// The other node with this key.
    twin: Option<Running>,
    /// What votes under this key and does nothing else.
    voter: Option<Voter>,
    /// Through which garbage is sent.
    gossip: Option<simulated::Sender<PublicKey, Context>>,
}

/// All of it.
pub(crate) struct World<'a> {
    run: &'a mut Run,
    context: Context,
    oracle: Oracle<PublicKey, Context>,
    slots: Vec<Slot>,
    /// The links as they are: latency, jitter, lost percent.
    links: Vec<Vec<Option<Quality>>>,
    /// Troubles of the network and when they end.
    troubles: Vec<(u64, Fault)>,
    /// The epoch that voters were led into.
    epoch: Option<u64>,
}

/// Latency and jitter in milliseconds, and what is lost in percent.
type Quality = (u64, u64, u64);

const GOOD: Quality = (10, 5, 0);

fn link((latency_ms, jitter_ms, lost_percent): Quality) -> Link {
    Link {
        latency: Duration::from_millis(latency_ms),
        jitter: Duration::from_millis(jitter_ms),
        success_rate: Probability::new(100 - lost_percent, 100).unwrap(),
    }
}

impl<'a> World<'a> {
    /// Runs up to the next power loss, and answers true; or to the end.
    pub(crate) async fn run(context: Context, run: &'a mut Run) -> bool {
        let keys: Vec<PublicKey> = (0..run.scenario.roles.len())
            .map(|index| network::public_key(&validator_key(index).public()).unwrap())
            .collect();
        let config = simulated::Config {
            max_size: engine::max_message_size(),
            max_peers_per_set: NZUsize!(DISKS.len()),
            disconnect_on_block: run.scenario.disconnects,
            tracked_peer_sets: NZUsize!(3),
        };
        let (network, oracle) = Network::new_with_peers(context.child("network"), config, keys.clone()).await;
        network.start();
        let links = vec![vec![None; keys.len()]; keys.len()];
        let slots =
            keys.into_iter().map(|key| Slot { key, running: None, twin: None, voter: None, gossip: None }).collect();
        let mut world = World { run, context, oracle, slots, links, troubles: Vec::new(), epoch: None };
        world.connect().await;
        for index in 0..world.slots.len() {
            world.run.progress.down_until_ms[index] = None;
            world.start(index).await;
        }
        world.live().await
    }

    fn now_ms(&self) -> u64 {
        clock::milliseconds(&self.context)
    }

    /// One tick after the other.
    async fn live(&mut self) -> bool {
        loop {
            if self.break_things().await {
                return true;
            }
            self.repair().await;
            let now_ms = self.now_ms();
            let more = self.run.progress.settling.is_none();
            self.observe();
            self.lead_voters().await;
            let desks = desks(&self.slots, &self.run.scenario.roles);
            self.run.load.tick(&desks, now_ms, more);
            self.send_garbage();
            if self.settled() {
                break;
            }
            self.context.sleep(Duration::from_millis(TICK_MS)).await;
        }
        self.observe();
        self.run.report.simulated_ms = self.now_ms();
        let mut violations = std::mem::take(&mut self.run.load.violations);
        violations.extend(self.blocked_liars().await);
        self.run.report.violations.extend(violations);
        false
    }

    /// Begins the faults that are due. Answers true when all power is lost.
    async fn break_things(&mut self) -> bool {
        let now_ms = self.now_ms();
        let mut changed = false;
        while let Some((at_ms, fault)) = self.run.scenario.faults.get(self.run.progress.begun).cloned() {
            if at_ms > now_ms {
                break;
            }
            self.run.progress.begun += 1;
            *self.run.report.faults.entry(fault.name()).or_default() += 1;
            match fault {
                Fault::PowerLoss => {
                    self.observe();
                    return true;
                }
                Fault::Crash { index, down_ms } => self.crash(index, now_ms + down_ms),
                Fault::Disk { index, operations, .. } => {
                    if let Some(running) = &self.slots[index].running {
                        running.health.fail_disk_after(operations);
                    }
                }
                Fault::Partition { for_ms, .. } | Fault::Link { for_ms, .. } | Fault::Weather { for_ms, .. } => {
                    self.troubles.push((now_ms + for_ms, fault));
                    changed = true;
                }
            }
        }
        let count = self.troubles.len();
        let over = now_ms >= self.run.plan.fault_ms;
        self.troubles.retain(|(until_ms, _)| *until_ms > now_ms && !over);
        if changed || count != self.troubles.len() {
            self.connect().await;
        }
        if over && self.run.progress.settling.is_none() {
            self.run.progress.settling = Some((now_ms, self.run.observed.height() + MORE_BLOCKS));
        }
        false
    }

    /// The process ends at once.
    fn crash(&mut self, index: usize, until_ms: u64) {
        let Some(running) = self.slots[index].running.take() else { return };
        self.run.observed.look(index, &running.shared);
        running.handle.abort();
        self.run.progress.down_until_ms[index] = Some(until_ms);
    }

    /// Starts again what was down long enough, and finds out who ended by itself.
    async fn repair(&mut self) {
        let now_ms = self.now_ms();
        let over = self.run.progress.settling.is_some();
        for index in 0..self.slots.len() {
            let end = self.slots[index].running.as_ref().and_then(|running| running.health.end());
            if let Some(end) = end {
                if let (End::Gave(why), Role::Honest) = (end, self.run.scenario.roles[index]) {
                    let message = format!("validator {index} at {now_ms} ms: {why}");
                    self.run.report.violations.push(Violation::new("honest validators keep running", message));
                }
                let down_ms = self.run.draw.within(REPAIR_MS, 20 * REPAIR_MS);
                self.crash(index, now_ms + down_ms);
            }
            if over && let Some(running) = &self.slots[index].running {
                running.health.repair_disk();
            }
            // A process that was just ended is not started in the same tick: its files are still being closed.
            let due = self.run.progress.down_until_ms[index].is_some_and(|until_ms| until_ms <= now_ms || over);
            if due && self.slots[index].running.is_none() {
                self.context.sleep(Duration::from_millis(2)).await;
                self.run.progress.down_until_ms[index] = None;
                self.start(index).await;
            }
        }
    }

    fn observe(&mut self) {
        for (index, slot) in self.slots.iter().enumerate() {
            if self.run.scenario.roles[index] == Role::Honest
                && let Some(running) = &slot.running
            {
                self.run.observed.look(index, &running.shared);
            }
        }
    }

    /// Whether all has come right, or has had its time.
    fn settled(&mut self) -> bool {
        let Some((since_ms, height)) = self.run.progress.settling else { return false };
        let behind: Vec<(usize, Option<u64>)> = self
            .run
            .scenario
            .honest()
            .map(|index| (index, self.slots[index].running.as_ref().map(|running| running.shared.ledger.height().0)))
            .filter(|(_, reached)| reached.is_none_or(|reached| reached < height))
            .collect();
        if behind.is_empty() && self.run.load.all_resolved() {
            return true;
        }
        if self.now_ms() < since_ms + self.run.plan.settle_ms {
            return false;
        }
        let time = self.run.plan.settle_ms;
        if !behind.is_empty() {
            let message = format!("{time} ms after the faults, height {height} is not reached by {behind:?}");
            self.run.report.violations.push(Violation::new("progress once faults stop", message));
        }
        for waiting in self.run.load.waiting(&desks(&self.slots, &self.run.scenario.roles)) {
            let message = format!("not so {time} ms after the faults: {waiting}");
            self.run.report.violations.push(Violation::new("every statement is final or refused", message));
        }
        true
    }

    /// The links as the present troubles leave them.
    async fn connect(&mut self) {
        for from in 0..self.slots.len() {
            for to in (0..self.slots.len()).filter(|to| *to != from) {
                let wanted = self.quality(from, to);
                if self.links[from][to] == wanted {
                    continue;
                }
                let ends = (self.slots[from].key.clone(), self.slots[to].key.clone());
                if self.links[from][to].is_some() {
                    self.oracle.remove_link(ends.0.clone(), ends.1.clone()).await.unwrap();
                }
                if let Some(quality) = wanted {
                    self.oracle.add_link(ends.0, ends.1, link(quality)).await.unwrap();
                }
                self.links[from][to] = wanted;
            }
        }
    }

    fn quality(&self, from: usize, to: usize) -> Option<Quality> {
        let answers = |index: usize| matches!(self.run.scenario.roles[index], Role::Byzantine(kind) if !kind.is_node());
        if answers(from) && answers(to) {
            // Two that answer every vote with more votes would answer each other for ever.
            return None;
        }
        let mut quality = GOOD;
        for (_, trouble) in &self.troubles {
            match trouble {
                Fault::Partition { side, .. } if side[from] != side[to] => return None,
                Fault::Weather { latency_ms, jitter_ms, lost_percent, .. } => {
                    quality = (*latency_ms, *jitter_ms, *lost_percent);
                }
                Fault::Link { from: a, to: b, latency_ms, jitter_ms, lost_percent, .. } if (*a, *b) == (from, to) => {
                    quality = (*latency_ms, *jitter_ms, *lost_percent);
                }
                _ => {}
            }
        }
        Some(quality)
    }

    async fn channels(&self, index: usize) -> Vec<Channel> {
        let control = self.oracle.control(self.slots[index].key.clone());
        let mut channels = Vec::new();
        for channel in 0..engine::CHANNELS {
            channels.push(control.register(channel, RATE).await.unwrap());
        }
        channels
    }

    /// The voters go on to the epoch that the honest validators are in.
    async fn lead_voters(&mut self) {
        let roles = &self.run.scenario.roles;
        let tips =
            desks(&self.slots, roles).into_iter().filter(|desk| desk.honest).map(|desk| desk.shared.ledger.tip());
        let Some(tip) = tips.max_by_key(|tip| tip.header.height) else { return };
        let epoch = epoch_of(tip.header.height.next(), self.run.plan.epoch_blocks);
        if self.epoch == Some(epoch) {
            return;
        }
        self.epoch = Some(epoch);
        let namespace = consensus_namespace(&self.run.load.genesis().tag());
        let keys = tip.state.committee().keys().iter().filter_map(network::public_key);
        let committee = Set::from_iter_dedup(keys);
        for index in 0..self.slots.len() {
            let machine = Machine::new(self.context.child("voter").with_attribute("index", index), Health::default());
            let key = network::private_key(&validator_key(index).seed()).unwrap();
            if let Some(voter) = &mut self.slots[index].voter
                && let Some(scheme) = Scheme::signer(&namespace, committee.clone(), key)
            {
                voter.enter(machine, epoch, scheme).await;
            }
        }
    }

    /// Starts what stands in a slot, or starts it again from its disk.
    async fn start(&mut self, index: usize) {
        self.run.observed.restarted(index);
        let context = self.context.child("validator").with_attribute("index", index);
        match self.run.scenario.roles[index] {
            Role::Byzantine(Kind::Silent) => {}
            Role::Byzantine(Kind::Twins) => {
                let channels = self.channels(index).await;
                let peers: Vec<PublicKey> = self.slots.iter().map(|slot| slot.key.clone()).collect();
                let first: Vec<PublicKey> = peers.iter().filter(|_| self.run.draw.percent(50)).cloned().collect();
                let halves = byzantine::split(&context, channels, &peers, move |peer| first.contains(peer));
                let [one, other] = halves;
                if let Some(twin) = self.slots[index].twin.take() {
                    twin.handle.abort();
                }
                self.slots[index].twin = Some(self.node(&context, index, 1).spawn(false, other));
                self.slots[index].running = Some(self.node(&context, index, 0).spawn(false, one));
            }
            Role::Byzantine(kind) if kind != Kind::Liar => {
                let mut channels = self.channels(index).await.into_iter();
                let (votes, certificates) = (channels.next().unwrap(), channels.next().unwrap());
                let machine = Machine::new(context, Health::default());
                self.slots[index].voter = Voter::new(&machine, kind, votes, certificates);
            }
            role => {
                let channels = self.channels(index).await;
                self.slots[index].gossip = channels.last().map(|(sender, _)| sender.clone());
                let lies = role != Role::Honest;
                self.slots[index].running = Some(self.node(&context, index, 0).spawn(lies, channels));
            }
        }
    }

    fn node(&self, context: &Context, index: usize, disk: usize) -> Node {
        let any = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut config = NodeConfig::new("unused".into(), any, Vec::new(), any);
        // Everybody lets those follow who are no validators yet, or no longer.
        let observer = |index| Peer { public_key: validator_key(index).public(), address: any.to_string() };
        config.observers = (0..self.slots.len()).map(observer).collect();
        let genesis = self.run.load.genesis().clone();
        let (shared, outbox) = Shared::new(genesis, validator_key(index).public(), &config);
        let key = self.slots[index].key.clone();
        Node {
            context: context.child("machine"),
            partition: DISKS[index][disk],
            control: self.oracle.control(key.clone()),
            manager: self.oracle.socket_manager(),
            key: network::private_key(&validator_key(index).seed()).unwrap(),
            config,
            shared,
            outbox,
        }
    }

    /// A liar gossips what no honest software makes.
    fn send_garbage(&mut self) {
        let now_ms = self.now_ms();
        if now_ms < self.run.scenario.garbage_ms || self.run.progress.garbage_sent {
            return;
        }
        // Once more at the end, when nothing is lost on the way.
        self.run.progress.garbage_sent =
            self.run.progress.settling.is_some_and(|(since_ms, _)| now_ms > since_ms + 1_000);
        for (slot, role) in self.slots.iter_mut().zip(&self.run.scenario.roles) {
            if *role == Role::Byzantine(Kind::Liar)
                && let Some(gossip) = &mut slot.gossip
            {
                gossip.send(Recipients::All, bytes::Bytes::from_static(b"\xff\xffgarbage"), false);
            }
        }
    }

    /// Who gossips garbage is cut off by everybody.
    async fn blocked_liars(&self) -> Vec<Violation> {
        let roles = &self.run.scenario.roles;
        let liars = (0..roles.len()).filter(|index| roles[*index] == Role::Byzantine(Kind::Liar));
        let blocked = self.oracle.blocked().await.unwrap();
        let mut found = Vec::new();
        for liar in liars.filter(|_| self.run.progress.garbage_sent) {
            for honest in self.run.scenario.honest() {
                if !blocked.contains(&(self.slots[honest].key.clone(), self.slots[liar].key.clone())) {
                    let message = format!("validator {honest} has not cut off {liar}, which gossips garbage");
                    found.push(Violation::new("garbage is answered by blocking", message));
                }
            }
        }
        found
    }
}

/// The validators that can be asked.
fn desks<'a>(slots: &'a [Slot], roles: &[Role]) -> Vec<Desk<'a>> {
    let with_role = slots.iter().zip(roles);
    let desks = with_role.filter_map(|(slot, role)| {
        let running = slot.running.as_ref().filter(|running| running.ready.load(Ordering::Relaxed))?;
        Some(Desk { shared: &running.shared, honest: *role == Role::Honest })
    });
    desks.collect()
}

/// Everything that a node is started from.
struct Node {
    context: Context,
    partition: &'static str,
    key: PrivateKey,
    control: Control<PublicKey, Context>,
    manager: simulated::SocketManager<PublicKey, Context>,
    config: NodeConfig,
    shared: Arc<Shared>,
    outbox: Outbox,
}

impl Node {
    /// Runs the node in a task of its own; a liar runs another application.
    fn spawn<S>(self, lies: bool, channels: Vec<(S, Receiver<PublicKey>)>) -> Running
    where
        S: commonware_p2p::Sender<PublicKey = PublicKey>,
    {
        let (health, ready) = (Health::default(), Arc::new(AtomicBool::new(false)));
        let shared = Arc::clone(&self.shared);
        let machine = Machine::new(self.context.child("node"), health.clone());
        let (told, is_ready) = (health.clone(), Arc::clone(&ready));
        let handle = machine.spawn(move |machine| async move {
            let Err(ended) = self.validate(&machine, lies, channels, &is_ready).await;
            told.ended(ended.to_string());
        });
        Running { shared, ready, health, handle }
    }

    async fn validate<S>(
        self,
        machine: &Machine,
        lies: bool,
        channels: Vec<(S, Receiver<PublicKey>)>,
        ready: &AtomicBool,
    ) -> Result<Infallible, NodeError>
    where
        S: commonware_p2p::Sender<PublicKey = PublicKey>,
    {
        let opened = engine::open(machine, self.partition, &self.shared).await?;
        let honest = Proposer::new(Arc::clone(&self.shared), &self.config);
        let namespace = consensus_namespace(&self.shared.tag);
        let directory = Directory::new(&self.config)?;
        let voting = Voting::in_memory(0);
        let (partition, key, shared, outbox) = (self.partition, self.key, self.shared, self.outbox);
        let engine = if lies {
            let application = Liar::new(honest);
            let setup = Setup { partition, key, namespace, application, shared, outbox, directory, voting };
            engine::start(machine, opened, setup, self.manager, self.control, channels).await?
        } else {
            let setup = Setup { partition, key, namespace, application: honest, shared, outbox, directory, voting };
            engine::start(machine, opened, setup, self.manager, self.control, channels).await?
        };
        ready.store(true, Ordering::Relaxed);
        Err(engine.consensus.await.unwrap_or_else(|error| NodeError::Consensus { reason: error.to_string() }))
    }
}
