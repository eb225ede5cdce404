//! Bytes at rest: the segments of a run against plain Parquet files of the stream's columns, batch by batch.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use serde_json::{Map, Value, json};

use super::{load::Topic, rounded};

/// Segments that are compared.
const SEGMENTS: usize = 8;
/// The column with the records' own bytes.
const RAW: &str = "_raw";

fn segments(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            segments(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
    Ok(())
}

/// Size of the same rows as plain Parquet of the stream's own columns, with zstd as segments have it.
fn plain(segment: &Path, columns: &[String]) -> Result<usize> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(segment)?)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().map(String::as_str));
    let reader = builder.with_projection(mask).build()?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?)).build();
    let schema = arrow::record_batch::RecordBatchReader::schema(&reader);
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    for batch in reader {
        writer.write(&batch?)?;
    }
    Ok(writer.into_inner()?.len())
}

/// Bytes of one column.
fn column_bytes(segment: &Path, column: &str) -> Result<u64> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(segment)?)?;
    let chunks = builder.metadata().row_groups().iter().flat_map(|group| group.columns());
    let found = chunks.filter(|chunk| chunk.column_path().string() == column);
    Ok(found.map(|chunk| u64::try_from(chunk.compressed_size()).unwrap_or_default()).sum())
}

/// Compares some segments below `folder`.
#[allow(clippy::cast_precision_loss)]
pub(super) fn measure(topic: &Topic, folder: &Path) -> Result<Map<String, Value>> {
    let mut found = Vec::new();
    segments(&folder.join("objects"), &mut found)?;
    found.sort();
    let columns: Vec<String> = cairn_ingest::Encoder::new(&topic.definition)?.fields().map(str::to_owned).collect();
    let (mut whole, mut raw, mut bare) = (0, 0, 0);
    let every = (found.len() / SEGMENTS).max(1);
    for segment in found.iter().step_by(every) {
        let context = || format!("comparing {}", segment.display());
        whole += std::fs::metadata(segment)?.len();
        raw += column_bytes(segment, RAW).with_context(context)?;
        bare += plain(segment, &columns).with_context(context)?;
    }
    let mut figures = Map::new();
    figures.insert("segments".into(), json!(found.len()));
    figures.insert("at_rest_over_plain".into(), rounded(whole as f64 / bare as f64));
    figures.insert("at_rest_without_raw_over_plain".into(), rounded((whole - raw) as f64 / bare as f64));
    Ok(figures)
}
