//! One batch: decoded, sealed, stored, submitted, final.
//!
//! Decoding and sealing take a core; as many run at once as the configuration allows, first come, first served, so that
//! many partitions share the cores. Waiting for the chain takes none and is not limited.

use std::sync::Arc;
use std::time::Duration;

use cairn_anchor::pipeline::{AnchorError, Anchorer, Kind, Outcome, Prepared};
use cairn_anchor::raw::RawBatch;
use cairn_proof::Digest;
use cairn_proof::statement::StreamDefinition;
use tokio::sync::Semaphore;

use crate::decode::StreamDecoder;
use crate::error::{Error, Result};
use crate::metrics::Metrics;

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A stream that is read.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) definition: Arc<StreamDefinition>,
    pub(super) decoder: StreamDecoder,
}

impl Stream {
    pub(super) fn name(&self) -> &str {
        &self.definition.name
    }
}

/// What brings batches onto the chain.
#[derive(Debug)]
pub(super) struct Batches {
    anchorer: Anchorer,
    seals: Arc<Semaphore>,
    metrics: Metrics,
}

impl Batches {
    pub(super) fn new(anchorer: Anchorer, seal_tasks_max: usize, metrics: Metrics) -> Self {
        Self { anchorer, seals: Arc::new(Semaphore::new(seal_tasks_max)), metrics }
    }

    /// Keeps at it until the chain has decided. `previous` is the id of the partition's last anchor.
    ///
    /// Dropping the future loses nothing but the work.
    ///
    /// # Errors
    /// Only what trying again does not help against.
    pub(super) async fn anchor(
        self: Arc<Self>,
        stream: Arc<Stream>,
        raw: RawBatch,
        previous: Digest,
    ) -> Result<Outcome> {
        let (partition, first, last) = (raw.partition(), raw.first(), raw.last());
        let failed = |error: AnchorError| {
            Error::corrupted(format!("offsets {first} to {last} of partition {partition} cannot be anchored"))
                .because(error)
        };
        let prepared = self.prepare(&stream, raw).await?.map_err(failed)?;
        let mut pause = Pause::new();
        loop {
            match self.anchorer.submit(&prepared, previous).await {
                Err(error) if error.kind() == Kind::Retry => pause.after(&stream, &error).await,
                decided => return decided.map_err(failed),
            }
        }
    }

    async fn prepare(&self, stream: &Arc<Stream>, raw: RawBatch) -> Result<std::result::Result<Prepared, AnchorError>> {
        let closed = |error| Error::bug("the sealing of batches was closed").because(error);
        let _permit = self.seals.acquire().await.map_err(closed)?;
        let decoding = stream.clone();
        let work = move || decoding.decoder.decode_batch(&raw).map(|decoded| (raw, decoded));
        let (raw, decoded) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::bug("decoding a batch did not finish").because(error))??;
        self.metrics.decoded(stream.name(), raw.partition(), &decoded.quarantined);
        let columns = decoded.into();
        let mut pause = Pause::new();
        loop {
            match self.anchorer.prepare(&stream.definition, &raw, &columns).await {
                Err(error) if error.kind() == Kind::Retry => pause.after(stream, &error).await,
                decided => return Ok(decided),
            }
        }
    }
}

/// Growing pauses between attempts.
struct Pause(Duration);

impl Pause {
    fn new() -> Self {
        Self(PAUSE_MIN)
    }

    async fn after(&mut self, stream: &Stream, error: &AnchorError) {
        tracing::warn!(stream = stream.name(), %error, "a batch waits, and is tried again");
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(PAUSE_MAX);
    }
}
