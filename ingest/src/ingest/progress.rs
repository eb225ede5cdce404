//! How far each partition is: what the worker, the prober and `status` share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cairn_proof::statement::StreamDefinition;
use cairn_proof::{Offset, Partition};

use super::batches::Stream;
use crate::metrics::Metrics;
use crate::topics::{Ends, TopicSpec};

/// How many observations of a topic's end are kept: the lag is exact for so many, and too low beyond.
const OBSERVATIONS_MAX: usize = 4_096;

/// How far one partition is.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionStatus {
    /// The stream.
    pub stream: String,
    /// The partition.
    pub partition: Partition,
    /// The offset that the next anchor begins with.
    pub anchored: Offset,
    /// The offset that the next published record will get, once the broker was asked.
    pub end: Option<Offset>,
    /// For how many seconds the oldest record without an anchor has been there, as far as this process has seen.
    pub lag_seconds: f64,
    /// Why it is not read any more, if so.
    pub stopped: Option<String>,
}

#[derive(Debug)]
struct Place {
    stream: Arc<Stream>,
    anchored: Offset,
    end: Option<Offset>,
    /// When the topic's end was first seen to be beyond an offset, oldest first.
    observed: VecDeque<(Offset, Instant)>,
    in_doubt: bool,
    /// The offset that the next anchor began with when the broker was asked the last time.
    rested: Option<Offset>,
    stopped: Option<String>,
}

impl Place {
    fn observe(&mut self, end: Offset, now: Instant) {
        self.end = Some(end);
        if self.observed.back().is_none_or(|(before, _)| *before < end) {
            self.observed.push_back((end, now));
        }
        if self.observed.len() > OBSERVATIONS_MAX {
            self.observed.pop_front();
        }
        self.forget();
    }

    fn forget(&mut self) {
        while self.observed.front().is_some_and(|(end, _)| *end <= self.anchored) {
            self.observed.pop_front();
        }
    }

    fn lag_seconds(&self, now: Instant) -> f64 {
        self.observed.front().map_or(0.0, |(_, since)| now.saturating_duration_since(*since).as_secs_f64())
    }
}

/// A partition whose position is to be compared with what the broker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) topic: String,
    pub(super) partition: Partition,
    /// What the broker has.
    pub(super) ends: Ends,
    /// The offset that the next anchor began with, before the broker was asked.
    pub(super) anchored: Offset,
}

/// The progress of all partitions.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<BTreeMap<(String, Partition), Place>>);

impl Progress {
    fn places(&self) -> MutexGuard<'_, BTreeMap<(String, Partition), Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, stream: &str, partition: Partition, change: impl FnOnce(&mut Place)) {
        if let Some(place) = self.places().get_mut(&(stream.to_owned(), partition)) {
            change(place);
        }
    }

    pub(super) fn follow(&self, stream: &Arc<Stream>, partition: Partition, anchored: Offset) {
        let place = Place {
            stream: stream.clone(),
            anchored,
            end: None,
            observed: VecDeque::new(),
            in_doubt: false,
            rested: None,
            stopped: None,
        };
        self.places().insert((stream.name().to_owned(), partition), place);
    }

    pub(super) fn anchored(&self, stream: &str, partition: Partition, next: Offset) {
        self.change(stream, partition, |place| {
            place.anchored = next;
            place.forget();
        });
    }

    pub(super) fn stop(&self, stream: &str, partition: Partition, reason: &str) {
        self.change(stream, partition, |place| place.stopped = Some(reason.to_owned()));
    }

    /// The partition's position is in doubt: the next probe settles it.
    pub(super) fn doubt(&self, stream: &str, partition: Partition) {
        self.change(stream, partition, |place| place.in_doubt = true);
    }

    /// The topics whose ends are to be asked for.
    pub(super) fn topics(&self) -> Vec<TopicSpec> {
        let mut topics: Vec<TopicSpec> = Vec::new();
        for place in self.places().values() {
            let definition = &place.stream.definition;
            if topics.last().is_none_or(|last| last.topic != definition.topic) {
                topics.push(TopicSpec { topic: definition.topic.clone(), partitions: definition.partitions });
            }
        }
        topics
    }

    /// The offset that each partition's next anchor begins with.
    pub(super) fn heads(&self) -> BTreeMap<(String, Partition), Offset> {
        self.places().iter().map(|(place, progress)| (place.clone(), progress.anchored)).collect()
    }

    /// Takes in what the broker has; returns the partitions whose position has to be compared with it.
    ///
    /// `before` is [`heads`](Self::heads) from before the broker was asked: an end that is below what was anchored by
    /// then is below it for good, while one that is below what was anchored since is only old.
    pub(super) fn observe(
        &self,
        all_ends: &BTreeMap<(String, Partition), Ends>,
        before: &BTreeMap<(String, Partition), Offset>,
        metrics: &Metrics,
    ) -> Vec<Doubt> {
        let now = Instant::now();
        let mut doubtful = Vec::new();
        for (key, place) in self.places().iter_mut() {
            let (topic, partition) = (&place.stream.definition.topic, key.1);
            let (Some(ends), Some(&anchored)) = (all_ends.get(&(topic.clone(), partition)), before.get(key)) else {
                continue;
            };
            let outside = anchored > ends.end || place.anchored < ends.start;
            // What does not come although it is there may be no records: markers of transactions, say.
            let at_rest = place.end == Some(ends.end) && place.rested == Some(anchored) && anchored < ends.end;
            place.rested = Some(anchored);
            if place.stopped.is_none() && (outside || at_rest || std::mem::take(&mut place.in_doubt)) {
                doubtful.push(Doubt { topic: topic.clone(), partition, ends: *ends, anchored });
            }
            if partition.0 == 0 {
                metrics.surplus(&key.0, surplus(all_ends, &place.stream.definition));
            }
            place.observe(ends.end, now);
            metrics.lag(&key.0, partition, ends.end, place.anchored, place.lag_seconds(now));
        }
        doubtful
    }

    pub(super) fn statuses(&self) -> Vec<PartitionStatus> {
        let now = Instant::now();
        let places = self.places();
        let statuses = places.iter().map(|((stream, partition), place)| PartitionStatus {
            stream: stream.clone(),
            partition: *partition,
            anchored: place.anchored,
            end: place.end,
            lag_seconds: place.lag_seconds(now),
            stopped: place.stopped.clone(),
        });
        statuses.collect()
    }
}

/// How many partitions the topic has beyond those of its stream.
fn surplus(ends: &BTreeMap<(String, Partition), Ends>, definition: &StreamDefinition) -> usize {
    let beyond = (definition.topic.clone(), Partition(definition.partitions));
    ends.range(beyond..).take_while(|((topic, _), _)| *topic == definition.topic).count()
}
