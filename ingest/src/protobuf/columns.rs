//! What a message becomes: an Avro record, from which everything else of a stream's columns follows.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Value as Json, json};

use crate::error::{Error, Result};

/// How deep messages may nest.
const NESTING_MAX: usize = 16;
/// Fields of all messages together, those that stand in several places counted in each.
const FIELDS_MAX: usize = 2_000;

/// The record of a message.
pub(super) fn of(message: &MessageDescriptor) -> Result<Json> {
    Writer { open: Vec::new(), defined: Vec::new(), fields: 0 }.record(message)
}

/// What a message is besides a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WellKnown {
    /// A value in a message of its own, so that it may be missing.
    Wrapper,
    /// An instant.
    Timestamp,
}

pub(super) fn well_known(message: &MessageDescriptor) -> Option<WellKnown> {
    match message.full_name().strip_prefix("google.protobuf.")? {
        "Timestamp" => Some(WellKnown::Timestamp),
        "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value" | "BoolValue"
        | "StringValue" | "BytesValue" => Some(WellKnown::Wrapper),
        _ => None,
    }
}

/// The fields of a message in the order of its declaration.
pub(super) fn fields(message: &MessageDescriptor) -> Vec<FieldDescriptor> {
    let declared = &message.descriptor_proto().field;
    declared.iter().filter_map(|field| message.get_field_by_name(field.name())).collect()
}

struct Writer {
    /// Messages that are being written: meeting one again is a recursion.
    open: Vec<String>,
    /// Those that were written, which Avro names from then on.
    defined: Vec<String>,
    fields: usize,
}

impl Writer {
    fn record(&mut self, message: &MessageDescriptor) -> Result<Json> {
        let full = message.full_name();
        if self.open.iter().any(|open| open == full) {
            return Err(Error::input(format!("the message {full} contains itself: no table has that shape")));
        }
        let fields = fields(message);
        self.fields += fields.len();
        if self.open.len() >= NESTING_MAX || self.fields > FIELDS_MAX {
            return Err(Error::input(format!(
                "the message {full} is nested deeper than {NESTING_MAX}, or there are more than {FIELDS_MAX} fields"
            )));
        }
        if fields.is_empty() {
            return Err(Error::input(format!("the message {full} has no fields, so it has no columns")));
        }
        if self.defined.iter().any(|defined| defined == full) {
            return Ok(json!(full));
        }
        self.open.push(full.to_owned());
        let columns = fields.iter().map(|field| Ok(json!({ "name": field.name(), "type": self.field(field)? })));
        let columns: Vec<Json> = columns.collect::<Result<_>>()?;
        self.open.pop();
        self.defined.push(full.to_owned());
        let (namespace, name) = full.rsplit_once('.').unwrap_or(("", full));
        let mut record = json!({ "type": "record", "name": name, "fields": columns });
        if !namespace.is_empty() {
            record["namespace"] = json!(namespace);
        }
        Ok(record)
    }

    fn field(&mut self, field: &FieldDescriptor) -> Result<Json> {
        let within = |error: Error| Error::input(format!("the field {}", field.full_name())).because(error);
        if field.is_map()
            && let Kind::Message(entry) = field.kind()
        {
            let values = self.value(&entry.map_entry_value_field().kind()).map_err(within)?;
            return Ok(json!({ "type": "map", "values": values }));
        }
        let value = self.value(&field.kind()).map_err(within)?;
        Ok(match (field.is_list(), field.supports_presence()) {
            (true, _) => json!({ "type": "array", "items": value }),
            (false, true) => json!(["null", value]),
            (false, false) => value,
        })
    }

    fn value(&mut self, kind: &Kind) -> Result<Json> {
        Ok(match kind {
            Kind::Double => json!("double"),
            Kind::Float => json!("float"),
            Kind::Bool => json!("boolean"),
            Kind::String | Kind::Enum(_) => json!("string"),
            Kind::Bytes => json!("bytes"),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!("int"),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint32 | Kind::Fixed32 => json!("long"),
            Kind::Uint64 | Kind::Fixed64 => {
                json!({ "type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0 })
            }
            Kind::Message(message) => match well_known(message) {
                Some(WellKnown::Timestamp) => json!({ "type": "long", "logicalType": "timestamp-nanos" }),
                Some(WellKnown::Wrapper) => {
                    let inner = message.get_field(1);
                    let inner = inner.ok_or_else(|| Error::input("a wrapper without its value"))?.kind();
                    if matches!(inner, Kind::Message(_)) {
                        return Err(Error::input("a wrapper of a message"));
                    }
                    self.value(&inner)?
                }
                None => self.record(message)?,
            },
        })
    }
}
