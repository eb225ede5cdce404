//! The parameters of a prepared statement: which types they have, and their values.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ParamValues};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion_postgres::arrow_pg::datatypes::df::deserialize_parameters_with_server_types;
use datafusion_postgres::arrow_pg::datatypes::{PG_OID_ALIAS_KEY, into_pg_type, pg_type_for_alias_kind};
use datafusion_postgres::pgwire::api::Type;
use datafusion_postgres::pgwire::api::portal::Portal;
use datafusion_postgres::pgwire::error::PgWireResult;

/// A parameter: what the plan takes, and what the client is told to send.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub(crate) planned: Option<DataType>,
    pub(super) wire: Type,
}

/// The parameters of a plan in their order, `$1` first.
pub(super) fn of_plan(plan: &LogicalPlan) -> datafusion::error::Result<Vec<Parameter>> {
    let inferred = plan.get_parameter_types()?;
    let (casts, aliases) = hints(plan);
    let highest = inferred.keys().filter_map(|id| number(id)).max().unwrap_or(0);
    Ok((1..=highest)
        .map(|number| {
            let id = format!("${number}");
            let planned = inferred.get(&id).cloned().flatten().or_else(|| casts.get(&id).cloned());
            let wire = aliases
                .get(&id)
                .cloned()
                .or_else(|| planned.as_ref().and_then(|data_type| into_pg_type(data_type).ok()))
                .unwrap_or(Type::UNKNOWN);
            Parameter { planned, wire }
        })
        .collect())
}

fn number(id: &str) -> Option<usize> {
    id.strip_prefix('$')?.parse().ok().filter(|number| *number <= usize::from(u16::MAX))
}

/// What the statement says about its parameters besides their use: casts (`$1::int8`), and comparisons with object
/// ids of the system catalogues, which drivers send as such.
fn hints(plan: &LogicalPlan) -> (HashMap<String, DataType>, HashMap<String, Type>) {
    let mut casts = HashMap::new();
    let mut aliases = HashMap::new();
    let _ = plan.apply_with_subqueries(|node| {
        let inputs = merge_schema(&node.inputs());
        for expression in node.expressions() {
            let _ = expression.apply(|expression| {
                if let Some((id, list)) = any_of(expression, &inputs) {
                    casts.insert(id, list);
                }
                if let Expr::Cast(cast) = expression
                    && let Expr::Placeholder(placeholder) = cast.expr.as_ref()
                {
                    casts.insert(placeholder.id.clone(), cast.field.data_type().clone());
                }
                if let Expr::Placeholder(placeholder) = expression
                    && let Some(field) = &placeholder.field
                    && field.data_type() == &DataType::Int32
                    && let Some(alias) =
                        field.metadata().get(PG_OID_ALIAS_KEY).and_then(|kind| pg_type_for_alias_kind(kind))
                {
                    aliases.insert(placeholder.id.clone(), alias);
                }
                Ok(TreeNodeRecursion::Continue)
            });
        }
        Ok(TreeNodeRecursion::Continue)
    });
    (casts, aliases)
}

/// `value = ANY ($1)` is `array_has($1, value)` by now: the parameter is a list of such values.
fn any_of(expression: &Expr, inputs: &DFSchema) -> Option<(String, DataType)> {
    let Expr::ScalarFunction(call) = expression else {
        return None;
    };
    match (call.name(), call.args.as_slice()) {
        ("array_has", [Expr::Placeholder(list), value]) => {
            let item = value.get_type(inputs).ok()?;
            Some((list.id.clone(), DataType::List(Arc::new(Field::new_list_field(item, true)))))
        }
        _ => None,
    }
}

/// The values that a client bound.
pub(super) fn values<S: Clone>(portal: &Portal<S>, parameters: &[Parameter]) -> PgWireResult<Option<ParamValues>> {
    if portal.parameter_len() == 0 {
        return Ok(None);
    }
    let planned: Vec<Option<&DataType>> = parameters.iter().map(|parameter| parameter.planned.as_ref()).collect();
    let wire: Vec<Option<&Type>> = parameters.iter().map(|parameter| Some(&parameter.wire)).collect();
    deserialize_parameters_with_server_types(portal, &planned, &wire).map(Some)
}
