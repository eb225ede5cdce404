//! One batch becomes an anchor, a segment and its hash tree.
//!
//! Pure computing: nothing is written, nothing is sent. The anchor that comes out is not signed; its path follows from
//! the segment's hash, so that nothing about it is a choice.

use crate::outboard::{Mismatch, Outboard};
use crate::raw::RawBatch;
use crate::roots::{PathError, segment_path};
use crate::schema::{self, SchemaError};
use crate::segment::{self, FOOTER_KEYS, SEQUENCES_KEY, SegmentError, WRITER_SCHEMAS_KEY};
use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::ArrowError;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cairn_proof::record::BatchSecret;
use cairn_proof::signed_record::Sequences;
use cairn_proof::statement::{Anchor, SegmentRef, StreamDefinition};
use cairn_proof::writer_schemas::WriterSchemas;
use cairn_proof::{Digest, tree};
use rand::TryRng as _;
use std::sync::Arc;

/// The records of a batch as the stream's columns: one row a record.
#[derive(Debug, Clone)]
pub struct DecodedColumns {
    /// The stream's columns; nulls in the rows of quarantined records.
    pub batch: RecordBatch,
    /// Why a record is quarantined; null for one that is not.
    pub errors: StringArray,
}

impl DecodedColumns {
    /// The same, with the partition's last sequence numbers after the batch: they come into the segment's footer.
    #[must_use]
    pub fn with_sequences(self, sequences: &Sequences) -> Self {
        if sequences.is_empty() {
            return self;
        }
        let text = BASE64_STANDARD.encode(sequences.encode());
        let Self { mut batch, errors } = self;
        batch.schema_metadata_mut().insert(SEQUENCES_KEY.to_owned(), text);
        Self { batch, errors }
    }

    /// The same, with the schemas that values were decoded by and the stream does not have: they come into the footer too.
    #[must_use]
    pub fn with_writer_schemas(self, schemas: &WriterSchemas) -> Self {
        if schemas.is_empty() {
            return self;
        }
        let text = BASE64_STANDARD.encode(schemas.encode());
        let Self { mut batch, errors } = self;
        batch.schema_metadata_mut().insert(WRITER_SCHEMAS_KEY.to_owned(), text);
        Self { batch, errors }
    }

    /// How many records are quarantined.
    pub fn quarantined(&self) -> u64 {
        (self.errors.len() - self.errors.null_count()) as u64
    }
}

/// A batch ready to be stored and anchored.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// What will be signed and submitted.
    pub anchor: Anchor,
    /// The Parquet object.
    pub segment: Bytes,
    /// The stored form of its hash tree.
    pub outboard: Bytes,
    /// What the leaves were salted from; to be kept apart from the segment.
    pub secret: BatchSecret,
}

/// Why a batch could not be sealed. None of it goes away by trying again.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The stream's schema cannot be stored.
    #[error("stream {stream}: {source}")]
    Schema {
        /// The stream.
        stream: String,
        /// Why.
        source: SchemaError,
    },
    /// Decoded columns and records are not of the same batch.
    #[error(
        "stream {stream}, partition {partition}: {records} records came with {rows} decoded rows and {errors} error entries"
    )]
    Rows {
        /// The stream.
        stream: String,
        /// The partition.
        partition: cairn_proof::Partition,
        /// Records in the batch.
        records: usize,
        /// Rows of decoded columns.
        rows: usize,
        /// Entries of the error column.
        errors: usize,
    },
    /// Decoded columns are not those of the stream's table.
    #[error("stream {stream}: the decoded columns are not those of its table: {source}")]
    Columns {
        /// The stream.
        stream: String,
        /// Why.
        source: ArrowError,
    },
    /// The segment could not be written.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The segment is larger than can be verified.
    #[error("the segment cannot be hashed: {0}")]
    Size(#[from] Mismatch),
    /// The stream cannot name a folder.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// 32 random bytes from the operating system.
///
/// # Errors
/// If the operating system has none to give.
pub fn new_secret() -> std::io::Result<BatchSecret> {
    let mut bytes = [0; 32];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(std::io::Error::other)?;
    Ok(BatchSecret(bytes))
}

/// Seals one batch of a stream. `previous` is the id of the partition's last anchor, zero for the first.
///
/// Blocks for as long as hashing and compressing takes: about a microsecond a record.
///
/// # Errors
/// [`SealError`]; only a bug of the caller or an impossible stream definition leads to one.
pub fn seal(
    stream: &StreamDefinition,
    raw: &RawBatch,
    decoded: &DecodedColumns,
    secret: BatchSecret,
    previous: Digest,
) -> Result<Sealed, SealError> {
    let rows = segment_rows(stream, raw, decoded)?;
    let leaves = raw.leaves(&stream.topic, &secret);
    let segment = segment::write(&rows)?;
    let tree = Outboard::of(&segment)?;
    let path = segment_path(&stream.name, raw.partition(), raw.first(), tree.root())?;
    let (timestamp_min_ms, timestamp_max_ms) = raw.timestamp_range_ms();
    let anchor = Anchor {
        stream: stream.name.clone(),
        partition: raw.partition(),
        first: raw.first(),
        last: raw.last(),
        gaps: raw.gaps().to_vec(),
        count: raw.len() as u64,
        quarantined: decoded.quarantined(),
        records_root: tree::root(&leaves),
        timestamp_min_ms,
        timestamp_max_ms,
        schema_fingerprint: schema_fingerprint(stream)?,
        segment: SegmentRef { path: path.to_string(), size: segment.len() as u64, blake3: tree.root() },
        previous,
    };
    Ok(Sealed { anchor, segment, outboard: Bytes::from(tree.encode()), secret })
}

/// The fingerprint of the schema version that the table has.
fn schema_fingerprint(stream: &StreamDefinition) -> Result<Digest, SealError> {
    let none =
        || SealError::Schema { stream: stream.name.clone(), source: SchemaError::None { stream: stream.name.clone() } };
    Ok(stream.table_schema().ok_or_else(none)?.fingerprint())
}

/// All columns of the segment.
fn segment_rows(stream: &StreamDefinition, raw: &RawBatch, decoded: &DecodedColumns) -> Result<RecordBatch, SealError> {
    let (rows, errors) = (decoded.batch.num_rows(), decoded.errors.len());
    if rows != raw.len() || errors != raw.len() {
        let (stream, partition) = (stream.name.clone(), raw.partition());
        return Err(SealError::Rows { stream, partition, records: raw.len(), rows, errors });
    }
    let columns_error = |source| SealError::Columns { stream: stream.name.clone(), source };
    let table =
        schema::table_schema(stream).map_err(|source| SealError::Schema { stream: stream.name.clone(), source })?;
    let table_rows = schema::conform(&decoded.batch, &table).map_err(columns_error)?;
    let mut columns = table_rows.columns().to_vec();
    columns.extend(raw.columns());
    columns.push(Arc::new(decoded.errors.clone()) as ArrayRef);
    let mut rows = RecordBatch::try_new(schema::with_own_columns(&table), columns).map_err(columns_error)?;
    for key in FOOTER_KEYS {
        if let Some(text) = decoded.batch.schema_ref().metadata().get(key) {
            rows.schema_metadata_mut().insert(key.to_owned(), text.clone());
        }
    }
    Ok(rows)
}

#[cfg(test)]
#[path = "seal_tests.rs"]
pub(crate) mod tests;
