//! Statements round-trip, have one encoding, and verify for one key on one chain only.

use super::*;
use crate::evidence::Message;
use crate::identity::{IdentityKind, SigningKey};
use crate::parameters::Parameters;
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
        signatures: crate::statement::Signatures::default(),
    }
}

fn header() -> crate::header::Header {
    let digest = Digest([3; 32]);
    crate::header::Header {
        chain_id: "city".into(),
        epoch: 1,
        view: 2,
        parent_view: 1,
        proposer: [1; 32],
        height: crate::Height(11),
        timestamp_ms: 5,
        parent: digest,
        statements_root: digest,
        statements_count: 0,
        state_root: digest,
        log_root: digest,
        log_size: crate::TreeSize(0),
        validators_hash: digest,
        next_validators_hash: digest,
    }
}

fn equivocation() -> Equivocation {
    let say = |payload| {
        let message = Message::Notarize { parent_view: 1, payload: Digest([payload; 32]) };
        crate::evidence::forge::message(&key(4), 1, 2, message, &chain())
    };
    Equivocation::new(key(4).public(), 1, 2, say(9), say(8))
}

fn changes() -> Vec<Change> {
    let public_key = key(5).public();
    vec![
        Change::add(&key(5), "validator-5".into(), "v5.example:7000".into(), &chain()),
        Change::RemoveValidator { public_key },
        Change::SetAddress { public_key, address: "[::1]:7000".into() },
        Change::Reinstate { public_key },
        Change::SetParameters(Parameters { heartbeat_ms: 50, ..Parameters::default() }),
    ]
}

fn update() -> UpdateStream {
    let schema = SchemaVersion { id: u32::MAX, text: r#"{"type":"record"}"#.into() };
    UpdateStream { stream: stream().name, format: Format::AvroConfluent, versions: 63, schema }
}

fn bodies() -> Vec<Body> {
    let identity = RegisterIdentity::new(&key(9), IdentityKind::Device, "detector".into(), key(1).identity(), &chain());
    let (of, name) = (key(9).identity(), stream().name);
    let mut bodies = vec![
        Body::RegisterIdentity(RegisterIdentity { expires_ms: Some(u64::MAX), ..identity.clone() }),
        Body::RegisterIdentity(identity),
        Body::RegisterStream(stream()),
        Body::Anchor(anchor()),
        Body::Anchors((0..3).map(|number| Anchor { partition: Partition(number), ..anchor() }).collect()),
        Body::RotateKey(RotateKey::new(of, &key(10), &chain())),
        Body::RevokeIdentity(RevokeIdentity { identity: of, reason: "lost".into() }),
        Body::SetExpiry(SetExpiry { identity: of, expires_ms: Some(0) }),
        Body::SetExpiry(SetExpiry { identity: of, expires_ms: None }),
        Body::SetRole(SetRole { stream: name.clone(), identity: of, role: Role::Publisher, granted: false }),
        Body::SetRole(SetRole { stream: name.clone(), identity: of, role: Role::Anchorer, granted: true }),
        Body::TransferStream(TransferStream { stream: name, owner: of }),
        Body::UpdateStream(update()),
        Body::Attest(Attest { header: header().encode(), certificate: vec![1, 2, 3] }),
        Body::Evidence(Box::new(equivocation())),
    ];
    bodies.extend(changes().into_iter().map(|change| Body::Vote(Vote { expires_epoch: 7, change })));
    bodies
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
    let public = key(1).public();
    for body in bodies() {
        let statement = Statement { signer: key(1).identity(), sequence: Sequence(42), body };
        let bytes = statement.sign(&key(1), &chain()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let Ok(read) = SignedStatement::decode(&changed) else { continue };
            // The key id is what the signature is looked up by; with another key id the chain finds no such key.
            let same_signer = read.statement().signer == statement.signer;
            assert!(!same_signer || read.verify(&public, &chain()).is_err(), "bit {bit}");
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
    let wrong = wrong.into_iter().chain(wrong_bodies_of_governance());
    for (body, want) in wrong {
        let statement = Statement { signer: key(1).identity(), sequence: Sequence(1), body };
        match statement.sign(&key(1), &chain()) {
            Err(StatementError::Field { field, .. }) => assert_eq!(field, want),
            other => panic!("expected field {want}, got {other:?}"),
        }
    }
}

fn wrong_bodies_of_governance() -> Vec<(Body, &'static str)> {
    let (identity, public_key) = (key(9).identity(), key(5).public());
    let revoke = |reason: &str| Body::RevokeIdentity(RevokeIdentity { identity, reason: reason.into() });
    let vote = |change| Body::Vote(Vote { expires_epoch: 1, change });
    let add = |name: &str, address: &str| vote(Change::add(&key(5), name.into(), address.into(), &chain()));
    let role = |stream: &str| SetRole { stream: stream.into(), identity, role: Role::Anchorer, granted: true };
    let with_text = |bytes| UpdateStream { schema: SchemaVersion { id: 1, text: "x".repeat(bytes) }, ..update() };
    let attest = |header, certificate| Body::Attest(Attest { header, certificate });
    let honest = Equivocation { second: equivocation().first, ..equivocation() };
    let swapped = Equivocation { first: equivocation().second, second: equivocation().first, ..equivocation() };
    vec![
        (revoke(""), "reason"),
        (revoke(&"x".repeat(257)), "reason"),
        (revoke("a\nb"), "reason"),
        (add("", "v:1"), "name"),
        (add("a\u{7}", "v:1"), "name"),
        (add("v", "v"), "address"),
        (add("v", "v:0"), "address"),
        (vote(Change::SetAddress { public_key, address: "a b:1".into() }), "address"),
        (
            vote(Change::SetParameters(Parameters { epoch_blocks: 1, ..Parameters::default() })),
            "parameters.epoch_blocks",
        ),
        (Body::SetRole(role("traffic")), "name"),
        (Body::TransferStream(TransferStream { stream: "cairn.blocks".into(), owner: identity }), "name"),
        (Body::UpdateStream(UpdateStream { stream: "traffic".into(), ..update() }), "name"),
        (Body::UpdateStream(UpdateStream { versions: 0, ..update() }), "versions"),
        (Body::UpdateStream(UpdateStream { versions: 64, ..update() }), "versions"),
        (Body::UpdateStream(with_text(1)), "schema, bytes"),
        (Body::UpdateStream(with_text(48 * 1024 + 1)), "schema, bytes"),
        (attest(vec![1], vec![]), "header"),
        (attest(header().encode(), vec![0; crate::block::CERTIFICATE_BYTES_MAX + 1]), "certificate"),
        (Body::Evidence(Box::new(honest)), "messages"),
        (Body::Evidence(Box::new(swapped)), "messages"),
    ]
}

#[test]
fn possession_of_rotated_keys_and_of_validators_is_bound_too() {
    let (of, other) = (key(9).identity(), ChainTag(Digest([8; 32])));
    let rotation = RotateKey::new(of, &key(10), &chain());
    assert!(rotation.possession_holds(&chain()) && !rotation.possession_holds(&other));
    assert!(!RotateKey { identity: key(8).identity(), ..rotation.clone() }.possession_holds(&chain()));
    assert!(!RotateKey { public_key: key(11).public(), ..rotation.clone() }.possession_holds(&chain()));
    // The proof of a registration is none of a rotation, and the other way round.
    let registration = RegisterIdentity::new(&key(10), IdentityKind::Device, "d".into(), of, &chain());
    assert!(!RotateKey { possession: registration.possession, ..rotation.clone() }.possession_holds(&chain()));
    assert!(!RegisterIdentity { possession: rotation.possession, ..registration }.possession_holds(of, &chain()));

    let [add, others @ ..] = &changes()[..] else { panic!("there are changes") };
    assert!(add.possession_holds(&chain()) && !add.possession_holds(&other));
    assert!(others.iter().all(|change| change.possession_holds(&other)), "nothing to hold");
    let Change::AddValidator { possession, .. } = *add else { panic!("the first one adds") };
    let (name, address) = ("v".to_owned(), "v:1".to_owned());
    let stolen = Change::AddValidator { public_key: key(6).public(), name, address, possession };
    assert!(!stolen.possession_holds(&chain()));
}

#[test]
fn a_proposal_is_named_by_its_change_and_expiry() {
    let mut ids: Vec<_> = changes().into_iter().map(|change| Vote { expires_epoch: 7, change }.proposal_id()).collect();
    ids.extend(changes().into_iter().map(|change| Vote { expires_epoch: 8, change }.proposal_id()));
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
    let again: Vec<_> = changes().into_iter().map(|change| Vote { expires_epoch: 7, change }.proposal_id()).collect();
    assert_eq!(again, ids[..again.len()], "every validator makes the same one");
}

#[test]
fn every_kind_of_statement_has_a_content_type_of_its_own() {
    let types: std::collections::BTreeSet<_> = bodies().iter().map(Body::content_type).collect();
    assert_eq!(types.len(), 13);
    for name in types {
        let shape = name.strip_prefix("application/vnd.cairn.").and_then(|rest| rest.strip_suffix("+cbor"));
        assert!(shape.is_some_and(|shape| shape.contains(".v")), "{name}");
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

#[test]
fn a_stream_has_one_encoding_whatever_it_says_about_signatures() {
    let chain = ChainTag(Digest([7; 32]));
    for (signatures, version) in
        [(Signatures::Refused, ".v2"), (Signatures::Optional, ".v1"), (Signatures::Required, ".v2")]
    {
        let body = Body::RegisterStream(StreamDefinition { signatures, ..stream() });
        assert!(body.content_type().contains(version), "{signatures:?}");
        let statement = Statement { signer: key(1).identity(), sequence: Sequence(1), body };
        let envelope = statement.sign(&key(1), &chain).unwrap();
        assert_eq!(SignedStatement::decode(&envelope).unwrap().statement(), &statement);
        if version == ".v2" {
            // The code stands before the signature and its head of two bytes.
            let at = envelope.len() - 64 - 3;
            for code in [0, 3, 4] {
                let mut other = envelope.clone();
                other[at] = code;
                let refused = SignedStatement::decode(&other).unwrap_err().to_string();
                assert!(refused.contains("signatures, 1 refused or 2 required"), "{refused}");
            }
        }
    }
}
