//! One batch onto the chain: seal, keep the secret, store the segment, submit the anchor, see it final.
//!
//! ```text
//! prepare   seal ─▶ secret durable, segment durable, its hash tree durable        Prepared
//! submit    chain has these offsets already? ── the same anchor: Anchored ── another one: Lost
//!             │ no
//!             └─ sign, submit, wait ─▶ final in the followed chain: Anchored
//! ```
//!
//! Batches of several partitions that are to be submitted at the same time go into one statement ([`crate::gather`]).
//!
//! The order is what makes a crash harmless: an anchor is only ever submitted for what is durable, and the next start
//! resumes from the chain's head. What was prepared and not anchored is an orphan in the store.
//!
//! Nothing is believed that a node merely says: a batch counts as anchored, or lost, by the ledger that the follower
//! verified. A batch whose fate is unknown is kept and submitted again; the chain accepts its offsets only once (I1), so
//! that saying it twice cannot anchor it twice (I2).

use crate::evidence::{self, EvidenceError};
use crate::gather::{Coming, Gathering, Job, into_statements};
use crate::metrics::Metrics;
use crate::raw::RawBatch;
use crate::roots::Roots;
use crate::seal::{DecodedColumns, SealError, new_secret, seal};
use crate::secrets::{SecretError, SecretStore};
use crate::segment::Columns;
use crate::store::{SegmentStore, StoreError};
use arrow::array::StringArray;
use cairn_chain_client::{AnchorEntry, ClientError, Follower, SubmitError, Submitter};
use cairn_chain_state::{Head, Refusal, RefusalCode};
use cairn_proof::signed_record::Sequences;
use cairn_proof::statement::{Anchor, Body, StreamDefinition};
use cairn_proof::{Digest, Height, LeafIndex, Offset, Partition};
use futures::future::{join_all, select_all};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long to wait for finality before a submission counts as undecided, unless told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long the follower may take to see what a node says is final, or what a refusal must come from.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(10);
/// Pauses between attempts of [`Anchorer::anchor`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A batch that is durable in the store and can be submitted, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    anchor: Anchor,
}

impl Prepared {
    /// The anchor, its `previous` aside.
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }
}

/// A batch that is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchored {
    /// The anchor's id: the `previous` of the partition's next one.
    pub id: Digest,
    /// Its block.
    pub height: Height,
    /// Its place in the log.
    pub log_index: LeafIndex,
    /// The offset that the next batch begins with.
    pub next: Offset,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is on the chain.
    Anchored(Anchored),
    /// Another worker anchored these offsets: drop the batch and resume from the head.
    Lost {
        /// Where the partition stands.
        head: Head,
    },
}

/// What to do about an [`AnchorError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Keep the batch and try again: nothing is lost.
    Retry,
    /// Trying again does not help: stop this partition and tell the operator.
    Stop,
}

/// Why a batch is not anchored yet, or cannot be.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// It cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Its segment cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its secret cannot be kept.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The last sequence numbers of the publishers cannot be had.
    #[error("stream {stream}, partition {partition}: the last sequence numbers of its publishers: {source}")]
    Sequences {
        /// The stream.
        stream: String,
        /// The partition.
        partition: Partition,
        /// Why.
        source: Box<EvidenceError>,
    },
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes: {0}")]
    Random(#[from] std::io::Error),
    /// A task of ours ended before its work: a bug, or the process is ending.
    #[error("the work on the batch ended early: {reason}")]
    Ended {
        /// How.
        reason: String,
    },
    /// The chain refuses it, and no other worker is the cause.
    #[error("stream {stream}, partition {partition}, offsets {first} to {last}: the chain {refusal}")]
    Refused {
        /// The stream.
        stream: String,
        /// The partition.
        partition: Partition,
        /// The batch's first offset.
        first: Offset,
        /// The batch's last offset.
        last: Offset,
        /// Why.
        refusal: Refusal,
    },
    /// It is not known whether it is on the chain.
    #[error("stream {stream}, partition {partition}, offsets {first} to {last}: not known to be final yet: {source}")]
    Undecided {
        /// The stream.
        stream: String,
        /// The partition.
        partition: Partition,
        /// The batch's first offset.
        first: Offset,
        /// The batch's last offset.
        last: Offset,
        /// What happened.
        source: ClientError,
    },
}

impl AnchorError {
    /// What to do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Store(_) | Self::Random(_) | Self::Undecided { .. } | Self::Secret(SecretError::Io { .. }) => {
                Kind::Retry
            }
            Self::Sequences { source, .. } if matches!(**source, EvidenceError::Verify(_)) => Kind::Retry,
            Self::Seal(_) | Self::Refused { .. } | Self::Secret(_) | Self::Ended { .. } | Self::Sequences { .. } => {
                Kind::Stop
            }
        }
    }

    /// The step that failed, as metrics name it.
    const fn step(&self) -> &'static str {
        match self {
            Self::Seal(_) | Self::Random(_) | Self::Ended { .. } => "seal",
            Self::Store(_) | Self::Secret(_) | Self::Sequences { .. } => "store",
            Self::Refused { .. } | Self::Undecided { .. } => "submit",
        }
    }
}

/// Brings batches onto the chain for one anchoring identity. A clone works on the same stores and counters.
#[derive(Debug, Clone)]
pub struct Anchorer {
    submitter: Submitter,
    follower: Follower,
    segments: SegmentStore,
    secrets: SecretStore,
    metrics: Metrics,
    patience: Duration,
    gathering: Gathering,
}

impl Anchorer {
    /// `submitter` signs as an anchorer of the streams; `follower` follows the same chain.
    pub fn new(
        submitter: Submitter,
        follower: Follower,
        segments: SegmentStore,
        secrets: SecretStore,
        metrics: Metrics,
    ) -> Self {
        let gathering = Gathering::default();
        Self { submitter, follower, segments, secrets, metrics, patience: PATIENCE, gathering }
    }

    /// Waits that long for finality before a submission counts as undecided.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The chain as it is followed.
    pub fn follower(&self) -> &Follower {
        &self.follower
    }

    /// Where a partition stands in the followed chain. `None` for an unknown stream or partition.
    ///
    /// Resume from here after a start, once the follower has caught up.
    pub fn head(&self, stream: &str, partition: Partition) -> Option<Head> {
        self.follower.ledger().state().head(stream, partition)
    }

    /// The records of a finalized anchor, read back from the store; every byte of the segment is verified first.
    ///
    /// # Errors
    /// [`EvidenceError`], if the segment is missing or altered.
    pub async fn records_of(&self, entry: &AnchorEntry) -> Result<RawBatch, EvidenceError> {
        let store = self.segments.verified(Arc::new(Roots::new()))?;
        let segment = evidence::verified_segment(entry, &store).await?;
        let (_, raw) = evidence::records(&entry.anchor, segment, Columns::Own).await?;
        Ok(raw)
    }

    /// The records of a finalized anchor as [`Anchorer::records_of`] gives them, and for each why it is quarantined; null
    /// for those that are not.
    ///
    /// # Errors
    /// As [`Anchorer::records_of`].
    pub async fn quarantine_of(&self, entry: &AnchorEntry) -> Result<(RawBatch, StringArray), EvidenceError> {
        let store = self.segments.verified(Arc::new(Roots::new()))?;
        let segment = evidence::verified_segment(entry, &store).await?;
        let (rows, raw) = evidence::records(&entry.anchor, segment, Columns::Own).await?;
        Ok((raw, evidence::reasons(&entry.anchor, &rows)?))
    }

    /// The last sequence numbers of a partition's publishers after the batch that `previous` anchored: from its segment,
    /// verified; none after no anchor.
    ///
    /// # Errors
    /// [`AnchorError::Sequences`]: of kind [`Kind::Retry`] while the segment cannot be had.
    pub async fn sequences(
        &self,
        stream: &str,
        partition: Partition,
        previous: Digest,
    ) -> Result<Sequences, AnchorError> {
        if previous == Digest::ZERO {
            return Ok(Sequences::new());
        }
        let wrong = |source| AnchorError::Sequences { stream: stream.to_owned(), partition, source: Box::new(source) };
        let entry = {
            let ledger = self.follower.ledger();
            let anchors = ledger.partition(stream, partition);
            anchors.iter().rev().find(|entry| entry.id == previous).cloned()
        };
        let entry = entry.ok_or_else(|| {
            let reason = "the followed chain does not have the anchor before it".to_owned();
            wrong(EvidenceError::Ended { path: previous.to_string(), reason })
        })?;
        let store = self.segments.verified(Arc::new(Roots::new()));
        let store = store.map_err(|error| AnchorError::Ended { reason: error.to_string() })?;
        evidence::sequences(&entry, &store).await.map_err(wrong)
    }

    /// Prepares and submits a batch, and keeps at it through failures that pass, until the chain has decided.
    ///
    /// `previous` is the id of the partition's last anchor: the head's, or that of the batch before. Dropping the future
    /// loses nothing but the work.
    ///
    /// # Errors
    /// Only such of kind [`Kind::Stop`].
    pub async fn anchor(
        &self,
        stream: &Arc<StreamDefinition>,
        raw: &RawBatch,
        decoded: &DecodedColumns,
        previous: Digest,
    ) -> Result<Outcome, AnchorError> {
        let prepared = self.persist(&stream.name, || self.prepare(stream, raw, decoded)).await?;
        self.persist(&stream.name, || self.submit(&prepared, previous)).await
    }

    /// Repeats a step while its failure is one that passes.
    async fn persist<T, F>(&self, stream: &str, step: impl Fn() -> F) -> Result<T, AnchorError>
    where
        F: Future<Output = Result<T, AnchorError>>,
    {
        let mut pause = PAUSE_MIN;
        loop {
            match step().await {
                Err(error) if error.kind() == Kind::Retry => {
                    self.count_retry(stream, &error);
                    tracing::warn!(stream, %error, pause_ms = pause.as_millis() as u64, "anchoring is tried again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                decided => return decided,
            }
        }
    }

    /// Counts an attempt of a step that is to be made again.
    pub fn count_retry(&self, stream: &str, error: &AnchorError) {
        self.metrics.retries.with_label_values(&[stream, error.step()]).inc();
    }

    /// Seals a batch and makes its secret, its segment and its hash tree durable.
    ///
    /// Batches may be prepared ahead of the chain: the next one while this one waits for finality.
    ///
    /// # Errors
    /// [`AnchorError`]; after one of kind [`Kind::Retry`] the same batch can be prepared again.
    pub async fn prepare(
        &self,
        stream: &Arc<StreamDefinition>,
        raw: &RawBatch,
        decoded: &DecodedColumns,
    ) -> Result<Prepared, AnchorError> {
        let started = Instant::now();
        let secret = new_secret()?;
        // Clones of columns share their buffers.
        let (definition, raw, decoded) = (Arc::clone(stream), raw.clone(), decoded.clone());
        let sealed = blocking(move || Ok(seal(&definition, &raw, &decoded, secret, Digest::ZERO)?)).await?;
        self.observe(&stream.name, "seal", started);
        let started = Instant::now();
        let (secrets, path, secret) = (self.secrets.clone(), sealed.anchor.segment.path.clone(), sealed.secret.clone());
        let root = sealed.anchor.records_root;
        let keep = blocking(move || Ok(secrets.put(&path, &root, &secret)?));
        // Both to their end, so that it is known what is there if one fails.
        let (kept, stored) = tokio::join!(keep, self.segments.put(&sealed));
        if kept.is_ok() && stored.is_err() {
            self.forget(&sealed.anchor).await;
        }
        kept?;
        stored?;
        self.observe(&stream.name, "store", started);
        Ok(Prepared { anchor: sealed.anchor })
    }

    /// Takes back the secret of a batch whose segment could not be stored. It is sealed anew with another secret, so a store
    /// that is out of reach for long would else leave one secret an attempt.
    async fn forget(&self, anchor: &Anchor) {
        let (secrets, path, root) = (self.secrets.clone(), anchor.segment.path.clone(), anchor.records_root);
        let forgotten = blocking(move || Ok(secrets.forget(&path, &root)?)).await;
        if let Err(error) = forgotten {
            // Harmless: an orphan.
            tracing::debug!(stream = anchor.stream, %error, "a secret that no anchor will need is left behind");
        }
    }

    /// Says that a batch will be submitted soon. Batches of other partitions that are submitted meanwhile wait for it, for
    /// some milliseconds, to go into the same statement; see [`Anchorer::submit_announced`].
    pub fn announce(&self) -> Coming {
        self.gathering.announce()
    }

    /// Submits a prepared batch once and waits until it is final.
    ///
    /// # Errors
    /// [`AnchorError::Undecided`]: submit it again. [`AnchorError::Refused`]: the chain will never take it.
    pub async fn submit(&self, prepared: &Prepared, previous: Digest) -> Result<Outcome, AnchorError> {
        self.submit_announced(prepared, previous, None).await
    }

    /// As [`Anchorer::submit`], for a batch that was announced.
    ///
    /// # Errors
    /// As [`Anchorer::submit`].
    pub async fn submit_announced(
        &self,
        prepared: &Prepared,
        previous: Digest,
        coming: Option<Coming>,
    ) -> Result<Outcome, AnchorError> {
        let started = Instant::now();
        let anchor = Anchor { previous, ..prepared.anchor.clone() };
        if let Some(outcome) = self.decided(&anchor) {
            return Ok(self.count(&anchor, outcome, started));
        }
        let (tell, told) = oneshot::channel();
        if self.gathering.wait(Job { anchor: anchor.clone(), tell }, coming) {
            // A task of its own: the others must not wait in vain when this future is dropped.
            let this = self.clone();
            tokio::spawn(async move { this.settle_round().await });
        }
        let ended = |_| AnchorError::Ended { reason: "the statement that it went into was given up".to_owned() };
        let outcome = told.await.map_err(ended)??;
        Ok(self.count(&anchor, outcome, started))
    }

    /// Brings those that wait onto the chain, and tells each what became of it.
    async fn settle_round(&self) {
        let statements = into_statements(self.gathering.round().await);
        join_all(statements.into_iter().map(|jobs| self.settle(jobs))).await;
    }

    /// One statement. As long as it is not final, whoever stops waiting ends what is done for it: what its batch was
    /// allowed to say may not hold any more.
    async fn settle(&self, mut jobs: Vec<Job>) {
        if jobs.len() > 1 {
            let anchors: Vec<Anchor> = jobs.iter().map(|job| job.anchor.clone()).collect();
            let (count, body) = (anchors.len(), Body::Anchors(anchors));
            let submitted = tokio::select! {
                submitted = self.submitter.submit(&body, self.patience) => Some(submitted),
                () = somebody_left(&mut jobs) => None,
            };
            match submitted {
                Some(Ok(finalized)) => {
                    self.metrics.statements.with_label_values(&["several"]).inc();
                    for job in jobs {
                        let outcome = self.confirm(&job.anchor, finalized.height).await;
                        job.answer(outcome);
                    }
                    return;
                }
                Some(Err(SubmitError::Undecided(source))) => {
                    for job in jobs {
                        let outcome = Err(undecided(&job.anchor, source.clone()));
                        job.answer(outcome);
                    }
                    return;
                }
                Some(Err(SubmitError::Refused(refusal))) => {
                    self.metrics.statements.with_label_values(&["refused"]).inc();
                    tracing::info!(count, %refusal, "anchors are not taken in one statement: each goes alone");
                }
                // It may yet become final; then each of those that stay finds itself on the chain.
                None => tracing::debug!(count, "a batch was taken back from a statement: the others go alone"),
            }
        }
        join_all(jobs.into_iter().filter(|job| !job.tell.is_closed()).map(|job| self.settle_alone(job))).await;
    }

    async fn settle_alone(&self, mut job: Job) {
        let outcome = tokio::select! {
            outcome = self.submit_alone(&job.anchor) => outcome,
            () = job.tell.closed() => return,
        };
        job.answer(outcome);
    }

    async fn submit_alone(&self, anchor: &Anchor) -> Result<Outcome, AnchorError> {
        if let Some(outcome) = self.decided(anchor) {
            return Ok(outcome);
        }
        match self.submitter.submit(&Body::Anchor(anchor.clone()), self.patience).await {
            Ok(finalized) => {
                self.metrics.statements.with_label_values(&["one"]).inc();
                self.confirm(anchor, finalized.height).await
            }
            Err(SubmitError::Refused(refusal)) => self.explain(anchor, refusal).await,
            Err(SubmitError::Undecided(source)) => Err(undecided(anchor, source)),
        }
    }

    /// What the followed chain says about these offsets, if it has them.
    fn decided(&self, anchor: &Anchor) -> Option<Outcome> {
        let ledger = self.follower.ledger();
        let entry = ledger.anchor_of(&anchor.stream, anchor.partition, anchor.first)?;
        if is_same_batch(&entry.anchor, anchor) {
            let (id, height, log_index) = (entry.id, entry.height, entry.log_index);
            return Some(Outcome::Anchored(Anchored { id, height, log_index, next: anchor.last.next() }));
        }
        let head = ledger.state().head(&anchor.stream, anchor.partition)?;
        Some(Outcome::Lost { head })
    }

    /// Waits until the followed chain shows what a node says.
    async fn confirm(&self, anchor: &Anchor, height: Height) -> Result<Outcome, AnchorError> {
        let followed = self.follower.wait_for_height(height, FOLLOW_PATIENCE).await;
        followed.map_err(|source| undecided(anchor, source))?;
        self.decided(anchor).ok_or_else(|| {
            let reason = "the verified chain does not have it in that block".to_owned();
            let node = self.submitter.client().preferred().to_string();
            let what = format!("that the anchor is final at height {height}");
            undecided(anchor, ClientError::Untrustworthy { node, what, reason })
        })
    }

    /// Finds out whether a refusal comes from another worker's anchor, or from this very batch being on the chain.
    async fn explain(&self, anchor: &Anchor, refusal: Refusal) -> Result<Outcome, AnchorError> {
        let may_be_a_race = matches!(
            refusal.code,
            RefusalCode::Overlap | RefusalCode::Gap | RefusalCode::Previous | RefusalCode::Duplicate
        );
        if may_be_a_race {
            // Whichever is first: the verified chain shows what the cause was, or it has caught up and shows none.
            let caught_up = tokio::select! {
                outcome = self.raced(anchor) => return Ok(outcome),
                caught_up = self.follower.catch_up(FOLLOW_PATIENCE) => caught_up,
            };
            caught_up.map_err(|source| undecided(anchor, source))?;
            if let Some(outcome) = self.race(anchor) {
                return Ok(outcome);
            }
        }
        let Anchor { stream, partition, first, last, .. } = anchor.clone();
        Err(AnchorError::Refused { stream, partition, first, last, refusal })
    }

    /// What became of these offsets, if the followed chain is not where this batch expects it.
    fn race(&self, anchor: &Anchor) -> Option<Outcome> {
        self.decided(anchor).or_else(|| {
            let head = self.head(&anchor.stream, anchor.partition)?;
            ((head.next, head.anchor) != (anchor.first, anchor.previous)).then_some(Outcome::Lost { head })
        })
    }

    /// Waits until the followed chain is not where this batch expects it.
    async fn raced(&self, anchor: &Anchor) -> Outcome {
        let mut heights = self.follower.subscribe();
        loop {
            if let Some(outcome) = self.race(anchor) {
                return outcome;
            }
            if heights.changed().await.is_err() {
                // The follower has ended; whoever waits beside this one says so.
                std::future::pending::<()>().await;
            }
        }
    }

    fn count(&self, anchor: &Anchor, outcome: Outcome, started: Instant) -> Outcome {
        let stream = &[anchor.stream.as_str()];
        let partition = anchor.partition.to_string();
        let last_offset = self.metrics.last_offset.with_label_values(&[anchor.stream.as_str(), &partition]);
        match outcome {
            Outcome::Anchored(Anchored { height, .. }) => {
                self.observe(&anchor.stream, "submit", started);
                self.metrics.records.with_label_values(stream).inc_by(anchor.count);
                self.metrics.quarantined.with_label_values(stream).inc_by(anchor.quarantined);
                self.metrics.batches.with_label_values(stream).inc();
                self.metrics.segment_bytes.with_label_values(stream).inc_by(anchor.segment.size);
                last_offset.set(anchor.last.0 as i64);
                let (stream, count, quarantined) = (&anchor.stream, anchor.count, anchor.quarantined);
                let (first, last) = (anchor.first.0, anchor.last.0);
                tracing::info!(%stream, %partition, first, last, count, quarantined, height = height.0, "anchored");
            }
            Outcome::Lost { head } => {
                self.metrics.lost.with_label_values(stream).inc();
                last_offset.set(head.next.0 as i64 - 1);
                let (stream, first, next) = (&anchor.stream, anchor.first.0, head.next.0);
                tracing::warn!(%stream, %partition, first, next, "another worker anchored these offsets");
            }
        }
        outcome
    }

    fn observe(&self, stream: &str, step: &str, started: Instant) {
        self.metrics.seconds.with_label_values(&[stream, step]).observe(started.elapsed().as_secs_f64());
    }
}

/// Whether two anchors are about the same records: the root is salted by a secret that only this batch has.
fn is_same_batch(found: &Anchor, ours: &Anchor) -> bool {
    (found.first, found.last, found.records_root) == (ours.first, ours.last, ours.records_root)
        && found.segment == ours.segment
}

fn undecided(anchor: &Anchor, source: ClientError) -> AnchorError {
    let Anchor { stream, partition, first, last, .. } = anchor.clone();
    AnchorError::Undecided { stream, partition, first, last, source }
}

/// Waits until one of those who wait for a statement does not any more.
async fn somebody_left(jobs: &mut [Job]) {
    select_all(jobs.iter_mut().map(|job| Box::pin(job.tell.closed()))).await;
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AnchorError> + Send + 'static,
) -> Result<T, AnchorError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|ended| Err(AnchorError::Ended { reason: ended.to_string() }))
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
