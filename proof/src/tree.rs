//! Merkle trees as in RFC 9162, section 2.1: roots, inclusion proofs, consistency proofs, a growing frontier.
//!
//! Pure arithmetic over digests; it stores nothing and is imported by writer, reader and auditor alike.
//!
//! ```text
//! leaf = SHA-256(0x00 ‖ entry)      node = SHA-256(0x01 ‖ left ‖ right)      empty = SHA-256("")
//! ```
//!
//! A tree of n leaves is the sequence of perfect subtrees in n's binary decomposition, largest first, folded
//! from the right. The perfect subtrees are built with `merkle_light`. Its padding of odd widths duplicates the
//! last node, so that two different inputs would share a root; it is never reached, because a perfect subtree
//! has a power of two leaves.

use merkle_light::hash::Algorithm;
use merkle_light::merkle::MerkleTree;
use sha2::{Digest as _, Sha256};

use crate::digest::{Digest, sha256};
use crate::units::{LeafIndex, TreeSize};

/// In front of an entry (RFC 9162, section 2.1.1).
pub const LEAF_PREFIX: u8 = 0x00;
/// In front of two children (RFC 9162, section 2.1.1).
pub const NODE_PREFIX: u8 = 0x01;
/// No proof is longer: a tree has fewer than 2^64 leaves.
pub const PATH_MAX: usize = 64;

/// Why a proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The leaf lies outside of the tree.
    #[error("leaf index {index} lies outside of a tree of {size} leaves")]
    Outside {
        /// The index asked for.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// An older tree that is larger than the newer one, or empty.
    #[error("a tree of {newer} leaves cannot extend one of {older} leaves")]
    Sizes {
        /// Size of the older tree.
        older: u64,
        /// Size of the newer tree.
        newer: u64,
    },
    /// The path has the wrong number of hashes for that place.
    #[error("the path must have {expected} hashes, it has {found}")]
    Length {
        /// How many are right.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// The path leads to another root.
    #[error("the path leads to root {found}, expected {expected}")]
    Root {
        /// The root that was to be reached.
        expected: Digest,
        /// The root that was reached.
        found: Digest,
    },
}

/// Hash of a leaf's entry.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Digest {
    sha256(&[&[LEAF_PREFIX], entry])
}

/// Hash of two children.
#[must_use]
#[inline]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    sha256(&[&[NODE_PREFIX], &left.0, &right.0])
}

/// Root of the tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Digest {
    sha256(&[])
}

/// SHA-256 for `merkle_light`: inner nodes in one call over a block on the stack.
#[derive(Default)]
struct NodeHasher(Sha256);

impl std::hash::Hasher for NodeHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        // merkle_light never asks for it: it takes `Algorithm::hash`.
        0
    }
}

impl Algorithm<Digest> for NodeHasher {
    fn hash(&mut self) -> Digest {
        Digest(std::mem::take(&mut self.0).finalize().into())
    }

    /// What comes in are hashes of leaves already.
    fn leaf(&mut self, leaf: Digest) -> Digest {
        leaf
    }

    fn node(&mut self, left: Digest, right: Digest) -> Digest {
        node_hash(&left, &right)
    }
}

/// All nodes of a perfect subtree of two leaves or more, level by level, leaves first, root last.
fn perfect(leaves: &[Digest]) -> MerkleTree<Digest, NodeHasher> {
    assert!(leaves.len().is_power_of_two() && leaves.len() > 1, "a perfect subtree has a power of two leaves");
    MerkleTree::new(leaves.iter().copied())
}

fn perfect_root(leaves: &[Digest]) -> Digest {
    match leaves {
        [one] => *one,
        many => perfect(many).root(),
    }
}

/// Root of the tree over `leaves` (hashes of leaves, in order).
///
/// ```
/// use cairn_proof::tree;
/// let leaves = [tree::leaf_hash(b"a"), tree::leaf_hash(b"b"), tree::leaf_hash(b"c")];
/// let left = tree::node_hash(&leaves[0], &leaves[1]);
/// assert_eq!(tree::root(&leaves), tree::node_hash(&left, &leaves[2]));
/// ```
#[must_use]
pub fn root(leaves: &[Digest]) -> Digest {
    if leaves.is_empty() {
        return empty_root();
    }
    let mut peaks = Vec::with_capacity(PATH_MAX);
    let mut rest = leaves;
    while !rest.is_empty() {
        let width = 1 << rest.len().ilog2();
        let (subtree, more) = rest.split_at(width);
        peaks.push(perfect_root(subtree));
        rest = more;
    }
    fold(&peaks).unwrap_or_else(empty_root)
}

/// Folds peaks, largest first, from the right.
fn fold(peaks: &[Digest]) -> Option<Digest> {
    let (last, larger) = peaks.split_last()?;
    Some(larger.iter().rev().fold(*last, |right, left| node_hash(left, &right)))
}

/// Width of the left subtree of a tree of `size` > 1 leaves: the largest power of two below it.
const fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The inclusion path of the leaf at `index` (RFC 9162, section 2.1.3.1), from the leaf up.
///
/// # Errors
/// When `index` lies outside.
pub fn inclusion_path(leaves: &[Digest], index: LeafIndex) -> Result<Vec<Digest>, TreeError> {
    let size = leaves.len() as u64;
    if index.0 >= size {
        return Err(TreeError::Outside { index: index.0, size });
    }
    let mut path = Vec::new();
    let (mut range, mut at) = (leaves, index.0);
    while range.len() > 1 {
        let width = split(range.len() as u64);
        // A range is a slice in memory, so its width fits.
        #[allow(clippy::cast_possible_truncation)]
        let (left, right) = range.split_at(width as usize);
        if at < width {
            path.push(root(right));
            range = left;
        } else {
            path.push(root(left));
            range = right;
            at -= width;
        }
    }
    path.reverse();
    Ok(path)
}

/// How many hashes the inclusion path of `index` in a tree of `size` has.
#[must_use]
pub fn inclusion_path_length(index: LeafIndex, size: TreeSize) -> usize {
    let (mut at, mut width, mut length) = (index.0, size.0, 0);
    while width > 1 {
        let left = split(width);
        if at < left {
            width = left;
        } else {
            at -= left;
            width -= left;
        }
        length += 1;
    }
    length
}

/// Checks that `leaf` stands at `index` of the tree with `size` leaves and root `expected` (RFC 9162, section 2.1.3.2).
///
/// # Errors
/// When the index lies outside, the path's length is wrong, or it leads to another root.
pub fn verify_inclusion(
    leaf: &Digest,
    index: LeafIndex,
    size: TreeSize,
    path: &[Digest],
    expected: &Digest,
) -> Result<(), TreeError> {
    if index.0 >= size.0 {
        return Err(TreeError::Outside { index: index.0, size: size.0 });
    }
    let length = inclusion_path_length(index, size);
    if path.len() != length {
        return Err(TreeError::Length { expected: length, found: path.len() });
    }
    let (mut at, mut last, mut hash) = (index.0, size.0 - 1, *leaf);
    for sibling in path {
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if hash == *expected { Ok(()) } else { Err(TreeError::Root { expected: *expected, found: hash }) }
}

/// The consistency path between the first `older` leaves and all `leaves` (RFC 9162, section 2.1.4.1).
///
/// # Errors
/// When `older` is 0 or larger than the tree.
pub fn consistency_path(leaves: &[Digest], older: TreeSize) -> Result<Vec<Digest>, TreeError> {
    let newer = leaves.len() as u64;
    if older.0 == 0 || older.0 > newer {
        return Err(TreeError::Sizes { older: older.0, newer });
    }
    let mut path = Vec::new();
    let (mut range, mut at, mut whole) = (leaves, older.0, true);
    while at != range.len() as u64 {
        let width = split(range.len() as u64);
        #[allow(clippy::cast_possible_truncation)]
        let (left, right) = range.split_at(width as usize);
        if at <= width {
            path.push(root(right));
            range = left;
        } else {
            path.push(root(left));
            range = right;
            at -= width;
            whole = false;
        }
    }
    if !whole {
        path.push(root(range));
    }
    path.reverse();
    Ok(path)
}

/// Checks that the tree (`newer`, `newer_root`) begins with the tree (`older`, `older_root`) (RFC 9162, section 2.1.4.2).
///
/// # Errors
/// When the sizes are impossible, the path's length is wrong, or it leads to another root.
pub fn verify_consistency(
    older: TreeSize,
    newer: TreeSize,
    path: &[Digest],
    older_root: &Digest,
    newer_root: &Digest,
) -> Result<(), TreeError> {
    let wrong = |expected: &Digest, found: Digest| Err(TreeError::Root { expected: *expected, found });
    if older.0 == 0 || older.0 > newer.0 {
        return Err(TreeError::Sizes { older: older.0, newer: newer.0 });
    }
    if older == newer {
        return match path {
            [] if older_root == newer_root => Ok(()),
            [] => wrong(older_root, *newer_root),
            more => Err(TreeError::Length { expected: 0, found: more.len() }),
        };
    }
    let expected = consistency_path_length(older, newer);
    if path.len() != expected {
        return Err(TreeError::Length { expected, found: path.len() });
    }
    let (mut at, mut last) = (older.0 - 1, newer.0 - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (seed, rest) = match path.split_first() {
        // A power of two of leaves is one perfect subtree: its root is the older root itself.
        Some((first, rest)) if !older.0.is_power_of_two() => (*first, rest),
        _ => (*older_root, path),
    };
    let (mut old, mut new) = (seed, seed);
    for sibling in rest {
        if at & 1 == 1 || at == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    if old != *older_root {
        return wrong(older_root, old);
    }
    if new != *newer_root {
        return wrong(newer_root, new);
    }
    Ok(())
}

/// How many hashes the consistency path between trees of `older` and `newer` leaves has.
#[must_use]
pub fn consistency_path_length(older: TreeSize, newer: TreeSize) -> usize {
    let (mut at, mut width, mut length, mut whole) = (older.0, newer.0, 0, true);
    while at != width {
        let left = split(width);
        if at <= left {
            width = left;
        } else {
            at -= left;
            width -= left;
            whole = false;
        }
        length += 1;
    }
    length + usize::from(!whole)
}

/// The right edge of a growing tree: enough to append leaves and tell the root, at most 64 hashes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    /// Roots of the perfect subtrees, largest first.
    peaks: Vec<Digest>,
}

impl Frontier {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves.
    #[must_use]
    pub const fn size(&self) -> TreeSize {
        TreeSize(self.size)
    }

    /// Appends a leaf's hash.
    pub fn append(&mut self, leaf: Digest) {
        let mut carry = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                carry = node_hash(&left, &carry);
            }
        }
        self.peaks.push(carry);
        self.size += 1;
    }

    /// The root of the tree so far.
    #[must_use]
    pub fn root(&self) -> Digest {
        fold(&self.peaks).unwrap_or_else(empty_root)
    }
}

/// All leaves of a growing tree with the perfect subtrees above them: paths in O(log² n) without hashing all.
///
/// Costs 64 bytes a leaf in memory.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// `levels[k][i]` is the root of the perfect subtree over leaves `i << k .. (i + 1) << k`.
    levels: Vec<Vec<Digest>>,
}

impl Log {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> TreeSize {
        TreeSize(self.levels.first().map_or(0, |leaves| leaves.len() as u64))
    }

    /// Appends a leaf's hash and returns its place.
    pub fn append(&mut self, leaf: Digest) -> LeafIndex {
        let index = LeafIndex(self.size().0);
        let mut carry = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let nodes = &mut self.levels[level];
            nodes.push(carry);
            match nodes.as_slice() {
                [.., left, right] if nodes.len().is_multiple_of(2) => carry = node_hash(left, right),
                _ => break,
            }
        }
        index
    }

    /// The hash of the leaf at `index`.
    #[must_use]
    pub fn leaf(&self, index: LeafIndex) -> Option<Digest> {
        self.levels.first()?.get(usize::try_from(index.0).ok()?).copied()
    }

    /// The root that the tree had when it held `size` leaves; `None` when it has not grown to that.
    #[must_use]
    pub fn root_at(&self, size: TreeSize) -> Option<Digest> {
        if size.0 > self.size().0 {
            return None;
        }
        Some(self.range_root(LeafRange { start: 0, width: size.0 }))
    }

    /// The hashes of `width` perfect subtrees of 2^`level` leaves, from the one at `index` on; `None` when the tree has
    /// not grown to them.
    #[must_use]
    pub fn subtrees(&self, level: u32, index: u64, width: usize) -> Option<&[Digest]> {
        let start = usize::try_from(index).ok()?;
        self.levels.get(usize::try_from(level).ok()?)?.get(start..start.checked_add(width)?)
    }

    /// The inclusion path of `index` in the tree of its first `size` leaves.
    ///
    /// # Errors
    /// When `index` lies outside of that tree, or the tree has not grown to it.
    pub fn inclusion_path(&self, index: LeafIndex, size: TreeSize) -> Result<Vec<Digest>, TreeError> {
        if size.0 > self.size().0 || index.0 >= size.0 {
            return Err(TreeError::Outside { index: index.0, size: size.0.min(self.size().0) });
        }
        Ok(self.roots(&inclusion_ranges(index, size)?))
    }

    /// The consistency path between the trees of its first `older` and its first `newer` leaves.
    ///
    /// # Errors
    /// When `older` is 0 or larger than `newer`, or the tree has not grown to that.
    pub fn consistency_path(&self, older: TreeSize, newer: TreeSize) -> Result<Vec<Digest>, TreeError> {
        if newer.0 > self.size().0 {
            return Err(TreeError::Sizes { older: newer.0, newer: self.size().0 });
        }
        Ok(self.roots(&consistency_ranges(older, newer)?))
    }

    fn roots(&self, ranges: &[LeafRange]) -> Vec<Digest> {
        ranges.iter().map(|range| self.range_root(*range)).collect()
    }

    fn range_root(&self, range: LeafRange) -> Digest {
        // Every range that is asked for lies within the tree, and a tree in memory has no more nodes than a usize counts.
        #[allow(clippy::cast_possible_truncation)]
        let hash = |at: &Subtree| self.levels[at.level as usize][at.index as usize];
        fold_subtrees(&range.subtrees().iter().map(hash).collect::<Vec<_>>())
    }
}

/// Leaves `start .. start + width` of a tree: what one hash of a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafRange {
    /// The first leaf.
    pub start: u64,
    /// How many.
    pub width: u64,
}

/// The perfect subtree over leaves `index << level .. (index + 1) << level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subtree {
    /// Its height; 0 is a leaf.
    pub level: u32,
    /// Its place among the subtrees of that height.
    pub index: u64,
}

impl LeafRange {
    /// The perfect subtrees that make up the range, largest first. The range is one of a path: its start is aligned.
    #[must_use]
    pub fn subtrees(self) -> Vec<Subtree> {
        let (mut at, mut rest, mut subtrees) = (self.start, self.width, Vec::new());
        while rest > 0 {
            let level = rest.ilog2();
            subtrees.push(Subtree { level, index: at >> level });
            // The last range may end at the largest number of leaves.
            at = at.wrapping_add(1 << level);
            rest -= 1 << level;
        }
        subtrees
    }
}

/// The root over perfect subtrees that follow each other, largest first.
#[must_use]
pub fn fold_subtrees(roots: &[Digest]) -> Digest {
    fold(roots).unwrap_or_else(empty_root)
}

/// What the hashes of an inclusion path stand for (RFC 9162, section 2.1.3.1), from the leaf up.
///
/// # Errors
/// When `index` lies outside of the tree.
pub fn inclusion_ranges(index: LeafIndex, size: TreeSize) -> Result<Vec<LeafRange>, TreeError> {
    if index.0 >= size.0 {
        return Err(TreeError::Outside { index: index.0, size: size.0 });
    }
    let (mut start, mut width, mut ranges) = (0, size.0, Vec::new());
    while width > 1 {
        let left = split(width);
        if index.0 - start < left {
            ranges.push(LeafRange { start: start + left, width: width - left });
            width = left;
        } else {
            ranges.push(LeafRange { start, width: left });
            start += left;
            width -= left;
        }
    }
    ranges.reverse();
    Ok(ranges)
}

/// What the hashes of a consistency path stand for (RFC 9162, section 2.1.4.1), in its order.
///
/// # Errors
/// When `older` is 0 or larger than `newer`.
pub fn consistency_ranges(older: TreeSize, newer: TreeSize) -> Result<Vec<LeafRange>, TreeError> {
    if older.0 == 0 || older.0 > newer.0 {
        return Err(TreeError::Sizes { older: older.0, newer: newer.0 });
    }
    let (mut start, mut width, mut ranges) = (0, newer.0, Vec::new());
    while older.0 - start != width {
        let left = split(width);
        if older.0 - start <= left {
            ranges.push(LeafRange { start: start + left, width: width - left });
            width = left;
        } else {
            ranges.push(LeafRange { start, width: left });
            start += left;
            width -= left;
        }
    }
    if start > 0 {
        ranges.push(LeafRange { start, width });
    }
    ranges.reverse();
    Ok(ranges)
}

#[cfg(test)]
mod tests;
