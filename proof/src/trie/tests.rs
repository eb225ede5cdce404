//! Paths out of a trie built by its definition: each key is proven with its value, each other key's absence, and nothing else.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Map = BTreeMap<Digest, Digest>;

/// Root over a sorted range, by the definition alone.
fn root(range: &[(Digest, Digest)]) -> Digest {
    let (Some((first, value)), Some((last, _))) = (range.first(), range.last()) else { return EMPTY_ROOT };
    let Some(bit) = first_difference(first, last) else { return leaf_hash(first, value) };
    let (left, right) = range.split_at(range.partition_point(|(key, _)| !bit_of(key, bit)));
    branch_hash(bit, &root(left), &root(right))
}

/// The path of `key` and what is at its end.
fn prove(range: &[(Digest, Digest)], key: &Digest) -> (Vec<(u16, Digest)>, PathEnd) {
    let (Some((first, value)), Some((last, _))) = (range.first(), range.last()) else {
        return (vec![], PathEnd::Empty);
    };
    let Some(bit) = first_difference(first, last) else {
        let (key, value) =
            if first == key { return (vec![], PathEnd::Present { value: *value }) } else { (*first, *value) };
        return (vec![], PathEnd::Absent { key, value });
    };
    let (left, right) = range.split_at(range.partition_point(|(key, _)| !bit_of(key, bit)));
    let (taken, other) = if bit_of(key, bit) { (right, left) } else { (left, right) };
    let (mut path, end) = prove(taken, key);
    path.insert(0, (bit, root(other)));
    (path, end)
}

fn key(number: u16) -> Digest {
    // Keys that share long prefixes as well as keys that do not.
    let mut key = [0; 32];
    key[..2].copy_from_slice(&(number & 0x0303).to_be_bytes());
    key[30..].copy_from_slice(&number.to_be_bytes());
    Digest(key)
}

fn entries(numbers: &BTreeMap<u16, u8>) -> Vec<(Digest, Digest)> {
    let map: Map = numbers.iter().map(|(number, value)| (key(*number), sha256(&[&[*value]]))).collect();
    map.into_iter().collect()
}

#[test]
fn bits_are_counted_from_the_highest() {
    let mut bytes = [0; 32];
    bytes[0] = 0x80;
    bytes[31] = 1;
    let key = Digest(bytes);
    assert!(bit_of(&key, 0) && bit_of(&key, 255) && !bit_of(&key, 1) && !bit_of(&key, 256) && !bit_of(&key, u16::MAX));
    assert_eq!(first_difference(&key, &Digest::ZERO), Some(0));
    assert_eq!(first_difference(&key, &key), None);
}

#[test]
fn an_empty_state_has_no_key_and_no_path() {
    let key = key(7);
    verify(&EMPTY_ROOT, &key, &[], &PathEnd::Empty).unwrap();
    assert!(verify(&Digest([1; 32]), &key, &[], &PathEnd::Empty).is_err());
    assert_eq!(verify(&EMPTY_ROOT, &key, &[(0, key)], &PathEnd::Empty), Err(TrieError::Path { steps: 1 }));
}

#[test]
fn paths_that_no_trie_has_are_refused() {
    let map = entries(&(0..40).map(|number| (number, 1)).collect());
    let root = root(&map);
    let absent = key(0x0303);
    let (path, end) = prove(&map, &absent);
    assert!(path.len() > 2);
    verify(&root, &absent, &path, &end).unwrap();
    let mut swapped = path.clone();
    swapped.swap(0, 1);
    assert!(matches!(verify(&root, &absent, &swapped, &end), Err(TrieError::Bit { step: 1, .. })));
    let mut beyond = path.clone();
    beyond.last_mut().unwrap().0 = 256;
    assert!(matches!(verify(&root, &absent, &beyond, &end), Err(TrieError::Bit { found: 256, .. })));
    // A key of the trie, at the end of its own path, does not show that another key is missing.
    let (own_path, PathEnd::Present { value }) = prove(&map, &key(5)) else { panic!("key 5 is there") };
    let end = PathEnd::Absent { key: key(5), value };
    assert!(matches!(verify(&root, &key(5), &own_path, &end), Err(TrieError::Neighbour { .. })));
    assert!(matches!(verify(&root, &key(6), &own_path, &end), Err(TrieError::Neighbour { .. })));
}

proptest! {
    #[test]
    fn every_key_is_proven_and_nothing_else(
        map in proptest::collection::btree_map(any::<u16>(), any::<u8>(), 0..60), asked in any::<u16>(),
        changed in any::<prop::sample::Index>(), bit in 0..256usize,
    ) {
        let entries = entries(&map);
        let root = root(&entries);
        let asked_key = key(asked);
        let (path, end) = prove(&entries, &asked_key);
        let present = matches!(end, PathEnd::Present { .. });
        prop_assert_eq!(present, map.contains_key(&asked));
        prop_assert_eq!(verify(&root, &asked_key, &path, &end), Ok(()));
        let value = sha256(&[b"another"]);
        let other = PathEnd::Present { value };
        prop_assert!(verify(&root, &asked_key, &path, &other).is_err());
        if !path.is_empty() {
            let at = changed.index(path.len());
            let mut other = path.clone();
            other[at].1.0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(verify(&root, &asked_key, &other, &end).is_err());
            let mut other = path.clone();
            other[at].0 ^= 1 << (bit % 16);
            prop_assert!(verify(&root, &asked_key, &other, &end).is_err());
            let mut shorter = path.clone();
            shorter.remove(at);
            prop_assert!(verify(&root, &asked_key, &shorter, &end).is_err());
        }
    }

    #[test]
    fn no_claim_about_another_key_holds(
        map in proptest::collection::btree_map(any::<u16>(), any::<u8>(), 1..60), a in any::<u16>(), b in any::<u16>(),
    ) {
        let entries = entries(&map);
        let root = root(&entries);
        let (path, end) = prove(&entries, &key(a));
        // What proves `a` may also prove that `b` is absent, and then it must be.
        if verify(&root, &key(b), &path, &end).is_ok() {
            prop_assert!(a == b || !map.contains_key(&b));
        }
        if let PathEnd::Present { value } = end {
            let end = PathEnd::Absent { key: key(a), value };
            if verify(&root, &key(b), &path, &end).is_ok() {
                prop_assert!(!map.contains_key(&b));
            }
        }
    }
}
