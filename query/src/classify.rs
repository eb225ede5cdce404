//! From the engine's errors to [`QueryError`]s: what happened, whose fault it is, what to do.
//!
//! The order matters. A refused read is looked for first and anywhere in the chain of causes, since on its way up it
//! is wrapped as an error of Parquet, of Arrow and of the engine, each of which says something less.

use arrow_schema::ArrowError;
use cairn_anchor::verified::{Kind, VerifyError};
use datafusion::common::SchemaError;
use datafusion::common::utils::datafusion_strsim::levenshtein;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

use crate::catalog::segments::ForeignSegment;
use crate::catalog::{CATALOG, HeightCatalog};
use crate::error::{QueryError, QueryErrorKind, SqlState};
use crate::problems::Problem;

/// How many names a hint lists when none is near.
const NAMES_LISTED: usize = 12;
/// How deep causes are followed.
const CAUSES_MAX: usize = 32;

const RESTORE: &str = "do not use earlier copies of this answer; restore the object from a backup and run cairn audit";

/// Makes an error of the engine into ours.
pub(crate) fn classify(error: &DataFusionError, catalog: &HeightCatalog) -> QueryError {
    if let Some(refused) = refusal(error, catalog) {
        return refused;
    }
    engine_error(error, catalog, 0)
}

/// A refused read, wherever it hides. What does not verify goes on the list of problems.
fn refusal(error: &DataFusionError, catalog: &HeightCatalog) -> Option<QueryError> {
    let error: &(dyn std::error::Error + 'static) = error;
    if let Some(refused) = VerifyError::find(error) {
        if refused.kind() == Kind::Corrupted {
            let block = catalog.block_of(&refused.stream, refused.partition.0, refused.first.0);
            catalog.problems().met(Problem::refused(refused, block));
        }
        let (kind, state, hint) = match refused.kind() {
            Kind::Corrupted => (QueryErrorKind::Corrupted, SqlState::DATA_CORRUPTED, RESTORE),
            Kind::Unavailable => {
                (QueryErrorKind::Unavailable, SqlState::IO_ERROR, "the object store did not answer; try again")
            }
            Kind::Request => (
                QueryErrorKind::Internal,
                SqlState::INTERNAL,
                "this is a defect of the query role; please report it with the statement",
            ),
        };
        return Some(QueryError::new(kind, state, refused.to_string()).with_hint(hint));
    }
    let mut next = Some(error);
    for _ in 0..CAUSES_MAX {
        let cause = next?;
        if let Some(foreign) = cause.downcast_ref::<ForeignSegment>() {
            let block = catalog.block_of(&foreign.stream, foreign.partition, foreign.first);
            catalog.problems().met(Problem::foreign(foreign, block));
            let error = QueryError::new(QueryErrorKind::Corrupted, SqlState::DATA_CORRUPTED, foreign.to_string());
            return Some(error.with_hint("the anchorer signed a false name; tell the stream's owner"));
        }
        next = cause.source();
    }
    None
}

fn engine_error(error: &DataFusionError, catalog: &HeightCatalog, depth: usize) -> QueryError {
    let text = || error.strip_backtrace();
    if depth > CAUSES_MAX {
        return QueryError::internal(text());
    }
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => {
            engine_error(inner, catalog, depth + 1)
        }
        DataFusionError::Shared(inner) => engine_error(inner, catalog, depth + 1),
        DataFusionError::Collection(all) => match all.first() {
            Some(first) => engine_error(first, catalog, depth + 1),
            None => QueryError::internal(text()),
        },
        DataFusionError::SQL(parser, _) => syntax(parser),
        DataFusionError::SchemaError(schema, _) => schema_error(schema),
        DataFusionError::Plan(message) => plan_error(message, catalog),
        DataFusionError::NotImplemented(message) => {
            QueryError::statement(SqlState::FEATURE_NOT_SUPPORTED, first_line(message))
        }
        DataFusionError::ResourcesExhausted(message) => {
            QueryError::limit(SqlState::OUT_OF_MEMORY, "the statement needs more memory than it may use")
                .with_detail(first_line(message))
                .with_hint("narrow it by _partition, _block or _timestamp, or raise memory_limit_mib")
        }
        DataFusionError::ArrowError(arrow, _) => arrow_error(arrow),
        DataFusionError::Configuration(message) => {
            QueryError::statement(SqlState::INVALID_PARAMETER_VALUE, first_line(message))
        }
        DataFusionError::Execution(message) => QueryError::statement(SqlState::DATA_EXCEPTION, first_line(message)),
        DataFusionError::External(inner) => match inner.downcast_ref::<DataFusionError>() {
            Some(inner) => engine_error(inner, catalog, depth + 1),
            None => match (inner.downcast_ref::<QueryError>(), inner.downcast_ref::<ArrowError>()) {
                (Some(ours), _) => ours.clone(),
                (None, Some(arrow)) => arrow_error(arrow),
                (None, None) => QueryError::internal(text()),
            },
        },
        _ => QueryError::internal(text()),
    }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim_end().to_owned()
}

fn syntax(error: &ParserError) -> QueryError {
    match error {
        ParserError::RecursionLimitExceeded => {
            QueryError::limit(SqlState::TOO_COMPLEX, "the statement nests too deep to be planned")
        }
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => {
            QueryError::statement(SqlState::SYNTAX_ERROR, format!("syntax error: {text}"))
        }
    }
}

fn schema_error(error: &SchemaError) -> QueryError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
            let wanted = field
                .relation
                .as_ref()
                .map_or_else(|| field.name.clone(), |relation| format!("{}.{}", relation.table(), field.name));
            let error =
                QueryError::statement(SqlState::UNDEFINED_COLUMN, format!("column \"{wanted}\" does not exist"));
            match hint(&field.name, &names, "columns") {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => QueryError::statement(
            SqlState::AMBIGUOUS_COLUMN,
            format!("column reference \"{}\" is ambiguous", field.name),
        )
        .with_hint("write it with its table, as table.column"),
        other => QueryError::statement(SqlState::AMBIGUOUS_COLUMN, other.to_string()),
    }
}

fn plan_error(message: &str, catalog: &HeightCatalog) -> QueryError {
    if let Some(name) = quoted_after(message, "table '").filter(|_| message.contains("' not found")) {
        return unknown_table(&name, catalog);
    }
    if let Some(name) = message.strip_prefix("Table not found: ") {
        return unknown_table(name, catalog);
    }
    if let Some(name) = quoted_after(message, "Invalid function '") {
        let error = QueryError::statement(SqlState::UNDEFINED_FUNCTION, format!("function {name} does not exist"));
        return match quoted_after(message, "Did you mean '") {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error,
        };
    }
    if let Some(name) = quoted_after(message, "table function '") {
        return QueryError::statement(SqlState::UNDEFINED_FUNCTION, format!("function {name} does not exist"));
    }
    if message.contains("No value found for placeholder") || message.contains("laceholder type") {
        return QueryError::statement(SqlState::UNDEFINED_PARAMETER, first_line(message));
    }
    QueryError::statement(SqlState::INVALID_PLAN, first_line(message))
}

fn quoted_after(message: &str, prefix: &str) -> Option<String> {
    let rest = &message[message.find(prefix)? + prefix.len()..];
    Some(rest[..rest.find('\'')?].to_owned())
}

fn unknown_table(name: &str, catalog: &HeightCatalog) -> QueryError {
    let short = name.strip_prefix(&format!("{CATALOG}.")).unwrap_or(name);
    let short = short.strip_prefix("public.").unwrap_or(short);
    let error = QueryError::statement(SqlState::UNDEFINED_TABLE, format!("relation \"{short}\" does not exist"));
    let all: Vec<String> = catalog
        .names()
        .iter()
        .flat_map(|(schema, tables)| tables.iter().map(move |table| format!("{schema}.{table}")))
        .collect();
    // A name without a schema that exists in one is the likeliest slip of all.
    if let Some(full) = all.iter().find(|full| full.split_once('.').is_some_and(|(_, table)| table == short)) {
        return error.with_hint(format!("did you mean {full}?"));
    }
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    match hint(short, &names, "tables") {
        Some(hint) => error.with_hint(format!("{hint} (as of block {})", catalog.height().0)),
        None => error,
    }
}

/// The nearest of `names`, or a list of them when none is near.
fn hint(wanted: &str, names: &[&str], what: &str) -> Option<String> {
    let wanted_lower = wanted.to_lowercase();
    let near = names
        .iter()
        .map(|name| (levenshtein(&wanted_lower, &name.to_lowercase()), *name))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= (wanted.chars().count() / 3).max(2));
    if let Some((_, name)) = near {
        return Some(format!("did you mean {name}?"));
    }
    if names.is_empty() {
        return None;
    }
    let mut unique: Vec<&str> = Vec::new();
    for name in names {
        if !unique.contains(name) {
            unique.push(name);
        }
    }
    let listed = unique.iter().take(NAMES_LISTED).copied().collect::<Vec<_>>().join(", ");
    let more = if unique.len() > NAMES_LISTED { ", …" } else { "" };
    Some(format!("there are the {what} {listed}{more}"))
}

fn arrow_error(error: &ArrowError) -> QueryError {
    let text = error.to_string();
    match error {
        ArrowError::DivideByZero => QueryError::statement(SqlState::DIVISION_BY_ZERO, "division by zero"),
        ArrowError::ArithmeticOverflow(_) => QueryError::statement(SqlState::OUT_OF_RANGE, text),
        ArrowError::CastError(_) | ArrowError::ParseError(_) => QueryError::statement(SqlState::INVALID_TEXT, text),
        ArrowError::InvalidArgumentError(_) | ArrowError::ComputeError(_) => {
            QueryError::statement(SqlState::DATA_EXCEPTION, text)
        }
        ArrowError::NotYetImplemented(_) => QueryError::statement(SqlState::FEATURE_NOT_SUPPORTED, text),
        _ => QueryError::internal(text),
    }
}
