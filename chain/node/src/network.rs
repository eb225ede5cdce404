//! The authenticated TCP network between nodes: how fast they may send, how soon they may connect again.
//!
//! Who may connect is told to it later, and again whenever it changes ([`crate::peers`]).

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use cairn_proof::identity::SigningKey;
use commonware_codec::{DecodeExt as _, Encode as _};
use commonware_cryptography::{
    ChaCha20Poly1305,
    ed25519::{PrivateKey, PublicKey},
};
use commonware_p2p::authenticated::lookup::{self, Network, Oracle, Receiver, Sender};
use commonware_runtime::{Quota, Supervisor as _, tokio::Context};
use commonware_stream::{
    SakeCups,
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::{NZU32, NZUsize};

use crate::limits::{CONSENSUS_MESSAGES_PER_SECOND, COSIGN_MESSAGES_PER_SECOND, GOSSIP_MESSAGES_PER_SECOND};

/// Messages that may wait in one of the network's own mailboxes.
const MAILBOX: usize = 1_024;

/// Messages that a peer may send at once on a channel. The network takes memory for a burst of every peer that could be
/// there, on every channel, when it is opened.
const BURST: NonZeroU32 = NZU32!(64);

/// How far two validators' clocks may differ at a handshake.
const HANDSHAKE_DRIFT: Duration = Duration::from_secs(5);

type Handshake = SakeCups<PrivateKey, ChaCha20Poly1305>;

/// What the network is made from.
pub(crate) struct Peers {
    pub(crate) key: PrivateKey,
    pub(crate) namespace: Vec<u8>,
    pub(crate) listen: SocketAddr,
    /// Peers in one peer set, at most.
    pub(crate) peers_max: usize,
    pub(crate) max_message_size: u32,
}

/// The sending and receiving end of one channel.
pub(crate) type Channel = (Sender<PublicKey, Context>, Receiver<PublicKey>);

/// Opens the network with `channels` channels, the last two of which carry signatures of checkpoints and statements.
pub(crate) fn open(context: &Context, peers: &Peers, channels: u64) -> (Oracle<PublicKey>, Vec<Channel>) {
    let config = config(peers);
    let (mut network, oracle) = Network::new(context.child("network"), config);
    let channels = (0..channels)
        .map(|channel| {
            let rate = match channels - channel {
                1 => GOSSIP_MESSAGES_PER_SECOND,
                2 => COSIGN_MESSAGES_PER_SECOND,
                _ => CONSENSUS_MESSAGES_PER_SECOND,
            };
            let quota = Quota::per_second(NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN));
            network.register(channel, quota.allow_burst(BURST))
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
        NonZeroUsize::MIN.saturating_add(peers.peers_max),
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
    // The present set, and those before it: who leaves is let go an epoch or two later.
    config.tracked_peer_sets = NZUsize!(3);
    config.block_duration = Duration::from_mins(10);
    config
}

/// The key in the form that consensus uses.
pub(crate) fn private_key(seed: &[u8; 32]) -> Option<PrivateKey> {
    PrivateKey::decode(bytes::Bytes::copy_from_slice(seed)).ok()
}

/// The key in the form that statements and checkpoints are signed with.
pub(crate) fn signing_key(key: &PrivateKey) -> SigningKey {
    let mut seed = [0; 32];
    // An Ed25519 private key is its seed of 32 bytes (RFC 8032, section 5.1.5).
    seed.copy_from_slice(&key.encode());
    SigningKey::from_seed(&seed)
}

/// The key in the form that consensus uses.
pub(crate) fn public_key(key: &cairn_proof::identity::PublicKey) -> Option<PublicKey> {
    PublicKey::decode(bytes::Bytes::copy_from_slice(key.as_bytes())).ok()
}
