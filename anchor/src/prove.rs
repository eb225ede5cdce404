//! A receipt for one record: everything that proves it, gathered and checked before it is handed out.
//!
//! ```text
//! ledger ── the anchor of the offset ──▶ segment (verified) + batch secret ──▶ leaves, root = the anchor's
//!                                                                                 │ inclusion path
//! node ──── certified header at or above the anchor's block, log path ────────────┴──▶ receipt, verified offline
//!           and the log's checkpoint, where one is about that header's log
//! ```

use crate::evidence::{self, EvidenceError};
use crate::secrets::SecretStore;
use crate::segment::Columns;
use crate::verified::VerifiedStore;
use cairn_chain_client::{AnchorEntry, ClientError, Follower};
use cairn_proof::checkpoint::Checkpoint;
use cairn_proof::committee::CommitteeChange;
use cairn_proof::genesis::Genesis;
use cairn_proof::header::Header;
use cairn_proof::identity::{IdentityId, PublicKey};
use cairn_proof::note::Note;
use cairn_proof::receipt::{Base64Bytes, RECEIPT_MARK, Receipt, ReceiptError, StepName, TreePath};
use cairn_proof::statement::{ChainTag, LoggedAnchor};
use cairn_proof::{Height, LeafIndex, Offset, Partition, TreeSize, tree};
use std::sync::Arc;
use std::time::Duration;

/// How long the ledger may take to follow to a header that a node has certified already.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(30);

/// Where evidence is gathered from.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The chain.
    pub follower: &'a Follower,
    /// The stored objects; what its registry holds does not matter, anchors are taken from the ledger.
    pub store: &'a VerifiedStore,
    /// The batch secrets.
    pub secrets: &'a SecretStore,
}

/// Why there is no receipt; each says what is missing.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The stream is not registered.
    #[error("stream {stream} is not registered at height {height}; registered are: {known}")]
    UnknownStream {
        /// The stream.
        stream: String,
        /// The height that was looked at.
        height: Height,
        /// Those that are.
        known: String,
    },
    /// The stream has no such partition.
    #[error("stream {stream} has the partitions 0 to {}, not {partition}", partitions - 1)]
    UnknownPartition {
        /// The stream.
        stream: String,
        /// What was asked for.
        partition: Partition,
        /// How many it has.
        partitions: u32,
    },
    /// The record is not anchored yet.
    #[error("stream {stream}, partition {partition}: offset {offset} is not anchored, the partition stands at {next}")]
    NotAnchored {
        /// The stream.
        stream: String,
        /// The partition.
        partition: Partition,
        /// The offset.
        offset: Offset,
        /// The offset that the next anchor begins with.
        next: Offset,
    },
    /// The topic holds no record there.
    #[error(
        "stream {stream}, partition {partition}: offset {offset} lies in a declared gap, the topic holds no record there"
    )]
    Gap {
        /// The stream.
        stream: String,
        /// The partition.
        partition: Partition,
        /// The offset.
        offset: Offset,
    },
    /// The stored evidence is missing or wrong.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// No node gives the log path or the certificate.
    #[error("{what} could not be had: {source}")]
    Chain {
        /// What was asked for.
        what: &'static str,
        /// What happened.
        source: ClientError,
    },
    /// What was gathered does not verify.
    #[error("the receipt does not verify: {0}; if a node gave the proof, ask another one")]
    Receipt(#[from] ReceiptError),
    /// A bug: the ledger contradicts itself.
    #[error("the ledger has an anchor by {signer}, and no key of that identity signed it")]
    Signer {
        /// The identity.
        signer: IdentityId,
    },
}

/// What the ledger says about one record.
struct Located {
    entry: Arc<AnchorEntry>,
    topic: String,
    index: LeafIndex,
    anchorer: PublicKey,
    genesis: Arc<Genesis>,
}

/// Makes the receipt of one record. It verifies with the genesis alone; that was checked when this returns.
///
/// # Errors
/// [`ProveError`], which names what is missing.
pub async fn prove(
    sources: Sources<'_>,
    stream: &str,
    partition: Partition,
    offset: Offset,
) -> Result<Receipt, ProveError> {
    let located = locate(sources.follower, stream, partition, offset)?;
    let (record, path) = batch_part(sources, &located).await?;
    let chain = chain_part(sources.follower, &located).await?;
    let receipt = Receipt {
        format: RECEIPT_MARK.to_owned(),
        record: Base64Bytes(record),
        batch: path,
        anchor: Base64Bytes(located.entry.log_entry()),
        anchorer: located.anchorer,
        log: chain.log,
        committees: chain.committees,
        header: chain.header,
        certificate: chain.certificate,
        checkpoint: chain.checkpoint,
    };
    verified(receipt, &located.genesis)
}

/// The receipt, once it verified. A checkpoint that does not is left out: the certificate proves the same without it.
fn verified(mut receipt: Receipt, genesis: &Genesis) -> Result<Receipt, ProveError> {
    if let Err(error) = receipt.verify(genesis) {
        if error.step != StepName::Checkpoint {
            return Err(error.into());
        }
        tracing::warn!(%error, "a node gave a wrong checkpoint, the receipt goes without one");
        receipt.checkpoint = None;
        receipt.verify(genesis)?;
    }
    Ok(receipt)
}

fn locate(follower: &Follower, stream: &str, partition: Partition, offset: Offset) -> Result<Located, ProveError> {
    let ledger = follower.ledger();
    let name = stream.to_owned();
    let Some(registered) = ledger.stream(stream) else {
        let known = ledger.streams().keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(ProveError::UnknownStream { stream: name, height: ledger.height(), known });
    };
    let Some(head) = ledger.state().head(stream, partition) else {
        let partitions = registered.definition.partitions;
        return Err(ProveError::UnknownPartition { stream: name, partition, partitions });
    };
    let Some(entry) = ledger.anchor_of(stream, partition, offset) else {
        return Err(ProveError::NotAnchored { stream: name, partition, offset, next: head.next });
    };
    let Some(index) = entry.anchor.leaf_index(offset) else {
        return Err(ProveError::Gap { stream: name, partition, offset });
    };
    let anchorer = signing_key(&entry.log_entry(), ledger.keys_of(&entry.signer), &ledger.genesis().tag());
    Ok(Located {
        entry: Arc::clone(entry),
        topic: registered.definition.topic.clone(),
        index,
        anchorer: anchorer.ok_or(ProveError::Signer { signer: entry.signer })?,
        genesis: Arc::clone(ledger.genesis()),
    })
}

/// The one of an identity's keys, of which it may have had several, that signed an anchor's entry in the log.
fn signing_key(entry: &[u8], keys: &[PublicKey], chain: &ChainTag) -> Option<PublicKey> {
    let signed = LoggedAnchor::decode(entry).ok()?;
    keys.iter().find(|key| signed.verify(key, chain).is_ok()).copied()
}

/// The record's canonical bytes, and its path to the batch's root.
async fn batch_part(sources: Sources<'_>, located: &Located) -> Result<(Vec<u8>, TreePath), ProveError> {
    let Located { entry, topic, index, .. } = located;
    let anchor = &entry.anchor;
    let secret = evidence::secret(anchor, sources.secrets).await?;
    let segment = evidence::verified_segment(entry, sources.store).await?;
    let (_, raw) = evidence::records(anchor, segment, Columns::Own).await?;
    let leaves = evidence::leaves(anchor, topic, &raw, &secret).await?;
    let mismatch =
        |found| EvidenceError::Root { path: anchor.segment.path.clone(), expected: anchor.records_root, found };
    let record = raw.record(index.0 as usize, topic, &secret).ok_or_else(|| mismatch(tree::root(&leaves)))?;
    let path = tree::inclusion_path(&leaves, *index).map_err(|_| mismatch(tree::root(&leaves)))?;
    Ok((record.encode(), TreePath { index: *index, path }))
}

/// What ties an anchor to the genesis.
struct ChainPart {
    log: TreePath,
    committees: Vec<CommitteeChange>,
    header: Base64Bytes,
    certificate: Base64Bytes,
    checkpoint: Option<String>,
}

/// The newest checkpoint that covers the anchor, with its size and the first block after which the log has that size.
/// `None` where no node has signed one yet, or one that the ledger has not come to.
async fn checkpoint(follower: &Follower, located: &Located) -> Option<(Height, TreeSize, String)> {
    let text = follower.client().checkpoint().await.ok()?;
    let size = Checkpoint::parse(Note::parse(&text).ok()?.text()).ok()?.size;
    let ledger = follower.ledger();
    let block = &ledger.blocks().get(ledger.blocks().partition_point(|block| block.log_size < size))?;
    (size.0 > located.entry.log_index.0 && block.log_size == size).then_some((block.height, size, text))
}

/// A certified header that covers the anchor, the anchor's path to its log root, and the way to the header's committee.
async fn chain_part(follower: &Follower, located: &Located) -> Result<ChainPart, ProveError> {
    let client = follower.client();
    let failed = |what| move |source| ProveError::Chain { what, source };
    let noted = checkpoint(follower, located).await;
    let height = noted.as_ref().map_or(located.entry.height, |(height, ..)| *height);
    let certified = client.certified_header(height).await.map_err(failed("the finality certificate"))?;
    let header = Header::decode(&certified.header.0).map_err(|error| ProveError::Chain {
        what: "the certified header",
        source: ClientError::Untrustworthy {
            node: client.preferred().to_string(),
            what: "a header".to_owned(),
            reason: error.to_string(),
        },
    })?;
    let index = located.entry.log_index;
    let proof = client.log_proof(index, header.log_size).await.map_err(failed("the log proof"))?;
    // The node may be ahead; the ledger then learns of the committee changes before that header.
    follower.wait_for_height(header.height, FOLLOW_PATIENCE).await.map_err(failed("the blocks up to that header"))?;
    let committees =
        follower.ledger().committee_changes_before(header.epoch).iter().map(|change| (**change).clone()).collect();
    let log = TreePath { index, path: proof.path };
    // Several anchors may have come between that block and the next one with a certificate of its own.
    let checkpoint = noted.filter(|(_, size, _)| *size == header.log_size).map(|(.., text)| text);
    Ok(ChainPart { log, committees, header: certified.header, certificate: certified.certificate, checkpoint })
}

#[cfg(test)]
#[path = "prove_tests.rs"]
mod tests;
