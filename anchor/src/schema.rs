//! From a stream's Avro schema to the columns of its table and of its segments.
//!
//! The Arrow types are those that `arrow-avro` decodes into, with four changes that make one table of all formats and
//! schema versions of a stream:
//!
//! - every column may be null: a quarantined record has no values;
//! - enumerations are texts (`Utf8`), not dictionaries: neither JSON decoding nor SQL clients take dictionaries alike;
//! - field metadata is dropped: `arrow-avro` puts names and defaults there, which differ from one writer schema to the next;
//! - types that Parquet cannot hold (unions of several types, durations) are refused when the stream is defined.
//!
//! [`conform`] brings decoded columns into this form, without a copy except for enumerations.
//!
//! A Protobuf schema carries the Avro record that its message becomes ([`avro_text`]); `cairn-ingest` makes both.
//!
//! Underscore columns, which Cairn adds, are in [`segment_schema`]; a schema's own columns cannot start with `_`.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, MapArray, RecordBatch,
    StringArray, StructArray,
};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use arrow_schema::ArrowError;
use cairn_proof::statement::{Format, StreamDefinition};
use serde_json::Value as Json;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How deep records, arrays and maps of a schema may be nested.
const NESTING_MAX: usize = 32;
/// How many columns, nested ones counted, a schema may have.
const COLUMNS_MAX: usize = 4096;
/// The time zone of every timestamp that is an instant; Arrow's text for UTC that needs no time zone database.
pub const UTC: &str = "+00:00";

/// Partition of the record.
pub const PARTITION: &str = "_partition";
/// Offset of the record.
pub const OFFSET: &str = "_offset";
/// Kafka's timestamp of the record.
pub const TIMESTAMP: &str = "_timestamp";
/// Key of the record, as bytes.
pub const KEY: &str = "_key";
/// Headers of the record.
pub const HEADERS: &str = "_headers";
/// Value of the record, as bytes.
pub const RAW: &str = "_raw";
/// Why the record is quarantined; null where it is not.
pub const ERROR: &str = "_error";
/// Name of a header, within [`HEADERS`].
pub const HEADER_NAME: &str = "name";
/// Value of a header, within [`HEADERS`].
pub const HEADER_VALUE: &str = "value";

/// Why an Avro schema cannot be a stream's.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The stream has no schema at all.
    #[error("stream {stream} has no schema: its definition must carry at least one schema version")]
    None {
        /// The stream.
        stream: String,
    },
    /// It is no Avro schema of a record.
    #[error("not the Avro schema of a record: {0}")]
    Avro(#[source] ArrowError),
    /// It is no Protobuf schema as Cairn writes it.
    #[error("not the schema of a Protobuf message: {0}")]
    Protobuf(#[source] serde_json::Error),
    /// A column has a name that Cairn keeps for itself.
    #[error(
        "column {column:?} starts with '_': such names are kept for Cairn's own columns; rename the field or give it an alias"
    )]
    Reserved {
        /// The column.
        column: String,
    },
    /// Two columns of one record have the same name.
    #[error("column {column:?} occurs twice")]
    Duplicate {
        /// The column.
        column: String,
    },
    /// A column has a type that a segment cannot hold.
    #[error("column {column:?} is {what}, which a segment cannot hold; use {instead}")]
    Unsupported {
        /// The column, nested ones with dots.
        column: String,
        /// The type in words.
        what: &'static str,
        /// What to write instead.
        instead: &'static str,
    },
    /// The schema is larger than Cairn handles.
    #[error("the schema is too large: {what}")]
    TooLarge {
        /// Which limit, and its value.
        what: String,
    },
}

/// The columns of a stream's table: those of its last schema version, all nullable.
///
/// # Errors
/// [`SchemaError`], for a stream that should not have been registered.
pub fn table_schema(stream: &StreamDefinition) -> Result<SchemaRef, SchemaError> {
    let last = stream.schemas.last().ok_or_else(|| SchemaError::None { stream: stream.name.clone() })?;
    avro_to_arrow(&avro_text(stream.format, &last.text)?)
}

/// The Avro record that says which columns a schema's text stands for: the text itself, or what a Protobuf schema says that
/// its message becomes.
///
/// # Errors
/// [`SchemaError::Protobuf`] for a text of such a format that says none.
pub fn avro_text(format: Format, text: &str) -> Result<Cow<'_, str>, SchemaError> {
    match format {
        Format::Avro | Format::AvroConfluent | Format::Json => Ok(Cow::Borrowed(text)),
        Format::Protobuf | Format::ProtobufConfluent => {
            let schema: Json = serde_json::from_str(text).map_err(SchemaError::Protobuf)?;
            Ok(Cow::Owned(schema.get("columns").unwrap_or(&Json::Null).to_string()))
        }
    }
}

/// The columns of a stream's segments: those of its table, then Cairn's own.
///
/// # Errors
/// As [`table_schema`].
pub fn segment_schema(stream: &StreamDefinition) -> Result<SchemaRef, SchemaError> {
    Ok(with_own_columns(&*table_schema(stream)?))
}

/// A table's columns followed by Cairn's own.
pub fn with_own_columns(table: &Schema) -> SchemaRef {
    let fields: Vec<FieldRef> = table.fields().iter().cloned().chain(own_columns()).collect();
    Arc::new(Schema::new(fields))
}

/// Cairn's own columns, in their order.
pub fn own_columns() -> [FieldRef; 7] {
    let field = |name, data_type, nullable| Arc::new(Field::new(name, data_type, nullable));
    [
        field(PARTITION, DataType::Int32, false),
        field(OFFSET, DataType::Int64, false),
        field(TIMESTAMP, DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())), false),
        field(KEY, DataType::Binary, true),
        field(HEADERS, DataType::List(header_item()), true),
        field(RAW, DataType::Binary, true),
        field(ERROR, DataType::Utf8, true),
    ]
}

/// One header within [`HEADERS`].
pub(crate) fn header_item() -> FieldRef {
    Arc::new(Field::new(Field::LIST_FIELD_DEFAULT_NAME, DataType::Struct(header_fields()), false))
}

/// The parts of a header.
pub(crate) fn header_fields() -> Fields {
    let parts = [Field::new(HEADER_NAME, DataType::Utf8, false), Field::new(HEADER_VALUE, DataType::Binary, true)];
    Fields::from_iter(parts)
}

/// The columns that records of an Avro schema become.
///
/// ```
/// let text = r#"{"type":"record","name":"Reading","fields":[{"name":"sensor","type":"string"}]}"#;
/// let schema = cairn_anchor::schema::avro_to_arrow(text).expect("a record");
/// assert!(schema.field(0).is_nullable());
/// ```
///
/// # Errors
/// [`SchemaError`], which names the column and what to write instead.
pub fn avro_to_arrow(text: &str) -> Result<SchemaRef, SchemaError> {
    let decoded = decoded_schema(text).map_err(SchemaError::Avro)?;
    let mut columns = 0;
    let mut fields = Vec::with_capacity(decoded.fields().len());
    for field in decoded.fields() {
        if field.name().starts_with('_') {
            return Err(SchemaError::Reserved { column: field.name().clone() });
        }
        let data_type = normalize(field.data_type(), field.name(), 0, &mut columns)?;
        fields.push(Field::new(field.name(), data_type, true));
    }
    refuse_duplicates(&fields.iter().map(|field| field.name().as_str()).collect::<Vec<_>>())?;
    Ok(Arc::new(Schema::new(fields)))
}

/// What stands in a column where a record was written before the stream's newest schema had the field: one value each,
/// by column. Columns that are not named are null there.
///
/// A value of `avro-confluent` that lacks a field gets the field's default when it is decoded, so a segment that was
/// written before has it too. One of `json` gets null, and so do its segments. Plain `avro` has one schema for ever.
///
/// # Errors
/// As [`table_schema`].
pub fn defaults(stream: &StreamDefinition) -> Result<BTreeMap<String, ArrayRef>, SchemaError> {
    let table = table_schema(stream)?;
    let last = stream.schemas.last().filter(|_| stream.format == Format::AvroConfluent && stream.schemas.len() > 1);
    let schema: Json = last.and_then(|last| serde_json::from_str(&last.text).ok()).unwrap_or_default();
    let fields = schema.get("fields").and_then(Json::as_array);
    let named =
        fields.into_iter().flatten().filter_map(|field| Some((field.get("name")?.as_str()?, field.get("default")?)));
    let value = |(name, default): (&str, &Json)| {
        Some((name.to_owned(), default_value(default, table.field_with_name(name).ok()?.data_type())?))
    };
    Ok(named.filter_map(value).collect())
}

/// A default of a schema as one value of its column: numbers, texts and booleans, as long as they are exactly that.
#[must_use]
pub fn default_value(default: &Json, column: &DataType) -> Option<ArrayRef> {
    Some(match column {
        DataType::Boolean => Arc::new(BooleanArray::from(vec![default.as_bool()?])),
        DataType::Int32 => Arc::new(Int32Array::from(vec![i32::try_from(default.as_i64()?).ok()?])),
        DataType::Int64 => Arc::new(Int64Array::from(vec![default.as_i64()?])),
        DataType::Float64 => Arc::new(Float64Array::from(vec![default.as_f64()?])),
        DataType::Utf8 => Arc::new(StringArray::from(vec![default.as_str()?])),
        _ => return None,
    })
}

/// The schema that `arrow-avro` itself decodes to.
fn decoded_schema(text: &str) -> Result<SchemaRef, ArrowError> {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(1), AvroSchema::new(text.to_owned()))?;
    Ok(ReaderBuilder::new().with_writer_schema_store(store).build_decoder()?.schema())
}

fn refuse_duplicates(names: &[&str]) -> Result<(), SchemaError> {
    let mut seen = std::collections::BTreeSet::new();
    match names.iter().find(|name| !seen.insert(**name)) {
        Some(column) => Err(SchemaError::Duplicate { column: (*column).to_owned() }),
        None => Ok(()),
    }
}

/// The type that a decoded type is stored as.
fn normalize(data_type: &DataType, column: &str, depth: usize, columns: &mut usize) -> Result<DataType, SchemaError> {
    *columns += 1;
    if *columns > COLUMNS_MAX {
        return Err(SchemaError::TooLarge { what: format!("more than {COLUMNS_MAX} columns") });
    }
    if depth > NESTING_MAX {
        return Err(SchemaError::TooLarge { what: format!("column {column:?} is nested deeper than {NESTING_MAX}") });
    }
    let unsupported = |what, instead| Err(SchemaError::Unsupported { column: column.to_owned(), what, instead });
    let mut nested = |field: &Field, name: &str| {
        let column = format!("{column}.{name}");
        let data_type = normalize(field.data_type(), &column, depth + 1, columns)?;
        Ok(Field::new(field.name(), data_type, field.is_nullable()))
    };
    Ok(match data_type {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        DataType::Struct(fields) if fields.is_empty() => {
            return unsupported("a record without fields", "null, or leave it out");
        }
        DataType::Struct(fields) => {
            refuse_duplicates(&fields.iter().map(|field| field.name().as_str()).collect::<Vec<_>>())?;
            DataType::Struct(fields.iter().map(|field| nested(field, field.name())).collect::<Result<_, _>>()?)
        }
        DataType::List(item) => DataType::List(Arc::new(nested(item, "item")?)),
        DataType::Map(entries, sorted) => DataType::Map(Arc::new(nested(entries, "entries")?), *sorted),
        DataType::Union(..) => {
            return unsupported("a union of several types", "a record with one nullable field for each type");
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            return unsupported("a duration", "a long, its unit in the field's name");
        }
        other => other.clone(),
    })
}

/// Brings decoded columns into the types of a table: drops nested metadata, turns enumerations into texts.
///
/// # Errors
/// If columns, their names or types are not those of the table.
pub fn conform(decoded: &RecordBatch, table: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if decoded.num_columns() != table.fields().len() {
        let message = format!("{} columns were decoded, the table has {}", decoded.num_columns(), table.fields().len());
        return Err(ArrowError::SchemaError(message));
    }
    let columns = decoded.schema_ref().fields().iter().zip(decoded.columns()).zip(table.fields());
    let columns = columns
        .map(|((found, column), expected)| {
            if found.name() != expected.name() {
                let message = format!("column {:?} was decoded where {:?} belongs", found.name(), expected.name());
                return Err(ArrowError::SchemaError(message));
            }
            conform_column(column, expected.data_type())
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(decoded.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(table), columns, &options)
}

fn conform_column(column: &ArrayRef, expected: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == expected {
        return Ok(Arc::clone(column));
    }
    let mismatch = || {
        let message = format!("a column of type {} was decoded where {expected} belongs", column.data_type());
        Err(ArrowError::SchemaError(message))
    };
    Ok(match (column.data_type(), expected) {
        (DataType::Dictionary(_, values), DataType::Utf8) if **values == DataType::Utf8 => {
            arrow::compute::cast(column, expected)?
        }
        (DataType::Struct(found), DataType::Struct(fields)) if same_names(found, fields) => {
            let parts = column.as_struct();
            let columns = parts.columns().iter().zip(fields);
            let columns =
                columns.map(|(part, field)| conform_column(part, field.data_type())).collect::<Result<_, _>>()?;
            Arc::new(StructArray::try_new(fields.clone(), columns, parts.nulls().cloned())?)
        }
        (DataType::List(_), DataType::List(item)) => {
            let list = column.as_list::<i32>();
            let values = conform_column(list.values(), item.data_type())?;
            Arc::new(ListArray::try_new(Arc::clone(item), list.offsets().clone(), values, list.nulls().cloned())?)
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => {
            let map = column.as_map();
            let values: ArrayRef = Arc::new(map.entries().clone());
            let values = conform_column(&values, entries.data_type())?.as_struct().clone();
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            Arc::new(MapArray::try_new(Arc::clone(entries), offsets, values, nulls, *sorted)?)
        }
        _ => return mismatch(),
    })
}

fn same_names(found: &Fields, expected: &Fields) -> bool {
    found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| a.name() == b.name())
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
