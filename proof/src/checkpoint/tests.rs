//! The golden checkpoint verifies; other logs, other forms and changed bits are refused.

use super::*;
use crate::genesis::Genesis;
use crate::statement::ChainTag;
use proptest::prelude::*;

const SECONDS: u64 = 1_700_000_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn committee() -> Vec<PublicKey> {
    (1..=4).map(|seed| key(seed).public()).collect()
}

fn checkpoint() -> Checkpoint {
    Checkpoint { origin: origin("golden"), size: TreeSize(3), root: Digest([7; 32]), extensions: vec![] }
}

fn witness() -> VerifierKey {
    VerifierKey::new("witness.example/w1", Algorithm::CosignatureV1, key(77).public()).unwrap()
}

/// Three validators and a witness.
fn signed(checkpoint: &Checkpoint) -> String {
    let mut lines: Vec<_> = (1..=3).flat_map(|seed| checkpoint.sign(&key(seed), SECONDS).unwrap()).collect();
    lines.push(witness().sign(&key(77), &checkpoint.text(), SECONDS + 1).unwrap());
    Note::new(&checkpoint.text(), lines).unwrap().to_text()
}

fn header() -> Header {
    let genesis = Genesis::from_json(include_bytes!("../../tests/golden/genesis.json")).unwrap();
    Header { log_size: TreeSize(3), log_root: Digest([7; 32]), ..genesis.header() }
}

#[test]
fn a_checkpoint_tells_who_signed() {
    let cosigned = verify_for(&header(), &committee(), &signed(&checkpoint())).unwrap();
    let mut expected = committee()[..3].to_vec();
    expected.sort();
    assert_eq!(cosigned.validators, expected);
    assert_eq!(cosigned.others, [("witness.example/w1".to_owned(), witness().id())]);
    assert_eq!(witnessed(&witness(), &signed(&checkpoint())), Ok(Some(SECONDS + 1)));
    let other = VerifierKey::new("witness.example/w2", Algorithm::CosignatureV1, key(77).public()).unwrap();
    assert_eq!(witnessed(&other, &signed(&checkpoint())), Ok(None));
    let log = VerifierKey::new("witness.example/w1", Algorithm::Ed25519, key(77).public()).unwrap();
    assert!(witnessed(&log, &signed(&checkpoint())).is_err(), "no key for cosignatures");
}

#[test]
fn the_checkpoint_must_be_the_headers() {
    let text = signed(&checkpoint());
    let field = |header: &Header| match verify_for(header, &committee(), &text) {
        Err(CheckpointError::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(&Header { log_size: TreeSize(4), ..header() }), "size");
    assert_eq!(field(&Header { log_root: Digest([8; 32]), ..header() }), "root");
    assert_eq!(field(&Header { chain_id: "another".into(), ..header() }), "origin");
    let strangers = [key(8).public(), key(9).public()];
    let refused = verify_for(&header(), &strangers, &text);
    assert_eq!(refused, Err(CheckpointError::Note(NoteError::Unsigned { lines: 7 })));
    let extended = Checkpoint { extensions: vec!["more".into()], ..checkpoint() };
    let refused = verify_for(&header(), &committee(), &signed(&extended));
    assert!(matches!(refused, Err(CheckpointError::Field { field: "extensions", .. })), "{refused:?}");
}

#[test]
fn a_bad_line_of_a_validator_is_refused_though_others_are_good() {
    let text = checkpoint().text();
    let mut lines = checkpoint().sign(&key(1), SECONDS).unwrap().to_vec();
    let [log, cosigner] = validator_keys(&checkpoint().origin, key(2).public()).unwrap();
    lines.push(cosigner.sign(&key(2), "cairn/golden\n2\nAAAA\n", SECONDS).unwrap());
    let note = Note::new(&text, lines.clone()).unwrap().to_text();
    assert!(matches!(
        verify_for(&header(), &committee(), &note),
        Err(CheckpointError::Note(NoteError::Signature { .. }))
    ));
    lines.pop();
    lines.push(log.sign(&key(2), &text, 0).unwrap());
    let note = Note::new(&text, lines).unwrap().to_text();
    assert_eq!(verify_for(&header(), &committee(), &note).unwrap().validators.len(), 2);
}

#[test]
fn any_flipped_bit_is_refused_or_costs_the_line() {
    let (text, whole) = (signed(&checkpoint()), verify_for(&header(), &committee(), &signed(&checkpoint())).unwrap());
    for bit in 0..text.len() * 8 {
        let mut bytes = text.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(changed) = String::from_utf8(bytes) else { continue };
        if let Ok(cosigned) = verify_for(&header(), &committee(), &changed) {
            // A changed name or key id makes a line one by somebody unknown; witnesses' lines are told by `witnessed`.
            let same_witness = witnessed(&witness(), &changed) == Ok(Some(SECONDS + 1));
            assert!(cosigned != whole || !same_witness, "bit {bit}");
        }
    }
}

#[test]
fn hostile_texts_are_refused() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    let published = format!("example.com/behind-the-sofa\n20852163\n{root}\n");
    assert_eq!(Checkpoint::parse(&published).unwrap().text(), published);
    for text in [
        String::new(),
        "\n".into(),
        format!("o\n1\n{root}"),
        format!("\n1\n{root}\n"),
        format!("o\n01\n{root}\n"),
        format!("o\n+1\n{root}\n"),
        format!("o\n1 \n{root}\n"),
        format!("o\n\n{root}\n"),
        format!("o\n18446744073709551616\n{root}\n"),
        format!("o\n0\n{root}\n"),
        "o\n1\nAAAA\n".into(),
        format!("o\n1\n{}\n", root.trim_end_matches('=')),
        format!("o\n1\n{root}\n\n"),
        format!("o\n1\n{root}\na\n\nb\n"),
        format!("o\n1\n{root}\n{}", "x\n".repeat(17)),
        format!("{}\n1\n{root}\n", "o".repeat(1025)),
    ] {
        assert!(matches!(Checkpoint::parse(&text), Err(CheckpointError::Field { .. })), "{text:?}");
    }
}

/// What the module's documentation says about the domains, over every kind of message that a validator's key signs.
#[test]
fn no_message_of_another_kind_begins_like_a_checkpoint() {
    let texts = ["a", "consensus", "possession", "consensus.v1", &"z".repeat(64)]
        .map(|chain_id| Checkpoint { origin: origin(chain_id), ..checkpoint() }.text());
    let namespace = crate::certificate::consensus_namespace(&ChainTag(Digest([1; 32])));
    assert!(namespace.starts_with(b"cairn/consensus/v1/"));
    for length in 0..=128u8 {
        let consensus = [&[length][..], &namespace].concat();
        for text in &texts {
            assert!(!consensus.starts_with(&text.as_bytes()[..2]));
            assert!(!consensus.starts_with(b"co"), "cosignature/v1");
        }
    }
    for domain in ["cairn/possession/v1", "cairn/consensus/v1/", "cairn/identity/v1"] {
        let (_, after) = domain.split_at("cairn/".len());
        let word = after.split_once('/').unwrap().0;
        for text in &texts {
            assert!(!text.starts_with(&format!("cairn/{word}/")), "{text}");
        }
    }
}

proptest! {
    #[test]
    fn texts_round_trip(origin in "[!-~]{1,40}", size in 1u64.., root: [u8; 32], extensions in prop::collection::vec("[ -~]{1,20}", 0..4)) {
        let checkpoint = Checkpoint { origin, size: TreeSize(size), root: Digest(root), extensions };
        prop_assert_eq!(Checkpoint::parse(&checkpoint.text()).unwrap(), checkpoint);
    }

    #[test]
    fn any_text_is_refused_or_is_the_one_form(text in "(.|\n|[0-9]{1,20}|[A-Za-z0-9+/]{43}=){0,20}") {
        if let Ok(checkpoint) = Checkpoint::parse(&text) {
            prop_assert_eq!(checkpoint.text(), text);
        }
    }
}
