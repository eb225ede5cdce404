//! What anchors say about their segments, in the form that pruning understands.
//!
//! An anchor names partition, offsets, times and block of its records. A filter on those columns rules segments out
//! before any file is opened. Two ways, for two strengths of fact:
//!
//! - `_partition` and `_block` have one value a segment: a filter on them alone is decided here, exactly, and need not
//!   be evaluated again row by row;
//! - `_offset` and `_timestamp` have bounds: a segment outside of them is skipped, the rest is filtered by row.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, TimestampMillisecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use cairn_anchor::schema::{OFFSET, PARTITION, TIMESTAMP, UTC};
use cairn_chain_client::AnchorEntry;
use cairn_proof::statement::Anchor;
use cairn_proof::units::Offset;
use datafusion::catalog::Session;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;

/// The height of the block that finalized a record, as a column.
pub(crate) const BLOCK: &str = "_block";

/// A number of the chain as SQL's signed integer; the chain keeps offsets below 2^63 and heights never get there.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A partition's number as SQL's signed integer; the chain allows 4,096 partitions.
pub(crate) fn signed32(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// How many records of an anchor are rows of the stream's table.
pub(crate) fn valid_records(anchor: &Anchor) -> u64 {
    anchor.count.saturating_sub(anchor.quarantined)
}

/// The offsets of an anchor's first and last record; an anchor may begin or end with a gap.
pub(crate) fn record_offsets(anchor: &Anchor) -> Option<(Offset, Offset)> {
    if anchor.count == 0 {
        return None;
    }
    let (mut first, mut last) = (anchor.first, anchor.last);
    for gap in &anchor.gaps {
        if gap.first == first {
            first = gap.last.next();
        }
    }
    for gap in anchor.gaps.iter().rev() {
        if gap.last == last {
            last = Offset(gap.first.0.saturating_sub(1));
        }
    }
    Some((first, last))
}

/// True for a filter that the facts decide exactly: over `_partition` and `_block`, and nothing that can vary.
pub(crate) fn decided_by_facts(filter: &Expr) -> bool {
    let mut columns = 0_usize;
    let mut decided = true;
    let walked = filter.apply(|expression| {
        match expression {
            Expr::Column(column) => {
                columns += 1;
                decided &= matches!(column.name.as_str(), PARTITION | BLOCK);
            }
            Expr::ScalarFunction(function) => {
                decided &= function.func.signature().volatility == Volatility::Immutable;
            }
            Expr::Literal(..)
            | Expr::Alias(_)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Negative(_)
            | Expr::Between(_)
            | Expr::BinaryExpr(_)
            | Expr::InList(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::Case(_) => {}
            _ => decided = false,
        }
        Ok(if decided { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.is_ok() && decided && columns > 0
}

/// The anchors whose segments may hold rows that pass `filters`, in the order of partition and offset.
///
/// Filters that [`decided_by_facts`] accepts are applied exactly.
pub(crate) fn select(
    state: &dyn Session,
    table: &SchemaRef,
    anchors: &[Arc<AnchorEntry>],
    filters: &[Expr],
) -> Result<Vec<Arc<AnchorEntry>>> {
    let (exact, bounded): (Vec<_>, Vec<_>) = filters.iter().cloned().partition(decided_by_facts);
    let mut kept: Vec<Arc<AnchorEntry>> = anchors.to_vec();
    if let Some(filter) = conjunction(exact) {
        let mask = decide(state, filter, &kept)?;
        let mut at = 0..;
        kept.retain(|_| at.next().is_some_and(|at| mask.is_valid(at) && mask.value(at)));
    }
    let bounded: Vec<Expr> = bounded.into_iter().filter(bounded_by_facts).collect();
    if let Some(filter) = conjunction(bounded) {
        let schema = DFSchema::try_from(Arc::clone(table))?;
        let filter = state.create_physical_expr(filter, &schema)?;
        // A filter that pruning cannot use rules nothing out; rows are filtered later in any case.
        if let Some(predicate) = PruningPredicateBuilder::new().with_file_schema(Arc::clone(table)).build(filter) {
            let mask = predicate.prune(&AnchorFacts(&kept))?;
            let mut mask = mask.into_iter();
            kept.retain(|_| mask.next().unwrap_or(true));
        }
    }
    kept.sort_unstable_by_key(|entry| (entry.anchor.partition, entry.anchor.first));
    Ok(kept)
}

fn bounded_by_facts(filter: &Expr) -> bool {
    let facts: BTreeSet<&str> = BTreeSet::from([PARTITION, OFFSET, TIMESTAMP, BLOCK]);
    filter.column_refs().iter().any(|column| facts.contains(column.name.as_str()))
}

/// Evaluates a filter over `_partition` and `_block` for each anchor.
///
/// An evaluation that fails (an overflow, say) fails the statement, as it would for each row of the segment.
fn decide(state: &dyn Session, filter: Expr, anchors: &[Arc<AnchorEntry>]) -> Result<BooleanArray> {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new(PARTITION, DataType::Int32, false),
        Field::new(BLOCK, DataType::Int64, false),
    ]));
    let filter = state.create_physical_expr(unqualified(filter)?, &DFSchema::try_from(Arc::clone(&schema))?)?;
    let columns: Vec<ArrayRef> = vec![partitions(anchors), blocks(anchors)];
    let batch = RecordBatch::try_new(schema, columns)?;
    let decided = filter.evaluate(&batch)?.into_array(anchors.len())?;
    Ok(as_boolean_array(&decided)?.clone())
}

fn unqualified(filter: Expr) -> Result<Expr> {
    Ok(filter
        .transform(|expression| {
            Ok(match expression {
                Expr::Column(column) => Transformed::yes(Expr::Column(Column::new_unqualified(column.name))),
                other => Transformed::no(other),
            })
        })?
        .data)
}

fn partitions(anchors: &[Arc<AnchorEntry>]) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(anchors.iter().map(|entry| signed32(entry.anchor.partition.0))))
}

fn blocks(anchors: &[Arc<AnchorEntry>]) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(anchors.iter().map(|entry| signed(entry.height.0))))
}

/// The facts of a list of anchors, one container each.
struct AnchorFacts<'a>(&'a [Arc<AnchorEntry>]);

impl AnchorFacts<'_> {
    fn offsets(&self, of: impl Fn(&Anchor) -> Offset) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(self.0.iter().map(|entry| signed(of(&entry.anchor).0))))
    }

    fn times(&self, of: impl Fn(&Anchor) -> i64) -> ArrayRef {
        let times = TimestampMillisecondArray::from_iter_values(self.0.iter().map(|entry| of(&entry.anchor)));
        Arc::new(times.with_timezone(UTC))
    }
}

impl PruningStatistics for AnchorFacts<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name.as_str() {
            PARTITION => Some(partitions(self.0)),
            BLOCK => Some(blocks(self.0)),
            OFFSET => Some(self.offsets(|anchor| anchor.first)),
            TIMESTAMP => Some(self.times(|anchor| anchor.timestamp_min_ms)),
            _ => None,
        }
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name.as_str() {
            PARTITION => Some(partitions(self.0)),
            BLOCK => Some(blocks(self.0)),
            OFFSET => Some(self.offsets(|anchor| anchor.last)),
            TIMESTAMP => Some(self.times(|anchor| anchor.timestamp_max_ms)),
            _ => None,
        }
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        matches!(column.name.as_str(), PARTITION | BLOCK | OFFSET | TIMESTAMP)
            .then(|| Arc::new(UInt64Array::from(vec![0_u64; self.0.len()])) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(self.0.iter().map(|entry| entry.anchor.count))))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
