//! `cairn stream`: registers streams from their definitions, and lists what the chain knows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cairn_chain_client::{Follower, Submitter};
use cairn_ingest::topics::{TopicSpec, ensure_topics};
use cairn_proof::statement::{Body, StreamDefinition};

use crate::config::Config;
use crate::home::Home;
use crate::output::{Format, Table};
use crate::roles::{CHAIN_PATIENCE, follow};
use crate::stream_file;

const REGISTER_PATIENCE: Duration = Duration::from_secs(30);

/// Register a stream from its definition, or list the registered ones.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum StreamCommand {
    /// Register a stream: its topic is made if it is missing, and ingest takes it up at once.
    #[command(
        after_help = "Example:\n  cairn stream add --dir city air.quality.toml\n\nschemas/README.md describes the file."
    )]
    Add {
        /// Folder of the network.
        #[arg(long, default_value = "cairn-data")]
        dir: PathBuf,
        /// The definition: name, topic, partitions, format, schema, key fields, event-time field, limits.
        file: PathBuf,
    },
    /// List the registered streams.
    List {
        /// Folder of the network.
        #[arg(long, default_value = "cairn-data")]
        dir: PathBuf,
        /// How to write the list.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
}

/// Runs `cairn stream`.
pub(crate) async fn stream(command: &StreamCommand) -> Result<()> {
    match command {
        StreamCommand::Add { dir, file } => add(dir, file).await,
        StreamCommand::List { dir, format } => list(dir, *format).await,
    }
}

async fn add(dir: &Path, file: &Path) -> Result<()> {
    let home = Home::open(dir)?;
    let definition = stream_file::read(file)?;
    let config = home.config()?;
    let follower = follow(&home, &config, CHAIN_PATIENCE).await?;
    if follower.ledger().stream(&definition.name).is_some() {
        bail!("stream {} is registered already; `cairn stream list` shows it", definition.name);
    }
    let height = register(&home, &config, &follower, definition.clone()).await?;
    crate::say!(
        "stream {} registered at height {height}: topic {}, {} partitions, {}",
        definition.name,
        definition.topic,
        definition.partitions,
        definition.format.name()
    )
}

async fn list(dir: &Path, format: Format) -> Result<()> {
    let home = Home::open(dir)?;
    let follower = follow(&home, &home.config()?, CHAIN_PATIENCE).await?;
    let mut table = Table::new(&["stream", "topic", "partitions", "format", "key", "event_time", "owner", "height"]);
    for entry in follower.ledger().streams().values() {
        let definition = &entry.definition;
        table.row(vec![
            definition.name.clone().into(),
            definition.topic.clone().into(),
            definition.partitions.into(),
            definition.format.name().into(),
            definition.key_fields.join(",").into(),
            definition.event_time.clone().into(),
            entry.owner.to_string().into(),
            entry.height.0.into(),
        ]);
    }
    table.print(format)
}

/// Makes the topic and registers the stream; returns the height of its block.
async fn register(home: &Home, config: &Config, follower: &Follower, mut definition: StreamDefinition) -> Result<u64> {
    let (owner, ingest) = (home.signing_key("owner")?, home.signing_key("ingest")?);
    definition.anchorers = vec![ingest.identity()];
    let topic = TopicSpec { topic: definition.topic.clone(), partitions: definition.partitions };
    ensure_topics(&config.kafka(), &[topic]).await?;
    let tag = follower.ledger().genesis().tag();
    let submitter = Submitter::new(config.client()?, owner, tag);
    let name = definition.name.clone();
    let done = submitter.submit(&Body::RegisterStream(definition), REGISTER_PATIENCE).await;
    let height = done.with_context(|| format!("registering stream {name}"))?.height;
    follower.wait_for_height(height, REGISTER_PATIENCE).await?;
    Ok(height.0)
}

/// Registers the definitions in the network's folder that the chain does not know yet.
///
/// A folder without the owner's key belongs to a role alone: there is nothing to register there.
pub(crate) async fn register_folder(home: &Home, config: &Config, follower: &Follower) -> Result<()> {
    if !home.key_file("owner").is_file() {
        return Ok(());
    }
    let mut files: Vec<PathBuf> = match std::fs::read_dir(home.streams_dir()) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(_) => return Ok(()),
    };
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    for file in files {
        let definition = stream_file::read(&file)?;
        let known = follower.ledger().stream(&definition.name).is_some();
        if !known {
            let name = definition.name.clone();
            let height = register(home, config, follower, definition).await?;
            tracing::info!(stream = name, height, "stream registered");
        }
    }
    Ok(())
}
