//! `cairn stream`: registers streams from their definitions, and lists what the chain knows.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cairn_chain_client::Follower;
use cairn_ingest::topics::{TopicSpec, ensure_topics};
use cairn_ingest::update::followed_by;
use cairn_proof::statement::{Body, Role, SchemaVersion, SetRole, StreamDefinition, TransferStream, UpdateStream};

use crate::chain::Chain;
use crate::config::Config;
use crate::home::Home;
use crate::output::{Format, Table};
use crate::publish::definition_of;
use crate::{reference, stream_file};

/// Register a stream from its definition, add schemas, give and take rights on it, or list the registered ones.
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
    /// Add versions to a stream's schema: those of the file that the chain does not have. Nothing else of a stream changes.
    #[command(
        after_help = "Example:\n  cairn stream update --dir city air.quality.toml\n\nThe new schema must read all that was written under the older ones: fields may be added and left out, numbers may become\nwider (schemas/README.md). Writers may use it from the height that is printed on; ingest and queries need no restart."
    )]
    Update {
        /// Folder of the network.
        #[arg(long, default_value = "cairn-data")]
        dir: PathBuf,
        /// The stream's definition, with a schema of another id: schema and schema_id, or a further one in its list `schemas`.
        file: PathBuf,
        /// Signs it: keys/NAME.key of the stream's owner.
        #[arg(long, value_name = "NAME", default_value = "owner")]
        owner_key: String,
    },
    /// Give an identity a role for a stream.
    #[command(
        after_help = "Examples:\n  cairn stream grant --dir city traffic.flow --identity ingest-2 --role anchorer\n  cairn stream grant --dir city traffic.flow --identity did:key:z6Mk… --role publisher"
    )]
    Grant(RoleOf),
    /// Take a role for a stream from an identity.
    #[command(
        after_help = "Example:\n  cairn stream revoke-role --dir city traffic.flow --identity ingest-2 --role anchorer\n\nWhat it anchored before stays valid."
    )]
    RevokeRole(RoleOf),
    /// Give a stream to another owner, an organisation.
    #[command(after_help = "Example:\n  cairn stream transfer --dir city traffic.flow --to \"Traffic department\"")]
    Transfer {
        /// Folder of the network.
        #[arg(long, default_value = "cairn-data")]
        dir: PathBuf,
        /// The stream's name.
        stream: String,
        /// The new owner's id, did:key, or name.
        #[arg(long, value_name = "IDENTITY")]
        to: String,
        /// Signs it: keys/NAME.key of the owner until then.
        #[arg(long, value_name = "NAME", default_value = "owner")]
        owner_key: String,
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

/// Whose role for which stream.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RoleOf {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// The stream's name.
    stream: String,
    /// Its id, its did:key, or its name.
    #[arg(long)]
    identity: String,
    /// Which role.
    #[arg(long, value_enum)]
    role: RoleName,
    /// Signs it: keys/NAME.key of the stream's owner.
    #[arg(long, value_name = "NAME", default_value = "owner")]
    owner_key: String,
}

/// What an identity may do with a stream that it does not own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RoleName {
    /// Anchor batches.
    Anchorer,
    /// Publish records to the topic.
    Publisher,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Anchorer => Self::Anchorer,
            RoleName::Publisher => Self::Publisher,
        }
    }
}

/// Runs `cairn stream`.
pub(crate) async fn stream(command: &StreamCommand) -> Result<()> {
    match command {
        StreamCommand::Grant(args) => set_role(args, true).await,
        StreamCommand::RevokeRole(args) => set_role(args, false).await,
        StreamCommand::Transfer { dir, stream, to, owner_key } => transfer(dir, stream, to, owner_key).await,
        StreamCommand::Add { dir, file } => add(dir, file).await,
        StreamCommand::Update { dir, file, owner_key } => update(dir, file, owner_key).await,
        StreamCommand::List { dir, format } => list(dir, *format).await,
    }
}

async fn set_role(args: &RoleOf, granted: bool) -> Result<()> {
    let chain = Chain::open(&args.dir).await?;
    definition_of(&chain.follower, &args.stream)?;
    let submitter = chain.submitter(&args.owner_key)?;
    let entry = reference::identity(&chain.follower.ledger(), &args.identity)?;
    let role = Role::from(args.role);
    let body = SetRole { stream: args.stream.clone(), identity: entry.id, role, granted };
    let done = chain.say(&submitter, &Body::SetRole(body)).await?;
    let verb = if granted { "is" } else { "is no longer" };
    crate::say!("identity {} {verb} {} of {} since height {}", entry.id, role.name(), args.stream, done.height)
}

async fn transfer(dir: &Path, stream: &str, to: &str, owner_key: &str) -> Result<()> {
    let chain = Chain::open(dir).await?;
    definition_of(&chain.follower, stream)?;
    let submitter = chain.submitter(owner_key)?;
    let owner = reference::identity(&chain.follower.ledger(), to)?;
    let body = TransferStream { stream: stream.to_owned(), owner: owner.id };
    let done = chain.say(&submitter, &Body::TransferStream(body)).await?;
    crate::say!("stream {stream} belongs to {} ({:?}) since height {}", owner.id, owner.name, done.height)
}

async fn add(dir: &Path, file: &Path) -> Result<()> {
    let definition = stream_file::read(file)?;
    let Chain { home, config, follower } = Chain::open(dir).await?;
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

async fn update(dir: &Path, file: &Path, owner_key: &str) -> Result<()> {
    let wanted = stream_file::read(file)?;
    let chain = Chain::open(dir).await?;
    let mut definition = definition_of(&chain.follower, &wanted.name)?;
    let label = file.display();
    nothing_else_changes(&definition, &wanted).with_context(|| label.to_string())?;
    let added = added_versions(&definition, &wanted).with_context(|| label.to_string())?;
    let mut updates = Vec::with_capacity(added.len());
    // All are checked before the first is sent.
    for schema in added {
        let versions = u32::try_from(definition.schemas.len()).unwrap_or(u32::MAX);
        let (stream, format) = (definition.name.clone(), definition.format);
        definition = followed_by(&definition, schema.clone()).with_context(|| label.to_string())?;
        updates.push(UpdateStream { stream, format, versions, schema });
    }
    let submitter = chain.submitter(owner_key)?;
    for update in updates {
        let (id, version) = (update.schema.id, update.versions + 1);
        let done = chain.say(&submitter, &Body::UpdateStream(update)).await?;
        crate::say!("stream {} has version {version}, schema id {id}, since height {}", wanted.name, done.height)?;
    }
    Ok(())
}

/// An update is about schemas alone: what else the file says must be what the chain has.
fn nothing_else_changes(registered: &StreamDefinition, wanted: &StreamDefinition) -> Result<()> {
    let differs = [
        ("topic", registered.topic != wanted.topic),
        ("partitions", registered.partitions != wanted.partitions),
        ("format", registered.format != wanted.format),
        ("key_fields", registered.key_fields != wanted.key_fields),
        ("event_time", registered.event_time != wanted.event_time),
        ("limits", registered.limits != wanted.limits),
        ("gaps_allowed", registered.gaps_allowed != wanted.gaps_allowed),
        ("signatures", registered.signatures != wanted.signatures),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        Some((key, _)) => bail!(
            "{key} is not what stream {} was registered with, and no update changes it: put it back, or register another \
             stream",
            registered.name
        ),
        None => Ok(()),
    }
}

/// The versions of the file that the chain does not have, in the file's order.
fn added_versions(registered: &StreamDefinition, wanted: &StreamDefinition) -> Result<Vec<SchemaVersion>> {
    let mut added = Vec::new();
    for version in &wanted.schemas {
        match registered.schemas.iter().find(|known| known.id == version.id) {
            Some(known) if known.text == version.text => {}
            Some(_) => {
                let next = registered.schemas.iter().map(|known| known.id).max().unwrap_or_default().saturating_add(1);
                bail!(
                    "schema id {} is that of another text on the chain, and a version never changes: give the new one an \
                     id of its own, such as schema_id = {next}",
                    version.id
                );
            }
            None => added.push(version.clone()),
        }
    }
    if added.is_empty() {
        bail!("stream {} has every schema of the file; name one more, with an id of its own", registered.name);
    }
    Ok(added)
}

async fn list(dir: &Path, format: Format) -> Result<()> {
    let Chain { follower, .. } = Chain::open(dir).await?;
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
    let chain = Chain { home: home.clone(), config: config.clone(), follower: follower.clone() };
    let submitter = chain.submitter("owner")?;
    definition.anchorers = vec![chain.submitter("ingest")?.identity()];
    let topic = TopicSpec { topic: definition.topic.clone(), partitions: definition.partitions };
    ensure_topics(&config.kafka(), &[topic]).await?;
    let name = definition.name.clone();
    let done = chain.say(&submitter, &Body::RegisterStream(definition)).await;
    Ok(done.with_context(|| format!("registering stream {name}"))?.height.0)
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
