//! Errors in the form that Postgres clients take.

use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};

use crate::error::QueryError;

/// The longest text of an error that is sent; the protocol's frames allow 30,000 bytes in all.
const TEXT_BYTES_MAX: usize = 4_096;

/// A statement's error: the connection lives on.
pub(super) fn error(error: QueryError) -> PgWireError {
    report("ERROR", error)
}

/// An error that ends the connection.
pub(super) fn fatal(error: QueryError) -> PgWireError {
    report("FATAL", error)
}

fn report(severity: &str, error: QueryError) -> PgWireError {
    PgWireError::UserError(Box::new(info(severity, error)))
}

fn info(severity: &str, error: QueryError) -> ErrorInfo {
    let mut info = ErrorInfo::new(severity.to_owned(), error.state.0.to_owned(), shortened(error.message));
    info.hint = error.hint.map(shortened);
    info.detail = error.detail.map(shortened);
    info
}

/// An error may quote the statement, and a statement may be long.
fn shortened(text: String) -> String {
    shortened_to(text, TEXT_BYTES_MAX)
}

/// The beginning of a text, cut where a character ends.
pub(crate) fn shortened_to(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
    text
}
