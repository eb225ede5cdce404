//! Prepared statements of a session, and the values that clients bind to them.
//!
//! Clients of JDBC write `?` for a parameter, where Postgres writes `$1`: question marks are numbered in order before the
//! statement is parsed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::{Stream, StreamExt, TryStreamExt};
use tonic::Status;

use super::status::{protocol, status};
use crate::error::{QueryError, Result, SqlState};
use crate::statement::Statement;
use crate::wire::parameters::Parameter;

/// The most prepared statements that a session may hold.
const PREPARED_MAX: usize = 256;

/// A prepared statement.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) statement: Arc<Statement>,
    pub(super) parameters: Arc<Vec<Parameter>>,
    /// The columns of its rows, if it has any.
    pub(super) columns: Option<SchemaRef>,
    /// The values bound last.
    pub(super) bound: Option<ParamValues>,
}

impl Prepared {
    /// The parameters as a schema: one field each, named by its number.
    pub(super) fn parameter_schema(&self) -> Schema {
        let field = |(number, parameter): (usize, &Parameter)| {
            let data_type = parameter.planned.clone().unwrap_or(DataType::Utf8);
            Field::new(format!("${number}"), super::encode::plain_type(&data_type), true)
        };
        Schema::new((1..).zip(self.parameters.iter()).map(field).collect::<Vec<_>>())
    }

    /// The values that a run needs.
    pub(super) fn values(&self) -> Result<Option<ParamValues>> {
        if self.parameters.is_empty() {
            return Ok(None);
        }
        self.bound.clone().map(Some).ok_or_else(|| {
            QueryError::statement(
                SqlState::UNDEFINED_PARAMETER,
                format!("the prepared statement takes {} parameters and none are bound", self.parameters.len()),
            )
        })
    }

    /// Takes the values of one row.
    pub(super) fn bind(&mut self, batch: &RecordBatch) -> Result<()> {
        let wanted = self.parameters.len();
        if batch.num_columns() != wanted || batch.num_rows() != 1 {
            let (rows, columns) = (batch.num_rows(), batch.num_columns());
            return Err(QueryError::statement(
                SqlState("08P01"),
                format!(
                    "{columns} parameters of {rows} rows are bound; the prepared statement takes {wanted} of one row"
                ),
            ));
        }
        let value = |(column, parameter): (&arrow::array::ArrayRef, &Parameter)| {
            let value = ScalarValue::try_from_array(column, 0)?;
            match &parameter.planned {
                Some(planned) if value.data_type() != *planned => value.cast_to(planned),
                _ => Ok(value),
            }
        };
        let values: datafusion::error::Result<Vec<ScalarValue>> =
            batch.columns().iter().zip(self.parameters.iter()).map(value).collect();
        let values = values.map_err(|error| QueryError::statement(SqlState::INVALID_TEXT, error.strip_backtrace()))?;
        self.bound = Some(ParamValues::from(values));
        Ok(())
    }
}

/// The prepared statements of a session by their handles.
#[derive(Debug, Default)]
pub(super) struct PreparedStatements(Mutex<(u64, BTreeMap<u64, Prepared>)>);

impl PreparedStatements {
    /// Keeps a statement and gives its handle.
    pub(super) fn keep(&self, prepared: Prepared) -> Result<u64> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.1.len() >= PREPARED_MAX {
            return Err(QueryError::limit(
                SqlState::PROGRAM_LIMIT,
                format!("a session may hold {PREPARED_MAX} prepared statements"),
            )
            .with_hint("close those that are not needed"));
        }
        kept.0 += 1;
        let handle = kept.0;
        kept.1.insert(handle, prepared);
        Ok(handle)
    }

    pub(super) fn get(&self, handle: u64) -> Result<Prepared> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.1.get(&handle).cloned().ok_or_else(|| unknown(handle))
    }

    /// Binds the values of one row.
    pub(super) fn bind(&self, handle: u64, batch: &RecordBatch) -> Result<()> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.1.get_mut(&handle).ok_or_else(|| unknown(handle))?.bind(batch)
    }

    pub(super) fn close(&self, handle: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&handle);
    }
}

fn unknown(handle: u64) -> QueryError {
    QueryError::statement(SqlState("26000"), format!("prepared statement {handle} does not exist"))
        .with_hint("prepared statements live as long as the connection that made them: prepare it again")
}

/// The handle in a client's message.
pub(super) fn handle(bytes: &[u8]) -> std::result::Result<u64, Status> {
    let bytes: [u8; 8] = bytes
        .try_into()
        .map_err(|_| protocol(format!("a prepared statement's handle has 8 bytes, found {}", bytes.len())))?;
    Ok(u64::from_be_bytes(bytes))
}

/// Reads the one batch of values that a client sends, and no more than `bytes_max` of it.
pub(super) async fn values<S>(messages: S, bytes_max: usize) -> std::result::Result<RecordBatch, Status>
where
    S: Stream<Item = std::result::Result<FlightData, Status>> + Send + 'static,
{
    let mut left = bytes_max;
    let bounded = messages.map_err(|status| FlightError::Tonic(Box::new(status))).map(move |message| {
        let message = message?;
        let bytes = message.data_body.len() + message.data_header.len() + message.app_metadata.len();
        left = left.checked_sub(bytes).ok_or_else(|| {
            let limit = QueryError::limit(
                SqlState::PROGRAM_LIMIT,
                format!("the values have more than message_bytes_max = {bytes_max} bytes"),
            );
            FlightError::Tonic(Box::new(status(limit)))
        })?;
        Ok(message)
    });
    let mut batches = FlightRecordBatchStream::new_from_flight_data(bounded);
    let mut found: Option<RecordBatch> = None;
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(|error| match error {
            FlightError::Tonic(status) => *status,
            other => protocol(format!("the values cannot be read: {other}")),
        })?;
        if batch.num_rows() == 0 {
            continue;
        }
        if found.is_some() {
            return Err(protocol("the values of one row can be bound at a time; more batches came"));
        }
        found = Some(batch);
    }
    found.ok_or_else(|| protocol("no values came to be bound"))
}

/// Numbers the question marks of a statement: `?, ?` becomes `$1, $2`. Other text, in quotes or comments, stays.
pub(super) fn numbered(sql: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location() else {
        // Not SQL: what is wrong with it is said where it is parsed.
        return sql.to_owned();
    };
    let is_mark = |token: &Token| match token {
        Token::Question => true,
        Token::Placeholder(text) => text == "?",
        _ => false,
    };
    let mut marks = tokens.iter().filter(|token| is_mark(&token.token)).map(|token| token.span.start).peekable();
    if marks.peek().is_none() {
        return sql.to_owned();
    }
    let mut numbered = String::with_capacity(sql.len() + 16);
    let (mut line, mut column, mut number) = (1_u64, 1_u64, 0_u64);
    for character in sql.chars() {
        if marks.peek().is_some_and(|mark| (mark.line, mark.column) == (line, column)) {
            marks.next();
            number += 1;
            numbered.push_str(&format!("${number}"));
        } else {
            numbered.push(character);
        }
        (line, column) = if character == '\n' { (line + 1, 1) } else { (line, column + 1) };
    }
    numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_marks_are_numbered_and_those_in_text_are_not() {
        assert_eq!(numbered("SELECT ?, '?' -- ?\n, ?::int8"), "SELECT $1, '?' -- ?\n, $2::int8");
        assert_eq!(numbered("SELECT 'é', ? WHERE \"?\" = ?"), "SELECT 'é', $1 WHERE \"?\" = $2");
        assert_eq!(numbered("SELECT $1"), "SELECT $1");
        assert_eq!(numbered("SELECT 'open"), "SELECT 'open");
    }

    #[test]
    fn a_handle_has_eight_bytes() {
        assert_eq!(handle(&[0, 0, 0, 0, 0, 0, 1, 2]).expect("eight"), 258);
        assert!(handle(&[]).is_err() && handle(&[0; 9]).is_err());
    }
}
