//! Committees: the validators of one epoch, and the walk from those of the genesis to those of a later header.
//!
//! ```text
//! genesis keys ─certify─▶ last header of epoch e ─names─▶ next committee ─certify─▶ last header of epoch f ─names─▶ …
//!
//! hash = SHA-256(CBOR ["cairn/validators/v1", [key…]]), keys ascending
//! ```
//!
//! Only the epoch ends at which the committee changed are walked; between two of them the hash in the headers stays the
//! same. Whoever gets hold of more than two thirds of the keys of a *former* committee can sign another history from
//! there on: a verifier that has seen a later committee should keep it. What decides a committee is not here but in the
//! chain's state.

use serde::{Deserialize, Serialize};

use crate::base64_bytes::Base64Bytes;
use crate::cbor::Writer;
use crate::certificate::{Finalization, quorum};
use crate::digest::{Digest, sha256};
use crate::epoch;
use crate::genesis::Genesis;
use crate::header::Header;
use crate::identity::PublicKey;
use crate::units::Height;

/// Most validators of a committee.
pub const VALIDATORS_MAX: usize = 128;

/// The validators of one epoch: 1 to 128 keys in strictly ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Committee {
    keys: Vec<PublicKey>,
}

/// Why a committee, a change of it, or a header under it is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitteeError {
    /// Too many keys, or none.
    #[error("a committee has 1 to {VALIDATORS_MAX} validators, this one {found}")]
    Size {
        /// How many keys there are.
        found: usize,
    },
    /// A key stands twice, or not in its place.
    #[error("validators stand in strictly ascending order of their keys; {key} does not")]
    Order {
        /// The first key that is not greater than the one before it.
        key: PublicKey,
    },
    /// One of the committee changes on the way does not hold.
    #[error("committee change {index}: {reason}")]
    Change {
        /// Its place in the list, from 0.
        index: usize,
        /// What was expected and what was found.
        reason: String,
    },
    /// A header that does not belong under this committee.
    #[error("header at height {height}: {reason}")]
    Header {
        /// Its height.
        height: Height,
        /// What was expected and what was found.
        reason: String,
    },
    /// The certificate does not prove the header.
    #[error("certificate of the header at height {height}: {reason}")]
    Certificate {
        /// The header's height.
        height: Height,
        /// Why not.
        reason: String,
    },
}

impl Committee {
    /// Takes keys that stand in order already, as files and messages hold them.
    ///
    /// # Errors
    /// When there are none or too many, or they are not strictly ascending.
    pub fn new(keys: Vec<PublicKey>) -> Result<Self, CommitteeError> {
        if keys.is_empty() || keys.len() > VALIDATORS_MAX {
            return Err(CommitteeError::Size { found: keys.len() });
        }
        match keys.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(pair) => Err(CommitteeError::Order { key: pair[1] }),
            None => Ok(Self { keys }),
        }
    }

    /// The committee of a genesis. One that was never checked may be empty; no certificate holds under it.
    pub(crate) fn of_genesis(mut keys: Vec<PublicKey>) -> Self {
        keys.sort();
        Self { keys }
    }

    /// The keys, ascending. The place of a key is its bit in certificates and its number in [`epoch::leader`].
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// How many validators there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none, which only a genesis that was never checked has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What headers name the committee by.
    #[must_use]
    pub fn hash(&self) -> Digest {
        let mut out = Vec::with_capacity(32 + self.keys.len() * 34);
        let mut writer = Writer::new(&mut out);
        writer.array(2);
        writer.text("cairn/validators/v1");
        writer.array(self.keys.len());
        for key in &self.keys {
            writer.bytes(key.as_bytes());
        }
        sha256(&[&out])
    }

    /// How many must sign: more than two thirds.
    #[must_use]
    pub fn quorum(&self) -> usize {
        quorum(self.keys.len())
    }

    /// Whether `key` is one of them.
    #[must_use]
    pub fn contains(&self, key: &PublicKey) -> bool {
        self.place(key).is_some()
    }

    /// The place of `key` among them.
    #[must_use]
    pub fn place(&self, key: &PublicKey) -> Option<usize> {
        self.keys.binary_search(key).ok()
    }
}

/// The end of an epoch at which the committee changed: a header that names the next one, and who that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitteeChange {
    /// Canonical bytes of the epoch's last header.
    pub header: Base64Bytes,
    /// The certificate over it.
    pub certificate: Base64Bytes,
    /// The committee that certifies from the next epoch on, keys strictly ascending.
    pub validators: Vec<PublicKey>,
}

/// The committee at the end of a walk, and the first epoch that it certifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// The validators.
    pub committee: Committee,
    /// The first epoch after the last change; 0 when there was none.
    pub first_epoch: u64,
}

/// Walks from the committee of the genesis over every change, oldest first.
///
/// # Errors
/// Names the first change that does not hold and why.
pub fn walk(genesis: &Genesis, changes: &[CommitteeChange]) -> Result<Trusted, CommitteeError> {
    let mut trusted = Trusted { committee: genesis.committee(), first_epoch: 0 };
    for (index, change) in changes.iter().enumerate() {
        trusted = trusted.step(genesis, change).map_err(|error| match error {
            error @ CommitteeError::Change { .. } => error,
            other => CommitteeError::Change { index, reason: other.to_string() },
        })?;
    }
    Ok(trusted)
}

impl Trusted {
    /// The committee after one more change.
    ///
    /// # Errors
    /// Says what of the change does not hold.
    pub fn step(&self, genesis: &Genesis, change: &CommitteeChange) -> Result<Self, CommitteeError> {
        let broken = |height, reason| CommitteeError::Header { height, reason };
        let header = Header::decode(&change.header.0).map_err(|error| broken(Height(0), error.to_string()))?;
        if !epoch::is_last(header.height, genesis.parameters.epoch_blocks) {
            let blocks = genesis.parameters.epoch_blocks;
            return Err(broken(header.height, format!("not the last of an epoch of {blocks} blocks")));
        }
        self.check(genesis, &header, &change.certificate.0)?;
        let next = Committee::new(change.validators.clone())?;
        let named = next.hash();
        if header.next_validators_hash != named {
            let reason = format!("names the next committee {}, given is {named}", header.next_validators_hash);
            return Err(broken(header.height, reason));
        }
        if named == header.validators_hash {
            return Err(broken(header.height, "the committee does not change there".into()));
        }
        // The epoch is that of a height, so there is one after it.
        Ok(Self { committee: next, first_epoch: header.epoch + 1 })
    }

    /// Checks that `header` is of this chain and certified by this committee; returns how many signed.
    ///
    /// # Errors
    /// Says what does not fit: chain, epoch, committee or certificate.
    pub fn check(&self, genesis: &Genesis, header: &Header, certificate: &[u8]) -> Result<usize, CommitteeError> {
        self.check_header(genesis, header)?;
        self.check_certificate(genesis, header, certificate)
    }

    /// Checks that `header` is of this chain, of an epoch of this committee, and names this committee.
    ///
    /// # Errors
    /// Says which of them does not fit.
    pub fn check_header(&self, genesis: &Genesis, header: &Header) -> Result<(), CommitteeError> {
        let broken = |reason| Err(CommitteeError::Header { height: header.height, reason });
        if header.chain_id != genesis.chain_id {
            return broken(format!(
                "the genesis is of chain {:?}, the header of {:?}",
                genesis.chain_id, header.chain_id
            ));
        }
        let epoch = epoch::epoch_of(header.height, genesis.parameters.epoch_blocks);
        if header.epoch != epoch {
            return broken(format!("lies in epoch {epoch}, the header says {}", header.epoch));
        }
        if epoch < self.first_epoch {
            let first = self.first_epoch;
            return broken(format!("of epoch {epoch}, but the committee walked to begins with epoch {first}"));
        }
        let expected = self.committee.hash();
        if header.validators_hash != expected {
            return broken(format!("expected validator set {expected}, found {}", header.validators_hash));
        }
        Ok(())
    }

    /// Checks that the committee certified `header`; returns how many signed.
    ///
    /// # Errors
    /// Says what does not hold.
    pub fn check_certificate(
        &self,
        genesis: &Genesis,
        header: &Header,
        certificate: &[u8],
    ) -> Result<usize, CommitteeError> {
        let keys = self.committee.keys();
        let held = Finalization::decode(certificate, keys.len()).and_then(|certificate| {
            certificate.verify_header(header, keys, &genesis.tag()).map(|()| certificate.signatures.len())
        });
        held.map_err(|error| CommitteeError::Certificate { height: header.height, reason: error.to_string() })
    }
}

#[cfg(test)]
mod tests;
