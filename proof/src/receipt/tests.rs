//! A golden receipt verifies; any single bit of it changed is refused.

use super::*;
use crate::certificate::forge;
use crate::genesis::{GENESIS_MARK, GenesisIdentity, GenesisValidator};
use crate::identity::{IdentityKind, SigningKey};
use crate::parameters::Parameters;
use crate::record::BatchSecret;
use crate::statement::{Body, SegmentRef, Statement};
use crate::units::{Height, Offset, Partition, Sequence};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// The chain of the golden files: four validators with keys of seeds 1 to 4, one anchorer with seed 9.
pub(crate) fn genesis() -> Genesis {
    Genesis {
        format: GENESIS_MARK.into(),
        chain_id: "golden".into(),
        timestamp_ms: 1_700_000_000_000,
        validators: (1..=4)
            .map(|seed| GenesisValidator {
                name: format!("validator-{seed}"),
                public_key: key(seed).public(),
                address: format!("validator-{seed}:26600"),
            })
            .collect(),
        identities: vec![GenesisIdentity {
            name: "ingest".into(),
            kind: IdentityKind::Node,
            public_key: key(9).public(),
        }],
        parameters: Parameters::default(),
    }
}

fn record(index: u64) -> OwnedRecord {
    OwnedRecord {
        topic: "traffic.flow".into(),
        partition: Partition(1),
        offset: Offset(100 + index),
        timestamp_ms: 1_700_000_000_000 + i64::try_from(index).unwrap(),
        key: Some(b"section-7".to_vec()),
        value: Some(format!("{{\"speed_kmh\":{index}}}").into_bytes()),
        headers: vec![("source".into(), Some(b"detector".to_vec())), ("empty".into(), None)],
        salt: BatchSecret([5; 32]).salt(LeafIndex(index)),
    }
}

/// The receipt of record `index` out of five, in a log of three anchors, at height 12.
pub(crate) fn golden(index: u64) -> Receipt {
    let genesis = genesis();
    let leaves: Vec<_> = (0..5).map(|i| tree::leaf_hash(&record(i).encode())).collect();
    let anchor = Anchor {
        stream: "traffic.flow".into(),
        partition: Partition(1),
        first: Offset(100),
        last: Offset(104),
        gaps: vec![],
        count: 5,
        quarantined: 0,
        records_root: tree::root(&leaves),
        timestamp_min_ms: 1_700_000_000_000,
        timestamp_max_ms: 1_700_000_000_004,
        schema_fingerprint: Digest([2; 32]),
        segment: SegmentRef { path: "segments/traffic.flow/1/a.parquet".into(), size: 999, blake3: Digest([3; 32]) },
        previous: Digest::ZERO,
    };
    let statement = Statement { signer: key(9).identity(), sequence: Sequence(1), body: Body::Anchor(anchor) };
    let envelope = statement.sign(&key(9), &genesis.tag()).unwrap();
    let log = [tree::leaf_hash(b"another"), tree::leaf_hash(&envelope), tree::leaf_hash(b"a third")];
    let header = Header {
        view: 300,
        parent_view: 299,
        proposer: *key(1).public().as_bytes(),
        height: Height(12),
        timestamp_ms: 1_700_000_001_000,
        parent: Digest([6; 32]),
        state_root: Digest([7; 32]),
        log_root: tree::root(&log),
        log_size: TreeSize(3),
        ..genesis.header()
    };
    let keys: Vec<_> = (1..=4).map(key).collect();
    Receipt {
        format: RECEIPT_MARK.into(),
        record: Base64Bytes(record(index).encode()),
        batch: TreePath { index: LeafIndex(index), path: tree::inclusion_path(&leaves, LeafIndex(index)).unwrap() },
        anchor: Base64Bytes(envelope),
        anchorer: key(9).public(),
        log: TreePath { index: LeafIndex(1), path: tree::inclusion_path(&log, LeafIndex(1)).unwrap() },
        committees: vec![],
        header: Base64Bytes(header.encode()),
        certificate: Base64Bytes(forge::certificate(&header, &keys, &[0, 1, 3], &genesis.tag())),
        checkpoint: None,
    }
}

#[test]
fn every_record_of_the_batch_verifies() {
    for index in 0..5 {
        let bytes = golden(index).to_json().unwrap();
        let receipt = Receipt::from_json(&bytes).unwrap();
        let verified = receipt.verify(&genesis()).unwrap();
        assert_eq!(verified.record, record(index));
        assert_eq!(verified.steps.len(), 7);
        assert_eq!(verified.committee, genesis().committee());
    }
}

/// Every bit of the file, one after the other: there is no unsigned comment in a receipt.
#[test]
fn any_flipped_bit_is_refused() {
    let genesis = genesis();
    let good = golden(3).to_json().unwrap();
    for bit in 0..good.len() * 8 {
        let mut changed = good.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let accepted = Receipt::from_json(&changed).and_then(|receipt| receipt.verify(&genesis));
        assert!(accepted.is_err(), "bit {} of byte {} ({:?})", bit % 8, bit / 8, char::from(good[bit / 8]));
    }
}

#[test]
fn each_broken_link_is_named() {
    let genesis = genesis();
    let other = golden(2);
    type Change = Box<dyn Fn(&mut Receipt)>;
    let cases: Vec<(StepName, Change)> = vec![
        (StepName::Record, Box::new(|r| r.record.0[0] = 0)),
        (StepName::Batch, Box::new(move |r| r.record = other.record.clone())),
        (StepName::Batch, Box::new(|r| r.batch.index = LeafIndex(4))),
        (StepName::Batch, Box::new(|r| r.batch.path[0] = Digest::ZERO)),
        (StepName::Anchor, Box::new(|r| *r.anchor.0.last_mut().unwrap() ^= 1)),
        (StepName::Anchor, Box::new(|r| r.anchorer = key(1).public())),
        (StepName::Log, Box::new(|r| r.log.path.clear())),
        (StepName::Log, Box::new(|r| r.header.0.clear())),
        (StepName::Certificate, Box::new(|r| *r.certificate.0.last_mut().unwrap() ^= 1)),
        (
            StepName::Committees,
            Box::new(|r| {
                let (header, certificate) = (r.header.clone(), r.certificate.clone());
                r.committees.push(CommitteeChange {
                    header,
                    certificate,
                    validators: self::genesis().validator_keys(),
                });
            }),
        ),
        (StepName::Checkpoint, Box::new(|r| r.checkpoint = Some("cairn/golden\n3\n\n— x AAAA\n".into()))),
    ];
    for (step, change) in cases {
        let mut receipt = golden(3);
        change(&mut receipt);
        assert_eq!(receipt.verify(&genesis).unwrap_err().step, step);
    }
    let mut elsewhere = genesis.clone();
    elsewhere.validators.pop();
    assert_eq!(golden(3).verify(&elsewhere).unwrap_err().step, StepName::Anchor, "another chain has another tag");
}

#[test]
fn the_golden_file_is_what_the_code_writes() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/receipt.json");
    let made = golden(3).to_json().unwrap();
    if std::env::var_os("CAIRN_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &made).unwrap();
        let genesis_path = path.with_file_name("genesis.json");
        std::fs::write(genesis_path, serde_json::to_vec_pretty(&genesis()).unwrap()).unwrap();
    }
    let kept = std::fs::read(&path).unwrap();
    assert!(kept == made, "a changed golden file is a format change: say so in docs/formats.md");
}
