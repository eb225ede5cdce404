//! Ingest and anchoring on Apache Kafka, against a bare librdkafka consumer that discards.
//!
//! ```text
//! raw          one consumer reads all partitions from the start, checks checksums, counts, forgets
//! anchored     the same topic through ingest onto a chain of four validators, until every record's anchor is final
//! runs         as anchored, records signed in runs of 1,000; against a bare consumer of that topic
//! singly       as anchored, each record signed by itself
//! lag          records at a given rate: from the time in the record until its anchor is final
//! partitions   processor time a record at other numbers of partitions, and the memory of ingest
//! at rest      bytes of segments against plain Parquet of the stream's columns
//! stages       where the time goes, one batch on one core
//! ```
//!
//! Broker, validators, ingest and the bench share the machine's cores. Each anchored run is a process of its own on a new
//! chain, so that its processor time and its memory are its own.

mod broker;
mod lag;
mod load;
mod raw;
mod rest;
mod stages;
mod usage;
mod worker;

use std::time::Duration;

use anyhow::{Context as _, Result};
use cairn_chain_client::{Client, StatementStatus};
use cairn_ingest::KafkaConfig;
use cairn_proof::Sequence;
use cairn_proof::statement::{Body, Role, SetRole, Signatures, Statement};
use serde_json::{Map, Value, json};

use crate::chain::city::City;
use crate::chain::network::Network;
use broker::Broker;
use load::{People, Topic};
pub(crate) use worker::worker;
use worker::{Done, Task};

/// How long a statement may take until it is final.
const PATIENCE: Duration = Duration::from_secs(30);
/// Records that share a signature.
const RUN: u32 = 1_000;

/// How much is measured.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Records of the main topic; others have a share of them.
    #[arg(long, default_value_t = 10_000_000)]
    records: u64,
    /// Partitions of the main topic.
    #[arg(long, default_value_t = 8)]
    partitions: u32,
    /// A broker that runs already, instead of Apache Kafka started for this run. Topics are left on it.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Records a second of the run that measures lag; 0: leave it out.
    #[arg(long, default_value_t = 100_000)]
    rate: u64,
    /// Length of that run.
    #[arg(long, default_value_t = 30)]
    lag_seconds: u64,
    /// Further numbers of partitions at which processor time and memory are measured.
    #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
    at_partitions: Vec<u32>,
}

/// What all runs share.
pub(super) struct Bench {
    city: City,
    people: People,
    kafka: KafkaConfig,
    folder: tempfile::TempDir,
}

impl Bench {
    /// Reads `topic` through ingest onto a new chain.
    async fn anchor(
        &self,
        topic: &Topic,
        meanwhile: impl Future<Output = Result<()>>,
    ) -> Result<(Done, std::path::PathBuf)> {
        let network = Network::start(&self.city.genesis, &self.city.validators, &self.city.ports)?;
        network.ready().await?;
        let client = network.client(0)?;
        let definition = &topic.definition;
        self.say(&client, 1, Body::RegisterStream(definition.clone())).await?;
        if definition.signatures == Signatures::Required {
            let (stream, identity) = (definition.name.clone(), self.people.publisher.identity());
            self.say(&client, 2, Body::SetRole(SetRole { stream, identity, role: Role::Publisher, granted: true }))
                .await?;
        }
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(self.folder.path())?.keep();
        let task = Task {
            genesis: self.city.genesis.clone(),
            seed: self.people.ingest.seed(),
            nodes: (0..self.city.validators.len()).map(|index| network.url(index)).collect(),
            kafka: self.kafka.clone(),
            folder: folder.clone(),
            stream: topic.definition.name.clone(),
            records: topic.records,
        };
        let (done, met) = tokio::join!(task.run(), meanwhile);
        met?;
        Ok((done?, folder))
    }

    /// The owner says something, and waits until it is final.
    async fn say(&self, client: &Client, sequence: u64, body: Body) -> Result<()> {
        let owner = &self.city.owner;
        let statement = Statement { signer: owner.identity(), sequence: Sequence(sequence), body };
        let id = client.submit(&statement.sign(owner, &self.people.chain)?).await?;
        match client.statement(&id, PATIENCE).await? {
            StatementStatus::Finalized { .. } => Ok(()),
            other => anyhow::bail!("the owner's statement {sequence} is not final: {other:?}"),
        }
    }

    async fn topic(&self, name: &str, partitions: u32, records: u64, signatures: Signatures) -> Result<Topic> {
        Topic::make(&self.kafka, name, partitions, records, signatures, &self.people).await
    }
}

#[allow(clippy::print_stderr)]
pub(super) fn progress(what: &str) {
    eprintln!("measuring: {what}");
}

pub(super) fn rounded(value: f64) -> Value {
    json!((value * 1_000.0).round() / 1_000.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[allow(clippy::cast_precision_loss)]
fn rate(records: u64, seconds: f64) -> f64 {
    records as f64 / seconds
}

/// Two things in turn: the bare consumer and the anchored run of one topic.
async fn in_turn(
    bench: &Bench,
    topic: &Topic,
    rounds: usize,
    name: &str,
    figures: &mut Map<String, Value>,
) -> Result<()> {
    let (mut raw, mut anchored, mut ratios, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut peak = 0;
    for round in 0..rounds.max(1) {
        progress(&format!("{name}, round {}: a bare consumer", round + 1));
        let bare = rate(topic.records, raw::consume(&bench.kafka, topic).await?.as_secs_f64());
        progress(&format!("{name}, round {}: anchored", round + 1));
        let (done, folder) = bench.anchor(topic, async { Ok(()) }).await?;
        let through = rate(topic.records, done.seconds);
        raw.push(bare);
        anchored.push(through);
        ratios.push(through / bare);
        cpu.push(done.cpu_seconds * 1e6 / rate(topic.records, 1.0));
        peak = peak.max(done.peak_kib);
        if name == "anchored" && round == 0 {
            figures.extend(rest::measure(topic, &folder)?);
            for (thread, seconds) in &done.threads {
                let microseconds = seconds * 1e6 / rate(topic.records, 1.0);
                figures.insert(format!("cpu_us_per_record, {thread}"), rounded(microseconds));
            }
        }
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    let key = |what: &str| if name == "anchored" { what.to_owned() } else { format!("{name}_{what}") };
    figures.insert(key("raw_per_second"), json!(median(raw).round()));
    figures.insert(key("anchored_per_second"), json!(median(anchored).round()));
    figures.insert(key("anchored_over_raw"), rounded(median(ratios)));
    figures.insert(key("cpu_us_per_record"), rounded(median(cpu)));
    figures.insert(key("ingest_peak_mib"), json!(peak >> 10));
    Ok(())
}

async fn measure(options: &Options, rounds: usize) -> Result<Map<String, Value>> {
    let mut figures = Map::new();
    let broker = match &options.kafka {
        Some(given) => Broker::given(given.clone()),
        None => Broker::start().await?,
    };
    let city = City::new(cairn_proof::parameters::Parameters::default())?;
    let people =
        People { ingest: city.signers[0].clone(), publisher: city.signers[1].clone(), chain: city.genesis.tag() };
    let bench = Bench {
        city,
        people,
        kafka: KafkaConfig::new(broker.address()),
        folder: tempfile::tempdir().context("a temporary folder")?,
    };
    progress("stages of one batch");
    figures.extend(stages::measure(rounds)?);
    let plain = Signatures::Refused;
    let main = bench.topic("bench.plain", options.partitions, options.records, plain).await?;
    figures.insert("records".into(), json!(main.records));
    figures.insert("value_bytes".into(), json!(main.value_bytes));
    in_turn(&bench, &main, rounds, "anchored", &mut figures).await?;
    let runs = bench.topic("bench.runs", options.partitions, options.records / 2, Signatures::Required).await?;
    in_turn(&bench, &runs, rounds, "runs", &mut figures).await?;
    let singly =
        Topic::signed_singly(&bench.kafka, "bench.singly", options.partitions, options.records / 20, &bench.people)
            .await?;
    in_turn(&bench, &singly, 1, "singly", &mut figures).await?;
    for partitions in &options.at_partitions {
        let topic = bench.topic(&format!("bench.at_{partitions}"), *partitions, options.records / 5, plain).await?;
        in_turn(&bench, &topic, 1, &format!("at_{partitions}"), &mut figures).await?;
    }
    if options.rate > 0 {
        figures.extend(lag::measure(&bench, options.partitions, options.rate, options.lag_seconds).await?);
    }
    Ok(figures)
}

/// Measures everything.
pub(crate) fn run(options: &Options, rounds: usize) -> Result<Map<String, Value>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(measure(options, rounds))
}
