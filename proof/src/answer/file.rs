//! The file that proves offline what a query node said about an answer, with the genesis alone.
//!
//! ```text
//! answer ─signature─▶ the node's key ─▶ genesis, or a key that the verifier trusts
//!   └ block, height, state root ─▶ header ─parent─▶ … ─▶ certified header ─keys─▶ committees ─▶ genesis
//! ```
//!
//! The file is JSON in exactly one form, as receipts are. Not every block has a certificate of its own: one becomes final
//! through a descendant. The headers therefore begin with the answer's block and go on, each the parent of the next, to
//! one that is certified.

use serde::{Deserialize, Serialize};

use super::{Answer, SignedAnswer};
use crate::base64_bytes::Base64Bytes;
use crate::committee::{CommitteeChange, walk};
use crate::form;
use crate::genesis::Genesis;
use crate::header::Header;
use crate::identity::{IdentityId, PublicKey};

/// The mark of the format.
pub const ANSWER_EVIDENCE_MARK: &str = "cairn/answer-evidence/v1";
/// No file is longer.
pub const ANSWER_EVIDENCE_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Most headers from the answer's block to the certified one.
pub const HEADERS_MAX: usize = 4_096;

/// Everything that proves what was said about an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerEvidence {
    /// [`ANSWER_EVIDENCE_MARK`].
    pub format: String,
    /// The answer's envelope.
    pub answer: Base64Bytes,
    /// The key by which it is signed.
    pub signer: PublicKey,
    /// The ends of epochs at which the committee changed before the certified header, oldest first.
    pub committees: Vec<CommitteeChange>,
    /// Canonical bytes of headers: that of the answer's height first, each the parent of the next.
    pub headers: Vec<Base64Bytes>,
    /// The certificate over the last of them.
    pub certificate: Base64Bytes,
}

/// Why the evidence of an answer does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step}: {reason}")]
pub struct AnswerEvidenceError {
    /// Which step: form, answer, signer, headers, committees, certificate.
    pub step: &'static str,
    /// What was expected and what was found.
    pub reason: String,
}

/// Why the signer's key is taken for a node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedBy {
    /// The genesis names it, by this name.
    Genesis {
        /// The identity's name.
        name: String,
    },
    /// The verifier named it.
    Verifier,
}

/// What evidence that verified says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedAnswer {
    /// The answer.
    pub answer: Answer,
    /// Why its signer is trusted.
    pub signer: TrustedBy,
    /// The certified header, at or above the answer's height.
    pub certified: Header,
    /// How many validators signed it, of how many.
    pub signed: (usize, usize),
}

fn failed<E: std::fmt::Display>(step: &'static str) -> impl Fn(E) -> AnswerEvidenceError {
    move |error| AnswerEvidenceError { step, reason: error.to_string() }
}

impl AnswerEvidence {
    /// The file's bytes.
    ///
    /// # Errors
    /// Never for evidence that fits into memory; the error is the serialiser's.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        form::write(self)
    }

    /// Reads a file's bytes, strictly.
    ///
    /// # Errors
    /// When they are not what [`AnswerEvidence::to_json`] writes for their content.
    pub fn from_json(bytes: &[u8]) -> Result<Self, AnswerEvidenceError> {
        let fail = |reason| AnswerEvidenceError { step: "form", reason };
        let evidence: Self = form::read(bytes, ANSWER_EVIDENCE_BYTES_MAX, "evidence of an answer").map_err(fail)?;
        if evidence.format != ANSWER_EVIDENCE_MARK {
            return Err(fail(format!("expected format {ANSWER_EVIDENCE_MARK:?}, found {:?}", evidence.format)));
        }
        if evidence.headers.is_empty() || evidence.headers.len() > HEADERS_MAX {
            return Err(fail(format!("expected 1 to {HEADERS_MAX} headers, found {}", evidence.headers.len())));
        }
        Ok(evidence)
    }

    /// Checks every link: signature, signer, headers, committees, certificate. `trusted` are the keys of nodes that the
    /// verifier knows, beside those of the genesis.
    ///
    /// # Errors
    /// Names the first step that does not hold, what was expected and what was found.
    pub fn verify(&self, genesis: &Genesis, trusted: &[PublicKey]) -> Result<VerifiedAnswer, AnswerEvidenceError> {
        let signed = SignedAnswer::decode(&self.answer.0).map_err(failed("answer"))?;
        signed.verify(&self.signer, &genesis.tag()).map_err(failed("answer"))?;
        let answer = signed.into_answer();
        let signer = self.check_signer(&answer, genesis, trusted)?;
        let certified = self.check_headers(&answer)?;
        let committee = walk(genesis, &self.committees).map_err(failed("committees"))?;
        committee.check_header(genesis, &certified).map_err(failed("committees"))?;
        let signers =
            committee.check_certificate(genesis, &certified, &self.certificate.0).map_err(failed("certificate"))?;
        Ok(VerifiedAnswer { answer, signer, certified, signed: (signers, committee.committee.len()) })
    }

    /// Anybody can make a key and sign: it has to be one that stands for something.
    fn check_signer(
        &self,
        answer: &Answer,
        genesis: &Genesis,
        trusted: &[PublicKey],
    ) -> Result<TrustedBy, AnswerEvidenceError> {
        if trusted.contains(&self.signer) {
            return Ok(TrustedBy::Verifier);
        }
        let named = genesis.identities.iter().find(|identity| identity.public_key == self.signer);
        match named.filter(|identity| IdentityId::of(&identity.public_key) == answer.node) {
            Some(identity) => Ok(TrustedBy::Genesis { name: identity.name.clone() }),
            None => Err(AnswerEvidenceError {
                step: "signer",
                reason: format!(
                    "expected a key of an identity of the genesis, or one that the verifier names; found {} by identity {}",
                    self.signer, answer.node
                ),
            }),
        }
    }

    /// From the answer's block to the last header.
    fn check_headers(&self, answer: &Answer) -> Result<Header, AnswerEvidenceError> {
        let fail = |reason: String| AnswerEvidenceError { step: "headers", reason };
        let mut headers = self.headers.iter().map(|header| Header::decode(&header.0).map_err(failed("headers")));
        let first = headers.next().unwrap_or_else(|| Err(fail("expected one at least, found none".to_owned())))?;
        if first.height != answer.height || first.digest() != answer.block {
            return Err(fail(format!(
                "the answer is of height {}, block {}; the first header is of {}, block {}",
                answer.height,
                answer.block,
                first.height,
                first.digest()
            )));
        }
        if first.state_root != answer.state_root {
            let (found, expected) = (answer.state_root, first.state_root);
            return Err(fail(format!("the answer names the state root {found}, the header has {expected}")));
        }
        let mut last = first;
        for next in headers {
            let next = next?;
            if next.height != last.height.next() || next.parent != last.digest() {
                let (expected, found) = (last.digest(), next.parent);
                return Err(fail(format!("header {}: expected the parent {expected}, found {found}", next.height)));
            }
            last = next;
        }
        Ok(last)
    }
}
