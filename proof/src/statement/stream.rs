//! The statement that registers a stream.
//!
//! ```text
//! {1: sequence, 2: name, 3: topic, 4: partitions, 5: format, 6: [[schema id, schema text]…], 7: [key field…],
//!  8: event-time field|null, 9: [records, bytes, age in ms], 10: gaps allowed, 11: [anchorer id…]}
//! ```
//!
//! Version 2 of the content type adds 12: signatures. A stream whose signatures are optional is written as version 1.

use serde::{Deserialize, Serialize};

use super::{StatementError, check_text};
use crate::cbor::{CborError, Reader, Writer};
use crate::digest::{Digest, sha256};
use crate::identity::IdentityId;
use crate::units::Sequence;

/// A stream whose signatures are optional.
pub(super) const CONTENT_TYPE: &str = "application/vnd.cairn.register-stream.v1+cbor";
/// A stream whose signatures are refused or required.
pub(super) const CONTENT_TYPE_2: &str = "application/vnd.cairn.register-stream.v2+cbor";
const PARTITIONS_MAX: u32 = 4096;
/// Versions of its schema that a stream can ever have.
pub const SCHEMAS_MAX: usize = 64;
/// Bytes of all schemas in one statement.
const SCHEMAS_BYTES_MAX: usize = 48 * 1024;
const KEY_FIELDS_MAX: usize = 16;
const ANCHORERS_MAX: usize = 64;
/// Schemas of SQL that are not a stream's to take.
const RESERVED: [&str; 5] = ["cairn", "information_schema", "pg_catalog", "public", "datafusion"];

/// How the values of a stream are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One Avro datum, without framing, by the last schema.
    Avro,
    /// Confluent framing: 0x00, schema id as 4 bytes big-endian, one Avro datum.
    AvroConfluent,
    /// One JSON object (RFC 8259).
    Json,
    /// One Protobuf message, without framing.
    Protobuf,
    /// Confluent framing: 0x00, schema id as 4 bytes big-endian, the path to the message, one Protobuf message.
    ProtobufConfluent,
}

impl Format {
    pub(super) const fn code(self) -> u64 {
        match self {
            Self::Avro => 1,
            Self::AvroConfluent => 2,
            Self::Json => 3,
            Self::Protobuf => 4,
            Self::ProtobufConfluent => 5,
        }
    }

    const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Avro),
            2 => Some(Self::AvroConfluent),
            3 => Some(Self::Json),
            4 => Some(Self::Protobuf),
            5 => Some(Self::ProtobufConfluent),
            _ => None,
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, CborError> {
        let code = reader.unsigned()?;
        Self::from_code(code).ok_or_else(|| reader.error("a format, 1 to 5", code.to_string()))
    }

    /// The name in definitions and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avro => "avro",
            Self::AvroConfluent => "avro-confluent",
            Self::Json => "json",
            Self::Protobuf => "protobuf",
            Self::ProtobufConfluent => "protobuf-confluent",
        }
    }
}

/// Whether the publishers of a stream sign its records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signatures {
    /// A signed record is quarantined.
    Refused,
    /// A record without a signature is taken; one that is there must hold.
    #[default]
    Optional,
    /// A record without a signature that holds is quarantined.
    Required,
}

impl Signatures {
    /// The number in encodings; what is optional is not written.
    const fn code(self) -> Option<u64> {
        match self {
            Self::Refused => Some(1),
            Self::Optional => None,
            Self::Required => Some(2),
        }
    }

    const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Refused),
            2 => Some(Self::Required),
            _ => None,
        }
    }

    /// The name in definitions and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

/// One version of a stream's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaVersion {
    /// The id in Confluent framing.
    pub id: u32,
    /// The schema's text: Avro as JSON, or what `cairn-ingest` makes of a Protobuf message.
    pub text: String,
}

impl SchemaVersion {
    /// SHA-256 of the text, as anchors name it.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        sha256(&[self.text.as_bytes()])
    }
}

/// When a batch closes: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchLimits {
    /// Records, 1 to 1,048,576.
    pub records_max: u32,
    /// Bytes of keys, values and headers, 1,024 to 268,435,456. A single record over it is quarantined.
    pub bytes_max: u32,
    /// Milliseconds since the batch's first record was read, 10 to 3,600,000.
    pub age_ms_max: u32,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { records_max: 65_536, bytes_max: 16 * 1024 * 1024, age_ms_max: 1000 }
    }
}

/// A stream: a Kafka topic with an owner, a schema and limits. The signer of the statement becomes its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamDefinition {
    /// `schema.table` as SQL names it: two words of a–z, 0–9 and _, each starting with a letter.
    pub name: String,
    /// Kafka topic.
    pub topic: String,
    /// Number of partitions.
    pub partitions: u32,
    /// How values are encoded.
    pub format: Format,
    /// Versions of the schema, oldest first; the last one is the table's.
    pub schemas: Vec<SchemaVersion>,
    /// Fields that make up the record key, in order.
    pub key_fields: Vec<String>,
    /// Field that tells when the event happened.
    pub event_time: Option<String>,
    /// When a batch closes.
    pub limits: BatchLimits,
    /// Whether anchors may declare gaps (compaction, transaction markers).
    pub gaps_allowed: bool,
    /// Identities that may anchor batches of this stream.
    pub anchorers: Vec<IdentityId>,
    /// Whether records are signed by their publishers.
    pub signatures: Signatures,
}

impl StreamDefinition {
    /// The schema of the table: the last version. `None` only for a definition that was never checked.
    #[must_use]
    pub fn table_schema(&self) -> Option<&SchemaVersion> {
        self.schemas.last()
    }

    /// Schema and table of the name in SQL.
    #[must_use]
    pub fn sql_name(&self) -> (&str, &str) {
        self.name.split_once('.').unwrap_or(("", &self.name))
    }

    /// Version 1 where it says all that there is to say, so that a definition has one encoding.
    pub(super) const fn content_type(&self) -> &'static str {
        match self.signatures.code() {
            None => CONTENT_TYPE,
            Some(_) => CONTENT_TYPE_2,
        }
    }

    pub(super) fn write(&self, sequence: Sequence, writer: &mut Writer<'_>) {
        writer.map(11 + usize::from(self.signatures.code().is_some()));
        writer.unsigned(1);
        writer.unsigned(sequence.0);
        writer.unsigned(2);
        writer.text(&self.name);
        writer.unsigned(3);
        writer.text(&self.topic);
        writer.unsigned(4);
        writer.unsigned(u64::from(self.partitions));
        writer.unsigned(5);
        writer.unsigned(self.format.code());
        writer.unsigned(6);
        writer.array(self.schemas.len());
        for schema in &self.schemas {
            writer.array(2);
            writer.unsigned(u64::from(schema.id));
            writer.text(&schema.text);
        }
        writer.unsigned(7);
        writer.array(self.key_fields.len());
        for field in &self.key_fields {
            writer.text(field);
        }
        writer.unsigned(8);
        match &self.event_time {
            Some(field) => writer.text(field),
            None => writer.null(),
        }
        writer.unsigned(9);
        writer.array(3);
        writer.unsigned(u64::from(self.limits.records_max));
        writer.unsigned(u64::from(self.limits.bytes_max));
        writer.unsigned(u64::from(self.limits.age_ms_max));
        writer.unsigned(10);
        writer.bool(self.gaps_allowed);
        writer.unsigned(11);
        writer.array(self.anchorers.len());
        for anchorer in &self.anchorers {
            writer.bytes(anchorer.0.as_ref());
        }
        if let Some(code) = self.signatures.code() {
            writer.unsigned(12);
            writer.unsigned(code);
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Sequence, Self), CborError> {
        reader.map_of(11)?;
        Self::read_fields(reader)
    }

    /// Reads version 2.
    pub(super) fn read_2(reader: &mut Reader<'_>) -> Result<(Sequence, Self), CborError> {
        reader.map_of(12)?;
        let (sequence, definition) = Self::read_fields(reader)?;
        reader.key(12)?;
        let code = reader.unsigned()?;
        let signatures = Signatures::from_code(code)
            .ok_or_else(|| reader.error("signatures, 1 refused or 2 required", code.to_string()))?;
        Ok((sequence, Self { signatures, ..definition }))
    }

    fn read_fields(reader: &mut Reader<'_>) -> Result<(Sequence, Self), CborError> {
        reader.key(1)?;
        let sequence = Sequence(reader.unsigned()?);
        reader.key(2)?;
        let name = reader.text()?.to_owned();
        reader.key(3)?;
        let topic = reader.text()?.to_owned();
        reader.key(4)?;
        let partitions = reader.unsigned32()?;
        reader.key(5)?;
        let format = Format::read(reader)?;
        reader.key(6)?;
        let schemas = read_schemas(reader)?;
        reader.key(7)?;
        let count = reader.array(KEY_FIELDS_MAX)?;
        let key_fields = (0..count).map(|_| Ok(reader.text()?.to_owned())).collect::<Result<_, CborError>>()?;
        reader.key(8)?;
        let event_time = if reader.null() { None } else { Some(reader.text()?.to_owned()) };
        reader.key(9)?;
        reader.array_of(3)?;
        let limits = BatchLimits {
            records_max: reader.unsigned32()?,
            bytes_max: reader.unsigned32()?,
            age_ms_max: reader.unsigned32()?,
        };
        reader.key(10)?;
        let gaps_allowed = reader.bool()?;
        reader.key(11)?;
        let count = reader.array(ANCHORERS_MAX)?;
        let anchorers =
            (0..count).map(|_| Ok(IdentityId(Digest(reader.fixed()?)))).collect::<Result<_, CborError>>()?;
        let definition = Self {
            name,
            topic,
            partitions,
            format,
            schemas,
            key_fields,
            event_time,
            limits,
            gaps_allowed,
            anchorers,
            signatures: Signatures::default(),
        };
        Ok((sequence, definition))
    }

    /// Checks names, counts and limits.
    ///
    /// # Errors
    /// Names the first field that holds what it may not hold.
    pub fn check(&self) -> Result<(), StatementError> {
        check_stream_name(&self.name)?;
        let kafka = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        check_text("topic", &self.topic, 249, kafka, "a–z, A–Z, 0–9, '.', '_' and '-'")?;
        if matches!(self.topic.as_str(), "." | "..") {
            return Err(StatementError::field("topic", "a name that Kafka allows", &self.topic));
        }
        check_range("partitions", u64::from(self.partitions), 1, u64::from(PARTITIONS_MAX))?;
        check_range("schemas", self.schemas.len() as u64, 1, SCHEMAS_MAX as u64)?;
        let bytes: usize = self.schemas.iter().map(|schema| schema.text.len()).sum();
        check_schema_bytes("schemas, bytes in all", bytes)?;
        check_unique("schemas, ids", self.schemas.iter().map(|schema| schema.id))?;
        check_range("key_fields", self.key_fields.len() as u64, 0, KEY_FIELDS_MAX as u64)?;
        for field in self.key_fields.iter().chain(&self.event_time) {
            check_text("key_fields or event_time", field, 128, |c| !c.is_control(), "a field's name")?;
        }
        check_range("limits.records_max", u64::from(self.limits.records_max), 1, 1 << 20)?;
        check_range("limits.bytes_max", u64::from(self.limits.bytes_max), 1024, 256 << 20)?;
        check_range("limits.age_ms_max", u64::from(self.limits.age_ms_max), 10, 3_600_000)?;
        check_range("anchorers", self.anchorers.len() as u64, 1, ANCHORERS_MAX as u64)?;
        check_unique("anchorers", self.anchorers.iter())
    }
}

fn read_schemas(reader: &mut Reader<'_>) -> Result<Vec<SchemaVersion>, CborError> {
    let count = reader.array(SCHEMAS_MAX)?;
    let mut schemas = Vec::with_capacity(count);
    for _ in 0..count {
        reader.array_of(2)?;
        schemas.push(SchemaVersion { id: reader.unsigned32()?, text: reader.text()?.to_owned() });
    }
    Ok(schemas)
}

/// Checks how long the schemas of one statement are.
pub(super) fn check_schema_bytes(field: &'static str, found: usize) -> Result<(), StatementError> {
    check_range(field, found as u64, 2, SCHEMAS_BYTES_MAX as u64)
}

pub(super) fn check_range(field: &'static str, found: u64, least: u64, most: u64) -> Result<(), StatementError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(StatementError::field(field, format!("{least} to {most}"), found))
}

fn check_unique<T: Ord>(field: &'static str, items: impl Iterator<Item = T>) -> Result<(), StatementError> {
    let mut all: Vec<T> = items.collect();
    let count = all.len();
    all.sort();
    all.dedup();
    if all.len() == count { Ok(()) } else { Err(StatementError::field(field, "each one once", "a repetition")) }
}

/// Checks a stream's name: `schema.table` as SQL names it.
pub(super) fn check_stream_name(name: &str) -> Result<(), StatementError> {
    let wrong = || {
        let rule = format!(
            "schema.table, each 1 to 63 of a–z, 0–9 and _, starting with a letter, the schema none of {RESERVED:?}"
        );
        Err(StatementError::field("name", rule, format!("{name:?}")))
    };
    let word = |word: &str| {
        word.len() <= 63
            && word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    match name.split_once('.') {
        Some((schema, table)) if word(schema) && word(table) && !RESERVED.contains(&schema) => Ok(()),
        _ => wrong(),
    }
}
