//! Statements: everything that anybody says to the chain, in one signed envelope with one replay rule.
//!
//! ```text
//! envelope  = 18([protected, {}, payload, signature])                COSE_Sign1, tagged (RFC 9052, section 4.2)
//! protected = {1: -8 (EdDSA), 3: content type, 4: key id = the signer's identity id, 32 bytes}
//! payload   = deterministic CBOR map; key 1 is the sequence number, the others depend on the content type
//! signed    = Sig_structure with external_aad = the chain's tag, 32 bytes (RFC 9052, section 4.4)
//! ```
//!
//! The content type separates purposes, the chain's tag separates chains. A statement has exactly one encoding:
//! decoding refuses every other. Whether a statement is *allowed* is not decided here but in the chain's state.

mod anchor;
mod envelope;
mod identity;
mod stream;

pub use anchor::{Anchor, GAPS_MAX, Gap, SegmentRef};
pub use envelope::{SignedStatement, statement_id};
pub use identity::RegisterIdentity;
pub use stream::{BatchLimits, Format, SchemaVersion, StreamDefinition};

use crate::cbor::{CborError, Reader, Writer};
use crate::digest::Digest;
use crate::identity::{IdentityId, SigningKey};
use crate::units::Sequence;

/// A statement is smaller than an entry of a C2SP tiled log may be.
pub const STATEMENT_BYTES_MAX: usize = 65_535;

/// Binds signatures to one chain: SHA-256 of the genesis encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainTag(pub Digest);

/// Why bytes are not a statement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Longer than allowed.
    #[error("a statement has at most {STATEMENT_BYTES_MAX} bytes, this one has {found}")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// The envelope is not one of ours.
    #[error("not a COSE_Sign1 envelope of Cairn: {0}")]
    Envelope(String),
    /// The payload is not what the content type says.
    #[error("the payload does not decode: {0}")]
    Payload(#[from] CborError),
    /// A field holds what it may not hold.
    #[error("field {field}: expected {expected}, found {found}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is allowed.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The signature is not by that key over these bytes on this chain.
    #[error("the signature does not verify for identity {signer}: wrong key, wrong chain, or changed bytes")]
    Signature {
        /// The identity that is said to have signed.
        signer: IdentityId,
    },
}

impl StatementError {
    // By value, so that a caller writes a number or a text as it is.
    #[allow(clippy::needless_pass_by_value)]
    fn field(field: &'static str, expected: impl Into<String>, found: impl ToString) -> Self {
        let found: String = found.to_string().chars().take(120).collect();
        Self::Field { field, expected: expected.into(), found }
    }
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A new identity, registered by its controller.
    RegisterIdentity(RegisterIdentity),
    /// A new stream, registered by its owner.
    RegisterStream(StreamDefinition),
    /// One batch of a partition.
    Anchor(Anchor),
}

impl Body {
    /// The content type in the protected header.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        match self {
            Self::RegisterIdentity(_) => identity::CONTENT_TYPE,
            Self::RegisterStream(_) => stream::CONTENT_TYPE,
            Self::Anchor(_) => anchor::CONTENT_TYPE,
        }
    }

    fn write(&self, sequence: Sequence, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        match self {
            Self::RegisterIdentity(body) => body.write(sequence, &mut writer),
            Self::RegisterStream(body) => body.write(sequence, &mut writer),
            Self::Anchor(body) => body.write(sequence, &mut writer),
        }
    }

    fn read(content_type: &str, payload: &[u8]) -> Result<(Sequence, Self), StatementError> {
        let mut reader = Reader::new(payload);
        let (sequence, body) = match content_type {
            identity::CONTENT_TYPE => {
                let (sequence, body) = RegisterIdentity::read(&mut reader)?;
                (sequence, Self::RegisterIdentity(body))
            }
            stream::CONTENT_TYPE => {
                let (sequence, body) = StreamDefinition::read(&mut reader)?;
                (sequence, Self::RegisterStream(body))
            }
            anchor::CONTENT_TYPE => {
                let (sequence, body) = Anchor::read(&mut reader)?;
                (sequence, Self::Anchor(body))
            }
            other => return Err(StatementError::field("content type", "one that Cairn knows", other)),
        };
        reader.end()?;
        Ok((sequence, body))
    }

    /// Checks what can be checked without the chain's state: lengths, names, ranges, counts that must agree.
    ///
    /// # Errors
    /// Names the first field that holds what it may not hold.
    pub fn check(&self) -> Result<(), StatementError> {
        match self {
            Self::RegisterIdentity(body) => body.check(),
            Self::RegisterStream(body) => body.check(),
            Self::Anchor(body) => body.check(),
        }
    }
}

/// A statement before it is signed, or after it was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Who says it.
    pub signer: IdentityId,
    /// Greater than the signer's last one on the chain.
    pub sequence: Sequence,
    /// What is said.
    pub body: Body,
}

impl Statement {
    /// Signs the statement and returns the envelope's bytes.
    ///
    /// # Errors
    /// When a field holds what it may not hold, or the whole is too long.
    pub fn sign(&self, key: &SigningKey, chain: &ChainTag) -> Result<Vec<u8>, StatementError> {
        envelope::sign(self, key, chain)
    }
}

/// Checks a text's length and characters.
fn check_text(
    field: &'static str,
    text: &str,
    longest: usize,
    allowed: impl Fn(char) -> bool,
    rule: &str,
) -> Result<(), StatementError> {
    if text.is_empty() || text.len() > longest || !text.chars().all(allowed) {
        return Err(StatementError::field(field, format!("1 to {longest} bytes of {rule}"), format!("{text:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
