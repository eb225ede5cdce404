//! A statement of several anchors and the entries of the log that come out of it: each is the one encoding of what it says,
//! and nothing of either can be changed.

use super::super::tests::anchor;
use super::super::{SegmentRef, SignedStatement};
use super::*;
use crate::identity::SigningKey;
use crate::units::{Offset, Partition};
use proptest::prelude::*;

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

fn chain() -> ChainTag {
    ChainTag(Digest([7; 32]))
}

fn anchors(count: u32) -> Vec<Anchor> {
    (0..count).map(|number| Anchor { partition: Partition(number), ..anchor() }).collect()
}

/// As many with a path as ingest names its segments.
fn long_anchors(count: u32) -> Vec<Anchor> {
    let path = format!("segments/traffic.flow/3/{:020}-{}.parquet", 1000, Digest([3; 32]));
    let segment = SegmentRef { path, ..anchor().segment };
    anchors(count).into_iter().map(|anchor| Anchor { segment: segment.clone(), ..anchor }).collect()
}

fn signed(anchors: Vec<Anchor>) -> Result<Vec<u8>, StatementError> {
    Statement { signer: key().identity(), sequence: Sequence(42), body: Body::Anchors(anchors) }.sign(&key(), &chain())
}

/// Signs a summary that need not be true, and puts the anchors under it.
fn forged(summary: &[u64], root: Digest, carried: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut writer = Writer::new(&mut payload);
    writer.map(3);
    for (at, number) in (1..).zip(summary) {
        writer.unsigned(at);
        writer.unsigned(*number);
    }
    writer.unsigned(3);
    writer.bytes(root.as_ref());
    let bare = super::super::envelope::forge(&key(), CONTENT_TYPE, payload, &chain());
    carry(&bare, |writer| {
        writer.signed(ALL);
        writer.array(carried.len());
        carried.iter().for_each(|anchor| writer.bytes(anchor));
    })
}

fn root_of(carried: &[Vec<u8>]) -> Digest {
    tree::root(&carried.iter().map(|anchor| tree::leaf_hash(anchor)).collect::<Vec<_>>())
}

#[test]
fn every_anchor_of_a_statement_stands_alone_in_the_log() {
    for count in [2, 3, 7, 8, 100] {
        let statement = signed(anchors(count)).unwrap();
        let decoded = SignedStatement::decode(&statement).unwrap();
        assert_eq!(decoded.statement().body, Body::Anchors(anchors(count)));
        decoded.verify(&key().public(), &chain()).unwrap();
        let entries = log_entries(&statement);
        let mut ids = std::collections::BTreeSet::new();
        for (index, (entry, anchor)) in (0..).zip(entries.iter().zip(anchors(count))) {
            let logged = LoggedAnchor::decode(entry).unwrap();
            logged.verify(&key().public(), &chain()).unwrap();
            assert_eq!((logged.anchor(), logged.signer()), (&anchor, key().identity()));
            let place = logged.place().unwrap();
            assert_eq!((place.index, place.count), (LeafIndex(index), TreeSize(count.into())));
            assert_eq!(log_entry(&statement, LeafIndex(index)).as_ref(), Some(entry));
            assert_eq!(logged.id(), statement_id(entry));
            assert!(ids.insert(logged.id()) && entry.len() < statement.len());
            assert!(SignedStatement::decode(entry).is_err(), "an entry of the log is no statement");
        }
        assert_eq!(entries.len(), count as usize);
        assert_eq!(log_entry(&statement, LeafIndex(count.into())), None);
        assert!(LoggedAnchor::decode(&statement).is_err(), "a statement of several is no entry of the log");
    }
}

#[test]
fn an_anchor_alone_is_its_own_entry() {
    let body = Body::Anchor(anchor());
    let statement =
        Statement { signer: key().identity(), sequence: Sequence(42), body }.sign(&key(), &chain()).unwrap();
    assert_eq!(log_entries(&statement), [Cow::Borrowed(&statement[..])]);
    assert_eq!(log_entry(&statement, LeafIndex(0)).as_deref(), Some(&statement[..]));
    assert_eq!(log_entry(&statement, LeafIndex(1)), None);
    let logged = LoggedAnchor::decode(&statement).unwrap();
    logged.verify(&key().public(), &chain()).unwrap();
    assert_eq!((logged.place(), logged.anchor()), (None, &anchor()));
    assert!(logged.verify(&SigningKey::from_seed(&[2; 32]).public(), &chain()).is_err());
    assert!(logged.verify(&key().public(), &ChainTag(Digest([8; 32]))).is_err());
}

/// Whatever bit of an entry is flipped: it does not decode, or names another signer, or does not verify.
#[test]
fn any_flipped_bit_of_an_entry_is_refused() {
    let statement = signed(anchors(5)).unwrap();
    let entry = log_entry(&statement, LeafIndex(3)).unwrap().into_owned();
    for bit in 0..entry.len() * 8 {
        let mut changed = entry.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let Ok(read) = LoggedAnchor::decode(&changed) else { continue };
        let same_signer = read.signer() == key().identity();
        assert!(!same_signer || read.verify(&key().public(), &chain()).is_err(), "bit {bit}");
    }
}

#[test]
fn sets_that_are_none_are_named() {
    let doubled = vec![anchor(), anchor()];
    let mut descending = anchors(2);
    descending.reverse();
    let other_stream = Anchor { stream: "energy.meters".into(), ..anchor() };
    for (wrong, want) in [
        (vec![], "anchors"),
        (anchors(1), "anchors"),
        (anchors(257), "anchors"),
        (doubled, "anchors"),
        (descending, "anchors"),
        (vec![anchor(), other_stream], "anchors"),
        (vec![anchor(), Anchor { partition: Partition(4), count: 1, ..anchor() }], "count"),
    ] {
        match signed(wrong) {
            Err(StatementError::Field { field, .. }) => assert_eq!(field, want),
            other => panic!("expected field {want}, got {other:?}"),
        }
    }
    assert!(matches!(signed(long_anchors(250)), Err(StatementError::TooLong { .. })), "the bytes bound them too");
}

#[test]
fn what_is_carried_must_be_what_is_signed() {
    let carried: Vec<Vec<u8>> = anchors(3).iter().map(Anchor::encode).collect();
    let root = root_of(&carried);
    let good = forged(&[42, 3], root, &carried);
    assert_eq!(good, signed(anchors(3)).unwrap(), "the forged one is the real one when nothing is wrong");
    let other = Anchor { partition: Partition(9), ..anchor() }.encode();
    let replaced = [&carried[..2], &[other]].concat();
    let reordered: Vec<_> = carried.iter().rev().cloned().collect();
    let mut torn = carried.clone();
    torn[1].pop();
    let long = vec![carried[0].clone(); 257];
    let with_sequence = {
        let mut bytes = Vec::new();
        anchor().write(Sequence(1), &mut Writer::new(&mut bytes));
        vec![bytes.clone(), bytes]
    };
    for (name, wrong) in [
        ("one fewer", forged(&[42, 3], root, &carried[..2])),
        ("one more", forged(&[42, 2], root_of(&carried[..2]), &carried)),
        ("none", forged(&[42, 3], root, &[])),
        ("another one", forged(&[42, 3], root, &replaced)),
        ("another order", forged(&[42, 3], root, &reordered)),
        ("another order, signed", forged(&[42, 3], root_of(&reordered), &reordered)),
        ("no anchor", forged(&[42, 3], root_of(&torn), &torn)),
        ("more than there may be", forged(&[42, 257], root_of(&long), &long)),
        ("with sequence numbers", forged(&[42, 2], root_of(&with_sequence), &with_sequence)),
        ("one alone", forged(&[42, 1], root_of(&carried[..1]), &carried[..1])),
    ] {
        assert!(SignedStatement::decode(&wrong).is_err(), "{name}");
    }
    let bare = take_apart(&good).unwrap().unwrap().bare;
    assert!(Sealed::open(&bare).is_ok() && SignedStatement::decode(&bare).is_err(), "without its anchors");
    assert!(LoggedAnchor::decode(&bare).is_err(), "without any anchor");
    let elsewhere = carry(&bare, |writer| {
        writer.signed(-65_539);
        writer.array(0);
    });
    assert!(SignedStatement::decode(&elsewhere).is_err(), "under another label");
}

#[test]
fn an_entry_with_another_place_does_not_verify() {
    let statement = signed(anchors(6)).unwrap();
    let parts = take_apart(&statement).unwrap().unwrap();
    let leaves: Vec<_> = anchors(6).iter().map(|anchor| tree::leaf_hash(&anchor.encode())).collect();
    let path = tree::inclusion_path(&leaves, LeafIndex(4)).unwrap();
    let bytes = anchors(6)[4].encode();
    let other = Anchor { partition: Partition(9), ..anchor() }.encode();
    let verdict = |entry: &[u8]| LoggedAnchor::decode(entry).and_then(|it| it.verify(&key().public(), &chain()));
    assert_eq!(verdict(&with_one(&parts.bare, 4, &path, &bytes)), Ok(()));
    for wrong in [
        with_one(&parts.bare, 5, &path, &bytes),
        with_one(&parts.bare, 6, &path, &bytes),
        with_one(&parts.bare, u64::MAX, &path, &bytes),
        with_one(&parts.bare, 4, &path[1..], &bytes),
        with_one(&parts.bare, 4, &[&path[..], &path[..1]].concat(), &bytes),
        with_one(&parts.bare, 4, &[], &bytes),
        with_one(&parts.bare, 4, &path, &other),
    ] {
        assert!(matches!(verdict(&wrong), Err(StatementError::Place(_))), "{:?}", verdict(&wrong));
    }
    assert!(matches!(
        verdict(&with_one(&parts.bare, 4, &vec![Digest::ZERO; 65], &bytes)),
        Err(StatementError::Payload(_))
    ));
}

#[test]
fn the_bound_of_what_a_statement_takes_beside_its_anchors_holds() {
    let largest =
        Statement { signer: key().identity(), sequence: Sequence(u64::MAX), body: Body::Anchors(long_anchors(100)) };
    let statement = largest.sign(&key(), &chain()).unwrap();
    let own: usize = long_anchors(100).iter().map(|anchor| anchor.encode().len() + ANCHOR_HEAD_BYTES).sum();
    let beside = statement.len() - own;
    assert!((ANCHORS_OVERHEAD_BYTES - 64..=ANCHORS_OVERHEAD_BYTES).contains(&beside), "{beside}");
}

proptest! {
    /// Any set of partitions comes out as it went in, and each entry leads to the signed root.
    #[test]
    fn sets_round_trip(partitions in proptest::collection::btree_set(any::<u32>(), 2..40), first in 0..1_000_000u64) {
        let make = |partition: &u32| {
            let (first, last) = (Offset(first), Offset(first + 9));
            Anchor { partition: Partition(*partition), first, last, gaps: vec![], count: 10, ..anchor() }
        };
        let anchors: Vec<Anchor> = partitions.iter().map(make).collect();
        let statement = signed(anchors.clone()).unwrap();
        let decoded = SignedStatement::decode(&statement).unwrap().into_statement();
        prop_assert_eq!(decoded.body, Body::Anchors(anchors.clone()));
        for (entry, anchor) in log_entries(&statement).iter().zip(&anchors) {
            let logged = LoggedAnchor::decode(entry).unwrap();
            prop_assert_eq!(logged.anchor(), anchor);
            prop_assert_eq!(logged.verify(&key().public(), &chain()), Ok(()));
        }
    }
}
