//! A network under random kills, pauses and restarts while a producer writes known records; nothing is measured.
//!
//! ```text
//! kill       kill -9 of ingest, a validator, query or the broker; started again after up to two seconds
//! pause      SIGSTOP of ingest or a validator for some seconds: it comes back as a zombie with old news
//! ```
//!
//! At the end everything runs, all records must be anchored, and what SQL answers must be what the broker holds: no record
//! lost, none doubled, none changed, none quarantined; and `cairn audit` must pass. The same seed makes the same choices, though
//! not at the same moments.

mod check;
mod draw;
mod roles;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cairn_ingest::encode::Cell;
use cairn_ingest::{KafkaConfig, Publisher};
use cairn_proof::statement::{BatchLimits, Format, SchemaVersion, Signatures, StreamDefinition};
use clap::ValueEnum;
use serde_json::{Map, json};

use draw::Draw;
pub(crate) use roles::embedded_broker;
use roles::{Network, Role};

const STREAM: &str = "chaos.numbers";
const SCHEMA: &str =
    r#"{"type":"record","name":"Numbers","fields":[{"name":"number","type":"long"},{"name":"text","type":"string"}]}"#;
const PARTITIONS: u32 = 4;
/// Between two kills.
const PAUSE_MS: (u64, u64) = (200, 1_500);
/// How long a killed role stays away.
const AWAY_MS: (u64, u64) = (0, 2_000);
/// How long a paused role stays paused: longer than anything it promised to be back for.
const PAUSED_MS: (u64, u64) = (2_000, 8_000);
/// After so many kills anchoring must move on before the next.
const BREATHE_EVERY: u64 = 10;
const BREATHE: Duration = Duration::from_secs(120);

/// How much happens.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Kills and pauses.
    #[arg(long, default_value_t = 50)]
    kills: u64,
    /// Which broker.
    #[arg(long, value_enum, default_value_t = Kafka::Embedded)]
    kafka: Kafka,
    /// Draws who is hit, how, and for how long.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Records a second.
    #[arg(long, default_value_t = 500)]
    rate: u64,
    /// The program under test; beside this one, if left out, and built first where it is missing.
    #[arg(long, value_name = "FILE")]
    cairn: Option<PathBuf>,
}

/// Which broker a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kafka {
    /// The one that comes with Cairn, in a process of its own.
    Embedded,
    /// Apache Kafka, by tests/kafka/kafka.sh.
    Apache,
}

#[allow(clippy::print_stderr)]
fn tell(what: &str) {
    eprintln!("chaos: {what}");
}

fn definition() -> StreamDefinition {
    StreamDefinition {
        name: STREAM.into(),
        topic: STREAM.into(),
        partitions: PARTITIONS,
        format: Format::Avro,
        key_fields: vec!["number".into()],
        event_time: None,
        limits: BatchLimits::default(),
        gaps_allowed: false,
        anchorers: vec![],
        signatures: Signatures::default(),
        schemas: vec![SchemaVersion { id: 1, text: SCHEMA.into() }],
    }
}

/// The text that goes with a number, so that a changed value shows.
fn text_of(number: u64) -> String {
    format!("record {number} of {:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Publishes numbers from 0 on until it is told to stop; returns how many, all of them acknowledged.
async fn publish(kafka: KafkaConfig, rate: u64, stop: Arc<AtomicBool>, count: Arc<AtomicU64>) -> Result<u64> {
    let mut publisher = Publisher::new(&kafka, &definition())?;
    let binding = publisher.encoder().bind(&["number", "text"])?;
    let started = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = u64::try_from(started.elapsed().as_millis())?.saturating_mul(rate) / 1_000;
        while number < due && !stop.load(Ordering::Relaxed) {
            let (shown, text) = (number.to_string(), text_of(number));
            publisher.send(&binding, &[Cell::Text(&shown), Cell::Text(&text)]).await?;
            number += 1;
            count.store(number, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let counts = publisher.flush().await?;
    ensure!(counts.sent == number, "{} of {number} records were acknowledged", counts.sent);
    Ok(number)
}

/// One blow. Returns what was done.
async fn strike(network: &mut Network, draw: &mut Draw) -> Result<String> {
    let role = match draw.within(0, 99) {
        0..=39 => Role::Ingest,
        40..=69 => Role::Validator(u16::try_from(draw.within(0, 3))?),
        70..=84 => Role::Query,
        _ => Role::Broker,
    };
    let pauses = matches!(role, Role::Ingest | Role::Validator(_)) && draw.within(0, 3) == 0;
    if pauses {
        let ms = draw.within(PAUSED_MS.0, PAUSED_MS.1);
        network.pause(role)?;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        network.go_on(role)?;
        return Ok(format!("{role} paused for {ms} ms"));
    }
    network.kill(role)?;
    let ms = draw.within(AWAY_MS.0, AWAY_MS.1);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    network.start(role).await?;
    Ok(format!("{role} killed, away for {ms} ms"))
}

/// Waits until more records are visible in SQL than before.
async fn breathe(network: &mut Network, seen: u64) -> Result<u64> {
    let started = Instant::now();
    loop {
        network.revive().await?;
        if let Some(now) = check::count(network)
            && now > seen
        {
            return Ok(now);
        }
        let waited = started.elapsed();
        ensure!(waited < BREATHE, "nothing was anchored for {} s: {seen} records are visible", waited.as_secs());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn chaos(options: &Options) -> Result<Map<String, serde_json::Value>> {
    let mut network = Network::make(options).await?;
    tell(&format!("a network in {}, seed {}", network.folder().display(), options.seed));
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let publishing = tokio::spawn(publish(network.kafka(), options.rate, stop.clone(), count.clone()));
    let mut draw = Draw::new(options.seed);
    let mut seen = breathe(&mut network, 0).await?;
    let mut done = std::collections::BTreeMap::<String, u64>::new();
    for blow in 1..=options.kills {
        let what = strike(&mut network, &mut draw).await?;
        let kind = what.split(',').next().and_then(|what| what.split(" for ").next()).unwrap_or_default().to_owned();
        *done.entry(kind).or_default() += 1;
        tell(&format!(
            "{blow} of {}: {what}; {} published, {seen} visible",
            options.kills,
            count.load(Ordering::Relaxed)
        ));
        tokio::time::sleep(Duration::from_millis(draw.within(PAUSE_MS.0, PAUSE_MS.1))).await;
        // A role that gave up meanwhile is started again, as whoever runs it would.
        network.revive().await?;
        if let Some(now) = check::count(&network) {
            ensure!(now >= seen, "{now} records are visible where {seen} were before");
            seen = now;
        }
        if blow % BREATHE_EVERY == 0 {
            seen = breathe(&mut network, seen).await?;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let published = publishing.await.context("the producer")??;
    tell(&format!("{published} records published; waiting until all are anchored"));
    let mut figures = check::everything(&mut network, published).await?;
    figures.insert("kills".into(), json!(options.kills));
    for (kind, times) in done {
        figures.insert(format!("blows, {kind}"), json!(times));
    }
    network.stop();
    Ok(figures)
}

/// Runs it; fails when a record is lost, doubled, changed or quarantined, or the audit does.
pub(crate) fn run(options: &Options) -> Result<Map<String, serde_json::Value>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(chaos(options))
}
