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

/// What the anchors of a table say about their segments, in columns: filters are decided over all of them at once, and
/// only the anchors that are left are looked at. Made once a height, since 100,000 anchors lie all over memory.
#[derive(Debug)]
pub(crate) struct Facts {
    /// In the order of partition and offset.
    entries: Vec<Arc<AnchorEntry>>,
    /// How many anchors there were, those that hold no row of the table included.
    known: usize,
    partitions: ArrayRef,
    blocks: ArrayRef,
    first: ArrayRef,
    last: ArrayRef,
    earliest: ArrayRef,
    latest: ArrayRef,
    records: ArrayRef,
    nulls: ArrayRef,
}

impl Facts {
    /// Of those `anchors` that have rows of the table.
    pub(crate) fn new(anchors: &[Arc<AnchorEntry>], has_rows: impl Fn(&Anchor) -> bool) -> Self {
        let mut entries: Vec<_> = anchors.iter().filter(|entry| has_rows(&entry.anchor)).cloned().collect();
        entries.sort_by_key(|entry| (entry.anchor.partition, entry.anchor.first));
        let offsets = |of: fn(&Anchor) -> Offset| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(entries.iter().map(|entry| signed(of(&entry.anchor).0))))
        };
        let times = |of: fn(&Anchor) -> i64| -> ArrayRef {
            let times = TimestampMillisecondArray::from_iter_values(entries.iter().map(|entry| of(&entry.anchor)));
            Arc::new(times.with_timezone(UTC))
        };
        let partitions = Int32Array::from_iter_values(entries.iter().map(|entry| signed32(entry.anchor.partition.0)));
        let blocks = Int64Array::from_iter_values(entries.iter().map(|entry| signed(entry.height.0)));
        Self {
            known: anchors.len(),
            partitions: Arc::new(partitions),
            blocks: Arc::new(blocks),
            first: offsets(|anchor| anchor.first),
            last: offsets(|anchor| anchor.last),
            earliest: times(|anchor| anchor.timestamp_min_ms),
            latest: times(|anchor| anchor.timestamp_max_ms),
            records: Arc::new(UInt64Array::from_iter_values(entries.iter().map(|entry| entry.anchor.count))),
            nulls: Arc::new(UInt64Array::from(vec![0_u64; entries.len()])),
            entries,
        }
    }

    /// How many anchors there were, those that hold no row of the table included.
    pub(crate) fn known(&self) -> usize {
        self.known
    }

    /// The anchors whose segments may hold rows that pass `filters`, in the order of partition and offset.
    ///
    /// Filters that [`decided_by_facts`] accepts are applied exactly.
    pub(crate) fn select(
        &self,
        state: &dyn Session,
        table: &SchemaRef,
        filters: &[Expr],
    ) -> Result<Vec<Arc<AnchorEntry>>> {
        let (exact, bounded): (Vec<_>, Vec<_>) = filters.iter().cloned().partition(decided_by_facts);
        let exact = conjunction(exact).map(|filter| self.decide(state, filter)).transpose()?;
        let bounded: Vec<Expr> = bounded.into_iter().filter(bounded_by_facts).collect();
        let bounded = match conjunction(bounded) {
            Some(filter) => self.prune(state, table, filter)?,
            None => None,
        };
        let decided = |at: usize| exact.as_ref().is_none_or(|mask| mask.is_valid(at) && mask.value(at));
        let within = |at: usize| bounded.as_ref().is_none_or(|mask| mask.get(at).copied().unwrap_or(true));
        let kept = self.entries.iter().enumerate().filter(|(at, _)| decided(*at) && within(*at));
        Ok(kept.map(|(_, entry)| Arc::clone(entry)).collect())
    }

    /// Evaluates a filter over `_partition` and `_block` for each anchor.
    ///
    /// An evaluation that fails (an overflow, say) fails the statement, as it would for each row of the segment.
    fn decide(&self, state: &dyn Session, filter: Expr) -> Result<BooleanArray> {
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new(PARTITION, DataType::Int32, false),
            Field::new(BLOCK, DataType::Int64, false),
        ]));
        let filter = state.create_physical_expr(unqualified(filter)?, &DFSchema::try_from(Arc::clone(&schema))?)?;
        let batch = RecordBatch::try_new(schema, vec![Arc::clone(&self.partitions), Arc::clone(&self.blocks)])?;
        let decided = filter.evaluate(&batch)?.into_array(self.entries.len())?;
        Ok(as_boolean_array(&decided)?.clone())
    }

    /// Which segments a filter cannot rule out; none, if it is not one that pruning can use. Rows are filtered later.
    fn prune(&self, state: &dyn Session, table: &SchemaRef, filter: Expr) -> Result<Option<Vec<bool>>> {
        let schema = DFSchema::try_from(Arc::clone(table))?;
        let filter = state.create_physical_expr(filter, &schema)?;
        let predicate = PruningPredicateBuilder::new().with_file_schema(Arc::clone(table)).build(filter);
        predicate.map(|predicate| predicate.prune(self)).transpose()
    }
}

fn bounded_by_facts(filter: &Expr) -> bool {
    let facts: BTreeSet<&str> = BTreeSet::from([PARTITION, OFFSET, TIMESTAMP, BLOCK]);
    filter.column_refs().iter().any(|column| facts.contains(column.name.as_str()))
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

impl PruningStatistics for Facts {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name.as_str() {
            PARTITION => Some(Arc::clone(&self.partitions)),
            BLOCK => Some(Arc::clone(&self.blocks)),
            OFFSET => Some(Arc::clone(&self.first)),
            TIMESTAMP => Some(Arc::clone(&self.earliest)),
            _ => None,
        }
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        match column.name.as_str() {
            PARTITION => Some(Arc::clone(&self.partitions)),
            BLOCK => Some(Arc::clone(&self.blocks)),
            OFFSET => Some(Arc::clone(&self.last)),
            TIMESTAMP => Some(Arc::clone(&self.latest)),
            _ => None,
        }
    }

    fn num_containers(&self) -> usize {
        self.entries.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        matches!(column.name.as_str(), PARTITION | BLOCK | OFFSET | TIMESTAMP).then(|| Arc::clone(&self.nulls))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::clone(&self.records))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
