//! A block as consensus carries and stores it: the header's bytes, then the statements.
//!
//! ```text
//! block     = length(header) ‖ header ‖ count ‖ count × (length ‖ statement)     lengths and count: LEB128 varints
//! header    = deterministic CBOR of cairn_proof::header::Header, ≤ 512 bytes
//! statement = COSE_Sign1, ≤ 65,535 bytes; all of them together ≤ 2 MiB, count ≤ 4,096
//! digest    = SHA-256(header)
//! ```
//!
//! Only the header is hashed, so decoding checks that the statements are those that the header commits to:
//! one digest has one block. Decoding checks nothing else; whether a block is valid is the executor's business.

use bytes::{BufMut, Bytes};
use cairn_proof::{
    Height,
    block::{BLOCK_BYTES_MAX, BLOCK_STATEMENTS_MAX, SignedBlock, statements_root},
    genesis::Genesis,
    header::{HEADER_BYTES_MAX, Header},
    statement::STATEMENT_BYTES_MAX,
};
use commonware_codec::{Buf, EncodeSize, Error as CodecError, RangeCfg, Read, Write};
use commonware_consensus::{Block as ConsensusBlock, BoundedBlock, Heightable, types};
use commonware_cryptography::{Digestible, sha256};

/// Bytes of the longest varint of a length.
const LENGTH_BYTES_MAX: usize = 5;

/// A block whose statements are those that its header commits to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    header: Header,
    encoded: Bytes,
    digest: sha256::Digest,
    statements: Vec<Bytes>,
}

impl Block {
    /// Puts a block together; `header` commits to `statements`.
    pub(crate) fn new(header: Header, statements: Vec<Bytes>) -> Self {
        let encoded = Bytes::from(header.encode());
        let digest = sha256::Digest(header.digest().0);
        Self { header, encoded, digest, statements }
    }

    /// The block at height 0, which nobody signs.
    pub(crate) fn genesis(genesis: &Genesis) -> Self {
        Self::new(genesis.header(), Vec::new())
    }

    /// The header.
    pub(crate) const fn header(&self) -> &Header {
        &self.header
    }

    /// The header's bytes, whose hash validators sign.
    pub(crate) const fn header_bytes(&self) -> &Bytes {
        &self.encoded
    }

    /// The height.
    pub(crate) const fn height(&self) -> Height {
        self.header.height
    }

    /// The statements, in the order in which they apply.
    pub(crate) fn statements(&self) -> &[Bytes] {
        &self.statements
    }

    /// The form in which blocks travel over HTTP and are executed.
    pub(crate) fn signed(&self, certificate: Option<Vec<u8>>) -> SignedBlock {
        let statements = self.statements.iter().map(|statement| statement.to_vec()).collect();
        SignedBlock { header: self.encoded.to_vec(), statements, certificate }
    }

    /// The header's hash.
    pub(crate) fn id(&self) -> cairn_proof::Digest {
        cairn_proof::Digest(self.digest.0)
    }
}

impl Write for Block {
    fn write(&self, buf: &mut impl BufMut) {
        self.encoded.write(buf);
        self.statements.len().write(buf);
        for statement in &self.statements {
            statement.write(buf);
        }
    }
}

impl EncodeSize for Block {
    fn encode_size(&self) -> usize {
        let statements: usize = self.statements.iter().map(EncodeSize::encode_size).sum();
        self.encoded.encode_size() + self.statements.len().encode_size() + statements
    }
}

/// Copies out of the network buffer, so that a kept statement does not keep a whole message in memory.
fn read_bytes(buf: &mut impl Buf, range: RangeCfg<usize>) -> Result<Bytes, CodecError> {
    Bytes::read_cfg(buf, &range).map(|bytes| Bytes::copy_from_slice(&bytes))
}

impl Read for Block {
    type Cfg = ();

    fn read_cfg(buf: &mut impl Buf, (): &()) -> Result<Self, CodecError> {
        let encoded = read_bytes(buf, (1..=HEADER_BYTES_MAX).into())?;
        let header = Header::decode(&encoded).map_err(|error| CodecError::Wrapped("block header", Box::new(error)))?;
        let count = usize::read_cfg(buf, &(..=BLOCK_STATEMENTS_MAX).into())?;
        if count as u64 != header.statements_count {
            return Err(CodecError::Invalid("block", "the header commits to another number of statements"));
        }
        let mut statements = Vec::with_capacity(count.min(buf.remaining()));
        let mut room = BLOCK_BYTES_MAX;
        for _ in 0..count {
            let statement = read_bytes(buf, (1..=STATEMENT_BYTES_MAX.min(room)).into())?;
            room -= statement.len();
            statements.push(statement);
        }
        if statements_root(statements.iter().map(AsRef::as_ref)) != header.statements_root {
            return Err(CodecError::Invalid("block", "the header commits to other statements"));
        }
        let digest = sha256::Digest(header.digest().0);
        Ok(Self { header, encoded, digest, statements })
    }
}

impl Digestible for Block {
    type Digest = sha256::Digest;

    fn digest(&self) -> sha256::Digest {
        self.digest
    }
}

impl Heightable for Block {
    fn height(&self) -> types::Height {
        types::Height::new(self.header.height.0)
    }
}

impl ConsensusBlock for Block {
    fn parent(&self) -> sha256::Digest {
        sha256::Digest(self.header.parent.0)
    }
}

impl BoundedBlock for Block {
    fn max_encode_size((): &()) -> usize {
        HEADER_BYTES_MAX + BLOCK_BYTES_MAX + (2 + BLOCK_STATEMENTS_MAX) * LENGTH_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::city::City;
    use cairn_proof::Digest;
    use commonware_codec::{DecodeExt as _, Encode as _};

    fn block(statements: Vec<Bytes>) -> Block {
        let header = Header {
            height: Height(7),
            statements_root: statements_root(statements.iter().map(AsRef::as_ref)),
            statements_count: statements.len() as u64,
            state_root: Digest([3; 32]),
            ..City::new(4).genesis.header()
        };
        Block::new(header, statements)
    }

    fn bytes(length: usize, value: u8) -> Bytes {
        vec![value; length].into()
    }

    #[test]
    fn blocks_round_trip() {
        let full = vec![bytes(STATEMENT_BYTES_MAX, 1), bytes(1, 2), bytes(200, 3)];
        for block in [block(vec![]), block(full), Block::genesis(&City::new(4).genesis)] {
            let encoded = block.encode();
            assert_eq!(encoded.len(), block.encode_size());
            assert!(encoded.len() <= Block::max_encode_size(&()));
            let decoded = Block::decode(encoded).unwrap();
            assert_eq!(decoded, block);
            assert_eq!(decoded.digest(), block.digest());
        }
    }

    /// Blocks lie on disk and travel in this form: another one is a change of format.
    #[test]
    fn the_encoding_is_the_golden_one() {
        let golden = include_str!("../tests/golden/block.hex").trim();
        let block = block(vec![bytes(3, 1), bytes(200, 2)]);
        assert_eq!(hex::encode(block.encode()), golden);
        assert_eq!(Block::decode(Bytes::from(hex::decode(golden).unwrap())).unwrap(), block);
    }

    #[test]
    fn the_digest_is_the_headers() {
        let block = block(vec![bytes(10, 1)]);
        assert_eq!(block.id(), block.header().digest());
        assert_eq!(block.digest().0, cairn_proof::digest::sha256(&[block.header_bytes()]).0);
        assert_eq!(block.signed(None).check().unwrap(), *block.header());
    }

    #[test]
    fn other_statements_than_the_headers_are_refused() {
        let good = block(vec![bytes(10, 1), bytes(10, 2)]);
        for statements in [
            vec![bytes(10, 2), bytes(10, 1)],
            vec![bytes(10, 1)],
            vec![bytes(10, 1), bytes(10, 2), bytes(10, 3)],
            vec![bytes(10, 1), bytes(11, 2)],
            vec![],
        ] {
            let changed = Block { statements, ..good.clone() };
            assert!(Block::decode(changed.encode()).is_err());
        }
    }

    #[test]
    fn bytes_that_are_cut_extended_or_flipped_are_another_block_or_none() {
        let good = block(vec![bytes(3, 1), bytes(200, 2)]);
        let encoded = good.encode().to_vec();
        for cut in 0..encoded.len() {
            assert!(Block::decode(Bytes::copy_from_slice(&encoded[..cut])).is_err(), "cut at {cut}");
        }
        assert!(Block::decode(Bytes::from([encoded.clone(), vec![0]].concat())).is_err());
        for bit in 0..encoded.len() * 8 {
            let mut flipped = encoded.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Block::decode(Bytes::from(flipped.clone())) {
                assert_ne!(other.digest(), good.digest(), "bit {bit}");
                assert_eq!(other.encode().to_vec(), flipped, "one block has one encoding");
            }
        }
    }

    #[test]
    fn what_passes_a_bound_is_refused_before_memory_is_taken() {
        let too_long = block(vec![bytes(STATEMENT_BYTES_MAX + 1, 1)]);
        assert!(Block::decode(too_long.encode()).is_err());
        let too_many_bytes = block(vec![bytes(STATEMENT_BYTES_MAX, 1); BLOCK_BYTES_MAX / STATEMENT_BYTES_MAX + 1]);
        assert!(Block::decode(too_many_bytes.encode()).is_err());
        let too_many = block(vec![bytes(1, 1); BLOCK_STATEMENTS_MAX + 1]);
        assert!(Block::decode(too_many.encode()).is_err());
        let empty_statement = block(vec![Bytes::new()]);
        assert!(Block::decode(empty_statement.encode()).is_err());
        // A header that claims four billion bytes, and a count that claims as many statements.
        assert!(Block::decode(Bytes::from(vec![0xff, 0xff, 0xff, 0xff, 0x0f, 1])).is_err());
        let header = block(vec![]).header_bytes().clone();
        let mut claims = Vec::new();
        header.write(&mut claims);
        claims.extend([0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert!(Block::decode(Bytes::from(claims)).is_err());
    }
}
