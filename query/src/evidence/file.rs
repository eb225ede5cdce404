//! The file that proves a signed answer offline: its block's header, those after it up to a certified one, and the way to
//! the committee that certified it. It is verified before it is handed out, since a node gave the headers.

use std::time::Duration;

use cairn_chain_client::{ClientError, Follower};
use cairn_proof::Base64Bytes;
use cairn_proof::answer::file::{ANSWER_EVIDENCE_MARK, AnswerEvidence, HEADERS_MAX};
use cairn_proof::header::Header;
use cairn_proof::identity::PublicKey;
use cairn_proof::units::Height;

use super::Kept;
use crate::error::{QueryError, QueryErrorKind, Result, SqlState};

/// How many blocks are asked for at a time: the first one is certified, most often.
const BLOCKS_AT_ONCE: usize = 8;
/// How long to wait for the next block, where the newest is not certified by itself.
const BLOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How long the ledger may take to follow to a block that a node has already.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(30);

fn missing(what: &str, error: &ClientError) -> QueryError {
    let message = format!("there is no evidence of this answer at the moment: {what}: {error}");
    QueryError::new(QueryErrorKind::Unavailable, SqlState::NOT_READY, message).with_hint("try again")
}

/// Headers from a block to the next one that is certified, and the certificate.
struct Certified {
    headers: Vec<Base64Bytes>,
    last: Header,
    certificate: Base64Bytes,
}

async fn certified(follower: &Follower, from: Height) -> Result<Certified> {
    let client = follower.client();
    let (mut headers, mut next) = (Vec::new(), from);
    while headers.len() < HEADERS_MAX {
        let blocks = client.blocks(next, BLOCKS_AT_ONCE, BLOCK_PATIENCE).await;
        let blocks = blocks.map_err(|error| missing("the headers after its block", &error))?;
        if blocks.is_empty() {
            break;
        }
        for block in blocks {
            let last = Header::decode(&block.header).map_err(|error| {
                QueryError::new(
                    QueryErrorKind::Unavailable,
                    SqlState::NOT_READY,
                    format!("a node gave no header: {error}"),
                )
            })?;
            headers.push(Base64Bytes(block.header));
            if let Some(certificate) = block.certificate {
                return Ok(Certified { headers, last, certificate: Base64Bytes(certificate) });
            }
            next = last.height.next();
        }
    }
    Err(QueryError::new(
        QueryErrorKind::Unavailable,
        SqlState::NOT_READY,
        format!("no block from {} on has a certificate yet", from.0),
    )
    .with_hint("try again when the chain has made another block"))
}

/// The file's text.
///
/// # Errors
/// No node gives headers and a certificate, or what one gives does not verify.
pub(super) async fn evidence(follower: &Follower, kept: &Kept, signer: PublicKey) -> Result<String> {
    let Certified { headers, last, certificate } = certified(follower, kept.height).await?;
    let followed = follower.wait_for_height(last.height, FOLLOW_PATIENCE).await;
    followed.map_err(|error| missing("the blocks up to the certified header", &error))?;
    let (committees, genesis) = {
        let ledger = follower.ledger();
        let changes = ledger.committee_changes_before(last.epoch).iter().map(|change| (**change).clone()).collect();
        (changes, ledger.genesis().clone())
    };
    let answer = Base64Bytes(kept.envelope.to_vec());
    let file =
        AnswerEvidence { format: ANSWER_EVIDENCE_MARK.to_owned(), answer, signer, committees, headers, certificate };
    // The key is this node's own: whether the genesis names it is the verifier's to judge.
    file.verify(&genesis, &[signer]).map_err(|error| {
        let message = format!("the evidence of this answer does not verify: {error}");
        QueryError::new(QueryErrorKind::Unavailable, SqlState::DATA_CORRUPTED, message)
            .with_hint("a node gave a wrong header or certificate; try again, it may be another node's turn")
    })?;
    let text = file.to_json().ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(|| QueryError::internal("the evidence of an answer is no text"))
}
