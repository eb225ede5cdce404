//! What the chain says about stored objects: the only names, sizes, times and hashes that reading goes by.
//!
//! A [`Roots`] registry is filled from finalized anchors by whoever follows the chain, and read by
//! [`crate::verified::VerifiedStore`]. An object that is not in it does not exist for the reader.
//!
//! Paths follow from the anchor: `segments/<stream>/<partition>/<first offset, 20 digits>-<BLAKE3>.parquet`, and the
//! hash tree beside it with `.obao` appended. An anchor that names another path is refused, so that no anchorer can
//! point at, or shadow, an object of another stream.

use cairn_proof::digest::Digest;
use cairn_proof::statement::Anchor;
use cairn_proof::{Offset, Partition};
use object_store::path::Path;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// The folder of all segments within the object store.
pub const SEGMENTS_FOLDER: &str = "segments";
/// What a segment's name ends in.
pub const SEGMENT_SUFFIX: &str = ".parquet";
/// What is appended to a segment's name for its hash tree.
pub const OUTBOARD_SUFFIX: &str = ".obao";
/// The longest stream name that becomes a folder: Kafka's own limit for a topic.
const STREAM_NAME_BYTES_MAX: usize = 249;

/// Why an anchor cannot name a stored object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The stream's name cannot be a folder.
    #[error(
        "stream {stream:?} cannot name a folder: 1 to {STREAM_NAME_BYTES_MAX} letters, digits, '.', '_', '-' are allowed, not starting with '.'"
    )]
    StreamName {
        /// The name.
        stream: String,
    },
    /// The anchor names a path that does not follow from its other facts.
    #[error(
        "the anchor of stream {stream}, partition {partition}, offset {first} names the object {found:?} where {expected:?} belongs"
    )]
    Foreign {
        /// The anchor's stream.
        stream: String,
        /// The anchor's partition.
        partition: Partition,
        /// The anchor's first offset.
        first: Offset,
        /// The path that follows from them.
        expected: String,
        /// The path in the anchor.
        found: String,
    },
}

/// The path of the segment that starts at `first` and has the BLAKE3 hash `blake3`.
///
/// # Errors
/// [`PathError::StreamName`].
pub fn segment_path(stream: &str, partition: Partition, first: Offset, blake3: Digest) -> Result<Path, PathError> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    if stream.is_empty()
        || stream.len() > STREAM_NAME_BYTES_MAX
        || stream.starts_with('.')
        || !stream.bytes().all(allowed)
    {
        return Err(PathError::StreamName { stream: stream.chars().take(STREAM_NAME_BYTES_MAX).collect() });
    }
    Ok(Path::from(format!("{SEGMENTS_FOLDER}/{stream}/{partition}/{:020}-{blake3}{SEGMENT_SUFFIX}", first.0)))
}

/// The path of the hash tree that lies beside a segment.
pub fn outboard_path(segment: &Path) -> Path {
    Path::from(format!("{segment}{OUTBOARD_SUFFIX}"))
}

/// One stored object as a finalized anchor describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchoredObject {
    /// Where it lies in the store.
    pub path: Path,
    /// Its length in bytes.
    pub size: u64,
    /// Its BLAKE3 hash.
    pub blake3: Digest,
    /// When it counts as last changed: the time of the block that finalized it, in milliseconds since 1970.
    pub last_modified_ms: i64,
    /// The stream whose records it holds.
    pub stream: String,
    /// The partition.
    pub partition: Partition,
    /// The first offset that it covers.
    pub first: Offset,
    /// The last offset that it covers.
    pub last: Offset,
}

impl AnchoredObject {
    /// From an anchor that the chain finalized in a block of the given time.
    ///
    /// # Errors
    /// [`PathError`], if the anchor's path does not follow from its other facts.
    pub fn from_anchor(anchor: &Anchor, block_timestamp_ms: u64) -> Result<Self, PathError> {
        let path = segment_path(&anchor.stream, anchor.partition, anchor.first, anchor.segment.blake3)?;
        if path.as_ref() != anchor.segment.path {
            return Err(PathError::Foreign {
                stream: anchor.stream.clone(),
                partition: anchor.partition,
                first: anchor.first,
                expected: path.to_string(),
                found: anchor.segment.path.chars().take(1024).collect(),
            });
        }
        Ok(Self {
            path,
            size: anchor.segment.size,
            blake3: anchor.segment.blake3,
            last_modified_ms: i64::try_from(block_timestamp_ms).unwrap_or(i64::MAX),
            stream: anchor.stream.clone(),
            partition: anchor.partition,
            first: anchor.first,
            last: anchor.last,
        })
    }

    /// The path of its hash tree.
    pub fn outboard_path(&self) -> Path {
        outboard_path(&self.path)
    }
}

/// The registry of anchored objects, by path. Cheap to share; grows as the chain does.
#[derive(Debug, Default)]
pub struct Roots {
    objects: RwLock<HashMap<Box<str>, Arc<AnchoredObject>>>,
}

impl Roots {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an object. Adding the same object again changes nothing.
    pub fn insert(&self, object: Arc<AnchoredObject>) {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        // The first one stays: a path holds the hash of its object, so a second one can only differ by a false claim.
        objects.entry(object.path.as_ref().into()).or_insert(object);
    }

    /// The object at `path`, if a finalized anchor names it.
    pub fn get(&self, path: &Path) -> Option<Arc<AnchoredObject>> {
        self.named(path.as_ref())
    }

    /// As [`get`](Self::get), by the path's text as anchors have it.
    pub fn named(&self, path: &str) -> Option<Arc<AnchoredObject>> {
        self.read().get(path).cloned()
    }

    /// All objects below `prefix` (whole path segments), in the order of their paths.
    pub fn list(&self, prefix: Option<&Path>) -> Vec<Arc<AnchoredObject>> {
        let objects = self.read();
        let below = |object: &&Arc<AnchoredObject>| prefix.is_none_or(|prefix| object.path.prefix_matches(prefix));
        let mut found: Vec<_> = objects.values().filter(below).cloned().collect();
        drop(objects);
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Box<str>, Arc<AnchoredObject>>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proof::statement::SegmentRef;

    fn anchor() -> Anchor {
        let blake3 = Digest([0xab; 32]);
        Anchor {
            stream: "traffic.flow".into(),
            partition: Partition(3),
            first: Offset(17),
            last: Offset(20),
            gaps: vec![],
            count: 4,
            quarantined: 0,
            records_root: Digest::ZERO,
            timestamp_min_ms: 0,
            timestamp_max_ms: 0,
            schema_fingerprint: Digest::ZERO,
            segment: SegmentRef {
                path: format!("segments/traffic.flow/3/00000000000000000017-{blake3}.parquet"),
                size: 5,
                blake3,
            },
            previous: Digest::ZERO,
        }
    }

    #[test]
    fn a_path_follows_from_the_anchor() {
        let object = AnchoredObject::from_anchor(&anchor(), 1_000).unwrap();
        assert_eq!(object.path.as_ref(), anchor().segment.path);
        assert_eq!(object.outboard_path().as_ref(), format!("{}.obao", anchor().segment.path));
        assert_eq!(object.last_modified_ms, 1_000);
    }

    #[test]
    fn an_anchor_cannot_name_another_streams_object() {
        let mut foreign = anchor();
        foreign.segment.path = foreign.segment.path.replace("traffic.flow", "energy.meter");
        let error = AnchoredObject::from_anchor(&foreign, 0).unwrap_err();
        assert!(matches!(&error, PathError::Foreign { found, .. } if found.contains("energy.meter")), "{error}");
    }

    #[test]
    fn stream_names_that_leave_the_folder_are_refused() {
        for name in ["", ".", "..", "a/b", "../x", "a b", "ä", "a%2e", &"x".repeat(250)] {
            let refused = segment_path(name, Partition(0), Offset(0), Digest::ZERO);
            assert!(matches!(refused, Err(PathError::StreamName { .. })), "{name:?}");
        }
    }

    #[test]
    fn listing_keeps_to_whole_path_segments() {
        let roots = Roots::new();
        for stream in ["a", "a.b", "ab", "b"] {
            let path = segment_path(stream, Partition(0), Offset(0), Digest::ZERO).unwrap();
            let template = AnchoredObject::from_anchor(&anchor(), 0).unwrap();
            roots.insert(Arc::new(AnchoredObject { path, ..template }));
        }
        let below = |prefix: &str| roots.list(Some(&Path::from(prefix))).len();
        assert_eq!((below("segments"), below("segments/a"), below("segments/a/0"), below("seg")), (4, 1, 1, 0));
        assert_eq!((roots.list(None).len(), roots.len(), roots.is_empty()), (4, 4, false));
    }
}
