//! Tables published as streams, as ingest would have: decoded, sealed, stored, anchored.
//!
//! Each record is decoded from its Avro bytes by the stream's schema, hashed, and written into a segment of the default
//! size with its hash tree. Anchors are signed statements that the chain's own state machine takes, in this process.
//! Kafka and the validators' agreement are left out: neither changes a byte of a segment.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use cairn_anchor::raw::RawBatchBuilder;
use cairn_anchor::seal::{Sealed, new_secret, seal};
use cairn_anchor::store::SegmentStore;
use cairn_chain_client::AnchorEntry;
use cairn_chain_state::{Applied, BlockTime, State, StrictSignatures};
use cairn_ingest::StreamDecoder;
use cairn_proof::genesis::Genesis;
use cairn_proof::identity::SigningKey;
use cairn_proof::statement::{
    BatchLimits, Body, Format, SchemaVersion, Signatures, Statement, StreamDefinition, statement_id,
};
use cairn_proof::{Digest, Height, Offset, Partition, Sequence};
use cairn_query::{FixedSnapshots, Snapshot, StreamAt};

use super::tables::{NAMES, Table};

/// 2026-01-01T00:00:00Z in milliseconds: the time of each stream's first record; the others follow by a millisecond.
pub(super) const FIRST_RECORD_MS: i64 = 1_767_225_600_000;
/// Blocks come a second apart.
const BLOCK_MS: u64 = 1_000;

/// A chain in this process, and what it knows.
pub(crate) struct Chain {
    genesis: Genesis,
    owner: SigningKey,
    ingest: SigningKey,
    state: State,
    height: Height,
    streams: Vec<(Arc<StreamDefinition>, Height, Vec<Arc<AnchorEntry>>)>,
}

impl Chain {
    pub(crate) fn new() -> Self {
        let (owner, ingest) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let genesis = crate::replay::genesis(&owner, &ingest);
        let state = State::genesis(&genesis);
        Self { genesis, owner, ingest, state, height: Height(0), streams: Vec::new() }
    }

    fn block_time_ms(&self) -> u64 {
        FIRST_RECORD_MS.unsigned_abs() + self.height.0 * BLOCK_MS
    }

    /// Signs and applies a statement, in a block of its own.
    fn say(&mut self, key: &SigningKey, body: Body) -> Result<(Vec<u8>, Applied)> {
        let signer = key.identity();
        let sequence = Sequence(self.state.sequence(&signer).0 + 1);
        let envelope = Statement { signer, sequence, body }.sign(key, &self.genesis.tag())?;
        self.height = self.height.next();
        let at = BlockTime { height: self.height, timestamp_ms: self.block_time_ms() };
        let applied = self.state.apply(&at, &envelope, &StrictSignatures)?;
        Ok((envelope, applied))
    }

    pub(crate) fn register(&mut self, definition: StreamDefinition) -> Result<Arc<StreamDefinition>> {
        let owner = self.owner.clone();
        self.say(&owner, Body::RegisterStream(definition.clone()))?;
        let definition = Arc::new(definition);
        self.streams.push((Arc::clone(&definition), self.height, Vec::new()));
        Ok(definition)
    }

    /// Anchors the next batch of the stream that was registered last.
    pub(crate) fn anchor(&mut self, mut anchor: cairn_proof::statement::Anchor) -> Result<()> {
        let ingest = self.ingest.clone();
        let (_, _, entries) = self.streams.last().context("no stream is registered")?;
        let before = entries.iter().rfind(|entry| entry.anchor.partition == anchor.partition);
        anchor.previous = before.map_or(Digest::ZERO, |entry| entry.id);
        let (statement, applied) = self.say(&ingest, Body::Anchor(anchor.clone()))?;
        let entry = AnchorEntry {
            anchor,
            id: statement_id(&statement),
            statement: statement.into(),
            signer: ingest.identity(),
            place: None,
            log_index: applied.log_index.context("an anchor that is not in the log")?,
            height: self.height,
            block_timestamp_ms: self.block_time_ms(),
        };
        let (_, _, entries) = self.streams.last_mut().context("no stream is registered")?;
        entries.push(Arc::new(entry));
        Ok(())
    }

    /// The definition of a stream that an anchorer of this chain may anchor.
    pub(crate) fn definition(&self, name: &str, schema: &str) -> StreamDefinition {
        StreamDefinition {
            name: name.to_owned(),
            topic: name.to_owned(),
            partitions: 1,
            format: Format::Avro,
            schemas: vec![SchemaVersion { id: 1, text: schema.to_owned() }],
            key_fields: vec![],
            event_time: None,
            limits: BatchLimits::default(),
            gaps_allowed: false,
            anchorers: vec![self.ingest.identity()],
            signatures: Signatures::default(),
        }
    }

    /// The newest block.
    pub(crate) fn height(&self) -> Height {
        self.height
    }

    /// A stream and its anchors, as of a height.
    pub(crate) fn stream(&self, name: &str, at: Height) -> Option<(Arc<StreamDefinition>, Vec<Arc<AnchorEntry>>)> {
        let (definition, _, anchors) = self.streams.iter().find(|(definition, ..)| definition.name == name)?;
        let anchors = anchors.iter().filter(|entry| entry.height <= at).cloned().collect();
        Some((Arc::clone(definition), anchors))
    }

    /// What statements see of it at some heights.
    pub(crate) fn snapshots(&self, heights: &[Height]) -> FixedSnapshots {
        let tag = self.genesis.tag();
        FixedSnapshots::new(heights.iter().map(|at| self.snapshot(*at)).collect()).of_chain(tag)
    }

    fn snapshot(&self, at: Height) -> Snapshot {
        let known = self.streams.iter().filter(|(_, registered, _)| *registered <= at);
        let streams = known.map(|(definition, registered, anchors)| StreamAt {
            definition: Arc::clone(definition),
            owner: self.owner.identity(),
            registered: *registered,
            anchors: anchors.iter().filter(|entry| entry.height <= at).cloned().collect(),
        });
        Snapshot { streams: streams.collect(), ..Snapshot::empty(at) }
    }
}

/// What was published.
pub(super) struct Published {
    pub(super) chain: Chain,
    pub(super) records: u64,
    pub(super) segments: u64,
    pub(super) bytes: u64,
}

/// Publishes all tables at a scale factor into a folder of objects.
pub(super) async fn publish(objects: &Path, scale: f64) -> Result<Published> {
    let mut published = Published { chain: Chain::new(), records: 0, segments: 0, bytes: 0 };
    let store = SegmentStore::on_disk(objects)?;
    for name in NAMES {
        let table = Table::open(name, scale, BatchLimits::default().records_max as usize)?;
        let definition = published.chain.definition(&format!("tpch.{name}"), &table.schema);
        let definition = published.chain.register(definition)?;
        for sealed in seal_table(definition, table).await? {
            store.put(&sealed).await?;
            published.records += sealed.anchor.count;
            published.segments += 1;
            published.bytes += sealed.segment.len() as u64;
            published.chain.anchor(sealed.anchor)?;
        }
    }
    Ok(published)
}

/// Seals a table's batches on all processors, and gives them in order.
async fn seal_table(definition: Arc<StreamDefinition>, table: Table) -> Result<Vec<Sealed>> {
    let decoder = Arc::new(StreamDecoder::new(&definition)?);
    // The table, and the offset of its next record.
    let source = Arc::new(Mutex::new((table, 0_u64)));
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let tasks: Vec<_> = (0..workers)
        .map(|_| {
            let (definition, decoder, source) = (Arc::clone(&definition), Arc::clone(&decoder), Arc::clone(&source));
            tokio::task::spawn_blocking(move || {
                let mut sealed = Vec::new();
                while let Some(batch) = seal_next(&definition, &decoder, &source)? {
                    sealed.push(batch);
                }
                anyhow::Ok(sealed)
            })
        })
        .collect();
    let mut sealed = Vec::new();
    for task in tasks {
        sealed.extend(task.await??);
    }
    sealed.sort_by_key(|batch| batch.anchor.first);
    Ok(sealed)
}

fn seal_next(
    definition: &StreamDefinition,
    decoder: &StreamDecoder,
    source: &Mutex<(Table, u64)>,
) -> Result<Option<Sealed>> {
    let (values, first) = {
        let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(values) = source.0.next_values()? else { return Ok(None) };
        let first = source.1;
        source.1 += values.len() as u64;
        (values, first)
    };
    let mut batch = RawBatchBuilder::new(Partition(0), Offset(first));
    for row in 0..values.len() {
        let (value, offset) = (values.row(row)?, first + row as u64);
        let time = FIRST_RECORD_MS + i64::try_from(offset)?;
        batch.append(Offset(offset), time, None, Some(&value), &[])?;
    }
    let raw = batch.finish()?;
    let decoded = decoder.decode_batch(&raw)?;
    anyhow::ensure!(decoded.quarantined.is_empty(), "a record of {} does not decode", definition.name);
    Ok(Some(seal(definition, &raw, &decoded.into(), new_secret()?, Digest::ZERO)?))
}
