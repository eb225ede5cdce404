//! An authenticated map from 32-byte keys to entries: a binary Patricia trie whose nodes are shared between versions.
//!
//! Its hashes are those of [`cairn_proof::trie`], where a verifier finds them.
//!
//! The shape follows from the set of keys alone, so that the root does not depend on the order of writes. A key's
//! path is unique: a proof for another leaf at the end of that path proves absence. Clones share all nodes, which
//! makes the speculative states of unfinished blocks cheap. It does not store to disk and never removes a key.
//!
//! A node is hashed when its hash is asked for, and once: a state that is only asked whether statements apply, as that of
//! waiting statements is, is never hashed; one at the end of a block hashes what the block changed, each node once. A
//! node that no other version shares is changed in place.

use std::sync::{Arc, OnceLock};

use cairn_proof::Digest;
use cairn_proof::trie::{EMPTY_ROOT, bit_of, branch_hash, first_difference, leaf_hash};

/// A key of the map: the SHA-256 of a structured name.
pub type Key = Digest;

/// What can stand in the map.
pub trait Value: Clone {
    /// Hash of the value's canonical bytes.
    fn hash(&self) -> Digest;
}

#[derive(Debug)]
enum Node<V> {
    Leaf { key: Key, value: V, hash: OnceLock<Digest> },
    Branch { bit: u16, left: Arc<Node<V>>, right: Arc<Node<V>>, hash: OnceLock<Digest> },
}

/// A way from the root down, a branch's bit and the hash of the side not taken at each step; and the leaf at its end.
pub type Way<'a, V> = (Vec<(u16, Digest)>, Option<(&'a Key, &'a V)>);

/// The map. Cloning it costs one reference count.
#[derive(Debug)]
pub struct Trie<V> {
    root: Option<Arc<Node<V>>>,
    entries: u64,
}

impl<V> Clone for Trie<V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), entries: self.entries }
    }
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self { root: None, entries: 0 }
    }
}

impl<V: Value> Node<V> {
    /// Its hash, and those of all nodes below that are not known yet. A path is at most 256 branches long, so is the recursion.
    fn hash(&self) -> Digest {
        match self {
            Self::Leaf { key, value, hash } => *hash.get_or_init(|| leaf_hash(key, &value.hash())),
            Self::Branch { bit, left, right, hash } => {
                *hash.get_or_init(|| branch_hash(*bit, &left.hash(), &right.hash()))
            }
        }
    }

    fn leaf(key: Key, value: V) -> Arc<Self> {
        Arc::new(Self::Leaf { key, value, hash: OnceLock::new() })
    }

    fn branch(bit: u16, left: Arc<Self>, right: Arc<Self>) -> Arc<Self> {
        Arc::new(Self::Branch { bit, left, right, hash: OnceLock::new() })
    }

    /// Puts `leaf` at its place at or below `node`; the two differ first in bit `split`, or not at all.
    fn insert(node: &mut Arc<Self>, key: &Key, leaf: Arc<Self>, split: Option<u16>) {
        let below = matches!(&**node, Self::Branch { bit, .. } if split.is_none_or(|split| *bit < split));
        if !below {
            *node = match split {
                None => leaf,
                Some(split) if bit_of(key, split) => Self::branch(split, node.clone(), leaf),
                Some(split) => Self::branch(split, leaf, node.clone()),
            };
            return;
        }
        if Arc::get_mut(node).is_none()
            && let Self::Branch { bit, left, right, .. } = &**node
        {
            let own = Self::branch(*bit, left.clone(), right.clone());
            *node = own;
        }
        // No other version has the node now.
        if let Some(Self::Branch { bit, left, right, hash }) = Arc::get_mut(node) {
            hash.take();
            Self::insert(if bit_of(key, *bit) { right } else { left }, key, leaf, split);
        }
    }
}

impl<V: Value> Trie<V> {
    /// The empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many keys it holds.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.entries
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// The root over everything in it.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.root.as_ref().map_or(EMPTY_ROOT, |node| node.hash())
    }

    /// The leaf at the end of the key's path: the key's own, or the only one that could be in its place.
    fn closest(&self, key: &Key) -> Option<(&Key, &V)> {
        let mut node = self.root.as_ref()?;
        loop {
            match &**node {
                Node::Leaf { key, value, .. } => return Some((key, value)),
                Node::Branch { bit, left, right, .. } => node = if bit_of(key, *bit) { right } else { left },
            }
        }
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&V> {
        self.closest(key).filter(|(found, _)| *found == key).map(|(_, value)| value)
    }

    /// Puts `value` at `key`, in place of what was there.
    pub fn insert(&mut self, key: Key, value: V) {
        let leaf = Node::leaf(key, value);
        let split = match self.closest(&key) {
            None => {
                self.root = Some(leaf);
                self.entries = 1;
                return;
            }
            Some((found, _)) => first_difference(found, &key),
        };
        if let Some(root) = &mut self.root {
            Node::insert(root, &key, leaf, split);
            self.entries += u64::from(split.is_some());
        }
    }

    /// The way from the root to where `key` stands or would stand: a branch's bit and the hash of the side not taken, from
    /// the root down; and the leaf that is there. [`cairn_proof::trie::verify`] checks it.
    #[must_use]
    pub fn prove(&self, key: &Key) -> Way<'_, V> {
        let mut path = Vec::new();
        let Some(mut node) = self.root.as_ref() else { return (path, None) };
        loop {
            match &**node {
                Node::Leaf { key, value, .. } => return (path, Some((key, value))),
                Node::Branch { bit, left, right, .. } => {
                    let (taken, other) = if bit_of(key, *bit) { (right, left) } else { (left, right) };
                    path.push((*bit, other.hash()));
                    node = taken;
                }
            }
        }
    }

    /// All values, in the order of their keys.
    pub fn for_each(&self, mut visit: impl FnMut(&Key, &V)) {
        let mut open: Vec<&Arc<Node<V>>> = self.root.iter().collect();
        while let Some(node) = open.pop() {
            match &**node {
                Node::Leaf { key, value, .. } => visit(key, value),
                Node::Branch { left, right, .. } => open.extend([right, left]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proof::digest::sha256;
    use cairn_proof::trie::{PathEnd, verify};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone, PartialEq)]
    struct Number(u64);

    impl Value for Number {
        fn hash(&self) -> Digest {
            sha256(&[&self.0.to_be_bytes()])
        }
    }

    fn key(number: u16) -> Key {
        // Keys that share long prefixes as well as keys that do not.
        let mut key = [0; 32];
        key[..2].copy_from_slice(&(number & 0x0303).to_be_bytes());
        key[30..].copy_from_slice(&number.to_be_bytes());
        Digest(key)
    }

    fn of(map: &BTreeMap<u16, u64>) -> Trie<Number> {
        let mut trie = Trie::new();
        for (number, value) in map {
            trie.insert(key(*number), Number(*value));
        }
        trie
    }

    #[test]
    fn roots_of_small_maps_are_the_documented_ones() {
        let mut trie = Trie::new();
        assert_eq!(trie.root(), Digest::ZERO);
        let (first, second) = (Digest([0; 32]), Digest([0x10; 32]));
        trie.insert(first, Number(1));
        let left = leaf_hash(&first, &Number(1).hash());
        assert_eq!(trie.root(), left);
        trie.insert(second, Number(2));
        assert_eq!(trie.root(), branch_hash(3, &left, &leaf_hash(&second, &Number(2).hash())));
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_the_order_of_writes_does_not_matter(
            writes in proptest::collection::vec((any::<u16>(), any::<u64>()), 0..200), missing in any::<u16>(),
        ) {
            let mut trie = Trie::new();
            let mut map = BTreeMap::new();
            for (number, value) in &writes {
                let before = trie.clone();
                let root = before.root();
                trie.insert(key(*number), Number(*value));
                prop_assert_eq!(before.root(), root, "a clone does not change");
                map.insert(*number, *value);
            }
            prop_assert_eq!(trie.len(), map.len() as u64);
            prop_assert_eq!(trie.root(), of(&map).root());
            for (number, value) in &map {
                prop_assert_eq!(trie.get(&key(*number)), Some(&Number(*value)));
            }
            prop_assert_eq!(trie.get(&key(missing)).map(|n| n.0), map.get(&missing).copied());
            let mut visited = 0;
            trie.for_each(|_, _| visited += 1);
            prop_assert_eq!(visited, map.len());
        }

        /// What the trie proves, the verifier takes; and nothing else that is near to it.
        #[test]
        fn proofs_verify_and_changed_ones_do_not(
            map in proptest::collection::btree_map(any::<u16>(), any::<u64>(), 0..100), asked in any::<u16>(),
            at in any::<prop::sample::Index>(), bit in 0usize..256, known in any::<bool>(),
        ) {
            let trie = of(&map);
            let asked = map.keys().nth(at.index(map.len().max(1))).copied().filter(|_| known).unwrap_or(asked);
            let (key, root) = (key(asked), trie.root());
            let (path, found) = trie.prove(&key);
            let end = match found {
                Some((at, value)) if *at == key => PathEnd::Present { value: value.hash() },
                Some((at, value)) => PathEnd::Absent { key: *at, value: value.hash() },
                None => PathEnd::Empty,
            };
            prop_assert_eq!(matches!(end, PathEnd::Present { .. }), map.contains_key(&asked));
            prop_assert_eq!(verify(&root, &key, &path, &end), Ok(()));

            let flip = |digest: &Digest| {
                let mut other = *digest;
                other.0[bit / 8] ^= 1 << (bit % 8);
                other
            };
            let refused = |key: &Key, path: &[(u16, Digest)], end: &PathEnd| verify(&root, key, path, end).is_err();
            prop_assert!(verify(&flip(&root), &key, &path, &end).is_err(), "another root");
            let ends = match end {
                PathEnd::Present { value } => vec![
                    PathEnd::Present { value: flip(&value) },
                    PathEnd::Absent { key, value },
                    PathEnd::Absent { key: flip(&key), value },
                    PathEnd::Empty,
                ],
                PathEnd::Absent { key: other, value } => vec![
                    PathEnd::Absent { key: other, value: flip(&value) },
                    PathEnd::Absent { key: flip(&other), value },
                    PathEnd::Present { value },
                    PathEnd::Empty,
                ],
                PathEnd::Empty => vec![PathEnd::Present { value: key }, PathEnd::Absent { key: flip(&key), value: key }],
            };
            for end in &ends {
                prop_assert!(refused(&key, &path, end), "{:?}", end);
            }
            for step in 0..path.len() {
                let mut changed = path.clone();
                changed[step].1 = flip(&changed[step].1);
                prop_assert!(refused(&key, &changed, &end), "the sibling of step {}", step);
                changed = path.clone();
                changed[step].0 ^= 1;
                prop_assert!(refused(&key, &changed, &end), "the bit of step {}", step);
                changed = path.clone();
                changed.remove(step);
                prop_assert!(refused(&key, &changed, &end), "without step {}", step);
            }
            // The proof of a key is not one of a key beside it: not that it is there, and that it is absent only if it is.
            let other = flip(&key);
            if let PathEnd::Present { .. } = end {
                prop_assert!(refused(&other, &path, &end), "another key");
            }
            if verify(&root, &other, &path, &end).is_ok() {
                prop_assert!(trie.get(&other).is_none());
            }
        }

        #[test]
        fn a_changed_value_changes_the_root(map in proptest::collection::btree_map(any::<u16>(), any::<u64>(), 1..50), at in any::<prop::sample::Index>()) {
            let mut trie = of(&map);
            let root = trie.root();
            let (number, value) = map.iter().nth(at.index(map.len())).unwrap();
            trie.insert(key(*number), Number(value ^ 1));
            prop_assert_ne!(trie.root(), root);
        }
    }
}
