//! `COPY … TO STDOUT`: a query whose rows a client takes as text, to save them. It reaches no file and no program here.

use datafusion::sql::sqlparser::ast::{self, CopyOption, CopySource, CopyTarget, Statement as Ast};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::{Action, only_reads, refusal, syntax_error};
use crate::error::{QueryError, Result, SqlState};

/// How rows are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopyForm {
    /// Comma-separated values, in place of Postgres' own text.
    pub(crate) csv: bool,
    /// Whether the first line has the columns' names.
    pub(crate) header: bool,
    pub(crate) delimiter: u8,
    /// What a null is written as.
    pub(crate) null: String,
}

/// A COPY statement, if it is one that only hands out rows.
pub(super) fn action(statement: &Ast) -> Result<Action> {
    let Ast::Copy { source, to: true, target: CopyTarget::Stdout, options, legacy_options, values } = statement else {
        return Err(refusal(statement));
    };
    if !values.is_empty() {
        return Err(refusal(statement));
    }
    let form = form(options, legacy_options)?;
    let query = match source {
        CopySource::Query(query) => Ast::Query(query.clone()),
        CopySource::Table { table_name, columns } => {
            let names: Vec<String> = columns.iter().map(ToString::to_string).collect();
            let names = if names.is_empty() { "*".to_owned() } else { names.join(", ") };
            let text = format!("SELECT {names} FROM {table_name}");
            let parsed = Parser::parse_sql(&PostgreSqlDialect {}, &text).map_err(syntax_error)?;
            parsed.into_iter().next().ok_or_else(|| refusal(statement))?
        }
    };
    only_reads(&query)?;
    Ok(Action::Copy { query: Box::new(query), form })
}

fn form(options: &[CopyOption], legacy: &[ast::CopyLegacyOption]) -> Result<CopyForm> {
    let (mut csv, mut header, mut delimiter, mut null) = (false, false, None, None);
    for option in options {
        match option {
            CopyOption::Format(name) if name.value.eq_ignore_ascii_case("csv") => csv = true,
            CopyOption::Format(name) if name.value.eq_ignore_ascii_case("text") => csv = false,
            CopyOption::Header(on) => header = *on,
            CopyOption::Delimiter(found) => delimiter = Some(*found),
            CopyOption::Null(text) => null = Some(text.clone()),
            CopyOption::Encoding(name) if name.eq_ignore_ascii_case("utf8") => {}
            other => return Err(unsupported(&other.to_string())),
        }
    }
    for option in legacy {
        match option {
            ast::CopyLegacyOption::Csv(more) => {
                csv = true;
                for option in more {
                    match option {
                        ast::CopyLegacyCsvOption::Header => header = true,
                        other => return Err(unsupported(&other.to_string())),
                    }
                }
            }
            ast::CopyLegacyOption::Header => header = true,
            ast::CopyLegacyOption::Delimiter(found) => delimiter = Some(*found),
            ast::CopyLegacyOption::Null(text) => null = Some(text.clone()),
            other => return Err(unsupported(&other.to_string())),
        }
    }
    let delimiter = delimiter.unwrap_or(if csv { ',' } else { '\t' });
    let null = null.unwrap_or_else(|| if csv { String::new() } else { "\\N".to_owned() });
    let byte = u8::try_from(delimiter).ok().filter(|byte| byte.is_ascii() && !b"\r\n\"\\".contains(byte));
    let byte = byte.ok_or_else(|| unsupported(&format!("DELIMITER {delimiter:?}")))?;
    if null.len() > 64 || null.contains(['\r', '\n', delimiter]) {
        return Err(unsupported("this NULL text"));
    }
    Ok(CopyForm { csv, header, delimiter: byte, null })
}

fn unsupported(what: &str) -> QueryError {
    QueryError::not_allowed(SqlState::FEATURE_NOT_SUPPORTED, format!("COPY … TO STDOUT with {what} is not supported"))
        .with_hint(
            "options are FORMAT text or csv, HEADER, DELIMITER and NULL; Arrow and Parquet: `cairn sql --output`",
        )
}
