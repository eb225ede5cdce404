//! What verifying costs an analyst: the 22 queries of TPC-H over streams, against plain DataFusion on the same files.
//!
//! ```text
//! plain      DataFusion's own tables over the folder of segments
//! control    the same, over a store that hands on and counts: how far apart two runs of the same thing are
//! verified   Cairn, every byte verified each time it is read
//! cached     Cairn with a bounded cache of verified bytes
//! ```
//!
//! Each round runs every query on each contender, in turn, and the turn moves on with each round. A ratio of totals is that
//! of the sums of the queries' medians. Answers are compared row by row first; one that differs ends the run.
//!
//! The cold figures are those of the first run of each query after its files were told to leave the page cache; contenders
//! that have opened nothing yet, so footers and hash trees are read and verified too. It asks the operating system through
//! `dd`, as the file system may ignore it the figures are reported and not compared.

pub(crate) mod contenders;
mod counting;
mod planning;
pub(crate) mod publish;
mod tables;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use contenders::{Plain, Verified, sorted_rows};
use publish::{FIRST_RECORD_MS, publish};

const QUERIES: &str = include_str!("query/tpch.sql");
/// Point look-ups at once, and how many each client makes.
const CLIENTS: usize = 100;
const LOOK_UPS: usize = 5;
/// Hashed by BLAKE3 alone, to compare with.
const BARE_BYTES: usize = 64 << 20;
/// Hashed at a time, as verified reads do.
const STEP_BYTES: usize = 256 << 10;

/// How to run it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The scale factor of TPC-H: 1 is six million line items.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// How much the bounded cache of verified bytes may hold, in MiB.
    #[arg(long, default_value_t = 1_024)]
    cache_mib: u64,
}

const CONTENDERS: [&str; 4] = ["plain", "control", "verified", "cached"];

struct Contenders {
    plain: Plain,
    control: Plain,
    verified: Verified,
    cached: Verified,
}

impl Contenders {
    async fn sql(&self, which: usize, sql: &str) -> Result<Vec<arrow::array::RecordBatch>> {
        match which {
            0 => self.plain.sql(sql).await,
            1 => self.control.sql(sql).await,
            2 => self.verified.sql(sql).await,
            _ => self.cached.sql(sql).await,
        }
    }
}

/// Seconds of wall time and of processor time.
#[derive(Debug, Clone, Copy, Default)]
struct Took {
    wall: f64,
    cpu: f64,
}

pub(crate) fn run(options: &Options, rounds: usize) -> Result<Map<String, Value>> {
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(Box::pin(run_all(options, rounds.max(1))))
}

async fn run_all(options: &Options, rounds: usize) -> Result<Map<String, Value>> {
    let folder = tempfile::tempdir()?;
    let objects = folder.path().join("objects");
    let started = Instant::now();
    let published = publish(&objects, options.scale).await?;
    let mut figures = Map::new();
    figures.insert("scale".into(), json!(options.scale));
    figures.insert("records".into(), json!(published.records));
    figures.insert("segments".into(), json!(published.segments));
    figures.insert("segment_bytes".into(), json!(published.bytes));
    figures.insert("published_records_per_second".into(), per_second(published.records, started));
    let folders =
        tables::NAMES.map(|name| ("tpch".to_owned(), name.to_owned(), format!("segments/tpch.{name}/0"))).to_vec();
    let chain = Arc::new(published.chain.snapshots(&[published.chain.height()]));
    let contenders = Contenders {
        plain: Plain::open(&objects, &folders, false).await?,
        control: Plain::open(&objects, &folders, true).await?,
        verified: Verified::open(&objects, chain.clone(), 0)?,
        cached: Verified::open(&objects, chain, options.cache_mib)?,
    };
    let queries = queries()?;
    cold(&contenders, &objects, &queries, &mut figures).await?;
    compare(&contenders, &queries).await?;
    interleaved(&contenders, &queries, rounds, &mut figures).await?;
    look_ups(&contenders, published.records, &mut figures).await?;
    figures.extend(planning::run(rounds).await?);
    Ok(figures)
}

/// The queries by name.
fn queries() -> Result<Vec<(&'static str, &'static str)>> {
    let found: Vec<_> = QUERIES.split("\n-- q").skip(1).filter_map(|text| text.split_once('\n')).collect();
    ensure!(found.len() == 22, "there are {} queries in tpch.sql, not 22", found.len());
    Ok(found)
}

/// Tells the operating system to forget what it holds of the segments.
fn forget(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path)?;
            continue;
        }
        let input = format!("if={}", path.display());
        let dd = std::process::Command::new("dd").args([&input, "iflag=nocache", "count=0", "status=none"]).status();
        ensure!(dd.is_ok_and(|status| status.success()), "dd cannot drop {} from the page cache", path.display());
    }
    Ok(())
}

/// The first run of the queries, each contender's first look at the files.
async fn cold(
    contenders: &Contenders,
    objects: &Path,
    queries: &[(&str, &str)],
    figures: &mut Map<String, Value>,
) -> Result<()> {
    for (which, name) in CONTENDERS.iter().enumerate() {
        forget(objects)?;
        let started = Instant::now();
        for (query, sql) in queries {
            contenders.sql(which, sql).await.with_context(|| format!("{name}, query {query}"))?;
        }
        figures.insert(format!("cold_{name}_seconds"), json!(rounded(started.elapsed().as_secs_f64())));
    }
    Ok(())
}

/// Fails unless all contenders give the same rows.
async fn compare(contenders: &Contenders, queries: &[(&str, &str)]) -> Result<()> {
    for (query, sql) in queries {
        let expected = sorted_rows(&contenders.sql(0, sql).await?)?;
        for (which, name) in CONTENDERS.iter().enumerate().skip(1) {
            let found = sorted_rows(&contenders.sql(which, sql).await?)?;
            let differs = expected.iter().zip(&found).find(|(expected, found)| expected != found);
            ensure!(
                expected.len() == found.len() && differs.is_none(),
                "query {query}: {name} gives {} rows, plain {}; the first that differs: {differs:?}",
                found.len(),
                expected.len()
            );
        }
    }
    Ok(())
}

/// The warm rounds.
async fn interleaved(
    contenders: &Contenders,
    queries: &[(&str, &str)],
    rounds: usize,
    figures: &mut Map<String, Value>,
) -> Result<()> {
    let mut times = vec![[const { Vec::new() }; CONTENDERS.len()]; queries.len()];
    let counters = contenders.verified.store.counters();
    let (bytes, hashed) = (counters.bytes_verified.get(), counters.hash_nanoseconds.get());
    let asked = contenders.control.asked();
    for round in 0..rounds {
        for (times, (query, sql)) in times.iter_mut().zip(queries) {
            for turn in 0..CONTENDERS.len() {
                let which = (turn + round) % CONTENDERS.len();
                let (cpu, started) = (cpu_seconds()?, Instant::now());
                contenders.sql(which, sql).await.with_context(|| format!("query {query}"))?;
                times[which].push(Took { wall: started.elapsed().as_secs_f64(), cpu: cpu_seconds()? - cpu });
            }
        }
    }
    let bytes = (counters.bytes_verified.get() - bytes) / rounds as u64;
    let hashed = (counters.hash_nanoseconds.get() - hashed) / rounds as u64;
    let medians: Vec<[Took; CONTENDERS.len()]> =
        times.iter().map(|times| times.each_ref().map(|times| middle(times))).collect();
    totals(&medians, queries, figures);
    figures.insert("bytes_asked".into(), json!((contenders.control.asked() - asked) / rounds as u64));
    figures.insert("bytes_verified".into(), json!(bytes));
    figures.insert("verified_bytes_per_core_second".into(), json!((bytes as f64 * 1e9 / hashed.max(1) as f64).round()));
    figures.insert("blake3_bytes_per_core_second".into(), json!(bare(rounds).round()));
    figures.insert("cached_bytes_held".into(), json!(contenders.cached.store.counters().cache_bytes.get()));
    Ok(())
}

fn totals(medians: &[[Took; CONTENDERS.len()]], queries: &[(&str, &str)], figures: &mut Map<String, Value>) {
    let sum = |which: usize, of: fn(&Took) -> f64| medians.iter().map(|took| of(&took[which])).sum::<f64>();
    let wall: fn(&Took) -> f64 = |took| took.wall;
    let cpu: fn(&Took) -> f64 = |took| took.cpu;
    for (which, name) in CONTENDERS.iter().enumerate() {
        figures.insert(format!("{name}_seconds"), json!(rounded(sum(which, wall))));
        figures.insert(format!("{name}_cpu_seconds"), json!(rounded(sum(which, cpu))));
        if which > 0 {
            figures.insert(format!("{name}_over_plain_total"), json!(rounded(sum(which, wall) / sum(0, wall))));
            figures.insert(format!("{name}_over_plain_cpu"), json!(rounded(sum(which, cpu) / sum(0, cpu))));
        }
    }
    let ratio = |took: &[Took; CONTENDERS.len()]| took[2].wall / took[0].wall;
    let worst = medians.iter().zip(queries).max_by(|(a, _), (b, _)| ratio(a).total_cmp(&ratio(b)));
    if let Some((took, (query, _))) = worst {
        figures.insert("verified_over_plain_worst".into(), json!(rounded(ratio(took))));
        figures.insert("verified_over_plain_worst_query".into(), json!(format!("q{query}")));
    }
    let each: Map<String, Value> = medians
        .iter()
        .zip(queries)
        .map(|(took, (query, _))| (format!("q{query}"), json!(took.map(|took| rounded(took.wall * 1e3)))))
        .collect();
    figures.insert("milliseconds_by_query".into(), Value::Object(each));
}

/// Many clients at once, each looking for one record after the other by its time.
async fn look_ups(contenders: &Contenders, records: u64, figures: &mut Map<String, Value>) -> Result<()> {
    // Half the records are line items and a sixth are orders; any offset below a tenth exists.
    let offsets = records / 10;
    let mut table = Map::new();
    for (which, name) in CONTENDERS.iter().enumerate() {
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            let session = match which {
                2 => Some(contenders.verified.session()?),
                3 => Some(contenders.cached.session()?),
                _ => None,
            };
            let plain = if which == 0 { contenders.plain.clone() } else { contenders.control.clone() };
            clients.spawn(async move {
                let mut times = Vec::with_capacity(LOOK_UPS);
                for look_up in 0..LOOK_UPS {
                    let offset = (client * LOOK_UPS + look_up) as u64 * 7_919 % offsets.max(1);
                    let sql = look_up_sql(offset);
                    let started = Instant::now();
                    let batches = match &session {
                        Some(session) => Box::pin(session.sql(&sql)).await?.batches,
                        None => plain.sql(&sql).await?,
                    };
                    times.push(started.elapsed().as_secs_f64() * 1e3);
                    let rows: usize = batches.iter().map(arrow::array::RecordBatch::num_rows).sum();
                    ensure!(rows == 1, "the look-up of offset {offset} gives {rows} rows");
                }
                Ok(times)
            });
        }
        let mut times = Vec::new();
        while let Some(client) = clients.join_next().await {
            times.extend(client??);
        }
        table.insert((*name).into(), percentiles(&mut times));
    }
    figures.insert("look_ups_100_clients_ms".into(), Value::Object(table));
    Ok(())
}

fn look_up_sql(offset: u64) -> String {
    let time = FIRST_RECORD_MS + i64::try_from(offset).unwrap_or(0);
    format!(
        "SELECT l_orderkey, l_comment FROM tpch.lineitem WHERE _timestamp = to_timestamp_millis({time}) AND _offset = {offset}"
    )
}

fn percentiles(times: &mut [f64]) -> Value {
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1))).copied();
    let value = |part| rounded(at(part).unwrap_or_default());
    json!({ "p50": value(50), "p95": value(95), "p99": value(99), "max": value(100) })
}

/// Bytes that BLAKE3 alone hashes in a second of one core.
fn bare(rounds: usize) -> f64 {
    let data: Vec<u8> = (0..BARE_BYTES).map(|at| (at * 31 % 251) as u8).collect();
    let mut hash = || {
        for step in data.chunks(STEP_BYTES) {
            std::hint::black_box(blake3::hash(step));
        }
    };
    let times = crate::medians(rounds, &mut [&mut hash]);
    BARE_BYTES as f64 / times[0].as_secs_f64()
}

/// The processor time that this process has taken, from the operating system's books (in hundredths of a second).
fn cpu_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").context("processor time is read from /proc")?;
    let after_name = text.rsplit_once(')').context("/proc/self/stat has another form")?.1;
    let field = |at: usize| after_name.split_whitespace().nth(at).and_then(|ticks| ticks.parse::<f64>().ok());
    let (user, system) = field(11).zip(field(12)).context("/proc/self/stat has no times")?;
    Ok((user + system) / 100.0)
}

fn middle(times: &[Took]) -> Took {
    let of = |of: fn(&Took) -> f64| median(&mut times.iter().map(of).collect::<Vec<_>>());
    Took { wall: of(|took| took.wall), cpu: of(|took| took.cpu) }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn per_second(count: u64, since: Instant) -> Value {
    json!((count as f64 / since.elapsed().as_secs_f64()).round())
}
