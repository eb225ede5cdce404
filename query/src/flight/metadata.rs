//! What clients ask about the server and its catalogue: schemas, tables, keys, types, abilities.
//!
//! The catalogue is that of the session's height. A stream's records have a key that the chain itself sees to: partition
//! and offset.

use std::sync::{Arc, LazyLock};

use arrow::array::{Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    GetCatalogsBuilder, SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetTableTypes, CommandGetTables, Nullable, Searchable, SqlInfo,
    SqlSupportedCaseSensitivity, SqlSupportedTransaction, XdbcDataType,
};

use super::encode::plain_type;
use super::sessions::FlightSession;
use crate::catalog::{CATALOG, HeightCatalog, SYSTEM_SCHEMA};
use crate::error::{QueryError, Result};
use crate::settings::SERVER_VERSION;

/// The kinds of tables: streams, and what the chain itself knows.
const TABLE: &str = "TABLE";
const SYSTEM_TABLE: &str = "SYSTEM TABLE";

fn failed(error: impl std::fmt::Display) -> QueryError {
    QueryError::internal(format!("a list of the catalogue could not be made: {error}"))
}

/// The catalogue that a session's next statement would see.
fn catalog(session: &FlightSession) -> Result<Arc<HeightCatalog>> {
    let engine = session.session.engine();
    let height = session.session.settings().as_of.unwrap_or_else(|| engine.newest());
    engine.catalog(height)
}

/// The one catalogue.
pub(super) fn catalogs() -> Result<RecordBatch> {
    let mut builder = GetCatalogsBuilder::new();
    builder.append(CATALOG);
    builder.build().map_err(failed)
}

/// The schemas that a client asks for.
pub(super) fn schemas(session: &FlightSession, command: CommandGetDbSchemas) -> Result<RecordBatch> {
    let mut builder = command.into_builder();
    for (schema, _) in catalog(session)?.names() {
        builder.append(CATALOG, schema);
    }
    builder.build().map_err(failed)
}

/// The tables that a client asks for, with their columns if it wants them.
pub(super) async fn tables(session: &FlightSession, command: CommandGetTables) -> Result<RecordBatch> {
    let mut builder = command.into_builder();
    let catalog = catalog(session)?;
    for (schema, tables) in catalog.names() {
        let kind = if schema == SYSTEM_SCHEMA { SYSTEM_TABLE } else { TABLE };
        let Some(provider) = catalog.schema(schema) else { continue };
        for table in tables {
            let columns = match builder.include_schema() {
                true => provider.table(table).await.map_err(failed)?.map(|found| found.schema()),
                false => Some(Arc::new(Schema::empty())),
            };
            let Some(columns) = columns else { continue };
            let fields: Vec<Field> = columns
                .fields()
                .iter()
                .map(|field| field.as_ref().clone().with_data_type(plain_type(field.data_type())))
                .collect();
            builder.append(CATALOG, schema, table, kind, &Schema::new(fields)).map_err(failed)?;
        }
    }
    builder.build().map_err(failed)
}

/// The kinds of tables there are.
pub(super) fn table_types(command: CommandGetTableTypes) -> Result<RecordBatch> {
    let mut builder = command.into_builder();
    builder.append(TABLE);
    builder.append(SYSTEM_TABLE);
    builder.build().map_err(failed)
}

fn texts(names: &[&str]) -> Vec<Field> {
    names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect()
}

/// The columns of an answer about primary keys (FlightSql.proto, `CommandGetPrimaryKeys`).
pub(super) static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("key_name", DataType::Utf8, true),
    ]))
});

/// The columns of an answer about foreign keys (FlightSql.proto, `CommandGetExportedKeys` and its like).
static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let mut fields = texts(&["pk_catalog_name", "pk_db_schema_name"]);
    fields.extend(["pk_table_name", "pk_column_name"].map(|name| Field::new(name, DataType::Utf8, false)));
    fields.extend(texts(&["fk_catalog_name", "fk_db_schema_name"]));
    fields.extend(["fk_table_name", "fk_column_name"].map(|name| Field::new(name, DataType::Utf8, false)));
    fields.push(Field::new("key_sequence", DataType::Int32, false));
    fields.extend(texts(&["fk_key_name", "pk_key_name"]));
    fields.extend(["update_rule", "delete_rule"].map(|name| Field::new(name, DataType::UInt8, false)));
    Arc::new(Schema::new(fields))
});

/// The key of a table: a stream's record is named by its partition and offset, and by nothing else.
pub(super) fn primary_keys(session: &FlightSession, command: &CommandGetPrimaryKeys) -> Result<RecordBatch> {
    let asked = |schema: &str| command.db_schema.as_deref().is_none_or(|wanted| wanted == schema);
    let catalog = catalog(session)?;
    let here = command.catalog.as_deref().is_none_or(|wanted| wanted == CATALOG);
    let schemas: Vec<&str> = catalog
        .names()
        .iter()
        .filter(|(schema, tables)| here && schema != SYSTEM_SCHEMA && asked(schema) && tables.contains(&command.table))
        .map(|(schema, _)| schema.as_str())
        .collect();
    let rows: Vec<(&str, &str, i32)> =
        schemas.iter().flat_map(|schema| [(*schema, "_partition", 1), (*schema, "_offset", 2)]).collect();
    let same = |text: &str| Arc::new(StringArray::from(vec![text; rows.len()]));
    let batch = RecordBatch::try_new(
        Arc::clone(&PRIMARY_KEYS),
        vec![
            same(CATALOG),
            Arc::new(rows.iter().map(|(schema, ..)| Some(*schema)).collect::<StringArray>()),
            same(&command.table),
            Arc::new(rows.iter().map(|(_, column, _)| Some(*column)).collect::<StringArray>()),
            Arc::new(rows.iter().map(|(.., place)| Some(*place)).collect::<Int32Array>()),
            same("record"),
        ],
    );
    batch.map_err(failed)
}

/// No stream refers to another by a key.
pub(super) fn foreign_keys() -> RecordBatch {
    RecordBatch::new_empty(Arc::clone(&FOREIGN_KEYS))
}

/// What the server can do.
static SQL_INFO: LazyLock<std::result::Result<SqlInfoData, FlightError>> = LazyLock::new(|| {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Cairn");
    info.append(SqlInfo::FlightSqlServerVersion, SERVER_VERSION);
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    for (ability, has) in [
        (SqlInfo::FlightSqlServerReadOnly, true),
        (SqlInfo::FlightSqlServerSql, true),
        (SqlInfo::FlightSqlServerSubstrait, false),
        (SqlInfo::FlightSqlServerCancel, false),
        (SqlInfo::FlightSqlServerBulkIngestion, false),
        (SqlInfo::SqlDdlCatalog, false),
        (SqlInfo::SqlDdlSchema, false),
        (SqlInfo::SqlDdlTable, false),
        (SqlInfo::SqlAllTablesAreSelectable, true),
        (SqlInfo::SqlSupportsColumnAliasing, true),
        (SqlInfo::SqlNullPlusNullIsNull, true),
        (SqlInfo::SqlSelectForUpdateSupported, false),
        (SqlInfo::SqlStoredProceduresSupported, false),
        (SqlInfo::SqlCorrelatedSubqueriesSupported, true),
    ] {
        info.append(ability, has);
    }
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::SqlIdentifierCase, i64::from(SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32));
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(
        SqlInfo::SqlQuotedIdentifierCase,
        i64::from(SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32),
    );
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlCatalogTerm, "database");
    info.build()
});

/// What the server can do, in the answer's form.
pub(super) fn sql_info() -> Result<&'static SqlInfoData> {
    SQL_INFO.as_ref().map_err(failed)
}

/// The SQL types of columns.
static TYPES: LazyLock<std::result::Result<XdbcTypeInfoData, FlightError>> = LazyLock::new(|| {
    let mut types = XdbcTypeInfoDataBuilder::new();
    for (name, data_type, size, quoted) in [
        ("boolean", XdbcDataType::XdbcBit, 1, false),
        ("smallint", XdbcDataType::XdbcSmallint, 16, false),
        ("integer", XdbcDataType::XdbcInteger, 32, false),
        ("bigint", XdbcDataType::XdbcBigint, 64, false),
        ("real", XdbcDataType::XdbcReal, 24, false),
        ("double precision", XdbcDataType::XdbcDouble, 53, false),
        ("numeric", XdbcDataType::XdbcDecimal, 38, false),
        ("text", XdbcDataType::XdbcVarchar, i32::MAX, true),
        ("bytea", XdbcDataType::XdbcVarbinary, i32::MAX, true),
        ("date", XdbcDataType::XdbcDate, 10, true),
        ("time", XdbcDataType::XdbcTime, 15, true),
        ("timestamp", XdbcDataType::XdbcTimestamp, 32, true),
    ] {
        types.append(type_info(name, data_type, size, quoted));
    }
    types.build()
});

/// The SQL types of columns, in the answer's form.
pub(super) fn types() -> Result<&'static XdbcTypeInfoData> {
    TYPES.as_ref().map_err(failed)
}

fn type_info(name: &str, data_type: XdbcDataType, size: i32, quoted: bool) -> XdbcTypeInfo {
    let quote = quoted.then(|| "'".to_owned());
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type,
        column_size: Some(size),
        literal_prefix: quote.clone(),
        literal_suffix: quote,
        create_params: None,
        nullable: Nullable::NullabilityNullable,
        case_sensitive: data_type == XdbcDataType::XdbcVarchar,
        searchable: Searchable::Full,
        unsigned_attribute: (!quoted).then_some(false),
        fixed_prec_scale: false,
        auto_increment: Some(false),
        local_type_name: Some(name.to_owned()),
        minimum_scale: None,
        maximum_scale: None,
        sql_data_type: data_type,
        datetime_subcode: None,
        num_prec_radix: (!quoted).then_some(2),
        interval_precision: None,
    }
}
