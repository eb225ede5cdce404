//! Finality certificates: that more than two thirds of the validators signed a header.
//!
//! Re-implements the bytes that the consensus library produces, so that a verifier needs none of it.
//!
//! ```text
//! varint       = unsigned LEB128, canonical
//! proposal     = varint(epoch) ‖ varint(view) ‖ varint(parent view) ‖ payload[32]
//! certificate  = proposal ‖ u64 BE(n) ‖ ⌈n/8⌉ bytes of bitmap, least bit first ‖ varint(k) ‖ k × 64-byte signatures
//! signed bytes = varint(len(domain)) ‖ domain ‖ proposal,  domain = "cairn/consensus/v1/" ‖ chain tag ‖ "_FINALIZE"
//! ```
//!
//! Bit i of the bitmap stands for the i-th validator key in ascending order. Quorum: k ≥ n − ⌊(n − 1)/3⌋.
//! Signatures are checked strictly (RFC 8032 with canonical s, no small order), as other languages' libraries do;
//! the validators themselves accept by the wider ZIP-215 rules. An honest validator's signature passes both.

use crate::digest::Digest;
use crate::header::Header;
use crate::identity::{PublicKey, SIGNATURE_BYTES};
use crate::statement::ChainTag;

const DOMAIN: &[u8] = b"cairn/consensus/v1/";
const FINALIZE: &[u8] = b"_FINALIZE";

/// Why a certificate does not prove finality.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The bytes are not a certificate.
    #[error("not a finality certificate: {0}")]
    Encoding(&'static str),
    /// Made for another number of validators.
    #[error("the certificate counts {found} validators, the set has {expected}")]
    SetSize {
        /// Size of the set.
        expected: usize,
        /// What the certificate says.
        found: u64,
    },
    /// Too few signed.
    #[error("{found} validators signed, {expected} are needed")]
    Quorum {
        /// How many are needed.
        expected: usize,
        /// How many signed.
        found: usize,
    },
    /// One signature is wrong.
    #[error("the signature of validator {validator} does not verify")]
    Signature {
        /// Its key.
        validator: PublicKey,
    },
    /// About another header.
    #[error("the certificate is about {found}, the header is {expected}")]
    Header {
        /// Digest of the header.
        expected: Digest,
        /// Payload of the certificate.
        found: Digest,
    },
    /// Another epoch than the header's, or an earlier view, or its view with another parent.
    #[error(
        "the certificate is of epoch {epoch}, view {view}, parent view {parent_view}: expected the header's, or a later view of its epoch"
    )]
    Round {
        /// Epoch in the certificate.
        epoch: u64,
        /// View in the certificate.
        view: u64,
        /// Parent view in the certificate.
        parent_view: u64,
    },
}

/// A decoded certificate. Decoding says nothing about its truth: [`Finalization::verify`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finalization {
    /// Epoch of the validator set.
    pub epoch: u64,
    /// View in which the header was proposed.
    pub view: u64,
    /// View of its parent.
    pub parent_view: u64,
    /// Digest of the header.
    pub payload: Digest,
    /// Who signed (place among the ascending keys) and the signature.
    pub signatures: Vec<(usize, [u8; SIGNATURE_BYTES])>,
    proposal: Vec<u8>,
}

/// How many of `validators` must sign: more than two thirds.
#[must_use]
pub const fn quorum(validators: usize) -> usize {
    validators - validators.saturating_sub(1) / 3
}

/// The consensus namespace of a chain: what every consensus message of it is bound to.
#[must_use]
pub fn consensus_namespace(chain: &ChainTag) -> Vec<u8> {
    [DOMAIN, chain.0.as_ref()].concat()
}

impl Finalization {
    /// Reads a certificate made by a set of `validators` validators.
    ///
    /// # Errors
    /// When the bytes are not the one encoding of a certificate for a set of that size.
    pub fn decode(bytes: &[u8], validators: usize) -> Result<Self, CertificateError> {
        let mut at = 0;
        let epoch = varint(bytes, &mut at)?;
        let view = varint(bytes, &mut at)?;
        let parent_view = varint(bytes, &mut at)?;
        let payload = Digest(take(bytes, &mut at)?);
        let proposal = bytes[..at].to_vec();
        let count = u64::from_be_bytes(take(bytes, &mut at)?);
        if count != validators as u64 {
            return Err(CertificateError::SetSize { expected: validators, found: count });
        }
        let mut signers = Vec::new();
        for byte_index in 0..validators.div_ceil(8) {
            let [byte] = take(bytes, &mut at)?;
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                signers.push(byte_index * 8 + bit);
            }
        }
        if signers.last().is_some_and(|last| *last >= validators) {
            return Err(CertificateError::Encoding("a bit beyond the last validator is set"));
        }
        if varint(bytes, &mut at)? != signers.len() as u64 {
            return Err(CertificateError::Encoding("the number of signatures is not the number of bits set"));
        }
        let mut signatures = Vec::with_capacity(signers.len());
        for signer in signers {
            signatures.push((signer, take(bytes, &mut at)?));
        }
        if at != bytes.len() {
            return Err(CertificateError::Encoding("bytes are left over"));
        }
        Ok(Self { epoch, view, parent_view, payload, signatures, proposal })
    }

    /// Checks quorum and every signature.
    ///
    /// `validators` are the keys of the certificate's epoch, in any order.
    ///
    /// # Errors
    /// When too few signed, or a signature is wrong.
    pub fn verify(&self, validators: &[PublicKey], chain: &ChainTag) -> Result<(), CertificateError> {
        let mut keys = validators.to_vec();
        keys.sort();
        let needed = quorum(keys.len());
        if keys.is_empty() || self.signatures.len() < needed {
            return Err(CertificateError::Quorum { expected: needed, found: self.signatures.len() });
        }
        let message = self.signed_bytes(chain);
        for (signer, signature) in &self.signatures {
            let Some(key) = keys.get(*signer) else {
                return Err(CertificateError::Encoding("a signer beyond the validator set"));
            };
            if !key.verify(&message, signature) {
                return Err(CertificateError::Signature { validator: *key });
            }
        }
        Ok(())
    }

    /// Checks that the certificate proves `header` final: quorum, signatures, payload, epoch, and that its view is the
    /// header's or a later one.
    ///
    /// # Errors
    /// Says which of them does not hold.
    pub fn verify_header(
        &self,
        header: &Header,
        validators: &[PublicKey],
        chain: &ChainTag,
    ) -> Result<(), CertificateError> {
        let expected = header.digest();
        if self.payload != expected {
            return Err(CertificateError::Header { expected, found: self.payload });
        }
        // The last block of an epoch is proposed again, as it is, in later views until one of them is final.
        let first = (self.view, self.parent_view) == (header.view, header.parent_view);
        if self.epoch != header.epoch || !(first || self.view > header.view) {
            let (epoch, view, parent_view) = (self.epoch, self.view, self.parent_view);
            return Err(CertificateError::Round { epoch, view, parent_view });
        }
        self.verify(validators, chain)
    }

    fn signed_bytes(&self, chain: &ChainTag) -> Vec<u8> {
        let domain = [&consensus_namespace(chain), FINALIZE].concat();
        let mut message = Vec::with_capacity(domain.len() + self.proposal.len() + 2);
        write_varint(domain.len() as u64, &mut message);
        message.extend_from_slice(&domain);
        message.extend_from_slice(&self.proposal);
        message
    }
}

fn take<const N: usize>(bytes: &[u8], at: &mut usize) -> Result<[u8; N], CertificateError> {
    let taken = bytes.get(*at..).and_then(|rest| rest.first_chunk::<N>());
    let taken = taken.ok_or(CertificateError::Encoding("it ends too early"))?;
    *at += N;
    Ok(*taken)
}

/// Unsigned LEB128 of at most 64 bits; the last byte may not be zero unless it is the only one.
fn varint(bytes: &[u8], at: &mut usize) -> Result<u64, CertificateError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take(bytes, at)?;
        if shift > 0 && byte == 0 {
            return Err(CertificateError::Encoding("a number is not written in its shortest form"));
        }
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            break;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(CertificateError::Encoding("a number is larger than 64 bits"))
}

pub(crate) fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    #[allow(clippy::cast_possible_truncation)]
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[allow(clippy::cast_possible_truncation)]
    out.push(value as u8);
}

/// Makes certificates for tests and for tools that check verifiers; validators make theirs in consensus.
#[cfg(any(test, feature = "forge"))]
pub mod forge {
    use super::{ChainTag, Finalization, Header, write_varint};
    use crate::identity::SigningKey;

    /// A certificate over `header` by `signers` (places among the ascending keys) out of the set of `all` keys.
    #[must_use]
    pub fn certificate(header: &Header, all: &[SigningKey], signers: &[usize], chain: &ChainTag) -> Vec<u8> {
        certificate_in_view(header, header.view, header.parent_view, all, signers, chain)
    }

    /// The same for a header that was proposed again in another view.
    #[must_use]
    pub fn certificate_in_view(
        header: &Header,
        view: u64,
        parent_view: u64,
        all: &[SigningKey],
        signers: &[usize],
        chain: &ChainTag,
    ) -> Vec<u8> {
        let mut keys: Vec<&SigningKey> = all.iter().collect();
        keys.sort_by_key(|key| key.public());
        let mut proposal = Vec::new();
        for number in [header.epoch, view, parent_view] {
            write_varint(number, &mut proposal);
        }
        proposal.extend_from_slice(header.digest().as_ref());
        let (epoch, payload) = (header.epoch, header.digest());
        let unsigned =
            Finalization { epoch, view, parent_view, payload, signatures: vec![], proposal: proposal.clone() };
        let message = unsigned.signed_bytes(chain);
        let mut out = proposal;
        out.extend_from_slice(&(keys.len() as u64).to_be_bytes());
        let mut bitmap = vec![0u8; keys.len().div_ceil(8)];
        for signer in signers {
            bitmap[signer / 8] |= 1 << (signer % 8);
        }
        out.extend_from_slice(&bitmap);
        write_varint(signers.len() as u64, &mut out);
        for signer in signers {
            out.extend_from_slice(&keys[*signer].sign(&message));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesis::{GENESIS_MARK, Genesis, GenesisValidator};
    use crate::identity::SigningKey;
    use crate::parameters::Parameters;
    use proptest::prelude::*;

    fn keys(count: u8) -> Vec<SigningKey> {
        (1..=count).map(|seed| SigningKey::from_seed(&[seed; 32])).collect()
    }

    fn genesis(keys: &[SigningKey]) -> Genesis {
        let validators = keys
            .iter()
            .map(|key| GenesisValidator { name: "v".into(), public_key: key.public(), address: "v:7000".into() })
            .collect();
        Genesis {
            format: GENESIS_MARK.into(),
            chain_id: "city".into(),
            timestamp_ms: 1,
            validators,
            identities: vec![],
            parameters: Parameters::default(),
        }
    }

    #[test]
    fn quorum_is_more_than_two_thirds() {
        for (validators, needed) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (10, 7)] {
            assert_eq!(quorum(validators), needed, "{validators} validators");
        }
    }

    #[test]
    fn a_quorum_proves_and_less_does_not() {
        for count in [1u8, 4, 7, 9] {
            let keys = keys(count);
            let genesis = genesis(&keys);
            let header = Header { epoch: 3, view: 300, parent_view: 299, ..genesis.header() };
            let needed = quorum(keys.len());
            let signers: Vec<_> = (0..needed).collect();
            let bytes = forge::certificate(&header, &keys, &signers, &genesis.tag());
            let proof = Finalization::decode(&bytes, keys.len()).unwrap();
            proof.verify_header(&header, &genesis.validator_keys(), &genesis.tag()).unwrap();
            if count == 4 {
                assert_eq!(bytes.len(), 239);
            }
            let few = forge::certificate(&header, &keys, &signers[1..], &genesis.tag());
            let few = Finalization::decode(&few, keys.len()).unwrap();
            let refused = few.verify_header(&header, &genesis.validator_keys(), &genesis.tag());
            assert_eq!(refused, Err(CertificateError::Quorum { expected: needed, found: needed - 1 }));
            let other = ChainTag(Digest([9; 32]));
            assert!(proof.verify_header(&header, &genesis.validator_keys(), &other).is_err(), "another chain");
        }
    }

    /// Consensus proposes the last block of an epoch again, as it is, until one of the views is final.
    #[test]
    fn a_later_view_of_the_same_epoch_proves_the_header_and_no_other_does() {
        let keys = keys(4);
        let genesis = genesis(&keys);
        let header = Header { epoch: 2, view: 5, parent_view: 4, ..genesis.header() };
        let judge = |header: &Header, view, parent_view| {
            let bytes = forge::certificate_in_view(header, view, parent_view, &keys, &[0, 1, 2], &genesis.tag());
            let read = Finalization::decode(&bytes, 4).unwrap();
            read.verify_header(header, &genesis.validator_keys(), &genesis.tag())
        };
        for (view, parent_view) in [(5, 4), (6, 4), (6, 5), (300, 7)] {
            assert_eq!(judge(&header, view, parent_view), Ok(()), "view {view}, parent view {parent_view}");
        }
        for (view, parent_view) in [(4, 4), (4, 3), (5, 3), (5, 5), (0, 0)] {
            let refused = Err(CertificateError::Round { epoch: 2, view, parent_view });
            assert_eq!(judge(&header, view, parent_view), refused);
        }
        // A certificate of another epoch, over the header as it is.
        let mut moved = forge::certificate(&header, &keys, &[0, 1, 2], &genesis.tag());
        moved[0] = 3;
        let read = Finalization::decode(&moved, 4).unwrap();
        let refused = read.verify_header(&header, &genesis.validator_keys(), &genesis.tag());
        assert_eq!(refused, Err(CertificateError::Round { epoch: 3, view: 5, parent_view: 4 }));
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let keys = keys(4);
        let genesis = genesis(&keys);
        let header = Header { view: 5, parent_view: 4, ..genesis.header() };
        let bytes = forge::certificate(&header, &keys, &[0, 2, 3], &genesis.tag());
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let accepted = Finalization::decode(&changed, 4)
                .and_then(|proof| proof.verify_header(&header, &genesis.validator_keys(), &genesis.tag()));
            assert!(accepted.is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), n in 1usize..20) {
            prop_assert!(Finalization::decode(&bytes, n).is_err() || bytes.len() > 40);
        }
    }
}
