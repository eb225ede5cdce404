//! What clients write about the catalogue, in words that the engine knows. Nothing here touches what is asked of records.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, AccessExpr, DataType, Expr, FunctionArguments, Statement as Ast, Value, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// Rewrites statements that read nothing but the system catalogues.
///
/// Roles, privileges, options and policies are arrays in Postgres, and none is ever set here: an array that is made from a
/// subquery over them, or the text of one, becomes NULL.
pub(super) fn rewrite(mut statements: Vec<Ast>) -> Vec<Ast> {
    let _ = visit_expressions_mut(&mut statements, |expression| {
        if is_never_set(expression) {
            *expression = null_text();
        }
        escape_by_backslash(expression);
        ControlFlow::<()>::Continue(())
    });
    statements.into_iter().map(fields).collect()
}

/// `(column).field` as Postgres writes it, for `column['field']`.
pub(super) fn fields(mut statement: Ast) -> Ast {
    let _ = visit_expressions_mut(&mut statement, |expression| {
        // Only after parentheses: elsewhere the dot may stand after a table's name.
        if let Expr::CompoundFieldAccess { root, access_chain } = expression
            && matches!(root.as_ref(), Expr::Nested(_))
        {
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

/// `LIKE … ESCAPE '/'` by the one sign that the engine escapes with.
fn escape_by_backslash(expression: &mut Expr) {
    let (Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. }) = expression else {
        return;
    };
    let sign = match escape_char.as_ref().map(|found| &found.value) {
        Some(Value::SingleQuotedString(sign)) if sign != "\\" && sign.chars().count() == 1 => sign.replace('\'', "''"),
        _ => return,
    };
    let text = format!("replace(replace({pattern}, '\\', '\\\\'), '{sign}', '\\')");
    let parsed = Parser::new(&PostgreSqlDialect {}).try_with_sql(&text).and_then(|mut parser| parser.parse_expr());
    if let Ok(parsed) = parsed {
        **pattern = parsed;
        *escape_char = None;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(sql: &str) -> String {
        let parsed = Parser::parse_sql(&PostgreSqlDialect {}, sql).expect(sql);
        rewrite(parsed).remove(0).to_string()
    }

    #[test]
    fn what_is_never_set_is_null_and_other_arrays_stay() {
        assert_eq!(rewritten("SELECT ARRAY(SELECT rolname FROM pg_roles)"), "SELECT CAST(NULL AS TEXT)");
        assert_eq!(rewritten("SELECT array_to_string(n.nspacl, ',')"), "SELECT CAST(NULL AS TEXT)");
        let kept = "SELECT array_to_string(i.indkey, ',')";
        assert_eq!(rewritten(kept), kept);
    }

    #[test]
    fn another_escape_sign_becomes_a_backslash() {
        let said = rewritten("SELECT 'a' LIKE 'pg/_' ESCAPE '/'");
        assert_eq!(said, "SELECT 'a' LIKE replace(replace('pg/_', '\\', '\\\\'), '/', '\\')");
    }

    #[test]
    fn fields_are_read_after_parentheses_alone() {
        assert_eq!(rewritten("SELECT (a.Keys).N"), "SELECT (a.Keys).'n'");
        let kept = "SELECT tmp.options[tmp.place - 1]";
        assert_eq!(rewritten(kept), kept);
    }
}
