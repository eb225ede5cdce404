//! The BLAKE3 tree of one stored object: how any byte range of it is checked against one 32-byte root.
//!
//! BLAKE3 hashes a tree of 1 KiB chunks. Cairn keeps the tree down to groups of 16 chunks (16 KiB), which is where
//! hashing is at full speed and a range over-reads least. The tree is stored beside the object and is as untrusted as
//! the object itself: it is accepted only if it folds to the root that a finalized anchor names.
//!
//! # The stored form
//!
//! The pre-order outboard of `bao-tree` with chunk groups of 2⁴, which is what iroh stores as `.obao4`; no length
//! prefix, for the anchor names the length:
//!
//! ```text
//! outboard = node(0, n)                       n = ceil(size / 16 KiB) groups; empty when n ≤ 1
//! node(a, b) = cv(a, m) ‖ cv(m, b) ‖ node(a, m) ‖ node(m, b)     m = a + largest power of two < b - a
//! node(a, a + 1) = nothing
//! ```
//!
//! 64 bytes an inner node, `64 · (n - 1)` in all. Every hash in it is checked on the way down, so that no bit of an
//! outboard can change unnoticed.
//!
//! # In memory
//!
//! A pyramid: `levels[k][i]` is the chaining value of groups `i·2ᵏ .. (i+1)·2ᵏ`, cut at the object's end. A range
//! that covers a whole aligned subtree is hashed in one call and compared with one value.
//!
//! What this is not: it neither reads nor writes files; see [`crate::store`] and [`crate::verified`].

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use cairn_proof::digest::Digest;
use std::ops::Range;

/// log₂ of the bytes in a chunk group.
const GROUP_LOG: u32 = 14;

/// Bytes in a chunk group: the smallest piece that can be verified on its own.
pub const GROUP_BYTES: u64 = 1 << GROUP_LOG;

/// Bytes that one inner node takes in the stored form: two chaining values.
const NODE_BYTES: usize = 64;

/// The largest object that is read: several times what a stream's limits let a segment become. Its pyramid takes 16 MiB.
pub const OBJECT_BYTES_MAX: u64 = 4 << 30;

/// Why a stored outboard, or bytes checked against it, were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The object is larger than Cairn handles.
    #[error("an object of {size} bytes is over the limit of {OBJECT_BYTES_MAX}")]
    ObjectTooLarge {
        /// The size that the anchor names.
        size: u64,
    },
    /// The outboard has not the length that the object's size asks for.
    #[error("the hash tree has {found} bytes where {expected} belong")]
    OutboardLength {
        /// 64 bytes an inner node.
        expected: u64,
        /// What is stored.
        found: u64,
    },
    /// A node of the outboard does not hash to what its parent, or the anchored root, says.
    #[error("the hash tree is wrong at its byte {position} (bytes {} to {} of the object): expected {expected}, found {found}", covers.start, covers.end)]
    OutboardNode {
        /// Where in the outboard the refused node stands.
        position: u64,
        /// The bytes of the object that the node covers.
        covers: Range<u64>,
        /// What the parent or the anchor says.
        expected: Digest,
        /// What the stored node hashes to.
        found: Digest,
    },
    /// Bytes of the object do not hash to what the tree says.
    #[error("bytes {} to {} are not what was anchored: expected {expected}, found {found}", range.start, range.end)]
    Data {
        /// The smallest range of the object that is known to hold the wrong bytes.
        range: Range<u64>,
        /// The chaining value in the verified tree.
        expected: Digest,
        /// What the bytes hash to.
        found: Digest,
    },
    /// Bytes were offered for checking that do not start and end where groups do.
    #[error("bytes {start} to {} are not whole chunk groups of an object of {size} bytes", start + length)]
    Unaligned {
        /// Where the bytes start in the object.
        start: u64,
        /// How many there are.
        length: u64,
        /// The object's size.
        size: u64,
    },
}

/// How many groups an object of `size` bytes has; an empty object has one, empty group.
fn group_count(size: u64) -> u64 {
    size.div_ceil(GROUP_BYTES).max(1)
}

/// Bytes that the stored outboard of an object of `size` bytes has.
pub fn outboard_size(size: u64) -> u64 {
    (group_count(size) - 1) * NODE_BYTES as u64
}

/// The chaining value of `data`, which starts at byte `start` of the object and is not the whole object.
fn chaining_value(start: u64, data: &[u8]) -> ChainingValue {
    blake3::Hasher::new().set_input_offset(start).update(data).finalize_non_root()
}

/// Where the node over groups `a..b` splits: the left child is the largest power of two below its width.
fn split(a: u64, b: u64) -> u64 {
    a + (b - a).next_power_of_two() / 2
}

/// The level of the pyramid at which groups `a..b` stand, given that they are one node of the tree.
fn level_of(a: u64, b: u64) -> usize {
    (b - a).next_power_of_two().trailing_zeros() as usize
}

/// A verified tree over one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outboard {
    size: u64,
    root: Digest,
    /// `levels[0]` has one value a group; each level above pairs them, an odd last one is carried up unchanged.
    levels: Vec<Vec<ChainingValue>>,
}

impl Outboard {
    /// Hashes a whole object that this process made itself.
    ///
    /// # Errors
    /// [`Mismatch::ObjectTooLarge`].
    pub fn of(data: &[u8]) -> Result<Self, Mismatch> {
        let size = data.len() as u64;
        check_size(size)?;
        if group_count(size) == 1 {
            return Ok(Self::single(size, Digest(*blake3::hash(data).as_bytes())));
        }
        let groups = data
            .chunks(GROUP_BYTES as usize)
            .enumerate()
            .map(|(index, group)| chaining_value((index as u64) << GROUP_LOG, group))
            .collect();
        Ok(Self::from_groups(size, groups))
    }

    /// Accepts a stored outboard, if it is the tree of an object of `size` bytes with the BLAKE3 hash `root`.
    ///
    /// ```
    /// use cairn_anchor::outboard::Outboard;
    /// let data = vec![7; 100_000];
    /// let tree = Outboard::of(&data).expect("small enough");
    /// let mut stored = tree.encode();
    /// assert_eq!(Outboard::decode(&stored, 100_000, tree.root()), Ok(tree.clone()));
    /// stored[70] ^= 1;
    /// assert!(Outboard::decode(&stored, 100_000, tree.root()).is_err());
    /// ```
    ///
    /// # Errors
    /// [`Mismatch`], naming the node that is wrong; nothing of a wrong tree is kept.
    pub fn decode(stored: &[u8], size: u64, root: Digest) -> Result<Self, Mismatch> {
        check_size(size)?;
        let expected = outboard_size(size);
        if stored.len() as u64 != expected {
            return Err(Mismatch::OutboardLength { expected, found: stored.len() as u64 });
        }
        if expected == 0 {
            return Ok(Self::single(size, root));
        }
        let mut decoder = Decoder { stored, size, position: 0, groups: Vec::new() };
        decoder.node(0, group_count(size), root.0, true)?;
        let groups = decoder.groups;
        let tree = Self::from_groups(size, groups);
        debug_assert_eq!(tree.root, root, "a tree whose every node was checked folds to its root");
        Ok(tree)
    }

    /// The stored form; see the module's description.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(outboard_size(self.size) as usize);
        self.encode_node(0, group_count(self.size), &mut out);
        out
    }

    /// The object's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The object's BLAKE3 hash.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// About how many bytes of memory the tree takes.
    pub fn memory_bytes(&self) -> u64 {
        self.levels.iter().map(|level| (level.len() * 32) as u64).sum::<u64>() + 256
    }

    /// The smallest range of whole groups that covers `range`, cut at the object's end.
    pub fn align(&self, range: &Range<u64>) -> Range<u64> {
        align(range, self.size)
    }

    /// Checks bytes of the object that start at `start` and are whole groups, by their largest aligned subtrees.
    ///
    /// # Errors
    /// [`Mismatch::Data`] with the smallest range that is known to be wrong; [`Mismatch::Unaligned`].
    pub fn verify(&self, start: u64, data: &[u8]) -> Result<(), Mismatch> {
        if self.levels[0].len() == 1 {
            return self.verify_whole(start, data);
        }
        let (mut at, mut rest) = (start, data);
        while !rest.is_empty() {
            let unaligned = Mismatch::Unaligned { start, length: data.len() as u64, size: self.size };
            let (level, length) = self.subtree_at(at, rest.len() as u64).ok_or(unaligned)?;
            let (subtree, after) = rest.split_at(length as usize);
            if chaining_value(at, subtree) != self.levels[level][(at >> GROUP_LOG >> level) as usize] {
                return Err(self.locate(at, subtree));
            }
            (at, rest) = (at + length, after);
        }
        Ok(())
    }

    /// The largest subtree that starts at `at` and that `available` bytes cover: its level and its bytes.
    fn subtree_at(&self, at: u64, available: u64) -> Option<(usize, u64)> {
        if !at.is_multiple_of(GROUP_BYTES) || at >= self.size {
            return None;
        }
        let top = self.levels.len() - 1;
        let aligned = ((at >> GROUP_LOG).trailing_zeros() as usize).min(top);
        (0..=aligned)
            .rev()
            .map(|level| (level, (GROUP_BYTES << level).min(self.size - at)))
            .find(|(_, length)| *length <= available)
    }

    /// Names the first wrong group of a subtree that failed.
    fn locate(&self, start: u64, subtree: &[u8]) -> Mismatch {
        for (index, group) in subtree.chunks(GROUP_BYTES as usize).enumerate() {
            let at = start + ((index as u64) << GROUP_LOG);
            let expected = self.levels[0][(at >> GROUP_LOG) as usize];
            let found = chaining_value(at, group);
            if found != expected {
                let range = at..at + group.len() as u64;
                return Mismatch::Data { range, expected: Digest(expected), found: Digest(found) };
            }
        }
        unreachable!("the levels above fold from the groups: a subtree is wrong only if a group of it is");
    }

    fn verify_whole(&self, start: u64, data: &[u8]) -> Result<(), Mismatch> {
        if start != 0 || data.len() as u64 != self.size {
            return Err(Mismatch::Unaligned { start, length: data.len() as u64, size: self.size });
        }
        let found = Digest(*blake3::hash(data).as_bytes());
        if found != self.root {
            return Err(Mismatch::Data { range: 0..self.size, expected: self.root, found });
        }
        Ok(())
    }

    fn single(size: u64, root: Digest) -> Self {
        Self { size, root, levels: vec![vec![root.0]] }
    }

    /// Builds the pyramid over at least two groups.
    fn from_groups(size: u64, groups: Vec<ChainingValue>) -> Self {
        let mut levels = vec![groups];
        while let Some(level) = levels.last().filter(|level| level.len() > 2) {
            let above = level
                .chunks(2)
                .map(|pair| match pair {
                    [left, right] => merge_subtrees_non_root(left, right, Mode::Hash),
                    odd => odd[0],
                })
                .collect();
            levels.push(above);
        }
        let top = &levels[levels.len() - 1];
        let root = Digest(*merge_subtrees_root(&top[0], &top[1], Mode::Hash).as_bytes());
        Self { size, root, levels }
    }

    fn encode_node(&self, a: u64, b: u64, out: &mut Vec<u8>) {
        if b - a <= 1 {
            return;
        }
        let middle = split(a, b);
        for (from, to) in [(a, middle), (middle, b)] {
            let level = level_of(from, to);
            out.extend_from_slice(&self.levels[level][(from >> level) as usize]);
        }
        self.encode_node(a, middle, out);
        self.encode_node(middle, b, out);
    }
}

/// The smallest range of whole groups that covers `range`, cut at the end of an object of `size` bytes.
pub(crate) fn align(range: &Range<u64>, size: u64) -> Range<u64> {
    let start = range.start & !(GROUP_BYTES - 1);
    start..range.end.div_ceil(GROUP_BYTES).saturating_mul(GROUP_BYTES).min(size)
}

fn check_size(size: u64) -> Result<(), Mismatch> {
    if size > OBJECT_BYTES_MAX { Err(Mismatch::ObjectTooLarge { size }) } else { Ok(()) }
}

/// Walks a stored outboard from the root down and checks each node against its parent.
struct Decoder<'a> {
    stored: &'a [u8],
    size: u64,
    position: usize,
    groups: Vec<ChainingValue>,
}

impl Decoder<'_> {
    /// Recursion is as deep as the tree: 18 for the largest object.
    fn node(&mut self, a: u64, b: u64, expected: ChainingValue, is_root: bool) -> Result<(), Mismatch> {
        if b - a == 1 {
            self.groups.push(expected);
            return Ok(());
        }
        let (pair, _) = self.stored[self.position..].as_chunks::<32>();
        let (left, right) = (pair[0], pair[1]);
        let found = if is_root {
            *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
        } else {
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        };
        if found != expected {
            return Err(Mismatch::OutboardNode {
                position: self.position as u64,
                covers: a << GROUP_LOG..(b << GROUP_LOG).min(self.size),
                expected: Digest(expected),
                found: Digest(found),
            });
        }
        self.position += NODE_BYTES;
        let middle = split(a, b);
        self.node(a, middle, left, false)?;
        self.node(middle, b, right, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bao_tree::{BlockSize, io::outboard::PreOrderMemOutboard};
    use proptest::prelude::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
    }

    fn sizes() -> Vec<usize> {
        let group = GROUP_BYTES as usize;
        let mut sizes = vec![0, 1, 1023, 1024, 1025, group - 1, group, group + 1];
        sizes.extend((2..20).flat_map(|groups| [groups * group - 1, groups * group, groups * group + 1]));
        sizes
    }

    #[test]
    fn the_stored_form_is_that_of_bao_tree() {
        for size in sizes() {
            let data = bytes(size);
            let ours = Outboard::of(&data).unwrap();
            let theirs = PreOrderMemOutboard::create(&data, BlockSize::from_chunk_log(4));
            assert_eq!(ours.encode(), theirs.data, "{size} bytes");
            assert_eq!(ours.root().0, *theirs.root.as_bytes(), "{size} bytes");
            assert_eq!(ours.root().0, *blake3::hash(&data).as_bytes(), "{size} bytes");
            assert_eq!(Outboard::decode(&theirs.data, size as u64, ours.root()), Ok(ours));
        }
    }

    #[test]
    fn every_bit_of_an_outboard_counts() {
        let data = bytes(7 * GROUP_BYTES as usize + 5);
        let tree = Outboard::of(&data).unwrap();
        let stored = tree.encode();
        for bit in 0..stored.len() * 8 {
            let mut wrong = stored.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let refused = Outboard::decode(&wrong, data.len() as u64, tree.root());
            assert!(matches!(refused, Err(Mismatch::OutboardNode { .. })), "bit {bit}: {refused:?}");
        }
    }

    #[test]
    fn a_tree_of_another_length_size_or_root_is_refused() {
        let data = bytes(5 * GROUP_BYTES as usize);
        let tree = Outboard::of(&data).unwrap();
        let (stored, size) = (tree.encode(), data.len() as u64);
        let length = Outboard::decode(&stored[..stored.len() - 1], size, tree.root());
        assert_eq!(length, Err(Mismatch::OutboardLength { expected: 256, found: 255 }));
        assert!(matches!(
            Outboard::decode(&stored, size + 1, tree.root()),
            Err(Mismatch::OutboardLength { expected: 320, found: 256 })
        ));
        assert!(matches!(
            Outboard::decode(&stored, size, Digest([9; 32])),
            Err(Mismatch::OutboardNode { position: 0, .. })
        ));
        let huge = Outboard::decode(&[], OBJECT_BYTES_MAX + 1, tree.root());
        assert_eq!(huge, Err(Mismatch::ObjectTooLarge { size: OBJECT_BYTES_MAX + 1 }));
    }

    #[test]
    fn a_wrong_group_is_named() {
        let data = bytes(9 * GROUP_BYTES as usize + 100);
        let tree = Outboard::of(&data).unwrap();
        for group in 0..10 {
            let at = group * GROUP_BYTES as usize + 50;
            let mut wrong = data.clone();
            wrong[at] ^= 4;
            let Err(Mismatch::Data { range, expected, found }) = tree.verify(0, &wrong) else {
                panic!("group {group} went through");
            };
            assert_eq!(range.start, (group as u64) << GROUP_LOG);
            assert!(range.contains(&(at as u64)) && range.end <= data.len() as u64);
            assert_ne!(expected, found);
        }
    }

    #[test]
    fn unaligned_bytes_are_refused() {
        let data = bytes(3 * GROUP_BYTES as usize);
        let tree = Outboard::of(&data).unwrap();
        let group = GROUP_BYTES as usize;
        for (start, end) in [(1, group), (0, group - 1), (group, 3 * group - 1)] {
            let refused = tree.verify(start as u64, &data[start..end]);
            assert!(matches!(refused, Err(Mismatch::Unaligned { .. })), "{start}..{end}: {refused:?}");
        }
        assert!(matches!(tree.verify(3 * GROUP_BYTES, &data[..group]), Err(Mismatch::Unaligned { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_range_verifies_and_any_changed_bit_in_it_does_not(
            size in 1usize..300_000, a in 0.0f64..1.0, b in 0.0f64..1.0, flip in 0.0f64..1.0, bit in 0u8..8,
        ) {
            let data = bytes(size);
            let tree = Outboard::of(&data).unwrap();
            let (a, b) = ((a * size as f64) as u64, (b * size as f64) as u64);
            let asked = a.min(b)..a.max(b).max(a.min(b) + 1).min(size as u64);
            let whole = tree.align(&asked);
            prop_assert!(whole.start <= asked.start && whole.end >= asked.end);
            let slice = &data[whole.start as usize..whole.end as usize];
            prop_assert_eq!(tree.verify(whole.start, slice), Ok(()));
            let mut wrong = slice.to_vec();
            let at = (flip * wrong.len() as f64) as usize;
            wrong[at] ^= 1 << bit;
            match tree.verify(whole.start, &wrong) {
                Err(Mismatch::Data { range, .. }) => prop_assert!(range.contains(&(whole.start + at as u64))),
                other => prop_assert!(false, "went through: {:?}", other),
            }
        }
    }
}
