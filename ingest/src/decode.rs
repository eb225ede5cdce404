//! From a record's value to the columns of its stream's table, or to a reason why not.
//!
//! [`StreamDecoder::decode`] takes a batch of values and gives one row a record. A record that does not decode gets a
//! row of nulls and a reason; the others get the same columns as if it were not there. Nothing here can fail because
//! of a record.
//!
//! **Deterministic.** The same bytes give the same columns and the same reason, on any machine and in any later
//! version: `cairn audit` recomputes both from the stored bytes. That is why Avro and JSON are read here and not by a
//! library, whose leniency and wording change between versions. (`arrow-json` 59, for one, reads `1.5` into a long as
//! 1 and the text `"7"` as the number 7.) The columns are checked against `arrow-avro` in the tests.
//!
//! **Hostile bytes.** Every length is compared with the bytes that are left before anything is appended; nesting
//! stops at a fixed depth; what one message may append is bounded by its own length (`Budget`), so that a short
//! message cannot claim a billion items. No recursion depends on the message alone.
//!
//! | format | one message |
//! | --- | --- |
//! | `avro` | one Avro datum by the last schema, to the last byte |
//! | `avro-confluent` | 0x00, schema id (4 bytes, big-endian), one datum by that schema, resolved to the last; the schema is one of the stream's, or one of a registry that is kept with the segment |
//! | `protobuf` | one message of the stream's type, to the last byte; fields that it does not have are passed over |
//! | `protobuf-confluent` | 0x00, schema id, the path to the message's type in its file, one such message |
//! | `json` | one JSON object (RFC 8259), nothing but white space around it |
//!
//! **JSON by an Avro schema.** A field that is missing is null; one that the schema does not have is ignored; one that
//! is there twice is refused. Whole numbers are written without fraction and exponent. Timestamps, dates and times are
//! RFC 3339 text or a number in the field's own unit (`timestamp-millis`: milliseconds since 1970). `bytes` and `fixed`
//! are texts of one character a byte, U+0000 to U+00FF, as in Avro's own JSON encoding. Decimals are numbers or texts,
//! digit for digit. Nothing is converted that would change: a text is never a number, a number never a text.

mod avro;
mod json;
#[cfg(test)]
mod tests;
mod writers;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use cairn_anchor::audit::ValueDecoder;
use cairn_anchor::raw::RawBatch;
use cairn_anchor::seal::DecodedColumns;
use cairn_proof::signed_record::HEADER_PREFIX;
use cairn_proof::statement::{ChainTag, Format, SchemaVersion, StreamDefinition};
use cairn_proof::writer_schemas::WriterSchemas;

use crate::columns::Columns;
use crate::error::{Error, Result};
use crate::protobuf;
use crate::schema::{self, Record};
use crate::signatures;

pub(crate) use avro::{Plan, parse_uuid};
pub(crate) use writers::BatchDecoder;

/// Stands in a record for a header whose name is not UTF-8, which neither a record nor a Kafka client can carry on, and
/// for the headers beyond the largest number that a record may have.
pub const UNREADABLE_HEADER: &str = "\u{fffd}";
/// Reasons are stored with each record, so they stay short.
const REASON_BYTES_MAX: usize = 512;
/// Values that a message may append besides its row: this many, and this many more per byte of its length.
const BUDGET_BASE: usize = 1_024;
const BUDGET_PER_BYTE: usize = 8;

/// Why a record is quarantined, for counting: a small fixed set, used as a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReasonCode {
    /// The record has no value (a tombstone).
    NoValue,
    /// The record is larger than the stream's limit.
    Oversize,
    /// The Confluent header is missing or names a schema that the stream does not have.
    UnknownSchema,
    /// The bytes are not of the stream's format.
    Malformed,
    /// A field holds what the schema does not allow.
    Field,
    /// A header could not be kept as it was.
    Headers,
    /// The stream takes signed records alone, and this one is not.
    Unsigned,
    /// The stream takes unsigned records alone, and this one is signed.
    SignatureRefused,
    /// The headers of a signature are not what they must be.
    SignatureMalformed,
    /// The signature is not by that key over this record.
    BadSignature,
    /// The key is nobody's.
    UnknownKey,
    /// The identity has another key by now.
    RotatedKey,
    /// The identity was revoked.
    RevokedKey,
    /// The identity has expired.
    ExpiredKey,
    /// The identity may not publish to the stream.
    NotPublisher,
    /// The sequence number was used before, or may have been.
    Replayed,
}

impl ReasonCode {
    /// The metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoValue => "no_value",
            Self::Oversize => "oversize",
            Self::UnknownSchema => "unknown_schema",
            Self::Malformed => "malformed",
            Self::Field => "field",
            Self::Headers => "headers",
            Self::Unsigned => "unsigned",
            Self::SignatureRefused => "signature_refused",
            Self::SignatureMalformed => "signature_malformed",
            Self::BadSignature => "bad_signature",
            Self::UnknownKey => "unknown_key",
            Self::RotatedKey => "rotated_key",
            Self::RevokedKey => "revoked_key",
            Self::ExpiredKey => "expired_key",
            Self::NotPublisher => "not_publisher",
            Self::Replayed => "replayed",
        }
    }
}

/// Why a record is quarantined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    code: ReasonCode,
    path: String,
    text: String,
}

impl Reason {
    /// The bytes are not of the format.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { code: ReasonCode::Malformed, path: String::new(), text: text.into() }
    }

    /// A field's value is not allowed.
    pub(crate) fn field(text: impl Into<String>) -> Self {
        Self { code: ReasonCode::Field, path: String::new(), text: text.into() }
    }

    pub(crate) fn coded(code: ReasonCode, text: impl Into<String>) -> Self {
        Self { code, path: String::new(), text: text.into() }
    }

    /// The same reason, one field further out.
    pub(crate) fn within(mut self, field: &str) -> Self {
        if self.path.is_empty() {
            self.path = field.to_owned();
        } else if self.path.len() < REASON_BYTES_MAX {
            self.path = format!("{field}.{}", self.path);
        }
        self
    }

    /// What kind of reason it is.
    pub fn code(&self) -> ReasonCode {
        self.code
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.path.is_empty() { self.text.clone() } else { format!("field {}: {}", self.path, self.text) };
        let mut end = text.len().min(REASON_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        f.write_str(&text[..end])
    }
}

/// How many more values the current message may append.
#[derive(Debug)]
pub(crate) struct Budget(usize);

impl Budget {
    fn of(value: &[u8]) -> Self {
        Self(BUDGET_BASE + BUDGET_PER_BYTE * value.len())
    }

    pub(crate) fn take(&mut self, values: usize) -> Result<(), Reason> {
        match self.0.checked_sub(values) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => Err(Reason::new("it claims more values than a message of its length may hold")),
        }
    }
}

/// A decoded batch: one row a record.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The table's columns; nulls where the record is quarantined.
    pub batch: RecordBatch,
    /// The reason, or null for a good record.
    pub errors: StringArray,
    /// How many records are quarantined for which kind of reason.
    pub quarantined: Vec<(ReasonCode, u64)>,
}

impl From<Decoded> for DecodedColumns {
    fn from(decoded: Decoded) -> Self {
        Self { batch: decoded.batch, errors: decoded.errors }
    }
}

/// Decodes again what ingest decoded, for `cairn audit`.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuditDecoder;

impl ValueDecoder for AuditDecoder {
    fn decode(
        &self,
        stream: &StreamDefinition,
        raw: &RawBatch,
        chain: &ChainTag,
        stored: &StringArray,
        writers: &WriterSchemas,
    ) -> Result<DecodedColumns, String> {
        let mut verdicts = signatures::check_offline(stream, raw, chain);
        for (row, reason) in stored.iter().enumerate().take(raw.len()) {
            if let Some(reason) = reason.filter(|reason| signatures::is_stateful(reason)) {
                verdicts.resize(raw.len(), None);
                // Only of a signed record: there is no other that such a reason can be about.
                if raw.headers(row).any(|(name, _)| name.starts_with(HEADER_PREFIX)) {
                    verdicts[row].get_or_insert_with(|| Reason::new(reason));
                }
            }
        }
        let decoder = StreamDecoder::new(stream).map(|decoder| BatchDecoder::stored(&decoder, writers).decoder);
        let decoded = decoder.and_then(|decoder| decoder.decode_authentic(raw, &verdicts));
        decoded.map(Into::into).map_err(|error| error.to_string())
    }
}

/// Decodes the records of one stream.
#[derive(Debug, Clone)]
pub struct StreamDecoder {
    format: Format,
    record: Arc<Record>,
    table: SchemaRef,
    /// By schema id; the plain Avro format has the last schema only, JSON none.
    plans: HashMap<u32, Arc<Plan>>,
    /// Why other schema ids cannot be decoded by, where more is known than that.
    refused: HashMap<u32, String>,
    /// For Protobuf alone.
    message: Option<Arc<protobuf::Plan>>,
    table_id: u32,
    record_bytes_max: usize,
}

impl StreamDecoder {
    /// Prepares decoding by the stream's definition.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input) when the stream can never decode: a schema that is none, that has no
    /// columns, or an older version that does not resolve to the last one. Worth calling before a stream is registered.
    pub fn new(definition: &StreamDefinition) -> Result<Self> {
        let stream = |error: Error| Error::input(format!("the stream {}", definition.name)).because(error);
        let Some(last) = definition.schemas.last() else {
            return Err(Error::input(format!("the stream {} has no schema", definition.name)));
        };
        let record = schema::of(definition, last).map_err(stream)?;
        let table = cairn_anchor::schema::table_schema(definition)
            .map_err(|error| Error::input(format!("the stream {}", definition.name)).because(error))?;
        // Shows now, and not at the first record, what has no column.
        Columns::new(record.clone(), table.clone()).map_err(stream)?;
        let message = message_plan(definition, last).map_err(stream)?;
        let mut plans = HashMap::new();
        for version in &definition.schemas {
            let avro = matches!(definition.format, Format::Avro | Format::AvroConfluent);
            if !avro || (definition.format == Format::Avro && version.id != last.id) {
                continue;
            }
            let writer = schema::parse(&version.text)
                .map_err(|error| stream(Error::input(format!("schema id {}", version.id)).because(error)))?;
            let plan = Plan::new(&writer, &record)
                .map_err(|error| stream(Error::input(format!("schema id {}", version.id)).because(error)))?;
            plans.insert(version.id, Arc::new(plan));
        }
        check_field_names(definition, &record).map_err(stream)?;
        Ok(Self {
            format: definition.format,
            record,
            table,
            plans,
            refused: HashMap::new(),
            message,
            table_id: last.id,
            record_bytes_max: usize::try_from(definition.limits.bytes_max).unwrap_or(usize::MAX),
        })
    }

    /// Prepares decoding by the newest version that decodes, and says why a newer one does not. The chain takes whatever
    /// version the owner adds: one that reads nothing of what there is keeps no stream from going on under those before it.
    ///
    /// # Errors
    /// As [`new`](Self::new), when none decodes.
    pub(crate) fn newest(definition: &StreamDefinition) -> Result<(StreamDefinition, Self, Option<Error>)> {
        let mut definition = definition.clone();
        let mut refused = None;
        loop {
            match Self::new(&definition) {
                Ok(decoder) => return Ok((definition, decoder, refused)),
                Err(error) if definition.schemas.len() < 2 => return Err(refused.unwrap_or(error)),
                Err(error) => {
                    refused.get_or_insert(error);
                    definition.schemas.pop();
                }
            }
        }
    }

    /// The columns that [`decode`](Self::decode) gives.
    pub fn table(&self) -> &SchemaRef {
        &self.table
    }

    /// Decodes a batch of values, one row each.
    ///
    /// # Errors
    /// [`Bug`](crate::ErrorKind::Bug) alone: no value can make it fail.
    pub fn decode<'v>(&self, values: impl IntoIterator<Item = Option<&'v [u8]>>) -> Result<Decoded> {
        self.decode_rows(values.into_iter().map(Ok))
    }

    /// Decodes the records of a batch, one row each.
    ///
    /// A record with a header that could not be kept (see [`UNREADABLE_HEADER`]) is quarantined too.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_batch(&self, raw: &RawBatch) -> Result<Decoded> {
        self.decode_authentic(raw, &[])
    }

    /// As [`decode_batch`](Self::decode_batch), for records of which some are not authentic: `verdicts` has a reason for
    /// each of those, and is empty, or one entry a record.
    pub(crate) fn decode_authentic(&self, raw: &RawBatch, verdicts: &[Option<Reason>]) -> Result<Decoded> {
        let authentic = |row: usize| match verdicts.get(row) {
            Some(Some(reason)) => Err(reason.clone()),
            _ => Ok(()),
        };
        let [.., headers, _] = raw.columns();
        let headers = headers.as_list::<i32>();
        let names = headers.values().as_struct().column(0).as_string::<i32>();
        if !names.iter().flatten().any(|name| name == UNREADABLE_HEADER) {
            let rows = raw.values().iter().enumerate();
            return self.decode_rows(rows.map(|(row, value)| authentic(row).map(|()| value)));
        }
        let readable = |row: usize| {
            let names = headers.is_valid(row).then(|| headers.value(row));
            let unreadable = |names: &ArrayRef| {
                names.as_struct().column(0).as_string::<i32>().iter().flatten().any(|name| name == UNREADABLE_HEADER)
            };
            match names.as_ref().is_some_and(unreadable) {
                true => Err(Reason::coded(ReasonCode::Headers, "a header's name is not UTF-8, or there are too many")),
                false => Ok(()),
            }
        };
        let rows = raw.values().iter().enumerate();
        self.decode_rows(rows.map(|(row, value)| authentic(row).and_then(|()| readable(row)).map(|()| value)))
    }

    fn decode_rows<'v>(&self, rows: impl Iterator<Item = Result<Option<&'v [u8]>, Reason>>) -> Result<Decoded> {
        let mut columns = Columns::new(self.record.clone(), self.table.clone())?;
        let mut errors = StringBuilder::new();
        let mut counts: HashMap<ReasonCode, u64> = HashMap::new();
        let mut scratch = String::new();
        for row in rows {
            match row.and_then(|value| self.decode_one(value, &mut columns, &mut scratch)) {
                Ok(()) => {
                    columns.keep();
                    errors.append_null();
                }
                Err(reason) => {
                    columns.quarantine();
                    errors.append_value(reason.to_string());
                    *counts.entry(reason.code()).or_default() += 1;
                }
            }
        }
        let batch = columns.finish()?;
        let mut quarantined: Vec<_> = counts.into_iter().collect();
        quarantined.sort_unstable();
        Ok(Decoded { batch, errors: errors.finish(), quarantined })
    }

    fn decode_one(&self, value: Option<&[u8]>, columns: &mut Columns, scratch: &mut String) -> Result<(), Reason> {
        let Some(value) = value else {
            return Err(Reason::coded(ReasonCode::NoValue, "no value"));
        };
        if value.len() > self.record_bytes_max {
            return Err(Reason::coded(
                ReasonCode::Oversize,
                format!("{} bytes, more than the stream's limit of {}", value.len(), self.record_bytes_max),
            ));
        }
        if self.message.is_some() && value.len() > protobuf::VALUE_BYTES_MAX {
            let text =
                format!("{} bytes, more than a Protobuf message may have: {}", value.len(), protobuf::VALUE_BYTES_MAX);
            return Err(Reason::coded(ReasonCode::Oversize, text));
        }
        let mut budget = Budget::of(value);
        match self.format {
            Format::Json => json::decode(value, &self.record, &mut columns.columns, &mut budget, scratch),
            Format::Avro => self.plan(self.table_id)?.decode(value, &mut columns.columns, &mut budget),
            Format::AvroConfluent => {
                let (id, datum) = confluent(value)?;
                self.plan(id)?.decode(datum, &mut columns.columns, &mut budget)
            }
            Format::Protobuf => self.message()?.decode(value, &mut columns.columns, &mut budget),
            Format::ProtobufConfluent => {
                let (id, indexes, datum) = protobuf::framed(value)?;
                if id != self.table_id {
                    return Err(unknown_schema(id));
                }
                let plan = self.message()?;
                plan.is_at(&indexes)?;
                plan.decode(datum, &mut columns.columns, &mut budget)
            }
        }
    }

    fn message(&self) -> Result<&protobuf::Plan, Reason> {
        self.message.as_deref().ok_or_else(|| unknown_schema(self.table_id))
    }

    fn plan(&self, id: u32) -> Result<&Plan, Reason> {
        self.plans.get(&id).map(Arc::as_ref).ok_or_else(|| match self.refused.get(&id) {
            Some(why) => Reason::coded(ReasonCode::UnknownSchema, why.clone()),
            None => unknown_schema(id),
        })
    }
}

fn unknown_schema(id: u32) -> Reason {
    Reason::coded(ReasonCode::UnknownSchema, format!("schema id {id} is not one of the stream's"))
}

/// What messages of a Protobuf stream are read by; nothing for other formats.
fn message_plan(definition: &StreamDefinition, last: &SchemaVersion) -> Result<Option<Arc<protobuf::Plan>>> {
    if !matches!(definition.format, Format::Protobuf | Format::ProtobufConfluent) {
        return Ok(None);
    }
    if definition.schemas.len() > 1 {
        return Err(Error::input(format!(
            "it has {} versions of its schema: a stream of format {} has one",
            definition.schemas.len(),
            definition.format.name()
        )));
    }
    Ok(Some(Arc::new(protobuf::Plan::new(&last.text)?)))
}

/// Splits the [Confluent header](https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format)
/// off: a zero byte, then the schema's id.
pub(crate) fn confluent(value: &[u8]) -> Result<(u32, &[u8]), Reason> {
    let short = || {
        Reason::coded(
            ReasonCode::UnknownSchema,
            format!("{} bytes, the header with the schema id alone has 5", value.len()),
        )
    };
    let (&magic, rest) = value.split_first().ok_or_else(short)?;
    if magic != 0 {
        return Err(Reason::coded(ReasonCode::UnknownSchema, format!("begins with byte {magic}, not 0: no schema id")));
    }
    let (id, datum) = rest.split_first_chunk().ok_or_else(short)?;
    Ok((u32::from_be_bytes(*id), datum))
}

/// Key fields and the event time must be fields of the schema.
fn check_field_names(definition: &StreamDefinition, record: &Record) -> Result<()> {
    let wanted = definition.key_fields.iter().map(|name| ("key_fields", name));
    for (setting, name) in wanted.chain(definition.event_time.iter().map(|name| ("event_time", name))) {
        if record.position(name).is_none() {
            let names: Vec<_> = record.fields.iter().map(|field| field.name.as_str()).collect();
            return Err(Error::input(format!(
                "`{setting}` names {name}; the schema's fields are {}",
                names.join(", ")
            )));
        }
    }
    Ok(())
}
