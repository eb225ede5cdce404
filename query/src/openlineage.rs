//! OpenLineage events: each query says to whoever collects lineage what it reads, when it starts and how it ends.
//!
//! ```text
//! statement ─ planned ─▶ START ─┐                                       ┌▶ file, one event a line
//!           ─ ended ───▶ COMPLETE, FAIL, ABORT ─▶ queue (bounded) ─▶ sink ┤
//!                                  └ full: dropped, counted              └▶ http(s), one event a request
//! ```
//!
//! Off unless configured. It never holds up a statement and never fails one: an event that finds the queue full, or
//! that the sink cannot get rid of, is counted and gone. Events hold the text of statements, and so whatever values stand
//! in it.
//!
//! A statement has a run once it is planned and reads streams or the chain's tables; what fails before has no inputs to
//! tell of. The forms are those of the OpenLineage specification, version 2-0-2.

mod event;
mod sink;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cairn_proof::units::Height;
use datafusion::logical_expr::LogicalPlan;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::{mpsc, oneshot};
use url::Url;

use crate::catalog::HeightCatalog;
use crate::config::ConfigError;
use crate::engine::StartError;
use crate::error::QueryErrorKind;
use event::{End, Event, Told};
use sink::Sink;

/// The most events that may wait.
const QUEUE_MAX: usize = 100_000;
/// The longest name of a namespace.
const NAMESPACE_BYTES_MAX: usize = 512;

/// Where events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineageTarget {
    /// A file that lines are appended to; made with mode 0600 if it is not there.
    File(PathBuf),
    /// An address that takes events by POST, such as `http://marquez:5000/api/v1/lineage`.
    Http {
        /// The address.
        url: Url,
        /// A bearer token.
        token: Option<String>,
        /// PEM of the authority that its certificate is checked against, beside those that the system knows.
        root_certificate: Option<Vec<u8>>,
    },
}

/// How events are made and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineageConfig {
    /// The namespace of jobs and datasets, such as `cairn://city`.
    pub namespace: String,
    /// Where they go.
    pub target: LineageTarget,
    /// How many events may wait; those that find no place are dropped.
    pub queue_max: usize,
    /// How long one request may take, in milliseconds.
    pub timeout_ms: u64,
}

impl LineageConfig {
    /// With the default limits.
    pub fn new(namespace: impl Into<String>, target: LineageTarget) -> Self {
        Self { namespace: namespace.into(), target, queue_max: 1_024, timeout_ms: 5_000 }
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    /// Names the first key that is out of range, its value and the range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, value: String, allowed: String| Err(ConfigError { key, value, allowed });
        if self.namespace.is_empty() || self.namespace.len() > NAMESPACE_BYTES_MAX {
            let allowed = format!("allowed are 1 to {NAMESPACE_BYTES_MAX} bytes");
            return wrong("namespace", self.namespace.clone(), allowed);
        }
        if let LineageTarget::Http { url, .. } = &self.target
            && !(matches!(url.scheme(), "http" | "https") && url.has_host())
        {
            return wrong("url", url.to_string(), "allowed is an address with http or https".to_owned());
        }
        if let LineageTarget::Http { url, .. } = &self.target
            && (!url.username().is_empty() || url.password().is_some())
        {
            let allowed = "it holds credentials: put a token into credentials_file".to_owned();
            return wrong("url", "…".to_owned(), allowed);
        }
        if self.queue_max == 0 || self.queue_max > QUEUE_MAX {
            return wrong("queue_max", self.queue_max.to_string(), format!("allowed is 1 to {QUEUE_MAX}"));
        }
        if self.timeout_ms == 0 || self.timeout_ms > 60_000 {
            return wrong("timeout_ms", self.timeout_ms.to_string(), "allowed is 1 to 60000".to_owned());
        }
        Ok(())
    }
}

/// What became of events, as `cairn_query_openlineage_events_total{outcome}`.
#[derive(Debug, Clone)]
struct Outcomes(IntCounterVec);

impl Outcomes {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = Opts::new("cairn_query_openlineage_events_total", "OpenLineage events, by what became of them");
        let events = IntCounterVec::new(opts, &["outcome"])?;
        for outcome in ["sent", "dropped", "failed"] {
            // So that each is there from the start, at 0.
            events.with_label_values(&[outcome]);
        }
        registry.register(Box::new(events.clone()))?;
        Ok(Self(events))
    }

    fn count(&self, outcome: &str) {
        self.0.with_label_values(&[outcome]).inc();
    }
}

/// What goes through the queue.
enum Message {
    Event(Box<Event>),
    /// Answered once all that was queued before is gone.
    Flush(oneshot::Sender<()>),
}

/// Takes events. A clone is the same one.
#[derive(Debug, Clone)]
pub struct OpenLineage {
    namespace: Arc<str>,
    queue: mpsc::Sender<Message>,
    outcomes: Outcomes,
}

impl OpenLineage {
    /// Starts what sends events, as a task of the current runtime; it ends with the last clone.
    ///
    /// # Errors
    /// The configuration is out of range, the file cannot be opened, or `registry` has a metric of the same name.
    pub fn start(config: LineageConfig, registry: &Registry) -> Result<Self, StartError> {
        config.check()?;
        let outcomes = Outcomes::register(registry)?;
        let sink = Sink::open(&config)?;
        let (queue, messages) = mpsc::channel(config.queue_max);
        tokio::spawn(sink::run(sink, messages, outcomes.clone()));
        Ok(Self { namespace: config.namespace.into(), queue, outcomes })
    }

    /// Waits until what is queued by now was sent or given up, for at most so long.
    pub async fn flush(&self, patience: Duration) {
        let (done, all) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Message::Flush(done)).await.is_ok() {
                drop(all.await);
            }
        };
        if tokio::time::timeout(patience, flushed).await.is_err() {
            tracing::warn!("query: OpenLineage events were still queued when their time was over");
        }
    }

    /// Says that a statement starts. Its end is told by what is returned.
    pub(crate) fn begin(&self, plan: &LogicalPlan, text: &str, catalog: &HeightCatalog) -> Run {
        let told = Told::new(&self.namespace, plan, text, catalog);
        let run = Run { lineage: self.clone(), told: Arc::new(told) };
        run.say(End::Start);
        run
    }

    fn offer(&self, event: Event) {
        if self.queue.try_send(Message::Event(Box::new(event))).is_err() {
            self.outcomes.count("dropped");
        }
    }
}

/// A statement that runs, as OpenLineage has it.
#[derive(Debug)]
pub(crate) struct Run {
    lineage: OpenLineage,
    told: Arc<Told>,
}

impl Run {
    /// The statement ended.
    pub(crate) fn end(&self, outcome: Result<(), QueryErrorKind>, message: Option<&str>) {
        self.say(match outcome {
            Ok(()) => End::Complete,
            Err(QueryErrorKind::Cancelled) => End::Abort,
            Err(kind) => End::Fail(message.unwrap_or(kind.outcome()).to_owned()),
        });
    }

    fn say(&self, end: End) {
        self.lineage.offer(Event { told: Arc::clone(&self.told), end, time: chrono::Utc::now() });
    }
}

/// A height, as facets have it.
fn version(height: Height) -> String {
    height.0.to_string()
}
