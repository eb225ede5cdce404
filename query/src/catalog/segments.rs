//! Plans that read segments: which files, which columns, which statistics, in which order.
//!
//! The plan is DataFusion's own Parquet scan, over the verified store of this runtime. What comes from the anchor and
//! not from the file (`_partition`, `_block`, and for quarantine the stream) is a constant of each file, so that it
//! costs no read and cannot be claimed by the file.
//!
//! A file written under an older schema of the stream lacks columns, or has them in another type; the scan brings it into
//! the table's schema, which is always the stream's newest at the height ([`super::evolution`]).

use std::sync::Arc;

use cairn_anchor::roots::AnchoredObject;
use cairn_anchor::verified::VerifiedStore;
use cairn_chain_client::AnchorEntry;
use cairn_proof::statement::Anchor;
use chrono::{DateTime, Utc};
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Result, ScalarValue, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::MetricBuilder;
use object_store::ObjectMeta;

use super::evolution::Defaults;
use super::facts::{record_offsets, signed, valid_records};
use super::reader::SegmentReaders;
use crate::runtime::store_url;
use crate::scope::StatementScope;

/// How many column statistics one scan attaches to its files; beyond it planning would cost more than they save.
const FILE_STATISTICS_MAX: usize = 65_536;

/// One segment to read, and the constants that its rows get.
#[derive(Debug, Clone)]
pub(crate) struct SegmentFile {
    entry: Arc<AnchorEntry>,
    object: Arc<AnchoredObject>,
    constants: Vec<ScalarValue>,
}

impl SegmentFile {
    /// The segment of a batch.
    ///
    /// # Errors
    /// Its anchor was not taken by the verified store: it names an object that is not the batch's own.
    pub(crate) fn new(store: &VerifiedStore, constants: Vec<ScalarValue>, entry: Arc<AnchorEntry>) -> Result<Self> {
        let object =
            own_object(store, &entry.anchor).map_err(|foreign| DataFusionError::External(Box::new(foreign)))?;
        Ok(Self { entry, object, constants })
    }

    /// What the scan is told about the file: the anchor's facts, as the verified store itself tells them.
    fn meta(&self) -> ObjectMeta {
        let changed = DateTime::<Utc>::from_timestamp_millis(self.object.last_modified_ms);
        ObjectMeta {
            location: self.object.path.clone(),
            last_modified: changed.unwrap_or(DateTime::<Utc>::MAX_UTC),
            size: self.object.size,
            e_tag: None,
            version: None,
        }
    }
}

/// A scan over segments.
#[derive(Debug)]
pub(crate) struct SegmentScan<'a> {
    /// File columns and constants.
    pub(crate) schema: &'a TableSchema,
    /// The segments, in the order in which their rows should come.
    pub(crate) files: Vec<SegmentFile>,
    /// Columns of `schema` to hand out.
    pub(crate) projection: Vec<usize>,
    /// What stands in columns that a file does not have.
    pub(crate) defaults: Defaults,
    /// At most so many rows are needed.
    pub(crate) limit: Option<usize>,
    /// Where `_offset` and `_timestamp` stand in `schema`, if statistics about them may be used.
    pub(crate) bounds: Bounds,
    /// How many segments the anchors' facts ruled out, for EXPLAIN ANALYZE.
    pub(crate) pruned: usize,
}

/// Columns of a scan that anchors give bounds for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) offset: usize,
    pub(crate) timestamp: usize,
    /// Rows that the scan will drop (quarantined or valid ones): then nothing is exact but what holds for all rows.
    pub(crate) exact: bool,
}

impl SegmentScan<'_> {
    /// The physical plan.
    pub(crate) fn plan(self, state: &dyn Session, store: &VerifiedStore) -> Result<Arc<dyn ExecutionPlan>> {
        let runtime = state.runtime_env();
        let url = store_url()?;
        let footers = runtime.cache_manager.get_file_metadata_cache();
        let parquet = &state.config_options().execution.parquet;
        let options = TableParquetOptions { global: parquet.clone(), ..TableParquetOptions::default() };
        let scope = StatementScope::of(state);
        self.files.iter().for_each(|file| scope.computed_from(&file.object));
        let mut source = ParquetSource::new(self.schema.clone())
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(SegmentReaders::new(store.clone(), footers, scope)));
        MetricBuilder::new(source.metrics()).global_counter("segments_pruned").add(self.pruned);
        if let Some(hint) = parquet.metadata_size_hint {
            source = source.with_metadata_size_hint(hint);
        }
        let columns = self.schema.table_schema().fields().len();
        let per_file = self.files.len().saturating_mul(columns) <= FILE_STATISTICS_MAX;
        let mut files = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let mut planned = PartitionedFile::new_from_meta(file.meta()).with_partition_values(file.constants.clone());
            if per_file {
                planned = planned.with_statistics(Arc::new(self.file_statistics(&file.entry)));
            }
            files.push(planned);
        }
        let statistics = self.table_statistics();
        let groups = group(files, state.config().target_partitions());
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_limit(self.limit)
            .with_expr_adapter(self.defaults.adapter())
            .with_projection_indices(Some(self.projection))?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// Statistics of one file over the file's columns; those of the constants follow from the constants.
    fn file_statistics(&self, entry: &AnchorEntry) -> Statistics {
        let mut statistics = self.merged(std::iter::once(entry));
        statistics.column_statistics.truncate(self.schema.file_schema().fields().len());
        statistics
    }

    fn table_statistics(&self) -> Statistics {
        let mut statistics = self.merged(self.files.iter().map(|file| file.entry.as_ref()));
        let first_constant = self.schema.file_schema().fields().len();
        for (at, column) in statistics.column_statistics.iter_mut().skip(first_constant).enumerate() {
            let values = self.files.iter().filter_map(|file| file.constants.get(at));
            let least = values.clone().min_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
            let greatest = values.max_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
            *column = known(least.cloned(), greatest.cloned(), self.bounds.exact);
        }
        statistics
    }

    fn merged<'e>(&self, entries: impl Iterator<Item = &'e AnchorEntry>) -> Statistics {
        let mut statistics = Statistics::new_unknown(self.schema.table_schema());
        let mut rows = 0_u64;
        let mut bytes = 0_u64;
        let mut offsets: Option<(u64, u64)> = None;
        let mut times: Option<(i64, i64)> = None;
        for entry in entries {
            let anchor = &entry.anchor;
            rows = rows.saturating_add(if self.bounds.exact { valid_records(anchor) } else { anchor.count });
            bytes = bytes.saturating_add(anchor.segment.size);
            if let Some((first, last)) = record_offsets(anchor) {
                offsets = Some(widen(offsets, first.0, last.0));
                times = Some(widen(times, anchor.timestamp_min_ms, anchor.timestamp_max_ms));
            }
        }
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        statistics.num_rows = precise(rows, self.bounds.exact);
        statistics.total_byte_size = Precision::Inexact(usize::try_from(bytes).unwrap_or(usize::MAX));
        if let Some((least, greatest)) = offsets {
            let offset = |value| Some(ScalarValue::Int64(Some(signed(value))));
            statistics.column_statistics[self.bounds.offset] =
                known(offset(least), offset(greatest), self.bounds.exact);
        }
        if let Some((least, greatest)) = times {
            let field = self.schema.table_schema().field(self.bounds.timestamp);
            let time = |value| ScalarValue::TimestampMillisecond(Some(value), None).cast_to(field.data_type()).ok();
            statistics.column_statistics[self.bounds.timestamp] = known(time(least), time(greatest), self.bounds.exact);
        }
        statistics
    }
}

fn widen<T: Ord + Copy>(range: Option<(T, T)>, least: T, greatest: T) -> (T, T) {
    range.map_or((least, greatest), |(a, b)| (a.min(least), b.max(greatest)))
}

fn precise<T: std::fmt::Debug + Clone + PartialEq + Eq + PartialOrd>(value: T, exact: bool) -> Precision<T> {
    if exact { Precision::Exact(value) } else { Precision::Inexact(value) }
}

fn known(least: Option<ScalarValue>, greatest: Option<ScalarValue>, exact: bool) -> ColumnStatistics {
    let mut statistics = ColumnStatistics::new_unknown();
    statistics.null_count = Precision::Exact(0);
    statistics.min_value = least.map_or(Precision::Absent, |value| precise(value, exact));
    statistics.max_value = greatest.map_or(Precision::Absent, |value| precise(value, exact));
    statistics
}

/// The object that an anchor names, if it is the batch's own.
pub(crate) fn own_object(store: &VerifiedStore, anchor: &Anchor) -> Result<Arc<AnchoredObject>, ForeignSegment> {
    let own = |object: &Arc<AnchoredObject>| {
        object.blake3 == anchor.segment.blake3 && object.size == anchor.segment.size && object.stream == anchor.stream
    };
    store.roots().named(&anchor.segment.path).filter(own).ok_or_else(|| ForeignSegment {
        stream: anchor.stream.clone(),
        partition: anchor.partition.0,
        first: anchor.first.0,
        last: anchor.last.0,
        path: anchor.segment.path.clone(),
    })
}

/// An anchor names an object that does not follow from its own facts.
#[derive(Debug, thiserror::Error)]
#[error(
    "stream {stream}, partition {partition}, offsets {first} to {last}: the segment {path} is refused: its anchor \
     names an object that is not this batch's own"
)]
pub(crate) struct ForeignSegment {
    pub(crate) stream: String,
    pub(crate) partition: u32,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) path: String,
}

/// Splits files into at most `groups` runs of about the same size, keeping their order.
fn group(files: Vec<PartitionedFile>, groups: usize) -> Vec<FileGroup> {
    let total: u64 = files.iter().map(|file| file.object_meta.size).sum();
    let share = total.div_ceil(groups.max(1) as u64).max(1);
    let mut grouped: Vec<Vec<PartitionedFile>> = Vec::with_capacity(groups);
    let mut filled = 0_u64;
    for file in files {
        // The group that the middle of the file falls into, counted by bytes.
        let at = usize::try_from((filled + file.object_meta.size / 2) / share).unwrap_or(usize::MAX);
        filled += file.object_meta.size;
        if grouped.is_empty() || at >= grouped.len() && grouped.len() < groups.max(1) {
            grouped.push(Vec::new());
        }
        if let Some(last) = grouped.last_mut() {
            last.push(file);
        }
    }
    grouped.into_iter().map(FileGroup::new).collect()
}
