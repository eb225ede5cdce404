//! The catalogue at one block height: streams as tables, system tables beside them.
//!
//! Stream `traffic.flow` is table `flow` of schema `traffic`. Schema `cairn` holds the system tables. Everything is
//! made from a [`Snapshot`]; tables are built when a statement first names them, and kept as long as the height is.

mod checked;
mod evolution;
pub(crate) mod facts;
pub(crate) mod quarantine;
mod reader;
pub(crate) mod records;
pub(crate) mod segments;
pub(crate) mod system;
pub(crate) mod table;
mod unverified;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use cairn_anchor::verified::VerifiedStore;
use cairn_chain_client::{AnchorEntry, BlockSummary};
use cairn_proof::identity::{IdentityId, PublicKey};
use cairn_proof::statement::StreamDefinition;
use cairn_proof::units::Height;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::error::DataFusionError;

use crate::problems::Problems;
use crate::snapshot::{IdentityAt, Snapshot, StreamAt};
use evolution::Defaults;
use facts::{Facts, valid_records};
use quarantine::QuarantineTable;
use records::RecordsTable;
use system::{SystemKind, SystemTable};
use table::{StreamColumns, StreamTable};

/// The name of the catalogue, which is the database that Postgres clients connect to.
pub(crate) const CATALOG: &str = "cairn";
/// The schema of the system tables.
pub(crate) const SYSTEM_SCHEMA: &str = "cairn";
/// The schema of names without one. It is empty: every stream's name has a schema.
pub(crate) const DEFAULT_SCHEMA: &str = "public";

/// What a table of schema `cairn` is made of.
#[derive(Debug, Clone, Copy)]
enum SystemSource {
    /// The chain's facts alone.
    Facts(SystemKind),
    /// Quarantined records, from segments.
    Quarantine,
    /// All records, from segments.
    Records,
}

const SYSTEM_TABLES: [(&str, SystemSource); 14] = [
    ("anchors", SystemSource::Facts(SystemKind::Anchors)),
    ("blocks", SystemSource::Facts(SystemKind::Blocks)),
    ("committees", SystemSource::Facts(SystemKind::Committees)),
    ("identities", SystemSource::Facts(SystemKind::Identities)),
    ("keys", SystemSource::Facts(SystemKind::Keys)),
    ("parameters", SystemSource::Facts(SystemKind::Parameters)),
    ("problems", SystemSource::Facts(SystemKind::Problems)),
    ("proposals", SystemSource::Facts(SystemKind::Proposals)),
    ("quarantine", SystemSource::Quarantine),
    ("records", SystemSource::Records),
    ("roles", SystemSource::Facts(SystemKind::Roles)),
    ("schemas", SystemSource::Facts(SystemKind::Schemas)),
    ("streams", SystemSource::Facts(SystemKind::Streams)),
    ("validators", SystemSource::Facts(SystemKind::Validators)),
];

/// A stream's columns, and the definition that they follow from.
type DefinedColumns = (Arc<StreamDefinition>, Arc<StreamColumns>);

/// The columns of streams, kept across heights: they follow from a stream's definition alone.
#[derive(Debug, Default)]
pub(crate) struct ColumnsCache(Mutex<HashMap<String, DefinedColumns>>);

impl ColumnsCache {
    fn columns(&self, definition: &Arc<StreamDefinition>) -> Result<Arc<StreamColumns>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, columns)) = known.get(&definition.name)
            && (Arc::ptr_eq(of, definition) || of.schemas == definition.schemas)
        {
            return Ok(Arc::clone(columns));
        }
        let values = cairn_anchor::schema::table_schema(definition).map_err(|error| {
            DataFusionError::Plan(format!("stream {} has no usable schema: {error}", definition.name))
        })?;
        let columns = Arc::new(StreamColumns::new(&values, Defaults::of(definition)?)?);
        known.insert(definition.name.clone(), (Arc::clone(definition), Arc::clone(&columns)));
        Ok(columns)
    }
}

/// Everything that statements at one height can name.
#[derive(Debug)]
pub(crate) struct HeightCatalog {
    snapshot: Arc<Snapshot>,
    schemas: BTreeMap<String, Arc<dyn SchemaProvider>>,
    names: Vec<(String, Vec<String>)>,
    problems: Arc<Problems>,
}

impl HeightCatalog {
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        store: &VerifiedStore,
        columns: &Arc<ColumnsCache>,
        problems: &Arc<Problems>,
    ) -> Self {
        let mut streams: BTreeMap<String, BTreeMap<String, KnownStream>> = BTreeMap::new();
        for stream in &snapshot.streams {
            let (schema, table) = stream.definition.sql_name();
            if matches!(schema, SYSTEM_SCHEMA | "pg_catalog" | "information_schema") {
                // The chain refuses such names; should one get through, it must not shadow a system table.
                tracing::warn!(stream = %stream.definition.name, "a stream takes the name of a system schema; it has no table");
                continue;
            }
            streams.entry(schema.to_owned()).or_default().insert(table.to_owned(), KnownStream::new(stream.clone()));
        }
        let mut names: Vec<(String, Vec<String>)> =
            streams.iter().map(|(schema, tables)| (schema.clone(), tables.keys().cloned().collect())).collect();
        names.push((SYSTEM_SCHEMA.to_owned(), SYSTEM_TABLES.iter().map(|(name, _)| (*name).to_owned()).collect()));
        streams.entry(DEFAULT_SCHEMA.to_owned()).or_default();
        let mut schemas: BTreeMap<String, Arc<dyn SchemaProvider>> = BTreeMap::new();
        for (schema, tables) in streams {
            let (store, columns, problems) = (store.clone(), Arc::clone(columns), Arc::clone(problems));
            let provider = StreamSchema { tables, store, columns, problems };
            schemas.insert(schema, Arc::new(provider));
        }
        let problems = Arc::clone(problems);
        let system =
            SystemSchema { snapshot: Arc::clone(&snapshot), store: store.clone(), problems: Arc::clone(&problems) };
        schemas.insert(SYSTEM_SCHEMA.to_owned(), Arc::new(system));
        Self { snapshot, schemas, names, problems }
    }

    pub(crate) fn height(&self) -> Height {
        self.snapshot.height
    }

    /// The block at this height, if the chain is known that far.
    pub(crate) fn block(&self) -> Option<&BlockSummary> {
        self.snapshot.block.as_ref()
    }

    /// A registered identity.
    pub(crate) fn identity(&self, id: &IdentityId) -> Option<&IdentityAt> {
        self.snapshot.identities.iter().find(|known| known.entry.id == *id)
    }

    /// A registered stream.
    pub(crate) fn stream(&self, name: &str) -> Option<&StreamAt> {
        self.snapshot.streams.iter().find(|known| known.definition.name == name)
    }

    /// The names of the registered streams.
    pub(crate) fn stream_names(&self) -> impl Iterator<Item = &str> {
        self.snapshot.streams.iter().map(|stream| stream.definition.name.as_str())
    }

    /// The identity that has, or had, a key.
    pub(crate) fn identity_of_key(&self, key: &[u8; 32]) -> Option<IdentityId> {
        self.snapshot.identity_of_key(key)
    }

    /// The block at a height of at most this one.
    pub(crate) fn block_at(&self, height: Height) -> Option<BlockSummary> {
        (self.snapshot.blocks)().into_iter().find(|block| block.height == height)
    }

    /// The keys and names of the committee that certifies the block at a height of at most this one.
    pub(crate) fn committee_of(&self, height: Height) -> Vec<(PublicKey, Option<&str>)> {
        let committee = self.snapshot.committees.iter().rfind(|committee| committee.first <= height);
        let name = |key: &PublicKey| {
            let known = self.snapshot.validators.iter().find(|validator| validator.entry.public_key == *key);
            known.map(|validator| validator.entry.name.as_str())
        };
        committee.into_iter().flat_map(|at| at.committee.keys()).map(|key| (*key, name(key))).collect()
    }

    /// The block that finalized a batch, by what names the batch.
    pub(crate) fn block_of(&self, stream: &str, partition: u32, first: u64) -> Option<Height> {
        let stream = self.stream(stream)?;
        let entry = stream
            .anchors
            .iter()
            .find(|entry| entry.anchor.partition.0 == partition && entry.anchor.first.0 == first)?;
        Some(entry.height)
    }

    /// What was found not to verify.
    pub(crate) fn problems(&self) -> &Problems {
        &self.problems
    }

    pub(crate) fn schema_names(&self) -> Vec<String> {
        self.schemas.keys().cloned().collect()
    }

    pub(crate) fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        self.schemas.get(name).cloned()
    }

    /// All schemas with the names of their tables, for hints about misspelt names.
    pub(crate) fn names(&self) -> &[(String, Vec<String>)] {
        &self.names
    }
}

/// A stream, and its anchors' facts once a statement has asked for them.
#[derive(Debug)]
struct KnownStream {
    stream: StreamAt,
    facts: OnceLock<Arc<Facts>>,
}

impl KnownStream {
    fn new(stream: StreamAt) -> Self {
        Self { stream, facts: OnceLock::new() }
    }

    fn facts(&self) -> Arc<Facts> {
        let facts =
            self.facts.get_or_init(|| Arc::new(Facts::new(&self.stream.anchors, |anchor| valid_records(anchor) > 0)));
        Arc::clone(facts)
    }
}

/// The streams of one schema.
#[derive(Debug)]
struct StreamSchema {
    tables: BTreeMap<String, KnownStream>,
    store: VerifiedStore,
    columns: Arc<ColumnsCache>,
    problems: Arc<Problems>,
}

#[async_trait]
impl SchemaProvider for StreamSchema {
    fn table_names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(known) = self.tables.get(name) else {
            return Ok(None);
        };
        Ok(Some(Arc::new(StreamTable {
            columns: self.columns.columns(&known.stream.definition)?,
            facts: known.facts(),
            store: self.store.clone(),
            problems: Arc::clone(&self.problems),
        })))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        Ok(self.tables.contains_key(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.contains_key(name)
    }
}

/// The schema `cairn`.
#[derive(Debug)]
struct SystemSchema {
    snapshot: Arc<Snapshot>,
    store: VerifiedStore,
    problems: Arc<Problems>,
}

#[async_trait]
impl SchemaProvider for SystemSchema {
    fn table_names(&self) -> Vec<String> {
        SYSTEM_TABLES.iter().map(|(name, _)| (*name).to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some((_, kind)) = SYSTEM_TABLES.iter().find(|(table, _)| *table == name) else {
            return Ok(None);
        };
        let (snapshot, problems) = (Arc::clone(&self.snapshot), Arc::clone(&self.problems));
        Ok(Some(match kind {
            SystemSource::Facts(kind) => Arc::new(SystemTable::new(*kind, snapshot, problems)),
            SystemSource::Records => Arc::new(RecordsTable::new(snapshot, self.store.clone(), problems)?),
            SystemSource::Quarantine => {
                let anchors: Arc<[Arc<AnchorEntry>]> = self
                    .snapshot
                    .streams
                    .iter()
                    .flat_map(|stream| stream.anchors.iter())
                    .filter(|entry| entry.anchor.quarantined > 0)
                    .cloned()
                    .collect();
                Arc::new(QuarantineTable::new(anchors, self.store.clone(), problems)?)
            }
        }))
    }

    fn table_exist(&self, name: &str) -> bool {
        SYSTEM_TABLES.iter().any(|(table, _)| *table == name)
    }
}
