//! One batch: authenticated, decoded, sealed, stored, submitted, final.
//!
//! Signatures are checked against the chain as it is followed when the batch is decoded, and the rights of its publishers
//! until the batch is final: where they change meanwhile, the batch is decoded anew. So no anchor is submitted with a
//! record of a key whose revocation this process has seen. The sequence numbers before a batch are those after the
//! one before it: kept in memory, or read from the segment of the partition's last anchor.
//!
//! Batches of several partitions that are ready at the same time go into one statement: each is announced when its work
//! begins, and `cairn_anchor::gather` waits some milliseconds for those that were.
//!
//! Schemas of writers that the stream does not have are looked up first (`writers`), before a core is taken: while the
//! registry is out of reach, the partition waits, and no other does.
//!
//! A stream's owner may add versions of its schema while it is read. Each batch is decoded by the newest version that the
//! chain has when its work begins, or that it has once it is followed to its head, where values name a schema that is not
//! known; what the new version does not decode is not held against the batches before it. Nothing has to be restarted.
//!
//! Decoding and sealing take a core; as many run at once as the configuration allows, first come, first served, so that
//! many partitions share the cores. Waiting for the chain takes none and is not limited.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cairn_anchor::pipeline::{AnchorError, Anchorer, Kind, Outcome, Prepared};
use cairn_anchor::raw::RawBatch;
use cairn_anchor::seal::DecodedColumns;
use cairn_proof::signed_record::Sequences;
use cairn_proof::statement::{Signatures, StreamDefinition};
use cairn_proof::{Digest, Offset, Partition};
use tokio::sync::Semaphore;

use super::writers::{Found, Writers};
use crate::decode::{BatchDecoder, ReasonCode, StreamDecoder};
use crate::error::{Error, Result};
use crate::metrics::{Metrics, Waiting};
use crate::registry::Registry;
use crate::signatures::{self, CheckedBatch};

/// How long a batch waits to know whether the chain has a schema.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(5);
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
    writers: Writers,
    metrics: Metrics,
    /// By stream: how many versions of its schema the chain has, and what batches are decoded by.
    newest: Mutex<HashMap<String, (usize, Arc<Stream>)>>,
    /// After the last anchor of a partition, by that anchor's id.
    sequences: Mutex<HashMap<(String, Partition), (Digest, Sequences)>>,
}

/// What came of a batch.
#[derive(Debug)]
pub(super) enum Done {
    /// The chain has decided.
    Decided(Outcome),
    /// It waits for something else than the chain, and memory is short: it is to be read again, from here.
    GivenBack { first: Offset, previous: Digest, waiting: Waiting },
}

/// A batch that is durable, and by which rights.
struct Ready {
    prepared: Prepared,
    checked: Option<CheckedBatch>,
    /// How many records are quarantined for which kind of reason.
    quarantined: Vec<(ReasonCode, u64)>,
}

impl Batches {
    pub(super) fn new(
        anchorer: Anchorer,
        seal_tasks_max: usize,
        registry: Option<Arc<Registry>>,
        metrics: Metrics,
    ) -> Self {
        let seals = Arc::new(Semaphore::new(seal_tasks_max));
        let writers = Writers::new(registry, metrics.clone());
        Self { anchorer, seals, writers, metrics, newest: Mutex::default(), sequences: Mutex::default() }
    }

    /// Whether memory is short, so that a batch that waits for the schema registry has to give back what it holds.
    pub(super) fn memory_is_short(&self, short: bool) {
        self.writers.memory_is_short(short);
    }

    /// Keeps at it until the chain has decided. `previous` is the id of the partition's last anchor; `waiting` says that
    /// the batch was given back before.
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
        waiting: Option<Waiting>,
    ) -> Result<Done> {
        let (partition, first, last) = (raw.partition(), raw.first(), raw.last());
        let failed = |error: AnchorError| {
            Error::corrupted(format!("offsets {first} to {last} of partition {partition} cannot be anchored"))
                .because(error)
        };
        let stream = self.newest_for(&stream, &raw).await;
        let decoder = match self.writers.decoder(&stream, &raw, waiting).await? {
            Found::Decoder(decoder) => decoder,
            Found::GivesBack(waiting) => return Ok(Done::GivenBack { first, previous, waiting }),
        };
        // Others that are ready meanwhile wait a little for this one, so that they share a statement.
        let mut coming = Some(self.anchorer.announce());
        let before = self.sequences_before(&stream, partition, previous).await.map_err(failed)?;
        let mut ready = self.prepare(&stream, &decoder, &raw, before.as_ref()).await?.map_err(failed)?;
        self.metrics.decoded(stream.name(), partition, &ready.quarantined);
        let mut pause = Pause::new();
        loop {
            if !self.rights_stand(&stream, &ready) {
                tracing::info!(stream = stream.name(), "rights of publishers changed: a batch is checked anew");
                ready = self.prepare(&stream, &decoder, &raw, before.as_ref()).await?.map_err(failed)?;
                continue;
            }
            let submitted = tokio::select! {
                submitted = self.anchorer.submit_announced(&ready.prepared, previous, coming.take()) => submitted,
                () = self.rights_changed(&stream, &ready) => continue,
            };
            match submitted {
                Err(error) if error.kind() == Kind::Retry => self.wait(&mut pause, &stream, &error).await,
                decided => {
                    let outcome = decided.map_err(failed)?;
                    self.keep_sequences(&stream, partition, &outcome, ready.checked);
                    return Ok(Done::Decided(outcome));
                }
            }
        }
    }

    /// What a batch is decoded by. Where values name a schema that is not known here, it is asked first whether the chain
    /// has it by now: whoever writes by it may have seen the update earlier.
    async fn newest_for(&self, stream: &Arc<Stream>, raw: &RawBatch) -> Arc<Stream> {
        let newest = self.newest(stream);
        if newest.decoder.foreign_schemas(raw).is_empty() {
            return newest;
        }
        if let Err(error) = self.anchorer.follower().catch_up(CATCH_UP_PATIENCE).await {
            tracing::debug!(stream = stream.name(), %error, "whether the chain has further schemas is not known");
        }
        self.newest(stream)
    }

    /// The stream with all versions of its schema that the chain has, as far as they decode.
    fn newest(&self, stream: &Arc<Stream>) -> Arc<Stream> {
        let mut known = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let first = || (stream.definition.schemas.len(), stream.clone());
        let (versions, newest) = known.entry(stream.name().to_owned()).or_insert_with(first);
        let definition = {
            let ledger = self.anchorer.follower().ledger();
            let entry = ledger.stream(stream.name()).filter(|entry| entry.definition.schemas.len() > *versions);
            entry.map(|entry| entry.definition.clone())
        };
        let Some(definition) = definition else { return newest.clone() };
        *versions = definition.schemas.len();
        match StreamDecoder::newest(&definition) {
            Ok((definition, decoder, refused)) => {
                self.metrics.schema_update(&definition, refused.as_ref());
                *newest = Arc::new(Stream { definition: Arc::new(definition), decoder });
            }
            Err(error) => self.metrics.schema_update(&definition, Some(&error)),
        }
        newest.clone()
    }

    /// The partition's sequences before a batch; none where the stream takes no signatures.
    async fn sequences_before(
        &self,
        stream: &Stream,
        partition: Partition,
        previous: Digest,
    ) -> std::result::Result<Option<Sequences>, AnchorError> {
        if stream.definition.signatures == Signatures::Refused {
            return Ok(None);
        }
        let place = (stream.name().to_owned(), partition);
        let kept = self.kept().get(&place).filter(|(id, _)| *id == previous).map(|(_, sequences)| sequences.clone());
        if kept.is_some() {
            return Ok(kept);
        }
        let mut pause = Pause::new();
        loop {
            match self.anchorer.sequences(stream.name(), partition, previous).await {
                Err(error) if error.kind() == Kind::Retry => self.wait(&mut pause, stream, &error).await,
                decided => return decided.map(Some),
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<(String, Partition), (Digest, Sequences)>> {
        self.sequences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_sequences(&self, stream: &Stream, partition: Partition, outcome: &Outcome, checked: Option<CheckedBatch>) {
        let place = (stream.name().to_owned(), partition);
        match (outcome, checked) {
            (Outcome::Anchored(anchored), Some(checked)) => {
                self.kept().insert(place, (anchored.id, checked.sequences));
            }
            _ => drop(self.kept().remove(&place)),
        }
    }

    /// Waits until the rights of a batch's publishers are not what they were.
    async fn rights_changed(&self, stream: &Stream, ready: &Ready) {
        let mut heights = self.anchorer.follower().subscribe();
        while self.rights_stand(stream, ready) {
            if heights.changed().await.is_err() {
                // The follower has ended: what is submitted says so.
                std::future::pending::<()>().await;
            }
        }
    }

    fn rights_stand(&self, stream: &Stream, ready: &Ready) -> bool {
        let stand =
            |checked: &CheckedBatch| checked.rights_stand(&stream.definition, &self.anchorer.follower().ledger());
        ready.checked.as_ref().is_none_or(stand)
    }

    /// Says and counts that a step has to be done again, and waits before that.
    async fn wait(&self, pause: &mut Pause, stream: &Stream, error: &AnchorError) {
        tracing::warn!(stream = stream.name(), %error, "a batch waits, and is tried again");
        self.anchorer.count_retry(stream.name(), error);
        pause.pass().await;
    }

    /// Decodes a batch and makes it durable, again and again while the store fails.
    ///
    /// Nothing but the raw records is held between two attempts, and no turn to seal: one batch that cannot be stored, or a
    /// store that fails for all, keeps no other batch from its turn and no columns in memory.
    async fn prepare(
        &self,
        stream: &Arc<Stream>,
        decoder: &Arc<BatchDecoder>,
        raw: &RawBatch,
        before: Option<&Sequences>,
    ) -> Result<std::result::Result<Ready, AnchorError>> {
        let mut pause = Pause::new();
        loop {
            match self.prepare_once(stream, decoder, raw, before).await? {
                Err(error) if error.kind() == Kind::Retry => self.wait(&mut pause, stream, &error).await,
                decided => return Ok(decided),
            }
        }
    }

    async fn prepare_once(
        &self,
        stream: &Arc<Stream>,
        decoder: &Arc<BatchDecoder>,
        raw: &RawBatch,
        before: Option<&Sequences>,
    ) -> Result<std::result::Result<Ready, AnchorError>> {
        let closed = |error| Error::bug("the sealing of batches was closed").because(error);
        let _permit = self.seals.acquire().await.map_err(closed)?;
        let (decoding, before, follower) = (stream.clone(), before.cloned(), self.anchorer.follower().clone());
        let by = decoder.clone();
        // Clones of columns share their buffers.
        let (raw, records) = (raw.clone(), raw.clone());
        let work = move || {
            let before = before.unwrap_or_default();
            let checked = signatures::check(&decoding.definition, &records, &before, || follower.ledger());
            by.decoder.decode_authentic(&records, &checked.verdicts).map(|decoded| (checked, decoded))
        };
        let (checked, mut decoded) = tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::bug("decoding a batch did not finish").because(error))??;
        let quarantined = std::mem::take(&mut decoded.quarantined);
        let columns = DecodedColumns::from(decoded).with_sequences(&checked.sequences);
        let columns = columns.with_writer_schemas(&decoder.schemas);
        let checked = (stream.definition.signatures != Signatures::Refused).then_some(checked);
        let prepared = self.anchorer.prepare(&stream.definition, &raw, &columns).await;
        Ok(prepared.map(|prepared| Ready { prepared, checked, quarantined }))
    }
}

/// Growing pauses between attempts.
struct Pause(Duration);

impl Pause {
    fn new() -> Self {
        Self(PAUSE_MIN)
    }

    async fn pass(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(PAUSE_MAX);
    }
}
