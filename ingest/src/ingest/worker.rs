//! The thread that reads: polls every partition in turn, grows batches, sends them on their way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use cairn_anchor::pipeline::Outcome;
use cairn_proof::{Digest, Offset, Partition};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::RDKafkaErrorCode;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::batches::{Batches, Done, Stream};
use super::partition::{Batching, Step};
use super::progress::{Doubt, Progress};
use super::source::{Queue, Source, append, offset_of};
use crate::error::{Error, Result};
use crate::kafka::{TopicIds, reason};
use crate::metrics::{Metrics, Waiting};

/// Messages that one partition may take before the next one's turn.
const TURN_MESSAGES: usize = 1_000;
/// Bytes that one partition may take before the next one's turn.
const TURN_BYTES: u64 = 1 << 20;
/// The longest sleep when nothing is there to read.
const IDLE_MAX: Duration = Duration::from_millis(100);
/// How often gauges are set.
const GAUGES_EVERY: Duration = Duration::from_millis(250);
/// The same complaint about a partition is not repeated more often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// How long a partition that gave its batch back is not read.
const REST: Duration = Duration::from_secs(5);
/// Of the memory, so many quarters may be held before it is short.
const SHORT_QUARTERS: u64 = 3;

/// Tells one partition from all others, for as long as the worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SlotId(usize);

/// What the worker is told.
pub(super) enum Command {
    /// Read a stream from these places; or do not, and say why.
    Follow(Arc<Stream>, Vec<Start>, Option<String>),
    /// A batch that was on its way has arrived.
    Arrived(SlotId, Result<Done>),
    /// What the broker has of a partition, because its position is in doubt.
    Check(Doubt),
    /// End, after waiting so long for batches that are on their way.
    Stop(Duration),
}

/// Where a partition stands on the chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) partition: Partition,
    /// The offset that the next anchor begins with.
    pub(super) next: Offset,
    /// Id of the last anchor.
    pub(super) previous: Digest,
}

struct Slot {
    stream: Arc<Stream>,
    partition: Partition,
    queue: Queue,
    batching: Batching,
    state: State,
    /// A position that is of before the last seek, and says nothing.
    outdated: Option<Offset>,
    complained: Option<Instant>,
    /// That it was given back, and waits.
    waiting: Option<Waiting>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// The consumer is to continue at this offset; tried until it does.
    Seeking(Offset),
    /// The broker does not have the position: its ends are being asked for.
    InDoubt,
    /// The batch was given back, to be read again: not before this.
    Resting(Offset, Instant),
    /// A person has to look.
    Stopped,
}

pub(super) struct Worker {
    pub(super) source: Source,
    pub(super) commands: Receiver<Command>,
    pub(super) sender: Sender,
    pub(super) runtime: Handle,
    pub(super) batches: Arc<Batches>,
    pub(super) progress: Arc<Progress>,
    pub(super) metrics: Metrics,
    pub(super) topics: TopicIds,
    pub(super) memory_bytes_max: u64,
}

/// Sends commands, and wakes the worker.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) commands: std::sync::mpsc::Sender<Command>,
    pub(super) thread: Arc<std::sync::OnceLock<Thread>>,
}

impl Sender {
    pub(super) fn send(&self, command: Command) {
        // A worker that has ended needs no commands.
        let _ = self.commands.send(command);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Worker {
    /// Runs until it is told to stop, or until whoever sends commands is gone.
    pub(super) fn run(self) {
        let mut running = Running {
            worker: self,
            slots: Vec::new(),
            by_place: HashMap::new(),
            under_way: JoinSet::new(),
            turn: 0,
            gauges_set: Instant::now(),
            thread: std::thread::current(),
        };
        let _ = running.worker.sender.thread.set(running.thread.clone());
        running.run();
    }
}

struct Running {
    worker: Worker,
    slots: Vec<Slot>,
    by_place: HashMap<(String, u32), SlotId>,
    under_way: JoinSet<()>,
    turn: usize,
    gauges_set: Instant,
    thread: Thread,
}

impl Running {
    fn run(&mut self) {
        loop {
            if let Some(grace) = self.obey() {
                return self.finish(grace);
            }
            let held: u64 = self.slots.iter().map(|slot| slot.batching.held()).sum();
            let mut memory_left = self.worker.memory_bytes_max.saturating_sub(held);
            self.worker.batches.memory_is_short(held >= self.worker.memory_bytes_max / 4 * SHORT_QUARTERS);
            let read = self.read_all(&mut memory_left);
            // After reading, in this order, and before anything read is sent: see `TopicIds`.
            self.serve_events();
            self.stop_changed_topics();
            let now = Instant::now();
            self.send_due(now, memory_left == 0);
            while self.under_way.try_join_next().is_some() {}
            if now - self.gauges_set >= GAUGES_EVERY {
                self.set_gauges(now);
            }
            if read == 0 {
                std::thread::park_timeout(self.idle(now));
            }
        }
    }

    /// Follows all commands that have come; returns the grace when it is time to end.
    fn obey(&mut self) -> Option<Duration> {
        loop {
            match self.worker.commands.try_recv() {
                Ok(Command::Follow(stream, heads, objection)) => self.follow(&stream, &heads, objection),
                Ok(Command::Arrived(id, outcome)) => self.arrived(id, outcome),
                Ok(Command::Check(doubt)) => self.check_position(&doubt),
                Ok(Command::Stop(grace)) => return Some(grace),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => return Some(Duration::ZERO),
            }
        }
    }

    fn follow(&mut self, stream: &Arc<Stream>, starts: &[Start], objection: Option<String>) {
        let topic = &stream.definition.topic;
        for start in starts {
            self.worker.progress.follow(stream, start.partition, start.next);
            self.worker.metrics.anchored(stream.name(), start.partition, start.next);
        }
        let assigned = match objection {
            Some(why) => Err(Error::corrupted(why)),
            None => self.worker.source.assign(topic, starts, &self.thread),
        };
        let queues = match assigned {
            Ok(queues) => queues,
            Err(error) => {
                for start in starts {
                    self.worker.progress.stop(stream.name(), start.partition, &error.to_string());
                    self.worker.metrics.stopped(stream.name(), start.partition, &error.to_string());
                }
                return;
            }
        };
        let definition = &stream.definition;
        for (start, queue) in starts.iter().zip(queues) {
            let (limits, gaps_allowed) = (definition.limits, definition.gaps_allowed);
            let batching = Batching::new(start.partition, limits, gaps_allowed, start.next, start.previous);
            self.by_place.insert((topic.clone(), start.partition.0), SlotId(self.slots.len()));
            self.slots.push(Slot {
                stream: stream.clone(),
                partition: start.partition,
                queue,
                batching,
                state: State::Reading,
                outdated: None,
                complained: None,
                waiting: None,
            });
        }
        self.worker.metrics.following(stream.name(), definition.partitions);
    }

    fn arrived(&mut self, id: SlotId, outcome: Result<Done>) {
        let slot = &mut self.slots[id.0];
        let name = slot.stream.name();
        match outcome {
            Ok(Done::Decided(Outcome::Anchored(anchored))) => {
                slot.batching.anchored(anchored.id);
                self.worker.progress.anchored(name, slot.partition, anchored.next);
                self.worker.metrics.anchored(name, slot.partition, anchored.next);
            }
            Ok(Done::Decided(Outcome::Lost { head })) => {
                slot.batching.restart(head.next, head.anchor);
                if slot.state != State::Stopped {
                    slot.state = State::Seeking(head.next);
                }
                self.worker.progress.anchored(name, slot.partition, head.next);
                self.worker.metrics.anchored(name, slot.partition, head.next);
            }
            Ok(Done::GivenBack { first, previous, waiting }) => {
                slot.waiting = Some(waiting);
                slot.batching.restart(first, previous);
                if slot.state != State::Stopped {
                    slot.state = State::Resting(first, Instant::now() + REST);
                }
            }
            Err(error) => self.stop_slot(id, &error),
        }
    }

    fn stop_slot(&mut self, id: SlotId, error: &Error) {
        let slot = &mut self.slots[id.0];
        let name = slot.stream.name();
        self.worker.progress.stop(name, slot.partition, &error.to_string());
        self.worker.metrics.stopped(name, slot.partition, &error.to_string());
        slot.state = State::Stopped;
        slot.waiting = None;
        let next = slot.batching.next();
        slot.batching.restart(next, Digest::ZERO);
        if let Err(error) = self.worker.source.unassign(&slot.stream.definition.topic, slot.partition) {
            tracing::warn!(%error, "a stopped partition is still assigned");
        }
    }

    /// Stops every partition of a topic that is another one than before.
    fn stop_topic(&mut self, topic: &str, error: &Error) {
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            if slot.state != State::Stopped && slot.stream.definition.topic == topic {
                self.stop_slot(SlotId(at), error);
            }
        }
    }

    fn stop_changed_topics(&mut self) {
        if !self.worker.topics.any_changed() {
            return;
        }
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            if slot.state == State::Stopped || !self.worker.topics.has_changed(&slot.stream.definition.topic) {
                continue;
            }
            let topic = slot.stream.definition.topic.clone();
            let error = Error::corrupted(format!(
                "the topic {topic} was deleted and made anew: what it holds now is not what is anchored; restore it, or \
                 register a stream with another topic"
            ));
            self.stop_topic(&topic, &error);
        }
    }

    /// Compares a partition's position with what the broker has.
    fn check_position(&mut self, doubt: &Doubt) {
        let Some(&id) = self.by_place.get(&(doubt.topic.clone(), doubt.partition.0)) else { return };
        let slot = &mut self.slots[id.0];
        if slot.state == State::Stopped {
            return;
        }
        let Doubt { topic, ends, anchored, .. } = doubt;
        let next = slot.batching.next();
        // What was fetched before it was deleted is still on its way, and may be read.
        let nothing_comes = slot.state == State::InDoubt || slot.batching.held() == 0;
        if anchored > &ends.end {
            let error = Error::corrupted(format!(
                "offset {anchored} is next, but the topic {topic} ends at {}: it was truncated or made anew, and what \
                 it holds now is not what is anchored; restore it, or register a stream with another topic",
                ends.end
            ));
            self.stop_topic(topic, &error);
        } else if next < ends.start && nothing_comes && !slot.stream.definition.gaps_allowed {
            let error = Error::corrupted(format!(
                "offset {next} is next, but the topic {topic} begins at {}: records were deleted before they were \
                 anchored, and the stream does not allow gaps; restore them, or register a stream that allows gaps",
                ends.start
            ));
            self.stop_slot(id, &error);
        } else if next < ends.start && nothing_comes {
            if slot.batching.is_full() {
                return;
            }
            // Declared at once: nothing may be left behind it that would do so when it comes. And done once: seeking again
            // while what was asked for is on its way would throw it away, again and again.
            slot.state = State::Seeking(ends.start);
            self.declare_empty(id, ends.start);
        } else if slot.state == State::InDoubt {
            slot.state = State::Seeking(next);
        } else if slot.state == State::Reading && next < ends.end && !slot.batching.is_full() {
            self.look_behind(id, ends.end);
        }
    }

    /// Looks whether what was read last are messages that only librdkafka sees: then there is no record before them.
    fn look_behind(&mut self, id: SlotId, end: Offset) {
        let slot = &mut self.slots[id.0];
        let position = match self.worker.source.position(&slot.stream.definition.topic, slot.partition) {
            Ok(position) => position,
            Err(error) => {
                self.complain(id, &error.to_string());
                return;
            }
        };
        if position.is_some() && position == slot.outdated {
            return;
        }
        slot.outdated = None;
        if let Some(position) = position.filter(|position| *position > slot.batching.next() && *position <= end) {
            self.declare_empty(id, position);
        }
    }

    /// Takes note that there is no record from the one that is next up to `end`.
    fn declare_empty(&mut self, id: SlotId, end: Offset) {
        let slot = &mut self.slots[id.0];
        let (next, last) = (slot.batching.next(), Offset(end.0.saturating_sub(1)));
        if !slot.stream.definition.gaps_allowed {
            let error = hole(&slot.stream, next, last);
            return self.stop_slot(id, &error);
        }
        match slot.batching.declare_empty(last, Instant::now()) {
            Ok(()) => self.worker.metrics.gap(slot.stream.name(), slot.partition, next, last),
            Err(error) => {
                let error = Error::bug(format!("offsets {next} to {last} do not fit their batch")).because(error);
                self.stop_slot(id, &error);
            }
        }
    }

    /// Errors of the connection, and messages that came before their queue was split off.
    fn serve_events(&mut self) {
        let mut strays = 0;
        while let Some(event) = self.worker.source.event() {
            match event {
                Ok(message) => {
                    // Cannot happen as queues are split off first; if it does, the message is read again in its turn.
                    let place = (message.topic().to_owned(), u32::try_from(message.partition()).unwrap_or(u32::MAX));
                    if let Some(id) = self.by_place.get(&place) {
                        let slot = &mut self.slots[id.0];
                        if slot.state == State::Reading {
                            slot.state = State::Seeking(slot.batching.next());
                        }
                    }
                }
                Err(error) => self.worker.metrics.kafka_error(&code(&error), &reason(&error)),
            }
            strays += 1;
            if strays >= TURN_MESSAGES {
                return;
            }
        }
    }

    /// Gives each partition its turn; returns how many messages were read.
    fn read_all(&mut self, memory_left: &mut u64) -> usize {
        let count = self.slots.len();
        let mut read = 0;
        for at in 0..count {
            if *memory_left == 0 {
                break;
            }
            let id = SlotId((self.turn + at) % count);
            read += self.read_slot(id, memory_left);
        }
        // Whoever was first is last in the next round, which matters when memory is short.
        self.turn = if count == 0 { 0 } else { (self.turn + 1) % count };
        read
    }

    fn read_slot(&mut self, id: SlotId, memory_left: &mut u64) -> usize {
        let slot = &mut self.slots[id.0];
        if let State::Resting(from, until) = slot.state
            && until <= Instant::now()
        {
            slot.state = State::Seeking(from);
        }
        if let State::Seeking(to) = slot.state {
            match self.worker.source.seek(&slot.stream.definition.topic, slot.partition, to) {
                Ok(outdated) => (slot.state, slot.outdated) = (State::Reading, outdated),
                Err(error) => return self.complain(id, &error.to_string()),
            }
        }
        if slot.state != State::Reading {
            return 0;
        }
        let (mut messages, mut bytes) = (0, 0);
        let now = Instant::now();
        let mut trouble = None;
        while messages < TURN_MESSAGES && bytes < TURN_BYTES.min(*memory_left) && !slot.batching.is_full() {
            match slot.queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    match take(&message, &mut slot.batching, &slot.stream, &self.worker.metrics, now) {
                        Ok(taken) => {
                            messages += 1;
                            bytes += taken;
                        }
                        Err(error) => {
                            trouble = Some(Trouble::Stop(error));
                            break;
                        }
                    }
                }
                Some(Err(error)) => {
                    trouble = Some(Trouble::Kafka(error));
                    break;
                }
            }
        }
        if messages > 0 {
            self.worker.metrics.read(slot.stream.name(), messages as u64, bytes);
            *memory_left = memory_left.saturating_sub(bytes);
        }
        match trouble {
            None => {}
            Some(Trouble::Stop(error)) => self.stop_slot(id, &error),
            Some(Trouble::Kafka(error)) => self.partition_error(id, &error),
        }
        messages
    }

    fn partition_error(&mut self, id: SlotId, error: &KafkaError) {
        self.worker.metrics.kafka_error(&code(error), &reason(error));
        let slot = &mut self.slots[id.0];
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                slot.state = State::InDoubt;
                self.worker.progress.doubt(slot.stream.name(), slot.partition);
            }
            _ => {
                self.complain(id, &reason(error));
            }
        }
    }

    /// Says what is wrong with a partition, once in a while.
    fn complain(&mut self, id: SlotId, what: &str) -> usize {
        let slot = &mut self.slots[id.0];
        if slot.complained.is_none_or(|before| before.elapsed() >= COMPLAIN_EVERY) {
            slot.complained = Some(Instant::now());
            let (stream, partition) = (slot.stream.name(), slot.partition.0);
            tracing::warn!(stream, partition, "cannot be read at the moment: {what}");
        }
        0
    }

    fn send_due(&mut self, now: Instant, memory_is_short: bool) {
        for at in 0..self.slots.len() {
            if self.slots[at].state != State::Stopped && self.slots[at].batching.is_due(now, memory_is_short) {
                self.send(SlotId(at));
            }
        }
    }

    fn send(&mut self, id: SlotId) {
        let slot = &mut self.slots[id.0];
        let (raw, previous) = match slot.batching.close() {
            Ok(closed) => closed,
            Err(error) => {
                return self.stop_slot(id, &Error::bug("a batch could not be closed").because(error));
            }
        };
        let waiting = slot.waiting.take();
        let (batches, stream, sender) = (self.worker.batches.clone(), slot.stream.clone(), self.worker.sender.clone());
        self.under_way.spawn_on(
            async move {
                let outcome = batches.anchor(stream, raw, previous, waiting).await;
                sender.send(Command::Arrived(id, outcome));
            },
            &self.worker.runtime,
        );
    }

    fn set_gauges(&mut self, now: Instant) {
        self.gauges_set = now;
        let held: u64 = self.slots.iter().map(|slot| slot.batching.held()).sum();
        let short = held >= self.worker.memory_bytes_max;
        let paused = self.slots.iter().filter(|slot| match slot.state {
            State::Reading => short || slot.batching.is_paused(),
            State::Resting(..) => true,
            _ => false,
        });
        self.worker.metrics.pressure(paused.count(), held);
    }

    /// How long to sleep: until the next batch is old enough, or a message or a command wakes the thread.
    fn idle(&self, now: Instant) -> Duration {
        let deadlines = self.slots.iter().filter_map(|slot| slot.batching.deadline());
        deadlines.map(|deadline| deadline.saturating_duration_since(now)).min().unwrap_or(IDLE_MAX).min(IDLE_MAX)
    }

    /// Reads no more, and gives batches that are on their way some time to arrive.
    fn finish(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        while self.slots.iter().any(|slot| slot.batching.is_under_way()) && Instant::now() < deadline {
            if let Ok(Command::Arrived(id, outcome)) = self.worker.commands.recv_timeout(Duration::from_millis(50)) {
                self.arrived(id, outcome);
            }
        }
        self.under_way.abort_all();
    }
}

/// Why reading a partition ended before its turn did.
enum Trouble {
    Stop(Error),
    Kafka(KafkaError),
}

/// Takes a message into the growing batch; returns its bytes.
fn take(
    message: &BorrowedMessage<'_>,
    batching: &mut Batching,
    stream: &Stream,
    metrics: &Metrics,
    now: Instant,
) -> Result<u64> {
    let offset = offset_of(message);
    let gap = match batching.step(offset) {
        Step::Stale => return Ok(0),
        Step::Next => false,
        Step::Gap { first, last } => {
            let partition = Partition(u32::try_from(message.partition()).unwrap_or_default());
            metrics.gap(stream.name(), partition, first, last);
            true
        }
        Step::Hole { first, last } => {
            return Err(hole(stream, first, last));
        }
    };
    batching
        .append(gap, now, |batch| append(message, batch))
        .map_err(|error| Error::bug(format!("offset {offset} does not fit its batch")).because(error))
}

fn hole(stream: &Stream, first: Offset, last: Offset) -> Error {
    Error::corrupted(format!(
        "the topic {} has no records at offsets {first} to {last}, and the stream does not allow gaps; if it is \
         compacted or written with transactions, register a stream that allows them",
        stream.definition.topic
    ))
}

fn code(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| "other".to_owned(), |code| format!("{code:?}"))
}
