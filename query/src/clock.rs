//! Measures one statement: how long it took and how it ended, whatever way it ends; and tells its run of it, if it has one.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use crate::engine::Engine;
use crate::error::{QueryError, QueryErrorKind};
use crate::openlineage::Run;

/// Runs from a statement's begin to its last row. A clone is the same clock; the first stop counts.
///
/// A statement whose rows are dropped before their end (the client is gone, a cursor is closed) counts as cancelled.
#[derive(Debug, Clone)]
pub(crate) struct StatementClock(Arc<Running>);

#[derive(Debug)]
struct Running {
    started: Instant,
    engine: Engine,
    stopped: Mutex<bool>,
    run: OnceLock<Run>,
}

impl Running {
    fn stop(&self, outcome: Result<(), QueryErrorKind>, message: Option<&str>) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *stopped, true) {
            let metrics = self.engine.metrics();
            metrics.statement_ended(outcome, self.started.elapsed());
            metrics.store_did(self.engine.store().counters());
            metrics.problems_listed(self.engine.problems().len());
            if let Some(run) = self.run.get() {
                run.end(outcome, message);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop(Err(QueryErrorKind::Cancelled), None);
    }
}

impl StatementClock {
    pub(crate) fn start(engine: &Engine) -> Self {
        Self(Arc::new(Running {
            started: Instant::now(),
            engine: engine.clone(),
            stopped: Mutex::default(),
            run: OnceLock::new(),
        }))
    }

    /// Whoever collects lineage hears of the statement's end.
    pub(crate) fn of_run(&self, run: Run) {
        let _ = self.0.run.set(run);
    }

    /// The statement ended.
    pub(crate) fn stop(&self, outcome: Result<(), QueryErrorKind>) {
        self.0.stop(outcome, None);
    }

    /// The statement failed.
    pub(crate) fn failed(&self, error: &QueryError) {
        self.0.stop(Err(error.kind), Some(&error.message));
    }

    /// There was no statement to measure after all.
    pub(crate) fn forget(self) {
        *self.0.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}
