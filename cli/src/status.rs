//! `cairn status`: how the validators are, and how far each partition is anchored.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cairn_chain_client::Follower;
use cairn_ingest::topics::{Ends, TopicSpec, probe};
use cairn_proof::Partition;
use cairn_proof::statement::StreamDefinition;
use serde::Serialize;

use crate::chain::Chain;
use crate::config::Config;
use crate::output::{Format, Table, write_out};

/// Show validators, height, and per partition Kafka's end, the anchored head, lag and quarantined records.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn status --dir city\n  cairn status --dir city --wait-anchored 60 --format json\n\nExit code 1 when --wait-anchored was not reached."
)]
pub(crate) struct StatusArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// Wait up to this many seconds until everything in Kafka is anchored.
    #[arg(long, value_name = "SECONDS")]
    wait_anchored: Option<u64>,
    /// How to write it.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// One validator.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ValidatorStatus {
    name: String,
    api: String,
    /// The height it says it is at; none when it does not answer.
    height: Option<u64>,
}

/// One partition.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PartitionStatus {
    pub(crate) stream: String,
    pub(crate) partition: u32,
    /// The offset that the next record in Kafka will get.
    pub(crate) kafka_end: Option<u64>,
    /// The offset that the next anchor will begin with.
    pub(crate) anchored: u64,
    /// Offsets in Kafka that are not anchored.
    pub(crate) lag: Option<u64>,
    pub(crate) records: u64,
    pub(crate) quarantined: u64,
    /// What is wrong with it, if anything is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Status {
    chain_id: String,
    /// What signatures for this chain are bound to.
    chain_tag: String,
    /// The height that was followed to and verified.
    height: u64,
    state_root: String,
    validators: Vec<ValidatorStatus>,
    pub(crate) partitions: Vec<PartitionStatus>,
    /// Why the ends of the topics are not known, if they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    kafka_problem: Option<String>,
}

impl Status {
    /// Whether everything that is in Kafka is anchored.
    pub(crate) fn is_anchored(&self) -> bool {
        self.partitions.iter().all(|partition| partition.lag == Some(0))
    }
}

/// Asks Kafka and the chain once.
pub(crate) async fn gather(config: &Config, follower: &Follower) -> Result<Status> {
    let definitions: Vec<_> = {
        let ledger = follower.ledger();
        ledger.streams().values().map(|entry| entry.definition.clone()).collect()
    };
    let topics: Vec<_> = definitions
        .iter()
        .map(|definition| TopicSpec { topic: definition.topic.clone(), partitions: definition.partitions })
        .collect();
    // Kafka first: what it holds at this moment is what has to be anchored.
    let (ends, kafka_problem) = match probe(&config.kafka(), &topics).await {
        Ok(ends) => (ends, None),
        Err(error) => (BTreeMap::new(), Some(error.to_string())),
    };
    let mut validators = vec![];
    for validator in &config.validators {
        let answer = match validator.api.parse() {
            Ok(url) => follower.client().status_of(&url).await.ok(),
            Err(_) => None,
        };
        let height = answer.and_then(|status| status["height"].as_u64());
        validators.push(ValidatorStatus { name: validator.name.clone(), api: validator.api.clone(), height });
    }
    let ledger = follower.ledger();
    let mut partitions = vec![];
    for definition in &definitions {
        for partition in (0..definition.partitions).map(Partition) {
            let head = ledger.state().head(&definition.name, partition).unwrap_or_default();
            let end = ends.get(&(definition.topic.clone(), partition)).map(|ends| ends.end.0);
            partitions.push(PartitionStatus {
                stream: definition.name.clone(),
                partition: partition.0,
                kafka_end: end,
                anchored: head.next.0,
                lag: end.map(|end| end.saturating_sub(head.next.0)),
                records: head.records,
                quarantined: head.quarantined,
                problem: None,
            });
        }
        partitions.extend(surplus(definition, &ends));
    }
    Ok(Status {
        chain_id: ledger.genesis().chain_id.clone(),
        chain_tag: ledger.genesis().tag().0.to_string(),
        height: ledger.height().0,
        state_root: ledger.state().root().to_string(),
        validators,
        partitions,
        kafka_problem,
    })
}

/// Partitions that the topic has beyond those of its stream: nothing anchors them.
fn surplus(definition: &StreamDefinition, ends: &BTreeMap<(String, Partition), Ends>) -> Vec<PartitionStatus> {
    let beyond = (definition.topic.clone(), Partition(definition.partitions));
    let found = ends.range(beyond..).take_while(|((topic, _), _)| *topic == definition.topic);
    let status = |((_, partition), ends): (&(String, Partition), &Ends)| PartitionStatus {
        stream: definition.name.clone(),
        partition: partition.0,
        kafka_end: Some(ends.end.0),
        anchored: 0,
        lag: Some(ends.end.0),
        records: 0,
        quarantined: 0,
        problem: Some(format!("not anchored: the stream is registered with {} partitions", definition.partitions)),
    };
    found.map(status).collect()
}

/// Runs `cairn status`.
pub(crate) async fn status(args: &StatusArgs) -> Result<()> {
    let Chain { config, follower, .. } = Chain::open(&args.dir).await?;
    let deadline = Instant::now() + Duration::from_secs(args.wait_anchored.unwrap_or(0));
    let status = loop {
        let status = gather(&config, &follower).await?;
        let waiting = args.wait_anchored.is_some() && !status.is_anchored() && Instant::now() < deadline;
        if !waiting {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    print(&status, args.format)?;
    if args.wait_anchored.is_some() && !status.is_anchored() {
        let lag: u64 = status.partitions.iter().filter_map(|partition| partition.lag).sum();
        let unknown = status.partitions.iter().filter(|partition| partition.lag.is_none()).count();
        bail!("not everything is anchored: {lag} records lag, {unknown} partitions whose end in Kafka is not known");
    }
    Ok(())
}

fn print(status: &Status, format: Format) -> Result<()> {
    if format == Format::Json {
        let mut bytes = serde_json::to_vec_pretty(status)?;
        bytes.push(b'\n');
        return write_out(&bytes);
    }
    let names = ["stream", "partition", "kafka_end", "anchored", "lag", "records", "quarantined"];
    let mut partitions = Table::new(&names);
    for row in &status.partitions {
        let value = serde_json::to_value(row)?;
        partitions.row(names.iter().map(|name| value[*name].clone()).collect());
    }
    if format == Format::Table {
        crate::say!("chain {} at height {}, state root {}", status.chain_id, status.height, status.state_root)?;
        crate::say!("chain tag {}", status.chain_tag)?;
        let mut validators = Table::new(&["validator", "api", "height"]);
        for validator in &status.validators {
            let height = validator.height.map_or("does not answer".into(), Into::into);
            validators.row(vec![validator.name.clone().into(), validator.api.clone().into(), height]);
        }
        validators.print(format)?;
    }
    partitions.print(format)?;
    if format == Format::Table {
        if let Some(problem) = &status.kafka_problem {
            crate::say!("Kafka: {problem}")?;
        }
        for row in status.partitions.iter().filter(|row| row.problem.is_some()) {
            let problem = row.problem.as_deref().unwrap_or_default();
            crate::say!("{} partition {}: {problem}", row.stream, row.partition)?;
        }
    }
    Ok(())
}
