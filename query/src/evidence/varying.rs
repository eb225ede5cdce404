//! What a statement leaves open: where it is run again at the same height, it may give other rows.

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};

use crate::catalog::SYSTEM_SCHEMA;

/// What is the same within one statement, and at one height, whenever it is run.
const FIXED_BY_HEIGHT: &str = "cairn_height";

/// Whether a plan describes a statement instead of answering it.
pub(crate) fn is_explained(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_))
}

/// The first function or table of a plan that need not give the same twice.
pub(crate) fn varying(plan: &LogicalPlan) -> Option<String> {
    let mut found = None;
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && scan.table_name.schema() == Some(SYSTEM_SCHEMA)
            && scan.table_name.table() == "problems"
        {
            found.get_or_insert_with(|| "cairn.problems".to_owned());
        }
        for expression in node.expressions() {
            let _ = expression.apply(|expression| {
                if let Expr::ScalarFunction(call) = expression
                    && call.func.signature().volatility != Volatility::Immutable
                    && call.name() != FIXED_BY_HEIGHT
                {
                    found.get_or_insert_with(|| format!("{}()", call.name()));
                }
                Ok(TreeNodeRecursion::Continue)
            });
        }
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}
