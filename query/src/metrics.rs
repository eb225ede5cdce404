//! The numbers of the query role, in the Prometheus registry that the process serves.
//!
//! | metric | what |
//! | --- | --- |
//! | `cairn_query_statements_total{outcome}` | statements that ended, by outcome: `ok` or a kind of error |
//! | `cairn_query_seconds` | how long statements took, from parsing to the last row |
//! | `cairn_query_rows_total` | rows handed to clients |
//! | `cairn_query_verified_bytes_total` | segment bytes that were hashed and matched the chain |
//! | `cairn_query_cached_bytes_total` | segment bytes that had been verified before and came out of memory |
//! | `cairn_query_cache_bytes` | memory that verified segment bytes take |
//! | `cairn_query_cache_evictions_total` | pieces that left that memory to make room |
//! | `cairn_query_refused_total` | reads that were refused because bytes did not match, were missing or too short |
//! | `cairn_query_problems` | batches that are listed in `cairn.problems` |
//! | `cairn_query_follower_height` | the newest finalized block that statements see |
//! | `cairn_query_connections` | clients connected to the Postgres port |
//! | `cairn_query_flight_connections` | clients connected to the Flight SQL port |
//! | `cairn_query_openlineage_events_total{outcome}` | events about queries: `sent`, `dropped` or `failed` ([`crate::openlineage`]) |
//! | `cairn_query_unreadable_total{wire}` | messages and calls that could not be read, `postgres` or `flight` |

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cairn_anchor::verified::Counters;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::error::QueryErrorKind;

/// The counters of the query role. Cloning shares them.
#[derive(Debug, Clone)]
pub struct QueryMetrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    statements: IntCounterVec,
    seconds: Histogram,
    rows: IntCounter,
    verified_bytes: IntCounter,
    verified_seen: AtomicU64,
    cached_bytes: IntCounter,
    cached_seen: AtomicU64,
    cache_bytes: IntGauge,
    evictions: IntCounter,
    evictions_seen: AtomicU64,
    refused: IntCounter,
    refused_seen: AtomicU64,
    problems: IntGauge,
    follower_height: IntGauge,
    connections: IntGauge,
    flight_connections: IntGauge,
    unreadable: IntCounterVec,
}

impl QueryMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// The registry already holds metrics of these names.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let inner = Inner {
            unreadable: unreadable()?,
            flight_connections: IntGauge::new(
                "cairn_query_flight_connections",
                "Clients connected to the Flight SQL port",
            )?,
            statements: statements()?,
            seconds: Histogram::with_opts(
                HistogramOpts::new("cairn_query_seconds", "Duration of statements, in seconds")
                    .buckets(vec![0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]),
            )?,
            rows: IntCounter::new("cairn_query_rows_total", "Rows handed to clients")?,
            verified_bytes: IntCounter::new(
                "cairn_query_verified_bytes_total",
                "Segment bytes that were hashed and matched the chain",
            )?,
            verified_seen: AtomicU64::new(0),
            cached_bytes: IntCounter::new(
                "cairn_query_cached_bytes_total",
                "Segment bytes that had been verified before and came out of memory",
            )?,
            cached_seen: AtomicU64::new(0),
            cache_bytes: IntGauge::new("cairn_query_cache_bytes", "Memory that verified segment bytes take")?,
            evictions: IntCounter::new(
                "cairn_query_cache_evictions_total",
                "Pieces of verified segment bytes that left memory to make room",
            )?,
            evictions_seen: AtomicU64::new(0),
            refused_seen: AtomicU64::new(0),
            refused: IntCounter::new(
                "cairn_query_refused_total",
                "Reads refused because stored bytes did not match the chain, were missing or too short",
            )?,
            problems: IntGauge::new(
                "cairn_query_problems",
                "Batches known not to verify, as cairn.problems lists them",
            )?,
            follower_height: IntGauge::new(
                "cairn_query_follower_height",
                "The newest finalized block that statements see",
            )?,
            connections: IntGauge::new("cairn_query_connections", "Clients connected to the Postgres port")?,
        };
        registry.register(Box::new(inner.statements.clone()))?;
        registry.register(Box::new(inner.seconds.clone()))?;
        registry.register(Box::new(inner.rows.clone()))?;
        registry.register(Box::new(inner.verified_bytes.clone()))?;
        registry.register(Box::new(inner.cached_bytes.clone()))?;
        registry.register(Box::new(inner.cache_bytes.clone()))?;
        registry.register(Box::new(inner.evictions.clone()))?;
        registry.register(Box::new(inner.refused.clone()))?;
        registry.register(Box::new(inner.problems.clone()))?;
        registry.register(Box::new(inner.follower_height.clone()))?;
        registry.register(Box::new(inner.connections.clone()))?;
        registry.register(Box::new(inner.flight_connections.clone()))?;
        registry.register(Box::new(inner.unreadable.clone()))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn statement_ended(&self, outcome: Result<(), QueryErrorKind>, took: Duration) {
        let label = outcome.err().map_or("ok", QueryErrorKind::outcome);
        self.inner.statements.with_label_values(&[label]).inc();
        self.inner.seconds.observe(took.as_secs_f64());
    }

    /// Takes over what the verified store counted since the last time.
    pub(crate) fn store_did(&self, store: &Counters) {
        let take = |seen: &AtomicU64, counter: &IntCounter, now: u64| {
            let before = seen.fetch_max(now, Ordering::Relaxed);
            counter.inc_by(now.saturating_sub(before));
        };
        take(&self.inner.verified_seen, &self.inner.verified_bytes, store.bytes_verified.get());
        take(&self.inner.cached_seen, &self.inner.cached_bytes, store.bytes_cached.get());
        take(&self.inner.evictions_seen, &self.inner.evictions, store.cache_evictions.get());
        self.inner.cache_bytes.set(store.cache_bytes.get());
        take(&self.inner.refused_seen, &self.inner.refused, store.failures.get());
    }

    pub(crate) fn problems_listed(&self, problems: usize) {
        self.inner.problems.set(i64::try_from(problems).unwrap_or(i64::MAX));
    }

    pub(crate) fn rows_handed_out(&self, rows: usize) {
        self.inner.rows.inc_by(rows as u64);
    }

    pub(crate) fn follower_at(&self, height: u64) {
        self.inner.follower_height.set(i64::try_from(height).unwrap_or(i64::MAX));
    }

    pub(crate) fn connected(&self, wire: Wire) -> ConnectionCount {
        let gauge = match wire {
            Wire::Postgres => &self.inner.connections,
            Wire::Flight => &self.inner.flight_connections,
        };
        gauge.inc();
        ConnectionCount(gauge.clone())
    }

    pub(crate) fn could_not_read(&self, wire: Wire) {
        self.inner.unreadable.with_label_values(&[wire.label()]).inc();
    }

    /// Messages and calls that could not be read so far; `wire` is `postgres` or `flight`.
    pub fn unreadable(&self, wire: &str) -> u64 {
        self.inner.unreadable.with_label_values(&[wire]).get()
    }

    /// Bytes that were hashed and matched the chain so far.
    pub fn verified_bytes(&self) -> u64 {
        self.inner.verified_bytes.get()
    }

    /// Bytes that had been verified before and came out of memory so far.
    pub fn cached_bytes(&self) -> u64 {
        self.inner.cached_bytes.get()
    }

    /// Reads that were refused so far.
    pub fn refused(&self) -> u64 {
        self.inner.refused.get()
    }

    /// Statements that ended with `outcome` so far.
    pub fn statements(&self, outcome: &str) -> u64 {
        self.inner.statements.with_label_values(&[outcome]).get()
    }
}

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Postgres,
    Flight,
}

impl Wire {
    fn label(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Flight => "flight",
        }
    }
}

/// Counts one connected client for as long as it lives.
#[derive(Debug)]
pub(crate) struct ConnectionCount(IntGauge);

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Statements by outcome, each outcome there from the start.
fn statements() -> Result<IntCounterVec, prometheus::Error> {
    let statements = IntCounterVec::new(
        Opts::new("cairn_query_statements_total", "Statements that ended, by outcome"),
        &["outcome"],
    )?;
    for kind in [
        QueryErrorKind::Statement,
        QueryErrorKind::NotAllowed,
        QueryErrorKind::Limit,
        QueryErrorKind::Cancelled,
        QueryErrorKind::Corrupted,
        QueryErrorKind::Unavailable,
        QueryErrorKind::Internal,
    ] {
        statements.with_label_values(&[kind.outcome()]);
    }
    statements.with_label_values(&["ok"]);
    Ok(statements)
}

/// What could not be read, by wire.
fn unreadable() -> Result<IntCounterVec, prometheus::Error> {
    let unreadable = IntCounterVec::new(
        Opts::new("cairn_query_unreadable_total", "Messages and calls of clients that could not be read"),
        &["wire"],
    )?;
    for wire in [Wire::Postgres, Wire::Flight] {
        unreadable.with_label_values(&[wire.label()]);
    }
    Ok(unreadable)
}
