//! `cairn up`: every role of a network, each in a child process of its own, and the embedded broker in this one.
//!
//! ```text
//! cairn up ─┬─ embedded broker (unless --kafka)
//!           ├─ cairn node --name validator-N    restarted when they end unasked
//!           ├─ cairn ingest                    logs: DIR/logs/ROLE.log
//!           └─ cairn query
//! ```
//!
//! Children end when this process does, however it ends: their standard input is a pipe from here. Starting again on
//! the same folder resumes; a predecessor's children that are still on their way out are waited for.

mod child;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use cairn_ingest::broker::EmbeddedBroker;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::home::Home;
use crate::roles::{self, stop_signal};
use child::{Child, ChildSpec};

/// Run every role of a network; Ctrl-C or SIGTERM stops it cleanly, starting it again resumes.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:\n  cairn up --dir city\n  cairn up --dir city --kafka broker-1:9092,broker-2:9092")]
pub(crate) struct UpArgs {
    /// Folder of the network, made by `cairn init`.
    #[arg(long, default_value = "cairn-data")]
    pub(crate) dir: PathBuf,
    /// Use this Kafka instead of the embedded broker: host:port, comma-separated. Kept in cairn.toml.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) kafka: Option<String>,
}

/// Runs the network until it is told to stop.
pub(crate) async fn up(args: &UpArgs) -> Result<()> {
    let home = Home::open(&args.dir)?;
    if let Some(kafka) = &args.kafka {
        use_kafka(&home, kafka)?;
    }
    let starting = Network::start(&home);
    let mut network = tokio::select! {
        network = starting => network?,
        () = stop_signal(false) => return Ok(()),
    };
    roles::ready(&network.addresses())?;
    let failed = tokio::select! {
        failure = network.failure() => Some(failure),
        () = stop_signal(false) => None,
    };
    network.stop().await;
    failed.map_or(Ok(()), Err)
}

/// Writes the brokers into cairn.toml, so that every role and later command uses them.
fn use_kafka(home: &Home, brokers: &str) -> Result<()> {
    let mut config = home.config()?;
    if !config.kafka.embedded && config.kafka.brokers == brokers {
        return Ok(());
    }
    config.kafka.brokers = brokers.to_owned();
    config.kafka.embedded = false;
    config.kafka().check().context("--kafka")?;
    let text = toml::to_string_pretty(&config)?;
    let unfinished = home.config_file().with_extension("toml.new");
    std::fs::write(&unfinished, text)
        .and_then(|()| std::fs::rename(&unfinished, home.config_file()))
        .context("cairn.toml")
}

/// A running network.
#[derive(Debug)]
pub(crate) struct Network {
    config: Config,
    broker: Option<EmbeddedBroker>,
    children: Vec<Child>,
    failures: mpsc::Receiver<String>,
    _lock: std::fs::File,
}

impl Network {
    /// Starts every role and returns once all of them serve.
    pub(crate) async fn start(home: &Home) -> Result<Self> {
        let config = home.config()?;
        let lock = roles::lock(home, "up").await?;
        let broker = match config.kafka.embedded {
            true => {
                let started = EmbeddedBroker::start(&home.broker_data(), config.broker_listen()?).await;
                Some(started.context("the embedded broker ([kafka] brokers in cairn.toml)")?)
            }
            false => None,
        };
        let (report, failures) = mpsc::channel(16);
        let mut network = Self { config, broker, children: vec![], failures, _lock: lock };
        let nodes = network.config.validators.iter().map(|node| ChildSpec::node(home, &node.name));
        network.children = nodes.map(|spec| Child::start(spec, report.clone())).collect();
        // Ingest and query need a chain that makes blocks, so they come after the validators.
        network.all_ready().await?;
        for spec in [ChildSpec::role(home, "ingest"), ChildSpec::role(home, "query")] {
            network.children.push(Child::start(spec, report.clone()));
        }
        network.all_ready().await?;
        Ok(network)
    }

    async fn all_ready(&mut self) -> Result<()> {
        let mut failed = None;
        for child in &mut self.children {
            tokio::select! {
                ready = child.ready() => {
                    if let Err(error) = ready {
                        failed = Some(error);
                        break;
                    }
                }
                failure = self.failures.recv() => {
                    failed = Some(anyhow!(failure.unwrap_or_else(|| "a role ended".into())));
                    break;
                }
            }
        }
        match failed {
            None => Ok(()),
            Some(error) => {
                self.end().await;
                Err(error)
            }
        }
    }

    /// Every address of the network in one line.
    pub(crate) fn addresses(&self) -> String {
        let apis: Vec<_> = self.config.validators.iter().map(|validator| validator.api.as_str()).collect();
        format!(
            "kafka {} postgres {}{} validators {} ingest-metrics http://{}/metrics query-metrics http://{}/metrics",
            self.config.kafka.brokers,
            self.config.postgres(),
            self.config.query.flight.as_ref().map(|flight| format!(" flight {}", flight.listen)).unwrap_or_default(),
            apis.join(","),
            self.config.ingest.metrics,
            self.config.query.metrics
        )
    }

    /// Resolves when a role cannot be kept running.
    pub(crate) async fn failure(&mut self) -> anyhow::Error {
        match self.failures.recv().await {
            Some(failure) => anyhow!(failure),
            None => anyhow!("the supervision of the roles ended"),
        }
    }

    /// Stops every role, then the broker.
    pub(crate) async fn stop(mut self) {
        self.end().await;
    }

    async fn end(&mut self) {
        // Ingest first, so that what it has in hand still reaches the validators.
        for child in self.children.iter_mut().rev() {
            child.tell_to_stop();
        }
        for child in &mut self.children {
            child.stopped(Duration::from_secs(12)).await;
        }
        if let Some(broker) = self.broker.take() {
            broker.stop().await;
        }
    }
}
