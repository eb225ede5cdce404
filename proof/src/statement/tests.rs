//! Statements round-trip, have one encoding, and verify for one key on one chain only.

use super::*;
use crate::identity::{IdentityKind, SigningKey};
use crate::units::{LeafIndex, Offset, Partition};
use proptest::prelude::*;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn chain() -> ChainTag {
    ChainTag(Digest([7; 32]))
}

pub(crate) fn anchor() -> Anchor {
    Anchor {
        stream: "traffic.flow".into(),
        partition: Partition(3),
        first: Offset(1000),
        last: Offset(1099),
        gaps: vec![Gap { first: Offset(1010), last: Offset(1019) }],
        count: 90,
        quarantined: 2,
        records_root: Digest([1; 32]),
        timestamp_min_ms: 1_700_000_000_000,
        timestamp_max_ms: 1_700_000_060_000,
        schema_fingerprint: Digest([2; 32]),
        segment: SegmentRef { path: "segments/traffic.flow/3/1.parquet".into(), size: 4096, blake3: Digest([3; 32]) },
        previous: Digest([4; 32]),
    }
}

fn stream() -> StreamDefinition {
    StreamDefinition {
        name: "traffic.flow".into(),
        topic: "traffic.flow".into(),
        partitions: 4,
        format: Format::AvroConfluent,
        schemas: vec![SchemaVersion { id: 1, text: "\"string\"".into() }],
        key_fields: vec!["section".into()],
        event_time: Some("measured_at".into()),
        limits: BatchLimits::default(),
        gaps_allowed: true,
        anchorers: vec![key(1).identity()],
    }
}

fn bodies() -> Vec<Body> {
    let identity = RegisterIdentity::new(&key(9), IdentityKind::Device, "detector".into(), key(1).identity(), &chain());
    vec![Body::RegisterIdentity(identity), Body::RegisterStream(stream()), Body::Anchor(anchor())]
}

#[test]
fn every_body_round_trips_and_verifies() {
    for body in bodies() {
        let statement = Statement { signer: key(1).identity(), sequence: Sequence(42), body };
        let bytes = statement.sign(&key(1), &chain()).unwrap();
        let decoded = SignedStatement::decode(&bytes).unwrap();
        assert_eq!(decoded.statement(), &statement);
        assert_eq!(decoded.id(), statement_id(&bytes));
        decoded.verify(&key(1).public(), &chain()).unwrap();
        assert!(decoded.verify(&key(2).public(), &chain()).is_err(), "another key");
        assert!(decoded.verify(&key(1).public(), &ChainTag(Digest([8; 32]))).is_err(), "another chain");
    }
}

#[test]
fn any_flipped_bit_is_refused() {
    for body in bodies() {
        let statement = Statement { signer: key(1).identity(), sequence: Sequence(42), body };
        let bytes = statement.sign(&key(1), &chain()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let accepted = SignedStatement::decode(&changed).and_then(|s| s.verify(&key(1).public(), &chain()));
            // The key id is what the signature is looked up by; with another key id the chain finds no such key.
            let same_signer = SignedStatement::decode(&changed).is_ok_and(|s| s.statement().signer == statement.signer);
            assert!(accepted.is_err() || !same_signer, "bit {bit}");
        }
    }
}

#[test]
fn possession_is_bound_to_key_controller_and_chain() {
    let body = RegisterIdentity::new(&key(9), IdentityKind::Device, "d".into(), key(1).identity(), &chain());
    assert!(body.possession_holds(key(1).identity(), &chain()));
    assert!(!body.possession_holds(key(2).identity(), &chain()));
    assert!(!body.possession_holds(key(1).identity(), &ChainTag(Digest([8; 32]))));
    let stolen = RegisterIdentity { public_key: key(10).public(), ..body };
    assert!(!stolen.possession_holds(key(1).identity(), &chain()));
}

#[test]
fn fields_out_of_range_are_named() {
    let wrong: Vec<(Body, &str)> = vec![
        (Body::Anchor(Anchor { count: 91, ..anchor() }), "count"),
        (Body::Anchor(Anchor { first: Offset(2000), ..anchor() }), "offsets"),
        (Body::Anchor(Anchor { last: Offset(1 << 63), ..anchor() }), "offsets"),
        (Body::Anchor(Anchor { quarantined: 91, ..anchor() }), "quarantined"),
        (Body::Anchor(Anchor { timestamp_min_ms: i64::MAX, ..anchor() }), "timestamps"),
        (Body::Anchor(Anchor { gaps: vec![Gap { first: Offset(1), last: Offset(2) }], ..anchor() }), "gaps"),
        (
            Body::Anchor(Anchor { segment: SegmentRef { path: "a/../b".into(), ..anchor().segment }, ..anchor() }),
            "segment path",
        ),
        (Body::RegisterStream(StreamDefinition { name: "cairn.blocks".into(), ..stream() }), "name"),
        (Body::RegisterStream(StreamDefinition { name: "Traffic".into(), ..stream() }), "name"),
        (Body::RegisterStream(StreamDefinition { partitions: 0, ..stream() }), "partitions"),
        (Body::RegisterStream(StreamDefinition { anchorers: vec![], ..stream() }), "anchorers"),
        (Body::RegisterStream(StreamDefinition { topic: "a b".into(), ..stream() }), "topic"),
    ];
    for (body, want) in wrong {
        let statement = Statement { signer: key(1).identity(), sequence: Sequence(1), body };
        match statement.sign(&key(1), &chain()) {
            Err(StatementError::Field { field, .. }) => assert_eq!(field, want),
            other => panic!("expected field {want}, got {other:?}"),
        }
    }
}

#[test]
fn leaf_index_skips_gaps() {
    let anchor = anchor();
    assert_eq!(anchor.leaf_index(Offset(1000)), Some(LeafIndex(0)));
    assert_eq!(anchor.leaf_index(Offset(1009)), Some(LeafIndex(9)));
    assert_eq!(anchor.leaf_index(Offset(1010)), None);
    assert_eq!(anchor.leaf_index(Offset(1020)), Some(LeafIndex(10)));
    assert_eq!(anchor.leaf_index(Offset(1099)), Some(LeafIndex(89)));
    assert_eq!(anchor.leaf_index(Offset(1100)), None);
}

#[test]
fn too_long_is_refused() {
    let bytes = vec![0; STATEMENT_BYTES_MAX + 1];
    assert_eq!(SignedStatement::decode(&bytes), Err(StatementError::TooLong { found: STATEMENT_BYTES_MAX + 1 }));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(SignedStatement::decode(&bytes).is_err());
    }
}
