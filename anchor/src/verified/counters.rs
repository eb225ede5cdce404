//! What verified reading did: counters that cost one atomic addition each.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntGauge, Registry};

/// Counters of one [`crate::verified::VerifiedStore`]; a clone counts into the same ones.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Bytes that readers asked for.
    pub bytes_asked: IntCounter,
    /// Bytes that were read and checked in order to answer: the over-reading to whole groups included.
    pub bytes_verified: IntCounter,
    /// Chunk groups of 16 KiB that were checked.
    pub groups_verified: IntCounter,
    /// Nanoseconds spent reading from the store (local disk only: elsewhere reading is waiting).
    pub read_nanoseconds: IntCounter,
    /// Nanoseconds spent hashing and comparing.
    pub hash_nanoseconds: IntCounter,
    /// Hash trees that were loaded and checked.
    pub trees_loaded: IntCounter,
    /// Reads that were refused or failed.
    pub failures: IntCounter,
    /// Bytes that were handed out of this process's memory, where they had been verified before.
    pub bytes_cached: IntCounter,
    /// What the cache of verified bytes takes now.
    pub cache_bytes: IntGauge,
    /// Pieces that left the cache of verified bytes to make room.
    pub cache_evictions: IntCounter,
}

/// What one read did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Bytes that were read and matched.
    pub bytes_verified: u64,
    /// Chunk groups of 16 KiB that matched.
    pub groups_verified: u64,
    /// Nanoseconds spent reading from a local disk.
    pub read_nanoseconds: u64,
    /// Nanoseconds spent hashing and comparing.
    pub hash_nanoseconds: u64,
    /// Hash trees that were loaded and checked.
    pub trees_loaded: u64,
    /// Bytes that were verified before and came out of this process's memory.
    pub bytes_cached: u64,
}

impl Counters {
    pub(crate) fn add(&self, work: &Work) {
        self.bytes_verified.inc_by(work.bytes_verified);
        self.groups_verified.inc_by(work.groups_verified);
        self.read_nanoseconds.inc_by(work.read_nanoseconds);
        self.hash_nanoseconds.inc_by(work.hash_nanoseconds);
        self.trees_loaded.inc_by(work.trees_loaded);
        self.bytes_cached.inc_by(work.bytes_cached);
    }

    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            bytes_asked: IntCounter::new("cairn_verified_asked_bytes_total", "Bytes that readers asked for.")?,
            bytes_verified: IntCounter::new("cairn_verified_bytes_total", "Bytes read and checked against an anchor.")?,
            groups_verified: IntCounter::new("cairn_verified_groups_total", "Chunk groups checked against an anchor.")?,
            read_nanoseconds: IntCounter::new("cairn_verified_read_nanoseconds_total", "Time spent reading files.")?,
            hash_nanoseconds: IntCounter::new("cairn_verified_hash_nanoseconds_total", "Time spent hashing.")?,
            trees_loaded: IntCounter::new("cairn_verified_trees_loaded_total", "Hash trees loaded and checked.")?,
            failures: IntCounter::new("cairn_verified_failures_total", "Reads that were refused or failed.")?,
            bytes_cached: IntCounter::new("cairn_verified_cached_bytes_total", "Bytes verified before, from memory.")?,
            cache_bytes: IntGauge::new("cairn_verified_cache_bytes", "Memory that verified bytes take.")?,
            cache_evictions: IntCounter::new("cairn_verified_cache_evictions_total", "Pieces that made room.")?,
        })
    }

    /// Shows the counters in a metrics registry.
    ///
    /// # Errors
    /// If the registry has counters of these names already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let all: [Box<dyn Collector>; 10] = [
            Box::new(self.bytes_asked.clone()),
            Box::new(self.bytes_verified.clone()),
            Box::new(self.groups_verified.clone()),
            Box::new(self.read_nanoseconds.clone()),
            Box::new(self.hash_nanoseconds.clone()),
            Box::new(self.trees_loaded.clone()),
            Box::new(self.failures.clone()),
            Box::new(self.bytes_cached.clone()),
            Box::new(self.cache_bytes.clone()),
            Box::new(self.cache_evictions.clone()),
        ];
        all.into_iter().try_for_each(|counter| registry.register(counter))
    }
}
