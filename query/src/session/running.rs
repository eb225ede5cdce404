//! A statement that runs: its rows come from the threads of statements, within its time and what it may hand out.
//!
//! ```text
//! threads of statements: plan ─▶ batches ─▶ hashed, where evidence is asked for ─▶ channel ─▶ the client's task
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array as _, ArrayRef, RecordBatch};
use cairn_proof::answer::rows::RowsHash;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream, execute_stream};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout_at;

use crate::catalog::HeightCatalog;
use crate::classify::classify;
use crate::clock::StatementClock;
use crate::config::QueryConfig;
use crate::engine::Engine;
use crate::error::{QueryError, QueryErrorKind, Result, SqlState};
use crate::evidence::{Hashing, Pending};
use crate::executor::{Guard, Running, panic_text};

/// How many batches a statement may be ahead of its reader.
const BATCHES_AHEAD: usize = 2;

/// A plan that is ready, and what it runs under.
pub(super) struct Ready {
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) context: Arc<TaskContext>,
    pub(super) guard: Arc<Guard>,
    pub(super) deadline: Deadline,
    pub(super) catalog: Arc<HeightCatalog>,
    pub(super) clock: StatementClock,
    pub(super) turn: OwnedSemaphorePermit,
    pub(super) evidence: Option<Pending>,
}

impl Ready {
    /// Starts it.
    pub(super) fn start(self, engine: &Engine) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let Self { plan, context, guard, deadline, catalog, clock, turn, evidence } = self;
        let hashing = evidence.as_ref().map(|pending| pending.hashing(&context));
        let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
        let task = engine.executor().spawn(async move {
            // Given back when the rows end or the time is over, whether somebody fetches them or not.
            let _turn = turn;
            let forwarded = async move {
                match execute_stream(plan, context) {
                    Ok(batches) => forward(batches, &sender, hashing).await,
                    Err(error) => {
                        drop(sender.send(Err(error)).await);
                        None
                    }
                }
            };
            deadline.guard(forwarded).await
        });
        let task = task.ok_or_else(going_down)?;
        let running = RunningStatement { receiver, task, guard, deadline, catalog, clock, evidence };
        let allowance = Allowance::of(engine.config());
        let metrics = engine.metrics().clone();
        let stream = futures::stream::unfold(Some((running, allowance)), move |state| {
            let metrics = metrics.clone();
            async move {
                let (mut running, mut allowance) = state?;
                let next = match running.next().await {
                    Some(Ok(batch)) => Some(allowance.take(&batch).map(|()| batch)),
                    ended => ended,
                };
                match next {
                    Some(Ok(batch)) => {
                        metrics.rows_handed_out(batch.num_rows());
                        Some((Ok(batch), Some((running, allowance))))
                    }
                    Some(Err(error)) => {
                        running.clock.failed(&error);
                        Some((Err(error), None))
                    }
                    None => {
                        running.clock.stop(Ok(()));
                        None
                    }
                }
            }
        });
        Ok(stream.boxed())
    }
}

/// Hands batches on until they end, fail, or nobody wants them; the hash over their rows, if they came to their end.
async fn forward(
    mut batches: SendableRecordBatchStream,
    sender: &mpsc::Sender<Batch>,
    mut hashing: Option<Hashing>,
) -> Option<RowsHash> {
    loop {
        let batch = tokio::select! {
            biased;
            () = sender.closed() => return None,
            batch = batches.next() => batch,
        };
        let Some(mut batch) = batch else { return hashing.map(Hashing::finish) };
        if let (Some(hashing), Ok(rows)) = (&mut hashing, &batch)
            && let Err(error) = hashing.take(rows)
        {
            batch = Err(error);
        }
        let last = batch.is_err();
        if sender.send(batch).await.is_err() || last {
            return None;
        }
    }
}

/// What a statement may still hand out.
struct Allowance {
    rows: u64,
    bytes: u64,
    rows_max: u64,
    mib_max: u64,
}

impl Allowance {
    fn of(config: &QueryConfig) -> Self {
        let (rows_max, mib_max) = (config.rows_out_max, config.mib_out_max);
        Self { rows: rows_max, bytes: config.bytes_out_max(), rows_max, mib_max }
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_default() as u64;
        let rows = self.rows.checked_sub(batch.num_rows() as u64);
        self.rows = rows.ok_or_else(|| QueryError::too_much_out("rows", "rows_out_max", self.rows_max))?;
        let left = self.bytes.checked_sub(batch.columns().iter().map(bytes).sum());
        self.bytes = left.ok_or_else(|| QueryError::too_much_out("MiB", "mib_out_max", self.mib_max))?;
        Ok(())
    }
}

type Batch = datafusion::error::Result<RecordBatch>;

/// A statement whose batches come from the threads of statements. Dropping it stops them.
struct RunningStatement {
    receiver: mpsc::Receiver<Batch>,
    task: Running<Result<Option<RowsHash>>>,
    guard: Arc<Guard>,
    deadline: Deadline,
    catalog: Arc<HeightCatalog>,
    clock: StatementClock,
    evidence: Option<Pending>,
}

impl RunningStatement {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        match self.deadline.guard(self.receiver.recv()).await {
            Ok(Some(Ok(batch))) => Some(Ok(batch)),
            Ok(Some(Err(error))) => Some(Err(self.failure(&error))),
            Ok(None) => match self.task.finished().await {
                Ok(Ok(hash)) => self.signed(hash).err().map(Err),
                // The time was over while nobody fetched: what came so far is not all.
                Ok(Err(late)) => Some(Err(late)),
                Err(error) => Some(Err(QueryError::internal(panic_text(error)))),
            },
            Err(late) => Some(Err(late)),
        }
    }

    /// All rows have left: now there can be evidence of them.
    fn signed(&mut self, hash: Option<RowsHash>) -> Result<()> {
        match (self.evidence.take(), hash) {
            (Some(evidence), Some(hash)) => evidence.finish(&hash),
            (Some(_), None) => Err(QueryError::internal("an answer ended, and its rows were not hashed")),
            (None, _) => Ok(()),
        }
    }

    fn failure(&self, error: &DataFusionError) -> QueryError {
        // A guard that ran out just before our own clock did.
        if self.deadline.is_over() {
            return QueryError::timed_out(self.deadline.limit);
        }
        classify(error, &self.catalog)
    }
}

impl Drop for RunningStatement {
    fn drop(&mut self) {
        self.guard.stop();
    }
}

pub(super) fn going_down() -> QueryError {
    QueryError::new(QueryErrorKind::Unavailable, SqlState::NOT_READY, "the query engine is shutting down")
}

/// When a statement must be done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }

    pub(super) fn at(&self) -> Instant {
        self.at
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.at
    }

    pub(crate) async fn guard<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        timeout_at(self.at.into(), work).await.map_err(|_| QueryError::timed_out(self.limit))
    }
}
