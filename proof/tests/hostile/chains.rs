//! Geneses at the ends of what they may hold, each with a receipt: a verifier that writes one byte of the canonical
//! genesis otherwise has another tag, and no signature holds.

use cairn_proof::certificate::{forge, quorum};
use cairn_proof::genesis::{GENESIS_MARK, Genesis, GenesisIdentity, GenesisValidator};
use cairn_proof::header::Header;
use cairn_proof::identity::{IdentityKind, SigningKey};
use cairn_proof::parameters::Parameters;
use cairn_proof::receipt::{Base64Bytes, RECEIPT_MARK, Receipt, TreePath};
use cairn_proof::statement::{Anchor, Body, SegmentRef, Statement};
use cairn_proof::{Digest, Height, LeafIndex, Offset, Partition, Sequence, TreeSize, tree};

use super::{ANCHORER, Hostile, array, good, key, record_items};

/// A genesis file and a receipt of its chain.
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) genesis: Genesis,
    pub(crate) file: Vec<u8>,
    pub(crate) receipt: Hostile,
}

fn receipt(genesis: &Genesis, validators: &[SigningKey]) -> Receipt {
    let record = array(&record_items());
    let anchor = Anchor {
        stream: "traffic.flow".into(),
        partition: Partition(1),
        first: Offset(7),
        last: Offset(7),
        gaps: vec![],
        count: 1,
        quarantined: 0,
        records_root: tree::leaf_hash(&record),
        timestamp_min_ms: 1000,
        timestamp_max_ms: 1000,
        schema_fingerprint: Digest([2; 32]),
        segment: SegmentRef { path: "a".into(), size: 1, blake3: Digest([3; 32]) },
        previous: Digest::ZERO,
    };
    let statement = Statement { signer: key(ANCHORER).identity(), sequence: Sequence(1), body: Body::Anchor(anchor) };
    let envelope = statement.sign(&key(ANCHORER), &genesis.tag()).unwrap();
    let header = Header {
        view: 1,
        height: Height(1),
        log_root: tree::leaf_hash(&envelope),
        log_size: TreeSize(1),
        ..genesis.header()
    };
    let signers: Vec<_> = (0..quorum(validators.len())).collect();
    Receipt {
        format: RECEIPT_MARK.into(),
        record: Base64Bytes(record),
        batch: TreePath { index: LeafIndex(0), path: vec![] },
        anchor: Base64Bytes(envelope),
        anchorer: key(ANCHORER).public(),
        log: TreePath { index: LeafIndex(0), path: vec![] },
        committees: vec![],
        certificate: Base64Bytes(forge::certificate(&header, validators, &signers, &genesis.tag())),
        header: Base64Bytes(header.encode()),
        checkpoint: None,
    }
}

fn chain(name: &'static str, validators: usize, identities: usize, edit: impl Fn(&mut Genesis)) -> Chain {
    let seeds = |front: u8, count: usize| {
        (0..count).map(move |place| {
            let mut seed = [front; 32];
            seed[31] = u8::try_from(place).unwrap();
            SigningKey::from_seed(&seed)
        })
    };
    let keys: Vec<_> = seeds(100, validators).collect();
    let kinds = [IdentityKind::Organisation, IdentityKind::Person, IdentityKind::Device, IdentityKind::Node];
    let mut genesis = Genesis {
        format: GENESIS_MARK.into(),
        chain_id: "c".into(),
        timestamp_ms: 0,
        validators: keys
            .iter()
            .map(|key| GenesisValidator { name: "v".into(), public_key: key.public(), address: "v:1".into() })
            .collect(),
        identities: seeds(200, identities)
            .zip(kinds.iter().cycle())
            .map(|(key, kind)| GenesisIdentity { name: "i".into(), kind: *kind, public_key: key.public() })
            .collect(),
        parameters: Parameters::default(),
    };
    edit(&mut genesis);
    genesis.check().unwrap();
    let file = serde_json::to_vec_pretty(&genesis).unwrap();
    let receipt = good(format!("chain: {name}"), &receipt(&genesis, &keys));
    Chain { name, genesis, file, receipt }
}

/// Texts of these lengths as names, and addresses a byte longer, one a validator.
fn lengths(genesis: &mut Genesis, lengths: &[usize]) {
    for (validator, length) in genesis.validators.iter_mut().zip(lengths) {
        validator.name = "n".repeat((*length).min(128));
        let label = "a".repeat(63);
        let host: String = [&label[..], ".", &label, ".", &label, ".", &label].concat();
        validator.address = format!("{}:1", &host[..(length - 2).min(253)]);
        // A label does not end in a hyphen or a host in a dot.
        validator.address = validator.address.replace(".:", "a:");
    }
}

pub(crate) fn all() -> Vec<Chain> {
    let mut chains = vec![
        chain("one validator", 1, 0, |_| {}),
        chain("23 validators and identities", 23, 23, |g| g.timestamp_ms = 23),
        chain("24 validators and identities", 24, 24, |g| g.timestamp_ms = 24),
        chain("128 validators", 128, 0, |g| g.timestamp_ms = 255),
        chain("256 identities", 4, 256, |g| g.timestamp_ms = 256),
        chain("255 identities", 4, 255, |g| g.timestamp_ms = 65_535),
        chain("texts of many lengths", 10, 1, |g| {
            lengths(g, &[3, 23, 24, 25, 127, 128, 129, 254, 255, 255]);
            g.timestamp_ms = 65_536;
        }),
        chain("a late time", 2, 0, |g| g.timestamp_ms = u64::from(u32::MAX)),
        chain("a later time", 2, 0, |g| g.timestamp_ms = 1 << 32),
        chain("the latest time", 2, 0, |g| g.timestamp_ms = (1 << 53) - 1),
        chain("the longest chain id", 3, 0, |g| g.chain_id = "0.-z".repeat(16)),
        chain("names in many letters", 3, 2, |g| {
            g.validators[0].name = "\"\\/<&>\u{2028}\u{feff}".into();
            g.validators[1].name = "Straße 東京 🚦".into();
            g.identities[0].name = " ".into();
        }),
        chain("least parameters", 4, 0, |g| {
            g.parameters = Parameters {
                epoch_blocks: 2,
                heartbeat_ms: 50,
                block_statements_max: 1,
                block_bytes_max: 65_535,
                batch_records_max: 1,
                absence_epochs: 0,
                vote_epochs: 1,
            };
        }),
        chain("greatest parameters", 4, 0, |g| {
            g.parameters = Parameters {
                epoch_blocks: 1_000_000,
                heartbeat_ms: 60_000,
                block_statements_max: 4096,
                block_bytes_max: 2 << 20,
                batch_records_max: 10_000_000,
                absence_epochs: 1_000_000,
                vote_epochs: 1000,
            };
        }),
        chain("parameters around the sizes of a head", 4, 0, |g| {
            g.parameters = Parameters {
                epoch_blocks: 23,
                heartbeat_ms: 256,
                block_statements_max: 24,
                block_bytes_max: 65_536,
                batch_records_max: 65_535,
                absence_epochs: 255,
                vote_epochs: 25,
            };
        }),
    ];
    let mut bare = chain("no parameters in the file", 4, 0, |_| {});
    let mut file: serde_json::Value = serde_json::from_slice(&bare.file).unwrap();
    file.as_object_mut().unwrap().remove("parameters").unwrap();
    bare.file = serde_json::to_vec(&file).unwrap();
    let mut some = chain("one parameter in the file", 4, 0, |g| g.parameters.vote_epochs = 7);
    file["parameters"] = serde_json::json!({"vote_epochs": 7});
    some.file = serde_json::to_vec(&file).unwrap();
    chains.extend([bare, some]);
    for chain in &chains {
        assert_eq!(Genesis::from_json(&chain.file).unwrap(), chain.genesis, "{}", chain.name);
    }
    chains
}
