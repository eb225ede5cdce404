//! Records that their publisher signed: what is signed, how it travels in Kafka headers, and how it is checked.
//!
//! ```text
//! entry  = CBOR ["cairn/signed-record/v1", chain tag, stream, partition, publisher's key, sequence, timestamp_ms,
//!                key|null, value|null]
//! leaf   = SHA-256(0x00 ‖ entry)                                              (RFC 9162, section 2.1.1)
//! root   = of the tree over the leaves of a run: 1 to 65,536 records that one publisher signs at once
//! signed = CBOR ["cairn/signed-run/v1", chain tag, publisher's key, count, root]            Ed25519 (RFC 8032)
//!
//! header   value
//! cn-key   the publisher's public key, 32 bytes
//! cn-seq   sequence, u64 big-endian, 1 to 2^63 − 1
//! cn-sig   the signature over the run, 64 bytes
//! cn-run   index ‖ count, u32 big-endian each, ‖ the inclusion path, 32 bytes a hash; absent in a run of one record
//! ```
//!
//! A record signed by itself is a run of one: there is one form and one check. Each record carries its own inclusion
//! path, so that it is verified alone: no run can be incomplete, whatever Kafka, a compaction or a restart leaves of it.
//! The signature of a run is checked once; of the path only what the record before has not shown yet ([`RunRoots`]).
//!
//! The entry names the partition, so that a record that is copied to another one does not verify there, and what is
//! replayed shows within one partition ([`Sequences`]). Whether a key may publish is not decided here: that is a
//! question to the chain's state. This module keeps no keys, and does no I/O.

use ed25519_dalek::{Signature, VerifyingKey, verify_batch};

use crate::cbor::Writer;
use crate::digest::Digest;
use crate::identity::{PublicKey, SIGNATURE_BYTES, SigningKey};
use crate::statement::ChainTag;
use crate::tree;
use crate::units::{LeafIndex, Partition, TreeSize};

mod sequences;
#[cfg(test)]
mod tests;

pub use sequences::{PUBLISHERS_MAX, Replayed, SEQUENCES_MARK, Sequences};

/// The mark at the start of a record's entry.
pub const RECORD_MARK: &str = "cairn/signed-record/v1";
/// The mark at the start of what is signed.
pub const RUN_MARK: &str = "cairn/signed-run/v1";
/// Headers whose names begin with this belong to signatures; others are not signed.
pub const HEADER_PREFIX: &str = "cn-";
/// Names the header with the publisher's key.
pub const KEY_HEADER: &str = "cn-key";
/// Names the header with the sequence number.
pub const SEQUENCE_HEADER: &str = "cn-seq";
/// Names the header with the signature.
pub const SIGNATURE_HEADER: &str = "cn-sig";
/// Names the header with the place in a run.
pub const RUN_HEADER: &str = "cn-run";
/// Most records that one signature may cover.
pub const RUN_RECORDS_MAX: u32 = 65_536;
/// The largest sequence number.
pub const SEQUENCE_MAX: u64 = i64::MAX as u64;

const HASH_BYTES: usize = 32;
const PLACE_BYTES: usize = 8;
/// Signatures that are checked together; beyond some hundreds nothing is gained.
const BATCH_MAX: usize = 512;
/// Levels of the largest run's tree, leaves included.
const LEVELS: usize = 17;

/// Hashes the records of one partition of a stream to leaves, in one buffer that is reused.
#[derive(Debug)]
pub struct EntryHasher {
    /// The 0x00 of a leaf, and what is the same for all records of the partition.
    prefix: Vec<u8>,
    buffer: Vec<u8>,
}

impl EntryHasher {
    /// For the records of one partition.
    #[must_use]
    pub fn new(chain: &ChainTag, stream: &str, partition: Partition) -> Self {
        let mut prefix = vec![tree::LEAF_PREFIX];
        let mut writer = Writer::new(&mut prefix);
        writer.array(9);
        writer.text(RECORD_MARK);
        writer.bytes(chain.0.as_ref());
        writer.text(stream);
        writer.unsigned(u64::from(partition.0));
        Self { prefix, buffer: Vec::with_capacity(512) }
    }

    /// The leaf of a record: what Kafka holds of it, and who says in which place of their sequence that it is theirs.
    pub fn leaf(
        &mut self,
        publisher: &[u8; 32],
        sequence: u64,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Digest {
        self.write(publisher, sequence, timestamp_ms, key, value);
        crate::digest::sha256(&[&self.buffer])
    }

    /// The entry, of which [`leaf`](Self::leaf) is the hash.
    pub fn entry(
        &mut self,
        publisher: &[u8; 32],
        sequence: u64,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> &[u8] {
        self.write(publisher, sequence, timestamp_ms, key, value);
        &self.buffer[1..]
    }

    fn write(
        &mut self,
        publisher: &[u8; 32],
        sequence: u64,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        self.buffer.clear();
        self.buffer.extend_from_slice(&self.prefix);
        let mut writer = Writer::new(&mut self.buffer);
        writer.bytes(publisher);
        writer.unsigned(sequence);
        writer.signed(timestamp_ms);
        writer.bytes_or_null(key);
        writer.bytes_or_null(value);
    }
}

/// What is signed for a run of `count` records.
#[must_use]
pub fn run_message(chain: &ChainTag, publisher: &[u8; 32], count: u32, root: &Digest) -> Vec<u8> {
    let mut message = Vec::with_capacity(128);
    let mut writer = Writer::new(&mut message);
    writer.array(5);
    writer.text(RUN_MARK);
    writer.bytes(chain.0.as_ref());
    writer.bytes(publisher);
    writer.unsigned(u64::from(count));
    writer.bytes(root.as_ref());
    message
}

/// Why the headers of a record are not those of a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A header that belongs to no signature.
    #[error(
        "header {name:?}: names that begin with {HEADER_PREFIX:?} are those of signatures, and this is none of them"
    )]
    Unknown {
        /// Its name, shortened.
        name: String,
    },
    /// A header that is there twice.
    #[error("header {name} is there twice")]
    Twice {
        /// Its name.
        name: &'static str,
    },
    /// A header that is missing.
    #[error("header {name} is missing")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// A header with a value that cannot be.
    #[error("header {name}: expected {expected}, found {found}")]
    Value {
        /// Its name.
        name: &'static str,
        /// What belongs there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
}

/// The signature that came with a record, well-formed and not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedHeaders<'a> {
    /// The publisher's key, as 32 bytes that may be no key.
    pub publisher: &'a [u8; 32],
    /// The place in the publisher's sequence.
    pub sequence: u64,
    /// The signature over the run.
    pub signature: &'a [u8; SIGNATURE_BYTES],
    /// The place within the run.
    pub index: u32,
    /// How many records the run has.
    pub count: u32,
    /// The inclusion path, 32 bytes a hash, of the length that index and count ask for.
    pub path: &'a [u8],
}

impl<'a> SignedHeaders<'a> {
    /// Finds the signature among a record's headers; `None` where no header belongs to one.
    ///
    /// # Errors
    /// When a header of a signature is missing, doubled, unknown, or holds what it may not hold.
    pub fn read<'n>(
        headers: impl IntoIterator<Item = (&'n str, Option<&'a [u8]>)>,
    ) -> Result<Option<Self>, HeaderError> {
        let names = [KEY_HEADER, SEQUENCE_HEADER, SIGNATURE_HEADER, RUN_HEADER];
        let mut found: [Option<&'a [u8]>; 4] = [None; 4];
        for (name, value) in headers {
            if !name.starts_with(HEADER_PREFIX) {
                continue;
            }
            let Some(at) = names.iter().position(|known| *known == name) else {
                return Err(HeaderError::Unknown { name: name.chars().take(64).collect() });
            };
            let null = || wrong(names[at], "a value", "null");
            if found[at].replace(value.ok_or_else(null)?).is_some() {
                return Err(HeaderError::Twice { name: names[at] });
            }
        }
        if found.iter().all(Option::is_none) {
            return Ok(None);
        }
        let wanted = |at: usize| found[at].ok_or(HeaderError::Missing { name: names[at] });
        let publisher = fixed::<32>(KEY_HEADER, "32 bytes", wanted(0)?)?;
        let sequence = u64::from_be_bytes(*fixed::<8>(SEQUENCE_HEADER, "8 bytes", wanted(1)?)?);
        let signature = fixed::<SIGNATURE_BYTES>(SIGNATURE_HEADER, "64 bytes", wanted(2)?)?;
        if !(1..=SEQUENCE_MAX).contains(&sequence) {
            return Err(wrong(SEQUENCE_HEADER, "1 to 2^63 − 1", sequence));
        }
        let (index, count, path) = match found[3] {
            None => (0, 1, &[][..]),
            Some(run) => read_place(run)?,
        };
        Ok(Some(Self { publisher, sequence, signature, index, count, path }))
    }

    /// The headers, as they are added to a record.
    #[must_use]
    pub fn to_headers(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut headers = vec![
            (KEY_HEADER, self.publisher.to_vec()),
            (SEQUENCE_HEADER, self.sequence.to_be_bytes().to_vec()),
            (SIGNATURE_HEADER, self.signature.to_vec()),
        ];
        if self.count > 1 {
            let mut run = Vec::with_capacity(PLACE_BYTES + self.path.len());
            run.extend_from_slice(&self.index.to_be_bytes());
            run.extend_from_slice(&self.count.to_be_bytes());
            run.extend_from_slice(self.path);
            headers.push((RUN_HEADER, run));
        }
        headers
    }
}

fn read_place(run: &[u8]) -> Result<(u32, u32, &[u8]), HeaderError> {
    let bytes = || wrong(RUN_HEADER, "8 bytes and a path", format!("{} bytes", run.len()));
    let (index, rest) = run.split_first_chunk().ok_or_else(bytes)?;
    let (count, path) = rest.split_first_chunk().ok_or_else(bytes)?;
    let (index, count) = (u32::from_be_bytes(*index), u32::from_be_bytes(*count));
    // A run of one has no such header: each signature has one form.
    if !(2..=RUN_RECORDS_MAX).contains(&count) || index >= count {
        return Err(wrong(RUN_HEADER, "2 to 65,536 records, an index below", format!("index {index} of {count}")));
    }
    let hashes = tree::inclusion_path_length(LeafIndex(index.into()), TreeSize(count.into()));
    if path.len() != hashes * HASH_BYTES {
        return Err(wrong(RUN_HEADER, "a path of the length that the place asks for", format!("{} bytes", path.len())));
    }
    Ok((index, count, path))
}

fn fixed<'a, const N: usize>(
    name: &'static str,
    expected: &'static str,
    value: &'a [u8],
) -> Result<&'a [u8; N], HeaderError> {
    value.try_into().map_err(|_| wrong(name, expected, format!("{} bytes", value.len())))
}

// By value, so that a caller writes a number or a text as it is.
#[allow(clippy::needless_pass_by_value)]
fn wrong(name: &'static str, expected: &'static str, found: impl ToString) -> HeaderError {
    HeaderError::Value { name, expected, found: found.to_string() }
}

/// A run that was signed: gives each of its records the headers that prove it.
#[derive(Debug)]
pub struct SignedRun {
    publisher: [u8; 32],
    signature: [u8; SIGNATURE_BYTES],
    count: u32,
    tree: tree::Log,
}

/// Why a run was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a run has 1 to {RUN_RECORDS_MAX} records, this one has {found}")]
pub struct RunLength {
    /// How many records it has.
    pub found: usize,
}

impl SignedRun {
    /// Signs the records of which `leaves` are the hashes, in their order, as [`EntryHasher`] makes them.
    ///
    /// # Errors
    /// When there are none, or more than [`RUN_RECORDS_MAX`].
    pub fn sign(key: &SigningKey, chain: &ChainTag, leaves: &[Digest]) -> Result<Self, RunLength> {
        let wrong = RunLength { found: leaves.len() };
        let count = u32::try_from(leaves.len()).ok().filter(|count| (1..=RUN_RECORDS_MAX).contains(count));
        let count = count.ok_or(wrong)?;
        let mut tree = tree::Log::new();
        for leaf in leaves {
            tree.append(*leaf);
        }
        let publisher = *key.public().as_bytes();
        let signature = key.sign(&run_message(chain, &publisher, count, &tree::root(leaves)));
        Ok(Self { publisher, signature, count, tree })
    }

    /// The headers of the record at `index`, whose leaf was made with `sequence`.
    ///
    /// # Errors
    /// When `index` lies outside of the run.
    pub fn headers(&self, index: u32, sequence: u64) -> Result<Vec<(&'static str, Vec<u8>)>, tree::TreeError> {
        let path = self.tree.inclusion_path(LeafIndex(index.into()), TreeSize(self.count.into()))?;
        let path: Vec<u8> = path.iter().flat_map(|hash| hash.0).collect();
        let (publisher, signature, count) = (&self.publisher, &self.signature, self.count);
        Ok(SignedHeaders { publisher, sequence, signature, index, count, path: &path }.to_headers())
    }
}

/// Follows inclusion paths to the roots of their runs.
///
/// Remembers the nodes on the last path. Where the next record's path meets one of them with the same hashes ahead, the
/// root is known: the records of a run in a row cost about two hashes each, and not as many as their paths have.
#[derive(Debug, Default)]
pub struct RunRoots {
    count: u32,
    root: Digest,
    path: Vec<u8>,
    /// By level: place, hash, and how many bytes of the path lie above.
    nodes: [Option<(u32, Digest, usize)>; LEVELS],
}

impl RunRoots {
    /// Nothing remembered yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The root that the headers' path leads to from `leaf` (RFC 9162, section 2.1.3.2).
    ///
    /// The headers are from [`SignedHeaders::read`], so that the path has the right length.
    pub fn root(&mut self, leaf: &Digest, headers: &SignedHeaders<'_>) -> Digest {
        if self.count != headers.count {
            self.nodes = [None; LEVELS];
        }
        let (mut at, mut last, mut level, mut hash) = (headers.index, headers.count - 1, 0, *leaf);
        let mut rest = headers.path;
        while let Some((sibling, above)) = rest.split_first_chunk() {
            let known = self.nodes.get(level).copied().flatten();
            if known == Some((at, hash, rest.len())) && self.path.ends_with(rest) {
                break;
            }
            if let Some(node) = self.nodes.get_mut(level) {
                *node = Some((at, hash, rest.len()));
            }
            let sibling = Digest(*sibling);
            if at & 1 == 1 || at == last {
                hash = tree::node_hash(&sibling, &hash);
                while at & 1 == 0 && at != 0 {
                    (at, last, level) = (at >> 1, last >> 1, level + 1);
                    // Passed over: what was remembered there lies below another path.
                    self.nodes.iter_mut().skip(level).take(1).for_each(|node| *node = None);
                }
            } else {
                hash = tree::node_hash(&hash, &sibling);
            }
            (at, last, level) = (at >> 1, last >> 1, level + 1);
            rest = above;
        }
        if rest.is_empty() {
            // All hashes were taken: nodes of the path before that lie higher than this one's last step are not on it.
            self.nodes.iter_mut().skip(level).for_each(|node| *node = None);
            self.root = hash;
        }
        self.count = headers.count;
        self.path.clear();
        self.path.extend_from_slice(headers.path);
        self.root
    }
}

/// What one signature covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunHead {
    /// Who is said to have signed.
    pub publisher: PublicKey,
    /// The signature.
    pub signature: [u8; SIGNATURE_BYTES],
    /// How many records the run has.
    pub count: u32,
    /// The root that the paths lead to.
    pub root: Digest,
}

impl RunHead {
    fn message(&self, chain: &ChainTag) -> Vec<u8> {
        run_message(chain, self.publisher.as_bytes(), self.count, &self.root)
    }

    /// Whether the publisher signed this run for this chain, strictly.
    #[must_use]
    pub fn verify(&self, chain: &ChainTag) -> bool {
        self.publisher.verify(&self.message(chain), &self.signature)
    }
}

/// Checks many signatures, several times faster than one by one; returns for each whether it holds.
///
/// They are checked in batches; of a batch that does not hold, the halves are, down to single signatures, which are
/// checked strictly. What a batch accepts is what strict checking accepts, with one exception that only the holder of
/// the key can bring about: a signature whose R has a component of small order. No such signature exists that the
/// holder of the key did not make over these very records. R of small order, other encodings of it, and keys of small
/// order are refused before.
#[must_use]
pub fn verify_heads(chain: &ChainTag, heads: &[RunHead]) -> Vec<bool> {
    let mut holds = vec![false; heads.len()];
    for (heads, holds) in heads.chunks(BATCH_MAX).zip(holds.chunks_mut(BATCH_MAX)) {
        let messages: Vec<_> = heads.iter().map(|head| head.message(chain)).collect();
        verify_part(heads, &messages, holds);
    }
    holds
}

fn verify_part(heads: &[RunHead], messages: &[Vec<u8>], holds: &mut [bool]) {
    match heads {
        [] => {}
        [one] => holds[0] = one.publisher.verify(&messages[0], &one.signature),
        many if batch_holds(many, messages) => holds.fill(true),
        many => {
            let half = many.len() / 2;
            let (left, right) = holds.split_at_mut(half);
            verify_part(&many[..half], &messages[..half], left);
            verify_part(&many[half..], &messages[half..], right);
        }
    }
}

fn batch_holds(heads: &[RunHead], messages: &[Vec<u8>]) -> bool {
    let mut keys: Vec<VerifyingKey> = Vec::with_capacity(heads.len());
    for (at, head) in heads.iter().enumerate() {
        // What a key has to be, a point in its one encoding and not of small order, R has to be too.
        let screened = head.signature.first_chunk().is_some_and(|point| PublicKey::from_bytes(*point).is_ok());
        let key = match at.checked_sub(1) {
            Some(before) if heads[before].publisher == head.publisher => Ok(keys[before]),
            _ => VerifyingKey::from_bytes(head.publisher.as_bytes()),
        };
        match key {
            Ok(key) if screened => keys.push(key),
            _ => return false,
        }
    }
    let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
    let signatures: Vec<_> = heads.iter().map(|head| Signature::from_bytes(&head.signature)).collect();
    verify_batch(&messages, &signatures, &keys).is_ok()
}
