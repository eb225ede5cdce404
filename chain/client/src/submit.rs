//! Signs statements, numbers them, submits them, and waits until they are final.
//!
//! One submitter per identity and process: it hands out sequence numbers and keeps the order in which they reach a
//! node. A refusal that may come from a node that is behind is tried again a few times before it is believed.

use std::sync::Arc;
use std::time::Duration;

use cairn_chain_state::{Refusal, RefusalCode};
use cairn_proof::identity::{IdentityId, SigningKey};
use cairn_proof::statement::{Body, ChainTag, Statement};
use cairn_proof::{Digest, Height, LeafIndex, Sequence};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::ClientError;
use crate::http::{Client, StatementStatus};

/// How often a refusal that a node behind the others would give is tried again.
const ATTEMPTS_MAX: usize = 4;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(300);
/// One request for the status waits that long; then the statement is submitted again, in case it was lost.
const STATUS_WAIT: Duration = Duration::from_secs(3);

/// A statement in a final block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finalized {
    /// The statement's id.
    pub id: Digest,
    /// Its block.
    pub height: Height,
    /// Its place in the log, if it is an anchor; of several, that of the first.
    pub log_index: Option<LeafIndex>,
    /// The envelope that is on the chain.
    pub envelope: Vec<u8>,
}

/// Why a statement is not final.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// The chain refuses it. It is not on the chain.
    #[error("{0}")]
    Refused(Refusal),
    /// Not known yet: it may become final later. Look at the chain before saying the same again.
    #[error("{0}")]
    Undecided(ClientError),
}

/// Signs and submits for one identity.
#[derive(Debug, Clone)]
pub struct Submitter {
    client: Client,
    identity: IdentityId,
    key: Arc<SigningKey>,
    chain: ChainTag,
    /// The last number given out; none until the chain was asked.
    last: Arc<Mutex<Option<Sequence>>>,
}

impl Submitter {
    /// For the identity that was registered with `key`, and still signs with it.
    #[must_use]
    pub fn new(client: Client, key: SigningKey, chain: ChainTag) -> Self {
        Self::for_identity(client, key.identity(), key, chain)
    }

    /// For an identity that signs with `key`, whatever it was registered with.
    #[must_use]
    pub fn for_identity(client: Client, identity: IdentityId, key: SigningKey, chain: ChainTag) -> Self {
        Self { client, identity, key: Arc::new(key), chain, last: Arc::default() }
    }

    /// The identity that signs.
    #[must_use]
    pub const fn identity(&self) -> IdentityId {
        self.identity
    }

    /// The client that it submits through.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Says `body` to the chain and waits up to `patience` until it is final.
    ///
    /// # Errors
    /// [`SubmitError::Refused`] when the chain refuses it; [`SubmitError::Undecided`] when that is not known in time.
    pub async fn submit(&self, body: &Body, patience: Duration) -> Result<Finalized, SubmitError> {
        let deadline = Instant::now() + patience;
        let mut attempt = 1;
        loop {
            let (id, envelope) = self.send(body, deadline).await?;
            match self.wait(id, &envelope, deadline).await? {
                StatementStatus::Finalized { height, log_index } => {
                    return Ok(Finalized { id, height, log_index, envelope });
                }
                StatementStatus::Refused { code, message } if attempt < ATTEMPTS_MAX && may_be_behind(code) => {
                    tracing::debug!(%code, message, attempt, "refused, trying again");
                }
                StatementStatus::Refused { code, message } => {
                    return Err(SubmitError::Refused(Refusal { code, message }));
                }
                StatementStatus::Pending | StatementStatus::Unknown => {
                    return Err(SubmitError::Undecided(timeout(id, patience)));
                }
            }
            attempt += 1;
            *self.last.lock().await = None;
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }

    /// Signs with the next number and hands it to a node. One at a time, so that numbers arrive in their order.
    async fn send(&self, body: &Body, deadline: Instant) -> Result<(Digest, Vec<u8>), SubmitError> {
        let signer = self.identity;
        let mut last = self.last.lock().await;
        let mut attempt = 1;
        loop {
            let known = match *last {
                Some(known) => known,
                None => until(deadline, || self.client.sequence(&signer)).await?,
            };
            let sequence = known.next();
            let statement = Statement { signer, sequence, body: body.clone() };
            let envelope =
                statement.sign(&self.key, &self.chain).map_err(|error| SubmitError::Undecided(error.into()))?;
            match until(deadline, || self.client.submit(&envelope)).await {
                Ok(id) => {
                    *last = Some(sequence);
                    return Ok((id, envelope));
                }
                Err(SubmitError::Refused(refusal)) if attempt < ATTEMPTS_MAX && may_be_behind(refusal.code) => {
                    tracing::debug!(%refusal, attempt, "refused at submission, trying again");
                    // The number may be behind the chain's: ask again, but never go below what was given out.
                    let on_chain = until(deadline, || self.client.sequence(&signer)).await?;
                    let used = if refusal.code == RefusalCode::Sequence { sequence } else { known };
                    *last = Some(on_chain.max(used));
                    attempt += 1;
                    tokio::time::sleep(ATTEMPT_PAUSE).await;
                }
                Err(error) => {
                    *last = None;
                    return Err(error);
                }
            }
        }
    }

    /// Waits until the statement is decided, or the deadline has passed (then the last status is returned).
    async fn wait(&self, id: Digest, envelope: &[u8], deadline: Instant) -> Result<StatementStatus, SubmitError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let status = until(deadline, || self.client.statement(&id, STATUS_WAIT.min(left))).await?;
            let decided = matches!(status, StatementStatus::Finalized { .. } | StatementStatus::Refused { .. });
            if decided || Instant::now() >= deadline {
                return Ok(status);
            }
            // The node may have lost it in a restart, or the network: saying the same bytes again does no harm.
            self.client.rotate();
            match self.client.submit(envelope).await {
                Ok(_) | Err(ClientError::Unreachable { .. } | ClientError::Busy { .. }) => {}
                Err(ClientError::Refused(refusal)) => {
                    tracing::debug!(%refusal, "resubmission refused; the status decides");
                }
                Err(error) => tracing::warn!(%error, "resubmission failed"),
            }
        }
    }
}

/// Whether a node that has not seen the latest blocks would refuse for this reason.
const fn may_be_behind(code: RefusalCode) -> bool {
    matches!(
        code,
        RefusalCode::Sequence
            | RefusalCode::Gap
            | RefusalCode::Previous
            | RefusalCode::UnknownStream
            | RefusalCode::UnknownIdentity
    )
}

/// Repeats a request while no node answers, until the deadline.
async fn until<T, F>(deadline: Instant, request: impl Fn() -> F) -> Result<T, SubmitError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut pause = Duration::from_millis(50);
    loop {
        match request().await {
            Ok(answer) => return Ok(answer),
            Err(ClientError::Refused(refusal)) => return Err(SubmitError::Refused(refusal)),
            Err(error) if Instant::now() + pause >= deadline => return Err(SubmitError::Undecided(error)),
            Err(error) => {
                tracing::debug!(%error, "no answer, trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}

fn timeout(id: Digest, patience: Duration) -> ClientError {
    ClientError::Timeout {
        what: format!("finality of statement {id}"),
        seconds: patience.as_secs(),
        hint: "more than two thirds of the validators must be running; see `cairn status`".into(),
    }
}
