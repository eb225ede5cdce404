//! An anchor out of a statement with several: the statement, its entries in the log, and ways in which these can be wrong.

use cairn_proof::cbor::{Reader, Writer};
use cairn_proof::receipt::StepName::{Anchor as AtAnchor, Batch, Log, Statement as AtStatement};
use cairn_proof::receipt::{Base64Bytes, Receipt, StepName};
use cairn_proof::statement::{Anchor, Body, Statement, log_entry};
use cairn_proof::{Digest, LeafIndex, Partition, Sequence, tree};

use super::broken::{Made, with, with_high_s};
use super::chain::{self, INGEST, key};

const FILE: &str = "several.json";
const TYPE: &str = "application/vnd.cairn.anchors.v1+cbor";

/// The batches of five partitions; the receipt's is that of partition 1.
fn anchors() -> Vec<Anchor> {
    (0..5).map(|number| Anchor { partition: Partition(number), ..chain::anchor(5) }).collect()
}

fn root() -> Digest {
    tree::root(&anchors().iter().map(|anchor| tree::leaf_hash(&anchor.encode())).collect::<Vec<_>>())
}

/// What is written into an envelope, true or not.
#[derive(Clone)]
pub(crate) struct Says {
    content_type: &'static str,
    count: u64,
    root: Digest,
    /// Further pairs of the payload.
    more: u64,
}

/// A statement of several anchors without them, signed by ingest, after `edits` to what it says.
pub(crate) fn statement(edits: &[fn(&mut Says)]) -> Vec<u8> {
    let mut says = Says { content_type: TYPE, count: 5, root: root(), more: 0 };
    edits.iter().for_each(|edit| edit(&mut says));
    let (mut protected, mut payload) = (Vec::new(), Vec::new());
    let mut writer = Writer::new(&mut protected);
    writer.map(3);
    writer.unsigned(1);
    writer.signed(-8);
    writer.unsigned(3);
    writer.text(says.content_type);
    writer.unsigned(4);
    writer.bytes(key(INGEST).identity().0.as_ref());
    let mut writer = Writer::new(&mut payload);
    writer.map(3 + says.more as usize);
    writer.unsigned(1);
    writer.unsigned(1);
    writer.unsigned(2);
    writer.unsigned(says.count);
    writer.unsigned(3);
    writer.bytes(says.root.as_ref());
    for more in 0..says.more {
        writer.unsigned(4 + more);
        writer.unsigned(0);
    }
    let mut message = Vec::new();
    let mut writer = Writer::new(&mut message);
    writer.array(4);
    writer.text("Signature1");
    writer.bytes(&protected);
    writer.bytes(chain::genesis().tag().0.as_ref());
    writer.bytes(&payload);
    let mut out = vec![0xd2];
    let mut writer = Writer::new(&mut out);
    writer.array(4);
    writer.bytes(&protected);
    writer.map(0);
    writer.bytes(&payload);
    writer.bytes(&key(INGEST).sign(&message));
    out
}

/// What an entry carries.
pub(crate) struct Carries {
    headers: usize,
    label: i64,
    index: u64,
    path: Vec<Digest>,
    anchor: Vec<u8>,
}

/// The entry of anchor `index` in the log, after an edit to what it carries.
pub(crate) fn entry(bare: &[u8], index: u64, edit: impl FnOnce(&mut Carries)) -> Vec<u8> {
    let leaves: Vec<_> = anchors().iter().map(|anchor| tree::leaf_hash(&anchor.encode())).collect();
    let path = tree::inclusion_path(&leaves, LeafIndex(index)).unwrap();
    let mut carries = Carries { headers: 1, label: -65_538, index, path, anchor: anchors()[index as usize].encode() };
    edit(&mut carries);
    let mut reader = Reader::new(&bare[2..]);
    reader.bytes().unwrap();
    let at = bare.len() - reader.remaining();
    let mut out = bare[..at].to_vec();
    let mut writer = Writer::new(&mut out);
    writer.map(carries.headers);
    for header in 0..carries.headers {
        writer.signed(carries.label - header as i64);
        writer.array(3);
        writer.unsigned(carries.index);
        writer.array(carries.path.len());
        carries.path.iter().for_each(|hash| writer.bytes(hash.as_ref()));
        writer.bytes(&carries.anchor);
    }
    out.extend_from_slice(&bare[at + 1..]);
    out
}

/// The statement as it is submitted.
fn whole() -> Vec<u8> {
    let body = Body::Anchors(anchors());
    Statement { signer: key(INGEST).identity(), sequence: Sequence(1), body }
        .sign(&key(INGEST), &chain::genesis().tag())
        .unwrap()
}

fn says(name: &str, step: StepName, edit: fn(&mut Says)) -> Made {
    with(&format!("anchor: {name}"), FILE, step, |r| r.anchor = Base64Bytes(entry(&statement(&[edit]), 1, |_| {})))
}

fn carries(name: &str, step: StepName, edit: fn(&mut Carries)) -> Made {
    with(&format!("anchor: {name}"), FILE, step, |r| r.anchor = Base64Bytes(entry(&statement(&[]), 1, edit)))
}

fn bytes(name: &str, step: StepName, edit: fn(&mut Receipt)) -> Made {
    with(&format!("anchor: {name}"), FILE, step, edit)
}

pub(crate) fn cases() -> Vec<Made> {
    assert_eq!(entry(&statement(&[]), 1, |_| {}), log_entry(&whole(), LeafIndex(1)).unwrap().into_owned());
    vec![
        says("several: one fewer, well signed", AtStatement, |it| it.count = 2),
        says("several: more than there may be, well signed", AtAnchor, |it| it.count = 257),
        says("several: a single one, well signed", AtAnchor, |it| it.count = 1),
        says("several: none, well signed", AtAnchor, |it| it.count = 0),
        says("several: another root, well signed", AtStatement, |it| it.root.0[0] ^= 1),
        says("several: a field more, well signed", AtAnchor, |it| it.more = 1),
        says("several: the type of a single one, well signed", AtAnchor, |it| {
            it.content_type = "application/vnd.cairn.anchor.v1+cbor";
        }),
        carries("several: the next place", AtStatement, |it| it.index = 2),
        carries("several: a place beyond them", AtStatement, |it| it.index = 5),
        carries("several: a place beyond 63 bits", AtStatement, |it| it.index = u64::MAX),
        carries("several: a hash changed", AtStatement, |it| it.path[1].0[31] ^= 1),
        carries("several: two hashes swapped", AtStatement, |it| it.path.swap(0, 1)),
        carries("several: the first hash left out", AtStatement, |it| {
            it.path.remove(0);
        }),
        carries("several: no hash", AtStatement, |it| it.path.clear()),
        carries("several: a hash more", AtStatement, |it| it.path.push(Digest::ZERO)),
        carries("several: 65 hashes", AtAnchor, |it| it.path = vec![Digest::ZERO; 65]),
        carries("several: another segment in its place", AtStatement, |it| {
            let mut other = anchors()[1].clone();
            other.segment.size += 1;
            it.anchor = other.encode();
        }),
        carries("several: another one in its place", AtStatement, |it| it.anchor = anchors()[2].encode()),
        carries("several: an anchor that contradicts itself", AtAnchor, |it| {
            it.anchor = Anchor { count: 6, ..anchors()[1].clone() }.encode();
        }),
        carries("several: a byte more in the anchor", AtAnchor, |it| it.anchor.push(0)),
        carries("several: no anchor", AtAnchor, |it| it.anchor.clear()),
        carries("several: an anchor with a sequence", AtAnchor, |it| {
            it.anchor.splice(0..1, [0xae, 1, 1]);
        }),
        carries("several: the label of all", AtAnchor, |it| it.label = -65_537),
        carries("several: another label", AtAnchor, |it| it.label = -65_539),
        carries("several: two headers", AtAnchor, |it| it.headers = 2),
        bytes("several: all of them", AtAnchor, |r| r.anchor.0 = whole()),
        bytes("several: without any", AtAnchor, |r| r.anchor.0 = statement(&[])),
        bytes("several: another one of them", Batch, |r| r.anchor.0 = entry(&statement(&[]), 2, |_| {})),
        bytes("several: alone, well signed", Log, |r| {
            r.anchor.0 = chain::envelope(anchors()[1].clone(), INGEST, &chain::genesis());
        }),
        bytes("several: a bit of the signature", AtAnchor, |r| *r.anchor.0.last_mut().unwrap() ^= 1),
        bytes("several: a signature with a high s", AtAnchor, |r| {
            let at = r.anchor.0.len() - 64;
            with_high_s(&mut r.anchor.0[at..]);
        }),
        bytes("several: a longer head of the place", AtAnchor, |r| {
            let label = [0x3a, 0, 1, 0, 1, 0x83, 1];
            let at = r.anchor.0.windows(7).position(|bytes| bytes == label).unwrap() + 6;
            r.anchor.0.splice(at..=at, [0x18, 1]);
        }),
        bytes("several: a byte more", AtAnchor, |r| r.anchor.0.push(0)),
        with("anchorer: another key for several", FILE, AtAnchor, |r| r.anchorer = key(1).public()),
    ]
}
