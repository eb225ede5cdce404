//! Dead letters: quarantined records once more, in a Kafka topic, with headers as Kafka Connect writes them.
//!
//! ```text
//!  chain ──final anchors──▶ those of this identity with quarantined records ──▶ segment, verified
//!                                            ▲                                      │ rows with a reason
//!                             cursor (a file), per stream ◀──acknowledged by all── topic
//! ```
//!
//! **What is true stays on the chain.** A dead letter is a copy of what is anchored as quarantined, made after the anchor is
//! final and read from its verified segment. So nothing here can hold up anchoring, for any time: an outage of the topic
//! makes copies late, and is counted. The quarantine is the outbox: what the topic has not acknowledged is read again.
//!
//! **At least once.** The cursor of a stream moves past an anchor when every replica in sync has acknowledged all its dead
//! letters. Entries are doubled when the process ends between the two, when a broker's acknowledgement is lost for good, and
//! when two processes run with the same identity and different cursor files. Two with different identities double nothing:
//! each delivers what it anchored itself.
//!
//! What it does not: decide what is quarantined (`crate::decode`, `crate::signatures`), or keep order between partitions.

mod cursor;
mod delivery;
mod entry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cairn_anchor::pipeline::Anchorer;
use cairn_chain_client::{AnchorEntry, Ledger};
use cairn_proof::identity::IdentityId;
use cairn_proof::statement::StreamDefinition;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::in_range;
use crate::error::{Error, Result};
use crate::kafka::KafkaConfig;
use crate::metrics::Metrics;
pub(crate) use cursor::Cursors;
use delivery::Delivery;

/// How long one attempt to catch up with the chain may take.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(30);
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// What a pattern may hold besides words of topics' names.
const PLACES: [&str; 2] = ["{topic}", "{stream}"];
/// Segments that are read and delivered at a time, whatever the number of streams.
pub(crate) const TURNS: usize = 4;
/// As Kafka allows.
const TOPIC_BYTES_MAX: usize = 249;

/// Where dead letters go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterConfig {
    /// The topic, in which `{topic}` and `{stream}` stand for a stream's topic and name.
    pub topic: String,
    /// How many partitions a topic gets that is not there yet, 1 to 1,000. One that is there is taken as it is.
    #[serde(default = "default_partitions")]
    pub partitions: u32,
    /// Where to begin without a cursor: at the first anchor of the log, or with what is anchored from then on.
    #[serde(default)]
    pub backfill: bool,
    /// The file that says what was delivered.
    pub cursor_file: PathBuf,
}

fn default_partitions() -> u32 {
    1
}

impl DeadLetterConfig {
    /// The topics of a pattern; the cursor is kept in the given file.
    pub fn new(topic: impl Into<String>, cursor_file: impl Into<PathBuf>) -> Self {
        let (topic, cursor_file) = (topic.into(), cursor_file.into());
        Self { topic, partitions: default_partitions(), backfill: false, cursor_file }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input), naming the key, the value and what is allowed.
    pub fn check(&self) -> Result<()> {
        in_range("partitions", u64::from(self.partitions), 1..=1_000)?;
        let rest = PLACES.iter().fold(self.topic.clone(), |rest, place| rest.replace(place, ""));
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.topic.is_empty() || self.topic.len() > TOPIC_BYTES_MAX || !rest.chars().all(allowed) {
            return Err(Error::input(format!(
                "`topic` = {:?}: expected 1 to {TOPIC_BYTES_MAX} of a–z, A–Z, 0–9, '.', '_' and '-', with {{topic}} or \
                 {{stream}} where those of a stream belong",
                self.topic
            )));
        }
        Ok(())
    }

    /// The topic that a stream's dead letters go to.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input) when it is the stream's own, which would feed itself, or no name of a topic.
    fn topic_of(&self, definition: &StreamDefinition) -> Result<String> {
        let topic = self.topic.replace(PLACES[0], &definition.topic).replace(PLACES[1], &definition.name);
        if topic == definition.topic {
            return Err(Error::input(format!(
                "`topic` = {:?}: dead letters of the stream {} would go into its own topic {topic}",
                self.topic, definition.name
            )));
        }
        if topic.len() > TOPIC_BYTES_MAX || matches!(topic.as_str(), "." | "..") {
            return Err(Error::input(format!(
                "`topic` = {:?}: {topic:?} is no topic's name; at most {TOPIC_BYTES_MAX} characters",
                self.topic
            )));
        }
        Ok(topic)
    }
}

/// Delivers dead letters of whatever an identity anchors, until it is dropped.
pub(crate) struct DeadLetters {
    pub(crate) config: DeadLetterConfig,
    pub(crate) kafka: KafkaConfig,
    pub(crate) anchorer: Anchorer,
    pub(crate) identity: IdentityId,
    pub(crate) cursors: Cursors,
    pub(crate) metrics: Metrics,
    pub(crate) turns: Semaphore,
}

impl DeadLetters {
    pub(crate) async fn run(self) {
        let follower = self.anchorer.follower().clone();
        while let Err(error) = follower.catch_up(CATCH_UP_PATIENCE).await {
            tracing::debug!(%error, "dead letters wait for the chain");
        }
        let this = Arc::new(self);
        let start = match this.config.backfill {
            true => 0,
            false => follower.ledger().all_anchors().last().map_or(0, |entry| entry.log_index.0 + 1),
        };
        let mut pause = Pause::new();
        while let Err(error) = this.cursors.begin(start).await {
            tracing::error!(%error, "dead letters wait");
            pause.pass().await;
        }
        let mut heights = follower.subscribe();
        let mut known = BTreeSet::new();
        // Ends with this task. One stream whose topic is out of reach does not keep the others waiting.
        let mut streams = JoinSet::new();
        loop {
            let new: Vec<StreamDefinition> = {
                let ledger = follower.ledger();
                let new = ledger.streams().values().filter(|entry| !known.contains(&entry.definition.name));
                new.map(|entry| entry.definition.clone()).collect()
            };
            for definition in new {
                known.insert(definition.name.clone());
                streams.spawn(this.clone().deliver_stream(definition));
            }
            if heights.changed().await.is_err() {
                while streams.join_next().await.is_some() {}
                return;
            }
        }
    }

    /// Delivers what is anchored of one stream, anchor by anchor.
    async fn deliver_stream(self: Arc<Self>, definition: StreamDefinition) {
        let name = definition.name.as_str();
        let topic = match self.config.topic_of(&definition) {
            Ok(topic) => topic,
            Err(error) => {
                tracing::error!(stream = name, %error, "dead letters of this stream are not delivered");
                return;
            }
        };
        let mut heights = self.anchorer.follower().subscribe();
        let mut waiting = Waiting { looked_to: self.cursors.of(name), anchors: VecDeque::new() };
        let mut delivery = Delivery::new(&self, &definition, topic);
        loop {
            waiting.look(&self.anchorer.follower().ledger(), name, &self.identity);
            self.metrics.dead_letters_waiting(name, waiting.records());
            let Some(entry) = waiting.anchors.front() else {
                if heights.changed().await.is_err() {
                    return;
                }
                continue;
            };
            delivery.deliver(entry).await;
            let mut pause = Pause::new();
            while let Err(error) = self.cursors.advance(name, entry.log_index.0 + 1).await {
                tracing::error!(stream = name, %error, "what was delivered cannot be noted");
                pause.pass().await;
            }
            waiting.anchors.pop_front();
        }
    }
}

/// The anchors of a stream with quarantined records that are not delivered yet, in the order of the log.
struct Waiting {
    looked_to: u64,
    anchors: VecDeque<Arc<AnchorEntry>>,
}

impl Waiting {
    fn look(&mut self, ledger: &Ledger, stream: &str, identity: &IdentityId) {
        let all = ledger.all_anchors();
        let from = all.partition_point(|entry| entry.log_index.0 < self.looked_to);
        let ours = |entry: &&Arc<AnchorEntry>| {
            entry.anchor.quarantined > 0 && entry.anchor.stream == stream && entry.signer == *identity
        };
        self.anchors.extend(all[from..].iter().filter(ours).cloned());
        self.looked_to = all.last().map_or(self.looked_to, |entry| self.looked_to.max(entry.log_index.0 + 1));
    }

    fn records(&self) -> u64 {
        self.anchors.iter().map(|entry| entry.anchor.quarantined).sum()
    }
}

/// Growing pauses between attempts.
struct Pause(Duration);

impl Pause {
    fn new() -> Self {
        Self(PAUSE_MIN)
    }

    async fn pass(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(PAUSE_MAX);
    }
}
