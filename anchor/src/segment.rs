//! The stored object of one batch: a Parquet file of the stream's columns and Cairn's own, rows in offset order.
//!
//! The writer is deterministic: the same rows give the same bytes. It is tuned for records with their raw values
//! (`_raw`) beside the decoded columns: zstd level 1; a dictionary only where a sample of the column repeats itself;
//! delta encoding for offsets, timestamps and other integers that do not; no statistics on `_raw`, `_key` and headers,
//! where nobody filters; no bloom filters; row groups of at most 65,536 rows.
//!
//! The reader takes bytes that were verified before. They are what an anchorer stored, who may be dishonest: sizes are
//! bounded before anything is decoded, and [`decode`] keeps a panic of the Parquet reader from ending the process.

use crate::schema;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use cairn_proof::signed_record::Sequences;
use cairn_proof::writer_schemas::WriterSchemas;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, Encoding, Type as PhysicalType, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{FooterTail, KeyValue, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::{ColumnDescriptor, ColumnPath};
use std::collections::HashSet;
use std::sync::Arc;

/// Most rows in a row group.
pub const ROW_GROUP_ROWS_MAX: usize = 65_536;
/// The most that the columns of a segment may take uncompressed, by its own account.
pub const UNCOMPRESSED_BYTES_MAX: u64 = 4 << 30;
/// Who wrote it, as Parquet records it; it does not change with the library, so that the bytes do not either.
const CREATED_BY: &str = "cairn";
/// How many values of a column decide whether it gets a dictionary.
const SAMPLE_ROWS: usize = 4096;
/// Behind the footer: its length and the magic.
const FOOTER_TAIL_BYTES: usize = 8;
/// zstd level: higher ones save under 2 % and cost a third of the speed.
const ZSTD_LEVEL: i32 = 1;

/// Key in the footer's metadata under which the partition's last sequence numbers stand, base64 of their encoding.
pub const SEQUENCES_KEY: &str = "cairn.sequences";
/// Key under which the schemas stand that values were decoded by and the stream does not have, base64 of their encoding.
pub const WRITER_SCHEMAS_KEY: &str = "cairn.writer_schemas";
/// All keys that Cairn writes, in their order in the footer.
pub(crate) const FOOTER_KEYS: [&str; 2] = [SEQUENCES_KEY, WRITER_SCHEMAS_KEY];

/// Why a segment was not written or not read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// Parquet refused it.
    #[error("not a readable Parquet file: {0}")]
    Parquet(#[from] ParquetError),
    /// Arrow refused it.
    #[error("the segment's columns do not fit together: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// It has another number of rows than its anchor has records.
    #[error("the segment has {found} rows, its anchor has {expected} records")]
    Rows {
        /// The anchor's count.
        expected: u64,
        /// The segment's rows.
        found: i64,
    },
    /// Its columns would take more memory than Cairn gives them.
    #[error("the segment says it takes {found} bytes uncompressed, at most {UNCOMPRESSED_BYTES_MAX} are read")]
    TooLarge {
        /// What its footer says.
        found: u64,
    },
    /// What its footer says about sequence numbers is not their encoding.
    #[error("the segment's footer holds no sequence numbers under {SEQUENCES_KEY}: {reason}")]
    Sequences {
        /// What is wrong with it.
        reason: String,
    },
    /// What its footer says about schemas of writers is not their encoding.
    #[error("the segment's footer holds no schemas of writers under {WRITER_SCHEMAS_KEY}: {reason}")]
    WriterSchemas {
        /// What is wrong with it.
        reason: String,
    },
    /// The Parquet reader gave up on it.
    #[error("the segment cannot be decoded: the reader stopped with {reason}")]
    Undecodable {
        /// What it said.
        reason: String,
    },
}

/// Which columns of a segment to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    /// Cairn's own alone: enough for the leaves.
    Own,
    /// All of them.
    All,
}

/// Writes the rows of one batch. The same rows give the same bytes.
///
/// What the rows' schema has under [`SEQUENCES_KEY`] and [`WRITER_SCHEMAS_KEY`] comes into the footer.
///
/// # Errors
/// [`SegmentError::Parquet`], if a column's type cannot be stored; [`crate::schema`] lets none such through.
pub fn write(rows: &RecordBatch) -> Result<Bytes, SegmentError> {
    let properties = writer_properties(rows)?;
    // Without metadata of its own: what stands in the footer would stand there a second time, within the schema.
    let schema = Arc::new(Schema::new(rows.schema_ref().fields().clone()));
    let rows = RecordBatch::try_new(schema.clone(), rows.columns().to_vec())?;
    let mut writer = ArrowWriter::try_new(Vec::with_capacity(1 << 20), schema, Some(properties))?;
    writer.write(&rows)?;
    Ok(Bytes::from(writer.into_inner()?))
}

fn writer_properties(rows: &RecordBatch) -> Result<WriterProperties, SegmentError> {
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
        .set_bloom_filter_enabled(false);
    let metadata = rows.schema_ref().metadata();
    let entry = |key: &str| Some(KeyValue::new(key.to_owned(), metadata.get(key)?.clone()));
    let entries: Vec<_> = FOOTER_KEYS.into_iter().filter_map(entry).collect();
    if !entries.is_empty() {
        builder = builder.set_key_value_metadata(Some(entries));
    }
    let parquet = ArrowSchemaConverter::new().convert(rows.schema_ref())?;
    let mut leaves = Vec::new();
    rows.columns().iter().for_each(|column| flatten(column, &mut leaves));
    assert_eq!(leaves.len(), parquet.num_columns(), "Parquet stores one column for each leaf array, in the same order");
    for (leaf, column) in leaves.iter().zip(parquet.columns()) {
        let path = column.path();
        if has_no_readers_filter(path) {
            builder = builder.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
        }
        if repeats_itself(leaf, path) {
            continue;
        }
        builder = builder.set_column_dictionary_enabled(path.clone(), false);
        if is_integer(column) {
            builder = builder.set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
        }
    }
    Ok(builder.build())
}

/// The arrays that Parquet stores as columns, depth first.
fn flatten(array: &ArrayRef, leaves: &mut Vec<ArrayRef>) {
    match array.data_type() {
        DataType::Struct(_) => array.as_struct().columns().iter().for_each(|part| flatten(part, leaves)),
        DataType::List(_) => flatten(array.as_list::<i32>().values(), leaves),
        DataType::Map(..) => array.as_map().entries().columns().iter().for_each(|part| flatten(part, leaves)),
        _ => leaves.push(ArrayRef::clone(array)),
    }
}

fn has_no_readers_filter(path: &ColumnPath) -> bool {
    matches!(path.parts().first().map(String::as_str), Some(schema::RAW | schema::KEY | schema::HEADERS))
}

fn is_integer(column: &ColumnDescriptor) -> bool {
    matches!(column.physical_type(), PhysicalType::INT32 | PhysicalType::INT64)
}

/// Whether a dictionary pays: at most half of a sample's values are different ones.
fn repeats_itself(array: &ArrayRef, path: &ColumnPath) -> bool {
    match path.parts().first().map(String::as_str) {
        Some(schema::RAW | schema::OFFSET | schema::TIMESTAMP) => return false,
        Some(schema::PARTITION | schema::ERROR) => return true,
        _ => {}
    }
    let sample = array.slice(0, array.len().min(SAMPLE_ROWS));
    let valid = sample.len() - sample.null_count();
    let distinct = match sample.data_type() {
        DataType::Utf8 => distinct(sample.as_string::<i32>().iter().flatten().map(str::as_bytes)),
        DataType::Binary => distinct(sample.as_binary::<i32>().iter().flatten()),
        DataType::FixedSizeBinary(_) => distinct(sample.as_fixed_size_binary().iter().flatten()),
        other => match other.primitive_width() {
            Some(width) => {
                let data = sample.to_data();
                let values = &data.buffers()[0].as_slice()[data.offset() * width..];
                let rows = values.chunks_exact(width).take(sample.len()).enumerate();
                distinct(rows.filter(|(row, _)| sample.is_valid(*row)).map(|(_, value)| value))
            }
            // Booleans and nulls: Parquet has no dictionary for the first, the second needs none.
            None => return true,
        },
    };
    distinct * 2 <= valid
}

fn distinct<'v>(values: impl Iterator<Item = &'v [u8]>) -> usize {
    values.collect::<HashSet<_>>().len()
}

/// The partition's last sequence numbers after the batch, from the footer of a segment; none where it says nothing.
///
/// `end` is the end of the file, verified: the footer and the 8 bytes behind it, whatever stands before.
///
/// # Errors
/// [`SegmentError`], if it is no footer, or holds something else under that name.
pub fn sequences(end: &Bytes) -> Result<Sequences, SegmentError> {
    let Some(text) = footer_entry(end, SEQUENCES_KEY)? else { return Ok(Sequences::new()) };
    let wrong = |reason: String| SegmentError::Sequences { reason };
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| wrong(error.to_string()))?;
    Sequences::decode(&bytes).map_err(|error| wrong(error.to_string()))
}

/// The schemas that values were decoded by and the stream does not have, from the footer of a segment; none where it says
/// nothing. `end` is as for [`sequences`].
///
/// # Errors
/// [`SegmentError`], if it is no footer, or holds something else under that name.
pub fn writer_schemas(end: &Bytes) -> Result<WriterSchemas, SegmentError> {
    let Some(text) = footer_entry(end, WRITER_SCHEMAS_KEY)? else { return Ok(WriterSchemas::new()) };
    let wrong = |reason: String| SegmentError::WriterSchemas { reason };
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| wrong(error.to_string()))?;
    WriterSchemas::decode(&bytes).map_err(|error| wrong(error.to_string()))
}

/// What a segment's footer has under a key.
fn footer_entry(end: &Bytes, key: &str) -> Result<Option<String>, SegmentError> {
    let length = footer_bytes(end)?;
    let footer = end.len().checked_sub(length).map(|start| start..end.len() - FOOTER_TAIL_BYTES);
    let footer = footer.and_then(|range| end.get(range)).ok_or_else(|| {
        ParquetError::General(format!("the footer has {length} bytes, {} of the file's end are there", end.len()))
    })?;
    let metadata = ParquetMetaDataReader::decode_metadata(footer)?;
    let entries = metadata.file_metadata().key_value_metadata();
    Ok(entries.and_then(|entries| entries.iter().find(|entry| entry.key == key)?.value.clone()))
}

/// How many bytes a segment's footer has, with the 8 behind it, by the last 8 of the file.
///
/// # Errors
/// [`SegmentError::Parquet`], if they are not the end of a Parquet file.
pub fn footer_bytes(end: &Bytes) -> Result<usize, SegmentError> {
    let none = || ParquetError::General("the file does not end as a Parquet file does".to_owned());
    let tail: &[u8; FOOTER_TAIL_BYTES] = end.last_chunk().ok_or_else(none)?;
    Ok(FooterTail::try_new(tail)?.metadata_length() + FOOTER_TAIL_BYTES)
}

/// Reads the rows of a segment whose bytes were verified, and which its anchor says to hold `rows` records.
///
/// # Errors
/// [`SegmentError`]; a panic of the Parquet reader becomes one, too, if the caller is [`decode`].
pub fn read(segment: Bytes, rows: u64, columns: Columns) -> Result<RecordBatch, SegmentError> {
    let metadata = ArrowReaderMetadata::load(&segment, ArrowReaderOptions::new())?;
    let found = metadata.metadata().file_metadata().num_rows();
    let in_groups: i64 = metadata.metadata().row_groups().iter().map(|group| group.num_rows()).sum();
    if u64::try_from(found) != Ok(rows) || in_groups != found {
        return Err(SegmentError::Rows { expected: rows, found: in_groups });
    }
    let sizes = metadata.metadata().row_groups().iter().map(|group| group.total_byte_size());
    let size = sizes.fold(0u64, |sum, size| sum.saturating_add(u64::try_from(size).unwrap_or(u64::MAX)));
    if size > UNCOMPRESSED_BYTES_MAX {
        return Err(SegmentError::TooLarge { found: size });
    }
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(segment, metadata);
    let mask = match columns {
        Columns::All => ProjectionMask::all(),
        Columns::Own => {
            let names = schema::own_columns();
            ProjectionMask::columns(builder.parquet_schema(), names.iter().map(|field| field.name().as_str()))
        }
    };
    let reader = builder.with_projection(mask).with_batch_size(ROW_GROUP_ROWS_MAX).build()?;
    let schema = arrow::record_batch::RecordBatchReader::schema(&reader);
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    Ok(match <[RecordBatch; 1]>::try_from(batches) {
        Ok([only]) => only,
        Err(batches) => concat_batches(&schema, &batches)?,
    })
}

/// [`read`] in a blocking task, for segments that somebody else wrote: a panic of the reader becomes an error.
///
/// # Errors
/// [`SegmentError`].
pub async fn decode(segment: Bytes, rows: u64, columns: Columns) -> Result<RecordBatch, SegmentError> {
    let task = tokio::task::spawn_blocking(move || read(segment, rows, columns));
    task.await.unwrap_or_else(|stopped| Err(SegmentError::Undecodable { reason: stopped.to_string() }))
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
