//! Errors in the form that Flight clients take: a gRPC status, with the SQLSTATE as metadata for programs.

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::error::{QueryError, QueryErrorKind, SqlState};
use crate::wire::errors::shortened_to;

/// The metadata of a status that carries the SQLSTATE. A status without it is not an answer to a statement.
pub(super) const SQLSTATE_KEY: &str = "cairn-sqlstate";

/// The longest text of an error. Java clients take 8 KiB of headers in all, and text beyond ASCII is sent threefold.
const TEXT_BYTES_MAX: usize = 1_000;

/// The status that tells a client about an error.
pub(super) fn status(error: QueryError) -> Status {
    let code = match (error.kind, error.state) {
        (_, SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION) => Code::Unauthenticated,
        (QueryErrorKind::Limit, SqlState::QUERY_CANCELED) => Code::DeadlineExceeded,
        (QueryErrorKind::Statement, _) => Code::InvalidArgument,
        (QueryErrorKind::NotAllowed, _) => Code::PermissionDenied,
        (QueryErrorKind::Limit, _) => Code::ResourceExhausted,
        (QueryErrorKind::Cancelled, _) => Code::Cancelled,
        (QueryErrorKind::Corrupted, _) => Code::DataLoss,
        (QueryErrorKind::Unavailable, _) => Code::Unavailable,
        (QueryErrorKind::Internal, _) => Code::Internal,
    };
    let mut text = format!("{} (SQLSTATE {})", shortened_to(error.message, TEXT_BYTES_MAX), error.state);
    for (name, more) in [("detail", error.detail), ("hint", error.hint)] {
        if let Some(more) = more {
            text.push_str(&format!("\n{name}: {}", shortened_to(more, TEXT_BYTES_MAX / 2)));
        }
    }
    let mut metadata = MetadataMap::new();
    metadata.insert(SQLSTATE_KEY, MetadataValue::from_static(error.state.0));
    Status::with_metadata(code, text, metadata)
}

/// A client's message that makes no sense.
pub(super) fn protocol(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_to_do_and_carries_the_sqlstate() {
        let error = QueryError::statement(SqlState::UNDEFINED_TABLE, "relation \"x\" does not exist").with_hint("look");
        let status = status(error);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "relation \"x\" does not exist (SQLSTATE 42P01)\nhint: look");
        assert_eq!(status.metadata().get(SQLSTATE_KEY).expect("the state"), "42P01");
    }

    #[test]
    fn a_long_text_is_cut_where_a_character_ends() {
        let status = status(QueryError::internal("é".repeat(5_000)));
        assert!(status.message().len() < 1_100, "{}", status.message().len());
    }
}
