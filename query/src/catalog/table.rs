//! A stream as a table.
//!
//! Columns: those of the stream's schema, then `_partition`, `_offset`, `_timestamp`, `_block` and `_verified`. Rows: the
//! records that are not quarantined. Most segments hold none that is; their rows are the table's rows, with exact counts and
//! bounds, and a limit may be pushed into the scan. A segment with quarantined records is read with its `_error`
//! column, filtered, and nothing of it is exact before the filter. The two kinds are scanned side by side:
//!
//! ```text
//!                 Union
//!            ┌──────┴────────────┐
//!   scan (none quarantined)   Projection (without _error)
//!                                └ Filter (_error IS NULL)
//!                                    └ scan (some quarantined)
//! ```
//!
//! `_verified` is true for each row that a scan gives, for a scan gives no other. A statement that asked for it
//! (`cairn.on_unverified`) goes on without segments that do not verify ([`super::checked`]), or gets what can be read of
//! them as a third input of the union, from memory, with `_verified = false` ([`super::unverified`]).

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use cairn_anchor::schema::{ERROR, OFFSET, PARTITION, TIMESTAMP, own_columns};
use cairn_anchor::verified::VerifiedStore;
use cairn_chain_client::AnchorEntry;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result, ScalarValue, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, IsNullExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;

use super::checked::{Sorted, sort_out};
use super::evolution::Defaults;
use super::facts::{BLOCK, Facts, decided_by_facts, signed, signed32, valid_records};
use super::segments::{Bounds, SegmentFile, SegmentScan};
use super::unverified::{Shape, readable, with_constants};
use crate::problems::{Problem, Problems};
use crate::scope::{OnUnverified, StatementScope};

/// Whether a row's bytes were verified, as a column.
const VERIFIED: &str = "_verified";

/// The columns of a stream's table and where they come from.
#[derive(Debug, Clone)]
pub(crate) struct StreamColumns {
    /// What SQL sees.
    table: SchemaRef,
    /// What a scan produces: file columns (the schema's, `_offset`, `_timestamp`, `_error`), then the constants.
    scan: TableSchema,
    /// For each column of the table, where it stands in the scan.
    place: Vec<usize>,
    error: usize,
    bounds: (usize, usize),
    /// What stands in columns that a segment of an older schema does not have.
    defaults: Defaults,
}

impl StreamColumns {
    /// From the columns of the stream's newest schema, and what stands for them in segments that do not have them.
    pub(crate) fn new(values: &Schema, defaults: Defaults) -> Result<Self> {
        let own = own_columns();
        let find = |name: &str| {
            own.iter()
                .find(|field| field.name() == name)
                .cloned()
                .ok_or_else(|| DataFusionError::Internal(format!("a segment has no column {name}")))
        };
        let (partition, offset, timestamp, error) = (find(PARTITION)?, find(OFFSET)?, find(TIMESTAMP)?, find(ERROR)?);
        let block = Arc::new(Field::new(BLOCK, DataType::Int64, false));
        let verified = Arc::new(Field::new(VERIFIED, DataType::Boolean, false));
        let values: Vec<_> = values.fields().iter().cloned().collect();
        let count = values.len();
        let file: Vec<_> = values.iter().cloned().chain([offset.clone(), timestamp.clone(), error]).collect();
        let scan = TableSchema::builder(Arc::new(Schema::new(file)))
            .with_table_partition_cols(vec![Arc::clone(&partition), Arc::clone(&block), Arc::clone(&verified)])
            .build();
        let table: Vec<_> = values.into_iter().chain([partition, offset, timestamp, block, verified]).collect();
        // Scan: values, _offset, _timestamp, _error, _partition, _block, _verified.
        let place = (0..count).chain([count + 3, count, count + 1, count + 4, count + 5]).collect();
        let (table, bounds) = (Arc::new(Schema::new(table)), (count, count + 1));
        Ok(Self { table, scan, place, error: count + 2, bounds, defaults })
    }
}

impl StreamColumns {
    fn shape(&self) -> Shape {
        Shape { columns: Arc::clone(self.scan.file_schema()), defaults: self.defaults.clone() }
    }
}

/// The table of one stream at one height.
#[derive(Debug)]
pub(crate) struct StreamTable {
    pub(crate) columns: Arc<StreamColumns>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) store: VerifiedStore,
    pub(crate) problems: Arc<Problems>,
}

/// The constants of an anchor's rows, in the order of the scan's.
fn constants(entry: &AnchorEntry, verified: bool) -> Vec<ScalarValue> {
    vec![
        ScalarValue::Int32(Some(signed32(entry.anchor.partition.0))),
        ScalarValue::Int64(Some(signed(entry.height.0))),
        ScalarValue::Boolean(Some(verified)),
    ]
}

/// What a scan is asked for, besides its segments.
struct Asked<'a> {
    state: &'a dyn Session,
    projection: Vec<usize>,
    limit: Option<usize>,
    pruned: usize,
}

impl StreamTable {
    fn scan_of(&self, asked: Asked<'_>, entries: Vec<Arc<AnchorEntry>>, exact: bool) -> Result<Arc<dyn ExecutionPlan>> {
        let file = |entry: Arc<AnchorEntry>| SegmentFile::new(&self.store, constants(&entry, true), entry);
        let files = entries.into_iter().map(file).collect::<Result<Vec<_>>>()?;
        let (offset, timestamp) = self.columns.bounds;
        SegmentScan {
            schema: &self.columns.scan,
            files,
            projection: asked.projection,
            defaults: self.columns.defaults.clone(),
            limit: asked.limit,
            bounds: Bounds { offset, timestamp, exact },
            pruned: asked.pruned,
        }
        .plan(asked.state, &self.store)
    }

    /// Scans segments that hold quarantined records, without those records.
    fn filtered_scan(&self, asked: Asked<'_>, entries: Vec<Arc<AnchorEntry>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Asked { state, projection, limit: _, pruned } = asked;
        let with_error: Vec<usize> = projection.iter().copied().chain([self.columns.error]).collect();
        let scan = self.scan_of(Asked { state, projection: with_error, limit: None, pruned }, entries, false)?;
        let error: Arc<dyn PhysicalExpr> = Arc::new(Column::new(ERROR, projection.len()));
        let valid = Arc::new(FilterExec::try_new(Arc::new(IsNullExpr::new(error)), scan)?);
        let schema = valid.schema();
        let kept = (0..projection.len()).map(|at| {
            let name = schema.field(at).name().clone();
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(&name, at));
            (column, name)
        });
        Ok(Arc::new(ProjectionExec::try_new(kept.collect::<Vec<_>>(), valid)?))
    }

    /// What can be read of segments that do not verify, each row marked so; the rest is left out, and said to be.
    async fn flagged(
        &self,
        scope: &Arc<StatementScope>,
        broken: Vec<(Arc<AnchorEntry>, Problem)>,
        places: &[usize],
        output: &SchemaRef,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let mut rows = Vec::new();
        for (entry, problem) in broken {
            let found = match scope.on_unverified {
                OnUnverified::Flag => readable(&self.store, &entry, &self.columns.shape(), scope).await,
                OnUnverified::Refuse | OnUnverified::Exclude => None,
            };
            let Some(found) = found else {
                scope.left_out(&problem, valid_records(&entry.anchor));
                continue;
            };
            scope.flagged(&problem);
            let constants = constants(&entry, false);
            for batch in found {
                rows.push(with_constants(&batch, &constants, output, places)?);
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        Ok(Some(MemorySourceConfig::try_new_exec(&[rows], Arc::clone(output), None)?))
    }
}

/// The first segments that together hold at least `limit` rows.
fn enough(entries: &mut Vec<Arc<AnchorEntry>>, limit: usize) {
    let mut rows = 0_u64;
    let wanted = limit as u64;
    let needed = entries
        .iter()
        .take_while(|entry| {
            let more = rows < wanted;
            rows = rows.saturating_add(valid_records(&entry.anchor));
            more
        })
        .count();
    entries.truncate(needed);
}

#[async_trait]
impl TableProvider for StreamTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns.table)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters
            .iter()
            .map(|filter| {
                if decided_by_facts(filter) {
                    TableProviderFilterPushDown::Exact
                } else {
                    TableProviderFilterPushDown::Inexact
                }
            })
            .collect())
    }

    /// `limit` comes only when every filter is decided exactly by the anchors' facts (DataFusion's contract), so the
    /// first segments with enough valid rows suffice.
    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = match projection {
            Some(projection) => projection.clone(),
            None => (0..self.columns.table.fields().len()).collect(),
        };
        let output = project_schema(&self.columns.table, Some(&wanted))?;
        let places: Vec<usize> = wanted.iter().map(|column| self.columns.place[*column]).collect();
        let entries = self.facts.select(state, &self.columns.table, filters)?;
        let limit = limit.filter(|_| filters.iter().all(decided_by_facts));
        let pruned = self.facts.known().saturating_sub(entries.len());
        let scope = StatementScope::of(state);
        let Sorted { mut sound, broken } = match scope.on_unverified {
            OnUnverified::Refuse => Sorted { sound: entries, broken: Vec::new() },
            OnUnverified::Exclude | OnUnverified::Flag => {
                sort_out(&scope.observing(&self.store), &self.problems, entries, limit).await?
            }
        };
        if let Some(limit) = limit {
            enough(&mut sound, limit);
        }
        let (clean, mixed): (Vec<_>, Vec<_>) = sound.into_iter().partition(|entry| entry.anchor.quarantined == 0);
        let mut plans: Vec<Arc<dyn ExecutionPlan>> = Vec::with_capacity(3);
        if !clean.is_empty() {
            let asked = Asked { state, projection: places.clone(), limit, pruned };
            plans.push(self.scan_of(asked, clean, true)?);
        }
        if !mixed.is_empty() {
            // What was ruled out is told once.
            let pruned = if plans.is_empty() { pruned } else { 0 };
            let asked = Asked { state, projection: places.clone(), limit: None, pruned };
            plans.push(self.filtered_scan(asked, mixed)?);
        }
        plans.extend(self.flagged(&scope, broken, &places, &output).await?);
        match plans.len() {
            0 => Ok(Arc::new(EmptyExec::new(output))),
            1 => Ok(plans.swap_remove(0)),
            _ => UnionExec::try_new(plans),
        }
    }
}
