//! Whether what SQL answers is what the broker holds, and the audit passes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use cairn_ingest::topics::{TopicSpec, probe};
use serde_json::{Map, Value, json};

use super::roles::Network;
use super::{PARTITIONS, STREAM, tell, text_of};

/// Seconds until all records must be anchored once nobody is hit any more.
const ANCHORED_WITHIN: &str = "300";

/// How many records are visible; nothing while query cannot answer.
pub(super) fn count(network: &Network) -> Option<u64> {
    let sql = format!("SELECT count(*) FROM {STREAM}");
    let answer = network.run(&["sql", &sql, "--format", "csv"]).ok()?;
    answer.lines().nth(1)?.trim().parse().ok()
}

/// Partition and offset.
type Place = (i32, i64);

/// What SQL answers.
struct Visible {
    /// Number and text.
    rows: BTreeMap<Place, (u64, String)>,
    /// How many rows came twice.
    doubled: u64,
}

fn visible(network: &Network) -> Result<Visible> {
    let sql = format!("SELECT _partition, _offset, number, text FROM {STREAM}");
    let answer = network.run(&["sql", &sql, "--format", "csv"])?;
    let (mut rows, mut doubled) = (BTreeMap::new(), 0);
    for line in answer.lines().skip(1) {
        let mut cells = line.splitn(4, ',');
        let mut next = || cells.next().with_context(|| format!("a row with four cells, not {line:?}"));
        let at = (next()?.parse()?, next()?.parse()?);
        let row = (next()?.parse()?, next()?.to_owned());
        doubled += u64::from(rows.insert(at, row).is_some());
    }
    Ok(Visible { rows, doubled })
}

/// Every partition and offset that the broker has. Without transactions and compaction each is a record.
async fn held(network: &Network) -> Result<BTreeSet<Place>> {
    let topic = TopicSpec { topic: STREAM.into(), partitions: PARTITIONS };
    let mut held = BTreeSet::new();
    for ((_, partition), ends) in probe(&network.kafka(), &[topic]).await? {
        let partition = i32::try_from(partition.0)?;
        held.extend((i64::try_from(ends.start.0)?..i64::try_from(ends.end.0)?).map(|offset| (partition, offset)));
    }
    Ok(held)
}

/// Waits until everything is anchored, and compares.
pub(super) async fn everything(network: &mut Network, published: u64) -> Result<Map<String, Value>> {
    network.revive().await?;
    network.run(&["status", "--wait-anchored", ANCHORED_WITHIN])?;
    let Visible { rows, doubled } = visible(network)?;
    let quarantined = network.run(&["sql", "SELECT count(*) FROM cairn.quarantine", "--format", "csv"])?;
    let quarantined: u64 = quarantined.lines().nth(1).unwrap_or_default().trim().parse()?;
    let held = held(network).await?;
    let lost = held.iter().filter(|at| !rows.contains_key(at)).count();
    let invented = rows.keys().filter(|at| !held.contains(at)).count();
    let changed = rows.values().filter(|(number, text)| text_of(*number) != *text).count();
    let mut times = vec![0_u64; usize::try_from(published)?];
    for (number, _) in rows.values() {
        let times = times.get_mut(usize::try_from(*number)?);
        *times.with_context(|| format!("record {number} was never published"))? += 1;
    }
    let missing = times.iter().filter(|times| **times == 0).count();
    let sent_twice = times.iter().filter(|times| **times > 1).count();
    tell("auditing");
    let audit = network.output(&["audit"])?;
    let mut figures = Map::new();
    for (name, value) in [
        ("published", published),
        ("visible", rows.len() as u64),
        ("lost", (lost + missing) as u64),
        ("doubled", doubled + invented as u64),
        ("changed", changed as u64),
        ("quarantined", quarantined),
        ("twice in the topic", sent_twice as u64),
    ] {
        figures.insert(name.into(), json!(value));
    }
    figures.insert("audit".into(), json!(audit.status.code()));
    let told = String::from_utf8_lossy(&audit.stdout);
    ensure!(audit.status.success(), "the audit failed: {told}{}", String::from_utf8_lossy(&audit.stderr));
    let good = [lost, missing, invented, changed].iter().all(|count| *count == 0) && doubled == 0 && quarantined == 0;
    ensure!(good, "records do not fit: {}", serde_json::to_string(&figures)?);
    Ok(figures)
}
