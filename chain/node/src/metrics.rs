//! This validator's own metrics; commonware's are added to them when they are asked for.

use cairn_chain_state::RefusalCode;
use cairn_proof::header::Header;
use prometheus::{Encoder as _, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder, core::Collector};
use tracing::error;

/// The metrics of one validator. Several validators may live in one process, so nothing here is global.
pub(crate) struct Metrics {
    registry: Registry,
    height: IntGauge,
    block_timestamp_seconds: IntGauge,
    log_anchors: IntGauge,
    finalized_statements: IntCounter,
    mempool_statements: IntGauge,
    mempool_bytes: IntGauge,
    refusals: IntCounterVec,
    /// Blocks of other validators that were not valid.
    pub(crate) blocks_refused: IntCounter,
    epoch: IntGauge,
    votes: IntGauge,
    /// Statements (and messages that are none) from other validators, by what became of them.
    pub(crate) gossip: IntCounterVec,
    /// Validators' signatures of checkpoints (and messages that hold none), by what became of them.
    pub(crate) cosignatures: IntCounterVec,
    /// What outside witnesses answered, by witness and outcome.
    pub(crate) witnesses: IntCounterVec,
    /// HTTP requests by route and status.
    pub(crate) requests: IntCounterVec,
    /// Open connections to the HTTP API.
    pub(crate) api_connections: IntGauge,
    /// HTTP requests that wait for a block or a statement.
    pub(crate) api_waiting: IntGauge,
    api_refused: IntCounterVec,
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let gauge = |name, help| keep(&registry, IntGauge::new(name, help));
        let counter = |name, help| keep(&registry, IntCounter::new(name, help));
        let vector = |name: &str, help: &str, labels: &[&str]| {
            keep(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        Self {
            height: gauge("cairn_chain_height", "Height of the last finalized block"),
            block_timestamp_seconds: gauge(
                "cairn_chain_block_timestamp_seconds",
                "Timestamp of the last finalized block, in seconds since 1970",
            ),
            log_anchors: gauge("cairn_chain_log_anchors", "Anchors in the finalized log"),
            finalized_statements: counter(
                "cairn_chain_finalized_statements_total",
                "Statements in finalized blocks, since genesis",
            ),
            mempool_statements: gauge("cairn_mempool_statements", "Statements that wait for a block"),
            mempool_bytes: gauge("cairn_mempool_bytes", "Bytes of the statements that wait for a block"),
            refusals: vector("cairn_statements_refused_total", "Statements refused, by reason", &["reason"]),
            blocks_refused: counter(
                "cairn_chain_blocks_refused_total",
                "Blocks of other validators that were not valid",
            ),
            epoch: gauge("cairn_chain_epoch", "The epoch that this node takes part in"),
            votes: gauge("cairn_chain_votes", "Whether this node votes in its epoch (1) or follows (0)"),
            gossip: vector(
                "cairn_gossip_statements_total",
                "Statements from other validators, by what became of them",
                &["outcome"],
            ),
            cosignatures: vector(
                "cairn_checkpoint_signatures_total",
                "Validators' signatures of checkpoints, by what became of them",
                &["outcome"],
            ),
            witnesses: vector(
                "cairn_witness_requests_total",
                "Checkpoints submitted to outside witnesses, by witness and outcome",
                &["witness", "outcome"],
            ),
            requests: vector("cairn_api_requests_total", "HTTP requests, by route and status", &["route", "status"]),
            api_connections: gauge("cairn_api_connections", "Open connections to the HTTP API"),
            api_waiting: gauge("cairn_api_waiting_requests", "HTTP requests that wait for a block or a statement"),
            api_refused: vector(
                "cairn_api_refused_total",
                "Connections and requests that the HTTP API refused or cut off at a limit, by reason",
                &["reason"],
            ),
            registry,
        }
    }

    /// A block became final.
    pub(crate) fn block(&self, header: &Header, statements: u64) {
        self.height.set(gauge_value(header.height.0));
        self.block_timestamp_seconds.set(gauge_value(header.timestamp_ms / 1_000));
        self.log_anchors.set(gauge_value(header.log_size.0));
        self.finalized_statements.inc_by(statements);
    }

    /// An epoch was entered.
    pub(crate) fn epoch(&self, epoch: u64, votes: bool) {
        self.epoch.set(gauge_value(epoch));
        self.votes.set(i64::from(votes));
    }

    /// The mempool changed.
    pub(crate) fn mempool(&self, statements: usize, bytes: usize) {
        self.mempool_statements.set(gauge_value(statements as u64));
        self.mempool_bytes.set(gauge_value(bytes as u64));
    }

    /// A statement was refused.
    pub(crate) fn refused(&self, code: RefusalCode) {
        self.refused_for(code.name());
    }

    /// A statement was refused for a reason that is not the chain's: too large, no room.
    pub(crate) fn refused_for(&self, reason: &'static str) {
        self.refusals.with_label_values(&[reason]).inc();
    }

    /// A connection or request passed a limit of the HTTP API.
    pub(crate) fn refused_api(&self, reason: &'static str) {
        self.api_refused.with_label_values(&[reason]).inc();
    }

    /// The Prometheus text of these metrics.
    pub(crate) fn text(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            error!(%error, "metrics do not encode");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

/// Registers a metric. Names are constants of this file, so that a wrong or a double one is a bug found by any test.
fn keep<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("metric names and labels are valid");
    registry.register(Box::new(metric.clone())).expect("each metric is registered once");
    metric
}

fn gauge_value(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
