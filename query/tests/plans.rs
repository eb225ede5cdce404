//! What is planned: files ruled out before they are opened, limits and projections in the scan, counts without a read.

use crate::common::{self, City, FLOW_V1, stream};
use arrow::array::AsArray;
use cairn_query::{Engine, QueryConfig};

/// The physical plan of a query, as EXPLAIN shows it.
async fn plan(engine: &Engine, query: &str) -> String {
    let answer = engine.sql(&format!("EXPLAIN {query}"), None).await.unwrap();
    let batch = &answer.batches[0];
    let kinds = batch.column(0).as_string::<i32>();
    let plans = batch.column(1).as_string::<i32>();
    let at = kinds.iter().position(|kind| kind == Some("physical_plan")).unwrap();
    plans.value(at).to_owned()
}

fn files(plan: &str) -> usize {
    plan.matches(".parquet").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_rule_out_files_before_they_are_opened() {
    let city = common::city().await;
    let engine = city.engine();
    for (filter, expected) in [
        ("true", 4),
        ("_partition = 0", 2),
        ("_partition = 1", 1),
        ("_partition = 3", 0),
        ("_partition IN (1, 2)", 2),
        ("_block = 2", 1),
        ("_block > 2", 3),
        ("_block = 6", 0),
        ("_partition = 0 AND _offset >= 3", 1),
        ("_offset > 100", 0),
        ("_timestamp > '2026-01-01T00:00:02Z' AND _partition = 0", 1),
        ("_timestamp >= '2026-01-02T00:00:00Z'", 0),
        ("_block = 2 AND vehicles > 5", 1),
        ("(_block = 2 OR vehicles > 5)", 4),
    ] {
        let query = format!("SELECT detector FROM traffic.flow WHERE {filter}");
        let plan = plan(&engine, &query).await;
        assert_eq!(files(&plan), expected, "{filter}\n{plan}");
    }
    assert_eq!(engine.metrics().verified_bytes(), 0, "planning reads nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_on_facts_alone_are_not_evaluated_again() {
    let city = common::city().await;
    let engine = city.engine();
    let exact = plan(&engine, "SELECT detector FROM traffic.flow WHERE _partition = 0 AND _block >= 4").await;
    assert!(!exact.contains("FilterExec"), "{exact}");
    let bounded = plan(&engine, "SELECT detector FROM traffic.flow WHERE _partition = 0 AND _offset = 3").await;
    assert!(bounded.contains("FilterExec: _offset"), "{bounded}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_goes_into_scans_without_quarantine_alone() {
    let city = common::city().await;
    let engine = city.engine();
    let clean = plan(&engine, "SELECT detector FROM traffic.flow WHERE _partition = 0 LIMIT 1").await;
    assert_eq!(files(&clean), 1, "the first segment has enough rows\n{clean}");
    assert!(clean.contains("limit=1"), "{clean}");
    let mixed = plan(&engine, "SELECT detector FROM traffic.flow WHERE _partition = 2 LIMIT 1").await;
    assert!(mixed.contains("_error"), "{mixed}");
    let scan = mixed.lines().find(|line| line.contains("DataSourceExec")).unwrap();
    assert!(!scan.contains("limit="), "{mixed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_and_bounds_without_quarantine_read_nothing() {
    let city = common::city().await;
    let engine = city.engine();
    let query = "SELECT count(*), min(_offset), max(_timestamp), max(_block) FROM traffic.flow WHERE _partition < 2";
    let counted = plan(&engine, query).await;
    assert!(!counted.contains("DataSourceExec: file_groups"), "{counted}");
    engine.sql(query, None).await.unwrap();
    assert_eq!(engine.metrics().verified_bytes(), 0);
    let read = plan(&engine, "SELECT count(*) FROM traffic.flow").await;
    assert!(read.contains("_error"), "with quarantine the rows must be counted\n{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_columns_asked_for_are_read() {
    let city = common::city().await;
    let engine = city.engine();
    let plan = plan(&engine, "SELECT vehicles FROM traffic.flow WHERE _partition = 0").await;
    assert!(plan.contains("projection=[vehicles]"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_statement_at_the_same_height_gives_the_same_rows() {
    let city = common::city().await;
    let engine = city.engine();
    let query = "SELECT * FROM traffic.flow ORDER BY _partition, _offset";
    let first = engine.sql(query, Some(cairn_proof::Height(4))).await.unwrap();
    for _ in 0..3 {
        let again = engine.sql(query, Some(cairn_proof::Height(4))).await.unwrap();
        assert_eq!(again.batches, first.batches);
        assert_eq!(again.height, cairn_proof::Height(4));
    }
}

/// EXPLAIN ANALYZE of a query: the number behind the first of each name.
async fn analyzed(engine: &Engine, query: &str, names: &[&str]) -> Vec<String> {
    let answer = engine.sql(&format!("EXPLAIN ANALYZE {query}"), None).await.unwrap();
    let batch = &answer.batches[0];
    let plan = batch.column(1).as_string::<i32>().value(0).to_owned();
    let value = |name: &&str| {
        let from = plan.find(&format!("{name}=")).unwrap_or_else(|| panic!("{name} is not in\n{plan}"));
        plan[from + name.len() + 1..].split([',', ']']).next().unwrap().to_owned()
    };
    names.iter().map(value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_analyze_shows_what_was_opened_and_verified() {
    let city = common::city().await;
    let engine = city.engine();
    let names = ["segments_opened", "segments_pruned", "groups_verified", "bytes_verified", "time_verifying"];
    let query = "SELECT detector FROM traffic.flow WHERE _partition = 0 AND _timestamp = '2026-01-01T00:00:04Z'";
    let found = analyzed(&engine, query, &names).await;
    // One segment of the five: 2 rows, less than a chunk group.
    assert_eq!(found[..2], ["1", "4"]);
    assert_ne!(found[2], "0", "{found:?}");
    assert_ne!(found[3], "0", "{found:?}");
    assert!(engine.metrics().verified_bytes() > 0);
}

/// Many batches of ten seconds each, so that opening one too many shows.
#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_by_time_opens_what_it_must_and_no_more() {
    const SEGMENTS: u64 = 60;
    let mut city = City::empty();
    let flow = stream("traffic.flow", &[FLOW_V1], 2);
    city.register(flow.clone(), 1);
    let value = |offset: u64| format!(r#"{{"detector":"D{}","vehicles":{offset}}}"#, offset % 7);
    for segment in 0..SEGMENTS {
        let first = segment * 10;
        let batch: Vec<_> = (first..first + 10).map(|offset| (offset, Ok(value(offset)))).collect();
        city.anchor(&flow, 0, first, first + 9, &batch, 2 + segment).await;
    }
    for (filter, opened, rows) in [
        ("_timestamp = '2026-01-01T00:05:05Z'", 1, 1),
        ("_timestamp BETWEEN '2026-01-01T00:05:09Z' AND '2026-01-01T00:05:10Z'", 2, 2),
        ("_timestamp >= '2026-01-01T00:05:10Z' AND _timestamp < '2026-01-01T00:05:20Z'", 1, 10),
        ("_partition = 0 AND _offset = 317", 1, 1),
        ("_offset IN (5, 595)", 2, 2),
        ("_block = 40", 1, 10),
        ("_timestamp = '2026-01-01T00:05:05Z' AND vehicles = 4", 1, 0),
    ] {
        let engine = city.engine();
        let query = format!("SELECT vehicles FROM traffic.flow WHERE {filter}");
        assert_eq!(engine.sql(&query, None).await.unwrap().rows(), rows, "{filter}");
        let found = analyzed(&engine, &query, &["segments_opened", "segments_pruned"]).await;
        assert_eq!(found, [opened.to_string(), (SEGMENTS - opened).to_string()], "{filter}");
    }
    for filter in ["_timestamp > '2027-01-01T00:00:00Z'", "_offset = 600", "_partition = 1", "_block = 1"] {
        let engine = city.engine();
        let query = format!("SELECT vehicles FROM traffic.flow WHERE {filter}");
        assert_eq!(engine.sql(&query, None).await.unwrap().rows(), 0, "{filter}");
        assert_eq!(engine.metrics().verified_bytes(), 0, "nothing was opened: {filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_of_verified_bytes_answers_again_and_does_not_change_answers() {
    let city = common::city().await;
    let query = "SELECT * FROM traffic.flow ORDER BY _partition, _offset";
    let plain = city.engine().sql(query, None).await.unwrap();
    let engine = city.engine_with(QueryConfig { verified_cache_mib: 16, ..QueryConfig::default() });
    assert_eq!(engine.sql(query, None).await.unwrap().batches, plain.batches);
    let verified = engine.metrics().verified_bytes();
    assert!(verified > 0);
    for _ in 0..3 {
        assert_eq!(engine.sql(query, None).await.unwrap().batches, plain.batches);
    }
    assert_eq!(engine.metrics().verified_bytes(), verified, "the same bytes are not read again");
    assert!(engine.metrics().cached_bytes() > 0);
    let found = analyzed(&engine, "SELECT vehicles FROM traffic.flow WHERE _partition = 0", &["bytes_cached"]).await;
    assert_ne!(found[0], "0");
}
