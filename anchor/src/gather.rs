//! Batches that are ready at the same time go onto the chain in one statement.
//!
//! ```text
//! announced ──▶ being sealed ──▶ waiting ─┬─ nobody who was announced is missing, or 20 ms are over, or it is full
//!                                         ▼
//!                     sorted, cut into statements ── of one: an anchor alone
//!                                                 └─ of several: signed once, all or nothing
//!                                                        │ refused
//!                                                        ▼
//!                                                 each alone: whose race was lost is told so, the others are anchored
//! ```
//!
//! A round waits for those only that said they would come, so that a partition by itself waits for nobody. Rounds do not
//! wait for each other: what comes while one statement is on its way makes the next one. Who stops waiting is left out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cairn_proof::statement::{ANCHOR_HEAD_BYTES, ANCHORS_MAX, ANCHORS_OVERHEAD_BYTES, Anchor, STATEMENT_BYTES_MAX};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::pipeline::{AnchorError, Outcome};

/// For so long the first of a round waits for others that were announced.
pub(crate) const GATHER: Duration = Duration::from_millis(20);

/// An anchor that waits to be submitted, and who is told what became of it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) anchor: Anchor,
    pub(crate) tell: oneshot::Sender<Result<Outcome, AnchorError>>,
}

impl Job {
    /// Tells what became of it. Who does not wait any more finds it on the chain when it asks again.
    pub(crate) fn answer(self, outcome: Result<Outcome, AnchorError>) {
        let _ = self.tell.send(outcome);
    }
}

/// What the batches of one anchoring identity are gathered in; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gathering {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Job>,
    /// Announced, and not waiting yet.
    coming: usize,
    /// Whether somebody will take those that wait.
    open: bool,
}

/// That a batch will be submitted soon; dropping it says that it will not.
#[derive(Debug)]
pub struct Coming {
    gathering: Gathering,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.gathering.state().coming -= 1;
        self.gathering.shared.changed.notify_waiters();
    }
}

impl Gathering {
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a batch will come.
    pub(crate) fn announce(&self) -> Coming {
        self.state().coming += 1;
        Coming { gathering: self.clone() }
    }

    /// Lets an anchor wait for the next round. Returns whether the caller has to open that round.
    pub(crate) fn wait(&self, job: Job, coming: Option<Coming>) -> bool {
        let opens = {
            let mut state = self.state();
            state.waiting.push(job);
            !std::mem::replace(&mut state.open, true)
        };
        // It waits before it stops being announced, so that no round is closed in between.
        drop(coming);
        self.shared.changed.notify_waiters();
        opens
    }

    /// A round: waits until it is complete, closes it, and returns who waited and still does.
    pub(crate) async fn round(&self) -> Vec<Job> {
        let deadline = Instant::now() + GATHER;
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            let complete = {
                let state = self.state();
                state.coming == 0 || state.waiting.len() >= ANCHORS_MAX
            };
            if complete || tokio::time::timeout_at(deadline, changed).await.is_err() {
                break;
            }
        }
        let mut state = self.state();
        state.open = false;
        let mut jobs = std::mem::take(&mut state.waiting);
        jobs.retain(|job| !job.tell.is_closed());
        jobs
    }
}

/// Cuts a round into statements: in the order that a statement has them in, each partition once, within its bounds.
pub(crate) fn into_statements(mut jobs: Vec<Job>) -> Vec<Vec<Job>> {
    let place = |job: &Job| (job.anchor.stream.clone(), job.anchor.partition);
    jobs.sort_by_cached_key(place);
    let mut statements: Vec<Vec<Job>> = Vec::new();
    let mut bytes = 0;
    for job in jobs {
        let length = job.anchor.encode().len() + ANCHOR_HEAD_BYTES;
        bytes += length;
        let last = statements.last_mut().filter(|statement| {
            let fits = statement.len() < ANCHORS_MAX && bytes + ANCHORS_OVERHEAD_BYTES <= STATEMENT_BYTES_MAX;
            // A second batch of a partition names the first one's id, which is known when that is signed.
            fits && statement.last().is_none_or(|before| place(before) != place(&job))
        });
        match last {
            Some(statement) => statement.push(job),
            None => {
                statements.push(vec![job]);
                bytes = length;
            }
        }
    }
    statements
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
