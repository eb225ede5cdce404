//! What clients write about the catalogue, in words that the engine knows. Nothing here touches what is asked of records.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, AccessExpr, DataType, Expr, FunctionArguments, Statement as Ast, Value, visit_expressions_mut,
};

/// Rewrites statements that read nothing but the system catalogues.
///
/// Roles, privileges, options and policies are arrays in Postgres, and none is ever set here: an array that is made from a
/// subquery over them, or the text of one, becomes NULL.
pub(super) fn rewrite(mut statements: Vec<Ast>) -> Vec<Ast> {
    let _ = visit_expressions_mut(&mut statements, |expression| {
        if is_never_set(expression) {
            *expression = null_text();
        }
        ControlFlow::<()>::Continue(())
    });
    statements.into_iter().map(fields).collect()
}

/// `(column).field` as Postgres writes it, for `column['field']`.
pub(super) fn fields(mut statement: Ast) -> Ast {
    let _ = visit_expressions_mut(&mut statement, |expression| {
        if let Expr::CompoundFieldAccess { access_chain, .. } = expression {
            for access in access_chain {
                if let AccessExpr::Dot(Expr::Identifier(field)) = access {
                    let name = match field.quote_style {
                        Some(_) => field.value.clone(),
                        None => field.value.to_ascii_lowercase(),
                    };
                    *access = AccessExpr::Dot(Expr::Value(Value::SingleQuotedString(name).into()));
                }
            }
        }
        ControlFlow::<()>::Continue(())
    });
    statement
}

fn is_never_set(expression: &Expr) -> bool {
    let Expr::Function(function) = expression else { return false };
    let name = function.name.to_string().to_ascii_lowercase();
    match name.strip_prefix("pg_catalog.").unwrap_or(&name) {
        "array" => matches!(function.args, FunctionArguments::Subquery(_)),
        "array_to_string" => {
            let about = function.args.to_string().to_ascii_lowercase();
            ["acl", "options", "config"].iter().any(|set| about.contains(set))
        }
        _ => false,
    }
}

fn null_text() -> Expr {
    Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(Expr::Value(Value::Null.into())),
        data_type: DataType::Text,
        array: false,
        format: None,
    }
}
