//! The block header: small, and all that validators sign.
//!
//! ```text
//! CBOR ["cairn/header/v2", chain id, epoch, view, parent view, proposer, height, timestamp_ms, parent,
//!       statements root, statements count, state root, log root, log size, validators hash, next validators hash]
//! ```
//!
//! The consensus payload is SHA-256 of these bytes, so a certificate and a header are a proof that stands alone.

use crate::cbor::{CborError, Reader, Writer};
use crate::digest::{Digest, sha256};
use crate::units::{Height, TreeSize};

/// The mark at the start of a header.
pub const HEADER_MARK: &str = "cairn/header/v2";
/// No header is longer.
pub const HEADER_BYTES_MAX: usize = 512;

/// A block's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The chain's name.
    pub chain_id: String,
    /// Epoch of the validator set.
    pub epoch: u64,
    /// Consensus view within the epoch in which the block was proposed.
    pub view: u64,
    /// Consensus view of the parent.
    pub parent_view: u64,
    /// Key of the validator that proposed it.
    pub proposer: [u8; 32],
    /// Height; genesis is 0.
    pub height: Height,
    /// The proposer's clock in milliseconds since 1970-01-01 UTC, greater than the parent's.
    pub timestamp_ms: u64,
    /// Digest of the parent's header; at height 0 the chain's tag.
    pub parent: Digest,
    /// RFC 9162 root over the block's statements (whole envelopes).
    pub statements_root: Digest,
    /// How many statements the block holds.
    pub statements_count: u64,
    /// Root of the state after this block; zero at height 0, where the state follows from the genesis.
    pub state_root: Digest,
    /// RFC 9162 root over all anchors up to and with this block (whole envelopes).
    pub log_root: Digest,
    /// How many anchors the log holds.
    pub log_size: TreeSize,
    /// Hash of the committee that certifies this block.
    pub validators_hash: Digest,
    /// Hash of the committee that certifies the next block: another one only at the last block of an epoch.
    pub next_validators_hash: Digest,
}

impl Header {
    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(352);
        let mut writer = Writer::new(&mut out);
        writer.array(16);
        writer.text(HEADER_MARK);
        writer.text(&self.chain_id);
        writer.unsigned(self.epoch);
        writer.unsigned(self.view);
        writer.unsigned(self.parent_view);
        writer.bytes(&self.proposer);
        writer.unsigned(self.height.0);
        writer.unsigned(self.timestamp_ms);
        writer.bytes(self.parent.as_ref());
        writer.bytes(self.statements_root.as_ref());
        writer.unsigned(self.statements_count);
        writer.bytes(self.state_root.as_ref());
        writer.bytes(self.log_root.as_ref());
        writer.unsigned(self.log_size.0);
        writer.bytes(self.validators_hash.as_ref());
        writer.bytes(self.next_validators_hash.as_ref());
        out
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// When they are not deterministic CBOR of the shape above.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        if bytes.len() > HEADER_BYTES_MAX {
            let found = format!("{} bytes", bytes.len());
            return Err(reader.error(format!("a header of at most {HEADER_BYTES_MAX} bytes"), found));
        }
        reader.array_of(16)?;
        reader.mark(HEADER_MARK)?;
        let header = Self {
            chain_id: reader.text()?.to_owned(),
            epoch: reader.unsigned()?,
            view: reader.unsigned()?,
            parent_view: reader.unsigned()?,
            proposer: reader.fixed()?,
            height: Height(reader.unsigned()?),
            timestamp_ms: reader.unsigned()?,
            parent: Digest(reader.fixed()?),
            statements_root: Digest(reader.fixed()?),
            statements_count: reader.unsigned()?,
            state_root: Digest(reader.fixed()?),
            log_root: Digest(reader.fixed()?),
            log_size: TreeSize(reader.unsigned()?),
            validators_hash: Digest(reader.fixed()?),
            next_validators_hash: Digest(reader.fixed()?),
        };
        reader.end()?;
        Ok(header)
    }

    /// SHA-256 of the canonical bytes: the block's name and the consensus payload.
    #[must_use]
    pub fn digest(&self) -> Digest {
        sha256(&[&self.encode()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn any_header()(
            chain_id in "[a-z0-9.-]{1,64}", numbers in any::<[u64; 7]>(), hashes in any::<[[u8; 32]; 7]>(),
        ) -> Header {
            Header {
                chain_id, epoch: numbers[0], view: numbers[1], parent_view: numbers[2], proposer: hashes[0],
                height: Height(numbers[3]), timestamp_ms: numbers[4], parent: Digest(hashes[1]),
                statements_root: Digest(hashes[2]), statements_count: numbers[5], state_root: Digest(hashes[3]),
                log_root: Digest(hashes[4]), log_size: TreeSize(numbers[6]), validators_hash: Digest(hashes[5]),
                next_validators_hash: Digest(hashes[6]),
            }
        }
    }

    proptest! {
        #[test]
        fn round_trips_within_the_limit(header in any_header()) {
            let bytes = header.encode();
            prop_assert!(bytes.len() <= HEADER_BYTES_MAX);
            prop_assert_eq!(Header::decode(&bytes).unwrap(), header);
        }

        #[test]
        fn any_flipped_bit_changes_header_or_is_refused(header in any_header(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = header.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            if let Ok(other) = Header::decode(&bytes) {
                prop_assert_ne!(&other, &header);
                prop_assert_eq!(other.encode(), bytes);
            }
        }
    }
}
