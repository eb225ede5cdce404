//! How fast a follower executes anchors, against checking their signatures alone.

use std::hint::black_box;
use std::num::NonZero;

use anyhow::{Context as _, Result};
use cairn_chain_client::prepare::with_prepared;
use cairn_chain_state::{BlockTime, Round, State, StrictSignatures, execute_prepared, seal};
use cairn_proof::block::SignedBlock;
use cairn_proof::epoch::epoch_of;
use cairn_proof::genesis::{GENESIS_MARK, Genesis, GenesisIdentity, GenesisValidator};
use cairn_proof::header::Header;
use cairn_proof::identity::{IdentityKind, SigningKey};
use cairn_proof::statement::{
    Anchor, BatchLimits, Body, Format, SchemaVersion, SegmentRef, SignedStatement, Statement, StreamDefinition,
};
use cairn_proof::{Digest, Height, Offset, Partition, Sequence};
use serde_json::{Map, Value, json};

const ANCHORS: u64 = 10_000;
/// Statements of one block.
const BLOCK_STATEMENTS: usize = 500;

pub(crate) fn genesis(owner: &SigningKey, ingest: &SigningKey) -> Genesis {
    let identity =
        |name: &str, kind, key: &SigningKey| GenesisIdentity { name: name.into(), kind, public_key: key.public() };
    Genesis {
        format: GENESIS_MARK.into(),
        chain_id: "bench".into(),
        timestamp_ms: 1,
        validators: vec![GenesisValidator {
            name: "v".into(),
            public_key: SigningKey::from_seed(&[3; 32]).public(),
            address: "v:7000".into(),
        }],
        identities: vec![
            identity("owner", IdentityKind::Organisation, owner),
            identity("ingest", IdentityKind::Node, ingest),
        ],
        parameters: cairn_proof::parameters::Parameters::default(),
    }
}

/// A stream, and anchors of batches of 100 records after it.
pub(crate) fn statements(
    genesis: &Genesis,
    owner: &SigningKey,
    ingest: &SigningKey,
    anchors: u64,
) -> Result<Vec<Vec<u8>>> {
    let schema = SchemaVersion { id: 1, text: "\"string\"".into() };
    let definition = StreamDefinition {
        name: "traffic.flow".into(),
        topic: "traffic.flow".into(),
        partitions: 1,
        format: Format::Avro,
        key_fields: vec![],
        event_time: None,
        limits: BatchLimits::default(),
        gaps_allowed: false,
        anchorers: vec![ingest.identity()],
        signatures: cairn_proof::statement::Signatures::default(),
        schemas: vec![schema.clone()],
    };
    let register =
        Statement { signer: owner.identity(), sequence: Sequence(1), body: Body::RegisterStream(definition) };
    let mut all = vec![register.sign(owner, &genesis.tag())?];
    let mut previous = Digest::ZERO;
    for number in 0..anchors {
        let anchor = Anchor {
            stream: "traffic.flow".into(),
            partition: Partition(0),
            first: Offset(number * 100),
            last: Offset(number * 100 + 99),
            gaps: vec![],
            count: 100,
            quarantined: 0,
            records_root: Digest([1; 32]),
            timestamp_min_ms: 0,
            timestamp_max_ms: 1,
            schema_fingerprint: schema.fingerprint(),
            segment: SegmentRef {
                path: format!("segments/traffic.flow/0/{number:020}.parquet"),
                size: 9,
                blake3: Digest([2; 32]),
            },
            previous,
        };
        let statement =
            Statement { signer: ingest.identity(), sequence: Sequence(number + 1), body: Body::Anchor(anchor) };
        let envelope = statement.sign(ingest, &genesis.tag())?;
        previous = cairn_proof::statement::statement_id(&envelope);
        all.push(envelope);
    }
    Ok(all)
}

/// The statements in certified blocks' form, a few hundred in each.
fn blocks(genesis: &Genesis, envelopes: &[Vec<u8>]) -> Result<Vec<SignedBlock>> {
    let (mut header, mut state, mut blocks) = (genesis.header(), State::genesis(genesis), Vec::new());
    for statements in envelopes.chunks(BLOCK_STATEMENTS) {
        let at = BlockTime { height: header.height.next(), timestamp_ms: header.timestamp_ms + 1 };
        let epoch = epoch_of(at.height, genesis.parameters.epoch_blocks);
        let round = Round { epoch, view: header.view + 1, parent_view: header.view, proposer: header.proposer };
        let mut after = state.clone();
        for statement in statements {
            after.apply(&at, statement, &StrictSignatures)?;
        }
        let slices = statements.iter().map(Vec::as_slice);
        header = seal(&header, &state, &mut after, &round, at.timestamp_ms, slices);
        state = after;
        blocks.push(SignedBlock { header: header.encode(), statements: statements.to_vec(), certificate: None });
    }
    Ok(blocks)
}

/// Executes all blocks as a follower does: statements prepared on all processors, blocks one after the other.
fn follow(genesis: &Genesis, blocks: &[SignedBlock]) -> Result<(Header, State)> {
    let (mut header, mut state) = (genesis.header(), State::genesis(genesis));
    let base = state.clone();
    with_prepared(blocks, &base, |prepared| {
        for block in blocks {
            let statements = prepared.take(block.statements.len());
            let executed = execute_prepared(&header, &state, block, statements, &StrictSignatures)?;
            (header, state) = (executed.header, executed.state);
        }
        Ok((header, state))
    })
}

/// Measures the signatures alone, statements applied one after the other, and blocks as a follower executes them.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn run(rounds: usize) -> Result<Map<String, Value>> {
    let (owner, ingest) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
    let genesis = genesis(&owner, &ingest);
    let envelopes = statements(&genesis, &owner, &ingest, ANCHORS)?;
    let blocks = blocks(&genesis, &envelopes)?;
    let decoded =
        envelopes.iter().skip(1).map(|bytes| SignedStatement::decode(bytes)).collect::<Result<Vec<_>, _>>()?;
    let (key, tag) = (ingest.public(), genesis.tag());
    let mut refused = 0;
    let mut signatures = || {
        for statement in &decoded {
            refused += u64::from(black_box(statement.verify(&key, &tag)).is_err());
        }
    };
    let mut applied = 0;
    let mut execute = || {
        let mut state = State::genesis(&genesis);
        let at = BlockTime { height: Height(1), timestamp_ms: 2 };
        for envelope in &envelopes {
            applied += u64::from(state.apply(&at, envelope, &StrictSignatures).is_ok());
        }
        black_box(state.root());
    };
    let mut followed = 0;
    let mut follower = || {
        followed += follow(&genesis, &blocks).map_or(0, |(_, state)| state.log_size().0);
    };
    let times = crate::medians(rounds, &mut [&mut signatures, &mut execute, &mut follower]);
    let runs = rounds.max(1) as u64;
    let all = refused == 0 && applied == runs * (ANCHORS + 1) && followed == runs * ANCHORS;
    all.then_some(()).context("a statement was refused")?;
    let mut figures = Map::new();
    let microseconds = |index: usize| times[index].as_nanos() as f64 / ANCHORS as f64 / 1000.0;
    let rounded = |value: f64| json!((value * 100.0).round() / 100.0);
    figures.insert("signature_us_per_anchor".into(), rounded(microseconds(0)));
    figures.insert("apply_us_per_anchor".into(), rounded(microseconds(1)));
    figures.insert("apply_over_signatures".into(), rounded(microseconds(1) / microseconds(0)));
    figures.insert("replay_us_per_anchor".into(), rounded(microseconds(2)));
    figures.insert("replay_over_signatures".into(), rounded(microseconds(2) / microseconds(0)));
    figures.insert("replay_anchors_per_second".into(), json!((1e6 / microseconds(2)).round()));
    figures.insert("processors".into(), json!(std::thread::available_parallelism().map_or(1, NonZero::get)));
    Ok(figures)
}
