//! What a fuzzer would do, as property tests that CI runs: golden bytes, changed in a few places, are refused or decode to
//! something of which they are the one encoding. No change may panic, loop, or take memory beyond the input's size.
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines, clippy::large_futures)]

mod bodies;

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// One change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    FlipBit(Index, u8),
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index, usize),
    Repeat(Index, usize),
    /// Puts a piece of another golden form in.
    Splice(Index, Index, usize),
    Swap(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    // Heads of CBOR items and limits of lengths: what a decoder is most likely to trip over.
    let telling = prop_oneof![
        any::<u8>(),
        Just(0x00),
        Just(0x17),
        Just(0x18),
        Just(0x1b),
        Just(0x3b),
        Just(0x40),
        Just(0x5b),
        Just(0x80),
        Just(0x9b),
        Just(0xa0),
        Just(0xd2),
        Just(0xf6),
        Just(0xff),
    ];
    prop_oneof![
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Change::FlipBit(at, bit)),
        (any::<Index>(), telling.clone()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), telling).prop_map(|(at, byte)| Change::Insert(at, byte)),
        (any::<Index>(), 1..40usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<Index>(), 1..40usize).prop_map(|(at, length)| Change::Repeat(at, length)),
        (any::<Index>(), any::<Index>(), 1..80usize).prop_map(|(at, from, length)| Change::Splice(at, from, length)),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Change::Swap(a, b)),
    ]
}

/// A piece of at most `length` bytes from `from` on.
fn piece(bytes: &[u8], from: usize, length: usize) -> Vec<u8> {
    bytes[from..bytes.len().min(from + length)].to_vec()
}

fn changed(mut bytes: Vec<u8>, donor: &[u8], changes: &[Change]) -> Vec<u8> {
    for change in changes {
        // With one place more than there are bytes, empty input is no special case.
        let place = |index: &Index| index.index(bytes.len() + 1);
        match change {
            Change::FlipBit(at, bit) => {
                let at = place(at);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << bit);
            }
            Change::Set(at, value) => {
                let at = place(at);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = *value);
            }
            Change::Insert(at, value) => bytes.insert(place(at), *value),
            Change::Remove(at, length) => {
                let at = place(at);
                bytes.drain(at..bytes.len().min(at + length));
            }
            Change::Repeat(at, length) => {
                let at = place(at);
                bytes.splice(at..at, piece(&bytes, at, *length));
            }
            Change::Splice(at, from, length) => {
                let (at, from) = (place(at), from.index(donor.len() + 1));
                bytes.splice(at..at, piece(donor, from, *length));
            }
            Change::Swap(a, b) if !bytes.is_empty() => {
                let (a, b) = (a.index(bytes.len()), b.index(bytes.len()));
                bytes.swap(a, b);
            }
            Change::Swap(..) => {}
        }
    }
    bytes
}

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    if name.contains('.') {
        return std::fs::read(folder.join(name)).unwrap();
    }
    if name == "did" {
        let lines = std::fs::read_to_string(folder.join("digests.txt")).unwrap();
        return lines.lines().find_map(|line| line.strip_prefix("did of device: ")).unwrap().into();
    }
    let text = std::fs::read_to_string(folder.join(name).with_extension("hex")).unwrap();
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

/// Changes each of `names` in many ways and gives it to `body`. At least one change must have been refused, else the
/// body looked at nothing.
fn mutate(names: &[&str], body: fn(&[u8]) -> bool) {
    let forms: Vec<Vec<u8>> = names.iter().map(|name| golden(name)).collect();
    let donors: Vec<Vec<u8>> =
        ["anchor", "header", "certificate", "genesis"].map(golden).into_iter().chain(forms.clone()).collect();
    let refused = std::cell::Cell::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let input = (any::<Index>(), any::<Index>(), vec(change(), 1..6));
    let outcome = runner.run(&input, |(form, donor, changes)| {
        let bytes = changed(form.get(&forms).clone(), &donor.get(&donors)[..], &changes);
        refused.set(refused.get() + u32::from(!body(&bytes)));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(refused.get() > 500, "only {} of 2000 changed inputs were refused", refused.get());
}

#[test]
fn changed_records() {
    mutate(&["record", "record-bare"], bodies::record);
}

#[test]
fn changed_signed_records() {
    mutate(&["signed-headers"], bodies::signed_headers);
    mutate(&["sequences"], bodies::sequences);
}

#[test]
fn changed_writer_schemas() {
    mutate(&["writer-schemas"], bodies::writer_schemas);
}

#[test]
fn changed_statements() {
    mutate(&["register-identity", "register-stream", "register-stream-signed", "anchor"], bodies::statement);
}

#[test]
fn changed_statements_of_several_anchors() {
    mutate(&["anchors"], bodies::statement);
    mutate(&["anchors-entry", "anchor"], bodies::log_entry);
}

#[test]
fn changed_statements_about_identities_and_rights() {
    mutate(
        &["rotate-key", "revoke-identity", "set-expiry", "set-role", "transfer-stream", "update-stream"],
        bodies::statement,
    );
}

#[test]
fn changed_statements_of_validators() {
    mutate(&["vote-add", "vote-parameters", "attest", "evidence"], bodies::statement);
}

#[test]
fn changed_state_proofs() {
    mutate(&["state-proof-present.json", "state-proof-absent.json"], bodies::state_proof);
}

#[test]
fn changed_notes() {
    mutate(&["checkpoint.txt"], bodies::note);
}

#[test]
fn changed_tlog_proofs() {
    mutate(&["anchor.tlog-proof"], bodies::tlog_proof);
}

#[test]
fn changed_dids() {
    mutate(&["did"], bodies::did);
}

#[test]
fn changed_login_tokens() {
    mutate(&["login.txt"], bodies::login);
}

#[test]
fn changed_answers() {
    mutate(&["answer"], bodies::answer);
}

#[test]
fn changed_evidence_of_answers() {
    mutate(&["answer.json"], bodies::answer_evidence);
}

#[test]
fn changed_headers() {
    mutate(&["header-0", "header"], bodies::header);
}

#[test]
fn changed_blocks() {
    mutate(&["block", "blocks"], bodies::block);
}

#[test]
fn changed_certificates() {
    mutate(&["certificate"], bodies::certificate);
}

#[test]
fn changed_receipts() {
    let with_changes =
        ["receipts/change.json", "receipts/changes.json", "receipts/checkpoint.json", "receipts/several.json"];
    mutate(&[&["receipt.json"], &with_changes[..]].concat(), bodies::receipt);
}

#[test]
fn changed_genesis_files() {
    mutate(&["city.json", "genesis.json"], bodies::genesis);
}

#[test]
fn changed_cbor() {
    mutate(&["record", "anchor", "header", "block", "genesis"], bodies::cbor);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    /// A path of a tile has one form, whatever is put together out of its parts.
    #[test]
    fn tiles_have_one_path(parts in vec("tile|/|[0-9]{1,4}|x[0-9]{3}|\\.p|entries", 0..12)) {
        bodies::tile(parts.concat().as_bytes());
    }

    /// Nothing that anybody sends does harm.
    #[test]
    fn any_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..300)) {
        let bodies: [fn(&[u8]) -> bool; 16] = [
            bodies::record, bodies::statement, bodies::header, bodies::block, bodies::certificate, bodies::receipt,
            bodies::genesis, bodies::state_proof, bodies::did, bodies::note, bodies::tlog_proof, bodies::tile,
            bodies::login, bodies::answer, bodies::answer_evidence, bodies::log_entry,
        ];
        for body in bodies {
            body(&bytes);
        }
        bodies::cbor(&bytes);
    }
}
