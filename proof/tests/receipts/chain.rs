//! A chain of epochs of ten blocks whose committee grows from four to seven and shrinks to five, and receipts out of it.

use cairn_proof::block::statements_root;
use cairn_proof::certificate::{forge, quorum};
use cairn_proof::checkpoint::Checkpoint;
use cairn_proof::committee::{Committee, CommitteeChange};
use cairn_proof::genesis::{GENESIS_MARK, Genesis, GenesisIdentity, GenesisValidator};
use cairn_proof::header::Header;
use cairn_proof::identity::{IdentityKind, SigningKey};
use cairn_proof::note::{Algorithm, Note, VerifierKey};
use cairn_proof::parameters::Parameters;
use cairn_proof::receipt::{Base64Bytes, RECEIPT_MARK, Receipt, TreePath};
use cairn_proof::record::{BatchSecret, OwnedRecord};
use cairn_proof::statement::{Anchor, Body, Gap, SegmentRef, Statement};
use cairn_proof::{Digest, Height, LeafIndex, Offset, Partition, Sequence, TreeSize, tree};

use super::several;

/// Fields of a receipt, in their order.
pub(crate) const FIELDS: [&str; 10] =
    ["format", "record", "batch", "anchor", "anchorer", "log", "committees", "header", "certificate", "checkpoint"];
/// Steps at which the cases stop, sorted.
pub(crate) const STEPS: [&str; 10] =
    ["anchor", "batch", "certificate", "checkpoint", "committees", "form", "header", "log", "record", "statement"];

pub(crate) const EPOCH_BLOCKS: u64 = 10;
pub(crate) const OWNER: u8 = 8;
pub(crate) const INGEST: u8 = 9;
/// The key that ingest signs with after a rotation.
pub(crate) const ROTATED: u8 = 19;
pub(crate) const WITNESS: u8 = 20;
const SECRET: BatchSecret = BatchSecret([5; 32]);
const FIRST: u64 = 100;

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

pub(crate) fn keys(seeds: std::ops::RangeInclusive<u8>) -> Vec<SigningKey> {
    seeds.map(key).collect()
}

/// The three committees that the chain has one after the other.
pub(crate) fn committees() -> [Vec<SigningKey>; 3] {
    [keys(1..=4), keys(1..=7), keys(3..=7)]
}

pub(crate) fn committee(keys: &[SigningKey]) -> Committee {
    let mut public: Vec<_> = keys.iter().map(SigningKey::public).collect();
    public.sort();
    Committee::new(public).unwrap()
}

pub(crate) fn genesis() -> Genesis {
    let validator = |seed: u8| GenesisValidator {
        name: format!("validator-{seed}"),
        public_key: key(seed).public(),
        address: format!("validator-{seed}:26600"),
    };
    let identity = |name: &str, kind, seed| GenesisIdentity { name: name.into(), kind, public_key: key(seed).public() };
    Genesis {
        format: GENESIS_MARK.into(),
        chain_id: "golden-receipts".into(),
        timestamp_ms: 1_700_000_000_000,
        validators: (1..=4).map(validator).collect(),
        identities: vec![
            identity("city", IdentityKind::Organisation, OWNER),
            identity("ingest", IdentityKind::Node, INGEST),
        ],
        parameters: Parameters { epoch_blocks: EPOCH_BLOCKS, ..Parameters::default() },
    }
}

/// Record `index` of a batch; the two offsets after the second record are a gap.
pub(crate) fn record(index: u64) -> OwnedRecord {
    OwnedRecord {
        topic: "traffic.flow".into(),
        partition: Partition(1),
        offset: Offset(FIRST + index + if index < 2 { 0 } else { 2 }),
        timestamp_ms: 1_700_000_000_000 + i64::try_from(index).unwrap(),
        key: (index % 2 == 1).then(|| b"section-7".to_vec()),
        value: Some(format!("{{\"speed_kmh\":{index}}}").into_bytes()),
        headers: vec![("source".into(), Some(b"detector".to_vec())), ("empty".into(), None)],
        salt: SECRET.salt(LeafIndex(index)),
    }
}

pub(crate) fn anchor(count: u64) -> Anchor {
    let leaves: Vec<_> = (0..count).map(|index| tree::leaf_hash(&record(index).encode())).collect();
    let last = record(count - 1);
    Anchor {
        stream: "traffic.flow".into(),
        partition: Partition(1),
        first: Offset(FIRST),
        last: last.offset,
        gaps: if count > 2 { vec![Gap { first: Offset(FIRST + 2), last: Offset(FIRST + 3) }] } else { vec![] },
        count,
        quarantined: 0,
        records_root: tree::root(&leaves),
        timestamp_min_ms: 1_700_000_000_000,
        timestamp_max_ms: last.timestamp_ms,
        schema_fingerprint: Digest([2; 32]),
        segment: SegmentRef { path: "segments/traffic.flow/1/a.parquet".into(), size: 999, blake3: Digest([3; 32]) },
        previous: Digest::ZERO,
    }
}

/// The anchor's envelope, by the identity of ingest, signed with the key of `seed`.
pub(crate) fn envelope(anchor: Anchor, seed: u8, chain: &Genesis) -> Vec<u8> {
    let statement = Statement { signer: key(INGEST).identity(), sequence: Sequence(1), body: Body::Anchor(anchor) };
    statement.sign(&key(seed), &chain.tag()).unwrap()
}

/// What the header of a receipt is about.
pub(crate) struct Place<'a> {
    pub(crate) height: u64,
    pub(crate) committee: &'a [SigningKey],
    pub(crate) next: &'a [SigningKey],
    pub(crate) log: &'a [Digest],
}

pub(crate) fn header(place: &Place<'_>) -> Header {
    let height = place.height;
    Header {
        epoch: height / EPOCH_BLOCKS,
        view: height % EPOCH_BLOCKS + 1,
        parent_view: height % EPOCH_BLOCKS,
        proposer: *place.committee[0].public().as_bytes(),
        height: Height(height),
        timestamp_ms: 1_700_000_000_000 + height,
        parent: Digest([6; 32]),
        statements_root: statements_root(std::iter::empty()),
        state_root: Digest([7; 32]),
        log_root: tree::root(place.log),
        log_size: TreeSize(place.log.len() as u64),
        validators_hash: committee(place.committee).hash(),
        next_validators_hash: committee(place.next).hash(),
        ..genesis().header()
    }
}

/// A certificate by as many of `by` as are needed, the first one left out where it can be.
pub(crate) fn certify(header: &Header, by: &[SigningKey], views_later: u64) -> Vec<u8> {
    let signers: Vec<_> = (by.len() - quorum(by.len())..by.len()).collect();
    let (view, parent_view) = (header.view + views_later, header.parent_view + views_later);
    forge::certificate_in_view(header, view, parent_view, by, &signers, &genesis().tag())
}

/// The end of an epoch at which `now` hands over to `next`.
pub(crate) fn change(height: u64, now: &[SigningKey], next: &[SigningKey], views_later: u64) -> CommitteeChange {
    let header = header(&Place { height, committee: now, next, log: &[] });
    CommitteeChange {
        header: Base64Bytes(header.encode()),
        certificate: Base64Bytes(certify(&header, now, views_later)),
        validators: committee(next).keys().to_vec(),
    }
}

/// A receipt of record `index` of `count`, anchor `place` of `size` in the log.
fn receipt(
    (index, count): (u64, u64),
    (place, size): (usize, u8),
    signed_by: u8,
    committees: Vec<CommitteeChange>,
    (height, by, next): (u64, &[SigningKey], &[SigningKey]),
    views_later: u64,
) -> Receipt {
    let envelope = envelope(anchor(count), signed_by, &genesis());
    receipt_of(envelope, (index, count), (place, size), signed_by, committees, (height, by, next), views_later)
}

/// The same, of an anchor with that entry in the log.
fn receipt_of(
    envelope: Vec<u8>,
    (index, count): (u64, u64),
    (place, size): (usize, u8),
    signed_by: u8,
    committees: Vec<CommitteeChange>,
    (height, by, next): (u64, &[SigningKey], &[SigningKey]),
    views_later: u64,
) -> Receipt {
    let mut log: Vec<_> = (0..size).map(|other| tree::leaf_hash(&[other])).collect();
    log[place] = tree::leaf_hash(&envelope);
    let header = header(&Place { height, committee: by, next, log: &log });
    let leaves: Vec<_> = (0..count).map(|index| tree::leaf_hash(&record(index).encode())).collect();
    let path = |leaves: &[Digest], index: u64| TreePath {
        index: LeafIndex(index),
        path: tree::inclusion_path(leaves, LeafIndex(index)).unwrap(),
    };
    Receipt {
        format: RECEIPT_MARK.into(),
        record: Base64Bytes(record(index).encode()),
        batch: path(&leaves, index),
        anchor: Base64Bytes(envelope),
        anchorer: key(signed_by).public(),
        log: path(&log, place as u64),
        committees,
        header: Base64Bytes(header.encode()),
        certificate: Base64Bytes(certify(&header, by, views_later)),
        checkpoint: None,
    }
}

/// The header's log as a note, signed by `signers` in both ways, and by a witness that nobody knows.
pub(crate) fn checkpoint(header: &Header, signers: &[SigningKey]) -> String {
    let seconds = 1_700_000_100;
    let checkpoint = Checkpoint::of(header);
    let mut lines: Vec<_> = signers.iter().flat_map(|key| checkpoint.sign(key, seconds).unwrap()).collect();
    let witness = VerifierKey::new("witness.example/w1", Algorithm::CosignatureV1, key(WITNESS).public()).unwrap();
    lines.push(witness.sign(&key(WITNESS), &checkpoint.text(), seconds).unwrap());
    Note::new(&checkpoint.text(), lines).unwrap().to_text()
}

/// The valid receipts, by the names of their files.
pub(crate) fn receipts() -> Vec<(&'static str, Receipt)> {
    let [four, seven, five] = committees();
    let once = vec![change(19, &four, &seven, 0)];
    let twice = vec![change(19, &four, &seven, 0), change(49, &seven, &five, 4)];
    let mut noted = receipt((2, 6), (3, 9), INGEST, once.clone(), (87, &seven, &seven), 0);
    noted.checkpoint = Some(checkpoint(&Header::decode(&noted.header.0).unwrap(), &seven[1..6]));
    vec![
        ("one.json", receipt((0, 1), (0, 1), INGEST, vec![], (3, &four, &four), 0)),
        ("thousand.json", receipt((617, 1000), (2, 5), INGEST, vec![], (17, &four, &four), 0)),
        ("change.json", receipt((3, 5), (1, 3), INGEST, once, (42, &seven, &seven), 0)),
        ("changes.json", receipt((4, 7), (6, 7), INGEST, twice, (59, &five, &four), 7)),
        ("checkpoint.json", noted),
        ("several.json", {
            let entry = several::entry(&several::statement(&[]), 1, |_| {});
            receipt_of(entry, (3, 5), (1, 3), INGEST, vec![], (5, &four, &four), 0)
        }),
        ("rotated.json", receipt((1, 2), (0, 2), ROTATED, vec![], (9, &four, &seven), 2)),
    ]
}
