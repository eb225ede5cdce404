//! Receipts that are wrong in one point and right in all others, signed all the way up, and right ones at the limits.
//!
//! The golden receipts are broken in their fields and in their walks over committees; here are the encodings and
//! signatures that a verifier in another language is likely to see otherwise: heads that are not the shortest, numbers at
//! the ends of their ranges, second encodings of points. Each case says what it is expected to be, so that it tests this
//! crate as well. Made from fixed seeds: validators 1 to 4, the anchorer 9.

pub(crate) mod chains;
pub(crate) mod encodings;
pub(crate) mod forms;
pub(crate) mod notes;
pub(crate) mod signatures;
pub(crate) mod states;

use cairn_proof::cbor::Writer;
use cairn_proof::certificate::consensus_namespace;
use cairn_proof::digest::sha256;
use cairn_proof::genesis::{GENESIS_MARK, Genesis, GenesisIdentity, GenesisValidator};
use cairn_proof::identity::{IdentityKind, SigningKey};
use cairn_proof::parameters::Parameters;
use cairn_proof::receipt::{Base64Bytes, RECEIPT_MARK, Receipt, TreePath};
use cairn_proof::tree;
use cairn_proof::{Digest, LeafIndex};

/// What a case is expected to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Verified,
    /// Refused at this step.
    Refused(&'static str),
}

impl Expected {
    /// The step at which it is refused.
    pub(crate) const fn step(self) -> Option<&'static str> {
        match self {
            Self::Verified => None,
            Self::Refused(step) => Some(step),
        }
    }
}

/// One file.
pub(crate) struct Hostile {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) expected: Expected,
}

pub(crate) fn good(name: impl Into<String>, receipt: &Receipt) -> Hostile {
    Hostile { name: name.into(), bytes: receipt.to_json().unwrap(), expected: Expected::Verified }
}

pub(crate) fn bad(step: &'static str, name: impl Into<String>, receipt: &Receipt) -> Hostile {
    Hostile { name: name.into(), bytes: receipt.to_json().unwrap(), expected: Expected::Refused(step) }
}

/// All of them.
pub(crate) fn all() -> Vec<Hostile> {
    [forms::all(), encodings::all(), signatures::all(), notes::all(), states::all()].into_iter().flatten().collect()
}

pub(crate) const ANCHORER: u8 = 9;

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// The keys of these seeds in ascending order, as certificates count them.
pub(crate) fn committee(seeds: &[u8]) -> Vec<SigningKey> {
    let mut keys: Vec<_> = seeds.iter().map(|seed| key(*seed)).collect();
    keys.sort_by_key(SigningKey::public);
    keys
}

pub(crate) fn genesis() -> Genesis {
    let validator = |seed: u8| GenesisValidator {
        name: format!("validator-{seed}"),
        public_key: key(seed).public(),
        address: format!("validator-{seed}:26600"),
    };
    Genesis {
        format: GENESIS_MARK.into(),
        chain_id: "hostile".into(),
        timestamp_ms: 1_700_000_000_000,
        validators: (1..=4).map(validator).collect(),
        identities: vec![GenesisIdentity {
            name: "ingest".into(),
            kind: IdentityKind::Node,
            public_key: key(ANCHORER).public(),
        }],
        parameters: Parameters { epoch_blocks: 10, ..Parameters::default() },
    }
}

/// Encoded items, of which any can be replaced by other bytes.
pub(crate) type Items = Vec<Vec<u8>>;

pub(crate) fn item(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out));
    out
}

pub(crate) fn number(value: u64) -> Vec<u8> {
    item(|w| w.unsigned(value))
}

pub(crate) fn words(value: &str) -> Vec<u8> {
    item(|w| w.text(value))
}

pub(crate) fn octets(value: &[u8]) -> Vec<u8> {
    item(|w| w.bytes(value))
}

pub(crate) fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [item(|w| w.array(items.len())), items.concat()].concat()
}

/// A record at offset 7 of partition 1.
pub(crate) fn record_items() -> Items {
    let header = array(&[words("source"), octets(b"detector")]);
    vec![
        words("cairn/record/v1"),
        words("traffic.flow"),
        number(1),
        number(7),
        number(1000),
        octets(b"key"),
        octets(b"value"),
        array(&[header]),
        octets(&[5; 16]),
    ]
}

/// The values of the anchor's keys 1 to 14, over one batch of one record.
pub(crate) fn anchor_items(record: &[u8]) -> Items {
    vec![
        number(1),
        words("traffic.flow"),
        number(1),
        number(7),
        number(7),
        array(&[]),
        number(1),
        number(0),
        octets(tree::leaf_hash(record).as_ref()),
        number(1000),
        number(1000),
        octets(&[2; 32]),
        array(&[words("segments/traffic.flow/1/a.parquet"), number(999), octets(&[3; 32])]),
        octets(&[0; 32]),
    ]
}

pub(crate) fn payload(anchor: &[Vec<u8>]) -> Vec<u8> {
    let mut out = item(|w| w.map(anchor.len()));
    for (value, name) in anchor.iter().zip(1..) {
        out.extend_from_slice(&number(name));
        out.extend_from_slice(value);
    }
    out
}

pub(crate) const ANCHOR_TYPE: &str = "application/vnd.cairn.anchor.v1+cbor";

/// {1: -8, 3: content type, 4: key id}
pub(crate) fn protected(content_type: &str) -> Vec<u8> {
    let signer = key(ANCHORER).identity();
    [vec![0xa3, 0x01, 0x27, 0x03], words(content_type), vec![0x04], octets(signer.0.as_ref())].concat()
}

/// What is signed of an envelope.
pub(crate) fn sig_structure(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let tag = genesis().tag();
    array(&[words("Signature1"), octets(protected), octets(tag.0.as_ref()), octets(payload)])
}

pub(crate) fn envelope(protected: &[u8], payload: &[u8], signature: &[u8]) -> Vec<u8> {
    let items = [octets(protected), vec![0xa0], octets(payload), octets(signature)];
    [vec![0xd2], array(&items)].concat()
}

pub(crate) fn signed_envelope(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    envelope(protected, payload, &key(ANCHORER).sign(&sig_structure(protected, payload)))
}

/// What a header says beside the log.
#[derive(Clone)]
pub(crate) struct Block {
    pub(crate) epoch: u64,
    pub(crate) view: u64,
    pub(crate) parent_view: u64,
    pub(crate) height: u64,
    pub(crate) committee: Vec<SigningKey>,
    pub(crate) next: Vec<SigningKey>,
}

/// Height 12, in epoch 1, by the validators of the genesis.
pub(crate) fn block() -> Block {
    let committee = committee(&[1, 2, 3, 4]);
    Block { epoch: 1, view: 300, parent_view: 299, height: 12, next: committee.clone(), committee }
}

pub(crate) fn hash_of(keys: &[SigningKey]) -> Digest {
    let keys: Vec<_> = keys.iter().map(|key| octets(key.public().as_bytes())).collect();
    sha256(&[&array(&[words("cairn/validators/v1"), array(&keys)])])
}

pub(crate) fn header_items(block: &Block, log_root: Digest, log_size: u64) -> Items {
    vec![
        words("cairn/header/v2"),
        words("hostile"),
        number(block.epoch),
        number(block.view),
        number(block.parent_view),
        octets(key(1).public().as_bytes()),
        number(block.height),
        number(1_700_000_001_000),
        octets(&[6; 32]),
        octets(tree::empty_root().as_ref()),
        number(0),
        octets(&[7; 32]),
        octets(log_root.as_ref()),
        number(log_size),
        octets(hash_of(&block.committee).as_ref()),
        octets(hash_of(&block.next).as_ref()),
    ]
}

pub(crate) fn varint(mut value: u64) -> Vec<u8> {
    let mut out = vec![];
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
    out
}

/// The parts of a certificate, of which any can be replaced.
#[derive(Clone)]
pub(crate) struct Certificate {
    /// Epoch, view, parent view, payload.
    pub(crate) proposal: Vec<u8>,
    pub(crate) count: Vec<u8>,
    pub(crate) bitmap: Vec<u8>,
    pub(crate) stated: Vec<u8>,
    pub(crate) signatures: Vec<Vec<u8>>,
}

impl Certificate {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&self.proposal[..], &self.count, &self.bitmap, &self.stated, &self.signatures.concat()].concat()
    }
}

pub(crate) fn proposal(numbers: [&[u8]; 3], header: &[u8]) -> Vec<u8> {
    [numbers.concat(), sha256(&[header]).as_ref().to_vec()].concat()
}

/// What validators sign of a proposal.
pub(crate) fn vote(proposal: &[u8], purpose: &[u8]) -> Vec<u8> {
    let domain = [&consensus_namespace(&genesis().tag())[..], purpose].concat();
    [varint(domain.len() as u64), domain, proposal.to_vec()].concat()
}

/// A certificate over a proposal by these places of the committee.
pub(crate) fn certify(proposal: Vec<u8>, committee: &[SigningKey], signers: &[usize]) -> Certificate {
    let message = vote(&proposal, b"_FINALIZE");
    let mut bitmap = vec![0u8; committee.len().div_ceil(8)];
    signers.iter().for_each(|place| bitmap[place / 8] |= 1 << (place % 8));
    Certificate {
        proposal,
        count: (committee.len() as u64).to_be_bytes().to_vec(),
        bitmap,
        stated: varint(signers.len() as u64),
        signatures: signers.iter().map(|place| committee[*place].sign(&message).to_vec()).collect(),
    }
}

/// The certificate that a quorum of the block's committee makes over a header.
pub(crate) fn certificate(block: &Block, header: &[u8]) -> Certificate {
    let numbers = [block.epoch, block.view, block.parent_view].map(varint);
    let quorum = block.committee.len() - (block.committee.len() - 1) / 3;
    let signers: Vec<_> = (0..quorum).collect();
    certify(proposal(numbers.each_ref().map(Vec::as_slice), header), &block.committee, &signers)
}

/// A receipt over an envelope: the second of three in the log of the block.
pub(crate) fn receipt(record: Vec<u8>, envelope: Vec<u8>, block: &Block) -> Receipt {
    let log = [tree::leaf_hash(b"another"), tree::leaf_hash(&envelope), tree::leaf_hash(b"a third")];
    let header = array(&header_items(block, tree::root(&log), 3));
    Receipt {
        format: RECEIPT_MARK.into(),
        record: Base64Bytes(record),
        batch: TreePath { index: LeafIndex(0), path: vec![] },
        anchor: Base64Bytes(envelope),
        anchorer: key(ANCHORER).public(),
        log: TreePath { index: LeafIndex(1), path: tree::inclusion_path(&log, LeafIndex(1)).unwrap() },
        committees: vec![],
        certificate: Base64Bytes(certificate(block, &header).bytes()),
        header: Base64Bytes(header),
        checkpoint: None,
    }
}

/// A receipt over a record and an anchor of these items.
pub(crate) fn receipt_over(record: Vec<u8>, anchor: &[Vec<u8>]) -> Receipt {
    receipt(record, signed_envelope(&protected(ANCHOR_TYPE), &payload(anchor)), &block())
}

/// A receipt in which all is right.
pub(crate) fn plain() -> Receipt {
    let record = array(&record_items());
    let anchor = anchor_items(&record);
    receipt_over(record, &anchor)
}
