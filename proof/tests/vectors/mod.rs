//! The golden chain: everything in the golden files, made from fixed seeds by the public API.
//!
//! ```text
//! genesis "golden-city": validators of seeds 1 to 4; owner of seed 8, ingest of seed 9
//! block 1: the owner registers a device (seed 10) and the stream traffic.flow; ingest anchors five records
//! ```
//!
//! The statements of every other kind are made for this chain, but stand in no block of it.
//!
//! It is a chain that the rules allow, so that a follower in another language can replay it. Five records at offsets
//! 100 to 104 of partition 1; what Kafka no longer holds, 0 to 99, is a declared gap.

pub(crate) mod signed_record;
pub(crate) mod state;

use cairn_proof::answer::file::{ANSWER_EVIDENCE_MARK, AnswerEvidence};
use cairn_proof::answer::rows::RowsHasher;
use cairn_proof::answer::{Answer, AnswerColumn, AnswerSegment, Parameter};
use cairn_proof::block::{SignedBlock, encode_blocks, statements_root};
use cairn_proof::cbor::Writer;
use cairn_proof::certificate::forge;
use cairn_proof::checkpoint::Checkpoint;
use cairn_proof::evidence::{self, Equivocation, Message};
use cairn_proof::genesis::{GENESIS_MARK, Genesis, GenesisIdentity, GenesisValidator};
use cairn_proof::header::Header;
use cairn_proof::identity::{IdentityId, IdentityKind, SigningKey};
use cairn_proof::login::Login;
use cairn_proof::note::{Algorithm, Note, VerifierKey};
use cairn_proof::parameters::Parameters;
use cairn_proof::receipt::Base64Bytes;
use cairn_proof::record::{BatchSecret, OwnedRecord};
use cairn_proof::state_proof::{StateProof, Subject};
use cairn_proof::statement::{
    Anchor, Attest, BatchLimits, Body, Change, Format, Gap, RegisterIdentity, RevokeIdentity, Role, RotateKey,
    SchemaVersion, SegmentRef, SetExpiry, SetRole, Signatures, Statement, StreamDefinition, TransferStream,
    UpdateStream, Vote, log_entry, statement_id,
};
use cairn_proof::tlog_proof::{Extra, TlogProof};
use cairn_proof::tree;
use cairn_proof::writer_schemas::WriterSchemas;
use cairn_proof::{Digest, Height, LeafIndex, Offset, Partition, Sequence, TreeSize};

pub(crate) const OWNER: u8 = 8;
pub(crate) const INGEST: u8 = 9;
pub(crate) const DEVICE: u8 = 10;
/// The device's key after a rotation.
pub(crate) const ROTATED: u8 = 11;
/// A witness of the log.
pub(crate) const WITNESS: u8 = 20;
/// A validator that is voted in.
pub(crate) const CANDIDATE: u8 = 5;
/// The record whose path is shown.
pub(crate) const SHOWN: u64 = 3;
pub(crate) const SECRET: BatchSecret = BatchSecret([5; 32]);
/// Who signs block 1: places among the validators' keys in ascending order.
pub(crate) const SIGNERS: [usize; 3] = [0, 1, 3];

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// Two schemas of writers, as a registry gave them.
fn writer_schemas() -> WriterSchemas {
    let mut schemas = WriterSchemas::new();
    for (id, name) in [(70_000, "b"), (3, "a")] {
        let text = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"{name}","type":"long"}}]}}"#);
        assert!(schemas.insert(id, &text.into()), "there is room for two");
    }
    schemas
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
        chain_id: "golden-city".into(),
        timestamp_ms: 1_700_000_000_000,
        validators: (1..=4).map(validator).collect(),
        identities: vec![
            identity("city", IdentityKind::Organisation, OWNER),
            identity("ingest", IdentityKind::Node, INGEST),
        ],
        parameters: Parameters::default(),
    }
}

/// The device's login token.
pub(crate) fn login() -> String {
    let login = Login {
        identity: key(DEVICE).identity(),
        audience: "cairn-query".into(),
        issued_s: 1_700_000_000,
        expires_s: 1_700_003_600,
    };
    login.sign(&key(DEVICE), &genesis().tag()).unwrap()
}

pub(crate) fn record(index: u64) -> OwnedRecord {
    OwnedRecord {
        topic: "traffic.flow".into(),
        partition: Partition(1),
        offset: Offset(100 + index),
        timestamp_ms: 1_700_000_000_000 + i64::try_from(index).unwrap(),
        key: Some(b"section-7".to_vec()),
        value: Some(format!("{{\"speed_kmh\":{index}}}").into_bytes()),
        headers: vec![("source".into(), Some(b"detector".to_vec())), ("empty".into(), None)],
        salt: SECRET.salt(LeafIndex(index)),
    }
}

/// A record of which everything is missing that may be: a tombstone without a key and without a timestamp.
pub(crate) fn bare_record() -> OwnedRecord {
    OwnedRecord {
        timestamp_ms: -1,
        key: None,
        value: None,
        headers: vec![],
        salt: SECRET.salt(LeafIndex(0)),
        ..record(0)
    }
}

pub(crate) fn leaves() -> Vec<Digest> {
    (0..5).map(|index| tree::leaf_hash(&record(index).encode())).collect()
}

pub(crate) fn register_identity() -> RegisterIdentity {
    let controller = key(OWNER).identity();
    let body =
        RegisterIdentity::new(&key(DEVICE), IdentityKind::Device, "detector 7".into(), controller, &genesis().tag());
    RegisterIdentity { expires_ms: Some(1_900_000_000_000), ..body }
}

pub(crate) fn stream() -> StreamDefinition {
    let schema = r#"{"type":"record","name":"Flow","fields":[{"name":"speed_kmh","type":"int"}]}"#;
    StreamDefinition {
        name: "traffic.flow".into(),
        topic: "traffic.flow".into(),
        partitions: 2,
        format: Format::Json,
        schemas: vec![SchemaVersion { id: 1, text: schema.into() }],
        key_fields: vec![],
        event_time: None,
        limits: BatchLimits::default(),
        gaps_allowed: true,
        anchorers: vec![key(INGEST).identity()],
        signatures: Signatures::default(),
    }
}

pub(crate) fn anchor() -> Anchor {
    let blake3 = Digest([3; 32]);
    Anchor {
        stream: stream().name,
        partition: Partition(1),
        first: Offset(0),
        last: Offset(104),
        gaps: vec![Gap { first: Offset(0), last: Offset(99) }],
        count: 5,
        quarantined: 1,
        records_root: tree::root(&leaves()),
        timestamp_min_ms: 1_700_000_000_000,
        timestamp_max_ms: 1_700_000_000_004,
        schema_fingerprint: stream().schemas[0].fingerprint(),
        segment: SegmentRef { path: format!("segments/traffic.flow/1/{:020}-{blake3}.parquet", 0), size: 4096, blake3 },
        previous: Digest::ZERO,
    }
}

/// The next batches of both partitions, which ingest anchors in one statement.
pub(crate) fn anchors() -> Vec<Anchor> {
    let next = |partition, first, last, previous| Anchor {
        partition: Partition(partition),
        first: Offset(first),
        last: Offset(last),
        gaps: vec![],
        count: last - first + 1,
        quarantined: 0,
        segment: SegmentRef { path: format!("segments/traffic.flow/{partition}/b.parquet"), ..anchor().segment },
        previous,
        ..anchor()
    };
    vec![next(0, 0, 1, Digest::ZERO), next(1, 105, 105, statement_id(&statements()[2]))]
}

fn anchors_statement() -> Vec<u8> {
    signed(INGEST, 2, Body::Anchors(anchors()))
}

/// The entry in the log of the second of them.
pub(crate) fn anchors_entry() -> Vec<u8> {
    log_entry(&anchors_statement(), LeafIndex(1)).unwrap().into_owned()
}

fn signed(seed: u8, sequence: u64, body: Body) -> Vec<u8> {
    let statement = Statement { signer: key(seed).identity(), sequence: Sequence(sequence), body };
    statement.sign(&key(seed), &genesis().tag()).unwrap()
}

/// The statements that stand in no block, by the names of their files and the seeds of their signers.
pub(crate) fn other_statements() -> Vec<(&'static str, u8, Vec<u8>)> {
    let (chain, device) = (genesis().tag(), key(DEVICE).identity());
    let rotate = RotateKey::new(device, &key(ROTATED), &chain);
    let revoke = RevokeIdentity { identity: device, reason: "stolen".into() };
    let expiry = SetExpiry { identity: device, expires_ms: Some(1_800_000_000_000) };
    let role = SetRole { stream: stream().name, identity: device, role: Role::Publisher, granted: true };
    let transfer = TransferStream { stream: stream().name, owner: key(INGEST).identity() };
    let text = r#"{"type":"record","name":"Flow","fields":[{"name":"speed","type":"double"},{"name":"lane","type":["null","int"]}]}"#;
    let schema = SchemaVersion { id: 8, text: text.into() };
    let update = UpdateStream { stream: stream().name, format: stream().format, versions: 1, schema };
    let attest = Attest { header: header().encode(), certificate: certificate() };
    let stream_signed = StreamDefinition { signatures: Signatures::Required, ..stream() };
    vec![
        ("register-stream-signed", OWNER, signed(OWNER, 3, Body::RegisterStream(stream_signed))),
        ("rotate-key", DEVICE, signed(DEVICE, 1, Body::RotateKey(rotate))),
        ("revoke-identity", OWNER, signed(OWNER, 3, Body::RevokeIdentity(revoke))),
        ("set-expiry", OWNER, signed(OWNER, 3, Body::SetExpiry(expiry))),
        ("set-role", OWNER, signed(OWNER, 3, Body::SetRole(role))),
        ("transfer-stream", OWNER, signed(OWNER, 3, Body::TransferStream(transfer))),
        ("update-stream", OWNER, signed(OWNER, 3, Body::UpdateStream(update))),
        ("vote-add", 1, signed(1, 1, Body::Vote(vote()))),
        ("vote-parameters", 1, signed(1, 1, Body::Vote(vote_on_parameters()))),
        ("attest", 1, signed(1, 1, Body::Attest(attest))),
        ("evidence", INGEST, signed(INGEST, 2, Body::Evidence(Box::new(equivocation())))),
        ("anchors", INGEST, anchors_statement()),
    ]
}

pub(crate) fn vote() -> Vote {
    let candidate = key(CANDIDATE);
    let address = "validator-5:26600".to_owned();
    Vote { expires_epoch: 3, change: Change::add(&candidate, "validator-5".into(), address, &genesis().tag()) }
}

fn vote_on_parameters() -> Vote {
    let parameters = Parameters { heartbeat_ms: 1000, ..Parameters::default() };
    Vote { expires_epoch: 3, change: Change::SetParameters(parameters) }
}

/// CBOR of which the id of the proposal in `vote-add` is the hash.
pub(crate) fn proposal() -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.array(3);
    writer.text("cairn/proposal/v1");
    writer.unsigned(vote().expires_epoch);
    vote().change.write(&mut writer);
    out
}

/// Validator 4 gave view 300 up, and finalized a block in it.
pub(crate) fn equivocation() -> Equivocation {
    let (liar, chain) = (key(4), genesis().tag());
    let finalize = Message::Finalize { parent_view: 0, payload: Digest([6; 32]) };
    let message = |message| evidence::forge::message(&liar, 0, 300, message, &chain);
    Equivocation::new(liar.public(), 0, 300, message(finalize), message(Message::Nullify))
}

/// The log after block 1 as a note, signed by three validators, each as the log and as a cosigner, and by a witness.
pub(crate) fn checkpoint() -> Note {
    let (checkpoint, seconds) = (Checkpoint::of(&header()), 1_700_000_100);
    let mut lines: Vec<_> = (1..=3).flat_map(|seed| checkpoint.sign(&key(seed), seconds).unwrap()).collect();
    let witness = VerifierKey::new("witness.example/w1", Algorithm::CosignatureV1, key(WITNESS).public()).unwrap();
    lines.push(witness.sign(&key(WITNESS), &checkpoint.text(), seconds).unwrap());
    Note::new(&checkpoint.text(), lines).unwrap()
}

/// That the anchor stands in that log.
pub(crate) fn tlog_proof() -> TlogProof {
    let extra = Extra { anchor: statements()[2].clone(), committees: vec![] };
    TlogProof { extra: Some(extra.encode()), index: LeafIndex(0), path: vec![], checkpoint: checkpoint() }
}

/// What the state says after block 1: a stream that is there, and one that is not.
pub(crate) fn state_proofs() -> [(&'static str, StateProof); 2] {
    let proof = |name: &str| {
        let subject = Subject::Stream { name: name.into() };
        let parts = state::prove(&state::entries(), &subject.key().0);
        StateProof::new(subject, parts, vec![], header().encode(), certificate())
    };
    [("state-proof-present.json", proof("traffic.flow")), ("state-proof-absent.json", proof("traffic.jam"))]
}

/// The envelopes of block 1, in order.
pub(crate) fn statements() -> [Vec<u8>; 3] {
    [
        signed(OWNER, 1, Body::RegisterIdentity(register_identity())),
        signed(OWNER, 2, Body::RegisterStream(stream())),
        signed(INGEST, 1, Body::Anchor(anchor())),
    ]
}

pub(crate) fn header() -> Header {
    let genesis = genesis();
    let statements = statements();
    let log_root = tree::root(&[tree::leaf_hash(&statements[2])]);
    Header {
        view: 301,
        parent_view: 0,
        proposer: *key(1).public().as_bytes(),
        height: Height(1),
        timestamp_ms: 1_700_000_001_000,
        parent: genesis.header().digest(),
        statements_root: statements_root(statements.iter().map(Vec::as_slice)),
        statements_count: 3,
        state_root: state::root(&state::entries()),
        log_root,
        log_size: TreeSize(1),
        ..genesis.header()
    }
}

/// The canonical bytes of the two rows of the answer: a section and the mean of its speeds.
pub(crate) fn answer_rows() -> [Vec<u8>; 2] {
    let row = |section: &str, speed: Option<f64>| {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.array(2);
        writer.text(section);
        writer.bytes_or_null(speed.map(cairn_proof::answer::rows::float_bytes).as_ref().map(<[u8; 8]>::as_slice));
        out
    };
    [row("section-7", Some(2.0)), row("section-8", None)]
}

/// What a query node, which has the identity of ingest, says about an answer at block 1.
pub(crate) fn answer() -> Answer {
    let mut hasher = RowsHasher::new(true);
    answer_rows().iter().for_each(|row| hasher.row(row));
    let hash = hasher.finish();
    let segment = anchor().segment;
    let (path, blake3, size, bytes_verified) = (segment.path, segment.blake3, segment.size, segment.size);
    let column = |name: &str, kind: &str| AnswerColumn { name: name.into(), kind: kind.into() };
    Answer {
        node: key(INGEST).identity(),
        statement:
            "SELECT section, avg(speed_kmh) AS speed FROM traffic.flow WHERE speed_kmh < $1 GROUP BY 1 ORDER BY 1"
                .into(),
        parameters: vec![Parameter { kind: "int64".into(), text: Some("50".into()) }],
        settings: [("cairn.on_unverified", "refuse"), ("search_path", "public"), ("timezone", "UTC")]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec(),
        height: Height(1),
        block: header().digest(),
        state_root: header().state_root,
        segments: vec![AnswerSegment { path, blake3, size, bytes_verified }],
        left_out: 0,
        flagged: 0,
        columns: vec![column("section", "text"), column("speed", "float64")],
        rows: hash.rows.0,
        rows_root: hash.rows_root,
        ordered_root: hash.ordered_root,
        engine: "cairn 0.1.0, datafusion 55.2.0".into(),
        made_ms: 1_700_000_002_000,
    }
}

pub(crate) fn signed_answer() -> Vec<u8> {
    answer().sign(&key(INGEST), &genesis().tag()).unwrap()
}

/// The file that proves it.
pub(crate) fn answer_evidence() -> AnswerEvidence {
    AnswerEvidence {
        format: ANSWER_EVIDENCE_MARK.into(),
        answer: Base64Bytes(signed_answer()),
        signer: key(INGEST).public(),
        committees: vec![],
        headers: vec![Base64Bytes(header().encode())],
        certificate: Base64Bytes(certificate()),
    }
}

pub(crate) fn certificate() -> Vec<u8> {
    let keys: Vec<_> = (1..=4).map(key).collect();
    forge::certificate(&header(), &keys, &SIGNERS, &genesis().tag())
}

pub(crate) fn block() -> SignedBlock {
    SignedBlock { header: header().encode(), statements: statements().to_vec(), certificate: Some(certificate()) }
}

/// Height 0 as it travels: nobody signed it.
pub(crate) fn first_block() -> SignedBlock {
    SignedBlock { header: genesis().header().encode(), statements: vec![], certificate: None }
}

/// CBOR `["cairn/validators/v1", [key…]]`, keys ascending: what the validators hash is over.
pub(crate) fn validators() -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.array(2);
    writer.text("cairn/validators/v1");
    let keys = genesis().validator_keys();
    writer.array(keys.len());
    for key in &keys {
        writer.bytes(key.as_bytes());
    }
    out
}

/// What the device signs to show that it holds its key.
pub(crate) fn possession_message() -> Vec<u8> {
    let (chain, controller) = (genesis().tag(), key(OWNER).identity());
    [b"cairn/possession/v1", chain.0.as_ref(), controller.0.as_ref(), key(DEVICE).public().as_bytes()].concat()
}

/// The `Sig_structure` of the anchor (RFC 9052, section 4.4), cut out of its envelope and written out.
pub(crate) fn anchor_sig_structure() -> Vec<u8> {
    let envelope = statements()[2].clone();
    let mut reader = cairn_proof::cbor::Reader::new(&envelope[1..]);
    reader.array_of(4).unwrap();
    let protected = reader.bytes().unwrap();
    reader.map_of(0).unwrap();
    let payload = reader.bytes().unwrap();
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.array(4);
    writer.text("Signature1");
    writer.bytes(protected);
    writer.bytes(genesis().tag().0.as_ref());
    writer.bytes(payload);
    out
}

/// What validators sign to make block 1 final.
pub(crate) fn certificate_signed_bytes() -> Vec<u8> {
    let (header, tag) = (header(), genesis().tag());
    let domain = [b"cairn/consensus/v1/", tag.0.as_ref(), b"_FINALIZE"].concat();
    let mut out = Vec::new();
    super::bodies::varint(domain.len() as u64, &mut out);
    out.extend_from_slice(&domain);
    for number in [header.epoch, header.view, header.parent_view] {
        super::bodies::varint(number, &mut out);
    }
    out.extend_from_slice(header.digest().as_ref());
    out
}

/// Every form whose bytes are kept, by the name of its file.
pub(crate) fn forms() -> Vec<(&'static str, Vec<u8>)> {
    let [register_identity, register_stream, anchor] = statements();
    vec![
        ("record", record(SHOWN).encode()),
        ("record-bare", bare_record().encode()),
        ("genesis", genesis().encode()),
        ("validators", validators()),
        ("possession", possession_message()),
        ("register-identity", register_identity),
        ("register-stream", register_stream),
        ("anchor", anchor),
        ("anchor-sig-structure", anchor_sig_structure()),
        ("header-0", genesis().header().encode()),
        ("header", header().encode()),
        ("certificate", certificate()),
        ("certificate-signed-bytes", certificate_signed_bytes()),
        ("block", block().encode()),
        ("blocks", encode_blocks(&[first_block(), block()])),
        ("proposal", proposal()),
        ("answer-row", answer_rows()[0].clone()),
        ("answer", signed_answer()),
        ("anchors-entry", anchors_entry()),
    ]
    .into_iter()
    .chain(signed_record::forms())
    .chain([("writer-schemas", writer_schemas().encode())])
    .chain(other_statements().into_iter().map(|(name, _, envelope)| (name, envelope)))
    .collect()
}

/// Values that follow from the forms: `name value` lines, in hexadecimal.
pub(crate) fn digests() -> String {
    let [register_identity, register_stream, anchor] = statements();
    let named = |name: &str, id: IdentityId| (format!("identity of {name}"), hex::encode(id.0));
    let mut lines = vec![
        ("chain tag".to_owned(), hex::encode(genesis().tag().0)),
        ("validators hash".to_owned(), hex::encode(genesis().committee().hash())),
        named("city", key(OWNER).identity()),
        named("ingest", key(INGEST).identity()),
        named("device", key(DEVICE).identity()),
        ("batch secret".to_owned(), hex::encode(SECRET.0)),
    ];
    for (index, leaf) in leaves().iter().enumerate() {
        lines.push((format!("salt {index}"), hex::encode(record(index as u64).salt)));
        lines.push((format!("leaf {index}"), leaf.to_string()));
    }
    lines.push(("records root".to_owned(), tree::root(&leaves()).to_string()));
    let path = tree::inclusion_path(&leaves(), LeafIndex(SHOWN)).unwrap();
    lines.extend(
        path.iter().enumerate().map(|(step, hash)| (format!("path of leaf {SHOWN}, {step}"), hash.to_string())),
    );
    for (name, envelope) in
        [("register-identity", register_identity), ("register-stream", register_stream), ("anchor", anchor)]
    {
        lines.push((format!("id of {name}"), statement_id(&envelope).to_string()));
    }
    let header = header();
    lines.extend([
        ("statements root".to_owned(), header.statements_root.to_string()),
        ("state root of genesis".to_owned(), state::root(&state::genesis_entries()).to_string()),
        ("state root".to_owned(), header.state_root.to_string()),
        ("log root".to_owned(), header.log_root.to_string()),
        ("digest of header-0".to_owned(), genesis().header().digest().to_string()),
        ("digest of header".to_owned(), header.digest().to_string()),
        ("proposal id".to_owned(), vote().proposal_id().to_string()),
        ("did of device".to_owned(), key(DEVICE).public().did()),
    ]);
    lines.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}
