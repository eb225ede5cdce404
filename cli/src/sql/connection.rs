//! One connection to the Postgres port: statements as text, what the server said beside them, and cancelling.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;
use tokio_postgres::error::ErrorPosition;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, CancelToken, Client, NoTls, SimpleQueryMessage};

use crate::output::Table;

/// An answer: its rows, and what the server said beside them.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) table: Table,
    pub(crate) notices: Vec<String>,
    /// Whether the statement has rows at all: `SET` and its like have none, and no columns.
    pub(crate) has_rows: bool,
}

/// `undefined_object`: here, no evidence of that name.
const UNDEFINED_OBJECT: &str = "42704";

/// A connection whose driver ends with it.
pub(crate) struct Connection {
    pub(crate) client: Client,
    notices: Arc<Mutex<Vec<String>>>,
}

impl Connection {
    /// Connects to `addr`, with a login token as password where one is given.
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
        let heard = Arc::clone(&notices);
        tokio::spawn(async move {
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
        Ok(Self { client, notices })
    }

    /// Whether the server or the network has ended it.
    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// What cancels the statement that runs.
    pub(crate) fn cancel_token(&self) -> CancelToken {
        self.client.cancel_token()
    }

    /// Makes all statements run at a block.
    pub(crate) async fn stand_at(&self, height: u64) -> Result<()> {
        let set = self.client.batch_execute(&format!("SET cairn.as_of = {height}")).await;
        set.map_err(|error| anyhow!(describe(&error, "")))
    }

    /// Runs text of one statement or several, and gathers the rows of the last one that has some.
    pub(crate) async fn run(&self, sql: &str) -> Result<Answer> {
        // The types decide what is a number in JSON; a statement that cannot be prepared has no rows to type.
        let types: Vec<Type> = match self.client.prepare(sql).await {
            Ok(statement) => statement.columns().iter().map(|column| column.type_().clone()).collect(),
            Err(_) => vec![],
        };
        self.take_notices();
        let messages = self.client.simple_query(sql).await.map_err(|error| anyhow!(describe(&error, sql)))?;
        let table = table(&messages, &types)?;
        let (has_rows, table) = (table.is_some(), table.unwrap_or_else(|| Table::new(&[] as &[&str])));
        Ok(Answer { table, notices: self.take_notices(), has_rows })
    }

    /// The evidence of the last answer of the session.
    pub(crate) async fn evidence(&self) -> Result<String> {
        let messages = self.client.simple_query("SELECT cairn_evidence('last')").await;
        let messages = messages.map_err(|error| {
            let none = error.code().is_some_and(|code| code.code() == UNDEFINED_OBJECT);
            let only = "; only a SELECT over streams or the chain's tables has evidence";
            anyhow!("{}{}", describe(&error, ""), if none { only } else { "" })
        })?;
        let text = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        text.context("the server gave no evidence, and no reason")
    }

    fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn table(messages: &[SimpleQueryMessage], types: &[Type]) -> Result<Option<Table>> {
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
    Ok(table)
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

/// What the server said: message, place in the statement, detail, hint and SQLSTATE.
pub(crate) fn describe(error: &tokio_postgres::Error, sql: &str) -> String {
    let Some(said) = error.as_db_error() else { return error.to_string() };
    let mut text = format!("{} (SQLSTATE {})", said.message(), said.code().code());
    if let Some(ErrorPosition::Original(place)) = said.position()
        && let Some(shown) = shown_place(sql, *place as usize)
    {
        text.push_str(&shown);
    }
    for (name, more) in [("detail", said.detail()), ("hint", said.hint())] {
        if let Some(more) = more {
            text.push_str(&format!("\n{name}: {more}"));
        }
    }
    text
}

/// The line of a statement with a mark below the character at `place`, counted from 1.
fn shown_place(sql: &str, place: usize) -> Option<String> {
    let before: String = sql.chars().take(place.checked_sub(1)?).collect();
    let number = before.matches('\n').count();
    let column = before.chars().rev().take_while(|character| *character != '\n').count();
    let label = format!("line {}: ", number + 1);
    let line = sql.split('\n').nth(number)?;
    Some(format!("\n{label}{line}\n{}^", " ".repeat(label.chars().count() + column)))
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

    #[test]
    fn an_error_points_at_its_place() {
        assert_eq!(shown_place("SELECT x\nFROM ä.y z", 15).unwrap(), "\nline 2: FROM ä.y z\n             ^");
        assert_eq!(shown_place("SELECT x", 0), None);
    }
}
