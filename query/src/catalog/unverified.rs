//! Rows of segments that do not verify, for those who asked to see them (`cairn.on_unverified = 'flag'`).
//!
//! This is the one place where bytes that no anchor vouches for become rows, and each such row says so: its `_verified`
//! is false. They may be wrong in any way, made up, or in parts missing: what cannot be decoded is not there. `_partition` and
//! `_block` come from the anchor all the same.
//!
//! The bytes are hostile. At most [`OBJECT_BYTES_MAX`] of them are taken; they must not hold more rows than the anchor
//! says, nor say that they unpack to more than [`UNPACKED_BYTES_MAX`]; the rows count against the statement's allowance
//! ([`crate::scope`]); and they are decoded on a thread of its own, whose failure is the segment's and nobody else's.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::{cast, filter_record_batch, is_null};
use arrow::datatypes::SchemaRef;
use arrow_schema::ArrowError;
use bytes::Bytes;
use cairn_anchor::schema::ERROR;
use cairn_anchor::verified::VerifiedStore;
use cairn_chain_client::AnchorEntry;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::evolution::Defaults;
use super::segments::own_object;
use crate::scope::StatementScope;

/// The largest object whose rows are shown though it does not verify.
const OBJECT_BYTES_MAX: u64 = 256 << 20;
/// The most that such an object may unpack to, by what it says itself.
const UNPACKED_BYTES_MAX: i64 = 1 << 30;
/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 1_024;

/// The columns that rows are brought into: file columns, and what stands for those that the file does not have.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) columns: SchemaRef,
    pub(crate) defaults: Defaults,
}

/// The rows in that shape that can be read of a broken segment, without quarantined records.
///
/// None if nothing can be read. The rows fill at most the statement's allowance; then the segment counts as unreadable.
pub(crate) async fn readable(
    store: &VerifiedStore,
    entry: &AnchorEntry,
    shape: &Shape,
    scope: &Arc<StatementScope>,
) -> Option<Vec<RecordBatch>> {
    let object = own_object(store, &entry.anchor).ok()?;
    if object.size > OBJECT_BYTES_MAX {
        return None;
    }
    let bytes = store.read_unverified(&object, OBJECT_BYTES_MAX).await.ok()?;
    let (shape, scope, records) = (shape.clone(), Arc::clone(scope), entry.anchor.count);
    // A panic of the decoder ends this task alone.
    tokio::task::spawn_blocking(move || decode(&Bytes::from(bytes), &shape, records, &scope)).await.ok()?
}

fn decode(bytes: &Bytes, shape: &Shape, records: u64, scope: &StatementScope) -> Option<Vec<RecordBatch>> {
    let metadata = ArrowReaderMetadata::load(bytes, ArrowReaderOptions::default()).ok()?;
    let groups = metadata.metadata().row_groups();
    let rows = groups.iter().try_fold(0_i64, |sum, group| sum.checked_add(group.num_rows()))?;
    let unpacked = groups.iter().try_fold(0_i64, |sum, group| sum.checked_add(group.total_byte_size()))?;
    let sane = groups.iter().all(|group| group.num_rows() >= 0 && group.total_byte_size() >= 0);
    if !sane || u64::try_from(rows).ok()? > records || unpacked > UNPACKED_BYTES_MAX {
        return None;
    }
    let mut found = Vec::new();
    for group in 0..groups.len() {
        let Ok(reader) = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata.clone())
            .with_row_groups(vec![group])
            .with_batch_size(BATCH_ROWS)
            .build()
        else {
            continue;
        };
        for batch in reader {
            // The rest of this row group cannot be read; the next one perhaps can.
            let Ok(batch) = batch.and_then(|batch| adapted(&batch, shape)) else { break };
            if !scope.take_flagged_bytes(batch.get_array_memory_size()) {
                return None;
            }
            found.push(batch);
        }
    }
    (!found.is_empty()).then_some(found)
}

/// Brings a file's columns into the table's: by name, cast where an older schema had another type, the default or null
/// where there was none. Quarantined records are left out.
fn adapted(batch: &RecordBatch, shape: &Shape) -> Result<RecordBatch, ArrowError> {
    let Shape { columns, defaults } = shape;
    let found = columns.fields().iter().map(|field| match batch.column_by_name(field.name()) {
        Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
        Some(column) => cast(column, field.data_type()),
        None => defaults.column(field, batch.num_rows()),
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let found = found.collect::<Result<Vec<_>, _>>()?;
    let batch = RecordBatch::try_new_with_options(Arc::clone(columns), found, &options)?;
    let error = batch.column_by_name(ERROR).ok_or_else(|| ArrowError::SchemaError(format!("there is no {ERROR}")))?;
    filter_record_batch(&batch, &is_null(error)?)
}

/// Rows of `schema`, whose columns stand at `places` in `batch` with `constants` behind its own.
pub(crate) fn with_constants(
    batch: &RecordBatch,
    constants: &[datafusion::common::ScalarValue],
    schema: &SchemaRef,
    places: &[usize],
) -> datafusion::common::Result<RecordBatch> {
    let mut columns = batch.columns().to_vec();
    for constant in constants {
        columns.push(constant.to_array_of_size(batch.num_rows())?);
    }
    let wanted = places.iter().filter_map(|place| columns.get(*place).cloned()).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), wanted, &options)?)
}
