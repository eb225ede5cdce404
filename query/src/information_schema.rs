//! `information_schema` as the engine gives it, with the types of columns by their SQL names: clients of Postgres read
//! `bigint` where the engine would say `Int64`.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::catalog::information_schema::InformationSchemaProvider;
use datafusion::catalog::{CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::cast::as_string_array;
use datafusion::common::{Column, TableReference};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, Expr, LogicalPlanBuilder, ScalarUDF, Volatility, create_udf};

pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";
const COLUMNS: &str = "columns";
const TYPE_COLUMN: &str = "data_type";

/// The schema over one list of catalogues.
#[derive(Debug)]
pub(crate) struct InformationSchema(InformationSchemaProvider);

impl InformationSchema {
    pub(crate) fn new(catalogs: Arc<dyn CatalogProviderList>) -> Self {
        Self(InformationSchemaProvider::new(catalogs))
    }
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        self.0.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.0.table(name).await? {
            Some(table) if name == COLUMNS => named_types(table).map(Some),
            found => Ok(found),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.table_exist(name)
    }
}

/// The table of columns, with the names of types.
fn named_types(table: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let name = TableReference::partial(INFORMATION_SCHEMA, COLUMNS);
    let scan = LogicalPlanBuilder::scan(name, provider_as_source(table), None)?;
    let to_name = type_name_function();
    let columns: Vec<Expr> = scan
        .schema()
        .columns()
        .into_iter()
        .map(|column: Column| {
            let is_type = column.name == TYPE_COLUMN;
            let column = Expr::Column(column);
            if is_type { to_name.call(vec![column]).alias(TYPE_COLUMN) } else { column }
        })
        .collect();
    Ok(Arc::new(ViewTable::new(scan.project(columns)?.build()?, None)))
}

fn type_name_function() -> ScalarUDF {
    let names = |arguments: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let types = as_string_array(&arrays[0])?;
        let names: StringArray = types.iter().map(|data_type| data_type.map(type_name)).collect();
        Ok(ColumnarValue::Array(Arc::new(names) as ArrayRef))
    };
    create_udf("sql_type_name", vec![DataType::Utf8], DataType::Utf8, Volatility::Immutable, Arc::new(names))
}

/// The SQL name of a type of the engine's. Records are composite types, which have no name of their own; maps are handed
/// out as JSON text.
fn type_name(data_type: &str) -> &'static str {
    let plain = data_type.split('(').next().unwrap_or_default();
    match plain {
        "Boolean" => "boolean",
        "Int8" | "UInt8" | "Int16" => "smallint",
        "UInt16" | "Int32" => "integer",
        "UInt32" | "Int64" => "bigint",
        "UInt64" | "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => "numeric",
        "Float16" | "Float32" => "real",
        "Float64" => "double precision",
        "Utf8" | "LargeUtf8" | "Utf8View" | "Map" => "text",
        "Binary" | "LargeBinary" | "BinaryView" | "FixedSizeBinary" => "bytea",
        "Date32" | "Date64" => "date",
        "Time32" | "Time64" => "time without time zone",
        "Timestamp" if data_type.contains('"') => "timestamp with time zone",
        "Timestamp" => "timestamp without time zone",
        "Interval" | "Duration" => "interval",
        "List" | "LargeList" | "FixedSizeList" | "ListView" | "LargeListView" => "ARRAY",
        _ => "USER-DEFINED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_names_of_sql() {
        for (data_type, name) in [
            (DataType::Int64, "bigint"),
            (DataType::Utf8View, "text"),
            (
                DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, Some("+00:00".into())),
                "timestamp with time zone",
            ),
            (DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None), "timestamp without time zone"),
            (DataType::new_list(DataType::Utf8, true), "ARRAY"),
            (DataType::Decimal128(10, 2), "numeric"),
            (DataType::Struct(arrow::datatypes::Fields::empty()), "USER-DEFINED"),
        ] {
            assert_eq!(type_name(&data_type.to_string()), name, "{data_type}");
        }
    }
}
