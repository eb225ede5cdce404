//! Record in Kafka → anchored, while records come at a given rate.
//!
//! A record's time is the one in it, taken when it is handed to the producer; it is anchored when ingest knows that its
//! anchor is final. Both by the clock of this machine. The producer's own wait for a batch is part of it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cairn_ingest::Publisher;
use cairn_proof::statement::{BatchLimits, Signatures};
use serde_json::{Map, Value, json};

use super::load::{COLUMNS, Readings, Topic, now_ms};
use super::{Bench, progress, raw};

/// Records are handed over in portions, so often.
const PORTION: Duration = Duration::from_millis(5);

/// Publishes at `rate` records a second.
async fn publish(bench: &Bench, topic: &Topic, rate: u64) -> Result<()> {
    let mut publisher = Publisher::new(&bench.kafka, &topic.definition)?;
    let binding = publisher.encoder().bind(&COLUMNS)?;
    let mut readings = Readings::new();
    let mut portions = tokio::time::interval(PORTION);
    let (started, mut sent) = (Instant::now(), 0);
    while sent < topic.records {
        portions.tick().await;
        let due = u64::try_from(started.elapsed().as_micros())?.saturating_mul(rate) / 1_000_000;
        while sent < due.min(topic.records) {
            publisher.send(&binding, &readings.row(now_ms())).await?;
            sent += 1;
        }
    }
    let took = started.elapsed().as_secs_f64();
    publisher.flush().await?;
    #[allow(clippy::cast_precision_loss)]
    let reached = sent as f64 / took;
    progress(&format!("lag: published {reached:.0} records a second"));
    Ok(())
}

/// Lag at the given rate, after a third of the time to warm up.
pub(super) async fn measure(bench: &Bench, partitions: u32, rate: u64, seconds: u64) -> Result<Map<String, Value>> {
    let topic =
        Topic::empty(&bench.kafka, "bench.lag", partitions, rate * seconds, Signatures::Refused, &bench.people).await?;
    progress(&format!("lag at {rate} records a second"));
    let (done, folder) = bench.anchor(&topic, publish(bench, &topic, rate)).await?;
    std::fs::remove_dir_all(&folder)?;
    let records = raw::timestamps(&bench.kafka, &topic).await?;
    let first = records.iter().flatten().map(|(_, time)| *time).min().unwrap_or_default();
    let warm = first + seconds * 1_000 / 3;
    let mut lags = Vec::new();
    for (partition, records) in records.iter().enumerate() {
        let mut heads = done.heads.iter().filter(|(_, of, _)| *of as usize == partition).peekable();
        for (offset, time) in records {
            while heads.next_if(|(_, _, next)| next <= offset).is_some() {}
            let Some((at, ..)) = heads.peek() else { continue };
            if *time >= warm {
                lags.push((at / 1_000).saturating_sub(*time));
            }
        }
    }
    ensure!(!lags.is_empty(), "no record was measured");
    lags.sort_unstable();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let at = |share: f64| lags[((lags.len() as f64 * share) as usize).min(lags.len() - 1)];
    let mut figures = Map::new();
    figures.insert("lag_records".into(), json!(lags.len()));
    figures.insert("lag_records_per_second".into(), json!(rate));
    figures.insert("lag_batch_age_ms".into(), json!(BatchLimits::default().age_ms_max));
    figures.insert("lag_p50_ms".into(), json!(at(0.5)));
    figures.insert("lag_p99_ms".into(), json!(at(0.99)));
    figures.insert("lag_p99_9_ms".into(), json!(at(0.999)));
    Ok(figures)
}
