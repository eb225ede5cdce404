//! Statements out of a seed, answered here and by plain DataFusion on the same files: the same rows.
//!
//! Streams are the built-in ones, with old batches, gaps, quarantined records and four partitions; statements run at
//! heights that see all of it or a part. `cairn-bench -- differential` asks more of the same questions.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use cairn_anchor::schema::{ERROR, OFFSET, PARTITION, TIMESTAMP, own_columns, table_schema};
use cairn_proof::Height;
use cairn_proof::statement::StreamDefinition;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::prelude::SessionContext;

use crate::common::{City, Row, stream};
use generator::{Choices, FIRST_RECORD_MS, Table, statement};

mod generator;

const SEED: u64 = 20_261_128;
const STATEMENTS: usize = 150;
/// The heights that statements run at: nothing yet, some, all.
const HEIGHTS: [u64; 3] = [3, 5, 9];
const BUILT_IN: [(&str, &str); 3] = [
    ("traffic.flow", include_str!("../../schemas/traffic.flow.avsc")),
    ("energy.meter_reading", include_str!("../../schemas/energy.meter_reading.avsc")),
    ("emergency.incident", include_str!("../../schemas/emergency.incident.avsc")),
];

/// A stream with its batches: four partitions of different lengths, one of them empty.
async fn fill(city: &mut City, definition: &StreamDefinition, table: &Table, choices: &mut Choices) {
    city.register(definition.clone(), 1);
    for partition in 0..3_u32 {
        let mut next = 0;
        for batch in 0..4 - u64::from(partition) {
            let records = 30 + u64::from(partition) * 7;
            let rows: Vec<Row> = (next..next + records)
                .map(|offset| match offset % 23 == 22 && partition == 2 {
                    true => (offset, Err("not a record")),
                    false => (offset, Ok(table.record(choices))),
                })
                .collect();
            city.anchor(definition, partition, next, next + records - 1, &rows, 3 + batch * 2).await;
            next += records;
        }
    }
}

/// A stream at a height, in plain DataFusion: its files as they lie there, without the quarantined records.
async fn register(plain: &SessionContext, city: &City, definition: &StreamDefinition, height: u64, name: &str) {
    let columns = table_schema(definition).unwrap();
    let own = own_columns();
    let own = own.iter().filter(|field| [PARTITION, OFFSET, TIMESTAMP, ERROR].contains(&field.name().as_str()));
    let file = Arc::new(Schema::new(columns.fields().iter().chain(own).cloned().collect::<Vec<_>>()));
    let objects = city.folder.path().join("objects");
    let of_height =
        city.entries().iter().filter(|entry| entry.anchor.stream == definition.name && entry.height.0 <= height);
    let paths: Vec<PathBuf> = of_height.map(|entry| objects.join(&entry.anchor.segment.path)).collect();
    let urls = paths.iter().map(|path| ListingTableUrl::parse(path.to_str().unwrap()).unwrap()).collect();
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
    let config = ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options).with_schema(file);
    let raw = format!("raw_{name}");
    plain.register_table(&raw, Arc::new(ListingTable::try_new(config).unwrap())).unwrap();
    let rows = plain.sql(&format!("SELECT * FROM {raw} WHERE {ERROR} IS NULL")).await.unwrap();
    plain.register_table(name, rows.into_view()).unwrap();
}

fn plain_name(table: &str, height: u64) -> String {
    format!("{}_{height}", table.replace('.', "_"))
}

fn sorted(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<_> = columns.iter().map(|column| column.value(row).to_string()).collect();
            rows.push(cells.join(" | "));
        }
    }
    rows.sort_unstable();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_those_of_plain_datafusion() {
    let mut city = City::empty();
    let mut choices = Choices::new(SEED);
    let plain = SessionContext::new();
    plain.sql("SET datafusion.execution.time_zone = 'UTC'").await.unwrap();
    let mut tables = Vec::new();
    for (name, schema) in BUILT_IN {
        let definition = stream(name, &[schema], 4);
        let table = Table::new(name, &table_schema(&definition).unwrap());
        fill(&mut city, &definition, &table, &mut choices).await;
        for height in HEIGHTS {
            register(&plain, &city, &definition, height, &plain_name(name, height)).await;
        }
        tables.push(table);
    }
    assert_eq!(FIRST_RECORD_MS, crate::common::NEW_YEAR, "filters by time are about the records' own times");
    let engine = city.engine();
    let (mut rows, mut empty) = (0, 0);
    for number in 0..STATEMENTS {
        let height = HEIGHTS[number % HEIGHTS.len()];
        let asked = statement(&mut choices, &tables);
        let ours = asked.replace(['{', '}'], "");
        let theirs = tables
            .iter()
            .fold(asked, |sql, table| sql.replace(&format!("{{{}}}", table.name), &plain_name(&table.name, height)));
        let expected = plain.sql(&theirs).await.unwrap_or_else(|error| panic!("{theirs}\n{error}"));
        let expected = sorted(&expected.collect().await.unwrap_or_else(|error| panic!("{theirs}\n{error}")));
        let found = engine.sql(&ours, Some(Height(height))).await.unwrap_or_else(|error| panic!("{ours}\n{error}"));
        assert_eq!(sorted(&found.batches), expected, "statement {number}, at height {height}: {ours}");
        rows += expected.len();
        empty += usize::from(expected.is_empty());
    }
    assert!(rows > STATEMENTS && empty < STATEMENTS / 2, "{rows} rows, {empty} answers without any: too easy");
}
