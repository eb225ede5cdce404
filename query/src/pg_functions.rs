//! Functions of Postgres that its clients call about the catalogue, and that neither the engine nor
//! `datafusion-pg-catalog` has: each answers what is true of a server that has no indexes, comments, functions or
//! privileges of its own.
//!
//! What it is not: a place for functions that say something about records. Most of these are constants.

use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::prelude::SessionContext;

use crate::settings::SERVER_VERSION;

/// What a function answers, whatever it is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Constant {
    True,
    False,
    NoText,
    NoNumber,
    NoTime,
    /// `(x, n)`: an element of an array and its place.
    NoElement,
    Version,
}

/// All of them are to be seen, for there is one search path that matters to nobody: names come with their schema.
const VISIBLE: [&str; 12] = [
    "pg_collation_is_visible",
    "pg_conversion_is_visible",
    "pg_function_is_visible",
    "pg_opclass_is_visible",
    "pg_operator_is_visible",
    "pg_opfamily_is_visible",
    "pg_statistics_obj_is_visible",
    "pg_ts_config_is_visible",
    "pg_ts_dict_is_visible",
    "pg_ts_parser_is_visible",
    "pg_ts_template_is_visible",
    "pg_type_is_visible",
];

/// Rights to read, of whoever got in.
const ALLOWED: [&str; 6] = [
    "has_column_privilege",
    "has_function_privilege",
    "has_language_privilege",
    "has_sequence_privilege",
    "has_tablespace_privilege",
    "has_type_privilege",
];

const FALSE: [&str; 3] = ["pg_is_in_recovery", "pg_is_other_temp_schema", "pg_has_role"];

/// Comments, and definitions of what there is none of.
const NO_TEXT: [&str; 19] = [
    "col_description",
    "inet_client_addr",
    "inet_server_addr",
    "obj_description",
    "pg_describe_object",
    "pg_get_function_arg_default",
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_result",
    "pg_get_functiondef",
    "pg_get_indexdef",
    "pg_get_partition_constraintdef",
    "pg_get_ruledef",
    "pg_get_serial_sequence",
    "pg_get_statisticsobjdef",
    "pg_get_triggerdef",
    "pg_get_viewdef",
    "pg_tablespace_location",
    "shobj_description",
];

/// Sizes and ports, which nobody measures here: segments lie in an object store, not in relations.
const NO_NUMBER: [&str; 5] =
    ["inet_server_port", "pg_database_size", "pg_indexes_size", "pg_table_size", "pg_tablespace_size"];

const NO_TIME: [&str; 2] = ["pg_conf_load_time", "pg_postmaster_start_time"];

/// Puts them where all sessions start from.
pub(crate) fn register(context: &SessionContext) {
    let groups: [(&[&str], Constant); 7] = [
        (&VISIBLE, Constant::True),
        (&ALLOWED, Constant::True),
        (&FALSE, Constant::False),
        (&NO_TEXT, Constant::NoText),
        (&NO_NUMBER, Constant::NoNumber),
        (&NO_TIME, Constant::NoTime),
        (&["_pg_expandarray"], Constant::NoElement),
    ];
    for (names, answer) in groups {
        for name in names {
            context.register_udf(ScalarUDF::from(Answers::new(name, answer)));
        }
    }
    context.register_udf(ScalarUDF::from(Answers::new("version", Constant::Version)));
    context.register_udf(ScalarUDF::from(CurrentSetting::default()));
    context.register_udf(ScalarUDF::from(SizePretty::default()));
    context.register_udf(ScalarUDF::from(ToRegtype::default()));
}

/// A function that answers the same whatever it is asked.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Answers {
    name: &'static str,
    answer: Constant,
    signature: Signature,
}

impl Answers {
    fn new(name: &'static str, answer: Constant) -> Self {
        let any = TypeSignature::OneOf(vec![TypeSignature::Nullary, TypeSignature::VariadicAny]);
        Self { name, answer, signature: Signature::new(any, Volatility::Stable) }
    }

    fn value(&self) -> Result<ScalarValue> {
        Ok(match self.answer {
            Constant::True => ScalarValue::Boolean(Some(true)),
            Constant::False => ScalarValue::Boolean(Some(false)),
            Constant::NoText => ScalarValue::Utf8(None),
            Constant::NoNumber => ScalarValue::Int64(None),
            Constant::NoTime => ScalarValue::TimestampMicrosecond(None, Some("UTC".into())),
            Constant::NoElement => ScalarValue::try_from(&self.return_type(&[])?)?,
            Constant::Version => ScalarValue::Utf8(Some(format!(
                "PostgreSQL {SERVER_VERSION}, on Apache DataFusion {}",
                datafusion::DATAFUSION_VERSION
            ))),
        })
    }
}

impl ScalarUDFImpl for Answers {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.answer {
            Constant::True | Constant::False => DataType::Boolean,
            Constant::NoText | Constant::Version => DataType::Utf8,
            Constant::NoNumber => DataType::Int64,
            Constant::NoTime => DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into())),
            Constant::NoElement => DataType::Struct(Fields::from(vec![
                Field::new("x", DataType::Int16, true),
                Field::new("n", DataType::Int32, true),
            ])),
        })
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.value().map(ColumnarValue::Scalar)
    }
}

/// Settings that never change, which clients ask for by function.
const SETTINGS: [(&str, &str); 10] = [
    ("block_size", "8192"),
    ("data_checksums", "on"),
    ("integer_datetimes", "on"),
    ("is_superuser", "off"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("server_encoding", "UTF8"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", "160006"),
    ("transaction_read_only", "on"),
];

/// `current_setting(name [, missing_ok])`: settings that never change, and what the engine itself goes by.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CurrentSetting(Signature);

impl Default for CurrentSetting {
    fn default() -> Self {
        let (text, flag) = (DataType::Utf8, DataType::Boolean);
        let forms = vec![TypeSignature::Exact(vec![text.clone()]), TypeSignature::Exact(vec![text, flag])];
        Self(Signature::one_of(forms, Volatility::Stable))
    }
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &'static str {
        "current_setting"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = |place: usize| match arguments.args.get(place) {
            Some(ColumnarValue::Scalar(value)) => Some(value),
            _ => None,
        };
        let Some(ScalarValue::Utf8(Some(name))) = constant(0) else {
            return exec_err!("current_setting takes a name in quotes; SHOW gives what a session has set");
        };
        let known = match name.to_ascii_lowercase().as_str() {
            "search_path" => Some(arguments.config_options.catalog.default_schema.as_str()),
            "timezone" => Some(arguments.config_options.execution.time_zone.as_deref().unwrap_or("UTC")),
            name => SETTINGS.iter().find(|(setting, _)| *setting == name).map(|(_, value)| *value),
        };
        match (known, constant(1)) {
            (Some(value), _) => Ok(ColumnarValue::Scalar(ScalarValue::from(value))),
            (None, Some(ScalarValue::Boolean(Some(true)))) => Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None))),
            (None, _) => {
                let names = SETTINGS.map(|(setting, _)| setting).join(", ");
                exec_err!(
                    "current_setting('{name}') is not known: it gives search_path, timezone, {names}; SHOW gives all others"
                )
            }
        }
    }
}

/// Types that columns have, by their names and object ids.
const TYPES: [(&[&str], i32); 15] = [
    (&["boolean", "bool"], 16),
    (&["bytea"], 17),
    (&["bigint", "int8"], 20),
    (&["smallint", "int2"], 21),
    (&["integer", "int", "int4"], 23),
    (&["text"], 25),
    (&["json"], 114),
    (&["real", "float4"], 700),
    (&["double precision", "float8"], 701),
    (&["character varying", "varchar"], 1043),
    (&["date"], 1082),
    (&["time", "time without time zone"], 1083),
    (&["timestamp", "timestamp without time zone"], 1114),
    (&["timestamp with time zone", "timestamptz"], 1184),
    (&["numeric", "decimal"], 1700),
];

/// `to_regtype(name)`: the object id of a type; NULL for one that no column has.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ToRegtype(Signature);

impl Default for ToRegtype {
    fn default() -> Self {
        Self(Signature::exact(vec![DataType::Utf8], Volatility::Immutable))
    }
}

impl ScalarUDFImpl for ToRegtype {
    fn name(&self) -> &'static str {
        "to_regtype"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = ColumnarValue::values_to_arrays(&arguments.args)?;
        let names = datafusion::common::cast::as_string_array(&values[0])?;
        let ids: arrow::array::Int32Array = names.iter().map(|name| name.and_then(type_id)).collect();
        Ok(ColumnarValue::Array(std::sync::Arc::new(ids)))
    }
}

fn type_id(name: &str) -> Option<i32> {
    let name = name.trim().to_ascii_lowercase();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    TYPES.iter().find(|(names, _)| names.contains(&name)).map(|(_, id)| *id)
}

/// `pg_size_pretty(bytes)`: a size as people read it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SizePretty(Signature);

impl Default for SizePretty {
    fn default() -> Self {
        Self(Signature::exact(vec![DataType::Int64], Volatility::Immutable))
    }
}

impl ScalarUDFImpl for SizePretty {
    fn name(&self) -> &'static str {
        "pg_size_pretty"
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = ColumnarValue::values_to_arrays(&arguments.args)?;
        let sizes = datafusion::common::cast::as_int64_array(&values[0])?;
        let texts: arrow::array::StringArray = sizes.iter().map(|size| size.map(pretty)).collect();
        Ok(ColumnarValue::Array(std::sync::Arc::new(texts)))
    }
}

/// As Postgres writes sizes: the largest unit of which there are at least ten.
fn pretty(bytes: i64) -> String {
    let mut size = bytes;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if size.unsigned_abs() < 10 * 1024 {
            return format!("{size} {unit}");
        }
        size /= 1024;
    }
    format!("{size} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_postgres_does() {
        for (bytes, text) in [(0, "0 bytes"), (10_239, "10239 bytes"), (10_240, "10 kB"), (-20_480, "-20 kB")] {
            assert_eq!(pretty(bytes), text);
        }
        assert_eq!(pretty(i64::MAX), "8388607 TB");
    }

    #[test]
    fn types_are_found_by_either_name() {
        assert_eq!((type_id("Bigint"), type_id("pg_catalog.int8"), type_id("hstore")), (Some(20), Some(20), None));
    }
}
