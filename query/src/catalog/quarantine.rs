//! `cairn.quarantine`: the records that could not be decoded or authenticated, of all streams.
//!
//! They are read from the segments that hold them, through the verified store like everything else. The chain counts
//! them, so segments without any are never opened.
//!
//! | column | type | what |
//! | --- | --- | --- |
//! | `stream` | text | the stream |
//! | `partition` | int4 | the Kafka partition |
//! | `offset` | int8 | the record's offset |
//! | `timestamp` | timestamptz | Kafka's timestamp of the record |
//! | `key` | bytea | the record's key |
//! | `reason` | text | why it is quarantined |
//! | `value` | bytea | the record's value as it came; null for a record without one |
//! | `block` | int8 | the height of the block that finalized it |

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use cairn_anchor::schema::{ERROR, KEY, OFFSET, PARTITION, RAW, TIMESTAMP, own_columns};
use cairn_anchor::verified::VerifiedStore;
use cairn_chain_client::AnchorEntry;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column as LogicalColumn, Result, ScalarValue, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, IsNotNullExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;

use super::checked::shown;
use super::evolution::Defaults;
use super::facts::{BLOCK, Facts, signed, signed32};
use super::segments::{Bounds, SegmentFile, SegmentScan};
use crate::problems::Problems;
use crate::scope::StatementScope;

/// The scan's columns, in its order: file columns, then constants.
const SCAN: [&str; 8] = [OFFSET, TIMESTAMP, KEY, RAW, ERROR, "stream", PARTITION, BLOCK];
/// The table's columns and the scan's that each comes from.
const TABLE: [(&str, &str); 8] = [
    ("stream", "stream"),
    ("partition", PARTITION),
    ("offset", OFFSET),
    ("timestamp", TIMESTAMP),
    ("key", KEY),
    ("reason", ERROR),
    ("value", RAW),
    ("block", BLOCK),
];

/// The table of quarantined records at one height.
#[derive(Debug)]
pub(crate) struct QuarantineTable {
    scan: TableSchema,
    table: SchemaRef,
    /// The table's own columns under the names that anchors' facts go by.
    facts: SchemaRef,
    anchors: Arc<[Arc<AnchorEntry>]>,
    store: VerifiedStore,
    problems: Arc<Problems>,
}

impl QuarantineTable {
    /// Over those of `anchors` that quarantine something.
    pub(crate) fn new(anchors: Arc<[Arc<AnchorEntry>]>, store: VerifiedStore, problems: Arc<Problems>) -> Result<Self> {
        let own = own_columns();
        let field = |name: &str| -> Result<Arc<Field>> {
            match name {
                "stream" => Ok(Arc::new(Field::new("stream", DataType::Utf8, false))),
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
        let table: Vec<Field> =
            TABLE.iter().zip(&facts).map(|((name, _), field)| field.as_ref().clone().with_name(*name)).collect();
        let (file, constants) = scan.split_at(5);
        Ok(Self {
            scan: TableSchema::builder(Arc::new(Schema::new(file.to_vec())))
                .with_table_partition_cols(constants.to_vec())
                .build(),
            table: Arc::new(Schema::new(table)),
            facts: Arc::new(Schema::new(facts)),
            anchors,
            store,
            problems,
        })
    }
}

/// `filters` over the columns of `table` under the names that anchors' facts go by.
pub(super) fn about_facts(table: &[(&str, &str)], filters: &[Expr]) -> Result<Vec<Expr>> {
    filters
        .iter()
        .map(|filter| {
            let renamed = filter.clone().transform(|expression| {
                Ok(match expression {
                    Expr::Column(column) => {
                        let name = table
                            .iter()
                            .find(|(table, _)| *table == column.name)
                            .map_or(column.name.clone(), |(_, scan)| (*scan).to_owned());
                        Transformed::yes(Expr::Column(LogicalColumn::new_unqualified(name)))
                    }
                    other => Transformed::no(other),
                })
            })?;
            Ok(renamed.data)
        })
        .collect()
}

/// The scan's place of a column.
fn place(name: &str) -> usize {
    SCAN.iter().position(|column| *column == name).unwrap_or_default()
}

#[async_trait]
impl TableProvider for QuarantineTable {
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
        let facts = Facts::new(&self.anchors, |anchor| anchor.quarantined > 0);
        let entries = facts.select(state, &self.facts, &about_facts(&TABLE, filters)?)?;
        let pruned = facts.known().saturating_sub(entries.len());
        let scope = StatementScope::of(state);
        let entries = shown(&scope, &self.store, &self.problems, entries, |entry| entry.anchor.quarantined).await?;
        let file = |entry: Arc<AnchorEntry>| {
            let constants = vec![
                ScalarValue::Utf8(Some(entry.anchor.stream.clone())),
                ScalarValue::Int32(Some(signed32(entry.anchor.partition.0))),
                ScalarValue::Int64(Some(signed(entry.height.0))),
            ];
            SegmentFile::new(&self.store, constants, entry)
        };
        let files = entries.into_iter().map(file).collect::<Result<Vec<_>>>()?;
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(output)));
        }
        let mut columns: Vec<usize> = wanted.iter().map(|column| place(TABLE[*column].1)).collect();
        columns.push(place(ERROR));
        let scan = SegmentScan {
            schema: &self.scan,
            files,
            projection: columns,
            defaults: Defaults::default(),
            limit: None,
            bounds: Bounds { offset: place(OFFSET), timestamp: place(TIMESTAMP), exact: false },
            pruned,
        }
        .plan(state, &self.store)?;
        let error: Arc<dyn PhysicalExpr> = Arc::new(Column::new(ERROR, wanted.len()));
        let quarantined = Arc::new(FilterExec::try_new(Arc::new(IsNotNullExpr::new(error)), scan)?);
        let renamed = wanted.iter().enumerate().map(|(at, column)| {
            let (table, scan) = TABLE[*column];
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(scan, at));
            (column, table.to_owned())
        });
        Ok(Arc::new(ProjectionExec::try_new(renamed.collect::<Vec<_>>(), quarantined)?))
    }
}
