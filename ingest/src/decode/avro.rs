//! Reads Avro data ([Avro 1.12, "Binary Encoding"](https://avro.apache.org/docs/1.12.0/specification/#binary-encoding)),
//! resolving the schema that they were written with to the table's ("Schema Resolution").
//!
//! The resolution is worked out once, into a [`Plan`]: for each field of the writer, in its order, what to read and
//! which column it goes to. Stricter than the specification in what would change a value unseen: logical types of
//! different units or scales do not resolve, a block's stated size must be right, a boolean is 0 or 1. Looser in one
//! point: a top-level field that the writer lacks and that has no default is null, since every column may be null.

use std::sync::Arc;

use serde_json::Value as Json;

use super::{Budget, Reason, json};
use crate::columns::{Column, Data, offset};
use crate::decimal::format_decimal;
use crate::error::{Error, Result};
use crate::schema::{Kind, Nullability, Record, Type, Unit};
use crate::time;

/// How to read data of one writer's schema into the columns of the table.
#[derive(Debug, Clone)]
pub(crate) struct Plan(RecordPlan);

#[derive(Debug, Clone)]
struct RecordPlan {
    /// The writer's fields, in its order.
    steps: Vec<FieldStep>,
    /// The table's fields that the writer does not have.
    missing: Vec<(usize, Fill)>,
}

#[derive(Debug, Clone)]
struct FieldStep {
    name: String,
    target: Target,
}

#[derive(Debug, Clone)]
enum Target {
    Column(usize, Step),
    /// The table does not have the field: check and skip.
    Skip(Type),
}

#[derive(Debug, Clone)]
enum Fill {
    Null,
    /// The field's default as JSON text, and the type to read it by.
    Default(Arc<str>, Type),
}

#[derive(Debug, Clone)]
struct Step {
    /// The writer's union.
    null: Nullability,
    /// Whether the table's type has a place for a null.
    null_fits: bool,
    read: Read,
}

#[derive(Debug, Clone)]
enum Read {
    Boolean,
    Int,
    Long,
    IntAsLong,
    Float,
    Double,
    IntAsFloat,
    LongAsFloat,
    IntAsDouble,
    LongAsDouble,
    FloatAsDouble,
    Bytes,
    String,
    Date,
    Time(Unit),
    Timestamp(Unit),
    Uuid,
    Decimal {
        precision: u8,
        fixed: Option<usize>,
    },
    Fixed(usize),
    /// For each symbol of the writer, its place among the reader's.
    Enum(Vec<Option<i32>>),
    Array {
        item: Box<Step>,
        width: usize,
    },
    Map {
        item: Box<Step>,
        width: usize,
    },
    Record(RecordPlan),
}

impl Plan {
    /// Resolves `writer` to `reader`.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input), naming the first field that does not resolve.
    pub(crate) fn new(writer: &Record, reader: &Record) -> Result<Self> {
        Ok(Self(RecordPlan::new(writer, reader, true)?))
    }

    /// Reads one datum, to its last byte, and appends it to the columns.
    pub(crate) fn decode(&self, datum: &[u8], columns: &mut [Column], budget: &mut Budget) -> Result<(), Reason> {
        let mut input = Cursor { rest: datum };
        self.0.read(&mut input, columns, budget)?;
        match input.rest.len() {
            0 => Ok(()),
            left => Err(Reason::new(format!("{left} bytes are left over after the datum"))),
        }
    }
}

impl RecordPlan {
    fn new(writer: &Record, reader: &Record, top: bool) -> Result<Self> {
        let mut filled = vec![false; reader.fields.len()];
        let mut steps = Vec::with_capacity(writer.fields.len());
        for field in &writer.fields {
            let position = reader
                .position(&field.name)
                .or_else(|| reader.fields.iter().position(|target| target.aliases.contains(&field.name)));
            let target = match position {
                Some(position) if !std::mem::replace(&mut filled[position], true) => {
                    let target = &reader.fields[position];
                    let step = Step::new(&field.ty, &target.ty).map_err(|error| unresolved(&target.name, error))?;
                    Target::Column(position, step)
                }
                Some(position) => {
                    let name = &reader.fields[position].name;
                    return Err(Error::input(format!("two fields of the writer go to the field {name}")));
                }
                None => Target::Skip(field.ty.clone()),
            };
            steps.push(FieldStep { name: field.name.clone(), target });
        }
        let mut missing = Vec::new();
        for (position, field) in reader.fields.iter().enumerate().filter(|(position, _)| !filled[*position]) {
            let fill = match &field.default {
                Some(default) => Fill::default(default, &field.ty).map_err(|error| unresolved(&field.name, error))?,
                None if top || field.ty.null.allowed() => Fill::Null,
                None => {
                    return Err(unresolved(&field.name, Error::input("the writer lacks it and it has no default")));
                }
            };
            missing.push((position, fill));
        }
        Ok(Self { steps, missing })
    }

    fn read(&self, input: &mut Cursor<'_>, columns: &mut [Column], budget: &mut Budget) -> Result<(), Reason> {
        for step in &self.steps {
            match &step.target {
                Target::Column(position, read) => read.read(input, &mut columns[*position], budget),
                Target::Skip(ty) => skip(ty, input, budget),
            }
            .map_err(|reason| reason.within(&step.name))?;
        }
        for (position, fill) in &self.missing {
            match fill {
                Fill::Null => columns[*position].push_null(),
                Fill::Default(text, ty) => json::append(text, ty, &mut columns[*position])?,
            }
        }
        Ok(())
    }
}

fn unresolved(field: &str, error: Error) -> Error {
    Error::input(format!("the field {field} does not resolve to the table's schema")).because(error)
}

impl Fill {
    fn default(default: &Json, ty: &Type) -> Result<Self> {
        if default.is_null() {
            return match ty.null.allowed() {
                true => Ok(Self::Null),
                false => Err(Error::input("its default is null, which its type does not allow")),
            };
        }
        let text: Arc<str> = match (&ty.kind, default) {
            // Avro writes a decimal's default as the text of its bytes; JSON records write its digits.
            (Kind::Decimal { scale, .. }, Json::String(text)) => decimal_default(text, *scale)?.into(),
            _ => default.to_string().into(),
        };
        json::append(&text, ty, &mut Column::new(&ty.kind))
            .map_err(|reason| Error::input(format!("its default {default} is not of its type: {reason}")))?;
        Ok(Self::Default(text, ty.clone()))
    }
}

fn decimal_default(text: &str, scale: u8) -> Result<String> {
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    let unscaled = bytes.as_deref().and_then(big_endian).ok_or_else(|| Error::input("its default is no decimal"))?;
    Ok(format_decimal(unscaled, scale))
}

impl Step {
    fn new(writer: &Type, reader: &Type) -> Result<Self> {
        Ok(Self { null: writer.null, null_fits: reader.null.allowed(), read: Read::new(&writer.kind, &reader.kind)? })
    }

    fn read(&self, input: &mut Cursor<'_>, column: &mut Column, budget: &mut Budget) -> Result<(), Reason> {
        if self.null.allowed() && input.is_null(self.null)? {
            if !self.null_fits {
                return Err(Reason::field("null, which the table's schema does not allow"));
            }
            column.push_null();
            return Ok(());
        }
        self.read.value(input, &mut column.data, budget)?;
        column.seal_value();
        Ok(())
    }
}

impl Read {
    fn new(writer: &Kind, reader: &Kind) -> Result<Self> {
        Ok(match (writer, reader) {
            (Kind::Boolean, Kind::Boolean) => Self::Boolean,
            (Kind::Int | Kind::Date | Kind::Time(Unit::Millis), Kind::Int) => Self::Int,
            (Kind::Int, Kind::Long) => Self::IntAsLong,
            (Kind::Int, Kind::Float) => Self::IntAsFloat,
            (Kind::Int, Kind::Double) => Self::IntAsDouble,
            (Kind::Long | Kind::Timestamp { .. } | Kind::Time(Unit::Micros), Kind::Long) => Self::Long,
            (Kind::Long, Kind::Float) => Self::LongAsFloat,
            (Kind::Long, Kind::Double) => Self::LongAsDouble,
            (Kind::Float, Kind::Float) => Self::Float,
            (Kind::Float, Kind::Double) => Self::FloatAsDouble,
            (Kind::Double, Kind::Double) => Self::Double,
            (Kind::Bytes | Kind::String | Kind::Uuid, Kind::String) => Self::String,
            (Kind::Bytes | Kind::String, Kind::Bytes) => Self::Bytes,
            (Kind::Uuid | Kind::String, Kind::Uuid) => Self::Uuid,
            (Kind::Date | Kind::Int, Kind::Date) => Self::Date,
            (Kind::Time(from), Kind::Time(to)) if from == to => Self::Time(*to),
            (Kind::Int, Kind::Time(Unit::Millis)) => Self::Time(Unit::Millis),
            (Kind::Long, Kind::Time(Unit::Micros)) => Self::Time(Unit::Micros),
            (Kind::Timestamp { unit: from, utc: here }, Kind::Timestamp { unit: to, utc: there })
                if from == to && here == there =>
            {
                Self::Timestamp(*to)
            }
            (Kind::Long, Kind::Timestamp { unit, .. }) => Self::Timestamp(*unit),
            (Kind::Decimal { scale: from, fixed, .. }, Kind::Decimal { scale: to, precision, .. }) if from == to => {
                Self::Decimal { precision: *precision, fixed: *fixed }
            }
            (Kind::Fixed(from), Kind::Fixed(to)) if from == to => Self::Fixed(*to),
            (Kind::Enum(from), Kind::Enum(to)) => Self::Enum(
                from.symbols
                    .iter()
                    .map(|symbol| to.symbols.iter().position(|known| known == symbol).or(to.default))
                    .map(|position| position.and_then(|position| i32::try_from(position).ok()))
                    .collect(),
            ),
            (Kind::Array(from), Kind::Array(to)) => {
                Self::Array { item: Box::new(Step::new(from, to)?), width: from.kind.leaves().max(to.kind.leaves()) }
            }
            (Kind::Map(from), Kind::Map(to)) => {
                Self::Map { item: Box::new(Step::new(from, to)?), width: 1 + from.kind.leaves().max(to.kind.leaves()) }
            }
            (Kind::Record(from), Kind::Record(to)) => Self::Record(RecordPlan::new(from, to, false)?),
            _ => {
                return Err(Error::input(format!(
                    "it was written as {}, the table has {}",
                    writer.describe(),
                    reader.describe()
                )));
            }
        })
    }

    fn value(&self, input: &mut Cursor<'_>, data: &mut Data, budget: &mut Budget) -> Result<(), Reason> {
        match self {
            Self::Array { .. } | Self::Map { .. } | Self::Record(_) => return self.nested(input, data, budget),
            Self::Boolean => {
                let value = input.boolean()?;
                if let Data::Boolean(values) = data {
                    values.append(value);
                }
            }
            Self::Int => data.push_i32(input.int()?),
            Self::Long => data.push_i64(input.long()?),
            Self::IntAsLong => data.push_i64(i64::from(input.int()?)),
            Self::Float => data.push_f32(f32::from_le_bytes(input.array()?)),
            Self::Double => data.push_f64(f64::from_le_bytes(input.array()?)),
            // The nearest float, as Avro's promotion defines it.
            Self::IntAsFloat => data.push_f32(input.int()? as f32),
            Self::LongAsFloat => data.push_f32(input.long()? as f32),
            Self::IntAsDouble => data.push_f64(f64::from(input.int()?)),
            Self::LongAsDouble => data.push_f64(input.long()? as f64),
            Self::FloatAsDouble => data.push_f64(f64::from(f32::from_le_bytes(input.array()?))),
            Self::Bytes => data.push_bytes(input.bytes()?)?,
            Self::String => data.push_bytes(input.string()?.as_bytes())?,
            Self::Date => data.push_i32(checked_date(input.int()?)?),
            Self::Time(Unit::Millis) => {
                let value = input.int()?;
                checked_time(i64::from(value), Unit::Millis)?;
                data.push_i32(value);
            }
            Self::Time(unit) => data.push_i64(checked_time(input.long()?, *unit)?),
            Self::Timestamp(unit) => data.push_i64(checked_timestamp(input.long()?, *unit)?),
            Self::Uuid => data.push_bytes(&parse_uuid(input.string()?)?)?,
            Self::Decimal { precision, fixed } => data.push_i128(input.decimal(*precision, *fixed)?),
            Self::Fixed(size) => data.push_bytes(input.take(*size)?)?,
            Self::Enum(symbols) => {
                let index = input.int()?;
                let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
                match symbol {
                    Some(Some(symbol)) => data.push_i32(*symbol),
                    Some(None) => return Err(Reason::field("a symbol that the table's schema does not have")),
                    None => return Err(Reason::field(format!("symbol {index}, the schema has {}", symbols.len()))),
                }
            }
        }
        Ok(())
    }

    fn nested(&self, input: &mut Cursor<'_>, data: &mut Data, budget: &mut Budget) -> Result<(), Reason> {
        match (self, data) {
            (Self::Array { item, width }, Data::List { offsets, items }) => {
                input.blocks(|input| {
                    budget.take(*width)?;
                    item.read(input, items, budget)
                })?;
                offsets.push(offset(items.len())?);
            }
            (Self::Map { item, width }, Data::Map { offsets, keys, items }) => {
                let start = keys.len();
                input.blocks(|input| {
                    budget.take(*width)?;
                    keys.data.push_bytes(input.string()?.as_bytes())?;
                    keys.seal_value();
                    item.read(input, items, budget)
                })?;
                keys.check_unique_from(start)?;
                offsets.push(offset(items.len())?);
            }
            (Self::Record(plan), Data::Struct(columns)) => plan.read(input, columns, budget)?,
            _ => debug_assert!(false, "a plan and its columns are made from the same schema"),
        }
        Ok(())
    }
}

/// Reads past a value that the table has no column for, with the same checks.
fn skip(ty: &Type, input: &mut Cursor<'_>, budget: &mut Budget) -> Result<(), Reason> {
    if ty.null.allowed() && input.is_null(ty.null)? {
        return Ok(());
    }
    match &ty.kind {
        Kind::Boolean => drop(input.boolean()?),
        Kind::Int | Kind::Date | Kind::Time(Unit::Millis) => drop(input.int()?),
        Kind::Long | Kind::Time(_) | Kind::Timestamp { .. } => drop(input.long()?),
        Kind::Float => drop(input.take(4)?),
        Kind::Double => drop(input.take(8)?),
        Kind::Bytes => drop(input.bytes()?),
        Kind::String | Kind::Uuid => drop(input.string()?),
        Kind::Decimal { precision, fixed, .. } => drop(input.decimal(*precision, *fixed)?),
        Kind::Fixed(size) => drop(input.take(*size)?),
        Kind::Enum(kind) => {
            let index = input.int()?;
            if usize::try_from(index).map_or(true, |index| index >= kind.symbols.len()) {
                return Err(Reason::field(format!("symbol {index}, the schema has {}", kind.symbols.len())));
            }
        }
        Kind::Array(item) => input.blocks(|input| {
            budget.take(1)?;
            skip(item, input, budget)
        })?,
        Kind::Map(item) => input.blocks(|input| {
            budget.take(1)?;
            input.string()?;
            skip(item, input, budget)
        })?,
        Kind::Record(record) => {
            for field in &record.fields {
                skip(&field.ty, input, budget).map_err(|reason| reason.within(&field.name))?;
            }
        }
    }
    Ok(())
}

pub(super) fn checked_date(days: i32) -> Result<i32, Reason> {
    if time::date_in_range(days) { Ok(days) } else { Err(Reason::field("a date outside the years 0001 to 9999")) }
}

pub(super) fn checked_time(units: i64, unit: Unit) -> Result<i64, Reason> {
    if time::time_in_range(units, unit) { Ok(units) } else { Err(Reason::field("a time of day outside the day")) }
}

pub(super) fn checked_timestamp(units: i64, unit: Unit) -> Result<i64, Reason> {
    if time::timestamp_in_range(units, unit) {
        Ok(units)
    } else {
        Err(Reason::field("a timestamp outside the years 0001 to 9999"))
    }
}

/// The 16 bytes of `01234567-89ab-cdef-0123-456789abcdef`.
pub(crate) fn parse_uuid(text: &str) -> Result<[u8; 16], Reason> {
    let wrong = || Reason::field("not a uuid such as 01234567-89ab-cdef-0123-456789abcdef");
    let text = text.as_bytes();
    if text.len() != 36 || [8, 13, 18, 23].iter().any(|&at| text[at] != b'-') {
        return Err(wrong());
    }
    let mut digits = text.iter().enumerate().filter(|(at, _)| ![8, 13, 18, 23].contains(at)).map(|(_, &digit)| digit);
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        let mut nibble = || digits.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or_else(wrong);
        let (high, low) = (nibble()?, nibble()?);
        *byte = u8::try_from(high * 16 + low).map_err(|_| wrong())?;
    }
    Ok(bytes)
}

/// A two's-complement number of at most 16 bytes.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let mut padded = if bytes.first().is_some_and(|byte| *byte >= 0x80) { [0xff; 16] } else { [0; 16] };
    // A number may be longer than needed as long as only its sign repeats.
    let (padding, bytes) = bytes.split_at(bytes.len().saturating_sub(16));
    if padding.iter().any(|byte| *byte != padded[0]) || (!padding.is_empty() && (bytes[0] ^ padded[0]) >= 0x80) {
        return None;
    }
    padded[16 - bytes.len()..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(padded))
}

/// What is left of a datum.
struct Cursor<'d> {
    rest: &'d [u8],
}

impl<'d> Cursor<'d> {
    fn take(&mut self, count: usize) -> Result<&'d [u8], Reason> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| Reason::new(format!("{count} bytes are needed, {} are left", self.rest.len())))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| Reason::new(format!("{N} bytes are needed, {} are left", self.rest.len())))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn boolean(&mut self) -> Result<bool, Reason> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Reason::new(format!("a boolean of {other}, only 0 and 1 are"))),
        }
    }

    /// A zig-zag number in groups of seven bits, the lowest first.
    fn long(&mut self) -> Result<i64, Reason> {
        let mut value = 0u64;
        for (at, &byte) in self.rest.iter().take(10).enumerate() {
            if at == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(Reason::new(if self.rest.len() < 10 { "it ends within a number" } else { "a number of more than 64 bits" }))
    }

    fn int(&mut self) -> Result<i32, Reason> {
        let value = self.long()?;
        i32::try_from(value).map_err(|_| Reason::new(format!("{value} where a number of 32 bits belongs")))
    }

    fn bytes(&mut self) -> Result<&'d [u8], Reason> {
        let length = self.long()?;
        let count = usize::try_from(length).map_err(|_| Reason::new(format!("a length of {length} bytes")))?;
        self.take(count)
    }

    fn string(&mut self) -> Result<&'d str, Reason> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes)
            .map_err(|error| Reason::field(format!("not UTF-8 after {} bytes", error.valid_up_to())))
    }

    fn decimal(&mut self, precision: u8, fixed: Option<usize>) -> Result<i128, Reason> {
        let bytes = match fixed {
            Some(size) => self.take(size)?,
            None => self.bytes()?,
        };
        big_endian(bytes)
            .filter(|value| value.unsigned_abs() < 10u128.pow(u32::from(precision)))
            .ok_or_else(|| Reason::field(format!("a decimal of more than {precision} digits")))
    }

    /// Reads the branch of a union with null.
    fn is_null(&mut self, null: Nullability) -> Result<bool, Reason> {
        let branch = self.long()?;
        if branch == null.branch(true) {
            return Ok(true);
        }
        if branch == null.branch(false) {
            return Ok(false);
        }
        Err(Reason::new(format!("branch {branch} of a union of 2")))
    }

    /// Reads the blocks of an array or a map, item by item.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Reason>) -> Result<(), Reason> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            let stated = if count < 0 { Some(self.long()?) } else { None };
            let before = self.rest.len();
            let count = count.unsigned_abs();
            // No type takes less than a byte (see `schema`), so this bounds the loop before it begins.
            if count > before as u64 {
                return Err(Reason::new(format!("{count} items are claimed, {before} bytes are left")));
            }
            for _ in 0..count {
                item(self)?;
            }
            let found = before - self.rest.len();
            if stated.is_some_and(|stated| usize::try_from(stated) != Ok(found)) {
                return Err(Reason::new(format!("a block of {found} bytes states another length")));
            }
        }
    }
}
