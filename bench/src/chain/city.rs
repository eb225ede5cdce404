//! The people of a bench's chain, and its genesis.

use anyhow::Result;
use cairn_proof::genesis::{GENESIS_MARK, Genesis, GenesisIdentity, GenesisValidator};
use cairn_proof::identity::{IdentityKind, SigningKey};
use cairn_proof::parameters::Parameters;

use super::network::{Network, free_ports};

/// How many validators.
pub(crate) const VALIDATORS: usize = 4;
/// How many signers.
pub(crate) const SIGNERS: usize = 16;

/// Four validators, an owner, and signers whom the genesis knows.
pub(crate) struct City {
    pub(crate) genesis: Genesis,
    pub(crate) owner: SigningKey,
    pub(crate) signers: Vec<SigningKey>,
    pub(crate) validators: Vec<SigningKey>,
    pub(crate) ports: Vec<u16>,
}

fn seeded(first: u8, second: usize) -> SigningKey {
    let mut seed = [first; 32];
    seed[..8].copy_from_slice(&(second as u64).to_le_bytes());
    SigningKey::from_seed(&seed)
}

impl City {
    /// With keys that follow from numbers, and free ports.
    pub(crate) fn new(parameters: Parameters) -> Result<Self> {
        let ports = free_ports(VALIDATORS)?;
        let validators: Vec<_> = (0..VALIDATORS).map(|index| seeded(1, index)).collect();
        let signers: Vec<_> = (0..SIGNERS).map(|index| seeded(2, index)).collect();
        let owner = seeded(3, 0);
        let identity = |name: String, kind, key: &SigningKey| GenesisIdentity { name, kind, public_key: key.public() };
        let mut identities = vec![identity("owner".into(), IdentityKind::Organisation, &owner)];
        for (index, key) in signers.iter().enumerate() {
            identities.push(identity(format!("ingest {index}"), IdentityKind::Node, key));
        }
        let named = |(index, key): (usize, &SigningKey)| GenesisValidator {
            name: format!("validator {index}"),
            public_key: key.public(),
            address: format!("127.0.0.1:{}", ports[index]),
        };
        let genesis = Genesis {
            format: GENESIS_MARK.into(),
            chain_id: "bench".into(),
            timestamp_ms: 1,
            validators: validators.iter().enumerate().map(named).collect(),
            identities,
            parameters,
        };
        Ok(Self { genesis, owner, signers, validators, ports })
    }

    /// Starts its validators.
    pub(crate) fn network(&self) -> Result<Network> {
        Network::start(&self.genesis, &self.validators, &self.ports)
    }
}
