//! `cairn sql`: a statement over the Postgres port of the query role, a shell without one, and answers as files of columns
//! over its Flight SQL port.

mod columns_file;
mod commands;
mod complete;
mod connection;
mod shell;
mod split;

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cairn_proof::statement::ChainTag;

pub(crate) use connection::{Answer, Connection, describe};

use crate::config::Config;
use crate::home::Home;
use crate::login::token;
use crate::output::Format;

/// Run a statement over the verified records; without one, a shell (or the statements that standard input holds).
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn sql --dir city \"SELECT count(*) FROM traffic.flow\"\n  cairn sql --dir city --as-of 120 --format csv \"SELECT * FROM cairn.anchors\"\n  cairn sql --dir city --output flow.parquet \"SELECT * FROM traffic.flow\"\n  cairn sql --dir city --evidence answer.json \"SELECT max(speed_kmh) FROM traffic.flow\"\n  cairn sql --dir city\n  cairn sql --dir city < report.sql\n\nTables: each stream by its name, and cairn.anchors, blocks, streams, validators,\ncommittees, proposals, parameters, identities, keys, roles, schemas, records, quarantine, problems.\nFunctions: cairn_receipt(stream, partition, offset), cairn.lineage('stream/partition/offset'), cairn_evidence('last')."
)]
pub(crate) struct SqlArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// The statement.
    sql: Option<String>,
    /// Log in with this key file, where the query role asks for it.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// See the records as of this block height.
    #[arg(long, value_name = "HEIGHT")]
    as_of: Option<u64>,
    /// How to write the answer.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write evidence of the answer, signed by the query node, into this file; `cairn verify` and `cairn replay` check it.
    #[arg(long, value_name = "FILE", requires = "sql", conflicts_with = "output")]
    evidence: Option<PathBuf>,
    /// Write the rows to this file as columns: .parquet or .arrow (IPC). They come over the Flight SQL port.
    #[arg(long, value_name = "FILE", value_parser = columns_path, requires = "sql")]
    output: Option<PathBuf>,
    /// PEM file of the root that the Flight SQL port's certificate is checked by, if that is not in the folder's own.
    #[arg(long, value_name = "FILE")]
    root_certificate: Option<PathBuf>,
}

fn columns_path(text: &str) -> Result<PathBuf, String> {
    columns_file::Form::of(Path::new(text)).map(|_| PathBuf::from(text)).map_err(|error| error.to_string())
}

/// The query role of a folder, and how to get in.
struct Target {
    home: PathBuf,
    postgres: SocketAddr,
    flight: Option<SocketAddr>,
    /// What the certificate of the Flight SQL port is checked by, where it speaks TLS.
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    chain: ChainTag,
    audience: String,
    as_of: Option<u64>,
}

impl Target {
    fn of(args: &SqlArgs) -> Result<Self> {
        let home = Home::open(&args.dir)?;
        let config = home.config()?;
        let own = config.query.postgres.tls.as_ref().map(|tls| home.path().join(&tls.certificate));
        Ok(Self {
            home: home.path().to_owned(),
            postgres: config.postgres(),
            flight: config.query.flight.as_ref().map(|flight| flight.listen),
            certificate: own.map(|own| args.root_certificate.clone().unwrap_or(own)),
            key: args.key.clone(),
            chain: home.genesis()?.tag(),
            audience: config.query.postgres.audience.clone(),
            as_of: args.as_of,
        })
    }

    /// A login token, where there is a key to make it with.
    fn login(&self) -> Result<Option<String>> {
        self.key.as_ref().map(|key| token(key, None, self.chain, &self.audience, LOGIN_S)).transpose()
    }

    async fn connect(&self) -> Result<Connection> {
        let connection = Connection::open(self.postgres, self.login()?.as_deref()).await?;
        if let Some(height) = self.as_of {
            connection.stand_at(height).await?;
        }
        Ok(connection)
    }
}

/// Runs `cairn sql`.
pub(crate) async fn sql(args: &SqlArgs) -> Result<()> {
    let target = Target::of(args)?;
    let Some(sql) = &args.sql else {
        return Box::pin(shell::Shell::open(target, args.format).await?.run()).await;
    };
    if let Some(file) = &args.output {
        let settings: Vec<_> = args.as_of.map(|height| ("cairn.as_of", height.to_string())).into_iter().collect();
        let rows = Box::pin(columns_file::write(&target, &settings, sql, file)).await?;
        return crate::say!("{rows} rows in {}", file.display());
    }
    let connection = target.connect().await?;
    if args.evidence.is_some() {
        connection.run("SET cairn.evidence = on").await?;
    }
    let Answer { table, mut notices, .. } = connection.run(sql).await?;
    table.print(args.format)?;
    if args.format == Format::Table {
        crate::say!("{} rows", table.len())?;
    }
    if let Some(file) = &args.evidence {
        let evidence = connection.evidence().await?;
        write_public(file, evidence.as_bytes())?;
    }
    // Beside the data, so that a program that reads the output is not disturbed.
    if let Some(file) = &args.evidence {
        let (file, genesis) = (file.display(), Home::open(&args.dir)?.genesis_file());
        notices.push(format!(
            "evidence written to {file}; check it with: cairn verify {file} --genesis {}",
            genesis.display()
        ));
    }
    let mut error = std::io::stderr().lock();
    for notice in &notices {
        std::io::Write::write_all(&mut error, format!("{notice}\n").as_bytes())?;
    }
    Ok(())
}

/// Writes a file that everybody may read.
fn write_public(file: &Path, bytes: &[u8]) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o644).open(file);
    let written = opened.and_then(|mut file| std::io::Write::write_all(&mut file, bytes));
    written.with_context(|| format!("writing {}", file.display()))
}

/// A login token by the key in a file, where one is given.
pub(crate) fn login(home: &Home, config: &Config, key: Option<&Path>) -> Result<Option<String>> {
    let audience = &config.query.postgres.audience;
    key.map(|key| token(key, None, home.genesis()?.tag(), audience, LOGIN_S)).transpose()
}

/// Asks the Postgres port at `addr`, without a password.
pub(crate) async fn query(addr: SocketAddr, sql: &str, as_of: Option<u64>) -> Result<Answer> {
    let connection = Connection::open(addr, None).await?;
    if let Some(height) = as_of {
        connection.stand_at(height).await?;
    }
    connection.run(sql).await
}

/// How long a token lives that a connection is opened with, in seconds.
const LOGIN_S: u64 = 60;
