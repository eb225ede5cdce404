//! The engine: everything that sessions share, and the embedded use.
//!
//! ```text
//! Engine ─┬─ SnapshotSource     the chain's facts by height
//!         ├─ VerifiedStore      its registry is filled here, from the snapshots' anchors
//!         ├─ RuntimeEnv         one store, bounded memory, footer cache
//!         ├─ SessionState       functions and rules, made once and copied for each session
//!         └─ HeightCatalog × n  the last heights that statements asked for
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use cairn_anchor::roots::AnchoredObject;
use cairn_anchor::verified::VerifiedStore;
use cairn_proof::statement::ChainTag;
use cairn_proof::units::Height;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::PgCatalogStaticTables;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::setup_pg_catalog;
use prometheus::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::Principal;
use crate::catalog::{CATALOG, ColumnsCache, DEFAULT_SCHEMA, HeightCatalog};
use crate::config::{ConfigError, QueryConfig};
use crate::error::{QueryError, Result};
use crate::executor::Executor;
use crate::metrics::QueryMetrics;
use crate::pg_functions;
use crate::problems::Problems;
use crate::provenance::Equipment;
use crate::runtime;
use crate::session::Session;
use crate::snapshot::{Snapshot, SnapshotSource};
use crate::statement::StatementParser;
use crate::structs::MaskNullRecords;

/// How many heights' catalogues are kept for statements that come back to them.
const CATALOGS_KEPT: usize = 8;

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Metrics of the same names are registered already.
    #[error("the query role's metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The threads of statements could not be started.
    #[error("query: the threads of statements cannot be started: {0}")]
    Threads(std::io::Error),
    /// DataFusion could not be set up.
    #[error("the query engine cannot be set up: {0}")]
    Engine(#[from] datafusion::error::DataFusionError),
    /// The certificate or the key of the ports cannot be used.
    #[error("query: TLS file {path}: {reason}")]
    Tls {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Events about queries have nowhere to go.
    #[error("query: OpenLineage events cannot go to {target}: {reason}")]
    Lineage {
        /// The file or the address.
        target: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A port cannot be listened on.
    #[error("query: cannot listen on {addr} for {clients} clients: {source}; {advice}")]
    Listen {
        /// Who is served there: Postgres or Flight SQL.
        clients: &'static str,
        /// The address.
        addr: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
        /// What to do about it.
        advice: String,
    },
}

/// An answer that was gathered in memory.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// The block height that the answer was computed at.
    pub height: Height,
    /// What must be known about the rows: what was left out, or given though it does not verify. Empty otherwise.
    pub warnings: Vec<String>,
}

impl Answer {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// Runs statements over anchored records. A clone is the same engine.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    config: QueryConfig,
    source: Arc<dyn SnapshotSource>,
    store: VerifiedStore,
    equipment: OnceLock<Equipment>,
    runtime: Arc<RuntimeEnv>,
    executor: Executor,
    base: SessionContext,
    static_tables: Arc<PgCatalogStaticTables>,
    parser: StatementParser,
    columns: Arc<ColumnsCache>,
    problems: Arc<Problems>,
    /// One for each statement that may run at once.
    turns: Arc<Semaphore>,
    catalogs: Mutex<VecDeque<Arc<HeightCatalog>>>,
    /// Up to which height anchors are in the store's registry.
    registered: Mutex<Option<Height>>,
    metrics: QueryMetrics,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Engine")
            .field("config", &self.config)
            .field("newest", &self.source.newest())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Sets the engine up. `store` must be one that nothing else fills: its registry is filled from the snapshots.
    ///
    /// # Errors
    /// The configuration is out of range, or `registry` has metrics of the same names already.
    pub fn new(
        config: QueryConfig,
        source: Arc<dyn SnapshotSource>,
        store: VerifiedStore,
        registry: &Registry,
    ) -> Result<Self, StartError> {
        config.check()?;
        let metrics = QueryMetrics::register(registry)?;
        let store = store.with_cache(config.verified_cache_bytes());
        let runtime = runtime::runtime(&config, store.clone())?;
        let executor = Executor::new(config.parallelism).map_err(StartError::Threads)?;
        let base = base_context(&config, &runtime)?;
        let static_tables = Arc::new(PgCatalogStaticTables::try_new()?);
        let turns = config.statements_max as usize;
        Ok(Self {
            inner: Arc::new(Inner {
                parser: StatementParser::new(config.statement_bytes_max),
                config,
                source,
                store,
                equipment: OnceLock::new(),
                runtime,
                executor,
                base,
                static_tables,
                columns: Arc::default(),
                problems: Arc::default(),
                turns: Arc::new(Semaphore::new(turns)),
                catalogs: Mutex::default(),
                registered: Mutex::default(),
                metrics,
            }),
        })
    }

    /// Gives the engine what receipts and evidence need beside the chain's facts and the segments. The first one given counts.
    #[must_use]
    pub fn equipped(self, equipment: Equipment) -> Self {
        self.inner.equipment.get_or_init(|| equipment);
        self
    }

    pub(crate) fn equipment(&self) -> &Equipment {
        static NONE: Equipment = Equipment { follower: None, secrets: None, signer: None, lineage: None };
        self.inner.equipment.get().unwrap_or(&NONE)
    }

    /// Runs `sql` and gathers its answer: at block `as_of`, or at the newest finalized one.
    ///
    /// Several statements may be given, with semicolons; the answer is that of the last one that has rows.
    ///
    /// # Errors
    /// As the statement's; also if the answer is larger than `answer_mib_max`.
    pub async fn sql(&self, sql: &str, as_of: Option<Height>) -> Result<Answer> {
        let session = self.session()?;
        if let Some(height) = as_of {
            session.set("cairn.as_of", Some(&height.0.to_string()))?;
        }
        session.sql(sql).await
    }

    /// Opens a session with settings of its own.
    ///
    /// # Errors
    /// Only by a defect.
    pub fn session(&self) -> Result<Session> {
        Session::open(self.clone(), None)
    }

    /// Opens a session for an identity that logged in.
    pub(crate) fn session_for(&self, principal: Option<Principal>) -> Result<Session> {
        Session::open(self.clone(), principal)
    }

    /// The newest finalized height that statements can see.
    pub fn newest(&self) -> Height {
        let newest = self.inner.source.newest();
        self.inner.metrics.follower_at(newest.0);
        newest
    }

    /// What binds signatures to the chain that statements see; none without a chain.
    pub fn chain(&self) -> Option<ChainTag> {
        self.inner.source.chain()
    }

    /// The configuration.
    pub fn config(&self) -> &QueryConfig {
        &self.inner.config
    }

    /// The counters.
    pub fn metrics(&self) -> &QueryMetrics {
        &self.inner.metrics
    }

    pub(crate) fn parser(&self) -> &StatementParser {
        &self.inner.parser
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.inner.executor
    }

    pub(crate) fn store(&self) -> &VerifiedStore {
        &self.inner.store
    }

    /// Waits until a statement may run; it gives its turn back by dropping it.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        let turns = Arc::clone(&self.inner.turns);
        turns.acquire_owned().await.map_err(|_| QueryError::internal("the statements' turns are over"))
    }

    pub(crate) fn problems(&self) -> &Problems {
        &self.inner.problems
    }

    pub(crate) fn static_tables(&self) -> &Arc<PgCatalogStaticTables> {
        &self.inner.static_tables
    }

    /// A builder with the engine's functions, rules and runtime.
    pub(crate) fn state_builder(&self) -> SessionStateBuilder {
        SessionStateBuilder::new_from_existing(self.inner.base.state())
            .with_runtime_env(Arc::clone(&self.inner.runtime))
    }

    /// The catalogue at a height that must be known.
    pub(crate) fn catalog(&self, height: Height) -> Result<Arc<HeightCatalog>> {
        let newest = self.newest();
        if height > newest {
            return Err(QueryError::height_not_known(height, newest));
        }
        let mut kept = self.inner.catalogs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|catalog| catalog.height() == height)
            && let Some(found) = kept.remove(at)
        {
            kept.push_back(Arc::clone(&found));
            return Ok(found);
        }
        drop(kept);
        let snapshot = self.inner.source.snapshot(height)?;
        self.register(&snapshot);
        let catalog =
            Arc::new(HeightCatalog::new(snapshot, &self.inner.store, &self.inner.columns, &self.inner.problems));
        let mut kept = self.inner.catalogs.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= CATALOGS_KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&catalog));
        Ok(catalog)
    }

    /// Tells the verified store about the anchors that it does not know yet.
    fn register(&self, snapshot: &Snapshot) {
        let mut registered = self.inner.registered.lock().unwrap_or_else(PoisonError::into_inner);
        if registered.is_some_and(|known| known >= snapshot.height) {
            return;
        }
        for stream in &snapshot.streams {
            let news = stream.anchors.iter().filter(|entry| registered.is_none_or(|known| entry.height > known));
            for entry in news {
                match AnchoredObject::from_anchor(&entry.anchor, entry.block_timestamp_ms) {
                    Ok(object) => self.inner.store.roots().insert(Arc::new(object)),
                    // Whoever reads this batch is told; statements that do not read it go on.
                    Err(error) => tracing::error!(%error, "an anchored segment cannot be read"),
                }
            }
        }
        *registered = Some(snapshot.height);
    }
}

/// The state that all sessions start from: built once, since it holds hundreds of functions and the catalogue rules.
fn base_context(config: &QueryConfig, runtime: &Arc<RuntimeEnv>) -> Result<SessionContext, StartError> {
    let mut session = SessionConfig::new()
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, DEFAULT_SCHEMA)
        // The sessions' own: `crate::information_schema`.
        .with_information_schema(false)
        .with_target_partitions(config.parallelism)
        .with_batch_size(config.batch_rows);
    let options = session.options_mut();
    // A dialect that Postgres clients speak; statements come parsed, so this only serves the engine's own parsing.
    options.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    options.execution.time_zone = Some("UTC".to_owned());
    options.execution.parquet.pushdown_filters = false;
    let state = SessionStateBuilder::new()
        .with_config(session)
        .with_runtime_env(Arc::clone(runtime))
        .with_default_features()
        .with_table_factories(Default::default())
        .with_file_formats(Vec::new())
        .build();
    let context = SessionContext::new_with_state(state);
    context.register_catalog(CATALOG, Arc::new(MemoryCatalogProvider::new()) as Arc<dyn CatalogProvider>);
    context.add_analyzer_rule(Arc::new(MaskNullRecords::new()));
    setup_pg_catalog(&context, CATALOG, EmptyContextProvider).map_err(|error| *error)?;
    pg_functions::register(&context);
    Ok(context)
}
