//! Who may connect, and where they are: the validators on chain, overrides of their addresses, and this node's observers.
//!
//! ```text
//! primary    committees of this epoch and the next, active validators, further `peers` of the configuration: dialled
//! secondary  suspended validators, and `observers` of the configuration: may connect, are not dialled
//! ```
//!
//! Removed validators age out with the peer sets that still hold them. Nothing here decides on votes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use cairn_proof::{committee::VALIDATORS_MAX, identity};
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::{Address, AddressableTrackedPeers};
use commonware_utils::ordered::Map;

use crate::{
    address::PeerAddress,
    config::{ConfigError, NodeConfig},
    network,
};

/// An address that is never dialled, for those whose own is not known.
const NOWHERE: Address = Address::Symmetric(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1));

/// What the chain says of one validator.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) key: identity::PublicKey,
    /// `host:port` of its listener.
    pub(crate) address: String,
    /// It votes now or in the next epoch, or could.
    pub(crate) active: bool,
}

/// What the configuration says of peers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    peers: BTreeMap<PublicKey, Address>,
    observers: Vec<PublicKey>,
}

/// Whom this node connects to, and who may connect to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerSet {
    primary: BTreeMap<PublicKey, Address>,
    secondary: BTreeMap<PublicKey, Address>,
}

impl Directory {
    /// Takes over what was checked by [`NodeConfig::validate`].
    ///
    /// # Errors
    /// A key that is no point on the curve.
    pub(crate) fn new(config: &NodeConfig) -> Result<Self, ConfigError> {
        let usable = |name: &'static str, key: &identity::PublicKey| {
            network::public_key(key).ok_or_else(|| ConfigError {
                key: name,
                found: key.to_string(),
                expected: "a key that consensus accepts".into(),
            })
        };
        let mut peers = BTreeMap::new();
        for peer in &config.peers {
            peers.insert(usable("peers.public_key", &peer.public_key)?, address(&peer.address));
        }
        let observers = config.observers.iter().map(|observer| usable("observers.public_key", &observer.public_key));
        Ok(Self { peers, observers: observers.collect::<Result<_, _>>()? })
    }

    /// The largest peer set that [`Self::peers`] can answer with: two committees, other validators, and its own.
    pub(crate) fn peers_max(&self) -> usize {
        3 * VALIDATORS_MAX + self.peers.len() + self.observers.len() + 1
    }

    /// Who may connect when the chain lists these validators.
    pub(crate) fn peers(&self, listed: &[Listed]) -> PeerSet {
        let mut set = PeerSet { primary: self.peers.clone(), secondary: BTreeMap::new() };
        for validator in listed {
            // The state holds keys that consensus accepts; another could not be dialled anyway.
            let Some(key) = network::public_key(&validator.key) else { continue };
            if self.peers.contains_key(&key) {
                continue;
            }
            let side = if validator.active { &mut set.primary } else { &mut set.secondary };
            side.insert(key, address(&validator.address));
        }
        for observer in &self.observers {
            if !set.primary.contains_key(observer) {
                set.secondary.insert(observer.clone(), NOWHERE);
            }
        }
        set
    }
}

impl From<PeerSet> for AddressableTrackedPeers<PublicKey> {
    fn from(set: PeerSet) -> Self {
        Self::new(Map::from_iter_dedup(set.primary), Map::from_iter_dedup(set.secondary))
    }
}

fn address(text: &str) -> Address {
    PeerAddress::parse(text).map_or(NOWHERE, Address::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        city::{key, validator_key},
        config::Peer,
    };

    fn config(peers: Vec<Peer>, observers: Vec<Peer>) -> NodeConfig {
        let any = SocketAddr::from(([127, 0, 0, 1], 7000));
        NodeConfig { observers, ..NodeConfig::new("data".into(), any, peers, any) }
    }

    fn peer(seed: u8, port: u16) -> Peer {
        Peer { public_key: key(seed).public(), address: format!("127.0.0.1:{port}") }
    }

    fn at(port: u16) -> Address {
        Address::Symmetric(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn known(seed: u8) -> PublicKey {
        network::public_key(&key(seed).public()).unwrap()
    }

    #[test]
    fn the_chain_says_who_and_where_and_the_configuration_overrides_where() {
        let directory = Directory::new(&config(vec![peer(100, 1), peer(50, 2)], vec![peer(60, 3)])).unwrap();
        let listed = |index: usize, active| Listed {
            key: validator_key(index).public(),
            address: format!("127.0.0.1:{}", 10 + index),
            active,
        };
        let set = directory.peers(&[listed(0, true), listed(1, true), listed(2, false)]);
        let primary = BTreeMap::from([(known(100), at(1)), (known(101), at(11)), (known(50), at(2))]);
        assert_eq!(set.primary, primary);
        assert_eq!(set.secondary, BTreeMap::from([(known(102), at(12)), (known(60), NOWHERE)]));
        let tracked = AddressableTrackedPeers::from(set);
        assert_eq!((tracked.primary.len(), tracked.secondary.len()), (3, 2));
    }

    #[test]
    fn an_observer_that_becomes_a_validator_is_one() {
        let directory = Directory::new(&config(vec![], vec![peer(100, 1)])).unwrap();
        let listed = Listed { key: key(100).public(), address: "no address".into(), active: true };
        let set = directory.peers(&[listed]);
        assert_eq!(set.primary, BTreeMap::from([(known(100), NOWHERE)]), "it connects to us at least");
        assert!(set.secondary.is_empty());
    }
}
