//! Fields of records that are null: null, whatever lies beneath.
//!
//! Arrow keeps a value under a null record and says that it means nothing; Parquet's reader puts a zero there when the
//! field itself may not be null. DataFusion's `get_field` hands that zero out: `meter['place']['lat']` of a meter without
//! a place is 0.0. Here each step of a path takes over the nulls of the record it steps into.
//!
//! The rule replaces `get_field` in every plan before it is optimized.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::compute::nullif;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::functions::core::getfield::GetFieldFunc;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExpressionPlacement, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, StructFieldMapping,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;

/// Puts [`MaskedGetField`] where plans have `get_field`.
#[derive(Debug)]
pub(crate) struct MaskNullRecords {
    masked: Arc<ScalarUDF>,
}

impl MaskNullRecords {
    pub(crate) fn new() -> Self {
        Self { masked: Arc::new(ScalarUDF::new_from_impl(MaskedGetField(GetFieldFunc::new()))) }
    }
}

impl AnalyzerRule for MaskNullRecords {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let replaced = plan.transform_up_with_subqueries(|node| {
            node.map_expressions(|expression| {
                expression.transform_up(|expression| {
                    Ok(match expression {
                        Expr::ScalarFunction(call) if call.func.inner().is::<GetFieldFunc>() => {
                            let masked = ScalarFunction::new_udf(Arc::clone(&self.masked), call.args);
                            Transformed::yes(Expr::ScalarFunction(masked))
                        }
                        other => Transformed::no(other),
                    })
                })
            })
        })?;
        Ok(replaced.data)
    }

    fn name(&self) -> &str {
        "mask_null_records"
    }
}

/// `get_field` that gives null for a field of a null record.
#[derive(Debug, PartialEq, Eq, Hash)]
struct MaskedGetField(GetFieldFunc);

impl ScalarUDFImpl for MaskedGetField {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        self.0.schema_name(arguments)
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.0.return_type(arguments)
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.0.return_field_from_args(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(arguments)
    }

    fn placement(&self, arguments: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.0.placement(arguments)
    }

    fn struct_field_mapping(&self, arguments: &[Option<ScalarValue>]) -> Option<StructFieldMapping> {
        self.0.struct_field_mapping(arguments)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some((base, path)) = arguments.args.split_first() else {
            return self.0.invoke_with_args(arguments);
        };
        let mut current = base.clone();
        for name in path {
            let nulls = record_nulls(&current)?;
            let step = ScalarFunctionArgs {
                args: vec![current, name.clone()],
                arg_fields: arguments.arg_fields.clone(),
                number_rows: arguments.number_rows,
                return_field: Arc::clone(&arguments.return_field),
                config_options: Arc::clone(&arguments.config_options),
            };
            current = match self.0.invoke_with_args(step)? {
                ColumnarValue::Array(values) => ColumnarValue::Array(masked(values, nulls.as_ref())?),
                scalar => scalar,
            };
        }
        Ok(current)
    }
}

/// Which rows of a record are null, if any.
fn record_nulls(record: &ColumnarValue) -> Result<Option<NullBuffer>> {
    if !matches!(record.data_type(), DataType::Struct(_)) {
        return Ok(None);
    }
    let array = match record {
        ColumnarValue::Array(array) => Arc::clone(array),
        ColumnarValue::Scalar(scalar) => scalar.to_array()?,
    };
    Ok(array.nulls().filter(|nulls| nulls.null_count() > 0).cloned())
}

fn masked(values: ArrayRef, nulls: Option<&NullBuffer>) -> Result<ArrayRef> {
    match nulls {
        Some(nulls) if nulls.len() == values.len() => {
            let hidden = BooleanArray::new(!nulls.inner(), None);
            Ok(nullif(values.as_ref(), &hidden)?)
        }
        _ => Ok(values),
    }
}
