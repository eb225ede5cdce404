//! How long a plan over many segments takes: nothing is opened, so the chain's facts are all that there is.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use cairn_anchor::roots::{Roots, segment_path};
use cairn_anchor::store::SegmentStore;
use cairn_chain_client::AnchorEntry;
use cairn_proof::digest::sha256;
use cairn_proof::identity::SigningKey;
use cairn_proof::statement::{Anchor, SegmentRef};
use cairn_proof::{Digest, Height, LeafIndex, Offset, Partition};
use cairn_query::{Engine, FixedSnapshots, QueryConfig, Snapshot, StreamAt};
use prometheus::Registry;
use serde_json::{Map, Value, json};

use super::publish::{Chain, FIRST_RECORD_MS};

/// How many segments the stream has.
const SEGMENTS: u32 = 100_000;
/// In how many partitions.
const PARTITIONS: u32 = 8;
/// Records of one segment, a millisecond apart.
const RECORDS: u64 = 1_000;

const SCHEMA: &str = r#"{"type":"record","name":"Flow","fields":[
    {"name":"detector","type":"string"},{"name":"vehicles","type":"int"}]}"#;

fn entry(number: u32) -> Result<AnchorEntry> {
    let (partition, place) = (Partition(number % PARTITIONS), u64::from(number / PARTITIONS));
    let (first, last) = (Offset(place * RECORDS), Offset(place * RECORDS + RECORDS - 1));
    let blake3 = sha256(&[b"segment", &number.to_be_bytes()]);
    let time = |offset: Offset| FIRST_RECORD_MS + i64::try_from(offset.0).unwrap_or(i64::MAX);
    let anchor = Anchor {
        stream: "traffic.flow".to_owned(),
        partition,
        first,
        last,
        gaps: vec![],
        count: RECORDS,
        quarantined: 0,
        records_root: Digest::ZERO,
        timestamp_min_ms: time(first),
        timestamp_max_ms: time(last),
        schema_fingerprint: Digest::ZERO,
        segment: SegmentRef {
            path: segment_path("traffic.flow", partition, first, blake3)?.to_string(),
            size: 100_000,
            blake3,
        },
        previous: Digest::ZERO,
    };
    Ok(AnchorEntry {
        anchor,
        id: blake3,
        statement: Arc::from(Vec::new()),
        signer: SigningKey::from_seed(&[2; 32]).identity(),
        place: None,
        log_index: LeafIndex(u64::from(number)),
        height: Height(2 + place),
        block_timestamp_ms: FIRST_RECORD_MS.unsigned_abs() + place * RECORDS,
    })
}

/// Median milliseconds of planning each kind of statement, and of the first statement at a new height.
pub(super) async fn run(rounds: usize) -> Result<Map<String, Value>> {
    let folder = tempfile::tempdir()?;
    let mut definition = Chain::new().definition("traffic.flow", SCHEMA);
    definition.partitions = PARTITIONS;
    let definition = Arc::new(definition);
    let anchors = (0..SEGMENTS).map(|number| Ok(Arc::new(entry(number)?))).collect::<Result<Arc<[_]>>>()?;
    let height = Height(2 + u64::from(SEGMENTS / PARTITIONS));
    let at = |height: Height| Snapshot {
        streams: vec![StreamAt {
            definition: Arc::clone(&definition),
            owner: SigningKey::from_seed(&[1; 32]).identity(),
            registered: Height(1),
            anchors: Arc::clone(&anchors),
        }],
        ..Snapshot::empty(height)
    };
    let rounds = rounds.max(1);
    let heights = (0..=rounds as u64).map(|later| at(Height(height.0 + later))).collect();
    let store = SegmentStore::on_disk(&folder.path().join("objects"))?.verified(Arc::new(Roots::new()))?;
    let engine = Engine::new(QueryConfig::default(), Arc::new(FixedSnapshots::new(heights)), store, &Registry::new())?;
    let session = engine.session()?;
    let mut figures = Map::new();
    figures.insert("planning_segments".into(), json!(SEGMENTS));
    let look_up = "SELECT vehicles FROM traffic.flow WHERE _timestamp = '2026-01-01T01:00:00Z'";
    for (name, sql) in [
        ("planning_ms_by_time", look_up),
        ("planning_ms_by_offset", "SELECT vehicles FROM traffic.flow WHERE _partition = 3 AND _offset = 5000123"),
        ("planning_ms_by_block", "SELECT vehicles FROM traffic.flow WHERE _block = 777"),
        ("planning_ms_count", "SELECT count(*) FROM traffic.flow"),
        ("planning_ms_of_all_segments", "SELECT sum(vehicles) FROM traffic.flow"),
    ] {
        session.set("cairn.as_of", Some(&height.0.to_string()))?;
        let mut times = Vec::new();
        for round in 0..=rounds {
            let started = Instant::now();
            Box::pin(session.sql(&format!("EXPLAIN {sql}"))).await?;
            if round > 0 {
                times.push(started.elapsed().as_secs_f64() * 1e3);
            }
        }
        figures.insert(name.into(), json!(super::rounded(super::median(&mut times))));
    }
    let mut times = Vec::new();
    for later in 1..=rounds as u64 {
        session.set("cairn.as_of", Some(&(height.0 + later).to_string()))?;
        let started = Instant::now();
        Box::pin(session.sql(&format!("EXPLAIN {look_up}"))).await?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    figures.insert("planning_ms_by_time_at_a_new_height".into(), json!(super::rounded(super::median(&mut times))));
    Ok(figures)
}
