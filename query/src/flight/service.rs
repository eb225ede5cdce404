//! The calls of Flight SQL, over the sessions of [`super::sessions`].
//!
//! ```text
//! GetFlightInfo(statement) ─▶ parsed, planned: height, columns ─▶ FlightInfo with a ticket (height, statement)
//! DoGet(ticket)            ─▶ parsed, planned at the ticket's height, run ─▶ rows
//! DoPut(statement)         ─▶ SET and the like, which have no rows
//! ```
//!
//! A statement without rows (`SET`, `BEGIN`, …) is run when it is asked about, since clients that only have a call for
//! queries ask so; its ticket then gives nothing.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{DoPutError, FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementQuery, CommandStatementUpdate,
    DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, Ticket as FlightTicket,
};
use bytes::Bytes;
use cairn_proof::units::Height;
use datafusion::common::ParamValues;
use futures::{Stream, stream};
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use super::encode::{self, HEIGHT_KEY, Messages};
use super::prepared::{self, Prepared};
use super::sessions::{Connection, FlightSession};
use super::status::{protocol, status};
use super::tickets::Ticket;
use super::{metadata, options};
use crate::error::{QueryError, Result as QueryResult, SqlState};
use crate::session::Outcome;
use crate::statement::{Action as StatementAction, Statement};

type Answer<T> = Result<Response<T>, Status>;

/// Answers calls.
#[derive(Debug, Clone)]
pub(super) struct FlightCalls {
    message_bytes_max: usize,
}

/// The session of a call, which must be let in before anything else of it is looked at.
fn session<T>(request: &Request<T>) -> Result<Arc<FlightSession>, Status> {
    session_and_token(request).map(|(_, session, _)| session)
}

fn session_and_token<T>(request: &Request<T>) -> Result<(Arc<Connection>, Arc<FlightSession>, String), Status> {
    let connection = request.extensions().get::<Arc<Connection>>();
    let connection = connection.ok_or_else(|| status(QueryError::internal("a call came without a connection")))?;
    let (session, token) = connection.session(request.metadata()).map_err(status)?;
    Ok((Arc::clone(connection), session, token))
}

/// The one statement in a text.
fn one_statement(session: &FlightSession, sql: &str) -> QueryResult<Statement> {
    let mut statements = session.session.parse(sql)?.into_iter();
    match (statements.next(), statements.next()) {
        (Some(statement), None) => check_kind(statement),
        (None, _) => Err(QueryError::statement(SqlState::SYNTAX_ERROR, "the statement is empty")),
        (Some(_), Some(_)) => {
            Err(QueryError::statement(SqlState::SYNTAX_ERROR, "there is more than one statement: send them one by one"))
        }
    }
}

fn check_kind(statement: Statement) -> QueryResult<Statement> {
    match statement.action {
        StatementAction::Declare { .. } | StatementAction::Fetch { .. } | StatementAction::Close { .. } => {
            Err(QueryError::not_allowed(SqlState::FEATURE_NOT_SUPPORTED, "there are no cursors over Flight SQL")
                .with_hint("run the query itself: its rows come as a stream"))
        }
        StatementAction::Copy { .. } => {
            Err(QueryError::not_allowed(SqlState::FEATURE_NOT_SUPPORTED, "there is no COPY over Flight SQL")
                .with_hint("run the query itself: its rows come as a stream"))
        }
        _ => Ok(statement),
    }
}

/// Whether a statement has rows.
const fn has_rows(statement: &Statement) -> bool {
    matches!(statement.action, StatementAction::Read(_) | StatementAction::Show { .. })
}

/// A statement that is computed at a height, unless it names one itself.
fn at(mut statement: Statement, height: Height) -> Statement {
    if matches!(statement.action, StatementAction::Read(_)) {
        statement.as_of = statement.as_of.or(Some(height));
    }
    statement
}

/// Runs a statement that has no rows.
async fn run_without_rows(session: &FlightSession, statement: &Statement) -> QueryResult<()> {
    match session.execute(statement, None).await? {
        Outcome::Done(_) => Ok(()),
        Outcome::Rows(_) => Err(QueryError::internal("a statement without rows has some")),
    }
}

/// Runs a statement and gives its rows.
async fn rows(session: &Arc<FlightSession>, statement: &Statement, bound: Option<ParamValues>) -> Answer<Messages> {
    match session.execute(statement, bound).await.map_err(status)? {
        Outcome::Rows(rows) => Ok(encode::response(rows, Arc::clone(session))),
        Outcome::Done(_) => Ok(encode::nothing()),
    }
}

fn info(schema: &Schema, ticket: Bytes, descriptor: FlightDescriptor, height: Option<Height>) -> Answer<FlightInfo> {
    let mut info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(|error| status(QueryError::internal(error.to_string())))?
        .with_endpoint(FlightEndpoint::new().with_ticket(FlightTicket::new(ticket)))
        .with_descriptor(descriptor);
    if let Some(height) = height {
        info = info.with_app_metadata(format!("{{\"{HEIGHT_KEY}\":{}}}", height.0));
    }
    Ok(Response::new(info))
}

/// The FlightInfo of a question about the catalogue, whose ticket is the question itself.
fn info_of_command(request: Request<FlightDescriptor>, schema: &Schema) -> Answer<FlightInfo> {
    let descriptor = request.into_inner();
    let ticket = descriptor.cmd.clone();
    info(schema, ticket, descriptor, None)
}

fn info_of_ticket(
    columns: Option<SchemaRef>,
    height: Height,
    ticket: &Ticket,
    descriptor: FlightDescriptor,
) -> Answer<FlightInfo> {
    let handle = TicketStatementQuery { statement_handle: ticket.encode().into() };
    let schema = match columns {
        Some(columns) => encode::wire_schema(&columns, Some(height), &[]),
        None => Arc::new(Schema::empty()),
    };
    info(&schema, handle.as_any().encode_to_vec().into(), descriptor, Some(height))
}

impl FlightCalls {
    pub(super) const fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max }
    }

    async fn prepare(&self, session: &FlightSession, sql: &str) -> QueryResult<(u64, Prepared)> {
        let statement = one_statement(session, &prepared::numbered(sql))?;
        let (parameters, columns) = session.alone(session.session.describe(&statement)).await?;
        let prepared = Prepared {
            statement: Arc::new(statement),
            parameters: Arc::new(parameters),
            columns: columns.map(|columns| encode::wire_schema(&columns, None, &[])),
            bound: None,
        };
        let handle = session.prepared.keep(prepared.clone())?;
        Ok((handle, prepared))
    }

    async fn get(&self, session: Arc<FlightSession>, ticket: Ticket) -> Answer<Messages> {
        match ticket {
            Ticket::Nothing => Ok(encode::nothing()),
            Ticket::Statement { height, sql } => {
                let statement = one_statement(&session, &sql).map_err(status)?;
                rows(&session, &at(statement, height), None).await
            }
            Ticket::Prepared { height, handle } => {
                let prepared = session.prepared.get(handle).map_err(status)?;
                let bound = prepared.values().map_err(status)?;
                rows(&session, &at(Statement::clone(&prepared.statement), height), bound).await
            }
        }
    }

    /// What a statement that is asked about will give, and at which height.
    async fn describe(
        &self,
        session: &FlightSession,
        statement: &Statement,
    ) -> QueryResult<(Option<SchemaRef>, Height)> {
        session
            .alone(async {
                let (_, columns) = session.session.describe(statement).await?;
                let height = statement.as_of.unwrap_or_else(|| session.session.height());
                Ok((columns, height))
            })
            .await
    }
}

#[tonic::async_trait]
impl FlightSqlService for FlightCalls {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Answer<std::pin::Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>> {
        let (_, _, token) = session_and_token(&request)?;
        let answer = HandshakeResponse { protocol_version: 0, payload: Bytes::from(token.clone()) };
        let mut response = Response::new(Box::pin(stream::iter([Ok(answer)])) as _);
        // Clients go on with the token that this header gives them: their own, or a word where none is asked for.
        let token = if token.is_empty() { "none".to_owned() } else { token };
        let bearer = format!("Bearer {token}").parse();
        let bearer = bearer.map_err(|_| status(QueryError::internal("a login token is no header value")))?;
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let session = session(&request)?;
        let statement = one_statement(&session, &query.query).map_err(status)?;
        if !has_rows(&statement) {
            run_without_rows(&session, &statement).await.map_err(status)?;
            return info_of_ticket(None, session.session.height(), &Ticket::Nothing, request.into_inner());
        }
        let (columns, height) = self.describe(&session, &statement).await.map_err(status)?;
        let ticket = Ticket::Statement { height, sql: query.query };
        info_of_ticket(columns, height, &ticket, request.into_inner())
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        let session = session(&request)?;
        let handle = prepared::handle(&query.prepared_statement_handle)?;
        let prepared = session.prepared.get(handle).map_err(status)?;
        if !has_rows(&prepared.statement) {
            run_without_rows(&session, &prepared.statement).await.map_err(status)?;
            return info_of_ticket(None, session.session.height(), &Ticket::Nothing, request.into_inner());
        }
        let (columns, height) = self.describe(&session, &prepared.statement).await.map_err(status)?;
        info_of_ticket(columns, height, &Ticket::Prepared { height, handle }, request.into_inner())
    }

    async fn get_flight_info_catalogs(
        &self,
        _: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        session(&request)?;
        info_of_command(request, &metadata::catalogs().map_err(status)?.schema())
    }

    async fn get_flight_info_schemas(
        &self,
        command: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        session(&request)?;
        info_of_command(request, &command.into_builder().schema())
    }

    async fn get_flight_info_tables(
        &self,
        command: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        session(&request)?;
        info_of_command(request, &command.into_builder().schema())
    }

    async fn get_flight_info_table_types(
        &self,
        command: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        session(&request)?;
        info_of_command(request, &command.into_builder().schema())
    }

    async fn get_flight_info_sql_info(
        &self,
        _: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        session(&request)?;
        info_of_command(request, &metadata::sql_info().map_err(status)?.schema())
    }

    async fn get_flight_info_primary_keys(
        &self,
        _: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        session(&request)?;
        info_of_command(request, &metadata::PRIMARY_KEYS)
    }

    async fn get_flight_info_exported_keys(
        &self,
        _: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        session(&request)?;
        info_of_command(request, &metadata::foreign_keys().schema())
    }

    async fn get_flight_info_imported_keys(
        &self,
        _: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        session(&request)?;
        info_of_command(request, &metadata::foreign_keys().schema())
    }

    async fn get_flight_info_cross_reference(
        &self,
        _: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        session(&request)?;
        info_of_command(request, &metadata::foreign_keys().schema())
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        _: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Answer<FlightInfo> {
        session(&request)?;
        info_of_command(request, &metadata::types().map_err(status)?.schema())
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<FlightTicket>,
    ) -> Answer<<Self as FlightService>::DoGetStream> {
        let session = session(&request)?;
        let ticket = Ticket::decode(&ticket.statement_handle).map_err(|error| protocol(error.to_string()))?;
        self.get(session, ticket).await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightTicket>,
    ) -> Answer<<Self as FlightService>::DoGetStream> {
        let session = session(&request)?;
        let handle = prepared::handle(&query.prepared_statement_handle)?;
        let prepared = session.prepared.get(handle).map_err(status)?;
        let bound = prepared.values().map_err(status)?;
        rows(&session, &prepared.statement, bound).await
    }

    async fn do_get_catalogs(
        &self,
        _: CommandGetCatalogs,
        request: Request<FlightTicket>,
    ) -> Answer<<Self as FlightService>::DoGetStream> {
        session(&request)?;
        metadata::catalogs().map(encode::batch).map_err(status)
    }

    async fn do_get_schemas(
        &self,
        command: CommandGetDbSchemas,
        request: Request<FlightTicket>,
    ) -> Answer<<Self as FlightService>::DoGetStream> {
        let session = session(&request)?;
        metadata::schemas(&session, command).map(encode::batch).map_err(status)
    }

    async fn do_get_tables(
        &self,
        command: CommandGetTables,
        request: Request<FlightTicket>,
    ) -> Answer<<Self as FlightService>::DoGetStream> {
        let session = session(&request)?;
        metadata::tables(&session, command).await.map(encode::batch).map_err(status)
    }

    async fn do_get_table_types(
        &self,
        command: CommandGetTableTypes,
        request: Request<FlightTicket>,
    ) -> Answer<<Self as FlightService>::DoGetStream> {
        session(&request)?;
        metadata::table_types(command).map(encode::batch).map_err(status)
    }

    async fn do_get_sql_info(
        &self,
        command: CommandGetSqlInfo,
        request: Request<FlightTicket>,
    ) -> Answer<<Self as FlightService>::DoGetStream> {
        session(&request)?;
        let info = metadata::sql_info().map_err(status)?;
        let batch = command.into_builder(info).build();
        batch.map(encode::batch).map_err(|error| protocol(error.to_string()))
    }

    async fn do_get_primary_keys(
        &self,
        command: CommandGetPrimaryKeys,
        request: Request<FlightTicket>,
    ) -> Answer<<Self as FlightService>::DoGetStream> {
        let session = session(&request)?;
        metadata::primary_keys(&session, &command).map(encode::batch).map_err(status)
    }

    async fn do_get_exported_keys(
        &self,
        _: CommandGetExportedKeys,
        request: Request<FlightTicket>,
    ) -> Answer<<Self as FlightService>::DoGetStream> {
        session(&request)?;
        Ok(encode::batch(metadata::foreign_keys()))
    }

    async fn do_get_imported_keys(
        &self,
        _: CommandGetImportedKeys,
        request: Request<FlightTicket>,
    ) -> Answer<<Self as FlightService>::DoGetStream> {
        session(&request)?;
        Ok(encode::batch(metadata::foreign_keys()))
    }

    async fn do_get_cross_reference(
        &self,
        _: CommandGetCrossReference,
        request: Request<FlightTicket>,
    ) -> Answer<<Self as FlightService>::DoGetStream> {
        session(&request)?;
        Ok(encode::batch(metadata::foreign_keys()))
    }

    async fn do_get_xdbc_type_info(
        &self,
        command: CommandGetXdbcTypeInfo,
        request: Request<FlightTicket>,
    ) -> Answer<<Self as FlightService>::DoGetStream> {
        session(&request)?;
        let types = metadata::types().map_err(status)?;
        let batch = command.into_builder(types).build();
        batch.map(encode::batch).map_err(|error| protocol(error.to_string()))
    }

    async fn do_put_error_callback(
        &self,
        request: Request<PeekableFlightDataStream>,
        error: DoPutError,
    ) -> Answer<<Self as FlightService>::DoPutStream> {
        session(&request)?;
        Err(protocol(format!("DoPut: {error}")))
    }

    async fn do_put_statement_update(
        &self,
        command: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let session = session(&request)?;
        let statement = one_statement(&session, &command.query).map_err(status)?;
        check_without_rows(&statement).map_err(status)?;
        run_without_rows(&session, &statement).await.map_err(status)?;
        Ok(0)
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let session = session(&request)?;
        let handle = prepared::handle(&query.prepared_statement_handle)?;
        let values = prepared::values(request.into_inner(), self.message_bytes_max).await?;
        session.prepared.bind(handle, &values).map_err(status)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(query.prepared_statement_handle) })
    }

    async fn do_put_prepared_statement_update(
        &self,
        query: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let session = session(&request)?;
        let handle = prepared::handle(&query.prepared_statement_handle)?;
        let prepared = session.prepared.get(handle).map_err(status)?;
        check_without_rows(&prepared.statement).map_err(status)?;
        run_without_rows(&session, &prepared.statement).await.map_err(status)?;
        Ok(0)
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let session = session(&request)?;
        let (handle, prepared) = self.prepare(&session, &query.query).await.map_err(status)?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.to_be_bytes().to_vec().into(),
            dataset_schema: prepared.columns.as_ref().map_or(Ok(Bytes::new()), |it| encode::schema_bytes(it))?,
            parameter_schema: match prepared.parameters.is_empty() {
                true => Bytes::new(),
                false => encode::schema_bytes(&prepared.parameter_schema())?,
            },
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        session(&request)?.prepared.close(prepared::handle(&query.prepared_statement_handle)?);
        Ok(())
    }

    async fn do_action_fallback(&self, request: Request<Action>) -> Answer<<Self as FlightService>::DoActionStream> {
        let (connection, session, token) = session_and_token(&request)?;
        let action = request.into_inner();
        let body = match action.r#type.as_str() {
            options::SET => options::set(&session.session, &action.body)?,
            options::GET => options::get(&session.session),
            options::CLOSE => {
                connection.forget(&token);
                options::closed()
            }
            _ => return Err(Status::unimplemented("there is no such action; ListActions names those there are")),
        };
        let answer = arrow_flight::Result { body: body.into() };
        Ok(Response::new(Box::pin(stream::iter([Ok(answer)]))))
    }

    // What the server can do does not change while it runs.
    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}

fn check_without_rows(statement: &Statement) -> QueryResult<()> {
    if has_rows(statement) {
        return Err(QueryError::statement(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("{} has rows: run it as a query, not as an update", statement.action.tag()),
        ));
    }
    Ok(())
}
