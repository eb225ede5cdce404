//! One partition: the batch that grows, and the batch that is on its way to the chain.
//!
//! ```text
//!   Kafka ──▶ growing batch ──(full, old, or memory is short, and none on its way)──▶ on its way ──▶ anchored
//!                  ▲  not read while it is full and another one is on its way                           │
//!                  └────────────────────── the next one's `previous` ◀──────────────────────────────────┘
//! ```
//!
//! One batch at a time is on its way, because each anchor names the one before. Nothing here talks to Kafka or to the
//! chain: the worker does, and tells what came of it.

use std::time::{Duration, Instant};

use cairn_anchor::raw::{RawBatch, RawBatchBuilder, RawError};
use cairn_proof::statement::{BatchLimits, GAPS_MAX};
use cairn_proof::{Digest, Offset, Partition};

/// The batches of one partition.
#[derive(Debug)]
pub(super) struct Batching {
    partition: Partition,
    limits: BatchLimits,
    gaps_allowed: bool,
    growing: RawBatchBuilder,
    /// When the growing batch got its first record or gap.
    since: Option<Instant>,
    gaps: usize,
    /// Bytes of the batch that is on its way.
    under_way: Option<u64>,
    /// Id of the last anchor.
    previous: Digest,
}

/// What reading on from a message's offset means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is the next one.
    Next,
    /// It was read already: left over from before a seek.
    Stale,
    /// The offsets between are empty, and the stream allows that.
    Gap { first: Offset, last: Offset },
    /// The offsets between are empty, and the stream does not allow that.
    Hole { first: Offset, last: Offset },
}

impl Batching {
    /// Begins at the chain's head: the next offset, and the id of the last anchor.
    pub(super) fn new(
        partition: Partition,
        limits: BatchLimits,
        gaps_allowed: bool,
        next: Offset,
        previous: Digest,
    ) -> Self {
        Self {
            partition,
            limits,
            gaps_allowed,
            growing: RawBatchBuilder::new(partition, next),
            since: None,
            gaps: 0,
            under_way: None,
            previous,
        }
    }

    /// The offset that is to be read next.
    pub(super) fn next(&self) -> Offset {
        self.growing.next()
    }

    /// Bytes that it holds.
    pub(super) fn held(&self) -> u64 {
        self.growing.bytes() + self.under_way.unwrap_or_default()
    }

    /// Whether the growing batch takes no more.
    pub(super) fn is_full(&self) -> bool {
        self.growing.len() as u64 >= u64::from(self.limits.records_max)
            || self.growing.bytes() >= u64::from(self.limits.bytes_max)
            || self.gaps + 1 >= GAPS_MAX
    }

    /// What a message at this offset means.
    pub(super) fn step(&self, offset: Offset) -> Step {
        let next = self.growing.next();
        let last = Offset(offset.0.saturating_sub(1));
        match offset.cmp(&next) {
            std::cmp::Ordering::Less => Step::Stale,
            std::cmp::Ordering::Equal => Step::Next,
            std::cmp::Ordering::Greater if self.gaps_allowed => Step::Gap { first: next, last },
            std::cmp::Ordering::Greater => Step::Hole { first: next, last },
        }
    }

    /// Lets `append` add a record; returns how many bytes it has.
    pub(super) fn append(
        &mut self,
        gap: bool,
        now: Instant,
        append: impl FnOnce(&mut RawBatchBuilder) -> Result<(), RawError>,
    ) -> Result<u64, RawError> {
        let before = self.growing.bytes();
        append(&mut self.growing)?;
        self.gaps += usize::from(gap);
        self.since.get_or_insert(now);
        Ok(self.growing.bytes() - before)
    }

    /// Declares that there is no record up to and including `last`.
    pub(super) fn declare_empty(&mut self, last: Offset, now: Instant) -> Result<(), RawError> {
        self.growing.end_at(last)?;
        self.gaps += 1;
        self.since.get_or_insert(now);
        Ok(())
    }

    /// When the growing batch is to be closed for its age; nothing while it is empty or has to wait anyway.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let age_max = Duration::from_millis(self.limits.age_ms_max.into());
        self.since.filter(|_| self.under_way.is_none()).map(|since| since + age_max)
    }

    /// Whether the growing batch is to be closed now.
    pub(super) fn is_due(&self, now: Instant, memory_is_short: bool) -> bool {
        let closes = self.is_full() || memory_is_short || self.deadline().is_some_and(|deadline| deadline <= now);
        // A batch may hold no record, and say that there is none.
        self.under_way.is_none() && self.growing.next() > self.growing.first() && closes
    }

    /// Closes the growing batch and puts it on its way; returns it with the id of the anchor before it.
    pub(super) fn close(&mut self) -> Result<(RawBatch, Digest), RawError> {
        let next = RawBatchBuilder::new(self.partition, self.growing.next());
        let closed = std::mem::replace(&mut self.growing, next);
        self.under_way = Some(closed.bytes());
        self.since = None;
        self.gaps = 0;
        Ok((closed.finish()?, self.previous))
    }

    /// The batch on its way is final; the next one's anchor follows it.
    pub(super) fn anchored(&mut self, id: Digest) {
        self.under_way = None;
        self.previous = id;
    }

    /// Drops everything and begins anew at the chain's head.
    pub(super) fn restart(&mut self, next: Offset, previous: Digest) {
        *self = Self::new(self.partition, self.limits, self.gaps_allowed, next, previous);
    }

    /// Whether it is not read on for now, because the full batch waits for the one before.
    pub(super) fn is_paused(&self) -> bool {
        self.under_way.is_some() && self.is_full()
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batching(gaps_allowed: bool) -> Batching {
        let limits = BatchLimits { records_max: 3, bytes_max: 1_024, age_ms_max: 100 };
        Batching::new(Partition(1), limits, gaps_allowed, Offset(10), Digest::ZERO)
    }

    fn push(batching: &mut Batching, offset: u64, bytes: usize, now: Instant) {
        let gap = matches!(batching.step(Offset(offset)), Step::Gap { .. });
        let value = vec![7; bytes];
        batching.append(gap, now, |batch| batch.append(Offset(offset), 0, None, Some(&value), &[])).unwrap();
    }

    #[test]
    fn closes_by_count_bytes_and_age() {
        let now = Instant::now();
        let mut by_count = batching(false);
        for offset in 10..13 {
            assert!(!by_count.is_due(now, false));
            push(&mut by_count, offset, 1, now);
        }
        assert!(by_count.is_due(now, false) && by_count.is_full());
        let mut by_bytes = batching(false);
        push(&mut by_bytes, 10, 2_000, now);
        assert!(by_bytes.is_due(now, false));
        let mut by_age = batching(false);
        assert!(!by_age.is_due(now + Duration::from_secs(9), true), "an empty batch is never closed");
        push(&mut by_age, 10, 1, now);
        assert!(!by_age.is_due(now + Duration::from_millis(99), false));
        assert!(by_age.is_due(now + Duration::from_millis(100), false));
        assert!(by_age.is_due(now, true), "when memory is short");
    }

    #[test]
    fn offsets_without_records_are_a_batch_too() {
        let now = Instant::now();
        let mut batching = batching(true);
        batching.declare_empty(Offset(12), now).unwrap();
        assert_eq!((batching.next(), batching.is_due(now, false)), (Offset(13), false));
        let later = now + Duration::from_millis(100);
        assert!(batching.is_due(later, false), "it is closed by age");
        let (batch, _) = batching.close().unwrap();
        assert_eq!((batch.len(), batch.first(), batch.last(), batch.gaps().len()), (0, Offset(10), Offset(12), 1));
        assert!(!batching.is_due(later, true));
    }

    #[test]
    fn one_batch_is_on_its_way_while_the_next_grows() {
        let now = Instant::now();
        let mut batching = batching(false);
        push(&mut batching, 10, 5, now);
        let (first, previous) = batching.close().unwrap();
        assert_eq!((first.first(), first.last(), previous), (Offset(10), Offset(10), Digest::ZERO));
        for offset in 11..14 {
            push(&mut batching, offset, 5, now);
        }
        assert!(batching.is_paused() && !batching.is_due(now, true));
        assert_eq!(batching.held(), 20);
        batching.anchored(Digest([1; 32]));
        assert!(batching.is_due(now, false) && !batching.is_paused());
        let (second, previous) = batching.close().unwrap();
        assert_eq!((second.first(), second.last(), previous), (Offset(11), Offset(13), Digest([1; 32])));
    }

    #[test]
    fn holes_and_stale_messages() {
        let now = Instant::now();
        let mut strict = batching(false);
        assert_eq!(strict.step(Offset(9)), Step::Stale);
        assert_eq!(strict.step(Offset(10)), Step::Next);
        assert_eq!(strict.step(Offset(12)), Step::Hole { first: Offset(10), last: Offset(11) });
        let mut loose = batching(true);
        push(&mut loose, 12, 1, now);
        assert_eq!(loose.step(Offset(15)), Step::Gap { first: Offset(13), last: Offset(14) });
        let (batch, _) = loose.close().unwrap();
        assert_eq!((batch.first(), batch.last(), batch.gaps().len()), (Offset(10), Offset(12), 1));
        push(&mut strict, 10, 1, now);
        strict.restart(Offset(40), Digest([2; 32]));
        assert_eq!((strict.next(), strict.held(), strict.deadline()), (Offset(40), 0, None));
    }
}
