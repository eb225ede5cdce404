//! Proofs of entries against the verifier of third parties.

use super::*;
use crate::entry::{evidence_key, proposal_key, validator_key};
use cairn_proof::certificate::forge;
use cairn_proof::state_proof::StateProof;
use cairn_proof::trie::{PathEnd, verify};

fn subjects() -> Vec<(Subject, Digest)> {
    let (id, validator) = (key(INGEST).identity(), key(100).public());
    let stream = || "traffic.flow".to_owned();
    let role = Role::Anchorer;
    vec![
        (Subject::Identity { id }, identity_key(&id)),
        (Subject::Key { key: key(INGEST).public() }, key_key(&key(INGEST).public())),
        (Subject::Sequence { id }, sequence_key(&id)),
        (Subject::Stream { name: stream() }, stream_key(&stream())),
        (Subject::Topic { topic: "flow".into() }, topic_key("flow")),
        (Subject::Role { stream: stream(), role, identity: id }, role_key(&stream(), role, &id)),
        (Subject::Head { stream: stream(), partition: Partition(0) }, head_key(&stream(), Partition(0))),
        (Subject::Validator { key: validator }, validator_key(&validator)),
        (Subject::Committee {}, committee_key()),
        (Subject::NextCommittee {}, crate::entry::next_committee_key()),
        (Subject::Parameters {}, parameters_key()),
        (Subject::NextParameters {}, next_parameters_key()),
    ]
}

/// Subjects that the state says nothing about.
fn absent() -> Vec<(Subject, Digest)> {
    let (nobody, id) = (key(STRANGER).public(), key(STRANGER).identity());
    let zero = Digest::ZERO;
    vec![
        (Subject::Identity { id }, identity_key(&id)),
        (Subject::Stream { name: "no.such".into() }, stream_key("no.such")),
        (
            Subject::Head { stream: "traffic.flow".into(), partition: Partition(1) },
            head_key("traffic.flow", Partition(1)),
        ),
        (Subject::Anchor { id: zero }, anchor_key(&zero)),
        (Subject::Validator { key: nobody }, validator_key(&nobody)),
        (Subject::Proposal { id: zero }, proposal_key(&zero)),
        (Subject::Evidence { validator: nobody, epoch: 1, view: 2 }, evidence_key(&nobody, 1, 2)),
        (Subject::Attested {}, attested_key()),
    ]
}

#[test]
fn every_subject_is_proven_present_or_absent_under_its_own_key() {
    let (state, id) = anchored();
    let mut present = subjects();
    present.push((Subject::Anchor { id }, anchor_key(&id)));
    for (subject, key) in present.into_iter().chain(absent()) {
        assert_eq!(subject.key(), key, "{subject:?}");
        let parts = state.prove(&subject);
        let end = match (&parts.value, parts.neighbour) {
            (Some(value), None) => PathEnd::Present { value: cairn_proof::digest::sha256(&[value]) },
            (None, Some((key, value))) => PathEnd::Absent { key, value },
            other => panic!("{subject:?}: {other:?}"),
        };
        assert_eq!(parts.value.is_some(), state.entries.get(&key).is_some(), "{subject:?}");
        verify(&state.root(), &key, &parts.path, &end).unwrap();
    }
}

#[test]
fn a_proof_file_holds_under_the_certified_header_alone() {
    let (parent, state) = (genesis().header(), State::genesis(&genesis()));
    let block = block_on(&parent, &state, vec![signed(OWNER, 1, Body::RegisterStream(definition()))]);
    let executed = execute(&parent, &state, &block, &StrictSignatures).unwrap();
    let certificate = forge::certificate(&executed.header, &[key(100)], &[0], &genesis().tag());
    for (subject, known) in [
        (Subject::Stream { name: "traffic.flow".into() }, true),
        (Subject::Stream { name: "traffic.other".into() }, false),
    ] {
        let parts = executed.state.prove(&subject);
        let proof = StateProof::new(subject, parts, vec![], block.header.clone(), certificate.clone());
        let proven = StateProof::from_json(&proof.to_json().unwrap()).unwrap().verify(&genesis()).unwrap();
        assert_eq!((proven.value.is_some(), proven.header.height), (known, Height(1)));
        // The same statement about the state before that block does not hold under this header.
        let before = StateProof { path: state.prove(&proof.subject).path, ..proof };
        assert_eq!(before.verify(&genesis()).unwrap_err().step, "state");
    }
}
