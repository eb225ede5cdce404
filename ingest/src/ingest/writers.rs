//! The schemas that a batch needs and its stream does not have, from the registry; waits while that is out of reach.
//!
//! Until each id of the batch is settled, nothing of it is decoded: a record is never quarantined because the registry did
//! not answer. A waiting batch holds its records in memory, unless memory is short: then it is given back and read again
//! from Kafka later, so that partitions that need no registry go on. What an id is not is asked anew for each batch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairn_anchor::raw::RawBatch;
use tokio::task::JoinSet;

use super::batches::Stream;
use crate::decode::BatchDecoder;
use crate::error::{Error, Result};
use crate::metrics::{Metrics, Waiting};
use crate::registry::{Known, OutOfReach, Registry};

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Ids of one batch that are asked for at a time.
const AT_A_TIME: usize = 4;

/// What the schemas of a batch come to.
pub(super) enum Found {
    /// All ids are settled.
    Decoder(Arc<BatchDecoder>),
    /// They are not, and memory is short: the batch gives back what it holds. It goes on to be counted as waiting.
    GivesBack(Waiting),
}

/// Looks schemas up for batches.
#[derive(Debug)]
pub(super) struct Writers {
    registry: Option<Arc<Registry>>,
    metrics: Metrics,
    short: AtomicBool,
}

impl Writers {
    pub(super) fn new(registry: Option<Arc<Registry>>, metrics: Metrics) -> Self {
        Self { registry, metrics, short: AtomicBool::new(false) }
    }

    pub(super) fn memory_is_short(&self, short: bool) {
        self.short.store(short, Ordering::Relaxed);
    }

    /// What the batch is decoded by. `waiting` says that the partition is counted as waiting already.
    pub(super) async fn decoder(&self, stream: &Stream, raw: &RawBatch, mut waiting: Option<Waiting>) -> Result<Found> {
        let mut batch = BatchDecoder::plain(&stream.decoder);
        let Some(registry) = &self.registry else { return Ok(Found::Decoder(Arc::new(batch))) };
        let mut ids = stream.decoder.foreign_schemas(raw);
        let mut pause = PAUSE_MIN;
        loop {
            let Some(error) = settle(registry, &mut ids, &mut batch).await? else {
                return Ok(Found::Decoder(Arc::new(batch)));
            };
            let (name, partition) = (stream.name(), raw.partition());
            let count = || self.metrics.waits_for_registry(name, partition, &error.to_string());
            let counted = waiting.take().unwrap_or_else(count);
            if self.short.load(Ordering::Relaxed) {
                return Ok(Found::GivesBack(counted));
            }
            waiting = Some(counted);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// Asks for all ids, and takes those away that are settled; returns why it ended before all were.
async fn settle(
    registry: &Arc<Registry>,
    ids: &mut BTreeSet<u32>,
    batch: &mut BatchDecoder,
) -> Result<Option<OutOfReach>> {
    let wanted: Vec<u32> = ids.iter().copied().collect();
    let mut wanted = wanted.into_iter();
    let mut asked = JoinSet::new();
    let mut failed = None;
    loop {
        while failed.is_none() && asked.len() < AT_A_TIME {
            let Some(id) = wanted.next() else { break };
            let registry = registry.clone();
            asked.spawn(async move { (id, registry.lookup(id).await) });
        }
        let Some(answer) = asked.join_next().await else { return Ok(failed) };
        let (id, answer) = answer.map_err(|error| Error::bug("a schema was not looked up").because(error))?;
        match answer {
            Ok(Known::Avro(text)) => batch.learn(id, &text),
            Ok(Known::Nothing(why)) => batch.refuse(id, &why),
            Err(error) => {
                failed.get_or_insert(error);
                continue;
            }
        }
        ids.remove(&id);
    }
}
