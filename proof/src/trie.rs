//! The hashes of the state's trie, and proofs that a key is in it, with which value, or is not.
//!
//! ```text
//! leaf   = SHA-256(0x00 ‖ key ‖ SHA-256(value))
//! branch = SHA-256(0x01 ‖ bit as u16 big-endian ‖ left ‖ right)     bit: the first bit in which left and right differ
//! empty  = 32 zero bytes
//! ```
//!
//! A binary Patricia trie over keys of 32 bytes, bit 0 being the highest of the first byte. Below a branch all keys agree
//! in the bits above its own, and its bits grow from the root down. So a key has one path, and another leaf at the end of
//! that path proves that the key is not there. The trie itself is kept by the chain's state; here is what a verifier needs.

use crate::digest::{Digest, sha256};

/// The root of a trie without keys.
pub const EMPTY_ROOT: Digest = Digest::ZERO;
/// Bits of a key, and so the most branches of a path.
pub const PATH_MAX: usize = 256;

/// Hash of the leaf that holds `key`; `value` is the SHA-256 of the value's canonical bytes.
#[must_use]
pub fn leaf_hash(key: &Digest, value: &Digest) -> Digest {
    sha256(&[&[0], &key.0, &value.0])
}

/// Hash of the branch whose children differ first in `bit`.
#[must_use]
pub fn branch_hash(bit: u16, left: &Digest, right: &Digest) -> Digest {
    sha256(&[&[1], &bit.to_be_bytes(), &left.0, &right.0])
}

/// Whether `bit` of `key` is set. Bits from 256 on, which no key has, are not.
#[must_use]
pub fn bit_of(key: &Digest, bit: u16) -> bool {
    key.0.get(usize::from(bit / 8)).is_some_and(|byte| byte >> (7 - bit % 8) & 1 == 1)
}

/// The first bit in which two keys differ; `None` when they do not.
#[must_use]
pub fn first_difference(a: &Digest, b: &Digest) -> Option<u16> {
    let byte = a.0.iter().zip(&b.0).position(|(x, y)| x != y)?;
    // The position is below 32, and a byte has at most 8 leading zeros.
    #[allow(clippy::cast_possible_truncation)]
    let bit = byte as u16 * 8 + (a.0[byte] ^ b.0[byte]).leading_zeros() as u16;
    Some(bit)
}

/// What stands at the end of a key's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathEnd {
    /// The key itself, with the SHA-256 of its value.
    Present {
        /// SHA-256 of the value's canonical bytes.
        value: Digest,
    },
    /// Another key: this one is not in the trie.
    Absent {
        /// The key that stands there.
        key: Digest,
        /// SHA-256 of its value.
        value: Digest,
    },
    /// Nothing: the trie is empty.
    Empty,
}

/// Why a path does not lead to the root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrieError {
    /// The bits do not grow, or one is beyond a key's end.
    #[error("step {step}: expected a bit of {least} to 255, found {found}")]
    Bit {
        /// Place in the path, from 0.
        step: usize,
        /// Least bit that may stand there.
        least: u16,
        /// The bit that does.
        found: u16,
    },
    /// The leaf at the end is not on the key's path, or is the key's own.
    #[error("the neighbour {neighbour} is no other key at the end of the path of {key}")]
    Neighbour {
        /// The key that is asked for.
        key: Digest,
        /// The key at the end.
        neighbour: Digest,
    },
    /// An empty trie has no path.
    #[error("nothing is at the end of the path, but it has {steps} steps; an empty state has none")]
    Path {
        /// How many steps there are.
        steps: usize,
    },
    /// The hashes lead elsewhere.
    #[error("the path leads to {found}, expected {expected}")]
    Root {
        /// The root that was given.
        expected: Digest,
        /// The root that the path leads to.
        found: Digest,
    },
}

/// Checks that `path` (from the root down: a branch's bit, and the hash of the side not taken) leads `key` from `root` to `end`.
///
/// ```
/// use cairn_proof::digest::sha256;
/// use cairn_proof::trie::{PathEnd, leaf_hash, verify};
/// let (key, value) = (sha256(&[b"key"]), sha256(&[b"value"]));
/// verify(&leaf_hash(&key, &value), &key, &[], &PathEnd::Present { value }).unwrap();
/// ```
///
/// # Errors
/// Says which rule of the trie the path breaks, or that it leads to another root.
pub fn verify(root: &Digest, key: &Digest, path: &[(u16, Digest)], end: &PathEnd) -> Result<(), TrieError> {
    let mut least = 0;
    for (step, (bit, _)) in path.iter().enumerate() {
        if *bit < least || *bit > 255 {
            return Err(TrieError::Bit { step, least, found: *bit });
        }
        least = bit + 1;
    }
    let leaf = match end {
        PathEnd::Present { value } => leaf_hash(key, value),
        PathEnd::Absent { key: neighbour, value } => {
            // It stands where the key's own bits lead, so it agrees with the key in the bit of each branch.
            let on_path = path.iter().all(|(bit, _)| bit_of(neighbour, *bit) == bit_of(key, *bit));
            if neighbour == key || !on_path {
                return Err(TrieError::Neighbour { key: *key, neighbour: *neighbour });
            }
            leaf_hash(neighbour, value)
        }
        PathEnd::Empty if path.is_empty() => EMPTY_ROOT,
        PathEnd::Empty => return Err(TrieError::Path { steps: path.len() }),
    };
    let found = path.iter().rev().fold(leaf, |below, (bit, sibling)| {
        if bit_of(key, *bit) { branch_hash(*bit, sibling, &below) } else { branch_hash(*bit, &below, sibling) }
    });
    if found == *root { Ok(()) } else { Err(TrieError::Root { expected: *root, found }) }
}

#[cfg(test)]
mod tests;
