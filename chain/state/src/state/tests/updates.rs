//! Versions of a stream's schema: who adds them, to what, and what stands in the state then.

use super::*;
use crate::entry::{Entry, SchemaEntry, schema_key, stream_key};
use crate::rules::SCHEMAS_BYTES_MAX;
use cairn_proof::statement::{SCHEMAS_MAX, UpdateStream};

fn schema(id: u32) -> SchemaVersion {
    SchemaVersion { id, text: format!("{{\"version\":{id}}}") }
}

fn update(versions: u32, schema: SchemaVersion) -> UpdateStream {
    UpdateStream { stream: "traffic.flow".into(), format: Format::Json, versions, schema }
}

fn said(seed: u8, sequence: u64, body: UpdateStream) -> Vec<u8> {
    signed(seed, sequence, Body::UpdateStream(body))
}

#[test]
fn the_owner_adds_versions_and_anchors_name_any_of_them() {
    let (mut state, id) = anchored();
    let entry = state.entries.get(&stream_key("traffic.flow")).unwrap().encode();
    let (root, statement) = (state.root(), said(OWNER, 2, update(1, schema(2))));
    state.apply(&at(3), &statement, &StrictSignatures).unwrap();
    assert_ne!(state.root(), root, "the state commits to the new version");
    let stream = state.stream("traffic.flow").unwrap();
    assert_eq!(stream.definition.schemas, [definition().schemas[0].clone(), schema(2)]);
    assert_eq!(stream.height, Height(1), "since when it is registered");
    let kept = state.entries.get(&stream_key("traffic.flow")).unwrap();
    assert_eq!(kept.encode(), entry, "the stream's own entry says what it said");
    let version = SchemaEntry {
        id: 2,
        fingerprint: schema(2).fingerprint(),
        statement: cairn_proof::statement::statement_id(&statement),
        height: Height(3),
    };
    let added = state.entries.get(&schema_key("traffic.flow", 1)).unwrap();
    assert_eq!(added.encode(), Entry::Schema(Arc::new(version)).encode());
    // A batch that was decoded before the update is as good as one after it.
    let (mut old, mut new) = (anchor(100, 149, id), anchor(150, 159, Digest::ZERO));
    old.schema_fingerprint = definition().schemas[0].fingerprint();
    let applied = state.apply(&at(4), &signed(INGEST, 2, Body::Anchor(old)), &StrictSignatures).unwrap();
    (new.previous, new.schema_fingerprint) = (applied.id, schema(2).fingerprint());
    state.apply(&at(5), &signed(INGEST, 3, Body::Anchor(new.clone())), &StrictSignatures).unwrap();
    new.schema_fingerprint = schema(3).fingerprint();
    assert_eq!(refused(&mut state, &signed(INGEST, 4, Body::Anchor(new))), RefusalCode::Malformed);
}

#[test]
fn what_does_not_follow_is_refused() {
    let (mut state, _) = anchored();
    assert_eq!(refused(&mut state, &said(INGEST, 2, update(1, schema(2)))), RefusalCode::NotAllowed);
    let elsewhere = UpdateStream { stream: "no.such".into(), ..update(1, schema(2)) };
    let another = UpdateStream { format: Format::AvroConfluent, ..update(1, schema(2)) };
    let same_text = SchemaVersion { id: 2, ..definition().schemas[0].clone() };
    for (body, code) in [
        (elsewhere, RefusalCode::UnknownStream),
        (another, RefusalCode::Malformed),
        (update(2, schema(2)), RefusalCode::Previous),
        (update(1, schema(1)), RefusalCode::Duplicate),
        (update(1, same_text), RefusalCode::Duplicate),
    ] {
        assert_eq!(refused(&mut state, &said(OWNER, 2, body)), code);
    }
    state.apply(&at(3), &said(OWNER, 2, update(1, schema(2))), &StrictSignatures).unwrap();
    assert_eq!(refused(&mut state, &said(OWNER, 3, update(1, schema(3)))), RefusalCode::Previous, "another was faster");
}

#[test]
fn plain_avro_has_one_schema_for_ever() {
    let mut state = State::genesis(&genesis());
    let plain = StreamDefinition { format: Format::Avro, ..definition() };
    state.apply(&at(1), &signed(OWNER, 1, Body::RegisterStream(plain)), &StrictSignatures).unwrap();
    let body = UpdateStream { format: Format::Avro, ..update(1, schema(2)) };
    assert_eq!(refused(&mut state, &said(OWNER, 2, body)), RefusalCode::NotAllowed);
}

#[test]
fn versions_and_their_bytes_are_bounded() {
    let (mut state, _) = anchored();
    let most = u32::try_from(SCHEMAS_MAX).unwrap();
    for version in 1..most {
        let body = update(version, schema(version + 1));
        state.apply(&at(3), &said(OWNER, u64::from(version) + 1, body), &StrictSignatures).unwrap();
    }
    let over = Statement {
        signer: key(OWNER).identity(),
        sequence: Sequence(100),
        body: Body::UpdateStream(update(most, schema(most + 1))),
    };
    assert!(over.sign(&key(OWNER), &genesis().tag()).is_err(), "there is no statement for one more");

    let (mut state, _) = anchored();
    let large = |id: u32| SchemaVersion { id, text: format!("{id}{}", " ".repeat(40_000)) };
    let fit = u32::try_from(SCHEMAS_BYTES_MAX / 40_010).unwrap();
    for version in 1..=fit {
        let body = update(version, large(version + 1));
        state.apply(&at(3), &said(OWNER, u64::from(version) + 1, body), &StrictSignatures).unwrap();
    }
    let body = update(fit + 1, large(fit + 2));
    assert_eq!(refused(&mut state, &said(OWNER, 100, body)), RefusalCode::Limit);
}
