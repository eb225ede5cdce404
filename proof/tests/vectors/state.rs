//! The chain's state after block 1, written out a second time from `docs/formats.md`.
//!
//! Keys, values and the trie's root are computed here from the description alone, without `cairn-chain-state`, which
//! imports this crate and not the other way round.

use std::collections::BTreeMap;

use cairn_proof::Digest;
use cairn_proof::cbor::Writer;
use cairn_proof::digest::sha256;
use cairn_proof::identity::SigningKey;
use cairn_proof::state_proof::StateProofParts;
use cairn_proof::statement::statement_id;

use super::{DEVICE, INGEST, OWNER, key, statements};

/// From a key, 32 bytes, to a value's bytes.
pub(crate) type Entries = BTreeMap<[u8; 32], Vec<u8>>;

fn value(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out));
    out
}

fn name(parts: &[&[u8]]) -> [u8; 32] {
    sha256(parts).0
}

fn id(key: &SigningKey) -> [u8; 32] {
    key.identity().0.0
}

/// An identity and its key, both entries.
fn identity(
    seed: u8,
    kind: u64,
    called: &str,
    controller: Option<u8>,
    height: u64,
    expires: Option<u64>,
) -> [([u8; 32], Vec<u8>); 2] {
    let controller = controller.map(|seed| id(&key(seed)));
    let entry = value(|writer| {
        writer.array(9);
        writer.text("identity");
        writer.bytes(key(seed).public().as_bytes());
        writer.bytes(key(seed).public().as_bytes());
        writer.unsigned(kind);
        writer.text(called);
        writer.bytes_or_null(controller.as_ref().map(|id| &id[..]));
        writer.unsigned(height);
        writer.null();
        writer.unsigned_or_null(expires);
    });
    let owner = value(|writer| {
        writer.array(2);
        writer.text("key");
        writer.bytes(&id(&key(seed)));
    });
    [(name(&[b"identity/", &id(&key(seed))]), entry), (name(&[b"key/", key(seed).public().as_bytes()]), owner)]
}

/// Validator `seed` with the number of proposals that it made and missed, all in the running epoch.
fn validator(seed: u8, made: u64, missed: u64) -> ([u8; 32], Vec<u8>) {
    let entry = value(|writer| {
        writer.array(11);
        writer.text("validator");
        writer.text(&format!("validator-{seed}"));
        writer.text(&format!("validator-{seed}:26600"));
        for number in [1, 0, made, missed, 0, 0, 0] {
            writer.unsigned(number);
        }
        writer.array(3);
        for number in [made, missed, 0] {
            writer.unsigned(number);
        }
    });
    (name(&[b"validator/", key(seed).public().as_bytes()]), entry)
}

fn committee() -> Vec<u8> {
    value(|writer| {
        writer.array(2);
        writer.text("committee");
        writer.array(4);
        for key in super::genesis().validator_keys() {
            writer.bytes(key.as_bytes());
        }
    })
}

fn parameters() -> Vec<u8> {
    value(|writer| {
        writer.array(2);
        writer.text("parameters");
        writer.array(7);
        for number in [200, 3000, 4096, 2 * 1024 * 1024, 10_000_000, 3, 10] {
            writer.unsigned(number);
        }
    })
}

fn sequence(seed: u8, number: u64) -> ([u8; 32], Vec<u8>) {
    let bytes = value(|writer| {
        writer.array(2);
        writer.text("sequence");
        writer.unsigned(number);
    });
    (name(&[b"sequence/", &id(&key(seed))]), bytes)
}

/// The state before the first block.
pub(crate) fn genesis_entries() -> Entries {
    let mut entries = Entries::new();
    entries.extend(identity(OWNER, 1, "city", None, 0, None));
    entries.extend(identity(INGEST, 4, "ingest", None, 0, None));
    for seed in 1..=4 {
        entries.extend(identity(seed, 4, &format!("validator-{seed}"), None, 0, None));
        entries.extend([validator(seed, 0, 0)]);
    }
    entries.extend([
        (name(&[b"committee/current"]), committee()),
        (name(&[b"committee/next"]), committee()),
        (name(&[b"parameters/current"]), parameters()),
        (name(&[b"parameters/next"]), parameters()),
    ]);
    entries
}

/// The state after block 1.
pub(crate) fn entries() -> Entries {
    let [_, registered, anchor] = statements();
    let (registered, anchor) = (statement_id(&registered), statement_id(&anchor));
    let stream = value(|writer| {
        writer.array(4);
        writer.text("stream");
        writer.bytes(registered.as_ref());
        writer.bytes(&id(&key(OWNER)));
        writer.unsigned(1);
    });
    let topic = value(|writer| {
        writer.array(2);
        writer.text("topic");
        writer.text("traffic.flow");
    });
    let head = value(|writer| {
        writer.array(6);
        writer.text("head");
        writer.unsigned(105);
        writer.bytes(anchor.as_ref());
        for number in [0, 5, 1] {
            writer.unsigned(number);
        }
    });
    let place = value(|writer| {
        writer.array(3);
        writer.text("anchor");
        writer.unsigned(0);
        writer.unsigned(1);
    });
    let role = value(|writer| {
        writer.array(3);
        writer.text("role");
        writer.bool(true);
        writer.unsigned(1);
    });
    let mut entries = genesis_entries();
    entries.extend(identity(DEVICE, 3, "detector 7", Some(OWNER), 1, Some(1_900_000_000_000)));
    // Validator 1 proposed in view 301, and nobody did in the 300 views before it.
    entries.extend((1..=4).map(|seed| validator(seed, u64::from(seed == 1), 75)));
    entries.extend([
        (name(&[b"role/", &[1], &id(&key(INGEST)), b"traffic.flow"]), role),
        sequence(OWNER, 2),
        sequence(INGEST, 1),
        (name(&[b"stream/", b"traffic.flow"]), stream),
        (name(&[b"topic/", b"traffic.flow"]), topic),
        (name(&[b"head/", &1u32.to_be_bytes(), b"traffic.flow"]), head),
        (name(&[b"anchor/", anchor.as_ref()]), place),
    ]);
    entries
}

/// The trie's root, by its definition over the sorted keys.
pub(crate) fn root(entries: &Entries) -> Digest {
    let all: Vec<_> = entries.iter().collect();
    if all.is_empty() { Digest::ZERO } else { node(&all) }
}

/// What proves that `key` has its value, or that it has none.
pub(crate) fn prove(entries: &Entries, key: &[u8; 32]) -> StateProofParts {
    let mut range: Vec<_> = entries.iter().collect();
    let mut path = Vec::new();
    while let Some(bit) = split(&range) {
        let right = range.split_off(range.partition_point(|(key, _)| !bit_of(key, bit)));
        let (taken, other) = if bit_of(key, bit) { (right, range) } else { (range, right) };
        path.push((bit, node(&other)));
        range = taken;
    }
    let (end, bytes) = range[0];
    if end == key {
        return StateProofParts { value: Some(bytes.clone()), path, neighbour: None };
    }
    StateProofParts { value: None, path, neighbour: Some((Digest(*end), sha256(&[bytes]))) }
}

/// The first bit in which the keys of a sorted range differ.
fn split(range: &[(&[u8; 32], &Vec<u8>)]) -> Option<u16> {
    let (first, last) = (range[0].0, range[range.len() - 1].0);
    (0..256u16).find(|bit| bit_of(first, *bit) != bit_of(last, *bit))
}

fn node(range: &[(&[u8; 32], &Vec<u8>)]) -> Digest {
    let (first, bytes) = range[0];
    let Some(bit) = split(range) else {
        return sha256(&[&[0], first, sha256(&[bytes]).as_ref()]);
    };
    let (left, right) = range.split_at(range.partition_point(|(key, _)| !bit_of(key, bit)));
    sha256(&[&[1], &bit.to_be_bytes(), node(left).as_ref(), node(right).as_ref()])
}

fn bit_of(key: &[u8; 32], bit: u16) -> bool {
    key[usize::from(bit / 8)] >> (7 - bit % 8) & 1 == 1
}

/// `key value` lines in the order of the keys.
pub(crate) fn text() -> String {
    entries().iter().map(|(key, value)| format!("{} {}\n", hex::encode(key), hex::encode(value))).collect()
}
