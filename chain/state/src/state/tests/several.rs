//! Statements with the anchors of several partitions: each anchor is checked as if it came alone, and all are taken or none.

use super::*;
use crate::prepared::LogEntry;
use cairn_proof::statement::{LoggedAnchor, SetRole, log_entries};

/// Anchors of both partitions that continue what [`anchored`] left.
fn next(id: Digest) -> Vec<Anchor> {
    vec![anchor(100, 149, id), Anchor { partition: Partition(1), ..anchor(0, 9, Digest::ZERO) }]
}

#[test]
fn every_partition_moves_on_and_the_log_has_every_anchor() {
    let (mut state, id) = anchored();
    let envelope = signed(INGEST, 2, Body::Anchors(next(id)));
    let applied = state.apply(&at(3), &envelope, &StrictSignatures).unwrap();
    let entries = log_entries(&envelope);
    assert_eq!(applied.log_index, Some(LeafIndex(1)));
    assert_eq!(*applied.entries, entries.iter().map(|entry| LogEntry::of(entry)).collect::<Vec<_>>()[..]);
    assert_eq!(state.log_size(), TreeSize(3));
    for (index, entry) in (0..).zip(&entries) {
        let (id, log_index) = (LoggedAnchor::decode(entry).unwrap().id(), LeafIndex(1 + index));
        assert_eq!(state.anchor(&id), Some(AnchorEntry { log_index, height: Height(3) }));
        let head = state.head("traffic.flow", Partition(u32::try_from(index).unwrap())).unwrap();
        assert_eq!((head.anchor, head.log_index), (id, log_index));
    }
    let heads = [0, 1].map(|partition| state.head("traffic.flow", Partition(partition)).unwrap());
    assert_eq!(heads.map(|head| (head.next, head.records)), [(Offset(150), 150), (Offset(10), 10)]);
    assert_eq!(refused(&mut state, &envelope), RefusalCode::Sequence, "it is taken once");

    // A single anchor follows one of several, and the other way round: it is the entry's id that is named.
    let single = signed(INGEST, 3, Body::Anchor(anchor(150, 159, heads[0].anchor)));
    let single = state.apply(&at(4), &single, &StrictSignatures).unwrap();
    let again =
        vec![anchor(160, 169, single.id), Anchor { partition: Partition(1), ..anchor(10, 19, heads[1].anchor) }];
    state.apply(&at(5), &signed(INGEST, 4, Body::Anchors(again)), &StrictSignatures).unwrap();
    assert_eq!(state.log_size(), TreeSize(6));
}

#[test]
fn the_id_of_the_statement_is_no_anchor() {
    let (mut state, id) = anchored();
    let envelope = signed(INGEST, 2, Body::Anchors(next(id)));
    let applied = state.apply(&at(3), &envelope, &StrictSignatures).unwrap();
    assert_eq!(state.anchor(&applied.id), None);
    let follows = signed(INGEST, 3, Body::Anchor(anchor(150, 159, applied.id)));
    assert_eq!(refused(&mut state, &follows), RefusalCode::Previous);
}

/// One that is refused refuses all of them, and says which one and why.
#[test]
fn one_that_breaks_a_rule_refuses_all() {
    let (mut state, id) = anchored();
    let gap = Gap { first: Offset(2), last: Offset(3) };
    let second = || next(id)[1].clone();
    let cases = [
        (vec![anchor(99, 149, id), second()], RefusalCode::Overlap, "anchor 0 of 2"),
        (vec![anchor(101, 149, id), second()], RefusalCode::Gap, "anchor 0 of 2"),
        (vec![anchor(100, 149, Digest::ZERO), second()], RefusalCode::Previous, "anchor 0 of 2"),
        (vec![anchor(100, 1_100, id), second()], RefusalCode::Limit, "anchor 0 of 2"),
        (
            vec![anchor(100, 149, id), Anchor { first: Offset(1), count: 9, ..second() }],
            RefusalCode::Gap,
            "anchor 1 of 2",
        ),
        (vec![anchor(100, 149, id), Anchor { previous: id, ..second() }], RefusalCode::Previous, "anchor 1 of 2"),
        (
            vec![anchor(100, 149, id), Anchor { gaps: vec![gap], count: 8, ..second() }],
            RefusalCode::Gap,
            "anchor 1 of 2",
        ),
        (
            vec![anchor(100, 149, id), Anchor { partition: Partition(2), ..second() }],
            RefusalCode::Limit,
            "anchor 1 of 2",
        ),
        (
            vec![anchor(100, 149, id), Anchor { stream: "unknown.stream".into(), ..second() }],
            RefusalCode::UnknownStream,
            "anchor 1 of 2",
        ),
        (
            vec![anchor(100, 149, id), Anchor { schema_fingerprint: Digest::ZERO, ..second() }],
            RefusalCode::Malformed,
            "anchor 1 of 2",
        ),
    ];
    for (index, (anchors, want, which)) in cases.into_iter().enumerate() {
        let envelope = signed(INGEST, 2, Body::Anchors(anchors));
        assert_eq!(refused(&mut state, &envelope), want, "case {index}");
        let refusal = state.apply(&at(3), &envelope, &StrictSignatures).unwrap_err();
        assert!(refusal.message.starts_with(which), "case {index}: {refusal}");
    }
    for (envelope, want) in [
        (signed(INGEST, 1, Body::Anchors(next(id))), RefusalCode::Sequence),
        (signed(OWNER, 2, Body::Anchors(next(id))), RefusalCode::NotAllowed),
        (signed(STRANGER, 1, Body::Anchors(next(id))), RefusalCode::UnknownIdentity),
        // An entry of the log is no statement, whoever hands it in.
        (log_entries(&signed(INGEST, 2, Body::Anchors(next(id))))[0].to_vec(), RefusalCode::Malformed),
    ] {
        assert_eq!(refused(&mut state, &envelope), want);
    }
    let body = Body::Anchors(next(id));
    let statement = Statement { signer: key(INGEST).identity(), sequence: Sequence(2), body };
    let forged = statement.sign(&key(STRANGER), &genesis().tag()).unwrap();
    assert_eq!(refused(&mut state, &forged), RefusalCode::Signature);
    state.apply(&at(3), &signed(INGEST, 2, Body::Anchors(next(id))), &StrictSignatures).unwrap();
}

/// Rights are those for each stream: an anchorer of one cannot take another's partition along.
#[test]
fn rights_are_asked_for_each_stream() {
    let (mut state, id) = anchored();
    let other = StreamDefinition { name: "traffic.zones".into(), topic: "zones".into(), ..definition() };
    state.apply(&at(3), &signed(OWNER, 2, Body::RegisterStream(other)), &StrictSignatures).unwrap();
    let both = || vec![anchor(100, 149, id), Anchor { stream: "traffic.zones".into(), ..anchor(0, 9, Digest::ZERO) }];
    let role = |granted| {
        let (identity, role) = (key(INGEST).identity(), Role::Anchorer);
        Body::SetRole(SetRole { stream: "traffic.zones".into(), identity, role, granted })
    };
    state.apply(&at(4), &signed(OWNER, 3, role(false)), &StrictSignatures).unwrap();
    assert_eq!(refused(&mut state, &signed(INGEST, 2, Body::Anchors(both()))), RefusalCode::NotAllowed);
    state.apply(&at(5), &signed(OWNER, 4, role(true)), &StrictSignatures).unwrap();
    let applied = state.apply(&at(6), &signed(INGEST, 2, Body::Anchors(both())), &StrictSignatures).unwrap();
    assert_eq!((applied.entries.len(), state.head("traffic.zones", Partition(0)).unwrap().next), (2, Offset(10)));
}

/// What was prepared on another thread is what is decoded here.
#[test]
fn preparing_ahead_changes_nothing() {
    let (state, id) = anchored();
    let envelope = signed(INGEST, 2, Body::Anchors(next(id)));
    let (mut here, mut ahead) = (state.clone(), state);
    let mut prepared = Prepared::of(SignedStatement::decode(&envelope).unwrap(), &envelope);
    prepared.verify(&key(INGEST).public(), &genesis().tag());
    let applied = here.apply(&at(3), &envelope, &StrictSignatures).unwrap();
    assert_eq!(ahead.apply_prepared(&at(3), prepared, &StrictSignatures).unwrap(), applied);
    assert_eq!((here.root(), here.log_root()), (ahead.root(), ahead.log_root()));
}
