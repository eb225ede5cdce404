//! Inputs that lie side by side, read one after the other.
//!
//! The engine merges the partitions of a union in whatever order their batches arrive. That is as good as any order, until
//! somebody wants to compute the same answer again: which rows a `LIMIT` takes, and the last bits of a sum of floats,
//! depend on it.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties as _, Partitioning, PlanProperties,
    SendableRecordBatchStream,
};
use futures::{StreamExt as _, TryStreamExt as _};

/// `plan`, with one partition wherever several would come side by side.
///
/// From below: what stands above has one input to read, so nothing in it waits for a partition that is not its turn yet, as
/// a join that gathers bounds from all its partitions would.
pub(crate) fn in_order(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let ordered = plan.transform_up(|node| {
        if node.output_partitioning().partition_count() <= 1 {
            return Ok(Transformed::no(node));
        }
        let read: Arc<dyn ExecutionPlan> = Arc::new(InOrderExec::new(node));
        Ok(Transformed::yes(read))
    })?;
    Ok(ordered.data)
}

/// Reads the partitions of its input one after the other.
#[derive(Debug)]
struct InOrderExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl InOrderExec {
    fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let of = input.properties();
        // What is in order within each partition is not in order over all of them.
        let mut equivalences = of.equivalence_properties().clone();
        equivalences.clear_orderings();
        let properties = PlanProperties::clone(of)
            .with_eq_properties(equivalences)
            .with_partitioning(Partitioning::UnknownPartitioning(1));
        Self { input, properties: Arc::new(properties) }
    }
}

impl DisplayAs for InOrderExec {
    fn fmt_as(&self, _kind: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("InOrderExec")
    }
}

impl ExecutionPlan for InOrderExec {
    fn name(&self) -> &'static str {
        "InOrderExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _apply: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(input))),
            _ => internal_err!("reading in order has one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("reading in order has one partition, not {partition}");
        }
        let (input, schema) = (Arc::clone(&self.input), self.input.schema());
        let partitions = input.output_partitioning().partition_count();
        let streams = futures::stream::iter(0..partitions).map(move |at| input.execute(at, Arc::clone(&context)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, streams.try_flatten())))
    }
}
