//! Ingest as a process of its own: reads one stream until so many records are anchored, and tells what that took.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use cairn_anchor::pipeline::Anchorer;
use cairn_anchor::secrets::SecretStore;
use cairn_anchor::store::SegmentStore;
use cairn_chain_client::{Client, Follower, FollowerConfig, Submitter};
use cairn_ingest::{Ingest, IngestConfig, KafkaConfig};
use cairn_proof::genesis::Genesis;
use cairn_proof::identity::SigningKey;
use prometheus::Registry;
use serde::{Deserialize, Serialize};

use super::usage;

const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at how far anchoring is.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Nothing new is anchored for so long: something is broken.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// What the process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) genesis: Genesis,
    /// A key of this run alone, which nobody else trusts.
    pub(super) seed: [u8; 32],
    pub(super) nodes: Vec<String>,
    pub(super) kafka: KafkaConfig,
    pub(super) folder: PathBuf,
    pub(super) stream: String,
    pub(super) records: u64,
}

/// What it tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {
    /// From the start of ingest until the last anchor was final.
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    pub(super) threads: BTreeMap<String, f64>,
    pub(super) peak_kib: u64,
    pub(super) quarantined: u64,
    /// Microseconds since 1970, partition, and the offset that the partition's next anchor begins with since then.
    pub(super) heads: Vec<(u64, u32, u64)>,
}

impl Task {
    /// Runs the process.
    pub(super) async fn run(&self) -> Result<Done> {
        let file = self.folder.join("task.json");
        std::fs::write(&file, serde_json::to_vec(self)?)?;
        let mut command = tokio::process::Command::new(std::env::current_exe()?);
        let child =
            command.arg("ingest-worker").arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = child.spawn().context("starting ingest")?;
        // Open until it has ended: it takes the end of its input for the end of this process.
        let input = child.stdin.take();
        let output = child.wait_with_output().await?;
        drop(input);
        ensure!(output.status.success(), "ingest ended with {}", output.status);
        let done: Done = serde_json::from_slice(&output.stdout)?;
        ensure!(done.quarantined == 0, "{} records of {} were quarantined", done.quarantined, self.stream);
        Ok(done)
    }
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

async fn work(task: Task) -> Result<Done> {
    let key = SigningKey::from_seed(&task.seed);
    let identity = key.identity();
    let urls = task.nodes.iter().map(|url| url.parse()).collect::<Result<Vec<_>, _>>()?;
    let client = Client::new(urls)?;
    let tag = task.genesis.tag();
    let follower = Follower::spawn(FollowerConfig { genesis: Arc::new(task.genesis), client: client.clone() });
    follower.catch_up(PATIENCE).await?;
    let registry = Registry::new();
    let segments = SegmentStore::on_disk(&task.folder.join("objects"))?.of_chain(tag);
    let secrets = SecretStore::open(&task.folder.join("secrets"), &[7; 32])?;
    let metrics = cairn_anchor::metrics::Metrics::register(&registry)?;
    let anchorer = Anchorer::new(Submitter::new(client, key, tag), follower.clone(), segments, secrets, metrics);
    let counters = cairn_ingest::metrics::Metrics::register(&registry)?;
    let (started, before) = (Instant::now(), usage::cpu_seconds());
    let running = Ingest::start(&IngestConfig::new(task.kafka), anchorer, identity, counters)?;
    let (mut heads, mut known, mut moved) = (Vec::new(), BTreeMap::new(), Instant::now());
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        for status in running.status() {
            if let Some(why) = status.stopped {
                bail!("partition {} stopped: {why}", status.partition);
            }
            if known.insert(status.partition.0, status.anchored.0) != Some(status.anchored.0) {
                heads.push((now_us(), status.partition.0, status.anchored.0));
                moved = Instant::now();
            }
        }
        let anchored: u64 = known.values().sum();
        if anchored >= task.records {
            break;
        }
        ensure!(moved.elapsed() < STUCK_AFTER, "{anchored} of {} records are anchored, then none", task.records);
    }
    let seconds = started.elapsed().as_secs_f64();
    let (cpu_seconds, threads, peak_kib) = (usage::cpu_seconds() - before, usage::threads(), usage::peak_kib());
    let quarantined = {
        let ledger = follower.ledger();
        let head = |partition: &u32| ledger.state().head(&task.stream, cairn_proof::Partition(*partition));
        known.keys().filter_map(head).map(|head| head.quarantined).sum()
    };
    running.stop().await;
    Ok(Done { seconds, cpu_seconds, threads, peak_kib, quarantined, heads })
}

/// Runs what `file` tells, and prints the outcome.
pub(crate) fn worker(file: &Path) -> Result<()> {
    let task: Task = serde_json::from_slice(&std::fs::read(file)?)?;
    // Whoever started this process does not leave it behind.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(work(task))?;
    serde_json::to_writer(std::io::stdout().lock(), &done)?;
    Ok(())
}
