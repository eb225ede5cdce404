//! Where statements run: threads of their own, and a way to stop them.
//!
//! A statement may keep a thread busy for long without coming up for air: a join of two large tables that matches
//! nothing asks its inputs for nothing either. On the threads of the process that would hold up everything else, the
//! chain included, so statements have a runtime of their own. And since such a task cannot be aborted from outside, its
//! plan carries a [`Guard`] that joins ask between batches: when the time is over or the client is gone, they fail.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// The stack of a statement's thread: planning recurses over expressions.
const STACK_BYTES: usize = 8 * 1024 * 1024;
/// Threads for reading and hashing files, at most.
const BLOCKING_THREADS_MAX: usize = 64;

/// The runtime of statements.
#[derive(Debug)]
pub(crate) struct Executor(Option<Runtime>);

impl Executor {
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_stack_size(STACK_BYTES)
            .thread_name("cairn-query")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Starts work; it is aborted when the handle is dropped.
    ///
    /// None only while the engine is being dropped.
    pub(crate) fn spawn<F>(&self, work: F) -> Option<Running<F::Output>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.0.as_ref().map(|runtime| Running(runtime.spawn(work)))
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting for the threads would block whoever drops the engine, which may be a task.
            runtime.shutdown_background();
        }
    }
}

/// Work that was started.
#[derive(Debug)]
pub(crate) struct Running<T>(JoinHandle<T>);

impl<T> Running<T> {
    pub(crate) async fn finished(&mut self) -> std::result::Result<T, tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells the parts of a plan whether they should go on.
#[derive(Debug)]
pub(crate) struct Guard {
    stopped: AtomicBool,
    deadline: Instant,
}

impl Guard {
    pub(crate) fn new(deadline: Instant) -> Arc<Self> {
        Arc::new(Self { stopped: AtomicBool::new(false), deadline })
    }

    /// Nobody wants the rows any more.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<()> {
        if self.stopped.load(Ordering::Relaxed) || Instant::now() > self.deadline {
            return Err(DataFusionError::Execution("the statement was stopped".to_owned()));
        }
        Ok(())
    }
}

/// Puts the guard where a plan can be busy for long between two batches: on joins and whatever else makes many rows
/// out of few, and into the conditions of nested loops.
pub(crate) fn guarded(plan: Arc<dyn ExecutionPlan>, guard: &Arc<Guard>) -> Result<Arc<dyn ExecutionPlan>> {
    let guarded = plan.transform_up(|node| {
        let multiplies = node.children().len() > 1 || matches!(node.name(), "UnnestExec" | "RecursiveQueryExec");
        if !multiplies {
            return Ok(Transformed::no(node));
        }
        let node = match node.downcast_ref::<NestedLoopJoinExec>() {
            Some(join) => guarded_loop(join, guard)?.unwrap_or(node),
            None => node,
        };
        Ok(Transformed::yes(Arc::new(GuardExec::new(node, Arc::clone(guard)))))
    })?;
    Ok(guarded.data)
}

fn guarded_loop(join: &NestedLoopJoinExec, guard: &Arc<Guard>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(filter) = join.filter() else {
        return Ok(None);
    };
    let expression: Arc<dyn PhysicalExpr> =
        Arc::new(GuardedCondition { condition: Arc::clone(filter.expression()), guard: Arc::clone(guard) });
    let filter = JoinFilter::new(expression, filter.column_indices().to_vec(), Arc::clone(filter.schema()));
    let join = NestedLoopJoinExecBuilder::from(join).with_filter(Some(filter)).build()?;
    Ok(Some(Arc::new(join)))
}

/// Passes batches on, asks the guard before each, and lets other tasks run in between.
#[derive(Debug)]
struct GuardExec {
    input: Arc<dyn ExecutionPlan>,
    guard: Arc<Guard>,
    properties: Arc<PlanProperties>,
}

impl GuardExec {
    fn new(input: Arc<dyn ExecutionPlan>, guard: Arc<Guard>) -> Self {
        let properties = PlanProperties::clone(input.properties()).with_scheduling_type(SchedulingType::Cooperative);
        Self { input, guard, properties: Arc::new(properties) }
    }
}

impl DisplayAs for GuardExec {
    fn fmt_as(&self, _kind: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("GuardExec")
    }
}

impl ExecutionPlan for GuardExec {
    fn name(&self) -> &'static str {
        "GuardExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
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
            (Some(input), true) => Ok(Arc::new(Self::new(input, Arc::clone(&self.guard)))),
            _ => Err(DataFusionError::Internal("a guard has one input".to_owned())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = make_cooperative(self.input.execute(partition, context)?);
        let schema = input.schema();
        let guard = Arc::clone(&self.guard);
        let checked = input.map(move |batch| guard.check().and(batch));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, checked)))
    }
}

/// A condition that fails once the guard says so.
#[derive(Debug)]
struct GuardedCondition {
    condition: Arc<dyn PhysicalExpr>,
    guard: Arc<Guard>,
}

impl PartialEq for GuardedCondition {
    fn eq(&self, other: &Self) -> bool {
        self.condition.eq(&other.condition) && Arc::ptr_eq(&self.guard, &other.guard)
    }
}

impl Eq for GuardedCondition {}

impl Hash for GuardedCondition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

impl fmt::Display for GuardedCondition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(formatter)
    }
}

impl PhysicalExpr for GuardedCondition {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.condition.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.condition.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.guard.check()?;
        self.condition.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match (children.pop(), children.is_empty()) {
            (Some(condition), true) => Ok(Arc::new(Self { condition, guard: Arc::clone(&self.guard) })),
            _ => Err(DataFusionError::Internal("a guarded condition has one part".to_owned())),
        }
    }

    fn fmt_sql(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(formatter)
    }
}

/// What a task died of, for an error message.
pub(crate) fn panic_text(error: tokio::task::JoinError) -> String {
    if !error.is_panic() {
        return "the statement's task was aborted".to_owned();
    }
    let payload: Box<dyn Any + Send> = error.into_panic();
    let text = payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown".to_owned());
    format!("the statement's task panicked: {text}")
}
