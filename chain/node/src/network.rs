//! The authenticated TCP network between validators: who may connect, how fast, how soon again.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use commonware_codec::DecodeExt as _;
use commonware_cryptography::{
    ChaCha20Poly1305,
    ed25519::{PrivateKey, PublicKey},
};
use commonware_p2p::{
    Address,
    authenticated::lookup::{self, Network, Oracle, Receiver, Sender},
};
use commonware_runtime::{Quota, Supervisor as _, tokio::Context};
use commonware_stream::{
    SakeCups,
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::{NZU32, NZUsize, ordered::Map};

use crate::limits::{CONSENSUS_MESSAGES_PER_SECOND, GOSSIP_MESSAGES_PER_SECOND};

/// Messages that may wait in one of the network's own mailboxes.
const MAILBOX: usize = 1_024;

/// How far two validators' clocks may differ at a handshake.
const HANDSHAKE_DRIFT: Duration = Duration::from_secs(5);

type Handshake = SakeCups<PrivateKey, ChaCha20Poly1305>;

/// What the network is made from.
pub(crate) struct Peers {
    pub(crate) key: PrivateKey,
    pub(crate) namespace: Vec<u8>,
    pub(crate) listen: SocketAddr,
    pub(crate) addresses: Vec<(PublicKey, Address)>,
    pub(crate) max_message_size: u32,
}

/// The sending and receiving end of one channel.
pub(crate) type Channel = (Sender<PublicKey, Context>, Receiver<PublicKey>);

/// Opens the network with `channels` channels, the last of which carries statements.
pub(crate) fn open(context: &Context, peers: Peers, channels: u64) -> (Oracle<PublicKey>, Vec<Channel>) {
    let config = config(&peers);
    let (mut network, mut oracle) = Network::new(context.child("network"), config);
    // Two entries for one key would be a configuration error, which was refused before.
    let addresses: Map<PublicKey, Address> = Map::from_iter_dedup(peers.addresses);
    commonware_p2p::AddressableManager::track(&mut oracle, 0, addresses);
    let channels = (0..channels)
        .map(|channel| {
            let rate = if channel + 1 == channels { GOSSIP_MESSAGES_PER_SECOND } else { CONSENSUS_MESSAGES_PER_SECOND };
            network.register(channel, Quota::per_second(NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN)))
        })
        .collect();
    network.start();
    (oracle, channels)
}

fn config(peers: &Peers) -> lookup::Config<Handshake> {
    let handshake = Cups::<_, ChaCha20Poly1305>::new(
        Sake {
            signer: peers.key.clone(),
            synchrony_bound: HANDSHAKE_DRIFT,
            max_handshake_age: HANDSHAKE_DRIFT * 2,
            version: sake::Version::V1,
        },
        cups::Version::V1,
    );
    let mut config = lookup::Config::recommended(
        handshake,
        &peers.namespace,
        peers.listen,
        NonZeroUsize::MIN.saturating_add(peers.addresses.len()),
        peers.max_message_size,
        NZUsize!(MAILBOX),
    );
    // Validators of one city share private networks; the handshake proves who connects, not the address.
    config.allow_private_ips = true;
    config.bypass_ip_check = true;
    // A restarted validator is to be back within a second or two, not after the default minute.
    config.peer_connection_cooldown = Duration::from_millis(500);
    config.dial_frequency = Duration::from_millis(250);
    config.dial_timeout = Duration::from_secs(5);
    config.ping_frequency = Duration::from_secs(5);
    // Several validators, and their restarts, may share one address.
    config.allowed_handshake_rate_per_ip = Quota::per_second(NZU32!(64));
    config.allowed_handshake_rate_per_subnet = Quota::per_second(NZU32!(256));
    // The set is fixed for an epoch; a second one leaves room for the next.
    config.tracked_peer_sets = NZUsize!(2);
    config.block_duration = Duration::from_mins(10);
    config
}

/// The key in the form that consensus uses.
pub(crate) fn private_key(seed: &[u8; 32]) -> Option<PrivateKey> {
    PrivateKey::decode(bytes::Bytes::copy_from_slice(seed)).ok()
}

/// The key in the form that consensus uses.
pub(crate) fn public_key(key: &cairn_proof::identity::PublicKey) -> Option<PublicKey> {
    PublicKey::decode(bytes::Bytes::copy_from_slice(key.as_bytes())).ok()
}
