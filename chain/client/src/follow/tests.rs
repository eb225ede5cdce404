//! What followers take in: certificates across committees, ends of epochs, signatures checked ahead.

use super::*;
use cairn_chain_state::{BlockTime, Round, execute, seal};
use cairn_proof::certificate::forge;
use cairn_proof::committee::walk;
use cairn_proof::epoch::{epoch_of, leader};
use cairn_proof::genesis::{GENESIS_MARK, GenesisIdentity, GenesisValidator};
use cairn_proof::identity::{IdentityKind, SigningKey};
use cairn_proof::parameters::Parameters;
use cairn_proof::statement::{
    Anchor, BatchLimits, Body, Change, Format, LoggedAnchor, RegisterIdentity, RotateKey, SchemaVersion, SegmentRef,
    Signatures, Statement, StreamDefinition, Vote, log_entries, statement_id,
};
use cairn_proof::{Digest, Offset, Partition, Sequence};

/// Blocks of an epoch.
const EPOCH: u64 = 6;
const OWNER: u8 = 1;
/// The first validator's seed; the others follow.
const FIRST: u8 = 100;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// Key number `number` of many.
fn device(number: u32) -> SigningKey {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    SigningKey::from_seed(&seed)
}

fn genesis() -> Genesis {
    let validator = |seed: u8| GenesisValidator {
        name: format!("v{seed}"),
        public_key: key(seed).public(),
        address: format!("v{seed}:7000"),
    };
    Genesis {
        format: GENESIS_MARK.into(),
        chain_id: "test".into(),
        timestamp_ms: 1,
        validators: (FIRST..FIRST + 4).map(validator).collect(),
        identities: vec![GenesisIdentity {
            name: "owner".into(),
            kind: IdentityKind::Organisation,
            public_key: key(OWNER).public(),
        }],
        parameters: Parameters { epoch_blocks: EPOCH, ..Parameters::default() },
    }
}

/// Makes blocks.
struct Chain {
    genesis: Arc<Genesis>,
    header: Header,
    state: State,
    sequence: u64,
}

impl Chain {
    fn new() -> Self {
        let genesis = Arc::new(genesis());
        Self { header: genesis.header(), state: State::genesis(&genesis), genesis, sequence: 0 }
    }

    fn sign(&mut self, signer: &SigningKey, by: &SigningKey, body: Body) -> Vec<u8> {
        self.sequence += 1;
        let statement = Statement { signer: signer.identity(), sequence: Sequence(self.sequence), body };
        statement.sign(by, &self.genesis.tag()).unwrap()
    }

    fn register(&mut self, who: &SigningKey) -> Vec<u8> {
        let controller = key(OWNER).identity();
        let body = RegisterIdentity::new(who, IdentityKind::Device, "d".into(), controller, &self.genesis.tag());
        self.sign(&key(OWNER), &key(OWNER), Body::RegisterIdentity(body))
    }

    /// The next block without a certificate. Its statements are applied as far as they apply.
    fn block(&mut self, statements: Vec<Vec<u8>>) -> SignedBlock {
        let height = self.header.height.next();
        let timestamp_ms = self.header.timestamp_ms + 1;
        let mut after = self.state.clone();
        for statement in &statements {
            let _ = after.apply(&BlockTime { height, timestamp_ms }, statement, &StrictSignatures);
        }
        let epoch = epoch_of(height, EPOCH);
        let parent_view = if epoch == self.header.epoch { self.header.view } else { 0 };
        let view = parent_view + 1;
        let keys = self.state.committee().keys();
        let proposer = *keys[leader(epoch, view, keys.len())].as_bytes();
        let round = Round { epoch, view, parent_view, proposer };
        let envelopes = statements.iter().map(Vec::as_slice);
        let header = seal(&self.header, &self.state, &mut after, &round, timestamp_ms, envelopes);
        (self.header, self.state) = (header, after);
        SignedBlock { header: self.header.encode(), statements, certificate: None }
    }

    /// A certificate over the last block by these validators, all that there are.
    fn certificate(&self, seeds: impl IntoIterator<Item = u8>) -> Vec<u8> {
        let keys: Vec<_> = seeds.into_iter().map(key).collect();
        let all: Vec<usize> = (0..keys.len()).collect();
        forge::certificate(&self.header, &keys, &all, &self.genesis.tag())
    }

    fn certified(&mut self, statements: Vec<Vec<u8>>) -> SignedBlock {
        let block = self.block(statements);
        SignedBlock { certificate: Some(self.certificate(FIRST..FIRST + 4)), ..block }
    }
}

fn follower() -> Shared {
    let ledger = RwLock::new(Ledger::new(Arc::new(genesis())));
    Shared { ledger, status: Mutex::new(FollowerStatus::default()) }
}

fn refused(shared: &Shared, blocks: &[SignedBlock], why: &str) {
    let Err(reason) = take_in(shared, blocks) else { panic!("taken in, but expected: {why}") };
    assert!(reason.contains(why), "{reason}");
}

#[test]
fn blocks_wait_for_a_certified_descendant_of_their_epoch() {
    let (mut chain, shared) = (Chain::new(), follower());
    let blocks = vec![chain.certified(vec![]), chain.block(vec![])];
    let taken = take_in(&shared, &blocks).unwrap();
    assert_eq!((taken.height, taken.uncertified), (Height(1), true));
    // Height 2 again, and the descendant that proves it.
    let mut chain = Chain::new();
    chain.block(vec![]);
    let blocks = vec![chain.block(vec![]), chain.certified(vec![])];
    assert_eq!(take_in(&shared, &blocks).unwrap().height, Height(3));
    assert_eq!(shared.ledger.read().unwrap().blocks().len(), 4);
}

#[test]
fn the_last_block_of_an_epoch_needs_its_own_certificate() {
    let (mut chain, shared) = (Chain::new(), follower());
    let mut blocks: Vec<_> = (1..EPOCH - 1).map(|_| chain.certified(vec![])).collect();
    blocks.push(chain.block(vec![]));
    // At the head it may be about to come.
    let taken = take_in(&shared, &blocks).unwrap();
    assert_eq!((taken.height, taken.uncertified), (Height(EPOCH - 2), true));
    // A certified descendant does not stand in for it.
    blocks.push(chain.certified(vec![]));
    let blocks = blocks.split_off(blocks.len() - 2);
    refused(&shared, &blocks, "the last block of an epoch comes without a certificate");
    assert_eq!(shared.ledger.read().unwrap().height(), Height(EPOCH - 2));
}

#[test]
fn certificates_are_those_of_the_committee_in_the_state() {
    let (mut chain, shared) = (Chain::new(), follower());
    let change = Change::add(&key(FIRST + 4), "v".into(), "v:7000".into(), &chain.genesis.tag());
    let votes = (FIRST..FIRST + 3).map(|seed| {
        let body = Body::Vote(Vote { expires_epoch: 1, change: change.clone() });
        chain.sign(&key(seed), &key(seed), body)
    });
    let votes = votes.collect();
    let mut blocks = vec![chain.certified(votes)];
    blocks.extend((2..EPOCH).map(|_| chain.certified(vec![])));
    assert_eq!(take_in(&shared, &blocks).unwrap().height, Height(EPOCH - 1));
    let next = chain.certified(vec![]);
    refused(&shared, std::slice::from_ref(&next), "4 validators, the set has 5");
    let next = SignedBlock { certificate: Some(chain.certificate(FIRST..FIRST + 5)), ..next };
    take_in(&shared, &[next]).unwrap();

    let ledger = shared.ledger.read().unwrap();
    let changes: Vec<_> = ledger.committee_changes().iter().map(|change| (**change).clone()).collect();
    let trusted = walk(ledger.genesis(), &changes).unwrap();
    assert_eq!((&trusted.committee, trusted.first_epoch), (&**ledger.state().committee(), 1));
    assert_eq!(trusted.committee.len(), 5);
    assert_eq!((ledger.committee_changes_before(0).len(), ledger.committee_changes_before(1).len()), (0, 1));
    assert!(ledger.identities().contains_key(&key(FIRST + 4).identity()), "a new validator is an identity");
    assert_eq!((ledger.validators().len(), ledger.proposals().len()), (5, 1));
}

#[test]
fn a_forged_certificate_is_refused() {
    let (mut chain, shared) = (Chain::new(), follower());
    let block = chain.block(vec![]);
    let stranger = chain.certificate(FIRST + 50..FIRST + 54);
    refused(&shared, &[SignedBlock { certificate: Some(stranger), ..block }], "does not verify");
    assert_eq!(shared.ledger.read().unwrap().height(), Height(0));
}

/// Enough statements that they are prepared on several threads, if there are several processors.
#[test]
fn signatures_checked_ahead_decide_as_those_checked_in_turn() {
    const MANY: u32 = 300;
    let (mut chain, shared) = (Chain::new(), follower());
    let statements: Vec<_> = (0..MANY).map(|number| chain.register(&device(number))).collect();
    let mut blocks: Vec<_> = statements.chunks(100).map(|some| chain.certified(some.to_vec())).collect();
    // Keys that came, and keys that changed, within what is fetched at once.
    let rotate = |chain: &mut Chain, by: &SigningKey, to: u32| {
        let body = RotateKey::new(device(7).identity(), &device(to), &chain.genesis.tag());
        chain.sign(&device(7), by, Body::RotateKey(body))
    };
    let rotations = vec![rotate(&mut chain, &device(7), 1000), rotate(&mut chain, &device(1000), 1001)];
    blocks.push(chain.certified(rotations));
    let reached = take_in(&shared, &blocks).unwrap().height;
    assert_eq!(reached, Height(4));
    {
        let ledger = shared.ledger.read().unwrap();
        assert_eq!(ledger.state().root(), chain.state.root());
        assert_eq!(ledger.identities()[&device(7).identity()].public_key, device(1001).public());
    }
    // The old key after its rotation, and one wrong signature among many: refused as in turn.
    let old = rotate(&mut chain, &device(7), 1002);
    let mut many: Vec<_> = (MANY..2 * MANY).map(|number| chain.register(&device(number))).collect();
    for (place, wrong) in [(0, old), (150, forged(&many[150]))] {
        let (header, state) = (chain.header.clone(), chain.state.clone());
        let right = std::mem::replace(&mut many[place], wrong);
        let block = chain.certified(many.clone());
        let in_turn = execute(&header, &state, &block, &StrictSignatures).unwrap_err().to_string();
        assert!(in_turn.contains(&format!("statement {place}: refused (signature)")), "{in_turn}");
        refused(&shared, &[block], &in_turn);
        (chain.header, chain.state, many[place]) = (header, state, right);
    }
}

/// Anchors that come in one statement are found by partition, offset and log index like any others, and prove who signed.
#[test]
fn anchors_out_of_one_statement_are_indexed_one_by_one() {
    let (mut chain, shared) = (Chain::new(), follower());
    let definition = StreamDefinition {
        name: "traffic.flow".into(),
        topic: "flow".into(),
        partitions: 3,
        format: Format::Json,
        schemas: vec![SchemaVersion { id: 1, text: "{}".into() }],
        key_fields: vec![],
        event_time: None,
        limits: BatchLimits::default(),
        gaps_allowed: false,
        anchorers: vec![key(OWNER).identity()],
        signatures: Signatures::default(),
    };
    let fingerprint = definition.schemas[0].fingerprint();
    let anchor = |partition: u32, first: u64, previous| Anchor {
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
        schema_fingerprint: fingerprint,
        segment: SegmentRef { path: "a/b".into(), size: 1, blake3: Digest([2; 32]) },
        previous,
    };
    let owner = key(OWNER);
    let register = chain.sign(&owner, &owner, Body::RegisterStream(definition));
    let first = chain.sign(&owner, &owner, Body::Anchor(anchor(1, 0, Digest::ZERO)));
    let previous = statement_id(&first);
    let next = vec![anchor(0, 0, Digest::ZERO), anchor(1, 10, previous), anchor(2, 0, Digest::ZERO)];
    let several = chain.sign(&owner, &owner, Body::Anchors(next));
    let blocks = vec![chain.certified(vec![register, first.clone()]), chain.certified(vec![several.clone()])];
    take_in(&shared, &blocks).unwrap();

    let ledger = shared.ledger.read().unwrap();
    let all = ledger.all_anchors();
    let places: Vec<_> = all.iter().map(|entry| (entry.log_index.0, entry.place.map(|place| place.0))).collect();
    assert_eq!(places, [(0, None), (1, Some(0)), (2, Some(1)), (3, Some(2))]);
    assert_eq!((all[0].log_entry(), all[0].statement_id()), (first, all[0].id));
    for (entry, want) in all[1..].iter().zip(log_entries(&several)) {
        assert_eq!((entry.id, entry.statement_id()), (statement_id(&want), statement_id(&several)));
        let logged = LoggedAnchor::decode(&entry.log_entry()).unwrap();
        logged.verify(&owner.public(), &chain.genesis.tag()).unwrap();
        assert_eq!((logged.anchor(), logged.signer()), (&entry.anchor, entry.signer));
        let head = ledger.state().head("traffic.flow", entry.anchor.partition).unwrap();
        assert_eq!((head.anchor, head.log_index, head.next), (entry.id, entry.log_index, entry.anchor.last.next()));
    }
    let found = ledger.anchor_of("traffic.flow", Partition(1), Offset(12)).unwrap();
    assert_eq!((found.anchor.previous, found.id), (previous, all[2].id));
    assert_eq!(ledger.anchors("traffic.flow", Height(2)).len(), 4);
}

/// The same statement with one bit of its signature flipped, the last bytes of an envelope.
fn forged(envelope: &[u8]) -> Vec<u8> {
    let mut bytes = envelope.to_vec();
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
    bytes
}
