//! Proofs of presence and of absence verify; any single bit of them changed is refused.

use super::*;
use crate::certificate::forge;
use crate::committee::Committee;
use crate::genesis::{GENESIS_MARK, GenesisValidator};
use crate::identity::SigningKey;
use crate::parameters::Parameters;
use crate::units::Height;

fn keys(seeds: std::ops::RangeInclusive<u8>) -> Vec<SigningKey> {
    seeds.map(|seed| SigningKey::from_seed(&[seed; 32])).collect()
}

fn genesis() -> Genesis {
    let validator =
        |key: &SigningKey| GenesisValidator { name: "v".into(), public_key: key.public(), address: "v:7000".into() };
    Genesis {
        format: GENESIS_MARK.into(),
        chain_id: "city".into(),
        timestamp_ms: 1,
        validators: keys(1..=4).iter().map(validator).collect(),
        identities: vec![],
        parameters: Parameters { epoch_blocks: 10, ..Parameters::default() },
    }
}

fn stream(name: &str) -> Subject {
    Subject::Stream { name: name.into() }
}

/// A state of two streams, and the proof of one of them, or of its absence, under a header of height 25 after the
/// committee changed at the end of epoch 0.
fn proof(asked: &str) -> StateProof {
    let value = |name: &str| format!("value of {name}").into_bytes();
    let mut leaves = ["a.a", "b.b"].map(|name| (stream(name).key(), sha256(&[&value(name)]), name));
    leaves.sort();
    let bit = trie::first_difference(&leaves[0].0, &leaves[1].0).unwrap();
    let hashes = leaves.map(|(key, value, _)| trie::leaf_hash(&key, &value));
    let key = stream(asked).key();
    let side = usize::from(trie::bit_of(&key, bit));
    let (at_end, value_hash, name) = leaves[side];
    let parts = StateProofParts {
        value: (name == asked).then(|| value(name)),
        path: vec![(bit, hashes[1 - side])],
        neighbour: (name != asked).then_some((at_end, value_hash)),
    };
    let (four, five) = (keys(1..=4), keys(1..=5));
    let committee = |keys: &[SigningKey]| {
        let mut keys: Vec<_> = keys.iter().map(SigningKey::public).collect();
        keys.sort();
        Committee::new(keys).unwrap()
    };
    let end =
        Header { height: Height(9), view: 9, next_validators_hash: committee(&five).hash(), ..genesis().header() };
    let change = CommitteeChange {
        header: Base64Bytes(end.encode()),
        certificate: Base64Bytes(forge::certificate(&end, &four, &[0, 1, 2], &genesis().tag())),
        validators: committee(&five).keys().to_vec(),
    };
    let header = Header {
        height: Height(25),
        epoch: 2,
        view: 6,
        state_root: trie::branch_hash(bit, &hashes[0], &hashes[1]),
        validators_hash: committee(&five).hash(),
        next_validators_hash: committee(&five).hash(),
        ..genesis().header()
    };
    let certificate = forge::certificate(&header, &five, &[0, 1, 2, 4], &genesis().tag());
    StateProof::new(stream(asked), parts, vec![change], header.encode(), certificate)
}

#[test]
fn presence_and_absence_are_proven() {
    for (asked, value) in [("a.a", Some(&b"value of a.a"[..])), ("b.b", Some(b"value of b.b")), ("c.c", None)] {
        let file = proof(asked).to_json().unwrap();
        let proven = StateProof::from_json(&file).unwrap().verify(&genesis()).unwrap();
        assert_eq!(proven.subject, stream(asked));
        assert_eq!(proven.value.as_deref(), value);
        assert_eq!((proven.header.height, proven.signed), (Height(25), (4, 5)));
    }
}

#[test]
fn any_flipped_bit_is_refused() {
    let genesis = genesis();
    for asked in ["a.a", "c.c"] {
        let good = proof(asked).to_json().unwrap();
        for bit in 0..good.len() * 8 {
            let mut changed = good.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let accepted = StateProof::from_json(&changed).and_then(|proof| proof.verify(&genesis));
            // Another name may be absent for the same reason; then that is what is proven, and it is true.
            let about_another =
                accepted.as_ref().is_ok_and(|proven| proven.subject != stream(asked) && proven.value.is_none());
            assert!(accepted.is_err() || about_another, "{asked}: bit {} of byte {}", bit % 8, bit / 8);
        }
    }
}

#[test]
fn each_broken_link_is_named() {
    type Change = fn(&mut StateProof);
    let cases: [(&str, &str, Change); 12] = [
        ("a.a", "state", |p| p.subject = stream("b.b")),
        ("a.a", "state", |p| p.value = Some(Base64Bytes(b"another".to_vec()))),
        ("a.a", "state", |p| p.value = None),
        ("a.a", "state", |p| p.neighbour = Some((Digest::ZERO, Digest::ZERO))),
        ("a.a", "state", |p| p.path.clear()),
        ("a.a", "state", |p| p.path[0].0 += 1),
        ("c.c", "state", |p| p.neighbour = None),
        ("c.c", "state", |p| p.neighbour = Some((stream("c.c").key(), p.neighbour.unwrap().1))),
        ("c.c", "state", |p| p.value = Some(Base64Bytes(vec![]))),
        ("c.c", "header", |p| p.committees.clear()),
        ("c.c", "header", |p| p.header.0.clear()),
        ("c.c", "certificate", |p| p.certificate.0[60] ^= 1),
    ];
    for (asked, step, change) in cases {
        let mut proof = proof(asked);
        change(&mut proof);
        assert_eq!(proof.verify(&genesis()).unwrap_err().step, step, "{asked}");
    }
    let mut proof = proof("a.a");
    proof.committees[0].certificate.0[60] ^= 1;
    assert_eq!(proof.verify(&genesis()).unwrap_err().step, "committees");
}

#[test]
fn every_subject_has_a_key_of_its_own_and_reads_back() {
    let (key, id, digest) = (keys(1..=1)[0].public(), keys(1..=1)[0].identity(), Digest([7; 32]));
    let name = "a.a".to_owned();
    let subjects = [
        Subject::Identity { id },
        Subject::Key { key },
        Subject::Sequence { id },
        Subject::Stream { name: name.clone() },
        Subject::Topic { topic: name.clone() },
        Subject::Role { stream: name.clone(), role: Role::Anchorer, identity: id },
        Subject::Role { stream: name.clone(), role: Role::Publisher, identity: id },
        Subject::Head { stream: name, partition: Partition(3) },
        Subject::Anchor { id: digest },
        Subject::Validator { key },
        Subject::Proposal { id: digest },
        Subject::Evidence { validator: key, epoch: 1, view: 2 },
        Subject::Committee {},
        Subject::NextCommittee {},
        Subject::Parameters {},
        Subject::NextParameters {},
        Subject::Attested {},
    ];
    let distinct: std::collections::BTreeSet<_> = subjects.iter().map(Subject::key).collect();
    assert_eq!(distinct.len(), subjects.len());
    for subject in subjects {
        let text = serde_json::to_string(&subject).unwrap();
        assert!(text.starts_with("{\"kind\":\""), "{text}");
        assert_eq!(serde_json::from_str::<Subject>(&text).unwrap(), subject);
    }
    assert!(serde_json::from_str::<Subject>(r#"{"kind":"committee","name":"a"}"#).is_err());
}
