//! Ingest: reads every partition of the registered streams and brings its records onto the chain, batch by batch.
//!
//! ```text
//!  follower ──new streams──▶ supervisor ──▶ worker thread ◀── Kafka (a queue for each partition)
//!                                              │  ▲
//!                                     batches  ▼  │ anchored, lost, failed
//!                        tasks: decode ▶ seal ▶ store ▶ submit ▶ final         prober: ends of the topics ▶ lag
//! ```
//!
//! **Exactly once.** A partition is read from the offset that the chain says is next, a batch names the anchor before
//! it, and the chain takes each offset once. So nothing has to be remembered here: whatever this process held when it
//! was killed is read again, and whoever else anchored the same offsets makes this one drop its batch and go on from
//! the new head. Kafka's committed offsets play no part.
//!
//! **What stops.** A partition stops, with an error in the log, the metrics and [`RunningIngest::status`], when reading
//! on would leave something out unseen: a hole that the stream does not allow, a topic that was made anew, a refusal of
//! the chain. All others go on.
//!
//! **Offsets without a record** (markers and aborted records of transactions, what was compacted or deleted) become a
//! declared gap with the next record. Where none follows, they become one too: what lies before the partition's first
//! offset as the broker tells it, and what lies before a marker that librdkafka has read and keeps to itself.
//!
//! **A topic made anew** under its old name is told by its id while ingest runs, and by its records when it starts; see
//! `continuity`.

mod batches;
mod continuity;
mod partition;
mod progress;
mod source;
#[cfg(test)]
mod tests;
mod worker;
mod writers;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cairn_anchor::pipeline::Anchorer;
use cairn_chain_client::Follower;
use cairn_proof::Partition;
use cairn_proof::identity::IdentityId;
use cairn_proof::statement::{Role, StreamDefinition};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

pub use progress::PartitionStatus;

use crate::config::IngestConfig;
use crate::dead_letter::{Cursors, DeadLetters, TURNS};
use crate::decode::StreamDecoder;
use crate::error::{Error, Result};
use crate::kafka::{KafkaConfig, Quiet, TopicIds};
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::topics::Prober;
use batches::{Batches, Stream};
use continuity::History;
use progress::Progress;
use source::Source;
use worker::{Command, Sender, Start, Worker};

/// How long one attempt to catch up with the chain may take.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(30);
/// Streams are looked for at each new block, and at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Starts ingest.
#[derive(Debug, Clone, Copy)]
pub struct Ingest;

/// Ingest at work. [`stop`](Self::stop) ends it; dropping it does too, without waiting.
#[derive(Debug)]
pub struct RunningIngest {
    sender: Sender,
    worker: Option<std::thread::JoinHandle<()>>,
    ended: watch::Receiver<bool>,
    supervisor: JoinHandle<()>,
    prober: JoinHandle<()>,
    dead_letters: Option<JoinHandle<()>>,
    progress: Arc<Progress>,
    grace: Duration,
}

impl Ingest {
    /// Starts reading all streams that `identity` may anchor, those registered now and those to come. `anchorer` signs
    /// as that identity. Must be called within a tokio runtime.
    ///
    /// Returns at once: a chain or a broker that is out of reach is waited for.
    ///
    /// # Errors
    /// [`Input`](crate::ErrorKind::Input) for a setting that is wrong.
    pub fn start(
        config: &IngestConfig,
        anchorer: Anchorer,
        identity: IdentityId,
        metrics: Metrics,
    ) -> Result<RunningIngest> {
        config.check()?;
        let follower = anchorer.follower().clone();
        let expected = {
            let ledger = follower.ledger();
            ledger.streams().values().map(|entry| entry.definition.partitions as usize).sum::<usize>()
        };
        let registry = config.registry.as_ref().map(|registry| Registry::new(registry, metrics.clone())).transpose()?;
        let cursors = config.dead_letter.as_ref().map(|config| {
            let chain = *follower.ledger().state().chain();
            Cursors::open(&config.cursor_file, &chain)
        });
        let cursors = cursors.transpose()?;
        let topics = TopicIds::default();
        let source = Source::connect(config, expected.max(16), &topics)?;
        let (commands, receiver) = std::sync::mpsc::channel();
        let sender = Sender { commands, thread: Arc::new(OnceLock::new()) };
        let progress = Arc::new(Progress::default());
        let worker = Worker {
            source,
            commands: receiver,
            sender: sender.clone(),
            runtime: tokio::runtime::Handle::current(),
            batches: Arc::new(Batches::new(
                anchorer.clone(),
                config.seal_tasks_max,
                registry.map(Arc::new),
                metrics.clone(),
            )),
            progress: progress.clone(),
            metrics: metrics.clone(),
            topics: topics.clone(),
            memory_bytes_max: config.memory_bytes_max,
        };
        let (ends, ended) = watch::channel(false);
        let worker = std::thread::Builder::new()
            .name("cairn-ingest".into())
            .spawn(move || {
                worker.run();
                ends.send_replace(true);
            })
            .map_err(|error| Error::retry("the reading thread cannot be started").because(error))?;
        let dead_letters = config.dead_letter.clone().zip(cursors).map(|(letters, cursors)| {
            let (kafka, anchorer, metrics) = (config.kafka.clone(), anchorer.clone(), metrics.clone());
            let turns = Semaphore::new(TURNS);
            tokio::spawn(DeadLetters { config: letters, kafka, anchorer, identity, cursors, metrics, turns }.run())
        });
        let history = History::new(anchorer, config.kafka.clone(), topics.clone());
        let supervisor = tokio::spawn(supervise(history, identity, sender.clone()));
        let every = Duration::from_millis(config.probe_interval_ms);
        let asking = Asking { kafka: config.kafka.clone(), topics, progress: progress.clone() };
        let prober = tokio::spawn(probe(asking, every, metrics, sender.clone()));
        let grace = Duration::from_millis(config.stop_grace_ms);
        Ok(RunningIngest { sender, worker: Some(worker), ended, supervisor, prober, dead_letters, progress, grace })
    }
}

impl RunningIngest {
    /// How far each partition is.
    pub fn status(&self) -> Vec<PartitionStatus> {
        self.progress.statuses()
    }

    /// Waits until the reading thread has ended by itself, which it does only when something is broken.
    pub async fn wait(&self) -> Error {
        let mut ended = self.ended.clone();
        // The sender is dropped with the thread, so an error says the same.
        let _ = ended.wait_for(|ended| *ended).await;
        Error::bug("the reading thread of ingest has ended")
    }

    /// Ends reading; waits a little for batches that are on their way to the chain. What does not arrive in time is
    /// read again at the next start.
    pub async fn stop(mut self) {
        self.end_tasks();
        self.sender.send(Command::Stop(self.grace));
        if let Some(worker) = self.worker.take() {
            let joined = tokio::task::spawn_blocking(move || worker.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the reading thread of ingest did not end in order");
            }
        }
    }
}

impl RunningIngest {
    fn end_tasks(&self) {
        self.supervisor.abort();
        self.prober.abort();
        // What is on its way into the topic then, and not noted as delivered, is delivered again.
        if let Some(dead_letters) = &self.dead_letters {
            dead_letters.abort();
        }
    }
}

impl Drop for RunningIngest {
    fn drop(&mut self) {
        self.end_tasks();
        self.sender.send(Command::Stop(Duration::ZERO));
    }
}

/// Tells the worker of every stream that may be anchored, as soon as the chain has it.
async fn supervise(history: History, identity: IdentityId, sender: Sender) {
    let follower = history.follower().clone();
    while let Err(error) = follower.catch_up(CATCH_UP_PATIENCE).await {
        tracing::warn!(%error, "ingest waits for the chain");
    }
    let mut heights = follower.subscribe();
    let mut known = BTreeSet::new();
    // Ends with this task. One stream whose broker is out of reach does not keep the others waiting.
    let mut following = JoinSet::new();
    loop {
        for definition in granted(&follower, &identity, &mut known) {
            following.spawn(follow(history.clone(), definition, sender.clone()));
        }
        while following.try_join_next().is_some() {}
        // A follower that has ended leaves the streams as they are.
        let _ = tokio::time::timeout(LOOK_EVERY, heights.changed()).await;
        if heights.has_changed().is_err() {
            while following.join_next().await.is_some() {}
            return;
        }
    }
}

/// The streams that this identity may anchor, by their definition or by a later grant, and that are not read yet.
fn granted(follower: &Follower, identity: &IdentityId, known: &mut BTreeSet<String>) -> Vec<StreamDefinition> {
    let ledger = follower.ledger();
    if ledger.streams().len() == known.len() {
        return Vec::new();
    }
    let may = |name: &str| ledger.state().has_role(name, Role::Anchorer, identity);
    let new = ledger.streams().iter().filter(|(name, _)| !known.contains(*name) && may(name));
    let definitions: Vec<_> = new.map(|(_, entry)| entry.definition.clone()).collect();
    known.extend(definitions.iter().map(|definition| definition.name.clone()));
    definitions
}

async fn follow(history: History, definition: StreamDefinition, sender: Sender) {
    // What is read is decoded by the newest version that the chain has then: see `batches`.
    let (definition, decoder) = match StreamDecoder::newest(&definition) {
        Ok((definition, decoder, _)) => (definition, decoder),
        Err(error) => {
            tracing::error!(stream = definition.name, %error, "the stream cannot be decoded and is not read");
            return;
        }
    };
    let objection = history.objection(&definition).await;
    let starts = {
        let ledger = history.follower().ledger();
        let state = ledger.state();
        (0..definition.partitions)
            .map(Partition)
            .map(|partition| {
                let head = state.head(&definition.name, partition).unwrap_or_default();
                Start { partition, next: head.next, previous: head.anchor }
            })
            .collect()
    };
    sender.send(Command::Follow(Arc::new(Stream { definition: Arc::new(definition), decoder }), starts, objection));
}

/// What is needed to ask where topics end.
struct Asking {
    kafka: KafkaConfig,
    topics: TopicIds,
    progress: Arc<Progress>,
}

/// Asks the broker again and again where the topics end.
async fn probe(asking: Asking, every: Duration, metrics: Metrics, sender: Sender) {
    let Asking { kafka, topics: ids, progress } = asking;
    let mut prober = None;
    let mut complaint = String::new();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let topics = progress.topics();
        if topics.is_empty() {
            continue;
        }
        let before = progress.heads();
        let client: Option<Prober> = prober.take();
        let (kafka, ids) = (kafka.clone(), ids.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let mut client = client.map_or_else(|| Prober::connect(&kafka, Quiet::noting(&ids)), Ok)?;
            let ends = client.ends(&topics)?;
            Ok::<_, Error>((client, ends))
        });
        match asked.await {
            Ok(Ok((client, ends))) => {
                prober = Some(client);
                complaint.clear();
                for doubt in progress.observe(&ends, &before, &metrics) {
                    sender.send(Command::Check(doubt));
                }
            }
            Ok(Err(error)) if error.to_string() != complaint => {
                tracing::warn!(%error, "the ends of the topics are not known");
                complaint = error.to_string();
            }
            Ok(Err(_)) => {}
            Err(error) => tracing::error!(%error, "asking for the ends of the topics failed"),
        }
    }
}
