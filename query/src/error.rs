//! What can go wrong with a statement, said so that a person or a program knows what to do next.
//!
//! A [`QueryError`] has a [`QueryErrorKind`] (what the caller should do), a SQLSTATE (what a Postgres client
//! branches on), a message that names what was expected and found, and, where one is known, a hint. The text of
//! the engine below is kept where it helps and replaced where it would mislead: a failed proof, for instance,
//! arrives wrapped in three layers of "Parquet error", and leaves here as the one sentence that matters.
//!
//! This module does not decide what is an error: [`crate::classify`] turns the engine's errors into these.

use std::fmt;
use std::time::Duration;

use cairn_proof::units::Height;

/// What the one who sent the statement should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueryErrorKind {
    /// The statement is wrong: correct it.
    Statement,
    /// The statement asks for something that this server never does (writes, files, unknown settings).
    NotAllowed,
    /// The statement ran into a limit: make it smaller, or raise the limit in the configuration.
    Limit,
    /// The client asked for the statement to be stopped.
    Cancelled,
    /// Stored bytes do not match what the chain finalized: do not use them; tell the operator.
    Corrupted,
    /// Something needed is not there at the moment: try again.
    Unavailable,
    /// A defect of this program.
    Internal,
}

impl QueryErrorKind {
    /// The label of this kind in `cairn_query_statements_total{outcome}`.
    pub fn outcome(self) -> &'static str {
        match self {
            Self::Statement => "invalid",
            Self::NotAllowed => "refused",
            Self::Limit => "limit",
            Self::Cancelled => "cancelled",
            Self::Corrupted => "corrupted",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

/// A five-character error code of the SQL standard, with Postgres' own additions.
///
/// Source: PostgreSQL documentation, appendix A, "PostgreSQL Error Codes".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub &'static str);

impl SqlState {
    /// `syntax_error`
    pub const SYNTAX_ERROR: Self = Self("42601");
    /// `undefined_table`
    pub const UNDEFINED_TABLE: Self = Self("42P01");
    /// `undefined_column`
    pub const UNDEFINED_COLUMN: Self = Self("42703");
    /// `ambiguous_column`
    pub const AMBIGUOUS_COLUMN: Self = Self("42702");
    /// `undefined_function`
    pub const UNDEFINED_FUNCTION: Self = Self("42883");
    /// `undefined_object`, also an unknown setting
    pub const UNDEFINED_OBJECT: Self = Self("42704");
    /// `undefined_parameter`
    pub const UNDEFINED_PARAMETER: Self = Self("42P02");
    /// `syntax_error_or_access_rule_violation`, for plans that make no sense
    pub const INVALID_PLAN: Self = Self("42000");
    /// `insufficient_privilege`
    pub const INSUFFICIENT_PRIVILEGE: Self = Self("42501");
    /// `feature_not_supported`
    pub const FEATURE_NOT_SUPPORTED: Self = Self("0A000");
    /// `read_only_sql_transaction`
    pub const READ_ONLY: Self = Self("25006");
    /// `in_failed_sql_transaction`
    pub const FAILED_TRANSACTION: Self = Self("25P02");
    /// `invalid_parameter_value`
    pub const INVALID_PARAMETER_VALUE: Self = Self("22023");
    /// `invalid_text_representation`
    pub const INVALID_TEXT: Self = Self("22P02");
    /// `data_exception`
    pub const DATA_EXCEPTION: Self = Self("22000");
    /// `division_by_zero`
    pub const DIVISION_BY_ZERO: Self = Self("22012");
    /// `numeric_value_out_of_range`
    pub const OUT_OF_RANGE: Self = Self("22003");
    /// `insufficient_resources`
    pub const INSUFFICIENT_RESOURCES: Self = Self("53000");
    /// `out_of_memory`
    pub const OUT_OF_MEMORY: Self = Self("53200");
    /// `invalid_password`
    pub const INVALID_PASSWORD: Self = Self("28P01");
    /// `invalid_authorization_specification`
    pub const INVALID_AUTHORIZATION: Self = Self("28000");
    /// `too_many_connections`
    pub const TOO_MANY_CONNECTIONS: Self = Self("53300");
    /// `program_limit_exceeded`
    pub const PROGRAM_LIMIT: Self = Self("54000");
    /// `statement_too_complex`
    pub const TOO_COMPLEX: Self = Self("54001");
    /// `object_not_in_prerequisite_state`
    pub const OBJECT_NOT_READY: Self = Self("55000");
    /// `query_canceled`
    pub const QUERY_CANCELED: Self = Self("57014");
    /// `cannot_connect_now`
    pub const NOT_READY: Self = Self("57P03");
    /// `io_error`
    pub const IO_ERROR: Self = Self("58030");
    /// `internal_error`
    pub const INTERNAL: Self = Self("XX000");
    /// `data_corrupted`
    pub const DATA_CORRUPTED: Self = Self("XX001");
    /// `invalid_cursor_name`
    pub const UNDEFINED_CURSOR: Self = Self("34000");
    /// `duplicate_cursor`
    pub const DUPLICATE_CURSOR: Self = Self("42P03");
}

impl fmt::Display for SqlState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

/// Why a statement gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    /// What the caller should do.
    pub kind: QueryErrorKind,
    /// The code that Postgres clients branch on.
    pub state: SqlState,
    /// What went wrong, with what was expected and what was found.
    pub message: String,
    /// What to do about it, if that is known.
    pub hint: Option<String>,
    /// The evidence, if the message alone does not carry it.
    pub detail: Option<String>,
}

/// The result of everything that runs statements.
pub type Result<T, E = QueryError> = std::result::Result<T, E>;

impl QueryError {
    /// An error of `kind` with a message.
    pub fn new(kind: QueryErrorKind, state: SqlState, message: impl Into<String>) -> Self {
        Self { kind, state, message: message.into(), hint: None, detail: None }
    }

    /// The statement is wrong.
    pub fn statement(state: SqlState, message: impl Into<String>) -> Self {
        Self::new(QueryErrorKind::Statement, state, message)
    }

    /// The statement asks for what this server never does.
    pub fn not_allowed(state: SqlState, message: impl Into<String>) -> Self {
        Self::new(QueryErrorKind::NotAllowed, state, message)
    }

    /// The statement ran into a limit.
    pub fn limit(state: SqlState, message: impl Into<String>) -> Self {
        Self::new(QueryErrorKind::Limit, state, message)
    }

    /// A defect of this program.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(QueryErrorKind::Internal, SqlState::INTERNAL, message)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the evidence.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// A statement asked for block `asked`, but the chain is known up to `newest` only.
    pub(crate) fn height_not_known(asked: Height, newest: Height) -> Self {
        Self::statement(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("block {} is not known yet: the newest finalized block here is {}", asked.0, newest.0),
        )
        .with_hint(format!("choose a height of at most {}, or wait until block {} is finalized", newest.0, asked.0))
    }

    /// The newest block that is known here is older than the client accepts.
    pub(crate) fn stale(newest: Height, age: Duration, most: Duration) -> Self {
        Self::new(
            QueryErrorKind::Unavailable,
            SqlState::NOT_READY,
            format!(
                "the newest finalized block here, {}, is {} ms old; cairn.max_staleness allows {} ms",
                newest.0,
                age.as_millis(),
                most.as_millis()
            ),
        )
        .with_hint("try again when this node has caught up, name a height with AS OF, or allow more staleness")
    }

    /// The statement took longer than it may.
    pub(crate) fn timed_out(limit: Duration) -> Self {
        Self::limit(
            SqlState::QUERY_CANCELED,
            format!(
                "canceling statement due to statement timeout: it ran for {} ms",
                limit.as_millis()
            ),
        )
        .with_hint("narrow the statement by _partition, _block or _timestamp, or SET statement_timeout within the server's limit")
    }

    /// Other statements ran for as long as this one would have waited.
    pub(crate) fn no_turn(most: u32) -> Self {
        Self::limit(
            SqlState::INSUFFICIENT_RESOURCES,
            format!("{most} statements run already, as many as statements_max allows, and none ended in time"),
        )
        .with_hint("try again later, or raise statements_max under [query]")
    }

    /// A statement handed out as much as it may.
    pub(crate) fn too_much_out(what: &str, key: &str, most: u64) -> Self {
        Self::limit(SqlState::PROGRAM_LIMIT, format!("the answer has more {what} than {key} = {most} allows"))
            .with_hint("narrow the statement, or raise the limit under [query]")
    }

    /// The client sent a cancel request.
    pub(crate) fn cancelled() -> Self {
        Self::new(QueryErrorKind::Cancelled, SqlState::QUERY_CANCELED, "canceling statement due to user request")
    }
}
