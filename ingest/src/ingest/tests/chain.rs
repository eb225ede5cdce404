//! A chain of one validator in this process, behind the HTTP API of a node. Each accepted statement becomes a block at
//! once; blocks, states and certificates are real, and the follower verifies them as it would any others.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path as UrlPath, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cairn_anchor::pipeline::Anchorer;
use cairn_anchor::secrets::SecretStore;
use cairn_anchor::store::SegmentStore;
use cairn_chain_client::{Client, Follower, FollowerConfig, HeadInfo, StatementStatus, Submitter};
use cairn_chain_state::{BlockTime, Round, State as ChainState, StrictSignatures, seal};
use cairn_proof::block::{SignedBlock, encode_blocks};
use cairn_proof::certificate::forge;
use cairn_proof::epoch::epoch_of;
use cairn_proof::genesis::{GENESIS_MARK, Genesis, GenesisIdentity, GenesisValidator};
use cairn_proof::header::Header;
use cairn_proof::identity::{IdentityId, IdentityKind, SigningKey};
use cairn_proof::statement::{Body, ChainTag, Statement, StreamDefinition, statement_id};
use cairn_proof::{Digest, Height, Partition};
use tempfile::TempDir;
use tokio::task::JoinHandle;

struct Chain {
    state: ChainState,
    header: Header,
    blocks: Vec<SignedBlock>,
    statuses: HashMap<Digest, StatementStatus>,
    log: Vec<Digest>,
}

pub(super) struct FakeNode {
    genesis: Arc<Genesis>,
    chain: Mutex<Chain>,
    /// Answers 503 to everything.
    pub(super) down: AtomicBool,
    /// Answers 503 to statements alone.
    pub(super) deaf: AtomicBool,
    /// How many statements it did so to.
    pub(super) refused: AtomicU64,
}

/// Seed of the key that owns all streams.
pub(super) const OWNER: u8 = 2;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// The identity of the first or the second ingest worker.
pub(super) fn anchorer(which: u8) -> IdentityId {
    key(3 + which).identity()
}

impl FakeNode {
    fn new() -> Self {
        let identity =
            |name: &str, kind, seed| GenesisIdentity { name: name.into(), kind, public_key: key(seed).public() };
        let genesis = Genesis {
            format: GENESIS_MARK.into(),
            chain_id: "test".into(),
            timestamp_ms: 1_700_000_000_000,
            validators: vec![GenesisValidator {
                name: "one".into(),
                public_key: key(1).public(),
                address: "one:7000".into(),
            }],
            identities: vec![
                identity("owner", IdentityKind::Organisation, 2),
                identity("first", IdentityKind::Node, 3),
                identity("second", IdentityKind::Node, 4),
            ],
            parameters: cairn_proof::parameters::Parameters::default(),
        };
        let chain = Chain {
            state: ChainState::genesis(&genesis),
            header: genesis.header(),
            blocks: vec![],
            statuses: HashMap::new(),
            log: vec![],
        };
        Self {
            genesis: Arc::new(genesis),
            chain: Mutex::new(chain),
            down: AtomicBool::default(),
            deaf: AtomicBool::default(),
            refused: AtomicU64::default(),
        }
    }

    /// Registers a stream that both workers may anchor.
    pub(super) fn register(&self, definition: &StreamDefinition) {
        let definition = StreamDefinition { anchorers: vec![anchorer(0), anchorer(1)], ..definition.clone() };
        self.say(Body::RegisterStream(definition));
    }

    /// Puts a statement of the owner into a block.
    pub(super) fn say(&self, body: Body) {
        let signer = key(OWNER).identity();
        let sequence = self.chain.lock().unwrap().state.sequence(&signer).next();
        let statement = Statement { signer, sequence, body };
        self.apply(&statement.sign(&key(OWNER), &self.tag()).unwrap()).unwrap();
    }

    pub(super) fn tag(&self) -> ChainTag {
        self.genesis.tag()
    }

    pub(super) fn height(&self) -> Height {
        self.chain.lock().unwrap().header.height
    }

    fn apply(&self, envelope: &[u8]) -> Result<(), cairn_chain_state::Refusal> {
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
        let certificate = forge::certificate(&header, &[key(1)], &[0], &self.genesis.tag());
        let statements = vec![envelope.to_vec()];
        chain.blocks.push(SignedBlock { header: header.encode(), statements, certificate: Some(certificate) });
        chain.header = header;
        chain.statuses.insert(id, StatementStatus::Finalized { height, log_index: applied.log_index });
        Ok(())
    }
}

type Node = State<Arc<FakeNode>>;

fn problem(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(serde_json::json!({ "code": code, "message": message }))).into_response()
}

async fn submit(State(node): Node, body: Bytes) -> Response {
    if node.deaf.load(Ordering::SeqCst) {
        node.refused.fetch_add(1, Ordering::SeqCst);
        return problem(StatusCode::SERVICE_UNAVAILABLE, "", "deaf for a test");
    }
    match node.apply(&body) {
        Ok(()) => (StatusCode::ACCEPTED, Json(serde_json::json!({ "id": statement_id(&body) }))).into_response(),
        Err(refusal) => problem(StatusCode::BAD_REQUEST, refusal.code.name(), &refusal.message),
    }
}

async fn status_of_statement(State(node): Node, UrlPath(id): UrlPath<Digest>) -> Response {
    let status = node.chain.lock().unwrap().statuses.get(&id).cloned();
    Json(status.unwrap_or(StatementStatus::Unknown)).into_response()
}

async fn head(State(node): Node, UrlPath((stream, partition)): UrlPath<(String, u32)>) -> Response {
    match node.chain.lock().unwrap().state.head(&stream, Partition(partition)) {
        Some(head) => {
            Json(HeadInfo { next: head.next, anchor: head.anchor, log_index: head.log_index }).into_response()
        }
        None => problem(StatusCode::NOT_FOUND, "", "no such partition"),
    }
}

async fn identity(State(node): Node, UrlPath(id): UrlPath<Digest>) -> Response {
    let sequence = node.chain.lock().unwrap().state.sequence(&IdentityId(id));
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
        let from = usize::try_from(query.from.saturating_sub(1)).unwrap();
        node.chain.lock().unwrap().blocks.iter().skip(from).take(query.limit).cloned().collect()
    };
    for _ in 0..query.wait_ms / 5 {
        if !found(&node).is_empty() || node.down.load(Ordering::SeqCst) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    encode_blocks(&found(&node)).into_response()
}

async fn status(State(node): Node) -> Response {
    Json(serde_json::json!({ "height": node.chain.lock().unwrap().header.height })).into_response()
}

async fn gate(State(node): Node, request: Request, next: Next) -> Response {
    if node.down.load(Ordering::SeqCst) {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "", "down for a test");
    }
    next.run(request).await
}

/// A chain, a follower, and stores in a temporary folder.
pub(super) struct World {
    pub(super) node: Arc<FakeNode>,
    pub(super) follower: Follower,
    pub(super) segments: SegmentStore,
    pub(super) secrets: SecretStore,
    client: Client,
    folder: TempDir,
    server: JoinHandle<()>,
    /// Metrics of the first anchorer.
    registry: prometheus::Registry,
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl World {
    pub(super) async fn new() -> Self {
        let node = Arc::new(FakeNode::new());
        let app = axum::Router::new()
            .route("/v1/statements", post(submit))
            .route("/v1/statements/{id}", get(status_of_statement))
            .route("/v1/streams/{stream}/partitions/{partition}/head", get(head))
            .route("/v1/identities/{id}", get(identity))
            .route("/v1/blocks", get(blocks))
            .route("/v1/status", get(status))
            .layer(axum::middleware::from_fn_with_state(node.clone(), gate))
            .with_state(node.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let client = Client::new(vec![format!("http://{address}").parse().unwrap()]).unwrap();
        let follower = Follower::spawn(FollowerConfig { genesis: node.genesis.clone(), client: client.clone() });
        let folder = tempfile::tempdir().unwrap();
        let segments = SegmentStore::on_disk(&folder.path().join("objects")).unwrap();
        let secrets = SecretStore::open(&folder.path().join("secrets"), &[9; 32]).unwrap();
        let registry = prometheus::Registry::new();
        Self { node, follower, segments, secrets, client, folder, server, registry }
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How many steps of batches were tried again.
    pub(super) fn retries(&self) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == "cairn_anchor_retries_total");
        family.map_or(0.0, |family| family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum())
    }

    pub(super) fn anchorer(&self, which: u8) -> Anchorer {
        let submitter = Submitter::new(self.client.clone(), key(3 + which), self.node.genesis.tag());
        // One process for each in reality: only the first anchorer's first one is counted.
        let metrics = cairn_anchor::metrics::Metrics::register(&self.registry);
        let metrics =
            metrics.or_else(|_| cairn_anchor::metrics::Metrics::register(&prometheus::Registry::new())).unwrap();
        let (segments, secrets) = (self.segments.clone(), self.secrets.clone());
        Anchorer::new(submitter, self.follower.clone(), segments, secrets, metrics)
            .with_patience(Duration::from_secs(5))
    }
}
