//! Opens segments for the Parquet scan, and keeps the errors of the verified store whole.
//!
//! DataFusion's own caching reader puts an error of the footer into a text. Which segment of which records was refused
//! would then have to be read out of a sentence; this reader hands the error itself on.
//!
//! It also says what verifying cost, to `EXPLAIN ANALYZE`:
//!
//! | metric | what |
//! | --- | --- |
//! | `segments_opened` | segments that were opened |
//! | `segments_pruned` | segments that the anchors' facts ruled out before any was opened ([`super::segments`]) |
//! | `bytes_verified`, `groups_verified` | bytes, and chunk groups of 16 KiB, that were read and matched the chain |
//! | `bytes_cached` | bytes that had been verified before and came out of memory |
//! | `trees_verified` | hash trees that were read and matched the chain; the others were in memory |
//! | `time_verifying` | time spent hashing and comparing |

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cairn_anchor::verified::{Observer, VerifiedStore, Work};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::parquet::{CachedParquetFileReaderFactory, ParquetFileReaderFactory};
use datafusion::error::Result;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, Time};
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use crate::scope::StatementScope;

/// Makes readers over one store with one footer cache.
pub(crate) struct SegmentReaders {
    store: VerifiedStore,
    footers: Arc<FileMetadataCache>,
    /// The statement that reads.
    scope: Arc<StatementScope>,
    /// What was opened so far: a segment may be opened more than once, and counts once.
    opened: Mutex<HashSet<Path>>,
}

impl fmt::Debug for SegmentReaders {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SegmentReaders").finish_non_exhaustive()
    }
}

impl SegmentReaders {
    pub(crate) fn new(store: VerifiedStore, footers: Arc<FileMetadataCache>, scope: Arc<StatementScope>) -> Self {
        Self { store, footers, scope, opened: Mutex::default() }
    }
}

/// What a scan shows of its verifying.
struct Shown {
    bytes: Count,
    groups: Count,
    trees: Count,
    cached: Count,
    time: Time,
}

impl Shown {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let counter = |name| MetricBuilder::new(metrics).counter(name, partition);
        Self {
            bytes: counter("bytes_verified"),
            groups: counter("groups_verified"),
            trees: counter("trees_verified"),
            cached: counter("bytes_cached"),
            time: MetricBuilder::new(metrics).subset_time("time_verifying", partition),
        }
    }

    fn add(&self, work: &Work) {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        self.bytes.add(count(work.bytes_verified));
        self.groups.add(count(work.groups_verified));
        self.trees.add(count(work.trees_loaded));
        self.cached.add(count(work.bytes_cached));
        self.time.add_duration(Duration::from_nanos(work.hash_nanoseconds));
    }
}

impl ParquetFileReaderFactory for SegmentReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        footer_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let meta = file.object_meta.clone();
        if self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(meta.location.clone()) {
            MetricBuilder::new(metrics).counter("segments_opened", partition).add(1);
        }
        let shown = Shown::new(metrics, partition);
        let scope = Arc::clone(&self.scope);
        let observer = Observer::new(move |object, work| {
            shown.add(work);
            scope.has_read(object, work);
        });
        let store: Arc<dyn ObjectStore> = Arc::new(self.store.observed_by(observer));
        let readers = CachedParquetFileReaderFactory::new(Arc::clone(&store), Arc::clone(&self.footers));
        Ok(Box::new(SegmentReader {
            inner: readers.create_reader(partition, file, footer_hint, metrics)?,
            store,
            footers: Arc::clone(&self.footers),
            meta,
            footer_hint,
        }))
    }
}

struct SegmentReader {
    inner: Box<dyn AsyncFileReader + Send>,
    store: Arc<dyn ObjectStore>,
    footers: Arc<FileMetadataCache>,
    meta: ObjectMeta,
    footer_hint: Option<usize>,
}

impl AsyncFileReader for SegmentReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let page_index = options.map(ArrowReaderOptions::column_index_policy);
        async move {
            DFParquetMetadata::new(self.store.as_ref(), &self.meta)
                .with_file_metadata_cache(Some(Arc::clone(&self.footers)))
                .with_metadata_size_hint(self.footer_hint)
                .with_page_index_policy(page_index)
                .fetch_metadata()
                .await
                .map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }
}
