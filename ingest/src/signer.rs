//! Signing records: by themselves, or in runs with one signature each.
//!
//! What is signed, and the headers that carry it, are described in [`cairn_proof::signed_record`]. A run is closed when it
//! has its records, when it has a megabyte, when the first of them has waited for [`Signer::age_max`], or when the
//! publisher is flushed; only then are its records sent, in their order.
//!
//! **Sequences.** A record's number is the time of signing in microseconds since 1970, or one more than the last one,
//! whichever is greater. So a publisher that starts anew needs to remember nothing, as long as its clock does not go back,
//! and it is above whatever ingest has forgotten about it. One key signs in one process at a time for a stream: numbers
//! of two that take turns would not ascend, and would be taken for replays.
//!
//! **Partitions.** What is signed names the partition, so it is chosen here: by murmur2 of the key as Java's default
//! partitioner does, or, without a key, another one for each run.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cairn_proof::identity::SigningKey;
use cairn_proof::signed_record::{EntryHasher, RUN_RECORDS_MAX, SEQUENCE_MAX, SignedRun};
use cairn_proof::statement::{ChainTag, StreamDefinition};
use cairn_proof::{Digest, Partition};

use crate::error::{Error, Result};

/// A run is closed when it has so many bytes of keys and values.
const RUN_BYTES_MAX: usize = 1 << 20;
/// How long the first record of a run may wait, unless told otherwise.
const AGE_MAX: Duration = Duration::from_millis(100);

/// Who signs, for which chain, and how many records at once.
#[derive(Clone)]
pub struct Signer {
    key: SigningKey,
    chain: ChainTag,
    run_records: u32,
    age_max: Duration,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("key", &self.key).field("run_records", &self.run_records).finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs each record by itself. `chain` is the tag of the genesis.
    #[must_use]
    pub fn new(key: SigningKey, chain: ChainTag) -> Self {
        Self { key, chain, run_records: 1, age_max: AGE_MAX }
    }

    /// Signs so many records at once: 1 to 65,536. A signature costs as much as hashing some hundred records.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input) for another number.
    pub fn in_runs(self, records: u32) -> Result<Self> {
        if !(1..=RUN_RECORDS_MAX).contains(&records) {
            return Err(Error::input(format!("runs of {records} records: from 1 to {RUN_RECORDS_MAX} can be signed")));
        }
        Ok(Self { run_records: records, ..self })
    }

    /// How long the first record of a run may wait for the others. Looked at with each record: when none comes any more,
    /// [`flush`](crate::Publisher::flush) closes the run.
    #[must_use]
    pub fn age_max(self, age_max: Duration) -> Self {
        Self { age_max, ..self }
    }
}

/// A record that waits for its signature, or has it.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) partition: Partition,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(&'static str, Vec<u8>)>,
    sequence: u64,
    leaf: Digest,
}

/// The run that grows.
#[derive(Debug)]
pub(crate) struct Run {
    signer: Signer,
    stream: String,
    partitions: u32,
    hashers: HashMap<Partition, EntryHasher>,
    pending: Vec<Signed>,
    bytes: usize,
    since: Option<Instant>,
    /// The last sequence number.
    last: u64,
    /// Where records without a key go.
    turn: u32,
}

impl Run {
    pub(crate) fn new(signer: Signer, stream: &StreamDefinition) -> Self {
        Self {
            signer,
            stream: stream.name.clone(),
            partitions: stream.partitions.max(1),
            hashers: HashMap::new(),
            pending: Vec::new(),
            bytes: 0,
            since: None,
            last: 0,
            turn: 0,
        }
    }

    /// Adds a record; returns whether the run is to be closed.
    pub(crate) fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, timestamp_ms: i64) -> bool {
        let partition = Partition(key.map_or(self.turn, |key| murmur2(key) & 0x7fff_ffff) % self.partitions);
        let sequence = now_us().max(self.last + 1).min(SEQUENCE_MAX);
        self.last = sequence;
        let (chain, stream) = (&self.signer.chain, &self.stream);
        let hasher = self.hashers.entry(partition).or_insert_with(|| EntryHasher::new(chain, stream, partition));
        let publisher = self.signer.key.public();
        let leaf = hasher.leaf(publisher.as_bytes(), sequence, timestamp_ms, key, value);
        let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        self.bytes += key.as_ref().map_or(0, Vec::len) + value.as_ref().map_or(0, Vec::len);
        self.pending.push(Signed { partition, timestamp_ms, key, value, headers: Vec::new(), sequence, leaf });
        let since = *self.since.get_or_insert_with(Instant::now);
        self.pending.len() >= self.signer.run_records as usize
            || self.bytes >= RUN_BYTES_MAX
            || since.elapsed() >= self.signer.age_max
    }

    /// Closes the run: its records, in their order, with the headers that prove them.
    pub(crate) fn close(&mut self) -> Result<Vec<Signed>> {
        let mut records = std::mem::take(&mut self.pending);
        (self.bytes, self.since, self.turn) = (0, None, self.turn.wrapping_add(1));
        if records.is_empty() {
            return Ok(records);
        }
        let leaves: Vec<_> = records.iter().map(|record| record.leaf).collect();
        let bug = || Error::bug("a run of records cannot be signed");
        let run = SignedRun::sign(&self.signer.key, &self.signer.chain, &leaves);
        let run = run.map_err(|error| bug().because(error))?;
        for (index, record) in (0..).zip(&mut records) {
            record.headers = run.headers(index, record.sequence).map_err(|error| bug().because(error))?;
        }
        Ok(records)
    }
}

/// The hash by which Kafka's Java client chooses a partition: `MurmurHash2`, 32 bits, with the client's seed.
pub(crate) fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    // Keys longer than 4 GiB do not exist in Kafka.
    #[allow(clippy::cast_possible_truncation)]
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(M);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(M) ^ mixed.wrapping_mul(M);
    }
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{definition, one_field};
    use cairn_proof::signed_record::SignedHeaders;
    use cairn_proof::statement::Format;

    /// Values of Kafka's own tests of its Java client.
    #[test]
    fn partitions_are_those_of_the_java_client() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn runs_close_by_count_and_size_and_numbers_ascend() {
        let stream = definition(Format::Json, &[&one_field(r#""long""#)]);
        let signer = Signer::new(SigningKey::from_seed(&[1; 32]), ChainTag(Digest::ZERO));
        assert!(signer.clone().in_runs(0).is_err() && signer.clone().in_runs(65_537).is_err());
        let mut run = Run::new(signer.clone().in_runs(3).unwrap().age_max(Duration::from_secs(3600)), &stream);
        let mut numbers = vec![];
        for _ in 0..2 {
            assert!(!run.push(None, Some(b"1"), 5));
            assert!(!run.push(Some(b"k"), None, 5));
            assert!(run.push(None, Some(b"3"), 5));
            let records = run.close().unwrap();
            assert_eq!(records.len(), 3);
            for record in &records {
                let headers = record.headers.iter().map(|(name, value)| (*name, Some(value.as_slice())));
                let read = SignedHeaders::read(headers).unwrap().unwrap();
                assert_eq!((read.count, read.sequence), (3, record.sequence));
                numbers.push(record.sequence);
            }
        }
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
        assert!(run.close().unwrap().is_empty());
        assert!(run.push(None, Some(&vec![0; RUN_BYTES_MAX]), 5), "a megabyte is enough");
        let mut old = Run::new(signer.in_runs(9).unwrap().age_max(Duration::ZERO), &stream);
        assert!(old.push(None, None, 5), "its time is up");
    }
}
