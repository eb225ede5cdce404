//! Messages to rows.
//!
//! `prost-reflect` reads the wire, the rest is here: what a value becomes, and the reasons, which are data and never change
//! their wording. A message of n bytes takes some sixty times n in memory while it is read, so it has a bound of its own.
//! Depth is bounded by the schema, which does not nest without end, and by the reader for fields that it does not have.

use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use super::columns::{WellKnown, fields, well_known};
use crate::columns::{Column, Data, offset};
use crate::decode::{Budget, Reason, ReasonCode};
use crate::error::{Error, Result};

/// The longest message that is read.
pub(crate) const VALUE_BYTES_MAX: usize = 4 << 20;
/// The longest path to a message in Confluent's framing: as deep as messages can be declared within each other.
const INDEXES_MAX: usize = 16;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// How to read messages of one type into the columns of the table.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    message: MessageDescriptor,
    /// Where the message is declared: among those of its file, then within each other.
    indexes: Vec<i32>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
struct Step {
    field: FieldDescriptor,
    shape: Shape,
    /// Values that one item of a list or a map takes.
    width: usize,
}

/// What a value is, where its type does not say it all.
#[derive(Debug, Clone)]
enum Shape {
    Plain,
    Enum(EnumDescriptor),
    /// The field of the value within, and its own shape.
    Wrapper(FieldDescriptor),
    Timestamp,
    Record(Vec<Step>),
}

impl Plan {
    /// For the message that a schema's text names.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input), as `super::message`.
    pub(crate) fn new(text: &str) -> Result<Self> {
        let message = super::message(text)?;
        // The path in a descriptor names the field before each place: 4 for a file's messages, 3 for those within one.
        let indexes = message.path().iter().skip(1).step_by(2).copied().collect();
        Ok(Self { steps: steps(&message)?, message, indexes })
    }

    /// Reads one message and appends it to the columns.
    pub(crate) fn decode(&self, value: &[u8], columns: &mut [Column], budget: &mut Budget) -> Result<(), Reason> {
        let message = DynamicMessage::decode(self.message.clone(), value)
            .map_err(|_| Reason::new(format!("not a Protobuf message of the type {}", self.message.full_name())))?;
        append_all(&message, &self.steps, columns, budget)
    }

    /// Whether the path of a framed value leads to the stream's message.
    pub(crate) fn is_at(&self, indexes: &[i32]) -> Result<(), Reason> {
        if indexes == self.indexes {
            return Ok(());
        }
        let text = format!("message index {indexes:?}, {} is {:?}", self.message.full_name(), self.indexes);
        Err(Reason::coded(ReasonCode::UnknownSchema, text))
    }
}

fn steps(message: &MessageDescriptor) -> Result<Vec<Step>> {
    let step = |field: FieldDescriptor| {
        let kind = match field.kind() {
            Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
            kind => kind,
        };
        let shape = shape(&kind)?;
        Ok(Step { width: 1 + usize::from(field.is_map()) + shape.leaves(), field, shape })
    };
    fields(message).into_iter().map(step).collect()
}

fn shape(kind: &Kind) -> Result<Shape> {
    Ok(match kind {
        Kind::Enum(names) => Shape::Enum(names.clone()),
        Kind::Message(message) => match well_known(message) {
            Some(WellKnown::Timestamp) => Shape::Timestamp,
            Some(WellKnown::Wrapper) => {
                Shape::Wrapper(message.get_field(1).ok_or_else(|| Error::input("a wrapper without its value"))?)
            }
            None => Shape::Record(steps(message)?),
        },
        _ => Shape::Plain,
    })
}

impl Shape {
    fn leaves(&self) -> usize {
        match self {
            Self::Record(steps) => steps.iter().map(|step| step.width).sum(),
            _ => 0,
        }
    }
}

fn append_all(
    message: &DynamicMessage,
    steps: &[Step],
    columns: &mut [Column],
    budget: &mut Budget,
) -> Result<(), Reason> {
    for (step, column) in steps.iter().zip(columns) {
        append_field(message, step, column, budget).map_err(|reason| reason.within(step.field.name()))?;
    }
    Ok(())
}

fn append_field(message: &DynamicMessage, step: &Step, column: &mut Column, budget: &mut Budget) -> Result<(), Reason> {
    if step.field.supports_presence() && !message.has_field(&step.field) {
        column.push_null();
        return Ok(());
    }
    let value = message.get_field(&step.field);
    match (value.as_ref(), &mut column.data) {
        (Value::List(values), Data::List { offsets, items }) => {
            for value in values {
                budget.take(step.width)?;
                append(value, &step.shape, items, budget)?;
            }
            offsets.push(offset(items.len())?);
        }
        (Value::Map(entries), Data::Map { offsets, keys, items }) => {
            let mut entries: Vec<_> = entries.iter().map(|(key, value)| (key_text(key), value)).collect();
            // What comes out of a hash table has no order of its own.
            entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            for (key, value) in entries {
                budget.take(step.width)?;
                keys.data.push_bytes(key.as_bytes())?;
                keys.seal_value();
                append(value, &step.shape, items, budget)?;
            }
            offsets.push(offset(items.len())?);
        }
        (value, _) => return append(value, &step.shape, column, budget),
    }
    column.seal_value();
    Ok(())
}

fn append(value: &Value, shape: &Shape, column: &mut Column, budget: &mut Budget) -> Result<(), Reason> {
    match (value, shape) {
        (Value::Message(message), Shape::Wrapper(inner)) => plain(&message.get_field(inner), &mut column.data)?,
        (Value::Message(message), Shape::Timestamp) => column.data.push_i64(nanoseconds(message)?),
        (Value::Message(message), Shape::Record(steps)) => {
            if let Data::Struct(columns) = &mut column.data {
                append_all(message, steps, columns, budget)?;
            }
        }
        (Value::EnumNumber(number), Shape::Enum(names)) => match names.get_value(*number) {
            Some(known) => column.data.push_bytes(known.name().as_bytes())?,
            None => column.data.push_bytes(number.to_string().as_bytes())?,
        },
        (value, _) => plain(value, &mut column.data)?,
    }
    column.seal_value();
    Ok(())
}

fn plain(value: &Value, data: &mut Data) -> Result<(), Reason> {
    match value {
        Value::Bool(value) => {
            if let Data::Boolean(values) = data {
                values.append(*value);
            }
        }
        Value::I32(value) => data.push_i32(*value),
        Value::I64(value) => data.push_i64(*value),
        Value::U32(value) => data.push_i64(i64::from(*value)),
        Value::U64(value) => data.push_i128(i128::from(*value)),
        Value::F32(value) => data.push_f32(*value),
        Value::F64(value) => data.push_f64(*value),
        Value::String(value) => data.push_bytes(value.as_bytes())?,
        Value::Bytes(value) => data.push_bytes(value)?,
        Value::EnumNumber(_) | Value::Message(_) | Value::List(_) | Value::Map(_) => {
            debug_assert!(false, "a plan and its columns are made from the same message");
        }
    }
    Ok(())
}

/// A key as text: numbers by their digits, `true` and `false`.
fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn nanoseconds(message: &DynamicMessage) -> Result<i64, Reason> {
    let number = |field| {
        message.get_field_by_number(field).and_then(|value| value.as_i64().or_else(|| value.as_i32().map(i64::from)))
    };
    let (seconds, nanos) = (number(1).unwrap_or_default(), number(2).unwrap_or_default());
    if !(0..NANOS_PER_SECOND).contains(&nanos) {
        return Err(Reason::field("a timestamp whose nanoseconds are not 0 to 999,999,999"));
    }
    let whole = seconds.checked_mul(NANOS_PER_SECOND).and_then(|whole| whole.checked_add(nanos));
    whole.ok_or_else(|| Reason::field("a timestamp outside the years 1678 to 2261"))
}

/// Splits Confluent's header off: a zero byte, the schema's id (4 bytes), the path to the message as zigzag numbers, their
/// count first; a count of 0 stands for the path [0].
pub(crate) fn framed(value: &[u8]) -> Result<(u32, Vec<i32>, &[u8]), Reason> {
    let (id, mut rest) = crate::decode::confluent(value)?;
    let count = zigzag(&mut rest)?;
    let count = usize::try_from(count).ok().filter(|count| *count <= INDEXES_MAX);
    let count = count.ok_or_else(|| unreadable(&format!("more than {INDEXES_MAX} message indexes")))?;
    if count == 0 {
        return Ok((id, vec![0], rest));
    }
    let mut indexes = Vec::with_capacity(count);
    for _ in 0..count {
        indexes.push(zigzag(&mut rest)?);
    }
    Ok((id, indexes, rest))
}

fn unreadable(what: &str) -> Reason {
    Reason::coded(ReasonCode::UnknownSchema, format!("the header after the schema id: {what}"))
}

/// A number of at most 32 bits, seven to a byte, the least first; the last bit is its sign.
fn zigzag(rest: &mut &[u8]) -> Result<i32, Reason> {
    let mut number = 0_u64;
    for shift in (0..35).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or_else(|| unreadable("it ends too early"))?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let number = u32::try_from(number).map_err(|_| unreadable("a message index beyond 32 bits"))?;
            return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
        }
    }
    Err(unreadable("a message index beyond 32 bits"))
}
