//! Simple and extended queries of one connection.
//!
//! A prepared statement is planned when it is parsed, to know its parameters and columns, and planned again when it is
//! executed, so that it sees the height it runs at. Before rows that come from the chain the client hears the height:
//! a notice for people, and the parameter `cairn.height` for programs.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use cairn_proof::units::Height;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler, send_describe_response};
use datafusion_postgres::pgwire::api::results::{DescribePortalResponse, FieldInfo, Response, Tag};
use datafusion_postgres::pgwire::api::stmt::QueryParser;
use datafusion_postgres::pgwire::api::store::{Entry, PortalStore};
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, Type};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::copy::{CopyData, CopyDone, CopyOutResponse};
use datafusion_postgres::pgwire::messages::extendedquery::{Describe, Execute, TARGET_TYPE_BYTE_PORTAL};
use datafusion_postgres::pgwire::messages::response::{NoticeResponse, TransactionStatus};
use datafusion_postgres::pgwire::messages::simplequery::Query;
use datafusion_postgres::pgwire::messages::startup::ParameterStatus;
use datafusion_postgres::pgwire::types::format::FormatOptions;
use futures::stream::BoxStream;
use futures::{Sink, SinkExt, StreamExt as _};
use tokio::sync::watch;

use super::copy;
use super::encode::{self, asked_to_stop};
use super::errors;
use super::parameters::{self, Parameter};
use super::startup::{Cancellable, Cancels, Startup};
use crate::engine::Engine;
use crate::error::{QueryError, SqlState};
use crate::session::{Outcome, Session};
use crate::statement::{Action, Statement};

/// The parameter that tells programs the height of the last answer.
const HEIGHT_PARAMETER: &str = "cairn.height";

/// The parameter that tells programs what evidence of the last answer can be asked for by.
const EVIDENCE_PARAMETER: &str = "cairn.evidence_id";

/// Settings whose changes clients are told of, by the names that Postgres gives them.
const REPORTED: [(&str, &str); 9] = [
    ("application_name", "application_name"),
    ("bytea_output", "bytea_output"),
    ("client_encoding", "client_encoding"),
    ("datestyle", "DateStyle"),
    ("extra_float_digits", "extra_float_digits"),
    ("intervalstyle", "IntervalStyle"),
    ("search_path", "search_path"),
    ("standard_conforming_strings", "standard_conforming_strings"),
    ("timezone", "TimeZone"),
];

/// The handlers of one connection.
#[derive(Debug)]
pub(super) struct Handlers {
    pub(super) startup: Arc<Startup>,
    pub(super) queries: Arc<Queries>,
}

impl Handlers {
    pub(super) fn new(engine: Engine, cancels: Arc<Cancels>, full: bool) -> Self {
        Self { startup: Arc::new(Startup { engine, cancels, full }), queries: Arc::new(Queries) }
    }
}

/// Runs what a connection asks for, in the connection's session.
#[derive(Debug)]
pub(super) struct Queries;

/// A prepared statement.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    statement: Arc<Statement>,
    parameters: Arc<Vec<Parameter>>,
    /// The columns of its rows, if it has any.
    columns: Option<SchemaRef>,
}

fn session_of<C: ClientInfo + ?Sized>(client: &C) -> PgWireResult<Arc<Session>> {
    client
        .session_extensions()
        .get::<Session>()
        .ok_or_else(|| errors::fatal(QueryError::internal("the connection has no session")))
}

fn cancels_of<C: ClientInfo + ?Sized>(client: &C) -> PgWireResult<watch::Receiver<u64>> {
    client
        .session_extensions()
        .get::<Cancellable>()
        .map(|cancellable| cancellable.heard_from_now())
        .ok_or_else(|| errors::fatal(QueryError::internal("the connection cannot be cancelled")))
}

/// After an error inside a transaction only its end is accepted, as in Postgres.
fn check_transaction<C: ClientInfo + ?Sized>(client: &C, statement: &Statement) -> PgWireResult<()> {
    let failed = client.transaction_status() == TransactionStatus::Error;
    if failed && !matches!(statement.action, Action::End { .. } | Action::RollbackTo) {
        return Err(errors::error(QueryError::statement(
            SqlState::FAILED_TRANSACTION,
            "current transaction is aborted, commands ignored until end of transaction block",
        )));
    }
    let idle = client.transaction_status() == TransactionStatus::Idle;
    if idle && (statement.action.tag() == "SAVEPOINT" || matches!(statement.action, Action::RollbackTo)) {
        let name = statement.action.tag();
        return Err(errors::error(QueryError::statement(
            SqlState("25P01"),
            format!("{name} can only be used in transaction blocks"),
        )));
    }
    Ok(())
}

impl Queries {
    /// Runs one statement and makes its answer, with what the client hears before it.
    async fn answer<C>(
        client: &mut C,
        statement: &Statement,
        bound: Option<datafusion::common::ParamValues>,
        format: &Format,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        check_transaction(client, statement)?;
        let session = session_of(client)?;
        let mut cancelled = cancels_of(client)?;
        let outcome = tokio::select! {
            biased;
            () = asked_to_stop(&mut cancelled) => Err(QueryError::cancelled()),
            outcome = session.execute(statement, bound) => outcome,
        };
        match outcome.map_err(errors::error)? {
            Outcome::Rows(rows) => {
                if rows.of_chain {
                    tell_height(client, &session, rows.height).await?;
                }
                if let Some(id) = &rows.evidence {
                    tell_evidence(client, &session, id).await?;
                }
                for warning in &rows.warnings {
                    tell(client, "WARNING", "01000", warning.clone()).await?;
                }
                let options = FormatOptions::from_client_metadata(client.metadata());
                let tag = match &statement.action {
                    Action::Fetch { .. } => "FETCH",
                    Action::Show { .. } => "SHOW",
                    _ => "SELECT",
                };
                if let Action::Copy { form, .. } = &statement.action {
                    let (columns, lines) = copy::lines(rows, form, options, cancelled)?;
                    return send_copy(client, columns, lines).await;
                }
                encode::response(rows, tag, format, options, cancelled).map(Response::Query)
            }
            Outcome::Done(tag) => {
                let failed = client.transaction_status() == TransactionStatus::Error;
                match &statement.action {
                    Action::Begin => Ok(Response::TransactionStart(Tag::new(tag))),
                    Action::End { .. } if failed => Ok(Response::TransactionEnd(Tag::new("ROLLBACK"))),
                    Action::End { .. } => Ok(Response::TransactionEnd(Tag::new(tag))),
                    Action::Set { name, .. } => {
                        tell_setting(client, &session, name).await?;
                        Ok(Response::Execution(Tag::new(tag)))
                    }
                    Action::ResetAll { .. } => {
                        for (name, _) in REPORTED {
                            tell_setting(client, &session, name).await?;
                        }
                        Ok(Response::Execution(Tag::new(tag)))
                    }
                    _ => Ok(Response::Execution(Tag::new(tag))),
                }
            }
        }
    }
}

/// Sends the lines of a copy. Not left to pgwire, which tells a failure on the way by a message that only clients may send.
async fn send_copy<C>(
    client: &mut C,
    columns: i16,
    mut lines: BoxStream<'static, PgWireResult<CopyData>>,
) -> PgWireResult<Response>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let formats = vec![0; usize::try_from(columns).unwrap_or_default()];
    let begin = CopyOutResponse::new(0, columns, formats);
    client.send(PgWireBackendMessage::CopyOutResponse(begin)).await?;
    let mut sent = 0;
    while let Some(line) = lines.next().await {
        client.feed(PgWireBackendMessage::CopyData(line?)).await?;
        sent += 1;
    }
    client.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
    Ok(Response::Execution(Tag::new("COPY").with_rows(sent)))
}

/// Says at which height the rows that follow are computed.
async fn tell_height<C>(client: &mut C, session: &Session, height: Height) -> PgWireResult<()>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let height = height.0.to_string();
    if client.metadata().get(HEIGHT_PARAMETER) != Some(&height) {
        client.metadata_mut().insert(HEIGHT_PARAMETER.to_owned(), height.clone());
        let status = ParameterStatus::new(HEIGHT_PARAMETER.to_owned(), height.clone());
        client.feed(PgWireBackendMessage::ParameterStatus(status)).await?;
    }
    if session.settings().wants_notices() {
        tell(client, "NOTICE", "00000", format!("cairn: computed at block {height}")).await?;
    }
    Ok(())
}

/// Says what evidence of the rows that follow can be asked for by.
async fn tell_evidence<C>(client: &mut C, session: &Session, id: &str) -> PgWireResult<()>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let status = ParameterStatus::new(EVIDENCE_PARAMETER.to_owned(), id.to_owned());
    client.feed(PgWireBackendMessage::ParameterStatus(status)).await?;
    if session.settings().wants_notices() {
        let message = format!("cairn: evidence {id}; once the rows are read: SELECT cairn_evidence('{id}')");
        tell(client, "NOTICE", "00000", message).await?;
    }
    Ok(())
}

/// Says something beside the answer.
async fn tell<C>(client: &mut C, severity: &str, state: &str, message: String) -> PgWireResult<()>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let notice = ErrorInfo::new(severity.to_owned(), state.to_owned(), message);
    client.feed(PgWireBackendMessage::NoticeResponse(NoticeResponse::from(notice))).await?;
    Ok(())
}

/// Tells the client the new value of a setting that it follows, and keeps it for the form of values.
async fn tell_setting<C>(client: &mut C, session: &Session, name: &str) -> PgWireResult<()>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let name = crate::settings::canonical(name);
    let Some((_, reported)) = REPORTED.iter().find(|(setting, _)| *setting == name) else {
        return Ok(());
    };
    let value = session.settings().show(name, session.engine().config(), session.height()).map_err(errors::error)?;
    client.metadata_mut().insert(name.to_owned(), value.clone());
    let status = ParameterStatus::new((*reported).to_owned(), value);
    client.feed(PgWireBackendMessage::ParameterStatus(status)).await?;
    Ok(())
}

/// Lets a transaction that failed go on: to be called before `ROLLBACK TO` is answered.
fn recover<C: ClientInfo + ?Sized>(client: &mut C, statement: &Statement) {
    if matches!(statement.action, Action::RollbackTo) && client.transaction_status() == TransactionStatus::Error {
        client.set_transaction_status(TransactionStatus::Transaction);
    }
}

#[async_trait]
impl SimpleQueryHandler for Queries {
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if client.transaction_status() == TransactionStatus::Error
            && let Ok(statements) = session_of(client)?.parse(&query.query)
            && let [statement] = statements.as_slice()
        {
            recover(client, statement);
        }
        self._on_query(client, query).await
    }

    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statements = session_of(client)?.parse(query).map_err(errors::error)?;
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        if statements.len() > 1 && statements.iter().any(|statement| matches!(statement.action, Action::Copy { .. })) {
            // Its lines go out as they come, and the answers before it only when all are made.
            return Err(errors::error(QueryError::statement(
                SqlState::FEATURE_NOT_SUPPORTED,
                "COPY has to be sent by itself, not together with other statements",
            )));
        }
        let mut answers = Vec::with_capacity(statements.len());
        for statement in &statements {
            match Self::answer(client, statement, None, &Format::UnifiedText).await {
                Ok(answer) => answers.push(answer),
                // What was answered before stays answered; what would come after does not run.
                Err(PgWireError::UserError(error)) if !answers.is_empty() => {
                    answers.push(Response::Error(error));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Queries {
    type Statement = Prepared;
    type QueryParser = Self;

    fn query_parser(&self) -> Arc<Self::QueryParser> {
        Arc::new(Self)
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Self::Statement>,
        _max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement;
        let bound = parameters::values(portal, &prepared.parameters)?;
        let wanted = prepared.parameters.len();
        if portal.parameter_len() != wanted {
            return Err(errors::error(QueryError::statement(
                SqlState("08P01"),
                format!(
                    "bind message supplies {} parameters, but the prepared statement requires {wanted}",
                    portal.parameter_len()
                ),
            )));
        }
        Self::answer(client, &prepared.statement, bound, &portal.result_column_format).await
    }

    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let portal = client.portal_store().get_portal(message.name.as_deref().unwrap_or(DEFAULT_NAME));
        if let Some(Entry::Value(portal)) = portal {
            recover(client, &portal.statement.statement.statement);
        }
        self._on_execute(client, message).await
    }

    /// A cursor is a portal of its name, which drivers ask about before they fetch from it.
    async fn on_describe<C>(&self, client: &mut C, message: Describe) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let portal = message.name.as_deref().filter(|_| message.target_type == TARGET_TYPE_BYTE_PORTAL);
        if let Some(name) = portal
            && client.portal_store().get_portal(name).is_none()
            && let Some(columns) = session_of(client)?.cursor_columns(name).await
        {
            let fields = encode::fields(&columns, &Format::UnifiedText, None)?;
            return send_describe_response(client, &DescribePortalResponse::new(fields)).await;
        }
        self._on_describe(client, message).await
    }
}

#[async_trait]
impl QueryParser for Queries {
    type Statement = Prepared;

    async fn parse_sql<C>(
        &self,
        client: &C,
        sql: &str,
        _types: &[Option<Type>],
    ) -> PgWireResult<Option<Self::Statement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let session = session_of(client)?;
        let mut statements = session.parse(sql).map_err(errors::error)?.into_iter();
        let Some(statement) = statements.next() else {
            return Ok(None);
        };
        if statements.next().is_some() {
            return Err(errors::error(QueryError::statement(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            )));
        }
        check_transaction(client, &statement)?;
        let (parameters, columns) = session.describe(&statement).await.map_err(errors::error)?;
        Ok(Some(Prepared { statement: Arc::new(statement), parameters: Arc::new(parameters), columns }))
    }

    fn get_parameter_types(&self, prepared: &Self::Statement) -> PgWireResult<Vec<Type>> {
        Ok(prepared.parameters.iter().map(|parameter| parameter.wire.clone()).collect())
    }

    fn get_result_schema(&self, prepared: &Self::Statement, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        match &prepared.columns {
            Some(columns) => encode::fields(columns, format.unwrap_or(&Format::UnifiedText), None),
            None => Ok(Vec::new()),
        }
    }
}

impl Session {
    /// The parameters and columns of a statement, without running it.
    pub(crate) async fn describe(
        &self,
        statement: &Statement,
    ) -> crate::error::Result<(Vec<Parameter>, Option<SchemaRef>)> {
        match &statement.action {
            Action::Read(ast) => {
                let plan = self.plan_now(ast, statement.as_of).await?;
                let parameters = parameters::of_plan(&plan).map_err(|error| self.classified(&error))?;
                Ok((parameters, Some(Arc::new(plan.schema().as_arrow().clone()))))
            }
            Action::Show { name } => {
                let column = Field::new(crate::settings::canonical(name), DataType::Utf8, false);
                Ok((Vec::new(), Some(Arc::new(Schema::new(vec![column])))))
            }
            Action::Fetch { name, .. } => Ok((Vec::new(), self.cursor_columns(name).await)),
            Action::Declare { query, .. } | Action::Copy { query, .. } => {
                let plan = self.plan_now(query, statement.as_of).await?;
                let parameters = parameters::of_plan(&plan).map_err(|error| self.classified(&error))?;
                Ok((parameters, None))
            }
            _ => Ok((Vec::new(), None)),
        }
    }
}
