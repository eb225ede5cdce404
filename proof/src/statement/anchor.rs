//! The statement about one batch.
//!
//! ```text
//! {1: sequence, 2: stream, 3: partition, 4: first offset, 5: last offset, 6: [[first, last]…] gaps, 7: count,
//!  8: quarantined, 9: records root, 10: least timestamp, 11: greatest timestamp, 12: schema fingerprint,
//!  13: [segment path, size, BLAKE3], 14: previous anchor's id}
//! ```

use super::stream::check_stream_name;
use super::{StatementError, check_text};
use crate::cbor::{CborError, Reader, Writer};
use crate::digest::Digest;
use crate::units::{LeafIndex, Offset, Partition, Sequence};

pub(super) const CONTENT_TYPE: &str = "application/vnd.cairn.anchor.v1+cbor";
/// Most gaps that one anchor may declare.
pub const GAPS_MAX: usize = 1024;
/// Offsets are below 2^63, as in Kafka.
const OFFSET_MAX: u64 = i64::MAX as u64;

/// Offsets within a batch at which the topic holds no record (compaction, transaction markers). Both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// First missing offset.
    pub first: Offset,
    /// Last missing offset.
    pub last: Offset,
}

/// Where a batch is stored, and what its bytes must hash to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRef {
    /// Path within the object store.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// BLAKE3 root over the bytes.
    pub blake3: Digest,
}

/// One batch of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The stream's name.
    pub stream: String,
    /// The partition.
    pub partition: Partition,
    /// First offset that the batch accounts for (a record's, or a gap's).
    pub first: Offset,
    /// Last offset that the batch accounts for.
    pub last: Offset,
    /// Declared gaps, ascending, not touching each other.
    pub gaps: Vec<Gap>,
    /// Records in the batch: `last − first + 1` less the gaps.
    pub count: u64,
    /// Of these, how many are quarantined.
    pub quarantined: u64,
    /// RFC 9162 root over the records' leaves in offset order.
    pub records_root: Digest,
    /// Least record timestamp in milliseconds; 0 for a batch without records.
    pub timestamp_min_ms: i64,
    /// Greatest record timestamp in milliseconds; 0 for a batch without records.
    pub timestamp_max_ms: i64,
    /// SHA-256 of the text of the stream's schema whose columns the segment has. Writers' schemas were resolved to it;
    /// those that the stream does not have stand in the segment, which [`segment`](Self::segment) names by its hash.
    pub schema_fingerprint: Digest,
    /// The stored bytes.
    pub segment: SegmentRef,
    /// Id of this partition's previous anchor; zero for the first.
    pub previous: Digest,
}

impl Anchor {
    /// Where the record at `offset` stands among the batch's leaves; `None` when it lies outside or in a gap.
    #[must_use]
    pub fn leaf_index(&self, offset: Offset) -> Option<LeafIndex> {
        if offset < self.first || offset > self.last {
            return None;
        }
        let mut missing = 0;
        for gap in &self.gaps {
            if offset < gap.first {
                break;
            }
            if offset <= gap.last {
                return None;
            }
            missing += gap.last.0 - gap.first.0 + 1;
        }
        Some(LeafIndex(offset.0 - self.first.0 - missing))
    }

    pub(super) fn write(&self, sequence: Sequence, writer: &mut Writer<'_>) {
        writer.map(14);
        writer.unsigned(1);
        writer.unsigned(sequence.0);
        self.write_fields(writer);
    }

    /// The anchor without a sequence number, as it stands among others in one statement: a map of the keys 2 to 14.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        let mut writer = Writer::new(&mut out);
        writer.map(13);
        self.write_fields(&mut writer);
        out
    }

    /// Reads what [`Anchor::encode`] wrote, strictly. What the fields hold is not checked.
    ///
    /// # Errors
    /// When the bytes are not the one encoding of an anchor.
    pub fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let mut reader = Reader::new(bytes);
        reader.map_of(13)?;
        let anchor = Self::read_fields(&mut reader)?;
        reader.end()?;
        Ok(anchor)
    }

    fn write_fields(&self, writer: &mut Writer<'_>) {
        writer.unsigned(2);
        writer.text(&self.stream);
        writer.unsigned(3);
        writer.unsigned(u64::from(self.partition.0));
        writer.unsigned(4);
        writer.unsigned(self.first.0);
        writer.unsigned(5);
        writer.unsigned(self.last.0);
        writer.unsigned(6);
        writer.array(self.gaps.len());
        for gap in &self.gaps {
            writer.array(2);
            writer.unsigned(gap.first.0);
            writer.unsigned(gap.last.0);
        }
        writer.unsigned(7);
        writer.unsigned(self.count);
        writer.unsigned(8);
        writer.unsigned(self.quarantined);
        writer.unsigned(9);
        writer.bytes(self.records_root.as_ref());
        writer.unsigned(10);
        writer.signed(self.timestamp_min_ms);
        writer.unsigned(11);
        writer.signed(self.timestamp_max_ms);
        writer.unsigned(12);
        writer.bytes(self.schema_fingerprint.as_ref());
        writer.unsigned(13);
        writer.array(3);
        writer.text(&self.segment.path);
        writer.unsigned(self.segment.size);
        writer.bytes(self.segment.blake3.as_ref());
        writer.unsigned(14);
        writer.bytes(self.previous.as_ref());
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Sequence, Self), CborError> {
        reader.map_of(14)?;
        reader.key(1)?;
        let sequence = Sequence(reader.unsigned()?);
        Ok((sequence, Self::read_fields(reader)?))
    }

    fn read_fields(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        reader.key(2)?;
        let stream = reader.text()?.to_owned();
        reader.key(3)?;
        let partition = Partition(reader.unsigned32()?);
        reader.key(4)?;
        let first = Offset(reader.unsigned()?);
        reader.key(5)?;
        let last = Offset(reader.unsigned()?);
        reader.key(6)?;
        let gaps = read_gaps(reader)?;
        reader.key(7)?;
        let count = reader.unsigned()?;
        reader.key(8)?;
        let quarantined = reader.unsigned()?;
        reader.key(9)?;
        let records_root = Digest(reader.fixed()?);
        reader.key(10)?;
        let timestamp_min_ms = reader.signed()?;
        reader.key(11)?;
        let timestamp_max_ms = reader.signed()?;
        reader.key(12)?;
        let schema_fingerprint = Digest(reader.fixed()?);
        reader.key(13)?;
        reader.array_of(3)?;
        let segment =
            SegmentRef { path: reader.text()?.to_owned(), size: reader.unsigned()?, blake3: Digest(reader.fixed()?) };
        reader.key(14)?;
        let previous = Digest(reader.fixed()?);
        Ok(Self {
            stream,
            partition,
            first,
            last,
            gaps,
            count,
            quarantined,
            records_root,
            timestamp_min_ms,
            timestamp_max_ms,
            schema_fingerprint,
            segment,
            previous,
        })
    }

    /// Checks ranges, and that offsets, gaps and count agree.
    ///
    /// # Errors
    /// Names the first field that holds what it may not hold.
    pub fn check(&self) -> Result<(), StatementError> {
        check_stream_name(&self.stream)?;
        if self.first > self.last || self.last.0 > OFFSET_MAX {
            let found = format!("{} to {}", self.first, self.last);
            return Err(StatementError::field("offsets", "first ≤ last < 2^63", found));
        }
        let missing = self.check_gaps()?;
        let expected = self.last.0 - self.first.0 + 1 - missing;
        if self.count != expected {
            return Err(StatementError::field("count", format!("{expected}, as offsets and gaps say"), self.count));
        }
        if self.quarantined > self.count {
            return Err(StatementError::field("quarantined", format!("at most {}", self.count), self.quarantined));
        }
        if self.timestamp_min_ms > self.timestamp_max_ms {
            let found = format!("{} to {}", self.timestamp_min_ms, self.timestamp_max_ms);
            return Err(StatementError::field("timestamps", "least ≤ greatest", found));
        }
        let path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '=');
        check_text("segment path", &self.segment.path, 512, path, "a–z, A–Z, 0–9, '.', '_', '-', '=' and '/'")?;
        if self.segment.path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(StatementError::field("segment path", "a relative path without . and ..", &self.segment.path));
        }
        Ok(())
    }

    /// Checks the gaps and returns how many offsets they hold.
    fn check_gaps(&self) -> Result<u64, StatementError> {
        let mut missing = 0;
        let mut least = self.first.0;
        for gap in &self.gaps {
            if gap.first.0 < least || gap.last < gap.first || gap.last > self.last {
                let found = format!("{} to {}", gap.first, gap.last);
                let expected = format!("ascending gaps within {} to {}, not touching", self.first, self.last);
                return Err(StatementError::field("gaps", expected, found));
            }
            missing += gap.last.0 - gap.first.0 + 1;
            // Touching gaps are one gap: each batch has one encoding.
            least = gap.last.0 + 2;
        }
        Ok(missing)
    }
}

fn read_gaps(reader: &mut Reader<'_>) -> Result<Vec<Gap>, CborError> {
    let count = reader.array(GAPS_MAX)?;
    let mut gaps = Vec::with_capacity(count);
    for _ in 0..count {
        reader.array_of(2)?;
        gaps.push(Gap { first: Offset(reader.unsigned()?), last: Offset(reader.unsigned()?) });
    }
    Ok(gaps)
}
