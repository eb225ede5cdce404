//! `cairn.records`: one row for each anchored record of every stream, with what ties it to publisher, anchor and schema.
//!
//! It is what other system tables are joined by: a row of `traffic.flow` has `_partition` and `_offset`, and so has this.
//!
//! | column | type | what |
//! | --- | --- | --- |
//! | `stream`, `partition`, `offset` | text, int4, int8 | which record |
//! | `timestamp` | timestamptz | Kafka's timestamp of the record |
//! | `key` | bytea | the record's key |
//! | `reason` | text | why it is quarantined; null for a valid one, which is a row of the stream's table |
//! | `publisher_key`, `sequence` | text, int8 | who signed it, and its place in their sequence; null for one that is not signed |
//! | `publisher` | text | the identity that has, or had, that key at this height; null if none has |
//! | `anchor` | text | the anchor that accounts for it (`cairn.anchors`) |
//! | `schema_fingerprint` | text | the schema by which it was decoded (`cairn.schemas`) |
//! | `block` | int8 | the block that finalized it (`cairn.blocks`) |
//!
//! The publisher is read from the signed headers. That a valid record's signature verified is what ingest checked before
//! it anchored; `cairn.lineage` checks it again.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray as _, Int64Array, ListArray, StringArray};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use cairn_anchor::schema::{ERROR, HEADERS, KEY, OFFSET, PARTITION, TIMESTAMP, own_columns};
use cairn_anchor::verified::VerifiedStore;
use cairn_chain_client::AnchorEntry;
use cairn_proof::signed_record::SignedHeaders;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, ScalarValue, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TableProviderFilterPushDown,
    Volatility,
};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::ProjectionExec;

use super::checked::shown;
use super::evolution::Defaults;
use super::facts::{BLOCK, Facts, signed, signed32};
use super::quarantine::about_facts;
use super::segments::{Bounds, SegmentFile, SegmentScan};
use crate::problems::Problems;
use crate::scope::StatementScope;
use crate::snapshot::Snapshot;

/// The scan's columns, in its order: those of the file, then the anchor's constants.
const SCAN: [&str; 10] =
    [OFFSET, TIMESTAMP, KEY, HEADERS, ERROR, "stream", PARTITION, "anchor", "schema_fingerprint", BLOCK];
/// How many of them are the file's.
const FILE_COLUMNS: usize = 5;

/// The table's columns, and the scan's that each comes from; three are computed from the headers.
const TABLE: [(&str, &str); 12] = [
    ("stream", "stream"),
    ("partition", PARTITION),
    ("offset", OFFSET),
    ("timestamp", TIMESTAMP),
    ("key", KEY),
    ("reason", ERROR),
    ("publisher_key", HEADERS),
    ("sequence", HEADERS),
    ("publisher", HEADERS),
    ("anchor", "anchor"),
    ("schema_fingerprint", "schema_fingerprint"),
    ("block", BLOCK),
];

/// The table at one height.
#[derive(Debug)]
pub(crate) struct RecordsTable {
    scan: TableSchema,
    table: SchemaRef,
    facts: SchemaRef,
    snapshot: Arc<Snapshot>,
    store: VerifiedStore,
    problems: Arc<Problems>,
}

impl RecordsTable {
    pub(crate) fn new(snapshot: Arc<Snapshot>, store: VerifiedStore, problems: Arc<Problems>) -> Result<Self> {
        let own = own_columns();
        let field = |name: &str| -> Result<FieldRef> {
            match name {
                "stream" | "anchor" | "schema_fingerprint" => Ok(Arc::new(Field::new(name, DataType::Utf8, false))),
                BLOCK => Ok(Arc::new(Field::new(BLOCK, DataType::Int64, false))),
                name => own
                    .iter()
                    .find(|field| field.name() == name)
                    .cloned()
                    .ok_or_else(|| DataFusionError::Internal(format!("a segment has no column {name}"))),
            }
        };
        let scan = SCAN.iter().map(|name| field(name)).collect::<Result<Vec<_>>>()?;
        let facts = TABLE.iter().map(|(_, name)| field(name)).collect::<Result<Vec<_>>>()?;
        let table: Vec<Field> = TABLE
            .iter()
            .zip(&facts)
            .map(|((name, _), field)| match Part::of(name) {
                Some(part) => Field::new(*name, part.data_type(), true),
                None => field.as_ref().clone().with_name(*name),
            })
            .collect();
        let (file, constants) = scan.split_at(FILE_COLUMNS);
        Ok(Self {
            scan: TableSchema::builder(Arc::new(Schema::new(file.to_vec())))
                .with_table_partition_cols(constants.to_vec())
                .build(),
            table: Arc::new(Schema::new(table)),
            facts: Arc::new(Schema::new(facts)),
            snapshot,
            store,
            problems,
        })
    }

    /// The anchors whose records may pass `filters`. Those on the stream's name are the commonest, and select whole streams.
    fn entries(&self, state: &dyn Session, filters: &[Expr]) -> Result<(Vec<Arc<AnchorEntry>>, usize)> {
        let wanted = |name: &str| filters.iter().all(|filter| stream_named(filter).is_none_or(|only| only == name));
        let streams = self.snapshot.streams.iter().filter(|stream| wanted(&stream.definition.name));
        let anchors: Vec<_> = streams.flat_map(|stream| stream.anchors.iter().cloned()).collect();
        let all: usize = self.snapshot.streams.iter().map(|stream| stream.anchors.len()).sum();
        let facts = Facts::new(&anchors, |anchor| anchor.count > 0);
        let entries = facts.select(state, &self.facts, &about_facts(&TABLE, filters)?)?;
        let pruned = all.saturating_sub(entries.len());
        Ok((entries, pruned))
    }

    /// Makes the table's columns out of the scan's.
    fn projected(
        &self,
        state: &dyn Session,
        wanted: &[usize],
        columns: &[usize],
        scan: Arc<dyn ExecutionPlan>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = scan.schema();
        let expressions = wanted.iter().map(|column| {
            let (name, from) = TABLE[*column];
            let at = columns.iter().position(|column| *column == place(from)).unwrap_or_default();
            let source: Arc<dyn PhysicalExpr> = Arc::new(Column::new(from, at));
            let Some(part) = Part::of(name) else { return Ok((source, name.to_owned())) };
            let function = PublisherFunction::new(part, &self.snapshot);
            let options = Arc::clone(state.config().options());
            let function = Arc::new(ScalarUDF::new_from_impl(function));
            let computed = ScalarFunctionExpr::try_new(function, vec![source], &schema, options)?;
            let computed: Arc<dyn PhysicalExpr> = Arc::new(computed);
            Ok((computed, name.to_owned()))
        });
        let expressions = expressions.collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(ProjectionExec::try_new(expressions, scan)?))
    }
}

/// The stream that a filter `stream = 'name'` asks for.
fn stream_named(filter: &Expr) -> Option<&str> {
    use datafusion::logical_expr::Operator;
    let Expr::BinaryExpr(comparison) = filter else { return None };
    if comparison.op != Operator::Eq {
        return None;
    }
    match (comparison.left.as_ref(), comparison.right.as_ref()) {
        (Expr::Column(column), Expr::Literal(ScalarValue::Utf8(Some(name)), _))
        | (Expr::Literal(ScalarValue::Utf8(Some(name)), _), Expr::Column(column))
            if column.name == "stream" =>
        {
            Some(name)
        }
        _ => None,
    }
}

/// The scan's place of a column.
fn place(name: &str) -> usize {
    SCAN.iter().position(|column| *column == name).unwrap_or_default()
}

fn constants(entry: &AnchorEntry) -> Vec<ScalarValue> {
    let text = |text: String| ScalarValue::Utf8(Some(text));
    vec![
        text(entry.anchor.stream.clone()),
        ScalarValue::Int32(Some(signed32(entry.anchor.partition.0))),
        text(entry.id.to_string()),
        text(entry.anchor.schema_fingerprint.to_string()),
        ScalarValue::Int64(Some(signed(entry.height.0))),
    ]
}

#[async_trait]
impl TableProvider for RecordsTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.table)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = match projection {
            Some(projection) => projection.clone(),
            None => (0..TABLE.len()).collect(),
        };
        let output = project_schema(&self.table, Some(&wanted))?;
        let (entries, pruned) = self.entries(state, filters)?;
        let scope = StatementScope::of(state);
        let entries = shown(&scope, &self.store, &self.problems, entries, |entry| entry.anchor.count).await?;
        let file = |entry: Arc<AnchorEntry>| SegmentFile::new(&self.store, constants(&entry), entry);
        let files = entries.into_iter().map(file).collect::<Result<Vec<_>>>()?;
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(output)));
        }
        let mut columns: Vec<usize> = wanted.iter().map(|column| place(TABLE[*column].1)).collect();
        columns.sort_unstable();
        columns.dedup();
        let scan = SegmentScan {
            schema: &self.scan,
            files,
            projection: columns.clone(),
            defaults: Defaults::default(),
            limit: None,
            bounds: Bounds { offset: place(OFFSET), timestamp: place(TIMESTAMP), exact: false },
            pruned,
        }
        .plan(state, &self.store)?;
        self.projected(state, &wanted, &columns, scan)
    }
}

/// What is computed from a record's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Key,
    Sequence,
    Identity,
}

impl Part {
    fn of(column: &str) -> Option<Self> {
        match column {
            "publisher_key" => Some(Self::Key),
            "sequence" => Some(Self::Sequence),
            "publisher" => Some(Self::Identity),
            _ => None,
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Key | Self::Identity => DataType::Utf8,
            Self::Sequence => DataType::Int64,
        }
    }
}

/// Computes a part of who published records, from a column of their headers.
#[derive(Debug)]
struct PublisherFunction {
    part: Part,
    snapshot: Arc<Snapshot>,
    signature: Signature,
}

impl PublisherFunction {
    fn new(part: Part, snapshot: &Arc<Snapshot>) -> Self {
        Self { part, snapshot: Arc::clone(snapshot), signature: Signature::any(1, Volatility::Immutable) }
    }

    fn column(&self, headers: &ListArray) -> Result<ArrayRef> {
        let wrong = || DataFusionError::Internal("the headers of records are no list of names and values".to_owned());
        let items = headers.values().as_struct_opt().ok_or_else(wrong)?;
        let (names, values) = match items.columns() {
            [names, values] => (names.as_string_opt::<i32>(), values.as_binary_opt::<i32>()),
            _ => (None, None),
        };
        let (names, values) = (names.ok_or_else(wrong)?, values.ok_or_else(wrong)?);
        let offsets = headers.value_offsets();
        let header = |at: usize| (names.value(at), values.is_valid(at).then(|| values.value(at)));
        // Headers that are no signature's are those of a record that is quarantined for it: who published it is unknown.
        let signed_by = (0..headers.len()).map(|row| {
            let range = if headers.is_null(row) { 0..0 } else { offsets[row]..offsets[row + 1] };
            let range = range.filter_map(|at| usize::try_from(at).ok());
            SignedHeaders::read(range.map(header)).ok().flatten()
        });
        Ok(match self.part {
            Part::Key => Arc::new(signed_by.map(|by| by.map(|by| hex::encode(by.publisher))).collect::<StringArray>()),
            Part::Sequence => Arc::new(signed_by.map(|by| by.map(|by| signed(by.sequence))).collect::<Int64Array>()),
            Part::Identity => {
                let identity = |key: &[u8; 32]| self.snapshot.identity_of_key(key).map(|identity| identity.to_string());
                Arc::new(signed_by.map(|by| by.and_then(|by| identity(by.publisher))).collect::<StringArray>())
            }
        })
    }
}

impl PartialEq for PublisherFunction {
    fn eq(&self, other: &Self) -> bool {
        self.part == other.part && Arc::ptr_eq(&self.snapshot, &other.snapshot)
    }
}

impl Eq for PublisherFunction {}

impl Hash for PublisherFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.part.hash(state);
        Arc::as_ptr(&self.snapshot).hash(state);
    }
}

impl ScalarUDFImpl for PublisherFunction {
    fn name(&self) -> &'static str {
        match self.part {
            Part::Key => "publisher_key",
            Part::Sequence => "sequence",
            Part::Identity => "publisher",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.part.data_type())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let headers = arguments.args.first().map(|argument| argument.to_array(arguments.number_rows)).transpose()?;
        let headers = headers.as_ref().and_then(|headers| headers.as_list_opt::<i32>());
        let headers = headers.ok_or_else(|| DataFusionError::Internal("headers are a list".to_owned()))?;
        Ok(ColumnarValue::Array(self.column(headers)?))
    }
}
