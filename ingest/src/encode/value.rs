//! One typed value between a cell and its encoded bytes.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value as Json;

use super::{Cell, EncodeError};
use crate::decimal::{format_decimal, parse_decimal};
use crate::decode::parse_uuid;
use crate::schema::{Field, Kind, Nullability, Record, Type};
use crate::time;

/// A value that fits its type; which variant goes with which [`Kind`] is settled in [`Value::of_text`] and
/// [`Value::of_json`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Boolean(bool),
    /// Int, long, date, time, timestamp, and an enum's symbol by its position.
    Whole(i64),
    Float(f64),
    Decimal(i128),
    Text(Cow<'a, str>),
    /// Bytes and `fixed`.
    Bytes(Vec<u8>),
    List(Vec<Value<'a>>),
    Map(Vec<(Cow<'a, str>, Value<'a>)>),
    Record(Vec<Value<'a>>),
}

/// What is wrong, where that says more than the type that was expected.
type Wrong = Option<String>;

fn because(reason: &str) -> Wrong {
    Some(reason.to_owned())
}

impl<'a> Value<'a> {
    /// The value of a cell for a field of the row.
    pub(super) fn of_cell(field: &Field, cell: Cell<'a>) -> Result<Self, EncodeError> {
        let describe = || field.ty.kind.describe();
        match cell {
            Cell::Text(text) => {
                let empty = text.is_empty() || (field.ty.kind != Kind::String && text.trim().is_empty());
                if empty && (field.ty.null.allowed() || field.default.is_some()) {
                    return Self::absent(field);
                }
                Self::of_text(&field.ty.kind, text)
                    .map_err(|reason| EncodeError::new(&field.name, format!("{text:?}"), describe(), reason))
            }
            Cell::Null | Cell::Json(Json::Null) => Self::absent(field),
            Cell::Json(json) => {
                Self::of_json(&field.ty, json).map_err(|reason| EncodeError::new(&field.name, json, describe(), reason))
            }
        }
    }

    /// The value of a field that is left out: null, or its default.
    fn absent(field: &Field) -> Result<Self, EncodeError> {
        let refused = |found: String, reason| EncodeError::new(&field.name, found, field.ty.kind.describe(), reason);
        match &field.default {
            _ if field.ty.null.allowed() => Ok(Self::Null),
            Some(default) => Value::of_json(&field.ty, default)
                .map(Value::into_owned)
                .map_err(|reason| refused(format!("the schema's default {default}"), reason)),
            None => Err(refused("nothing".into(), None)),
        }
    }

    fn into_owned<'b>(self) -> Value<'b> {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(value) => Value::Boolean(value),
            Self::Whole(value) => Value::Whole(value),
            Self::Float(value) => Value::Float(value),
            Self::Decimal(value) => Value::Decimal(value),
            Self::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::List(items) => Value::List(items.into_iter().map(Self::into_owned).collect()),
            Self::Record(fields) => Value::Record(fields.into_iter().map(Self::into_owned).collect()),
            Self::Map(items) => Value::Map(
                items.into_iter().map(|(key, item)| (Cow::Owned(key.into_owned()), item.into_owned())).collect(),
            ),
        }
    }

    fn of_text(kind: &Kind, text: &'a str) -> Result<Self, Wrong> {
        let trimmed = text.trim();
        Ok(match kind {
            Kind::String => Self::Text(Cow::Borrowed(text)),
            Kind::Boolean if trimmed.eq_ignore_ascii_case("true") => Self::Boolean(true),
            Kind::Boolean if trimmed.eq_ignore_ascii_case("false") => Self::Boolean(false),
            Kind::Boolean => return Err(because("true or false")),
            Kind::Int => Self::Whole(trimmed.parse::<i32>().map_err(|_| None)?.into()),
            Kind::Long => Self::Whole(trimmed.parse().map_err(|_| None)?),
            Kind::Float | Kind::Double => Self::float(kind, trimmed.parse().map_err(|_| None)?)?,
            Kind::Date | Kind::Time(_) | Kind::Timestamp { .. }
                if trimmed.bytes().skip(1).all(|b| b.is_ascii_digit()) =>
            {
                Self::moment(kind, trimmed.parse().map_err(|_| None)?)?
            }
            Kind::Array(_) | Kind::Map(_) | Kind::Record(_) => {
                let json: Json = serde_json::from_str(trimmed).map_err(|error| Some(format!("not JSON: {error}")))?;
                let ty = Type { kind: kind.clone(), null: Nullability::Never };
                Value::of_json(&ty, &json)?.into_owned()
            }
            _ => Self::of_word(kind, trimmed)?,
        })
    }

    /// A text that stands for something else than itself.
    fn of_word(kind: &Kind, text: &str) -> Result<Self, Wrong> {
        Ok(match kind {
            Kind::Date => Self::Whole(time::parse_date(text).map_err(because)?.into()),
            Kind::Time(unit) => Self::Whole(time::parse_time(text, *unit).map_err(because)?),
            Kind::Timestamp { unit, utc } => Self::Whole(time::parse_timestamp(text, *unit, *utc).map_err(because)?),
            Kind::Decimal { precision, scale, .. } => {
                Self::Decimal(parse_decimal(text, *precision, *scale).map_err(because)?)
            }
            Kind::Enum(kind) => {
                let position = kind.symbols.iter().position(|symbol| symbol == text).ok_or(None)?;
                Self::Whole(i64::try_from(position).map_err(|_| None)?)
            }
            Kind::Uuid => {
                parse_uuid(text).map_err(|_| None)?;
                Self::Text(Cow::Owned(text.to_ascii_lowercase()))
            }
            Kind::Bytes | Kind::Fixed(_) => {
                let bytes: Vec<u8> = text
                    .chars()
                    .map(|character| u8::try_from(u32::from(character)))
                    .collect::<Result<_, _>>()
                    .map_err(|_| because("bytes are written as characters up to U+00FF"))?;
                match kind {
                    Kind::Fixed(size) if bytes.len() != *size => return Err(Some(format!("{} bytes", bytes.len()))),
                    _ => Self::Bytes(bytes),
                }
            }
            _ => return Err(None),
        })
    }

    fn of_json(ty: &Type, json: &'a Json) -> Result<Self, Wrong> {
        Ok(match (&ty.kind, json) {
            (_, Json::Null) if ty.null.allowed() => Self::Null,
            (Kind::String, Json::String(text)) => Self::Text(Cow::Borrowed(text)),
            (Kind::Boolean, Json::Bool(value)) => Self::Boolean(*value),
            (Kind::Int, Json::Number(number)) => {
                Self::Whole(number.as_i64().and_then(|value| i32::try_from(value).ok()).ok_or(None)?.into())
            }
            (Kind::Long, Json::Number(number)) => Self::Whole(number.as_i64().ok_or(None)?),
            (Kind::Float | Kind::Double, Json::Number(number)) => Self::float(&ty.kind, number.as_f64().ok_or(None)?)?,
            (Kind::Date | Kind::Time(_) | Kind::Timestamp { .. }, Json::Number(number)) => {
                Self::moment(&ty.kind, number.as_i64().ok_or(None)?)?
            }
            (Kind::Decimal { .. }, Json::Number(number)) => Self::of_word(&ty.kind, &number.to_string())?,
            (Kind::Array(item), Json::Array(items)) => {
                Self::List(items.iter().map(|json| Self::of_json(item, json)).collect::<Result<_, _>>()?)
            }
            (Kind::Map(item), Json::Object(items)) => Self::Map(
                items
                    .iter()
                    .map(|(key, json)| Ok((Cow::Borrowed(key.as_str()), Self::of_json(item, json)?)))
                    .collect::<Result<_, Wrong>>()?,
            ),
            (Kind::Record(record), Json::Object(members)) => Self::of_members(record, members)?,
            (Kind::Boolean | Kind::Int | Kind::Long | Kind::Float | Kind::Double, Json::String(_)) => return Err(None),
            (kind, Json::String(text)) => Self::of_word(kind, text)?,
            _ => return Err(None),
        })
    }

    fn of_members(record: &Record, members: &'a serde_json::Map<String, Json>) -> Result<Self, Wrong> {
        if let Some(name) = members.keys().find(|name| record.position(name).is_none()) {
            return Err(Some(format!("the record has no field {name}")));
        }
        let fields = record.fields.iter().map(|field| {
            let cell = members.get(&field.name).map_or(Cell::Null, Cell::Json);
            Value::of_cell(field, cell).map_err(|error| Some(error.to_string()))
        });
        Ok(Self::Record(fields.collect::<Result<_, _>>()?))
    }

    fn float(kind: &Kind, value: f64) -> Result<Self, Wrong> {
        // A float column holds 32 bits; what does not fit them would become infinite.
        #[allow(clippy::cast_possible_truncation)]
        let fits = *kind == Kind::Double || !value.is_finite() || (value as f32).is_finite();
        if fits { Ok(Self::Float(value)) } else { Err(because("out of the type's range")) }
    }

    /// A date or time given as a number in the field's unit.
    fn moment(kind: &Kind, number: i64) -> Result<Self, Wrong> {
        let fits = match kind {
            Kind::Date => i32::try_from(number).is_ok_and(time::date_in_range),
            Kind::Time(unit) => time::time_in_range(number, *unit),
            Kind::Timestamp { unit, .. } => time::timestamp_in_range(number, *unit),
            _ => false,
        };
        if fits { Ok(Self::Whole(number)) } else { Err(because("out of the type's range")) }
    }

    /// Appends the Avro encoding.
    pub(super) fn write_avro(&self, ty: &Type, out: &mut Vec<u8>) {
        if ty.null.allowed() {
            write_long(ty.null.branch(matches!(self, Self::Null)), out);
        }
        match (&ty.kind, self) {
            (Kind::Float, Self::Float(value)) => {
                #[allow(clippy::cast_possible_truncation)] // the nearest one, checked to be finite
                out.extend_from_slice(&(*value as f32).to_le_bytes());
            }
            (_, Self::Float(value)) => out.extend_from_slice(&value.to_le_bytes()),
            (_, Self::Null) => {}
            (_, Self::Boolean(value)) => out.push(u8::from(*value)),
            (_, Self::Whole(value)) => write_long(*value, out),
            (Kind::Decimal { fixed: Some(size), .. }, Self::Decimal(value)) => {
                // A fixed decimal has at most 16 bytes and enough of them for its digits.
                out.extend_from_slice(&value.to_be_bytes()[16 - size..]);
            }
            (_, Self::Decimal(value)) => write_bytes(shortest(&value.to_be_bytes()), out),
            (_, Self::Text(text)) => write_bytes(text.as_bytes(), out),
            (Kind::Fixed(_), Self::Bytes(bytes)) => out.extend_from_slice(bytes),
            (_, Self::Bytes(bytes)) => write_bytes(bytes, out),
            (Kind::Array(item), Self::List(items)) => write_block(items, out, |value, out| value.write_avro(item, out)),
            (Kind::Map(item), Self::Map(items)) => write_block(items, out, |(key, value), out| {
                write_bytes(key.as_bytes(), out);
                value.write_avro(item, out);
            }),
            (Kind::Record(record), Self::Record(values)) => {
                for (field, value) in record.fields.iter().zip(values) {
                    value.write_avro(&field.ty, out);
                }
            }
            _ => debug_assert!(false, "a value is made for its type"),
        }
    }

    /// Appends `"name":value` to a JSON object, unless the value is null.
    pub(super) fn write_member(&self, field: &Field, first: &mut bool, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if matches!(self, Self::Null) {
            return Ok(());
        }
        if !std::mem::replace(first, false) {
            out.push(b',');
        }
        write_json_text(&field.name, out);
        out.push(b':');
        self.write_json(&field.ty.kind, out).map_err(|reason| {
            EncodeError::new(&field.name, format!("{self:?}"), field.ty.kind.describe(), because(reason))
        })
    }

    fn write_json(&self, kind: &Kind, out: &mut Vec<u8>) -> Result<(), &'static str> {
        match (kind, self) {
            (_, Self::Null) => out.extend_from_slice(b"null"),
            (_, Self::Float(value)) if !value.is_finite() => return Err("JSON has no NaN and no infinity"),
            (Kind::String, Self::Text(text)) => write_json_text(text, out),
            (_, Self::Bytes(bytes)) => {
                let text: String = bytes.iter().copied().map(char::from).collect();
                write_json_text(&text, out);
            }
            (Kind::Array(item), Self::List(items)) => {
                out.push(b'[');
                for (at, value) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    value.write_json(&item.kind, out)?;
                }
                out.push(b']');
            }
            (Kind::Map(item), Self::Map(items)) => {
                out.push(b'{');
                for (at, (key, value)) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    write_json_text(key, out);
                    out.push(b':');
                    value.write_json(&item.kind, out)?;
                }
                out.push(b'}');
            }
            (Kind::Record(record), Self::Record(values)) => {
                out.push(b'{');
                let mut first = true;
                for (field, value) in record.fields.iter().zip(values) {
                    value
                        .write_member(field, &mut first, out)
                        .map_err(|_| "a field of it cannot be written as JSON")?;
                }
                out.push(b'}');
            }
            (kind, value) => {
                let mut text = String::new();
                value.write_text(kind, &mut text);
                match kind {
                    Kind::Boolean | Kind::Int | Kind::Long | Kind::Float | Kind::Double => {
                        out.extend_from_slice(text.as_bytes());
                    }
                    _ => write_json_text(&text, out),
                }
            }
        }
        Ok(())
    }

    /// Appends the value as text, as it stands in a key.
    pub(super) fn write_text(&self, kind: &Kind, out: &mut String) {
        match (kind, self) {
            (_, Self::Null) => {}
            (_, Self::Boolean(value)) => out.push_str(if *value { "true" } else { "false" }),
            (Kind::Date, Self::Whole(days)) => {
                out.push_str(&time::format_date(i32::try_from(*days).unwrap_or_default()))
            }
            (Kind::Time(unit), Self::Whole(units)) => out.push_str(&time::format_time(*units, *unit)),
            (Kind::Timestamp { unit, utc }, Self::Whole(units)) => {
                out.push_str(&time::format_timestamp(*units, *unit, *utc));
            }
            (Kind::Enum(kind), Self::Whole(position)) => {
                let symbol = usize::try_from(*position).ok().and_then(|position| kind.symbols.get(position));
                out.push_str(symbol.map(String::as_str).unwrap_or_default());
            }
            // Writing to a String cannot fail.
            (_, Self::Whole(value)) => drop(write!(out, "{value}")),
            #[allow(clippy::cast_possible_truncation)]
            (Kind::Float, Self::Float(value)) => drop(write!(out, "{:?}", *value as f32)),
            (_, Self::Float(value)) => drop(write!(out, "{value:?}")),
            (Kind::Decimal { scale, .. }, Self::Decimal(value)) => out.push_str(&format_decimal(*value, *scale)),
            (_, Self::Text(text)) => out.push_str(text),
            (_, Self::Bytes(bytes)) => out.extend(bytes.iter().copied().map(char::from)),
            (kind, nested) => {
                let mut json = Vec::new();
                if nested.write_json(kind, &mut json).is_ok() {
                    out.push_str(&String::from_utf8_lossy(&json));
                }
            }
        }
    }
}

fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    // A slice is never longer than an i64 can say.
    write_long(i64::try_from(bytes.len()).unwrap_or(i64::MAX), out);
    out.extend_from_slice(bytes);
}

fn write_block<T>(items: &[T], out: &mut Vec<u8>, mut write: impl FnMut(&T, &mut Vec<u8>)) {
    if !items.is_empty() {
        write_long(i64::try_from(items.len()).unwrap_or(i64::MAX), out);
        for item in items {
            write(item, out);
        }
    }
    out.push(0);
}

/// The same two's-complement number in as few bytes as it needs.
fn shortest(bytes: &[u8]) -> &[u8] {
    let sign = if bytes[0] >= 0x80 { 0xff } else { 0 };
    let mut start = 0;
    while start + 1 < bytes.len() && bytes[start] == sign && (bytes[start + 1] ^ sign) < 0x80 {
        start += 1;
    }
    &bytes[start..]
}

fn write_json_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
