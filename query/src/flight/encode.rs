//! Rows in the form that Flight clients take: Arrow's own, with the height in the schema's metadata.
//!
//! Views of texts and bytes are handed out as plain ones: not every client's Arrow has views yet.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use bytes::Bytes;
use cairn_proof::units::Height;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use tonic::{Response, Status};

use super::sessions::FlightSession;
use super::status::status;
use crate::error::{QueryError, Result};
use crate::session::Rows;

/// The key of the schema's metadata that names the block that rows are computed at.
pub(super) const HEIGHT_KEY: &str = "cairn.height";
/// The key of the schema's metadata that tells what must be known about the rows, one sentence a line.
pub(super) const WARNINGS_KEY: &str = "cairn.warnings";

/// The key of the schema's metadata that says what evidence of the rows can be asked for by.
pub(super) const EVIDENCE_KEY: &str = "cairn.evidence_id";

/// The messages of an answer.
pub(super) type Messages = Pin<Box<dyn Stream<Item = std::result::Result<FlightData, Status>> + Send>>;

/// A type without views, at any depth.
pub(super) fn plain_type(data_type: &DataType) -> DataType {
    let field = |field: &FieldRef| -> FieldRef {
        Arc::new(field.as_ref().clone().with_data_type(plain_type(field.data_type())))
    };
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) | DataType::ListView(item) => DataType::List(field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(field(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(field(item), *length),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        DataType::Dictionary(_, value) => plain_type(value),
        other => other.clone(),
    }
}

/// The columns as clients see them, and the height and warnings with them.
///
/// Every column may hold nulls here: what is said of a statement's rows before it runs, by its plan, and what comes with
/// them must be the same, and the two know different things about what cannot be null.
pub(super) fn wire_schema(schema: &Schema, height: Option<Height>, warnings: &[String]) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_data_type(plain_type(field.data_type())).with_nullable(true))
        .collect();
    let mut metadata = HashMap::new();
    if let Some(height) = height {
        metadata.insert(HEIGHT_KEY.to_owned(), height.0.to_string());
    }
    if !warnings.is_empty() {
        metadata.insert(WARNINGS_KEY.to_owned(), warnings.join("\n"));
    }
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// A schema as an IPC message, the form in which messages about statements carry it.
pub(super) fn schema_bytes(schema: &Schema) -> std::result::Result<Bytes, Status> {
    let options = IpcWriteOptions::default();
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &options));
    message.map(|message| message.0).map_err(|error| status(QueryError::internal(error.to_string())))
}

fn to_wire(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let failed = |error: arrow::error::ArrowError| QueryError::internal(format!("an answer's columns: {error}"));
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                return Ok(Arc::clone(column));
            }
            cast(column, field.data_type()).map_err(failed)
        })
        .collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(failed)
}

/// A statement's rows as an answer, which ends with its session's identity.
pub(super) fn response(rows: Rows, session: Arc<FlightSession>) -> Response<Messages> {
    let height = rows.of_chain.then_some(rows.height);
    let mut schema = wire_schema(&rows.schema, height, &rows.warnings);
    if let Some(id) = rows.evidence {
        let mut metadata = schema.metadata().clone();
        metadata.insert(EVIDENCE_KEY.to_owned(), id);
        schema = Arc::new(schema.as_ref().clone().with_metadata(metadata));
    }
    let to = Arc::clone(&schema);
    let batches = while_good(rows.stream, session).map(move |batch| to_wire(&batch?, &to));
    messages(schema, batches)
}

/// A batch that was made here as an answer.
pub(super) fn batch(batch: RecordBatch) -> Response<Messages> {
    messages(batch.schema(), stream::once(async move { Ok(batch) }))
}

/// An answer without columns.
pub(super) fn nothing() -> Response<Messages> {
    messages(Arc::new(Schema::empty()), stream::empty())
}

fn messages(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
) -> Response<Messages> {
    let batches = batches.map_err(|error| FlightError::Tonic(Box::new(status(error))));
    let encoded = FlightDataEncoderBuilder::new().with_schema(schema).build(batches).map_err(|error| match error {
        FlightError::Tonic(status) => *status,
        other => status(QueryError::internal(format!("an answer cannot be encoded: {other}"))),
    });
    Response::new(Box::pin(encoded))
}

fn while_good(
    rows: BoxStream<'static, Result<RecordBatch>>,
    session: Arc<FlightSession>,
) -> BoxStream<'static, Result<RecordBatch>> {
    stream::unfold(Some((rows, session)), |state| async move {
        let (mut rows, session) = state?;
        tokio::select! {
            biased;
            why = session.ended() => Some((Err(why), None)),
            next = rows.next() => {
                let next = next?;
                Some((next, Some((rows, session))))
            }
        }
    })
    .fuse()
    .boxed()
}
