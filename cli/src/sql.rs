//! `cairn sql`: one statement over the Postgres port of the query role.

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, NoTls, SimpleQueryMessage};

use crate::config::Config;
use crate::home::Home;
use crate::login::token;
use crate::output::{Format, Table};

/// `undefined_object`: here, no evidence of that name.
const UNDEFINED_OBJECT: &str = "42704";

/// Run a statement over the verified records.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn sql --dir city \"SELECT count(*) FROM traffic.flow\"\n  cairn sql --dir city --as-of 120 --format csv \"SELECT * FROM cairn.anchors\"\n  cairn sql --dir city --evidence answer.json \"SELECT max(speed_kmh) FROM traffic.flow\"\n\nTables: each stream by its name, and cairn.anchors, blocks, streams, validators,\ncommittees, proposals, parameters, identities, keys, roles, schemas, records, quarantine, problems.\nFunctions: cairn_receipt(stream, partition, offset), cairn.lineage('stream/partition/offset'), cairn_evidence('last')."
)]
pub(crate) struct SqlArgs {
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// The statement.
    sql: String,
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
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
}

/// An answer: its rows, and what the server said beside them.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) table: Table,
    pub(crate) notices: Vec<String>,
}

/// Runs `cairn sql`.
pub(crate) async fn sql(args: &SqlArgs) -> Result<()> {
    let home = Home::open(&args.dir)?;
    let config = home.config()?;
    let login = login(&home, &config, args.key.as_deref())?;
    let connection = Connection::open(config.postgres(), login.as_deref()).await?;
    if args.evidence.is_some() {
        connection.run("SET cairn.evidence = on").await?;
    }
    let table = connection.ask(&args.sql, args.as_of).await?;
    table.print(args.format)?;
    if args.format == Format::Table {
        crate::say!("{} rows", table.len())?;
    }
    if let Some(file) = &args.evidence {
        let evidence = connection.evidence().await?;
        write_public(file, evidence.as_bytes())?;
    }
    // Beside the data, so that a program that reads the output is not disturbed.
    let mut notices = connection.end().await;
    if let Some(file) = &args.evidence {
        let (file, genesis) = (file.display(), home.genesis_file());
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

/// How long a token lives that one statement is asked with, in seconds.
const LOGIN_S: u64 = 60;

/// A login token by the key in a file, where one is given.
pub(crate) fn login(home: &Home, config: &Config, key: Option<&Path>) -> Result<Option<String>> {
    let audience = &config.query.postgres.audience;
    key.map(|key| token(key, None, home.genesis()?.tag(), audience, LOGIN_S)).transpose()
}

/// Asks the Postgres port at `addr`, without a password.
pub(crate) async fn query(addr: SocketAddr, sql: &str, as_of: Option<u64>) -> Result<Answer> {
    let connection = Connection::open(addr, None).await?;
    let table = connection.ask(sql, as_of).await?;
    Ok(Answer { table, notices: connection.end().await })
}

/// A connection to the Postgres port: one session.
pub(crate) struct Connection {
    pub(crate) client: tokio_postgres::Client,
    notices: Arc<Mutex<Vec<String>>>,
    driver: tokio::task::JoinHandle<()>,
}

impl Connection {
    /// Connects, with a login token as password where one is given.
    pub(crate) async fn open(addr: SocketAddr, login: Option<&str>) -> Result<Self> {
        let mut config = tokio_postgres::Config::new();
        config.host(addr.ip().to_string()).port(addr.port()).user("cairn").dbname("cairn");
        config.password(login.unwrap_or_default());
        config.connect_timeout(std::time::Duration::from_secs(5));
        let (client, mut connection) = config
            .connect(NoTls)
            .await
            .with_context(|| format!("no answer from query on {addr}; is `cairn up` or `cairn query` running?"))?;
        let notices: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = notices.clone();
        let driver = tokio::spawn(async move {
            while let Some(message) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notice(notice)) => {
                        heard.lock().unwrap_or_else(PoisonError::into_inner).push(notice.message().to_owned());
                    }
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        });
        Ok(Self { client, notices, driver })
    }

    /// Runs a statement without rows.
    pub(crate) async fn run(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(|error| anyhow!(describe(&error)))
    }

    /// Runs a statement and gathers its rows.
    async fn ask(&self, sql: &str, as_of: Option<u64>) -> Result<Table> {
        if let Some(height) = as_of {
            self.run(&format!("SET cairn.as_of = {height}")).await?;
        }
        // The types decide what is a number in JSON; a statement that cannot be prepared has no rows to type.
        let types: Vec<Type> = match self.client.prepare(sql).await {
            Ok(statement) => statement.columns().iter().map(|column| column.type_().clone()).collect(),
            Err(_) => vec![],
        };
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let messages = self.client.simple_query(sql).await.map_err(|error| anyhow!(describe(&error)))?;
        table(&messages, &types)
    }

    /// The evidence of the last answer of the session.
    pub(crate) async fn evidence(&self) -> Result<String> {
        let messages = self.client.simple_query("SELECT cairn_evidence('last')").await;
        let messages = messages.map_err(|error| {
            let none = error.code().is_some_and(|code| code.code() == UNDEFINED_OBJECT);
            let only = "; only a SELECT over streams or the chain's tables has evidence";
            anyhow!("{}{}", describe(&error), if none { only } else { "" })
        })?;
        let text = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        text.context("the server gave no evidence, and no reason")
    }

    /// Ends it; what the server said beside the answers.
    async fn end(self) -> Vec<String> {
        drop(self.client);
        let _ = self.driver.await;
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn table(messages: &[SimpleQueryMessage], types: &[Type]) -> Result<Table> {
    let mut table: Option<Table> = None;
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                table = Some(Table::new(&columns.iter().map(|column| column.name()).collect::<Vec<_>>()));
            }
            SimpleQueryMessage::Row(row) => {
                let Some(table) = &mut table else { bail!("the server sent a row without a description") };
                table.row((0..row.len()).map(|at| cell(row.get(at), types.get(at))).collect());
            }
            _ => {}
        }
    }
    Ok(table.unwrap_or_else(|| Table::new(&[] as &[&str])))
}

/// A value as the client's text says it, typed where JSON has the type.
fn cell(text: Option<&str>, kind: Option<&Type>) -> Value {
    let Some(text) = text else { return Value::Null };
    let number =
        matches!(kind, Some(&(Type::INT2 | Type::INT4 | Type::INT8 | Type::FLOAT4 | Type::FLOAT8 | Type::NUMERIC)));
    if number && let Ok(number) = serde_json::from_str::<serde_json::Number>(text) {
        return Value::Number(number);
    }
    match (kind, text) {
        (Some(&Type::BOOL), "t") => Value::Bool(true),
        (Some(&Type::BOOL), "f") => Value::Bool(false),
        _ => Value::String(text.to_owned()),
    }
}

/// What the server said: message, detail, hint and SQLSTATE.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        None => error.to_string(),
        Some(said) => {
            let mut text = format!("{} (SQLSTATE {})", said.message(), said.code().code());
            for (name, more) in [("detail", said.detail()), ("hint", said.hint())] {
                if let Some(more) = more {
                    text.push_str(&format!("\n{name}: {more}"));
                }
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits_and_nulls_are_null() {
        assert_eq!(cell(Some("12"), Some(&Type::INT8)).to_string(), "12");
        assert_eq!(cell(Some("NaN"), Some(&Type::FLOAT8)), Value::String("NaN".into()));
        assert_eq!(cell(Some("t"), Some(&Type::BOOL)), Value::Bool(true));
        assert_eq!(cell(Some("t"), Some(&Type::TEXT)), Value::String("t".into()));
        assert_eq!(cell(None, Some(&Type::INT8)), Value::Null);
    }
}
