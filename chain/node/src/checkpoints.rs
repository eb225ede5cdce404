//! Checkpoints of the finalized log: which there are to sign, who signed them, and the newest that a quorum signed.
//!
//! ```text
//! finalized header ──▶ target (size, root, committee) ─┐
//! own signature ───────────────────────────────────────┼─ a quorum of the target's committee ──▶ assembled
//! signatures of validators (cosign.rs, verified) ──────┘                                            │
//!                      without outside witnesses at once, else when they answered (witness.rs) ──▶ published
//! ```
//!
//! A header makes a target when the log's size or the committee is another than at the header before. Only what is final
//! is signed, so two checkpoints of this log are never inconsistent while fewer than a third of the validators lie. Nothing
//! is kept on disk: validators repeat their newest signatures. Nothing here sends, waits or reads a clock.
//!
//! Bounds: 64 targets, 64 signatures of each member of the newest committee, 100 lines a note, as stock verifiers have it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cairn_proof::{
    Digest, TreeSize,
    certificate::quorum,
    checkpoint::{Checkpoint, origin, validator_keys},
    header::Header,
    identity::{PublicKey, SigningKey},
    note::{Note, SIGNATURES_MAX, SignatureLine},
};
use tokio::sync::watch;
use tracing::error;

/// Targets, and signatures of one validator, that are kept.
const KEPT_MAX: usize = 64;

/// Outside witnesses whose lines a note has room for.
pub(crate) const WITNESSES_MAX: usize = 8;

/// Cosignatures in a note: a quorum of the largest committee is 86, and one line of a log key goes with them.
const COSIGNERS_MAX: usize = SIGNATURES_MAX - WITNESSES_MAX - 1;

/// One validator's two lines below a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) size: TreeSize,
    pub(crate) root: Digest,
    /// Of the cosignature, since 1970-01-01 UTC.
    pub(crate) seconds: u64,
    /// As the log, and as a cosigner.
    pub(crate) lines: [SignatureLine; 2],
}

/// What became of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Kept.
    Taken,
    /// It was here already.
    Known,
    /// Of a checkpoint before those that are kept.
    Old,
    /// By nobody of the newest committee.
    Stranger,
    /// Of another root than the finalized log has at that size.
    Conflict,
}

impl Outcome {
    /// As a metric's label.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Known => "known",
            Self::Old => "old",
            Self::Stranger => "stranger",
            Self::Conflict => "conflict",
        }
    }
}

/// A checkpoint with the lines of a quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assembled {
    pub(crate) checkpoint: Checkpoint,
    /// Lines of log keys.
    pub(crate) log: Vec<SignatureLine>,
    /// Lines of cosigners.
    pub(crate) cosigners: Vec<SignatureLine>,
}

impl Assembled {
    /// The note, with the lines of `witnesses` after those of the validators.
    fn note(&self, witnesses: &[SignatureLine]) -> String {
        let cosigners = self.cosigners.iter().take(COSIGNERS_MAX);
        let room = SIGNATURES_MAX - WITNESSES_MAX - cosigners.len();
        let lines = self.log.iter().take(room).chain(cosigners).chain(witnesses.iter().take(WITNESSES_MAX));
        let mut text = format!("{}\n", self.checkpoint.text());
        for line in lines {
            text.push_str(&format!("{line}\n"));
        }
        debug_assert!(Note::parse(&text).is_ok(), "a note of checked lines is one");
        text
    }

    /// The note as it is shown to witnesses: they look for a log key that they know, and take short bodies only.
    pub(crate) fn for_witnesses(&self, lines_max: usize) -> String {
        let mut text = format!("{}\n", self.checkpoint.text());
        for line in self.log.iter().take(lines_max) {
            text.push_str(&format!("{line}\n"));
        }
        text
    }
}

/// What `/checkpoint` answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) size: TreeSize,
    pub(crate) note: Arc<str>,
}

struct Target {
    checkpoint: Checkpoint,
    committee: Arc<[PublicKey]>,
}

#[derive(Default)]
struct Inner {
    /// Ascending; the newest one last.
    targets: VecDeque<Target>,
    signed: BTreeMap<PublicKey, BTreeMap<TreeSize, Signed>>,
    /// The size and lines that witnesses gave last.
    witnessed: Option<(TreeSize, Vec<SignatureLine>)>,
}

/// The checkpoints of one node.
pub(crate) struct Checkpoints {
    origin: String,
    /// Witnesses are asked before a checkpoint is published.
    witnessing: bool,
    inner: Mutex<Inner>,
    assembled: watch::Sender<Option<Arc<Assembled>>>,
    published: watch::Sender<Option<Published>>,
}

impl Checkpoints {
    /// None yet.
    pub(crate) fn new(chain_id: &str, witnessing: bool) -> Self {
        Self {
            origin: origin(chain_id),
            witnessing,
            inner: Mutex::default(),
            assembled: watch::channel(None).0,
            published: watch::channel(None).0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log's origin.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// Tells of each checkpoint that a quorum signed, and of more lines below it.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Arc<Assembled>>> {
        self.assembled.subscribe()
    }

    /// What is served.
    pub(crate) fn published(&self) -> Option<Published> {
        self.published.borrow().clone()
    }

    /// Takes in the next finalized header, which `committee` certified.
    pub(crate) fn advance(&self, header: &Header, committee: &[PublicKey]) {
        let mut inner = self.lock();
        let checkpoint = Checkpoint::of(header);
        let same = |last: &Target| last.checkpoint == checkpoint && *last.committee == *committee;
        if inner.targets.back().is_some_and(same) {
            return;
        }
        let members = match inner.targets.back() {
            Some(last) if *last.committee == *committee => Arc::clone(&last.committee),
            _ => committee.into(),
        };
        let size = checkpoint.size;
        if inner.targets.back().is_some_and(|last| last.checkpoint.size == size) {
            inner.targets.pop_back();
        }
        for (key, signed) in &mut inner.signed {
            if signed.get(&size).is_some_and(|signed| signed.root != checkpoint.root) {
                error!(validator = %key, %size, "signed a checkpoint with another root than the finalized log has");
                signed.remove(&size);
            }
        }
        inner.signed.retain(|key, _| members.contains(key));
        inner.targets.push_back(Target { checkpoint, committee: members });
        if inner.targets.len() > KEPT_MAX {
            inner.targets.pop_front();
        }
        self.assemble(&inner, size);
    }

    /// The checkpoints after `after` that `key` has to sign, as a member of their committees.
    pub(crate) fn to_sign(&self, key: &PublicKey, after: Option<TreeSize>) -> Vec<Checkpoint> {
        let inner = self.lock();
        let due = |target: &&Target| {
            let unsigned = inner.signed.get(key).is_none_or(|signed| !signed.contains_key(&target.checkpoint.size));
            target.committee.contains(key) && unsigned && after.is_none_or(|after| target.checkpoint.size >= after)
        };
        inner.targets.iter().filter(due).map(|target| target.checkpoint.clone()).collect()
    }

    /// The newest checkpoint that there is to sign.
    pub(crate) fn newest(&self) -> Option<TreeSize> {
        self.lock().targets.back().map(|target| target.checkpoint.size)
    }

    /// The newest signature by `key`.
    pub(crate) fn newest_by(&self, key: &PublicKey) -> Option<Signed> {
        self.lock().signed.get(key)?.last_key_value().map(|(_, signed)| signed.clone())
    }

    /// What would become of a signature by `key`, before the work of verifying it.
    pub(crate) fn judge(&self, key: &PublicKey, size: TreeSize, root: &Digest) -> Outcome {
        let inner = self.lock();
        let (Some(first), Some(last)) = (inner.targets.front(), inner.targets.back()) else { return Outcome::Stranger };
        if !last.committee.contains(key) {
            return Outcome::Stranger;
        }
        if inner.signed.get(key).and_then(|signed| signed.get(&size)).is_some_and(|signed| signed.root == *root) {
            return Outcome::Known;
        }
        if size < first.checkpoint.size {
            return Outcome::Old;
        }
        match inner.targets.iter().find(|target| target.checkpoint.size == size) {
            Some(target) if target.checkpoint.root != *root => Outcome::Conflict,
            // Between two targets, and so the size of no finalized header.
            None if size <= last.checkpoint.size => Outcome::Conflict,
            _ => Outcome::Taken,
        }
    }

    /// Keeps a verified signature by `key`, if it is one to keep.
    pub(crate) fn insert(&self, key: PublicKey, signed: Signed) -> Outcome {
        let outcome = self.judge(&key, signed.size, &signed.root);
        if outcome != Outcome::Taken {
            return outcome;
        }
        let size = signed.size;
        let mut inner = self.lock();
        let kept = inner.signed.entry(key).or_default();
        kept.insert(size, signed);
        if kept.len() > KEPT_MAX {
            kept.pop_first();
        }
        self.assemble(&inner, size);
        Outcome::Taken
    }

    /// Looks whether a quorum signed the target of `size`, and publishes it if it is the newest such.
    fn assemble(&self, inner: &Inner, size: TreeSize) {
        if self.assembled.borrow().as_ref().is_some_and(|newest| newest.checkpoint.size > size) {
            return;
        }
        let Some(target) = inner.targets.iter().rev().find(|target| target.checkpoint.size == size) else { return };
        let of =
            |key: &PublicKey| inner.signed.get(key)?.get(&size).filter(|signed| signed.root == target.checkpoint.root);
        let signed: Vec<&Signed> = target.committee.iter().filter_map(of).collect();
        if signed.len() < quorum(target.committee.len()) {
            return;
        }
        let line = |which: usize| signed.iter().map(|signed| signed.lines[which].clone()).collect();
        let assembled = Assembled { checkpoint: target.checkpoint.clone(), log: line(0), cosigners: line(1) };
        let assembled = Arc::new(assembled);
        self.assembled.send_replace(Some(Arc::clone(&assembled)));
        match &inner.witnessed {
            _ if !self.witnessing => self.publish(&assembled, &[]),
            Some((witnessed, lines)) if *witnessed == size => self.publish(&assembled, lines),
            _ => {}
        }
    }

    /// Publishes what witnesses were asked about, with the lines that they gave.
    pub(crate) fn witnessed(&self, assembled: &Assembled, lines: Vec<SignatureLine>) {
        let mut inner = self.lock();
        let size = assembled.checkpoint.size;
        // More validators may have signed meanwhile.
        let newest = self.assembled.borrow().clone();
        let newest = newest.filter(|newest| newest.checkpoint == assembled.checkpoint);
        self.publish(newest.as_deref().unwrap_or(assembled), &lines);
        inner.witnessed = Some((size, lines));
    }

    fn publish(&self, assembled: &Assembled, witnesses: &[SignatureLine]) {
        let note = assembled.note(witnesses).into();
        self.published.send_replace(Some(Published { size: assembled.checkpoint.size, note }));
    }
}

/// Signs `checkpoint` with a validator's key.
pub(crate) fn sign(checkpoint: &Checkpoint, key: &SigningKey, seconds: u64) -> Option<Signed> {
    let lines = checkpoint.sign(key, seconds).ok()?;
    Some(Signed { size: checkpoint.size, root: checkpoint.root, seconds, lines })
}

/// The checkpoint that `signed` is about, in the log `origin`, if both its lines verify as `key`'s.
pub(crate) fn verify(origin: &str, key: PublicKey, signed: &Signed) -> bool {
    let checkpoint =
        Checkpoint { origin: origin.to_owned(), size: signed.size, root: signed.root, extensions: Vec::new() };
    let Ok(keys) = validator_keys(origin, key) else { return false };
    // Parsed, so that an empty log has the root of one.
    let Ok(checkpoint) = Checkpoint::parse(&checkpoint.text()) else { return false };
    let note = Note::new(&checkpoint.text(), signed.lines.to_vec());
    note.and_then(|note| note.verify(&keys)).is_ok_and(|held| held.len() == keys.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::city::{genesis, validator_key};
    use cairn_proof::{Height, checkpoint};

    fn header(height: u64, log_size: u64) -> Header {
        let log_root = Digest([u8::try_from(log_size).unwrap() + 1; 32]);
        Header { height: Height(height), log_size: TreeSize(log_size), log_root, ..genesis(4).header() }
    }

    fn committee(count: usize) -> Vec<PublicKey> {
        let mut keys: Vec<_> = (0..count).map(|index| validator_key(index).public()).collect();
        keys.sort();
        keys
    }

    fn signed(index: usize, header: &Header) -> (PublicKey, Signed) {
        let key = validator_key(index);
        (key.public(), sign(&Checkpoint::of(header), &key, 1_700_000_000).unwrap())
    }

    fn insert(checkpoints: &Checkpoints, index: usize, header: &Header) -> Outcome {
        let (key, signed) = signed(index, header);
        assert!(verify(checkpoints.origin(), key, &signed));
        checkpoints.insert(key, signed)
    }

    fn validators(checkpoints: &Checkpoints, header: &Header, committee: &[PublicKey]) -> usize {
        let note = checkpoints.published().unwrap().note;
        checkpoint::verify_for(header, committee, &note).unwrap().validators.len()
    }

    #[test]
    fn a_quorum_is_published_and_later_lines_are_added() {
        let (checkpoints, all, header) = (Checkpoints::new("test", false), committee(4), header(1, 1));
        checkpoints.advance(&header, &all);
        for index in 0..4 {
            assert_eq!(checkpoints.published().is_some(), index >= 3, "{index} signed");
            assert_eq!(insert(&checkpoints, index, &header), Outcome::Taken);
            assert_eq!(insert(&checkpoints, index, &header), Outcome::Known);
            if index >= 2 {
                assert_eq!(validators(&checkpoints, &header, &all), index + 1);
            }
        }
    }

    #[test]
    fn signatures_may_come_before_the_block_and_the_newest_quorum_counts() {
        let (checkpoints, all) = (Checkpoints::new("test", false), committee(4));
        let (first, second) = (header(1, 1), header(2, 5));
        assert_eq!(insert(&checkpoints, 0, &first), Outcome::Stranger, "nothing is final yet");
        checkpoints.advance(&first, &all);
        for index in 0..3 {
            assert_eq!(insert(&checkpoints, index, &second), Outcome::Taken);
        }
        assert!(checkpoints.published().is_none());
        checkpoints.advance(&second, &all);
        assert_eq!(checkpoints.published().unwrap().size, TreeSize(5));
        for index in 0..3 {
            assert_eq!(insert(&checkpoints, index, &first), Outcome::Taken);
        }
        assert_eq!(checkpoints.published().unwrap().size, TreeSize(5), "an older quorum replaces nothing");
        checkpoints.advance(&Header { height: Height(3), ..second.clone() }, &all);
        assert_eq!(checkpoints.newest(), Some(TreeSize(5)), "the same log makes no new target");
    }

    #[test]
    fn what_conflicts_with_the_finalized_log_is_told() {
        let (checkpoints, all) = (Checkpoints::new("test", false), committee(4));
        let (first, second) = (header(1, 2), header(2, 5));
        let forked = Header { log_root: Digest([99; 32]), ..second.clone() };
        checkpoints.advance(&first, &all);
        assert_eq!(insert(&checkpoints, 0, &forked), Outcome::Taken, "not final here yet");
        checkpoints.advance(&second, &all);
        assert_eq!(checkpoints.newest_by(&validator_key(0).public()), None, "forgotten");
        assert_eq!(insert(&checkpoints, 0, &forked), Outcome::Conflict);
        assert_eq!(insert(&checkpoints, 0, &header(2, 4)), Outcome::Conflict, "no header has that size");
        assert_eq!(insert(&checkpoints, 0, &header(2, 1)), Outcome::Old);
        assert_eq!(insert(&checkpoints, 7, &second), Outcome::Stranger);
        for index in 0..3 {
            insert(&checkpoints, index, &second);
        }
        assert_eq!(validators(&checkpoints, &second, &all), 3);
    }

    #[test]
    fn another_committee_signs_the_same_log_again() {
        let (checkpoints, old, new) = (Checkpoints::new("test", false), committee(4), committee(7));
        let header = header(1, 1);
        checkpoints.advance(&header, &old);
        for index in 0..3 {
            insert(&checkpoints, index, &header);
        }
        checkpoints.advance(&header, &new);
        let due = checkpoints.to_sign(&validator_key(6).public(), None);
        assert_eq!(due, [Checkpoint::of(&header)]);
        assert_eq!(checkpoints.to_sign(&validator_key(0).public(), None), [], "it signed already");
        assert_eq!(validators(&checkpoints, &header, &new), 3, "what was published stays");
        insert(&checkpoints, 5, &header);
        assert_eq!(validators(&checkpoints, &header, &new), 3);
        insert(&checkpoints, 6, &header);
        assert_eq!(validators(&checkpoints, &header, &new), 5);
    }

    #[test]
    fn floods_of_one_validator_take_its_own_room_alone() {
        let (checkpoints, all) = (Checkpoints::new("test", false), committee(4));
        checkpoints.advance(&header(1, 1), &all);
        let (key, any) = signed(0, &header(1, 1));
        for size in 1_000..3_000 {
            assert_eq!(checkpoints.insert(key, Signed { size: TreeSize(size), ..any.clone() }), Outcome::Taken);
        }
        assert_eq!(checkpoints.lock().signed[&key].len(), KEPT_MAX);
        for index in 1..4 {
            insert(&checkpoints, index, &header(1, 1));
        }
        assert_eq!(validators(&checkpoints, &header(1, 1), &all), 3);
    }

    #[test]
    fn a_large_committee_fits_into_the_lines_of_stock_verifiers() {
        let (checkpoints, all, header) = (Checkpoints::new("test", true), committee(128), header(1, 1));
        checkpoints.advance(&header, &all);
        for index in 0..128 {
            insert(&checkpoints, index, &header);
        }
        assert!(checkpoints.published().is_none(), "witnesses come first");
        let assembled = checkpoints.subscribe().borrow().clone().unwrap();
        let witness = cairn_proof::note::VerifierKey::new(
            "witness.example/w",
            cairn_proof::note::Algorithm::CosignatureV1,
            validator_key(0).public(),
        );
        let line = witness.unwrap().sign(&validator_key(0), &assembled.checkpoint.text(), 7).unwrap();
        checkpoints.witnessed(&assembled, vec![line; WITNESSES_MAX]);
        let note = Note::parse(&checkpoints.published().unwrap().note).unwrap();
        assert_eq!(note.signatures().len(), SIGNATURES_MAX);
        assert!(validators(&checkpoints, &header, &all) >= quorum(128));
        assert_eq!(note.signatures()[0].name(), "cairn/test", "one line of a log key at least");
    }
}
