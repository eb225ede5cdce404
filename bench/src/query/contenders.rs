//! Who answers the queries: plain DataFusion, the same over a store that counts, Cairn, and Cairn with its cache.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result};
use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use cairn_anchor::roots::Roots;
use cairn_anchor::store::SegmentStore;
use cairn_anchor::verified::VerifiedStore;
use cairn_query::{Engine, QueryConfig, Session, SnapshotSource};
use datafusion::catalog::MemorySchemaProvider;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use prometheus::Registry;

use super::counting::Counting;

/// The URL that plain DataFusion knows its store by.
const PLAIN_URL: &str = "plain://segments";
/// Memory that statements may use: enough for every query, so that it decides nothing.
const MEMORY_MIB: u64 = 16_384;

/// DataFusion over the files as they lie there. A clone is the same session.
#[derive(Clone)]
pub(super) struct Plain {
    context: SessionContext,
    counting: Option<Arc<Counting>>,
}

/// The settings that all contenders share.
pub(crate) fn config() -> QueryConfig {
    QueryConfig { memory_limit_mib: MEMORY_MIB, statements_max: 128, ..QueryConfig::default() }
}

impl Plain {
    /// `tables` as (schema, table, folder of its segments below `objects`); with `count`, over a store that counts.
    pub(super) async fn open(objects: &Path, tables: &[(String, String, String)], count: bool) -> Result<Self> {
        let shared = config();
        let mut session =
            SessionConfig::new().with_target_partitions(shared.parallelism).with_batch_size(shared.batch_rows);
        session.options_mut().execution.time_zone = Some("UTC".to_owned());
        let context = SessionContext::new_with_config(session);
        let mut store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(objects)?);
        let counting = count.then(|| Arc::new(Counting::new(Arc::clone(&store))));
        if let Some(counting) = &counting {
            store = Arc::clone(counting) as Arc<dyn ObjectStore>;
        }
        context.register_object_store(&url::Url::parse(PLAIN_URL)?, store);
        let catalog = context.catalog("datafusion").context("DataFusion has its default catalogue")?;
        for (schema, table, folder) in tables {
            if catalog.schema(schema).is_none() {
                catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new()))?;
            }
            let provider = catalog.schema(schema).context("the schema was just made")?;
            provider.register_table(table.clone(), Arc::new(listing(&context, folder).await?))?;
        }
        Ok(Self { context, counting })
    }

    /// The rows of a statement.
    pub(super) async fn sql(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let frame = Box::pin(self.context.sql(sql)).await?;
        Ok(Box::pin(frame.collect()).await?)
    }

    /// Bytes that the counting store was asked for.
    pub(super) fn asked(&self) -> u64 {
        self.counting.as_ref().map_or(0, |counting| counting.asked.load(Ordering::Relaxed))
    }
}

async fn listing(context: &SessionContext, folder: &str) -> Result<ListingTable> {
    let url = ListingTableUrl::parse(format!("{PLAIN_URL}/{folder}/"))?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
    let config = ListingTableConfig::new(url).with_listing_options(options).infer_schema(&context.state()).await?;
    Ok(ListingTable::try_new(config)?)
}

/// Cairn over the same files.
pub(super) struct Verified {
    session: Session,
    engine: Engine,
    /// Counts into the same counters as the engine's own.
    pub(super) store: VerifiedStore,
}

impl Verified {
    pub(super) fn open(objects: &Path, chain: Arc<dyn SnapshotSource>, cache_mib: u64) -> Result<Self> {
        let store = SegmentStore::on_disk(objects)?.verified(Arc::new(Roots::new()))?;
        let config = QueryConfig { verified_cache_mib: cache_mib, answer_mib_max: 4_096, ..config() };
        let engine = Engine::new(config, chain, store.clone(), &Registry::new())?;
        Ok(Self { session: engine.session()?, engine, store })
    }

    /// The rows of a statement.
    pub(super) async fn sql(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        Ok(Box::pin(self.session.sql(sql)).await?.batches)
    }

    /// A session of its own, as each of many clients has.
    pub(super) fn session(&self) -> Result<Session> {
        Ok(self.engine.session()?)
    }
}

/// The rows as text, sorted: equal for equal answers, whatever the order of rows and the kind of string column.
pub(crate) fn sorted_rows(batches: &[RecordBatch]) -> Result<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|column| column.value(row).try_to_string());
            rows.push(cells.collect::<Result<Vec<_>, _>>()?.join(" | "));
        }
    }
    rows.sort_unstable();
    Ok(rows)
}
