//! Answers: what is signed decodes to itself alone, and holds for its key and chain alone.

use super::*;

const CHAIN: ChainTag = ChainTag(Digest([1; 32]));

fn key() -> SigningKey {
    SigningKey::from_seed(&[12; 32])
}

fn answer() -> Answer {
    let segment = |path: &str| AnswerSegment {
        path: path.to_owned(),
        blake3: Digest([3; 32]),
        size: 4_096,
        bytes_verified: 1_024,
    };
    Answer {
        node: key().identity(),
        statement: "SELECT a FROM b.c WHERE d = $1".into(),
        parameters: vec![
            Parameter { kind: "int64".into(), text: Some("7".into()) },
            Parameter { kind: "text".into(), text: None },
        ],
        settings: vec![("cairn.on_unverified".into(), "refuse".into()), ("timezone".into(), "UTC".into())],
        height: Height(300),
        block: Digest([4; 32]),
        state_root: Digest([5; 32]),
        segments: vec![segment("segments/b.c/0/a.parquet"), segment("segments/b.c/0/b.parquet")],
        left_out: 0,
        flagged: 0,
        columns: vec![AnswerColumn { name: "a".into(), kind: "int64".into() }],
        rows: 2,
        rows_root: Digest([6; 32]),
        ordered_root: Some(Digest([7; 32])),
        engine: "cairn 1, datafusion 2".into(),
        made_ms: 1_700_000_000_000,
    }
}

#[test]
fn what_is_signed_is_read_back_and_holds_for_its_key_and_chain_alone() {
    for answer in [answer(), Answer { ordered_root: None, parameters: vec![], segments: vec![], ..answer() }] {
        let bytes = answer.sign(&key(), &CHAIN).unwrap();
        let signed = SignedAnswer::decode(&bytes).unwrap();
        assert_eq!(signed.answer(), &answer);
        assert_eq!(signed.verify(&key().public(), &CHAIN), Ok(()));
        let other = SigningKey::from_seed(&[13; 32]).public();
        assert!(matches!(signed.verify(&other, &CHAIN), Err(AnswerError::Signature { .. })));
        assert!(signed.verify(&key().public(), &ChainTag(Digest([2; 32]))).is_err());
    }
}

#[test]
fn every_changed_bit_is_refused() {
    let bytes = answer().sign(&key(), &CHAIN).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut altered = bytes.clone();
            altered[at] ^= 1 << bit;
            let verified = SignedAnswer::decode(&altered).and_then(|signed| signed.verify(&key().public(), &CHAIN));
            assert!(verified.is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn lists_out_of_order_or_too_long_are_neither_signed_nor_read() {
    let mut swapped = answer();
    swapped.segments.swap(0, 1);
    let mut twice = answer();
    twice.segments[1] = twice.segments[0].clone();
    let mut settings = answer();
    settings.settings.swap(0, 1);
    let column = AnswerColumn { name: "c".into(), kind: "text".into() };
    let wide = Answer { columns: vec![column; COLUMNS_MAX + 1], ..answer() };
    for wrong in [swapped, twice, settings, wide] {
        assert!(matches!(wrong.sign(&key(), &CHAIN), Err(AnswerError::List { .. })));
        let envelope = unsigned(&wrong.node, wrong.payload()).signature(vec![0; 64]).build();
        assert!(SignedAnswer::decode(&envelope.to_tagged_vec().unwrap()).is_err());
    }
    let long = Answer { statement: "x".repeat(ANSWER_BYTES_MAX), ..answer() };
    assert!(matches!(long.sign(&key(), &CHAIN), Err(AnswerError::TooLong { .. })));
    assert!(SignedAnswer::decode(&vec![0; ANSWER_BYTES_MAX + 1]).is_err());
}

#[test]
fn an_answer_is_no_statement_and_no_statement_an_answer() {
    use crate::statement::SignedStatement;
    let bytes = answer().sign(&key(), &CHAIN).unwrap();
    assert!(SignedStatement::decode(&bytes).is_err());
    let login = crate::login::Login { identity: key().identity(), audience: "q".into(), issued_s: 1, expires_s: 2 };
    let token = login.sign(&key(), &CHAIN).unwrap();
    assert!(SignedAnswer::decode(token.as_bytes()).is_err());
}
