//! Many generated statements over the built-in streams, answered by Cairn and by plain DataFusion on the same files.
//!
//! The first statement whose rows differ ends the run with its text and the seed that gives it again. The generator is the one that
//! `query/tests/differential.rs` asks 150 statements with.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use arrow::datatypes::Schema;
use cairn_anchor::raw::RawBatchBuilder;
use cairn_anchor::roots::Roots;
use cairn_anchor::schema::{ERROR, OFFSET, PARTITION, TIMESTAMP, own_columns, table_schema};
use cairn_anchor::seal::{new_secret, seal};
use cairn_anchor::store::SegmentStore;
use cairn_ingest::StreamDecoder;
use cairn_proof::statement::{Format, StreamDefinition};
use cairn_proof::{Digest, Height, Offset, Partition};
use cairn_query::Engine;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::prelude::SessionContext;
use prometheus::Registry;
use serde_json::{Map, Value, json};

use crate::query::contenders::{config, sorted_rows};
use crate::query::publish::Chain;
use generator::{Choices, FIRST_RECORD_MS, Table, statement};

#[path = "../../query/tests/differential/generator.rs"]
mod generator;

const BUILT_IN: [(&str, &str); 3] = [
    ("traffic.flow", include_str!("../../schemas/traffic.flow.avsc")),
    ("energy.meter_reading", include_str!("../../schemas/energy.meter_reading.avsc")),
    ("emergency.incident", include_str!("../../schemas/emergency.incident.avsc")),
];
/// Batches of each partition, and records of each batch.
const BATCHES: u64 = 4;
const RECORDS: u64 = 48;

/// What to ask.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// How many statements.
    #[arg(long, default_value_t = 2_000)]
    queries: u64,
    /// What records and statements follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(options: &Options) -> Result<Map<String, Value>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(ask(options)))
}

/// Publishes a stream: three of four partitions, with records that do not decode in one of them.
async fn publish(
    chain: &mut Chain,
    store: &SegmentStore,
    table: &Table,
    choices: &mut Choices,
    schema: &str,
) -> Result<()> {
    let definition = chain.definition(&table.name, schema);
    let definition = chain.register(StreamDefinition { partitions: 4, format: Format::Json, ..definition })?;
    let decoder = StreamDecoder::new(&definition)?;
    for (partition, first) in (0..3).flat_map(|partition| (0..BATCHES).map(move |batch| (partition, batch * RECORDS))) {
        let mut batch = RawBatchBuilder::new(Partition(partition), Offset(first));
        for offset in first..first + RECORDS {
            let broken = partition == 2 && offset % 23 == 22;
            let value = if broken { "not a record".to_owned() } else { table.record(choices) };
            let time = FIRST_RECORD_MS + i64::try_from(offset)? * 1_000;
            batch.append(Offset(offset), time, None, Some(value.as_bytes()), &[])?;
        }
        let raw = batch.finish()?;
        let decoded = decoder.decode_batch(&raw)?;
        let sealed = seal(&definition, &raw, &decoded.into(), new_secret()?, Digest::ZERO)?;
        store.put(&sealed).await?;
        chain.anchor(sealed.anchor)?;
    }
    Ok(())
}

/// A stream as of a height in plain DataFusion: its files as they lie there, without quarantined records.
async fn register(plain: &SessionContext, chain: &Chain, objects: &Path, table: &str, at: Height) -> Result<()> {
    let (definition, anchors) = chain.stream(table, at).context("the stream was registered")?;
    let columns = table_schema(&definition)?;
    let own = own_columns();
    let own = own.iter().filter(|field| [PARTITION, OFFSET, TIMESTAMP, ERROR].contains(&field.name().as_str()));
    let file = Arc::new(Schema::new(columns.fields().iter().chain(own).cloned().collect::<Vec<_>>()));
    let urls = anchors
        .iter()
        .map(|entry| Ok(ListingTableUrl::parse(objects.join(&entry.anchor.segment.path).display().to_string())?))
        .collect::<Result<Vec<_>>>()?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
    let listing = ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options).with_schema(file);
    let name = plain_name(table, at);
    plain.register_table(format!("raw_{name}"), Arc::new(ListingTable::try_new(listing)?))?;
    let rows = plain.sql(&format!("SELECT * FROM raw_{name} WHERE {ERROR} IS NULL")).await?;
    plain.register_table(&name, rows.into_view())?;
    Ok(())
}

fn plain_name(table: &str, at: Height) -> String {
    format!("{}_{}", table.replace('.', "_"), at.0)
}

async fn ask(options: &Options) -> Result<Map<String, Value>> {
    let folder = tempfile::tempdir()?;
    let objects = folder.path().join("objects");
    let store = SegmentStore::on_disk(&objects)?;
    let (mut chain, mut choices, mut tables) = (Chain::new(), Choices::new(options.seed), Vec::new());
    for (name, schema) in BUILT_IN {
        let definition = StreamDefinition { partitions: 4, format: Format::Json, ..chain.definition(name, schema) };
        let table = Table::new(name, &*table_schema(&definition)?);
        publish(&mut chain, &store, &table, &mut choices, schema).await?;
        tables.push(table);
    }
    // All of it; and heights at which the last stream's first partition is there alone.
    let heights = [chain.height(), Height(chain.height().0 - BATCHES * 2), Height(chain.height().0 - 1)];
    let plain = SessionContext::new();
    plain.sql("SET datafusion.execution.time_zone = 'UTC'").await?;
    for (table, at) in tables.iter().flat_map(|table| heights.map(|at| (table, at))) {
        register(&plain, &chain, &objects, &table.name, at).await?;
    }
    let verified = store.verified(Arc::new(Roots::new()))?;
    let engine = Engine::new(config(), Arc::new(chain.snapshots(&heights)), verified, &Registry::new())?;
    let (mut rows, mut empty, started) = (0_u64, 0_u64, Instant::now());
    for number in 0..options.queries {
        let at = heights[(number % heights.len() as u64) as usize];
        let asked = statement(&mut choices, &tables);
        let ours = asked.replace(['{', '}'], "");
        let theirs = tables
            .iter()
            .fold(asked, |sql, table| sql.replace(&format!("{{{}}}", table.name), &plain_name(&table.name, at)));
        let told = || format!("statement {number} of seed {} at height {}: {ours}", options.seed, at.0);
        let expected = plain.sql(&theirs).await.with_context(told)?.collect().await.with_context(told)?;
        let expected = sorted_rows(&expected)?;
        let found = sorted_rows(&Box::pin(engine.sql(&ours, Some(at))).await.with_context(told)?.batches)?;
        ensure!(found == expected, "{} gives other rows than plain DataFusion:\n{found:#?}\n{expected:#?}", told());
        rows += expected.len() as u64;
        empty += u64::from(expected.is_empty());
    }
    let mut figures = Map::new();
    figures.insert("statements_equal".into(), json!(options.queries));
    figures.insert("rows".into(), json!(rows));
    figures.insert("answers_without_rows".into(), json!(empty));
    figures.insert("seed".into(), json!(options.seed));
    figures.insert("seconds".into(), json!(started.elapsed().as_secs_f64().round()));
    Ok(figures)
}
