//! What was found not to verify: since when, where, what. The rows of `cairn.problems`.
//!
//! A problem is listed when a statement met it, and taken off the list when a statement that checks segments whole
//! (`cairn.on_unverified` is `exclude` or `flag`) finds its object sound again. The list lives in this process: after a
//! restart it fills anew as statements meet what is broken. `cairn audit` looks at everything.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cairn_anchor::verified::VerifyError;
use cairn_proof::units::Height;

use crate::catalog::segments::ForeignSegment;

/// How many problems are listed at once.
const PROBLEMS_MAX: usize = 10_000;
/// The longest description that is kept, in bytes.
const WHAT_BYTES_MAX: usize = 1_024;

/// Something that does not verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) stream: String,
    pub(crate) partition: u32,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// `segment`, `hash tree` or `anchor`.
    pub(crate) part: String,
    pub(crate) object: String,
    /// The block that finalized the anchor; none if it is not known at the statement's height.
    pub(crate) block: Option<Height>,
    /// What was expected and found.
    pub(crate) what: String,
}

impl Problem {
    pub(crate) fn refused(error: &VerifyError, block: Option<Height>) -> Self {
        Self {
            stream: error.stream.clone(),
            partition: error.partition.0,
            first: error.first.0,
            last: error.last.0,
            part: error.part.to_string(),
            object: error.path.clone(),
            block,
            what: shortened(error.fault.to_string()),
        }
    }

    pub(crate) fn foreign(error: &ForeignSegment, block: Option<Height>) -> Self {
        Self {
            stream: error.stream.clone(),
            partition: error.partition,
            first: error.first,
            last: error.last,
            part: "anchor".to_owned(),
            object: error.path.clone(),
            block,
            what: "its anchor names an object that is not this batch's own".to_owned(),
        }
    }

    /// One sentence that names everything.
    pub(crate) fn sentence(&self) -> String {
        format!(
            "stream {}, partition {}, offsets {} to {}: the {} {}: {}",
            self.stream, self.partition, self.first, self.last, self.part, self.object, self.what
        )
    }

    fn place(&self) -> Place {
        (self.stream.clone(), self.partition, self.first)
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > WHAT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(WHAT_BYTES_MAX));
        text.push('…');
    }
    text
}

/// Stream, partition and first offset name one batch.
type Place = (String, u32, u64);

/// A problem as it is listed.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) problem: Problem,
    /// When it was met first and last, in milliseconds since 1970-01-01 UTC by this machine's clock.
    pub(crate) since_ms: i64,
    pub(crate) last_ms: i64,
    /// How often statements met it.
    pub(crate) times: u64,
}

/// The list. One batch has one entry: what was found there last.
#[derive(Debug, Default)]
pub(crate) struct Problems(Mutex<BTreeMap<Place, Listed>>);

impl Problems {
    /// A statement met a problem.
    pub(crate) fn met(&self, problem: Problem) {
        let now = now_ms();
        let mut listed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = problem.place();
        if let Some(known) = listed.get_mut(&place) {
            known.problem = problem;
            known.last_ms = now;
            known.times = known.times.saturating_add(1);
            return;
        }
        if listed.len() >= PROBLEMS_MAX {
            tracing::error!(problem = %problem.sentence(), "query: does not verify; the list of problems is full");
            return;
        }
        tracing::error!(problem = %problem.sentence(), "query: does not verify");
        listed.insert(place, Listed { problem, since_ms: now, last_ms: now, times: 1 });
    }

    /// A batch's object was checked whole and is right.
    pub(crate) fn sound(&self, stream: &str, partition: u32, first: u64) {
        let mut listed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !listed.is_empty() {
            listed.remove(&(stream.to_owned(), partition, first));
        }
    }

    /// All, by stream, partition and offset.
    pub(crate) fn all(&self) -> Vec<Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Milliseconds since 1970-01-01 UTC by this machine's clock.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(first: u64, what: &str) -> Problem {
        Problem {
            stream: "traffic.flow".to_owned(),
            partition: 1,
            first,
            last: first + 9,
            part: "segment".to_owned(),
            object: format!("segments/{first}"),
            block: Some(Height(3)),
            what: what.to_owned(),
        }
    }

    #[test]
    fn a_batch_is_listed_once_and_leaves_when_it_is_sound() {
        let problems = Problems::default();
        problems.met(problem(0, "missing"));
        problems.met(problem(10, "missing"));
        problems.met(problem(0, "altered"));
        let all = problems.all();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].times, all[0].problem.what.as_str()), (2, "altered"));
        assert!(all[0].since_ms > 0 && all[0].last_ms >= all[0].since_ms);
        problems.sound("traffic.flow", 0, 0);
        assert_eq!(problems.len(), 2, "another partition's");
        problems.sound("traffic.flow", 1, 0);
        assert_eq!(problems.all()[0].problem.first, 10);
    }

    #[test]
    fn the_list_is_bounded() {
        let problems = Problems::default();
        for first in 0..PROBLEMS_MAX as u64 + 5 {
            problems.met(problem(first, "missing"));
        }
        assert_eq!(problems.len(), PROBLEMS_MAX);
    }
}
