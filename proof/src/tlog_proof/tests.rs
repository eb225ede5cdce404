//! Proofs round-trip and verify; other places, entries and forms are refused.

use super::*;
use crate::header::Header;
use crate::identity::SigningKey;
use crate::receipt::Receipt;
use crate::units::TreeSize;
use proptest::prelude::*;

fn proof(entries: u64, index: u64, extra: Option<Vec<u8>>) -> TlogProof {
    let leaves: Vec<Digest> = (0..entries).map(|entry| tree::leaf_hash(&entry.to_be_bytes())).collect();
    let checkpoint =
        Checkpoint { origin: origin("city"), size: TreeSize(entries), root: tree::root(&leaves), extensions: vec![] };
    let lines = checkpoint.sign(&SigningKey::from_seed(&[1; 32]), 1_700_000_000).unwrap();
    let path = tree::inclusion_path(&leaves, LeafIndex(index)).unwrap();
    TlogProof { extra, index: LeafIndex(index), path, checkpoint: Note::new(&checkpoint.text(), lines.into()).unwrap() }
}

fn leaf(index: u64) -> Digest {
    tree::leaf_hash(&index.to_be_bytes())
}

#[test]
fn proofs_verify_at_their_place_alone() {
    for entries in [1, 2, 3, 7, 8, 9] {
        for index in 0..entries {
            let proof = TlogProof::parse(&proof(entries, index, None).to_text()).unwrap();
            assert_eq!(proof.verify_inclusion(&leaf(index)).unwrap().size, TreeSize(entries));
            assert!(proof.verify_inclusion(&leaf(index + 1)).is_err());
            for other in (0..=entries).filter(|other| *other != index) {
                let moved = TlogProof { index: LeafIndex(other), ..proof.clone() };
                assert!(moved.verify_inclusion(&leaf(index)).is_err(), "{index} of {entries} at {other}");
            }
        }
    }
}

#[test]
fn hostile_files_are_refused() {
    let good = proof(5, 3, Some(b"more".to_vec())).to_text();
    TlogProof::parse(&good).unwrap();
    let path_line = good.lines().nth(3).unwrap().to_owned() + "\n";
    for (why, text) in [
        ("nothing", String::new()),
        ("another mark", good.replace("@v1", "@v2")),
        ("no mark", good.replace("c2sp.org/tlog-proof@v1\n", "")),
        ("empty extra", good.replace("bW9yZQ==", "")),
        ("extra that is no base64", good.replace("bW9yZQ==", "bW9yZQ")),
        ("extra after the index", good.replace("extra bW9yZQ==\nindex 3\n", "index 3\nextra bW9yZQ==\n")),
        ("two extras", good.replace("extra bW9yZQ==\n", "extra bW9yZQ==\nextra bW9yZQ==\n")),
        ("no index", good.replace("index 3\n", "")),
        ("an index with a zero in front", good.replace("index 3", "index 03")),
        ("an index beyond 64 bits", good.replace("index 3", "index 18446744073709551616")),
        ("a hash of 31 bytes", good.replace(&path_line, "AAAA\n")),
        ("65 hashes", good.replace(&path_line, &path_line.repeat(65))),
        ("an empty line more", good.replace("\n\ncairn", "\n\n\ncairn")),
        ("no checkpoint", good.split_once("\n\n").unwrap().0.to_owned() + "\n\n"),
        ("a note that is no checkpoint", good.replace("cairn/city\n5\n", "cairn/city\n")),
        ("carriage returns", good.replace('\n', "\r\n")),
        ("a byte after the end", good.clone() + "x"),
        ("too long", good.replace("bW9yZQ==", &"bW9y".repeat(EXTRA_BYTES_MAX / 3 + 1))),
    ] {
        assert!(TlogProof::parse(&text).is_err(), "{why}");
    }
}

#[test]
fn any_flipped_bit_changes_what_is_read_or_is_refused() {
    let good = proof(5, 3, Some(b"more".to_vec()));
    let text = good.to_text();
    for bit in 0..text.len() * 8 {
        let mut bytes = text.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        if let Ok(read) = TlogProof::parse(&changed) {
            assert_ne!(read, good, "bit {bit}");
            assert_eq!(read.to_text(), changed, "bit {bit}");
        }
    }
}

/// The golden receipt's anchor as a proof, signed by `signers` of the four golden validators.
fn golden(signers: &[u8]) -> (TlogProof, Genesis) {
    let genesis = Genesis::from_json(include_bytes!("../../tests/golden/genesis.json")).unwrap();
    let receipt = Receipt::from_json(include_bytes!("../../tests/golden/receipt.json")).unwrap();
    let checkpoint = Checkpoint::of(&Header::decode(&receipt.header.0).unwrap());
    let keys = signers.iter().map(|seed| SigningKey::from_seed(&[*seed; 32]));
    let lines = keys.flat_map(|key| checkpoint.sign(&key, 1_700_000_000).unwrap()).collect();
    let extra = Extra { anchor: receipt.anchor.0, committees: vec![] };
    let note = Note::new(&checkpoint.text(), lines).unwrap();
    let (index, path) = (receipt.log.index, receipt.log.path);
    (TlogProof { extra: Some(extra.encode()), index, path, checkpoint: note }, genesis)
}

#[test]
fn an_anchor_verifies_with_the_genesis_alone() {
    let (proof, genesis) = golden(&[1, 2, 3]);
    let verified = TlogProof::parse(&proof.to_text()).unwrap().verify(&genesis).unwrap();
    assert_eq!((verified.anchor.stream.as_str(), verified.cosigned.validators.len()), ("traffic.flow", 3));
    let (few, _) = golden(&[1, 2]);
    assert_eq!(few.verify(&genesis), Err(TlogProofError::Quorum { expected: 3, found: 2 }));
    let (strangers, _) = golden(&[8, 9]);
    assert!(matches!(strangers.verify(&genesis), Err(TlogProofError::Checkpoint(_))));
    let other = Genesis { chain_id: "another".into(), ..genesis.clone() };
    assert!(matches!(proof.verify(&other), Err(TlogProofError::Checkpoint(_))));
    assert!(TlogProof { extra: None, ..proof.clone() }.verify(&genesis).is_err());
    let forged = Extra { anchor: b"nothing".to_vec(), committees: vec![] };
    let forged = TlogProof { extra: Some(forged.encode()), ..proof };
    assert!(matches!(forged.verify(&genesis), Err(TlogProofError::Inclusion(_))));
}

#[test]
fn committee_changes_are_walked() {
    let (mut proof, genesis) = golden(&[1, 2, 3]);
    let mut extra = Extra::decode(proof.extra.as_ref().unwrap()).unwrap();
    let keys = vec![SigningKey::from_seed(&[5; 32]).public()];
    let change =
        CommitteeChange { header: Base64Bytes(vec![1]), certificate: Base64Bytes(vec![2, 3]), validators: keys };
    extra.committees.push(change);
    assert_eq!(Extra::decode(&extra.encode()).unwrap(), extra);
    proof.extra = Some(extra.encode());
    assert!(matches!(proof.verify(&genesis), Err(TlogProofError::Committee(_))));
}

#[test]
fn any_flipped_bit_of_an_anchors_proof_is_refused_or_costs_a_line() {
    let (proof, genesis) = golden(&[1, 2, 3]);
    let text = proof.to_text();
    for bit in 0..text.len() * 8 {
        let mut bytes = text.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        let verified = TlogProof::parse(&changed).and_then(|proof| proof.verify(&genesis));
        // A line whose name or key id changed is by somebody unknown; each validator has another line.
        assert!(verified.is_err() || verified.unwrap().cosigned.others.len() == 1, "bit {bit}");
    }
}

proptest! {
    #[test]
    fn proofs_round_trip(entries in 1u64..40, at: prop::sample::Index, extra: Option<[u8; 5]>) {
        let proof = proof(entries, at.index(usize::try_from(entries).unwrap()) as u64, extra.map(Vec::from));
        prop_assert_eq!(TlogProof::parse(&proof.to_text()).unwrap(), proof);
    }
}
