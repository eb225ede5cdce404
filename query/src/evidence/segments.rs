//! Which segments an answer is computed from, and how many bytes of each were read and verified for it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use cairn_anchor::roots::AnchoredObject;
use cairn_proof::Digest;
use cairn_proof::answer::AnswerSegment;

/// The segments of one statement. Told by plans, which name them, and by readers, which read them.
#[derive(Debug, Default)]
pub(crate) struct SegmentsRead(Mutex<BTreeMap<String, Read>>);

#[derive(Debug)]
struct Read {
    blake3: Digest,
    size: u64,
    bytes_verified: u64,
    /// A plan named it. What was only looked at, and then left out, is not what the answer is computed from.
    planned: bool,
}

impl SegmentsRead {
    fn with(&self, object: &AnchoredObject, change: impl FnOnce(&mut Read)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Read { blake3: object.blake3, size: object.size, bytes_verified: 0, planned: false };
        change(all.entry(object.path.to_string()).or_insert_with(fresh));
    }

    /// A plan reads from it, if it has to.
    pub(crate) fn computed_from(&self, object: &AnchoredObject) {
        self.with(object, |read| read.planned = true);
    }

    /// So many bytes of it were read, and verified.
    pub(crate) fn verified(&self, object: &AnchoredObject, bytes: u64) {
        self.with(object, |read| read.bytes_verified = read.bytes_verified.saturating_add(bytes));
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().filter(|read| read.planned).count()
    }

    /// All, by path.
    pub(super) fn list(&self) -> Vec<AnswerSegment> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = |(path, read): (&String, &Read)| AnswerSegment {
            path: path.clone(),
            blake3: read.blake3,
            size: read.size,
            bytes_verified: read.bytes_verified,
        };
        all.iter().filter(|(_, read)| read.planned).map(segment).collect()
    }
}
