//! The system tables of schema `cairn` that show the chain's own facts: no segment is read for them.
//!
//! `cairn.anchors`, one row for each finalized batch:
//!
//! | column | type | what |
//! | --- | --- | --- |
//! | `stream`, `partition` | text, int4 | whose records |
//! | `first_offset`, `last_offset` | int8 | the offsets that the batch accounts for, both included |
//! | `records`, `quarantined`, `missing` | int8 | records; of these, how many are quarantined; offsets in declared gaps |
//! | `timestamp_min`, `timestamp_max` | timestamptz | bounds of the records' timestamps; null for a batch without records |
//! | `records_root` | text | RFC 9162 root over the records' leaves, hexadecimal |
//! | `schema_fingerprint` | text | SHA-256 of the schema by which the columns were decoded |
//! | `segment`, `segment_bytes`, `segment_blake3` | text, int8, text | the stored object |
//! | `anchor`, `previous` | text | id of the statement, and of the partition's previous one (null for the first) |
//! | `signer`, `log_index` | text, int8 | who anchored it; its place in the chain's log |
//! | `block`, `block_time` | int8, timestamptz | the block that finalized it |
//!
//! `cairn.blocks`, one row for each block: `block`, `time`, `hash` (of its header), `proposer` (the validator's key),
//! `statements` (how many), `state_root`, `log_size` (anchors in the log after it).
//!
//! `cairn.streams`: `stream`, `schema_name`, `table_name`, `topic`, `partitions`, `format`, `schema_id`,
//! `schema_versions`, `schema` (Avro, as JSON text), `key_fields`, `event_time`, `batch_records_max`,
//! `batch_bytes_max`, `batch_age_ms_max`, `gaps_allowed`, `anchorers`, `owner`, `block`; and of its anchors `anchored`
//! (batches), `records`, `quarantined`.
//!
//! `cairn.validators`: `position` (as certificates count them), `name`, `public_key`.
//!
//! `cairn.identities`: `identity`, `name`, `kind`, `public_key`, `controller` (null for those of the genesis), `block`.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, ListArray, ListBuilder, RecordBatch, RecordBatchOptions,
    StringArray, StringBuilder, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use cairn_anchor::schema::UTC;
use cairn_chain_client::{AnchorEntry, BlockSummary};
use cairn_proof::digest::Digest;
use cairn_proof::identity::IdentityKind;
use cairn_proof::statement::Anchor;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;

use super::facts::{signed, signed32};
use crate::snapshot::{IdentityAt, Snapshot, StreamAt, ValidatorAt};

/// How many rows go into one batch.
const BATCH_ROWS: usize = 8_192;

/// Which system table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SystemKind {
    Anchors,
    Blocks,
    Streams,
    Validators,
    Identities,
}

/// A column: its name, its type, whether it may be null, and how its values come from rows.
struct Column<R: 'static> {
    name: &'static str,
    data_type: DataType,
    nullable: bool,
    values: fn(&[R]) -> ArrayRef,
}

fn text<R>(name: &'static str, values: fn(&[R]) -> ArrayRef) -> Column<R> {
    column(name, DataType::Utf8, values)
}

fn long<R>(name: &'static str, values: fn(&[R]) -> ArrayRef) -> Column<R> {
    column(name, DataType::Int64, values)
}

fn column<R>(name: &'static str, data_type: DataType, values: fn(&[R]) -> ArrayRef) -> Column<R> {
    Column { name, data_type, nullable: false, values }
}

impl<R> Column<R> {
    fn nullable(self) -> Self {
        Self { nullable: true, ..self }
    }
}

fn texts<T: ToString>(values: impl Iterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values.map(|value| value.to_string())))
}

fn optional_texts<T: ToString>(values: impl Iterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.map(|value| value.map(|value| value.to_string())).collect::<StringArray>())
}

fn longs(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.map(signed)))
}

fn ints(values: impl Iterator<Item = u32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values.map(signed32)))
}

fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMillisecondArray>().with_timezone(UTC))
}

fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into()))
}

fn text_list_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

fn text_lists<T: ToString>(values: impl Iterator<Item = Vec<T>>) -> ArrayRef {
    let mut lists = ListBuilder::new(StringBuilder::new());
    for list in values {
        for text in list {
            lists.values().append_value(text.to_string());
        }
        lists.append(true);
    }
    let lists: ListArray = lists.finish();
    Arc::new(lists)
}

fn missing(anchor: &Anchor) -> u64 {
    anchor.gaps.iter().map(|gap| gap.last.0.saturating_sub(gap.first.0).saturating_add(1)).sum()
}

fn anchor_columns() -> Vec<Column<Arc<AnchorEntry>>> {
    fn time_bounds(rows: &[Arc<AnchorEntry>], of: fn(&Anchor) -> i64) -> ArrayRef {
        times(rows.iter().map(|row| (row.anchor.count > 0).then(|| of(&row.anchor))))
    }
    vec![
        text("stream", |rows| texts(rows.iter().map(|row| &row.anchor.stream))),
        column("partition", DataType::Int32, |rows| ints(rows.iter().map(|row| row.anchor.partition.0))),
        long("first_offset", |rows| longs(rows.iter().map(|row| row.anchor.first.0))),
        long("last_offset", |rows| longs(rows.iter().map(|row| row.anchor.last.0))),
        long("records", |rows| longs(rows.iter().map(|row| row.anchor.count))),
        long("quarantined", |rows| longs(rows.iter().map(|row| row.anchor.quarantined))),
        long("missing", |rows| longs(rows.iter().map(|row| missing(&row.anchor)))),
        column("timestamp_min", time_type(), |rows| time_bounds(rows, |anchor| anchor.timestamp_min_ms)).nullable(),
        column("timestamp_max", time_type(), |rows| time_bounds(rows, |anchor| anchor.timestamp_max_ms)).nullable(),
        text("records_root", |rows| texts(rows.iter().map(|row| row.anchor.records_root))),
        text("schema_fingerprint", |rows| texts(rows.iter().map(|row| row.anchor.schema_fingerprint))),
        text("segment", |rows| texts(rows.iter().map(|row| &row.anchor.segment.path))),
        long("segment_bytes", |rows| longs(rows.iter().map(|row| row.anchor.segment.size))),
        text("segment_blake3", |rows| texts(rows.iter().map(|row| row.anchor.segment.blake3))),
        text("anchor", |rows| texts(rows.iter().map(|row| row.id))),
        text("previous", |rows: &[Arc<AnchorEntry>]| {
            let previous = rows.iter().map(|row| row.anchor.previous);
            optional_texts(previous.map(|digest| (digest != Digest::ZERO).then_some(digest)))
        })
        .nullable(),
        text("signer", |rows| texts(rows.iter().map(|row| row.signer))),
        long("log_index", |rows| longs(rows.iter().map(|row| row.log_index.0))),
        long("block", |rows| longs(rows.iter().map(|row| row.height.0))),
        column("block_time", time_type(), |rows| times(rows.iter().map(|row| Some(signed(row.block_timestamp_ms))))),
    ]
}

fn block_columns() -> Vec<Column<BlockSummary>> {
    vec![
        long("block", |rows| longs(rows.iter().map(|row| row.height.0))),
        column("time", time_type(), |rows| times(rows.iter().map(|row| Some(signed(row.timestamp_ms))))),
        text("hash", |rows| texts(rows.iter().map(|row| row.digest))),
        text("proposer", |rows| texts(rows.iter().map(|row| hex::encode(row.proposer)))),
        long("statements", |rows| longs(rows.iter().map(|row| row.statements))),
        text("state_root", |rows| texts(rows.iter().map(|row| row.state_root))),
        long("log_size", |rows| longs(rows.iter().map(|row| row.log_size.0))),
    ]
}

fn stream_columns() -> Vec<Column<StreamAt>> {
    fn sum(row: &StreamAt, of: fn(&Anchor) -> u64) -> u64 {
        row.anchors.iter().map(|entry| of(&entry.anchor)).sum()
    }
    vec![
        text("stream", |rows| texts(rows.iter().map(|row| &row.definition.name))),
        text("schema_name", |rows| texts(rows.iter().map(|row| row.definition.sql_name().0))),
        text("table_name", |rows| texts(rows.iter().map(|row| row.definition.sql_name().1))),
        text("topic", |rows| texts(rows.iter().map(|row| &row.definition.topic))),
        column("partitions", DataType::Int32, |rows| ints(rows.iter().map(|row| row.definition.partitions))),
        text("format", |rows| texts(rows.iter().map(|row| row.definition.format.name()))),
        long("schema_id", |rows| {
            longs(rows.iter().map(|row| row.definition.table_schema().map_or(0, |schema| u64::from(schema.id))))
        }),
        column("schema_versions", DataType::Int32, |rows| {
            ints(rows.iter().map(|row| u32::try_from(row.definition.schemas.len()).unwrap_or(u32::MAX)))
        }),
        text("schema", |rows: &[StreamAt]| {
            optional_texts(rows.iter().map(|row| row.definition.table_schema().map(|schema| &schema.text)))
        })
        .nullable(),
        column("key_fields", text_list_type(), |rows| {
            text_lists(rows.iter().map(|row| row.definition.key_fields.clone()))
        }),
        text("event_time", |rows: &[StreamAt]| {
            optional_texts(rows.iter().map(|row| row.definition.event_time.as_ref()))
        })
        .nullable(),
        long("batch_records_max", |rows| longs(rows.iter().map(|row| u64::from(row.definition.limits.records_max)))),
        long("batch_bytes_max", |rows| longs(rows.iter().map(|row| u64::from(row.definition.limits.bytes_max)))),
        long("batch_age_ms_max", |rows| longs(rows.iter().map(|row| u64::from(row.definition.limits.age_ms_max)))),
        column("gaps_allowed", DataType::Boolean, |rows| {
            Arc::new(rows.iter().map(|row| Some(row.definition.gaps_allowed)).collect::<BooleanArray>())
        }),
        column("anchorers", text_list_type(), |rows| {
            text_lists(rows.iter().map(|row| row.definition.anchorers.clone()))
        }),
        text("owner", |rows| texts(rows.iter().map(|row| row.owner))),
        long("block", |rows| longs(rows.iter().map(|row| row.registered.0))),
        long("anchored", |rows| longs(rows.iter().map(|row| row.anchors.len() as u64))),
        long("records", |rows| longs(rows.iter().map(|row| sum(row, |anchor| anchor.count)))),
        long("quarantined", |rows| longs(rows.iter().map(|row| sum(row, |anchor| anchor.quarantined)))),
    ]
}

fn validator_columns() -> Vec<Column<(u32, ValidatorAt)>> {
    vec![
        column("position", DataType::Int32, |rows| ints(rows.iter().map(|row| row.0))),
        text("name", |rows| texts(rows.iter().map(|row| &row.1.name))),
        text("public_key", |rows| texts(rows.iter().map(|row| row.1.public_key))),
    ]
}

fn identity_columns() -> Vec<Column<IdentityAt>> {
    fn kind(kind: IdentityKind) -> &'static str {
        match kind {
            IdentityKind::Organisation => "organisation",
            IdentityKind::Person => "person",
            IdentityKind::Device => "device",
            IdentityKind::Node => "node",
        }
    }
    vec![
        text("identity", |rows| texts(rows.iter().map(|row| row.id))),
        text("name", |rows| texts(rows.iter().map(|row| &row.name))),
        text("kind", |rows| texts(rows.iter().map(|row| kind(row.kind)))),
        text("public_key", |rows| texts(rows.iter().map(|row| row.public_key))),
        text("controller", |rows: &[IdentityAt]| optional_texts(rows.iter().map(|row| row.controller))).nullable(),
        long("block", |rows| longs(rows.iter().map(|row| row.registered.0))),
    ]
}

fn schema_of<R>(columns: &[Column<R>]) -> SchemaRef {
    let fields: Vec<Field> =
        columns.iter().map(|column| Field::new(column.name, column.data_type.clone(), column.nullable)).collect();
    Arc::new(Schema::new(fields))
}

fn batches_of<R>(columns: &[Column<R>], wanted: &[usize], rows: &[R]) -> Result<Vec<RecordBatch>> {
    let schema = project_schema(&schema_of(columns), Some(&wanted.to_vec()))?;
    rows.chunks(BATCH_ROWS)
        .map(|chunk| {
            let arrays: Vec<ArrayRef> = wanted.iter().map(|at| (columns[*at].values)(chunk)).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(chunk.len()));
            RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options).map_err(DataFusionError::from)
        })
        .collect()
}

/// One system table at one height.
#[derive(Debug)]
pub(crate) struct SystemTable {
    kind: SystemKind,
    schema: SchemaRef,
    snapshot: Arc<Snapshot>,
}

impl SystemTable {
    pub(crate) fn new(kind: SystemKind, snapshot: Arc<Snapshot>) -> Self {
        let schema = match kind {
            SystemKind::Anchors => schema_of(&anchor_columns()),
            SystemKind::Blocks => schema_of(&block_columns()),
            SystemKind::Streams => schema_of(&stream_columns()),
            SystemKind::Validators => schema_of(&validator_columns()),
            SystemKind::Identities => schema_of(&identity_columns()),
        };
        Self { kind, schema, snapshot }
    }

    fn batches(&self, wanted: &[usize]) -> Result<Vec<RecordBatch>> {
        match self.kind {
            SystemKind::Anchors => {
                let mut rows: Vec<_> =
                    self.snapshot.streams.iter().flat_map(|stream| stream.anchors.iter().cloned()).collect();
                rows.sort_unstable_by_key(|row| row.log_index);
                batches_of(&anchor_columns(), wanted, &rows)
            }
            SystemKind::Blocks => batches_of(&block_columns(), wanted, &(self.snapshot.blocks)()),
            SystemKind::Streams => batches_of(&stream_columns(), wanted, &self.snapshot.streams),
            SystemKind::Validators => {
                let rows: Vec<_> = (0_u32..).zip(self.snapshot.validators.iter().cloned()).collect();
                batches_of(&validator_columns(), wanted, &rows)
            }
            SystemKind::Identities => batches_of(&identity_columns(), wanted, &self.snapshot.identities),
        }
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = match projection {
            Some(projection) => projection.clone(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let batches = self.batches(&wanted)?;
        let schema = project_schema(&self.schema, Some(&wanted))?;
        Ok(MemorySourceConfig::try_new_exec(&[batches], schema, None)?)
    }
}
