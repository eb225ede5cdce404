//! What it costs to make records provable: salt, canonical bytes, leaf, tree; against SHA-256 of the same bytes.

use std::hint::black_box;

use cairn_proof::record::{BatchSecret, Record, RecordHasher};
use cairn_proof::{LeafIndex, Offset, Partition, tree};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

const RECORDS: u64 = 65_536;
const VALUE_BYTES: usize = 200;

/// Measures one batch of records of 200 bytes.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn run(rounds: usize) -> Map<String, Value> {
    let values: Vec<Vec<u8>> = (0..RECORDS).map(|index| index.to_le_bytes().repeat(VALUE_BYTES / 8)).collect();
    let secret = BatchSecret([7; 32]);
    let canonical: Vec<Vec<u8>> = (0u64..)
        .zip(&values)
        .map(|(index, value)| {
            let record = Record {
                topic: "traffic.flow",
                partition: Partition(3),
                offset: Offset(1_000_000_000 + index),
                timestamp_ms: 1_700_000_000_000,
                key: Some(b"detector-00017"),
                value: Some(value),
                headers: &[],
            };
            let mut bytes = vec![tree::LEAF_PREFIX];
            record.write_canonical(&secret.salt(LeafIndex(index)), &mut bytes);
            bytes
        })
        .collect();
    let mut bare = || {
        for bytes in &canonical {
            black_box(Sha256::digest(bytes));
        }
    };
    let mut provable = || {
        let mut hasher = RecordHasher::new("traffic.flow", Partition(3), secret.clone());
        let leaves: Vec<_> = (0u64..)
            .zip(&values)
            .map(|(index, value)| {
                let (index, offset) = (LeafIndex(index), Offset(1_000_000_000 + index));
                let key: &[u8] = b"detector-00017";
                hasher.leaf(index, offset, 1_700_000_000_000, Some(key), Some(value), std::iter::empty())
            })
            .collect();
        black_box(tree::root(&leaves));
    };
    let times = crate::medians(rounds, &mut [&mut bare, &mut provable]);
    let nanoseconds = |index: usize| times[index].as_nanos() as f64 / RECORDS as f64;
    let mut figures = Map::new();
    figures.insert("sha256_ns_per_record".into(), json!(nanoseconds(0).round()));
    figures.insert("leaf_and_tree_ns_per_record".into(), json!(nanoseconds(1).round()));
    figures
        .insert("leaf_and_tree_over_sha256".into(), json!((nanoseconds(1) / nanoseconds(0) * 100.0).round() / 100.0));
    figures.insert("provable_records_per_second".into(), json!((1e9 / nanoseconds(1)).round()));
    figures
}
