//! A block as it travels: header, statements, and the certificate where there is one.
//!
//! ```text
//! CBOR [header bytes, [envelope bytes…], certificate bytes|null]
//! ```
//!
//! Nothing in it is trusted: [`SignedBlock::check`] ties the statements to the header, and a certificate, or a
//! certified descendant, ties the header to the validators.

use crate::cbor::{CborError, Reader, Writer};
use crate::digest::Digest;
use crate::header::{HEADER_BYTES_MAX, Header};
use crate::statement::STATEMENT_BYTES_MAX;
use crate::tree;

/// Most statements of one block.
pub const BLOCK_STATEMENTS_MAX: usize = 4096;
/// Most bytes of one block's statements.
pub const BLOCK_BYTES_MAX: usize = 2 * 1024 * 1024;
/// No certificate is longer: 128 validators.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// A block with its certificate, if it has one of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBlock {
    /// The header's canonical bytes.
    pub header: Vec<u8>,
    /// The statements' envelopes, in order.
    pub statements: Vec<Vec<u8>>,
    /// Finality certificate over this very header. A block may be final through a descendant alone.
    pub certificate: Option<Vec<u8>>,
}

/// Why header and statements do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The bytes do not decode.
    #[error("the block does not decode: {0}")]
    Encoding(#[from] CborError),
    /// Other statements than the header says.
    #[error(
        "the header says {expected_count} statements with root {expected}, the block holds {found_count} with root {found}"
    )]
    Statements {
        /// Root in the header.
        expected: Digest,
        /// Root of the statements.
        found: Digest,
        /// Count in the header.
        expected_count: u64,
        /// Count of the statements.
        found_count: u64,
    },
}

/// RFC 9162 root over a block's statements.
pub fn statements_root<'a>(statements: impl Iterator<Item = &'a [u8]>) -> Digest {
    let leaves: Vec<_> = statements.map(tree::leaf_hash).collect();
    tree::root(&leaves)
}

impl SignedBlock {
    /// Appends the encoding to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.array(3);
        writer.bytes(&self.header);
        writer.array(self.statements.len());
        for statement in &self.statements {
            writer.bytes(statement);
        }
        writer.bytes_or_null(self.certificate.as_deref());
    }

    /// The encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        self.write(&mut out);
        out
    }

    /// Reads one block from where `reader` stands.
    ///
    /// # Errors
    /// When the encoding is not this one, or a limit is passed.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        reader.array_of(3)?;
        let header = bounded(reader, HEADER_BYTES_MAX)?;
        let count = reader.array(BLOCK_STATEMENTS_MAX)?;
        let mut statements = Vec::with_capacity(count);
        let mut bytes = 0;
        for _ in 0..count {
            let statement = bounded(reader, STATEMENT_BYTES_MAX)?;
            bytes += statement.len();
            if bytes > BLOCK_BYTES_MAX {
                return Err(reader.error(format!("at most {BLOCK_BYTES_MAX} bytes of statements"), "more"));
            }
            statements.push(statement);
        }
        let certificate = if reader.null() { None } else { Some(bounded(reader, CERTIFICATE_BYTES_MAX)?) };
        Ok(Self { header, statements, certificate })
    }

    /// Reads one block.
    ///
    /// # Errors
    /// As [`SignedBlock::read`], and when bytes are left over.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        let block = Self::read(&mut reader)?;
        reader.end()?;
        Ok(block)
    }

    /// Decodes the header and checks that the statements are those it names.
    ///
    /// # Errors
    /// When the header does not decode or names others.
    pub fn check(&self) -> Result<Header, BlockError> {
        let header = Header::decode(&self.header)?;
        let found = statements_root(self.statements.iter().map(Vec::as_slice));
        let found_count = self.statements.len() as u64;
        if found != header.statements_root || found_count != header.statements_count {
            return Err(BlockError::Statements {
                expected: header.statements_root,
                found,
                expected_count: header.statements_count,
                found_count,
            });
        }
        Ok(header)
    }
}

/// Encodes several blocks as one CBOR array.
#[must_use]
pub fn encode_blocks(blocks: &[SignedBlock]) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out).array(blocks.len());
    for block in blocks {
        block.write(&mut out);
    }
    out
}

/// Reads what [`encode_blocks`] wrote, at most `most` blocks.
///
/// # Errors
/// When the encoding is another, or there are more.
pub fn decode_blocks(bytes: &[u8], most: usize) -> Result<Vec<SignedBlock>, CborError> {
    let mut reader = Reader::new(bytes);
    let count = reader.array(most)?;
    let mut blocks = Vec::with_capacity(count);
    for _ in 0..count {
        blocks.push(SignedBlock::read(&mut reader)?);
    }
    reader.end()?;
    Ok(blocks)
}

fn bounded(reader: &mut Reader<'_>, most: usize) -> Result<Vec<u8>, CborError> {
    let bytes = reader.bytes()?;
    if bytes.len() > most {
        return Err(reader.error(format!("at most {most} bytes"), format!("{} bytes", bytes.len())));
    }
    Ok(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Height, TreeSize};

    fn block(statements: Vec<Vec<u8>>) -> SignedBlock {
        let header = Header {
            chain_id: "city".into(),
            epoch: 0,
            view: 3,
            parent_view: 2,
            proposer: [1; 32],
            height: Height(2),
            timestamp_ms: 5,
            parent: Digest([2; 32]),
            statements_root: statements_root(statements.iter().map(Vec::as_slice)),
            statements_count: statements.len() as u64,
            state_root: Digest([3; 32]),
            log_root: Digest([4; 32]),
            log_size: TreeSize(9),
            validators_hash: Digest([5; 32]),
            next_validators_hash: Digest([5; 32]),
        };
        SignedBlock { header: header.encode(), statements, certificate: Some(vec![1, 2, 3]) }
    }

    #[test]
    fn blocks_round_trip() {
        let blocks = vec![block(vec![]), block(vec![b"one".to_vec(), b"two".to_vec()])];
        assert_eq!(decode_blocks(&encode_blocks(&blocks), 2).unwrap(), blocks);
        assert!(decode_blocks(&encode_blocks(&blocks), 1).is_err(), "more than asked for");
        assert_eq!(SignedBlock::decode(&blocks[1].encode()).unwrap(), blocks[1]);
    }

    #[test]
    fn swapped_missing_or_added_statements_are_found() {
        let good = block(vec![b"one".to_vec(), b"two".to_vec()]);
        good.check().unwrap();
        for statements in [vec![b"two".to_vec(), b"one".to_vec()], vec![b"one".to_vec()], vec![]] {
            let changed = SignedBlock { statements, ..good.clone() };
            assert!(matches!(changed.check(), Err(BlockError::Statements { .. })));
        }
    }
}
