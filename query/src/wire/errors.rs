//! Errors in the form that Postgres clients take.

use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};

use crate::error::QueryError;

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

pub(super) fn info(severity: &str, error: QueryError) -> ErrorInfo {
    let mut info = ErrorInfo::new(severity.to_owned(), error.state.0.to_owned(), error.message);
    info.hint = error.hint;
    info.detail = error.detail;
    info
}
