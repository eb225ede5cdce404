//! The last sequence number of each publisher in one partition: what tells a replayed record.
//!
//! ```text
//! ["cairn/sequences/v1", floor, [[publisher's key, last sequence]…]]      keys strictly ascending, at most 1,024
//! ```
//!
//! Within one partition a publisher's numbers must ascend, in the order of offsets. Of at most [`PUBLISHERS_MAX`]
//! publishers the last number is kept. When one more comes, the smallest number of all is forgotten, and becomes the
//! floor: who is not in the table must have a number above it. So no number is ever accepted twice, whatever was
//! forgotten. Publishers that count in microseconds since 1970 are above the floor when they come again.

use std::collections::{BTreeMap, BTreeSet};

use super::SEQUENCE_MAX;
use crate::cbor::{CborError, Reader, Writer};

/// The mark at the start of the encoding.
pub const SEQUENCES_MARK: &str = "cairn/sequences/v1";
/// Most publishers of one partition whose last number is kept.
pub const PUBLISHERS_MAX: usize = 1_024;

/// A sequence number that was used, or may have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sequence {found} is not above {last}")]
pub struct Replayed {
    /// The number that came.
    pub found: u64,
    /// What it must be greater than.
    pub last: u64,
}

/// The last numbers of a partition. A function of its accepted records, in the order of offsets, alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequences {
    floor: u64,
    last: BTreeMap<[u8; 32], u64>,
    /// The same, smallest number first.
    order: BTreeSet<(u64, [u8; 32])>,
}

impl Sequences {
    /// Of a partition without a signed record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no signed record was accepted yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_empty() && self.floor == 0
    }

    /// The number that the publisher's next one must be greater than.
    #[must_use]
    pub fn last(&self, publisher: &[u8; 32]) -> u64 {
        self.last.get(publisher).copied().unwrap_or(self.floor)
    }

    /// Takes the publisher's next number.
    ///
    /// # Errors
    /// When it is not above the last one, or the publisher is not known and it is not above the floor.
    pub fn take(&mut self, publisher: &[u8; 32], sequence: u64) -> Result<(), Replayed> {
        let last = self.last(publisher);
        if sequence <= last {
            return Err(Replayed { found: sequence, last });
        }
        if let Some(before) = self.last.insert(*publisher, sequence) {
            self.order.remove(&(before, *publisher));
        }
        self.order.insert((sequence, *publisher));
        if self.last.len() > PUBLISHERS_MAX
            && let Some((smallest, forgotten)) = self.order.pop_first()
        {
            self.last.remove(&forgotten);
            self.floor = self.floor.max(smallest);
        }
        Ok(())
    }

    /// The encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32 + 43 * self.last.len());
        let mut writer = Writer::new(&mut bytes);
        writer.array(3);
        writer.text(SEQUENCES_MARK);
        writer.unsigned(self.floor);
        writer.array(self.last.len());
        for (publisher, sequence) in &self.last {
            writer.array(2);
            writer.bytes(publisher);
            writer.unsigned(*sequence);
        }
        bytes
    }

    /// Reads the encoding.
    ///
    /// # Errors
    /// When it is not the one encoding of a table that [`take`](Self::take) can lead to.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        reader.array_of(3)?;
        reader.mark(SEQUENCES_MARK)?;
        let floor = reader.unsigned()?;
        let count = reader.array(PUBLISHERS_MAX)?;
        let mut sequences = Self { floor, ..Self::default() };
        for _ in 0..count {
            reader.array_of(2)?;
            let publisher: [u8; 32] = reader.fixed()?;
            let sequence = reader.unsigned()?;
            if sequences.last.last_key_value().is_some_and(|(before, _)| *before >= publisher) {
                return Err(reader.error("keys in ascending order, each once", "another order"));
            }
            if !(1..=SEQUENCE_MAX).contains(&sequence) {
                return Err(reader.error("a sequence of 1 to 2^63 − 1", sequence.to_string()));
            }
            sequences.last.insert(publisher, sequence);
            sequences.order.insert((sequence, publisher));
        }
        reader.end()?;
        if floor > SEQUENCE_MAX {
            return Err(reader.error("a floor of at most 2^63 − 1", floor.to_string()));
        }
        Ok(sequences)
    }
}
