//! A client's session: its settings, its cursors, and the height that each statement runs at.
//!
//! **Height.** In this order: the statement's own `AS OF`; the session's `cairn.as_of`; inside `BEGIN … COMMIT` the
//! height of the transaction's first statement; else the newest finalized height when the statement begins. The
//! catalogue of that height is put in place before planning, and the plan holds the tables it found, so a block that
//! arrives while a statement runs changes nothing for it.
//!
//! **Evidence.** With `cairn.evidence` on, what this node answers it also signs ([`crate::evidence`]).
//!
//! **Read-only, a second time.** What passed the allow-list of [`crate::statement`] is planned, and the plan is
//! checked once more for anything that writes.

mod running;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use cairn_proof::units::Height;
use datafusion::common::ParamValues;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as EngineStatement;
use datafusion::sql::sqlparser::ast::Statement as Ast;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::auth::{Principal, check as check_principal};
use crate::catalog::HeightCatalog;
use crate::catalog::facts::signed;
use crate::classify::classify;
use crate::clock::StatementClock;
use crate::engine::{Answer, Engine};
use crate::error::{QueryError, Result, SqlState};
use crate::evidence::{self, Asked, KeptAnswers, Of, Pending, in_order, is_explained, varying};
use crate::executor::{Guard, guarded, panic_text};
use crate::functions::CairnHeight;
use crate::pg_catalog::SessionCatalogs;
use crate::problems::now_ms;
use crate::provenance;
use crate::scope::StatementScope;
use crate::settings::Settings;
use crate::statement::{Action, Statement};

use running::{Deadline, Ready, going_down};

/// The most cursors a session may hold open.
const CURSORS_MAX: usize = 64;

/// The catalogue that a session's statement stands at.
#[derive(Debug)]
pub(crate) struct CurrentCatalog(RwLock<Arc<HeightCatalog>>);

impl CurrentCatalog {
    pub(crate) fn get(&self) -> Arc<HeightCatalog> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, catalog: Arc<HeightCatalog>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = catalog;
    }
}

/// One client's session.
pub struct Session {
    engine: Engine,
    context: SessionContext,
    current: Arc<CurrentCatalog>,
    settings: Mutex<Settings>,
    transaction: Mutex<Transaction>,
    cursors: tokio::sync::Mutex<HashMap<String, Rows>>,
    /// The last answers of which there is evidence.
    answers: Arc<KeptAnswers>,
    /// Whom it speaks for; nobody in particular for embedded use and clients that need no password.
    principal: Option<Principal>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Session").field("height", &self.height()).finish_non_exhaustive()
    }
}

/// Whether all statements see one height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transaction {
    None,
    Begun,
    At(Height),
}

/// The rows of a statement, as they come.
pub struct Rows {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows, in batches. It ends with an error if the statement fails on the way.
    pub stream: BoxStream<'static, Result<RecordBatch>>,
    /// The block height that they are computed at.
    pub height: Height,
    /// Whether they depend on the chain: false for settings, constants and the system catalogues.
    pub of_chain: bool,
    /// What must be known about the rows: what was left out, or given though it does not verify. Empty otherwise.
    pub warnings: Vec<String>,
    /// What `cairn_evidence` can be asked for, once the last row has come; none unless `cairn.evidence` is on.
    pub evidence: Option<String>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Rows")
            .field("schema", &self.schema)
            .field("height", &self.height)
            .finish_non_exhaustive()
    }
}

/// What became of a statement.
#[derive(Debug)]
pub enum Outcome {
    /// It has rows.
    Rows(Rows),
    /// It is done; a Postgres client is told this tag.
    Done(&'static str),
}

/// A query as it was sent.
#[derive(Debug, Clone, Copy)]
struct Query<'a> {
    ast: &'a Ast,
    text: &'a str,
    as_of: Option<Height>,
}

/// What a planned query is started with.
struct Start<'a> {
    asked: Asked<'a>,
    bound: Option<ParamValues>,
    deadline: Deadline,
    clock: StatementClock,
    turn: OwnedSemaphorePermit,
}

/// A statement's plan and the height that it was made at.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) plan: LogicalPlan,
    pub(crate) height: Height,
}

impl Session {
    pub(crate) fn open(engine: Engine, principal: Option<Principal>) -> Result<Self> {
        let catalog = engine.catalog(engine.newest())?;
        let current = Arc::new(CurrentCatalog(RwLock::new(catalog)));
        let catalogs = SessionCatalogs::new(Arc::clone(&current), Arc::clone(engine.static_tables()))
            .map_err(|error| QueryError::internal(error.to_string()))?;
        let state = engine.state_builder().with_catalog_list(Arc::new(catalogs)).build();
        let context = SessionContext::new_with_state(state);
        context.register_udf(CairnHeight::new(Arc::clone(&current)).into());
        Ok(Self {
            engine,
            context,
            current,
            settings: Mutex::default(),
            transaction: Mutex::new(Transaction::None),
            cursors: tokio::sync::Mutex::default(),
            answers: Arc::default(),
            principal,
        })
    }

    /// What this node signed about an answer of this session, by its id or `last`: the envelope alone, which says nothing
    /// about the chain. `cairn_evidence` gives the file that proves it offline.
    pub fn signed_answer(&self, id: &str) -> Option<Vec<u8>> {
        self.answers.get(id).map(|kept| kept.envelope.to_vec())
    }

    /// The height that the last statement ran at.
    pub fn height(&self) -> Height {
        self.current.get().height()
    }

    pub(crate) fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs one statement or several and gathers the answer of the last one that has rows.
    ///
    /// # Errors
    /// As the first statement that fails; also if the answer is larger than `answer_mib_max`.
    pub async fn sql(&self, sql: &str) -> Result<Answer> {
        let statements = self.parse(sql)?;
        if statements.is_empty() {
            return Err(QueryError::statement(SqlState::SYNTAX_ERROR, "the statement is empty"));
        }
        let mut answer = None;
        for statement in &statements {
            if let Outcome::Rows(rows) = self.execute(statement, None).await? {
                answer = Some(self.gather(rows).await?);
            }
        }
        Ok(answer.unwrap_or_else(|| Answer {
            schema: Arc::new(Schema::empty()),
            batches: Vec::new(),
            height: self.height(),
            warnings: Vec::new(),
        }))
    }

    async fn gather(&self, mut rows: Rows) -> Result<Answer> {
        let config = self.engine.config();
        let (schema, height) = (Arc::clone(&rows.schema), rows.height);
        let mut batches = Vec::new();
        let mut bytes = 0_usize;
        while let Some(batch) = rows.stream.next().await {
            let batch = batch?;
            bytes = bytes.saturating_add(batch.get_array_memory_size());
            if bytes > config.answer_bytes_max() {
                return Err(QueryError::limit(
                    SqlState::PROGRAM_LIMIT,
                    format!("the answer is larger than answer_mib_max = {}", config.answer_mib_max),
                )
                .with_hint("add a LIMIT, or connect through the Postgres port, which streams its answers"));
            }
            batches.push(batch);
        }
        Ok(Answer { schema, batches, height, warnings: rows.warnings })
    }

    /// Splits text into statements that may run.
    ///
    /// # Errors
    /// The text is not SQL, or holds a statement that is not allowed.
    pub(crate) fn parse(&self, sql: &str) -> Result<Vec<Statement>> {
        let clock = StatementClock::start(&self.engine);
        let parsed = self.engine.parser().parse(sql);
        match &parsed {
            Ok(_) => clock.forget(),
            Err(error) => clock.stop(Err(error.kind)),
        }
        parsed
    }

    /// Changes a setting, or resets it without a value.
    ///
    /// # Errors
    /// There is no such setting, or the value is none that it takes.
    pub fn set(&self, name: &str, value: Option<&str>) -> Result<()> {
        let newest = self.engine.newest();
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = settings.clone();
        changed.set(name, value, newest)?;
        if changed.evidence {
            evidence::check_possible(&self.engine)?;
        }
        self.apply(&changed);
        *settings = changed;
        Ok(())
    }

    /// Hands on what the engine below goes by.
    fn apply(&self, settings: &Settings) {
        let state = self.context.state_ref();
        let mut state = state.write();
        let options = state.config_mut().options_mut();
        options.catalog.default_schema = settings.default_schema();
        options.execution.time_zone = Some(settings.time_zone.clone());
    }

    /// Runs one statement.
    pub(crate) async fn execute(&self, statement: &Statement, parameters: Option<ParamValues>) -> Result<Outcome> {
        let clock = StatementClock::start(&self.engine);
        match self.dispatch(statement, parameters, clock.clone()).await {
            Ok(Outcome::Done(tag)) => {
                // A cursor's query runs on, until it is read to its end or closed.
                if !matches!(statement.action, Action::Declare { .. }) {
                    clock.stop(Ok(()));
                }
                Ok(Outcome::Done(tag))
            }
            Ok(rows) => Ok(rows),
            Err(error) => {
                clock.failed(&error);
                Err(error)
            }
        }
    }

    async fn dispatch(
        &self,
        statement: &Statement,
        parameters: Option<ParamValues>,
        clock: StatementClock,
    ) -> Result<Outcome> {
        if let Some(principal) = &self.principal {
            check_principal(&self.engine, principal)?;
        }
        let tag = statement.action.tag();
        tracing::debug!(statement = %statement.text, as_of = ?statement.as_of, "query: statement");
        match &statement.action {
            Action::Read(ast) => {
                let query = Query { ast, text: &statement.text, as_of: statement.as_of };
                self.read(query, parameters, clock).await.map(Outcome::Rows)
            }
            Action::Copy { query: ast, .. } => {
                // Evidence is about the query, which can be asked again by itself.
                let text = ast.to_string();
                let query = Query { ast, text: &text, as_of: statement.as_of };
                self.read(query, parameters, clock).await.map(Outcome::Rows)
            }
            Action::Set { name, value } => self.set(name, value.as_deref()).map(|()| Outcome::Done(tag)),
            Action::ResetAll { .. } => {
                self.reset().await;
                Ok(Outcome::Done(tag))
            }
            Action::Show { name } => self.show(name, clock).map(Outcome::Rows),
            Action::Begin => {
                self.set_transaction(Transaction::Begun);
                Ok(Outcome::Done(tag))
            }
            Action::End { .. } => {
                self.set_transaction(Transaction::None);
                self.cursors.lock().await.clear();
                Ok(Outcome::Done(tag))
            }
            Action::Declare { name, query } => {
                let query = Query { ast: query, text: &query.to_string(), as_of: statement.as_of };
                let rows = self.read(query, parameters, clock).await?;
                self.open_cursor(name, rows).await.map(|()| Outcome::Done(tag))
            }
            Action::Fetch { name, rows } => self.fetch(name, *rows).await.map(Outcome::Rows),
            Action::Close { name } => {
                let mut cursors = self.cursors.lock().await;
                match name {
                    None => cursors.clear(),
                    Some(name) => drop(cursors.remove(name).ok_or_else(|| no_cursor(name))?),
                }
                Ok(Outcome::Done(tag))
            }
            Action::RollbackTo | Action::Ignored { .. } => Ok(Outcome::Done(tag)),
        }
    }

    /// Plans a query when it is its turn, and starts it.
    async fn read(&self, query: Query<'_>, bound: Option<ParamValues>, clock: StatementClock) -> Result<Rows> {
        let deadline = self.deadline();
        let turn = self.turn(deadline).await?;
        let planned = self.plan(query.ast, query.as_of, deadline).await?;
        let asked = Asked { text: query.text, ordered: is_ordered(query.ast) };
        self.run(planned, Start { asked, bound, deadline, clock, turn }).await
    }

    async fn reset(&self) {
        let fresh = Settings::default();
        self.apply(&fresh);
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.cursors.lock().await.clear();
    }

    fn set_transaction(&self, state: Transaction) {
        *self.transaction.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.settings().timeout(self.engine.config()))
    }

    /// The height for a statement that begins now.
    fn choose_height(&self, own: Option<Height>) -> Height {
        if let Some(height) = own.or(self.settings().as_of) {
            return height;
        }
        let mut transaction = self.transaction.lock().unwrap_or_else(PoisonError::into_inner);
        match *transaction {
            Transaction::At(height) => height,
            Transaction::Begun => {
                let newest = self.engine.newest();
                *transaction = Transaction::At(newest);
                newest
            }
            Transaction::None => self.engine.newest(),
        }
    }

    /// Fails if the newest block here is older than the client accepts. Who names a height wants that one, however old.
    fn check_fresh(&self) -> Result<()> {
        let settings = self.settings();
        let Some(most) = settings.max_staleness.filter(|_| settings.as_of.is_none()) else {
            return Ok(());
        };
        let newest = self.engine.catalog(self.engine.newest())?;
        let time_ms = newest.block().map_or(0, |block| signed(block.timestamp_ms));
        let age = Duration::from_millis(now_ms().saturating_sub(time_ms).max(0).unsigned_abs());
        if age <= most {
            return Ok(());
        }
        Err(QueryError::stale(newest.height(), age, most))
    }

    /// Plans a query at its height.
    pub(crate) async fn plan(&self, ast: &Ast, as_of: Option<Height>, deadline: Deadline) -> Result<Planned> {
        let height = self.choose_height(as_of);
        if self.current.get().height() != height {
            self.current.set(self.engine.catalog(height)?);
        }
        if as_of.is_none() {
            self.check_fresh()?;
        }
        let catalog = self.current.get();
        let mut state = self.context.state();
        provenance::register(&mut state, &self.engine, &catalog, &self.answers)?;
        let statement = EngineStatement::Statement(Box::new(ast.clone()));
        let plan = self
            .in_time(deadline, async move { state.statement_to_plan(statement).await })
            .await?
            .map_err(|error| classify(&error, &catalog))?;
        SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false)
            .verify_plan(&plan)
            .map_err(|error| QueryError::not_allowed(SqlState::READ_ONLY, error.strip_backtrace()))?;
        if unnests_a_record(&plan) {
            // The engine gives 0 and empty text for the fields of a null record: no answer is better than that one.
            let message = "unnest of a record is not supported";
            return Err(QueryError::not_allowed(SqlState::FEATURE_NOT_SUPPORTED, message)
                .with_hint("name its fields, as in column['field']"));
        }
        Ok(Planned { plan, height })
    }

    /// Plans a query to know its parameters and columns.
    pub(crate) async fn plan_now(&self, ast: &Ast, as_of: Option<Height>) -> Result<LogicalPlan> {
        self.plan(ast, as_of, self.deadline()).await.map(|planned| planned.plan)
    }

    /// An error of the engine, said with the names at the session's height.
    pub(crate) fn classified(&self, error: &DataFusionError) -> QueryError {
        classify(error, &self.current.get())
    }

    /// The columns of an open cursor.
    pub(crate) async fn cursor_columns(&self, name: &str) -> Option<SchemaRef> {
        self.cursors.lock().await.get(name).map(|cursor| Arc::clone(&cursor.schema))
    }

    /// Waits for a statement's turn, before it is planned: planning needs the threads that others may keep busy.
    async fn turn(&self, deadline: Deadline) -> Result<OwnedSemaphorePermit> {
        let turn = deadline.guard(self.engine.turn()).await;
        turn.map_err(|_| QueryError::no_turn(self.engine.config().statements_max))?
    }

    /// Starts a planned query.
    async fn run(&self, planned: Planned, start: Start<'_>) -> Result<Rows> {
        let Start { asked, bound, deadline, clock, turn } = start;
        let catalog = self.current.get();
        let failed = |error| classify(&error, &catalog);
        let plan = match &bound {
            Some(parameters) => planned.plan.replace_params_with_values(parameters).map_err(failed)?,
            None => planned.plan,
        };
        let of_chain = reads_the_chain(&plan);
        let settings = self.settings();
        let answered = of_chain && !is_explained(&plan);
        if let Some(lineage) = self.engine.equipment().lineage.as_ref().filter(|_| answered) {
            clock.of_run(lineage.begin(&plan, asked.text, &catalog));
        }
        let evidence = settings.evidence && answered;
        let varying = if evidence { varying(&plan) } else { None };
        let scope = StatementScope::new(settings.on_unverified, evidence);
        let mut state = self.context.state();
        state.config_mut().set_extension(Arc::clone(&scope));
        if evidence {
            evidence::fix_order(state.config_mut());
        }
        let context = state.task_ctx();
        let guard = Guard::new(deadline.at());
        let guarding = Arc::clone(&guard);
        let physical = self
            .in_time(deadline, async move {
                let physical = state.create_physical_plan(&plan).await?;
                guarded(if evidence { in_order(physical)? } else { physical }, &guarding)
            })
            .await?
            .map_err(failed)?;
        let schema = physical.schema();
        let evidence = if evidence {
            let (scope, kept) = (Arc::clone(&scope), Arc::clone(&self.answers));
            let of = Of { catalog: &catalog, settings: &settings, asked, bound: bound.as_ref(), schema: &schema };
            Some(Pending::begin(&self.engine, of, scope, kept)?)
        } else {
            None
        };
        let id = evidence.as_ref().map(|evidence| evidence.id().to_owned());
        let ready = Ready { plan: physical, context, guard, deadline, catalog, clock, turn, evidence };
        let stream = ready.start(&self.engine)?;
        let mut warnings = scope.warnings();
        warnings.extend(varying.map(|what| {
            format!("cairn: {what} need not give the same again: the evidence holds, and a replay may differ")
        }));
        Ok(Rows { schema, stream, height: planned.height, of_chain, warnings, evidence: id })
    }

    /// Runs work on the statements' own threads, within the statement's time.
    async fn in_time<F>(&self, deadline: Deadline, work: F) -> Result<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let mut running = self.engine.executor().spawn(work).ok_or_else(going_down)?;
        deadline.guard(running.finished()).await?.map_err(|error| QueryError::internal(panic_text(error)))
    }

    // The clock stops here: nobody may go on with it.
    #[allow(clippy::needless_pass_by_value)]
    fn show(&self, name: &str, clock: StatementClock) -> Result<Rows> {
        let height = self.choose_height(None);
        let value = self.settings().show(name, self.engine.config(), height)?;
        clock.stop(Ok(()));
        let schema = Arc::new(Schema::new(vec![Field::new(crate::settings::canonical(name), DataType::Utf8, false)]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(StringArray::from(vec![value]))])
            .map_err(|error| QueryError::internal(error.to_string()))?;
        let stream = futures::stream::once(async move { Ok(batch) }).boxed();
        Ok(Rows { schema, stream, height, of_chain: false, warnings: Vec::new(), evidence: None })
    }

    async fn open_cursor(&self, name: &str, rows: Rows) -> Result<()> {
        let mut cursors = self.cursors.lock().await;
        if cursors.contains_key(name) {
            return Err(QueryError::statement(SqlState::DUPLICATE_CURSOR, format!("cursor \"{name}\" already exists")));
        }
        if cursors.len() >= CURSORS_MAX {
            return Err(QueryError::limit(
                SqlState::PROGRAM_LIMIT,
                format!("a session may hold {CURSORS_MAX} cursors open"),
            )
            .with_hint("CLOSE those that are not needed"));
        }
        cursors.insert(name.to_owned(), rows);
        Ok(())
    }

    /// Takes rows out of a cursor; what is left of a batch is put back.
    async fn fetch(&self, name: &str, wanted: Option<u64>) -> Result<Rows> {
        let mut cursors = self.cursors.lock().await;
        let cursor = cursors.get_mut(name).ok_or_else(|| no_cursor(name))?;
        let (schema, height, of_chain) = (Arc::clone(&cursor.schema), cursor.height, cursor.of_chain);
        let mut taken = Vec::new();
        let mut left = wanted.map_or(usize::MAX, |rows| usize::try_from(rows).unwrap_or(usize::MAX));
        while left > 0 {
            let Some(batch) = cursor.stream.next().await else {
                break;
            };
            let batch = batch?;
            if batch.num_rows() > left {
                let rest = batch.slice(left, batch.num_rows() - left);
                taken.push(Ok(batch.slice(0, left)));
                let stream = std::mem::replace(&mut cursor.stream, futures::stream::empty().boxed());
                cursor.stream = futures::stream::once(async move { Ok(rest) }).chain(stream).fuse().boxed();
                break;
            }
            left -= batch.num_rows();
            taken.push(Ok(batch));
        }
        let warnings = std::mem::take(&mut cursor.warnings);
        let evidence = cursor.evidence.take();
        Ok(Rows { schema, stream: futures::stream::iter(taken).boxed(), height, of_chain, warnings, evidence })
    }
}

fn no_cursor(name: &str) -> QueryError {
    QueryError::statement(SqlState::UNDEFINED_CURSOR, format!("cursor \"{name}\" does not exist"))
        .with_hint("DECLARE it first; cursors close at the end of a transaction")
}

/// True if a query ends with an `ORDER BY`.
fn is_ordered(ast: &Ast) -> bool {
    matches!(ast, Ast::Query(query) if query.order_by.is_some())
}

/// True if a plan takes a record apart by `unnest`.
fn unnests_a_record(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _ = plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::Unnest(unnest) if !unnest.struct_type_columns.is_empty());
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

/// True if a plan reads streams or the chain's own tables.
fn reads_the_chain(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found |= !matches!(scan.table_name.schema(), Some("pg_catalog" | "information_schema"));
        }
        for expression in node.expressions() {
            found |= expression.to_string().contains("cairn_height(");
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}
