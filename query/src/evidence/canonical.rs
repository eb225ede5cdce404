//! The engine's values in the canonical form of an answer's rows (`cairn_proof::answer::rows`).
//!
//! How the engine keeps a value does not matter: a text is a text, whether it lies in a view, a dictionary or a plain
//! array. What has no canonical form is refused before a row is read.

use arrow::array::{
    Array, AsArray as _, Decimal32Array, Decimal64Array, Decimal128Array, Decimal256Array, FixedSizeListArray,
    RecordBatch,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, DurationMicrosecondType, DurationMillisecondType,
    DurationNanosecondType, DurationSecondType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, Schema, Time32MillisecondType,
    Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use cairn_proof::answer::AnswerColumn;
use cairn_proof::answer::rows::{RowsHasher, float_bytes};
use cairn_proof::cbor::Writer;
use datafusion::common::{Result, exec_err};

/// What `Date64` counts, in a day.
const DAY_MS: i64 = 86_400_000;
/// What an interval of days and milliseconds has as nanoseconds.
const MILLISECOND_NS: i64 = 1_000_000;

/// The columns of an answer.
///
/// # Errors
/// Names a column whose type has no canonical form.
pub(super) fn columns(schema: &Schema) -> std::result::Result<Vec<AnswerColumn>, String> {
    let column = |field: &arrow::datatypes::FieldRef| match type_name(field.data_type()) {
        Some(kind) => Ok(AnswerColumn { name: field.name().clone(), kind }),
        None => Err(format!("column {:?} is of type {}, which has no canonical form", field.name(), field.data_type())),
    };
    schema.fields().iter().map(column).collect()
}

/// The canonical name of a type; none for those without a canonical form.
pub(crate) fn type_name(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::Null => "null".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64 => data_type.to_string().to_ascii_lowercase(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *scale >= 0 =>
        {
            format!("decimal({precision},{scale})")
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "bytes".to_owned()
        }
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Time32(unit) | DataType::Time64(unit) => format!("time({})", unit_name(*unit)),
        DataType::Timestamp(unit, None) => format!("timestamp({})", unit_name(*unit)),
        DataType::Timestamp(unit, Some(zone)) => format!("timestamp({},{zone})", unit_name(*unit)),
        DataType::Duration(unit) => format!("duration({})", unit_name(*unit)),
        DataType::Interval(_) => "interval".to_owned(),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("list({})", type_name(item.data_type())?)
        }
        DataType::Struct(fields) => {
            let named = |field: &arrow::datatypes::FieldRef| {
                Some(format!("{} {}", field.name(), type_name(field.data_type())?))
            };
            format!("struct({})", fields.iter().map(named).collect::<Option<Vec<_>>>()?.join(","))
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(pair) = entries.data_type() else { return None };
            let [key, value] = pair.as_ref() else { return None };
            format!("map({},{})", type_name(key.data_type())?, type_name(value.data_type())?)
        }
        DataType::Dictionary(_, value) => type_name(value)?,
        _ => return None,
    })
}

const fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}

/// Hashes the rows of a batch, in their order. `buffer` is memory that is used again.
pub(super) fn hash_rows(batch: &RecordBatch, hasher: &mut RowsHasher, buffer: &mut Vec<u8>) -> Result<()> {
    for row in 0..batch.num_rows() {
        buffer.clear();
        let mut writer = Writer::new(buffer);
        writer.array(batch.num_columns());
        for column in batch.columns() {
            write(column.as_ref(), row, &mut writer)?;
        }
        hasher.row(buffer);
    }
    Ok(())
}

/// Writes one value.
fn write(array: &dyn Array, row: usize, writer: &mut Writer<'_>) -> Result<()> {
    if array.is_null(row) {
        writer.null();
        return Ok(());
    }
    match array.data_type() {
        DataType::Null => writer.null(),
        DataType::Boolean => writer.bool(array.as_boolean().value(row)),
        DataType::Int8 => writer.signed(signed::<Int8Type>(array, row)),
        DataType::Int16 => writer.signed(signed::<Int16Type>(array, row)),
        DataType::Int32 => writer.signed(signed::<Int32Type>(array, row)),
        DataType::Int64 => writer.signed(signed::<Int64Type>(array, row)),
        DataType::UInt8 => writer.unsigned(u64::from(value::<UInt8Type>(array, row))),
        DataType::UInt16 => writer.unsigned(u64::from(value::<UInt16Type>(array, row))),
        DataType::UInt32 => writer.unsigned(u64::from(value::<UInt32Type>(array, row))),
        DataType::UInt64 => writer.unsigned(value::<UInt64Type>(array, row)),
        DataType::Float32 => writer.bytes(&float_bytes(f64::from(value::<Float32Type>(array, row)))),
        DataType::Float64 => writer.bytes(&float_bytes(value::<Float64Type>(array, row))),
        DataType::Date32 => writer.signed(signed::<Date32Type>(array, row)),
        DataType::Date64 => writer.signed(value::<Date64Type>(array, row).div_euclid(DAY_MS)),
        DataType::Time32(_) | DataType::Time64(_) | DataType::Timestamp(..) | DataType::Duration(_) => {
            writer.signed(time(array, row)?);
        }
        DataType::Interval(unit) => write_interval(array, row, *unit, writer),
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => write_bytes(array, row, writer),
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            writer.text(&decimal(array, row)?);
        }
        DataType::List(_) => return write_list(array.as_list::<i32>().value(row).as_ref(), writer),
        DataType::LargeList(_) => return write_list(array.as_list::<i64>().value(row).as_ref(), writer),
        DataType::FixedSizeList(..) => {
            let list: &FixedSizeListArray = array.as_fixed_size_list();
            return write_list(list.value(row).as_ref(), writer);
        }
        DataType::Struct(_) => {
            let columns = array.as_struct().columns();
            writer.array(columns.len());
            return columns.iter().try_for_each(|column| write(column.as_ref(), row, writer));
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            writer.array(entries.len());
            for at in 0..entries.len() {
                writer.array(2);
                entries.columns().iter().try_for_each(|column| write(column.as_ref(), at, writer))?;
            }
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            return write(dictionary.values().as_ref(), key(dictionary.keys(), row)?, writer);
        }
        other => return exec_err!("a value of type {other} has no canonical form"),
    }
    Ok(())
}

fn write_list(items: &dyn Array, writer: &mut Writer<'_>) -> Result<()> {
    writer.array(items.len());
    (0..items.len()).try_for_each(|at| write(items, at, writer))
}

/// The place among a dictionary's values that a row stands for.
fn key(keys: &dyn Array, row: usize) -> Result<usize> {
    let key = match keys.data_type() {
        DataType::Int8 => u64::try_from(signed::<Int8Type>(keys, row)).ok(),
        DataType::Int16 => u64::try_from(signed::<Int16Type>(keys, row)).ok(),
        DataType::Int32 => u64::try_from(signed::<Int32Type>(keys, row)).ok(),
        DataType::Int64 => u64::try_from(signed::<Int64Type>(keys, row)).ok(),
        DataType::UInt8 => Some(u64::from(value::<UInt8Type>(keys, row))),
        DataType::UInt16 => Some(u64::from(value::<UInt16Type>(keys, row))),
        DataType::UInt32 => Some(u64::from(value::<UInt32Type>(keys, row))),
        DataType::UInt64 => Some(value::<UInt64Type>(keys, row)),
        _ => None,
    };
    let key = key.and_then(|key| usize::try_from(key).ok());
    key.map_or_else(|| exec_err!("a dictionary has keys of type {}", keys.data_type()), Ok)
}

fn value<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> T::Native {
    array.as_primitive::<T>().value(row)
}

fn signed<T: ArrowPrimitiveType<Native: Into<i64>>>(array: &dyn Array, row: usize) -> i64 {
    value::<T>(array, row).into()
}

/// A time in its own unit.
fn time(array: &dyn Array, row: usize) -> Result<i64> {
    Ok(match array.data_type() {
        DataType::Time32(TimeUnit::Second) => signed::<Time32SecondType>(array, row),
        DataType::Time32(TimeUnit::Millisecond) => signed::<Time32MillisecondType>(array, row),
        DataType::Time64(TimeUnit::Microsecond) => signed::<Time64MicrosecondType>(array, row),
        DataType::Time64(TimeUnit::Nanosecond) => signed::<Time64NanosecondType>(array, row),
        DataType::Timestamp(TimeUnit::Second, _) => signed::<TimestampSecondType>(array, row),
        DataType::Timestamp(TimeUnit::Millisecond, _) => signed::<TimestampMillisecondType>(array, row),
        DataType::Timestamp(TimeUnit::Microsecond, _) => signed::<TimestampMicrosecondType>(array, row),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => signed::<TimestampNanosecondType>(array, row),
        DataType::Duration(TimeUnit::Second) => signed::<DurationSecondType>(array, row),
        DataType::Duration(TimeUnit::Millisecond) => signed::<DurationMillisecondType>(array, row),
        DataType::Duration(TimeUnit::Microsecond) => signed::<DurationMicrosecondType>(array, row),
        DataType::Duration(TimeUnit::Nanosecond) => signed::<DurationNanosecondType>(array, row),
        other => return exec_err!("{other} is no time"),
    })
}

fn write_interval(array: &dyn Array, row: usize, unit: IntervalUnit, writer: &mut Writer<'_>) {
    let (months, days, nanoseconds) = match unit {
        IntervalUnit::YearMonth => (value::<IntervalYearMonthType>(array, row), 0, 0),
        IntervalUnit::DayTime => {
            let interval = value::<IntervalDayTimeType>(array, row);
            (0, interval.days, i64::from(interval.milliseconds) * MILLISECOND_NS)
        }
        IntervalUnit::MonthDayNano => {
            let interval = value::<IntervalMonthDayNanoType>(array, row);
            (interval.months, interval.days, interval.nanoseconds)
        }
    };
    writer.array(3);
    writer.signed(i64::from(months));
    writer.signed(i64::from(days));
    writer.signed(nanoseconds);
}

fn write_bytes(array: &dyn Array, row: usize, writer: &mut Writer<'_>) {
    match array.data_type() {
        DataType::Utf8 => writer.text(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => writer.text(array.as_string::<i64>().value(row)),
        DataType::Utf8View => writer.text(array.as_string_view().value(row)),
        DataType::Binary => writer.bytes(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => writer.bytes(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => writer.bytes(array.as_binary_view().value(row)),
        _ => writer.bytes(array.as_fixed_size_binary().value(row)),
    }
}

/// A decimal's digits, with exactly as many after the point as its scale says.
fn decimal(array: &dyn Array, row: usize) -> Result<String> {
    let any = array.as_any();
    let text = (any.downcast_ref::<Decimal128Array>().map(|array| array.value_as_string(row)))
        .or_else(|| any.downcast_ref::<Decimal256Array>().map(|array| array.value_as_string(row)))
        .or_else(|| any.downcast_ref::<Decimal64Array>().map(|array| array.value_as_string(row)))
        .or_else(|| any.downcast_ref::<Decimal32Array>().map(|array| array.value_as_string(row)));
    text.map_or_else(|| exec_err!("{} is no decimal", array.data_type()), Ok)
}

#[cfg(test)]
mod tests;
