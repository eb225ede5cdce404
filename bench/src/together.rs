//! What anchors cost the chain that share a statement, against anchors alone: bytes in a block, and time to apply.

use std::hint::black_box;

use anyhow::{Context as _, Result};
use cairn_chain_state::{BlockTime, State, StrictSignatures};
use cairn_proof::genesis::Genesis;
use cairn_proof::identity::SigningKey;
use cairn_proof::statement::{
    Anchor, BatchLimits, Body, Format, LoggedAnchor, SchemaVersion, SegmentRef, Statement, StreamDefinition,
    log_entries, statement_id,
};
use cairn_proof::{Digest, Height, Offset, Partition, Sequence};
use serde_json::{Map, Value, json};

use crate::replay;

/// How many anchors share a statement; 1: each has its own.
const SHARED: [u32; 4] = [1, 8, 32, 128];
/// Partitions, each of which is anchored in every turn.
const PARTITIONS: u32 = 128;
const TURNS: u64 = 40;

/// A path as ingest names its segments.
fn segment(partition: u32, first: u64) -> SegmentRef {
    let blake3 = Digest([2; 32]);
    SegmentRef { path: format!("segments/traffic.flow/{partition}/{first:020}-{blake3}.parquet"), size: 90_000, blake3 }
}

/// A stream, and turns of anchors of all its partitions, so many of them in each statement.
fn statements(genesis: &Genesis, owner: &SigningKey, ingest: &SigningKey, shared: u32) -> Result<Vec<Vec<u8>>> {
    let schema = SchemaVersion { id: 1, text: "\"string\"".into() };
    let fingerprint = schema.fingerprint();
    let definition = StreamDefinition {
        name: "traffic.flow".into(),
        topic: "traffic.flow".into(),
        partitions: PARTITIONS,
        format: Format::Avro,
        schemas: vec![schema],
        key_fields: vec![],
        event_time: None,
        limits: BatchLimits::default(),
        gaps_allowed: false,
        anchorers: vec![ingest.identity()],
        signatures: cairn_proof::statement::Signatures::default(),
    };
    let sign = |key: &SigningKey, sequence, body| {
        Statement { signer: key.identity(), sequence: Sequence(sequence), body }.sign(key, &genesis.tag())
    };
    let mut all = vec![sign(owner, 1, Body::RegisterStream(definition))?];
    let mut heads = vec![Digest::ZERO; PARTITIONS as usize];
    for turn in 0..TURNS {
        for group in heads.chunks_mut(shared as usize).enumerate() {
            let first_partition = u32::try_from(group.0)? * shared;
            let anchor = |(partition, previous): (u32, &Digest)| Anchor {
                stream: "traffic.flow".into(),
                partition: Partition(partition),
                first: Offset(turn * 10_000),
                last: Offset(turn * 10_000 + 9_999),
                gaps: vec![],
                count: 10_000,
                quarantined: 0,
                records_root: Digest([1; 32]),
                timestamp_min_ms: 1_700_000_000_000,
                timestamp_max_ms: 1_700_000_001_000,
                schema_fingerprint: fingerprint,
                segment: segment(partition, turn * 10_000),
                previous: *previous,
            };
            let mut anchors: Vec<Anchor> = (first_partition..).zip(group.1.iter()).map(anchor).collect();
            let body = if shared == 1 { Body::Anchor(anchors.remove(0)) } else { Body::Anchors(anchors) };
            let statement = sign(ingest, all.len() as u64, body)?;
            for (head, entry) in group.1.iter_mut().zip(log_entries(&statement)) {
                *head = statement_id(&entry);
            }
            all.push(statement);
        }
    }
    Ok(all)
}

/// Measures each size of statements in turn.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn run(rounds: usize) -> Result<Map<String, Value>> {
    let (owner, ingest) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
    let genesis = replay::genesis(&owner, &ingest);
    let made = SHARED.map(|shared| statements(&genesis, &owner, &ingest, shared));
    let made = made.into_iter().collect::<Result<Vec<_>>>()?;
    let anchors = u64::from(PARTITIONS) * TURNS;
    let applied = std::cell::Cell::new(0);
    let apply = |statements: &Vec<Vec<u8>>| {
        let mut state = State::genesis(&genesis);
        let at = BlockTime { height: Height(1), timestamp_ms: 2 };
        for statement in statements {
            let _ = black_box(state.apply(&at, statement, &StrictSignatures));
        }
        applied.set(applied.get() + state.log_size().0);
        black_box(state.root());
    };
    let mut contenders: Vec<Box<dyn FnMut()>> =
        made.iter().map(|statements| Box::new(|| apply(statements)) as Box<dyn FnMut()>).collect();
    let mut contenders: Vec<&mut dyn FnMut()> = contenders.iter_mut().map(|run| &mut **run as _).collect();
    let times = crate::medians(rounds, &mut contenders);
    let expected = anchors * SHARED.len() as u64 * rounds.max(1) as u64;
    (applied.get() == expected).then_some(()).context("a statement was refused")?;
    let mut figures = Map::new();
    let rounded = |value: f64| json!((value * 100.0).round() / 100.0);
    let microseconds = |index: usize| times[index].as_nanos() as f64 / anchors as f64 / 1000.0;
    for (index, (shared, statements)) in SHARED.iter().zip(&made).enumerate() {
        let bytes: usize = statements.iter().skip(1).map(Vec::len).sum();
        let entry = log_entries(&statements[1]).first().map(|entry| entry.to_vec()).unwrap_or_default();
        LoggedAnchor::decode(&entry)?;
        figures.insert(format!("together_{shared}_bytes_per_anchor"), rounded(bytes as f64 / anchors as f64));
        figures.insert(format!("together_{shared}_log_entry_bytes"), json!(entry.len()));
        figures.insert(format!("together_{shared}_statements"), json!(statements.len() - 1));
        figures.insert(format!("together_{shared}_apply_us_per_anchor"), rounded(microseconds(index)));
        figures.insert(format!("together_{shared}_apply_over_alone"), rounded(microseconds(index) / microseconds(0)));
    }
    Ok(figures)
}
