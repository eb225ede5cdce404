//! The tables of TPC-H as records of streams: generated, encoded as Avro, one value a row.
//!
//! What it is not: a generator of its own. Rows are those of `tpchgen`, which follows the specification's dbgen.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::array::RecordBatchReader;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow_avro::writer::format::AvroBinaryFormat;
use arrow_avro::writer::{EncodedRows, Encoder, WriterBuilder};
use serde_json::{Value, json};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow, SupplierArrow,
};

/// The names of the tables.
pub(super) const NAMES: [&str; 8] =
    ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

type Reader = Box<dyn RecordBatchReader<Item = Result<arrow::array::RecordBatch, ArrowError>> + Send>;

/// A table's rows at a scale factor, in batches of at most `rows`.
fn reader(table: &str, scale: f64, rows: usize) -> Result<Reader> {
    Ok(match table {
        "customer" => Box::new(CustomerArrow::new(CustomerGenerator::new(scale, 1, 1)).with_batch_size(rows)),
        "lineitem" => Box::new(LineItemArrow::new(LineItemGenerator::new(scale, 1, 1)).with_batch_size(rows)),
        "nation" => Box::new(NationArrow::new(NationGenerator::new(scale, 1, 1)).with_batch_size(rows)),
        "orders" => Box::new(OrderArrow::new(OrderGenerator::new(scale, 1, 1)).with_batch_size(rows)),
        "part" => Box::new(PartArrow::new(PartGenerator::new(scale, 1, 1)).with_batch_size(rows)),
        "partsupp" => Box::new(PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1)).with_batch_size(rows)),
        "region" => Box::new(RegionArrow::new(RegionGenerator::new(scale, 1, 1)).with_batch_size(rows)),
        "supplier" => Box::new(SupplierArrow::new(SupplierGenerator::new(scale, 1, 1)).with_batch_size(rows)),
        other => bail!("TPC-H has no table {other}"),
    })
}

/// A table as a run of record values.
pub(super) struct Table {
    reader: Reader,
    encoder: Encoder,
    /// The Avro schema of its values.
    pub(super) schema: String,
}

impl Table {
    pub(super) fn open(name: &str, scale: f64, rows: usize) -> Result<Self> {
        let reader = reader(name, scale, rows)?;
        let columns = reader.schema();
        let schema = avro_schema(name, &columns)?;
        let metadata = HashMap::from([(arrow_avro::schema::SCHEMA_METADATA_KEY.to_owned(), schema.clone())]);
        let described = Schema::new_with_metadata(columns.fields().clone(), metadata);
        let encoder = WriterBuilder::new(described).build_encoder::<AvroBinaryFormat>()?;
        Ok(Self { reader, encoder, schema })
    }

    /// The next values; none at the end.
    pub(super) fn next_values(&mut self) -> Result<Option<EncodedRows>> {
        let Some(batch) = self.reader.next().transpose()? else { return Ok(None) };
        self.encoder.encode(&batch)?;
        Ok(Some(self.encoder.flush()))
    }
}

fn avro_schema(table: &str, columns: &Arc<Schema>) -> Result<String> {
    let fields = columns
        .fields()
        .iter()
        .map(|field| Ok(json!({ "name": field.name(), "type": avro_type(field.data_type())? })))
        .collect::<Result<Vec<_>>>()?;
    Ok(json!({ "type": "record", "name": table, "fields": fields }).to_string())
}

fn avro_type(column: &DataType) -> Result<Value> {
    Ok(match column {
        DataType::Int64 => json!("long"),
        DataType::Int32 => json!("int"),
        DataType::Utf8View => json!("string"),
        DataType::Date32 => json!({ "type": "int", "logicalType": "date" }),
        DataType::Decimal128(precision, scale) => {
            json!({ "type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale })
        }
        other => bail!("TPC-H has no column of type {other}"),
    })
}
