//! Requests to the HTTP API of nodes: bounded, with a time limit, over several nodes in turn.
//!
//! Answers are decoded here and trusted nowhere: what can be verified is verified by the caller or by [`crate::follow`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cairn_chain_state::{Refusal, RefusalCode};
use cairn_proof::block::{SignedBlock, decode_blocks};
use cairn_proof::cbor::Writer;
use cairn_proof::identity::IdentityId;
use cairn_proof::receipt::Base64Bytes;
use cairn_proof::{Digest, Height, LeafIndex, Offset, Partition, Sequence, TreeSize};
use reqwest::{Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::ClientError;

/// No answer is longer.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Most blocks that one request asks for.
pub const BLOCKS_PER_REQUEST: usize = 512;

/// How far a partition is anchored, as a node says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadInfo {
    /// The offset that the next anchor must begin with.
    pub next: Offset,
    /// Id of the last anchor; zero before the first.
    pub anchor: Digest,
    /// Place of the last anchor in the log.
    pub log_index: LeafIndex,
}

/// What became of a statement, as a node says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum StatementStatus {
    /// The node has not seen it, or has forgotten it.
    Unknown,
    /// It waits for a block.
    Pending,
    /// It is in a final block.
    Finalized {
        /// Height of that block.
        height: Height,
        /// Its place in the log, if it is an anchor.
        log_index: Option<LeafIndex>,
    },
    /// It will not be in a block.
    Refused {
        /// What kind of refusal.
        code: RefusalCode,
        /// What was expected, what was found.
        message: String,
    },
}

/// An inclusion proof in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogProof {
    /// Place of the anchor.
    pub index: LeafIndex,
    /// Size of the tree that the path is for.
    pub size: TreeSize,
    /// Hash of the leaf.
    pub leaf: Digest,
    /// Hashes from the leaf up.
    pub path: Vec<Digest>,
}

/// A header with a certificate of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedHeader {
    /// Height of the header.
    pub height: Height,
    /// The header's canonical bytes.
    pub header: Base64Bytes,
    /// The certificate over it.
    pub certificate: Base64Bytes,
}

#[derive(Deserialize)]
struct IdentityInfo {
    sequence: Sequence,
}

#[derive(Deserialize)]
struct Submitted {
    id: Digest,
}

#[derive(Deserialize)]
struct Outcomes {
    results: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    id: Digest,
    status: u16,
    #[serde(flatten)]
    problem: Problem,
}

#[derive(Default, Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Talks to the nodes of one chain. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Client {
    nodes: Arc<Vec<Url>>,
    http: reqwest::Client,
    /// The node that is asked first: the last one that answered.
    preferred: Arc<AtomicUsize>,
}

impl Client {
    /// A client of the nodes at these base addresses, such as `http://127.0.0.1:26650`. A node with an `https` address
    /// must show a certificate of its name by one of the system's roots.
    ///
    /// # Errors
    /// When there are none, or the HTTP client cannot be made.
    pub fn new(nodes: Vec<Url>) -> Result<Self, ClientError> {
        Self::with_roots(nodes, None)
    }

    /// The same, and `https` nodes may also show a certificate by one of the roots in `roots`: the text of a PEM file
    /// with one certificate at least, such as that of the city's own authority.
    ///
    /// # Errors
    /// When there are no nodes or no roots, or the HTTP client cannot be made.
    pub fn with_roots(nodes: Vec<Url>, roots: Option<&[u8]>) -> Result<Self, ClientError> {
        if nodes.is_empty() {
            return Err(ClientError::Setup("expected the address of one node at least, found none".into()));
        }
        let mut builder = reqwest::Client::builder()
            .use_rustls_tls()
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .pool_idle_timeout(Duration::from_secs(30));
        if let Some(pem) = roots {
            let found = reqwest::Certificate::from_pem_bundle(pem).unwrap_or_default();
            if found.is_empty() {
                return Err(ClientError::Roots("expected PEM certificates, found none".into()));
            }
            builder = found.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        let http = builder.build().map_err(|error| match roots {
            Some(_) => ClientError::Roots(innermost(&error)),
            None => ClientError::Setup(innermost(&error)),
        })?;
        Ok(Self { nodes: Arc::new(nodes), http, preferred: Arc::new(AtomicUsize::new(0)) })
    }

    /// The nodes' addresses.
    #[must_use]
    pub fn nodes(&self) -> &[Url] {
        &self.nodes
    }

    /// Asks another node first from now on.
    pub fn rotate(&self) {
        self.preferred.fetch_add(1, Ordering::Relaxed);
    }

    /// The address of the node that is asked first.
    #[must_use]
    pub fn preferred(&self) -> &Url {
        &self.nodes[self.preferred.load(Ordering::Relaxed) % self.nodes.len()]
    }

    /// Submits an envelope and returns its id. That it was accepted does not mean that it is final.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the node refuses it, [`ClientError::Busy`] when its pool is full.
    pub async fn submit(&self, envelope: &[u8]) -> Result<Digest, ClientError> {
        let response = self
            .ask("the submission", ANSWER_TIMEOUT, |http, node| {
                let body = envelope.to_vec();
                http.post(join(node, "v1/statements")).header("content-type", "application/cose").body(body)
            })
            .await?;
        let submitted: Submitted = response.json("the submission")?;
        Ok(submitted.id)
    }

    /// Submits several envelopes in one request, which are taken in in their order; returns what became of each. That one
    /// was accepted does not mean that it is final.
    ///
    /// # Errors
    /// When no node answers, the request as a whole is refused (too large, too fast), or the answer is no answer to it.
    pub async fn submit_all(&self, envelopes: &[Vec<u8>]) -> Result<Vec<Result<Digest, ClientError>>, ClientError> {
        let what = "the submission";
        let mut body = Vec::with_capacity(envelopes.iter().map(|envelope| envelope.len() + 5).sum::<usize>() + 5);
        let mut writer = Writer::new(&mut body);
        writer.array(envelopes.len());
        for envelope in envelopes {
            writer.bytes(envelope);
        }
        let body = Bytes::from(body);
        let answer = self
            .ask(what, ANSWER_TIMEOUT, |http, node| {
                http.post(join(node, "v1/statements")).header("content-type", "application/cbor").body(body.clone())
            })
            .await?;
        let outcomes: Outcomes = answer.json(what)?;
        if outcomes.results.len() != envelopes.len() {
            let reason = format!("expected {} results, found {}", envelopes.len(), outcomes.results.len());
            return Err(answer.untrustworthy(what, reason));
        }
        let result = |outcome: Outcome| match StatusCode::from_u16(outcome.status) {
            Ok(status) if status.is_success() => Ok(outcome.id),
            Ok(status) => Err(problem_of(status, outcome.problem, &answer.node, what)),
            Err(error) => Err(answer.untrustworthy(what, error.to_string())),
        };
        Ok(outcomes.results.into_iter().map(result).collect())
    }

    /// What became of a statement; waits up to `wait` while it is pending or unknown.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn statement(&self, id: &Digest, wait: Duration) -> Result<StatementStatus, ClientError> {
        let path = format!("v1/statements/{id}?wait_ms={}", wait.as_millis());
        self.get(&path, "the statement's status", wait).await?.json("the statement's status")
    }

    /// How far a partition is anchored; offset 0 when it is not.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when the stream or partition is not known.
    pub async fn head(&self, stream: &str, partition: Partition) -> Result<HeadInfo, ClientError> {
        let path = format!("v1/streams/{stream}/partitions/{partition}/head");
        self.get(&path, "the partition's head", Duration::ZERO).await?.json("the partition's head")
    }

    /// The last sequence number of an identity.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when it is not registered.
    pub async fn sequence(&self, identity: &IdentityId) -> Result<Sequence, ClientError> {
        let path = format!("v1/identities/{identity}");
        let info: IdentityInfo = self.get(&path, "the identity", Duration::ZERO).await?.json("the identity")?;
        Ok(info.sequence)
    }

    /// Blocks from height `from`; waits up to `wait` until there is one. May be empty.
    ///
    /// # Errors
    /// When no node answers, or the answer does not decode.
    pub async fn blocks(&self, from: Height, most: usize, wait: Duration) -> Result<Vec<SignedBlock>, ClientError> {
        let path = format!("v1/blocks?from={from}&limit={most}&wait_ms={}", wait.as_millis());
        let answer = self.get(&path, "blocks", wait).await?;
        decode_blocks(&answer.body, most).map_err(|error| answer.untrustworthy("blocks", error.to_string()))
    }

    /// The first header at or above `height` that has a certificate of its own.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when there is none yet.
    pub async fn certified_header(&self, height: Height) -> Result<CertifiedHeader, ClientError> {
        self.get(&format!("v1/certificates/{height}"), "the certificate", Duration::ZERO).await?.json("the certificate")
    }

    /// The inclusion path of an anchor in the log of `size` anchors.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when the log has not grown to that size.
    pub async fn log_proof(&self, index: LeafIndex, size: TreeSize) -> Result<LogProof, ClientError> {
        let path = format!("v1/log/proof?index={index}&size={size}");
        self.get(&path, "the log proof", Duration::ZERO).await?.json("the log proof")
    }

    /// The newest checkpoint of the log that a node serves, as a signed note. It is not verified.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when none is signed yet.
    pub async fn checkpoint(&self) -> Result<String, ClientError> {
        let answer = self.get("checkpoint", "the checkpoint", Duration::ZERO).await?;
        String::from_utf8(answer.body.clone())
            .map_err(|error| answer.untrustworthy("the checkpoint", error.to_string()))
    }

    /// The status of one node as JSON.
    ///
    /// # Errors
    /// When that node does not answer.
    pub async fn status_of(&self, node: &Url) -> Result<serde_json::Value, ClientError> {
        let request = self.http.get(join(node, "v1/status")).timeout(Duration::from_secs(3));
        answer(node, "the status", request.send().await).await?.json("the status")
    }

    async fn get(&self, path: &str, what: &str, wait: Duration) -> Result<Answer, ClientError> {
        self.ask(what, ANSWER_TIMEOUT + wait, |http, node| http.get(join(node, path))).await
    }

    /// Asks the nodes in turn until one answers. A node that is out of reach or broken is passed over.
    async fn ask(
        &self,
        what: &str,
        timeout: Duration,
        request: impl Fn(&reqwest::Client, &Url) -> reqwest::RequestBuilder,
    ) -> Result<Answer, ClientError> {
        let start = self.preferred.load(Ordering::Relaxed);
        let mut last = ClientError::Unreachable { tried: 0, last: "none was asked".into() };
        for turn in 0..self.nodes.len() {
            let node = &self.nodes[(start + turn) % self.nodes.len()];
            let sent = request(&self.http, node).timeout(timeout).send().await;
            match answer(node, what, sent).await {
                Ok(answer) => {
                    self.preferred.store(start + turn, Ordering::Relaxed);
                    return Ok(answer);
                }
                // A refusal is an answer; asking another node for a more convenient one would not do.
                Err(error @ ClientError::Refused(_)) => return Err(error),
                Err(ClientError::Unreachable { last: reason, .. }) => {
                    last = ClientError::Unreachable { tried: turn + 1, last: reason };
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// A node's answer, read whole.
struct Answer {
    node: String,
    body: Vec<u8>,
}

impl Answer {
    fn json<T: DeserializeOwned>(&self, what: &str) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| self.untrustworthy(what, error.to_string()))
    }

    fn untrustworthy(&self, what: &str, reason: String) -> ClientError {
        ClientError::Untrustworthy { node: self.node.clone(), what: what.to_owned(), reason }
    }
}

fn join(node: &Url, path: &str) -> Url {
    let mut url = node.clone();
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let base = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{base}/{path}"));
    url.set_query(query);
    url
}

async fn answer(node: &Url, what: &str, sent: Result<Response, reqwest::Error>) -> Result<Answer, ClientError> {
    let unreachable = |error: &dyn std::error::Error| ClientError::Unreachable {
        tried: 1,
        last: format!("{node}: {}", innermost(error)),
    };
    let mut response = sent.map_err(|error| unreachable(&error))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(ClientError::Untrustworthy {
                node: node.to_string(),
                what: what.to_owned(),
                reason: format!("longer than {ANSWER_BYTES_MAX} bytes"),
            });
        }
        body.extend_from_slice(&chunk);
    }
    let answer = Answer { node: node.to_string(), body };
    if status.is_success() {
        return Ok(answer);
    }
    Err(problem(status, &answer, what))
}

fn problem(status: StatusCode, answer: &Answer, what: &str) -> ClientError {
    problem_of(status, serde_json::from_slice(&answer.body).unwrap_or_default(), &answer.node, what)
}

fn problem_of(status: StatusCode, problem: Problem, node: &str, what: &str) -> ClientError {
    let node = node.to_owned();
    let message = if problem.message.is_empty() { status.to_string() } else { problem.message };
    let code = serde_json::from_value::<RefusalCode>(serde_json::Value::String(problem.code));
    match (status, code) {
        // What a limit refused: later, or at another node.
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT, _) => {
            ClientError::Busy { node, message }
        }
        (_, Ok(code)) => ClientError::Refused(Refusal { code, message }),
        (StatusCode::NOT_FOUND, _) => ClientError::NotFound { what: what.to_owned(), node },
        (status, _) if status.is_client_error() => {
            ClientError::Refused(Refusal { code: RefusalCode::Malformed, message })
        }
        _ => ClientError::Busy { node, message },
    }
}

/// The cause at the bottom of a chain of errors: "connection refused" rather than "error sending request".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_join_below_the_base() {
        let base: Url = "http://127.0.0.1:1/chain/".parse().unwrap();
        assert_eq!(
            join(&base, "v1/blocks?from=3&limit=2").as_str(),
            "http://127.0.0.1:1/chain/v1/blocks?from=3&limit=2"
        );
    }

    #[test]
    fn statuses_read_as_nodes_write_them() {
        let read = |text: &str| serde_json::from_str::<StatementStatus>(text).unwrap();
        assert_eq!(read(r#"{"status":"pending"}"#), StatementStatus::Pending);
        let finalized = StatementStatus::Finalized { height: Height(3), log_index: Some(LeafIndex(9)) };
        assert_eq!(read(r#"{"status":"finalized","height":3,"log_index":9}"#), finalized);
        let none = StatementStatus::Finalized { height: Height(3), log_index: None };
        assert_eq!(read(r#"{"status":"finalized","height":3,"log_index":null}"#), none);
        let refused = StatementStatus::Refused { code: RefusalCode::Overlap, message: "m".into() };
        assert_eq!(read(r#"{"status":"refused","code":"overlap","message":"m"}"#), refused);
    }

    #[test]
    fn roots_that_are_none_are_refused() {
        let nodes = vec!["https://node.example".parse().unwrap()];
        for pem in [b"".as_slice(), b"nothing", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            let error = Client::with_roots(nodes.clone(), Some(pem)).map(drop).unwrap_err();
            assert!(matches!(error, ClientError::Roots(_)), "{error}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_reason() {
        // Port 9 (discard) is not served here; the error names the node.
        let client = Client::new(vec!["http://127.0.0.1:9".parse().unwrap()]).unwrap();
        let error = client.head("a.b", Partition(0)).await.unwrap_err();
        assert!(
            matches!(&error, ClientError::Unreachable { tried: 1, last } if last.contains("127.0.0.1:9")),
            "{error}"
        );
    }
}
