//! Rows in the form that Postgres clients take.
//!
//! Columns of a type that Postgres has no like of (maps, lists of lists, wide decimals) are handed out as JSON text.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::json::EncoderOptions;
use arrow::json::writer::make_encoder;
use datafusion_postgres::arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch, field_into_pg_type};
use datafusion_postgres::pgwire::api::portal::Format;
use datafusion_postgres::pgwire::api::results::{FieldInfo, QueryResponse};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::types::format::FormatOptions;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;

use super::errors;
use crate::error::{QueryError, SqlState};
use crate::session::Rows;

/// The columns as clients see them.
pub(super) fn wire_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<FieldRef> = schema
        .fields()
        .iter()
        .map(|field| {
            if has_likeness(field) {
                Arc::clone(field)
            } else {
                Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable()))
            }
        })
        .collect();
    Arc::new(Schema::new(fields))
}

fn has_likeness(field: &FieldRef) -> bool {
    !holds_map(field.data_type()) && field_into_pg_type(field).is_ok()
}

fn holds_map(data_type: &DataType) -> bool {
    match data_type {
        DataType::Map(..) => true,
        DataType::Struct(fields) => fields.iter().any(|field| holds_map(field.data_type())),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            holds_map(item.data_type())
        }
        _ => false,
    }
}

/// The description of a result's columns.
pub(super) fn fields(
    schema: &Schema,
    format: &Format,
    options: Option<Arc<FormatOptions>>,
) -> PgWireResult<Vec<FieldInfo>> {
    let schema = wire_schema(schema);
    if let Format::Individual(codes) = format
        && codes.len() != schema.fields().len()
    {
        return Err(errors::error(QueryError::statement(
            SqlState("08P01"),
            format!(
                "bind message has {} result formats but the query has {} columns",
                codes.len(),
                schema.fields().len()
            ),
        )));
    }
    arrow_schema_to_pg_fields(&schema, format, options)
}

/// A statement's rows as an answer, which ends when the client cancels it.
pub(super) fn response(
    rows: Rows,
    tag: &str,
    format: &Format,
    options: FormatOptions,
    cancelled: watch::Receiver<u64>,
) -> PgWireResult<QueryResponse> {
    let fields = Arc::new(fields(&rows.schema, format, Some(Arc::new(options)))?);
    let schema = wire_schema(&rows.schema);
    let encoded = Arc::clone(&fields);
    let batches = until_cancelled(rows, cancelled);
    let messages = batches.flat_map(move |batch| {
        let rows = batch
            .map_err(errors::error)
            .and_then(|batch| to_wire(&batch, &schema))
            .map(|batch| encode_recordbatch(Arc::clone(&encoded), batch));
        match rows {
            Ok(rows) => stream::iter(rows).boxed(),
            Err(error) => stream::once(async move { Err(error) }).boxed(),
        }
    });
    let mut response = QueryResponse::new(fields, messages);
    response.set_command_tag(tag);
    Ok(response)
}

fn until_cancelled(
    rows: Rows,
    cancelled: watch::Receiver<u64>,
) -> BoxStream<'static, crate::error::Result<RecordBatch>> {
    let state = Some((rows.stream, cancelled));
    stream::unfold(state, |state| async move {
        let (mut rows, mut cancelled) = state?;
        tokio::select! {
            biased;
            () = asked_to_stop(&mut cancelled) => Some((Err(QueryError::cancelled()), None)),
            next = rows.next() => {
                let next = next?;
                Some((next, Some((rows, cancelled))))
            }
        }
    })
    .fuse()
    .boxed()
}

/// Waits for the client's cancel request; for ever if none can come any more.
pub(super) async fn asked_to_stop(cancelled: &mut watch::Receiver<u64>) {
    if cancelled.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Brings a batch into the columns that clients see.
fn to_wire(batch: &RecordBatch, schema: &SchemaRef) -> PgWireResult<RecordBatch> {
    let columns = batch
        .columns()
        .iter()
        .zip(batch.schema_ref().fields())
        .map(|(column, field)| if has_likeness(field) { Ok(Arc::clone(column)) } else { json(field, column) })
        .collect::<PgWireResult<Vec<_>>>()?;
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|error| {
        errors::error(QueryError::internal(format!("an answer's columns do not fit their description: {error}")))
    })
}

fn json(field: &FieldRef, column: &ArrayRef) -> PgWireResult<ArrayRef> {
    let failed = |error: &dyn std::fmt::Display| -> PgWireError {
        errors::error(QueryError::statement(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("column \"{}\" cannot be handed out: {error}", field.name()),
        ))
    };
    let options = EncoderOptions::default();
    let mut encoder = make_encoder(field, column, &options).map_err(|error| failed(&error))?;
    let mut texts = StringBuilder::with_capacity(column.len(), column.len() * 16);
    let mut buffer = Vec::new();
    for row in 0..column.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        buffer.clear();
        encoder.encode(row, &mut buffer);
        texts.append_value(std::str::from_utf8(&buffer).map_err(|error| failed(&error))?);
    }
    Ok(Arc::new(texts.finish()))
}
