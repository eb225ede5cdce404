//! A chain of one validator in this process, behind the HTTP API of a node: for the tests of this crate.
//!
//! Each accepted statement becomes a block at once. Blocks, states and certificates are real: the follower verifies them
//! as it would any others. The tests can make it refuse to answer, and keep an answer to itself.

use crate::metrics::Metrics;
use crate::pipeline::Anchorer;
use crate::seal::tests::stream;
use crate::secrets::SecretStore;
use crate::store::SegmentStore;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cairn_chain_client::{
    CertifiedHeader, Client, Follower, FollowerConfig, HeadInfo, LogProof, StatementStatus, Submitter,
};
use cairn_chain_state::{BlockTime, Refusal, Round, StrictSignatures, seal};
use cairn_proof::block::{SignedBlock, encode_blocks};
use cairn_proof::certificate::forge;
use cairn_proof::checkpoint::Checkpoint;
use cairn_proof::epoch::epoch_of;
use cairn_proof::genesis::{GENESIS_MARK, Genesis, GenesisIdentity, GenesisValidator};
use cairn_proof::header::Header;
use cairn_proof::identity::{IdentityId, IdentityKind, SigningKey};
use cairn_proof::note::Note;
use cairn_proof::receipt::Base64Bytes;
use cairn_proof::statement::{Body, Statement, StreamDefinition, statement_id};
use cairn_proof::{Digest, Height, LeafIndex, Partition, Sequence, TreeSize, tree};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

struct Chain {
    state: cairn_chain_state::State,
    header: Header,
    blocks: Vec<SignedBlock>,
    statuses: HashMap<Digest, StatementStatus>,
    log: Vec<Digest>,
}

/// The node, and what the tests do to it.
pub(crate) struct FakeNode {
    pub(crate) genesis: Arc<Genesis>,
    validator: SigningKey,
    owner: SigningKey,
    chain: Mutex<Chain>,
    checkpoint: Mutex<Option<String>>,
    /// Answers 503 to everything.
    pub(crate) down: AtomicBool,
    /// So many submissions are taken in, and answered by 503 all the same; their status stays unknown.
    pub(crate) swallow: AtomicUsize,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

impl FakeNode {
    fn new() -> Self {
        let (validator, owner) = (key(1), key(2));
        let identity =
            |name: &str, kind, seed| GenesisIdentity { name: name.into(), kind, public_key: key(seed).public() };
        let genesis = Genesis {
            format: GENESIS_MARK.into(),
            chain_id: "test".into(),
            timestamp_ms: 1_700_000_000_000,
            validators: vec![GenesisValidator {
                name: "one".into(),
                public_key: validator.public(),
                address: "one:7000".into(),
            }],
            identities: vec![
                identity("owner", IdentityKind::Organisation, 2),
                identity("anchorer a", IdentityKind::Node, 3),
                identity("anchorer b", IdentityKind::Node, 4),
            ],
            parameters: cairn_proof::parameters::Parameters::default(),
        };
        let chain = Chain {
            state: cairn_chain_state::State::genesis(&genesis),
            header: genesis.header(),
            blocks: vec![],
            statuses: HashMap::new(),
            log: vec![],
        };
        let (down, swallow) = (AtomicBool::new(false), AtomicUsize::new(0));
        let checkpoint = Mutex::new(None);
        Self { genesis: Arc::new(genesis), validator, owner, chain: Mutex::new(chain), checkpoint, down, swallow }
    }

    /// Signs the log's checkpoint as it is now, for `signer` in place of the validator.
    pub(crate) fn sign_checkpoint(&self, signer: &SigningKey) {
        let checkpoint = Checkpoint::of(&self.chain.lock().unwrap().header);
        let lines = checkpoint.sign(signer, 1_700_000_000).unwrap();
        let note = Note::new(&checkpoint.text(), lines.into()).unwrap();
        *self.checkpoint.lock().unwrap() = Some(note.to_text());
    }

    /// Says something as the owner.
    pub(crate) fn say(&self, body: Body) -> Result<(), Refusal> {
        let signer = self.owner.identity();
        let sequence = self.chain.lock().unwrap().state.sequence(&signer).next();
        let envelope = Statement { signer, sequence, body }.sign(&self.owner, &self.genesis.tag()).unwrap();
        self.apply(&envelope)
    }

    fn apply(&self, envelope: &[u8]) -> Result<(), Refusal> {
        let mut chain = self.chain.lock().unwrap();
        let id = statement_id(envelope);
        if chain.statuses.contains_key(&id) {
            return Ok(());
        }
        let before = chain.state.clone();
        let (height, timestamp_ms) = (chain.header.height.next(), chain.header.timestamp_ms + 1000);
        let applied = chain.state.apply(&BlockTime { height, timestamp_ms }, envelope, &StrictSignatures)?;
        chain.log.extend(applied.entries.iter().map(|entry| entry.leaf));
        let round = Round {
            epoch: epoch_of(height, self.genesis.parameters.epoch_blocks),
            view: chain.header.view + 1,
            parent_view: chain.header.view,
            proposer: chain.header.proposer,
        };
        let parent = chain.header.clone();
        let header = seal(&parent, &before, &mut chain.state, &round, timestamp_ms, [envelope].into_iter());
        let certificate = forge::certificate(&header, std::slice::from_ref(&self.validator), &[0], &self.genesis.tag());
        let block = SignedBlock {
            header: header.encode(),
            statements: vec![envelope.to_vec()],
            certificate: Some(certificate),
        };
        chain.blocks.push(block);
        chain.header = header;
        let log_index = applied.log_index;
        chain.statuses.insert(id, StatementStatus::Finalized { height, log_index });
        Ok(())
    }
}

fn problem(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(serde_json::json!({ "code": code, "message": message }))).into_response()
}

type Node = State<Arc<FakeNode>>;

async fn submit(State(node): Node, body: Bytes) -> Response {
    if let Err(refusal) = node.apply(&body) {
        return problem(StatusCode::BAD_REQUEST, refusal.code.name(), &refusal.message);
    }
    let id = statement_id(&body);
    if node.swallow.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
        node.chain.lock().unwrap().statuses.insert(id, StatementStatus::Unknown);
        return problem(StatusCode::SERVICE_UNAVAILABLE, "", "the answer is lost");
    }
    (StatusCode::ACCEPTED, Json(serde_json::json!({ "id": id }))).into_response()
}

async fn status_of_statement(State(node): Node, Path(id): Path<Digest>) -> Response {
    let status = node.chain.lock().unwrap().statuses.get(&id).cloned();
    Json(status.unwrap_or(StatementStatus::Unknown)).into_response()
}

async fn head(State(node): Node, Path((stream, partition)): Path<(String, u32)>) -> Response {
    match node.chain.lock().unwrap().state.head(&stream, Partition(partition)) {
        Some(head) => {
            let (next, anchor, log_index) = (head.next, head.anchor, head.log_index);
            Json(HeadInfo { next, anchor, log_index }).into_response()
        }
        None => problem(StatusCode::NOT_FOUND, "", "no such partition"),
    }
}

async fn identity(State(node): Node, Path(id): Path<Digest>) -> Response {
    let sequence: Sequence = node.chain.lock().unwrap().state.sequence(&IdentityId(id));
    Json(serde_json::json!({ "sequence": sequence })).into_response()
}

#[derive(serde::Deserialize)]
struct BlocksQuery {
    from: u64,
    limit: usize,
    wait_ms: u64,
}

async fn blocks(State(node): Node, Query(query): Query<BlocksQuery>) -> Response {
    let found = |node: &FakeNode| -> Vec<SignedBlock> {
        let chain = node.chain.lock().unwrap();
        chain.blocks.iter().skip(query.from.saturating_sub(1) as usize).take(query.limit).cloned().collect()
    };
    for _ in 0..query.wait_ms / 5 {
        if !found(&node).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    encode_blocks(&found(&node)).into_response()
}

async fn certificate(State(node): Node, Path(height): Path<u64>) -> Response {
    match node.chain.lock().unwrap().blocks.get(height.saturating_sub(1) as usize) {
        Some(block) => Json(CertifiedHeader {
            height: Height(height),
            header: Base64Bytes(block.header.clone()),
            certificate: Base64Bytes(block.certificate.clone().unwrap()),
        })
        .into_response(),
        None => problem(StatusCode::NOT_FOUND, "", "no such height"),
    }
}

#[derive(serde::Deserialize)]
struct ProofQuery {
    index: u64,
    size: usize,
}

async fn log_proof(State(node): Node, Query(ProofQuery { index, size }): Query<ProofQuery>) -> Response {
    let chain = node.chain.lock().unwrap();
    let Some(leaves) = chain.log.get(..size) else {
        return problem(StatusCode::NOT_FOUND, "", "the log is shorter");
    };
    let path = tree::inclusion_path(leaves, LeafIndex(index)).unwrap();
    let leaf = leaves[index as usize];
    Json(LogProof { index: LeafIndex(index), size: TreeSize(size as u64), leaf, path }).into_response()
}

async fn checkpoint(State(node): Node) -> Response {
    let signed = node.checkpoint.lock().unwrap().clone();
    signed.map_or_else(|| problem(StatusCode::NOT_FOUND, "", "none is signed yet"), IntoResponse::into_response)
}

async fn status(State(node): Node) -> Response {
    Json(serde_json::json!({ "height": node.chain.lock().unwrap().header.height })).into_response()
}

async fn gate(State(node): Node, request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    if node.down.load(Ordering::SeqCst) {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "", "down for a test");
    }
    next.run(request).await
}

/// A chain with the stream of [`stream`] on it, a node, a follower, stores in a temporary folder.
pub(crate) struct World {
    pub(crate) node: Arc<FakeNode>,
    pub(crate) client: Client,
    pub(crate) follower: Follower,
    pub(crate) segments: SegmentStore,
    pub(crate) secrets: SecretStore,
    pub(crate) folder: TempDir,
    pub(crate) registry: prometheus::Registry,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let node = Arc::new(FakeNode::new());
        node.say(Body::RegisterStream(Self::stream())).unwrap();
        let app = axum::Router::new()
            .route("/v1/statements", post(submit))
            .route("/v1/statements/{id}", get(status_of_statement))
            .route("/v1/streams/{stream}/partitions/{partition}/head", get(head))
            .route("/v1/identities/{id}", get(identity))
            .route("/v1/blocks", get(blocks))
            .route("/v1/certificates/{height}", get(certificate))
            .route("/v1/log/proof", get(log_proof))
            .route("/v1/status", get(status))
            .route("/checkpoint", get(checkpoint))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&node), gate))
            .with_state(Arc::clone(&node));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let client = Client::new(vec![format!("http://{address}").parse().unwrap()]).unwrap();
        let follower = Follower::spawn(FollowerConfig { genesis: Arc::clone(&node.genesis), client: client.clone() });
        follower.catch_up(Duration::from_secs(10)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let segments = SegmentStore::on_disk(&folder.path().join("objects")).unwrap();
        let segments = segments.of_chain(node.genesis.tag());
        let secrets = SecretStore::open(&folder.path().join("secrets"), &[9; 32]).unwrap();
        let registry = prometheus::Registry::new();
        Self { node, client, follower, segments, secrets, folder, registry, server }
    }

    /// The stream that is registered: either anchorer may anchor it.
    pub(crate) fn stream() -> StreamDefinition {
        StreamDefinition { anchorers: vec![key(3).identity(), key(4).identity()], ..stream() }
    }

    /// What signs for one of the two anchorers.
    pub(crate) fn submitter(&self, which: u8) -> Submitter {
        Submitter::new(self.client.clone(), key(3 + which), self.node.genesis.tag())
    }

    /// One of the two anchorers; the second one's metrics are its own each time.
    pub(crate) fn anchorer(&self, which: u8) -> Anchorer {
        let submitter = self.submitter(which);
        let registry = if which == 0 { self.registry.clone() } else { prometheus::Registry::new() };
        let metrics = Metrics::register(&registry).unwrap();
        Anchorer::new(submitter, self.follower.clone(), self.segments.clone(), self.secrets.clone(), metrics)
            .with_patience(Duration::from_secs(5))
    }
}
