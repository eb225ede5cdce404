//! Statements made and signed before the clock starts: anchors of many partitions by several ingest identities.

use anyhow::Result;
use cairn_proof::genesis::Genesis;
use cairn_proof::identity::SigningKey;
use cairn_proof::statement::{
    Anchor, BatchLimits, Body, Format, SchemaVersion, SegmentRef, Statement, StreamDefinition, statement_id,
};
use cairn_proof::{Digest, Offset, Partition, Sequence};

/// The stream that all anchors are about.
pub(super) const STREAM: &str = "traffic.flow";
/// Partitions that each signer writes to, in turn.
pub(super) const PARTITIONS_EACH: u32 = 8;

fn schema() -> SchemaVersion {
    SchemaVersion { id: 1, text: "\"string\"".into() }
}

/// Registers the stream for all signers.
pub(super) fn registration(genesis: &Genesis, owner: &SigningKey, signers: &[SigningKey]) -> Result<Vec<u8>> {
    let partitions = u32::try_from(signers.len())? * PARTITIONS_EACH;
    let definition = StreamDefinition {
        name: STREAM.into(),
        topic: STREAM.into(),
        partitions,
        format: Format::Avro,
        key_fields: vec![],
        event_time: None,
        limits: BatchLimits::default(),
        gaps_allowed: false,
        anchorers: signers.iter().map(SigningKey::identity).collect(),
        signatures: cairn_proof::statement::Signatures::default(),
        schemas: vec![schema()],
    };
    let statement =
        Statement { signer: owner.identity(), sequence: Sequence(1), body: Body::RegisterStream(definition) };
    Ok(statement.sign(owner, &genesis.tag())?)
}

/// One signer's anchors, made in the order in which they must be submitted.
#[derive(Debug)]
pub(super) struct Anchors {
    chain: cairn_proof::statement::ChainTag,
    key: SigningKey,
    first_partition: u32,
    made: u64,
    heads: Vec<(u64, Digest)>,
}

impl Anchors {
    /// The anchors of the signer with number `signer`.
    pub(super) fn new(genesis: &Genesis, key: SigningKey, signer: usize) -> Result<Self> {
        let first_partition = u32::try_from(signer)? * PARTITIONS_EACH;
        let heads = vec![(0, Digest::ZERO); PARTITIONS_EACH as usize];
        Ok(Self { chain: genesis.tag(), key, first_partition, made: 0, heads })
    }

    /// The next one: 100 records of one of the signer's partitions.
    pub(super) fn next(&mut self) -> Result<Vec<u8>> {
        let turn = u32::try_from(self.made % u64::from(PARTITIONS_EACH))?;
        let (first, previous) = self.heads[turn as usize];
        let anchor = Anchor {
            stream: STREAM.into(),
            partition: Partition(self.first_partition + turn),
            first: Offset(first),
            last: Offset(first + 99),
            gaps: vec![],
            count: 100,
            quarantined: 0,
            records_root: Digest([1; 32]),
            timestamp_min_ms: 0,
            timestamp_max_ms: 1,
            schema_fingerprint: schema().fingerprint(),
            segment: SegmentRef { path: format!("t/{first:08}"), size: 9, blake3: Digest([2; 32]) },
            previous,
        };
        self.made += 1;
        let statement =
            Statement { signer: self.key.identity(), sequence: Sequence(self.made), body: Body::Anchor(anchor) };
        let envelope = statement.sign(&self.key, &self.chain)?;
        self.heads[turn as usize] = (first + 100, statement_id(&envelope));
        Ok(envelope)
    }
}
