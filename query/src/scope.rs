//! What one statement is told, and what it tells: carried from the session to the tables that it plans.
//!
//! The engine hands a session's state to every table's `scan`; this travels with it as an extension. One is made for
//! each statement, so what is gathered here is of that statement alone: what does not verify, and, where evidence of the
//! answer is asked for, which segments it is computed from.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cairn_anchor::roots::AnchoredObject;
use cairn_anchor::verified::{Observer, VerifiedStore, Work};
use datafusion::catalog::Session;

use crate::evidence::SegmentsRead;
use crate::problems::Problem;

/// How many batches that were left out a statement names; more are counted.
const NAMED_MAX: usize = 10;
/// Memory for rows that did not verify and are shown as such, for one statement.
const FLAGGED_BYTES_MAX: usize = 128 << 20;

/// What a statement does about segments that do not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum OnUnverified {
    /// It fails.
    #[default]
    Refuse,
    /// It leaves them out, and says so.
    Exclude,
    /// It gives what can be read of them, with `_verified = false`.
    Flag,
}

impl OnUnverified {
    pub(crate) const ALL: [(Self, &'static str); 3] =
        [(Self::Refuse, "refuse"), (Self::Exclude, "exclude"), (Self::Flag, "flag")];

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(mode, _)| *mode)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(mode, _)| *mode == self).map_or("refuse", |(_, name)| name)
    }
}

/// One statement.
#[derive(Debug, Default)]
pub(crate) struct StatementScope {
    pub(crate) on_unverified: OnUnverified,
    told: Mutex<Told>,
    flagged_bytes: AtomicUsize,
    /// Only where evidence is asked for.
    read: Option<SegmentsRead>,
}

#[derive(Debug, Default)]
struct Told {
    named: Vec<String>,
    left_out: u64,
    left_out_records: u64,
    flagged: u64,
}

impl StatementScope {
    pub(crate) fn new(on_unverified: OnUnverified, evidence: bool) -> Arc<Self> {
        Arc::new(Self { on_unverified, read: evidence.then(SegmentsRead::default), ..Self::default() })
    }

    /// The statement that a plan is made for; plans that no session asked for refuse what does not verify.
    pub(crate) fn of(state: &dyn Session) -> Arc<Self> {
        state.config().get_extension::<Self>().unwrap_or_default()
    }

    /// The answer is computed from a segment, whether bytes of it have to be read or not.
    pub(crate) fn computed_from(&self, object: &AnchoredObject) {
        if let Some(read) = &self.read {
            read.computed_from(object);
        }
    }

    /// Bytes of a segment were read for the statement.
    pub(crate) fn has_read(&self, object: &AnchoredObject, work: &Work) {
        if let Some(read) = &self.read {
            read.verified(object, work.bytes_verified);
        }
    }

    /// `store`, whose reads count as the statement's.
    pub(crate) fn observing(self: &Arc<Self>, store: &VerifiedStore) -> VerifiedStore {
        if self.read.is_none() {
            return store.clone();
        }
        let scope = Arc::clone(self);
        store.observed_by(Observer::new(move |object, work| scope.has_read(object, work)))
    }

    /// The segments that the answer is computed from; none unless evidence is asked for.
    pub(crate) fn segments_read(&self) -> Option<&SegmentsRead> {
        self.read.as_ref()
    }

    /// How many segments do not verify: those left out, and those of which rows are given.
    pub(crate) fn unverified(&self) -> (u64, u64) {
        let told = self.told();
        (told.left_out, told.flagged)
    }

    /// A batch of so many records is not part of the answer.
    pub(crate) fn left_out(&self, problem: &Problem, records: u64) {
        let mut told = self.told();
        told.left_out += 1;
        told.left_out_records = told.left_out_records.saturating_add(records);
        if told.named.len() < NAMED_MAX {
            told.named.push(format!("left out: {}", problem.sentence()));
        }
    }

    /// A batch's rows are part of the answer though they do not verify.
    pub(crate) fn flagged(&self, problem: &Problem) {
        let mut told = self.told();
        told.flagged += 1;
        if told.named.len() < NAMED_MAX {
            told.named.push(format!("given with _verified = false: {}", problem.sentence()));
        }
    }

    /// Takes memory for flagged rows; false if there is none left.
    pub(crate) fn take_flagged_bytes(&self, bytes: usize) -> bool {
        let before = self.flagged_bytes.fetch_add(bytes, Ordering::Relaxed);
        before.saturating_add(bytes) <= FLAGGED_BYTES_MAX
    }

    /// What the one who asked must know about the rows. Empty if everything verified.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let told = self.told();
        let mut warnings = Vec::new();
        if told.left_out > 0 {
            warnings.push(format!(
                "cairn: {} segments with {} records do not verify and are left out; the answer is not complete",
                told.left_out, told.left_out_records
            ));
        }
        if told.flagged > 0 {
            warnings
                .push(format!("cairn: rows of {} segments do not verify; they have _verified = false", told.flagged));
        }
        warnings.extend(told.named.iter().map(|named| format!("cairn: {named}")));
        let named = told.named.len() as u64;
        if told.left_out + told.flagged > named {
            let more = told.left_out + told.flagged - named;
            warnings.push(format!("cairn: and {more} more; cairn.problems lists them"));
        }
        warnings
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
