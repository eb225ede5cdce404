//! Runs the `.slt` files of `tests/slt`, each in a session of its own over the same small city of sealed segments; those
//! of `tests/slt/signed` over a city whose devices sign.
//!
//! `statement error (42P01)` checks the SQLSTATE alone; `statement error 42P01.*pattern`, the message and hint too.

use crate::common;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use cairn_query::{Engine, QueryError, Session};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};

struct Database(Session);

/// An error whose text holds its hint too, so that patterns can ask for it.
#[derive(Debug)]
struct Failure(QueryError);

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.0.state, self.0.message)?;
        match &self.0.hint {
            Some(hint) => write!(formatter, " | hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

#[async_trait::async_trait]
impl AsyncDB for Database {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let answer = self.0.sql(sql).await.map_err(Failure)?;
        if answer.schema.fields().is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        let options = FormatOptions::default().with_null("NULL");
        let mut rows = Vec::new();
        for batch in &answer.batches {
            let columns: Vec<_> =
                batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
            for row in 0..batch.num_rows() {
                rows.push(
                    columns
                        .iter()
                        .map(|column| match column.value(row).to_string() {
                            text if text.is_empty() => "(empty)".to_owned(),
                            text => text,
                        })
                        .collect(),
                );
            }
        }
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; answer.schema.fields().len()], rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "cairn"
    }

    fn error_sql_state(error: &Failure) -> Option<String> {
        Some(error.0.state.0.to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_files_pass() {
    run_files(&common::city().await.engine(), "tests/slt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_files_about_signed_records_pass() {
    run_files(&common::signed_city().await.engine(), "tests/slt/signed").await;
}

async fn run_files(engine: &Engine, folder: &str) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "slt"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there are .slt files");
    let mut failed = Vec::new();
    for file in files {
        let mut runner = Runner::new(|| async { Ok(Database(engine.session().unwrap())) });
        if let Err(error) = runner.run_file_async(&file).await {
            failed.push(format!("{}", error.display(false)));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
