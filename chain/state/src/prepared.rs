//! A statement on its way into the state, with the work done that needs no state.
//!
//! Decoding and checking signatures is nearly all of what a statement costs, and needs nothing of those before it. Whoever
//! has several processors prepares many statements at once; the state itself starts no thread. A signature that was
//! checked ahead counts only if the signer's key is still that one when the statement is applied; otherwise it is checked
//! again. So the outcome is the same as without preparation.

use std::sync::Arc;

use cairn_proof::Digest;
use cairn_proof::identity::{IdentityId, PublicKey};
use cairn_proof::statement::{Body, ChainTag, SignedStatement, StatementError, log_entries, statement_id};
use cairn_proof::tree;

/// An anchor's entry in the log, by its hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEntry {
    /// The anchor's id: SHA-256 of the entry.
    pub id: Digest,
    /// Hash of the entry as a leaf of the log.
    pub leaf: Digest,
}

impl LogEntry {
    /// The hashes of an entry's bytes.
    #[must_use]
    pub fn of(entry: &[u8]) -> Self {
        Self { id: statement_id(entry), leaf: tree::leaf_hash(entry) }
    }
}

/// A statement that was decoded, and perhaps verified under a key. Clones share what was decoded.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(crate) decoded: Result<Arc<SignedStatement>, StatementError>,
    /// What its anchors are in the log, in their order; empty for a statement of another kind.
    pub(crate) entries: Arc<[LogEntry]>,
    /// The key under which the signature was found to hold.
    pub(crate) verified: Option<PublicKey>,
}

impl Prepared {
    /// Decodes an envelope. One that does not decode is refused when it is applied.
    #[must_use]
    pub fn decode(envelope: &[u8]) -> Self {
        let decoded = SignedStatement::decode(envelope);
        let entries = decoded.as_ref().map(|signed| entries(signed, envelope)).unwrap_or_default();
        Self { decoded: decoded.map(Arc::new), entries, verified: None }
    }

    /// Takes a statement that was decoded from `envelope` before.
    #[must_use]
    pub fn of(signed: SignedStatement, envelope: &[u8]) -> Self {
        let entries = entries(&signed, envelope);
        Self { decoded: Ok(Arc::new(signed)), entries, verified: None }
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

/// The hashing that the log needs; it is most of what an anchor costs beside its share of the signature.
fn entries(signed: &SignedStatement, envelope: &[u8]) -> Arc<[LogEntry]> {
    match &signed.statement().body {
        Body::Anchor(_) => Arc::new([LogEntry { id: signed.id(), leaf: tree::leaf_hash(envelope) }]),
        Body::Anchors(_) => log_entries(envelope).iter().map(|entry| LogEntry::of(entry)).collect(),
        _ => Arc::default(),
    }
}
