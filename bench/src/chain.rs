//! The chain on one machine: validators as processes over TCP, with real disks under them.
//!
//! ```text
//! one client    one statement after the other: submit → final, p50 and p99
//! open load     several signers, a window of statements each: finalized a second, and the latency under it
//! one dead      a validator is killed: p50 again, and the longest wait
//! idle          bytes on disk that an empty block costs each validator, its certificate and epochs included
//! replay        what a follower takes in a second (see `replay`)
//! ```
//!
//! Client, signers and validators share the machine's cores: the figures are those of the whole on one machine.

pub(crate) mod city;
mod load;
pub(crate) mod network;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cairn_chain_client::{Client, StatementStatus};
use cairn_proof::parameters::Parameters;
use cairn_proof::statement::statement_id;
use cairn_proof::{Digest, Height};
use serde_json::{Map, Value, json};

use city::{City, SIGNERS, VALIDATORS};
use load::Anchors;
use network::Network;
pub(crate) use network::validator;

/// Statements of the one client.
const SINGLE: usize = 200;
/// Statements of the one client while a validator is dead.
const SINGLE_DEGRADED: usize = 100;
/// Statements in one request under load.
const REQUEST: usize = 32;
/// Statements that one signer has under way at most.
const WINDOW: usize = 256;
/// Blocks over which an idle chain's disk is measured, after as many that fill buffers.
const IDLE_BLOCKS: u64 = 600;
const IDLE_HEARTBEAT_MS: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(60);
const MILLISECONDS_A_DAY: f64 = 86_400_000.0;

/// Sorted samples.
struct Samples(Vec<Duration>);

impl Samples {
    fn new(mut samples: Vec<Duration>) -> Self {
        samples.sort();
        Self(samples)
    }

    fn milliseconds(&self, share: f64) -> Value {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let at = (self.0.len() as f64 * share) as usize;
        let sample = self.0.get(at.min(self.0.len().saturating_sub(1)));
        sample.map_or(Value::Null, |sample| rounded(sample.as_secs_f64() * 1e3))
    }
}

fn rounded(value: f64) -> Value {
    json!((value * 100.0).round() / 100.0)
}

/// Submits one statement and waits until it is final.
async fn settle(client: &Client, envelope: &[u8]) -> Result<()> {
    let id = client.submit(envelope).await?;
    match client.statement(&id, PATIENCE / 10).await? {
        StatementStatus::Finalized { .. } => Ok(()),
        other => anyhow::bail!("statement {id} is not final: {other:?}"),
    }
}

/// One statement after the other.
async fn single(client: &Client, anchors: &mut Anchors, count: usize) -> Result<Samples> {
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let envelope = anchors.next()?;
        let started = Instant::now();
        settle(client, &envelope).await?;
        samples.push(started.elapsed());
    }
    Ok(Samples::new(samples))
}

/// When each statement under way was submitted, and what is final of them.
#[derive(Default)]
struct Ledger {
    submitted: HashMap<Digest, (usize, Instant)>,
    samples: Vec<(Instant, Duration)>,
    under_way: Vec<usize>,
}

type Shared = Arc<Mutex<Ledger>>;

fn locked(shared: &Shared) -> std::sync::MutexGuard<'_, Ledger> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows the blocks and notes what is final, until it is aborted.
async fn observe(client: Client, mut from: Height, shared: Shared) -> Result<()> {
    loop {
        for block in client.blocks(from, 64, Duration::from_secs(5)).await? {
            let now = Instant::now();
            let mut ledger = locked(&shared);
            for statement in &block.statements {
                if let Some((signer, submitted)) = ledger.submitted.remove(&statement_id(statement)) {
                    ledger.under_way[signer] -= 1;
                    ledger.samples.push((now, now - submitted));
                }
            }
            drop(ledger);
            from = from.next();
        }
    }
}

/// Submits one signer's anchors, at most `WINDOW` under way, until the time is over.
async fn submit_all(
    client: Client,
    signer: usize,
    mut anchors: std::vec::IntoIter<Vec<u8>>,
    shared: Shared,
    until: Instant,
) -> Result<()> {
    while Instant::now() < until {
        let room = WINDOW.saturating_sub(locked(&shared).under_way[signer]);
        if room < REQUEST {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        }
        let batch: Vec<Vec<u8>> = anchors.by_ref().take(REQUEST).collect();
        if batch.is_empty() {
            break;
        }
        let now = Instant::now();
        {
            let mut ledger = locked(&shared);
            for envelope in &batch {
                ledger.submitted.insert(statement_id(envelope), (signer, now));
            }
            ledger.under_way[signer] += batch.len();
        }
        for outcome in client.submit_all(&batch).await? {
            outcome.context("a statement of the load was not taken")?;
        }
    }
    Ok(())
}

/// Finalized a second, and the latencies, over `seconds` after a third of them to warm up.
async fn open_load(
    network: &Network,
    anchors: Vec<Anchors>,
    seconds: u64,
    figures: &mut Map<String, Value>,
) -> Result<()> {
    // Signing is not what is measured: everything is signed before the clock starts.
    let each = usize::try_from(seconds)? * 12_000 / anchors.len();
    let mut made = Vec::with_capacity(anchors.len());
    for mut signer in anchors {
        made.push((0..each).map(|_| signer.next()).collect::<Result<Vec<_>>>()?);
    }
    let bytes = made.first().and_then(|signer| signer.last()).map_or(0, Vec::len);
    let shared: Shared = Arc::default();
    locked(&shared).under_way = vec![0; made.len()];
    let from = Height(network.height(0).await? + 1);
    let observer = tokio::spawn(observe(network.client(0)?, from, shared.clone()));
    let started = Instant::now();
    let until = started + Duration::from_secs(seconds);
    let mut tasks = Vec::new();
    for (signer, anchors) in made.into_iter().enumerate() {
        let client = network.client(signer % VALIDATORS)?;
        tasks.push(tokio::spawn(submit_all(client, signer, anchors.into_iter(), shared.clone(), until)));
    }
    for task in tasks {
        task.await??;
    }
    let resident = network.resident_bytes(0);
    observer.abort();
    let warm = started + Duration::from_secs(seconds / 3);
    let ledger = locked(&shared);
    let counted: Vec<Duration> =
        ledger.samples.iter().filter(|(at, _)| *at >= warm && *at < until).map(|(_, sample)| *sample).collect();
    #[allow(clippy::cast_precision_loss)]
    let per_second = counted.len() as f64 / (until - warm).as_secs_f64();
    let samples = Samples::new(counted);
    figures.insert("load_statement_bytes".into(), json!(bytes));
    figures.insert("finalized_per_second".into(), json!(per_second.round()));
    figures.insert("load_submit_to_final_p50_ms".into(), samples.milliseconds(0.5));
    figures.insert("load_submit_to_final_p99_ms".into(), samples.milliseconds(0.99));
    if let Some(resident) = resident {
        figures.insert("load_validator_resident_mib".into(), json!(resident >> 20));
    }
    Ok(())
}

/// What an empty block costs on disk.
#[allow(clippy::cast_precision_loss)]
async fn idle(figures: &mut Map<String, Value>) -> Result<()> {
    let usual = Parameters::default();
    let city = City::new(Parameters { heartbeat_ms: IDLE_HEARTBEAT_MS, ..usual })?;
    let network = city.network()?;
    network.ready().await?;
    let wait = Duration::from_secs(300);
    network.wait_for_height(1, IDLE_BLOCKS, wait).await?;
    let (height, before) = (network.height(1).await?, network.disk_bytes(1)?);
    network.wait_for_height(1, height + IDLE_BLOCKS, wait).await?;
    let (height_after, after) = (network.height(1).await?, network.disk_bytes(1)?);
    let per_block = (after as f64 - before as f64) / (height_after - height) as f64;
    let blocks_a_day = MILLISECONDS_A_DAY / usual.heartbeat_ms as f64;
    figures.insert("idle_bytes_per_block".into(), json!(per_block.round()));
    figures.insert("idle_heartbeat_ms".into(), json!(usual.heartbeat_ms));
    figures.insert("idle_mb_per_day".into(), rounded(per_block * blocks_a_day / 1e6));
    Ok(())
}

async fn measure(seconds: u64) -> Result<Map<String, Value>> {
    let mut figures = Map::new();
    let city = City::new(Parameters::default())?;
    let mut network = city.network()?;
    network.ready().await?;
    let client = network.client(0)?;
    settle(&client, &load::registration(&city.genesis, &city.owner, &city.signers)?).await?;
    let anchors = |signer: usize| Anchors::new(&city.genesis, city.signers[signer].clone(), signer);

    let mut first = anchors(0)?;
    progress("one client");
    let healthy = single(&client, &mut first, SINGLE).await?;
    figures.insert("submit_to_final_p50_ms".into(), healthy.milliseconds(0.5));
    figures.insert("submit_to_final_p99_ms".into(), healthy.milliseconds(0.99));

    progress("open load");
    let others = (1..SIGNERS).map(anchors).collect::<Result<Vec<_>>>()?;
    open_load(&network, others, seconds, &mut figures).await?;

    progress("one validator dead");
    network.kill(VALIDATORS - 1)?;
    let degraded = single(&client, &mut first, SINGLE_DEGRADED).await?;
    figures.insert("one_dead_p50_ms".into(), degraded.milliseconds(0.5));
    figures.insert("one_dead_longest_ms".into(), degraded.milliseconds(1.0));
    drop(network);

    progress("idle");
    idle(&mut figures).await?;
    Ok(figures)
}

#[allow(clippy::print_stderr)]
fn progress(what: &str) {
    eprintln!("measuring: {what}");
}

/// Measures everything.
pub(crate) fn run(seconds: u64, rounds: usize) -> Result<Map<String, Value>> {
    ensure!(seconds >= 3, "--seconds {seconds} is too short: give at least 3");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let mut figures = runtime.block_on(measure(seconds))?;
    progress("replay");
    figures.extend(crate::replay::run(rounds)?);
    Ok(figures)
}
