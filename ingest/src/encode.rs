//! From rows of named cells to records in a stream's format: what `cairn publish` and the simulator send.
//!
//! Columns are matched by name, and every cell is checked against the schema before a byte is written: what this
//! module accepts, [`crate::decode`] reads back as the same value.
//!
//! **Key.** The values of the stream's `key_fields` in their order, as text, joined with `|`; a null is empty. A stream
//! without key fields, or a record whose key fields are all null, has no key. Records with the same key share a
//! partition, so they keep their order.
//!
//! **Timestamp.** The value of the stream's `event_time` field, if it has one: a timestamp or a date as such, a long as
//! milliseconds since 1970, a text as RFC 3339.
//!
//! **Cells.** An empty text is null where the field may be null, the field's default where it has one, and an empty
//! text where the field is a string. Texts of arrays, maps and records are JSON. Whatever is not a string may have
//! spaces around it.

#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::sync::Arc;

use cairn_proof::statement::{Format, StreamDefinition};
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};
use crate::schema::{self, Field, Kind, Record, Unit};
use crate::time;
use value::Value;

/// Between the values of a key.
pub const KEY_SEPARATOR: char = '|';
/// How much of a wrong cell an error shows.
const SHOWN_MAX: usize = 60;

/// One cell of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// Nothing.
    Null,
    /// Text as in a CSV file.
    Text(&'a str),
    /// A JSON value.
    Json(&'a Json),
}

/// A record ready to be sent. One can be used for many records: its buffers are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The record's key; see the module's documentation.
    pub key: Option<String>,
    /// The record's value.
    pub value: Vec<u8>,
    /// When the event happened, in milliseconds since 1970, if the stream has an event-time field and it is not null.
    pub event_time_ms: Option<i64>,
}

/// A cell that does not fit its field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeError {
    /// The line in the file, if the caller has said; see [`EncodeError::at_line`].
    pub line: Option<u64>,
    /// The column.
    pub column: String,
    /// The cell, cut short.
    pub value: String,
    /// What the schema wants.
    pub expected: String,
    /// What is wrong with the cell, where that says more than what is wanted.
    pub reason: Option<String>,
}

impl EncodeError {
    fn new(column: &str, value: impl fmt::Display, expected: String, reason: Option<String>) -> Self {
        let mut value = value.to_string();
        if value.len() > SHOWN_MAX {
            let mut end = SHOWN_MAX;
            while !value.is_char_boundary(end) {
                end -= 1;
            }
            value.truncate(end);
            value.push('…');
        }
        Self { line: None, column: column.to_owned(), value, expected, reason }
    }

    /// The same error, with the line it came from.
    #[must_use]
    pub fn at_line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}, ")?;
        }
        write!(f, "column {}: expected {}, found {}", self.column, self.expected, self.value)?;
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for EncodeError {}

/// Which column of a row goes to which field of the schema.
#[derive(Debug, Clone)]
pub struct Binding {
    /// For each field the column's position, or nothing if no column has its name.
    columns: Vec<Option<usize>>,
}

/// Encodes rows as records of one stream.
#[derive(Debug, Clone)]
pub struct Encoder {
    stream: String,
    format: Format,
    schema_id: u32,
    record: Arc<Record>,
    key: Vec<usize>,
    event_time: Option<usize>,
}

impl Encoder {
    /// Prepares encoding by the stream's last schema.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input) when the schema is none, or a key or event-time field is not in it.
    pub fn new(definition: &StreamDefinition) -> Result<Self> {
        let Some(last) = definition.schemas.last() else {
            return Err(Error::input(format!("the stream {} has no schema", definition.name)));
        };
        if matches!(definition.format, Format::Protobuf | Format::ProtobufConfluent) {
            return Err(Error::input(format!(
                "the stream {} is of format {}, which is not written here: publish to its topic with a Protobuf library",
                definition.name,
                definition.format.name()
            )));
        }
        let record = schema::of(definition, last)
            .map_err(|error| Error::input(format!("the stream {}", definition.name)).because(error))?;
        let position = |setting: &str, name: &String| {
            record.position(name).ok_or_else(|| {
                let names = names(&record);
                Error::input(format!(
                    "the stream {}: `{setting}` names {name}; its fields are {names}",
                    definition.name
                ))
            })
        };
        let key = definition.key_fields.iter().map(|name| position("key_fields", name)).collect::<Result<_>>()?;
        let event_time = definition.event_time.as_ref().map(|name| position("event_time", name)).transpose()?;
        if let Some(field) = event_time.map(|position| &record.fields[position])
            && !matches!(field.ty.kind, Kind::Timestamp { .. } | Kind::Date | Kind::Long | Kind::String)
        {
            return Err(Error::input(format!(
                "the stream {}: `event_time` names {}, which is {}; it needs a timestamp",
                definition.name,
                field.name,
                field.ty.kind.describe()
            )));
        }
        Ok(Self {
            stream: definition.name.clone(),
            format: definition.format,
            schema_id: last.id,
            record,
            key,
            event_time,
        })
    }

    /// The schema's fields in order.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.record.fields.iter().map(|field| field.name.as_str())
    }

    /// Matches the columns of a file to the schema's fields by name.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input): a column that the schema does not have, one that is there twice, or a field
    /// that needs a value and has no column. The message lists the right ones.
    pub fn bind<S: AsRef<str>>(&self, columns: &[S]) -> Result<Binding> {
        let mut bound = vec![None; self.record.fields.len()];
        for (at, column) in columns.iter().map(|column| column.as_ref().trim_start_matches('\u{feff}')).enumerate() {
            let Some(position) = self.record.position(column) else {
                return Err(Error::input(format!(
                    "the stream {} has no column {column:?}; its columns are {}",
                    self.stream,
                    names(&self.record)
                )));
            };
            if bound[position].replace(at).is_some() {
                return Err(Error::input(format!("the column {column} is there twice")));
            }
        }
        let lacking: Vec<_> = self
            .record
            .fields
            .iter()
            .zip(&bound)
            .filter(|(field, column)| column.is_none() && !optional(field))
            .map(|(field, _)| field.name.as_str())
            .collect();
        if lacking.is_empty() {
            return Ok(Binding { columns: bound });
        }
        Err(Error::input(format!(
            "the stream {} needs the columns {} too; its columns are {}",
            self.stream,
            lacking.join(", "),
            names(&self.record)
        )))
    }

    /// Encodes one row into `message`.
    ///
    /// # Errors
    /// The first cell that does not fit; `message` is then of no use.
    pub fn encode(&self, binding: &Binding, row: &[Cell<'_>], message: &mut Message) -> Result<(), EncodeError> {
        self.write(message, |position| {
            binding.columns.get(position).copied().flatten().and_then(|at| row.get(at).copied())
        })
    }

    /// Encodes one JSON object, its members matched by name.
    ///
    /// # Errors
    /// The first member that does not fit, or that the schema does not have.
    pub fn encode_object(&self, row: &Map<String, Json>, message: &mut Message) -> Result<(), EncodeError> {
        if let Some((name, value)) = row.iter().find(|(name, _)| self.record.position(name).is_none()) {
            let expected = format!("one of the stream's columns {}", names(&self.record));
            return Err(EncodeError::new(name, value, expected, None));
        }
        self.write(message, |position| row.get(&self.record.fields[position].name).map(Cell::Json))
    }

    fn write<'c>(&self, message: &mut Message, cell: impl Fn(usize) -> Option<Cell<'c>>) -> Result<(), EncodeError> {
        message.value.clear();
        message.event_time_ms = None;
        let mut key = message.key.take().unwrap_or_default();
        key.clear();
        let mut values = Vec::with_capacity(self.record.fields.len());
        for (position, field) in self.record.fields.iter().enumerate() {
            let value = Value::of_cell(field, cell(position).unwrap_or(Cell::Null))?;
            if self.event_time == Some(position) {
                message.event_time_ms = event_time(field, &value)?;
            }
            values.push(value);
        }
        match self.format {
            Format::Json => {
                message.value.push(b'{');
                let mut first = true;
                for (field, value) in self.record.fields.iter().zip(&values) {
                    value.write_member(field, &mut first, &mut message.value)?;
                }
                message.value.push(b'}');
            }
            // Protobuf is refused above.
            Format::Avro | Format::AvroConfluent | Format::Protobuf | Format::ProtobufConfluent => {
                if self.format == Format::AvroConfluent {
                    message.value.push(0);
                    message.value.extend_from_slice(&self.schema_id.to_be_bytes());
                }
                for (field, value) in self.record.fields.iter().zip(&values) {
                    value.write_avro(&field.ty, &mut message.value);
                }
            }
        }
        message.key = self.key_of(&values, key);
        Ok(())
    }

    fn key_of(&self, values: &[Value<'_>], mut key: String) -> Option<String> {
        if self.key.iter().all(|&position| matches!(values[position], Value::Null)) {
            return None;
        }
        for (at, &position) in self.key.iter().enumerate() {
            if at > 0 {
                key.push(KEY_SEPARATOR);
            }
            values[position].write_text(&self.record.fields[position].ty.kind, &mut key);
        }
        Some(key)
    }
}

fn names(record: &Record) -> String {
    record.fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Whether a row may leave the field out.
fn optional(field: &Field) -> bool {
    field.ty.null.allowed() || field.default.is_some()
}

fn event_time(field: &Field, value: &Value<'_>) -> Result<Option<i64>, EncodeError> {
    Ok(match (&field.ty.kind, value) {
        (Kind::Timestamp { unit, .. }, Value::Whole(units)) => Some(units.div_euclid(unit.per_second() / 1_000)),
        (Kind::Date, Value::Whole(days)) => days.checked_mul(86_400_000),
        (Kind::Long, Value::Whole(millis)) => Some(*millis),
        (Kind::String, Value::Text(text)) => Some(
            time::parse_timestamp(text, Unit::Millis, true)
                .or_else(|_| time::parse_timestamp(text, Unit::Nanos, true).map(|nanos| nanos.div_euclid(1_000_000)))
                .map_err(|reason| {
                    let expected = "the time of the event as RFC 3339".to_owned();
                    EncodeError::new(&field.name, format!("{text:?}"), expected, Some(reason.to_owned()))
                })?,
        ),
        _ => None,
    })
}
