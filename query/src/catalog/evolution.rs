//! Segments that were written under an older schema of their stream, read as the newest one has it.
//!
//! DataFusion's own adapter casts a column that had another type and puts null where there was no column. What it does not
//! know is that a field's default stands for it: a value that lacks the field gets that when it is decoded, so the segments
//! before have it too. Which changes a schema can make so that both say the same is `cairn_ingest`'s to check, before the
//! chain is told.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::{Field, SchemaRef};
use arrow_schema::ArrowError;
use cairn_anchor::schema;
use cairn_proof::statement::StreamDefinition;
use datafusion::common::{Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory, replace_columns_with_literals,
};

/// What stands in columns that a segment does not have, by name; null where nothing is named.
#[derive(Debug, Clone, Default)]
pub(crate) struct Defaults(Arc<HashMap<String, ScalarValue>>);

impl Defaults {
    /// Those of a stream's newest schema.
    pub(crate) fn of(definition: &StreamDefinition) -> Result<Self> {
        let defaults = schema::defaults(definition).map_err(|error| {
            DataFusionError::Plan(format!("stream {} has no usable schema: {error}", definition.name))
        })?;
        let scalar = |(name, value): (String, ArrayRef)| Ok((name, ScalarValue::try_from_array(&value, 0)?));
        Ok(Self(Arc::new(defaults.into_iter().map(scalar).collect::<Result<_>>()?)))
    }

    /// The column of a field that the rows lack.
    pub(crate) fn column(&self, field: &Field, rows: usize) -> Result<ArrayRef, ArrowError> {
        match self.0.get(field.name()) {
            Some(value) => value.to_array_of_size(rows).map_err(|error| ArrowError::ExternalError(Box::new(error))),
            None => Ok(new_null_array(field.data_type(), rows)),
        }
    }

    /// What brings a scan's expressions into the schema of each file; nothing where DataFusion's own does.
    pub(crate) fn adapter(&self) -> Option<Arc<dyn PhysicalExprAdapterFactory>> {
        (!self.0.is_empty()).then(|| Arc::new(self.clone()) as Arc<dyn PhysicalExprAdapterFactory>)
    }
}

impl PhysicalExprAdapterFactory for Defaults {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let missing = self.0.iter().filter(|(name, _)| file.field_with_name(name).is_err());
        let missing = missing.map(|(name, value)| (name.clone(), value.clone())).collect();
        let rest = DefaultPhysicalExprAdapterFactory.create(table, file)?;
        Ok(Arc::new(Filled { missing, rest }))
    }
}

/// Puts defaults where one file has no column, and leaves the rest to DataFusion.
#[derive(Debug)]
struct Filled {
    missing: HashMap<String, ScalarValue>,
    rest: Arc<dyn PhysicalExprAdapter>,
}

impl PhysicalExprAdapter for Filled {
    fn rewrite(&self, expression: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        self.rest.rewrite(replace_columns_with_literals(expression, &self.missing)?)
    }
}
