//! Each rule of the state is broken once here; a refused statement leaves the root as it was.

mod life;
mod proofs;
mod random;
mod several;
mod updates;
mod validators;

use super::*;
use crate::transition::{TransitionError, execute, seal};
use cairn_proof::Offset;
use cairn_proof::block::{SignedBlock, statements_root};
use cairn_proof::genesis::{GENESIS_MARK, GenesisIdentity, GenesisValidator};
use cairn_proof::header::Header;
use cairn_proof::identity::SigningKey;
use cairn_proof::statement::{
    Anchor, BatchLimits, Format, Gap, RegisterIdentity, SchemaVersion, SegmentRef, StreamDefinition,
};

const OWNER: u8 = 1;
const INGEST: u8 = 2;
const STRANGER: u8 = 3;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn genesis() -> Genesis {
    let identity = |seed, kind, name: &str| GenesisIdentity { name: name.into(), kind, public_key: key(seed).public() };
    Genesis {
        format: GENESIS_MARK.into(),
        chain_id: "test".into(),
        timestamp_ms: 1,
        validators: vec![GenesisValidator {
            name: "v".into(),
            public_key: key(100).public(),
            address: "v:7000".into(),
        }],
        identities: vec![
            identity(OWNER, IdentityKind::Organisation, "city"),
            identity(INGEST, IdentityKind::Node, "ingest"),
        ],
        parameters: cairn_proof::parameters::Parameters::default(),
    }
}

fn definition() -> StreamDefinition {
    StreamDefinition {
        name: "traffic.flow".into(),
        topic: "flow".into(),
        partitions: 2,
        format: Format::Json,
        schemas: vec![SchemaVersion { id: 1, text: "{}".into() }],
        key_fields: vec![],
        event_time: None,
        limits: BatchLimits { records_max: 1000, ..BatchLimits::default() },
        gaps_allowed: false,
        anchorers: vec![key(INGEST).identity()],
        signatures: cairn_proof::statement::Signatures::default(),
    }
}

fn anchor(first: u64, last: u64, previous: Digest) -> Anchor {
    Anchor {
        stream: "traffic.flow".into(),
        partition: Partition(0),
        first: Offset(first),
        last: Offset(last),
        gaps: vec![],
        count: last - first + 1,
        quarantined: 0,
        records_root: Digest([1; 32]),
        timestamp_min_ms: 0,
        timestamp_max_ms: 0,
        schema_fingerprint: definition().schemas[0].fingerprint(),
        segment: SegmentRef { path: "a/b".into(), size: 1, blake3: Digest([2; 32]) },
        previous,
    }
}

fn signed(seed: u8, sequence: u64, body: Body) -> Vec<u8> {
    let statement = Statement { signer: key(seed).identity(), sequence: Sequence(sequence), body };
    statement.sign(&key(seed), &genesis().tag()).unwrap()
}

/// The block at `height`, whose time is that many seconds.
fn at(height: u64) -> BlockTime {
    BlockTime { height: Height(height), timestamp_ms: height * 1000 }
}

/// A state with one stream and one anchor, offsets 0 to 99 of partition 0; returns the anchor's id too.
fn anchored() -> (State, Digest) {
    let mut state = State::genesis(&genesis());
    state.apply(&at(1), &signed(OWNER, 1, Body::RegisterStream(definition())), &StrictSignatures).unwrap();
    let first = signed(INGEST, 1, Body::Anchor(anchor(0, 99, Digest::ZERO)));
    let applied = state.apply(&at(2), &first, &StrictSignatures).unwrap();
    assert_eq!(applied.log_index, Some(LeafIndex(0)));
    (state, applied.id)
}

fn refused(state: &mut State, envelope: &[u8]) -> RefusalCode {
    let (root, log) = (state.root(), state.log_root());
    let code = state.apply(&at(3), envelope, &StrictSignatures).unwrap_err().code;
    assert_eq!((state.root(), state.log_root()), (root, log), "a refused statement changes nothing");
    code
}

#[test]
fn heads_follow_anchors() {
    let (mut state, id) = anchored();
    let next = signed(INGEST, 2, Body::Anchor(anchor(100, 149, id)));
    let applied = state.apply(&at(3), &next, &StrictSignatures).unwrap();
    let head = state.head("traffic.flow", Partition(0)).unwrap();
    let want = Head { next: Offset(150), anchor: applied.id, log_index: LeafIndex(1), records: 150, quarantined: 0 };
    assert_eq!(head, want);
    assert_eq!(state.head("traffic.flow", Partition(1)), Some(Head::default()));
    assert_eq!(state.head("traffic.flow", Partition(2)), None);
    assert_eq!(state.anchor(&id), Some(AnchorEntry { log_index: LeafIndex(0), height: Height(2) }));
    assert_eq!(state.log_size(), TreeSize(2));
}

#[test]
fn anchors_that_break_a_rule_are_refused() {
    let (mut state, id) = anchored();
    let body = |anchor| Body::Anchor(anchor);
    let gap = Gap { first: Offset(110), last: Offset(111) };
    let cases = [
        (signed(INGEST, 1, body(anchor(100, 149, id))), RefusalCode::Sequence),
        (signed(INGEST, 2, body(anchor(99, 149, id))), RefusalCode::Overlap),
        (signed(INGEST, 2, body(anchor(0, 99, Digest::ZERO))), RefusalCode::Overlap),
        (signed(INGEST, 2, body(anchor(101, 149, id))), RefusalCode::Gap),
        (signed(INGEST, 2, body(anchor(100, 149, Digest::ZERO))), RefusalCode::Previous),
        (signed(INGEST, 2, body(Anchor { gaps: vec![gap], count: 48, ..anchor(100, 149, id) })), RefusalCode::Gap),
        (signed(INGEST, 2, body(anchor(100, 1100, id))), RefusalCode::Limit),
        (signed(INGEST, 2, body(Anchor { partition: Partition(2), ..anchor(0, 9, Digest::ZERO) })), RefusalCode::Limit),
        (
            signed(INGEST, 2, body(Anchor { stream: "no.such".into(), ..anchor(0, 9, Digest::ZERO) })),
            RefusalCode::UnknownStream,
        ),
        (
            signed(INGEST, 2, body(Anchor { schema_fingerprint: Digest::ZERO, ..anchor(100, 149, id) })),
            RefusalCode::Malformed,
        ),
        (signed(OWNER, 2, body(anchor(100, 149, id))), RefusalCode::NotAllowed),
        (signed(STRANGER, 1, body(anchor(100, 149, id))), RefusalCode::UnknownIdentity),
        (b"nonsense".to_vec(), RefusalCode::Malformed),
    ];
    for (index, (envelope, want)) in cases.iter().enumerate() {
        assert_eq!(refused(&mut state, envelope), *want, "case {index}");
    }
    let statement =
        Statement { signer: key(INGEST).identity(), sequence: Sequence(2), body: body(anchor(100, 149, id)) };
    let forged = statement.sign(&key(STRANGER), &genesis().tag()).unwrap();
    assert_eq!(refused(&mut state, &forged), RefusalCode::Signature);
    let elsewhere = statement.sign(&key(INGEST), &ChainTag(Digest([9; 32]))).unwrap();
    assert_eq!(refused(&mut state, &elsewhere), RefusalCode::Signature);
}

#[test]
fn registrations_that_break_a_rule_are_refused() {
    let (mut state, _) = anchored();
    let chain = genesis().tag();
    let identity = |controller: u8| {
        Body::RegisterIdentity(RegisterIdentity::new(
            &key(STRANGER),
            IdentityKind::Device,
            "meter".into(),
            key(controller).identity(),
            &chain,
        ))
    };
    assert_eq!(refused(&mut state, &signed(INGEST, 5, identity(INGEST))), RefusalCode::NotAllowed);
    assert_eq!(refused(&mut state, &signed(OWNER, 5, identity(INGEST))), RefusalCode::Signature);
    assert_eq!(refused(&mut state, &signed(OWNER, 5, Body::RegisterStream(definition()))), RefusalCode::Duplicate);
    let renamed = StreamDefinition { name: "traffic.other".into(), ..definition() };
    assert_eq!(refused(&mut state, &signed(OWNER, 5, Body::RegisterStream(renamed))), RefusalCode::Duplicate);
    let unknown = StreamDefinition {
        name: "traffic.other".into(),
        topic: "other".into(),
        anchorers: vec![key(STRANGER).identity()],
        ..definition()
    };
    assert_eq!(refused(&mut state, &signed(OWNER, 5, Body::RegisterStream(unknown))), RefusalCode::UnknownIdentity);
    state.apply(&at(3), &signed(OWNER, 5, identity(OWNER)), &StrictSignatures).unwrap();
    assert_eq!(state.identity(&key(STRANGER).identity()).unwrap().controller, Some(key(OWNER).identity()));
    assert_eq!(refused(&mut state, &signed(OWNER, 6, identity(OWNER))), RefusalCode::Duplicate);
}

/// The next block, by the only validator there is, with these statements.
fn block_on(parent: &Header, state: &State, statements: Vec<Vec<u8>>) -> SignedBlock {
    let mut after = state.clone();
    let (height, timestamp_ms) = (parent.height.next(), parent.timestamp_ms + 1);
    for statement in &statements {
        after.apply(&BlockTime { height, timestamp_ms }, statement, &StrictSignatures).unwrap();
    }
    let epoch = epoch::epoch_of(height, state.parameters().epoch_blocks);
    let parent_view = if epoch == parent.epoch { parent.view } else { 0 };
    let round = Round { epoch, view: parent_view + 1, parent_view, proposer: parent.proposer };
    let envelopes = statements.iter().map(Vec::as_slice);
    let header = seal(parent, state, &mut after, &round, timestamp_ms, envelopes);
    SignedBlock { header: header.encode(), statements, certificate: None }
}

#[test]
fn a_block_is_checked_in_every_field() {
    let (parent, state) = (genesis().header(), State::genesis(&genesis()));
    let good = block_on(&parent, &state, vec![signed(OWNER, 1, Body::RegisterStream(definition()))]);
    let executed = execute(&parent, &state, &good, &StrictSignatures).unwrap();
    assert!(executed.state.stream("traffic.flow").is_some());
    let header = Header::decode(&good.header).unwrap();
    let changes: Vec<(&str, Header)> = vec![
        ("chain id", Header { chain_id: "other".into(), ..header.clone() }),
        ("height", Header { height: Height(2), ..header.clone() }),
        ("parent", Header { parent: Digest::ZERO, ..header.clone() }),
        ("epoch", Header { epoch: 1, ..header.clone() }),
        ("validators hash", Header { validators_hash: Digest::ZERO, ..header.clone() }),
        ("next validators hash", Header { next_validators_hash: Digest::ZERO, ..header.clone() }),
        ("timestamp", Header { timestamp_ms: parent.timestamp_ms, ..header.clone() }),
        ("view", Header { view: 0, ..header.clone() }),
        ("state root", Header { state_root: Digest::ZERO, ..header.clone() }),
        ("log root", Header { log_root: Digest::ZERO, ..header.clone() }),
        ("log size", Header { log_size: TreeSize(7), ..header.clone() }),
    ];
    for (want, header) in changes {
        let block = SignedBlock { header: header.encode(), ..good.clone() };
        match execute(&parent, &state, &block, &StrictSignatures) {
            Err(TransitionError::Header { field, .. }) => assert_eq!(field, want),
            other => panic!("expected field {want}, got {other:?}"),
        }
    }
    // A block that validators may not make so large, whatever it holds.
    for (want, parameters) in [
        ("statements count", Parameters { block_statements_max: 1, ..Parameters::default() }),
        ("statements bytes", Parameters { block_bytes_max: 65_535, ..Parameters::default() }),
    ] {
        let small = State { parameters, ..state.clone() };
        let statements = vec![vec![0; 40_000]; 2];
        let header =
            Header { statements_root: statements_root(statements.iter().map(Vec::as_slice)), ..header.clone() };
        let header = Header { statements_count: 2, ..header };
        let block = SignedBlock { header: header.encode(), statements, certificate: None };
        match execute(&parent, &small, &block, &StrictSignatures) {
            Err(TransitionError::Header { field, .. }) => assert_eq!(field, want),
            other => panic!("expected field {want}, got {other:?}"),
        }
    }
    let doubled = SignedBlock { statements: vec![good.statements[0].clone(); 2], ..good.clone() };
    assert!(matches!(execute(&parent, &state, &doubled, &StrictSignatures), Err(TransitionError::Block { .. })));
}

/// I8: replaying the same blocks gives the same root, whatever was executed on clones in between.
#[test]
fn replay_gives_the_same_root() {
    let run = |disturb: bool| {
        let (mut parent, mut state) = (genesis().header(), State::genesis(&genesis()));
        let mut previous = Digest::ZERO;
        for number in 0..50u64 {
            let statements = if number == 0 {
                vec![signed(OWNER, 1, Body::RegisterStream(definition()))]
            } else {
                vec![signed(INGEST, number, Body::Anchor(anchor((number - 1) * 10, number * 10 - 1, previous)))]
            };
            if disturb {
                let mut fork = state.clone();
                let _ = fork.apply(&at(9), &signed(OWNER, 99, Body::RegisterStream(definition())), &StrictSignatures);
            }
            let block = block_on(&parent, &state, statements);
            let executed = execute(&parent, &state, &block, &StrictSignatures).unwrap();
            if number > 0 {
                previous = executed.applied[0].id;
            }
            (parent, state) = (executed.header, executed.state);
        }
        (state.root(), state.log_root(), parent.digest())
    };
    assert_eq!(run(false), run(true));
}
