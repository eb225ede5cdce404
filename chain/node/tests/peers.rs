//! A hostile validator on the real network: it holds a key that the others admit, speaks their protocol, and sends
//! garbage and floods on every channel. The others cut it off and go on.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod common;

use std::{net::SocketAddr, num::NonZeroU32, thread, time::Duration};

use bytes::Bytes;
use cairn_proof::{Digest, certificate::consensus_namespace};
use common::{
    Net,
    city::{INGEST, validator_key},
};
use commonware_codec::DecodeExt as _;
use commonware_cryptography::{
    ChaCha20Poly1305,
    ed25519::{PrivateKey, PublicKey},
};
use commonware_p2p::{
    Address, AddressableManager, Recipients, Sender as _,
    authenticated::lookup::{Config, Network},
};
use commonware_runtime::{Quota, Runner as _, Supervisor as _, tokio as runtime};
use commonware_stream::{
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::{NZUsize, ordered::Map};
use tokio::sync::mpsc;

/// Validators, of which the first are honest and a quorum, and the last two hostile.
const VALIDATORS: usize = 7;
const HONEST: usize = 5;

/// More channels than there are: those beyond are one more kind of garbage.
const CHANNELS: u64 = 12;

/// Larger than any message that honest nodes take.
const MESSAGE_BYTES_MAX: u32 = 32 << 20;

/// A message for one validator on a channel.
type Command = (u64, usize, Bytes);

fn public(index: usize) -> PublicKey {
    PublicKey::decode(Bytes::copy_from_slice(validator_key(index).public().as_bytes())).unwrap()
}

/// A peer that holds validator `index`'s key and does as it is told, until its commands end.
struct Hostile {
    commands: mpsc::UnboundedSender<Command>,
    thread: thread::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Hostile {
    fn start(net: &Net, index: usize, honest: Vec<SocketAddr>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = folder.path().to_owned();
        let namespace = [consensus_namespace(&net.city.genesis.tag()).as_slice(), b"_P2P"].concat();
        let listen = net.configs[index].p2p_listen;
        let (commands, orders) = mpsc::unbounded_channel();
        let run = move || {
            let config = runtime::Config::new().with_storage_directory(storage).with_worker_threads(1);
            runtime::Runner::new(config)
                .start(|context| Box::pin(obey(context, index, namespace, listen, honest, orders)));
        };
        let thread = thread::Builder::new().stack_size(64 << 20).spawn(run).unwrap();
        Self { commands, thread, _folder: folder }
    }

    fn send(&self, channel: u64, to: usize, message: Bytes) {
        self.commands.send((channel, to, message)).unwrap();
    }

    fn stop(self) {
        drop(self.commands);
        self.thread.join().unwrap();
    }
}

async fn obey(
    context: runtime::Context,
    index: usize,
    namespace: Vec<u8>,
    listen: SocketAddr,
    honest: Vec<SocketAddr>,
    mut orders: mpsc::UnboundedReceiver<Command>,
) {
    let signer = PrivateKey::decode(Bytes::copy_from_slice(&validator_key(index).seed())).unwrap();
    let handshake = Cups::<_, ChaCha20Poly1305>::new(
        Sake {
            signer,
            synchrony_bound: Duration::from_secs(5),
            max_handshake_age: Duration::from_secs(10),
            version: sake::Version::V1,
        },
        cups::Version::V1,
    );
    let mut config =
        Config::recommended(handshake, &namespace, listen, NZUsize!(VALIDATORS), MESSAGE_BYTES_MAX, NZUsize!(1024));
    config.allow_private_ips = true;
    config.bypass_ip_check = true;
    config.dial_frequency = Duration::from_millis(200);
    config.peer_connection_cooldown = Duration::from_millis(200);
    let (mut network, mut oracle) = Network::new(context.child("network"), config);
    let addresses: Map<PublicKey, Address> = Map::from_iter_dedup(
        honest.into_iter().enumerate().map(|(at, address)| (public(at), Address::Symmetric(address))),
    );
    AddressableManager::track(&mut oracle, 0, addresses);
    // More than honest nodes may send; the library takes memory in proportion.
    let rate = Quota::per_second(NonZeroU32::new(2_000).unwrap());
    let mut channels: Vec<_> = (0..CHANNELS).map(|channel| network.register(channel, rate)).collect();
    let running = network.start();
    while let Some((channel, to, message)) = orders.recv().await {
        channels[channel as usize].0.send(Recipients::One(public(to)), message, true);
    }
    running.abort();
}

async fn metrics(net: &Net, index: usize) -> String {
    String::from_utf8(net.bytes(index, "/metrics").await).unwrap()
}

/// How many peers a node has blocked.
fn blocked(text: &str) -> usize {
    let gauges = text.lines().filter(|line| line.contains("directory_blocked{"));
    gauges.filter(|line| line.rsplit(' ').next().is_some_and(|value| value.parse::<f64>().unwrap() > 0.0)).count()
}

fn undecodable(text: &str) -> f64 {
    let name = "cairn_gossip_statements_total{outcome=\"undecodable\"} ";
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0.0, |value| value.parse().unwrap())
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default().to_owned();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_that_sends_garbage_is_cut_off_and_the_others_go_on() {
    let mut net = Net::new(VALIDATORS, 300);
    for index in 0..HONEST {
        net.start(index).await;
    }
    net.wait_for_height(0, 2).await;
    let before = resident_kib();
    let honest: Vec<SocketAddr> = (0..HONEST).map(|index| net.configs[index].p2p_listen).collect();
    let hostile: Vec<Hostile> = (HONEST..VALIDATORS).map(|index| Hostile::start(&net, index, honest.clone())).collect();

    // Each hostile peer has one kind of garbage for each honest node, again and again: what a node blocks it for first
    // hides what would come after, so every pair has a channel of its own.
    let garbage = |round: u64| -> Vec<u8> {
        match round % 4 {
            0 => vec![0xff; 64],
            1 => vec![0; 1_000],
            2 => (0..10_000_u32).map(|at| at.wrapping_mul(2_654_435_761) as u8).collect(),
            _ => vec![1],
        }
    };
    let attack = async {
        for round in 0..u64::MAX {
            let (mut cut_off, mut gossip) = (0, 0.0);
            for (at, peer) in hostile.iter().enumerate() {
                for to in 0..HONEST {
                    let channel = (at * HONEST + to) as u64;
                    peer.send(channel, to, garbage(round).into());
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            for index in 0..HONEST {
                let text = metrics(&net, index).await;
                cut_off += blocked(&text);
                gossip += undecodable(&text);
            }
            // Votes, certificates and statements at least; the others are ignored, or end the connection.
            if cut_off >= 3 && gossip >= 1.0 {
                return (round, cut_off);
            }
        }
        (0, 0)
    };
    let (rounds, cut_off) = tokio::time::timeout(Duration::from_secs(90), attack).await.expect("garbage is answered");
    println!("{cut_off} of {} pairs are blocked after {rounds} rounds", HONEST * (VALIDATORS - HONEST));

    // Floods: more and larger messages than anybody may send.
    for round in 0..30 {
        for peer in &hostile {
            for to in 0..HONEST {
                for channel in 0..CHANNELS {
                    peer.send(channel, to, garbage(round).into());
                }
                if round % 15 == 0 {
                    peer.send(round % CHANNELS, to, vec![7; 8 << 20].into());
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The others go on.
    net.accepted(0, &net.city.register_stream(1)).await;
    let (anchor, id) = net.city.anchor(INGEST, 1, 0, 0, Digest::ZERO);
    net.accepted(1, &anchor).await;
    for index in 0..HONEST {
        net.finalized(index, &id.to_string()).await;
    }
    for peer in hostile {
        peer.stop();
    }
    println!("VmRSS {} KiB after the attack, {before} KiB before", resident_kib());
    net.stop_all().await;
}
