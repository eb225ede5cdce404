//! A bounded cache of bytes that were verified, the least recently used ones leaving first.
//!
//! What it holds was hashed in this process and is kept in this process's memory: nobody else can change it, so it need
//! not be hashed again. It is keyed by content (hash and length), not by name, so that it cannot answer for an object
//! whose anchor says something else. Footers, statistics and page indexes are ranges like any others.
//!
//! ```text
//! (BLAKE3, length) ─▶ start of a piece ─▶ its bytes: whole chunk groups, as they were read
//! ```
//!
//! No piece of an object lies within another, so that of all pieces that begin at or before an offset the last one
//! reaches furthest: one look says whether a range is there. Two pieces may overlap, and then both count in full.
//!
//! What it is not: a cache of what a reader made of the bytes, nor one that survives the process. What was handed out
//! stays alive with its reader after it left the cache.

use crate::roots::AnchoredObject;
use bytes::Bytes;
use cairn_proof::digest::Digest;
use prometheus::{IntCounter, IntGauge};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a piece takes besides its bytes: its places in the two maps.
const PIECE_OVERHEAD_BYTES: u64 = 256;
/// A piece may take this part of the cache at most; a larger one would push out nearly all others for one read.
const LARGEST_PART: u64 = 4;

/// The content that an anchor names.
type Content = (Digest, u64);

#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    used: u64,
}

impl Piece {
    fn weight(&self) -> u64 {
        self.bytes.len() as u64 + PIECE_OVERHEAD_BYTES
    }
}

#[derive(Debug, Default)]
struct Pieces {
    objects: HashMap<Content, BTreeMap<u64, Piece>>,
    /// From the time of last use to the piece.
    order: BTreeMap<u64, (Content, u64)>,
    weight: u64,
    clock: u64,
}

/// Verified bytes by the content they belong to.
#[derive(Debug)]
pub(super) struct ByteCache {
    pieces: Mutex<Pieces>,
    bytes_max: u64,
    held: IntGauge,
    evictions: IntCounter,
}

fn content(object: &AnchoredObject) -> Content {
    (object.blake3, object.size)
}

impl ByteCache {
    pub(super) fn new(bytes_max: u64, held: IntGauge, evictions: IntCounter) -> Self {
        Self { pieces: Mutex::default(), bytes_max, held, evictions }
    }

    /// For each range its bytes, if all of them are there.
    pub(super) fn get(&self, object: &AnchoredObject, ranges: &[Range<u64>]) -> Vec<Option<Bytes>> {
        let mut pieces = self.lock();
        ranges.iter().map(|range| pieces.get(content(object), range)).collect()
    }

    /// Keeps bytes of `object` from `start` on, **which must have been verified**; others leave until the limit holds.
    pub(super) fn insert(&self, object: &AnchoredObject, start: u64, bytes: &Bytes) {
        let piece = Piece { bytes: bytes.clone(), used: 0 };
        if bytes.is_empty() || piece.weight() > self.bytes_max / LARGEST_PART {
            return;
        }
        let mut pieces = self.lock();
        let evicted = pieces.insert(content(object), start, piece, self.bytes_max);
        self.evictions.inc_by(evicted);
        self.held.set(i64::try_from(pieces.weight).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pieces {
    fn get(&mut self, content: Content, range: &Range<u64>) -> Option<Bytes> {
        let (start, piece) = self.objects.get_mut(&content)?.range_mut(..=range.start).next_back()?;
        let bytes = within(*start, &piece.bytes, range)?;
        self.clock += 1;
        let before = std::mem::replace(&mut piece.used, self.clock);
        if let Some(place) = self.order.remove(&before) {
            self.order.insert(self.clock, place);
        }
        Some(bytes)
    }

    /// How many pieces left for want of room.
    fn insert(&mut self, content: Content, start: u64, mut piece: Piece, bytes_max: u64) -> u64 {
        let range = start..start + piece.bytes.len() as u64;
        if self.get(content, &range).is_some() {
            return 0; // Another reader was faster, or read more.
        }
        for within in self.pieces_within(content, &range) {
            self.remove(content, within);
        }
        let mut evicted = 0;
        while self.weight + piece.weight() > bytes_max {
            let Some((_, (content, start))) = self.order.first_key_value() else { break };
            let (content, start) = (*content, *start);
            self.remove(content, start);
            evicted += 1;
        }
        self.clock += 1;
        piece.used = self.clock;
        self.weight += piece.weight();
        self.order.insert(self.clock, (content, start));
        self.objects.entry(content).or_default().insert(start, piece);
        evicted
    }

    fn pieces_within(&self, content: Content, range: &Range<u64>) -> Vec<u64> {
        let Some(pieces) = self.objects.get(&content) else { return Vec::new() };
        let inside = pieces.range(range.clone());
        inside
            .take_while(|(start, piece)| *start + piece.bytes.len() as u64 <= range.end)
            .map(|(start, _)| *start)
            .collect()
    }

    fn remove(&mut self, content: Content, start: u64) {
        let Some(pieces) = self.objects.get_mut(&content) else { return };
        if let Some(piece) = pieces.remove(&start) {
            self.order.remove(&piece.used);
            self.weight -= piece.weight();
        }
        if pieces.is_empty() {
            self.objects.remove(&content);
        }
    }
}

/// The part of a piece that is `range`, if it has all of it.
fn within(start: u64, bytes: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let from = range.start.checked_sub(start)?;
    let to = range.end.checked_sub(start)?;
    (from <= to && to <= bytes.len() as u64).then(|| bytes.slice(from as usize..to as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roots::segment_path;
    use cairn_proof::{Offset, Partition};
    use proptest::prelude::*;

    const SIZE: u64 = 10_000;

    fn object(seed: u8) -> AnchoredObject {
        let blake3 = Digest([seed; 32]);
        AnchoredObject {
            path: segment_path("traffic.flow", Partition(0), Offset(0), blake3).unwrap(),
            size: SIZE,
            blake3,
            last_modified_ms: 0,
            stream: "traffic.flow".into(),
            partition: Partition(0),
            first: Offset(0),
            last: Offset(9),
        }
    }

    /// Byte `at` of an object's content.
    fn byte(seed: u8, at: u64) -> u8 {
        seed.wrapping_mul(31).wrapping_add((at % 251) as u8)
    }

    fn bytes(seed: u8, range: Range<u64>) -> Bytes {
        range.map(|at| byte(seed, at)).collect::<Vec<u8>>().into()
    }

    fn cache(bytes_max: u64) -> ByteCache {
        ByteCache::new(bytes_max, IntGauge::new("held", "held").unwrap(), IntCounter::new("out", "out").unwrap())
    }

    fn get(cache: &ByteCache, object: &AnchoredObject, range: Range<u64>) -> Option<Bytes> {
        cache.get(object, std::slice::from_ref(&range)).remove(0)
    }

    #[test]
    fn the_least_recently_used_piece_leaves_and_the_limit_holds() {
        let cache = cache(4 * (1000 + PIECE_OVERHEAD_BYTES));
        let object = object(1);
        let piece = |at: u64| at * 2000..at * 2000 + 1000;
        for at in 0..4 {
            cache.insert(&object, piece(at).start, &bytes(1, piece(at)));
        }
        assert!(get(&cache, &object, piece(0)).is_some());
        cache.insert(&object, piece(4).start, &bytes(1, piece(4)));
        let there: Vec<_> = (0..5).map(|at| get(&cache, &object, piece(at)).is_some()).collect();
        assert_eq!(there, [true, false, true, true, true]);
        assert_eq!((cache.evictions.get(), cache.held.get()), (1, 4 * (1000 + PIECE_OVERHEAD_BYTES as i64)));
    }

    #[test]
    fn what_is_too_large_for_the_cache_is_not_kept() {
        let cache = cache(4000);
        cache.insert(&object(1), 0, &bytes(1, 0..1000));
        assert!(get(&cache, &object(1), 0..1).is_none(), "with what it takes besides, more than a quarter");
        assert_eq!(cache.held.get(), 0);
    }

    #[test]
    fn another_content_or_another_length_is_another_object() {
        let cache = cache(1 << 20);
        cache.insert(&object(1), 0, &bytes(1, 0..1000));
        assert_eq!(get(&cache, &object(1), 10..20), Some(bytes(1, 10..20)));
        assert_eq!(get(&cache, &object(2), 10..20), None);
        assert_eq!(get(&cache, &AnchoredObject { size: SIZE - 1, ..object(1) }, 10..20), None);
    }

    #[test]
    fn a_wider_piece_replaces_what_lies_within_it() {
        let cache = cache(1 << 20);
        for (start, end) in [(1000, 2000), (3000, 4000), (3500, 4500), (0, 4000), (100, 200)] {
            cache.insert(&object(1), start, &bytes(1, start..end));
        }
        let pieces = cache.lock();
        let starts: Vec<u64> = pieces.objects[&content(&object(1))].keys().copied().collect();
        assert_eq!(starts, [0, 3500], "one that overlaps stays, those within are gone or not taken");
        assert_eq!(pieces.weight, 4000 + 1000 + 2 * PIECE_OVERHEAD_BYTES);
        assert_eq!(pieces.order.len(), 2);
    }

    proptest! {
        /// Whatever is put in and asked for, in whatever order: what comes out is the content's own bytes, and the
        /// books are right.
        #[test]
        fn only_the_contents_own_bytes_come_out(
            steps in prop::collection::vec((any::<bool>(), 1_u8..4, 0..SIZE, 1..3_000_u64), 1..120),
            bytes_max in 1_000..40_000_u64,
        ) {
            let cache = cache(bytes_max);
            for (put, seed, start, length) in steps {
                let range = start..(start + length).min(SIZE);
                if put {
                    cache.insert(&object(seed), start, &bytes(seed, range.clone()));
                } else if let Some(found) = get(&cache, &object(seed), range.clone()) {
                    prop_assert_eq!(found, bytes(seed, range));
                }
                let pieces = cache.lock();
                let all = pieces.objects.values().flat_map(BTreeMap::values);
                prop_assert_eq!(all.clone().map(Piece::weight).sum::<u64>(), pieces.weight);
                prop_assert_eq!(all.count(), pieces.order.len());
                prop_assert!(pieces.weight <= bytes_max);
                for object in pieces.objects.values() {
                    let ends: Vec<_> = object.iter().map(|(start, piece)| start + piece.bytes.len() as u64).collect();
                    prop_assert!(ends.is_sorted_by(|a, b| a < b), "no piece lies within another");
                }
            }
        }
    }
}
