//! A statement on its way into the state, with the work done that needs no state.
//!
//! Decoding and checking signatures is nearly all of what a statement costs, and needs nothing of those before it. Whoever
//! has several processors prepares many statements at once; the state itself starts no thread. A signature that was
//! checked ahead counts only if the signer's key is still that one when the statement is applied; otherwise it is checked
//! again. So the outcome is the same as without preparation.

use cairn_proof::Digest;
use cairn_proof::identity::{IdentityId, PublicKey};
use cairn_proof::statement::{ChainTag, SignedStatement, StatementError};
use cairn_proof::tree;

/// A statement that was decoded, and perhaps verified under a key.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(crate) decoded: Result<SignedStatement, StatementError>,
    /// Hash of the envelope as a leaf: of the log, and of the block's statements.
    pub(crate) leaf: Digest,
    /// The key under which the signature was found to hold.
    pub(crate) verified: Option<PublicKey>,
}

impl Prepared {
    /// Decodes an envelope. One that does not decode is refused when it is applied.
    #[must_use]
    pub fn decode(envelope: &[u8]) -> Self {
        Self { decoded: SignedStatement::decode(envelope), leaf: tree::leaf_hash(envelope), verified: None }
    }

    /// Takes a statement that was decoded from `envelope` before.
    #[must_use]
    pub fn of(signed: SignedStatement, envelope: &[u8]) -> Self {
        Self { decoded: Ok(signed), leaf: tree::leaf_hash(envelope), verified: None }
    }

    /// Who is said to have signed, if it decoded.
    #[must_use]
    pub fn signer(&self) -> Option<IdentityId> {
        self.decoded.as_ref().ok().map(|signed| signed.statement().signer)
    }

    /// Checks the signature, strictly, and remembers the key if it holds.
    pub fn verify(&mut self, key: &PublicKey, chain: &ChainTag) {
        if let Ok(signed) = &self.decoded
            && signed.verify(key, chain).is_ok()
        {
            self.verified = Some(*key);
        }
    }
}
