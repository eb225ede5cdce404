//! `cairn replay`: runs the statement of an answer's evidence again, at the same height and with the same settings, and
//! compares.
//!
//! The query role of the folder computes the answer and hashes its rows; what it signs is verified like the evidence that
//! was given, and the two are laid side by side. It is as good as the node that is asked: run it against your own, over
//! your own copy of the segments, and nobody has to be believed.

use std::fmt::Display;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use cairn_proof::answer::file::AnswerEvidence;
use cairn_proof::answer::{Answer, Parameter};
use cairn_proof::identity::PublicKey;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::evidence::{DOES_NOT_VERIFY, public_key};
use crate::home::{Home, read_genesis};
use crate::sql::{Connection, describe, login};

/// The settings that an answer may depend on. Others would be set without a look at what they do.
const SETTINGS: [&str; 3] = ["cairn.on_unverified", "search_path", "timezone"];
/// `data_corrupted`: what is stored does not verify.
const DATA_CORRUPTED: &str = "XX001";

/// Run the statement of an answer's evidence again, and compare.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn sql --dir city --evidence answer.json \"SELECT count(*) FROM traffic.flow\"\n  cairn replay answer.json --dir city\n\nThe query role of the folder is asked, at the evidence's height. Exit code 3 when the evidence does not verify, when the\nanswer is another one now, or when stored segments do not verify; what differs is named."
)]
pub(crate) struct ReplayArgs {
    /// The evidence.
    file: PathBuf,
    /// Folder of the network.
    #[arg(long, default_value = "cairn-data")]
    dir: PathBuf,
    /// The genesis of the chain, from a source that you trust; that of the folder, if left out.
    #[arg(long)]
    genesis: Option<PathBuf>,
    /// The public key of a query node that you know, beside those that the genesis names; may be repeated.
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    node_key: Vec<PublicKey>,
    /// Log in with this key file, where the query role asks for it.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// Runs `cairn replay`. Returns the exit code.
pub(crate) async fn replay(args: &ReplayArgs) -> Result<u8> {
    let home = Home::open(&args.dir)?;
    let config = home.config()?;
    let genesis = match &args.genesis {
        Some(file) => read_genesis(file)?,
        None => home.genesis()?,
    };
    let bytes =
        std::fs::read(&args.file).with_context(|| format!("the file {} cannot be read", args.file.display()))?;
    let verified = AnswerEvidence::from_json(&bytes).and_then(|file| file.verify(&genesis, &args.node_key));
    let then = match verified {
        Ok(verified) => verified.answer,
        Err(error) => {
            crate::say!("DOES NOT VERIFY: {error}")?;
            return Ok(DOES_NOT_VERIFY);
        }
    };
    let login = login(&home, &config, args.key.as_deref())?;
    let connection = Connection::open(config.postgres(), login.as_deref()).await?;
    let rows = match run(&connection, &then).await? {
        Ok(rows) => rows,
        Err(refused) => {
            crate::say!("DOES NOT REPLAY: what is stored does not verify: {refused}")?;
            return Ok(DOES_NOT_VERIFY);
        }
    };
    let file = AnswerEvidence::from_json(connection.evidence().await?.as_bytes())?;
    // The folder's own node: nobody else has to have named it.
    let now = file.verify(&genesis, &[file.signer]).context("what the query role signed now")?.answer;
    if rows != now.rows {
        bail!("the query role sent {rows} rows and signed {}", now.rows);
    }
    report(&then, &now)
}

/// Runs the statement; how many rows came, or how what is stored was refused.
async fn run(connection: &Connection, then: &Answer) -> Result<Result<u64, String>> {
    for (name, value) in &then.settings {
        if !SETTINGS.contains(&name.as_str()) {
            bail!("the evidence depends on the setting {name:?}, which this version does not know");
        }
        connection.run(&format!("SET {name} = '{}'", value.replace('\'', "''"))).await?;
    }
    connection.run(&format!("SET cairn.as_of = {}", then.height)).await?;
    connection.run("SET cairn.evidence = on").await?;
    let counted = match then.parameters.as_slice() {
        [] => count(&connection.client, &then.statement).await,
        values => count_bound(&connection.client, &then.statement, values).await,
    };
    match counted {
        Ok(rows) => Ok(Ok(rows)),
        Err(error) if error.code().is_some_and(|code| code.code() == DATA_CORRUPTED) => Ok(Err(describe(&error, ""))),
        Err(error) => Err(anyhow!(describe(&error, ""))),
    }
}

async fn count(client: &Client, statement: &str) -> Result<u64, tokio_postgres::Error> {
    let messages = client.simple_query_raw(statement).await?;
    let rows = messages.try_fold(0, |rows, message| async move {
        Ok(rows + u64::from(matches!(message, SimpleQueryMessage::Row(_))))
    });
    rows.await
}

async fn count_bound(client: &Client, statement: &str, values: &[Parameter]) -> Result<u64, tokio_postgres::Error> {
    let prepared = client.prepare(statement).await?;
    let values = values.iter().map(|value| AsText(value.text.clone()));
    let rows = client.query_raw(&prepared, values).await?;
    let mut rows = std::pin::pin!(rows);
    let mut count = 0;
    while let Some(row) = rows.next().await {
        row?;
        count += 1;
    }
    Ok(count)
}

/// A value that the server reads from its text.
#[derive(Debug)]
struct AsText(Option<String>);

impl ToSql for AsText {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(text) = &self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// What is compared, side by side.
struct Comparison {
    lines: Vec<String>,
    equal: bool,
}

impl Comparison {
    fn of<T: PartialEq>(&mut self, what: &str, then: &T, now: &T, show: impl Fn(&T) -> String) {
        if then == now {
            self.lines.push(format!("equal    {what:<12} {}", show(then)));
        } else {
            self.equal = false;
            self.lines.push(format!("DIFFERS  {what:<12} evidence: {}; now: {}", show(then), show(now)));
        }
    }

    fn shown<T: PartialEq + Display>(&mut self, what: &str, then: &T, now: &T) {
        self.of(what, then, now, ToString::to_string);
    }
}

fn compare(then: &Answer, now: &Answer) -> Comparison {
    let mut all = Comparison { lines: vec![], equal: true };
    all.shown("statement", &then.statement, &now.statement);
    all.of("parameters", &then.parameters, &now.parameters, |values| values.len().to_string());
    all.of("settings", &then.settings, &now.settings, |settings| {
        settings.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ")
    });
    all.shown("height", &then.height, &now.height);
    all.shown("block", &then.block, &now.block);
    all.shown("state root", &then.state_root, &now.state_root);
    let segments = |answer: &Answer| -> Vec<_> {
        answer.segments.iter().map(|segment| (segment.path.clone(), segment.blake3, segment.size)).collect()
    };
    all.of("segments", &segments(then), &segments(now), |segments| format!("{} with their roots", segments.len()));
    all.of("unverified", &(then.left_out, then.flagged), &(now.left_out, now.flagged), |(left_out, flagged)| {
        format!("{left_out} left out, {flagged} flagged")
    });
    all.of("columns", &then.columns, &now.columns, |columns| {
        columns.iter().map(|column| format!("{} {}", column.name, column.kind)).collect::<Vec<_>>().join(", ")
    });
    all.shown("rows", &then.rows, &now.rows);
    all.shown("rows root", &then.rows_root, &now.rows_root);
    all.of("order", &then.ordered_root, &now.ordered_root, |root| {
        root.as_ref().map_or_else(|| "not asked for".to_owned(), ToString::to_string)
    });
    all
}

fn report(then: &Answer, now: &Answer) -> Result<u8> {
    let Comparison { lines, equal } = compare(then, now);
    for line in lines {
        crate::say!("{line}")?;
    }
    if then.engine != now.engine {
        crate::say!("engine       evidence: {}; now: {}", then.engine, now.engine)?;
    }
    if equal {
        crate::say!("REPLAYED: the same {} rows at height {}", now.rows, now.height)?;
        return Ok(0);
    }
    if then.rows_root == now.rows_root {
        crate::say!("DOES NOT REPLAY: the rows are the same, what is named above is not")?;
    } else {
        crate::say!(
            "DOES NOT REPLAY: the rows are others. Functions such as now() and random(), the table cairn.problems and another \
             version of the engine can be the reason; all else means that one of the two answers is wrong"
        )?;
    }
    Ok(DOES_NOT_VERIFY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proof::identity::IdentityId;
    use cairn_proof::{Digest, Height};

    fn answer() -> Answer {
        Answer {
            node: IdentityId(Digest([1; 32])),
            statement: "SELECT 1".into(),
            parameters: vec![],
            settings: vec![],
            height: Height(3),
            block: Digest([2; 32]),
            state_root: Digest([3; 32]),
            segments: vec![],
            left_out: 0,
            flagged: 0,
            columns: vec![],
            rows: 1,
            rows_root: Digest([4; 32]),
            ordered_root: None,
            engine: "one".into(),
            made_ms: 1,
        }
    }

    #[test]
    fn who_answered_when_and_by_what_does_not_matter_and_all_else_does() {
        let again = Answer { node: IdentityId(Digest([9; 32])), engine: "two".into(), made_ms: 2, ..answer() };
        assert!(compare(&answer(), &again).equal);
        let others = [
            Answer { rows: 2, ..answer() },
            Answer { rows_root: Digest([5; 32]), ..answer() },
            Answer { ordered_root: Some(Digest([6; 32])), ..answer() },
            Answer { statement: "SELECT 2".into(), ..answer() },
            Answer { left_out: 1, ..answer() },
            Answer { height: Height(4), ..answer() },
        ];
        for other in others {
            let compared = compare(&answer(), &other);
            let differ = compared.lines.iter().filter(|line| line.starts_with("DIFFERS")).count();
            assert!(!compared.equal && differ == 1, "{:?}", compared.lines);
        }
    }
}
