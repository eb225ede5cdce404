//! Columns under construction, which can take back the last row.
//!
//! A decoder appends a record field by field, and may find in the middle that the record is bad. Then
//! [`Columns::quarantine`] cuts every column back to where the record began and appends a row of nulls: the columns
//! of the good records are the same as if the bad one had not been there, at any depth of nesting, and no second pass
//! over the batch is needed.
//!
//! Arrow's own builders cannot be cut back, so these are plain vectors, turned into arrays at the end. The Arrow
//! types are those of the table schema, given by the caller; each column checks that it is of that type.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int32Array, Int64Array, ListArray, MapArray, PrimitiveArray, StringArray, StructArray,
    Time32MillisecondArray, Time64MicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field as ArrowField, Fields, SchemaRef, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType,
};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::decode::Reason;
use crate::error::{Error, Result};
use crate::schema::{Kind, Record, Unit};

/// The largest number of bytes or items in one column: Arrow's offsets are 32 bits.
const OFFSET_MAX: usize = i32::MAX as usize;

/// One column of rows, or of the items of another column.
#[derive(Debug)]
pub(crate) struct Column {
    valid: BooleanBufferBuilder,
    pub(crate) data: Data,
}

/// A column's values; a null has a value too, which nobody reads.
#[derive(Debug)]
pub(crate) enum Data {
    Boolean(BooleanBufferBuilder),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(Vec<i128>),
    Bytes { offsets: Vec<i32>, values: Vec<u8> },
    Fixed { size: usize, values: Vec<u8> },
    List { offsets: Vec<i32>, items: Box<Column> },
    Map { offsets: Vec<i32>, keys: Box<Column>, items: Box<Column> },
    Struct(Vec<Column>),
}

impl Column {
    /// An empty column for values of this kind.
    pub(crate) fn new(kind: &Kind) -> Self {
        let data = match kind {
            Kind::Boolean => Data::Boolean(BooleanBufferBuilder::new(0)),
            Kind::Int | Kind::Date | Kind::Time(Unit::Millis) | Kind::Enum(_) => Data::Int32(Vec::new()),
            Kind::Long | Kind::Time(_) | Kind::Timestamp { .. } => Data::Int64(Vec::new()),
            Kind::Float => Data::Float32(Vec::new()),
            Kind::Double => Data::Float64(Vec::new()),
            Kind::Decimal { .. } => Data::Decimal(Vec::new()),
            Kind::Bytes | Kind::String => Data::bytes(),
            Kind::Uuid => Data::Fixed { size: 16, values: Vec::new() },
            Kind::Fixed(size) => Data::Fixed { size: *size, values: Vec::new() },
            Kind::Array(items) => Data::List { offsets: vec![0], items: Box::new(Self::new(&items.kind)) },
            Kind::Map(items) => Data::Map {
                offsets: vec![0],
                keys: Box::new(Self::with(Data::bytes())),
                items: Box::new(Self::new(&items.kind)),
            },
            Kind::Record(record) => Data::Struct(record.fields.iter().map(|field| Self::new(&field.ty.kind)).collect()),
        };
        Self::with(data)
    }

    fn with(data: Data) -> Self {
        Self { valid: BooleanBufferBuilder::new(0), data }
    }

    pub(crate) fn len(&self) -> usize {
        self.valid.len()
    }

    /// Says that the value just appended to [`data`](Self::data) is there.
    pub(crate) fn seal_value(&mut self) {
        self.valid.append(true);
    }

    pub(crate) fn push_null(&mut self) {
        match &mut self.data {
            Data::Boolean(values) => values.append(false),
            Data::Int32(values) => values.push(0),
            Data::Int64(values) => values.push(0),
            Data::Float32(values) => values.push(0.0),
            Data::Float64(values) => values.push(0.0),
            Data::Decimal(values) => values.push(0),
            Data::Bytes { offsets, .. } | Data::List { offsets, .. } | Data::Map { offsets, .. } => {
                let end = offsets.last().copied().unwrap_or_default();
                offsets.push(end);
            }
            Data::Fixed { size, values } => values.resize(values.len() + *size, 0),
            Data::Struct(fields) => fields.iter_mut().for_each(Self::push_null),
        }
        self.valid.append(false);
    }

    /// Refuses a map whose keys, from `start` on, are not each there once.
    pub(crate) fn check_unique_from(&self, start: usize) -> Result<(), Reason> {
        let Data::Bytes { offsets, values } = &self.data else { return Ok(()) };
        let bounds = offsets.get(start..).unwrap_or_default();
        // Offsets are made by `offset`, so they are never negative.
        let at = |offset: i32| usize::try_from(offset).unwrap_or_default();
        let mut keys: Vec<_> = bounds.windows(2).map(|pair| &values[at(pair[0])..at(pair[1])]).collect();
        keys.sort_unstable();
        match keys.windows(2).any(|pair| pair[0] == pair[1]) {
            true => Err(Reason::field("a map with a key that is there twice")),
            false => Ok(()),
        }
    }

    /// Cuts the column back to `rows`, also when the row after them is only half there.
    fn truncate(&mut self, rows: usize) {
        self.valid.truncate(rows);
        match &mut self.data {
            Data::Boolean(values) => values.truncate(rows),
            Data::Int32(values) => values.truncate(rows),
            Data::Int64(values) => values.truncate(rows),
            Data::Float32(values) => values.truncate(rows),
            Data::Float64(values) => values.truncate(rows),
            Data::Decimal(values) => values.truncate(rows),
            Data::Bytes { offsets, values } => values.truncate(cut(offsets, rows)),
            Data::Fixed { size, values } => values.truncate(*size * rows),
            Data::List { offsets, items } => items.truncate(cut(offsets, rows)),
            Data::Map { offsets, keys, items } => {
                let end = cut(offsets, rows);
                keys.truncate(end);
                items.truncate(end);
            }
            Data::Struct(fields) => fields.iter_mut().for_each(|field| field.truncate(rows)),
        }
    }

    fn finish(&mut self, kind: &Kind, target: &ArrowField) -> Result<ArrayRef, ArrowError> {
        let nulls = NullBuffer::new(self.valid.finish());
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        let ty = target.data_type();
        Ok(match (&mut self.data, kind, ty) {
            (Data::Boolean(values), _, DataType::Boolean) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            (Data::Int32(positions), Kind::Enum(kind), DataType::Utf8) => {
                Arc::new(symbols(&std::mem::take(positions), &kind.symbols, nulls.as_ref()))
            }
            (Data::Int32(values), _, DataType::Int32) => {
                Arc::new(Int32Array::new(std::mem::take(values).into(), nulls))
            }
            (Data::Int32(values), _, DataType::Date32) => {
                Arc::new(Date32Array::new(std::mem::take(values).into(), nulls))
            }
            (Data::Int32(values), _, DataType::Time32(TimeUnit::Millisecond)) => {
                Arc::new(Time32MillisecondArray::new(std::mem::take(values).into(), nulls))
            }
            (Data::Int64(values), _, DataType::Int64) => {
                Arc::new(Int64Array::new(std::mem::take(values).into(), nulls))
            }
            (Data::Int64(values), _, DataType::Time64(TimeUnit::Microsecond)) => {
                Arc::new(Time64MicrosecondArray::new(std::mem::take(values).into(), nulls))
            }
            (Data::Int64(values), _, DataType::Timestamp(unit, zone)) => {
                timestamps(std::mem::take(values), nulls, *unit, zone.clone())?
            }
            (Data::Float32(values), _, _) => Arc::new(Float32Array::new(std::mem::take(values).into(), nulls)),
            (Data::Float64(values), _, _) => Arc::new(Float64Array::new(std::mem::take(values).into(), nulls)),
            (Data::Decimal(values), _, DataType::Decimal128(precision, scale)) => Arc::new(
                Decimal128Array::new(std::mem::take(values).into(), nulls)
                    .with_precision_and_scale(*precision, *scale)?,
            ),
            (Data::Bytes { offsets, values }, _, DataType::Utf8) => {
                Arc::new(StringArray::try_new(take_offsets(offsets), Buffer::from_vec(std::mem::take(values)), nulls)?)
            }
            (Data::Bytes { offsets, values }, _, DataType::Binary) => {
                Arc::new(BinaryArray::try_new(take_offsets(offsets), Buffer::from_vec(std::mem::take(values)), nulls)?)
            }
            (Data::Fixed { values, .. }, _, DataType::FixedSizeBinary(size)) => {
                Arc::new(FixedSizeBinaryArray::try_new(*size, Buffer::from_vec(std::mem::take(values)), nulls)?)
            }
            (Data::List { offsets, items }, Kind::Array(inner), DataType::List(field)) => Arc::new(ListArray::try_new(
                field.clone(),
                take_offsets(offsets),
                items.finish(&inner.kind, field)?,
                nulls,
            )?),
            (Data::Map { offsets, keys, items }, Kind::Map(inner), DataType::Map(entries, ordered)) => {
                let DataType::Struct(fields) = entries.data_type() else { return Err(mismatch(kind, target)) };
                let keys = keys.finish(&Kind::String, &fields[0])?;
                let values = items.finish(&inner.kind, &fields[1])?;
                let rows = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
                Arc::new(MapArray::try_new(entries.clone(), take_offsets(offsets), rows, nulls, *ordered)?)
            }
            (Data::Struct(columns), Kind::Record(record), DataType::Struct(fields)) => {
                let arrays = finish_all(columns, record, fields)?;
                Arc::new(StructArray::try_new(fields.clone(), arrays, nulls)?)
            }
            _ => return Err(mismatch(kind, target)),
        })
    }
}

impl Data {
    fn bytes() -> Self {
        Self::Bytes { offsets: vec![0], values: Vec::new() }
    }

    /// Appends the bytes of a string, `bytes` or `fixed` value.
    pub(crate) fn push_bytes(&mut self, value: &[u8]) -> Result<(), Reason> {
        match self {
            Self::Bytes { offsets, values } => {
                values.extend_from_slice(value);
                offsets.push(offset(values.len())?);
            }
            Self::Fixed { values, .. } => values.extend_from_slice(value),
            _ => debug_assert!(false, "bytes go into a column of bytes"),
        }
        Ok(())
    }

    pub(crate) fn push_i32(&mut self, value: i32) {
        match self {
            Self::Int32(values) => values.push(value),
            _ => debug_assert!(false, "a number of 32 bits goes into such a column"),
        }
    }

    pub(crate) fn push_f32(&mut self, value: f32) {
        match self {
            Self::Float32(values) => values.push(value),
            _ => debug_assert!(false, "a float goes into such a column"),
        }
    }

    pub(crate) fn push_f64(&mut self, value: f64) {
        match self {
            Self::Float64(values) => values.push(value),
            _ => debug_assert!(false, "a double goes into such a column"),
        }
    }

    pub(crate) fn push_i128(&mut self, value: i128) {
        match self {
            Self::Decimal(values) => values.push(value),
            _ => debug_assert!(false, "a decimal goes into such a column"),
        }
    }

    pub(crate) fn push_i64(&mut self, value: i64) {
        match self {
            Self::Int64(values) => values.push(value),
            _ => debug_assert!(false, "a number of 64 bits goes into such a column"),
        }
    }
}

/// An offset that fits Arrow's.
pub(crate) fn offset(end: usize) -> Result<i32, Reason> {
    i32::try_from(end)
        .map_err(|_| Reason::new(format!("the batch holds more than {OFFSET_MAX} bytes or items in one column")))
}

fn cut(offsets: &mut Vec<i32>, rows: usize) -> usize {
    offsets.truncate(rows + 1);
    // Offsets are made by `offset`, so they are never negative.
    usize::try_from(offsets.last().copied().unwrap_or_default()).unwrap_or_default()
}

fn take_offsets(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, vec![0])))
}

fn symbols(positions: &[i32], symbols: &[String], nulls: Option<&NullBuffer>) -> StringArray {
    let symbol = |position: i32| usize::try_from(position).ok().and_then(|position| symbols.get(position));
    let rows = positions.iter().enumerate();
    rows.map(|(row, &position)| if nulls.is_some_and(|nulls| nulls.is_null(row)) { None } else { symbol(position) })
        .collect()
}

fn timestamps(
    values: Vec<i64>,
    nulls: Option<NullBuffer>,
    unit: TimeUnit,
    zone: Option<Arc<str>>,
) -> Result<ArrayRef, ArrowError> {
    fn array<T: ArrowPrimitiveType<Native = i64>>(values: Vec<i64>, nulls: Option<NullBuffer>) -> PrimitiveArray<T> {
        PrimitiveArray::<T>::new(values.into(), nulls)
    }
    Ok(match unit {
        TimeUnit::Millisecond => {
            Arc::new(array::<TimestampMillisecondType>(values, nulls).with_timezone_opt(zone)) as ArrayRef
        }
        TimeUnit::Microsecond => Arc::new(array::<TimestampMicrosecondType>(values, nulls).with_timezone_opt(zone)),
        TimeUnit::Nanosecond => Arc::new(array::<TimestampNanosecondType>(values, nulls).with_timezone_opt(zone)),
        TimeUnit::Second => return Err(ArrowError::SchemaError("Avro has no timestamps in seconds".into())),
    })
}

fn mismatch(kind: &Kind, target: &ArrowField) -> ArrowError {
    ArrowError::SchemaError(format!(
        "the field {} is {}, the table has {}",
        target.name(),
        kind.describe(),
        target.data_type()
    ))
}

fn finish_all(columns: &mut [Column], record: &Record, fields: &Fields) -> Result<Vec<ArrayRef>, ArrowError> {
    columns
        .iter_mut()
        .zip(&record.fields)
        .zip(fields)
        .map(|((column, field), target)| column.finish(&field.ty.kind, target))
        .collect()
}

/// All columns of a stream's table.
#[derive(Debug)]
pub(crate) struct Columns {
    record: Arc<Record>,
    schema: SchemaRef,
    pub(crate) columns: Vec<Column>,
    rows: usize,
}

impl Columns {
    /// Empty columns for rows of `record`, of the types in `schema`.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input) when the two do not describe the same table.
    pub(crate) fn new(record: Arc<Record>, schema: SchemaRef) -> Result<Self> {
        let names = |fields: &Fields| fields.iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let expected: Vec<_> = record.fields.iter().map(|field| field.name.clone()).collect();
        if names(schema.fields()) != expected {
            return Err(Error::input(format!(
                "the table has the columns {}, the schema the fields {}",
                names(schema.fields()).join(", "),
                expected.join(", ")
            )));
        }
        let columns = record.fields.iter().map(|field| Column::new(&field.ty.kind)).collect();
        let mut empty = Self { record, schema, columns, rows: 0 };
        // An empty batch goes through every type, so what does not fit shows now and not at the first record.
        empty.finish()?;
        Ok(empty)
    }

    /// Keeps the row that was just appended to every column.
    pub(crate) fn keep(&mut self) {
        self.rows += 1;
        debug_assert!(self.columns.iter().all(|column| column.len() == self.rows), "a row fills every column");
    }

    /// Takes back whatever was appended of the current row, and makes it a row of nulls.
    pub(crate) fn quarantine(&mut self) {
        for column in &mut self.columns {
            column.truncate(self.rows);
            column.push_null();
        }
        self.rows += 1;
    }

    /// The rows so far as a batch; the columns are empty afterwards.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch> {
        let rows = std::mem::take(&mut self.rows);
        let unfit =
            |error: ArrowError| Error::input("the table's columns do not fit the stream's schema").because(error);
        let arrays = finish_all(&mut self.columns, &self.record, self.schema.fields()).map_err(unfit)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options).map_err(unfit)
    }
}
