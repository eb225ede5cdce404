//! Metrics of anchoring: what was anchored, how long each step took, what was lost to another worker.

use prometheus::{Error, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, exponential_buckets};

/// Metrics of one process; a clone counts into the same ones.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Records in anchored batches, by stream.
    pub records: IntCounterVec,
    /// Quarantined records in anchored batches, by stream.
    pub quarantined: IntCounterVec,
    /// Anchored batches, by stream.
    pub batches: IntCounterVec,
    /// Bytes of anchored segments, by stream.
    pub segment_bytes: IntCounterVec,
    /// Batches that another worker anchored first, by stream.
    pub lost: IntCounterVec,
    /// Attempts that failed and were, or will be, made again, by stream and step.
    pub retries: IntCounterVec,
    /// Statements with anchors, by what they hold: `one`, `several`; or `refused`, of several that then went alone.
    pub statements: IntCounterVec,
    /// Last anchored offset, by stream and partition.
    pub last_offset: IntGaugeVec,
    /// Seconds that a batch took, by stream and step: `seal`, `store`, `submit`.
    pub seconds: HistogramVec,
}

impl Metrics {
    /// Makes the metrics and shows them in `registry`.
    ///
    /// # Errors
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, Error>(counter)
        };
        let stream = &["stream"];
        let last_offset =
            IntGaugeVec::new(Opts::new("cairn_anchor_last_offset", "Last anchored offset."), &["stream", "partition"])?;
        registry.register(Box::new(last_offset.clone()))?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("cairn_anchor_seconds", "Time that a batch took, by step.")
                .buckets(exponential_buckets(0.001, 2.0, 16)?),
            &["stream", "step"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            records: counter("cairn_anchor_records_total", "Records in anchored batches.", stream)?,
            quarantined: counter("cairn_anchor_quarantined_total", "Quarantined records in anchored batches.", stream)?,
            batches: counter("cairn_anchor_batches_total", "Anchored batches.", stream)?,
            segment_bytes: counter("cairn_anchor_segment_bytes_total", "Bytes of anchored segments.", stream)?,
            lost: counter("cairn_anchor_lost_total", "Batches that another worker anchored first.", stream)?,
            retries: counter("cairn_anchor_retries_total", "Attempts to be made again.", &["stream", "step"])?,
            statements: counter("cairn_anchor_statements_total", "Statements with anchors.", &["anchors"])?,
            last_offset,
            seconds,
        })
    }
}
