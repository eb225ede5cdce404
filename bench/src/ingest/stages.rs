//! Where the time goes between Kafka and the chain: one batch, one core, each step by itself, and all of them as ingest does them.

use std::hint::black_box;

use anyhow::Result;
use cairn_anchor::outboard::Outboard;
use cairn_anchor::raw::{RawBatch, RawBatchBuilder};
use cairn_anchor::seal::{DecodedColumns, seal};
use cairn_anchor::segment::{self, Columns};
use cairn_ingest::StreamDecoder;
use cairn_proof::record::BatchSecret;
use cairn_proof::statement::Signatures;
use cairn_proof::{Digest, Offset, Partition, tree};
use serde_json::{Map, Value};

use super::{load, rounded};

/// Records of the batch: as many as one holds by default.
const RECORDS: u64 = 65_536;

fn raw_batch(values: &[Vec<u8>]) -> Result<RawBatch> {
    let mut builder = RawBatchBuilder::new(Partition(0), Offset(0));
    for (offset, value) in values.iter().enumerate() {
        let key = format!("meter-{:08}", offset % 50_000);
        let timestamp = 1_700_000_000_000 + i64::try_from(offset)?;
        builder.append(Offset(offset as u64), timestamp, Some(key.as_bytes()), Some(value.as_slice()), &[])?;
    }
    Ok(builder.finish()?)
}

/// Nanoseconds a record of each step.
#[allow(clippy::cast_precision_loss)]
pub(super) fn measure(rounds: usize) -> Result<Map<String, Value>> {
    let ingest = cairn_proof::identity::SigningKey::from_seed(&[1; 32]);
    let definition = load::definition("bench.stages", 1, Signatures::Refused, &ingest);
    let decoder = StreamDecoder::new(&definition)?;
    let values = load::values(&definition, RECORDS)?;
    let raw = raw_batch(&values)?;
    let columns = DecodedColumns::from(decoder.decode_batch(&raw)?);
    let secret = BatchSecret([3; 32]);
    let sealed = seal(&definition, &raw, &columns, secret.clone(), Digest::ZERO)?;
    let rows = segment::read(sealed.segment.clone(), RECORDS, Columns::All)?;
    let leaves = raw.leaves(&definition.topic, &secret);

    let mut take_in = || drop(black_box(raw_batch(&values)));
    let mut decode = || drop(black_box(decoder.decode_batch(&raw)));
    let mut leaf = || drop(black_box(raw.leaves(&definition.topic, &secret)));
    let mut root = || {
        black_box(tree::root(&leaves));
    };
    let mut parquet = || drop(black_box(segment::write(&rows)));
    let mut blake3 = || drop(black_box(Outboard::of(&sealed.segment)));
    let mut all = || {
        let batch = decoder.decode_batch(&raw).map(DecodedColumns::from);
        drop(black_box(batch.map(|columns| seal(&definition, &raw, &columns, secret.clone(), Digest::ZERO))));
    };
    let names = ["take in", "decode", "leaf hash", "tree", "Parquet", "BLAKE3", "decode and seal"];
    let times = crate::medians(
        rounds,
        &mut [&mut take_in, &mut decode, &mut leaf, &mut root, &mut parquet, &mut blake3, &mut all],
    );
    let figure = |(name, time): (&str, std::time::Duration)| {
        (format!("stage_ns_per_record, {name}"), rounded(time.as_nanos() as f64 / RECORDS as f64))
    };
    Ok(names.into_iter().zip(times).map(figure).collect())
}
