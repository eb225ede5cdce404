//! Measures one statement: how long it took and how it ended, whatever way it ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::engine::Engine;
use crate::error::{QueryError, QueryErrorKind};

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
}

impl Running {
    fn stop(&self, outcome: Result<(), QueryErrorKind>) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *stopped, true) {
            let metrics = self.engine.metrics();
            metrics.statement_ended(outcome, self.started.elapsed());
            metrics.store_did(self.engine.store().counters());
            metrics.problems_listed(self.engine.problems().len());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop(Err(QueryErrorKind::Cancelled));
    }
}

impl StatementClock {
    pub(crate) fn start(engine: &Engine) -> Self {
        Self(Arc::new(Running { started: Instant::now(), engine: engine.clone(), stopped: Mutex::new(false) }))
    }

    /// The statement ended.
    pub(crate) fn stop(&self, outcome: Result<(), QueryErrorKind>) {
        self.0.stop(outcome);
    }

    /// The statement failed.
    pub(crate) fn failed(&self, error: &QueryError) {
        self.0.stop(Err(error.kind));
    }

    /// There was no statement to measure after all.
    pub(crate) fn forget(self) {
        *self.0.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}
