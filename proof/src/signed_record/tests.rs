//! Runs of one to many records: paths, leaves and signatures that hold, and each of them broken.

use proptest::prelude::*;

use super::*;

const CHAIN: ChainTag = ChainTag(Digest([7; 32]));
const STREAM: &str = "traffic.flow";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// The leaves of so many records.
fn leaves(publisher: &SigningKey, count: u32) -> Vec<Digest> {
    let mut hasher = EntryHasher::new(&CHAIN, STREAM, Partition(2));
    let public = publisher.public();
    (1..=u64::from(count)).map(|n| hasher.leaf(public.as_bytes(), n, 5, None, Some(&n.to_be_bytes()))).collect()
}

type Headers = Vec<(&'static str, Vec<u8>)>;

fn borrowed(headers: &Headers) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
    headers.iter().map(|(name, value)| (*name, Some(value.as_slice())))
}

fn read(headers: &Headers) -> SignedHeaders<'_> {
    SignedHeaders::read(borrowed(headers)).unwrap().unwrap()
}

fn head(signed: &SignedHeaders<'_>, root: Digest) -> RunHead {
    let publisher = PublicKey::from_bytes(*signed.publisher).unwrap();
    RunHead { publisher, signature: *signed.signature, count: signed.count, root }
}

#[test]
fn each_record_of_a_run_verifies_alone_and_in_any_order() {
    let key = key(1);
    for count in [1, 2, 3, 4, 5, 7, 8, 9, 31, 100] {
        let leaves = leaves(&key, count);
        let run = SignedRun::sign(&key, &CHAIN, &leaves).unwrap();
        let mut roots = RunRoots::new();
        let forth_and_back = (0..count).chain((0..count).rev()).chain((0..count).step_by(3));
        for index in forth_and_back {
            let headers = run.headers(index, u64::from(index) + 1).unwrap();
            let signed = read(&headers);
            assert_eq!((signed.index, signed.count, signed.sequence), (index, count, u64::from(index) + 1));
            let leaf = &leaves[index as usize];
            assert_eq!(roots.root(leaf, &signed), tree::root(&leaves), "{index} of {count}, after others");
            assert_eq!(RunRoots::new().root(leaf, &signed), tree::root(&leaves), "{index} of {count}, alone");
            assert!(head(&signed, tree::root(&leaves)).verify(&CHAIN));
        }
    }
    assert!(SignedRun::sign(&key, &CHAIN, &[]).is_err());
    assert!(SignedRun::sign(&key, &CHAIN, &vec![Digest::ZERO; RUN_RECORDS_MAX as usize + 1]).is_err());
    let largest = SignedRun::sign(&key, &CHAIN, &vec![Digest::ZERO; RUN_RECORDS_MAX as usize]).unwrap();
    assert_eq!(largest.headers(0, 1).unwrap()[3].1.len(), 8 + 16 * 32);
}

/// What is signed binds everything that it names: another value of any of it is another leaf, or another message.
#[test]
fn everything_named_is_bound() {
    let publisher = [3; 32];
    let leaf = |chain: &ChainTag, stream: &str, partition, publisher: &[u8; 32], sequence, time, key, value| {
        EntryHasher::new(chain, stream, Partition(partition)).leaf(publisher, sequence, time, key, value)
    };
    let (key, value): (Option<&[u8]>, Option<&[u8]>) = (Some(b"k"), Some(b"v"));
    let all = [
        leaf(&CHAIN, "a.b", 1, &publisher, 9, 5, key, value),
        leaf(&ChainTag(Digest([8; 32])), "a.b", 1, &publisher, 9, 5, key, value),
        leaf(&CHAIN, "a.c", 1, &publisher, 9, 5, key, value),
        leaf(&CHAIN, "a.b", 2, &publisher, 9, 5, key, value),
        leaf(&CHAIN, "a.b", 1, &[4; 32], 9, 5, key, value),
        leaf(&CHAIN, "a.b", 1, &publisher, 10, 5, key, value),
        leaf(&CHAIN, "a.b", 1, &publisher, 9, -5, key, value),
        leaf(&CHAIN, "a.b", 1, &publisher, 9, 5, Some(b""), value),
        leaf(&CHAIN, "a.b", 1, &publisher, 9, 5, None, value),
        leaf(&CHAIN, "a.b", 1, &publisher, 9, 5, key, Some(b"")),
        leaf(&CHAIN, "a.b", 1, &publisher, 9, 5, key, None),
    ];
    let messages = [
        run_message(&CHAIN, &publisher, 1, &all[0]),
        run_message(&ChainTag(Digest([8; 32])), &publisher, 1, &all[0]),
        run_message(&CHAIN, &[4; 32], 1, &all[0]),
        run_message(&CHAIN, &publisher, 2, &all[0]),
        run_message(&CHAIN, &publisher, 1, &all[1]),
    ];
    let different: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(different.len(), all.len());
    let different: std::collections::BTreeSet<_> = messages.iter().collect();
    assert_eq!(different.len(), messages.len());
}

#[test]
fn headers_that_are_none_are_refused_by_name() {
    let key = key(1);
    let run = SignedRun::sign(&key, &CHAIN, &leaves(&key, 3)).unwrap();
    let good = run.headers(1, 2).unwrap();
    let changed = |change: fn(&mut Headers)| {
        let mut headers = good.clone();
        change(&mut headers);
        SignedHeaders::read(borrowed(&headers)).map(|signed| signed.is_some()).unwrap_err().to_string()
    };
    for (text, expected) in [
        (changed(|headers| drop(headers.remove(0))), "header cn-key is missing"),
        (changed(|headers| drop(headers.remove(1))), "header cn-seq is missing"),
        (changed(|headers| drop(headers.remove(2))), "header cn-sig is missing"),
        (changed(|headers| headers.push(("cn-seq", vec![0; 8]))), "header cn-seq is there twice"),
        (changed(|headers| headers.push(("cn-other", vec![]))), "header \"cn-other\""),
        (changed(|headers| headers[0].1.truncate(31)), "header cn-key: expected 32 bytes, found 31 bytes"),
        (changed(|headers| headers[1].1 = vec![0; 8]), "header cn-seq: expected 1 to 2^63 − 1, found 0"),
        (changed(|headers| headers[1].1 = vec![0xff; 8]), "header cn-seq: expected 1 to 2^63 − 1"),
        (changed(|headers| headers[2].1.push(0)), "header cn-sig: expected 64 bytes, found 65 bytes"),
        (changed(|headers| headers[3].1.truncate(7)), "header cn-run: expected 8 bytes and a path"),
        (changed(|headers| headers[3].1.truncate(8)), "a path of the length"),
        (changed(|headers| headers[3].1[3] = 3), "found index 3 of 3"),
        (changed(|headers| headers[3].1 = vec![0, 0, 0, 0, 0, 0, 0, 1]), "found index 0 of 1"),
        (changed(|headers| headers[3].1[4] = 1), "found index 1 of 16777219"),
    ] {
        assert!(text.contains(expected), "{text}, expected {expected}");
    }
    let null = SignedHeaders::read([("cn-key", None)]).unwrap_err().to_string();
    assert_eq!(null, "header cn-key: expected a value, found null");
    assert_eq!(SignedHeaders::read([("trace", Some(&b"x"[..])), ("cn", None)]), Ok(None));
}

#[test]
fn a_bad_signature_among_many_is_found_and_the_others_hold() {
    let mut heads = vec![];
    for seed in 0..=255u8 {
        let key = key(seed % 7);
        let leaves = leaves(&key, 1 + u32::from(seed % 3));
        let run = SignedRun::sign(&key, &CHAIN, &leaves).unwrap();
        let headers = run.headers(0, 1).unwrap();
        heads.push(head(&read(&headers), tree::root(&leaves)));
    }
    assert!(verify_heads(&CHAIN, &heads).iter().all(|holds| *holds));
    assert!(!verify_heads(&ChainTag(Digest([8; 32])), &heads).iter().any(|holds| *holds), "another chain");
    heads[17].signature[40] ^= 1;
    heads[200].count += 1;
    heads[201].root.0[0] ^= 1;
    let wrong: Vec<_> =
        verify_heads(&CHAIN, &heads).iter().enumerate().filter(|(_, holds)| !**holds).map(|it| it.0).collect();
    assert_eq!(wrong, [17, 200, 201]);
    assert!(verify_heads(&CHAIN, &[]).is_empty());
}

/// An R of small order, or in a second encoding, is refused in a batch as it is by itself.
#[test]
fn what_strict_checking_refuses_does_not_pass_in_a_batch() {
    let key = key(1);
    let leaf = leaves(&key, 1)[0];
    let headers = SignedRun::sign(&key, &CHAIN, &[leaf]).unwrap().headers(0, 1).unwrap();
    let good = head(&read(&headers), leaf);
    let mut identity = [0; SIGNATURE_BYTES];
    identity[0] = 1;
    let mut high_s = good.signature;
    // s + L, by which older verifiers accept a second signature: any s with its highest bits set is not canonical.
    high_s[63] |= 0xe0;
    for signature in [identity, [0; SIGNATURE_BYTES], high_s, [0xff; SIGNATURE_BYTES]] {
        let bad = RunHead { signature, ..good };
        assert_eq!(verify_heads(&CHAIN, &[good, bad, good]), [true, false, true]);
        assert!(!bad.verify(&CHAIN));
    }
}

#[test]
fn numbers_ascend_and_what_is_forgotten_cannot_come_back() {
    let publisher = |n: usize| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
        bytes
    };
    let mut sequences = Sequences::new();
    assert!(sequences.is_empty());
    sequences.take(&publisher(0), 10).unwrap();
    assert_eq!(sequences.take(&publisher(0), 10), Err(Replayed { found: 10, last: 10 }));
    assert_eq!(sequences.take(&publisher(0), 9), Err(Replayed { found: 9, last: 10 }));
    sequences.take(&publisher(0), 12).unwrap();
    for n in 1..PUBLISHERS_MAX {
        sequences.take(&publisher(n), 100 + n as u64).unwrap();
    }
    sequences.take(&publisher(PUBLISHERS_MAX), 5).unwrap();
    assert_eq!(sequences.last(&publisher(PUBLISHERS_MAX)), 5, "the smallest is forgotten: this one, at once");
    assert_eq!(sequences.take(&publisher(PUBLISHERS_MAX), 5), Err(Replayed { found: 5, last: 5 }));
    sequences.take(&publisher(PUBLISHERS_MAX), 5_000).unwrap();
    assert_eq!(sequences.take(&publisher(0), 12), Err(Replayed { found: 12, last: 12 }), "forgotten, below the floor");
    assert_eq!(sequences.take(&publisher(7777), 12), Err(Replayed { found: 12, last: 12 }), "never seen");
    sequences.take(&publisher(0), 6_000).unwrap();
    assert_eq!(Sequences::decode(&sequences.encode()).unwrap(), sequences);
    assert!(sequences.encode().len() < 45_056, "a table is bounded");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// The remembered nodes never change what a path leads to, whatever comes in whatever order.
    #[test]
    fn remembered_nodes_give_the_same_roots(
        steps in proptest::collection::vec((0..3u8, 1..40u32, any::<u32>(), proptest::option::of(any::<prop::sample::Index>())), 1..60)
    ) {
        let key = key(1);
        let mut roots = RunRoots::new();
        for (run, count, index, flip) in steps {
            let leaves: Vec<_> = leaves(&key, count).iter().map(|leaf| Digest([leaf.0[0] ^ run; 32])).collect();
            let signed = SignedRun::sign(&key, &CHAIN, &leaves).unwrap();
            let index = index % count;
            let mut headers = signed.headers(index, 1).unwrap();
            if let (Some(flip), Some((_, place))) = (flip, headers.get_mut(3)) {
                let at = 8 + flip.index(place.len() - 8);
                place[at] ^= 1;
            }
            let read = read(&headers);
            let leaf = leaves[index as usize];
            let found = roots.root(&leaf, &read);
            prop_assert_eq!(found, RunRoots::new().root(&leaf, &read));
            let path: Vec<_> = read.path.chunks(32).map(|hash| Digest(hash.try_into().unwrap())).collect();
            let (index, count) = (LeafIndex(index.into()), TreeSize(count.into()));
            prop_assert!(tree::verify_inclusion(&leaf, index, count, &path, &found).is_ok());
        }
    }

    #[test]
    fn no_number_is_taken_twice(takes in proptest::collection::vec((0..2_000u16, 1..500u64), 1..3_000)) {
        let mut sequences = Sequences::new();
        let mut taken = std::collections::BTreeSet::new();
        for (publisher, sequence) in takes {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&publisher.to_be_bytes());
            if sequences.take(&key, sequence).is_ok() {
                prop_assert!(taken.insert((publisher, sequence)));
            }
        }
        prop_assert_eq!(Sequences::decode(&sequences.encode()).unwrap(), sequences);
    }
}
