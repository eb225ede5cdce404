//! The records of one batch as they came, in columns.
//!
//! [`RawBatchBuilder`] takes records one by one into a few growing buffers, without an allocation for each;
//! [`RawBatch`] is the finished batch: contiguous from its first to its last offset, the offsets at which the topic holds
//! no record named as gaps. From it alone every leaf can be computed, and it is what the underscore columns of a segment
//! hold, so that a segment read back gives the same batch and the same leaves.
//!
//! What it does not know: the schema, the decoded columns, the chain.

use crate::schema;
use arrow::array::{
    Array, ArrayBuilder as _, ArrayRef, AsArray, BinaryArray, BinaryBuilder, Int32Array, Int64Array, ListArray,
    RecordBatch, StringArray, StringBuilder, StructArray, TimestampMillisecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMillisecondType};
use cairn_proof::record::{BatchSecret, OwnedRecord, RecordHasher};
use cairn_proof::statement::{GAPS_MAX, Gap};
use cairn_proof::{Digest, LeafIndex, Offset, Partition};
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

/// Most bytes of keys, values and headers in one batch. Arrow's 32-bit offsets allow twice as much.
pub const BATCH_BYTES_MAX: u64 = 1 << 30;
/// Most records in one batch, as in a stream's limits.
pub const BATCH_RECORDS_MAX: usize = 1 << 20;

/// Why a record, or a set of rows, is not part of a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RawError {
    /// The batch takes no more; nothing of the record was kept. Close it and begin the next with this record.
    #[error("the batch is full: {what} would be over {limit}")]
    Full {
        /// What would be too many.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Offsets must ascend.
    #[error("partition {partition}: offset {found} came where {expected} or a later one belongs")]
    Offset {
        /// The partition.
        partition: Partition,
        /// The least offset that can follow.
        expected: Offset,
        /// The offset that came.
        found: Offset,
    },
    /// A batch without records and without a declared end.
    #[error("partition {partition}: a batch needs a record, or an end that declares its offsets empty")]
    Empty {
        /// The partition.
        partition: Partition,
    },
    /// Rows of a segment are not records of this batch.
    #[error("row {row}, column {column}: expected {expected}, found {found}")]
    Row {
        /// The row, counted from 0.
        row: usize,
        /// The column.
        column: &'static str,
        /// What belongs there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A segment lacks a column that makes up a record.
    #[error("column {column} must be {expected}, it is {found}")]
    Column {
        /// The column.
        column: &'static str,
        /// The type that belongs there.
        expected: DataType,
        /// What stands there.
        found: String,
    },
}

/// A header of a record; its value may be null.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// Collects the records of one partition that become one batch.
#[derive(Debug)]
pub struct RawBatchBuilder {
    partition: Partition,
    first: Offset,
    /// The least offset that can follow.
    next: Offset,
    gaps: Vec<Gap>,
    bytes: u64,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    keys: BinaryBuilder,
    values: BinaryBuilder,
    header_ends: Vec<i32>,
    header_names: StringBuilder,
    header_values: BinaryBuilder,
}

impl RawBatchBuilder {
    /// A batch that begins at `first`: the offset at which the partition's last anchor left off.
    ///
    /// If the first record has a later offset, what lies between becomes a gap.
    pub fn new(partition: Partition, first: Offset) -> Self {
        Self {
            partition,
            first,
            next: first,
            gaps: Vec::new(),
            bytes: 0,
            offsets: Vec::new(),
            timestamps: Vec::new(),
            keys: BinaryBuilder::new(),
            values: BinaryBuilder::new(),
            header_ends: vec![0],
            header_names: StringBuilder::new(),
            header_values: BinaryBuilder::new(),
        }
    }

    /// Adds the next record.
    ///
    /// # Errors
    /// [`RawError::Full`] or [`RawError::Offset`]; the batch is as it was before.
    pub fn append(
        &mut self,
        offset: Offset,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<(), RawError> {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len) as u64;
        let header_bytes: u64 = headers.iter().map(|(name, value)| name.len() as u64 + length(*value)).sum();
        let bytes = self.bytes + length(key) + length(value) + header_bytes;
        let header_count = self.header_names.len() + headers.len();
        if bytes > BATCH_BYTES_MAX && !self.offsets.is_empty() || bytes > i32::MAX as u64 {
            return Err(RawError::Full { what: "bytes", limit: BATCH_BYTES_MAX });
        }
        if self.offsets.len() >= BATCH_RECORDS_MAX || header_count > i32::MAX as usize {
            return Err(RawError::Full { what: "records", limit: BATCH_RECORDS_MAX as u64 });
        }
        self.advance(offset)?;
        self.bytes = bytes;
        self.offsets.push(offset.0 as i64);
        self.timestamps.push(timestamp_ms);
        self.keys.append_option(key);
        self.values.append_option(value);
        for (name, value) in headers {
            self.header_names.append_value(name);
            self.header_values.append_option(*value);
        }
        self.header_ends.push(header_count as i32);
        Ok(())
    }

    /// Declares that the topic holds no further record up to and including `last`.
    ///
    /// # Errors
    /// [`RawError::Full`] or [`RawError::Offset`].
    pub fn end_at(&mut self, last: Offset) -> Result<(), RawError> {
        if last.next() == self.next {
            return Ok(());
        }
        let missing = self.next;
        if last < missing || last.0 >= i64::MAX as u64 {
            return Err(RawError::Offset { partition: self.partition, expected: missing, found: last });
        }
        self.push_gap(Gap { first: missing, last })?;
        self.next = last.next();
        Ok(())
    }

    /// Moves past `offset`, and notes what it leaves out.
    fn advance(&mut self, offset: Offset) -> Result<(), RawError> {
        if offset < self.next || offset.0 >= i64::MAX as u64 {
            return Err(RawError::Offset { partition: self.partition, expected: self.next, found: offset });
        }
        if offset > self.next {
            self.push_gap(Gap { first: self.next, last: Offset(offset.0 - 1) })?;
        }
        self.next = offset.next();
        Ok(())
    }

    fn push_gap(&mut self, gap: Gap) -> Result<(), RawError> {
        let count = self.gaps.len();
        match self.gaps.last_mut() {
            // After `end_at`, a further hole continues the same gap.
            Some(last) if last.last.next() == gap.first => last.last = gap.last,
            _ if count >= GAPS_MAX => return Err(RawError::Full { what: "gaps", limit: GAPS_MAX as u64 }),
            _ => self.gaps.push(gap),
        }
        Ok(())
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Bytes of keys, values and headers so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The offset that it begins at.
    pub fn first(&self) -> Offset {
        self.first
    }

    /// The least offset that can follow.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// Closes the batch.
    ///
    /// # Errors
    /// [`RawError::Empty`], if it covers no offset.
    pub fn finish(mut self) -> Result<RawBatch, RawError> {
        if self.next == self.first {
            return Err(RawError::Empty { partition: self.partition });
        }
        let fields = schema::header_fields();
        let parts: Vec<ArrayRef> = vec![Arc::new(self.header_names.finish()), Arc::new(self.header_values.finish())];
        let with_headers = self.header_ends.windows(2).map(|pair| pair[0] < pair[1]).collect::<Vec<_>>();
        let item = schema::header_item();
        let headers = ListArray::new(
            item,
            OffsetBuffer::new(ScalarBuffer::from(self.header_ends)),
            Arc::new(StructArray::new(fields, parts, None)),
            Some(NullBuffer::from(with_headers)),
        );
        Ok(RawBatch {
            partition: self.partition,
            first: self.first,
            last: Offset(self.next.0 - 1),
            gaps: self.gaps,
            offsets: Int64Array::from(self.offsets),
            timestamps: TimestampMillisecondArray::from(self.timestamps).with_timezone(schema::UTC),
            keys: self.keys.finish(),
            values: self.values.finish(),
            headers,
        })
    }
}

/// The records of one batch, in offset order.
#[derive(Debug, Clone)]
pub struct RawBatch {
    partition: Partition,
    first: Offset,
    last: Offset,
    gaps: Vec<Gap>,
    offsets: Int64Array,
    timestamps: TimestampMillisecondArray,
    keys: BinaryArray,
    values: BinaryArray,
    headers: ListArray,
}

impl RawBatch {
    /// Reads the batch back from the underscore columns of a segment that covers `first` to `last`.
    ///
    /// # Errors
    /// If a column is missing or has another type, a row is of another partition, or offsets do not ascend within the
    /// bounds.
    pub fn from_rows(partition: Partition, first: Offset, last: Offset, rows: &RecordBatch) -> Result<Self, RawError> {
        let own = schema::own_columns();
        let column = |at: usize, name: &'static str| {
            let expected = own[at].data_type();
            let found = rows.column_by_name(name);
            found.filter(|column| column.data_type() == expected).ok_or_else(|| RawError::Column {
                column: name,
                expected: expected.clone(),
                found: found.map_or_else(|| "missing".to_owned(), |column| column.data_type().to_string()),
            })
        };
        let partitions = column(0, schema::PARTITION)?.as_primitive::<Int32Type>();
        let offsets = column(1, schema::OFFSET)?.as_primitive::<Int64Type>();
        let timestamps = column(2, schema::TIMESTAMP)?.as_primitive::<TimestampMillisecondType>();
        for (name, nulls) in [
            (schema::PARTITION, partitions.null_count()),
            (schema::OFFSET, offsets.null_count()),
            (schema::TIMESTAMP, timestamps.null_count()),
        ] {
            if nulls > 0 {
                return Err(row_error(0, name, &"no null", &format!("{nulls} of them")));
            }
        }
        let wrong = partitions.values().iter().position(|value| u32::try_from(*value) != Ok(partition.0));
        if let Some(row) = wrong {
            return Err(row_error(row, schema::PARTITION, &partition, &partitions.value(row)));
        }
        Ok(Self {
            partition,
            first,
            last,
            gaps: gaps_of(first, last, offsets.values())?,
            offsets: offsets.clone(),
            timestamps: timestamps.clone(),
            keys: column(3, schema::KEY)?.as_binary::<i32>().clone(),
            headers: column(4, schema::HEADERS)?.as_list::<i32>().clone(),
            values: column(5, schema::RAW)?.as_binary::<i32>().clone(),
        })
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether it holds no record: all its offsets are gaps.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The partition.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// The first offset that it accounts for.
    pub fn first(&self) -> Offset {
        self.first
    }

    /// The last offset that it accounts for.
    pub fn last(&self) -> Offset {
        self.last
    }

    /// The offsets at which the topic holds no record, ascending, not touching.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// The offsets of its records.
    pub fn offsets(&self) -> &[i64] {
        self.offsets.values()
    }

    /// The values of its records, as they came.
    pub fn values(&self) -> &BinaryArray {
        &self.values
    }

    /// The keys of its records.
    pub fn keys(&self) -> &BinaryArray {
        &self.keys
    }

    /// Kafka's timestamps of its records, in milliseconds since 1970.
    pub fn timestamps_ms(&self) -> &[i64] {
        self.timestamps.values()
    }

    /// The key of the record at `row`.
    ///
    /// # Panics
    /// Past the end.
    pub fn key(&self, row: usize) -> Option<&[u8]> {
        optional(&self.keys, row)
    }

    /// The value of the record at `row`, as it came.
    ///
    /// # Panics
    /// Past the end.
    pub fn value(&self, row: usize) -> Option<&[u8]> {
        optional(&self.values, row)
    }

    /// The headers of the record at `row`, in their order.
    ///
    /// # Panics
    /// Past the end.
    pub fn headers(&self, row: usize) -> impl Iterator<Item = Header<'_>> {
        let (names, values) = self.header_parts();
        self.header_range(row).map(|at| (names.value(at), optional(values, at)))
    }

    /// The least and the greatest timestamp; 0 and 0 without records, as anchors have it.
    pub fn timestamp_range_ms(&self) -> (i64, i64) {
        let values = self.timestamps.values();
        (values.iter().copied().min().unwrap_or(0), values.iter().copied().max().unwrap_or(0))
    }

    /// Bytes of keys, values and header values.
    pub fn bytes(&self) -> u64 {
        let length = |array: &BinaryArray| {
            let offsets = array.value_offsets();
            offsets.last().zip(offsets.first()).map_or(0, |(end, start)| (end - start) as u64)
        };
        let (names, values) = self.header_parts();
        let offsets = names.value_offsets();
        let names = offsets.last().zip(offsets.first()).map_or(0, |(end, start)| (end - start) as u64);
        length(&self.keys) + length(&self.values) + names + length(values)
    }

    /// Its columns in the order of [`schema::own_columns`], without `_error`.
    pub fn columns(&self) -> [ArrayRef; 6] {
        let partition = Int32Array::from_value(self.partition.0 as i32, self.len());
        [
            Arc::new(partition),
            Arc::new(self.offsets.clone()),
            Arc::new(self.timestamps.clone()),
            Arc::new(self.keys.clone()),
            Arc::new(self.headers.clone()),
            Arc::new(self.values.clone()),
        ]
    }

    /// The leaves of its records, in order.
    pub fn leaves(&self, topic: &str, secret: &BatchSecret) -> Vec<Digest> {
        let mut hasher = RecordHasher::new(topic, self.partition, secret.clone());
        let (names, values) = self.header_parts();
        (0..self.len())
            .map(|row| {
                let headers = self.header_range(row).map(|at| (names.value(at), optional(values, at)));
                let (offset, timestamp) = (Offset(self.offsets.value(row) as u64), self.timestamps.value(row));
                let (key, value) = (optional(&self.keys, row), optional(&self.values, row));
                hasher.leaf(LeafIndex(row as u64), offset, timestamp, key, value, headers)
            })
            .collect()
    }

    /// The record at `row` with the salt of its leaf; `None` past the end.
    pub fn record(&self, row: usize, topic: &str, secret: &BatchSecret) -> Option<OwnedRecord> {
        if row >= self.len() {
            return None;
        }
        let (names, values) = self.header_parts();
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let headers = self.header_range(row);
        Some(OwnedRecord {
            topic: topic.to_owned(),
            partition: self.partition,
            offset: Offset(self.offsets.value(row) as u64),
            timestamp_ms: self.timestamps.value(row),
            key: owned(optional(&self.keys, row)),
            value: owned(optional(&self.values, row)),
            headers: headers.map(|at| (names.value(at).to_owned(), owned(optional(values, at)))).collect(),
            salt: secret.salt(LeafIndex(row as u64)),
        })
    }

    fn header_parts(&self) -> (&StringArray, &BinaryArray) {
        let parts = self.headers.values().as_struct();
        (parts.column(0).as_string::<i32>(), parts.column(1).as_binary::<i32>())
    }

    /// Where the headers of a row stand; empty for a row without.
    fn header_range(&self, row: usize) -> Range<usize> {
        if self.headers.is_null(row) {
            return 0..0;
        }
        let offsets = self.headers.value_offsets();
        offsets[row] as usize..offsets[row + 1] as usize
    }
}

fn optional(array: &BinaryArray, at: usize) -> Option<&[u8]> {
    array.is_valid(at).then(|| array.value(at))
}

/// The offsets between `first` and `last` that no row has.
fn gaps_of(first: Offset, last: Offset, offsets: &[i64]) -> Result<Vec<Gap>, RawError> {
    let mut gaps = Vec::new();
    let mut next = first;
    for (row, offset) in offsets.iter().enumerate() {
        let found = u64::try_from(*offset).ok().filter(|found| (next.0..=last.0).contains(found));
        let found = found.ok_or_else(|| row_error(row, schema::OFFSET, &format!("{next} to {last}"), offset))?;
        if found > next.0 {
            gaps.push(Gap { first: next, last: Offset(found - 1) });
        }
        next = Offset(found).next();
    }
    if next <= last {
        gaps.push(Gap { first: next, last });
    }
    Ok(gaps)
}

fn row_error(row: usize, column: &'static str, expected: &dyn Display, found: &dyn Display) -> RawError {
    RawError::Row { row, column, expected: expected.to_string(), found: found.to_string() }
}

#[cfg(test)]
#[path = "raw_tests.rs"]
mod tests;
