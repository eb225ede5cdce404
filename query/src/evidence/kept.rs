//! A session's last answers of which there is evidence.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_proof::units::Height;

/// How many answers a session remembers.
pub(super) const ANSWERS_MAX: usize = 16;
/// How much memory they may take; the newest one is kept whatever it takes.
const BYTES_MAX: usize = 4 << 20;

/// An answer that was signed.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) id: String,
    pub(crate) height: Height,
    /// The signed envelope.
    pub(crate) envelope: Arc<[u8]>,
}

/// The last ones of a session, oldest first.
#[derive(Debug, Default)]
pub(crate) struct KeptAnswers(Mutex<VecDeque<Kept>>);

impl KeptAnswers {
    /// Keeps an answer, and forgets the oldest ones where there are too many.
    pub(crate) fn keep(&self, answer: Kept) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back(answer);
        let mut bytes: usize = kept.iter().map(|answer| answer.envelope.len()).sum();
        while kept.len() > 1 && (kept.len() > ANSWERS_MAX || bytes > BYTES_MAX) {
            bytes -= kept.pop_front().map_or(0, |oldest| oldest.envelope.len());
        }
    }

    /// The answer with that id, or the newest one for `last`.
    pub(crate) fn get(&self, id: &str) -> Option<Kept> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match id {
            "last" => kept.back().cloned(),
            id => kept.iter().find(|answer| answer.id == id).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(answers: &KeptAnswers, id: usize, bytes: usize) {
        answers.keep(Kept { id: id.to_string(), height: Height(1), envelope: vec![0; bytes].into() });
    }

    #[test]
    fn the_newest_are_kept_within_bounds() {
        let answers = KeptAnswers::default();
        assert!(answers.get("last").is_none());
        for id in 0..ANSWERS_MAX + 4 {
            keep(&answers, id, 10);
        }
        assert!(answers.get("3").is_none() && answers.get("4").is_some());
        assert_eq!(answers.get("last").expect("some").id, (ANSWERS_MAX + 3).to_string());
        keep(&answers, 100, BYTES_MAX + 1);
        assert_eq!(answers.get("last").expect("the newest").id, "100", "the newest stays, however large");
        assert!(answers.get("19").is_none(), "and the others make room");
    }
}
