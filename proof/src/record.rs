//! A record's canonical bytes, its salt, and its leaf.
//!
//! ```text
//! canonical = CBOR ["cairn/record/v1", topic, partition, offset, timestamp_ms, key|null, value|null,
//!                   [[name, bytes|null]…], salt]
//! salt      = first 16 bytes of BLAKE3-keyed(batch secret, leaf index as u64 little-endian)
//! leaf      = SHA-256(0x00 ‖ canonical)                                       (RFC 9162, section 2.1.1)
//! ```
//!
//! The salt keeps a neighbour's leaf hash in a proof from being guessed back to a value: whoever destroys the
//! batch secret makes the leaves of the batch impossible to guess, and receipts already given stay valid.
//! Where the secret is kept is not the concern of this module.

use crate::cbor::{CborError, Reader, Writer};
use crate::digest::Digest;
use crate::tree;
use crate::units::{LeafIndex, Offset, Partition};

/// The mark at the start of a record's canonical bytes.
pub const RECORD_MARK: &str = "cairn/record/v1";
/// Length of a salt in bytes.
pub const SALT_BYTES: usize = 16;
/// Most headers that one record may carry.
pub const HEADERS_MAX: usize = 1024;

/// A Kafka message, borrowed from wherever it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Kafka topic.
    pub topic: &'a str,
    /// Kafka partition.
    pub partition: Partition,
    /// Offset within the partition.
    pub offset: Offset,
    /// The message's timestamp in milliseconds since 1970-01-01 UTC; −1 where the message has none.
    pub timestamp_ms: i64,
    /// Key, if there is one.
    pub key: Option<&'a [u8]>,
    /// Value, if there is one.
    pub value: Option<&'a [u8]>,
    /// Headers in the order of the message; a header's value may be null.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// 32 random bytes per batch from which the salts of its records come.
#[derive(Clone, PartialEq, Eq)]
pub struct BatchSecret(pub [u8; 32]);

impl std::fmt::Debug for BatchSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BatchSecret(not shown)")
    }
}

impl BatchSecret {
    /// The salt of the record at `index` within the batch.
    #[must_use]
    pub fn salt(&self, index: LeafIndex) -> [u8; SALT_BYTES] {
        let full = blake3::keyed_hash(&self.0, &index.0.to_le_bytes());
        let mut salt = [0; SALT_BYTES];
        salt.copy_from_slice(&full.as_bytes()[..SALT_BYTES]);
        salt
    }
}

impl Record<'_> {
    /// Appends the canonical bytes to `out`.
    pub fn write_canonical(&self, salt: &[u8; SALT_BYTES], out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.array(9);
        writer.text(RECORD_MARK);
        writer.text(self.topic);
        writer.unsigned(u64::from(self.partition.0));
        writer.unsigned(self.offset.0);
        writer.signed(self.timestamp_ms);
        writer.bytes_or_null(self.key);
        writer.bytes_or_null(self.value);
        writer.array(self.headers.len());
        for (name, value) in self.headers {
            writer.array(2);
            writer.text(name);
            writer.bytes_or_null(*value);
        }
        writer.bytes(salt);
    }

    /// The record's leaf hash under `salt`.
    #[must_use]
    pub fn leaf(&self, salt: &[u8; SALT_BYTES]) -> Digest {
        let mut bytes = Vec::with_capacity(128 + self.value.map_or(0, <[u8]>::len));
        self.write_canonical(salt, &mut bytes);
        tree::leaf_hash(&bytes)
    }
}

/// A record read back from its canonical bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Kafka topic.
    pub topic: String,
    /// Kafka partition.
    pub partition: Partition,
    /// Offset within the partition.
    pub offset: Offset,
    /// Timestamp in milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// Key, if there is one.
    pub key: Option<Vec<u8>>,
    /// Value, if there is one.
    pub value: Option<Vec<u8>>,
    /// Headers in the order of the message.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The salt that went into the leaf.
    pub salt: [u8; SALT_BYTES],
}

impl OwnedRecord {
    /// Reads canonical bytes.
    ///
    /// # Errors
    /// When they are not deterministic CBOR of the shape above; so bytes → record → bytes gives the same bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        reader.array_of(9)?;
        reader.mark(RECORD_MARK)?;
        let topic = reader.text()?.to_owned();
        let partition = Partition(reader.unsigned32()?);
        let offset = Offset(reader.unsigned()?);
        let timestamp_ms = reader.signed()?;
        let key = read_nullable(&mut reader)?;
        let value = read_nullable(&mut reader)?;
        let count = reader.array(HEADERS_MAX)?;
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            reader.array_of(2)?;
            headers.push((reader.text()?.to_owned(), read_nullable(&mut reader)?));
        }
        let salt = reader.fixed()?;
        reader.end()?;
        Ok(Self { topic, partition, offset, timestamp_ms, key, value, headers, salt })
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let record = Record {
            topic: &self.topic,
            partition: self.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &headers,
        };
        let mut out = Vec::new();
        record.write_canonical(&self.salt, &mut out);
        out
    }
}

fn read_nullable(reader: &mut Reader<'_>) -> Result<Option<Vec<u8>>, CborError> {
    if reader.null() { Ok(None) } else { Ok(Some(reader.bytes()?.to_vec())) }
}

/// Hashes the records of one batch, one after the other, in one buffer that is reused.
///
/// The part of the canonical bytes that is the same for all records of a partition is written once.
#[derive(Debug)]
pub struct RecordHasher {
    prefix: Vec<u8>,
    buffer: Vec<u8>,
    secret: BatchSecret,
}

impl RecordHasher {
    /// For the records of one partition of `topic`, salted from `secret`.
    #[must_use]
    pub fn new(topic: &str, partition: Partition, secret: BatchSecret) -> Self {
        // The 0x00 of a leaf (RFC 9162, section 2.1.1) stands in front, so that the buffer is hashed as it is.
        let mut prefix = vec![tree::LEAF_PREFIX];
        let mut writer = Writer::new(&mut prefix);
        writer.array(9);
        writer.text(RECORD_MARK);
        writer.text(topic);
        writer.unsigned(u64::from(partition.0));
        Self { prefix, buffer: Vec::with_capacity(1024), secret }
    }

    /// The leaf of the record at `index` within the batch. Equals [`Record::leaf`].
    #[inline]
    pub fn leaf<'h>(
        &mut self,
        index: LeafIndex,
        offset: Offset,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> Digest {
        let salt = self.secret.salt(index);
        self.buffer.clear();
        self.buffer.extend_from_slice(&self.prefix);
        let mut writer = Writer::new(&mut self.buffer);
        writer.unsigned(offset.0);
        writer.signed(timestamp_ms);
        writer.bytes_or_null(key);
        writer.bytes_or_null(value);
        writer.array(headers.len());
        for (name, value) in headers {
            writer.array(2);
            writer.text(name);
            writer.bytes_or_null(value);
        }
        writer.bytes(&salt);
        crate::digest::sha256(&[&self.buffer])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn any_record()(
            topic in "[a-z.]{0,30}", partition in any::<u32>(), offset in any::<u64>(), timestamp_ms in any::<i64>(),
            key in any::<Option<Vec<u8>>>(), value in any::<Option<Vec<u8>>>(),
            headers in proptest::collection::vec((".{0,12}", any::<Option<Vec<u8>>>()), 0..4), salt in any::<[u8; 16]>(),
        ) -> OwnedRecord {
            OwnedRecord { topic, partition: Partition(partition), offset: Offset(offset), timestamp_ms, key, value, headers, salt }
        }
    }

    proptest! {
        #[test]
        fn canonical_bytes_round_trip(record in any_record()) {
            let bytes = record.encode();
            prop_assert_eq!(OwnedRecord::decode(&bytes).unwrap(), record);
        }

        #[test]
        fn no_two_encodings_of_one_record(record in any_record(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = record.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            if let Ok(other) = OwnedRecord::decode(&bytes) {
                prop_assert_ne!(&other, &record);
                prop_assert_eq!(other.encode(), bytes);
            }
        }

        #[test]
        fn hasher_equals_record_leaf(record in any_record(), secret in any::<[u8; 32]>(), index in any::<u64>()) {
            let secret = BatchSecret(secret);
            let record = OwnedRecord { salt: secret.salt(LeafIndex(index)), ..record };
            let mut hasher = RecordHasher::new(&record.topic, record.partition, secret);
            let headers: Vec<_> = record.headers.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
            let leaf = hasher.leaf(LeafIndex(index), record.offset, record.timestamp_ms, record.key.as_deref(),
                record.value.as_deref(), headers.into_iter());
            prop_assert_eq!(leaf, tree::leaf_hash(&record.encode()));
        }
    }

    #[test]
    fn null_and_empty_differ() {
        let record = |value| Record {
            topic: "t",
            partition: Partition(0),
            offset: Offset(0),
            timestamp_ms: 0,
            key: None,
            value,
            headers: &[],
        };
        assert_ne!(record(None).leaf(&[0; 16]), record(Some(b"")).leaf(&[0; 16]));
    }
}
