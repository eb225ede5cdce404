//! A small city for tests: an owner, two ingest nodes, one stream, and the statements that they make.

// Several test programs include this file, and each uses a part of it.
#![allow(dead_code, unreachable_pub)]

use cairn_proof::{
    Digest, Offset, Partition, Sequence,
    genesis::{GENESIS_MARK, Genesis, GenesisIdentity, GenesisValidator},
    identity::{IdentityKind, SigningKey},
    parameters::Parameters,
    statement::{
        Anchor, BatchLimits, Body, Format, RegisterIdentity, SchemaVersion, SegmentRef, Statement, StreamDefinition,
        log_entries, statement_id,
    },
};

pub const OWNER: u8 = 1;
pub const INGEST: u8 = 2;
pub const OTHER_INGEST: u8 = 3;
pub const STRANGER: u8 = 4;
pub const PARTITIONS: u32 = 64;

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

pub fn validator_key(index: usize) -> SigningKey {
    key(100 + index as u8)
}

pub fn genesis(validators: usize) -> Genesis {
    let identity = |seed, kind, name: &str| GenesisIdentity { name: name.into(), kind, public_key: key(seed).public() };
    let validator = |index| GenesisValidator {
        name: format!("v{index}"),
        public_key: validator_key(index).public(),
        address: format!("validator-{index}:7000"),
    };
    Genesis {
        format: GENESIS_MARK.into(),
        chain_id: "test".into(),
        timestamp_ms: 1,
        validators: (0..validators).map(validator).collect(),
        identities: vec![
            identity(OWNER, IdentityKind::Organisation, "city"),
            identity(INGEST, IdentityKind::Node, "ingest"),
            identity(OTHER_INGEST, IdentityKind::Node, "another ingest"),
        ],
        parameters: Parameters::default(),
    }
}

/// Statements of this city's people on one chain.
#[derive(Clone)]
pub struct City {
    pub genesis: Genesis,
}

impl City {
    pub fn new(validators: usize) -> Self {
        Self { genesis: genesis(validators) }
    }

    pub fn sign(&self, seed: u8, sequence: u64, body: Body) -> Vec<u8> {
        let statement = Statement { signer: key(seed).identity(), sequence: Sequence(sequence), body };
        statement.sign(&key(seed), &self.genesis.tag()).unwrap()
    }

    pub fn register_stream(&self, sequence: u64) -> Vec<u8> {
        self.sign(OWNER, sequence, Body::RegisterStream(definition("traffic.flow")))
    }

    pub fn register_identity(&self, sequence: u64, seed: u8) -> Vec<u8> {
        let (key, owner) = (key(seed), key(OWNER).identity());
        let body = RegisterIdentity::new(&key, IdentityKind::Device, "meter".into(), owner, &self.genesis.tag());
        self.sign(OWNER, sequence, Body::RegisterIdentity(body))
    }

    /// An anchor of ten records; returns its id too, for the next one.
    pub fn anchor(&self, seed: u8, sequence: u64, partition: u32, first: u64, previous: Digest) -> (Vec<u8>, Digest) {
        let statement = self.sign(seed, sequence, Body::Anchor(self.batch(partition, first, previous)));
        let id = statement_id(&statement);
        (statement, id)
    }

    /// Anchors of several partitions in one statement; returns their ids too.
    pub fn anchors(&self, seed: u8, sequence: u64, batches: &[(u32, u64, Digest)]) -> (Vec<u8>, Vec<Digest>) {
        let batches = batches.iter().map(|(partition, first, previous)| self.batch(*partition, *first, *previous));
        let statement = self.sign(seed, sequence, Body::Anchors(batches.collect()));
        let ids = log_entries(&statement).iter().map(|entry| statement_id(entry)).collect();
        (statement, ids)
    }

    fn batch(&self, partition: u32, first: u64, previous: Digest) -> Anchor {
        Anchor {
            stream: "traffic.flow".into(),
            partition: Partition(partition),
            first: Offset(first),
            last: Offset(first + 9),
            gaps: vec![],
            count: 10,
            quarantined: 0,
            records_root: Digest([1; 32]),
            timestamp_min_ms: 0,
            timestamp_max_ms: 0,
            schema_fingerprint: definition("traffic.flow").schemas[0].fingerprint(),
            segment: SegmentRef { path: "a/b".into(), size: 1, blake3: Digest([2; 32]) },
            previous,
        }
    }
}

pub fn definition(name: &str) -> StreamDefinition {
    StreamDefinition {
        name: name.into(),
        topic: name.into(),
        partitions: PARTITIONS,
        format: Format::Json,
        schemas: vec![SchemaVersion { id: 1, text: "{}".into() }],
        key_fields: vec![],
        event_time: None,
        limits: BatchLimits { records_max: 1000, ..BatchLimits::default() },
        gaps_allowed: false,
        anchorers: vec![key(INGEST).identity(), key(OTHER_INGEST).identity()],
        signatures: cairn_proof::statement::Signatures::default(),
    }
}
