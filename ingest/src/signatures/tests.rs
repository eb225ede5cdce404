//! Batches of signed records against a ledger at the genesis of a chain. What changes on a chain while records flow is
//! tested with the whole of ingest, in `ingest/tests/signed.rs` beside it.

use std::sync::Arc;

use cairn_anchor::audit::ValueDecoder as _;
use cairn_anchor::raw::RawBatchBuilder;
use cairn_proof::genesis::{GENESIS_MARK, Genesis, GenesisIdentity, GenesisValidator};
use cairn_proof::identity::{IdentityKind, SigningKey};
use cairn_proof::signed_record::SignedRun;
use cairn_proof::statement::Format;
use cairn_proof::{Offset, Partition};

use super::*;
use crate::decode::{AuditDecoder, StreamDecoder};
use crate::testing::{definition, one_field};

const PARTITION: Partition = Partition(1);

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn ledger() -> Ledger {
    let identity = |seed: u8| GenesisIdentity {
        name: format!("identity-{seed}"),
        kind: IdentityKind::Device,
        public_key: key(seed).public(),
    };
    Ledger::new(Arc::new(Genesis {
        format: GENESIS_MARK.into(),
        chain_id: "test".into(),
        timestamp_ms: 1_700_000_000_000,
        validators: vec![GenesisValidator {
            name: "one".into(),
            public_key: key(1).public(),
            address: "one:7000".into(),
        }],
        identities: vec![identity(2)],
        parameters: cairn_proof::parameters::Parameters::default(),
    }))
}

fn stream(signatures: Signatures) -> StreamDefinition {
    StreamDefinition { signatures, ..definition(Format::Json, &[&one_field(r#""long""#)]) }
}

type Headers = Vec<(&'static str, Vec<u8>)>;

/// A value of the stream's schema.
fn json(value: &str) -> String {
    format!(r#"{{"v":{value}}}"#)
}

/// The headers of one run: `values` by `key`, with sequences from `from` on.
fn signed(key: &SigningKey, from: u64, values: &[&str]) -> Vec<Headers> {
    let chain = *ledger().state().chain();
    let mut hasher = EntryHasher::new(&chain, "test.stream", PARTITION);
    let public = key.public();
    let leaf = |(n, value): (u64, &&str)| hasher.leaf(public.as_bytes(), n, 5, None, Some(json(value).as_bytes()));
    let leaves: Vec<_> = (from..).zip(values).map(leaf).collect();
    let run = SignedRun::sign(key, &chain, &leaves).unwrap();
    (0..).zip(from..).take(values.len()).map(|(index, n)| run.headers(index, n).unwrap()).collect()
}

fn batch(records: &[(&str, Headers)]) -> RawBatch {
    let mut builder = RawBatchBuilder::new(PARTITION, Offset(0));
    for (offset, (value, headers)) in (0..).zip(records) {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, Some(value.as_slice()))).collect();
        builder.append(Offset(offset), 5, None, Some(json(value).as_bytes()), &headers).unwrap();
    }
    builder.finish().unwrap()
}

/// The kinds of reasons, by what can be told without the chain.
fn offline(stream: &StreamDefinition, raw: &RawBatch) -> Vec<Option<ReasonCode>> {
    let verdicts = check_offline(stream, raw, ledger().state().chain());
    verdicts.iter().map(|verdict| verdict.as_ref().map(Reason::code)).collect()
}

fn good_and_bad() -> RawBatch {
    let key = key(3);
    let [a, b, c]: [Headers; 3] = signed(&key, 1, &["1", "2", "3"]).try_into().unwrap();
    let alone = signed(&key, 9, &["9"]).remove(0);
    let mut malformed = alone.clone();
    malformed.remove(1);
    let mut weak = alone.clone();
    weak[0].1 = vec![0; 32];
    let mut flipped = alone.clone();
    flipped[2].1[3] ^= 1;
    batch(&[
        ("1", a),
        ("2", b),
        ("4", c), // another value than was signed
        ("9", alone),
        ("10", vec![]),
        ("9", malformed),
        ("9", weak),
        ("9", flipped),
    ])
}

#[test]
fn what_the_rule_of_the_stream_says_about_each_record() {
    let raw = good_and_bad();
    let malformed = Some(ReasonCode::SignatureMalformed);
    let bad = Some(ReasonCode::BadSignature);
    let optional = [None, None, bad, None, None, malformed, malformed, bad];
    assert_eq!(offline(&stream(Signatures::Optional), &raw), optional);
    let mut required = optional;
    required[4] = Some(ReasonCode::Unsigned);
    assert_eq!(offline(&stream(Signatures::Required), &raw), required);
    let mut refused = [Some(ReasonCode::SignatureRefused); 8];
    refused[4] = None;
    assert_eq!(offline(&stream(Signatures::Refused), &raw), refused);
}

#[test]
fn who_is_not_registered_or_has_no_role_is_told_so() {
    let records = |key: &SigningKey| batch(&[("1", signed(key, 1, &["1"]).remove(0))]);
    let ledger = ledger();
    for (seed, code, text) in [
        (3, ReasonCode::UnknownKey, "is nobody's on the chain"),
        (2, ReasonCode::NotPublisher, "is no publisher of test.stream"),
    ] {
        let raw = records(&key(seed));
        let checked = check(&stream(Signatures::Optional), &raw, &Sequences::new(), || &ledger);
        let reason = checked.verdicts[0].as_ref().unwrap();
        assert_eq!(reason.code(), code);
        assert!(reason.to_string().contains(text) && is_stateful(&reason.to_string()), "{reason}");
        assert!(checked.sequences.is_empty(), "who may not publish uses up no sequence");
    }
}

/// A batch of nothing signed costs no verdicts, and keeps the table.
#[test]
fn unsigned_records_pass_where_signatures_are_optional() {
    let raw = batch(&[("1", vec![("trace", b"x".to_vec())]), ("2", vec![])]);
    let mut before = Sequences::new();
    before.take(&[7; 32], 5).unwrap();
    let ledger = ledger();
    let checked = check(&stream(Signatures::Optional), &raw, &before, || &ledger);
    assert!(checked.verdicts.is_empty());
    assert_eq!(checked.sequences, before);
}

/// An audit believes no stored reason that it can recompute, and takes those that hang on the chain.
#[test]
fn an_audit_recomputes_signatures_and_takes_stateful_reasons_from_the_segment() {
    use arrow::array::{Array as _, StringArray};
    let (stream, raw, ledger) = (stream(Signatures::Optional), good_and_bad(), ledger());
    let quarantined = |stored: [Option<&str>; 8]| -> Vec<bool> {
        let stored = StringArray::from(stored.to_vec());
        let decoded = AuditDecoder.decode(&stream, &raw, ledger.state().chain(), &stored, &Default::default()).unwrap();
        (0..8).map(|row| decoded.errors.is_valid(row)).collect()
    };
    assert_eq!(quarantined([None; 8]), [false, false, true, false, false, true, true, true]);
    let mut stored = [None; 8];
    stored[0] = Some("signature replayed: …");
    stored[1] = Some("signature bad: …"); // it is not: recomputed
    stored[4] = Some("signature replayed: …"); // it has none
    assert_eq!(quarantined(stored), [true, false, true, false, false, true, true, true]);
    let decoder = StreamDecoder::new(&stream).unwrap();
    let verdicts = check_offline(&stream, &raw, ledger.state().chain());
    let decoded = decoder.decode_authentic(&raw, &verdicts).unwrap();
    assert_eq!(decoded.quarantined.iter().map(|(_, count)| count).sum::<u64>(), 4);
}
